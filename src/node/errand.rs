//! What other nodes' inquiries want from this one: answers, and errands to a third node.
//!
//! Here all checks that arrive are sorted: questions about this node are answered, answers go to the inquiry or errand
//! that waits for them. Not here: this node's own inquiries (`inquiry`).

use std::net::SocketAddr;

use super::identity::Identity;
use super::inquiry::{PINGS_PER_ROUND, Phase, STRETCH_MAX, Tcp};
use super::member::Swim;
use super::timers::Timer;
use super::{ExchangeError, Node, Now, Purpose};
use crate::record::{NodeId, Status};
use crate::wire::datagram::{Check, Doubt, Testimony};
use crate::wire::exchange::Liveness;

/// Errands under way at once, at most: a node that many ask says nothing, and they ask others.
const ERRANDS_MAX: usize = 256;
/// Of those for one asker, at most.
const ERRANDS_OF_ONE_MAX: usize = 32;

/// What another node wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) asker: Identity,
    pub(super) ask_nonce: u32,
    /// Which timer counts.
    pub(super) timer: u32,
    pub(super) subject: Identity,
    pub(super) doubt: Option<Doubt>,
    pub(super) nonce_from: u32,
    pub(super) until_us: u64,
    pub(super) tick_us: u64,
    pub(super) tick: u64,
    pub(super) pinged_us: u64,
    pub(super) tcp: Tcp,
    pub(super) icmp_refused: bool,
}

impl Node {
    // ---- what others say -----------------------------------------------------------------------------------------

    pub(super) fn checked(&mut self, now: Now, sender: NodeId, check: Check) {
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
        let is_mine = self.inquiries.open.get(&sender).is_some_and(|i| is_answer(i.nonce_from, &i.subject));
        let errands: Vec<_> = self
            .errands_about(sender)
            .filter(|(_, errand)| is_answer(errand.nonce_from, &errand.subject))
            .map(|(key, _)| *key)
            .collect();
        if is_mine {
            self.subject_answered(now, sender, Some((generation, incarnation)), None);
        }
        for key in errands {
            self.finish_errand(key, Testimony::Heard { generation, incarnation });
        }
    }

    /// foca's own probe was answered after all.
    pub(super) fn acked(&mut self, now: Now, from: NodeId, probe: u8) {
        self.table.answered_over_udp(from);
        if self.inquiries.open.get(&from).is_some_and(|inquiry| inquiry.probe == Some(probe)) {
            self.subject_answered(now, from, None, None);
        }
    }

    fn told(&mut self, now: Now, sender: NodeId, nonce: u32, testimony: Testimony) {
        let found = self.inquiries.open.iter_mut().find(|(_, inquiry)| inquiry.ask_nonce == nonce);
        let Some((subject, inquiry)) = found else { return };
        let subject = *subject;
        let Some(witness) = inquiry.witnesses.iter_mut().find(|witness| witness.id == sender) else { return };
        witness.said = Some(testimony);
        if let Testimony::Heard { generation, incarnation } = testimony {
            self.table.vouched(subject, sender);
            let table = &self.table;
            let is_active = |id| table.get(id).is_some_and(|member| member.swim.is_active());
            self.inquiries.voucher.reached(sender, is_active);
            self.subject_answered(now, subject, Some((generation, incarnation)), Some(sender));
        } else if !self.is_moot(subject) {
            self.judge(now, subject);
        }
    }

