//! Routes of networks and endpoints.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use utoipa::OpenApi;

use super::openapi::{OfAttach, OfEndpoints, OfLease, OfNetwork, OfNetworkWrite, OfSeen, OfTables, OfTurn};
use super::{Answer, App, Body, Json, MayWrite, Named, uncancelled};
use crate::agent::daemon::Daemon;
use crate::agent::lease;
use crate::agent::networks::{self as tables, Turn};
use crate::agent::view::refuse_unknown_keys;
use crate::api::{
    AttachRequest, AttachResponse, Endpoint, EndpointFilter, EndpointQuery, Endpoints, EndpointsRequest,
    EndpointsResponse, LeaseLine, LeaseRequest, Network, Networks, Problem, ProblemKind, ReplaceRequest, Seen,
    SeenQuery, TurnQuery, WaitQuery,
};
use crate::record::network::EndpointState;

#[derive(OpenApi)]
#[openapi(paths(
    list_networks,
    get_network,
    attach,
    detach,
    set_endpoints,
    replace_endpoints,
    who_has_seen,
    list_endpoints,
    get_endpoint,
    disable,
    enable,
    remove,
    take_lease
))]
pub(super) struct Document;

/// The routes of this file.
pub(super) const ROUTES: [(&str, &str); 13] = [
    ("get", "/v1/networks"),
    ("get", "/v1/networks/{reference}"),
    ("post", "/v1/networks/{reference}/attach"),
    ("post", "/v1/networks/{reference}/detach"),
    ("post", "/v1/networks/{reference}/endpoints"),
    ("put", "/v1/networks/{reference}/endpoints"),
    ("get", "/v1/networks/{reference}/seen"),
    ("get", "/v1/endpoints"),
    ("get", "/v1/endpoints/{reference}"),
    ("post", "/v1/endpoints/{reference}/disable"),
    ("post", "/v1/endpoints/{reference}/enable"),
    ("post", "/v1/endpoints/{reference}/remove"),
    ("post", "/v1/lease"),
];

/// Largest request: all that one node may have, as JSON.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) fn router() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/v1/networks", get(list_networks))
        .route("/v1/networks/{reference}", get(get_network))
        .route("/v1/networks/{reference}/attach", post(attach))
        .route("/v1/networks/{reference}/detach", post(detach))
        .route("/v1/networks/{reference}/endpoints", post(set_endpoints).put(replace_endpoints))
        .route("/v1/networks/{reference}/seen", get(who_has_seen))
        .route("/v1/endpoints", get(list_endpoints))
        .route("/v1/endpoints/{reference}", get(get_endpoint))
        .route("/v1/endpoints/{reference}/disable", post(disable))
        .route("/v1/endpoints/{reference}/enable", post(enable))
        .route("/v1/endpoints/{reference}/remove", post(remove))
        .route("/v1/lease", post(take_lease))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// A query whose keys are all known.
fn known<T>(raw: Option<&str>, keys: &[&str], query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    refuse_unknown_keys(raw, keys)?;
    query.map(|Query(query)| query).map_err(|error| ProblemKind::BadRequest.problem(error.body_text()))
}

/// All networks that some node is attached to, at one revision.
#[utoipa::path(get, path = "/v1/networks",
    responses((status = 200, description = "The networks.", body = Networks), OfTables))]
async fn list_networks(State(daemon): App) -> Answer<Networks> {
    tables::list_networks(&*daemon.member()?).await.map(Json)
}

/// One network: an id or a unique name.
#[utoipa::path(get, path = "/v1/networks/{reference}", params(("reference" = String, Path)),
    responses((status = 200, description = "The network.", body = Network), OfNetwork))]
async fn get_network(State(daemon): App, Named(reference): Named) -> Answer<Network> {
    tables::get_network(&*daemon.member()?, reference).await.map(Json)
}

/// Attach this node to a network, or change its attachment: from now on it holds the network's endpoints.
#[utoipa::path(post, path = "/v1/networks/{reference}/attach", params(("reference" = String, Path)),
    request_body = AttachRequest, responses((status = 200, description = "Attached.", body = AttachResponse), OfAttach))]
async fn attach(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    Body(request): Body<AttachRequest>,
) -> Answer<AttachResponse> {
    uncancelled(async move { tables::attach(&*daemon.member()?, reference, request).await }).await
}

/// Detach this node from a network: its endpoints there go, and the others' are held here no more.
#[utoipa::path(post, path = "/v1/networks/{reference}/detach", params(("reference" = String, Path), WaitQuery),
    responses((status = 200, description = "Detached.", body = Seen), OfTurn))]
async fn detach(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    RawQuery(raw): RawQuery,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Answer<Seen> {
    let query = known(raw.as_deref(), &["wait"], query)?;
    uncancelled(async move { tables::detach(&*daemon.member()?, reference, query).await }).await
}

/// Set and take away endpoints of this node in a network, all of it in one step or nothing.
#[utoipa::path(post, path = "/v1/networks/{reference}/endpoints", params(("reference" = String, Path)),
    request_body = EndpointsRequest,
    responses((status = 200, description = "Written.", body = EndpointsResponse), OfNetworkWrite))]
