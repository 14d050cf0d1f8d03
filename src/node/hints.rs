//! What the pushes of steps have missed: who says what it has, and who asks for what it lacks.
//!
//! Whoever has taken a step in tells a few random members which version it has, after a moment (the step itself is faster)
//! and twice more. Whoever finds that it lacks something asks the one who has said so, unless it arrives meanwhile; so does
//! whoever gets a step whose predecessor is missing. A step that does not fit into a datagram is fetched over TLS, and
//! passed on by whoever has fetched it.
//!
//! A notice has some 50 bytes; of many only the newest version of each table is told. What all of them have missed is found
//! by comparing (`reconcile`).

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::health::LATE_US;
use super::push::ANSWERS_MAX;
use super::stats::Kind;
use super::timers::Timer;
use super::{Identity, Node, Now, Purpose};
use crate::record::NodeId;
use crate::wire::datagram::Writer;
use crate::wire::exchange::Request;
use crate::wire::table::{Notice, Scope, Sight, Span, TableRequest, Want};

/// Time before the first round of notices, in microseconds; it doubles with each round.
const ROUND_US: u64 = 20_000;
/// Rounds of notices about one version.
const ROUNDS: u32 = 3;
/// Members who are told in one round.
const TOLD_AT_ONCE: usize = 3;
/// Tables of which notices are to be given, at most.
const NOTICES_MAX: usize = 16_384;
/// Notices to one member in one round, at most: a datagram full, and the rest is told in the next.
const NOTICES_AT_ONCE: usize = 20;
/// Time before something is asked for of which a notice came, in microseconds: it may be on its way.
const LACK_US: u64 = 4_000;
/// Time before it is asked for again, in microseconds.
const AGAIN_US: u64 = 25_000;
/// How often it is asked for after one notice.
const TRIES: u32 = 4;
/// Tables that may be missing something at a time.
const LACKS_MAX: usize = 4_096;
/// Spans that wait for one table to be fetched.
const SPANS_MAX: usize = 8;
/// How long a process that was stopped takes for what waits in its buffer, in microseconds.
const STALE_US: u64 = 50_000;
/// How long fetching a large step may take, in milliseconds.
const FETCH_PATIENCE_MS: u64 = 3_000;

/// A table of which others are to be told.
#[derive(Debug)]
struct Told {
    round: u32,
    due_us: u64,
}

/// A table that is behind.
#[derive(Debug)]
struct Lack {
    sight: Sight,
    /// Who has it.
    from: NodeId,
    is_large: bool,
    /// Who is being asked for it over TLS.
    asked: Option<NodeId>,
    due_us: u64,
    tries: u32,
    /// Whom it is to be passed on to.
    spans: Vec<Span>,
}

/// Notices to be given, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Hints {
    told: BTreeMap<(Scope, NodeId), Told>,
    told_due_us: Option<u64>,
    lacks: BTreeMap<(Scope, NodeId), Lack>,
    lacks_due_us: Option<u64>,
    /// Until then datagrams may be as old as this process was stopped.
    stale_until_us: u64,
}

impl Hints {
    pub(super) fn notices(&self) -> usize {
        self.told.len()
    }

    pub(super) fn lacks(&self) -> usize {
        self.lacks.len()
    }
}

impl Node {
    // ---- telling -----------------------------------------------------------------------------------------------------

    /// A version was taken in: others may lack it, and nothing up to it is missing here any more.
    pub(super) fn settled(&mut self, now: Now, sight: Sight) {
        let place = (sight.scope, sight.owner);
        if let Some(lack) = self.holdings.hints.lacks.get(&place)
            && lack.sight.version <= sight.version
            && let Some(lack) = self.holdings.hints.lacks.remove(&place)
        {
            for span in lack.spans {
                self.push(now, place, span, crate::record::Version::NONE);
            }
        }
        if !self.joined {
            return;
        }
        let told = &mut self.holdings.hints.told;
        let is_full = told.len() >= NOTICES_MAX;
        let due_us = now.mono_us + ROUND_US + self.rng.random_range(0..=ROUND_US / 4);
        match told.get_mut(&place) {
            Some(told) => *told = Told { round: 0, due_us: due_us.min(told.due_us) },
            None if !is_full => {
                told.insert(place, Told { round: 0, due_us });
            }
            None => {}
        }
        self.arm_notices(due_us);
    }

