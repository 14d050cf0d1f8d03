//! What owners write into their tables: a part of a plan. What is written comes from a stream of its own for each writing
//! and each of its turns, so that it stays the same when other parts of the plan are taken away.
//!
//! Not here: what is in a table then (`world`).

use std::collections::BTreeMap;

use gossipd::node::Write;
use gossipd::node::tables::Tables;
use gossipd::record::network::{Cidr, Endpoint, EndpointId, EndpointState, NetworkId, Service};
use gossipd::record::{NodeId, Version};
use gossipd::wire::table::{Scope, Step};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::host::{EPOCH_UNIX_MS, HostId};
use crate::luck::Luck;

/// The network that is meant when none is named.
pub const NETWORK: u8 = 1;
/// The number that attachments have among networks.
pub(crate) const ATTACHMENTS: u8 = 0;
/// The generation of a life before the start of time, in which what is there at the start was written.
pub(crate) const BEFORE: u64 = EPOCH_UNIX_MS / 1_000 - 1;
/// One endpoint in so many claims an address that others claim too.
const SHARED: u32 = 32;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Deed {
    /// The owner takes part in the network.
    Attach,
    /// It does so no longer.
    Detach,
    /// Some of its endpoints change, in one step.
    Endpoints {
        /// How many.
        count: u32,
        /// Of so many that it may have.
        slots: u32,
        /// So many in a hundred are deleted, the others set anew.
        gone_percent: u32,
        /// Of so many bytes more than they need.
        bytes: u32,
    },
}

impl Deed {
    /// Its name in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Endpoints { .. } => "endpoints",
        }
    }
}

/// Writes by some owners: all of them once, or one after another for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writing {
    /// Its own number: decides what is written, and stays when other writings are taken away.
    pub id: u64,
    /// When, or from when on.
    pub at_us: u64,
    /// Until when; none: all of them once.
    pub until_us: Option<u64>,
    /// Time between two writes.
    pub every_us: u64,
    /// By whom.
    pub by: Vec<usize>,
    /// In which network.
    pub network: u8,
    /// What.
    pub deed: Deed,
}

impl Writing {
    /// When each write is due, by the number of its turn.
    pub fn turns(&self) -> impl Iterator<Item = (u64, u64)> {
        let span_us = self.until_us.map_or(0, |until_us| until_us.saturating_sub(self.at_us));
        let last = span_us.checked_div(self.every_us).unwrap_or(0);
        (0..=last).map(|turn| (turn, self.at_us + turn * self.every_us))
    }

    /// Who writes in a turn: one after another, or all at once.
    pub fn writers(&self, turn: u64) -> Vec<usize> {
        if self.until_us.is_none() {
            return self.by.clone();
        }
        let place = usize::try_from(turn).unwrap_or_default().checked_rem(self.by.len());
        place.and_then(|place| self.by.get(place)).copied().into_iter().collect()
    }

    /// What `host` writes in a turn.
    pub fn write(&self, luck: Luck, turn: u64, host: HostId, vtep: std::net::IpAddr) -> Write {
        let network = network_id(self.network);
        match self.deed {
            Deed::Attach => Write::Attach { network, name: format!("net{}", self.network), vtep, mac: None },
            Deed::Detach => Write::Detach(network),
            Deed::Endpoints { count, slots, gone_percent, bytes } => {
                let mut rng = luck.of_write(self.id, turn, host);
                let slots = slots.max(1);
                let first = if count >= slots { 0 } else { rng.random_range(0..slots) };
                let of_slot = |slot: u32, rng: &mut ChaCha12Rng| {
                    let is_gone = rng.random_range(0..100) < gone_percent;
                    (endpoint_id(slot), (!is_gone).then(|| endpoint(rng, host, slot, bytes)))
                };
                let endpoints = (first..first + count.min(slots)).map(|slot| of_slot(slot % slots, &mut rng)).collect();
                Write::Set { network, endpoints }
            }
        }
    }
}

/// The network of that number.
pub const fn network_id(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

/// The number of a scope: that of the network, or 0 for the attachments.
pub(crate) fn scope_number(scope: Scope) -> u8 {
    match scope {
        Scope::Attachments => ATTACHMENTS,
        Scope::Network(network) => network.as_bytes().first().copied().unwrap_or_default(),
    }
}

/// The scope of that number.
pub(crate) const fn scope(number: u8) -> Scope {
    if number == ATTACHMENTS { Scope::Attachments } else { Scope::Network(network_id(number)) }
}

/// The endpoint in that slot of whoever owns it.
pub fn endpoint_id(slot: u32) -> EndpointId {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(slot.to_be_bytes()).for_each(|(place, byte)| *place = byte);
    EndpointId::from_bytes(bytes)
}

/// Some endpoint, never the same twice.
pub fn endpoint(rng: &mut ChaCha12Rng, host: HostId, slot: u32, bytes: u32) -> Endpoint {
    let [_, _, high, low] = u32::try_from(host.index()).unwrap_or_default().to_be_bytes();
    let [.., slot_low] = slot.to_be_bytes();
    let is_shared = rng.random_range(0..SHARED) == 0;
    let addr = if is_shared { [10, 9, 0, slot_low] } else { [10, 128 | high, low, slot_low] };
    let state = [EndpointState::Enabled, EndpointState::Disabled, EndpointState::Unhealthy];
    let state = state.get(rng.random_range(0..3_usize)).copied().unwrap_or_default();
    let size = usize::try_from(bytes).unwrap_or_default();
    let parts =
        (0..size.div_ceil(30_000)).map(|part| (format!("part{part}"), "x".repeat((size - part * 30_000).min(30_000))));
    let number = ("number".to_owned(), rng.random::<u64>().to_string());
    let service =
        Service { id: "web".to_owned(), name: "web".to_owned(), vip_v4: Some([10, 8, 0, 1].into()), vip_v6: None };
    Endpoint {
        service: Some(service),
        task: Some(format!("web.{slot}")),
        state,
        addresses: vec![Cidr { addr: addr.into(), prefix: 8 }],
        labels: BTreeMap::from_iter(parts.chain([number])),
        ..Endpoint::default()
    }
}

/// The step that has attached a node before the start of time.
pub(crate) fn attached_before(id: NodeId, vtep: std::net::IpAddr) -> Option<Step> {
    let name = format!("net{NETWORK}");
    let outcome = Tables::new(id).attach(BEFORE, network_id(NETWORK), name, (vtep, None)).ok()?;
    let step = outcome.news.first()?;
    debug_assert!(step.to() > Version::NONE);
    Some((**step).clone())
}
