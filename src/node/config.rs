//! The protocol's constants: one profile for each kind of network, each constant with its unit in its name.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use super::codec;

/// Largest datagram that an operator may ask for: a UDP payload inside a 9,000-byte jumbo frame (IPv6).
pub const DATAGRAM_BYTES_CEILING: usize = 8_952;
/// Smallest datagram that still carries a probe, an update and a record.
pub const DATAGRAM_BYTES_FLOOR: usize = 1_000;
/// Share of a datagram kept for sections of our own, whatever foca has to say.
const OWN_SHARE_BYTES: usize = 280;
/// How often each update is sent by each node, in a cluster of one.
const TRANSMISSIONS_BASE: u32 = 11;
/// Usual bytes of a header on the wire, and of an update about a node with an IPv4 and with an IPv6 address.
const HEADER_BYTES: usize = 32;
const UPDATE_BYTES_V4: usize = 31;
const UPDATE_BYTES_V6: usize = 43;

/// Every constant of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Largest UDP payload sent or accepted, sealing included. The same on all nodes of a cluster.
    pub datagram_bytes_max: usize,
    /// Time between two probes of this node. Lower finds failures sooner (each node is probed once in this time, on
    /// average, whatever the size of the cluster) and costs packets in proportion: two for each probe.
    pub probe_period_ms: u64,
    /// Least time that a direct answer may take before an inquiry begins. Timeouts follow the measured round trips from
    /// here up to `probe_rtt_ms`. Lower finds failures sooner and begins more inquiries for nothing on busy machines.
    pub probe_rtt_min_ms: u64,
    /// Most time that a direct answer may take before an inquiry begins; less than `probe_period_ms`. Below the real
    /// round trip every probe ends in an inquiry.
    pub probe_rtt_ms: u64,
    /// Length of an inquiry's first round: how long a node and its witnesses try before it is accused. Lower accuses
    /// sooner, and falsely when nodes are silent for that long without being down.
    pub inquiry_ms: u64,
    /// How many witnesses are asked. Two have to confirm; more survive more loss and more failures at once.
    pub witnesses: usize,
    /// Length of the second round: how long an accused node may refute, before it is down.
    pub suspect_timeout_ms: u64,
    /// Length of the second round when the machine of the accused refuses connections, to this node and to the witnesses. Lower declares a killed process sooner; what starts again within this time is never down.
    pub refused_timeout_ms: u64,
    /// How long a node may be silent whose machine still accepts connections: stopped, starved or swapping. Lower finds
    /// hanging processes sooner, and declares those that were only paused.
    pub stall_timeout_ms: u64,
    /// How long the only other member may be silent: there is no witness then.
    pub alone_timeout_ms: u64,
    /// A node that hears nobody for this long says that it is isolated, and accuses nobody.
    pub isolated_after_ms: u64,
    /// How many nodes each gossip round goes to. Higher spreads faster and survives more loss, at that many packets each
    /// round.
    pub fanout: usize,
    /// Time between two gossip rounds while there is something to tell. News goes out at once, up to four times as often.
    /// Lower repairs loss faster; idle clusters gossip nothing either way.
    pub gossip_interval_ms: u64,
    /// Time that news waits for more before it goes out. Higher puts more changes into one packet, and delays each.
    pub coalesce_ms: u64,
    /// Longest time between two full-state comparisons over TCP, where comparing over UDP is not possible. Bounds how
    /// long anything can stay unknown to one node.
    pub sync_interval_ms: u64,
    /// Time before the first retry to reach anybody; doubles up to a second.
    pub rejoin_interval_ms: u64,
    /// How long a node that left stays in listings.
    pub left_retention_s: u64,
    /// How long a node that failed stays in listings.
    pub down_retention_s: u64,
    /// A fault built in on purpose.
    #[cfg(feature = "mutants")]
    pub mutant: Option<super::Mutant>,
    /// Writes as a later version of gossipd might: records and decisions with fields, datagrams with sections that this
    /// version does not know. For simulated clusters of mixed versions.
    #[cfg(feature = "mutants")]
    pub is_later_version: bool,
}

