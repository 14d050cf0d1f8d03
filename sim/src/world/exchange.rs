//! Exchanges as connections: connect, greet (TLS), ask; each a round trip whose segments may be lost and are sent again.
//!
//! The kernel of a machine accepts and refuses; greeting and answering need its process. Long replies cost nothing
//! extra: windows and slow start are not modelled.

use std::net::SocketAddr;

use gossipd::node::{ExchangeError, ExchangeId, Peer};
use gossipd::record::NodeId;

use super::World;
use super::drive::Happening;
use crate::host::{Host, HostId, Input};

/// Time to the first repetition of a lost SYN, in microseconds; doubles.
const SYN_AGAIN_US: u64 = 1_000_000;
/// Time to the first repetition of any other lost segment, in microseconds; doubles.
const AGAIN_US: u64 = 200_000;

/// A segment, by what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    Syn,
    SynAck,
    Reset,
    Hello,
    HelloBack,
    Request,
    Reply,
}

impl Leg {
    const fn is_from_asker(self) -> bool {
        matches!(self, Self::Syn | Self::Hello | Self::Request)
    }

    fn again_us(self, try_no: u32) -> u64 {
        let first_us = if matches!(self, Self::Syn | Self::SynAck) { SYN_AGAIN_US } else { AGAIN_US };
        first_us << try_no.min(10)
    }
}

/// One exchange under way.
pub(super) struct Call {
    asker: HostId,
    asker_life: u64,
    id: ExchangeId,
    to: SocketAddr,
    peer: Option<NodeId>,
    request: Vec<u8>,
    deadline_us: u64,
    /// Whose kernel accepted, in which life of its process.
    accepted: Option<(HostId, u64)>,
    reply: Option<(Peer, Vec<u8>)>,
}

impl World {
    /// Begins an exchange.
    pub(super) fn call(
        &mut self,
        asker: HostId,
        id: ExchangeId,
        to: SocketAddr,
        peer: Option<NodeId>,
        request: Vec<u8>,
        patience_ms: u64,
    ) {
        self.sent.exchanges += 1;
        self.count_exchange_bytes(asker, request.len());
        let deadline_us = self.now_us + patience_ms.saturating_mul(1_000);
        self.call_count += 1;
        let call = self.call_count;
        let asker_life = self.host(asker).life;
        let state = Call { asker, asker_life, id, to, peer, request, deadline_us, accepted: None, reply: None };
        self.calls.insert(call, state);
        self.schedule(deadline_us, Happening::Deadline { call });
        self.transmit(call, Leg::Syn, 0);
    }

    fn count_exchange_bytes(&mut self, host: HostId, len: usize) {
        self.sent.exchange_bytes += len as u64;
        self.host_mut(host).sent_bytes += len as u64;
    }

    /// Both ends of a call, as its segments see them: sender, receiver.
    fn ends(&self, call: u64, leg: Leg) -> Option<(HostId, HostId)> {
        let state = self.calls.get(&call)?;
        let other = match state.accepted {
            Some((host, _)) => host,
            None => self.home(state.to)?,
        };
        Some(if leg.is_from_asker() { (state.asker, other) } else { (other, state.asker) })
    }

    /// Sends a segment, or sends it again.
    pub(super) fn transmit(&mut self, call: u64, leg: Leg, try_no: u32) {
        let Some(deadline_us) = self.calls.get(&call).map(|state| state.deadline_us) else { return };
        let now_us = self.now_us;
        let Some((from, to)) = self.ends(call, leg) else {
            // Nobody has that address: ask on, somebody may take it.
            return self.again(call, leg, try_no, now_us, deadline_us);
        };
        if !self.host(from).is_up {
            return;
        }
        match self.net.segment_us(from, to) {
            Some(delay_us) => {
                self.schedule(now_us + delay_us, Happening::Segment { call, leg, try_no, sent_us: now_us });
            }
            None => self.again(call, leg, try_no, now_us, deadline_us),
        }
    }

    fn again(&mut self, call: u64, leg: Leg, try_no: u32, sent_us: u64, deadline_us: u64) {
        let at_us = sent_us + leg.again_us(try_no);
        if at_us < deadline_us && leg != Leg::Reset {
            self.schedule(at_us.max(self.now_us), Happening::Transmit { call, leg, try_no: try_no + 1 });
        }
    }

