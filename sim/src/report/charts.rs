//! The plots over virtual time: fault lanes, convergence, false alarms, traffic.
//!
//! All have the same width and margins, so that one instant is at one place in all of them.
//!
//! Not here: distributions (`spreads`), matrices (`matrix`), the page around them (`html`).

use gossipd::record::Status;

use super::figures::{self, Alarms};
use super::svg::{self, Anchor, Scale, Svg};
use super::{Pair, units};
use crate::outcome::{FaultLane, Outcome};

const WIDTH: f64 = 1_040.0;
pub(super) const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 18.0;
/// Room for tick labels and the axis title.
const FOOT: f64 = 38.0;
/// The width of a letter of a label, at most.
const LETTER: f64 = 7.2;
/// Lanes drawn before the rest is only counted.
const LANES_MAX: usize = 24;
/// Bars drawn in one lane.
const BARS_MAX: usize = 400;
/// Bins of the bar charts.
const BINS: u64 = 150;
const SECOND_US: u64 = 1_000_000;

/// The time axis that the plots of one outcome share.
pub(super) struct Timeline {
    span_us: u64,
    scale: Scale,
    step_us: u64,
    faults: Vec<(u64, u64)>,
}

impl Timeline {
    pub(super) fn new(pair: &Pair<'_>) -> Self {
        let span_us = pair.each().map(|(_, _, outcome)| outcome.span_us).max().unwrap_or(1).max(1);
        let milliseconds = [1, 2, 5, 10, 20, 50, 100, 200, 500].map(|ms| ms * 1_000);
        let seconds =
            [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400].map(|s| s * SECOND_US);
        let mut steps = milliseconds.into_iter().chain(seconds);
        let step_us = steps.find(|step| span_us / step <= 12).unwrap_or(span_us);
        Self {
            span_us,
            scale: Scale::linear(0.0, span_us as f64, LEFT, RIGHT),
            step_us,
            faults: shaded(&pair.ours.faults, span_us),
        }
    }

    pub(super) fn x(&self, us: u64) -> f64 {
        self.scale.at(us as f64)
    }

    /// The axis below a plot that ends at `bottom`, and the shading of faults behind it.
    fn frame(&self, svg: &mut Svg, top: f64, bottom: f64) {
        for (from_us, to_us) in &self.faults {
            let (from, to) = (self.x(*from_us), self.x(*to_us));
            svg.rect((from, top), ((to - from).max(1.0), bottom - top), "shade", "");
        }
        svg.line((LEFT, bottom), (RIGHT, bottom), "axis");
        let (unit, unit_us) = if self.step_us >= SECOND_US { ("s", SECOND_US) } else { ("ms", 1_000) };
        for at_us in (0..=self.span_us / self.step_us).map(|n| n * self.step_us) {
            let x = self.x(at_us);
            svg.line((x, bottom), (x, bottom + 4.0), "axis");
            svg.text((x, bottom + 17.0), Anchor::Middle, "tick", &units::thousands(at_us / unit_us));
        }
        let title = format!("virtual time, {unit}");
        svg.text((RIGHT, bottom + 33.0), Anchor::End, "axis-title", &title);
    }
}

