//! `gossip-sim`: scenarios in, outcomes out. Arguments and exit codes; the work is in the library.
#![forbid(unsafe_code)]

mod bench;
#[cfg(feature = "mutants")]
mod hunt;
mod show;
mod sweep;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use gossip_sim::outcome::{Outcome, Protocol, Verdict};
use gossip_sim::run::run_logged;
use gossip_sim::scenario::catalogue;
use gossip_sim::shrink::shrink;
use gossip_sim::world::Logs;
use gossip_sim::{Plan, report};

const EXIT_CODES: &str = "\
Exit codes, the worst of all runs:
  0  passed
  1  a figure is out of its bounds
  2  wrong usage, or something could not be read or written
  3  the nodes did not come to agree
  4  a property was violated, or two runs of one seed differ";

#[derive(Parser)]
#[command(name = "gossip-sim", version, about = "Runs gossipd nodes over a simulated network in virtual time")]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What may run instead of gossipd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Baseline {
    /// foca as it comes, with its own presets
    Foca,
}

/// The protocol that is meant.
pub(crate) const fn protocol(baseline: Option<Baseline>) -> Protocol {
    match baseline {
        Some(Baseline::Foca) => Protocol::Foca,
        None => Protocol::Gossipd,
    }
}

#[derive(Subcommand)]
enum Command {
    /// List all scenarios and their variants
    List,
    /// Say what a scenario does and expects
    Show {
        /// Number or name, with a variant: `S10@64`
        name: String,
    },
    /// Run one scenario
    #[command(after_help = EXIT_CODES)]
    Run {
        /// Number or name, with a variant: `S10@64`
        name: String,
        /// Decides every chance of the run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        how: How,
    },
    /// Run many scenarios with many seeds
    #[command(after_help = EXIT_CODES)]
    Sweep(sweep::Flags),
    /// Print the plan that a scenario and a seed make
    Plan {
        /// Number or name, with a variant: `S10@64`
        name: String,
        /// Decides every chance of the run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Runs this instead of gossipd
        #[arg(long)]
        baseline: Option<Baseline>,
    },
    /// Run a plan from a file
    #[command(after_help = EXIT_CODES)]
    Replay {
        /// What `plan` or `shrink` wrote
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Run scenarios with gossipd and with foca, and write one page on both
    #[command(after_help = EXIT_CODES)]
    Report(show::ReportFlags),
    /// Print the figures of two files of outcomes side by side, or what real daemons did beside what simulated ones do
    Compare(show::CompareFlags),
    /// Make a failing plan smaller, as long as it fails in the same way, and print it
    Shrink {
        /// A plan's file, or a scenario
        name: String,
        /// Decides every chance of the run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Writes the plan there
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Run everything twice, in different ways, and compare the hashes of the traces
    #[command(after_help = EXIT_CODES)]
    Verify(sweep::VerifyFlags),
    /// Say how fast the simulator is
    Bench(bench::Flags),
    /// Build faults into the nodes, one at a time, and say which check or bound finds each
    #[cfg(feature = "mutants")]
    Mutants(hunt::Flags),
}

#[derive(clap::Args)]
struct How {
    /// Runs this instead of gossipd
    #[arg(long)]
    baseline: Option<Baseline>,
    /// Writes the outcome there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Tells each event on standard error
    #[arg(long)]
    logs: bool,
    /// Names the checkers that had nothing to look at
    #[arg(long)]
    verbose: bool,
}

/// The exit code of a verdict.
const fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Passed => 0,
        Verdict::OutOfBounds => 1,
        Verdict::NotConverged => 3,
        Verdict::Violated => 4,
    }
}

fn plan_of(name: &str, seed: u64, protocol: Protocol) -> anyhow::Result<Plan> {
    let (scenario, variant) = catalogue::find(name).map_err(|error| anyhow!(error))?;
    let variant = variant.unwrap_or_else(|| scenario.default_variant());
    let plan = scenario.plan(&variant, seed).map_err(|error| anyhow!(error))?;
    Ok(Plan { protocol, ..plan })
}

