//! All tables that a node holds: everybody's attachments, and the endpoints of the networks that it is attached to.
//!
//! A table belongs to one owner and lies in one [`Scope`]; how it is numbered and merged stands in `ledger`. This module
//! decides whose word counts, what is held and shown, and how much; `compare` finds what two nodes lack. All of it is pure.
//!
//! # Whose word counts
//! Only an owner makes versions of its tables. What it says itself ([`Source::Owner`]: the sender of a sealed datagram, the
//! certificate of a TLS peer) and what others pass on ([`Source::Relay`]) is taken alike: relays are members, and a version
//! has one content. Where two contents appear under one version, a relay was wrong, and the owner's word alone replaces
//! what is held. Nobody's word changes this node's own tables: steps of them are refused, and if they name a version that
//! was never written here ([`Tables::reassert`]), everything is said again under a later one.
//!
//! # What is held and shown
//! * Attachments are held of every known owner; endpoints of a network only while this node is attached to it.
//! * An owner's endpoints are shown while its attachment is. Steps that arrive earlier are held and not shown, compared or
//!   passed on to those who compare. An attachment carries an *epoch*: versions up to it belong to an earlier attachment,
//!   or to a life whose disk is gone, and they go the moment that the attachment is heard.
//! * A new life that finds its disk continues its tables and their epochs; nothing is said again. One that finds none
//!   begins at (its generation, 1); hearing of its former attachments it declares them gone.
//! * Whoever forgets a table keeps its version as a *floor*: nothing older is taken in again.
//!
//! That an owner is down changes nothing here; whoever reads joins with the list of members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::claims::Claims;
pub use super::claims::Conflict;
pub use super::compare::{Resolved, STEPS_BYTES_MAX};
pub use super::ledger::Usage;
use super::ledger::{Fit, Ledger, Turn};
use super::mutant::Mutant;
use super::owners::Owners;
use super::parked::Parked;
pub use super::parked::{PARKED_BYTES_MAX, PARKED_MAX, PARKED_PER_TABLE_MAX};
use crate::record::network::{ATTACHMENTS_MAX, Attachment, Endpoint, EndpointName, NetworkError, NetworkId};
use crate::record::{NodeId, Version};
use crate::wire::table::{Body, CHANGES_MAX, Change, Key, Scope, Step};

/// Records that one owner may have, in all its tables together: a node runs some hundred tasks.
pub const OWNER_RECORDS_MAX: usize = CHANGES_MAX;
/// Bytes that one owner's records may have together: its whole tables fit into one message.
pub const OWNER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records held of all owners: a hundred times what the largest fleet has been measured with.
pub const RECORDS_MAX: usize = 1_048_576;
/// Bytes of all owners' records.
pub const BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Owners known: as many as there may be members.
pub const OWNERS_MAX: usize = 65_536;
/// Versions of forgotten tables that are remembered; beyond that the lowest go first.
pub const FLOORS_MAX: usize = 65_536;

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The table's owner, proven by key or certificate.
    Owner,
    /// Another member.
    Relay,
}

/// Why a step does not count. Nothing was changed, except that a table over its quota is not asked for again at that
/// version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// No owner makes such a step.
    Malformed,
    /// It is about this node's own table, and this node has not made it.
    Foreign,
    /// Its owner is not known.
    UnknownOwner,
    /// This node is not attached to its network.
    NotAttached,
    /// Its owner would have too much.
    Quota,
    /// There is no room for more.
    Full,
}

impl Refused {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::Foreign, Self::UnknownOwner, Self::NotAttached, Self::Quota, Self::Full];

    /// The label's value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::UnknownOwner => "unknown-owner",
            Self::NotAttached => "not-attached",
            Self::Quota => "quota",
            Self::Full => "full",
        }
    }
}

/// Why this node's own write was refused. The caller is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A record breaks a limit.
    #[error(transparent)]
    Record(#[from] NetworkError),
    /// There is no such attachment.
    #[error("this node is not attached to network {0}; 'gossipctl network attach' attaches it")]
    NotAttached(NetworkId),
    /// There is no such endpoint.
    #[error("this node has no endpoint {0} any more")]
    NoEndpoint(crate::record::network::EndpointId),
    /// There are too many attachments.
    #[error("this node is attached to {ATTACHMENTS_MAX} networks: no more are allowed")]
    TooManyNetworks,
    /// There would be too many records.
    #[error("this node would have {0} records: at most {OWNER_RECORDS_MAX} are allowed")]
    Records(usize),
    /// There would be too many bytes.
    #[error("this node's records would have {0} bytes: at most {OWNER_BYTES_MAX} are allowed")]
    Bytes(usize),
}

