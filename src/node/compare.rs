//! How two nodes find out what they lack of each other's tables, and make it up.
//!
//! 1. One hash over all that both hold rides on what they say anyway ([`Tables::digest_with`]): while it agrees nothing
//!    more is said.
//! 2. The asker sends a [`Summary`] of each scope; the answerer lists what it has in the parts that differ.
//! 3. The asker fetches what is newer there, and hands over what is newer here.
//!
//! So the bytes follow the differences (and the square root of the number of owners), and two round trips are enough.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use super::tables::{Shelf, Tables};
use crate::record::{NodeId, Version};
use crate::wire::table::{ITEMS_MAX, Listing, Mark, PARTS_MAX, SCOPES_MAX, Scope, Step, Summary, Want};

/// Weight of the steps in one message, in bytes: more of them wait for the next.
pub const STEPS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Owners in one part of a summary, about.
const OWNERS_PER_PART: usize = 4;

/// What follows from a peer's listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What the peer has newer.
    pub wants: Vec<Want>,
    /// What it has older, or not at all: as much as fits into one message.
    pub steps: Vec<Step>,
    /// Tables that are at the same version with other content: only their owners know.
    pub disputed: Vec<(Scope, NodeId)>,
    /// Own tables, at versions that this node has not written; see [`Tables::reassert`].
    pub foreign: Vec<(Scope, Version)>,
}

impl Tables {
    /// What is held in one scope, hashed: equal digests, equal versions, equal content.
    pub fn digest(&self, scope: Scope) -> u128 {
        self.shelf(scope).map_or(0, |shelf| shelf.digest)
    }

    /// What this node and the peer both hold, as far as this node knows.
    pub fn scopes_with(&self, peer: NodeId) -> impl Iterator<Item = Scope> {
        self.scopes().filter(move |scope| match scope {
            Scope::Attachments => true,
            Scope::Network(network) => self.is_attached(*network, peer),
        })
    }

    /// One hash over all that this node and the peer both hold: the same on both sides when they agree.
    pub fn digest_with(&self, peer: NodeId) -> u128 {
        self.scopes_with(peer).fold(0, |sum, scope| sum.wrapping_add(self.digest(scope)))
    }

    /// What to ask a peer with.
    pub fn summaries(&self, peer: NodeId) -> Vec<Summary> {
        let summarise = |scope| {
            let shelf = self.shelf(scope)?;
            let of = (marks(shelf).count() / OWNERS_PER_PART).next_power_of_two().min(PARTS_MAX);
            Some(Summary { scope, digest: shelf.digest.to_be_bytes(), parts: parts(shelf, of) })
        };
        self.scopes_with(peer).filter_map(summarise).take(SCOPES_MAX).collect()
    }

    /// The answer to a peer: what is held here where it differs. What was held of the peer's own tables and forgotten is
    /// among it: should the peer be further back than that, it has to say everything again.
    pub fn differences(&self, peer: NodeId, summaries: &[Summary]) -> Vec<Listing> {
        let list = |summary: &Summary| {
            let shelf = self.shelf(summary.scope)?;
            if shelf.digest.to_be_bytes() == summary.digest {
                return None;
            }
            let of = summary.parts.len();
            let own = parts(shelf, of);
            let differ = own.iter().zip(&summary.parts).enumerate().filter(|(_, (own, theirs))| own != theirs);
            let differ: Vec<_> = differ.filter_map(|(part, _)| u16::try_from(part).ok()).collect();
            let floor = self.floor(summary.scope, peer).map(|version| Mark { owner: peer, version, hash: 0 });
            let all = marks(shelf).chain(floor);
            let listed: Vec<_> = all.filter(|mark| differ.binary_search(&part(mark.owner, of)).is_ok()).collect();
            Some(Listing { scope: summary.scope, of: u16::try_from(of).ok()?, parts: differ, marks: listed })
        };
        let mut room = ITEMS_MAX;
        let fits = |listing: &Listing| {
            let fits = listing.marks.len() <= room;
            room = room.saturating_sub(listing.marks.len());
            fits
        };
        summaries.iter().filter_map(list).filter(fits).collect()
    }

    /// What to do about a peer's answer.
    pub fn resolve(&self, listings: &[Listing]) -> Resolved {
        let mut resolved = Resolved::default();
        let mut room = STEPS_BYTES_MAX;
        for listing in listings {
            let scope = listing.scope;
            let Some(shelf) = self.shelf(scope) else { continue };
            let theirs: BTreeMap<_, _> = listing.marks.iter().map(|mark| (mark.owner, *mark)).collect();
            theirs.values().for_each(|mark| self.weigh(scope, *mark, &mut resolved));
            let parts: BTreeSet<_> = listing.parts.iter().copied().collect();
            let listed = marks(shelf).filter(|mark| parts.contains(&part(mark.owner, usize::from(listing.of))));
            for mark in listed {
                let since = theirs.get(&mark.owner).map(|theirs| theirs.version).unwrap_or_default();
                let Some(step) = self.step(scope, mark.owner, since) else { continue };
                if step.weight() <= room {
                    room -= step.weight();
                    resolved.steps.push(step);
                }
            }
        }
        resolved.wants.truncate(ITEMS_MAX);
        resolved
    }

    fn weigh(&self, scope: Scope, theirs: Mark, resolved: &mut Resolved) {
        let Mark { owner, version, hash } = theirs;
        let nothing = Ledger::default();
        let held = self.ledger(scope, owner).unwrap_or(&nothing);
        if self.is_past(scope, owner, version) {
            // It goes there too, as soon as the peer knows what is known here.
        } else if owner == self.me {
            if version > held.version() {
                resolved.foreign.push((scope, version));
            }
        } else if self.knows(owner) && version > held.version().max(held.refused) {
            resolved.wants.push(Want { scope, owner, since: held.version() });
        } else if version == held.version() && hash != held.hash() {
            resolved.disputed.push((scope, owner));
        }
    }

    /// What a peer wants, as much as fits into one message, and whether there is more.
    pub fn serve(&self, wants: &[Want]) -> (Vec<Step>, bool) {
        let mut steps = Vec::new();
        let mut room = STEPS_BYTES_MAX;
        for Want { scope, owner, since } in wants {
            let Some(step) = self.step(*scope, *owner, *since) else { continue };
            // One goes in any case, however large it is.
            if step.weight() > room && !steps.is_empty() {
                return (steps, true);
            }
            room = room.saturating_sub(step.weight());
            steps.push(step);
        }
        (steps, false)
    }
}

/// The tables that count, by owner.
fn marks(shelf: &Shelf) -> impl Iterator<Item = Mark> {
    let counted = shelf.ledgers.iter().filter(|(_, ledger)| ledger.counted != 0);
    counted.map(|(owner, ledger)| ledger.mark(*owner))
}

/// The hash of each of `of` parts.
fn parts(shelf: &Shelf, of: usize) -> Vec<u64> {
    let mut parts = vec![0_u64; of];
    for (owner, ledger) in &shelf.ledgers {
        if let Some(sum) = parts.get_mut(usize::from(part(*owner, of))) {
            let low = u64::try_from(ledger.counted & u128::from(u64::MAX)).unwrap_or_default();
            *sum = sum.wrapping_add(low);
        }
    }
    parts
}

/// The part that an owner's tables fall into: `of` is a power of two, of [`PARTS_MAX`] at most.
fn part(owner: NodeId, of: usize) -> u16 {
    let first = owner.as_bytes().first().copied().unwrap_or_default();
    u16::from(first) & u16::try_from(of.saturating_sub(1)).unwrap_or_default()
}
