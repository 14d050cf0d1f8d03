//! `/openapi.json` is true: every operation is driven, and what is sent and answered is held against the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;

use gossipd::api::watch::{Lagged, Line};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Group};
use serde_json::{Value, json};

use crate::document::{Document, Operation, Sent};
use crate::harness::{Answer, Node, Ran, all_ready, command, http, is_root, wait_for};

/// A user without any right, and a group for the socket.
const NOBODY: u32 = 65_534;
/// Streams that a daemon serves at once.
const READERS_MAX: usize = 256;
/// Requests that may wait for other nodes at once.
const WAITS_MAX: usize = 64;

/// The document and how to ask by it.
struct Api {
    document: Document,
}

impl Api {
    /// Asks `node`, and checks what comes.
    #[track_caller]
    fn ask(&self, node: &Node, method: &str, path: &str, target: &str, sent: Sent<'_>) -> Answer {
        let operation = (method.to_owned(), path.to_owned());
        let body = match sent {
            Sent::Nothing => "",
            Sent::Fit(body) | Sent::Unfit(body) => body,
        };
        let answer = http(&node.socket(), &method.to_uppercase(), target, body).unwrap();
        self.document.check(&operation, target, sent, &answer);
        answer
    }

    /// Asks for what there is.
    #[track_caller]
    fn get(&self, node: &Node, path: &str, target: &str) -> Value {
        let answer = self.ask(node, "get", path, target, Sent::Nothing);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        if answer.header("content-type") == Some("application/json") { answer.json() } else { answer.body.into() }
    }

    /// Does something that works.
    #[track_caller]
    fn does(&self, node: &Node, method: &str, path: &str, target: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let sent = if body.is_empty() { Sent::Nothing } else { Sent::Fit(&body) };
        let answer = self.ask(node, method, path, target, sent);
        assert_eq!(answer.status, 200, "{method} {target} {body}: {answer:?}");
        answer.json()
    }

    /// Asks for something that is refused as a problem of this kind, although the document allows to ask.
    #[track_caller]
    fn refuses(&self, node: &Node, code: &str, method: &str, path: &str, target: &str, body: &Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let sent = if body.is_empty() { Sent::Nothing } else { Sent::Fit(&body) };
        let answer = self.ask(node, method, path, target, sent);
        assert_eq!(
            answer.json()["type"],
            format!("urn:gossipd:problem:{code}"),
            "{method} {target} {body}: {answer:?}"
        );
    }

    /// Whether an operation takes a body.
    fn takes_body(&self, (method, path): &Operation) -> bool {
        self.document.text["paths"][path][method]["requestBody"].is_object()
    }
}

/// A path with its variable part filled in.
fn filled(path: &str) -> String {
    path.replace("{reference}", "self").replace("{role}", "worker")
}

/// The least that an operation takes.
fn least((method, path): &Operation) -> Value {
    let token = format!("GDTKN-1-{}-{}", "0".repeat(50), "0".repeat(25));
    match path.as_str() {
        "/v1/cluster/join" => json!({ "token": token, "remotes": ["127.0.0.1:9"] }),
        "/v1/self/metadata" => json!({ "metadata": {} }),
        "/v1/leader" => json!({ "term": 1 }),
        "/v1/networks/{reference}/endpoints" if method == "put" => json!({ "endpoints": [] }),
        "/v1/lease" => json!({ "network": "web", "endpoints": [] }),
        _ => json!({}),
    }
}

/// A stream whose lines are checked.
struct Lines<'a> {
    api: &'a Api,
    operation: Operation,
    reader: BufReader<UnixStream>,
    seen: BTreeSet<String>,
}

impl<'a> Lines<'a> {
    /// What happens.
    fn open(api: &'a Api, node: &Node, query: &str) -> Self {
        Self::of(api, node, ("get", "/v1/watch"), &format!("/v1/watch?heartbeat=1s{query}"), Sent::Nothing)
    }

    /// A scheduler that leads.
    fn lead(api: &'a Api, node: &Node, term: u64) -> Self {
        let body = json!({ "term": term }).to_string();
        Self::of(api, node, ("post", "/v1/leader"), "/v1/leader", Sent::Fit(&body))
    }

    /// A program with endpoints.
    fn lease(api: &'a Api, node: &Node, body: &Value) -> Self {
        Self::of(api, node, ("post", "/v1/lease"), "/v1/lease", Sent::Fit(&body.to_string()))
    }

