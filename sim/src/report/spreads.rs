//! Distributions: how late crashes were detected, and how the bytes were spread over the hosts.
//!
//! Not here: what goes over time (`charts`).

use super::figures::{self, Latencies};
use super::svg::{self, Anchor, Scale, Svg};
use super::{Pair, units};

const WIDTH: f64 = 510.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 30.0;
const FOOT: f64 = 38.0;
/// Hosts drawn one by one; more would be a blot.
const DOTS_MAX: usize = 400;

/// From the crash to `down`: the share of observers that had seen it, over a logarithmic time.
pub(super) fn detection(pair: &Pair<'_>) -> String {
    let (top, bottom) = (12.0, 212.0);
    let found: Vec<_> =
        pair.each().map(|(n, name, outcome)| (n, name, figures::latencies(outcome))).rev().collect::<Vec<_>>();
    let all = || found.iter().flat_map(|(_, _, latencies)| &latencies.all_us).copied();
    let marks = svg::log_ticks(all().min().unwrap_or(1_000), all().max().unwrap_or(10_000), 7);
    let (low, high) = (marks.first().copied().unwrap_or(1), marks.last().copied().unwrap_or(10));
    let x = Scale::log(low as f64, high as f64, LEFT, RIGHT);
    let y = Scale::linear(0.0, 100.0, bottom, top);
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "Detection latency");
    for mark in marks {
        let at = x.at(mark as f64);
        svg.line((at, top), (at, bottom), "level");
        svg.text((at, bottom + 17.0), Anchor::Middle, "tick", &units::round_span(mark));
    }
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        svg.line((LEFT, y.at(percent)), (RIGHT, y.at(percent)), "level");
        svg.text((LEFT - 8.0, y.at(percent) + 4.0), Anchor::End, "tick", &format!("{percent:.0}"));
    }
    svg.line((LEFT, bottom), (RIGHT, bottom), "axis");
    svg.text_upwards((14.0, f64::midpoint(top, bottom)), "axis-title", "observers that know, %");
    svg.text((RIGHT, bottom + 33.0), Anchor::End, "axis-title", "time since the crash, logarithmic");
    for (n, name, latencies) in &found {
        curve(&mut svg, (&x, &y), (*n, name), latencies);
    }
    svg.finish()
}

fn curve(svg: &mut Svg, (x, y): (&Scale, &Scale), (n, name): (usize, &str), latencies: &Latencies) {
    let Latencies { all_us, missed } = latencies;
    let expected = (all_us.len() + missed).max(1) as f64;
    let share = |count: usize| count as f64 * 100.0 / expected;
    let mut points = Vec::new();
    for (count, us) in all_us.iter().enumerate() {
        let at = x.at(*us as f64);
        points.push((at, y.at(share(count))));
        points.push((at, y.at(share(count + 1))));
    }
    if let Some((_, last)) = points.last().copied() {
        points.push((RIGHT, last));
    }
    svg.path(&svg::thin(&points), &format!("line s{n}"));
    for (what, permille) in [("p50", 500), ("p99", 990), ("max", 1_000)] {
        let Some(us) = figures::rank(all_us, permille) else { continue };
        let count = (all_us.len() * permille).div_ceil(1_000);
        let point = (x.at(us as f64), y.at(share(count)));
        svg.dot(point, 4.0, &format!("mark s{n}"), &format!("{name}: {what} {}", units::span(us)));
        // The first series is labelled on its left, the second on its right: they do not meet between.
        let (dx, anchor) = if n == 0 { (-8.0, Anchor::End) } else { (8.0, Anchor::Start) };
        if what == "p50" {
            svg.text((point.0 + dx, point.1 + 4.0), anchor, &format!("mark-label t{n}"), &units::span(us));
        }
    }
}

