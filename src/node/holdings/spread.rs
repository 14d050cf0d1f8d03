//! How fast and how often a write arrives among many nodes.

use super::tests::{EPOCH_MS, MS, World, addr, id, net, record};
use super::*;
use crate::node::{Kind, Peer};
use crate::record::Role;
use crate::record::network::tests::web;
use crate::wire::datagram::RecordEnvelope;
use crate::wire::exchange::{Liveness, MemberEntry, Reply};

const WRITES: u64 = 10;

/// Everybody knows everybody without having been told.
fn warm(nodes: usize) -> World {
    let mut world = World::new(nodes);
    let entry = |n: usize| {
        let generation = EPOCH_MS / 1_000 + 1;
        let version = Version { generation, seq: 1 };
        let record = Some(RecordEnvelope::new(id(n), version, &record(n, generation)));
        MemberEntry { id: id(n), generation, addr: addr(n), incarnation: 0, liveness: Liveness::Alive, record }
    };
    let members = Some((0..nodes).map(entry).collect());
    let state = Reply::State { members, decisions: [0; 16], tables: [0; 16] }.to_bytes();
    let attach = |n: usize| {
        let mut tables = Tables::new(id(n));
        let mac = (addr(n).ip(), None);
        let outcome = tables.attach(EPOCH_MS / 1_000 + 1, net(), "front".to_owned(), mac).unwrap();
        (*outcome.news[0]).clone()
    };
    let steps: Vec<_> = (0..nodes).map(attach).collect();
    for n in 0..nodes {
        world.disks[n].keep(&steps[n], &steps[n].lives);
        world.start(n);
        let now = world.now();
        let node = world.node_mut(n);
        node.handle_timeout(now);
        let syncs: Vec<_> = std::iter::from_fn(|| node.poll_effect())
            .filter_map(|effect| match effect {
                Effect::Exchange { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let peer = Peer { id: id(usize::from(n == 0)), role: Role::Worker };
        node.handle_reply(now, syncs[0], Ok((peer, &state)));
        for step in &steps {
            let _ = node.holdings.tables.apply(Source::Relay, step.clone());
        }
        while node.poll_effect().is_some() {}
        world.flush(n);
    }
    world
}

/// What ten writes cost, and how long they took.
struct Figures {
    /// Microseconds from a write to each node's listeners, in order.
    times_us: Vec<u64>,
    surplus: u64,
    datagrams: u64,
    bytes: u64,
}

impl Figures {
    fn at(&self, per_mille: usize) -> u64 {
        self.times_us[(self.times_us.len() - 1) * per_mille / 1_000]
    }
}

fn spread(nodes: usize, loss_percent: u32) -> Figures {
    let mut world = warm(nodes);
    world.run_for(2_000 * MS);
    world.loss_percent = loss_percent;
    let traffic = |world: &World| -> (u64, u64) {
        let of = world.nodes.iter().flatten().flat_map(|node| node.stats().sent());
        let of = of.filter(|(kind, _)| *kind == Kind::Tables).map(|(_, traffic)| traffic);
        of.fold((0, 0), |sum, traffic| (sum.0 + traffic.datagrams, sum.1 + traffic.bytes))
    };
    let (surplus, before) = (world.surplus(), traffic(&world));
    let mut times_us = Vec::new();
    for write in 0..WRITES {
        world.events.clear();
        let at_us = world.now_us;
        let owner = usize::try_from(write).unwrap() * 7 % nodes;
        world.set(owner, u8::try_from(write).unwrap(), Some(web(5)));
        world.run_for(2_000 * MS);
        let seen = world.events.iter().filter(|(.., event)| matches!(event, Event::Table { .. }));
        times_us.extend(seen.map(|(seen_us, ..)| seen_us - at_us));
    }
    times_us.sort_unstable();
    let after = traffic(&world);
    let (datagrams, bytes) = (after.0 - before.0, after.1 - before.1);
    let figures = Figures { times_us, surplus: world.surplus() - surplus, datagrams, bytes };
    let each = nodes as u64 * WRITES;
    println!(
        "{nodes} nodes, {loss_percent} % loss: {} of {each} deliveries, {:?} us at 50 %, 99 %, 99.9 % and 100 %; for each node \
         and 1,000 writes {} surplus copies, {} datagrams, {} bytes",
        figures.times_us.len(),
        [500, 990, 999, 1_000].map(|per_mille| figures.at(per_mille)),
        figures.surplus * 1_000 / each,
        figures.datagrams * 1_000 / each,
        figures.bytes * 1_000 / each,
    );
    figures
}

#[test]
fn a_write_arrives_everywhere_soon_and_about_once() {
    const NODES: usize = 60;
    for (loss_percent, p99_us) in [(0, 5 * MS), (5, 200 * MS)] {
        let figures = spread(NODES, loss_percent);
        assert_eq!(figures.times_us.len() as u64, NODES as u64 * WRITES);
        assert!(figures.at(500) <= 10 * MS && figures.at(990) <= p99_us);
        assert!(figures.surplus <= NODES as u64 * WRITES * 3 / 10);
    }
}
