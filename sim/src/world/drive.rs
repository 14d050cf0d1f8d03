//! Nodes are driven as the daemon drives them: waiting inputs first, 128 at most, then timers; after each input all
//! effects in order. What a slow or stopped process has not taken yet waits in its machine's buffer.
//!
//! Not here: connections (`exchange`), what a change of a listing means (`truth`).

use std::net::SocketAddr;

use gossipd::node::{Command, Effect, Event, ExchangeError, ExchangeId, Now, Peer};

use super::exchange::Leg;
use super::{HEADER_BYTES, TAPPED_MAX, World};
use crate::brain::Brain;
use crate::host::{Host, HostId, INPUTS_PER_TURN, Input};

/// Least number of inputs between two comparisons of a node's member table with foca's list.
const MIRROR_INPUTS_MIN: u64 = 64;
/// Bytes that the kernel accounts for each datagram beside its payload.
const BUFFER_OVERHEAD_BYTES: usize = 512;

pub(super) enum Happening {
    Wake { host: HostId },
    Turn { host: HostId, life: u64 },
    Datagram { from: HostId, to: SocketAddr, bytes: Vec<u8>, is_mangled: bool },
    Refused { host: HostId, life: u64, to: SocketAddr },
    Segment { call: u64, leg: Leg, try_no: u32, sent_us: u64 },
    Transmit { call: u64, leg: Leg, try_no: u32 },
    Deadline { call: u64 },
    GiveUp { host: HostId, life: u64 },
    Renew { host: HostId, life: u64 },
}

