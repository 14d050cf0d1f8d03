//! What was measured, and how it looks: a table in Markdown, for the README.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::cluster::System;
use crate::machine::Usage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Percent,
    PerSecond,
    Megabytes,
}

/// Values of one system.
#[derive(Debug, Default)]
pub(crate) struct Series {
    values: Vec<f64>,
    /// What did not arrive everywhere in time.
    lost: usize,
}

/// One measure.
pub(crate) struct Row {
    key: &'static str,
    title: &'static str,
    unit: Unit,
    of: BTreeMap<System, Series>,
}

/// All rows, empty.
pub(crate) fn rows() -> Vec<Row> {
    [
        ("join", "join → all know", Unit::Milliseconds),
        ("change", "decision; tag changed → all know", Unit::Milliseconds),
        ("message", "endpoint; user event → all know", Unit::Milliseconds),
        ("burst", "200 endpoints; 200 events at once → all have all", Unit::Milliseconds),
        ("kill", "kill -9 → all know", Unit::Milliseconds),
        ("leave", "leave → all know", Unit::Milliseconds),
        ("members", "`members`, program started and ended", Unit::Milliseconds),
        ("bytes", "idle: bytes/s sent, with IP headers", Unit::PerSecond),
        ("packets", "idle: packets/s sent", Unit::PerSecond),
        ("cpu", "idle: CPU", Unit::Percent),
        ("rss", "RSS", Unit::Megabytes),
        ("pss", "PSS", Unit::Megabytes),
        ("private", "private memory", Unit::Megabytes),
    ]
    .map(|(key, title, unit)| Row { key, title, unit, of: BTreeMap::new() })
    .into()
}

fn series<'a>(rows: &'a mut [Row], key: &str, system: System) -> &'a mut Series {
    let row = rows.iter_mut().find(|row| row.key == key).expect("a row of that key");
    row.of.entry(system).or_default()
}

/// Adds a time; none: not everybody knew in time.
pub(crate) fn put(rows: &mut [Row], key: &str, system: System, took: Option<Duration>) {
    match took {
        Some(took) => series(rows, key, system).values.push(took.as_secs_f64() * 1_000.0),
        None => series(rows, key, system).lost += 1,
    }
}

/// Adds to what was lost.
pub(crate) fn lost(rows: &mut [Row], key: &str, system: System, lost: usize) {
    series(rows, key, system).lost += lost;
}

pub(crate) fn put_usage(rows: &mut [Row], system: System, usage: &Usage) {
    let Usage { cpu, bytes_per_s, packets_per_s, rss, pss, private } = usage;
    let megabytes = |bytes: &[f64]| bytes.iter().map(|bytes| bytes / 1e6).collect();
    let of: [(&str, Vec<f64>); 6] = [
        ("cpu", vec![*cpu]),
        ("bytes", bytes_per_s.iter().copied().collect()),
        ("packets", packets_per_s.iter().copied().collect()),
        ("rss", megabytes(rss)),
        ("pss", megabytes(pss)),
        ("private", megabytes(private)),
    ];
    for (key, values) in of {
        series(rows, key, system).values = values;
    }
}

impl Series {
    /// The value below which that share of all lies (nearest rank).
    fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let rank = (1..=count).find(|rank| *rank as f64 >= share * count as f64)?;
        sorted.get(rank - 1).copied()
    }

    fn text(&self, unit: Unit) -> String {
        let Some(median) = self.quantile(0.5) else { return "–".to_owned() };
        let mut text = shown(median, unit);
        if let [_, _, ..] = self.values[..] {
            let (p90, max) = (self.quantile(0.9).unwrap(), self.quantile(1.0).unwrap());
            let _ = write!(text, "; {}; {} ({})", shown(p90, unit), shown(max, unit), self.values.len());
        }
        if self.lost > 0 {
            let _ = write!(text, ", {} lost", self.lost);
        }
        text
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Milliseconds if value >= 1_000.0 => format!("{:.2} s", value / 1_000.0),
        Unit::Milliseconds if value >= 100.0 => format!("{value:.0} ms"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Percent => format!("{value:.2} %"),
        Unit::PerSecond if value >= 100.0 => format!("{value:.0}"),
        Unit::PerSecond => format!("{value:.1}"),
        Unit::Megabytes => format!("{value:.1} MB"),
    }
}

/// The table: median; 90 %; most (how many), and Serf's median over gossipd's.
pub(crate) fn table(nodes: usize, systems: &[System], rows: &[Row]) -> String {
    let names: Vec<_> = systems.iter().map(|system| system.name()).collect();
    let mut out = format!("| {nodes} nodes: median; 90 %; max (n) | {} | ratio |\n", names.join(" | "));
    let _ = writeln!(out, "|---|{}---|", "---|".repeat(systems.len()));
    for Row { title, unit, of, .. } in rows {
        let median = |system| of.get(&system).and_then(|series: &Series| series.quantile(0.5));
        let ratio = match (median(System::Gossipd), median(System::Serf)) {
            (Some(ours), Some(theirs)) if ours > 0.0 => {
                let ratio = theirs / ours;
                if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
            }
            _ => "–".to_owned(),
        };
        let texts: Vec<_> =
            systems.iter().map(|system| of.get(system).map_or("–".to_owned(), |series| series.text(*unit))).collect();
        let _ = writeln!(out, "| {title} | {} | {ratio} |", texts.join(" | "));
    }
    out
}
