//! Examining how this node reaches the others and is reached: what was found, and what it means.
//!
//! Not here: the examination itself (`node::exam`), and what only this machine's operator may see (`cli::doctor`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::addr::{Addresses, interface_addrs};
use super::daemon::{Daemon, Membership};
use super::view::{self, degraded, find};
use crate::api::{
    Degraded, Diagnosis, DoctorRequest, Examiner, Finding, FindingCode, Member, PeerCheck, Problem, ProblemKind,
    Severity, Way,
};
use crate::ca::random;
use crate::node::exam::Found;
use crate::node::{Command, DATAGRAM_BYTES_FLOOR, ExchangeError};
use crate::record::{NodeId, Status};
use crate::wire::exam::{Call, View};
use crate::wire::exchange::EXCHANGE_VERSION;
use crate::wire::frame::FRAME_VERSION;

/// How long one node may take when nobody says otherwise.
const WINDOW: Duration = Duration::from_secs(5);
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// Two wall clocks that far apart are worth a word: node health says so too.
const CLOCK_OFFSET_MS: u64 = 10_000;
/// Managers whose clock is that far off may not decide.
const CLOCK_PROBLEM_MS: u64 = 300_000;

/// What findings about other nodes are seen against.
struct Own {
    version: &'static str,
    datagram_bytes: u16,
    port: u16,
    interface: Option<String>,
    key: u8,
    keys: Vec<u8>,
}

/// Examines nodes, and says what is wrong.
///
/// # Errors
/// A problem.
pub(super) async fn diagnose(
    daemon: &Daemon,
    membership: &Membership,
    request: DoctorRequest,
) -> Result<Diagnosis, Problem> {
    let DoctorRequest { nodes, timeout } = request;
    let window = timeout.as_deref().map_or(Ok(WINDOW), parse_window)?;
    let listed = view::members(membership).await?.members;
    let chosen = choose(listed, &nodes)?;
    let found = examine(membership, chosen.iter().map(|member| member.id).collect(), window).await?;
    let read = |node: &crate::node::Node| (node.ring(), node.datagram_bytes_max(), node.health());
    let ((key, keys), datagram_bytes, health) = membership.engine.query(read).await?;
    let addresses = membership.addresses();
    let own = Own {
        version: env!("CARGO_PKG_VERSION"),
        datagram_bytes,
        port: addresses.advertise.port(),
        interface: interface_of(&addresses),
        key,
        keys,
    };
    let node = Examiner {
        id: daemon.me(),
        hostname: daemon.settings.hostname.clone(),
        version: own.version.to_owned(),
        advertise_addr: addresses.advertise,
        listen_addr: addresses.listen,
        interface: own.interface.clone(),
        datagram_bytes: datagram_bytes.into(),
        degraded: degraded(&health.reasons),
    };
    let mut findings: Vec<_> = node.degraded.iter().map(own_trouble).collect();
    let mut peers = Vec::new();
    for member in &chosen {
        // Whoever was forgotten meanwhile is of no interest.
        let Some(found) = found.get(&member.id) else { continue };
        let check = check(member, found);
        findings.extend(findings_about(&check, found.view.as_ref(), &own));
        peers.push(check);
    }
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.code.cmp(&b.code)));
    Ok(Diagnosis { node, peers, findings })
}

fn parse_window(text: &str) -> Result<Duration, Problem> {
    let window = humantime::parse_duration(text).ok().filter(|window| (WINDOW_MIN..=WINDOW_MAX).contains(window));
    window.ok_or_else(|| ProblemKind::BadRequest.problem(format!("timeout {text:?}: expected 1s to 60s")))
}

/// The nodes that are named, each once; all others that have not left, if none is.
fn choose(listed: Vec<Member>, names: &[String]) -> Result<Vec<Member>, Problem> {
    if names.is_empty() {
        return Ok(listed.into_iter().filter(|member| !member.is_self && member.status != Status::Left).collect());
    }
    let mut chosen: Vec<Member> = Vec::new();
    for name in names {
        let member = find(listed.clone(), name)?;
        if member.is_self {
            return Err(ProblemKind::BadRequest.problem(format!("{name} is this node: it examines the way to others")));
        }
        if chosen.iter().all(|known| known.id != member.id) {
            chosen.push(member);
        }
    }
    Ok(chosen)
}

