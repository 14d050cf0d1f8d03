//! foca 2.0 as its users have it: the "before" to print beside the production node.
//!
//! A [`Baseline`] is driven like [`gossipd::node::Node`] and speaks through the same effects, so that the same world,
//! views and observers serve both. What it is:
//! * `foca::Config::new_lan` for the cluster's final size, known from the start;
//! * an identity that renews itself when the cluster holds it for down (foca's `renew`: generation + 1);
//! * the postcard codec that comes with foca, and its datagrams as they are: nothing is sealed, so 48 bytes a datagram
//!   are *not* counted that production pays;
//! * the least that a user has to add: the contacts are announced to each second until foca is `Active` for the first
//!   time (foca does not retry), a seed's id is not known beforehand (an announce to nobody in particular is for whoever
//!   reads it at its address), and a leave gossips three more times before it is done.
//!
//! What it shows is what foca tells: `MemberUp` is ready, `MemberDown` is down, a `Rename` is a new life. foca tells
//! nobody of suspicions and nothing of incarnations, so none are listed; [`Baseline::suspects`] counts the suspicions in
//! its table. A leave cannot be told from a crash. There are no exchanges and no records.
//!
//! Not here: any cure for what foca does. That is what `gossipd::node` is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{Codec as _, Header, Message, NoCustomBroadcast, OwnedNotification, PostcardCodec};
use gossipd::node::{Cause, Command, Effect, Event, Member, Now, Start, Stats, Swim};
use gossipd::record::{NodeId, Status};
use gossipd::wire::exchange::Liveness;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

/// The largest datagram that it sends, in bytes of UDP payload: `max_packet_size` of foca's presets.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;
/// Time between two announces to the contacts, in microseconds.
const ANNOUNCE_INTERVAL_US: u64 = 1_000_000;
/// Rounds of gossip after a leave.
const FAREWELLS: u32 = 3;
/// Time between them, in microseconds.
const FAREWELL_INTERVAL_US: u64 = 200_000;
/// The id of an announce's addressee that is known by its address only.
const NOBODY: [u8; 16] = [0; 16];

/// One life of a node, as foca's users write it: `Addr` is the node, a higher generation replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id.
    pub id: [u8; 16],
    /// Its life.
    pub generation: u64,
    /// Where that life listens.
    pub addr: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = [u8; 16];

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.saturating_add(1), ..*self })
    }

    fn addr(&self) -> [u8; 16] {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.generation, self.addr) > (adversary.generation, adversary.addr)
    }
}

impl From<Identity> for gossipd::node::Identity {
    fn from(identity: Identity) -> Self {
        let Identity { id, generation, addr } = identity;
        Self { id: NodeId::from_bytes(id), generation, addr }
    }
}

/// What is due. Of two at one instant foca's own come first, in foca's order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Foca(foca::Timer<Identity>),
    Announce,
    Farewell,
}

type Foca = foca::Foca<Identity, PostcardCodec, ChaCha12Rng, NoCustomBroadcast>;

/// What foca asked for during one call.
#[derive(Default)]
struct Outbox {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(foca::Timer<Identity>, Duration)>,
    notifications: Vec<OwnedNotification<Identity>>,
}

impl foca::Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: foca::Notification<'_, Identity>) {
        self.notifications.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: foca::Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}

/// One foca and what its user has to add.
pub struct Baseline {
    foca: Foca,
    /// By time, then what is due, then the order of submission.
    timers: BTreeSet<(u64, Due, u64)>,
    submitted: u64,
    effects: VecDeque<Effect>,
    table: BTreeMap<NodeId, Member>,
    contacts: BTreeSet<SocketAddr>,
    started_ms: u64,
    revision: u64,
    /// Its own incarnation, read from what it sent last.
    incarnation: u16,
    joined: bool,
    /// Rounds of gossip still to go before a leave is done.
    farewells: Option<u32>,
    stats: Stats,
}