    fn arm_notices(&mut self, due_us: u64) {
        if self.holdings.hints.told_due_us.is_none_or(|armed_us| due_us < armed_us) {
            self.holdings.hints.told_due_us = Some(due_us);
            self.timers.submit(due_us, Timer::Notify);
        }
    }

    pub(super) fn notify_timer(&mut self, now: Now) {
        let hints = &mut self.holdings.hints;
        if hints.told_due_us.take_if(|due_us| *due_us <= now.mono_us).is_none() {
            return;
        }
        let mut by_scope: BTreeMap<Scope, Vec<NodeId>> = BTreeMap::new();
        for ((scope, owner), told) in &mut hints.told {
            let due = by_scope.entry(*scope).or_default();
            if told.due_us <= now.mono_us && due.len() < NOTICES_AT_ONCE {
                due.push(*owner);
                told.round += 1;
                told.due_us = now.mono_us + (ROUND_US << told.round);
            }
        }
        hints.told.retain(|_, told| told.round < ROUNDS);
        let next_us = hints.told.values().map(|told| told.due_us).min();
        if let Some(next_us) = next_us {
            self.arm_notices(next_us.max(now.mono_us + ROUND_US));
        }
        for (scope, owners) in by_scope.into_iter().filter(|(_, owners)| !owners.is_empty()) {
            let tables = &self.holdings.tables;
            let notice = |owner: &NodeId| {
                let version = tables.version(scope, *owner);
                Notice { scope, owner: *owner, version, is_large: false, span: None }
            };
            let notices: Vec<_> = owners.iter().map(notice).collect();
            for to in self.choose_of(self.audience(scope), TOLD_AT_ONCE) {
                let mut writer = Writer::new(self.config.payload_bytes_max());
                writer.notices(&notices);
                self.send_payload(to, Kind::Tables, writer);
            }
        }
    }

    /// `count` of these by chance.
    pub(super) fn choose_of(&mut self, mut from: Vec<Identity>, count: usize) -> Vec<Identity> {
        let me = self.identity().id;
        from.retain(|peer| peer.id != me);
        let (chosen, _) = rand::seq::SliceRandom::partial_shuffle(from.as_mut_slice(), &mut self.rng, count);
        chosen.to_vec()
    }

    /// Somebody says what it has.
    pub(super) fn noticed(&mut self, now: Now, sender: NodeId, notices: &[Notice]) {
        let me = self.identity().id;
        for Notice { scope, owner, version, is_large, span } in notices.iter().copied() {
            let sight = Sight { scope, owner, version };
            if owner == me && version > self.holdings.tables.version(scope, owner) {
                self.reassert(now, scope, version);
            } else if self.holdings.tables.has_seen(scope, owner, version) {
                span.into_iter().for_each(|span| self.push(now, (scope, owner), span, crate::record::Version::NONE));
            } else {
                self.lack(now, sender, sight, is_large);
                if let Some(span) = span
                    && let Some(lack) = self.holdings.hints.lacks.get_mut(&(scope, owner))
                    && lack.spans.len() < SPANS_MAX
                {
                    lack.spans.push(span);
                }
            }
        }
    }

    /// The process was stopped: what waits in its buffer is old.
    pub(super) fn distrust_buffer(&mut self, now: Now) {
        self.holdings.hints.stale_until_us = now.mono_us + STALE_US;
    }

    /// May a datagram that is taken in now have waited for long? Timers wait until after the first of them.
    pub(super) fn was_stopped(&mut self, now: Now) -> bool {
        let overdue_us = self.timers.next_us().map_or(0, |due_us| now.mono_us.saturating_sub(due_us));
        if overdue_us > LATE_US {
            self.distrust_buffer(now);
        }
        now.mono_us < self.holdings.hints.stale_until_us
    }

    // ---- asking ------------------------------------------------------------------------------------------------------

