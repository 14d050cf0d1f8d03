//! One node as another one knows it.
//!
//! Not here: how that is held of thousands (`table`), or decided (`swim`, `inquiry`).

use std::sync::Arc;

use super::identity::Identity;
use crate::record::decision::Decided;
use crate::record::{Availability, NodeRecord, Role, Status};
use crate::wire::exchange::Liveness;

/// SWIM's view of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swim {
    /// Its life and address.
    pub identity: Identity,
    /// SWIM's incarnation within that life.
    pub incarnation: u16,
    /// What is held of it.
    pub liveness: Liveness,
}

impl Swim {
    /// Whether `update` would change this view: the order of preference of SWIM §4.2, with a higher identity first.
    pub(super) fn yields_to(&self, update: &Self) -> bool {
        if self.identity != update.identity {
            return !self.identity.outranks(&update.identity);
        }
        match (self.liveness, update.liveness) {
            (Liveness::Down, _) => false,
            (_, Liveness::Down) => true,
            (Liveness::Alive, Liveness::Suspect) => update.incarnation >= self.incarnation,
            (Liveness::Alive | Liveness::Suspect, Liveness::Alive) | (Liveness::Suspect, Liveness::Suspect) => {
                update.incarnation > self.incarnation
            }
        }
    }

    /// Counted among the active.
    pub fn is_active(&self) -> bool {
        self.liveness != Liveness::Down
    }
}

/// One node as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// SWIM's view.
    pub swim: Swim,
    /// Status, from SWIM's view and the owner's last word.
    pub status: Status,
    /// Since when it has that status, in milliseconds since the Unix epoch by this node's clock.
    pub since_ms: u64,
    /// The owner's record; none until it has arrived, or when it was written by a version that cannot be read here.
    pub record: Option<Arc<NodeRecord>>,
    /// Monotonic time of the last datagram from it, in microseconds; 0: none yet.
    pub heard_us: u64,
    /// Round trip of the last answered direct probe, in microseconds.
    pub rtt_us: Option<u64>,
    /// It answers over TCP and not over UDP.
    pub tcp_only: bool,
    /// What operators have decided about it.
    pub decided: Arc<Decided>,
}

impl Member {
    /// Its status, and since when.
    pub(super) const fn state(&self) -> (Status, u64) {
        (self.status, self.since_ms)
    }

    /// What it may do: as decided, else as its own record says; none: neither is known.
    pub fn role(&self) -> Option<Role> {
        self.decided.role().or(self.record.as_ref().map(|record| record.role))
    }

    /// Whether it takes tasks: as decided, else as it was started with.
    pub fn availability(&self) -> Option<Availability> {
        self.decided.availability().or(self.record.as_ref().map(|record| record.availability))
    }
}
