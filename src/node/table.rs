//! Who is there, as this node knows it: SWIM's view and the owners' records, by node id.
//!
//! The table applies the rules that foca applies, to the updates that foca is given, and so always equals foca's own
//! list without scanning it (`Node::mirror_errors` compares the two in tests and in the simulator). That buys an
//! ordered index, the news filter in front of foca, and events that say what was before.

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use self::entry::{Card, share};
use self::entry::{
    Contact, ERRORS_HALVED_US, ERRORS_MAX, Entry, Errors, FALSE_DOWN_ERRORS, Millis, Odd, Place, REFUSALS_IGNORED_US,
    status_of,
};
use super::commons::Commons;
use super::identity::{Identity, Life};
use super::member::{Member, Swim};
use crate::record::decision::Decided;
use crate::record::{NodeId, NodeRecord, Role, Status};
use crate::wire::DecodeError;
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::Liveness;
use crate::wire::index::{Named, Roll};

mod entry;

/// Records of nodes that SWIM has not named yet, at most.
const PARKED_MAX: usize = 4_096;

/// A member as it is listed: what the table holds of it, copied or borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) swim: Swim,
    pub(super) status: Status,
    pub(super) since_ms: u64,
    pub(super) record: Option<&'a Arc<NodeRecord>>,
    pub(super) heard_us: u64,
    pub(super) rtt_us: Option<u64>,
    pub(super) tcp_only: bool,
    table: &'a Table,
}

impl Listed<'_> {
    /// As [`Member::role`].
    pub(super) fn role(&self) -> Option<Role> {
        let decided = self.table.decided.get(&self.swim.identity.id).and_then(|decided| decided.role());
        decided.or(self.record.map(|record| record.role))
    }
}

impl From<Listed<'_>> for Member {
    fn from(listed: Listed<'_>) -> Self {
        let Listed { swim, status, since_ms, record, heard_us, rtt_us, tcp_only, table } = listed;
        let (record, decided) = (record.cloned(), table.decided(swim.identity.id));
        Self { swim, status, since_ms, record, heard_us, rtt_us, tcp_only, decided }
    }
}

/// What an update did to a member that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) old: Option<Member>,
    pub(super) new: Member,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Roll<Entry>,
    /// Places of those that SWIM holds for alive or suspect, in no particular order: to draw from.
    active: Vec<u32>,
    contacts: Vec<Contact>,
    odd: BTreeMap<NodeId, Odd>,
    /// What was decided about nodes, listed or not.
    decided: BTreeMap<NodeId, Arc<Decided>>,
    /// What was decided about most.
    nothing: Arc<Decided>,
    parked: usize,
    digest: u128,
    commons: Option<Commons>,
}

impl Table {
    pub(super) fn share(&mut self, commons: Commons) {
        self.commons = Some(commons);
    }

    fn listed<'a>(&'a self, entry: &'a Entry) -> Option<Listed<'a>> {
        let contact = entry.contact.get().and_then(|at| self.contacts.get(at));
        Some(Listed {
            swim: entry.swim()?,
            status: entry.status,
            since_ms: entry.since_ms.get(),
            record: entry.card.as_ref().and_then(|card| card.record.as_ref()),
            heard_us: contact.map_or(0, |contact| contact.heard_us),
            rtt_us: contact.and_then(|contact| contact.rtt_us.checked_sub(1)).map(u64::from),
            tcp_only: contact.is_some_and(|contact| contact.tcp_only),
            table: self,
        })
    }

    fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.entries.at(self.entries.place(id)?)
    }

    /// Listed members, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        self.entries.iter().filter_map(|entry| self.listed(entry))
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Listed<'_>> {
        self.listed(self.entry(id)?)
    }

    /// What SWIM holds of it.
    pub(super) fn swim(&self, id: NodeId) -> Option<Swim> {
        self.entry(id)?.swim()
    }

    /// An identity as foca keeps it: sharing memory with this table, if it is listed.
    pub(super) fn life(&self, identity: Identity) -> Life {
        let known = self.entry(identity.id).and_then(|entry| entry.life.as_ref()).filter(|life| ***life == identity);
        known.map_or_else(|| identity.into(), |life| Life::new(Arc::clone(life)))
    }

    /// The suspicion that stands against this very life, if one does.
    pub(super) fn suspicion(&self, identity: Identity) -> Option<Swim> {
        let swim = self.swim(identity.id)?;
        (swim.identity == identity && swim.liveness == Liveness::Suspect).then_some(swim)
    }

    pub(super) fn envelope(&self, id: NodeId) -> Option<&RecordEnvelope> {
        self.entry(id)?.card.as_ref().map(|card| &card.envelope)
    }

    /// Members that SWIM holds for alive or suspect.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    /// The active member at a place below [`Table::active`].
    pub(super) fn active_at(&self, at: usize) -> Option<Listed<'_>> {
        let place = *self.active.get(at)?;
        self.listed(self.entries.at(place as usize)?)
    }

    /// A sum over the active members: equal sums, equal lives and record versions. Those that are gone are left out, as
    /// each node forgets them in its own time.
    pub(super) const fn digest(&self) -> u128 {
        self.digest
    }

    /// Brings the digest up to date after a change of one entry that added `before`.
    fn reckon(&mut self, place: usize, before: u128) {
        let share = self.entries.at(place).map_or(0, Entry::share);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(share);
    }

    fn set_active(&mut self, place: usize, is_active: bool) {
        let Some(entry) = self.entries.at_mut(place) else { return };
        match (entry.active_at.get(), is_active) {
            (None, true) => {
                entry.active_at = Place::new(self.active.len());
                self.active.extend(u32::try_from(place));
            }
            (Some(at), false) => {
                entry.active_at = Place::NONE;
                self.active.swap_remove(at);
                if let Some(moved) = self.active.get(at)
                    && let Some(entry) = self.entries.at_mut(*moved as usize)
                {
                    entry.active_at = Place::new(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    pub(super) fn iter_active(&self) -> impl Iterator<Item = Listed<'_>> {
        self.entries.iter().filter(|entry| entry.is_active()).filter_map(|entry| self.listed(entry))
    }

    /// Would [`Table::apply`] change anything?
    pub(super) fn is_news(&self, update: &Swim) -> bool {
        self.swim(update.identity.id).is_none_or(|known| known.yields_to(update))
    }

    /// What the mutants do that believe old news: makes `update` look new.
    pub(super) fn unlearn(&mut self, update: Swim, is_resurrection: bool) {
        let Some(entry) = self.entries.place(update.identity.id).and_then(|place| self.entries.at_mut(place)) else {
            return;
        };
        if entry.life.as_deref() != Some(&update.identity) || update.liveness != Liveness::Alive {
            return;
        }
        if is_resurrection && entry.liveness == Liveness::Down {
            entry.liveness = Liveness::Suspect;
        }
        entry.incarnation = entry.incarnation.min(update.incarnation.saturating_sub(1));
    }

    /// Applies what foca is being told.
    pub(super) fn apply(&mut self, now_ms: u64, update: Swim) -> Option<Change> {
        let id = update.identity.id;
        let known = self.entries.place(id);
        let old_swim = known.and_then(|place| self.entries.at(place)?.swim());
        if old_swim.is_some_and(|old| !old.yields_to(&update)) {
            return None;
        }
        let old = known.and_then(|place| self.listed(self.entries.at(place)?)).map(Member::from);
        if old.is_none() && known.is_some() {
            self.parked = self.parked.saturating_sub(1);
        }
        let place = match known {
            Some(place) => {
                let before = self.entries.at(place).map_or(0, Entry::share);
                let is_new_life = old_swim.is_none_or(|old| old.identity != update.identity);
                let life = is_new_life.then(|| self.new_life(update.identity));
                let entry = self.entries.at_mut(place)?;
                let status = status_of(&update, entry.card.as_deref());
                if is_new_life || entry.status != status {
                    entry.since_ms = Millis::new(now_ms);
                }
                entry.life = life.or(entry.life.take());
                (entry.incarnation, entry.liveness, entry.status) = (update.incarnation, update.liveness, status);
                self.reckon(place, before);
                place
            }
            None => {
                let life = Some(self.new_life(update.identity));
                let Swim { incarnation, liveness, .. } = update;
                let status = status_of(&update, None);
                let place = self.entries.push(Entry { life, incarnation, liveness, status, ..Entry::new(now_ms) })?;
                self.reckon(place, 0);
                place
            }
        };
        self.set_active(place, update.is_active());
        let new = self.listed(self.entries.at(place)?)?.into();
        Some(Change { old, new })
    }

    /// Room for so many more, and for no others.
    pub(super) fn reserve_exact(&mut self, more: usize) {
        self.entries.reserve_exact(more);
        self.active.reserve_exact(more);
    }

    /// Lists somebody unknown as alive.
    pub(super) fn list(&mut self, now_ms: u64, life: Arc<Identity>, card: Arc<Card>) {
        let (status, liveness) = (Status::Ready, Liveness::Alive);
        let listed = Entry { life: Some(life), card: Some(card), liveness, status, ..Entry::new(now_ms) };
        if let Some(place) = self.entries.push(listed) {
            self.reckon(place, 0);
            self.set_active(place, true);
        }
    }

    fn new_life(&self, identity: Identity) -> Arc<Identity> {
        self.commons.as_ref().map_or_else(|| Arc::new(identity), |commons| commons.life(identity))
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
    ) -> Result<Option<Change>, DecodeError> {
        let owner = envelope.owner;
        let card = match &self.commons {
            Some(commons) => commons.card(envelope)?,
            None => Arc::new(Card::new(envelope)?),
        };
        let Some(place) = self.entries.place(owner) else {
            self.park(card);
            return Ok(None);
        };
        if let Some(odd) = self.odd.get_mut(&owner) {
            odd.away_until_us = 0;
        }
        let Some(entry) = self.entries.at(place) else { return Ok(None) };
        let before = entry.share();
        let old: Option<Member> = self.listed(entry).map(Member::from);
        let Some(entry) = self.entries.at_mut(place) else { return Ok(None) };
        entry.card = Some(card);
        let Some((old, swim)) = old.zip(entry.swim()) else { return Ok(None) };
        // The record of a life that SWIM has not named yet says nothing about the life that it has.
        let is_of_later_life = entry.version().generation > swim.identity.generation;
        let status = status_of(&swim, entry.card.as_deref());
        if status != entry.status && !is_of_later_life {
            entry.status = status;
            entry.since_ms = Millis::new(now_ms);
        }
        self.reckon(place, before);
        let new = self.entries.at(place).and_then(|entry| self.listed(entry)).map(Member::from);
        Ok(new.map(|new| Change { old: Some(old), new }))
    }

    /// Keeps the record of a node that SWIM has not named yet.
    fn park(&mut self, card: Arc<Card>) {
        if self.parked >= PARKED_MAX {
            return;
        }
        let parked = self.entries.push(Entry { card: Some(card), ..Entry::new(0) });
        self.parked += usize::from(parked.is_some());
    }

    pub(super) fn decided(&self, id: NodeId) -> Arc<Decided> {
        Arc::clone(self.decided.get(&id).unwrap_or(&self.nothing))
    }

    /// Notes what was decided about a node; says what that changed if it is listed.
    pub(super) fn set_decided(&mut self, id: NodeId, decided: Decided) -> Option<Change> {
        let old: Option<Member> = self.get(id).map(Member::from);
        if decided == Decided::default() {
            self.decided.remove(&id);
        } else {
            self.decided.insert(id, Arc::new(decided));
        }
        let old = old?;
        let new = Member { decided: self.decided(id), ..old.clone() };
        Some(Change { old: Some(old), new })
    }

    /// Notes something of being in touch with a listed member.
    fn touch(&mut self, id: NodeId, note: impl FnOnce(&mut Contact)) {
        let Some(place) = self.entries.place(id) else { return };
        let Some(entry) = self.entries.at_mut(place).filter(|entry| entry.life.is_some()) else { return };
        let at = entry.contact.get().unwrap_or_else(|| {
            entry.contact = Place::new(self.contacts.len());
            self.contacts.push(Contact { heard_us: 0, rtt_us: 0, tcp_only: false, entry: Place::new(place) });
            self.contacts.len() - 1
        });
        if let Some(contact) = self.contacts.get_mut(at) {
            note(contact);
        }
    }

    /// Notes that a datagram came from `id`.
    pub(super) fn heard(&mut self, id: NodeId, now_us: u64) {
        self.touch(id, |contact| contact.heard_us = now_us);
    }

    /// Notes a probe's round trip.
    pub(super) fn measured(&mut self, id: NodeId, rtt_us: u64) {
        self.touch(id, |contact| contact.rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX).saturating_add(1));
    }

    /// It has answered a datagram.
    pub(super) fn answered_over_udp(&mut self, id: NodeId) {
        self.touch(id, |contact| contact.tcp_only = false);
    }

    /// It has answered over TCP while datagrams went unanswered.
    pub(super) fn answered_over_tcp(&mut self, id: NodeId) {
        self.touch(id, |contact| contact.tcp_only = true);
    }

    /// Until then its silence is no failure, on the monotonic clock.
    pub(super) fn away_until_us(&self, id: NodeId) -> u64 {
        self.odd.get(&id).map_or(0, |odd| odd.away_until_us)
    }

    /// It has announced to be silent.
    pub(super) fn set_away(&mut self, id: NodeId, until_us: u64) {
        if until_us > 0 || self.odd.contains_key(&id) {
            self.note_odd(id, |odd| odd.away_until_us = until_us);
        }
    }

    fn note_odd(&mut self, id: NodeId, note: impl FnOnce(&mut Odd)) {
        if self.knows(id) {
            note(self.odd.entry(id).or_default());
        }
    }

    fn errors(&self, id: NodeId) -> Errors {
        self.odd.get(&id).map(|odd| odd.errors).unwrap_or_default()
    }

    /// A suspicion of it was wrong. Each time counts double: paths that mislead go on misleading. A verdict may have been
    /// right, and it came back.
    pub(super) fn was_wrong_about(&mut self, id: NodeId, now_us: u64, was_down: bool) {
        let errors = self.errors_about(id, now_us);
        let count = if was_down { errors + 1 } else { 2 * errors }.clamp(1, ERRORS_MAX);
        self.note_odd(id, |odd| (odd.errors.count, odd.errors.last_us) = (count, now_us));
    }

    /// It took a new life without having been started again: it was alive when it was declared down, and what misled one
    /// observer then (a bridge that it did not ask) will mislead the others.
    pub(super) fn was_down_falsely(&mut self, id: NodeId, now_us: u64) {
        let count = self.errors_about(id, now_us).max(FALSE_DOWN_ERRORS);
        self.note_odd(id, |odd| (odd.errors.count, odd.errors.last_us) = (count, now_us));
    }

    /// How often it was suspected falsely of late.
    pub(super) fn errors_about(&self, id: NodeId, now_us: u64) -> u32 {
        let Errors { count, last_us, .. } = self.errors(id);
        let halvings = now_us.saturating_sub(last_us) / ERRORS_HALVED_US;
        count.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    /// It answered although its machine was said to refuse.
    pub(super) fn refused_falsely(&mut self, id: NodeId, now_us: u64) {
        self.note_odd(id, |odd| odd.errors.refused_us = Some(now_us));
    }

    /// Are refusals in its name to be ignored?
    pub(super) fn is_refused_falsely(&self, id: NodeId, now_us: u64) -> bool {
        self.errors(id).refused_us.is_some_and(|refused_us| now_us < refused_us + REFUSALS_IGNORED_US)
    }

    /// `voucher` reaches it when this node does not.
    pub(super) fn vouched(&mut self, id: NodeId, voucher: NodeId) {
        self.note_odd(id, |odd| odd.errors.voucher = Some(voucher));
    }

    /// Who reached it when this node did not.
    pub(super) fn voucher(&self, id: NodeId) -> Option<NodeId> {
        self.errors(id).voucher
    }

    /// Forgets a node that is not active.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Member> {
        let place = self.entries.place(id)?;
        let old = self.listed(self.entries.at(place)?).filter(|listed| !listed.swim.is_active())?.into();
        let entry = self.entries.swap_remove(place)?;
        self.odd.remove(&id);
        if let Some(at) = entry.contact.get() {
            self.contacts.swap_remove(at);
            let moved = self.contacts.get(at).and_then(|contact| contact.entry.get());
            // It may be of the entry that has just been moved, and still have its old place.
            let moved = moved.map(|moved| if moved == self.entries.len() { place } else { moved });
            if let Some(moved) = moved.and_then(|moved| self.entries.at_mut(moved)) {
                moved.contact = Place::new(at);
            }
        }
        self.moved(place);
        Some(old)
    }

    /// The entry at that place has come from another one.
    fn moved(&mut self, place: usize) {
        let Some(entry) = self.entries.at(place) else { return };
        if let Some(active) = entry.active_at.get().and_then(|at| self.active.get_mut(at)) {
            *active = u32::try_from(place).unwrap_or(u32::MAX);
        }
        if let Some(contact) = entry.contact.get().and_then(|at| self.contacts.get_mut(at)) {
            contact.entry = Place::new(place);
        }
    }

    /// Is anything known of it?
    pub(super) fn knows(&self, id: NodeId) -> bool {
        self.entries.place(id).is_some()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops records whose nodes SWIM never named.
    pub(super) fn remove_parked(&mut self) {
        if self.parked == 0 {
            return;
        }
        let (entries, odd) = (&mut self.entries, &mut self.odd);
        entries.retain(|entry| {
            if entry.life.is_none() {
                odd.remove(&entry.id());
            }
            entry.life.is_some()
        });
        self.parked = 0;
        (0..self.entries.len()).for_each(|place| self.moved(place));
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
