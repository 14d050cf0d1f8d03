//! What the nodes of one process may hold in common: lives, records and derived keys that never change. A daemon runs one
//! node and has none of this; the simulator hands one to all nodes of a world.
//!
//! It saves memory and work, and changes nothing else: whatever it gives out equals what a node would have made.

use std::sync::{Arc, Mutex, PoisonError};

use super::Node;
use super::identity::Identity;
use super::table::{Card, share};
use crate::record::NodeRecord;
use crate::wire::datagram::RecordEnvelope;
use crate::wire::index::ById;
use crate::wire::{DecodeError, SharedKeys};

/// Lives or records of one node that are kept before those that nobody holds any more are let go.
const KEPT_OF_EACH: usize = 4;

/// Shared by all its clones.
#[derive(Debug, Clone, Default)]
pub struct Commons {
    held: Arc<Mutex<Held>>,
    keys: SharedKeys,
}

#[derive(Debug, Default)]
struct Held {
    lives: ById<Vec<Arc<Identity>>>,
    cards: ById<Vec<Arc<Card>>>,
}

/// Keeps one more, and lets those go that nobody else holds if there are many.
fn keep<T>(kept: &mut Vec<Arc<T>>, one: &Arc<T>) {
    if kept.len() >= KEPT_OF_EACH {
        kept.retain(|other| Arc::strong_count(other) > 1);
    }
    kept.push(Arc::clone(one));
}

impl Commons {
    pub(super) fn life(&self, identity: Identity) -> Arc<Identity> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held.lives.entry(identity.id).or_default();
        if let Some(known) = kept.iter().rev().find(|known| ***known == identity) {
            return Arc::clone(known);
        }
        let life = Arc::new(identity);
        keep(kept, &life);
        life
    }

    pub(super) fn card(&self, envelope: RecordEnvelope) -> Result<Arc<Card>, DecodeError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held.cards.entry(envelope.owner).or_default();
        if let Some(known) = kept.iter().rev().find(|known| known.envelope == envelope) {
            return Ok(Arc::clone(known));
        }
        let card = Arc::new(Card::new(envelope)?);
        keep(kept, &card);
        Ok(card)
    }
}

impl Card {
    /// Reads a record.
    ///
    /// Errors when it breaks its limits.
    pub(super) fn new(envelope: RecordEnvelope) -> Result<Self, DecodeError> {
        let record = match envelope.record() {
            Ok(record) => Some(Arc::<NodeRecord>::new(record)),
            // Written by a later version in a way that this one cannot read: kept and passed on all the same.
            Err(_) if envelope.is_of_later_format() => None,
            Err(error) => return Err(error),
        };
        let share = share(envelope.owner, envelope.version.generation, envelope.version);
        Ok(Self { envelope, record, share })
    }
}

impl Node {
    /// From now on holds in common with others what it can. To be called before the first input.
    pub fn share(&mut self, commons: &Commons) {
        self.channel.share_keys(commons.keys.clone());
        self.table.share(commons.clone());
    }
}
