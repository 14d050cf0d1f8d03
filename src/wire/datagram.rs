//! What is inside an opened datagram: a row of sections, each `kind u8 | length u16 | body`.
//!
//! The SWIM section holds foca's packet, the others are ours, so table traffic never waits for membership traffic nor
//! the other way round. A section of an unknown kind is skipped: a newer node may say more than an older one knows.

use bincode::{Decode, Encode};

use super::codec::{self, DATAGRAM_LIMIT, DecodeError, RECORD_LIMIT};
use super::decision::{Batch, Have, SignedDecision};
use crate::record::{NodeId, NodeRecord, Version};

/// Bytes in front of each section's body.
pub const SECTION_HEADER_BYTES: usize = 3;
/// Records in one section, at most.
const RECORDS_MAX: usize = 64;
/// Bytes that a stub takes, at most.
pub const STUB_BYTES_MAX: usize = 16 + 9 + 9;

const KIND_SWIM: u8 = 1;
const KIND_RECORDS: u8 = 2;
const KIND_WANT: u8 = 3;
const KIND_CHECK: u8 = 4;
const KIND_HELLO: u8 = 5;
const KIND_DECISIONS: u8 = 6;
const KIND_CONFIRM: u8 = 7;
const KIND_STUBS: u8 = 8;

/// A node's record on its way: the owner's word, passed on unread by nodes too old to read its body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecordEnvelope {
    /// Who wrote it.
    pub owner: NodeId,
    /// Its place in the owner's history.
    pub version: Version,
    /// `format u8 | fields`; see [`RecordEnvelope::record`].
    pub body: Vec<u8>,
}

/// The format of [`NodeRecord`] bodies written today. A later format appends fields and never changes earlier ones, so
/// that every reader takes the prefix it knows.
pub const RECORD_FORMAT: u8 = 1;

impl RecordEnvelope {
    /// Wraps a record.
    pub fn new(owner: NodeId, version: Version, record: &NodeRecord) -> Self {
        let mut body = vec![RECORD_FORMAT];
        codec::encode_into(record, &mut body);
        Self { owner, version, body }
    }

    /// Reads the body, whatever later format it was written in.
    ///
    /// # Errors
    /// [`DecodeError`] when the body is malformed, over [`crate::record::NODE_RECORD_BYTES_MAX`], or breaks a limit of
    /// [`NodeRecord::validate`].
    pub fn record(&self) -> Result<NodeRecord, DecodeError> {
        const WHAT: &str = "node record";
        let (format, fields) = self.body.split_first().ok_or(DecodeError::Malformed(WHAT))?;
        if *format == 0 {
            return Err(DecodeError::Version { what: WHAT, version: 0 });
        }
        if self.body.len() > crate::record::NODE_RECORD_BYTES_MAX {
            return Err(DecodeError::Invalid(WHAT));
        }
        let (record, used) = codec::decode_prefix::<NodeRecord, RECORD_LIMIT>(WHAT, fields)?;
        if *format == RECORD_FORMAT && used != fields.len() {
            return Err(DecodeError::Trailing { what: WHAT, left: fields.len() - used });
        }
        record.validate().map_err(|_| DecodeError::Invalid(WHAT))?;
        Ok(record)
    }

    /// As a later version would write it: the next format, with a field more.
    #[must_use]
    pub fn as_later(mut self) -> Self {
        self.body.splice(..1, [RECORD_FORMAT + 1]);
        self.body.push(7);
        self
    }

    /// Within limits, and of a format that this version does not know?
    pub fn is_of_later_format(&self) -> bool {
        self.body.len() <= crate::record::NODE_RECORD_BYTES_MAX
            && self.body.first().is_some_and(|format| *format > RECORD_FORMAT)
    }

    /// Bytes that the envelope takes inside a section, at most.
    pub fn encoded_len_max(&self) -> usize {
        16 + 9 + 9 + 5 + self.body.len()
    }
}

