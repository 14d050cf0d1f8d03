//! Coming back: after SIGTERM, `kill -9` at any instant, a reboot of all, and with other addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gossipd::record::Status;

use crate::harness::{
    Node, Ran, all_ready, cluster, command, contacts_stored, form, free_port, http, shows, skip, wait_for,
};

#[test]
fn terminate_stops_for_a_restart() {
    let mut nodes = [Node::new("a"), Node::new("b").with_flags(&["--restart-grace", "0s"])];
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    let (id, generation) = (nodes[1].id(), nodes[1].generation());
    assert!(nodes[1].socket().exists());
    assert_eq!(nodes[1].terminate(), 0);
    assert!(!nodes[1].socket().exists());
    // It said nothing: for the others it has failed.
    shows(&nodes[0], &id, Status::Down);
    nodes[1].start();
    assert!(nodes[1].id() == id && nodes[1].generation() > generation);
    all_ready(&[&nodes[0], &nodes[1]]);
}

#[test]
fn a_restart_is_announced() {
    let mut nodes = cluster(&["a", "b"]);
    let generation = nodes[1].generation();
    assert_eq!(nodes[1].terminate(), 0);
    assert!(nodes[1].log().contains("restart announced"), "{}", nodes[1].log());
    nodes[1].start();
    assert!(nodes[1].generation() > generation);
    all_ready(&[&nodes[0], &nodes[1]]);
    let id = nodes[1].id();
    wait_for("b to be back", || match nodes[0].member(&id)?.away_s {
        None => Ok(()),
        Some(away_s) => Err(format!("away for {away_s} s")),
    });
}

/// R6: restart after kill -9.
#[test]
fn a_killed_node_comes_back_as_itself() {
    let mut nodes = cluster(&["a", "b", "c"]);
    for victim in [2, 0] {
        let before = nodes[victim].own();
        let (id, cluster) = (before.id.to_string(), before.cluster.unwrap());
        let others: Vec<_> = nodes.iter().filter(|node| node.id() != id).collect();
        contacts_stored(&nodes[victim], &others);
        nodes[victim].kill_and_start();
        let after = nodes[victim].own();
        let again = after.cluster.expect("it is in a cluster at once");
        assert_eq!((after.id, again.id, again.role), (before.id, cluster.id, cluster.role));
        assert!(again.generation > cluster.generation);
        all_ready(&nodes.iter().collect::<Vec<_>>());
        for observer in &nodes {
            assert_eq!(observer.member(&id).unwrap().generation, again.generation);
        }
    }
}

