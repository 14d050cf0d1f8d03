//! What a member's certificate says, and signatures made with the key that it certifies.
//!
//! Certificates are X.509 (RFC 5280) with Ed25519 keys, issued by the cluster's CA. Two subject alternative names count:
//! [`SERVER_NAME`], which every member has and every TLS client asks for, and `ID.ROLE.ISSUED.gossipd`, from which others
//! read who it is and when (in milliseconds since the Unix epoch) that was certified. All checks are webpki's, at a time that the caller names: a statement signed while the certificate was
//! valid stays good after it.
//!
//! Not here: issuing certificates (`ca`), and what a signer may say (`node`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;
use pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::record::{NodeId, Role};

/// The name that every member's certificate carries.
pub const SERVER_NAME: &str = "member.gossipd";
/// Largest certificate accepted, in bytes; those that `ca` issues have about 500.
pub const CERTIFICATE_BYTES_MAX: usize = 900;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

static ED25519: &[&dyn SignatureVerificationAlgorithm] = &[webpki::aws_lc_rs::ED25519];

/// A certificate or a signature is not what it should be. Whoever made it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No certificate, not issued by the cluster's CA, or not valid at that time.
    #[error("the certificate is not valid")]
    Certificate,
    /// The certificate names no member.
    #[error("the certificate names no member")]
    Name,
    /// The signature is not the certificate's key's.
    #[error("the signature does not fit")]
    Signature,
    /// The private key is damaged.
    #[error("the private key is damaged")]
    Key,
    /// Only managers vouch for what others have signed.
    #[error("its holder may not vouch for others")]
    Vouch,
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certified {
    /// The member.
    pub id: NodeId,
    /// What it may do.
    pub role: Role,
    /// When that was certified, in milliseconds since the Unix epoch.
    pub issued_ms: u64,
}

impl Certified {
    /// The name to put into a certificate.
    pub fn name(&self) -> String {
        let Self { id, role, issued_ms } = self;
        format!("{id}.{role}.{issued_ms}.gossipd")
    }
}

/// Whom a certificate names; `None` when it is no member's. The chain must have been verified, or be verified later.
pub fn named(certificate: &[u8]) -> Option<Certified> {
    let certificate = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    certificate.valid_dns_names().find_map(|name| {
        let mut labels = name.split('.');
        let (id, role, issued, zone) = (labels.next()?, labels.next()?, labels.next()?, labels.next()?);
        if zone != "gossipd" || labels.next().is_some() {
            return None;
        }
        Some(Certified { id: id.parse().ok()?, role: role.parse().ok()?, issued_ms: issued.parse().ok()? })
    })
}

/// SHA-256 of a CA's certificate: what a join token pins.
pub fn ca_digest(certificate: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    let hash = digest::digest(&digest::SHA256, certificate);
    out.iter_mut().zip(hash.as_ref()).for_each(|(slot, byte)| *slot = *byte);
    out
}

/// The first four bytes of a CA's digest: a name for it where nothing depends on it but who is asked what.
pub fn ca_tag(certificate: &[u8]) -> u32 {
    ca_digest(certificate).first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

/// One CA, as something to verify against.
#[derive(Clone)]
pub struct Anchor {
    anchor: TrustAnchor<'static>,
    certificate: Arc<[u8]>,
    tag: u32,
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({:08x})", self.tag)
    }
}

impl Anchor {
    /// From the CA's certificate (DER).
    ///
    /// # Errors
    /// [`CredentialError::Certificate`].
    pub fn new(ca_certificate: &[u8]) -> Result<Self, CredentialError> {
        let certificate = CertificateDer::from(ca_certificate);
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| CredentialError::Certificate)?;
        Ok(Self { anchor: anchor.to_owned(), certificate: ca_certificate.into(), tag: ca_tag(ca_certificate) })
    }

    /// Does this CA certify that key (Ed25519)? So its private half is the CA's.
    pub fn has_key(&self, public: &[u8; 32]) -> bool {
        self.anchor.subject_public_key_info.as_ref().ends_with(public)
    }

    /// Who has signed `text`: the member that `certificate` names, if the certificate was issued by this CA, was valid at
    /// `at_ms` (milliseconds since the Unix epoch), and `signature` is its key's. Costs two verifications, some 100 µs.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn signer(
        &self,
        certificate: &[u8],
        at_ms: u64,
        text: &[u8],
        signature: &[u8],
    ) -> Result<Certified, CredentialError> {
        let who = named(certificate).ok_or(CredentialError::Name)?;
        let certificate = CertificateDer::from(certificate);
        let certificate = EndEntityCert::try_from(&certificate).map_err(|_| CredentialError::Certificate)?;
        self.has_issued(&certificate, at_ms)?;
        certificate
            .verify_signature(webpki::aws_lc_rs::ED25519, text, signature)
            .map_err(|_| CredentialError::Signature)?;
        Ok(who)
    }

    fn has_issued(&self, certificate: &EndEntityCert<'_>, at_ms: u64) -> Result<(), CredentialError> {
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at_ms));
        let anchors = std::slice::from_ref(&self.anchor);
        let verified = certificate.verify_for_usage(ED25519, anchors, &[], at, KeyUsage::client_auth(), None, None);
        verified.map(|_| ()).map_err(|_| CredentialError::Certificate)
    }
}

