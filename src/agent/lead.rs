//! `POST /v1/leader`: the scheduler on this node publishes itself as leader, for as long as its connection lasts.
//!
//! The term is part of this node's own record, so all nodes learn of it as of any change, and of a node that goes down
//! nobody believes it any more. Of two that say to lead, the later term counts, wherever they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::watch;

use super::daemon::Membership;
use super::engine::Engine;
use super::lines::Source;
use super::trust::lock;
use super::view::members;
use crate::api::{LeaderLine, LeaderRequest, ManagerStatus, Problem, ProblemKind};
use crate::node::Command;
use crate::record::Role;

/// Time between two signs of life to the publisher: writing them shows whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The term published from this node, and by which connection.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    held: Mutex<Option<(u64, u64)>>,
    changes: watch::Sender<u64>,
}

/// Publishes a term.
///
/// # Errors
/// A problem: not a manager, or an equal or later term is published already.
pub(super) async fn lead(membership: &Membership, request: &LeaderRequest) -> Result<Response, Problem> {
    let term = request.term;
    if membership.trust.role() != Role::Manager {
        return Err(ProblemKind::NotManager.problem("this node is a worker: only a manager's scheduler leads"));
    }
    let listed = members(membership).await?.members;
    let other = listed.iter().find(|member| {
        let leads = member.manager_status == Some(ManagerStatus::Leader) && !member.is_self;
        leads && member.leader_term >= Some(term)
    });
    if let Some(other) = other {
        let (name, held) = (other.hostname.as_deref().unwrap_or("-"), other.leader_term.unwrap_or_default());
        let what = format!("term {term} is not later than term {held}, in which {name} ({}) leads", other.id);
        return Err(ProblemKind::Conflict.problem(what));
    }
    let leadership = Arc::clone(&membership.leadership);
    let ticket = {
        let mut held = lock(&leadership.held);
        if let Some((at, _)) = held.filter(|(at, _)| *at >= term) {
            let what = format!("term {term} is not later than term {at}, which is published from this node already");
            return Err(ProblemKind::Conflict.problem(what));
        }
        let ticket = *leadership.changes.borrow() + 1;
        *held = Some((term, ticket));
        leadership.changes.send_replace(ticket);
        ticket
    };
    let changes = leadership.changes.subscribe();
    let engine = membership.engine.clone();
    let claim = Claim { term, ticket, leadership, changes, engine, is_told: false, is_over: false };
    claim.engine.command(Command::Lead(Some(term))).await?;
    Ok(claim.into_answer())
}

/// One publisher's connection. Its end withdraws the term.
struct Claim {
    term: u64,
    ticket: u64,
    leadership: Arc<Leadership>,
    changes: watch::Receiver<u64>,
    engine: Engine,
    is_told: bool,
    is_over: bool,
}

impl Source for Claim {
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if !self.is_told {
            self.is_told = true;
            return line(&LeaderLine::Leading { term: self.term });
        }
        let ticket = self.ticket;
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            _ = self.changes.wait_for(|newest| *newest != ticket) => {
                self.is_over = true;
                line(&LeaderLine::Superseded { term: self.term })
            }
            () = tokio::time::sleep(HEARTBEAT) => line(&LeaderLine::Heartbeat { term: self.term }),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = lock(&self.leadership.held);
        if held.is_some_and(|(_, ticket)| ticket == self.ticket) {
            *held = None;
            let engine = self.engine.clone();
            // Without a runtime the daemon is ending, and its node with it.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                // The protocol task may have stopped: then nobody is told anything any more.
                runtime.spawn(async move { engine.command(Command::Lead(None)).await });
            }
        }
    }
}

fn line(line: &impl Serialize) -> Option<Bytes> {
    let mut text = serde_json::to_vec(line).ok()?;
    text.push(b'\n');
    Some(text.into())
}
