//! The event loop, and what may be done to the machines in it.
//!
//! Everything happens in one total order: by virtual time in microseconds, then by the order in which it was
//! scheduled.
//!
//! * `queue`: what is still to happen;
//! * `drive`: nodes are given their inputs, and what they ask for is carried out;
//! * `exchange`: connections, segment by segment;
//! * `machine`: starting, stopping, stopping for a while, and whatever else befalls a host;
//! * `strangers`: bytes that nobody of the cluster sends;
//! * `decide`: somebody decides something, and what daemons do about it; `rulings`: all that was decided;
//! * `forge`: decisions that nobody may make;
//! * `tables`: owners write, and what others show is followed; `registry`: all that was written; `tables_audit`: looks at
//!   whole nodes;
//! * `readers`: local programs that watch;
//! * `audit`: looks at whole nodes;
//! * `truth`: what really is the case, beside what each node believes, and the book of what was seen.
//!
//! Not here: what the network does to a packet (`net`), which faults there are and when (`plan`, `run`).

mod audit;
mod decide;
mod drive;
mod exchange;
mod forge;
mod machine;
mod queue;
mod readers;
mod registry;
mod rulings;
mod strangers;
mod tables;
mod tables_audit;
mod together;
mod truth;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gossipd::node::{Commons, Config, Node};
use gossipd::record::{ClusterId, NodeId, Status};
use gossipd::wire::Keyring;
use rand::Rng;

use self::drive::Happening;
use self::exchange::Call;
use self::queue::Queue;
pub use self::readers::ReaderCounts;
use self::readers::Readers;
pub use self::registry::Registry;
pub use self::rulings::{Accepted, Question, Rulings};
use self::truth::Truth;
pub use self::truth::{Book, Counts, Watch};
use crate::authority::Issuer;
use crate::brain::Brain;
use crate::checks::Checks;
use crate::host::{Host, HostId, Totals};
use crate::luck::{Luck, Purpose};
use crate::net::Net;
use crate::outcome::{Protocol, StatusChange};
use crate::plan::Network;
use crate::trace::Trace;
use crate::view::Row;

/// How exactly [`World::run_until`] finds the moment, in microseconds.
pub const STEP_US: u64 = 1_000;
/// Datagrams that a tap keeps.
pub const TAPPED_MAX: usize = 4_096;
/// Bytes of IPv4 and UDP headers around each datagram.
pub const HEADER_BYTES: u64 = 28;

/// What becomes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// There is none.
    Off,
    /// Standard error.
    Told,
    /// It is written and thrown away: to see that writing it changes nothing.
    Discarded,
}

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// The network.
    pub network: Network,
    /// What runs on every host.
    pub protocol: Protocol,
    /// The constants of every node.
    pub node: Config,
    /// Whether to tell what happens.
    pub logs: Logs,
}

impl Setup {
    /// The `lan` profile on a faultless network.
    pub fn new(seed: u64) -> Self {
        Self { seed, network: Network::lan(), protocol: Protocol::Gossipd, node: Config::lan(), logs: Logs::Off }
    }
}

/// What nodes sent, from the start of the world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes on the wire, headers included.
    pub datagram_bytes: u64,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Bytes of requests and replies.
    pub exchange_bytes: u64,
    /// Time that nodes ran, summed over them, in microseconds.
    pub alive_us: u64,
}

/// Machines, the network between them, and virtual time.
pub struct World {
    protocol: Protocol,
    config: Config,
    cluster: ClusterId,
    keyring: Keyring,
    issuer: Issuer,
    /// What all nodes hold once.
    commons: Commons,
    luck: Luck,
    net: Net,
    logs: Logs,

    now_us: u64,
    queue: Queue<Happening>,
    handled: u64,

    hosts: Vec<Host>,
    /// Which host has which address, by the address's number.
    homes: Vec<Option<HostId>>,
    calls: BTreeMap<u64, Call>,
    call_count: u64,
    living: u64,
    /// The most that ran at once since it was asked last.
    living_peak: u64,

    trace: Trace,
    checks: Checks,
    truth: Truth,
    rulings: Rulings,
    registry: Registry,
    readers: Readers,
    /// Whose program writes at this moment.
    writer: Option<HostId>,
    book: Book,
    /// Hits of faults on hosts, by their numbers.
    hits: BTreeMap<u64, u64>,
    sent: Sent,
    /// Faults put on by hand.
    by_hand: u64,
}

impl World {
    /// An empty world at time 0.
    pub fn new(setup: Setup) -> Self {
        let Setup { seed, network, protocol, node, logs } = setup;
        let luck = Luck::new(seed);
        let mut names = luck.stream(Purpose::Names);
        let mut cluster = [0; 16];
        names.fill_bytes(&mut cluster);
        let mut key = [0; 32];
        names.fill_bytes(&mut key);
        #[expect(clippy::expect_used, reason = "one key, which is the primary")]
        let keyring = Keyring::new(1, [(1, key)]).expect("a ring of one key");
        Self {
            checks: Checks::new(&node, protocol),
            protocol,
            config: node,
            cluster: ClusterId::from_bytes(cluster),
            issuer: Issuer::new(ClusterId::from_bytes(cluster)),
            keyring,
            commons: Commons::default(),
            luck,
            net: Net::new(network),
            logs,
            now_us: 0,
            queue: Queue::new(),
            handled: 0,
            hosts: Vec::new(),
            homes: Vec::new(),
            calls: BTreeMap::new(),
            call_count: 0,
            living: 0,
            living_peak: 0,
            trace: Trace::default(),
            truth: Truth::default(),
            rulings: Rulings::default(),
            registry: Registry::default(),
            readers: Readers::default(),
            writer: None,
            book: Book::default(),
            hits: BTreeMap::new(),
            sent: Sent::default(),
            by_hand: 0,
        }
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Virtual time, in microseconds.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Inputs handled so far.
    pub const fn handled(&self) -> u64 {
        self.handled
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId::new)
    }

