//! What members ask each other over TLS: one request, one reply.
//!
//! The first byte of each is the version of this vocabulary; within a version, variants are only appended.

use std::net::SocketAddr;

use bincode::{Decode, Encode};

use super::codec::{self, DecodeError};
use super::datagram::RecordEnvelope;
use super::decision::{Batch, Have};
use super::exam::View;
use super::table::{TableReply, TableRequest};
use crate::record::NodeId;

/// The version written today.
pub const EXCHANGE_VERSION: u8 = 1;
/// Most members in one message.
pub const MEMBERS_MAX: usize = 65_536;

/// Bytes of a [`digest`](crate::node::Node).
pub type Digest = [u8; 16];

/// What SWIM holds of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// Under suspicion.
    Suspect,
    /// Declared failed, or gone.
    Down,
}

/// One member as one node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemberEntry {
    /// Whom it is about.
    pub id: NodeId,
    /// That node's life.
    pub generation: u64,
    /// Where that life listens.
    pub addr: SocketAddr,
    /// SWIM's incarnation within the life.
    pub incarnation: u16,
    /// What the sender holds of it.
    pub liveness: Liveness,
    /// The newest record of that node that the sender has.
    pub record: Option<RecordEnvelope>,
}

/// A question to a member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// "Here I am, this is the digest of what I know; tell me all when yours differs."
    Sync {
        /// The asker itself.
        me: Box<MemberEntry>,
        /// What the asker knows of members, hashed; none asks for all of it.
        members: Option<Digest>,
        /// The decisions that it has, hashed.
        decisions: Digest,
    },
    /// "You may not know this yet."
    Push {
        /// What the asker believes to be news.
        members: Vec<MemberEntry>,
    },
    /// "Are you there?" Asked when datagrams are not answered.
    Alive,
    /// "These decisions I have; which do I lack?"
    Decisions {
        /// One for each.
        have: Vec<Have>,
    },
    /// "These decisions you may not have."
    Decided {
        /// By signer.
        decisions: Vec<Batch>,
    },
    /// "Send me these nodes' records." They were too large for a datagram.
    Records {
        /// Whose.
        owners: Vec<NodeId>,
    },
    /// "Have you these decisions, or later ones?" Asked where datagrams do not get through.
    Confirm {
        /// Which.
        have: Vec<Have>,
    },
    /// About tables.
    Tables(TableRequest),
    /// "Probe the way back to me, and tell what you have seen of mine."
    Examine {
        /// The examination.
        nonce: u32,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// What the answerer knows.
    State {
        /// All members, the answerer included; none: the digests are equal.
        members: Option<Vec<MemberEntry>>,
        /// The decisions that it has, hashed.
        decisions: Digest,
        /// The tables that it has of those that both may have, hashed.
        tables: Digest,
    },
    /// Taken in.
    Done,
    /// Not taken in: the answerer is about to leave, or has given way to another node with its id. Ask another.
    Leaving,
    /// "Here I am."
    Alive {
        /// The answerer's life.
        generation: u64,
        /// Its incarnation.
        incarnation: u16,
    },
    /// What the asker lacks of the decisions, and what it has that the answerer lacks.
    Decisions {
        /// By signer; not all of them, if there are many.
        decisions: Vec<Batch>,
        /// Slots of [`Request::Decisions`] that the answerer would like to have.
        wanted: Vec<u64>,
        /// Ask again for the rest.
        more: bool,
    },
    /// The records that the answerer has of those asked for.
    Records(Vec<RecordEnvelope>),
    /// It has them, or not.
    Confirmed(bool),
    /// The asker is a member no more, by this decision.
    Removed(Batch),
    /// About tables.
    Tables(TableReply),
    /// What is seen of the examiner.
    Examined(View),
}

impl Request {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode_message(EXCHANGE_VERSION, self)
    }

    /// Reads what a member sent.
    ///
    /// # Errors
    /// [`DecodeError`] for another version, malformed bytes or too many members.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "exchange request";
        let message: Self = codec::decode_message(WHAT, EXCHANGE_VERSION, bytes)?;
        if let Self::Tables(message) = &message {
            message.check()?;
        }
        if message.member_count() > MEMBERS_MAX { Err(DecodeError::Invalid(WHAT)) } else { Ok(message) }
    }
}

