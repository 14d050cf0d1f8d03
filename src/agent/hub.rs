//! The history of a membership, shared: whoever publishes appends, and readers wait for a signal that there is something new.
//!
//! Not here: what is kept and what a reader is told (`session`), and how it gets there (`watch`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

use super::metrics;
use crate::api::Member;
use crate::api::watch::{Change, CloseReason, Line, Topic, Values, fits, has_labels};
use crate::record::Status;
use crate::record::network::NetworkId;
use crate::session::{Entry, Filter, Gone, History, Limits, Read, Session, Standing};

/// Kept for readers: one change for every node of a large cluster and for every endpoint of a large network, and then some, so
/// that whoever was away for the length of a restart can resume, and whoever watches while this node attaches to such a
/// network need not begin anew.
const LIMITS: Limits = Limits { changes: 16_384, bytes: 8 << 20 };
/// Readers at a time: some for each program of a machine. Each may hold a few buffers of its connection.
const READERS_MAX: usize = 256;

/// The line that tells a change, serialised once for all, and what filters ask of it.
struct Told {
    line: Bytes,
    topic: Option<Topic>,
    network: Option<NetworkId>,
    /// Of a member, before and after.
    statuses: [Option<Status>; 2],
    /// Of a member, before and after, where it has any.
    labels: Vec<BTreeMap<String, String>>,
}

impl Told {
    fn new(what: Values, line: Bytes) -> Self {
        let (topic, network) = (what.topic(), what.network());
        let members = match what {
            Values::Members { old, new } => [old, new],
            _ => [None, None],
        };
        let status = |member: &Option<Box<Member>>| member.as_ref().map(|member| member.status);
        let statuses = members.each_ref().map(status);
        let labels = members.into_iter().flatten().map(|member| member.labels);
        Self { line, topic, network, statuses, labels: labels.filter(|labels| !labels.is_empty()).collect() }
    }

    /// What it takes, about.
    fn bytes(&self) -> usize {
        let labels = self.labels.iter().flatten().map(|(key, value)| key.len() + value.len() + 2 * size_of::<String>());
        size_of::<Entry<Self>>() + self.line.len() + labels.sum::<usize>()
    }

    /// Is it told to whoever asked for that?
    fn fits(&self, filter: &Filter) -> bool {
        let Self { line: _, topic, network, statuses: [old, new], labels } = self;
        topic.is_some_and(|topic| filter.wants(topic))
            && network.is_none_or(|network| filter.is_of(network))
            && (*topic != Some(Topic::Members)
                || fits(&filter.statuses, *old, *new)
                    && (filter.labels.is_empty() || labels.iter().any(|labels| has_labels(&filter.labels, labels))))
    }
}

struct Ring {
    history: History<Told>,
    readers: usize,
    readers_max: usize,
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
        Self::with_limits(revision, LIMITS, READERS_MAX)
    }

    /// With other limits than usual.
    pub(super) fn with_limits(revision: u64, limits: Limits, readers_max: usize) -> Self {
        let ring = Ring { history: History::new(revision, limits), readers: 0, readers_max };
        Self { ring: Mutex::new(ring), signal: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a change and wakes whoever waits. Its revision is above all before.
    pub(super) fn publish(&self, change: Change) {
        let revision = change.revision;
        let line = Line::Change(Box::new(change));
        let Ok(mut text) = serde_json::to_vec(&line) else { return };
        text.push(b'\n');
        let Line::Change(change) = line else { return };
        let told = Told::new(change.what, text.into());
        let bytes = told.bytes();
        self.ring().history.append(Entry { revision, bytes, change: told });
        self.signal.send_modify(|count| *count += 1);
    }

    /// Nothing will be published any more. Readers get what is there, and then the reason; the first one counts.
    pub(super) fn close(&self, reason: CloseReason) {
        self.ring().history.close(reason);
        self.signal.send_modify(|count| *count += 1);
    }

    /// The lowest revision that can be resumed from.
    pub(super) fn oldest(&self) -> u64 {
        self.ring().history.oldest()
    }

    /// Begins a session.
    ///
    /// # Errors
    /// It cannot go on from there.
    pub(super) fn open<I>(&self, standing: Standing<I>, since: Option<u64>) -> Result<Session<I>, Gone> {
        Session::open(standing, since, &self.ring().history)
    }

    /// Fires when there is something new. To be taken before [`Hub::read`], so that nothing is slept through.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.signal.subscribe()
    }

    /// The lines that come after `cursor` and that `filter` lets through, up to about `bytes_max`.
    pub(super) fn read(&self, cursor: u64, bytes_max: usize, filter: &Filter) -> Read<Bytes> {
        let line = |told: &Told| told.fits(filter).then(|| (told.line.clone(), told.line.len()));
        self.ring().history.read(cursor, bytes_max, line)
    }

    /// Takes a place among the readers, for as long as it lives.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let mut ring = self.ring();
        if ring.readers >= ring.readers_max {
            return Err(Full { max: ring.readers_max });
        }
        ring.readers += 1;
        drop(ring);
        metrics::watcher(true);
        Ok(Place(Arc::clone(self)))
    }
}

/// A reader's place; given back when dropped.
pub(super) struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.ring().readers -= 1;
        metrics::watcher(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::watch::Cause;

    fn change(revision: u64, what: Values) -> Change {
        Change { revision, time: String::new(), cause: Cause::Gossip, by: None, what }
    }

    #[test]
    fn lines_are_what_was_published() {
        let hub = Hub::new(10);
        let mut changes = hub.changes();
        for revision in 11..=13 {
            let what = match revision {
                12 => Values::Decisions { old: None, new: None },
                _ => Values::Members { old: None, new: None },
            };
            hub.publish(change(revision, what));
        }
        assert!(changes.borrow_and_update().ge(&3));
        let members = Filter { topics: vec![Topic::Members], ..Filter::default() };
        let Read::Changes(lines, 13) = hub.read(10, 1 << 20, &members) else { panic!() };
        let revision = |line: &Bytes| match serde_json::from_slice(line).unwrap() {
            Line::Change(change) => change.revision,
            other => panic!("{other:?}"),
        };
        assert_eq!(lines.iter().map(revision).collect::<Vec<_>>(), [11, 13]);
        assert!(lines.iter().all(|line| line.ends_with(b"\n")));
        hub.close(CloseReason::Left);
        assert!(changes.has_changed().unwrap());
        assert_eq!(hub.read(13, 1, &members), Read::Closed(CloseReason::Left));
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let hub = Arc::new(Hub::with_limits(10, LIMITS, 2));
        let (first, _second) = (hub.enter().unwrap(), hub.enter().unwrap());
        assert_eq!(hub.enter().err(), Some(Full { max: 2 }));
        drop(first);
        assert!(hub.enter().is_ok());
    }
}
