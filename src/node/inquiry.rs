//! Who is asked before anybody is called down: inquiries.
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
//! not is given more time: it may only be stopped. One whose kernel refuses connections, to several nodes, gets less.
//!
//! After Lifeguard (Dadgar, Phillips, Currey: *Lifeguard: Local Health Awareness for More Accurate Failure Detection*,
//! 2018), which shortens suspicions as independent nodes confirm them and lets a node distrust itself. Not here: what a
//! node thinks of itself (`health`), what others ask of it (`errand`), and what they say of it (`lives`).

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use super::errand::Errand;
use super::identity::Identity;
use super::member::Swim;
use super::stats::Kind;
use super::timers::Timer;
use super::voucher::Voucher;
use super::{Cause, Mutant, Node, Now, Purpose};
use crate::record::NodeId;
use crate::wire::datagram::{Check, Doubt, Testimony, Writer};
use crate::wire::exchange::{Liveness, Request};

/// Inquiries under way at once, at most: more cannot end sooner.
const INQUIRIES_MAX: usize = 64;
/// Times that the subject is asked within one round.
pub(super) const PINGS_PER_ROUND: u64 = 6;
/// Testimonies that an accusation needs, if there are so many others.
const TESTIMONIES_MIN: usize = 2;
/// Rounds are stretched up to this many times while witnesses do not answer.
pub(super) const STRETCH_MAX: u64 = 8;
/// A stopped process is asked once in so many rounds: when it goes on, it answers whatever waits for it.
const STALLED_TICK_ROUNDS: u64 = 4;
/// And over TCP once in so many pings.
const STALLED_PINGS_PER_CALL: u64 = 2;
/// Calls over TCP under way at once, for inquiries and errands together, at most: other exchanges are for state.
const CALLS_MAX: usize = 24;

/// What TCP said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tcp {
    NotTried,
    Pending,
    Silent,
    Refused,
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Is it there? Nobody else has heard of the doubt but the witnesses.
    Looking,
    /// Its kernel answers, its process does not.
    Stalled,
    /// Everybody has heard of the suspicion.
    Accused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) id: NodeId,
    pub(super) said: Option<Testimony>,
}

/// One question: does `subject` live?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquiry {
    pub(super) subject: Identity,
    pub(super) phase: Phase,
    /// foca's probe that it began with.
    pub(super) probe: Option<u8>,
    /// Answers to earlier questions do not count.
    pub(super) nonce_from: u32,
    pub(super) opened_us: u64,
    pub(super) round_us: u64,
    /// Rounds that ended for want of witnesses.
    pub(super) barren: u32,
    /// Rounds in which enough witnesses reached it as little as this node did.
    pub(super) silent_rounds: u32,
    pub(super) tick: u64,
    pub(super) ask_nonce: u32,
    pub(super) witnesses: Vec<Witness>,
    pub(super) tcp: Tcp,
    pub(super) icmp_refused: bool,
    /// The voucher has not reached it.
    pub(super) has_weighed: bool,
    /// Of several timers only the last counts.
    pub(super) timer: u64,
}

