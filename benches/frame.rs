//! What sealing and opening a datagram costs: `cargo bench --bench frame`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use divan::counter::BytesCount;
use gossipd::record::{ClusterId, NodeId};
use gossipd::wire::{Channel, Keyring};

fn main() {
    divan::main();
}

fn channel(me: u8) -> Channel {
    let ring = Keyring::new(1, [(1, [0x11; 32])]).unwrap();
    Channel::new(ClusterId::from_bytes([0xC1; 16]), NodeId::from_bytes([me; 16]), ring, [me; 32])
}

const SIZES: [usize; 3] = [64, 256, 1_152];

#[divan::bench(args = SIZES)]
fn seal(bencher: divan::Bencher<'_, '_>, size: usize) {
    let mut sender = channel(1);
    let receiver = NodeId::from_bytes([2; 16]);
    let payload = vec![0x5a; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| sender.seal(receiver, &payload).unwrap());
}

#[divan::bench(args = SIZES)]
fn seal_and_open(bencher: divan::Bencher<'_, '_>, size: usize) {
    let mut sender = channel(1);
    let mut receiver = channel(2);
    let payload = vec![0x5a; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let mut sealed = sender.seal(NodeId::from_bytes([2; 16]), &payload).unwrap();
        receiver.open(&mut sealed).unwrap().payload.len()
    });
}

#[divan::bench]
fn refuse_a_forged_one(bencher: divan::Bencher<'_, '_>) {
    let mut receiver = channel(2);
    let mut sealed = channel(1).seal(NodeId::from_bytes([2; 16]), &[0x5a; 256]).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    bencher.bench_local(|| receiver.open(&mut sealed.clone()).is_err());
}
