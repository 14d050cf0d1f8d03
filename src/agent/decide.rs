//! Decisions of operators: from what the API was asked to what the protocol core signs.
//!
//! Not here: who may ask (`http`), and whether a decision counts (`node::decisions`).

use std::time::{Duration, SystemTime};

use super::daemon::Membership;
use super::engine::{Asked, DecideError, Engine, Unasked};
use super::keeper::KeepError;
use super::token::secret_digest;
use super::trust::{Trust, TrustError};
use super::view::{find, members};
use super::{rfc3339, unix_ms};
use crate::api::{
    Member, Problem, ProblemKind, RemoveRequest, RemoveResponse, UpdateRequest, UpdateResponse, WAIT_MAX,
};
use crate::ca::random;
use crate::node::{Order, OrderError};
use crate::record::decision::{DecisionKey, Register, Subject, TokenLimits, Verdict};
use crate::record::{NodeId, Role, Status};
use crate::wire::admission::TokenRecord;
use crate::wire::decision::{Have, SignedDecision};

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        let detail = error.to_string();
        let kind = match error {
            DecideError::Order(OrderError::NotManager | OrderError::NotModest) => ProblemKind::NotManager,
            DecideError::Order(OrderError::Invalid(_)) => ProblemKind::BadRequest,
            DecideError::Order(OrderError::Unknown(_) | OrderError::Removed(_)) => ProblemKind::NotFound,
            DecideError::Order(
                OrderError::LastManager(_)
                | OrderError::Labels(_)
                | OrderError::Clock { .. }
                | OrderError::Overtaken
                | OrderError::Full,
            ) => ProblemKind::Conflict,
            DecideError::Keep(KeepError::Busy) => ProblemKind::Conflict,
            DecideError::Keep(KeepError::Disk(_)) | DecideError::Stopped(_) => ProblemKind::Internal,
        };
        kind.problem(detail)
    }
}

/// Decides about one node.
///
/// # Errors
/// A problem; nothing was decided then.
pub(super) async fn update(
    membership: &Membership,
    reference: &str,
    request: UpdateRequest,
) -> Result<UpdateResponse, Problem> {
    let UpdateRequest { availability, role, labels_add, labels_rm, reason, deadline, wait } = request;
    let node = find(members(membership).await?.members, reference)?.id;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let deadline_ms = deadline.as_deref().map(parse_deadline).transpose()?;
    if let Some(key) = labels_rm.iter().find(|key| labels_add.contains_key(*key)) {
        return Err(ProblemKind::BadRequest.problem(format!("label {key} is to be both set and taken away")));
    }
    let verdicts: Vec<_> = availability
        .map(Verdict::Availability)
        .into_iter()
        .chain(role.map(Verdict::Role))
        .chain(labels_add.into_iter().map(|(key, value)| Verdict::Label(key, Some(value))))
        .chain(labels_rm.into_iter().map(|key| Verdict::Label(key, None)))
        .collect();
    if verdicts.is_empty() {
        return Err(
            ProblemKind::BadRequest.problem("nothing to decide: give availability, role, labels_add or labels_rm")
        );
    }
    let order = |verdict| Order { subject: Subject::Node(node), verdict, reason: reason.clone(), deadline_ms };
    let signed = membership.engine.decide(verdicts.into_iter().map(order).collect()).await?;
    let unconfirmed = confirm(membership, &signed, wait).await?;
    let member = find(members(membership).await?.members, &node.to_string())?;
    Ok(UpdateResponse { member, unconfirmed })
}

/// Makes a node a member no more.
///
/// # Errors
/// A problem; nothing was decided then.
pub(super) async fn remove(
    membership: &Membership,
    reference: &str,
    request: RemoveRequest,
) -> Result<RemoveResponse, Problem> {
    let RemoveRequest { force, reason, wait } = request;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let Member { id, status, hostname, is_self, .. } = find(members(membership).await?.members, reference)?;
    let name = hostname.unwrap_or_else(|| id.to_string());
    if is_self {
        return Err(ProblemKind::Conflict
            .problem(format!("{name} is this node: use 'gossipctl leave' here, or remove it on another manager")));
    }
    if !force && matches!(status, Status::Ready | Status::Suspect) {
        return Err(ProblemKind::Conflict.problem(format!(
            "node {name} is {status}: have it leave first ('gossipctl leave' there), or use --force to remove it all the same"
        )));
    }
    let order = Order { subject: Subject::Node(id), verdict: Verdict::Removed, reason, deadline_ms: None };
    let signed = membership.engine.decide(vec![order]).await?;
    let unconfirmed = confirm(membership, &signed, wait).await?;
    Ok(RemoveResponse { node_id: id, unconfirmed })
}

