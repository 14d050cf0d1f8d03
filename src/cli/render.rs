//! How answers look: Docker's texts and tables for people, JSON for programs.
//!
//! Not here: where it is written, and whether stdout is a terminal (`ctl`, `exit`). Everything here is a function from
//! an answer to text, so that snapshots can hold it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::exit::printable;
use crate::api::{Capacity, Decision, Degraded, InitResponse, JoinResponse, JoinToken, Member, Platform};
use crate::record::{NodeId, Role, Status};

/// Longest host name in a table, in characters: with it the usual table still fits 140 columns.
const HOSTNAME_CHARS_MAX: usize = 32;
/// Longest version in a table, in characters: a release with a commit's short hash fits.
const VERSION_CHARS_MAX: usize = 20;
/// Blanks between columns, as Docker has them.
const COLUMN_GAP: u16 = 3;
/// Where values begin in `node inspect --pretty`, as Docker has it.
const VALUE_COLUMN: usize = 24;
/// What stands where nothing is known.
const UNKNOWN: &str = "-";

const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// How a table is to look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Bold titles, and rows of nodes in trouble in colour.
    pub(super) colour: bool,
    /// Long names in full.
    pub(super) full: bool,
    /// With columns that Docker does not have.
    pub(super) wide: bool,
}

/// Titles of the usual table, as Docker has them.
const TITLES: [&str; 7] = ["ID", "HOSTNAME", "ADDRESS", "STATUS", "AVAILABILITY", "MANAGER STATUS", "VERSION"];
/// Titles of the columns that a wide table has besides.
const TITLES_WIDE: [&str; 3] = ["RTT", "LAST HEARD", "DEGRADED"];

/// The table of nodes, in the order given.
pub(super) fn members_table(members: &[Member], look: Look) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let wide = if look.wide { TITLES_WIDE.as_slice() } else { &[] };
    table.set_header(TITLES.iter().chain(wide));
    for member in members {
        let mark = if member.is_self { " *" } else { "" };
        let usual = [
            format!("{}{mark}", member.id),
            known(member.hostname.as_ref().map(|name| shortened(name, HOSTNAME_CHARS_MAX, look))),
            member.address.to_string(),
            member.status.title().to_owned(),
            known(member.availability.map(|availability| availability.title())),
            member.manager_status.map_or_else(String::new, |status| status.title().to_owned()),
            known(member.version.as_ref().map(|version| shortened(version, VERSION_CHARS_MAX, look))),
        ];
        let wide = look.wide.then(|| {
            [
                known(member.rtt_us.map(milliseconds)),
                known(member.last_heard_ms.map(ago)),
                known(reasons(&member.degraded)),
            ]
        });
        table.add_row(usual.into_iter().chain(wide.into_iter().flatten()));
    }
    let text = with_gaps(table);

    let colours = std::iter::once(BOLD).chain(members.iter().map(|member| colour(member.status)));
    let mut out = String::with_capacity(text.len() + members.len());
    for (line, colour) in text.lines().zip(colours) {
        if look.colour && !colour.is_empty() {
            out.extend([colour, line, PLAIN]);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn with_gaps(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, COLUMN_GAP));
    }
    table.trim_fmt()
}

/// A table without colours, the titles first.
pub(super) fn table(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(titles);
    for row in rows {
        table.add_row(row);
    }
    with_gaps(table).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What is wrong; none: nothing.
fn reasons(degraded: &[Degraded]) -> Option<String> {
    let words: Vec<_> = degraded.iter().map(|reason| reason.word()).collect();
    (!words.is_empty()).then(|| words.join(","))
}

const fn colour(status: Status) -> &'static str {
    match status {
        Status::Ready | Status::Left => "",
        Status::Suspect => YELLOW,
        Status::Down => RED,
    }
}

