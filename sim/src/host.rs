//! One machine: its disk, its clock, its address, and the node that lives on it now, if any.
//!
//! Not here: the network between machines, and when things happen.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gossipd::node::{ExchangeError, ExchangeId, Identity, KeptTables, Kind, Now, Peer, Stats, Write};
use gossipd::record::{Availability, Details, NodeId, NodeRecord, Role};
use gossipd::wire::decision::SignedDecision;

use crate::brain::Brain;
use crate::view::View;

/// The wall clock at virtual time zero, in milliseconds since the Unix epoch.
pub const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;
/// The port that every node listens on.
const PORT: u16 = 7946;

/// Names a host of a world, by the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

impl HostId {
    pub(crate) const fn new(index: usize) -> Self {
        Self(index)
    }

    /// The host with this number, from 0.
    pub const fn from_index(index: usize) -> Self {
        Self(index)
    }

    /// Its number, from 0.
    pub const fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Counters of all lives of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Times a node had to take a new generation because others held it for down.
    pub renewals: u64,
    /// Suspicions that their subjects refuted.
    pub refutations: u64,
    /// Probes that ended without any answer.
    pub probes_failed: u64,
    /// Messages held back because the member had refuted.
    pub undead_withheld: u64,
    /// Errors that foca returned.
    pub swim_errors: u64,
    /// Records refused.
    pub records_refused: u64,
    /// Datagrams dropped, whatever the cause.
    pub drops: u64,
    /// Datagrams sent about tables.
    pub table_datagrams: u64,
    /// Their payload.
    pub table_bytes: u64,
    /// Steps of tables taken in.
    pub steps_taken: u64,
    /// Steps of tables that brought nothing new.
    pub steps_known: u64,
}

impl Totals {
    /// Adds other totals.
    pub fn merge(&mut self, other: &Self) {
        let Self { renewals, refutations, probes_failed, undead_withheld, swim_errors, records_refused, drops, .. } =
            other;
        self.table_datagrams += other.table_datagrams;
        self.table_bytes += other.table_bytes;
        self.steps_taken += other.steps_taken;
        self.steps_known += other.steps_known;
        self.renewals += renewals;
        self.refutations += refutations;
        self.probes_failed += probes_failed;
        self.undead_withheld += undead_withheld;
        self.swim_errors += swim_errors;
        self.records_refused += records_refused;
        self.drops += drops;
    }

    /// Adds one life's counters.
    pub fn add(&mut self, stats: &Stats) {
        self.renewals += stats.renewals;
        self.refutations += stats.refutations;
        self.probes_failed += stats.probes_failed;
        self.undead_withheld += stats.undead_withheld;
        self.swim_errors += stats.swim_errors;
        self.records_refused += stats.records_refused;
        self.drops += stats.drops().map(|(_, count)| count).sum::<u64>();
        let of_tables = stats.sent().filter(|(kind, _)| *kind == Kind::Tables).map(|(_, traffic)| traffic);
        for traffic in of_tables {
            self.table_datagrams += traffic.datagrams;
            self.table_bytes += traffic.bytes;
        }
        self.steps_taken += stats.steps_taken;
        self.steps_known += stats.steps_known;
    }
}

/// Something that waits for the process on a host.
pub(crate) enum Input {
    /// A datagram, and whether it is not what its sender sent.
    Datagram { from: HostId, bytes: Vec<u8>, is_mangled: bool },
    /// A connection that wants to greet.
    Hello { call: u64 },
    /// A request on a connection.
    Request { call: u64 },
    /// The outcome of an exchange of its own.
    Outcome { id: ExchangeId, outcome: Result<(Peer, Vec<u8>), ExchangeError> },
    /// A datagram of its own came back.
    Refused { to: SocketAddr },
    /// A program writes into its tables.
    Write { number: u64, write: Write },
}

/// Receive buffer of a machine, in bytes.
pub const BUFFER_BYTES: usize = 4 << 20;
/// Inputs that a node takes before it looks at its timers.
pub(crate) const INPUTS_PER_TURN: u32 = 128;

