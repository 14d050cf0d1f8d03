//! The protocol, sans-IO: one [`Node`] is one member of a cluster, without clock, socket or thread.
//!
//! # How it is driven
//! [`Node`]'s methods are of three kinds:
//! * getters ([`Node::members`], [`Node::next_timeout_us`], [`Node::stats`], …), free of effects;
//! * `handle_*`, which take one input each ([`Node::handle_datagram`], [`Node::handle_request`],
//!   [`Node::handle_reply`], [`Node::handle_command`], [`Node::handle_timeout`]) together with the time;
//! * [`Node::poll_effect`], which hands out what is to be done, in the order in which it must be done.
//!
//! After each `handle_*` the caller drains the effects, then waits until [`Node::next_timeout_us`] or the next input.
//! Bytes come in as they were on the wire and go out as they go on the wire: a simulator that moves them runs what
//! production runs.
//!
//! # What is inside
//! foca does SWIM (probes, suspicion, gossip of membership). Around it, through its public API: a member table with the
//! owners' records ([`Member`]), a filter that keeps from foca what is no news, full-state exchanges (join, periodic
//! sync, healing), records spread as rumours of our own, leave as a member's own word, generations that jump past
//! whatever the cluster remembers, and guards against foca's habits (`swim`).
//!
//! Nothing here knows what time it is, draws chance from outside, or depends on the order of a hash map.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod cas;
mod claims;
mod codec;
mod commons;
mod compare;
mod config;
mod confirm;
mod decide;
mod decisions;
mod errand;
pub mod exam;
mod farewell;
mod health;
mod hints;
mod holdings;
mod identity;
mod inquiry;
mod io;
mod kept;
mod ledger;
mod lives;
mod member;
mod mutant;
mod owners;
mod parked;
mod push;
mod reconcile;
mod records;
mod spread;
mod stats;
mod swim;
mod sync;
mod table;
pub mod tables;
mod tables_own;
mod tables_view;
mod timers;
mod view;
mod voucher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use self::cas::{Authorities, CaChange};
pub use self::commons::{Acquaintances, Commons};
pub use self::config::{Config, DATAGRAM_BYTES_CEILING, DATAGRAM_BYTES_FLOOR};
pub use self::confirm::WAITS_MAX;
use self::confirm::Wait;
pub use self::decide::{Order, OrderError};
use self::decisions::Decisions;
pub use self::decisions::Refused;
use self::exam::Exams;
use self::health::Own;
use self::holdings::Holdings;
pub use self::identity::Identity;
use self::identity::Life;
use self::inquiry::Inquiries;
pub use self::io::{
    Cause, Command, Degraded, Effect, Event, ExchangeError, ExchangeId, Health, KeptTable, Now, Peer, Start, Write,
};
pub use self::kept::KeptTables;
use self::lives::Lives;
pub use self::member::{Member, Swim};
pub use self::mutant::Mutant;
use self::spread::Spread;
pub use self::stats::{Kind, Stats, Traffic};
use self::swim::Foca;
use self::sync::{Greetings, Purpose};
use self::table::{Change, Table};
use self::timers::{Timer, Timers};
use crate::record::decision::{Hlc, Slot};
use crate::record::{ClusterId, NodeId, NodeRecord, Version};
use crate::wire::credential::{Anchors, Credential};
use crate::wire::datagram::{self, RecordEnvelope, Section};
use crate::wire::{Channel, DropCause};

/// Effects waiting to be drained, at most; a caller that drains after each input never comes near.
const EFFECTS_MAX: usize = 262_144;
/// Room for so many is kept when all are drained.
const EFFECTS_KEPT: usize = 64;

/// One member of a cluster.
pub struct Node {
    config: Config,
    foca: Foca,
    channel: Channel,
    cluster: ClusterId,
    anchors: Anchors,
    credential: Credential,
    rng: ChaCha12Rng,
    table: Table,
    timers: Timers,
    effects: VecDeque<Effect>,
    stats: Stats,

    started_ms: u64,
    record: Arc<NodeRecord>,
    envelope: RecordEnvelope,
    seq: u64,
    incarnation: u16,

