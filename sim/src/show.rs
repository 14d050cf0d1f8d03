//! What is shown of runs that are over: one page on several scenarios with both protocols, and two files compared.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use gossip_sim::compare::compare;
use gossip_sim::outcome::{Outcome, Protocol, Verdict};
use gossip_sim::real::{Real, beside};
use gossip_sim::{Plan, report, run_plan};
use rayon::prelude::*;

use crate::sweep::Seeds;
use crate::{code, plan_of};

#[derive(Args)]
pub(crate) struct ReportFlags {
    /// Numbers or names, with variants: `S10@64`
    #[arg(default_values = ["S2", "S4@64", "S10@64"])]
    names: Vec<String>,
    /// Decides every chance of the runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the page there
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
    /// Writes all outcomes there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leaves foca out
    #[arg(long)]
    no_baseline: bool,
    /// The page's title
    #[arg(long, default_value = "gossipd, simulated")]
    title: String,
}

/// Runs the scenarios with both protocols and writes the page.
pub(crate) fn report(flags: &ReportFlags, out: &mut impl Write) -> anyhow::Result<u8> {
    let mut plans = Vec::new();
    for name in &flags.names {
        let plan = plan_of(name, flags.seed, Protocol::Gossipd)?;
        plans.push(plan.clone());
        plans.extend((!flags.no_baseline).then_some(Plan { protocol: Protocol::Foca, ..plan }));
    }
    let outcomes: Vec<Outcome> = plans.par_iter().map(run_plan).collect();
    let (ours, before): (Vec<_>, Vec<_>) =
        outcomes.iter().cloned().partition(|outcome| outcome.protocol == Protocol::Gossipd);
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&flags.html, report::html(&flags.title, &ours, &before))?;
    if let Some(path) = &flags.json {
        write(path, serde_json::to_string(&outcomes).context("the outcomes as JSON")?)?;
    }
    write!(out, "{}", report::table(&outcomes))?;
    writeln!(out, "the page is {}", flags.html.display())?;
    Ok(code(ours.iter().map(|outcome| outcome.verdict).max().unwrap_or(Verdict::Passed)))
}

/// Outcomes of a file, one or many.
fn outcomes_of(path: &Path) -> anyhow::Result<Vec<Outcome>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let many = serde_json::from_str::<Vec<Outcome>>(&text);
    many.or_else(|_| serde_json::from_str::<Outcome>(&text).map(|one| vec![one]))
        .map_err(|error| anyhow!("{} holds no outcomes: {error}", path.display()))
}

#[derive(Args)]
pub(crate) struct CompareFlags {
    /// What `run`, `sweep` or `report` wrote with `--json`
    #[arg(required_unless_present = "real", requires = "after")]
    before: Option<PathBuf>,
    /// Another one
    after: Option<PathBuf>,
    /// What real daemons did with plans of the catalogue (`GOSSIPD_REAL_OUT=FILE cargo test --test it fleet_plans`)
    #[arg(long, value_name = "FILE", conflicts_with = "before")]
    real: Option<PathBuf>,
    /// With `--real`: seeds to simulate, from the first to before the second
    #[arg(long, default_value = "1..21", value_name = "A..B")]
    seeds: Seeds,
}

/// Prints the figures of both files side by side.
pub(crate) fn compare_files(flags: &CompareFlags, out: &mut impl Write) -> anyhow::Result<u8> {
    if let Some(path) = &flags.real {
        return beside_real(path, flags.seeds, out);
    }
    if let (Some(before), Some(after)) = (&flags.before, &flags.after) {
        write!(out, "{}", compare(&outcomes_of(before)?, &outcomes_of(after)?))?;
    }
    Ok(0)
}

fn beside_real(path: &Path, seeds: Seeds, out: &mut impl Write) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let runs = Real::read(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let scenarios: BTreeSet<_> = runs.iter().map(|run| run.scenario.as_str()).collect();
    for scenario in scenarios {
        let plans: Result<Vec<_>, _> = seeds.all().map(|seed| plan_of(scenario, seed, Protocol::Gossipd)).collect();
        let simulated: Vec<Outcome> = plans?.par_iter().map(run_plan).collect();
        let real: Vec<_> = runs.iter().filter(|run| run.scenario == scenario).collect();
        writeln!(out, "{}", beside(scenario, &real, &simulated))?;
    }
    Ok(0)
}
