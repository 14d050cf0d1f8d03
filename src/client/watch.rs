//! Following the event stream for as long as one likes: connections come and go, the history is exact or begins anew.
//!
//! [`Feed`] holds one connection at a time, resumes it, and knows when it is dead; it hands out the daemon's lines.
//! [`Subscription`] makes [`Update`]s of them, [`MemberTable`] a listing that is always right. What the lines mean is told
//! in [`crate::api::watch`]. Nothing here is queued: while nobody asks for the next update, the daemon waits, and says so
//! when it waited too long.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use hyper::Method;
use tokio::time::{sleep, timeout};

use super::transport::{self, Limits, Lines};
use super::{ClientError, query_of};
use crate::api::watch::{
    Change, CloseReason, Closed, HEARTBEAT_DEFAULT_S, Hello, Item, Lagged, Line, Mark, Object, Topic, Values, fits,
    has_labels,
};
use crate::api::{Attachment, Conflict, Decision, Endpoint, Member, ProblemKind};
use crate::record::{NodeId, Status};

/// First pause before a connection is tried again, about.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause, about: how long after a daemon's return its programs are back.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Topics; none: all.
    pub topics: Vec<Topic>,
    /// Only nodes with all of these labels, `KEY` or `KEY=VALUE`, before or after a change; none: all.
    pub labels: Vec<String>,
    /// Only attachments, endpoints and conflicts of these networks, ids or names; none: all.
    pub networks: Vec<String>,
    /// Only nodes with one of these statuses, before or after a change; none: all.
    pub status: Vec<Status>,
    /// Go on after this revision, which was told by the same daemon. Without it, the snapshot comes first.
    pub since: Option<u64>,
    /// After how long of nothing else the daemon shows that it lives, 1 s to 5 min. After twice that and 5 s of silence the
    /// connection counts as dead.
    pub heartbeat: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        let heartbeat = Duration::from_secs(HEARTBEAT_DEFAULT_S);
        let (topics, labels, networks, status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { topics, labels, networks, status, since: None, heartbeat }
    }
}

/// Why the history has a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResyncReason {
    /// This program was too slow: the changes after `told` up to `missed_up_to` are not kept any more.
    Lagged {
        /// The last revision told.
        told: u64,
        /// The last one missed.
        missed_up_to: u64,
    },
    /// The daemon cannot resume: it was restarted, or this program was away for too long. What it says.
    Gone(String),
    /// Another node's daemon answers now.
    OtherNode {
        /// Whose history this was.
        was: NodeId,
        /// Who answers.
        is: NodeId,
    },
}

impl fmt::Display for ResyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged { told, missed_up_to } => {
                write!(f, "too slow: the changes after revision {told} up to {missed_up_to} are not kept any more")
            }
            Self::Gone(detail) => f.write_str(detail),
            Self::OtherNode { was, is } => write!(f, "node {is} answers where {was} did"),
        }
    }
}

/// What a [`Subscription`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// All nodes that fit, as they are at one revision: replaces all that was told before.
    Snapshot {
        /// The revision.
        revision: u64,
        /// The nodes.
        members: Vec<Member>,
        /// The decisions.
        decisions: Vec<Decision>,
        /// The attachments.
        networks: Vec<Attachment>,
        /// The endpoints.
        endpoints: Vec<Endpoint>,
        /// Addresses that several claim.
        conflicts: Vec<Conflict>,
    },
    /// Something has changed.
    Change(Change),
    /// After a lost connection: all that was missed has been told, up to this revision.
    Resumed {
        /// The revision.
        revision: u64,
    },
    /// Changes are missing. What was told before may be wrong until the [`Update::Snapshot`] that follows.
    Resync {
        /// Why.
        reason: ResyncReason,
    },
}

/// What a [`Feed`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// A line, and its text with its end.
    Line(Line, Bytes),
    /// Changes are missing; the snapshot follows.
    Resync(ResyncReason),
}

