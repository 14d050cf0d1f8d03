//! Networks and endpoints: what the API is asked, as reads and writes of this node's tables.
//!
//! A network or a task that is named for the first time gets the id that follows from its name, so that nodes which name the
//! same mean the same, without asking each other.
//!
//! Not here: routes and permissions (`http`), the API's words for records (`network_view`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use self::names::{Whose, find_endpoint, host, named, names, not_attached, title};
pub(super) use self::names::{find_network, network_id};
use super::addr::{AddrSpec, interface_addrs, ip_of};
use super::daemon::Membership;
use super::decide::{in_force, parse_wait};
use super::engine::{Asked, Confirmation, WriteRefused};
use super::keeper::KeepError;
use super::network_view::{attachment_view, conflict_view, endpoint_view, read_spec, write_mac};
use super::view::{find, members, words};
use crate::api::{
    AttachRequest, AttachResponse, Endpoint, EndpointFilter, EndpointQuery, EndpointSpec, Endpoints, EndpointsRequest,
    EndpointsResponse, Network, Networks, Problem, ProblemKind, ReplaceRequest, Seen, SeenQuery, TurnQuery, WaitQuery,
};
use crate::ca::random;
use crate::node::tables::WriteError;
use crate::node::{Node, Write};
use crate::record::network::{self as record, EndpointId, EndpointName, EndpointState, NetworkId, Protocol};
use crate::record::{NodeId, Version};
use crate::session::Downs;
use crate::wire::table::{Scope, Sight};

mod names;

/// How long others are asked who has seen a version, when nobody says otherwise.
const SEEN_WAIT: Duration = Duration::from_secs(2);
/// From so many on, what is to be written is read on another thread.
const SPECS_MANY: usize = 256;
/// Endpoints named in one problem, at most.
const CANDIDATES_MAX: usize = 10;

impl From<WriteRefused> for Problem {
    fn from(error: WriteRefused) -> Self {
        let detail = error.to_string();
        let kind = match error {
            WriteRefused::Write(WriteError::Record(_)) => ProblemKind::BadRequest,
            WriteRefused::Write(WriteError::NotAttached(_) | WriteError::NoEndpoint(_)) => ProblemKind::NotFound,
            WriteRefused::Write(_) | WriteRefused::Keep(KeepError::Busy) => ProblemKind::Conflict,
            WriteRefused::Keep(KeepError::Disk(_)) | WriteRefused::Stopped(_) => ProblemKind::Internal,
        };
        kind.problem(detail)
    }
}

// ---- reading ---------------------------------------------------------------------------------------------------------

fn network_view(node: &Node, downs: &Downs, id: NetworkId) -> Network {
    let tables = node.tables();
    let me = node.identity().id;
    let nodes: Vec<_> = tables
        .attached(id)
        .filter_map(|owner| Some(attachment_view(owner, id, &tables.attachment(id, owner)?, downs.since(owner))))
        .collect();
    let own = nodes.iter().find(|attachment| attachment.node == me).or(nodes.first());
    let name = own.map(|attachment| attachment.name.clone()).unwrap_or_default();
    let attached = tables.is_attached(id, me);
    let endpoints = attached.then(|| tables.endpoints(id).count());
    let is_down = |owner| downs.since(owner).is_some();
    let conflicts = tables.conflicts(id, is_down).iter().map(conflict_view).collect();
    Network { id, name, attached, nodes, endpoints, conflicts }
}

/// All networks that some node is attached to.
///
/// # Errors
/// The protocol task has stopped.
pub(super) async fn list_networks(membership: &Membership) -> Result<Networks, Problem> {
    let read = |node: &Node| {
        let downs = Downs::of(node);
        let mut networks: Vec<_> = names(node).into_keys().map(|id| network_view(node, &downs, id)).collect();
        networks.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Networks { revision: node.revision(), networks }
    };
    Ok(membership.engine.query(read).await?)
}

/// One network.
///
/// # Errors
/// There is none, or several are called so.
pub(super) async fn get_network(membership: &Membership, reference: String) -> Result<Network, Problem> {
    let read = move |node: &Node| {
        let id = find_network(node, &reference)?;
        Ok(network_view(node, &Downs::of(node), id))
    };
    membership.engine.query(read).await?
}

/// A published port to look for.
struct WantedPort(u16, Option<Protocol>);

