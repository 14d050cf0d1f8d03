//! Who claims which address in one network, and who gets it when several do.
//!
//! An address belongs to one endpoint, or as a virtual address to one service. Nobody can keep two owners from claiming the
//! same one, so all nodes resolve it alike, from the records alone: services before endpoints; of services the one with the
//! smallest id; of endpoints the one whose owner is not down, that is enabled rather than unhealthy or disabled, and then
//! that of the smallest owner and id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::record::NodeId;
use crate::record::network::{Endpoint, EndpointId, NetworkId};

/// An address that several claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// In which network.
    pub network: NetworkId,
    /// Which.
    pub addr: IpAddr,
    /// Services that have it for their virtual address, by id. If there is one, the first has it.
    pub services: Vec<String>,
    /// Endpoints that have it for their own, in order of precedence: if there is no service, the first has it.
    pub endpoints: Vec<(NodeId, EndpointId)>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.iter().map(|service| format!("service {service}"));
        let endpoints = self.endpoints.iter().map(|(owner, id)| format!("endpoint {id} of {owner}"));
        f.write_str(&services.chain(endpoints).collect::<Vec<_>>().join(", "))
    }
}

/// All claims in one network. As many as there are addresses in records, which have their quota.
#[derive(Debug, Default)]
pub(super) struct Claims {
    addresses: BTreeSet<(IpAddr, NodeId, EndpointId)>,
    /// How many endpoints name which service for a virtual address.
    vips: BTreeMap<IpAddr, BTreeMap<String, usize>>,
}

impl Claims {
    /// An endpoint appeared, changed or went. Tells the addresses that several claim now, or did until now.
    pub(super) fn turn(
        &mut self,
        (owner, id): (NodeId, EndpointId),
        old: Option<&Endpoint>,
        new: Option<&Endpoint>,
    ) -> BTreeSet<IpAddr> {
        let of = |endpoint: Option<&Endpoint>| {
            let addresses: BTreeSet<_> = endpoint.iter().flat_map(|e| &e.addresses).map(|cidr| cidr.addr).collect();
            let service = endpoint.and_then(|e| e.service.as_ref());
            let vips: BTreeSet<_> =
                service.iter().flat_map(|service| service.vips().map(|vip| (vip, service.id.clone()))).collect();
            (addresses, vips)
        };
        let ((old_addresses, old_vips), (addresses, vips)) = (of(old), of(new));
        let changed = old_addresses.symmetric_difference(&addresses).copied();
        let touched: BTreeSet<_> = changed.chain(old_vips.symmetric_difference(&vips).map(|(vip, _)| *vip)).collect();
        let before: Vec<_> = touched.iter().map(|addr| self.is_contested(*addr)).collect();
        for addr in old_addresses.difference(&addresses) {
            self.addresses.remove(&(*addr, owner, id));
        }
        self.addresses.extend(addresses.difference(&old_addresses).map(|addr| (*addr, owner, id)));
        for (vip, service) in old_vips.difference(&vips) {
            self.release(*vip, service);
        }
        for (vip, service) in vips.difference(&old_vips) {
            *self.vips.entry(*vip).or_default().entry(service.clone()).or_default() += 1;
        }
        let now: Vec<_> = touched.iter().map(|addr| self.is_contested(*addr)).collect();
        let contested = before.into_iter().zip(now).map(|(before, now)| before || now);
        touched.into_iter().zip(contested).filter(|(_, contested)| *contested).map(|(addr, _)| addr).collect()
    }

    fn release(&mut self, vip: IpAddr, service: &str) {
        let Some(services) = self.vips.get_mut(&vip) else { return };
        if let Some(count) = services.get_mut(service) {
            *count -= 1;
            if *count == 0 {
                services.remove(service);
            }
        }
        if services.is_empty() {
            self.vips.remove(&vip);
        }
    }

