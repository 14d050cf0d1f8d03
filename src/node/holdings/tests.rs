//! Tables among a few nodes on a network that delays and loses: what is written arrives, however it is hindered.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::ca::fixture;
use crate::node::{Command, Config, ExchangeError, ExchangeId, KeptTables, Peer, Start};
use crate::record::network::tests::web;
use crate::record::network::{Endpoint, EndpointId, EndpointName};
use crate::record::{Availability, ClusterId, Details, NodeRecord, Role};
use crate::wire::Keyring;

pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;
pub(super) const MS: u64 = 1_000;

fn cluster() -> ClusterId {
    ClusterId::from_bytes([9; 16])
}

pub(super) fn net() -> NetworkId {
    NetworkId::from_bytes([9; 16])
}

pub(super) fn id(n: usize) -> NodeId {
    let place = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&place);
    bytes[8..].copy_from_slice(&place);
    NodeId::from_bytes(bytes)
}

pub(super) fn addr(n: usize) -> SocketAddr {
    ([10, 0, u8::try_from(n >> 8).unwrap(), u8::try_from(n & 255).unwrap()], 7946).into()
}

fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 16])
}

pub(super) fn record(n: usize, generation: u64) -> NodeRecord {
    NodeRecord {
        hostname: format!("n{n}"),
        role: Role::Worker,
        availability: Availability::Active,
        data_path_addr: addr(n).ip(),
        agent_version: "1".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        joined_at_ms: 0,
        started_generation: generation,
        left: false,
        away_s: 0,
        details: Details::default(),
    }
}

fn large() -> Endpoint {
    let labels = [("a".to_owned(), "v".repeat(30_000)), ("b".to_owned(), "v".repeat(29_000))];
    Endpoint { labels: labels.into_iter().collect(), ..web(5) }
}

enum Item {
    Datagram(usize, Vec<u8>),
    Request { from: usize, to: usize, id: ExchangeId, request: Vec<u8> },
    Reply { to: usize, id: ExchangeId, outcome: Result<(usize, Vec<u8>), ExchangeError> },
    Wake(usize),
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Option<Node>>,
    lives: Vec<u64>,
    pub(super) disks: Vec<KeptTables>,
    queue: BTreeMap<(u64, u64), Item>,
    count: u64,
    wakes: Vec<u64>,
    rng: ChaCha12Rng,
    pub(super) loss_percent: u32,
    /// Nodes that datagrams do not reach.
    pub(super) deaf: BTreeSet<usize>,
    pub(super) events: Vec<(u64, usize, Event)>,
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            now_us: 1_000_000,
            nodes: (0..nodes).map(|_| None).collect(),
            lives: vec![0; nodes],
            disks: vec![KeptTables::default(); nodes],
            queue: BTreeMap::new(),
            count: 0,
            wakes: vec![u64::MAX; nodes],
            rng: ChaCha12Rng::from_seed([3; 32]),
            loss_percent: 0,
            deaf: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// All are members and attached.
    pub(super) fn attached(nodes: usize) -> Self {
        let mut world = Self::new(nodes);
        for n in 0..nodes {
            world.start(n);
        }
        world.run_for(3_000 * MS);
        for n in 0..nodes {
            world.attach(n);
        }
        world.run_for(3_000 * MS);
        for n in 0..nodes {
            assert_eq!(world.node(n).tables().attached(net()).count(), nodes, "{n}");
        }
        world
    }

    pub(super) fn now(&self) -> Now {
        Now { mono_us: self.now_us, unix_ms: EPOCH_MS + self.now_us / 1_000 }
    }

    pub(super) fn start(&mut self, n: usize) {
        self.lives[n] += 1;
        let generation = EPOCH_MS / 1_000 + self.lives[n];
        let contacts = (0..self.nodes.len().min(2)).filter(|other| *other != n).map(addr).collect();
        let mut seed = [u8::try_from(n & 255).unwrap(); 32];
        (seed[0], seed[1]) = (u8::try_from(n >> 8).unwrap(), u8::try_from(self.lives[n]).unwrap());
        let start = Start {
            cluster: cluster(),
            id: id(n),
            generation,
            addr: addr(n),
            record: record(n, generation),
            keyring: Keyring::new(1, [(1, [7; 32])]).unwrap(),
            anchors: fixture::anchor(cluster(), EPOCH_MS).into(),
            credential: fixture::credential(cluster(), id(n), Role::Worker, EPOCH_MS),
            decisions: Vec::new(),
            tables: self.disks[n].tables(),
            seed,
            contacts,
            config: Config::lan(),
        };
        self.nodes[n] = Some(Node::new(start, self.now()));
        self.wakes[n] = u64::MAX;
        self.flush(n);
    }

