//! What is inside an opened datagram: a row of sections, each `kind u8 | length u16 | body`.
//!
//! The SWIM section holds foca's packet, the others are ours, so table traffic never waits for membership traffic nor
//! the other way round. A section of an unknown kind is skipped: a newer node may say more than an older one knows.

use bincode::{Decode, Encode};

use super::codec::{self, DATAGRAM_LIMIT, DecodeError, RECORD_LIMIT};
use super::decision::{Batch, Have, SignedDecision};
use super::exam::Exam;
use super::table::{Notice, Push, Sighting, Want, decode_pushes};
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
const KIND_STEPS: u8 = 9;
const KIND_NOTICES: u8 = 10;
const KIND_STEPS_WANTED: u8 = 11;
const KIND_SIGHTING: u8 = 12;
const KIND_TABLES: u8 = 13;
const KIND_EXAM: u8 = 14;
const KIND_LAST: u8 = KIND_EXAM;

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
    /// Steps of tables.
    Steps(Vec<Push>),
    /// Versions of tables that the sender has.
    Notices(Vec<Notice>),
    /// The sender lacks steps.
    StepsWanted(Vec<Want>),
    /// A question or an answer about who has seen a version of a table.
    Sighting(Sighting),
    /// Beginning of the digest over the tables that both may have; beside a greeting. Left out: nothing is held.
    Tables([u8; 8]),
    /// A question or an answer about the way between two members.
    Exam(Exam),
    /// Of a kind that this version does not know.
    Unknown(u8),
}

impl Section<'_> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Swim(_) => KIND_SWIM,
            Self::Records(_) => KIND_RECORDS,
            Self::Want(_) => KIND_WANT,
            Self::Check(_) => KIND_CHECK,
            Self::Hello(_) => KIND_HELLO,
            Self::Decisions(_) => KIND_DECISIONS,
            Self::Confirm(_) => KIND_CONFIRM,
            Self::Stubs(_) => KIND_STUBS,
            Self::Steps(_) => KIND_STEPS,
            Self::Notices(_) => KIND_NOTICES,
            Self::StepsWanted(_) => KIND_STEPS_WANTED,
            Self::Sighting(_) => KIND_SIGHTING,
            Self::Tables(_) => KIND_TABLES,
            Self::Exam(_) => KIND_EXAM,
            Self::Unknown(kind) => *kind,
        }
    }
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
        self.list(KIND_STUBS, stubs)
    }

    /// Adds steps of tables ([`Push::append`]); `false` when they do not fit.
    pub fn steps(&mut self, body: &[u8]) -> bool {
        self.section(KIND_STEPS, body)
    }

    /// Adds as many of the notices as fit and says how many.
    pub fn notices(&mut self, notices: &[Notice]) -> usize {
        self.list(KIND_NOTICES, notices)
    }

    /// Adds as many of the wants as fit and says how many.
    pub fn steps_wanted(&mut self, wants: &[Want]) -> usize {
        self.list(KIND_STEPS_WANTED, wants)
    }

    /// Adds a question or an answer about who has seen what; `false` when it does not fit.
    pub fn sighting(&mut self, sighting: &Sighting) -> bool {
        self.section(KIND_SIGHTING, &codec::encode(sighting))
    }

    /// Adds the beginning of the digest over tables; `false` when it does not fit.
    pub fn tables(&mut self, digest: [u8; 8]) -> bool {
        self.section(KIND_TABLES, &digest)
    }

    /// Adds a question or an answer about the way between two members, and zeros up to `fill` bytes of payload; `false` when
    /// it does not fit.
    pub fn exam(&mut self, exam: &Exam, fill: usize) -> bool {
        let mut body = codec::encode(exam);
        let wanted = fill.saturating_sub(self.out.len() + SECTION_HEADER_BYTES).min(self.room());
        body.resize(body.len().max(wanted), 0);
        self.section(KIND_EXAM, &body)
    }

    fn list(&mut self, kind: u8, items: &[impl Encode]) -> usize {
        let room = self.room();
        let mut body = Vec::new();
        let mut count = 0;
        for item in items.iter().take(RECORDS_MAX) {
            let before = body.len();
            codec::encode_into(item, &mut body);
            if body.len() > room {
                body.truncate(before);
                break;
            }
            count += 1;
        }
        if count > 0 {
            self.section(kind, &body);
        }
        count
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
        let is_repeated = kind <= KIND_LAST && out.iter().any(|section: &Section<'_>| section.kind() == kind);
        if is_repeated {
            return Err(DecodeError::Invalid("repeated section"));
        }
        out.push(match kind {
            KIND_SWIM => Section::Swim(body),
            KIND_RECORDS => Section::Records(list("record envelope", body)?),
            KIND_WANT => Section::Want(want(body)?),
            // A later version may know others, or append to these.
            KIND_CHECK => codec::decode_prefix::<Check, DATAGRAM_LIMIT>("check", body)
                .map_or(Section::Unknown(KIND_CHECK), |(check, _)| Section::Check(check)),
            // A later version may append to it.
            KIND_HELLO => Section::Hello(codec::decode_prefix::<Hello, DATAGRAM_LIMIT>("hello", body)?.0),
            KIND_DECISIONS => Section::Decisions(codec::decode_prefix::<Batch, DATAGRAM_LIMIT>("decisions", body)?.0),
            KIND_CONFIRM => codec::decode_prefix::<Confirm, DATAGRAM_LIMIT>("confirm", body)
                .map_or(Section::Unknown(KIND_CONFIRM), |(confirm, _)| Section::Confirm(confirm)),
            KIND_STUBS => Section::Stubs(list("stub", body)?),
            KIND_STEPS => Section::Steps(decode_pushes(body)?),
            KIND_NOTICES => Section::Notices(list("notice", body)?),
            KIND_STEPS_WANTED => Section::StepsWanted(list("want of steps", body)?),
            KIND_SIGHTING => codec::decode_prefix::<Sighting, DATAGRAM_LIMIT>("sighting", body)
                .map_or(Section::Unknown(KIND_SIGHTING), |(sighting, _)| Section::Sighting(sighting)),
            KIND_TABLES => {
                Section::Tables(body.first_chunk().copied().ok_or(DecodeError::Malformed("digest of tables"))?)
            }
            KIND_EXAM => codec::decode_prefix::<Exam, DATAGRAM_LIMIT>("exam", body)
                .map_or(Section::Unknown(KIND_EXAM), |(exam, _)| Section::Exam(exam)),
            other => Section::Unknown(other),
        });
        payload = rest;
    }
    if payload.is_empty() { Ok(out) } else { Err(DecodeError::Trailing { what: "sections", left: payload.len() }) }
}

fn list<T: Decode<()>>(what: &'static str, mut body: &[u8]) -> Result<Vec<T>, DecodeError> {
    let mut out = Vec::new();
    while !body.is_empty() && out.len() < RECORDS_MAX {
        let (item, used) = codec::decode_prefix::<T, DATAGRAM_LIMIT>(what, body)?;
        out.push(item);
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
pub(crate) mod tests;
