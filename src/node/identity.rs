//! What foca calls an identity: one life of a node at one address. Minimal on purpose; everything else about a node is
//! in its record, so that a changed label is not a changed identity.

use std::net::SocketAddr;

use bincode::{Decode, Encode};

use crate::record::NodeId;

/// One life of a node. `Addr` is the node id: a restart or a move is the same node with a higher generation.
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
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    /// Never by foca: a new generation has to be stored first, and is chosen by `Node`.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    /// A strict total order among identities of one node, so that all observers settle on the same one.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}
