//! What a member that turned bad can say, and what comes of it: nothing that lasts.

mod cas;
mod greetings;
mod heirs;

use foca::{Header, Member as Update, Message, State};

use super::codec::Packet;
use super::*;
use crate::ca::fixture;
use crate::record::{Availability, ClusterId, Details, Role, Status};
use crate::wire::Keyring;
use crate::wire::credential::{Anchors, ca_tag};
use crate::wire::datagram::{Check, Doubt, Section, Testimony, Writer, sections};
use crate::wire::exam::Exam;
use crate::wire::exchange::{Liveness, MemberEntry, Reply, Request};

const NOW: Now = Now { mono_us: 1_000_000, unix_ms: 1_700_000_000_000 };

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn addr(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 7946).into()
}

fn identity(n: u8) -> Identity {
    Identity { id: id(n), generation: 1_700_000_000, addr: addr(n) }
}

fn cluster() -> ClusterId {
    ClusterId::from_bytes([9; 16])
}

fn ring() -> Keyring {
    Keyring::new(1, [(1, [7; 32])]).unwrap()
}

fn record(n: u8) -> NodeRecord {
    NodeRecord {
        hostname: format!("n{n}"),
        role: Role::Worker,
        availability: Availability::Active,
        data_path_addr: addr(n).ip(),
        agent_version: "1".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        joined_at_ms: 0,
        started_generation: 1_700_000_000,
        left: false,
        away_s: 0,
        details: Details::default(),
    }
}

/// Node 1, and node 2's end of the channel: a real member, free to say what it likes.
struct Pair {
    node: Node,
    member: Channel,
}

impl Pair {
    /// Node 1 has joined through node 2.
    fn new() -> Self {
        Self::told_of(Vec::new())
    }

    /// Node 1 has joined through node 2, which told it of others.
    fn told_of(others: Vec<MemberEntry>) -> Self {
        let start = Start {
            cluster: cluster(),
            id: id(1),
            generation: identity(1).generation,
            addr: addr(1),
            record: record(1),
            keyring: ring(),
            anchors: fixture::anchor(cluster(), NOW.unix_ms).into(),
            credential: fixture::credential(cluster(), id(1), Role::Manager, NOW.unix_ms),
            decisions: Vec::new(),
            tables: Vec::new(),
            seed: [1; 32],
            contacts: vec![addr(2)],
            config: Config::lan(),
        };
        let mut node = Node::new(start, NOW);
        node.handle_timeout(NOW);
        let sync = drain(&mut node).into_iter().find_map(|effect| match effect {
            Effect::Exchange { id, .. } => Some(id),
            _ => None,
        });
        let members = Some([vec![entry(2, Liveness::Alive)], others].concat());
        let reply = Reply::State { members, decisions: [0; 16], tables: [0; 16] }.to_bytes();
        node.handle_reply(NOW, sync.unwrap(), Ok((Peer { id: id(2), role: Role::Worker }, &reply)));
        drain(&mut node);
        assert!(node.is_joined());
        Self { node, member: Channel::new(cluster(), id(2), ring(), [2; 32]) }
    }

    /// Node 2 sends a payload; the effects.
    fn hear(&mut self, payload: &[u8]) -> Vec<Effect> {
        let mut datagram = self.member.seal(id(1), payload).unwrap();
        self.node.handle_datagram(NOW, &mut datagram);
        assert_eq!(self.node.mirror_errors(), [""; 0]);
        drain(&mut self.node)
    }

    fn gossip(&mut self, updates: &[Update<Identity>]) -> Vec<Effect> {
        self.hear(&swim(Message::Gossip, updates))
    }

    fn drops(&self, cause: DropCause) -> u64 {
        self.node.stats().drops().find(|(found, _)| *found == cause).unwrap().1
    }

    fn status(&self, n: u8) -> Option<Status> {
        self.node.members().iter().find(|member| member.swim.identity.id == id(n)).map(|member| member.status)
    }
}

fn drain(node: &mut Node) -> Vec<Effect> {
    std::iter::from_fn(|| node.poll_effect()).collect()
}

fn sends(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count()
}

fn entry(n: u8, liveness: Liveness) -> MemberEntry {
    let Identity { id, generation, addr } = identity(n);
    let version = Version { generation, seq: 1 };
    let record = Some(RecordEnvelope::new(id, version, &record(n)));
    MemberEntry { id, generation, addr, incarnation: 0, liveness, record }
}

