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
