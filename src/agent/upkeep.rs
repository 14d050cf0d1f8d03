//! What a member does from time to time: contacts on the disk, a fresh certificate, and on managers equal tokens.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::decide::complete_rotations;
use super::engine::Engine;
use super::trust::{SharedState, Trust, lock};
use super::{admission, metrics, rfc3339, roam, rotate_ca, unix_ms};
use crate::node::Node;
use crate::record::Role;
use crate::record::decision::Verdict;

/// Time between two looks at contacts and certificate.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(10);
/// The same while the cluster's CA is changed.
const CA_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Time for further changes to come before a change of members is acted upon.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// A CA that this node does not know is warned of at once, then every so many looks.
const UNKNOWN_CA_WARNED_EVERY: u32 = 30;
/// Every so many looks managers compare tokens, though nothing has changed.
const MANAGER_SYNC_EVERY: u32 = 6;

/// Keeps contacts on the disk, the certificate fresh, and managers' tokens equal: every so often, and soon after members
/// have changed.
pub(super) async fn maintain(trust: Arc<Trust>, engine: Engine, state: SharedState, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = keep_up(&trust, &engine, &state) => {}
    }
}

async fn keep_up(trust: &Arc<Trust>, engine: &Engine, state: &SharedState) {
    let mut saved = Vec::new();
    let mut agreed_with = Vec::new();
    let mut decisions = 0;
    let mut seen = 0;
    let (mut is_ca_changing, mut ready) = (false, None);
    let mut warn_every = 1;
    if let Err(error) = complete_rotations(trust, engine).await {
        tracing::error!(%error, "a join token that was to be replaced admits nobody; rotate it again");
    }
    move_attachments(trust, engine).await;
    for look in 0_u32.. {
        let changed = async {
            match engine.wait(|progress| progress.changes + progress.decisions > seen).await {
                Ok(_) => sleep(SETTLE_PAUSE).await,
                Err(_) => pending().await,
            }
        };
        // Nothing to be done when it is time: both lead to a look.
        let interval = if is_ca_changing { CA_CHANGE_INTERVAL } else { MAINTENANCE_INTERVAL };
        let _ = timeout(interval, changed).await;
        seen = engine.progress().changes + engine.progress().decisions;
        save_contacts(engine, state, &mut saved).await;
        move_attachments(trust, engine).await;
        if decisions != engine.progress().decisions {
            // Perhaps about a token whose secret this manager does not have yet.
            decisions = engine.progress().decisions;
            agreed_with.clear();
        }
        if trust.has_met_unknown_ca() && look.is_multiple_of(warn_every) {
            warn_every = UNKNOWN_CA_WARNED_EVERY;
            tracing::warn!(
                "a machine at a member's address has a certificate of a CA that this node does not know: if the cluster's CA was changed while this node was away, 'gossipctl leave --force' here and join again"
            );
        }
        match rotate_ca::follow(trust, engine, &mut ready).await {
            Ok(is_changing) => is_ca_changing = is_changing,
            Err(error) => tracing::warn!(error, "the change of the cluster's CA waits for this node"),
        }
        if trust.is_renewal_due(SystemTime::now()) || is_role_due(trust, engine).await {
            match admission::renew(trust, engine).await {
                Ok(()) => tracing::info!(role = %trust.role(), "certificate renewed"),
                Err(error) => warn_of_expiry(trust, &error),
            }
            metrics::certificate_expiry(trust.stored().certificate_expires_at_ms);
        }
        if trust.role() == Role::Manager {
            let managers = engine.query(Node::managers).await.unwrap_or_default();
            if (managers != agreed_with || look.is_multiple_of(MANAGER_SYNC_EVERY))
                && admission::sync_managers(trust, engine).await.is_empty()
            {
                agreed_with = managers;
            }
        }
    }
}

/// Has another role been decided for this node than its certificate gives it? Or the same again, after one that took from
/// the certificate what it entitled to?
async fn is_role_due(trust: &Trust, engine: &Engine) -> bool {
    let me = trust.me;
    let Ok(Some(decision)) = engine.query(move |node| node.decided(me).role.clone()).await else { return false };
    let certified = trust.credential().certified();
    decision.verdict != Verdict::Role(certified.role) || certified.issued_ms <= decision.stamp.at.ms()
}

async fn move_attachments(trust: &Trust, engine: &Engine) {
    if let Err(error) = roam::move_attachments(trust, engine).await {
        tracing::warn!(error, "attachments do not follow this node's data-path address yet");
    }
}

fn warn_of_expiry(trust: &Trust, error: &str) {
    let expires_at = rfc3339(trust.stored().certificate_expires_at_ms);
    if unix_ms(SystemTime::now()) >= trust.stored().certificate_expires_at_ms {
        tracing::error!(
            error,
            expires_at,
            "the certificate has expired: leave with --force and join again with a token"
        );
    } else {
        tracing::warn!(error, expires_at, "certificate not renewed yet");
    }
}

/// Stores where others are, unless `saved` says so already.
pub(super) async fn save_contacts(engine: &Engine, state: &SharedState, saved: &mut Vec<SocketAddr>) {
    let Ok(contacts) = engine.query(Node::contacts).await else { return };
    if contacts.is_empty() || contacts == *saved {
        return;
    }
    let (state, to_save) = (Arc::clone(state), contacts.clone());
    // The disk may be slow, and the protocol runs on this thread.
    let written = tokio::task::spawn_blocking(move || lock(&state).save_contacts(to_save)).await;
    match written {
        Ok(Ok(())) => *saved = contacts,
        Ok(Err(error)) => tracing::warn!(%error, "contacts not saved"),
        Err(error) => tracing::warn!(%error, "contacts not saved"),
    }
}
