//! What people call networks, endpoints and nodes, and what is meant by that.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};

use super::CANDIDATES_MAX;
use crate::api::{Problem, ProblemKind};
use crate::node::Node;
use crate::record::network::{self as record, EndpointName, NetworkId};
use crate::record::{ClusterId, NodeId};

/// The id that follows from names, the same on every node.
pub(super) fn named<const N: usize>(parts: [&[u8]; N]) -> [u8; 16] {
    let mut text = Vec::new();
    for part in parts {
        // Their lengths keep "ab", "c" from being "a", "bc".
        text.extend_from_slice(&part.len().to_be_bytes());
        text.extend_from_slice(part);
    }
    let mut id = [0; 16];
    id.iter_mut().zip(digest(&SHA256, &text).as_ref()).for_each(|(slot, byte)| *slot = *byte);
    id
}

/// What attached nodes call the networks.
pub(super) fn names(node: &Node) -> BTreeMap<NetworkId, BTreeSet<String>> {
    let mut names: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (_, network, attachment) in node.tables().attachments() {
        names.entry(network).or_default().insert(attachment.name);
    }
    names
}

pub(super) fn known_network(node: &Node, reference: &str) -> Result<Option<NetworkId>, Problem> {
    let names = names(node);
    if let Ok(id) = reference.parse::<NetworkId>() {
        return Ok(names.contains_key(&id).then_some(id));
    }
    let named: Vec<_> = names.iter().filter(|(_, names)| names.contains(reference)).map(|(id, _)| *id).collect();
    match named.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => Err(ProblemKind::Ambiguous
            .problem(format!("{} networks are called {reference:?}; use an id", several.len()))
            .with_candidates(several.iter().map(ToString::to_string).collect())),
    }
}

/// The network that a reference names.
///
/// # Errors
/// None does, or several do.
pub(in crate::agent) fn find_network(node: &Node, reference: &str) -> Result<NetworkId, Problem> {
    known_network(node, reference)?.ok_or_else(|| {
        ProblemKind::NotFound
            .problem(format!("no node is attached to network {reference:?}; 'gossipctl network ls' lists the networks"))
    })
}

/// The network that a reference names or would name: a name that nobody has used has its id already.
///
/// # Errors
/// Several are called so.
pub(in crate::agent) fn network_id(node: &Node, cluster: ClusterId, reference: &str) -> Result<NetworkId, Problem> {
    Ok(match (known_network(node, reference)?, reference.parse()) {
        (Some(id), _) | (None, Ok(id)) => id,
        (None, Err(_)) => {
            NetworkId::from_bytes(named([b"gossipd network 1", cluster.as_bytes(), reference.as_bytes()]))
        }
    })
}

/// What a person calls a node.
pub(super) fn host(node: &Node, id: NodeId) -> String {
    let member = node.members().into_iter().find(|member| member.swim.identity.id == id);
    member.and_then(|member| member.record).map_or_else(|| id.to_string(), |record| record.hostname.clone())
}

/// What people call a network, and its id.
pub(super) fn title(node: &Node, id: NetworkId) -> String {
    let name = names(node).remove(&id).and_then(|names| names.into_iter().next());
    name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

/// This node does not hold a network's endpoints.
pub(super) fn not_attached(node: &Node, network: NetworkId) -> String {
    let name = names(node).remove(&network).and_then(|names| names.into_iter().next());
    let name = name.unwrap_or_else(|| network.to_string());
    format!(
        "this node is not attached to network {}; attach it ('gossipctl network attach {name}'), or ask an attached node ('gossipctl network inspect {name}' names them)",
        title(node, network)
    )
}

/// Whose endpoints a reference may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Anybody's.
    All,
    /// This node's, if there is one among those that fit.
    OwnFirst,
}

/// The endpoint that a reference names: its id, the unique beginning of one, or its task.
pub(super) fn find_endpoint(
    node: &Node,
    reference: &str,
    network: Option<&str>,
    whose: Whose,
) -> Result<(EndpointName, record::Endpoint), Problem> {
    let (mut by_prefix, mut by_task) = (Vec::new(), Vec::new());
    let tables = node.tables();
    let wanted = network.map(|network| find_network(node, network)).transpose()?;
    let me = node.identity().id;
    if let Some(other) = wanted.filter(|network| !tables.is_attached(*network, me)) {
        return Err(ProblemKind::NotFound.problem(not_attached(node, other)));
    }
    let networks = tables.networks().filter(|network| wanted.is_none_or(|wanted| wanted == *network));
    for (name, body) in networks.flat_map(|network| tables.endpoints(network)) {
        let Ok(endpoint) = body.endpoint() else { continue };
        if !reference.is_empty() && name.id.to_string().starts_with(reference) {
            by_prefix.push((name, endpoint));
        } else if endpoint.task.as_deref() == Some(reference) {
            by_task.push((name, endpoint));
        }
    }
    let mut found = if by_task.is_empty() { by_prefix } else { by_task };
    if whose == Whose::OwnFirst && found.iter().any(|(name, _)| name.owner == me) {
        found.retain(|(name, _)| name.owner == me);
    }
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => {
            let place = wanted.map_or_else(
                || "the networks that this node is attached to".to_owned(),
                |network| format!("network {}", title(node, network)),
            );
            Err(ProblemKind::NotFound
                .problem(format!("there is no endpoint {reference:?} in {place}; 'gossipctl endpoint ls' lists them")))
        }
        (Some(last), more) => {
            let all = found.iter().chain([&last]).take(CANDIDATES_MAX);
            let row = |(name, endpoint): &(EndpointName, record::Endpoint)| {
                let task = endpoint.task.as_deref().unwrap_or("-");
                let (network, host) = (title(node, name.network), host(node, name.owner));
                format!("{} {task} in {network} on {host}, {}", name.id, endpoint.state)
            };
            Err(ProblemKind::Ambiguous
                .problem(format!("{reference:?} fits {} endpoints; use an id, or name the network", more + 1))
                .with_candidates(all.map(row).collect()))
        }
    }
}
