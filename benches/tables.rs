//! What the tables cost: `cargo bench --bench tables`. The column of allocations says how much memory records take.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use divan::counter::ItemsCount;
use gossipd::node::tables::{Source, Tables};
use gossipd::record::network::{Cidr, Endpoint, EndpointId, EndpointName, NetworkId, Service};
use gossipd::record::{NodeId, Version};
use gossipd::wire::table::{Body, Scope, Step};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<std::alloc::System> = divan::AllocProfiler::system();

const GENERATION: u64 = 1_780_000_000;
const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);
const SCOPE: Scope = Scope::Network(NETWORK);
const OWNERS: u32 = 1_000;
const RECORDS_EACH: u32 = 100;

fn main() {
    divan::main();
}

/// Bytes as good as random.
fn scattered(n: u32) -> [u8; 16] {
    let mix = |salt: u64| (u64::from(n) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).to_be_bytes();
    *[mix(1), mix(77)].as_flattened().first_chunk().unwrap()
}

fn owner(n: u32) -> NodeId {
    NodeId::from_bytes(scattered(n))
}

fn id(n: u32) -> EndpointId {
    EndpointId::from_bytes(scattered(n ^ 0x5555))
}

fn endpoint(owner: u32, n: u32, version: u32) -> Endpoint {
    let [.., a, b] = (owner * RECORDS_EACH + n).to_be_bytes();
    let net = u8::try_from(owner / 600).unwrap();
    Endpoint {
        service: Some(Service {
            id: format!("service{:018}", n % 50),
            name: format!("shop_web{}", n % 50),
            vip_v4: Some([10, 200, 0, u8::try_from(n % 50).unwrap()].into()),
            vip_v6: None,
        }),
        task: Some(format!("shop_web{}.{owner}.{version}", n % 50)),
        addresses: vec![Cidr { addr: [10, net, a, b].into(), prefix: 8 }],
        ..Endpoint::default()
    }
}

/// One owner's own tables, and the steps that led there.
fn write(n: u32, records: u32) -> (Tables, Vec<Arc<Step>>) {
    let mut tables = Tables::new(owner(n));
    let mut steps =
        tables.attach(GENERATION, NETWORK, "front".to_owned(), ([10, 130, 0, 1].into(), None)).unwrap().news;
    let all = (0..records).map(|record| (id(record), Some(endpoint(n, record, 1))));
    steps.extend(tables.set_endpoints(GENERATION, NETWORK, all).unwrap().news);
    (tables, steps)
}

fn reader() -> Tables {
    let mut tables = Tables::new(NodeId::from_bytes([255; 16]));
    tables.attach(GENERATION, NETWORK, "front".to_owned(), ([10, 130, 0, 2].into(), None)).unwrap();
    tables
}

fn steps() -> Vec<Step> {
    (0..OWNERS).flat_map(|n| write(n, RECORDS_EACH).1).map(Arc::unwrap_or_clone).collect()
}

fn take_all(steps: Vec<Step>) -> Tables {
    let mut tables = reader();
    (0..OWNERS).for_each(|n| tables.know(owner(n)));
    for step in steps {
        tables.apply(Source::Relay, step).unwrap();
    }
    tables
}

/// 100,000 records of 1,000 owners. Memory for each beyond its payload: maximum allocated here, less that of
/// `payload_of_100_000`, over 100,000.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn hold_100_000(bencher: divan::Bencher<'_, '_>) {
    let steps = steps();
    // A copy of each body, as from the wire: what is held is what is allocated here.
    let copied = || {
        let copy = |step: &Step| {
            let mut step = step.clone();
            for change in &mut step.changes {
                change.body = change.body.as_ref().map(|body| Body::from_bytes(body.as_bytes()));
            }
            step
        };
        steps.iter().map(copy).collect::<Vec<_>>()
    };
    bencher.counter(ItemsCount::new(OWNERS * RECORDS_EACH)).bench_local(|| take_all(copied()));
}

