//! Which record or decision still has to be told, and how often: rumours that die by counting.
//!
//! What is new goes out at once to a few random members, rides on every datagram that has room, and is dropped after
//! a number of sends that grows with the logarithm of the cluster's size. What the rumour misses, the periodic sync
//! finds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Rumours by what they are about; the one told least goes first.
#[derive(Debug)]
pub(super) struct Spread<K> {
    left: BTreeMap<K, u32>,
    order: BTreeSet<(Reverse<u32>, K)>,
}

impl<K> Default for Spread<K> {
    fn default() -> Self {
        Self { left: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Spread<K> {
    /// Starts, or starts again, a rumour. An urgent one is told twice as often: whoever misses a goodbye suspects a
    /// failure.
    pub(super) fn tell(&mut self, key: K, cluster_size: usize, is_urgent: bool) {
        let sends = (cluster_size.max(1).ilog2() / 2 + 4) * if is_urgent { 2 } else { 1 };
        self.stop(&key);
        self.left.insert(key.clone(), sends);
        self.order.insert((Reverse(sends), key));
    }

    /// What is to be told next, the freshest first.
    pub(super) fn next(&self) -> impl Iterator<Item = &K> {
        self.order.iter().map(|(_, key)| key)
    }

    /// The first `count` of [`Spread::next`] were sent once.
    pub(super) fn told(&mut self, count: usize) {
        let told: Vec<_> = self.next().take(count).cloned().collect();
        self.told_of(&told);
    }

    /// These were sent once.
    pub(super) fn told_of(&mut self, keys: &[K]) {
        for key in keys {
            let Some(left) = self.left.get(key).copied() else { continue };
            self.stop(key);
            if left > 1 {
                self.left.insert(key.clone(), left - 1);
                self.order.insert((Reverse(left - 1), key.clone()));
            }
        }
    }

    pub(super) fn stop(&mut self, key: &K) {
        if let Some((key, left)) = self.left.remove_entry(key) {
            self.order.remove(&(Reverse(left), key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NodeId;

    #[test]
    fn rumours_die_and_the_least_told_goes_first() {
        let (a, b) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let mut spread = Spread::default();
        spread.tell(a, 1, false);
        spread.told(1);
        spread.tell(b, 1, false);
        assert_eq!(spread.next().collect::<Vec<_>>(), [&b, &a]);
        for _ in 0..4 {
            spread.told(2);
        }
        assert!(spread.is_empty());
        assert_eq!(spread.next().count(), 0);
    }

    #[test]
    fn news_about_the_same_owner_starts_over() {
        let a = NodeId::from_bytes([1; 16]);
        let mut spread = Spread::default();
        spread.tell(a, 1000, false);
        spread.told(1);
        spread.tell(a, 1000, false);
        assert_eq!(spread.len(), 1);
        assert_eq!(spread.next().count(), 1);
        spread.stop(&a);
        assert!(spread.is_empty());
    }
}
