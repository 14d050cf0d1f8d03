//! Who is there, as this node knows it: SWIM's view and the owners' records, by node id.
//!
//! The table applies the rules that foca applies, to the updates that foca is given, and so always equals foca's own
//! list without scanning it (`Node::mirror_errors` compares the two in tests and in the simulator). That buys an
//! ordered index, the news filter in front of foca, and events that say what was before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::identity::Identity;
use crate::record::decision::Decided;
use crate::record::{Availability, NodeId, NodeRecord, Role, Status, Version};
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::Liveness;
use crate::wire::index::ById;

/// Records of nodes that SWIM has not named yet, at most.
const PARKED_MAX: usize = 4_096;

/// SWIM's view of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swim {
    /// Its life and address.
    pub identity: Identity,
    /// SWIM's incarnation within that life.
    pub incarnation: u16,
    /// What is held of it.
    pub liveness: Liveness,
}

impl Swim {
    /// Whether `update` would change this view: the order of preference of SWIM §4.2, with a higher identity first.
    pub(super) fn yields_to(&self, update: &Self) -> bool {
        use foca::Identity as _;
        if self.identity != update.identity {
            return !self.identity.win_addr_conflict(&update.identity);
        }
        match (self.liveness, update.liveness) {
            (Liveness::Down, _) => false,
            (_, Liveness::Down) => true,
            (Liveness::Alive, Liveness::Suspect) => update.incarnation >= self.incarnation,
            (Liveness::Alive | Liveness::Suspect, Liveness::Alive) | (Liveness::Suspect, Liveness::Suspect) => {
                update.incarnation > self.incarnation
            }
        }
    }

    /// Counted among the active.
    pub fn is_active(&self) -> bool {
        self.liveness != Liveness::Down
    }
}

/// One node as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// SWIM's view.
    pub swim: Swim,
    /// Status, from SWIM's view and the owner's last word.
    pub status: Status,
    /// Since when it has that status, in milliseconds since the Unix epoch by this node's clock.
    pub since_ms: u64,
    /// The owner's record; none until it has arrived, or when it was written by a version that cannot be read here.
    pub record: Option<Arc<NodeRecord>>,
    /// Monotonic time of the last datagram from it, in microseconds; 0: none yet.
    pub heard_us: u64,
    /// Round trip of the last answered direct probe, in microseconds.
    pub rtt_us: Option<u64>,
    /// It answers over TCP and not over UDP.
    pub tcp_only: bool,
    /// What operators have decided about it.
    pub decided: Arc<Decided>,
}

impl Member {
    /// Its status, and since when.
    pub(super) const fn state(&self) -> (Status, u64) {
        (self.status, self.since_ms)
    }

    /// What it may do: as decided, else as its own record says; none: neither is known.
    pub fn role(&self) -> Option<Role> {
        self.decided.role().or(self.record.as_ref().map(|record| record.role))
    }

    /// Whether it takes tasks: as decided, else as it was started with.
    pub fn availability(&self) -> Option<Availability> {
        self.decided.availability().or(self.record.as_ref().map(|record| record.availability))
    }
}

#[derive(Debug, Clone, Default)]
struct Entry {
    member: Option<Member>,
    envelope: Option<RecordEnvelope>,
    record: Option<Arc<NodeRecord>>,
    /// Its place in [`Table::active`].
    active_at: Option<usize>,
    /// What it adds to [`Table::digest`].
    share: u128,
    /// It has announced that it will be silent until then, on the monotonic clock.
    away_until_us: u64,
    /// What was learnt from suspicions about it that were wrong.
    record_of_errors: Errors,
}

/// How often a node was suspected falsely of late, and who can reach it when others cannot.
#[derive(Debug, Clone, Copy, Default)]
struct Errors {
    count: u32,
    last_us: u64,
    voucher: Option<NodeId>,
    /// When a refusal in its name turned out to be false.
    refused_us: Option<u64>,
}

/// How long refusals in a node's name are ignored after one that was false, in microseconds.
const REFUSALS_IGNORED_US: u64 = 1_000_000;

