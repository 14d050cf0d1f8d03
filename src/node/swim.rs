//! foca, and what is done to its inputs and outputs.
//!
//! * Every packet is read here first: what is no news is left out, what is about this node is answered here.
//! * Every timer that foca asks for comes through here. foca probes; when an answer is late it is told that it has come,
//!   and an inquiry begins (`inquiry`), so foca itself never suspects anybody. A suspicion's timer is handed to it only
//!   when the inquiry's verdict is "down" and the suspicion still stands: foca 2.0 sends `TurnUndead` also to a member
//!   that has refuted in time, and so forces it to renew.
//! * News is gossiped at once, not at foca's next tick.
//! * Every packet that foca sends leaves through [`Node::send_swim`], with records in the room that is left.

use std::time::Duration;

use foca::{Header, Member as Update, Message, NoCustomBroadcast, Notification, Runtime};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::codec::{self, Packet, SwimCodec};
use super::identity::{Identity, Life};
use super::lives::is_plausible;
use super::member::Swim;
use super::timers::Timer;
use super::{Cause, Config, Effect, Mutant, Node, Now};
use crate::node::stats::Kind;
use crate::record::{NodeId, Status};
use crate::wire::DropCause;
use crate::wire::datagram::Writer;
use crate::wire::exchange::{Liveness, MEMBERS_MAX};

pub(super) type Foca = foca::Foca<Life, SwimCodec, ChaCha12Rng, NoCustomBroadcast>;

/// Second rounds of inquiries that a suspicion heard of may last before this node looks for itself.
const HEARSAY_ROUNDS: u64 = 4;
/// Time between two greetings, in microseconds.
const HELLO_INTERVAL_US: u64 = 1_000_000;

pub(super) fn start(identity: Identity, config: &Config, rng: ChaCha12Rng) -> Foca {
    Foca::new(identity.into(), config.foca(1, identity.addr.is_ipv6()), rng, SwimCodec)
}

/// What foca is told of a node that is not listed as that.
pub(super) fn update(swim: &Swim) -> Update<Life> {
    update_of(swim.identity.into(), swim)
}

