//! Local programs that watch: each node that has some keeps its history, and each program a session with it, as in the daemon.
//! Beside it stands all that was ever told, so that what a reader hears can be compared.
//!
//! Not here: when programs look (`plan`), what a session says when (`gossipd::session`).

use std::collections::BTreeMap;

use gossipd::node::{Event, Node};
use gossipd::session::{Entry, Filter, Gone, History, Limits, Listed, Said, Session, Standing, list};

use super::World;
use crate::host::HostId;
use crate::reading::{Folded, Heard, Told, listed};

/// Bytes that a history may have, for each change that it may have: never what binds.
const BYTES_PER_CHANGE: usize = 1 << 20;
/// Time between two comparisons of all that a reader knows with the listing, in microseconds.
const AUDIT_US: u64 = 1_000_000;

/// What one process has told since it began.
struct Stream {
    life: u64,
    history: History<Told>,
    /// All of it, from the first change on.
    log: Vec<Told>,
}

impl Stream {
    /// The revision of the last change that is not kept any more, as it should be.
    fn floor(&self, limits: Limits, first: u64) -> u64 {
        let gone = self.log.len().checked_sub(limits.changes + 1).and_then(|at| self.log.get(at));
        gone.map_or(first, |told| told.revision)
    }

    fn told(&self, revision: u64) -> Option<&Told> {
        let at = self.log.binary_search_by_key(&revision, |told| told.revision).ok()?;
        self.log.get(at)
    }
}

/// One program.
#[derive(Default)]
struct Reader {
    session: Option<Session<Listed>>,
    /// The process that the session is with.
    life: u64,
    /// Where it would resume.
    since: Option<u64>,
    /// The last change it was told, or where it began.
    last: u64,
    /// It has been told `synced` in this session.
    is_synced: bool,
    /// It has had a whole snapshot.
    has_base: bool,
    folded: Folded,
    looks: u64,
    audited_us: u64,
}

/// How often what happened to readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReaderCounts {
    /// Changes told.
    pub changes: u64,
    /// Sessions that began with a snapshot.
    pub snapshots: u64,
    /// Sessions that went on where an earlier one ended.
    pub resumed: u64,
    /// Readers that could not resume.
    pub gone: u64,
    /// Readers that were told that they lagged.
    pub lagged: u64,
}

/// All streams and who reads them.
#[derive(Default)]
pub(super) struct Readers {
    limits: BTreeMap<HostId, Limits>,
    streams: BTreeMap<HostId, Stream>,
    readers: BTreeMap<(usize, HostId), Reader>,
    pub(super) counts: ReaderCounts,
}

impl World {
    /// From its next start on, the node on `host` keeps so many changes for readers.
    pub(crate) fn keep_history(&mut self, host: HostId, changes: usize) {
        let limits = Limits { changes, bytes: changes.saturating_mul(BYTES_PER_CHANGE) };
        self.readers.limits.insert(host, limits);
    }

    /// How often what happened to readers so far.
    pub const fn reader_counts(&self) -> ReaderCounts {
        self.readers.counts
    }

    /// A node has started: its history begins.
    pub(super) fn open_stream(&mut self, host: HostId) {
        let Some(limits) = self.readers.limits.get(&host).copied() else { return };
        let life = self.host(host).life;
        let Some(revision) = self.node(host).map(Node::first_revision) else { return };
        let history = History::new(revision, limits);
        #[cfg(feature = "mutants")]
        let history = history.with_flaw(self.config.mutant);
        self.readers.streams.insert(host, Stream { life, history, log: Vec::new() });
    }

    /// Whoever watches `host` will be told.
    pub(super) fn publish(&mut self, host: HostId, event: &Event) {
        let Some(stream) = self.readers.streams.get_mut(&host) else { return };
        let Some(told) = Told::of(event) else { return };
        stream.history.append(Entry { revision: told.revision, bytes: told.bytes(), change: told.clone() });
        stream.log.push(told);
        let (kept, cap) = (stream.history.size().0, self.readers.limits.get(&host).map_or(0, |limits| limits.changes));
        self.checks.history(host, kept, cap);
    }

    /// The program `n` on `host` looks: takes what there is, up to so many bytes. One that `drops` loses its connection then.
    pub(crate) fn look(&mut self, n: usize, host: HostId, bytes: usize, drops: Option<u64>) {
        // A process that is stopped says nothing, and one that is not there accepts no connection.
        if self.host(host).is_paused || self.node(host).is_none() {
            return;
        }
        let mut readers = std::mem::take(&mut self.readers);
        let mut reader = readers.readers.remove(&(n, host)).unwrap_or_default();
        if let Some(stream) = readers.streams.get(&host) {
            let limits = readers.limits.get(&host).copied().unwrap_or(Limits { changes: 0, bytes: 0 });
            self.connect(host, &mut reader, stream, limits, &mut readers.counts);
            self.hear(host, &mut reader, stream, limits, bytes, &mut readers.counts);
            if reader.session.is_some() && bytes == usize::MAX {
                self.check_caught_up(host, &mut reader, stream);
            }
            reader.looks += 1;
            if drops.is_some_and(|every| reader.looks.is_multiple_of(every)) {
                reader.session = None;
            }
        }
        readers.readers.insert((n, host), reader);
        self.readers = readers;
    }

