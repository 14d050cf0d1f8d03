//! foca, and what is done to its inputs and outputs.
//!
//! * Every packet is read here first: what is no news is left out, what is about this node is answered here.
//! * Every timer that foca asks for comes through here. A suspicion's timer is handed back only while the suspicion
//!   still stands: foca 2.0 sends `TurnUndead` also to a member that has refuted in time, and so forces it to renew.
//! * An identity is renewed here, never by foca: to a generation above all that the cluster may remember, at a bounded
//!   rate, and persisted before a datagram carries it.
//! * Every packet that foca sends leaves through [`Node::send`], with records in the room that is left.

use std::collections::VecDeque;
use std::time::Duration;

use foca::{Header, Member as Update, Message, NoCustomBroadcast, Notification, Runtime};
use rand_chacha::ChaCha12Rng;

use super::codec::{self, Packet, SwimCodec};
use super::identity::Identity;
use super::table::Swim;
use super::timers::Timer;
use super::{Cause, Config, Effect, Event, Node, Now};
use crate::node::stats::Kind;
use crate::record::{NodeId, NodeRecord, Status};
use crate::wire::DropCause;
use crate::wire::datagram::{RecordEnvelope, Writer};
use crate::wire::exchange::{Liveness, MEMBERS_MAX};

pub(super) type Foca = foca::Foca<Identity, SwimCodec, ChaCha12Rng, NoCustomBroadcast>;

/// Renewals allowed in [`FIGHT_WINDOW_US`].
const RENEWALS_MAX: usize = 8;
/// How far a generation may be ahead of this node's clock, in seconds: clocks may be wrong by decades.
const GENERATION_AHEAD_MAX_S: u64 = 1 << 32;
const FIGHT_WINDOW_US: u64 = 60_000_000;
/// How long a node that gave way says nothing, before it looks whether the other is still there.
const SILENCE_US: u64 = 300_000_000;

pub(super) fn start(identity: Identity, config: &Config, rng: ChaCha12Rng) -> Foca {
    Foca::new(identity, config.foca(1), rng, SwimCodec)
}

pub(super) fn update(swim: &Swim) -> Update<Identity> {
    Update::new(swim.identity, swim.incarnation, codec::state(swim.liveness))
}

fn swim(update: &Update<Identity>) -> Swim {
    Swim { identity: *update.id(), incarnation: update.incarnation(), liveness: codec::liveness(update.state()) }
}

const fn kind_of(message: &Message<Identity>) -> Kind {
    match message {
        Message::Ping(_) | Message::Ack(_) => Kind::Probe,
        Message::PingReq { .. }
        | Message::IndirectPing { .. }
        | Message::IndirectAck { .. }
        | Message::ForwardedAck { .. } => Kind::IndirectProbe,
        Message::Announce | Message::Feed => Kind::Announce,
        Message::Gossip | Message::Broadcast => Kind::Gossip,
        Message::TurnUndead => Kind::TurnUndead,
    }
}

/// Another process that writes records of this node's id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    /// The generation it started with.
    started: u64,
    /// This node's generation after it was first heard of.
    answered: u64,
}

/// A generation is a time in seconds, or one more than the last: nothing far in the future is believed, or one forged
/// number would silence its node for ever.
pub(super) fn is_plausible(now: Now, generation: u64) -> bool {
    generation <= now.unix_ms / 1_000 + GENERATION_AHEAD_MAX_S
}

/// What foca asked for during one call.
#[derive(Default)]
pub(super) struct Outbox {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(foca::Timer<Identity>, Duration)>,
    downs: Vec<Identity>,
    connected: Option<bool>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberDown(identity) => self.downs.push(*identity),
            Notification::Active => self.connected = Some(true),
            Notification::Idle | Notification::Defunct => self.connected = Some(false),
            // The table follows by applying the same updates.
            Notification::MemberUp(_) | Notification::Rename(..) | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: foca::Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}

impl Node {
    /// Calls foca, then carries out what it asked for. Says which members foca declared down.
    pub(super) fn drive(
        &mut self,
        now: Now,
        call: impl FnOnce(&mut Foca, &mut Outbox) -> Result<(), foca::Error>,
    ) -> Vec<Identity> {
        let mut outbox = Outbox::default();
        if call(&mut self.foca, &mut outbox).is_err() {
            self.stats.swim_errors += 1;
        }
        if let Some(connected) = outbox.connected {
            self.connected = connected;
        }
        for (timer, after) in outbox.timers {
            self.submit_swim(now, timer, after);
        }
        for (to, packet) in outbox.sends {
            self.send_swim(now, to, &packet);
        }
        self.resume_gossip(now);
        outbox.downs
    }