impl std::str::FromStr for WantedPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = text.split_once('/').map_or((text, None), |(port, protocol)| (port, Some(protocol)));
        let port = port.parse().map_err(|_| format!("{text:?} is not a port; expected 8080 or 53/udp"))?;
        let protocol =
            protocol.map(str::parse).transpose().map_err(|error: crate::record::RecordError| error.to_string())?;
        Ok(Self(port, protocol))
    }
}

/// The nodes that a word of a filter fits: all of a name, and those whose id begins so.
fn owners(node: &Node, reference: &str) -> Result<Vec<NodeId>, Problem> {
    let me = node.identity().id;
    let fits = |member: &crate::node::Member| {
        let id = member.swim.identity.id;
        (reference == "self" && id == me)
            || member.record.as_ref().is_some_and(|record| record.hostname == reference)
            || id.to_string().starts_with(reference)
    };
    let found: Vec<_> = node.members().iter().filter(|member| fits(member)).map(|m| m.swim.identity.id).collect();
    if found.is_empty() {
        let what = format!("there is no node {reference:?}; 'gossipctl members' lists the nodes");
        return Err(ProblemKind::NotFound.problem(what));
    }
    Ok(found)
}

/// The endpoints that fit.
///
/// # Errors
/// A word that the filter does not have.
pub(super) async fn list_endpoints(membership: &Membership, filter: EndpointFilter) -> Result<Endpoints, Problem> {
    let EndpointFilter { network, service, node: nodes, state, port } = filter;
    let networks: Vec<String> = words("network", network.as_ref())?;
    let services: Vec<String> = words("service", service.as_ref())?;
    let states: Vec<EndpointState> = words("state", state.as_ref())?;
    let ports: Vec<WantedPort> = words("port", port.as_ref())?;
    let nodes: Vec<String> = words("node", nodes.as_ref())?;
    let read = move |node: &Node| -> Result<Endpoints, Problem> {
        let tables = node.tables();
        let owners = nodes.iter().map(|reference| owners(node, reference)).collect::<Result<Vec<_>, _>>()?;
        let owners: BTreeSet<NodeId> = owners.into_iter().flatten().collect();
        let wanted: Result<BTreeSet<_>, _> = networks.iter().map(|name| find_network(node, name)).collect();
        let (wanted, downs) = (wanted?, Downs::of(node));
        if let Some(other) = wanted.iter().find(|network| !tables.is_attached(**network, node.identity().id)) {
            return Err(ProblemKind::Conflict.problem(not_attached(node, *other)));
        }
        let fits = |endpoint: &record::Endpoint| {
            let service = endpoint.service.as_ref();
            (states.is_empty() || states.contains(&endpoint.state))
                && (services.is_empty()
                    || service.is_some_and(|s| services.contains(&s.id) || services.contains(&s.name)))
                && (ports.is_empty()
                    || endpoint.ports.iter().any(|has| {
                        ports.iter().any(|WantedPort(port, protocol)| {
                            *port == has.published && protocol.is_none_or(|protocol| protocol == has.protocol)
                        })
                    }))
        };
        let held = tables.networks().filter(|network| wanted.is_empty() || wanted.contains(network));
        let all = held.flat_map(|network| tables.endpoints(network));
        let mut endpoints: Vec<_> = all
            .filter(|(name, _)| nodes.is_empty() || owners.contains(&name.owner))
            .filter_map(|(name, body)| Some((name, body.endpoint().ok().filter(|endpoint| fits(endpoint))?)))
            .map(|(name, endpoint)| endpoint_view(name, &endpoint, downs.since(name.owner)))
            .collect();
        let service = |endpoint: &Endpoint| endpoint.service.as_ref().map(|service| service.name.clone());
        endpoints.sort_by_cached_key(|one| (one.network, service(one), one.task.clone(), one.node, one.id));
        Ok(Endpoints { revision: node.revision(), endpoints })
    };
    membership.engine.query(read).await?
}

/// One endpoint.
///
/// # Errors
/// There is none, or several fit.
pub(super) async fn get_endpoint(
    membership: &Membership,
    reference: String,
    query: EndpointQuery,
) -> Result<Endpoint, Problem> {
    let read = move |node: &Node| {
        let (name, endpoint) = find_endpoint(node, &reference, query.network.as_deref(), Whose::All)?;
        Ok(endpoint_view(name, &endpoint, Downs::of(node).since(name.owner)))
    };
    membership.engine.query(read).await?
}

