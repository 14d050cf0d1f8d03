//! The last changes, kept once for all who watch: a ring of serialised lines, and a signal that there is a new one.
//!
//! A reader is a cursor: the revision that it was told last. It has no queue here, so a slow one costs nothing and delays
//! nobody; when the ring has moved past its cursor it is told that it lagged. Whoever publishes only appends.
//!
//! Not here: what a line means to a reader, and how it gets there (`watch`).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

use super::metrics;
use crate::api::watch::{Change, CloseReason, Line};

/// Changes kept, at most: one for every node of a large cluster and then some, so that whoever was away for the length of
/// a restart can resume.
const CHANGES_MAX: usize = 8_192;
/// Bytes kept, at most, whatever the changes hold.
const BYTES_MAX: usize = 4 << 20;
/// Readers at a time: some for each program of a machine. Each may hold a few buffers of its connection.
const READERS_MAX: usize = 256;
/// Changes looked at for one reader before others get their turn.
const SCAN_MAX: usize = 1_024;

struct Entry {
    change: Change,
    line: Bytes,
}

impl Entry {
    /// About what it takes: the line, and the change beside it.
    fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.line.len()
    }
}

struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// All after this one is in the ring.
    floor: u64,
    newest: u64,
    closed: Option<CloseReason>,
    readers: usize,
    changes_max: usize,
    bytes_max: usize,
    readers_max: usize,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Lines, which may be none when nothing fits, and the cursor behind them.
    Lines(Vec<Bytes>, u64),
    /// Nothing new; see [`Hub::changes`].
    Nothing,
    /// All up to this revision is gone.
    Lagged(u64),
    /// There will be nothing more.
    Closed(CloseReason),
}

/// As many readers as there may be are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} programs watch already, and no more may")]
pub(super) struct Full {
    max: usize,
}

/// The hub of one membership; it dies with it.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    /// Counts up with each change, and when the hub is closed.
    signal: watch::Sender<u64>,
}

impl Hub {
    /// A hub whose first change will be the one after `revision`.
    pub(super) fn new(revision: u64) -> Self {
        Self::with_limits(revision, CHANGES_MAX, BYTES_MAX, READERS_MAX)
    }

    /// With other limits than usual.
    pub(super) fn with_limits(revision: u64, changes_max: usize, bytes_max: usize, readers_max: usize) -> Self {
        let ring = Ring {
            entries: VecDeque::new(),
            bytes: 0,
            floor: revision,
            newest: revision,
            closed: None,
            readers: 0,
            changes_max,
            bytes_max,
            readers_max,
        };
        Self { ring: Mutex::new(ring), signal: watch::Sender::new(0) }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a change and wakes whoever waits. Its revision is above all before.
    pub(super) fn publish(&self, change: Change) {
        let revision = change.revision;
        let line = Line::Change(Box::new(change));
        let Ok(mut text) = serde_json::to_vec(&line) else { return };
        text.push(b'\n');
        let Line::Change(change) = line else { return };
        let mut ring = self.ring();
        if ring.closed.is_some() {
            return;
        }
        let entry = Entry { change: *change, line: text.into() };
        ring.bytes += entry.bytes();
        ring.newest = revision;
        ring.entries.push_back(entry);
        while ring.entries.len() > ring.changes_max || ring.bytes > ring.bytes_max {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= oldest.bytes();
            ring.floor = oldest.change.revision;
        }
        drop(ring);
        self.signal.send_modify(|count| *count += 1);
    }

    /// Nothing will be published any more. Readers get what is there, and then the reason; the first one counts.
    pub(super) fn close(&self, reason: CloseReason) {
        self.ring().closed.get_or_insert(reason);
        self.signal.send_modify(|count| *count += 1);
    }

    /// The lowest revision that can be resumed from.
    pub(super) fn oldest(&self) -> u64 {
        self.ring().floor
    }

    /// Fires when there is something new. To be taken before [`Hub::read`], so that nothing is slept through.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.signal.subscribe()
    }

    /// What comes after `cursor` and `fits`, up to about `bytes_max`.
    pub(super) fn read(&self, cursor: u64, bytes_max: usize, fits: impl Fn(&Change) -> bool) -> Read {
        let ring = self.ring();
        if cursor < ring.floor {
            return Read::Lagged(ring.floor);
        }
        let from = ring.entries.partition_point(|entry| entry.change.revision <= cursor);
        let (mut lines, mut bytes, mut cursor) = (Vec::new(), 0, cursor);
        for entry in ring.entries.range(from..).take(SCAN_MAX) {
            cursor = entry.change.revision;
            if fits(&entry.change) {
                bytes += entry.line.len();
                lines.push(entry.line.clone());
                if bytes >= bytes_max {
                    break;
                }
            }
        }
        match ring.closed {
            _ if from < ring.entries.len() => Read::Lines(lines, cursor),
            Some(reason) => Read::Closed(reason),
            None => Read::Nothing,
        }
    }

