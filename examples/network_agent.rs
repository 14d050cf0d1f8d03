//! A network agent's side of gossipd: keeps a VXLAN device's forwarding and neighbour entries, and an nftables map from
//! published ports to endpoints, as the cluster says. Without `--apply` it prints the commands and runs none.
//!
//! `cargo run --example network_agent -- --network web [--apply]`
//!
//! What the machine should have is a function of the table that the stream keeps ([`desired`]); what it has is read back
//! from the kernel before anything is changed, and only the difference is run. So it makes no difference why the two are
//! apart: a change, a gap in the history, an agent that was killed, a daemon that was away, or somebody with `bridge fdb
//! del`. Nothing is taken away before the first snapshot is whole, nor when the agent ends.
//!
//! The device and the table `inet gossipd_DEVICE` are the agent's alone: permanent entries that are not the cluster's go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use gossipd::api::watch::Topic;
use gossipd::api::{DEFAULT_SOCKET, Endpoint};
use gossipd::client::{Client, NetworkTable, Update, WatchOptions};
use gossipd::record::NodeId;
use gossipd::record::network::{EndpointState, Protocol, PublishMode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// How long changes are collected before they are brought about together.
const COLLECT: Duration = Duration::from_millis(20);
/// After how long it is tried again when a command has failed.
const RETRY: Duration = Duration::from_secs(2);
/// After how long the machine is looked at when nothing has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Programs this machine's VXLAN device and port map for one network of gossipd's.
#[derive(Parser)]
struct Options {
    /// The daemon's socket
    #[arg(long, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The network, by name or id
    #[arg(long)]
    network: String,
    /// Run the commands; without, they are printed only
    #[arg(long)]
    apply: bool,
    /// The VXLAN device; made if there is none
    #[arg(long, default_value = "vx0")]
    device: String,
    /// The VXLAN's number
    #[arg(long, default_value_t = 42)]
    vxlan_id: u32,
    /// The VXLAN's UDP port
    #[arg(long, default_value_t = 4789)]
    vxlan_port: u16,
}

/// A published port.
type Publication = (Protocol, u16);

/// What the machine has, or should have.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    /// Where this node's tunnel ends; none: it is not attached.
    local: Option<IpAddr>,
    /// Tunnel ends that get what is for everybody or for an unknown address.
    flood: BTreeSet<IpAddr>,
    /// Behind which tunnel end a hardware address is.
    forwarding: BTreeMap<String, IpAddr>,
    /// The hardware addresses of other nodes' endpoints.
    neighbours: BTreeMap<IpAddr, String>,
    /// Where connections to a published port go.
    published: BTreeMap<Publication, BTreeSet<SocketAddr>>,
    /// What cannot be programmed, and why.
    notes: BTreeSet<String>,
}

/// What the machine of `me` should have for the network that `table` is about.
fn desired(table: &NetworkTable, me: NodeId) -> State {
    let Some(own) = table.attachments().find(|one| one.node == me) else { return State::default() };
    let local = own.data_path_addr;
    // A tunnel has ends of one family.
    let reachable = |end: &IpAddr| end.is_ipv4() == local.is_ipv4() && *end != local;
    let others = table.attachments().filter(|one| one.network == own.network && one.node != me);
    let ends: BTreeMap<_, _> =
        others.map(|one| (one.node, one.data_path_addr)).filter(|(_, end)| reachable(end)).collect();
    let mut state = State { local: Some(local), flood: ends.values().copied().collect(), ..State::default() };
    for endpoint in table.endpoints().filter(|one| one.network == own.network) {
        let addresses: Vec<_> = endpoint.addresses.iter().filter_map(|text| held(table, endpoint, text)).collect();
        if endpoint.node != me {
            match (ends.get(&endpoint.node), endpoint.mac.as_deref()) {
                (Some(end), Some(mac)) => {
                    state.forwarding.insert(mac.to_lowercase(), *end);
                    state.neighbours.extend(addresses.iter().map(|address| (*address, mac.to_lowercase())));
                }
                // Whoever wants it asks everybody, and its answers are not learned: all packets to it are flooded.
                (Some(_), None) => drop(state.notes.insert(format!("{}: no hardware address", endpoint.id))),
                (None, _) => drop(state.notes.insert(format!("{}: its node has no tunnel to here", endpoint.id))),
            }
        }
        let takes_traffic = endpoint.state == EndpointState::Enabled && endpoint.owner_down_since.is_none();
        if takes_traffic && !addresses.is_empty() {
            for port in endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress || endpoint.node == me) {
                let targets = state.published.entry((port.protocol, port.published)).or_default();
                targets.extend(addresses.iter().map(|address| SocketAddr::new(*address, port.target)));
            }
        }
    }
    state
}