/// One machine.
pub(crate) struct Host {
    /// The number of its present node id among all that were ever born.
    pub(crate) number: usize,
    pub(crate) node_id: NodeId,
    pub(crate) role: Role,
    pub(crate) addr: SocketAddr,
    pub(crate) contacts: Vec<SocketAddr>,
    /// What its wall clock is off by, in milliseconds.
    pub(crate) skew_ms: i64,
    /// What its wall clock gains, in parts per million, and since when.
    pub(crate) drift_ppm: i64,
    pub(crate) drift_since_us: u64,
    /// The highest generation on its disk.
    pub(crate) disk: u64,
    /// Decisions on its disk.
    pub(crate) kept: BTreeMap<u64, Arc<SignedDecision>>,
    /// Its own tables, as they are on its disk.
    pub(crate) kept_tables: KeptTables,
    /// Its present life began without the tables of the last one.
    pub(crate) has_lost_tables: bool,
    /// When its certificate was issued, in milliseconds since virtual time zero.
    pub(crate) issued_ms: u64,
    /// It learned that it was removed, and forgot its cluster.
    pub(crate) is_removed: bool,
    /// Its disk as it was then: generation, decisions, peers.
    pub(crate) copy: Option<Box<DiskCopy>>,
    /// When its present life began.
    pub(crate) started_us: u64,
    /// Peers on its disk.
    pub(crate) peers: Vec<SocketAddr>,
    /// Counts its lives; what was begun in an earlier one is void.
    pub(crate) life: u64,
    pub(crate) node: Option<Brain>,
    /// Its identity, as of its last input.
    pub(crate) identity: Option<Identity>,
    /// The present life's events folded; of the last one while there is none.
    pub(crate) view: View,
    /// When the next wake-up that counts is due.
    pub(crate) wake_us: Option<u64>,
    /// Its node said that it has left: it is removed once its effects are drained.
    pub(crate) done: bool,
    /// Counters of earlier lives.
    pub(crate) past: Totals,
    /// Copies of the datagrams delivered here, when somebody listens.
    pub(crate) tap: Option<Vec<Vec<u8>>>,

    /// The machine itself is there.
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    /// Time that each input takes, in microseconds.
    pub(crate) service_us: u64,
    /// When it was slow last, in virtual microseconds.
    pub(crate) slow_us: u64,
    pub(crate) buffer_bytes: usize,
    /// Bytes a second that it can send; none: any number.
    pub(crate) egress_bytes_per_s: Option<u64>,
    pub(crate) egress_free_us: u64,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) inbox_bytes: usize,
    /// Inputs taken since it looked at its timers.
    pub(crate) taken: u32,
    /// It takes its next input at a time that is scheduled.
    pub(crate) is_busy: bool,
    /// The faults that it is under, by what they do: numbers in the plan.
    pub(crate) under: Under,
    /// Faults on it at present.
    pub(crate) faults: u32,
    /// It counts as healthy from then on, if no fault is on it.
    pub(crate) well_from_us: u64,
    /// Wire bytes that it sent.
    pub(crate) sent_bytes: u64,
    /// Datagram bytes that it sent within the present virtual second.
    pub(crate) second_bytes: u64,
}

/// A copy of a disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskCopy {
    generation: u64,
    kept: BTreeMap<u64, Arc<SignedDecision>>,
    kept_tables: KeptTables,
    peers: Vec<SocketAddr>,
}

/// Which fault does what to a host, for counting what it hits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Under {
    pub(crate) death: Option<u64>,
    pub(crate) pause: Option<u64>,
    pub(crate) slow: Option<u64>,
    pub(crate) starve: Option<u64>,
    pub(crate) throttle: Option<u64>,
    pub(crate) clock: Option<u64>,
}

