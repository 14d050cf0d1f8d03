//! What two nodes hold is compared, and for how long.

use super::tests::{MS, World, id};
use super::*;
use crate::node::{KeptTables, Peer};
use crate::record::Role;
use crate::record::network::tests::web;
use crate::wire::exchange::{Reply, Request};
use crate::wire::table::{TableReply, TableRequest, Want};

#[test]
fn what_others_have_forgotten_is_soon_no_reason_to_compare() {
    let mut world = World::attached(4);
    world.set(3, 1, Some(web(5)));
    world.run_for(10 * MS);
    world.stop(3);
    world.run_for(10_000 * MS);
    assert_eq!(world.holders(3, 1), 3);
    let now = world.now();
    for n in [1, 2] {
        world.node_mut(n).forget_member(now, id(3), Cause::Retention);
        world.flush(n);
    }
    world.run_for(8_000 * MS);
    let digest = |n: usize, peer: usize| world.node(n).tables().digest_with(id(peer));
    for peer in [1, 2] {
        assert_eq!(digest(0, peer), digest(peer, 0));
    }
    // It is still shown where its owner is remembered.
    assert_eq!(world.holders(3, 1), 1);
}

#[test]
fn whoever_learns_late_of_a_failure_does_not_compare_for_longer_than_others() {
    let mut world = World::attached(5);
    world.set(3, 1, Some(web(5)));
    world.run_for(10 * MS);
    world.stop(4);
    world.stop(3);
    world.run_for(55_000 * MS);
    world.disks[4] = KeptTables::default();
    world.start(4);
    world.attach(4);
    world.run_for(2_000 * MS);
    assert_eq!(world.holders(3, 1), 4);
    // The others have compared for a minute and a look around, by then.
    world.run_for(28_000 * MS);
    let digest = |n: usize, peer: usize| world.node(n).tables().digest_with(id(peer));
    for peer in 0..3 {
        assert_eq!(digest(4, peer), digest(peer, 4), "{peer}");
    }
    assert_eq!(world.holders(3, 1), 4);
}

#[test]
fn handing_over_what_is_new_is_told_from_handing_over_in_vain() {
    let mut world = World::attached(2);
    world.deaf.insert(1);
    let Sight { scope, owner, .. } = world.set(0, 1, Some(web(5))).unwrap();
    let want = Want { scope, owner, since: Version::NONE };
    let (steps, _) = world.node(0).tables().serve(&[want]);
    let fetch = Request::Tables(TableRequest::Fetch { wants: Vec::new(), steps }).to_bytes();
    let hand_over = |world: &mut World| {
        let now = world.now();
        let peer = Peer { id: id(0), role: Role::Worker };
        let reply = world.node_mut(1).handle_request(now, peer, &fetch).unwrap();
        Reply::from_bytes(&reply).unwrap()
    };
    let reply = |took: bool| TableReply::Steps { steps: Vec::new(), more: false, took, uncompared: Vec::new() };
    assert_eq!(hand_over(&mut world), Reply::Tables(reply(true)));
    assert_eq!(hand_over(&mut world), Reply::Tables(reply(false)));
}

#[test]
fn a_node_that_missed_everything_is_repaired_by_a_comparison() {
    let mut world = World::attached(6);
    world.deaf.insert(2);
    world.set(3, 1, Some(web(5)));
    world.run_for(400 * MS);
    world.deaf.clear();
    world.run_for(6_000 * MS);
    assert_eq!(world.get(2, 3, 1), Some(web(5)));
}
