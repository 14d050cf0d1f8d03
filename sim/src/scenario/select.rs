//! Who is meant by a selector.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use super::file::{Rule, Selector};
use crate::luck::{Luck, Purpose};

/// All that a selector may speak of.
pub(super) struct Cast<'a> {
    pub(super) luck: Luck,
    pub(super) nodes: usize,
    pub(super) regions: usize,
    pub(super) groups: &'a BTreeMap<String, Selector>,
}

impl Cast<'_> {
    /// The region of a host: hosts are spread over the regions in turn.
    pub(super) const fn region(&self, host: usize) -> usize {
        if self.regions == 0 { 0 } else { host % self.regions }
    }

    /// The hosts, in ascending order. Chance is drawn by `name`, so that other selectors do not change it.
    pub(super) fn select(&self, selector: &Selector, name: &str) -> Result<Vec<usize>, String> {
        self.nested(selector, name, 0)
    }

    fn nested(&self, selector: &Selector, name: &str, depth: usize) -> Result<Vec<usize>, String> {
        if depth > 8 {
            return Err(format!("{name}: groups go in circles"));
        }
        let all = 0..self.nodes;
        let mut hosts: Vec<usize> = match selector {
            Selector::Name(text) if text == "all" => all.collect(),
            Selector::Name(group) | Selector::Rule(Rule::Label(group)) => {
                let inner = self.groups.get(group).ok_or_else(|| format!("no group {group}"))?;
                self.nested(inner, group, depth + 1)?
            }
            Selector::List(hosts) => hosts.clone(),
            Selector::Rule(rule) => match rule {
                Rule::Range((from, to)) => (*from..*to).collect(),
                Rule::Sample(count) => self.sample(*count, name),
                Rule::Percent(percent) => self.sample((self.nodes * percent / 100).max(1), name),
                Rule::Half(half) if half == "first" => (0..self.nodes / 2).collect(),
                Rule::Half(_) => (self.nodes / 2..self.nodes).collect(),
                Rule::Third(third) => all.filter(|host| host * 3 / self.nodes.max(1) == *third).collect(),
                Rule::Region(region) => all.filter(|host| self.region(*host) == *region).collect(),
                Rule::Label(_) => Vec::new(),
                Rule::Not(inner) => {
                    let out = self.nested(inner, name, depth + 1)?;
                    all.filter(|host| !out.contains(host)).collect()
                }
            },
        };
        hosts.sort_unstable();
        hosts.dedup();
        match hosts.last() {
            None => Err(format!("{name}: nobody is meant")),
            Some(last) if *last >= self.nodes => Err(format!("{name}: host {last} of {}", self.nodes)),
            Some(_) => Ok(hosts),
        }
    }

    fn sample(&self, count: usize, name: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.nodes).collect();
        order.shuffle(&mut self.luck.named(Purpose::Victims, name));
        order.truncate(count);
        order
    }
}
