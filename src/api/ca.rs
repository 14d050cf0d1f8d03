//! The cluster's CA, and changing it.

use serde::{Deserialize, Serialize};

#[cfg(feature = "agent")]
use super::schema;
use crate::record::NodeId;

/// `GET /v1/ca`: the CA that has issued this node's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct CaResponse {
    /// SHA-256 of its certificate, as in join tokens.
    #[cfg_attr(feature = "agent", schema(value_type = schema::CaDigest))]
    pub digest: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The change under way; none: there is no other CA.
    pub change: Option<CaChange>,
}

/// A change of the CA that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct CaChange {
    /// SHA-256 of the new CA's certificate.
    #[cfg_attr(feature = "agent", schema(value_type = schema::CaDigest))]
    pub digest: String,
    /// What members are doing.
    pub phase: CaPhase,
    /// Who decided that.
    pub by: NodeId,
    /// When, by that node's clock.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Time))]
    pub since: String,
    /// Members that have not done it yet. One that is down holds the change up until it is back or removed.
    pub waiting: Vec<NodeId>,
}

/// A step of such a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum CaPhase {
    /// They trust both CAs, and get a certificate of the new one.
    Trust,
    /// They show that certificate. After that they trust the new CA only, and the change is over.
    Use,
}

impl CaPhase {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Use => "use",
        }
    }
}

/// `POST /v1/ca/rotate`: a new CA in place of the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct RotateCaRequest {
    /// Begin again with another new CA, though a change is under way.
    pub restart: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Reason>))]
    pub reason: Option<String>,
}
