//! The tables of a few nodes in scenes that have a name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::tests::{id, net, node};
use super::*;
use crate::record::network::EndpointId;
use crate::record::network::tests::web;
use crate::wire::codec;
use crate::wire::table::{TableReply, TableRequest};

const GENERATION: u64 = 100;

/// One that knows `count` nodes and is attached to network 1.
fn tables(me: usize, count: usize) -> Tables {
    let mut tables = Tables::new(node(me));
    (0..count).for_each(|n| tables.know(node(n)));
    attach(&mut tables, GENERATION);
    tables
}

fn attach(tables: &mut Tables, generation: u64) -> Arc<Step> {
    let vtep = ([10, 130, 0, 1].into(), None);
    tables.attach(generation, net(1), "front".to_owned(), vtep).unwrap().news.remove(0)
}

fn set(tables: &mut Tables, key: u8, endpoint: Endpoint) -> Arc<Step> {
    tables.set_endpoints(GENERATION, net(1), [(id(key), Some(endpoint))]).unwrap().news.remove(0)
}

fn hear(tables: &mut Tables, step: &Step) -> Outcome {
    tables.apply(Source::Relay, step.clone()).unwrap()
}

fn whole(tables: &Tables, scope: Scope) -> Step {
    tables.step(scope, tables.me, Version::NONE).unwrap()
}

fn shown(tables: &Tables) -> Vec<(NodeId, EndpointId)> {
    tables.endpoints(net(1)).map(|(name, _)| (name.owner, name.id)).collect()
}

const NET: fn() -> Scope = || Scope::Network(net(1));

#[test]
fn endpoints_that_come_before_their_owners_attachment_are_shown_with_it() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    let digest = reader.digest(NET());
    let step = set(&mut owner, 1, web(5));
    assert_eq!(hear(&mut reader, &step).changes, []);
    assert_eq!((shown(&reader), reader.digest(NET())), (vec![], digest));
    let outcome = hear(&mut reader, &whole(&owner, Scope::Attachments));
    assert!(matches!(outcome.changes.as_slice(), [Changed::Attachment { .. }, Changed::Endpoint { .. }]));
    assert_eq!(shown(&reader), [(node(0), id(1))]);
    assert_eq!(reader.digest(NET()), owner.digest(NET()));
}

#[test]
fn what_never_gets_its_attachment_is_dropped_and_comes_again_when_it_does() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    let step = set(&mut owner, 1, web(5));
    hear(&mut reader, &step);
    reader.tidy();
    assert_eq!(reader.usage().records, 1, "its own attachment");
    hear(&mut reader, &whole(&owner, Scope::Attachments));
    assert_ne!(reader.digest(NET()), owner.digest(NET()));
    hear(&mut reader, &whole(&owner, NET()));
    assert_eq!(shown(&reader), [(node(0), id(1))]);
}

#[test]
fn a_life_without_disk_ends_the_old_ones_endpoints_at_once() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    set(&mut owner, 1, web(5));
    hear(&mut reader, &whole(&owner, Scope::Attachments));
    hear(&mut reader, &whole(&owner, NET()));
    let old = whole(&owner, NET());
    // It is attached again: its attachment alone says that what was there is gone.
    let mut wiped = Tables::new(node(0));
    let outcome = hear(&mut reader, &attach(&mut wiped, GENERATION + 1));
    assert!(matches!(outcome.changes.as_slice(), [Changed::Endpoint { new: None, .. }, Changed::Attachment { .. }]));
    assert_eq!(hear(&mut reader, &old).changes, []);
    assert_eq!(shown(&reader), []);
    // Another has no network any more: it hears of its old attachment, and says that it has none.
    hear(&mut reader, &whole(&wiped, Scope::Attachments));
    let mut bare = Tables::new(node(0));
    bare.know(node(1));
    let listings = reader.differences(node(0), &bare.summaries(node(1)));
    let [(scope, heard)] = bare.resolve(&listings).foreign[..] else { panic!("{listings:?}") };
    let outcome = hear(&mut reader, &bare.reassert(GENERATION + 2, scope, heard).news[0]);
    assert!(matches!(outcome.changes.as_slice(), [Changed::Attachment { new: None, .. }]));
}