fn packet(message: Message<Identity>, updates: &[Update<Identity>]) -> Vec<u8> {
    let header = Header { src: identity(2), src_incarnation: 0, dst: identity(1), message };
    Packet { header, updates: updates.to_vec() }.to_wire(usize::MAX)
}

fn swim(message: Message<Identity>, updates: &[Update<Identity>]) -> Vec<u8> {
    let mut writer = Writer::new(4_000);
    assert!(writer.swim(&packet(message, updates)));
    writer.finish()
}

#[test]
fn a_suspicion_that_leaves_nothing_to_refute_with_is_answered_by_a_stored_generation() {
    let mut pair = Pair::new();
    let before = pair.node.identity().generation;
    let effects = pair.gossip(&[Update::new(identity(1), u16::MAX, State::Suspect)]);
    let stored = effects.iter().position(|effect| *effect == Effect::PersistGeneration(before + 1));
    let sent = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
    assert_eq!(pair.node.identity().generation, before + 1);
    assert!(stored.is_some() && stored < sent, "{stored:?} {sent:?}");
    assert_eq!(pair.node.stats().renewals, 1);
}

#[test]
fn no_forged_number_poisons_a_node() {
    let mut pair = Pair::new();
    let far = Identity { generation: u64::MAX, ..identity(1) };
    pair.gossip(&[Update::new(far, 0, State::Alive), Update::new(far, 0, State::Down)]);
    assert_eq!(pair.node.identity(), identity(1));
    let poisoned = Identity { generation: u64::MAX, ..identity(3) };
    pair.gossip(&[Update::new(poisoned, 0, State::Alive)]);
    assert_eq!(pair.status(3), None);
    assert_eq!(pair.node.stats().updates_refused, 3);
    // The same by a push, and by a record.
    let entry = MemberEntry { generation: u64::MAX, ..entry(3, Liveness::Alive) };
    let push = Request::Push { members: vec![entry] }.to_bytes();
    pair.node.handle_request(NOW, Peer { id: id(2), role: Role::Worker }, &push).unwrap();
    assert_eq!(pair.status(3), None);
    let mut writer = Writer::new(1_000);
    let goodbye = NodeRecord { left: true, ..record(2) };
    for version in [Version { generation: u64::MAX, seq: 1 }, Version { generation: 1_700_000_000, seq: u64::MAX }] {
        let forged = RecordEnvelope::new(id(2), version, &goodbye);
        assert_eq!(writer.records(std::iter::once(&forged)), 1);
        pair.hear(&std::mem::replace(&mut writer, Writer::new(1_000)).finish());
    }
    assert_eq!(pair.status(2), Some(Status::Ready));
    assert_eq!(pair.node.stats().records_refused, 2);
}

#[test]
fn who_was_forgotten_stays_forgotten() {
    let mut pair = Pair::new();
    pair.gossip(&[Update::new(identity(3), 0, State::Down)]);
    let push = Request::Push { members: vec![entry(3, Liveness::Down)] }.to_bytes();
    pair.node.handle_request(NOW, Peer { id: id(2), role: Role::Worker }, &push).unwrap();
    assert_eq!(pair.status(3), None);
    // Known ones do go down.
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    pair.gossip(&[Update::new(identity(3), 0, State::Down)]);
    assert_eq!(pair.status(3), Some(Status::Down));
}

#[test]
fn past_retention_a_node_is_forgotten_by_foca_too() {
    let mut pair = Pair::new();
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    pair.gossip(&[Update::new(identity(3), 0, State::Down)]);
    let later_s = Config::lan().down_retention_s + 20;
    let later = Now { mono_us: NOW.mono_us + later_s * 1_000_000, unix_ms: NOW.unix_ms + later_s * 1_000 };
    pair.node.handle_timeout(later);
    assert_eq!(pair.status(3), None);
    assert_eq!(pair.node.mirror_errors(), [""; 0]);
}

#[test]
fn what_foca_would_refuse_does_not_reach_the_table() {
    let mut pair = Pair::new();
    let news = [Update::new(identity(3), 0, State::Alive)];
    for message in [Message::Announce, Message::Broadcast, Message::TurnUndead] {
        pair.hear(&swim(message, &news));
    }
    assert_eq!(pair.drops(DropCause::Malformed), 3);
    assert_eq!(pair.node.members().len(), 2);
    // More than foca itself would write.
    let many: Vec<_> = (3..37).map(|n| Update::new(identity(n), 0, State::Alive)).collect();
    pair.hear(&swim(Message::Gossip, &many));
    assert_eq!(pair.node.members().len(), 36);
}

