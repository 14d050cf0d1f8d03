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
use crate::record::network::{Cidr, EndpointId, EndpointState, NetworkId, Protocol, PublishMode};

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
    Inspect(EndpointReferencesArgs),
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
    /// Where this node's tunnel ends [default: its data-path address, which is followed when it changes]
    #[arg(long, value_name = "IP|INTERFACE")]
    data_path_addr: Option<String>,
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

/// `endpoint inspect`.
#[derive(Debug, Args)]
pub(super) struct EndpointReferencesArgs {
    /// Only in this network, by name or id: a task may be in several
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Ids, unique beginnings of ids, or tasks
    #[arg(required = true, value_name = "ENDPOINT")]
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
    #[arg(long, value_name = "STATE", value_parser = each::<EndpointState>)]
    state: Option<String>,
    /// Only with one of these published ports, comma-separated: 8080 or 53/udp
    #[arg(long, value_name = "PORT", value_parser = each::<PublishedFilter>)]
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
    #[arg(long, value_name = "IP/PREFIX", required_unless_present = "file", value_parser = address)]
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
    /// Only in this network, by name or id: a task may be in several
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    /// Ids, unique beginnings of ids, or tasks
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<String>,
}

/// Reads words between commas, each of which has to be one.
fn each<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<String, String> {
    text.split(',').try_for_each(|word| word.parse::<T>().map(drop).map_err(|error| error.to_string()))?;
    Ok(text.to_owned())
}

/// Reads `10.0.9.5/24`.
fn address(text: &str) -> Result<String, String> {
    text.parse::<Cidr>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A published port to look for, such as `8080` or `53/udp`.
struct PublishedFilter;

impl std::str::FromStr for PublishedFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port = port.parse::<u16>().map_err(|_| format!("{text:?} is not a port; expected 8080 or 53/udp"));
        port.and_then(|_| protocol.parse::<Protocol>().map(|_| Self).map_err(|error| error.to_string()))
    }
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
            outcome.failures.extend(unseen(&client, &network, &answer.seen).await);
            Ok(outcome)
        }
        NetworkCommand::Detach(DetachArgs { waiting, networks }) => {
            let client = Client::connect(socket).await?;
            let mut outcome = Outcome::default();
            for network in &networks {
                match client.detach(network, waiting.wait).await {
                    Ok(seen) => {
                        outcome.out.push_str(&format!("{network}\n"));
                        outcome.failures.extend(unseen(&client, network, &seen).await);
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

async fn unseen(client: &Client, what: &str, seen: &Seen) -> Option<Failure> {
    if seen.unconfirmed.is_empty() {
        return None;
    }
    let names = node::names(client, &seen.unconfirmed).await;
    let text = format!("{what}: it is in force and spreads on, but these nodes have not confirmed it yet: {names}");
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
        EndpointCommand::Inspect(EndpointReferencesArgs { network, references }) => {
            let client = Client::connect(socket).await?;
            let (mut found, mut outcome) = (Vec::new(), Outcome::default());
            for reference in &references {
                match client.endpoint(reference, network.as_deref()).await {
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
    networks: &BTreeMap<NetworkId, String>,
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
    let client = Client::connect(socket).await?;
    let EndpointsResponse { endpoints, seen } = client.set_endpoints(&network, &request, wait).await?;
    let mut outcome = Outcome::data(endpoints.iter().map(|one| format!("{}\n", one.id)).collect::<String>());
    outcome.failures.extend(unseen(&client, &network, &seen).await);
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
    let TurnArgs { network, waiting, endpoints } = args;
    super::ctl::refuse_duration(&endpoints, waiting.wait)?;
    let client = Client::connect(socket).await?;
    let mut outcome = Outcome::default();
    for reference in &endpoints {
        match client.turn_endpoint(reference, network.as_deref(), turn, waiting.wait).await {
            Ok(answer) => {
                outcome.out.push_str(&format!("{reference}\n"));
                outcome.failures.extend(unseen(&client, reference, &answer.seen).await);
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

/// What people call nodes and networks, as far as that was heard.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) hosts: BTreeMap<NodeId, String>,
    pub(super) networks: BTreeMap<NetworkId, String>,
}

impl Names {
    /// A node's id and name.
    pub(super) fn node(&self, id: NodeId) -> String {
        format!("{id}  {}", self.hosts.get(&id).map_or_else(|| "-".to_owned(), |name| printable(name)))
    }

    /// A node's name, or else its id.
    pub(super) fn host(&self, id: NodeId) -> String {
        self.hosts.get(&id).map_or_else(|| id.to_string(), |name| printable(name))
    }

    /// A network's name, or else its id.
    fn network(&self, id: NetworkId) -> String {
        self.networks.get(&id).map_or_else(|| id.to_string(), |name| printable(name))
    }
}

/// What a line says of an attachment.
pub(super) fn attachment_text(names: &Names, old: Option<&Attachment>, new: Option<&Attachment>) -> Option<String> {
    let Attachment { network, name, node, data_path_addr, mac: _, owner_down_since } = new.or(old)?;
    let what = match (old, new) {
        (None, Some(_)) => "attached",
        (Some(_), None) => "detached",
        _ => "attachment",
    };
    let down = down(owner_down_since.as_ref());
    let node = names.node(*node);
    Some(format!("{node}  {what}: network {} ({network}) at {data_path_addr}{down}", printable(name)))
}

/// What a line says of an endpoint.
pub(super) fn endpoint_text(names: &Names, old: Option<&Endpoint>, new: Option<&Endpoint>) -> Option<String> {
    let Endpoint { id, node, network, service, task, state, addresses, owner_down_since, .. } = new.or(old)?;
    let name = service.as_ref().map_or_else(|| "-".to_owned(), |service| printable(&service.name));
    let task = task.as_ref().map_or_else(String::new, |task| format!(" {}", printable(task)));
    let what = match (old, new) {
        (None, Some(_)) => format!("new, {state}"),
        (Some(_), None) => "gone".to_owned(),
        (Some(old), Some(_)) if old.state != *state => format!("{} -> {state}", old.state),
        _ => state.to_string(),
    };
    let down = down(owner_down_since.as_ref());
    let (node, network) = (names.node(*node), names.network(*network));
    Some(format!("{node}  endpoint {id} of {name}{task} in {network} at {}  {what}{down}", addresses.join(", ")))
}

/// What a line says of an address that several claim.
pub(super) fn conflict_text(names: &Names, old: Option<&Conflict>, new: Option<&Conflict>) -> Option<String> {
    let Conflict { network, address, endpoints, services } = new.or(old)?;
    let services = services.iter().map(|service| format!("service {}", printable(service)));
    let endpoints = endpoints.iter().map(|one| format!("endpoint {} on {}", one.id, names.host(one.node)));
    let all: Vec<String> = services.chain(endpoints).collect();
    let network = names.network(*network);
    Some(match new {
        Some(_) => {
            format!("conflict: {address} in network {network} is claimed by {}; the first has it", all.join(", "))
        }
        None => format!("conflict ended: {address} in network {network}"),
    })
}
