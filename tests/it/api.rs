//! The local API as any program sees it: bytes over the Unix socket.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use gossipd::agent::metrics;
use gossipd::record::Status;
use nix::unistd::{Gid, Group};
use serde_json::{Value, json};

use crate::harness::{Answer, GOSSIPCTL, Node, Ran, cluster, command, free_port, is_root, shows, skip};

/// Checks a problem (RFC 9457) and gives its detail.
#[track_caller]
fn problem(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, Some("application/problem+json")),
        "{answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["type"], format!("urn:gossipd:problem:{code}"), "{problem}");
    assert!(!problem["title"].as_str().unwrap().is_empty(), "{problem}");
    let detail = problem["detail"].as_str().unwrap().to_owned();
    assert!(!detail.is_empty(), "{problem}");
    detail
}

#[test]
fn a_daemon_in_no_cluster_answers() {
    let node = Node::started("idle");
    let own = node.get("/v1/self");
    assert_eq!((own.status, own.header("content-type")), (200, Some("application/json")));
    let id = own.json()["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 25 && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()), "{id}");
    let expected = json!({
        "id": id, "hostname": "idle", "version": env!("CARGO_PKG_VERSION"), "state": "inactive", "cluster": null,
    });
    assert_eq!(own.json(), expected);
    let health = node.get("/v1/health");
    assert_eq!(health.status, 200);
    assert_eq!(
        health.json(),
        json!({ "state": "inactive", "alive": true, "joined": false, "score": 0, "degraded": [] })
    );
    for path in ["/v1/members", "/v1/members/self", "/v1/join-tokens", "/v1/join-tokens/worker"] {
        let detail = problem(&node.get(path), 409, "not-in-cluster");
        assert!(detail.contains("gossipctl init") && detail.contains("gossipctl join"), "{detail}");
    }
    for path in ["/v1/cluster/leave", "/v1/join-tokens/worker/rotate"] {
        problem(&node.post(path, ""), 409, "not-in-cluster");
    }
    assert_eq!(node.get("/metrics").status, 200);
    let mode = fs::metadata(node.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_member_tells_of_itself_and_the_others() {
    let nodes = cluster(&["a", "b"]);
    let (own, health) = (nodes[1].get("/v1/self").json(), nodes[1].get("/v1/health").json());
    // What it thinks of itself may change at any time.
    let expected = json!({
        "state": "active", "alive": true, "joined": true, "score": health["score"], "degraded": health["degraded"],
    });
    assert_eq!(health, expected);
    assert!(health["score"].is_u64() && health["degraded"].is_array(), "{health}");
    let of = &own["cluster"];
    assert_eq!(
        (&own["state"], &of["role"], &of["nodes"], &of["managers"]),
        (&"active".into(), &"worker".into(), &2.into(), &1.into())
    );
    assert_eq!(of["id"], nodes[0].get("/v1/self").json()["cluster"]["id"]);
    assert_eq!(of["ca_digest"], nodes[0].token("worker").split('-').nth(2).unwrap());
    humantime::parse_rfc3339(of["certificate_expires_at"].as_str().unwrap()).unwrap();
    let listed = nodes[0].get("/v1/members").json();
    let members = listed["members"].as_array().unwrap();
    let ids: Vec<_> = members.iter().map(|member| member["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [nodes[0].id(), nodes[1].id()], "by host name");
    let keys: BTreeSet<_> = members[1].as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "id",
        "hostname",
        "address",
        "status",
        "since",
        "availability",
        "role",
        "data_path_addr",
        "version",
        "platform",
        "joined_at",
        "generation",
        "incarnation",
        "last_heard_ms",
        "rtt_us",
        "degraded",
        "away_s",
        "manager_status",
        "leader_term",
        "labels",
        "decisions",
        "certificate_expires_at",
        "capacity",
        "daemon_labels",
        "metadata",
        "self",
    ];
    assert_eq!(keys, BTreeSet::from(documented));
    let filtered = nodes[0].get("/v1/members?status=ready,down&role=worker&name=b").json();
    assert_eq!(filtered["members"].as_array().unwrap().len(), 1);
    let one = nodes[0].get("/v1/members/b").json();
    assert_eq!((&one["id"], &one["hostname"]), (&members[1]["id"], &"b".into()));
    assert_eq!(nodes[0].get("/v1/members/self").json()["self"], true);
    let tokens = nodes[0].get("/v1/join-tokens").json();
    let roles: Vec<_> = tokens.as_array().unwrap().iter().map(|token| token["role"].clone()).collect();
    assert_eq!(roles, ["worker", "manager"]);
}

#[test]
fn health_is_liveness_unless_more_is_asked_for() {
    let node = Node::started("asked");
    for path in ["/v1/health", "/v1/health?strict=false", "/v1/health?strict=true"] {
        let answer = node.get(path);
        assert_eq!((answer.status, &answer.json()["alive"]), (200, &true.into()), "{path}: {answer:?}");
    }
    for (path, text) in [("/v1/health?strict=very", "strict"), ("/v1/health?verbose=true", "verbose")] {
        let detail = problem(&node.get(path), 400, "bad-request");
        assert!(detail.contains(text), "{path}: {detail}");
    }
}

#[test]
fn a_listing_says_how_it_came_about() {
    let nodes = cluster(&["a", "b"]);
    let ready = shows(&nodes[0], &nodes[1].id(), Status::Ready);
    assert_eq!((ready.degraded.len(), ready.away_s), (0, None), "{ready:?}");
    let of = nodes[0].get("/v1/self").json()["cluster"].clone();
    assert!(of["health_score"].is_u64() && of["degraded"].is_array(), "{of}");
    let table = nodes[0].ctl(&["members", "--wide"]).ok();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().ends_with("DEGRADED"), "{table}");
    assert_eq!(lines.count(), 2, "{table}");
    assert!(nodes[0].metric("gossipd_health_score").is_some());
    for reason in ["isolated", "udp-blocked", "slow", "clock-skew"] {
        let series = format!("gossipd_degraded{{reason=\"{reason}\"}}");
        assert!(nodes[0].metric(&series).is_some_and(|value| value == 0.0 || value == 1.0), "{series}");
    }
}

#[test]
fn the_daemon_describes_its_api() {
    let node = Node::started("described");
    let answer = node.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    let paths: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/v1/self",
        "/v1/members",
        "/v1/members/{reference}",
        "/v1/watch",
        "/v1/cluster/init",
        "/v1/cluster/join",
        "/v1/cluster/leave",
        "/v1/join-tokens",
        "/v1/join-tokens/{role}",
        "/v1/join-tokens/{role}/rotate",
        "/v1/ca",
        "/v1/ca/rotate",
        "/v1/members/{reference}/update",
        "/v1/members/{reference}/remove",
        "/v1/leader",
        "/v1/self/metadata",
        "/v1/decisions",
        "/v1/doctor",
        "/v1/endpoints",
        "/v1/endpoints/{reference}",
        "/v1/endpoints/{reference}/disable",
        "/v1/endpoints/{reference}/enable",
        "/v1/endpoints/{reference}/remove",
        "/v1/lease",
        "/v1/networks",
        "/v1/networks/{reference}",
        "/v1/networks/{reference}/attach",
        "/v1/networks/{reference}/detach",
        "/v1/networks/{reference}/endpoints",
        "/v1/networks/{reference}/seen",
        "/v1/health",
        "/openapi.json",
        "/metrics",
    ];
    assert_eq!(paths, BTreeSet::from(expected));
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

#[test]
fn what_cannot_be_answered_is_a_problem() {
    let node = Node::started("asked");
    let nowhere = node.get("/v2/anything?x=1");
    let detail = problem(&nowhere, 404, "not-found");
    assert!(detail.contains("/v2/anything") && detail.contains("/openapi.json"), "{detail}");
    let candidates = nowhere.json()["candidates"].clone();
    assert!(candidates.as_array().unwrap().contains(&"/v1/self".into()), "{candidates}");
    for (method, path) in [("POST", "/v1/self"), ("DELETE", "/v1/members"), ("GET", "/v1/cluster/init")] {
        let answer = crate::harness::http(&node.socket(), method, path, "").unwrap();
        problem(&answer, 405, "bad-request");
        assert!(answer.header("allow").is_some(), "which methods there are: {answer:?}");
    }
    // Nothing of this makes it a member.
    let bodies: [(&str, &str); 9] = [
        ("{", "request body: EOF"),
        ("[]", "request body: "),
        ("not json", "request body: expected"),
        (r#"{"node":{"listen_address":"127.0.0.1"}}"#, "unknown field `listen_address`"),
        (r#"{"nodes":{}}"#, "unknown field `nodes`"),
        (r#"{"node":{"availability":"away"}}"#, "away"),
        (r#"{"cert_expiry":"soon"}"#, "cert expiry \"soon\""),
        (r#"{"node":{"data_path_addr":"127.0.0.1:80"}}"#, "\"127.0.0.1:80\" has a port"),
        (r#"{"node":{"listen_addr":"no/where"}}"#, "\"no/where\" is neither an IP address nor an interface name"),
    ];
    for (body, text) in bodies {
        let detail = problem(&node.post("/v1/cluster/init", body), 400, "bad-request");
        assert!(detail.contains(text), "{body}: {detail}");
    }
    let detail = problem(&node.post("/v1/cluster/join", "{}"), 400, "bad-request");
    assert!(detail.contains("missing field `token`"), "{detail}");
    let nobody = json!({ "token": format!("GDTKN-1-{}-{}", "0".repeat(50), "0".repeat(25)), "remotes": [] });
    let detail = problem(&node.post("/v1/cluster/join", &nobody.to_string()), 400, "bad-request");
    assert!(detail.contains("HOST:PORT"), "{detail}");
    assert!(node.own().cluster.is_none() && !node.is_member_on_disk());

    node.init();
    problem(&node.post("/v1/cluster/init", ""), 409, "already-in-cluster");
    let bad = [
        ("/v1/members?status=dead", "\"dead\""),
        ("/v1/members?colour=red", "there is no filter \"colour\"; filters are status, role, availability, name, id"),
    ];
    for (path, text) in bad {
        let detail = problem(&node.get(path), 400, "bad-request");
        assert!(detail.contains(text), "{path}: {detail}");
    }
    problem(&node.get("/v1/members/nobody"), 404, "not-found");
    problem(&node.get("/v1/join-tokens/boss"), 404, "not-found");
    for (body, text) in [
        (r#"{"expires":"soon"}"#, "\"soon\""),
        (r#"{"expires":"0s"}"#, "\"0s\""),
        (r#"{"expires":"900000y"}"#, "expires \"900000y\": expected at most 20 years"),
        (r#"{"max_uses":0}"#, "max_uses 0"),
        (r#"{"uses":1}"#, "unknown field `uses`"),
    ] {
        let detail = problem(&node.post("/v1/join-tokens/worker/rotate", body), 400, "bad-request");
        assert!(detail.contains(text), "{body}: {detail}");
    }
}

#[test]
fn what_the_framework_refuses_is_a_problem_too() {
    let node = Node::started("asked");
    node.init();
    let is_problem = |answer: &Answer| {
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.json()["status"], answer.status);
    };
    is_problem(&node.get("/v1/members/%ff"));
    is_problem(&node.post("/v1/join-tokens/%ff/rotate", ""));
    is_problem(&node.post("/v1/cluster/leave", &" ".repeat(3_000_000)));
}

#[test]
fn every_declared_metric_is_served() {
    let port_of_metrics = |node: &Node| SocketAddr::from((node.ip, free_port(node.ip)));
    let manager = Node::new("a");
    let addr = port_of_metrics(&manager);
    let mut manager = manager.with_config(&format!("[metrics]\nlisten = \"{addr}\"\n"));
    manager.start();
    let nodes = [manager, Node::started("b")];
    crate::harness::form(&nodes);
    let answer = nodes[0].get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4")));
    for metric in metrics::ALL {
        let kind = match metric.kind {
            metrics::Kind::Counter => "counter",
            metrics::Kind::Gauge => "gauge",
        };
        let name = metric.name;
        assert!(answer.body.contains(&format!("# TYPE {name} {kind}\n")), "{name} is missing in {}", answer.body);
        assert!(answer.body.contains(&format!("# HELP {name} {}\n", metric.meaning)), "{name} is not explained");
        let sample =
            answer.body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let sample = sample.unwrap_or_else(|| panic!("{name} has no value in {}", answer.body));
        for label in metric.labels {
            assert!(sample.contains(&format!("{label}=\"")), "{label} in {sample}");
        }
    }
    // And none that is not declared.
    for line in answer.body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(metrics::ALL.iter().any(|metric| metric.name == name), "{name} is not declared");
    }
    assert_eq!(nodes[0].metric("gossipd_members{status=\"ready\"}"), Some(2.0));
    assert_eq!(nodes[0].metric("gossipd_admissions_total{result=\"admitted\"}"), Some(1.0));

    // The same on TCP, and nothing else.
    let over_tcp = |path: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = over_tcp("/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\ngossipd_members{status=\"ready\"} 2"), "{text}");
    for path in ["/v1/self", "/v1/join-tokens", "/"] {
        assert!(over_tcp(path).starts_with("HTTP/1.1 404"), "{path}");
    }
}

/// A user without any right, and a group for the socket.
const NOBODY: u32 = 65_534;
/// Another group.
const OUTSIDER: u32 = 65_533;

#[test]
fn writing_is_for_root_and_who_is_named() {
    if !is_root() {
        return skip("needs root to become somebody else");
    }
    let Some(group) = Group::from_gid(Gid::from_raw(NOBODY)).unwrap() else {
        return skip("needs a group with the id 65534");
    };
    let configuration = |writers: &str| format!("[api]\ngroup = {:?}\n{writers}\n", group.name);
    let start = |name: &str, writers: &str| {
        let mut node = Node::new(name).with_config(&configuration(writers));
        fs::set_permissions(node.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        node.start();
        node
    };
    let node = start("guarded", "");
    // Where the build directory is, others may have no way in.
    let program = node.dir().join("gossipctl");
    // Not by this process: another test may fork meanwhile, and a program that somebody could write to does not start.
    Ran::of(command("cp").arg(GOSSIPCTL).arg(&program)).ok();
    let as_user = |node: &Node, gid: u32, args: &[&str]| {
        let mut command = command(&program);
        Ran::of(command.arg("--socket").arg(node.socket()).args(args).current_dir("/").uid(NOBODY).gid(gid))
    };
    let refused: &[&str] = &["uid 65534 (gid 65534) may read, but not change anything", "api.write_uids"];

    as_user(&node, NOBODY, &["init"]).refused(1, refused);
    assert!(node.own().cluster.is_none() && !node.is_member_on_disk());
    node.init();
    assert_eq!(as_user(&node, NOBODY, &["members", "-q"]).ok(), format!("{}\n", node.id()));
    let token = node.token("worker");
    for args in [
        &["leave", "--force"][..],
        &["join-token", "worker"],
        &["join-token", "worker", "--rotate"],
        &["join-token", "manager", "--revoke"],
        &["join", "--token", &token, "127.0.0.1:9"],
        &["node", "update", "--availability", "drain", "self"],
        &["node", "rm", "--force", "self"],
        &["metadata", "a=b"],
    ] {
        // R18.
        as_user(&node, NOBODY, args).refused(1, refused);
    }
    assert!(node.own().cluster.is_some());
    assert_eq!(node.token("worker"), token);
    let name = format!("you must be root or a member of group {}", group.name);
    as_user(&node, OUTSIDER, &["members"]).refused(3, &["cannot connect to the daemon", &name]);

    for (writers, name) in [("write_gids = [65534]", "by-group"), ("write_uids = [65534]", "by-user")] {
        let node = start(name, writers);
        as_user(&node, NOBODY, &["init"]).ok();
        assert!(as_user(&node, NOBODY, &["join-token", "-q", "worker"]).ok().starts_with("GDTKN-1-"));
    }

    // A request as `curl` makes it gets the status that says so.
    let curl = |path: &str| {
        let mut curl = command("curl");
        let url = format!("http://gossipd{path}");
        curl.args(["-sS", "-i", "-X", "POST", "--unix-socket"]).arg(node.socket()).arg(url);
        Ran::of(curl.current_dir("/").uid(NOBODY).gid(NOBODY))
    };
    if std::process::Command::new("curl").arg("--version").output().is_ok() {
        let text = curl("/v1/cluster/leave").ok();
        assert!(text.starts_with("HTTP/1.1 403") && text.contains("application/problem+json"), "{text}");
        let body: Value = serde_json::from_str(text.rsplit("\r\n").next().unwrap()).unwrap();
        assert_eq!(body["type"], "urn:gossipd:problem:forbidden");
    }
}
