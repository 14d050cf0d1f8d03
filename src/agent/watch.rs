//! `GET /v1/watch`: one reader's stream, from the snapshot or from where it was, to its end.
//!
//! A stream is a body that makes its next bytes when the connection can take them: a reader that does not read costs its
//! place, the buffers of its connection, and the snapshot that it has not taken yet. Nothing waits for it. What is told
//! when is decided by its `session`; here that becomes lines, and heartbeats are added.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::daemon::Membership;
use super::hub::{Hub, Place};
use super::lines::Source;
use super::metrics;
use super::network_view::{attachment_view, conflict_view, endpoint_view};
use super::networks::network_id;
use super::view::{decision_view, told, words};
use crate::api::watch::{
    Closed, HEARTBEAT_DEFAULT_S, HEARTBEAT_MAX_S, HEARTBEAT_MIN_S, Hello, Item, Lagged, Line, Mark, Object, Topic,
    WatchQuery,
};
use crate::api::{Problem, ProblemKind};
use crate::record::NodeId;
use crate::session::{Filter, Listed, Said, Session, Sink, Standing, list};

/// Bytes put together for one write, about. A connection whose other end does not read holds up to 16 such writes.
const WRITE_BYTES: usize = 4_096;

/// The keys of [`WatchQuery`].
pub(super) const KEYS: [&str; 6] = ["topics", "since", "status", "label", "network", "heartbeat"];

/// What a reader asked for, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Its networks are known when the protocol core has been asked.
    filter: Filter,
    /// As they were given: ids or names.
    networks: Vec<String>,
    since: Option<u64>,
    heartbeat: Duration,
}

impl TryFrom<WatchQuery> for Wanted {
    type Error = Problem;

    fn try_from(query: WatchQuery) -> Result<Self, Problem> {
        let WatchQuery { topics, since, status, label, network, heartbeat } = query;
        let topics = match words("topics", topics.as_ref())? {
            none if none.is_empty() => Topic::ALL.to_vec(),
            some => some,
        };
        let statuses = words("status", status.as_ref())?;
        let labels = words("label", label.as_ref())?;
        let networks = words("network", network.as_ref())?;
        let default = Duration::from_secs(HEARTBEAT_DEFAULT_S);
        let heartbeat = heartbeat.as_deref().map_or(Ok(default), parse_heartbeat)?;
        let filter = Filter { topics, statuses, labels, networks: Default::default() };
        Ok(Self { filter, networks, since, heartbeat })
    }
}

fn parse_heartbeat(text: &str) -> Result<Duration, Problem> {
    let bounds = Duration::from_secs(HEARTBEAT_MIN_S)..=Duration::from_secs(HEARTBEAT_MAX_S);
    humantime::parse_duration(text).ok().filter(|heartbeat| bounds.contains(heartbeat)).ok_or_else(|| {
        let text = format!("heartbeat {text:?}: expected a duration from {HEARTBEAT_MIN_S}s to {HEARTBEAT_MAX_S}s");
        ProblemKind::BadRequest.problem(text)
    })
}

/// An object of the snapshot in the API's words.
fn object(listed: Listed, me: NodeId) -> Object {
    match listed {
        Listed::Member(member) => Object::Members { value: Box::new(told(member, me)) },
        Listed::Decision(decision) => Object::Decisions { value: Box::new(decision_view(&decision)) },
        Listed::Attachment(owner, network, attachment, down_since_ms) => {
            let value = attachment_view(owner, network, &attachment, down_since_ms);
            Object::Networks { value: Box::new(value) }
        }
        Listed::Endpoint(name, body, down_since_ms) => match body.endpoint() {
            Ok(endpoint) => Object::Endpoints { value: Box::new(endpoint_view(name, &endpoint, down_since_ms)) },
            // A later format, of which this daemon knows nothing.
            Err(_) => Object::Other,
        },
        Listed::Conflict(conflict) => Object::Conflicts { value: Box::new(conflict_view(&conflict)) },
    }
}

