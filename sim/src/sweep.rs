//! Many runs at once: scenarios times seeds, spread over the processors; and runs that are made twice and compared.

use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use gossip_sim::aggregate::{self, SweepBound};
use gossip_sim::outcome::{Outcome, Protocol, Verdict};
use gossip_sim::run::{run_logged, run_plan};
use gossip_sim::scenario::{Scenario, catalogue};
use gossip_sim::world::Logs;
use gossip_sim::{Plan, report};
use indicatif::{ProgressBar, ProgressDrawTarget};
use rayon::prelude::*;

use crate::{Baseline, code, protocol};

/// Failed runs that are told in full; of the others only how to run them again.
const TOLD_MAX: usize = 6;
/// Machines of a scenario that is run without being named, at most.
const HOSTS_MAX: usize = 1_000;

/// Seeds from the first to before the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeds {
    from: u64,
    to: u64,
}

impl Seeds {
    /// Each of them.
    pub(crate) fn all(self) -> impl Iterator<Item = u64> {
        self.from..self.to
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} are no seeds: expected A..B, A before B");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) if from < to => Ok(Self { from, to }),
            _ => Err(wrong()),
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: expected 90s, 10m or 2h");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().map(|number| Duration::from_secs(number.saturating_mul(factor))).map_err(|_| wrong())
}

#[derive(Args)]
pub(crate) struct Flags {
    /// Numbers or names, with or without variants; none: all
    names: Vec<String>,
    /// From the first to before the second
    #[arg(long, value_name = "A..B", default_value = "1..2")]
    seeds: Seeds,
    /// Go on with further seeds for so long
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Runs at once; 0: one for each processor
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Only what is cheap
    #[arg(long)]
    quick: bool,
    /// Writes all outcomes there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table of bounded figures there, as JSON
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Runs this instead of gossipd
    #[arg(long)]
    baseline: Option<Baseline>,
    /// Names the checkers that had nothing to look at
    #[arg(long)]
    verbose: bool,
}

#[derive(Args)]
pub(crate) struct VerifyFlags {
    /// Numbers or names, with or without variants; none: all that are quick
    names: Vec<String>,
    /// Decides every chance of the runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

struct Job {
    scenario: Scenario,
    variant: String,
}

impl Job {
    fn name(&self) -> String {
        let (number, variant) = (self.scenario.number(), &self.variant);
        if variant.is_empty() { number.to_owned() } else { format!("{number}@{variant}") }
    }
}

impl Job {
    fn plan(&self, seed: u64, protocol: Protocol) -> Result<Plan, String> {
        Ok(Plan { protocol, ..self.scenario.plan(&self.variant, seed)? })
    }
}

/// What is meant by names; a scenario without a variant means all of its variants, or all that are quick.
fn jobs(names: &[String], quick: bool) -> anyhow::Result<Vec<Job>> {
    let found = if names.is_empty() {
        catalogue::all().map(|all| all.into_iter().map(|scenario| (scenario, None)).collect())
    } else {
        names.iter().map(|name| catalogue::find(name)).collect::<Result<Vec<_>, _>>()
    };
    let found = found.map_err(|error| anyhow!(error))?;
    let all = found.into_iter().flat_map(|(scenario, variant)| {
        let variants = match variant {
            Some(variant) => vec![variant],
            None if quick => scenario.quick(),
            None => scenario.variants(),
        };
        variants.into_iter().map(move |variant| Job { scenario: scenario.clone(), variant })
    });
    Ok(all.collect())
}

/// Sets apart what was not asked for by name and is larger than a machine's memory may be: 1.3 KB for each pair of nodes.
fn set_huge_apart(jobs: Vec<Job>, names: &[String], seed: u64) -> (Vec<Job>, Vec<String>) {
    let is_named = |job: &Job| names.contains(&job.name());
    let is_huge = |job: &Job| job.scenario.plan(&job.variant, seed).is_ok_and(|plan| plan.hosts.len() > HOSTS_MAX);
    let (huge, rest): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| !is_named(job) && is_huge(job));
    (rest, huge.iter().map(Job::name).collect())
}

fn pool(jobs: usize) -> anyhow::Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(jobs).build().context("threads")
}

