//! The tables of a few nodes, and every bad thing that may happen to the steps between them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::record::network::tests::web;
use crate::wire::codec;
use crate::wire::table::{Mark, Push, TableReply, TableRequest, decode_pushes};

pub(super) fn node(n: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(n).unwrap() + 1; 16])
}

pub(super) fn net(n: u8) -> NetworkId {
    NetworkId::from_bytes([n; 16])
}

pub(super) fn id(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 16])
}

use crate::record::network::EndpointId;

/// One content that nothing else has.
fn unique(n: u32) -> Endpoint {
    Endpoint { task: Some(format!("t{n}")), ..web(5) }
}

fn vtep() -> (IpAddr, Option<crate::record::network::Mac>) {
    ([10, 130, 0, 1].into(), None)
}

#[derive(Debug, Clone, Copy)]
enum Disk {
    Kept,
    Older,
    Wiped,
}

#[derive(Debug, Clone)]
enum Op {
    Attach(usize, u8),
    Detach(usize, u8),
    Set(usize, u8, Vec<(u8, bool)>),
    Replace(usize, u8, Vec<u8>),
    Deliver(usize, bool),
    Lose(usize),
    Sync(usize, usize),
    Cut(u8),
    Backup(usize),
    Restart(usize, Disk),
    Forget(usize, usize),
    Tidy(usize),
}

fn op(nodes: usize, with_older_disks: bool) -> impl Strategy<Value = Op> {
    let node = move || 0..nodes;
    let net = || 1_u8..=2;
    let disk = prop_oneof![
        3 => Just(Disk::Kept),
        1 => Just(Disk::Wiped),
        u32::from(with_older_disks) => Just(Disk::Older),
    ];
    prop_oneof![
        3 => (node(), net()).prop_map(|(n, net)| Op::Attach(n, net)),
        1 => (node(), net()).prop_map(|(n, net)| Op::Detach(n, net)),
        12 => (node(), net(), proptest::collection::vec((0_u8..5, any::<bool>()), 1..4))
            .prop_map(|(n, net, changes)| Op::Set(n, net, changes)),
        1 => (node(), net(), proptest::collection::vec(0_u8..5, 0..4)).prop_map(|(n, net, keys)| Op::Replace(n, net, keys)),
        20 => (any::<usize>(), any::<bool>()).prop_map(|(at, again)| Op::Deliver(at, again)),
        4 => any::<usize>().prop_map(Op::Lose),
        5 => (node(), node()).prop_map(|(a, b)| Op::Sync(a, b)),
        2 => any::<u8>().prop_map(Op::Cut),
        1 => node().prop_map(Op::Backup),
        2 => (node(), disk).prop_map(|(n, disk)| Op::Restart(n, disk)),
        1 => (node(), node()).prop_map(|(a, b)| Op::Forget(a, b)),
        1 => node().prop_map(Op::Tidy),
    ]
}

/// Own tables as they are on a disk.
type Saved = Vec<(Scope, Vec<Version>, Vec<(Key, Body)>)>;

fn save(tables: &Tables) -> Saved {
    let own = |scope| {
        let (lives, records) = tables.own(scope);
        (scope, lives.to_vec(), records.map(|(key, body)| (key, body.clone())).collect())
    };
    tables.scopes().map(own).filter(|(_, lives, _)| !lives.is_empty()).collect()
}

/// A node with what its readers have been told.
struct Replica {
    tables: Tables,
    generation: u64,
    backup: Saved,
    shown: BTreeMap<EndpointName, Arc<Endpoint>>,
    attached: BTreeMap<(NodeId, NetworkId), Arc<Attachment>>,
    /// Contents that were shown and then replaced or deleted by their owner: not to be seen again, unless an owner may
    /// come back with an older disk.
    dead: BTreeSet<String>,
    mourns: bool,
    versions: BTreeMap<(Scope, NodeId), Version>,
}

impl Replica {
    fn new(me: usize, generation: u64, nodes: usize) -> Self {
        let mut tables = Tables::new(node(me));
        (0..nodes).for_each(|n| tables.know(node(n)));
        Self {
            tables,
            generation,
            backup: Vec::new(),
            shown: BTreeMap::new(),
            attached: BTreeMap::new(),
            dead: BTreeSet::new(),
            mourns: true,
            versions: BTreeMap::new(),
        }
    }

