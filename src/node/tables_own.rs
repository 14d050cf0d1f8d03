//! What this node writes into its own tables: attachments and endpoints.
//!
//! Every write is one version step, however many records it changes, and is taken in like anybody's: what it returns is to
//! be told to readers and to other nodes, and kept on the disk. A write that changes nothing is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::ledger::{Fit, Ledger, Usage};
use super::tables::{OWNER_BYTES_MAX, OWNER_RECORDS_MAX, Outcome, Tables, WriteError};
use crate::record::network::{
    ATTACHMENTS_MAX, Attachment, Endpoint, EndpointId, EndpointName, EndpointState, Mac, NetworkId,
};
use crate::record::{NodeId, Version};
use crate::wire::table::{Body, Change, Key, Scope, Step};

impl Tables {
    /// Attaches this node to a network, or changes the name or the addresses of its attachment. From now on the network's
    /// endpoints are held.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is broken.
    pub fn attach(
        &mut self,
        generation: u64,
        network: NetworkId,
        name: String,
        (vtep, mac): (IpAddr, Option<Mac>),
    ) -> Result<Outcome, WriteError> {
        let present = self.epoch(network, self.me);
        let epoch = present.unwrap_or_else(|| self.own_floor().max(Version { generation, seq: 0 }));
        let body = Body::of_attachment(&Attachment { name, vtep, mac, epoch })?;
        let attached = self.ledger(Scope::Attachments, self.me).map_or(0, |own| own.usage().records);
        if present.is_none() && attached >= ATTACHMENTS_MAX {
            return Err(WriteError::TooManyNetworks);
        }
        let change = Change { key: network.into(), body: Some(body) };
        self.write(generation, Scope::Attachments, vec![change])
    }

    /// Detaches this node from a network: its endpoints go, and the others' are not held any more.
    ///
    /// # Errors
    /// [`WriteError::NotAttached`].
    pub fn detach(&mut self, generation: u64, network: NetworkId) -> Result<Outcome, WriteError> {
        self.epoch(network, self.me).ok_or(WriteError::NotAttached(network))?;
        self.write(generation, Scope::Attachments, vec![Change { key: network.into(), body: None }])
    }

    /// Changes nothing of an endpoint of this node but its state.
    ///
    /// # Errors
    /// [`WriteError::NoEndpoint`].
    pub fn turn_endpoint(
        &mut self,
        generation: u64,
        network: NetworkId,
        id: EndpointId,
        state: EndpointState,
    ) -> Result<Outcome, WriteError> {
        let name = EndpointName { network, owner: self.me, id };
        let endpoint = self.endpoint(name).ok_or(WriteError::NoEndpoint(id))?;
        self.set_endpoints(generation, network, [(id, Some(Endpoint { state, ..endpoint }))])
    }

    /// Sets endpoints of this node, and deletes those that are none.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is broken; then none of them was written.
    pub fn set_endpoints(
        &mut self,
        generation: u64,
        network: NetworkId,
        endpoints: impl IntoIterator<Item = (EndpointId, Option<Endpoint>)>,
    ) -> Result<Outcome, WriteError> {
        self.epoch(network, self.me).ok_or(WriteError::NotAttached(network))?;
        let changes = endpoints.into_iter().map(|(id, endpoint)| {
            let body = endpoint.as_ref().map(Body::of_endpoint).transpose()?;
            Ok(Change { key: id.into(), body })
        });
        let changes: Vec<_> = changes.collect::<Result<_, WriteError>>()?;
        self.write(generation, Scope::Network(network), changes)
    }

