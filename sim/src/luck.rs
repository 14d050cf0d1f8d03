//! Random streams: one for each purpose and host, so that a fault at one place does not change the luck of another.
//!
//! Not here: who draws when. All streams come from one seed and from nothing else.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::host::HostId;

/// What a stream is drawn for. New ones go to the end: the number is part of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Names and keys.
    Names,
    /// The seed of each life of a node.
    Lives,
    /// Delay of the datagrams that a host sends.
    Latency,
    /// Loss of the datagrams that a host sends.
    Loss,
    /// Delay and loss of the segments of exchanges that a host sends.
    Exchanges,
    /// Whom a scenario's faults hit.
    Victims,
    /// What one fault does, by its number.
    Faults,
    /// What a generated scenario is made of.
    Swizzle,
    /// What owners write.
    Writes,
}

/// The run's seed.
#[derive(Debug, Clone, Copy)]
pub struct Luck(u64);

impl Luck {
    /// All luck of the run with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of the whole run for `purpose`.
    pub fn stream(self, purpose: Purpose) -> ChaCha12Rng {
        self.numbered(purpose, 0)
    }

    /// The stream of one host for `purpose`.
    pub fn of_host(self, purpose: Purpose, host: HostId) -> ChaCha12Rng {
        self.numbered(purpose, host.index() as u64 + 1)
    }

    /// The stream of one fault, whatever other faults there are.
    pub fn of_fault(self, number: u64) -> ChaCha12Rng {
        self.numbered(Purpose::Faults, number)
    }

    /// The stream for what `host` writes in one turn of a writing.
    pub fn of_write(self, writing: u64, turn: u64, host: HostId) -> ChaCha12Rng {
        let mut rng = self.named(Purpose::Writes, &format!("{writing}-{host}"));
        rng.set_word_pos(u128::from(turn) << 12);
        rng
    }

    /// The stream for whatever bears `name`.
    pub fn named(self, purpose: Purpose, name: &str) -> ChaCha12Rng {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.numbered(purpose, hash)
    }

    /// 32 bytes for the `life`-th life of a node.
    pub fn life_seed(self, host: HostId, life: u64) -> [u8; 32] {
        let mut rng = self.of_host(Purpose::Lives, host);
        // Each life its own block of the stream, whatever happened before.
        rng.set_word_pos(u128::from(life) * 16);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        seed
    }

    fn numbered(self, purpose: Purpose, number: u64) -> ChaCha12Rng {
        let mut rng = ChaCha12Rng::seed_from_u64(self.0);
        rng.set_stream((purpose as u64) << 48 | (number & 0xffff_ffff_ffff));
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_host_fault_life_and_seed() {
        let luck = Luck::new(1);
        let draws = [
            luck.stream(Purpose::Names).next_u64(),
            luck.stream(Purpose::Loss).next_u64(),
            luck.of_host(Purpose::Loss, HostId::new(0)).next_u64(),
            luck.of_host(Purpose::Loss, HostId::new(1)).next_u64(),
            luck.of_fault(1).next_u64(),
            luck.of_fault(2).next_u64(),
            luck.named(Purpose::Victims, "a").next_u64(),
            luck.named(Purpose::Victims, "b").next_u64(),
            Luck::new(2).stream(Purpose::Loss).next_u64(),
        ];
        let different: std::collections::BTreeSet<_> = draws.into_iter().collect();
        assert_eq!(different.len(), draws.len());
        assert_ne!(luck.life_seed(HostId::new(0), 1), luck.life_seed(HostId::new(0), 2));
        assert_eq!(luck.life_seed(HostId::new(3), 1), luck.life_seed(HostId::new(3), 1));
    }
}
