//! The snapshot: all that a reader asked for, as the protocol core has it at one instant.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::api::watch::{Topic, fits, has_labels};
use crate::node::tables::Conflict;
use crate::node::{Member, Mutant, Node};
use crate::record::decision::Decision;
use crate::record::network::{Attachment, EndpointName, NetworkId};
use crate::record::{NodeId, Status};
use crate::wire::table::Body;

/// What a reader asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Topics.
    pub topics: Vec<Topic>,
    /// Members with one of these statuses; none: all.
    pub statuses: Vec<Status>,
    /// Members with all of these labels, `KEY` or `KEY=VALUE`; none: all.
    pub labels: Vec<String>,
    /// Attachments, endpoints and conflicts of these networks; none: all.
    pub networks: BTreeSet<NetworkId>,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self { topics: Topic::ALL.to_vec(), ..Self::default() }
    }

    /// Is that topic asked for?
    pub fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic)
    }

    /// Is that network asked for?
    pub fn is_of(&self, network: NetworkId) -> bool {
        self.networks.is_empty() || self.networks.contains(&network)
    }

    fn lists(&self, member: &Member) -> bool {
        let labels = member.decided.labels.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        self.wants(Topic::Members)
            && fits(&self.statuses, None, Some(member.status))
            && has_labels(&self.labels, &labels)
    }
}

/// An object of the snapshot. The bulk of each is shared with the protocol core.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A node.
    Member(Member),
    /// A decision that stands.
    Decision(Arc<Decision>),
    /// That a node is attached to a network, and since when that node is down (milliseconds since the Unix epoch).
    Attachment(NodeId, NetworkId, Attachment, Option<u64>),
    /// An endpoint, and since when its owner is down.
    Endpoint(EndpointName, Body, Option<u64>),
    /// An address that several claim.
    Conflict(Conflict),
}

/// The nodes that are down, and since when (milliseconds since the Unix epoch).
#[derive(Debug, Clone, Default)]
pub struct Downs(BTreeMap<NodeId, u64>);

impl Downs {
    /// At present.
    pub fn of(node: &Node) -> Self {
        let down = node.members().into_iter().filter(|member| member.status == Status::Down);
        Self(down.map(|member| (member.swim.identity.id, member.since_ms)).collect())
    }

    /// None: it is not down.
    pub fn since(&self, node: NodeId) -> Option<u64> {
        self.0.get(&node).copied()
    }
}

/// All that `filter` lets through, at one instant: members, decisions, attachments, then network by network.
pub fn list(node: &Node, filter: &Filter) -> VecDeque<Listed> {
    let mut items: VecDeque<_> =
        node.members().into_iter().filter(|member| filter.lists(member)).map(Listed::Member).collect();
    if filter.wants(Topic::Decisions) {
        items.extend(node.decisions().into_iter().map(Listed::Decision));
    }
    let (tables, downs) = (node.tables(), Downs::of(node));
    if filter.wants(Topic::Networks) {
        let all = tables.attachments().filter(|(_, network, _)| filter.is_of(*network));
        items.extend(
            all.map(|(owner, network, attachment)| Listed::Attachment(owner, network, attachment, downs.since(owner))),
        );
    }
    for network in tables.networks().filter(|network| filter.is_of(*network)) {
        if filter.wants(Topic::Endpoints) {
            let all = tables.endpoints(network);
            items.extend(all.map(|(name, body)| Listed::Endpoint(name, body.clone(), downs.since(name.owner))));
        }
        if filter.wants(Topic::Conflicts) {
            let all = tables.conflicts(network, |owner| downs.since(owner).is_some());
            items.extend(all.into_iter().map(Listed::Conflict));
        }
    }
    if node.is_flawed(Mutant::ShortSnapshot) {
        items.pop_back();
    }
    items
}
