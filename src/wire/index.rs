//! A map by node id that is found in one step and walked in a fixed order.
//!
//! Node ids are random, so hashing one is taking it as it is. The order of walking is that of insertion, moved only by
//! removals, and so the same from run to run: unlike the standard maps, which `node/` and `wire/` may not use.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashTable;
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

/// As [`ById`], of items that know their id, in a few bytes beside them. The walk is in the order of insertion, which removals
/// change as they do there.
#[derive(Debug)]
pub(crate) struct Roll<T> {
    items: Vec<T>,
    /// Places in `items`.
    places: HashTable<u32>,
}

/// Items, at most: three bytes name a place, and one more value says that there is none.
const ROLL_MAX: usize = (1 << 24) - 1;

fn hash_of(id: NodeId) -> u64 {
    let mut hasher = IdHasher::default();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// The hash of what is at that place.
fn hash_at<T: Named>(items: &[T], place: u32) -> u64 {
    items.get(place as usize).map_or(0, |item| hash_of(item.id()))
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self { items: Vec::new(), places: HashTable::new() }
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
        self.places.reserve(more, |place| hash_at(&self.items, *place));
    }

    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.items.get(place)
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.items.get_mut(place)
    }

    /// The place of an id, until the next removal.
    pub(crate) fn place(&self, id: NodeId) -> Option<usize> {
        let is_it = |place: &u32| self.items.get(*place as usize).is_some_and(|item| item.id() == id);
        self.places.find(hash_of(id), is_it).map(|place| *place as usize)
    }

    /// Adds an item whose id is not there yet, behind all others. Says where; none: there is no room for it.
    pub(crate) fn push(&mut self, item: T) -> Option<usize> {
        let place = u32::try_from(self.items.len()).ok().filter(|place| (*place as usize) < ROLL_MAX)?;
        let hash = hash_of(item.id());
        self.items.push(item);
        self.places.insert_unique(hash, place, |place| hash_at(&self.items, *place));
        Some(place as usize)
    }

    /// Takes an item out; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, place: usize) -> Option<T> {
        let (place, last) = (u32::try_from(place).ok()?, u32::try_from(self.items.len().checked_sub(1)?).ok()?);
        self.places.find_entry(hash_at(&self.items, place), |other| *other == place).ok()?.remove();
        if let Some(moved) = self.places.find_mut(hash_at(&self.items, last), |other| *other == last) {
            *moved = place;
        }
        Some(self.items.swap_remove(place as usize))
    }

    /// Takes out all but some; the others keep their order and change their places.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
        self.places.clear();
        for (place, item) in (0..).zip(&self.items) {
            self.places.insert_unique(hash_of(item.id()), place, |place| hash_at(&self.items, *place));
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
