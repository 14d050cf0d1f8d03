//! What happens in a world, one thing at a time. Nodes are driven as the daemon drives them: one input, then all effects
//! in order, then asleep until the next deadline. Every delivery and every event goes into the trace, and is checked on
//! the way.
//!
//! Not here: who decides that something is to happen (`World`'s public methods).

use std::net::SocketAddr;

use gossipd::node::{Effect, Event, ExchangeError, ExchangeId, Member, Node, Now, Peer};
use gossipd::record::NodeId;

use super::{EXCHANGE_TIMEOUT_US, MIRROR_EVENTS_MIN, TAPPED_MAX, World};
use crate::host::{Host, HostId};
use crate::view::{Row, Sighting};

/// Who waits for the outcome of an exchange.
#[derive(Clone, Copy)]
pub(super) struct Call {
    asker: HostId,
    life: u64,
    id: ExchangeId,
}

pub(super) enum Happening {
    Wake { host: HostId },
    Datagram { from: HostId, to: SocketAddr, bytes: Vec<u8> },
    Request { call: Call, to: SocketAddr, peer: Option<NodeId>, request: Vec<u8> },
    Reply { call: Call, from: HostId, reply: Vec<u8> },
    Failure { call: Call, error: ExchangeError },
}

impl World {
    fn schedule(&mut self, at_us: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((at_us, self.scheduled), happening);
    }

    pub(super) fn pass_time(&mut self, to_us: u64) {
        let passed_us = to_us.saturating_sub(self.now_us);
        if passed_us > 0 {
            self.sent.alive_us += passed_us * self.homes.len() as u64;
            self.now_us = to_us;
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { host } => self.wake(host),
            Happening::Datagram { from, to, bytes } => self.deliver(from, to, bytes),
            Happening::Request { call, to, peer, request } => self.request(call, to, peer, &request),
            Happening::Reply { call, from, reply } => self.reply(call, from, &reply),
            Happening::Failure { call, error } => self.outcome(call, Err(error)),
        }
    }

    fn wake(&mut self, host: HostId) {
        let now_us = self.now_us;
        // Of several wake-ups only the one that was asked for last counts.
        if self.host(host).wake_us != Some(now_us) {
            return;
        }
        self.host_mut(host).wake_us = None;
        self.with_node(host, |node, now| {
            if node.next_timeout_us().is_some_and(|at_us| at_us <= now.mono_us) {
                node.handle_timeout(now);
            }
        });
    }

    fn deliver(&mut self, from: HostId, to: SocketAddr, mut bytes: Vec<u8>) {
        let Some(&host) = self.homes.get(&to) else { return };
        if self.net.is_cut(from, host) {
            return;
        }
        self.note_delivery(from, host, &bytes);
        if let Some(caught) = self.host_mut(host).tap.as_mut().filter(|caught| caught.len() < TAPPED_MAX) {
            caught.push(bytes.clone());
        }
        self.with_node(host, |node, now| node.handle_datagram(now, &mut bytes));
    }

    fn request(&mut self, call: Call, to: SocketAddr, peer: Option<NodeId>, request: &[u8]) {
        let Call { asker, .. } = call;
        let back_us = self.now_us + self.net.exchange_us(asker);
        let timeout_us = self.now_us + EXCHANGE_TIMEOUT_US;
        let fail = |error| Happening::Failure { call, error };
        let Some(&host) = self.homes.get(&to) else {
            return self.schedule(back_us, fail(ExchangeError::Unreachable));
        };
        if self.net.is_cut(asker, host) || self.net.is_cut(host, asker) {
            return self.schedule(timeout_us, fail(ExchangeError::Unreachable));
        }
        if peer.is_some_and(|peer| peer != self.node_id(host)) {
            return self.schedule(back_us, fail(ExchangeError::WrongPeer));
        }
        self.note_delivery(asker, host, request);
        let proven = self.peer(asker);
        let reply = self.with_node(host, |node, now| node.handle_request(now, proven, request));
        match reply {
            Some(Ok(reply)) => {
                self.sent.exchange_bytes += reply.len() as u64;
                self.schedule(back_us, Happening::Reply { call, from: host, reply });
            }
            _ => self.schedule(back_us, fail(ExchangeError::Broken)),
        }
    }

    fn reply(&mut self, call: Call, from: HostId, reply: &[u8]) {
        if self.net.is_cut(from, call.asker) {
            let at_us = self.now_us + EXCHANGE_TIMEOUT_US;
            return self.schedule(at_us, Happening::Failure { call, error: ExchangeError::Broken });
        }
        self.note_delivery(from, call.asker, reply);
        let peer = self.peer(from);
        self.outcome(call, Ok((peer, reply)));
    }

    fn outcome(&mut self, call: Call, outcome: Result<(Peer, &[u8]), ExchangeError>) {
        let Call { asker, life, id } = call;
        if self.host(asker).life == life {
            self.with_node(asker, |node, now| node.handle_reply(now, id, outcome));
        }
    }

    /// Gives the node on `host` one input, carries out what it asks for, and sets its alarm.
    pub(super) fn with_node<T>(&mut self, host: HostId, input: impl FnOnce(&mut Node, Now) -> T) -> Option<T> {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        let now = target.now(now_us);
        let result = input(target.node.as_mut()?, now);
        self.handled += 1;
        while let Some(effect) = self.host_mut(host).node.as_mut().and_then(Node::poll_effect) {
            self.carry_out(host, effect);
        }
        if self.host(host).done {
            self.crash(host);
            return Some(result);
        }
        if self.handled.is_multiple_of(MIRROR_EVENTS_MIN.max(self.hosts.len() as u64)) {
            self.check_mirror(host);
        }
        self.set_alarm(host);
        Some(result)
    }

