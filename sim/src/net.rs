//! What the network does to packets: delay, loss, and the faults that a plan puts on paths between hosts.
//!
//! Not here: who lives at which address, and how a connection is made of segments (`world`).

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use crate::host::HostId;
use crate::luck::{Luck, Purpose};
use crate::plan::{Effect, Network, PPM, Path};

/// Earlier datagrams that a replaying fault keeps.
const KEPT_MAX: usize = 64;

/// What happens to one datagram.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// It arrives after so many microseconds; none: never.
    pub(crate) delay_us: Option<u64>,
    /// A second copy arrives after so many.
    pub(crate) copy_us: Option<u64>,
    /// An older datagram arrives with it.
    pub(crate) replayed: Option<Vec<u8>>,
    /// It is not what was sent, or comes once more: it must change nothing.
    pub(crate) is_mangled: bool,
}

enum Between {
    Sets { from: Vec<bool>, to: Vec<bool>, both: bool },
    Pairs(BTreeSet<(usize, usize)>),
}

impl Between {
    fn new(path: &Path) -> Self {
        let set = |hosts: &[usize]| {
            let mut bits = vec![false; hosts.iter().max().map_or(0, |last| last + 1)];
            for host in hosts {
                if let Some(bit) = bits.get_mut(*host) {
                    *bit = true;
                }
            }
            bits
        };
        if path.pairs.is_empty() {
            return Self::Sets { from: set(&path.from), to: set(&path.to), both: path.both };
        }
        Self::Pairs(path.pairs.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]).collect())
    }

    fn holds(&self, from: HostId, to: HostId) -> bool {
        let (sender, receiver) = (from.index(), to.index());
        match self {
            Self::Pairs(pairs) => pairs.contains(&(sender, receiver)),
            Self::Sets { from, to, both } => {
                let has = |set: &[bool], host: usize| set.get(host).copied().unwrap_or(false);
                has(from, sender) && has(to, receiver) || *both && has(from, receiver) && has(to, sender)
            }
        }
    }
}

struct NetFault {
    id: u64,
    between: Between,
    udp_only: bool,
    effect: Effect,
    rng: ChaCha12Rng,
    is_bad: BTreeMap<(HostId, HostId), bool>,
    kept: Vec<Vec<u8>>,
    hits: u64,
}

impl NetFault {
    fn strikes(&mut self, ppm: u32) -> bool {
        let hit = self.rng.random_range(0..PPM) < ppm;
        self.hits += u64::from(hit);
        hit
    }

    /// Whether this fault loses a packet between these.
    fn loses(&mut self, from: HostId, to: HostId, len: usize) -> bool {
        match self.effect {
            Effect::Cut => {
                self.hits += 1;
                true
            }
            Effect::Loss { ppm } => self.strikes(ppm),
            Effect::Burst { enter_ppm, leave_ppm, bad_ppm } => {
                let turn = self.rng.random_range(0..PPM);
                let bad = self.is_bad.entry((from, to)).or_default();
                *bad = if *bad { turn >= leave_ppm } else { turn < enter_ppm };
                let is_bad = *bad;
                self.strikes(if is_bad { bad_ppm } else { 0 })
            }
            Effect::Mtu { bytes } => {
                // It touches whatever it measures: a node that heeds its cap sends nothing that is too large.
                self.hits += 1;
                len > bytes
            }
            _ => false,
        }
    }

    /// What this fault adds to the delay, in microseconds.
    fn delays_us(&mut self) -> u64 {
        match self.effect {
            Effect::Delay { delay_us, jitter_us } => {
                self.hits += 1;
                delay_us + self.rng.random_range(0..=jitter_us)
            }
            _ => 0,
        }
    }