    /// Readers apply each change once: what they had is what the change says that they had.
    fn tell(&mut self, outcome: &Outcome, is_the_owners_will: bool) {
        for change in &outcome.changes {
            match change {
                Changed::Attachment { owner, network, old, new } => {
                    let place = (*owner, *network);
                    let had = match new {
                        Some(new) => self.attached.insert(place, Arc::clone(new)),
                        None => self.attached.remove(&place),
                    };
                    assert_eq!(had, *old);
                }
                Changed::Endpoint { name, old, new } => {
                    let had = match new {
                        Some(new) => self.shown.insert(*name, Arc::clone(new)),
                        None => self.shown.remove(name),
                    };
                    assert_eq!(had, *old);
                    let content = |endpoint: &Arc<Endpoint>| endpoint.task.clone().unwrap();
                    if let Some(new) = new {
                        assert!(!self.dead.contains(&content(new)), "{new:?} came back from the dead");
                    }
                    if is_the_owners_will && self.mourns {
                        self.dead.extend(old.as_ref().map(content));
                    }
                }
            }
        }
    }
}

struct World {
    replicas: Vec<Replica>,
    cut: u8,
    under_way: Vec<(usize, usize, Arc<Step>)>,
    /// What each version of each table has in it.
    truth: BTreeMap<(Scope, NodeId, Version), u64>,
    count: u32,
}

impl World {
    fn new(nodes: usize) -> Self {
        let replicas = (0..nodes).map(|n| Replica::new(n, 100, nodes)).collect();
        Self { replicas, cut: 0, under_way: Vec::new(), truth: BTreeMap::new(), count: 0 }
    }

    fn talk(&self, a: usize, b: usize) -> bool {
        a != b && (self.cut >> a) & 1 == (self.cut >> b) & 1
    }

    fn wrote(&mut self, n: usize, outcome: Outcome) {
        self.replicas[n].tell(&outcome, true);
        self.pass_on(n, &outcome);
    }

    fn pass_on(&mut self, from: usize, outcome: &Outcome) {
        for step in &outcome.news {
            let others = (0..self.replicas.len()).filter(|to| *to != from);
            self.under_way.extend(others.map(|to| (from, to, Arc::clone(step))));
        }
        // Old ones are lost.
        let surplus = self.under_way.len().saturating_sub(60);
        self.under_way.drain(..surplus);
    }

    fn hear(&mut self, from: usize, to: usize, step: &Step) {
        let source = if step.owner == node(from) { Source::Owner } else { Source::Relay };
        // As it is on the wire.
        let mut bytes = Vec::new();
        Push::append(None, &codec::encode(step), &mut bytes);
        let Push { step, .. } = decode_pushes(&bytes).unwrap().remove(0);
        let (scope, version) = (step.scope, step.to());
        match self.replicas[to].tables.apply(source, step) {
            Ok(outcome) => {
                self.replicas[to].tell(&outcome, true);
                self.pass_on(to, &outcome);
            }
            Err(Refused::Foreign) => self.reassert(to, scope, version),
            Err(refused) => assert!(matches!(refused, Refused::NotAttached | Refused::UnknownOwner), "{refused:?}"),
        }
    }

    fn reassert(&mut self, n: usize, scope: Scope, heard: Version) {
        let generation = self.replicas[n].generation;
        let outcome = self.replicas[n].tables.reassert(generation, scope, heard);
        self.wrote(n, outcome);
    }

    /// One comparison, as it goes over the wire. Did it find anything?
    fn sync(&mut self, a: usize, b: usize) -> bool {
        let ask = TableRequest::Compare(self.replicas[a].tables.summaries(node(b)));
        let Ok(TableRequest::Compare(summaries)) = TableRequest::from_bytes(&codec::encode(&ask)) else { panic!() };
        let answer = TableReply::Differences(self.replicas[b].tables.differences(node(a), &summaries));
        let Ok(TableReply::Differences(listings)) = TableReply::from_bytes(&codec::encode(&answer)) else { panic!() };
        let resolved = self.replicas[a].tables.resolve(&listings);
        assert_eq!(resolved.disputed, []);
        let (steps, more) = self.replicas[b].tables.serve(&resolved.wants);
        assert!(!more);
        let found = !resolved.foreign.is_empty() || !steps.is_empty() || !resolved.steps.is_empty();
        for step in resolved.steps {
            self.hear(a, b, &step);
        }
        for step in steps {
            self.hear(b, a, &step);
        }
        for (scope, version) in resolved.foreign {
            self.reassert(a, scope, version);
        }
        found
    }

