//! A decision on its way: body, signature, and the certificate of whoever signed it.
//!
//! ```text
//! body       format u8 | subject, register number u8, register name, stamp, reason, deadline, value     (bincode)
//! signature  Ed25519 (RFC 8032) over "gossipd decision 1\0" | cluster id | body
//! ```
//! A later format appends fields, so that every reader takes the prefix it knows and checks the signature over all of it.
//! A register number that this version does not know is kept and passed on unread.
//!
//! Not here: whether the signer may decide that (`node::decisions`).

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::codec::{self, DATAGRAM_LIMIT, DecodeError};
use super::credential::{Anchor, CERTIFICATE_BYTES_MAX, Certified, Credential, CredentialError, SIGNATURE_BYTES};
use crate::record::decision::{Decision, LABEL_VALUE_BYTES_MAX, Register, Slot, Stamp, Subject, TokenLimits, Verdict};
use crate::record::{Availability, ClusterId, Role};

/// The format of bodies written today.
pub const DECISION_FORMAT: u8 = 1;
/// Largest body accepted, in bytes. What does not fit into a datagram with its certificate goes by TCP.
pub const BODY_BYTES_MAX: usize = 1_024;

const WHAT: &str = "decision";

const AVAILABILITY: u8 = 1;
const ROLE: u8 = 2;
const LABEL: u8 = 3;
const REMOVED: u8 = 4;
const TOKEN: u8 = 5;

/// The fields of a body after its format byte.
#[derive(Encode, Decode)]
struct Body {
    subject: Subject,
    register: u8,
    name: String,
    stamp: Stamp,
    reason: Option<String>,
    deadline_ms: Option<u64>,
    value: Vec<u8>,
}

/// A decision with what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDecision {
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
    certificate: Arc<[u8]>,
}

/// One decision inside a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Item {
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// Decisions of one signer: the certificate is said once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    certificate: Vec<u8>,
    items: Vec<Item>,
}

