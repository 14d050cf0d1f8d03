//! A cluster of one of the two systems, and what its nodes tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{gossipd, serf};

/// How long anything may take that is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    Gossipd,
    Serf,
}

impl System {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Gossipd, Self::Serf].into_iter().find(|system| system.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gossipd => "gossipd",
            Self::Serf => "serf",
        }
    }

    /// What it says its version is; none: it is not there.
    pub(crate) fn version(self) -> Option<String> {
        let text = |mut command: Command| {
            let said = command.output().ok().filter(|said| said.status.success())?;
            Some(String::from_utf8_lossy(&said.stdout).lines().next()?.trim().to_owned())
        };
        match self {
            Self::Gossipd => text(gossipd::version()),
            Self::Serf => {
                let own = text(serf::version())?;
                let mut package = Command::new("dpkg-query");
                package.args(["-W", "-f", "package ${Version}", "serf"]);
                Some(text(package).map_or(own.clone(), |package| format!("{package} ({own})")))
            }
        }
    }
}

/// Something that a node has told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    Joined(String),
    Failed(String),
    Left(String),
    Changed(String),
    Told(String),
}

/// When which node has told what.
type Heard = (Instant, usize, Fact);

/// One node. It ends with this value.
pub(crate) struct Node {
    pub(crate) system: System,
    pub(crate) name: String,
    pub(crate) place: Place,
    child: Option<Child>,
}

/// Where a node is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its address, without a port.
    pub(crate) ip: String,
    /// A directory of its own.
    pub(crate) dir: std::path::PathBuf,
}

impl Node {
    /// SIGKILL. Gives its name.
    pub(crate) fn kill(&self) -> String {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.name.clone()
    }

