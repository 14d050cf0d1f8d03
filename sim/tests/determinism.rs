//! One seed, one run: the reason to believe anything that the simulator says.

use gossip_sim::plan::Fault;
use gossip_sim::{Link, Plan, Setup};

const SECOND: u64 = 1_000_000;

/// Something of everything.
fn plan(seed: u64) -> Plan {
    let fault = |at_s: u64| Fault { count: 1, at_us: at_s * SECOND };
    Plan {
        setup: Setup { link: Link { loss_ppm: 20_000, ..Link::default() }, ..Setup::new(seed) },
        nodes: 10,
        span_us: 60 * SECOND,
        stagger_us: 1_000,
        crash: fault(8),
        leave: fault(10),
        restart: fault(12),
        split_us: Some((14 * SECOND, 24 * SECOND)),
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let report = plan(1).run();
    assert_eq!(report, plan(1).run());
    assert_ne!(report.trace, plan(2).run().trace);
    assert_eq!(report.checks.failures(), [""; 0], "{report}");
}

#[test]
fn the_report_says_what_happened() {
    let report = plan(3).run();
    let text = report.to_string();
    for part in ["all know all after the last start", "crash seen", "leave seen", "restart seen", "traffic", "trace"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(report.spreads.iter().all(|spread| spread.times_us.len() == spread.expected), "{text}");
}
