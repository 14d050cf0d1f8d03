//! The book of what was checked: by name, how often it held, and where it did not.
//!
//! Not here: the checks themselves; they stand where the thing checked happens.

use std::collections::BTreeMap;

/// Failures kept word for word for each check; more are only counted.
const FAILURES_MAX: usize = 8;

/// One check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// How often it held.
    pub held: u64,
    /// How often it did not.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<String>,
}

/// All checks of a run, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<&'static str, Check>);

impl Checks {
    /// Notes one outcome. `what` is asked only for a failure.
    pub fn that(&mut self, name: &'static str, holds: bool, what: impl FnOnce() -> String) {
        let check = self.0.entry(name).or_default();
        if holds {
            check.held += 1;
            return;
        }
        check.failed += 1;
        if check.failures.len() < FAILURES_MAX {
            check.failures.push(what());
        }
    }

    /// Every check that was made, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Check)> {
        self.0.iter().map(|(name, check)| (*name, check))
    }

    /// How many checks held every time.
    pub fn passed(&self) -> usize {
        self.0.values().filter(|check| check.failed == 0).count()
    }

    /// How many did not.
    pub fn failed(&self) -> usize {
        self.0.len() - self.passed()
    }

    /// The first failures of all, each with its check's name.
    pub fn failures(&self) -> Vec<String> {
        self.iter().flat_map(|(name, check)| check.failures.iter().map(move |what| format!("{name}: {what}"))).collect()
    }
}
