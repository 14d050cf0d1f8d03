//! bincode behind an explicit version and a limit.
//!
//! Layout of everything encoded here: bincode 2 "standard" (little-endian, variable-length integers). Types whose
//! meaning may grow carry a leading version byte written by the caller's module; [`decode_prefix`] lets an old reader
//! take what it knows from a newer writer, [`decode`] wants every byte used.

use bincode::config::{Configuration, Limit, standard};

/// Largest value decoded from a datagram, in bytes of memory claimed.
pub const DATAGRAM_LIMIT: usize = 4 * 1024;
/// Largest record decoded, in bytes of memory claimed.
pub const RECORD_LIMIT: usize = 64 * 1024;
/// Largest value decoded from a stream of an authenticated member: 10,000 members with full records fit.
pub const STREAM_LIMIT: usize = 64 * 1024 * 1024;

/// The bytes are not what they should be. The sender is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not this type, cut short, or over the limit.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Bytes are left over.
    #[error("{left} bytes left over after {what}")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many bytes follow it.
        left: usize,
    },
    /// Written by a version that this one cannot read.
    #[error("{what} version {version} is not supported")]
    Version {
        /// What was to be decoded.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// Decoded well, but a value breaks its limits.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

const fn config<const LIMIT: usize>()
-> Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<LIMIT>> {
    standard().with_limit::<LIMIT>()
}

/// Appends the encoding of `value` to `out`.
pub fn encode_into(value: &impl bincode::Encode, out: &mut Vec<u8>) {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    // Our types hold nothing that bincode refuses (no `RefCell`, no unsized iterator), and the writer cannot fail.
    let written = bincode::encode_into_writer(value, Append(out), standard());
    debug_assert!(written.is_ok(), "encoding into memory failed: {written:?}");
}

/// The encoding of `value`.
pub fn encode(value: &impl bincode::Encode) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    encode_into(value, &mut out);
    out
}

/// Decodes one value and says how many bytes it took; what follows is left alone.
///
/// # Errors
/// [`DecodeError::Malformed`] when `bytes` do not start with a `T`.
pub fn decode_prefix<T: bincode::Decode<()>, const LIMIT: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<(T, usize), DecodeError> {
    bincode::decode_from_slice(bytes, config::<LIMIT>()).map_err(|_| DecodeError::Malformed(what))
}

/// Decodes one value that must use all of `bytes`.
///
/// # Errors
/// [`DecodeError::Malformed`], or [`DecodeError::Trailing`] when bytes are left.
pub fn decode<T: bincode::Decode<()>, const LIMIT: usize>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = decode_prefix::<T, LIMIT>(what, bytes)?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing { what, left: bytes.len() - used }) }
}

/// A message of a vocabulary: its version, then the value.
pub fn encode_message(version: u8, message: &impl bincode::Encode) -> Vec<u8> {
    let mut out = vec![version];
    encode_into(message, &mut out);
    out
}

/// Reads what [`encode_message`] wrote, from a stream.
///
/// # Errors
/// [`DecodeError`] for another version, or malformed bytes.
pub fn decode_message<T: bincode::Decode<()>>(what: &'static str, version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Malformed(what)),
        Some((found, body)) if *found == version => decode::<T, STREAM_LIMIT>(what, body),
        Some((found, _)) => Err(DecodeError::Version { what, version: *found }),
    }
}
