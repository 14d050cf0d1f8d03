//! Decisions on their way: made here, taken in from others, passed on, compared, and asked for.
//!
//! A decision made here is first signed ([`Node::handle_orders`]), then stored by the caller, then taken in
//! ([`Command::Decided`](super::Command::Decided)) like anybody's: so nothing is told that a crash could undo. What is taken
//! in is kept ([`Effect::Keep`]), told to listeners, and passed on as a rumour of its own; what rumours miss is found by
//! comparing (`sync`).
//!
//! Not here: which decisions stand (`decisions`).

use std::sync::Arc;

use super::decisions::{DECISIONS_MAX, Held, Outcome, Refused};
use super::spread::Spread;
use super::timers::Timer;
use super::{Cause, Effect, Event, Node, Now, Peer, Purpose};
use crate::record::decision::{
    DRIFT_MS_MAX, Decided, Decision, DecisionKey, Hlc, LABELS_MAX, Register, Slot, Stamp, Subject, Verdict,
};
use crate::record::{NodeId, RecordError, Role, Status};
use crate::wire::datagram::Writer;
use crate::wire::decision::{Batch, Have, SignedDecision, slot_hash};
use crate::wire::exchange::{Digest, Liveness, Reply, Request};

/// Decisions in one message between two nodes, at most: each costs its receiver two signatures, some 100 µs.
const DECISIONS_AT_ONCE: usize = 128;
/// Datagrams full of decisions to one node in one round of rumours.
const DATAGRAMS_AT_ONCE: usize = 4;
/// How long such an exchange may take, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// This node's clock may be off by this much before it may not decide any more, in milliseconds: half of what others
/// accept, as theirs may be off too.
const OWN_DRIFT_MS_MAX: u64 = DRIFT_MS_MAX / 2;

/// Something to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// About whom.
    pub subject: Subject,
    /// What.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<String>,
    /// Until when it is to be carried out, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
}

/// An order was refused. Nothing was decided, not even the others that were given with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A value breaks a limit.
    #[error(transparent)]
    Invalid(#[from] RecordError),
    /// Only managers decide that.
    #[error("this node is a worker: only managers decide about nodes; ask on a manager (see 'gossipctl members')")]
    NotManager,
    /// A worker may pause or drain itself, and no more.
    #[error("this node is a worker: it may pause or drain itself, and only a manager makes it active again")]
    NotModest,
    /// There is no such node.
    #[error("there is no node {0}")]
    Unknown(NodeId),
    /// The node was removed.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// It is the last manager.
    #[error(
        "node {0} is the last manager: without one nobody can join the cluster nor decide anything; promote another node first"
    )]
    LastManager(NodeId),
    /// It has too many labels.
    #[error("node {0} would have more than {LABELS_MAX} labels")]
    Labels(NodeId),
    /// This node's clock is wrong.
    #[error(
        "this node's clock is {ahead_s} s ahead of the clocks of most others (negative: behind): nobody would accept its decisions; set the clock"
    )]
    Clock {
        /// By how much.
        ahead_s: i64,
    },
    /// A later decision is in force, from a clock that is ahead.
    #[error(
        "a decision about it was made by a clock that is ahead of this one's; try again in some minutes, and check the clocks"
    )]
    Overtaken,
    /// There is no room for more.
    #[error("there are {DECISIONS_MAX} decisions already, the most that a cluster keeps")]
    Full,
}

impl Node {
    // ---- making ------------------------------------------------------------------------------------------------------

    /// Signs decisions. They are in force nowhere yet: store them, then give them back with
    /// [`Command::Decided`](super::Command::Decided).
    ///
    /// # Errors
    /// [`OrderError`]: the first order that is refused; then none is signed.
    pub fn handle_orders(&mut self, now: Now, orders: Vec<Order>) -> Result<Vec<SignedDecision>, OrderError> {
        let off_ms = self.health.clock_off_ms();
        if off_ms.unsigned_abs() > OWN_DRIFT_MS_MAX {
            return Err(OrderError::Clock { ahead_s: -off_ms / 1_000 });
        }
        let mut decisions = Vec::with_capacity(orders.len());
        let mut managers = self.manager_ids();
        for Order { subject, verdict, reason, deadline_ms } in orders {
            let seen = self.decisions.newest(self.fair_ms(now)).max(self.decided_at);
            let seen = if self.config.has(super::Mutant::WallClock) { Hlc::default() } else { seen };
            let at = seen.next(now.unix_ms);
            let stamp = Stamp { at, signer: self.identity().id };
            let decision = Decision { subject, verdict, reason, deadline_ms, stamp };
            self.check_order(now, &decision, &mut managers)?;
            self.decided_at = at;
            decisions.push(decision);
        }
        self.check_labels(&decisions)?;
        let sign = if self.config.is_later() { SignedDecision::sign_as_later } else { SignedDecision::sign };
        Ok(decisions.iter().map(|decision| sign(decision, self.cluster, &self.credential)).collect())
    }

