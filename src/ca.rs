//! The cluster's certificate authority, and what is in a certificate.
//!
//! Ed25519 throughout. A node's certificate names it as swarm's do (CN node id, OU role, O cluster id) and, for the
//! checks that count, in two subject alternative names (see `wire::credential`, which reads them). Same keys, same
//! bytes: serial numbers are made from the public key, so that a simulated cluster has real certificates too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use pki_types::PrivatePkcs8KeyDer;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm,
};

use crate::record::{ClusterId, NodeId, Role};
use crate::wire::credential::{Certified, SERVER_NAME, ca_tag};

/// Validity of a certificate when nobody says otherwise: 90 days, as swarm's.
pub const CERT_EXPIRY_DEFAULT: Duration = Duration::from_secs(2_160 * 3_600);
/// Shortest validity allowed: below it, renewal would not keep up with a short outage. The same as swarm's.
pub const CERT_EXPIRY_MIN: Duration = Duration::from_secs(3_600);
/// Longest validity allowed: the CA's own.
pub const CERT_EXPIRY_MAX: Duration = Duration::from_secs(20 * 31_557_600);
/// Certificates are valid from this long before they are made: other clocks may be behind.
const BACKDATE: Duration = Duration::from_secs(3_600);

/// Cryptography failed: a damaged key, or no randomness. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// rcgen refused.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

/// `N` bytes of the operating system's randomness.
///
/// # Errors
/// [`CaError::Randomness`].
pub fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0_u8; N];
    rand::fill(&mut bytes).map_err(|_| CaError::Randomness)?;
    Ok(bytes)
}

/// A node's private key.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// [`CaError`] without randomness.
    pub fn generate() -> Result<Self, CaError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ED25519)?))
    }

    /// The key that this PKCS#8 DER holds.
    ///
    /// # Errors
    /// [`CaError`] when it is damaged.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        Ok(Self(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.to_vec()), &PKCS_ED25519)?))
    }

    /// The key that belongs to a seed (RFC 8032 §5.1.5): for simulated nodes, whose luck is drawn elsewhere.
    ///
    /// # Errors
    /// [`CaError`] when the cryptographic library refuses.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, CaError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| CaError::Randomness)?;
        Self::from_der(pair.to_pkcs8().map_err(|_| CaError::Randomness)?.as_ref())
    }

    /// PKCS#8 DER.
    pub fn to_der(&self) -> Vec<u8> {
        self.0.serialize_der()
    }

    /// The public half; `None` only if rcgen made something else than Ed25519.
    pub fn public(&self) -> Option<[u8; 32]> {
        self.0.public_key_raw().try_into().ok()
    }

    /// Proof of possession over `text`.
    ///
    /// # Errors
    /// [`CaError`] when signing fails.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, CaError> {
        Ok(rcgen::SigningKey::sign(&self.0, text)?)
    }
}

/// Does `signature` over `text` come from the holder of `public_key`?
pub fn verify(public_key: &[u8; 32], text: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(text, signature).is_ok()
}

struct Ed25519Public([u8; 32]);

impl PublicKeyData for Ed25519Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// A certificate just issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER.
    pub certificate: Vec<u8>,
    /// End of validity, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// The CA, on a manager.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cluster: ClusterId,
}