// ---- writing ---------------------------------------------------------------------------------------------------------

/// Who has what was written.
async fn seen(
    membership: &Membership,
    scope: Scope,
    sight: Option<Sight>,
    wait: Option<Duration>,
) -> Result<Seen, Problem> {
    // Nothing was changed: whoever waits still wants to know who has what is there.
    let owner = membership.trust.me;
    let latest = move |node: &Node| Sight { scope, owner, version: node.tables().version(scope, owner) };
    let sight = match sight {
        None if wait.is_some() => {
            Some(membership.engine.query(latest).await?).filter(|sight| sight.version != Version::NONE)
        }
        sight => sight,
    };
    let version = sight.map(version_text);
    let (Some(sight), Some(wait)) = (sight, wait) else { return Ok(Seen { version, ..Seen::default() }) };
    let said = membership.engine.confirm(Asked::Table(sight), wait).await.map_err(in_force)?;
    let Confirmation { confirmed, unconfirmed } = said;
    Ok(Seen { version, confirmed, unconfirmed })
}

/// Attaches this node to a network.
///
/// # Errors
/// A problem; nothing was changed then.
pub(super) async fn attach(
    membership: &Membership,
    reference: String,
    request: AttachRequest,
) -> Result<AttachResponse, Problem> {
    let AttachRequest { name, data_path_addr, mac, wait } = request;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let mac = mac.as_deref().map(write_mac).transpose()?;
    let data_path_addr = data_path_addr.as_deref().map(read_data_path).transpose()?;
    let cluster = membership.trust.stored().cluster_id;
    let read = move |node: &Node| -> Result<_, Problem> {
        let id = network_id(node, cluster, &reference)?;
        // What is not said stays as it was.
        let own = node.tables().attachment(id, node.identity().id);
        let (own, own_mac) = own.map_or((None, None), |own| (Some(own.name), own.mac));
        let others = || names(node).remove(&id)?.into_iter().next();
        Ok((id, name.or(own).or_else(others).unwrap_or(reference), mac.or(own_mac)))
    };
    let (network, name, mac) = membership.engine.query(read).await??;
    let vtep = data_path_addr.unwrap_or(membership.addresses().data_path);
    let sight = membership.engine.write(Write::Attach { network, name, vtep, mac }).await?;
    let seen = seen(membership, Scope::Attachments, sight, wait).await?;
    Ok(AttachResponse { network: get_network(membership, network.to_string()).await?, seen })
}

/// An address, or that of an interface.
fn read_data_path(text: &str) -> Result<IpAddr, Problem> {
    let spec = AddrSpec::without_port(text);
    let addr = spec.and_then(|spec| ip_of(&spec, &interface_addrs()));
    addr.map_err(|error| ProblemKind::BadRequest.problem(format!("data_path_addr: {error}")))
}

/// Detaches this node from a network; its endpoints there go.
///
/// # Errors
/// A problem; nothing was changed then.
pub(super) async fn detach(membership: &Membership, reference: String, query: WaitQuery) -> Result<Seen, Problem> {
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    let network = membership.engine.query(move |node| find_network(node, &reference)).await??;
    let sight = membership.engine.write(Write::Detach(network)).await?;
    membership.leases.untie_all(network).await?;
    seen(membership, Scope::Attachments, sight, wait).await
}

/// Reads what is to be written, and gives ids to those that have none. Much of it is read on another thread: the protocol
/// runs on this one.
pub(super) async fn identified(
    membership: &Membership,
    network: NetworkId,
    specs: Vec<EndpointSpec>,
) -> Result<BTreeMap<EndpointId, record::Endpoint>, Problem> {
    let me = membership.trust.me;
    if specs.len() < SPECS_MANY {
        return identify(me, network, specs);
    }
    let read = tokio::task::spawn_blocking(move || identify(me, network, specs)).await;
    read.map_err(|error| ProblemKind::Internal.problem(error.to_string()))?
}