    pub(super) fn set_alarm(&mut self, host: HostId) {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        let Some(due_us) = target.node.as_ref().and_then(Node::next_timeout_us) else { return };
        let due_us = due_us.max(now_us);
        if target.wake_us.is_none_or(|wake_us| due_us < wake_us) {
            target.wake_us = Some(due_us);
            self.schedule(due_us, Happening::Wake { host });
        }
    }

    fn carry_out(&mut self, host: HostId, effect: Effect) {
        match effect {
            Effect::PersistGeneration(generation) => {
                let target = self.host_mut(host);
                let grows = generation > target.disk;
                target.disk = target.disk.max(generation);
                self.checks.that("persisted generations grow", grows, || format!("{host}: {generation}"));
            }
            Effect::Send { to, bytes } => self.send(host, to, bytes),
            Effect::Exchange { id, to, peer, request, patience_ms: _ } => {
                self.sent.exchanges += 1;
                self.sent.exchange_bytes += request.len() as u64;
                let call = Call { asker: host, life: self.host(host).life, id };
                let at_us = self.now_us + self.net.exchange_us(host);
                self.schedule(at_us, Happening::Request { call, to, peer, request });
            }
            Effect::Event(event) => self.note_event(host, event),
        }
    }

    fn send(&mut self, from: HostId, to: SocketAddr, bytes: Vec<u8>) {
        let (len, cap) = (bytes.len(), self.config.datagram_bytes_max);
        self.checks.that("no datagram above the cap", len <= cap, || format!("{from}: {len} bytes, cap {cap}"));
        self.sent.datagrams += 1;
        self.sent.datagram_bytes += len as u64;
        let Some(delay_us) = self.net.datagram_us(from) else { return };
        if self.homes.get(&to).is_some_and(|host| self.net.is_cut(from, *host)) {
            return;
        }
        self.schedule(self.now_us + delay_us, Happening::Datagram { from, to, bytes });
    }

    // ---- notes and checks ----------------------------------------------------------------------------------------

    fn note_delivery(&mut self, from: HostId, to: HostId, bytes: &[u8]) {
        self.trace.number(self.now_us);
        self.trace.number(from.index() as u64);
        self.trace.number(to.index() as u64);
        self.trace.bytes(bytes);
    }

    fn note_event(&mut self, observer: HostId, event: Event) {
        self.trace.number(self.now_us);
        self.trace.number(observer.index() as u64);
        self.trace.event(&event);
        match event {
            Event::Member { revision, old, new, .. } => {
                let follows = self.host_mut(observer).view.follow(revision);
                self.checks.that("revisions grow by one", follows, || format!("{observer}: {revision}"));
                self.note_member(observer, old.as_deref(), new.as_deref());
            }
            Event::LeaveDone { .. } => self.host_mut(observer).done = true,
            Event::Joined { .. } | Event::Health(_) => {}
            Event::IdentityConflict { addr, generation, gives_way } => {
                let is_real = self.rivals.contains(&observer);
                self.checks.that("no identity conflict without a clone", is_real, || {
                    format!("{observer}: {generation} at {addr:?}")
                });
                self.conflicts.push((observer, gives_way));
            }
        }
    }

    fn note_member(&mut self, observer: HostId, old: Option<&Member>, new: Option<&Member>) {
        let Some(id) = new.or(old).map(|member| member.swim.identity.id) else { return };
        if id == self.node_id(observer) {
            return;
        }
        let (told, row) = (old.map(Row::from), new.map(Row::from));
        let before = self.host_mut(observer).view.put(id, row.clone());
        self.checks.that("events say what was before", told == before, || {
            format!("{observer} about {id}: told {told:?}, was {before:?}")
        });
        let Some(&subject) = self.ids.get(&id) else {
            return self.checks.that("every member was really born", false, || format!("{observer} lists {id}"));
        };
        let key = |row: &Row| (row.identity.generation, row.identity.addr);
        if let (Some(before), Some(row)) = (&before, &row) {
            self.checks.that("lives never fall", key(before) <= key(row), || format!("{observer} about {subject}"));
        }
        let seen = |row: &Row| (row.status, row.identity);
        let Some(latest) = row.as_ref().or(before.as_ref()) else { return };
        if before.as_ref().map(seen) != row.as_ref().map(seen) {
            let sighting = Sighting {
                at_us: self.now_us,
                observer,
                subject,
                generation: latest.identity.generation,
                old: before.as_ref().map(|row| row.status),
                new: row.as_ref().map(|row| row.status),
                subject_lives: self.lives(subject),
            };
            self.sightings.push(sighting);
        }
    }

    pub(super) fn check_mirror(&mut self, id: HostId) {
        let Some(errors) = self.node(id).map(Node::mirror_errors) else { return };
        let now_us = self.now_us;
        self.checks.that("member tables mirror foca", errors.is_empty(), || {
            format!("{id} at {now_us} µs: {}", errors.join("; "))
        });
    }

    fn peer(&self, host: HostId) -> Peer {
        let Host { node_id, role, .. } = self.host(host);
        Peer { id: *node_id, role: *role }
    }
}
