//! What is found out when a node examines how it reaches the others and is reached: `POST /v1/doctor`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Degraded;
#[cfg(feature = "agent")]
use super::schema;
use crate::record::{NodeId, Status};

/// `POST /v1/doctor`: examine the way to other nodes and back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct DoctorRequest {
    /// Which nodes: ids, unique beginnings of one, or unique host names. Left out: all that have not left.
    pub nodes: Vec<String>,
    /// How long each of them may take, "5s" when left out; from 1s to 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub timeout: Option<String>,
}

/// The answer to [`DoctorRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Diagnosis {
    /// The node that examined.
    pub node: Examiner,
    /// The nodes that were examined, by host name.
    pub peers: Vec<PeerCheck>,
    /// What is wrong. Empty: nothing was found.
    pub findings: Vec<Finding>,
}

/// The node that examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Examiner {
    /// Its id.
    pub id: NodeId,
    /// Its host name.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Hostname))]
    pub hostname: String,
    /// Version of its daemon.
    #[cfg_attr(feature = "agent", schema(value_type = schema::ShortText))]
    pub version: String,
    /// Where others are told that it is.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub advertise_addr: SocketAddr,
    /// Where gossip listens.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub listen_addr: SocketAddr,
    /// The interface of this machine that has the advertised address; none: no interface has it.
    pub interface: Option<String>,
    /// The largest datagram that it sends, in bytes of UDP payload.
    pub datagram_bytes: u32,
    /// What it finds wrong with itself.
    pub degraded: Vec<Degraded>,
}

/// What came of a way between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Way {
    /// Something came through.
    Open,
    /// The other side's machine, or a firewall, refused.
    Refused,
    /// Nothing came through.
    Silent,
    /// The other side's machine accepted, and its daemon did not answer.
    Stalled,
    /// Somebody else answered, or it broke off.
    Broken,
    /// That could not be found out.
    Unknown,
    /// Something that a daemon newer than the reader has found.
    #[serde(other)]
    Other,
}

/// What was found about the way to one node and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct PeerCheck {
    /// Its id.
    pub id: NodeId,
    /// Its host name, if known.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Hostname>))]
    pub hostname: Option<String>,
    /// Where it was looked for.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub address: SocketAddr,
    /// Its status as listed.
    pub status: Status,
    /// Version of its daemon, if known.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::ShortText>))]
    pub version: Option<String>,
    /// Datagrams to it.
    pub udp_out: Way,
    /// Datagrams from it.
    pub udp_in: Way,
    /// Connections to it, with TLS.
    pub tcp_out: Way,
    /// Connections from it, with TLS.
    pub tcp_in: Way,
    /// The largest datagram that it got, never fragmented, in bytes of UDP payload; 0: none.
    pub datagram_out_bytes: u32,
    /// The largest datagram that came from it; 0: none.
    pub datagram_in_bytes: u32,
    /// The shortest round trip of a datagram, in microseconds.
    pub rtt_us: Option<u64>,
    /// Its wall clock is ahead of this node's by so much, in milliseconds; negative: behind.
    pub clock_ahead_ms: Option<i64>,
    /// How far that may be wrong, in milliseconds.
    pub clock_within_ms: Option<u64>,
    /// The id of the key that it seals datagrams with.
    pub key: Option<u32>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Severity {
    /// To be looked at; the cluster does its work.
    Warning,
    /// Something does not work.
    Problem,
    /// Something that a daemon newer than the reader says.
    #[serde(other)]
    Other,
}

/// What may be wrong. The words do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum FindingCode {
    /// Neither UDP nor TCP reaches the node.
    Unreachable,
    /// Datagrams to it do not arrive.
    UdpBlockedOut,
    /// Datagrams from it do not arrive.
    UdpBlockedIn,
    /// Connections to it fail.
    TcpBlockedOut,
    /// Its connections to this node fail.
    TcpBlockedIn,
    /// Large datagrams are lost on the way.
    MtuSmall,
    /// Its wall clock differs.
    ClockOffset,
    /// Its daemon is of another version, or speaks another protocol.
    VersionSkew,
    /// It has other datagram keys.
    KeySkew,
    /// This node is not well.
    Degraded,
    /// The firewall of this machine keeps others out.
    Firewall,
    /// Something that a daemon newer than the reader has found.
    #[serde(other)]
    Other,
}

impl FindingCode {
    /// The word in JSON and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::UdpBlockedOut => "udp-blocked-out",
            Self::UdpBlockedIn => "udp-blocked-in",
            Self::TcpBlockedOut => "tcp-blocked-out",
            Self::TcpBlockedIn => "tcp-blocked-in",
            Self::MtuSmall => "mtu-small",
            Self::ClockOffset => "clock-offset",
            Self::VersionSkew => "version-skew",
            Self::KeySkew => "key-skew",
            Self::Degraded => "degraded",
            Self::Firewall => "firewall",
            Self::Other => "other",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Finding {
    /// What.
    pub code: FindingCode,
    /// How much it matters.
    pub severity: Severity,
    /// With which node; none: with this machine.
    pub node: Option<NodeId>,
    /// What was seen, with the values.
    pub what: String,
    /// What to do.
    pub remedy: String,
}