    fn restart(&mut self, n: usize, disk: Disk) {
        let nodes = self.replicas.len();
        let Replica { tables, generation, backup, .. } = &self.replicas[n];
        let saved = match disk {
            Disk::Kept => save(tables),
            Disk::Older => backup.clone(),
            Disk::Wiped => Vec::new(),
        };
        let mut fresh = Replica::new(n, generation + 1, nodes);
        for (scope, lives, records) in saved.clone() {
            fresh.tables.restore(scope, lives, records).unwrap();
        }
        // Readers of a new life begin with what there is.
        fresh.shown =
            fresh.tables.endpoints_of(node(n)).map(|(name, body)| (name, body.endpoint().unwrap().into())).collect();
        fresh.attached =
            fresh.tables.attachments().map(|(owner, net, attachment)| ((owner, net), attachment.into())).collect();
        fresh.backup = saved;
        self.replicas[n] = fresh;
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Attach(n, network) => {
                let Replica { tables, generation, .. } = &mut self.replicas[n];
                let outcome = tables.attach(*generation, net(network), "net".to_owned(), vtep()).unwrap();
                self.wrote(n, outcome);
            }
            Op::Detach(n, network) => {
                let Replica { tables, generation, .. } = &mut self.replicas[n];
                if let Ok(outcome) = tables.detach(*generation, net(network)) {
                    // Others' endpoints are only not seen from here any more.
                    self.replicas[n].tell(&outcome, false);
                    self.pass_on(n, &outcome);
                }
            }
            Op::Set(n, network, changes) => {
                let count = &mut self.count;
                let mut next = || {
                    *count += 1;
                    unique(*count)
                };
                let changes: Vec<_> = changes.into_iter().map(|(key, set)| (id(key), set.then(&mut next))).collect();
                let Replica { tables, generation, .. } = &mut self.replicas[n];
                if let Ok(outcome) = tables.set_endpoints(*generation, net(network), changes) {
                    self.wrote(n, outcome);
                }
            }
            Op::Replace(n, network, keys) => {
                self.count += 1;
                let endpoints =
                    keys.into_iter().map(|key| (id(key), unique(self.count * 1_000 + u32::from(key)))).collect();
                let Replica { tables, generation, .. } = &mut self.replicas[n];
                if let Ok(outcome) = tables.replace_endpoints(*generation, net(network), endpoints) {
                    self.wrote(n, outcome);
                }
            }
            Op::Deliver(at, again) if !self.under_way.is_empty() => {
                let at = at % self.under_way.len();
                let (from, to, step) = self.under_way[at].clone();
                if !again {
                    self.under_way.swap_remove(at);
                }
                if self.talk(from, to) {
                    self.hear(from, to, &step);
                }
            }
            Op::Lose(at) if !self.under_way.is_empty() => {
                let at = at % self.under_way.len();
                self.under_way.swap_remove(at);
            }
            Op::Sync(a, b) if self.talk(a, b) => drop(self.sync(a, b)),
            Op::Cut(cut) => self.cut = cut,
            Op::Backup(n) => self.replicas[n].backup = save(&self.replicas[n].tables),
            Op::Restart(n, disk) => self.restart(n, disk),
            Op::Forget(a, b) if a != b => {
                let outcome = self.replicas[a].tables.forget(node(b));
                self.replicas[a].tell(&outcome, false);
                self.replicas[a].tables.know(node(b));
            }
            Op::Tidy(n) => self.replicas[n].tables.tidy(),
            Op::Deliver(..) | Op::Lose(_) | Op::Sync(..) | Op::Forget(..) => {}
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        for replica in &mut self.replicas {
            let tables = &replica.tables;
            let me = tables.me;
            for scope in tables.scopes() {
                for (owner, ledger) in &tables.shelf(scope).unwrap().ledgers {
                    let version = ledger.version();
                    if version != Version::NONE {
                        let content = *self.truth.entry((scope, *owner, version)).or_insert(ledger.hash());
                        assert_eq!(content, ledger.hash(), "two contents of {scope:?} of {owner} at {version:?}");
                        let before = replica.versions.insert((scope, *owner), version);
                        assert!(before <= Some(version), "{scope:?} of {owner} fell from {before:?} to {version:?}");
                    }
                }
                let counted = tables.shelf(scope).unwrap().ledgers.values().map(|ledger| ledger.counted);
                assert_eq!(tables.digest(scope), counted.fold(0, u128::wrapping_add));
            }
            // Only networks that this node is attached to.
            let own: Vec<_> = tables.attachments().filter(|(owner, ..)| *owner == me).map(|(_, net, _)| net).collect();
            assert_eq!(tables.networks().collect::<Vec<_>>(), own);
            // What readers were told is what is there.
            let listed: BTreeMap<_, _> = tables
                .networks()
                .flat_map(|network| tables.endpoints(network))
                .map(|(name, body)| (name, Arc::new(body.endpoint().unwrap())))
                .collect();
            assert_eq!(listed, replica.shown);
            let listed: BTreeMap<_, _> = tables
                .attachments()
                .map(|(owner, network, attachment)| ((owner, network), Arc::new(attachment)))
                .collect();
            assert_eq!(listed, replica.attached);
        }
        for (a, b) in (0..self.replicas.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let (a, b) = (&self.replicas[a].tables, &self.replicas[b].tables);
            for scope in a.scopes().filter(|scope| b.shelf(*scope).is_some() && a.digest(*scope) == b.digest(*scope)) {
                assert_eq!(counted(a, scope), counted(b, scope), "equal digests of {scope:?}");
            }
        }
    }

