//! Whose tables may come, which of them take part in comparisons, and how much of each is held.
//!
//! Not here: what they are allowed to hold (`tables`).

use std::collections::BTreeMap;

use super::ledger::Usage;
use super::tables::OWNERS_MAX;
use crate::record::NodeId;
use crate::wire::index::{Named, Roll};

#[derive(Debug, Clone, Copy)]
struct Owner {
    id: NodeId,
    is_compared: bool,
}

impl Named for Owner {
    fn id(&self) -> NodeId {
        self.id
    }
}

#[derive(Debug, Default)]
pub(super) struct Owners {
    known: Roll<Owner>,
    /// Of those that have anything.
    used: BTreeMap<NodeId, Usage>,
}

impl Owners {
    /// Room for so many more, and for no others.
    pub(super) fn reserve_exact(&mut self, more: usize) {
        self.known.reserve_exact(more);
    }

    /// Adds one, not compared, unless it is known or there is no room.
    pub(super) fn know(&mut self, id: NodeId) {
        if !self.knows(id) && self.known.len() < OWNERS_MAX {
            self.known.push(Owner { id, is_compared: false });
        }
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.known.place(id).and_then(|place| self.known.swap_remove(place));
        self.used.remove(&id);
    }

    pub(super) fn knows(&self, id: NodeId) -> bool {
        self.known.place(id).is_some()
    }

    pub(super) fn is_compared(&self, id: NodeId) -> bool {
        self.known.place(id).and_then(|place| self.known.at(place)).is_some_and(|owner| owner.is_compared)
    }

    /// Whether that changed anything.
    pub(super) fn set_compared(&mut self, id: NodeId, is_compared: bool) -> bool {
        let owner = self.known.place(id).and_then(|place| self.known.at_mut(place));
        let Some(owner) = owner.filter(|owner| owner.is_compared != is_compared) else { return false };
        owner.is_compared = is_compared;
        true
    }

    pub(super) fn usage(&self, id: NodeId) -> Usage {
        self.used.get(&id).copied().unwrap_or_default()
    }

    /// Takes note of a change of what is held of a known owner.
    pub(super) fn account(&mut self, id: NodeId, before: Usage, after: Usage) {
        if !self.knows(id) {
            return;
        }
        let used = self.usage(id).minus(before).plus(after);
        if used == Usage::default() {
            self.used.remove(&id);
        } else {
            self.used.insert(id, used);
        }
    }
}
