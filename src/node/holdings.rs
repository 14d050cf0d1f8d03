//! What a node does with tables: who may have some, what it writes itself, what it takes in, and whom it tells.
//!
//! # Own writes
//! Stored before told, as decisions are. A write ([`Node::handle_write`]) is tried on a *draft* of the own tables, and its
//! step is handed to the caller to be kept ([`Effect::KeepTable`]); given back ([`Command::Written`]) it counts, is told to
//! listeners, and passed on. Any number may be under way, in order; if they cannot be kept ([`Command::Unwritten`]) the
//! draft begins again at what counts. So what is written in an instant may be kept with one write to the disk.
//!
//! # Members
//! Tables are held of members; those of one that left, was removed or is past retention go with it. That one is down changes
//! nothing here, except that after a while its tables are not compared any more, as newcomers do not hear of them.
//!
//! Not here: how steps travel (`push`, `hints`), how tables are compared (`reconcile`), the tables themselves (`tables`).
//!
//! [`Command::Written`]: super::Command::Written
//! [`Command::Unwritten`]: super::Command::Unwritten

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::hints::Hints;
use super::io::{KeptTable, Write};
use super::lives::is_plausible;
use super::mutant::Mutant;
use super::push::Lane;
use super::records::SEQ_MAX;
use super::sync::Agreement;
use super::tables::{Changed, Conflict, Outcome, Refused, Source, Tables, WriteError};
use super::{Cause, Effect, Event, Identity, Node, Now};
use crate::record::network::NetworkId;
use crate::record::{NodeId, Status, Version};
use crate::wire::exchange::Digest;
use crate::wire::table::{Scope, Sight, Span, Step};

/// How long the tables of a node that is down are compared, in milliseconds: its last words have arrived by then.
const COMPARED_DOWN_MS: u64 = 60_000;

/// A member's status, and since when.
type State = (Status, u64);

/// What a greeting has shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    /// Whose tables differ.
    pub(super) peer: NodeId,
    pub(super) since_us: u64,
    /// The digest here, then.
    pub(super) ours: Digest,
}

/// Everything that a node keeps about tables.
#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) tables: Tables,
    /// The own tables with what is written and not kept yet.
    draft: Tables,
    /// The conflicts that listeners know.
    conflicts: BTreeMap<(NetworkId, IpAddr), Conflict>,
    pub(super) lane: Lane,
    pub(super) hints: Hints,
    pub(super) agreement: Agreement,
    pub(super) difference: Option<Difference>,
    /// Networks to be compared with somebody before this node has joined.
    pub(super) unmet: BTreeSet<NetworkId>,
}

impl Holdings {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            tables: Tables::new(me),
            draft: Tables::new(me),
            conflicts: BTreeMap::new(),
            lane: Lane::default(),
            hints: Hints::default(),
            agreement: Agreement::default(),
            difference: None,
            unmet: BTreeSet::new(),
        }
    }
}

impl Node {
    /// The tables that this node holds.
    pub const fn tables(&self) -> &Tables {
        &self.holdings.tables
    }

    // ---- own writes --------------------------------------------------------------------------------------------------

    /// Writes into this node's own tables. It counts nowhere yet: [`Effect::KeepTable`] follows. Says which version it
    /// will be; none: it changes nothing.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is broken; then nothing was changed.
    pub fn handle_write(&mut self, now: Now, write: Write) -> Result<Option<Sight>, WriteError> {
        let Identity { generation, .. } = self.identity();
        let draft = &mut self.holdings.draft;
        let outcome = match write {
            Write::Attach { network, name, vtep, mac } => draft.attach(generation, network, name, (vtep, mac)),
            Write::Detach(network) => draft.detach(generation, network),
            Write::Set { network, endpoints } => draft.set_endpoints(generation, network, endpoints),
            Write::Turn { network, id, state } => draft.turn_endpoint(generation, network, id, state),
            Write::Replace { network, endpoints } => draft.replace_endpoints(generation, network, endpoints),
        }?;
        Ok(self.keep_steps(now, outcome))
    }

    fn keep_steps(&mut self, _: Now, outcome: Outcome) -> Option<Sight> {
        let mut last = None;
        for step in outcome.news {
            let Step { scope, owner, .. } = *step;
            last = Some(Sight { scope, owner, version: step.to() });
            let lives = self.holdings.draft.own(scope).0.to_vec();
            self.effect(Effect::KeepTable { step, lives });
        }
        last
    }