/// What is asked of a new token.
pub(super) struct TokenTerms {
    /// There is to be none.
    pub revoke: bool,
    /// No longer valid from then on, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// Joins allowed in all.
    pub max_uses: Option<u32>,
}

/// Replaces a join token, or revokes it: by a decision, after which every manager refuses the old one, though it may not
/// know the new one yet; then here, for the managers to tell each other.
///
/// # Errors
/// A problem; what of it was done is said.
pub(super) async fn rotate_token(
    trust: &Trust,
    engine: &Engine,
    role: Role,
    TokenTerms { revoke, expires_at_ms, max_uses }: TokenTerms,
) -> Result<(), Problem> {
    trust.tokens()?;
    let secret = if revoke { None } else { Some(random().map_err(TrustError::from)?) };
    let limits = TokenLimits { secret_digest: secret.as_ref().map(secret_digest), expires_at_ms, max_uses };
    let verdict = Verdict::Token(role, limits);
    let order = Order { subject: Subject::Cluster, verdict, reason: None, deadline_ms: None };
    let signed = engine.decide(vec![order]).await?;
    let decided = signed.iter().find_map(|signed| Some(signed.decision().ok()?.stamp));
    let record =
        decided.map(|decided| TokenRecord { role, decided, secret, expires_at_ms, max_uses, uses: Vec::new() });
    trust.merge_tokens(record.into_iter().collect()).map_err(|error| {
        ProblemKind::Internal.problem(format!(
            "the old token admits nobody any more, but this manager could not store the new one: {error}; rotate it again"
        ))
    })?;
    tracing::info!(%role, revoked = revoke, expires_at = expires_at_ms.map(rfc3339), max_uses, "join token replaced");
    Ok(())
}

/// Replaces again what this manager had decided to replace when it was interrupted: nobody has the secret.
pub(super) async fn complete_rotations(trust: &Trust, engine: &Engine) -> Result<(), Problem> {
    let Ok(tokens) = trust.tokens() else { return Ok(()) };
    for role in Role::ALL {
        let key = DecisionKey { subject: Subject::Cluster, register: Register::Token(*role) };
        let Some(decision) = engine.query(move |node| node.decision(&key)).await? else { continue };
        let Verdict::Token(_, TokenLimits { secret_digest, expires_at_ms, max_uses }) = decision.verdict else {
            continue;
        };
        let is_known = tokens.get(*role).is_some_and(|record| record.decided >= decision.stamp);
        if decision.stamp.signer == trust.me && !is_known {
            let terms = TokenTerms { revoke: secret_digest.is_none(), expires_at_ms, max_uses };
            rotate_token(trust, engine, *role, terms).await?;
        }
    }
    Ok(())
}

async fn confirm(
    membership: &Membership,
    signed: &[SignedDecision],
    wait: Option<Duration>,
) -> Result<Vec<NodeId>, Problem> {
    let Some(wait) = wait else { return Ok(Vec::new()) };
    let have = signed.iter().filter_map(|signed| {
        let decision = signed.decision().ok()?;
        Some(Have { slot: signed.slot()?, stamp: decision.stamp, ca: 0 })
    });
    let said = membership.engine.confirm(Asked::Decisions(have.collect()), wait).await.map_err(in_force)?;
    Ok(said.unconfirmed)
}

/// What was to be waited for is done all the same.
pub(super) fn in_force(error: Unasked) -> Problem {
    let problem = Problem::from(error);
    let detail = format!("it is in force and spreads on, but who has it is not known: {}", problem.detail);
    Problem { detail, ..problem }
}

/// How long a caller waits.
///
/// # Errors
/// It is no duration, or too long.
pub(super) fn parse_wait(text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text).ok().filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        ProblemKind::BadRequest.problem(format!("wait {text:?}: expected a duration up to 10m, such as 30s"))
    })
}

fn parse_deadline(text: &str) -> Result<u64, Problem> {
    let after = humantime::parse_duration(text).ok().and_then(|after| SystemTime::now().checked_add(after));
    let at = after.or_else(|| humantime::parse_rfc3339_weak(text).ok());
    at.map(unix_ms).ok_or_else(|| {
        ProblemKind::BadRequest.problem(format!(
            "deadline {text:?}: expected a duration such as 10m, or a time such as 2026-03-13T14:11:26Z"
        ))
    })
}
