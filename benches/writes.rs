//! Many writes for long, on real daemons: does every stream tell all of them?
//! `cargo bench --bench writes -- [--nodes 5] [--rate 1000] [--seconds 60]`.
//!
//! Daemons on 127.0.0.0/8, attached to one network. On each of them, in turn, programs set endpoints with a new label, `rate`
//! times a second in all, and one program for each daemon counts what its stream tells. It ends with an error when a write
//! was refused, a stream lagged, a change was not told within ten seconds after the last write, or a member's status
//! changed. The programs share the machine with the daemons: where both do not reach the rate, what was reached is told.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on fails where it stands"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gossipd::api::watch::{Topic, Values};
use gossipd::api::{AttachRequest, EndpointSpec, EndpointsRequest, InitRequest, JoinRequest, NodeOptions};
use gossipd::client::{Client, Update, WatchOptions};
use gossipd::record::Role;

const NETWORK: &str = "bench";
const PORT: u16 = 7946;
/// Endpoints that one program writes in turn.
const ENDPOINTS: usize = 10;
/// Programs that write, for each daemon.
const WRITERS: usize = 2;
/// How long after the last write its change may be told.
const PATIENCE: Duration = Duration::from_secs(10);

struct Daemon {
    child: Child,
    socket: PathBuf,
    ip: String,
}