    /// Another node has met one that holds this very life for down.
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
            let testimony = Testimony::Heard { generation: self.identity().generation, incarnation: self.incarnation };
            return self.check(asker, &Check::Tell { nonce, testimony });
        }
        // It has said that it goes: whoever asks has missed that.
        let is_gone = self.table.get(subject).is_some_and(|member| member.status == Status::Left);
        if is_gone || self.table.away_until_us(subject) > now.mono_us {
            return self.send_records(asker, &[subject]);
        }
        // Only members are asked at the addresses that they gave: nobody can have a stranger asked.
        let Some(known) = self.table.get(subject).map(|member| member.swim) else { return };
        // Of a life that is unknown here there is nothing to say.
        if known.identity.generation < generation {
            return;
        }
        let is_later_life = known.identity.generation > generation && known.is_active();
        let at_once = if is_later_life || has_refuted(&known, doubt) {
            let (generation, incarnation) = (known.identity.generation, known.incarnation);
            Some(Testimony::Heard { generation, incarnation })
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
        self.take_errand(now, (subject, asker), (nonce, doubt), window_ms, known.identity);
    }

    /// Begins an errand, or goes on with one whose asker has begun another round.
    fn take_errand(
        &mut self,
        now: Now,
        (subject, asker): (NodeId, Identity),
        (nonce, doubt): (u32, Option<Doubt>),
        window_ms: u16,
        identity: Identity,
    ) {
        let key = (subject, asker.id);
        let window_max_ms = self.config.suspect_timeout_ms * STRETCH_MAX;
        let window_us = u64::from(window_ms).clamp(1, window_max_ms) * 1_000;
        if let Some(errand) = self.inquiries.errands.get_mut(&key) {
            // The next round of the same inquiry: its timer goes on.
            if errand.ask_nonce != nonce {
                errand.ask_nonce = nonce;
                errand.doubt = doubt;
                errand.until_us = now.mono_us + window_us;
                errand.nonce_from = self.inquiries.nonce.wrapping_add(1);
            }
            return;
        }
        let of_asker = self.inquiries.errands.keys().filter(|(_, by)| *by == asker.id).count();
        if self.inquiries.errands.len() >= ERRANDS_MAX || of_asker >= ERRANDS_OF_ONE_MAX {
            return;
        }
        self.stats.errands += 1;
        let errand = Errand {
            asker,
            ask_nonce: nonce,
            timer: nonce,
            subject: identity,
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

    pub(super) fn errand_timer(&mut self, now: Now, key: (NodeId, NodeId), timer: u32) {
        let Some(errand) = self.inquiries.errands.get_mut(&key).filter(|e| e.timer == timer) else { return };
        let known = self.table.get(key.0).map(|member| member.swim).filter(|known| has_refuted(known, errand.doubt));
        if let Some(Swim { identity: Identity { generation, .. }, incarnation, .. }) = known {
            return self.finish_errand(key, Testimony::Heard { generation, incarnation });
        }
        if now.mono_us >= errand.until_us {
            let testimony = match errand.tcp {
                Tcp::Stalled => Testimony::Stalled,
                Tcp::Refused => Testimony::Refused,
                Tcp::NotTried | Tcp::Pending | Tcp::Silent => Testimony::Silent,
            };
            return self.finish_errand(key, testimony);
        }
        let Errand { subject, doubt, until_us, tick_us, tick, .. } = *errand;
        let calls_subject = tick == 1 && errand.tcp == Tcp::NotTried;
        errand.tick += 1;
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
        self.timers.submit(next_us, Timer::Errand(key.0, key.1, timer));
    }

    fn call_for_errand(&mut self, now: Now, key: (NodeId, NodeId), subject: Identity, until_us: u64) {
        // The outcome is to be here before the window ends.
        let patience_ms = until_us.saturating_sub(now.mono_us) / 1_250;
        let is_called = self.call(subject, Purpose::Errand(key.0, key.1), patience_ms.max(1));
        if let Some(errand) = self.inquiries.errands.get_mut(&key).filter(|_| is_called) {
            errand.tcp = Tcp::Pending;
        }
    }

    fn finish_errand(&mut self, key: (NodeId, NodeId), testimony: Testimony) {
        if let Some(Errand { asker, ask_nonce: nonce, .. }) = self.inquiries.errands.remove(&key) {
            self.check(asker, &Check::Tell { nonce, testimony });
        }
    }

    // ---- TCP and refusals ----------------------------------------------------------------------------------------

    /// What came of the subject's being called over TCP. `Ok`: it answered, with its life if it told it.
    pub(super) fn called(&mut self, now: Now, purpose: Purpose, outcome: Result<Option<(u64, u16)>, ExchangeError>) {
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
                if let Ok(life) = outcome {
                    self.table.answered_over_tcp(subject);
                    self.health.answered_over_tcp_only();
                    self.subject_answered(now, subject, life, None);
                } else if !self.is_moot(subject) {
                    self.judge(now, subject);
                }
            }
            Purpose::Errand(subject, asker) => {
                let key = (subject, asker);
                let Some(errand) = self.inquiries.errands.get_mut(&key) else { return };
                errand.tcp = tcp;
                if let Ok(life) = outcome {
                    let (generation, incarnation) = life.unwrap_or((errand.subject.generation, 0));
                    self.finish_errand(key, Testimony::Heard { generation, incarnation });
                } else if tcp == Tcp::Refused && errand.icmp_refused {
                    self.finish_errand(key, Testimony::Refused);
                }
            }
            Purpose::Sync
            | Purpose::Push
            | Purpose::LeavePush
            | Purpose::Decisions(..)
            | Purpose::Tables(_)
            | Purpose::Lacks(_)
            | Purpose::Fetch
            | Purpose::Confirm(_)
            | Purpose::Exam(_)
            | Purpose::ExamCall(_) => {}
        }
    }

    /// A datagram to `to` came back.
    pub(super) fn refused(&mut self, now: Now, to: SocketAddr) {
        // Whoever was asked about it leaves it to the asker: if each witness asked witnesses, all members would within
        // milliseconds, and all of them call the same machine.
        let is_on_errand = self.inquiries.errands.values().any(|errand| errand.subject.addr == to);
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
                Tcp::NotTried => self.call_for_errand(now, key, subject, until_us),
                Tcp::Pending | Tcp::Silent | Tcp::Stalled => {}
            }
        }
        let subject = self.table.iter_active().find(|member| member.swim.identity.addr == to);
        let subject = subject.map(|member| member.swim.identity.id);
        // Anybody can forge a refusal: what was false a moment ago is not looked into again at once.
        if let Some(id) = subject.filter(|id| !self.table.is_refused_falsely(*id, now.mono_us)) {
            let is_probed = self.ping.is_some_and(|(_, target, _)| target == id);
            self.give_up_probe(now, id);
            if !is_on_errand || is_probed || self.inquiries.open.contains_key(&id) {
                self.inquire(now, id, None, true);
            }
        }
    }

    /// Tells a member that somebody holds its present life for down.
    pub(super) fn warn(&mut self, member: Identity) {
        self.check(member, &Check::HeldDown { generation: member.generation });
    }
}

/// Has the subject answered the doubt already, to others? Its word may be slower on the way to the asker than the end of
/// the round: across a bridge it is a matter of luck.
fn has_refuted(known: &Swim, doubt: Option<Doubt>) -> bool {
    known.liveness == Liveness::Alive
        && doubt
            .is_some_and(|doubt| known.identity.generation == doubt.generation && known.incarnation > doubt.incarnation)
}