impl Reply {
    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode_message(EXCHANGE_VERSION, self)
    }

    /// Reads what a member sent.
    ///
    /// # Errors
    /// [`DecodeError`] for another version, malformed bytes or too many members.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "exchange reply";
        let message: Self = codec::decode_message(WHAT, EXCHANGE_VERSION, bytes)?;
        if let Self::Tables(message) = &message {
            message.check()?;
        }
        if message.member_count() > MEMBERS_MAX { Err(DecodeError::Invalid(WHAT)) } else { Ok(message) }
    }
}

impl Request {
    fn member_count(&self) -> usize {
        match self {
            Self::Sync { .. } => 1,
            Self::Alive
            | Self::Decisions { .. }
            | Self::Decided { .. }
            | Self::Confirm { .. }
            | Self::Tables(_)
            | Self::Examine { .. }
            | Self::Records { .. } => 0,
            Self::Push { members } => members.len(),
        }
    }
}

impl Reply {
    fn member_count(&self) -> usize {
        match self {
            Self::State { members, .. } => members.as_ref().map_or(0, Vec::len),
            Self::Done
            | Self::Leaving
            | Self::Alive { .. }
            | Self::Decisions { .. }
            | Self::Confirmed(_)
            | Self::Records(_)
            | Self::Tables(_)
            | Self::Examined(_)
            | Self::Removed(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Version;

    fn entry(n: u8) -> MemberEntry {
        let id = NodeId::from_bytes([n; 16]);
        MemberEntry {
            id,
            generation: 300,
            addr: ([10, 0, 0, n], 7946).into(),
            incarnation: 2,
            liveness: Liveness::Suspect,
            record: Some(RecordEnvelope::new(
                id,
                Version { generation: 300, seq: 1 },
                &super::super::datagram::tests::sample(),
            )),
        }
    }

    #[test]
    fn golden_request() {
        let request = Request::Sync {
            me: Box::new(MemberEntry { record: None, ..entry(3) }),
            members: Some([0xD1; 16]),
            decisions: [0xD2; 16],
        };
        let hex: String = request.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010003030303030303030303030303030303fb2c01000a000003fb0a1f02010001d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1\
             d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2"
        );
    }

    #[test]
    fn golden_questions_about_tables() {
        use crate::wire::table::{Scope, Sight, Want};
        let (scope, owner, version) =
            (Scope::Attachments, NodeId::from_bytes([4; 16]), Version { generation: 7, seq: 2 });
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let owner_hex = "04".repeat(16);
        let wants = vec![Want { scope, owner, since: version }];
        let fetch = Request::Tables(TableRequest::Fetch { wants, steps: Vec::new() });
        assert_eq!(hex(fetch.to_bytes()), format!("0107010100{owner_hex}070200"));
        let seen = Request::Tables(TableRequest::Seen(Sight { scope, owner, version }));
        assert_eq!(hex(seen.to_bytes()), format!("01070200{owner_hex}0702"));
        assert_eq!(hex(Reply::Tables(TableReply::Seen(true)).to_bytes()), "01080201");
        let steps = TableReply::Steps { steps: Vec::new(), more: true, took: false, uncompared: vec![owner] };
        assert_eq!(hex(Reply::Tables(steps).to_bytes()), format!("01080100010001{owner_hex}"));
        assert_eq!(Request::from_bytes(&fetch.to_bytes()), Ok(fetch));
        assert_eq!(hex(Request::Examine { nonce: 7 }.to_bytes()), "010807");
        let state = Reply::State { members: None, decisions: [2; 16], tables: [3; 16] };
        assert_eq!(hex(state.to_bytes()), format!("010000{}{}", "02".repeat(16), "03".repeat(16)));
    }

    #[test]
    fn messages_round_trip_and_other_versions_are_named() {
        let request = Request::Push { members: (0..40).map(entry).collect() };
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request.clone()));
        let state = |members| Reply::State { members, decisions: [7; 16], tables: [8; 16] };
        for reply in [state(None), Reply::Done, Reply::Leaving, state(Some(vec![entry(1)]))] {
            assert_eq!(Reply::from_bytes(&reply.to_bytes()), Ok(reply));
        }
        let mut other = request.to_bytes();
        other[0] = 9;
        assert_eq!(Request::from_bytes(&other).unwrap_err().to_string(), "exchange request version 9 is not supported");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Request::from_bytes(&bytes);
            let _ = Reply::from_bytes(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_read_or_refused(at in 0_usize..200, value: u8) {
            let mut bytes = Request::Push { members: vec![entry(1), entry(2)] }.to_bytes();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Request::from_bytes(&bytes);
        }
    }
}
