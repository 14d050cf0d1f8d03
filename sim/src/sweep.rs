//! Many runs at once: scenarios times seeds, spread over the processors; and runs that are made twice and compared.

use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use gossip_sim::outcome::{Outcome, Verdict};
use gossip_sim::run::{run_logged, run_plan};
use gossip_sim::scenario::{Scenario, catalogue};
use indicatif::{ProgressBar, ProgressDrawTarget};
use rayon::prelude::*;

use crate::{code, text};

/// Seeds from the first to before the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeds {
    from: u64,
    to: u64,
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
    json: Option<std::path::PathBuf>,
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

fn pool(jobs: usize) -> anyhow::Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(jobs).build().context("threads")
}

/// Runs all of them.
pub(crate) fn sweep(flags: &Flags, out: &mut impl Write) -> anyhow::Result<u8> {
    let jobs = jobs(&flags.names, flags.quick)?;
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
                    let outcome = job.scenario.plan(&job.variant, *seed).map(|plan| run_plan(&plan));
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
    tell(flags, outcomes, out)
}

fn tell(
    flags: &Flags,
    outcomes: Vec<(String, u64, Result<Outcome, String>)>,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let (mut passed, mut worst) = (0, Verdict::Passed);
    let total = outcomes.len();
    let mut kept = Vec::new();
    for (name, seed, outcome) in outcomes {
        let outcome = outcome.map_err(|error| anyhow!(error))?;
        worst = worst.max(outcome.verdict);
        if outcome.verdict == Verdict::Passed {
            passed += 1;
            writeln!(out, "passed {name} seed {seed}: {}", outcome.scenario)?;
        } else {
            writeln!(out, "{}", text::outcome(&outcome))?;
            writeln!(out, "again: gossip-sim run {name} --seed {seed}")?;
        }
        kept.extend(flags.json.is_some().then_some(outcome));
    }
    if let Some(path) = &flags.json {
        let text = serde_json::to_string(&kept).context("the outcomes as JSON")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    writeln!(out, "{passed} passed, {} failed", total - passed)?;
    Ok(code(worst))
}

/// Runs each twice on one thread, once beside others, once from its plan as a file, and compares the traces.
pub(crate) fn verify(flags: &VerifyFlags, out: &mut impl Write) -> anyhow::Result<u8> {
    let jobs = jobs(&flags.names, true)?;
    let plans = jobs.iter().map(|job| job.scenario.plan(&job.variant, flags.seed)).collect::<Result<Vec<_>, _>>();
    let plans = plans.map_err(|error| anyhow!(error))?;
    let many: Vec<_> = pool(0)?.install(|| plans.par_iter().map(run_plan).collect());
    let (mut passed, mut failed) = (0, 0);
    for ((job, plan), first) in jobs.iter().zip(&plans).zip(many) {
        let text = plan.to_toml().context("the plan as TOML")?;
        let read = gossip_sim::Plan::from_toml(&text).map_err(|error| anyhow!(error))?;
        let same = run_logged(plan, false) == first && run_plan(&read) == first;
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
