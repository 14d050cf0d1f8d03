//! A fleet: hosts in network, mount and host name namespaces of their own, with `eth1` on a private bridge and `eth0` on a
//! public one, a real daemon on each, and what befalls them: packets lost by nftables, links down, other addresses.
//!
//! All of it hangs on processes that end when this one does, however it does. A fault that has hit no packet fails its test.
//!
//! Not here: what is expected of the daemons (`fleet_faults`).

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Node, Ran, command, form, wait_for};

/// The port of gossip.
pub(crate) const PORT: u16 = 7946;

/// Larger fleets are told one another's hardware addresses: the kernel has room for about a thousand that were asked for, in
/// all namespaces together.
const NEIGHBOURS_ASKED_MAX: usize = 8;

/// Namespaces of one machine. They go with the process in them.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// With nothing but loopback.
    pub(crate) fn new() -> Self {
        let mut command = command("unshare");
        let command = command.args(["--net", "--uts", "--mount", "--propagation", "private", "cat"]);
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let namespace = Self { holder };
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let link = PathBuf::from(format!("/proc/{}/ns/mnt", namespace.pid()));
        // The last of them to be made.
        wait_for("a namespace", || match fs::read_link(&link) {
            Ok(link) if link != own => Ok(()),
            other => Err(format!("{other:?}")),
        });
        namespace.run("ip link set lo up");
        namespace
    }

    /// The process that they hang on.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// What must stand before a program and its arguments for it to run inside; it becomes that program.
    pub(crate) fn entry(&self) -> [String; 7] {
        let words = ["nsenter", "--target", &self.pid().to_string(), "--net", "--uts", "--mount", "--"];
        words.map(str::to_owned)
    }

    /// Runs a program inside.
    pub(crate) fn try_run(&self, words: &str) -> Ran {
        let entry = self.entry();
        Ran::of(command(&entry[0]).args(&entry[1..]).args(words.split_whitespace()))
    }

    /// Runs a program inside that must work.
    #[track_caller]
    pub(crate) fn run(&self, words: &str) -> String {
        self.try_run(words).ok()
    }

    /// Runs a shell script inside that must work.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let entry = self.entry();
        Ran::of(command(&entry[0]).args(&entry[1..]).args(["sh", "-ec", script])).ok()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A host of a fleet.
pub(crate) struct Host {
    /// Its daemon.
    pub(crate) node: Node,
    /// Its number, from 1.
    pub(crate) number: usize,
    pub(crate) namespace: Namespace,
}

/// Which addresses the private interfaces have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Both,
}

impl Host {
    /// Its private address.
    pub(crate) fn v4(&self) -> String {
        v4(self.number)
    }

    /// Its private address.
    pub(crate) fn v6(&self) -> String {
        v6(self.number)
    }

    /// From now on the packets that `rule` matches are dropped on their way `in` or `out` of `eth1`.
    #[track_caller]
    pub(crate) fn drops(&self, way: &str, rule: &str) {
        self.namespace.sh(&format!("nft 'add rule inet faults {way} {rule} counter drop'"));
    }

    /// Packets that each fault has hit so far.
    #[track_caller]
    pub(crate) fn hits(&self) -> Vec<u64> {
        let rules = self.namespace.run("nft list table inet faults");
        let words: Vec<_> = rules.split_whitespace().collect();
        words.windows(2).filter(|two| two[0] == "packets").map(|two| two[1].parse().unwrap()).collect()
    }

    /// No packet is dropped any more. Each fault must have hit some.
    #[track_caller]
    pub(crate) fn heals(&self) {
        let hits = self.hits();
        assert!(!hits.is_empty() && hits.iter().all(|hits| *hits > 0), "{}: {hits:?}", self.node.name);
        self.namespace.sh("nft flush table inet faults");
    }

    /// Follows what its daemon tells of `topics`.
    pub(crate) fn watch(&self, topics: &str) -> Stream {
        Stream::open(&self.node, topics)
    }
}

fn v4(number: usize) -> String {
    format!("10.130.0.{number}")
}

fn v6(number: usize) -> String {
    format!("fd00:130::{number:x}")
}

/// Hosts with their daemons.
pub(crate) struct Fleet {
    pub(crate) hosts: Vec<Host>,
    /// What the cables lead to.
    switch: Namespace,
}

impl Fleet {
    /// `count` hosts whose daemons run, and are in no cluster.
    #[track_caller]
    pub(crate) fn of(count: usize, family: Family) -> Self {
        let switch = Namespace::new();
        switch.sh("for side in 0 1; do ip link add br$side type bridge; ip link set br$side up; done");
        let hosts = (1..=count).map(|number| host(&switch, number, family)).collect();
        let mut fleet = Self { hosts, switch };
        if count > NEIGHBOURS_ASKED_MAX {
            fleet.hosts.iter().for_each(|host| know_neighbours(host, count));
        }
        fleet.hosts.iter_mut().for_each(|host| host.node.start());
        fleet
    }

    /// `count` hosts in one cluster, in the profile of one data centre.
    #[track_caller]
    pub(crate) fn formed(count: usize) -> Self {
        let mut fleet = Self::of(count, Family::V4);
        let hosts = std::mem::take(&mut fleet.hosts);
        let (nodes, rest): (Vec<_>, Vec<_>) =
            hosts.into_iter().map(|Host { node, number, namespace }| (node, (number, namespace))).unzip();
        form(&nodes);
        fleet.hosts =
            nodes.into_iter().zip(rest).map(|(node, (number, namespace))| Host { node, number, namespace }).collect();
        fleet
    }

    /// All daemons.
    pub(crate) fn nodes(&self) -> Vec<&Node> {
        self.hosts.iter().map(|host| &host.node).collect()
    }