/// Opens a stream.
///
/// # Errors
/// A problem: `bad-request`, `gone`, `busy`, or the protocol task has stopped.
pub(super) async fn open(membership: &Membership, query: WatchQuery) -> Result<Response, Problem> {
    let Wanted { filter, networks, since, heartbeat } = Wanted::try_from(query)?;
    let hub = &membership.hub;
    let place = hub.enter().map_err(|error| {
        ProblemKind::Busy.problem(format!("{error}; end one of them, or share a stream among several"))
    })?;
    // At one instant: changes after this revision come from the hub, also those that are not published yet.
    let cluster = membership.trust.stored().cluster_id;
    let standing = membership.engine.query(move |node| {
        let ids: Result<_, Problem> = networks.iter().map(|name| network_id(node, cluster, name)).collect();
        let filter = Filter { networks: ids?, ..filter };
        let items = if since.is_some() { Default::default() } else { list(node, &filter) };
        Ok::<_, Problem>((Standing { revision: node.revision(), first: node.first_revision(), items }, filter))
    });
    let (standing, filter) = standing.await??;
    let revision = standing.revision;
    let session = hub.open(standing, since).map_err(|gone| {
        let since = since.unwrap_or_default();
        let why = "watch without since to get the present state";
        ProblemKind::Gone.problem(format!("cannot resume from revision {since}: {gone}; {why}"))
    })?;
    let node = membership.trust.me;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Hello { node, version, joined: membership.is_joined(), oldest: hub.oldest(), revision };
    Ok(Reader::new(Arc::clone(hub), place, filter, heartbeat, hello, session).into_answer())
}

/// One reader.
struct Reader {
    session: Session<Listed>,
    filter: Filter,
    hub: Arc<Hub>,
    changes: watch::Receiver<u64>,
    heartbeat: Duration,
    heartbeat_due: Instant,
    hello: Hello,
    _place: Place,
}

impl Reader {
    fn new(
        hub: Arc<Hub>,
        place: Place,
        filter: Filter,
        heartbeat: Duration,
        hello: Hello,
        session: Session<Listed>,
    ) -> Self {
        let (changes, heartbeat_due) = (hub.changes(), Instant::now() + heartbeat);
        Self { session, filter, changes, hub, heartbeat, heartbeat_due, hello, _place: place }
    }

    /// What can be said at once.
    fn fill(&mut self) -> Batch {
        let mut said = Spoken { batch: Batch::default(), hello: &self.hello };
        let (hub, filter) = (&self.hub, &self.filter);
        self.session.fill(&mut said, |cursor, room| hub.read(cursor, room, filter));
        said.batch
    }

    /// Waits for something new, or until a sign of life is due.
    async fn wait(&mut self, batch: &mut Batch) {
        tokio::select! {
            biased;
            () = sleep_until(self.heartbeat_due) => batch.line(&Line::Heartbeat(Mark { revision: self.session.cursor() })),
            // The hub lives as long as this reader: its signal never ends.
            _ = self.changes.changed() => {}
        }
    }
}

/// What a session says, as lines.
struct Spoken<'a> {
    batch: Batch,
    hello: &'a Hello,
}

impl Sink<Listed, Bytes> for Spoken<'_> {
    fn room(&self) -> usize {
        self.batch.room()
    }

    fn say(&mut self, said: Said<Listed, Bytes>) {
        let batch = &mut self.batch;
        match said {
            Said::Hello => batch.line(&Line::Hello(self.hello.clone())),
            Said::Item(item) => match object(item, self.hello.node) {
                Object::Other => {}
                what => batch.line(&Line::Item(Item { what })),
            },
            Said::Change(line) => batch.extend([line]),
            Said::Synced(revision) => batch.line(&Line::Synced(Mark { revision })),
            Said::Lagged { told, missed_up_to } => {
                metrics::watcher_lagged();
                batch.line(&Line::Lagged(Lagged { told, missed_up_to }));
            }
            Said::Closed(reason) => batch.line(&Line::Closed(Closed { reason })),
        }
    }
}

impl Source for Reader {
    /// The next lines; none when all has been said.
    async fn next(&mut self) -> Option<Bytes> {
        let mut batch = Batch::default();
        while batch.is_empty() && !self.session.is_over() {
            // Before the look, so that what comes after it wakes.
            self.changes.mark_unchanged();
            let before = self.session.cursor();
            batch = self.fill();
            if !batch.is_empty() {
                break;
            }
            if self.session.cursor() == before {
                self.wait(&mut batch).await;
            } else {
                // Nothing of what was looked at fits, and there may be more.
                tokio::task::yield_now().await;
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.heartbeat_due = Instant::now() + self.heartbeat;
        metrics::watch_lines(batch.lines);
        Some(batch.into_bytes())
    }
}

/// Lines on their way into one write. A single one is not copied.
#[derive(Debug, Default)]
struct Batch {
    parts: Vec<Bytes>,
    bytes: usize,
    lines: u64,
}

impl Batch {
    const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    const fn room(&self) -> usize {
        WRITE_BYTES.saturating_sub(self.bytes)
    }

    fn line(&mut self, line: &impl Serialize) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            self.extend([text.into()]);
        }
    }

    fn extend(&mut self, lines: impl IntoIterator<Item = Bytes>) {
        for line in lines {
            self.bytes += line.len();
            self.lines += 1;
            self.parts.push(line);
        }
    }

