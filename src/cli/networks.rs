//! `gossipctl network` and `gossipctl endpoint`: arguments, requests and tables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::ListFormat;
use super::exit::{Exit, Failure, Outcome, printable};
use super::node;
use super::render;
use crate::api::{
    AttachRequest, Attachment, Conflict, Endpoint, EndpointFilter, EndpointSpec, EndpointsRequest, EndpointsResponse,
    Network, Port, Seen, Service,
};
use crate::client::{Client, EndpointTurn};
use crate::record::NodeId;
use crate::record::network::{EndpointId, EndpointState, Protocol, PublishMode};

/// Largest file that endpoints are read from, in bytes: as much as the daemon takes.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

const SET_EXAMPLES: &str = "\
Examples:
  gossipctl endpoint set --network web --service shop --vip 10.0.9.2 --task shop.1 --address 10.0.9.5/24 --publish 8080:80
  gossipctl endpoint set --network web --file endpoints.json

A task that is set again is the same endpoint. A file holds a JSON array of endpoints as the API takes them
(POST /v1/networks/NETWORK/endpoints); all of it is written in one step.";

/// The commands below `network`.
#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// List the networks that some node is attached to
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Attach this node to a network, by name or id; a new name is a new network
    Attach(AttachArgs),
    /// Detach this node from networks; its endpoints there go
    Detach(DetachArgs),
    /// Show who is attached to networks, and addresses that several claim
    Inspect(ReferencesArgs),
}

/// The commands below `endpoint`.
#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List the endpoints of the networks that this node is attached to
    #[command(visible_alias = "list")]
    Ls(EndpointsArgs),
    /// Write endpoints of this node
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Have endpoints of this node take no more traffic
    Disable(TurnArgs),
    /// Have endpoints of this node take traffic
    Enable(TurnArgs),
    /// Take endpoints of this node away
    #[command(visible_alias = "remove")]
    Rm(TurnArgs),
    /// Show all that is known of endpoints
    Inspect(ReferencesArgs),
}

/// `network ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// How to show them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
    /// Ids only
    #[arg(long, short, conflicts_with = "format")]
    quiet: bool,
}

/// `network attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// What the network is called, when it is named by its id
    #[arg(long)]
    name: Option<String>,
    /// Where this node's tunnel ends [default: its data-path address]
    #[arg(long, value_name = "IP")]
    data_path_addr: Option<IpAddr>,
    /// The tunnel's hardware address
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    /// Name or id
    network: String,
}

/// How long to wait for others.
#[derive(Debug, Args)]
struct Waiting {
    /// Wait until all nodes that should know have said so, and tell who has not
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = node::wait)]
    wait: Option<Duration>,
}

/// `network detach`.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    #[command(flatten)]
    waiting: Waiting,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// What to show as JSON.
#[derive(Debug, Args)]
pub(super) struct ReferencesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    references: Vec<String>,
}

/// `endpoint ls`.
#[derive(Debug, Args)]
pub(super) struct EndpointsArgs {
    /// Only of these networks, comma-separated
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Only of these services, comma-separated
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only on these nodes, comma-separated ids, names or 'self'
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only in these states, comma-separated
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only with one of these published ports, comma-separated: 8080 or 53/udp
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// How to show them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
    /// Ids only
    #[arg(long, short, conflicts_with = "format")]
    quiet: bool,
}

/// `endpoint set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The network, by name or id
    #[arg(long)]
    network: String,
    /// Read the endpoints from a file, '-': from stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service", "service_id", "vip", "task", "id", "address", "mac", "publish", "alias", "task_alias", "label", "state"])]
    file: Option<PathBuf>,
    /// The service
    #[arg(long)]
    service: Option<String>,
    /// The service's id [default: its name]
    #[arg(long, value_name = "ID", requires = "service")]
    service_id: Option<String>,
    /// A virtual address of the service
    #[arg(long, value_name = "IP", requires = "service")]
    vip: Vec<IpAddr>,
    /// The task
    #[arg(long)]
    task: Option<String>,
    /// The endpoint's id [default: follows from the task]
    #[arg(long)]
    id: Option<EndpointId>,
    /// An address with its prefix length
    #[arg(long, value_name = "IP/PREFIX", required_unless_present = "file")]
    address: Vec<String>,
    /// The hardware address
    #[arg(long)]
    mac: Option<String>,
    /// A published port: PUBLISHED:TARGET[/PROTOCOL][,mode=host]
    #[arg(long, short, value_name = "PORT", value_parser = port)]
    publish: Vec<Port>,
    /// A further name of the service
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// A further name of this endpoint alone
    #[arg(long, value_name = "NAME")]
    task_alias: Vec<String>,
    /// A label
    #[arg(long, value_name = "KEY=VALUE", value_parser = node::entry)]
    label: Vec<(String, String)>,
    /// Whether it takes traffic
    #[arg(long, value_name = "STATE", default_value_t)]
    state: EndpointState,
    #[command(flatten)]
    waiting: Waiting,
}