/// An endpoint's address, unless another one claims it too and has it.
fn held(table: &NetworkTable, endpoint: &Endpoint, text: &str) -> Option<IpAddr> {
    let address = text.split('/').next()?.parse().ok()?;
    let conflict = table.conflicts().find(|one| one.network == endpoint.network && one.address == address);
    let holder = conflict.and_then(|conflict| conflict.endpoints.first());
    holder.is_none_or(|holder| (holder.node, holder.id) == (endpoint.node, endpoint.id)).then_some(address)
}

/// Commands that make `want` of `have`, for `bridge -batch` and for `ip -batch`.
fn difference(have: &State, want: &State, device: &str) -> (Vec<String>, Vec<String>) {
    const ALL: &str = "00:00:00:00:00:00";
    let (mut bridge, mut ip) = (Vec::new(), Vec::new());
    for (mac, end) in have.forwarding.iter().filter(|(mac, _)| !want.forwarding.contains_key(*mac)) {
        bridge.push(format!("fdb del {mac} dev {device} dst {end} self"));
    }
    for (mac, end) in want.forwarding.iter().filter(|(mac, end)| have.forwarding.get(*mac) != Some(end)) {
        bridge.push(format!("fdb replace {mac} dev {device} dst {end} self permanent"));
    }
    bridge.extend(have.flood.difference(&want.flood).map(|end| format!("fdb del {ALL} dev {device} dst {end} self")));
    let more = want.flood.difference(&have.flood);
    bridge.extend(more.map(|end| format!("fdb append {ALL} dev {device} dst {end} self permanent")));
    for (address, _) in have.neighbours.iter().filter(|(address, _)| !want.neighbours.contains_key(*address)) {
        ip.push(format!("neigh del {address} dev {device}"));
    }
    for (address, mac) in want.neighbours.iter().filter(|(address, mac)| have.neighbours.get(*address) != Some(mac)) {
        ip.push(format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"));
    }
    (bridge, ip)
}

/// The nftables table: a map from published ports to chains, each of which chooses one of the port's endpoints by chance.
/// It takes the old one's place in one step. Connections that are open stay where they are.
fn ruleset(published: &BTreeMap<Publication, BTreeSet<SocketAddr>>, device: &str) -> String {
    let name = table_name(device);
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for ((protocol, port), targets) in published {
        elements.push(format!("{protocol} . {port} : goto {protocol}-{port}"));
        let _ = writeln!(chains, " chain {protocol}-{port} {{");
        for (family, is_v4) in [("ip", true), ("ip6", false)] {
            let of_family = targets.iter().filter(|target| target.is_ipv4() == is_v4).enumerate();
            let choice: Vec<_> =
                of_family.map(|(n, target)| format!("{n} : {} . {}", target.ip(), target.port())).collect();
            if !choice.is_empty() {
                let (among, choice) = (choice.len(), choice.join(", "));
                let _ = writeln!(
                    chains,
                    "  meta l4proto {protocol} dnat {family} to numgen random mod {among} map {{ {choice} }}"
                );
            }
        }
        chains.push_str(" }\n");
    }
    // Nothing between the braces would be an error.
    let elements = match elements.as_slice() {
        [] => String::new(),
        some => format!("  elements = {{ {} }}\n", some.join(", ")),
    };
    let look_up = "fib daddr type local meta l4proto . th dport vmap @published";
    format!(
        "table inet {name} {{}}\ndelete table inet {name}\ntable inet {name} {{\n \
         map published {{\n  type inet_proto . inet_service : verdict\n{elements} }}\n{chains} \
         chain prerouting {{\n  type nat hook prerouting priority -100\n  {look_up}\n }}\n \
         chain output {{\n  type nat hook output priority -100\n  {look_up}\n }}\n \
         chain postrouting {{\n  type nat hook postrouting priority 100\n  oifname \"{device}\" ct status dnat masquerade\n }}\n}}\n"
    )
}

fn table_name(device: &str) -> String {
    format!("gossipd_{}", device.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"))
}

/// Runs a program to its end, with `input`; what it says on its standard output.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(shown)?;
    let stdin = child.stdin.take();
    let done = std::thread::scope(|scope| {
        // Beside the reading: it may complain at length before it has read all. What it does not read, it tells itself.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output().with_context(shown)
    })?;
    ensure!(done.status.success(), "{}: {}", shown(), String::from_utf8_lossy(&done.stderr).trim());
    Ok(String::from_utf8(done.stdout)?)
}

/// The rows of a table that `ip -j` or `bridge -j` prints.
fn rows(program: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let text = run(program, arguments, "")?;
    let rows = if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(&text) };
    rows.with_context(|| format!("{program} {}: not understood", arguments.join(" ")))
}