    /// `from` has something that is not here.
    pub(super) fn lack(&mut self, now: Now, from: NodeId, sight: Sight, is_large: bool) {
        let place = (sight.scope, sight.owner);
        if !self.is_credible(now, sight.version) || !self.holdings.tables.lacks(sight.scope, sight.owner, sight.version)
        {
            return;
        }
        let lacks = &mut self.holdings.hints.lacks;
        let is_full = lacks.len() >= LACKS_MAX;
        let due_us = now.mono_us + if is_large { 0 } else { LACK_US };
        let due_us = match lacks.get_mut(&place) {
            // What is being fetched is on its way. Once it is here the rest is asked for, of whoever has it.
            Some(lack) if lack.asked.is_some() => {
                if sight > lack.sight {
                    (lack.sight, lack.from, lack.tries) = (sight, from, 0);
                }
                return;
            }
            Some(lack) => {
                let is_late = lack.due_us > due_us && (is_large || lack.tries == 0);
                *lack = Lack {
                    sight: lack.sight.max(sight),
                    from,
                    is_large,
                    asked: None,
                    due_us: if is_late { due_us } else { lack.due_us },
                    tries: if is_large { 0 } else { lack.tries.min(TRIES - 1) },
                    spans: std::mem::take(&mut lack.spans),
                };
                lack.due_us
            }
            None if !is_full => {
                lacks.insert(place, Lack { sight, from, is_large, asked: None, due_us, tries: 0, spans: Vec::new() });
                due_us
            }
            None => return,
        };
        self.arm_lacks(due_us);
    }

    fn arm_lacks(&mut self, due_us: u64) {
        if self.holdings.hints.lacks_due_us.is_none_or(|armed_us| due_us < armed_us) {
            self.holdings.hints.lacks_due_us = Some(due_us);
            self.timers.submit(due_us, Timer::Lacks);
        }
    }

    pub(super) fn lacks_timer(&mut self, now: Now) {
        let Hints { lacks, lacks_due_us, .. } = &mut self.holdings.hints;
        if lacks_due_us.take_if(|due_us| *due_us <= now.mono_us).is_none() {
            return;
        }
        let tables = &self.holdings.tables;
        lacks.retain(|(scope, owner), lack| lack.tries < TRIES && tables.lacks(*scope, *owner, lack.sight.version));
        let (mut small, mut large): (BTreeMap<NodeId, Vec<Want>>, BTreeMap<NodeId, Vec<Want>>) = Default::default();
        for ((scope, owner), lack) in lacks.iter_mut().filter(|(_, lack)| lack.due_us <= now.mono_us) {
            lack.tries += 1;
            lack.asked = lack.is_large.then_some(lack.from);
            lack.due_us = now.mono_us + if lack.is_large { FETCH_PATIENCE_MS * 1_000 } else { AGAIN_US };
            let wants = if lack.is_large { &mut large } else { &mut small };
            let since = tables.version(*scope, *owner);
            wants.entry(lack.from).or_default().push(Want { scope: *scope, owner: *owner, since });
        }
        if let Some(next_us) = lacks.values().map(|lack| lack.due_us).min() {
            self.arm_lacks(next_us);
        }
        let known: BTreeSet<_> = small.keys().chain(large.keys()).copied().collect();
        for id in known {
            let Some(to) = self.table.get(id).map(|member| member.swim.identity) else {
                self.fetched(now, id);
                continue;
            };
            if let Some(wants) = small.get(&id) {
                let mut writer = Writer::new(self.config.payload_bytes_max());
                writer.steps_wanted(wants);
                self.send_payload(to, Kind::Tables, writer);
            }
            if let Some(wants) = large.remove(&id) {
                let request = Request::Tables(TableRequest::Fetch { wants, steps: Vec::new() });
                if !self.exchange(to.addr, Some(id), Purpose::Lacks(id), &request, FETCH_PATIENCE_MS) {
                    self.fetched(now, id);
                }
            }
        }
    }

    /// What was asked of `peer` over TLS is here, or does not come. What is still missing is asked for again: of somebody else
    /// who has it at once, of the same one after a while.
    pub(super) fn fetched(&mut self, now: Now, peer: NodeId) {
        let lacks = self.holdings.hints.lacks.values_mut().filter(|lack| lack.asked == Some(peer));
        let mut next_us = None;
        for lack in lacks {
            lack.asked = None;
            lack.due_us = now.mono_us + if lack.from == peer { AGAIN_US } else { 0 };
            next_us = Some(next_us.map_or(lack.due_us, |next_us: u64| next_us.min(lack.due_us)));
        }
        next_us.into_iter().for_each(|due_us| self.arm_lacks(due_us));
    }

    /// Somebody lacks steps.
    pub(super) fn answer_steps_wanted(&mut self, sender: NodeId, wants: &[Want]) {
        let Some(to) = self.table.get(sender).map(|member| member.swim.identity) else { return };
        let (steps, _) = self.holdings.tables.serve(wants);
        self.send_steps(to, &steps, ANSWERS_MAX);
    }
}
