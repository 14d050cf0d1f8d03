//! What goes into a [`Node`](super::Node) and what comes out: time, orders, effects, events.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::config::Config;
use super::member::Member;
use super::tables::{Changed, Conflict};
use crate::record::decision::Decision;
use crate::record::network::{Endpoint, EndpointId, EndpointState, Mac, NetworkId};
use crate::record::{ClusterId, Details, NodeId, NodeRecord, Role, Status, Version};
use crate::wire::Keyring;
use crate::wire::credential::{Anchors, Credential};
use crate::wire::decision::SignedDecision;
use crate::wire::exchange::Liveness;
use crate::wire::table::{Body, Key, Scope, Step};

/// Both clocks of a machine, read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic, in microseconds, from any origin.
    pub mono_us: u64,
    /// Wall clock, in milliseconds since the Unix epoch. May step.
    pub unix_ms: u64,
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub id: NodeId,
    /// Its generation: higher than that of any earlier life, and already persisted.
    pub generation: u64,
    /// The address that it tells others.
    pub addr: SocketAddr,
    /// What it says of itself.
    pub record: NodeRecord,
    /// The datagram keys.
    pub keyring: Keyring,
    /// The cluster's CAs: one, except while it is changed.
    pub anchors: Anchors,
    /// What it signs with.
    pub credential: Credential,
    /// The decisions that it kept before ([`Effect::Keep`]).
    pub decisions: Vec<SignedDecision>,
    /// Its own tables as it kept them before ([`Effect::KeepTable`]), attachments first.
    pub tables: Vec<KeptTable>,
    /// 32 bytes of the operating system's randomness, new at every start.
    pub seed: [u8; 32],
    /// Addresses to find others at.
    pub contacts: Vec<SocketAddr>,
    /// The protocol's constants.
    pub config: Config,
}

/// An own table as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTable {
    /// Which.
    pub scope: Scope,
    /// The tips of its lives, oldest first.
    pub lives: Vec<Version>,
    /// All of its records.
    pub records: Vec<(Key, Body)>,
}

/// Names an exchange until its reply or failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub(super) u64);

/// Something that the caller has to do. Effects are to be carried out in order: what follows a
/// [`Effect::PersistGeneration`] must not happen before that generation is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make sure that no later life starts with this generation or a lower one.
    PersistGeneration(u64),
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Sealed bytes.
        bytes: Vec<u8>,
    },
    /// Ask the node at `to`, over TLS, and bring back its reply.
    Exchange {
        /// To be given back with the reply.
        id: ExchangeId,
        /// Where to.
        to: SocketAddr,
        /// Who must answer there; none: whoever has a certificate of this cluster.
        peer: Option<NodeId>,
        /// An encoded [`crate::wire::exchange::Request`].
        request: Vec<u8>,
        /// Give up after this long, whatever has been reached by then, in milliseconds.
        patience_ms: u64,
    },
    /// Keep a decision on the disk, in the place of what was kept in that slot.
    Keep {
        /// Names the place.
        slot: u64,
        /// What to keep.
        decision: Arc<SignedDecision>,
    },
    /// What was kept in that slot is not needed any more.
    Forget {
        /// Names the place.
        slot: u64,
    },
    /// Keep a step of an own table on the disk, then give it back with [`Command::Written`]: nobody is told before. Steps
    /// come in order, and have to be kept and given back in order. One that is whole ([`Step::is_whole`]) is all there
    /// is; a network that goes from the attachments takes its table along.
    KeepTable {
        /// What changes.
        step: Arc<Step>,
        /// The tips of the table's lives from now on, oldest first.
        lives: Vec<Version>,
    },
    /// Tell whoever listens.
    Event(Event),
}

impl From<Event> for Effect {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Why a member changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was heard of through gossip.
    Gossip,
    /// It spoke to this node.
    Contact,
    /// It was in a full-state exchange.
    Exchange,
    /// Its probe timed out here.
    ProbeTimeout,
    /// It said goodbye.
    Left,
    /// It changed what it says of itself.
    Record,
    /// It was suspected and has shown that it lives.
    Refuted,
    /// It was suspect, down or had left, and is there again in a new life.
    Returned,
    /// It is past its retention.
    Retention,
    /// That node, which began later, is at its address: it is gone, and will not come back there.
    Replaced(NodeId),
    /// This node itself.
    Own,
    /// That node has decided it.
    Decision(NodeId),
}