fn word<'a>(row: &'a Value, key: &str) -> Option<&'a str> {
    row.get(key)?.as_str()
}

/// What has to be known from one time to the next.
struct Agent {
    options: Options,
    /// What was printed last, when nothing is run.
    printed: State,
    /// What nftables was given last.
    published: Option<BTreeMap<Publication, BTreeSet<SocketAddr>>>,
    /// How it listed that: what it lists otherwise, or not at all, is given again as a whole.
    listed: Option<String>,
    notes: BTreeSet<String>,
}

impl Agent {
    /// What the device has.
    fn read_back(&self) -> Result<State> {
        let device = self.options.device.as_str();
        let mut have = State::default();
        for row in rows("bridge", &["-j", "fdb", "show", "dev", device])? {
            let end = word(&row, "dst").and_then(|end| end.parse().ok());
            if let (Some(mac), Some(end), Some("permanent")) = (word(&row, "mac"), end, word(&row, "state")) {
                if mac == "00:00:00:00:00:00" {
                    have.flood.insert(end);
                } else {
                    have.forwarding.insert(mac.to_owned(), end);
                }
            }
        }
        for row in rows("ip", &["-j", "neigh", "show", "dev", device, "nud", "permanent"])? {
            let address = word(&row, "dst").and_then(|address| address.parse().ok());
            have.neighbours.extend(address.zip(word(&row, "lladdr").map(str::to_owned)));
        }
        Ok(have)
    }

    /// Makes the device, or its end of the tunnel what it should be; says whether it is there.
    fn has_device(&self, local: Option<IpAddr>) -> Result<bool> {
        let Options { device, vxlan_id, vxlan_port, .. } = &self.options;
        let (id, port) = (vxlan_id.to_string(), vxlan_port.to_string());
        let Ok(links) = rows("ip", &["-d", "-j", "link", "show", "dev", device]) else {
            let Some(local) = local.map(|local| local.to_string()) else { return Ok(false) };
            let link = ["link", "add", device, "type", "vxlan", "id", &id, "local", &local];
            run("ip", &[&link[..], &["dstport", &port, "nolearning"]].concat(), "")?;
            run("ip", &["link", "set", device, "up"], "")?;
            println!("ip {} dstport {port} nolearning", link.join(" "));
            return Ok(true);
        };
        let data = links.first().and_then(|link| link.pointer("/linkinfo/info_data"));
        let found = data.and_then(|data| data.get("id")).and_then(Value::as_u64);
        ensure!(found == Some(u64::from(*vxlan_id)), "{device} is there and is not VXLAN {vxlan_id}");
        let end = data.and_then(|data| word(data, "local").or_else(|| word(data, "local6")));
        if let Some(local) = local.map(|local| local.to_string()).filter(|local| end != Some(local)) {
            run("ip", &["link", "set", device, "type", "vxlan", "id", &id, "local", &local], "")?;
            println!("ip link set {device} type vxlan id {id} local {local}");
        }
        Ok(true)
    }

