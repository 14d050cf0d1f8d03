//! What operators decide, in small worlds: who has it when, who may, and what daemons make of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use gossip_sim::plan::{Disk, Ruling};
use gossip_sim::scenario::catalogue;
use gossip_sim::shrink::shrink;
use gossip_sim::{HostId, Plan, Setup, World, run_plan};
use gossipd::record::{Availability, Role, Status};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const DRAIN: Ruling = Ruling::Availability { to: Availability::Drain };

/// `count` nodes that know each other; the first two are managers.
fn cluster(count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(Setup::new(1));
    let first = world.spawn(&[]);
    let second = world.add(0);
    world.set_manager(second);
    world.set_contacts(second, &[first]);
    world.start(second);
    for _ in 2..count {
        world.run_for(MS);
        world.spawn(&[first]);
    }
    world.run_until(60 * SECOND, World::is_settled).expect("all know all");
    world.run_for(5 * SECOND);
    let hosts = world.hosts().collect();
    (world, hosts)
}

fn all_list(world: &World, subject: HostId, availability: Option<Availability>) -> bool {
    let id = world.node_id(subject);
    world.living().all(|observer| world.node(observer).unwrap().decided(id).availability() == availability)
}

#[track_caller]
fn assert_sound(world: &mut World) {
    world.check_all();
    assert_eq!(world.checks().failures(), [""; 0]);
    let all: Vec<_> = world.hosts().collect();
    assert!(world.are_decided(&all, true));
}

#[test]
fn a_decision_is_with_all_at_once_and_the_decider_knows_when() {
    let (mut world, hosts) = cluster(25);
    let began_us = world.now_us();
    let made = world.decide(hosts[1], &hosts[5..7], &DRAIN, Some("new disks")).unwrap();
    world.confirm(hosts[1], &made);
    world
        .run_until(began_us + 100 * MS, |world| all_list(world, hosts[6], Some(Availability::Drain)))
        .expect("at once");
    world.run_for(SECOND);
    assert!(world.rulings().questions[0].answered_us.expect("answered") < 300 * MS);
    assert!(world.rulings().all().iter().all(|one| one.all_us().is_some_and(|us| us < 100 * MS)));
    assert_sound(&mut world);
}

#[test]
fn workers_drain_themselves_and_nobody_else() {
    let (mut world, hosts) = cluster(8);
    world.decide(hosts[3], &hosts[4..5], &DRAIN, None).unwrap_err();
    world.decide(hosts[3], &hosts[3..4], &Ruling::Availability { to: Availability::Active }, None).unwrap_err();
    world.decide(hosts[3], &hosts[3..4], &DRAIN, None).unwrap();
    world.run_for(SECOND);
    assert!(all_list(&world, hosts[3], Some(Availability::Drain)) && all_list(&world, hosts[4], None));
    assert_sound(&mut world);
}

#[test]
fn a_promoted_worker_decides_and_a_demoted_manager_does_not() {
    let (mut world, hosts) = cluster(8);
    world.decide(hosts[0], &hosts[5..6], &Ruling::Role { to: Role::Manager }, None).unwrap();
    world.decide(hosts[0], &hosts[1..2], &Ruling::Role { to: Role::Worker }, None).unwrap();
    world.run_for(2 * SECOND);
    world.decide(hosts[5], &hosts[6..7], &DRAIN, None).unwrap();
    world.decide(hosts[1], &hosts[7..8], &DRAIN, None).unwrap_err();
    world.run_for(SECOND);
    assert!(all_list(&world, hosts[6], Some(Availability::Drain)));
    assert_sound(&mut world);
}

#[test]
fn whoever_dies_right_after_deciding_brings_it_along_when_it_returns() {
    let (mut world, hosts) = cluster(8);
    world.decide(hosts[1], &hosts[4..5], &DRAIN, None).unwrap();
    world.crash(hosts[1]);
    world.run_for(5 * SECOND);
    assert!(all_list(&world, hosts[4], None), "nobody had it");
    world.revive(hosts[1], Disk::Forgetful, false);
    world.run_for(5 * SECOND);
    assert!(all_list(&world, hosts[4], Some(Availability::Drain)));
    assert_sound(&mut world);
}

#[test]
fn a_removed_node_ends_and_an_old_disk_does_not_bring_it_back() {
    let (mut world, hosts) = cluster(8);
    world.decide(hosts[0], &hosts[4..5], &Ruling::Remove, None).unwrap();
    world.run_for(SECOND);
    assert!(!world.lives(hosts[4]));
    for disk in [Disk::Kept, Disk::Copied] {
        world.revive(hosts[4], disk, false);
        world.run_for(5 * SECOND);
        assert!(!world.lives(hosts[4]), "{disk:?}");
        assert!(world.living().all(|observer| world.status(observer, hosts[4]).is_none()));
    }
    // As a new node it is welcome.
    world.revive(hosts[4], Disk::Wiped, false);
    world.run_for(5 * SECOND);
    assert!(world.living().all(|o| o == hosts[4] || world.status(o, hosts[4]) == Some(Status::Ready)));
    assert_sound(&mut world);
}

#[test]
fn a_node_that_was_removed_while_it_was_cut_off_makes_nobody_renew() {
    let (mut world, hosts) = cluster(12);
    let cut = world.split(&hosts[..2], &hosts[2..]);
    let other = &hosts[2..];
    world.run_for(10 * SECOND);
    world.decide(hosts[0], &hosts[1..2], &Ruling::Remove, None).unwrap();
    world.run_for(SECOND);
    assert!(!world.lives(hosts[1]) && other.iter().all(|host| world.lives(*host)));
    world.heal(cut);
    world.run_for(10 * SECOND);
    assert!(world.is_settled());
    assert_sound(&mut world);
}

#[test]
fn a_decree_that_nobody_takes_is_a_failed_run_and_shrinks_to_it() {
    let (scenario, _) = catalogue::find("S45b").unwrap();
    let mut plan = scenario.plan("25", 1).unwrap();
    plan.decrees[3].by = vec![9];
    plan.bounds = vec![gossip_sim::plan::Bound { name: "orders_refused".to_owned(), at_least: None, at_most: Some(0) }];
    assert!(run_plan(&plan).faults[3].hits == 0);
    let (small, _) = shrink(&Plan { ..plan }, &mut |_, _| {}).expect("it fails");
    assert_eq!(small.decrees.len(), 1);
}