fn shortened(text: &str, chars_max: usize, look: Look) -> String {
    if look.full || text.chars().count() <= chars_max {
        return printable(text);
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    format!("{}…", printable(&kept))
}

/// A value, or what stands where nothing is known.
pub(super) fn known(value: Option<impl Display>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// The ids, a line each.
pub(super) fn ids(members: &[Member]) -> String {
    members.iter().map(|member| format!("{}\n", member.id)).collect()
}

/// One JSON document, indented.
pub(super) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// One JSON document for each value, a line each.
pub(super) fn ndjson<T: Serialize>(values: &[T]) -> Result<String, serde_json::Error> {
    values.iter().map(|value| Ok(serde_json::to_string(value)? + "\n")).collect()
}

/// All that is known of the nodes, as `docker node inspect --pretty` lays it out; a blank line between two.
pub(super) fn inspect_pretty(members: &[Member]) -> String {
    members.iter().map(member_pretty).collect::<Vec<_>>().join("\n")
}

fn member_pretty(member: &Member) -> String {
    // Destructured in full: what is new is to be shown too.
    let Member {
        id,
        hostname,
        address,
        status,
        since,
        availability,
        role,
        manager_status,
        leader_term,
        labels,
        decisions,
        data_path_addr,
        version,
        platform,
        joined_at,
        certificate_expires_at,
        capacity,
        daemon_labels,
        metadata,
        generation,
        incarnation,
        last_heard_ms,
        rtt_us,
        degraded,
        away_s,
        is_self: _,
    } = member;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let name = format!("{name}:");
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{}", format!("{name:VALUE_COLUMN$}{}", printable(&value)).trim_end());
    };
    line("ID", id.to_string());
    line("Hostname", known(hostname.as_ref()));
    line("Joined at", known(joined_at.as_ref()));
    line("Status", String::new());
    line(" State", status.title().to_owned());
    line(" Availability", known(availability.map(|availability| availability.title())));
    line(" Address", address.to_string());
    line(" Degraded", known(reasons(degraded)));
    if let Some(away_s) = away_s {
        line(" Away", format!("has announced to be back within {away_s} s"));
    }
    machine(&mut line, platform.as_ref(), capacity.as_ref());
    line("Role", known(role.map(Role::title)));
    if let Some(status) = manager_status {
        let term = leader_term.map_or_else(String::new, |term| format!(" in term {term}"));
        line("Manager Status", format!("{}{term}", status.title()));
    }
    attached(&mut line, [("Labels", labels), ("Daemon labels", daemon_labels), ("Metadata", metadata)], decisions);
    line("Data path address", known(*data_path_addr));
    line("Version", known(version.as_ref()));
    line("Certificate until", known(certificate_expires_at.as_ref()));
    line("Generation", generation.to_string());
    line("Incarnation", incarnation.to_string());
    line("Since", since.clone());
    line("Last heard", known(last_heard_ms.map(ago)));
    line("Round trip", known(rtt_us.map(milliseconds)));
    out
}

/// What it runs on.
fn machine(line: &mut impl FnMut(&str, String), platform: Option<&Platform>, capacity: Option<&Capacity>) {
    line("Platform", String::new());
    line(" Operating System", known(platform.map(|platform| &platform.os)));
    line(" Architecture", known(platform.map(|platform| &platform.arch)));
    if let Some(Capacity { cpus, memory_bytes }) = capacity {
        line("Resources", String::new());
        line(" CPUs", cpus.to_string());
        line(" Memory", format!("{} MiB", memory_bytes >> 20));
    }
}

/// Labels, metadata, and what was decided.
fn attached(
    line: &mut impl FnMut(&str, String),
    attached: [(&str, &BTreeMap<String, String>); 3],
    decisions: &[Decision],
) {
    for (title, values) in attached {
        if !values.is_empty() {
            line(title, String::new());
            values.iter().for_each(|(key, value)| line(&format!(" {key}"), value.clone()));
        }
    }
    if !decisions.is_empty() {
        line("Decided", String::new());
        decisions.iter().for_each(|decision| line(&format!(" {}", what(decision)), who(decision)));
    }
}

fn what(Decision { register, key, .. }: &Decision) -> String {
    key.as_ref().map_or_else(|| register.clone(), |key| format!("{register} {key}"))
}

fn who(Decision { value, by, at, reason, deadline, .. }: &Decision) -> String {
    let value = value.as_deref().unwrap_or(UNKNOWN);
    let reason = reason.as_ref().map_or_else(String::new, |reason| format!(", because: {reason}"));
    let deadline = deadline.as_ref().map_or_else(String::new, |deadline| format!(", until {deadline}"));
    format!("{value} by {by} at {at}{deadline}{reason}")
}

/// Milliseconds below a second, whole seconds above.
fn ago(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms} ms ago");
    }
    format!("{} ago", humantime::format_duration(Duration::from_secs(ms / 1000)))
}

