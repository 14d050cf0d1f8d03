//! Forming a cluster, listing it, leaving it.

use std::fs;

use gossipd::record::{Availability, Role, Status};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Node, all_ready, cluster, contacts_stored, is_closed, shown, shows, skip, some_probes};

/// The rows of a table, without its title.
fn rows(table: &str) -> Vec<&str> {
    table.lines().skip(1).collect()
}

// ---- forming ---------------------------------------------------------------------------------------------------------

/// R1: three nodes, by `init` and the command that it prints.
#[test]
fn three_nodes_by_init_and_the_command_it_prints() {
    let nodes: Vec<Node> = ["one", "two", "three"].map(Node::started).into();
    let said = nodes[0].ctl(&["init"]).ok();
    assert!(said.contains(&format!("current node ({}) is now a manager.", nodes[0].id())), "{said}");
    let printed = said.lines().find_map(|line| line.trim().strip_prefix("gossipctl ")).expect("a command to run");
    let command: Vec<&str> = printed.split(' ').collect();
    for node in &nodes[1..] {
        assert_eq!(node.ctl(&command).ok(), "This node joined a cluster as a worker.\n");
    }
    all_ready(&nodes.iter().collect::<Vec<_>>());
    for node in &nodes {
        let table = node.ctl(&["members"]).ok();
        let title: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(title, ["ID", "HOSTNAME", "ADDRESS", "STATUS", "AVAILABILITY", "MANAGER", "STATUS", "VERSION"]);
        assert_eq!(rows(&table).len(), 3, "{table}");
        for (row, (name, manager)) in rows(&table).iter().zip([("one", "Reachable"), ("three", ""), ("two", "")]) {
            let other = nodes.iter().find(|node| node.name == name).unwrap();
            let mut expected = vec![other.id()];
            expected.extend((other.name == node.name).then(|| "*".to_owned()));
            expected.extend([name, &other.addr().to_string(), "Ready", "Active", manager].map(str::to_owned));
            expected.retain(|cell| !cell.is_empty());
            expected.push(env!("CARGO_PKG_VERSION").to_owned());
            assert_eq!(row.split_whitespace().collect::<Vec<_>>(), expected, "{table}");
        }
    }
    // Everything in the state directories is for the daemon's eyes only.
    for entry in fs::read_dir(nodes[0].state_dir()).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn five_nodes_list_five_ready_on_each() {
    let nodes = cluster(&["n1", "n2", "n3", "n4", "n5"]);
    for node in &nodes {
        let ready = node.ctl(&["members", "--filter", "status=ready", "-q"]).ok();
        assert_eq!(ready.lines().count(), 5, "{ready}");
    }
}

#[test]
fn v6_works_as_v4_does() {
    // All nodes share the one v6 loopback address, and tell each other apart by their ports.
    let nodes: Vec<Node> = ["six1", "six2"].map(Node::started).into();
    nodes[0].ctl(&["init", "--listen-addr", "::1"]).ok();
    let manager = nodes[0].addr();
    assert!(manager.is_ipv6());
    let token = nodes[0].token("worker");
    nodes[1].ctl(&["join", "--token", &token, "--listen-addr", "[::1]:0", &manager.to_string()]).ok();
    all_ready(&[&nodes[0], &nodes[1]]);
}

#[test]
fn an_interface_can_be_named_in_place_of_an_address() {
    let node = Node::started("named");
    let ran = node.ctl(&["init", "--advertise-addr", "lo", "--listen-addr", "lo:0", "--data-path-addr", "127.0.0.2"]);
    if ran.err.contains("has several addresses") {
        return skip("needs one address on lo");
    }
    ran.ok();
    let cluster = node.own().cluster.unwrap();
    assert!(cluster.listen_addr.ip().is_loopback() && cluster.listen_addr == cluster.advertise_addr, "{cluster:?}");
    assert_eq!(cluster.data_path_addr.to_string(), "127.0.0.2");
}

#[test]
fn availability_given_at_join_is_shown_everywhere() {
    let manager = Node::started("manager");
    manager.ctl(&["init", "--availability", "pause"]).ok();
    let mut worker = Node::started("worker");
    let (token, remote) = (manager.token("worker"), manager.addr().to_string());
    worker.ctl(&["join", "--availability", "drain", "--token", &token, &remote]).ok();
    all_ready(&[&manager, &worker]);
    let as_decided = |worker: &Node| {
        for observer in [&manager, worker] {
            let of = |node: &Node| shows(observer, &node.id(), Status::Ready).availability;
            assert_eq!((of(&manager), of(worker)), (Some(Availability::Pause), Some(Availability::Drain)));
        }
    };
    as_decided(&worker);
    contacts_stored(&worker, &[&manager]);
    worker.kill_and_start();
    all_ready(&[&manager, &worker]);
    as_decided(&worker);
}

// ---- listing ---------------------------------------------------------------------------------------------------------

#[test]
fn listings_have_every_form_and_filter() {
    let nodes = cluster(&["alpha", "twin", "twin"]);
    let [alpha, _, killed] = nodes.as_slice() else { panic!("three nodes") };
    let ids: Vec<String> = nodes.iter().map(Node::id).collect();

    assert_eq!(alpha.ctl(&["members"]).ok(), alpha.ctl(&["node", "ls"]).ok());
    let quiet = alpha.ctl(&["members", "-q"]).ok();
    let mut expected = ids.clone();
    // By host name, then id.
    expected[1..].sort();
    assert_eq!(quiet.lines().collect::<Vec<_>>(), expected);

    let json: Value = serde_json::from_str(&alpha.ctl(&["members", "--format", "json"]).ok()).unwrap();
    let lines = alpha.ctl(&["members", "--format", "ndjson"]).ok();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listed = |members: &[Value]| members.iter().map(|member| member["id"].clone()).collect::<Vec<_>>();
    assert!(json["revision"].is_u64(), "{json}");
    assert_eq!(listed(json["members"].as_array().unwrap()), listed(&lines));
    assert_eq!(listed(&lines), expected);
    assert_eq!(lines.iter().filter(|member| member["self"] == true).count(), 1);
    let own = lines.iter().find(|member| member["self"] == true).unwrap();
    assert_eq!((&own["hostname"], &own["status"], &own["role"]), (&"alpha".into(), &"ready".into(), &"manager".into()));

    let filtered = |filters: &[&str]| {
        let flags = filters.iter().flat_map(|filter| ["--filter", filter]);
        let args: Vec<&str> = ["members", "-q"].into_iter().chain(flags).collect();
        alpha.ctl(&args).ok().lines().count()
    };
    let rows: [(&[&str], usize); 11] = [
        (&["status=ready"], 3),
        (&["status=down"], 0),
        (&["status=ready", "status=down"], 3),
        (&["status=ready,left"], 3),
        (&["role=manager"], 1),
        (&["role=worker"], 2),
        (&["name=twin"], 2),
        (&["name=tw"], 2),
        (&["name=alpha", "role=worker"], 0),
        (&["availability=active"], 3),
        (&[&format!("id={}", ids[1])], 1),
    ];
    for (filters, count) in rows {
        assert_eq!(filtered(filters), count, "{filters:?}");
    }
    let unknown = alpha.ctl(&["members", "--filter", "label=web"]);
    unknown.refused(2, &["unknown key \"label\"", "expected one of status, role, availability, name, id"]);
    let unknown = alpha.ctl(&["members", "--filter", "status=dead"]);
    unknown.refused(2, &["\"dead\" is not a status", "ready, suspect, down, left"]);

    // Scripts see a node that is down by the same filters.
    let id = killed.id();
    killed.signal(Signal::SIGKILL);
    shows(alpha, &id, Status::Down);
    assert_eq!(alpha.ctl(&["members", "-q", "--filter", "status=down"]).ok(), format!("{id}\n"));
}

#[test]
fn nodes_are_inspected_by_id_beginning_name_and_self() {
    let nodes = cluster(&["alpha", "twin", "twin"]);
    let ids: Vec<String> = nodes.iter().map(Node::id).collect();
    let inspect = |reference: &str| {
        let found: Value = serde_json::from_str(&nodes[0].ctl(&["node", "inspect", reference]).ok()).unwrap();
        let found = found.as_array().unwrap().clone();
        assert_eq!(found.len(), 1);
        found[0]["id"].as_str().unwrap().to_owned()
    };
    let unique = (1..=25)
        .map(|length| &ids[1][..length])
        .find(|beginning| ids.iter().filter(|id| id.starts_with(beginning)).count() == 1)
        .unwrap();
    for (reference, id) in [(ids[2].as_str(), &ids[2]), (unique, &ids[1]), ("alpha", &ids[0]), ("self", &ids[0])] {
        assert_eq!(inspect(reference), *id, "{reference}");
    }
    let pretty = nodes[0].ctl(&["node", "inspect", "--pretty", "self"]).ok();
    for line in
        ["ID:", "Hostname:               alpha", " State:                 Ready", "Role:                   Manager"]
    {
        assert!(pretty.contains(line), "{line:?} in {pretty}");
    }
    nodes[0].ctl(&["node", "inspect", "nobody"]).refused(4, &["there is no node \"nobody\"", "gossipctl members"]);
    let candidates = [format!("{} twin ready", ids[1]), format!("{} twin ready", ids[2])];
    nodes[0]
        .ctl(&["node", "inspect", "twin"])
        .refused(4, &["\"twin\" fits 2 nodes; use an id", &candidates[0], &candidates[1]]);
    // Those that there are, are shown all the same.
    let some = nodes[0].ctl(&["node", "inspect", "alpha", "nobody"]);
    assert_eq!(some.code, 4);
    assert!(some.out.contains(&ids[0]) && some.err.contains("\"nobody\""), "{some:#?}");
}

#[test]
fn a_daemon_that_is_not_there_is_told() {
    let mut node = Node::started("gone");
    node.ctl(&["members"]).refused(1, &["this node is in no cluster", "gossipctl init", "gossipctl join"]);
    node.ctl(&["leave"]).refused(1, &["this node is in no cluster"]);
    node.ctl(&["join-token", "worker"]).refused(1, &["this node is in no cluster"]);
    let version = node.ctl(&["version"]).ok();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(version, format!("gossipctl  {own}\ngossipd    {own}\n"));
    assert_eq!(node.terminate(), 0);
    node.ctl(&["members"]).refused(3, &["cannot connect to the daemon at", "sock", "is gossipd running?"]);
    assert_eq!(node.ctl(&["version"]).code, 0);
}

// ---- failing and leaving ---------------------------------------------------------------------------------------------

#[test]
fn a_killed_node_is_down_for_the_others() {
    let mut nodes = cluster(&["a", "b", "c"]);
    let id = nodes[2].id();
    nodes[2].kill();
    for observer in &nodes[..2] {
        let member = shows(observer, &id, Status::Down);
        assert_eq!(member.hostname.as_deref(), Some("c"), "what was known of it stays");
        let others = observer.members().unwrap();
        assert_eq!(others.len(), 3, "{}", shown(&others));
    }
    all_ready(&[&nodes[0], &nodes[1]]);
}

/// No observer has ever taken `id` for down.
fn never_down(observers: &[&Node], id: &str) {
    for observer in observers {
        let log = observer.log();
        let bad = log.lines().find(|line| line.contains(id) && line.contains("after=\"down\""));
        assert_eq!(bad, None, "{} took it for down", observer.name);
    }
}

/// R4: leave.
#[test]
fn who_leaves_is_left_and_may_come_again() {
    let nodes = cluster(&["a", "b", "c"]);
    let [a, b, c] = nodes.as_slice() else { panic!("three nodes") };
    let (id, generation, addr) = (c.id(), c.generation(), c.addr());
    assert_eq!(c.ctl(&["leave"]).ok(), "Node left the cluster.\n");
    assert!(!c.is_member_on_disk() && !c.state_dir().join("contacts.json").exists());
    assert!(is_closed(addr));
    assert_eq!(c.own().cluster, None);
    for observer in [a, b] {
        shows(observer, &id, Status::Left);
    }
    for observer in [a, b] {
        some_probes(observer);
        assert_eq!(observer.member(&id).unwrap().status, Status::Left);
    }
    never_down(&[a, b], &id);
    c.ctl(&["leave"]).refused(1, &["this node is in no cluster"]);

    // As a new node: what was decided about the old one is not about it.
    c.join(a, "worker");
    assert_ne!(c.id(), id);
    assert!(c.generation() > generation);
    all_ready(&[a, b, c]);
    for observer in [a, b] {
        assert_eq!(observer.member(&id).unwrap().status, Status::Left);
        // The name is the new one's.
        observer.ctl(&["node", "inspect", "c"]).ok();
    }
}

#[test]
fn terminate_can_mean_leave_and_the_next_start_comes_back() {
    let mut nodes: Vec<Node> = ["a", "b"].map(Node::started).into();
    nodes.push(Node::new("c").with_flags(&["--on-terminate", "leave"]));
    nodes[2].start();
    crate::harness::form(&nodes);
    let (id, generation) = (nodes[2].id(), nodes[2].generation());
    assert_eq!(nodes[2].terminate(), 0);
    for observer in &nodes[..2] {
        shows(observer, &id, Status::Left);
    }
    never_down(&[&nodes[0], &nodes[1]], &id);
    assert!(nodes[2].is_member_on_disk());
    nodes[2].start();
    assert!(nodes[2].id() == id && nodes[2].generation() > generation);
    all_ready(&nodes.iter().collect::<Vec<_>>());
}

/// R4: leave, of managers.
#[test]
fn managers_leave_while_there_is_another() {
    let nodes = cluster(&["first", "worker"]);
    let [first, worker] = nodes.as_slice() else { panic!("two nodes") };
    let second = Node::started("second");
    second.join(first, "manager");
    all_ready(&[first, worker, &second]);
    for observer in [first, &second] {
        assert_eq!(shows(observer, &second.id(), Status::Ready).role, Some(Role::Manager));
    }
    let (id, second_id) = (first.id(), second.id());
    assert_eq!(first.ctl(&["leave"]).ok(), "Node left the cluster.\n");
    for observer in [worker, &second] {
        shows(observer, &id, Status::Left);
    }
    second.ctl(&["leave"]).refused(1, &["this is the last manager", "nobody can join", "--force"]);
    assert!(second.own().cluster.is_some() && second.is_member_on_disk());
    shows(worker, &second_id, Status::Ready);
    assert_eq!(second.ctl(&["leave", "--force"]).ok(), "Node left the cluster.\n");
    shows(worker, &second_id, Status::Left);
}

/// R4: leave, of the only node.
#[test]
fn the_only_node_leaves_with_a_warning_that_nobody_heard() {
    let node = Node::started("alone");
    node.init();
    node.ctl(&["leave"]).refused(1, &["this is the last manager"]);
    let left = node.ctl(&["leave", "--force"]);
    assert_eq!((left.code, left.out.as_str()), (0, "Node left the cluster.\n"), "{left:#?}");
    assert!(!node.is_member_on_disk());
    // And may found another.
    node.init();
}
