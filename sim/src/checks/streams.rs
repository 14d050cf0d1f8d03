//! What local programs are told: a snapshot, then each change once, and when they cannot be told.

use gossipd::session::Gone;

use super::{Checks, Rule};
use crate::host::HostId;

impl Checks {
    /// A reader knows all that its node has told, and this of it is not as the node has it.
    pub(crate) fn stream_folds(&mut self, host: HostId, odd: Option<&str>) {
        self.that(Rule::P1, odd.is_none(), || format!("a reader of {host} has {} otherwise", odd.unwrap_or_default()));
    }

    /// A change says what an object was before.
    pub(crate) fn told_before(&mut self, host: HostId, same: bool, what: impl FnOnce() -> String) {
        self.that(Rule::P1, same, || format!("a reader of {host} is told something else before {}", what()));
    }

    /// An object of a snapshot comes once, and before `synced`.
    pub(crate) fn told_once(&mut self, host: HostId, is_new: bool, what: impl FnOnce() -> String) {
        self.that(Rule::P1, is_new, || format!("a reader of {host} is told once more of {}", what()));
    }

    /// A change follows one.
    pub(crate) fn next_change(&mut self, host: HostId, (last, revision): (u64, u64)) {
        self.that(Rule::P2, revision == last + 1, || format!("a reader of {host} is told {revision} after {last}"));
    }

    /// A session has told all that was there when it began.
    pub(crate) fn synced(&mut self, host: HostId, right: bool, revision: u64) {
        self.that(Rule::P2, right, || format!("a reader of {host} is told that it is synced at {revision}"));
    }

    /// A reader is told that it lagged.
    pub(crate) fn lagged(&mut self, host: HostId, right: bool, (told, missed, floor): (u64, u64, u64)) {
        self.that(Rule::P3, right, || format!("a reader of {host} lagged from {told} to {missed}; forgotten: {floor}"));
    }

    /// A reader that was left behind is told so.
    pub(crate) fn lag_told(&mut self, host: HostId, is_told: bool, (last, floor): (u64, u64)) {
        self.that(Rule::P3, is_told, || format!("a reader of {host} is at {last}, and is not told of {floor}"));
    }

    /// A reader that takes everything has it at once.
    pub(crate) fn undelayed(&mut self, host: HostId, has_all: bool, (last, newest): (u64, u64)) {
        self.that(Rule::P3, has_all, || format!("a reader of {host} is at {last}, and there is {newest}"));
    }

    /// A reader wants to go on after `since`; changes after `range.0` are kept, up to `range.1`.
    pub(crate) fn resumed(
        &mut self,
        host: HostId,
        right: bool,
        since: u64,
        range: (u64, u64),
        answer: Result<(), Gone>,
    ) {
        self.that(Rule::P4, right, || format!("{host} has {range:?}, and answers to {since}: {answer:?}"));
    }

    /// What a reader is told at a revision is what the node told then.
    pub(crate) fn same_change(&mut self, host: HostId, same: bool, revision: u64) {
        self.that(Rule::P4, same, || format!("a reader of {host} is told something else at {revision}"));
    }

    /// What is kept for readers.
    pub(crate) fn history(&mut self, host: HostId, kept: usize, cap: usize) {
        self.that(Rule::Q3, kept <= cap, || format!("{host}: {kept} changes kept, cap {cap}"));
    }
}
