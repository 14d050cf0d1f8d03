//! Decisions between the protocol task and the disk.
//!
//! The protocol never waits for the disk: what it wants kept is gathered, the newest for each slot, and written in one
//! transaction at a time on another thread. A decision made here is different: it is written first, and counts after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::state::StateError;
use super::vault::{Vault, Write};
use crate::wire::decision::SignedDecision;

/// Time between two tries to write to a disk that refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Decisions made here that may wait for the disk at once; more are refused.
const ORDERS_MAX: usize = 256;

/// A decision made here could not be stored: it is in force nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum KeepError {
    /// The disk.
    #[error("the decision was not stored, and is not in force: {0}")]
    Disk(String),
    /// Too many wait already.
    #[error("too many decisions wait for the disk; try again")]
    Busy,
}

/// Decisions signed here, and who waits for them to count.
pub(super) struct Ordered {
    /// What was signed.
    pub decisions: Vec<SignedDecision>,
    /// To be told once they count.
    pub reply: oneshot::Sender<Result<Vec<SignedDecision>, KeepError>>,
}

/// What came of a write.
pub(super) struct Written {
    outcome: Result<(), StateError>,
    pending: BTreeMap<u64, Option<Arc<SignedDecision>>>,
    orders: Vec<Ordered>,
}

/// What is to be written.
pub(super) struct Keeper {
    vault: Arc<Vault>,
    done: mpsc::Sender<Written>,
    written: mpsc::Receiver<Written>,
    pending: BTreeMap<u64, Option<Arc<SignedDecision>>>,
    orders: Vec<Ordered>,
    is_writing: bool,
    not_before: Option<Instant>,
}

impl Keeper {
    /// A keeper of the decisions in `vault`.
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        // One write at a time.
        let (done, written) = mpsc::channel(1);
        let (pending, orders) = (BTreeMap::new(), Vec::new());
        Self { vault, done, written, pending, orders, is_writing: false, not_before: None }
    }

    /// Keeps a decision in that slot, or empties it.
    pub(super) fn keep(&mut self, slot: u64, decision: Option<Arc<SignedDecision>>) {
        self.pending.insert(slot, decision);
    }

    /// Stores decisions made here; they come back from [`Keeper::finish`].
    pub(super) fn order(&mut self, order: Ordered) {
        if self.orders.len() < ORDERS_MAX {
            self.orders.push(order);
        } else {
            // Whoever asked may have gone.
            let _ = order.reply.send(Err(KeepError::Busy));
        }
    }

    /// When [`Keeper::poke`] is to be called though nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.is_writing && !self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.orders.is_empty()
    }

    /// Begins a write if there is something to write and none is under way.
    pub(super) fn poke(&mut self) {
        if self.is_writing || self.is_empty() || self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.is_writing = true;
        self.not_before = None;
        let (pending, orders) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.orders));
        let (vault, done) = (Arc::clone(&self.vault), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let ordered = orders.iter().flat_map(|order| &order.decisions).filter_map(|one| Some((one.slot()?, one)));
            let mut writes: BTreeMap<u64, Option<Vec<u8>>> =
                pending.iter().map(|(slot, one)| (*slot, one.as_ref().map(|one| one.to_bytes()))).collect();
            writes.extend(ordered.map(|(slot, one)| (slot, Some(one.to_bytes()))));
            let writes: Vec<Write> = writes.into_iter().collect();
            let outcome = vault.write(&writes);
            // The protocol task may have ended.
            let _ = done.blocking_send(Written { outcome, pending, orders });
        });
    }

    /// Waits for the write under way; for ever if there is none.
    pub(super) async fn written(&mut self) -> Written {
        match self.written.recv().await {
            Some(written) => written,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Decisions made here that are stored now, with those who wait for them. After a failure there are none, those who
    /// waited have been told, and everybody else's decisions are tried again.
    pub(super) fn finish(&mut self, written: Written) -> Vec<Ordered> {
        let Written { outcome, pending, orders } = written;
        self.is_writing = false;
        match outcome {
            Ok(()) => orders,
            Err(error) => {
                tracing::error!(%error, "decisions are not on the disk; they will be tried again");
                self.not_before = Some(Instant::now() + RETRY);
                for (slot, decision) in pending {
                    self.pending.entry(slot).or_insert(decision);
                }
                for order in orders {
                    // Whoever asked may have gone.
                    let _ = order.reply.send(Err(KeepError::Disk(error.to_string())));
                }
                Vec::new()
            }
        }
    }

    /// Writes what is left, before the task ends.
    pub(super) async fn close(mut self) {
        if self.is_writing {
            let written = self.written().await;
            self.finish(written);
        }
        self.orders.clear();
        self.not_before = None;
        self.poke();
        if self.is_writing {
            let written = self.written().await;
            self.finish(written);
        }
    }
}