impl Cause {
    /// The word used in logs and streams.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gossip => "gossip",
            Self::Contact => "contact",
            Self::Exchange => "exchange",
            Self::ProbeTimeout => "probe-timeout",
            Self::Left => "left",
            Self::Record => "record",
            Self::Refuted => "refuted",
            Self::Returned => "returned",
            Self::Retention => "retention",
            Self::Replaced(_) => "replaced",
            Self::Own => "own",
            Self::Decision(_) => "decision",
        }
    }

    /// What has happened to a member in the eyes of who lists it, whichever way it was heard.
    pub(super) fn seen(self, old: Option<&Member>, new: &Member) -> Self {
        if new.status == Status::Left {
            return Self::Left;
        }
        let Some(was) = old.map(|old| old.swim) else { return self };
        let is = new.swim;
        match (was.liveness, is.liveness) {
            (Liveness::Suspect, Liveness::Alive) if was.identity == is.identity => Self::Refuted,
            (Liveness::Suspect | Liveness::Down, Liveness::Alive) => Self::Returned,
            _ => self,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member appeared (`old` is none), changed, or was forgotten (`new` is none).
    Member {
        /// The number of this change, one above that of the last.
        revision: u64,
        /// Why.
        cause: Cause,
        /// Before.
        old: Option<Box<Member>>,
        /// After.
        new: Option<Box<Member>>,
    },
    /// Something else stands in a register now.
    Decision {
        /// This node's count of visible changes.
        revision: u64,
        /// Why.
        cause: Cause,
        /// Before.
        old: Option<Arc<Decision>>,
        /// After.
        new: Option<Arc<Decision>>,
    },
    /// This node is a member no more: somebody has decided so. It says nothing from now on.
    Removed(Arc<Decision>),
    /// An attachment or an endpoint appeared, changed or went.
    Table {
        /// This node's count of visible changes.
        revision: u64,
        /// Why.
        cause: Cause,
        /// What.
        change: Changed,
        /// Since when its owner is down, before and after (milliseconds since the Unix epoch). When the owner goes down or
        /// comes back, all that is shown of it is told again, with nothing but this changed.
        down_since_ms: (Option<u64>, Option<u64>),
    },
    /// Others claim an address that belongs to one of them only, or nobody does any more.
    Conflict {
        /// This node's count of visible changes.
        revision: u64,
        /// In which network.
        network: NetworkId,
        /// Which address.
        addr: IpAddr,
        /// Before; none: there was no conflict.
        old: Option<Conflict>,
        /// After; none: there is none any more.
        new: Option<Conflict>,
    },
    /// All members have what [`Node::handle_confirm`](super::Node::handle_confirm) or
    /// [`Node::handle_sighting`](super::Node::handle_sighting) asked for.
    Confirmed {
        /// The question.
        nonce: u32,
    },
    /// An examination is over.
    Examined {
        /// Which.
        nonce: u32,
    },
    /// The first full-state exchange since the start is done.
    Joined {
        /// With whom.
        with: NodeId,
    },
    /// The leave is known to a member, or nobody acknowledged it in time.
    LeaveDone {
        /// A member has it.
        acknowledged: bool,
    },
    /// What this node thinks of itself has changed.
    Health(Health),
    /// Another live node uses this node's id.
    IdentityConflict {
        /// Where the other one was seen, if it was.
        addr: Option<SocketAddr>,
        /// Its generation.
        generation: u64,
        /// This node says nothing for a while; otherwise the other one will.
        gives_way: bool,
    },
}

/// What a caller may order.
#[derive(Debug, Clone)]
pub enum Command {
    /// Say goodbye. [`Event::LeaveDone`] follows.
    Leave,
    /// Learn of further addresses to find others at.
    AddContacts(Vec<SocketAddr>),
    /// Announce that this node stops and is expected back within that many seconds: until then nobody holds its silence
    /// against it. [`Event::LeaveDone`] follows.
    Away(u16),
    /// Take in decisions that [`Node::handle_orders`](super::Node::handle_orders) has signed and that are on the disk now.
    Decided(Vec<SignedDecision>),
    /// A step of an own table is on the disk now ([`Effect::KeepTable`]): it counts here, and is told to others.
    Written(Arc<Step>),
    /// Steps that were to be kept could not be: none of those that were not given back counts.
    Unwritten,
    /// The scheduler on this node leads in that term; none: it does not.
    Lead(Option<u64>),
    /// Say something else of this node; refused without a word if it breaks a limit.
    Describe(Box<Details>),
    /// This node has a new certificate, perhaps with another role.
    Credential(Credential),
    /// From now on this node is to be reached there.
    Readdress(SocketAddr),
    /// Overlay traffic to this node goes there from now on.
    DataPath(IpAddr),
    /// Examine the way to these members and back, unless an examination is under way ([`Node::examination`]).
    /// [`Event::Examined`] follows.
    ///
    /// [`Node::examination`]: super::Node::examination
    Examine {
        /// Names the examination.
        nonce: u32,
        /// Whom.
        nodes: Vec<NodeId>,
        /// How long each of them may take, in milliseconds.
        window_ms: u64,
    },
}

/// A write into this node's own tables: one version step, whatever it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Attach this node to a network, or change its attachment.
    Attach {
        /// Which network.
        network: NetworkId,
        /// What it is called.
        name: String,
        /// The node's data-path address in it.
        vtep: IpAddr,
        /// The data path's hardware address.
        mac: Option<Mac>,
    },
    /// Detach this node from a network: its endpoints go too.
    Detach(NetworkId),
    /// Set endpoints of this node, and delete those that are none.
    Set {
        /// In which network.
        network: NetworkId,
        /// Which.
        endpoints: Vec<(EndpointId, Option<Endpoint>)>,
    },
    /// Change nothing of an endpoint of this node but its state.
    Turn {
        /// In which network.
        network: NetworkId,
        /// Which.
        id: EndpointId,
        /// What it is from now on.
        state: EndpointState,
    },
    /// Make these all endpoints of this node in a network.
    Replace {
        /// In which network.
        network: NetworkId,
        /// All of them.
        endpoints: BTreeMap<EndpointId, Endpoint>,
    },
}

