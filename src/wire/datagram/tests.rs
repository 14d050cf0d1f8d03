//! Bytes that may not change, limits that hold, and readers that take what any writer wrote.

use proptest::prelude::*;

use super::*;
use crate::record::{Availability, Details, METADATA_BYTES_MAX, Role};

pub(crate) fn sample() -> NodeRecord {
    NodeRecord {
        hostname: "swarm1".to_owned(),
        role: Role::Manager,
        availability: Availability::Drain,
        data_path_addr: [10, 130, 27, 207].into(),
        agent_version: "0.1.0".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        joined_at_ms: 1_520_863_886_000,
        started_generation: 7,
        left: false,
        away_s: 0,
        details: Details::default(),
    }
}

fn envelope(n: u8) -> RecordEnvelope {
    RecordEnvelope::new(NodeId::from_bytes([n; 16]), Version { generation: 7, seq: 1 }, &sample())
}

#[test]
fn golden_record_body() {
    let hex: String = envelope(1).body.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0106737761726d310102000a821bcf05302e312e30056c696e7578067838365f3634fdb03a8d1a620100000700000000000000000000"
    );
}

/// Old and new writer against old and new reader: a format 2 that appends a field.
#[test]
fn every_writer_is_read_by_every_reader() {
    #[derive(Encode, Decode, PartialEq, Debug)]
    struct Format2 {
        v1: NodeRecord,
        capacity: u32,
    }
    let new_writer = {
        let mut body = vec![2];
        codec::encode_into(&Format2 { v1: sample(), capacity: 9 }, &mut body);
        RecordEnvelope { body, ..envelope(1) }
    };
    let old_reader = |envelope: &RecordEnvelope| envelope.record();
    let new_reader = |envelope: &RecordEnvelope| {
        let (format, fields) = envelope.body.split_first().unwrap();
        if *format >= 2 {
            codec::decode_prefix::<Format2, DATAGRAM_LIMIT>("", fields).unwrap().0
        } else {
            Format2 { v1: old_reader(envelope).unwrap(), capacity: 0 }
        }
    };
    assert_eq!(old_reader(&envelope(1)), Ok(sample()));
    assert_eq!(old_reader(&new_writer), Ok(sample()));
    assert_eq!(new_reader(&envelope(1)), Format2 { v1: sample(), capacity: 0 });
    assert_eq!(new_reader(&new_writer), Format2 { v1: sample(), capacity: 9 });
}

#[test]
fn records_that_break_a_limit_are_refused() {
    let with = |record: NodeRecord| RecordEnvelope::new(NodeId::from_bytes([1; 16]), Version::default(), &record);
    let bad_host = with(NodeRecord { hostname: "a\u{1b}[2J".to_owned(), ..sample() });
    assert_eq!(bad_host.record(), Err(DecodeError::Invalid("node record")));
    let mut trailing = envelope(1);
    trailing.body.push(0);
    assert_eq!(trailing.record(), Err(DecodeError::Trailing { what: "node record", left: 1 }));
    let empty = RecordEnvelope { body: vec![], ..envelope(1) };
    assert_eq!(empty.record(), Err(DecodeError::Malformed("node record")));
    let zero = RecordEnvelope { body: vec![0], ..envelope(1) };
    assert_eq!(zero.record(), Err(DecodeError::Version { what: "node record", version: 0 }));
}

#[test]
fn the_largest_valid_record_fits() {
    let largest = NodeRecord {
        hostname: "h".repeat(crate::record::HOSTNAME_BYTES_MAX),
        data_path_addr: std::net::Ipv6Addr::LOCALHOST.into(),
        agent_version: "v".repeat(64),
        os: "o".repeat(64),
        arch: "a".repeat(64),
        joined_at_ms: u64::MAX,
        started_generation: u64::MAX,
        away_s: crate::record::AWAY_S_MAX,
        details: Details {
            certificate_expires_at_ms: u64::MAX,
            certificate_ca: u32::MAX,
            reserve_ca: u32::MAX,
            leader_term: Some(u64::MAX),
            cpus: u32::MAX,
            memory_bytes: u64::MAX,
            labels: (0..128).map(|n| (format!("l{n}"), String::new())).collect(),
            metadata: (0..128)
                .map(|n| (format!("m{n}"), "v".repeat(if n == 0 { METADATA_BYTES_MAX - 908 } else { 0 })))
                .collect(),
        },
        ..sample()
    };
    let envelope =
        RecordEnvelope::new(NodeId::from_bytes([1; 16]), Version { generation: u64::MAX, seq: u64::MAX }, &largest);
    assert!(envelope.body.len() <= crate::record::NODE_RECORD_BYTES_MAX);
    assert_eq!(envelope.record(), Ok(largest));
}

