//! Steps of tables on their way: passed on at once, to everybody once.
//!
//! Whoever writes is responsible for the whole ring of node ids ([`Span`]). It cuts what it is responsible for into as many
//! parts as there are branches, and hands each to the first member in it, together with the step; so on, until nothing is
//! left. So everybody who is attached gets each step once, after a number of hops that grows with the logarithm of their
//! number. Steps of one owner take the same way and keep their order, those of different owners take different ones. Nodes
//! that do not know of the same members do no harm, as a part is cut by whoever gets it; what is lost on the way is found
//! by notices (`hints`) and comparisons (`reconcile`).
//!
//! A process that was stopped finds steps that are as old as it was away: what they bring may be gone since. It takes none
//! of them, and fetches what its senders have now.
//!
//! What is queued is not a step but where it has to begin: when its turn comes, it leads to whatever is newest here. The
//! first one goes out at once; what comes right after it waits for a moment and goes together. The owners take turns, and
//! all together have a budget, in datagrams of their own: membership never waits for a table.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::mutant::Mutant;
use super::stats::Kind;
use super::timers::Timer;
use super::{Cause, Identity, Node, Now};
use crate::node::tables::Refused;
use crate::record::{NodeId, Version};
use crate::wire::codec;
use crate::wire::datagram::Writer;
use crate::wire::table::{Notice, Push, Scope, Sight, Span, Step};

/// Members to whom a node hands parts of what it is responsible for.
const BRANCHES: usize = 4;
/// Bytes of steps that a node sends, each second on average: some ten thousand changes.
const BYTES_PER_S: u64 = 16 * 1024 * 1024;
/// Bytes that it may send at once after it was silent.
const BURST_BYTES: u64 = 2 * 1024 * 1024;
/// Steps that wait: one for each table that is written to, and a few more.
const QUEUE_MAX: usize = 16_384;
/// Datagrams that one datagram full of wants draws, at most; whoever wants more asks again.
pub(super) const ANSWERS_MAX: usize = 8;
/// Bytes of a span, at most.
const SPAN_BYTES_MAX: usize = 1 + 9;

/// What is to be passed on.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// From which version on, by table and to whom.
    queue: BTreeMap<(NodeId, Scope, Span), Version>,
    /// Whose turn it was last.
    served: Option<NodeId>,
    due_us: Option<u64>,
    sent_us: u64,
    credit_bytes: u64,
    credited_us: u64,
}

impl Lane {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The budget grows with time.
    fn refill(&mut self, now: Now) {
        let passed_us = now.mono_us.saturating_sub(self.credited_us);
        let earned = passed_us.saturating_mul(BYTES_PER_S) / 1_000_000;
        self.credit_bytes = self.credit_bytes.saturating_add(earned).min(BURST_BYTES);
        self.credited_us = now.mono_us;
    }

    /// What waits, beginning with the owner after the one who was served last.
    fn in_turn(&self) -> Vec<(NodeId, Scope, Span)> {
        let Some(served) = self.served else { return self.queue.keys().copied().collect() };
        let last = Scope::Network(crate::record::network::NetworkId::from_bytes([u8::MAX; 16]));
        let after = (served, last, Span(u64::MAX));
        let later = self.queue.range((Bound::Excluded(after), Bound::Unbounded));
        let rest = self.queue.range(..=after);
        later.chain(rest).map(|(key, _)| *key).collect()
    }
}

/// What goes to one member.
struct Parcel {
    to: Identity,
    body: Vec<u8>,
    notices: Vec<Notice>,
}