    fn check_order(&self, now: Now, decision: &Decision, managers: &mut Vec<NodeId>) -> Result<(), OrderError> {
        decision.validate()?;
        let me = self.identity().id;
        let certified = self.credential.certified();
        if !self.decisions.entitles(certified, decision) {
            let is_own = matches!(decision.verdict, Verdict::Availability(_)) && decision.subject == Subject::Node(me);
            return Err(if is_own { OrderError::NotModest } else { OrderError::NotManager });
        }
        if let Subject::Node(node) = decision.subject {
            if self.decisions.removal(node).is_some() {
                return Err(OrderError::Removed(node));
            }
            if node != me && self.table.get(node).is_none() {
                return Err(OrderError::Unknown(node));
            }
            if matches!(decision.verdict, Verdict::Removed | Verdict::Role(Role::Worker)) && managers.contains(&node) {
                managers.retain(|manager| *manager != node);
                if managers.is_empty() {
                    return Err(OrderError::LastManager(node));
                }
            }
        }
        self.decisions.judge(self.fair_ms(now), decision).map_err(|refused| match refused {
            Refused::Full => OrderError::Full,
            _ => OrderError::Overtaken,
        })
    }

    fn check_labels(&self, decisions: &[Decision]) -> Result<(), OrderError> {
        for decision in decisions {
            let Subject::Node(node) = decision.subject else { continue };
            let mut keys: std::collections::BTreeSet<_> = self.decided(node).labels.keys().cloned().collect();
            for other in decisions.iter().filter(|other| other.subject == decision.subject) {
                match &other.verdict {
                    Verdict::Label(key, Some(_)) => keys.insert(key.clone()),
                    Verdict::Label(key, None) => keys.remove(key),
                    _ => continue,
                };
            }
            if keys.len() > LABELS_MAX {
                return Err(OrderError::Labels(node));
            }
        }
        Ok(())
    }

    /// Managers that are members, this node among them.
    fn manager_ids(&self) -> Vec<NodeId> {
        let others =
            self.table.iter().filter(|member| member.status != Status::Left && member.role() == Some(Role::Manager));
        let own = self.own_member();
        let own = (own.role() == Some(Role::Manager)).then_some(own.swim.identity.id);
        others.map(|member| member.swim.identity.id).chain(own).collect()
    }

    // ---- reading -----------------------------------------------------------------------------------------------------

    /// How many decisions are kept.
    pub fn decision_count(&self) -> usize {
        self.decisions.len()
    }

    /// All decisions that stand.
    pub fn decisions(&self) -> Vec<Arc<Decision>> {
        self.decisions.standing().cloned().collect()
    }

    /// The decision that stands in a register.
    pub fn decision(&self, key: &DecisionKey) -> Option<Arc<Decision>> {
        self.decisions.get(key).map(|held| Arc::clone(&held.decision))
    }

    /// What was decided about a node.
    pub fn decided(&self, node: NodeId) -> Arc<Decided> {
        self.table.decided(node)
    }

    /// The decision that made this node a member no more.
    pub fn removal(&self, node: NodeId) -> Option<Arc<SignedDecision>> {
        self.decisions.removal(node).map(|held| Arc::clone(&held.signed))
    }

    /// The wall clock as most others have it, in milliseconds since the Unix epoch.
    pub(super) fn fair_ms(&self, now: Now) -> u64 {
        now.unix_ms.saturating_add_signed(self.health.clock_off_ms())
    }

    // ---- taking in ---------------------------------------------------------------------------------------------------

