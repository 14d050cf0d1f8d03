//! Goodbyes: this node's own, and forgetting those who are gone.
//!
//! Not here: what others make of a goodbye (`records`), and removal by decision (`decide`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::timers::Timer;
use super::{Cause, Config, Effect, Event, Identity, Node, Now, Purpose};
use crate::record::{NodeId, NodeRecord, Status};

/// How long a leave waits for a member to acknowledge it, in microseconds.
const LEAVE_DEADLINE_US: u64 = 2_000_000;
/// Members that a leaving node tells before it gives up hope of an acknowledgement.
const LEAVE_PUSHES_MAX: usize = 12;
/// Time between two sweeps for what is past retention, in microseconds.
pub(super) const REAP_INTERVAL_US: u64 = 10_000_000;

impl Node {
    /// Changes this node's record for the last time in this life, and makes sure that somebody has it.
    pub(super) fn say_goodbye(&mut self, now: Now, change: impl FnOnce(&mut NodeRecord)) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.inquiries.clear();
        let before = self.own_member();
        self.update_own_record(now, before, change);
        let targets = self.choose(self.config.fanout.max(1));
        if targets.is_empty() {
            return self.leave_done(true);
        }
        self.timers.submit(now.mono_us + LEAVE_DEADLINE_US, Timer::LeaveDeadline);
        self.push_own(&targets);
    }

    /// The goodbye is over, and this node counts as gone if it leaves for good.
    pub(super) fn leave_done(&mut self, acknowledged: bool) {
        if !self.leaving || self.leave_told {
            return;
        }
        let old = self.own_member();
        self.leave_told = true;
        let new = self.own_member();
        if old.status != new.status {
            self.tell(Cause::Left, Some(Box::new(old)), Some(Box::new(new)));
        }
        self.effect(Effect::Event(Event::LeaveDone { acknowledged }));
    }

    pub(super) fn tell_another_of_leave(&mut self) {
        if self.leave_told {
            return;
        }
        let under_way = self.exchanges.values().any(|purpose| *purpose == Purpose::LeavePush);
        if self.leave_pushes < LEAVE_PUSHES_MAX {
            let target = self.choose(1);
            self.push_own(&target);
        } else if !under_way {
            self.leave_done(false);
        }
    }

    pub(super) fn reap(&mut self, now: Now) {
        self.timers.submit(now.mono_us + REAP_INTERVAL_US, Timer::Reap);
        self.note_health(now);
        self.drop_early_decisions(now);
        let Config { left_retention_s, down_retention_s, .. } = self.config;
        let occupants = self.occupants();
        let gone = self.table.iter().filter_map(|member| {
            let Identity { id, generation, addr } = member.swim.identity;
            let retention_s = match member.status {
                Status::Left => left_retention_s,
                Status::Down => down_retention_s,
                Status::Ready | Status::Suspect => return None,
            };
            let heir =
                occupants.get(&addr).filter(|heir| member.status == Status::Down && heir.generation >= generation);
            let is_past = now.unix_ms.saturating_sub(member.since_ms) > retention_s.saturating_mul(1_000);
            heir.map(|heir| (id, Cause::Replaced(heir.id))).or(is_past.then_some((id, Cause::Retention)))
        });
        for (id, cause) in gone.collect::<Vec<_>>() {
            self.forget_member(now, id, cause);
        }
        self.table.remove_parked();
        self.tidy_tables(now);
        let table = &self.table;
        self.channel.retain_senders(|id| table.knows(id));
    }

    /// Was it at this node's address before this node began? Then it is gone, and who can tell better? Unless this node has
    /// moved: it may be faster than the news of who has moved away.
    pub(super) fn is_predecessor(&self, other: &Identity) -> bool {
        let Identity { id, addr, .. } = self.identity();
        other.addr == addr && other.id != id && self.lives.settled.is_some_and(|since| other.generation < since)
    }

    /// Who lives at an address where somebody is down; this node, too.
    fn occupants(&self) -> BTreeMap<SocketAddr, Identity> {
        let identities = |is_wanted: fn(Status) -> bool| {
            self.table.iter().filter(move |member| is_wanted(member.status)).map(|member| member.swim.identity)
        };
        let contested: BTreeSet<_> = identities(|status| status == Status::Down).map(|down| down.addr).collect();
        if contested.is_empty() {
            return BTreeMap::new();
        }
        let alive = identities(|status| status == Status::Ready).chain([self.identity()]);
        alive.filter(|alive| contested.contains(&alive.addr)).map(|alive| (alive.addr, alive)).collect()
    }

    /// Forgets a member that is not active, and has foca forget it.
    pub(super) fn forget_member(&mut self, now: Now, id: NodeId, cause: Cause) {
        if let Some(old) = self.table.remove(id) {
            let forget = foca::Timer::RemoveDown(old.swim.identity.into());
            self.drive(now, |foca, out| foca.handle_timer(forget, out));
            self.spread.stop(&id);
            let state = old.state();
            self.tell(cause, Some(Box::new(old)), None);
            self.tables_follow(now, cause, id, (Some(state), None));
        }
    }
}
