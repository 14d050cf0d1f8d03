//! One machine: its disk, its clock, its address, and the node that lives on it now, if any.
//!
//! Not here: the network between machines, and when things happen.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use gossipd::node::{Node, Now, Stats};
use gossipd::record::{Availability, NodeId, NodeRecord, Role};

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
}

impl Totals {
    /// Adds other totals.
    pub fn merge(&mut self, other: &Self) {
        let Self { renewals, refutations, probes_failed, undead_withheld, swim_errors, records_refused, drops } = other;
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
    }
}

/// One machine.
pub(crate) struct Host {
    pub(crate) node_id: NodeId,
    pub(crate) role: Role,
    pub(crate) addr: SocketAddr,
    pub(crate) contacts: Vec<SocketAddr>,
    /// What its wall clock is off by, in milliseconds.
    pub(crate) skew_ms: i64,
    /// The highest generation on its disk.
    pub(crate) disk: u64,
    /// Counts its lives; what was begun in an earlier one is void.
    pub(crate) life: u64,
    pub(crate) node: Option<Node>,
    /// What the present life's events amount to; of the last one while there is none.
    pub(crate) view: View,
    /// When the next wake-up that counts is due.
    pub(crate) wake_us: Option<u64>,
    /// Its node said that it has left: it is removed once its effects are drained.
    pub(crate) done: bool,
    /// Counters of earlier lives.
    pub(crate) past: Totals,
    /// Copies of the datagrams delivered here, when somebody listens.
    pub(crate) tap: Option<Vec<Vec<u8>>>,
}

impl Host {
    pub(crate) fn new(node_id: NodeId, role: Role, addr: SocketAddr, contacts: Vec<SocketAddr>) -> Self {
        Self {
            node_id,
            role,
            addr,
            contacts,
            skew_ms: 0,
            disk: 0,
            life: 0,
            node: None,
            view: View::default(),
            wake_us: None,
            done: false,
            past: Totals::default(),
            tap: None,
        }
    }

    /// Both of its clocks at virtual time `now_us`.
    pub(crate) fn now(&self, now_us: u64) -> Now {
        let unix_ms = (EPOCH_UNIX_MS + now_us / 1_000).saturating_add_signed(self.skew_ms);
        Now { mono_us: now_us, unix_ms }
    }

    /// The generation of the next life: above the disk's, and not below the clock.
    pub(crate) fn next_generation(&self, now_us: u64) -> u64 {
        (self.disk + 1).max(self.now(now_us).unix_ms / 1_000)
    }

    /// Ends the present life, keeping its counters.
    pub(crate) fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            self.past.add(node.stats());
        }
        self.wake_us = None;
        self.done = false;
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
    }
}