impl Node {
    /// Steps have arrived.
    pub(super) fn pushed(&mut self, now: Now, sender: NodeId, pushes: Vec<Push>) {
        let are_stale = self.was_stopped(now);
        for Push { span, step } in pushes {
            let (scope, owner, since, to) = (step.scope, step.owner, step.since, step.to());
            if are_stale {
                self.lack(now, sender, Sight { scope, owner, version: to }, true);
                continue;
            }
            let copy = span.is_some().then(|| step.clone());
            let taken = self.take_step(now, sender, step, Cause::Gossip);
            let Some((span, step)) = span.zip(copy) else { continue };
            let is_held = self.holdings.tables.has_seen(scope, owner, to);
            match taken {
                Ok(_) if is_held => self.push(now, (scope, owner), span, since),
                // Others may be able to do something with it.
                Ok(_) | Err(Refused::UnknownOwner | Refused::NotAttached) => self.pass_on(now, &step, span),
                Err(_) => {}
            }
        }
    }

    /// Queues what is to be passed on to everybody in a span.
    pub(super) fn push(&mut self, now: Now, (scope, owner): (Scope, NodeId), span: Span, since: Version) {
        if self.config.has(Mutant::HoardSteps) {
            return;
        }
        let lane = &mut self.holdings.lane;
        let key = (owner, scope, span);
        let is_full = lane.queue.len() >= QUEUE_MAX;
        match lane.queue.get_mut(&key) {
            Some(queued) => *queued = since.min(*queued),
            None if !is_full => {
                lane.queue.insert(key, since);
            }
            None => self.stats.steps_unsent += 1,
        }
        let coalesce_us = self.config.coalesce_ms * 1_000;
        let due_us = now.mono_us.max(lane.sent_us + coalesce_us);
        if lane.due_us.is_none_or(|armed_us| due_us < armed_us) {
            lane.due_us = Some(due_us);
            self.timers.submit(due_us, Timer::Push);
        }
    }

    pub(super) fn push_timer(&mut self, now: Now) {
        let lane = &mut self.holdings.lane;
        if lane.due_us.take_if(|due_us| *due_us <= now.mono_us).is_none() {
            return;
        }
        lane.sent_us = now.mono_us;
        lane.refill(now);
        let mut parcels = BTreeMap::new();
        for (owner, scope, span) in self.holdings.lane.in_turn() {
            if self.holdings.lane.credit_bytes == 0 {
                break;
            }
            self.holdings.lane.served = Some(owner);
            let Some(since) = self.holdings.lane.queue.remove(&(owner, scope, span)) else { continue };
            if let Some(step) = self.holdings.tables.step(scope, owner, since) {
                self.load(&step, span, &mut parcels);
            }
        }
        for parcel in parcels.into_values() {
            self.send_parcel(parcel);
        }
        if !self.holdings.lane.queue.is_empty() {
            let due_us = now.mono_us + self.config.coalesce_ms * 1_000;
            self.holdings.lane.due_us = Some(due_us);
            self.timers.submit(due_us, Timer::Push);
        }
    }

    /// Passes a step on as it came.
    fn pass_on(&mut self, now: Now, step: &Step, span: Span) {
        self.holdings.lane.refill(now);
        let mut parcels = BTreeMap::new();
        if self.holdings.lane.credit_bytes > 0 {
            self.load(step, span, &mut parcels);
        }
        for parcel in parcels.into_values() {
            self.send_parcel(parcel);
        }
    }

    /// Puts a step into the parcels of those who pass it on.
    fn load(&mut self, step: &Step, span: Span, parcels: &mut BTreeMap<NodeId, Parcel>) {
        let bytes = self.encode_step(step);
        for (to, span) in self.delegates(step.scope, step.owner, span) {
            let parcel = parcels.entry(to.id).or_insert_with(|| Parcel { to, body: Vec::new(), notices: Vec::new() });
            let Some(bytes) = &bytes else {
                parcel.notices.push(notice_of(step, span));
                continue;
            };
            if parcel.body.len() + SPAN_BYTES_MAX + bytes.len() > self.config.section_bytes_max() {
                let body = std::mem::take(&mut parcel.body);
                self.send_parcel(Parcel { to, body, notices: Vec::new() });
            }
            Push::append(span, bytes, &mut parcel.body);
        }
    }

