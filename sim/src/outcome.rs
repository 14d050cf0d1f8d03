//! What a run amounts to: the one thing that `run` makes, and that reports, comparisons and sweeps read.
//!
//! Plain data. Times are virtual microseconds from the start of the run; hosts are numbers from 0.

use std::collections::BTreeMap;

use gossipd::record::Status;
use serde::{Deserialize, Serialize};

/// Which protocol ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The production node.
    #[default]
    Gossipd,
    /// foca as it comes, with its own presets and nothing around it.
    Foca,
}

/// How a run ended, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every property held and every bound was kept.
    Passed,
    /// Every property held; a number is outside its bound.
    OutOfBounds,
    /// After the faults stopped the nodes did not come to agree in time.
    NotConverged,
    /// A property that must hold at every step did not.
    Violated,
}

/// One bound of a scenario's `[expect]`, beside what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The figure's name.
    pub name: String,
    /// Its unit: `us`, `count`, `bytes/s`, ….
    pub unit: String,
    /// Least and most allowed.
    pub at_least: Option<u64>,
    /// Most allowed.
    pub at_most: Option<u64>,
    /// What came out; none: it could not be measured, which breaks any bound.
    pub actual: Option<u64>,
    /// The bound was kept.
    pub holds: bool,
}

/// One checker's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Its name: `M1`, `D5`, `Q1`, ….
    pub name: String,
    /// The property in words.
    pub what: String,
    /// How often it was looked at.
    pub looked: u64,
    /// How often it did not hold.
    pub failed: u64,
    /// The first few failures, in words.
    pub examples: Vec<String>,
}

/// One fault, from when it began to when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultLane {
    /// What it was: `crash`, `cut`, `deaf`, ….
    pub kind: String,
    /// Who was hit.
    pub hosts: Vec<usize>,
    /// When it began.
    pub from_us: u64,
    /// When it ended; none: it lasted to the end of the run.
    pub to_us: Option<u64>,
    /// Packets, timers or calls that it touched.
    pub hits: u64,
}

/// One change of status, life or address that one node saw of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// When.
    pub at_us: u64,
    /// Who saw it.
    pub observer: usize,
    /// Of whom.
    pub subject: usize,
    /// Status before; none: not listed.
    pub old: Option<Status>,
    /// Status after; none: forgotten.
    pub new: Option<Status>,
    /// The life spoken of.
    pub generation: u64,
    /// In truth the subject was running then.
    pub subject_runs: bool,
    /// No fault touched the subject then.
    pub subject_is_healthy: bool,
    /// No fault touched the observer then.
    pub observer_is_healthy: bool,
}

/// How one crash was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detection {
    /// Who crashed.
    pub subject: usize,
    /// When.
    pub at_us: u64,
    /// Time from the crash to `down` at each live connected observer that saw it, ascending.
    pub latencies_us: Vec<u64>,
    /// Observers that should have seen it and did not before the run ended or the subject came back.
    pub missed: usize,
}

/// What all nodes sent within one virtual second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes on the wire: UDP payload and 28 bytes of IPv4 and UDP headers each.
    pub datagram_bytes: u64,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Bytes of requests and replies.
    pub exchange_bytes: u64,
    /// Events handled.
    pub events: u64,
    /// Nodes running at its end.
    pub running: u64,
}

/// Who listed whom as what at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// When.
    pub at_us: u64,
    /// Why then: `before the cut`, ….
    pub label: String,
    /// The hosts shown, in order of rows and columns; a sample when there are many.
    pub hosts: Vec<usize>,
    /// A row for each observer, a character for each subject: `r`eady, `s`uspect, `d`own, `l`eft, `.` not listed,
    /// `o` the observer itself, `x` in rows of hosts on which nothing runs.
    pub rows: Vec<String>,
}

/// All that is known of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// One sentence on what it shows.
    pub about: String,
    /// The run's seed.
    pub seed: u64,
    /// Which protocol ran.
    pub protocol: Protocol,
    /// Hosts that ever ran.
    pub nodes: usize,
    /// Length of the run.
    pub span_us: u64,
    /// The hash over everything that happened, in hex.
    pub trace: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Bounds and what came out.
    pub expectations: Vec<Expectation>,
    /// Figures without a bound, by name.
    pub figures: BTreeMap<String, u64>,
    /// Checkers.
    pub checks: Vec<CheckResult>,
    /// Faults.
    pub faults: Vec<FaultLane>,
    /// Changes seen, in order; at most [`CHANGES_MAX`].
    pub changes: Vec<StatusChange>,
    /// Crashes and how they were found.
    pub detections: Vec<Detection>,
    /// Share of ordered pairs of running nodes in which the observer lists the subject's present life as ready, in parts
    /// per million, at instants in ascending order.
    pub convergence: Vec<(u64, u32)>,
    /// Traffic by virtual second.
    pub seconds: Vec<Second>,
    /// Wire bytes sent by each host over the whole run.
    pub bytes_by_host: Vec<u64>,
    /// Status matrices at chosen instants.
    pub matrices: Vec<Matrix>,
}

/// Changes kept in an [`Outcome`].
pub const CHANGES_MAX: usize = 200_000;