/// The daemon's lines, over as many connections as it takes.
pub(crate) struct Feed {
    path: PathBuf,
    limits: Limits,
    options: WatchOptions,
    /// Whose revisions these are.
    node: Option<NodeId>,
    since: Option<u64>,
    lines: Option<Lines>,
    /// Bytes of the snapshot so far.
    snapshot_bytes: usize,
    /// This connection began with a snapshot.
    is_snapshot: bool,
    /// To be given before anything else.
    next: Option<Result<Told, ClientError>>,
    /// Connections in a row that came to nothing.
    failures: u32,
    /// The present trouble has been told.
    is_trouble_told: bool,
    is_over: bool,
}

impl Feed {
    pub(super) fn new(path: PathBuf, limits: Limits, options: WatchOptions) -> Self {
        let since = options.since;
        Self {
            path,
            limits,
            options,
            node: None,
            since,
            lines: None,
            snapshot_bytes: 0,
            is_snapshot: since.is_none(),
            next: None,
            failures: 0,
            is_trouble_told: false,
            is_over: false,
        }
    }

    /// The next line, or news of the connection. An error is told once for each trouble; it is the end only when none
    /// follows. May be dropped at any await.
    pub(crate) async fn next(&mut self) -> Option<Result<Told, ClientError>> {
        loop {
            if let Some(next) = self.next.take() {
                return Some(next);
            }
            if self.is_over {
                return None;
            }
            let outcome = match &mut self.lines {
                Some(lines) => {
                    let silence = 2 * self.options.heartbeat + self.limits.silence_margin;
                    match timeout(silence, lines.next()).await {
                        Ok(Ok(Some(line))) => self.take(line).map(Some),
                        Ok(Ok(None)) => Err(ClientError::Protocol("the daemon closed the stream".to_owned())),
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(ClientError::Protocol(format!(
                            "the daemon has said nothing for {} s, not even a heartbeat",
                            silence.as_secs_f32()
                        ))),
                    }
                }
                None => self.open().await,
            };
            match outcome {
                Ok(Some(told)) => return Some(Ok(told)),
                Ok(None) => {}
                Err(error) => self.note_trouble(error),
            }
        }
    }

    /// Nothing follows any more.
    #[cfg(feature = "cli")]
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    fn note_trouble(&mut self, error: ClientError) {
        self.lines = None;
        self.failures = self.failures.saturating_add(1);
        self.is_over = is_final(&error);
        if self.is_over || !self.is_trouble_told {
            self.is_trouble_told = true;
            self.next = Some(Err(error));
        }
    }