    /// When everybody talks to everybody, everybody has what the owners have.
    fn converge(&mut self) {
        self.cut = 0;
        self.under_way.clear();
        let nodes = self.replicas.len();
        for round in 0.. {
            assert!(round < 6, "still different");
            let mut found = false;
            for (a, b) in (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b) {
                found |= self.sync(a, b);
                self.check();
            }
            if !found {
                break;
            }
        }
        for (a, b) in (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            let (reader, owner) = (&self.replicas[a].tables, &self.replicas[b].tables);
            assert_eq!(reader.digest_with(node(b)), owner.digest_with(node(a)));
            for scope in owner.scopes().filter(|scope| reader.shelf(*scope).is_some()) {
                let of = |tables: &Tables| {
                    let all = tables.ledger(scope, node(b)).into_iter().flat_map(Ledger::iter);
                    all.map(|(key, body)| (key, body.clone())).collect::<Vec<_>>()
                };
                assert_eq!(of(reader), of(owner), "{scope:?} of {b} at {a}");
            }
            // Of networks that the owner is not attached to nothing is shown.
            let elsewhere = self.replicas[a].shown.keys().filter(|name| name.owner == node(b));
            assert_eq!(elsewhere.filter(|name| owner.shelf(Scope::Network(name.network)).is_none()).count(), 0);
        }
    }
}

fn counted(tables: &Tables, scope: Scope) -> Vec<(Mark, Vec<(Key, Body)>)> {
    let ledgers = tables.shelf(scope).unwrap().ledgers.iter().filter(|(_, ledger)| ledger.counted != 0);
    ledgers
        .map(|(owner, ledger)| (ledger.mark(*owner), ledger.iter().map(|(key, body)| (key, body.clone())).collect()))
        .collect()
}

fn run(nodes: usize, ops: Vec<Op>, with_older_disks: bool) {
    let mut world = World::new(nodes);
    for op in ops {
        world.replicas.iter_mut().for_each(|replica| replica.mourns = !with_older_disks);
        world.carry_out(op);
        world.check();
    }
    world.converge();
}