    fn submit_swim(&mut self, now: Now, timer: foca::Timer<Identity>, after: Duration) {
        if let foca::Timer::ProbeRandomMember(token) = &timer
            && self.token.replace(*token) != Some(*token)
        {
            self.restart_suspicions(now);
        }
        if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            self.stats.probes_failed += 1;
            let accused = Swim { identity: *member_id, incarnation: *incarnation, liveness: Liveness::Suspect };
            self.mirror(now, accused, Cause::ProbeTimeout);
        }
        if matches!(timer, foca::Timer::PeriodicGossip(_)) && self.foca.updates_backlog() == 0 {
            self.resting_gossip = Some(timer);
            return;
        }
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.timers.submit(now.mono_us.saturating_add(after_us), Timer::Swim(timer));
    }

    /// foca has voided its timers (it does so with every new identity). Suspicions would stand for ever.
    fn restart_suspicions(&mut self, now: Now) {
        let suspects: Vec<_> = self
            .table
            .iter_active()
            .map(|member| member.swim)
            .filter(|swim| swim.liveness == Liveness::Suspect)
            .collect();
        suspects.into_iter().for_each(|suspect| self.start_suspicion(now, &suspect));
    }

    /// A suspicion that foca runs no timer for.
    pub(super) fn start_suspicion(&mut self, now: Now, suspect: &Swim) {
        let Some(token) = self.token else { return };
        let after_us = self.config.suspect_timeout_ms * 1_000 * u64::from(self.size_digits);
        let timer =
            foca::Timer::ChangeSuspectToDown { member_id: suspect.identity, incarnation: suspect.incarnation, token };
        self.timers.submit(now.mono_us + after_us, Timer::Swim(timer));
    }

    /// Gossip rests while there is nothing to tell (an idle node wakes for probes only), and starts again at once.
    fn resume_gossip(&mut self, now: Now) {
        if self.foca.updates_backlog() > 0
            && let Some(timer) = self.resting_gossip.take()
        {
            self.timers.submit(now.mono_us + self.config.coalesce_ms * 1_000, Timer::Swim(timer));
        }
    }

    fn send_swim(&mut self, now: Now, to: Identity, packet: &[u8]) {
        let Ok(read) = Packet::read(packet) else { return };
        let Header { src_incarnation, message, .. } = &read.header;
        if *src_incarnation > self.incarnation {
            self.stats.refutations += 1;
        }
        self.incarnation = *src_incarnation;
        if let Message::Ping(probe) = message {
            self.ping = Some((*probe, to.id, now.mono_us));
        }
        let kind = kind_of(message);
        // A suspect has to know, or it cannot refute: whatever is said to it, this is said too (Lifeguard's "buddy").
        let suspicion = self
            .table
            .get(to.id)
            .map(|member| member.swim)
            .filter(|swim| swim.identity == to && swim.liveness == Liveness::Suspect)
            .and_then(|swim| read.with_update(&update(&swim), self.config.payload_bytes_max()));
        self.send(to, kind, Some(suspicion.as_deref().unwrap_or(packet)));
    }

    /// Seals and sends a datagram: foca's packet if there is one, and records in the room that is left.
    pub(super) fn send(&mut self, to: Identity, kind: Kind, packet: Option<&[u8]>) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        if let Some(packet) = packet {
            writer.swim(packet);
        }
        // Whoever is held for down is told the record held against it: of a later life, or of another node with its id.
        if kind == Kind::TurnUndead {
            writer.records(self.table.envelope(to.id).into_iter());
        } else {
            self.add_rumours(&mut writer);
        }
        self.send_payload(to, kind, writer);
    }

    pub(super) fn send_payload(&mut self, to: Identity, kind: Kind, writer: Writer) {
        if writer.is_empty() || self.silent {
            return;
        }
        if let Ok(bytes) = self.channel.seal(to.id, &writer.finish()) {
            self.stats.count_sent(kind, bytes.len());
            self.effect(Effect::Send { to: to.addr, bytes });
        }
    }

    /// Applies to the table what foca was told or has decided.
    pub(super) fn mirror(&mut self, now: Now, swim: Swim, cause: Cause) -> bool {
        match self.table.apply(now.unix_ms, swim) {
            Some(change) => {
                self.changed(cause, change);
                true
            }
            None => false,
        }
    }

    /// Tells foca and the table about another node.
    pub(super) fn apply(&mut self, now: Now, swim: Swim, broadcast: bool, cause: Cause) -> bool {
        if !self.table.is_news(&swim) {
            return false;
        }
        // The table first, so that events precede what foca sends because of them.
        self.mirror(now, swim, cause);
        self.drive(now, |foca, out| foca.apply_many(std::iter::once(update(&swim)), broadcast, out));
        true
    }

    pub(super) fn swim_packet(&mut self, now: Now, sender: NodeId, bytes: &[u8]) -> Result<Kind, DropCause> {
        // What foca would refuse must not reach the table either.
        if bytes.len() > self.config.swim_bytes_max() {
            return Err(DropCause::Oversized);
        }
        let packet = Packet::read(bytes).map_err(|_| DropCause::Malformed)?;
        let Header { src, src_incarnation, dst, message } = &packet.header;
        let kind = kind_of(message);
        let me = self.identity();
        if src.id != sender || src.id == me.id || !self.is_acceptable(now, src) {
            return Err(DropCause::Malformed);
        }
        // Meant for an earlier life of this node. An announcement is welcome all the same; to anything else the answer is
        // that there is a new life: the restarted node may know nobody.
        if *dst != me && !(*message == Message::Announce && dst.id == me.id) {
            if dst.generation < me.generation && *message != Message::TurnUndead && !self.leaving {
                let src = *src;
                self.drive(now, |foca, out| foca.announce(src, out));
            }
            return Ok(kind);
        }
        match message {
            Message::TurnUndead => {
                self.declared_down(now, *src);
                return Ok(kind);
            }
            Message::Ack(probe) => self.probe_answered(now, *probe, src.id),
            _ => {}
        }
        let speaker = Swim { identity: *src, incarnation: *src_incarnation, liveness: Liveness::Alive };
        let is_active = self.mirror(now, speaker, Cause::Contact)
            || self.table.get(src.id).is_some_and(|known| known.swim.identity == *src && known.swim.is_active());
        let mut kept = Vec::new();
        let mut about_me = Vec::new();
        let mut left = Vec::new();
        if is_active {
            for (update, raw) in &packet.updates {
                let swim = swim(update);
                if !self.is_acceptable(now, &swim.identity) {
                    self.stats.updates_refused += 1;
                } else if swim.identity.id == me.id {
                    about_me.push(swim);
                } else if self.is_wanted(&swim) && self.mirror(now, swim, Cause::Gossip) {
                    kept.push(*raw);
                } else {
                    self.stats.updates_filtered += 1;
                    let known = self.table.get(swim.identity.id);
                    if swim.is_active()
                        && known.is_some_and(|m| m.status == Status::Left && m.swim.identity == swim.identity)
                    {
                        left.push(swim.identity.id);
                    }
                }
            }
        }
        let thin = packet.rewrite(&kept);
        self.drive(now, |foca, out| foca.handle_data(&thin, out));
        for swim in about_me {
            self.heard_of_self(now, swim);
        }
        // The speaker has missed a goodbye.
        if !left.is_empty() {
            self.send_records(*src, &left);
        }
        Ok(kind)
    }

    /// May anything be believed of such an identity?
    pub(super) fn is_acceptable(&self, now: Now, identity: &Identity) -> bool {
        super::sync::is_usable(identity.addr)
            && is_plausible(now, identity.generation)
            && (self.table.knows(identity.id) || self.table.len() < MEMBERS_MAX)
    }

    /// That somebody unknown is gone is no news: this node may have forgotten it, and must not learn of it again from
    /// those that have not yet. A newcomer learns it once.
    pub(super) fn is_wanted(&self, swim: &Swim) -> bool {
        swim.is_active() || !self.joined || self.table.knows(swim.identity.id)
    }

    fn probe_answered(&mut self, now: Now, probe: u8, from: NodeId) {
        if let Some((expected, target, sent_us)) = self.ping
            && (expected, target) == (probe, from)
        {
            self.ping = None;
            let rtt_us = now.mono_us.saturating_sub(sent_us);
            self.stats.probes_answered += 1;
            self.stats.probe_rtt_us_sum += rtt_us;
            self.table.measured(from, rtt_us);
        }
    }

    /// Others talk about this node.
    pub(super) fn heard_of_self(&mut self, now: Now, swim: Swim) {
        let me = self.identity();
        if self.leaving || self.silent {
            return;
        }
        if swim.identity == me {
            match swim.liveness {
                Liveness::Alive => {}
                // No incarnation is left to refute with.
                Liveness::Suspect if swim.incarnation.max(self.incarnation) == u16::MAX => self.renew(now, me),
                // foca refutes: a higher incarnation, told to a few members at once.
                Liveness::Suspect => {
                    self.drive(now, |foca, out| foca.apply_many(std::iter::once(update(&swim)), true, out));
                }
                Liveness::Down => self.renew(now, swim.identity),
            }
        } else if swim.identity.generation >= me.generation {
            // A life that this one does not remember (an older disk was restored), or another node with this id.
            if swim.identity.addr != me.addr {
                self.rival_addr = Some(swim.identity.addr);
            }
            self.renew(now, swim.identity);
        }
    }

    /// A record of this node's id that this process did not write, of a generation above the one it started with.
    ///
    /// It may be a life that an older disk does not remember: this node goes above it, and that is the end. If the same
    /// process then goes above this node, it lives: two nodes have one id (a cloned disk). The one that was started later
    /// stays, the other falls silent; both report it.
    pub(super) fn heard_of_rival(&mut self, now: Now, envelope: &RecordEnvelope) {
        let generation = envelope.version.generation;
        let mine = self.record.started_generation;
        if self.leaving || self.silent || generation <= mine {
            return;
        }
        let Ok(NodeRecord { started_generation: theirs, .. }) = envelope.record() else { return };
        if theirs == mine {
            return;
        }
        let me = self.identity();
        if generation > me.generation {
            self.renew(now, Identity { generation, ..me });
        }
        let first = self.rival.filter(|rival| rival.started == theirs);
        let is_alive = first.is_some_and(|rival| generation > rival.answered);
        if first.is_none() {
            self.rival = Some(Rival { started: theirs, answered: self.identity().generation });
        }
        let gives_way = is_alive && theirs > mine;
        if gives_way || (first.is_none() && theirs < mine) {
            self.effect(Effect::Event(Event::IdentityConflict { addr: self.rival_addr, generation, gives_way }));
        }
        if gives_way {
            self.silent = true;
            self.rival = None;
            self.timers.submit(now.mono_us + SILENCE_US, Timer::Speak);
        }
    }

    /// The silence is over: is the other still there?
    pub(super) fn speak(&mut self, now: Now) {
        self.silent = false;
        self.restart_suspicions(now);
        self.arm_rejoin(now.mono_us);
    }

    /// `by` holds this very life for down and will not listen to it any more.
    fn declared_down(&mut self, now: Now, by: Identity) {
        // A life that another has taken the place of has nothing to say any more.
        let is_outranked =
            self.table.get(by.id).is_some_and(|m| foca::Identity::win_addr_conflict(&m.swim.identity, &by));
        if self.leaving || self.silent || is_outranked {
            return;
        }
        let me = self.identity();
        self.renew(now, me);
        // It may remember a generation above ours: a full exchange tells.
        self.start_sync(by.addr, Some(by.id));
    }

    /// Takes a generation above `seen` and tells everybody.
    fn renew(&mut self, now: Now, seen: Identity) {
        forget_old(&mut self.renewed_us, now);
        if self.silent || self.renewed_us.len() >= RENEWALS_MAX {
            return;
        }
        self.renewed_us.push_back(now.mono_us);
        let me = self.identity();
        let generation = me.generation.max(seen.generation).max(now.unix_ms / 1_000).saturating_add(1);
        let before = self.own_member();
        self.stats.renewals += 1;
        self.effect(Effect::PersistGeneration(generation));
        self.incarnation = 0;
        self.connected = false;
        self.drive(now, |foca, out| foca.change_identity(Identity { generation, ..me }, out));
        self.update_own_record(now, before, |_| {});
        // foca says its new identity once; if that is lost, nobody hears of this node again.
        self.arm_rejoin(now.mono_us + self.config.rejoin_interval_ms * 1_000);
    }

    pub(super) fn swim_timer(&mut self, now: Now, timer: foca::Timer<Identity>) {
        let mut accused = None;
        if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            let known = self.table.get(member_id.id).map(|member| member.swim);
            let suspect = Swim { identity: *member_id, incarnation: *incarnation, liveness: Liveness::Suspect };
            // Silent, nobody can have answered this node.
            if self.silent {
                return;
            }
            if known != Some(suspect) {
                self.stats.undead_withheld += u64::from(known.is_some_and(|known| known.is_active()));
                return;
            }
            accused = Some(Swim { liveness: Liveness::Down, ..suspect });
        }
        let downs = self.drive(now, |foca, out| foca.handle_timer(timer, out));
        if let Some(down) = accused.filter(|down| downs.contains(&down.identity)) {
            self.mirror(now, down, Cause::ProbeTimeout);
        }
    }

    /// Suspicion and retransmission grow with the number of digits of the cluster's size.
    pub(super) fn adapt_to_size(&mut self) {
        let size = self.table.active() + 1;
        let digits = size.ilog10() + 1;
        if digits != self.size_digits && self.foca.set_config(self.config.foca(size)).is_ok() {
            self.size_digits = digits;
        }
    }
}

fn forget_old(times_us: &mut VecDeque<u64>, now: Now) {
    while times_us.front().is_some_and(|at| now.mono_us.saturating_sub(*at) > FIGHT_WINDOW_US) {
        times_us.pop_front();
    }
}
