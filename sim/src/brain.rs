//! What runs on a host: the production node, or foca as it comes. The world drives either in the same way.
//!
//! Not here: what either of them does (`gossipd::node`, `baseline`).

use std::net::SocketAddr;
use std::sync::Arc;

use gossipd::node::{
    Command, Commons, Effect, ExchangeError, ExchangeId, Identity, Member, Node, Now, Peer, Start, Stats,
};
use gossipd::record::decision::Decision;

use crate::baseline::Baseline;
use crate::outcome::Protocol;

/// One life of a node under either protocol.
pub(crate) enum Brain {
    /// The production node.
    Gossipd(Box<Node>),
    /// foca.
    Foca(Box<Baseline>),
}

/// The same call on whichever it is.
macro_rules! either {
    ($brain:expr, $node:ident => $call:expr) => {
        match $brain {
            Brain::Gossipd($node) => $call,
            Brain::Foca($node) => $call,
        }
    };
}

impl Brain {
    /// Starts one; foca is told at once how many nodes there will be.
    pub(crate) fn new(protocol: Protocol, start: Start, cluster_size: usize, commons: &Commons, now: Now) -> Self {
        match protocol {
            Protocol::Gossipd => {
                let mut node = Node::new(start, now);
                node.share(commons);
                Self::Gossipd(Box::new(node))
            }
            Protocol::Foca => Self::Foca(Box::new(Baseline::new(start, cluster_size, now))),
        }
    }

    /// The production node, if it is one.
    pub(crate) fn gossipd(&self) -> Option<&Node> {
        match self {
            Self::Gossipd(node) => Some(node),
            Self::Foca(_) => None,
        }
    }

    /// The production node, if it is one, to give it something to do.
    pub(crate) fn gossipd_mut(&mut self) -> Option<&mut Node> {
        match self {
            Self::Gossipd(node) => Some(node),
            Self::Foca(_) => None,
        }
    }

    /// What it holds for decided; foca knows nothing of that.
    pub(crate) fn decisions(&self) -> Vec<Arc<Decision>> {
        self.gossipd().map(Node::decisions).unwrap_or_default()
    }

    pub(crate) fn identity(&self) -> Identity {
        either!(self, node => node.identity())
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        either!(self, node => node.members())
    }

    pub(crate) const fn revision(&self) -> u64 {
        either!(self, node => node.revision())
    }

    pub(crate) fn next_timeout_us(&self) -> Option<u64> {
        either!(self, node => node.next_timeout_us())
    }

    pub(crate) const fn stats(&self) -> &Stats {
        either!(self, node => node.stats())
    }

    pub(crate) fn mirror_errors(&self) -> Vec<String> {
        either!(self, node => node.mirror_errors())
    }

    /// Addresses for its disk; foca's users have none but those that are configured.
    pub(crate) fn contacts(&self) -> Vec<SocketAddr> {
        self.gossipd().map(Node::contacts).unwrap_or_default()
    }

    /// Its queues; foca shows none.
    pub(crate) fn queue_depths(&self) -> Vec<(&'static str, usize)> {
        self.gossipd().map(|node| node.queue_depths().to_vec()).unwrap_or_default()
    }

    pub(crate) fn handle_datagram(&mut self, now: Now, datagram: &mut [u8]) {
        either!(self, node => node.handle_datagram(now, datagram));
    }

    pub(crate) fn handle_refused(&mut self, now: Now, to: SocketAddr) {
        either!(self, node => node.handle_refused(now, to));
    }

    pub(crate) fn handle_command(&mut self, now: Now, command: Command) {
        either!(self, node => node.handle_command(now, command));
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        either!(self, node => node.handle_timeout(now));
    }

    /// The reply; none when the request is refused, or there are no exchanges.
    pub(crate) fn handle_request(&mut self, now: Now, peer: Peer, request: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Gossipd(node) => node.handle_request(now, peer, request).ok(),
            Self::Foca(_) => None,
        }
    }

    pub(crate) fn handle_reply(&mut self, now: Now, id: ExchangeId, outcome: Result<(Peer, &[u8]), ExchangeError>) {
        if let Self::Gossipd(node) = self {
            node.handle_reply(now, id, outcome);
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        either!(self, node => node.poll_effect())
    }
}
