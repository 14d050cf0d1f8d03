//! Full-state exchanges over TLS: join, periodic comparison, healing.
//!
//! One exchange is one request and one reply. The asker sends itself and a digest of what it knows; if the digests
//! differ it gets everything, merges it, and pushes back what the other side lacks. So both know the same after at most
//! two exchanges, and two nodes that already agree pay a few bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::seq::SliceRandom;

use super::identity::Identity;
use super::member::Swim;
use super::table::{Listed, share};
use super::timers::Timer;
use super::{Cause, Effect, Event, ExchangeError, ExchangeId, Mutant, Node, Now, Peer};
use crate::record::{NodeId, Status};
use crate::wire::DecodeError;
use crate::wire::datagram::Hello;
use crate::wire::exchange::{Digest, Liveness, MemberEntry, Reply, Request};
use crate::wire::table::TableReply;

/// Addresses kept to find others at, at most.
pub(super) const CONTACTS_MAX: usize = 1_024;
/// Time to the next comparison after one that found a difference, and after the start, in microseconds.
pub(super) const SYNC_WAIT_MIN_US: u64 = 1_000_000;
/// Longest time between two tries to reach anybody while there is nobody, in microseconds.
const REJOIN_WAIT_MAX_US: u64 = 700_000;
/// For each active member, this much more time between two tries to reach one that is missing, in microseconds.
const REJOIN_SHARE_US: u64 = 100_000;
/// Members told of in one push.
const PUSH_MEMBERS_MAX: usize = 4_096;
/// Exchanges under way at once, at most: each is a TLS connection. Inquiries leave some of them free for state.
const EXCHANGES_MAX: usize = 48;
/// How long an exchange of state may take.
const PATIENCE_MS: u64 = 10_000;
/// How long an exchange may take with a node that is probably not there.
const REJOIN_PATIENCE_MS: u64 = 3_000;
/// Greetings in a row that must differ before state is fetched.
const DISAGREEMENTS_MAX: u32 = 2;
/// Contacts tried at once while nobody is reached.
const REJOIN_FANOUT: usize = 8;

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Sync,
    Push,
    LeavePush,
    /// Which decisions are lacking? The peer's address, and its digest over tables.
    Decisions(SocketAddr, Digest),
    /// Records that are too large for a datagram.
    Fetch,
    /// What is lacking of tables? How many scopes both were known to hold.
    Tables(usize),
    /// Steps that are lacking, of this peer.
    Lacks(NodeId),
    /// Has the peer what this question asks for?
    Confirm(u32),
    /// Does the subject of an inquiry answer?
    Inquiry(NodeId),
    /// Does the subject of an errand answer? Subject and asker.
    Errand(NodeId, NodeId),
    /// What does a node that this one examines see?
    Exam(NodeId),
    /// Does the node that examines this one answer?
    ExamCall(NodeId),
}

/// What greetings by datagram have shown.
#[derive(Debug)]
pub(super) struct Greetings {
    /// When the next one is due.
    pub(super) due_us: u64,
    agreement: Agreement,
}

impl Greetings {
    pub(super) fn new(now: Now) -> Self {
        Self { due_us: now.mono_us, agreement: Agreement::default() }
    }
}

/// Whether others hold the same, and how often that was looked into.
#[derive(Debug)]
pub(super) struct Agreement {
    /// When a greeting last agreed with this node's view, and how many have not since.
    agreed_us: u64,
    disagreements: u32,
    /// When that last led to an exchange, and how long the next one has to wait.
    synced_us: u64,
    wait_us: u64,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { agreed_us: 0, disagreements: 0, synced_us: 0, wait_us: SYNC_WAIT_MIN_US }
    }
}

impl Agreement {
    pub(super) fn agreed(&mut self, now: Now) {
        self.agreed_us = now.mono_us;
        self.disagreements = 0;
    }

    /// News may be on its way. If it does not arrive, it has to be fetched: says whether now.
    pub(super) fn disagreed(&mut self, now: Now) -> bool {
        self.disagreements += 1;
        let is_lasting = self.disagreements >= DISAGREEMENTS_MAX && self.is_due(now);
        if is_lasting {
            self.disagreements = 0;
        }
        is_lasting
    }

    /// May a difference lead to an exchange now? Then it does.
    pub(super) const fn is_due(&mut self, now: Now) -> bool {
        let is_due = now.mono_us >= self.synced_us.saturating_add(self.wait_us);
        if is_due {
            self.synced_us = now.mono_us;
        }
        is_due
    }

