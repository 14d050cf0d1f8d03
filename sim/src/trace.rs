//! A running hash over everything that happened: equal hashes, equal runs.
//!
//! FNV-1a with its 128-bit constants, fed eight bytes at a time: fast, the same on every machine, and not meant to
//! withstand anybody.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use gossipd::node::{Event, Member};

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The hash so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u128);

impl Default for Trace {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Trace {
    /// The hash itself.
    pub(crate) const fn value(&self) -> u128 {
        self.0
    }

    /// Takes in a number.
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ u128::from(number)).wrapping_mul(PRIME);
    }

    /// Takes in bytes, and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.number(u64::from(*byte)));
    }

    /// Takes in how many bytes these are, and both ends: the end of a sealed datagram depends on every byte before it.
    pub fn digest(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let ends = [bytes.first_chunk::<8>(), bytes.last_chunk::<8>()];
        ends.into_iter().flatten().for_each(|word| self.number(u64::from_le_bytes(*word)));
    }

    /// Takes in what a node told its listeners.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Member { revision, cause, old, new } => {
                self.number(*revision);
                self.bytes(cause.word().as_bytes());
                self.member(old.as_deref());
                self.member(new.as_deref());
            }
            Event::Health(health) => {
                self.number(u64::from(health.score));
                health.reasons.iter().for_each(|reason| self.bytes(reason.word().as_bytes()));
            }
            Event::Decision { revision, cause: _, old, new } => {
                self.number(*revision);
                for decision in [old, new] {
                    let stamp = decision.as_ref().map(|decision| decision.stamp);
                    self.number(stamp.map_or(0, |stamp| stamp.at.bits()));
                }
            }
            Event::Table { revision, .. } | Event::Conflict { revision, .. } => {
                self.number(*revision);
                self.bytes(format!("{event:?}").as_bytes());
            }
            Event::Removed(decision) => self.number(decision.stamp.at.bits()),
            Event::Confirmed { nonce } | Event::Examined { nonce } => self.number(u64::from(*nonce)),
            Event::Joined { with } => self.bytes(with.as_bytes()),
            Event::LeaveDone { acknowledged } => self.number(u64::from(*acknowledged)),
            Event::IdentityConflict { addr, generation, gives_way } => {
                self.number(u64::from(*gives_way));
                addr.iter().for_each(|addr| self.addr(*addr));
                self.number(*generation);
            }
        }
    }

    /// Takes in an address.
    pub fn addr(&mut self, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
        self.number(u64::from(addr.port()));
    }

    fn member(&mut self, member: Option<&Member>) {
        let Some(Member { swim, status, since_ms, record, heard_us, rtt_us, tcp_only, decided }) = member else {
            return self.number(0);
        };
        self.bytes(swim.identity.id.as_bytes());
        self.number(swim.identity.generation);
        self.addr(swim.identity.addr);
        self.number(u64::from(swim.incarnation));
        self.bytes(status.word().as_bytes());
        self.number(*since_ms);
        self.number(*heard_us);
        self.number(rtt_us.map_or(0, |us| us + 1));
        self.number(u64::from(*tcp_only));
        let stamps =
            [&decided.availability, &decided.role].map(|one| one.as_ref().map_or(0, |one| one.stamp.at.bits()));
        stamps.into_iter().for_each(|stamp| self.number(stamp));
        self.number(decided.labels.len() as u64);
        if let Some(record) = record {
            self.bytes(record.hostname.as_bytes());
            self.number(u64::from(record.left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_every_byte_count() {
        let hash = |parts: &[&[u8]]| {
            let mut trace = Trace::default();
            parts.iter().for_each(|part| trace.bytes(part));
            trace
        };
        let different = [
            hash(&[]),
            hash(&[b""]),
            hash(&[b"a", b"b"]),
            hash(&[b"b", b"a"]),
            hash(&[b"ab"]),
            hash(&[b"12345678"]),
            hash(&[b"12345679"]),
            hash(&[b"123456789"]),
        ];
        for (n, a) in different.iter().enumerate() {
            assert!(different[n + 1..].iter().all(|b| a != b), "{n}");
        }
        assert_eq!(hash(&[b"ab"]).to_string().len(), 32);
    }
}
