//! The sealed datagram: authenticated encryption of everything that gossipd sends by UDP.
//!
//! ```text
//!  0        1            3        4             20          28           32                    n-16
//!  +--------+------------+--------+-------------+-----------+------------+---------------------+-----+
//!  |version | cluster tag| key id | sender      | boot salt | counter    | ciphertext          | tag |
//!  | u8     | u16        | u8     | 16 bytes    | 8 bytes   | u32        |                     | 16  |
//!  +--------+------------+--------+-------------+-----------+------------+---------------------+-----+
//! ```
//! Integers are big-endian. 48 bytes are added to each payload.
//!
//! # Nonces
//! AES-256-GCM fails badly when a (key, nonce) pair is used twice, and 10,000 senders share one ring key without
//! talking to each other about nonces. So no sender seals with the ring key itself. Each derives its own key,
//!
//! ```text
//! key = HKDF-SHA-256(ikm = ring key, salt = "gossipd datagram 1", info = cluster id | sender id | boot salt)
//! ```
//!
//! (RFC 5869) and counts datagrams from 0 under it; the counter, padded to 96 bits, is the nonce. Two datagrams could share
//! (key, nonce) only if the same sender drew the same 64-bit salt twice under one ring key: after 65,536 starts of one
//! node under one ring key the chance is 2^-33. Different senders never share a derived key, so their number does not
//! enter. When the 32-bit counter is used up the sender draws a new salt. One derived key thus seals at most 2^32
//! datagrams of at most 75 blocks: 2^38.3 blocks, where GCM's distinguishing advantage is below 2^-50
//! (NIST SP 800-38D §8.3 allows 2^32 invocations). A cloned disk is covered, as the salt is drawn at start and not
//! stored; a copy of a *running* machine's memory is not (both copies would go on with one counter).
//!
//! # What is bound
//! The header and the receiver's node id (not transmitted) are associated data: a datagram captured on its way to A
//! is refused by B. The whole cluster id is in every derived key, so two clusters that were given the same ring key and
//! whose tags happen to be equal still do not understand each other.
//!
//! # Replays
//! For every (sender, boot salt) a window of 128 counters; for every sender the windows of its last few salts. A
//! datagram from a boot that this receiver no longer remembers opens once more; the layer above has to be idempotent
//! (it is: identities, incarnations and record versions only move forward).
//!
//! Not here: what the payload means, and where datagrams come from or go to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::index::ById;
use crate::record::{ClusterId, NodeId};

/// The version byte written today.
pub const FRAME_VERSION: u8 = 1;
/// Bytes in front of the ciphertext.
pub const HEADER_BYTES: usize = 32;
/// Bytes of the authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Bytes of a ring key.
pub const KEY_BYTES: usize = 32;
/// Keys a ring may hold at once: the primary, its successor, and enough old ones for slow nodes.
pub const RING_KEYS_MAX: usize = 8;

/// Senders whose windows are remembered, at most.
const SENDERS_MAX: usize = 65_536;
/// Windows remembered for each sender; the one that has accepted least goes first.
const WINDOWS_PER_SENDER: usize = 4;
/// Derived opening keys kept ready (direct-mapped); a miss costs one HKDF, about a microsecond.
const OPENING_KEYS: usize = 256;
/// Counters that may arrive out of order.
const WINDOW_BITS: u32 = 128;

/// Why a datagram was dropped. Whoever sent it is at fault, or the network; it is counted and never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DropCause {
    /// Too short for a header and a tag.
    #[error("short")]
    Short,
    /// Another frame version.
    #[error("version")]
    Version,
    /// Another cluster's tag.
    #[error("cluster")]
    Cluster,
    /// A key id that is not in the ring.
    #[error("key")]
    Key,
    /// It claims to come from this very node.
    #[error("reflected")]
    Reflected,
    /// It does not open: forged, damaged, or meant for another node.
    #[error("forged")]
    Forged,
    /// It was opened before, or is older than the window.
    #[error("replayed")]
    Replayed,
    /// It opened, but what is inside is malformed or contradicts the sender.
    #[error("malformed")]
    Malformed,
    /// Larger than the cap.
    #[error("oversized")]
    Oversized,
    /// More senders than a cluster may have.
    #[error("crowded")]
    Crowded,
    /// Its sender is a member no more.
    #[error("removed")]
    Removed,
}