impl Batch {
    /// As many decisions as fit into `room` bytes: those at the front that share the first one's certificate.
    pub fn fill<'a>(decisions: impl Iterator<Item = &'a SignedDecision>, room: usize) -> Option<(Self, usize)> {
        let mut decisions = decisions.peekable();
        let certificate = Arc::clone(&decisions.peek()?.certificate);
        let mut len = certificate.len() + 8;
        let mut items = Vec::new();
        for decision in decisions {
            len += decision.body.len() + SIGNATURE_BYTES + 3;
            if decision.certificate != certificate || len > room {
                break;
            }
            items.push(Item { body: decision.body.clone(), signature: decision.signature });
        }
        let count = items.len();
        (count > 0).then(|| (Self { certificate: certificate.to_vec(), items }, count))
    }

    /// All of `decisions`, those of one signer together.
    pub fn all<'a>(decisions: impl Iterator<Item = &'a SignedDecision>) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        for decision in decisions {
            let item = Item { body: decision.body.clone(), signature: decision.signature };
            match out.iter_mut().find(|batch| *batch.certificate == *decision.certificate) {
                Some(batch) => batch.items.push(item),
                None => out.push(Self { certificate: decision.certificate.to_vec(), items: vec![item] }),
            }
        }
        out
    }

    /// The decisions one by one.
    pub fn into_decisions(self) -> impl Iterator<Item = SignedDecision> {
        let certificate: Arc<[u8]> = self.certificate.into();
        self.items.into_iter().map(move |Item { body, signature }| SignedDecision {
            body,
            signature,
            certificate: Arc::clone(&certificate),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What a node has in one place: enough to see who knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Have {
    /// [`slot_hash`] of its place.
    pub slot: u64,
    /// What is held of it.
    pub stamp: Stamp,
}

/// 64 bits that stand for a decision's place where decisions are compared: its register, and its stamp where all
/// decisions about the register are kept.
pub fn slot_hash((key, kept): &Slot) -> u64 {
    let (register, name) = numbered(&key.register);
    let text = codec::encode(&(key.subject, register, name, kept));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn numbered(register: &Register) -> (u8, String) {
    match register {
        Register::Availability => (AVAILABILITY, String::new()),
        Register::Role => (ROLE, String::new()),
        Register::Label(key) => (LABEL, key.clone()),
        Register::Removed => (REMOVED, String::new()),
        Register::Token(role) => (TOKEN, role.word().to_owned()),
        Register::Other(number, name) => (*number, name.clone()),
    }
}

fn signed_text(cluster: ClusterId, body: &[u8]) -> Vec<u8> {
    [b"gossipd decision 1\0".as_slice(), cluster.as_bytes(), body].concat()
}

impl SignedDecision {
    /// Signs a decision.
    pub fn sign(decision: &Decision, cluster: ClusterId, credential: &Credential) -> Self {
        Self::sign_as(DECISION_FORMAT, decision, cluster, credential)
    }

    /// Signs a decision as a later version would: in the next format, with a field more.
    pub fn sign_as_later(decision: &Decision, cluster: ClusterId, credential: &Credential) -> Self {
        Self::sign_as(DECISION_FORMAT + 1, decision, cluster, credential)
    }

    fn sign_as(format: u8, decision: &Decision, cluster: ClusterId, credential: &Credential) -> Self {
        let Decision { subject, verdict, reason, deadline_ms, stamp } = decision;
        let (register, name) = numbered(&verdict.register());
        let value = match verdict {
            Verdict::Availability(availability) => codec::encode(availability),
            Verdict::Role(role) => codec::encode(role),
            Verdict::Label(_, value) => codec::encode(value),
            Verdict::Token(_, limits) => codec::encode(limits),
            Verdict::Removed | Verdict::Other(..) => Vec::new(),
        };
        let (subject, stamp, deadline_ms) = (*subject, *stamp, *deadline_ms);
        let mut body = vec![format];
        let fields = Body { subject, register, name, stamp, reason: reason.clone(), deadline_ms, value };
        codec::encode_into(&fields, &mut body);
        if format > DECISION_FORMAT {
            body.push(7);
        }
        let signature = credential.sign(&signed_text(cluster, &body));
        Self { body, signature, certificate: Arc::clone(credential.certificate()) }
    }

    /// Reads the body. Nothing is proven by it.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or breaks a limit.
    pub fn decision(&self) -> Result<Decision, DecodeError> {
        let (format, fields) = self.body.split_first().ok_or(DecodeError::Malformed(WHAT))?;
        if *format == 0 {
            return Err(DecodeError::Version { what: WHAT, version: 0 });
        }
        if self.body.len() > BODY_BYTES_MAX || self.certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(DecodeError::Invalid(WHAT));
        }
        let (body, used) = codec::decode_prefix::<Body, DATAGRAM_LIMIT>(WHAT, fields)?;
        if *format == DECISION_FORMAT && used != fields.len() {
            return Err(DecodeError::Trailing { what: WHAT, left: fields.len() - used });
        }
        let Body { subject, register, name, stamp, reason, deadline_ms, value } = body;
        let about_node = matches!(subject, Subject::Node(_));
        let verdict = match (register, about_node) {
            (AVAILABILITY, true) => Verdict::Availability(value_of::<Availability>(&value)?),
            (ROLE, true) => Verdict::Role(value_of::<Role>(&value)?),
            (LABEL, true) => Verdict::Label(name, value_of::<Option<String>>(&value)?),
            (REMOVED, true) => Verdict::Removed,
            (TOKEN, false) => {
                Verdict::Token(name.parse().map_err(|_| DecodeError::Invalid(WHAT))?, value_of::<TokenLimits>(&value)?)
            }
            (AVAILABILITY..=TOKEN, _) => return Err(DecodeError::Invalid(WHAT)),
            (number, _) => Verdict::Other(number, name),
        };
        let decision = Decision { subject, verdict, reason, deadline_ms, stamp };
        decision.validate().map_err(|_| DecodeError::Invalid(WHAT))?;
        Ok(decision)
    }

    /// What the signer's certificate says, once certificate and signature are verified and found to be those
    /// of the signer named in the body.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn verify(&self, cluster: ClusterId, anchor: &Anchor, stamp: Stamp) -> Result<Certified, CredentialError> {
        let text = signed_text(cluster, &self.body);
        let certified = anchor.signer(&self.certificate, stamp.at.ms(), &text, &self.signature)?;
        if certified.id == stamp.signer { Ok(certified) } else { Err(CredentialError::Name) }
    }

    /// Where it is kept; none if it cannot be read.
    pub fn slot(&self) -> Option<u64> {
        self.decision().ok().map(|decision| slot_hash(&decision.slot()))
    }

    /// Bytes for the disk: a batch of one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let batch = Batch::all(std::iter::once(self));
        batch.first().map(codec::encode).unwrap_or_default()
    }

    /// Reads what [`SignedDecision::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let batch = codec::decode::<Batch, DATAGRAM_LIMIT>(WHAT, bytes)?;
        let mut decisions = batch.into_decisions();
        match (decisions.next(), decisions.next()) {
            (Some(decision), None) => Ok(decision),
            _ => Err(DecodeError::Malformed(WHAT)),
        }
    }
}

fn value_of<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(codec::decode_prefix::<T, { 4 * LABEL_VALUE_BYTES_MAX }>(WHAT, bytes)?.0)
}

/// One place's part of the digest over all decisions: a hash of what is kept there.
pub fn share(slot: u64, stamp: Stamp) -> u128 {
    let Stamp { at, signer } = stamp;
    let text = [slot.to_be_bytes().as_slice(), &at.bits().to_be_bytes(), signer.as_bytes().as_slice()].concat();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}