    async fn open(&mut self) -> Result<Option<Told>, ClientError> {
        if self.failures > 0 {
            sleep(pause(self.failures, RandomState::new().build_hasher().finish())).await;
        }
        let target = format!("/v1/watch{}", query(&self.options, self.since));
        let after = self.limits.request;
        let opened = timeout(after, transport::lines(&self.path, Method::GET, &target, None, self.limits)).await;
        match opened.unwrap_or_else(|_| Err(ClientError::Timeout { path: self.path.clone(), after })) {
            Ok(lines) => {
                self.lines = Some(lines);
                self.snapshot_bytes = 0;
                self.is_snapshot = self.since.is_none();
                Ok(None)
            }
            Err(ClientError::Problem(problem)) if problem.known_kind() == Some(ProblemKind::Gone) => {
                Ok(Some(self.resync(ResyncReason::Gone(problem.detail))))
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets how far it had come: the snapshot is next.
    fn resync(&mut self, reason: ResyncReason) -> Told {
        self.lines = None;
        self.since = None;
        Told::Resync(reason)
    }

    fn take(&mut self, text: Bytes) -> Result<Told, ClientError> {
        let line: Line = serde_json::from_slice(&text)
            .map_err(|error| ClientError::Protocol(format!("a line of the daemon's is not understood: {error}")))?;
        match &line {
            Line::Hello(Hello { node, .. }) => match self.node.filter(|was| was != node && !self.is_snapshot) {
                Some(was) => {
                    let is = *node;
                    self.node = None;
                    return Ok(self.resync(ResyncReason::OtherNode { was, is }));
                }
                None => self.node = Some(*node),
            },
            Line::Item(_) => {
                self.snapshot_bytes += text.len();
                if self.snapshot_bytes > self.limits.body_bytes {
                    let limit = self.limits.body_bytes;
                    return Err(ClientError::Protocol(format!("the daemon's snapshot is larger than {limit} bytes")));
                }
            }
            Line::Synced(Mark { revision }) => {
                self.since = Some(*revision);
                self.failures = 0;
                self.is_trouble_told = false;
            }
            Line::Heartbeat(Mark { revision }) => self.since = Some(*revision),
            Line::Change(change) => self.since = Some(change.revision),
            Line::Lagged(Lagged { told, missed_up_to }) => {
                let reason = ResyncReason::Lagged { told: *told, missed_up_to: *missed_up_to };
                self.next = Some(Ok(self.resync(reason)));
            }
            Line::Closed(Closed { reason }) => self.note_trouble(ClientError::Protocol(
                match reason {
                    CloseReason::Left => "the daemon closed the stream: its node has left the cluster",
                    CloseReason::Removed => "the daemon closed the stream: its node was removed from the cluster",
                    CloseReason::Shutdown => "the daemon closed the stream: it stops",
                    CloseReason::Other => "the daemon closed the stream",
                }
                .to_owned(),
            )),
            Line::Other => {}
        }
        Ok(Told::Line(line, text))
    }
}

/// Trying again would change nothing: the daemon does not understand or does not let this caller.
fn is_final(error: &ClientError) -> bool {
    let ClientError::Problem(problem) = error else { return false };
    matches!(problem.known_kind(), Some(ProblemKind::BadRequest | ProblemKind::Forbidden | ProblemKind::NotFound))
}

fn query(options: &WatchOptions, since: Option<u64>) -> String {
    // Destructured in full: a new option has to be sent too.
    let WatchOptions { topics, labels, networks, status, since: _, heartbeat } = options;
    let list = |words: Vec<&str>| (!words.is_empty()).then(|| words.join(","));
    let heartbeat = Some(format!("{}ms", heartbeat.as_millis()));
    query_of([
        ("topics", &list(topics.iter().map(|topic| topic.word()).collect())),
        ("since", &since.map(|since| since.to_string())),
        ("status", &list(status.iter().map(|status| status.word()).collect())),
        ("label", &list(labels.iter().map(String::as_str).collect())),
        ("network", &list(networks.iter().map(String::as_str).collect())),
        ("heartbeat", &heartbeat),
    ])
}

/// Doubles with each failure; half of it is chance, so that the programs of a machine do not come all at once.
fn pause(failures: u32, chance: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
    let share = f64::from(u32::try_from(chance >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    whole / 2 + (whole / 2).mul_f64(share)
}

/// What happens in the cluster, without end: see [`Client::watch`](super::Client::watch).
///
/// It connects when it is first asked and again whenever the connection is lost, from where it was. An error is news, not
/// the end: it is told once for each trouble, and the subscription goes on trying. Only when it could try for ever (the
/// daemon does not understand the options, or has no such stream) nothing follows.
///
/// A [`Stream`] too, for those who have its combinators.
///
/// ```no_run
/// use gossipd::api::DEFAULT_SOCKET;
/// use gossipd::client::{Client, ClientError, MemberTable, WatchOptions};
/// use gossipd::record::Status;
///
/// async fn follow() -> Result<(), ClientError> {
///     let mut updates = Client::connect(DEFAULT_SOCKET).await?.watch(WatchOptions::default());
///     let mut table = MemberTable::default();
///     while let Some(update) = updates.next().await {
///         match update {
///             Ok(update) => table.apply(&update),
///             Err(error) => eprintln!("{error}; what is shown may be old"),
///         }
///         println!("{} ready", table.iter().filter(|member| member.status == Status::Ready).count());
///     }
///     Ok(())
/// }
/// ```
#[must_use = "it does nothing until it is asked for the next update"]
pub struct Subscription {
    /// None: it is over.
    next: Option<Next>,
}

type Outcome = Option<Result<Update, ClientError>>;
type Next = Pin<Box<dyn Future<Output = (Folding, Outcome)> + Send>>;

impl Subscription {
    pub(super) fn new(path: PathBuf, limits: Limits, options: WatchOptions) -> Self {
        let folding = Folding { feed: Feed::new(path, limits, options), items: Items::default() };
        Self { next: Some(folding.next()) }
    }

    /// The next update; none when nothing will follow. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Update, ClientError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Subscription {
    type Item = Result<Update, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        match next.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((folding, outcome)) => {
                self.next = outcome.is_some().then(|| folding.next());
                Poll::Ready(outcome)
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("is_over", &self.next.is_none()).finish()
    }
}

/// Lines on their way to updates.
struct Folding {
    feed: Feed,
    /// The snapshot so far.
    items: Items,
}

#[derive(Default)]
struct Items {
    members: Vec<Member>,
    decisions: Vec<Decision>,
    networks: Vec<Attachment>,
    endpoints: Vec<Endpoint>,
    conflicts: Vec<Conflict>,
}

impl Items {
    fn add(&mut self, what: Object) {
        match what {
            Object::Members { value } => self.members.push(*value),
            Object::Decisions { value } => self.decisions.push(*value),
            Object::Networks { value } => self.networks.push(*value),
            Object::Endpoints { value } => self.endpoints.push(*value),
            Object::Conflicts { value } => self.conflicts.push(*value),
            Object::Other => {}
        }
    }

    fn at(self, revision: u64) -> Update {
        let Self { members, decisions, networks, endpoints, conflicts } = self;
        Update::Snapshot { revision, members, decisions, networks, endpoints, conflicts }
    }
}

impl Folding {
    fn next(mut self) -> Next {
        Box::pin(async move {
            loop {
                let outcome = match self.feed.next().await {
                    Some(Ok(told)) => match self.take(told) {
                        Some(update) => Some(Ok(update)),
                        None => continue,
                    },
                    Some(Err(error)) => Some(Err(error)),
                    None => None,
                };
                return (self, outcome);
            }
        })
    }

    fn take(&mut self, told: Told) -> Option<Update> {
        let line = match told {
            Told::Resync(reason) => return Some(Update::Resync { reason }),
            Told::Line(line, _) => line,
        };
        match line {
            Line::Hello(_) => self.items = Items::default(),
            Line::Item(Item { what }) => self.items.add(what),
            Line::Synced(Mark { revision }) if self.feed.is_snapshot => {
                return Some(std::mem::take(&mut self.items).at(revision));
            }
            Line::Synced(Mark { revision }) => return Some(Update::Resumed { revision }),
            Line::Change(change) => return Some(Update::Change(*change)),
            Line::Heartbeat(_) | Line::Lagged(_) | Line::Closed(_) | Line::Other => {}
        }
        None
    }
}

/// The nodes as a [`Subscription`] tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberTable {
    members: BTreeMap<NodeId, Member>,
    statuses: Vec<Status>,
    labels: Vec<String>,
    revision: u64,
}

impl MemberTable {
    /// For a subscription with these options: a node that fits no longer is taken out.
    pub fn of(options: &WatchOptions) -> Self {
        Self { statuses: options.status.clone(), labels: options.labels.clone(), ..Self::default() }
    }

    /// Takes in an update.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Snapshot { revision, members, .. } => {
                self.members = members.iter().map(|member| (member.id, member.clone())).collect();
                self.revision = *revision;
            }
            Update::Change(change) => {
                self.revision = change.revision;
                let Values::Members { old, new } = &change.what else { return };
                match new {
                    Some(new)
                        if fits(&self.statuses, None, Some(new.status)) && has_labels(&self.labels, &new.labels) =>
                    {
                        self.members.insert(new.id, Member::clone(new));
                    }
                    _ => {
                        old.as_ref().and_then(|old| self.members.remove(&old.id));
                    }
                }
            }
            Update::Resumed { revision } => self.revision = *revision,
            // It stays as it was until the snapshot is there: old, but whole.
            Update::Resync { .. } => {}
        }
    }

    /// One node.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// All nodes, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The revision that it shows: what to resume from.
    pub const fn revision(&self) -> u64 {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::Client;
    use super::super::fake::{Fake, http, stream};
    use super::*;
    use crate::api::PROBLEM_JSON;

    const A: &str = "asqtfpeef1ur58dijnnykuwuk";
    const B: &str = "bj8muio9ov1wkkxg7ts1lqozc";

    fn member(id: &str, status: &str) -> String {
        format!(
            r#"{{"id":"{id}","hostname":"h","address":"10.0.0.1:7946","status":"{status}","since":"t","generation":1,"incarnation":0,"self":false}}"#
        )
    }

    fn hello(node: &str, revision: u64) -> String {
        format!(r#"{{"type":"hello","node":"{node}","version":"0","joined":true,"oldest":1,"revision":{revision}}}"#)
            + "\n"
    }

    fn item(id: &str, status: &str) -> String {
        format!(r#"{{"type":"item","topic":"members","value":{}}}"#, member(id, status)) + "\n"
    }

    fn change(revision: u64, id: &str, old: &str, new: Option<&str>) -> String {
        let new = new.map_or_else(|| "null".to_owned(), |status| member(id, status));
        let old = member(id, old);
        format!(
            r#"{{"type":"change","revision":{revision},"time":"t","cause":"gossip","topic":"members","old":{old},"new":{new}}}"#
        ) + "\n"
    }

    fn mark(kind: &str, revision: u64) -> String {
        format!(r#"{{"type":"{kind}","revision":{revision}}}"#) + "\n"
    }

    fn gone(detail: &str) -> Vec<u8> {
        http("410 Gone", PROBLEM_JSON, &serde_json::to_string(&ProblemKind::Gone.problem(detail)).unwrap())
    }

    /// Answers one request after the other with these; the log has what was asked.
    fn answering(answers: Vec<Vec<u8>>) -> (Fake, Arc<Mutex<Vec<String>>>) {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (asked, answers) = (Arc::clone(&log), Mutex::new(answers.into_iter()));
        let fake = Fake::serve(move |request| {
            let line = request.line.trim_start_matches("GET /v1/watch?").trim_end_matches("heartbeat=15000ms");
            asked.lock().unwrap().push(line.trim_end_matches('&').to_owned());
            answers.lock().unwrap().next().unwrap_or_default()
        });
        (fake, log)
    }

    async fn subscription(fake: &Fake, options: WatchOptions) -> Subscription {
        Client::connect(fake.path()).await.unwrap().watch(options)
    }

    /// The next update or error in a few words.
    async fn next(updates: &mut Subscription) -> String {
        match updates.next().await {
            None => "over".to_owned(),
            Some(Err(error)) => format!("error: {error}"),
            Some(Ok(Update::Snapshot { revision, members, .. })) => {
                format!("snapshot {revision}: {} nodes", members.len())
            }
            Some(Ok(Update::Change(change))) => format!("change {}", change.revision),
            Some(Ok(Update::Resumed { revision })) => format!("resumed {revision}"),
            Some(Ok(Update::Resync { reason })) => format!("resync: {reason}"),
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_resumed_from_where_it_was() {
        let first = hello(A, 7) + &item(A, "ready") + &mark("synced", 7) + &change(8, A, "ready", Some("down"));
        let second = hello(A, 10) + &change(10, A, "down", None) + &mark("synced", 10) + &mark("heartbeat", 12);
        let third = hello(A, 12) + &mark("synced", 12);
        let (fake, log) = answering(vec![stream(&first), stream(&second), Vec::new(), stream(&third)]);
        let mut updates = subscription(&fake, WatchOptions::default()).await;
        let expected = [
            "snapshot 7: 1 nodes",
            "change 8",
            "error: the daemon closed the stream",
            "change 10",
            "resumed 10",
            "error: the daemon closed the stream",
            // The third came to nothing, and that is no news.
            "resumed 12",
        ];
        for expected in expected {
            assert_eq!(next(&mut updates).await, expected);
        }
        assert_eq!(*log.lock().unwrap(), ["", "since=8", "since=12", "since=12"]);
    }

    #[tokio::test]
    async fn a_snapshot_cut_short_is_begun_again() {
        let cut = hello(A, 7) + &item(A, "ready");
        let whole = hello(A, 8) + &item(A, "ready") + &item(B, "ready") + &mark("synced", 8);
        let (fake, log) = answering(vec![stream(&cut), stream(&whole)]);
        let mut updates = subscription(&fake, WatchOptions::default()).await;
        assert_eq!(next(&mut updates).await, "error: the daemon closed the stream");
        assert_eq!(next(&mut updates).await, "snapshot 8: 2 nodes");
        assert_eq!(*log.lock().unwrap(), ["", ""]);
    }

    #[tokio::test]
    async fn a_gap_is_told_and_followed_by_the_snapshot() {
        let begin = |revision| hello(A, revision) + &item(A, "ready") + &mark("synced", revision);
        let lagged = begin(7) + r#"{"type":"lagged","told":7,"missed_up_to":90}"# + "\n";
        let other = hello(B, 200) + &mark("synced", 200);
        let answers =
            vec![stream(&lagged), stream(&begin(100)), gone("an earlier life"), stream(&begin(150)), stream(&other)];
        let (fake, log) = answering([answers, vec![stream(&begin(300))]].concat());
        let mut updates = subscription(&fake, WatchOptions::default()).await;
        let closed = "error: the daemon closed the stream";
        let expected = [
            "snapshot 7: 1 nodes",
            "resync: too slow: the changes after revision 7 up to 90 are not kept any more",
            "snapshot 100: 1 nodes",
            closed,
            "resync: an earlier life",
            "snapshot 150: 1 nodes",
            closed,
            "resync: node bj8muio9ov1wkkxg7ts1lqozc answers where asqtfpeef1ur58dijnnykuwuk did",
            "snapshot 300: 1 nodes",
        ];
        for expected in expected {
            assert_eq!(next(&mut updates).await, expected);
        }
        assert_eq!(*log.lock().unwrap(), ["", "", "since=100", "", "since=150", ""]);
    }

    #[tokio::test]
    async fn options_are_sent_and_what_is_refused_is_the_end() {
        let refusal = ProblemKind::BadRequest.problem("no");
        let busy = ProblemKind::Busy.problem("full");
        let answer = |status, problem| http(status, PROBLEM_JSON, &serde_json::to_string(problem).unwrap());
        let answers = vec![answer("503 Service Unavailable", &busy), answer("400 Bad Request", &refusal)];
        let (fake, log) = answering(answers);
        let options = WatchOptions {
            labels: vec!["zone=fra1".to_owned()],
            networks: Vec::new(),
            topics: vec![Topic::Members],
            status: vec![Status::Ready, Status::Down],
            since: Some(5),
            heartbeat: Duration::from_millis(1_500),
        };
        let mut updates = subscription(&fake, options).await;
        assert_eq!(next(&mut updates).await, "error: full");
        assert_eq!(next(&mut updates).await, "error: no");
        assert_eq!(next(&mut updates).await, "over");
        assert_eq!(next(&mut updates).await, "over");
        assert_eq!(
            log.lock().unwrap()[1],
            "topics=members&since=5&status=ready%2Cdown&label=zone%3Dfra1&heartbeat=1500ms"
        );
    }

    #[tokio::test]
    async fn a_connection_without_a_heartbeat_is_dead() {
        let fake = Fake::serve_and_hold(|_| stream(&(hello(A, 7) + &mark("synced", 7))));
        let limits = Limits { silence_margin: Duration::from_millis(250), ..Limits::default() };
        let options = WatchOptions { heartbeat: Duration::from_millis(125), ..WatchOptions::default() };
        let mut updates = Subscription::new(fake.path(), limits, options);
        assert_eq!(next(&mut updates).await, "snapshot 7: 0 nodes");
        assert_eq!(next(&mut updates).await, "error: the daemon has said nothing for 0.5 s, not even a heartbeat");
        assert_eq!(next(&mut updates).await, "resumed 7");
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_read_for_ever() {
        let limits = Limits { line_bytes: 1_000, body_bytes: 2_000, ..Limits::default() };
        let endless = Fake::serve(|_| stream(&"x".repeat(5_000)));
        let mut updates = Subscription::new(endless.path(), limits, WatchOptions::default());
        assert_eq!(next(&mut updates).await, "error: a line of the daemon's is longer than 1000 bytes");
        let large = Fake::serve(|_| stream(&(hello(A, 7) + &item(A, "ready").repeat(20))));
        let mut updates = Subscription::new(large.path(), limits, WatchOptions::default());
        assert_eq!(next(&mut updates).await, "error: the daemon's snapshot is larger than 2000 bytes");
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let fake = Fake::serve_and_hold(|_| stream(&(hello(A, 7) + &mark("synced", 7) + &change(8, A, "ready", None))));
        let mut updates = subscription(&fake, WatchOptions::default()).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            tokio::select! {
                biased;
                // Drops the other branch at every place where it waits.
                () = tokio::task::yield_now() => {}
                update = next(&mut updates) => seen.push(update),
            }
        }
        assert_eq!(seen, ["snapshot 7: 0 nodes", "change 8"]);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let ms = |failures, chance| pause(failures, chance).as_millis();
        assert_eq!((ms(1, 0), ms(1, u64::MAX)), (50, 100));
        assert_eq!((ms(3, 0), ms(3, u64::MAX)), (200, 400));
        assert_eq!((ms(u32::MAX, 0), ms(u32::MAX, u64::MAX)), (2_500, 5_000));
    }

    #[test]
    fn a_table_follows_its_updates_and_its_filter() {
        let update = |line: &str| match serde_json::from_str(line).unwrap() {
            Line::Change(change) => Update::Change(*change),
            other => panic!("{other:?}"),
        };
        let members = [A, B].map(|id| serde_json::from_str(&member(id, "ready")).unwrap()).to_vec();
        let snapshot = Items { members, ..Items::default() }.at(7);
        let down = update(&change(8, B, "ready", Some("down")));
        let options = WatchOptions { status: vec![Status::Ready], ..WatchOptions::default() };
        for (mut table, nodes) in [(MemberTable::default(), 2), (MemberTable::of(&options), 1)] {
            table.apply(&snapshot);
            assert_eq!((table.iter().count(), table.revision()), (2, 7));
            table.apply(&down);
            assert_eq!((table.iter().count(), table.revision()), (nodes, 8));
            let reason = ResyncReason::Gone(String::new());
            table.apply(&Update::Resync { reason });
            table.apply(&update(&change(9, B, "down", None)));
            table.apply(&Update::Resumed { revision: 11 });
            assert_eq!((table.iter().count(), table.revision()), (1, 11));
            assert!(table.get(A.parse().unwrap()).is_some() && table.get(B.parse().unwrap()).is_none());
        }
    }
}
