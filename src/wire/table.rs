//! Tables on their way: attachments and endpoints as bodies, the steps that change them, and what nodes say to compare.
//!
//! ```text
//! body  format u8 | fields                                                          (bincode)
//! step  owner, scope, since, tips of lives, changes (key, body or none for gone)    (bincode)
//! ```
//! A [`Step`] takes one owner's table in one scope from one version to a later one. A rumour is the step of one write, a
//! delta is the step from what a reader has, a snapshot is the step from nothing: one form, and one rule to take it in.
//!
//! A body is opaque to whoever passes it on: a later format appends fields, every reader takes the prefix it knows, and
//! what a node cannot read it keeps and hands on unread, so that no version ever leaves a gap.
//!
//! Not here: who may change what, and what becomes of it (`node::tables`).

use std::fmt;
use std::sync::Arc;

use bincode::{Decode, Encode};

use super::codec::{self, DecodeError, STREAM_LIMIT};
use crate::record::network::{
    ATTACHMENT_BYTES_MAX, Attachment, ENDPOINT_BYTES_MAX, Endpoint, EndpointId, NetworkError, NetworkId,
};
use crate::record::{NodeId, Version};

/// The format of endpoint and attachment bodies written today.
pub const TABLE_FORMAT: u8 = 1;
/// Largest body, in bytes: an endpoint's, with room for what later formats append.
pub const BODY_BYTES_MAX: usize = ENDPOINT_BYTES_MAX + 4 * 1024;
/// Lives of an owner that a table remembers: whoever was last in step in an older one gets the whole.
pub const LIVES_MAX: usize = 8;
/// Changes in one step: what an owner may have in all its tables.
pub const CHANGES_MAX: usize = 16_384;
/// Parts that a scope may be compared in.
pub const PARTS_MAX: usize = 256;
/// Scopes in one message: all that a node may be attached to, and the attachments themselves.
pub const SCOPES_MAX: usize = crate::record::network::ATTACHMENTS_MAX + 1;
/// Marks, wants or steps in one message: one for each member and a few more.
pub const ITEMS_MAX: usize = 131_072;
/// Memory claimed by the steps of one datagram, in bytes: the largest one full of deletions.
const STEPS_LIMIT: usize = 64 * 1024;
/// Memory claimed by one body, in bytes: twice its largest encoding, as empty strings and small fields take more in memory.
const BODY_LIMIT: usize = 2 * BODY_BYTES_MAX;

const STEP: &str = "table step";

/// Which of an owner's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Scope {
    /// The networks that it is attached to; known to every member.
    Attachments,
    /// Its endpoints in a network; known to the nodes attached to it.
    Network(NetworkId),
}

/// What names a record in its table: a network among attachments, an endpoint in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Key([u8; 16]);

impl Key {
    /// The greatest.
    pub const MAX: Self = Self([u8::MAX; 16]);