/// Something that readers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// An attachment appeared, changed or went.
    Attachment {
        /// Whose.
        owner: NodeId,
        /// To which network.
        network: NetworkId,
        /// Before.
        old: Option<Arc<Attachment>>,
        /// After.
        new: Option<Arc<Attachment>>,
    },
    /// An endpoint appeared, changed or went.
    Endpoint {
        /// Which.
        name: EndpointName,
        /// Before.
        old: Option<Arc<Endpoint>>,
        /// After.
        new: Option<Arc<Endpoint>>,
    },
}

impl Changed {
    /// Whose it is.
    pub const fn owner(&self) -> NodeId {
        match self {
            Self::Attachment { owner, .. } => *owner,
            Self::Endpoint { name, .. } => name.owner,
        }
    }
}

/// What an input did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What readers see, in order.
    pub changes: Vec<Changed>,
    /// Steps that were new here: others may lack them too.
    pub news: Vec<Arc<Step>>,
    /// Something is missing before this step: whoever sent it has it.
    pub is_behind: bool,
    /// Addresses that several claim now or did until now; see [`Tables::conflict`].
    pub contested: BTreeSet<(NetworkId, IpAddr)>,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) ledgers: BTreeMap<NodeId, Ledger>,
    /// The sum of what is counted of all ledgers.
    pub(super) digest: u128,
    claims: Claims,
}

/// All tables that a node holds.
#[derive(Debug)]
pub struct Tables {
    pub(super) me: NodeId,
    /// The highest version of those own tables that were dropped in this life.
    pub(super) own_floor: Version,
    attachments: Shelf,
    networks: BTreeMap<NetworkId, Shelf>,
    owners: Owners,
    /// Who is attached to what, from which version on.
    attached: BTreeMap<NetworkId, BTreeMap<NodeId, Version>>,
    floors: BTreeMap<(Scope, NodeId), Version>,
    parked: Parked,
    usage: Usage,
    /// A fault on purpose.
    pub(super) flaw: Option<Mutant>,
}

impl Tables {
    /// Those of a node that has nothing yet.
    pub fn new(me: NodeId) -> Self {
        let mut tables = Self {
            me,
            own_floor: Version::NONE,
            attachments: Shelf::default(),
            networks: BTreeMap::new(),
            owners: Owners::default(),
            attached: BTreeMap::new(),
            floors: BTreeMap::new(),
            parked: Parked::default(),
            usage: Usage::default(),
            flaw: None,
        };
        tables.know(me);
        tables
    }

    /// Takes in an own table as it was kept on the disk: the tips of its lives, and all of its records. Attachments first.
    ///
    /// # Errors
    /// [`Refused`] when it is nothing that this node wrote and kept.
    pub fn restore(&mut self, scope: Scope, lives: Vec<Version>, records: Vec<(Key, Body)>) -> Result<(), Refused> {
        let mut changes: Vec<_> = records.into_iter().map(|(key, body)| Change { key, body: Some(body) }).collect();
        changes.sort_by_key(|change| change.key);
        let step = Step { owner: self.me, scope, since: Version::NONE, lives, changes };
        step.check().map_err(|_| Refused::Malformed)?;
        if self.shelf(scope).is_none() {
            return Err(Refused::NotAttached);
        }
        if self.is_past(scope, self.me, step.to()) {
            return Err(Refused::Malformed);
        }
        self.judge_quota(&step)?;
        self.install(Arc::new(step), &mut Outcome::default());
        Ok(())
    }

    // ---- owners --------------------------------------------------------------------------------------------------

    /// Room for so many more owners, and for no others.
    pub(super) fn reserve_owners(&mut self, more: usize) {
        self.owners.reserve_exact(more);
    }

    /// An owner is a member: its tables may come. Its attachments and endpoints are compared with others' from now on.
    pub fn know(&mut self, owner: NodeId) {
        self.owners.know(owner);
        self.set_compared(owner, true);
    }

    /// Do an owner's tables take part in comparisons?
    pub fn is_compared(&self, owner: NodeId) -> bool {
        self.owners.is_compared(owner)
    }

    /// Says whether an owner's tables take part in comparisons. To be switched off where others may already have
    /// forgotten what is still held here, or the two would never agree.
    pub fn set_compared(&mut self, owner: NodeId, is_compared: bool) {
        if !self.owners.set_compared(owner, is_compared) {
            return;
        }
        let scopes: Vec<_> = self.scopes().collect();
        scopes.into_iter().for_each(|scope| self.recount(scope, owner));
    }

