//! `GET /v1/watch`: one reader's stream, from the snapshot or from where it was, to its end.
//!
//! A stream is a body that makes its next bytes when the connection can take them: a reader that does not read costs its
//! place, the buffers of its connection, and the snapshot that it has not taken yet. Nothing waits for it. What is told
//! when stands in `api::watch`; the history is in `hub`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::daemon::Membership;
use super::hub::{Hub, Place, Read};
use super::metrics;
use super::view::{told, words};
use crate::api::watch::{
    Change, Closed, HEARTBEAT_DEFAULT_S, HEARTBEAT_MAX_S, HEARTBEAT_MIN_S, Hello, Item, Lagged, Line, Mark, NDJSON,
    Object, Topic, Values, WatchQuery, fits,
};
use crate::api::{Problem, ProblemKind};
use crate::node;
use crate::record::{NodeId, Status};

/// Bytes put together for one write, about. A connection whose other end does not read holds up to 16 such writes.
const WRITE_BYTES: usize = 4_096;

/// The keys of [`WatchQuery`].
pub(super) const KEYS: [&str; 4] = ["topics", "since", "status", "heartbeat"];

/// What a reader asked for, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    topics: Vec<Topic>,
    statuses: Vec<Status>,
    since: Option<u64>,
    heartbeat: Duration,
}

impl TryFrom<WatchQuery> for Wanted {
    type Error = Problem;

    fn try_from(query: WatchQuery) -> Result<Self, Problem> {
        let WatchQuery { topics, since, status, heartbeat } = query;
        let topics = match words("topics", topics.as_ref())? {
            none if none.is_empty() => Topic::ALL.to_vec(),
            some => some,
        };
        let statuses = words("status", status.as_ref())?;
        let default = Duration::from_secs(HEARTBEAT_DEFAULT_S);
        let heartbeat = heartbeat.as_deref().map_or(Ok(default), parse_heartbeat)?;
        Ok(Self { topics, statuses, since, heartbeat })
    }
}

fn parse_heartbeat(text: &str) -> Result<Duration, Problem> {
    let bounds = Duration::from_secs(HEARTBEAT_MIN_S)..=Duration::from_secs(HEARTBEAT_MAX_S);
    humantime::parse_duration(text).ok().filter(|heartbeat| bounds.contains(heartbeat)).ok_or_else(|| {
        let text = format!("heartbeat {text:?}: expected a duration from {HEARTBEAT_MIN_S}s to {HEARTBEAT_MAX_S}s");
        ProblemKind::BadRequest.problem(text)
    })
}

impl Wanted {
    fn wants(&self, change: &Change) -> bool {
        change.what.topic().is_some_and(|topic| self.topics.contains(&topic))
            && match &change.what {
                Values::Members { old, new } => {
                    let status = |member: &Option<Box<crate::api::Member>>| member.as_ref().map(|member| member.status);
                    fits(&self.statuses, status(old), status(new))
                }
                Values::Other => false,
            }
    }

    fn lists(&self, member: &node::Member) -> bool {
        self.topics.contains(&Topic::Members) && fits(&self.statuses, None, Some(member.status))
    }
}

/// Where the protocol core stands.
struct Standing {
    revision: u64,
    first: u64,
    /// Only without `since`.
    members: Vec<node::Member>,
}

/// Why `since` cannot be resumed from, if it cannot.
fn gone(since: u64, first: u64, oldest: u64, revision: u64) -> Option<String> {
    let why = if since > revision {
        format!("it is in the future: this daemon has come to {revision}, so it was told by another one")
    } else if since < first {
        format!("it is from an earlier life of this daemon, which began this one at {first}")
    } else if since < oldest {
        format!("the history goes back to {oldest} only")
    } else {
        return None;
    };
    Some(format!("cannot resume from revision {since}: {why}; watch without since to get the present state"))
}