#[test]
fn nobody_else_writes() {
    let mut owner = tables(0, 2);
    let step = set(&mut owner, 1, web(5));
    let before = whole(&owner, NET());
    assert!(owner.apply(Source::Relay, (*step).clone()).unwrap().changes.is_empty(), "an echo");
    let forged =
        Step { lives: vec![Version { generation: GENERATION, seq: 9 }], since: Version::NONE, ..(*step).clone() };
    assert_eq!(owner.apply(Source::Relay, forged.clone()).unwrap_err(), Refused::Foreign);
    assert_eq!(whole(&owner, NET()), before);
    // Others may have believed it: everything is said again, above it.
    let again = owner.reassert(GENERATION, NET(), forged.to());
    assert_eq!(again.news[0].to(), Version { generation: GENERATION, seq: 10 });
    assert_eq!(again.news[0].changes, before.changes);
    assert!(owner.reassert(GENERATION, NET(), step.to()).news.is_empty());
}

#[test]
fn two_contents_under_one_version_are_settled_by_the_owner() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    set(&mut owner, 1, web(5));
    hear(&mut reader, &whole(&owner, Scope::Attachments));
    let true_word = whole(&owner, NET());
    let forged =
        Step { changes: vec![Change { key: id(7).into(), ..true_word.changes[0].clone() }], ..true_word.clone() };
    hear(&mut reader, &forged);
    assert_eq!(shown(&reader), [(node(0), id(7))]);
    let listings = owner.differences(node(1), &reader.summaries(node(0)));
    let resolved = reader.resolve(&listings);
    assert_eq!((resolved.disputed, resolved.wants), (vec![(NET(), node(0))], vec![]));
    hear(&mut reader, &true_word);
    assert_eq!(shown(&reader), [(node(0), id(7))], "a relay cannot settle it");
    reader.apply(Source::Owner, true_word).unwrap();
    assert_eq!(shown(&reader), [(node(0), id(1))]);
    assert_eq!(reader.digest(NET()), owner.digest(NET()));
}

#[test]
fn quotas_hold_for_owners_and_for_readers() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    let large = |n: u8| {
        let labels = [("a".to_owned(), "v".repeat(30_000)), ("b".to_owned(), "v".repeat(30_000))].into();
        Endpoint { labels, ..web(n) }
    };
    let body = Body::of_endpoint(&large(1)).unwrap();
    let most = OWNER_BYTES_MAX / body.as_bytes().len();
    let many = (0..most).map(|n| (id(u8::try_from(n).unwrap()), Some(large(1))));
    owner.set_endpoints(GENERATION, net(1), many).unwrap();
    let error = owner.set_endpoints(GENERATION, net(1), [(id(255), Some(large(2)))]).unwrap_err();
    assert_eq!(error.to_string(), "this node's records would have 8409395 bytes: at most 8388608 are allowed");
    // An owner that does not care is not believed, and not asked for that version again.
    let step = whole(&owner, NET());
    let greedy = |seq| {
        let more = Change { key: Key::MAX, body: Some(body.clone()) };
        let changes = step.changes.iter().cloned().chain([more]).collect();
        Step { lives: vec![Version { generation: GENERATION, seq }], changes, ..step.clone() }
    };
    hear(&mut reader, &whole(&owner, Scope::Attachments));
    assert_eq!(reader.apply(Source::Owner, greedy(9)).unwrap_err(), Refused::Quota);
    assert_eq!(shown(&reader), []);
    let mark =
        |seq| crate::wire::table::Mark { owner: node(0), version: Version { generation: GENERATION, seq }, hash: 1 };
    let listing =
        |seq| vec![crate::wire::table::Listing { scope: NET(), of: 1, parts: vec![0], marks: vec![mark(seq)] }];
    assert_eq!(reader.resolve(&listing(9)).wants, []);
    assert_eq!(reader.resolve(&listing(10)).wants.len(), 1);
    assert_eq!(reader.apply(Source::Owner, step).unwrap().changes.len(), most);
    let mut attach_to = |n: usize| {
        let network =
            NetworkId::from_bytes([u16::try_from(n).unwrap().to_be_bytes(); 8].as_flattened().try_into().unwrap());
        reader.attach(GENERATION, network, "n".to_owned(), ([10, 130, 0, 1].into(), None))
    };
    // One is there already.
    (1..ATTACHMENTS_MAX).for_each(|n| drop(attach_to(1_000 + n).unwrap()));
    let one_more = attach_to(0);
    assert_eq!(one_more.unwrap_err(), WriteError::TooManyNetworks);
}

