//! `gossipctl watch`: the event stream on stdout, what becomes of its connection on stderr.
//!
//! Not here: how a lost connection comes back (`client`), and what is run for a change (`hook`).

use std::future::pending;
use std::io::{self, Write};
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{StreamFormat, WatchArgs};
use super::exit::{Exit, Failure, Outcome, printable, warn};
use super::hook::Hook;
use super::networks::{Names, attachment_text, conflict_text, endpoint_text};
use crate::api::watch::{Change, Item, Line, Object, Values};
use crate::api::{Decision, Member, MemberFilter, Network, Networks};
use crate::client::{Client, Feed, Told, WatchOptions};

/// Follows the stream until it is interrupted, or nobody reads it any more.
pub(super) async fn watch(socket: &Path, args: WatchArgs) -> Result<Outcome, Failure> {
    let WatchArgs { topics, format, since, filters, exec, labels, networks } = args;
    let cannot_listen = |error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
    let options = WatchOptions { topics, labels, networks, status: filters.concat(), since, ..WatchOptions::default() };
    let client = Client::connect(socket).await?;
    let mut names = Names::default();
    if let StreamFormat::Text = format
        && let (Ok(members), Ok(known)) = (client.members(&MemberFilter::default()).await, client.networks().await)
    {
        // What the stream does not tell of, as it is not asked for.
        names.hosts = members.members.into_iter().filter_map(|one| Some((one.id, one.hostname?))).collect();
        names.networks = known.networks.into_iter().map(|one| (one.id, one.name)).collect();
    }
    warn_of_unattached(&client, &options.networks).await;
    let feed = client.feed(options);
    let mut hook = exec.map(|command| Hook::start(command, socket));
    let done = tokio::select! {
        done = follow(feed, (format, names), hook.as_mut(), io::stdout()) => done,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = reader_gone() => Ok(()),
    };
    let waiting = hook.map_or(0, |hook| hook.waiting());
    if waiting > 0 {
        warn(&format!("the command was not run for the last {waiting} changes"));
    }
    done.map(|()| Outcome::default())
}

/// Nothing comes from networks that this node is not attached to, until it is.
async fn warn_of_unattached(client: &Client, wanted: &[String]) {
    let Ok(Networks { networks, .. }) = client.networks().await else { return };
    for reference in wanted {
        let is_meant = |network: &&Network| network.name == *reference || network.id.to_string() == *reference;
        match networks.iter().find(is_meant) {
            Some(network) if network.attached => {}
            Some(_) => warn(&format!(
                "this node is not attached to network {}: its endpoints come when it is ('gossipctl network attach {0}')",
                printable(reference)
            )),
            None => warn(&format!(
                "no node is attached to network {:?} yet ('gossipctl network ls' lists the networks); it is waited for",
                reference
            )),
        }
    }
}

/// Waits until nobody reads stdout any more. A write would tell too, but the next one may be far off.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe; this process never closes its stdout, which is all that is asked"
)]
async fn reader_gone() {
    // A file has no reader that could go, and cannot be waited for.
    match AsyncFd::with_interest(io::stdout(), Interest::ERROR) {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        Err(_) => pending().await,
    }
}

/// Writes what comes, until nothing more does or nobody reads it.
async fn follow(
    mut feed: Feed,
    (format, mut names): (StreamFormat, Names),
    mut hook: Option<&mut Hook>,
    mut out: impl Write,
) -> Result<(), Failure> {
    let (mut has_begun, mut is_troubled) = (false, false);
    while let Some(told) = feed.next().await {
        let (line, raw) = match told {
            Ok(Told::Line(line, raw)) => (line, raw),
            Ok(Told::Resync(reason)) => {
                has_begun = true;
                warn(&format!("changes are missing ({reason}); all nodes as they are now follow"));
                continue;
            }
            // While nothing has worked yet, whoever typed this is still there to be told.
            Err(error) if !has_begun || feed.is_over() => return Err(error.into()),
            Err(error) => {
                is_troubled = true;
                warn(&format!("{error}; trying to connect again"));
                continue;
            }
        };
        has_begun = true;
        if matches!(line, Line::Synced(_)) && std::mem::take(&mut is_troubled) {
            warn("connected again");
        }
        if let (Line::Change(change), Some(hook)) = (&line, &mut hook) {
            hook.offer(change);
        }
        let written = match format {
            StreamFormat::Ndjson => out.write_all(&raw),
            StreamFormat::Text => text(&line, &mut names).map_or(Ok(()), |text| writeln!(out, "{text}")),
        };
        match written.and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::new(Exit::Failed, format!("cannot write to stdout: {error}"))),
        }
    }
    Ok(())
}