/// Runs all of them.
pub(crate) fn sweep(flags: &Flags, out: &mut impl Write) -> anyhow::Result<u8> {
    let (jobs, huge) = set_huge_apart(jobs(&flags.names, flags.quick)?, &flags.names, flags.seeds.from);
    if !huge.is_empty() {
        writeln!(out, "left out unless named, as too large for most machines: {}", huge.join(" "))?;
    }
    let began = Instant::now();
    let Seeds { from, to } = flags.seeds;
    let (mut outcomes, mut seeds) = (Vec::new(), from..to);
    let pool = pool(flags.jobs)?;
    loop {
        let runs: Vec<_> = seeds.clone().flat_map(|seed| jobs.iter().map(move |job| (job, seed))).collect();
        let bar = ProgressBar::with_draw_target(Some(runs.len() as u64), ProgressDrawTarget::stderr());
        let late = AtomicBool::new(false);
        let made: Vec<_> = pool.install(|| {
            runs.par_iter()
                .filter_map(|(job, seed)| {
                    late.fetch_or(flags.time.is_some_and(|time| began.elapsed() > time), Ordering::Relaxed);
                    if late.load(Ordering::Relaxed) {
                        return None;
                    }
                    let outcome = job.plan(*seed, protocol(flags.baseline)).map(|plan| run_plan(&plan));
                    bar.inc(1);
                    Some((job.name(), *seed, outcome))
                })
                .collect()
        });
        bar.finish_and_clear();
        outcomes.extend(made);
        if flags.time.is_none_or(|time| began.elapsed() > time) {
            break;
        }
        seeds = seeds.end..seeds.end + (to - from);
    }
    tell(flags, &jobs, outcomes, out)
}

fn write_json<T: serde::Serialize>(path: Option<&Path>, what: &T) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string(what).context("the outcomes as JSON")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn tell(
    flags: &Flags,
    jobs: &[Job],
    made: Vec<(String, u64, Result<Outcome, String>)>,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let (mut outcomes, mut told) = (Vec::new(), 0);
    for (name, seed, outcome) in made {
        let outcome = outcome.map_err(|error| anyhow!(error))?;
        if outcome.verdict != Verdict::Passed {
            told += 1;
            if told <= TOLD_MAX {
                writeln!(out, "{}", report::text(&outcome))?;
            } else {
                let foca = if outcome.protocol == Protocol::Foca { " --baseline foca" } else { "" };
                writeln!(out, "failed too: gossip-sim run {name} --seed {seed}{foca}")?;
            }
        }
        outcomes.push(outcome);
    }
    let over_all = |scenario: &str| -> Vec<SweepBound> {
        let job = jobs.iter().find(|job| scenario.split(' ').next() == Some(&job.name()));
        job.and_then(|job| job.scenario.sweep_bounds(&job.variant).ok()).unwrap_or_default()
    };
    let aggregates = aggregate::aggregate(&outcomes, over_all);
    write_json(flags.json.as_deref(), &outcomes)?;
    write_json(flags.summary.as_deref(), &aggregates)?;
    writeln!(out, "{}", aggregate::table(&aggregates))?;
    let idle = report::idle_checks(&outcomes);
    if flags.verbose && !idle.is_empty() {
        writeln!(out, "had nothing to look at: {}", idle.join(" "))?;
    }
    let mut worst = outcomes.iter().map(|outcome| outcome.verdict).max().unwrap_or(Verdict::Passed);
    // Over everything, each check must have had something to look at, or it checks nothing.
    if flags.names.is_empty() && flags.baseline.is_none() && !idle.is_empty() {
        writeln!(out, "never looked in the whole catalogue: {}", idle.join(" "))?;
        worst = worst.max(Verdict::OutOfBounds);
    }
    if aggregates.iter().any(|one| !one.holds) {
        worst = worst.max(Verdict::OutOfBounds);
    }
    // Last: how many passed.
    write!(out, "{}", report::table(&outcomes))?;
    Ok(code(worst))
}

/// Runs each beside others, once alone with a log that is thrown away, once from its plan as a file, and compares all of
/// the outcomes.
pub(crate) fn verify(flags: &VerifyFlags, out: &mut impl Write) -> anyhow::Result<u8> {
    let jobs = jobs(&flags.names, true)?;
    let plans = jobs.iter().map(|job| job.scenario.plan(&job.variant, flags.seed)).collect::<Result<Vec<_>, _>>();
    let plans = plans.map_err(|error| anyhow!(error))?;
    let many: Vec<_> = pool(0)?.install(|| plans.par_iter().map(run_plan).collect());
    let (mut passed, mut failed) = (0, 0);
    for ((job, plan), first) in jobs.iter().zip(&plans).zip(many) {
        let text = plan.to_toml().context("the plan as TOML")?;
        let read = Plan::from_toml(&text).map_err(|error| anyhow!(error))?;
        let same = run_logged(plan, Logs::Discarded) == first && run_plan(&read) == first;
        if same {
            passed += 1
        } else {
            failed += 1
        }
        writeln!(out, "{} {} {}", if same { "same  " } else { "DIFFER" }, job.name(), first.trace)?;
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { 0 } else { code(Verdict::Violated) })
}
