//! The tables that one node shows: folded from its events alone, as a network agent would do it.
//!
//! Not here: the node's own tables; `world` compares the two.

use std::collections::{BTreeMap, BTreeSet};

use gossipd::record::Version;
use gossipd::wire::table::{Body, Scope};

use crate::trace::Trace;

/// A table: the number of its owner among all that were ever born, and that of its scope.
pub(crate) type Place = (u32, u8);
/// What names a record in its table.
pub(crate) type Name = [u8; 16];

/// A record, as told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) hash: u64,
    /// Since when its owner is down, as the observer said last.
    pub(crate) down_since_ms: Option<u64>,
}

/// All records of one table together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) hash: u64,
    pub(crate) records: u32,
    /// The highest version that the observer ever was at.
    pub(crate) version: Version,
}

impl Sum {
    /// What is in it, whatever it was called.
    pub(crate) const fn content(self) -> (u64, u32) {
        (self.hash, self.records)
    }
}

/// Marks that have to follow a member's change at once.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) owner: u32,
    pub(crate) left: BTreeSet<(u8, Name)>,
}

/// All tables that one node has told of.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    records: BTreeMap<(u32, u8, Name), Record>,
    sums: BTreeMap<Place, Sum>,
    pub(crate) owed: Option<Owed>,
    /// Tables that changed within the present input.
    pub(crate) touched: BTreeSet<Place>,
    /// Records that appeared within it.
    pub(crate) fresh: Vec<(Place, Name)>,
    /// Steps that the node had taken in when it was looked at last.
    pub(crate) steps_taken: u64,
}

impl Shown {
    /// Puts a record in its place, or takes it away. Gives what was there before.
    pub(crate) fn put(&mut self, (owner, scope): Place, name: Name, record: Option<Record>) -> Option<Record> {
        let place = (owner, scope, name);
        let old = match record {
            Some(record) => self.records.insert(place, record),
            None => self.records.remove(&place),
        };
        let sum = self.sums.entry((owner, scope)).or_default();
        if let Some(record) = record {
            (sum.hash, sum.records) = (sum.hash.wrapping_add(share(&name, record.hash)), sum.records + 1);
        }
        if let Some(old) = old {
            (sum.hash, sum.records) = (sum.hash.wrapping_sub(share(&name, old.hash)), sum.records - 1);
        }
        self.touched.insert((owner, scope));
        if old.is_none() && record.is_some() {
            self.fresh.push(((owner, scope), name));
        }
        old
    }

    pub(crate) fn get(&self, (owner, scope): Place, name: &Name) -> Option<Record> {
        self.records.get(&(owner, scope, *name)).copied()
    }

    /// The records of one owner, by scope and name.
    pub(crate) fn of(&self, owner: u32) -> impl Iterator<Item = (u8, Name, Record)> {
        let all = self.records.range((owner, 0, [0; 16])..=(owner, u8::MAX, [u8::MAX; 16]));
        all.map(|((_, scope, name), record)| (*scope, *name, *record))
    }

    /// All records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, Name, Record)> {
        self.records.iter().map(|((owner, scope, name), record)| ((*owner, *scope), *name, *record))
    }

    pub(crate) fn sum(&self, place: Place) -> Sum {
        self.sums.get(&place).copied().unwrap_or_default()
    }

    /// The observer is at that version of a table now. Gives the highest that it ever was at before.
    pub(crate) fn reach(&mut self, place: Place, version: Version) -> Version {
        let sum = self.sums.entry(place).or_default();
        let before = sum.version;
        sum.version = before.max(version);
        before
    }

    /// All tables that anything was told of.
    pub(crate) fn sums(&self) -> impl Iterator<Item = (Place, Sum)> {
        self.sums.iter().map(|(place, sum)| (*place, *sum))
    }
}

/// A record's part of a table's sum.
pub(crate) fn share(name: &Name, hash: u64) -> u64 {
    let mut trace = Trace::default();
    trace.bytes(name);
    trace.number(hash);
    fold(trace)
}

/// What a record says, as far as this version reads it.
pub(crate) fn hash_of(scope: Scope, body: &Body) -> u64 {
    let read = match scope {
        Scope::Attachments => body.attachment().ok().and_then(|read| Body::of_attachment(&read).ok()),
        Scope::Network(_) => body.endpoint().ok().and_then(|read| Body::of_endpoint(&read).ok()),
    };
    let mut trace = Trace::default();
    trace.bytes(read.as_ref().unwrap_or(body).as_bytes());
    fold(trace)
}

fn fold(trace: Trace) -> u64 {
    let value = trace.value() ^ (trace.value() >> 64);
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default()
}
