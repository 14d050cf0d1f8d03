//! Node records: this node's own, others' as they arrive, and those that are missing.

use std::sync::Arc;

use super::identity::Identity;
use super::lives::is_plausible;
use super::member::{Member, Swim};
use super::stats::Kind;
use super::table::Change;
use super::timers::Timer;
use super::{Cause, Config, Mutant, Node, Now, Purpose};
use crate::record::{NodeId, NodeRecord, Status, Version};
use crate::wire::datagram::{RecordEnvelope, SECTION_HEADER_BYTES, STUB_BYTES_MAX, Writer};
use crate::wire::exchange::{Liveness, Request};

/// Time before a missing record is asked for (a rumour may bring it), and between two times, in microseconds.
const WANT_INTERVAL_US: u64 = 500_000;
/// Changes of a record within one life, at most: one a microsecond for a hundred years. A higher number is forged.
pub(super) const SEQ_MAX: u64 = 1 << 52;
/// Rumours that go out four times as often, at most.
const HURRIED_MAX: usize = 32;
/// Large records fetched at once, at most.
const FETCHES_MAX: usize = 64;
/// How long that may take, in milliseconds; then somebody else may be asked.
const FETCH_PATIENCE_MS: u64 = 3_000;
/// Nodes asked at once, at most.
const WANTED_AT_ONCE: usize = 16;

/// This node's record, ready to travel.
pub(super) fn own_envelope(config: &Config, id: NodeId, version: Version, record: &NodeRecord) -> RecordEnvelope {
    let envelope = RecordEnvelope::new(id, version, record);
    if config.is_later() { envelope.as_later() } else { envelope }
}

impl Node {
    /// Changes what this node says of itself and tells everybody; `old` is this node before the change.
    pub(super) fn update_own_record(&mut self, now: Now, old: Member, change: impl FnOnce(&mut NodeRecord)) {
        change(Arc::make_mut(&mut self.record));
        let Identity { id, generation, .. } = self.identity();
        self.seq = if self.envelope.version.generation == generation { self.seq + 1 } else { 1 };
        self.envelope = own_envelope(&self.config, id, Version { generation, seq: self.seq }, &self.record);
        let new = self.own_member();
        self.tell(Cause::Own, Some(Box::new(old)), Some(Box::new(new)));
        self.rumour(now, id);
    }

    /// Takes in a record, from whomever it came. Only the newest of its owner counts.
    pub(super) fn take_record(&mut self, now: Now, envelope: &RecordEnvelope, spread: bool, cause: Cause) {
        let owner = envelope.owner;
        if !is_plausible(now, envelope.version.generation) || envelope.version.seq > SEQ_MAX {
            self.stats.records_refused += 1;
            return;
        }
        if owner == self.identity().id {
            return self.heard_of_rival(now, envelope);
        }
        if !self.table.is_record_news(envelope) {
            return;
        }
        let generation = self.table.envelope(owner).map_or(u64::MAX, |known| known.version.generation);
        match self.table.apply_record(now.unix_ms, envelope.clone()) {
            Err(_) => self.stats.records_refused += 1,
            Ok(change) => {
                if let Some(change) = change {
                    if envelope.version.generation > generation && is_same_process(&change) {
                        self.table.was_down_falsely(owner, now.mono_us);
                    }
                    self.changed(now, cause, change);
                }
                self.obey_goodbye(now, owner);
                self.note_absence(now, owner);
                if spread {
                    self.rumour(now, owner);
                }
            }
        }
    }

    /// A node that said goodbye is not probed any more.
    pub(super) fn obey_goodbye(&mut self, now: Now, owner: NodeId) {
        let Some(member) = self.table.get(owner) else { return };
        let said = member.record.is_some_and(|record| record.left)
            && self
                .table
                .envelope(owner)
                .is_some_and(|envelope| envelope.version.generation >= member.swim.identity.generation);
        if said && member.swim.is_active() && !self.config.has(Mutant::DeafToGoodbyes) {
            let gone = Swim { liveness: Liveness::Down, ..member.swim };
            // The goodbye is the rumour. If SWIM told it too, it would overtake the goodbye here and there, and the node
            // would be down there before it has left.
            self.apply(now, gone, false, Cause::Left);
        }
    }

    /// A node that has announced to be back soon is not held to be down meanwhile.
    pub(super) fn note_absence(&mut self, now: Now, owner: NodeId) {
        let Some(member) = self.table.get(owner) else { return };
        let away_s = member.record.map_or(0, |record| record.away_s);
        let is_of_this_life =
            self.table.envelope(owner).is_some_and(|e| e.version.generation == member.swim.identity.generation);
        if away_s > 0 && is_of_this_life {
            self.table.set_away(owner, now.mono_us + u64::from(away_s) * 1_000_000);
            self.inquiries.drop_about(owner);
        }
    }

    /// Starts telling everybody about `owner`'s record.
    pub(super) fn rumour(&mut self, now: Now, owner: NodeId) {
        let is_away = self.table.away_until_us(owner) > now.mono_us;
        let is_goodbye = is_away || self.table.get(owner).map_or(self.leaving, |member| member.status == Status::Left);
        self.spread.tell(owner, self.table.active() + 1, is_goodbye);
        self.arm_spread(now);
    }

    /// Adds to a datagram the rumours that fit: records, then decisions. Says how many decisions.
    pub(super) fn add_rumours(&mut self, writer: &mut Writer) -> usize {
        if !self.spread.is_empty() {
            self.add_records(writer);
        }
        if self.decision_news.is_empty() { 0 } else { self.add_decisions(writer) }
    }

