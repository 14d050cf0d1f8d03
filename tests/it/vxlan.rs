//! The network agent's example on real daemons: three machines, each a network namespace, and endpoints that reach each
//! other over VXLAN because gossipd says where they are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fleet::Namespace;
use crate::harness::{Node, all_ready, command, form, is_root, skip, wait_for};

/// Where the daemons' metrics are: what answers on an endpoint.
const TARGET: u16 = 9100;

/// The running example.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn start(namespace: &Namespace, node: &Node, flags: &[&str]) -> Self {
        let log = node.dir().join(format!("agent{}.log", flags.concat()));
        let entry = namespace.entry();
        let mut command = command(&entry[0]);
        command.args(&entry[1..]).arg(program()).args(["--network", "web", "--socket"]).arg(node.socket());
        command.args(flags);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// `kill -9`.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}

struct Machine {
    agent: Agent,
    node: Node,
    namespace: Namespace,
    mac: String,
}

/// What is programmed: forwarding entries, neighbours, targets of the published port.
type Programmed = [BTreeSet<String>; 3];

impl Machine {
    fn programmed(&self) -> Programmed {
        let table = |words: &str, middle: &str| {
            let text = self.namespace.try_run(words).out;
            let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let rows = rows.filter(|row| row.get(1) == Some(&middle)).map(|row| format!("{} {}", row[0], row[2]));
            rows.collect::<BTreeSet<_>>()
        };
        let rules = self.namespace.try_run("nft list table inet gossipd_vx0").out;
        let words: Vec<_> = rules.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty()).collect();
        let targets = words.windows(3).filter(|three| three[1] == "." && three[0].parse::<IpAddr>().is_ok());
        [
            table("bridge fdb show dev vx0", "dst"),
            table("ip neigh show dev vx0 nud permanent", "lladdr"),
            targets.map(|three| format!("{}:{}", three[0], three[2])).collect(),
        ]
    }

    #[track_caller]
    fn becomes(&self, expected: &Programmed) {
        wait_for(&format!("{} to have {expected:?}", self.node.name), || {
            let found = self.programmed();
            if &found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    #[track_caller]
    fn pings(&self, address: &str) {
        self.namespace.run(&format!("ping -c1 -W5 {address}"));
    }

    fn set(&self, task: &str, address: &str) {
        let to = format!("8080:{TARGET}");
        let words = ["endpoint", "set", "--network", "web", "--task", task, "--address", address, "--mac", &self.mac];
        self.node.ctl(&[&words[..], &["--publish", &to]].concat()).ok();
    }

    fn turn(&self, word: &str, task: &str) {
        self.node.ctl(&["endpoint", word, task]).ok();
    }
}

/// An endpoint, as a test expects it: on which machine, with what address, and whether it takes traffic.
type Placed<'a> = (usize, &'a str, bool);

/// What machine `at` should have.
fn expected(machines: &[Machine], at: usize, endpoints: &[Placed<'_>]) -> Programmed {
    let end = |n: usize| format!("10.130.0.{}", n + 1);
    let others = || endpoints.iter().filter(|(on, ..)| *on != at);
    let floods = (0..machines.len()).filter(|n| *n != at).map(|n| format!("00:00:00:00:00:00 {}", end(n)));
    let targets = endpoints.iter().filter(|(.., takes)| *takes);
    [
        floods.chain(others().map(|(on, ..)| format!("{} {}", machines[*on].mac, end(*on)))).collect(),
        others().map(|(on, address, _)| format!("{address} {}", machines[*on].mac)).collect(),
        targets.map(|(_, address, _)| format!("{address}:{TARGET}")).collect(),
    ]
}

#[track_caller]
fn all_become(machines: &[Machine], endpoints: &[Placed<'_>]) {
    for (at, machine) in machines.iter().enumerate() {
        machine.becomes(&expected(machines, at, endpoints));
    }
}

/// The example's program: `cargo test` builds it, `cargo test --test it` does not.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/network_agent")
}

/// Why it cannot be tested here.
fn missing() -> Option<String> {
    if !is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if !program().exists() {
        return Some("needs the example: cargo build --example network_agent".to_owned());
    }
    for words in [&["unshare", "--net", "true"][..], &["ip", "-V"], &["bridge", "-V"], &["nft", "-v"], &["ping", "-V"]]
    {
        let mut command = command(words[0]);
        let works = command.args(&words[1..]).output().is_ok_and(|done| done.status.success());
        if !works {
            return Some(format!("needs {}", words[0]));
        }
    }
    let probe = Namespace::new();
    for words in ["ip link add vx0 type vxlan id 42 dstport 4789", "ip link add eth0 type veth peer name eth1"] {
        if probe.try_run(words).code != 0 {
            return Some(format!("the kernel has no {}", words.split(' ').nth(5).unwrap_or_default()));
        }
    }
    None
}

/// Three machines on one wire, in one cluster, attached, with running agents and without endpoints. Two have their VXLAN
/// device already, the third gets it from its agent.
fn machines(hub: &Namespace) -> Vec<Machine> {
    hub.run("ip link add wire type bridge");
    hub.run("ip link set wire up");
    let mut namespaces = Vec::new();
    for n in 1..=3 {
        let namespace = Namespace::new();
        let pid = namespace.pid();
        hub.run(&format!("ip link add port{n} type veth peer name eth0 netns {pid}"));
        hub.run(&format!("ip link set port{n} master wire up"));
        namespace.run(&format!("ip addr add 10.130.0.{n}/24 dev eth0"));
        namespace.run("ip link set eth0 up");
        if n < 3 {
            let more = format!("local 10.130.0.{n} dstport 4789 nolearning");
            namespace.run(&format!("ip link add vx0 address 02:00:00:00:09:0{n} type vxlan id 42 {more}"));
            namespace.run("ip link set vx0 up");
        }
        namespaces.push(namespace);
    }
    let nodes: Vec<Node> = namespaces.iter().zip(["one", "two", "three"]).zip(1..).map(node).collect();
    form(&nodes);
    let machines = nodes.into_iter().zip(namespaces).zip(1..).map(|((node, namespace), n)| {
        node.ctl(&["network", "attach", "web"]).ok();
        let agent = Agent::start(&namespace, &node, &["--apply"]);
        let mac = wait_for("the device", || {
            let shown = namespace.try_run("ip -br link show dev vx0 up");
            shown.out.split_whitespace().nth(2).map(str::to_owned).ok_or(shown.err)
        });
        namespace.run(&format!("ip addr add 10.0.9.{n}/24 dev vx0"));
        Machine { agent, node, namespace, mac }
    });
    machines.collect()
}

fn node(((namespace, name), n): ((&Namespace, &str), u8)) -> Node {
    let node = Node::new(name).at(Ipv4Addr::new(10, 130, 0, n)).on_port(7946);
    let mut node = node.with_config(&format!("metrics = {{ listen = \"0.0.0.0:{TARGET}\" }}"));
    node = node.wrapped_in(&namespace.entry().each_ref().map(String::as_str));
    node.start();
    node
}

#[test]
fn endpoints_on_different_nodes_ping_each_other_by_what_the_agents_program() {
    if let Some(reason) = missing() {
        return skip(&reason);
    }
    let began = Instant::now();
    let hub = Namespace::new();
    let mut machines = machines(&hub);
    for (n, machine) in machines.iter().enumerate() {
        machine.set(&format!("shop.{}", n + 1), &format!("10.0.9.{}/24", n + 1));
    }
    all_become(&machines, &[(0, "10.0.9.1", true), (1, "10.0.9.2", true), (2, "10.0.9.3", true)]);
    for machine in &machines {
        for address in ["10.0.9.1", "10.0.9.2", "10.0.9.3"] {
            machine.pings(address);
        }
    }
    published_port_answers(&machines);
    an_agent_that_was_killed_finds_what_has_changed(&mut machines);
    // Who takes no traffic is still reached, and who is gone is not.
    machines[2].turn("disable", "shop.3");
    all_become(&machines, &[(0, "10.0.9.1", true), (1, "10.0.9.22", true), (2, "10.0.9.3", false)]);
    machines[0].pings("10.0.9.3");
    machines[2].turn("rm", "shop.3");
    let left = [(0, "10.0.9.1", true), (1, "10.0.9.22", true)];
    all_become(&machines, &left);
    a_daemon_that_was_killed_takes_nothing_along(&mut machines, &left);
    an_agent_that_was_too_slow_begins_anew(&mut machines);
    whoever_has_no_hardware_address_is_reached_by_flooding(&machines);
    without_leave_to_apply_it_prints(&machines[1], &hub);
    // Not attached: nothing is there.
    machines[0].node.ctl(&["network", "detach", "web"]).ok();
    machines[0].becomes(&Programmed::default());
    println!("all of it: {:?}", began.elapsed());
}

/// On every machine, whichever endpoint is chosen.
fn published_port_answers(machines: &[Machine]) {
    if command("curl").arg("-V").output().is_err() {
        return skip("needs curl for the published port");
    }
    for (n, machine) in machines.iter().enumerate() {
        for _ in 0..6 {
            let page = machine.namespace.run(&format!("curl -sf -m 10 http://10.130.0.{}:8080/metrics", n + 1));
            assert!(page.contains("gossipd_"), "{page}");
        }
    }
}

fn an_agent_that_was_killed_finds_what_has_changed(machines: &mut [Machine]) {
    let before = machines[0].programmed();
    machines[0].agent.kill();
    machines[1].namespace.run("ip addr add 10.0.9.22/24 dev vx0");
    // As when somebody reloads the firewall: it is there again with the next look.
    machines[2].namespace.run("nft delete table inet gossipd_vx0");
    machines[1].set("shop.2", "10.0.9.22/24");
    let now = [(0, "10.0.9.1", true), (1, "10.0.9.22", true), (2, "10.0.9.3", true)];
    machines[2].becomes(&expected(machines, 2, &now));
    // What it had programmed is there and works; somebody has added to it.
    assert_eq!(machines[0].programmed(), before);
    machines[0].pings("10.0.9.3");
    machines[0].namespace.run("bridge fdb append 02:00:00:00:09:99 dev vx0 dst 10.130.0.99 self permanent");
    machines[0].namespace.run("ip neigh replace 10.0.9.99 lladdr 02:00:00:00:09:99 dev vx0 nud permanent");
    let logged = machines[0].agent.log().len();
    machines[0].agent = Agent::start(&machines[0].namespace, &machines[0].node, &["--apply"]);
    all_become(machines, &now);
    // Only what is gone was taken away, at no time more.
    let log = machines[0].agent.log().split_off(logged);
    let taken: Vec<_> = log.lines().filter(|line| line.contains(" del ")).collect();
    let stale = ["bridge fdb del 02:00:00:00:09:99 dev vx0 dst 10.130.0.99 self"];
    assert_eq!(taken, [&stale[..], &["ip neigh del 10.0.9.2 dev vx0", "ip neigh del 10.0.9.99 dev vx0"]].concat());
    machines[0].pings("10.0.9.22");
}

fn a_daemon_that_was_killed_takes_nothing_along(machines: &mut [Machine], left: &[Placed<'_>]) {
    machines[0].node.kill();
    assert_eq!(machines[0].programmed(), expected(machines, 0, left));
    // Whose daemon is down keeps its entries elsewhere, and gets no traffic.
    machines[1].becomes(&expected(machines, 1, &[(0, "10.0.9.1", false), (1, "10.0.9.22", true)]));
    machines[2].set("shop.4", "10.0.9.3/24");
    machines[0].node.start();
    all_ready(&machines.iter().map(|machine| &machine.node).collect::<Vec<_>>());
    all_become(machines, &[left[0], left[1], (2, "10.0.9.3", true)]);
    let log = machines[0].agent.log();
    assert!(log.contains("starting over: "), "{log}");
    machines[0].pings("10.0.9.3");
}

fn an_agent_that_was_too_slow_begins_anew(machines: &mut [Machine]) {
    let Machine { agent, node, .. } = &machines[0];
    agent.signal(Signal::SIGSTOP);
    // More than the daemon keeps: 8 MiB.
    for n in 0..120 {
        let text = format!("{n:03}").repeat(8_000);
        let labels = serde_json::json!({ "a": text, "b": text });
        let set = serde_json::json!([{ "task": "large", "addresses": ["10.0.9.50/24"], "labels": labels }]);
        let answer = node.post("/v1/networks/web/endpoints", &serde_json::json!({ "set": set }).to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    machines[0].turn("rm", "large");
    machines[2].turn("rm", "shop.4");
    let left = [(0, "10.0.9.1", true), (1, "10.0.9.22", true)];
    machines[1].becomes(&expected(machines, 1, &left));
    machines[0].agent.signal(Signal::SIGCONT);
    all_become(machines, &left);
    let log = machines[0].agent.log();
    assert!(log.contains("starting over: too slow: "), "{log}");
}

fn whoever_has_no_hardware_address_is_reached_by_flooding(machines: &[Machine]) {
    let words = ["endpoint", "set", "--network", "web", "--task", "shop.5", "--address", "10.0.9.3/24"];
    machines[2].node.ctl(&words).ok();
    wait_for("it to be said", || {
        let log = machines[0].agent.log();
        if log.contains(": no hardware address") { Ok(()) } else { Err(log) }
    });
    machines[0].becomes(&expected(machines, 0, &[(0, "10.0.9.1", true), (1, "10.0.9.22", true)]));
    machines[0].pings("10.0.9.3");
    machines[2].turn("rm", "shop.5");
}

fn without_leave_to_apply_it_prints(of: &Machine, elsewhere: &Namespace) {
    let printing = Agent::start(elsewhere, &of.node, &[]);
    wait_for("it to be printed", || {
        let log = printing.log();
        let mac = "02:00:00:00:09:01";
        let forwarding = format!("bridge fdb replace {mac} dev vx0 dst 10.130.0.1 self permanent");
        let neighbour = format!("ip neigh replace 10.0.9.1 lladdr {mac} dev vx0 nud permanent");
        let port = format!("nft 8080/tcp goes to 10.0.9.1:{TARGET}, 10.0.9.22:{TARGET}");
        let is_said = [forwarding, neighbour, port].iter().all(|line| log.lines().any(|said| said == line));
        if is_said { Ok(()) } else { Err(log) }
    });
    assert_eq!(elsewhere.try_run("ip link show dev vx0").code, 1);
    assert_eq!(elsewhere.run("nft list tables"), "");
}
