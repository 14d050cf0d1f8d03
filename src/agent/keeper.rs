//! Decisions and own tables between the protocol task and the disk.
//!
//! The protocol never waits for the disk: what it wants kept is gathered, and written in one transaction at a time on
//! another thread. Of others' decisions the newest for each slot is kept some time; what is decided or written here counts
//! only when it is on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::state::StateError;
use super::vault::{Vault, Write};
use crate::record::Version;
use crate::wire::decision::SignedDecision;
use crate::wire::table::{Sight, Step};

/// Time between two tries to write to a disk that refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Decisions made here that may wait for the disk at once; more are refused.
const ORDERS_MAX: usize = 256;

/// Steps of own tables that may wait for the disk at once; further writes are refused.
const STEPS_MAX: usize = 4_096;

/// What was decided or written here could not be stored: it is in force nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum KeepError {
    /// The disk.
    #[error("it was not stored, and is not in force: {0}")]
    Disk(String),
    /// Too many wait already.
    #[error("too much waits for the disk already; try again")]
    Busy,
}

/// A step of an own table, and the tips of the table's lives after it.
pub(super) type OwnStep = (Arc<Step>, Vec<Version>);

/// Somebody who waits for a write into an own table to count.
pub(super) struct Writer {
    /// What has to count before it is told: what it leads to, or what was written before it.
    pub after: Sight,
    /// What it leads to; none: it changes nothing.
    pub sight: Option<Sight>,
    /// To be told once it counts.
    pub reply: oneshot::Sender<Result<Option<Sight>, KeepError>>,
}

/// What came back from the disk.
#[derive(Default)]
pub(super) struct Stored {
    /// Decisions made here that count now.
    pub orders: Vec<Ordered>,
    /// Steps of own tables that count now, in order.
    pub steps: Vec<Arc<Step>>,
    /// Writers whose writes count as soon as these steps are given back.
    pub writers: Vec<Writer>,
    /// Steps were lost: the protocol core has to begin again at what counts.
    pub is_unwritten: bool,
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
    steps: Vec<OwnStep>,
}

/// What is to be written.
pub(super) struct Keeper {
    vault: Arc<Vault>,
    done: mpsc::Sender<Written>,
    written: mpsc::Receiver<Written>,
    pending: BTreeMap<u64, Option<Arc<SignedDecision>>>,
    orders: Vec<Ordered>,
    steps: Vec<OwnStep>,
    writers: VecDeque<Writer>,
    is_writing: bool,
    not_before: Option<Instant>,
}

impl Keeper {
    /// A keeper of the decisions in `vault`.
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        // One write at a time.
        let (done, written) = mpsc::channel(1);
        let (pending, orders, steps) = (BTreeMap::new(), Vec::new(), Vec::new());
        let writers = VecDeque::new();
        Self { vault, done, written, pending, orders, steps, writers, is_writing: false, not_before: None }
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

    /// Keeps a step of an own table; it comes back from [`Keeper::finish`].
    pub(super) fn keep_step(&mut self, step: OwnStep) {
        self.steps.push(step);
    }

    /// Is there room for another write into an own table?
    pub(super) fn has_room(&self) -> bool {
        self.steps.len() < STEPS_MAX && self.writers.len() < STEPS_MAX
    }

    /// Somebody waits for a write; none as `sight`: for those before it, as it changes nothing beyond them.
    pub(super) fn wait_for(&mut self, sight: Option<Sight>, reply: oneshot::Sender<Result<Option<Sight>, KeepError>>) {
        match sight.or_else(|| self.writers.back().map(|writer| writer.after)) {
            Some(after) => self.writers.push_back(Writer { after, sight, reply }),
            // Whoever asked may have gone.
            None => drop(reply.send(Ok(None))),
        }
    }

    /// When [`Keeper::poke`] is to be called though nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.is_writing && !self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.orders.is_empty() && self.steps.is_empty()
    }

    /// Begins a write if there is something to write and none is under way.
    pub(super) fn poke(&mut self) {
        if self.is_writing || self.is_empty() || self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.is_writing = true;
        self.not_before = None;
        let (pending, orders) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.orders));
        let steps = std::mem::take(&mut self.steps);
        let (vault, done) = (Arc::clone(&self.vault), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let ordered = orders.iter().flat_map(|order| &order.decisions).filter_map(|one| Some((one.slot()?, one)));
            let mut writes: BTreeMap<u64, Option<Vec<u8>>> =
                pending.iter().map(|(slot, one)| (*slot, one.as_ref().map(|one| one.to_bytes()))).collect();
            writes.extend(ordered.map(|(slot, one)| (slot, Some(one.to_bytes()))));
            let decisions = writes.into_iter().map(|(slot, bytes)| Write::Decision(slot, bytes));
            let tables =
                steps.iter().map(|(step, lives)| Write::Table { step: Arc::clone(step), lives: lives.clone() });
            let writes: Vec<Write> = decisions.chain(tables).collect();
            let outcome = vault.write(&writes);
            // The protocol task may have ended.
            let _ = done.blocking_send(Written { outcome, pending, orders, steps });
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

    /// What was made here and is stored now, with those who wait for it. After a failure there is none, those who waited have
    /// been told, and others' decisions are tried again.
    pub(super) fn finish(&mut self, written: Written) -> Stored {
        let Written { outcome, pending, orders, steps } = written;
        self.is_writing = false;
        match outcome {
            Ok(()) => {
                let steps: Vec<_> = steps.into_iter().map(|(step, _)| step).collect();
                let counts =
                    |sight: &Sight| steps.iter().any(|step| step.scope == sight.scope && step.to() >= sight.version);
                let ready = self.writers.iter().take_while(|writer| counts(&writer.after)).count();
                let writers = self.writers.drain(..ready).collect();
                Stored { orders, steps, writers, is_unwritten: false }
            }
            Err(error) => {
                tracing::error!(%error, "the disk keeps nothing; others' decisions will be tried again");
                self.not_before = Some(Instant::now() + RETRY);
                for (slot, decision) in pending {
                    self.pending.entry(slot).or_insert(decision);
                }
                for order in orders {
                    // Whoever asked may have gone.
                    let _ = order.reply.send(Err(KeepError::Disk(error.to_string())));
                }
                // What was written after them continues them.
                let is_unwritten = !steps.is_empty();
                if is_unwritten {
                    self.steps.clear();
                    for writer in self.writers.drain(..) {
                        // Whoever asked may have gone.
                        let _ = writer.reply.send(Err(KeepError::Disk(error.to_string())));
                    }
                }
                Stored { is_unwritten, ..Stored::default() }
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