    fn into_bytes(mut self) -> Bytes {
        if let [_] = self.parts.as_slice() {
            return self.parts.swap_remove(0);
        }
        self.parts.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::api::watch::{Cause, Change, Values};
    use crate::record::Status;
    use crate::session::Limits;

    /// About what a change of a node takes.
    const LINE_BYTES: usize = 1_000;

    fn change(revision: u64) -> Change {
        let what = Values::Members { old: None, new: None };
        Change { revision, time: "x".repeat(LINE_BYTES), cause: Cause::Gossip, by: None, what }
    }

    fn wanted(query: WatchQuery) -> Wanted {
        Wanted::try_from(query).unwrap()
    }

    /// A reader that wants all, changes without nodes too.
    fn reader(hub: &Arc<Hub>, query: WatchQuery, revision: u64) -> Reader {
        let hello = Hello { node: NodeId::from_bytes([1; 16]), version: "0".into(), joined: true, oldest: 0, revision };
        let Wanted { filter, since, heartbeat, .. } = wanted(query);
        let standing = Standing { revision, first: 0, items: Default::default() };
        let session = hub.open(standing, since).unwrap();
        Reader::new(Arc::clone(hub), hub.enter().unwrap(), filter, heartbeat, hello, session)
    }

    /// The next lines in a few words; `over` at the end.
    async fn told(reader: &mut Reader) -> String {
        let Some(bytes) = reader.next().await else { return "over".to_owned() };
        let word = |line: &str| match serde_json::from_str(line).unwrap() {
            Line::Hello(hello) => format!("hello {}", hello.revision),
            Line::Synced(mark) => format!("synced {}", mark.revision),
            Line::Change(change) => format!("{}", change.revision),
            Line::Heartbeat(mark) => format!("heartbeat {}", mark.revision),
            Line::Lagged(Lagged { told, missed_up_to }) => format!("lagged {told} {missed_up_to}"),
            Line::Closed(closed) => format!("closed {:?}", closed.reason),
            other => panic!("{other:?}"),
        };
        String::from_utf8(bytes.to_vec()).unwrap().lines().map(word).collect::<Vec<_>>().join(", ")
    }

    #[tokio::test]
    async fn a_snapshot_ahead_of_the_history_is_followed_by_what_comes_after_it() {
        let hub = Arc::new(Hub::new(10));
        // What led to 12 is not published yet.
        let mut reader = reader(&hub, WatchQuery::default(), 12);
        assert_eq!(told(&mut reader).await, "hello 12, synced 12");
        (11..=13).for_each(|revision| hub.publish(change(revision)));
        assert_eq!(told(&mut reader).await, "13");
        hub.publish(change(14));
        hub.close(crate::api::watch::CloseReason::Left);
        assert_eq!([told(&mut reader).await, told(&mut reader).await], ["14", "closed Left"]);
        assert_eq!(told(&mut reader).await, "over");
    }

    #[tokio::test]
    async fn what_was_missed_comes_before_synced() {
        let hub = Arc::new(Hub::with_limits(10, Limits { changes: 4, bytes: 1 << 20 }, 9));
        (11..=13).for_each(|revision| hub.publish(change(revision)));
        let since = |since| WatchQuery { since: Some(since), ..WatchQuery::default() };
        let mut late = reader(&hub, since(11), 13);
        assert_eq!(told(&mut late).await, "hello 13, 12, 13, synced 13");
        let mut up_to_date = reader(&hub, since(13), 13);
        assert_eq!(told(&mut up_to_date).await, "hello 13, synced 13");
        // Resumed before what it was promised is published.
        let mut ahead = reader(&hub, since(13), 14);
        assert_eq!(told(&mut ahead).await, "hello 14");
        (14..=20).for_each(|revision| hub.publish(change(revision)));
        for reader in [&mut late, &mut up_to_date, &mut ahead] {
            assert_eq!([told(reader).await, told(reader).await], ["lagged 13 16", "over"]);
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_passed_over_and_counted_in_heartbeats() {
        let hub = Arc::new(Hub::with_limits(0, Limits { changes: 10_000, bytes: 64 << 20 }, 9));
        let only_down = WatchQuery { status: Some("down".into()), heartbeat: Some("1s".into()), ..Default::default() };
        let mut reader = reader(&hub, only_down, 0);
        assert_eq!(told(&mut reader).await, "hello 0, synced 0");
        // More than is looked at in one go.
        (1..=3_000).for_each(|revision| hub.publish(change(revision)));
        assert_eq!(told(&mut reader).await, "heartbeat 3000");
    }

    #[test]
    fn queries_are_understood_or_refused() {
        let all = wanted(WatchQuery::default());
        assert_eq!((all.filter.topics.as_slice(), all.heartbeat.as_secs()), (Topic::ALL.as_slice(), 15));
        let query = |topics: &str, status: &str, heartbeat: &str| WatchQuery {
            topics: Some(topics.into()),
            status: Some(status.into()),
            heartbeat: Some(heartbeat.into()),
            since: None,
            label: None,
            network: None,
        };
        let some = wanted(query("members", "ready,down", "5m"));
        assert_eq!(
            (some.filter.statuses.as_slice(), some.heartbeat.as_secs()),
            ([Status::Ready, Status::Down].as_slice(), 300)
        );
        for (bad, text) in [
            (query("weather", "ready", "15s"), "topics: \"weather\" is not a topic: expected one of members"),
            (query("members", "dead", "15s"), "status: \"dead\" is not a status"),
            (query("", "ready", "15s"), "topics: a value is empty"),
            (query("members", "ready,", "15s"), "status: a value is empty"),
            (query("members", "ready", "999ms"), "heartbeat \"999ms\": expected a duration from 1s to 300s"),
            (query("members", "ready", "6m"), "heartbeat \"6m\""),
            (query("members", "ready", "often"), "heartbeat \"often\""),
        ] {
            let detail = Wanted::try_from(bad).unwrap_err().detail;
            assert!(detail.contains(text), "{detail}");
        }
        let WatchQuery { topics: _, since: _, status: _, label: _, network: _, heartbeat: _ } = WatchQuery::default();
        assert_eq!(KEYS, ["topics", "since", "status", "label", "network", "heartbeat"]);
    }

    /// A connection to the stream, as curl would make it.
    async fn connect(path: &std::path::Path) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"GET /v1/watch HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
        BufReader::new(stream)
    }

    /// The next line of the stream; none at its end.
    async fn line(stream: &mut BufReader<UnixStream>) -> Option<Line> {
        let mut text = String::new();
        loop {
            text.clear();
            if stream.read_line(&mut text).await.unwrap() == 0 {
                return None;
            }
            // The head of the answer.
            if text.starts_with('{') {
                return Some(serde_json::from_str(&text).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_told_and_delays_nobody() {
        const READERS: usize = 100;
        const STALLED: usize = 10;
        const KEPT: u64 = 1_000;
        const LAST: u64 = 4_000;
        let limits = Limits { changes: usize::try_from(KEPT).unwrap(), bytes: 64 << 20 };
        let hub = Arc::new(Hub::with_limits(0, limits, READERS));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = Arc::clone(&hub);
        let stream = move || async move { reader(&served, WatchQuery::default(), 0).into_answer() };
        tokio::spawn(axum::serve(listener, Router::new().route("/v1/watch", get(stream))).into_future());
        let mut streams = Vec::new();
        for _ in 0..READERS {
            let mut stream = connect(&path).await;
            assert!(matches!(line(&mut stream).await, Some(Line::Hello(_))));
            streams.push(stream);
        }
        assert!(hub.enter().is_err());
        let stalled = streams.split_off(READERS - STALLED);
        let progress: Arc<Vec<AtomicU64>> = Arc::new(streams.iter().map(|_| AtomicU64::new(0)).collect());
        let readers: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(at, mut stream)| {
                let progress = Arc::clone(&progress);
                tokio::spawn(async move {
                    assert!(matches!(line(&mut stream).await, Some(Line::Synced(_))));
                    for revision in 1..=LAST {
                        let Some(Line::Change(change)) = line(&mut stream).await else { panic!("{at} at {revision}") };
                        assert_eq!(change.revision, revision);
                        progress[at].store(revision, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for revision in 1..=LAST {
            hub.publish(change(revision));
            // As fast as those can that read.
            while progress.iter().any(|at| revision - at.load(Ordering::Relaxed) > KEPT / 2) {
                tokio::task::yield_now().await;
            }
        }
        for reader in readers {
            reader.await.unwrap();
        }
        // What a stalled one was still given lies in the buffers of its connection, and is bounded.
        for mut stream in stalled {
            let (mut last, mut bytes) = (0, 0);
            let lagged = loop {
                match line(&mut stream).await {
                    Some(Line::Synced(_)) => {}
                    Some(Line::Change(change)) => {
                        (last, bytes) = (change.revision, bytes + LINE_BYTES);
                    }
                    Some(Line::Lagged(lagged)) => break lagged,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(lagged, Lagged { told: last, missed_up_to: LAST - KEPT });
            assert!(bytes < 1 << 20, "{bytes} bytes were buffered");
            assert_eq!(line(&mut stream).await, None);
        }
    }
}
