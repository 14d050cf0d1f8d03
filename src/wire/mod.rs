//! Bytes to messages and back, and nothing else: no socket, no clock, no decision.
//!
//! * [`frame`]: the sealed UDP datagram (header, AEAD, replay window);
//! * [`codec`]: bincode with its limits, the one module that names bincode's functions;
//! * [`datagram`]: what is inside an opened datagram;
//! * [`exchange`]: requests and replies between nodes over TLS;
//! * [`credential`]: what a certificate says, and signatures made with its key;
//! * [`table`]: attachments and endpoints, the steps that change them, and how they are compared;
//! * [`exam`]: what doctor has two members say to each other;
//! * [`admission`]: how a stranger becomes a member, over TLS.
//!
//! Called by `node` (which owns the meaning) and, for streams, by `agent`. Decoding is total: any input gives a value
//! or a typed error, within the memory that its limit names.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod admission;
pub mod codec;
pub mod credential;
pub mod datagram;
pub mod decision;
pub mod exam;
pub mod exchange;
pub mod frame;
pub(crate) mod index;
pub mod table;

pub use codec::DecodeError;
pub use frame::{Channel, DropCause, Keyring, SharedKeys};
