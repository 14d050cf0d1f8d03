//! All deadlines of a node, foca's among them, in one ordered place.

use std::collections::BTreeMap;

use super::identity::{Identity, Life};
use crate::record::NodeId;
use crate::record::network::NetworkId;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// foca wants this back.
    Swim(foca::Timer<Life>),
    /// Compare full state with a random member.
    Sync,
    /// Reach somebody: nobody is known, or somebody known is not reached.
    Rejoin,
    /// Push records on.
    Spread,
    /// Prove decisions anew.
    Vouch,
    /// Ask for records that are missing.
    Want,
    /// Forget what is past retention.
    Reap,
    /// Nobody has acknowledged the leave.
    LeaveDeadline,
    /// The silence after a fight over this node's id is over.
    Speak,
    /// The answer to foca's probe of that number is late.
    ProbeLate(u8, NodeId),
    /// The next step of an inquiry; the number tells which timer counts.
    Inquiry(NodeId, u64),
    /// The next step of an errand: subject, asker, the asker's nonce.
    Errand(NodeId, NodeId, u32),
    /// A suspicion heard of has had its time.
    Hearsay(Identity),
    /// Ask those that have not confirmed yet; the question's nonce.
    Confirm(u32),
    /// The next step of an examination; its nonce.
    Exam(u32),
    /// There is news: gossip now, not at the next tick.
    Gossip,
    /// Pass steps of tables on.
    Push,
    /// Say which versions of tables are here.
    Notify,
    /// Ask for steps that are missing.
    Lacks,
    /// Compare tables with somebody who is attached to that network too.
    Attend(NetworkId),
    /// A difference that a greeting has shown may have lasted.
    Differ,
}

/// Deadlines in order of time, then of submission.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(u64, u64), Timer>,
    submitted: u64,
}

impl Timers {
    /// Adds a deadline.
    pub(super) fn submit(&mut self, at_us: u64, timer: Timer) {
        self.submitted += 1;
        self.queue.insert((at_us, self.submitted), timer);
    }

    /// The earliest deadline.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<Timer> {
        let entry = self.queue.first_entry()?;
        (entry.key().0 <= now_us).then(|| entry.remove())
    }

    /// How many are waiting.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_timers_come_by_time_then_by_submission() {
        let mut timers = Timers::default();
        timers.submit(20, Timer::Sync);
        timers.submit(10, Timer::Want);
        timers.submit(10, Timer::Reap);
        assert_eq!(timers.next_us(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(30), Some(Timer::Want));
        assert_eq!(timers.pop_due(30), Some(Timer::Reap));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(20), Some(Timer::Sync));
        assert_eq!(timers.len(), 0);
    }
}
