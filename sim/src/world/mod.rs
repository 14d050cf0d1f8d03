//! The event loop, and what may be done to the machines in it.
//!
//! Everything happens in one total order: by virtual time in microseconds, then by the order in which it was
//! scheduled.
//!
//! Not here: how nodes are driven (`events`), what the network does to a datagram (`net`), and what a run amounts to
//! (`plan`, `report`).

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use gossipd::node::{Command, Config, Node, Start};
use gossipd::record::{ClusterId, NodeId, Role, Status};
use gossipd::wire::Keyring;
use rand::Rng;

use self::events::Happening;
use crate::checks::Checks;
use crate::host::{self, Host, HostId, Totals};
use crate::luck::{Luck, Purpose};
use crate::net::{CutId, Link, Net};
use crate::trace::Trace;
use crate::view::{Row, Sighting, View};

/// How exactly [`World::run_until`] finds the moment, in microseconds.
pub const STEP_US: u64 = 1_000;
/// How long an exchange waits for a host that cannot be reached, in microseconds.
pub const EXCHANGE_TIMEOUT_US: u64 = 3_000_000;
/// Datagrams that a tap keeps.
pub const TAPPED_MAX: usize = 4_096;
/// Least number of events between two comparisons of a node's member table with foca's list.
const MIRROR_EVENTS_MIN: u64 = 64;

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// The network.
    pub link: Link,
    /// The constants of every node.
    pub node: Config,
}

impl Setup {
    /// The `lan` profile on a faultless network.
    pub fn new(seed: u64) -> Self {
        Self { seed, link: Link::default(), node: Config::lan() }
    }
}

/// What nodes sent, from the start of the world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes (UDP payload).
    pub datagram_bytes: u64,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Bytes of requests and replies.
    pub exchange_bytes: u64,
    /// Time that nodes were alive, summed over them, in microseconds.
    pub alive_us: u64,
}

/// Machines, the network between them, and virtual time.
pub struct World {
    config: Config,
    cluster: ClusterId,
    keyring: Keyring,
    luck: Luck,
    net: Net,

    now_us: u64,
    scheduled: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    handled: u64,

    hosts: Vec<Host>,
    ids: BTreeMap<NodeId, HostId>,
    homes: BTreeMap<SocketAddr, HostId>,
    addresses: u32,

    trace: Trace,
    checks: Checks,
    sightings: Vec<Sighting>,
    /// Hosts that share an id with another.
    rivals: BTreeSet<HostId>,
    conflicts: Vec<(HostId, bool)>,
    sent: Sent,
}

impl World {
    /// An empty world at time 0.
    pub fn new(setup: Setup) -> Self {
        let Setup { seed, link, node } = setup;
        let luck = Luck::new(seed);
        let mut names = luck.stream(Purpose::Names);
        let mut cluster = [0; 16];
        names.fill_bytes(&mut cluster);
        let mut key = [0; 32];
        names.fill_bytes(&mut key);
        #[expect(clippy::expect_used, reason = "one key, which is the primary")]
        let keyring = Keyring::new(1, [(1, key)]).expect("a ring of one key");
        Self {
            config: node,
            cluster: ClusterId::from_bytes(cluster),
            keyring,
            luck,
            net: Net::new(link),
            now_us: 0,
            scheduled: 0,
            queue: BTreeMap::new(),
            handled: 0,
            hosts: Vec::new(),
            ids: BTreeMap::new(),
            homes: BTreeMap::new(),
            addresses: 0,
            trace: Trace::default(),
            checks: Checks::default(),
            sightings: Vec::new(),
            rivals: BTreeSet::new(),
            conflicts: Vec::new(),
            sent: Sent::default(),
        }
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Virtual time, in microseconds.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Events handled so far.
    pub const fn handled(&self) -> u64 {
        self.handled
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId::new)
    }

    /// Hosts on which a node lives now.
    pub fn living(&self) -> impl Iterator<Item = HostId> {
        self.hosts().filter(|id| self.lives(*id))
    }

    /// Whether a node lives on `host` now.
    pub fn lives(&self, host: HostId) -> bool {
        self.host(host).node.is_some()
    }

    /// The node on `host`, if one lives there.
    pub fn node(&self, host: HostId) -> Option<&Node> {
        self.host(host).node.as_ref()
    }

    /// The node id of whoever lives on `host`.
    pub fn node_id(&self, host: HostId) -> NodeId {
        self.host(host).node_id
    }