/// A line for people; none when it is of no interest to them.
fn text(line: &Line, names: &mut Names) -> Option<String> {
    learn(line, names);
    match line {
        Line::Item(Item { what: Object::Members { value } }) => {
            Some(format!("{}  {}  {} (listed)", value.since, node(value), value.status))
        }
        Line::Item(Item { what: Object::Decisions { value } }) => {
            Some(format!("{}  {} (listed)", value.at, decision_text(names, value)))
        }
        Line::Item(Item { what }) => {
            let text = match what {
                Object::Networks { value } => attachment_text(names, None, Some(value)),
                Object::Endpoints { value } => endpoint_text(names, None, Some(value)),
                Object::Conflicts { value } => conflict_text(names, None, Some(value)),
                _ => None,
            };
            text.map(|text| format!("{text} (listed)"))
        }
        Line::Change(change) => {
            let Change { revision: _, time, cause, by, what } = change.as_ref();
            let by = by.map(|by| format!(", by {}", names.host(by))).unwrap_or_default();
            let cause = cause.word();
            let (old, new) = match what {
                Values::Members { old, new } => (old.as_deref(), new.as_deref()),
                Values::Decisions { old, new } => {
                    let (decision, ends) = (new.as_ref().or(old.as_ref())?, new.is_none());
                    let ends = if ends { " does not stand any more" } else { "" };
                    return Some(format!("{time}  {}{ends} ({cause}{by})", decision_text(names, decision)));
                }
                tables => {
                    let text = match tables {
                        Values::Networks { old, new } => attachment_text(names, old.as_deref(), new.as_deref()),
                        Values::Endpoints { old, new } => endpoint_text(names, old.as_deref(), new.as_deref()),
                        Values::Conflicts { old, new } => conflict_text(names, old.as_deref(), new.as_deref()),
                        _ => None,
                    };
                    return text.map(|text| format!("{time}  {text} ({cause}{by})"));
                }
            };
            Some(format!("{time}  {}  {} ({cause}{by})", node(new.or(old)?), difference(old, new)))
        }
        _ => None,
    }
}

/// What a line says about names, for this one and those after it.
fn learn(line: &Line, names: &mut Names) {
    let (member, attachment) = match line {
        Line::Item(Item { what: Object::Members { value } }) => (Some(value), None),
        Line::Item(Item { what: Object::Networks { value } }) => (None, Some(value)),
        Line::Change(change) => match &change.what {
            Values::Members { new, .. } => (new.as_ref(), None),
            Values::Networks { new, .. } => (None, new.as_ref()),
            _ => return,
        },
        _ => return,
    };
    if let Some((id, hostname)) = member.and_then(|member| Some((member.id, member.hostname.clone()?))) {
        names.hosts.insert(id, hostname);
    }
    if let Some(attachment) = attachment {
        names.networks.entry(attachment.network).or_insert_with(|| attachment.name.clone());
    }
}

fn decision_text(names: &Names, Decision { node, register, key, value, reason, .. }: &Decision) -> String {
    let node = node.map_or_else(|| "the cluster".to_owned(), |node| names.node(node));
    let key = key.as_ref().map_or_else(String::new, |key| format!(" {}", printable(key)));
    let value = value.as_ref().map_or_else(String::new, |value| format!(" {}", printable(value)));
    let reason = reason.as_ref().map_or_else(String::new, |reason| format!(", because: {}", printable(reason)));
    format!("{node}  decided: {register}{key}{value}{reason}")
}

fn node(member: &Member) -> String {
    format!("{}  {}", member.id, member.hostname.as_deref().map_or_else(|| "-".to_owned(), printable))
}