    /// Of these bits.
    pub const fn from_bytes(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The network that it names among attachments.
    pub const fn network(self) -> NetworkId {
        NetworkId::from_bytes(self.0)
    }

    /// The endpoint that it names in a network.
    pub const fn endpoint(self) -> EndpointId {
        EndpointId::from_bytes(self.0)
    }
}

impl From<NetworkId> for Key {
    fn from(id: NetworkId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<EndpointId> for Key {
    fn from(id: EndpointId) -> Self {
        Self(*id.as_bytes())
    }
}

/// An encoded record.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Body(Arc<[u8]>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl Body {
    /// Encodes an endpoint.
    ///
    /// # Errors
    /// [`NetworkError`] when it breaks a limit.
    pub fn of_endpoint(endpoint: &Endpoint) -> Result<Self, NetworkError> {
        endpoint.validate()?;
        Self::of("an endpoint", endpoint, ENDPOINT_BYTES_MAX)
    }

    /// Encodes an attachment.
    ///
    /// # Errors
    /// [`NetworkError`] when it breaks a limit.
    pub fn of_attachment(attachment: &Attachment) -> Result<Self, NetworkError> {
        attachment.validate()?;
        Self::of("an attachment", attachment, ATTACHMENT_BYTES_MAX)
    }

    fn of(what: &'static str, record: &impl Encode, max: usize) -> Result<Self, NetworkError> {
        let mut body = vec![TABLE_FORMAT];
        codec::encode_into(record, &mut body);
        match body.len() {
            bytes if bytes > max => Err(NetworkError::TooLarge { what, bytes, max }),
            _ => Ok(Self(body.into())),
        }
    }

    /// Bytes as they came.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes to keep or to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads an endpoint, whatever later format it was written in.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or breaks a limit.
    pub fn endpoint(&self) -> Result<Endpoint, DecodeError> {
        const WHAT: &str = "endpoint";
        let endpoint: Endpoint = self.read(WHAT)?;
        endpoint.validate().map_err(|_| DecodeError::Invalid(WHAT))?;
        Ok(endpoint)
    }

    /// Reads an attachment, whatever later format it was written in.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or breaks a limit.
    pub fn attachment(&self) -> Result<Attachment, DecodeError> {
        const WHAT: &str = "attachment";
        let attachment: Attachment = self.read(WHAT)?;
        attachment.validate().map_err(|_| DecodeError::Invalid(WHAT))?;
        Ok(attachment)
    }

    fn read<T: Decode<()>>(&self, what: &'static str) -> Result<T, DecodeError> {
        let (format, fields) = self.0.split_first().ok_or(DecodeError::Malformed(what))?;
        if *format == 0 {
            return Err(DecodeError::Version { what, version: 0 });
        }
        if self.0.len() > BODY_BYTES_MAX {
            return Err(DecodeError::Invalid(what));
        }
        let (record, used) = codec::decode_prefix::<T, BODY_LIMIT>(what, fields)?;
        if *format == TABLE_FORMAT && used != fields.len() {
            return Err(DecodeError::Trailing { what, left: fields.len() - used });
        }
        Ok(record)
    }
}

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// Its record; none: it is gone.
    pub body: Option<Body>,
}

/// From one version of an owner's table to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Step {
    /// Whose table.
    pub owner: NodeId,
    /// Which of its tables.
    pub scope: Scope,
    /// The version that this continues; [`Version::NONE`]: none, the changes are all that there is.
    pub since: Version,
    /// The last version of each of the owner's lives, from the one of `since` on, or as far back as they are known. The
    /// last of them is the version that this leads to.
    pub lives: Vec<Version>,
    /// What every key that was changed since then has become, by key.
    pub changes: Vec<Change>,
}

impl Step {
    /// The version that this leads to.
    pub fn to(&self) -> Version {
        self.lives.last().copied().unwrap_or_default()
    }

    /// Is it all of the table, rather than a difference?
    pub fn is_whole(&self) -> bool {
        self.since == Version::NONE
    }

    /// Bytes of the bodies, and a little for each change.
    pub fn weight(&self) -> usize {
        let bodies = self.changes.iter().map(|change| change.body.as_ref().map_or(0, |body| body.as_bytes().len()));
        64 + self.changes.len() * 24 + bodies.sum::<usize>()
    }

    /// Checks what holds for every honest step: versions that grow, keys in order, nothing over its limit.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when something does not.
    pub fn check(&self) -> Result<(), DecodeError> {
        let Self { owner: _, scope: _, since, lives, changes } = self;
        let grows = lives.windows(2).all(|pair| matches!(pair, [a, b] if a.generation < b.generation));
        let counts = lives.iter().all(|tip| tip.seq > 0 && tip.generation > 0);
        let begins = match lives.first() {
            None => false,
            Some(_) if self.is_whole() => true,
            Some(first) => since.generation == first.generation && since.seq <= first.seq && *since < self.to(),
        };
        let in_order = changes.windows(2).all(|pair| matches!(pair, [a, b] if a.key < b.key));
        let fits = changes.iter().all(|change| match &change.body {
            Some(body) => body.as_bytes().len() <= BODY_BYTES_MAX,
            None => !self.is_whole(),
        });
        if grows && counts && begins && in_order && fits && lives.len() <= LIVES_MAX && changes.len() <= CHANGES_MAX {
            Ok(())
        } else {
            Err(DecodeError::Invalid(STEP))
        }
    }
}

