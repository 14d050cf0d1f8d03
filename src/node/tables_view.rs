//! What readers get from the tables: attachments, endpoints, who has which address, and who claims the same one.
//!
//! Only what is shown: of owners whose attachment is known. Whether an owner is down is for the reader to join.

use std::net::IpAddr;

use super::ledger::Ledger;
use super::tables::{Conflict, Tables};
use crate::record::network::{Attachment, Endpoint, EndpointId, EndpointName, EndpointState, NetworkId};
use crate::record::{NodeId, Version};
use crate::wire::table::{Body, Key, Scope};

impl Tables {
    /// The networks whose endpoints are held here: those that this node is attached to.
    pub fn networks(&self) -> impl Iterator<Item = NetworkId> {
        self.scopes().filter_map(|scope| match scope {
            Scope::Attachments => None,
            Scope::Network(network) => Some(network),
        })
    }

    /// The nodes attached to a network, by id.
    pub fn attached(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.owners_attached(network)
    }

    /// Is that node attached to the network?
    pub fn is_attached(&self, network: NetworkId, owner: NodeId) -> bool {
        self.epoch(network, owner).is_some()
    }

    /// What a node says of its attachment to a network.
    pub fn attachment(&self, network: NetworkId, owner: NodeId) -> Option<Attachment> {
        self.ledger(Scope::Attachments, owner)?.get(network.into())?.attachment().ok()
    }

    /// All attachments, by owner and network.
    pub fn attachments(&self) -> impl Iterator<Item = (NodeId, NetworkId, Attachment)> {
        let shelf = self.shelf(Scope::Attachments);
        let all = shelf.into_iter().flat_map(|shelf| &shelf.ledgers);
        all.flat_map(|(owner, ledger)| ledger.iter().map(|(key, body)| (*owner, key.network(), body)))
            .filter_map(|(owner, network, body)| Some((owner, network, body.attachment().ok()?)))
    }

    /// The attachments of one node, by network.
    pub fn attachments_of(&self, owner: NodeId) -> impl Iterator<Item = (NetworkId, Attachment)> {
        let ledger = self.ledger(Scope::Attachments, owner);
        let all = ledger.into_iter().flat_map(Ledger::iter);
        all.filter_map(|(key, body)| Some((key.network(), body.attachment().ok()?)))
    }

    /// The endpoints of a network, by owner and id, still encoded.
    pub fn endpoints(&self, network: NetworkId) -> impl Iterator<Item = (EndpointName, &Body)> {
        let ledgers = self.shelf(Scope::Network(network)).into_iter().flat_map(|shelf| &shelf.ledgers);
        ledgers.filter(move |(owner, _)| self.is_attached(network, **owner)).flat_map(move |(owner, ledger)| {
            ledger.iter().map(move |(key, body)| (EndpointName { network, owner: *owner, id: key.endpoint() }, body))
        })
    }

    /// The endpoints on one node, in all networks held here.
    pub fn endpoints_of(&self, owner: NodeId) -> impl Iterator<Item = (EndpointName, &Body)> {
        let shown = self.networks().filter(move |network| self.is_attached(*network, owner));
        shown.flat_map(move |network| {
            let ledger = self.ledger(Scope::Network(network), owner);
            let all = ledger.into_iter().flat_map(Ledger::iter);
            all.map(move |(key, body)| (EndpointName { network, owner, id: key.endpoint() }, body))
        })
    }

    /// One endpoint.
    pub fn endpoint(&self, name: EndpointName) -> Option<Endpoint> {
        let EndpointName { network, owner, id } = name;
        self.body(network, owner, id)?.endpoint().ok()
    }

    fn body(&self, network: NetworkId, owner: NodeId, id: EndpointId) -> Option<&Body> {
        self.epoch(network, owner)?;
        self.ledger(Scope::Network(network), owner)?.get(Key::from(id))
    }

    /// The endpoints of that id in a network: one, unless two owners have given the same.
    pub fn find(&self, network: NetworkId, id: EndpointId) -> impl Iterator<Item = EndpointName> {
        let owners = self.owners_attached(network).filter(move |owner| self.body(network, *owner, id).is_some());
        owners.map(move |owner| EndpointName { network, owner, id })
    }

    /// The endpoints that have an address in a network, in order of precedence: the first has it.
    pub fn holders(
        &self,
        network: NetworkId,
        addr: IpAddr,
        is_down: impl Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, EndpointId)> {
        let claims = self.claims(network).into_iter().flat_map(|claims| claims.holders(addr));
        let mut holders: Vec<_> = claims.collect();
        if holders.len() > 1 {
            let rank = |owner, id| match self.body(network, owner, id).and_then(|body| body.endpoint().ok()) {
                Some(Endpoint { state: EndpointState::Enabled, .. }) => 0,
                Some(Endpoint { state: EndpointState::Unhealthy, .. }) => 1,
                Some(Endpoint { state: EndpointState::Disabled, .. }) => 2,
                None => 3,
            };
            holders.sort_by_cached_key(|(owner, id)| (is_down(*owner), rank(*owner, *id), *owner, *id));
        }
        holders
    }

    /// Who claims an address of a network that belongs to one of them only; nothing, if there is no conflict. A virtual
    /// address that is contested comes before an endpoint's.
    pub fn conflict(&self, network: NetworkId, addr: IpAddr, is_down: impl Fn(NodeId) -> bool) -> Option<Conflict> {
        let services: Vec<_> = self.claims(network)?.services(addr).cloned().collect();
        let endpoints = self.holders(network, addr, is_down);
        (services.len() + endpoints.len() > 1).then_some(Conflict { network, addr, services, endpoints })
    }

    /// All conflicts in a network, by address.
    pub fn conflicts(&self, network: NetworkId, is_down: impl Fn(NodeId) -> bool) -> Vec<Conflict> {
        let contested = self.claims(network).map(|claims| claims.contested()).unwrap_or_default();
        contested.into_iter().filter_map(|addr| self.conflict(network, addr, &is_down)).collect()
    }

    /// How far this node is with a table.
    pub fn version(&self, scope: Scope, owner: NodeId) -> Version {
        self.ledger(scope, owner).map(Ledger::version).unwrap_or_default()
    }

    /// Does this node have that version of a table, or a later one?
    pub fn has_seen(&self, scope: Scope, owner: NodeId, version: Version) -> bool {
        self.version(scope, owner) >= version
    }

    /// Are tables of that scope held here?
    pub fn holds(&self, scope: Scope) -> bool {
        self.shelf(scope).is_some()
    }

    /// Would that version of another's table be taken in?
    pub(super) fn lacks(&self, scope: Scope, owner: NodeId, version: Version) -> bool {
        let held = self.ledger(scope, owner).map_or(Version::NONE, |held| held.version().max(held.refused));
        owner != self.me
            && self.knows(owner)
            && self.holds(scope)
            && version > held
            && !self.is_past(scope, owner, version)
    }
}
