//! `POST /v1/lease`: endpoints that are there for as long as a program's connection, and a little longer.
//!
//! Which endpoints are leased, and how long they outlive their connection, is on the disk before they are. A daemon that
//! starts counts all connections as just ended: a program that comes back within the grace finds its endpoints, others'
//! go. A later lease of the same endpoint takes it over; a write without lease unties it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use tokio::sync::watch;

use super::daemon::Membership;
use super::engine::Engine;
use super::lines::{Source, line};
use super::networks::{find_network, identified, views};
use super::trust::lock;
use super::vault::{Lease, Vault};
use crate::api::{Endpoint, LeaseLine, LeaseRequest, Problem, ProblemKind};
use crate::node::Write;
use crate::record::network::{EndpointId, NetworkId};

/// Time between two signs of life to the program: writing them shows whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long endpoints outlive their connection, when nobody says otherwise.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// The longest that may be asked for.
const GRACE_MAX: Duration = Duration::from_secs(3_600);
/// Time between two tries to take endpoints away when the disk refuses.
const RETRY: Duration = Duration::from_secs(1);

type Key = (NetworkId, EndpointId);

#[derive(Debug, Default)]
struct Held {
    /// Which connection holds what.
    tickets: BTreeMap<Key, u64>,
    last: u64,
}

/// The leases of this node's endpoints.
pub(super) struct Leases {
    held: Mutex<Held>,
    /// Counts changes of who holds what.
    changes: watch::Sender<u64>,
    engine: Engine,
    vault: Arc<Vault>,
}

fn internal(error: impl std::fmt::Display) -> Problem {
    ProblemKind::Internal.problem(error.to_string())
}

impl Leases {
    /// Those of an earlier life, whose programs may come back.
    pub(super) fn resume(engine: Engine, vault: Arc<Vault>) -> Arc<Self> {
        let leases = Arc::new(Self {
            held: Mutex::default(),
            changes: watch::Sender::new(0),
            engine,
            vault: Arc::clone(&vault),
        });
        let kept = vault.leases().unwrap_or_else(|error| {
            tracing::error!(%error, "endpoints that were leased stay until they are removed");
            Vec::new()
        });
        let mut by_grace: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        for (network, key, grace_ms) in kept {
            by_grace.entry(grace_ms).or_default().push((network, key.endpoint()));
        }
        for (grace_ms, keys) in by_grace {
            let ticket = leases.take(&keys);
            leases.expire_after(Duration::from_millis(grace_ms), ticket);
        }
        leases
    }

    fn take(&self, keys: &[Key]) -> u64 {
        let mut held = lock(&self.held);
        held.last += 1;
        let ticket = held.last;
        held.tickets.extend(keys.iter().map(|key| (*key, ticket)));
        drop(held);
        self.changes.send_modify(|count| *count += 1);
        ticket
    }