async fn examine(
    membership: &Membership,
    nodes: Vec<NodeId>,
    window: Duration,
) -> Result<BTreeMap<NodeId, Found>, Problem> {
    let engine = &membership.engine;
    let [a, b, c, d, ..]: [u8; 16] = random().map_err(|error| ProblemKind::Internal.problem(error.to_string()))?;
    let nonce = u32::from_be_bytes([a, b, c, d]);
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    engine.command(Command::Examine { nonce, nodes, window_ms }).await?;
    loop {
        let before = engine.progress();
        match engine.query(move |node| node.examination(nonce)).await? {
            None => {
                let text = "this node examines others already; one examination at a time is enough, try again soon";
                return Err(ProblemKind::Busy.problem(text));
            }
            Some((found, true)) => return Ok(found),
            Some((_, false)) => {
                engine.wait(|progress| progress.confirmations != before.confirmations).await?;
            }
        }
    }
}

fn interface_of(addresses: &Addresses) -> Option<String> {
    interface_addrs().into_iter().find(|one| one.ip == addresses.advertise.ip()).map(|one| one.name)
}

fn of_exchange(outcome: Option<Result<(), ExchangeError>>) -> Way {
    match outcome {
        Some(Ok(())) => Way::Open,
        Some(Err(ExchangeError::Refused)) => Way::Refused,
        Some(Err(ExchangeError::Unreachable)) | None => Way::Silent,
        Some(Err(ExchangeError::Stalled)) => Way::Stalled,
        Some(Err(ExchangeError::WrongPeer | ExchangeError::Broken)) => Way::Broken,
    }
}

const fn of_call(call: Call) -> Way {
    match call {
        Call::NotTried | Call::Pending => Way::Unknown,
        Call::Answered => Way::Open,
        Call::Refused => Way::Refused,
        Call::Unreachable => Way::Silent,
        Call::Stalled => Way::Stalled,
        Call::Broken => Way::Broken,
    }
}

fn check(member: &Member, found: &Found) -> PeerCheck {
    let Found { heard_there, heard_here, speaks, call, clock_ms, rtt_us, view } = found;
    let udp = |came: bool| match (came, view) {
        (true, _) => Way::Open,
        (false, Some(_)) => Way::Silent,
        // It could not say so.
        (false, None) => Way::Unknown,
    };
    PeerCheck {
        id: member.id,
        hostname: member.hostname.clone(),
        address: member.address,
        status: member.status,
        version: member.version.clone(),
        udp_out: udp(*heard_there > 0),
        udp_in: udp(*heard_here > 0 || *speaks),
        tcp_out: of_exchange(*call),
        tcp_in: view.as_ref().map_or(Way::Unknown, |view| of_call(view.call)),
        datagram_out_bytes: (*heard_there).into(),
        datagram_in_bytes: (*heard_here).into(),
        rtt_us: *rtt_us,
        clock_ahead_ms: clock_ms.map(|(ahead_ms, _)| ahead_ms),
        clock_within_ms: clock_ms.map(|(_, within_ms)| within_ms),
        key: view.as_ref().map(|view| view.key.into()),
    }
}

fn own_trouble(reason: &Degraded) -> Finding {
    let (what, remedy) = match reason {
        Degraded::Isolated => ("this node hears nobody", "look at its network and firewall"),
        Degraded::UdpBlocked => ("this node reaches others over TCP only", "look at its firewall for gossip over UDP"),
        Degraded::Slow => (
            "this node, or its datagrams, come late: what was measured here may be wrong",
            "give the machine more CPU, or look for what stops it",
        ),
        Degraded::ClockSkew => {
            ("this node's wall clock differs from most others'", "let the machine keep time: timedatectl set-ntp true")
        }
        Degraded::Other => ("this node is not well", "see 'gossipctl node inspect self'"),
    };
    let (what, remedy) = (what.to_owned(), remedy.to_owned());
    Finding { code: FindingCode::Degraded, severity: Severity::Warning, node: None, what, remedy }
}

