//! The format of a scenario file, after variants and parameters have been put in. Times carry their unit in the name.
//!
//! Not here: who is meant by a selector (`select`).

use std::collections::BTreeMap;

use gossipd::record::{Availability, Role};
use serde::Deserialize;

use crate::plan::{Disk, Mode, Profile};

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Selector {
    /// `"all"`, or the name of a group.
    Name(String),
    /// Hosts by their numbers.
    List(Vec<usize>),
    /// Anything else.
    Rule(Rule),
}

/// A rule for who is meant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// From the first number to before the second.
    Range((usize, usize)),
    /// So many, by chance.
    Sample(usize),
    /// So many in a hundred, by chance, one at least.
    Percent(usize),
    /// `"first"` or `"second"`.
    Half(String),
    /// 0, 1 or 2.
    Third(usize),
    /// All of a region, by its number.
    Region(usize),
    /// A group by its name.
    Label(String),
    /// All others.
    Not(Box<Selector>),
}

/// How the nodes start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// Time between two starts, in microseconds.
    pub stagger_us: u64,
    /// The first so many hosts are known to all.
    pub contacts: usize,
    /// All but the late ones start at once, and know each other from the start.
    pub warm: bool,
    /// The first so many hosts are managers.
    pub managers: usize,
    /// Those took part in the first network before.
    pub attached: Option<Selector>,
    /// Those start later, one after another.
    pub late: Option<Selector>,
    /// When, in milliseconds.
    pub late_ms: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self { stagger_us: 1_000, contacts: 1, warm: false, managers: 1, attached: None, late: None, late_ms: 0 }
    }
}

/// Paths without faults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkFile {
    /// One way, region by region, in microseconds.
    pub latency_us: Vec<Vec<u64>>,
    /// More or less, in percent.
    pub jitter_percent: u64,
    /// Lost, in parts per million.
    pub loss_ppm: u32,
}

impl Default for NetworkFile {
    fn default() -> Self {
        Self { latency_us: vec![vec![250]], jitter_percent: 20, loss_ppm: 1_000 }
    }
}

/// A fault, or several of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// What: a fault's name.
    pub kind: String,
    /// When, in milliseconds.
    pub at_ms: u64,
    /// For how long, in milliseconds; none: for ever.
    pub for_ms: Option<u64>,
    /// Whom it hits; on the network: who counts as touched, the smaller side when nothing is said.
    pub hosts: Option<Selector>,
    /// Time between one host and the next, in milliseconds: each has its own fault.
    pub each_ms: Option<u64>,
    /// Senders.
    pub from: Option<Selector>,
    /// Receivers.
    pub to: Option<Selector>,
    /// And the other way.
    #[serde(default)]
    pub both: bool,
    /// Pairs.
    #[serde(default)]
    pub pairs: Vec<(usize, usize)>,
    /// Each host talks with so many neighbours on either side of a ring, and with no others.
    pub ring_reach: Option<usize>,
    /// Datagrams only.
    #[serde(default)]
    pub udp_only: bool,
    /// On and off, in milliseconds.
    pub on_ms: Option<u64>,
    /// On and off, in milliseconds.
    pub off_ms: Option<u64>,
    /// A chance, in parts per million.
    #[serde(default)]
    pub ppm: u32,
    /// Of a burst.
    #[serde(default)]
    pub enter_ppm: u32,
    /// Of a burst.
    #[serde(default)]
    pub leave_ppm: u32,
    /// Microseconds.
    #[serde(default)]
    pub delay_us: u64,
    /// Microseconds.
    #[serde(default)]
    pub jitter_us: u64,
    /// Microseconds.
    #[serde(default)]
    pub service_us: u64,
    /// Microseconds.
    #[serde(default)]
    pub every_us: u64,
    /// Bytes, or bytes a second.
    #[serde(default)]
    pub bytes: u64,
    /// Milliseconds.
    #[serde(default)]
    pub step_ms: i64,
    /// Parts per million.
    #[serde(default)]
    pub drift_ppm: i64,
    /// What a restarted node finds.
    #[serde(default)]
    pub disk: Disk,
    /// It restarts at another address.
    #[serde(default)]
    pub moves: bool,
    /// It announces its absence of so many seconds.
    pub announce_s: Option<u16>,
    /// Who decides; the first host when nothing is said. Each of them does.
    pub by: Option<Selector>,
    /// What is decided: an availability.
    pub availability: Option<Availability>,
    /// A role.
    pub role: Option<Role>,
    /// A label, as `key=value`; `key` alone takes it away.
    pub label: Option<String>,
    /// That they are members no more.
    #[serde(default)]
    pub remove: bool,
    /// Why.
    pub reason: Option<String>,
    /// The decider waits until all have it.
    #[serde(default)]
    pub confirm: bool,
    /// In which network it is written, from 1.
    pub network: Option<u8>,
    /// How many endpoints change in one write.
    pub count: Option<u32>,
    /// Of so many that each owner may have.
    pub slots: Option<u32>,
    /// So many in a hundred of them are deleted.
    #[serde(default)]
    pub gone_percent: u32,
}