#[test]
fn steps_that_wait_are_few() {
    let (mut owner, mut reader) = (tables(0, 2), tables(1, 2));
    set(&mut owner, 0, web(5));
    let steps: Vec<_> = (1..=100).map(|n| set(&mut owner, n, web(n))).collect();
    for step in &steps {
        assert!(hear(&mut reader, step).is_behind);
    }
    assert_eq!(reader.parked(), PARKED_PER_TABLE_MAX);
    hear(&mut reader, &whole(&owner, NET()));
    assert_eq!(reader.parked(), 0);
}

#[test]
fn an_address_has_one_holder_everywhere() {
    let (mut one, mut two) = (tables(0, 2), tables(1, 2));
    let (first, second) = (set(&mut one, 1, web(5)), set(&mut two, 2, web(5)));
    let attached = [whole(&one, Scope::Attachments), whole(&two, Scope::Attachments)];
    let at = |tables: &mut Tables, step: &Step, attached: &Step| {
        hear(tables, attached);
        hear(tables, step).contested
    };
    let addr: IpAddr = [10, 0, 9, 5].into();
    assert_eq!(at(&mut one, &second, &attached[1]), BTreeSet::from([(net(1), addr)]));
    assert_eq!(at(&mut two, &first, &attached[0]), BTreeSet::from([(net(1), addr)]));
    let both = vec![(node(0), id(1)), (node(1), id(2))];
    for tables in [&one, &two] {
        assert_eq!(tables.holders(net(1), addr, |_| false), both);
        let other_order: Vec<_> = both.iter().rev().copied().collect();
        assert_eq!(tables.holders(net(1), addr, |owner| owner == node(0)), other_order);
        let [Conflict { endpoints, .. }] = &tables.conflicts(net(1), |_| false)[..] else { panic!("no conflict") };
        assert_eq!(*endpoints, both);
    }
    let disabled = Endpoint { state: crate::record::network::EndpointState::Disabled, ..web(5) };
    set(&mut one, 1, disabled);
    assert_eq!(one.holders(net(1), addr, |_| false)[0], (node(1), id(2)));
}

#[test]
fn owners_that_are_not_compared_make_no_difference() {
    let (mut owner, mut reader, other) = (tables(0, 3), tables(1, 3), tables(2, 3));
    set(&mut owner, 1, web(5));
    let before = reader.digest_with(node(2));
    hear(&mut reader, &whole(&owner, Scope::Attachments));
    hear(&mut reader, &whole(&owner, NET()));
    assert_ne!(reader.digest_with(node(2)), before);
    reader.set_compared(node(0), false);
    assert_eq!(reader.digest_with(node(2)), before);
    assert_eq!(shown(&reader).len(), 1);
    assert!(reader.summaries(node(2)).iter().all(|summary| summary.parts.len() == 1));
    drop(other);
}

/// Two nodes that have the tables of a thousand owners and differ in a few: bytes follow the differences.
#[test]
fn comparing_costs_what_differs() {
    const OWNERS: usize = 1_000;
    let owner_id = |n: usize| {
        let bytes = [0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1).to_be_bytes(), [7; 8]];
        NodeId::from_bytes(*bytes.as_flattened().first_chunk().unwrap())
    };
    let (mut one, mut two) = (tables(0, 2), tables(1, 2));
    for n in 0..OWNERS {
        let mut owner = Tables::new(owner_id(n));
        attach(&mut owner, GENERATION);
        for tables in [&mut one, &mut two] {
            tables.know(owner_id(n));
            hear(tables, &whole(&owner, Scope::Attachments));
        }
        let first = set(&mut owner, 1, web(5));
        hear(&mut one, &first);
        hear(&mut two, &first);
        if n % 33 == 0 {
            let newer = set(&mut owner, 2, web(6));
            hear(if n % 2 == 0 { &mut one } else { &mut two }, &newer);
        }
    }
    for (tables, other) in [(&mut one, 1), (&mut two, 0)] {
        let attachment = whole(&self::tables(other, 2), Scope::Attachments);
        hear(tables, &attachment);
    }
    assert_ne!(one.digest_with(node(1)), two.digest_with(node(0)));
    let summaries = one.summaries(node(1));
    let listings = two.differences(node(0), &summaries);
    let resolved = one.resolve(&listings);
    assert_eq!((resolved.wants.len(), resolved.steps.len()), (15, 16));
    let (steps, more) = two.serve(&resolved.wants);
    assert!(!more && resolved.disputed.is_empty() && resolved.foreign.is_empty());
    let ask = codec::encode(&TableRequest::Compare(summaries)).len();
    let list = codec::encode(&TableReply::Differences(listings)).len();
    let fetch = codec::encode(&TableRequest::Fetch { wants: resolved.wants, steps: resolved.steps.clone() }).len();
    let rest =
        codec::encode(&TableReply::Steps { steps: steps.clone(), more, took: false, uncompared: Vec::new() }).len();
    // Two summaries of 256 parts, some 120 marks, 31 steps.
    assert!(ask < 5_000 && list < 8_000 && fetch < 4_000 && rest < 3_000, "{ask} {list} {fetch} {rest}");
    resolved.steps.iter().for_each(|step| drop(hear(&mut two, step)));
    steps.iter().for_each(|step| drop(hear(&mut one, step)));
    assert_eq!(one.digest_with(node(1)), two.digest_with(node(0)));
}

