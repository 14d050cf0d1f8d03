//! Networks and endpoints: reading them, writing this node's, and keeping a listing of them that is always right.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::transport::{self, Lines};
use super::watch::Update;
use super::{Client, ClientError, milliseconds, percent_encode, query_of};
use crate::api::watch::Values;
use crate::api::{
    AttachRequest, AttachResponse, Attachment, Conflict, Endpoint, EndpointFilter, Endpoints, EndpointsRequest,
    EndpointsResponse, LeaseLine, LeaseRequest, Network, Networks, ReplaceRequest, Seen, SeenQuery,
};
use crate::record::NodeId;
use crate::record::network::{EndpointId, NetworkId};

/// After so long without a sign of life the daemon counts as gone: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a write about one endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointTurn {
    /// It takes traffic.
    Enable,
    /// It takes no more.
    Disable,
    /// It goes.
    Remove,
}

impl EndpointTurn {
    const fn word(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Remove => "remove",
        }
    }
}

impl Client {
    /// All networks that some node is attached to, at one revision.
    ///
    /// # Errors
    /// A problem `not-in-cluster`.
    pub async fn networks(&self) -> Result<Networks, ClientError> {
        self.get("/v1/networks").await
    }

    /// One network, by id or unique name.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous`, `not-in-cluster`.
    pub async fn network(&self, reference: &str) -> Result<Network, ClientError> {
        self.get(&format!("/v1/networks/{}", percent_encode(reference))).await
    }

    /// Attaches the daemon's node to a network; with `wait`, until all nodes know or it is over.
    ///
    /// # Errors
    /// A problem `bad-request`, `ambiguous`, `conflict` (too many), `forbidden`, `not-in-cluster`.
    pub async fn attach(
        &self,
        reference: &str,
        request: &AttachRequest,
        wait: Option<Duration>,
    ) -> Result<AttachResponse, ClientError> {
        let request = AttachRequest { wait: wait.map(milliseconds), ..request.clone() };
        self.write(Method::POST, &format!("/v1/networks/{}/attach", percent_encode(reference)), &request, wait).await
    }

    /// Detaches the daemon's node from a network: its endpoints there go.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous`, `forbidden`, `not-in-cluster`.
    pub async fn detach(&self, reference: &str, wait: Option<Duration>) -> Result<Seen, ClientError> {
        let query = query_of([("wait", &wait.map(milliseconds))]);
        let target = format!("/v1/networks/{}/detach{query}", percent_encode(reference));
        self.write(Method::POST, &target, &serde_json::Map::new(), wait).await
    }

    /// The endpoints of the networks that the daemon's node is attached to, at one revision.
    ///
    /// # Errors
    /// A problem `bad-request`, `not-found` (the network), `not-in-cluster`.
    pub async fn endpoints(&self, filter: &EndpointFilter) -> Result<Endpoints, ClientError> {
        // Destructured in full: a new filter has to be sent too.
        let EndpointFilter { network, service, node, state, port } = filter;
        let query = [("network", network), ("service", service), ("node", node), ("state", state), ("port", port)];
        self.get(&format!("/v1/endpoints{}", query_of(query))).await
    }

    /// One endpoint, by id, the unique beginning of one, or its task; in any network that the daemon's node is attached to, if
    /// none is given.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous`, `not-in-cluster`.
    pub async fn endpoint(&self, reference: &str, network: Option<&str>) -> Result<Endpoint, ClientError> {
        let query = query_of([("network", &network.map(str::to_owned))]);
        self.get(&format!("/v1/endpoints/{}{query}", percent_encode(reference))).await
    }

    /// Sets and takes away endpoints of the daemon's node, all of it in one step or nothing; with `wait`, until all attached
    /// nodes have it or it is over.
    ///
    /// # Errors
    /// A problem `bad-request`, `not-found` (the network), `conflict` (too many), `forbidden`, `not-in-cluster`.
    pub async fn set_endpoints(
        &self,
        network: &str,
        request: &EndpointsRequest,
        wait: Option<Duration>,
    ) -> Result<EndpointsResponse, ClientError> {
        let request = EndpointsRequest { wait: wait.map(milliseconds), ..request.clone() };
        self.write(Method::POST, &format!("/v1/networks/{}/endpoints", percent_encode(network)), &request, wait).await
    }

    /// Makes these all endpoints of the daemon's node in a network.
    ///
    /// # Errors
    /// As [`Client::set_endpoints`].
    pub async fn replace_endpoints(
        &self,
        network: &str,
        request: &ReplaceRequest,
        wait: Option<Duration>,
    ) -> Result<EndpointsResponse, ClientError> {
        let request = ReplaceRequest { wait: wait.map(milliseconds), ..request.clone() };
        self.write(Method::PUT, &format!("/v1/networks/{}/endpoints", percent_encode(network)), &request, wait).await
    }

    /// Changes one endpoint of the daemon's node, in any network if none is given; with `wait`, until all attached nodes have it or it is over.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous`, `conflict` (it is another node's), `forbidden`, `not-in-cluster`.
    pub async fn turn_endpoint(
        &self,
        reference: &str,
        network: Option<&str>,
        turn: EndpointTurn,
        wait: Option<Duration>,
    ) -> Result<EndpointsResponse, ClientError> {
        let query = query_of([("network", &network.map(str::to_owned)), ("wait", &wait.map(milliseconds))]);
        let target = format!("/v1/endpoints/{}/{}{query}", percent_encode(reference), turn.word());
        self.write(Method::POST, &target, &serde_json::Map::new(), wait).await
    }