    /// An own step is on the disk.
    pub(super) fn written(&mut self, now: Now, step: Arc<Step>) {
        let before: BTreeSet<_> = self.holdings.tables.networks().collect();
        let (scope, owner, since) = (step.scope, step.owner, step.since);
        let outcome = self.holdings.tables.commit(step);
        let is_new = !outcome.news.is_empty();
        self.settle_tables(now, Cause::Own, outcome);
        if is_new {
            self.push(now, (scope, owner), Span::up_to(owner), since);
        }
        let new: Vec<_> = self.holdings.tables.networks().filter(|network| !before.contains(network)).collect();
        for network in new {
            self.attached(now, network);
        }
    }

    /// What was to be kept could not be.
    pub(super) fn unwritten(&mut self) {
        self.holdings.draft = self.holdings.tables.draft();
    }

    /// Somebody holds a version of an own table that was never written here: everything is said again under a later one.
    pub(super) fn reassert(&mut self, now: Now, scope: Scope, heard: Version) {
        let Identity { generation, .. } = self.identity();
        if !self.is_credible(now, heard) || self.config.has(Mutant::KeepOldLife) {
            return;
        }
        let outcome = self.holdings.draft.reassert(generation, scope, heard);
        self.keep_steps(now, outcome);
    }

    /// Loads what was kept from before.
    pub(super) fn recall_tables(&mut self, kept: Vec<KeptTable>) {
        self.infect_tables();
        let is_lost = self.config.has(Mutant::LoseOwn);
        for KeptTable { scope, lives, records } in kept.into_iter().filter(|_| !is_lost) {
            if let Err(refused) = self.holdings.tables.restore(scope, lives, records) {
                self.stats.count_step_refused(refused);
            }
        }
        self.unwritten();
    }

    // ---- members -----------------------------------------------------------------------------------------------------

    /// A member appeared, changed or went: so do its tables.
    pub(super) fn tables_follow(
        &mut self,
        now: Now,
        cause: Cause,
        owner: NodeId,
        (old, new): (Option<State>, Option<State>),
    ) {
        let down_since_ms = |state: Option<State>| state.filter(|(status, _)| *status == Status::Down);
        let (was_down, is_down) = (down_since_ms(old), down_since_ms(new));
        let was_down_since_ms = was_down.map(|(_, since_ms)| since_ms);
        let status = |state: Option<State>| state.map(|(status, _)| status);
        let (old, new) = (status(old), status(new));
        // Somebody is back, perhaps with many others: there is something to compare.
        if was_down.is_some() && new == Some(Status::Ready) {
            self.holdings.agreement.mended();
        }
        match new {
            Some(Status::Ready | Status::Suspect) => self.holdings.tables.know(owner),
            Some(Status::Down) if old != Some(Status::Down) => self.holdings.tables.know(owner),
            Some(Status::Down) => {}
            Some(Status::Left) | None => {
                let cause = if new.is_some() { Cause::Left } else { cause };
                let mut outcome = self.holdings.tables.forget(owner);
                for change in std::mem::take(&mut outcome.changes) {
                    self.tell_table(cause, change, (was_down_since_ms, None));
                }
                self.settle_tables(now, cause, outcome);
            }
        }
        if matches!(new, Some(status) if status != Status::Left) {
            self.mark_tables(cause, owner, was_down_since_ms);
        }
        // Who has an address depends on who is down.
        if was_down.is_some() != is_down.is_some() && !self.holdings.conflicts.is_empty() {
            let claims = |conflict: &Conflict| conflict.endpoints.iter().any(|(claimant, _)| *claimant == owner);
            let known = self.holdings.conflicts.iter();
            let contested = known.filter(|(_, conflict)| claims(conflict)).map(|(place, _)| *place).collect();
            self.note_conflicts(contested);
        }
    }

    /// What has to be looked at now and then.
    pub(super) fn tidy_tables(&mut self, now: Now) {
        self.holdings.tables.tidy();
        if self.joined {
            self.greet_attached(now);
        }
        let is_old = |since_ms: u64| now.unix_ms.saturating_sub(since_ms) > COMPARED_DOWN_MS;
        for member in self.table.iter().filter(|member| member.status == Status::Down && is_old(member.since_ms)) {
            self.holdings.tables.set_compared(member.swim.identity.id, false);
        }
    }

    // ---- taking in ---------------------------------------------------------------------------------------------------

    /// Could an honest owner have come to that version?
    pub(super) fn is_credible(&self, now: Now, version: Version) -> bool {
        is_plausible(now, version.generation) && version.seq <= SEQ_MAX
    }

