//! gossipd against Serf, side by side on one machine:
//! `cargo bench --bench against -- [--nodes 3,25] [--rounds 10] [--idle 30] [--only gossipd|serf] [--programs DIR]`.
//!
//! `cargo bench` builds programs that unwind, some megabytes larger than those that are installed. To measure the latter:
//!
//! ```sh
//! cargo build --release && mkdir -p target/programs && cp target/release/gossipd target/release/gossipctl target/programs
//! cargo bench --config 'profile.bench.lto="off"' --bench against -- --programs target/programs
//! ```
//!
//! Real daemons, release builds, each at an address of its own in 127.0.0.0/8, both with their profile `lan` and both
//! encrypted, in a network namespace of this benchmark's own. Both clusters run while rounds are measured, and rounds
//! alternate; idle figures are taken while the other cluster does not run.
//!
//! # What is measured
//! The time from a request to the instant at which *the last* other node has told of it, by one clock: that of this process,
//! which reads a line of each node as soon as it is written. A gossipd tells through `/v1/watch`. A Serf agent tells through
//! its log, which is written as the event happens; its event stream and handlers hold member events back for one to three
//! seconds to coalesce them, so the log is to Serf's advantage. Requests go through both local interfaces directly (HTTP on
//! the Unix socket; Serf's RPC), without the start of a program; only `members` is timed as a command.
//!
//! | row | gossipd | Serf |
//! |---|---|---|
//! | join | `POST /v1/cluster/join` of a new node | `join` of a new agent |
//! | decision, tag | a label decided on a manager: signed, on the disk, then told | a changed tag |
//! | endpoint, event | an endpoint written: on the disk, then told | a user event, not coalesced |
//! | burst | 200 endpoints at once through one node | 200 user events at once through one agent |
//! | kill -9, leave | a node that has joined before | the same |
//!
//! Traffic is what the namespace's loopback carries, IP and UDP headers included. Without root there is no namespace, and so
//! no traffic; without Serf there is no comparison: it says so and measures the rest.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on fails where it stands"
)]

mod cluster;
mod figures;
mod gossipd;
mod machine;
mod serf;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::cluster::{Cluster, Fact, System};
use self::figures::Row;
use self::machine::{Namespace, Usage};

/// Writes and events of a burst.
const BURST: usize = 200;
/// Bursts, at most: each takes Serf some seconds.
const BURSTS_MAX: usize = 5;
/// Runs of `members`.
const LISTINGS: usize = 50;
/// How long nothing is measured after a cluster was formed.
const SETTLE: Duration = Duration::from_secs(5);
/// And before idleness is measured.
const SETTLE_LONG: Duration = Duration::from_secs(15);

struct Options {
    nodes: Vec<usize>,
    rounds: usize,
    idle: Duration,
    systems: Vec<System>,
    programs: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; cargo adds `--bench` to it.
    fn read() -> Result<Self, String> {
        let mut options = Self {
            nodes: vec![3, 25],
            rounds: 10,
            idle: Duration::from_secs(30),
            systems: vec![System::Gossipd, System::Serf],
            programs: None,
        };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word}: a value is missing"))?;
            let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{word} {text}: {error}"));
            match word.as_str() {
                "--nodes" => options.nodes = value.split(',').map(number).collect::<Result<_, _>>()?,
                "--rounds" => options.rounds = number(&value)?,
                "--idle" => options.idle = Duration::from_secs(number(&value)? as u64),
                "--only" => options.systems = vec![System::named(&value).ok_or(format!("--only {value}: which?"))?],
                "--programs" => options.programs = Some(PathBuf::from(value)),
                _ => return Err(format!("{word}: --nodes, --rounds, --idle, --only or --programs")),
            }
        }
        if options.nodes.iter().any(|nodes| !(2..=100).contains(nodes)) {
            return Err("--nodes: 2 to 100".to_owned());
        }
        Ok(options)
    }
}