    /// The address of `host`.
    pub fn addr(&self, host: HostId) -> SocketAddr {
        self.host(host).addr
    }

    /// What `observer`'s events say of `subject`; none: not listed.
    pub fn row(&self, observer: HostId, subject: HostId) -> Option<&Row> {
        self.host(observer).view.get(self.node_id(subject))
    }

    /// The status that `observer` lists for `subject`; none: not listed.
    pub fn status(&self, observer: HostId, subject: HostId) -> Option<Status> {
        self.row(observer, subject).map(|row| row.status)
    }

    /// Every change of status, life or address that anybody saw, in order.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// What was sent so far.
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// Counters of all lives of `host`.
    pub fn totals(&self, host: HostId) -> Totals {
        self.host(host).totals()
    }

    /// What was checked so far.
    pub const fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The hash over everything so far.
    pub const fn trace(&self) -> Trace {
        self.trace
    }

    /// Whether every living node lists exactly the living ones as ready, each in its present life at its present
    /// address, and nobody as suspect.
    pub fn is_settled(&self) -> bool {
        let alive: Vec<_> = self.living().filter_map(|id| Some((id, self.node(id)?.identity()))).collect();
        let counts_agree = alive.iter().all(|(id, _)| {
            let view = &self.host(*id).view;
            view.ready() + 1 == alive.len() && view.suspect() == 0
        });
        counts_agree
            && alive.iter().all(|(observer, _)| {
                let view = &self.host(*observer).view;
                alive.iter().filter(|(subject, _)| subject != observer).all(|(_, identity)| {
                    view.get(identity.id).is_some_and(|row| row.status == Status::Ready && row.identity == *identity)
                })
            })
    }

    // ---- what may be done to it ----------------------------------------------------------------------------------

    /// Adds a machine and starts a node on it that is told where `contacts` are. The first one is a manager.
    pub fn spawn(&mut self, contacts: &[HostId]) -> HostId {
        let id = HostId::new(self.hosts.len());
        let role = if self.hosts.is_empty() { Role::Manager } else { Role::Worker };
        let mut node_id = [0; 16];
        self.luck.of_host(Purpose::Names, id).fill_bytes(&mut node_id);
        let node_id = NodeId::from_bytes(node_id);
        let contacts = contacts.iter().map(|contact| self.addr(*contact)).collect();
        let addr = self.new_address();
        self.hosts.push(Host::new(node_id, role, addr, contacts));
        self.ids.insert(node_id, id);
        self.net.attach(self.luck, id);
        self.start(id);
        id
    }

    /// Adds a machine with a copy of the disk of `host`, and starts a node on it: two live nodes with one id.
    pub fn spawn_clone(&mut self, host: HostId) -> HostId {
        let id = HostId::new(self.hosts.len());
        let addr = self.new_address();
        let Host { node_id, role, contacts, disk, .. } = self.host(host);
        let mut clone = Host::new(*node_id, *role, addr, contacts.clone());
        clone.disk = *disk;
        self.hosts.push(clone);
        self.rivals.extend([host, id]);
        self.net.attach(self.luck, id);
        self.start(id);
        id
    }

    /// Who reported another node with its id, in order, and whether it then gave way.
    pub fn conflicts(&self) -> &[(HostId, bool)] {
        &self.conflicts
    }

    /// Ends the node on `host` at once, without a word.
    pub fn crash(&mut self, host: HostId) {
        if self.lives(host) {
            let addr = self.addr(host);
            self.homes.remove(&addr);
            self.host_mut(host).stop();
        }
    }

    /// Starts a node on `host` with the id and generation of its disk, after a crash if one still lives there. It is
    /// told its first contacts again.
    pub fn restart(&mut self, host: HostId) {
        self.crash(host);
        self.start(host);
    }

    /// As [`World::restart`], at an address that nobody had before.
    pub fn restart_elsewhere(&mut self, host: HostId) {
        self.crash(host);
        let addr = self.new_address();
        self.host_mut(host).addr = addr;
        self.start(host);
    }

    /// Replaces what `host` knows before its next start: the generation on its disk, and what its clock is off by.
    pub fn set_back(&mut self, host: HostId, disk: u64, skew_ms: i64) {
        let host = self.host_mut(host);
        (host.disk, host.skew_ms) = (disk, skew_ms);
    }

