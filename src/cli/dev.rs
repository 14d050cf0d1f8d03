//! `gossipd dev`: a small real cluster on loopback, as child processes, gone without a trace at Ctrl-C.

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::daemon::DevArgs;
use super::render::{self, Look};
use crate::api::{InitRequest, JoinRequest, MemberFilter, Members, NodeOptions};
use crate::client::Client;
use crate::record::Status;

/// How long a daemon may take to open its socket.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long all nodes may take to know each other.
const FORM_DEADLINE: Duration = Duration::from_secs(30);
/// How long a daemon may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How the names of directories begin; the process id follows.
const PREFIX: &str = "gossipd-dev-";

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let place = std::env::temp_dir();
        sweep(&place);
        let path = place.join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

/// Removes what runs of this user have left behind that were killed before they could.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if is_left_behind(&entry) && fs::remove_dir_all(entry.path()).is_ok() {
            say(&format!("Removed {}, which a killed run has left behind.", entry.path().display()));
        }
    }
}

fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|digits| digits.parse().ok());
    let Some(pid) = pid.filter(|pid: &i32| *pid > 0) else { return false };
    // Not followed: a link of that name is somebody else's.
    let is_own = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
    let is_dead = Pid::from_raw(pid) == Pid::this() || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
    is_own && is_dead && !is_served(&entry.path())
}

/// A daemon answers in there: its parent may have a number that means nothing here, as in another container.
fn is_served(scratch: &Path) -> bool {
    let mut entries = fs::read_dir(scratch).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.any(|path| path.extension().is_some_and(|kind| kind == "sock") && UnixStream::connect(path).is_ok())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(&format!("Could not remove {}: {error}", self.0.display()));
        }
    }
}

struct DevNode {
    name: String,
    socket: PathBuf,
    child: Child,
}

/// Runs the cluster until Ctrl-C.
pub(super) fn dev(args: &DevArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "Error: {error:#}");
    ExitCode::FAILURE
}

/// One line or table for the person who watches. A reader that has gone misses it.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

async fn run(args: &DevArgs) -> anyhow::Result<()> {
    // First, so that Ctrl-C while starting removes everything too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let scratch = Scratch::new()?;
    let mut nodes = Vec::new();
    let outcome = tokio::select! {
        outcome = start(args, &scratch.0, &mut nodes) => outcome,
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    if let Ok(true) = outcome {
        watch(&mut nodes, &mut interrupt, &mut terminate).await;
    }
    stop(nodes).await;
    let place = scratch.0.display().to_string();
    drop(scratch);
    say(&format!("All nodes stopped, {place} removed."));
    outcome.map(|_| ())
}

async fn start(args: &DevArgs, scratch: &Path, nodes: &mut Vec<DevNode>) -> anyhow::Result<bool> {
    for number in 1..=args.nodes {
        nodes.push(spawn(args, scratch, number)?);
    }
    let mut token_and_remote = None;
    for node in nodes.iter_mut() {
        let client = opened(node).await?;
        let options = NodeOptions::default();
        match &token_and_remote {
            None => {
                let request = InitRequest { node: options, cert_expiry: None };
                let answer = client.init(&request).await.with_context(|| format!("init on {}", node.name))?;
                token_and_remote = Some((answer.worker_token, answer.advertise_addr.to_string()));
            }
            Some((token, remote)) => {
                let request = JoinRequest { token: token.clone(), remotes: vec![remote.clone()], node: options };
                client.join(&request).await.with_context(|| format!("join of {}", node.name))?;
            }
        }
    }
    let members = formed(nodes).await?;
    say(&format!("\n{} nodes, joined by token over TLS, gossip in sealed datagrams:\n", nodes.len()));
    say(&render::members_table(&members.members, Look { colour: io::stdout().is_terminal(), ..Look::default() }));
    say(&hints(nodes));
    Ok(true)
}

fn spawn(args: &DevArgs, scratch: &Path, number: u8) -> anyhow::Result<DevNode> {
    let name = format!("node{number}");
    let socket = scratch.join(format!("{name}.sock"));
    let config = scratch.join(format!("{name}.toml"));
    let ip = Ipv4Addr::new(127, 0, 0, number);
    // A file of its own, so that a configuration on this machine does not interfere. The address is in it, so that a
    // node that has left can join again without naming it. Ctrl-C is no restart: nobody will come back.
    let settings =
        format!("hostname = \"{name}\"\nlisten_addr = \"{ip}\"\nport = {}\nrestart_grace = \"0s\"\n", args.port);
    fs::write(&config, settings)?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
    command
        .arg("run")
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(scratch.join(&name))
        .arg("--socket")
        .arg(&socket)
        .args(["--log", &args.log, "--stop-at-end-of-stdin"])
        // Ctrl-C is for this process, which then stops the children in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("GOSSIPD_") {
            command.env_remove(variable);
        }
    }
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    if let Some(stderr) = child.stderr.take() {
        let prefix = name.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                say(&format!("{prefix} | {line}"));
            }
        });
    }
    Ok(DevNode { name, socket, child })
}