    pub(super) fn stop(&mut self, n: usize) {
        self.nodes[n] = None;
    }

    pub(super) fn node(&self, n: usize) -> &Node {
        self.nodes[n].as_ref().unwrap()
    }

    pub(super) fn node_mut(&mut self, n: usize) -> &mut Node {
        self.nodes[n].as_mut().unwrap()
    }

    fn submit(&mut self, after_us: u64, item: Item) {
        self.count += 1;
        self.queue.insert((self.now_us + after_us, self.count), item);
    }

    fn command(&mut self, n: usize, command: Command) {
        let now = self.now();
        self.node_mut(n).handle_command(now, command);
        self.flush(n);
    }

    pub(super) fn write(&mut self, n: usize, write: Write) -> Option<Sight> {
        let now = self.now();
        let sight = self.node_mut(n).handle_write(now, write).unwrap();
        self.flush(n);
        sight
    }

    pub(super) fn attach(&mut self, n: usize) -> Option<Sight> {
        let vtep = addr(n).ip();
        self.write(n, Write::Attach { network: net(), name: "front".to_owned(), vtep, mac: None })
    }

    pub(super) fn set(&mut self, n: usize, key: u8, value: Option<Endpoint>) -> Option<Sight> {
        self.write(n, Write::Set { network: net(), endpoints: vec![(endpoint(key), value)] })
    }

    pub(super) fn get(&self, n: usize, owner: usize, key: u8) -> Option<Endpoint> {
        self.node(n).tables().endpoint(EndpointName { network: net(), owner: id(owner), id: endpoint(key) })
    }

    pub(super) fn holders(&self, owner: usize, key: u8) -> usize {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].is_some() && self.get(*n, owner, key).is_some()).count()
    }

    pub(super) fn flush(&mut self, n: usize) {
        while let Some(effect) = self.nodes[n].as_mut().and_then(Node::poll_effect) {
            match effect {
                Effect::Send { to, bytes } => {
                    let [_, _, high, low] = match to.ip() {
                        IpAddr::V4(ip) => ip.octets(),
                        IpAddr::V6(_) => unreachable!(),
                    };
                    let to = usize::from(high) << 8 | usize::from(low);
                    let delay_us = self.rng.random_range(250..=350);
                    let is_lost = self.rng.random_range(0..100) < self.loss_percent || self.deaf.contains(&to);
                    if !is_lost {
                        self.submit(delay_us, Item::Datagram(to, bytes));
                    }
                }
                Effect::Exchange { id, to, request, .. } => {
                    let to = (0..self.nodes.len()).find(|n| addr(*n) == to).unwrap();
                    self.submit(1_000, Item::Request { from: n, to, id, request });
                }
                Effect::KeepTable { step, lives } => {
                    self.disks[n].keep(&step, &lives);
                    let now = self.now();
                    self.node_mut(n).handle_command(now, Command::Written(step));
                }
                Effect::Event(event) => self.events.push((self.now_us, n, event)),
                Effect::PersistGeneration(_) | Effect::Keep { .. } | Effect::Forget { .. } => {}
            }
        }
        let due_us = self.nodes[n].as_ref().and_then(Node::next_timeout_us).unwrap_or(u64::MAX).max(self.now_us);
        if due_us < self.wakes[n] {
            self.wakes[n] = due_us;
            self.submit(due_us - self.now_us, Item::Wake(n));
        }
    }

    pub(super) fn run_for(&mut self, span_us: u64) {
        let end_us = self.now_us + span_us;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end_us {
                break;
            }
            let ((at_us, _), item) = entry.remove_entry();
            self.now_us = at_us;
            self.happen(item);
        }
        self.now_us = end_us;
    }

    fn happen(&mut self, item: Item) {
        let now = self.now();
        match item {
            Item::Datagram(to, mut bytes) => {
                let Some(node) = &mut self.nodes[to] else { return };
                node.handle_datagram(now, &mut bytes);
                self.flush(to);
            }
            Item::Request { from, to, id: exchange, request } => {
                let peer = Peer { id: id(from), role: Role::Worker };
                let outcome = match &mut self.nodes[to] {
                    None => Err(ExchangeError::Refused),
                    Some(node) => node
                        .handle_request(now, peer, &request)
                        .map(|reply| (to, reply))
                        .map_err(|_| ExchangeError::Broken),
                };
                self.flush(to);
                self.submit(1_000, Item::Reply { to: from, id: exchange, outcome });
            }
            Item::Reply { to, id: exchange, outcome } => {
                let Some(node) = &mut self.nodes[to] else { return };
                let outcome = outcome
                    .as_ref()
                    .map(|(from, bytes)| (Peer { id: id(*from), role: Role::Worker }, bytes.as_slice()))
                    .map_err(|error| *error);
                node.handle_reply(now, exchange, outcome);
                self.flush(to);
            }
            Item::Wake(n) => {
                if self.wakes[n] == self.now_us {
                    self.wakes[n] = u64::MAX;
                }
                let Some(node) = &mut self.nodes[n] else { return };
                node.handle_timeout(now);
                self.flush(n);
            }
        }
    }

    /// Copies of steps that brought nothing new.
    pub(super) fn surplus(&self) -> u64 {
        self.nodes.iter().flatten().map(|node| node.stats().steps_known).sum()
    }
}

