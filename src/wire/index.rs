//! A map by node id that is found in one step and walked in a fixed order.
//!
//! Node ids are random, so hashing one is taking it as it is. The order of walking is that of insertion, moved only by
//! removals, and so the same from run to run: unlike the standard maps, which `node/` and `wire/` may not use.

use std::hash::{BuildHasherDefault, Hasher};

use indexmap::IndexMap;

use crate::record::NodeId;

/// A map by node id. Removals must use `swap_remove`.
pub(crate) type ById<T> = IndexMap<NodeId, T, BuildHasherDefault<IdHasher>>;

/// Takes a node id's own bits for its hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

/// An odd number without pattern (2^64 divided by the golden ratio), to carry all bits into the upper ones.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(MIX);
    }

    fn write_usize(&mut self, _length: usize) {
        // The length in front of an id's bytes: always the same.
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// What a [`Roll`] holds.
pub(crate) trait Named {
    /// Whom it is about; never another one as long as it is held.
    fn id(&self) -> NodeId;
}

/// As [`ById`], of items that know their id, in a tenth of the memory beside them: places found through four bytes each,
/// and a walk in the order of insertion, which removals change as they do there.
#[derive(Debug)]
pub(crate) struct Roll<T> {
    items: Vec<T>,
    /// Open addressing with linear probing: the lower bits are a place in `items`, the upper ones of the hash.
    slots: Vec<u32>,
}

/// Nothing is there, and nothing was put behind it.
const EMPTY: u32 = u32::MAX;
/// The bits of a slot that are a place.
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
/// Items, at most: a place below the one that an empty slot would have.
const ROLL_MAX: usize = PLACE_MASK as usize;
const SLOTS_MIN: usize = 8;

/// The first half of an id, which names a node among those of one cluster as long as nobody forges ids: whoever relies on it
/// has to look for others that begin alike ([`Roll::place_like`]).
pub(crate) fn key_of(id: NodeId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn hash_of(id: NodeId) -> u64 {
    let mut hasher = IdHasher::default();
    hasher.write_u64(key_of(id));
    hasher.finish()
}

/// The bits of a hash that are kept in a slot.
const fn mark_of(hash: u64) -> u32 {
    ((hash >> 56) as u32) << PLACE_BITS
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self { items: Vec::new(), slots: Vec::new() }
    }
}

impl<T: Named> Roll<T> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// Room for so many more, and for no others.
    pub(crate) fn reserve_exact(&mut self, more: usize) {
        self.items.reserve_exact(more);
        self.fit(self.items.len() + more);
    }

    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.items.get(place)
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.items.get_mut(place)
    }

    /// The place of an id, until the next removal.
    pub(crate) fn place(&self, id: NodeId) -> Option<usize> {
        let slot = self.slot_where(hash_of(id), |place| self.items.get(place).is_some_and(|item| item.id() == id))?;
        self.slots.get(slot).map(|slot| (slot & PLACE_MASK) as usize)
    }

    /// The place of an item whose id is that one, or begins like it.
    pub(crate) fn place_like(&self, id: NodeId) -> Option<usize> {
        let is_like = |item: &T| key_of(item.id()) == key_of(id);
        let slot = self.slot_where(hash_of(id), |place| self.items.get(place).is_some_and(is_like))?;
        self.slots.get(slot).map(|slot| (slot & PLACE_MASK) as usize)
    }

    /// The slot with the hash's mark and a place that is the right one.
    fn slot_where(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let (mark, mut at) = (mark_of(hash), hash as usize & mask);
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if slot & !PLACE_MASK == mark && is_it((slot & PLACE_MASK) as usize) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an item whose id is not there yet, behind all others. Says where; none: there is no room for it.
    pub(crate) fn push(&mut self, item: T) -> Option<usize> {
        let place = self.items.len();
        if place >= ROLL_MAX {
            return None;
        }
        self.fit(place + 1);
        self.link(hash_of(item.id()), place);
        self.items.push(item);
        Some(place)
    }

    /// Takes an item out; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, place: usize) -> Option<T> {
        let last = self.items.len().checked_sub(1)?;
        let hash = hash_of(self.items.get(place)?.id());
        self.unlink(self.slot_where(hash, |other| other == place)?);
        if place != last {
            let hash = hash_of(self.items.get(last)?.id());
            let slot = self.slot_where(hash, |other| other == last)?;
            if let (Some(slot), Ok(place)) = (self.slots.get_mut(slot), u32::try_from(place)) {
                *slot = mark_of(hash) | place;
            }
        }
        Some(self.items.swap_remove(place))
    }

    /// Takes out all but some; the others keep their order and change their places.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
        self.rebuild(self.slots.len());
    }

    /// Sees to it that at least a quarter of the slots are empty with so many items.
    fn fit(&mut self, items: usize) {
        let wanted = (items + items / 3 + 1).next_power_of_two().max(SLOTS_MIN);
        if wanted > self.slots.len() {
            self.rebuild(wanted);
        }
    }

    fn rebuild(&mut self, slots: usize) {
        self.slots = vec![EMPTY; slots];
        let hashes: Vec<_> = self.items.iter().map(|item| hash_of(item.id())).collect();
        hashes.into_iter().enumerate().for_each(|(place, hash)| self.link(hash, place));
    }

    fn link(&mut self, hash: u64, place: usize) {
        let (Some(mask), Ok(place)) = (self.slots.len().checked_sub(1), u32::try_from(place)) else { return };
        let mut at = hash as usize & mask;
        while self.slots.get(at).is_some_and(|slot| *slot != EMPTY) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = mark_of(hash) | place;
        }
    }

    /// Empties a slot, and moves into it whatever was only behind it because it was taken.
    fn unlink(&mut self, mut hole: usize) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(slot) = self.slots.get(at).copied().filter(|slot| *slot != EMPTY) else { break };
            let item = self.items.get((slot & PLACE_MASK) as usize);
            let home = item.map_or(at, |item| hash_of(item.id()) as usize & mask);
            // It may move as far up as its home.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(place) = self.slots.get_mut(hole) {
                    *place = slot;
                }
                hole = at;
            }
        }
        if let Some(place) = self.slots.get_mut(hole) {
            *place = EMPTY;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Named for NodeId {
        fn id(&self) -> NodeId {
            *self
        }
    }

    /// Few hashes, many collisions.
    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    proptest! {
        #[test]
        fn a_roll_is_a_map_by_id(steps in proptest::collection::vec((0..40_u8, 0..8_u8), 0..300)) {
            let mut roll = Roll::default();
            let mut model: ById<()> = ById::default();
            for (n, what) in steps {
                match what {
                    0 => {
                        roll.retain(|kept: &NodeId| *kept != id(n));
                        model.retain(|kept, ()| *kept != id(n));
                    }
                    1..4 => {
                        let removed = roll.place(id(n)).and_then(|place| roll.swap_remove(place));
                        prop_assert_eq!(removed.is_some(), model.swap_remove(&id(n)).is_some());
                    }
                    _ if roll.place(id(n)).is_none() => {
                        prop_assert_eq!(roll.push(id(n)), Some(model.len()));
                        model.insert(id(n), ());
                    }
                    _ => {}
                }
                prop_assert!(roll.iter().eq(model.keys()));
                prop_assert!(model.keys().enumerate().all(|(place, id)| roll.place(*id) == Some(place)));
            }
        }
    }
}