/// Whom a receiver passes something on to: everybody after itself on the ring of node ids, by their first eight bytes, up to
/// this place and not with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Span(pub u64);

impl Span {
    /// Up to a node.
    pub fn up_to(id: NodeId) -> Self {
        Self(id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }

    /// How far after the receiver a node is; none: it is outside. Up to the receiver itself, it is all of the ring.
    pub fn depth(self, receiver: NodeId, id: NodeId) -> Option<u64> {
        let first = Self::up_to(receiver).0.wrapping_add(1);
        let depth = Self::up_to(id).0.wrapping_sub(first);
        (depth < self.0.wrapping_sub(first)).then_some(depth)
    }
}

/// A step on its way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Push {
    /// Whom the receiver passes it on to; none: to nobody.
    pub span: Option<Span>,
    /// The step.
    pub step: Step,
}

impl Push {
    /// Appends one to the body of a datagram's section; the step is encoded already.
    pub fn append(span: Option<Span>, step: &[u8], body: &mut Vec<u8>) {
        codec::encode_into(&span, body);
        body.extend_from_slice(step);
    }
}

/// Reads the body of a datagram's section.
///
/// # Errors
/// [`DecodeError`] when it is malformed; then none of it is to be used.
pub fn decode_pushes(mut body: &[u8]) -> Result<Vec<Push>, DecodeError> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (push, used) = codec::decode_prefix::<Push, STEPS_LIMIT>(STEP, body)?;
        push.step.check()?;
        out.push(push);
        body = body.get(used..).unwrap_or_default();
    }
    Ok(out)
}

/// "I have this version of that table." In a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Notice {
    /// Which scope.
    pub scope: Scope,
    /// Whose.
    pub owner: NodeId,
    /// Which version.
    pub version: Version,
    /// The way to it does not fit into a datagram.
    pub is_large: bool,
    /// Whom the receiver passes it on to; none: to nobody.
    pub span: Option<Span>,
}

/// One owner's table as a node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Mark {
    /// Whose.
    pub owner: NodeId,
    /// Its version.
    pub version: Version,
    /// What is in it, hashed.
    pub hash: u64,
}

/// All tables of a scope as a node has them, hashed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Summary {
    /// Which.
    pub scope: Scope,
    /// All of it.
    pub digest: [u8; 16],
    /// Its parts, by bits of the owners' ids: a power of two of them.
    pub parts: Vec<u64>,
}

/// What is in the parts of a scope that differ.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Listing {
    /// Which.
    pub scope: Scope,
    /// How many parts there are.
    pub of: u16,
    /// Those that differ.
    pub parts: Vec<u16>,
    /// Everything in them.
    pub marks: Vec<Mark>,
}

/// "Give me this table, I have that of it."
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Want {
    /// Which scope.
    pub scope: Scope,
    /// Whose.
    pub owner: NodeId,
    /// What is there already.
    pub since: Version,
}

/// A version of a table, to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Sight {
    /// Which scope.
    pub scope: Scope,
    /// Whose.
    pub owner: NodeId,
    /// Which version.
    pub version: Version,
}

/// What a member asks about tables.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TableRequest {
    /// "This I have, hashed. Where do we differ?"
    Compare(Vec<Summary>),
    /// "Give me these, and take those."
    Fetch {
        /// What the asker lacks.
        wants: Vec<Want>,
        /// What it has.
        steps: Vec<Step>,
    },
    /// "Have you that version, or a later one?" Asked where datagrams do not get through.
    Seen(Sight),
}