    fn is_contested(&self, addr: IpAddr) -> bool {
        self.holders(addr).take(2).count() + self.vips.get(&addr).map_or(0, BTreeMap::len) > 1
    }

    /// The endpoints that have an address.
    pub(super) fn holders(&self, addr: IpAddr) -> impl Iterator<Item = (NodeId, EndpointId)> {
        let first = (NodeId::from_bytes([0; 16]), EndpointId::from_bytes([0; 16]));
        let from = (addr, first.0, first.1);
        let all = self.addresses.range(from..).take_while(move |(found, ..)| *found == addr);
        all.map(|(_, owner, id)| (*owner, *id))
    }

    /// The services that have a virtual address, the one that gets it first.
    pub(super) fn services(&self, vip: IpAddr) -> impl Iterator<Item = &String> {
        self.vips.get(&vip).into_iter().flat_map(BTreeMap::keys)
    }

    /// All addresses that several claim.
    pub(super) fn contested(&self) -> BTreeSet<IpAddr> {
        let mut last = None;
        let twice =
            self.addresses.iter().filter_map(|(addr, ..)| (last.replace(*addr) == Some(*addr)).then_some(*addr));
        let shared = self.vips.keys().filter(|vip| self.is_contested(**vip)).copied();
        twice.collect::<Vec<_>>().into_iter().chain(shared).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::network::tests::web;

    fn name(n: u8) -> (NodeId, EndpointId) {
        (NodeId::from_bytes([n; 16]), EndpointId::from_bytes([n; 16]))
    }

    #[test]
    fn conflicts_begin_and_end_with_the_second_claim() {
        let mut claims = Claims::default();
        let addr: IpAddr = [10, 0, 9, 5].into();
        assert!(claims.turn(name(1), None, Some(&web(5))).is_empty());
        assert_eq!(claims.turn(name(2), None, Some(&web(5))), BTreeSet::from([addr]));
        assert_eq!(claims.contested(), BTreeSet::from([addr]));
        assert_eq!(claims.holders(addr).collect::<Vec<_>>(), [name(1), name(2)]);
        assert_eq!(claims.turn(name(1), Some(&web(5)), Some(&web(6))), BTreeSet::from([addr]));
        assert!(claims.contested().is_empty());
        claims.turn(name(1), Some(&web(6)), None);
        claims.turn(name(2), Some(&web(5)), None);
        assert!(claims.addresses.is_empty() && claims.vips.is_empty());
    }

    #[test]
    fn a_virtual_address_belongs_to_one_service() {
        let mut claims = Claims::default();
        let mut other = web(6);
        other.service.as_mut().unwrap().id = "a-first".to_owned();
        claims.turn(name(1), None, Some(&web(5)));
        let vip: IpAddr = [10, 0, 9, 2].into();
        assert_eq!(claims.turn(name(2), None, Some(&other)), BTreeSet::from([vip]));
        assert_eq!(claims.services(vip).collect::<Vec<_>>(), ["a-first", "b7aykqcj"]);
        assert_eq!(claims.turn(name(2), Some(&other), None), BTreeSet::from([vip]));
        assert!(claims.contested().is_empty());
    }

    #[test]
    fn an_endpoint_at_a_virtual_address_is_a_conflict_whichever_came_first() {
        let vip = BTreeSet::from([[10, 0, 9, 2].into()]);
        // `web(2)` is at the virtual address of all of `web`'s.
        let (service, lone) = (web(5), Endpoint { service: None, ..web(2) });
        for (first, second) in [(&service, &lone), (&lone, &service)] {
            let mut claims = Claims::default();
            assert!(claims.turn(name(1), None, Some(first)).is_empty());
            assert_eq!(claims.turn(name(2), None, Some(second)), vip);
            assert_eq!(claims.contested(), vip);
            assert_eq!(claims.turn(name(1), Some(first), None), vip);
            assert!(claims.contested().is_empty());
        }
    }
}