/// The bodies alone, in the steps that bring them.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn payload_of_100_000(bencher: divan::Bencher<'_, '_>) {
    let steps = steps();
    bencher.bench_local(|| {
        let bodies = steps.iter().flat_map(|step| &step.changes).filter_map(|change| change.body.as_ref());
        bodies.map(|body| body.as_bytes().to_vec().into_boxed_slice()).collect::<Vec<_>>()
    });
}

/// One change of one record among 100,000.
#[divan::bench]
fn apply(bencher: divan::Bencher<'_, '_>) {
    let mut tables = take_all(steps());
    let (mut own, _) = write(7, RECORDS_EACH);
    let mut version = 1;
    bencher
        .with_inputs(|| {
            version += 1;
            let change = (id(version % RECORDS_EACH), Some(endpoint(7, version % RECORDS_EACH, version)));
            let step = own.set_endpoints(GENERATION, NETWORK, [change]).unwrap().news.remove(0);
            (*step).clone()
        })
        .bench_local_values(|step| tables.apply(Source::Relay, step).unwrap());
}

/// One write by the owner.
#[divan::bench]
fn write_own(bencher: divan::Bencher<'_, '_>) {
    let (mut own, _) = write(7, RECORDS_EACH);
    let mut version = 1;
    bencher.bench_local(|| {
        version += 1;
        let change = (id(version % RECORDS_EACH), Some(endpoint(7, version % RECORDS_EACH, version)));
        own.set_endpoints(GENERATION, NETWORK, [change]).unwrap()
    });
}

/// What rides on every greeting.
#[divan::bench]
fn digest(bencher: divan::Bencher<'_, '_>) {
    let tables = take_all(steps());
    bencher.bench_local(|| tables.digest_with(owner(7)));
}

/// What a comparison begins with: 1,000 owners in 256 parts.
#[divan::bench]
fn summary(bencher: divan::Bencher<'_, '_>) {
    let tables = take_all(steps());
    bencher.bench_local(|| tables.summaries(owner(7)));
}

/// The difference of ten writes, of a table of 10,000 records.
#[divan::bench]
fn delta(bencher: divan::Bencher<'_, '_>) {
    let (mut own, _) = write(7, 10_000);
    let since = own.version(SCOPE, owner(7));
    for n in 0..10 {
        own.set_endpoints(GENERATION, NETWORK, [(id(n * 100), Some(endpoint(7, n, 2)))]).unwrap();
    }
    bencher.bench_local(|| own.step(SCOPE, owner(7), since).unwrap());
}

/// All of a table of 10,000 records, to tell and to take in.
#[divan::bench]
fn snapshot(bencher: divan::Bencher<'_, '_>) {
    let (own, _) = write(7, 10_000);
    bencher.bench_local(|| own.step(SCOPE, owner(7), Version::NONE).unwrap());
}

#[divan::bench]
fn take_snapshot(bencher: divan::Bencher<'_, '_>) {
    let (own, _) = write(7, 10_000);
    let steps: Vec<_> =
        [Scope::Attachments, SCOPE].map(|scope| own.step(scope, owner(7), Version::NONE).unwrap()).into();
    bencher
        .with_inputs(|| {
            let mut tables = reader();
            tables.know(owner(7));
            (tables, steps.clone())
        })
        .bench_local_values(|(mut tables, steps)| {
            for step in steps {
                tables.apply(Source::Relay, step).unwrap();
            }
            tables
        });
}

/// One endpoint among 100,000, by name and by address.
#[divan::bench]
fn lookup(bencher: divan::Bencher<'_, '_>) {
    let tables = take_all(steps());
    let name = EndpointName { network: NETWORK, owner: owner(7), id: id(7) };
    bencher.bench_local(|| tables.endpoint(name).unwrap());
}

#[divan::bench]
fn lookup_by_address(bencher: divan::Bencher<'_, '_>) {
    let tables = take_all(steps());
    let addr = endpoint(7, 7, 1).addresses.first().unwrap().addr;
    bencher.bench_local(|| tables.holders(NETWORK, addr, |_| false));
}