    async fn look(&mut self, client: &Client, table: &NetworkTable) -> Result<()> {
        // Asked each time: a node that has left its cluster and joined one has another id.
        let me = client.self_info().await?.id;
        self.bring_about(desired(table, me))
    }

    /// Makes the machine what it should be.
    fn bring_about(&mut self, want: State) -> Result<()> {
        let (apply, device) = (self.options.apply, self.options.device.clone());
        for note in want.notes.difference(&self.notes) {
            println!("# endpoint {note}");
        }
        self.notes.clone_from(&want.notes);
        let is_there = !apply || self.has_device(want.local)?;
        let read = if apply && is_there { Some(self.read_back()?) } else { None };
        let (bridge, ip) = if is_there {
            difference(read.as_ref().unwrap_or(&self.printed), &want, &device)
        } else {
            Default::default()
        };
        let mut outcome = Ok(());
        for (program, lines) in [("bridge", bridge), ("ip", ip)] {
            lines.iter().for_each(|line| println!("{program} {line}"));
            if apply && !lines.is_empty() {
                // It goes on after an error: one entry that is refused keeps no other from its place.
                let done = run(program, &["-force", "-batch", "-"], &format!("{}\n", lines.join("\n")));
                outcome = outcome.and(done.map(drop));
            }
        }
        let name = format!("gossipd_{device}");
        let list = || if apply { run("nft", &["list", "table", "inet", &name], "").ok() } else { None };
        if self.listed != list() {
            self.published = None;
        }
        if self.published.as_ref() != Some(&want.published) {
            if apply {
                run("nft", &["-f", "-"], &ruleset(&want.published, &device))?;
                self.listed = list();
            }
            print_published(self.published.as_ref(), &want.published);
            self.published = Some(want.published.clone());
        }
        self.printed = want;
        outcome
    }
}

fn print_published(
    have: Option<&BTreeMap<Publication, BTreeSet<SocketAddr>>>,
    want: &BTreeMap<Publication, BTreeSet<SocketAddr>>,
) {
    let none = BTreeMap::new();
    let have = have.unwrap_or(&none);
    for (protocol, port) in have.keys().filter(|key| !want.contains_key(key)) {
        println!("nft {port}/{protocol} goes nowhere");
    }
    for ((protocol, port), targets) in want.iter().filter(|(key, targets)| have.get(key) != Some(targets)) {
        let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
        println!("nft {port}/{protocol} goes to {}", targets.join(", "));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let client = Client::connect(&options.socket).await?;
    let topics = vec![Topic::Networks, Topic::Endpoints, Topic::Conflicts];
    let watched = WatchOptions { topics, networks: vec![options.network.clone()], ..WatchOptions::default() };
    let mut updates = client.watch(watched);
    let mut table = NetworkTable::default();
    let mut is_whole = false;
    let mut agent = Agent { options, printed: State::default(), published: None, listed: None, notes: BTreeSet::new() };
    let mut due = Instant::now() + LOOK_AGAIN;
    loop {
        if due <= Instant::now() {
            due = Instant::now() + LOOK_AGAIN;
            // Commands run while nobody reads the stream. Should they take so long that it is cut off, a snapshot follows.
            if is_whole && let Err(error) = agent.look(&client, &table).await {
                eprintln!("{error:#}");
                due = Instant::now() + RETRY;
            }
        }
        let Ok(update) = timeout_at(due, updates.next()).await else { continue };
        match update.context("nothing follows any more")? {
            Ok(update) => {
                table.apply(&update);
                match &update {
                    Update::Snapshot { .. } => is_whole = true,
                    // What was told stays until the snapshot is there.
                    Update::Resync { reason } => eprintln!("starting over: {reason}"),
                    Update::Change(_) | Update::Resumed { .. } => {}
                }
                due = due.min(Instant::now() + COLLECT);
            }
            // It connects again by itself. What the machine has is good until then.
            Err(error) => eprintln!("{error}"),
        }
    }
}
