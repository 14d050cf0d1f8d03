//! What must hold on real interfaces: daemons in a fleet of namespaces, and a network that can break. Times are printed; no
//! test passes or fails by them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use gossipd::record::Status;
use nix::sys::signal::Signal;

use crate::fleet::{Family, Fleet, Host, PORT, Stream, told};
use crate::harness::{Node, all_ready, shows, some_probes, wait_for};
use crate::lab;

/// How long a fault without a visible end lasts: long enough for many rounds of probes. `GOSSIPD_TEST_LONG` makes it five
/// minutes.
fn while_it_lasts() -> Duration {
    let is_long = std::env::var_os("GOSSIPD_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 300 } else { 20 })
}

fn is_possible() -> bool {
    lab::is_possible(&["ip", "nft", "nsenter", "hostname"])
}

fn others<'a>(streams: &'a [Stream], but: &'a [usize]) -> impl Iterator<Item = &'a Stream> {
    streams.iter().enumerate().filter(|(at, _)| !but.contains(at)).map(|(_, stream)| stream)
}

/// All are ready again, and nobody but `sick` was ever harmed in the eyes of the others.
#[track_caller]
fn ends_well(fleet: &Fleet, streams: &[Stream], sick: &[usize]) {
    all_ready(&fleet.nodes());
    let names: Vec<_> = sick.iter().map(|at| fleet.hosts[*at].node.name.as_str()).collect();
    others(streams, sick).for_each(|stream| stream.harmed_only(&names));
}

fn is_degraded(node: &Node, reason: &str) -> Result<(), String> {
    let degraded = node.own().cluster.unwrap().degraded;
    let words = serde_json::to_string(&degraded).unwrap();
    if words.contains(reason) { Ok(()) } else { Err(words) }
}

/// R3: kill -9 one of `count`, from the kill to each other host's stream.
fn kill_one_of(count: usize) {
    let mut fleet = Fleet::formed(count);
    let streams = fleet.watch_members();
    let killed_at = Instant::now();
    fleet.hosts[1].node.kill();
    let name = fleet.hosts[1].node.name.clone();
    let times = others(&streams, &[1]).map(|stream| stream.sees(&name, "down") - killed_at).collect();
    told(&format!("R3: kill -9 of one of {count}, down at all others"), times);
    others(&streams, &[1]).for_each(|stream| stream.harmed_only(&[&name]));
}

#[test]
fn r3_a_killed_daemon_of_3_is_down_everywhere_and_nobody_else() {
    if is_possible() {
        kill_one_of(3);
    }
}

#[test]
fn r3_a_killed_daemon_of_25_is_down_everywhere_and_nobody_else() {
    if is_possible() {
        kill_one_of(25);
    }
}

/// R5.
#[test]
fn r5_a_daemon_that_is_stopped_for_three_seconds_is_not_down() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(3);
    let streams = fleet.watch_members();
    fleet.hosts[1].node.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(3));
    fleet.hosts[1].node.signal(Signal::SIGCONT);
    fleet.nodes().into_iter().for_each(some_probes);
    ends_well(&fleet, &streams, &[]);
}

/// R7.
#[test]
fn r7_a_daemon_with_a_new_address_is_the_same_node() {
    if !is_possible() {
        return;
    }
    let mut fleet = Fleet::formed(3);
    let streams = fleet.watch_members();
    let id = fleet.hosts[1].node.id();
    let is_at = |fleet: &Fleet, addr: &str| {
        for host in [0, 2] {
            wait_for(&format!("the address {addr} of {id}"), || {
                let member = fleet.hosts[host].node.member(&id)?;
                let is_there = member.status == Status::Ready && member.address.to_string() == format!("{addr}:{PORT}");
                if is_there { Ok(()) } else { Err(format!("{member:?}")) }
            });
        }
    };
    // Its tunnels end at its own address, but for one that it was told.
    fleet.hosts[1].node.ctl(&["network", "attach", "front"]).ok();
    fleet.hosts[1].node.ctl(&["network", "attach", "--data-path-addr", "192.0.2.7", "fixed"]).ok();
    let ends_at = |fleet: &Fleet, network: &str, addr: &str| {
        wait_for(&format!("the tunnel of {network} to {addr}"), || {
            let shown = fleet.hosts[0].node.get(&format!("/v1/networks/{network}")).json();
            let vtep = shown["nodes"][0]["data_path_addr"].clone();
            if vtep == addr { Ok(()) } else { Err(shown.to_string()) }
        });
    };
    ends_at(&fleet, "fixed", "192.0.2.7");
    // Across a restart.
    fleet.hosts[1].node.terminate();
    fleet.hosts[1].namespace.sh("ip addr flush dev eth1; ip addr add 10.130.7.7/16 dev eth1");
    fleet.hosts[1].node.listen_at("eth1");
    fleet.hosts[1].node.start();
    is_at(&fleet, "10.130.7.7");
    ends_at(&fleet, "front", "10.130.7.7");
    // While it runs: the interface was named, so its address is followed.
    fleet.hosts[1].namespace.sh("ip addr flush dev eth1; ip addr add 10.130.8.8/16 dev eth1");
    is_at(&fleet, "10.130.8.8");
    ends_at(&fleet, "front", "10.130.8.8");
    ends_at(&fleet, "fixed", "192.0.2.7");
    assert_eq!(fleet.hosts[0].node.member(&id).unwrap().data_path_addr.unwrap().to_string(), "10.130.8.8");
    assert_eq!(fleet.hosts[1].node.id(), id);
    ends_well(&fleet, &streams, &[1]);
}