impl Baseline {
    /// Starts one in a cluster of `cluster_size` nodes. It does nothing until the first `handle_*`;
    /// [`Baseline::next_timeout_us`] is due at once. Of `start` the record, the keys and the constants are not used.
    pub fn new(start: Start, cluster_size: usize, now: Now) -> Self {
        let Start { id, generation, addr, seed, contacts, .. } = start;
        let size = u32::try_from(cluster_size).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let identity = Identity { id: *id.as_bytes(), generation, addr };
        let config = foca::Config::new_lan(size);
        let mut contacts: BTreeSet<_> = contacts.into_iter().collect();
        contacts.remove(&addr);
        let mut baseline = Self {
            foca: Foca::new(identity, config, ChaCha12Rng::from_seed(seed), PostcardCodec),
            timers: BTreeSet::new(),
            submitted: 0,
            effects: VecDeque::new(),
            table: BTreeMap::new(),
            contacts,
            started_ms: now.unix_ms,
            revision: 1,
            incarnation: 0,
            joined: false,
            farewells: None,
            stats: Stats::default(),
        };
        baseline.submit(now.mono_us, Due::Announce);
        baseline
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Its own life.
    pub fn identity(&self) -> gossipd::node::Identity {
        (*self.foca.identity()).into()
    }

    /// All members that foca told of, this one among them, by id: what the events amount to.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.table.values().cloned().collect();
        members.push(member(self.identity(), self.incarnation, Status::Ready, self.started_ms));
        members.sort_by_key(|member| member.swim.identity.id);
        members
    }

