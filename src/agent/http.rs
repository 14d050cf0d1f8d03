//! The local API over HTTP: routes, who may write, and problems as answers. What is said is defined in `api`.

mod ca;
mod networks;
mod openapi;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use utoipa::{Modify as _, OpenApi};

use self::openapi::Precise;
use super::admission::{decided_token, sync_managers};
use super::daemon::{Daemon, Membership};
use super::engine::{Stopped, Unasked};
use super::token::{TOKEN_EXPIRY_MAX, secret_digest, uses_left};
use super::view::{FILTER_KEYS, cluster_info, decision_view, degraded, filtered, find, members, refuse_unknown_keys};
use super::{decide, doctor, metrics, rfc3339, unix_ms};
use crate::api::schema::Word;
use crate::api::watch::{Line, Topic, WatchQuery};
use crate::api::{
    self, ClusterState, Decisions, Diagnosis, DoctorRequest, Health, HealthQuery, InitRequest, InitResponse,
    JoinRequest, JoinResponse, JoinToken, LeaderLine, LeaderRequest, LeaveRequest, LeaveResponse, Member, MemberFilter,
    Members, Metadata, Problem, ProblemKind, RemoveRequest, RemoveResponse, RotateRequest, SelfInfo, UpdateRequest,
    UpdateResponse,
};
use crate::node;
use crate::record::{NodeId, Role};

/// How long the protocol task may take to answer a health check.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);

/// Media type of Prometheus' text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4";

type App = State<Arc<Daemon>>;
type Answer<T> = Result<Json<T>, Problem>;

/// Who is on the other end of the Unix socket.
#[derive(Debug, Clone, Copy)]
struct Caller {
    uid: u32,
    gid: u32,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(credentials) => Self { uid: credentials.uid(), gid: credentials.gid() },
            // Nobody: may read what the socket's mode lets it, and write nothing.
            Err(_) => Self { uid: u32::MAX, gid: u32::MAX },
        }
    }
}

/// Proof that the caller may write.
struct MayWrite;

impl FromRequestParts<Arc<Daemon>> for MayWrite {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, daemon: &Arc<Daemon>) -> Result<Self, Problem> {
        let caller = ConnectInfo::<Caller>::from_request_parts(parts, daemon).await;
        let ConnectInfo(Caller { uid, gid }) =
            caller.map_err(|error| ProblemKind::Internal.problem(error.to_string()))?;
        let settings = &daemon.settings;
        let own = nix::unistd::geteuid().as_raw();
        if uid == 0 || uid == own || settings.write_uids.contains(&uid) || settings.write_gids.contains(&gid) {
            return Ok(Self);
        }
        Err(ProblemKind::Forbidden.problem(format!(
            "uid {uid} (gid {gid}) may read, but not change anything or see join tokens; use root, or add the user to api.write_uids or its group to api.write_gids in the daemon's configuration"
        )))
    }
}

struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(mut body) => {
                body.push(b'\n');
                ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
            }
            Err(error) => ProblemKind::Internal.problem(error.to_string()).into_response(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(api::PROBLEM_JSON))], body).into_response()
    }
}

impl From<Unasked> for Problem {
    fn from(error: Unasked) -> Self {
        match error {
            Unasked::Stopped(stopped) => stopped.into(),
            Unasked::Busy => ProblemKind::Busy.problem(error.to_string()),
        }
    }
}

impl From<Stopped> for Problem {
    fn from(error: Stopped) -> Self {
        ProblemKind::Internal.problem(error.to_string())
    }
}

/// What axum itself refuses, as a problem with axum's status.
fn rejected(status: StatusCode, text: String) -> Problem {
    Problem { status: status.as_u16(), ..ProblemKind::BadRequest.problem(text) }
}

/// A request's body: a JSON object. An empty body is the request with nothing in it.
struct Body<T>(T);