    /// From now on these endpoints do not depend on a connection.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn untie(&self, network: NetworkId, ids: impl Iterator<Item = EndpointId>) -> Result<(), Problem> {
        let keys: Vec<Key> = {
            let held = lock(&self.held);
            ids.map(|id| (network, id)).filter(|key| held.tickets.contains_key(key)).collect()
        };
        self.let_go(keys).await
    }

    /// From now on no endpoint of the network depends on a connection.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn untie_all(&self, network: NetworkId) -> Result<(), Problem> {
        let keys = lock(&self.held).tickets.keys().filter(|(of, _)| *of == network).copied().collect();
        self.let_go(keys).await
    }

    async fn let_go(&self, keys: Vec<Key>) -> Result<(), Problem> {
        if keys.is_empty() {
            return Ok(());
        }
        let (vault, untied) = (Arc::clone(&self.vault), keys.clone());
        self.on_disk(move || {
            let untied: Vec<_> = untied.iter().map(|(network, id)| (*network, (*id).into())).collect();
            vault.lease(&[], &untied)
        })
        .await?;
        let mut held = lock(&self.held);
        held.tickets.retain(|key, _| !keys.contains(key));
        drop(held);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The disk may be slow, and the protocol runs on this thread.
    async fn on_disk(
        &self,
        write: impl FnOnce() -> Result<(), super::state::StateError> + Send + 'static,
    ) -> Result<(), Problem> {
        tokio::task::spawn_blocking(write).await.map_err(internal)?.map_err(internal)
    }

    fn holds(&self, ticket: u64) -> Vec<Key> {
        let held = lock(&self.held);
        held.tickets.iter().filter(|(_, holder)| **holder == ticket).map(|(key, _)| *key).collect()
    }

    fn expire_after(self: &Arc<Self>, grace: Duration, ticket: u64) {
        let leases = Arc::clone(self);
        // Without a runtime the daemon is ending, and its next life counts the grace again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(grace).await;
                leases.expire(ticket).await;
            });
        }
    }

    /// The program has not come back: its endpoints go.
    async fn expire(&self, ticket: u64) {
        let mut by_network: BTreeMap<NetworkId, BTreeSet<EndpointId>> = BTreeMap::new();
        for (network, id) in self.holds(ticket) {
            by_network.entry(network).or_default().insert(id);
        }
        for (network, ids) in by_network {
            loop {
                // Whoever took one over meanwhile keeps it.
                let left: Vec<_> =
                    self.holds(ticket).into_iter().filter(|(of, id)| *of == network && ids.contains(id)).collect();
                let endpoints = left.iter().map(|(_, id)| (*id, None)).collect();
                match self.engine.write(Write::Set { network, endpoints }).await {
                    Ok(_) => {
                        tracing::info!(%network, endpoints = left.len(), "leased endpoints have gone with their program");
                        // What stays on the disk is looked for in vain by the next life.
                        let _ = self.let_go(left).await;
                        break;
                    }
                    Err(super::engine::WriteRefused::Keep(error)) => {
                        tracing::warn!(%error, "leased endpoints are not taken away yet");
                        tokio::time::sleep(RETRY).await;
                    }
                    // The daemon ends; its next life looks after them.
                    Err(super::engine::WriteRefused::Stopped(_)) => return,
                    // This node is not attached any more.
                    Err(super::engine::WriteRefused::Write(_)) => {
                        let _ = self.let_go(left).await;
                        break;
                    }
                }
            }
        }
    }
}

/// Writes endpoints for as long as the answer lasts.
///
/// # Errors
/// A problem; nothing was written then.
pub(super) async fn lease(membership: &Membership, request: LeaseRequest) -> Result<Response, Problem> {
    let LeaseRequest { network: reference, endpoints, grace } = request;
    let grace = grace.as_deref().map_or(Ok(GRACE_DEFAULT), parse_grace)?;
    let network = membership.engine.query(move |node| find_network(node, &reference)).await??;
    let endpoints = identified(membership, network, endpoints)?;
    let ids: Vec<_> = endpoints.keys().copied().collect();
    let keys: Vec<Key> = ids.iter().map(|id| (network, *id)).collect();
    let leases = Arc::clone(&membership.leases);
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let tied: Vec<Lease> = ids.iter().map(|id| (network, (*id).into(), grace_ms)).collect();
    let vault = Arc::clone(&leases.vault);
    leases.on_disk(move || vault.lease(&tied, &[])).await?;
    let ticket = leases.take(&keys);
    // From here on its end takes the endpoints away.
    let mut claim = Claim { ticket, grace, changes: leases.changes.subscribe(), leases, first: None, is_over: false };
    let endpoints = endpoints.into_iter().map(|(id, endpoint)| (id, Some(endpoint))).collect();
    membership.engine.write(Write::Set { network, endpoints }).await?;
    claim.first = Some(membership.engine.query(move |node| views(node, network, &ids)).await?);
    Ok(claim.into_answer())
}

fn parse_grace(text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text).ok().filter(|grace| *grace <= GRACE_MAX).ok_or_else(|| {
        ProblemKind::BadRequest.problem(format!("grace {text:?}: expected a duration up to 1h, such as 10s"))
    })
}

/// One program's connection.
struct Claim {
    ticket: u64,
    grace: Duration,
    changes: watch::Receiver<u64>,
    leases: Arc<Leases>,
    first: Option<Vec<Endpoint>>,
    is_over: bool,
}

impl Source for Claim {
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(endpoints) = self.first.take() {
            return line(&LeaseLine::Leased { endpoints });
        }
        let (leases, ticket) = (Arc::clone(&self.leases), self.ticket);
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            _ = self.changes.wait_for(|_| leases.holds(ticket).is_empty()) => {
                self.is_over = true;
                line(&LeaseLine::Superseded)
            }
            () = tokio::time::sleep(HEARTBEAT) => line(&LeaseLine::Heartbeat),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leases.expire_after(self.grace, self.ticket);
    }
}