    /// The exchange has brought something: there may be more.
    pub(super) const fn mended(&mut self) {
        self.wait_us = SYNC_WAIT_MIN_US;
    }

    /// It has not. A difference that exchanges do not mend is no reason for ever more of them.
    pub(super) fn failed(&mut self, longest_us: u64) {
        self.wait_us = self.wait_us.saturating_mul(2).min(longest_us);
    }
}

/// Can anything be sent there?
pub(super) fn is_usable(addr: SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

impl Node {
    /// Compares with a random member: often while differences are found, ever more rarely while there are none.
    pub(super) fn sync_timer(&mut self, now: Now) {
        let wait_us = self.jittered_us(self.sync_wait_us);
        self.timers.submit(now.mono_us + wait_us, Timer::Sync);
        let longest_us = self.config.sync_interval_ms * 1_000;
        // Greetings by datagram have shown that others know the same: no connection is needed.
        let has_compared =
            self.sync_wait_us >= longest_us && self.greetings.agreement.agreed_us + longest_us > now.mono_us;
        self.sync_wait_us = if self.health.is_udp_blocked() {
            SYNC_WAIT_MIN_US
        } else {
            self.sync_wait_us.saturating_mul(2).min(longest_us)
        };
        if has_compared {
            return;
        }
        if let Some(Identity { id, addr, .. }) = self.choose(1).first().copied() {
            self.start_sync(addr, Some(id));
        }
    }

    /// Tries to reach somebody who is not reached: with back-off while there is nobody at all, else now and then one of
    /// those that are missing, for ever.
    pub(super) fn rejoin_timer(&mut self, now: Now) {
        if self.leaving || now.mono_us < self.rejoin_due_us || (self.joined && self.config.has(Mutant::NoHealing)) {
            return;
        }
        let is_alone = !self.connected || self.table.active() == 0 || self.health.is_isolated();
        let mut candidates = self.unreached(is_alone);
        let ceiling_us = self.config.sync_interval_ms * 1_000 / 2;
        let wait_us = match (is_alone, candidates.is_empty()) {
            (true, false) => self.rejoin_wait_us,
            // All members together try some ten times a second, however many they are.
            (false, false) => (self.table.active() as u64 * REJOIN_SHARE_US).max(REJOIN_WAIT_MAX_US).min(ceiling_us),
            (_, true) => ceiling_us,
        };
        self.rejoin_wait_us = if is_alone {
            self.rejoin_wait_us.saturating_mul(2).min(REJOIN_WAIT_MAX_US)
        } else {
            self.config.rejoin_interval_ms * 1_000
        };
        let wait_us = self.jittered_us(wait_us);
        self.arm_rejoin(now.mono_us + wait_us);
        if is_alone && self.table.active() > 0 {
            // Known to nobody under a new identity yet: say it again.
            self.drive(now, |foca, out| foca.gossip(out));
        }
        let count = if is_alone { REJOIN_FANOUT } else { 1 };
        let (chosen, _) = candidates.partial_shuffle(&mut self.rng, count);
        for addr in chosen {
            self.start_sync_within(*addr, None, REJOIN_PATIENCE_MS);
        }
    }

    pub(super) fn arm_rejoin(&mut self, at_us: u64) {
        self.rejoin_due_us = at_us;
        self.timers.submit(at_us, Timer::Rejoin);
    }

    /// Addresses of nodes that should be there and are not heard.
    fn unreached(&self, is_alone: bool) -> Vec<SocketAddr> {
        let me = self.identity().addr;
        let mut wanted = self.contacts.clone();
        for member in self.table.iter() {
            let addr = member.swim.identity.addr;
            match member.status {
                Status::Down => {
                    wanted.insert(addr);
                }
                Status::Ready | Status::Suspect if is_alone => {
                    wanted.insert(addr);
                }
                Status::Ready | Status::Suspect | Status::Left => {
                    wanted.remove(&addr);
                }
            }
        }
        wanted.remove(&me);
        wanted.into_iter().collect()
    }

    /// Another node says what it knows, and wants to be told if this one knows something else.
    pub(super) fn greeted(
        &mut self,
        now: Now,
        sender: NodeId,
        (hello, tables): (Hello, Option<[u8; 8]>),
        is_question: bool,
    ) {
        let Hello { digest, unix_s } = hello;
        self.health.compared_clocks(sender, unix_s.cast_signed().saturating_sub_unsigned(now.unix_ms / 1_000));
        if !self.joined {
            return;
        }
        let agrees = self.summary().starts_with(&digest);
        if agrees {
            self.greetings.agreement.agreed(now);
        } else if self.greetings.agreement.disagreed(now)
            && let Some(addr) = self.table.get(sender).map(|member| member.swim.identity.addr)
        {
            self.start_sync(addr, Some(sender));
        }
        if !(self.tables_greeted(now, sender, tables.unwrap_or_default()) && agrees) && is_question {
            self.greet(now, sender);
        }
    }

    /// What a greeting says.
    pub(super) fn hello(&self, now: Now) -> Hello {
        let digest = self.summary().first_chunk().copied().unwrap_or_default();
        Hello { digest, unix_s: now.unix_ms / 1_000 }
    }

    pub(super) fn start_sync(&mut self, to: SocketAddr, peer: Option<NodeId>) {
        self.start_sync_within(to, peer, PATIENCE_MS);
    }

    fn start_sync_within(&mut self, to: SocketAddr, peer: Option<NodeId>, patience_ms: u64) {
        let members = self.joined.then(|| self.digest());
        let decisions = self.decisions.digest().to_be_bytes();
        let request = Request::Sync { me: Box::new(self.own_entry()), members, decisions };
        self.exchange(to, peer, Purpose::Sync, &request, patience_ms);
    }

    /// Tells `targets` this node's own record, over TLS.
    pub(super) fn push_own(&mut self, targets: &[Identity]) {
        let request = Request::Push { members: vec![self.own_entry()] };
        self.leave_pushes += targets.len();
        for target in targets {
            self.exchange(target.addr, Some(target.id), Purpose::LeavePush, &request, PATIENCE_MS);
        }
    }

    /// Begins an exchange; `false` when too many are under way.
    pub(super) fn exchange(
        &mut self,
        to: SocketAddr,
        peer: Option<NodeId>,
        purpose: Purpose,
        request: &Request,
        patience_ms: u64,
    ) -> bool {
        if self.silent || self.exchanges.len() >= EXCHANGES_MAX && purpose != Purpose::LeavePush {
            return false;
        }
        self.exchange_count += 1;
        let id = ExchangeId(self.exchange_count);
        self.exchanges.insert(id, purpose);
        self.stats.exchanges_started += 1;
        self.effect(Effect::Exchange { id, to, peer, request: request.to_bytes(), patience_ms });
        true
    }

    pub(super) fn answer(&mut self, now: Now, peer: Peer, request: &[u8]) -> Result<Reply, DecodeError> {
        let request = Request::from_bytes(request)?;
        // Whoever relies on an answer relies on somebody who stays.
        if self.leaving || self.silent {
            return Ok(Reply::Leaving);
        }
        if let Some(reply) = self.answer_removed(peer) {
            return Ok(reply);
        }
        self.heard(now);
        match request {
            Request::Decisions { have } => Ok(self.compare_decisions(&have)),
            Request::Decided { decisions } => {
                self.take_decisions(now, decisions);
                Ok(Reply::Done)
            }
            Request::Tables(request) => Ok(Reply::Tables(self.answer_tables(now, peer, request))),
            Request::Records { owners } => Ok(Reply::Records(self.records_of(&owners))),
            Request::Confirm { have } => Ok(Reply::Confirmed(self.has_all(&have))),
            Request::Examine { nonce } => Ok(Reply::Examined(self.examined(now, peer.id, nonce))),
            Request::Alive => {
                Ok(Reply::Alive { generation: self.identity().generation, incarnation: self.incarnation })
            }
            Request::Sync { me, members, decisions: _ } => {
                if me.id != peer.id || me.liveness != Liveness::Alive {
                    return Err(DecodeError::Invalid("asker"));
                }
                self.merge(now, *me, true);
                let members = (members != Some(self.digest())).then(|| self.entries());
                let tables = self.tables_digest(peer.id);
                Ok(Reply::State { members, decisions: self.decisions.digest().to_be_bytes(), tables })
            }
            Request::Push { members } => {
                for member in members {
                    self.merge(now, member, true);
                }
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn finish_exchange(
        &mut self,
        now: Now,
        purpose: Purpose,
        outcome: Result<(Peer, &[u8]), ExchangeError>,
    ) {
        // Whoever was removed has no say any more, except that this node was.
        let is_wrong = |(peer, bytes): &(Peer, &[u8])| {
            self.is_removed(peer.id) && !matches!(Reply::from_bytes(bytes), Ok(Reply::Removed(_)))
        };
        let outcome = outcome.and_then(|from| if is_wrong(&from) { Err(ExchangeError::WrongPeer) } else { Ok(from) });
        if let Purpose::Inquiry(_) | Purpose::Errand(..) = purpose {
            if outcome.is_ok() {
                self.heard(now);
            }
            if let Ok((_, bytes)) = &outcome
                && let Ok(Reply::Removed(decision)) = Reply::from_bytes(bytes)
            {
                return self.told_of_removal(now, decision);
            }
            let answer = outcome.map(|(_, bytes)| match Reply::from_bytes(bytes) {
                Ok(Reply::Alive { generation, incarnation }) => Some((generation, incarnation)),
                _ => None,
            });
            return self.called(now, purpose, answer);
        }
        if let Purpose::Exam(id) | Purpose::ExamCall(id) = purpose {
            let outcome = outcome.map(|(_, bytes)| Reply::from_bytes(bytes).ok());
            return self.exam_answered(now, id, purpose, outcome);
        }
        let Some((peer, reply)) =
            outcome.ok().and_then(|(peer, bytes)| Reply::from_bytes(bytes).ok().map(|reply| (peer, reply)))
        else {
            self.stats.exchanges_failed += 1;
            match purpose {
                Purpose::LeavePush => self.tell_another_of_leave(),
                Purpose::Lacks(peer) => self.fetched(now, peer),
                _ => {}
            }
            return;
        };
        self.heard(now);
        match (purpose, reply) {
            (_, Reply::Removed(decision)) => self.told_of_removal(now, decision),
            (Purpose::Sync, Reply::State { members, decisions, tables }) => {
                self.synced(now, peer, members, (decisions, tables));
            }
            (Purpose::Decisions(to, tables), Reply::Decisions { decisions, wanted, more }) => {
                self.decisions_compared(now, peer, (to, tables), (decisions, wanted, more));
            }
            (Purpose::Tables(scopes), Reply::Tables(reply)) => self.tables_answered(now, peer, scopes, reply),
            (Purpose::Lacks(from), reply) => {
                if let Reply::Tables(TableReply::Steps { steps, .. }) = reply {
                    self.take_steps(now, peer, steps);
                }
                self.fetched(now, from);
            }
            (Purpose::Confirm(nonce), Reply::Tables(TableReply::Seen(true))) => self.confirmed(peer.id, nonce),
            (Purpose::Fetch, Reply::Records(records)) => {
                for record in records {
                    self.take_record(now, &record, true, Cause::Record);
                }
            }
            (Purpose::Confirm(nonce), Reply::Confirmed(true)) => self.confirmed(peer.id, nonce),
            (Purpose::LeavePush, Reply::Done) => self.leave_done(true),
            (Purpose::LeavePush, Reply::Leaving) => self.tell_another_of_leave(),
            _ => {}
        }
    }

    fn synced(
        &mut self,
        now: Now,
        peer: Peer,
        members: Option<Vec<MemberEntry>>,
        (decisions, tables): (Digest, Digest),
    ) {
        let known = match members {
            Some(theirs) => self.take_members(now, peer, theirs),
            None => self.table.get(peer.id).map(|member| member.swim.identity.addr),
        };
        match known.filter(|_| decisions != self.decisions.digest().to_be_bytes()) {
            Some(_) if self.config.has(Mutant::NoComparison) => self.has_joined(peer),
            Some(addr) => {
                if self.config.has(Mutant::HastyJoin) {
                    self.has_joined(peer);
                }
                self.ask_for_decisions(peer, addr, tables);
            }
            None => self.tables_synced(now, peer, tables),
        }
    }

    /// This node has what `peer` had.
    pub(super) fn has_joined(&mut self, peer: Peer) {
        if !self.joined {
            self.joined = true;
            self.effect(Effect::Event(Event::Joined { with: peer.id }));
        }
    }

    fn take_members(&mut self, now: Now, peer: Peer, theirs: Vec<MemberEntry>) -> Option<SocketAddr> {
        let revision = self.revision;
        let lacking = self.lacking(&theirs);
        let known: Option<SocketAddr> = theirs.iter().find(|entry| entry.id == peer.id).map(|entry| entry.addr);
        for entry in theirs {
            // The bulk of a join is no news to the cluster; the answerer itself is merged like the others.
            let broadcast = self.joined;
            self.merge(now, entry, broadcast);
        }
        // Something was missing here: others may miss it too, and this node more.
        if self.revision != revision || !self.joined {
            self.sync_wait_us = SYNC_WAIT_MIN_US;
            self.greetings.agreement.mended();
        } else {
            self.greetings.agreement.failed(self.config.sync_interval_ms * 1_000);
        }
        let pushes = known.map_or(&[][..], |_| lacking.as_slice()).chunks(PUSH_MEMBERS_MAX);
        for (addr, members) in known.into_iter().cycle().zip(pushes) {
            let push = Request::Push { members: members.to_vec() };
            self.exchange(addr, Some(peer.id), Purpose::Push, &push, PATIENCE_MS);
        }
        // Others learn of this node through the peer; foca's announcement makes two more packets of it.
        if let Some(member) = self.table.get(peer.id).filter(|member| member.swim.is_active()) {
            let identity = member.swim.identity;
            self.drive(now, |foca, out| foca.announce(identity.into(), out));
        }
        known
    }

    /// What the other side does not have, or has older.
    fn lacking(&self, theirs: &[MemberEntry]) -> Vec<MemberEntry> {
        let theirs: BTreeMap<_, _> = theirs.iter().map(|entry| (entry.id, entry)).collect();
        self.entries()
            .into_iter()
            .filter(|ours| match theirs.get(&ours.id) {
                None => ours.liveness != Liveness::Down,
                Some(their) => {
                    let version = |entry: &MemberEntry| entry.record.as_ref().map(|record| record.version);
                    swim_of(their).yields_to(&swim_of(ours)) || version(their) < version(ours)
                }
            })
            .collect()
    }

    /// Takes in what another node knows of a member.
    fn merge(&mut self, now: Now, entry: MemberEntry, broadcast: bool) {
        let theirs = swim_of(&entry);
        let id = entry.id;
        if !self.is_acceptable(now, &theirs.identity) {
            self.stats.updates_refused += 1;
            return;
        }
        if id == self.identity().id {
            if let Some(record) = &entry.record {
                self.take_record(now, record, false, Cause::Exchange);
            }
            return self.heard_of_self(now, theirs);
        }
        if theirs.is_active() && self.is_predecessor(&theirs.identity) {
            let gone = Swim { liveness: Liveness::Down, ..theirs };
            self.apply(now, gone, true, Cause::Replaced(self.identity().id));
            return;
        }
        if !self.is_wanted(&theirs) {
            return;
        }
        if let Some(record) = entry.record.filter(|record| record.owner == id) {
            self.take_record(now, &record, broadcast, Cause::Exchange);
        }
        let disputed = self.table.get(id).map(|known| known.swim).filter(|known| {
            known.identity == theirs.identity && known.is_active() && theirs.liveness == Liveness::Down
        });
        match disputed {
            // "Down" of a life that is active here: two views meet, after a split or a mistake. Nobody takes a node's
            // failure from another's list: it is asked. If it lives, it has to know, as only a new life will be believed
            // over there.
            Some(known) => {
                self.warn(known.identity);
                self.inquire(now, id, None, false);
            }
            None => {
                self.apply(now, theirs, broadcast, Cause::Exchange);
            }
        }
        self.obey_goodbye(now, id);
        self.arm_want(now);
    }

    /// Everything that this node would tell a newcomer.
    pub fn entries(&self) -> Vec<MemberEntry> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|Listed { swim, .. }| MemberEntry {
                id: swim.identity.id,
                generation: swim.identity.generation,
                addr: swim.identity.addr,
                incarnation: swim.incarnation,
                liveness: swim.liveness,
                record: self.table.envelope(swim.identity.id).cloned(),
            })
            .collect();
        entries.push(self.own_entry());
        entries
    }

    fn own_entry(&self) -> MemberEntry {
        let Identity { id, generation, addr } = self.identity();
        MemberEntry {
            id,
            generation,
            addr,
            incarnation: self.incarnation,
            liveness: Liveness::Alive,
            record: Some(self.envelope.clone()),
        }
    }

    /// What this node knows, hashed: lives and record versions of the active members, itself included.
    pub(super) fn digest(&self) -> Digest {
        let Identity { id, generation, .. } = self.identity();
        let own = share(id, generation, self.envelope.version);
        self.table.digest().wrapping_add(own).to_be_bytes()
    }

    /// The digest of members and decisions together.
    pub(super) fn summary(&self) -> Digest {
        u128::from_be_bytes(self.digest()).wrapping_add(self.decisions.digest()).to_be_bytes()
    }
}

fn swim_of(entry: &MemberEntry) -> Swim {
    let MemberEntry { id, generation, addr, incarnation, liveness, record: _ } = entry;
    Swim {
        identity: Identity { id: *id, generation: *generation, addr: *addr },
        incarnation: *incarnation,
        liveness: *liveness,
    }
}