impl World {
    pub(super) fn schedule(&mut self, at_us: u64, happening: Happening) {
        self.queue.push(at_us, happening);
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { host } => self.wake(host),
            Happening::Turn { host, life } => self.turn(host, life),
            Happening::Datagram { from, to, bytes, is_mangled } => self.deliver(from, to, bytes, is_mangled),
            Happening::Refused { host, life, to } => self.arrive_if(host, life, Input::Refused { to }),
            Happening::Segment { call, leg, try_no, sent_us } => self.segment(call, leg, try_no, sent_us),
            Happening::Transmit { call, leg, try_no } => self.transmit(call, leg, try_no),
            Happening::Deadline { call } => self.deadline(call),
            Happening::Renew { host, life } => self.renew_role(host, life),
            Happening::GiveUp { host, life } => {
                if self.host(host).life == life {
                    self.kill(host);
                }
            }
        }
    }

    // ---- inputs --------------------------------------------------------------------------------------------------

    fn wake(&mut self, host: HostId) {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        // Of several wake-ups only the one that was asked for last counts.
        if target.wake_us != Some(now_us) {
            return;
        }
        target.wake_us = None;
        let Host { is_paused, is_busy, under, .. } = *target;
        if is_paused {
            self.hit(under.pause);
        } else if is_busy {
            self.hit(under.slow);
        } else {
            self.timers(host);
        }
    }

    fn timers(&mut self, host: HostId) {
        self.host_mut(host).taken = 0;
        let now_us = self.now_us;
        let is_due = |node: &Brain| node.next_timeout_us().is_some_and(|at_us| at_us <= now_us);
        if self.brain(host).is_some_and(is_due) {
            self.with_node(host, |node, now| node.handle_timeout(now));
        }
        self.set_alarm(host);
    }

    pub(super) fn arrive_if(&mut self, host: HostId, life: u64, input: Input) {
        if self.host(host).life == life && self.lives(host) {
            self.arrive(host, input);
        }
    }

    /// Gives the process on `host` an input, or lets it wait.
    pub(super) fn arrive(&mut self, host: HostId, input: Input) {
        let target = self.host_mut(host);
        if !target.is_paused && !target.is_busy && target.service_us == 0 {
            return self.take(host, input);
        }
        let bytes = match &input {
            Input::Datagram { bytes, .. } => bytes.len() + BUFFER_OVERHEAD_BYTES,
            _ => 0,
        };
        let under = target.under;
        if bytes > 0 && target.inbox_bytes + bytes > target.buffer_bytes {
            self.book.buffer_drops += 1;
            return self.hit(under.starve.or(under.pause).or(under.slow));
        }
        target.inbox_bytes += bytes;
        target.inbox.push_back(input);
        if target.is_paused {
            self.hit(under.pause);
        } else if !target.is_busy {
            self.hit(under.slow);
            self.next_turn(host);
        }
    }

    fn next_turn(&mut self, host: HostId) {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        target.is_busy = true;
        let (at_us, life) = (now_us + target.service_us, target.life);
        self.schedule(at_us, Happening::Turn { host, life });
    }

    /// A process that was busy takes what waits.
    pub(super) fn turn(&mut self, host: HostId, life: u64) {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        if target.life != life || target.is_paused {
            if target.life == life {
                target.is_busy = false;
            }
            return;
        }
        let under = target.under;
        if target.service_us > 0 {
            target.slow_us = now_us;
        }
        if let Some(input) = target.inbox.pop_front() {
            if let Input::Datagram { bytes, .. } = &input {
                target.inbox_bytes = target.inbox_bytes.saturating_sub(bytes.len() + BUFFER_OVERHEAD_BYTES);
            }
            target.taken += 1;
            self.hit(under.slow);
            self.take(host, input);
        }
        let target = self.host_mut(host);
        if target.inbox.is_empty() || target.taken >= INPUTS_PER_TURN {
            self.timers(host);
        }
        let target = self.host_mut(host);
        if target.inbox.is_empty() || target.node.is_none() {
            target.is_busy = false;
            self.set_alarm(host);
        } else {
            self.next_turn(host);
        }
    }

    fn take(&mut self, host: HostId, input: Input) {
        match input {
            Input::Datagram { from, mut bytes, is_mangled } => {
                self.note_delivery(from, host, &bytes);
                if let Some(caught) = self.host_mut(host).tap.as_mut().filter(|caught| caught.len() < TAPPED_MAX) {
                    caught.push(bytes.clone());
                }
                if is_mangled {
                    self.take_mangled(host, bytes);
                } else {
                    self.with_node(host, |node, now| node.handle_datagram(now, &mut bytes));
                }
            }
            Input::Hello { call } => self.greet(host, call),
            Input::Request { call } => self.answer(host, call),
            Input::Write { number, write } => self.take_write(host, number, write),
            Input::Outcome { id, outcome } => self.take_outcome(host, id, outcome),
            Input::Refused { to } => {
                self.with_node(host, |node, now| node.handle_refused(now, to));
            }
        }
    }

    fn take_outcome(&mut self, host: HostId, id: ExchangeId, outcome: Result<(Peer, Vec<u8>), ExchangeError>) {
        if let Ok((_, reply)) = &outcome {
            self.note_delivery(host, host, reply);
        }
        self.with_node(host, |node, now| match &outcome {
            Ok((peer, reply)) => node.handle_reply(now, id, Ok((*peer, reply))),
            Err(error) => node.handle_reply(now, id, Err(*error)),
        });
    }

    /// Bytes that are not what a member sent must change nothing.
    pub(super) fn take_mangled(&mut self, host: HostId, mut bytes: Vec<u8>) {
        let Some(node) = self.brain(host) else { return };
        let (before, revision) = (node.members(), node.revision());
        let dropped: u64 = node.stats().drops().map(|(_, count)| count).sum();
        self.with_node(host, |node, now| node.handle_datagram(now, &mut bytes));
        let Some(node) = self.brain(host) else { return };
        let same = before == node.members() && revision == node.revision();
        let counted = node.stats().drops().map(|(_, count)| count).sum::<u64>() == dropped + 1;
        self.checks.mangled(host, same, counted);
    }

    // ---- effects -------------------------------------------------------------------------------------------------

    /// Gives the node on `host` one input, carries out what it asks for, and sets its alarm.
    pub(super) fn with_node<T>(&mut self, host: HostId, input: impl FnOnce(&mut Brain, Now) -> T) -> Option<T> {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        let now = target.now(now_us);
        let clock = target.under.clock;
        let result = input(target.node.as_mut()?, now);
        self.handled += 1;
        self.hit(clock);
        while let Some(effect) = self.host_mut(host).node.as_mut().and_then(Brain::poll_effect) {
            self.carry_out(host, effect);
        }
        self.follow_identity(host);
        self.follow_tables(host);
        if self.host(host).done {
            self.kill(host);
            return Some(result);
        }
        if self.host(host).is_removed {
            self.obey_removal(host);
            return Some(result);
        }
        if self.handled.is_multiple_of(MIRROR_INPUTS_MIN.max(4 * self.hosts.len() as u64)) {
            self.check_mirror(host);
        }
        self.set_alarm(host);
        Some(result)
    }

    pub(super) fn set_alarm(&mut self, host: HostId) {
        let now_us = self.now_us;
        let target = self.host_mut(host);
        if target.is_paused || target.is_busy {
            return;
        }
        let Some(due_us) = target.node.as_ref().and_then(Brain::next_timeout_us) else { return };
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
                self.checks.persisted(host, grows, generation);
            }
            Effect::Send { to, bytes } => self.send(host, to, bytes),
            Effect::Exchange { id, to, peer, request, patience_ms } => {
                self.call(host, id, to, peer, request, patience_ms);
            }
            Effect::Keep { slot, decision } => {
                self.host_mut(host).kept.insert(slot, decision);
            }
            Effect::Forget { slot } => {
                self.host_mut(host).kept.remove(&slot);
            }
            Effect::KeepTable { step, lives } => {
                self.host_mut(host).kept_tables.keep(&step, &lives);
                self.note_kept(host, &step);
                let now = self.host(host).now(self.now_us);
                if let Some(node) = &mut self.host_mut(host).node {
                    node.handle_command(now, Command::Written(step));
                }
            }
            Effect::Event(event) => {
                match event {
                    Event::LeaveDone { .. } => self.host_mut(host).done = true,
                    Event::Removed(_) => self.host_mut(host).is_removed = true,
                    _ => {}
                }
                self.note_event(host, event);
            }
        }
    }

    fn send(&mut self, from: HostId, to: SocketAddr, mut bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        self.checks.datagram(from, bytes.len());
        self.sent.datagrams += 1;
        self.sent.datagram_bytes += len + HEADER_BYTES;
        let now_us = self.now_us;
        let sender = self.host_mut(from);
        sender.sent_bytes += len + HEADER_BYTES;
        sender.second_bytes += len + HEADER_BYTES;
        let mut leaves_us = now_us;
        let throttle = sender.under.throttle;
        if let Some(rate) = sender.egress_bytes_per_s {
            leaves_us = now_us.max(sender.egress_free_us) + (len + HEADER_BYTES) * 1_000_000 / rate.max(1);
            sender.egress_free_us = leaves_us;
            self.hit(throttle);
        }
        let Some(home) = self.home(to) else { return };
        let passage = self.net.datagram(from, home, &mut bytes);
        let Some(delay_us) = passage.delay_us else { return };
        if let Some(older) = passage.replayed {
            let older = Happening::Datagram { from, to, bytes: older, is_mangled: false };
            self.schedule(leaves_us + delay_us, older);
        }
        if let Some(copy_us) = passage.copy_us {
            let copy = Happening::Datagram { from, to, bytes: bytes.clone(), is_mangled: false };
            self.schedule(leaves_us + copy_us, copy);
        }
        let is_mangled = passage.is_mangled;
        self.schedule(leaves_us + delay_us, Happening::Datagram { from, to, bytes, is_mangled });
    }

    fn deliver(&mut self, from: HostId, to: SocketAddr, bytes: Vec<u8>, is_mangled: bool) {
        let Some(host) = self.home(to) else { return };
        let Host { under, is_up, .. } = *self.host(host);
        if self.net.is_cut(from, host, true) {
            return;
        }
        if !is_up {
            return self.hit(under.death);
        }
        if !self.lives(host) {
            self.hit(under.death);
            // Port unreachable; the kernel of the sender tells its process.
            if let Some(delay_us) = self.net.segment_us(host, from) {
                let life = self.host(from).life;
                self.schedule(self.now_us + delay_us, Happening::Refused { host: from, life, to });
            }
            return;
        }
        self.arrive(host, Input::Datagram { from, bytes, is_mangled });
    }

    pub(super) fn note_delivery(&mut self, from: HostId, to: HostId, bytes: &[u8]) {
        self.trace.number(self.now_us);
        self.trace.number(((from.index() as u64) << 32) | to.index() as u64);
        self.trace.digest(bytes);
    }
}
