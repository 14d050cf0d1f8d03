//! What one node may say of another.

use gossipd::record::Status;

use super::{Checks, Rule};
use crate::host::HostId;
use crate::view::Row;

/// One node's view of another changes. The harness knows the truth beside it.
#[derive(Debug)]
pub struct Step<'a> {
    /// When.
    pub at_us: u64,
    /// Who says so.
    pub observer: HostId,
    /// Of whom.
    pub subject: HostId,
    /// What the event says was before.
    pub told: Option<&'a Row>,
    /// What was before.
    pub old: Option<&'a Row>,
    /// What is now.
    pub new: Option<&'a Row>,
    /// That life was really born, at that address.
    pub was_born: bool,
    /// The highest incarnation that its present life had; none when another life is spoken of.
    pub incarnation_max: Option<u16>,
    /// The subject was told to leave in that life.
    pub said_goodbye: bool,
    /// The observer lists another active node at the same address.
    pub has_double: bool,
    /// Nothing is lost, no fault is on the network, and both are healthy.
    pub is_calm: bool,
}

impl Step<'_> {
    fn words(&self) -> String {
        let row = |row: Option<&Row>| {
            row.map_or_else(
                || "nothing".to_owned(),
                |row| {
                    let Row { identity, status, incarnation, .. } = row;
                    format!("{} {}/{incarnation} at {}", status.word(), identity.generation, identity.addr)
                },
            )
        };
        let Self { at_us, observer, subject, old, new, .. } = self;
        format!("at {at_us} µs {observer} about {subject}: {} -> {}", row(*old), row(*new))
    }

    /// M1. A later life may begin in any status: the observer may have missed what came before.
    fn is_legal(&self) -> bool {
        let (Some(old), Some(new)) = (self.old, self.new) else { return true };
        if new.identity != old.identity || new.status == old.status {
            return true;
        }
        match (old.status, new.status) {
            (Status::Ready, Status::Suspect | Status::Down) | (Status::Suspect, Status::Down) => true,
            (Status::Suspect, Status::Ready) => new.incarnation > old.incarnation,
            (Status::Ready | Status::Suspect | Status::Down, Status::Left) => true,
            _ => false,
        }
    }

    /// M2.
    fn grows(&self) -> bool {
        let (Some(old), Some(new)) = (self.old, self.new) else { return true };
        let life = |row: &Row| (row.identity.generation, row.identity.addr);
        if life(old) != life(new) {
            return life(old) < life(new);
        }
        // Down is final whatever the incarnation.
        new.incarnation >= old.incarnation || matches!(new.status, Status::Down | Status::Left)
    }
}

impl Checks {
    /// One node's view of another changes.
    pub(crate) fn step(&mut self, step: &Step<'_>) {
        let words = || step.words();
        let told = step.told.map(Row::told) == step.old.map(Row::told);
        self.that(Rule::Events, told, || format!("{}, told otherwise", step.words()));
        self.that(Rule::M1, step.is_legal(), words);
        self.that(Rule::M2, step.grows(), words);
        self.that(Rule::M7, step.was_born, words);
        let Some(new) = step.new else { return };
        if let Some(most) = step.incarnation_max {
            self.that(Rule::M3, new.incarnation <= most, || format!("{}, it had {most} at most", step.words()));
        }
        if !step.has_double {
            self.that(Rule::M5, true, words);
        }
        let accused = matches!(new.status, Status::Suspect | Status::Down);
        if new.status == Status::Left {
            self.that(Rule::M1, step.said_goodbye, || format!("{}, it never said so", step.words()));
        } else if step.said_goodbye {
            self.that(Rule::M10, !accused, words);
        }
        if step.is_calm && self.is_asked_for(Rule::D3) {
            self.that(Rule::D3, !accused, words);
        }
    }

    /// A healthy node has listed two active nodes at one address for too long.
    pub(crate) fn doubled(&mut self, observer: HostId, subjects: [HostId; 2], for_us: u64) {
        let [one, other] = subjects;
        self.that(Rule::M5, false, || format!("{observer} lists {one} and {other} at one address for {for_us} µs"));
    }

    /// A node speaks of itself.
    pub(crate) fn own(&mut self, observer: HostId, status: Option<Status>) {
        self.that(Rule::M4, status != Some(Status::Down), || format!("{observer}"));
    }

    /// A node lists an id that never was.
    pub(crate) fn unborn(&mut self, observer: HostId, id: &str) {
        self.that(Rule::M7, false, || format!("{observer} lists {id}"));
    }

    /// An event came with a revision.
    pub(crate) fn revision(&mut self, observer: HostId, follows: bool, revision: u64) {
        self.that(Rule::Events, follows, || format!("{observer}: revision {revision}"));
    }

    /// A node reported a double.
    pub(crate) fn conflict(&mut self, observer: HostId, what: impl FnOnce() -> String) {
        let is_real = self.rivals.contains(&observer);
        self.that(Rule::Conflict, is_real, what);
    }

    /// These share an id.
    pub(crate) fn rivals(&mut self, hosts: [HostId; 2]) {
        self.rivals.extend(hosts);
    }

    /// Bytes came that no member sent as they are.
    pub(crate) fn mangled(&mut self, host: HostId, same: bool, counted: bool) {
        self.that(Rule::M8, same, || format!("{host} took them in"));
        self.that(Rule::M9, same && counted, || format!("{host}: changed {}, counted {counted}", !same));
    }

    /// A generation is to be persisted.
    pub(crate) fn persisted(&mut self, host: HostId, grows: bool, generation: u64) {
        self.that(Rule::Persist, grows, || format!("{host}: {generation}"));
    }

    /// A table was compared with the SWIM core's list.
    pub(crate) fn mirror(&mut self, host: HostId, at_us: u64, errors: &[String]) {
        self.that(Rule::Mirror, errors.is_empty(), || format!("{host} at {at_us} µs: {}", errors.join("; ")));
    }

    /// A whole listing was looked at.
    pub(crate) fn listing(&mut self, host: HostId, folded: bool, born: usize, members: usize, swim_errors: u64) {
        self.that(Rule::M6, folded, || format!("{host}"));
        self.that(Rule::Q4, members <= born, || format!("{host} lists {members}, {born} were ever born"));
        self.that(Rule::Foca, swim_errors == 0, || format!("{host}: {swim_errors}"));
    }

    /// A crash was over: how many never saw it.
    pub(crate) fn crash_seen(&mut self, subject: HostId, missed: usize) {
        if self.is_asked_for(Rule::D1) {
            self.that(Rule::D1, missed == 0, || format!("{missed} never saw {subject} go"));
        }
    }

    /// A run with a node that lost everybody is over.
    pub(crate) fn isolated(&mut self, told: u64, accusations: u64) {
        if self.is_asked_for(Rule::D7) {
            self.that(Rule::D7, told > 0 && accusations == 0, || {
                format!("told {told} times, {accusations} accusations of healthy nodes")
            });
        }
    }
}
