//! What one node's events amount to: a listing folded from the event stream alone, as a subscriber would do it.
//!
//! Not here: the node's own listing; `world` compares the two.

use std::sync::Arc;

use gossipd::node::{Identity, Member};
use gossipd::record::decision::Decided;
use gossipd::record::{NodeRecord, Status};

/// One line of the listing: all of a [`Member`] whose change is told.
#[derive(Debug, Clone)]
pub struct Row {
    /// Life and address.
    pub identity: Identity,
    /// Status.
    pub status: Status,
    /// Since when, in milliseconds since the Unix epoch by the observer's clock.
    pub since_ms: u64,
    /// SWIM's incarnation when the change was told; one that grows alone is not told.
    pub incarnation: u16,
    /// The owner's record.
    pub record: Option<Arc<NodeRecord>>,
    /// What was decided about it.
    pub decided: Arc<Decided>,
}

impl Row {
    /// Everything whose change is told.
    pub(crate) fn told(&self) -> (Identity, Status, u64, Option<&NodeRecord>, &Decided) {
        let Self { identity, status, since_ms, incarnation: _, record, decided } = self;
        (*identity, *status, *since_ms, record.as_deref(), decided)
    }

    /// Status, life and address.
    pub(crate) fn seen(&self) -> (Identity, Status) {
        (self.identity, self.status)
    }
}

impl From<&Member> for Row {
    fn from(member: &Member) -> Self {
        let Member { swim, status, since_ms, record, decided, heard_us: _, rtt_us: _, tcp_only: _ } = member;
        Self {
            identity: swim.identity,
            status: *status,
            since_ms: *since_ms,
            incarnation: swim.incarnation,
            record: record.clone(),
            decided: Arc::clone(decided),
        }
    }
}

/// The listing so far, by the numbers that node ids have in the world.
#[derive(Debug, Default)]
pub(crate) struct View {
    rows: Vec<Option<Row>>,
    revision: u64,
    suspect: usize,
    /// Rows that say the truth about a node that runs.
    pub(crate) right: usize,
}

impl View {
    /// An empty listing at a node's first revision.
    pub(crate) const fn new(revision: u64) -> Self {
        Self { rows: Vec::new(), revision, suspect: 0, right: 0 }
    }

    pub(crate) const fn suspect(&self) -> usize {
        self.suspect
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Row> {
        self.rows.get(number)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.rows.iter().enumerate().filter_map(|(number, row)| Some((number, row.as_ref()?)))
    }

    /// Takes in the next revision; `false` when it is not the one that follows.
    pub(crate) const fn follow(&mut self, revision: u64) -> bool {
        let follows = revision == self.revision + 1;
        self.revision = revision;
        follows
    }

    /// Replaces a row. Gives what was there before.
    pub(crate) fn put(&mut self, number: usize, row: Option<Row>) -> Option<Row> {
        if self.rows.len() <= number {
            self.rows.resize_with(number + 1, || None);
        }
        let place = self.rows.get_mut(number)?;
        self.suspect += usize::from(row.as_ref().is_some_and(|row| row.status == Status::Suspect));
        let old = std::mem::replace(place, row);
        self.suspect -= usize::from(old.as_ref().is_some_and(|row| row.status == Status::Suspect));
        old
    }
}
