//! A machine to play with: network, mount, process and host name namespaces of its own, in which directories of the real machine
//! are covered by copies that vanish. What is done in it to firewall, packages and files reaches nobody.
//!
//! All of it hangs on one process that ends when this one does, however it does.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use crate::harness::{Ran, command, is_root, skip};

/// The interfaces of a droplet, each with a neighbour in a namespace called as what it is.
pub(crate) const DROPLET: &str = "
ip link set lo up
# As where Docker runs; ufw says so.
echo 1 >/proc/sys/net/ipv4/ip_forward
for side in public private; do
  ip netns add $side
  ip -n $side link set lo up
done
ip link add eth0 type veth peer name eth0 netns public
ip link add eth1 type veth peer name eth1 netns private
ip addr add 198.51.100.2/24 dev eth0
ip addr add 2001:db8::2/64 dev eth0 nodad
ip addr add 10.130.27.207/16 dev eth1
ip addr add fd00:130::2/64 dev eth1 nodad
ip link set eth0 up
ip link set eth1 up
ip -n public addr add 198.51.100.1/24 dev eth0
ip -n public addr add 2001:db8::1/64 dev eth0 nodad
ip -n public link set eth0 up
ip -n private addr add 10.130.27.1/16 dev eth1
ip -n private addr add fd00:130::1/64 dev eth1 nodad
ip -n private link set eth1 up
ip route add default via 198.51.100.1
ip -6 route add default via 2001:db8::1
";

/// Whether this test can run: with these programs, and as root. Says why it cannot, where that is allowed.
pub(crate) fn is_possible(programs: &[&str]) -> bool {
    let missing = missing(programs);
    let may = || {
        let namespaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--propagation", "private"];
        is_root()
            && Ran::of(command("unshare").args(namespaces).args(["mount", "-t", "proc", "lab", "/proc"])).code == 0
    };
    let is_possible = missing.is_empty() && may();
    if !missing.is_empty() {
        skip(&format!("not installed: {}", missing.join(", ")));
    } else if !is_possible {
        skip("only root, and not in every container, can make namespaces");
    }
    is_possible
}

/// Those of `programs` that this machine does not have.
pub(crate) fn missing(programs: &[&str]) -> Vec<String> {
    let is_there = |name: &str| {
        Ran::of(command("sh").args(["-c", "PATH=$PATH:/usr/sbin:/sbin command -v \"$0\"", name])).code == 0
    };
    programs.iter().filter(|name| !is_there(name)).map(|name| (*name).to_owned()).collect()
}

/// See the header.
pub(crate) struct Lab {
    holder: Child,
    /// The first process inside: all others go with it.
    init: u32,
    _dir: TempDir,
}

impl Lab {
    /// Covers `covered` and /run, then runs `script` inside.
    #[track_caller]
    pub(crate) fn new(covered: &[&str], script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The number that the first process has outside.
        let mut prepare = "set -e\nread pid rest </proc/self/stat\nmount -t proc lab /proc\n".to_owned();
        prepare += &format!("mount -t tmpfs lab {}\n", dir.path().display());
        for path in covered {
            let layers = dir.path().join(path.trim_start_matches('/').replace('/', "-"));
            let layers = layers.display();
            prepare += &format!(
                "mkdir -p {layers}/upper {layers}/work\n\
                 mount -t overlay -o lowerdir={path},upperdir={layers}/upper,workdir={layers}/work lab {path}\n"
            );
        }
        // Everything is in place: say so, then wait for the end of the one who asked.
        prepare += &format!("mount -t tmpfs -o mode=755 lab /run\n{script}\n");
        prepare += "echo ready $pid\nexec cat >&2\n";
        let mut holder = command("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .args(["sh", "-c", &prepare])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let init = said.strip_prefix("ready ").and_then(|pid| pid.trim_end().parse().ok());
        let lab = Self { holder, init: init.unwrap_or_default(), _dir: dir };
        assert!(lab.init != 0, "the lab could not be set up: {said:?}");
        lab
    }

    /// What must stand before a program and its arguments for it to run inside.
    pub(crate) fn entry(&self) -> Vec<String> {
        let words = ["nsenter", "--net", "--mount", "--uts", "--pid", "--target"];
        words.into_iter().map(str::to_owned).chain([self.init.to_string(), "--".to_owned()]).collect()
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let entry = self.entry();
        let mut command = command(&entry[0]);
        command.args(&entry[1..]).arg(program);
        command.env("LC_ALL", "C").env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a shell script inside.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        Ran::of(self.command("sh").args(["-ec", script]))
    }

    /// A file as it is inside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Does `work` with the network of the lab, or of the neighbour at its `public` or `private` side.
    pub(crate) fn at<T: Send>(&self, side: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
        let namespace = match side {
            None => PathBuf::from(format!("/proc/{}/ns/net", self.init)),
            Some(side) => self.path(&format!("/run/netns/{side}")),
        };
        let namespace = File::open(namespace).unwrap();
        // A network namespace is a thread's own.
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Processes, mounts and namespaces go with it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
