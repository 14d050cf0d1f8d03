//! Putting a new certificate authority in the place of the old one: who follows, who is waited for, and what the old one is
//! still good for.

use std::fs;

use gossipd::api::CaResponse;
use gossipd::record::{Availability, Role};
use serde_json::Value;

use crate::harness::{Node, all_ready, at_fixed_port, cluster, form, wait_for};

fn ca(node: &Node) -> CaResponse {
    serde_json::from_str(&node.ctl(&["ca", "--format", "json"]).ok()).unwrap()
}

/// What a node has on the disk.
fn stored(node: &Node) -> Value {
    serde_json::from_str(&fs::read_to_string(node.state_dir().join("cluster.json")).unwrap()).unwrap()
}

/// Waits until the change is over on all of them; the digest of their CA.
#[track_caller]
fn changed(nodes: &[&Node], before: &str) -> String {
    let digests: Vec<_> = nodes
        .iter()
        .map(|node| {
            wait_for(&format!("{} to trust the new CA only", node.name), || {
                let CaResponse { digest, change, .. } = ca(node);
                let trusted = stored(node)["trusted"].as_array().map(Vec::len);
                if digest != before && change.is_none() && trusted == Some(1) {
                    Ok(digest)
                } else {
                    Err(format!("{change:?}"))
                }
            })
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    digests[0].clone()
}

/// Waits until a promoted node is a manager.
#[track_caller]
fn has_the_key(node: &Node) {
    wait_for("the CA's key", || match stored(node)["manager"]["cas"].as_array() {
        Some(_) => Ok(()),
        None => Err("a worker".to_owned()),
    });
}

fn decided(node: &Node, id: &str) -> Option<Availability> {
    node.member(id).ok().and_then(|member| member.availability)
}

#[test]
fn all_follow_a_new_ca_and_what_was_decided_stays() {
    let mut nodes: Vec<Node> = ["swarm1", "swarm2", "swarm3"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    nodes[0].ctl(&["node", "promote", "--wait", "swarm2"]).ok();
    has_the_key(&nodes[1]);
    nodes[1].ctl(&["node", "update", "--wait", "--availability", "drain", "--label-add", "zone=fra1", "swarm3"]).ok();
    let (before, token) = (ca(&nodes[2]), nodes[0].token("worker"));
    assert!(before.certificate.starts_with("-----BEGIN CERTIFICATE-----\n"), "{}", before.certificate);
    nodes[2].ctl(&["ca", "--rotate"]).refused(1, &["this node is a worker"]);

    nodes[0].ctl(&["ca", "--rotate", "--reason", "a machine was lost", "--wait", "60s"]).ok();
    let all: Vec<&Node> = nodes.iter().collect();
    let digest = changed(&all, &before.digest);
    all_ready(&all);

    // Who has a key of which CA.
    let keys = |node: &Node| stored(node)["manager"]["cas"].as_array().map_or(0, Vec::len);
    assert_eq!(all.iter().map(|node| keys(node)).collect::<Vec<_>>(), [1, 1, 0]);

    // Joining, with the old token and the new one, through the manager that did not begin it.
    let late = Node::started("late");
    let remote = nodes[1].addr().to_string();
    late.try_join(&token, &[&remote]).refused(1, &["its CA was changed since", "gossipctl join-token"]);
    assert!(nodes[1].token("worker").contains(&digest));
    late.join(&nodes[1], "worker");
    let drained = nodes[2].id();
    wait_for("the newcomer to know what was decided before", || {
        let member = late.member(&drained)?;
        let is_known = member.availability == Some(Availability::Drain) && member.labels.contains_key("zone");
        if is_known { Ok(()) } else { Err(format!("{member:?}")) }
    });

    // It outlives restarts, and nothing of it was refused on the way.
    for node in &mut nodes {
        node.kill_and_start();
    }
    let all: Vec<&Node> = nodes.iter().chain([&late]).collect();
    all_ready(&all);
    for node in &all {
        assert_eq!(ca(node).digest, digest);
        wait_for("what was decided", || match decided(node, &drained) {
            Some(Availability::Drain) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // And again.
    nodes[1].ctl(&["ca", "--rotate", "--wait", "60s"]).ok();
    changed(&all, &digest);
}

#[test]
fn a_node_that_is_down_holds_the_change_up_until_it_is_back_or_removed() {
    let mut nodes: Vec<Node> =
        ["swarm1", "swarm2", "swarm3", "swarm4"].map(Node::new).into_iter().map(at_fixed_port).collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    let before = ca(&nodes[0]).digest;
    let before_ids: Vec<_> = nodes.iter().map(Node::id).collect();
    nodes[2].kill();
    nodes[3].kill();
    let ids = [2, 3].map(|n: usize| before_ids[n].clone());
    let text = [format!("swarm3 ({}, down)", ids[0]), format!("swarm4 ({}, down)", ids[1])];
    wait_for("swarm3 and swarm4 to be waited for", || {
        let ran = nodes[0].ctl(&["ca", "--rotate", "--restart", "--wait", "3s"]);
        let said = ran.refused(1, &["waiting for"]);
        if text.iter().all(|part| said.contains(part.as_str())) { Ok(()) } else { Err(said) }
    });
    nodes[0].ctl(&["ca", "--rotate"]).refused(1, &["is being changed already", "--restart"]);
    // Everything works meanwhile: both CAs are trusted, and newcomers come in.
    let late = Node::started("late");
    late.join(&nodes[0], "worker");
    nodes[0].ctl(&["node", "update", "--wait", "--availability", "pause", "swarm2"]).ok();
    assert_eq!(ca(&nodes[1]).digest, before);
    let waiting =
        |id: &str| ca(&nodes[0]).change.is_some_and(|change| change.waiting.iter().any(|one| one.to_string() == id));

    let absent = [2, 3].map(|n: usize| stored(&nodes[n]));
    assert!(absent.iter().all(|stored| stored["trusted"].as_array().unwrap().len() == 1));
    nodes[0].ctl(&["node", "rm", "--force", "swarm4"]).ok();
    assert!(waiting(&ids[0]));
    nodes[2].start();
    let all: Vec<&Node> = nodes[..3].iter().chain([&late]).collect();
    changed(&all, &before);
    all_ready(&all);
}

/// What somebody who has kept a manager's disk can do with it after that manager was demoted and the CA changed.
#[test]
fn what_the_old_ca_certified_decides_nothing() {
    let mut nodes = cluster(&["swarm1", "swarm2", "swarm3"]);
    nodes[0].ctl(&["node", "promote", "--wait", "swarm2"]).ok();
    let id = nodes[1].id();
    has_the_key(&nodes[1]);
    let disk = nodes[1].state_dir().join("cluster.json");
    let kept = fs::read(&disk).unwrap();
    let before = ca(&nodes[0]).digest;
    let demoted = nodes[0].ctl(&["node", "demote", "--wait", "swarm2"]);
    assert_eq!(demoted.code, 0);
    assert!(demoted.err.contains("gossipctl ca --rotate"), "{demoted:?}");
    wait_for("swarm2 to be a worker", || match nodes[0].member(&id)?.role {
        Some(Role::Worker) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    nodes[0].ctl(&["ca", "--rotate", "--wait", "60s"]).ok();
    changed(&nodes.iter().collect::<Vec<_>>(), &before);

    nodes[1].kill();
    fs::write(&disk, kept).unwrap();
    fs::remove_file(nodes[1].state_dir().join("store.redb")).unwrap();
    nodes[1].start();
    // It is a manager in its own opinion, and nobody talks to it.
    assert_eq!(stored(&nodes[1])["role"], "manager");
    wait_for("the impostor to be refused", || {
        let log = nodes[1].log();
        if log.contains("a certificate of a CA that this node does not know") {
            Ok(())
        } else {
            Err(log.lines().last().unwrap_or_default().to_owned())
        }
    });
    assert_eq!(nodes[1].members().unwrap().len(), 1, "it is told of nobody");
    // Nor does it admit anybody: its tokens name a CA that no joiner is given any more, and its keys are not asked for.
    let secrets = stored(&nodes[0]).to_string();
    let old_key = stored(&nodes[1])["manager"]["cas"][0]["key"].as_str().unwrap().to_owned();
    assert!(!secrets.contains(&old_key));
}
