//! Which record still has to be told, and how often: rumours that die by counting.
//!
//! A new record goes out at once to a few random members, rides on every datagram that has room, and is dropped after
//! a number of sends that grows with the logarithm of the cluster's size. What the rumour misses, the periodic sync
//! finds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::record::NodeId;

/// Rumours by owner; the one told least goes first.
#[derive(Debug, Default)]
pub(super) struct Spread {
    left: BTreeMap<NodeId, u32>,
    order: BTreeSet<(Reverse<u32>, NodeId)>,
}

impl Spread {
    /// Starts, or starts again, the rumour about `owner`'s record. An urgent one is told twice as often: whoever misses
    /// a goodbye suspects a failure.
    pub(super) fn tell(&mut self, owner: NodeId, cluster_size: usize, is_urgent: bool) {
        let sends = (cluster_size.max(1).ilog2() / 2 + 4) * if is_urgent { 2 } else { 1 };
        if let Some(old) = self.left.insert(owner, sends) {
            self.order.remove(&(Reverse(old), owner));
        }
        self.order.insert((Reverse(sends), owner));
    }

    /// Owners whose records are to be told next, the freshest first.
    pub(super) fn next(&self) -> impl Iterator<Item = NodeId> {
        self.order.iter().map(|(_, owner)| *owner)
    }

    /// The first `count` of [`Spread::next`] were sent once.
    pub(super) fn told(&mut self, count: usize) {
        let told: Vec<_> = self.order.iter().take(count).copied().collect();
        for (Reverse(left), owner) in told {
            self.order.remove(&(Reverse(left), owner));
            if left > 1 {
                self.left.insert(owner, left - 1);
                self.order.insert((Reverse(left - 1), owner));
            } else {
                self.left.remove(&owner);
            }
        }
    }

    pub(super) fn stop(&mut self, owner: NodeId) {
        if let Some(left) = self.left.remove(&owner) {
            self.order.remove(&(Reverse(left), owner));
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

    #[test]
    fn rumours_die_and_the_least_told_goes_first() {
        let (a, b) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let mut spread = Spread::default();
        spread.tell(a, 1, false);
        spread.told(1);
        spread.tell(b, 1, false);
        assert_eq!(spread.next().collect::<Vec<_>>(), [b, a]);
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
        spread.stop(a);
        assert!(spread.is_empty());
    }
}