    /// How many others foca has under suspicion; it tells nobody.
    pub fn suspects(&self) -> usize {
        self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Suspect).count()
    }

    /// Its count of visible changes; 1 at the start.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether foca was ever `Active`.
    pub const fn is_joined(&self) -> bool {
        self.joined
    }

    /// When [`Baseline::handle_timeout`] is due, on the monotonic clock, in microseconds.
    pub fn next_timeout_us(&self) -> Option<u64> {
        self.timers.first().map(|(at_us, ..)| *at_us)
    }

    /// Counters since the start. Used are `renewals` (identity changes that others forced), `refutations`,
    /// `probes_failed` and `swim_errors`.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Differences between what foca told and what it holds: whoever is active in one must be ready in the other.
    pub fn mirror_errors(&self) -> Vec<String> {
        let told = self.table.values().filter(|member| member.status == Status::Ready);
        let told: BTreeSet<_> = told.map(|member| member.swim.identity.id).collect();
        let held: BTreeSet<_> = self.foca.iter_members().map(|member| NodeId::from_bytes(member.id().id)).collect();
        told.symmetric_difference(&held).map(|id| format!("{id}: told or held only")).collect()
    }

    // ---- inputs --------------------------------------------------------------------------------------------------

    /// Takes in a datagram as it was received. After a leave nothing is taken in: foca would come back by renewing.
    pub fn handle_datagram(&mut self, now: Now, datagram: &mut [u8]) {
        if self.farewells.is_some() {
            return;
        }
        let addressed = self.addressed(datagram);
        let bytes = addressed.as_deref().unwrap_or(datagram);
        self.drive(now, Cause::Gossip, |foca, outbox| foca.handle_data(bytes, outbox));
    }

    /// Nothing: foca has no use for a refused datagram.
    pub const fn handle_refused(&mut self, _now: Now, _to: SocketAddr) {}

    /// Carries out an order. An absence is announced by nothing but silence.
    pub fn handle_command(&mut self, now: Now, command: Command) {
        match command {
            Command::Leave if self.farewells.is_none() => {
                self.farewells = Some(FAREWELLS);
                self.drive(now, Cause::Own, |foca, outbox| foca.leave_cluster(outbox));
                self.submit(now.mono_us + FAREWELL_INTERVAL_US, Due::Farewell);
            }
            // It knows no decisions and no tables.
            Command::Leave
            | Command::Written(_)
            | Command::Unwritten
            | Command::Decided(_)
            | Command::Credential(_)
            | Command::Describe(_)
            | Command::Lead(_)
            | Command::DataPath(_)
            | Command::Examine { .. } => {}
            Command::Away(_) => self.tell(Event::LeaveDone { acknowledged: false }),
            Command::AddContacts(contacts) => {
                let me = self.foca.identity().addr;
                self.contacts.extend(contacts.into_iter().filter(|contact| *contact != me));
            }
            Command::Readdress(addr) => {
                let Identity { id, generation, addr: _ } = *self.foca.identity();
                let moved = Identity { id, generation: generation.saturating_add(1), addr };
                self.effects.push_back(Effect::PersistGeneration(moved.generation));
                self.incarnation = 0;
                self.drive(now, Cause::Own, |foca, outbox| foca.change_identity(moved, outbox));
            }
        }
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.next_timeout_us().is_some_and(|at_us| at_us <= now.mono_us) {
            match self.timers.pop_first() {
                Some((_, Due::Foca(timer), _)) => self.fire(now, timer),
                Some((_, Due::Announce, _)) => self.announce(now),
                Some((_, Due::Farewell, _)) => self.farewell(now),
                None => return,
            }
        }
    }

    /// What is to be done, in order. To be drained after each `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    // ---- foca ----------------------------------------------------------------------------------------------------

    fn drive(&mut self, now: Now, cause: Cause, call: impl FnOnce(&mut Foca, &mut Outbox) -> Result<(), foca::Error>) {
        let mut outbox = Outbox::default();
        if call(&mut self.foca, &mut outbox).is_err() {
            self.stats.swim_errors += 1;
        }
        let Outbox { sends, timers, notifications } = outbox;
        self.note(now, cause, notifications);
        for (timer, after) in timers {
            if matches!(timer, foca::Timer::ChangeSuspectToDown { .. }) {
                self.stats.probes_failed += 1;
            }
            let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            self.submit(now.mono_us.saturating_add(after_us), Due::Foca(timer));
        }
        for (to, bytes) in sends {
            self.count_refutation(&bytes);
            self.effects.push_back(Effect::Send { to: to.addr, bytes });
        }
    }

    fn submit(&mut self, at_us: u64, due: Due) {
        self.submitted += 1;
        self.timers.insert((at_us, due, self.submitted));
    }

    fn fire(&mut self, now: Now, timer: foca::Timer<Identity>) {
        let cause = match &timer {
            foca::Timer::ChangeSuspectToDown { .. } => Cause::ProbeTimeout,
            foca::Timer::RemoveDown(gone) => {
                self.forget(*gone);
                Cause::Retention
            }
            _ => Cause::Gossip,
        };
        self.drive(now, cause, |foca, outbox| foca.handle_timer(timer, outbox));
    }

    fn announce(&mut self, now: Now) {
        if self.joined || self.farewells.is_some() {
            return;
        }
        for addr in self.contacts.clone() {
            let seed = Identity { id: NOBODY, generation: 0, addr };
            self.drive(now, Cause::Contact, |foca, outbox| foca.announce(seed, outbox));
        }
        self.submit(now.mono_us + ANNOUNCE_INTERVAL_US, Due::Announce);
    }

    fn farewell(&mut self, now: Now) {
        match self.farewells {
            Some(0) => self.tell(Event::LeaveDone { acknowledged: false }),
            Some(left) => {
                self.farewells = Some(left - 1);
                self.drive(now, Cause::Own, |foca, outbox| foca.gossip(outbox));
                self.submit(now.mono_us + FAREWELL_INTERVAL_US, Due::Farewell);
            }
            None => {}
        }
    }

    /// An announce to nobody in particular at this address, addressed to this node: foca takes in no other.
    fn addressed(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut rest = datagram;
        let header: Header<Identity> = PostcardCodec.decode_header(&mut rest).ok()?;
        let Identity { id, generation: _, addr } = header.dst;
        let me = *self.foca.identity();
        if header.message != Message::Announce || id != NOBODY || addr != me.addr {
            return None;
        }
        let mut bytes = Vec::with_capacity(datagram.len());
        PostcardCodec.encode_header(&Header { dst: me, ..header }, &mut bytes).ok()?;
        bytes.extend_from_slice(rest);
        Some(bytes)
    }

    fn count_refutation(&mut self, mut packet: &[u8]) {
        let header: Result<Header<Identity>, _> = PostcardCodec.decode_header(&mut packet);
        if let Ok(Header { src_incarnation, .. }) = header {
            self.stats.refutations += u64::from(src_incarnation > self.incarnation);
            self.incarnation = src_incarnation;
        }
    }

    // ---- what it tells -------------------------------------------------------------------------------------------

    fn note(&mut self, now: Now, cause: Cause, notifications: Vec<OwnedNotification<Identity>>) {
        use OwnedNotification::{Active, Defunct, Idle, MemberDown, MemberUp, Rejoin, Rename};
        let mut up = None;
        let mut rest = notifications.into_iter().peekable();
        while let Some(notification) = rest.next() {
            match notification {
                // One change, told in two parts.
                Rename(_, new) if matches!(rest.peek(), Some(MemberUp(of) | MemberDown(of)) if *of == new) => {}
                Rename(old, new) => {
                    if let Some(status) = self.table.get(&NodeId::from_bytes(old.id)).map(|member| member.status) {
                        self.put(now, cause, new, status);
                    }
                }
                MemberUp(identity) => {
                    up = Some(NodeId::from_bytes(identity.id));
                    self.put(now, cause, identity, Status::Ready);
                }
                MemberDown(identity) => self.put(now, cause, identity, Status::Down),
                Active if !self.joined => {
                    self.joined = true;
                    if let Some(with) = up {
                        self.tell(Event::Joined { with });
                    }
                }
                // A renewal is persisted after foca has made it: no hook comes before.
                Rejoin(identity) => {
                    self.stats.renewals += 1;
                    self.incarnation = 0;
                    self.effects.push_back(Effect::PersistGeneration(identity.generation));
                }
                Active | Idle | Defunct => {}
            }
        }
    }

    fn put(&mut self, now: Now, cause: Cause, identity: Identity, status: Status) {
        let identity = gossipd::node::Identity::from(identity);
        if identity.id == self.identity().id {
            return;
        }
        let old = self.table.get(&identity.id).cloned();
        if old.as_ref().is_some_and(|old| old.swim.identity == identity && old.status == status) {
            return;
        }
        let new = member(identity, 0, status, now.unix_ms);
        self.table.insert(identity.id, new.clone());
        self.change(cause, old, Some(new));
    }

    /// foca forgets it without a word.
    fn forget(&mut self, gone: Identity) {
        let gone = gossipd::node::Identity::from(gone);
        let is_gone = |member: &Member| member.swim.identity == gone && member.status == Status::Down;
        if self.table.get(&gone.id).is_some_and(is_gone) {
            let old = self.table.remove(&gone.id);
            self.change(Cause::Retention, old, None);
        }
    }

    fn change(&mut self, cause: Cause, old: Option<Member>, new: Option<Member>) {
        self.revision += 1;
        let (old, new) = (old.map(Box::new), new.map(Box::new));
        self.tell(Event::Member { revision: self.revision, cause, old, new });
    }

    fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }
}