/// From this size on a body is read on another thread: the protocol runs on this one, and 32 MiB take a third of a second.
const LARGE_BODY_BYTES: usize = 64 * 1024;

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<Daemon>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, daemon: &Arc<Daemon>) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, daemon).await.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                rejected(e.status(), "the request is too large: write it in several requests".to_owned())
            }
            status => rejected(status, e.body_text()),
        })?;
        let is_large = bytes.len() >= LARGE_BODY_BYTES;
        let bad = |error: String| ProblemKind::BadRequest.problem(format!("request body: {error}"));
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        // serde would take an array for an object, field by field.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(bad("expected a JSON object".to_owned()));
        }
        let read = move || serde_json::from_slice(&bytes).map(Self).map_err(|error| bad(error.to_string()));
        if is_large {
            let read = tokio::task::spawn_blocking(read).await;
            return read.map_err(|error| ProblemKind::Internal.problem(error.to_string()))?;
        }
        read()
    }
}

/// The variable part of a path.
struct Named(String);

impl FromRequestParts<Arc<Daemon>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, daemon: &Arc<Daemon>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, daemon).await;
        path.map(|Path(name)| Self(name)).map_err(|e| rejected(e.status(), e.body_text()))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gossipd",
        description = "Local API of the gossipd daemon, served over a Unix socket. All problems are RFC 9457; a path that there is not answers 404, another method of a path 405. A newer daemon may say more: pass over fields and words that are not listed here."
    ),
    // What only parameters and problems refer to.
    components(schemas(Problem, Topic, Word)),
    paths(
        get_self,
        list_members,
        get_member,
        watch_all,
        init,
        join,
        leave,
        list_tokens,
        get_token,
        rotate_token,
        set_metadata,
        lead,
        update_member,
        remove_member,
        list_decisions,
        diagnose,
        health,
        openapi_json,
        metrics_text
    )
)]
struct Document;

/// The OpenAPI document as JSON.
fn document() -> String {
    let mut document = Document::openapi();
    document.merge(ca::Document::openapi());
    document.merge(networks::Document::openapi());
    Precise.modify(&mut document);
    document.to_pretty_json().unwrap_or_default()
}

/// The routes of this file. The document above lists the same; a test compares them.
const ROUTES: [(&str, &str); 19] = [
    ("get", "/v1/self"),
    ("get", "/v1/members"),
    ("get", "/v1/members/{reference}"),
    ("get", "/v1/watch"),
    ("post", "/v1/cluster/init"),
    ("post", "/v1/cluster/join"),
    ("post", "/v1/cluster/leave"),
    ("get", "/v1/join-tokens"),
    ("get", "/v1/join-tokens/{role}"),
    ("post", "/v1/join-tokens/{role}/rotate"),
    ("post", "/v1/leader"),
    ("put", "/v1/self/metadata"),
    ("post", "/v1/members/{reference}/update"),
    ("post", "/v1/members/{reference}/remove"),
    ("get", "/v1/decisions"),
    ("post", "/v1/doctor"),
    ("get", "/v1/health"),
    ("get", "/openapi.json"),
    ("get", "/metrics"),
];

fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.into_iter().chain(ca::ROUTES).chain(networks::ROUTES)
}

fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/self", get(get_self))
        .route("/v1/members", get(list_members))
        .route("/v1/members/{reference}", get(get_member))
        .route("/v1/watch", get(watch_all))
        .route("/v1/cluster/init", post(init))
        .route("/v1/cluster/join", post(join))
        .route("/v1/cluster/leave", post(leave))
        .route("/v1/join-tokens", get(list_tokens))
        .route("/v1/join-tokens/{role}", get(get_token))
        .route("/v1/join-tokens/{role}/rotate", post(rotate_token))
        .route("/v1/members/{reference}/update", post(update_member))
        .route("/v1/members/{reference}/remove", post(remove_member))
        .route("/v1/leader", post(lead))
        .route("/v1/self/metadata", put(set_metadata))
        .route("/v1/decisions", get(list_decisions))
        .route("/v1/doctor", post(diagnose))
        .route("/v1/health", get(health))
        .route("/openapi.json", get(openapi_json))
        .route("/metrics", get(metrics_text))
        .merge(ca::router())
        .merge(networks::router())
        .fallback(|uri: axum::http::Uri| async move {
            let known = routes().map(|(_, path)| path.to_owned()).collect();
            ProblemKind::NotFound.problem(format!("there is no {uri}; see /openapi.json")).with_candidates(known)
        })
        .method_not_allowed_fallback(|| async {
            Problem {
                status: 405,
                title: "method not allowed".to_owned(),
                ..ProblemKind::BadRequest.problem("this path has another method; see /openapi.json")
            }
        })
        .with_state(daemon)
}

