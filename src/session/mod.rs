//! What a reader of the event stream is told, and when: the session layer of `GET /v1/watch`, without clock, socket or text.
//!
//! * [`History`] keeps the last changes, once for all readers;
//! * [`Session`] is one reader: the snapshot or what was missed, `synced`, each change once, and at last that it lagged or
//!   why there is no more. The order stands in [`crate::api::watch`];
//! * [`list`] makes the snapshot of what a [`Filter`] lets through.
//!
//! A session pulls: it says something only when it is asked to and there is room. So a reader that does not read costs its
//! place and what of the snapshot it has not taken, and nobody waits for it. The daemon drives sessions by connections
//! (`agent::watch`), the simulator by readers that stall, die and resume.
//!
//! Not here: JSON, heartbeats, who may read (`agent`).

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod history;
mod listing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use self::history::{Entry, History, Limits, Read};
pub use self::listing::{Downs, Filter, Listed, list};
use crate::api::watch::CloseReason;
use crate::node::Mutant;

/// Where the protocol core stands when a reader comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing<I> {
    /// Its count of visible changes.
    pub revision: u64,
    /// Where it was when this life began.
    pub first: u64,
    /// All that the reader asked for, at that revision; empty if it resumes.
    pub items: VecDeque<I>,
}

/// A reader cannot go on from where it was. Nothing has changed; it takes the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The revision was never told.
    #[error("it is in the future: this daemon has come to {revision}, so it was told by another one")]
    Future {
        /// Where this daemon is.
        revision: u64,
    },
    /// An earlier process told it.
    #[error("it is from an earlier life of this daemon, which began this one at {first}")]
    EarlierLife {
        /// Where this life began.
        first: u64,
    },
    /// What followed it is not kept any more.
    #[error("the history goes back to {oldest} only")]
    Forgotten {
        /// The lowest revision that can be resumed from.
        oldest: u64,
    },
}

/// What a reader is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<I, C> {
    /// First of all: who speaks.
    Hello,
    /// An object of the snapshot.
    Item(I),
    /// A change.
    Change(C),
    /// All up to this revision has been told.
    Synced(u64),
    /// The end: the changes after `told` up to `missed_up_to` are not kept any more.
    Lagged {
        /// The last revision told, or passed over.
        told: u64,
        /// The last one missed.
        missed_up_to: u64,
    },
    /// The end: there is nothing more to tell.
    Closed(CloseReason),
}

/// Where a session puts what it says.
pub trait Sink<I, C> {
    /// About how many bytes more it takes at present.
    fn room(&self) -> usize;

    /// Takes one thing, also when there is no room.
    fn say(&mut self, said: Said<I, C>);
}

/// One reader.
#[derive(Debug, Clone)]
pub struct Session<I> {
    /// The last revision told, or passed over.
    cursor: u64,
    greets: bool,
    /// What of the snapshot is still to be told.
    items: VecDeque<I>,
    /// `synced` is told when the cursor has come here.
    synced_at: Option<u64>,
    is_over: bool,
}

impl<I> Session<I> {
    /// Begins with the snapshot, or goes on after the revision `since`. `history` may be behind `standing`, and not ahead.
    ///
    /// # Errors
    /// It cannot go on from there.
    pub fn open<C>(standing: Standing<I>, since: Option<u64>, history: &History<C>) -> Result<Self, Gone> {
        let Standing { revision, first, items } = standing;
        let oldest = history.oldest();
        match since {
            Some(since) if since > revision => return Err(Gone::Future { revision }),
            Some(since) if since < first => return Err(Gone::EarlierLife { first }),
            Some(since) if since < oldest => return Err(Gone::Forgotten { oldest }),
            _ => {}
        }
        let again = u64::from(history.has(Mutant::RepeatChange));
        let cursor = since.map_or(revision, |since| since - again);
        Ok(Self { cursor, greets: true, items, synced_at: Some(revision), is_over: false })
    }

    /// The last revision told, or passed over: what to resume from.
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The last thing has been said.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Objects of the snapshot that it still has to tell.
    pub fn pending(&self) -> usize {
        self.items.len()
    }

    /// Says what there is to say at once, as far as there is room. `read` is [`History::read`] after a revision, of about so
    /// many bytes.
    pub fn fill<C>(&mut self, sink: &mut impl Sink<I, C>, read: impl FnOnce(u64, usize) -> Read<C>) {
        if std::mem::take(&mut self.greets) {
            sink.say(Said::Hello);
        }
        while sink.room() > 0 {
            let Some(item) = self.items.pop_front() else { break };
            sink.say(Said::Item(item));
        }
        if self.synced_at.is_none_or(|at| self.cursor < at) && sink.room() > 0 {
            self.go_on(read(self.cursor, sink.room()), sink);
        }
        let is_synced = self.items.is_empty() && !self.is_over;
        if is_synced && self.synced_at.take_if(|at| self.cursor >= *at).is_some() {
            sink.say(Said::Synced(self.cursor));
        }
    }

    fn go_on<C>(&mut self, read: Read<C>, sink: &mut impl Sink<I, C>) {
        match read {
            Read::Changes(changes, cursor) => {
                changes.into_iter().for_each(|change| sink.say(Said::Change(change)));
                self.cursor = cursor;
            }
            Read::Nothing => {}
            Read::Lagged(missed_up_to) => {
                sink.say(Said::Lagged { told: self.cursor, missed_up_to });
                self.is_over = true;
            }
            Read::Closed(reason) => {
                sink.say(Said::Closed(reason));
                self.is_over = true;
            }
        }
    }
}