    /// Loads what was kept from before: already verified once, and told to nobody.
    pub(super) fn recall(&mut self, now: Now, stored: Vec<SignedDecision>) {
        for signed in stored {
            let held = signed.decision().map_err(|_| Refused::Malformed).and_then(|decision| {
                let certified =
                    signed.verify(self.cluster, &self.anchors, decision.stamp).map_err(|_| Refused::Forged)?;
                match self.decisions.judge(now.unix_ms, &decision) {
                    // Early: the clock may have been set back. It is looked at again when others' clocks are known.
                    Ok(()) | Err(Refused::Early) => Ok(Held::new(signed, decision, certified)),
                    Err(refused) => Err(refused),
                }
            });
            match held {
                Ok(held) => drop(self.decisions.insert(held)),
                Err(refused) => self.stats.count_refused(refused),
            }
        }
        self.follow_cas();
        let nodes: std::collections::BTreeSet<_> =
            self.decisions.standing().filter_map(|d| node_of(d.subject)).collect();
        for node in nodes {
            self.table.set_decided(node, self.decisions.decided(node));
        }
        // It ended before it had forgotten the cluster, or somebody put an old disk back.
        if let Some(decision) = self.decisions.removal(self.identity().id).map(|held| Arc::clone(&held.decision)) {
            self.fall_silent(decision);
        }
    }

    /// This node is a member no more.
    fn fall_silent(&mut self, decision: Arc<Decision>) {
        self.silent = true;
        self.inquiries.clear();
        self.effect(Event::Removed(decision).into());
    }

    /// Takes in a decision, from whomever it came; says whether it was new.
    pub(super) fn take_decision(&mut self, now: Now, signed: SignedDecision, spread: bool) -> bool {
        match self.examine(now, signed) {
            Ok(Some(held)) if self.decisions.kept(&held.decision.slot()).is_some_and(|kept| kept.is_same(&held)) => {
                self.prove_again(held);
                true
            }
            Ok(Some(held)) => {
                let held = self.vouched(now, held);
                let (place, kept) = (held.decision.slot(), Arc::clone(&held.signed));
                let outcome = self.decisions.insert(held);
                if !self.config.has(super::Mutant::SkipKeep) {
                    self.effect(Effect::Keep { slot: slot_hash(&place), decision: kept });
                }
                self.settle_decisions(now, outcome);
                if spread && self.decisions.kept(&place).is_some() {
                    self.rumour_decision(now, place);
                }
                true
            }
            Ok(None) => false,
            Err(refused) => {
                self.stats.count_refused(refused);
                false
            }
        }
    }

    fn examine(&self, now: Now, signed: SignedDecision) -> Result<Option<Held>, Refused> {
        let decision = signed.decision().map_err(|_| Refused::Malformed)?;
        let known = self.decisions.kept(&decision.slot());
        if let Some(known) = known.filter(|held| held.decision.stamp == decision.stamp) {
            return Ok(self.better_proof(known, signed));
        }
        match self.decisions.judge(self.fair_ms(now), &decision) {
            Err(Refused::Stale) if self.config.has(super::Mutant::OlderDecision) => {}
            Err(Refused::Early) if self.config.has(super::Mutant::AnyTime) => {}
            judged => judged?,
        }
        let certified = if self.config.has(super::Mutant::TrustUnsigned) {
            (self.credential.certified(), 0)
        } else {
            signed.verify(self.cluster, &self.anchors, decision.stamp).map_err(|_| Refused::Forged)?
        };
        if !self.decisions.admits(certified.0, &decision) && !self.config.has(super::Mutant::TrustDemoted) {
            return Err(Refused::NotEntitled);
        }
        Ok(Some(Held::new(signed, decision, certified)))
    }

    /// Carries out what has changed: the disk, the table, listeners.
    fn settle_decisions(&mut self, now: Now, outcome: Outcome) {
        let Outcome { forgotten, changes } = outcome;
        for place in forgotten {
            self.decision_news.stop(&place);
            self.effect(Effect::Forget { slot: slot_hash(&place) });
        }
        if changes.iter().any(|change| change.key.register == Register::Ca) {
            self.follow_cas();
        }
        for change in changes {
            let by = change.new.as_ref().or(change.old.as_ref()).map(|decision| decision.stamp.signer);
            let cause = by.map_or(Cause::Own, Cause::Decision);
            self.revision += 1;
            if !self.config.has(super::Mutant::SecretDecision) {
                self.effect(
                    Event::Decision { revision: self.revision, cause, old: change.old, new: change.new.clone() }.into(),
                );
            }
            let Some(node) = node_of(change.key.subject) else { continue };
            match (&change.key.register, &change.new) {
                (Register::Removed, Some(decision)) => {
                    self.show_decided(node, cause);
                    self.obey_removal(now, node, decision);
                }
                _ => self.show_decided(node, cause),
            }
        }
    }

