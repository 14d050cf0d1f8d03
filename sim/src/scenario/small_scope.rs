//! Small scope, exhaustively: every cut of three to five nodes into two groups, both ways and one way, healed in every
//! order, alone and with the crash of each node meanwhile. Every one of them is run.

use crate::outcome::Protocol;
use crate::plan::{Bound, Calm, Disk, Effect, Fault, HostPlan, Network, Path, Plan, Profile, What};
use crate::reading::Reading;
use crate::writing::{Deed, NETWORK, Writing};

const SECOND_US: u64 = 1_000_000;
/// When the cut is made, the node crashes, the first direction is healed, the second, and the node is back.
const CUT_US: u64 = 5 * SECOND_US;
const CRASH_US: u64 = 15 * SECOND_US;
const HEAL_US: [u64; 2] = [35 * SECOND_US, 45 * SECOND_US];
const BACK_US: u64 = 50 * SECOND_US;
const SPAN_US: u64 = 80 * SECOND_US;

/// One of them: so many nodes, who is on the first side, which direction is healed when, who crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    nodes: usize,
    side: usize,
    /// When traffic from the first side to the other is free again, and the other way; none: never cut.
    heals: [Option<u64>; 2],
    crash: Option<usize>,
}

fn cases() -> Vec<Case> {
    let [early, late] = HEAL_US.map(Some);
    // Both at once, one before the other, and one way only; sides are counted twice for what is not symmetric.
    let orders = [[late, late], [early, late], [late, early], [late, None], [None, late]];
    let mut all = Vec::new();
    for nodes in 3..=5 {
        // The last node is always on the other side: swapping the sides is the same cut with its directions swapped.
        for side in 1..1_usize << (nodes - 1) {
            for heals in orders {
                for crash in std::iter::once(None).chain((0..nodes).map(Some)) {
                    all.push(Case { nodes, side, heals, crash });
                }
            }
        }
    }
    all
}

impl Case {
    fn name(self) -> String {
        let Self { nodes, side, heals, crash } = self;
        let heals: Vec<_> =
            heals.iter().map(|us| us.map_or("x".to_owned(), |us| (us / SECOND_US).to_string())).collect();
        let crash = crash.map_or(String::new(), |host| format!("-crash{host}"));
        format!("{nodes}-{side:0width$b}-{}{crash}", heals.join("_"), width = nodes - 1)
    }
}

/// Everybody has four endpoints; each deletes or changes some of them before the cut, during it, while somebody is down, and
/// between the two ends of the cut.
fn writings(nodes: usize) -> Vec<Writing> {
    let write = |(number, (at_us, gone_percent)): (u64, (u64, u32))| Writing {
        id: 100 + number,
        at_us,
        until_us: None,
        every_us: 0,
        by: (0..nodes).collect(),
        network: NETWORK,
        deed: Deed::Endpoints { count: 2 + 2 * u32::from(number == 0), slots: 4, gone_percent, bytes: 0 },
    };
    let times = [(3 * SECOND_US, 0), (CUT_US + 100_000, 50), (CRASH_US - 1_000, 50), (CRASH_US + 5 * SECOND_US, 50)];
    (0..).zip(times.into_iter().chain([(HEAL_US[0] + SECOND_US, 70)])).map(write).collect()
}

/// All names, in order.
pub(super) fn names() -> Vec<String> {
    cases().into_iter().map(Case::name).collect()
}

pub(super) fn plan(label: &str, about: &str, name: &str, seed: u64) -> Result<Plan, String> {
    let case = cases().into_iter().find(|case| case.name() == name).ok_or_else(|| format!("no variant {name}"))?;
    let Case { nodes, side, heals, crash } = case;
    let (one, other): (Vec<usize>, Vec<usize>) = (0..nodes).partition(|host| side >> host & 1 == 1);
    let cut = |id, until_us, from: &[usize], to: &[usize]| Fault {
        id,
        at_us: CUT_US,
        until_us: Some(until_us),
        hosts: (0..nodes).collect(),
        flap: None,
        what: What::Net { path: Path { from: from.to_vec(), to: to.to_vec(), ..Path::default() }, effect: Effect::Cut },
    };
    let [forth, back] = heals;
    let mut faults: Vec<Fault> = Vec::new();
    faults.extend(forth.map(|until_us| cut(1, until_us, &one, &other)));
    faults.extend(back.map(|until_us| cut(2, until_us, &other, &one)));
    faults.extend(crash.map(|host| Fault {
        id: 3,
        at_us: CRASH_US,
        until_us: Some(BACK_US),
        hosts: vec![host],
        flap: None,
        what: What::Crash { disk: Disk::Kept, moves: false },
    }));
    let host = |n: usize| HostPlan {
        start_us: n as u64 * 1_000,
        contacts: (0..nodes).filter(|contact| *contact != n).collect(),
        attached: true,
        ..HostPlan::default()
    };
    Ok(Plan {
        scenario: format!("{label} small-scope"),
        about: about.to_owned(),
        seed,
        span_us: SPAN_US,
        measure_from_us: 0,
        protocol: Protocol::Gossipd,
        profile: Profile::Lan,
        idle_faults: false,
        checks: Vec::new(),
        matrices_us: Vec::new(),
        network: Network::lan(),
        calm: Calm { at_us: BACK_US, within_us: 5 * SECOND_US, ..Calm::default() },
        bounds: vec![Bound { name: "conflicts".to_owned(), at_least: None, at_most: Some(0) }],
        faults,
        decrees: Vec::new(),
        writings: writings(nodes),
        readings: vec![Reading {
            on: (0..nodes).collect(),
            at_us: 0,
            every_us: 100_000,
            bytes: None,
            stalls_us: None,
            drops_every: Some(5),
        }],
        history: 256,
        hosts: (0..nodes).map(host).collect(),
    })
}