/// The answer to a [`TableRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TableReply {
    /// Where the two differ.
    Differences(Vec<Listing>),
    /// What was wanted.
    Steps {
        /// As much as fits.
        steps: Vec<Step>,
        /// Ask again for the rest.
        more: bool,
        /// Something that was handed over was new.
        took: bool,
        /// Owners of what was handed over whom the answerer does not compare: they have been down for long, or it has
        /// forgotten them.
        uncompared: Vec<NodeId>,
    },
    /// It has it, or not.
    Seen(bool),
}

fn check(steps: &[Step], counts: &[(usize, usize)]) -> Result<(), DecodeError> {
    if steps.len() > ITEMS_MAX || counts.iter().any(|(count, max)| count > max) {
        return Err(DecodeError::Invalid("table message"));
    }
    steps.iter().try_for_each(Step::check)
}

impl TableRequest {
    /// Checks what was decoded.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when something is over its limit.
    pub fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Compare(summaries) => {
                let odd = summaries.iter().filter(|summary| !is_part_count(summary.parts.len())).count();
                check(&[], &[(summaries.len(), SCOPES_MAX), (odd, 0)])
            }
            Self::Fetch { wants, steps } => check(steps, &[(wants.len(), ITEMS_MAX)]),
            Self::Seen(_) => Ok(()),
        }
    }

    /// Reads one alone: as a message of its own.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or something is over its limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: Self = codec::decode::<_, STREAM_LIMIT>("table request", bytes)?;
        message.check()?;
        Ok(message)
    }
}

impl TableReply {
    /// Checks what was decoded.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when something is over its limit.
    pub fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Differences(listings) => {
                let marks = listings.iter().map(|listing| listing.marks.len()).sum();
                let odd = listings.iter().filter(|listing| !is_part_count(usize::from(listing.of))).count();
                check(&[], &[(listings.len(), SCOPES_MAX), (marks, ITEMS_MAX), (odd, 0)])
            }
            Self::Steps { steps, more: _, took: _, uncompared } => check(steps, &[(uncompared.len(), ITEMS_MAX)]),
            Self::Seen(_) => Ok(()),
        }
    }

    /// Reads one alone: as a message of its own.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or something is over its limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: Self = codec::decode::<_, STREAM_LIMIT>("table reply", bytes)?;
        message.check()?;
        Ok(message)
    }
}

fn is_part_count(count: usize) -> bool {
    count.is_power_of_two() && count <= PARTS_MAX
}