    /// Makes these all endpoints of this node in a network.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is broken; then nothing was changed.
    pub fn replace_endpoints(
        &mut self,
        generation: u64,
        network: NetworkId,
        endpoints: BTreeMap<EndpointId, Endpoint>,
    ) -> Result<Outcome, WriteError> {
        let own = self.ledger(Scope::Network(network), self.me);
        let present = own.into_iter().flat_map(Ledger::iter).map(|(key, _)| key.endpoint());
        let gone: Vec<_> = present.filter(|id| !endpoints.contains_key(id)).map(|id| (id, None)).collect();
        let kept = endpoints.into_iter().map(|(id, endpoint)| (id, Some(endpoint)));
        self.set_endpoints(generation, network, gone.into_iter().chain(kept))
    }

    /// Others hold a version of an own table that this node has not written: it came back with an older disk or with none,
    /// or somebody forged it. Everything is said again under a later version. Nothing, if the version is known here.
    pub fn reassert(&mut self, generation: u64, scope: Scope, heard: Version) -> Outcome {
        let mut outcome = Outcome::default();
        let nothing = Ledger::default();
        if self.shelf(scope).is_none() {
            return outcome;
        }
        let own = self.ledger(scope, self.me).unwrap_or(&nothing);
        // One that is older, and left out of this table's history, is replaced by whatever is written here.
        if heard > own.version() && !self.is_past(scope, self.me, heard) {
            let step = own.again((self.me, scope), generation, heard);
            self.install(Arc::new(step), &mut outcome);
        }
        outcome
    }

    fn write(&mut self, generation: u64, scope: Scope, changes: Vec<Change>) -> Result<Outcome, WriteError> {
        let floor = match scope {
            Scope::Attachments => Version::NONE,
            Scope::Network(network) => self.epoch(network, self.me).unwrap_or_default(),
        };
        let nothing = Ledger::default();
        let own = self.ledger(scope, self.me).unwrap_or(&nothing);
        let mut outcome = Outcome::default();
        let Some(step) = own.write((self.me, scope), generation, floor, changes) else { return Ok(outcome) };
        let after = self.usage_of(self.me).minus(own.usage()).plus(own.usage_after(&step));
        check_quota(after)?;
        self.install(Arc::new(step), &mut outcome);
        Ok(outcome)
    }

    /// Takes in an own step that is on the disk now.
    pub(super) fn commit(&mut self, step: Arc<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let nothing = Ledger::default();
        let fit = self.ledger(step.scope, self.me).unwrap_or(&nothing).fit(&step);
        let is_own = step.owner == self.me && self.shelf(step.scope).is_some();
        if is_own && matches!(fit, Fit::Extends | Fit::Replaces) {
            self.install(step, &mut outcome);
        }
        outcome
    }

    /// The own tables alone: what is written is tried on them before it is stored.
    pub(super) fn draft(&self) -> Self {
        let mut draft = Self::new(self.me);
        draft.own_floor = self.own_floor;
        for scope in self.scopes() {
            let (lives, records) = self.own(scope);
            if !lives.is_empty() {
                let records = records.map(|(key, body)| (key, body.clone())).collect();
                let restored = draft.restore(scope, lives.to_vec(), records);
                debug_assert_eq!(restored, Ok(()), "an own table is not its owner's");
            }
        }
        draft
    }

    /// An own table, as it has to be on the disk to be continued by a later life: the tips of its lives, and all records.
    pub fn own(&self, scope: Scope) -> (&[Version], impl Iterator<Item = (Key, &Body)>) {
        let own = self.ledger(scope, self.me);
        (own.map_or(&[][..], Ledger::lives), own.into_iter().flat_map(Ledger::iter))
    }

    /// The step from what a reader has of a table to what is held here; none: it has as much, or nothing is held.
    pub fn step(&self, scope: Scope, owner: NodeId, since: Version) -> Option<Step> {
        self.ledger(scope, owner)?.step(owner, scope, since)
    }
}

fn check_quota(after: Usage) -> Result<(), WriteError> {
    if after.records > OWNER_RECORDS_MAX {
        return Err(WriteError::Records(after.records));
    }
    if after.bytes > OWNER_BYTES_MAX { Err(WriteError::Bytes(after.bytes)) } else { Ok(()) }
}