/// Local programs that watch, one on each of some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderFile {
    /// On which hosts.
    pub on: Selector,
    /// When they begin, in milliseconds.
    #[serde(default)]
    pub at_ms: u64,
    /// Time between two looks, in milliseconds.
    pub every_ms: u64,
    /// Bytes that one takes at a look; none: all that there is.
    pub bytes: Option<u32>,
    /// They do not look from then to then, in milliseconds.
    pub stalls_ms: Option<(u64, u64)>,
    /// Each loses its connection after so many looks.
    pub drops_every: Option<u64>,
}

/// An extra machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// When its node starts, in milliseconds.
    pub at_ms: u64,
    /// A copy of the disk of one of those.
    pub clone_of: Option<Selector>,
    /// At the address of one of those.
    pub address_of: Option<Selector>,
}

/// The end of all faults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CalmFile {
    /// When, in milliseconds; none: when the last fault that ends has ended.
    pub at_ms: Option<u64>,
    /// Until when all must agree, in milliseconds from then.
    pub within_ms: u64,
    /// Who.
    pub mode: Mode,
    /// With `mode = "core"`: the healthy ones; none: all that no fault touches.
    pub core: Option<Selector>,
}

impl Default for CalmFile {
    fn default() -> Self {
        Self { at_ms: None, within_ms: 5_000, mode: Mode::Heal, core: None }
    }
}

/// A bound: a number is the most allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Range {
    /// Most.
    Most(u64),
    /// Least and most.
    Both {
        /// Least.
        at_least: Option<u64>,
        /// Most.
        at_most: Option<u64>,
    },
}

/// A bound over all runs of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRange {
    /// Most that the median of the runs may be.
    pub median: Option<u64>,
    /// Most that any run may be.
    pub max: Option<u64>,
}

/// As the daemon does.
const fn history() -> usize {
    16_384
}

/// A scenario.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `S10`.
    pub number: String,
    /// Its name.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Made by code: `swizzle`.
    pub generate: Option<String>,
    /// How many nodes.
    pub nodes: usize,
    /// How long, in seconds.
    pub seconds: u64,
    /// Figures count from here, in seconds.
    #[serde(default)]
    pub measure_from_s: u64,
    /// When to draw who lists whom, in seconds.
    #[serde(default)]
    pub matrices_s: Vec<u64>,
    /// Constants of the nodes.
    #[serde(default)]
    pub profile: Profile,
    /// How nodes start.
    #[serde(default)]
    pub start: Start,
    /// Paths without faults.
    #[serde(default)]
    pub network: NetworkFile,
    /// Named groups.
    #[serde(default)]
    pub groups: BTreeMap<String, Selector>,
    /// Faults.
    #[serde(default)]
    pub act: Vec<Act>,
    /// Local programs that watch.
    #[serde(default)]
    pub reader: Vec<ReaderFile>,
    /// How many changes a node keeps for them.
    #[serde(default = "history")]
    pub history: usize,
    /// Extra machines.
    #[serde(default)]
    pub extra: Vec<Extra>,
    /// The end of all faults.
    #[serde(default)]
    pub calm: CalmFile,
    /// Checkers that bind here.
    #[serde(default)]
    pub checks: Vec<String>,
    /// Bounds on figures.
    #[serde(default)]
    pub expect: BTreeMap<String, Range>,
    /// Bounds on figures over all runs of a sweep.
    #[serde(default)]
    pub expect_sweep: BTreeMap<String, SweepRange>,
}
