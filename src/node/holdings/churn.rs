//! Everything at once, then calm: all nodes end with the same tables, and with what their owners hold.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::tests::{MS, World, id, net};
use super::*;
use crate::node::KeptTables;
use crate::record::network::EndpointId;
use crate::record::network::tests::web;

const NODES: usize = 7;

fn churn(seed: u8) {
    let mut rng = ChaCha12Rng::from_seed([seed; 32]);
    let mut world = World::attached(NODES);
    world.loss_percent = u32::from(seed % 3) * 10;
    for _ in 0..150 {
        let n = rng.random_range(0..NODES);
        let is_up = world.nodes[n].is_some();
        let is_attached = is_up && world.node(n).tables().is_attached(net(), id(n));
        match rng.random_range(0..20) {
            0 if is_up => world.stop(n),
            1 if is_up => {
                world.stop(n);
                world.disks[n] = KeptTables::default();
            }
            2 if is_attached => {
                world.write(n, Write::Detach(net()));
            }
            3 => {
                world.deaf.insert(n);
            }
            4..=6 => world.deaf.clear(),
            7..=9 if is_up && !is_attached => {
                world.attach(n);
            }
            10 if is_attached => {
                let key = EndpointId::from_bytes([rng.random_range(0..6); 16]);
                let endpoints = BTreeMap::from([(key, web(rng.random()))]);
                world.write(n, Write::Replace { network: net(), endpoints });
            }
            _ if is_attached => {
                let value = rng.random_bool(0.7).then(|| web(rng.random()));
                world.set(n, rng.random_range(0..6), value);
            }
            _ if !is_up && rng.random_bool(0.3) => world.start(n),
            _ => {}
        }
        let pause_us = rng.random_range(0..60 * MS);
        world.run_for(pause_us);
    }
    world.deaf.clear();
    world.loss_percent = 0;
    for n in 0..NODES {
        if world.nodes[n].is_none() {
            world.start(n);
        }
    }
    world.run_for(30_000 * MS);
    let held = |n: usize| -> BTreeMap<_, _> {
        let all = world.node(n).tables().endpoints(net());
        all.map(|(name, body)| (name, body.clone())).collect()
    };
    let attached = |n: usize| -> Vec<_> { world.node(n).tables().attached(net()).collect() };
    let truth: BTreeMap<_, _> =
        (0..NODES).flat_map(|n| held(n).into_iter().filter(move |(name, _)| name.owner == id(n))).collect();
    for n in 0..NODES {
        assert_eq!(attached(n), attached(0), "seed {seed}, node {n}: attachments");
        if world.node(n).tables().is_attached(net(), id(n)) {
            assert_eq!(held(n), truth, "seed {seed}, node {n}: endpoints");
        } else {
            assert_eq!(world.node(n).tables().endpoints(net()).count(), 0);
        }
        let kept = world.disks[n].tables().into_iter().map(|table| (table.scope, table)).collect::<BTreeMap<_, _>>();
        for scope in [Scope::Attachments, Scope::Network(net())] {
            let (lives, records) = world.node(n).tables().own(scope);
            let records: Vec<_> = records.map(|(key, body)| (key, body.clone())).collect();
            let on_disk = kept.get(&scope).map(|table| (table.lives.as_slice(), table.records.clone()));
            assert_eq!(on_disk.unwrap_or_default(), (lives, records), "seed {seed}, node {n}: the disk");
        }
    }
}

#[test]
fn after_any_trouble_all_nodes_agree() {
    (0..12).for_each(churn);
}