fn plan_from(path: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Plan::from_toml(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn write_json(path: Option<&Path>, outcome: &Outcome) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string(outcome).context("the outcome as JSON")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn run(plan: &Plan, how: &How, out: &mut impl Write) -> anyhow::Result<u8> {
    let outcome = run_logged(plan, if how.logs { Logs::Told } else { Logs::Off });
    write_json(how.json.as_deref(), &outcome)?;
    write!(out, "{}", report::text(&outcome))?;
    if how.verbose {
        writeln!(out, "had nothing to look at: {}", report::idle_checks([&outcome]).join(" "))?;
    }
    Ok(code(outcome.verdict))
}

fn list(out: &mut impl Write) -> anyhow::Result<u8> {
    for scenario in catalogue::all().map_err(|error| anyhow!(error))? {
        let variants = scenario.variants();
        let shown = if variants.len() > 16 { format!("{} variants", variants.len()) } else { variants.join(" ") };
        writeln!(out, "{:<4} {:<22} {}", scenario.number(), scenario.name(), scenario.about())?;
        if !shown.is_empty() {
            writeln!(out, "{:<27} {shown}", "")?;
        }
    }
    Ok(0)
}

fn small(name: &str, seed: u64, file: Option<&Path>, out: &mut impl Write) -> anyhow::Result<u8> {
    let path = Path::new(name);
    let plan = if path.exists() { plan_from(path)? } else { plan_of(name, seed, Protocol::Gossipd)? };
    let mut told = |plan: &Plan, runs: usize| {
        let (hosts, faults) = (plan.hosts.len(), plan.faults.len());
        // Progress is a courtesy.
        let _ =
            writeln!(std::io::stderr(), "{runs} runs: {hosts} nodes, {faults} faults, {} s", plan.span_us / 1_000_000);
    };
    let Some((plan, runs)) = shrink(&plan, &mut told) else {
        writeln!(out, "it does not fail")?;
        return Ok(0);
    };
    let text = plan.to_toml().context("the plan as TOML")?;
    match file {
        Some(file) => {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
            writeln!(out, "{runs} runs; again: gossip-sim replay {}", file.display())?;
        }
        None => write!(out, "{text}")?,
    }
    Ok(0)
}

fn main_inner(cli: Cli, out: &mut impl Write) -> anyhow::Result<u8> {
    match cli.command {
        Command::List => list(out),
        Command::Show { name } => {
            write!(out, "{}", text::plan(&plan_of(&name, 1, Protocol::Gossipd)?))?;
            Ok(0)
        }
        Command::Run { name, seed, how } => run(&plan_of(&name, seed, protocol(how.baseline))?, &how, out),
        Command::Sweep(flags) => sweep::sweep(&flags, out),
        Command::Plan { name, seed, baseline } => {
            let plan = plan_of(&name, seed, protocol(baseline))?;
            write!(out, "{}", plan.to_toml().context("the plan as TOML")?)?;
            Ok(0)
        }
        Command::Replay { file, how } => {
            let plan = plan_from(&file)?;
            let protocol = how.baseline.map_or(plan.protocol, |baseline| protocol(Some(baseline)));
            run(&Plan { protocol, ..plan }, &how, out)
        }
        Command::Report(flags) => show::report(&flags, out),
        Command::Compare(flags) => show::compare_files(&flags, out),
        #[cfg(feature = "mutants")]
        Command::Mutants(flags) => hunt::mutants(&flags, out),
        Command::Shrink { name, seed, out: file } => small(&name, seed, file.as_deref(), out),
        Command::Verify(flags) => sweep::verify(&flags, out),
        Command::Bench(flags) => bench::bench(&flags, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    match main_inner(Cli::parse(), &mut std::io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing to be done if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "gossip-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
