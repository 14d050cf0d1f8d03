//! Who is asked before anybody is called down: inquiries, and the errands that other nodes' inquiries send here.
//!
//! foca probes; what follows an unanswered probe is decided here. An **inquiry** asks the subject again and again, over
//! UDP and then TCP, and asks **witnesses** to do the same. It ends
//! * with an answer, to anybody: then nothing has happened, and nobody hears of it;
//! * with an **accusation**, when enough witnesses have said in this very round that they do not reach it either: foca
//!   is told `Suspect`, everybody hears it, and a second round begins, in which the subject is told what is said of it;
//! * with the verdict **down**, when the second round ended as the first did.
//!
//! So a node needs ears to accuse: whoever hears no witness accuses nobody (one that is deaf, cut off, starved or stopped
//! does no harm), and whoever hears one is corrected by it. A subject whose kernel answers for it while its process does
//! not is given more time: it may only be stopped. One whose kernel refuses, to several nodes, over UDP and TCP, gets
//! less.
//!
//! After Lifeguard (Dadgar, Phillips, Currey: *Lifeguard: Local Health Awareness for More Accurate Failure Detection*,
//! 2018), which shortens suspicions as independent nodes confirm them and lets a node distrust itself. Not here: what a
//! node thinks of itself (`health`), and what others say of this node (`swim`).

use std::collections::BTreeMap;

use super::identity::Identity;
use super::stats::Kind;
use super::table::Swim;
use super::timers::Timer;
use super::{Cause, Effect, ExchangeError, Mutant, Node, Now, Purpose};
use crate::record::{NodeId, Status};
use crate::wire::datagram::{Check, Doubt, Testimony, Writer};
use crate::wire::exchange::{Liveness, Request};

/// Inquiries under way at once, at most: more cannot end sooner.
const INQUIRIES_MAX: usize = 64;
/// Errands under way at once, at most: a node that many ask says nothing, and they ask others.
const ERRANDS_MAX: usize = 256;
/// Times that the subject is asked within one round.
const PINGS_PER_ROUND: u64 = 6;
/// Testimonies that an accusation needs, if there are so many others.
const TESTIMONIES_MIN: usize = 2;
/// Rounds are stretched up to this many times while witnesses do not answer.
const STRETCH_MAX: u64 = 8;
/// A stopped process is asked once in so many rounds: when it goes on, it answers whatever waits for it.
const STALLED_TICK_ROUNDS: u64 = 4;
/// And over TCP once in so many pings.
const STALLED_PINGS_PER_CALL: u64 = 2;
/// Addresses asked of the exchanges that are kept free for state.
const EXCHANGES_MAX: usize = 24;

/// What TCP said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tcp {
    NotTried,
    Pending,
    Silent,
    Refused,
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Is it there? Nobody else has heard of the doubt but the witnesses.
    Looking,
    /// Its kernel answers, its process does not.
    Stalled,
    /// Everybody has heard of the suspicion.
    Accused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Witness {
    id: NodeId,
    said: Option<Testimony>,
}

/// One question: does `subject` live?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquiry {
    subject: Identity,
    phase: Phase,
    /// foca's probe that it began with.
    probe: Option<u8>,
    /// Answers to earlier questions do not count.
    nonce_from: u32,
    opened_us: u64,
    round_us: u64,
    /// Rounds that ended for want of witnesses.
    barren: u32,
    /// Rounds in which enough witnesses reached it as little as this node did.
    silent_rounds: u32,
    tick: u64,
    ask_nonce: u32,
    witnesses: Vec<Witness>,
    tcp: Tcp,
    icmp_refused: bool,
    /// Of several timers only the last counts.
    timer: u64,
}

/// What another node wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Errand {
    asker: Identity,
    ask_nonce: u32,
    subject: Identity,
    doubt: Option<Doubt>,
    nonce_from: u32,
    until_us: u64,
    tick_us: u64,
    tick: u64,
    pinged_us: u64,
    tcp: Tcp,
    icmp_refused: bool,
}

/// Inquiries of this node by subject, errands by (subject, asker).
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: BTreeMap<NodeId, Inquiry>,
    errands: BTreeMap<(NodeId, NodeId), Errand>,
    nonce: u32,
    timers: u64,
}