impl DropCause {
    /// All causes, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::Short,
        Self::Version,
        Self::Cluster,
        Self::Key,
        Self::Reflected,
        Self::Forged,
        Self::Replayed,
        Self::Malformed,
        Self::Oversized,
        Self::Crowded,
        Self::Removed,
    ];
}

/// The keys that datagrams of a cluster are sealed with. Every node holds the same ring, or will soon.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    primary: u8,
    keys: BTreeMap<u8, [u8; KEY_BYTES]>,
}

/// A ring must have its primary key, and not too many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key ring needs 1 to {RING_KEYS_MAX} keys, its primary among them")]
pub struct BadKeyring;

impl Keyring {
    /// A ring of `keys` (id and key), sealing with `primary`.
    ///
    /// # Errors
    /// [`BadKeyring`] when the primary is missing or there are too many keys.
    pub fn new(primary: u8, keys: impl IntoIterator<Item = (u8, [u8; KEY_BYTES])>) -> Result<Self, BadKeyring> {
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        if keys.len() > RING_KEYS_MAX || !keys.contains_key(&primary) {
            return Err(BadKeyring);
        }
        Ok(Self { primary, keys })
    }

    /// The id of the key that seals.
    pub const fn primary(&self) -> u8 {
        self.primary
    }

    /// All keys with their ids, by id.
    pub fn keys(&self) -> impl Iterator<Item = (u8, &[u8; KEY_BYTES])> {
        self.keys.iter().map(|(id, key)| (*id, key))
    }

