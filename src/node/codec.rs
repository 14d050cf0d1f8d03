//! foca's messages in bincode: our own mirror types, so that the bytes do not follow foca's enum order.
//!
//! Two forms of the same: what foca writes and reads inside this process has items of fixed size (see [`inner_bytes`]),
//! what goes over the wire has not a byte that the sealed frame says already.

use std::net::SocketAddr;

use bincode::{Decode, Encode};
use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::identity::{Identity, Life};
use crate::record::NodeId;
use crate::wire::codec::{self, DATAGRAM_LIMIT, DecodeError};
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

/// A header as it goes over the wire. Who sends and for whom are the frame's to say, and are sealed with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct WireHeader {
    src_generation: u64,
    src_addr: SocketAddr,
    src_incarnation: u16,
    dst_generation: u64,
    message: WireMessage,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct WireMember {
    identity: Identity,
    incarnation: u16,
    liveness: Liveness,
}

/// A header as foca writes and reads it: the same, with both identities in full.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct InnerHeader {
    src: Identity,
    src_incarnation: u16,
    dst: Identity,
    message: WireMessage,
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

/// A message without foca's types.
fn wire_message<T>(message: &Message<T>, of: impl Fn(&T) -> Identity) -> WireMessage {
    match message {
        Message::Ping(probe) => WireMessage::Ping(*probe),
        Message::Ack(probe) => WireMessage::Ack(*probe),
        Message::PingReq { target, probe_number } => WireMessage::PingReq { target: of(target), probe: *probe_number },
        Message::IndirectPing { origin, probe_number } => {
            WireMessage::IndirectPing { origin: of(origin), probe: *probe_number }
        }
        Message::IndirectAck { target, probe_number } => {
            WireMessage::IndirectAck { target: of(target), probe: *probe_number }
        }
        Message::ForwardedAck { origin, probe_number } => {
            WireMessage::ForwardedAck { origin: of(origin), probe: *probe_number }
        }
        Message::Announce => WireMessage::Announce,
        Message::Feed => WireMessage::Feed,
        Message::Gossip => WireMessage::Gossip,
        Message::Broadcast => WireMessage::Broadcast,
        Message::TurnUndead => WireMessage::TurnUndead,
    }
}

/// A message in foca's types, about lives as foca keeps them or as they are.
fn foca_message<T: From<Identity>>(message: WireMessage) -> Message<T> {
    match message {
        WireMessage::Ping(probe) => Message::Ping(probe),
        WireMessage::Ack(probe) => Message::Ack(probe),
        WireMessage::PingReq { target, probe } => Message::PingReq { target: target.into(), probe_number: probe },
        WireMessage::IndirectPing { origin, probe } => {
            Message::IndirectPing { origin: origin.into(), probe_number: probe }
        }
        WireMessage::IndirectAck { target, probe } => {
            Message::IndirectAck { target: target.into(), probe_number: probe }
        }
        WireMessage::ForwardedAck { origin, probe } => {
            Message::ForwardedAck { origin: origin.into(), probe_number: probe }
        }
        WireMessage::Announce => Message::Announce,
        WireMessage::Feed => Message::Feed,
        WireMessage::Gossip => Message::Gossip,
        WireMessage::Broadcast => Message::Broadcast,
        WireMessage::TurnUndead => Message::TurnUndead,
    }
}

impl From<&Member<Identity>> for WireMember {
    fn from(member: &Member<Identity>) -> Self {
        Self { identity: *member.id(), incarnation: member.incarnation(), liveness: liveness(member.state()) }
    }
}

impl From<WireMember> for Member<Identity> {
    fn from(WireMember { identity, incarnation, liveness }: WireMember) -> Self {
        Self::new(identity, incarnation, state(liveness))
    }
}

/// Bytes of every header that foca writes: the longest there is.
const INNER_HEADER_BYTES: usize = 160;
/// Bytes of every member that foca writes: the longest there is.
const INNER_MEMBER_BYTES: usize = 50;
/// Bytes of foca's count of members.
const INNER_COUNT_BYTES: usize = 2;

/// The packet size to give foca, so that a packet holds `members` members and not a byte more. foca goes through its
/// whole backlog for something that fits unless the packet is exactly full.
pub(super) const fn inner_bytes(members: usize) -> usize {
    INNER_HEADER_BYTES + INNER_COUNT_BYTES + members * INNER_MEMBER_BYTES
}

/// The codec that foca is given: items of fixed size, which never leave this process. Stateless.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwimCodec;

impl SwimCodec {
    fn put<const BYTES: usize>(value: &impl Encode, mut buf: impl BufMut) -> Result<(), CodecError> {
        let mut bytes = Vec::with_capacity(BYTES);
        codec::encode_into(value, &mut bytes);
        // All or nothing: foca wants the buffer clean when an item does not fit.
        if buf.remaining_mut() < BYTES || bytes.len() > BYTES {
            return Err(CodecError::NoRoom);
        }
        bytes.resize(BYTES, 0);
        buf.put_slice(&bytes);
        Ok(())
    }