    /// An owner has left or was removed: its tables go. Should it come back, nothing older than what was held counts.
    pub fn forget(&mut self, owner: NodeId) -> Outcome {
        let mut outcome = Outcome::default();
        if owner == self.me {
            return outcome;
        }
        let scopes: Vec<_> = self.scopes().rev().collect();
        for scope in scopes {
            self.drop_table(scope, owner, &mut outcome);
        }
        self.parked.drop_where(|_, whose| whose == owner);
        self.owners.forget(owner);
        outcome
    }

    /// Drops what is held of networks that its owner is not attached to: to be called now and then.
    pub fn tidy(&mut self) {
        let strays: Vec<_> = self
            .networks
            .iter()
            .flat_map(|(network, shelf)| shelf.ledgers.keys().map(|owner| (*network, *owner)))
            .filter(|(network, owner)| self.epoch(*network, *owner).is_none())
            .collect();
        for (network, owner) in strays {
            self.drop_table(Scope::Network(network), owner, &mut Outcome::default());
        }
    }

    // ---- others' steps -------------------------------------------------------------------------------------------

    /// Takes in a step, from whomever it came.
    ///
    /// # Errors
    /// [`Refused`] when it does not count.
    pub fn apply(&mut self, source: Source, step: Step) -> Result<Outcome, Refused> {
        step.check().map_err(|_| Refused::Malformed)?;
        let (owner, scope) = (step.owner, step.scope);
        let mut outcome = Outcome::default();
        if !self.knows(owner) {
            return Err(Refused::UnknownOwner);
        }
        if self.shelf(scope).is_none() {
            return Err(Refused::NotAttached);
        }
        if self.is_past(scope, owner, step.to()) {
            return Ok(outcome);
        }
        if owner == self.me {
            let is_echo = self.ledger(scope, owner).is_some_and(|own| own.has_been(step.to()));
            return if is_echo { Ok(outcome) } else { Err(Refused::Foreign) };
        }
        let held = self.ledger(scope, owner);
        let fit = held.map_or_else(|| Ledger::default().fit(&step), |held| held.fit(&step));
        // Two contents under one version: the owner knows.
        let is_settled = source == Source::Owner
            && step.is_whole()
            && held.is_some_and(|held| held.version() == step.to() && held.differs(&step));
        match fit {
            Fit::Old if !is_settled && !self.has(Mutant::OlderStep) => {}
            Fit::Early if !self.has(Mutant::Gap) => {
                outcome.is_behind = true;
                self.parked.park(step);
            }
            Fit::Old | Fit::Early | Fit::Extends | Fit::Replaces => {
                self.judge_quota(&step)?;
                self.install(Arc::new(step), &mut outcome);
                self.release(scope, owner, &mut outcome);
            }
        }
        Ok(outcome)
    }

    /// Is that version of a table gone for good?
    pub(super) fn is_past(&self, scope: Scope, owner: NodeId, version: Version) -> bool {
        let is_of_earlier_epoch = match scope {
            Scope::Attachments => false,
            Scope::Network(network) => self.epoch(network, owner).is_some_and(|epoch| version <= epoch),
        };
        is_of_earlier_epoch || self.floor(scope, owner).is_some_and(|floor| version < floor)
    }

    /// How far a table was that was held and is forgotten.
    pub(super) fn floor(&self, scope: Scope, owner: NodeId) -> Option<Version> {
        self.floors.get(&(scope, owner)).copied()
    }

    fn judge_quota(&mut self, step: &Step) -> Result<(), Refused> {
        let (owner, scope) = (step.owner, step.scope);
        let held = self.ledger(scope, owner);
        let before = held.map(Ledger::usage).unwrap_or_default();
        let after = held.map_or_else(|| Ledger::default().usage_after(step), |held| held.usage_after(step));
        let of_owner = self.usage_of(owner).minus(before).plus(after);
        let of_all = self.usage.minus(before).plus(after);
        if of_owner.records > OWNER_RECORDS_MAX
            || of_owner.bytes > OWNER_BYTES_MAX
            || (scope == Scope::Attachments && after.records > ATTACHMENTS_MAX)
        {
            if let Some(shelf) = self.shelf_mut(scope) {
                shelf.ledgers.entry(owner).or_default().refused = step.to();
            }
            return Err(Refused::Quota);
        }
        if of_all.records > RECORDS_MAX || of_all.bytes > BYTES_MAX { Err(Refused::Full) } else { Ok(()) }
    }

