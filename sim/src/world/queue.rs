//! What is still to happen, in one total order: by virtual time, then by the order in which it was scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of things to happen. The heap moves small keys only; the things themselves stay in their slots.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    pub(super) fn push(&mut self, at_us: u64, thing: T) {
        self.scheduled += 1;
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(thing);
            }
            slot
        } else {
            self.slots.push(Some(thing));
            self.slots.len() - 1
        };
        self.heap.push(Reverse((at_us, self.scheduled, slot)));
    }

    /// The next thing, if it is due by `until_us`.
    pub(super) fn pop(&mut self, until_us: u64) -> Option<(u64, T)> {
        let Reverse((at_us, _, slot)) = *self.heap.peek()?;
        if at_us > until_us {
            return None;
        }
        self.heap.pop();
        self.free.push(slot);
        let thing = self.slots.get_mut(slot).and_then(Option::take)?;
        Some((at_us, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_order_of_scheduling() {
        let mut queue = Queue::new();
        for (at_us, name) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
            queue.push(at_us, name);
        }
        assert_eq!(queue.pop(0), None);
        assert_eq!(queue.pop(1), Some((1, 'a')));
        queue.push(2, 'x');
        let rest: String = std::iter::from_fn(|| queue.pop(9)).map(|(_, name)| name).collect();
        assert_eq!(rest, "bcxd");
    }
}
