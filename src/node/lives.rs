//! This node's own lives: what it does when others hold it for suspect or down, when another process has its id, when its
//! address changes, and when its goodbye is over.
//!
//! An identity is renewed here, never by foca: to a generation above all that the cluster may remember, at a bounded rate,
//! and persisted before a datagram carries it. Not here: what this node holds of others.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::identity::Identity;
use super::member::Swim;
use super::swim::update;
use super::timers::Timer;
use super::{Effect, Event, Mutant, Node, Now};
use crate::record::NodeRecord;
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::Liveness;

/// Renewals allowed in [`FIGHT_WINDOW_US`].
const RENEWALS_MAX: usize = 8;
/// How far a generation may be ahead of this node's clock, in seconds: clocks may be wrong by decades.
const GENERATION_AHEAD_MAX_S: u64 = 1 << 32;
const FIGHT_WINDOW_US: u64 = 60_000_000;
/// How long a node that gave way says nothing, before it looks whether the other is still there.
const SILENCE_US: u64 = 300_000_000;

/// Another process that writes records of this node's id.
#[derive(Debug, Clone, Copy)]
struct Rival {
    /// The generation it started with.
    started: u64,
    /// This node's generation after it was first heard of.
    answered: u64,
}

/// What a node remembers of its own lives.
#[derive(Debug)]
pub(super) struct Lives {
    /// The generation that it started with at its address; none if it moved there while it ran.
    pub(super) settled: Option<u64>,
    /// When it renewed its identity lately.
    renewed_us: VecDeque<u64>,
    /// Where another life of its id was seen last.
    rival_addr: Option<SocketAddr>,
    rival: Option<Rival>,
}

impl Lives {
    pub(super) const fn new(generation: u64) -> Self {
        Self { settled: Some(generation), renewed_us: VecDeque::new(), rival_addr: None, rival: None }
    }
}

/// A generation is a time in seconds, or one more than the last: nothing far in the future is believed, or one forged
/// number would silence its node for ever.
pub(super) fn is_plausible(now: Now, generation: u64) -> bool {
    generation <= now.unix_ms / 1_000 + GENERATION_AHEAD_MAX_S
}

/// Changes that a life may see for each second since the one before it: no life sees as many.
const REVISIONS_PER_GENERATION_LOG2: u32 = 20;

/// The revision that a life begins with. Generations are times in seconds or, at most, one more than the last: below
/// 2^33, so that revisions stay below 2^53 and every JSON reader gets them exactly.
pub(super) const fn first_revision(generation: u64) -> u64 {
    generation.saturating_mul(1 << REVISIONS_PER_GENERATION_LOG2).saturating_add(1)
}

impl Node {
    /// The revision that this life began with, before its first change. Lower ones are of earlier lives.
    pub fn first_revision(&self) -> u64 {
        first_revision(self.record.started_generation)
    }

    /// Others talk about this node.
    pub(super) fn heard_of_self(&mut self, now: Now, swim: Swim) {
        let me = self.identity();
        if self.leaving || self.silent || self.config.has(Mutant::NoRefutation) {
            return;
        }
        if swim.identity == me {
            match swim.liveness {
                Liveness::Alive => {}
                // Refuted already.
                Liveness::Suspect if swim.incarnation < self.incarnation => {}
                // No incarnation is left to refute with.
                Liveness::Suspect if swim.incarnation.max(self.incarnation) == u16::MAX => self.renew(now, me),
                // foca refutes: a higher incarnation, told to a few members at once.
                Liveness::Suspect => {
                    self.drive(now, |foca, out| foca.apply_many(std::iter::once(update(&swim)), true, out));
                }
                Liveness::Down => self.renew(now, swim.identity),
            }
        } else if swim.identity.generation >= me.generation {
            // A life that this one does not remember (an older disk was restored), or another node with this id.
            if swim.identity.addr != me.addr {
                self.lives.rival_addr = Some(swim.identity.addr);
            }
            self.renew(now, swim.identity);
        }
    }