    /// Says goodbye. Gives its name.
    pub(crate) fn leave(&self) -> String {
        match self.system {
            System::Gossipd => gossipd::leave(&self.place),
            System::Serf => serf::leave(&self.place),
        }
        self.name.clone()
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// See the header.
pub(crate) struct Cluster {
    pub(crate) system: System,
    nodes: Vec<Node>,
    sender: Sender<Heard>,
    facts: Receiver<Heard>,
    started: usize,
    dir: TempDir,
}

impl Cluster {
    /// Starts `count` nodes, joins them, and waits until each has heard of all others.
    pub(crate) fn form(system: System, count: usize) -> Self {
        let (sender, facts) = channel();
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { system, nodes: Vec::new(), sender, facts, started: 0, dir };
        for at in 0..count {
            let node = cluster.start(Some(at));
            match (system, at) {
                (System::Gossipd, 0) => gossipd::init(&node.place),
                (System::Gossipd, _) => gossipd::join(&cluster.nodes[0].place, &node.place),
                (System::Serf, 0) => {}
                (System::Serf, _) => serf::join(&cluster.nodes[0].place, &node.place),
            }
            if system == System::Gossipd {
                follow(gossipd::watch(&node.place), at, cluster.sender.clone(), gossipd::fact);
            }
            cluster.nodes.push(node);
        }
        let end = Instant::now() + DEADLINE;
        while cluster.nodes.iter().any(|node| known(node) < count) {
            assert!(Instant::now() < end, "{}: the cluster does not form", system.name());
            thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    /// Has all nodes take part in a network, where that is needed to hear of endpoints.
    pub(crate) fn attach(&self) {
        if self.system == System::Gossipd {
            self.nodes.iter().for_each(|node| gossipd::attach(&node.place));
        }
    }

    fn start(&mut self, follows: Option<usize>) -> Node {
        self.started += 1;
        let net = if self.system == System::Gossipd { 1 } else { 2 };
        let ip = format!("127.{net}.{}.{}", self.started / 200, 1 + self.started % 200);
        let name = format!("{}{}", self.system.name(), self.started);
        let place = Place { ip, dir: self.dir.path().join(&name) };
        std::fs::create_dir(&place.dir).unwrap();
        let mut command = match self.system {
            System::Gossipd => gossipd::daemon(&name, &place),
            System::Serf => serf::agent(&name, &place),
        };
        // Held open while this process lives: no daemon outlives it.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        match self.system {
            System::Gossipd => gossipd::ready(&place),
            System::Serf => {
                follow(out, follows.unwrap_or(usize::MAX), self.sender.clone(), serf::fact);
                serf::ready(&place);
            }
        }
        Node { system: self.system, name, place, child: Some(child) }
    }

    /// Starts one more node, which is in no cluster yet and is not listened to.
    pub(crate) fn start_another(&mut self) -> Node {
        self.start(None)
    }

    /// Lets it join. Gives its name.
    pub(crate) fn join(&self, node: &Node) -> String {
        match self.system {
            System::Gossipd => gossipd::join(&self.nodes[0].place, &node.place),
            System::Serf => serf::join(&self.nodes[0].place, &node.place),
        }
        node.name.clone()
    }

    /// Changes something about a node that all others list. Gives what they will call it.
    pub(crate) fn change(&self, node: usize, value: &str) -> String {
        let node = &self.nodes[node];
        match self.system {
            System::Gossipd => {
                gossipd::label(&self.nodes[0].place, &node.name, value);
                value.to_owned()
            }
            System::Serf => {
                serf::tag(&node.place, value);
                node.name.clone()
            }
        }
    }

    /// Says something to all, all of it at once.
    pub(crate) fn tell(&self, from: usize, names: &[String]) {
        let place = &self.nodes[from].place;
        match self.system {
            System::Gossipd => gossipd::endpoints(place, names),
            System::Serf => serf::events(place, names),
        }
    }

    /// Does something, and waits until every node but `origin` has told of it; none: not all of them have.
    pub(crate) fn timed(&mut self, origin: Option<usize>, act: impl FnOnce(&Self) -> Fact) -> Option<Duration> {
        self.forget_facts();
        let began = Instant::now();
        let wanted = BTreeSet::from([act(self)]);
        let (last, lost) = self.await_all(&wanted, origin, DEADLINE);
        (lost == 0).then(|| last.saturating_duration_since(began))
    }

    /// Waits until every node but `origin` has told all of it, or nothing more is told for that long. Gives when the last
    /// of it was told, and how much was not.
    pub(crate) fn await_all(
        &self,
        wanted: &BTreeSet<Fact>,
        origin: Option<usize>,
        silence: Duration,
    ) -> (Instant, usize) {
        let observers = (0..self.nodes.len()).filter(|node| Some(*node) != origin);
        let mut missing: BTreeMap<usize, BTreeSet<&Fact>> =
            observers.map(|node| (node, wanted.iter().collect())).collect();
        let mut last = Instant::now();
        while !missing.is_empty() {
            match self.facts.recv_timeout(silence) {
                Ok((at, node, fact)) => {
                    let Some(of_node) = missing.get_mut(&node) else { continue };
                    if of_node.remove(&fact) {
                        last = at;
                    }
                    if of_node.is_empty() {
                        missing.remove(&node);
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => unreachable!("this value holds a sender"),
            }
        }
        (last, missing.values().map(BTreeSet::len).sum())
    }

    /// What was told before is over.
    pub(crate) fn forget_facts(&self) {
        while self.facts.try_recv().is_ok() {}
    }

    /// Runs the command that lists the members, and counts them.
    pub(crate) fn list(&self) -> usize {
        known(&self.nodes[0])
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::pid).collect()
    }

    pub(crate) fn next_number(&mut self) -> usize {
        self.started += 1;
        self.started
    }
}

/// Members that a node lists, by its command.
fn known(node: &Node) -> usize {
    let mut command = match node.system {
        System::Gossipd => gossipd::members(&node.place),
        System::Serf => serf::members(&node.place),
    };
    let listed = command.output().unwrap();
    String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(node.system.name())).count()
}

/// Passes on what a node tells, with the time, until it ends.
fn follow(lines: impl Read + Send + 'static, node: usize, sender: Sender<Heard>, fact: fn(&str) -> Option<Fact>) {
    thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let at = Instant::now();
            if let Some(fact) = fact(&line)
                && sender.send((at, node, fact)).is_err()
            {
                return;
            }
        }
    });
}
