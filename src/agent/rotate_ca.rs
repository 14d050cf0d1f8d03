//! Changing the cluster's CA, as `docker swarm ca --rotate` does: a manager makes a new one, and every member follows.
//!
//! Three decisions, each of which waits until all members have done what the one before asked for: *trust* the new CA
//! beside the old one and hold a certificate of it ready; *use* that certificate, with decisions proven under it; trust it
//! *only*. So at every instant each member accepts what each other one shows, and one that is away holds the change up
//! until it is back or removed. Any manager decides the next step, so the one that began may fail.
//!
//! Not here: which CAs are trusted by what was decided (`node::cas`), what is stored (`trust`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::admission::{get_ready, tell_certificate};
use super::daemon::Membership;
use super::engine::Engine;
use super::rfc3339;
use super::trust::Trust;
use crate::api::{CaChange, CaPhase, CaResponse, Problem, ProblemKind, RotateCaRequest};
use crate::node::{Authorities, Order};
use crate::record::decision::{self, CaStep, Stamp, Subject, Verdict};
use crate::record::{Role, base36_encode};
use crate::wire::credential::{ca_digest, ca_tag};

/// How long all members have to be found ready before the next step: who was admitted by a manager that had not taken the
/// step yet is a member by then, and waited for.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// How far the change is, and which CA is in use here.
///
/// # Errors
/// The daemon is stopping.
pub(super) async fn show(membership: &Membership) -> Result<CaResponse, Problem> {
    let Authorities { trusted, change } = membership.engine.query(|node| node.authorities()).await?;
    let certificate = membership.trust.stored().ca_certificate;
    let change = change.map(|change| CaChange {
        digest: trusted.last().map(|latest| base36_encode(&ca_digest(latest), 50)).unwrap_or_default(),
        phase: match change.phase {
            decision::CaPhase::Trust => CaPhase::Trust,
            decision::CaPhase::Use | decision::CaPhase::Only => CaPhase::Use,
        },
        by: change.decision.stamp.signer,
        since: rfc3339(change.decision.stamp.at.ms()),
        waiting: change.waiting,
    });
    Ok(CaResponse { digest: base36_encode(&ca_digest(&certificate), 50), certificate: pem(&certificate), change })
}

/// Begins a change.
///
/// # Errors
/// A problem; then nothing was decided.
pub(super) async fn begin(membership: &Membership, request: RotateCaRequest) -> Result<CaResponse, Problem> {
    let RotateCaRequest { restart, reason } = request;
    let Authorities { change, .. } = membership.engine.query(|node| node.authorities()).await?;
    if change.is_some() && !restart {
        return Err(ProblemKind::Conflict.problem(
            "the CA is being changed already ('gossipctl ca' shows how far); --restart begins again with another new one"
                .to_owned(),
        ));
    }
    let certificate = membership.trust.prepare_ca(SystemTime::now())?;
    decide(&membership.engine, certificate, decision::CaPhase::Trust, reason).await?;
    show(membership).await
}

async fn decide(
    engine: &Engine,
    certificate: Vec<u8>,
    phase: decision::CaPhase,
    reason: Option<String>,
) -> Result<(), Problem> {
    let verdict = Verdict::Ca(CaStep { certificate, phase });
    engine.decide(vec![Order { subject: Subject::Cluster, verdict, reason, deadline_ms: None }]).await?;
    Ok(())
}

/// Does what the present step asks of this node, and on managers takes the next one when all have done it. Says whether
/// a change is under way.
///
/// # Errors
/// A text for the log; the next look tries again.
pub(super) async fn follow(trust: &Arc<Trust>, engine: &Engine, ready: &mut Option<Ready>) -> Result<bool, String> {
    let Authorities { trusted, change } = engine.query(|node| node.authorities()).await.map_err(|e| e.to_string())?;
    let now = SystemTime::now();
    if trust.trust_in(&trusted, now).map_err(|e| e.to_string())? {
        tracing::info!(cas = trusted.len(), "the cluster's CA changes");
        tell_certificate(trust, engine).await?;
    }
    let (Some(change), Some(latest)) = (change, trusted.last()) else {
        *ready = None;
        return Ok(false);
    };
    let tag = ca_tag(latest);
    let (in_use, reserve) = trust.ca_tags();
    if in_use != tag && (reserve != tag || trust.is_reserve_due(now)) {
        get_ready(trust, engine, latest).await?;
    }
    if in_use != tag && change.phase == decision::CaPhase::Use {
        trust.show_reserve(now).map_err(|e| e.to_string())?;
        tell_certificate(trust, engine).await?;
        tracing::info!("the certificate of the new CA is in use");
    }
    if !change.waiting.is_empty() {
        *ready = None;
    } else if trust.role() == Role::Manager && has_settled(ready, change.decision.stamp) {
        let next = match change.phase {
            decision::CaPhase::Trust => decision::CaPhase::Use,
            decision::CaPhase::Use | decision::CaPhase::Only => decision::CaPhase::Only,
        };
        decide(engine, latest.clone(), next, change.decision.reason.clone()).await.map_err(|e| e.detail)?;
        tracing::info!(step = next.word(), "all members have followed: the next step of changing the CA");
    }
    Ok(true)
}

/// Since when all members have taken a step, as this manager sees it.
pub(super) type Ready = (Stamp, Instant);

/// Have all members taken that step for long enough to have heard of whoever has joined meanwhile?
fn has_settled(ready: &mut Option<Ready>, step: Stamp) -> bool {
    let (_, since) = ready.filter(|(of, _)| *of == step).unwrap_or((step, Instant::now()));
    *ready = Some((step, since));
    since.elapsed() >= SETTLE_TIME
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}