    fn send_parcel(&mut self, parcel: Parcel) {
        let Parcel { to, body, notices } = parcel;
        let room = self.config.payload_bytes_max();
        let mut writer = Writer::new(room);
        if !body.is_empty() {
            writer.steps(&body);
            let credit_bytes = &mut self.holdings.lane.credit_bytes;
            *credit_bytes = credit_bytes.saturating_sub(body.len() as u64);
        }
        let mut rest = notices.as_slice();
        loop {
            let told = writer.notices(rest);
            rest = rest.get(told..).unwrap_or_default();
            let is_stuck = writer.is_empty();
            self.send_payload(to, Kind::Tables, std::mem::replace(&mut writer, Writer::new(room)));
            if rest.is_empty() || is_stuck {
                return;
            }
        }
    }

    /// A step's bytes; none: it does not fit into a datagram.
    fn encode_step(&self, step: &Step) -> Option<Vec<u8>> {
        let room = self.config.section_bytes_max().saturating_sub(SPAN_BYTES_MAX);
        let bytes = (step.weight() / 2 <= room).then(|| codec::encode(step))?;
        (bytes.len() <= room).then_some(bytes)
    }

    /// Sends steps to a member that has asked for them, as many as fit into a few datagrams; of large ones notices.
    pub(super) fn send_steps(&mut self, to: Identity, steps: &[Step], datagrams_max: usize) {
        let room = self.config.section_bytes_max();
        let mut parcels = vec![Parcel { to, body: Vec::new(), notices: Vec::new() }];
        for step in steps {
            let bytes = self.encode_step(step);
            let Some(parcel) = parcels.last_mut() else { return };
            let Some(bytes) = bytes else {
                parcel.notices.push(notice_of(step, None));
                continue;
            };
            if parcel.body.len() + SPAN_BYTES_MAX + bytes.len() <= room {
                Push::append(None, &bytes, &mut parcel.body);
            } else if parcels.len() < datagrams_max {
                let mut body = Vec::new();
                Push::append(None, &bytes, &mut body);
                parcels.push(Parcel { to, body, notices: Vec::new() });
            }
        }
        for parcel in parcels {
            self.send_parcel(parcel);
        }
    }

    /// Members that tables of a scope go to, this node not among them.
    pub(super) fn audience(&self, scope: Scope) -> Vec<Identity> {
        let identity = |id: NodeId| self.table.get(id).map(|member| member.swim).filter(super::Swim::is_active);
        match scope {
            Scope::Attachments => self.table.iter_active().map(|member| member.swim.identity).collect(),
            Scope::Network(network) => {
                self.holdings.tables.attached(network).filter_map(identity).map(|swim| swim.identity).collect()
            }
        }
    }

    /// Who gets which part of a span: each part goes to the first in it.
    fn delegates(&self, scope: Scope, owner: NodeId, span: Span) -> Vec<(Identity, Option<Span>)> {
        let me = self.identity().id;
        let others = self.audience(scope).into_iter().filter(|peer| peer.id != owner);
        let mut inside: Vec<_> = others.filter_map(|peer| Some((span.depth(me, peer.id)?, peer))).collect();
        inside.sort_unstable_by_key(|(depth, peer)| (*depth, peer.id));
        let size = inside.len().div_ceil(BRANCHES).max(1);
        let mut parts = inside.chunks(size).peekable();
        let mut delegates = Vec::with_capacity(BRANCHES);
        while let Some(part) = parts.next() {
            let next = parts.peek().and_then(|next| next.first());
            let until = next.map_or(span, |(_, peer)| Span::up_to(peer.id));
            if let Some((_, first)) = part.first() {
                delegates.push((*first, (part.len() > 1).then_some(until)));
            }
        }
        delegates
    }
}

fn notice_of(step: &Step, span: Option<Span>) -> Notice {
    Notice { scope: step.scope, owner: step.owner, version: step.to(), is_large: true, span }
}