/// Inquiries of this node by subject, errands by (subject, asker).
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    pub(super) open: BTreeMap<NodeId, Inquiry>,
    pub(super) errands: BTreeMap<(NodeId, NodeId), Errand>,
    pub(super) nonce: u32,
    pub(super) timers: u64,
    pub(super) voucher: Voucher,
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

    /// The witnesses of a round are dismissed: has the voucher been among them for nothing?
    fn weigh_voucher(&mut self, subject: NodeId) {
        let Some(voucher) = self.voucher.who() else { return };
        let Some(inquiry) = self.open.get_mut(&subject).filter(|inquiry| !inquiry.has_weighed) else { return };
        let is_vain = |said: Option<Testimony>| matches!(said, None | Some(Testimony::Silent));
        if inquiry.witnesses.iter().any(|witness| witness.id == voucher && is_vain(witness.said)) {
            inquiry.has_weighed = true;
            self.voucher.failed();
        }
    }

    pub(super) fn next_nonce(&mut self) -> u32 {
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
            let hurries = is_refused && !inquiry.icmp_refused && inquiry.ask_nonce == 0;
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
            has_weighed: false,
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
        let (tick, phase, has_called) = (inquiry.tick, inquiry.phase, inquiry.ask_nonce != 0);
        let is_alone = self.table.active() <= 1;
        self.ping_subject(subject);
        match phase {
            Phase::Stalled if tick.is_multiple_of(STALLED_PINGS_PER_CALL) => self.call_subject(subject),
            Phase::Stalled => {}
            Phase::Looking | Phase::Accused if !has_called => {
                self.call_witnesses(now, subject);
                self.call_subject(subject);
            }
            Phase::Looking | Phase::Accused if is_alone && tick.is_multiple_of(PINGS_PER_ROUND) => {
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
    pub(super) fn is_moot(&mut self, subject: NodeId) -> bool {
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

    pub(super) fn check(&mut self, to: Identity, check: &Check) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        writer.check(check);
        self.send_payload(to, Kind::Check, writer);
    }

    fn ping_subject(&mut self, subject: NodeId) {
        let Some(to) = self.inquiries.open.get(&subject).map(|inquiry| inquiry.subject) else { return };
        let doubt = self.doubt(to);
        let nonce = self.inquiries.next_nonce();
        self.check(to, &Check::Ping { nonce, doubt });
    }

    /// What is said against `subject`, for it to refute.
    fn doubt(&self, subject: Identity) -> Option<Doubt> {
        let Swim { identity, incarnation, .. } = self.table.suspicion(subject)?;
        Some(Doubt { generation: identity.generation, incarnation })
    }

    fn call_subject(&mut self, subject: NodeId) {
        let inquiry = self.inquiries.open.get(&subject).filter(|inquiry| inquiry.tcp != Tcp::Pending);
        let Some(to) = inquiry.map(|inquiry| inquiry.subject) else { return };
        // A connection, a handshake and a question take three round trips.
        let rtt_us = self.table.get(to.id).and_then(|member| member.rtt_us).unwrap_or_default();
        let patience_ms = (self.config.inquiry_ms * 3 / 4).max(5 * rtt_us / 1_000);
        let is_called = self.call(to, Purpose::Inquiry(to.id), patience_ms);
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject).filter(|_| is_called) {
            inquiry.tcp = Tcp::Pending;
        }
    }

    /// Asks `to` over TCP whether it lives; `false` when too many are being asked.
    pub(super) fn call(&mut self, to: Identity, purpose: Purpose, patience_ms: u64) -> bool {
        self.inquiries.call_count() < CALLS_MAX
            && self.exchange(to.addr, Some(to.id), purpose, &Request::Alive, patience_ms)
    }

    /// Draws witnesses and asks them.
    fn call_witnesses(&mut self, now: Now, subject: NodeId) {
        self.inquiries.weigh_voucher(subject);
        let barren = self.inquiries.open.get(&subject).map_or(0, |inquiry| inquiry.barren);
        let count = self.config.witnesses.max(1) * if barren > 0 { 2 } else { 1 };
        let drawn = self.choose(count + self.inquiries.open.len().min(2 * count) + 1);
        let mut drawn: Vec<_> = drawn.into_iter().map(|identity| identity.id).collect();
        if barren > 0 {
            // Strangers do not answer: on the small side of a split most are out of reach.
            let mut near = self.near(now, subject);
            let (chosen, _) = near.partial_shuffle(&mut self.rng, count);
            drawn.splice(0..0, chosen.iter().copied());
            let mut seen = std::collections::BTreeSet::new();
            drawn.retain(|id| seen.insert(*id));
        }
        let is_fit = |id: &NodeId| *id != subject && !self.inquiries.open.contains_key(id);
        let (mut fit, unfit): (Vec<_>, Vec<_>) = drawn.into_iter().partition(is_fit);
        fit.extend(unfit.into_iter().filter(|id| *id != subject));
        // Whoever has reached it before, when this node could not, is asked first; then who has reached another one: where
        // two sides do not see each other, few see both, and each that is found by chance is good for all.
        let of_another = self.inquiries.voucher.who().filter(|id| is_fit(id));
        for voucher in of_another.into_iter().chain(self.table.voucher(subject)).filter(|id| self.is_active(*id)) {
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
        let doubt = self.doubt(inquiry.subject);
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

    /// Members that this node has heard lately, without `subject`: who is not, is no witness.
    fn near(&self, now: Now, subject: NodeId) -> Vec<NodeId> {
        let since_us = now.mono_us.saturating_sub(self.config.isolated_after_ms * 1_000);
        let members = self.table.iter_active().filter(|member| member.heard_us > since_us);
        members.map(|member| member.swim.identity.id).filter(|id| *id != subject).collect()
    }

    /// How many testimonies it takes here and now. When nobody has come to bear witness for long, those count that can.
    fn testimonies_needed(&self, now: Now, inquiry: &Inquiry) -> usize {
        if self.config.has(Mutant::NoWitnesses) {
            return 0;
        }
        let has_waited = now.mono_us >= inquiry.opened_us + self.config.alone_timeout_ms * 1_000;
        if has_waited && inquiry.barren > 0 && self.table.active() > 1 {
            return self.near(now, inquiry.subject.id).len().clamp(1, TESTIMONIES_MIN);
        }
        TESTIMONIES_MIN.min(self.table.active().saturating_sub(1))
    }

    /// Has enough been heard?
    pub(super) fn judge(&mut self, now: Now, subject: NodeId) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        if inquiry.phase != Phase::Stalled && inquiry.ask_nonce == 0 {
            return;
        }
        let needed = self.testimonies_needed(now, inquiry);
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
            let is_looking = inquiry.phase == Phase::Looking;
            if elapsed_us >= if is_looking { refused_us / 4 } else { refused_us } {
                // The word that it goes may be on its way: others are asked before it is accused.
                if is_looking && inquiry.silent_rounds == 0 {
                    self.look_once_more(now, subject);
                } else {
                    self.advance(now, subject);
                }
            }
        } else if is_patient && (inquiry.tcp == Tcp::Stalled || stalls > 0) {
            // Witnesses may speak of a process that has ended since. This node's own call is newer: it waits for it, and
            // when that is refused, asks on, once a round. If it waited for the process as soon as a witness says so, its
            // own call would have it look again, to be told the same: as fast as packets travel.
            match inquiry.tcp {
                Tcp::Pending => {}
                Tcp::Refused if elapsed_us < round_us * 3 / 4 => {}
                Tcp::Refused => self.look_again(now, subject, 0),
                Tcp::NotTried | Tcp::Silent | Tcp::Stalled => self.wait_for_stalled(now, subject),
            }
        } else if is_alone {
            if open_us >= self.config.alone_timeout_ms * 1_000 && elapsed_us >= round_us * 3 / 4 {
                self.advance(now, subject);
            }
        } else if denials >= needed && elapsed_us >= round_us * 3 / 4 && inquiry.tcp != Tcp::Pending {
            let silent_rounds = inquiry.silent_rounds + 1;
            let is_accused = inquiry.phase == Phase::Accused;
            if is_accused || silent_rounds > self.table.errors_about(subject, now.mono_us) {
                return self.advance(now, subject);
            }
            // It was suspected falsely before: others may reach it by another way.
            self.look_once_more(now, subject);
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

    fn look_once_more(&mut self, now: Now, subject: NodeId) {
        if let Some(inquiry) = self.inquiries.open.get_mut(&subject) {
            inquiry.silent_rounds += 1;
        }
        self.look_again(now, subject, 0);
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
        // Whoever has lost time looks again before it says anything.
        if !self.health.is_fit_to_testify(now) {
            return self.look_again(now, subject, 0);
        }
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
    ///
    /// `life` is its generation and incarnation, when it told them; `through` the witness.
    pub(super) fn subject_answered(
        &mut self,
        now: Now,
        subject: NodeId,
        life: Option<(u64, u16)>,
        through: Option<NodeId>,
    ) {
        let Some(inquiry) = self.inquiries.open.get(&subject) else { return };
        let (identity, is_accused) = (inquiry.subject, inquiry.phase == Phase::Accused);
        if inquiry.icmp_refused {
            self.table.refused_falsely(subject, now.mono_us);
        }
        if let Some((generation, incarnation)) = life {
            if generation > identity.generation {
                // It lives on in a life that this node has not heard of.
                self.inquiries.open.remove(&subject);
                let teller = through.and_then(|id| self.table.get(id)).map_or(identity, |member| member.swim.identity);
                return self.start_sync(teller.addr, Some(teller.id));
            }
            if generation == identity.generation {
                let alive = Swim { identity, incarnation, liveness: Liveness::Alive };
                self.apply(now, alive, true, Cause::Contact);
            }
        }
        let is_refuted = self.table.get(subject).is_none_or(|known| known.swim.liveness != Liveness::Suspect);
        if is_accused && !is_refuted {
            return;
        }
        self.inquiries.open.remove(&subject);
        self.stats.accusations_withdrawn += u64::from(is_accused);
        if through.is_some() {
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
                inquiry.ask_nonce = 0;
            }
            self.ping_subject(subject);
            self.arm_inquiry(now, subject);
        }
    }

    fn declare_down(&mut self, now: Now, subject: Identity) {
        let Some(token) = self.token else { return };
        let Some(known) = self.table.get(subject.id).map(|member| member.swim) else { return };
        let Swim { incarnation, .. } = known;
        let timer = foca::Timer::ChangeSuspectToDown { member_id: subject.into(), incarnation, token };
        self.swim_timer(now, timer);
    }
}
