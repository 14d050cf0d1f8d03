//! Daemons as child processes, and the ways to talk to them: `gossipctl`, the API's socket, signals.
//!
//! Not here: what is expected of them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gossipd::api::{Member, Members, SelfInfo};
use gossipd::record::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The daemon's program.
pub(crate) const GOSSIPD: &str = env!("CARGO_BIN_EXE_gossipd");
/// The operator's program.
pub(crate) const GOSSIPCTL: &str = env!("CARGO_BIN_EXE_gossipctl");

/// How long anything may take that is bound to happen. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(15);
/// Lines of each daemon's log shown when a test fails.
const LOG_LINES_SHOWN: usize = 80;

/// Waits until `look` gives something; fails with what it said last.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for {what}; last seen: {last}"),
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Says why a test does nothing here; fails where nothing may be skipped.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var("GOSSIPD_TEST_REQUIRE").as_deref() != Ok("all"),
        "GOSSIPD_TEST_REQUIRE=all, but this test cannot run: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A loopback address that no other test uses, nor anybody who starts at 127.0.0.1.
pub(crate) fn fresh_ip() -> Ipv4Addr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let given = GIVEN.fetch_add(1, Ordering::Relaxed);
    // 127.1.0.0 to 127.254.255.255: 127.0.0.0/16 is left to people.
    let second = 1 + (u32::from(high) + 16 * (given / 254)) % 254;
    Ipv4Addr::new(127, u8::try_from(second).unwrap(), low, u8::try_from(1 + given % 254).unwrap())
}

/// A port of `ip` that is free for UDP and TCP. Nobody else uses the address, so it stays free.
pub(crate) fn free_port(ip: Ipv4Addr) -> u16 {
    wait_for("a port that is free for both", || {
        let udp = UdpSocket::bind((ip, 0)).map_err(|e| e.to_string())?;
        let port = udp.local_addr().map_err(|e| e.to_string())?.port();
        TcpListener::bind((ip, port)).map(|_| port).map_err(|e| e.to_string())
    })
}

/// A node that can be started again where it was.
pub(crate) fn at_fixed_port(node: Node) -> Node {
    let port = free_port(node.ip);
    node.on_port(port)
}

/// Whether nobody listens there, neither UDP nor TCP.
pub(crate) fn is_closed(addr: SocketAddr) -> bool {
    // A bind of TCP would fail on connections that are still ending, a connection attempt does not.
    UdpSocket::bind(addr).is_ok() && std::net::TcpStream::connect(addr).is_err()
}

/// A command without what the environment says to gossipd's programs.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("GOSSIPD_") {
            command.env_remove(variable);
        }
    }
    command
}

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let done = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Its output, after it did what it was asked to, without a warning.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0 && self.err.is_empty(), "expected success: {self:#?}");
        self.out
    }

    /// Fails unless it ended with `code`, said all of `texts` on stderr and nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, texts: &[&str]) -> String {
        assert!(self.code == code && self.out.is_empty(), "expected exit code {code} and no output: {self:#?}");
        for text in texts {
            assert!(self.err.contains(text), "expected {text:?} to be said: {self:#?}");
        }
        self.err
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// As it is on the wire, with its whole body.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: body.to_owned() })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

/// One request over a Unix socket, as curl would make it.
pub(crate) fn http(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: gossipd\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
        // A request that is refused need not be read to its end: then writing fails, and the answer is there.
        let _ = stream.write_all(body.as_bytes());
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(error) if bytes.is_empty() => return Err(error),
            _ => {}
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = exchange().map_err(|error| format!("{method} {path}: {error}"))?;
    Answer::parse(&text).ok_or_else(|| format!("{method} {path}: cut short: {text:?}"))
}

/// A daemon, running or not, with all that is its own.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    /// Where it listens, if not at `ip`.
    listen: Option<String>,
    profile: &'static str,
    dir: TempDir,
    port: u16,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    log_filter: String,
    config: String,
    flags: Vec<String>,
    /// Program and arguments in front of the daemon's.
    wrapper: Vec<String>,
    running: Option<(Child, JoinHandle<()>)>,
    log: Arc<Mutex<String>>,
}

impl Node {
    // ---- set up ------------------------------------------------------------------------------------------------------

