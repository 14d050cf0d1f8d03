//! The simulated cluster's certificate authority: real certificates, whose keys are derived from the names of their
//! holders, so that the same seed gives the same bytes.

use std::time::{Duration, UNIX_EPOCH};

use gossipd::ca::{Authority, CERT_EXPIRY_MAX, NodeKey};
use gossipd::record::{ClusterId, NodeId, Role};
use gossipd::wire::credential::{Anchor, Credential};

use crate::host::EPOCH_UNIX_MS;

/// Issues what nodes sign with.
pub struct Issuer {
    authority: Authority,
    anchor: Anchor,
}

impl Issuer {
    /// The authority of a cluster.
    ///
    /// # Panics
    /// When the cryptographic library refuses its own keys.
    #[expect(clippy::expect_used, reason = "keys and certificates made here are well-formed")]
    pub fn new(cluster: ClusterId) -> Self {
        let key = NodeKey::from_seed(&twice(cluster.as_bytes())).expect("32 bytes are a key");
        let (certificate, _, authority) = Authority::create(cluster, key, UNIX_EPOCH).expect("a CA of this key");
        Self { authority, anchor: Anchor::new(&certificate).expect("a certificate just made") }
    }

    /// What its signatures are verified against.
    pub fn anchor(&self) -> Anchor {
        self.anchor.clone()
    }

    /// What `id` signs with in that role. `issued_ms` counts from the start of virtual time.
    pub fn credential(&self, id: NodeId, role: Role, issued_ms: u64) -> Credential {
        self.stolen(id, role, issued_ms, id)
    }

    /// The certificate of `id`, with the key of `thief`, whose signatures it does not cover.
    ///
    /// # Panics
    /// When the cryptographic library refuses its own keys.
    #[expect(clippy::expect_used, reason = "keys and certificates made here are well-formed")]
    pub fn stolen(&self, id: NodeId, role: Role, issued_ms: u64, thief: NodeId) -> Credential {
        let key = NodeKey::from_seed(&twice(id.as_bytes())).expect("32 bytes are a key");
        let signs = NodeKey::from_seed(&twice(thief.as_bytes())).expect("32 bytes are a key");
        let public = key.public().expect("an Ed25519 key");
        let since_ms = EPOCH_UNIX_MS + issued_ms;
        let issued = self
            .authority
            .issue(id, role, public, CERT_EXPIRY_MAX, UNIX_EPOCH + Duration::from_millis(EPOCH_UNIX_MS), since_ms)
            .expect("a certificate of this key");
        Credential::new(&issued.certificate, &signs.to_der()).expect("a certificate just made")
    }
}

fn twice(half: &[u8; 16]) -> [u8; 32] {
    let mut whole = [0; 32];
    whole.iter_mut().zip(half.iter().chain(half)).for_each(|(slot, byte)| *slot = *byte);
    whole
}
