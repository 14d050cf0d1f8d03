//! What `GET /v1/watch` says: newline-delimited JSON, one [`Line`] each.
//!
//! # The order of lines
//! ```text
//! hello (item* | change*) synced (change | heartbeat)* (lagged | closed)?
//! ```
//! Without `since` there is an [`Item`] for each object as it was at the revision of [`Hello`]; with `since`, the changes
//! that were missed. From [`Line::Synced`] on the reader knows all that the daemon knows, and each further change comes
//! once, in order, the daemon's own included.
//!
//! # Revisions
//! Every change has a revision, one above that of the change before it, whatever its topic. Later lives of a daemon begin
//! far above; so a revision names one change of one daemon for ever. A reader that filters sees gaps. To resume, it gives
//! the highest revision that any line has told as `since`, of the same [`Hello::node`]. It then gets exactly what it has
//! missed, or a problem `gone` (410): the history no longer reaches back so far, is that of an earlier life of the daemon,
//! or the daemon has not come that far (it is another one).
//!
//! # Values
//! A [`Member`] in a line is what is told of it at one revision, and `old` of a change is exactly what was told before. So
//! all that changes without a revision is left blank: `last_heard_ms` and `rtt_us` are null, `incarnation` is 0 and
//! `degraded` is empty. `GET /v1/members` has them.
//!
//! Readers pass over lines, topics and causes that they do not know (`other`): a newer daemon may have more.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[cfg(feature = "agent")]
use super::schema;
use super::{Attachment, Conflict, Decision, Endpoint, Member};
use crate::record::network::NetworkId;
use crate::record::{NodeId, Status};

/// Media type of the stream.
pub const NDJSON: &str = "application/x-ndjson";
/// Seconds between two signs of life of the daemon, when nobody says otherwise.
pub const HEARTBEAT_DEFAULT_S: u64 = 15;
/// Shortest time between two signs of life, in seconds.
pub const HEARTBEAT_MIN_S: u64 = 1;
/// Longest time between two signs of life, in seconds.
pub const HEARTBEAT_MAX_S: u64 = 300;

/// What may be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Topic {
    /// The nodes: who is there, and what they say of themselves.
    Members,
    /// What operators have decided.
    Decisions,
    /// Which nodes are attached to which networks.
    Networks,
    /// What is reachable in the networks that the daemon's node is attached to.
    Endpoints,
    /// Addresses in these networks that several claim.
    Conflicts,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 5] = [Self::Members, Self::Decisions, Self::Networks, Self::Endpoints, Self::Conflicts];

    /// The word used in queries and lines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Decisions => "decisions",
            Self::Networks => "networks",
            Self::Endpoints => "endpoints",
            Self::Conflicts => "conflicts",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// There is no such topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a topic: expected one of {}", Topic::ALL.map(Topic::word).join(", "))]
pub struct UnknownTopic {
    /// What was given.
    pub word: String,
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(word: &str) -> Result<Self, UnknownTopic> {
        let known = Self::ALL.into_iter().find(|topic| topic.word().eq_ignore_ascii_case(word));
        known.ok_or_else(|| UnknownTopic { word: word.to_owned() })
    }
}