#[test]
fn one_datagram_draws_few_answers() {
    let mut pair = Pair::new();
    let mut writer = Writer::new(1_100);
    for _ in 0..32 {
        writer.want([id(1)].into_iter());
    }
    assert_eq!(sends(&pair.hear(&writer.finish())), 0);
    assert_eq!(pair.drops(DropCause::Malformed), 1);
    let mut writer = Writer::new(1_100);
    writer.want([id(1)].into_iter());
    let effects = pair.hear(&writer.finish());
    assert_eq!(sends(&effects), 1);
    let Some(Effect::Send { to, bytes }) = effects.into_iter().next() else { panic!("no datagram") };
    assert_eq!(to, addr(2));
    let mut bytes = bytes;
    let opened = pair.member.open(&mut bytes).unwrap();
    let told = sections(opened.payload).unwrap();
    assert!(matches!(&told[..], [Section::Records(records)] if records.len() == 1 && records[0].owner == id(1)));
}

#[test]
fn a_record_of_a_later_format_is_kept_and_passed_on() {
    let mut pair = Pair::new();
    let later = RecordEnvelope {
        owner: id(2),
        version: Version { generation: 1_700_000_000, seq: 5 },
        body: vec![200, 0xff, 0xff, 0xff],
    };
    let mut writer = Writer::new(1_100);
    writer.records(std::iter::once(&later));
    pair.hear(&writer.finish());
    assert_eq!(pair.node.stats().records_refused, 0);
    let held = pair.node.entries().into_iter().find(|entry| entry.id == id(2)).unwrap();
    assert_eq!(held.record, Some(later));
}

#[test]
fn another_member_may_not_speak_for_the_asker() {
    let mut pair = Pair::new();
    let sync = Request::Sync { me: Box::new(entry(3, Liveness::Alive)), members: None, decisions: [0; 16] }.to_bytes();
    assert!(pair.node.handle_request(NOW, Peer { id: id(2), role: Role::Worker }, &sync).is_err());
    assert_eq!(pair.status(3), None);
}

fn check(check: Check) -> Vec<u8> {
    let mut writer = Writer::new(1_000);
    assert!(writer.check(&check));
    writer.finish()
}

impl Pair {
    /// What node 1 has sent to node 2 among `effects`, opened.
    fn checks_to_member(&mut self, effects: Vec<Effect>) -> Vec<Check> {
        let mut found = Vec::new();
        for effect in effects {
            let Effect::Send { to, mut bytes } = effect else { continue };
            if to != addr(2) {
                continue;
            }
            let opened = self.member.open(&mut bytes).unwrap();
            for section in sections(opened.payload).unwrap() {
                if let Section::Check(check) = section {
                    found.push(check);
                }
            }
        }
        found
    }
}

#[test]
fn nobody_is_asked_at_an_address_that_it_did_not_give() {
    let mut pair = Pair::new();
    let generation = identity(3).generation;
    let ask = Check::Ask { nonce: 1, subject: id(3), generation, doubt: None, window_ms: 100 };
    assert_eq!(pair.hear(&check(ask)), [], "the subject is unknown");
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    let asked = pair.hear(&check(ask));
    assert!(matches!(&asked[..], [Effect::Send { to, .. }] if *to == addr(3)), "{asked:?}");
    assert_eq!(pair.hear(&check(ask)), [], "the same question twice is one errand");
}

#[test]
fn a_witness_says_at_once_what_it_knows_already() {
    let mut pair = Pair::new();
    let generation = identity(3).generation;
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    let ask = |nonce, subject, generation| Check::Ask { nonce, subject, generation, doubt: None, window_ms: 100 };
    let effects = pair.hear(&check(ask(1, id(1), identity(1).generation)));
    let heard = Testimony::Heard { generation, incarnation: 0 };
    assert_eq!(pair.checks_to_member(effects), [Check::Tell { nonce: 1, testimony: heard }], "about itself");
    let effects = pair.hear(&check(ask(2, id(3), generation - 1)));
    assert_eq!(pair.checks_to_member(effects), [Check::Tell { nonce: 2, testimony: heard }], "of a later life");
    pair.gossip(&[Update::new(identity(3), 0, State::Down)]);
    let effects = pair.hear(&check(ask(3, id(3), generation)));
    let silent = Check::Tell { nonce: 3, testimony: Testimony::Silent };
    assert_eq!(pair.checks_to_member(effects), [silent], "down already");
}

