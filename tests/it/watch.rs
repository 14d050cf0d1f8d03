//! The event stream as programs see it: nothing is missed, nothing comes twice, and what cannot be had is said.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use gossipd::api::Member;
use gossipd::api::watch::{Cause, Change, CloseReason, Hello, Item, Line, Object, Values};
use gossipd::client::{Client, MemberTable, ResyncReason, Subscription, Update, WatchOptions};
use gossipd::record::{NodeId, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Answer, Node, all_ready, cluster, form, free_port, http, shows, wait_for};

/// How long the next line may take: heartbeats come every second.
const LINE_DEADLINE: Duration = Duration::from_secs(30);

/// A stream, line by line.
struct Stream(BufReader<UnixStream>);

impl Stream {
    /// Opens `/v1/watch` with this query.
    fn open(node: &Node, query: &str) -> Self {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_read_timeout(Some(LINE_DEADLINE)).unwrap();
        // HTTP/1.0: the body is all that follows the head.
        write!(stream, "GET /v1/watch?heartbeat=1s&{query} HTTP/1.0\r\nHost: gossipd\r\n\r\n").unwrap();
        let mut stream = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.0.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.contains(" 200 OK\r\n") && head.contains("content-type: application/x-ndjson\r\n"), "{head}");
        stream
    }

    /// The next line; none at the end.
    fn next(&mut self) -> Option<Line> {
        let mut text = String::new();
        match self.0.read_line(&mut text).unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))),
        }
    }

    fn hello(&mut self) -> Hello {
        match self.next() {
            Some(Line::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }

    /// The next change.
    fn change(&mut self) -> Change {
        loop {
            match self.next() {
                Some(Line::Change(change)) => return *change,
                Some(Line::Heartbeat(_) | Line::Synced(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The changes up to the first for which `is_last`.
    fn until(&mut self, mut is_last: impl FnMut(&Change) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            changes.push(self.change());
            if changes.last().is_some_and(&mut is_last) {
                return changes;
            }
        }
    }
}

/// Before and after.
fn values(change: &Change) -> (Option<&Member>, Option<&Member>) {
    match &change.what {
        Values::Members { old, new } => (old.as_deref(), new.as_deref()),
        _ => panic!("{change:?}"),
    }
}

/// Whether it says that `id` has become `status`.
fn becomes(change: &Change, id: &str, status: Status) -> bool {
    let (old, new) = values(change);
    new.is_some_and(|new| {
        new.id.to_string() == id && new.status == status && old.is_none_or(|old| old.status != status)
    })
}

/// A listing as the stream has it, with the proof that every change follows the one before.
#[derive(Default)]
struct Followed {
    members: BTreeMap<NodeId, Member>,
    revision: u64,
}

impl Followed {
    fn begin(stream: &mut Stream) -> Self {
        let hello = stream.hello();
        let mut members = BTreeMap::new();
        loop {
            match stream.next() {
                Some(Line::Item(Item { what: Object::Members { value } })) => {
                    assert!(members.insert(value.id, *value).is_none());
                }
                Some(Line::Synced(mark)) => {
                    assert_eq!(mark.revision, hello.revision);
                    return Self { members, revision: hello.revision };
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn take(&mut self, change: &Change) {
        assert_eq!(change.revision, self.revision + 1, "{change:?}");
        self.revision = change.revision;
        let (old, new) = values(change);
        let id = old.or(new).unwrap().id;
        assert_eq!(self.members.get(&id), old, "what was told before is what it was: {change:?}");
        assert!(humantime::parse_rfc3339(&change.time).is_ok() && change.cause != Cause::Other, "{change:?}");
        match new {
            Some(new) => self.members.insert(id, new.clone()),
            None => self.members.remove(&id),
        };
    }
}

/// As the stream tells a node.
fn told(member: &Member) -> Member {
    Member { last_heard_ms: None, rtt_us: None, incarnation: 0, degraded: Vec::new(), ..member.clone() }
}

/// All that `node` lists, and the revision of that.
fn listed(node: &Node) -> (BTreeMap<NodeId, Member>, u64) {
    let answer: gossipd::api::Members = serde_json::from_str(&node.get("/v1/members").body).unwrap();
    (answer.members.iter().map(|member| (member.id, told(member))).collect(), answer.revision)
}

fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, Some("application/problem+json")),
        "{answer:?}"
    );
    let problem: Value = answer.json();
    assert_eq!(problem["type"], format!("urn:gossipd:problem:{code}"));
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn the_snapshot_and_the_changes_are_the_state() {
    let mut nodes = cluster(&["a", "b", "c"]);
    let mut stream = Stream::open(&nodes[0], "");
    let mut followed = Followed::begin(&mut stream);
    assert_eq!(followed.members.len(), 3);
    let (b, c) = (nodes[1].id(), nodes[2].id());
    nodes[2].kill();
    let mut down = stream.until(|change| becomes(change, &c, Status::Down));
    nodes[2].start();
    let mut back = stream.until(|change| becomes(change, &c, Status::Ready));
    // Another node may have seen it first.
    assert!(matches!(down.pop().unwrap().cause, Cause::ProbeTimeout | Cause::Gossip));
    assert_eq!(back.pop().unwrap().cause, Cause::Returned);
    drop(stream);

    // The same again, with all of it followed by one who comes when it has happened, and then live.
    let mut stream = Stream::open(&nodes[0], &format!("since={}", followed.revision));
    let hello = stream.hello();
    assert!(hello.oldest <= followed.revision && hello.node.to_string() == nodes[0].id(), "{hello:?}");
    nodes[1].ctl(&["leave"]).ok();
    let changes = stream.until(|change| becomes(change, &b, Status::Left));
    changes.iter().for_each(|change| followed.take(change));
    assert_eq!(changes.last().unwrap().cause, Cause::Left);
    // Until the listing has come no further than the stream.
    wait_for("the listing and the stream to meet", || {
        let (members, revision) = listed(&nodes[0]);
        while followed.revision < revision {
            followed.take(&stream.change());
        }
        if followed.revision > revision {
            return Err(format!("{revision} after {}", followed.revision));
        }
        assert_eq!(followed.members, members);
        Ok(())
    });
    assert!(nodes[0].metric("gossipd_watchers").is_some_and(|watchers| watchers >= 1.0));
    assert!(nodes[0].metric("gossipd_watch_lines_total").is_some_and(|lines| lines >= 4.0));
}

/// R17: whoever comes back misses nothing, while nodes come and go.
#[test]
fn a_reader_that_comes_and_goes_misses_nothing() {
    let mut nodes = cluster(&["a", "b", "c"]);
    let c = nodes[2].id();
    let mut whole = Stream::open(&nodes[0], "");
    let mut followed = Followed::begin(&mut whole);
    let first = followed.revision;
    let (mut pieces, mut since) = (Vec::new(), first);
    for round in 0..4 {
        nodes[2].kill();
        // Reads so many lines, and is gone in the middle of a line or two.
        let mut piece = Stream::open(&nodes[0], &format!("since={since}"));
        piece.hello();
        for _ in 0..=round % 2 {
            let change = piece.change();
            since = change.revision;
            pieces.push(change);
        }
        drop(piece);
        shows(&nodes[0], &c, Status::Down);
        nodes[2].start();
        shows(&nodes[0], &c, Status::Ready);
    }
    nodes[1].ctl(&["leave"]).ok();
    let b = nodes[1].id();
    let is_last = |change: &Change| becomes(change, &b, Status::Left);
    let all = whole.until(is_last);
    all.iter().for_each(|change| followed.take(change));
    pieces.extend(Stream::open(&nodes[0], &format!("since={since}")).rest(is_last));
    assert_eq!(pieces, all);
    // And whoever comes now.
    assert_eq!(Stream::open(&nodes[0], &format!("since={first}")).rest(is_last), all);
}

impl Stream {
    /// The changes behind the first line.
    fn rest(&mut self, is_last: impl FnMut(&Change) -> bool) -> Vec<Change> {
        self.hello();
        self.until(is_last)
    }
}

#[test]
fn what_cannot_be_resumed_or_asked_is_a_problem() {
    let mut node = Node::started("a");
    let detail = refused(&node.get("/v1/watch"), 409, "not-in-cluster");
    assert!(detail.contains("gossipctl init"), "{detail}");
    node.init();
    let before = Stream::open(&node, "").hello();
    let future = before.revision + 1_000_000_000_000;
    let detail = refused(&node.get(&format!("/v1/watch?since={future}")), 410, "gone");
    assert!(detail.contains("in the future"), "{detail}");
    node.kill_and_start();
    let detail = refused(&node.get(&format!("/v1/watch?since={}", before.revision)), 410, "gone");
    assert!(detail.contains("an earlier life"), "{detail}");
    let after = Stream::open(&node, "").hello();
    assert!(after.oldest > before.revision && after.revision < 1 << 53, "{before:?} {after:?}");
    for (query, text) in [
        ("topics=weather", "\"weather\" is not a topic: expected one of members"),
        ("status=dead", "\"dead\""),
        ("since=yesterday", "since"),
        ("since=-1", "since"),
        ("heartbeat=1h", "expected a duration from 1s to 300s"),
        ("colour=red", "\"colour\""),
        ("since=1&since=2", "twice"),
    ] {
        let detail = refused(&node.get(&format!("/v1/watch?{query}")), 400, "bad-request");
        assert!(detail.contains(text), "{query}: {detail}");
    }
}

#[test]
fn a_filter_tells_who_fits_and_who_fits_no_longer() {
    let mut nodes = cluster(&["a", "b"]);
    let b = nodes[1].id();
    let mut stream = Stream::open(&nodes[0], "status=down&topics=members");
    let followed = Followed::begin(&mut stream);
    assert!(followed.members.is_empty());
    nodes[1].kill();
    let fell = stream.change();
    assert!(becomes(&fell, &b, Status::Down), "{fell:?}");
    nodes[1].start();
    let back = stream.until(|change| becomes(change, &b, Status::Ready));
    assert!(back.iter().all(|change| values(change).0.is_some_and(|old| old.status == Status::Down)), "{back:?}");
    // What is passed over is counted all the same.
    let (_, revision) = listed(&nodes[0]);
    while !matches!(stream.next(), Some(Line::Heartbeat(mark)) if mark.revision >= revision) {}
}

/// Follows to the end: the reason, and the status that the node had last in its own eyes.
fn last_line(mut stream: Stream) -> (CloseReason, Status) {
    let mut followed = Followed::begin(&mut stream);
    loop {
        match stream.next() {
            Some(Line::Change(change)) => followed.take(&change),
            Some(Line::Heartbeat(_)) => {}
            Some(Line::Closed(closed)) => {
                assert_eq!(stream.next(), None);
                let own = followed.members.values().find(|member| member.is_self).unwrap();
                return (closed.reason, own.status);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_end_of_membership_is_the_last_line() {
    let mut nodes = [Node::new("a"), Node::new("b").with_flags(&["--restart-grace", "0s"])];
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    let stream = Stream::open(&nodes[1], "");
    assert_eq!(nodes[1].terminate(), 0);
    assert_eq!(last_line(stream), (CloseReason::Shutdown, Status::Ready));
    nodes[1].start();
    all_ready(&[&nodes[0], &nodes[1]]);
    let stream = Stream::open(&nodes[1], "");
    nodes[1].ctl(&["leave"]).ok();
    assert_eq!(last_line(stream), (CloseReason::Left, Status::Left));
    refused(&nodes[1].get("/v1/watch"), 409, "not-in-cluster");
}

#[test]
fn a_hundred_readers_of_which_ten_do_not_read() {
    let mut nodes = cluster(&["a", "b", "c"]);
    let c = nodes[2].id();
    let mut streams: Vec<_> = (0..100).map(|_| Stream::open(&nodes[0], "")).collect();
    let stalled = streams.split_off(90);
    let mut followed: Vec<_> = streams.iter_mut().map(Followed::begin).collect();
    for _ in 0..2 {
        nodes[2].kill();
        shows(&nodes[0], &c, Status::Down);
        nodes[2].start();
        shows(&nodes[0], &c, Status::Ready);
    }
    // All that read have all of it, and the same.
    let mut downs = 0;
    let first = streams[0].until(|change| {
        downs += u32::from(becomes(change, &c, Status::Down));
        downs == 2 && becomes(change, &c, Status::Ready)
    });
    first.iter().for_each(|change| followed[0].take(change));
    let last = followed[0].revision;
    for (stream, followed) in streams.iter_mut().zip(&mut followed).skip(1) {
        let mut expected = first.iter();
        for change in stream.until(|change| change.revision == last) {
            assert_eq!(Some(&change), expected.next());
            followed.take(&change);
        }
    }
    // The daemon has seen to its own work meanwhile, and lets go of whoever goes.
    assert_eq!(nodes[0].metric("gossipd_watchers"), Some(100.0));
    drop(stalled);
    wait_for("ten places to be given back", || match nodes[0].metric("gossipd_watchers") {
        Some(90.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // No more than so many at a time.
    let more: Vec<_> = (90..256).map(|_| Stream::open(&nodes[0], "")).collect();
    let detail = refused(&http(&nodes[0].socket(), "GET", "/v1/watch", "").unwrap(), 503, "busy");
    assert!(detail.contains("256 programs watch already"), "{detail}");
    drop(more);
}

/// A cluster whose nodes are found again after a restart at once.
fn on_fixed_ports(names: &[&str]) -> Vec<Node> {
    let mut nodes: Vec<Node> = names
        .iter()
        .map(|name| {
            let node = Node::new(name);
            let port = free_port(node.ip);
            node.on_port(port)
        })
        .collect();
    nodes.iter_mut().for_each(Node::start);
    form(&nodes);
    nodes
}

/// The next update, whatever else is told meanwhile.
async fn update(updates: &mut Subscription, mut wanted: impl FnMut(&Update) -> bool) -> Update {
    let next = async {
        loop {
            match updates.next().await.expect("it goes on for ever") {
                Ok(update) if wanted(&update) => return update,
                _ => {}
            }
        }
    };
    tokio::time::timeout(LINE_DEADLINE, next).await.expect("an update")
}

#[tokio::test]
async fn a_subscription_outlives_its_daemon() {
    let mut nodes = on_fixed_ports(&["a", "b"]);
    let b = nodes[1].id();
    let mut updates = Client::connect(nodes[0].socket()).await.unwrap().watch(WatchOptions::default());
    let mut table = MemberTable::default();
    let snapshot = update(&mut updates, |_| true).await;
    table.apply(&snapshot);
    assert!(matches!(snapshot, Update::Snapshot { .. }) && table.iter().count() == 2, "{snapshot:?}");

    // Its daemon is killed and comes back: what happened meanwhile is not known, and that is said.
    nodes[0].kill();
    nodes[1].kill();
    nodes[0].start();
    let resync = update(&mut updates, |update| !matches!(update, Update::Change(_))).await;
    let Update::Resync { reason: ResyncReason::Gone(why) } = &resync else { panic!("{resync:?}") };
    assert!(why.contains("an earlier life"), "{why}");
    table.apply(&resync);
    let snapshot = update(&mut updates, |_| true).await;
    assert!(matches!(snapshot, Update::Snapshot { .. }), "{snapshot:?}");
    table.apply(&snapshot);
    nodes[1].start();
    let id = b.parse().unwrap();
    while table.get(id).is_none_or(|member| member.status != Status::Ready || member.hostname.is_none()) {
        let update = update(&mut updates, |_| true).await;
        table.apply(&update);
    }
    all_ready(&[&nodes[0], &nodes[1]]);

    // It leaves and founds another cluster: the same, after a while in none.
    nodes[1].ctl(&["leave"]).ok();
    nodes[0].ctl(&["leave", "--force"]).ok();
    nodes[0].init();
    let snapshot = update(&mut updates, |update| matches!(update, Update::Snapshot { .. })).await;
    table.apply(&snapshot);
    assert_eq!(table.iter().map(|member| member.id.to_string()).collect::<Vec<_>>(), [nodes[0].id()]);
}

#[test]
fn the_command_line_follows_and_runs_a_command_for_each_change() {
    let mut nodes = on_fixed_ports(&["a", "b"]);
    let (b, out) = (nodes[1].id(), nodes[0].dir().join("hook"));
    let command = format!("echo $GOSSIPD_NODE_NAME $GOSSIPD_OLD_STATUS $GOSSIPD_NEW_STATUS >>{}", out.display());
    let mut child = nodes[0]
        .ctl_command(&["watch", "--exec", &command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let listed: Vec<_> = lines.by_ref().take(2).collect();
    assert!(listed.iter().all(|line| line.ends_with("  ready (listed)")), "{listed:?}");
    nodes[1].kill();
    let fell = lines.by_ref().find(|line| line.contains("-> down")).unwrap();
    assert!(fell.contains(&format!("  {b}  b  ")) && fell.ends_with("(probe-timeout)"), "{fell}");
    wait_for("the command to have been run", || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("b ") && line.ends_with(" down")) { Ok(()) } else { Err(text) }
    });
    // A restart of the daemon is no end.
    nodes[0].kill_and_start();
    assert!(lines.by_ref().any(|line| line.ends_with("  a  ready (listed)")));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    for text in ["trying to connect again", "changes are missing", "connected again"] {
        assert!(said.contains(text), "{said}");
    }

    // What was missed, as the daemon says it; and whoever has read enough is no failure.
    let hello = Stream::open(&nodes[0], "").hello();
    let since =
        format!("gossipctl --socket {} watch --format ndjson --since {}", nodes[0].socket().display(), hello.oldest);
    let first = crate::harness::Ran::of(
        crate::harness::command("sh").args(["-c", &format!("PATH={}:$PATH; {since} | head -n 1", bin().display())]),
    );
    assert!(first.ok().starts_with("{\"type\":\"hello\""));
    let idle = Node::started("idle");
    idle.ctl(&["watch"]).refused(1, &["this node is in no cluster"]);
    idle.ctl(&["watch", "--filter", "role=worker"]).refused(2, &["expected status=VALUE"]);
}

/// Where the programs are.
fn bin() -> std::path::PathBuf {
    std::path::Path::new(crate::harness::GOSSIPCTL).parent().unwrap().to_owned()
}
