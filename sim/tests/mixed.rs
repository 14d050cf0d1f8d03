//! S38: half of the nodes are of a later version, which writes fields and sections that the others do not know; rolling
//! restarts change who is which.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's failure is a panic")]

use gossip_sim::outcome::Verdict;
use gossip_sim::run::{run_mixed, run_plan};
use gossip_sim::scenario::catalogue;

/// What must hold in a cluster of one version holds in one of two: agreement after rolling restarts, a split, a power cut, and
/// of decisions.
#[test]
fn two_versions_agree() {
    for name in ["S25@announced", "S25@silent", "S4@16", "S24", "S45", "S43", "S3@25"] {
        let (scenario, variant) = catalogue::find(name).unwrap();
        let variant = variant.unwrap_or_else(|| scenario.default_variant());
        for seed in 1..=2 {
            let plan = scenario.plan(&variant, seed).unwrap();
            let mixed = run_mixed(&plan);
            assert_eq!(mixed.verdict, Verdict::Passed, "{name}, seed {seed}: {:?}", mixed.checks);
            assert_ne!(mixed.trace, run_plan(&plan).trace, "{name}: nobody was of a later version");
        }
    }
}
