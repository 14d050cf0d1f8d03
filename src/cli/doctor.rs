//! `doctor`: what the daemon has found out about the way to the others and back, and what only this machine can show.
//!
//! Not here: the examination (the daemon's). What is added here: whether the programs fit each other, and whether the
//! firewall (ufw) lets others in where the daemon is to be reached.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::args::{DoctorArgs, TableFormat};
use super::exit::{Exit, Failure, Outcome, printable};
use super::render;
use crate::api::{Diagnosis, Finding, FindingCode, PeerCheck, Severity, Way};
use crate::client::Client;

/// How long ufw may take to tell its rules.
const UFW_DEADLINE: Duration = Duration::from_secs(10);
/// Where ufw is, beside what the environment says: root's tools are not in everybody's path.
const UFW_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// Titles of the table.
const TITLES: [&str; 11] =
    ["NODE", "ADDRESS", "STATUS", "UDP OUT", "UDP IN", "TCP OUT", "TCP IN", "DATAGRAMS", "RTT", "CLOCK", "VERSION"];

pub(super) async fn doctor(socket: &Path, args: DoctorArgs) -> Result<Outcome, Failure> {
    let DoctorArgs { format, timeout, nodes } = args;
    let mut diagnosis = Client::connect(socket).await?.doctor(&nodes, timeout).await?;
    diagnosis.findings.extend(other_version(&diagnosis));
    if let Some(status) = ufw_status().await {
        diagnosis.findings.extend(kept_out(&diagnosis, &status));
    }
    diagnosis.findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.code.cmp(&b.code)));
    let out = match format {
        TableFormat::Json => render::json(&diagnosis)?,
        TableFormat::Table => text(&diagnosis),
    };
    let worst = diagnosis.findings.iter().map(|finding| finding.severity).max();
    let verdict = worst.map(|severity| if severity == Severity::Warning { Exit::Warnings } else { Exit::Problems });
    Ok(Outcome { out, verdict, ..Outcome::default() })
}

// ---- this machine ----------------------------------------------------------------------------------------------------

fn other_version(diagnosis: &Diagnosis) -> Option<Finding> {
    let (own, daemon) = (env!("CARGO_PKG_VERSION"), &diagnosis.node.version);
    (own != daemon).then(|| Finding {
        code: FindingCode::VersionSkew,
        severity: Severity::Warning,
        node: None,
        what: format!("gossipctl is of version {own}, the daemon that runs here of {daemon}"),
        remedy: "restart the daemon after an update: systemctl restart gossipd".to_owned(),
    })
}