/// Serves the API until `stop`.
pub(super) async fn serve(listener: UnixListener, daemon: Arc<Daemon>, mut stop: watch::Receiver<bool>) {
    let service = router(daemon).into_make_service_with_connect_info::<Caller>();
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the API has stopped");
    }
}

/// Serves the metrics alone, on a TCP address, until `stop`.
pub(super) async fn serve_metrics(listener: TcpListener, daemon: Arc<Daemon>, mut stop: watch::Receiver<bool>) {
    let service = Router::new().route("/metrics", get(metrics_text)).with_state(daemon);
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "metrics have stopped");
    }
}

// ---- reading ---------------------------------------------------------------------------------------------------------

/// This daemon and the cluster it is in.
#[utoipa::path(get, path = "/v1/self", responses((status = 200, description = "This daemon.", body = SelfInfo), openapi::OfSelf))]
async fn get_self(State(daemon): App) -> Answer<SelfInfo> {
    let cluster = match daemon.membership() {
        Some(membership) => Some(cluster_info(&membership).await?),
        None => None,
    };
    Ok(Json(SelfInfo {
        id: daemon.me(),
        hostname: daemon.settings.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: if cluster.is_some() { ClusterState::Active } else { ClusterState::Inactive },
        cluster,
    }))
}

/// All nodes that this daemon knows, at one revision.
#[utoipa::path(get, path = "/v1/members", params(MemberFilter),
    responses((status = 200, description = "The nodes that fit.", body = Members), openapi::OfList))]
async fn list_members(
    State(daemon): App,
    RawQuery(query): RawQuery,
    filter: Result<Query<MemberFilter>, QueryRejection>,
) -> Answer<Members> {
    refuse_unknown_keys(query.as_deref(), &FILTER_KEYS)?;
    let Query(filter) = filter.map_err(|error| ProblemKind::BadRequest.problem(error.body_text()))?;
    let membership = daemon.member()?;
    Ok(Json(filtered(members(&membership).await?, &filter)?))
}

/// One node: an id, the unique beginning of one, a unique host name, or `self`.
#[utoipa::path(get, path = "/v1/members/{reference}", params(("reference" = String, Path, example = "self")),
    responses((status = 200, description = "The node.", body = Member), openapi::OfNode))]
async fn get_member(State(daemon): App, Named(reference): Named) -> Answer<Member> {
    let membership = daemon.member()?;
    find(members(&membership).await?.members, &reference).map(Json)
}

/// What happens, as it happens: newline-delimited JSON.
///
/// First `hello`; then an `item` for each object, or with `since` the changes that were missed; `synced`; and from then on
/// each `change` once, in order, its revision one above that of the change before, and a `heartbeat` when nothing
/// happens. The highest revision told is the `since` to resume from. Of the values, what changes without a revision is
/// blank: `last_heard_ms`, `rtt_us`, `incarnation`, `degraded`.
#[utoipa::path(get, path = "/v1/watch", params(WatchQuery),
    responses((status = 200, description = "One of these on each line.", body = Line, content_type = "application/x-ndjson"),
        openapi::OfWatch))]
async fn watch_all(
    State(daemon): App,
    RawQuery(query): RawQuery,
    asked: Result<Query<WatchQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    refuse_unknown_keys(query.as_deref(), &super::watch::KEYS)?;
    let Query(asked) = asked.map_err(|error| ProblemKind::BadRequest.problem(error.body_text()))?;
    super::watch::open(&*daemon.member()?, asked).await
}

