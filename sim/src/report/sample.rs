//! Made-up outcomes with the shape of real ones, for tests and for looking at the page.

use std::collections::BTreeMap;

use gossipd::record::Status;

use crate::outcome::{
    CheckResult, Detection, Expectation, FaultLane, Matrix, Outcome, Protocol, Second, StatusChange, Verdict,
};

const S: u64 = 1_000_000;

/// A cheap source of variety: the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }
}

fn expectation(name: &str, unit: &str, at_most: u64, actual: Option<u64>) -> Expectation {
    let holds = actual.is_some_and(|actual| actual <= at_most);
    Expectation { name: name.to_owned(), unit: unit.to_owned(), at_least: None, at_most: Some(at_most), actual, holds }
}

fn check(name: &str, what: &str, looked: u64) -> CheckResult {
    CheckResult { name: name.to_owned(), what: what.to_owned(), looked, failed: 0, examples: Vec::new() }
}

fn checks() -> Vec<CheckResult> {
    vec![
        check("M1", "status changes are legal", 48_211),
        check("M2", "generations and incarnations never fall", 48_211),
        check("M6", "the event stream replayed equals the listing", 9_120),
        check("M7", "every listed identity was really born", 48_211),
        check("Q1", "no datagram is above the cap", 1_204_331),
    ]
}

fn blank(scenario: &str, about: &str, protocol: Protocol, nodes: usize, span_us: u64) -> Outcome {
    let trace = match protocol {
        Protocol::Gossipd => "9f3c1a77be04d2655b0c8d11f2a96e3047c5d8aa01be77f3",
        Protocol::Foca => "0b77d9e2148fa6c35ce20194ab6d33f87e1f50c9d2a4b680",
    };
    Outcome {
        scenario: scenario.to_owned(),
        about: about.to_owned(),
        seed: 7,
        protocol,
        nodes,
        span_us,
        trace: trace.to_owned(),
        verdict: Verdict::Passed,
        expectations: Vec::new(),
        figures: BTreeMap::new(),
        checks: checks(),
        faults: Vec::new(),
        changes: Vec::new(),
        detections: Vec::new(),
        convergence: Vec::new(),
        seconds: Vec::new(),
        bytes_by_host: Vec::new(),
        matrices: Vec::new(),
    }
}

fn change(at_us: u64, observer: usize, subject: usize, new: Status) -> StatusChange {
    let old = if new == Status::Ready { Status::Down } else { Status::Ready };
    StatusChange {
        at_us,
        observer,
        subject,
        old: Some(old),
        new: Some(new),
        generation: 1_700_000_000,
        subject_runs: true,
        subject_is_healthy: true,
        observer_is_healthy: true,
    }
}

/// Traffic: a join, then quiet, with `load(second)` on top.
fn traffic(outcome: &mut Outcome, quiet: u64, join: u64, load: impl Fn(u64) -> u64) {
    let mut dice = Dice(outcome.nodes as u64);
    let nodes = outcome.nodes as u64;
    for second in 0..outcome.span_us / S {
        let joining = join >> (second * 2).min(63);
        let bytes = (quiet + joining + load(second)) * nodes + dice.roll(quiet * nodes / 8 + 1);
        let exchange_bytes = if second < 3 { bytes / 2 } else { dice.roll(40) * nodes };
        outcome.seconds.push(Second {
            datagrams: bytes / 110,
            datagram_bytes: bytes,
            exchanges: exchange_bytes / 900,
            exchange_bytes,
            events: bytes / 40,
            running: nodes,
        });
    }
    let total: u64 = outcome.seconds.iter().map(|second| second.datagram_bytes + second.exchange_bytes).sum();
    let share = total / nodes;
    outcome.bytes_by_host = (0..nodes).map(|_| share * 9 / 10 + dice.roll(share / 5)).collect();
    if let Some(first) = outcome.bytes_by_host.first_mut() {
        *first = share * 17 / 10;
    }
}

fn matrix(at_us: u64, label: &str, hosts: usize, status: impl Fn(usize, usize) -> char) -> Matrix {
    let cell = |row: usize, column: usize| if row == column { 'o' } else { status(row, column) };
    let row = |row: usize| (0..hosts).map(|column| cell(row, column)).collect();
    Matrix { at_us, label: label.to_owned(), hosts: (0..hosts).collect(), rows: (0..hosts).map(row).collect() }
}

fn curve(outcome: &mut Outcome, share: impl Fn(u64) -> u32) {
    outcome.convergence = (0..=outcome.span_us / (S / 2)).map(|half| (half * S / 2, share(half))).collect();
}

