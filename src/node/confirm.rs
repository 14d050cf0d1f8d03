//! Who has it? Waiting until all members have certain decisions, or a version of a table, without anybody sleeping for
//! long enough.
//!
//! Each member that is not gone is asked by datagram, in rounds, until it answers that it has them or something later;
//! one that is reached over TCP only is asked there. Whoever goes down, leaves or is removed meanwhile is waited for no
//! more, nor is, about the endpoints of a network, whoever is not attached to it.

use std::collections::BTreeSet;

use super::timers::Timer;
use super::{Effect, Event, Identity, Node, Now, Purpose};
use crate::node::stats::Kind;
use crate::record::{NodeId, Status};
use crate::wire::datagram::{Confirm, Writer};
use crate::wire::decision::Have;
use crate::wire::exchange::Request;
use crate::wire::table::{Scope, Sight, Sighting, TableRequest};

/// Questions that may be open at once: one more is not asked.
pub const WAITS_MAX: usize = 64;
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

/// What is asked for.
#[derive(Debug, Clone)]
enum Question {
    Decisions(Vec<Have>),
    Table(Sight),
}

/// One open question.
#[derive(Debug)]
pub(super) struct Wait {
    question: Question,
    pending: BTreeSet<NodeId>,
    confirmed: BTreeSet<NodeId>,
    asked_up_to: Option<NodeId>,
    again_us: u64,
}

impl Node {
    /// Begins to ask all members whether they have `have` or something later, and names the question.
    pub fn handle_confirm(&mut self, now: Now, have: Vec<Have>) -> Option<u32> {
        self.ask_all(now, Question::Decisions(have))
    }

    /// Begins to ask all members whom it concerns whether they have that version of a table or a later one, and names the
    /// question.
    pub fn handle_sighting(&mut self, now: Now, sight: Sight) -> Option<u32> {
        self.ask_all(now, Question::Table(sight))
    }

    fn ask_all(&mut self, now: Now, question: Question) -> Option<u32> {
        if self.waits.len() >= WAITS_MAX {
            return None;
        }
        let nonce = self.inquiries.next_nonce();
        let pending = self.awaited(&question).collect();
        let confirmed = BTreeSet::new();
        self.waits.insert(nonce, Wait { question, pending, confirmed, asked_up_to: None, again_us: FIRST_US });
        self.timers.submit(now.mono_us + FIRST_US, Timer::Confirm(nonce));
        Some(nonce)
    }

    /// The question is not of interest any more.
    pub fn forget_confirm(&mut self, nonce: u32) {
        self.waits.remove(&nonce);
    }

    /// Members that have not answered yet that they have it; none: there is no such question.
    pub fn unconfirmed(&self, nonce: u32) -> Option<Vec<NodeId>> {
        let wait = self.waits.get(&nonce)?;
        Some(self.awaited(&wait.question).filter(|id| wait.pending.contains(id)).collect())
    }

    /// Members that have answered that they have it; none: there is no such question.
    pub fn confirmed_by(&self, nonce: u32) -> Option<Vec<NodeId>> {
        Some(self.waits.get(&nonce)?.confirmed.iter().copied().collect())
    }

    /// Whose answer counts.
    fn awaited(&self, question: &Question) -> impl Iterator<Item = NodeId> {
        let network = match question {
            Question::Table(Sight { scope: Scope::Network(network), .. }) => Some(*network),
            Question::Table(_) | Question::Decisions(_) => None,
        };
        let tables = &self.holdings.tables;
        self.table
            .iter()
            .filter(|member| matches!(member.status, Status::Ready | Status::Suspect))
            .map(|member| member.swim.identity.id)
            .filter(move |id| network.is_none_or(|network| tables.is_attached(network, *id)))
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
        let question = wait.question.clone();
        for id in batch {
            self.ask_to_confirm(id, nonce, &question);
        }
        self.timers.submit(now.mono_us + after_us, Timer::Confirm(nonce));
    }

    fn ask_to_confirm(&mut self, id: NodeId, nonce: u32, question: &Question) {
        let Some(member) = self.table.get(id) else { return };
        let to = member.swim.identity;
        let by_stream = |request: Request| (to.addr, Purpose::Confirm(nonce), request);
        let (addr, purpose, request) = match question {
            Question::Decisions(have) if member.tcp_only || have.len() > HAVES_MAX => {
                by_stream(Request::Confirm { have: have.clone() })
            }
            Question::Table(sight) if member.tcp_only => by_stream(Request::Tables(TableRequest::Seen(*sight))),
            Question::Decisions(have) => return self.send_confirm(to, &Confirm::Ask { nonce, have: have.clone() }),
            Question::Table(sight) => return self.send_sighting(to, &Sighting::Ask { nonce, sight: *sight }),
        };
        self.exchange(addr, Some(id), purpose, &request, PATIENCE_MS);
    }

    fn send_sighting(&mut self, to: Identity, sighting: &Sighting) {
        let mut writer = Writer::new(self.config.payload_bytes_max());
        writer.sighting(sighting);
        self.send_payload(to, Kind::Confirm, writer);
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

    pub(super) fn sighting_heard(&mut self, now: Now, sender: NodeId, sighting: Sighting) {
        match sighting {
            Sighting::Ask { nonce, sight } => {
                let tables = &self.holdings.tables;
                let answer = if !tables.holds(sight.scope) {
                    Sighting::Elsewhere { nonce }
                } else if tables.has_seen(sight.scope, sight.owner, sight.version)
                    || self.config.has(super::Mutant::YesMan)
                {
                    Sighting::Seen { nonce }
                } else {
                    return self.lack(now, sender, sight, false);
                };
                if let Some(to) = self.table.get(sender).map(|member| member.swim.identity) {
                    self.send_sighting(to, &answer);
                }
            }
            Sighting::Seen { nonce } => self.confirmed(sender, nonce),
            Sighting::Elsewhere { nonce } => self.excused(sender, nonce),
        }
    }

    pub(super) fn confirmed(&mut self, by: NodeId, nonce: u32) {
        if let Some(wait) = self.waits.get_mut(&nonce)
            && wait.pending.contains(&by)
        {
            wait.confirmed.insert(by);
            self.excused(by, nonce);
        }
    }

    /// Nobody waits for that member any more.
    fn excused(&mut self, by: NodeId, nonce: u32) {
        let Some(wait) = self.waits.get_mut(&nonce) else { return };
        if wait.pending.remove(&by) && self.unconfirmed(nonce).is_some_and(|left| left.is_empty()) {
            self.effect(Effect::Event(Event::Confirmed { nonce }));
        }
    }
}
