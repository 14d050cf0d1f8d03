//! What operators decide: availability, role, labels, removal; by whom, for how long, and who is told.

use gossipd::api::{Decisions, ManagerStatus, Member};
use gossipd::record::{Availability, Role, Status};
use nix::sys::signal::Signal;

use crate::harness::{Node, all_ready, at_fixed_port, cluster, form, wait_for};

/// How `by` lists `about`.
fn listed(by: &Node, about: &Node) -> Result<Member, String> {
    by.member(&about.id())
}

/// Waits until each of `nodes` lists `about` as `fits` wants it.
#[track_caller]
fn listed_everywhere(nodes: &[&Node], id: &str, what: &str, fits: impl Fn(&Member) -> bool) {
    for node in nodes {
        wait_for(&format!("{} to list {id} as {what}", node.name), || {
            let member = node.member(id)?;
            if fits(&member) { Ok(()) } else { Err(format!("{member:?}")) }
        });
    }
}

fn update(by: &Node, arguments: &[&str]) -> String {
    by.ctl(&[&["node", "update"], arguments].concat()).ok()
}

/// The walk through Docker Swarm that people know, with a crash in between.
#[test]
fn drain_promote_and_back_survive_crashes_of_everybody() {
    // At fixed ports: all of them are restarted.
    let mut nodes: Vec<Node> = ["swarm1", "swarm2", "swarm3"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    assert_eq!(
        nodes[0].ctl(&["node", "promote", "swarm2", "swarm3"]).ok(),
        "Node swarm2 promoted to a manager in the cluster.\nNode swarm3 promoted to a manager in the cluster.\n"
    );
    let all: Vec<&Node> = nodes.iter().collect();
    for manager in &all {
        listed_everywhere(&all, &manager.id(), "reachable", |member| {
            member.manager_status == Some(ManagerStatus::Reachable) && member.role == Some(Role::Manager)
        });
    }
    // R15. The new manager decides as the old one does.
    let said = update(
        &nodes[2],
        &["--availability", "drain", "--reason", "kernel update", "--deadline", "10m", "--wait", "swarm2"],
    );
    assert_eq!(said, "swarm2\n");
    for node in &nodes {
        // All have confirmed it: nothing is waited for.
        assert_eq!(listed(node, &nodes[1]).unwrap().availability, Some(Availability::Drain), "{}", node.name);
    }
    let pretty = nodes[0].ctl(&["node", "inspect", "--pretty", "swarm2"]).ok();
    assert!(pretty.contains(" Availability:          Drain\n"), "{pretty}");
    assert!(pretty.contains("because: kernel update") && pretty.contains(&nodes[2].id()), "{pretty}");
    // Target, setter, and everybody else, one after the other.
    for n in [1, 2, 0] {
        nodes[n].kill_and_start();
    }
    let all: Vec<&Node> = nodes.iter().collect();
    all_ready(&all);
    listed_everywhere(&all, &nodes[1].id(), "drained", |member| member.availability == Some(Availability::Drain));
    update(&nodes[0], &["--availability", "active", "--wait", "swarm2"]);
    listed_everywhere(&all, &nodes[1].id(), "active", |member| member.availability == Some(Availability::Active));
}

#[test]
fn a_node_that_was_down_learns_what_was_decided_before_it_counts_as_joined() {
    let mut nodes = cluster(&["one", "two", "three"]);
    let id = nodes[2].id();
    nodes[2].kill();
    listed_everywhere(&[&nodes[0]], &id, "down", |member| member.status == Status::Down);
    update(&nodes[0], &["--availability", "drain", "--label-add", "zone=fra1", "three"]);
    nodes[2].start();
    wait_for("three to have joined", || {
        let cluster = nodes[2].own().cluster.ok_or("in no cluster")?;
        if cluster.joined { Ok(()) } else { Err("not joined yet".to_owned()) }
    });
    let own = listed(&nodes[2], &nodes[2]).unwrap();
    assert_eq!(own.availability, Some(Availability::Drain));
    assert_eq!(own.labels.get("zone").map(String::as_str), Some("fra1"));
}

#[test]
fn labels_are_set_taken_away_and_bounded() {
    let nodes = cluster(&["one", "two"]);
    update(&nodes[0], &["--label-add", "zone=fra1", "--label-add", "com.example/rack=7", "--wait", "two"]);
    update(&nodes[0], &["--label-rm", "zone", "--label-add", "disk=ssd", "--wait", "two"]);
    let labels = listed(&nodes[1], &nodes[1]).unwrap().labels;
    let expected = [("com.example/rack", "7"), ("disk", "ssd")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels, expected.into());
    nodes[0]
        .ctl(&["node", "update", "--label-add", "no spaces=x", "two"])
        .refused(2, &["label key \"no spaces\" is refused"]);
    let many: Vec<String> = (0..65).map(|n| format!("k{n}=v")).collect();
    let flags = many.iter().flat_map(|label| ["--label-add", label]);
    let line: Vec<&str> = ["node", "update"].into_iter().chain(flags).chain(["two"]).collect();
    nodes[0].ctl(&line).refused(1, &["would have more than 64 labels"]);
    assert_eq!(listed(&nodes[0], &nodes[1]).unwrap().labels.len(), 2, "nothing of it was done");
}

#[test]
fn workers_may_empty_themselves_and_nothing_else() {
    let nodes = cluster(&["one", "two", "three"]);
    for line in [
        &["node", "update", "--availability", "drain", "three"][..],
        &["node", "update", "--label-add", "a=b", "self"],
        &["node", "promote", "self"],
        &["node", "rm", "--force", "three"],
    ] {
        nodes[1].ctl(line).refused(1, &["this node is a worker: only managers decide about nodes"]);
    }
    update(&nodes[1], &["--availability", "pause", "self"]);
    let all: Vec<&Node> = nodes.iter().collect();
    listed_everywhere(&all, &nodes[1].id(), "paused", |member| member.availability == Some(Availability::Pause));
    let refused = nodes[1].ctl(&["node", "update", "--availability", "active", "self"]);
    refused.refused(1, &["only a manager makes it active again"]);
    update(&nodes[0], &["--availability", "active", "two"]);
    listed_everywhere(&all, &nodes[1].id(), "active", |member| member.availability == Some(Availability::Active));
}

#[test]
fn the_last_manager_stays_one_and_a_demoted_one_forgets_the_key() {
    let nodes = cluster(&["one", "two", "three"]);
    for line in [&["node", "demote", "one"][..], &["node", "update", "--role", "worker", "self"]] {
        nodes[0].ctl(line).refused(1, &["is the last manager", "promote another node first"]);
    }
    nodes[0].ctl(&["node", "promote", "two"]).ok();
    let stored = |node: &Node| std::fs::read_to_string(node.state_dir().join("cluster.json")).unwrap();
    let has_key = |node: &Node| stored(node).contains("\"cas\"");
    wait_for("two to have the key", || if has_key(&nodes[1]) { Ok(()) } else { Err(String::new()) });
    let demoted = nodes[1].ctl(&["node", "demote", "one"]);
    assert_eq!((demoted.code, demoted.out.as_str()), (0, "Manager one demoted in the cluster.\n"));
    assert!(demoted.err.contains("has held the cluster's CA key"), "{demoted:?}");
    wait_for("one to have dropped the key", || if has_key(&nodes[0]) { Err(String::new()) } else { Ok(()) });
    nodes[0].ctl(&["node", "update", "--availability", "drain", "three"]).refused(1, &["this node is a worker"]);
    // The new manager admits.
    let token = nodes[1].token("worker");
    let newcomer = Node::started("four");
    newcomer.ctl(&["join", "--token", &token, &nodes[1].addr().to_string()]).ok();
    all_ready(&nodes.iter().chain([&newcomer]).collect::<Vec<_>>());
}

#[test]
fn a_removed_node_is_told_and_not_let_in_again() {
    let mut nodes = cluster(&["one", "two", "three"]);
    let id = nodes[2].id();
    nodes[0].ctl(&["node", "rm", "three"]).refused(1, &["node three is ready", "--force"]);
    nodes[0].ctl(&["node", "rm", "--force", "self"]).refused(1, &["is this node"]);
    nodes[0].ctl(&["node", "rm", "nobody"]).refused(4, &["there is no node \"nobody\""]);
    assert_eq!(nodes[0].ctl(&["node", "rm", "--force", "--reason", "bad disk", "three"]).ok(), "three\n");
    wait_for("three to know", || {
        let said = nodes[2].ctl(&["members"]);
        if said.err.contains("was removed from its cluster by") && said.err.contains("bad disk") {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    for node in &nodes[..2] {
        wait_for("three to be gone", || match node.member(&id) {
            Err(_) => Ok(()),
            Ok(member) => Err(format!("{member:?}")),
        });
    }
    assert!(!nodes[2].is_member_on_disk());
    // It comes back as somebody else.
    let token = nodes[0].token("worker");
    nodes[2].ctl(&["join", "--token", &token, &nodes[0].addr().to_string()]).ok();
    assert_ne!(nodes[2].id(), id);
    all_ready(&nodes.iter().collect::<Vec<_>>());
    // And after a crash it is that somebody still.
    let new_id = nodes[2].id();
    nodes[2].kill_and_start();
    assert_eq!(nodes[2].id(), new_id);
}

/// A node that was away when it was removed comes back with its old certificate.
#[test]
fn a_node_removed_while_it_was_down_hears_of_it_when_it_comes_back() {
    let mut nodes = cluster(&["one", "two", "three"]);
    let id = nodes[2].id();
    nodes[2].kill();
    listed_everywhere(&[&nodes[0]], &id, "down", |member| member.status == Status::Down);
    nodes[0].ctl(&["node", "rm", "--wait", "three"]).ok();
    nodes[2].start();
    wait_for("three to know", || {
        let said = nodes[2].ctl(&["members"]);
        if said.err.contains("was removed from its cluster by") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert!(nodes[0].member(&id).is_err());
}

#[test]
fn names_that_fit_several_nodes_are_listed() {
    let nodes = cluster(&["web", "web", "db"]);
    let err = nodes[0].ctl(&["node", "update", "--availability", "drain", "web"]).refused(4, &["fits 2 nodes"]);
    assert!(err.contains(&nodes[0].id()) && err.contains(&nodes[1].id()), "{err}");
    let id = nodes[1].id();
    update(&nodes[0], &["--availability", "drain", &id[..12]]);
    assert_eq!(listed(&nodes[0], &nodes[1]).unwrap().availability, Some(Availability::Drain));
}

/// What everybody does with a machine that is to be set up again: leave there, remove here, join there.
#[test]
fn whoever_left_and_was_removed_joins_again() {
    let nodes = cluster(&["one", "two"]);
    let id = nodes[1].id();
    nodes[1].ctl(&["leave"]).ok();
    listed_everywhere(&[&nodes[0]], &id, "left", |member| member.status == Status::Left);
    nodes[0].ctl(&["node", "rm", &id]).ok();
    nodes[1].join(&nodes[0], "worker");
    assert_ne!(nodes[1].id(), id);
    all_ready(&nodes.iter().collect::<Vec<_>>());
}

#[test]
fn whoever_was_promoted_and_left_joins_as_what_the_token_says() {
    let nodes = cluster(&["one", "two"]);
    nodes[0].ctl(&["node", "update", "--role", "manager", "--availability", "drain", "two"]).ok();
    let is_manager = |member: &Member| member.role == Some(Role::Manager);
    listed_everywhere(&[&nodes[1]], &nodes[1].id(), "a manager", is_manager);
    wait_for("two to hold the key", || {
        let ran = nodes[1].ctl(&["join-token", "-q", "worker"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
    nodes[1].ctl(&["leave"]).ok();
    nodes[1].join(&nodes[0], "worker");
    let both: Vec<&Node> = nodes.iter().collect();
    all_ready(&both);
    listed_everywhere(&both, &nodes[1].id(), "a worker as the token says, and active", |member| {
        member.role == Some(Role::Worker) && member.availability == Some(Availability::Active)
    });
    nodes[1].ctl(&["join-token", "worker"]).refused(1, &["this node is a worker"]);
}

/// Before it has got the certificate of a worker.
#[test]
fn whoever_is_demoted_and_promoted_at_once_is_a_manager() {
    let nodes = cluster(&["one", "two"]);
    nodes[0].ctl(&["node", "promote", "two"]).ok();
    wait_for("two to be a manager", || {
        let ran = nodes[1].ctl(&["node", "update", "--label-add", "a=1", "one"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
    for change in ["demote", "promote"] {
        assert_eq!(nodes[0].ctl(&["node", change, "two"]).code, 0);
    }
    wait_for("two to decide again", || {
        let ran = nodes[1].ctl(&["node", "update", "--label-add", "a=2", "one"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
}

/// The later rotation stands, here and there, whoever made it.
#[test]
fn of_two_rotations_at_once_one_token_is_left_and_it_admits() {
    let nodes = cluster(&["one", "two"]);
    nodes[0].ctl(&["node", "promote", "two"]).ok();
    wait_for("two to be a manager", || {
        let ran = nodes[1].ctl(&["join-token", "-q", "worker"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    });
    for _ in 0..4 {
        std::thread::scope(|scope| {
            for node in &nodes {
                scope.spawn(|| node.post("/v1/join-tokens/worker/rotate", "{}"));
            }
        });
        let token = wait_for("one token on both", || {
            let tokens: Vec<_> = nodes.iter().map(|node| node.ctl(&["join-token", "-q", "worker"])).collect();
            let is_one = tokens.iter().all(|token| token.code == 0 && token.out == tokens[0].out);
            if is_one { Ok(tokens[0].out.trim_end().to_owned()) } else { Err(format!("{tokens:?}")) }
        });
        let newcomer = Node::started("newcomer");
        newcomer.try_join(&token, &[&nodes[0].addr().to_string()]).ok();
    }
}

/// A manager that was told of a rotation by gossip alone refuses the old token.
#[test]
fn a_rotated_token_is_a_decision_of_the_cluster() {
    let nodes = cluster(&["one", "two", "three"]);
    nodes[0].ctl(&["node", "promote", "two"]).ok();
    let old = wait_for("two to be a manager", || {
        let ran = nodes[1].ctl(&["join-token", "-q", "worker"]);
        if ran.code == 0 { Ok(ran.out.trim_end().to_owned()) } else { Err(ran.err) }
    });
    nodes[0].ctl(&["join-token", "--rotate", "worker"]).ok();
    // Workers know of it too, and nothing of the secret.
    wait_for("three to know", || {
        let listed: Decisions = serde_json::from_str(&nodes[2].get("/v1/decisions").body).unwrap();
        let token = listed.decisions.into_iter().find(|decision| decision.register == "join-token");
        token
            .map(|token| assert_eq!((token.node, token.key.as_deref()), (None, Some("worker"))))
            .ok_or_else(String::new)
    });
    let newcomer = Node::started("four");
    let refused = newcomer.try_join(&old, &[&nodes[1].addr().to_string()]);
    refused.refused(1, &["join token is not valid"]);
    newcomer.join(&nodes[1], "worker");
}

#[test]
fn waiting_says_who_has_not_confirmed() {
    let nodes = cluster(&["one", "two", "three"]);
    nodes[2].signal(Signal::SIGSTOP);
    let said = nodes[0].ctl(&["node", "update", "--availability", "drain", "--wait=300ms", "two"]);
    nodes[2].signal(Signal::SIGCONT);
    assert_eq!((said.code, said.out.as_str()), (1, "two\n"), "{said:?}");
    assert!(said.err.contains("have not confirmed it yet") && said.err.contains(&nodes[2].id()), "{said:?}");
    update(&nodes[0], &["--availability", "active", "--wait", "two"]);
}

/// What programs attach to a node is far too large for a datagram, and reaches everybody all the same.
#[test]
fn four_kilobytes_of_metadata_reach_every_node() {
    let mut nodes = cluster(&["one", "two", "three"]);
    let large = "x".repeat(3_900);
    assert_eq!(nodes[1].ctl(&["metadata", "slots=7", &format!("large={large}")]).ok().lines().count(), 2);
    let id = nodes[1].id();
    let all: Vec<&Node> = nodes.iter().collect();
    listed_everywhere(&all, &id, "with metadata", |member| {
        member.metadata.get("large") == Some(&large) && member.metadata.get("slots").is_some_and(|slots| slots == "7")
    });
    let too_much = format!("more={}", "y".repeat(400));
    nodes[1].ctl(&["metadata", &too_much]).refused(1, &["are refused: up to 4096 bytes are allowed"]);
    assert_eq!(nodes[1].ctl(&["metadata", "--rm", "large"]).ok(), "slots=7\n");
    listed_everywhere(&all, &id, "without", |member| !member.metadata.contains_key("large"));
    nodes[1].kill_and_start();
    assert_eq!(nodes[1].ctl(&["metadata"]).ok(), "slots=7\n");
}

/// The scheduler says that it leads; its connection is what counts.
#[test]
fn the_leader_is_whoever_says_so_in_the_latest_term_and_is_there() {
    use gossipd::client::{Client, ClientError};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut nodes = cluster(&["one", "two", "three"]);
    nodes[0].ctl(&["node", "promote", "two"]).ok();
    let (first, second) = (nodes[0].id(), nodes[1].id());
    let is = |status| move |member: &Member| member.manager_status == Some(status);
    let all: Vec<&Node> = nodes.iter().collect();
    listed_everywhere(&all, &second, "reachable", is(ManagerStatus::Reachable));
    let client = |node: &Node| runtime.block_on(Client::connect(node.socket())).unwrap();
    let refused = |outcome: Result<gossipd::client::Leadership, ClientError>| outcome.err().unwrap().to_string();
    assert!(refused(runtime.block_on(client(&nodes[2]).lead(1))).contains("only a manager's scheduler leads"));

    let leads = runtime.block_on(client(&nodes[0]).lead(4)).unwrap();
    listed_everywhere(&all, &first, "leader", is(ManagerStatus::Leader));
    assert!(nodes[2].ctl(&["members"]).ok().contains(" Leader "));
    assert!(refused(runtime.block_on(client(&nodes[0]).lead(4))).contains("is published from this node already"));
    assert!(refused(runtime.block_on(client(&nodes[1]).lead(3))).contains("is not later than term 4"));
    // A later term wins, though the first still says to lead.
    let takes_over = runtime.block_on(client(&nodes[1]).lead(5)).unwrap();
    listed_everywhere(&all, &second, "leader", is(ManagerStatus::Leader));
    listed_everywhere(&all, &first, "reachable", is(ManagerStatus::Reachable));
    // Its connection goes: the first still leads.
    drop(takes_over);
    listed_everywhere(&all, &second, "reachable", is(ManagerStatus::Reachable));
    listed_everywhere(&all, &first, "leader", is(ManagerStatus::Leader));
    // Its node goes.
    nodes[0].kill();
    let rest: Vec<&Node> = nodes[1..].iter().collect();
    listed_everywhere(&rest, &first, "unreachable", is(ManagerStatus::Unreachable));
    drop(leads);
    // A later term from the same node ends the earlier one.
    let mut third = runtime.block_on(client(&nodes[1]).lead(6)).unwrap();
    let fourth = runtime.block_on(client(&nodes[1]).lead(7)).unwrap();
    runtime.block_on(third.lost()).unwrap();
    assert_eq!(fourth.term(), 7);
    listed_everywhere(&rest, &second, "leader", is(ManagerStatus::Leader));
}

#[test]
fn decisions_are_on_the_api() {
    let nodes = cluster(&["one", "two"]);
    for (body, detail) in [
        ("{}", "nothing to decide"),
        (r#"{"availability":"sleep"}"#, "unknown variant `sleep`"),
        (r#"{"labels_add":{"a":"b"},"labels_rm":["a"]}"#, "both set and taken away"),
        (r#"{"availability":"drain","deadline":"soon"}"#, "deadline \"soon\""),
        (r#"{"availability":"drain","wait":"1h"}"#, "wait \"1h\""),
        (r#"{"availability":"drain","force":true}"#, "unknown field `force`"),
    ] {
        let answer = nodes[0].post("/v1/members/two/update", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{body}: {answer:?}");
    }
    let answer = nodes[0].post("/v1/members/two/update", r#"{"availability":"pause","reason":"r","wait":"10s"}"#);
    assert_eq!((answer.status, &answer.json()["unconfirmed"]), (200, &serde_json::json!([])), "{answer:?}");
    let listed: Decisions = serde_json::from_str(&nodes[1].get("/v1/decisions").body).unwrap();
    let only = &listed.decisions[..];
    assert_eq!(only.len(), 1, "{only:?}");
    assert_eq!((only[0].register.as_str(), only[0].value.as_deref()), ("availability", Some("pause")));
    assert_eq!((only[0].by.to_string(), only[0].reason.as_deref()), (nodes[0].id(), Some("r")));
}
