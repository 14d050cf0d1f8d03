//! Less of a plan that fails, as long as it fails in the same way: fewer faults, fewer nodes, shorter.
//!
//! Not here: why it fails.

use std::collections::BTreeSet;

use crate::outcome::{Outcome, Verdict};
use crate::plan::{Fault, Plan, What};
use crate::run::run_plan;

/// Runs that a shrink may cost.
const RUNS_MAX: usize = 400;

/// In which way a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    verdict: Verdict,
    what: BTreeSet<String>,
}

impl Failure {
    /// That of `outcome`; none: it passed.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        let Outcome { verdict, checks, expectations, .. } = outcome;
        let broken = checks.iter().filter(|check| check.failed > 0 && check.name != "Faults").map(|check| &check.name);
        let missed = expectations.iter().filter(|one| !one.holds && one.actual.is_some()).map(|one| &one.name);
        let what: BTreeSet<_> = broken.chain(missed).cloned().collect();
        (*verdict != Verdict::Passed && !what.is_empty()).then_some(Self { verdict: *verdict, what })
    }

    /// Whether `outcome` fails as badly, and in one of the ways of this one.
    fn is_in(&self, outcome: &Outcome) -> bool {
        Self::of(outcome)
            .is_some_and(|other| other.verdict == self.verdict && other.what.intersection(&self.what).next().is_some())
    }
}

struct Shrink<'a> {
    failure: Failure,
    runs: usize,
    told: &'a mut dyn FnMut(&Plan, usize),
}

impl Shrink<'_> {
    fn fails(&mut self, plan: &Plan) -> bool {
        if self.runs >= RUNS_MAX || plan.check().is_err() {
            return false;
        }
        self.runs += 1;
        let fails = self.failure.is_in(&run_plan(plan));
        if fails {
            (self.told)(plan, self.runs);
        }
        fails
    }

    /// Takes parts of `count` things away, in ever smaller portions, as long as it still fails.
    fn drop_parts(
        &mut self,
        plan: &mut Plan,
        count: impl Fn(&Plan) -> usize,
        without: impl Fn(&Plan, usize, usize) -> Plan,
    ) {
        let mut portion = count(plan).div_ceil(2);
        while portion > 0 {
            let mut at = 0;
            while at < count(plan) {
                let fewer = without(plan, at, portion);
                if self.fails(&fewer) {
                    *plan = fewer;
                } else {
                    at += portion;
                }
            }
            portion /= 2;
        }
    }

    fn shorten(&mut self, plan: &mut Plan) {
        for at in 0..plan.faults.len() {
            while let Some(shorter) = half_as_long(plan, at) {
                if !self.fails(&shorter) {
                    break;
                }
                *plan = shorter;
            }
        }
        while let Some(earlier) = end_earlier(plan) {
            if !self.fails(&earlier) {
                break;
            }
            *plan = earlier;
        }
    }
}

fn half_as_long(plan: &Plan, at: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    let fault = plan.faults.get_mut(at)?;
    let half_us = (fault.until_us? - fault.at_us) / 2;
    fault.until_us = Some(fault.at_us + half_us);
    (half_us >= 100_000).then_some(plan)
}

fn end_earlier(plan: &Plan) -> Option<Plan> {
    let mut plan = plan.clone();
    let faults = plan.faults.iter().map(|fault| fault.until_us.unwrap_or(fault.at_us));
    let writes = plan.writings.iter().map(|writing| writing.until_us.unwrap_or(writing.at_us));
    let over_us = faults.chain(plan.decrees.iter().map(|decree| decree.at_us)).chain(writes).max().unwrap_or_default();
    let gain_us = plan.calm.at_us.checked_sub(over_us + 1_000_000)?;
    plan.calm.at_us -= gain_us;
    plan.span_us -= gain_us;
    (gain_us > 0).then_some(plan)
}

fn without_hosts(plan: &Plan, at: usize, count: usize) -> Plan {
    let gone = at..at + count;
    let new_number = |host: usize| {
        if gone.contains(&host) {
            None
        } else if host < at {
            Some(host)
        } else {
            Some(host - gone.len())
        }
    };
    let keep = |hosts: &[usize]| hosts.iter().copied().filter_map(new_number).collect::<Vec<_>>();
    let mut plan = plan.clone();
    let total = plan.hosts.len();
    let gone = at..(at + count).min(total);
    plan.hosts = plan.hosts.into_iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, host)| host).collect();
    for host in &mut plan.hosts {
        host.contacts = keep(&host.contacts);
        host.clone_of = host.clone_of.and_then(new_number);
        host.address_of = host.address_of.and_then(new_number);
    }
    for fault in &mut plan.faults {
        fault.hosts = keep(&fault.hosts);
        if let What::Net { path, .. } = &mut fault.what {
            (path.from, path.to) = (keep(&path.from), keep(&path.to));
            path.pairs =
                path.pairs.iter().filter_map(|(one, other)| new_number(*one).zip(new_number(*other))).collect();
        }
    }
    let hits = |fault: &Fault| {
        let path_is_there = match &fault.what {
            What::Net { path, .. } => !path.pairs.is_empty() || !path.from.is_empty() && !path.to.is_empty(),
            _ => true,
        };
        !fault.hosts.is_empty() && path_is_there
    };
    plan.faults.retain(hits);
    for decree in &mut plan.decrees {
        (decree.by, decree.about) = (keep(&decree.by), keep(&decree.about));
    }
    plan.decrees.retain(|decree| !decree.by.is_empty() && !decree.about.is_empty());
    plan.writings.iter_mut().for_each(|writing| writing.by = keep(&writing.by));
    plan.writings.retain(|writing| !writing.by.is_empty());
    plan.readings.iter_mut().for_each(|reading| reading.on = keep(&reading.on));
    plan.readings.retain(|reading| !reading.on.is_empty());
    plan.calm.core = keep(&plan.calm.core);
    plan
}

/// A smaller plan that fails in the same way, and how many runs it took; none: `plan` does not fail.
pub fn shrink(plan: &Plan, told: &mut dyn FnMut(&Plan, usize)) -> Option<(Plan, usize)> {
    let failure = Failure::of(&run_plan(plan))?;
    let mut shrink = Shrink { failure, runs: 1, told };
    let mut plan = plan.clone();
    shrink.drop_parts(
        &mut plan,
        |plan| plan.faults.len(),
        |plan, at, count| {
            let mut fewer = plan.clone();
            fewer.faults.drain(at..(at + count).min(plan.faults.len()));
            fewer
        },
    );
    shrink.drop_parts(
        &mut plan,
        |plan| plan.decrees.len(),
        |plan, at, count| {
            let mut fewer = plan.clone();
            fewer.decrees.drain(at..(at + count).min(plan.decrees.len()));
            fewer
        },
    );
    shrink.drop_parts(
        &mut plan,
        |plan| plan.writings.len(),
        |plan, at, count| {
            let mut fewer = plan.clone();
            fewer.writings.drain(at..(at + count).min(plan.writings.len()));
            fewer
        },
    );
    shrink.drop_parts(&mut plan, |plan| plan.hosts.len(), without_hosts);
    shrink.shorten(&mut plan);
    Some((plan, shrink.runs))
}
