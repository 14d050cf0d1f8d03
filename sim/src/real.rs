//! What real daemons did with plans of the catalogue, beside what simulated ones do.
//!
//! A file of real runs holds a line of JSON for each ([`Real`]); `tests/it/fleet_plans.rs` writes them.
//!
//! Not here: comparing two simulations (`compare`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::report::figures::rank;
use crate::report::grid::grid;
use crate::report::units;

/// A run of real daemons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Real {
    /// The scenario with its variant: `S2@25`.
    pub scenario: String,
    /// The seed of the plan.
    pub seed: u64,
    /// Daemons.
    pub nodes: usize,
    /// From a crash to `down`, at each other host, in microseconds.
    pub detect_us: Vec<u64>,
    /// From a goodbye to `left` at the last of the others, in microseconds.
    pub leave_max_us: Option<u64>,
    /// From the end of the last fault until all list one another as ready, in microseconds.
    pub heal_us: Option<u64>,
}

impl Real {
    /// The runs in a file.
    ///
    /// # Errors
    /// A line that is none.
    pub fn read(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let run = |(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1));
        lines.map(run).collect()
    }
}

/// Times of one kind, of all runs of a scenario.
type Times = BTreeMap<&'static str, Vec<u64>>;

fn real_times(runs: &[&Real]) -> Times {
    let mut times = Times::new();
    for Real { detect_us, leave_max_us, heal_us, .. } in runs {
        times.entry("down, each observer").or_default().extend(detect_us);
        times.entry("left, the last observer").or_default().extend(leave_max_us);
        times.entry("all agree after the faults").or_default().extend(heal_us);
    }
    times
}

fn simulated_times(runs: &[Outcome]) -> Times {
    let mut times = Times::new();
    for Outcome { detections, figures, .. } in runs {
        let detected = detections.iter().flat_map(|one| one.latencies_us.iter());
        times.entry("down, each observer").or_default().extend(detected);
        times.entry("left, the last observer").or_default().extend(figures.get("leave_max_us"));
        times.entry("all agree after the faults").or_default().extend(figures.get("heal_us"));
    }
    times
}

/// Median, 90 %, 99 % and most, in words.
fn spread(times: &mut [u64]) -> [String; 5] {
    times.sort_unstable();
    let at = |permille| rank(times, permille).map_or("–".to_owned(), units::span);
    [times.len().to_string(), at(500), at(900), at(990), at(1_000)]
}

/// A table of `scenario`: its real runs, and its simulated ones.
pub fn beside(scenario: &str, real: &[&Real], simulated: &[Outcome]) -> String {
    let head = ["", "", "runs", "n", "median", "90 %", "99 %", "most"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    let (mut theirs, mut ours) = (real_times(real), simulated_times(simulated));
    for (what, times) in theirs.iter_mut().filter(|(_, times)| !times.is_empty()) {
        let mut imagined = ours.remove(what).unwrap_or_default();
        let row = |what: &str, how: &str, runs: usize, spread: [String; 5]| {
            let first = [what.to_owned(), how.to_owned(), runs.to_string()];
            first.into_iter().chain(spread).collect::<Vec<_>>()
        };
        rows.push(row(what, "simulated", simulated.len(), spread(&mut imagined)));
        rows.push(row("", "real", real.len(), spread(times)));
        let ratio = |permille| {
            let (is, was) = (rank(times, permille), rank(&imagined, permille).filter(|us| *us > 0));
            is.zip(was).map_or("–".to_owned(), |(is, was)| format!("{}.{:02} x", is / was, is % was * 100 / was))
        };
        let ratios = [500, 900, 990, 1_000].map(ratio);
        rows.push(row(
            "",
            "real : simulated",
            0,
            [String::new(), ratios[0].clone(), ratios[1].clone(), ratios[2].clone(), ratios[3].clone()],
        ));
        if let Some(last) = rows.last_mut().and_then(|row| row.get_mut(2)) {
            last.clear();
        }
    }
    format!("{scenario}\n{}\n", grid(&rows, &[2, 3, 4, 5, 6, 7], 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_line_by_line_and_a_line_that_is_none_is_named() {
        let line = r#"{"scenario":"S2@25","seed":1,"nodes":25,"detect_us":[300000,100000,200000],"leave_max_us":null,"heal_us":1000}"#;
        let runs = Real::read(&format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!((runs.len(), runs[0].nodes, runs[0].heal_us), (2, 25, Some(1_000)));
        let error = Real::read(&format!("{line}\nnonsense")).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
        let all: Vec<_> = runs.iter().collect();
        let table = beside("S2@25", &all, &[]);
        assert!(table.starts_with("S2@25\n") && table.contains("200 ms  300 ms"), "{table}");
    }
}
