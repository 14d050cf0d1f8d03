//! Bytes that nobody of the cluster sends: garbage, datagrams sealed by others, and true ones that come again or at the
//! wrong place. Nothing may come of them.
//!
//! Not here: when they come (`run`).

use gossipd::record::{ClusterId, NodeId, Version};
use gossipd::wire::datagram::{RecordEnvelope, Writer};
use gossipd::wire::{Channel, Keyring};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha12Rng;

use super::World;
use crate::host::{self, HostId};

/// Kinds of foreign bytes.
const KINDS: u32 = 6;
/// Room for what is sealed.
const PAYLOAD_BYTES_MAX: usize = 1_100;
/// Longest garbage.
const GARBAGE_BYTES_MAX: usize = 1_400;

impl World {
    /// Delivers `bytes` to the node on `host` at this very moment, whoever made them.
    pub fn inject(&mut self, host: HostId, mut bytes: Vec<u8>) {
        self.trace.bytes(&bytes);
        self.with_node(host, |node, now| node.handle_datagram(now, &mut bytes));
    }

    /// Throws something at `host` that no member means for it now, and checks that nothing comes of it.
    pub(crate) fn throw(&mut self, fault: u64, host: HostId, rng: &mut ChaCha12Rng) {
        let bytes = match rng.next_u32() % KINDS {
            0 => Some(garbage(rng)),
            1 => {
                let mut bytes = garbage(rng);
                bytes.iter_mut().take(1).for_each(|byte| *byte = gossipd::wire::frame::FRAME_VERSION);
                Some(bytes)
            }
            2 => self.sealed_by_another(host, true, rng),
            3 => self.sealed_by_another(host, false, rng),
            4 => self.caught(host, rng),
            _ => {
                let other = HostId::new(rng.random_range(0..self.hosts.len().max(1)));
                if other == host { None } else { self.caught(other, rng) }
            }
        };
        if let Some(bytes) = bytes.filter(|_| self.lives(host)) {
            self.trace.bytes(&bytes);
            self.hit(Some(fault));
            self.take_mangled(host, bytes);
        }
    }

    /// From now on, keeps copies of the datagrams that are delivered to `host`.
    pub fn tap(&mut self, host: HostId) {
        self.host_mut(host).tap.get_or_insert_default();
    }

    /// What the tap of `host` has caught since it was asked last.
    pub fn tapped(&mut self, host: HostId) -> Vec<Vec<u8>> {
        self.host_mut(host).tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// One of the true datagrams that were delivered to `host` before.
    fn caught(&self, host: HostId, rng: &mut ChaCha12Rng) -> Option<Vec<u8>> {
        let caught = self.host(host).tap.as_ref().filter(|caught| !caught.is_empty())?;
        caught.get(rng.random_range(0..caught.len())).cloned()
    }

    /// A goodbye in the name of a member, sealed rightly by a node of another cluster with the same key, or of this
    /// cluster with another key of the same number.
    fn sealed_by_another(&self, host: HostId, other_cluster: bool, rng: &mut ChaCha12Rng) -> Option<Vec<u8>> {
        let victim = HostId::new(rng.random_range(0..self.hosts.len().max(1)));
        let (victim, now) = (self.host(victim), self.host(victim).now(self.now_us));
        let mut record = host::record("n", victim.role, victim.addr, now);
        record.left = true;
        let version = Version { generation: victim.identity.map_or(victim.disk, |life| life.generation), seq: 1 << 20 };
        let goodbye = RecordEnvelope::new(victim.node_id, version, &record);
        let mut payload = Writer::new(PAYLOAD_BYTES_MAX);
        payload.records(std::iter::once(&goodbye));
        let (mut name, mut key, mut seed) = ([0; 16], [0; 32], [0; 32]);
        rng.fill_bytes(&mut name);
        rng.fill_bytes(&mut key);
        rng.fill_bytes(&mut seed);
        let (cluster, ring) = if other_cluster {
            (ClusterId::from_bytes(name), self.keyring.clone())
        } else {
            (self.cluster, Keyring::new(1, [(1, key)]).ok()?)
        };
        let sender: NodeId = victim.node_id;
        Channel::new(cluster, sender, ring, seed).seal(self.node_id(host), &payload.finish()).ok()
    }
}

fn garbage(rng: &mut ChaCha12Rng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..GARBAGE_BYTES_MAX)];
    rng.fill_bytes(&mut bytes);
    bytes
}