#[test]
fn a_write_reaches_everybody_once() {
    let mut world = World::attached(24);
    let before = world.surplus();
    world.set(3, 1, Some(web(5)));
    world.run_for(5 * MS);
    assert_eq!(world.holders(3, 1), 24);
    world.run_for(500 * MS);
    assert_eq!(world.surplus(), before);
    world.set(3, 1, None);
    world.run_for(5 * MS);
    assert_eq!(world.holders(3, 1), 0);
}

#[test]
fn what_is_lost_is_asked_for_after_a_notice() {
    let mut world = World::attached(8);
    world.deaf.insert(2);
    world.set(3, 1, Some(web(5)));
    world.run_for(10 * MS);
    world.deaf.clear();
    assert_eq!(world.get(2, 3, 1), None);
    world.run_for(190 * MS);
    assert_eq!(world.get(2, 3, 1), Some(web(5)));
}

#[test]
fn a_step_before_its_turn_draws_the_missing_one() {
    let mut world = World::attached(8);
    world.deaf.insert(2);
    world.set(3, 1, Some(web(5)));
    world.run_for(3 * MS);
    world.deaf.clear();
    world.set(3, 2, Some(web(6)));
    world.run_for(3 * MS);
    assert_eq!((world.get(2, 3, 1), world.node(2).tables().parked()), (None, 1));
    world.run_for(6 * MS);
    assert_eq!((world.get(2, 3, 1), world.get(2, 3, 2)), (Some(web(5)), Some(web(6))));
}

#[test]
fn many_writes_at_once_arrive_in_order() {
    let mut world = World::attached(8);
    for round in 0..20 {
        for n in 0..8 {
            world.set(n, round, Some(web(round)));
        }
        world.run_for(MS / 2);
    }
    world.run_for(20 * MS);
    for round in 0..20 {
        assert!((0..8).all(|owner| world.holders(owner, round) == 8), "{round}");
    }
}

#[test]
fn a_large_record_goes_by_stream() {
    let mut world = World::attached(12);
    world.set(0, 1, Some(large()));
    world.run_for(60 * MS);
    assert_eq!(world.holders(0, 1), 12);
    assert_eq!(world.get(7, 0, 1), Some(large()));
}