    spread: Spread<NodeId>,
    /// When the next round of rumours is due, if one is; an earlier timer is left over. And when the last one was.
    spread_due_us: Option<u64>,
    spread_us: u64,
    decisions: Decisions,
    decision_news: Spread<Slot>,
    /// When this node last decided something.
    decided_at: Hlc,
    holdings: Holdings,
    /// Questions who has certain decisions or versions of tables.
    waits: BTreeMap<u32, Wait>,
    missing: BTreeSet<NodeId>,
    /// Large records being fetched: which version, and until when nobody else is asked for it.
    fetching: BTreeMap<NodeId, (Version, u64)>,
    want_armed: bool,

    contacts: BTreeSet<SocketAddr>,
    exchanges: BTreeMap<ExchangeId, Purpose>,
    exchange_count: u64,
    rejoin_wait_us: u64,
    /// Time to the next comparison; short while comparisons find differences.
    sync_wait_us: u64,
    /// When the next [`Timer::Rejoin`] counts; an earlier one is left over.
    rejoin_due_us: u64,
    greetings: Greetings,
    inquiries: Inquiries,
    exams: Exams,
    health: Own,
    /// The reasons that listeners know.
    told_health: Vec<Degraded>,
    joined: bool,
    /// foca knows somebody under its present identity.
    connected: bool,
    leaving: bool,
    leave_told: bool,
    /// Members told of the leave so far.
    leave_pushes: usize,

    ping: Option<(u8, NodeId, u64)>,
    token: Option<foca::TimerToken>,
    /// foca's gossip timer, while it has nothing to tell.
    resting_gossip: Option<foca::Timer<Life>>,
    /// The last gossip round, and whether one is due before foca's next.
    gossiped_us: u64,
    gossip_armed: bool,
    lives: Lives,
    /// This node has given way to another one with its id.
    silent: bool,
    size_log2: u32,
    revision: u64,
}

fn first_timers(now: Now, rng: &mut ChaCha12Rng) -> Timers {
    let jitter_us = rng.random_range(0..=sync::SYNC_WAIT_MIN_US);
    let mut timers = Timers::default();
    timers.submit(now.mono_us, Timer::Rejoin);
    timers.submit(now.mono_us + sync::SYNC_WAIT_MIN_US / 2 + jitter_us, Timer::Sync);
    timers.submit(now.mono_us + farewell::REAP_INTERVAL_US, Timer::Reap);
    timers
}

