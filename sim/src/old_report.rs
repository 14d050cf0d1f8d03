//! The figures of a run, and how they read.
//!
//! Everything here is decided by the seed; wall-clock time is the caller's to add.

use std::fmt;

use crate::checks::Checks;
use crate::host::Totals;
use crate::net::Link;
use crate::trace::Trace;
use crate::world::Sent;

/// When everybody agreed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// After what.
    pub after: &'static str,
    /// How long after, in virtual microseconds; none: not before the next thing happened.
    pub span_us: Option<u64>,
}

/// How news reached those that it should reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The news.
    pub what: &'static str,
    /// How many pairs of a subject and an observer there are.
    pub expected: usize,
    /// When each of those that did learn of it learned of it, in microseconds after the fact, ascending.
    pub times_us: Vec<u64>,
}

/// A part of the run, for traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Which.
    pub name: &'static str,
    /// What was sent from the beginning of the run to the end of this part.
    pub sent: Sent,
}

/// The figures of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many nodes.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
    /// How long, in virtual microseconds.
    pub span_us: u64,
    /// The network.
    pub link: Link,
    /// When everybody agreed, after each thing that happened.
    pub settled: Vec<Settled>,
    /// How news spread.
    pub spreads: Vec<Spread>,
    /// Traffic.
    pub phases: Vec<Phase>,
    /// Counters of all nodes.
    pub totals: Totals,
    /// Times that somebody suspected a living node.
    pub false_suspicions: usize,
    /// Times that somebody listed a living node as down.
    pub false_downs: usize,
    /// Events handled.
    pub handled: u64,
    /// What was checked.
    pub checks: Checks,
    /// The hash over everything.
    pub trace: Trace,
}

struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000, self.0 % 1_000_000 / 1_000)
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<34}", format!("all know all after {}", self.after))?;
        match self.span_us {
            Some(span_us) => write!(f, "{}", Seconds(span_us)),
            None => f.write_str("never"),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, times_us } = self;
        write!(f, "{:<34}", format!("{what} seen"))?;
        if let (Some(first), Some(median), Some(last)) =
            (times_us.first(), times_us.get(times_us.len() / 2), times_us.last())
        {
            write!(f, "first {}, median {}, max {}, ", Seconds(*first), Seconds(*median), Seconds(*last))?;
        }
        write!(f, "{} of {expected}", times_us.len())
    }
}

/// `count` for each node and second.
fn rate(count: u64, alive_us: u64) -> f64 {
    count as f64 * 1_000_000.0 / alive_us.max(1) as f64
}

impl Report {
    fn write_traffic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = Sent::default();
        for Phase { name, sent } in &self.phases {
            let alive_us = sent.alive_us - before.alive_us;
            writeln!(
                f,
                "{:<34}{:.1} datagrams and {:.0} B of them, {:.0} B of exchanges, for each node and second",
                format!("traffic {name}"),
                rate(sent.datagrams - before.datagrams, alive_us),
                rate(sent.datagram_bytes - before.datagram_bytes, alive_us),
                rate(sent.exchange_bytes - before.exchange_bytes, alive_us),
            )?;
            before = *sent;
        }
        writeln!(f, "{:<34}{} datagrams, {} exchanges", "traffic in all", before.datagrams, before.exchanges)
    }

    fn write_checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, check) in self.checks.iter() {
            let verdict = if check.failed == 0 { "pass" } else { "FAIL" };
            writeln!(f, "{verdict}  {name} ({} of {})", check.held, check.held + check.failed)?;
            for what in &check.failures {
                writeln!(f, "      {what}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link { latency_us, jitter_us, loss_ppm } = self.link;
        writeln!(
            f,
            "{} nodes, seed {}, {}, {latency_us} µs + 0 to {jitter_us} µs, {loss_ppm} ppm lost",
            self.nodes,
            self.seed,
            Seconds(self.span_us)
        )?;
        self.settled.iter().try_for_each(|settled| writeln!(f, "{settled}"))?;
        self.spreads.iter().try_for_each(|spread| writeln!(f, "{spread}"))?;
        self.write_traffic(f)?;
        let Totals { renewals, refutations, probes_failed, undead_withheld, swim_errors, records_refused, drops } =
            self.totals;
        writeln!(f, "{:<34}{renewals} renewals, {refutations} refutations", "forced")?;
        writeln!(f, "{:<34}{} suspicions, {} downs", "seen of living nodes", self.false_suspicions, self.false_downs)?;
        writeln!(
            f,
            "{:<34}{probes_failed} probes, {drops} datagrams dropped by nodes, {records_refused} records refused, \
             {undead_withheld} undead messages withheld, {swim_errors} foca errors",
            "failed"
        )?;
        self.write_checks(f)?;
        writeln!(f, "{:<34}{}", "events", self.handled)?;
        write!(f, "{:<34}{}", "trace", self.trace)
    }
}