    fn get<T: Decode<()>, const BYTES: usize>(what: &'static str, mut buf: impl Buf) -> Result<T, CodecError> {
        let bytes = buf.chunk().get(..BYTES).ok_or(DecodeError::Malformed(what))?;
        let (value, _) = codec::decode_prefix::<T, DATAGRAM_LIMIT>(what, bytes)?;
        buf.advance(BYTES);
        Ok(value)
    }
}

impl foca::Codec<Life> for SwimCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Life>, buf: impl BufMut) -> Result<(), CodecError> {
        let Header { src, src_incarnation, dst, message } = header;
        let message = wire_message(message, Life::identity);
        let inner =
            InnerHeader { src: src.identity(), src_incarnation: *src_incarnation, dst: dst.identity(), message };
        Self::put::<INNER_HEADER_BYTES>(&inner, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Life>, CodecError> {
        let InnerHeader { src, src_incarnation, dst, message } =
            Self::get::<_, INNER_HEADER_BYTES>("swim header", buf)?;
        Ok(Header { src: src.into(), src_incarnation, dst: dst.into(), message: foca_message(message) })
    }

    fn encode_member(&mut self, member: &Member<Life>, buf: impl BufMut) -> Result<(), CodecError> {
        let (identity, incarnation) = (member.id().identity(), member.incarnation());
        let member = WireMember { identity, incarnation, liveness: liveness(member.state()) };
        Self::put::<INNER_MEMBER_BYTES>(&member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Life>, CodecError> {
        let WireMember { identity, incarnation, liveness } =
            Self::get::<WireMember, INNER_MEMBER_BYTES>("swim member", buf)?;
        Ok(Member::new(identity.into(), incarnation, state(liveness)))
    }
}

/// A foca packet taken apart.
///
/// On the wire: the header, then members up to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<Member<Identity>>,
}

impl Packet {
    /// Takes apart what foca wrote.
    pub(super) fn from_inner(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let InnerHeader { src, src_incarnation, dst, message } =
            SwimCodec::get::<_, INNER_HEADER_BYTES>("swim header", &mut bytes)?;
        let header = Header { src, src_incarnation, dst, message: foca_message(message) };
        let mut updates = Vec::new();
        if bytes.len() > INNER_COUNT_BYTES {
            bytes.advance(INNER_COUNT_BYTES);
            updates.reserve(bytes.len() / INNER_MEMBER_BYTES);
            while !bytes.is_empty() {
                updates.push(SwimCodec::get::<WireMember, INNER_MEMBER_BYTES>("swim member", &mut bytes)?.into());
            }
        }
        Ok(Self { header, updates })
    }

    /// The header alone, as foca reads it.
    pub(super) fn inner_header(header: &Header<Identity>) -> Result<Vec<u8>, CodecError> {
        let Header { src, src_incarnation, dst, message } = header;
        let message = wire_message(message, |identity| *identity);
        let inner = InnerHeader { src: *src, src_incarnation: *src_incarnation, dst: *dst, message };
        let mut out = Vec::with_capacity(INNER_HEADER_BYTES);
        SwimCodec::put::<INNER_HEADER_BYTES>(&inner, &mut out)?;
        Ok(out)
    }

    /// Reads what `sender` wrote to `me`; custom broadcasts, which we do not use, are refused.
    pub(super) fn from_wire(bytes: &[u8], sender: NodeId, me: Identity) -> Result<Self, DecodeError> {
        const WHAT: &str = "swim packet";
        let (header, used) = codec::decode_prefix::<WireHeader, DATAGRAM_LIMIT>("swim header", bytes)?;
        let WireHeader { src_generation, src_addr, src_incarnation, dst_generation, message } = header;
        let header = Header {
            src: Identity { id: sender, generation: src_generation, addr: src_addr },
            src_incarnation,
            dst: Identity { generation: dst_generation, ..me },
            message: foca_message(message),
        };
        let mut rest = bytes.get(used..).unwrap_or_default();
        let mut updates = Vec::with_capacity(rest.len() / 30);
        while !rest.is_empty() {
            let (member, used) = codec::decode_prefix::<WireMember, DATAGRAM_LIMIT>("swim member", rest)?;
            rest = rest.get(used..).unwrap_or_default();
            updates.push(member.into());
        }
        // foca takes no updates with these.
        let takes_no_updates = matches!(header.message, Message::Announce | Message::TurnUndead | Message::Broadcast);
        if takes_no_updates && !updates.is_empty() {
            return Err(DecodeError::Invalid(WHAT));
        }
        Ok(Self { header, updates })
    }

    /// The bytes for the wire, with as many updates as fit into `cap`.
    pub(super) fn to_wire(&self, cap: usize) -> Vec<u8> {
        let Header { src, src_incarnation, dst, message } = &self.header;
        let header = WireHeader {
            src_generation: src.generation,
            src_addr: src.addr,
            src_incarnation: *src_incarnation,
            dst_generation: dst.generation,
            message: wire_message(message, |identity| *identity),
        };
        let mut out = Vec::with_capacity(64 + 32 * self.updates.len());
        codec::encode_into(&header, &mut out);
        for update in &self.updates {
            let len = out.len();
            codec::encode_into(&WireMember::from(update), &mut out);
            if out.len() > cap {
                out.truncate(len);
                break;
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

    fn identity(n: u8) -> Identity {
        Identity { id: NodeId::from_bytes([n; 16]), generation: 1_700_000_000, addr: ([10, 0, 0, n], 7946).into() }
    }

    fn longest() -> Identity {
        let addr = (std::net::Ipv6Addr::from_bits(u128::MAX), u16::MAX).into();
        Identity { id: NodeId::from_bytes([255; 16]), generation: u64::MAX, addr }
    }

    /// As foca has it.
    fn foca_header(header: &Header<Identity>) -> Header<Life> {
        let Header { src, src_incarnation, dst, message } = header;
        let message = foca_message(wire_message(message, |identity| *identity));
        Header { src: (*src).into(), src_incarnation: *src_incarnation, dst: (*dst).into(), message }
    }

    fn messages(of: Identity) -> Vec<Message<Identity>> {
        vec![
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: of, probe_number: 3 },
            Message::IndirectPing { origin: of, probe_number: 4 },
            Message::IndirectAck { target: of, probe_number: 5 },
            Message::ForwardedAck { origin: of, probe_number: 6 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ]
    }

    #[test]
    fn every_message_round_trips_in_both_forms_and_the_longest_fits() {
        for of in [identity(3), longest()] {
            for message in messages(of) {
                let header = Header { src: of, src_incarnation: u16::MAX, dst: longest(), message };
                let mut bytes = Vec::new();
                let inner = foca_header(&header);
                SwimCodec.encode_header(&inner, &mut bytes).unwrap();
                assert_eq!(bytes, Packet::inner_header(&header).unwrap());
                assert_eq!(bytes.len(), INNER_HEADER_BYTES);
                let mut rest = &bytes[..];
                assert_eq!(SwimCodec.decode_header(&mut rest).unwrap(), inner);
                assert!(rest.is_empty(), "exactly one item is consumed");
                let packet = Packet { header, updates: Vec::new() };
                assert_eq!(Packet::from_wire(&packet.to_wire(1_000), of.id, longest()).unwrap(), packet);
            }
            let member = Member::new(Life::from(of), u16::MAX, State::Down);
            let mut bytes = Vec::new();
            SwimCodec.encode_member(&member, &mut bytes).unwrap();
            assert_eq!(bytes.len(), INNER_MEMBER_BYTES);
            assert_eq!(SwimCodec.decode_member(&bytes[..]).unwrap(), member);
        }
    }

    #[test]
    fn golden_ping_and_member() {
        let header = Header { src: identity(1), src_incarnation: 0, dst: identity(2), message: Message::Ping(7) };
        let packet = Packet { header, updates: vec![Member::new(identity(3), 300, State::Suspect)] };
        let hex: String = packet.to_wire(1_000).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "fc00f15365",
                "000a000001fb0a1f",
                "00",
                "fc00f15365",
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
        let member = Member::alive(Life::from(identity(1)));
        for room in 0..INNER_MEMBER_BYTES {
            let mut buf = Vec::with_capacity(64).limit(room);
            assert!(SwimCodec.encode_member(&member, &mut buf).is_err(), "{room}");
            assert!(buf.get_ref().is_empty());
        }
    }

    #[test]
    fn the_wire_takes_as_many_updates_as_fit() {
        let header = Header { src: identity(1), src_incarnation: 0, dst: identity(2), message: Message::Gossip };
        let updates: Vec<_> = (3..30).map(|n| Member::alive(identity(n))).collect();
        let packet = Packet { header, updates };
        let all = packet.to_wire(usize::MAX);
        assert_eq!(Packet::from_wire(&all, identity(1).id, identity(2)).unwrap(), packet);
        let some = packet.to_wire(all.len() - 1);
        let some = Packet::from_wire(&some, identity(1).id, identity(2)).unwrap();
        assert_eq!(some.updates, packet.updates[..26]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Packet::from_wire(&bytes, identity(1).id, identity(2));
            let _ = Packet::from_inner(&bytes);
        }
    }
}