    fn of(api: &'a Api, node: &Node, (method, path): (&str, &str), target: &str, sent: Sent<'_>) -> Self {
        let operation = (method.to_owned(), path.to_owned());
        let body = if let Sent::Fit(body) = sent { body } else { "" };
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let (method, length) = (method.to_uppercase(), body.len());
        write!(stream, "{method} {target} HTTP/1.0\r\nHost: gossipd\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let answer = Answer::parse(&head).unwrap();
        api.document.check(&operation, target, sent, &answer);
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { api, operation, reader, seen: BTreeSet::new() }
    }

    /// Reads up to the first line of this type and topic, `change decisions`.
    fn until(&mut self, wanted: &str) -> Value {
        loop {
            let mut text = String::new();
            assert!(self.reader.read_line(&mut text).unwrap() > 0, "the end, before {wanted}");
            let line: Value = serde_json::from_str(&text).unwrap();
            self.api.document.check_line(&self.operation, &line);
            let topic = line["topic"].as_str().map_or_else(String::new, |topic| format!(" {topic}"));
            let kind = format!("{}{topic}", line["type"].as_str().unwrap());
            let is_it = kind == wanted;
            self.seen.insert(kind);
            if is_it {
                return line;
            }
        }
    }
}

/// A cluster of a manager and two workers with one name, formed through the API.
fn formed(api: &Api, nodes: &[Node; 3]) {
    let [a, b, c] = nodes;
    let options = json!({ "node": { "availability": "active", "data_path_addr": a.ip }, "cert_expiry": "2160h" });
    let founded = api.does(a, "post", "/v1/cluster/init", "/v1/cluster/init", &options);
    for node in [b, c] {
        let body = json!({ "token": founded["worker_token"], "remotes": [founded["advertise_addr"]], "node": {} });
        let joined = api.does(node, "post", "/v1/cluster/join", "/v1/cluster/join", &body);
        assert_eq!(joined["admitted_by"], founded["advertise_addr"]);
    }
    all_ready(&[a, b, c]);
}

/// All that is asked for and does not change anything.
fn read_all(api: &Api, nodes: &[Node; 3], idle: &Node) {
    let [a, b, _] = nodes;
    for node in [a, b, idle] {
        for path in ["/v1/self", "/v1/health", "/metrics", "/openapi.json"] {
            api.get(node, path, path);
        }
        api.get(node, "/v1/health", "/v1/health?strict=false");
    }
    let all = api.get(a, "/v1/members", "/v1/members");
    let none = "/v1/members?status=ready,down&role=worker&availability=drain&name=w,d&id=0,1";
    assert_eq!(all["members"].as_array().unwrap().len(), 3);
    assert_eq!(api.get(a, "/v1/members", none)["members"], json!([]));
    api.get(b, "/v1/members/{reference}", "/v1/members/self");
    let tokens = api.get(a, "/v1/join-tokens", "/v1/join-tokens");
    assert_eq!(api.get(a, "/v1/join-tokens/{role}", "/v1/join-tokens/worker"), tokens[0]);
    assert_eq!(api.get(b, "/v1/ca", "/v1/ca")["change"], json!(null));
}

/// What is examined, and what is said meanwhile to somebody else who asks for it.
fn examine_all(api: &Api, [a, b, c]: &[Node; 3]) {
    let path = "/v1/doctor";
    let found = api.does(a, "post", path, path, &json!({}));
    assert_eq!((found["findings"].clone(), found["peers"].as_array().unwrap().len()), (json!([]), 2));
    for (code, node) in [("not-found", "nobody"), ("ambiguous", "worker")] {
        api.refuses(a, code, "post", path, path, &json!({ "nodes": [node] }));
    }
    // Whoever is stopped takes its time. Of two that ask at once one is told to wait.
    let id = b.id();
    b.signal(Signal::SIGSTOP);
    let slow = json!({ "nodes": [id], "timeout": "2s" }).to_string();
    wait_for("an examination that is under way", || {
        let ask = || http(&a.socket(), "POST", path, &slow).unwrap();
        let both = std::thread::scope(|scope| [scope.spawn(ask), scope.spawn(ask)].map(|one| one.join().unwrap()));
        for answer in &both {
            api.document.check(&("post".into(), path.into()), path, Sent::Fit(&slow), answer);
        }
        if both.iter().any(|answer| answer.status == 503) { Ok(()) } else { Err(format!("{both:?}")) }
    });
    b.signal(Signal::SIGCONT);
    all_ready(&[a, b, c]);
}

/// All that is decided, and how the stream tells it.
fn decide_all(api: &Api, nodes: &[Node; 3]) {
    let [a, b, _] = nodes;
    let mut lines = Lines::open(api, a, "&topics=members,decisions&status=ready,suspect,down,left");
    let hello = lines.until("hello");
    lines.until("synced");
    let metadata = json!({ "metadata": { "slots": "7", "largest": "ü".repeat(1_500) } });
    assert_eq!(api.does(b, "put", "/v1/self/metadata", "/v1/self/metadata", &metadata), metadata);
    lines.until("change members");
    let (update, target) = ("/v1/members/{reference}/update", format!("/v1/members/{}/update", b.id()));
    let decided = json!({
        "availability": "drain", "role": "worker", "labels_add": { "com.example/rack": "7", "zone": "" }, "labels_rm": ["disk"],
        "reason": "kernel update", "deadline": "10m", "wait": "10s",
    });
    let said = api.does(a, "post", update, &target, &decided);
    assert_eq!(said["unconfirmed"], json!([]));
    lines.until("change decisions");
    assert!(api.get(b, "/v1/decisions", "/v1/decisions")["decisions"].as_array().unwrap().len() >= 4);
    assert_eq!(api.get(a, "/v1/members", "/v1/members?availability=drain")["members"][0]["id"], said["member"]["id"]);
    lines.until("heartbeat");

    // From the snapshot, and from where the first reader began.
    let mut again = Lines::open(api, a, "");
    again.until("synced");
    let mut resumed = Lines::open(api, a, &format!("&since={}&label=zone,zone=fra1", hello["revision"]));
    resumed.until("synced");
    let rotate = "/v1/join-tokens/{role}/rotate";
    for body in [json!({ "expires": "24h", "max_uses": 3 }), json!({ "revoke": true }), json!({})] {
        api.does(a, "post", rotate, "/v1/join-tokens/manager/rotate", &body);
    }
    for restart in [false, true] {
        let body = json!({ "restart": restart, "reason": "a machine was lost" });
        let begun = api.does(a, "post", "/v1/ca/rotate", "/v1/ca/rotate", &body);
        assert!(begun["change"]["waiting"].is_array(), "{begun}");
        api.refuses(a, "conflict", "post", "/v1/ca/rotate", "/v1/ca/rotate", &json!({}));
    }
    let lagged = serde_json::to_value(Line::Lagged(Lagged { told: 1, missed_up_to: 2 })).unwrap();
    api.document.check_line(&lines.operation, &lagged);
    let seen: BTreeSet<_> = lines.seen.iter().chain(&again.seen).chain(&resumed.seen).map(String::as_str).collect();
    let all = ["hello", "item members", "item decisions", "synced", "change members", "change decisions", "heartbeat"];
    assert!(seen.is_superset(&all.into()), "{seen:?}");
    // What is not in the document is noticed.
    for (wrong, with) in [("revision", "x".into()), ("node", "short".into()), ("more", 1.into())] {
        let mut line = hello.clone();
        line[wrong] = with;
        let checked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| api.document.check_line(&lines.operation, &line)));
        assert!(checked.is_err(), "{line}");
    }
}