/// Who has seen a version of a table?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Sighting {
    /// "Answer when you have this version of that table, or a later one."
    Ask {
        /// To be given back.
        nonce: u32,
        /// Which.
        sight: Sight,
    },
    /// "I have it."
    Seen {
        /// Of the question.
        nonce: u32,
    },
    /// "I hold no tables of that network."
    Elsewhere {
        /// Of the question.
        nonce: u32,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::network::tests::{attachment, web};

    fn version(generation: u64, seq: u64) -> Version {
        Version { generation, seq }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn rumour(n: u8) -> Step {
        Step {
            owner: NodeId::from_bytes([n; 16]),
            scope: Scope::Network(NetworkId::from_bytes([9; 16])),
            since: version(7, 1),
            lives: vec![version(7, 2)],
            changes: vec![
                Change { key: EndpointId::from_bytes([1; 16]).into(), body: Some(Body::of_endpoint(&web(n)).unwrap()) },
                Change { key: EndpointId::from_bytes([2; 16]).into(), body: None },
            ],
        }
    }

    #[test]
    fn golden_bodies() {
        let endpoint = Body::of_endpoint(&web(5)).unwrap();
        assert_eq!(
            hex(endpoint.as_bytes()),
            "010108623761796b71636a0377656201\
             0a0009020001057765622e350001000a00090518010242\
             0a0009050100fb901f500001037777770001047469657205\
             66726f6e74"
        );
        let attached = Body::of_attachment(&attachment(3)).unwrap();
        assert_eq!(hex(attached.as_bytes()), "010866726f6e74656e64000a820003000700");
    }

    #[test]
    fn golden_step() {
        let step = Step { scope: Scope::Attachments, ..rumour(3) };
        let step = Step { changes: step.changes.into_iter().skip(1).collect(), ..step };
        assert_eq!(
            hex(&codec::encode(&step)),
            "03030303030303030303030303030303000701010702010202020202020202020202020202020200"
        );
    }

    #[test]
    fn golden_comparison() {
        let scope = Scope::Network(NetworkId::from_bytes([9; 16]));
        let ask = TableRequest::Compare(vec![Summary { scope, digest: [0xd1; 16], parts: vec![300, 5] }]);
        assert_eq!(
            hex(&codec::encode(&ask)),
            "00010109090909090909090909090909090909d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d102fb2c0105"
        );
        let marks = vec![Mark { owner: NodeId::from_bytes([4; 16]), version: version(7, 2), hash: 5 }];
        let reply = TableReply::Differences(vec![Listing { scope, of: 2, parts: vec![1], marks }]);
        assert_eq!(
            hex(&codec::encode(&reply)),
            "0001010909090909090909090909090909090902010101\
             04040404040404040404040404040404070205"
        );
        assert_eq!(TableReply::from_bytes(&codec::encode(&reply)), Ok(reply));
        assert_eq!(TableRequest::from_bytes(&codec::encode(&ask)), Ok(ask));
    }

    /// Old and new writer against old and new reader: a format 2 that appends a field.
    #[test]
    fn every_writer_is_read_by_every_reader() {
        #[derive(Encode, Decode, PartialEq, Debug)]
        struct Format2 {
            v1: Endpoint,
            weight: u32,
        }
        let mut bytes = vec![2];
        codec::encode_into(&Format2 { v1: web(5), weight: 9 }, &mut bytes);
        let new_writer = Body::from_bytes(&bytes);
        let new_reader = |body: &Body| match body.as_bytes() {
            [1, ..] => Format2 { v1: body.endpoint().unwrap(), weight: 0 },
            _ => body.read("").unwrap(),
        };
        assert_eq!(Body::of_endpoint(&web(5)).unwrap().endpoint(), Ok(web(5)));
        assert_eq!(new_writer.endpoint(), Ok(web(5)));
        assert_eq!(new_reader(&Body::of_endpoint(&web(5)).unwrap()), Format2 { v1: web(5), weight: 0 });
        assert_eq!(new_reader(&new_writer), Format2 { v1: web(5), weight: 9 });
    }

    #[test]
    fn bodies_that_break_a_rule_are_refused() {
        let mut trailing = Body::of_endpoint(&web(5)).unwrap().as_bytes().to_vec();
        trailing.push(0);
        let trailing = Body::from_bytes(&trailing);
        assert_eq!(trailing.endpoint(), Err(DecodeError::Trailing { what: "endpoint", left: 1 }));
        assert_eq!(Body::from_bytes(&[]).endpoint(), Err(DecodeError::Malformed("endpoint")));
        assert_eq!(Body::from_bytes(&[0]).endpoint(), Err(DecodeError::Version { what: "endpoint", version: 0 }));
        let mut homeless = vec![TABLE_FORMAT];
        codec::encode_into(&Endpoint { addresses: Vec::new(), ..web(5) }, &mut homeless);
        assert_eq!(Body::from_bytes(&homeless).endpoint(), Err(DecodeError::Invalid("endpoint")));
    }

    #[test]
    fn an_endpoint_of_60_kilobytes_fits_and_a_larger_one_is_named() {
        let with = |bytes: usize| {
            let labels = [("a", bytes / 2), ("b", bytes - bytes / 2)];
            let labels = labels.into_iter().map(|(key, len)| (key.to_owned(), "v".repeat(len))).collect();
            Endpoint { labels, ..web(5) }
        };
        let large = with(ENDPOINT_BYTES_MAX - 200);
        assert_eq!(Body::of_endpoint(&large).unwrap().endpoint(), Ok(large));
        let message = Body::of_endpoint(&with(ENDPOINT_BYTES_MAX)).unwrap_err().to_string();
        assert!(
            message.starts_with("an endpoint of 615") && message.ends_with("at most 61440 are allowed"),
            "{message}"
        );
    }

    #[test]
    fn steps_that_no_owner_makes_are_refused() {
        assert_eq!(rumour(1).check(), Ok(()));
        let broken: &[fn(&mut Step)] = &[
            |step| step.lives.clear(),
            |step| step.lives = vec![version(7, 0)],
            |step| step.lives = vec![version(7, 1)],
            |step| step.lives = vec![version(8, 2)],
            |step| step.lives = vec![version(7, 2), version(7, 3)],
            |step| step.lives = vec![version(8, 2), version(7, 3)],
            |step| step.lives = (7..16).map(|generation| version(generation, 2)).collect(),
            |step| step.changes.reverse(),
            |step| step.changes.extend(step.changes.clone()),
            |step| step.since = Version::NONE,
            |step| {
                step.changes =
                    vec![Change { key: Key::MAX, body: Some(Body::from_bytes(&vec![1; BODY_BYTES_MAX + 1])) }];
            },
        ];
        for (number, change) in broken.iter().enumerate() {
            let mut step = rumour(1);
            change(&mut step);
            assert_eq!(step.check(), Err(DecodeError::Invalid("table step")), "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode_pushes(&bytes);
            let _ = TableRequest::from_bytes(&bytes);
            let _ = TableReply::from_bytes(&bytes);
            let _ = codec::decode::<Sighting, STEPS_LIMIT>("", &bytes);
            let _ = (Body::from_bytes(&bytes).endpoint(), Body::from_bytes(&bytes).attachment());
        }

        #[test]
        fn a_flipped_byte_is_read_or_refused(at: usize, value: u8) {
            let request = TableRequest::Fetch { wants: Vec::new(), steps: vec![rumour(1), rumour(2)] };
            let mut bytes = codec::encode(&request);
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(TableRequest::Fetch { steps, .. }) = TableRequest::from_bytes(&bytes) {
                for change in steps.iter().flat_map(|step| &step.changes) {
                    let _ = change.body.as_ref().map(Body::endpoint);
                }
            }
        }

        #[test]
        fn pushes_round_trip(count in 0_u8..40, deletions in 0_u8..250, until: u64) {
            let mut steps: Vec<_> = (1..=count).map(rumour).collect();
            if let Some(first) = steps.first_mut() {
                first.changes = (0..deletions).map(|n| Change { key: Key([n; 16]), body: None }).collect();
            }
            let spans = [None, Some(Span(until))];
            let pushes: Vec<_> =
                steps.into_iter().zip(spans.into_iter().cycle()).map(|(step, span)| Push { span, step }).collect();
            let mut body = Vec::new();
            for Push { span, step } in &pushes {
                Push::append(*span, &codec::encode(step), &mut body);
            }
            prop_assert_eq!(decode_pushes(&body), Ok(pushes));
        }

        #[test]
        fn a_ring_is_cut_without_overlap(me: [u8; 16], middle: [u8; 16], other: [u8; 16]) {
            let [me, middle, other] = [me, middle, other].map(NodeId::from_bytes);
            let places = [me, middle, other].map(Span::up_to);
            let all = Span::up_to(me);
            prop_assert_eq!(all.depth(me, other).is_some(), places[0] != places[2]);
            let parts = [Span::up_to(middle).depth(me, other), all.depth(middle, other)];
            let is_either = places[2] != places[0] && places[2] != places[1];
            prop_assert_eq!(parts.iter().flatten().count(), usize::from(is_either && places[0] != places[1]));
        }
    }
}