    fn connect(
        &mut self,
        host: HostId,
        reader: &mut Reader,
        stream: &Stream,
        limits: Limits,
        counts: &mut ReaderCounts,
    ) {
        if reader.life != stream.life {
            (reader.session, reader.life) = (None, stream.life);
        }
        let Some(node) = self.host(host).node.as_ref().and_then(crate::brain::Brain::gossipd) else { return };
        if reader.session.is_some() {
            return;
        }
        let (revision, first) = (node.revision(), node.first_revision());
        let open = |since: Option<u64>| {
            let items = if since.is_some() { Default::default() } else { list(node, &Filter::all()) };
            Session::open(Standing { revision, first, items }, since, &stream.history)
        };
        let opened = open(reader.since);
        let answer = opened.as_ref().map(|_| ()).map_err(|gone| *gone);
        reader.session = opened.or_else(|_| open(None)).ok();
        reader.is_synced = false;
        if let Some(since) = reader.since {
            let floor = stream.floor(limits, first);
            let right = match answer {
                Ok(()) => (floor..=revision).contains(&since),
                Err(Gone::EarlierLife { .. }) => since < first,
                Err(Gone::Forgotten { oldest }) => since < floor && oldest == floor,
                Err(Gone::Future { .. }) => false,
            };
            self.checks.resumed(host, right, since, (floor, revision), answer);
            let count = if answer.is_ok() { &mut counts.resumed } else { &mut counts.gone };
            *count += 1;
        }
        if reader.since.is_none() || answer.is_err() {
            (reader.last, reader.has_base) = (revision, false);
            counts.snapshots += 1;
            reader.folded.clear();
        }
    }

    fn hear(
        &mut self,
        host: HostId,
        reader: &mut Reader,
        stream: &Stream,
        limits: Limits,
        bytes: usize,
        counts: &mut ReaderCounts,
    ) {
        let first = self.node(host).map(Node::first_revision).unwrap_or_default();
        let floor = stream.floor(limits, first);
        let Some(session) = &mut reader.session else { return };
        let mut heard = Heard::new(bytes);
        let mut must_lag = session.pending() == 0 && reader.has_base && reader.last < floor;
        loop {
            let before = heard.all.len();
            session.fill(&mut heard, |cursor, room| {
                stream.history.read(cursor, room, |told| Some((told.clone(), told.bytes())))
            });
            if session.is_over() || heard.all.len() == before {
                break;
            }
        }
        for said in heard.all {
            match said {
                Said::Hello => {}
                Said::Item(item) => {
                    let fresh = listed(&item).is_none_or(|(key, value)| reader.folded.insert(key, value).is_none());
                    self.checks.told_once(host, fresh && !reader.is_synced, || format!("{item:?}"));
                }
                Said::Change(told) => {
                    counts.changes += 1;
                    self.checks.next_change(host, (reader.last, told.revision));
                    self.checks.same_change(host, stream.told(told.revision) == Some(&told), told.revision);
                    let Told { revision, key, old, new } = told;
                    let was = reader.folded.get(&key).copied();
                    self.checks.told_before(host, was == old, || format!("{key:?} at {revision}"));
                    match new {
                        Some(new) => reader.folded.insert(key, new),
                        None => reader.folded.remove(&key),
                    };
                    reader.last = revision;
                }
                Said::Synced(revision) => {
                    self.checks.synced(host, revision >= reader.last && !reader.is_synced, revision);
                    (reader.is_synced, reader.has_base) = (true, true);
                }
                Said::Lagged { told, missed_up_to } => {
                    let right = told == reader.last && reader.last < floor && missed_up_to == floor;
                    self.checks.lagged(host, right, (told, missed_up_to, floor));
                    (must_lag, reader.session, counts.lagged) = (false, None, counts.lagged + 1);
                }
                Said::Closed(_) => reader.session = None,
            }
        }
        self.checks.lag_told(host, !must_lag, (reader.last, floor));
        // Whoever lagged takes the snapshot; whoever loses its connection knows where it was.
        let can_resume = reader.session.is_some() && reader.has_base;
        reader.since = can_resume.then_some(reader.last);
    }

    /// One that takes all that there is knows all that the node knows, however slow others are.
    fn check_caught_up(&mut self, host: HostId, reader: &mut Reader, stream: &Stream) {
        let Some(node) = self.host(host).node.as_ref().and_then(crate::brain::Brain::gossipd) else { return };
        let newest = stream.log.last().map_or(node.first_revision(), |told| told.revision);
        let (revision, now_us) = (node.revision(), self.now_us);
        let is_due = now_us >= reader.audited_us + AUDIT_US && revision == newest;
        let listing: Option<Folded> = is_due.then(|| list(node, &Filter::all()).iter().filter_map(listed).collect());
        self.checks.undelayed(host, reader.last >= newest, (reader.last, newest));
        let Some(listing) = listing else { return };
        reader.audited_us = now_us;
        let odd = listing.iter().find(|(key, value)| reader.folded.get(key) != Some(value)).map(|(key, _)| key);
        let odd = odd.or_else(|| reader.folded.keys().find(|key| !listing.contains_key(key)));
        let words = odd.map(|key| format!("{key:?} at {revision}"));
        self.checks.stream_folds(host, words.as_deref());
    }
}
