//! The protocol's constants: one profile for each kind of network, each constant with its unit in its name.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

/// Largest datagram that an operator may ask for: a UDP payload inside a 9,000-byte jumbo frame (IPv6).
pub const DATAGRAM_BYTES_CEILING: usize = 8_952;
/// Smallest datagram that still carries a probe, an update and a record.
pub const DATAGRAM_BYTES_FLOOR: usize = 1_000;
/// Share of a datagram kept for sections of our own, whatever foca has to say.
const OWN_SHARE_BYTES: usize = 280;

/// Every constant of the protocol. [`Config::lan`] documents what raising and lowering each does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Largest UDP payload sent or accepted, sealing included. The same on all nodes of a cluster.
    pub datagram_bytes_max: usize,
    /// Time between two probes of this node.
    pub probe_period_ms: u64,
    /// How long a direct answer may take before others are asked to probe.
    pub probe_rtt_ms: u64,
    /// How many others are asked, and how many nodes each gossip round goes to.
    pub fanout: usize,
    /// How long a suspect may refute, in a cluster of up to ten nodes; grows with log10 of the size.
    pub suspect_timeout_ms: u64,
    /// Time between two gossip rounds while there is something to tell.
    pub gossip_interval_ms: u64,
    /// Time a new record waits for others before it is pushed on.
    pub coalesce_ms: u64,
    /// Time between two full-state comparisons with a random member.
    pub sync_interval_ms: u64,
    /// Time before the first retry to reach anybody; doubles up to `sync_interval_ms`.
    pub rejoin_interval_ms: u64,
    /// How long a node that left stays in listings.
    pub left_retention_s: u64,
    /// How long a node that failed stays in listings.
    pub down_retention_s: u64,
}

impl Config {
    /// Nodes in one data centre: round trips of a few milliseconds.
    ///
    /// * `probe_period_ms`: lower finds failures sooner and costs packets in proportion.
    /// * `probe_rtt_ms`: lower asks others sooner; below the real round trip every probe does.
    /// * `fanout`: higher spreads faster and survives more loss, at that many packets each round.
    /// * `suspect_timeout_ms`: lower declares sooner, and declares slow nodes falsely.
    /// * `gossip_interval_ms`: lower spreads faster; idle clusters gossip nothing either way.
    /// * `coalesce_ms`: higher puts more changes into one packet, and delays each.
    /// * `sync_interval_ms`: bounds how long anything can stay unknown to one node.
    pub const fn lan() -> Self {
        Self {
            datagram_bytes_max: 1_200,
            probe_period_ms: 500,
            probe_rtt_ms: 150,
            fanout: 3,
            suspect_timeout_ms: 2_000,
            gossip_interval_ms: 100,
            coalesce_ms: 2,
            sync_interval_ms: 30_000,
            rejoin_interval_ms: 500,
            left_retention_s: 24 * 3_600,
            down_retention_s: 72 * 3_600,
        }
    }

    /// Nodes in several regions: round trips up to half a second, some loss.
    pub const fn wan() -> Self {
        Self {
            probe_period_ms: 2_000,
            probe_rtt_ms: 800,
            fanout: 4,
            suspect_timeout_ms: 8_000,
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
            probe_period_ms: 200,
            probe_rtt_ms: 60,
            suspect_timeout_ms: 600,
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

    /// Largest packet that foca writes and reads.
    pub(super) const fn swim_bytes_max(&self) -> usize {
        self.payload_bytes_max().saturating_sub(OWN_SHARE_BYTES)
    }

    /// foca's configuration for a cluster of `size` nodes. Explicit integers: foca's own presets use floating point.
    pub(super) fn foca(&self, size: usize) -> foca::Config {
        let digits = u64::from(size.max(1).ilog10()) + 1;
        foca::Config {
            probe_period: Duration::from_millis(self.probe_period_ms.max(2)),
            probe_rtt: Duration::from_millis(self.probe_rtt_ms.clamp(1, self.probe_period_ms.max(2) - 1)),
            num_indirect_probes: NonZeroUsize::new(self.fanout).unwrap_or(NonZeroUsize::MIN),
            max_transmissions: u8::try_from(4 * digits + 6).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX),
            suspect_to_down_after: Duration::from_millis(self.suspect_timeout_ms.max(1) * digits),
            // When a node is forgotten is decided in one place, `Node::reap`.
            remove_down_after: None,
            max_packet_size: NonZeroUsize::new(self.swim_bytes_max()).unwrap_or(NonZeroUsize::MIN),
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
