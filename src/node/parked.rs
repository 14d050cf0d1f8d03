//! Steps that have to wait for an earlier one: few, and lost rather than many, as a comparison brings them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ledger::{Fit, Ledger};
use crate::record::{NodeId, Version};
use crate::wire::table::{Scope, Step};

/// Steps of one table that wait: more of them are cheaper as one difference.
pub const PARKED_PER_TABLE_MAX: usize = 64;
/// Steps that wait: some of each table that is written to at a time.
pub const PARKED_MAX: usize = 4_096;
/// Their weight, in bytes: what one owner may have, twice.
pub const PARKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// After every version.
const LAST: Version = Version { generation: u64::MAX, seq: u64::MAX };

/// Steps that wait, by where they lead to.
#[derive(Debug, Default)]
pub(super) struct Parked {
    steps: BTreeMap<(Scope, NodeId, Version), Arc<Step>>,
    bytes: usize,
}

impl Parked {
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Keeps a step, if there is room.
    pub(super) fn park(&mut self, step: Step) {
        let (scope, owner) = (step.scope, step.owner);
        let place = (scope, owner, step.to());
        let bytes = self.bytes + step.weight();
        let is_full = self.steps.len() >= PARKED_MAX || bytes > PARKED_BYTES_MAX;
        let of_table = self.steps.range((scope, owner, Version::NONE)..=(scope, owner, LAST)).count();
        if !is_full && of_table < PARKED_PER_TABLE_MAX && !self.steps.contains_key(&place) {
            self.bytes = bytes;
            self.steps.insert(place, Arc::new(step));
        }
    }

    /// The next step of a table that is to be taken in now; drops those that lead to less than is held.
    pub(super) fn ripe(&mut self, scope: Scope, owner: NodeId, held: &Ledger) -> Option<Arc<Step>> {
        loop {
            let mut waiting = self.steps.range((scope, owner, Version::NONE)..=(scope, owner, LAST));
            let (place, fit) = waiting
                .find_map(|(place, step)| Some((*place, held.fit(step))).filter(|(_, fit)| *fit != Fit::Early))?;
            let step = self.remove(place)?;
            if fit != Fit::Old {
                return Some(step);
            }
        }
    }

    fn remove(&mut self, place: (Scope, NodeId, Version)) -> Option<Arc<Step>> {
        let step = self.steps.remove(&place)?;
        self.bytes = self.bytes.saturating_sub(step.weight());
        Some(step)
    }

    /// Drops the steps of some tables.
    pub(super) fn drop_where(&mut self, goes: impl Fn(Scope, NodeId) -> bool) {
        let places: Vec<_> = self.steps.keys().filter(|(scope, owner, _)| goes(*scope, *owner)).copied().collect();
        for place in places {
            self.remove(place);
        }
    }
}