    /// Takes in a step that fits, and tells what it changes.
    pub(super) fn install(&mut self, step: Arc<Step>, outcome: &mut Outcome) {
        let (owner, scope) = (step.owner, step.scope);
        let Some(shelf) = self.shelf_mut(scope) else { return };
        let ledger = shelf.ledgers.entry(owner).or_default();
        let before = ledger.usage();
        let turns = ledger.take(&step);
        let after = ledger.usage();
        self.account(owner, before, after);
        self.floors.remove(&(scope, owner));
        self.recount(scope, owner);
        for turn in turns {
            match scope {
                Scope::Attachments => self.attachment_turned(owner, &turn, outcome),
                Scope::Network(network) if self.epoch(network, owner).is_some() => {
                    self.show(network, owner, &turn, outcome);
                }
                Scope::Network(_) => {}
            }
        }
        outcome.news.push(step);
    }

    /// Takes in the steps of a table whose turn has come.
    fn release(&mut self, scope: Scope, owner: NodeId, outcome: &mut Outcome) {
        loop {
            let shelf = match scope {
                Scope::Attachments => Some(&self.attachments),
                Scope::Network(network) => self.networks.get(&network),
            };
            let held = shelf.and_then(|shelf| shelf.ledgers.get(&owner));
            let Some(step) = held.and_then(|held| self.parked.ripe(scope, owner, held)) else { return };
            if self.judge_quota(&step).is_ok() {
                self.install(step, outcome);
            }
        }
    }

    fn account(&mut self, owner: NodeId, before: Usage, after: Usage) {
        self.usage = self.usage.minus(before).plus(after);
        self.owners.account(owner, before, after);
    }

    /// An endpoint that is shown appeared, changed or went.
    fn show(&mut self, network: NetworkId, owner: NodeId, turn: &Turn, outcome: &mut Outcome) {
        let read = |body: &Option<Body>| body.as_ref()?.endpoint().ok().map(Arc::new);
        let (old, new) = (read(&turn.old), read(&turn.new));
        let id = turn.key.endpoint();
        if let Some(shelf) = self.networks.get_mut(&network) {
            let contested = shelf.claims.turn((owner, id), old.as_deref(), new.as_deref());
            outcome.contested.extend(contested.into_iter().map(|addr| (network, addr)));
        }
        if old != new {
            let name = EndpointName { network, owner, id };
            outcome.changes.push(Changed::Endpoint { name, old, new });
        }
    }

    /// An attachment appeared, changed or went: so do its endpoints.
    fn attachment_turned(&mut self, owner: NodeId, turn: &Turn, outcome: &mut Outcome) {
        let read = |body: &Option<Body>| body.as_ref()?.attachment().ok().map(Arc::new);
        let (old, new) = (read(&turn.old), read(&turn.new));
        let network = turn.key.network();
        let scope = Scope::Network(network);
        let epoch = new.as_ref().map_or(Version::NONE, |new| new.epoch);
        let is_told = (old != new).then_some(Changed::Attachment { owner, network, old, new });
        if turn.new.is_none() {
            self.drop_table(scope, owner, outcome);
            if owner == self.me {
                self.drop_shelf(network, outcome);
            }
            outcome.changes.extend(is_told);
            self.detached(network, owner);
            return;
        }
        if self.ledger(scope, owner).is_some_and(|held| held.version() <= epoch) {
            self.drop_table(scope, owner, outcome);
        }
        outcome.changes.extend(is_told);
        if owner == self.me {
            self.networks.entry(network).or_default();
        }
        let was = self.attached.entry(network).or_default().insert(owner, epoch);
        if was.is_none() {
            let held =
                self.ledger(scope, owner).map(|held| held.iter().map(|(key, body)| (key, body.clone())).collect());
            let held: Vec<_> = held.unwrap_or_default();
            for (key, body) in held {
                self.show(network, owner, &Turn { key, old: None, new: Some(body) }, outcome);
            }
        }
        self.recount(scope, owner);
    }

    fn detached(&mut self, network: NetworkId, owner: NodeId) {
        if let Some(owners) = self.attached.get_mut(&network) {
            owners.remove(&owner);
            if owners.is_empty() {
                self.attached.remove(&network);
            }
        }
    }

    /// This node is not attached to that network any more: it holds nothing of it.
    fn drop_shelf(&mut self, network: NetworkId, outcome: &mut Outcome) {
        if self.has(Mutant::KeepNetwork) {
            return;
        }
        let owners = self.networks.get(&network).map(|shelf| shelf.ledgers.keys().copied().collect());
        let owners: Vec<_> = owners.unwrap_or_default();
        for owner in owners {
            self.drop_table(Scope::Network(network), owner, outcome);
        }
        self.networks.remove(&network);
        self.parked.drop_where(|scope, _| scope == Scope::Network(network));
    }