impl Daemon {
    fn start(dir: &Path, n: usize) -> Self {
        let (name, ip) = (format!("node{n}"), format!("127.3.{}.{}", n / 200, 1 + n % 200));
        let socket = dir.join(format!("{name}.sock"));
        let config = dir.join(format!("{name}.toml"));
        std::fs::write(&config, "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gossipd"));
        command.args(["run", "--stop-at-end-of-stdin", "--hostname", &name, "--listen-addr", &ip]);
        command.args(["--port", &PORT.to_string()]).arg("--config").arg(config);
        command.arg("--state-dir").arg(dir.join(&name)).arg("--socket").arg(&socket);
        // Held open while this process lives: no daemon outlives it.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "gossipd does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket, ip }
    }

    /// CPU time so far in seconds, and resident memory in megabytes.
    fn usage(&self) -> (f64, f64) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap();
        let stat = read("stat");
        let ticks = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2).map(|t| t.parse::<f64>().unwrap());
        let status = read("status");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        (ticks.sum::<f64>() / 100.0, rss.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_000.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stream has told.
#[derive(Default)]
struct Counted {
    writes: AtomicU64,
    statuses: AtomicU64,
    gaps: AtomicU64,
}

async fn count(client: Client, counted: Arc<Counted>) {
    let topics = vec![Topic::Members, Topic::Endpoints];
    let mut changes = client.watch(WatchOptions { topics, ..WatchOptions::default() });
    while let Some(update) = changes.next().await {
        let place = match &update {
            Ok(Update::Change(change)) => match &change.what {
                Values::Endpoints { .. } => &counted.writes,
                Values::Members { old: Some(old), new: Some(new) } if old.status == new.status => continue,
                Values::Members { .. } => &counted.statuses,
                _ => continue,
            },
            Ok(Update::Snapshot { .. }) => continue,
            Ok(Update::Resumed { .. } | Update::Resync { .. }) | Err(_) => &counted.gaps,
        };
        place.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes every `pause` until `end`; how many were written, and the first refusal.
async fn write(socket: PathBuf, writer: usize, pause: Duration, end: Instant) -> (u64, Option<String>) {
    let client = Client::connect(&socket).await.unwrap();
    let begun = Instant::now();
    let mut done = 0;
    while Instant::now() < end {
        let due = begun + pause * u32::try_from(done).unwrap();
        tokio::time::sleep_until(due.into()).await;
        let task = writer * ENDPOINTS + usize::try_from(done).unwrap() % ENDPOINTS;
        let spec = EndpointSpec {
            task: Some(format!("t{task}")),
            addresses: vec![format!("10.{}.{}.{}/8", task / 60_000, task / 250 % 250, 1 + task % 250)],
            labels: BTreeMap::from([("n".to_owned(), done.to_string())]),
            ..EndpointSpec::default()
        };
        let request = EndpointsRequest { set: vec![spec], ..EndpointsRequest::default() };
        if let Err(error) = client.set_endpoints(NETWORK, &request, None).await {
            return (done, Some(error.to_string()));
        }
        done += 1;
    }
    (done, None)
}

fn option(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.map_or(default, |at| arguments.get(at + 1).and_then(|text| text.parse().ok()).expect("a number"))
}

async fn form(dir: &Path, nodes: usize) -> (Vec<Daemon>, Vec<Client>) {
    let daemons: Vec<_> = (0..nodes).map(|n| Daemon::start(dir, n)).collect();
    let mut clients = Vec::new();
    for daemon in &daemons {
        clients.push(Client::connect(&daemon.socket).await.unwrap());
    }
    clients[0].init(&InitRequest::default()).await.unwrap();
    let token = clients[0].join_token(Role::Worker).await.unwrap().token.unwrap();
    for client in &clients[1..] {
        let remotes = vec![format!("{}:{PORT}", daemons[0].ip)];
        client.join(&JoinRequest { token: token.clone(), remotes, node: NodeOptions::default() }).await.unwrap();
    }
    for client in &clients {
        client.attach(NETWORK, &AttachRequest::default(), Some(Duration::from_secs(20))).await.unwrap();
    }
    (daemons, clients)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let nodes = usize::try_from(option("--nodes", 5)).unwrap();
    let (rate, span) = (option("--rate", 1_000), Duration::from_secs(option("--seconds", 60)));
    let dir = tempfile::tempdir().unwrap();
    let (daemons, clients) = form(dir.path(), nodes).await;
    let counted: Vec<_> = clients.iter().map(|_| Arc::new(Counted::default())).collect();
    for (client, counted) in clients.into_iter().zip(&counted) {
        tokio::spawn(count(client, Arc::clone(counted)));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before: Vec<_> = daemons.iter().map(Daemon::usage).collect();
    let settled: Vec<_> = counted.iter().map(|one| one.statuses.load(Ordering::Relaxed)).collect();

    let begun = Instant::now();
    let pause = Duration::from_secs_f64((nodes * WRITERS) as f64 / rate as f64);
    let writers =
        (0..nodes * WRITERS).map(|n| tokio::spawn(write(daemons[n % nodes].socket.clone(), n, pause, begun + span)));
    let (mut writes, mut refused) = (0, Vec::new());
    for writer in writers.collect::<Vec<_>>() {
        let (done, error) = writer.await.unwrap();
        writes += done;
        refused.extend(error);
    }
    let took = begun.elapsed();
    let told = || counted.iter().map(|one| one.writes.load(Ordering::Relaxed)).collect::<Vec<_>>();
    while told().iter().any(|told| *told < writes) && begun.elapsed() < took + PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let late = begun.elapsed() - took;
    let used: Vec<_> = daemons.iter().map(Daemon::usage).zip(before).map(|(now, was)| (now.0 - was.0, now.1)).collect();
    let gaps: u64 = counted.iter().map(|one| one.gaps.load(Ordering::Relaxed)).sum();
    let statuses: u64 =
        counted.iter().zip(settled).map(|(one, before)| one.statuses.load(Ordering::Relaxed) - before).sum();

    let (cpu, rss) = used.iter().fold((0.0, 0.0_f64), |sum, one| (sum.0 + one.0, sum.1.max(one.1)));
    println!(
        "{nodes} nodes: {writes} writes in {:.1} s, {:.0}/s of {rate}/s",
        took.as_secs_f64(),
        writes as f64 / took.as_secs_f64()
    );
    println!(
        "told to each stream: {} at least, all {:.0} ms after the last write",
        told().iter().min().unwrap(),
        late.as_secs_f64() * 1e3
    );
    println!("each daemon: {:.1} % of a CPU, {rss:.1} MB at most", 100.0 * cpu / took.as_secs_f64() / nodes as f64);
    println!("refused {}, gaps {gaps}, changes of status {statuses}", refused.len());
    assert!(refused.is_empty(), "{refused:?}");
    assert!(gaps == 0 && statuses == 0 && told().iter().all(|told| *told == writes), "told {:?}", told());
}
