//! What the daemon says when a request is refused or fails.

use serde::{Deserialize, Serialize};

#[cfg(feature = "agent")]
use super::schema;

/// Media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A request was refused or failed (RFC 9457). Unless `detail` says otherwise, nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of problem, `urn:gossipd:problem:CODE`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "agent", schema(value_type = schema::ProblemType))]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// The kind in words.
    pub title: String,
    /// What was wrong, with the value, and what to do.
    pub detail: String,
    /// Candidates: nodes that an ambiguous name fits, or paths that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
}

/// The kinds of [`Problem`]: code, HTTP status, title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The request cannot be understood. The caller's fault.
    BadRequest,
    /// The caller may not do this.
    Forbidden,
    /// No such thing.
    NotFound,
    /// A name fits several nodes.
    Ambiguous,
    /// The daemon is in no cluster.
    NotInCluster,
    /// The daemon is in a cluster already.
    AlreadyInCluster,
    /// Only managers can do this.
    NotManager,
    /// The daemon's present state does not allow it.
    Conflict,
    /// The cluster refused: a bad token, for example.
    Refused,
    /// No member could be reached.
    Unreachable,
    /// The history asked for is not there: the caller takes the snapshot.
    Gone,
    /// The daemon serves as many callers as it can. Later it may work.
    Busy,
    /// The daemon failed. Its fault.
    Internal,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::Ambiguous,
        Self::NotInCluster,
        Self::AlreadyInCluster,
        Self::NotManager,
        Self::Conflict,
        Self::Refused,
        Self::Unreachable,
        Self::Gone,
        Self::Busy,
        Self::Internal,
    ];

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => ("bad-request", 400, "bad request"),
            Self::Forbidden => ("forbidden", 403, "not permitted"),
            Self::NotFound => ("not-found", 404, "not found"),
            Self::Ambiguous => ("ambiguous", 409, "ambiguous name"),
            Self::NotInCluster => ("not-in-cluster", 409, "not in a cluster"),
            Self::AlreadyInCluster => ("already-in-cluster", 409, "already in a cluster"),
            Self::NotManager => ("not-manager", 409, "not a manager"),
            Self::Conflict => ("conflict", 409, "not possible now"),
            Self::Refused => ("refused", 422, "refused by the cluster"),
            Self::Unreachable => ("unreachable", 502, "no member reached"),
            Self::Gone => ("gone", 410, "history not there"),
            Self::Busy => ("busy", 503, "too busy"),
            Self::Internal => ("internal", 500, "internal error"),
        }
    }

    /// The last part of [`Problem::kind`].
    pub const fn code(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The problem with its detail.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        let (code, status, title) = self.row();
        Problem {
            kind: format!("urn:gossipd:problem:{code}"),
            status,
            title: title.to_owned(),
            detail: detail.into(),
            candidates: Vec::new(),
        }
    }
}

impl Problem {
    /// Which kind it is; none when a newer daemon made it.
    pub fn known_kind(&self) -> Option<ProblemKind> {
        let code = self.kind.strip_prefix("urn:gossipd:problem:")?;
        ProblemKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Adds candidates.
    #[must_use]
    pub fn with_candidates(self, candidates: Vec<String>) -> Self {
        Self { candidates, ..self }
    }
}
