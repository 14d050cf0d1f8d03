//! What one node's events amount to: a listing folded from the event stream alone, as a subscriber would do it.
//!
//! Not here: the node's own listing; `world` compares the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use gossipd::node::{Identity, Member};
use gossipd::record::{NodeId, NodeRecord, Status};

use crate::host::HostId;

/// One line of the listing: all of a [`Member`] whose change is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Life and address.
    pub identity: Identity,
    /// Status.
    pub status: Status,
    /// Since when, in milliseconds since the Unix epoch by the observer's clock.
    pub since_ms: u64,
    /// The owner's record.
    pub record: Option<Arc<NodeRecord>>,
}

impl From<&Member> for Row {
    fn from(member: &Member) -> Self {
        let Member { swim, status, since_ms, record, heard_us: _, rtt_us: _, tcp_only: _ } = member;
        Self { identity: swim.identity, status: *status, since_ms: *since_ms, record: record.clone() }
    }
}

/// One node saw another one change status, life or address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// Who saw it.
    pub observer: HostId,
    /// Of whom.
    pub subject: HostId,
    /// Which life of it.
    pub generation: u64,
    /// Status before; none: it was not listed.
    pub old: Option<Status>,
    /// Status after; none: it is not listed any more.
    pub new: Option<Status>,
    /// Whether a node really lived on the subject at that time.
    pub subject_lives: bool,
}

/// The listing so far.
#[derive(Debug, Default)]
pub(crate) struct View {
    rows: BTreeMap<NodeId, Row>,
    revision: u64,
    ready: usize,
    suspect: usize,
}

impl View {
    /// An empty listing at a node's first revision.
    pub(crate) const fn new(revision: u64) -> Self {
        Self { rows: BTreeMap::new(), revision, ready: 0, suspect: 0 }
    }

    pub(crate) const fn ready(&self) -> usize {
        self.ready
    }

    pub(crate) const fn suspect(&self) -> usize {
        self.suspect
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// Takes in the next revision; `false` when it is not the one that follows.
    pub(crate) const fn follow(&mut self, revision: u64) -> bool {
        let follows = revision == self.revision + 1;
        self.revision = revision;
        follows
    }

    /// Replaces the row of `id`. Gives what was there before.
    pub(crate) fn put(&mut self, id: NodeId, row: Option<Row>) -> Option<Row> {
        if let Some(row) = &row {
            self.count(row.status, true);
        }
        let old = match row {
            Some(row) => self.rows.insert(id, row),
            None => self.rows.remove(&id),
        };
        if let Some(old) = &old {
            self.count(old.status, false);
        }
        old
    }

    /// Where this listing and `members` differ, `me` left out.
    pub(crate) fn differences(&self, me: NodeId, members: &[Member]) -> Vec<String> {
        let theirs: BTreeMap<_, _> = members
            .iter()
            .filter(|member| member.swim.identity.id != me)
            .map(|member| (member.swim.identity.id, Row::from(member)))
            .collect();
        let mut ids: Vec<_> = self.rows.keys().chain(theirs.keys()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter(|id| self.rows.get(id) != theirs.get(id))
            .map(|id| format!("{id}: events {:?}, listing {:?}", self.rows.get(id), theirs.get(id)))
            .collect()
    }

    const fn count(&mut self, status: Status, more: bool) {
        let counter = match status {
            Status::Ready => &mut self.ready,
            Status::Suspect => &mut self.suspect,
            Status::Down | Status::Left => return,
        };
        if more {
            *counter += 1;
        } else {
            *counter -= 1;
        }
    }
}