/// Whether the daemon does its work.
#[utoipa::path(get, path = "/v1/health", params(HealthQuery),
    responses((status = 200, description = "It does, or waits for init or join.", body = Health),
        (status = 503, description = "Its protocol task does not answer, or `strict` was asked for and it is degraded.", body = Health),
        openapi::OfQuery))]
async fn health(State(daemon): App, query: Result<Query<HealthQuery>, QueryRejection>) -> Result<Response, Problem> {
    let Query(HealthQuery { strict }) = query.map_err(|error| ProblemKind::BadRequest.problem(error.body_text()))?;
    let health = match daemon.membership() {
        None => Health { state: ClusterState::Inactive, alive: true, joined: false, score: 0, degraded: Vec::new() },
        Some(membership) => {
            let answer = tokio::time::timeout(HEALTH_DEADLINE, membership.engine.query(|node| node.health())).await;
            let own = answer.ok().and_then(Result::ok);
            let alive = own.is_some();
            let node::Health { score, reasons } = own.unwrap_or_default();
            let degraded = degraded(&reasons);
            Health { state: ClusterState::Active, alive, joined: membership.is_joined(), score, degraded }
        }
    };
    let is_well = health.alive && (!strict || health.degraded.is_empty());
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(health)).into_response())
}

/// Examine how this node reaches others and is reached, over UDP and TCP; say what is wrong.
#[utoipa::path(post, path = "/v1/doctor", request_body = DoctorRequest,
    responses((status = 200, description = "What was found.", body = Diagnosis), openapi::OfDoctor))]
async fn diagnose(State(daemon): App, _: MayWrite, Body(request): Body<DoctorRequest>) -> Answer<Diagnosis> {
    doctor::diagnose(&daemon, &*daemon.member()?, request).await.map(Json)
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object)))]
async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document()).into_response()
}

/// Metrics as Prometheus scrapes them.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus' text format.",
        body = String, content_type = "text/plain; version=0.0.4")))]
async fn metrics_text(State(daemon): App) -> Response {
    if let Some(membership) = daemon.membership() {
        // Without an answer the last numbers stand.
        let _ = membership.engine.query(metrics::copy_from).await;
    }
    let kind = HeaderValue::from_static(METRICS_TEXT);
    ([(header::CONTENT_TYPE, kind)], daemon.recorder.render()).into_response()
}

// ---- membership ------------------------------------------------------------------------------------------------------

/// Found a cluster with this node as its first manager.
#[utoipa::path(post, path = "/v1/cluster/init", request_body = InitRequest,
    responses((status = 200, description = "The cluster is founded.", body = InitResponse), openapi::OfInit))]
async fn init(State(daemon): App, _: MayWrite, Body(request): Body<InitRequest>) -> Answer<InitResponse> {
    uncancelled(async move { daemon.init(request).await }).await
}

/// Join a cluster.
#[utoipa::path(post, path = "/v1/cluster/join", request_body = JoinRequest,
    responses((status = 200, description = "This node is a member.", body = JoinResponse), openapi::OfJoin))]
async fn join(State(daemon): App, _: MayWrite, Body(request): Body<JoinRequest>) -> Answer<JoinResponse> {
    uncancelled(async move { daemon.join(request).await }).await
}

/// Leave the cluster for good.
#[utoipa::path(post, path = "/v1/cluster/leave", request_body = LeaveRequest,
    responses((status = 200, description = "This node is a member no more.", body = LeaveResponse), openapi::OfLeave))]
async fn leave(State(daemon): App, _: MayWrite, Body(request): Body<LeaveRequest>) -> Answer<LeaveResponse> {
    uncancelled(async move { daemon.leave(request.force).await }).await
}

/// Runs a change of membership to its end, even if the caller hangs up: half a change is none.
async fn uncancelled<T: Send + 'static>(
    change: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Answer<T> {
    let outcome = tokio::spawn(change).await;
    outcome.map_err(|error| ProblemKind::Internal.problem(error.to_string()))?.map(Json)
}

// ---- tokens ----------------------------------------------------------------------------------------------------------