/// What is said against a node, so that it can refute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Doubt {
    /// The life that is doubted.
    pub generation: u64,
    /// SWIM's incarnation of the suspicion.
    pub incarnation: u16,
}

/// What a witness found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Testimony {
    /// The subject answered.
    Heard {
        /// The life that answered: the one asked for, or a later one.
        generation: u64,
        /// SWIM's incarnation in it.
        incarnation: u16,
    },
    /// Nothing came back within the window.
    Silent,
    /// Its machine refused a connection: nobody listens there.
    Refused,
    /// Its machine accepted a connection, and nobody answered.
    Stalled,
}

/// What nodes say to find out whether one of them lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Check {
    /// "Answer me."
    Ping {
        /// To be given back.
        nonce: u32,
        /// What is said of the one that is asked.
        doubt: Option<Doubt>,
    },
    /// "Here I am."
    Pong {
        /// Of the question.
        nonce: u32,
        /// The answerer's life.
        generation: u64,
        /// Its incarnation.
        incarnation: u16,
    },
    /// "I do not reach `subject`. Do you?"
    Ask {
        /// To be given back.
        nonce: u32,
        /// Whom it is about.
        subject: NodeId,
        /// Which life of it.
        generation: u64,
        /// What is said of it already.
        doubt: Option<Doubt>,
        /// The answer is wanted within this time, in milliseconds.
        window_ms: u16,
    },
    /// The answer to `Ask`.
    Tell {
        /// Of the question.
        nonce: u32,
        /// What was found.
        testimony: Testimony,
    },
    /// "Somebody holds this life of yours for down": after a split, when two views meet.
    HeldDown {
        /// The life.
        generation: u64,
    },
}

/// What a node lets others compare with what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Beginning of the digest over lives and record versions (see [`super::exchange::Digest`]).
    pub digest: [u8; 8],
    /// The sender's wall clock, in seconds since the Unix epoch.
    pub unix_s: u64,
}

/// Who has certain decisions?
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Confirm {
    /// "Answer when you have these, or later ones."
    Ask {
        /// To be given back.
        nonce: u32,
        /// Which.
        have: Vec<Have>,
    },
    /// "I have them."
    Have {
        /// Of the question.
        nonce: u32,
    },
}

/// One section of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section<'a> {
    /// A foca packet.
    Swim(&'a [u8]),
    /// Node records, newest first as the sender has them.
    Records(Vec<RecordEnvelope>),
    /// The sender lacks these nodes' records.
    Want(Vec<NodeId>),
    /// A question or an answer about who lives.
    Check(Check),
    /// The sender's digest and clock.
    Hello(Hello),
    /// Decisions of one signer.
    Decisions(Batch),
    /// A question or an answer about who has what.
    Confirm(Confirm),
    /// Records that are too large for a datagram: whose, and of which version. The sender has them.
    Stubs(Vec<(NodeId, Version)>),
    /// Of a kind that this version does not know.
    Unknown(u8),
}

/// Writes sections into a payload of bounded size.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    cap: usize,
}