/// What to ask of `GET /v1/watch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "agent", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct WatchQuery {
    /// Comma-separated topics; all, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<Topic>, style = Form, explode = false, min_items = 1, required = false))]
    pub topics: Option<String>,
    /// Go on after this revision, without a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Comma-separated statuses. A change is told when the node fits before or after it, so that the reader learns of
    /// nodes that fit no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<Status>, style = Form, explode = false, min_items = 1, required = false))]
    pub status: Option<String>,
    /// Comma-separated labels, `KEY` or `KEY=VALUE`: only nodes that have all of them, before or after a change. Decisions are
    /// told whatever their nodes' statuses and labels are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Vec<schema::Word>, style = Form, explode = false, min_items = 1, required = false))]
    pub label: Option<String>,
    /// Comma-separated networks, ids or names: only these networks' attachments, endpoints and conflicts. Members and
    /// decisions are told all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = Option<String>))]
    pub network: Option<String>,
    /// After how long without another line there is a heartbeat, "1s" to "5m"; "15s" when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "agent", param(value_type = schema::Period, required = false))]
    pub heartbeat: Option<String>,
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Line {
    /// The first line: who speaks, and from where to where the history goes.
    Hello(Hello),
    /// An object as it was at the revision of the first line. Only without `since`.
    Item(Item),
    /// All up to this revision has been told; what follows happens now.
    Synced(Mark),
    /// Something has changed.
    Change(Box<Change>),
    /// Nothing has been said for a while. All that fits the filter has been told up to this revision.
    Heartbeat(Mark),
    /// The last line: the reader was too slow, and the changes between are not kept any more. It takes the snapshot.
    Lagged(Lagged),
    /// The last line: the daemon has nothing to tell any more.
    Closed(Closed),
    /// Something that a daemon newer than the reader has to say.
    #[serde(other)]
    Other,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Hello {
    /// The daemon's node. A `since` is worth nothing to another one.
    pub node: NodeId,
    /// Version of the daemon.
    #[cfg_attr(feature = "agent", schema(value_type = schema::ShortText))]
    pub version: String,
    /// As in [`ClusterInfo`](super::ClusterInfo): before the first exchange with another member a list may lack nodes.
    pub joined: bool,
    /// The lowest `since` that can be resumed from.
    pub oldest: u64,
    /// The revision of the snapshot, or that the missed changes go up to.
    pub revision: u64,
}

/// An object of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Item {
    /// Topic and value.
    #[serde(flatten)]
    #[cfg_attr(feature = "agent", schema(value_type = schema::Told))]
    pub what: Object,
}

/// What an [`Item`] tells, by topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "topic", rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema), schema(as = Told))]
pub enum Object {
    /// A node.
    Members {
        /// As it is told.
        value: Box<Member>,
    },
    /// A decision that stands.
    Decisions {
        /// As it is in force.
        value: Box<Decision>,
    },
    /// That a node is attached to a network.
    Networks {
        /// As it is told.
        value: Box<Attachment>,
    },
    /// An endpoint.
    Endpoints {
        /// As it is told.
        value: Box<Endpoint>,
    },
    /// An address that several claim.
    Conflicts {
        /// Who has it, and who else claims it.
        value: Box<Conflict>,
    },
    /// Something that a daemon newer than the reader has.
    #[serde(other)]
    Other,
}

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Mark {
    /// All up to this one has been told.
    pub revision: u64,
}

/// Something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Change {
    /// Its number.
    pub revision: u64,
    /// When the daemon saw it, by its own clock.
    #[cfg_attr(feature = "agent", schema(value_type = schema::Time))]
    pub time: String,
    /// Why, or how it was heard.
    pub cause: Cause,
    /// Who caused it; none: nobody in particular.
    #[serde(default)]
    pub by: Option<NodeId>,
    /// Topic, and the value before and after.
    #[serde(flatten)]
    pub what: Values,
}

/// Before and after, by topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "topic", rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Values {
    /// A node.
    Members {
        /// None: it was not known.
        old: Option<Box<Member>>,
        /// None: it has been forgotten.
        new: Option<Box<Member>>,
    },
    /// A decision.
    Decisions {
        /// None: nothing was decided of it.
        old: Option<Box<Decision>>,
        /// None: it does not stand any more.
        new: Option<Box<Decision>>,
    },
    /// That a node is attached to a network.
    Networks {
        /// None: it was not.
        old: Option<Box<Attachment>>,
        /// None: it is no more.
        new: Option<Box<Attachment>>,
    },
    /// An endpoint.
    Endpoints {
        /// None: it was not known.
        old: Option<Box<Endpoint>>,
        /// None: it has gone, or this node is attached to its network no more.
        new: Option<Box<Endpoint>>,
    },
    /// An address that several claim.
    Conflicts {
        /// None: one only has claimed it.
        old: Option<Box<Conflict>>,
        /// None: one only claims it, or nobody.
        new: Option<Box<Conflict>>,
    },
    /// Something that a daemon newer than the reader has.
    #[serde(other)]
    Other,
}