fn cases() -> ProptestConfig {
    let cases = option_env!("TABLE_CASES").and_then(|cases| cases.parse().ok()).unwrap_or(150);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// Loss, duplicates, reordering, partitions, restarts with and without a disk: one version has one content, nothing
    /// falls, nothing comes back, readers are told exactly what is there, and all agree in the end.
    #[test]
    fn tables_converge_and_nothing_comes_back(
        nodes in 3_usize..=5,
        ops in proptest::collection::vec(op(5, false), 1..150),
    ) {
        let ops = ops.into_iter().map(|op| within(op, nodes)).collect();
        run(nodes, ops, false);
    }

    /// An owner that comes back with an older disk is followed by everybody.
    #[test]
    fn an_older_disk_is_followed(nodes in 3_usize..=4, ops in proptest::collection::vec(op(5, true), 1..100)) {
        let ops = ops.into_iter().map(|op| within(op, nodes)).collect();
        run(nodes, ops, true);
    }

    /// In whatever order, however often: the same.
    #[test]
    fn steps_commute_and_repeat(
        writes in proptest::collection::vec((0_u8..6, any::<bool>()), 1..30),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let (mut owner, mut reader) = (Replica::new(0, 100, 2), Replica::new(1, 100, 2));
        let mut steps = Vec::new();
        for tables in [&mut owner.tables, &mut reader.tables] {
            steps.extend(tables.attach(100, net(1), "net".to_owned(), vtep()).unwrap().news);
        }
        for (n, (key, set)) in writes.into_iter().enumerate() {
            let endpoint = set.then(|| unique(u32::try_from(n).unwrap()));
            steps.extend(owner.tables.set_endpoints(100, net(1), [(id(key), endpoint)]).unwrap().news);
        }
        let steps: Vec<_> = steps.into_iter().filter(|step| step.owner == node(0)).collect();
        for at in order {
            reader.tables.apply(Source::Relay, (**at.get(&steps)).clone()).unwrap();
        }
        for step in steps.iter().rev() {
            let _ = reader.tables.apply(Source::Relay, (**step).clone()).unwrap();
        }
        let scope = Scope::Network(net(1));
        // Whatever was parked over the bound is fetched as one difference; and a difference is the same as the steps.
        if let Some(rest) = owner.tables.step(scope, node(0), reader.tables.version(scope, node(0))) {
            reader.tables.apply(Source::Owner, rest).unwrap();
        }
        prop_assert_eq!(reader.tables.version(scope, node(0)), owner.tables.version(scope, node(0)));
        prop_assert_eq!(counted(&reader.tables, scope), counted(&owner.tables, scope));
        prop_assert_eq!(reader.tables.parked(), 0);
    }

    /// From any version, the difference leads to the same as all steps one by one, also when it overlaps what is there.
    #[test]
    fn a_difference_is_the_same_as_the_steps(
        writes in proptest::collection::vec((0_u8..6, any::<bool>(), 0_u64..2), 2..40),
        from: prop::sample::Index,
        base: prop::sample::Index,
    ) {
        let who = (node(0), Scope::Attachments);
        let (mut own, mut copies, mut generation) = (Ledger::default(), Vec::new(), 100);
        for (n, (key, set, lives)) in writes.into_iter().enumerate() {
            generation += lives;
            let body = set.then(|| Body::of_endpoint(&unique(u32::try_from(n).unwrap())).unwrap());
            let Some(step) = own.write(who, generation, Version::NONE, vec![Change { key: id(key).into(), body }]) else {
                continue;
            };
            own.take(&step);
            let mut copy = Ledger::default();
            copy.take(&own.step(who.0, who.1, Version::NONE).unwrap());
            copies.push(copy);
        }
        if !copies.is_empty() {
            let (from, base) = (from.index(copies.len()), base.index(copies.len()));
            let (held, since) = (from.max(base), copies[from.min(base)].version());
            if let Some(step) = own.step(who.0, who.1, since) {
                step.check().unwrap();
                let copy = &mut copies[held];
                if copy.fit(&step) != Fit::Old {
                    copy.take(&step);
                }
                prop_assert_eq!((copy.version(), copy.hash()), (own.version(), own.hash()));
                prop_assert_eq!(copy.usage(), own.usage());
            }
        }
    }
}

fn within(op: Op, nodes: usize) -> Op {
    match op {
        Op::Attach(n, net) => Op::Attach(n % nodes, net),
        Op::Detach(n, net) => Op::Detach(n % nodes, net),
        Op::Set(n, net, changes) => Op::Set(n % nodes, net, changes),
        Op::Replace(n, net, keys) => Op::Replace(n % nodes, net, keys),
        Op::Sync(a, b) => Op::Sync(a % nodes, b % nodes),
        Op::Backup(n) => Op::Backup(n % nodes),
        Op::Restart(n, disk) => Op::Restart(n % nodes, disk),
        Op::Forget(a, b) => Op::Forget(a % nodes, b % nodes),
        Op::Tidy(n) => Op::Tidy(n % nodes),
        Op::Deliver(..) | Op::Lose(_) | Op::Cut(_) => op,
    }
}