#[test]
fn sections_round_trip_and_unknown_kinds_are_skipped() {
    let mut writer = Writer::new(1000);
    assert!(writer.swim(b"packet"));
    let records = [envelope(1), envelope(2)];
    assert_eq!(writer.records(records.iter()), 2);
    writer.want([NodeId::from_bytes([9; 16])].into_iter());
    let mut payload = writer.finish();
    payload.extend_from_slice(&[200, 0, 1, 42]);
    assert_eq!(
        sections(&payload).unwrap(),
        vec![
            Section::Swim(b"packet"),
            Section::Records(records.to_vec()),
            Section::Want(vec![NodeId::from_bytes([9; 16])]),
            Section::Unknown(200),
        ]
    );
}

#[test]
fn golden_table_sections() {
    use crate::record::network::NetworkId;
    use crate::wire::table::{Scope, Sight, Span, Step};
    let (owner, scope) = (NodeId::from_bytes([4; 16]), Scope::Network(NetworkId::from_bytes([9; 16])));
    let version = Version { generation: 7, seq: 2 };
    let span = Some(Span(2));
    let step = Step { owner, scope: Scope::Attachments, since: Version::NONE, lives: vec![version], changes: vec![] };
    let mut pushes = Vec::new();
    Push::append(span, &codec::encode(&step), &mut pushes);
    let notice = Notice { scope, owner, version, is_large: true, span: None };
    let want = Want { scope, owner, since: version };
    let sighting = Sighting::Ask { nonce: 5, sight: Sight { scope, owner, version } };
    let mut writer = Writer::new(1_000);
    assert!(writer.steps(&pushes));
    assert_eq!((writer.notices(&[notice]), writer.steps_wanted(&[want])), (1, 1));
    assert!(writer.sighting(&sighting) && writer.tables([0xd1; 8]));
    let payload = writer.finish();
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let (owner, net) = ("04".repeat(16), "09".repeat(16));
    let expected = [
        format!("0900190102{owner}000000010702{}", "00"),
        format!("0a002501{net}{owner}07020100"),
        format!("0b002301{net}{owner}0702"),
        format!("0c0025000501{net}{owner}0702"),
        format!("0d0008{}", "d1".repeat(8)),
    ];
    assert_eq!(hex, expected.concat());
    let read = [
        Section::Steps(vec![Push { span, step }]),
        Section::Notices(vec![notice]),
        Section::StepsWanted(vec![want]),
        Section::Sighting(sighting),
        Section::Tables([0xd1; 8]),
    ];
    assert_eq!(sections(&payload).unwrap(), read);
}

proptest! {
    #[test]
    fn any_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..1300)) {
        if let Ok(found) = sections(&payload) {
            for section in found {
                if let Section::Records(records) = section {
                    for record in records {
                        let _ = record.record();
                    }
                }
            }
        }
    }

    #[test]
    fn a_writer_never_passes_its_cap(cap in 0_usize..1200, swim in 0_usize..1300, count in 0_u8..70) {
        let mut writer = Writer::new(cap);
        writer.swim(&vec![0; swim]);
        let records: Vec<_> = (0..count).map(envelope).collect();
        let written = writer.records(records.iter());
        writer.want((0..count).map(|n| NodeId::from_bytes([n; 16])));
        let payload = writer.finish();
        prop_assert!(payload.len() <= cap);
        let read: usize = sections(&payload).unwrap().iter().map(|section| match section {
            Section::Records(records) => records.len(),
            _ => 0,
        }).sum();
        prop_assert_eq!(read, written);
    }
}