async fn set_endpoints(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    Body(request): Body<EndpointsRequest>,
) -> Answer<EndpointsResponse> {
    uncancelled(async move { tables::set_endpoints(&*daemon.member()?, reference, request).await }).await
}

/// Make these all endpoints of this node in a network.
#[utoipa::path(put, path = "/v1/networks/{reference}/endpoints", params(("reference" = String, Path)),
    request_body = ReplaceRequest,
    responses((status = 200, description = "Written.", body = EndpointsResponse), OfNetworkWrite))]
async fn replace_endpoints(
    State(daemon): App,
    _: MayWrite,
    Named(reference): Named,
    Body(request): Body<ReplaceRequest>,
) -> Answer<EndpointsResponse> {
    uncancelled(async move { tables::replace_endpoints(&*daemon.member()?, reference, request).await }).await
}

/// Which attached nodes have a version of a node's table in a network, and which have not.
#[utoipa::path(get, path = "/v1/networks/{reference}/seen", params(("reference" = String, Path), SeenQuery),
    responses((status = 200, description = "Who has said so.", body = Seen), OfSeen))]
async fn who_has_seen(
    State(daemon): App,
    Named(reference): Named,
    RawQuery(raw): RawQuery,
    query: Result<Query<SeenQuery>, QueryRejection>,
) -> Answer<Seen> {
    let query = known(raw.as_deref(), &["node", "version", "wait"], query)?;
    tables::who_has_seen(&*daemon.member()?, reference, query).await.map(Json)
}

/// The endpoints of the networks that this node is attached to, at one revision.
#[utoipa::path(get, path = "/v1/endpoints", params(EndpointFilter),
    responses((status = 200, description = "The endpoints that fit.", body = Endpoints), OfEndpoints))]
async fn list_endpoints(
    State(daemon): App,
    RawQuery(raw): RawQuery,
    query: Result<Query<EndpointFilter>, QueryRejection>,
) -> Answer<Endpoints> {
    let filter = known(raw.as_deref(), &["network", "service", "node", "state", "port"], query)?;
    tables::list_endpoints(&*daemon.member()?, filter).await.map(Json)
}

/// One endpoint: an id, the unique beginning of one, or a unique task.
#[utoipa::path(get, path = "/v1/endpoints/{reference}", params(("reference" = String, Path), EndpointQuery),
    responses((status = 200, description = "The endpoint.", body = Endpoint), OfNetwork))]
async fn get_endpoint(
    State(daemon): App,
    Named(reference): Named,
    RawQuery(raw): RawQuery,
    query: Result<Query<EndpointQuery>, QueryRejection>,
) -> Answer<Endpoint> {
    let query = known(raw.as_deref(), &["network"], query)?;
    tables::get_endpoint(&*daemon.member()?, reference, query).await.map(Json)
}

macro_rules! turns {
    ($($(#[$meta:meta])* $name:ident: $turn:expr;)+) => {
        $(
            $(#[$meta])*
            async fn $name(
                State(daemon): App,
                _: MayWrite,
                Named(reference): Named,
                RawQuery(raw): RawQuery,
                query: Result<Query<TurnQuery>, QueryRejection>,
            ) -> Answer<EndpointsResponse> {
                let query = known(raw.as_deref(), &["network", "wait"], query)?;
                uncancelled(async move { tables::turn(&*daemon.member()?, reference, $turn, query).await }).await
            }
        )+
    };
}

turns! {
    /// An endpoint of this node takes no more traffic. With `wait`: returns when all attached nodes know, and says who does not.
    #[utoipa::path(post, path = "/v1/endpoints/{reference}/disable", params(("reference" = String, Path), TurnQuery),
        responses((status = 200, description = "Disabled.", body = EndpointsResponse), OfTurn))]
    disable: Turn::State(EndpointState::Disabled);
    /// An endpoint of this node takes traffic.
    #[utoipa::path(post, path = "/v1/endpoints/{reference}/enable", params(("reference" = String, Path), TurnQuery),
        responses((status = 200, description = "Enabled.", body = EndpointsResponse), OfTurn))]
    enable: Turn::State(EndpointState::Enabled);
    /// An endpoint of this node goes.
    #[utoipa::path(post, path = "/v1/endpoints/{reference}/remove", params(("reference" = String, Path), TurnQuery),
        responses((status = 200, description = "Gone.", body = EndpointsResponse), OfTurn))]
    remove: Turn::Remove;
}

/// Endpoints of this node for as long as this connection lasts, and a little longer.
#[utoipa::path(post, path = "/v1/lease", request_body = LeaseRequest,
    responses((status = 200, description = "One of these on each line, until the connection ends or the endpoints are taken over.",
            body = LeaseLine, content_type = "application/x-ndjson"), OfLease))]
async fn take_lease(State(daemon): App, _: MayWrite, Body(request): Body<LeaseRequest>) -> Result<Response, Problem> {
    lease::lease(&*daemon.member()?, request).await
}