/// One node of 64 hears nothing for two minutes.
pub(crate) fn deaf() -> (Outcome, Outcome) {
    let about = "One node of 64 sends and hears nothing for two minutes; nobody else may pay for it.";
    let fault =
        FaultLane { kind: "deaf".to_owned(), hosts: vec![7], from_us: 60 * S, to_us: Some(180 * S), hits: 24_117 };
    let build = |protocol| {
        let mut outcome = blank("one-way-deaf", about, protocol, 64, 300 * S);
        outcome.faults = vec![fault.clone()];
        outcome
    };
    let (mut ours, mut foca) = (build(Protocol::Gossipd), build(Protocol::Foca));
    let expect = |renewals, downs, back, bytes| {
        vec![
            expectation("collateral renewals", "count", 0, Some(renewals)),
            expectation("collateral downs", "count", 0, Some(downs)),
            expectation("deaf node listed down by all", "us", 8 * S, Some(2_310_000)),
            expectation("back at all after the fault", "us", 2 * S, back),
            expectation("bytes for each node and second, quiet", "bytes/s", 120, Some(bytes)),
        ]
    };
    ours.expectations = expect(0, 0, Some(412_000), 68);
    foca.expectations = expect(63, 611, Some(11_482_000), 197);
    foca.verdict = Verdict::OutOfBounds;
    ours.figures = [("refutations", 3), ("renewals", 1), ("handled_events", 1_204_331)]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    foca.figures = [("refutations", 214), ("renewals", 64), ("handled_events", 2_866_027)]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    curve(&mut ours, |half| match half {
        0 => 0,
        1 => 420_000,
        2..=123 => 1_000_000,
        124..=360 => 968_700,
        _ => 1_000_000,
    });
    curve(&mut foca, |half| match half {
        0..=30 => u32::try_from(half * 33_000).unwrap().min(1_000_000),
        31..=140 => 1_000_000,
        141..=360 => 938_000 + u32::try_from(half % 17).unwrap() * 2_100,
        361..=384 => 968_700 + u32::try_from(half - 361).unwrap() * 1_300,
        _ => 1_000_000,
    });
    traffic(&mut ours, 60, 9_000, |second| if (60..66).contains(&second) { 220 } else { 0 });
    traffic(&mut foca, 190, 16_000, |second| if (68..185).contains(&second) { 900 } else { 0 });
    let mut dice = Dice(3);
    for cycle in 0..611 {
        let at_us = 71 * S + cycle * 180_000 + dice.roll(90_000);
        let subject = usize::try_from(dice.roll(64)).unwrap();
        let observer = usize::try_from(dice.roll(64)).unwrap();
        let new = if cycle % 3 == 2 { Status::Ready } else { Status::Down };
        foca.changes.push(change(at_us, observer, subject, new));
    }
    ours.changes.push(change(64 * S, 4, 9, Status::Suspect));
    deaf_matrices(&mut ours, &mut foca);
    (ours, foca)
}

fn deaf_matrices(ours: &mut Outcome, foca: &mut Outcome) {
    let down = |row: usize, column: usize| column == 7 && row != 7;
    ours.matrices = vec![
        matrix(59 * S, "before", 64, |_, _| 'r'),
        matrix(120 * S, "in the middle of the fault", 64, |row, column| if down(row, column) { 'd' } else { 'r' }),
        matrix(190 * S, "10 s after the fault", 64, |_, _| 'r'),
    ];
    foca.matrices = vec![
        matrix(59 * S, "before", 64, |_, _| 'r'),
        matrix(120 * S, "in the middle of the fault", 64, |row, column| match (row, column) {
            (7, other) if other % 3 != 0 => 'd',
            _ if down(row, column) => 'd',
            (row, column) if (row * 7 + column * 13) % 31 == 0 => 's',
            (row, column) if (row * 5 + column * 11) % 43 == 0 => 'd',
            _ => 'r',
        }),
        matrix(
            190 * S,
            "10 s after the fault",
            64,
            |row, column| if (row + column) % 37 == 0 && row < 20 { '.' } else { 'r' },
        ),
    ];
}

/// Two halves of a hundred.
pub(crate) fn split() -> (Outcome, Outcome) {
    let about = "Two halves of 100 nodes do not reach each other for two minutes, then they do: one cluster again.";
    let build = |protocol| {
        let mut outcome = blank("split-50-50", about, protocol, 100, 420 * S);
        let cut = |kind: &str, hosts: Vec<usize>, from, to, hits| FaultLane {
            kind: kind.to_owned(),
            hosts,
            from_us: from * S,
            to_us: to,
            hits,
        };
        outcome.faults = vec![
            cut("cut", (0..50).collect(), 60, Some(180 * S), 312_004),
            cut("loss 1 %", Vec::new(), 0, None, 41_776),
            cut("crash", vec![12], 300, None, 1),
            cut("crash", vec![71], 310, Some(330 * S), 1),
        ];
        outcome
    };
    let (mut ours, mut foca) = (build(Protocol::Gossipd), build(Protocol::Foca));
    ours.expectations = vec![
        expectation("one view after the heal", "us", 5 * S, Some(1_480_000)),
        expectation("wrong listings after the heal", "count", 0, Some(0)),
        expectation("detection of a crash at all", "us", 2 * S, Some(2_203_000)),
    ];
    ours.verdict = Verdict::OutOfBounds;
    foca.expectations = vec![
        expectation("one view after the heal", "us", 5 * S, Some(67_900_000)),
        expectation("wrong listings after the heal", "count", 0, Some(539)),
        expectation("detection of a crash at all", "us", 2 * S, None),
    ];
    foca.verdict = Verdict::NotConverged;
    split_curves(&mut ours, &mut foca);
    traffic(&mut ours, 70, 11_000, |second| if (60..70).contains(&second) { 600 } else { 0 });
    traffic(&mut foca, 200, 19_000, |second| if (70..95).contains(&second) { 3_000 } else { 0 });
    let mut dice = Dice(5);
    let mut latencies = |from: u64, over: u64| -> Vec<u64> {
        let mut all: Vec<_> = (0..98).map(|_| from + dice.roll(over) * dice.roll(1_000) / 1_000).collect();
        all.sort_unstable();
        all
    };
    let found = |subject, at_us, latencies_us, missed| Detection { subject, at_us, latencies_us, missed };
    ours.detections =
        vec![found(12, 300 * S, latencies(380_000, 900_000), 0), found(71, 310 * S, latencies(420_000, 1_800_000), 0)];
    foca.detections = vec![
        found(12, 300 * S, latencies(9_100_000, 2_600_000), 0),
        found(71, 310 * S, latencies(9_600_000, 3_600_000), 4),
    ];
    for n in 0..539 {
        foca.changes.push(change(182 * S + n * 40_000, 3, 60, Status::Down));
    }
    split_matrices(&mut ours, &mut foca);
    (ours, foca)
}

