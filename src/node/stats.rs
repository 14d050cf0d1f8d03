//! Plain counters of what a node did, and looks at its inside. The daemon exports them; nothing in the core reads them.

use std::collections::{BTreeMap, BTreeSet};

use super::decisions::Refused;
use super::tables;
use super::{Node, Swim, codec};
use crate::wire::DropCause;

/// What a datagram was about, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A direct probe or its answer.
    Probe,
    /// An indirect probe or its answer.
    IndirectProbe,
    /// A join announcement or its answer.
    Announce,
    /// Membership news.
    Gossip,
    /// "You were declared down."
    TurnUndead,
    /// Records only.
    Records,
    /// Questions whether a node lives, and their answers.
    Check,
    /// Decisions only.
    Decisions,
    /// Questions whether a node has certain decisions or versions of tables, and their answers.
    Confirm,
    /// Steps of tables, notices of them, and wants; greetings without a probe.
    Tables,
}

impl Kind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Probe,
        Self::IndirectProbe,
        Self::Announce,
        Self::Gossip,
        Self::TurnUndead,
        Self::Records,
        Self::Check,
        Self::Decisions,
        Self::Confirm,
        Self::Tables,
    ];

    /// The label's value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::IndirectProbe => "indirect-probe",
            Self::Announce => "announce",
            Self::Gossip => "gossip",
            Self::TurnUndead => "turn-undead",
            Self::Records => "records",
            Self::Check => "check",
            Self::Decisions => "decisions",
            Self::Confirm => "confirm",
            Self::Tables => "tables",
        }
    }
}

/// Datagrams and their bytes (UDP payload).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub datagrams: u64,
    /// UDP payload bytes.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }
}

/// Counters since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    sent: [Traffic; Kind::ALL.len()],
    received: [Traffic; Kind::ALL.len()],
    drops: [u64; DropCause::ALL.len()],
    refused: [u64; Refused::ALL.len()],
    steps_refused: [u64; tables::Refused::ALL.len()],
    /// Steps of tables that were taken in.
    pub steps_taken: u64,
    /// Steps of tables that brought nothing new.
    pub steps_known: u64,
    /// Steps of tables that were not passed on, as too many waited.
    pub steps_unsent: u64,
    /// Direct probes answered in time.
    pub probes_answered: u64,
    /// Sum of their round trips, in microseconds.
    pub probe_rtt_us_sum: u64,
    /// Members accused: neither this node nor enough witnesses got an answer.
    pub probes_failed: u64,
    /// Probes unanswered in time, and so looked into.
    pub inquiries: u64,
    /// Rounds of inquiries that ended without enough witnesses.
    pub inquiries_barren: u64,
    /// Accusations that their subjects refuted.
    pub accusations_withdrawn: u64,
    /// Accusations that ended with the subject down.
    pub accusations_upheld: u64,
    /// Questions of other nodes looked into.
    pub errands: u64,
    /// Times this node heard nobody any more.
    pub isolations: u64,
    /// Times this node had to take a new generation because others held it for down.
    pub renewals: u64,
    /// Suspicions about this node that it refuted.
    pub refutations: u64,
    /// Messages to members that foca wanted to send after they had refuted, and that were held back.
    pub undead_withheld: u64,
    /// Exchanges started.
    pub exchanges_started: u64,
    /// Exchanges that failed.
    pub exchanges_failed: u64,
    /// Exchanges answered.
    pub exchanges_answered: u64,
    /// Updates about members that were no news and never reached foca.
    pub updates_filtered: u64,
    /// Updates about members refused: an unusable address, a generation far in the future, or too many members.
    pub updates_refused: u64,
    /// Records refused because they break a limit.
    pub records_refused: u64,
    /// Errors that foca returned. Its state is unchanged then.
    pub swim_errors: u64,
}

impl Stats {
    pub(super) fn count_sent(&mut self, kind: Kind, bytes: usize) {
        if let Some(traffic) = self.sent.get_mut(kind as usize) {
            traffic.add(bytes);
        }
    }

