//! What must hold of a cluster, whatever happens to its machines and its network. Small, for every `cargo test`; longer
//! and larger runs belong to the `gossip-sim` binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use gossip_sim::outcome::StatusChange;
use gossip_sim::plan::Network;
use gossip_sim::{HostId, Setup, World};
use gossipd::record::Status;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
/// No tail is longer than a periodic comparison with its jitter, and the time to spread what it found.
const ONE_SYNC: u64 = 40 * SECOND;

/// `count` nodes that know each other, joined through the first, one every millisecond.
fn cluster(setup: Setup, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(setup);
    let first = world.spawn(&[]);
    for _ in 1..count {
        world.run_for(MS);
        world.spawn(&[first]);
    }
    settle(&mut world, ONE_SYNC);
    let hosts = world.hosts().collect();
    (world, hosts)
}

/// Runs until everybody agrees, `within_us` at most. Says how long it took.
#[track_caller]
fn settle(world: &mut World, within_us: u64) -> u64 {
    let since_us = world.now_us();
    match world.run_until(since_us + within_us, World::is_settled) {
        Some(at_us) => at_us - since_us,
        None => panic!("no agreement within {within_us} µs: {}", listings(world)),
    }
}

/// Who lists whom as what, where it is not `ready`.
fn listings(world: &World) -> String {
    let pairs = world.living().flat_map(|observer| world.hosts().map(move |subject| (observer, subject)));
    let odd = pairs.filter(|(observer, subject)| observer != subject).filter_map(|(observer, subject)| {
        let row = world.row(observer, subject);
        let lives = world.node(subject).map(|node| node.identity());
        let right = row.is_some_and(|row| row.status == Status::Ready && Some(row.identity) == lives);
        (!right).then(|| format!("{observer} of {subject}: {:?}", row.map(|row| (row.status, row.identity))))
    });
    odd.take(20).collect::<Vec<_>>().join("; ")
}

/// All that was checked on the way held, and holds at the end.
#[track_caller]
fn assert_sound(world: &mut World) {
    world.check_all();
    assert_eq!(world.checks().failures(), [""; 0]);
}

/// What was seen since `since_us` that `suits`.
fn seen(world: &World, since_us: u64, suits: impl Fn(&StatusChange) -> bool) -> Vec<StatusChange> {
    world.sightings().iter().filter(|sighting| sighting.at_us >= since_us && suits(sighting)).copied().collect()
}

/// Whether all living hosts but `subject` itself list it as `status`.
fn all_list(world: &World, subject: HostId, status: Status) -> bool {
    world.living().filter(|host| *host != subject).all(|observer| world.status(observer, subject) == Some(status))
}

#[test]
fn a_joiner_knows_all_after_one_exchange() {
    let (mut world, hosts) = cluster(Setup::new(1), 16);
    let joiner = world.spawn(&hosts[..1]);
    let began_us = world.now_us();
    let deadline_us = began_us + SECOND;
    let joined_us = world.run_until(deadline_us, |world| world.node(joiner).unwrap().is_joined()).unwrap();
    assert!(joined_us - began_us <= 2 * MS, "one round trip, not {} µs", joined_us - began_us);
    for host in &hosts {
        assert_eq!(world.status(joiner, *host), Some(Status::Ready), "{host}");
        assert!(world.row(joiner, *host).unwrap().record.is_some(), "{host}'s record came along");
    }
    settle(&mut world, 2 * SECOND);
    assert_sound(&mut world);
}

#[test]
fn all_know_all() {
    for seed in 1..=3 {
        let (mut world, _) = cluster(Setup::new(seed), 32);
        world.run_for(10 * SECOND);
        assert!(world.is_settled(), "and it stays so");
        assert_eq!(seen(&world, 0, |sighting| sighting.new != Some(Status::Ready)), []);
        assert_sound(&mut world);
    }
}

#[test]
fn a_herd_is_known_to_all_within_two_seconds() {
    for seed in 1..=10 {
        let mut world = World::new(Setup::new(seed));
        let first = world.spawn(&[]);
        for _ in 1..32 {
            world.run_for(MS);
            world.spawn(&[first]);
        }
        settle(&mut world, 2 * SECOND);
    }
}

#[test]
fn a_crash_is_seen_by_all() {
    let (mut world, hosts) = cluster(Setup::new(2), 16);
    let at_us = world.now_us();
    world.crash(hosts[5]);
    world.run_until(at_us + 15 * SECOND, |world| all_list(world, hosts[5], Status::Down)).expect("all list it as down");
    assert_eq!(seen(&world, at_us, |sighting| sighting.subject_runs), [], "nobody else is under suspicion");
    assert_sound(&mut world);
}