impl Config {
    /// Nodes in one data centre: round trips of a few milliseconds. A failed machine is down everywhere after 0.7 s at the
    /// median and 2 s at most.
    pub const fn lan() -> Self {
        Self {
            datagram_bytes_max: 1_200,
            probe_period_ms: 210,
            probe_rtt_min_ms: 30,
            probe_rtt_ms: 150,
            inquiry_ms: 150,
            witnesses: 3,
            suspect_timeout_ms: 300,
            refused_timeout_ms: 100,
            stall_timeout_ms: 6_000,
            alone_timeout_ms: 3_000,
            isolated_after_ms: 1_500,
            fanout: 3,
            gossip_interval_ms: 100,
            coalesce_ms: 2,
            sync_interval_ms: 30_000,
            rejoin_interval_ms: 500,
            left_retention_s: 24 * 3_600,
            down_retention_s: 72 * 3_600,
            #[cfg(feature = "mutants")]
            mutant: None,
            #[cfg(feature = "mutants")]
            is_later_version: false,
        }
    }

    /// Nodes in several regions: round trips up to half a second, some loss. A failed machine is down everywhere after
    /// 5 s at the median.
    pub const fn wan() -> Self {
        Self {
            probe_period_ms: 2_000,
            probe_rtt_min_ms: 200,
            probe_rtt_ms: 1_000,
            inquiry_ms: 1_500,
            witnesses: 4,
            suspect_timeout_ms: 3_000,
            refused_timeout_ms: 1_000,
            stall_timeout_ms: 15_000,
            alone_timeout_ms: 10_000,
            isolated_after_ms: 8_000,
            fanout: 4,
            gossip_interval_ms: 300,
            coalesce_ms: 10,
            sync_interval_ms: 60_000,
            rejoin_interval_ms: 1_000,
            ..Self::lan()
        }
    }

    /// Nodes on one machine: tests and trials.
    pub const fn local() -> Self {
        Self {
            probe_period_ms: 150,
            probe_rtt_min_ms: 20,
            probe_rtt_ms: 100,
            inquiry_ms: 120,
            suspect_timeout_ms: 200,
            gossip_interval_ms: 50,
            coalesce_ms: 1,
            sync_interval_ms: 10_000,
            rejoin_interval_ms: 200,
            ..Self::lan()
        }
    }

    /// Payload that fits into a datagram after sealing.
    pub(super) const fn payload_bytes_max(&self) -> usize {
        self.datagram_bytes_max.saturating_sub(crate::wire::frame::OVERHEAD_BYTES)
    }

    /// Most bytes of foca's in a datagram, on the wire.
    pub(super) const fn swim_bytes_max(&self) -> usize {
        self.payload_bytes_max().saturating_sub(OWN_SHARE_BYTES)
    }

    /// How many updates foca may put into one packet: as many as fit onto the wire when all addresses are of the same
    /// kind as this node's own. Of the other kind fewer may fit, and the last ones are lost as a datagram may be.
    const fn updates_max(&self, is_ipv6: bool) -> usize {
        let member_bytes = if is_ipv6 { UPDATE_BYTES_V6 } else { UPDATE_BYTES_V4 };
        self.swim_bytes_max().saturating_sub(HEADER_BYTES) / member_bytes
    }

    /// foca's configuration for a cluster of `size` nodes. Explicit integers: foca's own presets use floating point.
    pub(super) fn foca(&self, size: usize, is_ipv6: bool) -> foca::Config {
        // With k copies from each node one of N misses news with e^-k; N times that is to stay below one in 10,000.
        let copies = TRANSMISSIONS_BASE + 7 * size.max(1).ilog2() / 10;
        foca::Config {
            probe_period: Duration::from_millis(self.probe_period_ms.max(2)),
            probe_rtt: Duration::from_millis(self.probe_rtt_ms.clamp(1, self.probe_period_ms.max(2) - 1)),
            num_indirect_probes: NonZeroUsize::new(self.fanout).unwrap_or(NonZeroUsize::MIN),
            max_transmissions: u8::try_from(copies).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX),
            // Never used: what becomes of a suspicion is decided by inquiries.
            suspect_to_down_after: Duration::from_millis(self.suspect_timeout_ms.max(1)),
            // When a node is forgotten is decided in one place, `Node::reap`.
            remove_down_after: None,
            max_packet_size: NonZeroUsize::new(codec::inner_bytes(self.updates_max(is_ipv6)))
                .unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: Some(PeriodicParams {
                frequency: Duration::from_millis(self.sync_interval_ms),
                num_members: NonZeroUsize::MIN,
            }),
            periodic_gossip: Some(PeriodicParams {
                frequency: Duration::from_millis(self.gossip_interval_ms.max(1)),
                num_members: NonZeroUsize::new(self.fanout).unwrap_or(NonZeroUsize::MIN),
            }),
        }
    }
}
