//! Who has it? Members are asked, and whoever wants to know waits for them.
//!
//! A question has one of a few places for as long as somebody waits for its answer, and no longer: a program that hangs up
//! gives it back.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::{Engine, Input, Stopped};
use crate::node::{Node, WAITS_MAX};
use crate::record::NodeId;
use crate::wire::decision::Have;
use crate::wire::table::Sight;

/// What others are asked for whether they have it.
#[derive(Debug, Clone)]
pub(in crate::agent) enum Asked {
    /// Decisions.
    Decisions(Vec<Have>),
    /// A version of a table.
    Table(Sight),
}

/// Members cannot be asked who has something.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum Unasked {
    /// The protocol task has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Too many wait already.
    #[error("{WAITS_MAX} requests wait for confirmations already, and no more may; try again in a moment")]
    Busy,
}

/// Who has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::agent) struct Confirmation {
    /// They have said so.
    pub confirmed: Vec<NodeId>,
    /// They have not, and are there.
    pub unconfirmed: Vec<NodeId>,
}

/// A question's place.
struct Place {
    engine: Engine,
    nonce: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Err(TrySendError::Full(input)) = self.engine.inputs.try_send(Input::ForgetConfirm(self.nonce)) else {
            return;
        };
        let inputs = self.engine.inputs.clone();
        // Without a runtime the daemon is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The protocol task may have stopped.
                let _ = inputs.send(input).await;
            });
        }
    }
}

impl Engine {
    /// Waits until all members whom it concerns, and that are not gone, have it, at most until `deadline`; tells who has
    /// said so by then, and who has not.
    ///
    /// # Errors
    /// [`Unasked`]: nothing is known of who has it.
    pub(in crate::agent) async fn confirm(&self, what: Asked, deadline: Duration) -> Result<Confirmation, Unasked> {
        let (reply, receiver) = oneshot::channel();
        self.inputs.send(Input::Confirm { what, reply }).await.map_err(|_| Stopped)?;
        let nonce = receiver.await.map_err(|_| Stopped)?.ok_or(Unasked::Busy)?;
        let _place = Place { engine: self.clone(), nonce };
        let until = tokio::time::Instant::now() + deadline;
        let mut progress = self.progress.clone();
        loop {
            let read = move |node: &Node| {
                let (confirmed, unconfirmed) = (node.confirmed_by(nonce)?, node.unconfirmed(nonce)?);
                Some(Confirmation { confirmed, unconfirmed })
            };
            let said = self.query(read).await?.ok_or(Unasked::Busy)?;
            // Progress is told when all have confirmed; who has by the deadline is read then.
            if said.unconfirmed.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(said);
            }
            if let Ok(changed) = tokio::time::timeout_at(until, progress.changed()).await {
                changed.map_err(|_| Stopped)?;
            }
        }
    }
}