    pub(super) fn count_received(&mut self, kind: Kind, bytes: usize) {
        if let Some(traffic) = self.received.get_mut(kind as usize) {
            traffic.add(bytes);
        }
    }

    pub(super) fn count_drop(&mut self, cause: DropCause) {
        if let Some(count) = self.drops.get_mut(cause as usize) {
            *count += 1;
        }
    }

    pub(super) fn count_refused(&mut self, refused: Refused) {
        if let Some(count) = self.refused.get_mut(refused as usize) {
            *count += 1;
        }
    }

    pub(super) fn count_step_refused(&mut self, refused: tables::Refused) {
        if let Some(count) = self.steps_refused.get_mut(refused as usize) {
            *count += 1;
        }
    }

    /// Steps of tables refused, by cause.
    pub fn steps_refused(&self) -> impl Iterator<Item = (tables::Refused, u64)> {
        tables::Refused::ALL.into_iter().zip(self.steps_refused)
    }

    /// Decisions refused, by cause.
    pub fn decisions_refused(&self) -> impl Iterator<Item = (Refused, u64)> {
        Refused::ALL.into_iter().zip(self.refused)
    }

    /// Datagrams sent, by kind.
    pub fn sent(&self) -> impl Iterator<Item = (Kind, Traffic)> {
        Kind::ALL.into_iter().zip(self.sent)
    }

    /// Datagrams accepted, by kind.
    pub fn received(&self) -> impl Iterator<Item = (Kind, Traffic)> {
        Kind::ALL.into_iter().zip(self.received)
    }

    /// Datagrams dropped, by cause.
    pub fn drops(&self) -> impl Iterator<Item = (DropCause, u64)> {
        DropCause::ALL.into_iter().zip(self.drops)
    }
}

impl Node {
    /// Lengths of the internal queues, by name.
    pub fn queue_depths(&self) -> [(&'static str, usize); 14] {
        [
            ("timers", self.timers.len()),
            ("swim-updates", self.foca.updates_backlog()),
            ("record-rumours", self.spread.len()),
            ("decision-rumours", self.decision_news.len()),
            ("decisions", self.decisions.len()),
            ("confirms", self.waits.len()),
            ("records-missing", self.missing.len()),
            ("exchanges", self.exchanges.len()),
            ("inquiries", self.inquiries.len()),
            ("errands", self.inquiries.errands()),
            ("steps", self.holdings.lane.len()),
            ("notices", self.holdings.hints.notices()),
            ("steps-missing", self.holdings.hints.lacks()),
            ("steps-parked", self.holdings.tables.parked()),
        ]
    }

    /// Differences between the member table and foca's own list. Always empty; costs O(N log N); for tests and the
    /// simulator.
    pub fn mirror_errors(&self) -> Vec<String> {
        let me = self.identity().id;
        let theirs: BTreeMap<_, _> = self
            .foca
            .iter_membership_state()
            .map(|member| {
                let (identity, liveness) = (member.id().identity(), codec::liveness(member.state()));
                (identity.id, Swim { identity, incarnation: member.incarnation(), liveness })
            })
            .filter(|(id, _)| *id != me)
            .collect();
        let ours: BTreeMap<_, _> = self.table.iter().map(|member| (member.swim.identity.id, member.swim)).collect();
        let ids: BTreeSet<_> = ours.keys().chain(theirs.keys()).copied().collect();
        ids.into_iter()
            .filter(|id| ours.get(id) != theirs.get(id))
            .map(|id| format!("{id}: table {:?}, foca {:?}", ours.get(&id), theirs.get(&id)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_cause_has_its_own_counter() {
        let mut stats = Stats::default();
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            stats.count_sent(kind, n);
        }
        for cause in DropCause::ALL {
            stats.count_drop(cause);
        }
        assert!(stats.sent().enumerate().all(|(n, (_, traffic))| traffic == Traffic { datagrams: 1, bytes: n as u64 }));
        assert!(stats.drops().all(|(_, count)| count == 1));
    }
}
