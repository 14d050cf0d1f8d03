//! Sizes, queues, bytes: what must stay bounded.

use super::{Checks, Rule};
use crate::host::HostId;

/// Datagram bytes that a node may send between two looks (a virtual second), for each node that was ever born.
const BYTES_PER_NODE_MAX: u64 = 20_000;
/// And for itself alone.
const BYTES_BASE_MAX: u64 = 1_000_000;
/// Entries of a queue for each node that was ever born.
const QUEUE_PER_NODE_MAX: usize = 16;
/// And for itself alone.
const QUEUE_BASE_MAX: usize = 1_024;
/// Datagrams that a node may send in a second on average over all.
const DATAGRAMS_PER_NODE_MAX: u64 = 1_000;

impl Checks {
    /// A datagram leaves.
    pub(crate) fn datagram(&mut self, host: HostId, len: usize) {
        let cap = self.datagram_bytes_max;
        self.that(Rule::Q1, len <= cap, || format!("{host}: {len} bytes, cap {cap}"));
    }

    /// What one node holds, and sent since the last look.
    pub(crate) fn resources(&mut self, host: HostId, depths: &[(&'static str, usize)], born: usize, bytes: u64) {
        let cap = QUEUE_BASE_MAX + QUEUE_PER_NODE_MAX * born;
        for (name, depth) in depths {
            self.that(Rule::Q3, *depth <= cap, || format!("{host}: {depth} in {name}, cap {cap}"));
        }
        let budget = BYTES_BASE_MAX + BYTES_PER_NODE_MAX * born as u64;
        self.that(Rule::Q2, bytes <= budget, || format!("{host}: {bytes} bytes, budget {budget}"));
    }

    /// A virtual second is over.
    pub(crate) fn second(&mut self, datagrams: u64, peak: u64) {
        let cap = DATAGRAMS_PER_NODE_MAX * peak.max(1);
        self.that(Rule::Q6, datagrams <= cap, || format!("{datagrams} datagrams of {peak} nodes at most"));
    }
}
