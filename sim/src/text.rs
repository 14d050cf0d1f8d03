//! A short text of a plan, for terminals.

use std::fmt::Write;

use gossip_sim::Plan;
use gossip_sim::plan::Bound;

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