impl Writer {
    /// A payload of at most `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self { out: Vec::with_capacity(cap), cap }
    }

    /// Room for one more section's body.
    pub fn room(&self) -> usize {
        self.cap.saturating_sub(self.out.len() + SECTION_HEADER_BYTES)
    }

    /// Adds a section that only a later version knows, if it fits.
    pub fn later(&mut self) {
        self.section(u8::MAX, b"of a later version");
    }

    /// Adds foca's packet; `false` when it does not fit (nothing is written then).
    pub fn swim(&mut self, packet: &[u8]) -> bool {
        self.section(KIND_SWIM, packet)
    }

    /// Adds as many of the records as fit and says how many.
    pub fn records<'a>(&mut self, records: impl Iterator<Item = &'a RecordEnvelope>) -> usize {
        let mut body = Vec::new();
        let mut count = 0;
        for record in records.take(RECORDS_MAX) {
            if body.len() + record.encoded_len_max() > self.room() {
                break;
            }
            codec::encode_into(record, &mut body);
            count += 1;
        }
        if count > 0 {
            self.section(KIND_RECORDS, &body);
        }
        count
    }

    /// Adds as many of the ids as fit.
    pub fn want(&mut self, ids: impl Iterator<Item = NodeId>) {
        let mut body = Vec::new();
        for id in ids {
            if body.len() + 16 > self.room() {
                break;
            }
            body.extend_from_slice(id.as_bytes());
        }
        if !body.is_empty() {
            self.section(KIND_WANT, &body);
        }
    }

    /// Adds as many stubs as fit and says how many.
    pub fn stubs(&mut self, stubs: &[(NodeId, Version)]) -> usize {
        let fitting = stubs.get(..stubs.len().min(self.room() / STUB_BYTES_MAX)).unwrap_or_default();
        let mut body = Vec::new();
        fitting.iter().for_each(|stub| codec::encode_into(stub, &mut body));
        if !fitting.is_empty() {
            self.section(KIND_STUBS, &body);
        }
        fitting.len()
    }

    /// Adds as many of the decisions as fit, of one signer, and says how many.
    pub fn decisions<'a>(&mut self, decisions: impl Iterator<Item = &'a SignedDecision>) -> usize {
        match Batch::fill(decisions, self.room()) {
            Some((batch, count)) if self.section(KIND_DECISIONS, &codec::encode(&batch)) => count,
            _ => 0,
        }
    }

    /// Adds a question or an answer about who has what; `false` when it does not fit.
    pub fn confirm(&mut self, confirm: &Confirm) -> bool {
        self.section(KIND_CONFIRM, &codec::encode(confirm))
    }

    /// Adds a question or an answer; `false` when it does not fit.
    pub fn check(&mut self, check: &Check) -> bool {
        self.section(KIND_CHECK, &codec::encode(check))
    }

    /// Adds a greeting; `false` when it does not fit.
    pub fn hello(&mut self, hello: &Hello) -> bool {
        self.section(KIND_HELLO, &codec::encode(hello))
    }

    fn section(&mut self, kind: u8, body: &[u8]) -> bool {
        let Ok(len) = u16::try_from(body.len()) else { return false };
        if body.len() > self.room() {
            return false;
        }
        self.out.push(kind);
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(body);
        true
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Reads all sections of a payload.
///
/// # Errors
/// [`DecodeError`] when one is cut short or malformed; then none is to be used.
pub fn sections(mut payload: &[u8]) -> Result<Vec<Section<'_>>, DecodeError> {
    let mut out = Vec::with_capacity(2);
    while let Some((header, rest)) = payload.split_first_chunk::<SECTION_HEADER_BYTES>() {
        let [kind, high, low] = *header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (body, rest) = rest.split_at_checked(len).ok_or(DecodeError::Malformed("section"))?;
        // One packet and one question each: many small ones would draw many large answers.
        let is_repeated = out.iter().any(|section| match section {
            Section::Swim(_) => kind == KIND_SWIM,
            Section::Records(_) => kind == KIND_RECORDS,
            Section::Want(_) => kind == KIND_WANT,
            Section::Check(_) => kind == KIND_CHECK,
            Section::Hello(_) => kind == KIND_HELLO,
            Section::Decisions(_) => kind == KIND_DECISIONS,
            Section::Confirm(_) => kind == KIND_CONFIRM,
            Section::Stubs(_) => kind == KIND_STUBS,
            Section::Unknown(_) => false,
        });
        if is_repeated {
            return Err(DecodeError::Invalid("repeated section"));
        }
        out.push(match kind {
            KIND_SWIM => Section::Swim(body),
            KIND_RECORDS => Section::Records(records(body)?),
            KIND_WANT => Section::Want(want(body)?),
            // A later version may know others, or append to these.
            KIND_CHECK => codec::decode_prefix::<Check, DATAGRAM_LIMIT>("check", body)
                .map_or(Section::Unknown(KIND_CHECK), |(check, _)| Section::Check(check)),
            // A later version may append to it.
            KIND_HELLO => Section::Hello(codec::decode_prefix::<Hello, DATAGRAM_LIMIT>("hello", body)?.0),
            KIND_DECISIONS => Section::Decisions(codec::decode_prefix::<Batch, DATAGRAM_LIMIT>("decisions", body)?.0),
            KIND_CONFIRM => codec::decode_prefix::<Confirm, DATAGRAM_LIMIT>("confirm", body)
                .map_or(Section::Unknown(KIND_CONFIRM), |(confirm, _)| Section::Confirm(confirm)),
            KIND_STUBS => Section::Stubs(stubs(body)?),
            other => Section::Unknown(other),
        });
        payload = rest;
    }
    if payload.is_empty() { Ok(out) } else { Err(DecodeError::Trailing { what: "sections", left: payload.len() }) }
}