fn identify(
    me: NodeId,
    network: NetworkId,
    specs: Vec<EndpointSpec>,
) -> Result<BTreeMap<EndpointId, record::Endpoint>, Problem> {
    let mut out = BTreeMap::new();
    for spec in specs {
        let (id, endpoint) = read_spec(spec)?;
        let id = match (id, &endpoint.task) {
            (Some(id), _) => id,
            (None, Some(task)) => EndpointId::from_bytes(named([
                b"gossipd endpoint 1",
                me.as_bytes(),
                network.as_bytes(),
                task.as_bytes(),
            ])),
            (None, None) => {
                EndpointId::from_bytes(random().map_err(|error| ProblemKind::Internal.problem(error.to_string()))?)
            }
        };
        if let Some(other) = out.insert(id, endpoint) {
            let task = other.task.map_or_else(String::new, |task| format!(" (task {task})"));
            return Err(ProblemKind::BadRequest.problem(format!("endpoint {id}{task} is given twice")));
        }
    }
    Ok(out)
}

async fn written(
    membership: &Membership,
    network: NetworkId,
    ids: Vec<EndpointId>,
    (sight, wait): (Option<Sight>, Option<Duration>),
) -> Result<EndpointsResponse, Problem> {
    let seen = seen(membership, Scope::Network(network), sight, wait).await?;
    let endpoints = membership.engine.query(move |node| views(node, network, &ids)).await?;
    Ok(EndpointsResponse { endpoints, seen })
}

/// Endpoints of this node, as they are.
pub(super) fn views(node: &Node, network: NetworkId, ids: &[EndpointId]) -> Vec<Endpoint> {
    let owner = node.identity().id;
    let named = ids.iter().map(|id| EndpointName { network, owner, id: *id });
    named.filter_map(|name| Some(endpoint_view(name, &node.tables().endpoint(name)?, None))).collect()
}

/// Sets and takes away endpoints of this node.
///
/// # Errors
/// A problem; nothing was changed then.
pub(super) async fn set_endpoints(
    membership: &Membership,
    reference: String,
    request: EndpointsRequest,
) -> Result<EndpointsResponse, Problem> {
    let EndpointsRequest { set, remove, wait } = request;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let network = membership.engine.query(move |node| find_network(node, &reference)).await??;
    let set = identified(membership, network, set).await?;
    if let Some(id) = remove.iter().find(|id| set.contains_key(id)) {
        return Err(ProblemKind::BadRequest.problem(format!("endpoint {id} is to be both set and removed")));
    }
    let removed = remove.clone();
    membership.engine.query(move |node| check_own(node, network, &removed)).await??;
    let ids: Vec<_> = set.keys().copied().collect();
    let changed: Vec<_> = ids.iter().chain(&remove).copied().collect();
    let endpoints = set.into_iter().map(|(id, endpoint)| (id, Some(endpoint)));
    let endpoints = endpoints.chain(remove.into_iter().map(|id| (id, None))).collect();
    let sight = membership.engine.write(Write::Set { network, endpoints }).await?;
    membership.leases.untie(network, changed.into_iter()).await?;
    written(membership, network, ids, (sight, wait)).await
}

/// Only what is this node's is written. What is to be removed and is not there is gone already; what is elsewhere was not
/// meant.
fn check_own(node: &Node, network: NetworkId, remove: &[EndpointId]) -> Result<(), Problem> {
    let (me, tables) = (node.identity().id, node.tables());
    if !tables.is_attached(network, me) {
        return Err(ProblemKind::NotFound.problem(not_attached(node, network)));
    }
    let is_here = |id: EndpointId| tables.endpoint(EndpointName { network, owner: me, id }).is_some();
    for id in remove.iter().filter(|id| !is_here(**id)) {
        let mut all = tables.networks().flat_map(|network| tables.endpoints(network)).map(|(name, _)| name);
        if let Some(other) = all.find(|name| name.id == *id) {
            return Err(ProblemKind::Conflict.problem(format!(
                "endpoint {id} is no endpoint of this node in network {}: it is one of {} in network {}",
                title(node, network),
                host(node, other.owner),
                title(node, other.network)
            )));
        }
    }
    Ok(())
}

