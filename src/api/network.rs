//! Networks and endpoints: what is written about this node, and what is known of all.
//!
//! A node writes about itself only. Whatever was written counts on the disk first, and is a *version* of the node's table:
//! `GENERATION.SEQ`, which other nodes can be waited for to have seen.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

#[cfg(feature = "agent")]
use super::schema;
use crate::record::NodeId;
use crate::record::network::{EndpointId, EndpointState, NetworkId, Protocol, PublishMode};

/// That a node is attached to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// What the node calls it.
    #[cfg_attr(feature = "agent", schema(value_type = schema::NetworkName))]
    pub name: String,
    /// The node.
    pub node: NodeId,
    /// Where the node's tunnel ends.
    #[cfg_attr(feature = "agent", schema(value_type = schema::IpAddress))]
    pub data_path_addr: IpAddr,
    /// The tunnel's hardware address.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HardwareAddress>))]
    pub mac: Option<String>,
    /// The node is down since then.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub owner_down_since: Option<String>,
}

/// A network that some node is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Network {
    /// Its name for ever.
    pub id: NetworkId,
    /// What this node calls it, or else the attached node with the smallest id.
    #[cfg_attr(feature = "agent", schema(value_type = schema::NetworkName))]
    pub name: String,
    /// This node is attached: it knows the network's endpoints.
    pub attached: bool,
    /// Nodes attached to it, by id.
    pub nodes: Vec<Attachment>,
    /// How many endpoints it has; null where they are not known.
    pub endpoints: Option<usize>,
    /// Addresses that several claim.
    pub conflicts: Vec<Conflict>,
}

/// An address that several claim and one only can have; all nodes choose the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Conflict {
    /// In which network.
    pub network: NetworkId,
    /// The address.
    #[cfg_attr(feature = "agent", schema(value_type = schema::IpAddress))]
    pub address: IpAddr,
    /// Endpoints that claim it for their own, in order: the first has it, unless a service has.
    pub endpoints: Vec<EndpointRef>,
    /// Services that claim it for their virtual address, in order of their ids: the first has it, before all endpoints.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::NetworkName>))]
    pub services: Vec<String>,
}

/// Names an endpoint in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct EndpointRef {
    /// The node that it is on.
    pub node: NodeId,
    /// Its id.
    pub id: EndpointId,
}

/// `GET /v1/networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Networks {
    /// The daemon's count of visible changes.
    pub revision: u64,
    /// By name.
    pub networks: Vec<Network>,
}

/// `POST /v1/networks/{reference}/attach`: attaches this node, or changes its attachment. A reference that names no known
/// network is the name of a new one, whose id follows from it: every node finds the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct AttachRequest {
    /// What it is called; the reference, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::NetworkName>))]
    pub name: Option<String>,
    /// Where this node's tunnel ends, an address or the interface that has it; the node's data-path address, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HostSpec>))]
    pub data_path_addr: Option<String>,
    /// The tunnel's hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HardwareAddress>))]
    pub mac: Option<String>,
    /// Waits up to this long, "30s", until all nodes know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub wait: Option<String>,
}

/// What a write has led to, and who has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Seen {
    /// The version that was asked about; null: nothing was to be changed.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::TableVersion>))]
    pub version: Option<String>,
    /// Nodes that have said that they have it; empty when nobody waited.
    pub confirmed: Vec<NodeId>,
    /// Nodes that should have it and have not said so in time.
    pub unconfirmed: Vec<NodeId>,
}

/// The answer to [`AttachRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct AttachResponse {
    /// The network.
    pub network: Network,
    /// Who has it.
    pub seen: Seen,
}

/// The service that an endpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Service {
    /// What the scheduler calls it; the name, when left out.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::NetworkName>))]
    pub id: Option<String>,
    /// What people call it.
    #[cfg_attr(feature = "agent", schema(value_type = schema::NetworkName))]
    pub name: String,
    /// Its virtual address.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Ipv4Address>))]
    pub vip_v4: Option<Ipv4Addr>,
    /// Its virtual address.
    #[serde(default)]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Ipv6Address>))]
    pub vip_v6: Option<Ipv6Addr>,
}

/// A port that is reachable from outside the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Port {
    /// What runs over it; TCP, when left out.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The port on the nodes.
    pub published: u16,
    /// The port of the endpoint.
    pub target: u16,
    /// Where it is reached: on every node (`ingress`, when left out), or on the endpoint's own (`host`).
    #[serde(default = "ingress")]
    pub mode: PublishMode,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

const fn ingress() -> PublishMode {
    PublishMode::Ingress
}