/// R8.
#[test]
fn r8_nobody_is_down_while_a_fifth_of_all_packets_is_lost() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(5);
    let streams = fleet.watch_members();
    fleet.hosts.iter().for_each(|host| host.drops("in", "iifname eth1 numgen random mod 100 < 20"));
    thread::sleep(while_it_lasts());
    fleet.hosts.iter().for_each(Host::heals);
    ends_well(&fleet, &streams, &[]);
}

/// R9.
#[test]
fn r9_a_host_without_udp_is_not_down_and_says_so() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(4);
    let streams = fleet.watch_members();
    for way in ["in", "out"] {
        fleet.hosts[2].drops(way, "meta l4proto udp");
    }
    wait_for("udp-blocked to be said", || is_degraded(&fleet.hosts[2].node, "udp-blocked"));
    let id = fleet.hosts[2].node.id();
    // Others reach it, and know how.
    for host in [0, 1, 3] {
        wait_for("udp-blocked to be seen", || {
            let member = fleet.hosts[host].node.member(&id)?;
            let words = serde_json::to_string(&member.degraded).unwrap();
            if member.status == Status::Ready && words.contains("udp-blocked") { Ok(()) } else { Err(words) }
        });
    }
    fleet.hosts[2].heals();
    ends_well(&fleet, &streams, &[]);
}

/// R10: one host hears nothing, or says nothing.
fn one_way(way: &str, interface: &str) {
    let fleet = Fleet::formed(5);
    let streams = fleet.watch_members();
    let name = &fleet.hosts[3].node.name;
    fleet.hosts[3].drops(way, interface);
    others(&streams, &[3]).for_each(|stream| _ = stream.sees(name, "down"));
    wait_for("isolated to be said", || is_degraded(&fleet.hosts[3].node, "isolated"));
    fleet.hosts[3].heals();
    ends_well(&fleet, &streams, &[3]);
    // It has accused nobody.
    streams[3].harmed_only(&[name]);
}

#[test]
fn r10_a_deaf_host_is_down_and_harms_nobody() {
    if is_possible() {
        one_way("in", "iifname eth1");
    }
}

#[test]
fn r10_a_mute_host_is_down_and_harms_nobody() {
    if is_possible() {
        one_way("out", "oifname eth1");
    }
}

#[test]
fn a_host_whose_link_is_down_is_down_and_harms_nobody() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(4);
    let streams = fleet.watch_members();
    fleet.set_link(2, "down");
    others(&streams, &[2]).for_each(|stream| _ = stream.sees(&fleet.hosts[2].node.name, "down"));
    fleet.set_link(2, "up");
    ends_well(&fleet, &streams, &[2]);
}

/// What a daemon says of decisions, attachments and endpoints.
fn content(node: &Node) -> Result<String, String> {
    let decisions = node.get("/v1/decisions").json();
    let endpoints = node.get("/v1/endpoints").json();
    let text = format!("{} {}", decisions["decisions"], endpoints["endpoints"]);
    // While its owner is down an endpoint says since when, by each node's own clock.
    if text.contains("owner_down_since\":\"") { Err(text) } else { Ok(text) }
}