    /// A segment arrives.
    pub(super) fn segment(&mut self, call: u64, leg: Leg, try_no: u32, sent_us: u64) {
        let Some(deadline_us) = self.calls.get(&call).map(|state| state.deadline_us) else { return };
        let Some((from, to)) = self.ends(call, leg) else { return };
        let Host { is_up, under, .. } = *self.host(to);
        if self.net.is_cut(from, to, false) || !is_up {
            if !is_up {
                self.hit(under.death);
            }
            return self.again(call, leg, try_no, sent_us, deadline_us);
        }
        match leg {
            Leg::Syn if self.lives(to) => {
                let life = self.host(to).life;
                if let Some(state) = self.calls.get_mut(&call) {
                    state.accepted.get_or_insert((to, life));
                }
                self.transmit(call, Leg::SynAck, 0);
            }
            Leg::Syn => {
                self.hit(under.death);
                self.transmit(call, Leg::Reset, 0);
            }
            Leg::Reset => self.settle(call, Err(ExchangeError::Refused)),
            Leg::SynAck => self.transmit(call, Leg::Hello, 0),
            Leg::Hello => self.reach(to, call, Input::Hello { call }),
            Leg::HelloBack => self.greeted(call, from),
            Leg::Request => self.reach(to, call, Input::Request { call }),
            Leg::Reply => {
                let reply = self.calls.get_mut(&call).and_then(|state| state.reply.take());
                self.settle(call, reply.ok_or(ExchangeError::Broken));
            }
        }
    }

    /// Something reaches the process that the call is connected with.
    fn reach(&mut self, host: HostId, call: u64, input: Input) {
        let life = self.calls.get(&call).and_then(|state| state.accepted).map(|(_, life)| life);
        if life == Some(self.host(host).life) && self.lives(host) {
            self.arrive(host, input);
        } else {
            self.settle(call, Err(ExchangeError::Broken));
        }
    }

    pub(super) fn greet(&mut self, _host: HostId, call: u64) {
        self.transmit(call, Leg::HelloBack, 0);
    }

    fn greeted(&mut self, call: u64, other: HostId) {
        let expected = self.calls.get(&call).and_then(|state| state.peer);
        if expected.is_some_and(|peer| peer != self.node_id(other)) {
            return self.settle(call, Err(ExchangeError::WrongPeer));
        }
        self.transmit(call, Leg::Request, 0);
    }

    pub(super) fn answer(&mut self, host: HostId, call: u64) {
        let Some((asker, request)) =
            self.calls.get_mut(&call).map(|state| (state.asker, std::mem::take(&mut state.request)))
        else {
            return;
        };
        self.note_delivery(asker, host, &request);
        let proven = self.peer(asker);
        let reply = self.with_node(host, |node, now| node.handle_request(now, proven, &request));
        match reply {
            Some(Some(bytes)) => {
                self.count_exchange_bytes(host, bytes.len());
                let peer = self.peer(host);
                if let Some(state) = self.calls.get_mut(&call) {
                    state.reply = Some((peer, bytes));
                }
                self.transmit(call, Leg::Reply, 0);
            }
            _ => self.settle(call, Err(ExchangeError::Broken)),
        }
    }

    /// Patience is over.
    pub(super) fn deadline(&mut self, call: u64) {
        let Some(state) = self.calls.get(&call) else { return };
        let error = if state.accepted.is_some() { ExchangeError::Stalled } else { ExchangeError::Unreachable };
        self.settle(call, Err(error));
    }

    fn settle(&mut self, call: u64, outcome: Result<(Peer, Vec<u8>), ExchangeError>) {
        let Some(Call { asker, asker_life, id, .. }) = self.calls.remove(&call) else { return };
        if outcome.is_err() {
            self.book.exchange_failures += 1;
        }
        self.arrive_if(asker, asker_life, Input::Outcome { id, outcome });
    }

    /// The process on `host` ended: what was connected with it breaks off, unless its machine went silent with it.
    pub(super) fn break_calls(&mut self, host: HostId, is_silent: bool) {
        let mine = |call: &Call| call.asker == host;
        self.calls.retain(|_, call| !mine(call));
        if is_silent {
            return;
        }
        let broken: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| call.accepted.is_some_and(|(other, _)| other == host))
            .map(|(number, call)| (*number, call.asker))
            .collect();
        for (call, asker) in broken {
            if !self.net.is_cut(host, asker, false) {
                self.settle(call, Err(ExchangeError::Broken));
            }
        }
    }

    fn peer(&self, host: HostId) -> Peer {
        let Host { node_id, role, .. } = self.host(host);
        Peer { id: *node_id, role: *role }
    }
}