pub(super) fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

/// What `init` says.
pub(super) fn initialized(answer: &InitResponse) -> String {
    let InitResponse { node_id, cluster_id: _, advertise_addr, worker_token, manager_token: _ } = answer;
    format!(
        "Cluster initialized: current node ({node_id}) is now a manager.\n\n{}\
         To add a manager to this cluster, run 'gossipctl join-token manager' and follow the instructions.\n",
        how_to_join(Role::Worker, worker_token, advertise_addr),
    )
}

fn how_to_join(role: Role, token: &str, remote: &impl Display) -> String {
    format!(
        "To add a {role} to this cluster, run the following command:\n\n    gossipctl join --token {token} {remote}\n\n"
    )
}

/// What `join` says.
pub(super) fn joined(answer: &JoinResponse) -> String {
    format!("This node joined a cluster as a {}.\n", answer.role)
}

/// What `join-token` says of a token that there is.
pub(super) fn join_token(answer: &JoinToken, token: &str, rotated: bool) -> String {
    let role = answer.role;
    let mut out = String::new();
    if rotated {
        out.push_str(&format!("Successfully rotated {role} join token.\n\n"));
    }
    out.push_str(&how_to_join(role, token, &answer.remote));
    let until = answer.expires_at.as_ref().map(|end| format!("until {end}"));
    let joins = answer.uses_left.map(|left| format!("for {left} more {}", if left == 1 { "join" } else { "joins" }));
    let limits: Vec<String> = until.into_iter().chain(joins).collect();
    if !limits.is_empty() {
        out.push_str(&format!("This token is valid {}.\n\n", limits.join(" and ")));
    }
    out
}

/// Why nobody can join with a token; none: nodes can.
pub(super) fn useless(answer: &JoinToken, now: SystemTime) -> Option<String> {
    let role = answer.role;
    let end = answer.expires_at.as_ref().filter(|end| humantime::parse_rfc3339(end).is_ok_and(|end| end <= now));
    let why = match (end, answer.uses_left) {
        (Some(end), _) => format!("expired at {end}"),
        (None, Some(0)) => "is used up: no more nodes can join with it".to_owned(),
        (None, _) => return None,
    };
    Some(format!("the {role} join token {why}; 'gossipctl join-token {role} --rotate' makes a new one"))
}

/// What `join-token --revoke` says.
pub(super) fn revoked(role: Role) -> String {
    format!(
        "Revoked the {role} join token. Nobody can join as a {role} until \
         'gossipctl join-token {role} --rotate' makes a new one.\n"
    )
}