async fn token_view(membership: &Membership, role: Role, unconfirmed: Vec<NodeId>) -> Result<JoinToken, Problem> {
    let tokens = membership.trust.tokens()?;
    let record = tokens.get(role);
    let decided = membership.engine.query(move |node| decided_token(node, role)).await?;
    let digest = record.and_then(|record| record.secret.as_ref()).map(secret_digest);
    if decided.is_some_and(|limits| limits.secret_digest != digest) {
        return Err(ProblemKind::Conflict.problem(format!(
            "the {role} join token was replaced on another manager, and this one has not been told the new one yet; try again soon, or make another one with 'gossipctl join-token {role} --rotate'"
        )));
    }
    Ok(JoinToken {
        role,
        token: membership.trust.token_text(role)?,
        expires_at: record.and_then(|record| record.expires_at_ms).map(rfc3339),
        uses_left: record.and_then(uses_left),
        remote: membership.addresses().advertise,
        unconfirmed,
    })
}

/// Replace what programs have attached to this node; all nodes list it.
#[utoipa::path(put, path = "/v1/self/metadata", request_body = Metadata,
    responses((status = 200, description = "Stored, and on its way to all nodes.", body = Metadata), openapi::OfOwn))]
async fn set_metadata(State(daemon): App, _: MayWrite, Body(request): Body<Metadata>) -> Answer<Metadata> {
    uncancelled(async move {
        daemon.set_metadata(request.metadata.clone()).await?;
        Ok(request)
    })
    .await
}

/// Publish that the scheduler on this node leads, for as long as this connection lasts.
#[utoipa::path(post, path = "/v1/leader", request_body = LeaderRequest,
    responses((status = 200, description = "One of these on each line, until the connection ends or a later term is published from this node.",
            body = LeaderLine, content_type = "application/x-ndjson"),
        openapi::OfLeader))]
async fn lead(State(daemon): App, _: MayWrite, Body(request): Body<LeaderRequest>) -> Result<Response, Problem> {
    super::lead::lead(&*daemon.member()?, &request).await
}

/// All decisions that stand.
#[utoipa::path(get, path = "/v1/decisions",
    responses((status = 200, description = "The decisions.", body = Decisions), openapi::OfMember))]
async fn list_decisions(State(daemon): App) -> Answer<Decisions> {
    let membership = daemon.member()?;
    let (revision, decisions) = membership.engine.query(|node| (node.revision(), node.decisions())).await?;
    Ok(Json(Decisions { revision, decisions: decisions.iter().map(|decision| decision_view(decision)).collect() }))
}

/// Decide about a node: availability, role, labels. All of it or nothing.
#[utoipa::path(post, path = "/v1/members/{reference}/update", params(("reference" = String, Path, example = "self")),
    request_body = UpdateRequest, responses((status = 200, description = "Decided.", body = UpdateResponse), openapi::OfDecision))]
async fn update_member(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    Body(request): Body<UpdateRequest>,
) -> Answer<UpdateResponse> {
    uncancelled(async move { decide::update(&*daemon.member()?, &reference, request).await }).await
}

/// Make a node a member no more, for ever.
#[utoipa::path(post, path = "/v1/members/{reference}/remove", params(("reference" = String, Path, example = "self")),
    request_body = RemoveRequest, responses((status = 200, description = "Decided.", body = RemoveResponse), openapi::OfDecision))]
async fn remove_member(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    Body(request): Body<RemoveRequest>,
) -> Answer<RemoveResponse> {
    uncancelled(async move { decide::remove(&*daemon.member()?, &reference, request).await }).await
}

fn parse_role(text: &str) -> Result<Role, Problem> {
    text.parse().map_err(|error: crate::record::RecordError| ProblemKind::NotFound.problem(error.to_string()))
}

/// Both join tokens. Managers only, and only for callers that may write.
#[utoipa::path(get, path = "/v1/join-tokens",
    responses((status = 200, description = "Both tokens.", body = Vec<JoinToken>), openapi::OfTokens))]