/// Schedulers that lead, one after the other, and what is said to one that comes too late.
fn lead_all(api: &Api, nodes: &[Node; 3]) {
    let [a, b, _] = nodes;
    let mut first = Lines::lead(api, a, 1);
    assert_eq!(first.until("leading"), json!({ "type": "leading", "term": 1 }));
    api.refuses(a, "conflict", "post", "/v1/leader", "/v1/leader", &json!({ "term": 1 }));
    api.refuses(b, "not-manager", "post", "/v1/leader", "/v1/leader", &json!({ "term": 2 }));
    first.until("heartbeat");
    let mut second = Lines::lead(api, a, 2);
    second.until("leading");
    first.until("superseded");
    wait_for("the leader in the listing", || {
        let listed = api.get(a, "/v1/members/{reference}", "/v1/members/self");
        if listed["leader_term"] == 2 { Ok(()) } else { Err(listed.to_string()) }
    });
}

/// Networks and endpoints: written, read, leased, and taken away.
fn network_all(api: &Api, nodes: &[Node; 3]) {
    let [a, b, _] = nodes;
    let wait = "30s";
    let attach = "/v1/networks/{reference}/attach";
    let own = json!({ "data_path_addr": "10.0.0.1", "mac": "02:42:0a:00:00:01", "wait": wait });
    api.does(a, "post", attach, "/v1/networks/web/attach", &own);
    api.does(b, "post", attach, "/v1/networks/web/attach", &json!({}));
    api.does(a, "post", attach, "/v1/networks/bm1k2ph0tn6ufbnkdaatq4cwv/attach", &json!({ "name": "web" }));
    two_of_a_name(api, a);
    let detach = "/v1/networks/{reference}/detach";
    let target = format!("/v1/networks/bm1k2ph0tn6ufbnkdaatq4cwv/detach?wait={wait}");
    api.does(a, "post", detach, &target, &Value::Null);
    let path = "/v1/networks/{reference}/endpoints";
    let service = json!({ "id": "b7aykqcj", "name": "shop", "vip_v4": "10.0.9.2", "vip_v6": "fd00:9::2" });
    let port = json!({ "protocol": "udp", "published": 53, "target": 5353, "mode": "host" });
    let one = json!({ "task": "shop.1", "service": service, "state": "enabled", "addresses": ["10.0.9.5/24"], "mac": "02:42:0a:00:09:05",
        "ports": [port], "aliases": ["www"], "task_aliases": ["first"], "labels": { "zone": "fra1" } });
    let set = json!({ "set": [one], "remove": ["bm1k2ph0tn6ufbnkdaatq4cwv"], "wait": wait });
    let written = api.does(a, "post", path, "/v1/networks/web/endpoints", &set);
    let two = json!({ "task": "shop.2", "addresses": ["10.0.9.5/24"] });
    api.does(a, "put", path, "/v1/networks/web/endpoints", &json!({ "endpoints": [one, two] }));
    api.get(a, "/v1/networks", "/v1/networks");
    api.get(a, "/v1/networks/{reference}", "/v1/networks/web");
    let version = written["seen"]["version"].as_str().unwrap();
    let seen = "/v1/networks/{reference}/seen";
    api.get(b, seen, &format!("/v1/networks/web/seen?node={}&version={version}&wait=5s", a.id()));
    api.get(b, "/v1/endpoints", "/v1/endpoints?network=web&service=shop&node=web&state=enabled&port=53/udp");
    api.get(b, "/v1/endpoints/{reference}", "/v1/endpoints/shop.1");
    let mut lines = Lines::open(api, b, "&topics=networks,endpoints,conflicts&network=web");
    lines.until("synced");
    let twin = |address: &str| json!({ "set": [{ "task": "twin", "addresses": [address] }], "wait": wait });
    api.does(a, "post", path, "/v1/networks/web/endpoints", &twin("10.0.9.20/24"));
    api.does(b, "post", path, "/v1/networks/web/endpoints", &twin("10.0.9.21/24"));
    api.refuses(a, "ambiguous", "get", "/v1/endpoints/{reference}", "/v1/endpoints/twin", &Value::Null);
    let [first, second] =
        [1, 2].map(|n| json!({ "id": format!("{n:025}"), "task": "pair", "addresses": [format!("10.0.9.3{n}/24")] }));
    api.does(a, "post", path, "/v1/networks/web/endpoints", &json!({ "set": [first, second], "wait": wait }));
    for turn in ["disable", "enable", "remove"] {
        let path = format!("/v1/endpoints/{{reference}}/{turn}");
        api.does(a, "post", &path, &format!("/v1/endpoints/shop.2/{turn}?wait={wait}"), &Value::Null);
        lines.until("change endpoints");
        api.refuses(a, "ambiguous", "post", &path, &format!("/v1/endpoints/pair/{turn}?network=web"), &Value::Null);
        api.refuses(b, "conflict", "post", &path, &format!("/v1/endpoints/shop.1/{turn}"), &Value::Null);
        api.refuses(a, "not-found", "post", &path, &format!("/v1/endpoints/nobody/{turn}"), &Value::Null);
        api.refuses(a, "bad-request", "post", &path, &format!("/v1/endpoints/shop.1/{turn}?wait=11m"), &Value::Null);
    }
    let lease =
        json!({ "network": "web", "endpoints": [{ "task": "l", "addresses": ["10.0.9.9/24"] }], "grace": "0s" });
    let mut leased = Lines::lease(api, a, &lease);
    leased.until("leased");
    leased.until("heartbeat");
    let mut over = Lines::lease(api, a, &lease);
    over.until("leased");
    leased.until("superseded");
    refuse_networks(api, nodes);
}