/// `endpoint disable|enable|rm`.
#[derive(Debug, Args)]
pub(super) struct TurnArgs {
    #[command(flatten)]
    waiting: Waiting,
    /// Ids, unique beginnings of ids, or tasks
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<String>,
}

/// Reads `8080:80/tcp,mode=host`.
fn port(text: &str) -> Result<Port, String> {
    let (ports, options) = text.split_once(',').map_or((text, None), |(ports, options)| (ports, Some(options)));
    let mode = match options.map(|options| options.strip_prefix("mode=")) {
        None => PublishMode::Ingress,
        Some(Some(mode)) => mode.parse().map_err(|error: crate::record::RecordError| error.to_string())?,
        Some(None) => return Err(format!("{text:?}: expected mode=ingress or mode=host after the comma")),
    };
    let (ports, protocol) = ports.split_once('/').map_or((ports, None), |(ports, protocol)| (ports, Some(protocol)));
    let protocol = protocol.map_or(Ok(Protocol::Tcp), str::parse);
    let (published, target) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port; expected PUBLISHED:TARGET, such as 8080:80")),
    };
    let protocol = protocol.map_err(|error: crate::record::RecordError| error.to_string())?;
    Ok(Port { protocol, published: number(published)?, target: number(target)?, mode })
}

// ---- networks --------------------------------------------------------------------------------------------------------

/// Runs a command about networks.
pub(super) async fn network(socket: &Path, command: NetworkCommand) -> Result<Outcome, Failure> {
    match command {
        NetworkCommand::Ls(LsArgs { format, quiet }) => {
            let networks = Client::connect(socket).await?.networks().await?.networks;
            Ok(Outcome::data(match (quiet, format) {
                (true, _) => networks.iter().map(|network| format!("{}\n", network.id)).collect(),
                (false, ListFormat::Json) => render::json(&networks)?,
                (false, ListFormat::Ndjson) => render::ndjson(&networks)?,
                (false, ListFormat::Table) => networks_table(&networks),
            }))
        }
        NetworkCommand::Attach(AttachArgs { name, data_path_addr, mac, waiting, network }) => {
            let request = AttachRequest { name, data_path_addr, mac, wait: None };
            let client = Client::connect(socket).await?;
            let answer = client.attach(&network, &request, waiting.wait).await?;
            let mut outcome = Outcome::data(format!("{}\n", answer.network.id));
            outcome.failures.extend(unseen(&network, &answer.seen));
            Ok(outcome)
        }
        NetworkCommand::Detach(DetachArgs { waiting, networks }) => {
            let client = Client::connect(socket).await?;
            let mut outcome = Outcome::default();
            for network in &networks {
                match client.detach(network, waiting.wait).await {
                    Ok(seen) => {
                        outcome.out.push_str(&format!("{network}\n"));
                        outcome.failures.extend(unseen(network, &seen));
                    }
                    Err(error) => node::note(&mut outcome, error)?,
                }
            }
            Ok(outcome)
        }
        NetworkCommand::Inspect(ReferencesArgs { references }) => {
            let client = Client::connect(socket).await?;
            let (mut found, mut outcome) = (Vec::new(), Outcome::default());
            for reference in &references {
                match client.network(reference).await {
                    Ok(network) => found.push(network),
                    Err(error) => node::note(&mut outcome, error)?,
                }
            }
            outcome.out = if found.is_empty() { String::new() } else { render::json(&found)? };
            Ok(outcome)
        }
    }
}

fn unseen(what: &str, seen: &Seen) -> Option<Failure> {
    if seen.unconfirmed.is_empty() {
        return None;
    }
    let names: Vec<_> = seen.unconfirmed.iter().map(NodeId::to_string).collect();
    let text = format!(
        "{what}: it is in force and spreads on, but these nodes have not confirmed it yet: {}",
        names.join(", ")
    );
    Some(Failure::new(Exit::Failed, text))
}

