//! What operators decide: requests, and decisions as they are in force.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Member;
#[cfg(feature = "agent")]
use super::schema;
use crate::record::{Availability, NodeId, Role};

/// A decision that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Decision {
    /// About which node; none: about the cluster.
    pub node: Option<NodeId>,
    /// What was decided: `availability`, `role`, `label`, `removed`, `join-token`, `ca`; a newer daemon may know others.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Register))]
    pub register: String,
    /// The label's key, the token's role, or the step of a new CA.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::LabelKey>))]
    pub key: Option<String>,
    /// The value; none for a label that was taken away, and where there is nothing to show.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::LabelValue>))]
    pub value: Option<String>,
    /// The node that signed it.
    pub by: NodeId,
    /// When, by that node's clock.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Time))]
    pub at: String,
    /// Why.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Reason>))]
    pub reason: Option<String>,
    /// Until when it is to be carried out: for the scheduler.
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Time>))]
    pub deadline: Option<String>,
}

/// `POST /v1/leader`: the scheduler on this node leads, for as long as the connection lasts. Managers only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct LeaderRequest {
    /// Its term: later than any before.
    pub term: u64,
}

/// One line of the answer to [`LeaderRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum LeaderLine {
    /// The first line: it is published.
    Leading {
        /// The term.
        term: u64,
    },
    /// It still is.
    Heartbeat {
        /// The term.
        term: u64,
    },
    /// The last line: a later term was published from this node.
    Superseded {
        /// The term that was.
        term: u64,
    },
    /// Something that a daemon newer than the reader has to say.
    #[serde(other)]
    Other,
}

/// `GET /v1/decisions`: all that stand, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Decisions {
    /// The daemon's count of visible changes.
    pub revision: u64,
    /// By subject.
    pub decisions: Vec<Decision>,
}

/// `POST /v1/members/{reference}/update`: decides about a node, all of it or nothing. Only managers decide; a worker may
/// pause or drain itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct UpdateRequest {
    /// Its availability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// Its role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Labels to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "agent", schema(value_type = BTreeMap<schema::LabelKey, schema::LabelValue>))]
    pub labels_add: BTreeMap<String, String>,
    /// Keys of labels to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "agent", schema(value_type = Vec<schema::LabelKey>))]
    pub labels_rm: Vec<String>,
    /// Why; shown with the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Reason>))]
    pub reason: Option<String>,
    /// Until when it is to be carried out: a duration from now ("10m") or RFC 3339. For the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Answer when all nodes that are not gone have it, or after this long ("30s", at most 10 minutes).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub wait: Option<String>,
}

/// The answer to [`UpdateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct UpdateResponse {
    /// The node as it is listed now.
    pub member: Member,
    /// With `wait`: nodes that had not confirmed the decision when the time was up.
    #[serde(default)]
    pub unconfirmed: Vec<NodeId>,
}

/// `POST /v1/members/{reference}/remove`: the node is a member no more, its certificate is refused from then on, and its
/// id is never let in again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct RemoveRequest {
    /// Although it answers.
    pub force: bool,
    /// Why; shown to the node that is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Reason>))]
    pub reason: Option<String>,
    /// As in [`UpdateRequest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", schema(value_type = Option<schema::Period>))]
    pub wait: Option<String>,
}

/// The answer to [`RemoveRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct RemoveResponse {
    /// The node that was removed.
    pub node_id: NodeId,
    /// With `wait`: nodes that had not confirmed the decision when the time was up.
    #[serde(default)]
    pub unconfirmed: Vec<NodeId>,
}
