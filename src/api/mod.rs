//! The local API's vocabulary: every request, response and error, defined once for daemon, client and command line.
//!
//! HTTP/1.1 with JSON over a Unix socket; all paths below `/v1`. Times are RFC 3339 in UTC, durations `humantime`
//! ("2160h"), addresses `IP:PORT` (`[IP]:PORT` for IPv6). Errors are problem details (RFC 9457), see [`Problem`].
//!
//! Unknown fields in requests are refused (a misspelt option must not be ignored), in responses they are ignored (an
//! older client reads a newer daemon).

mod ca;
mod decide;
mod doctor;
mod network;
mod problem;
#[cfg(feature = "agent")]
pub(crate) mod schema;
pub mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

pub use self::ca::{CaChange, CaPhase, CaResponse, RotateCaRequest};
pub use self::decide::{
    Decision, Decisions, LeaderLine, LeaderRequest, RemoveRequest, RemoveResponse, UpdateRequest, UpdateResponse,
};
pub use self::doctor::{Diagnosis, DoctorRequest, Examiner, Finding, FindingCode, PeerCheck, Severity, Way};
pub use self::network::{
    AttachRequest, AttachResponse, Attachment, Conflict, Endpoint, EndpointFilter, EndpointQuery, EndpointRef,
    EndpointSpec, Endpoints, EndpointsRequest, EndpointsResponse, LeaseLine, LeaseRequest, Network, Networks, Port,
    ReplaceRequest, Seen, SeenQuery, Service, TurnQuery, WaitQuery,
};
pub use self::problem::{PROBLEM_JSON, Problem, ProblemKind};
use crate::record::{Availability, ClusterId, NodeId, Role, Status};

/// Longest wait for confirmations that a request may ask for.
pub const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// Where the daemon listens when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gossipd/gossipd.sock";
/// The port of gossip, UDP and TCP, when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 7946;
/// Reads a JSON object. serde would take an array for one, field by field.
///
/// # Errors
/// It is something else, or not of type `T`.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(fields))
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

/// Is this daemon in a cluster?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum ClusterState {
    /// In none: it waits for `init` or `join`.
    Inactive,
    /// In one.
    Active,
}

/// Why a node is not well: how much its word about others is worth, or how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Degraded {
    /// It hears nobody: it keeps its listing as it is and accuses nobody.
    Isolated,
    /// It is reached over TCP only, or reaches others over TCP only.
    UdpBlocked,
    /// It is woken late, or its datagrams are: it accuses nobody before it has caught up.
    Slow,
    /// Its wall clock differs from that of most others.
    ClockSkew,
    /// Something that a daemon newer than the reader has found.
    #[serde(other)]
    Other,
}

impl Degraded {
    /// The word used in JSON and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::UdpBlocked => "udp-blocked",
            Self::Slow => "slow",
            Self::ClockSkew => "clock-skew",
            Self::Other => "other",
        }
    }
}

/// The daemon itself: `GET /v1/self`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct SelfInfo {
    /// Its id.
    pub id: NodeId,
    /// Its host name.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Hostname))]
    pub hostname: String,
    /// Version of the daemon.
    #[cfg_attr(feature = "agent", schema(value_type = schema::ShortText))]
    pub version: String,
    /// In a cluster or not.
    pub state: ClusterState,
    /// The cluster it is in; none while inactive.
    pub cluster: Option<ClusterInfo>,
}

/// The cluster as this node is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct ClusterInfo {
    /// The cluster's id.
    pub id: ClusterId,
    /// SHA-256 of the cluster CA's certificate, as in join tokens (base 36).
    #[cfg_attr(feature = "agent", schema(value_type = schema::CaDigest))]
    pub ca_digest: String,
    /// What this node may do.
    pub role: Role,
    /// This life of the node.
    pub generation: u64,
    /// Where gossip listens.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub listen_addr: SocketAddr,
    /// What others are told.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub advertise_addr: SocketAddr,
    /// Where overlay traffic goes.
    #[cfg_attr(feature = "agent", schema(value_type = schema::IpAddress))]
    pub data_path_addr: IpAddr,
    /// End of this node's certificate.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Time))]
    pub certificate_expires_at: String,
    /// A full-state exchange with another member has happened since the start, or there is nobody to have it with.
    pub joined: bool,
    /// Managers known, this node included.
    pub managers: usize,
    /// Members known that have not left, this node included.
    pub nodes: usize,
    /// The number of the daemon's last visible change (see [`watch`]).
    pub revision: u64,
    /// As in [`Health`].
    #[serde(default)]
    pub health_score: u32,
    /// What is wrong with this node; empty: nothing.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
}

