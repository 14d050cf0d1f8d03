//! A member lives where another one was before.

use super::*;

/// What an earlier installation of this node's machine is to those that have not heard of its end.
fn predecessor(generation: u64) -> Identity {
    Identity { id: id(3), generation, addr: addr(1) }
}

#[test]
fn whoever_was_at_this_address_before_is_gone_however_it_is_heard_of() {
    let earlier = predecessor(identity(1).generation - 1);
    let told_down = |pair: &mut Pair, effects: Vec<Effect>| {
        assert_eq!(pair.status(3), Some(Status::Down));
        let later = Now { mono_us: NOW.mono_us + 100_000, unix_ms: NOW.unix_ms + 100 };
        pair.node.handle_timeout(later);
        let sent = effects.into_iter().chain(drain(&mut pair.node));
        let payloads = sent.filter_map(|effect| match effect {
            Effect::Send { mut bytes, .. } => pair.member.open(&mut bytes).ok().map(|opened| opened.payload.to_vec()),
            _ => None,
        });
        let told = payloads.flat_map(|payload| {
            let packets = sections(&payload).unwrap().into_iter().filter_map(|section| match section {
                Section::Swim(bytes) => Packet::from_wire(bytes, id(1), identity(2)).ok(),
                _ => None,
            });
            packets.flat_map(|packet| packet.updates).collect::<Vec<_>>()
        });
        assert!(told.into_iter().any(|update| update == Update::new(earlier, 0, State::Down)));
    };
    let mut pair = Pair::new();
    let effects = pair.gossip(&[Update::new(earlier, 0, State::Alive)]);
    told_down(&mut pair, effects);
    let mut pair = Pair::new();
    let entry = MemberEntry { generation: earlier.generation, addr: earlier.addr, ..entry(3, Liveness::Alive) };
    let push = Request::Push { members: vec![entry] }.to_bytes();
    pair.node.handle_request(NOW, Peer { id: id(2), role: Role::Worker }, &push).unwrap();
    let effects = drain(&mut pair.node);
    told_down(&mut pair, effects);
}

#[test]
fn nobody_is_gone_for_sharing_an_address_with_this_node_unless_it_was_there_first() {
    let mut pair = Pair::new();
    pair.gossip(&[Update::new(predecessor(identity(1).generation), 0, State::Alive)]);
    assert_eq!(pair.status(3), Some(Status::Ready));
    // A node that moves while it runs may be faster than the news of who has moved away.
    let mut pair = Pair::new();
    pair.node.handle_command(NOW, Command::Readdress(addr(9)));
    drain(&mut pair.node);
    let there = Identity { id: id(3), generation: identity(1).generation - 1, addr: addr(9) };
    let mut told = Writer::new(4_000);
    let header = Header { src: identity(2), src_incarnation: 0, dst: pair.node.identity(), message: Message::Gossip };
    assert!(told.swim(&Packet { header, updates: vec![Update::new(there, 0, State::Alive)] }.to_wire(usize::MAX)));
    pair.hear(&told.finish());
    assert_eq!(pair.status(3), Some(Status::Ready));
}

#[test]
fn whoever_left_from_this_address_has_left_for_those_too_that_have_missed_it() {
    let earlier = predecessor(identity(1).generation - 1);
    let version = Version { generation: earlier.generation, seq: 2 };
    let goodbye = NodeRecord { left: true, started_generation: earlier.generation, ..record(3) };
    let record = Some(RecordEnvelope::new(id(3), version, &goodbye));
    let Identity { id, generation, addr } = earlier;
    let mut pair =
        Pair::told_of(vec![MemberEntry { id, generation, addr, incarnation: 0, liveness: Liveness::Down, record }]);
    assert_eq!(pair.status(3), Some(Status::Left));
    let answers = pair.gossip(&[Update::new(earlier, 0, State::Alive)]);
    let told = answers.into_iter().flat_map(|effect| match effect {
        Effect::Send { mut bytes, .. } => {
            let payload = pair.member.open(&mut bytes).unwrap().payload;
            let told = sections(payload).unwrap().into_iter().filter_map(|section| match section {
                Section::Records(records) => Some(records),
                _ => None,
            });
            told.flatten().map(|record| record.owner).collect()
        }
        _ => Vec::new(),
    });
    assert_eq!(told.collect::<Vec<_>>(), [earlier.id]);
    assert_eq!(pair.status(3), Some(Status::Left));
}