/// Where faults were, overlaps joined. A fault of the whole run shades nothing.
fn shaded(faults: &[FaultLane], span_us: u64) -> Vec<(u64, u64)> {
    let interval = |lane: &FaultLane| (lane.from_us, lane.to_us.unwrap_or(span_us).min(span_us));
    let mut intervals: Vec<_> = faults.iter().map(interval).filter(|(from, to)| to - from.min(to) < span_us).collect();
    intervals.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in intervals {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// Horizontal lines and labels of a vertical axis with a title.
fn levels(svg: &mut Svg, scale: &Scale, levels: &[(f64, String)], title: &str, middle: f64) {
    for (value, label) in levels {
        let y = scale.at(*value);
        svg.line((LEFT, y), (RIGHT, y), "level");
        svg.text((LEFT - 8.0, y + 4.0), Anchor::End, "tick", label);
    }
    svg.text_upwards((14.0, middle), "axis-title", title);
}

// ---- fault lanes ---------------------------------------------------------------------------------------------------

/// One lane for each kind of fault and the hosts that it hit, with a bar for each time it did.
pub(super) fn lanes(timeline: &Timeline, faults: &[FaultLane]) -> String {
    const LANE: f64 = 34.0;
    let mut lanes: Vec<Vec<&FaultLane>> = Vec::new();
    for fault in faults {
        let same = |lane: &&mut Vec<&FaultLane>| {
            lane.first().is_some_and(|first| first.kind == fault.kind && first.hosts == fault.hosts)
        };
        match lanes.iter_mut().find(same) {
            Some(lane) => lane.push(fault),
            None => lanes.push(vec![fault]),
        }
    }
    let more = lanes.len().saturating_sub(LANES_MAX);
    lanes.truncate(LANES_MAX);
    let bottom = 6.0 + LANE * lanes.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "Faults over virtual time");
    timeline.frame(&mut svg, 0.0, bottom);
    for (n, lane) in lanes.iter().enumerate() {
        let top = 6.0 + LANE * n as f64;
        draw_lane(timeline, &mut svg, lane, top);
    }
    if more > 0 {
        svg.text((LEFT, bottom + 33.0), Anchor::Start, "axis-title", &format!("and {more} lanes more"));
    }
    svg.finish()
}

fn draw_lane(timeline: &Timeline, svg: &mut Svg, lane: &[&FaultLane], top: f64) {
    let Some(first) = lane.first() else { return };
    let hits: u64 = lane.iter().map(|fault| fault.hits).sum();
    let times = if lane.len() > 1 { format!(", {} times", units::thousands(lane.len() as u64)) } else { String::new() };
    let open = if lane.iter().any(|fault| fault.to_us.is_none()) { " · to the end" } else { "" };
    let label = format!("{}{times} · {}{open}", units::fault(first), units::hits(hits));
    // Above the first bar, and within the plot.
    let x = timeline.x(first.from_us);
    if x + LETTER * label.chars().count() as f64 > RIGHT {
        svg.text((RIGHT, top + 11.0), Anchor::End, "lane-label", &label);
    } else {
        svg.text((x, top + 11.0), Anchor::Start, "lane-label", &label);
    }
    for fault in lane.iter().take(BARS_MAX) {
        let FaultLane { kind: _, hosts: _, from_us, to_us, hits } = fault;
        let (from, to) = (timeline.x(*from_us), timeline.x(to_us.unwrap_or(timeline.span_us)));
        let end = to_us.map_or_else(|| "the end".to_owned(), units::round_span);
        let tip = format!("{}: {} to {end}, {}", units::fault(fault), units::round_span(*from_us), units::hits(*hits));
        svg.rect((from, top + 16.0), ((to - from).max(3.0), 11.0), "fault", &tip);
    }
}

// ---- convergence ---------------------------------------------------------------------------------------------------

/// The share of right pairs over time.
pub(super) fn convergence(timeline: &Timeline, pair: &Pair<'_>) -> String {
    let (top, bottom) = (10.0, 210.0);
    let floor = pair.each().map(|(_, _, outcome)| floor(outcome)).min().unwrap_or(0);
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "Share of right pairs over virtual time");
    timeline.frame(&mut svg, top, bottom);
    let scale = Scale::linear(f64::from(floor), 1_000_000.0, bottom, top);
    let step = (1_000_000 - floor) / 5;
    let marks: Vec<_> = (0..=5).map(|n| floor + n * step).map(|ppm| (f64::from(ppm), tick_percent(ppm))).collect();
    levels(&mut svg, &scale, &marks, "right pairs, %", f64::midpoint(top, bottom));
    if floor > 0 {
        let note = format!("the axis begins at {} %", tick_percent(floor));
        svg.text((LEFT, bottom + 33.0), Anchor::Start, "axis-title", &note);
    }
    // The first series is drawn last, on top.
    for (n, _, outcome) in pair.each().rev() {
        let point = |(at_us, ppm): &(u64, u32)| (timeline.x(*at_us), scale.at(f64::from(*ppm)));
        let points: Vec<_> = outcome.convergence.iter().map(point).collect();
        svg.path(&svg::thin(&points), &format!("line s{n}"));
    }
    svg.finish()
}

