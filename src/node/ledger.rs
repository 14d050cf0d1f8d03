//! One owner's table in one scope: what is in it, at which version, and what is needed to tell others the difference.
//!
//! # Versions
//! An owner numbers its writes (generation, seq): seq counts from 1 in each life, without gaps. A new life continues the
//! table that it finds on its disk: its first write is (its generation, 1), since the last version that was kept of the
//! life before. So a table's history is a chain of lives, each with the last version of it that was kept (its *tip*); the
//! last tip is the version that the table is at.
//!
//! One rule follows: **a version has one content**, whoever holds it, so merging is taking the later version. A step that
//! begins at what is held, or before it, leads to its version; a step from nothing does so from anywhere; any other has to
//! wait. A replica that holds a version which the chain leaves out (an owner came back with an older disk) can only take
//! the whole.
//!
//! Deletions are remembered for steps only, and no more of them than there are records (and a few): a reader that is older
//! gets the whole, which replaces what it has. So nothing comes back from the dead, however long somebody was away.
//!
//! Not here: who may write, quotas, what a body means (`tables`).

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::record::{NodeId, Version};
use crate::wire::table::{Body, Change, Key, LIVES_MAX, Mark, Scope, Step};

/// Deletions remembered even of a table that is nearly empty. Beyond that, a step that names them costs more than the
/// whole table.
const DELETIONS_MIN: usize = 64;

/// Records and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// How many records.
    pub records: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

impl Usage {
    fn of(body: &Body) -> Self {
        Self { records: 1, bytes: body.as_bytes().len() }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { records: self.records.saturating_sub(other.records), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) key: Key,
    pub(super) old: Option<Body>,
    pub(super) new: Option<Body>,
}

/// How a step relates to what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It leads to what is held, or to less.
    Old,
    /// It leads from what is held, or from before it.
    Extends,
    /// It is everything.
    Replaces,
    /// Something is missing in between, or the owner's history left out what is held.
    Early,
}

#[derive(Debug)]
struct Entry {
    /// The record is as it was at this version, or was so later.
    version: Version,
    body: Option<Body>,
    hash: u64,
}

/// One owner's table in one scope.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The tip of each life, oldest first.
    lives: Vec<Version>,
    /// Of deletions up to here some are forgotten.
    collected: Version,
    /// Records, and deletions that are remembered.
    entries: BTreeMap<Key, Entry>,
    /// Records by version.
    order: BTreeSet<(Version, Key)>,
    /// Deletions by version.
    graves: BTreeSet<(Version, Key)>,
    usage: Usage,
    /// The sum of all records' hashes.
    hash: u64,
    /// What this table adds to its scope's digest at present.
    pub(super) counted: u128,
    /// A version that was refused: not to be asked for again.
    pub(super) refused: Version,
}

impl Ledger {
    // ---- getters -------------------------------------------------------------------------------------------------

    /// The version that it is at.
    pub(super) fn version(&self) -> Version {
        self.lives.last().copied().unwrap_or_default()
    }

