//! What is computed from an [`Outcome`] for any of its readers: percentiles, rates, false alarms, one list of figures.
//!
//! Not here: how it looks.

use std::collections::BTreeMap;

use gossipd::record::Status;

use super::units;
use crate::outcome::{CheckResult, Detection, Outcome, Second, StatusChange, Verdict};

/// A named number in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) value: Option<u64>,
}

/// The `permille`-th of an ascending list, by nearest rank.
pub(crate) fn rank(ascending: &[u64], permille: usize) -> Option<u64> {
    let at = (ascending.len() * permille).div_ceil(1_000).saturating_sub(1);
    ascending.get(at).copied()
}

/// How the crashes of a run were found, over all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    /// From the crash to `down`, at each observer that saw it, ascending.
    pub(crate) all_us: Vec<u64>,
    /// Observers that did not.
    pub(crate) missed: usize,
}

pub(crate) fn latencies(outcome: &Outcome) -> Latencies {
    let mut latencies = Latencies::default();
    for Detection { subject: _, at_us: _, latencies_us, missed } in &outcome.detections {
        latencies.all_us.extend_from_slice(latencies_us);
        latencies.missed += missed;
    }
    latencies.all_us.sort_unstable();
    latencies
}

/// Wire bytes in a second for each node that ran.
pub(crate) const fn node_rate(second: &Second) -> u64 {
    let Second { datagrams: _, datagram_bytes, exchanges: _, exchange_bytes, events: _, running } = second;
    let running = if *running == 0 { 1 } else { *running };
    (*datagram_bytes + *exchange_bytes) / running
}

/// Accusations of nodes that ran and that no fault touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    pub(crate) suspect: u64,
    pub(crate) down: u64,
    /// Those of either kind that came from an observer under a fault itself.
    pub(crate) from_sick: u64,
}

/// Whether a change is an accusation of a healthy node, and of which kind.
pub(crate) fn alarm(change: &StatusChange) -> Option<Status> {
    let StatusChange { old, new, subject_runs, subject_is_healthy, .. } = change;
    let accuses = matches!(new, Some(Status::Suspect | Status::Down)) && old != new;
    new.filter(|_| accuses && *subject_runs && *subject_is_healthy)
}

pub(crate) fn alarms(outcome: &Outcome) -> Alarms {
    let mut alarms = Alarms::default();
    for change in &outcome.changes {
        match alarm(change) {
            Some(Status::Suspect) => alarms.suspect += 1,
            Some(_) => alarms.down += 1,
            None => continue,
        }
        alarms.from_sick += u64::from(!change.observer_is_healthy);
    }
    alarms
}

/// How many times each check was looked at and failed.
pub(crate) fn checked(outcome: &Outcome) -> (u64, u64) {
    let looked = |(looked, failed), check: &CheckResult| (looked + check.looked, failed + check.failed);
    outcome.checks.iter().fold((0, 0), looked)
}

/// How many bounds were kept, of how many.
pub(crate) fn kept(outcome: &Outcome) -> (usize, usize) {
    let kept = outcome.expectations.iter().filter(|expectation| expectation.holds).count();
    (kept, outcome.expectations.len())
}

/// Every number worth comparing: what is bounded, what is derived, and what the run itself counted, each name once.
pub(crate) fn all(outcome: &Outcome) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut put = |name: &str, unit: &str, value: Option<u64>| {
        if figures.iter().all(|figure: &Figure| figure.name != name) {
            figures.push(Figure { name: name.to_owned(), unit: unit.to_owned(), value });
        }
    };
    for expectation in &outcome.expectations {
        put(&expectation.name, &expectation.unit, expectation.actual);
    }
    let Latencies { all_us, missed } = latencies(outcome);
    if !outcome.detections.is_empty() {
        put("detection, first", "us", all_us.first().copied());
        put("detection, p50", "us", rank(&all_us, 500));
        put("detection, p99", "us", rank(&all_us, 990));
        put("detection, max", "us", all_us.last().copied());
        put("detections missed", "count", Some(missed as u64));
    }
    let Alarms { suspect, down, from_sick } = alarms(outcome);
    put("healthy nodes suspected", "count", Some(suspect));
    put("healthy nodes listed down", "count", Some(down));
    put("… of both, by nodes under a fault", "count", Some(from_sick));
    let mut rates: Vec<_> = outcome.seconds.iter().map(node_rate).collect();
    rates.sort_unstable();
    put("bytes for each node and second, median", "bytes/s", rank(&rates, 500));
    put("bytes for each node and second, most", "bytes/s", rates.last().copied());
    let mut hosts = outcome.bytes_by_host.clone();
    hosts.sort_unstable();
    put("bytes of the busiest host", "bytes", hosts.last().copied());
    put("datagrams", "count", Some(outcome.seconds.iter().map(|second| second.datagrams).sum()));
    put("exchanges", "count", Some(outcome.seconds.iter().map(|second| second.exchanges).sum()));
    for (name, value) in &outcome.figures {
        put(name, units::unit_of(name), Some(*value));
    }
    figures
}

/// Outcomes by scenario, in the order of their first appearance.
pub(crate) fn by_scenario<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Vec<(&'a str, Vec<&'a Outcome>)> {
    let mut order: Vec<(&str, Vec<&Outcome>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        let name = outcome.scenario.as_str();
        let place = *places.entry(name).or_insert(order.len());
        match order.get_mut(place) {
            Some((_, runs)) => runs.push(outcome),
            None => order.push((name, vec![outcome])),
        }
    }
    order
}

/// The counterpart of an outcome: the same scenario with the same seed, or else with any.
pub(crate) fn counterpart<'a>(outcome: &Outcome, others: &'a [Outcome]) -> Option<&'a Outcome> {
    let same = |other: &&Outcome| other.scenario == outcome.scenario;
    others.iter().filter(same).find(|other| other.seed == outcome.seed).or_else(|| others.iter().find(same))
}

/// How many of these passed.
pub(crate) fn passed<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> usize {
    outcomes.into_iter().filter(|outcome| outcome.verdict == Verdict::Passed).count()
}

/// The command that gives this outcome again.
pub(crate) fn command(outcome: &Outcome) -> String {
    let protocol = match outcome.protocol {
        crate::outcome::Protocol::Gossipd => "",
        crate::outcome::Protocol::Foca => " --baseline foca",
    };
    // The name with its number and variant is the first word.
    let name = outcome.scenario.split(' ').next().unwrap_or_default();
    format!("gossip-sim run {name} --seed {}{protocol}", outcome.seed)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let ascending: Vec<_> = (1..=100).collect();
        assert_eq!(rank(&ascending, 500), Some(50));
        assert_eq!(rank(&ascending, 990), Some(99));
        assert_eq!(rank(&ascending, 1_000), Some(100));
        assert_eq!(rank(&[7], 500), Some(7));
        assert_eq!(rank(&[], 500), None);
    }

    #[test]
    fn only_accusations_of_healthy_nodes_are_alarms() {
        let (ours, foca) = sample::deaf();
        assert_eq!(alarms(&ours).down, 0);
        assert!(alarms(&foca).down > 0);
        let mut change = foca.changes.iter().copied().find(|change| alarm(change).is_some()).unwrap();
        change.subject_is_healthy = false;
        assert_eq!(alarm(&change), None);
    }

    #[test]
    fn each_figure_is_listed_once() {
        let (ours, _) = sample::deaf();
        let mut names: Vec<_> = all(&ours).into_iter().map(|figure| figure.name).collect();
        let before = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