/// What is wrong with the way to one node and back.
fn findings_about(check: &PeerCheck, view: Option<&View>, own: &Own) -> Vec<Finding> {
    let name = check.hostname.clone().unwrap_or_else(|| check.id.to_string());
    let mut out = Vec::new();
    let mut add = |code, severity, what: String, remedy: String| {
        out.push(Finding { code, severity, node: Some(check.id), what, remedy });
    };
    let is_other_version = check.version.as_deref().is_some_and(|version| version != own.version);
    if is_other_version {
        let theirs = check.version.as_deref().unwrap_or_default();
        let what = format!("{name} runs gossipd {theirs}, this node {}", own.version);
        add(FindingCode::VersionSkew, Severity::Warning, what, "bring all nodes to one version".to_owned());
    }
    let Some(view) = view else {
        // An older daemon does not know the question: it hangs up, and says nothing over UDP.
        if !(is_other_version && check.tcp_out == Way::Broken) {
            let (what, remedy) = unreached(check, &name, own);
            add(FindingCode::Unreachable, Severity::Problem, what, remedy);
        }
        return out;
    };
    for (code, what, remedy) in blocked(check, &name, own) {
        add(code, Severity::Problem, what, remedy);
    }
    if let Some((what, remedy)) = small(check, &name, own) {
        add(FindingCode::MtuSmall, Severity::Problem, what, remedy);
    }
    if let (Some(ahead_ms), Some(within_ms)) = (check.clock_ahead_ms, check.clock_within_ms) {
        let off_ms = ahead_ms.unsigned_abs().saturating_sub(within_ms);
        if off_ms >= CLOCK_OFFSET_MS {
            let severity = if off_ms >= CLOCK_PROBLEM_MS { Severity::Problem } else { Severity::Warning };
            let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
            let seconds = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
            let what = format!("the clock of {name} is {seconds:.1} s {side} this node's");
            let remedy = "let both machines keep time: timedatectl set-ntp true".to_owned();
            add(FindingCode::ClockOffset, severity, what, remedy);
        }
    }
    if (view.frame_version, view.exchange_version) != (FRAME_VERSION, EXCHANGE_VERSION) {
        let (frame, exchange) = (view.frame_version, view.exchange_version);
        let what = format!(
            "{name} writes datagrams of version {frame} and speaks exchanges of version {exchange}, this node {FRAME_VERSION} and {EXCHANGE_VERSION}"
        );
        add(FindingCode::VersionSkew, Severity::Problem, what, "bring all nodes to one version".to_owned());
    }
    if let Some((severity, what)) = keys_differ(view, &name, own) {
        let remedy = "wait until all nodes have the keys; if that does not happen, look at both logs";
        add(FindingCode::KeySkew, severity, what, remedy.to_owned());
    }
    out
}

/// Nothing came back at all.
fn unreached(check: &PeerCheck, name: &str, own: &Own) -> (String, String) {
    let (address, status) = (check.address, check.status);
    let (seen, remedy) = match check.tcp_out {
        Way::Refused => (
            "its machine refuses connections, and datagrams are not answered",
            "see whether gossipd runs there: systemctl status gossipd".to_owned(),
        ),
        Way::Stalled => (
            "its machine accepts connections, but gossipd does not answer",
            "see whether it is stopped or overloaded: systemctl status gossipd".to_owned(),
        ),
        Way::Broken => (
            "somebody else answers there, or hangs up",
            "see what listens there, and whether that machine is still in this cluster".to_owned(),
        ),
        _ => (
            "nothing comes back, neither over UDP nor over TCP",
            format!("see whether the machine is up, and {}", open(own, "there")),
        ),
    };
    (format!("{name} ({address}, listed as {}) is not reached: {seen}", status.word()), remedy)
}

