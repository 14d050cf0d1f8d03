//! Hosts whose nodes know each other from their start: a cluster that stands, without what forming it costs.
//!
//! Not here: a start like that of any daemon (`machine`).

use std::sync::Arc;

use gossipd::node::{Acquaintances, Node};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use super::World;
use crate::host::HostId;
use crate::view::Row;

impl World {
    /// Starts nodes that know each other, as if each had compared its state with the others. Plain foca gets nothing of
    /// this: its nodes are told all addresses instead.
    pub fn start_together(&mut self, ids: &[HostId]) {
        let mut nodes: Vec<_> = ids.iter().map(|id| (*id, self.made(*id))).collect();
        let own = nodes.iter().filter(|(_, node)| node.gossipd().is_some());
        let rows: Vec<_> =
            own.flat_map(|(id, node)| node.members().into_iter().map(|own| (*id, Arc::new(Row::from(&own))))).collect();
        let entries = nodes.iter().filter_map(|(_, node)| node.gossipd()).flat_map(Node::entries).collect();
        if let Ok(others) = Acquaintances::new(&self.commons, entries) {
            let now_us = self.now_us;
            let nows: Vec<_> = ids.iter().map(|id| self.host(*id).now(now_us)).collect();
            // Each for itself, so in whatever order.
            nodes.par_iter_mut().zip(nows).for_each(|((_, node), now)| {
                if let Some(node) = node.gossipd_mut() {
                    node.acquaint(now, &others);
                }
            });
        }
        nodes.into_iter().for_each(|(id, node)| self.begin(id, node));
        self.note_acquainted(&rows);
    }

    /// Each of them lists the others without having been told. `rows` are their own lines.
    fn note_acquainted(&mut self, rows: &[(HostId, Arc<Row>)]) {
        for (observer, _) in rows {
            let host = self.host(*observer);
            let (own, since_ms) = (host.number, host.now(self.now_us).unix_ms);
            self.host_mut(*observer).view.reserve_exact(rows.len());
            for (subject, row) in rows {
                let number = self.host(*subject).number;
                if number == own {
                    continue;
                }
                let is_right = self.is_right(number, Some(row));
                let row = if row.since_ms == since_ms {
                    Arc::clone(row)
                } else {
                    Arc::new(Row { since_ms, ..Row::clone(row) })
                };
                let view = &mut self.host_mut(*observer).view;
                view.put(number, Some(row));
                view.right += usize::from(is_right);
                self.truth.right += usize::from(is_right);
            }
        }
    }
}
