//! What foca calls an identity: one life of a node at one address. Minimal on purpose; everything else about a node is
//! in its record, so that a changed label is not a changed identity.

use std::net::SocketAddr;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::record::NodeId;

/// One life of a node: a restart or a move is the same node with a higher generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The node.
    pub id: NodeId,
    /// Its life.
    pub generation: u64,
    /// Where that life listens, UDP and TCP.
    pub addr: SocketAddr,
}

impl Identity {
    fn rank(&self) -> (u64, SocketAddr) {
        (self.generation, self.addr)
    }

    /// A strict total order among identities of one node, so that all observers settle on the same one.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

/// An identity as foca keeps it of each member: what it compares all the time, and a pointer to the rest.
#[derive(Debug, Clone)]
pub(super) struct Life {
    id: NodeId,
    identity: Arc<Identity>,
}

impl Life {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self { id: identity.id, identity }
    }

    pub(super) fn identity(&self) -> Identity {
        *self.identity
    }
}

impl From<Identity> for Life {
    fn from(identity: Identity) -> Self {
        Self::new(Arc::new(identity))
    }
}

impl PartialEq for Life {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && (Arc::ptr_eq(&self.identity, &other.identity) || self.identity == other.identity)
    }
}

impl Eq for Life {}

impl foca::Identity for Life {
    type Addr = NodeId;

    /// Never by foca: a new generation has to be stored first, and is chosen by `Node`.
    fn renew(&self) -> Option<Self> {
        None
    }

    #[inline]
    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.identity.outranks(&adversary.identity)
    }
}
