//! Figures before against figures after: two protocols, or two builds.
//!
//! Not here: the page that shows both as pictures (`report::html`).

use crate::outcome::Outcome;
use crate::report::figures::{self, Figure};
use crate::report::grid::grid;
use crate::report::units;

/// Ratios from here on are marked.
const NOTABLE_PERCENT: u64 = 10;

/// A table of all figures of the scenarios that are in both, with the ratio of after to before. Of several runs of a
/// scenario the median counts. Scenarios that are in one only are named at the end.
pub fn compare(before: &[Outcome], after: &[Outcome]) -> String {
    let (old, new) = (figures::by_scenario(before), figures::by_scenario(after));
    let mut out = String::new();
    let mut alone = Vec::new();
    for (name, runs) in &new {
        match old.iter().find(|(other, _)| other == name) {
            Some((_, earlier)) => out.push_str(&scenario(name, earlier, runs)),
            None => alone.push(format!("only after: {name}\n")),
        }
    }
    let gone = old.iter().filter(|(name, _)| new.iter().all(|(other, _)| other != name));
    alone.extend(gone.map(|(name, _)| format!("only before: {name}\n")));
    if out.is_empty() && alone.is_empty() {
        return "nothing to compare\n".to_owned();
    }
    out.push_str(&alone.concat());
    out
}

fn scenario(name: &str, before: &[&Outcome], after: &[&Outcome]) -> String {
    let (old, new) = (medians(before), medians(after));
    let head = ["", "figure", "before", "after", "ratio"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    let only_before = old.iter().filter(|figure| new.iter().all(|other| other.name != figure.name));
    for figure in new.iter().chain(only_before) {
        let find = |figures: &[Figure]| figures.iter().find(|other| other.name == figure.name)?.value;
        let (was, is) = (find(&old), find(&new));
        if was.unwrap_or(0) == 0 && is.unwrap_or(0) == 0 {
            continue;
        }
        rows.push(vec![
            if is_notable(was, is) { "*" } else { "" }.to_owned(),
            figure.name.clone(),
            units::maybe(&figure.unit, was),
            units::maybe(&figure.unit, is),
            ratio(was, is),
        ]);
    }
    let describe = |runs: &[&Outcome]| {
        let protocol = runs.first().map_or("", |run| units::protocol(run.protocol));
        format!("{protocol}, {} of {} passed", figures::passed(runs.iter().copied()), runs.len())
    };
    let same = match (before, after) {
        ([one], [other]) if one.trace == other.trace => "; the traces are equal",
        _ => "",
    };
    format!("{name} ({} → {}{same})\n{}\n", describe(before), describe(after), grid(&rows, &[2, 3, 4], 2))
}

/// Each figure's median over these runs; none when it was never measured.
fn medians(runs: &[&Outcome]) -> Vec<Figure> {
    let mut all: Vec<(Figure, Vec<u64>)> = Vec::new();
    for figure in runs.iter().flat_map(|run| figures::all(run)) {
        match all.iter_mut().find(|(known, _)| known.name == figure.name) {
            Some((_, values)) => values.extend(figure.value),
            None => {
                let values = figure.value.into_iter().collect();
                all.push((figure, values));
            }
        }
    }
    let median = |(figure, mut values): (Figure, Vec<u64>)| {
        values.sort_unstable();
        Figure { value: figures::rank(&values, 500), ..figure }
    };
    all.into_iter().map(median).collect()
}

/// `after` as a multiple of `before`: `0.04×`, `12×`.
pub(crate) fn ratio(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (Some(0), Some(0)) => "=".to_owned(),
        (Some(0), Some(_)) => "from 0".to_owned(),
        (Some(before), Some(after)) if before == after => "=".to_owned(),
        (Some(_), Some(0)) => "0×".to_owned(),
        (Some(before), Some(after)) => {
            let ratio = after as f64 / before as f64;
            match ratio {
                ..0.001 => "<0.001×".to_owned(),
                0.001..0.1 => format!("{ratio:.3}×"),
                0.1..10.0 => format!("{ratio:.2}×"),
                _ => format!("{ratio:.0}×"),
            }
        }
        (None, _) | (_, None) => "–".to_owned(),
    }
}

fn is_notable(before: Option<u64>, after: Option<u64>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    before.abs_diff(after).saturating_mul(100) > before.saturating_mul(NOTABLE_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn two_protocols_side_by_side() {
        let (ours, foca) = sample::deaf();
        let shown = compare(&[foca], &[ours]);
        assert!(shown.starts_with("one-way-deaf (plain foca, 0 of 1 passed → gossipd, 1 of 1 passed)\n"), "{shown}");
        let down = shown.lines().find(|line| line.contains("healthy nodes listed down")).unwrap();
        assert!(down.trim_start().starts_with('*') && down.ends_with("0×"), "{down}");
    }

    #[test]
    fn a_build_against_itself_has_no_notable_figure() {
        let (ours, _) = sample::split();
        let shown = compare(std::slice::from_ref(&ours), std::slice::from_ref(&ours));
        assert!(shown.contains("the traces are equal") && !shown.contains('*'), "{shown}");
    }

    #[test]
    fn what_is_in_one_only_is_named() {
        let ((deaf, _), (split, _)) = (sample::deaf(), sample::split());
        let shown = compare(&[deaf], &[split]);
        assert_eq!(shown, "only after: split-50-50\nonly before: one-way-deaf\n");
        assert_eq!(compare(&[], &[]), "nothing to compare\n");
    }

    #[test]
    fn ratios_read_well() {
        let rows = [
            (Some(0), Some(0), "="),
            (Some(0), Some(3), "from 0"),
            (Some(100), Some(0), "0×"),
            (Some(100), Some(50), "0.50×"),
            (Some(100), Some(1_200), "12×"),
            (Some(100_000), Some(12), "<0.001×"),
            (Some(1), None, "–"),
        ];
        rows.iter().for_each(|(before, after, text)| assert_eq!(ratio(*before, *after), *text));
    }
}