/// The warning about managers that may still accept an old token.
pub(super) fn unconfirmed(managers: &[NodeId]) -> Option<String> {
    if managers.is_empty() {
        return None;
    }
    let names: Vec<String> = managers.iter().map(NodeId::to_string).collect();
    Some(format!(
        "these managers have not confirmed the change yet and may still accept the old token: {}",
        names.join(", ")
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::api::ManagerStatus;
    use crate::record::Availability;

    /// Three nodes: this one, one in trouble with long names, one of which no record has come yet.
    pub(in crate::cli) fn members() -> Vec<Member> {
        let known = Member {
            id: "bj8muio9ov1wkkxg7ts1lqozc".parse().unwrap(),
            hostname: Some("swarm1".into()),
            address: SocketAddr::from(([10, 130, 27, 207], 7946)),
            status: Status::Ready,
            since: "2026-03-12T14:11:27Z".into(),
            availability: Some(Availability::Active),
            role: Some(Role::Manager),
            manager_status: Some(ManagerStatus::Reachable),
            leader_term: None,
            labels: [("zone".to_owned(), "fra1".to_owned())].into(),
            decisions: vec![Decision {
                node: Some("bj8muio9ov1wkkxg7ts1lqozc".parse().unwrap()),
                register: "availability".into(),
                key: None,
                value: Some("active".into()),
                by: "cywjboq8e8pk1buntrulod9fu".parse().unwrap(),
                at: "2026-03-12T15:00:00.000Z".into(),
                reason: Some("kernel update".into()),
                deadline: Some("2026-03-12T15:10:00.000Z".into()),
            }],
            data_path_addr: Some([10, 130, 27, 207].into()),
            version: Some("0.1.0".into()),
            platform: Some(Platform { os: "linux".into(), arch: "x86_64".into() }),
            joined_at: Some("2026-03-12T14:11:26.074Z".into()),
            certificate_expires_at: Some("2026-06-10T14:11:26.074Z".into()),
            capacity: Some(Capacity { cpus: 2, memory_bytes: 4 << 30 }),
            daemon_labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            metadata: [("slots".to_owned(), "7".to_owned())].into(),
            generation: 1,
            incarnation: 0,
            last_heard_ms: None,
            rtt_us: None,
            degraded: vec![Degraded::Isolated, Degraded::Slow],
            away_s: None,
            is_self: true,
        };
        let long = Member {
            id: "cywjboq8e8pk1buntrulod9fu".parse().unwrap(),
            hostname: Some("a-very-long-host-name.with.a.domain.example.com".into()),
            address: "[2001:db8::7]:7946".parse().unwrap(),
            status: Status::Down,
            availability: Some(Availability::Drain),
            role: Some(Role::Worker),
            manager_status: None,
            leader_term: None,
            labels: BTreeMap::new(),
            decisions: Vec::new(),
            data_path_addr: Some("2001:db8::7".parse().unwrap()),
            version: Some("0.1.0-nightly.20260312+0123abcd".into()),
            generation: 3,
            incarnation: 2,
            last_heard_ms: Some(125_300),
            rtt_us: Some(1042),
            degraded: vec![Degraded::UdpBlocked],
            away_s: Some(10),
            is_self: false,
            ..known.clone()
        };
        let unknown = Member {
            id: "955jic8bg1giuljuv9901lic1".parse().unwrap(),
            hostname: None,
            address: SocketAddr::from(([10, 130, 27, 9], 7946)),
            status: Status::Suspect,
            availability: None,
            role: None,
            manager_status: None,
            leader_term: None,
            labels: BTreeMap::new(),
            decisions: Vec::new(),
            data_path_addr: None,
            version: None,
            platform: None,
            joined_at: None,
            last_heard_ms: Some(120),
            degraded: Vec::new(),
            is_self: false,
            ..known.clone()
        };
        vec![known, long, unknown]
    }

    #[test]
    fn table() {
        insta::assert_snapshot!(members_table(&members(), Look::default()), @"
        ID                            HOSTNAME                           ADDRESS              STATUS    AVAILABILITY   MANAGER STATUS   VERSION
        bj8muio9ov1wkkxg7ts1lqozc *   swarm1                             10.130.27.207:7946   Ready     Active         Reachable        0.1.0
        cywjboq8e8pk1buntrulod9fu     a-very-long-host-name.with.a.do…   [2001:db8::7]:7946   Down      Drain                           0.1.0-nightly.20260…
        955jic8bg1giuljuv9901lic1     -                                  10.130.27.9:7946     Suspect   -                               -
        ");
    }

    #[test]
    fn table_in_full() {
        insta::assert_snapshot!(members_table(&members(), Look { full: true, ..Look::default() }), @"
        ID                            HOSTNAME                                          ADDRESS              STATUS    AVAILABILITY   MANAGER STATUS   VERSION
        bj8muio9ov1wkkxg7ts1lqozc *   swarm1                                            10.130.27.207:7946   Ready     Active         Reachable        0.1.0
        cywjboq8e8pk1buntrulod9fu     a-very-long-host-name.with.a.domain.example.com   [2001:db8::7]:7946   Down      Drain                           0.1.0-nightly.20260312+0123abcd
        955jic8bg1giuljuv9901lic1     -                                                 10.130.27.9:7946     Suspect   -                               -
        ");
    }

    #[test]
    fn table_in_colour() {
        let text = members_table(&members(), Look { colour: true, ..Look::default() });
        insta::assert_snapshot!(text.replace('\u{1b}', "ESC"), @"
        ESC[1mID                            HOSTNAME                           ADDRESS              STATUS    AVAILABILITY   MANAGER STATUS   VERSIONESC[0m
        bj8muio9ov1wkkxg7ts1lqozc *   swarm1                             10.130.27.207:7946   Ready     Active         Reachable        0.1.0
        ESC[31mcywjboq8e8pk1buntrulod9fu     a-very-long-host-name.with.a.do…   [2001:db8::7]:7946   Down      Drain                           0.1.0-nightly.20260…ESC[0m
        ESC[33m955jic8bg1giuljuv9901lic1     -                                  10.130.27.9:7946     Suspect   -                               -ESC[0m
        ");
    }

    #[test]
    fn table_with_all_columns() {
        insta::assert_snapshot!(members_table(&members(), Look { wide: true, ..Look::default() }), @"
        ID                            HOSTNAME                           ADDRESS              STATUS    AVAILABILITY   MANAGER STATUS   VERSION                RTT        LAST HEARD   DEGRADED
        bj8muio9ov1wkkxg7ts1lqozc *   swarm1                             10.130.27.207:7946   Ready     Active         Reachable        0.1.0                  -          -            isolated,slow
        cywjboq8e8pk1buntrulod9fu     a-very-long-host-name.with.a.do…   [2001:db8::7]:7946   Down      Drain                           0.1.0-nightly.20260…   1.042 ms   2m 5s ago    udp-blocked
        955jic8bg1giuljuv9901lic1     -                                  10.130.27.9:7946     Suspect   -                               -                      -          120 ms ago   -
        ");
    }

    #[test]
    fn table_of_nobody_has_its_titles() {
        insta::assert_snapshot!(members_table(&[], Look::default()), @"ID   HOSTNAME   ADDRESS   STATUS   AVAILABILITY   MANAGER STATUS   VERSION");
    }

    #[test]
    fn no_line_ends_in_blanks_and_none_can_write_on_a_terminal() {
        let mut members = members();
        members[0].version = Some("\u{1b}[2J".into());
        members[1].hostname = Some("a\nb".into());
        for text in [members_table(&members, Look::default()), inspect_pretty(&members)] {
            assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
            assert!(!text.contains('\u{1b}') && !text.contains("a\nb"), "{text:?}");
        }
    }

    #[test]
    fn ids_alone() {
        insta::assert_snapshot!(ids(&members()), @"
        bj8muio9ov1wkkxg7ts1lqozc
        cywjboq8e8pk1buntrulod9fu
        955jic8bg1giuljuv9901lic1
        ");
    }

    #[test]
    fn lines_of_json() {
        insta::assert_snapshot!(ndjson(&members()).unwrap(), @r#"
        {"id":"bj8muio9ov1wkkxg7ts1lqozc","hostname":"swarm1","address":"10.130.27.207:7946","status":"ready","since":"2026-03-12T14:11:27Z","availability":"active","role":"manager","manager_status":"reachable","leader_term":null,"labels":{"zone":"fra1"},"decisions":[{"node":"bj8muio9ov1wkkxg7ts1lqozc","register":"availability","key":null,"value":"active","by":"cywjboq8e8pk1buntrulod9fu","at":"2026-03-12T15:00:00.000Z","reason":"kernel update","deadline":"2026-03-12T15:10:00.000Z"}],"data_path_addr":"10.130.27.207","version":"0.1.0","platform":{"os":"linux","arch":"x86_64"},"joined_at":"2026-03-12T14:11:26.074Z","certificate_expires_at":"2026-06-10T14:11:26.074Z","capacity":{"cpus":2,"memory_bytes":4294967296},"daemon_labels":{"disk":"ssd"},"metadata":{"slots":"7"},"generation":1,"incarnation":0,"last_heard_ms":null,"rtt_us":null,"degraded":["isolated","slow"],"away_s":null,"self":true}
        {"id":"cywjboq8e8pk1buntrulod9fu","hostname":"a-very-long-host-name.with.a.domain.example.com","address":"[2001:db8::7]:7946","status":"down","since":"2026-03-12T14:11:27Z","availability":"drain","role":"worker","manager_status":null,"leader_term":null,"labels":{},"decisions":[],"data_path_addr":"2001:db8::7","version":"0.1.0-nightly.20260312+0123abcd","platform":{"os":"linux","arch":"x86_64"},"joined_at":"2026-03-12T14:11:26.074Z","certificate_expires_at":"2026-06-10T14:11:26.074Z","capacity":{"cpus":2,"memory_bytes":4294967296},"daemon_labels":{"disk":"ssd"},"metadata":{"slots":"7"},"generation":3,"incarnation":2,"last_heard_ms":125300,"rtt_us":1042,"degraded":["udp-blocked"],"away_s":10,"self":false}
        {"id":"955jic8bg1giuljuv9901lic1","hostname":null,"address":"10.130.27.9:7946","status":"suspect","since":"2026-03-12T14:11:27Z","availability":null,"role":null,"manager_status":null,"leader_term":null,"labels":{},"decisions":[],"data_path_addr":null,"version":null,"platform":null,"joined_at":null,"certificate_expires_at":"2026-06-10T14:11:26.074Z","capacity":{"cpus":2,"memory_bytes":4294967296},"daemon_labels":{"disk":"ssd"},"metadata":{"slots":"7"},"generation":1,"incarnation":0,"last_heard_ms":120,"rtt_us":null,"degraded":[],"away_s":null,"self":false}
        "#);
    }

    #[test]
    fn pretty() {
        insta::assert_snapshot!(inspect_pretty(&members()[1..]), @"
        ID:                     cywjboq8e8pk1buntrulod9fu
        Hostname:               a-very-long-host-name.with.a.domain.example.com
        Joined at:              2026-03-12T14:11:26.074Z
        Status:
         State:                 Down
         Availability:          Drain
         Address:               [2001:db8::7]:7946
         Degraded:              udp-blocked
         Away:                  has announced to be back within 10 s
        Platform:
         Operating System:      linux
         Architecture:          x86_64
        Resources:
         CPUs:                  2
         Memory:                4096 MiB
        Role:                   Worker
        Daemon labels:
         disk:                  ssd
        Metadata:
         slots:                 7
        Data path address:      2001:db8::7
        Version:                0.1.0-nightly.20260312+0123abcd
        Certificate until:      2026-06-10T14:11:26.074Z
        Generation:             3
        Incarnation:            2
        Since:                  2026-03-12T14:11:27Z
        Last heard:             2m 5s ago
        Round trip:             1.042 ms

        ID:                     955jic8bg1giuljuv9901lic1
        Hostname:               -
        Joined at:              -
        Status:
         State:                 Suspect
         Availability:          -
         Address:               10.130.27.9:7946
         Degraded:              -
        Platform:
         Operating System:      -
         Architecture:          -
        Resources:
         CPUs:                  2
         Memory:                4096 MiB
        Role:                   -
        Daemon labels:
         disk:                  ssd
        Metadata:
         slots:                 7
        Data path address:      -
        Version:                -
        Certificate until:      2026-06-10T14:11:26.074Z
        Generation:             1
        Incarnation:            0
        Since:                  2026-03-12T14:11:27Z
        Last heard:             120 ms ago
        Round trip:             -
        ");
    }

    #[test]
    fn times_are_shown_in_fitting_units() {
        let cases =
            [(0, "0 ms ago"), (999, "999 ms ago"), (1000, "1s ago"), (61_999, "1m 1s ago"), (86_400_000, "1day ago")];
        for (ms, expected) in cases {
            assert_eq!(ago(ms), expected);
        }
        assert_eq!(milliseconds(42), "0.042 ms");
    }
}