/// R11.
#[test]
fn r11_what_is_written_on_both_sides_of_a_partition_is_everywhere_after_it() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(5);
    // Managers on both sides.
    fleet.hosts[0].node.ctl(&["node", "promote", "swarm4"]).ok();
    wait_for("a second manager", || {
        let role = fleet.hosts[3].node.own().cluster.unwrap().role;
        if role.to_string() == "manager" { Ok(()) } else { Err(role.to_string()) }
    });
    fleet.hosts.iter().for_each(|host| drop(host.node.ctl(&["network", "attach", "--wait", "web"]).ok()));
    let set = |at: usize, task: &str, last: u8| {
        let address = format!("10.0.9.{last}/24");
        let flags = ["endpoint", "set", "--network", "web", "--service", "shop", "--task", task, "--address", &address];
        fleet.hosts[at].node.ctl(&flags).ok()
    };
    for at in 0..5 {
        set(at, &format!("before.{at}"), 10 + u8::try_from(at).unwrap());
    }
    let streams = fleet.watch_members();
    fleet.cut(&[0, 1, 2], &[3, 4]);
    fleet.cut(&[3, 4], &[0, 1, 2]);
    let sides: [&[usize]; 2] = [&[0, 1, 2], &[3, 4]];
    for (side, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
        for (at, gone) in side.iter().flat_map(|at| other.iter().map(move |gone| (*at, *gone))) {
            let id = fleet.hosts[gone].node.id();
            shows(&fleet.hosts[at].node, &id, Status::Down);
        }
    }
    fleet.hosts[0].node.ctl(&["node", "update", "--availability", "drain", "swarm2"]).ok();
    fleet.hosts[3].node.ctl(&["node", "update", "--availability", "pause", "swarm5"]).ok();
    fleet.hosts[3].node.ctl(&["node", "update", "--label-add", "side=right", "swarm1"]).ok();
    fleet.hosts[1].node.ctl(&["endpoint", "rm", "before.1"]).ok();
    fleet.hosts[4].node.ctl(&["endpoint", "rm", "before.4"]).ok();
    set(2, "during.2", 32);
    set(4, "during.4", 34);
    let healed_at = Instant::now();
    [3, 4, 0, 1, 2].into_iter().for_each(|at| fleet.hosts[at].heals());
    all_ready(&fleet.nodes());
    wait_for("one content everywhere", || {
        let all: Vec<_> = fleet.nodes().into_iter().map(content).collect::<Result<_, _>>()?;
        let says = |word: &&str| all[0].contains(*word);
        let words = ["during.2", "during.4", "before.0", "drain", "pause", "right"];
        let is_right = words.iter().all(says) && !says(&"before.1") && !says(&"before.4");
        if is_right && all.iter().all(|one| *one == all[0]) { Ok(()) } else { Err(all.join("\n")) }
    });
    told("R11: all equal after a partition 3|2 with writes on both sides", vec![healed_at.elapsed()]);
    drop(streams);
}

/// R12.
#[test]
fn r12_seeds_that_know_nobody_any_more_are_found() {
    if !is_possible() {
        return;
    }
    let mut fleet = Fleet::formed(5);
    // All joined through the first one; the second is to be a seed too.
    for seed in [0, 1] {
        fleet.hosts[seed].node.kill();
        let contacts = fleet.hosts[seed].node.state_dir().join("contacts.json");
        let _ = fs::remove_file(contacts);
    }
    for seed in [0, 1] {
        fleet.hosts[seed].node.start();
    }
    all_ready(&fleet.nodes());
    // One whose disk is gone joins again, as another node.
    fleet.hosts[1].node.kill();
    fs::remove_dir_all(fleet.hosts[1].node.state_dir()).unwrap();
    fleet.hosts[1].node.start();
    fleet.hosts[1].node.join(&fleet.hosts[0].node, "worker");
    all_ready(&fleet.nodes());
}