fn networks_table(networks: &[Network]) -> String {
    let rows = networks.iter().map(|Network { id, name, attached, nodes, endpoints, conflicts }| {
        vec![
            id.to_string(),
            printable(name),
            if *attached { "yes" } else { "no" }.to_owned(),
            nodes.len().to_string(),
            render::known(endpoints.as_ref()),
            conflicts.len().to_string(),
        ]
    });
    render::table(&["NETWORK ID", "NAME", "ATTACHED", "NODES", "ENDPOINTS", "CONFLICTS"], rows)
}

// ---- endpoints -------------------------------------------------------------------------------------------------------

/// Runs a command about endpoints.
pub(super) async fn endpoint(socket: &Path, command: EndpointCommand) -> Result<Outcome, Failure> {
    match command {
        EndpointCommand::Ls(args) => list(socket, args).await,
        EndpointCommand::Set(args) => set(socket, args).await,
        EndpointCommand::Disable(args) => turn(socket, EndpointTurn::Disable, args).await,
        EndpointCommand::Enable(args) => turn(socket, EndpointTurn::Enable, args).await,
        EndpointCommand::Rm(args) => turn(socket, EndpointTurn::Remove, args).await,
        EndpointCommand::Inspect(ReferencesArgs { references }) => {
            let client = Client::connect(socket).await?;
            let (mut found, mut outcome) = (Vec::new(), Outcome::default());
            for reference in &references {
                match client.endpoint(reference).await {
                    Ok(endpoint) => found.push(endpoint),
                    Err(error) => node::note(&mut outcome, error)?,
                }
            }
            outcome.out = if found.is_empty() { String::new() } else { render::json(&found)? };
            Ok(outcome)
        }
    }
}

async fn list(socket: &Path, args: EndpointsArgs) -> Result<Outcome, Failure> {
    let EndpointsArgs { network, service, node, state, port, format, quiet } = args;
    let client = Client::connect(socket).await?;
    let filter = EndpointFilter { network, service, node, state, port };
    let endpoints = client.endpoints(&filter).await?.endpoints;
    Ok(Outcome::data(match (quiet, format) {
        (true, _) => endpoints.iter().map(|endpoint| format!("{}\n", endpoint.id)).collect(),
        (false, ListFormat::Json) => render::json(&endpoints)?,
        (false, ListFormat::Ndjson) => render::ndjson(&endpoints)?,
        (false, ListFormat::Table) => {
            let members = client.members(&Default::default()).await?.members;
            let hosts = members.into_iter().filter_map(|member| Some((member.id, member.hostname?))).collect();
            let networks = client.networks().await?.networks.into_iter().map(|one| (one.id, one.name)).collect();
            endpoints_table(&endpoints, &hosts, &networks)
        }
    }))
}

fn endpoints_table(
    endpoints: &[Endpoint],
    hosts: &BTreeMap<NodeId, String>,
    networks: &BTreeMap<crate::record::network::NetworkId, String>,
) -> String {
    let port = |Port { protocol, published, target, mode }: &Port| {
        let host = if *mode == PublishMode::Host { " (host)" } else { "" };
        format!("{published}->{target}/{protocol}{host}")
    };
    let rows = endpoints.iter().map(|endpoint| {
        let down = if endpoint.owner_down_since.is_some() { " (node down)" } else { "" };
        vec![
            endpoint.id.to_string(),
            networks.get(&endpoint.network).map_or_else(|| endpoint.network.to_string(), |name| printable(name)),
            render::known(endpoint.service.as_ref().map(|service| printable(&service.name))),
            render::known(endpoint.task.as_ref().map(|task| printable(task))),
            hosts.get(&endpoint.node).map_or_else(|| endpoint.node.to_string(), |name| printable(name)),
            format!("{}{down}", endpoint.state.title()),
            endpoint.addresses.join(", "),
            endpoint.ports.iter().map(port).collect::<Vec<_>>().join(", "),
        ]
    });
    render::table(&["ENDPOINT ID", "NETWORK", "SERVICE", "TASK", "NODE", "STATE", "ADDRESSES", "PORTS"], rows)
}

async fn set(socket: &Path, args: SetArgs) -> Result<Outcome, Failure> {
    let (network, wait) = (args.network.clone(), args.waiting.wait);
    let set = match &args.file {
        Some(path) => read(path)?,
        None => vec![spec(args)?],
    };
    let request = EndpointsRequest { set, ..EndpointsRequest::default() };
    let EndpointsResponse { endpoints, seen } =
        Client::connect(socket).await?.set_endpoints(&network, &request, wait).await?;
    let mut outcome = Outcome::data(endpoints.iter().map(|one| format!("{}\n", one.id)).collect::<String>());
    outcome.failures.extend(unseen(&network, &seen));
    Ok(outcome)
}

