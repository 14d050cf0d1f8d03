//! What one node's events amount to: a listing folded from the event stream alone, as a subscriber would do it.
//!
//! Not here: the node's own listing; `world` compares the two.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gossipd::node::{Identity, Member};
use gossipd::record::decision::{Decided, Decision, DecisionKey, Stamp};
use gossipd::record::{NodeRecord, Status};

use crate::shown::Shown;
use crate::trace::Trace;

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

    /// Whether it is the same, sharing all that can be shared.
    fn is_same(&self, other: &Self) -> bool {
        let plain = |row: &Self| (row.identity, row.status, row.since_ms, row.incarnation);
        let record = |row: &Self| row.record.as_ref().map(Arc::as_ptr);
        plain(self) == plain(other) && record(self) == record(other) && Arc::ptr_eq(&self.decided, &other.decided)
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

/// Lines about one node that many observers hold at once, the last few of them: most see the same.
#[derive(Debug, Default)]
pub(crate) struct Common(VecDeque<Arc<Row>>);

/// Lines about one node that are remembered.
const COMMON_MAX: usize = 4;

impl Common {
    /// The line itself, or one that is the same.
    pub(crate) fn share(&mut self, row: Row) -> Arc<Row> {
        if let Some(known) = self.0.iter().rev().find(|known| known.is_same(&row)) {
            return Arc::clone(known);
        }
        let row = Arc::new(row);
        if self.0.len() >= COMMON_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Arc::clone(&row));
        row
    }
}

/// A decision that stands, as told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) decision: Arc<Decision>,
    /// Since when, in virtual microseconds.
    pub(crate) since_us: u64,
}

/// The listing so far, by the numbers that node ids have in the world.
#[derive(Debug, Default)]
pub(crate) struct View {
    rows: Vec<Option<Arc<Row>>>,
    decisions: BTreeMap<DecisionKey, Told>,
    /// A sum of hashes over the decisions: equal sums, equal decisions.
    fold: u128,
    revision: u64,
    suspect: usize,
    /// The tables told of.
    pub(crate) shown: Shown,
    /// Rows that say the truth about a node that runs.
    pub(crate) right: usize,
}

impl View {
    /// An empty listing at a node's first revision, with the decisions that it remembers.
    pub(crate) fn new(revision: u64, decisions: Vec<Arc<Decision>>, now_us: u64) -> Self {
        let mut view = Self { revision, ..Self::default() };
        for decision in decisions {
            view.decide(decision.key(), Some(decision), now_us);
        }
        view
    }

    /// What was told about a register last.
    pub(crate) fn told(&self, key: &DecisionKey) -> Option<&Told> {
        self.decisions.get(key)
    }

    /// All decisions that stand.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = (&DecisionKey, &Told)> {
        self.decisions.iter()
    }

    /// Whether the decisions told so far are these.
    pub(crate) fn folds_to(&self, decisions: &[Arc<Decision>]) -> bool {
        let is_told = |decision: &Arc<Decision>| {
            self.decisions.get(&decision.key()).is_some_and(|told| told.decision == *decision)
        };
        decisions.len() == self.decisions.len() && decisions.iter().all(is_told)
    }

    pub(crate) const fn fold(&self) -> u128 {
        self.fold
    }

    /// Something else stands in a register.
    pub(crate) fn decide(&mut self, key: DecisionKey, new: Option<Arc<Decision>>, now_us: u64) {
        let new = new.map(|decision| Told { decision, since_us: now_us });
        self.fold = self.fold.wrapping_add(new.as_ref().map_or(0, |told| share(told.decision.stamp)));
        let old = match new {
            Some(told) => self.decisions.insert(key, told),
            None => self.decisions.remove(&key),
        };
        self.fold = self.fold.wrapping_sub(old.map_or(0, |told| share(told.decision.stamp)));
    }

    pub(crate) const fn suspect(&self) -> usize {
        self.suspect
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Row> {
        self.rows.get(number)?.as_deref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.rows.iter().enumerate().filter_map(|(number, row)| Some((number, row.as_deref()?)))
    }

    /// Takes in the next revision; `false` when it is not the one that follows.
    pub(crate) const fn follow(&mut self, revision: u64) -> bool {
        let follows = revision == self.revision + 1;
        self.revision = revision;
        follows
    }

    /// Room for so many rows, and for no others.
    pub(crate) fn reserve_exact(&mut self, rows: usize) {
        self.rows.reserve_exact(rows);
    }

    /// Replaces a row. Gives what was there before.
    pub(crate) fn put(&mut self, number: usize, row: Option<Arc<Row>>) -> Option<Arc<Row>> {
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

/// A decision's part of the sum; stamps name decisions.
pub(crate) fn share(stamp: Stamp) -> u128 {
    let Stamp { at, signer } = stamp;
    let mut hash = Trace::default();
    hash.number(at.bits());
    hash.bytes(signer.as_bytes());
    hash.value()
}