    /// Which attached nodes have a version of a node's table in a network.
    ///
    /// # Errors
    /// A problem `bad-request`, `not-found`, `ambiguous`, `not-in-cluster`.
    pub async fn who_has_seen(
        &self,
        network: &str,
        node: Option<&str>,
        version: Option<&str>,
        wait: Duration,
    ) -> Result<Seen, ClientError> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let SeenQuery { node, version, wait: patience } =
            SeenQuery { node: owned(node), version: owned(version), wait: Some(milliseconds(wait)) };
        let query = query_of([("node", &node), ("version", &version), ("wait", &patience)]);
        let target = format!("/v1/networks/{}/seen{query}", percent_encode(network));
        self.send(Method::GET, &target, None, self.limits.request + wait).await?.json(&target)
    }

    /// Writes endpoints for as long as the result lives, and the grace that is asked for.
    ///
    /// # Errors
    /// As [`Client::set_endpoints`].
    pub async fn lease(&self, request: &LeaseRequest) -> Result<EndpointLease, ClientError> {
        let target = "/v1/lease";
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let opened = transport::lines(self.path(), Method::POST, target, Some(body), self.limits);
        let after = self.limits.request;
        let lines = timeout(after, opened)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { path: self.path().to_owned(), after }))?;
        let mut lease = EndpointLease { lines, endpoints: Vec::new() };
        match lease.line().await? {
            Some(LeaseLine::Leased { endpoints }) => Ok(EndpointLease { endpoints, ..lease }),
            _ => Err(ClientError::Protocol(format!("the daemon's answer to {target} is not understood"))),
        }
    }

    async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
        wait: Option<Duration>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let deadline = self.limits.request + wait.unwrap_or_default();
        self.send(method, target, Some(body), deadline).await?.json(target)
    }
}

/// Endpoints that go when this is dropped or the program ends, after their grace.
pub struct EndpointLease {
    lines: Lines,
    endpoints: Vec<Endpoint>,
}

impl EndpointLease {
    /// The endpoints, with their ids.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Waits until it is lost: `Ok` when another lease or write has taken the endpoints over.
    ///
    /// # Errors
    /// [`ClientError`] when the daemon has gone; the endpoints follow after their grace, unless they are leased again.
    pub async fn lost(&mut self) -> Result<(), ClientError> {
        loop {
            match timeout(SILENCE_MAX, self.line()).await {
                Ok(line) => match line? {
                    Some(LeaseLine::Superseded) => return Ok(()),
                    Some(_) => {}
                    None => return Err(ClientError::Protocol("the daemon has ended the lease".to_owned())),
                },
                Err(_) => return Err(ClientError::Protocol("the daemon shows no sign of life".to_owned())),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<LeaseLine>, ClientError> {
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| ClientError::Protocol(format!("a line of the daemon's is not understood: {error}")))
    }
}

impl std::fmt::Debug for EndpointLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointLease").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Attachments, endpoints and conflicts as a [`Subscription`](super::Subscription) tells them: what a network agent
/// programs its machine by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkTable {
    attachments: BTreeMap<(NetworkId, NodeId), Attachment>,
    endpoints: BTreeMap<(NetworkId, NodeId, EndpointId), Endpoint>,
    conflicts: BTreeMap<(NetworkId, std::net::IpAddr), Conflict>,
    revision: u64,
}

fn put<K: Ord, V: Clone>(map: &mut BTreeMap<K, V>, key: impl Fn(&V) -> K, old: Option<&V>, new: Option<&V>) {
    old.and_then(|old| map.remove(&key(old)));
    if let Some(new) = new {
        map.insert(key(new), new.clone());
    }
}

fn attachment_key(one: &Attachment) -> (NetworkId, NodeId) {
    (one.network, one.node)
}

fn endpoint_key(one: &Endpoint) -> (NetworkId, NodeId, EndpointId) {
    (one.network, one.node, one.id)
}

fn conflict_key(one: &Conflict) -> (NetworkId, std::net::IpAddr) {
    (one.network, one.address)
}

impl NetworkTable {
    /// Takes in an update.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Snapshot { revision, networks, endpoints, conflicts, .. } => {
                self.attachments = networks.iter().map(|one| (attachment_key(one), one.clone())).collect();
                self.endpoints = endpoints.iter().map(|one| (endpoint_key(one), one.clone())).collect();
                self.conflicts = conflicts.iter().map(|one| (conflict_key(one), one.clone())).collect();
                self.revision = *revision;
            }
            Update::Change(change) => {
                self.revision = change.revision;
                match &change.what {
                    Values::Networks { old, new } => {
                        put(&mut self.attachments, attachment_key, old.as_deref(), new.as_deref());
                    }
                    Values::Endpoints { old, new } => {
                        put(&mut self.endpoints, endpoint_key, old.as_deref(), new.as_deref());
                    }
                    Values::Conflicts { old, new } => {
                        put(&mut self.conflicts, conflict_key, old.as_deref(), new.as_deref());
                    }
                    Values::Members { .. } | Values::Decisions { .. } | Values::Other => {}
                }
            }
            Update::Resumed { revision } => self.revision = *revision,
            // It stays as it was until the snapshot is there: old, but whole.
            Update::Resync { .. } => {}
        }
    }

    /// Who is attached to what, by network and node.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// One node's attachment to a network.
    pub fn attachment(&self, network: NetworkId, node: NodeId) -> Option<&Attachment> {
        self.attachments.get(&(network, node))
    }

    /// All endpoints, by network, node and id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Addresses that several claim, by network and address.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.values()
    }

    /// The revision that it shows.
    pub const fn revision(&self) -> u64 {
        self.revision
    }
}
