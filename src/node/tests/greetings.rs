//! What a member says of what it knows, hashed, and what that draws.

use super::*;
use crate::wire::datagram::Hello;

const PING: Message<Identity> = Message::Ping(1);

/// A greeting with a digest over members, or over tables, that may be wrong.
fn greeting(pair: &Pair, message: Option<Message<Identity>>, is_right: (bool, bool)) -> Vec<u8> {
    let mut writer = Writer::new(1_152);
    if let Some(message) = message {
        assert!(writer.swim(&packet(message, &[])));
    }
    let mut hello = pair.node.hello(NOW);
    if !is_right.0 {
        hello.digest[0] ^= 1;
    }
    assert!(writer.hello(&hello));
    if !is_right.1 {
        assert!(writer.tables([7; 8]));
    }
    writer.finish()
}

impl Pair {
    /// The greetings among the effects.
    fn greetings(&mut self, effects: Vec<Effect>) -> Vec<Hello> {
        let payloads = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { mut bytes, .. } => Some(self.member.open(&mut bytes).unwrap().payload.to_vec()),
            _ => None,
        });
        let hellos = payloads.flat_map(|payload| {
            let hellos = sections(&payload).unwrap().into_iter().filter_map(|section| match section {
                Section::Hello(hello) => Some(hello),
                _ => None,
            });
            hellos.collect::<Vec<_>>()
        });
        hellos.collect()
    }

    fn greeted(&mut self, message: Option<Message<Identity>>, is_right: (bool, bool)) -> usize {
        let payload = greeting(self, message, is_right);
        let effects = self.hear(&payload);
        self.greetings(effects).len()
    }
}

#[test]
fn a_greeting_that_differs_is_answered_and_an_answer_is_not() {
    let mut pair = Pair::new();
    assert_eq!(pair.greeted(Some(PING), (true, true)), 0);
    assert_eq!(pair.greeted(Some(PING), (false, true)), 1);
    assert_eq!(pair.greeted(Some(PING), (true, false)), 1);
    assert_eq!(pair.greeted(None, (false, false)), 0);
    let stats = pair.node.stats();
    let received = |kind| stats.received().find(|(found, _)| *found == kind).map(|(_, traffic)| traffic.datagrams);
    assert_eq!([Kind::Probe, Kind::Tables, Kind::Records].map(received), [Some(3), Some(1), Some(0)]);
}

#[test]
fn a_difference_of_tables_is_compared_though_nobody_greets_again() {
    let compared_after_ms = |pair: &mut Pair| {
        let is_compared = |effect: &Effect| {
            matches!(effect, Effect::Exchange { request, .. } if matches!(
                Request::from_bytes(request), Ok(Request::Tables(_))
            ))
        };
        (0..2_000).step_by(100).find(|ms| {
            pair.node.handle_timeout(Now { mono_us: NOW.mono_us + ms * 1_000, unix_ms: NOW.unix_ms + ms });
            drain(&mut pair.node).iter().any(is_compared)
        })
    };
    let mut pair = Pair::new();
    pair.greeted(None, (true, false));
    assert_eq!(compared_after_ms(&mut pair), Some(800));
    let mut pair = Pair::new();
    pair.greeted(None, (true, false));
    pair.greeted(None, (true, true));
    assert_eq!(compared_after_ms(&mut pair), None, "it has arrived");
}