    /// What was decided about a node shows in its listing.
    fn show_decided(&mut self, node: NodeId, cause: Cause) {
        if self.config.has(super::Mutant::StaleListing) {
            return;
        }
        let decided = self.decisions.decided(node);
        let me = self.identity().id;
        let before = (node == me).then(|| self.own_member());
        let change = self.table.set_decided(node, decided);
        let (old, new) = match (before, change) {
            (Some(before), _) => (before, self.own_member()),
            (None, Some(change)) => (change.old.unwrap_or_else(|| change.new.clone()), change.new),
            (None, None) => return,
        };
        if old != new {
            self.tell(cause, Some(Box::new(old)), Some(Box::new(new)));
        }
    }

    /// A node is a member no more.
    fn obey_removal(&mut self, now: Now, node: NodeId, decision: &Arc<Decision>) {
        let cause = Cause::Decision(decision.stamp.signer);
        if node == self.identity().id {
            return self.fall_silent(Arc::clone(decision));
        }
        let Some(swim) = self.table.get(node).map(|member| member.swim) else { return };
        // It is to hear of it from somebody, and nobody will speak with it any more.
        if swim.is_active() {
            let place = decision.slot();
            let mut writer = Writer::new(self.config.payload_bytes_max());
            writer.decisions(self.decisions.kept(&place).map(|held| &*held.signed).into_iter());
            self.send_payload(swim.identity, super::Kind::Decisions, writer);
            self.mirror(now, super::Swim { liveness: Liveness::Down, ..swim }, cause);
            let gone = super::swim::update(&super::Swim { liveness: Liveness::Down, ..swim });
            self.drive(now, |foca, out| foca.apply_many(std::iter::once(gone), false, out));
        }
        self.inquiries.drop_about(node);
        self.forget_member(now, node, cause);
    }

    /// Lets go of decisions from clocks that are known to be ahead.
    pub(super) fn drop_early_decisions(&mut self, now: Now) {
        if !self.health.knows_clocks() {
            return;
        }
        for place in self.decisions.early(self.fair_ms(now)) {
            let outcome = self.decisions.forget(&place);
            self.settle_decisions(now, outcome);
        }
    }

    // ---- passing on --------------------------------------------------------------------------------------------------

    fn rumour_decision(&mut self, now: Now, place: Slot) {
        if self.config.has(super::Mutant::HoardDecisions) {
            return;
        }
        self.decision_news.tell(place, self.table.active() + 1, true);
        self.arm_spread(now);
    }

    /// The decisions that are to be told next, the freshest first: as many as may go to one node in one round.
    pub(super) fn next_decisions(&mut self) -> Vec<Slot> {
        // A rumour whose decision is gone would stand in front of the others for ever.
        let first = |news: &Spread<Slot>| news.next().next().cloned();
        while let Some(gone) = first(&self.decision_news).filter(|place| self.decisions.kept(place).is_none()) {
            self.decision_news.stop(&gone);
        }
        let decisions = &self.decisions;
        let known = self.decision_news.next().take_while(|place| decisions.kept(place).is_some());
        known.take(DECISIONS_AT_ONCE).cloned().collect()
    }

    /// Adds to a datagram those of the decisions to be told next that fit.
    pub(super) fn add_decisions(&mut self, writer: &mut Writer) -> usize {
        let places = self.next_decisions();
        self.write_decisions(writer, &places)
    }

    fn write_decisions(&mut self, writer: &mut Writer, places: &[Slot]) -> usize {
        let kept = places.iter().map_while(|place| self.decisions.kept(place)).map(|held| &*held.signed);
        let told = writer.decisions(kept);
        self.decision_news.told_of(places.get(..told).unwrap_or_default());
        told
    }

    /// Decisions that did not fit beside the records: in datagrams of their own, or over TCP if one is too large for that.
    pub(super) fn send_decisions(&mut self, to: super::Identity, mut places: &[Slot]) {
        for _ in 1..DATAGRAMS_AT_ONCE {
            if places.is_empty() {
                return;
            }
            let mut writer = Writer::new(self.config.payload_bytes_max());
            let told = self.write_decisions(&mut writer, places);
            if told == 0 {
                let kept = places.iter().filter_map(|place| self.decisions.kept(place)).map(|held| &*held.signed);
                let request = Request::Decided { decisions: Batch::all(kept) };
                self.decision_news.told_of(places);
                self.exchange(to.addr, Some(to.id), Purpose::Push, &request, PATIENCE_MS);
                return;
            }
            self.send_payload(to, super::Kind::Decisions, writer);
            places = places.get(told..).unwrap_or_default();
        }
    }

