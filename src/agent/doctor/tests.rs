//! What each way of being reached means.

use super::*;

const FULL: u16 = 1_200;

fn own() -> Own {
    Own {
        version: "0.1.0",
        datagram_bytes: FULL,
        port: 7946,
        interface: Some("eth1".to_owned()),
        key: 1,
        keys: vec![1],
    }
}

fn view() -> View {
    View {
        heard_bytes: FULL,
        call: Call::Answered,
        unix_ms: 0,
        frame_version: FRAME_VERSION,
        exchange_version: EXCHANGE_VERSION,
        key: 1,
        keys: vec![1],
    }
}

fn well() -> Found {
    Found {
        heard_there: FULL,
        heard_here: FULL,
        speaks: true,
        call: Some(Ok(())),
        clock_ms: Some((3, 1)),
        rtt_us: Some(400),
        view: Some(view()),
    }
}

fn findings(found: &Found, version: &str) -> Vec<Finding> {
    let json = serde_json::json!({
        "id": "2kg2t2k8m82luzxr3e76dnooo", "hostname": "swarm2", "address": "10.0.0.2:7946", "status": "ready",
        "since": "", "generation": 1, "incarnation": 0, "version": version, "self": false, "labels": {},
        "decisions": [], "daemon_labels": {}, "metadata": {}, "degraded": [],
        "availability": "active", "role": "worker",
    });
    let member: Member = serde_json::from_value(json).unwrap();
    findings_about(&check(&member, found), found.view.as_ref(), &own())
}

fn codes(found: &Found) -> Vec<&'static str> {
    findings(found, "0.1.0").iter().map(|finding| finding.code.word()).collect()
}

#[test]
fn each_way_has_its_finding() {
    let seen = |change: &dyn Fn(&mut Found)| {
        let mut found = well();
        change(&mut found);
        codes(&found)
    };
    let said = |change: fn(&mut View)| {
        let mut view = view();
        change(&mut view);
        codes(&Found { view: Some(view), ..well() })
    };
    assert_eq!(codes(&well()), [""; 0]);
    assert_eq!(codes(&Found::default()), ["unreachable"]);
    assert_eq!(codes(&Found { call: Some(Err(ExchangeError::Refused)), ..Found::default() }), ["unreachable"]);
    assert_eq!(seen(&|found| found.heard_there = 0), ["udp-blocked-out"]);
    assert_eq!(
        seen(&|found| {
            found.heard_here = 0;
            found.speaks = false;
        }),
        ["udp-blocked-in"]
    );
    // Its gossip comes: only the echoes of this examination do not.
    assert_eq!(seen(&|found| found.heard_here = 0), [""; 0]);
    assert_eq!(seen(&|found| found.call = None), ["tcp-blocked-out"]);
    assert_eq!(seen(&|found| found.call = Some(Err(ExchangeError::Stalled))), ["tcp-blocked-out"]);
    assert_eq!(said(|view| view.call = Call::Unreachable), ["tcp-blocked-in"]);
    assert_eq!(said(|view| view.call = Call::Pending), [""; 0]);
    assert_eq!(seen(&|found| found.heard_there = 900), ["mtu-small"]);
    assert_eq!(seen(&|found| found.heard_here = 1_100), ["mtu-small"]);
    assert_eq!(seen(&|found| found.clock_ms = Some((-9_999, 0))), [""; 0]);
    assert_eq!(seen(&|found| found.clock_ms = Some((-10_000, 0))), ["clock-offset"]);
    assert_eq!(seen(&|found| found.clock_ms = Some((12_000, 3_000))), [""; 0], "it may be less");
    assert_eq!(said(|view| view.frame_version += 1), ["version-skew"]);
    assert_eq!(said(|view| view.keys = vec![1, 2]), ["key-skew"]);
}

#[test]
fn how_much_it_matters() {
    let severity = |found: &Found| findings(found, "0.1.0")[0].severity;
    assert_eq!(severity(&Found { clock_ms: Some((20_000, 1)), ..well() }), Severity::Warning);
    assert_eq!(severity(&Found { clock_ms: Some((300_001, 1)), ..well() }), Severity::Problem);
    let with = |view| Found { view: Some(view), ..well() };
    assert_eq!(severity(&with(View { key: 2, keys: vec![1, 2], ..view() })), Severity::Problem);
    assert_eq!(severity(&with(View { keys: vec![2], ..view() })), Severity::Problem);
    assert_eq!(severity(&with(View { keys: vec![1, 2], ..view() })), Severity::Warning);
}

#[test]
fn an_older_daemon_is_not_unreachable() {
    let broken = Found { call: Some(Err(ExchangeError::Broken)), ..Found::default() };
    let codes = |version| findings(&broken, version).iter().map(|finding| finding.code.word()).collect::<Vec<_>>();
    assert_eq!(codes("0.0.9"), ["version-skew"]);
    assert_eq!(codes("0.1.0"), ["unreachable"]);
}

#[test]
fn every_finding_says_what_to_do() {
    let said = |found: &Found| {
        let lines = findings(found, "0.1.0").into_iter().map(|f| format!("{}: {}", f.what, f.remedy));
        lines.collect::<Vec<_>>().join("\n")
    };
    let one_way = Found { view: Some(View { call: Call::Unreachable, ..view() }), ..well() };
    insta::assert_snapshot!(said(&one_way), @"swarm2 cannot reach this node over TCP (no answer): open 7946/udp and 7946/tcp on eth1 of this machine: sh setup.sh --interface eth1");
    insta::assert_snapshot!(said(&Found { heard_there: 0, ..well() }), @"swarm2 does not get this node's datagrams: open 7946/udp and 7946/tcp on that machine's private interface: sh setup.sh --interface NAME");
    insta::assert_snapshot!(said(&Found { heard_there: 1_100, heard_here: 900, ..well() }), @"to swarm2 datagrams of up to 1100 bytes get through, and of up to 900 back, this node sends up to 1200 (UDP payload, never fragmented): raise the MTU on the way to 1248 bytes");
    insta::assert_snapshot!(said(&Found::default()), @"swarm2 (10.0.0.2:7946, listed as ready) is not reached: nothing comes back, neither over UDP nor over TCP: see whether the machine is up, and open 7946/udp and 7946/tcp on that machine's private interface: sh setup.sh --interface NAME");
}