/// `968000` → `96.8`.
fn tick_percent(ppm: u32) -> String {
    let (whole, rest) = (ppm / 10_000, ppm % 10_000);
    match rest {
        0 => whole.to_string(),
        rest => format!("{whole}.{rest:04}").trim_end_matches('0').to_owned(),
    }
}

/// Where the axis may begin so that all is seen that comes after the join, in parts per million.
fn floor(outcome: &Outcome) -> u32 {
    let after_join = outcome.convergence.iter().skip_while(|(_, ppm)| *ppm < 999_000).map(|(_, ppm)| *ppm);
    let low = after_join.min().unwrap_or(0);
    [990_000, 950_000, 900_000, 500_000].into_iter().find(|floor| *floor <= low).unwrap_or(0)
}

// ---- false alarms --------------------------------------------------------------------------------------------------

/// Accusations of healthy nodes over time: a row for each protocol, the same scale in both.
pub(super) fn alarms(timeline: &Timeline, pair: &Pair<'_>) -> String {
    const ROW: f64 = 64.0;
    const GAP: f64 = 30.0;
    let rows: Vec<_> = pair.each().map(|(_, name, outcome)| (name, binned(timeline, outcome), outcome)).collect();
    let most = rows.iter().flat_map(|(_, bins, _)| bins).map(|(suspect, down)| suspect + down).max().unwrap_or(0);
    let bottom = (ROW + GAP) * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "False alarms over virtual time");
    timeline.frame(&mut svg, 0.0, bottom);
    for (n, (name, bins, outcome)) in rows.iter().enumerate() {
        let top = (ROW + GAP) * n as f64 + GAP;
        let base = top + ROW;
        let scale = Scale::linear(0.0, most.max(1) as f64, base, top);
        svg.line((LEFT, base), (RIGHT, base), "axis");
        svg.line((LEFT, top), (RIGHT, top), "level");
        svg.text((LEFT - 8.0, base + 1.0), Anchor::End, "tick", "0");
        svg.text((LEFT - 8.0, top + 4.0), Anchor::End, "tick", &units::thousands(most.max(1)));
        let title = format!("{name}: {}", alarm_words(&figures::alarms(outcome)));
        svg.text((LEFT, top - 10.0), Anchor::Start, &format!("row-label t{n}"), &title);
        let width = (RIGHT - LEFT) / BINS as f64;
        for (bin, (suspect, down)) in bins.iter().enumerate().filter(|(_, (suspect, down))| suspect + down > 0) {
            let x = LEFT + width * bin as f64;
            let (upper, lower) = (scale.at((suspect + down) as f64).min(base - 2.0), scale.at(*down as f64));
            let at_us = timeline.span_us * bin as u64 / BINS;
            let tip = format!("{name} from {}: {suspect} suspected, {down} listed down", units::round_span(at_us));
            if *suspect > 0 {
                svg.rect((x + 0.5, upper), (width - 1.0, lower - upper), "alarm-suspect", &tip);
            }
            if *down > 0 {
                let lower = lower.min(base - 2.0);
                svg.rect((x + 0.5, lower), (width - 1.0, base - lower), "alarm-down", &tip);
            }
        }
    }
    svg.text_upwards((14.0, bottom / 2.0), "axis-title", "alarms in a bar");
    svg.finish()
}

fn alarm_words(alarms: &Alarms) -> String {
    let Alarms { suspect, down, from_sick } = alarms;
    if suspect + down == 0 {
        return "none".to_owned();
    }
    let (suspect, down) = (units::thousands(*suspect), units::thousands(*down));
    let sick = match from_sick {
        0 => String::new(),
        sick => format!(", {} of them by nodes under a fault", units::thousands(*sick)),
    };
    format!("{suspect} suspected, {down} listed down{sick}")
}

