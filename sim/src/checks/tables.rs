//! What is in tables: what owners wrote and nothing else, version by version, marked at once, and the same for all.

use gossipd::record::Version;
use gossipd::wire::table::{Scope, Step};

use super::{Checks, Rule};
use crate::host::HostId;
use crate::shown::Place;

impl Checks {
    /// An owner's step is on its disk.
    pub(crate) fn step_written(&mut self, host: HostId, follows: bool, step: &Step) {
        self.that(Rule::E2, follows, || format!("{host} writes {:?} after {:?}", step.lives, step.since));
    }

    /// An owner says something: because somebody wrote, or because its disk is not what it was.
    pub(crate) fn not_said_again(&mut self, host: HostId, is_asked: bool, step: &Step) {
        self.that(Rule::E5, is_asked, || format!("{host} says {:?} of {:?} again", step.to(), step.scope));
    }

    /// A node starts: its own tables are those of its disk.
    pub(crate) fn continues(&mut self, host: HostId, same: bool, scope: Scope) {
        self.that(Rule::E5, same, || format!("{host} has another table than on its disk: {scope:?}"));
    }

    /// A record is shown.
    pub(crate) fn record_true(&mut self, host: HostId, is_true: bool, what: impl FnOnce() -> String) {
        self.that(Rule::E1, is_true, || format!("{host} shows {}", what()));
    }

    /// An event says what a record was before.
    pub(crate) fn record_told(&mut self, host: HostId, same: bool, place: &Place) {
        self.that(Rule::Tables, same, || format!("{host}: a record of {place:?} was told otherwise"));
    }

    /// A record is shown, or stays shown, with the mark of its owner's status.
    pub(crate) fn marked(&mut self, host: HostId, holds: bool, place: &Place) {
        self.that(Rule::E4, holds, || format!("{host} does not mark {place:?} with its owner"));
    }

    /// A node shows or holds something of a network.
    pub(crate) fn attached(&mut self, host: HostId, is_attached: bool, network: u8) {
        self.that(Rule::E10, is_attached, || format!("{host} takes no part in network {network}"));
    }

    /// A node is at another version of a table.
    pub(crate) fn version(&mut self, host: HostId, grows: bool, place: Place, versions: (Version, Version)) {
        self.that(Rule::E2, grows, || format!("{host}, {place:?}: {versions:?}"));
    }

    /// What a node shows at a version is what was written.
    pub(crate) fn content(&mut self, host: HostId, same: bool, place: Place, held: Version) {
        self.that(Rule::E2, same, || format!("{host} shows something else of {place:?} than there was at {held:?}"));
    }

    /// A record has appeared.
    pub(crate) fn risen(&mut self, host: HostId, gone: Option<Version>, place: Place, held: Version) {
        self.that(Rule::E3, gone.is_none(), || {
            format!("{host} shows a record of {place:?} at {held:?} that was seen deleted at {gone:?}")
        });
    }

    /// All is calm: all show what owners have, or not.
    pub(crate) fn same_tables(&mut self, same: bool, what: impl FnOnce() -> String) {
        self.that(Rule::E8, same, what);
    }

    /// Two that hold the same know of the same conflicts.
    pub(crate) fn same_conflicts(&mut self, hosts: [HostId; 2], same: bool) {
        let [one, other] = hosts;
        self.that(Rule::E8, same, || format!("{one} and {other} know of different conflicts"));
    }

    /// All is calm: of so many lives that lost their tables somebody still shows something.
    pub(crate) fn buried(&mut self, unburied: usize, buried: usize) {
        if unburied + buried > 0 {
            self.that(Rule::E6, unburied == 0, || format!("{unburied} lost lives are still shown"));
        }
    }

    /// The digests of two were compared, and what they stand for.
    pub(crate) fn digests(&mut self, hosts: [HostId; 2], means_equal: bool, follows: bool, scope: Scope) {
        let [one, other] = hosts;
        self.that(Rule::E7, means_equal, || format!("{one} and {other} have one digest of different {scope:?}"));
        self.that(Rule::E7, follows, || format!("{one} and {other} have two digests of the same {scope:?}"));
    }

    /// The events of a node, folded, are its tables.
    pub(crate) fn tables_fold(&mut self, host: HostId, folds: bool, odd: Option<Place>) {
        self.that(Rule::Tables, folds, || format!("{host}: {odd:?}"));
    }
}