    /// A daemon that is not started yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ip: fresh_ip(),
            listen: None,
            profile: "local",
            dir: tempfile::tempdir().unwrap(),
            port: 0,
            state_dir: None,
            socket: None,
            log_filter: "gossipd=debug,info".to_owned(),
            config: String::new(),
            flags: Vec::new(),
            wrapper: Vec::new(),
            running: None,
            log: Arc::default(),
        }
    }

    /// A daemon that runs and is in no cluster.
    pub(crate) fn started(name: &str) -> Self {
        let mut node = Self::new(name);
        node.start();
        node
    }

    /// With these lines in its configuration file.
    pub(crate) fn with_config(mut self, config: &str) -> Self {
        self.set_config(config);
        self
    }

    /// With these arguments added.
    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// On this port, in every life.
    pub(crate) fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// At this address.
    pub(crate) fn at(mut self, ip: Ipv4Addr) -> Self {
        self.ip = ip;
        self
    }

    /// Listening there: an address of either family, or an interface.
    pub(crate) fn listening_at(mut self, addr: &str) -> Self {
        self.listen = Some(addr.to_owned());
        self
    }

    /// Listening there from its next start on.
    pub(crate) fn listen_at(&mut self, addr: &str) {
        self.listen = Some(addr.to_owned());
    }

    /// With the constants of this profile instead of those for one machine.
    pub(crate) fn with_profile(mut self, profile: &'static str) -> Self {
        self.profile = profile;
        self
    }

    /// With this state directory.
    pub(crate) fn with_state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// With this API socket.
    pub(crate) fn with_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Started by this program, which is to become the daemon.
    pub(crate) fn wrapped_in(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Changes the configuration file.
    pub(crate) fn set_config(&mut self, config: &str) {
        self.config = config.to_owned();
        self.write_config();
    }

    /// Changes the log filter in the configuration file.
    pub(crate) fn set_log_filter(&mut self, filter: &str) {
        self.log_filter = filter.to_owned();
        self.write_config();
    }

    fn write_config(&self) {
        // Keys of the top level come before any table.
        let text = format!("{}\n[log]\nfilter = {:?}\n", self.config, self.log_filter);
        fs::write(self.config_path(), text).unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("gossipd.toml")
    }

    /// A directory of its own that goes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.dir.path().join("state"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.dir.path().join("sock"))
    }

    /// Whether its state directory says that it is in a cluster.
    pub(crate) fn is_member_on_disk(&self) -> bool {
        self.state_dir().join("cluster.json").exists()
    }

    // ---- life --------------------------------------------------------------------------------------------------------

    /// Starts it and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.spawn();
        let socket = self.socket();
        wait_for(&format!("{} to answer", self.name), || {
            let (child, _) = self.running.as_mut().unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended at once: {ended:?}\n{}", self.name, self.log());
            http(&socket, "GET", "/v1/self", "")
        });
    }

    /// Starts it and waits until it has given up.
    #[track_caller]
    pub(crate) fn start_in_vain(&mut self) -> Ran {
        let before = self.log().len();
        self.spawn();
        let code = self.wait_end();
        Ran { code, out: String::new(), err: self.log().split_off(before) }
    }

    fn spawn(&mut self) {
        assert!(self.running.is_none(), "{} runs", self.name);
        self.write_config();
        let words: Vec<_> = self.wrapper.iter().map(String::as_str).chain([GOSSIPD]).collect();
        let mut command = command(words[0]);
        command
            .args(&words[1..])
            .args(["run", "--stop-at-end-of-stdin", "--profile", self.profile, "--hostname", &self.name])
            .arg("--config")
            .arg(self.config_path())
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen-addr", &self.listen.clone().unwrap_or_else(|| self.ip.to_string())])
            .args(["--port", &self.port.to_string()])
            .args(&self.flags)
            // Held open while this process lives: no daemon outlives it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::clone(&self.log);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = writeln!(log.lock().unwrap(), "{line}");
            }
        });
        self.running = Some((child, reader));
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        let (child, _) = self.running.as_ref().unwrap();
        i32::try_from(child.id()).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_end();
    }

    /// SIGTERM; gives the exit code.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// `kill -9`, then a new life.
    #[track_caller]
    pub(crate) fn kill_and_start(&mut self) {
        self.kill();
        self.start();
    }

    /// Waits for its end and gives the exit code, -1 after a signal.
    #[track_caller]
    fn wait_end(&mut self) -> i32 {
        let (mut child, reader) = self.running.take().unwrap();
        let status = wait_for(&format!("the end of {}", self.name), || match child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        });
        reader.join().unwrap();
        status.code().unwrap_or(-1)
    }

    /// All that it has logged, in all its lives.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    // ---- talk --------------------------------------------------------------------------------------------------------

    /// `gossipctl` with its socket, not run yet.
    pub(crate) fn ctl_command(&self, args: &[&str]) -> Command {
        let mut command = command(GOSSIPCTL);
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    /// Runs `gossipctl` on it.
    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.ctl_command(args))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        http(&self.socket(), "GET", path, "").unwrap()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        http(&self.socket(), "POST", path, body).unwrap()
    }

    #[track_caller]
    pub(crate) fn own(&self) -> SelfInfo {
        serde_json::from_str(&self.get("/v1/self").body).unwrap()
    }

    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.own().id.to_string()
    }

    /// Where others reach it.
    #[track_caller]
    pub(crate) fn addr(&self) -> SocketAddr {
        self.own().cluster.expect("it is in a cluster").advertise_addr
    }

    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        self.own().cluster.expect("it is in a cluster").generation
    }

    /// The nodes that it knows, by id.
    pub(crate) fn members(&self) -> Result<Vec<Member>, String> {
        let answer = http(&self.socket(), "GET", "/v1/members", "")?;
        let members: Members =
            serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
        let mut members = members.members;
        members.sort_by_key(|member| member.id);
        Ok(members)
    }

    /// One node as it knows it.
    pub(crate) fn member(&self, id: &str) -> Result<Member, String> {
        let members = self.members()?;
        let found = members.iter().find(|member| member.id.to_string() == id).cloned();
        found.ok_or_else(|| format!("{} does not know {id}: {}", self.name, shown(&members)))
    }

    /// The value of a metric line, as it stands in the text up to the value.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }

    // ---- steps -------------------------------------------------------------------------------------------------------

    /// `gossipctl init`.
    #[track_caller]
    pub(crate) fn init(&self) {
        self.ctl(&["init"]).ok();
    }

    /// The join token for `role`.
    #[track_caller]
    pub(crate) fn token(&self, role: &str) -> String {
        self.ctl(&["join-token", "-q", role]).ok().trim_end().to_owned()
    }

    /// `gossipctl join` with `token` through `remotes`.
    pub(crate) fn try_join(&self, token: &str, remotes: &[&str]) -> Ran {
        self.ctl(&[&["join", "--token", token], remotes].concat())
    }

    /// Joins through `manager`.
    #[track_caller]
    pub(crate) fn join(&self, manager: &Self, role: &str) {
        let text = self.try_join(&manager.token(role), &[&manager.addr().to_string()]).ok();
        assert_eq!(text, format!("This node joined a cluster as a {role}.\n"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((mut child, reader)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("---- log of {} ({}), last lines\n{}", self.name, self.ip, lines[shown..].join("\n"));
        }
    }
}

/// A cluster of daemons with these names: the first founds it, the others join with its worker token.
#[track_caller]
pub(crate) fn cluster(names: &[&str]) -> Vec<Node> {
    let nodes: Vec<Node> = names.iter().map(|name| Node::started(name)).collect();
    form(&nodes);
    nodes
}

/// Makes a cluster of `nodes`: the first founds it, the others join with its worker token.
#[track_caller]
pub(crate) fn form(nodes: &[Node]) {
    nodes[0].init();
    for node in &nodes[1..] {
        node.join(&nodes[0], "worker");
    }
    all_ready(&nodes.iter().collect::<Vec<_>>());
}

/// Members in one line, for messages.
pub(crate) fn shown(members: &[Member]) -> String {
    let row = |m: &Member| {
        let name = m.hostname.as_deref().unwrap_or("-");
        format!("{name} {} {} generation {} at {}", m.id, m.status, m.generation, m.address)
    };
    members.iter().map(row).collect::<Vec<_>>().join("; ")
}

/// Waits until each of `nodes` lists all of them as ready, in their present lives, with their records, and nobody else
/// but nodes that are down or have left.
#[track_caller]
pub(crate) fn all_ready(nodes: &[&Node]) {
    let expected: Vec<_> = nodes.iter().map(|node| node.own()).collect();
    for node in nodes {
        wait_for(&format!("{} to list all {} nodes as ready", node.name, nodes.len()), || {
            let members = node.members()?;
            let is_ready = |own: &SelfInfo| {
                members.iter().any(|member| {
                    member.id == own.id
                        && member.status == Status::Ready
                        && member.hostname.as_ref() == Some(&own.hostname)
                        && own.cluster.as_ref().is_some_and(|cluster| cluster.advertise_addr == member.address)
                })
            };
            let others = members.iter().filter(|member| !expected.iter().any(|own| own.id == member.id));
            let gone = others.clone().all(|member| matches!(member.status, Status::Down | Status::Left));
            if expected.iter().all(is_ready) && gone { Ok(()) } else { Err(shown(&members)) }
        });
    }
}

/// Waits until the state directory of `node` says where `others` are. They are looked for from time to time; a node that
/// gets another port at each start is not found by them.
#[track_caller]
pub(crate) fn contacts_stored(node: &Node, others: &[&Node]) {
    let path = node.state_dir().join("contacts.json");
    wait_for(&format!("{} to store where {} others are", node.name, others.len()), || {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if others.iter().all(|other| text.contains(&other.addr().to_string())) { Ok(()) } else { Err(text) }
    });
}

/// Waits until `observer` says `status` of the node `id`.
#[track_caller]
pub(crate) fn shows(observer: &Node, id: &str, status: Status) -> Member {
    wait_for(&format!("{} to list {id} as {status}", observer.name), || {
        let member = observer.member(id)?;
        if member.status == status { Ok(member) } else { Err(shown(&[member])) }
    })
}

/// Waits until `node` has probed others a few more times: what was about to be suspected has been by then.
#[track_caller]
pub(crate) fn some_probes(node: &Node) {
    let probed = || {
        let answered = node.metric("gossipd_probes_total").unwrap_or_default();
        answered + node.metric("gossipd_inquiries_total").unwrap_or_default()
    };
    let before = probed();
    wait_for(&format!("{} to probe on", node.name), || {
        let more = probed() - before;
        if more >= 8.0 { Ok(()) } else { Err(format!("{more} probes")) }
    });
}