    fn derive(&self, cluster: ClusterId, key_id: u8, sender: NodeId, salt: u64) -> Result<LessSafeKey, DropCause> {
        let ring_key = self.keys.get(&key_id).ok_or(DropCause::Key)?;
        let salt_bytes = salt.to_be_bytes();
        let info: [&[u8]; 3] = [cluster.as_bytes(), sender.as_bytes(), &salt_bytes];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"gossipd datagram 1")
            .extract(ring_key)
            .expand(&info, &AES_256_GCM)
            .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
            // Only an output length over 255 hashes can fail, and this one is 32 bytes.
            .map_err(|_| DropCause::Key)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("primary", &self.primary)
            .field("ids", &self.keys.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Two bytes that let strangers' datagrams be told from forged ones before any cryptography.
fn cluster_tag(cluster: ClusterId) -> [u8; 2] {
    let [a, b, ..] = *cluster.as_bytes();
    [a, b]
}

struct Header {
    key_id: u8,
    sender: NodeId,
    salt: u64,
    counter: u32,
}

impl Header {
    fn write(&self, tag: [u8; 2], out: &mut Vec<u8>) {
        out.push(FRAME_VERSION);
        out.extend_from_slice(&tag);
        out.push(self.key_id);
        out.extend_from_slice(self.sender.as_bytes());
        out.extend_from_slice(&self.salt.to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
    }

    fn read(tag: [u8; 2], header: &[u8; HEADER_BYTES]) -> Result<Self, DropCause> {
        let (fixed, rest) = header.split_first_chunk::<4>().ok_or(DropCause::Short)?;
        let (sender, rest) = rest.split_first_chunk::<16>().ok_or(DropCause::Short)?;
        let (salt, rest) = rest.split_first_chunk::<8>().ok_or(DropCause::Short)?;
        let counter = rest.first_chunk::<4>().ok_or(DropCause::Short)?;
        let [version, tag_a, tag_b, key_id] = *fixed;
        if version != FRAME_VERSION {
            return Err(DropCause::Version);
        }
        if [tag_a, tag_b] != tag {
            return Err(DropCause::Cluster);
        }
        Ok(Self {
            key_id,
            sender: NodeId::from_bytes(*sender),
            salt: u64::from_be_bytes(*salt),
            counter: u32::from_be_bytes(*counter),
        })
    }
}

fn nonce(counter: u32) -> Nonce {
    let mut bytes = [0_u8; 12];
    let (_, low) = bytes.split_at_mut(8);
    low.copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Associated data: the header as sent, then the receiver.
fn associated(header: &[u8], receiver: NodeId) -> [u8; HEADER_BYTES + 16] {
    let mut aad = [0_u8; HEADER_BYTES + 16];
    let (head, tail) = aad.split_at_mut(HEADER_BYTES);
    for (slot, byte) in head.iter_mut().zip(header) {
        *slot = *byte;
    }
    tail.copy_from_slice(receiver.as_bytes());
    aad
}

#[derive(Debug, Clone, Copy)]
struct Window {
    salt: u64,
    newest: u32,
    /// Bit i: counter `newest - i` was accepted.
    seen: u128,
    accepted: u64,
}

impl Window {
    const fn new(salt: u64, counter: u32) -> Self {
        Self { salt, newest: counter, seen: 1, accepted: 1 }
    }

    fn is_fresh(&self, counter: u32) -> bool {
        match self.newest.checked_sub(counter) {
            None => true,
            Some(age) => age < WINDOW_BITS && self.seen & (1_u128 << age) == 0,
        }
    }

    fn accept(&mut self, counter: u32) {
        if let Some(age) = self.newest.checked_sub(counter) {
            self.seen |= 1_u128.checked_shl(age).unwrap_or(0);
        } else {
            self.seen = self.seen.checked_shl(counter - self.newest).unwrap_or(0) | 1;
            self.newest = counter;
        }
        self.accepted = self.accepted.saturating_add(1);
    }
}

/// A derived key, and what it was derived from beside the ring.
#[derive(Clone)]
struct DerivedKey {
    key_id: u8,
    sender: NodeId,
    salt: u64,
    key: Arc<LessSafeKey>,
}

impl DerivedKey {
    fn is_for(&self, header: &Header) -> bool {
        (self.key_id, self.sender, self.salt) == (header.key_id, header.sender, header.salt)
    }
}

/// Derived keys that the nodes of one process use in common, the last one of each sender: what one of them has derived,
/// the others need not. For nodes of one cluster with one ring.
#[derive(Clone, Default)]
pub struct SharedKeys(Arc<Mutex<ById<DerivedKey>>>);

impl SharedKeys {
    fn get(&self, header: &Header) -> Option<Arc<LessSafeKey>> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&header.sender).filter(|known| known.is_for(header)).map(|known| Arc::clone(&known.key))
    }

    fn put(&self, known: DerivedKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(known.sender, known);
    }
}

impl std::fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedKeys").finish_non_exhaustive()
    }
}

/// An opened datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Who sealed it: proven, as far as ring members trust each other.
    pub sender: NodeId,
    /// What was inside.
    pub payload: &'a [u8],
}

/// One node's end of the datagram channel: seals for anybody in the cluster, opens what is meant for this node.
pub struct Channel {
    cluster: ClusterId,
    me: NodeId,
    ring: Keyring,
    salts: ChaCha12Rng,
    salt: u64,
    counter: u32,
    /// Key for (primary, salt); none until the first seal and after a change of ring or salt.
    sealing: Option<Arc<LessSafeKey>>,
    /// Empty until something was opened.
    opening: Vec<Option<Box<DerivedKey>>>,
    /// Takes the place of `opening`.
    shared: Option<SharedKeys>,
    windows: ById<Vec<Window>>,
}

