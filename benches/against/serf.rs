//! Serf: its agent, its RPC, and its log.
//!
//! The RPC is MessagePack over TCP: a header with command and number, then what the command takes. Only what is sent is
//! written here; of answers nothing but their arrival matters.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Fact, Place};

const PORT: u16 = 7946;
const RPC_PORT: u16 = 7373;
/// 32 bytes, as gossipd's keys are.
const KEY: &str = "+jvXypHYVXl89RvSxAwP0XGEXTmdJ98WsOSR7fyln7I=";

pub(crate) fn version() -> Command {
    let mut command = Command::new("serf");
    command.arg("version");
    command
}

fn rpc(place: &Place) -> String {
    format!("{}:{RPC_PORT}", place.ip)
}

pub(crate) fn agent(name: &str, place: &Place) -> Command {
    // It goes when this process does.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "serf", "agent"]);
    command.args(["-profile=lan", "-log-level=info", &format!("-node={name}"), &format!("-encrypt={KEY}")]);
    command.args([format!("-bind={}:{PORT}", place.ip), format!("-rpc-addr={}", rpc(place))]);
    command
}

/// Waits until it answers.
pub(crate) fn ready(place: &Place) {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(rpc(place)).is_err() {
        assert!(Instant::now() < end, "serf does not start");
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- MessagePack -----------------------------------------------------------------------------------------------------

enum Pack<'a> {
    Text(&'a str),
    Number(u32),
    Flag(bool),
    List(Vec<Pack<'a>>),
    Map(Vec<(&'a str, Pack<'a>)>),
}

impl Pack<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let short = |len: usize| u8::try_from(len).ok().filter(|len| *len < 16).expect("few entries");
        match self {
            Self::Text(text) => {
                // raw 16: what all versions of the format read.
                out.push(0xda);
                out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                out.extend(text.as_bytes());
            }
            Self::Number(number) => {
                out.push(0xce);
                out.extend(number.to_be_bytes());
            }
            Self::Flag(flag) => out.push(0xc2 + u8::from(*flag)),
            Self::List(items) => {
                out.push(0x90 | short(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(entries) => {
                out.push(0x80 | short(entries.len()));
                for (key, value) in entries {
                    Pack::Text(key).write(out);
                    value.write(out);
                }
            }
        }
    }
}

/// Sends commands over one connection, all at once, and waits until something was answered to the last.
fn send(place: &Place, commands: Vec<(&str, Pack<'_>)>) {
    let mut stream = TcpStream::connect(rpc(place).parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let handshake = ("handshake", Pack::Map(vec![("Version", Pack::Number(1))]));
    let mut out = Vec::new();
    let mut last = 0;
    for (command, body) in std::iter::once(handshake).chain(commands) {
        last += 1;
        Pack::Map(vec![("Command", Pack::Text(command)), ("Seq", Pack::Number(last))]).write(&mut out);
        body.write(&mut out);
    }
    stream.write_all(&out).unwrap();
    // Each answer is a map that names its number.
    let mut answers = 0;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while answers < last {
        let Ok(length) = stream.read(&mut buffer) else { panic!("serf does not answer") };
        // Told to leave, it may hang up.
        if length == 0 {
            return;
        }
        seen.extend_from_slice(&buffer[..length]);
        answers = u32::try_from(seen.windows(3).filter(|three| three == b"Seq").count()).unwrap();
    }
}

// ---- commands --------------------------------------------------------------------------------------------------------

pub(crate) fn join(seed: &Place, place: &Place) {
    let existing = format!("{}:{PORT}", seed.ip);
    let body = Pack::Map(vec![("Existing", Pack::List(vec![Pack::Text(&existing)])), ("Replay", Pack::Flag(false))]);
    send(place, vec![("join", body)]);
}

pub(crate) fn leave(place: &Place) {
    // Its answer comes when it has left; what the others have heard by then is on its way here already.
    let place = place.clone();
    thread::spawn(move || send(&place, vec![("leave", Pack::Map(Vec::new()))]));
}

pub(crate) fn tag(place: &Place, value: &str) {
    let tags = Pack::Map(vec![("bench", Pack::Text(value))]);
    let place = place.clone();
    let body = Pack::Map(vec![("Tags", tags), ("DeleteTags", Pack::List(Vec::new()))]);
    send(&place, vec![("tags", body)]);
}

pub(crate) fn events(place: &Place, names: &[String]) {
    let body = |name| {
        Pack::Map(vec![("Name", Pack::Text(name)), ("Payload", Pack::Text("")), ("Coalesce", Pack::Flag(false))])
    };
    send(place, names.iter().map(|name| ("event", body(name.as_str()))).collect());
}

/// What a line of the log tells.
pub(crate) fn fact(line: &str) -> Option<Fact> {
    if let Some((_, name)) = line.split_once("agent: Received event: user-event: ") {
        return Some(Fact::Told(name.trim().to_owned()));
    }
    let (_, rest) = line.split_once("serf: EventMember")?;
    let (kind, rest) = rest.split_once(": ")?;
    let name = rest.split_whitespace().next()?.to_owned();
    match kind {
        "Join" => Some(Fact::Joined(name)),
        "Failed" => Some(Fact::Failed(name)),
        "Leave" => Some(Fact::Left(name)),
        "Update" => Some(Fact::Changed(name)),
        _ => None,
    }
}

pub(crate) fn members(place: &Place) -> Command {
    let mut command = Command::new("serf");
    command.args(["members", &format!("-rpc-addr={}", rpc(place))]);
    command
}