#[test]
fn a_hundred_thousand_records_with_thirty_that_differ_cost_what_differs() {
    const OWNERS: u8 = 100;
    const EACH: u32 = 1_000;
    let owner = |n: u8| NodeId::from_bytes([n; 16]);
    let network = NetworkId::from_bytes([9; 16]);
    let slot = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        EndpointId::from_bytes(bytes)
    };
    let write = |tables: &mut Tables, slots: std::ops::Range<u32>, with: u8| {
        let endpoints = slots.map(|n| (slot(n), Some(web(with))));
        tables.set_endpoints(7, network, endpoints).unwrap().news
    };
    let mut nodes = [Tables::new(owner(200)), Tables::new(owner(201))];
    let mut late = Vec::new();
    let mut attached: Vec<_> = Vec::new();
    for tables in &mut nodes {
        let outcome = tables.attach(7, network, "front".to_owned(), ([10, 0, 0, 1].into(), None)).unwrap();
        attached.extend(outcome.news.into_iter().map(|step| (*step).clone()));
    }
    for n in 0..OWNERS {
        let mut own = Tables::new(owner(n));
        let mut steps = own.attach(7, network, "front".to_owned(), ([10, 0, 0, 1].into(), None)).unwrap().news;
        steps.extend(write(&mut own, 0..EACH, 5));
        attached.extend(steps.iter().map(|step| (**step).clone()));
        if n % 10 == 3 {
            late.extend(write(&mut own, 0..3, 6));
        }
    }
    for tables in &mut nodes {
        (0..OWNERS).chain([200, 201]).for_each(|n| tables.know(owner(n)));
        for step in &attached {
            let _ = tables.apply(Source::Relay, step.clone());
        }
    }
    let [ahead, behind] = &mut nodes;
    for step in &late {
        ahead.apply(Source::Relay, (**step).clone()).unwrap();
    }
    assert_eq!(ahead.usage().records, usize::from(OWNERS) * EACH as usize + usize::from(OWNERS) + 2);
    let (mut bytes, mut round_trips) = (0, 0);
    while ahead.digest_with(owner(201)) != behind.digest_with(owner(200)) {
        let asked = behind.summaries(owner(200));
        let listings = ahead.differences(owner(201), &asked);
        bytes += codec::encode(&TableRequest::Compare(asked)).len();
        bytes += codec::encode(&TableReply::Differences(listings.clone())).len();
        let resolved = behind.resolve(&listings);
        let (steps, more) = ahead.serve(&resolved.wants);
        bytes += codec::encode(&TableRequest::Fetch { wants: resolved.wants, steps: Vec::new() }).len();
        bytes +=
            codec::encode(&TableReply::Steps { steps: steps.clone(), more, took: false, uncompared: Vec::new() }).len();
        steps.into_iter().for_each(|step| drop(behind.apply(Source::Relay, step).unwrap()));
        round_trips += 2;
    }
    println!("30 of 100,000 records differ: {bytes} bytes in {round_trips} round trips");
    assert!(round_trips <= 3 && bytes < 16 * 1024, "{bytes} bytes in {round_trips} round trips");
}