    fn add_records(&mut self, writer: &mut Writer) {
        let me = self.identity().id;
        // A rumour whose record is gone would stand in front of the others for ever.
        loop {
            let first = self.spread.next().next().copied();
            match first.filter(|owner| *owner != me && self.table.envelope(*owner).is_none()) {
                Some(gone) => self.spread.stop(&gone),
                None => break,
            }
        }
        let envelope = |owner: &NodeId| if *owner == me { Some(&self.envelope) } else { self.table.envelope(*owner) };
        let told = self.write_records(writer, self.spread.next().map_while(envelope));
        self.spread.told(told);
    }

    /// Adds as many of the records as fit, of large ones a stub, and says of how many.
    pub(super) fn write_records<'a>(
        &self,
        writer: &mut Writer,
        envelopes: impl Iterator<Item = &'a RecordEnvelope>,
    ) -> usize {
        let whole = self.config.section_bytes_max();
        let mut room = writer.room().saturating_sub(SECTION_HEADER_BYTES);
        let (mut small, mut stubs) = (Vec::new(), Vec::new());
        for envelope in envelopes {
            let is_large = envelope.encoded_len_max() > whole;
            let len = if is_large { STUB_BYTES_MAX } else { envelope.encoded_len_max() };
            if len > room {
                break;
            }
            room -= len;
            if is_large {
                stubs.push((envelope.owner, envelope.version));
            } else {
                small.push(envelope);
            }
        }
        writer.records(small.into_iter()) + writer.stubs(&stubs)
    }

    /// Somebody has records that were too large to be sent.
    pub(super) fn fetch(&mut self, now: Now, from: NodeId, stubs: &[(NodeId, Version)]) {
        let Some(to) = self.table.get(from).map(|member| member.swim.identity.addr) else { return };
        self.fetching.retain(|_, (_, until_us)| *until_us > now.mono_us);
        let mut owners = Vec::new();
        for (owner, version) in stubs {
            let is_news = self.table.envelope(*owner).is_none_or(|known| known.version < *version);
            let is_under_way = self.fetching.get(owner).is_some_and(|(asked, _)| asked >= version);
            if is_news && !is_under_way && *owner != self.identity().id && self.fetching.len() < FETCHES_MAX {
                self.fetching.insert(*owner, (*version, now.mono_us + FETCH_PATIENCE_MS * 1_000));
                owners.push(*owner);
            }
        }
        if !owners.is_empty() {
            let request = Request::Records { owners };
            self.exchange(to, Some(from), Purpose::Fetch, &request, FETCH_PATIENCE_MS);
        }
    }

    /// What is known of these nodes' records.
    pub(super) fn records_of(&self, owners: &[NodeId]) -> Vec<RecordEnvelope> {
        let me = self.identity().id;
        let known = owners.iter().take(FETCHES_MAX);
        let known = known.filter_map(|id| if *id == me { Some(&self.envelope) } else { self.table.envelope(*id) });
        known.cloned().collect()
    }

    pub(super) fn spread_timer(&mut self, now: Now) {
        if self.spread_due_us.take_if(|due_us| *due_us <= now.mono_us).is_none() {
            return;
        }
        self.spread_us = now.mono_us;
        for to in self.choose(self.config.fanout) {
            let decisions = self.next_decisions();
            let told = self.send_rumours(to);
            self.send_decisions(to, decisions.get(told..).unwrap_or_default());
        }
        // With nobody to tell, rumours wait until somebody is there.
        if !self.spread.is_empty() || !self.decision_news.is_empty() {
            // A few rumours hurry; many would only crowd each other.
            let hurry = if self.spread.len() + self.decision_news.len() <= HURRIED_MAX { 4 } else { 1 };
            self.spread_by(now.mono_us + self.config.gossip_interval_ms * 1_000 / hurry);
        }
    }

    pub(super) fn arm_want(&mut self, now: Now) {
        if !self.want_armed && !self.missing.is_empty() {
            self.want_armed = true;
            let after_us = self.jittered_us(WANT_INTERVAL_US);
            self.timers.submit(now.mono_us + after_us, Timer::Want);
        }
    }

    /// Asks the owners of missing records, a few at a time.
    pub(super) fn want_timer(&mut self, now: Now) {
        self.want_armed = false;
        // From a random place on, so that a few that do not answer are not all that is ever asked.
        let from = rand::RngExt::random_range(&mut self.rng, 0..self.missing.len().max(1));
        let asked: Vec<_> =
            self.missing.iter().cycle().skip(from).copied().take(WANTED_AT_ONCE.min(self.missing.len())).collect();
        for id in asked {
            match self.table.get(id).filter(|member| member.swim.is_active()) {
                None => {
                    self.missing.remove(&id);
                }
                Some(member) => {
                    let to = member.swim.identity;
                    let mut writer = Writer::new(self.config.payload_bytes_max());
                    writer.want(std::iter::once(id));
                    self.send_payload(to, Kind::Records, writer);
                }
            }
        }
        self.arm_want(now);
    }

    pub(super) fn answer_want(&mut self, sender: NodeId, ids: &[NodeId]) {
        if let Some(member) = self.table.get(sender) {
            self.send_records(member.swim.identity, ids);
        }
    }

    /// Sends what is known of these nodes' records.
    pub(super) fn send_records(&mut self, to: Identity, ids: &[NodeId]) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        let known = self.records_of(ids);
        self.write_records(&mut writer, known.iter());
        self.send_payload(to, Kind::Records, writer);
    }
}

/// Was the record written by the process that wrote the one before?
fn is_same_process(change: &Change) -> bool {
    let started = |member: &Member| member.record.as_ref().map(|record| record.started_generation);
    change.old.as_ref().and_then(started).is_some_and(|before| started(&change.new) == Some(before))
}
