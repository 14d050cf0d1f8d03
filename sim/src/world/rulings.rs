//! What was really decided, by whom and when, and what should follow from it: worked out here once more, from the set of
//! all decisions and nothing else.
//!
//! Not here: what nodes hold of it (`view`), and what happens when somebody decides (`decide`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gossipd::record::decision::{Decision, DecisionKey, Hlc, Register, Stamp, Subject, Verdict};
use gossipd::record::{Availability, NodeId, Role};
use gossipd::wire::credential::Certified;
use gossipd::wire::decision::SignedDecision;

use crate::host::HostId;
use crate::view::share;

/// A decision that its decider's node has signed and taken in.
#[derive(Debug)]
pub struct Accepted {
    /// When.
    pub at_us: u64,
    /// Who decided.
    pub by: HostId,
    pub(super) decision: Arc<Decision>,
    pub(super) signed: SignedDecision,
    certified: Certified,
    /// Who should hear of it soon and has not yet: those that run and that the decider's packets reach.
    waiting: BTreeSet<HostId>,
    /// Who heard of it how long after.
    pub seen: Vec<(HostId, u64)>,
    /// Somebody else has it.
    is_shared: bool,
}

impl Accepted {
    /// How long it took until all had it; none: somebody who runs has not.
    pub fn all_us(&self) -> Option<u64> {
        let last_us = self.seen.iter().map(|(_, us)| *us).max().unwrap_or_default();
        self.waiting.is_empty().then_some(last_us)
    }

    /// How many of those who should have it do not.
    pub fn missed(&self) -> usize {
        self.waiting.len()
    }
}

/// A question whether all have what was decided.
#[derive(Debug)]
pub struct Question {
    pub(super) by: HostId,
    pub(super) life: u64,
    pub(super) nonce: u32,
    /// When it was asked.
    pub at_us: u64,
    pub(super) stamps: Vec<Stamp>,
    /// Whom the asker listed then as active.
    pub(super) asked: Vec<HostId>,
    /// How long it took until it was answered.
    pub answered_us: Option<u64>,
}

/// All that was decided.
#[derive(Debug, Default)]
pub struct Rulings {
    all: Vec<Accepted>,
    by_stamp: BTreeMap<Stamp, usize>,
    by_key: BTreeMap<DecisionKey, Vec<usize>>,
    last: BTreeMap<NodeId, Hlc>,
    /// When nodes were demoted or removed, by decisions good and bad.
    accused: BTreeMap<NodeId, Vec<Hlc>>,
    removed: BTreeSet<NodeId>,
    expected: Option<u128>,
    /// Questions, in order.
    pub questions: Vec<Question>,
    /// Decisions that the decider's own node refused.
    pub refused: u64,
}

/// What should stand.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// What stands in each register.
    pub(super) standing: BTreeMap<DecisionKey, Arc<Decision>>,
    /// Those whose signers were not entitled any more.
    pub(super) void: BTreeSet<Stamp>,
    /// Registers that may have lost what stands there: to a decision of a signer who had fallen, or to a removal that was
    /// believed where nobody knew yet that its signer had.
    pub(super) contested: BTreeSet<DecisionKey>,
}

fn entitled(falls: &BTreeMap<NodeId, Vec<(Hlc, bool)>>, certified: Certified, decision: &Decision) -> bool {
    let Stamp { at, signer } = decision.stamp;
    let earlier: Vec<_> = falls.get(&signer).into_iter().flatten().filter(|(fell_at, _)| *fell_at < at).collect();
    if earlier.iter().any(|(_, is_removal)| *is_removal) {
        return false;
    }
    let was_demoted = earlier.iter().any(|(fell_at, _)| certified.issued_ms <= fell_at.ms());
    let for_itself = decision.subject == Subject::Node(signer)
        && matches!(decision.verdict, Verdict::Availability(Availability::Pause | Availability::Drain));
    certified.role == Role::Manager && !was_demoted || for_itself
}

impl Rulings {
    /// All of them, in the order in which they were made.
    pub fn all(&self) -> &[Accepted] {
        &self.all
    }

    pub(super) fn get(&self, stamp: Stamp) -> Option<&Accepted> {
        self.all.get(*self.by_stamp.get(&stamp)?)
    }

    /// The one that was made `back` decisions ago.
    pub(super) fn recent(&self, back: usize) -> Option<&Accepted> {
        self.all.iter().rev().nth(back)
    }