/// What can be asked of a network, when there are two of its name.
fn two_of_a_name(api: &Api, node: &Node) {
    let (nothing, empty) = (Value::Null, json!({}));
    let lease = json!({ "network": "web", "endpoints": [] });
    let all = json!({ "endpoints": [] });
    let network = "/v1/networks/{reference}";
    for (method, path, target, body) in [
        ("get", network, "/v1/networks/web", &nothing),
        ("post", "/v1/networks/{reference}/attach", "/v1/networks/web/attach", &empty),
        ("post", "/v1/networks/{reference}/detach", "/v1/networks/web/detach", &nothing),
        ("post", "/v1/networks/{reference}/endpoints", "/v1/networks/web/endpoints", &empty),
        ("put", "/v1/networks/{reference}/endpoints", "/v1/networks/web/endpoints", &all),
        ("get", "/v1/networks/{reference}/seen", "/v1/networks/web/seen", &nothing),
        ("get", "/v1/endpoints", "/v1/endpoints?network=web", &nothing),
        ("post", "/v1/lease", "/v1/lease", &lease),
    ] {
        api.refuses(node, "ambiguous", method, path, target, body);
    }
}

/// What the present state does not allow of networks and endpoints.
fn refuse_networks(api: &Api, [a, _, c]: &[Node; 3]) {
    let nothing = Value::Null;
    let empty = json!({});
    let path = "/v1/networks/{reference}/endpoints";
    let of = |network: &str, verb: &str| format!("/v1/networks/{network}/{verb}");
    let all = json!({ "endpoints": [] });
    api.refuses(a, "not-found", "get", "/v1/networks/{reference}", "/v1/networks/nobody", &nothing);
    api.refuses(a, "not-found", "post", path, &of("nobody", "endpoints"), &empty);
    api.refuses(a, "not-found", "put", path, &of("nobody", "endpoints"), &all);
    api.refuses(a, "not-found", "post", "/v1/networks/{reference}/detach", &of("nobody", "detach"), &nothing);
    api.refuses(a, "not-found", "get", "/v1/networks/{reference}/seen", &of("nobody", "seen"), &nothing);
    api.refuses(a, "bad-request", "get", "/v1/networks/{reference}/seen", &of("web", "seen?version=1"), &nothing);
    api.refuses(a, "bad-request", "post", "/v1/networks/{reference}/detach", &of("web", "detach?wait=11m"), &nothing);
    api.refuses(a, "bad-request", "get", "/v1/endpoints", "/v1/endpoints?port=http", &nothing);
    api.refuses(a, "not-found", "get", "/v1/endpoints", "/v1/endpoints?network=nobody", &nothing);
    api.refuses(c, "conflict", "get", "/v1/endpoints", "/v1/endpoints?network=web", &nothing);
    api.refuses(a, "not-found", "get", "/v1/endpoints/{reference}", "/v1/endpoints/nobody", &nothing);
    let lease = json!({ "network": "nobody", "endpoints": [] });
    api.refuses(a, "not-found", "post", "/v1/lease", "/v1/lease", &lease);
}