async fn list_tokens(State(daemon): App, _: MayWrite) -> Answer<Vec<JoinToken>> {
    let membership = daemon.member()?;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push(token_view(&membership, *role, Vec::new()).await?);
    }
    Ok(Json(tokens))
}

/// One join token. Managers only, and only for callers that may write.
#[utoipa::path(get, path = "/v1/join-tokens/{role}", params(("role" = Role, Path)),
    responses((status = 200, description = "The token.", body = JoinToken), openapi::OfToken))]
async fn get_token(State(daemon): App, _: MayWrite, Named(role): Named) -> Answer<JoinToken> {
    token_view(&*daemon.member()?, parse_role(&role)?, Vec::new()).await.map(Json)
}

/// Replace or revoke a join token. Members are not affected.
#[utoipa::path(post, path = "/v1/join-tokens/{role}/rotate", params(("role" = Role, Path)),
    request_body = RotateRequest, responses((status = 200, description = "The token.", body = JoinToken), openapi::OfRotation))]
async fn rotate_token(
    State(daemon): App,
    _: MayWrite,
    Named(role): Named,
    Body(request): Body<RotateRequest>,
) -> Answer<JoinToken> {
    let role = parse_role(&role)?;
    let RotateRequest { expires, max_uses, revoke } = request;
    let expires_at_ms = match expires {
        None => None,
        Some(text) => {
            let after = humantime::parse_duration(&text).ok().filter(|after| !after.is_zero()).ok_or_else(|| {
                ProblemKind::BadRequest.problem(format!("expires {text:?}: expected a duration such as 24h"))
            })?;
            if after > TOKEN_EXPIRY_MAX {
                return Err(ProblemKind::BadRequest.problem(format!("expires {text:?}: expected at most 20 years")));
            }
            let at = SystemTime::now().checked_add(after).ok_or_else(|| {
                ProblemKind::BadRequest.problem(format!("expires {text:?}: that is beyond what the clock can tell"))
            })?;
            Some(unix_ms(at))
        }
    };
    if max_uses == Some(0) {
        return Err(ProblemKind::BadRequest.problem("max_uses 0: nobody could join; use revoke for that"));
    }
    let membership = daemon.member()?;
    let terms = decide::TokenTerms { revoke, expires_at_ms, max_uses };
    decide::rotate_token(&membership.trust, &membership.engine, role, terms).await?;
    let unconfirmed = sync_managers(&membership.trust, &membership.engine).await;
    token_view(&membership, role, unconfirmed).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut documented: Vec<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (m.clone(), path.clone())))
            .collect();
        documented.sort();
        let mut routes: Vec<_> = routes().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
        routes.sort();
        assert_eq!(documented, routes);
    }

    #[test]
    fn what_is_referred_to_is_there() {
        let text = document();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn every_answer_is_described_and_problems_have_their_media_type() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        for (method, path) in routes() {
            let operation = &document["paths"][path][method];
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{method} {path}");
            // Each problem by its status; what cannot fail but as a whole has none.
            let may_fail = responses.keys().any(|status| status.starts_with('4') || status == "500");
            assert_eq!(may_fail, path.starts_with("/v1/"), "{method} {path}");
            assert!(!responses.contains_key("default"), "{method} {path}");
            for (status, response) in responses {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{method} {path} {status} has no description");
                let content: Vec<_> = response["content"].as_object().unwrap().keys().map(String::as_str).collect();
                let expected = match (status.as_str(), path) {
                    ("200", "/v1/watch" | "/v1/leader" | "/v1/lease") => api::watch::NDJSON,
                    ("200", "/metrics") => METRICS_TEXT,
                    (status, _) if status.starts_with('4') => api::PROBLEM_JSON,
                    ("503", "/v1/health") => "application/json",
                    (status, _) if status.starts_with('5') => api::PROBLEM_JSON,
                    _ => "application/json",
                };
                assert_eq!(content, [expected], "{method} {path} {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let place = if path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
                assert_eq!(parameter["in"], place, "{method} {path} {name}");
            }
        }
    }
}
