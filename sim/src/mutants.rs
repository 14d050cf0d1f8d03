//! Faults built into the nodes on purpose, and which check or bounded figure of which scenario must find each: a checker
//! that finds none of them checks nothing.
//!
//! Not here: what the faults do (`gossipd::node::Mutant`).

use std::collections::BTreeSet;

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
        Mutant::Resurrect => ("S10@16", "M1"),
        Mutant::OlderIncarnation => ("S8", "M2"),
        Mutant::SkipEvent => ("S2@25", "Events"),
        Mutant::SelfDown => ("S8", "M4"),
        Mutant::LongDatagram => ("S32@100", "Q1"),
        Mutant::NoWitnesses => ("S13@16", "collateral_renewals"),
        Mutant::NoRefutation => ("S8", "downs_per_pair_max"),
        Mutant::NeverIsolated => ("S5@16", "D7"),
        Mutant::NoPatience => ("S20@5s", "false_downs"),
        Mutant::RestlessGossip => ("S1@16-2min", "wire_bytes_per_node_s"),
        Mutant::DeafToGoodbyes => ("S3@25", "M10"),
        Mutant::NoHealing => ("S4@16", "Calm"),
        Mutant::TrustForged => ("S39", "M8"),
        Mutant::Blind => ("S2@25", "D1"),
        Mutant::TrustUnsigned | Mutant::AnyTime => ("S43b", "A3"),
        Mutant::HoardDecisions => ("S45b@25", "decision_all_median_us"),
        Mutant::OlderDecision => ("S43b", "A1"),
        Mutant::SkipKeep => ("S45@all-die", "A1"),
        Mutant::HastyJoin => ("S45@target-down", "Joined"),
        Mutant::NoComparison => ("S4b", "A2"),
        Mutant::YesMan => ("S45b@25", "Confirmed"),
        Mutant::SecretDecision => ("S45b@25", "Events"),
        Mutant::WallClock => ("S28b", "A4"),
        Mutant::TrustDemoted => ("S45@demoted", "A3"),
        Mutant::StaleListing => ("S45b@25", "Decided"),
        Mutant::Meddle => ("S41@25", "E1"),
        Mutant::Gap => ("S41@25-clogged", "E2"),
        Mutant::OlderStep => ("S41@25-clogged", "E3"),
        Mutant::Unmarked => ("S23b", "E4"),
        Mutant::LoseOwn => ("S24c", "E5"),
        Mutant::KeepOldLife => ("S26@tables", "E6"),
        Mutant::BlindDigest => ("S41@25-clogged", "E7"),
        Mutant::NoTableComparison => ("S4c", "E8"),
        Mutant::KeepNetwork => ("S4c", "E10"),
        Mutant::SecretRecord => ("S41@25", "Tables"),
        Mutant::HoardSteps => ("S41@25", "write_p99_us"),
        Mutant::ShortSnapshot => ("S44", "P1"),
        Mutant::RepeatChange => ("S44", "P2"),
        Mutant::SilentLag => ("S44", "P3"),
        Mutant::BoastHistory => ("S44", "P4"),
        Mutant::HoardChanges => ("S44", "Q3"),
        Mutant::HearRemoved => ("S37@cut-off", "Removed"),
    };
    Trap { scenario, by }
}

/// How a hunt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunt {
    /// The seed with which the trap snapped, and what it said.
    pub caught: Option<(u64, String)>,
    /// All other checks and bounds that the mutant broke on the way.
    pub also: BTreeSet<String>,
}

/// Runs `mutant` through its trap's scenario until the trap snaps.
///
/// # Errors
/// The scenario of the trap does not make sense.
pub fn hunt(mutant: Mutant, seeds: u64) -> Result<Hunt, String> {
    let Trap { scenario, by } = trap(mutant);
    let (scenario, variant) = catalogue::find(scenario)?;
    let variant = variant.unwrap_or_else(|| scenario.default_variant());
    let mut also = BTreeSet::new();
    for seed in 1..=seeds {
        let outcome = run_mutant(&scenario.plan(&variant, seed)?, mutant);
        let checks = outcome.checks.iter().filter(|check| check.failed > 0).map(|check| &check.name);
        let bounds = outcome.expectations.iter().filter(|one| !one.holds).map(|one| &one.name);
        also.extend(checks.chain(bounds).filter(|name| *name != by).cloned());
        if let Some(words) = snapped(&outcome, by) {
            return Ok(Hunt { caught: Some((seed, words)), also });
        }
    }
    Ok(Hunt { caught: None, also })
}

/// What the check or bound of that name complains of.
fn snapped(outcome: &Outcome, by: &str) -> Option<String> {
    let check = outcome.checks.iter().find(|check| check.name == by && check.failed > 0);
    let figure = outcome.expectations.iter().find(|one| one.name == by && !one.holds);
    let of_check = check.map(|check| check.examples.first().cloned().unwrap_or_else(|| check.what.clone()));
    of_check.or_else(|| figure.map(|one| one.actual.map_or("not measured".to_owned(), |actual| actual.to_string())))
}
