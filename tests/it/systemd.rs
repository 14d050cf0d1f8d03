//! `deploy/systemd` as systemd's own tools see it, and what the daemon tells a service manager.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{GOSSIPD, Node, Ran, all_ready, command, form, is_root, skip};
use crate::lab::missing;

/// Exposure that `systemd-analyze security` may find, in tenths: the less, the better.
const EXPOSURE_MAX: &str = "20";
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd");

/// The unit, with the daemon where it was built.
fn unit(dir: &Path) -> PathBuf {
    let text = fs::read_to_string(format!("{DEPLOY}/gossipd.service")).unwrap();
    let path = dir.join("gossipd.service");
    fs::write(&path, text.replace("/usr/bin/gossipd", GOSSIPD)).unwrap();
    path
}

#[test]
fn the_unit_is_valid_and_tight() {
    let missing = missing(&["systemd-analyze"]);
    if !missing.is_empty() {
        return skip("not installed: systemd-analyze");
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    Ran::of(command("systemd-analyze").args(["verify", "--man=no"]).arg(&unit)).ok();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let security = ["security", "--offline=true", "--no-pager", &threshold];
    let found = Ran::of(command("systemd-analyze").args(security).arg(&unit)).ok();
    println!("{}", found.lines().last().unwrap_or_default());
}

#[test]
fn user_and_directories_are_made() {
    let missing = missing(&["systemd-sysusers", "systemd-tmpfiles"]);
    if !missing.is_empty() {
        return skip(&format!("not installed: {}", missing.join(", ")));
    }
    if !is_root() {
        return skip("only root can give files away");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["etc/gossipd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(format!("{DEPLOY}/sysusers.d/gossipd.conf"), root.join("usr/lib/sysusers.d/gossipd.conf")).unwrap();
    fs::copy(format!("{DEPLOY}/tmpfiles.d/gossipd.conf"), root.join("usr/lib/tmpfiles.d/gossipd.conf")).unwrap();
    fs::write(root.join("etc/gossipd/join-token"), "GDTKN-1-x").unwrap();
    let at_root = format!("--root={}", root.display());
    // The second time there is nothing to do.
    for _ in 0..2 {
        assert_eq!(Ran::of(command("systemd-sysusers").args([&at_root, "gossipd.conf"])).code, 0);
        assert_eq!(Ran::of(command("systemd-tmpfiles").args([&at_root, "--create", "gossipd.conf"])).code, 0);
    }
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap();
    let user: Vec<_> = users.lines().find(|line| line.starts_with("gossipd:")).unwrap().split(':').collect();
    assert_eq!(&user[4..], ["gossipd, membership daemon", "/var/lib/gossipd", "/usr/sbin/nologin"]);
    let (uid, gid): (u32, u32) = (user[2].parse().unwrap(), user[3].parse().unwrap());
    for (path, owner, mode) in
        [("var/lib/gossipd", uid, 0o700), ("run/gossipd", uid, 0o755), ("etc/gossipd/join-token", 0, 0o640)]
    {
        let found = fs::metadata(root.join(path)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o777), (owner, gid, mode), "{path}");
    }
}

/// A service manager's end of `sd_notify`.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn next(&self) -> Result<String, String> {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
    }

    /// What is told next, signs of life aside.
    fn next_but_watchdog(&self) -> String {
        loop {
            let told = self.next().unwrap();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }

    /// Waits for `count` signs of life.
    fn signs_of_life(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.next().unwrap(), "WATCHDOG=1");
        }
    }
}

/// A daemon that is told to give a sign of life every tenth of a second at least.
fn supervised(name: &str) -> (Node, Manager) {
    let node = Node::new(name);
    let path = node.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    (node.wrapped_in(&["env", &notify, "WATCHDOG_USEC=100000"]), Manager { socket })
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_alive_and_stopping() {
    let (mut node, manager) = supervised("told");
    node.start();
    assert_eq!(manager.next().unwrap(), "READY=1");
    manager.signs_of_life(3);
    // As a member the protocol task answers for it.
    let other = Node::started("other");
    node.init();
    other.join(&node, "worker");
    manager.signs_of_life(3);
    assert_eq!(node.terminate(), 0);
    assert_eq!(manager.next_but_watchdog(), "STOPPING=1");

    // Ready means: back in the cluster, and the API answers.
    node.start();
    assert_eq!(manager.next_but_watchdog(), "READY=1");
    assert!(node.own().cluster.is_some());
    all_ready(&[&node, &other]);
}

#[test]
fn a_daemon_that_hangs_gives_no_sign_of_life() {
    let (mut node, manager) = supervised("hanging");
    node.start();
    form(std::slice::from_ref(&node));
    assert_eq!(manager.next().unwrap(), "READY=1");
    manager.signs_of_life(1);
    node.signal(Signal::SIGSTOP);
    // What it had said before it was stopped; then nothing for many times the period.
    manager.socket.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
    while manager.next().is_ok() {}
    manager.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    node.signal(Signal::SIGCONT);
    manager.signs_of_life(3);
}
