//! Bytes that nobody of the cluster sent as they are: garbage, damaged, cut short, replayed, sent to the wrong node.
//! They change nothing, and each is counted under its cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;

use gossip_sim::{HostId, Setup, World};
use gossipd::wire::DropCause;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

fn cluster(count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(Setup::new(1));
    let first = world.spawn(&[]);
    for _ in 1..count {
        world.spawn(&[first]);
    }
    world.run_until(60 * SECOND, World::is_settled).expect("all know all");
    let hosts = world.hosts().collect();
    (world, hosts)
}

fn drops(world: &World, host: HostId) -> BTreeMap<DropCause, u64> {
    world.node(host).unwrap().stats().drops().collect()
}

/// Injects, and expects that nothing changes but the counter of one of `causes`.
#[track_caller]
fn assert_dropped(world: &mut World, host: HostId, bytes: &[u8], causes: &[DropCause]) -> DropCause {
    let state = |world: &World| {
        let node = world.node(host).unwrap();
        (node.entries(), node.members(), node.revision(), node.next_timeout_us(), world.sent())
    };
    let (before, counted) = (state(world), drops(world, host));
    world.inject(host, bytes.to_vec());
    assert_eq!(state(world), before);
    let more: Vec<_> = drops(world, host).into_iter().filter(|(cause, count)| counted[cause] != *count).collect();
    let [(cause, count)] = more[..] else { panic!("counted once, not as {more:?}") };
    assert_eq!(count, counted[&cause] + 1);
    assert!(causes.contains(&cause), "{cause:?}, expected one of {causes:?}");
    cause
}

#[test]
fn hostile_datagrams_change_nothing_and_are_counted_by_cause() {
    use DropCause::{Cluster, Forged, Key, Oversized, Reflected, Replayed, Short, Version};
    let (mut world, hosts) = cluster(8);
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let seen_before = world.sightings().len();
    let (target, bystander) = (hosts[3], hosts[4]);
    let mut counted = BTreeMap::new();
    world.tap(target);
    for _ in 0..40 {
        world.run_for(250 * MS);
        let mut expect = |host, bytes: &[u8], causes: &[DropCause]| {
            *counted.entry(assert_dropped(&mut world, host, bytes, causes)).or_insert(0) += 1;
        };
        let mut garbage = vec![0; rng.random_range(0..1_200)];
        rng.fill_bytes(&mut garbage);
        expect(target, &garbage, &[Short, Version, Cluster, Key, Forged]);
        expect(target, &vec![1; rng.random_range(1_201..9_000)], &[Oversized]);
    }
    let caught = world.tapped(target);
    assert!(caught.len() > 20, "{}", caught.len());
    for bytes in &caught {
        let mut expect = |host, bytes: &[u8], causes: &[DropCause]| {
            *counted.entry(assert_dropped(&mut world, host, bytes, causes)).or_insert(0) += 1;
        };
        expect(target, bytes, &[Replayed]);
        expect(bystander, bytes, &[Forged, Reflected]);
        let mut flipped = bytes.clone();
        let bit = rng.random_range(0..bytes.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        expect(target, &flipped, &[Version, Cluster, Key, Forged, Replayed]);
        expect(target, &bytes[..rng.random_range(0..bytes.len())], &[Short, Forged, Replayed]);
    }
    for cause in [Short, Version, Forged, Replayed, Oversized, Reflected] {
        assert!(counted.contains_key(&cause), "{cause:?} was never provoked: {counted:?}");
    }
    world.run_for(5 * SECOND);
    assert!(world.is_settled());
    assert_eq!(world.sightings().len(), seen_before, "nobody saw anything change");
    world.check_all();
    assert_eq!(world.checks().failures(), [""; 0]);
}

#[test]
fn yesterdays_datagrams_do_not_move_a_restarted_node() {
    let (mut world, hosts) = cluster(8);
    let target = hosts[3];
    world.tap(target);
    world.run_for(20 * SECOND);
    let caught = world.tapped(target);
    assert!(caught.len() > 20, "{}", caught.len());
    world.restart(target);
    let deadline_us = world.now_us() + 60 * SECOND;
    world.run_until(deadline_us, World::is_settled).expect("all know all");
    world.run_for(5 * SECOND);
    let seen_before = world.sightings().len();
    let dropped = |world: &World| drops(world, target).into_values().sum::<u64>();
    let (count, dropped_before) = (caught.len() as u64, dropped(&world));
    for bytes in caught {
        world.inject(target, bytes);
    }
    assert!(dropped(&world) - dropped_before < count, "some open once more: the new life knows no old windows");
    world.run_for(20 * SECOND);
    assert!(world.is_settled());
    assert_eq!(world.sightings().len(), seen_before, "nobody saw anything change");
    world.check_all();
    assert_eq!(world.checks().failures(), [""; 0]);
}