    /// A record of this node's id that this process did not write, of a generation above the one it started with.
    ///
    /// It may be a life that an older disk does not remember: this node goes above it, and that is the end. If the same
    /// process then goes above this node, it lives: two nodes have one id (a cloned disk). The one that was started later
    /// stays, the other falls silent; both report it.
    pub(super) fn heard_of_rival(&mut self, now: Now, envelope: &RecordEnvelope) {
        let generation = envelope.version.generation;
        let mine = self.record.started_generation;
        if self.leaving || self.silent || generation <= mine {
            return;
        }
        let Ok(NodeRecord { started_generation: theirs, .. }) = envelope.record() else { return };
        if theirs == mine {
            return;
        }
        let me = self.identity();
        if generation > me.generation {
            self.renew(now, Identity { generation, ..me });
        }
        let first = self.lives.rival.filter(|rival| rival.started == theirs);
        let is_alive = first.is_some_and(|rival| generation > rival.answered);
        if first.is_none() {
            self.lives.rival = Some(Rival { started: theirs, answered: self.identity().generation });
        }
        let gives_way = is_alive && theirs > mine;
        if gives_way || (first.is_none() && theirs < mine) {
            self.effect(Effect::Event(Event::IdentityConflict { addr: self.lives.rival_addr, generation, gives_way }));
        }
        if gives_way {
            self.silent = true;
            self.inquiries.clear();
            self.lives.rival = None;
            self.timers.submit(now.mono_us + SILENCE_US, Timer::Speak);
        }
    }

    /// The silence is over: is the other still there?
    pub(super) fn speak(&mut self, now: Now) {
        self.silent = false;
        let suspects: Vec<_> = self.table.iter_active().map(|member| member.swim).collect();
        for suspect in suspects.into_iter().filter(|swim| swim.liveness == Liveness::Suspect) {
            self.watch_hearsay(now, suspect.identity);
        }
        self.arm_rejoin(now.mono_us);
    }

    /// `by` holds this very life for down and will not listen to it any more.
    pub(super) fn declared_down(&mut self, now: Now, by: Identity) {
        // A life that another has taken the place of has nothing to say any more.
        let is_outranked = self.table.get(by.id).is_some_and(|known| known.swim.identity.outranks(&by));
        if self.leaving || self.silent || is_outranked {
            return;
        }
        let me = self.identity();
        self.renew(now, me);
        // It may remember a generation above ours: a full exchange tells. Not without a new life: the exchange ends in an
        // announcement, and the same life would be turned away again, and so on as fast as packets travel.
        if self.identity() != me {
            self.start_sync(by.addr, Some(by.id));
        }
    }

    /// From now on this node is at `addr`: the same node in a new life.
    pub(super) fn readdress(&mut self, now: Now, addr: SocketAddr) {
        let me = self.identity();
        if addr != me.addr && super::sync::is_usable(addr) {
            self.lives.settled = None;
            self.renew_at(now, me, addr);
        }
    }

    /// Takes a generation above `seen` and tells everybody.
    fn renew(&mut self, now: Now, seen: Identity) {
        let addr = self.identity().addr;
        self.renew_at(now, seen, addr);
    }

    fn renew_at(&mut self, now: Now, seen: Identity, addr: SocketAddr) {
        forget_old(&mut self.lives.renewed_us, now);
        if self.silent || self.lives.renewed_us.len() >= RENEWALS_MAX {
            return;
        }
        self.lives.renewed_us.push_back(now.mono_us);
        let me = self.identity();
        let generation = me.generation.max(seen.generation).max(now.unix_ms / 1_000).saturating_add(1);
        let before = self.own_member();
        self.stats.renewals += 1;
        self.effect(Effect::PersistGeneration(generation));
        self.incarnation = 0;
        self.connected = false;
        self.drive(now, |foca, out| foca.change_identity(Identity { generation, addr, ..me }.into(), out));
        self.update_own_record(now, before, |record| {
            if record.data_path_addr == me.addr.ip() {
                record.data_path_addr = addr.ip();
            }
        });
        // foca says its new identity once; if that is lost, nobody hears of this node again.
        self.arm_rejoin(now.mono_us + self.config.rejoin_interval_ms * 1_000);
    }
}

fn forget_old(times_us: &mut VecDeque<u64>, now: Now) {
    while times_us.front().is_some_and(|at| now.mono_us.saturating_sub(*at) > FIGHT_WINDOW_US) {
        times_us.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_a_later_life_are_higher_and_exact_in_every_json_reader() {
        let (year_2026, a_century_later) = (1_795_000_000, 4_950_000_000);
        assert!(first_revision(year_2026 + 1) - first_revision(year_2026) > 1_000_000);
        assert!(first_revision(a_century_later) + 1_000_000 < 1 << 53);
        // The highest generation that is believed of anybody.
        assert!(first_revision(year_2026 + GENERATION_AHEAD_MAX_S) < 1 << 53);
        assert_eq!(first_revision(u64::MAX), u64::MAX);
    }
}
