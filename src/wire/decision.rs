//! A decision on its way: body, signature, and the certificate of whoever signed it.
//!
//! ```text
//! body       format u8 | subject, register number u8, register name, stamp, reason, deadline, value     (bincode)
//! signature  Ed25519 (RFC 8032) over "gossipd decision 1\0" | cluster id | body
//! ```
//! When the cluster's CA is changed, a member whose certificate is of the new one *vouches* for what was signed under the
//! old one: what the signer's certificate said is then part of the text (`"gossipd voucher 1\0" | cluster id | voucher |
//! body`), and the certificate is the voucher's. Managers vouch for everybody, others for themselves.
//!
//! A later format appends fields, so that every reader takes the prefix it knows and checks the signature over all of it.
//! A register number that this version does not know is kept and passed on unread.
//!
//! Not here: whether the signer may decide that (`node::decisions`).

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::codec::{self, DATAGRAM_LIMIT, DecodeError};
use super::credential::{
    Anchor, Anchors, CERTIFICATE_BYTES_MAX, Certified, Credential, CredentialError, SIGNATURE_BYTES,
};
use crate::record::decision::{
    CaStep, Decision, LABEL_VALUE_BYTES_MAX, Register, Slot, Stamp, Subject, TokenLimits, Verdict,
};
use crate::record::{Availability, ClusterId, Role};

/// The format of bodies written today.
pub const DECISION_FORMAT: u8 = 1;
/// Largest body accepted, in bytes. What does not fit into a datagram with its certificate goes by TCP.
pub const BODY_BYTES_MAX: usize = 1_024;

/// Bytes of a voucher, at most.
const VOUCHER_BYTES_MAX: usize = 1 + 9 + 9;

const WHAT: &str = "decision";

const AVAILABILITY: u8 = 1;
const ROLE: u8 = 2;
const LABEL: u8 = 3;
const REMOVED: u8 = 4;
const TOKEN: u8 = 5;
const CA: u8 = 6;

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

/// What the certificate of a decision's signer said, as somebody else remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct Voucher {
    role: Role,
    issued_ms: u64,
    /// When it was given, in milliseconds since the Unix epoch.
    at_ms: u64,
}

/// A decision with what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDecision {
    body: Vec<u8>,
    voucher: Option<Voucher>,
    signature: [u8; SIGNATURE_BYTES],
    certificate: Arc<[u8]>,
}

/// One decision inside a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Item {
    body: Vec<u8>,
    voucher: Option<Voucher>,
    signature: [u8; SIGNATURE_BYTES],
}

impl From<&SignedDecision> for Item {
    fn from(decision: &SignedDecision) -> Self {
        let SignedDecision { body, voucher, signature, certificate: _ } = decision;
        Self { body: body.clone(), voucher: *voucher, signature: *signature }
    }
}

