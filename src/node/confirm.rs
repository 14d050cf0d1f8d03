//! Who has it? Waiting until all members have certain decisions, without anybody sleeping for long enough.
//!
//! Each member that is not gone is asked by datagram, in rounds, until it answers that it has them or something later;
//! one that is reached over TCP only is asked there. Whoever goes down, leaves or is removed meanwhile is waited for no
//! more.

use std::collections::BTreeSet;

use super::timers::Timer;
use super::{Effect, Event, Identity, Node, Now, Purpose};
use crate::node::stats::Kind;
use crate::record::{NodeId, Status};
use crate::wire::datagram::{Confirm, Writer};
use crate::wire::decision::Have;
use crate::wire::exchange::Request;

/// Questions that may be open at once; the oldest goes.
const WAITS_MAX: usize = 64;
/// Members asked in one round.
const ASKED_AT_ONCE: usize = 128;
/// Time between two rounds while some have not been asked yet, in microseconds.
const ROUND_US: u64 = 20_000;
/// Time before the first round, in microseconds: what is asked for is on its way.
const FIRST_US: u64 = 5_000;
/// Longest time between two rounds when all have been asked, in microseconds; it begins with [`FIRST_US`] and doubles.
const AGAIN_US: u64 = 320_000;
/// How long the answer over TCP may take, in milliseconds.
const PATIENCE_MS: u64 = 3_000;
/// Decisions in one datagram's question, at most: about more the question goes over TCP.
const HAVES_MAX: usize = 24;

/// One open question.
#[derive(Debug)]
pub(super) struct Wait {
    have: Vec<Have>,
    pending: BTreeSet<NodeId>,
    asked_up_to: Option<NodeId>,
    again_us: u64,
}

impl Node {
    /// Begins to ask all members whether they have `have` or something later, and names the question.
    pub fn handle_confirm(&mut self, now: Now, have: Vec<Have>) -> u32 {
        while self.waits.len() >= WAITS_MAX {
            self.waits.pop_first();
        }
        let nonce = self.inquiries.next_nonce();
        let pending = self.awaited().collect();
        self.waits.insert(nonce, Wait { have, pending, asked_up_to: None, again_us: FIRST_US });
        self.timers.submit(now.mono_us + FIRST_US, Timer::Confirm(nonce));
        nonce
    }

    /// The question is not of interest any more.
    pub fn forget_confirm(&mut self, nonce: u32) {
        self.waits.remove(&nonce);
    }

    /// Members that have not answered yet that they have it; none: there is no such question.
    pub fn unconfirmed(&self, nonce: u32) -> Option<Vec<NodeId>> {
        let wait = self.waits.get(&nonce)?;
        Some(self.awaited().filter(|id| wait.pending.contains(id)).collect())
    }

    fn awaited(&self) -> impl Iterator<Item = NodeId> {
        self.table
            .iter()
            .filter(|member| matches!(member.status, Status::Ready | Status::Suspect))
            .map(|member| member.swim.identity.id)
    }

    pub(super) fn confirm_timer(&mut self, now: Now, nonce: u32) {
        let Some(pending) = self.unconfirmed(nonce) else { return };
        let Some(wait) = self.waits.get_mut(&nonce) else { return };
        if pending.is_empty() {
            return self.effect(Effect::Event(Event::Confirmed { nonce }));
        }
        let from = wait.asked_up_to;
        let batch: Vec<_> =
            pending.iter().copied().filter(|id| from.is_none_or(|from| *id > from)).take(ASKED_AT_ONCE).collect();
        wait.asked_up_to = batch.last().copied();
        let is_round_over = batch.len() < ASKED_AT_ONCE;
        let after_us = if is_round_over {
            wait.asked_up_to = None;
            wait.again_us = (wait.again_us * 2).min(AGAIN_US);
            wait.again_us
        } else {
            ROUND_US
        };
        let have = wait.have.clone();
        for id in batch {
            self.ask_to_confirm(id, nonce, &have);
        }
        self.timers.submit(now.mono_us + after_us, Timer::Confirm(nonce));
    }

    fn ask_to_confirm(&mut self, id: NodeId, nonce: u32, have: &[Have]) {
        let Some(member) = self.table.get(id) else { return };
        let to = member.swim.identity;
        if member.tcp_only || have.len() > HAVES_MAX {
            let request = Request::Confirm { have: have.to_vec() };
            self.exchange(to.addr, Some(id), Purpose::Confirm(nonce), &request, PATIENCE_MS);
            return;
        }
        self.send_confirm(to, &Confirm::Ask { nonce, have: have.to_vec() });
    }

    fn send_confirm(&mut self, to: Identity, confirm: &Confirm) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        writer.confirm(confirm);
        self.send_payload(to, Kind::Confirm, writer);
    }

    /// Has this node all of them, or something later?
    pub(super) fn has_all(&self, have: &[Have]) -> bool {
        self.config.has(super::Mutant::YesMan)
            || have
                .iter()
                .all(|have| self.decisions.by_hash(have.slot).is_some_and(|held| held.decision.stamp >= have.stamp))
    }

    pub(super) fn confirm_heard(&mut self, sender: NodeId, confirm: &Confirm) {
        match confirm {
            Confirm::Ask { nonce, have } => {
                if self.has_all(have)
                    && let Some(to) = self.table.get(sender).map(|member| member.swim.identity)
                {
                    self.send_confirm(to, &Confirm::Have { nonce: *nonce });
                }
            }
            Confirm::Have { nonce } => self.confirmed(sender, *nonce),
        }
    }

    pub(super) fn confirmed(&mut self, by: NodeId, nonce: u32) {
        let Some(wait) = self.waits.get_mut(&nonce) else { return };
        if wait.pending.remove(&by) && self.unconfirmed(nonce).is_some_and(|left| left.is_empty()) {
            self.effect(Effect::Event(Event::Confirmed { nonce }));
        }
    }
}
