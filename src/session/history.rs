//! The last changes of a node, in order, within bounds of number and bytes.
//!
//! Not here: who reads them (`Session`).

use std::collections::VecDeque;

use crate::api::watch::CloseReason;
use crate::node::Mutant;

/// Changes looked at for one reader before others get their turn.
const SCAN_MAX: usize = 1_024;

/// What is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changes.
    pub changes: usize,
    /// Bytes, as their publisher counts them.
    pub bytes: usize,
}

/// A change, and what it costs to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<C> {
    /// Its revision, above that of all before.
    pub revision: u64,
    /// Bytes.
    pub bytes: usize,
    /// The change.
    pub change: C,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// Changes, which may be none when nothing fits, and the cursor behind them.
    Changes(Vec<T>, u64),
    /// Nothing new.
    Nothing,
    /// All up to this revision is gone.
    Lagged(u64),
    /// There will be nothing more.
    Closed(CloseReason),
}

/// See the header.
#[derive(Debug, Clone)]
pub struct History<C> {
    entries: VecDeque<Entry<C>>,
    bytes: usize,
    /// All after this one is kept.
    floor: u64,
    closed: Option<CloseReason>,
    limits: Limits,
    flaw: Option<Mutant>,
}

impl<C> History<C> {
    /// A history whose first change will be the one after `revision`.
    pub const fn new(revision: u64, limits: Limits) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, floor: revision, closed: None, limits, flaw: None }
    }

    /// Builds a fault in, on purpose.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_flaw(self, flaw: Option<Mutant>) -> Self {
        Self { flaw, ..self }
    }

    /// Appends a change, and forgets what there is no room for any more. After [`History::close`] nothing is appended.
    pub fn append(&mut self, entry: Entry<C>) {
        if self.closed.is_some() {
            return;
        }
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        let keeps_all = self.has(Mutant::HoardChanges);
        while !keeps_all && (self.entries.len() > self.limits.changes || self.bytes > self.limits.bytes) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
    }

    /// Nothing will be appended any more. Readers get what is there, and then the reason; the first one counts.
    pub const fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() {
            self.closed = Some(reason);
        }
    }

    /// The lowest revision that can be resumed from.
    pub const fn oldest(&self) -> u64 {
        if self.has(Mutant::BoastHistory) { 0 } else { self.floor }
    }

    /// Is this fault built in?
    pub(super) const fn has(&self, mutant: Mutant) -> bool {
        mutant.is_in(self.flaw)
    }

    /// How many changes are kept, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// What comes after `cursor`: of each change what `pick` makes of it, with its bytes, up to about `bytes_max`. What `pick`
    /// makes nothing of is passed over.
    pub fn read<T>(&self, cursor: u64, bytes_max: usize, mut pick: impl FnMut(&C) -> Option<(T, usize)>) -> Read<T> {
        if cursor < self.floor && !self.has(Mutant::SilentLag) {
            return Read::Lagged(self.floor);
        }
        let from = self.entries.partition_point(|entry| entry.revision <= cursor);
        let (mut picked, mut bytes, mut cursor) = (Vec::new(), 0, cursor);
        for entry in self.entries.range(from..).take(SCAN_MAX) {
            cursor = entry.revision;
            if let Some((one, size)) = pick(&entry.change) {
                bytes += size;
                picked.push(one);
                if bytes >= bytes_max {
                    break;
                }
            }
        }
        match self.closed {
            _ if from < self.entries.len() => Read::Changes(picked, cursor),
            Some(reason) => Read::Closed(reason),
            None => Read::Nothing,
        }
    }
}