#[test]
fn what_is_written_while_a_large_record_is_fetched_is_fetched_next() {
    let mut world = World::attached(5);
    for n in 0..40 {
        let mut later = large();
        later.task = Some(format!("web.{n}"));
        world.set(0, 1, Some(later));
        world.run_for(MS / 4);
    }
    world.run_for(100 * MS);
    assert_eq!(world.holders(0, 1), 5);
    let task = |n| world.get(n, 0, 1).and_then(|endpoint| endpoint.task);
    for n in 1..5 {
        assert_eq!(task(n), task(0), "node {n}");
    }
}

#[test]
fn who_joins_or_attaches_has_everything_at_once() {
    let mut world = World::attached(6);
    world.set(0, 1, Some(web(5)));
    world.set(1, 1, Some(large()));
    world.run_for(100 * MS);
    // A newcomer: attachments when it has joined, endpoints as soon as it is attached.
    world.stop(5);
    world.disks[5] = KeptTables::default();
    world.run_for(100 * MS);
    world.events.clear();
    world.start(5);
    while !world.node(5).is_joined() {
        world.run_for(MS);
    }
    assert_eq!(world.node(5).tables().attached(net()).filter(|owner| *owner != id(5)).count(), 5);
    world.attach(5);
    world.run_for(8 * MS);
    assert_eq!((world.get(5, 0, 1), world.get(5, 1, 1)), (Some(web(5)), Some(large())));
    // One that was attached before: endpoints too when it has joined.
    world.stop(4);
    world.set(0, 2, Some(web(6)));
    world.run_for(100 * MS);
    world.start(4);
    while !world.node(4).is_joined() {
        world.run_for(MS / 4);
    }
    assert_eq!((world.get(4, 0, 2), world.get(4, 1, 1)), (Some(web(6)), Some(large())));
    // What it writes at once is lost on nobody.
    world.set(4, 9, Some(web(9)));
    world.run_for(300 * MS);
    assert_eq!(world.holders(4, 9), 6);
}

#[test]
fn whoever_detaches_holds_nothing_and_shows_nothing() {
    let mut world = World::attached(5);
    for n in 0..5 {
        world.set(n, 1, Some(web(5)));
    }
    world.run_for(20 * MS);
    world.write(2, Write::Detach(net()));
    assert_eq!(world.node(2).tables().endpoints(net()).count(), 0);
    world.run_for(20 * MS);
    assert_eq!((world.holders(2, 1), world.holders(1, 1)), (0, 4));
    world.attach(2);
    world.run_for(20 * MS);
    assert_eq!((world.holders(2, 1), world.holders(1, 1)), (0, 5));
}

#[test]
fn who_leaves_takes_its_tables_along_and_who_is_down_does_not() {
    let mut world = World::attached(5);
    world.set(2, 1, Some(web(5)));
    world.set(3, 1, Some(web(6)));
    world.run_for(20 * MS);
    world.stop(3);
    world.run_for(5_000 * MS);
    assert_eq!(world.holders(3, 1), 4);
    world.events.clear();
    world.command(2, Command::Leave);
    world.run_for(100 * MS);
    world.stop(2);
    assert_eq!(world.holders(2, 1), 0);
    let of_first: Vec<_> = world.events.iter().filter(|(_, n, _)| *n == 0).map(|(.., event)| event).collect();
    let at = of_first.iter().position(|event| matches!(event, Event::Member { cause: Cause::Left, .. })).unwrap();
    let [Event::Member { revision, .. }, Event::Table { revision: next, cause: Cause::Left, .. }, Event::Table { .. }] =
        of_first[at..at + 3]
    else {
        panic!("{at}")
    };
    assert_eq!(revision + 1, *next);
}

#[test]
fn a_restart_continues_and_a_wiped_disk_begins_anew() {
    let mut world = World::attached(5);
    let before = world.set(3, 1, Some(web(5))).unwrap();
    world.run_for(20 * MS);
    world.stop(3);
    world.run_for(50 * MS);
    world.start(3);
    world.run_for(1_000 * MS);
    assert_eq!(world.holders(3, 1), 5);
    let after = world.set(3, 2, Some(web(6))).unwrap();
    assert!(after.version > before.version);
    world.run_for(20 * MS);
    assert_eq!((world.holders(3, 1), world.holders(3, 2)), (5, 5));
    world.stop(3);
    world.disks[3] = KeptTables::default();
    world.run_for(50 * MS);
    world.start(3);
    world.run_for(5_000 * MS);
    assert_eq!((world.holders(3, 1), world.holders(3, 2)), (0, 0));
    assert!((0..5).all(|n| !world.node(n).tables().is_attached(net(), id(3))));
}