/// The CAs that are trusted, in the order in which they came: one, except while it is changed.
#[derive(Debug, Clone)]
pub struct Anchors(Vec<Anchor>);

impl From<Anchor> for Anchors {
    fn from(anchor: Anchor) -> Self {
        Self(vec![anchor])
    }
}

impl Anchors {
    /// From certificates (DER), the oldest first.
    ///
    /// # Errors
    /// [`CredentialError::Certificate`] when one is damaged.
    pub fn new<C: AsRef<[u8]>>(certificates: &[C]) -> Result<Self, CredentialError> {
        Ok(Self(certificates.iter().map(|one| Anchor::new(one.as_ref())).collect::<Result<_, _>>()?))
    }

    /// [`Anchor::signer`] by any of them, and the tag ([`ca_tag`]) of the one that it was.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn signer(
        &self,
        certificate: &[u8],
        at_ms: u64,
        text: &[u8],
        signature: &[u8],
    ) -> Result<(Certified, u32), CredentialError> {
        let mut last = CredentialError::Certificate;
        for anchor in self.0.iter().rev() {
            match anchor.signer(certificate, at_ms, text, signature) {
                Ok(certified) => return Ok((certified, anchor.tag)),
                // Another's key is no news; a bad signature under the right CA is.
                Err(CredentialError::Certificate) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The tag of the one that has issued a certificate which is valid at that time.
    pub fn issuer(&self, certificate: &[u8], at_ms: u64) -> Option<u32> {
        let certificate = CertificateDer::from(certificate);
        let certificate = EndEntityCert::try_from(&certificate).ok()?;
        self.0.iter().find(|anchor| anchor.has_issued(&certificate, at_ms).is_ok()).map(|anchor| anchor.tag)
    }

    /// Their certificates (DER), the oldest first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|anchor| &*anchor.certificate)
    }

    /// Is that the tag of the latest of them?
    pub fn is_latest(&self, tag: u32) -> bool {
        self.0.last().is_some_and(|anchor| anchor.tag == tag)
    }

    /// The place of a CA among them, by its tag; none for one that is not trusted.
    pub fn rank(&self, tag: u32) -> Option<usize> {
        self.0.iter().position(|anchor| anchor.tag == tag)
    }
}

/// A certificate with its private key: what a node signs with.
#[derive(Clone)]
pub struct Credential {
    certificate: Arc<[u8]>,
    certified: Certified,
    key: Arc<Ed25519KeyPair>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("certified", &self.certified).finish_non_exhaustive()
    }
}

impl Credential {
    /// From a certificate (DER) and its key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`CredentialError::Key`], or [`CredentialError::Name`] when the certificate is no member's.
    pub fn new(certificate: &[u8], private_key: &[u8]) -> Result<Self, CredentialError> {
        let certified = named(certificate).ok_or(CredentialError::Name)?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private_key).map_err(|_| CredentialError::Key)?;
        Ok(Self { certificate: certificate.into(), certified, key: Arc::new(key) })
    }

    /// DER.
    pub const fn certificate(&self) -> &Arc<[u8]> {
        &self.certificate
    }

    /// Whom the certificate names.
    pub const fn certified(&self) -> Certified {
        self.certified
    }

    /// A signature over `text`.
    pub fn sign(&self, text: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.key.sign(text);
        let mut out = [0; SIGNATURE_BYTES];
        out.iter_mut().zip(signature.as_ref()).for_each(|(slot, byte)| *slot = *byte);
        out
    }
}