fn main() {
    let mut options = match Options::read() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    let namespace = machine::enter_namespace();
    gossipd::use_programs(options.programs.as_deref());
    options.systems.retain(|system| {
        let version = system.version();
        match &version {
            Some(version) => println!("{}: {version}", system.name()),
            None => println!("{}: not installed, so not measured", system.name()),
        }
        version.is_some()
    });
    println!("{}", machine::describe());
    if let Namespace::None(why) = &namespace {
        println!("no network namespace, so no traffic is measured: {why}");
    }
    for nodes in &options.nodes {
        let rows = measure(*nodes, &options, &namespace);
        println!("\n{}", figures::table(*nodes, &options.systems, &rows));
    }
}

/// Everything with clusters of one size.
fn measure(nodes: usize, options: &Options, namespace: &Namespace) -> Vec<Row> {
    let mut rows = figures::rows();
    // Idle, each alone.
    for system in &options.systems {
        let cluster = Cluster::form(*system, nodes);
        std::thread::sleep(SETTLE_LONG);
        let usage = Usage::over(options.idle, &cluster.pids(), namespace);
        figures::put_usage(&mut rows, *system, &usage);
        eprintln!("{nodes} {}: idle done", system.name());
    }
    let mut clusters: Vec<_> = options.systems.iter().map(|system| Cluster::form(*system, nodes)).collect();
    clusters.iter().for_each(Cluster::attach);
    std::thread::sleep(SETTLE);
    for round in 0..options.rounds {
        for cluster in &mut clusters {
            one_round(cluster, round, &mut rows);
        }
        eprintln!("{nodes} nodes: round {} of {}", round + 1, options.rounds);
    }
    for _ in 0..options.rounds.min(BURSTS_MAX) {
        for cluster in &mut clusters {
            let (took, lost) = burst(cluster);
            figures::put(&mut rows, "burst", cluster.system, Some(took));
            figures::lost(&mut rows, "burst", cluster.system, lost);
        }
    }
    for _ in 0..LISTINGS {
        for cluster in &clusters {
            let began = Instant::now();
            let listed = cluster.list();
            figures::put(&mut rows, "members", cluster.system, Some(began.elapsed()));
            assert!(listed >= nodes, "{} lists {listed} of {nodes}", cluster.system.name());
        }
    }
    rows
}

/// One of each, one after the other.
fn one_round(cluster: &mut Cluster, round: usize, rows: &mut [Row]) {
    let system = cluster.system;
    let origin = 1 + round % (cluster.len() - 1);
    let mut note = |row: &str, took: Option<Duration>| figures::put(rows, row, system, took);

    let token = format!("v{round}");
    note("change", cluster.timed(None, |cluster| Fact::Changed(cluster.change(origin, &token))));
    let name = format!("m{round}");
    note(
        "message",
        cluster.timed(Some(origin), |cluster| {
            cluster.tell(origin, std::slice::from_ref(&name));
            Fact::Told(name.clone())
        }),
    );

    let victim = cluster.start_another();
    note("join", cluster.timed(None, |cluster| Fact::Joined(cluster.join(&victim))));
    std::thread::sleep(Duration::from_secs(1));
    note("kill", cluster.timed(None, |_| Fact::Failed(victim.kill())));

    let leaver = cluster.start_another();
    note("join", cluster.timed(None, |cluster| Fact::Joined(cluster.join(&leaver))));
    std::thread::sleep(Duration::from_secs(1));
    note("leave", cluster.timed(None, |_| Fact::Left(leaver.leave())));
}

/// Until all that arrives has arrived everywhere; and how many never did, of all nodes together.
fn burst(cluster: &mut Cluster) -> (Duration, usize) {
    let names: Vec<_> = (0..BURST).map(|n| format!("b{}x{n}", cluster.next_number())).collect();
    cluster.forget_facts();
    let began = Instant::now();
    cluster.tell(0, &names);
    let wanted = names.into_iter().map(Fact::Told).collect();
    let (last, lost) = cluster.await_all(&wanted, Some(0), Duration::from_secs(15));
    (last.saturating_duration_since(began), lost)
}
