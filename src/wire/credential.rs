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

/// The cluster's CA, as something to verify against.
#[derive(Clone)]
pub struct Anchor(TrustAnchor<'static>);

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anchor")
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
        Ok(Self(anchor.to_owned()))
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
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at_ms));
        let anchors = std::slice::from_ref(&self.0);
        certificate
            .verify_for_usage(ED25519, anchors, &[], at, KeyUsage::client_auth(), None, None)
            .map_err(|_| CredentialError::Certificate)?;
        certificate
            .verify_signature(webpki::aws_lc_rs::ED25519, text, signature)
            .map_err(|_| CredentialError::Signature)?;
        Ok(who)
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
