//! Local programs that watch what a node tells: a part of a plan, and what such a program makes of what it is told.
//!
//! Not here: what it should have been told (`world`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use gossipd::node::tables::Changed;
use gossipd::node::{Event, Member};
use gossipd::record::NodeId;
use gossipd::record::decision::DecisionKey;
use gossipd::record::network::{EndpointName, NetworkId};
use gossipd::session::{Listed, Said, Sink};
use serde::{Deserialize, Serialize};

use crate::trace::Trace;
use crate::view::Row;

/// Bytes that an object of a snapshot counts for.
const ITEM_BYTES: usize = 300;

/// A program, on each of some hosts. It takes the snapshot, then what follows it; whatever ends its stream, it comes back and
/// resumes, or takes the snapshot again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// On which hosts.
    pub on: Vec<usize>,
    /// When it begins.
    pub at_us: u64,
    /// Time between two looks.
    pub every_us: u64,
    /// Bytes that it takes at a look; none: all that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// It does not look from then to then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalls_us: Option<(u64, u64)>,
    /// It loses its connection after so many looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_every: Option<u64>,
}

impl Reading {
    /// When it looks, from first to last.
    pub(crate) fn looks_us(&self, span_us: u64) -> impl Iterator<Item = u64> + use<> {
        let Self { at_us, every_us, stalls_us, .. } = *self;
        let is_awake = move |at: &u64| stalls_us.is_none_or(|(from, until)| !(from..until).contains(at));
        (0..).map(move |k| at_us + k * every_us.max(1)).take_while(move |at| *at <= span_us).filter(is_awake)
    }
}

/// Which object something is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Member(NodeId),
    Decision(DecisionKey),
    Attachment(NodeId, NetworkId),
    Endpoint(EndpointName),
    Conflict(NetworkId, IpAddr),
}

/// A change as readers are told it: values are hashes of what they show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) old: Option<u128>,
    pub(crate) new: Option<u128>,
}

impl Told {
    /// None: it is nothing that readers are told.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let (revision, key, old, new) = match event {
            Event::Member { revision, old, new, .. } => {
                let id = new.as_ref().or(old.as_ref())?.swim.identity.id;
                let value = |one: &Option<Box<Member>>| one.as_deref().map(member);
                (*revision, Key::Member(id), value(old), value(new))
            }
            Event::Decision { revision, old, new, .. } => {
                let key = new.as_ref().or(old.as_ref())?.key();
                (*revision, Key::Decision(key), old.as_deref().map(hash), new.as_deref().map(hash))
            }
            Event::Table { revision, change, down_since_ms: (was_down, is_down), .. } => match change {
                Changed::Attachment { owner, network, old, new } => {
                    let (old, new) =
                        (old.as_deref().map(|one| (one, *was_down)), new.as_deref().map(|one| (one, *is_down)));
                    (*revision, Key::Attachment(*owner, *network), old.map(hash), new.map(hash))
                }
                Changed::Endpoint { name, old, new } => {
                    let (old, new) =
                        (old.as_deref().map(|one| (one, *was_down)), new.as_deref().map(|one| (one, *is_down)));
                    (*revision, Key::Endpoint(*name), old.map(hash), new.map(hash))
                }
            },
            Event::Conflict { revision, network, addr, old, new } => {
                (*revision, Key::Conflict(*network, *addr), old.as_ref().map(hash), new.as_ref().map(hash))
            }
            _ => return None,
        };
        Some(Self { revision, key, old, new })
    }

    /// What it counts for.
    pub(crate) const fn bytes(&self) -> usize {
        ITEM_BYTES * (1 + self.old.is_some() as usize + self.new.is_some() as usize)
    }
}

/// An object of a snapshot as readers are told it.
pub(crate) fn listed(listed: &Listed) -> Option<(Key, u128)> {
    Some(match listed {
        Listed::Member(one) => (Key::Member(one.swim.identity.id), member(one)),
        Listed::Decision(one) => (Key::Decision(one.key()), hash(&**one)),
        Listed::Attachment(owner, network, one, down) => (Key::Attachment(*owner, *network), hash((one, *down))),
        Listed::Endpoint(name, body, down) => (Key::Endpoint(*name), hash((&body.endpoint().ok()?, *down))),
        Listed::Conflict(one) => (Key::Conflict(one.network, one.addr), hash(one)),
    })
}

/// Without what changes unseen.
fn member(member: &Member) -> u128 {
    hash(Row::from(member).told())
}

fn hash(value: impl Debug) -> u128 {
    let mut trace = Trace::default();
    trace.bytes(format!("{value:?}").as_bytes());
    trace.value()
}

/// What a session says at one look.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) all: Vec<Said<Listed, Told>>,
    room: usize,
}

impl Heard {
    pub(crate) const fn new(room: usize) -> Self {
        Self { all: Vec::new(), room }
    }
}

impl Sink<Listed, Told> for Heard {
    fn room(&self) -> usize {
        self.room
    }

    fn say(&mut self, said: Said<Listed, Told>) {
        let bytes = match &said {
            Said::Change(told) => told.bytes(),
            _ => ITEM_BYTES,
        };
        self.room = self.room.saturating_sub(bytes);
        self.all.push(said);
    }
}

/// All objects that a reader has been told of, with what they show.
pub(crate) type Folded = BTreeMap<Key, u128>;
