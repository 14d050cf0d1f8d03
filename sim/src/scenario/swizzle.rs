//! A random subset of everything, for ten virtual minutes: swizzle, then calm.

use gossipd::record::{Availability, Role};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha12Rng;

use crate::luck::{Luck, Purpose};
use crate::plan::{Decree, Disk, Effect, Fault, Flap, Path, Ruling, What};
use crate::writing::{Deed, NETWORK, Writing};

const SECOND_US: u64 = 1_000_000;
/// When faults begin, and when the last of them ends.
const FROM_US: u64 = 10 * SECOND_US;
const TO_US: u64 = 610 * SECOND_US;
/// Kinds of faults to choose from.
const KINDS: u32 = 16;
/// Faults of a run.
const FAULTS: std::ops::RangeInclusive<u64> = 6..=24;
/// Decisions of a run.
const DECREES: std::ops::RangeInclusive<u64> = 4..=32;
/// Kinds of decisions to choose from.
const DECREE_KINDS: u32 = 13;
/// The first so many hosts are known to all.
const CONTACTS: usize = 3;
/// Writings of a run, but for the first.
const WRITINGS: std::ops::RangeInclusive<u64> = 6..=30;
/// Numbers below are taken by faults.
const FIRST_WRITING: u64 = 1 << 33;
/// Numbers below are taken by written faults.
const FIRST_ID: u64 = 1 << 32;

/// The faults of the run with this luck on so many nodes.
pub(super) fn faults(luck: Luck, nodes: usize) -> Vec<Fault> {
    let mut rng = luck.stream(Purpose::Swizzle);
    let count = rng.random_range(FAULTS);
    (0..count).map(|n| fault(FIRST_ID + n, &mut rng, nodes)).collect()
}

/// What is decided in that run meanwhile, by managers mostly, and by nodes about themselves.
pub(super) fn decrees(luck: Luck, nodes: usize, managers: usize) -> Vec<Decree> {
    let mut rng = luck.named(Purpose::Swizzle, "decrees");
    let count = rng.random_range(DECREES);
    (0..count).map(|_| decree(&mut rng, nodes, managers)).collect()
}

/// What owners write meanwhile: all have some endpoints, and then a few of them write now and then, attach and detach.
pub(super) fn writings(luck: Luck, nodes: usize) -> Vec<Writing> {
    let mut rng = luck.named(Purpose::Swizzle, "writings");
    let count = rng.random_range(WRITINGS);
    let all = Deed::Endpoints { count: 4, slots: 4, gone_percent: 0, bytes: 0 };
    let first = Writing {
        id: FIRST_WRITING,
        at_us: FROM_US / 2,
        until_us: None,
        every_us: 0,
        by: (0..nodes).collect(),
        network: NETWORK,
        deed: all,
    };
    std::iter::once(first).chain((1..=count).map(|n| writing(FIRST_WRITING + n, &mut rng, nodes))).collect()
}

fn writing(id: u64, rng: &mut ChaCha12Rng, nodes: usize) -> Writing {
    let at_us = rng.random_range(FROM_US..TO_US);
    let mut by: Vec<usize> = (0..nodes).collect();
    by.shuffle(rng);
    by.truncate(rng.random_range(1..=nodes.min(4)));
    let count = rng.random_range(1..=4);
    let bytes = if rng.random_range(0..12_u32) == 0 { 4_000 } else { 0 };
    let deed = match rng.random_range(0..8_u32) {
        0 => Deed::Detach,
        1 | 2 => Deed::Attach,
        _ => Deed::Endpoints { count, slots: 8, gone_percent: rng.random_range(10..90), bytes },
    };
    let lasts = matches!(deed, Deed::Endpoints { .. }) && rng.random_range(0..2_u32) == 0;
    let until_us = lasts.then(|| (at_us + rng.random_range(SECOND_US..60 * SECOND_US)).min(TO_US));
    let every_us = rng.random_range(20_000..2 * SECOND_US);
    let network = if rng.random_range(0..4_u32) == 0 { NETWORK + 1 } else { NETWORK };
    Writing { id, at_us, until_us, every_us, by, network, deed }
}