    /// Hosts on which a node runs now.
    pub fn living(&self) -> impl Iterator<Item = HostId> {
        self.hosts().filter(|id| self.lives(*id))
    }

    /// How many.
    pub const fn living_count(&self) -> u64 {
        self.living
    }

    /// The most that ran at once since this was asked last.
    pub(crate) const fn take_living_peak(&mut self) -> u64 {
        std::mem::replace(&mut self.living_peak, self.living)
    }

    /// Whether a node runs on `host` now.
    pub fn lives(&self, host: HostId) -> bool {
        self.host(host).node.is_some()
    }

    /// The production node on `host`, if one runs there.
    pub fn node(&self, host: HostId) -> Option<&Node> {
        self.brain(host)?.gossipd()
    }

    fn brain(&self, host: HostId) -> Option<&Brain> {
        self.host(host).node.as_ref()
    }

    /// The node id of whoever runs on `host`.
    pub fn node_id(&self, host: HostId) -> NodeId {
        self.host(host).node_id
    }

    /// The address of `host`.
    pub fn addr(&self, host: HostId) -> SocketAddr {
        self.host(host).addr
    }

    /// What `observer`'s events say of `subject`; none: not listed.
    pub fn row(&self, observer: HostId, subject: HostId) -> Option<&Row> {
        self.host(observer).view.get(self.host(subject).number)
    }

    /// The status that `observer` lists for `subject`; none: not listed.
    pub fn status(&self, observer: HostId, subject: HostId) -> Option<Status> {
        self.row(observer, subject).map(|row| row.status)
    }

    /// Changes of status, life or address that anybody saw, in order; the first appearances of a node in a large world
    /// are left out.
    pub fn sightings(&self) -> &[StatusChange] {
        &self.book.changes
    }

    /// What was seen so far.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    pub(crate) const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// What was sent so far.
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// Wire bytes that `host` sent so far.
    pub fn sent_by(&self, host: HostId) -> u64 {
        self.host(host).sent_bytes
    }

    /// Counters of all lives of `host`.
    pub fn totals(&self, host: HostId) -> Totals {
        self.host(host).totals()
    }

    /// Counters of all lives of all hosts together.
    pub(crate) fn all_totals(&self) -> Totals {
        let mut all = Totals::default();
        self.hosts.iter().for_each(|host| all.merge(&host.totals()));
        all
    }

    /// What was checked so far.
    pub const fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(crate) const fn checks_mut(&mut self) -> &mut Checks {
        &mut self.checks
    }

    /// Packets, timers and calls that a fault has touched so far.
    pub fn hits(&self, fault: u64) -> u64 {
        self.net.hits(fault) + self.hits.get(&fault).copied().unwrap_or_default()
    }

    /// The hash over everything so far.
    pub const fn trace(&self) -> Trace {
        self.trace
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    /// Runs until virtual time `until_us`.
    pub fn run_to(&mut self, until_us: u64) {
        while let Some((at_us, happening)) = self.queue.pop(until_us) {
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

    fn pass_time(&mut self, to_us: u64) {
        let passed_us = to_us.saturating_sub(self.now_us);
        if passed_us > 0 {
            self.sent.alive_us += passed_us * self.living;
            self.now_us = to_us;
        }
    }

    // ---- inside --------------------------------------------------------------------------------------------------

    /// A fault has touched something.
    pub(crate) fn count_hit(&mut self, fault: u64) {
        self.hit(Some(fault));
    }

    pub(crate) fn under(&mut self, host: HostId) -> &mut crate::host::Under {
        &mut self.host_mut(host).under
    }

    fn hit(&mut self, fault: Option<u64>) {
        if let Some(fault) = fault {
            *self.hits.entry(fault).or_default() += 1;
        }
    }

    fn log(&self, host: HostId, what: impl FnOnce() -> String) {
        if self.logs == Logs::Off {
            return;
        }
        let (s, us) = (self.now_us / 1_000_000, self.now_us % 1_000_000);
        let line = format!("{s:>6}.{us:06} {host:<6} {}", what());
        if self.logs == Logs::Told {
            use std::io::Write;
            // Nothing to be done if standard error is gone.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Which host has this address.
    fn home(&self, addr: SocketAddr) -> Option<HostId> {
        self.homes.get(crate::host::address_number(addr)?).copied().flatten()
    }

    #[expect(clippy::indexing_slicing, reason = "ids are handed out by `add`, and hosts are never removed")]
    fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.index()]
    }

    #[expect(clippy::indexing_slicing, reason = "ids are handed out by `add`, and hosts are never removed")]
    fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.index()]
    }
}
