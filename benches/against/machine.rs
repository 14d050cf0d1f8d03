//! The machine: a network namespace of this benchmark's own, what processes use, and what the loopback carries.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Set in the process that runs inside.
const INSIDE: &str = "GOSSIPD_BENCH_INSIDE";
/// What the loopback counts of each packet before its IP header.
const LINK_BYTES: u64 = 14;
/// Ticks of the clock that CPU time is counted in, each second: the same on all Linux machines that this runs on.
const TICKS: f64 = 100.0;

/// Where this runs.
pub(crate) enum Namespace {
    Own,
    /// On the machine's own network, for this reason.
    None(String),
}

/// Starts this program again in a network namespace of its own, if that can be had.
pub(crate) fn enter_namespace() -> Namespace {
    match std::env::var(INSIDE).as_deref() {
        Ok("yes") => return Namespace::Own,
        Ok(why) => return Namespace::None(why.to_owned()),
        Err(_) => {}
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let works = |way: &&&[&str]| {
        Command::new("unshare")
            .args(**way)
            .args(["ip", "link", "set", "lo", "up"])
            .output()
            .is_ok_and(|ran| ran.status.success())
    };
    let this = std::env::current_exe().unwrap();
    let Some(way) = ways.iter().find(works) else {
        return Namespace::None("unshare --net and ip are needed, as root or with user namespaces".to_owned());
    };
    let mut command = Command::new("unshare");
    command.args(*way).args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(this);
    let error = command.args(std::env::args_os().skip(1)).env(INSIDE, "yes").exec();
    Namespace::None(error.to_string())
}

/// Date, processor, load.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let model = model.unwrap_or("unknown processor");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    format!("{now}: {cores} x {model}, Linux {}, load before {load}", kernel.trim())
}

/// What each node uses, on average, while nothing happens.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Percent of one CPU.
    pub(crate) cpu: f64,
    /// On the wire, sent, with IP headers; none: not to be told apart.
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) packets_per_s: Option<f64>,
    /// Of each process, in bytes.
    pub(crate) rss: Vec<f64>,
    pub(crate) pss: Vec<f64>,
    pub(crate) private: Vec<f64>,
}

impl Usage {
    pub(crate) fn over(span: Duration, pids: &[u32], namespace: &Namespace) -> Self {
        let (began, cpu, sent) = (Instant::now(), cpu_s(pids), sent());
        std::thread::sleep(span);
        let seconds = began.elapsed().as_secs_f64();
        let (cpu, now) = (cpu_s(pids) - cpu, self::sent());
        let each = |count: u64| matches!(namespace, Namespace::Own).then(|| count as f64 / seconds / pids.len() as f64);
        let packets = now.1 - sent.1;
        let memory = |keys: &[&str]| pids.iter().map(|pid| memory(*pid, keys)).collect();
        Self {
            cpu: 100.0 * cpu / seconds / pids.len() as f64,
            bytes_per_s: each(now.0 - sent.0 - packets * LINK_BYTES),
            packets_per_s: each(packets),
            rss: memory(&["Rss:"]),
            pss: memory(&["Pss:"]),
            private: memory(&["Private_Clean:", "Private_Dirty:"]),
        }
    }
}

/// CPU time of all of them together, threads included, in seconds.
fn cpu_s(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| -> f64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name may hold blanks; after it come state and numbers.
        let rest = stat.rsplit_once(") ").unwrap().1;
        rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum()
    };
    pids.iter().map(ticks).sum::<f64>() / TICKS
}

/// Bytes and packets that the loopback has carried.
fn sent() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[8], numbers[9])
}

fn memory(pid: u32, keys: &[&str]) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kilobytes = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    let lines = text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
    lines.map(kilobytes).sum::<f64>() * 1024.0
}
