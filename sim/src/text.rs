//! A short text of an outcome and of a plan, for terminals.

use std::fmt::Write;

use gossip_sim::Plan;
use gossip_sim::outcome::{Expectation, Outcome};
use gossip_sim::plan::Bound;

const EXAMPLES: usize = 3;
const FAULTS_MAX: usize = 12;

fn number(value: u64, unit: &str) -> String {
    match unit {
        "us" => format!("{}.{:03} s", value / 1_000_000, value % 1_000_000 / 1_000),
        unit => format!("{value} {unit}"),
    }
}

fn bound(at_least: Option<u64>, at_most: Option<u64>, unit: &str) -> String {
    let least = at_least.map(|least| format!("at least {}", number(least, unit)));
    let most = at_most.map(|most| format!("at most {}", number(most, unit)));
    [least, most].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What came out, in a few lines.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    let mut text = String::new();
    let Outcome { scenario, seed, nodes, span_us, verdict, trace, .. } = outcome;
    // Writing to a string does not fail.
    let _ = writeln!(text, "{scenario}, seed {seed}, {nodes} nodes, {} s: {verdict:?}", span_us / 1_000_000);
    for Expectation { name, unit, at_least, at_most, actual, holds } in &outcome.expectations {
        let actual = actual.map_or("not measured".to_owned(), |actual| number(actual, unit));
        let word = if *holds { "ok  " } else { "MISS" };
        let _ = writeln!(text, "  {word} {name}: {actual} ({})", bound(*at_least, *at_most, unit));
    }
    for check in outcome.checks.iter().filter(|check| check.failed > 0) {
        let _ = writeln!(text, "  FAIL {}: {} ({} of {})", check.name, check.what, check.failed, check.looked);
        for example in check.examples.iter().take(EXAMPLES) {
            let _ = writeln!(text, "       {example}");
        }
    }
    let unseen: Vec<_> = outcome
        .checks
        .iter()
        .filter(|check| check.looked == 0 && check.name != "Faults")
        .map(|check| check.name.as_str())
        .collect();
    if !unseen.is_empty() {
        let _ = writeln!(text, "  never looked: {}", unseen.join(" "));
    }
    for lane in outcome.faults.iter().take(FAULTS_MAX) {
        let to = lane.to_us.map_or("the end".to_owned(), |us| number(us, "us"));
        let _ = writeln!(
            text,
            "  {} of {} host(s) from {} to {to}, {} hits",
            lane.kind,
            lane.hosts.len(),
            number(lane.from_us, "us"),
            lane.hits
        );
    }
    let figures: Vec<_> = outcome.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    for line in figures.chunks(4) {
        let _ = writeln!(text, "  {}", line.join("  "));
    }
    let _ = write!(text, "  trace {trace}");
    text
}

/// What a plan does and expects.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n{}", plan.scenario, plan.about);
    let _ = writeln!(text, "{} nodes, {} s, {:?}", plan.hosts.len(), plan.span_us / 1_000_000, plan.profile);
    for fault in plan.faults.iter().take(FAULTS_MAX) {
        let until = fault.until_us.map_or("the end".to_owned(), |us| number(us, "us"));
        let (word, hosts, from) = (fault.what.word(), fault.hosts.len(), number(fault.at_us, "us"));
        let _ = writeln!(text, "  {word} of {hosts} host(s) from {from} to {until}");
    }
    if plan.faults.len() > FAULTS_MAX {
        let _ = writeln!(text, "  and {} more", plan.faults.len() - FAULTS_MAX);
    }
    let calm = &plan.calm;
    let _ = writeln!(text, "  calm at {}, all agree within {}", number(calm.at_us, "us"), number(calm.within_us, "us"));
    for Bound { name, at_least, at_most } in &plan.bounds {
        let unit = if name.ends_with("_us") { "us" } else { "" };
        let _ = writeln!(text, "  {name}: {}", bound(*at_least, *at_most, unit));
    }
    text
}
