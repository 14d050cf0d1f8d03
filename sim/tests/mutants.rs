//! Every fault that is built into the nodes on purpose is found by the check that is there for it.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use gossip_sim::mutants::{hunt, trap};
use gossipd::node::Mutant;
use rayon::prelude::*;

/// Seeds until a mutant counts as having survived. Most are caught by the first.
const SEEDS: u64 = 20;

#[test]
fn every_mutant_is_caught_by_its_named_checker() {
    let survivors: Vec<_> = Mutant::ALL
        .par_iter()
        .filter(|mutant| hunt(**mutant, SEEDS).unwrap().caught.is_none())
        .map(|mutant| (mutant.word(), trap(*mutant)))
        .collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}