fn records(mut body: &[u8]) -> Result<Vec<RecordEnvelope>, DecodeError> {
    let mut out = Vec::new();
    while !body.is_empty() && out.len() < RECORDS_MAX {
        let (record, used) = codec::decode_prefix::<RecordEnvelope, DATAGRAM_LIMIT>("record envelope", body)?;
        out.push(record);
        body = body.get(used..).unwrap_or_default();
    }
    Ok(out)
}

fn stubs(mut body: &[u8]) -> Result<Vec<(NodeId, Version)>, DecodeError> {
    let mut out = Vec::new();
    while !body.is_empty() && out.len() < RECORDS_MAX {
        let (stub, used) = codec::decode_prefix::<(NodeId, Version), DATAGRAM_LIMIT>("stub", body)?;
        out.push(stub);
        body = body.get(used..).unwrap_or_default();
    }
    Ok(out)
}

fn want(body: &[u8]) -> Result<Vec<NodeId>, DecodeError> {
    let (chunks, rest) = body.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(DecodeError::Malformed("want section"));
    }
    Ok(chunks.iter().map(|bytes| NodeId::from_bytes(*bytes)).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Availability, Details, METADATA_BYTES_MAX, Role};

    pub(crate) fn sample() -> NodeRecord {
        NodeRecord {
            hostname: "swarm1".to_owned(),
            role: Role::Manager,
            availability: Availability::Drain,
            data_path_addr: [10, 130, 27, 207].into(),
            agent_version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            joined_at_ms: 1_520_863_886_000,
            started_generation: 7,
            left: false,
            away_s: 0,
            details: Details::default(),
        }
    }

    fn envelope(n: u8) -> RecordEnvelope {
        RecordEnvelope::new(NodeId::from_bytes([n; 16]), Version { generation: 7, seq: 1 }, &sample())
    }

    #[test]
    fn golden_record_body() {
        let hex: String = envelope(1).body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0106737761726d310102000a821bcf05302e312e30056c696e7578067838365f3634fdb03a8d1a62010000070000000000000000"
        );
    }

    /// Old and new writer against old and new reader: a format 2 that appends a field.
    #[test]
    fn every_writer_is_read_by_every_reader() {
        #[derive(Encode, Decode, PartialEq, Debug)]
        struct Format2 {
            v1: NodeRecord,
            capacity: u32,
        }
        let new_writer = {
            let mut body = vec![2];
            codec::encode_into(&Format2 { v1: sample(), capacity: 9 }, &mut body);
            RecordEnvelope { body, ..envelope(1) }
        };
        let old_reader = |envelope: &RecordEnvelope| envelope.record();
        let new_reader = |envelope: &RecordEnvelope| {
            let (format, fields) = envelope.body.split_first().unwrap();
            if *format >= 2 {
                codec::decode_prefix::<Format2, DATAGRAM_LIMIT>("", fields).unwrap().0
            } else {
                Format2 { v1: old_reader(envelope).unwrap(), capacity: 0 }
            }
        };
        assert_eq!(old_reader(&envelope(1)), Ok(sample()));
        assert_eq!(old_reader(&new_writer), Ok(sample()));
        assert_eq!(new_reader(&envelope(1)), Format2 { v1: sample(), capacity: 0 });
        assert_eq!(new_reader(&new_writer), Format2 { v1: sample(), capacity: 9 });
    }

    #[test]
    fn records_that_break_a_limit_are_refused() {
        let with = |record: NodeRecord| RecordEnvelope::new(NodeId::from_bytes([1; 16]), Version::default(), &record);
        let bad_host = with(NodeRecord { hostname: "a\u{1b}[2J".to_owned(), ..sample() });
        assert_eq!(bad_host.record(), Err(DecodeError::Invalid("node record")));
        let mut trailing = envelope(1);
        trailing.body.push(0);
        assert_eq!(trailing.record(), Err(DecodeError::Trailing { what: "node record", left: 1 }));
        let empty = RecordEnvelope { body: vec![], ..envelope(1) };
        assert_eq!(empty.record(), Err(DecodeError::Malformed("node record")));
        let zero = RecordEnvelope { body: vec![0], ..envelope(1) };
        assert_eq!(zero.record(), Err(DecodeError::Version { what: "node record", version: 0 }));
    }

    #[test]
    fn the_largest_valid_record_fits() {
        let largest = NodeRecord {
            hostname: "h".repeat(crate::record::HOSTNAME_BYTES_MAX),
            data_path_addr: std::net::Ipv6Addr::LOCALHOST.into(),
            agent_version: "v".repeat(64),
            os: "o".repeat(64),
            arch: "a".repeat(64),
            joined_at_ms: u64::MAX,
            started_generation: u64::MAX,
            away_s: crate::record::AWAY_S_MAX,
            details: Details {
                certificate_expires_at_ms: u64::MAX,
                leader_term: Some(u64::MAX),
                cpus: u32::MAX,
                memory_bytes: u64::MAX,
                labels: (0..128).map(|n| (format!("l{n}"), String::new())).collect(),
                metadata: (0..128)
                    .map(|n| (format!("m{n}"), "v".repeat(if n == 0 { METADATA_BYTES_MAX - 908 } else { 0 })))
                    .collect(),
            },
            ..sample()
        };
        let envelope =
            RecordEnvelope::new(NodeId::from_bytes([1; 16]), Version { generation: u64::MAX, seq: u64::MAX }, &largest);
        assert!(envelope.body.len() <= crate::record::NODE_RECORD_BYTES_MAX);
        assert_eq!(envelope.record(), Ok(largest));
    }

    #[test]
    fn sections_round_trip_and_unknown_kinds_are_skipped() {
        let mut writer = Writer::new(1000);
        assert!(writer.swim(b"packet"));
        let records = [envelope(1), envelope(2)];
        assert_eq!(writer.records(records.iter()), 2);
        writer.want([NodeId::from_bytes([9; 16])].into_iter());
        let mut payload = writer.finish();
        payload.extend_from_slice(&[200, 0, 1, 42]);
        assert_eq!(
            sections(&payload).unwrap(),
            vec![
                Section::Swim(b"packet"),
                Section::Records(records.to_vec()),
                Section::Want(vec![NodeId::from_bytes([9; 16])]),
                Section::Unknown(200),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..1300)) {
            if let Ok(found) = sections(&payload) {
                for section in found {
                    if let Section::Records(records) = section {
                        for record in records {
                            let _ = record.record();
                        }
                    }
                }
            }
        }

        #[test]
        fn a_writer_never_passes_its_cap(cap in 0_usize..1200, swim in 0_usize..1300, count in 0_u8..70) {
            let mut writer = Writer::new(cap);
            writer.swim(&vec![0; swim]);
            let records: Vec<_> = (0..count).map(envelope).collect();
            let written = writer.records(records.iter());
            writer.want((0..count).map(|n| NodeId::from_bytes([n; 16])));
            let payload = writer.finish();
            prop_assert!(payload.len() <= cap);
            let read: usize = sections(&payload).unwrap().iter().map(|section| match section {
                Section::Records(records) => records.len(),
                _ => 0,
            }).sum();
            prop_assert_eq!(read, written);
        }
    }
}