/// Makes these all endpoints of this node in a network.
///
/// # Errors
/// A problem; nothing was changed then.
pub(super) async fn replace_endpoints(
    membership: &Membership,
    reference: String,
    request: ReplaceRequest,
) -> Result<EndpointsResponse, Problem> {
    let ReplaceRequest { endpoints, wait } = request;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let network = membership.engine.query(move |node| find_network(node, &reference)).await??;
    membership.engine.query(move |node| check_own(node, network, &[])).await??;
    let endpoints = identified(membership, network, endpoints).await?;
    let ids: Vec<_> = endpoints.keys().copied().collect();
    let sight = membership.engine.write(Write::Replace { network, endpoints }).await?;
    membership.leases.untie_all(network).await?;
    written(membership, network, ids, (sight, wait)).await
}

/// What is to become of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It takes traffic, or takes no more.
    State(EndpointState),
    /// It goes.
    Remove,
}

/// Changes one endpoint of this node.
///
/// # Errors
/// A problem: there is none, or it is another node's.
pub(super) async fn turn(
    membership: &Membership,
    reference: String,
    turn: Turn,
    TurnQuery { network, wait }: TurnQuery,
) -> Result<EndpointsResponse, Problem> {
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let find_own = move |node: &Node| find_endpoint(node, &reference, network.as_deref(), Whose::OwnFirst);
    let (name, _) = membership.engine.query(find_own).await??;
    let EndpointName { network, owner, id } = name;
    if owner != membership.trust.me {
        let host = find(members(membership).await?.members, &owner.to_string()).ok().and_then(|member| member.hostname);
        let host = host.unwrap_or_else(|| owner.to_string());
        return Err(
            ProblemKind::Conflict.problem(format!("endpoint {id} is on {host}: only that node changes it; ask there"))
        );
    }
    let sight = match turn {
        Turn::State(state) => membership.engine.write(Write::Turn { network, id, state }).await?,
        Turn::Remove => {
            let sight = membership.engine.write(Write::Set { network, endpoints: vec![(id, None)] }).await?;
            membership.leases.untie(network, std::iter::once(id)).await?;
            sight
        }
    };
    written(membership, network, vec![id], (sight, wait)).await
}

/// Who has seen a version of a node's table in a network.
///
/// # Errors
/// A problem: no such network, node or version.
pub(super) async fn who_has_seen(
    membership: &Membership,
    reference: String,
    query: SeenQuery,
) -> Result<Seen, Problem> {
    let SeenQuery { node, version, wait } = query;
    let wait = wait.as_deref().map(parse_wait).transpose()?.unwrap_or(SEEN_WAIT);
    let owner = find(members(membership).await?.members, node.as_deref().unwrap_or("self"))?.id;
    let version = version.as_deref().map(parse_version).transpose()?;
    let read = move |node: &Node| {
        let network = find_network(node, &reference)?;
        let (scope, tables) = (Scope::Network(network), node.tables());
        if !tables.is_attached(network, owner) {
            let attached: Vec<_> = tables.attached(network).map(|id| host(node, id)).take(CANDIDATES_MAX).collect();
            let (host, network) = (host(node, owner), title(node, network));
            let what = format!("{host} is not attached to network {network}, so it has no table there");
            return Err(ProblemKind::NotFound.problem(what).with_candidates(attached));
        }
        if version.is_none() && !tables.holds(scope) {
            return Err(ProblemKind::NotFound.problem(not_attached(node, network)));
        }
        let held = tables.version(scope, owner);
        Ok::<_, Problem>((Sight { scope, owner, version: version.unwrap_or(held) }, held))
    };
    let (sight, held) = membership.engine.query(read).await??;
    if sight.version == Version::NONE {
        return Ok(Seen::default());
    }
    let Confirmation { mut confirmed, unconfirmed } = membership.engine.confirm(Asked::Table(sight), wait).await?;
    if held >= sight.version && sight.owner != membership.trust.me {
        confirmed.push(membership.trust.me);
    }
    Ok(Seen { version: Some(version_text(sight)), confirmed, unconfirmed })
}

fn version_text(Sight { version, .. }: Sight) -> String {
    format!("{}.{}", version.generation, version.seq)
}

fn parse_version(text: &str) -> Result<Version, Problem> {
    let parts = text.split_once('.').and_then(|(generation, seq)| Some((generation.parse().ok()?, seq.parse().ok()?)));
    let version = parts.map(|(generation, seq)| Version { generation, seq });
    version.ok_or_else(|| {
        ProblemKind::BadRequest.problem(format!("version {text:?}: expected GENERATION.SEQ as a write has told it"))
    })
}
