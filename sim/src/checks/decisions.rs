//! What was decided: nothing is lost, nothing is made up, and all hold the same.

use gossipd::record::decision::{Decision, DecisionKey};

use super::{Checks, Rule};
use crate::host::HostId;

fn words(decision: &Decision) -> String {
    let Decision { subject, verdict, stamp, .. } = decision;
    format!("{verdict:?} about {subject:?} at {:?} by {}", stamp.at, stamp.signer)
}

fn maybe(decision: Option<&Decision>) -> String {
    decision.map_or_else(|| "nothing".to_owned(), words)
}

impl Checks {
    /// A node has signed a decision.
    pub(crate) fn signed(&mut self, host: HostId, grows: bool, decision: &Decision) {
        self.that(Rule::A4, grows, || format!("{host} dated {} before its last", words(decision)));
    }

    /// A decider took in what it decided.
    pub(crate) fn accepted(&mut self, host: HostId, holds: bool, decision: &Decision) {
        self.that(Rule::A1, holds, || format!("{host} does not hold its own {}", words(decision)));
    }

    /// An event says what stood in a register before.
    pub(crate) fn decision_told(&mut self, host: HostId, same: bool, key: &DecisionKey) {
        self.that(Rule::Events, same, || format!("{host}: {key:?} was told otherwise"));
    }

    /// A node holds something for decided.
    pub(crate) fn decision_true(&mut self, host: HostId, is_true: bool, decision: &Decision) {
        self.that(Rule::A3, is_true, || format!("{host} holds {}, which nobody decided", words(decision)));
    }

    /// A node holds something else than before.
    pub(crate) fn decision_kept(&mut self, host: HostId, allowed: bool, old: &Decision, new: Option<&Decision>) {
        self.that(Rule::A1, allowed, || format!("{host} lets go of {} for {}", words(old), maybe(new)));
    }

    /// Somebody brought a decision that must not count.
    pub(crate) fn forged(&mut self, host: HostId, same: bool, what: &str) {
        self.that(Rule::A3, same, || format!("{host} took in {what}"));
    }

    /// A node has joined, and may lack something.
    pub(crate) fn joined(&mut self, host: HostId, lacks: Option<&Decision>) {
        self.that(Rule::Joined, lacks.is_none(), || format!("{host} lacks {}", maybe(lacks)));
    }

    /// A node was told that all have a decision.
    pub(crate) fn confirmed(&mut self, host: HostId, without: Option<HostId>, decision: &Decision) {
        self.that(Rule::Confirmed, without.is_none(), || {
            format!("{host} believes that {without:?} has {}", words(decision))
        });
    }

    /// A node lists somebody whose removal it knows, or not.
    pub(crate) fn lists_removed(&mut self, host: HostId, subject: HostId, does: bool) {
        self.that(Rule::Removed, !does, || format!("{host} lists {subject}"));
    }

    /// A node says that it was removed.
    pub(crate) fn obeys_removal(&mut self, host: HostId, is_true: bool) {
        self.that(Rule::A3, is_true, || format!("{host} was never removed"));
    }

    /// A member is listed with what was decided about it.
    pub(crate) fn listed_as_decided(&mut self, host: HostId, wrong: Option<&str>) {
        self.that(Rule::Decided, wrong.is_none(), || format!("{host} about {}", wrong.unwrap_or_default()));
    }

    /// Two nodes hold the same, but perhaps for this.
    pub(crate) fn same_decisions(&mut self, hosts: [HostId; 2], odd: Option<&Decision>) {
        let [one, other] = hosts;
        self.that(Rule::A2, odd.is_none(), || format!("of {one} and {other} one holds {}", maybe(odd)));
    }

    /// What stands was decided by somebody who could.
    pub(crate) fn decision_good(&mut self, host: HostId, is_good: bool, decision: &Decision) {
        self.that(Rule::A3, is_good, || format!("{host} holds {}, whose signer might not decide", words(decision)));
    }

    /// What should stand does.
    pub(crate) fn decision_survives(&mut self, host: HostId, stands: Option<&Decision>, due: &Decision) {
        let same = stands.is_some_and(|stands| stands.stamp == due.stamp);
        self.that(Rule::A1, same, || format!("{host} holds {} where {} should stand", maybe(stands), words(due)));
    }
}
