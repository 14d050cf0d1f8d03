//! What owners have really written, version by version, and what is in their tables on their disks.
//!
//! Not here: what nodes show of it (`shown`), and whether that is allowed (`tables`).

use std::collections::{BTreeMap, BTreeSet};

use gossipd::record::Version;
use gossipd::wire::table::Step;

use crate::host::HostId;
use crate::shown::{Name, Place, hash_of, share};
use crate::writing::{ATTACHMENTS, scope_number};

/// One table, as its owner has it.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// What is in it now.
    pub(super) current: BTreeMap<Name, u64>,
    /// The sum of that, and how many they are.
    pub(super) content: (u64, u32),
    /// The highest version that was ever written.
    pub(super) last: Version,
    /// What was in it at each version.
    pub(super) contents: BTreeMap<Version, (u64, u32)>,
    /// What became of each record, and at which version; nothing: it was deleted.
    pub(super) records: BTreeMap<Name, Vec<(Version, Option<u64>)>>,
    /// The highest version that anybody is at or was.
    pub(super) seen: Version,
    /// When somebody who runs was at a version for the last time, in virtual microseconds.
    pub(super) left: BTreeMap<Version, u64>,
}

impl Table {
    fn put(&mut self, name: Name, hash: Option<u64>, version: Version) {
        let old = match hash {
            Some(hash) => self.current.insert(name, hash),
            None => self.current.remove(&name),
        };
        let (sum, count) = &mut self.content;
        *sum = sum.wrapping_add(hash.map_or(0, |hash| share(&name, hash)));
        *sum = sum.wrapping_sub(old.map_or(0, |old| share(&name, old)));
        *count = *count + u32::from(hash.is_some()) - u32::from(old.is_some());
        if old != hash {
            self.records.entry(name).or_default().push((version, hash));
        }
    }

    /// Was that ever in the record's place?
    pub(super) fn was_written(&self, name: &Name, hash: u64) -> bool {
        self.records.get(name).is_some_and(|all| all.iter().any(|(_, written)| *written == Some(hash)))
    }

    /// The version of the write that a record comes from for whoever is at `held`, and that of its next deletion, if
    /// anybody has seen it.
    pub(super) fn fate(&self, name: &Name, held: Version) -> Option<(Version, Version)> {
        let all = self.records.get(name)?;
        let (from, _) = all.iter().rev().find(|(version, _)| *version <= held)?;
        let (gone, _) = all.iter().find(|(version, hash)| *version > held && hash.is_none())?;
        (*gone <= self.seen).then_some((*from, *gone))
    }
}

/// A write that others should hear of.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) version: Version,
    pub(super) at_us: u64,
    pub(super) waiting: BTreeSet<HostId>,
}

/// A life that lost its tables: others still show them.
#[derive(Debug)]
pub(super) struct Burial {
    pub(super) owner: u32,
    /// Versions of its next life begin here.
    pub(super) generation: u64,
    /// It has no next life: that its records are marked is enough.
    pub(super) stays_down: bool,
    pub(super) at_us: u64,
    pub(super) left: BTreeSet<HostId>,
}

/// All that was ever written, and how soon others knew.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) tables: BTreeMap<Place, Table>,
    /// Owners whose id several nodes have: nothing is certain about their tables.
    pub(super) doubtful: BTreeSet<u32>,
    pub(super) open: BTreeMap<Place, Vec<Pending>>,
    pub(super) burials: Vec<Burial>,
    /// Grows whenever anything changes that agreement depends on.
    pub(super) changes: u64,
    /// What was found last, and at which of these changes.
    pub(super) agreed: Option<(u64, bool)>,
    /// Writes that changed something.
    pub writes: u64,
    /// Writes that the owner's own node refused.
    pub refused: u64,
    /// Time from a write until one who should know of it does, in microseconds.
    pub(crate) spread_us: Vec<u32>,
    /// Time until all did.
    pub(crate) spread_all_us: Vec<u32>,
    /// Time until nobody showed any more what a lost life had written.
    pub(crate) buried_us: Vec<u64>,
}

impl Registry {
    /// Who should know of a write and does not yet.
    pub fn missed(&self) -> usize {
        self.open.values().flatten().map(|pending| pending.waiting.len()).sum()
    }