/// What a node thinks of itself: whoever reads its listing should know how much it is worth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// 0: well; grows with each sign of own trouble, up to [`Health::SCORE_MAX`].
    pub score: u32,
    /// What is wrong, in the order of [`Degraded::ALL`].
    pub reasons: Vec<Degraded>,
}

impl Health {
    /// The worst score.
    pub const SCORE_MAX: u32 = 8;
}

/// Why a node is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degraded {
    /// It hears nobody: it keeps its listing as it is and accuses nobody.
    Isolated,
    /// Others are reached over TCP only.
    UdpBlocked,
    /// It is woken late, or its datagrams are: it accuses nobody before it has caught up.
    Slow,
    /// Its wall clock differs from that of most others.
    ClockSkew,
}

impl Degraded {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Isolated, Self::UdpBlocked, Self::Slow, Self::ClockSkew];

    /// The word used in the API, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::UdpBlocked => "udp-blocked",
            Self::Slow => "slow",
            Self::ClockSkew => "clock-skew",
        }
    }
}

/// Whom the other end of an exchange has proven to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its id, from its certificate.
    pub id: NodeId,
    /// Its role, from its certificate.
    pub role: Role,
}

/// An exchange brought no reply. Nothing was changed here; the other side may have taken the request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing came back in time, not even from the other side's kernel: the machine or the path to it is gone.
    #[error("unreachable")]
    Unreachable,
    /// The other side's kernel refused: the machine is there, and nobody listens.
    #[error("refused")]
    Refused,
    /// The other side's kernel accepted, and nobody answered in time: whoever listens there is stopped or overloaded.
    #[error("no answer")]
    Stalled,
    /// Somebody else answered there, or a stranger.
    #[error("not the expected peer")]
    WrongPeer,
    /// The exchange broke off.
    #[error("broken off")]
    Broken,
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::member::Swim;
    use super::*;

    fn member(generation: u64, liveness: Liveness, status: Status) -> Member {
        let identity = Identity { id: NodeId::from_bytes([1; 16]), generation, addr: ([127, 0, 0, 1], 1).into() };
        let swim = Swim { identity, incarnation: 0, liveness };
        Member {
            swim,
            status,
            since_ms: 0,
            record: None,
            heard_us: 0,
            rtt_us: None,
            tcp_only: false,
            decided: Arc::default(),
        }
    }

    #[test]
    fn what_has_happened_counts_for_more_than_how_it_was_heard() {
        use Liveness::{Alive, Down, Suspect};
        let rows = [
            (None, (1, Alive, Status::Ready), Cause::Gossip),
            (Some((1, Alive, Status::Ready)), (1, Suspect, Status::Suspect), Cause::Gossip),
            (Some((1, Suspect, Status::Suspect)), (1, Down, Status::Down), Cause::Gossip),
            (Some((1, Suspect, Status::Suspect)), (1, Alive, Status::Ready), Cause::Refuted),
            (Some((1, Suspect, Status::Suspect)), (2, Alive, Status::Ready), Cause::Returned),
            (Some((1, Down, Status::Down)), (2, Alive, Status::Ready), Cause::Returned),
            (Some((1, Down, Status::Left)), (2, Alive, Status::Ready), Cause::Returned),
            (Some((1, Down, Status::Down)), (2, Suspect, Status::Suspect), Cause::Gossip),
            (Some((1, Alive, Status::Ready)), (2, Alive, Status::Ready), Cause::Gossip),
            (Some((1, Alive, Status::Ready)), (1, Down, Status::Left), Cause::Left),
        ];
        for (old, new, expected) in rows {
            let member = |(generation, liveness, status)| member(generation, liveness, status);
            let cause = Cause::Gossip.seen(old.map(member).as_ref(), &member(new));
            assert_eq!(cause, expected, "{old:?} -> {new:?}");
        }
    }
}