    /// Orders the node on `host` to say goodbye; it is gone once it says that this is done.
    pub fn leave(&mut self, host: HostId) {
        self.with_node(host, |node, now| node.handle_command(now, Command::Leave));
    }

    /// From now on nothing gets from any of `from` to any of `to`.
    pub fn cut(&mut self, from: &[HostId], to: &[HostId]) -> CutId {
        self.net.cut(from, to)
    }

    /// Cuts both directions.
    pub fn split(&mut self, one: &[HostId], other: &[HostId]) -> [CutId; 2] {
        [self.net.cut(one, other), self.net.cut(other, one)]
    }

    /// Ends a cut.
    pub fn heal(&mut self, cut: CutId) {
        self.net.heal(cut);
    }

    /// Delivers `bytes` to the node on `host` at this very moment, whoever made them.
    pub fn inject(&mut self, host: HostId, mut bytes: Vec<u8>) {
        self.trace.bytes(&bytes);
        self.with_node(host, |node, now| node.handle_datagram(now, &mut bytes));
    }

    /// From now on, keeps copies of the datagrams that are delivered to `host`.
    pub fn tap(&mut self, host: HostId) {
        self.host_mut(host).tap = Some(Vec::new());
    }

    /// What the tap of `host` has caught since it was asked last.
    pub fn tapped(&mut self, host: HostId) -> Vec<Vec<u8>> {
        self.host_mut(host).tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Runs until virtual time `until_us`.
    pub fn run_to(&mut self, until_us: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let at_us = entry.key().0;
            if at_us > until_us {
                break;
            }
            let happening = entry.remove();
            self.pass_time(at_us);
            self.happen(happening);
        }
        self.pass_time(until_us);
    }

    /// Runs for `span_us` of virtual time.
    pub fn run_for(&mut self, span_us: u64) {
        self.run_to(self.now_us + span_us);
    }

    /// Runs until `holds`, asked every [`STEP_US`], or until `deadline_us`. Says when it held.
    pub fn run_until(&mut self, deadline_us: u64, mut holds: impl FnMut(&Self) -> bool) -> Option<u64> {
        loop {
            if holds(self) {
                return Some(self.now_us);
            }
            if self.now_us >= deadline_us {
                return None;
            }
            self.run_to((self.now_us + STEP_US).min(deadline_us));
        }
    }

    /// Notes the outcome of a check that is made from outside, under its name.
    pub fn check(&mut self, name: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.checks.that(name, holds, what);
    }

    /// The checks that are made once, at the end of a run: every listing against its events, every table against foca.
    pub fn check_all(&mut self) {
        for id in self.hosts() {
            self.check_mirror(id);
            let host = self.host(id);
            let Some(node) = &host.node else { continue };
            let differences = host.view.differences(host.node_id, &node.members());
            let totals = host.totals();
            self.checks.that("events add up to the listing", differences.is_empty(), || {
                format!("{id}: {}", differences.join("; "))
            });
            self.checks
                .that("foca returns no error", totals.swim_errors == 0, || format!("{id}: {}", totals.swim_errors));
        }
    }

    // ---- machines ------------------------------------------------------------------------------------------------

    fn start(&mut self, id: HostId) {
        let now_us = self.now_us;
        let (cluster, keyring, config, luck) = (self.cluster, self.keyring.clone(), self.config.clone(), self.luck);
        let host = self.host_mut(id);
        let now = host.now(now_us);
        host.life += 1;
        host.disk = host.next_generation(now_us);
        let start = Start {
            cluster,
            id: host.node_id,
            generation: host.disk,
            addr: host.addr,
            record: host::record(&id.to_string(), host.role, host.addr, now),
            keyring,
            seed: luck.life_seed(id, host.life),
            contacts: host.contacts.clone(),
            config,
        };
        let node = Node::new(start, now);
        host.view = View::new(node.revision());
        host.node = Some(node);
        let addr = host.addr;
        self.homes.insert(addr, id);
        self.set_alarm(id);
    }

    fn new_address(&mut self) -> SocketAddr {
        self.addresses += 1;
        host::address(self.addresses - 1)
    }

    #[expect(clippy::indexing_slicing, reason = "ids are handed out by `spawn`, and hosts are never removed")]
    fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.index()]
    }

    #[expect(clippy::indexing_slicing, reason = "ids are handed out by `spawn`, and hosts are never removed")]
    fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.index()]
    }
}