/// Which port to open where; `here` on this machine, whose interface is known.
fn open(own: &Own, place: &str) -> String {
    let port = own.port;
    match &own.interface {
        Some(interface) if place == "here" => format!(
            "open {port}/udp and {port}/tcp on {interface} of this machine: sh setup.sh --interface {interface}"
        ),
        _ => {
            format!("open {port}/udp and {port}/tcp on that machine's private interface: sh setup.sh --interface NAME")
        }
    }
}

fn blocked(check: &PeerCheck, name: &str, own: &Own) -> Vec<(FindingCode, String, String)> {
    let mut out = Vec::new();
    if check.udp_out == Way::Silent {
        let what = format!("{name} does not get this node's datagrams");
        out.push((FindingCode::UdpBlockedOut, what, open(own, "there")));
    }
    if check.udp_in == Way::Silent {
        let what = format!("{name} cannot reach this node over UDP");
        out.push((FindingCode::UdpBlockedIn, what, open(own, "here")));
    }
    let tried = |way| match way {
        Way::Refused => Some("refused"),
        Way::Silent => Some("no answer"),
        Way::Stalled => Some("accepted, but nobody answered"),
        Way::Broken => Some("broken off"),
        Way::Open | Way::Unknown | Way::Other => None,
    };
    if let Some(how) = tried(check.tcp_out) {
        let what = format!("this node cannot reach {name} over TCP ({how})");
        out.push((FindingCode::TcpBlockedOut, what, open(own, "there")));
    }
    if let Some(how) = tried(check.tcp_in) {
        let what = format!("{name} cannot reach this node over TCP ({how})");
        out.push((FindingCode::TcpBlockedIn, what, open(own, "here")));
    }
    out
}

/// Datagrams get through, but not the largest.
fn small(check: &PeerCheck, name: &str, own: &Own) -> Option<(String, String)> {
    let full = u32::from(own.datagram_bytes);
    let (there, back) = (check.datagram_out_bytes, check.datagram_in_bytes);
    let is_short = |bytes: u32| bytes > 0 && bytes < full;
    let what = match (is_short(there), is_short(back)) {
        (true, true) if there == back => format!("to {name} and back datagrams of up to {there} bytes get through"),
        (true, true) => format!("to {name} datagrams of up to {there} bytes get through, and of up to {back} back"),
        (true, false) => format!("to {name} datagrams of up to {there} bytes get through"),
        (false, true) => format!("from {name} datagrams of up to {back} bytes get through"),
        (false, false) => return None,
    };
    let least = [there, back].into_iter().filter(|bytes| is_short(*bytes)).min()?;
    let remedy = if usize::try_from(least).is_ok_and(|least| least >= DATAGRAM_BYTES_FLOOR) {
        format!(
            "raise the MTU on the way to {} bytes, or set protocol.datagram_bytes_max = {least} on all nodes",
            full + 48
        )
    } else {
        format!("raise the MTU on the way to {} bytes", full + 48)
    };
    Some((format!("{what}, this node sends up to {full} (UDP payload, never fragmented)"), remedy))
}

fn keys_differ(view: &View, name: &str, own: &Own) -> Option<(Severity, String)> {
    let lacks = |keys: &[u8], key: u8| !keys.contains(&key);
    if lacks(&own.keys, view.key) {
        return Some((Severity::Problem, format!("{name} seals with key {}, which this node does not have", view.key)));
    }
    if lacks(&view.keys, own.key) {
        return Some((Severity::Problem, format!("this node seals with key {}, which {name} does not have", own.key)));
    }
    (view.keys != own.keys || view.key != own.key).then(|| {
        let what = format!(
            "{name} seals with key {} of {:?}, this node with {} of {:?}",
            view.key, view.keys, own.key, own.keys
        );
        (Severity::Warning, what)
    })
}

#[cfg(test)]
mod tests;
