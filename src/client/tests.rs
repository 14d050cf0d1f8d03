//! The client against a fake daemon: what it sends, and what it makes of good, bad and broken answers.

use std::sync::{Arc, Mutex};

use super::fake::{Asked, Fake, http};
use super::*;
use crate::api::{ClusterState, NodeOptions, PROBLEM_JSON, Problem, ProblemKind};
use crate::record::Availability;

const INACTIVE: &str = r#"{"id":"asqtfpeef1ur58dijnnykuwuk","hostname":"swarm1","version":"0.1.0","state":"inactive","cluster":null,"new":1}"#;

async fn client(fake: &Fake) -> Client {
    Client::connect(fake.path()).await.unwrap()
}

fn protocol(error: ClientError) -> String {
    match error {
        ClientError::Protocol(text) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_typed_and_what_is_new_in_it_ignored() {
    let fake = Fake::json("200 OK", INACTIVE);
    let info = client(&fake).await.self_info().await.unwrap();
    assert_eq!((info.hostname.as_str(), info.state), ("swarm1", ClusterState::Inactive));
}

#[tokio::test]
async fn requests_go_where_the_api_says() {
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let log = Arc::clone(&asked);
    let fake = Fake::serve(move |request| {
        log.lock().unwrap().push(request.clone());
        http("200 OK", "application/json", "null")
    });
    let client = client(&fake).await;
    let filter = MemberFilter { status: Some("ready,down".into()), name: Some("a b".into()), ..Default::default() };
    let node = NodeOptions { availability: Some(Availability::Drain), ..Default::default() };
    let join = JoinRequest { token: "T".into(), remotes: vec!["h:1".into()], node };
    // `null` is no answer to any of them; only what was sent matters here.
    let _ = client.self_info().await;
    let _ = client.members(&MemberFilter::default()).await;
    let _ = client.members(&filter).await;
    let _ = client.member("a/b?ü").await;
    let _ = client.init(&InitRequest::default()).await;
    let _ = client.join(&join).await;
    let _ = client.leave(&LeaveRequest { force: true }).await;
    let _ = client.join_token(Role::Manager).await;
    let _ = client.join_tokens().await;
    let _ = client.rotate_token(Role::Worker, &RotateRequest { max_uses: Some(3), ..Default::default() }).await;
    let _ = client.health().await;
    let _ = client.metrics().await;
    let _ = client.openapi().await;

    let asked: Vec<String> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|asked| format!("{} {}", asked.line, asked.body).trim_end().to_owned())
        .collect();
    insta::assert_snapshot!(asked.join("\n"), @r#"
    GET /v1/self
    GET /v1/members
    GET /v1/members?status=ready%2Cdown&name=a%20b
    GET /v1/members/a%2Fb%3F%C3%BC
    POST /v1/cluster/init {"node":{}}
    POST /v1/cluster/join {"token":"T","remotes":["h:1"],"node":{"availability":"drain"}}
    POST /v1/cluster/leave {"force":true}
    GET /v1/join-tokens/manager
    GET /v1/join-tokens
    POST /v1/join-tokens/worker/rotate {"max_uses":3,"revoke":false}
    GET /v1/health
    GET /metrics
    GET /openapi.json
    "#);
}

#[tokio::test]
async fn a_problem_comes_through_with_its_candidates() {
    let problem =
        ProblemKind::Ambiguous.problem("\"web\" fits 2 nodes").with_candidates(vec!["a web1".into(), "b web2".into()]);
    let body = serde_json::to_string(&problem).unwrap();
    let fake = Fake::serve(move |_| http("409 Conflict", PROBLEM_JSON, &body));
    match client(&fake).await.member("web").await.unwrap_err() {
        ClientError::Problem(got) => assert_eq!(got, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_newer_daemons_problem_is_still_a_problem() {
    let body = r#"{"type":"urn:gossipd:problem:brand-new","status":418,"title":"teapot","detail":"no coffee"}"#;
    let fake = Fake::json("418 Teapot", body);
    match client(&fake).await.self_info().await.unwrap_err() {
        ClientError::Problem(problem @ Problem { .. }) => {
            assert_eq!(problem.to_string(), "no coffee");
            assert_eq!(problem.known_kind(), None);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn health_is_read_also_when_it_is_bad() {
    let fake = Fake::json("503 Service Unavailable", r#"{"state":"active","alive":false,"joined":true}"#);
    assert!(!client(&fake).await.health().await.unwrap().alive);
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("hangs up", Vec::new(), "the daemon closed the connection before it had answered"),
        (
            "hangs up in the head",
            b"HTTP/1.1 200 OK\r\nconte".to_vec(),
            "the daemon closed the connection before it had answered",
        ),
        (
            "hangs up in the body",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
            "the daemon closed the connection before it had answered",
        ),
        (
            "garbage",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n".to_vec(),
            "what answers is no gossipd: invalid HTTP version parsed",
        ),
        (
            "another document",
            http("200 OK", "application/json", "{}"),
            "the daemon's answer to /v1/self is not understood: missing field `id` at line 1 column 2",
        ),
        (
            "no problem document",
            http("502 Bad Gateway", "text/html", "<h1>\u{1b}[31mproxy</h1>"),
            "the daemon answered /v1/self with status 502 and \"<h1>\\u{1b}[31mproxy</h1>\"",
        ),
        (
            "an empty refusal",
            http("404 Not Found", "text/plain", ""),
            "the daemon answered /v1/self with status 404 and nothing else",
        ),
        (
            "a redirect",
            http("302 Found", "text/plain", ""),
            "the daemon answered /v1/self with status 302 and nothing else",
        ),
    ];
    for (what, bytes, expected) in cases {
        let bytes = bytes.clone();
        let fake = Fake::serve(move |_| bytes.clone());
        let error = client(&fake).await.self_info().await.unwrap_err();
        assert_eq!(protocol(error), *expected, "{what}");
    }
}

#[tokio::test]
async fn an_answer_too_large_is_not_read_to_its_end() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let announced = http("200 OK", "application/json", &" ".repeat(1001));
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", " ".repeat(2000));
    for bytes in [announced, chunked.into_bytes()] {
        let fake = Fake::serve(move |_| bytes.clone());
        let client = Client::with_limits(&fake.path(), limits).await.unwrap();
        let error = client.self_info().await.unwrap_err();
        assert_eq!(protocol(error), "the daemon's answer is larger than 1000 bytes");
    }
}

#[tokio::test]
async fn a_silent_daemon_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    // Bound, never accepted: the kernel takes the connection and the request, and nothing comes back.
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    let limits = Limits { request: Duration::from_millis(20), ..Limits::default() };
    let error = Client::with_limits(&path, limits).await.unwrap().self_info().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().ends_with("has not answered within 0.02 s; the request may still be carried out"));
}

#[tokio::test]
async fn nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    let missing = Client::connect(&path).await.unwrap_err().to_string();
    assert!(missing.contains("No such file or directory; is gossipd running?"), "{missing}");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let stale = Client::connect(&path).await.unwrap_err().to_string();
    assert!(stale.contains("Connection refused; is gossipd running?"), "{stale}");
}

#[test]
fn queries_carry_only_what_was_asked_for() {
    let cases = [
        (MemberFilter::default(), ""),
        (MemberFilter { role: Some("manager".into()), ..Default::default() }, "?role=manager"),
        (
            MemberFilter { id: Some("a&b".into()), name: Some("x=y".into()), ..Default::default() },
            "?name=x%3Dy&id=a%26b",
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(filter_query(&filter), expected);
    }
}
