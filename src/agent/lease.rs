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
use crate::api::{self, LeaseLine, LeaseRequest, Problem, ProblemKind};
use crate::node::Write;
use crate::record::network::{Endpoint, EndpointId, NetworkId};

/// Time between two signs of life to the program: writing them shows whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long endpoints outlive their connection, when nobody says otherwise.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// The longest that may be asked for.
const GRACE_MAX: Duration = Duration::from_secs(3_600);
/// Time between two tries to take endpoints away when the disk refuses.
const RETRY: Duration = Duration::from_secs(1);

type Key = (NetworkId, EndpointId);

/// Which connection holds an endpoint, and how long that outlives it, in milliseconds.
type Hold = (u64, u64);

#[derive(Debug, Default)]
struct Held {
    holds: BTreeMap<Key, Hold>,
    last: u64,
}

/// The leases of this node's endpoints.
pub(super) struct Leases {
    held: Mutex<Held>,
    /// Taken for as long as who holds what changes here and on the disk.
    turn: tokio::sync::Mutex<()>,
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
            turn: tokio::sync::Mutex::default(),
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
            let ticket = leases.take(&keys, grace_ms);
            leases.expire_after(Duration::from_millis(grace_ms), ticket);
        }
        leases
    }

    fn take(&self, keys: &[Key], grace_ms: u64) -> u64 {
        let mut held = lock(&self.held);
        held.last += 1;
        let ticket = held.last;
        held.holds.extend(keys.iter().map(|key| (*key, (ticket, grace_ms))));
        drop(held);
        self.changes.send_modify(|count| *count += 1);
        ticket
    }

    /// From now on these endpoints do not depend on a connection.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn untie(&self, network: NetworkId, ids: impl Iterator<Item = EndpointId>) -> Result<(), Problem> {
        let ids: BTreeSet<_> = ids.collect();
        self.let_go(|(of, id), _| *of == network && ids.contains(id)).await
    }

    /// From now on no endpoint of the network depends on a connection.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn untie_all(&self, network: NetworkId) -> Result<(), Problem> {
        self.let_go(|(of, _), _| *of == network).await
    }

    /// Forgets who holds what `is_over` says, here and on the disk.
    async fn let_go(&self, is_over: impl Fn(&Key, u64) -> bool) -> Result<(), Problem> {
        let chosen = || -> BTreeSet<Key> {
            let held = lock(&self.held);
            held.holds.iter().filter(|(key, (ticket, _))| is_over(key, *ticket)).map(|(key, _)| *key).collect()
        };
        if chosen().is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        // Somebody may have taken one over while this waited.
        let keys = chosen();
        self.store(&[], &keys).await?;
        lock(&self.held).holds.retain(|key, _| !keys.contains(key));
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Ties endpoints to a connection on the disk, with their grace, and unties others.
    async fn store(&self, tied: &[(Key, u64)], untied: &BTreeSet<Key>) -> Result<(), Problem> {
        let tied: Vec<Lease> =
            tied.iter().map(|((network, id), grace_ms)| (*network, (*id).into(), *grace_ms)).collect();
        let untied: Vec<_> = untied.iter().map(|(network, id)| (*network, (*id).into())).collect();
        let vault = Arc::clone(&self.vault);
        self.on_disk(move || vault.lease(&tied, &untied)).await
    }

    /// Ties endpoints to a new connection and writes them; what is refused leaves all as it was.
    async fn tie(
        &self,
        network: NetworkId,
        endpoints: BTreeMap<EndpointId, Endpoint>,
        grace_ms: u64,
    ) -> Result<u64, Problem> {
        let keys: Vec<Key> = endpoints.keys().map(|id| (network, *id)).collect();
        let _turn = self.turn.lock().await;
        let before: BTreeMap<Key, Hold> = {
            let held = lock(&self.held);
            keys.iter().filter_map(|key| Some((*key, *held.holds.get(key)?))).collect()
        };
        // On the disk first: what is there without its tie would stay for ever.
        let tied: Vec<_> = keys.iter().map(|key| (*key, grace_ms)).collect();
        self.store(&tied, &BTreeSet::new()).await?;
        let endpoints = endpoints.into_iter().map(|(id, endpoint)| (id, Some(endpoint))).collect();
        if let Err(refused) = self.engine.write(Write::Set { network, endpoints }).await {
            let tied: Vec<_> = before.iter().map(|(key, (_, grace_ms))| (*key, *grace_ms)).collect();
            let untied = keys.into_iter().filter(|key| !before.contains_key(key)).collect();
            self.store(&tied, &untied).await?;
            return Err(refused.into());
        }
        Ok(self.take(&keys, grace_ms))
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
        held.holds.iter().filter(|(_, (holder, _))| *holder == ticket).map(|(key, _)| *key).collect()
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
                // Nobody takes one over between the look and the write, and whoever did before keeps it.
                let turn = self.turn.lock().await;
                let left: Vec<_> =
                    self.holds(ticket).into_iter().filter(|(of, id)| *of == network && ids.contains(id)).collect();
                let endpoints = left.iter().map(|(_, id)| (*id, None)).collect();
                let outcome = self.engine.write(Write::Set { network, endpoints }).await;
                drop(turn);
                match outcome {
                    Ok(_) => {
                        tracing::info!(%network, endpoints = left.len(), "leased endpoints have gone with their program");
                        // What stays on the disk is looked for in vain by the next life.
                        let _ = self.let_go(|(of, _), holder| *of == network && holder == ticket).await;
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
                        let _ = self.let_go(|(of, _), holder| *of == network && holder == ticket).await;
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
    let endpoints = identified(membership, network, endpoints).await?;
    let ids: Vec<_> = endpoints.keys().copied().collect();
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    // To its end, also if the program goes away meanwhile: a tie has a connection whose end takes the endpoints away.
    let tying = Arc::clone(&membership.leases);
    let tied = tokio::spawn(async move {
        let ticket = tying.tie(network, endpoints, grace_ms).await?;
        let changes = tying.changes.subscribe();
        Ok::<_, Problem>(Claim { ticket, grace, changes, leases: tying, first: None, is_over: false })
    });
    let mut claim = tied.await.map_err(internal)??;
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
    first: Option<Vec<api::Endpoint>>,
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