#[test]
fn a_goodbye_is_seen_by_all_and_nobody_suspects_a_failure() {
    for seed in 1..=3 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        let at_us = world.now_us();
        world.leave(hosts[5]);
        world.run_until(at_us + SECOND, |world| all_list(world, hosts[5], Status::Left)).expect("all list it as left");
        assert!(!world.lives(hosts[5]));
        world.run_for(30 * SECOND);
        assert!(all_list(&world, hosts[5], Status::Left), "and it stays so");
        let failures = |sighting: &StatusChange| matches!(sighting.new, Some(Status::Suspect | Status::Down));
        assert_eq!(seen(&world, at_us, failures), []);
        assert_sound(&mut world);
    }
}

#[test]
fn a_restart_replaces_the_old_life_at_once() {
    let (mut world, hosts) = cluster(Setup::new(3), 16);
    let at_us = world.now_us();
    let before = world.node(hosts[5]).unwrap().identity();
    world.restart(hosts[5]);
    let after = world.node(hosts[5]).unwrap().identity();
    assert!(after.generation > before.generation);
    settle(&mut world, SECOND);
    world.run_for(30 * SECOND);
    assert_eq!(seen(&world, at_us, |sighting| sighting.new != Some(Status::Ready)), [], "never anything but ready");
    assert!(world.is_settled());
    assert_sound(&mut world);
}

#[test]
fn a_node_that_comes_back_from_the_dead_is_ready_again() {
    let (mut world, hosts) = cluster(Setup::new(4), 16);
    world.crash(hosts[5]);
    let at_us = world.now_us();
    world.run_until(at_us + 15 * SECOND, |world| all_list(world, hosts[5], Status::Down)).expect("all list it as down");
    world.restart(hosts[5]);
    let at_us = world.now_us();
    settle(&mut world, SECOND);
    world.run_for(10 * SECOND);
    assert_eq!(seen(&world, at_us, |sighting| sighting.new != Some(Status::Ready)), []);
    assert_sound(&mut world);
}

#[test]
fn a_restart_at_a_new_address_is_followed() {
    let (mut world, hosts) = cluster(Setup::new(5), 16);
    let (at_us, before) = (world.now_us(), world.addr(hosts[5]));
    world.restart_elsewhere(hosts[5]);
    assert_ne!(world.addr(hosts[5]), before);
    settle(&mut world, 2 * SECOND);
    world.run_for(30 * SECOND);
    assert_eq!(seen(&world, at_us, |sighting| sighting.new != Some(Status::Ready)), []);
    assert!(world.is_settled());
    assert_sound(&mut world);
}

#[test]
fn a_generation_below_what_the_cluster_remembers_comes_back() {
    for seed in 6..=9 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        let remembered = world.node(hosts[5]).unwrap().identity().generation;
        // An old disk, and a clock that is an hour behind.
        world.set_back(hosts[5], 0, -3_600_000);
        world.restart(hosts[5]);
        assert!(world.node(hosts[5]).unwrap().identity().generation < remembered);
        settle(&mut world, 2 * SECOND);
        assert!(world.node(hosts[5]).unwrap().identity().generation > remembered);
        world.run_for(30 * SECOND);
        assert!(world.is_settled());
        assert_sound(&mut world);
    }
}

#[test]
fn all_restart_at_once_knowing_only_their_contact() {
    for seed in 1..=3 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        hosts.iter().for_each(|host| world.restart(*host));
        settle(&mut world, ONE_SYNC);
        assert_sound(&mut world);
    }
}

#[test]
fn a_split_heals_to_one_view() {
    for seed in 1..=3 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        let (one, other) = hosts.split_at(8);
        let cut = world.split(one, other);
        world.run_for(60 * SECOND);
        for (observers, subjects) in [(one, other), (other, one)] {
            for observer in observers {
                assert!(subjects.iter().all(|subject| world.status(*observer, *subject) == Some(Status::Down)));
                let own_side = observers.iter().filter(|host| *host != observer);
                assert!(own_side.into_iter().all(|host| world.status(*observer, *host) == Some(Status::Ready)));
            }
        }
        world.heal(cut);
        settle(&mut world, 60 * SECOND);
        world.run_for(60 * SECOND);
        assert!(world.is_settled(), "and it stays one: {}", listings(&world));
        assert_sound(&mut world);
    }
}