fn decree(rng: &mut ChaCha12Rng, nodes: usize, managers: usize) -> Decree {
    let at_us = rng.random_range(FROM_US..TO_US);
    let mut by = rng.random_range(0..managers.max(1));
    let mut about = rng.random_range(0..nodes);
    let ruling = match rng.random_range(0..DECREE_KINDS) {
        0..=4 => {
            let all = [Availability::Active, Availability::Pause, Availability::Drain];
            Ruling::Availability { to: *all.choose(rng).unwrap_or(&Availability::Drain) }
        }
        5..=7 => {
            let value = rng.random_range(0..4_u32);
            Ruling::Label { key: "zone".to_owned(), value: (value > 0).then(|| value.to_string()) }
        }
        8 => Ruling::Role { to: Role::Manager },
        9 => {
            about = rng.random_range(0..managers.max(1));
            Ruling::Role { to: Role::Worker }
        }
        10 => {
            // Those whose addresses everybody is given stay.
            about = rng.random_range(CONTACTS.min(nodes - 1)..nodes);
            Ruling::Remove
        }
        _ => {
            by = about;
            Ruling::Availability { to: Availability::Drain }
        }
    };
    Decree { at_us, by: vec![by], about: vec![about], reason: None, confirm: rng.random_range(0..2_u32) == 0, ruling }
}

fn fault(id: u64, rng: &mut ChaCha12Rng, nodes: usize) -> Fault {
    let at_us = rng.random_range(FROM_US..TO_US - 10 * SECOND_US);
    let longest_us = (TO_US - at_us).min(120 * SECOND_US);
    let until_us = at_us + rng.random_range(SECOND_US..=longest_us);
    let mut order: Vec<usize> = (0..nodes).collect();
    order.shuffle(rng);
    let few = rng.random_range(1..=(nodes / 4).max(1));
    let hosts: Vec<usize> = order.iter().copied().take(few).collect();
    let others: Vec<usize> = order.into_iter().skip(few).collect();
    let flaps = rng.random_range(0..4_u32) == 0;
    let flap = flaps.then(|| Flap {
        on_us: rng.random_range(SECOND_US / 2..10 * SECOND_US),
        off_us: rng.random_range(SECOND_US / 2..10 * SECOND_US),
    });
    let what = what(rng, &hosts, &others);
    let flap = flap.filter(|_| matches!(what, What::Net { .. } | What::Pause | What::Slow { .. }));
    // Some only end with the calm, or, away from a healthy core, never.
    let stays = rng.random_range(0..4_u32) == 0;
    Fault { id, at_us, until_us: (!stays).then_some(until_us), hosts, flap, what }
}

fn what(rng: &mut ChaCha12Rng, hosts: &[usize], others: &[usize]) -> What {
    let path = |both, outward: bool| {
        let (from, to) = if outward { (hosts, others) } else { (others, hosts) };
        Path { from: from.to_vec(), to: to.to_vec(), both, ..Path::default() }
    };
    let outward = rng.random_range(0..2_u32) == 0;
    let ppm = rng.random_range(50_000..800_000);
    let disk = [Disk::Kept, Disk::Forgetful, Disk::Old].get(rng.random_range(0..3_usize)).copied().unwrap_or_default();
    let net = |effect| What::Net { path: path(false, outward), effect };
    match rng.random_range(0..KINDS) {
        0 => What::Kill { disk, moves: false, announce_s: None },
        // Those whose addresses everybody is given stay where they are.
        1 => What::Crash { disk, moves: outward && hosts.iter().all(|host| *host >= CONTACTS) },
        2 => What::Kill { disk: Disk::Wiped, moves: false, announce_s: None },
        3 => What::Pause,
        4 => What::Slow { service_us: rng.random_range(1_000..400_000) },
        5 => What::Clock { step_ms: rng.random_range(-300_000..300_000), drift_ppm: rng.random_range(-200..200) },
        6 | 7 => What::Net { path: path(true, outward), effect: Effect::Cut },
        8 => net(Effect::Cut),
        9 => net(Effect::Loss { ppm }),
        10 => net(Effect::Burst { enter_ppm: 20_000, leave_ppm: 100_000, bad_ppm: ppm }),
        11 => net(Effect::Delay { delay_us: rng.random_range(1_000..400_000), jitter_us: 50_000 }),
        12 => net(Effect::Reorder { ppm, delay_us: 30_000 }),
        13 => net(Effect::Duplicate { ppm }),
        14 => net(Effect::Corrupt { ppm: ppm / 10 }),
        _ => net(Effect::Replay { ppm: ppm / 10 }),
    }
}