    /// Forgets what is held of a table, except how far it was.
    fn drop_table(&mut self, scope: Scope, owner: NodeId, outcome: &mut Outcome) {
        let Some(shelf) = self.shelf_mut(scope) else { return };
        let Some(ledger) = shelf.ledgers.remove(&owner) else { return };
        shelf.digest = shelf.digest.wrapping_sub(ledger.counted);
        self.account(owner, ledger.usage(), Usage::default());
        for (key, body) in ledger.iter() {
            let turn = Turn { key, old: Some(body.clone()), new: None };
            match scope {
                Scope::Attachments => self.attachment_turned(owner, &turn, outcome),
                Scope::Network(network) if self.epoch(network, owner).is_some() => {
                    self.show(network, owner, &turn, outcome);
                }
                Scope::Network(_) => {}
            }
        }
        if owner == self.me {
            self.own_floor = self.own_floor.max(ledger.version());
        } else if ledger.version() != Version::NONE {
            self.set_floor(scope, owner, ledger.version());
        }
    }

    fn set_floor(&mut self, scope: Scope, owner: NodeId, version: Version) {
        self.floors.insert((scope, owner), version);
        if self.floors.len() > FLOORS_MAX {
            let lowest = self.floors.iter().min_by_key(|(_, version)| **version).map(|(key, _)| *key);
            lowest.and_then(|key| self.floors.remove(&key));
        }
    }

    /// Brings what a table adds to its scope's digest up to date: nothing while its owner is not compared, or not attached.
    fn recount(&mut self, scope: Scope, owner: NodeId) {
        let is_shown = match scope {
            Scope::Attachments => true,
            Scope::Network(network) => self.epoch(network, owner).is_some(),
        };
        let counts = is_shown && self.owners.is_compared(owner);
        let is_blind = self.has(Mutant::BlindDigest);
        let Some(shelf) = self.shelf_mut(scope) else { return };
        let Some(ledger) = shelf.ledgers.get_mut(&owner) else { return };
        let counted = match counts && ledger.version() != Version::NONE {
            true if !is_blind => ledger.share(scope, owner),
            is_counted => u128::from(is_counted) * u128::from_be_bytes(*owner.as_bytes()),
        };
        let before = std::mem::replace(&mut ledger.counted, counted);
        shelf.digest = shelf.digest.wrapping_sub(before).wrapping_add(counted);
    }

    // ---- shared with the other parts -----------------------------------------------------------------------------

    /// What is held, in order: attachments first.
    pub(super) fn scopes(&self) -> impl DoubleEndedIterator<Item = Scope> {
        std::iter::once(Scope::Attachments).chain(self.networks.keys().copied().map(Scope::Network))
    }

    pub(super) fn shelf(&self, scope: Scope) -> Option<&Shelf> {
        match scope {
            Scope::Attachments => Some(&self.attachments),
            Scope::Network(network) => self.networks.get(&network),
        }
    }

    fn shelf_mut(&mut self, scope: Scope) -> Option<&mut Shelf> {
        match scope {
            Scope::Attachments => Some(&mut self.attachments),
            Scope::Network(network) => self.networks.get_mut(&network),
        }
    }

    pub(super) fn ledger(&self, scope: Scope, owner: NodeId) -> Option<&Ledger> {
        self.shelf(scope)?.ledgers.get(&owner)
    }

    /// From which version on an owner's endpoints count; none: it is not attached.
    pub(super) fn epoch(&self, network: NetworkId, owner: NodeId) -> Option<Version> {
        self.attached.get(&network)?.get(&owner).copied()
    }

    pub(super) const fn own_floor(&self) -> Version {
        self.own_floor
    }

    /// Who claims an address of a network.
    pub(super) fn claims(&self, network: NetworkId) -> Option<&Claims> {
        self.networks.get(&network).map(|shelf| &shelf.claims)
    }

    pub(super) fn owners_attached(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.attached.get(&network).into_iter().flat_map(BTreeMap::keys).copied()
    }

    pub(super) fn usage_of(&self, owner: NodeId) -> Usage {
        self.owners.usage(owner)
    }

    /// Is that owner known?
    pub fn knows(&self, owner: NodeId) -> bool {
        self.owners.knows(owner)
    }

    /// What is held of all owners.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Steps that wait for an earlier one.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }
}

#[cfg(test)]
mod scenes;
#[cfg(test)]
mod tests;