fn spec(args: SetArgs) -> Result<EndpointSpec, Failure> {
    let SetArgs { service, service_id, vip, task, id, address, mac, publish, alias, task_alias, label, state, .. } =
        args;
    let (mut vip_v4, mut vip_v6) = (None, None);
    for vip in vip {
        let before = match vip {
            IpAddr::V4(vip) => vip_v4.replace(vip).map(IpAddr::V4),
            IpAddr::V6(vip) => vip_v6.replace(vip).map(IpAddr::V6),
        };
        if let Some(before) = before {
            let what = format!("--vip {before} and --vip {vip}: a service has one virtual address of each kind");
            return Err(Failure::new(Exit::Usage, what));
        }
    }
    Ok(EndpointSpec {
        id,
        service: service.map(|name| Service { id: service_id, name, vip_v4, vip_v6 }),
        task,
        state,
        addresses: address,
        mac,
        ports: publish,
        aliases: alias,
        task_aliases: task_alias,
        labels: label.into_iter().collect(),
    })
}

fn read(path: &Path) -> Result<Vec<EndpointSpec>, Failure> {
    let shown = path.display();
    let text = super::ctl::read_file(path, "endpoints", FILE_BYTES_MAX)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{shown}: expected a JSON array of endpoints: {error}")))
}

async fn turn(socket: &Path, turn: EndpointTurn, args: TurnArgs) -> Result<Outcome, Failure> {
    let TurnArgs { waiting, endpoints } = args;
    super::ctl::refuse_duration(&endpoints, waiting.wait)?;
    let client = Client::connect(socket).await?;
    let mut outcome = Outcome::default();
    for reference in &endpoints {
        match client.turn_endpoint(reference, turn, waiting.wait).await {
            Ok(answer) => {
                outcome.out.push_str(&format!("{reference}\n"));
                outcome.failures.extend(unseen(reference, &answer.seen));
            }
            Err(error) => node::note(&mut outcome, error)?,
        }
    }
    Ok(outcome)
}

// ---- the stream's lines ----------------------------------------------------------------------------------------------

fn down(since: Option<&String>) -> &'static str {
    if since.is_some() { ", node down" } else { "" }
}

/// What a line says of an attachment.
pub(super) fn attachment_text(old: Option<&Attachment>, new: Option<&Attachment>) -> Option<String> {
    let Attachment { network, name, node, data_path_addr, mac: _, owner_down_since } = new.or(old)?;
    let what = match (old, new) {
        (None, Some(_)) => "attached",
        (Some(_), None) => "detached",
        _ => "attachment",
    };
    let down = down(owner_down_since.as_ref());
    Some(format!("{node}  {what}: network {} ({network}) at {data_path_addr}{down}", printable(name)))
}

/// What a line says of an endpoint.
pub(super) fn endpoint_text(old: Option<&Endpoint>, new: Option<&Endpoint>) -> Option<String> {
    let Endpoint { id, node, service, task, state, addresses, owner_down_since, .. } = new.or(old)?;
    let name = service.as_ref().map_or_else(|| "-".to_owned(), |service| printable(&service.name));
    let task = task.as_ref().map_or_else(String::new, |task| format!(" {}", printable(task)));
    let what = match (old, new) {
        (None, Some(_)) => format!("new, {state}"),
        (Some(_), None) => "gone".to_owned(),
        (Some(old), Some(_)) if old.state != *state => format!("{} -> {state}", old.state),
        _ => state.to_string(),
    };
    let down = down(owner_down_since.as_ref());
    Some(format!("{node}  endpoint {id} of {name}{task} at {}  {what}{down}", addresses.join(", ")))
}

/// What a line says of an address that several claim.
pub(super) fn conflict_text(old: Option<&Conflict>, new: Option<&Conflict>) -> Option<String> {
    let Conflict { network, address, endpoints, services } = new.or(old)?;
    let all: Vec<String> =
        endpoints.iter().map(|one| one.id.to_string()).chain(services.iter().map(|s| printable(s))).collect();
    Some(match new {
        Some(_) => {
            format!("conflict: {address} in network {network} is claimed by {}; the first has it", all.join(", "))
        }
        None => format!("conflict ended: {address} in network {network}"),
    })
}