/// Decisions under one certificate, which is said once.
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
            len += decision.body.len() + SIGNATURE_BYTES + decision.voucher.map_or(4, |_| VOUCHER_BYTES_MAX + 4);
            if decision.certificate != certificate || len > room {
                break;
            }
            items.push(Item::from(decision));
        }
        let count = items.len();
        (count > 0).then(|| (Self { certificate: certificate.to_vec(), items }, count))
    }

    /// All of `decisions`, those of one signer together.
    pub fn all<'a>(decisions: impl Iterator<Item = &'a SignedDecision>) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        for decision in decisions {
            let item = Item::from(decision);
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
        self.items.into_iter().map(move |Item { body, voucher, signature }| SignedDecision {
            body,
            voucher,
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
    /// The CA that it is proven under ([`super::credential::ca_tag`]); 0 where that is not asked.
    pub ca: u32,
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
        Register::Ca => (CA, String::new()),
        Register::Other(number, name) => (*number, name.clone()),
    }
}

fn signed_text(cluster: ClusterId, body: &[u8]) -> Vec<u8> {
    [b"gossipd decision 1\0".as_slice(), cluster.as_bytes(), body].concat()
}

fn vouched_text(cluster: ClusterId, voucher: &Voucher, body: &[u8]) -> Vec<u8> {
    [b"gossipd voucher 1\0".as_slice(), cluster.as_bytes(), &codec::encode(voucher), body].concat()
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
            Verdict::Ca(step) => codec::encode(step),
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
        Self { body, voucher: None, signature, certificate: Arc::clone(credential.certificate()) }
    }

    /// The same decision, proven by the holder of `credential`, who has seen that its signer's certificate said `signer`.
    #[must_use]
    pub fn vouched_for(&self, signer: Certified, at_ms: u64, cluster: ClusterId, credential: &Credential) -> Self {
        let Certified { role, issued_ms, .. } = signer;
        let voucher = Voucher { role, issued_ms, at_ms };
        let signature = credential.sign(&vouched_text(cluster, &voucher, &self.body));
        let (body, certificate) = (self.body.clone(), Arc::clone(credential.certificate()));
        Self { body, voucher: Some(voucher), signature, certificate }
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
            (CA, false) => {
                let step = value_of::<CaStep>(&value)?;
                Anchor::new(&step.certificate).map_err(|_| DecodeError::Invalid(WHAT))?;
                Verdict::Ca(step)
            }
            (AVAILABILITY..=CA, _) => return Err(DecodeError::Invalid(WHAT)),
            (number, _) => Verdict::Other(number, name),
        };
        let decision = Decision { subject, verdict, reason, deadline_ms, stamp };
        decision.validate().map_err(|_| DecodeError::Invalid(WHAT))?;
        Ok(decision)
    }

    /// What the signer's certificate says, and by which CA that is proven (its tag), once certificate and signature are
    /// verified and found to be those of the signer named in the body, or of somebody who may vouch for it.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn verify(
        &self,
        cluster: ClusterId,
        anchors: &Anchors,
        stamp: Stamp,
    ) -> Result<(Certified, u32), CredentialError> {
        let Some(voucher) = &self.voucher else {
            let text = signed_text(cluster, &self.body);
            let (certified, ca) = anchors.signer(&self.certificate, stamp.at.ms(), &text, &self.signature)?;
            return if certified.id == stamp.signer { Ok((certified, ca)) } else { Err(CredentialError::Name) };
        };
        let text = vouched_text(cluster, voucher, &self.body);
        let (by, ca) = anchors.signer(&self.certificate, voucher.at_ms, &text, &self.signature)?;
        let is_modest = by.id == stamp.signer && voucher.role == by.role;
        if by.role != Role::Manager && !is_modest {
            return Err(CredentialError::Vouch);
        }
        let Voucher { role, issued_ms, at_ms: _ } = *voucher;
        Ok((Certified { id: stamp.signer, role, issued_ms }, ca))
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

/// One place's part of the digest over all decisions: a hash of what is kept there, and of the CA that proves it.
pub fn share(Have { slot, stamp: Stamp { at, signer }, ca }: Have) -> u128 {
    let (slot, at, ca) = (slot.to_be_bytes(), at.bits().to_be_bytes(), ca.to_be_bytes());
    let text = [slot.as_slice(), at.as_slice(), signer.as_bytes().as_slice(), ca.as_slice()].concat();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::fixture;
    use crate::record::NodeId;
    use crate::record::decision::{CaPhase, Hlc};

    const NOW_MS: u64 = 1_780_000_000_000;

    fn cluster() -> ClusterId {
        ClusterId::from_bytes([9; 16])
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn drain(signer: u8) -> Decision {
        let stamp = Stamp { at: Hlc::from_ms(NOW_MS), signer: id(signer) };
        let verdict = Verdict::Availability(Availability::Drain);
        Decision { subject: Subject::Node(id(signer)), verdict, reason: None, deadline_ms: None, stamp }
    }

    fn anchors(cas: &[u8]) -> Anchors {
        let certificates: Vec<_> = cas.iter().map(|n| fixture::authority(cluster(), *n, NOW_MS).0).collect();
        Anchors::new(&certificates).unwrap()
    }

    #[test]
    fn a_voucher_keeps_what_the_signers_certificate_said() {
        // A month later the old CA is gone.
        let later_ms = NOW_MS + 30 * 24 * 3_600_000;
        let credential = |ca, n, role, at_ms| fixture::credential_of(ca, cluster(), id(n), role, at_ms);
        let signed = SignedDecision::sign(&drain(2), cluster(), &credential(1, 2, Role::Worker, NOW_MS - 5));
        let stamp = drain(2).stamp;
        let (certified, old) = signed.verify(cluster(), &anchors(&[1, 2]), stamp).unwrap();
        assert_eq!(signed.verify(cluster(), &anchors(&[2]), stamp), Err(CredentialError::Certificate));

        let vouched = |n, role| signed.vouched_for(certified, later_ms, cluster(), &credential(2, n, role, later_ms));
        for by in [vouched(1, Role::Manager), vouched(2, Role::Worker)] {
            let by = SignedDecision::from_bytes(&by.to_bytes()).unwrap();
            let (said, new) = by.verify(cluster(), &anchors(&[2]), stamp).unwrap();
            assert_eq!((said, by.decision().unwrap()), (certified, drain(2)));
            assert_ne!(new, old);
            // Nothing of it can be exchanged.
            for (what, forged) in [
                (
                    "voucher",
                    SignedDecision { voucher: by.voucher.map(|v| Voucher { issued_ms: 1, ..v }), ..by.clone() },
                ),
                ("no voucher", SignedDecision { voucher: None, ..by.clone() }),
                (
                    "body",
                    SignedDecision {
                        body: SignedDecision::sign(&drain(3), cluster(), &credential(2, 3, Role::Manager, NOW_MS)).body,
                        ..by.clone()
                    },
                ),
            ] {
                assert!(forged.verify(cluster(), &anchors(&[2]), stamp).is_err(), "{what}");
            }
        }
        // Workers vouch for themselves only, and not for more than they are.
        assert_eq!(vouched(3, Role::Worker).verify(cluster(), &anchors(&[2]), stamp), Err(CredentialError::Vouch));
        let manager = Certified { role: Role::Manager, ..certified };
        let boast = signed.vouched_for(manager, later_ms, cluster(), &credential(2, 2, Role::Worker, later_ms));
        assert_eq!(boast.verify(cluster(), &anchors(&[2]), stamp), Err(CredentialError::Vouch));
    }

    #[test]
    fn a_step_of_a_ca_is_read_as_it_was_written_and_needs_a_certificate() {
        let credential = fixture::credential(cluster(), id(1), Role::Manager, NOW_MS);
        let step = |certificate: Vec<u8>| Decision {
            subject: Subject::Cluster,
            verdict: Verdict::Ca(CaStep { certificate, phase: CaPhase::Use }),
            ..drain(1)
        };
        let sound = step(fixture::authority(cluster(), 2, NOW_MS).0);
        assert_eq!(SignedDecision::sign(&sound, cluster(), &credential).decision(), Ok(sound));
        let damaged = SignedDecision::sign(&step(vec![0x30, 1, 2]), cluster(), &credential);
        assert_eq!(damaged.decision(), Err(DecodeError::Invalid(WHAT)));
    }
}
