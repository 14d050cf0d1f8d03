//! `gossipd dev`: there at once, gone without a trace.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{GOSSIPCTL, GOSSIPD, Ran, command, wait_for};

struct Dev {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Dev {
    /// Starts it with `place` for temporary files.
    fn start(place: &Path, args: &[&str]) -> Self {
        let mut command = command(GOSSIPD);
        command.arg("dev").args(args).env("TMPDIR", place).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                to.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, said, reader: Some(reader) }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn until_said(&self, text: &str) -> String {
        wait_for(&format!("gossipd dev to say {text:?}"), || {
            let said = self.said();
            if said.contains(text) { Ok(said) } else { Err(said) }
        })
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> Option<i32> {
        let status =
            wait_for("the end of gossipd dev", || self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.code()
    }

    /// Process ids of its daemons.
    fn children(&self) -> Vec<PathBuf> {
        let parent = self.child.id().to_string();
        let is_child = |process: &Path| {
            let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
            // pid (name) state parent …; the name may hold anything.
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(parent.as_str())
        };
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.filter(|process| is_child(process)).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- gossipd dev said\n{}", self.said());
        }
    }
}

fn is_alive(process: &Path) -> bool {
    // A zombie that nobody has reaped yet has ended too.
    fs::read_to_string(process.join("stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn entries(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn three_nodes_are_there_and_ctrl_c_removes_everything() {
    let place = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(place.path(), &["--nodes", "3", "--port", "0"]);
    let said = dev.until_said("Ctrl-C stops all nodes and removes everything.");
    assert!(said.contains("3 nodes, joined by token over TLS, gossip in sealed datagrams:"), "{said}");
    assert!(said.contains("\nID ") && said.contains("HOSTNAME"), "{said}");
    for (name, manager) in [("node1", "Reachable"), ("node2", ""), ("node3", "")] {
        let row = said.lines().find(|line| line.contains(&format!(" {name} ")) && line.contains(" 127.0.0."));
        assert!(row.is_some_and(|row| row.contains("Ready") && row.contains(manager)), "{name}: {said}");
        assert!(said.contains(&format!("{name} | ")), "the log of {name}: {said}");
    }

    // What it tells people to try works.
    let hint = said.lines().find(|line| line.trim_end().ends_with(" members")).expect("a hint");
    let socket = hint.split("--socket ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(Path::new(socket).starts_with(place.path()), "{hint}");
    let listed = Ran::of(command(GOSSIPCTL).args(["--socket", socket, "members", "-q", "--filter", "status=ready"]));
    assert_eq!(listed.ok().lines().count(), 3);

    let children = dev.children();
    assert_eq!(children.len(), 3);
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.end(), Some(0));
    assert!(dev.said().contains("All nodes stopped, "), "{}", dev.said());
    assert_eq!(entries(place.path()), Vec::<PathBuf>::new());
    for child in &children {
        assert!(!is_alive(child), "{} still runs", child.display());
    }
}

#[test]
fn a_node_that_has_left_joins_again_by_the_command_printed() {
    let place = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(place.path(), &["--nodes", "2", "--port", "0", "--log", "warn"]);
    dev.until_said("Ctrl-C stops all nodes and removes everything.");
    let scratch = entries(place.path()).pop().unwrap();
    let on = |node: &str, args: &[&str]| {
        Ran::of(command(GOSSIPCTL).arg("--socket").arg(scratch.join(format!("{node}.sock"))).args(args)).ok()
    };
    on("node2", &["leave"]);
    let said = on("node1", &["join-token", "worker"]);
    let line = said.lines().find_map(|line| line.trim().strip_prefix("gossipctl ")).expect("a command");
    assert_eq!(on("node2", &line.split(' ').collect::<Vec<_>>()), "This node joined a cluster as a worker.\n");
    assert!(on("node2", &["node", "inspect", "self"]).contains("\"address\": \"127.0.0.2:"));
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.end(), Some(0));
}

#[test]
fn what_killed_runs_left_behind_is_swept() {
    let place = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir_all(path.join("node1")).unwrap();
        path
    };
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let dead = make(&format!("gossipd-dev-{}", ended.id()));
    let kept = [make(&format!("gossipd-dev-{}", std::process::id())), make("gossipd-dev-"), make("gossipd-dev-x")];
    let mut dev = Dev::start(place.path(), &["--nodes", "1", "--port", "0", "--log", "warn"]);
    let said = dev.until_said("Ctrl-C stops all nodes and removes everything.");
    assert!(said.contains(&format!("Removed {}, which a killed run has left behind.", dead.display())), "{said}");
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.end(), Some(0));
    let mut left = entries(place.path());
    left.sort();
    let mut expected = kept.to_vec();
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn no_daemon_outlives_it() {
    let place = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(place.path(), &["--nodes", "2", "--port", "0", "--log", "warn"]);
    dev.until_said("Ctrl-C stops all nodes and removes everything.");
    let children = dev.children();
    assert_eq!(children.len(), 2);
    dev.signal(Signal::SIGKILL);
    assert_eq!(dev.end(), None);
    wait_for("its daemons to stop", || {
        let alive: Vec<_> = children.iter().filter(|child| is_alive(child)).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
    });
}

#[test]
fn what_it_cannot_do_is_told_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = Ran::of(command(GOSSIPD).args(["dev", "--nodes", "1", "--port", &port]).env("TMPDIR", place.path()));
    assert_eq!(ran.code, 1, "{ran:#?}");
    let texts = ["init on node1", "cannot listen on 127.0.0.1:", "(UDP): the address is in use", "dockerd"];
    assert!(texts.iter().all(|text| ran.err.contains(text)), "{ran:#?}");
    assert_eq!(entries(place.path()), Vec::<PathBuf>::new());

    Ran::of(command(GOSSIPD).args(["dev", "--nodes", "0"])).refused(2, &["0 is not in 1..=50"]);
    let missing = place.path().join("missing");
    let ran = Ran::of(command(GOSSIPD).args(["dev", "--port", "0"]).env("TMPDIR", &missing));
    assert!(ran.code == 1 && ran.err.contains("cannot create") && ran.err.contains("missing"), "{ran:#?}");
}