fn member(identity: gossipd::node::Identity, incarnation: u16, status: Status, since_ms: u64) -> Member {
    let liveness = if status == Status::Ready { Liveness::Alive } else { Liveness::Down };
    Member {
        swim: Swim { identity, incarnation, liveness },
        status,
        since_ms,
        record: None,
        heard_us: 0,
        rtt_us: None,
        tcp_only: false,
        decided: std::sync::Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;
    use gossipd::node::Config;
    use gossipd::record::{ClusterId, Role};
    use gossipd::wire::Keyring;

    const MS: u64 = 1_000;
    const S: u64 = 1_000_000;
    const DELAY_US: u64 = MS;

    fn now(us: u64) -> Now {
        Now { mono_us: us, unix_ms: host::EPOCH_UNIX_MS + us / MS }
    }

    fn id(n: usize) -> NodeId {
        NodeId::from_bytes([u8::try_from(n).unwrap() + 1; 16])
    }

    /// Baselines, a network with one delay, and a list of all that was told.
    struct Small {
        now_us: u64,
        sent: u64,
        nodes: Vec<Option<Baseline>>,
        flying: BTreeMap<(u64, u64), (SocketAddr, Vec<u8>)>,
        deaf: Option<usize>,
        told: Vec<(u64, usize, Event)>,
        largest: usize,
    }

    impl Small {
        fn new(nodes: usize) -> Self {
            let mut small = Self {
                now_us: 0,
                sent: 0,
                nodes: (0..nodes).map(|_| None).collect(),
                flying: BTreeMap::new(),
                deaf: None,
                told: Vec::new(),
                largest: 0,
            };
            (0..nodes).for_each(|n| small.start(n, 1));
            small
        }

        fn start(&mut self, n: usize, generation: u64) {
            let addr = host::address(u32::try_from(n).unwrap());
            let issuer = crate::authority::Issuer::new(ClusterId::from_bytes([9; 16]));
            let start = Start {
                cluster: ClusterId::from_bytes([9; 16]),
                id: id(n),
                generation,
                addr,
                record: host::record("n", Role::Worker, addr, now(self.now_us)),
                keyring: Keyring::new(1, [(1, [0; 32])]).unwrap(),
                anchors: issuer.anchor().into(),
                credential: issuer.credential(id(n), Role::Worker, 0),
                decisions: Vec::new(),
                tables: Vec::new(),
                seed: [u8::try_from(n).unwrap(); 32],
                contacts: vec![host::address(0), host::address(1)],
                config: Config::lan(),
            };
            self.nodes[n] = Some(Baseline::new(start, self.nodes.len(), now(self.now_us)));
        }

        fn drain(&mut self, n: usize) {
            while let Some(effect) = self.nodes[n].as_mut().and_then(Baseline::poll_effect) {
                match effect {
                    Effect::Send { to, bytes } => {
                        self.sent += 1;
                        self.largest = self.largest.max(bytes.len());
                        self.flying.insert((self.now_us + DELAY_US, self.sent), (to, bytes));
                    }
                    Effect::Event(event) => self.told.push((self.now_us, n, event)),
                    Effect::PersistGeneration(_)
                    | Effect::Keep { .. }
                    | Effect::KeepTable { .. }
                    | Effect::Forget { .. } => {}
                    Effect::Exchange { .. } => panic!("foca has no exchanges"),
                }
            }
        }

        fn run_for(&mut self, span_us: u64) {
            let end_us = self.now_us + span_us;
            loop {
                let alarm = |node: &Option<Baseline>| node.as_ref().and_then(Baseline::next_timeout_us);
                let wake = (0..self.nodes.len()).filter_map(|n| Some((alarm(&self.nodes[n])?, n))).min();
                let flight = self.flying.keys().next().copied();
                let next_us = wake.map(|(at, _)| at).into_iter().chain(flight.map(|(at, _)| at)).min();
                let Some(next_us) = next_us.filter(|at| *at <= end_us) else { break };
                self.now_us = self.now_us.max(next_us);
                let at = now(self.now_us);
                if let Some(key) = flight.filter(|(at, _)| *at == next_us) {
                    let (to, mut bytes) = self.flying.remove(&key).unwrap();
                    let n = (0..self.nodes.len()).find(|n| host::address(u32::try_from(*n).unwrap()) == to).unwrap();
                    if let Some(node) = self.nodes[n].as_mut().filter(|_| self.deaf != Some(n)) {
                        node.handle_datagram(at, &mut bytes);
                        self.drain(n);
                    }
                } else if let Some((_, n)) = wake {
                    self.nodes[n].as_mut().unwrap().handle_timeout(at);
                    self.drain(n);
                }
            }
            self.now_us = end_us;
            for node in self.nodes.iter().flatten() {
                assert_eq!(node.mirror_errors(), Vec::<String>::new());
            }
        }

        fn statuses(&self, observer: usize) -> Vec<(Status, u64)> {
            let members = self.nodes[observer].as_ref().unwrap().members();
            members.iter().map(|member| (member.status, member.swim.identity.generation)).collect()
        }
    }

    #[test]
    fn they_join_and_find_a_crash_and_a_restart() {
        let mut small = Small::new(8);
        small.run_for(60 * S);
        for n in 0..8 {
            assert_eq!(small.statuses(n), vec![(Status::Ready, 1); 8], "n{n}");
            assert!(small.nodes[n].as_ref().unwrap().is_joined());
        }
        small.nodes[3] = None;
        small.run_for(30 * S);
        for n in [0, 1, 2, 4, 5, 6, 7] {
            assert_eq!(small.statuses(n)[3], (Status::Down, 1), "n{n}");
        }
        small.start(3, 2);
        small.run_for(30 * S);
        for n in 0..8 {
            assert_eq!(small.statuses(n)[3], (Status::Ready, 2), "n{n}");
        }
        assert!(small.largest <= DATAGRAM_BYTES_MAX);
        let renewals = |node: &Baseline| node.stats().renewals;
        assert_eq!(small.nodes.iter().flatten().map(renewals).sum::<u64>(), 0);
    }

    #[test]
    fn revisions_grow_by_one_and_events_say_what_was_before() {
        let mut small = Small::new(6);
        small.run_for(20 * S);
        small.nodes[5] = None;
        small.run_for(30 * S);
        for n in 0..5 {
            let (mut revision, mut rows) = (1, BTreeMap::new());
            for (_, _, event) in small.told.iter().filter(|(_, observer, _)| *observer == n) {
                if let Event::Member { revision: next, old, new, .. } = event {
                    assert_eq!(*next, revision + 1);
                    revision = *next;
                    let row = new.clone().unwrap();
                    assert_eq!(rows.insert(row.swim.identity.id, row), *old);
                }
            }
            assert_eq!(revision, small.nodes[n].as_ref().unwrap().revision());
            assert_eq!(rows.len(), 5);
        }
    }

    #[test]
    fn a_deaf_node_makes_others_renew() {
        let mut small = Small::new(8);
        small.run_for(60 * S);
        small.deaf = Some(2);
        small.run_for(120 * S);
        let renewals: Vec<_> = small.nodes.iter().flatten().map(|node| node.stats().renewals).collect();
        assert!(renewals.iter().sum::<u64>() > 0, "{renewals:?}");
        assert!(small.nodes[2].as_ref().unwrap().stats().probes_failed > 0);
    }

    #[test]
    fn a_leave_ends_and_looks_like_a_crash() {
        let mut small = Small::new(5);
        small.run_for(30 * S);
        let at = now(small.now_us);
        small.nodes[4].as_mut().unwrap().handle_command(at, Command::Leave);
        small.drain(4);
        small.run_for(2 * S);
        let done = |(_, n, event): &(u64, usize, Event)| *n == 4 && matches!(event, Event::LeaveDone { .. });
        assert_eq!(small.told.iter().filter(|told| done(told)).count(), 1);
        for n in 0..4 {
            assert_eq!(small.statuses(n)[4], (Status::Down, 1), "n{n}");
        }
        assert_eq!(small.nodes[4].as_ref().unwrap().stats().renewals, 0);
    }

    #[test]
    fn an_address_change_is_a_higher_generation() {
        let mut small = Small::new(4);
        small.run_for(30 * S);
        let at = now(small.now_us);
        let addr = small.nodes[1].as_ref().unwrap().identity().addr;
        small.nodes[1].as_mut().unwrap().handle_command(at, Command::Readdress(addr));
        small.drain(1);
        small.run_for(5 * S);
        for n in 0..4 {
            assert_eq!(small.statuses(n)[1], (Status::Ready, 2), "n{n}");
        }
    }

    #[test]
    fn the_same_seeds_give_the_same_run() {
        let run = || {
            let mut small = Small::new(7);
            small.run_for(20 * S);
            small.nodes[1] = None;
            small.run_for(30 * S);
            (small.sent, small.told)
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn its_figures_are_those_of_foca() {
        let mut small = Small::new(25);
        small.run_for(60 * S);
        let sent = small.sent;
        small.run_for(60 * S);
        // A ping and an ack in each second, and an announce with its answer every half minute.
        let thousandths = (small.sent - sent) * 1_000 / (25 * 60);
        assert!((2_000..2_200).contains(&thousandths), "{thousandths}");
        let crash_us = small.now_us;
        small.nodes[9] = None;
        small.run_for(30 * S);
        let downs = small.told.iter().map(|(at_us, ..)| *at_us).filter(|at_us| *at_us > crash_us);
        let after_us: Vec<_> = downs.map(|at_us| at_us - crash_us).collect();
        // All in the end, but not all through gossip: who misses it has to find out by its own probes.
        assert_eq!(after_us.len(), 24);
        // The suspicion alone takes 4 s · log10(25) = 5.6 s.
        assert!(after_us[0] >= 5_600_000 && after_us[12] < 11_000_000, "{after_us:?}");
    }
}
