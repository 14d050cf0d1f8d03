//! `gossip-sim`: runs a cluster in virtual time and prints its figures; flags in, report out.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use gossip_sim::plan::Fault;
use gossip_sim::{Link, Plan, Report, Setup};
use gossipd::node::Config;

const EXIT_CODES: &str = "\
Exit codes:
  0  every check passed
  1  a check failed, or two runs of one seed differ
  2  wrong usage, or the report could not be written";

#[derive(Parser)]
#[command(name = "gossip-sim", version, about = "Runs gossipd nodes over a simulated network in virtual time")]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run once and print the figures
    #[command(after_help = EXIT_CODES)]
    Run(Flags),
    /// Run twice and compare everything
    #[command(after_help = EXIT_CODES)]
    Verify(Flags),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    Lan,
    Wan,
    Local,
}

/// `S..E`, in seconds.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_s: u64,
    to_s: u64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a span: expected S..E in seconds, S before E");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let [from_s, to_s] = [from, to].map(|part| part.trim().parse::<u32>().map(u64::from));
        match (from_s, to_s) {
            (Ok(from_s), Ok(to_s)) if from_s < to_s => Ok(Self { from_s, to_s }),
            _ => Err(wrong()),
        }
    }
}

#[derive(Args)]
struct Flags {
    /// Number of nodes
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: u32,
    /// Decides every chance of the run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the run in virtual seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Constants of the nodes
    #[arg(long, value_enum, default_value_t = Profile::Lan)]
    profile: Profile,
    /// Time between the starts of two nodes, in microseconds
    #[arg(long, default_value_t = 1_000)]
    stagger_us: u32,
    /// Shortest time of a datagram, in microseconds
    #[arg(long, default_value_t = 250)]
    latency_us: u32,
    /// Up to this much more by chance, in microseconds
    #[arg(long, default_value_t = 100)]
    jitter_us: u32,
    /// Datagrams lost, in parts per million
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    loss_ppm: u32,
    /// Nodes to crash
    #[arg(long, default_value_t = 0)]
    crash: u32,
    /// When they crash, in seconds
    #[arg(long, default_value_t = 20)]
    crash_at: u32,
    /// Nodes that leave
    #[arg(long, default_value_t = 0)]
    leave: u32,
    /// When they leave, in seconds
    #[arg(long, default_value_t = 30)]
    leave_at: u32,
    /// Nodes to kill and start again at once
    #[arg(long, default_value_t = 0)]
    restart: u32,
    /// When they restart, in seconds
    #[arg(long, default_value_t = 40)]
    restart_at: u32,
    /// Split the nodes in two halves from second S to second E
    #[arg(long, value_name = "S..E")]
    split: Option<Span>,
}

impl Flags {
    /// What no single flag can say of itself.
    fn check(&self) -> anyhow::Result<()> {
        let Self { nodes, seconds, crash, leave, restart, split, .. } = self;
        let hit = [crash, leave, restart].into_iter().map(|count| u64::from(*count)).sum::<u64>();
        ensure!(hit < u64::from(*nodes), "--crash, --leave and --restart together must spare one of {nodes} nodes");
        let times =
            [("crash", crash, self.crash_at), ("leave", leave, self.leave_at), ("restart", restart, self.restart_at)];
        for (what, count, at_s) in times {
            ensure!(*count == 0 || at_s < *seconds, "--{what}-at {at_s} is not before the end at --seconds {seconds}");
        }
        if let Some(Span { from_s, to_s }) = split {
            ensure!(*to_s < u64::from(*seconds), "--split {from_s}..{to_s} must end before --seconds {seconds}");
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        const SECOND_US: u64 = 1_000_000;
        let fault = |count: u32, at_s: u32| Fault { count: count as usize, at_us: u64::from(at_s) * SECOND_US };
        Plan {
            setup: Setup {
                seed: self.seed,
                link: Link {
                    latency_us: self.latency_us.into(),
                    jitter_us: self.jitter_us.into(),
                    loss_ppm: self.loss_ppm,
                },
                node: match self.profile {
                    Profile::Lan => Config::lan(),
                    Profile::Wan => Config::wan(),
                    Profile::Local => Config::local(),
                },
            },
            nodes: self.nodes as usize,
            span_us: u64::from(self.seconds) * SECOND_US,
            stagger_us: self.stagger_us.into(),
            crash: fault(self.crash, self.crash_at),
            leave: fault(self.leave, self.leave_at),
            restart: fault(self.restart, self.restart_at),
            split_us: self.split.map(|Span { from_s, to_s }| (from_s * SECOND_US, to_s * SECOND_US)),
        }
    }
}

/// Runs `plan` and prints all but the last line.
fn run(plan: &Plan, out: &mut impl Write) -> anyhow::Result<Report> {
    let began = Instant::now();
    let report = plan.run();
    let took_s = began.elapsed().as_secs_f64();
    let speed = report.handled as f64 / took_s.max(f64::EPSILON);
    writeln!(out, "{report}\n{:<34}{took_s:.2} s, {speed:.0} events a second", "wall clock")
        .context("standard output")?;
    Ok(report)
}

fn main_inner(cli: &Cli, out: &mut impl Write) -> anyhow::Result<bool> {
    let (flags, twice) = match &cli.command {
        Command::Run(flags) => (flags, false),
        Command::Verify(flags) => (flags, true),
    };
    flags.check()?;
    let plan = flags.plan();
    let report = run(&plan, out)?;
    let (mut passed, mut failed) = (report.checks.passed(), report.checks.failed());
    if twice {
        let again = plan.run();
        let same = report == again;
        if same {
            passed += 1;
            writeln!(out, "pass  two runs are the same: {}", again.trace).context("standard output")?;
        } else {
            failed += 1;
            writeln!(out, "FAIL  two runs differ: {} and {}", report.trace, again.trace).context("standard output")?;
        }
    }
    writeln!(out, "{passed} passed, {failed} failed").context("standard output")?;
    Ok(failed == 0)
}

fn main() -> ExitCode {
    match main_inner(&Cli::parse(), &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nothing to be done if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "gossip-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