/// Opens a stream.
///
/// # Errors
/// A problem: `bad-request`, `gone`, `busy`, or the protocol task has stopped.
pub(super) async fn open(membership: &Membership, query: WatchQuery) -> Result<Response, Problem> {
    let wanted = Wanted::try_from(query)?;
    let hub = &membership.hub;
    let place = hub.enter().map_err(|error| {
        ProblemKind::Busy.problem(format!("{error}; end one of them, or share a stream among several"))
    })?;
    // At one instant: changes after this revision come from the hub, also those that are not published yet.
    let asked = wanted.clone();
    let standing = membership.engine.query(move |node| Standing {
        revision: node.revision(),
        first: node.first_revision(),
        members: match asked.since {
            Some(_) => Vec::new(),
            None => node.members().into_iter().filter(|member| asked.lists(member)).collect(),
        },
    });
    let Standing { revision, first, members } = standing.await?;
    let oldest = hub.oldest();
    if let Some(why) = wanted.since.and_then(|since| gone(since, first, oldest, revision)) {
        return Err(ProblemKind::Gone.problem(why));
    }
    let node = membership.trust.me;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Hello { node, version, joined: membership.is_joined(), oldest, revision };
    let reader = Reader {
        me: node,
        cursor: wanted.since.unwrap_or(revision),
        changes: hub.changes(),
        hub: Arc::clone(hub),
        heartbeat_due: Instant::now() + wanted.heartbeat,
        wanted,
        hello: Some(hello),
        items: members.into(),
        synced_at: Some(revision),
        is_over: false,
        _place: place,
    };
    let kind = HeaderValue::from_static(NDJSON);
    Ok(([(header::CONTENT_TYPE, kind)], Body::new(Lines::new(reader))).into_response())
}

/// One reader.
struct Reader {
    me: NodeId,
    wanted: Wanted,
    hub: Arc<Hub>,
    changes: watch::Receiver<u64>,
    /// The last revision told, or passed over.
    cursor: u64,
    heartbeat_due: Instant,
    hello: Option<Hello>,
    /// What of the snapshot is still to be told. The bulk of each, its record, is shared with the protocol core.
    items: VecDeque<node::Member>,
    /// `synced` is told when the cursor has come here.
    synced_at: Option<u64>,
    is_over: bool,
    _place: Place,
}

impl Reader {
    /// The next lines; none when all has been said.
    async fn next(&mut self) -> Option<Bytes> {
        let mut batch = Batch::default();
        while batch.is_empty() && !self.is_over {
            // Before the look, so that what comes after it wakes.
            self.changes.mark_unchanged();
            let before = self.cursor;
            self.fill(&mut batch);
            if !batch.is_empty() {
                break;
            }
            if self.cursor == before {
                self.wait(&mut batch).await;
            } else {
                // Nothing of what was looked at fits, and there may be more.
                tokio::task::yield_now().await;
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.heartbeat_due = Instant::now() + self.wanted.heartbeat;
        metrics::watch_lines(batch.lines);
        Some(batch.into_bytes())
    }

    /// What can be said at once.
    fn fill(&mut self, batch: &mut Batch) {
        if let Some(hello) = self.hello.take() {
            batch.line(&Line::Hello(hello));
        }
        while batch.has_room() {
            let Some(member) = self.items.pop_front() else { break };
            let value = Box::new(told(member, self.me));
            batch.line(&Line::Item(Item { what: Object::Members { value } }));
        }
        if self.synced_at.is_none_or(|at| self.cursor < at) && batch.has_room() {
            self.read(batch);
        }
        if self.items.is_empty() && !self.is_over && self.synced_at.take_if(|at| self.cursor >= *at).is_some() {
            batch.line(&Line::Synced(Mark { revision: self.cursor }));
        }
    }

    fn read(&mut self, batch: &mut Batch) {
        match self.hub.read(self.cursor, batch.room(), |change| self.wanted.wants(change)) {
            Read::Lines(lines, cursor) => {
                batch.extend(lines);
                self.cursor = cursor;
            }
            Read::Nothing => {}
            Read::Lagged(missed_up_to) => {
                metrics::watcher_lagged();
                batch.line(&Line::Lagged(Lagged { told: self.cursor, missed_up_to }));
                self.is_over = true;
            }
            Read::Closed(reason) => {
                batch.line(&Line::Closed(Closed { reason }));
                self.is_over = true;
            }
        }
    }

    /// Waits for something new, or until a sign of life is due.
    async fn wait(&mut self, batch: &mut Batch) {
        tokio::select! {
            biased;
            () = sleep_until(self.heartbeat_due) => batch.line(&Line::Heartbeat(Mark { revision: self.cursor })),
            // The hub lives as long as this reader: its signal never ends.
            _ = self.changes.changed() => {}
        }
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

    const fn has_room(&self) -> bool {
        self.bytes < WRITE_BYTES
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

type Next = Pin<Box<dyn Future<Output = (Reader, Option<Bytes>)> + Send>>;

/// A reader as the body of an answer: driven by its connection, gone with it.
struct Lines(Option<Next>);

impl Lines {
    fn new(reader: Reader) -> Self {
        Self(Some(Self::next(reader)))
    }

    fn next(mut reader: Reader) -> Next {
        Box::pin(async move {
            let bytes = reader.next().await;
            (reader, bytes)
        })
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        match next.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((reader, Some(bytes))) => {
                self.0 = Some(Self::next(reader));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready((_, None)) => {
                self.0 = None;
                Poll::Ready(None)
            }
        }
    }
}
