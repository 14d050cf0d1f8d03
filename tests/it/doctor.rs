//! `gossipctl doctor` finds what is there: on daemons that are well, stopped, killed, behind firewalls of all kinds, and
//! behind a path that is too narrow.

use std::net::Ipv4Addr;

use gossipd::api::{Diagnosis, FindingCode, Way};
use nix::sys::signal::Signal;

use crate::harness::{GOSSIPCTL, Node, Ran, cluster, form, wait_for};
use crate::lab::{DROPLET, Lab, is_possible};

const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ufw/setup.sh");
const HERE: Ipv4Addr = Ipv4Addr::new(10, 130, 27, 207);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 130, 27, 1);
/// A table that drops packets that arrive, and is gone with its name.
const TABLE: &str = "nft add table inet doctor; nft 'add chain inet doctor in { type filter hook input priority 0; }'";

/// What was found: the codes, each once. What the node says of its own health comes and goes as it looks at itself.
fn codes(ran: &Ran) -> Vec<String> {
    let findings = read(ran).findings;
    let told = findings.iter().filter(|finding| finding.code != FindingCode::Degraded);
    let mut codes: Vec<_> = told.map(|finding| finding.code.word().to_owned()).collect();
    codes.dedup();
    codes
}

#[track_caller]
fn read(ran: &Ran) -> Diagnosis {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

#[test]
fn a_cluster_that_is_well_and_a_node_that_is_not() {
    let mut nodes = cluster(&["a", "b", "c"]);
    for node in &nodes {
        let text = node.ctl(&["doctor"]).ok();
        assert!(text.ends_with("\nNothing found.\n"), "{text}");
        assert_eq!(text.matches("open      open     open      open").count(), 2, "{text}");
    }
    let found = read(&nodes[0].ctl(&["doctor", "b", "--format", "json"]));
    let [peer] = &found.peers[..] else { panic!("{found:#?}") };
    assert_eq!((peer.datagram_out_bytes, peer.datagram_in_bytes), (1_200, 1_200));
    assert!(peer.rtt_us.is_some() && peer.clock_ahead_ms.is_some() && peer.key.is_some(), "{peer:#?}");
    nodes[0].ctl(&["doctor", "nobody"]).refused(4, &["nobody"]);
    nodes[0].ctl(&["doctor", "a"]).refused(1, &["this node"]);
    nodes[0].ctl(&["doctor", "--timeout", "2m"]).refused(1, &["expected 1s to 60s"]);

    nodes[1].signal(Signal::SIGSTOP);
    nodes[2].kill();
    let ran = nodes[0].ctl(&["doctor", "--timeout", "3s"]);
    assert_eq!(ran.code, 11, "{ran:#?}");
    for text in ["gossipd does not answer", "refuses connections", "2 problems, 0 warnings:\n"] {
        assert!(ran.out.contains(text), "{text}: {ran:#?}");
    }
    let ran = nodes[0].ctl(&["doctor", "--timeout", "3s", "--format", "json"]);
    assert_eq!((ran.code, codes(&ran)), (11, vec!["unreachable".to_owned()]));
    nodes[1].signal(Signal::SIGCONT);
}

/// Two machines on a private network, each with one daemon.
struct Pair {
    nodes: [Node; 2],
    lab: Lab,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new(&["/etc"], DROPLET);
        let start = |name, ip, enter: &[&str]| {
            let entry = lab.entry();
            let words: Vec<_> = entry.iter().map(String::as_str).chain(enter.iter().copied()).collect();
            let mut node = Node::new(name).at(ip).on_port(7946).wrapped_in(&words);
            node.start();
            node
        };
        let here = start("here", HERE, &[]);
        let there = start("there", THERE, &["nsenter", "--net=/run/netns/private", "--"]);
        let nodes = [here, there];
        form(&nodes);
        Self { nodes, lab }
    }

    fn doctor(&self) -> Ran {
        let socket = self.nodes[0].socket();
        let mut command = self.lab.command(GOSSIPCTL);
        Ran::of(command.arg("--socket").arg(socket).args(["doctor", "--timeout", "3s", "--format", "json"]))
    }

    /// Waits until nothing is found any more.
    fn is_well(&self) {
        wait_for("nothing to be found", || {
            let ran = self.doctor();
            if ran.code == 0 { Ok(()) } else { Err(ran.out) }
        });
    }

    /// Drops what arrives here or there and fits `rule`, while doctor looks.
    fn with(&self, side: &str, rule: &str) -> Ran {
        let enter = if side == "there" { "nsenter --net=/run/netns/private -- " } else { "" };
        let run = |script: &str| self.lab.sh(&format!("{enter}sh -ec \"{script}\"")).ok();
        run(&format!("{TABLE}; nft add rule inet doctor in {rule}"));
        let ran = self.doctor();
        run("nft delete table inet doctor");
        ran
    }
}