/// One node as this daemon knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its host name; none until its record has arrived (as are role, availability, data path, version, platform).
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Hostname>))]
    pub hostname: Option<String>,
    /// Where its gossip is reached.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub address: SocketAddr,
    /// What gossip says of it.
    pub status: Status,
    /// Since when it has that status, by this daemon's clock.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Time))]
    pub since: String,
    /// What was decided about it.
    pub availability: Option<Availability>,
    /// What it may do.
    pub role: Option<Role>,
    /// For managers that hold the cluster's key: whether they are reached.
    #[serde(default)]
    pub manager_status: Option<ManagerStatus>,
    /// The term in which the scheduler on it says to lead. Of two that say so, the later term counts.
    #[serde(default)]
    pub leader_term: Option<u64>,
    /// Its labels.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::LabelKey, schema::LabelValue>))]
    pub labels: BTreeMap<String, String>,
    /// What operators have decided about it, and who did.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    /// Where overlay traffic to it goes.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::IpAddress>))]
    pub data_path_addr: Option<IpAddr>,
    /// Version of its daemon.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::ShortText>))]
    pub version: Option<String>,
    /// Its operating system and architecture.
    pub platform: Option<Platform>,
    /// When it joined the cluster.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub joined_at: Option<String>,
    /// End of its certificate.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub certificate_expires_at: Option<String>,
    /// What its machine has.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// Labels from its own configuration.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::LabelKey, schema::MetadataValue>))]
    pub daemon_labels: BTreeMap<String, String>,
    /// What programs on it have attached to it.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::LabelKey, schema::MetadataValue>))]
    pub metadata: BTreeMap<String, String>,
    /// This life of it.
    pub generation: u64,
    /// SWIM's incarnation within this life.
    pub incarnation: u16,
    /// Milliseconds since its last datagram; none for this node itself, or when none has come yet.
    pub last_heard_ms: Option<u64>,
    /// Round trip of the last answered probe, in microseconds.
    pub rtt_us: Option<u64>,
    /// What is wrong with it: all of it for the node that answers, `udp-blocked` for another that answers this one over
    /// TCP only; empty: nothing.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
    /// It has announced a restart and to be back within that many seconds; none: it has not.
    #[serde(default)]
    pub away_s: Option<u16>,
    /// It is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Capacity {
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// `PUT /v1/self/metadata`: replaces what programs have attached to this node. Up to 4,096 bytes together with its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// By key.
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::LabelKey, schema::MetadataValue>))]
    pub metadata: BTreeMap<String, String>,
}

/// What a manager is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum ManagerStatus {
    /// The scheduler on it has published itself as leader.
    Leader,
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable,
}

impl ManagerStatus {
    /// The capitalised word of a table's cell.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Leader => "Leader",
            Self::Reachable => "Reachable",
            Self::Unreachable => "Unreachable",
        }
    }
}

/// A node's platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Platform {
    /// Operating system.
    #[cfg_attr(feature = "agent", schema(value_type = schema::ShortText))]
    pub os: String,
    /// Architecture.
    #[cfg_attr(feature = "agent", schema(value_type = schema::ShortText))]
    pub arch: String,
}

/// `GET /v1/members`: all nodes at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Members {
    /// The number of the daemon's last visible change: what follows it can be watched (see [`watch`]).
    pub revision: u64,
    /// By host name, then id.
    pub members: Vec<Member>,
}

/// Filters of `GET /v1/members`. Values of one key are alternatives, different keys must all fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct MemberFilter {
    /// Comma-separated statuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<Status>, style = Form, explode = false, min_items = 1, required = false))]
    pub status: Option<String>,
    /// Comma-separated roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<Role>, style = Form, explode = false, min_items = 1, required = false))]
    pub role: Option<String>,
    /// Comma-separated availabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<Availability>, style = Form, explode = false, min_items = 1, required = false))]
    pub availability: Option<String>,
    /// Comma-separated beginnings of host names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<schema::Word>, style = Form, explode = false, min_items = 1, required = false))]
    pub name: Option<String>,
    /// Comma-separated beginnings of ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<schema::Word>, style = Form, explode = false, min_items = 1, required = false))]
    pub id: Option<String>,
}

/// Where a node listens and what it tells others; what is left out comes from the daemon's configuration.
///
/// Addresses are `IP`, `IP:PORT`, `INTERFACE` or `INTERFACE:PORT` (IPv6 in brackets when a port follows).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct NodeOptions {
    /// Where gossip listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::AddressSpec>))]
    pub listen_addr: Option<String>,
    /// What others are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::AddressSpec>))]
    pub advertise_addr: Option<String>,
    /// Where overlay traffic goes (no port).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HostSpec>))]
    pub data_path_addr: Option<String>,
    /// The availability to start with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
}