/// What the present state does not allow.
fn refuse_all(api: &Api, nodes: &[Node; 3], idle: &Node) {
    let [a, b, c] = nodes;
    let nothing = Value::Null;
    let drain = json!({ "availability": "drain" });
    for (verb, body) in [("update", drain.clone()), ("remove", json!({ "force": true }))] {
        let path = format!("/v1/members/{{reference}}/{verb}");
        let at = |reference: &str| format!("/v1/members/{reference}/{verb}");
        api.refuses(a, "ambiguous", "post", &path, &at("worker"), &body);
        api.refuses(a, "not-found", "post", &path, &at("nobody"), &body);
        api.refuses(b, "not-manager", "post", &path, &at(&c.id()), &body);
    }
    let (update, remove) = ("/v1/members/{reference}/update", "/v1/members/{reference}/remove");
    api.refuses(a, "conflict", "post", update, "/v1/members/self/update", &json!({ "role": "worker" }));
    api.refuses(a, "conflict", "post", remove, "/v1/members/self/remove", &nothing);
    api.refuses(a, "ambiguous", "get", "/v1/members/{reference}", "/v1/members/worker", &nothing);
    api.refuses(a, "not-found", "get", "/v1/members/{reference}", "/v1/members/nobody", &nothing);
    api.refuses(a, "not-found", "get", "/v1/join-tokens/{role}", "/v1/join-tokens/boss", &nothing);
    api.refuses(b, "not-manager", "get", "/v1/join-tokens", "/v1/join-tokens", &nothing);
    api.refuses(b, "not-manager", "get", "/v1/join-tokens/{role}", "/v1/join-tokens/worker", &nothing);
    let rotate = "/v1/join-tokens/{role}/rotate";
    api.refuses(a, "not-found", "post", rotate, "/v1/join-tokens/boss/rotate", &nothing);
    api.refuses(b, "not-manager", "post", rotate, "/v1/join-tokens/worker/rotate", &nothing);
    api.refuses(b, "not-manager", "post", "/v1/ca/rotate", "/v1/ca/rotate", &nothing);
    for query in ["status=", "role=worker,", "name=,a"] {
        let target = format!("/v1/members?{query}");
        api.refuses(a, "bad-request", "get", "/v1/members", &target, &nothing);
    }
    api.refuses(a, "gone", "get", "/v1/watch", "/v1/watch?since=1", &nothing);
    api.refuses(a, "conflict", "post", "/v1/cluster/leave", "/v1/cluster/leave", &nothing);
    for path in ["/v1/cluster/init", "/v1/cluster/join"] {
        let body = least(&("post".into(), path.into()));
        api.refuses(a, "already-in-cluster", "post", path, path, &body);
    }

    let taken = TcpListener::bind((idle.ip, 0)).unwrap();
    let node = json!({ "listen_addr": taken.local_addr().unwrap() });
    let token = least(&("post".into(), "/v1/cluster/join".into()))["token"].clone();
    api.refuses(idle, "conflict", "post", "/v1/cluster/init", "/v1/cluster/init", &json!({ "node": node }));
    let mut join = json!({ "token": token, "remotes": [a.addr()], "node": node });
    api.refuses(idle, "conflict", "post", "/v1/cluster/join", "/v1/cluster/join", &join);
    join["node"] = json!({});
    api.refuses(idle, "unreachable", "post", "/v1/cluster/join", "/v1/cluster/join", &join);
    let good = api.get(a, "/v1/join-tokens/{role}", "/v1/join-tokens/worker")["token"].as_str().unwrap().to_owned();
    join["token"] = format!("{}{}", &good[..good.len() - 25], "0".repeat(25)).into();
    api.refuses(idle, "refused", "post", "/v1/cluster/join", "/v1/cluster/join", &join);
}

