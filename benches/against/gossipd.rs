//! gossipd: its daemon, its API, and its stream.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Fact, Place};

/// The daemon and the operator's program.
static PROGRAMS: OnceLock<[PathBuf; 2]> = OnceLock::new();
const PORT: u16 = 7946;
const NETWORK: &str = "bench";

/// Takes the programs from there, or those that cargo has built.
pub(crate) fn use_programs(dir: Option<&Path>) {
    let built = [env!("CARGO_BIN_EXE_gossipd"), env!("CARGO_BIN_EXE_gossipctl")].map(PathBuf::from);
    let chosen = dir.map_or(built, |dir| ["gossipd", "gossipctl"].map(|name| dir.join(name)));
    let _ = PROGRAMS.set(chosen);
}

fn program(at: usize) -> Command {
    Command::new(&PROGRAMS.get().expect("programs are chosen first")[at])
}

pub(crate) fn version() -> Command {
    let mut command = program(0);
    command.arg("--version");
    command
}

fn socket(place: &Place) -> PathBuf {
    place.dir.join("sock")
}

pub(crate) fn daemon(name: &str, place: &Place) -> Command {
    let config = place.dir.join("gossipd.toml");
    std::fs::write(&config, "").unwrap();
    let mut command = program(0);
    command.args(["run", "--stop-at-end-of-stdin", "--profile", "lan", "--hostname", name]);
    command.arg("--config").arg(config).arg("--state-dir").arg(place.dir.join("state"));
    command.arg("--socket").arg(socket(place)).args(["--listen-addr", &place.ip, "--port", &PORT.to_string()]);
    command
}

/// Waits until it answers.
pub(crate) fn ready(place: &Place) {
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(socket(place)).is_err() {
        assert!(Instant::now() < end, "gossipd does not start");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks for something that works.
fn ask(place: &Place, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = UnixStream::connect(socket(place)).unwrap();
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\nHost: gossipd\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap()
}

pub(crate) fn init(place: &Place) {
    ask(place, "POST", "/v1/cluster/init", &json!({}));
}

pub(crate) fn join(seed: &Place, place: &Place) {
    let token = ask(seed, "GET", "/v1/join-tokens/worker", &json!({}));
    ask(place, "POST", "/v1/cluster/join", &json!({ "token": token["token"], "remotes": [token["remote"]] }));
}

pub(crate) fn leave(place: &Place) {
    ask(place, "POST", "/v1/cluster/leave", &json!({}));
}

pub(crate) fn attach(place: &Place) {
    ask(place, "POST", &format!("/v1/networks/{NETWORK}/attach"), &json!({}));
}

pub(crate) fn label(manager: &Place, node: &str, value: &str) {
    ask(manager, "POST", &format!("/v1/members/{node}/update"), &json!({ "labels_add": { "bench": value } }));
}

/// Writes endpoints, each by a request of its own and with an address of its own, all at once.
pub(crate) fn endpoints(place: &Place, names: &[String]) {
    static WRITTEN: AtomicU32 = AtomicU32::new(1);
    thread::scope(|scope| {
        for name in names {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + WRITTEN.fetch_add(1, Ordering::Relaxed));
            scope.spawn(move || {
                let one = json!({ "task": name, "addresses": [format!("{address}/8")] });
                ask(place, "POST", &format!("/v1/networks/{NETWORK}/endpoints"), &json!({ "set": [one] }))
            });
        }
    });
}

/// The stream of a member.
pub(crate) fn watch(place: &Place) -> UnixStream {
    let mut stream = UnixStream::connect(socket(place)).unwrap();
    stream.write_all(b"GET /v1/watch?topics=members,decisions,endpoints HTTP/1.0\r\nHost: gossipd\r\n\r\n").unwrap();
    stream
}

/// What a line of the stream tells.
pub(crate) fn fact(line: &str) -> Option<Fact> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["type"] != "change" {
        return None;
    }
    let (old, new) = (&line["old"], &line["new"]);
    let text = |key: &str| new[key].as_str().map(str::to_owned);
    match line["topic"].as_str()? {
        "decisions" if new["register"] == "label" => Some(Fact::Changed(text("value")?)),
        "endpoints" if old.is_null() => Some(Fact::Told(text("task")?)),
        "members" => match new["status"].as_str()? {
            "down" => Some(Fact::Failed(text("hostname")?)),
            "left" => Some(Fact::Left(text("hostname")?)),
            "ready" if old.is_null() || old["hostname"].is_null() => Some(Fact::Joined(text("hostname")?)),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn members(place: &Place) -> Command {
    let mut command = program(1);
    command.arg("--socket").arg(socket(place)).arg("members");
    command
}