    /// The chain of lives, by their tips.
    pub(super) fn lives(&self) -> &[Version] {
        &self.lives
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn get(&self, key: Key) -> Option<&Body> {
        self.entries.get(&key)?.body.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Body)> {
        self.entries.iter().filter_map(|(key, entry)| Some((*key, entry.body.as_ref()?)))
    }

    pub(super) fn mark(&self, owner: NodeId) -> Mark {
        Mark { owner, version: self.version(), hash: self.hash }
    }

    /// Is that version part of this table's history?
    pub(super) fn has_been(&self, version: Version) -> bool {
        is_on(&self.lives, version)
    }

    /// What the table adds to a digest.
    pub(super) fn share(&self, scope: Scope, owner: NodeId) -> u128 {
        let Version { generation, seq } = self.version();
        let network = match &scope {
            Scope::Attachments => [0; 16],
            Scope::Network(network) => *network.as_bytes(),
        };
        let numbers = [generation, seq, self.hash].map(u64::to_be_bytes);
        let hash = sha256(&[&network, owner.as_bytes(), numbers.as_flattened()]);
        hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
    }

    /// The step from `since` to here; everything, where no difference can be told. None: `since` is as late.
    pub(super) fn step(&self, owner: NodeId, scope: Scope, since: Version) -> Option<Step> {
        if since >= self.version() {
            return None;
        }
        if since < self.collected || !self.has_been(since) {
            let changes = self.iter().map(|(key, body)| Change { key, body: Some(body.clone()) }).collect();
            return Some(Step { owner, scope, since: Version::NONE, lives: self.lives.clone(), changes });
        }
        let lives = self.lives.iter().copied().filter(|tip| tip.generation >= since.generation).collect();
        let later = (Bound::Excluded((since, Key::MAX)), Bound::Unbounded);
        let mut keys: Vec<_> = self.order.range(later).chain(self.graves.range(later)).map(|(_, key)| *key).collect();
        keys.sort_unstable();
        let body_of = |key: &Key| self.entries.get(key).and_then(|entry| entry.body.clone());
        let changes = keys.into_iter().map(|key| Change { key, body: body_of(&key) }).collect();
        Some(Step { owner, scope, since, lives, changes })
    }

    /// Is there something else in this step, which is whole?
    pub(super) fn differs(&self, step: &Step) -> bool {
        let hashes = step.changes.iter().filter_map(|change| Some(hash(change.key, change.body.as_ref()?)));
        hashes.fold(0, u64::wrapping_add) != self.hash
    }

    /// How does the step relate to what is held?
    pub(super) fn fit(&self, step: &Step) -> Fit {
        let version = self.version();
        if step.to() <= version {
            Fit::Old
        } else if step.is_whole() {
            Fit::Replaces
        } else if step.since <= version && is_on(&step.lives, version) {
            Fit::Extends
        } else {
            Fit::Early
        }
    }

    /// What would be held after a step that extends or replaces.
    pub(super) fn usage_after(&self, step: &Step) -> Usage {
        let mut usage = if step.is_whole() { Usage::default() } else { self.usage };
        for change in &step.changes {
            let old = if step.is_whole() { None } else { self.get(change.key) };
            usage = old.map_or(usage, |old| usage.minus(Usage::of(old)));
            usage = change.body.as_ref().map_or(usage, |new| usage.plus(Usage::of(new)));
        }
        usage
    }

    // ---- changes -------------------------------------------------------------------------------------------------

    /// Takes in a step that extends or replaces, and says what became of what.
    pub(super) fn take(&mut self, step: &Step) -> Vec<Turn> {
        let mut turns = Vec::new();
        if step.is_whole() {
            let kept = |key: &Key| step.changes.binary_search_by_key(key, |change| change.key).is_ok();
            let gone: Vec<_> = self.iter().map(|(key, _)| key).filter(|key| !kept(key)).collect();
            turns.extend(gone.into_iter().filter_map(|key| self.put(key, None, step.to())));
            // What was deleted before is not in the step: there is nothing to tell of it any more.
            self.collected = step.to();
            self.forget_deletions(0);
            self.lives.clear();
        }
        turns.extend(step.changes.iter().filter_map(|change| self.put(change.key, change.body.clone(), step.to())));
        let first = step.lives.first().map_or(0, |tip| tip.generation);
        self.lives.retain(|tip| tip.generation < first);
        self.lives.extend_from_slice(&step.lives);
        let surplus = self.lives.len().saturating_sub(LIVES_MAX);
        self.lives.drain(..surplus);
        self.forget_deletions(self.usage.records.max(DELETIONS_MIN));
        turns
    }

    /// The step of a write by the owner, in its life `generation`, after anything up to `floor`. None: nothing would change.
    pub(super) fn write(
        &self,
        (owner, scope): (NodeId, Scope),
        generation: u64,
        floor: Version,
        mut changes: Vec<Change>,
    ) -> Option<Step> {
        changes.sort_by_key(|change| change.key);
        changes.dedup_by(|later, earlier| {
            // The last word on a key counts.
            let same = later.key == earlier.key;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        changes.retain(|change| self.get(change.key) != change.body.as_ref());
        if changes.is_empty() {
            return None;
        }
        let since = self.version();
        let to = next(since.max(floor), generation);
        let before = (since != Version::NONE && since.generation != to.generation).then_some(since);
        Some(Step { owner, scope, since, lives: before.into_iter().chain([to]).collect(), changes })
    }

    /// Everything again, at a version after `heard`: for an owner that hears of a version which it has not written.
    pub(super) fn again(&self, (owner, scope): (NodeId, Scope), generation: u64, heard: Version) -> Step {
        let to = next(self.version().max(heard), generation);
        let changes = self.iter().map(|(key, body)| Change { key, body: Some(body.clone()) }).collect();
        Step { owner, scope, since: Version::NONE, lives: vec![to], changes }
    }

    /// Sets or deletes one record.
    fn put(&mut self, key: Key, body: Option<Body>, version: Version) -> Option<Turn> {
        let hash = body.as_ref().map_or(0, |body| hash(key, body));
        if let Some(new) = &body {
            self.usage = self.usage.plus(Usage::of(new));
        }
        self.hash = self.hash.wrapping_add(hash);
        let index = if body.is_some() { &mut self.order } else { &mut self.graves };
        index.insert((version, key));
        let entry = Entry { version, body: body.clone(), hash };
        let old = match self.entries.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
                None
            }
            Slot::Occupied(mut slot) => Some(slot.insert(entry)),
        };
        let old = old.and_then(|old| {
            let index = if old.body.is_some() { &mut self.order } else { &mut self.graves };
            if (old.version, old.body.is_some()) != (version, body.is_some()) {
                index.remove(&(old.version, key));
            }
            self.hash = self.hash.wrapping_sub(old.hash);
            self.usage = old.body.as_ref().map_or(self.usage, |old| self.usage.minus(Usage::of(old)));
            old.body
        });
        (old != body).then_some(Turn { key, old, new: body })
    }

    /// Forgets the oldest deletions until `max` are left.
    fn forget_deletions(&mut self, max: usize) {
        while self.graves.len() > max
            && let Some((version, key)) = self.graves.pop_first()
        {
            self.entries.remove(&key);
            self.collected = self.collected.max(version);
        }
    }
}

/// Is that version on the chain of these tips? Nothing is not: it has no difference to anything.
fn is_on(lives: &[Version], version: Version) -> bool {
    lives.iter().any(|tip| tip.generation == version.generation && version.seq <= tip.seq)
}

/// The first version after `last` for an owner in its life `generation`.
fn next(last: Version, generation: u64) -> Version {
    if generation > last.generation {
        Version { generation, seq: 1 }
    } else {
        Version { generation: last.generation, seq: last.seq.saturating_add(1) }
    }
}

fn hash(key: Key, body: &Body) -> u64 {
    let hash = sha256(&[key.as_bytes(), body.as_bytes()]);
    hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn sha256(parts: &[&[u8]]) -> aws_lc_rs::digest::Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope::Attachments;

    fn owner() -> NodeId {
        NodeId::from_bytes([1; 16])
    }

    fn key(n: u8) -> Key {
        NetworkIdOf(n).into()
    }

    struct NetworkIdOf(u8);

    impl From<NetworkIdOf> for Key {
        fn from(NetworkIdOf(n): NetworkIdOf) -> Self {
            crate::record::network::NetworkId::from_bytes([n; 16]).into()
        }
    }

    fn body(n: u8) -> Option<Body> {
        Some(Body::from_bytes(&[1, n]))
    }

    fn write(ledger: &mut Ledger, generation: u64, changes: &[(u8, Option<Body>)]) -> Step {
        let changes = changes.iter().map(|(n, body)| Change { key: key(*n), body: body.clone() }).collect();
        let step = ledger.write((owner(), SCOPE), generation, Version::NONE, changes).unwrap();
        step.check().unwrap();
        assert!(matches!(ledger.fit(&step), Fit::Extends | Fit::Replaces));
        ledger.take(&step);
        step
    }

    fn content(ledger: &Ledger) -> Vec<(Key, Body)> {
        ledger.iter().map(|(key, body)| (key, body.clone())).collect()
    }

    #[test]
    fn versions_count_within_a_life_and_link_lives() {
        let mut own = Ledger::default();
        let v = |generation, seq| Version { generation, seq };
        assert_eq!(write(&mut own, 7, &[(1, body(1))]).lives, [v(7, 1)]);
        assert_eq!(write(&mut own, 7, &[(1, body(2)), (2, body(1))]).lives, [v(7, 2)]);
        let linked = write(&mut own, 9, &[(1, None)]);
        assert_eq!((linked.since, linked.lives), (v(7, 2), vec![v(7, 2), v(9, 1)]));
        assert_eq!(own.lives(), [v(7, 2), v(9, 1)]);
        let same = vec![Change { key: key(2), body: body(1) }, Change { key: key(5), body: None }];
        assert_eq!(own.write((owner(), SCOPE), 9, Version::NONE, same), None);
    }

    #[test]
    fn the_last_word_on_a_key_counts() {
        let mut own = Ledger::default();
        write(&mut own, 7, &[(1, body(1)), (1, body(2)), (1, body(3)), (2, body(9)), (2, None)]);
        assert_eq!(content(&own), [(key(1), body(3).unwrap())]);
    }

    #[test]
    fn a_history_that_was_left_out_is_replaced() {
        // The owner comes back with a disk that lacks its last two writes.
        let mut replica = Ledger::default();
        let mut own = Ledger::default();
        for n in 1..=3 {
            let step = write(&mut own, 7, &[(n, body(n))]);
            replica.take(&step);
        }
        let mut older = Ledger::default();
        for n in 1..=1 {
            write(&mut older, 7, &[(n, body(n))]);
        }
        let step = write(&mut older, 8, &[(5, body(5))]);
        assert_eq!(replica.fit(&step), Fit::Early);
        let whole = older.step(owner(), SCOPE, replica.version()).unwrap();
        assert!(whole.is_whole());
        assert_eq!(replica.fit(&whole), Fit::Replaces);
        replica.take(&whole);
        assert_eq!(content(&replica), content(&older));
        assert_eq!((replica.version(), replica.hash()), (older.version(), older.hash()));
    }

    #[test]
    fn old_deletions_are_forgotten_and_old_readers_get_everything() {
        let mut own = Ledger::default();
        for n in 0..=200 {
            write(&mut own, 7, &[(n, body(n))]);
        }
        let before = own.version();
        for n in 0..=199 {
            write(&mut own, 7, &[(n, None)]);
        }
        assert_eq!(own.graves.len(), DELETIONS_MIN);
        assert_eq!(own.entries.len(), DELETIONS_MIN + 1);
        let old = own.step(owner(), SCOPE, before).unwrap();
        assert!(old.is_whole() && old.changes.len() == 1);
        let recent = Version { seq: own.version().seq - 3, ..own.version() };
        let recent = own.step(owner(), SCOPE, recent).unwrap();
        assert!(!recent.is_whole() && recent.changes.len() == 3);
        assert_eq!(own.step(owner(), SCOPE, own.version()), None);
    }

    #[test]
    fn many_lives_are_forgotten_too() {
        let mut own = Ledger::default();
        for generation in 1..=20 {
            write(&mut own, generation, &[(1, body(u8::try_from(generation).unwrap()))]);
        }
        assert_eq!(own.lives().len(), LIVES_MAX);
        let at = |generation| own.step(owner(), SCOPE, Version { generation, seq: 1 }).unwrap().is_whole();
        assert_eq!((at(12), at(13)), (true, false));
    }
}
