//! What the nodes of one process may hold in common: lives, records and derived keys that never change. A daemon runs one
//! node and has none of this; the simulator hands one to all nodes of a world.
//!
//! It saves memory and work, and changes nothing else: whatever it gives out equals what a node would have made.

use std::sync::{Arc, Mutex, PoisonError};

use super::identity::{Identity, Life};
use super::table::{Card, share};
use super::{Node, Now};
use crate::record::NodeRecord;
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::MemberEntry;
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

/// Nodes that know each other from their start ([`Node::acquaint`]).
#[derive(Debug)]
pub struct Acquaintances(Vec<(Arc<Identity>, Arc<Card>)>);

impl Acquaintances {
    /// Of what each of them tells about itself ([`Node::entries`]). Those without a record are left out.
    ///
    /// # Errors
    /// A record that breaks its limits.
    pub fn new(commons: &Commons, entries: Vec<MemberEntry>) -> Result<Self, DecodeError> {
        let with_record = entries.into_iter().filter_map(|entry| {
            let MemberEntry { id, generation, addr, record, .. } = entry;
            Some((Identity { id, generation, addr }, record?))
        });
        let shared = with_record.map(|(identity, record)| Ok((commons.life(identity), commons.card(record)?)));
        Ok(Self(shared.collect::<Result<_, _>>()?))
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

    /// From now on knows all of them, as if it had compared its state with one that does, and tells nobody of it. To be
    /// called before the first input. What it costs is foca's search for each of them, so it grows with the square of
    /// their number.
    pub fn acquaint(&mut self, now: Now, others: &Acquaintances) {
        let me = self.identity().id;
        let others = || others.0.iter().filter(|(life, _)| life.id != me);
        let count = others().count();
        self.table.reserve_exact(count);
        self.holdings.tables.reserve_owners(count);
        for (life, card) in others() {
            self.table.list(now.unix_ms, Arc::clone(life), Arc::clone(card));
            self.holdings.tables.know(life.id);
        }
        let updates = others().map(|(life, _)| foca::Member::alive(Life::new(Arc::clone(life))));
        self.drive(now, |foca, out| foca.apply_many(updates, false, out));
        self.joined = true;
        self.adapt_to_size();
    }
}