    /// What this fault does to a datagram that passes.
    fn mangle(&mut self, bytes: &mut Vec<u8>, passage: &mut Passage) {
        let effect = self.effect;
        match effect {
            Effect::Reorder { ppm, delay_us } if self.strikes(ppm) => {
                passage.delay_us = passage.delay_us.map(|us| us + delay_us);
            }
            Effect::Duplicate { ppm } if self.strikes(ppm) => {
                passage.copy_us = passage.delay_us.map(|us| us + self.rng.random_range(0..=us));
            }
            Effect::Corrupt { ppm } if self.strikes(ppm) => {
                let bit = self.rng.random_range(0..bytes.len().max(1) * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                passage.is_mangled = true;
            }
            Effect::Truncate { ppm } if self.strikes(ppm) => {
                let len = self.rng.random_range(0..bytes.len().max(1));
                bytes.truncate(len);
                passage.is_mangled = true;
            }
            Effect::Replay { ppm } => {
                let at = self.rng.random_range(0..KEPT_MAX);
                if self.strikes(ppm) {
                    passage.replayed = self.kept.get(at).cloned();
                }
                match self.kept.get_mut(at) {
                    Some(place) => place.clone_from(bytes),
                    None => self.kept.push(bytes.clone()),
                }
            }
            _ => {}
        }
    }
}

struct Draws {
    latency: ChaCha12Rng,
    loss: ChaCha12Rng,
    exchanges: ChaCha12Rng,
}

/// The network of one world.
pub(crate) struct Net {
    network: Network,
    regions: Vec<usize>,
    draws: Vec<Draws>,
    faults: Vec<NetFault>,
    /// Hits of faults that are not there at present.
    past_hits: BTreeMap<u64, u64>,
}

impl Net {
    pub(crate) const fn new(network: Network) -> Self {
        Self { network, regions: Vec::new(), draws: Vec::new(), faults: Vec::new(), past_hits: BTreeMap::new() }
    }

    /// Hosts are attached in the order of their ids.
    pub(crate) fn attach(&mut self, luck: Luck, host: HostId, region: usize) {
        let [latency, loss, exchanges] =
            [Purpose::Latency, Purpose::Loss, Purpose::Exchanges].map(|purpose| luck.of_host(purpose, host));
        self.draws.push(Draws { latency, loss, exchanges });
        self.regions.push(region);
    }

    /// Whether nothing is ever lost by itself.
    pub(crate) const fn is_lossless(&self) -> bool {
        self.network.loss_ppm == 0
    }

    /// Whether any fault is on any path at present.
    pub(crate) const fn is_clear(&self) -> bool {
        self.faults.is_empty()
    }

    /// What happens to a datagram from `from` to `to`, which may change `bytes`. Delay and loss are drawn each time, so
    /// that a change of one does not shift the other.
    pub(crate) fn datagram(&mut self, from: HostId, to: HostId, bytes: &mut Vec<u8>) -> Passage {
        let base_us = self.base_us(from, to);
        let (jitter_percent, loss_ppm) = (self.network.jitter_percent, self.network.loss_ppm);
        let Some(draws) = self.draws.get_mut(from.index()) else { return Passage::default() };
        let mut delay_us = jittered_us(base_us, jitter_percent, &mut draws.latency);
        let mut lost = draws.loss.random_range(0..PPM) < loss_ppm;
        for fault in self.faults.iter_mut().filter(|fault| fault.between.holds(from, to)) {
            lost |= fault.loses(from, to, bytes.len());
            delay_us += fault.delays_us();
        }
        if lost {
            return Passage::default();
        }
        let mut passage = Passage { delay_us: Some(delay_us), ..Passage::default() };
        let sent = (!self.faults.is_empty()).then(|| bytes.clone());
        for fault in self.faults.iter_mut().filter(|fault| fault.between.holds(from, to)) {
            fault.mangle(bytes, &mut passage);
        }
        // A second fault may have turned the same bit back.
        passage.is_mangled &= sent.is_some_and(|sent| sent != *bytes);
        passage
    }