    pub(super) fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// Notes a decision; says whether its signer's time has grown.
    pub(super) fn accept(
        &mut self,
        made: (u64, HostId),
        signed: SignedDecision,
        decision: Decision,
        certified: Certified,
        waiting: BTreeSet<HostId>,
    ) -> bool {
        let (at_us, by) = made;
        let Stamp { at, signer } = decision.stamp;
        let (key, number) = (decision.key(), self.all.len());
        if let Subject::Node(node) = decision.subject {
            let is_removal = decision.verdict == Verdict::Removed;
            if is_removal || decision.verdict == Verdict::Role(Role::Worker) {
                self.accused.entry(node).or_default().push(at);
            }
            if is_removal {
                self.removed.insert(node);
            }
        }
        let grows = self.last.get(&signer).is_none_or(|last| *last < at);
        self.last.insert(signer, at);
        self.by_stamp.insert(decision.stamp, number);
        self.by_key.entry(key).or_default().push(number);
        let decision = Arc::new(decision);
        self.all.push(Accepted { at_us, by, decision, signed, certified, waiting, seen: Vec::new(), is_shared: false });
        self.expected = None;
        grows
    }

    /// `observer` holds `decision` now, and so nothing earlier is missing there.
    pub(super) fn seen(&mut self, observer: HostId, decision: &Decision, now_us: u64) {
        let key = decision.key();
        let ends_others = decision.verdict == Verdict::Removed;
        for number in self.by_key.get(&key).into_iter().flatten() {
            let Some(accepted) = self.all.get_mut(*number) else { continue };
            if accepted.decision.stamp == decision.stamp && accepted.by != observer && !accepted.is_shared {
                accepted.is_shared = true;
                self.expected = None;
            }
            if accepted.decision.stamp <= decision.stamp && accepted.waiting.remove(&observer) {
                accepted.seen.push((observer, now_us - accepted.at_us));
            }
        }
        if ends_others {
            for accepted in self.all.iter_mut().filter(|accepted| accepted.decision.subject == decision.subject) {
                if accepted.decision.stamp != decision.stamp {
                    accepted.waiting.remove(&observer);
                }
            }
        }
    }

    /// Nothing is expected of `host` any more.
    pub(super) fn ended(&mut self, host: HostId) {
        self.all.iter_mut().for_each(|accepted| {
            accepted.waiting.remove(&host);
        });
        self.expected = None;
    }

    /// Was its signer demoted or removed before, rightly or not?
    fn has_fallen(&self, decision: &Decision) -> bool {
        let Stamp { at, signer } = decision.stamp;
        self.accused.get(&signer).is_some_and(|falls| falls.iter().any(|fell_at| *fell_at < at))
    }

    /// May a node let go of this decision, or never have heard of it?
    pub(super) fn may_be_gone(&self, decision: &Decision) -> bool {
        self.has_fallen(decision) || matches!(decision.subject, Subject::Node(node) if self.is_removed(node))
    }

    /// What should stand, from all decisions in the order of their times.
    pub(super) fn due(&self) -> Due {
        let mut due = Due::default();
        let mut falls: BTreeMap<NodeId, Vec<(Hlc, bool)>> = BTreeMap::new();
        for accepted in self.by_stamp.values().filter_map(|number| self.all.get(*number)) {
            let Accepted { decision, certified, .. } = accepted;
            let key = decision.key();
            let is_kept = matches!(key.register, Register::Role | Register::Removed);
            if !is_kept && self.may_be_gone(decision) {
                due.contested.insert(key.clone());
            }
            if !entitled(&falls, *certified, decision) {
                due.void.insert(decision.stamp);
                continue;
            }
            let is_removal = decision.verdict == Verdict::Removed;
            if let Subject::Node(node) = decision.subject
                && (is_removal || decision.verdict == Verdict::Role(Role::Worker))
            {
                falls.entry(node).or_default().push((decision.stamp.at, is_removal));
            }
            if !is_removal || !due.standing.contains_key(&key) {
                due.standing.insert(key, Arc::clone(decision));
            }
        }
        due.standing.retain(|key, _| match (key.subject, &key.register) {
            (_, Register::Role | Register::Removed) | (Subject::Cluster, _) => true,
            (Subject::Node(node), _) => {
                !falls.get(&node).is_some_and(|falls| falls.iter().any(|(_, removal)| *removal))
            }
        });
        due
    }

    /// What views should sum up to; none: nothing certain can be said. `holds` tells whether a decider still has what it
    /// alone ever had.
    pub(super) fn expected(&mut self, holds: impl Fn(&Accepted) -> bool) -> Option<u128> {
        if let Some(known) = self.expected {
            return Some(known);
        }
        if self.all.iter().any(|accepted| !accepted.is_shared && !holds(accepted)) {
            return None;
        }
        let due = self.due();
        if !due.contested.is_empty() {
            return None;
        }
        let sum = due.standing.values().fold(0_u128, |sum, decision| sum.wrapping_add(share(decision.stamp)));
        self.expected = Some(sum);
        self.expected
    }

    /// Whether all of these are either known to others or still with their decider.
    pub(super) fn are_all_alive(&self, holds: impl Fn(&Accepted) -> bool) -> bool {
        self.all.iter().all(|accepted| accepted.is_shared || holds(accepted))
    }
}
