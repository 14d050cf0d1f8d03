//! A typed client of the daemon's local API, for programs that run beside it and for `gossipctl`.
//!
//! HTTP/1.1 over a Unix socket; one connection for each request, so that a client can be kept for ever and survives
//! restarts of the daemon. Every request has a deadline and every answer a size limit. [`Client::watch`] follows the
//! event stream, through restarts of the daemon too.
//!
//! Not here: the types that travel (`api`), how anything is shown (`cli`), and retries of requests: whoever calls knows
//! better whether one may be repeated.

mod error;
#[cfg(test)]
pub(crate) mod fake;
mod lead;
mod networks;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::ClientError;
pub use self::lead::Leadership;
pub use self::networks::{EndpointLease, EndpointTurn, NetworkTable};
use self::transport::{Answer, Limits};
#[cfg(feature = "cli")]
pub(crate) use self::watch::{Feed, Told};
pub use self::watch::{MemberTable, ResyncReason, Subscription, Update, WatchOptions};
use crate::api::{
    CaResponse, Decisions, Diagnosis, DoctorRequest, Health, InitRequest, InitResponse, JoinRequest, JoinResponse,
    JoinToken, LeaveRequest, LeaveResponse, Member, MemberFilter, Members, Metadata, RemoveRequest, RemoveResponse,
    RotateCaRequest, RotateRequest, SelfInfo, UpdateRequest, UpdateResponse,
};
use crate::record::Role;

/// How long an answer may take that the daemon gives from its own memory.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may take for which the daemon asks other nodes first: joining, leaving, a change of tokens.
pub const CLUSTER_DEADLINE: Duration = Duration::from_secs(60);
/// How long an examination may take: of some hundreds of nodes of which none answers.
pub const DOCTOR_DEADLINE: Duration = Duration::from_secs(600);
/// Largest answer that is read, in bytes: 10,000 members take about 6 MB, and ten times that is no answer any more.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Longest line of an event stream that is read, in bytes: a change takes about two thousand, and this is none any more.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// How much later than at the second missing heartbeat an event stream counts as dead: the machine may be busy.
const SILENCE_MARGIN: Duration = Duration::from_secs(5);

/// A client of one daemon.
///
/// Dropping a request's future closes its connection; what the daemon has begun by then, it finishes.
///
/// ```no_run
/// use gossipd::api::{DEFAULT_SOCKET, MemberFilter};
/// use gossipd::client::{Client, ClientError};
///
/// async fn ready_nodes() -> Result<Vec<String>, ClientError> {
///     let client = Client::connect(DEFAULT_SOCKET).await?;
///     let filter = MemberFilter { status: Some("ready".to_owned()), ..MemberFilter::default() };
///     let answer = client.members(&filter).await?;
///     Ok(answer.members.into_iter().filter_map(|member| member.hostname).collect())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    limits: Limits,
}

