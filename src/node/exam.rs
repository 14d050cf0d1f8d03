//! Examinations: how this node reaches other members and is reached by them, over UDP and TCP, for `doctor`.
//!
//! The examiner sends probes, a short one and some as large as datagrams may be, and asks the same over TLS. The examined
//! node echoes what arrives, calls its examiner over TCP, and tells over both ways what it has seen; asked over TLS, it
//! probes the way back too. So a way that is closed in one direction is told from one that is closed in both.
//!
//! All of it is bounded: one examination of this node's at a time, so many members at once, so many rounds for each; an
//! echo is no larger than its probe and one short datagram; few examiners are called at once. Not here: what the findings
//! mean (`agent::doctor`).

use std::collections::{BTreeMap, VecDeque};

use super::identity::Identity;
use super::stats::Kind;
use super::timers::Timer;
use super::{Effect, Event, ExchangeError, Node, Now, Purpose};
use crate::record::NodeId;
use crate::wire::datagram::Writer;
use crate::wire::exam::{Call, Exam, View};
use crate::wire::exchange::{EXCHANGE_VERSION, Reply, Request};
use crate::wire::frame::{FRAME_VERSION, OVERHEAD_BYTES};

/// Members examined at once, at most: each takes one connection.
const AT_ONCE: usize = 16;
/// Rounds of probes for each member.
const ROUNDS: u8 = 10;
/// Rounds in which the member is asked over TCP: at once, and again for what is still unknown.
const ASKING_ROUNDS: [u8; 3] = [0, 4, 8];
/// Sizes of probes below the largest, in bytes: the last is what any path carries.
const SIZES: [u16; 9] = [4_000, 1_400, 1_200, 1_100, 1_000, 900, 800, 700, 576];
/// A probe of this size or less is echoed once, in bytes.
const SHORT_BYTES: usize = 256;
/// The round of what nobody has asked for over UDP.
const UNASKED: u8 = u8::MAX;
/// Examiners remembered; the one that was heard of longest ago goes.
const EXAMINERS_MAX: usize = 64;
/// Examiners called over TCP at once, at most.
const CALLS_MAX: usize = 8;
/// Time between two calls of one examiner, in microseconds.
const CALL_PAUSE_US: u64 = 500_000;
/// How long an examiner may take to answer a call, in milliseconds.
const CALL_PATIENCE_MS: u64 = 2_000;

/// What was found about the way to a member and back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The largest datagram that it has got, in bytes; 0: none, as far as it could say so.
    pub heard_there: u16,
    /// The largest datagram that has come back, in bytes; 0: none.
    pub heard_here: u16,
    /// Some datagram of it has come here meanwhile.
    pub speaks: bool,
    /// What came of asking it over TCP; none: nothing in time.
    pub call: Option<Result<(), ExchangeError>>,
    /// Its wall clock is ahead of this one's by so much, and that is known to within so much, in milliseconds.
    pub clock_ms: Option<(i64, u64)>,
    /// The shortest round trip of a datagram, in microseconds.
    pub rtt_us: Option<u64>,
    /// What it says itself; none: it never answered.
    pub view: Option<View>,
}

impl Found {
    fn is_complete(&self, full: u16) -> bool {
        let is_called = self.view.as_ref().is_some_and(|view| !matches!(view.call, Call::NotTried | Call::Pending));
        self.heard_there >= full && self.heard_here >= full && self.call == Some(Ok(())) && is_called
    }

    /// Takes in what the member says. Of two words on one call the final one counts, in whatever order they came.
    fn says(&mut self, view: &View) {
        self.heard_there = self.heard_there.max(view.heard_bytes);
        let known = self.view.as_ref().map(|known| known.call).filter(|call| !matches!(call, Call::NotTried));
        let call = match (known, view.call) {
            (Some(known), Call::NotTried | Call::Pending) => known,
            (_, new) => new,
        };
        self.view = Some(View { call, ..view.clone() });
    }

    fn compare_clocks(&mut self, now: Now, unix_ms: u64, took_us: u64) {
        let within_ms = took_us.div_ceil(2_000);
        if self.clock_ms.is_none_or(|(_, known)| within_ms < known) {
            let here_ms = now.unix_ms.saturating_sub(within_ms);
            self.clock_ms = Some((unix_ms.cast_signed().saturating_sub_unsigned(here_ms), within_ms));
        }
    }
}

/// A member that is examined now.
#[derive(Debug)]
struct Subject {
    to: Identity,
    began_us: u64,
    round: u8,
    sent_us: [u64; ROUNDS as usize],
    asked_us: Option<u64>,
    found: Found,
}

/// This node's own examination.
#[derive(Debug)]
struct Examination {
    nonce: u32,
    window_us: u64,
    waiting: VecDeque<NodeId>,
    open: BTreeMap<NodeId, Subject>,
    found: BTreeMap<NodeId, Found>,
}

