//! What others may read of a node: its listing, and what it says and thinks of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Health, Member, Mutant, Node, Swim, sync};
use crate::record::{Details, NodeId, Role, Status};
use crate::wire::exchange::Liveness;

impl Node {
    /// All members, this node among them, by id.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.table.iter().map(Member::from).collect();
        members.push(self.own_member());
        members.sort_by_key(|member| member.swim.identity.id);
        members
    }

    /// How many members have which status, this node among them.
    pub fn count_by_status(&self) -> BTreeMap<Status, usize> {
        let mut counts: BTreeMap<_, _> = Status::ALL.iter().map(|status| (*status, 0)).collect();
        let own = self.own_member().status;
        for status in self.table.iter().map(|member| member.status).chain([own]) {
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    /// This node, as it lists itself.
    pub(super) fn own_member(&self) -> Member {
        Member {
            swim: Swim { identity: self.identity(), incarnation: self.incarnation, liveness: Liveness::Alive },
            status: if self.config.has(Mutant::SelfDown) && self.incarnation > 0 {
                Status::Down
            } else if self.leave_told && self.record.left {
                Status::Left
            } else {
                Status::Ready
            },
            since_ms: self.started_ms,
            record: Some(Arc::clone(&self.record)),
            heard_us: 0,
            rtt_us: None,
            tcp_only: false,
            decided: self.table.decided(self.identity().id),
        }
    }

    /// Managers other than this node that may be asked: their ids and addresses.
    pub fn managers(&self) -> Vec<(NodeId, SocketAddr)> {
        self.table
            .iter_active()
            .filter(|member| member.record.is_some_and(|record| record.role == Role::Manager))
            .filter(|member| member.role() == Some(Role::Manager))
            .map(|member| (member.swim.identity.id, member.swim.identity.addr))
            .collect()
    }

    /// Addresses worth keeping for the next start: of everybody who has not said goodbye, and contacts.
    pub fn contacts(&self) -> Vec<SocketAddr> {
        let known = self.table.iter().filter(|member| member.status != Status::Left);
        let addresses: BTreeSet<_> = known.map(|member| member.swim.identity.addr).collect();
        addresses.into_iter().chain(self.contacts.iter().copied()).take(sync::CONTACTS_MAX).collect()
    }

    /// Where this node says that overlay traffic to it goes.
    pub fn data_path_addr(&self) -> std::net::IpAddr {
        self.record.data_path_addr
    }

    /// What this node says of itself beside what gossip needs.
    pub fn details(&self) -> Details {
        self.record.details.clone()
    }

    /// What this node thinks of itself.
    pub fn health(&self) -> Health {
        self.health.report()
    }
}