#[test]
fn a_machine_where_nobody_listens_any_more_says_so() {
    let mut nodes = cluster(&["a", "b"]);
    let refused = |node: &Node| node.metric("gossipd_datagrams_refused_total").unwrap();
    assert_eq!(refused(&nodes[0]), 0.0);
    nodes[1].kill();
    // Its kernel answers for it (ICMP port unreachable), and that costs no other datagram.
    wait_for("a datagram to be refused", || match refused(&nodes[0]) {
        0.0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    nodes[1].start();
    all_ready(&[&nodes[0], &nodes[1]]);
}

#[test]
fn a_kill_right_after_the_join_does_not_lose_the_way_back() {
    let manager = Node::started("manager");
    manager.init();
    let mut worker = Node::started("worker");
    worker.join(&manager, "worker");
    // Before anything that is done from time to time was done.
    worker.kill_and_start();
    all_ready(&[&manager, &worker]);
}

#[test]
fn a_founder_killed_right_after_the_first_join_is_found_by_the_other() {
    let manager = Node::new("manager");
    let port = free_port(manager.ip);
    let mut manager = manager.on_port(port);
    manager.start();
    manager.init();
    let worker = Node::started("worker");
    worker.join(&manager, "worker");
    manager.kill_and_start();
    all_ready(&[&manager, &worker]);
}

#[test]
fn a_kill_right_after_init_loses_nothing() {
    let mut manager = Node::started("manager");
    manager.init();
    let (id, token) = (manager.own().cluster.unwrap().id, manager.token("worker"));
    manager.kill_and_start();
    assert_eq!(manager.own().cluster.expect("it founded a cluster").id, id);
    assert_eq!(manager.token("worker"), token);
    let worker = Node::started("worker");
    worker.join(&manager, "worker");
    all_ready(&[&manager, &worker]);
}

/// R6: restart after kill -9, of all nodes.
#[test]
fn a_cluster_forms_again_after_all_were_killed() {
    // A reboot of the whole fleet: the addresses stay.
    let mut nodes: Vec<Node> = ["a", "b", "c"]
        .map(|name| {
            let node = Node::new(name);
            let port = free_port(node.ip);
            let mut node = node.on_port(port);
            node.start();
            node
        })
        .into();
    form(&nodes);
    let before: Vec<_> = nodes.iter().map(|node| (node.id(), node.generation())).collect();
    // Where the others are is stored from time to time, not at once.
    let all: Vec<_> = nodes.iter().collect();
    for (at, node) in nodes.iter().enumerate() {
        contacts_stored(node, &[&all[..at], &all[at + 1..]].concat());
    }
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::start);
    all_ready(&nodes.iter().collect::<Vec<_>>());
    for (node, (id, generation)) in nodes.iter().zip(before) {
        assert!(node.id() == id && node.generation() > generation);
    }
}

#[test]
fn one_address_that_still_holds_is_enough() {
    let mut nodes = cluster(&["a", "b", "c", "away"]);
    contacts_stored(&nodes[3], &nodes[..3].iter().collect::<Vec<_>>());
    nodes[3].kill();
    let before = nodes[0].addr();
    // Each gets another port.
    for moved in [0, 1] {
        contacts_stored(&nodes[moved], &[&nodes[2]]);
        nodes[moved].kill_and_start();
        all_ready(&[&nodes[0], &nodes[1], &nodes[2]]);
    }
    assert_ne!(nodes[0].addr(), before);
    nodes[3].start();
    all_ready(&nodes.iter().collect::<Vec<_>>());
}

#[test]
fn an_interface_that_gets_another_address_is_followed() {
    let in_namespace = "ip link set lo up && exec \"$@\"";
    let probe = Ran::of(command("unshare").args(["-n", "sh", "-c", in_namespace, "sh", "true"]));
    if probe.code != 0 {
        return skip("needs root, unshare and ip, for a network namespace of its own");
    }
    let mut node = Node::new("mover").wrapped_in(&["unshare", "-n", "sh", "-c", in_namespace, "sh"]);
    node.start();
    node.ctl(&["init", "--listen-addr", "lo"]).ok();
    let before = node.addr();
    assert_eq!(before.ip().to_string(), "127.0.0.1");
    let inside = |program: &str, args: &[&str]| {
        let namespace = format!("--net=/proc/{}/ns/net", node.pid());
        Ran::of(command("nsenter").args([&namespace, program]).args(args))
    };
    inside("ip", &["addr", "del", "127.0.0.1/8", "dev", "lo"]).ok();
    inside("ip", &["addr", "add", "127.7.0.2/8", "dev", "lo"]).ok();
    let after = SocketAddr::from(([127, 7, 0, 2], before.port()));
    wait_for("the node to follow", || match node.own().cluster.unwrap() {
        cluster if cluster.advertise_addr == after && cluster.listen_addr == after => Ok(()),
        cluster => Err(format!("{} at {}", cluster.advertise_addr, cluster.listen_addr)),
    });
    // Both sockets are there.
    for table in ["/proc/net/udp", "/proc/net/tcp"] {
        // The kernel writes an address as one number of this machine's order, the port as another.
        let bound = format!("{:08X}:{:04X}", u32::from_ne_bytes([127, 7, 0, 2]), after.port());
        let text = inside("cat", &[table]).ok();
        assert!(text.contains(&bound), "{bound} in {table}: {text}");
    }
}

#[test]
fn a_cloned_disk_is_reported_on_both() {
    let mut nodes = cluster(&["a", "b", "original"]);
    let id = nodes[2].id();
    contacts_stored(&nodes[2], &[&nodes[0]]);
    let mut clone = Node::new("clone");
    std::fs::create_dir(clone.state_dir()).unwrap();
    for file in ["node.json", "cluster.json", "contacts.json"] {
        std::fs::copy(nodes[2].state_dir().join(file), clone.state_dir().join(file)).unwrap();
    }
    clone.start();
    assert_eq!(clone.id(), id);
    for node in [&nodes[2], &clone] {
        wait_for(&format!("{} to report the other", node.name), || {
            let log = node.log();
            let is_told = |line: &str| line.contains("ERROR") && line.contains("another node uses this node's id");
            if log.lines().any(is_told) { Ok(()) } else { Err("nothing".to_owned()) }
        });
    }
    // One of them goes; the other is the node.
    nodes[2].kill();
    all_ready(&[&nodes[0], &nodes[1], &clone]);
}

#[test]
fn kills_in_the_middle_of_writes_lose_nothing_acknowledged() {
    let mut manager = Node::started("manager");
    manager.init();
    let (id, mut generation) = (manager.id(), manager.generation());
    // Every token that was told to somebody, in order.
    let mut told = vec![manager.token("worker")];
    for round in 0..6 {
        let socket = manager.socket();
        let is_over = AtomicBool::new(false);
        let (started, starts) = std::sync::mpsc::sync_channel(1_000);
        let new = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut new = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let _ = started.try_send(());
                    let Ok(answer) = http(&socket, "POST", "/v1/join-tokens/worker/rotate", "") else { break };
                    assert_eq!(answer.status, 200, "{answer:?}");
                    new.push(answer.json()["token"].as_str().unwrap().to_owned());
                }
                new
            });
            // Killed at another point of a write each time: some writes later, and some instants later.
            for _ in 0..3 + round {
                starts.recv().unwrap();
            }
            for _ in 0..round * 2_000 {
                std::hint::spin_loop();
            }
            manager.kill();
            is_over.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        assert!(!new.is_empty());
        told.extend(new);
        manager.start();
        assert_eq!(manager.id(), id);
        assert!(manager.generation() > generation, "round {round}");
        generation = manager.generation();
        // The last one told, or the one that was being written and that nobody was told of.
        let token = wait_for("the rotation to be completed", || {
            let ran = manager.ctl(&["join-token", "-q", "worker"]);
            if ran.code == 0 { Ok(ran.out.trim_end().to_owned()) } else { Err(ran.err) }
        });
        let earlier: BTreeSet<_> = told[..told.len() - 1].iter().collect();
        assert!(!earlier.contains(&token), "round {round}: a token that was replaced is in force again");
        if told.last() != Some(&token) {
            told.push(token);
        }
    }
    let worker = Node::started("worker");
    worker.join(&manager, "worker");
    all_ready(&[&manager, &worker]);
    worker.ctl(&["leave"]).ok();
    let old = worker.try_join(&told[0], &[&manager.addr().to_string()]);
    old.refused(1, &["join token is not valid"]);
}