impl Host {
    pub(crate) fn new(number: usize, node_id: NodeId, role: Role, addr: SocketAddr, contacts: Vec<SocketAddr>) -> Self {
        Self {
            number,
            node_id,
            role,
            addr,
            contacts,
            skew_ms: 0,
            drift_ppm: 0,
            drift_since_us: 0,
            disk: 0,
            kept: BTreeMap::new(),
            kept_tables: KeptTables::default(),
            has_lost_tables: false,
            issued_ms: 0,
            is_removed: false,
            copy: None,
            started_us: 0,
            peers: Vec::new(),
            life: 0,
            node: None,
            identity: None,
            view: View::default(),
            wake_us: None,
            done: false,
            past: Totals::default(),
            tap: None,
            is_up: true,
            is_paused: false,
            service_us: 0,
            slow_us: 0,
            buffer_bytes: BUFFER_BYTES,
            egress_bytes_per_s: None,
            egress_free_us: 0,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            taken: 0,
            is_busy: false,
            under: Under::default(),
            faults: 0,
            well_from_us: 0,
            sent_bytes: 0,
            second_bytes: 0,
        }
    }

    /// Both of its clocks at virtual time `now_us`.
    pub(crate) fn now(&self, now_us: u64) -> Now {
        let drift_us = i128::from(now_us.saturating_sub(self.drift_since_us)) * i128::from(self.drift_ppm) / 1_000_000;
        let drift_ms = i64::try_from(drift_us / 1_000).unwrap_or_default();
        let unix_ms = (EPOCH_UNIX_MS + now_us / 1_000).saturating_add_signed(self.skew_ms + drift_ms);
        Now { mono_us: now_us, unix_ms }
    }

    /// The generation of the next life: above the disk's, and not below the clock.
    pub(crate) fn next_generation(&self, now_us: u64) -> u64 {
        (self.disk + 1).max(self.now(now_us).unix_ms / 1_000)
    }

    /// Ends the present life, keeping its counters and what is on the disk.
    pub(crate) fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            self.past.add(node.stats());
            self.peers = node.contacts();
        }
        (self.identity, self.wake_us, self.taken) = (None, None, 0);
        (self.done, self.is_paused) = (false, false);
        self.inbox.clear();
        self.inbox_bytes = 0;
    }

    /// Its node was removed and has ended: all that it knew of the cluster is forgotten, but for a copy that somebody took.
    pub(crate) fn forget_cluster(&mut self) {
        let Self { disk, kept, kept_tables, peers, .. } = self;
        let (kept, kept_tables) = (std::mem::take(kept), std::mem::take(kept_tables));
        let copy = DiskCopy { generation: *disk, kept, kept_tables, peers: std::mem::take(peers) };
        self.copy = Some(Box::new(copy));
        self.is_removed = true;
    }

    /// Puts that copy back; `false` when there is none.
    pub(crate) fn put_copy_back(&mut self) -> bool {
        let Some(copy) = self.copy.take() else { return false };
        let DiskCopy { generation, kept, kept_tables, peers } = *copy;
        (self.disk, self.kept, self.kept_tables) = (generation, kept, kept_tables);
        (self.peers, self.is_removed) = (peers, false);
        true
    }

    /// Whether no fault is on it, and none was lately.
    pub(crate) const fn is_healthy(&self, now_us: u64) -> bool {
        self.faults == 0 && now_us >= self.well_from_us
    }

    /// Counters of all lives.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.past;
        if let Some(node) = &self.node {
            totals.add(node.stats());
        }
        totals
    }
}

/// The number of an address of the world.
pub(crate) fn address_number(addr: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(addr) = addr else { return None };
    let base = Ipv4Addr::new(10, 0, 0, 1).to_bits();
    (addr.port() == PORT).then(|| addr.ip().to_bits().checked_sub(base)).flatten().map(|number| number as usize)
}

/// The `n`-th address of the world, from 0.
pub(crate) fn address(n: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits().saturating_add(n)), PORT).into()
}

/// What a node on this host says of itself.
pub(crate) fn record(name: &str, role: Role, addr: SocketAddr, now: Now) -> NodeRecord {
    NodeRecord {
        hostname: name.to_owned(),
        role,
        availability: Availability::Active,
        data_path_addr: addr.ip(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        joined_at_ms: now.unix_ms,
        started_generation: 0,
        left: false,
        away_s: 0,
        details: Details::default(),
    }
}