#[test]
fn nobody_writes_what_is_not_its_own() {
    let mut world = World::attached(4);
    let mine = world.set(1, 1, Some(web(5))).unwrap();
    world.run_for(20 * MS);
    let mut step = world.node(1).tables().step(mine.scope, id(1), Version::NONE).unwrap();
    step.lives = vec![Version { seq: mine.version.seq + 5, ..mine.version }];
    step.changes.clear();
    let now = world.now();
    let taken = world.node_mut(1).take_step(now, id(2), step.clone(), Cause::Gossip);
    assert_eq!(taken, Err(Refused::Foreign));
    world.flush(1);
    assert_eq!(world.get(1, 1, 1), Some(web(5)));
    // Others believe a relay until the owner speaks, which it does at once.
    let _ = world.node_mut(0).take_step(now, id(2), step.clone(), Cause::Gossip);
    world.run_for(300 * MS);
    assert_eq!(world.holders(1, 1), 4);
    let far = Version { generation: u64::MAX, seq: 1 };
    step.lives = vec![far];
    assert_eq!(world.node_mut(0).take_step(now, id(1), step, Cause::Gossip), Err(Refused::Malformed));
    let refused: Vec<_> = world.node(1).stats().steps_refused().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, [(Refused::Foreign, 1)]);
}

#[test]
fn who_has_seen_it_is_known_without_waiting_for_long() {
    let mut world = World::attached(6);
    world.write(5, Write::Detach(net()));
    world.run_for(20 * MS);
    world.deaf.insert(4);
    let sight = world.set(0, 1, Some(web(5))).unwrap();
    let now = world.now();
    let nonce = world.node_mut(0).handle_sighting(now, sight).unwrap();
    world.flush(0);
    world.run_for(15 * MS);
    assert_eq!(world.node(0).unconfirmed(nonce), Some(vec![id(4)]));
    assert_eq!(world.node(0).confirmed_by(nonce).unwrap().len(), 3);
    world.deaf.clear();
    world.run_for(200 * MS);
    let is_confirmed = |(_, n, event): &(u64, usize, Event)| (*n, event) == (0, &Event::Confirmed { nonce });
    assert!(world.events.iter().any(is_confirmed));
}

#[test]
fn conflicts_are_told_and_follow_who_is_down() {
    let mut world = World::attached(5);
    let first = usize::from(id(1) > id(2)) + 1;
    world.set(1, 1, Some(web(5)));
    world.set(2, 1, Some(web(5)));
    world.run_for(20 * MS);
    let addr = web(5).addresses[0].addr;
    let winners = |world: &World| -> Vec<NodeId> {
        let told = world.events.iter().filter(|(_, n, _)| *n == 0).filter_map(|(.., event)| match event {
            Event::Conflict { addr: at, new: Some(conflict), .. } if *at == addr => {
                conflict.endpoints.first().map(|(owner, _)| *owner)
            }
            _ => None,
        });
        told.collect()
    };
    assert_eq!(winners(&world), [id(first)]);
    world.stop(first);
    world.run_for(5_000 * MS);
    assert_eq!(winners(&world), [id(first), id(3 - first)]);
}

#[test]
fn what_could_not_be_kept_does_not_count() {
    let mut world = World::attached(3);
    let now = world.now();
    let write = |value| Write::Set { network: net(), endpoints: vec![(endpoint(1), value)] };
    let lost = world.node_mut(0).handle_write(now, write(Some(web(5)))).unwrap().unwrap();
    while world.node_mut(0).poll_effect().is_some() {}
    world.command(0, Command::Unwritten);
    assert_eq!(world.get(0, 0, 1), None);
    let again = world.write(0, write(Some(web(6)))).unwrap();
    assert_eq!(again, lost);
    world.run_for(20 * MS);
    assert_eq!(world.get(2, 0, 1), Some(web(6)));
}
