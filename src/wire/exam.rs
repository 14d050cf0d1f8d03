//! What two members say while one of them examines the way to the other and back: `gossipctl doctor`.
//!
//! The examiner sends probes of several sizes; each draws an echo of its own size at most and a short one, so nobody is
//! sent more than was asked with. Every echo, and the reply over TLS, tells what the other side has seen so far.

use bincode::{Decode, Encode};

/// What came of the examined node's calling its examiner over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Call {
    /// Not called yet: too many others are.
    NotTried,
    /// Called; no outcome yet.
    Pending,
    /// It answered.
    Answered,
    /// Its machine, or a firewall on the way, refused.
    Refused,
    /// Nothing came back.
    Unreachable,
    /// Its machine accepted, and nobody answered.
    Stalled,
    /// Somebody else answered, or the call broke off.
    Broken,
}

/// What the examined node sees.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct View {
    /// The largest datagram of this examination that has come here, in bytes; 0: none.
    pub heard_bytes: u16,
    /// What came of calling the examiner.
    pub call: Call,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// The version of the datagrams that it writes.
    pub frame_version: u8,
    /// The version of the exchanges that it speaks.
    pub exchange_version: u8,
    /// The key that it seals with.
    pub key: u8,
    /// The keys that it opens with.
    pub keys: Vec<u8>,
}

/// A datagram of an examination. Zeros may follow it, to make it as large as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Exam {
    /// "Do you get this?"
    Probe {
        /// To be given back.
        nonce: u32,
        /// To be given back: which of several it is.
        round: u8,
    },
    /// "I do", or a probe of the way back that nobody has asked for over UDP.
    Echo {
        /// Of the question.
        nonce: u32,
        /// Of the question.
        round: u8,
        /// What is seen here.
        view: View,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[test]
    fn golden_bytes() {
        let hex = |exam: &Exam| codec::encode(exam).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&Exam::Probe { nonce: 7, round: 2 }), "000702");
        let view = View {
            heard_bytes: 1_200,
            call: Call::Refused,
            unix_ms: 1_520_863_886_000,
            frame_version: 1,
            exchange_version: 1,
            key: 3,
            keys: vec![2, 3],
        };
        assert_eq!(
            hex(&Exam::Echo { nonce: 7, round: 2, view }),
            "010702fbb00403fdb03a8d1a620100000101030202 03".replace(' ', "")
        );
    }
}
