//! Faults built into the nodes on purpose, and which check or bounded figure of which scenario must find each: a checker
//! that finds none of them checks nothing.
//!
//! Not here: what the faults do (`gossipd::node::Mutant`).

use gossipd::node::Mutant;

use crate::outcome::Outcome;
use crate::run::run_mutant;
use crate::scenario::catalogue;

/// What must find a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// Where it has to show.
    pub scenario: &'static str,
    /// A check, or a figure with a bound.
    pub by: &'static str,
}

/// The trap of each mutant.
pub const fn trap(mutant: Mutant) -> Trap {
    let (scenario, by) = match mutant {
        Mutant::Resurrect => ("S4@16", "M1"),
        Mutant::OlderIncarnation => ("S17@20pc", "M2"),
        Mutant::SkipEvent => ("S2@25", "Events"),
        Mutant::SelfDown => ("S17@20pc", "M4"),
        Mutant::LongDatagram => ("S32@100", "Q1"),
        Mutant::NoWitnesses => ("S17@20pc", "false_downs"),
        Mutant::NoRefutation => ("S17@20pc", "false_downs"),
        Mutant::NeverIsolated => ("S5@16", "D7"),
        Mutant::NoPatience => ("S20@5s", "false_downs"),
        Mutant::RestlessGossip => ("S1@16-2min", "wire_bytes_per_node_s"),
        Mutant::DeafToGoodbyes => ("S3@25", "leave_missed"),
        Mutant::NoHealing => ("S4@16", "Calm"),
        Mutant::TrustForged => ("S39", "M8"),
        Mutant::Blind => ("S2@25", "D1"),
    };
    Trap { scenario, by }
}

/// The seed with which the trap of `mutant` snapped first, and what it said.
///
/// # Errors
/// The scenario of the trap does not make sense.
pub fn hunt(mutant: Mutant, seeds: u64) -> Result<Option<(u64, String)>, String> {
    let Trap { scenario, by } = trap(mutant);
    let (scenario, variant) = catalogue::find(scenario)?;
    let variant = variant.unwrap_or_else(|| scenario.default_variant());
    for seed in 1..=seeds {
        let outcome = run_mutant(&scenario.plan(&variant, seed)?, mutant);
        if let Some(words) = snapped(&outcome, by) {
            return Ok(Some((seed, words)));
        }
    }
    Ok(None)
}

/// What the check or bound of that name complains of.
fn snapped(outcome: &Outcome, by: &str) -> Option<String> {
    let check = outcome.checks.iter().find(|check| check.name == by && check.failed > 0);
    let figure = outcome.expectations.iter().find(|one| one.name == by && !one.holds);
    let of_check = check.map(|check| check.examples.first().cloned().unwrap_or_else(|| check.what.clone()));
    of_check.or_else(|| figure.map(|one| one.actual.map_or("not measured".to_owned(), |actual| actual.to_string())))
}