/// An endpoint to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct EndpointSpec {
    /// Its id. When left out it follows from the task, so that the same task is the same endpoint; without a task it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<EndpointId>,
    /// The service that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The task's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::NetworkName>))]
    pub task: Option<String>,
    /// Whether it takes traffic; `enabled`, when left out.
    pub state: EndpointState,
    /// Its addresses in the network with their prefix lengths, `10.0.9.5/24`: one at least.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Cidr>))]
    pub addresses: Vec<String>,
    /// Its hardware address in the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HardwareAddress>))]
    pub mac: Option<String>,
    /// Its ports that are reachable from outside.
    pub ports: Vec<Port>,
    /// Further names of its service in the network.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Alias>))]
    pub aliases: Vec<String>,
    /// Further names of the endpoint alone.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Alias>))]
    pub task_aliases: Vec<String>,
    /// Whatever else is to be known of it.
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::EndpointLabelKey, String>))]
    pub labels: BTreeMap<String, String>,
}

/// What is reachable on one node in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The network that it is in.
    pub network: NetworkId,
    /// The node that it is on.
    pub node: NodeId,
    /// The service that it belongs to.
    pub service: Option<Service>,
    /// The task's name.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::NetworkName>))]
    pub task: Option<String>,
    /// Whether it takes traffic.
    pub state: EndpointState,
    /// Its addresses in the network with their prefix lengths.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Cidr>))]
    pub addresses: Vec<String>,
    /// Its hardware address in the network.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::HardwareAddress>))]
    pub mac: Option<String>,
    /// Its ports that are reachable from outside.
    pub ports: Vec<Port>,
    /// Further names of its service in the network.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Alias>))]
    pub aliases: Vec<String>,
    /// Further names of the endpoint alone.
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::Alias>))]
    pub task_aliases: Vec<String>,
    /// Whatever else is to be known of it.
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::EndpointLabelKey, String>))]
    pub labels: BTreeMap<String, String>,
    /// Its node is down since then: whoever routes decides what that means.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub owner_down_since: Option<String>,
}

/// `GET /v1/endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Endpoints {
    /// The daemon's count of visible changes.
    pub revision: u64,
    /// By network, service, node and id.
    pub endpoints: Vec<Endpoint>,
}

/// Which endpoints to list. Alternatives are separated by commas; all keys have to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct EndpointFilter {
    /// Networks, by id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Services, by id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Nodes: ids, beginnings of ids, host names, or `self`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// States.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Published ports, `8080` or `53/udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// `POST /v1/networks/{reference}/endpoints`: sets and takes away endpoints of this node, in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct EndpointsRequest {
    /// To be there, as they are here.
    pub set: Vec<EndpointSpec>,
    /// To be there no more.
    pub remove: Vec<EndpointId>,
    /// Waits up to this long, "30s", until all nodes attached to the network have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub wait: Option<String>,
}

/// `PUT /v1/networks/{reference}/endpoints`: these are all endpoints of this node in the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct ReplaceRequest {
    /// All of them.
    pub endpoints: Vec<EndpointSpec>,
    /// Waits up to this long, "30s", until all nodes attached to the network have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub wait: Option<String>,
}

/// The answer to a write of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct EndpointsResponse {
    /// Those that were written, as they are now; not those that were taken away.
    pub endpoints: Vec<Endpoint>,
    /// Who has it.
    pub seen: Seen,
}

/// `?wait=` of a write without a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct WaitQuery {
    /// Waits up to this long, "30s", until all nodes that should have it have said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
}

/// Which of several endpoints is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct EndpointQuery {
    /// The network that it is in, by id or name; any, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Which of several endpoints is to be changed, and how long to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct TurnQuery {
    /// The network that it is in, by id or name; any, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Waits up to this long, "30s", until all nodes that should have it have said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
}

/// Whom and what to ask about: `GET /v1/networks/{reference}/seen`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct SeenQuery {
    /// Whose table in the network: an id, the unique beginning of one, a host name; this node's, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `GENERATION.SEQ`; what this node has of it, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Waits up to this long; "2s", when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
}

/// `POST /v1/lease`: endpoints of this node for as long as the connection lasts, and a little longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct LeaseRequest {
    /// In which network: an id or a name.
    pub network: String,
    /// Which.
    pub endpoints: Vec<EndpointSpec>,
    /// How long they outlive the connection, so that a program that is started again finds them; "10s", when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub grace: Option<String>,
}

/// One line of the answer to [`LeaseRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum LeaseLine {
    /// The first line: they are there.
    Leased {
        /// As they are.
        endpoints: Vec<Endpoint>,
    },
    /// They still are.
    Heartbeat,
    /// The last line: another connection has taken them over, or they were written without a lease.
    Superseded,
    /// Something that a daemon newer than the reader has to say.
    #[serde(other)]
    Other,
}