impl Examination {
    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }
}

/// Somebody who examines this node.
#[derive(Debug)]
struct Examiner {
    nonce: u32,
    heard: u16,
    heard_us: u64,
    call: Call,
    called_us: Option<u64>,
}

/// This node's examination, and those of it.
#[derive(Debug, Default)]
pub(super) struct Exams {
    own: Option<Examination>,
    examiners: BTreeMap<NodeId, Examiner>,
}

impl Node {
    // ---- as examiner ---------------------------------------------------------------------------------------------

    pub(super) fn begin_examination(&mut self, now: Now, nonce: u32, nodes: Vec<NodeId>, window_ms: u64) {
        if self.exams.own.as_ref().is_some_and(|own| !own.is_over()) {
            return;
        }
        let window_us = window_ms.max(1) * 1_000;
        let waiting = nodes.into();
        let own = Examination { nonce, window_us, waiting, open: BTreeMap::new(), found: BTreeMap::new() };
        self.exams.own = Some(own);
        self.exam_timer(now, nonce);
    }

    /// What has been found so far, and whether that is all; none: there is no such examination.
    pub fn examination(&self, nonce: u32) -> Option<(BTreeMap<NodeId, Found>, bool)> {
        let own = self.exams.own.as_ref().filter(|own| own.nonce == nonce)?;
        Some((own.found.clone(), own.is_over()))
    }

    /// The keys of this node: the one that seals, and all that open.
    pub fn ring(&self) -> (u8, Vec<u8>) {
        let ring = self.channel.keyring();
        (ring.primary(), ring.keys().map(|(id, _)| id).collect())
    }

    /// The largest datagram, in bytes.
    pub fn datagram_bytes_max(&self) -> u16 {
        u16::try_from(self.config.datagram_bytes_max).unwrap_or(u16::MAX)
    }

    pub(super) fn exam_timer(&mut self, now: Now, nonce: u32) {
        let Some(own) = self.exams.own.as_mut().filter(|own| own.nonce == nonce) else { return };
        let tick_us = own.window_us / u64::from(ROUNDS);
        let open: Vec<_> = own.open.keys().copied().collect();
        for id in open {
            self.exam_round(now, id);
        }
        self.examine_next(now);
        if self.exams.own.as_ref().is_some_and(|own| !own.is_over()) {
            self.timers.submit(now.mono_us + tick_us.max(1_000), Timer::Exam(nonce));
        }
    }

    /// Turns to those that wait, as many as may be examined at once.
    fn examine_next(&mut self, now: Now) {
        loop {
            let Some(own) = &mut self.exams.own else { return };
            if own.open.len() >= AT_ONCE {
                return;
            }
            let Some(id) = own.waiting.pop_front() else { break };
            let Some(to) = self.table.get(id).map(|member| member.swim.identity) else { continue };
            let subject = Subject {
                to,
                began_us: now.mono_us,
                round: 0,
                sent_us: [0; ROUNDS as usize],
                asked_us: None,
                found: Found::default(),
            };
            own.open.insert(id, subject);
            self.exam_round(now, id);
        }
        if let Some(Examination { nonce, .. }) = self.exams.own.as_ref().filter(|own| own.is_over()) {
            let nonce = *nonce;
            self.effect(Effect::Event(Event::Examined { nonce }));
        }
    }

    /// Asks a member for what is still unknown.
    fn exam_round(&mut self, now: Now, id: NodeId) {
        let full = self.datagram_bytes_max();
        let Some(own) = &mut self.exams.own else { return };
        let (nonce, window_us) = (own.nonce, own.window_us);
        let Some(subject) = own.open.get_mut(&id) else { return };
        let Some(sent_us) = subject.sent_us.get_mut(usize::from(subject.round)) else {
            return self.exam_over(now, id);
        };
        *sent_us = now.mono_us;
        let (to, round) = (subject.to, subject.round);
        subject.round += 1;
        let known = subject.found.heard_there.min(subject.found.heard_here);
        let asks = ASKING_ROUNDS.contains(&round) && subject.asked_us.is_none() && !subject.is_refused();
        self.exam_send(to, &Exam::Probe { nonce, round }, 0);
        let smaller = SIZES.into_iter().filter(|size| round % 2 == 1 && *size < full);
        for size in std::iter::once(full).chain(smaller).filter(|size| *size > known) {
            self.exam_send(to, &Exam::Probe { nonce, round }, size);
        }
        let patience_ms = window_us / 1_000 * 4 / 5;
        if asks
            && self.exchange(to.addr, Some(id), Purpose::Exam(id), &Request::Examine { nonce }, patience_ms)
            && let Some(subject) = self.exams.own.as_mut().and_then(|own| own.open.get_mut(&id))
        {
            subject.asked_us = Some(now.mono_us);
        }
    }

