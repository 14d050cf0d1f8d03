//! Own tables as they are to be on the disk: what [`Effect::KeepTable`](super::Effect::KeepTable) means, step by step.
//!
//! Pure, for the simulator and tests; whoever has a real disk follows the same rules.

use std::collections::BTreeMap;

use super::io::KeptTable;
use crate::record::Version;
use crate::wire::table::{Body, Key, Scope, Step};

/// All own tables of one node, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptTables {
    tables: BTreeMap<Scope, (Vec<Version>, BTreeMap<Key, Body>)>,
}

impl KeptTables {
    /// Keeps a step.
    pub fn keep(&mut self, step: &Step, lives: &[Version]) {
        let (tips, records) = self.tables.entry(step.scope).or_default();
        let before: Vec<_> = records.keys().copied().collect();
        if step.is_whole() {
            records.clear();
        }
        *tips = lives.to_vec();
        for change in &step.changes {
            match &change.body {
                Some(body) => records.insert(change.key, body.clone()),
                None => records.remove(&change.key),
            };
        }
        let gone: Vec<_> = before.into_iter().filter(|key| !records.contains_key(key)).collect();
        if step.scope == Scope::Attachments {
            for key in gone {
                self.tables.remove(&Scope::Network(key.network()));
            }
        }
    }

    /// All of them, attachments first.
    pub fn tables(&self) -> Vec<KeptTable> {
        let table = |(scope, (lives, records)): (&Scope, &(Vec<Version>, BTreeMap<Key, Body>))| {
            let records = records.iter().map(|(key, body)| (*key, body.clone())).collect();
            KeptTable { scope: *scope, lives: lives.clone(), records }
        };
        self.tables.iter().map(table).collect()
    }
}