async fn opened(node: &mut DevNode) -> anyhow::Result<Client> {
    let wait = async {
        loop {
            if let Ok(client) = Client::connect(&node.socket).await {
                return Ok(client);
            }
            if let Ok(Some(status)) = node.child.try_wait() {
                bail!("{} ended at once: {status}; its lines above say why", node.name);
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(START_DEADLINE, wait).await.unwrap_or_else(|_| bail!("{} did not open its socket in time", node.name))
}

/// Waits until every node lists all nodes as ready; gives the first one's list.
async fn formed(nodes: &[DevNode]) -> anyhow::Result<Members> {
    let everything = MemberFilter::default();
    let wait = async {
        'look: loop {
            sleep(LOOK_INTERVAL).await;
            let mut first = None;
            for node in nodes {
                let members = Client::connect(&node.socket).await?.members(&everything).await?;
                let ready = |member: &crate::api::Member| member.status == Status::Ready && member.hostname.is_some();
                if members.members.iter().filter(|member| ready(member)).count() < nodes.len() {
                    continue 'look;
                }
                first.get_or_insert(members);
            }
            if let Some(members) = first {
                return Ok(members);
            }
        }
    };
    timeout(FORM_DEADLINE, wait).await.unwrap_or_else(|_| bail!("the nodes did not find each other in time"))
}

fn hints(nodes: &[DevNode]) -> String {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("gossipctl")).filter(|ctl| ctl.exists());
    let ctl = beside
        .map_or_else(|| "cargo run --quiet --release --bin gossipctl --".to_owned(), |ctl| ctl.display().to_string());
    let mut lines = vec!["\nTry, in another terminal:\n".to_owned()];
    if let Some(node) = nodes.first() {
        let on = format!("{ctl} --socket {}", node.socket.display());
        lines.push(format!("  {on} members"));
        lines.push(format!("  {on} node inspect --pretty self"));
        lines.push(format!("  {on} join-token worker"));
        lines.push(format!("  curl --unix-socket {} http://gossipd/v1/members", node.socket.display()));
    }
    if let Some(node) = nodes.last().filter(|_| nodes.len() > 1) {
        lines.push(format!("  {ctl} --socket {} leave", node.socket.display()));
    }
    if let Some((node, pid)) = nodes.get(1).and_then(|node| Some((node, node.child.id()?))) {
        lines.push(format!("  kill -9 {pid}    # and see {} go down in members", node.name));
    }
    lines.push("\nCtrl-C stops all nodes and removes everything.".to_owned());
    lines.join("\n")
}

async fn watch(
    nodes: &mut [DevNode],
    interrupt: &mut tokio::signal::unix::Signal,
    terminate: &mut tokio::signal::unix::Signal,
) {
    let mut gone = vec![false; nodes.len()];
    loop {
        tokio::select! {
            _ = interrupt.recv() => return,
            _ = terminate.recv() => return,
            () = sleep(Duration::from_millis(500)) => {}
        }
        for (node, gone) in nodes.iter_mut().zip(&mut gone) {
            if !*gone && let Ok(Some(status)) = node.child.try_wait() {
                *gone = true;
                say(&format!("{} has ended: {status}", node.name));
            }
        }
    }
}

async fn stop(mut nodes: Vec<DevNode>) {
    for node in &nodes {
        if let Some(pid) = node.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
    for node in &mut nodes {
        if timeout(STOP_DEADLINE, node.child.wait()).await.is_err() {
            let _ = node.child.kill().await;
        }
    }
}