    fn exam_over(&mut self, now: Now, id: NodeId) {
        let heard_us = self.table.get(id).map_or(0, |member| member.heard_us);
        if let Some(own) = &mut self.exams.own
            && let Some(Subject { began_us, mut found, .. }) = own.open.remove(&id)
        {
            found.speaks = heard_us > began_us;
            own.found.insert(id, found);
            self.examine_next(now);
        }
    }

    fn exam_end_if_complete(&mut self, now: Now, id: NodeId) {
        let full = self.datagram_bytes_max();
        let subject = self.exams.own.as_ref().and_then(|own| own.open.get(&id));
        if subject.is_some_and(|subject| subject.found.is_complete(full)) {
            self.exam_over(now, id);
        }
    }

    fn echoed(&mut self, now: Now, sender: NodeId, (nonce, round): (u32, u8), view: &View, len: usize) {
        let Some(own) = self.exams.own.as_mut().filter(|own| own.nonce == nonce) else { return };
        let Some(subject) = own.open.get_mut(&sender) else { return };
        let found = &mut subject.found;
        found.heard_here = found.heard_here.max(u16::try_from(len).unwrap_or(u16::MAX));
        found.says(view);
        if let Some(sent_us) = subject.sent_us.get(usize::from(round)).filter(|at| **at > 0) {
            let took_us = now.mono_us.saturating_sub(*sent_us);
            found.rtt_us = Some(found.rtt_us.map_or(took_us, |known| known.min(took_us)));
            found.compare_clocks(now, view.unix_ms, took_us);
        }
        self.exam_end_if_complete(now, sender);
    }

    /// The examined node has answered over TCP or not, or the examiner has.
    pub(super) fn exam_answered(
        &mut self,
        now: Now,
        id: NodeId,
        purpose: Purpose,
        outcome: Result<Option<Reply>, ExchangeError>,
    ) {
        if outcome.is_ok() {
            self.heard(now);
        }
        if let Ok(Some(Reply::Removed(decision))) = outcome {
            return self.told_of_removal(now, decision);
        }
        if purpose == Purpose::ExamCall(id) {
            return self.examiner_answered(now, id, outcome.map(|_| ()));
        }
        let subject = self.exams.own.as_mut().and_then(|own| own.open.get_mut(&id));
        let Some((subject, asked_us)) = subject.and_then(|s| s.asked_us.take().map(|asked_us| (s, asked_us))) else {
            return;
        };
        // What worked once works.
        if subject.found.call != Some(Ok(())) {
            subject.found.call = Some(outcome.as_ref().map(|_| ()).map_err(|error| *error));
        }
        if let Ok(Some(Reply::Examined(view))) = outcome {
            subject.found.says(&view);
            subject.found.compare_clocks(now, view.unix_ms, now.mono_us.saturating_sub(asked_us));
        }
        self.exam_end_if_complete(now, id);
    }

    // ---- as the one examined -------------------------------------------------------------------------------------

    pub(super) fn exam_heard(&mut self, now: Now, sender: NodeId, exam: &Exam, len: usize) {
        match exam {
            Exam::Probe { nonce, round } => {
                let Some(to) = self.table.get(sender).map(|member| member.swim.identity) else { return };
                self.meet_examiner(now, to, *nonce, u16::try_from(len).unwrap_or(u16::MAX));
                self.echo(now, to, *round, 0);
                if let Ok(size) = u16::try_from(len)
                    && len > SHORT_BYTES
                {
                    self.echo(now, to, *round, size);
                }
            }
            Exam::Echo { nonce, round, view } => self.echoed(now, sender, (*nonce, *round), view, len),
        }
    }

    /// Asked over TLS: the way back is probed, and what has been seen is told.
    pub(super) fn examined(&mut self, now: Now, examiner: NodeId, nonce: u32) -> View {
        if let Some(to) = self.table.get(examiner).map(|member| member.swim.identity) {
            self.meet_examiner(now, to, nonce, 0);
            let full = self.datagram_bytes_max();
            self.echo(now, to, UNASKED, 0);
            for size in std::iter::once(full).chain(SIZES.into_iter().filter(|size| *size < full)) {
                self.echo(now, to, UNASKED, size);
            }
        }
        self.exam_view(now, examiner)
    }

