//! The properties that must hold at every step, by name, in words, with how often each was looked at and what broke it.
//!
//! * `membership`: what one node may say of another, given what it said before and what is true;
//! * `decisions`: what was decided;
//! * `tables`: what owners wrote, and what others show of it;
//! * `streams`: what local programs are told;
//! * `resources`: sizes, queues, bytes.
//!
//! Not here: numbers that a scenario bounds (`figures`).

mod decisions;
mod membership;
mod resources;
mod streams;
mod tables;

use std::collections::BTreeSet;

use gossipd::node::Config;

pub use self::membership::Step;
use crate::baseline;
use crate::host::HostId;
use crate::outcome::{CheckResult, Protocol};

/// Failures kept word for word for each check; more are only counted.
const EXAMPLES_MAX: usize = 8;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident: $what:literal,)*) => {
        /// A property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Rule { $($name,)* }
        const RULES: &[(Rule, &str, &str)] = &[$((Rule::$name, stringify!($name), $what),)*];
    };
}

rules! {
    M1: "status changes only along ready, suspect, down; back to ready only by a higher incarnation or life; left only by the node's own word",
    M2: "a life never falls at an observer, nor an incarnation within it",
    M3: "nobody holds an incarnation that its subject never had",
    M4: "a running node never lists itself as down",
    M5: "an address has one active node at any observer, two seconds after a change of hands",
    M6: "the event stream, folded, equals the listing",
    M7: "every listed life was really born",
    M8: "bytes of strangers change nothing",
    M9: "mangled bytes change nothing and are counted",
    M10: "a node that said goodbye is never suspected",
    Mirror: "a member table equals the list of the SWIM core",
    Foca: "the SWIM core returns no error",
    Events: "events say what was before, in a gap-free order",
    Conflict: "no identity conflict without a clone",
    Persist: "persisted generations grow",
    A1: "a decision is never lost once another live node has it, nor replaced by an earlier one",
    A2: "all connected nodes hold the same decisions once it is calm",
    A3: "only decisions that somebody entitled has signed change anything",
    A4: "one signer's decisions are dated in the order in which they were made",
    Decided: "a member is listed with what was decided about it",
    Joined: "whoever has joined knows what its peer held for decided before",
    Confirmed: "whoever is told that all have a decision is told the truth",
    Removed: "nobody lists a node again whose removal it knows",
    Tables: "the events of tables, folded, equal the tables held, and say what was before",
    E1: "only what its owner wrote is ever shown of anybody",
    E2: "versions of a table never fall and have no gap: a version has one content",
    E3: "what anybody has seen deleted is never shown anew",
    E4: "records are marked in the same step in which their owner goes down or comes back",
    E5: "an owner that is back has exactly the tables of its disk, and says nothing again",
    E6: "what a life wrote whose disk is gone goes",
    E7: "equal digests mean equal tables, and equal tables equal digests",
    E8: "once it is calm all show what owners have, and the same conflicts",
    E10: "nobody holds records of a network without taking part in it",
    P1: "a snapshot and the changes after it, folded, are what the node lists",
    P2: "changes are told in order, without gap and repetition",
    P3: "who was left behind is told so, and delays nobody",
    P4: "whoever resumes is told exactly what it missed, or that it cannot be",
    D1: "every crash is down at every healthy observer in the end",
    D3: "without loss and slow nodes nobody healthy is suspected",
    D7: "a node that lost everybody says so and accuses nobody",
    Q1: "no datagram above the cap",
    Q2: "datagram bytes of a node between two looks stay within the budget",
    Q3: "every queue stays under its cap",
    Q4: "state stays within what was ever born",
    Q6: "datagrams within a second are bounded by the number of nodes",
}

#[derive(Debug, Clone, Default)]
struct Entry {
    looked: u64,
    failed: u64,
    examples: Vec<String>,
}

/// All checks of a run.
#[derive(Debug, Clone)]
pub struct Checks {
    protocol: Protocol,
    entries: Vec<Entry>,
    datagram_bytes_max: usize,
    rivals: BTreeSet<HostId>,
    /// Gated checks that bind.
    asked: Vec<String>,
}

impl Checks {
    pub(crate) fn new(config: &Config, protocol: Protocol) -> Self {
        Self {
            protocol,
            entries: vec![Entry::default(); RULES.len()],
            datagram_bytes_max: match protocol {
                Protocol::Gossipd => config.datagram_bytes_max,
                Protocol::Foca => baseline::DATAGRAM_BYTES_MAX,
            },
            rivals: BTreeSet::new(),
            asked: Vec::new(),
        }
    }

    /// These bind although they are not meant for every run.
    pub(crate) fn ask_for(&mut self, names: &[String]) {
        self.asked = names.to_vec();
    }

    fn is_asked_for(&self, rule: Rule) -> bool {
        RULES.iter().any(|(known, name, _)| *known == rule && self.asked.iter().any(|asked| asked == name))
    }

    /// foca has no incarnations, suspicions, goodbyes, decisions, tables, streams, health, queues and seals to look at, and its errors are its own.
    const fn applies(&self, rule: Rule) -> bool {
        use Rule::{
            A1, A2, A3, A4, Confirmed, Conflict, D3, D7, Decided, E1, E2, E3, E4, E5, E6, E7, E8, E10, Foca, Joined,
            M3, M4, M8, M9, M10, P1, P2, P3, P4, Q3, Removed, Tables,
        };
        let of_swim = !matches!(rule, M3 | M4 | M8 | M9 | M10 | Foca | Conflict | D3 | D7 | Q3);
        let of_decisions = matches!(rule, A1 | A2 | A3 | A4 | Decided | Joined | Confirmed | Removed);
        let of_tables = matches!(rule, E1 | E2 | E3 | E4 | E5 | E6 | E7 | E8 | E10 | Tables);
        let of_streams = matches!(rule, P1 | P2 | P3 | P4);
        matches!(self.protocol, Protocol::Gossipd) || of_swim && !of_decisions && !of_tables && !of_streams
    }

    /// Notes one look. `what` is asked only for a failure.
    pub(crate) fn that(&mut self, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        if !self.applies(rule) {
            return;
        }
        let Some(entry) = self.entries.get_mut(rule as usize) else { return };
        entry.looked += 1;
        if holds {
            return;
        }
        entry.failed += 1;
        if entry.examples.len() < EXAMPLES_MAX {
            entry.examples.push(what());
        }
    }

    /// All that were made, and gated ones that were asked for.
    pub fn results(&self) -> Vec<CheckResult> {
        let gated = |rule| matches!(rule, Rule::D1 | Rule::D3 | Rule::D7);
        RULES
            .iter()
            .zip(&self.entries)
            .filter(|((rule, ..), _)| self.applies(*rule))
            .filter(|((rule, ..), entry)| entry.looked > 0 || !gated(*rule) || self.is_asked_for(*rule))
            .map(|((_, name, what), entry)| {
                let Entry { looked, failed, examples } = entry.clone();
                CheckResult { name: (*name).to_owned(), what: (*what).to_owned(), looked, failed, examples }
            })
            .collect()
    }

    /// The first failures of all, each with its check's name.
    pub fn failures(&self) -> Vec<String> {
        let named = |result: CheckResult| {
            let CheckResult { name, examples, .. } = result;
            examples.into_iter().map(move |what| format!("{name}: {what}")).collect::<Vec<_>>()
        };
        self.results().into_iter().flat_map(named).collect()
    }
}