impl Channel {
    /// A channel for node `me`. `seed` must come from the operating system's randomness and be new at every start: the
    /// boot salt is drawn from it (see the module's header).
    pub fn new(cluster: ClusterId, me: NodeId, ring: Keyring, seed: [u8; 32]) -> Self {
        let mut salts = ChaCha12Rng::from_seed(seed);
        let salt = salts.next_u64();
        Self {
            cluster,
            me,
            ring,
            salts,
            salt,
            counter: 0,
            sealing: None,
            opening: Vec::new(),
            shared: None,
            windows: ById::default(),
        }
    }

    /// The ring in use.
    pub const fn keyring(&self) -> &Keyring {
        &self.ring
    }

    /// From now on takes derived keys from there, and puts them there.
    pub fn share_keys(&mut self, shared: SharedKeys) {
        self.opening = Vec::new();
        self.shared = Some(shared);
    }

    /// Changes the ring. Windows stay, so a replay stays a replay.
    pub fn set_keyring(&mut self, ring: Keyring) {
        // A new salt, so that no counter restarts under a (ring key, salt) pair used before.
        self.salt = self.salts.next_u64();
        self.counter = 0;
        self.sealing = None;
        self.opening.clear();
        self.ring = ring;
    }

    /// Seals `payload` for node `to`; the result is [`OVERHEAD_BYTES`] longer.
    ///
    /// # Errors
    /// [`DropCause::Key`] when the ring lost its primary or the AEAD refused: not reachable with a [`Keyring`] made by
    /// [`Keyring::new`].
    pub fn seal(&mut self, to: NodeId, payload: &[u8]) -> Result<Vec<u8>, DropCause> {
        if self.counter == u32::MAX {
            self.salt = self.salts.next_u64();
            self.counter = 0;
            self.sealing = None;
        }
        let header = Header { key_id: self.ring.primary, sender: self.me, salt: self.salt, counter: self.counter };
        let key = match &mut self.sealing {
            Some(key) => key,
            none => {
                let key = Arc::new(self.ring.derive(self.cluster, header.key_id, self.me, self.salt)?);
                if let Some(shared) = &self.shared {
                    let Header { key_id, sender, salt, .. } = header;
                    shared.put(DerivedKey { key_id, sender, salt, key: Arc::clone(&key) });
                }
                none.insert(key)
            }
        };
        self.counter += 1;
        let mut out = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
        header.write(cluster_tag(self.cluster), &mut out);
        let aad = associated(&out, to);
        out.extend_from_slice(payload);
        let (_, body) = out.split_at_mut(HEADER_BYTES);
        let tag =
            key.seal_in_place_separate_tag(nonce(header.counter), Aad::from(aad), body).map_err(|_| DropCause::Key)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens `datagram` in place.
    ///
    /// # Errors
    /// The cause, for counting; nothing changes for a datagram that does not open.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, DropCause> {
        let (header_bytes, body) = datagram.split_first_chunk_mut::<HEADER_BYTES>().ok_or(DropCause::Short)?;
        if body.len() < TAG_BYTES {
            return Err(DropCause::Short);
        }
        let header = Header::read(cluster_tag(self.cluster), header_bytes)?;
        if header.sender == self.me {
            return Err(DropCause::Reflected);
        }
        let known = self.windows.get(&header.sender);
        if known.is_none() && self.windows.len() >= SENDERS_MAX {
            return Err(DropCause::Crowded);
        }
        let fresh = known
            .and_then(|windows| windows.iter().find(|window| window.salt == header.salt))
            .is_none_or(|window| window.is_fresh(header.counter));
        if !fresh {
            return Err(DropCause::Replayed);
        }
        let aad = associated(header_bytes, self.me);
        let slot = slot_of(&header);
        let known = match &self.shared {
            Some(shared) => shared.get(&header),
            None => {
                let cached = self.opening.get(slot).and_then(Option::as_ref).filter(|cached| cached.is_for(&header));
                cached.map(|cached| Arc::clone(&cached.key))
            }
        };
        let is_known = known.is_some();
        let key = match known {
            Some(key) => key,
            None => Arc::new(self.ring.derive(self.cluster, header.key_id, header.sender, header.salt)?),
        };
        let payload = key.open_in_place(nonce(header.counter), Aad::from(aad), body).map_err(|_| DropCause::Forged)?;
        // Only now is anything remembered: what strangers send leaves no trace.
        if !is_known {
            let Header { key_id, sender, salt, .. } = header;
            let derived = DerivedKey { key_id, sender, salt, key };
            match &self.shared {
                Some(shared) => shared.put(derived),
                None => {
                    if self.opening.is_empty() {
                        self.opening.resize_with(OPENING_KEYS, || None);
                    }
                    if let Some(place) = self.opening.get_mut(slot) {
                        *place = Some(Box::new(derived));
                    }
                }
            }
        }
        self.remember(&header);
        Ok(Opened { sender: header.sender, payload })
    }