    fn meet_examiner(&mut self, now: Now, to: Identity, nonce: u32, heard: u16) {
        let examiners = &mut self.exams.examiners;
        if !examiners.contains_key(&to.id) && examiners.len() >= EXAMINERS_MAX {
            let oldest = examiners.iter().min_by_key(|(_, examiner)| examiner.heard_us).map(|(id, _)| *id);
            oldest.and_then(|id| examiners.remove(&id));
        }
        let calling = examiners.values().filter(|examiner| examiner.call == Call::Pending).count();
        let new = Examiner { nonce, heard: 0, heard_us: 0, call: Call::NotTried, called_us: None };
        let examiner = examiners.entry(to.id).or_insert(new);
        if examiner.nonce != nonce {
            // A call that is under way serves this one too.
            let call = if examiner.call == Call::Pending { Call::Pending } else { Call::NotTried };
            *examiner = Examiner { nonce, heard: 0, call, ..*examiner };
        }
        examiner.heard = examiner.heard.max(heard);
        examiner.heard_us = now.mono_us;
        let may_call = examiner.called_us.is_none_or(|at| now.mono_us >= at + CALL_PAUSE_US);
        if examiner.call == Call::NotTried
            && may_call
            && calling < CALLS_MAX
            && self.exchange(to.addr, Some(to.id), Purpose::ExamCall(to.id), &Request::Alive, CALL_PATIENCE_MS)
            && let Some(examiner) = self.exams.examiners.get_mut(&to.id)
        {
            examiner.call = Call::Pending;
            examiner.called_us = Some(now.mono_us);
        }
    }

    fn examiner_answered(&mut self, now: Now, id: NodeId, outcome: Result<(), ExchangeError>) {
        let Some(examiner) = self.exams.examiners.get_mut(&id) else { return };
        examiner.call = match outcome {
            Ok(()) => Call::Answered,
            Err(ExchangeError::Refused) => Call::Refused,
            Err(ExchangeError::Unreachable) => Call::Unreachable,
            Err(ExchangeError::Stalled) => Call::Stalled,
            Err(ExchangeError::WrongPeer | ExchangeError::Broken) => Call::Broken,
        };
        if let Some(to) = self.table.get(id).map(|member| member.swim.identity) {
            self.echo(now, to, UNASKED, 0);
        }
    }

    /// What this node has seen of an examiner.
    fn exam_view(&self, now: Now, examiner: NodeId) -> View {
        let seen = self.exams.examiners.get(&examiner);
        let (key, keys) = self.ring();
        View {
            heard_bytes: seen.map_or(0, |seen| seen.heard),
            call: seen.map_or(Call::NotTried, |seen| seen.call),
            unix_ms: now.unix_ms,
            frame_version: FRAME_VERSION,
            exchange_version: EXCHANGE_VERSION,
            key,
            keys,
        }
    }

    fn echo(&mut self, now: Now, to: Identity, round: u8, size: u16) {
        let Some(nonce) = self.exams.examiners.get(&to.id).map(|examiner| examiner.nonce) else { return };
        let view = self.exam_view(now, to.id);
        self.exam_send(to, &Exam::Echo { nonce, round, view }, size);
    }

    /// Sends a datagram of that size, or of the size that it takes if that is larger.
    fn exam_send(&mut self, to: Identity, exam: &Exam, size: u16) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        if writer.exam(exam, usize::from(size).saturating_sub(OVERHEAD_BYTES)) {
            self.send_payload(to, Kind::Check, writer);
        }
    }
}

impl Subject {
    /// Asking again would draw the same answer.
    fn is_refused(&self) -> bool {
        matches!(self.found.call, Some(Err(ExchangeError::Unreachable | ExchangeError::WrongPeer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_at_the_middle_of_the_shortest_round_trip() {
        let mut found = Found::default();
        let now = Now { mono_us: 0, unix_ms: 1_000_000 };
        // Asked at 999,000, answered at 999,500 by a clock that is 20 s ahead.
        found.compare_clocks(now, 999_500 + 20_000, 1_000_000);
        assert_eq!(found.clock_ms, Some((20_000, 500)));
        found.compare_clocks(now, 999_999 - 20_000, 2_000);
        assert_eq!(found.clock_ms, Some((-20_000, 1)));
        found.compare_clocks(now, 5, 3_000_000);
        assert_eq!(found.clock_ms, Some((-20_000, 1)), "a longer one says less");
        found.compare_clocks(now, u64::MAX, 0);
        assert!(found.clock_ms.is_some(), "whatever is said");
    }

    #[test]
    fn the_outcome_of_a_call_is_not_taken_back() {
        let view = |call| View {
            heard_bytes: 0,
            call,
            unix_ms: 0,
            frame_version: 1,
            exchange_version: 1,
            key: 1,
            keys: vec![1],
        };
        let mut found = Found::default();
        for (said, expected) in [
            (Call::NotTried, Call::NotTried),
            (Call::Pending, Call::Pending),
            (Call::Refused, Call::Refused),
            (Call::Pending, Call::Refused),
            (Call::NotTried, Call::Refused),
            (Call::Answered, Call::Answered),
        ] {
            found.says(&view(said));
            assert_eq!(found.view.as_ref().map(|view| view.call), Some(expected), "{said:?}");
        }
    }
}
