//! How a stranger becomes a member, how a member renews its certificate, and what managers tell each other: requests
//! and replies over TLS. The daemon answers them itself; the protocol core never sees them.
//!
//! The first byte of each is the version of this vocabulary; within a version, variants are only appended.

use std::net::SocketAddr;

use bincode::{Decode, Encode};

use super::codec::{self, DecodeError, STREAM_LIMIT};
use super::exchange::MemberEntry;
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
    },
    /// The answerer's tokens after taking in the asker's.
    Tokens(Vec<TokenRecord>),
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
    /// All members.
    pub members: Vec<MemberEntry>,
    /// For a manager only.
    pub manager: Option<ManagerSecrets>,
}

/// What only managers know.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ManagerSecrets {
    /// The cluster CA's private key, PKCS#8 DER.
    pub ca_key: Vec<u8>,
    /// The join tokens.
    pub tokens: Vec<TokenRecord>,
    /// Validity of the certificates issued, in seconds.
    pub cert_expiry_s: u64,
}

/// A join token as managers keep it: a register, one for each role; the highest (`revision`, `writer`) wins.
#[derive(Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct TokenRecord {
    /// The role it gives.
    pub role: Role,
    /// Counts rotations and revocations.
    pub revision: u64,
    /// Who wrote this revision.
    pub writer: NodeId,
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

macro_rules! versioned {
    ($type:ty, $what:literal) => {
        impl $type {
            /// The bytes to send.
            pub fn to_bytes(&self) -> Vec<u8> {
                let mut out = vec![ADMISSION_VERSION];
                codec::encode_into(self, &mut out);
                out
            }

            /// Reads what the other side sent.
            ///
            /// # Errors
            /// [`DecodeError`] for another version or malformed bytes.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
                let (version, body) = bytes.split_first().ok_or(DecodeError::Malformed($what))?;
                if *version != ADMISSION_VERSION {
                    return Err(DecodeError::Version { what: $what, version: *version });
                }
                codec::decode::<Self, STREAM_LIMIT>($what, body)
            }
        }
    };
}

versioned!(Request, "admission request");
versioned!(Reply, "admission reply");
