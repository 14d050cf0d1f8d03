//! `gossip-sim mutants`: builds each fault into the nodes in turn, and prints what found it.

use std::io::Write;

use anyhow::anyhow;
use clap::Args;
use gossip_sim::mutants::{Trap, hunt, trap};
use gossip_sim::outcome::Verdict;
use gossipd::node::Mutant;
use rayon::prelude::*;

use crate::code;

#[derive(Args)]
pub(crate) struct Flags {
    /// Names of mutants; none: all
    names: Vec<String>,
    /// Seeds until a mutant counts as having survived
    #[arg(long, default_value_t = 200)]
    seeds: u64,
}

/// Hunts all of them; a mutant that survives is a checker that checks nothing.
pub(crate) fn mutants(flags: &Flags, out: &mut impl Write) -> anyhow::Result<u8> {
    let meant = |mutant: &&Mutant| flags.names.is_empty() || flags.names.iter().any(|name| name == mutant.word());
    let chosen: Vec<_> = Mutant::ALL.iter().filter(meant).copied().collect();
    let found: Vec<_> = chosen.par_iter().map(|mutant| (*mutant, hunt(*mutant, flags.seeds))).collect();
    let mut survivors = 0;
    for (mutant, caught) in found {
        let Trap { scenario, by } = trap(mutant);
        let word = mutant.word();
        match caught.map_err(|error| anyhow!(error))? {
            Some((seed, words)) => {
                writeln!(out, "✓ {word:<18} {by:<22} {scenario:<12} seed {seed:<4} {words}")?;
            }
            None => {
                survivors += 1;
                writeln!(out, "✗ {word:<18} {by:<22} {scenario:<12} SURVIVED {} seeds", flags.seeds)?;
            }
        }
    }
    writeln!(out, "{} mutants, {survivors} survived", chosen.len())?;
    Ok(if survivors == 0 { 0 } else { code(Verdict::Violated) })
}