#[test]
fn a_node_that_nobody_heard_for_a_while_suspects_nobody_for_ever() {
    for seed in 1..=8 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        let cut = world.cut(&hosts[8..9], &hosts);
        world.run_for(30 * SECOND);
        world.heal(cut);
        settle(&mut world, 60 * SECOND);
        assert_sound(&mut world);
    }
}

#[test]
fn who_left_and_comes_back_is_never_listed_as_down() {
    let (mut world, hosts) = cluster(Setup::new(1), 16);
    let at_us = world.now_us();
    world.leave(hosts[5]);
    world.run_for(5 * SECOND);
    assert!(all_list(&world, hosts[5], Status::Left));
    world.restart(hosts[5]);
    settle(&mut world, SECOND);
    assert_eq!(seen(&world, at_us, |sighting| sighting.new == Some(Status::Down)), []);
    assert_sound(&mut world);
}

#[test]
fn half_of_all_leave_at_once_and_nobody_suspects_a_failure() {
    for seed in 1..=8 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        let at_us = world.now_us();
        hosts[8..].iter().for_each(|host| world.leave(*host));
        world.run_for(30 * SECOND);
        for host in &hosts[8..] {
            let told = || world.living().map(|observer| (observer, world.status(observer, *host))).collect::<Vec<_>>();
            assert!(all_list(&world, *host, Status::Left), "seed {seed}, {host}: {:?}", told());
        }
        let failures = |sighting: &StatusChange| matches!(sighting.new, Some(Status::Suspect | Status::Down));
        assert_eq!(seen(&world, at_us, failures), []);
        assert_sound(&mut world);
    }
}

#[test]
fn a_cluster_forms_two_seconds_after_its_only_contact_is_back() {
    for seed in 1..=8 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        world.crash(hosts[0]);
        hosts[1..].iter().for_each(|host| world.restart(*host));
        world.run_for(60 * SECOND);
        world.restart(hosts[0]);
        settle(&mut world, 2 * SECOND);
        assert_sound(&mut world);
    }
}

#[test]
fn one_pair_that_cannot_talk_accuses_nobody() {
    let (mut world, hosts) = cluster(Setup::new(1), 16);
    let at_us = world.now_us();
    world.split(&hosts[1..2], &hosts[2..3]);
    world.run_for(60 * SECOND);
    assert_eq!(seen(&world, at_us, |_| true), []);
    assert!(world.is_settled());
    assert_sound(&mut world);
}

#[test]
fn nobody_goes_down_at_ten_percent_loss() {
    let setup = Setup { network: Network { loss_ppm: 100_000, ..Network::lan() }, ..Setup::new(1) };
    let (mut world, _) = cluster(setup, 16);
    world.run_for(180 * SECOND);
    assert_eq!(seen(&world, 0, |sighting| sighting.new == Some(Status::Down)), []);
    assert_sound(&mut world);
}

#[test]
fn of_two_nodes_with_one_id_the_later_stays_and_both_report_it() {
    for seed in 1..=8 {
        let (mut world, hosts) = cluster(Setup::new(seed), 16);
        world.run_for(10 * SECOND);
        let clone = world.spawn_clone(hosts[5]);
        world.run_for(60 * SECOND);
        let reports = |host| world.book().conflicts().iter().any(|(reporter, _)| *reporter == host);
        assert!(reports(hosts[5]) && reports(clone), "seed {seed}: {:?}", world.book().conflicts());
        let gave_way: Vec<_> =
            world.book().conflicts().iter().filter(|(_, gave_way)| *gave_way).map(|(who, _)| *who).collect();
        assert_eq!(gave_way, [hosts[5]], "seed {seed}");
        let stays = world.node(clone).map(|node| node.identity());
        for observer in world.living().filter(|host| *host != hosts[5] && *host != clone) {
            let row = world.row(observer, hosts[5]);
            assert_eq!(
                row.map(|row| (row.status, row.identity)),
                stays.map(|life| (Status::Ready, life)),
                "seed {seed}"
            );
            assert_eq!(world.totals(observer).renewals, 0, "seed {seed}: {observer} was harmed");
        }
        assert_sound(&mut world);
    }
}

#[test]
fn a_restarted_node_that_knows_nobody_is_found_by_those_who_knew_it() {
    let (mut world, hosts) = cluster(Setup::new(1), 16);
    // Long enough that comparisons have become rare.
    world.run_for(120 * SECOND);
    let at_us = world.now_us();
    world.restart(hosts[0]);
    settle(&mut world, 2 * SECOND);
    assert_eq!(seen(&world, at_us, |sighting| sighting.new == Some(Status::Down)), []);
    assert_sound(&mut world);
}