#[test]
fn a_witness_passes_on_a_refutation_that_the_asker_has_not_heard() {
    let mut pair = Pair::new();
    let generation = identity(3).generation;
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    let doubt = Some(Doubt { generation, incarnation: 0 });
    let ask = |nonce| check(Check::Ask { nonce, subject: id(3), generation, doubt, window_ms: 100 });
    let effects = pair.hear(&ask(1));
    assert_eq!(pair.checks_to_member(effects), [], "it has to ask first");
    pair.gossip(&[Update::new(identity(3), 1, State::Alive)]);
    let refuted = |nonce| [Check::Tell { nonce, testimony: Testimony::Heard { generation, incarnation: 1 } }];
    let effects = pair.hear(&ask(2));
    assert_eq!(pair.checks_to_member(effects), refuted(2), "to another question at once");
    let soon = Now { mono_us: NOW.mono_us + 20_000, ..NOW };
    pair.node.handle_timeout(soon);
    let effects = drain(&mut pair.node);
    assert!(pair.checks_to_member(effects).ends_with(&refuted(1)), "and to the one that is under way");
}

#[test]
fn a_new_life_of_the_same_process_was_declared_down_falsely() {
    let mut pair = Pair::new();
    let mut renew = |seq: u64, started_generation: u64| {
        let renewed = Identity { generation: identity(2).generation + seq, ..identity(2) };
        pair.gossip(&[Update::new(renewed, 0, State::Alive)]);
        let version = Version { generation: renewed.generation, seq: 1 };
        let mut writer = Writer::new(1_000);
        writer.records(
            [&RecordEnvelope::new(id(2), version, &NodeRecord { started_generation, ..record(2) })].into_iter(),
        );
        pair.hear(&writer.finish());
        pair.node.table.errors_about(id(2), NOW.mono_us)
    };
    let first = identity(2).generation;
    assert_eq!(renew(1, first + 1), 0, "it was started again");
    assert_eq!(renew(2, first + 1), 3);
    assert_eq!(renew(3, first + 1), 3);
}

#[test]
fn an_answer_tells_the_life_and_refutes_a_doubt_about_it() {
    let mut pair = Pair::new();
    let Identity { generation, .. } = identity(1);
    let effects = pair.hear(&check(Check::Ping { nonce: 7, doubt: None }));
    assert_eq!(pair.checks_to_member(effects), [Check::Pong { nonce: 7, generation, incarnation: 0 }]);
    let doubt = Some(Doubt { generation, incarnation: 0 });
    let effects = pair.hear(&check(Check::Ping { nonce: 8, doubt }));
    let answers = pair.checks_to_member(effects);
    assert_eq!(answers, [Check::Pong { nonce: 8, generation, incarnation: 1 }]);
    let doubt = Some(Doubt { generation: generation - 1, incarnation: 1 });
    let effects = pair.hear(&check(Check::Ping { nonce: 9, doubt }));
    let answers = pair.checks_to_member(effects);
    assert_eq!(answers, [Check::Pong { nonce: 9, generation, incarnation: 1 }], "an earlier life is not this one");
}

#[test]
fn a_node_held_for_down_takes_a_new_life_once() {
    let mut pair = Pair::new();
    let generation = identity(1).generation;
    pair.hear(&check(Check::HeldDown { generation: generation - 1 }));
    assert_eq!(pair.node.identity().generation, generation, "that was another life");
    pair.hear(&check(Check::HeldDown { generation }));
    assert!(pair.node.identity().generation > generation);
    let renewed = pair.node.identity();
    pair.hear(&check(Check::HeldDown { generation }));
    assert_eq!(pair.node.identity(), renewed);
}

#[test]
fn whoever_may_not_renew_does_not_argue() {
    let mut pair = Pair::new();
    let turn_undead = |node: &Node| {
        let header =
            Header { src: identity(2), src_incarnation: 0, dst: node.identity(), message: Message::TurnUndead };
        let mut writer = Writer::new(1_000);
        assert!(writer.swim(&Packet { header, updates: Vec::new() }.to_wire(1_000)));
        writer.finish()
    };
    let exchanges = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Exchange { .. })).count();
    let mut renewals = 0;
    for _ in 0..100 {
        let payload = turn_undead(&pair.node);
        let effects = pair.hear(&payload);
        let has_renewed = pair.node.stats().renewals > renewals;
        renewals = pair.node.stats().renewals;
        // The exchange ends in an announcement, to which another "you are down" is the answer.
        assert_eq!(exchanges(&effects), usize::from(has_renewed));
        assert!(has_renewed || effects.is_empty(), "{effects:?}");
    }
    assert!((1..100).contains(&renewals), "{renewals}");
}