impl Values {
    /// The topic; none for one that a newer daemon has.
    pub const fn topic(&self) -> Option<Topic> {
        match self {
            Self::Members { .. } => Some(Topic::Members),
            Self::Decisions { .. } => Some(Topic::Decisions),
            Self::Networks { .. } => Some(Topic::Networks),
            Self::Endpoints { .. } => Some(Topic::Endpoints),
            Self::Conflicts { .. } => Some(Topic::Conflicts),
            Self::Other => None,
        }
    }
}

impl Values {
    /// The network that it is about, if any.
    pub fn network(&self) -> Option<NetworkId> {
        match self {
            Self::Networks { old, new } => new.as_ref().or(old.as_ref()).map(|one| one.network),
            Self::Endpoints { old, new } => new.as_ref().or(old.as_ref()).map(|one| one.network),
            Self::Conflicts { old, new } => new.as_ref().or(old.as_ref()).map(|one| one.network),
            Self::Members { .. } | Self::Decisions { .. } | Self::Other => None,
        }
    }
}

/// Why something changed, or how it was heard when that is all that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum Cause {
    /// Other nodes told of it.
    Gossip,
    /// The node itself spoke to this one.
    Contact,
    /// It was in an exchange of the full state.
    Exchange,
    /// The node did not answer, neither this one nor the witnesses that were asked.
    ProbeTimeout,
    /// The node said goodbye.
    Left,
    /// The node changed what it says of itself.
    Record,
    /// The node was suspected and has shown that it lives.
    Refuted,
    /// The node was suspect, down or had left, and is there again in a new life.
    Returned,
    /// The node was gone for so long that it is forgotten.
    Retention,
    /// The node that the change names is at its address: what was there is gone.
    Replaced,
    /// The daemon's own node changed.
    Own,
    /// An operator has decided it: on the node that the change names.
    Decision,
    /// Something that a daemon newer than the reader knows.
    #[serde(other)]
    Other,
}

impl Cause {
    /// The word used in lines.
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
            Self::Replaced => "replaced",
            Self::Own => "own",
            Self::Decision => "decision",
            Self::Other => "other",
        }
    }
}

/// The reader was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Lagged {
    /// The last revision that the reader was told.
    pub told: u64,
    /// What it has missed goes up to here; later changes are still kept.
    pub missed_up_to: u64,
}

/// Why there is nothing to tell any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub enum CloseReason {
    /// The node has left its cluster.
    Left,
    /// The node was removed from its cluster.
    Removed,
    /// The daemon stops.
    Shutdown,
    /// Something that a daemon newer than the reader knows.
    #[serde(other)]
    Other,
}

/// The end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
}

/// Whether a node's change is told to a reader that asked for these statuses: it fits before or after. None: all are told.
pub fn fits(statuses: &[Status], old: Option<Status>, new: Option<Status>) -> bool {
    statuses.is_empty() || [old, new].into_iter().flatten().any(|status| statuses.contains(&status))
}