    /// A stream of members from each host.
    pub(crate) fn watch_members(&self) -> Vec<Stream> {
        self.hosts.iter().map(|host| host.watch("members")).collect()
    }

    /// Nothing gets from any of `from` to any of `to`.
    #[track_caller]
    pub(crate) fn cut(&self, from: &[usize], to: &[usize]) {
        let sources = from.iter().map(|at| self.hosts[*at].v4()).collect::<Vec<_>>().join(", ");
        to.iter().for_each(|at| self.hosts[*at].drops("in", &format!("ip saddr {{ {sources} }}")));
    }

    /// The private link of a host, at the switch: `down`, `up`, `mtu 1280`.
    #[track_caller]
    pub(crate) fn set_link(&self, at: usize, state: &str) {
        let number = self.hosts[at].number;
        self.switch.run(&format!("ip link set p1n{number} {state}"));
    }
}

fn mac(number: usize) -> String {
    format!("02:00:0a:82:00:{number:02x}")
}

fn know_neighbours(host: &Host, count: usize) {
    let others = (1..=count).filter(|other| *other != host.number);
    let known = others.map(|other| format!("neigh add {} lladdr {} dev eth1 nud permanent\n", v4(other), mac(other)));
    host.namespace.sh(&format!("ip -batch - <<'end'\n{}end", known.collect::<String>()));
}

fn host(switch: &Namespace, number: usize, family: Family) -> Host {
    let namespace = Namespace::new();
    let (name, pid) = (format!("swarm{number}"), namespace.pid());
    switch.sh(&format!(
        "for side in 0 1; do
           ip link add p${{side}}n{number} type veth peer name eth$side netns {pid}
           ip link set p${{side}}n{number} master br$side up
         done"
    ));
    let (v4, v6) = (v4(number), v6(number));
    let private = match family {
        Family::V4 => format!("ip addr add {v4}/16 dev eth1"),
        Family::V6 => format!("ip addr add {v6}/64 dev eth1 nodad"),
        Family::Both => format!("ip addr add {v4}/16 dev eth1; ip addr add {v6}/64 dev eth1 nodad"),
    };
    namespace.sh(&format!(
        "hostname {name}
         mount -t tmpfs run /run
         {private}
         ip addr add 198.51.100.{number}/24 dev eth0
         ip link set eth1 address {}
         ip link set eth0 up
         ip link set eth1 up
         nft 'table inet faults {{
           chain in {{ type filter hook input priority 0; }}
           chain out {{ type filter hook output priority 0; }}
         }}'",
        mac(number)
    ));
    let entry = namespace.entry();
    let entry: Vec<_> = entry.iter().map(String::as_str).collect();
    let at = if family == Family::V4 { v4 } else { v6 };
    let node = Node::new(&name).wrapped_in(&entry).with_profile("lan").listening_at(&at).on_port(PORT);
    Host { node, number, namespace }
}

/// A change of a member, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) host: String,
    pub(crate) new: Option<String>,
    pub(crate) line: Value,
}

/// What a daemon tells, from the end of the snapshot on.
pub(crate) struct Stream {
    name: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Stream {
    fn open(node: &Node, topics: &str) -> Self {
        let mut socket = UnixStream::connect(node.socket()).unwrap();
        write!(socket, "GET /v1/watch?topics={topics} HTTP/1.0\r\nHost: gossipd\r\n\r\n").unwrap();
        let (seen, is_synced) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(Mutex::new(false)));
        let (told, synced) = (Arc::clone(&seen), Arc::clone(&is_synced));
        // Ends with the daemon's stream.
        thread::spawn(move || {
            for line in BufReader::new(socket).lines().map_while(Result::ok) {
                let at = Instant::now();
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                match line["type"].as_str() {
                    Some("synced") => *synced.lock().unwrap() = true,
                    Some("change") => told.lock().unwrap().push(change(at, line)),
                    _ => {}
                }
            }
        });
        wait_for(&format!("the stream of {}", node.name), || {
            if *is_synced.lock().unwrap() { Ok(()) } else { Err("not synced".to_owned()) }
        });
        Self { name: node.name.clone(), seen }
    }

    /// All changes so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `host` is told of with that status, and gives the time.
    #[track_caller]
    pub(crate) fn sees(&self, host: &str, status: &str) -> Instant {
        let fits = |seen: &Seen| seen.host == host && seen.new.as_deref() == Some(status);
        wait_for(&format!("{} to tell that {host} is {status}", self.name), || {
            let all = self.all();
            all.iter().rev().find(|seen| fits(seen)).map(|seen| seen.at).ok_or_else(|| format!("{all:?}"))
        })
    }

    /// Nobody but `hosts` was ever told of as down or with a new life.
    #[track_caller]
    pub(crate) fn harmed_only(&self, hosts: &[&str]) {
        let is_harm = |seen: &&Seen| seen.new.as_deref() == Some("down") || seen.line["cause"] == "returned";
        let all = self.all();
        let harmed: Vec<_> = all.iter().filter(is_harm).filter(|seen| !hosts.contains(&seen.host.as_str())).collect();
        assert!(harmed.is_empty(), "{}: {harmed:#?}", self.name);
    }
}

fn change(at: Instant, line: Value) -> Seen {
    let word = |side: &str, key: &str| line[side][key].as_str().map(str::to_owned);
    let host = word("new", "hostname").or_else(|| word("old", "hostname")).unwrap_or_default();
    Seen { at, host, new: word("new", "status"), line }
}

/// Times in a few words, for those who read the test's output.
pub(crate) fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_millis();
    println!("{what}: n {}, median {} ms, p90 {} ms, max {} ms", times.len(), at(50), at(90), at(100));
}
