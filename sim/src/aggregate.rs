//! What many runs of one scenario amount to: each bounded figure's median, 99th percentile and maximum over all seeds,
//! beside the bounds that hold for one run and those that hold for all of them together.
//!
//! Not here: which runs there are (the binary), and what one run amounts to (`figures`).

use serde::{Deserialize, Serialize};

use crate::outcome::{Expectation, Outcome, Protocol};
use crate::report::figures;
use crate::report::grid::grid;
use crate::report::units;

/// A bound over all runs of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepBound {
    /// The figure's name.
    pub name: String,
    /// Most that the median of the runs may be.
    pub median: Option<u64>,
    /// Most that any run may be.
    pub max: Option<u64>,
}

/// One figure over all runs of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The scenario, with its variant.
    pub scenario: String,
    /// Which protocol ran.
    pub protocol: Protocol,
    /// The figure's name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Runs in which it was measured.
    pub n: usize,
    /// Runs in which it was not.
    pub unmeasured: usize,
    /// The least.
    pub min: Option<u64>,
    /// Half of the runs are no higher.
    pub median: Option<u64>,
    /// 99 in 100 runs are no higher.
    pub p99: Option<u64>,
    /// The most.
    pub max: Option<u64>,
    /// Least allowed for each run.
    pub each_at_least: Option<u64>,
    /// Most allowed for each run.
    pub each_at_most: Option<u64>,
    /// Most allowed for the median.
    pub median_at_most: Option<u64>,
    /// Most allowed for the maximum.
    pub max_at_most: Option<u64>,
    /// All of these bounds were kept.
    pub holds: bool,
}

/// All bounded figures of these runs; `bounds` gives those over all runs of a scenario, by its name in the outcomes.
pub fn aggregate<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    bounds: impl Fn(&str) -> Vec<SweepBound>,
) -> Vec<Aggregate> {
    let mut all = Vec::new();
    for (scenario, runs) in figures::by_scenario(outcomes) {
        for protocol in [Protocol::Gossipd, Protocol::Foca] {
            let runs: Vec<_> = runs.iter().copied().filter(|run| run.protocol == protocol).collect();
            all.extend(of_scenario(scenario, protocol, &runs, &bounds(scenario)));
        }
    }
    all
}

fn of_scenario(scenario: &str, protocol: Protocol, runs: &[&Outcome], bounds: &[SweepBound]) -> Vec<Aggregate> {
    let Some(first) = runs.first() else { return Vec::new() };
    let alone = bounds.iter().filter(|bound| first.expectations.iter().all(|one| one.name != bound.name));
    let names = first.expectations.iter().map(|one| &one.name).chain(alone.map(|bound| &bound.name));
    let one = |name: &String| {
        let each = first.expectations.iter().find(|one| one.name == *name);
        let over_all = bounds.iter().find(|bound| bound.name == *name);
        let actual = |run: &&Outcome| {
            let bounded = run.expectations.iter().find(|one| one.name == *name);
            bounded.map_or_else(|| run.figures.get(name).copied(), |one| one.actual)
        };
        let mut values: Vec<_> = runs.iter().filter_map(actual).collect();
        values.sort_unstable();
        let (median, max) = (figures::rank(&values, 500), values.last().copied());
        let (median_at_most, max_at_most) =
            (over_all.and_then(|bound| bound.median), over_all.and_then(|bound| bound.max));
        let unmeasured = runs.len() - values.len();
        let kept = |value: Option<u64>, most: Option<u64>| most.is_none_or(|most| value.is_some_and(|is| is <= most));
        let each_holds = runs.iter().flat_map(|run| &run.expectations).filter(|one| one.name == *name).all(|e| e.holds);
        Aggregate {
            scenario: scenario.to_owned(),
            protocol,
            name: name.clone(),
            unit: each.map_or_else(|| units::unit_of(name).to_owned(), |each| each.unit.clone()),
            n: values.len(),
            unmeasured,
            min: values.first().copied(),
            median,
            p99: figures::rank(&values, 990),
            max,
            each_at_least: each.and_then(|each| each.at_least),
            each_at_most: each.and_then(|each| each.at_most),
            median_at_most,
            max_at_most,
            holds: each_holds && unmeasured == 0 && kept(median, median_at_most) && kept(max, max_at_most),
        }
    };
    names.map(one).collect()
}

/// A line for each figure.
pub fn table(aggregates: &[Aggregate]) -> String {
    let head = ["", "scenario", "figure", "each run", "all runs", "n", "median", "p99", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(aggregates.iter().map(row));
    if rows.len() > 1 { grid(&rows, &[5, 6, 7, 8], 0) } else { String::new() }
}

fn row(aggregate: &Aggregate) -> Vec<String> {
    let Aggregate { scenario, protocol, name, unit, n, unmeasured, min: _, median, p99, max, .. } = aggregate;
    let Aggregate { each_at_least, each_at_most, median_at_most, max_at_most, holds, .. } = aggregate;
    let each = units::bound(&Expectation {
        name: name.clone(),
        unit: unit.clone(),
        at_least: *each_at_least,
        at_most: *each_at_most,
        actual: None,
        holds: *holds,
    });
    let most = |what: &str, most: &Option<u64>| most.map(|most| format!("{what} ≤ {}", units::value(unit, most)));
    let over_all: Vec<_> = [most("median", median_at_most), most("max", max_at_most)].into_iter().flatten().collect();
    let shown = |value: &Option<u64>| units::maybe(unit, *value);
    let missing = if *unmeasured > 0 { format!("{n} ({unmeasured} unmeasured)") } else { n.to_string() };
    let foca = if *protocol == Protocol::Foca { " (plain foca)" } else { "" };
    vec![
        if *holds { "✓" } else { "✗" }.to_owned(),
        format!("{scenario}{foca}"),
        name.clone(),
        each,
        over_all.join(", "),
        missing,
        shown(median),
        shown(p99),
        shown(max),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn bounds_over_all_runs_are_apart_from_those_of_each() {
        let (ours, _) = sample::deaf();
        let runs: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|value| {
                let mut run = ours.clone();
                run.figures.insert("x_us".to_owned(), value);
                run
            })
            .collect();
        let over = |median, max| move |_: &str| vec![SweepBound { name: "x_us".to_owned(), median, max }];
        let found = |median, max| {
            let all = aggregate(&runs, over(median, max));
            all.into_iter().find(|one| one.name == "x_us").unwrap()
        };
        let kept = found(Some(2), Some(3));
        assert_eq!((kept.n, kept.median, kept.max, kept.holds), (3, Some(2), Some(3), true));
        assert!(!found(Some(1), None).holds && !found(None, Some(2)).holds);
        assert!(table(&aggregate(&runs, over(Some(2), None))).contains("median ≤ 2 µs"));
    }

    #[test]
    fn a_figure_that_was_not_measured_breaks_its_bound() {
        let (ours, _) = sample::deaf();
        let bounds = |_: &str| vec![SweepBound { name: "none".to_owned(), median: None, max: None }];
        let all = aggregate([&ours], bounds);
        let none = all.iter().find(|one| one.name == "none").unwrap();
        assert!(!none.holds && none.unmeasured == 1);
    }
}