/// `POST /v1/cluster/init`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct InitRequest {
    /// Addresses and availability of this node.
    #[serde(deserialize_with = "object")]
    pub node: NodeOptions,
    /// Validity of the certificates that this cluster issues, "2160h" when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub cert_expiry: Option<String>,
}

/// The answer to [`InitRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct InitResponse {
    /// This node.
    pub node_id: NodeId,
    /// The new cluster.
    pub cluster_id: ClusterId,
    /// Where joiners reach this node.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub advertise_addr: SocketAddr,
    /// Token for workers.
    #[cfg_attr(feature = "agent", schema(value_type = schema::JoinTokenText))]
    pub worker_token: String,
    /// Token for managers.
    #[cfg_attr(feature = "agent", schema(value_type = schema::JoinTokenText))]
    pub manager_token: String,
}

/// `POST /v1/cluster/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct JoinRequest {
    /// A join token of the cluster.
    #[cfg_attr(feature = "agent", schema(value_type = schema::JoinTokenText))]
    pub token: String,
    /// Members to ask, `HOST` or `HOST:PORT` (IPv6 as `[IP]:PORT`); tried in order.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::RemoteSpec>, min_items = 1))]
    pub remotes: Vec<String>,
    /// Addresses and availability of this node.
    #[serde(default, deserialize_with = "object")]
    pub node: NodeOptions,
}

/// The answer to [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct JoinResponse {
    /// This node.
    pub node_id: NodeId,
    /// The cluster joined.
    pub cluster_id: ClusterId,
    /// The role that the token gave.
    pub role: Role,
    /// The manager that admitted this node.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub admitted_by: SocketAddr,
    /// Members known after the join, this node included.
    pub nodes: usize,
}

/// `POST /v1/cluster/leave`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct LeaveRequest {
    /// Leave although this is the last manager: the cluster could admit nobody any more, nor renew a certificate.
    pub force: bool,
}

/// The answer to [`LeaveRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct LeaveResponse {
    /// A member has acknowledged it; otherwise the others will find this node down.
    pub acknowledged: bool,
}

/// A join token: `GET /v1/join-tokens/{role}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct JoinToken {
    /// The role it gives.
    pub role: Role,
    /// `GDTKN-1-…`; none when it was revoked.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::JoinTokenText>))]
    pub token: Option<String>,
    /// Not valid from then on; none: no end.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub expires_at: Option<String>,
    /// Joins left; none: no limit.
    pub uses_left: Option<u32>,
    /// Where joiners reach this manager.
    #[cfg_attr(feature = "agent", schema(value_type = schema::SocketAddress))]
    pub remote: SocketAddr,
    /// After a change: managers that have not confirmed it yet, and may still accept the old token.
    #[serde(default)]
    pub unconfirmed: Vec<NodeId>,
}

/// `POST /v1/join-tokens/{role}/rotate`: a new token in place of the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct RotateRequest {
    /// How long it is valid ("24h"), at most 20 years; no end when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub expires: Option<String>,
    /// How many joins it allows; no limit when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(minimum = 1, maximum = 4294967295_u32))]
    pub max_uses: Option<u32>,
    /// Only make the old one invalid: nobody joins with this role until the next rotation.
    pub revoke: bool,
}

/// `GET /v1/health`: 200 when the daemon does its work (also while it waits for `init` or `join`, and while it is
/// degraded: to be restarted would not help it), else 503. With `strict=true` also 503 while it is degraded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Health {
    /// In a cluster or not.
    pub state: ClusterState,
    /// The protocol task answers.
    pub alive: bool,
    /// As in [`ClusterInfo`].
    pub joined: bool,
    /// 0: well; up to 8 the more it has trouble of its own.
    #[serde(default)]
    pub score: u32,
    /// What is wrong with it; empty: nothing.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
}

/// What to ask of `GET /v1/health`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct HealthQuery {
    /// A degraded daemon answers 503 too: for whoever sends work to it, not for whoever restarts it.
    pub strict: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words_and_later_ones_are_read() {
        let all = [Degraded::Isolated, Degraded::UdpBlocked, Degraded::Slow, Degraded::ClockSkew, Degraded::Other];
        for reason in all {
            let text = format!("\"{}\"", reason.word());
            assert_eq!(serde_json::to_string(&reason).unwrap(), text);
            assert_eq!(serde_json::from_str::<Degraded>(&text).unwrap(), reason);
        }
        assert_eq!(serde_json::from_str::<Degraded>("\"on-fire\"").unwrap(), Degraded::Other);
    }
}
