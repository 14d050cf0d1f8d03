//! How a stranger becomes a member, how a member renews its certificate, and what managers tell each other: requests
//! and replies over TLS. The daemon answers them itself; the protocol core never sees them.
//!
//! The first byte of each is the version of this vocabulary; within a version, variants are only appended.

use std::net::SocketAddr;

use bincode::{Decode, Encode};

use super::codec::{self, DecodeError};
use super::exchange::MemberEntry;
use crate::record::decision::Stamp;
use crate::record::{ClusterId, NodeId, Role};

/// The version written today.
pub const ADMISSION_VERSION: u8 = 1;

/// A request, in the order in which a newcomer makes them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// "Who may admit me?" Asked of a worker. Needs no certificate.
    Managers,
    /// "Let me in." Needs no certificate, only the token's secret.
    Join {
        /// The newcomer's id.
        node_id: NodeId,
        /// The secret of a join token.
        secret: [u8; 16],
        /// The newcomer's public key (Ed25519).
        public_key: [u8; 32],
        /// Made with the newcomer's private key over [`possession`].
        proof: Vec<u8>,
    },
    /// "My certificate runs out." Needs a certificate.
    Renew {
        /// The public key to certify.
        public_key: [u8; 32],
        /// Made with its private key over [`possession`].
        proof: Vec<u8>,
        /// The CA that is to certify it: SHA-256 of its certificate.
        ca: [u8; 32],
    },
    /// "These are the tokens I know." Between managers only.
    ManagerSync {
        /// The asker's tokens.
        tokens: Vec<TokenRecord>,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Who may admit, as far as the answerer knows.
    Managers(Vec<(NodeId, SocketAddr)>),
    /// Welcome.
    Admitted(Box<Admission>),
    /// The new certificate, DER.
    Renewed {
        /// DER.
        certificate: Vec<u8>,
        /// End of its validity, in milliseconds since the Unix epoch.
        expires_at_ms: u64,
        /// For managers: what they know beside it.
        manager: Option<ManagerSecrets>,
    },
    /// What the answerer has: its tokens, after taking in the asker's, and the keys of the CAs.
    Secrets {
        /// The tokens.
        tokens: Vec<TokenRecord>,
        /// The CAs.
        cas: Vec<CaSecret>,
    },
    /// No, and why: to be shown to the person who asked.
    Refused(String),
}

/// Everything a newcomer gets.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Admission {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role that the token stands for.
    pub role: Role,
    /// The newcomer's certificate, DER.
    pub certificate: Vec<u8>,
    /// End of its validity, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// Id of the key that seals.
    pub primary_key: u8,
    /// The datagram keys.
    pub keys: Vec<(u8, [u8; 32])>,
    /// The CAs that are trusted, the oldest first; certificates, DER.
    pub trusted: Vec<Vec<u8>>,
    /// All members.
    pub members: Vec<MemberEntry>,
    /// For a manager only.
    pub manager: Option<ManagerSecrets>,
}

/// A CA with its key: more than one while it is changed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct CaSecret {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    pub key: Vec<u8>,
}

/// What only managers know.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ManagerSecrets {
    /// The CAs.
    pub cas: Vec<CaSecret>,
    /// The join tokens.
    pub tokens: Vec<TokenRecord>,
    /// Validity of the certificates issued, in seconds.
    pub cert_expiry_s: u64,
}

/// A join token as managers keep it: a register, one for each role; the one decided last wins.
#[derive(Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct TokenRecord {
    /// The role it gives.
    pub role: Role,
    /// When and by whom it was decided: of two the later one stands, as of the decisions about it.
    pub decided: Stamp,
    /// 128 random bits; none when revoked.
    pub secret: Option<[u8; 16]>,
    /// No longer valid from then on (milliseconds since the Unix epoch).
    pub expires_at_ms: Option<u64>,
    /// Joins allowed in all.
    pub max_uses: Option<u32>,
    /// Joins admitted, by admitting manager: a counter that only grows, merged by maximum.
    pub uses: Vec<(NodeId, u32)>,
}

/// What the holder of a private key signs to prove it: bound to the cluster (CA digest) and the node.
pub fn possession(ca_digest: &[u8; 32], node_id: NodeId) -> Vec<u8> {
    let mut text = b"gossipd key possession 1\0".to_vec();
    text.extend_from_slice(ca_digest);
    text.extend_from_slice(node_id.as_bytes());
    text
}

impl Request {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode_message(ADMISSION_VERSION, self)
    }

    /// Reads what the other side sent.
    ///
    /// # Errors
    /// [`DecodeError`] for another version or malformed bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_message("admission request", ADMISSION_VERSION, bytes)
    }
}

impl Reply {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode_message(ADMISSION_VERSION, self)
    }

    /// Reads what the other side sent.
    ///
    /// # Errors
    /// [`DecodeError`] for another version or malformed bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_message("admission reply", ADMISSION_VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join() -> Request {
        Request::Join {
            node_id: NodeId::from_bytes([3; 16]),
            secret: [0xAA; 16],
            public_key: [0xBB; 32],
            proof: vec![0xCC; 2],
        }
    }

    #[test]
    fn golden_join_and_what_its_key_signs() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let fields = ["03".repeat(16), "aa".repeat(16), "bb".repeat(32), "02cccc".to_owned()].concat();
        assert_eq!(hex(&join().to_bytes()), format!("0101{fields}"));
        let possession = possession(&[0xDD; 32], NodeId::from_bytes([3; 16]));
        assert_eq!(possession, [&b"gossipd key possession 1\0"[..], &[0xDD; 32], &[3; 16]].concat());
    }

    #[test]
    fn messages_round_trip_and_other_versions_are_named() {
        assert!(Request::from_bytes(&join().to_bytes()) == Ok(join()));
        let refused = Reply::Refused("no".to_owned());
        assert!(Reply::from_bytes(&refused.to_bytes()) == Ok(refused));
        let mut other = join().to_bytes();
        other[0] = 2;
        let error = Request::from_bytes(&other).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("admission request version 2 is not supported"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Request::from_bytes(&bytes);
            let _ = Reply::from_bytes(&bytes);
        }
    }
}