fn split_curves(ours: &mut Outcome, foca: &mut Outcome) {
    curve(ours, |half| match half {
        0..2 => 100_000,
        2..123 => 1_000_000,
        123..130 => 1_000_000 - u32::try_from((half - 122) * 63_000).unwrap(),
        130..361 => 494_949,
        361 => 700_000,
        362 => 990_000,
        600..606 => 990_100,
        _ => 1_000_000,
    });
    curve(foca, |half| match half {
        0..60 => u32::try_from(half * 17_000).unwrap().min(1_000_000),
        60..140 => 1_000_000,
        140..170 => 1_000_000 - u32::try_from((half - 139) * 16_300).unwrap(),
        170..362 => 494_949,
        362..370 => 494_949 + u32::try_from((half - 361) * 58_000).unwrap(),
        370..496 => 985_000,
        600..625 => 990_100,
        _ => 1_000_000,
    });
}

fn split_matrices(ours: &mut Outcome, foca: &mut Outcome) {
    let apart = |row: usize, column: usize| if (row < 32) == (column < 32) { 'r' } else { 'd' };
    let gone = |row: usize, column: usize, other: char| match (row, column) {
        (12, _) => 'x',
        (_, 12) => 'd',
        _ => other,
    };
    ours.matrices = vec![
        matrix(170 * S, "before the heal", 64, apart),
        matrix(185 * S, "5 s after the heal", 64, |_, _| 'r'),
        matrix(420 * S, "at the end", 64, |row, column| gone(row, column, 'r')),
    ];
    foca.matrices =
        vec![
            matrix(
                170 * S,
                "before the heal",
                64,
                |row, column| if (row * column) % 97 == 3 { 's' } else { apart(row, column) },
            ),
            matrix(185 * S, "5 s after the heal", 64, |row, column| {
                if (row * 3 + column) % 9 == 0 { apart(row, column) } else { 'r' }
            }),
            matrix(420 * S, "at the end", 64, |row, column| gone(row, column, if row == 40 { 'l' } else { 'r' })),
        ];
}

/// Lifeguard's grid in small: many short faults, nothing to compare with, a broken property.
pub(crate) fn grid() -> Outcome {
    let about = "Some of 12 nodes are stopped again & again for <= 2 s (\"lifeguard-grid\").";
    let mut outcome = blank("lifeguard-grid", about, Protocol::Gossipd, 12, 45 * S);
    for n in 0..36_u64 {
        let host = usize::try_from(n % 9).unwrap();
        let from_us = 5 * S + n * S;
        let to_us = Some(from_us + 600_000);
        outcome.faults.push(FaultLane { kind: "pause".to_owned(), hosts: vec![host], from_us, to_us, hits: 40 + n });
    }
    outcome.expectations = vec![Expectation {
        name: "share of right pairs".to_owned(),
        unit: "ppm".to_owned(),
        at_least: Some(999_000),
        at_most: None,
        actual: Some(999_400),
        holds: true,
    }];
    outcome.verdict = Verdict::Violated;
    outcome.checks.push(CheckResult {
        name: "D6".to_owned(),
        what: "no flapping within twice the suspicion time".to_owned(),
        looked: 418,
        failed: 2,
        examples: vec!["n3 about n4 at 17.2 s: ready → suspect → ready <twice>".to_owned()],
    });
    curve(&mut outcome, |half| if half < 2 { 0 } else { 999_000 + u32::try_from(half % 10).unwrap() * 100 });
    traffic(&mut outcome, 60, 800, |_| 0);
    for n in 0..30 {
        outcome.changes.push(change(6 * S + n * S, 1, 2, Status::Suspect));
    }
    outcome.matrices = vec![matrix(20 * S, "in the middle", 12, |row, column| match (row + 2 * column) % 11 {
        0 => 's',
        4 if row < 4 => 'd',
        _ => 'r',
    })];
    outcome
}
