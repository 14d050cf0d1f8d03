//! What the network does: delay, loss, and cuts between sets of hosts.
//!
//! Not here: who lives at which address (`world`), and what the bytes mean.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use crate::host::HostId;
use crate::luck::{Luck, Purpose};

/// A million: the whole of a part given in parts per million.
pub const PPM: u32 = 1_000_000;

/// How every path between two hosts behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Shortest time one way, in microseconds.
    pub latency_us: u64,
    /// Up to this much more, in microseconds, drawn for each datagram; so datagrams overtake each other.
    pub jitter_us: u64,
    /// Datagrams lost, independently of each other, in parts per million. Exchanges are not affected: TCP repeats.
    pub loss_ppm: u32,
}

impl Default for Link {
    /// A private network within one data centre.
    fn default() -> Self {
        Self { latency_us: 250, jitter_us: 100, loss_ppm: 0 }
    }
}

/// Names a cut until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutId(u64);

struct Cut {
    from: BTreeSet<HostId>,
    to: BTreeSet<HostId>,
}

struct Draws {
    latency: ChaCha12Rng,
    loss: ChaCha12Rng,
    exchanges: ChaCha12Rng,
}

/// The network of one world.
pub(crate) struct Net {
    pub(crate) link: Link,
    draws: Vec<Draws>,
    cuts: BTreeMap<CutId, Cut>,
    cut_count: u64,
}

impl Net {
    pub(crate) const fn new(link: Link) -> Self {
        Self { link, draws: Vec::new(), cuts: BTreeMap::new(), cut_count: 0 }
    }

    /// Hosts are attached in the order of their ids.
    pub(crate) fn attach(&mut self, luck: Luck, host: HostId) {
        let [latency, loss, exchanges] =
            [Purpose::Latency, Purpose::Loss, Purpose::Exchanges].map(|purpose| luck.of_host(purpose, host));
        self.draws.push(Draws { latency, loss, exchanges });
    }

    /// How long a datagram from `from` takes; none: it is lost. Both are drawn each time, so that a change of one does
    /// not shift the other.
    pub(crate) fn datagram_us(&mut self, from: HostId) -> Option<u64> {
        let draws = self.draws.get_mut(from.index())?;
        let delay_us = self.link.latency_us + draws.latency.random_range(0..=self.link.jitter_us);
        let lost = draws.loss.random_range(0..PPM) < self.link.loss_ppm;
        (!lost).then_some(delay_us)
    }

    /// How long one direction of an exchange takes that `asker` began.
    pub(crate) fn exchange_us(&mut self, asker: HostId) -> u64 {
        let jitter_us = self.link.jitter_us;
        let extra_us = self.draws.get_mut(asker.index()).map_or(0, |draws| draws.exchanges.random_range(0..=jitter_us));
        self.link.latency_us + extra_us
    }

    /// Whether nothing gets from `from` to `to` at present.
    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.values().any(|cut| cut.from.contains(&from) && cut.to.contains(&to))
    }

    pub(crate) fn cut(&mut self, from: &[HostId], to: &[HostId]) -> CutId {
        self.cut_count += 1;
        let id = CutId(self.cut_count);
        self.cuts.insert(id, Cut { from: from.iter().copied().collect(), to: to.iter().copied().collect() });
        id
    }

    pub(crate) fn heal(&mut self, id: CutId) {
        self.cuts.remove(&id);
    }
}