fn update_of<T>(life: T, swim: &Swim) -> Update<T> {
    Update::new(life, swim.incarnation, codec::state(swim.liveness))
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

/// What foca asked for during one call.
#[derive(Default)]
pub(super) struct Outbox {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(foca::Timer<Life>, Duration)>,
    downs: Vec<Identity>,
    connected: Option<bool>,
}

impl Runtime<Life> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        match notification {
            Notification::MemberDown(identity) => self.downs.push(identity.identity()),
            Notification::Active => self.connected = Some(true),
            Notification::Idle | Notification::Defunct => self.connected = Some(false),
            // The table follows by applying the same updates.
            Notification::MemberUp(_) | Notification::Rename(..) | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.sends.push((to.identity(), data.to_vec()));
    }

    fn submit_after(&mut self, timer: foca::Timer<Life>, after: Duration) {
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

    fn submit_swim(&mut self, now: Now, timer: foca::Timer<Life>, after: Duration) {
        if let foca::Timer::ProbeRandomMember(token) = &timer {
            self.token = Some(*token);
        }
        if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer {
            // foca is told that every probe was answered, so it suspects nobody. If it did, an inquiry would decide.
            self.mirror(
                now,
                Swim { identity: member_id.identity(), incarnation, liveness: Liveness::Suspect },
                Cause::ProbeTimeout,
            );
            return;
        }
        let rests = self.foca.updates_backlog() == 0 && !self.config.has(Mutant::RestlessGossip);
        if matches!(timer, foca::Timer::PeriodicGossip(_)) && rests {
            self.resting_gossip = Some(timer);
            return;
        }
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.timers.submit(now.mono_us.saturating_add(after_us), Timer::Swim(timer));
    }

    /// The table has changed: spread the news at once, and see that no suspicion stands for ever.
    pub(super) fn react(&mut self, now: Now, old: Option<Swim>, new: Swim) {
        let is_news = old.is_none_or(|old| (old.identity, old.liveness) != (new.identity, new.liveness));
        if !is_news {
            return;
        }
        let was_wrong = old.is_some_and(|old| old.liveness != Liveness::Alive && new.liveness == Liveness::Alive);
        if was_wrong {
            let was_down = old.is_some_and(|old| old.liveness == Liveness::Down);
            self.table.was_wrong_about(new.identity.id, now.mono_us, was_down);
        }
        if !self.gossip_armed {
            self.gossip_armed = true;
            let pause_us = self.config.gossip_interval_ms * 1_000 / 4;
            let at_us = (now.mono_us + self.config.coalesce_ms * 1_000).max(self.gossiped_us + pause_us);
            self.timers.submit(at_us, Timer::Gossip);
        }
        if new.liveness == Liveness::Suspect {
            self.watch_hearsay(now, new.identity);
        }
    }

    pub(super) fn gossip_timer(&mut self, now: Now) {
        self.gossip_armed = false;
        if self.foca.updates_backlog() > 0 && !self.silent {
            self.gossiped_us = now.mono_us;
            self.drive(now, |foca, out| foca.gossip(out));
        }
    }

    /// Whoever accused it decides, unless it goes down itself: then somebody else has to.
    pub(super) fn watch_hearsay(&mut self, now: Now, identity: Identity) {
        let after_us = self.config.suspect_timeout_ms * 1_000 * HEARSAY_ROUNDS;
        let jitter_us = self.rng.random_range(0..=after_us);
        self.timers.submit(now.mono_us + after_us + jitter_us, Timer::Hearsay(identity));
    }

    pub(super) fn hearsay_timer(&mut self, now: Now, identity: Identity) {
        if self.table.suspicion(identity).is_some() {
            self.inquire(now, identity.id, None, false);
            self.watch_hearsay(now, identity);
        }
    }

    /// Timers have come late: what they would have judged was not lived through.
    pub(super) fn lost_time(&mut self, now: Now) {
        if let Some((probe, target, _)) = self.ping.take() {
            self.pretend_answer(now, probe, target);
        }
        self.restart_inquiries(now);
        self.distrust_buffer(now);
        self.note_health(now);
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
        let Ok(mut packet) = Packet::from_inner(packet) else { return };
        let Header { src_incarnation, message, .. } = &packet.header;
        if *src_incarnation > self.incarnation {
            self.stats.refutations += 1;
            self.health.was_suspected();
        }
        self.incarnation = *src_incarnation;
        let mut greets = false;
        if let Message::Ping(probe) = message {
            self.ping = Some((*probe, to.id, now.mono_us));
            let timeout_us = self.health.probe_timeout_us(&self.config);
            self.timers.submit(now.mono_us + timeout_us, Timer::ProbeLate(*probe, to.id));
            if now.mono_us >= self.greetings.due_us && self.joined {
                self.greetings.due_us = now.mono_us + HELLO_INTERVAL_US;
                greets = true;
            }
        }
        let kind = kind_of(message);
        // A suspect has to know, or it cannot refute: whatever is said to it, this is said first (Lifeguard's "buddy").
        if !matches!(message, Message::Announce | Message::TurnUndead | Message::Broadcast) {
            packet.updates.splice(0..0, self.table.suspicion(to).as_ref().map(|swim| update_of(swim.identity, swim)));
        }
        let mut writer = Writer::new(self.config.payload_bytes_max());
        writer.swim(&packet.to_wire(self.config.swim_bytes_max()));
        if greets {
            self.write_greeting(now, to, &mut writer);
        }
        // Whoever is held for down is told the record held against it: of a later life, or of another node with its id.
        if kind == Kind::TurnUndead {
            self.write_records(&mut writer, self.table.envelope(to.id).into_iter());
        } else {
            self.add_rumours(&mut writer);
        }
        self.send_payload(to, kind, writer);
    }

    /// Sends records and decisions, as many as fit. Says how many decisions.
    pub(super) fn send_rumours(&mut self, to: Identity) -> usize {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        let told = self.add_rumours(&mut writer);
        self.send_payload(to, Kind::Records, writer);
        told
    }

    pub(super) fn send_payload(&mut self, to: Identity, kind: Kind, mut writer: Writer) {
        if writer.is_empty() || self.silent {
            return;
        }
        if self.config.is_later() {
            writer.later();
        }
        if let Ok(mut bytes) = self.channel.seal(to.id, &writer.finish()) {
            if self.config.has(Mutant::LongDatagram) && bytes.len() > self.config.datagram_bytes_max / 2 {
                bytes.resize(self.config.datagram_bytes_max + 1, 0);
            }
            self.stats.count_sent(kind, bytes.len());
            self.effect(Effect::Send { to: to.addr, bytes });
        }
    }

    /// Applies to the table what foca was told or has decided.
    pub(super) fn mirror(&mut self, now: Now, swim: Swim, cause: Cause) -> bool {
        if self.config.has(Mutant::Resurrect) || self.config.has(Mutant::OlderIncarnation) {
            self.table.unlearn(swim, self.config.has(Mutant::Resurrect));
        }
        match self.table.apply(now.unix_ms, swim) {
            Some(change) => {
                self.changed(now, cause, change);
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
        let update = update_of(self.table.life(swim.identity), &swim);
        self.drive(now, |foca, out| foca.apply_many(std::iter::once(update), broadcast, out));
        true
    }

    pub(super) fn swim_packet(&mut self, now: Now, sender: NodeId, bytes: &[u8]) -> Result<Kind, DropCause> {
        let me = self.identity();
        let packet = Packet::from_wire(bytes, sender, me).map_err(|_| DropCause::Malformed)?;
        let Header { src, src_incarnation, dst, message } = &packet.header;
        let kind = kind_of(message);
        if src.id == me.id || !self.is_acceptable(now, src) {
            return Err(DropCause::Malformed);
        }
        // Meant for an earlier life of this node. An announcement is welcome all the same; to anything else the answer is
        // that there is a new life: the restarted node may know nobody.
        if *dst != me && *message != Message::Announce {
            if dst.generation < me.generation && *message != Message::TurnUndead && !self.leaving {
                let src = *src;
                self.drive(now, |foca, out| foca.announce(src.into(), out));
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
        let mut news = Vec::new();
        if self.mirror(now, speaker, Cause::Contact) {
            news.push(update_of(self.table.life(speaker.identity), &speaker));
        }
        let is_active =
            self.table.get(src.id).is_some_and(|known| known.swim.identity == *src && known.swim.is_active());
        let mut about_me = Vec::new();
        let mut left = Vec::new();
        if is_active {
            for heard in packet.updates {
                self.sort_update(now, heard, &mut news, &mut about_me, &mut left);
            }
        }
        if !news.is_empty() {
            self.drive(now, |foca, out| foca.apply_many(news.into_iter(), true, out));
        }
        // Nothing follows from gossip but its news. foca answers the rest, and those that it holds for down.
        if (!is_active || *message != Message::Gossip)
            && let Ok(header) = Packet::inner_header(&packet.header)
        {
            self.drive(now, |foca, out| foca.handle_data(&header, out));
        }
        for swim in about_me {
            self.heard_of_self(now, swim);
        }
        // The speaker has missed a goodbye.
        if !left.is_empty() {
            self.send_records(*src, &left);
        }
        Ok(kind)
    }

    /// What one update of a packet is good for.
    fn sort_update(
        &mut self,
        now: Now,
        heard: Update<Identity>,
        news: &mut Vec<Update<Life>>,
        about_me: &mut Vec<Swim>,
        left: &mut Vec<NodeId>,
    ) {
        let swim = swim(&heard);
        let id = swim.identity.id;
        if !self.is_acceptable(now, &swim.identity) {
            self.stats.updates_refused += 1;
            return;
        }
        if id == self.identity().id {
            about_me.push(swim);
            return;
        }
        let (believed, cause) = if swim.is_active() && self.is_predecessor(&swim.identity) {
            (Swim { liveness: Liveness::Down, ..swim }, Cause::Replaced(self.identity().id))
        } else {
            (swim, Cause::Gossip)
        };
        if self.is_wanted(&swim) && self.mirror(now, believed, cause) {
            news.push(update_of(self.table.life(swim.identity), &believed));
        } else {
            self.stats.updates_filtered += 1;
            let known = self.table.get(id);
            if swim.is_active() && known.is_some_and(|m| m.status == Status::Left && m.swim.identity == swim.identity) {
                left.push(id);
            }
        }
    }

    /// May anything be believed of such an identity?
    pub(super) fn is_acceptable(&self, now: Now, identity: &Identity) -> bool {
        super::sync::is_usable(identity.addr)
            && !self.is_removed(identity.id)
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
            self.health.answered(rtt_us);
        }
        self.acked(now, from, probe);
    }

    pub(super) fn probe_late(&mut self, now: Now, probe: u8, target: NodeId) {
        if self.ping.is_some_and(|(expected, pinged, _)| (expected, pinged) == (probe, target)) {
            self.ping = None;
            self.pretend_answer(now, probe, target);
            self.inquire(now, target, Some(probe), false);
        }
    }

    /// A probe of `target` that is under way has failed already.
    pub(super) fn give_up_probe(&mut self, now: Now, target: NodeId) {
        if let Some((probe, _, _)) = self.ping.take_if(|(_, pinged, _)| *pinged == target) {
            self.pretend_answer(now, probe, target);
        }
    }

    /// Tells foca that its probe was answered: what follows is not foca's to decide.
    fn pretend_answer(&mut self, now: Now, probe: u8, target: NodeId) {
        let Some(known) = self.table.get(target).map(|member| member.swim).filter(Swim::is_active) else { return };
        let header = Header {
            src: known.identity,
            src_incarnation: known.incarnation,
            dst: self.identity(),
            message: Message::Ack(probe),
        };
        if let Ok(packet) = Packet::inner_header(&header) {
            self.drive(now, |foca, out| foca.handle_data(&packet, out));
        }
    }

    pub(super) fn swim_timer(&mut self, now: Now, timer: foca::Timer<Life>) {
        let mut accused = None;
        match &timer {
            foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                let known = self.table.get(member_id.identity().id).map(|member| member.swim);
                let suspect =
                    Swim { identity: member_id.identity(), incarnation: *incarnation, liveness: Liveness::Suspect };
                if known != Some(suspect) {
                    self.stats.undead_withheld += u64::from(known.is_some_and(|known| known.is_active()));
                    return;
                }
                accused = Some(Swim { liveness: Liveness::Down, ..suspect });
            }
            foca::Timer::ProbeRandomMember(_) => {
                // Left over from before a renewal.
                if let Some((probe, target, _)) = self.ping.take() {
                    self.pretend_answer(now, probe, target);
                }
                self.health_looks_around(now);
                self.note_health(now);
            }
            // An answer that is late by now is not foca's to look for.
            foca::Timer::SendIndirectProbe { .. } => {
                if let Some((probe, target, _)) = self.ping {
                    self.probe_late(now, probe, target);
                }
            }
            foca::Timer::PeriodicGossip(_) => {
                self.gossiped_us = now.mono_us;
                if self.config.has(Mutant::RestlessGossip) {
                    self.drive(now, |foca, out| foca.gossip(out));
                }
            }
            _ => {}
        }
        let downs = self.drive(now, |foca, out| foca.handle_timer(timer, out));
        if let Some(down) = accused.filter(|down| downs.contains(&down.identity)) {
            self.stats.accusations_upheld += 1;
            self.mirror(now, down, Cause::ProbeTimeout);
        }
    }

    /// Retransmissions grow with the logarithm of the cluster's size.
    pub(super) fn adapt_to_size(&mut self) {
        let size = self.table.active() + 1;
        let log2 = size.ilog2();
        if log2 != self.size_log2
            && self.foca.set_config(self.config.foca(size, self.identity().addr.is_ipv6())).is_ok()
        {
            self.size_log2 = log2;
        }
    }
}