    /// Lives that lost their tables, and of which somebody still shows something.
    pub fn unburied(&self) -> usize {
        self.burials.len()
    }

    pub(super) fn table(&self, place: Place) -> Option<&Table> {
        self.tables.get(&place)
    }

    /// What should be in a table.
    pub(super) fn content(&self, place: Place) -> (u64, u32) {
        self.tables.get(&place).map(|table| table.content).unwrap_or_default()
    }

    /// The networks that an owner takes part in, by their numbers.
    pub(super) fn networks(&self, owner: u32) -> impl Iterator<Item = u8> {
        let table = self.tables.get(&(owner, ATTACHMENTS));
        table.into_iter().flat_map(|table| table.current.keys()).filter_map(|name| name.first().copied())
    }

    pub(super) fn is_attached(&self, owner: u32, network: u8) -> bool {
        network == ATTACHMENTS || self.networks(owner).any(|number| number == network)
    }

    /// A step is on its owner's disk. Says whether it follows what was there.
    pub(super) fn keep(&mut self, owner: u32, step: &Step) -> bool {
        let place = (owner, scope_number(step.scope));
        let table = self.tables.entry(place).or_default();
        let version = step.to();
        let follows = version > table.last
            && (step.since == table.last || step.is_whole() || table.current.is_empty() && step.since == Version::NONE);
        let counts = version.seq == 1 || version.generation == table.last.generation && version.seq > table.last.seq;
        if step.is_whole() {
            let gone: Vec<_> = table.current.keys().copied().collect();
            gone.into_iter().for_each(|name| table.put(name, None, version));
        }
        let mut detached = Vec::new();
        for change in &step.changes {
            let name = *change.key.as_bytes();
            table.put(name, change.body.as_ref().map(|body| hash_of(step.scope, body)), version);
            if place.1 == ATTACHMENTS && change.body.is_none() {
                detached.extend(name.first().copied());
            }
        }
        table.last = table.last.max(version);
        table.contents.insert(version, table.content);
        for network in detached {
            self.clear((owner, network));
        }
        self.changes += 1;
        follows && (counts || step.is_whole() || step.since == Version::NONE)
    }

    /// A table is gone from its owner's disk.
    fn clear(&mut self, place: Place) {
        if let Some(table) = self.tables.get_mut(&place) {
            table.current.clear();
            table.content = (0, 0);
            let gone = Version { seq: table.last.seq.saturating_add(1), ..table.last };
            for all in table.records.values_mut().filter(|all| all.last().is_some_and(|(_, hash)| hash.is_some())) {
                all.push((gone, None));
            }
        }
    }

    /// All tables of an owner are gone from its disk.
    pub(super) fn lose(&mut self, owner: u32) {
        let places: Vec<_> = self.tables.range((owner, 0)..=(owner, u8::MAX)).map(|(place, _)| *place).collect();
        places.into_iter().for_each(|place| self.clear(place));
        self.changes += 1;
    }

    /// `observer` is at a version of a table: what was waited for is there. Notes how long it took.
    pub(super) fn arrived(&mut self, place: Place, observer: HostId, version: Version, now_us: u64) {
        let Some(open) = self.open.get_mut(&place) else { return };
        for pending in open.iter_mut().filter(|pending| pending.version <= version) {
            if pending.waiting.remove(&observer) {
                let us = u32::try_from(now_us - pending.at_us).unwrap_or(u32::MAX);
                self.spread_us.push(us);
                if pending.waiting.is_empty() {
                    self.spread_all_us.push(us);
                }
            }
        }
        open.retain(|pending| !pending.waiting.is_empty());
        if open.is_empty() {
            self.open.remove(&place);
        }
    }

    /// Nothing is expected of `host` any more, in all tables or in those of a network.
    pub(super) fn excuse(&mut self, host: HostId, network: Option<u8>) {
        for (_, open) in self.open.iter_mut().filter(|((_, scope), _)| network.is_none_or(|number| number == *scope)) {
            open.retain_mut(|pending| {
                pending.waiting.remove(&host);
                !pending.waiting.is_empty()
            });
        }
        self.open.retain(|_, open| !open.is_empty());
        self.changes += 1;
    }
}