impl Inquiries {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn errands(&self) -> usize {
        self.errands.len()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.errands.clear();
    }

    /// The question is not asked any more.
    pub(super) fn drop_about(&mut self, subject: NodeId) {
        self.open.remove(&subject);
    }

    fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    fn call_count(&self) -> usize {
        let calls = self.open.values().filter(|inquiry| inquiry.tcp == Tcp::Pending).count();
        calls + self.errands.values().filter(|errand| errand.tcp == Tcp::Pending).count()
    }
}

impl Inquiry {
    fn said(&self, testimony: impl Fn(&Testimony) -> bool) -> usize {
        self.witnesses.iter().filter(|witness| witness.said.as_ref().is_some_and(&testimony)).count()
    }
}

impl Node {
    /// Begins an inquiry about a member, or hurries the one that is under way when its machine has refused a datagram.
    pub(super) fn inquire(&mut self, now: Now, subject: NodeId, probe: Option<u8>, is_refused: bool) {
        if self.silent || self.leaving || self.health.is_isolated() || self.config.has(Mutant::Blind) {
            return;
        }
        let Some(member) = self.table.get(subject).filter(|member| member.swim.is_active()) else { return };
        if self.table.away_until_us(subject) > now.mono_us {
            return;
        }
        let (identity, tcp_only) = (member.swim.identity, member.tcp_only);
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            inquiry.probe = probe.or(inquiry.probe);
            let hurries = is_refused && !inquiry.icmp_refused && inquiry.witnesses.is_empty();
            inquiry.icmp_refused |= is_refused;
            if hurries {
                self.call_witnesses(now, subject);
                self.call_subject(subject);
            }
            return;
        }
        if self.inquiries.open.len() >= INQUIRIES_MAX {
            return;
        }
        self.stats.inquiries += 1;
        let nonce_from = self.inquiries.nonce.wrapping_add(1);
        let inquiry = Inquiry {
            subject: identity,
            phase: Phase::Looking,
            probe,
            nonce_from,
            opened_us: now.mono_us,
            round_us: now.mono_us,
            barren: 0,
            silent_rounds: 0,
            tick: 0,
            ask_nonce: 0,
            witnesses: Vec::new(),
            tcp: Tcp::NotTried,
            icmp_refused: is_refused,
            timer: 0,
        };
        self.inquiries.open.insert(subject, inquiry);
        self.ping_subject(subject);
        if is_refused {
            self.call_witnesses(now, subject);
        }
        if is_refused || tcp_only {
            self.call_subject(subject);
        }
        self.arm_inquiry(now, subject);
    }

    /// Length of one round in microseconds.
    fn round_us(&self, inquiry: &Inquiry) -> u64 {
        let ms = match inquiry.phase {
            Phase::Looking | Phase::Stalled => self.config.inquiry_ms,
            Phase::Accused => self.config.suspect_timeout_ms,
        };
        // Whoever goes on looking for long goes on more quietly.
        let quiet = match inquiry.silent_rounds {
            0..=2 => 0,
            3..=6 => 1,
            _ => 2,
        };
        ms * 1_000 * (1 << inquiry.barren.max(quiet)).min(STRETCH_MAX)
    }

    fn arm_inquiry(&mut self, now: Now, subject: NodeId) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        let tick_us = match inquiry.phase {
            Phase::Stalled => self.config.inquiry_ms * 1_000 * STALLED_TICK_ROUNDS,
            Phase::Looking | Phase::Accused => self.round_us(inquiry) / PINGS_PER_ROUND,
        };
        self.inquiries.timers += 1;
        let timer = self.inquiries.timers;
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            inquiry.timer = timer;
        }
        self.timers.submit(now.mono_us + tick_us.max(1_000), Timer::Inquiry(subject, timer));
    }

    pub(super) fn inquiry_timer(&mut self, now: Now, subject: NodeId, timer: u64) {
        if self.inquiries.open.get(&subject).is_none_or(|inquiry| inquiry.timer != timer) || self.is_moot(subject) {
            return;
        }
        self.health_looks_around(now);
        if self.silent || self.leaving || self.health.is_isolated() {
            self.inquiries.open.clear();
            return;
        }
        let Some(inquiry) = self.inquiries.open.get_mut(&subject) else { return };
        inquiry.tick += 1;
        let (tick, phase, has_called) = (inquiry.tick, inquiry.phase, !inquiry.witnesses.is_empty());
        self.ping_subject(subject);
        match phase {
            Phase::Stalled if tick.is_multiple_of(STALLED_PINGS_PER_CALL) => self.call_subject(subject),
            Phase::Stalled => {}
            Phase::Looking | Phase::Accused if !has_called => {
                self.call_witnesses(now, subject);
                self.call_subject(subject);
            }
            // The question may have been lost.
            Phase::Looking | Phase::Accused if tick.is_multiple_of(2) => self.ask_witnesses(subject),
            Phase::Looking | Phase::Accused => {}
        }
        self.judge(now, subject);
        self.arm_inquiry(now, subject);
    }

    /// The question has answered itself: the subject is gone, has a new life, or has refuted.
    fn is_moot(&mut self, subject: NodeId) -> bool {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return true };
        let known = self.table.get(subject).map(|member| member.swim);
        let stands = known.is_some_and(|known| {
            known.identity == inquiry.subject
                && match inquiry.phase {
                    Phase::Looking | Phase::Stalled => known.is_active(),
                    Phase::Accused => known.liveness == Liveness::Suspect,
                }
        });
        if !stands {
            self.inquiries.open.remove(&subject);
        }
        !stands
    }

    fn check(&mut self, to: Identity, check: &Check) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        writer.check(check);
        self.send_payload(to, Kind::Check, writer);
    }

    fn ping_subject(&mut self, subject: NodeId) {
        let Some(Inquiry { subject: identity, phase, .. }) = self.inquiries.open.get(&subject) else { return };
        let (to, is_accused) = (*identity, *phase == Phase::Accused);
        let doubt = if is_accused { self.doubt(to) } else { None };
        let nonce = self.inquiries.next_nonce();
        self.check(to, &Check::Ping { nonce, doubt });
    }

    /// What is said against `subject`, for it to refute.
    fn doubt(&self, subject: Identity) -> Option<Doubt> {
        self.table
            .get(subject.id)
            .map(|member| member.swim)
            .filter(|swim| swim.identity == subject && swim.liveness == Liveness::Suspect)
            .map(|swim| Doubt { generation: swim.identity.generation, incarnation: swim.incarnation })
    }

    fn call_subject(&mut self, subject: NodeId) {
        let calls = self.inquiries.call_count();
        let Some(inquiry) = self.inquiries.open.get_mut(&subject) else { return };
        if inquiry.tcp == Tcp::Pending || calls >= EXCHANGES_MAX {
            return;
        }
        inquiry.tcp = Tcp::Pending;
        let to = inquiry.subject;
        let patience_ms = self.config.inquiry_ms * 3 / 4;
        self.exchange(to.addr, Some(to.id), Purpose::Inquiry(to.id), &Request::Alive, patience_ms);
    }

    /// Draws witnesses and asks them.
    fn call_witnesses(&mut self, now: Now, subject: NodeId) {
        let barren = self.inquiries.open.get(&subject).map_or(0, |inquiry| inquiry.barren);
        let count = self.config.witnesses.max(1) * if barren > 0 { 2 } else { 1 };
        let drawn = self.choose(count + self.inquiries.open.len().min(2 * count) + 1);
        let is_fit = |id: &NodeId| *id != subject && !self.inquiries.open.contains_key(id);
        let (mut fit, unfit): (Vec<_>, Vec<_>) = drawn.into_iter().map(|identity| identity.id).partition(is_fit);
        fit.extend(unfit.into_iter().filter(|id| *id != subject));
        // Whoever has reached it before, when this node could not, is asked first.
        if let Some(voucher) = self.table.voucher(subject).filter(|id| self.is_active(*id)) {
            fit.retain(|id| *id != voucher);
            fit.insert(0, voucher);
        }
        fit.truncate(count);
        let ask_nonce = self.inquiries.next_nonce();
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            inquiry.round_us = now.mono_us;
            inquiry.ask_nonce = ask_nonce;
            inquiry.witnesses = fit.into_iter().map(|id| Witness { id, said: None }).collect();
        }
        self.ask_witnesses(subject);
    }

    fn is_active(&self, id: NodeId) -> bool {
        self.table.get(id).is_some_and(|member| member.swim.is_active())
    }

    fn ask_witnesses(&mut self, subject: NodeId) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        let silent: Vec<_> = inquiry.witnesses.iter().filter(|w| w.said.is_none()).map(|witness| witness.id).collect();
        let window_ms = self.round_us(inquiry) * 3 / 4_000;
        let doubt = if inquiry.phase == Phase::Accused { self.doubt(inquiry.subject) } else { None };
        let ask = Check::Ask {
            nonce: inquiry.ask_nonce,
            subject,
            generation: inquiry.subject.generation,
            doubt,
            window_ms: u16::try_from(window_ms).unwrap_or(u16::MAX),
        };
        for id in silent {
            if let Some(to) = self.table.get(id).map(|member| member.swim.identity) {
                self.check(to, &ask);
            }
        }
    }

    /// How many testimonies it takes here and now.
    fn testimonies_needed(&self) -> usize {
        if self.config.has(Mutant::NoWitnesses) {
            return 0;
        }
        TESTIMONIES_MIN.min(self.table.active().saturating_sub(1))
    }

    /// Has enough been heard?
    fn judge(&mut self, now: Now, subject: NodeId) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        if inquiry.phase != Phase::Stalled && inquiry.witnesses.is_empty() && self.table.active() > 1 {
            return;
        }
        let needed = self.testimonies_needed();
        let elapsed_us = now.mono_us.saturating_sub(inquiry.round_us);
        let open_us = now.mono_us.saturating_sub(inquiry.opened_us);
        let round_us = self.round_us(inquiry);
        let refused_us = self.config.refused_timeout_ms * 1_000;
        let is_refused_here = inquiry.tcp == Tcp::Refused;
        let refusals = inquiry.said(|said| *said == Testimony::Refused);
        let is_patient = !self.config.has(Mutant::NoPatience) && open_us < self.config.stall_timeout_ms * 1_000;
        let stalls = inquiry.said(|said| *said == Testimony::Stalled);
        let denials = inquiry.said(|said| !matches!(said, Testimony::Heard { .. }));
        let is_alone = needed == 0 && !self.config.has(Mutant::NoWitnesses);
        if inquiry.phase == Phase::Stalled {
            if !is_patient {
                self.advance(now, subject);
            } else if matches!(inquiry.tcp, Tcp::Refused | Tcp::Silent) {
                // It has gone for good meanwhile.
                self.look_again(now, subject, 0);
            }
        } else if is_refused_here && refusals >= needed {
            // The word that it is leaving may be on its way.
            let wait_us = if inquiry.phase == Phase::Looking { refused_us / 2 } else { refused_us };
            if elapsed_us >= wait_us {
                self.advance(now, subject);
            }
        } else if is_patient && (inquiry.tcp == Tcp::Stalled || stalls > 0) {
            self.wait_for_stalled(now, subject);
        } else if is_alone {
            if open_us >= self.config.alone_timeout_ms * 1_000 {
                self.advance(now, subject);
            }
        } else if denials >= needed && elapsed_us >= round_us * 3 / 4 && inquiry.tcp != Tcp::Pending {
            let silent_rounds = inquiry.silent_rounds + 1;
            let is_accused = inquiry.phase == Phase::Accused;
            if is_accused || silent_rounds > self.table.errors_about(subject, now.mono_us) {
                return self.advance(now, subject);
            }
            // It was suspected falsely before: others may reach it by another way.
            if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
                inquiry.silent_rounds = silent_rounds;
            }
            self.look_again(now, subject, 0);
        } else if elapsed_us >= round_us * 3 / 2 {
            // With refusals of its own this node knows that the network carries, and decides by itself in the end.
            if is_refused_here && inquiry.icmp_refused && open_us >= self.config.alone_timeout_ms * 1_000 {
                return self.advance(now, subject);
            }
            let barren = inquiry.barren + 1;
            self.stats.inquiries_barren += 1;
            self.health.lacked_witnesses();
            self.look_again(now, subject, barren);
        }
    }

    fn look_again(&mut self, now: Now, subject: NodeId, barren: u32) {
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            if inquiry.phase == Phase::Stalled {
                inquiry.phase = Phase::Looking;
            }
            inquiry.barren = barren.min(STRETCH_MAX.ilog2());
            inquiry.tick = 0;
        }
        self.call_witnesses(now, subject);
        self.call_subject(subject);
    }

    fn wait_for_stalled(&mut self, now: Now, subject: NodeId) {
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            inquiry.phase = if inquiry.phase == Phase::Accused { Phase::Accused } else { Phase::Stalled };
            inquiry.tcp = Tcp::NotTried;
            inquiry.witnesses.iter_mut().for_each(|witness| witness.said = None);
        }
        self.arm_inquiry(now, subject);
    }

    /// From doubt to accusation, from accusation to verdict.
    fn advance(&mut self, now: Now, subject: NodeId) {
        let Some(inquiry) = self.inquiries.open.get_mut(&subject) else { return };
        if inquiry.phase == Phase::Accused {
            let identity = inquiry.subject;
            self.inquiries.open.remove(&subject);
            return self.declare_down(now, identity);
        }
        inquiry.phase = Phase::Accused;
        inquiry.tick = 0;
        inquiry.barren = 0;
        let identity = inquiry.subject;
        self.stats.probes_failed += 1;
        if let Some(known) = self.table.get(subject).map(|member| member.swim)
            && known.identity == identity
            && known.liveness == Liveness::Alive
        {
            self.apply(now, Swim { liveness: Liveness::Suspect, ..known }, true, Cause::ProbeTimeout);
        }
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            // In the second round everything is asked anew.
            inquiry.tcp = Tcp::NotTried;
        }
        self.ping_subject(subject);
        self.call_witnesses(now, subject);
        self.call_subject(subject);
        self.arm_inquiry(now, subject);
    }

    /// The subject has answered this node or a witness.
    fn subject_answered(&mut self, now: Now, subject: NodeId, incarnation: Option<u16>, is_direct: bool) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        let (identity, is_accused) = (inquiry.subject, inquiry.phase == Phase::Accused);
        if let Some(incarnation) = incarnation {
            let alive = Swim { identity, incarnation, liveness: Liveness::Alive };
            self.apply(now, alive, true, Cause::Contact);
        }
        let is_refuted = self.table.get(subject).is_none_or(|known| known.swim.liveness != Liveness::Suspect);
        if is_accused && !is_refuted {
            return;
        }
        self.inquiries.open.remove(&subject);
        self.stats.accusations_withdrawn += u64::from(is_accused);
        if !is_direct {
            self.health.missed_what_others_heard();
        }
    }

    /// All that is under way was judged by a clock that stood still: it starts over.
    pub(super) fn restart_inquiries(&mut self, now: Now) {
        self.inquiries.errands.clear();
        let subjects: Vec<_> = self.inquiries.open.keys().copied().collect();
        for subject in subjects {
            if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
                inquiry.opened_us = now.mono_us;
                inquiry.tick = 0;
                if inquiry.phase == Phase::Stalled {
                    inquiry.phase = Phase::Looking;
                }
                inquiry.icmp_refused = false;
                inquiry.tcp = if inquiry.tcp == Tcp::Pending { Tcp::Pending } else { Tcp::NotTried };
                inquiry.witnesses.clear();
            }
            self.ping_subject(subject);
            self.arm_inquiry(now, subject);
        }
    }

    // ---- what others say -----------------------------------------------------------------------------------------

    pub(super) fn checks(&mut self, now: Now, sender: NodeId, checks: Vec<Check>) {
        for check in checks {
            match check {
                Check::Ping { nonce, doubt } => self.pinged(now, sender, nonce, doubt),
                Check::Pong { nonce, generation, incarnation } => {
                    self.ponged(now, sender, nonce, generation, incarnation);
                }
                Check::Ask { nonce, subject, generation, doubt, window_ms } => {
                    self.asked(now, sender, nonce, (subject, generation), doubt, window_ms);
                }
                Check::Tell { nonce, testimony } => self.told(now, sender, nonce, testimony),
                Check::HeldDown { generation } => self.held_down(now, generation),
            }
        }
    }

    fn pinged(&mut self, now: Now, sender: NodeId, nonce: u32, doubt: Option<Doubt>) {
        let me = self.identity();
        if let Some(Doubt { incarnation, .. }) = doubt.filter(|doubt| doubt.generation == me.generation) {
            self.heard_of_self(now, Swim { identity: me, incarnation, liveness: Liveness::Suspect });
        }
        let me = self.identity();
        if let Some(to) = self.table.get(sender).map(|member| member.swim.identity) {
            let incarnation = self.incarnation;
            self.check(to, &Check::Pong { nonce, generation: me.generation, incarnation });
        }
    }

    fn ponged(&mut self, now: Now, sender: NodeId, nonce: u32, generation: u64, incarnation: u16) {
        self.table.answered_over_udp(sender);
        let is_answer = |from: u32, subject: &Identity| {
            nonce.wrapping_sub(from) <= self.inquiries.nonce.wrapping_sub(from) && generation >= subject.generation
        };
        let mine = self.inquiries.open.get(&sender).filter(|i| is_answer(i.nonce_from, &i.subject));
        let incarnation_of = |subject: &Identity| (subject.generation == generation).then_some(incarnation);
        let mine = mine.map(|inquiry| incarnation_of(&inquiry.subject));
        let errands: Vec<_> = self
            .errands_about(sender)
            .filter(|(_, errand)| is_answer(errand.nonce_from, &errand.subject))
            .map(|(key, _)| *key)
            .collect();
        if let Some(incarnation) = mine {
            self.subject_answered(now, sender, incarnation, true);
        }
        for key in errands {
            self.finish_errand(key, Testimony::Heard { incarnation });
        }
    }

    /// foca's own probe was answered after all.
    pub(super) fn acked(&mut self, now: Now, from: NodeId, probe: u8) {
        self.table.answered_over_udp(from);
        if self.inquiries.open.get(&from).is_some_and(|inquiry| inquiry.probe == Some(probe)) {
            self.subject_answered(now, from, None, true);
        }
    }

    fn told(&mut self, now: Now, sender: NodeId, nonce: u32, testimony: Testimony) {
        let found = self.inquiries.open.iter_mut().find(|(_, inquiry)| inquiry.ask_nonce == nonce);
        let Some((subject, inquiry)) = found else { return };
        let subject = *subject;
        let Some(witness) = inquiry.witnesses.iter_mut().find(|witness| witness.id == sender) else { return };
        witness.said = Some(testimony);
        if let Testimony::Heard { incarnation } = testimony {
            self.table.vouched(subject, sender);
            self.subject_answered(now, subject, Some(incarnation), false);
        } else if !self.is_moot(subject) {
            self.judge(now, subject);
        }
    }

    /// `sender` holds nobody: it tells that a third node holds this very life for down.
    fn held_down(&mut self, now: Now, generation: u64) {
        let me = self.identity();
        if generation == me.generation {
            self.heard_of_self(now, Swim { identity: me, incarnation: self.incarnation, liveness: Liveness::Down });
        }
    }

    // ---- errands -------------------------------------------------------------------------------------------------

    fn errands_about(&self, subject: NodeId) -> impl Iterator<Item = (&(NodeId, NodeId), &Errand)> {
        let from = (subject, NodeId::from_bytes([0; 16]));
        self.inquiries.errands.range(from..).take_while(move |((about, _), _)| *about == subject)
    }

    fn asked(
        &mut self,
        now: Now,
        asker: NodeId,
        nonce: u32,
        (subject, generation): (NodeId, u64),
        doubt: Option<Doubt>,
        window_ms: u16,
    ) {
        // A node that is not sure of itself is no witness.
        if self.leaving || self.silent || !self.health.is_fit_to_testify(now) {
            return;
        }
        let Some(asker) = self.table.get(asker).map(|member| member.swim.identity) else { return };
        if subject == self.identity().id {
            let testimony = Testimony::Heard { incarnation: self.incarnation };
            return self.check(asker, &Check::Tell { nonce, testimony });
        }
        // It has said that it goes: whoever asks has missed that.
        let is_gone = self.table.get(subject).is_some_and(|member| member.status == Status::Left);
        if is_gone || self.table.away_until_us(subject) > now.mono_us {
            return self.send_records(asker, &[subject]);
        }
        // Only members are asked at the addresses that they gave: nobody can have a stranger asked.
        let Some(known) = self.table.get(subject).map(|member| member.swim) else { return };
        let at_once = if known.identity.generation > generation {
            Some(Testimony::Heard { incarnation: 0 })
        } else if !known.is_active() {
            Some(Testimony::Silent)
        } else if self.inquiries.open.get(&subject).is_some_and(|inquiry| inquiry.phase == Phase::Stalled) {
            Some(Testimony::Stalled)
        } else {
            None
        };
        if let Some(testimony) = at_once {
            return self.check(asker, &Check::Tell { nonce, testimony });
        }
        let key = (subject, asker.id);
        let is_repeated = self.inquiries.errands.get(&key).is_some_and(|errand| errand.ask_nonce == nonce);
        if is_repeated || self.inquiries.errands.len() >= ERRANDS_MAX {
            return;
        }
        self.stats.errands += 1;
        let window_us = u64::from(window_ms.max(1)) * 1_000;
        let errand = Errand {
            asker,
            ask_nonce: nonce,
            subject: known.identity,
            doubt,
            nonce_from: self.inquiries.nonce.wrapping_add(1),
            until_us: now.mono_us + window_us,
            tick_us: window_us / PINGS_PER_ROUND,
            tick: 0,
            pinged_us: 0,
            tcp: Tcp::NotTried,
            icmp_refused: false,
        };
        self.inquiries.errands.insert(key, errand);
        self.errand_timer(now, key, nonce);
    }

    pub(super) fn errand_timer(&mut self, now: Now, key: (NodeId, NodeId), ask_nonce: u32) {
        let calls = self.inquiries.call_count();
        let Some(errand) = self.inquiries.errands.get_mut(&key).filter(|e| e.ask_nonce == ask_nonce) else { return };
        if now.mono_us >= errand.until_us {
            let testimony = match errand.tcp {
                Tcp::Stalled => Testimony::Stalled,
                Tcp::Refused => Testimony::Refused,
                Tcp::NotTried | Tcp::Pending | Tcp::Silent => Testimony::Silent,
            };
            return self.finish_errand(key, testimony);
        }
        let Errand { subject, doubt, until_us, tick_us, tick, .. } = *errand;
        let calls_subject = tick == 1 && errand.tcp == Tcp::NotTried && calls < EXCHANGES_MAX;
        errand.tick += 1;
        if calls_subject {
            errand.tcp = Tcp::Pending;
        }
        // One question serves all that want to know; the first one of each errand is its own.
        let asked_us = self.errands_about(key.0).map(|(_, errand)| errand.pinged_us).max().unwrap_or_default();
        if tick == 0 || now.mono_us >= asked_us + tick_us / 2 {
            let nonce = self.inquiries.next_nonce();
            self.check(subject, &Check::Ping { nonce, doubt });
            if let Some(errand) = self.inquiries.errands.get_mut(&key) {
                errand.pinged_us = now.mono_us;
            }
        }
        if calls_subject {
            self.call_for_errand(now, key, subject, until_us);
        }
        let next_us = (now.mono_us + tick_us.max(1_000)).min(until_us);
        self.timers.submit(next_us, Timer::Errand(key.0, key.1, ask_nonce));
    }

    fn call_for_errand(&mut self, now: Now, key: (NodeId, NodeId), subject: Identity, until_us: u64) {
        // The outcome is to be here before the window ends.
        let patience_ms = until_us.saturating_sub(now.mono_us) / 1_250;
        let purpose = Purpose::Errand(key.0, key.1);
        self.exchange(subject.addr, Some(subject.id), purpose, &Request::Alive, patience_ms.max(1));
    }

    fn finish_errand(&mut self, key: (NodeId, NodeId), testimony: Testimony) {
        if let Some(Errand { asker, ask_nonce: nonce, .. }) = self.inquiries.errands.remove(&key) {
            self.check(asker, &Check::Tell { nonce, testimony });
        }
    }

    // ---- TCP and refusals ----------------------------------------------------------------------------------------

    /// What came of the subject's being called over TCP. `Ok`: it answered, with its incarnation if it told it.
    pub(super) fn called(&mut self, now: Now, purpose: Purpose, outcome: Result<Option<u16>, ExchangeError>) {
        let tcp = match outcome {
            Ok(_) => Tcp::NotTried,
            // Somebody else at its address: it is not there.
            Err(ExchangeError::Refused | ExchangeError::WrongPeer) => Tcp::Refused,
            Err(ExchangeError::Stalled | ExchangeError::Broken) => Tcp::Stalled,
            Err(ExchangeError::Unreachable) => Tcp::Silent,
        };
        match purpose {
            Purpose::Inquiry(subject) => {
                let Some(inquiry) = self.inquiries.open.get_mut(&subject) else { return };
                inquiry.tcp = tcp;
                if let Ok(incarnation) = outcome {
                    self.table.answered_over_tcp(subject);
                    self.health.answered_over_tcp_only();
                    self.subject_answered(now, subject, incarnation, true);
                } else if !self.is_moot(subject) {
                    self.judge(now, subject);
                }
            }
            Purpose::Errand(subject, asker) => {
                let key = (subject, asker);
                let Some(errand) = self.inquiries.errands.get_mut(&key) else { return };
                errand.tcp = tcp;
                if let Ok(incarnation) = outcome {
                    self.finish_errand(key, Testimony::Heard { incarnation: incarnation.unwrap_or_default() });
                } else if tcp == Tcp::Refused && errand.icmp_refused {
                    self.finish_errand(key, Testimony::Refused);
                }
            }
            Purpose::Sync | Purpose::Push | Purpose::LeavePush => {}
        }
    }

    /// A datagram to `to` came back.
    pub(super) fn refused(&mut self, now: Now, to: std::net::SocketAddr) {
        let errands: Vec<_> = self
            .inquiries
            .errands
            .iter()
            .filter(|(_, errand)| errand.subject.addr == to && !errand.icmp_refused)
            .map(|(key, _)| *key)
            .collect();
        for key in errands {
            let Some(errand) = self.inquiries.errands.get_mut(&key) else { continue };
            errand.icmp_refused = true;
            let (subject, until_us) = (errand.subject, errand.until_us);
            match errand.tcp {
                Tcp::Refused => self.finish_errand(key, Testimony::Refused),
                Tcp::NotTried => {
                    errand.tcp = Tcp::Pending;
                    self.call_for_errand(now, key, subject, until_us);
                }
                Tcp::Pending | Tcp::Silent | Tcp::Stalled => {}
            }
        }
        let subject = self.table.iter_active().find(|member| member.swim.identity.addr == to);
        if let Some(id) = subject.map(|member| member.swim.identity.id) {
            self.give_up_probe(now, id);
            self.inquire(now, id, None, true);
        }
    }

    /// Tells a member that somebody holds its present life for down.
    pub(super) fn warn(&mut self, member: Identity) {
        self.check(member, &Check::HeldDown { generation: member.generation });
    }

    fn declare_down(&mut self, now: Now, subject: Identity) {
        let Some(token) = self.token else { return };
        let Some(known) = self.table.get(subject.id).map(|member| member.swim) else { return };
        self.stats.accusations_upheld += 1;
        let timer = foca::Timer::ChangeSuspectToDown { member_id: subject, incarnation: known.incarnation, token };
        self.swim_timer(now, timer);
    }

    pub(super) fn note_health(&mut self, now: Now) {
        self.health.look(now);
        let health = self.health.report();
        if health.reasons != self.told_health {
            self.told_health.clone_from(&health.reasons);
            self.effect(Effect::Event(super::Event::Health(health)));
        }
    }
}
