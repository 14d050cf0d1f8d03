//! foca's messages in bincode: our own mirror types, so that the bytes do not follow foca's enum order.

use bincode::{Decode, Encode};
use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::identity::Identity;
use crate::wire::codec::{self, DATAGRAM_LIMIT, DecodeError};
use crate::wire::datagram::SECTION_HEADER_BYTES;
use crate::wire::exchange::Liveness;

/// A header or member could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("no room")]
    NoRoom,
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// What foca says to another node, without foca's types.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum WireMessage {
    Ping(u8),
    Ack(u8),
    PingReq { target: Identity, probe: u8 },
    IndirectPing { origin: Identity, probe: u8 },
    IndirectAck { target: Identity, probe: u8 },
    ForwardedAck { origin: Identity, probe: u8 },
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct WireHeader {
    src: Identity,
    src_incarnation: u16,
    dst: Identity,
    message: WireMessage,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct WireMember {
    identity: Identity,
    incarnation: u16,
    liveness: Liveness,
}

pub(super) const fn liveness(state: State) -> Liveness {
    match state {
        State::Alive => Liveness::Alive,
        State::Suspect => Liveness::Suspect,
        State::Down => Liveness::Down,
    }
}

pub(super) const fn state(liveness: Liveness) -> State {
    match liveness {
        Liveness::Alive => State::Alive,
        Liveness::Suspect => State::Suspect,
        Liveness::Down => State::Down,
    }
}

impl From<&Header<Identity>> for WireHeader {
    fn from(header: &Header<Identity>) -> Self {
        let Header { src, src_incarnation, dst, message } = header;
        let message = match message {
            Message::Ping(probe) => WireMessage::Ping(*probe),
            Message::Ack(probe) => WireMessage::Ack(*probe),
            Message::PingReq { target, probe_number } => WireMessage::PingReq { target: *target, probe: *probe_number },
            Message::IndirectPing { origin, probe_number } => {
                WireMessage::IndirectPing { origin: *origin, probe: *probe_number }
            }
            Message::IndirectAck { target, probe_number } => {
                WireMessage::IndirectAck { target: *target, probe: *probe_number }
            }
            Message::ForwardedAck { origin, probe_number } => {
                WireMessage::ForwardedAck { origin: *origin, probe: *probe_number }
            }
            Message::Announce => WireMessage::Announce,
            Message::Feed => WireMessage::Feed,
            Message::Gossip => WireMessage::Gossip,
            Message::Broadcast => WireMessage::Broadcast,
            Message::TurnUndead => WireMessage::TurnUndead,
        };
        Self { src: *src, src_incarnation: *src_incarnation, dst: *dst, message }
    }
}

impl From<WireHeader> for Header<Identity> {
    fn from(header: WireHeader) -> Self {
        let WireHeader { src, src_incarnation, dst, message } = header;
        let message = match message {
            WireMessage::Ping(probe) => Message::Ping(probe),
            WireMessage::Ack(probe) => Message::Ack(probe),
            WireMessage::PingReq { target, probe } => Message::PingReq { target, probe_number: probe },
            WireMessage::IndirectPing { origin, probe } => Message::IndirectPing { origin, probe_number: probe },
            WireMessage::IndirectAck { target, probe } => Message::IndirectAck { target, probe_number: probe },
            WireMessage::ForwardedAck { origin, probe } => Message::ForwardedAck { origin, probe_number: probe },
            WireMessage::Announce => Message::Announce,
            WireMessage::Feed => Message::Feed,
            WireMessage::Gossip => Message::Gossip,
            WireMessage::Broadcast => Message::Broadcast,
            WireMessage::TurnUndead => Message::TurnUndead,
        };
        Self { src, src_incarnation, dst, message }
    }
}

/// The codec that foca is given. Stateless.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwimCodec;

impl SwimCodec {
    fn put(value: &impl Encode, mut buf: impl BufMut) -> Result<(), CodecError> {
        let bytes = codec::encode(value);
        // All or nothing: foca wants the buffer clean when an item does not fit.
        if buf.remaining_mut() < bytes.len() {
            return Err(CodecError::NoRoom);
        }
        buf.put_slice(&bytes);
        Ok(())
    }

    fn get<T: Decode<()>>(what: &'static str, mut buf: impl Buf) -> Result<T, CodecError> {
        let (value, used) = codec::decode_prefix::<T, DATAGRAM_LIMIT>(what, buf.chunk())?;
        buf.advance(used);
        Ok(value)
    }
}

impl foca::Codec<Identity> for SwimCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        Self::put(&WireHeader::from(header), buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        Self::get::<WireHeader>("swim header", buf).map(Header::from)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let member = WireMember {
            identity: *member.id(),
            incarnation: member.incarnation(),
            liveness: liveness(member.state()),
        };
        Self::put(&member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let WireMember { identity, incarnation, liveness } = Self::get("swim member", buf)?;
        Ok(Member::new(identity, incarnation, state(liveness)))
    }
}

/// A foca packet taken apart, each update with its bytes, so that some of them can be left out again.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) header: Header<Identity>,
    header_bytes: &'a [u8],
    pub(super) updates: Vec<(Member<Identity>, &'a [u8])>,
    has_count: bool,
}

impl<'a> Packet<'a> {
    /// Reads a packet in full; custom broadcasts, which we do not use, are refused.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "swim packet";
        let (header, used) = codec::decode_prefix::<WireHeader, DATAGRAM_LIMIT>("swim header", bytes)?;
        let (header_bytes, mut rest) = bytes.split_at_checked(used).ok_or(DecodeError::Malformed(WHAT))?;
        let mut updates = Vec::new();
        let has_count = !rest.is_empty();
        if has_count {
            let (count, tail) = rest.split_first_chunk::<2>().ok_or(DecodeError::Malformed(WHAT))?;
            rest = tail;
            for _ in 0..u16::from_be_bytes(*count) {
                let (member, used) = codec::decode_prefix::<WireMember, DATAGRAM_LIMIT>("swim member", rest)?;
                let (raw, tail) = rest.split_at_checked(used).ok_or(DecodeError::Malformed(WHAT))?;
                rest = tail;
                updates.push((Member::new(member.identity, member.incarnation, state(member.liveness)), raw));
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError::Trailing { what: WHAT, left: rest.len() });
        }
        // foca takes no updates with these, and reads what follows a broadcast as something else.
        let takes_no_updates =
            matches!(header.message, WireMessage::Announce | WireMessage::TurnUndead | WireMessage::Broadcast);
        if takes_no_updates && has_count {
            return Err(DecodeError::Invalid(WHAT));
        }
        Ok(Self { header: header.into(), header_bytes, updates, has_count })
    }

    /// The packet with one update more, if it takes updates and `cap` allows it.
    pub(super) fn with_update(&self, update: &Member<Identity>, cap: usize) -> Option<Vec<u8>> {
        if !self.has_count {
            return None;
        }
        let mut extra = Vec::new();
        foca::Codec::encode_member(&mut SwimCodec, update, &mut extra).ok()?;
        let mut kept: Vec<_> = self.updates.iter().map(|(_, raw)| *raw).collect();
        kept.push(&extra);
        Some(self.rewrite(&kept)).filter(|packet| packet.len() + SECTION_HEADER_BYTES <= cap)
    }

    /// The packet with only those updates that `keep` has chosen.
    pub(super) fn rewrite(&self, kept: &[&[u8]]) -> Vec<u8> {
        let mut out = self.header_bytes.to_vec();
        if self.has_count {
            out.extend_from_slice(&u16::try_from(kept.len()).unwrap_or(u16::MAX).to_be_bytes());
            for raw in kept {
                out.extend_from_slice(raw);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use proptest::prelude::*;

    use super::*;
    use crate::record::NodeId;

    fn identity(n: u8) -> Identity {
        Identity { id: NodeId::from_bytes([n; 16]), generation: 1_700_000_000, addr: ([10, 0, 0, n], 7946).into() }
    }

    fn messages() -> Vec<Message<Identity>> {
        vec![
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: identity(3), probe_number: 3 },
            Message::IndirectPing { origin: identity(4), probe_number: 4 },
            Message::IndirectAck { target: identity(5), probe_number: 5 },
            Message::ForwardedAck { origin: identity(6), probe_number: 6 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ]
    }

    #[test]
    fn every_message_round_trips() {
        for message in messages() {
            let header = Header { src: identity(1), src_incarnation: 9, dst: identity(2), message };
            let mut bytes = Vec::new();
            SwimCodec.encode_header(&header, &mut bytes).unwrap();
            let mut rest = &bytes[..];
            assert_eq!(SwimCodec.decode_header(&mut rest).unwrap(), header);
            assert!(rest.is_empty(), "exactly one item is consumed");
        }
    }

    #[test]
    fn golden_ping_and_member() {
        let header = Header { src: identity(1), src_incarnation: 0, dst: identity(2), message: Message::Ping(7) };
        let mut bytes = Vec::new();
        SwimCodec.encode_header(&header, &mut bytes).unwrap();
        SwimCodec.encode_member(&Member::new(identity(3), 300, State::Suspect), &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "01010101010101010101010101010101",
                "fc00f15365",
                "000a000001fb0a1f",
                "00",
                "02020202020202020202020202020202",
                "fc00f15365",
                "000a000002fb0a1f",
                "0007",
                "03030303030303030303030303030303",
                "fc00f15365",
                "000a000003fb0a1f",
                "fb2c01",
                "01"
            )
        );
    }

    #[test]
    fn what_does_not_fit_leaves_the_buffer_clean() {
        let member = Member::alive(identity(1));
        for room in 0..27 {
            let mut buf = Vec::with_capacity(64).limit(room);
            assert!(SwimCodec.encode_member(&member, &mut buf).is_err(), "{room}");
            assert!(buf.get_ref().is_empty());
        }
    }

    #[test]
    fn a_packet_can_be_thinned() {
        let header = Header { src: identity(1), src_incarnation: 0, dst: identity(2), message: Message::Gossip };
        let mut bytes = Vec::new();
        SwimCodec.encode_header(&header, &mut bytes).unwrap();
        bytes.extend_from_slice(&2_u16.to_be_bytes());
        SwimCodec.encode_member(&Member::alive(identity(3)), &mut bytes).unwrap();
        SwimCodec.encode_member(&Member::alive(identity(4)), &mut bytes).unwrap();
        let packet = Packet::read(&bytes).unwrap();
        assert_eq!(packet.updates.len(), 2);
        let thin = packet.rewrite(&[packet.updates[1].1]);
        let thin = Packet::read(&thin).unwrap();
        assert_eq!(thin.updates[0].0, Member::alive(identity(4)));
        assert_eq!(thin.updates.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Packet::read(&bytes);
        }
    }
}