/// What ufw says of itself; none: there is none, or only root may ask.
async fn ufw_status() -> Option<String> {
    let path = std::env::var("PATH").map_or_else(|_| UFW_PATH.to_owned(), |path| format!("{path}:{UFW_PATH}"));
    let asked = Command::new("ufw")
        .args(["status", "verbose"])
        .env("LC_ALL", "C")
        .env("PATH", path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = timeout(UFW_DEADLINE, asked).await.ok()?.ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Does ufw keep others from where the daemon is to be reached?
fn kept_out(diagnosis: &Diagnosis, status: &str) -> Option<Finding> {
    let (address, port) = (diagnosis.node.advertise_addr.ip(), diagnosis.node.listen_addr.port());
    let interface = diagnosis.node.interface.as_deref().filter(|_| !address.is_loopback())?;
    let shut: Vec<_> = ["udp", "tcp"]
        .into_iter()
        .filter(|protocol| !lets_in(status, Packet { port, protocol, interface, is_v6: address.is_ipv6() }))
        .map(|protocol| format!("{port}/{protocol}"))
        .collect();
    let ports = shut.join(" and ");
    (!shut.is_empty()).then(|| Finding {
        code: FindingCode::Firewall,
        severity: Severity::Problem,
        node: None,
        what: format!("ufw keeps others from {ports} on {interface}"),
        remedy: format!("open {ports} on {interface}: sh setup.sh --interface {interface}"),
    })
}

/// What somebody else sends to the daemon first.
#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    port: u16,
    protocol: &'a str,
    interface: &'a str,
    is_v6: bool,
}

/// Whether ufw lets it in, by what `ufw status verbose` prints: the first rule that fits decides, then the policy.
fn lets_in(status: &str, packet: Packet<'_>) -> bool {
    if !status.lines().any(|line| line.trim() == "Status: active") {
        return true;
    }
    for line in status.lines() {
        let Some((to, action, from)) = rule(line) else { continue };
        let is_v6 = to.contains("(v6)") || from.contains("(v6)");
        if is_v6 != packet.is_v6 || !concerns(to, packet) {
            continue;
        }
        match action {
            "ALLOW" | "LIMIT" => return true,
            // Somebody is kept out; others may not be.
            _ if !from.trim_start().starts_with("Anywhere") => {}
            _ => return false,
        }
    }
    !["deny (incoming)", "reject (incoming)"].iter().any(|policy| status.contains(policy))
}

/// The three columns of a rule about what comes in.
fn rule(line: &str) -> Option<(&str, &str, &str)> {
    ["ALLOW", "LIMIT", "DENY", "REJECT"].into_iter().find_map(|action| {
        let (to, rest) = line.split_once(&format!(" {action} "))?;
        let from = rest.trim_start();
        (!from.starts_with("OUT") && !from.starts_with("FWD"))
            .then(|| (to, action, from.strip_prefix("IN").unwrap_or(from)))
    })
}

/// Whether the first column of a rule is about the packet.
fn concerns(to: &str, Packet { port, protocol, interface, .. }: Packet<'_>) -> bool {
    let (to, on) = to.split_once(" on ").map_or((to, None), |(to, on)| (to, Some(on.trim())));
    if on.is_some_and(|on| on.split_whitespace().next() != Some(interface)) {
        return false;
    }
    to.split_whitespace().any(|word| {
        let (ports, of) = word.split_once('/').map_or((word, None), |(ports, of)| (ports, Some(of)));
        let fits = ports == "Anywhere"
            || ports.split(',').any(|range| {
                let (low, high) = range.split_once(':').unwrap_or((range, range));
                matches!((low.parse::<u16>(), high.parse::<u16>()), (Ok(low), Ok(high)) if (low..=high).contains(&port))
            });
        fits && of.is_none_or(|of| of == protocol)
    })
}

// ---- how it looks ----------------------------------------------------------------------------------------------------

fn text(diagnosis: &Diagnosis) -> String {
    let full = diagnosis.node.datagram_bytes;
    let mut out = render::table(&TITLES, diagnosis.peers.iter().map(|peer| row(peer, full)));
    let count = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let _ = match diagnosis.findings.len() {
        0 => writeln!(out, "\nNothing found."),
        _ => writeln!(out, "\n{}, {}:", counted(problems, "problem"), counted(warnings, "warning")),
    };
    for (at, Finding { code, severity, node: _, what, remedy }) in diagnosis.findings.iter().enumerate() {
        let severity = match severity {
            Severity::Problem => "problem",
            Severity::Warning => "warning",
            Severity::Other => "-",
        };
        let _ = writeln!(out, "{severity}   {:15}   {}", code.word(), printable(what));
        // What helps against several is said once.
        let next = diagnosis.findings.get(at + 1);
        if next.is_none_or(|next| (next.code, &next.remedy) != (*code, remedy)) {
            let _ = writeln!(out, "                            {}", printable(remedy));
        }
    }
    out
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn row(peer: &PeerCheck, full: u32) -> Vec<String> {
    let datagrams = match peer.datagram_out_bytes.min(peer.datagram_in_bytes) {
        0 => "-".to_owned(),
        bytes if bytes >= full => format!("{bytes}"),
        bytes => format!("{bytes} of {full}"),
    };
    let seconds = |ms: i64| format!("{}{}.{:03}s", if ms < 0 { '-' } else { '+' }, ms.abs() / 1_000, ms.abs() % 1_000);
    vec![
        printable(&peer.hostname.clone().unwrap_or_else(|| peer.id.to_string())),
        peer.address.to_string(),
        peer.status.title().to_owned(),
        way(peer.udp_out),
        way(peer.udp_in),
        way(peer.tcp_out),
        way(peer.tcp_in),
        datagrams,
        render::known(peer.rtt_us.map(render::milliseconds)),
        render::known(peer.clock_ahead_ms.map(seconds)),
        render::known(peer.version.as_deref().map(printable)),
    ]
}

fn way(way: Way) -> String {
    let word = match way {
        Way::Open => "open",
        Way::Refused => "refused",
        Way::Silent => "silent",
        Way::Stalled => "stalled",
        Way::Broken => "broken",
        Way::Unknown | Way::Other => "-",
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "\
Status: active
Logging: on (low)
Default: deny (incoming), allow (outgoing), allow (routed)
New profiles: skip

To                         Action      From
--                         ------      ----
22                         LIMIT IN    Anywhere
7946/tcp (gossipd) on eth1 ALLOW IN    Anywhere
7946/udp (gossipd) on eth1 ALLOW IN    Anywhere
22 (v6)                    LIMIT IN    Anywhere (v6)
7946/tcp (gossipd (v6)) on eth1 ALLOW IN    Anywhere (v6)
";

    fn with_rules(rules: &str) -> String {
        format!(
            "Status: active\nDefault: deny (incoming), allow (outgoing)\n\nTo Action From\n-- ------ ----\n{rules}\n"
        )
    }

    fn udp(interface: &str) -> Packet<'_> {
        Packet { port: 7946, protocol: "udp", interface, is_v6: false }
    }

    #[test]
    fn what_setup_has_opened_is_open_there_only() {
        let tcp_v6 = Packet { port: 7946, protocol: "tcp", interface: "eth1", is_v6: true };
        assert!(lets_in(OPEN, udp("eth1")));
        assert!(lets_in(OPEN, tcp_v6));
        assert!(!lets_in(OPEN, udp("eth0")));
        assert!(!lets_in(OPEN, Packet { protocol: "udp", ..tcp_v6 }));
        assert!(lets_in("Status: inactive\n", udp("eth0")));
        assert!(lets_in(&OPEN.replace("deny (incoming)", "allow (incoming)"), udp("eth0")));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rows = [
            ("7946                       ALLOW IN    Anywhere", true),
            ("7946/tcp                   ALLOW IN    Anywhere", false),
            ("7000:8000/udp              ALLOW IN    Anywhere", true),
            ("80,7946/udp                ALLOW IN    Anywhere", true),
            ("7946/udp                   ALLOW       10.130.0.0/16", true),
            ("Anywhere on eth1           ALLOW IN    Anywhere", true),
            ("Anywhere on eth10          ALLOW IN    Anywhere", false),
            ("Anywhere                   ALLOW IN    10.130.0.0/16", true),
            ("10.130.27.207 7946/udp     ALLOW IN    Anywhere", true),
            ("7946/udp                   ALLOW OUT   Anywhere", false),
            ("7946 DENY IN Anywhere\n7946 ALLOW IN Anywhere", false),
            ("7946 DENY IN 192.0.2.1\n7946 ALLOW IN Anywhere", true),
            ("17946/udp                  ALLOW IN    Anywhere", false),
        ];
        for (rules, expected) in rows {
            assert_eq!(lets_in(&with_rules(rules), udp("eth1")), expected, "{rules}");
        }
    }

    fn diagnosis() -> Diagnosis {
        serde_json::from_value(serde_json::json!({
            "node": {
                "id": "2kg2t2k8m82luzxr3e76dnooo", "hostname": "swarm1", "version": env!("CARGO_PKG_VERSION"),
                "advertise_addr": "10.130.27.207:7946", "listen_addr": "10.130.27.207:7946", "interface": "eth1",
                "datagram_bytes": 1200, "degraded": [],
            },
            "peers": [{
                "id": "5rvbmjkg5g2jdp3s4vti21x19", "hostname": "swarm2", "address": "10.130.27.208:7946", "status": "ready",
                "version": "0.1.0", "udp_out": "open", "udp_in": "silent", "tcp_out": "open", "tcp_in": "open",
                "datagram_out_bytes": 1200, "datagram_in_bytes": 0, "rtt_us": null, "clock_ahead_ms": -1_042,
                "clock_within_ms": 1, "key": 1,
            }],
            "findings": [{
                "code": "udp-blocked-in", "severity": "problem", "node": "5rvbmjkg5g2jdp3s4vti21x19",
                "what": "swarm2 cannot reach this node over UDP", "remedy": "open it",
            }],
        }))
        .unwrap()
    }

    #[test]
    fn firewall_and_versions_are_added() {
        assert_eq!(other_version(&diagnosis()), None);
        assert_eq!(kept_out(&diagnosis(), OPEN), None);
        let found = kept_out(&diagnosis(), &with_rules("22 ALLOW IN Anywhere")).unwrap();
        assert_eq!(found.what, "ufw keeps others from 7946/udp and 7946/tcp on eth1");
        let mut other = diagnosis();
        other.node.version = "9.9.9".to_owned();
        assert_eq!(other_version(&other).unwrap().severity, Severity::Warning);
    }

    #[test]
    fn findings_are_told_below_the_table() {
        insta::assert_snapshot!(text(&diagnosis()), @"
        NODE     ADDRESS              STATUS   UDP OUT   UDP IN   TCP OUT   TCP IN   DATAGRAMS   RTT   CLOCK     VERSION
        swarm2   10.130.27.208:7946   Ready    open      silent   open      open     -           -     -1.042s   0.1.0

        1 problem, 0 warnings:
        problem   udp-blocked-in    swarm2 cannot reach this node over UDP
                                    open it
        ");
        insta::assert_snapshot!(text(&Diagnosis { findings: Vec::new(), ..diagnosis() }).lines().last().unwrap(), @"Nothing found.");
    }
}
