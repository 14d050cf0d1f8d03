//! What the failure detector makes of processes that are stopped, and of those that are gone.

use std::thread::sleep;
use std::time::Duration;

use gossipd::record::Status;
use nix::sys::signal::Signal;

use crate::harness::{Node, all_ready, form, shows, some_probes, wait_for};

fn talkative(name: &str) -> Node {
    let mut node = Node::new(name);
    node.set_log_filter("gossipd=debug");
    node
}

/// R5: SIGSTOP for 3 s.
#[test]
fn a_process_that_was_stopped_for_a_while_leaves_no_trace() {
    let mut nodes = ["a", "b", "c", "d"].map(talkative);
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    let (stopped, id) = (&nodes[3], nodes[3].id());
    let generation = stopped.generation();
    nodes.iter().for_each(some_probes);
    let marks: Vec<_> = nodes.iter().map(|node| node.log().len()).collect();
    stopped.signal(Signal::SIGSTOP);
    // The time itself is the fault.
    sleep(Duration::from_secs(3));
    stopped.signal(Signal::SIGCONT);
    nodes.iter().for_each(some_probes);
    all_ready(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(stopped.generation(), generation, "it did not have to take a new life");
    for (node, mark) in nodes.iter().zip(marks) {
        let log = node.log();
        let since = &log[mark..];
        assert!(!since.contains("member suspected") && !since.contains("member status"), "{since}");
    }
    let asked: f64 = nodes[..3].iter().filter_map(|node| node.metric("gossipd_inquiries_total")).sum();
    assert!(asked >= 1.0, "the others have not even noticed");
    assert!(nodes[..3].iter().all(|node| node.member(&id).is_ok_and(|member| member.status == Status::Ready)));
}

#[test]
fn a_process_that_stays_stopped_is_down_and_comes_back_by_itself() {
    let mut nodes = ["a", "b", "c"].map(talkative);
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    let (stopped, id) = (&nodes[2], nodes[2].id());
    stopped.signal(Signal::SIGSTOP);
    nodes[..2].iter().for_each(|node| drop(shows(node, &id, Status::Down)));
    stopped.signal(Signal::SIGCONT);
    all_ready(&nodes.iter().collect::<Vec<_>>());
    wait_for("the others to be accused by nobody", || {
        match nodes[2].metric("gossipd_accusations_total{result=\"upheld\"}") {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
