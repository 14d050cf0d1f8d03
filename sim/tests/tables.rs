//! What owners write into their tables, in small worlds: nothing that was deleted comes back, in whatever order an owner
//! deletes and restarts, a replica restarts, and a cut heals. Every one of these is run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use gossip_sim::luck::{Luck, Purpose};
use gossip_sim::plan::Disk;
use gossip_sim::writing::{NETWORK, endpoint, endpoint_id, network_id};
use gossip_sim::{HostId, Setup, World};
use gossipd::node::Write;
use rayon::prelude::*;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const NODES: usize = 5;
/// Who owns what is deleted.
const OWNER: usize = 1;

/// What happens, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// The owner deletes two of its three records.
    Delete,
    /// The owner's process ends and is back, with this disk.
    Owner(Disk),
    /// A node of the other side restarts: it holds nothing of its own accord.
    Replica,
    /// The cut heals.
    Heal,
}

fn orders(deeds: &[Deed]) -> Vec<Vec<Deed>> {
    if deeds.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (n, first) in deeds.iter().enumerate() {
        let rest: Vec<_> = deeds.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, deed)| *deed).collect();
        all.extend(orders(&rest).into_iter().map(|rest| std::iter::once(*first).chain(rest).collect::<Vec<_>>()));
    }
    all
}

fn set(world: &mut World, host: HostId, slots: &[u32], is_there: bool) {
    let mut luck = Luck::new(world.now_us()).stream(Purpose::Writes);
    let endpoints =
        slots.iter().map(|slot| (endpoint_id(*slot), is_there.then(|| endpoint(&mut luck, host, *slot, 0))));
    let endpoints = endpoints.collect();
    world.write(host, 0, Write::Set { network: network_id(NETWORK), endpoints });
}

/// Five nodes, all attached, each with three records.
fn cluster(seed: u64) -> (World, Vec<HostId>) {
    let mut world = World::new(Setup::new(seed));
    let hosts: Vec<_> = (0..NODES).map(|_| world.add(0)).collect();
    for host in &hosts {
        world.set_contacts(*host, &hosts);
        world.attach_before(*host);
        world.start(*host);
        world.run_for(MS);
    }
    world.run_until(60 * SECOND, World::is_settled).expect("all know all");
    hosts.iter().for_each(|host| set(&mut world, *host, &[0, 1, 2], true));
    world.run_for(SECOND);
    assert!(world.are_tabled(&hosts));
    (world, hosts)
}

/// One order of deeds, with the owner and `side` on one side of a cut, `gap_us` after one another.
fn run(seed: u64, side: &[usize], order: &[Deed], gap_us: u64) -> Result<(), String> {
    let (mut world, hosts) = cluster(seed);
    let (one, other): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| side.contains(&host.index()));
    let cut = world.split(&one, &other);
    world.run_for(gap_us);
    for deed in order {
        match deed {
            Deed::Delete => set(&mut world, hosts[OWNER], &[0, 1], false),
            Deed::Owner(disk) => {
                world.kill(hosts[OWNER]);
                world.run_for(20 * MS);
                world.revive(hosts[OWNER], *disk, false);
            }
            Deed::Replica => {
                let replica = *other.last().unwrap();
                world.kill(replica);
                world.run_for(20 * MS);
                world.revive(replica, Disk::Kept, false);
            }
            Deed::Heal => world.heal(cut),
        }
        world.run_for(gap_us);
    }
    let all = hosts.clone();
    let since_us = world.now_us();
    while !(world.is_settled() && world.are_tabled(&all)) && world.now_us() < since_us + 10 * SECOND {
        world.run_for(20 * MS);
    }
    world.run_for(3 * SECOND);
    world.check_all();
    let mut wrong = world.checks().failures();
    if !(world.is_settled() && world.are_tabled(&all)) {
        wrong.push("they do not agree".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{side:?} {order:?} every {gap_us} µs: {wrong:?}")) }
}

#[test]
fn whatever_the_order_nothing_that_was_deleted_comes_back() {
    let mut cases = Vec::new();
    for disk in [Disk::Kept, Disk::Blank] {
        for order in orders(&[Deed::Delete, Deed::Owner(disk), Deed::Replica, Deed::Heal]) {
            // The owner alone, with one other, with two, with three: the replica is always on the other side.
            for side in [vec![1], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3]] {
                // Before anybody is down, and long after.
                for gap_us in [5 * MS, 300 * MS, 4 * SECOND] {
                    cases.push((side.clone(), order.clone(), gap_us));
                }
            }
        }
    }
    let wrong: Vec<_> =
        cases.par_iter().filter_map(|(side, order, gap_us)| run(1, side, order, *gap_us).err()).collect();
    assert!(wrong.is_empty(), "{} of {}: {:#?}", wrong.len(), cases.len(), &wrong[..wrong.len().min(4)]);
}