impl Client {
    /// A client of the daemon behind the socket at `path`, which is connected to once to see that somebody listens.
    ///
    /// # Errors
    /// [`ClientError::Connect`]: no socket there, nobody listens, or not permitted.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::with_limits(path.as_ref(), Limits::default()).await
    }

    async fn with_limits(path: &Path, limits: Limits) -> Result<Self, ClientError> {
        transport::connect(path).await?;
        Ok(Self { path: path.to_owned(), limits })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon itself, also while it is in no cluster.
    ///
    /// # Errors
    /// As every request: see [`ClientError`].
    pub async fn self_info(&self) -> Result<SelfInfo, ClientError> {
        self.get("/v1/self").await
    }

    /// All nodes that fit the filter, at one revision.
    ///
    /// # Errors
    /// A problem `bad-request` for a word in the filter that is none, `not-in-cluster`.
    pub async fn members(&self, filter: &MemberFilter) -> Result<Members, ClientError> {
        self.get(&format!("/v1/members{}", filter_query(filter))).await
    }

    /// One node, by id, by the beginning of an id, or by host name.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous` (with candidates), `not-in-cluster`.
    pub async fn member(&self, reference: &str) -> Result<Member, ClientError> {
        self.get(&format!("/v1/members/{}", percent_encode(reference))).await
    }

    /// Decides about a node: availability, role, labels; all of it or nothing. With `wait`, answers when all nodes that are
    /// not gone have it, or after that time with those that have not confirmed it.
    ///
    /// # Errors
    /// A problem `not-manager`, `not-found`, `ambiguous`, `conflict`, `bad-request`, `forbidden`, `not-in-cluster`.
    pub async fn update_member(
        &self,
        reference: &str,
        request: &UpdateRequest,
        wait: Option<Duration>,
    ) -> Result<UpdateResponse, ClientError> {
        let request = UpdateRequest { wait: wait.map(milliseconds), ..request.clone() };
        let deadline = self.limits.cluster + wait.unwrap_or_default();
        self.post(&format!("/v1/members/{}/update", percent_encode(reference)), &request, deadline).await
    }

    /// Makes a node a member no more, for ever. `wait` is as in [`Client::update_member`].
    ///
    /// # Errors
    /// A problem `not-manager`, `not-found`, `ambiguous`, `conflict` (it answers, or is the last manager), `forbidden`,
    /// `not-in-cluster`.
    pub async fn remove_member(
        &self,
        reference: &str,
        request: &RemoveRequest,
        wait: Option<Duration>,
    ) -> Result<RemoveResponse, ClientError> {
        let request = RemoveRequest { wait: wait.map(milliseconds), ..request.clone() };
        let deadline = self.limits.cluster + wait.unwrap_or_default();
        self.post(&format!("/v1/members/{}/remove", percent_encode(reference)), &request, deadline).await
    }

    /// Replaces what programs have attached to this node.
    ///
    /// # Errors
    /// A problem `bad-request` (too large), `forbidden`.
    pub async fn set_metadata(&self, metadata: &Metadata) -> Result<Metadata, ClientError> {
        let body = serde_json::to_vec(metadata).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let target = "/v1/self/metadata";
        self.send(Method::PUT, target, Some(body), self.limits.request).await?.json(target)
    }

    /// All decisions that stand, at one revision.
    ///
    /// # Errors
    /// A problem `not-in-cluster`.
    pub async fn decisions(&self) -> Result<Decisions, ClientError> {
        self.get("/v1/decisions").await
    }

    /// Has the daemon examine how it reaches other nodes and is reached; `timeout` is for each of them.
    ///
    /// # Errors
    /// A problem `not-found`, `ambiguous`, `bad-request`, `busy` (it examines already), `forbidden`, `not-in-cluster`.
    pub async fn doctor(&self, nodes: &[String], timeout: Option<Duration>) -> Result<Diagnosis, ClientError> {
        let request = DoctorRequest { nodes: nodes.to_vec(), timeout: timeout.map(milliseconds) };
        self.post("/v1/doctor", &request, DOCTOR_DEADLINE).await
    }

    /// Makes a new cluster with this node as its first manager.
    ///
    /// # Errors
    /// A problem `already-in-cluster`, `bad-request`, `conflict` (the port is taken).
    pub async fn init(&self, request: &InitRequest) -> Result<InitResponse, ClientError> {
        self.post("/v1/cluster/init", request, self.limits.request).await
    }

    /// Joins a cluster through one of its members.
    ///
    /// # Errors
    /// A problem `already-in-cluster`, `refused` (the token), `unreachable`, `bad-request`.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinResponse, ClientError> {
        self.post("/v1/cluster/join", request, self.limits.cluster).await
    }

    /// Leaves the cluster; the daemon runs on and waits for `init` or `join`.
    ///
    /// # Errors
    /// A problem `not-in-cluster`, `conflict` (the last manager, without force).
    pub async fn leave(&self, request: &LeaveRequest) -> Result<LeaveResponse, ClientError> {
        self.post("/v1/cluster/leave", request, self.limits.cluster).await
    }

    /// The join token for a role.
    ///
    /// # Errors
    /// A problem `not-manager`, `not-in-cluster`, `forbidden`.
    pub async fn join_token(&self, role: Role) -> Result<JoinToken, ClientError> {
        self.get(&format!("/v1/join-tokens/{}", role.word())).await
    }

    /// The join tokens for all roles.
    ///
    /// # Errors
    /// A problem `not-manager`, `not-in-cluster`, `forbidden`.
    pub async fn join_tokens(&self) -> Result<Vec<JoinToken>, ClientError> {
        self.get("/v1/join-tokens").await
    }

    /// Replaces the join token for a role, or only makes it invalid.
    ///
    /// # Errors
    /// A problem `not-manager`, `not-in-cluster`, `forbidden`, `bad-request`.
    pub async fn rotate_token(&self, role: Role, request: &RotateRequest) -> Result<JoinToken, ClientError> {
        self.post(&format!("/v1/join-tokens/{}/rotate", role.word()), request, self.limits.cluster).await
    }

    /// The cluster's CA, and how far a change of it is.
    ///
    /// # Errors
    /// A problem `not-in-cluster`.
    pub async fn ca(&self) -> Result<CaResponse, ClientError> {
        self.get("/v1/ca").await
    }

    /// Begins to put a new CA in the place of the old one.
    ///
    /// # Errors
    /// A problem `not-manager`, `not-in-cluster`, `forbidden`, `conflict` (a change is under way).
    pub async fn rotate_ca(&self, request: &RotateCaRequest) -> Result<CaResponse, ClientError> {
        self.post("/v1/ca/rotate", request, self.limits.cluster).await
    }

    /// Whether the daemon does its work. Also an unhealthy daemon's report is an answer, not an error.
    ///
    /// # Errors
    /// As every request: see [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        let target = "/v1/health";
        let answer = self.send(Method::GET, target, None, self.limits.request).await?;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(health) = serde_json::from_slice(&answer.body)
        {
            return Ok(health);
        }
        answer.json(target)
    }

    /// The daemon's metrics in Prometheus' text format.
    ///
    /// # Errors
    /// As every request: see [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.text("/metrics").await
    }

    /// The `OpenAPI` document of the daemon's API, as JSON text.
    ///
    /// # Errors
    /// As every request: see [`ClientError`].
    pub async fn openapi(&self) -> Result<String, ClientError> {
        self.text("/openapi.json").await
    }

    /// Follows what happens in the cluster, from now on or from [`WatchOptions::since`] on.
    ///
    /// Nothing is asked before the first [`Subscription::next`]. Problems are told there.
    pub fn watch(&self, options: WatchOptions) -> Subscription {
        Subscription::new(self.path.clone(), self.limits, options)
    }

    /// The lines of the event stream as they are.
    #[cfg(feature = "cli")]
    pub(crate) fn feed(&self, options: WatchOptions) -> Feed {
        Feed::new(self.path.clone(), self.limits, options)
    }

    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.send(Method::GET, target, None, self.limits.request).await?.json(target)
    }

    async fn text(&self, target: &str) -> Result<String, ClientError> {
        self.send(Method::GET, target, None, self.limits.request).await?.text(target)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Protocol(format!("cannot write the request to {target}: {error}")))?;
        self.send(Method::POST, target, Some(body), deadline).await?.json(target)
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = transport::exchange(&self.path, method, target, body, self.limits.body_bytes);
        tokio::time::timeout(deadline, exchange)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { path: self.path.clone(), after: deadline }))
    }
}

/// The query string of a filter, with its question mark; empty when nothing is asked for.
fn filter_query(filter: &MemberFilter) -> String {
    // Destructured in full: a new filter has to be sent too.
    let MemberFilter { status, role, availability, name, id } = filter;
    query_of([("status", status), ("role", role), ("availability", availability), ("name", name), ("id", id)])
}

/// The query string of what has a value, with its question mark.
fn query_of<'a>(pairs: impl IntoIterator<Item = (&'static str, &'a Option<String>)>) -> String {
    let mut query = String::new();
    for (key, value) in pairs {
        if let Some(value) = value {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(key);
            query.push('=');
            query.push_str(&percent_encode(value));
        }
    }
    query
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Everything but the unreserved characters of RFC 3986 §2.3 as `%XX`: fits a path segment and a query value.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