/// The table under the curve.
pub(super) fn detection_rows(pair: &Pair<'_>) -> Vec<Vec<String>> {
    let row = |(_, name, outcome): (usize, &str, &crate::outcome::Outcome)| {
        let Latencies { all_us, missed } = figures::latencies(outcome);
        let at = |permille| units::maybe("us", figures::rank(&all_us, permille));
        let first = units::maybe("us", all_us.first().copied());
        vec![name.to_owned(), first, at(500), at(990), at(1_000), units::thousands(missed as u64)]
    };
    pair.each().map(row).collect()
}

/// Wire bytes of the whole run by host: each host a dot, the quarters as a box.
pub(super) fn hosts(pair: &Pair<'_>) -> String {
    const ROW: f64 = 84.0;
    let rows: Vec<_> = pair.each().map(|(n, name, outcome)| (n, name, sorted(&outcome.bytes_by_host))).collect();
    let most = rows.iter().filter_map(|(_, _, bytes)| bytes.last()).max().copied().unwrap_or(1);
    let marks = svg::ticks(most, 4);
    let x = Scale::linear(0.0, marks.last().copied().unwrap_or(1) as f64, LEFT, RIGHT);
    let (top, bottom) = (12.0, 12.0 + ROW * rows.len() as f64);
    let mut svg = Svg::new(WIDTH, bottom + FOOT, "Bytes by host");
    for mark in marks {
        let at = x.at(mark as f64);
        svg.line((at, top), (at, bottom), "level");
        svg.text((at, bottom + 17.0), Anchor::Middle, "tick", &units::thousands(mark));
    }
    svg.line((LEFT, bottom), (RIGHT, bottom), "axis");
    svg.text((RIGHT, bottom + 33.0), Anchor::End, "axis-title", "bytes sent in the whole run, for each host");
    for (n, name, bytes) in rows {
        let middle = top + ROW * n as f64 + ROW / 2.0 + 8.0;
        svg.text((LEFT, middle - 26.0), Anchor::Start, &format!("row-label t{n}"), name);
        let step = bytes.len().div_ceil(DOTS_MAX).max(1);
        for (at, byte) in bytes.iter().enumerate().step_by(step) {
            let offset = (at * 7 % 13) as f64 - 6.0;
            svg.dot((x.at(*byte as f64), middle + offset), 2.2, &format!("host s{n}"), "");
        }
        let at = |permille| figures::rank(&bytes, permille).map(|byte| x.at(byte as f64));
        if let (Some(low), Some(quarter), Some(half), Some(three), Some(high)) =
            (at(0), at(250), at(500), at(750), at(1_000))
        {
            svg.line((low, middle), (high, middle), &format!("whisker s{n}"));
            svg.rect((quarter, middle - 11.0), ((three - quarter).max(1.0), 22.0), &format!("box s{n}"), "");
            svg.line((half, middle - 15.0), (half, middle + 15.0), &format!("median s{n}"));
        }
    }
    svg.finish()
}

fn sorted(bytes: &[u64]) -> Vec<u64> {
    let mut bytes = bytes.to_vec();
    bytes.sort_unstable();
    bytes
}

/// The table under it.
pub(super) fn hosts_rows(pair: &Pair<'_>) -> Vec<Vec<String>> {
    let row = |(_, name, outcome): (usize, &str, &crate::outcome::Outcome)| {
        let bytes = sorted(&outcome.bytes_by_host);
        let at = |permille| units::maybe("bytes", figures::rank(&bytes, permille));
        vec![name.to_owned(), at(0), at(500), at(1_000)]
    };
    pair.each().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_missed_observer_keeps_the_curve_below_the_top() {
        let (ours, foca) = sample::split();
        let rows = detection_rows(&Pair { ours: &ours, before: Some(&foca) });
        assert_eq!(rows.iter().map(|row| row[5].as_str()).collect::<Vec<_>>(), ["0", "4"]);
    }

    #[test]
    fn nothing_to_show_is_still_a_picture() {
        let outcome = sample::grid();
        let pair = Pair { ours: &outcome, before: None };
        for drawn in [detection(&pair), hosts(&pair)] {
            assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>"));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
        }
    }
}
