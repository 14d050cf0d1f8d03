//! What the table holds of each node, in as few bytes as that takes.
//!
//! Not here: how it changes (`table`).

use std::sync::Arc;

use crate::node::identity::Identity;
use crate::node::member::Swim;
use crate::record::{NodeId, NodeRecord, Status, Version};
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::Liveness;
use crate::wire::index::Named;

/// A record: as it travels, and read. It never changes, so nodes of one process may share it ([`Commons`]).
#[derive(Debug)]
pub(in crate::node) struct Card {
    pub(in crate::node) envelope: RecordEnvelope,
    pub(in crate::node) record: Option<Arc<NodeRecord>>,
    /// [`share`] of its owner in the life that wrote it.
    pub(in crate::node) share: u128,
}

/// A number below 2^24, or none: three bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place([u8; 3]);

impl Place {
    pub(super) const NONE: Self = Self([u8::MAX; 3]);

    pub(super) fn new(place: usize) -> Self {
        let [.., high, mid, low] = place.to_be_bytes();
        Self([high, mid, low])
    }

    pub(super) fn get(self) -> Option<usize> {
        let Self([high, mid, low]) = self;
        (self != Self::NONE).then(|| usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low))
    }
}

/// Milliseconds since the Unix epoch, in six bytes: ten thousand years.
#[derive(Debug, Clone, Copy)]
pub(super) struct Millis([u8; 6]);

impl Millis {
    pub(super) const fn new(ms: u64) -> Self {
        let [_, _, rest @ ..] = ms.to_be_bytes();
        Self(rest)
    }

    pub(super) const fn get(self) -> u64 {
        let Self([a, b, c, d, e, f]) = self;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// All that is held of almost every node, thousands of times: 32 bytes. What only few have is elsewhere ([`Contact`], [`Odd`]).
#[derive(Debug)]
pub(super) struct Entry {
    /// None as long as SWIM has not named it: then there is a card.
    pub(super) life: Option<Arc<Identity>>,
    pub(super) card: Option<Arc<Card>>,
    pub(super) since_ms: Millis,
    pub(super) incarnation: u16,
    /// Its place in [`Table::active`].
    pub(super) active_at: Place,
    /// Its place in [`Table::contacts`].
    pub(super) contact: Place,
    pub(super) liveness: Liveness,
    pub(super) status: Status,
}

impl Named for Entry {
    fn id(&self) -> NodeId {
        let of_card = || self.card.as_ref().map(|card| card.envelope.owner);
        self.life.as_ref().map(|life| life.id).or_else(of_card).unwrap_or(NodeId::from_bytes([0; 16]))
    }
}

impl Entry {
    /// Of nobody.
    pub(super) const fn new(now_ms: u64) -> Self {
        Self {
            life: None,
            card: None,
            since_ms: Millis::new(now_ms),
            incarnation: 0,
            active_at: Place::NONE,
            contact: Place::NONE,
            liveness: Liveness::Down,
            status: Status::Down,
        }
    }

    pub(super) fn swim(&self) -> Option<Swim> {
        let identity = **self.life.as_ref()?;
        Some(Swim { identity, incarnation: self.incarnation, liveness: self.liveness })
    }

    pub(super) fn is_active(&self) -> bool {
        self.life.is_some() && self.liveness != Liveness::Down
    }

    pub(super) fn version(&self) -> Version {
        self.card.as_ref().map(|card| card.envelope.version).unwrap_or_default()
    }

    /// What it adds to [`Table::digest`].
    pub(super) fn share(&self) -> u128 {
        match (&self.life, &self.card) {
            (Some(life), Some(card)) if self.is_active() && card.envelope.version.generation == life.generation => {
                card.share
            }
            (Some(life), _) if self.is_active() => share(life.id, life.generation, self.version()),
            _ => 0,
        }
    }
}

/// What is held of a member that this node was in touch with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    pub(super) heard_us: u64,
    /// Round trip, in microseconds, plus one; 0: none is known.
    pub(super) rtt_us: u32,
    pub(super) tcp_only: bool,
    /// Whose.
    pub(super) entry: Place,
}

/// What is held of few.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Odd {
    /// It has announced that it will be silent until then, on the monotonic clock.
    pub(super) away_until_us: u64,
    /// What was learnt from suspicions about it that were wrong.
    pub(super) errors: Errors,
}

/// How often a node was suspected falsely of late, and who can reach it when others cannot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Errors {
    pub(super) count: u32,
    pub(super) last_us: u64,
    pub(super) voucher: Option<NodeId>,
    /// When a refusal in its name turned out to be false.
    pub(super) refused_us: Option<u64>,
}

/// How long refusals in a node's name are ignored after one that was false, in microseconds.
pub(super) const REFUSALS_IGNORED_US: u64 = 1_000_000;

/// Errors about one node that are remembered, at most.
pub(super) const ERRORS_MAX: u32 = 16;
/// What a false verdict counts, at least: so many more rounds before the next one.
pub(super) const FALSE_DOWN_ERRORS: u32 = 3;
/// After this long, half of them are forgiven, in microseconds.
pub(super) const ERRORS_HALVED_US: u64 = 60_000_000;

/// One node's part of a digest over lives and record versions: a hash, so that the sum over all nodes differs when any
/// part does. Incarnations are left out: under loss they never agree.
pub(in crate::node) fn share(id: NodeId, generation: u64, version: Version) -> u128 {
    let mut bytes = [0; 40];
    let numbers = [generation, version.generation, version.seq].map(u64::to_be_bytes);
    let all = id.as_bytes().iter().chain(numbers.as_flattened());
    bytes.iter_mut().zip(all).for_each(|(slot, byte)| *slot = *byte);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

pub(super) fn status_of(swim: &Swim, card: Option<&Card>) -> Status {
    match swim.liveness {
        Liveness::Alive => Status::Ready,
        Liveness::Suspect => Status::Suspect,
        Liveness::Down => {
            let said_goodbye = card.is_some_and(|card| {
                card.record.as_ref().is_some_and(|record| record.left)
                    && card.envelope.version.generation >= swim.identity.generation
            });
            if said_goodbye { Status::Left } else { Status::Down }
        }
    }
}
