//! Outcomes for a terminal: one run in full, and a sweep in short.
//!
//! Not here: the page (`html`), and before against after (`crate::compare`).

use std::collections::BTreeMap;

use super::figures::{self, Alarms, Latencies};
use super::grid::grid;
use super::units;
use crate::outcome::{Expectation, FaultLane, Outcome, Protocol, Verdict};

/// Fault lanes that are printed.
const LANES_MAX: usize = 12;

/// One run: headline, faults, expected against actual, failed checks, detection, traffic, trace.
pub fn text(outcome: &Outcome) -> String {
    let mut out = headline(outcome);
    let parts = [
        ("faults", faults(&outcome.faults)),
        ("expected", expected(&outcome.expectations)),
        ("checks", checks(outcome)),
        ("detection", detection(outcome)),
        ("healthy nodes", false_alarms(outcome)),
        ("traffic", traffic(outcome)),
        ("figures", other_figures(outcome)),
    ];
    for (title, body) in parts.iter().filter(|(_, body)| !body.is_empty()) {
        out.push_str(&format!("\n{title}\n{body}"));
    }
    out.push_str(&format!("\ntrace     {}\nreproduce {}\n", outcome.trace, figures::command(outcome)));
    out
}

fn headline(outcome: &Outcome) -> String {
    let (mark, word) = units::verdict(outcome.verdict);
    let Outcome { scenario, about, seed, protocol, nodes, span_us, .. } = outcome;
    let (protocol, span) = (units::protocol(*protocol), units::round_span(*span_us));
    let nodes = units::thousands(*nodes as u64);
    format!("{mark} {scenario}: {word}\n  {about}\n  {protocol}, {nodes} nodes, seed {seed}, {span} of virtual time\n")
}

fn faults(lanes: &[FaultLane]) -> String {
    let row = |lane: &FaultLane| {
        let FaultLane { kind: _, hosts: _, from_us, to_us, hits } = lane;
        let to = to_us.map_or_else(|| "end".to_owned(), units::round_span);
        vec![units::fault(lane), units::round_span(*from_us), format!("– {to}"), units::hits(*hits)]
    };
    let rows: Vec<_> = lanes.iter().take(LANES_MAX).map(row).collect();
    let mut out = grid(&rows, &[1, 3], 2);
    if let Some(more) = lanes.len().checked_sub(LANES_MAX).filter(|more| *more > 0) {
        out.push_str(&format!("  and {} more\n", units::thousands(more as u64)));
    }
    out
}

fn expected(expectations: &[Expectation]) -> String {
    let row = |expectation: &Expectation| {
        let mark = if expectation.holds { "✓" } else { "✗" };
        let actual = units::maybe(&expectation.unit, expectation.actual);
        vec![mark.to_owned(), expectation.name.clone(), units::bound(expectation), actual]
    };
    let rows: Vec<_> = expectations.iter().map(row).collect();
    grid(&rows, &[2, 3], 2)
}

fn checks(outcome: &Outcome) -> String {
    if outcome.checks.is_empty() {
        return String::new();
    }
    let (looked, failed) = figures::checked(outcome);
    let looked = units::thousands(looked);
    let mut out = format!("  {} checkers looked {looked} times, {failed} failures\n", outcome.checks.len());
    for check in outcome.checks.iter().filter(|check| check.failed > 0) {
        let (failed, looked) = (units::thousands(check.failed), units::thousands(check.looked));
        out.push_str(&format!("  ✗ {}: {} ({failed} of {looked})\n", check.name, check.what));
        check.examples.iter().for_each(|example| out.push_str(&format!("      {example}\n")));
    }
    out
}

fn detection(outcome: &Outcome) -> String {
    if outcome.detections.is_empty() {
        return String::new();
    }
    let Latencies { all_us, missed } = figures::latencies(outcome);
    let at = |permille| units::maybe("us", figures::rank(&all_us, permille));
    let first = units::maybe("us", all_us.first().copied());
    let (crashes, seen) = (outcome.detections.len(), units::thousands(all_us.len() as u64));
    format!(
        "  {crashes} crashes, seen {seen} times: first {first}, p50 {}, p90 {}, p99 {}, max {}; missed {}\n",
        at(500),
        at(900),
        at(990),
        at(1_000),
        units::thousands(missed as u64)
    )
}

fn false_alarms(outcome: &Outcome) -> String {
    let Alarms { suspect, down, from_sick } = figures::alarms(outcome);
    let (suspect, down) = (units::thousands(suspect), units::thousands(down));
    format!("  suspected {suspect} times, listed down {down} times ({from_sick} of both by nodes under a fault)\n")
}