/// What has changed, in words.
fn difference(old: Option<&Member>, new: Option<&Member>) -> String {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => return format!("new, {}", new.status),
        (Some(old), None) => return format!("forgotten, was {}", old.status),
        (None, None) => return "nothing".to_owned(),
    };
    let text = |value: Option<String>| value.map_or_else(|| "-".to_owned(), |value| printable(&value));
    let parts = [
        ("", Some(old.status.to_string()), Some(new.status.to_string())),
        ("name ", old.hostname.clone(), new.hostname.clone()),
        ("address ", Some(old.address.to_string()), Some(new.address.to_string())),
        ("availability ", old.availability.map(|a| a.to_string()), new.availability.map(|a| a.to_string())),
        ("role ", old.role.map(|role| role.to_string()), new.role.map(|role| role.to_string())),
        ("data path ", old.data_path_addr.map(|a| a.to_string()), new.data_path_addr.map(|a| a.to_string())),
        ("version ", old.version.clone(), new.version.clone()),
    ];
    let differing = parts.into_iter().filter(|(_, old, new)| old != new);
    let mut words: Vec<String> =
        differing.map(|(what, old, new)| format!("{what}{} -> {}", text(old), text(new))).collect();
    if old.generation != new.generation {
        words.push("in a new life".to_owned());
    }
    if let Some(away_s) = new.away_s.filter(|_| old.away_s.is_none()) {
        words.push(format!("announces to be back within {away_s} s"));
    }
    if old.labels != new.labels {
        words.push("labels".to_owned());
    }
    if words.is_empty() { "changed".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::watch::{Cause, Mark};
    use crate::api::{PROBLEM_JSON, ProblemKind};
    use crate::cli::render::tests::members;
    use crate::client::fake::{Fake, http, stream};
    use crate::record::{Availability, Status};

    fn change(revision: u64, old: Option<Member>, new: Option<Member>) -> Line {
        let what = Values::Members { old: old.map(Box::new), new: new.map(Box::new) };
        let time = "2026-03-12T14:11:28.000Z".to_owned();
        Line::Change(Box::new(Change { revision, time, cause: Cause::Gossip, by: None, what }))
    }

    fn lines(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    fn hello() -> String {
        r#"{"type":"hello","node":"bj8muio9ov1wkkxg7ts1lqozc","version":"0","joined":true,"oldest":1,"revision":7}"#
            .to_owned()
            + "\n"
    }

    #[test]
    fn changes_for_people() {
        let [first, second, unknown] = members().try_into().unwrap();
        let changed = |change: fn(&mut Member)| {
            let mut member = first.clone();
            change(&mut member);
            Some(member)
        };
        let first = || Some(first.clone());
        let all = [
            Line::Item(Item { what: Object::Members { value: Box::new(second.clone()) } }),
            change(8, None, Some(unknown)),
            change(9, first(), changed(|member| member.status = Status::Suspect)),
            change(10, first(), changed(|member| member.generation = 2)),
            change(11, first(), changed(|member| member.away_s = Some(10))),
            change(
                12,
                first(),
                changed(|member| {
                    member.availability = Some(Availability::Drain);
                    member.hostname = Some("a\u{1b}[31m".to_owned());
                }),
            ),
            change(13, Some(second), None),
            change(14, first(), first()),
        ];
        let mut names = Names::default();
        let texts: Vec<String> = all.iter().map(|line| text(line, &mut names).unwrap()).collect();
        insta::assert_snapshot!(texts.join("\n"), @r#"
        2026-03-12T14:11:27Z  cywjboq8e8pk1buntrulod9fu  a-very-long-host-name.with.a.domain.example.com  down (listed)
        2026-03-12T14:11:28.000Z  955jic8bg1giuljuv9901lic1  -  new, suspect (gossip)
        2026-03-12T14:11:28.000Z  bj8muio9ov1wkkxg7ts1lqozc  swarm1  ready -> suspect (gossip)
        2026-03-12T14:11:28.000Z  bj8muio9ov1wkkxg7ts1lqozc  swarm1  in a new life (gossip)
        2026-03-12T14:11:28.000Z  bj8muio9ov1wkkxg7ts1lqozc  swarm1  announces to be back within 10 s (gossip)
        2026-03-12T14:11:28.000Z  bj8muio9ov1wkkxg7ts1lqozc  a\u{1b}[31m  name swarm1 -> a\u{1b}[31m, availability active -> drain (gossip)
        2026-03-12T14:11:28.000Z  cywjboq8e8pk1buntrulod9fu  a-very-long-host-name.with.a.domain.example.com  forgotten, was down (gossip)
        2026-03-12T14:11:28.000Z  bj8muio9ov1wkkxg7ts1lqozc  swarm1  changed (gossip)
        "#);
        assert_eq!(text(&Line::Heartbeat(Mark { revision: 7 }), &mut Names::default()), None);
    }

    async fn followed(fake: &Fake, format: StreamFormat, out: &mut Vec<u8>) -> Result<(), Failure> {
        let client = Client::connect(fake.path()).await.unwrap();
        follow(client.feed(WatchOptions::default()), (format, Names::default()), None, out).await
    }

    #[tokio::test]
    async fn ndjson_is_what_the_daemon_says() {
        let new = members().pop();
        let said =
            hello() + &lines(&[Line::Synced(Mark { revision: 7 }), change(8, None, new)]) + "{\"type\":\"new\"}\n";
        let answer = stream(&said);
        let count = std::sync::atomic::AtomicU32::new(0);
        // The second time it refuses for good, so that this ends.
        let fake = Fake::serve(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => answer.clone(),
            _ => {
                let problem = ProblemKind::Forbidden.problem("no");
                http("403 Forbidden", PROBLEM_JSON, &serde_json::to_string(&problem).unwrap())
            }
        });
        let mut out = Vec::new();
        assert_eq!(followed(&fake, StreamFormat::Ndjson, &mut out).await.unwrap_err().message, "no");
        assert_eq!(String::from_utf8(out).unwrap(), said);
    }

    #[tokio::test]
    async fn what_is_refused_at_once_is_a_failure() {
        let problem = ProblemKind::NotInCluster.problem("in no cluster");
        let fake = Fake::serve(move |_| http("409 Conflict", PROBLEM_JSON, &serde_json::to_string(&problem).unwrap()));
        let failure = followed(&fake, StreamFormat::Text, &mut Vec::new()).await.unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Failed, "in no cluster"));
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_the_end() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let said = hello();
        let fake = Fake::serve_and_hold(move |_| stream(&said));
        let client = Client::connect(fake.path()).await.unwrap();
        let feed = client.feed(WatchOptions::default());
        assert_eq!(follow(feed, (StreamFormat::Ndjson, Names::default()), None, Closed).await, Ok(()));
    }
}
