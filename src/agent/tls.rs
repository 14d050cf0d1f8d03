//! TLS 1.3 between nodes: both sides with certificates of the cluster's CA, and a joiner's one-sided connection that
//! pins the CA by the digest in its token.
//!
//! One provider of cryptography (aws-lc-rs) for these connections and for datagrams.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SigningKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};

use crate::node::Peer;
use crate::wire::credential::{self, Certified, ca_digest};

/// Application protocol negotiated (ALPN): the vocabulary of `wire::exchange` and `wire::admission`.
const ALPN: &[u8] = b"gossipd/1";

/// The server presented a CA other than the token's.
pub(super) const WRONG_CA: &str = "the CA's digest is not the token's";

static ED25519: &[&dyn SignatureVerificationAlgorithm] = &[webpki::aws_lc_rs::ED25519];
static SIGNATURES: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: ED25519, mapping: &[(SignatureScheme::ED25519, ED25519)] };

/// What the cluster's own nodes need of rustls' choice, and no more: everything left out is neither negotiated nor
/// linked in. Certificates are Ed25519 throughout.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || CryptoProvider {
        cipher_suites: vec![
            rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Primitives,
        key_provider: &Primitives,
    };
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(make())))
}

/// aws-lc-rs' randomness and Ed25519 keys, for [`provider`].
#[derive(Debug)]
struct Primitives;

impl SecureRandom for Primitives {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        aws_lc_rs::rand::fill(buf).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Primitives {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match key {
            PrivateKeyDer::Pkcs8(key) => rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&key),
            _ => Err(Error::General("a key that is not PKCS#8".to_owned())),
        }
    }
}

/// Whom a certificate names; `None` when it is no member's. The chain must have been verified before.
pub(super) fn peer_of(certificate: &CertificateDer<'_>) -> Option<Peer> {
    credential::named(certificate).map(|Certified { id, role, .. }| Peer { id, role })
}

/// A private key as rustls takes it.
fn private_key(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()))
}

fn roots<'a>(cas: impl IntoIterator<Item = &'a [u8]>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(CertificateDer::from(ca.to_vec()))?;
    }
    Ok(Arc::new(roots))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(rustls::OtherError(Arc::new(error)))
}

/// Both ends of a member's connections.
pub(super) struct Configs {
    /// For connections accepted. A client without certificate gets through the handshake, and may then only ask for
    /// admission.
    pub server: Arc<ServerConfig>,
    /// For connections made.
    pub client: Arc<ClientConfig>,
}

/// Configurations of a member with this certificate and key. It trusts what `cas` have certified; `ca_certificate` is the
/// one that has certified itself.
///
/// # Errors
/// rustls' error when a certificate or key is damaged or they do not belong together.
pub(super) fn member<'a>(
    cas: impl IntoIterator<Item = &'a [u8]>,
    ca_certificate: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<Configs, Error> {
    let roots = roots(cas)?;
    // The CA goes along, so that a joiner can compare it with its token.
    let chain = vec![CertificateDer::from(certificate.to_vec()), CertificateDer::from(ca_certificate.to_vec())];
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(other)?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), private_key(key))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would carry an identity past its certificate's end.
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private_key(key))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}

/// Configuration of a joiner that holds a token: it has no certificate, and trusts the CA with this digest only.
///
/// # Errors
/// rustls' error when TLS 1.3 is not available.
pub(super) fn joiner(ca_digest: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { ca_digest }))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(client))
}

/// Trusts the one CA whose certificate has this digest; everything else is left to webpki.
#[derive(Debug)]
struct PinnedCa {
    ca_digest: [u8; 32],
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| ca_digest(certificate) == self.ca_digest)
            .ok_or_else(|| Error::General(WRONG_CA.to_owned()))?;
        WebPkiServerVerifier::builder_with_provider(roots([ca.as_ref()])?, provider())
            .build()
            .map_err(other)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