    // ---- comparing ---------------------------------------------------------------------------------------------------

    /// What a node that has `theirs` lacks, and what it has that this one lacks.
    pub(super) fn compare_decisions(&self, theirs: &[Have]) -> Reply {
        let known: std::collections::BTreeMap<_, _> = theirs.iter().map(|have| (have.slot, *have)).collect();
        let ours = self.decisions.haves();
        let lacking = |have: &&Have| known.get(&have.slot).is_none_or(|theirs| self.is_older(theirs, have));
        let mut news: Vec<_> = ours.iter().filter(lacking).collect();
        let more = news.len() > DECISIONS_AT_ONCE;
        news.truncate(DECISIONS_AT_ONCE);
        let held = news.iter().filter_map(|have| self.decisions.by_hash(have.slot)).map(|held| &*held.signed);
        let decisions = Batch::all(held);
        let wanted = theirs
            .iter()
            .filter(|have| self.decisions.by_hash(have.slot).is_none_or(|held| self.is_older(&held.have(), have)));
        Reply::Decisions { decisions, wanted: wanted.map(|have| have.slot).collect(), more }
    }

    /// `tables` is the peer's digest over tables, for what comes after.
    pub(super) fn ask_for_decisions(&mut self, peer: Peer, to: std::net::SocketAddr, tables: Digest) {
        let request = Request::Decisions { have: self.decisions.haves() };
        self.exchange(to, Some(peer.id), Purpose::Decisions(to, tables), &request, PATIENCE_MS);
    }

    pub(super) fn take_decisions(&mut self, now: Now, decisions: Vec<Batch>) -> bool {
        let spread = self.joined;
        let mut any = false;
        for signed in decisions.into_iter().flat_map(Batch::into_decisions) {
            any |= self.take_decision(now, signed, spread);
        }
        any
    }

    /// The answer to [`Node::ask_for_decisions`].
    pub(super) fn decisions_compared(
        &mut self,
        now: Now,
        peer: Peer,
        (to, tables): (std::net::SocketAddr, Digest),
        (decisions, wanted, more): (Vec<Batch>, Vec<u64>, bool),
    ) {
        let any = self.take_decisions(now, decisions);
        for slots in wanted.chunks(DECISIONS_AT_ONCE) {
            let held = slots.iter().filter_map(|slot| self.decisions.by_hash(*slot)).map(|held| &*held.signed);
            let request = Request::Decided { decisions: Batch::all(held) };
            self.exchange(to, Some(peer.id), Purpose::Push, &request, PATIENCE_MS);
        }
        // Without progress the rest would be refused too.
        if more && any {
            self.ask_for_decisions(peer, to, tables);
        } else {
            self.tables_synced(now, peer, tables);
        }
    }

    /// Is this the decision that removed this very node?
    pub(super) fn told_of_removal(&mut self, now: Now, decision: Batch) {
        for signed in decision.into_decisions().take(1) {
            self.take_decision(now, signed, false);
        }
    }

    /// Is that node a member no more?
    pub(super) fn is_removed(&self, node: NodeId) -> bool {
        self.decisions.removal(node).is_some() && !self.config.has(super::Mutant::HearRemoved)
    }

    /// Answers a node that was removed: with the decision, and nothing else.
    pub(super) fn answer_removed(&self, peer: Peer) -> Option<Reply> {
        let held = self.decisions.removal(peer.id).filter(|_| self.is_removed(peer.id))?;
        Batch::all(std::iter::once(&*held.signed)).pop().map(Reply::Removed)
    }

    pub(super) fn arm_spread(&mut self, now: Now) {
        // A new rumour does not wait for the next round of older ones, and rounds do not follow each other like hail.
        let coalesce_us = self.config.coalesce_ms * 1_000;
        self.spread_by((now.mono_us + coalesce_us).max(self.spread_us + 2 * coalesce_us));
    }

    pub(super) fn spread_by(&mut self, due_us: u64) {
        if self.spread_due_us.is_none_or(|armed_us| due_us < armed_us) {
            self.spread_due_us = Some(due_us);
            self.timers.submit(due_us, Timer::Spread);
        }
    }
}

const fn node_of(subject: Subject) -> Option<NodeId> {
    match subject {
        Subject::Node(node) => Some(node),
        Subject::Cluster => None,
    }
}