/// R13.
#[test]
fn r13_no_datagram_is_fragmented_on_a_path_of_1280_bytes() {
    if !is_possible() {
        return;
    }
    let fleet = Fleet::formed(4);
    let streams = fleet.watch_members();
    for (at, host) in fleet.hosts.iter().enumerate() {
        fleet.set_link(at, "mtu 1280");
        // Before fragments are put together again.
        host.namespace.sh("ip link set eth1 mtu 1280
             nft 'table inet capture {
               counter fragments { }
               counter datagrams { }
               chain seen {
                 type filter hook prerouting priority -450;
                 ip frag-off & 0x3fff != 0 counter name fragments
                 exthdr frag exists counter name fragments
                 udp dport 7946 counter name datagrams
               }
             }'");
    }
    // Much to tell: datagrams as large as they get.
    fleet.hosts.iter().for_each(|host| drop(host.node.ctl(&["network", "attach", "--wait", "web"]).ok()));
    let long = "x".repeat(200);
    for (at, host) in fleet.hosts.iter().enumerate() {
        for n in 0..20 {
            let (task, address) = (format!("t{at}.{n}"), format!("10.0.{at}.{n}/16"));
            let label = format!("note={long}");
            let flags = ["--network", "web", "--task", &task, "--address", &address, "--label", &label];
            host.node.ctl(&[&["endpoint", "set"], &flags[..]].concat()).ok();
        }
    }
    wait_for("80 endpoints everywhere", || {
        let counts = fleet
            .nodes()
            .into_iter()
            .map(|node| node.get("/v1/endpoints").json()["endpoints"].as_array().map(Vec::len));
        let counts: Vec<_> = counts.collect();
        if counts.iter().all(|count| *count == Some(80)) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    let packets = |host: &Host, counter: &str| -> u64 {
        let text = host.namespace.run(&format!("nft list counter inet capture {counter}"));
        let words: Vec<_> = text.split_whitespace().collect();
        words.windows(2).find(|two| two[0] == "packets").unwrap()[1].parse().unwrap()
    };
    for host in &fleet.hosts {
        assert_eq!(packets(host, "fragments"), 0, "{}", host.node.name);
        assert!(packets(host, "datagrams") > 50, "{}", host.node.name);
    }
    // What is too large for the path would have been counted.
    let too_large = format!("ping -c 1 -s 2000 {}", fleet.hosts[1].v4());
    fleet.hosts[0].namespace.run(&too_large);
    assert!(packets(&fleet.hosts[1], "fragments") > 1);
    ends_well(&fleet, &streams, &[]);
}

/// R14: a cluster whose nodes are told of at addresses of that family.
fn formed_over(family: Family, listen: impl Fn(&Host) -> (String, String)) {
    let fleet = Fleet::of(3, family);
    let at = |host: &Host| {
        let (listen, advertise) = listen(host);
        (format!("{listen}:{PORT}"), format!("{advertise}:{PORT}"))
    };
    let (listen, advertise) = at(&fleet.hosts[0]);
    fleet.hosts[0].node.ctl(&["init", "--listen-addr", &listen, "--advertise-addr", &advertise]).ok();
    let token = fleet.hosts[0].node.token("worker");
    for host in &fleet.hosts[1..] {
        let (listen, own) = at(host);
        let flags = ["join", "--token", &token, "--listen-addr", &listen, "--advertise-addr", &own, &advertise];
        host.node.ctl(&flags).ok();
    }
    all_ready(&fleet.nodes());
    for host in &fleet.hosts {
        assert_eq!(host.node.addr().to_string(), at(host).1);
    }
    let (streams, name) = (fleet.watch_members(), fleet.hosts[2].node.name.clone());
    let Fleet { mut hosts, .. } = fleet;
    hosts[2].node.kill();
    streams[..2].iter().for_each(|stream| _ = stream.sees(&name, "down"));
    hosts[2].node.start();
    all_ready(&hosts.iter().map(|host| &host.node).collect::<Vec<_>>());
}

#[test]
fn r14_a_cluster_over_ipv6_alone() {
    if is_possible() {
        formed_over(Family::V6, |host| (format!("[{}]", host.v6()), format!("[{}]", host.v6())));
    }
}

#[test]
fn r14_a_cluster_on_hosts_with_both_families() {
    if is_possible() {
        formed_over(Family::Both, |host| ("0.0.0.0".to_owned(), host.v4()));
        formed_over(Family::Both, |host| ("[::]".to_owned(), format!("[{}]", host.v6())));
        // All members are told of at addresses that all of them reach.
        let fleet = Fleet::of(1, Family::Both);
        let host = &fleet.hosts[0];
        let mixed = host.node.ctl(&["init", "--listen-addr", "[::]", "--advertise-addr", &host.v4()]);
        mixed.refused(1, &["cannot listen on :: and advertise 10.130.0.1: one is IPv4, the other IPv6"]);
    }
}