/// What no daemon allows, of every operation that says so: what cannot be understood, what is too long, what needs a cluster.
fn misuse_all(api: &Api, idle: &Node) {
    for operation @ (method, path) in &api.document.that_answer(400, "bad-request") {
        let target = filled(path);
        let (target, sent) = match api.takes_body(operation) {
            true => (target, Sent::Unfit(r#"{"nonsense":1}"#)),
            false if path.contains('{') => (path.replace("{reference}", "%ff").replace("{role}", "%ff"), Sent::Nothing),
            false => (format!("{target}?nonsense=1"), Sent::Nothing),
        };
        assert_eq!(api.ask(idle, method, path, &target, sent).status, 400);
    }
    let long = format!("{{}}{}", " ".repeat(33 << 20));
    for (method, path) in &api.document.that_answer(413, "bad-request") {
        let operation = (method.clone(), path.clone());
        let answer = http(&idle.socket(), &method.to_uppercase(), &filled(path), &long).unwrap();
        api.document.check(&operation, path, Sent::Unfit("too long"), &answer);
        assert_eq!(answer.status, 413);
    }
    for operation @ (method, path) in &api.document.that_answer(409, "not-in-cluster") {
        let body = if api.takes_body(operation) { least(operation) } else { Value::Null };
        api.refuses(idle, "not-in-cluster", method, path, &filled(path), &body);
    }
    // Bodies that the document refuses are refused, and the other way round.
    let init = [
        r#"{"node":{"availability":"away"}}"#,
        r#"{"node":null}"#,
        r#"{"node":["127.0.0.1",null]}"#,
        r#"{"cert_expiry":7}"#,
        r#"{"cert_expiry":"1 fortnight"}"#,
        "[]",
        "{",
    ];
    for body in init {
        let answer = api.ask(idle, "post", "/v1/cluster/init", "/v1/cluster/init", Sent::Unfit(body));
        assert_eq!(answer.status, 400, "{body}");
    }
    for body in [r#"{"metadata":{"no spaces":"x"}}"#, r#"{"metadata":{"a":"b\nc"}}"#, r#"{"metadata":{"a":1}}"#, "{}"] {
        let answer = api.ask(idle, "put", "/v1/self/metadata", "/v1/self/metadata", Sent::Unfit(body));
        assert_eq!(answer.status, 400, "{body}");
    }
    api.ask(idle, "put", "/v1/self/metadata", "/v1/self/metadata", Sent::Fit(r#"{"metadata":{"a":"b"}}"#));
}

/// What a user without rights may not do, of every operation that says so.
fn forbid_all(api: &Api, guarded: &Node) {
    for operation @ (method, path) in &api.document.that_answer(403, "forbidden") {
        let body = least(operation).to_string();
        let mut curl = command("curl");
        curl.args(["-sS", "-i", "-X", &method.to_uppercase(), "--unix-socket"]).arg(guarded.socket());
        if api.takes_body(operation) {
            curl.args(["--data", &body]);
        }
        curl.arg(format!("http://gossipd{}", filled(path))).current_dir("/").uid(NOBODY).gid(NOBODY);
        let answer = Answer::parse(&Ran::of(&mut curl).ok()).unwrap();
        let sent = if api.takes_body(operation) { Sent::Fit(body.as_str()) } else { Sent::Nothing };
        api.document.check(operation, path, sent, &answer);
        assert_eq!(answer.status, 403, "{method} {path}");
    }
}

/// As many readers as there may be, and one more.
fn crowd(api: &Api, node: &Node) {
    let readers: Vec<_> = (0..READERS_MAX).map(|_| Lines::open(api, node, "")).collect();
    api.refuses(node, "busy", "get", "/v1/watch", "/v1/watch", &Value::Null);
    drop(readers);
}

/// As many requests as may wait for others, and one more of each kind.
fn crowd_of_waits(api: &Api, [a, b, c]: &[Node; 3]) {
    api.does(a, "post", "/v1/networks/{reference}/attach", "/v1/networks/back/attach", &json!({}));
    b.signal(Signal::SIGSTOP);
    let seen = "/v1/networks/{reference}/seen";
    std::thread::scope(|scope| {
        for _ in 0..2 * WAITS_MAX {
            scope.spawn(|| http(&a.socket(), "GET", "/v1/networks/web/seen?wait=30s", "").unwrap());
        }
        wait_for("no more to be let in", || {
            let answer = api.ask(a, "get", seen, "/v1/networks/web/seen?wait=0s", Sent::Nothing);
            if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        let (nothing, wait) = (Value::Null, json!({ "wait": "1s" }));
        let busy =
            |method: &str, path: &str, target: &str, body: &Value| api.refuses(a, "busy", method, path, target, body);
        busy("get", seen, "/v1/networks/web/seen?wait=1s", &nothing);
        busy("post", "/v1/networks/{reference}/attach", "/v1/networks/web/attach", &wait);
        busy("post", "/v1/networks/{reference}/endpoints", "/v1/networks/web/endpoints", &wait);
        for turn in ["disable", "enable", "remove"] {
            let path = format!("/v1/endpoints/{{reference}}/{turn}");
            busy("post", &path, &format!("/v1/endpoints/shop.1/{turn}?wait=1s"), &nothing);
        }
        let none = json!({ "endpoints": [], "wait": "1s" });
        busy("put", "/v1/networks/{reference}/endpoints", "/v1/networks/web/endpoints", &none);
        let drain = json!({ "availability": "drain", "wait": "1s" });
        busy("post", "/v1/members/{reference}/update", &format!("/v1/members/{}/update", c.id()), &drain);
        busy("post", "/v1/networks/{reference}/detach", "/v1/networks/back/detach?wait=1s", &nothing);
        b.signal(Signal::SIGCONT);
    });
    all_ready(&[a, b, c]);
}

/// A daemon that somebody without rights can talk to; none where that cannot be had.
fn guarded() -> Option<Node> {
    let has_curl = std::process::Command::new("curl").arg("--version").output().is_ok();
    let group = Group::from_gid(Gid::from_raw(NOBODY)).unwrap().filter(|_| is_root() && has_curl)?;
    let mut node = Node::new("guarded").with_config(&format!("[api]\ngroup = {:?}\n", group.name));
    fs::set_permissions(node.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    node.start();
    Some(node)
}

#[test]
fn the_document_is_what_the_daemon_does() {
    let nodes = ["web", "worker", "worker"].map(Node::started);
    let idle = Node::started("idle");
    let api = Api { document: Document::of(&idle) };
    formed(&api, &nodes);
    read_all(&api, &nodes, &idle);
    misuse_all(&api, &idle);
    examine_all(&api, &nodes);
    decide_all(&api, &nodes);
    lead_all(&api, &nodes);
    network_all(&api, &nodes);
    refuse_all(&api, &nodes, &idle);
    crowd(&api, &nodes[0]);
    crowd_of_waits(&api, &nodes);
    let guarded = guarded();
    match &guarded {
        Some(guarded) => forbid_all(&api, guarded),
        None => crate::harness::skip("who may not write needs root, curl and a group with the id 65534"),
    }

    // The ends: of a member, and of membership.
    let [a, b, c] = &nodes;
    let mut lines = Lines::open(&api, c, "&topics=members");
    lines.until("synced");
    let path = "/v1/members/{reference}/remove";
    let body = json!({ "force": true, "reason": "bad disk", "wait": "1s" });
    let removed = api.does(a, "post", path, &format!("/v1/members/{}/remove", c.id()), &body);
    assert_eq!(lines.until("closed")["reason"], "removed", "{removed}");
    let mut lines = Lines::open(&api, b, "");
    let left = api.does(b, "post", "/v1/cluster/leave", "/v1/cluster/leave", &json!({}));
    assert_eq!((&left["acknowledged"], &lines.until("closed")["reason"]), (&true.into(), &"left".into()));
    wait_for("the listing without them", || {
        let statuses = api.get(a, "/v1/members", "/v1/members");
        let statuses: Vec<_> =
            statuses["members"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
        if statuses.iter().filter(|status| **status == "ready").count() == 1 {
            Ok(())
        } else {
            Err(format!("{statuses:?}"))
        }
    });
    let answer = api.ask(a, "post", "/v1/cluster/leave", "/v1/cluster/leave", Sent::Fit(r#"{"force":true}"#));
    assert_eq!(answer.status, 200, "{answer:?}");

    // All of it was seen, but for what does not happen to a daemon that works.
    let mut unseen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in api.document.unseen() {
        let (operation, answer) = one.split_at(one.match_indices(' ').nth(1).unwrap().0);
        unseen.entry(answer.trim().to_owned()).or_default().insert(operation.to_owned());
    }
    let internal = unseen.remove("500 urn:gossipd:problem:internal").unwrap_or_default();
    assert!(internal.iter().all(|operation| operation.contains(" /v1/")), "{internal:?}");
    if guarded.is_none() {
        unseen.remove("403 urn:gossipd:problem:forbidden");
    }
    // A daemon that is degraded is asked in `detector`.
    // For an instant, when another manager has replaced a token; where as much is written as a node may have.
    let rare = unseen.remove("409 urn:gossipd:problem:conflict").unwrap_or_default();
    let is_rare = |operation: &String| {
        ["/v1/join-tokens", "/v1/networks/", "/v1/lease"].iter().any(|path| operation.contains(path))
    };
    assert!(rare.iter().all(is_rare), "{rare:?}");
    assert_eq!(unseen.remove("503"), Some(["get /v1/health".to_owned()].into()));
    // It is in force, and can be done once: it is done below.
    let busy = unseen.remove("503 urn:gossipd:problem:busy");
    assert_eq!(busy, Some(["post /v1/members/{reference}/remove".to_owned()].into()));
    assert!(unseen.is_empty(), "documented, and not seen: {unseen:#?}");
}

#[test]
fn what_has_no_operation_is_a_problem_of_the_document() {
    let node = Node::started("asked");
    let document = Document::of(&node);
    for (method, path, status) in [("GET", "/v1/nowhere", 404), ("DELETE", "/v1/self", 405)] {
        let answer = http(&node.socket(), method, path, "").unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")));
        document.check_schema("Problem", &answer.json());
    }
}
