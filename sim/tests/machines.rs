//! What befalls machines and the paths between them, in small worlds: stopped processes, refused connections, buffers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use gossip_sim::outcome::Verdict;
use gossip_sim::plan::What;
use gossip_sim::scenario::catalogue;
use gossip_sim::shrink::shrink;
use gossip_sim::{HostId, Plan, Setup, World, run_plan};
use gossipd::record::Status;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

fn cluster(count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(Setup::new(1));
    let first = world.spawn(&[]);
    for _ in 1..count {
        world.run_for(MS);
        world.spawn(&[first]);
    }
    world.run_until(60 * SECOND, World::is_settled).expect("all know all");
    let hosts = world.hosts().collect();
    (world, hosts)
}

fn plan(name: &str) -> Plan {
    let (scenario, variant) = catalogue::find(name).unwrap();
    scenario.plan(&variant.unwrap_or_else(|| scenario.default_variant()), 1).unwrap()
}

#[test]
fn a_stopped_process_handles_nothing_and_then_everything() {
    let (mut world, hosts) = cluster(4);
    let answered =
        |world: &World| world.node(hosts[2]).unwrap().stats().received().map(|(_, t)| t.datagrams).sum::<u64>();
    world.pause(hosts[2]);
    let before = answered(&world);
    world.run_for(SECOND);
    assert_eq!(answered(&world), before);
    world.resume(hosts[2]);
    world.run_for(MS);
    assert!(answered(&world) > before);
    world.run_for(10 * SECOND);
    assert!(world.is_settled());
}

#[test]
fn a_silent_machine_and_a_refusing_one_are_both_found() {
    for silent in [false, true] {
        let (mut world, hosts) = cluster(6);
        if silent {
            world.crash(hosts[3]);
        } else {
            world.kill(hosts[3]);
        }
        world.run_for(20 * SECOND);
        assert!(world.living().all(|observer| world.status(observer, hosts[3]) == Some(Status::Down)), "{silent}");
    }
}

/// Nothing is told, sent or lacking: what follows is as after a start one by one.
#[test]
fn nodes_that_start_together_know_each_other() {
    let mut world = World::new(Setup::new(1));
    let hosts: Vec<_> = (0..12).map(|_| world.add(0)).collect();
    world.set_back(hosts[4], 0, 90_000);
    world.start_together(&hosts);
    assert!(world.is_settled());
    world.check_all();
    let late = world.spawn(&hosts[..1]);
    world.run_until(5 * SECOND, World::is_settled).expect("a newcomer is known, and knows all");
    world.kill(hosts[7]);
    world.run_for(10 * SECOND);
    assert!(world.living().all(|observer| world.status(observer, hosts[7]) == Some(Status::Down)));
    assert_eq!(world.status(late, hosts[4]), Some(Status::Ready));
    assert!(world.sightings().iter().all(|change| change.subject != 4 || change.new == Some(Status::Ready)));
    world.check_all();
    assert!(world.checks().failures().is_empty(), "{:?}", world.checks().failures());
}

#[test]
fn a_joiner_on_lossy_paths_joins() {
    let mut setup = Setup::new(3);
    setup.network.loss_ppm = 200_000;
    let mut world = World::new(setup);
    let first = world.spawn(&[]);
    (1..5).for_each(|_| {
        world.spawn(&[first]);
    });
    world.run_until(60 * SECOND, |world| world.convergence_ppm() == 1_000_000).expect("all know all");
}

#[test]
fn a_fault_that_hits_nothing_is_a_failed_run() {
    let mut plan = plan("S20@3s");
    for fault in &mut plan.faults {
        // Stopped for no time at all.
        fault.until_us = Some(fault.at_us);
    }
    assert_eq!(run_plan(&plan).verdict, Verdict::Violated);
}

#[test]
fn a_shrunk_plan_fails_in_the_same_way() {
    let mut plan = plan("S9");
    plan.bounds = vec![gossip_sim::plan::Bound { name: "events".to_owned(), at_least: None, at_most: Some(10) }];
    plan.hosts.truncate(10);
    plan.faults[0].hosts = vec![3, 7];
    let (small, _) = shrink(&plan, &mut |_, _| {}).expect("it fails");
    assert!(small.faults.is_empty() && small.hosts.len() <= 2, "{} {}", small.faults.len(), small.hosts.len());
    assert!(run_plan(&small).expectations.iter().any(|one| !one.holds));
}

#[test]
fn strangers_and_mangled_bytes_change_nothing() {
    let outcome = run_plan(&Plan { span_us: 60 * SECOND, ..plan("S39") });
    for name in ["M8", "M9"] {
        let check = outcome.checks.iter().find(|check| check.name == name).unwrap();
        assert!(check.looked > 100 && check.failed == 0, "{check:?}");
    }
}

#[test]
fn taking_a_fault_away_leaves_the_luck_of_others_alone() {
    let both = plan("S39");
    let one = Plan {
        faults: both.faults.iter().filter(|fault| fault.what.word() == "truncate").cloned().collect(),
        ..both.clone()
    };
    let first = |plan: &Plan| plan.faults.iter().find(|fault| matches!(fault.what, What::Net { .. })).unwrap().id;
    assert_ne!(first(&both), first(&one));
    // Before any fault begins, both runs are the same.
    let early = |plan: &Plan| run_plan(&Plan { span_us: 19 * SECOND, faults: Vec::new(), ..plan.clone() }).trace;
    assert_eq!(early(&both), early(&one));
}

#[test]
fn every_small_scope_of_three_nodes_holds_every_property() {
    let (scenario, _) = catalogue::find("S47").unwrap();
    for name in scenario.variants().iter().filter(|name| name.starts_with("3-")) {
        let outcome = run_plan(&scenario.plan(name, 1).unwrap());
        assert_ne!(outcome.verdict, Verdict::Violated, "{name}: {:?}", outcome.checks);
    }
}