/// Errors about one node that are remembered, at most.
const ERRORS_MAX: u32 = 16;
/// What a false verdict counts, at least: so many more rounds before the next one.
const FALSE_DOWN_ERRORS: u32 = 3;
/// After this long, half of them are forgiven, in microseconds.
const ERRORS_HALVED_US: u64 = 60_000_000;

/// What an update did to a member that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) old: Option<Member>,
    pub(super) new: Member,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: ById<Entry>,
    /// Those that SWIM holds for alive or suspect, in no particular order: to draw from.
    active: Vec<NodeId>,
    /// What was decided about nodes, listed or not.
    decided: BTreeMap<NodeId, Arc<Decided>>,
    parked: usize,
    digest: u128,
}

/// One node's part of a digest over lives and record versions: a hash, so that the sum over all nodes differs when any
/// part does. Incarnations are left out: under loss they never agree.
pub(super) fn share(id: NodeId, generation: u64, version: Version) -> u128 {
    let mut bytes = [0; 40];
    let numbers = [generation, version.generation, version.seq].map(u64::to_be_bytes);
    let all = id.as_bytes().iter().chain(numbers.as_flattened());
    bytes.iter_mut().zip(all).for_each(|(slot, byte)| *slot = *byte);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

fn status_of(swim: &Swim, envelope: Option<&RecordEnvelope>, record: Option<&NodeRecord>) -> Status {
    match swim.liveness {
        Liveness::Alive => Status::Ready,
        Liveness::Suspect => Status::Suspect,
        Liveness::Down => {
            let said_goodbye = record.is_some_and(|record| record.left)
                && envelope.is_some_and(|envelope| envelope.version.generation >= swim.identity.generation);
            if said_goodbye { Status::Left } else { Status::Down }
        }
    }
}

impl Table {
    /// Listed members, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.entries.values().filter_map(|entry| entry.member.as_ref())
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.entries.get(&id)?.member.as_ref()
    }

    fn member_mut(&mut self, id: NodeId) -> Option<&mut Member> {
        self.entries.get_mut(&id)?.member.as_mut()
    }

    /// The suspicion that stands against this very life, if one does.
    pub(super) fn suspicion(&self, identity: Identity) -> Option<Swim> {
        let swim = self.get(identity.id)?.swim;
        (swim.identity == identity && swim.liveness == Liveness::Suspect).then_some(swim)
    }

    pub(super) fn envelope(&self, id: NodeId) -> Option<&RecordEnvelope> {
        self.entries.get(&id)?.envelope.as_ref()
    }

    /// Members that SWIM holds for alive or suspect.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    /// The active member at a place below [`Table::active`].
    pub(super) fn active_at(&self, at: usize) -> Option<&Member> {
        self.get(*self.active.get(at)?)
    }

    /// A sum over the active members: equal sums, equal lives and record versions. Those that are gone are left out, as
    /// each node forgets them in its own time.
    pub(super) const fn digest(&self) -> u128 {
        self.digest
    }

    /// Brings the digest up to date after a change of one member.
    fn reckon(&mut self, id: NodeId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let share = match &entry.member {
            Some(member) if member.swim.is_active() => {
                let version = entry.envelope.as_ref().map(|envelope| envelope.version).unwrap_or_default();
                share(id, member.swim.identity.generation, version)
            }
            _ => 0,
        };
        let before = std::mem::replace(&mut entry.share, share);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(share);
    }

    fn set_active(&mut self, id: NodeId, is_active: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match (entry.active_at, is_active) {
            (None, true) => {
                entry.active_at = Some(self.active.len());
                self.active.push(id);
            }
            (Some(at), false) => {
                entry.active_at = None;
                self.active.swap_remove(at);
                if let Some(moved) = self.active.get(at)
                    && let Some(entry) = self.entries.get_mut(moved)
                {
                    entry.active_at = Some(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    pub(super) fn iter_active(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.swim.is_active())
    }

    /// Would [`Table::apply`] change anything?
    pub(super) fn is_news(&self, update: &Swim) -> bool {
        self.get(update.identity.id).is_none_or(|member| member.swim.yields_to(update))
    }

    /// What the mutants do that believe old news: makes `update` look new.
    pub(super) fn unlearn(&mut self, update: Swim, is_resurrection: bool) {
        let Some(member) = self.member_mut(update.identity.id) else { return };
        if member.swim.identity != update.identity || update.liveness != Liveness::Alive {
            return;
        }
        if is_resurrection && member.swim.liveness == Liveness::Down {
            member.swim.liveness = Liveness::Suspect;
        }
        member.swim.incarnation = member.swim.incarnation.min(update.incarnation.saturating_sub(1));
    }

    /// Applies what foca is being told.
    pub(super) fn apply(&mut self, now_ms: u64, update: Swim) -> Option<Change> {
        if !self.is_news(&update) {
            return None;
        }
        let entry = self.entries.entry(update.identity.id).or_default();
        let old = entry.member.clone();
        if old.is_none() && entry.envelope.is_some() {
            self.parked = self.parked.saturating_sub(1);
        }
        let status = status_of(&update, entry.envelope.as_ref(), entry.record.as_deref());
        let kept = old.as_ref().filter(|old| old.status == status && old.swim.identity == update.identity);
        let new = Member {
            swim: update,
            status,
            since_ms: kept.map_or(now_ms, |old| old.since_ms),
            record: entry.record.clone(),
            heard_us: old.as_ref().map_or(0, |old| old.heard_us),
            rtt_us: old.as_ref().and_then(|old| old.rtt_us),
            tcp_only: old.as_ref().is_some_and(|old| old.tcp_only),
            decided: self.decided.get(&update.identity.id).cloned().unwrap_or_default(),
        };
        entry.member = Some(new.clone());
        self.set_active(update.identity.id, update.is_active());
        self.reckon(update.identity.id);
        Some(Change { old, new })
    }

    /// Is this record newer than the one held?
    pub(super) fn is_record_news(&self, envelope: &RecordEnvelope) -> bool {
        self.envelope(envelope.owner).is_none_or(|known| envelope.version > known.version)
    }

    /// Takes in a newer record. The change, when the owner is listed; `Ok(None)` when it is parked.
    ///
    /// Errors when the record breaks its limits: then the older one stays.
    pub(super) fn apply_record(
        &mut self,
        now_ms: u64,
        envelope: RecordEnvelope,
    ) -> Result<Option<Change>, crate::wire::DecodeError> {
        let record = match envelope.record() {
            Ok(record) => Some(Arc::new(record)),
            // Written by a later version in a way that this one cannot read: kept and passed on all the same.
            Err(_) if envelope.is_of_later_format() => None,
            Err(error) => return Err(error),
        };
        let owner = envelope.owner;
        if !self.entries.contains_key(&owner) {
            if self.parked >= PARKED_MAX {
                return Ok(None);
            }
            self.parked += 1;
        }
        let entry = self.entries.entry(owner).or_default();
        entry.envelope = Some(envelope);
        entry.record = record.clone();
        entry.away_until_us = 0;
        let Some(member) = &mut entry.member else { return Ok(None) };
        let old = member.clone();
        member.record = record;
        // The record of a life that SWIM has not named yet says nothing about the life that it has.
        let is_of_later_life = entry
            .envelope
            .as_ref()
            .is_some_and(|envelope| envelope.version.generation > member.swim.identity.generation);
        let status = status_of(&member.swim, entry.envelope.as_ref(), entry.record.as_deref());
        if status != member.status && !is_of_later_life {
            member.status = status;
            member.since_ms = now_ms;
        }
        let new = member.clone();
        self.reckon(owner);
        Ok(Some(Change { old: Some(old), new }))
    }

    pub(super) fn decided(&self, id: NodeId) -> Arc<Decided> {
        self.decided.get(&id).cloned().unwrap_or_default()
    }

    /// Notes what was decided about a node; says what that changed if it is listed.
    pub(super) fn set_decided(&mut self, id: NodeId, decided: Decided) -> Option<Change> {
        let decided = Arc::new(decided);
        if *decided == Decided::default() {
            self.decided.remove(&id);
        } else {
            self.decided.insert(id, Arc::clone(&decided));
        }
        let member = self.member_mut(id)?;
        let old = member.clone();
        member.decided = decided;
        Some(Change { old: Some(old), new: member.clone() })
    }

    /// Notes that a datagram came from `id`.
    pub(super) fn heard(&mut self, id: NodeId, now_us: u64) {
        if let Some(member) = self.member_mut(id) {
            member.heard_us = now_us;
        }
    }

    /// Notes a probe's round trip.
    pub(super) fn measured(&mut self, id: NodeId, rtt_us: u64) {
        if let Some(member) = self.member_mut(id) {
            member.rtt_us = Some(rtt_us);
        }
    }

    /// It has answered a datagram.
    pub(super) fn answered_over_udp(&mut self, id: NodeId) {
        if let Some(member) = self.member_mut(id) {
            member.tcp_only = false;
        }
    }

    /// It has answered over TCP while datagrams went unanswered.
    pub(super) fn answered_over_tcp(&mut self, id: NodeId) {
        if let Some(member) = self.member_mut(id) {
            member.tcp_only = true;
        }
    }

    /// Until then its silence is no failure, on the monotonic clock.
    pub(super) fn away_until_us(&self, id: NodeId) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.away_until_us)
    }

    /// It has announced to be silent.
    pub(super) fn set_away(&mut self, id: NodeId, until_us: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.away_until_us = until_us;
        }
    }

    /// A suspicion of it was wrong. Each time counts double: paths that mislead go on misleading. A verdict may have been
    /// right, and it came back.
    pub(super) fn was_wrong_about(&mut self, id: NodeId, now_us: u64, was_down: bool) {
        let errors = self.errors_about(id, now_us);
        let count = if was_down { errors + 1 } else { 2 * errors }.clamp(1, ERRORS_MAX);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.record_of_errors.count = count;
            entry.record_of_errors.last_us = now_us;
        }
    }

    /// It took a new life without having been started again: it was alive when it was declared down, and what misled one
    /// observer then (a bridge that it did not ask) will mislead the others.
    pub(super) fn was_down_falsely(&mut self, id: NodeId, now_us: u64) {
        let count = self.errors_about(id, now_us).max(FALSE_DOWN_ERRORS);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.record_of_errors.count = count;
            entry.record_of_errors.last_us = now_us;
        }
    }

    /// How often it was suspected falsely of late.
    pub(super) fn errors_about(&self, id: NodeId, now_us: u64) -> u32 {
        let Errors { count, last_us, .. } =
            self.entries.get(&id).map(|entry| entry.record_of_errors).unwrap_or_default();
        let halvings = now_us.saturating_sub(last_us) / ERRORS_HALVED_US;
        count.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    /// It answered although its machine was said to refuse.
    pub(super) fn refused_falsely(&mut self, id: NodeId, now_us: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.record_of_errors.refused_us = Some(now_us);
        }
    }

    /// Are refusals in its name to be ignored?
    pub(super) fn is_refused_falsely(&self, id: NodeId, now_us: u64) -> bool {
        let refused_us = self.entries.get(&id).and_then(|entry| entry.record_of_errors.refused_us);
        refused_us.is_some_and(|refused_us| now_us < refused_us + REFUSALS_IGNORED_US)
    }

    /// `voucher` reaches it when this node does not.
    pub(super) fn vouched(&mut self, id: NodeId, voucher: NodeId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.record_of_errors.voucher = Some(voucher);
        }
    }

    /// Who reached it when this node did not.
    pub(super) fn voucher(&self, id: NodeId) -> Option<NodeId> {
        self.entries.get(&id)?.record_of_errors.voucher
    }

    /// Forgets a node that is not active.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Member> {
        self.get(id).filter(|member| !member.swim.is_active())?;
        self.entries.swap_remove(&id)?.member
    }

    /// Is anything known of it?
    pub(super) fn knows(&self, id: NodeId) -> bool {
        self.entries.contains_key(&id)
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops records whose nodes SWIM never named.
    pub(super) fn remove_parked(&mut self) {
        self.entries.retain(|_, entry| entry.member.is_some());
        self.parked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Version;

    fn swim(generation: u64, incarnation: u16, liveness: Liveness) -> Swim {
        let id = NodeId::from_bytes([1; 16]);
        Swim { identity: Identity { id, generation, addr: ([127, 0, 0, 1], 1).into() }, incarnation, liveness }
    }

    #[test]
    fn the_rules_of_swim_as_a_table() {
        use Liveness::{Alive, Down, Suspect};
        // known (generation, incarnation, liveness), update, applied
        let rows = [
            ((1, 0, Alive), (1, 0, Alive), false),
            ((1, 0, Alive), (1, 1, Alive), true),
            ((1, 0, Alive), (1, 0, Suspect), true),
            ((1, 1, Alive), (1, 0, Suspect), false),
            ((1, 1, Alive), (1, 0, Down), true),
            ((1, 0, Suspect), (1, 0, Alive), false),
            ((1, 0, Suspect), (1, 1, Alive), true),
            ((1, 0, Suspect), (1, 0, Suspect), false),
            ((1, 0, Suspect), (1, 1, Suspect), true),
            ((1, 0, Suspect), (1, 0, Down), true),
            ((1, 0, Down), (1, 9, Alive), false),
            ((1, 0, Down), (1, 9, Down), false),
            ((1, 0, Down), (2, 0, Alive), true),
            ((2, 0, Alive), (1, 9, Down), false),
            ((1, 5, Alive), (2, 0, Down), true),
        ];
        for (known, update, applied) in rows {
            let mut table = Table::default();
            table.apply(0, swim(known.0, known.1, known.2));
            let change = table.apply(1, swim(update.0, update.1, update.2));
            assert_eq!(change.is_some(), applied, "{known:?} <- {update:?}");
            assert_eq!(table.active(), table.iter_active().count());
        }
    }

    #[test]
    fn left_is_the_word_of_the_same_life_only() {
        let mut table = Table::default();
        let record = NodeRecord { left: true, ..crate::wire::datagram::tests::sample() };
        let id = NodeId::from_bytes([1; 16]);
        table.apply(0, swim(1, 0, Liveness::Alive));
        table.apply_record(1, RecordEnvelope::new(id, Version { generation: 1, seq: 2 }, &record)).unwrap();
        let change = table.apply(2, swim(1, 0, Liveness::Down)).unwrap();
        assert_eq!(change.new.status, Status::Left);
        table.apply(3, swim(2, 0, Liveness::Alive));
        let change = table.apply(4, swim(2, 0, Liveness::Down)).unwrap();
        assert_eq!(change.new.status, Status::Down, "the new life has not said goodbye");
        assert_eq!(change.new.since_ms, 4);
    }

    #[test]
    fn the_record_of_a_later_life_does_not_take_a_goodbye_back() {
        let mut table = Table::default();
        let id = NodeId::from_bytes([1; 16]);
        let record = crate::wire::datagram::tests::sample();
        let goodbye = NodeRecord { left: true, ..record.clone() };
        table.apply(0, swim(1, 0, Liveness::Alive));
        table.apply_record(1, RecordEnvelope::new(id, Version { generation: 1, seq: 2 }, &goodbye)).unwrap();
        table.apply(2, swim(1, 0, Liveness::Down));
        let later = RecordEnvelope::new(id, Version { generation: 2, seq: 1 }, &record);
        let change = table.apply_record(3, later).unwrap().unwrap();
        assert_eq!(change.new.status, Status::Left);
        assert_eq!(table.apply(4, swim(2, 0, Liveness::Alive)).unwrap().new.status, Status::Ready);
    }
}