fn binned(timeline: &Timeline, outcome: &Outcome) -> Vec<(u64, u64)> {
    let mut bins = vec![(0, 0); usize::try_from(BINS).unwrap_or(0)];
    for change in &outcome.changes {
        let Some(status) = figures::alarm(change) else { continue };
        let at = u128::from(change.at_us) * u128::from(BINS) / u128::from(timeline.span_us);
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(bins.len().saturating_sub(1));
        if let Some((suspect, down)) = bins.get_mut(at) {
            let count = if status == Status::Suspect { suspect } else { down };
            *count += 1;
        }
    }
    bins
}

// ---- traffic -------------------------------------------------------------------------------------------------------

/// Wire bytes for each node and second. The axis is logarithmic when the most is far above the usual.
pub(super) fn traffic(timeline: &Timeline, pair: &Pair<'_>) -> String {
    const FAR: u64 = 30;
    let (top, bottom) = (10.0, 210.0);
    let mut rates: Vec<_> =
        pair.each().flat_map(|(_, _, outcome)| &outcome.seconds).map(figures::node_rate).filter(|b| *b > 0).collect();
    rates.sort_unstable();
    let (least, most) = (rates.first().copied().unwrap_or(1), rates.last().copied().unwrap_or(1));
    let is_log = most > FAR * figures::rank(&rates, 500).unwrap_or(1);
    let (marks, scale) = if is_log {
        let marks = svg::log_ticks(least, most, 6);
        let (low, high) = (marks.first().copied().unwrap_or(1), marks.last().copied().unwrap_or(10));
        (marks, Scale::log(low as f64, high as f64, bottom, top))
    } else {
        let marks = svg::ticks(most, 5);
        let high = marks.last().copied().unwrap_or(1);
        (marks, Scale::linear(0.0, high as f64, bottom, top))
    };
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "Bytes for each node and second over virtual time");
    timeline.frame(&mut svg, top, bottom);
    let marks: Vec<_> = marks.into_iter().map(|mark| (mark as f64, units::thousands(mark))).collect();
    levels(&mut svg, &scale, &marks, "B for each node and s", f64::midpoint(top, bottom));
    if is_log {
        svg.text((LEFT, bottom + 33.0), Anchor::Start, "axis-title", "logarithmic");
    }
    for (n, _, outcome) in pair.each().rev() {
        let point = |(at_s, second)| {
            let middle_us = at_s * SECOND_US + SECOND_US / 2;
            (timeline.x(middle_us), scale.at(figures::node_rate(second) as f64))
        };
        let points: Vec<_> = (0_u64..).zip(&outcome.seconds).map(point).collect();
        svg.path(&svg::thin(&points), &format!("line s{n}"));
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn overlapping_faults_shade_once_and_a_whole_run_not_at_all() {
        let lane = |from_us, to_us| FaultLane { kind: String::new(), hosts: Vec::new(), from_us, to_us, hits: 0 };
        let faults = [lane(0, None), lane(10, Some(20)), lane(15, Some(30)), lane(50, Some(60)), lane(90, None)];
        assert_eq!(shaded(&faults, 100), [(10, 30), (50, 60), (90, 100)]);
    }

    #[test]
    fn repeated_faults_share_a_lane() {
        let outcome = sample::grid();
        let pair = Pair { ours: &outcome, before: None };
        let drawn = lanes(&Timeline::new(&pair), &outcome.faults);
        assert_eq!(drawn.matches("lane-label").count(), 9);
        assert_eq!(drawn.matches("class=\"fault\"").count(), 36);
    }

    #[test]
    fn the_convergence_axis_begins_where_it_shows_most() {
        let (ours, foca) = sample::deaf();
        assert_eq!((floor(&ours), floor(&foca)), (950_000, 900_000));
        assert_eq!(floor(&sample::split().0), 0);
        assert_eq!(tick_percent(968_000), "96.8");
        assert_eq!(tick_percent(1_000_000), "100");
        assert_eq!(tick_percent(999_200), "99.92");
    }
}
