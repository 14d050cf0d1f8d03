//! No message draws an answer that draws another one without time passing: whatever befalls a small cluster, its traffic
//! stays what so many nodes may cause in a second.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use gossip_sim::outcome::Verdict;
use gossip_sim::scenario::catalogue;
use gossip_sim::{HostId, Setup, World, run_plan};
use gossipd::record::Status;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
/// Datagrams and exchanges of one node in any tenth of a second, at most, on average over all.
const PER_NODE_MAX: u64 = 60;

fn cluster(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(Setup::new(seed));
    let first = world.spawn(&[]);
    for _ in 1..count {
        world.run_for(MS);
        world.spawn(&[first]);
    }
    world.run_until(60 * SECOND, World::is_settled).expect("all know all");
    let hosts = world.hosts().collect();
    (world, hosts)
}

/// Runs, and says what was sent in the busiest tenth of a second.
fn busiest(world: &mut World, span_us: u64) -> u64 {
    let until_us = world.now_us() + span_us;
    let mut most = 0;
    while world.now_us() < until_us {
        let before = world.sent();
        world.run_for(SECOND / 10);
        let after = world.sent();
        most = most.max(after.datagrams - before.datagrams + after.exchanges - before.exchanges);
    }
    most
}

#[test]
fn nodes_that_may_not_renew_yet_do_not_argue_with_those_that_hold_them_for_down() {
    for seed in 1..=4 {
        let (mut world, hosts) = cluster(seed, 8);
        let (few, many) = hosts.split_at(2);
        // A flapping link takes one life after the other, until no more are to be had for a minute.
        let mut most = 0;
        for _ in 0..11 {
            let cut = world.split(few, many);
            most = most.max(busiest(&mut world, 5 * SECOND));
            world.heal(cut);
            most = most.max(busiest(&mut world, SECOND / 2));
        }
        let renewals = few.iter().map(|host| world.totals(*host).renewals).max().unwrap();
        assert_eq!(renewals, 8, "seed {seed}: nobody was without another life");
        assert!(most <= 8 * PER_NODE_MAX, "seed {seed}: {most} datagrams and exchanges");
        // A life that could not be taken when it was needed is taken as soon as it may be.
        world.run_for(61 * SECOND);
        assert!(world.is_settled(), "seed {seed}");
        world.check_all();
        assert_eq!(world.checks().failures(), [""; 0], "seed {seed}");
    }
}

#[test]
fn a_process_that_ends_while_it_is_stopped_is_not_argued_about() {
    for seed in 1..=8 {
        let (mut world, hosts) = cluster(seed, 8);
        world.pause(hosts[3]);
        let mut most = busiest(&mut world, 3 * SECOND);
        world.kill(hosts[3]);
        let killed_us = world.now_us();
        let is_down = |world: &World| {
            world.living().filter(|h| *h != hosts[3]).all(|h| world.status(h, hosts[3]) == Some(Status::Down))
        };
        while !is_down(&world) {
            assert!(world.now_us() < killed_us + 2 * SECOND, "seed {seed}: still not down");
            most = most.max(busiest(&mut world, SECOND / 10));
        }
        assert!(most <= 8 * PER_NODE_MAX, "seed {seed}: {most} datagrams and exchanges");
    }
}

/// Witnesses whose datagrams come back too do not open inquiries of their own, or all would ask all within milliseconds.
#[test]
fn a_killed_process_is_looked_into_by_few() {
    for seed in 1..=4 {
        let (mut world, hosts) = cluster(seed, 64);
        let inquiries =
            |world: &World| world.living().map(|host| world.node(host).unwrap().stats().inquiries).sum::<u64>();
        let before = inquiries(&world);
        world.kill(hosts[3]);
        world.run_for(2 * SECOND);
        assert!(world.living().all(|host| world.status(host, hosts[3]) == Some(Status::Down)), "seed {seed}");
        let count = inquiries(&world) - before;
        assert!(count <= 16, "seed {seed}: {count} of 63 looked into it");
    }
}

#[test]
fn plans_that_once_made_a_storm_are_calm() {
    let (scenario, variant) = catalogue::find("S46@16").unwrap();
    for seed in [14, 88, 99, 218] {
        let plan = scenario.plan(&variant.clone().unwrap(), seed).unwrap();
        let outcome = run_plan(&plan);
        assert_eq!(outcome.verdict, Verdict::Passed, "seed {seed}");
    }
}