    /// Takes a place among the readers, for as long as it lives.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn enter(self: &std::sync::Arc<Self>) -> Result<Place, Full> {
        let mut ring = self.ring();
        if ring.readers >= ring.readers_max {
            return Err(Full { max: ring.readers_max });
        }
        ring.readers += 1;
        drop(ring);
        metrics::watcher(true);
        Ok(Place(std::sync::Arc::clone(self)))
    }
}

/// A reader's place; given back when dropped.
pub(super) struct Place(std::sync::Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.ring().readers -= 1;
        metrics::watcher(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::watch::{Cause, Values};

    fn change(revision: u64) -> Change {
        let what = Values::Members { old: None, new: None };
        Change { revision, time: String::new(), cause: Cause::Gossip, by: None, what }
    }

    fn hub(changes_max: usize, last: u64) -> Hub {
        let hub = Hub::with_limits(10, changes_max, BYTES_MAX, 2);
        (11..=last).for_each(|revision| hub.publish(change(revision)));
        hub
    }

    /// The revisions of the lines that a reader gets, and its cursor.
    fn told(read: Read) -> (Vec<u64>, u64) {
        let Read::Lines(lines, cursor) = read else { panic!("{read:?}") };
        let revision = |line: &Bytes| match serde_json::from_slice(line).unwrap() {
            Line::Change(change) => change.revision,
            other => panic!("{other:?}"),
        };
        (lines.iter().map(revision).collect(), cursor)
    }

    #[test]
    fn every_cursor_gets_exactly_what_follows_it() {
        let hub = hub(100, 15);
        assert_eq!(hub.oldest(), 10);
        for cursor in 10..15 {
            let expected: Vec<u64> = (cursor + 1..=15).collect();
            assert_eq!(told(hub.read(cursor, 1 << 20, |_| true)), (expected, 15));
        }
        assert_eq!(hub.read(15, 1 << 20, |_| true), Read::Nothing);
        // A snapshot may be ahead of what has been published.
        assert_eq!(hub.read(17, 1 << 20, |_| true), Read::Nothing);
        (16..=18).for_each(|revision| hub.publish(change(revision)));
        assert_eq!(told(hub.read(17, 1 << 20, |_| true)), (vec![18], 18));
    }

    #[test]
    fn a_reader_takes_what_it_can_and_goes_on_from_there() {
        let hub = hub(100, 15);
        assert_eq!(told(hub.read(10, 1, |_| true)), (vec![11], 11));
        assert_eq!(told(hub.read(11, 1, |change| change.revision % 2 == 0)), (vec![12], 12));
        // What does not fit is passed over.
        assert_eq!(told(hub.read(12, 1, |_| false)), (vec![], 15));
    }

    #[test]
    fn what_is_past_the_ring_is_lag() {
        let hub = hub(3, 15);
        assert_eq!(hub.oldest(), 12);
        assert_eq!(hub.read(11, 1 << 20, |_| true), Read::Lagged(12));
        assert_eq!(told(hub.read(12, 1 << 20, |_| true)), (vec![13, 14, 15], 15));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let hub = Hub::with_limits(0, 1_000, 4_000, 1);
        (1..=1_000).for_each(|revision| hub.publish(change(revision)));
        let ring = hub.ring();
        assert!(ring.bytes <= 4_000 && ring.entries.len() < 20, "{} in {}", ring.bytes, ring.entries.len());
        assert_eq!(ring.bytes, ring.entries.iter().map(Entry::bytes).sum::<usize>());
        assert_eq!((ring.newest, ring.floor), (1_000, 1_000 - u64::try_from(ring.entries.len()).unwrap()));
    }

    #[test]
    fn after_the_last_change_comes_the_first_reason() {
        let hub = hub(100, 12);
        let mut changes = hub.changes();
        assert!(!changes.has_changed().unwrap());
        hub.close(CloseReason::Left);
        hub.close(CloseReason::Shutdown);
        hub.publish(change(13));
        assert!(changes.borrow_and_update().ge(&1));
        assert_eq!(told(hub.read(11, 1, |_| true)), (vec![12], 12));
        assert_eq!(hub.read(12, 1, |_| true), Read::Closed(CloseReason::Left));
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let hub = Arc::new(hub(1, 10));
        let (first, _second) = (hub.enter().unwrap(), hub.enter().unwrap());
        assert_eq!(hub.enter().err(), Some(Full { max: 2 }));
        drop(first);
        assert!(hub.enter().is_ok());
    }
}