impl Node {
    /// Starts a node. It does nothing until the first `handle_*`; [`Node::next_timeout_us`] is due at once.
    pub fn new(start: Start, now: Now) -> Self {
        let Start { id, generation, addr, record, contacts, config, decisions, tables, .. } = start;
        let record = NodeRecord { started_generation: generation, ..record };
        let mut rng = ChaCha12Rng::from_seed(start.seed);
        let mut channel_seed = [0_u8; 32];
        rng.fill_bytes(&mut channel_seed);
        let identity = Identity { id, generation, addr };
        let foca = swim::start(identity, &config, ChaCha12Rng::from_rng(&mut rng));
        let envelope = records::own_envelope(&config, id, Version { generation, seq: 1 }, &record);
        let contacts = contacts.into_iter().filter(|contact| *contact != addr).take(sync::CONTACTS_MAX).collect();
        let mut node = Self {
            rejoin_wait_us: config.rejoin_interval_ms * 1_000,
            sync_wait_us: sync::SYNC_WAIT_MIN_US,
            config,
            foca,
            channel: Channel::new(start.cluster, id, start.keyring, channel_seed),
            cluster: start.cluster,
            anchors: start.anchors,
            credential: start.credential,
            timers: first_timers(now, &mut rng),
            rng,
            table: Table::default(),
            effects: VecDeque::new(),
            stats: Stats::default(),
            started_ms: now.unix_ms,
            record: Arc::new(record),
            envelope,
            seq: 1,
            incarnation: 0,
            spread: Spread::default(),
            spread_due_us: None,
            spread_us: 0,
            decisions: Decisions::default(),
            decision_news: Spread::default(),
            decided_at: Hlc::default(),
            holdings: Holdings::new(id),
            waits: BTreeMap::new(),
            missing: BTreeSet::new(),
            fetching: BTreeMap::new(),
            want_armed: false,
            contacts,
            exchanges: BTreeMap::new(),
            exchange_count: 0,
            rejoin_due_us: now.mono_us,
            greetings: Greetings::new(now),
            inquiries: Inquiries::default(),
            exams: Exams::default(),
            health: Own::default(),
            told_health: Vec::new(),
            joined: false,
            connected: false,
            leaving: false,
            leave_pushes: 0,
            leave_told: false,
            ping: None,
            token: None,
            resting_gossip: None,
            gossiped_us: 0,
            gossip_armed: false,
            lives: Lives::new(generation),
            silent: false,
            size_log2: 0,
            revision: lives::first_revision(generation),
        };
        node.recall(now, decisions);
        node.recall_tables(tables);
        node
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// This node's own life.
    pub fn identity(&self) -> Identity {
        self.foca.identity().identity()
    }

    /// The number of the last visible change. Each change has the next number, and no later life of this node uses one
    /// again: it begins at a higher [`Node::first_revision`].
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a full-state exchange has happened since the start.
    pub const fn is_joined(&self) -> bool {
        self.joined
    }

    /// When [`Node::handle_timeout`] is due, on the monotonic clock, in microseconds.
    pub fn next_timeout_us(&self) -> Option<u64> {
        self.timers.next_us()
    }

    /// Counters since the start.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    // ---- inputs --------------------------------------------------------------------------------------------------

    /// Takes in a datagram as it was received; it is opened in place. What does not belong here is counted and dropped.
    pub fn handle_datagram(&mut self, now: Now, datagram: &mut [u8]) {
        let len = datagram.len();
        if len > self.config.datagram_bytes_max {
            return self.stats.count_drop(DropCause::Oversized);
        }
        let outcome = match self.channel.open(datagram) {
            Ok(opened) => self.handle_payload(now, opened.sender, opened.payload, len),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = outcome {
            self.stats.count_drop(cause);
            if self.config.has(Mutant::TrustForged) && cause == DropCause::Forged {
                self.trust_forged(now);
            }
        }
        self.arm_want(now);
    }

    /// Answers a request that `peer` made over TLS.
    ///
    /// # Errors
    /// [`crate::wire::DecodeError`] when the request is malformed or says something that its sender may not say; nothing
    /// was changed then.
    pub fn handle_request(
        &mut self,
        now: Now,
        peer: Peer,
        request: &[u8],
    ) -> Result<Vec<u8>, crate::wire::DecodeError> {
        let reply = self.answer(now, peer, request)?;
        self.stats.exchanges_answered += 1;
        Ok(reply.to_bytes())
    }

    /// Takes in the reply to an exchange, or its failure.
    pub fn handle_reply(&mut self, now: Now, id: ExchangeId, outcome: Result<(Peer, &[u8]), ExchangeError>) {
        if let Some(purpose) = self.exchanges.remove(&id) {
            self.finish_exchange(now, purpose, outcome);
        }
    }

    /// A datagram to `to` came back: nobody listens there (ICMP port unreachable). Anybody can forge that, so it is a hint
    /// to look closer and never proof.
    pub fn handle_refused(&mut self, now: Now, to: SocketAddr) {
        self.refused(now, to);
    }

    /// Carries out an order.
    pub fn handle_command(&mut self, now: Now, command: Command) {
        match command {
            Command::Leave => self.say_goodbye(now, |record| record.left = true),
            Command::AddContacts(addresses) => {
                let me = self.identity().addr;
                self.contacts.extend(addresses.into_iter().filter(|addr| *addr != me));
                while self.contacts.len() > sync::CONTACTS_MAX {
                    self.contacts.pop_last();
                }
                self.arm_rejoin(now.mono_us);
            }
            Command::Decided(decisions) => {
                for signed in decisions {
                    self.take_decision(now, signed, true);
                }
            }
            Command::Written(step) => self.written(now, step),
            Command::Unwritten => self.unwritten(),
            Command::Lead(term) => {
                if term != self.record.details.leader_term {
                    let before = self.own_member();
                    self.update_own_record(now, before, |record| record.details.leader_term = term);
                }
            }
            Command::Describe(details) => {
                if *details != self.record.details && details.validate().is_ok() {
                    let before = self.own_member();
                    self.update_own_record(now, before, |record| record.details = *details);
                }
            }
            Command::Credential(credential) => {
                let role = credential.certified().role;
                self.credential = credential;
                self.timers.submit(now.mono_us, Timer::Vouch);
                if role != self.record.role {
                    let before = self.own_member();
                    self.update_own_record(now, before, |record| record.role = role);
                }
            }
            Command::Away(seconds) => self.say_goodbye(now, |record| record.away_s = seconds),
            Command::Readdress(addr) => self.readdress(now, addr),
            Command::DataPath(addr) if addr != self.record.data_path_addr => {
                let before = self.own_member();
                self.update_own_record(now, before, |record| record.data_path_addr = addr);
            }
            Command::DataPath(_) => {}
            Command::Examine { nonce, nodes, window_ms } => self.begin_examination(now, nonce, nodes, window_ms),
        }
    }

    /// Does what is due. To be called at [`Node::next_timeout_us`]; late is fine.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(due_us) = self.timers.next_us()
            && self.health.woken(now, now.mono_us.saturating_sub(due_us))
        {
            self.lost_time(now);
        }
        while let Some(timer) = self.timers.pop_due(now.mono_us) {
            match timer {
                Timer::Swim(timer) => self.swim_timer(now, timer),
                Timer::ProbeLate(probe, target) => self.probe_late(now, probe, target),
                Timer::Inquiry(subject, timer) => self.inquiry_timer(now, subject, timer),
                Timer::Errand(subject, asker, nonce) => self.errand_timer(now, (subject, asker), nonce),
                Timer::Hearsay(identity) => self.hearsay_timer(now, identity),
                Timer::Gossip => self.gossip_timer(now),
                Timer::Confirm(nonce) => self.confirm_timer(now, nonce),
                Timer::Exam(nonce) => self.exam_timer(now, nonce),
                Timer::Sync => self.sync_timer(now),
                Timer::Rejoin => self.rejoin_timer(now),
                Timer::Spread => self.spread_timer(now),
                Timer::Vouch => self.vouch_for_all(now),
                Timer::Want => self.want_timer(now),
                Timer::Reap => self.reap(now),
                Timer::Push => self.push_timer(now),
                Timer::Notify => self.notify_timer(now),
                Timer::Lacks => self.lacks_timer(now),
                Timer::Attend(network) => _ = self.attend(network),
                Timer::Differ => self.difference_timer(now),
                Timer::LeaveDeadline => self.leave_done(false),
                Timer::Speak => self.speak(now),
            }
        }
    }

    // ---- effects -------------------------------------------------------------------------------------------------

    /// The next thing to do; none when there is nothing left.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if effect.is_none() && self.effects.capacity() > EFFECTS_KEPT {
            // Room that only joining a large cluster needed.
            self.effects = VecDeque::new();
        }
        effect
    }

    fn effect(&mut self, effect: Effect) {
        // Only a caller that never drains gets here; datagrams may be lost, so the oldest goes.
        if self.effects.len() >= EFFECTS_MAX {
            self.effects.pop_front();
        }
        self.effects.push_back(effect);
    }

    // ---- shared by the parts -------------------------------------------------------------------------------------

    fn handle_payload(&mut self, now: Now, sender: NodeId, payload: &[u8], len: usize) -> Result<(), DropCause> {
        if self.is_removed(sender) {
            return Err(DropCause::Removed);
        }
        let sections = datagram::sections(payload).map_err(|_| DropCause::Malformed)?;
        self.table.heard(sender, now.mono_us);
        self.heard(now);
        let tables = sections.iter().find_map(|section| match section {
            Section::Tables(digest) => Some(*digest),
            _ => None,
        });
        // Records first: a goodbye is to be known before the failure that it explains.
        let mut kind = Kind::Records;
        for section in &sections {
            if let Section::Records(records) = section {
                for record in records {
                    self.take_record(now, record, true, Cause::Record);
                }
            }
        }
        for section in sections {
            match section {
                Section::Swim(packet) => kind = self.swim_packet(now, sender, packet)?,
                Section::Want(ids) => self.answer_want(sender, &ids),
                Section::Check(check) => {
                    kind = Kind::Check;
                    self.checked(now, sender, check);
                }
                Section::Hello(hello) => {
                    // An answer is not answered.
                    let is_question = kind == Kind::Probe;
                    kind = if is_question { kind } else { Kind::Tables };
                    self.greeted(now, sender, (hello, tables), is_question);
                }
                Section::Decisions(batch) => {
                    for signed in batch.into_decisions() {
                        self.take_decision(now, signed, true);
                    }
                }
                Section::Stubs(stubs) => self.fetch(now, sender, &stubs),
                Section::Confirm(confirm) => {
                    kind = Kind::Confirm;
                    self.confirm_heard(sender, &confirm);
                }
                Section::Sighting(sighting) => {
                    kind = Kind::Confirm;
                    self.sighting_heard(now, sender, sighting);
                }
                Section::Steps(pushes) => {
                    kind = Kind::Tables;
                    self.pushed(now, sender, pushes);
                }
                Section::Notices(notices) => {
                    kind = Kind::Tables;
                    self.noticed(now, sender, &notices);
                }
                Section::StepsWanted(wants) => {
                    kind = Kind::Tables;
                    self.answer_steps_wanted(sender, &wants);
                }
                Section::Exam(exam) => {
                    kind = Kind::Check;
                    self.exam_heard(now, sender, &exam, len);
                }
                Section::Records(_) | Section::Tables(_) | Section::Unknown(_) => {}
            }
        }
        self.stats.count_received(kind, len);
        Ok(())
    }

    /// Something authentic arrived.
    fn heard(&mut self, now: Now) {
        let was_isolated = self.health.is_isolated();
        self.health.heard(now);
        if was_isolated {
            self.note_health(now);
        }
    }

    /// The table changed: tell listeners, look for a missing record, adapt to the size.
    fn changed(&mut self, now: Now, cause: Cause, change: Change) {
        let Change { old, new } = change;
        let id = new.swim.identity.id;
        let has_record =
            self.table.envelope(id).is_some_and(|envelope| envelope.version.generation >= new.swim.identity.generation);
        if has_record || !new.swim.is_active() {
            self.missing.remove(&id);
        } else {
            self.missing.insert(id);
        }
        if old.as_ref().is_none_or(|old| old.swim.identity != new.swim.identity) {
            self.table.set_away(id, 0);
            self.note_absence(now, id);
        }
        self.react(now, old.as_ref().map(|old| old.swim), new.swim);
        let states = (old.as_ref().map(Member::state), Some(new.state()));
        // An incarnation alone is SWIM's inner matter.
        let visible =
            |member: &Member| (member.status, member.swim.identity, member.record.clone(), member.decided.clone());
        if old.as_ref().map(visible) != Some(visible(&new)) {
            let cause = cause.seen(old.as_ref(), &new);
            self.tell(cause, old.map(Box::new), Some(Box::new(new)));
        }
        self.tables_follow(now, cause, id, states);
        self.adapt_to_size();
    }

    fn tell(&mut self, cause: Cause, old: Option<Box<Member>>, new: Option<Box<Member>>) {
        self.revision += 1;
        if self.config.has(Mutant::SkipEvent) && self.revision.is_multiple_of(16) {
            return;
        }
        self.effect(Effect::Event(Event::Member { revision: self.revision, cause, old, new }));
    }

    /// `count` different active members by chance, or all if there are no more.
    fn choose(&mut self, count: usize) -> Vec<Identity> {
        let active = self.table.active();
        let mut places: Vec<usize> = Vec::with_capacity(count.min(active));
        if active <= count {
            places.extend(0..active);
        }
        while places.len() < count.min(active) {
            let at = self.rng.random_range(0..active);
            if !places.contains(&at) {
                places.push(at);
            }
        }
        places.into_iter().filter_map(|at| self.table.active_at(at)).map(|member| member.swim.identity).collect()
    }

    /// `base` plus up to a quarter of it by chance, so that nodes do not march in step.
    fn jittered_us(&mut self, base_us: u64) -> u64 {
        base_us + self.rng.random_range(0..=base_us / 4)
    }
}

#[cfg(test)]
mod tests;