fn traffic(outcome: &Outcome) -> String {
    let mut rates: Vec<_> = outcome.seconds.iter().map(figures::node_rate).collect();
    rates.sort_unstable();
    let mut hosts = outcome.bytes_by_host.clone();
    hosts.sort_unstable();
    let line = |what: &str, unit: &str, ascending: &[u64]| {
        let at = |permille| units::maybe(unit, figures::rank(ascending, permille));
        vec![what.to_owned(), format!("min {}", at(0)), format!("median {}", at(500)), format!("max {}", at(1_000))]
    };
    let mut rows = Vec::new();
    if !rates.is_empty() {
        rows.push(line("each node, over the seconds", "bytes/s", &rates));
    }
    if !hosts.is_empty() {
        rows.push(line("whole run, over the hosts", "bytes", &hosts));
    }
    grid(&rows, &[], 2)
}

fn other_figures(outcome: &Outcome) -> String {
    let row = |(name, value): (&String, &u64)| vec![units::name(name), units::value(units::unit_of(name), *value)];
    let rows: Vec<_> = outcome.figures.iter().map(row).collect();
    grid(&rows, &[1], 2)
}

/// A sweep: runs, passed and failed by scenario and protocol.
pub fn table(outcomes: &[Outcome]) -> String {
    let of = |protocol| figures::by_scenario(outcomes.iter().filter(move |outcome| outcome.protocol == protocol));
    let ours = of(Protocol::Gossipd).into_iter().map(|(name, runs)| (name.to_owned(), runs));
    let foca = of(Protocol::Foca).into_iter();
    let foca = foca.map(|(name, runs)| (format!("{name} ({})", units::protocol(Protocol::Foca)), runs));
    let scenarios: Vec<_> = ours.chain(foca).collect();
    let head = ["", "scenario", "runs", "passed", "failed", "failing seeds"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for (name, runs) in &scenarios {
        let passed = figures::passed(runs.iter().copied());
        let failing = runs.iter().filter(|run| run.verdict != Verdict::Passed);
        let seeds: Vec<_> = failing.take(5).map(|run| run.seed.to_string()).collect();
        let failed = runs.len() - passed;
        let mark = if failed == 0 { "✓" } else { "✗" };
        let more = if failed > seeds.len() { ", …" } else { "" };
        rows.push(vec![
            mark.to_owned(),
            name.clone(),
            units::thousands(runs.len() as u64),
            units::thousands(passed as u64),
            units::thousands(failed as u64),
            format!("{}{more}", seeds.join(", ")),
        ]);
    }
    let mut out = grid(&rows, &[2, 3, 4], 0);
    let passed = figures::passed(outcomes);
    out.push_str(&format!("\n{passed} passed, {} failed\n", outcomes.len() - passed));
    out
}

/// Checkers that none of these runs gave anything to look at.
pub fn idle_checks<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Vec<String> {
    let mut looked: BTreeMap<&str, u64> = BTreeMap::new();
    for check in outcomes.into_iter().flat_map(|outcome| &outcome.checks) {
        *looked.entry(&check.name).or_default() += check.looked;
    }
    looked.into_iter().filter(|(_, looked)| *looked == 0).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::outcome::CheckResult;

    #[test]
    fn a_run_reads_from_its_verdict_to_its_trace() {
        let (ours, foca) = sample::deaf();
        let shown = text(&ours);
        assert!(shown.starts_with("✓ one-way-deaf: passed\n"), "{shown}");
        for part in ["64 nodes, seed 7", "deaf n7", "≤ 0", "max ", "B/s", "trace     ", "--seed 7\n"] {
            assert!(shown.contains(part), "{part} in:\n{shown}");
        }
        assert!(text(&foca).contains("--baseline foca"));
        assert!(shown.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn failed_checks_are_shown_with_their_examples() {
        let (mut ours, _) = sample::deaf();
        ours.verdict = Verdict::Violated;
        ours.checks.push(CheckResult {
            name: "M2".to_owned(),
            what: "generations never fall".to_owned(),
            looked: 1_000,
            failed: 2,
            examples: vec!["n3 about n4".to_owned()],
        });
        let shown = text(&ours);
        assert!(shown.contains("✗ M2: generations never fall (2 of 1,000)\n      n3 about n4\n"), "{shown}");
    }

    #[test]
    fn a_sweep_counts_runs_and_names_failing_seeds() {
        let (ours, _) = sample::deaf();
        let mut bad = ours.clone();
        bad.verdict = Verdict::OutOfBounds;
        bad.seed = 8;
        let shown = table(&[ours, bad]);
        assert!(shown.contains("✗  one-way-deaf     2       1       1  8\n"), "{shown}");
        assert!(shown.ends_with("1 passed, 1 failed\n"));
        let (ours, foca) = sample::split();
        let shown = table(&[foca, ours]);
        assert!(
            shown.contains("✗  split-50-50                  1 ") && shown.contains("split-50-50 (plain foca)     1 ")
        );
    }
}