    /// How long a segment of an exchange takes from `from` to `to`; none: it is lost.
    pub(crate) fn segment_us(&mut self, from: HostId, to: HostId) -> Option<u64> {
        let base_us = self.base_us(from, to);
        let (jitter_percent, loss_ppm) = (self.network.jitter_percent, self.network.loss_ppm);
        let draws = self.draws.get_mut(from.index())?;
        let mut delay_us = jittered_us(base_us, jitter_percent, &mut draws.exchanges);
        let mut lost = draws.exchanges.random_range(0..PPM) < loss_ppm;
        for fault in self.faults.iter_mut().filter(|fault| !fault.udp_only && fault.between.holds(from, to)) {
            lost |= fault.loses(from, to, 0);
            delay_us += fault.delays_us();
        }
        (!lost).then_some(delay_us)
    }

    /// Whether what is under way from `from` to `to` is cut off now.
    pub(crate) fn is_cut(&mut self, from: HostId, to: HostId, udp: bool) -> bool {
        let cut = self
            .faults
            .iter_mut()
            .find(|fault| fault.effect == Effect::Cut && (udp || !fault.udp_only) && fault.between.holds(from, to));
        if let Some(fault) = cut {
            fault.hits += 1;
            return true;
        }
        false
    }

    /// Whether nothing is cut between them now, either way. Touches nothing.
    pub(crate) fn is_open(&self, one: HostId, other: HostId, udp: bool) -> bool {
        let cuts = |fault: &NetFault| fault.effect == Effect::Cut && (udp || !fault.udp_only);
        let lies_between = |fault: &NetFault| fault.between.holds(one, other) || fault.between.holds(other, one);
        !self.faults.iter().any(|fault| cuts(fault) && lies_between(fault))
    }

    /// Puts a fault on a path.
    pub(crate) fn begin(&mut self, luck: Luck, id: u64, path: &Path, effect: Effect) {
        self.faults.push(NetFault {
            id,
            between: Between::new(path),
            udp_only: path.udp_only,
            effect,
            rng: luck.of_fault(id),
            is_bad: BTreeMap::new(),
            kept: Vec::new(),
            hits: 0,
        });
    }

    /// Takes it away.
    pub(crate) fn end(&mut self, id: u64) {
        if let Some(at) = self.faults.iter().position(|fault| fault.id == id) {
            *self.past_hits.entry(id).or_default() += self.faults.remove(at).hits;
        }
    }

    /// Packets that a fault has touched so far.
    pub(crate) fn hits(&self, id: u64) -> u64 {
        let present = self.faults.iter().filter(|fault| fault.id == id).map(|fault| fault.hits).sum::<u64>();
        present + self.past_hits.get(&id).copied().unwrap_or_default()
    }

    fn base_us(&self, from: HostId, to: HostId) -> u64 {
        let region = |host: HostId| self.regions.get(host.index()).copied().unwrap_or_default();
        let row = self.network.latency_us.get(region(from));
        row.and_then(|row| row.get(region(to))).copied().unwrap_or_default()
    }
}

fn jittered_us(base_us: u64, percent: u64, rng: &mut ChaCha12Rng) -> u64 {
    let spread_us = base_us * percent / 100;
    base_us - spread_us.min(base_us) + rng.random_range(0..=2 * spread_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_that_two_faults_turn_is_as_it_was() {
        let mut net = Net::new(Network { latency_us: vec![vec![250]], jitter_percent: 0, loss_ppm: 0 });
        let [one, other] = [0, 1].map(HostId::new);
        for host in [one, other] {
            net.attach(Luck::new(1), host, 0);
        }
        let path = Path { from: vec![0], to: vec![1], ..Path::default() };
        for id in [1, 2] {
            net.begin(Luck::new(1), id, &path, Effect::Corrupt { ppm: PPM });
        }
        let mangled: Vec<_> = (0..100)
            .map(|_| {
                let mut bytes = vec![7];
                let passage = net.datagram(one, other, &mut bytes);
                assert_eq!(passage.is_mangled, bytes != [7]);
                passage.is_mangled
            })
            .collect();
        assert!(mangled.contains(&true) && mangled.contains(&false));
    }
}