fn unix_ms(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Each CA of a cluster has a name of its own, by its key: so a certificate of an unknown one is found to be that.
fn ca_params(cluster: ClusterId, key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let tag = ca_tag(key.public_key_raw());
    name.push(DnType::CommonName, format!("gossipd CA {tag:08x}"));
    name.push(DnType::OrganizationName, cluster.to_string());
    params.distinguished_name = name;
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + CERT_EXPIRY_MAX).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

impl Authority {
    /// Makes a cluster's CA around `key`: its certificate (DER), its private key (PKCS#8 DER), and the authority itself.
    ///
    /// # Errors
    /// [`CaError`] without randomness.
    pub fn create(cluster: ClusterId, key: NodeKey, now: SystemTime) -> Result<(Vec<u8>, Vec<u8>, Self), CaError> {
        let NodeKey(key) = key;
        let params = ca_params(cluster, &key, now);
        let certificate = params.self_signed(&key)?.der().to_vec();
        let key_der = key.serialize_der();
        Ok((certificate, key_der, Self { issuer: Issuer::new(params, key), cluster }))
    }

    /// The CA from its stored private key.
    ///
    /// # Errors
    /// [`CaError`] when the key is damaged.
    pub fn load(cluster: ClusterId, key_der: &[u8], now: SystemTime) -> Result<Self, CaError> {
        let NodeKey(key) = NodeKey::from_der(key_der)?;
        Ok(Self { issuer: Issuer::new(ca_params(cluster, &key, now), key), cluster })
    }

    /// Certifies that `public_key` belongs to `id` with `role`. `issued_ms`, milliseconds since the Unix epoch, is `now`, or
    /// later where it must come after a decision that another clock has dated.
    ///
    /// # Errors
    /// [`CaError`] when signing fails.
    pub fn issue(
        &self,
        id: NodeId,
        role: Role,
        public_key: [u8; 32],
        validity: Duration,
        now: SystemTime,
        issued_ms: u64,
    ) -> Result<Issued, CaError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, id.to_string());
        name.push(DnType::OrganizationalUnitName, format!("gossipd-{role}"));
        name.push(DnType::OrganizationName, self.cluster.to_string());
        params.distinguished_name = name;
        let names = [SERVER_NAME.to_owned(), Certified { id, role, issued_ms }.name()];
        params.subject_alt_names =
            names.into_iter().map(|name| name.try_into().map(SanType::DnsName)).collect::<Result<_, _>>()?;
        let expires = now + validity;
        params.not_before = (now - BACKDATE).into();
        params.not_after = expires.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&Ed25519Public(public_key), &self.issuer)?;
        Ok(Issued { certificate: certificate.der().to_vec(), expires_at_ms: unix_ms(expires) })
    }
}

/// Certificates for the tests of other modules.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::wire::credential::{Anchor, Credential};

    fn at(unix_ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(unix_ms)
    }

    /// The certificate of the cluster's `n`th CA, from 1, and the CA.
    pub(crate) fn authority(cluster: ClusterId, n: u8, unix_ms: u64) -> (Vec<u8>, Authority) {
        let key = NodeKey::from_seed(&[n; 32]).unwrap();
        let (certificate, _, authority) = Authority::create(cluster, key, at(unix_ms)).unwrap();
        (certificate, authority)
    }

    pub(crate) fn anchor(cluster: ClusterId, unix_ms: u64) -> Anchor {
        Anchor::new(&authority(cluster, 1, unix_ms).0).unwrap()
    }

    pub(crate) fn credential(cluster: ClusterId, id: NodeId, role: Role, unix_ms: u64) -> Credential {
        credential_of(1, cluster, id, role, unix_ms)
    }

    /// A certificate of the cluster's `n`th CA.
    pub(crate) fn credential_of(n: u8, cluster: ClusterId, id: NodeId, role: Role, unix_ms: u64) -> Credential {
        let mut seed = [2; 32];
        seed[..16].copy_from_slice(id.as_bytes());
        let key = NodeKey::from_seed(&seed).unwrap();
        let (_, authority) = authority(cluster, n, unix_ms);
        let issued =
            authority.issue(id, role, key.public().unwrap(), CERT_EXPIRY_DEFAULT, at(unix_ms), unix_ms).unwrap();
        Credential::new(&issued.certificate, &key.to_der()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::credential::named;

    #[test]
    fn a_certificate_names_its_node_and_role() {
        let cluster = ClusterId::from_bytes([3; 16]);
        let now = SystemTime::now();
        let (certificate, key, authority) = Authority::create(cluster, NodeKey::generate().unwrap(), now).unwrap();
        let loaded = Authority::load(cluster, &key, now).unwrap();
        let id = NodeId::from_bytes([7; 16]);
        let public = NodeKey::generate().unwrap().public().unwrap();
        for authority in [authority, loaded] {
            let issued = authority.issue(id, Role::Manager, public, CERT_EXPIRY_DEFAULT, now, 77).unwrap();
            assert_eq!(named(&issued.certificate), Some(Certified { id, role: Role::Manager, issued_ms: 77 }));
        }
        assert_eq!(named(&certificate), None, "the CA is nobody");
        assert_eq!(named(&[1, 2, 3]), None);
    }

    #[test]
    fn possession_is_proven_by_the_right_key_only() {
        let key = NodeKey::generate().unwrap();
        let other = NodeKey::generate().unwrap();
        let signature = key.sign(b"text").unwrap();
        assert!(verify(&key.public().unwrap(), b"text", &signature));
        assert!(!verify(&other.public().unwrap(), b"text", &signature));
        assert!(!verify(&key.public().unwrap(), b"texT", &signature));
    }
}
