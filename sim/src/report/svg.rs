//! Drawing by hand: shapes, scales and ticks. Colours and strokes are the style sheet's; shapes only name a class.
//!
//! Not here: what is drawn (`charts`, `matrix`).

use super::units;

/// A place in a picture: to the right, and downwards.
pub(super) type Point = (f64, f64);

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One picture. Coordinates are those of its view box; every text is escaped here.
pub(super) struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

/// A coordinate with one digit after the point, and none where that is 0.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn titled(tag: &str, attributes: &str, tip: &str) -> String {
    if tip.is_empty() {
        format!("<{tag} {attributes}/>")
    } else {
        format!("<{tag} {attributes}><title>{}</title></{tag}>", units::escape(tip))
    }
}

impl Svg {
    /// An empty picture; `label` says what it shows to those who do not see it.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        Self { width, height, label: label.to_owned(), body: String::new() }
    }

    pub(super) fn rect(&mut self, (x, y): Point, (width, height): Point, class: &str, tip: &str) {
        let (x, y, width, height) = (short(x), short(y), short(width.max(0.0)), short(height.max(0.0)));
        let attributes = format!(r#"class="{class}" x="{x}" y="{y}" width="{width}" height="{height}""#);
        self.body.push_str(&titled("rect", &attributes, tip));
    }

    pub(super) fn line(&mut self, (x1, y1): Point, (x2, y2): Point, class: &str) {
        let (x1, y1, x2, y2) = (short(x1), short(y1), short(x2), short(y2));
        self.body.push_str(&format!(r#"<path class="{class}" d="M{x1} {y1}L{x2} {y2}"/>"#));
    }

    pub(super) fn dot(&mut self, (x, y): Point, radius: f64, class: &str, tip: &str) {
        let (x, y, radius) = (short(x), short(y), short(radius));
        self.body.push_str(&titled("circle", &format!(r#"class="{class}" cx="{x}" cy="{y}" r="{radius}""#), tip));
    }

    pub(super) fn path(&mut self, points: &[Point], class: &str) {
        let mut data = String::new();
        for (n, (x, y)) in points.iter().enumerate() {
            data.push_str(&format!("{}{} {}", if n == 0 { "M" } else { "L" }, short(*x), short(*y)));
        }
        if !data.is_empty() {
            self.body.push_str(&format!(r#"<path class="{class}" d="{data}"/>"#));
        }
    }

    /// Many separate strokes as one shape.
    pub(super) fn strokes(&mut self, strokes: &[(Point, Point)], class: &str) {
        let stroke = |((x1, y1), (x2, y2)): &(Point, Point)| {
            format!("M{} {}L{} {}", short(*x1), short(*y1), short(*x2), short(*y2))
        };
        let data: String = strokes.iter().map(stroke).collect();
        self.body.push_str(&format!(r#"<path class="{class}" d="{data}"/>"#));
    }

    pub(super) fn text(&mut self, (x, y): Point, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (short(x), short(y), units::escape(text));
        self.body.push_str(&format!(r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>"#));
    }

    /// A text that reads upwards.
    pub(super) fn text_upwards(&mut self, (x, y): Point, class: &str, text: &str) {
        let (x, y, text) = (short(x), short(y), units::escape(text));
        self.body.push_str(&format!(
            r#"<text class="{class}" transform="translate({x} {y}) rotate(-90)" text-anchor="middle">{text}</text>"#
        ));
    }

    pub(super) fn finish(self) -> String {
        let Self { width, height, label, body } = self;
        let (width, height, label) = (short(width), short(height), units::escape(&label));
        format!(r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}</svg>"#)
    }
}

/// From values to coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_log: bool,
}

impl Scale {
    /// `low` is drawn at `from`, `high` at `to`, and what is between in proportion.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, from, to, is_log: false }
    }

    /// The same in proportion of logarithms; `low` is above 0.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        let high = if high > low { high } else { low * 10.0 };
        Self { low: low.ln(), high: high.ln(), from, to, is_log: true }
    }

    /// The coordinate of `value`, kept within the scale.
    pub(super) fn at(&self, value: f64) -> f64 {
        let Self { low, high, from, to, is_log } = *self;
        let value = if is_log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        from + (to - from) * share
    }
}

/// 1, 2, 5, 10, 20, 50, … up to 5·10¹⁷.
fn round_numbers() -> impl Iterator<Item = u64> {
    (0..18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)))
}

/// Round numbers from 0 to at least `high`, at most `most` steps.
pub(super) fn ticks(high: u64, most: u64) -> Vec<u64> {
    let high = high.max(1);
    let step = round_numbers().find(|step| high.div_ceil(*step) <= most).unwrap_or(high);
    (0..=high.div_ceil(step)).map(|n| n * step).collect()
}

/// Round numbers on a logarithmic axis, the first not above `low` and the last not below `high`.
pub(super) fn log_ticks(low: u64, high: u64, most: usize) -> Vec<u64> {
    let choose = |all: Vec<u64>| -> Vec<u64> {
        let first = all.iter().rposition(|tick| *tick <= low.max(1)).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= high.max(2)).unwrap_or(all.len().saturating_sub(1));
        all.get(first..=last.max(first)).map(<[u64]>::to_vec).unwrap_or_default()
    };
    let fine = choose(round_numbers().collect());
    if fine.len() <= most {
        return fine;
    }
    choose((0..18).map(|power| 10_u64.pow(power)).collect())
}

/// Points thinned to what a line can show: of those in one column the first, the extremes and the last.
pub(super) fn thin(points: &[Point]) -> Vec<Point> {
    let mut out: Vec<Point> = Vec::new();
    for column in points.chunk_by(|(x, _), (next, _)| x.floor() == next.floor()) {
        if column.len() <= 4 {
            out.extend_from_slice(column);
            continue;
        }
        let low = column.iter().copied().min_by(|(_, a), (_, b)| a.total_cmp(b));
        let high = column.iter().copied().max_by(|(_, a), (_, b)| a.total_cmp(b));
        out.extend(column.first().copied().into_iter().chain(low).chain(high).chain(column.last().copied()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_cover() {
        assert_eq!(ticks(0, 5), [0, 1]);
        assert_eq!(ticks(7, 5), [0, 2, 4, 6, 8]);
        assert_eq!(ticks(1_234, 5), [0, 500, 1_000, 1_500]);
        assert_eq!(log_ticks(380_000, 2_200_000, 9), [200_000, 500_000, 1_000_000, 2_000_000, 5_000_000]);
        assert_eq!(log_ticks(1, 1_000_000, 9).len(), 7);
        assert!(ticks(u64::MAX, 5).len() <= 6);
    }

    #[test]
    fn scales_keep_within_their_ends() {
        let scale = Scale::linear(0.0, 10.0, 100.0, 0.0);
        assert_eq!((scale.at(5.0), scale.at(-1.0), scale.at(11.0)), (50.0, 100.0, 0.0));
        let scale = Scale::log(1.0, 100.0, 0.0, 10.0);
        assert!((scale.at(10.0) - 5.0).abs() < 1e-9);
        assert_eq!(scale.at(0.0), 0.0);
        assert!(Scale::linear(3.0, 3.0, 0.0, 1.0).at(3.0).is_finite());
    }

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let points: Vec<_> = (0..1_000).map(|n| (f64::from(n) / 500.0, if n == 700 { 9.0 } else { 1.0 })).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= 8);
        assert!(thinned.contains(&(1.4, 9.0)));
        assert_eq!((thinned.first(), thinned.last()), (points.first(), points.last()));
    }
}
