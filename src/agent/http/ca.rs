//! Routes of the cluster's CA.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use utoipa::OpenApi;

use super::openapi::{OfCa, OfCaRotation};
use super::{Answer, App, Body, Json, MayWrite, uncancelled};
use crate::agent::daemon::Daemon;
use crate::agent::rotate_ca;
use crate::api::{CaResponse, RotateCaRequest};

#[derive(OpenApi)]
#[openapi(paths(get_ca, rotate_ca))]
pub(super) struct Document;

/// The routes of this file.
pub(super) const ROUTES: [(&str, &str); 2] = [("get", "/v1/ca"), ("post", "/v1/ca/rotate")];

pub(super) fn router() -> Router<Arc<Daemon>> {
    Router::new().route("/v1/ca", get(get_ca)).route("/v1/ca/rotate", post(rotate_ca))
}

/// The cluster's CA, and how far a change of it is.
#[utoipa::path(get, path = "/v1/ca",
    responses((status = 200, description = "The CA.", body = CaResponse), OfCa))]
async fn get_ca(State(daemon): App) -> Answer<CaResponse> {
    rotate_ca::show(&*daemon.member()?).await.map(Json)
}

/// Put a new CA in the place of the old one: every member gets a new certificate, join tokens change, and then nobody
/// trusts the old one. Managers only.
#[utoipa::path(post, path = "/v1/ca/rotate", request_body = RotateCaRequest,
    responses((status = 200, description = "Begun; `change` says how far it is.", body = CaResponse), OfCaRotation))]
async fn rotate_ca(State(daemon): App, _: MayWrite, Body(request): Body<RotateCaRequest>) -> Answer<CaResponse> {
    uncancelled(async move { rotate_ca::begin(&*daemon.member()?, request).await }).await
}