#[test]
fn each_way_that_is_closed_is_named() {
    if !is_possible(&["nft", "ip", "unshare", "nsenter"]) {
        return;
    }
    let pair = Pair::new();
    pair.is_well();
    let cases = [
        ("here", "udp dport 7946 drop", "udp-blocked-in"),
        ("there", "udp dport 7946 drop", "udp-blocked-out"),
        ("here", "tcp dport 7946 drop", "tcp-blocked-in"),
        ("there", "tcp dport 7946 drop", "tcp-blocked-out"),
        ("there", "tcp dport 7946 reject with tcp reset", "tcp-blocked-out"),
        ("there", "meta l4proto { udp, tcp } th dport 7946 drop", "unreachable"),
    ];
    for (side, rule, code) in cases {
        let ran = pair.with(side, rule);
        assert_eq!((ran.code, codes(&ran)), (11, vec![code.to_owned()]), "{side} {rule}: {ran:#?}");
    }
    // A way that is open is not blamed.
    let ran = pair.with("here", "udp dport 7946 drop");
    let [peer] = &read(&ran).peers[..] else { panic!("{ran:#?}") };
    assert_eq!([peer.udp_out, peer.udp_in, peer.tcp_out, peer.tcp_in], [Way::Open, Way::Silent, Way::Open, Way::Open]);
    assert_eq!(peer.datagram_out_bytes, 1_200);

    // Large datagrams only.
    let ran = pair.with("there", "udp dport 7946 udp length 1051-65535 drop");
    let [peer] = &read(&ran).peers[..] else { panic!("{ran:#?}") };
    assert_eq!(
        (codes(&ran), peer.datagram_out_bytes, peer.datagram_in_bytes),
        (vec!["mtu-small".into()], 1_000, 1_200)
    );
    pair.lab.sh("ip link set eth1 mtu 1000").ok();
    let ran = pair.doctor();
    let [peer] = &read(&ran).peers[..] else { panic!("{ran:#?}") };
    assert_eq!((codes(&ran), peer.datagram_out_bytes, peer.datagram_in_bytes), (vec!["mtu-small".into()], 900, 900));
    pair.lab.sh("ip link set eth1 mtu 1500").ok();
    pair.is_well();
}

#[test]
fn a_firewall_that_keeps_others_out_is_seen() {
    if !is_possible(&["ufw", "ip", "unshare", "nsenter"]) {
        return;
    }
    let pair = Pair::new();
    pair.lab.sh("rm -f /etc/ufw/gossipd.state; ufw --force reset; ufw --force enable").ok();
    let ran = pair.doctor();
    let found = read(&ran);
    let firewall = found.findings.iter().find(|finding| finding.code.word() == "firewall");
    let what = &firewall.unwrap_or_else(|| panic!("{ran:#?}")).what;
    assert_eq!((ran.code, what.as_str()), (11, "ufw keeps others from 7946/udp and 7946/tcp on eth1"));
    // Open for somebody else.
    pair.lab.sh("ufw allow in on eth0 to any port 7946").ok();
    assert!(codes(&pair.doctor()).contains(&"firewall".to_owned()));
    pair.lab.sh("ufw --force delete allow in on eth0 to any port 7946").ok();
    Ran::of(pair.lab.command("sh").args([SETUP, "--interface", "eth1"])).ok();
    pair.is_well();
}