#[test]
fn a_late_node_is_no_witness_and_says_that_it_is_slow() {
    let mut pair = Pair::new();
    pair.gossip(&[Update::new(identity(3), 0, State::Alive)]);
    let due_us = pair.node.next_timeout_us().unwrap();
    pair.node.handle_timeout(Now { mono_us: due_us + 3_000_000, ..NOW });
    drain(&mut pair.node);
    assert_eq!(pair.node.health().reasons, [Degraded::Slow]);
    let generation = identity(3).generation;
    let ask = Check::Ask { nonce: 1, subject: id(3), generation, doubt: None, window_ms: 100 };
    assert_eq!(pair.hear(&check(ask)), []);
}

#[test]
fn whoever_announces_an_absence_is_not_inquired_about() {
    let mut pair = Pair::new();
    let version = Version { generation: identity(2).generation, seq: 2 };
    let away = RecordEnvelope::new(id(2), version, &NodeRecord { away_s: 10, ..record(2) });
    let mut writer = Writer::new(1_000);
    writer.records(std::iter::once(&away));
    pair.hear(&writer.finish());
    pair.node.handle_refused(NOW, addr(2));
    assert_eq!(pair.node.stats().inquiries, 0);
    let later = Now { mono_us: NOW.mono_us + 10_000_001, ..NOW };
    pair.node.handle_refused(later, addr(2));
    assert_eq!(pair.node.stats().inquiries, 1);
}

/// Sizes of the datagrams that node 1 sends to node 2.
fn sizes(effects: &[Effect]) -> Vec<usize> {
    let size = |effect: &Effect| match effect {
        Effect::Send { to, bytes } if *to == addr(2) => Some(bytes.len()),
        _ => None,
    };
    effects.iter().filter_map(size).collect()
}

fn probe(nonce: u32, size: usize) -> Vec<u8> {
    let mut writer = Writer::new(1_152);
    assert!(writer.exam(&Exam::Probe { nonce, round: 0 }, size));
    writer.finish()
}

#[test]
fn a_probe_draws_its_own_size_and_a_short_datagram() {
    let mut pair = Pair::new();
    let effects = pair.hear(&probe(1, 0));
    assert_eq!(sizes(&effects).len(), 1);
    assert!(sizes(&effects)[0] < 100, "{effects:?}");
    let calls = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Exchange { .. })).count();
    assert_eq!(calls(&effects), 1, "the examiner is called");
    let effects = pair.hear(&probe(1, 1_152));
    assert!(matches!(sizes(&effects)[..], [short, 1_200] if short < 100), "{effects:?}");
    // Neither more of it nor another examination makes it call again at once.
    assert_eq!(calls(&effects) + calls(&pair.hear(&probe(2, 0))), 0);
}

#[test]
fn an_examination_is_one_at_a_time_and_ends_by_itself() {
    let mut pair = Pair::new();
    let examine = |nonce| Command::Examine { nonce, nodes: vec![id(2), id(9)], window_ms: 1_000 };
    pair.node.handle_command(NOW, examine(1));
    pair.node.handle_command(NOW, examine(2));
    assert_eq!(pair.node.examination(2), None);
    assert!(matches!(sizes(&drain(&mut pair.node))[..], [short, 1_200] if short < 100));
    let (found, is_over) = pair.node.examination(1).unwrap();
    assert_eq!((found.len(), is_over), (0, false));
    let mut now = NOW;
    let mut told = Vec::new();
    while now.mono_us < NOW.mono_us + 1_200_000 {
        now.mono_us = pair.node.next_timeout_us().unwrap().max(now.mono_us);
        pair.node.handle_timeout(now);
        told.extend(drain(&mut pair.node));
    }
    assert!(told.contains(&Effect::Event(Event::Examined { nonce: 1 })));
    let (found, is_over) = pair.node.examination(1).unwrap();
    // Whoever is unknown is passed over.
    assert_eq!((found.keys().copied().collect::<Vec<_>>(), is_over), (vec![id(2)], true));
    assert_eq!(found[&id(2)].view, None);
    pair.node.handle_command(now, examine(3));
    assert!(pair.node.examination(3).is_some());
}