/// Whether labels are all that was asked for: each `KEY` is there, each `KEY=VALUE` with that value.
pub fn has_labels(wanted: &[String], labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|wanted| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Box<Member> {
        Box::new(Member {
            id: "bj8muio9ov1wkkxg7ts1lqozc".parse().unwrap(),
            hostname: Some("swarm1".into()),
            address: "10.130.27.207:7946".parse().unwrap(),
            status: Status::Ready,
            since: "2026-03-12T14:11:27.000Z".into(),
            availability: None,
            role: None,
            data_path_addr: None,
            version: None,
            platform: None,
            joined_at: None,
            generation: 1,
            incarnation: 0,
            last_heard_ms: None,
            rtt_us: None,
            degraded: Vec::new(),
            away_s: None,
            manager_status: None,
            leader_term: None,
            labels: BTreeMap::new(),
            decisions: Vec::new(),
            certificate_expires_at: None,
            capacity: None,
            daemon_labels: BTreeMap::new(),
            metadata: BTreeMap::new(),
            is_self: false,
        })
    }

    #[test]
    fn lines_are_what_they_were() {
        let node = member().id;
        let change = Change {
            revision: 8,
            time: "2026-03-12T14:11:28.000Z".into(),
            cause: Cause::ProbeTimeout,
            by: None,
            what: Values::Members { old: None, new: Some(member()) },
        };
        let lines = [
            Line::Hello(Hello { node, version: "0.1.0".into(), joined: true, oldest: 1, revision: 7 }),
            Line::Item(Item { what: Object::Members { value: member() } }),
            Line::Synced(Mark { revision: 7 }),
            Line::Change(Box::new(change)),
            Line::Heartbeat(Mark { revision: 8 }),
            Line::Lagged(Lagged { told: 8, missed_up_to: 20 }),
            Line::Closed(Closed { reason: CloseReason::Left }),
        ];
        let texts = lines.each_ref().map(|line| serde_json::to_string(line).unwrap());
        for (line, text) in lines.iter().zip(&texts) {
            assert_eq!(&serde_json::from_str::<Line>(text).unwrap(), line);
        }
        let node = serde_json::to_string(&member()).unwrap();
        insta::assert_snapshot!(texts.join("\n").replace(&node, "NODE"), @r#"
        {"type":"hello","node":"bj8muio9ov1wkkxg7ts1lqozc","version":"0.1.0","joined":true,"oldest":1,"revision":7}
        {"type":"item","topic":"members","value":NODE}
        {"type":"synced","revision":7}
        {"type":"change","revision":8,"time":"2026-03-12T14:11:28.000Z","cause":"probe-timeout","by":null,"topic":"members","old":null,"new":NODE}
        {"type":"heartbeat","revision":8}
        {"type":"lagged","told":8,"missed_up_to":20}
        {"type":"closed","reason":"left"}
        "#);
    }

    #[test]
    fn labels_are_asked_for_by_key_or_with_their_value() {
        let labels = [("zone", "fra1"), ("disk", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let has =
            |wanted: &[&str]| has_labels(&wanted.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>(), &labels);
        assert!(has(&[]) && has(&["zone"]) && has(&["zone=fra1", "disk"]) && has(&["disk="]));
        assert!(!has(&["zone=ams3"]) && !has(&["zone", "rack"]));
    }

    #[test]
    fn what_is_new_is_passed_over() {
        let line = |text| serde_json::from_str::<Line>(text).unwrap();
        assert_eq!(line(r#"{"type":"weather","sunny":true}"#), Line::Other);
        assert_eq!(line(r#"{"type":"heartbeat","revision":1,"more":2}"#), Line::Heartbeat(Mark { revision: 1 }));
        let change = r#"{"type":"change","revision":9,"time":"t","cause":"moon","topic":"tides","old":1,"new":2}"#;
        let Line::Change(change) = line(change) else { panic!("{change}") };
        assert_eq!((change.cause, change.what), (Cause::Other, Values::Other));
        let item = Line::Item(Item { what: Object::Other });
        assert_eq!(line(r#"{"type":"item","topic":"tides","value":{}}"#), item);
    }

    #[test]
    fn words_are_those_of_the_json() {
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_string(&topic).unwrap(), format!("\"{topic}\""));
            assert_eq!(topic.word().parse(), Ok(topic));
        }
        let error = "weather".parse::<Topic>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"weather\" is not a topic: expected one of members, decisions, networks, endpoints, conflicts"
        );
        for cause in [Cause::ProbeTimeout, Cause::Refuted, Cause::Returned, Cause::Other] {
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{}\"", cause.word()));
        }
    }

    #[test]
    fn a_change_is_told_when_either_side_fits() {
        use Status::{Down, Ready, Suspect};
        let down = [Down];
        assert!(fits(&[], None, None));
        assert!(
            fits(&down, Some(Suspect), Some(Down)) && fits(&down, Some(Down), None) && fits(&down, None, Some(Down))
        );
        assert!(!fits(&down, Some(Ready), Some(Suspect)) && !fits(&down, None, Some(Ready)));
    }
}