    /// Forgets the replay windows of all senders but those to `keep`, so that memory follows the cluster's size.
    pub fn retain_senders(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.windows.retain(|sender, _| keep(*sender));
    }

    fn remember(&mut self, header: &Header) {
        let windows = self.windows.entry(header.sender).or_default();
        if let Some(window) = windows.iter_mut().find(|window| window.salt == header.salt) {
            window.accept(header.counter);
            return;
        }
        if windows.len() >= WINDOWS_PER_SENDER
            && let Some(least) = (0..windows.len()).min_by_key(|i| windows.get(*i).map_or(u64::MAX, |w| w.accepted))
        {
            windows.swap_remove(least);
        }
        // Most senders never start again: one window is all they need.
        windows.reserve_exact(1);
        windows.push(Window::new(header.salt, header.counter));
    }
}

fn slot_of(header: &Header) -> usize {
    // The salt is uniform, so its low bits spread well.
    usize::try_from(header.salt % OPENING_KEYS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn ring(primary: u8) -> Keyring {
        Keyring::new(primary, [(1, [0x11; 32]), (2, [0x22; 32])]).unwrap()
    }

    fn channel(me: u8, seed: u8) -> Channel {
        Channel::new(ClusterId::from_bytes([0xC1; 16]), id(me), ring(1), [seed; 32])
    }

    #[test]
    fn golden_datagram() {
        let sealed = channel(0xAA, 7).seal(id(0xBB), b"hello").unwrap();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "01",
                "c1c1",
                "01",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "20cbc085788992f6",
                "00000000",
                "fa960a2d1f",
                "14e71e22a824d3fb1eb7fe705bf28e92"
            )
        );
    }

    #[test]
    fn another_cluster_with_the_same_tag_and_ring_key_is_a_stranger() {
        let mut bytes = [0xC1; 16];
        bytes[15] = 0;
        let mut stranger = Channel::new(ClusterId::from_bytes(bytes), id(1), ring(1), [1; 32]);
        let mut sealed = stranger.seal(id(2), b"payload").unwrap();
        assert_eq!(channel(2, 2).open(&mut sealed), Err(DropCause::Forged));
    }

    #[test]
    fn what_is_sealed_for_a_node_opens_there_once_and_nowhere_else() {
        let mut a = channel(1, 1);
        let mut b = channel(2, 2);
        let mut c = channel(3, 3);
        let sealed = a.seal(id(2), b"payload").unwrap();
        assert_eq!(sealed.len(), 7 + OVERHEAD_BYTES);
        assert_eq!(c.open(&mut sealed.clone()), Err(DropCause::Forged), "meant for b");
        assert_eq!(b.open(&mut sealed.clone()), Ok(Opened { sender: id(1), payload: b"payload" }));
        assert_eq!(b.open(&mut sealed.clone()), Err(DropCause::Replayed));
        assert_eq!(a.open(&mut sealed.clone()), Err(DropCause::Reflected));
    }

    #[test]
    fn causes_are_told_apart() {
        let mut a = channel(1, 1);
        let mut b = channel(2, 2);
        let sealed = a.seal(id(2), b"payload").unwrap();
        let with = |at: usize, value: u8| {
            let mut bytes = sealed.clone();
            bytes[at] = value;
            bytes
        };
        let cases: Vec<(Vec<u8>, DropCause)> = vec![
            (vec![], DropCause::Short),
            (sealed[..HEADER_BYTES + TAG_BYTES - 1].to_vec(), DropCause::Short),
            (with(0, 9), DropCause::Version),
            (with(1, 0), DropCause::Cluster),
            (with(3, 77), DropCause::Key),
            (with(3, 2), DropCause::Forged),
            (with(4, 9), DropCause::Forged),
            (with(HEADER_BYTES, sealed[HEADER_BYTES] ^ 1), DropCause::Forged),
            (sealed[..sealed.len() - 1].to_vec(), DropCause::Forged),
        ];
        for (mut bytes, cause) in cases {
            assert_eq!(b.open(&mut bytes), Err(cause));
        }
        assert!(b.open(&mut sealed.clone()).is_ok(), "refused ones left no trace");
    }

    #[test]
    fn the_window_takes_late_ones_and_refuses_old_ones() {
        let mut a = channel(1, 1);
        let mut b = channel(2, 2);
        let sealed: Vec<_> = (0..200).map(|_| a.seal(id(2), b"x").unwrap()).collect();
        assert!(b.open(&mut sealed[199].clone()).is_ok());
        assert!(b.open(&mut sealed[72].clone()).is_ok(), "127 late");
        assert_eq!(b.open(&mut sealed[71].clone()), Err(DropCause::Replayed), "128 late");
        assert_eq!(b.open(&mut sealed[72].clone()), Err(DropCause::Replayed));
        assert!(b.open(&mut sealed[150].clone()).is_ok());
    }

    #[test]
    fn restarts_open_and_a_live_window_outlives_replayed_boots() {
        let mut b = channel(2, 2);
        let mut live = channel(1, 100);
        for _ in 0..10 {
            assert!(b.open(&mut live.seal(id(2), b"x").unwrap()).is_ok());
        }
        let last = live.seal(id(2), b"x").unwrap();
        assert!(b.open(&mut last.clone()).is_ok());
        for boot in 1..20 {
            assert!(b.open(&mut channel(1, boot).seal(id(2), b"old").unwrap()).is_ok());
        }
        assert_eq!(b.open(&mut last.clone()), Err(DropCause::Replayed));
        assert!(b.windows.get(&id(1)).unwrap().len() <= WINDOWS_PER_SENDER);
    }

    #[test]
    fn a_rotated_ring_opens_old_and_new() {
        let mut a = channel(1, 1);
        let mut b = channel(2, 2);
        b.set_keyring(ring(2));
        assert!(b.open(&mut a.seal(id(2), b"old key").unwrap()).is_ok());
        a.set_keyring(ring(2));
        assert!(b.open(&mut a.seal(id(2), b"new key").unwrap()).is_ok());
        assert!(Keyring::new(9, [(1, [0; 32])]).is_err());
    }

    #[test]
    fn no_key_in_debug_output() {
        let text = format!("{:?}", ring(1));
        assert!(!text.contains("17"), "{text}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(channel(2, 2).open(&mut bytes).is_err());
        }

        #[test]
        fn any_bytes_after_a_good_header_are_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = channel(1, 1).seal(id(2), b"").unwrap()[..HEADER_BYTES].to_vec();
            bytes.extend(tail);
            prop_assert!(channel(2, 2).open(&mut bytes).is_err());
        }

        #[test]
        fn any_payload_survives(payload in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let mut sealed = channel(1, 1).seal(id(2), &payload).unwrap();
            let mut b = channel(2, 2);
            prop_assert_eq!(b.open(&mut sealed).unwrap().payload, &payload[..]);
        }
    }
}