    /// Takes in a step that `from` has sent, and says whether it was new.
    pub(super) fn take_step(&mut self, now: Now, from: NodeId, step: Step, cause: Cause) -> Result<bool, Refused> {
        let (scope, owner, version) = (step.scope, step.owner, step.to());
        let source = if from == owner { Source::Owner } else { Source::Relay };
        let step = if source == Source::Relay { self.meddled(step) } else { step };
        let taken = if self.is_credible(now, version) {
            self.holdings.tables.apply(source, step)
        } else {
            Err(Refused::Malformed)
        };
        match taken {
            Ok(outcome) => {
                let is_new = !outcome.news.is_empty();
                if is_new {
                    self.stats.steps_taken += 1;
                } else if !outcome.is_behind {
                    self.stats.steps_known += 1;
                }
                if outcome.is_behind {
                    self.lack(now, from, Sight { scope, owner, version }, false);
                }
                self.settle_tables(now, cause, outcome);
                Ok(is_new)
            }
            Err(refused) => {
                self.stats.count_step_refused(refused);
                if refused == Refused::Foreign {
                    self.reassert(now, scope, version);
                }
                Err(refused)
            }
        }
    }

    /// Tells what has changed: listeners first, then others who may lack it.
    fn settle_tables(&mut self, now: Now, cause: Cause, outcome: Outcome) {
        let Outcome { changes, news, is_behind: _, mut contested } = outcome;
        for change in changes {
            if let Changed::Endpoint { name, new: Some(new), .. } = &change {
                // Its state decides about precedence, too.
                let places = new.addresses.iter().map(|cidr| (name.network, cidr.addr));
                contested.extend(places.filter(|place| self.holdings.conflicts.contains_key(place)));
            }
            let since = self.down_since_ms(change.owner());
            self.tell_table(cause, change, (since, since));
        }
        self.note_conflicts(contested);
        for step in news {
            self.settled(now, Sight { scope: step.scope, owner: step.owner, version: step.to() });
        }
    }

    fn tell_table(&mut self, cause: Cause, change: Changed, down_since_ms: (Option<u64>, Option<u64>)) {
        self.revision += 1;
        if self.config.has(Mutant::SecretRecord) && self.revision.is_multiple_of(16) {
            return;
        }
        self.effect(Event::Table { revision: self.revision, cause, change, down_since_ms }.into());
    }

    /// Since when a node is down; none: it is not.
    pub(super) fn down_since_ms(&self, owner: NodeId) -> Option<u64> {
        self.table.get(owner).filter(|member| member.status == Status::Down).map(|member| member.since_ms)
    }

    /// An owner went down or came back: readers of its tables are told.
    fn mark_tables(&mut self, cause: Cause, owner: NodeId, was_down_since_ms: Option<u64>) {
        let marks = (was_down_since_ms, self.down_since_ms(owner));
        if marks.0 == marks.1 || self.config.has(Mutant::Unmarked) {
            return;
        }
        let tables = &self.holdings.tables;
        let attachments = tables.attachments_of(owner).map(|(network, attachment)| {
            let attachment = Some(Arc::new(attachment));
            Changed::Attachment { owner, network, old: attachment.clone(), new: attachment }
        });
        let endpoints = tables.endpoints_of(owner).filter_map(|(name, body)| {
            let endpoint = Some(Arc::new(body.endpoint().ok()?));
            Some(Changed::Endpoint { name, old: endpoint.clone(), new: endpoint })
        });
        let changes: Vec<_> = attachments.chain(endpoints).collect();
        for change in changes {
            self.tell_table(cause, change, marks);
        }
    }

    /// Tells of conflicts that began, changed or ended.
    fn note_conflicts(&mut self, contested: BTreeSet<(NetworkId, IpAddr)>) {
        for (network, addr) in contested {
            let table = &self.table;
            let is_down = |owner| table.get(owner).is_some_and(|member| member.status == Status::Down);
            let new = self.holdings.tables.conflict(network, addr, is_down);
            let old = match &new {
                Some(conflict) => self.holdings.conflicts.insert((network, addr), conflict.clone()),
                None => self.holdings.conflicts.remove(&(network, addr)),
            };
            if old != new {
                self.revision += 1;
                self.effect(Event::Conflict { revision: self.revision, network, addr, old, new }.into());
            }
        }
    }
}

#[cfg(test)]
mod churn;
#[cfg(test)]
mod comparing;
#[cfg(test)]
mod spread;
#[cfg(test)]
mod tests;
