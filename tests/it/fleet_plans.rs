//! The simulator's plans, carried out on real daemons: what `gossip-sim plan` printed stands in `tests/plans`, and
//! `gossip-sim compare --real` sets what is measured here beside what is simulated.
//!
//! `GOSSIPD_REAL_OUT` names a file to which each run appends a line. Starts are not timed: the cluster is formed before the
//! first fault. A plan with a fault that there is not here is refused, never passed over.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::fleet::{Fleet, Stream, told};
use crate::harness::all_ready;
use crate::lab;

/// Of a plan, what is needed here.
#[derive(Debug, Deserialize)]
struct Plan {
    scenario: String,
    seed: u64,
    faults: Vec<Fault>,
    hosts: Vec<toml::Table>,
}

#[derive(Debug, Clone, Deserialize)]
struct Fault {
    at_us: u64,
    until_us: Option<u64>,
    hosts: Vec<usize>,
    flap: Option<toml::Table>,
    what: What,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum What {
    Kill { announce_s: Option<u16> },
    Crash,
    Leave,
    Pause,
    Net { path: Way, effect: Effect },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Way {
    from: Vec<usize>,
    to: Vec<usize>,
    both: bool,
    udp_only: bool,
    pairs: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Effect {
    Cut,
    Loss { ppm: u32 },
}

/// What came of a run: a line for `gossip-sim compare --real`.
#[derive(Debug, Serialize)]
struct Real {
    scenario: String,
    seed: u64,
    nodes: usize,
    /// From a crash to `down`, at each other host, in microseconds.
    detect_us: Vec<u64>,
    /// From a goodbye to `left` at the last of the others, in microseconds.
    leave_max_us: Option<u64>,
    /// From the end of the last fault until all that run list one another as ready, in microseconds; none: none has ended.
    heal_us: Option<u64>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

struct Run {
    fleet: Fleet,
    streams: Vec<Stream>,
    /// Hosts whose daemons have ended.
    gone: Vec<usize>,
    real: Real,
}

impl Run {
    fn sees(&self, host: usize, status: &str, since: Instant) -> Vec<u64> {
        let name = &self.fleet.hosts[host].node.name;
        let others = self.streams.iter().enumerate().filter(|(at, _)| *at != host && !self.gone.contains(at));
        others.map(|(_, stream)| micros(stream.sees(name, status).saturating_duration_since(since))).collect()
    }

    fn begin(&mut self, fault: &Fault) {
        for host in fault.hosts.iter().copied() {
            let since = Instant::now();
            match &fault.what {
                What::Kill { announce_s: None } => self.fleet.hosts[host].node.kill(),
                What::Crash => {
                    // Silence first: a machine that is gone refuses nothing.
                    self.fleet.hosts[host].drops("in", "iifname eth1");
                    self.fleet.hosts[host].drops("out", "oifname eth1");
                    self.fleet.hosts[host].node.kill();
                }
                What::Leave => drop(self.fleet.hosts[host].node.ctl(&["leave", "--force"])),
                What::Pause => self.fleet.hosts[host].node.signal(Signal::SIGSTOP),
                What::Kill { announce_s } => panic!("no announced restart of {announce_s:?} s here"),
                What::Net { .. } => {}
            }
            match &fault.what {
                What::Kill { .. } | What::Crash => {
                    self.gone.push(host);
                    let seen = self.sees(host, "down", since);
                    self.real.detect_us.extend(seen);
                }
                What::Leave => {
                    self.gone.push(host);
                    self.real.leave_max_us = self.sees(host, "left", since).into_iter().max();
                }
                _ => {}
            }
        }
        if let What::Net { path, effect } = &fault.what {
            let way = |from: &[usize], to: &[usize]| self.drop_some(from, to, path.udp_only, effect);
            way(&path.from, &path.to);
            if path.both {
                way(&path.to, &path.from);
            }
            for (one, other) in path.pairs.iter().copied() {
                way(&[one], &[other]);
                way(&[other], &[one]);
            }
        }
    }

    fn drop_some(&self, from: &[usize], to: &[usize], udp_only: bool, effect: &Effect) {
        let chance = match effect {
            Effect::Cut => String::new(),
            Effect::Loss { ppm } => format!("numgen random mod 1000000 < {ppm}"),
        };
        let udp = if udp_only { "meta l4proto udp" } else { "" };
        for host in to {
            let sources = from.iter().filter(|other| *other != host).map(|other| self.fleet.hosts[*other].v4());
            let sources = sources.collect::<Vec<_>>().join(", ");
            if !sources.is_empty() {
                self.fleet.hosts[*host].drops("in", &format!("{udp} ip saddr {{ {sources} }} {chance}"));
            }
        }
    }

    fn end(&mut self, fault: &Fault) {
        match &fault.what {
            What::Kill { .. } | What::Crash => {
                for host in fault.hosts.iter().copied() {
                    self.gone.retain(|gone| *gone != host);
                    if matches!(fault.what, What::Crash) {
                        self.fleet.hosts[host].heals();
                    }
                    self.fleet.hosts[host].node.start();
                    self.streams[host] = self.fleet.hosts[host].watch("members");
                }
            }
            What::Pause => fault.hosts.iter().for_each(|host| self.fleet.hosts[*host].node.signal(Signal::SIGCONT)),
            What::Net { path, .. } => {
                let pairs = path.pairs.iter().flat_map(|(one, other)| [one, other]);
                let mut hit: Vec<_> =
                    path.to.iter().chain(if path.both { &path.from[..] } else { &[] }).chain(pairs).collect();
                hit.sort_unstable();
                hit.dedup();
                hit.into_iter().for_each(|host| self.fleet.hosts[*host].heals());
            }
            What::Leave => {}
        }
    }
}

/// Carries a plan out; nobody may be harmed whom its faults do not touch.
fn carry_out(name: &str) {
    if !lab::is_possible(&["ip", "nft", "nsenter", "hostname"]) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(format!("{name}.toml"));
    let plan: Plan = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(plan.faults.iter().all(|fault| fault.flap.is_none()), "faults do not come and go here");
    let fleet = Fleet::formed(plan.hosts.len());
    let streams = fleet.watch_members();
    let (scenario, nodes) = (plan.scenario.split(' ').next().unwrap().to_owned(), plan.hosts.len());
    let real = Real { scenario, seed: plan.seed, nodes, detect_us: Vec::new(), leave_max_us: None, heal_us: None };
    let mut run = Run { fleet, streams, gone: Vec::new(), real };
    let mut deeds: Vec<_> = plan.faults.iter().map(|fault| (fault.at_us, true, fault)).collect();
    deeds.extend(plan.faults.iter().filter_map(|fault| Some((fault.until_us?, false, fault))));
    deeds.sort_by_key(|(at_us, begins, _)| (*at_us, *begins));
    let (began, first_us) = (Instant::now(), deeds.first().map_or(0, |(at_us, ..)| *at_us));
    for (at_us, begins, fault) in deeds {
        thread::sleep((began + Duration::from_micros(at_us - first_us)).saturating_duration_since(Instant::now()));
        if begins { run.begin(fault) } else { run.end(fault) }
    }
    let healed = Instant::now();
    let living = || {
        let all = run.fleet.hosts.iter().enumerate().filter(|(at, _)| !run.gone.contains(at));
        all.map(|(_, host)| &host.node).collect::<Vec<_>>()
    };
    all_ready(&living());
    let heals = plan.faults.iter().any(|fault| fault.until_us.is_some());
    run.real.heal_us = heals.then(|| micros(healed.elapsed()));
    let touched: Vec<_> = plan.faults.iter().flat_map(|fault| &fault.hosts).copied().collect();
    let names: Vec<_> = touched.iter().map(|host| run.fleet.hosts[*host].node.name.as_str()).collect();
    for (at, stream) in run.streams.iter().enumerate() {
        if !touched.contains(&at) {
            stream.harmed_only(&names);
        }
    }
    tell(name, &run.real);
}

fn tell(name: &str, real: &Real) {
    if !real.detect_us.is_empty() {
        told(
            &format!("{name}: down at all others"),
            real.detect_us.iter().copied().map(Duration::from_micros).collect(),
        );
    }
    println!("{name}: last to know of a leave {:?} us, all ready after {:?} us", real.leave_max_us, real.heal_us);
    if let Some(path) = std::env::var_os("GOSSIPD_REAL_OUT") {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", serde_json::to_string(real).unwrap()).unwrap();
    }
}

#[test]
fn s2_a_process_of_25_ends() {
    carry_out("S2@25");
}

#[test]
fn s2_a_machine_of_25_vanishes() {
    carry_out("S2@machine-25");
}

#[test]
fn s3_one_of_25_leaves() {
    carry_out("S3@25");
}

#[test]
fn s20_a_process_of_32_is_stopped_for_five_seconds() {
    carry_out("S20@5s");
}
