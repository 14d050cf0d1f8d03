//! Getting in: tokens that are good, and every kind that is not.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::thread;
use std::time::SystemTime;

use gossipd::api::JoinResponse;
use gossipd::record::{Role, Status};

use crate::harness::{Node, all_ready, free_port, is_closed, shows, wait_for};

/// A daemon in no cluster, and the address that it would listen at.
fn joiner(name: &str) -> (Node, SocketAddr) {
    let node = Node::new(name);
    let port = free_port(node.ip);
    let addr = SocketAddr::from((node.ip, port));
    let mut node = node.on_port(port);
    node.start();
    (node, addr)
}

/// Nothing of an attempt to join is left.
#[track_caller]
fn untouched(node: &Node, addr: SocketAddr) {
    let files: Vec<_> = fs::read_dir(node.state_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().all(|name| ["store.redb", "lock", "node.json"].contains(&name.as_str())), "{files:?}");
    assert_eq!(node.own().cluster, None);
    assert!(is_closed(addr), "{addr} is still open");
}

/// The same text with another last character, which is a digit of the same number system.
fn altered(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// R2: tokens that are refused: altered, rotated, revoked, expired, used up, of another cluster, malformed.
#[test]
fn tokens_that_are_not_valid_are_refused_and_leave_no_trace() {
    let manager = Node::started("manager");
    manager.init();
    let remote = manager.addr().to_string();
    let (node, addr) = joiner("joiner");
    let refused = |token: &str, code: i32, texts: &[&str]| {
        node.try_join(token, &[&remote]).refused(code, texts);
        untouched(&node, addr);
    };
    let never_issued: &[&str] =
        &["refused", &remote, "join token is not valid", "rotated or revoked", "join-token worker"];

    let first = manager.token("worker");
    refused(&altered(&first), 1, never_issued);

    let said = manager.ctl(&["join-token", "worker", "--rotate"]).ok();
    assert!(said.starts_with("Successfully rotated worker join token."), "{said}");
    assert!(!said.contains(&first));
    refused(&first, 1, never_issued);

    let second = manager.token("worker");
    let said = manager.ctl(&["join-token", "worker", "--revoke"]).ok();
    assert!(said.starts_with("Revoked the worker join token."), "{said}");
    refused(&second, 1, never_issued);
    manager.ctl(&["join-token", "worker"]).refused(1, &["the worker join token was revoked", "--rotate"]);

    manager.ctl(&["join-token", "worker", "--rotate", "--expires", "1s"]).ok();
    let answer = manager.get("/v1/join-tokens/worker").json();
    let end = humantime::parse_rfc3339(answer["expires_at"].as_str().unwrap()).unwrap();
    wait_for("the end of the token", || if SystemTime::now() > end { Ok(()) } else { Err("it is valid".to_owned()) });
    let expired = answer["token"].as_str().unwrap();
    for args in [&["join-token", "worker"][..], &["join-token", "-q", "worker"]] {
        manager.ctl(args).refused(1, &["the worker join token expired at 2", "gossipctl join-token worker --rotate"]);
    }
    refused(expired, 1, &["the worker join token expired at 2", "gossipctl join-token worker --rotate"]);

    // Another cluster's: the secret is not shown to this one.
    let other = Node::started("other");
    other.init();
    let asked = || manager.metric("gossipd_admissions_total{result=\"refused\"}");
    let before = asked();
    refused(&other.token("worker"), 1, &["no manager", &remote, "it belongs to another cluster than the join token"]);
    assert_eq!(asked(), before, "the manager has seen the secret of another cluster's token");

    let malformed: &[&str] = &["join token is malformed", "was it cut off when copied?"];
    refused(&first[..first.len() - 3], 1, malformed);
    refused(&format!("{first}x"), 1, malformed);
    let mistyped: &[&str] = &["join token is malformed: it has the right length, but is mistyped"];
    refused(&first.to_uppercase(), 1, mistyped);
    refused(&format!("{}{}", &first[..first.len() - 25], "z".repeat(25)), 1, mistyped);
    refused(&first.to_lowercase(), 1, &["join token is malformed: it does not start with GDTKN-1-"]);
    refused(&first.replace("GDTKN-1-", "GDTKN-2-"), 1, &["later version", "upgrade gossipd"]);
    refused("hello", 1, &["join token is malformed: it does not start with GDTKN-1-"]);
    let swarm = "SWMTKN-1-49x7ir3ihge066dretzivcu2gmdbwtys7v6h1yvybx784e5g5v-734ruykh451rsguxdjfhonuxn";
    refused(swarm, 1, &["this is a join token of Docker Swarm", "gossipctl join-token worker"]);
    refused("", 2, &["--token"]);
    node.ctl(&["join", &remote]).refused(2, &["a join token is missing", "--token-file", "GOSSIPD_JOIN_TOKEN"]);
    untouched(&node, addr);
    assert_eq!(manager.members().unwrap().len(), 1, "nobody got in");

    // The same node gets in with a good one; the next finds it used up.
    let said = manager.ctl(&["join-token", "worker", "--rotate", "--max-uses", "1"]).ok();
    assert!(said.contains("This token is valid for 1 more join."), "{said}");
    let once = manager.token("worker");
    assert_eq!(node.try_join(&once, &[&remote]).ok(), "This node joined a cluster as a worker.\n");
    all_ready(&[&manager, &node]);
    assert_eq!(manager.get("/v1/join-tokens/worker").json()["uses_left"], 0);
    manager.ctl(&["join-token", "-q", "worker"]).refused(1, &["the worker join token is used up", "--rotate"]);
    let (late, late_addr) = joiner("late");
    late.try_join(&once, &[&remote])
        .refused(1, &["was good for 1 join, which is used up", "gossipctl join-token worker --rotate"]);
    untouched(&late, late_addr);
    // The manager's token was not touched by any of it.
    late.join(&manager, "manager");
    all_ready(&[&manager, &node, &late]);
}

#[test]
fn a_copy_of_an_id_joins_as_another_node() {
    let manager = Node::started("manager");
    manager.init();
    let mut copy = Node::new("copy");
    fs::create_dir(copy.state_dir()).unwrap();
    fs::copy(manager.state_dir().join("node.json"), copy.state_dir().join("node.json")).unwrap();
    copy.start();
    copy.join(&manager, "worker");
    assert_ne!(copy.id(), manager.id());
    all_ready(&[&manager, &copy]);
}

/// R2: tokens, used up.
#[test]
fn a_used_up_token_stays_used_up_after_a_kill() {
    let mut manager = Node::started("manager");
    manager.init();
    manager.ctl(&["join-token", "worker", "--rotate", "--max-uses", "1"]).ok();
    let once = manager.token("worker");
    let node = Node::started("one");
    node.try_join(&once, &[&manager.addr().to_string()]).ok();
    manager.kill_and_start();
    let other = Node::started("two");
    other.try_join(&once, &[&manager.addr().to_string()]).refused(1, &["was good for 1 join, which is used up"]);
}

#[test]
fn a_manager_token_makes_a_manager() {
    let first = Node::started("first");
    first.init();
    let second = Node::started("second");
    second.join(&first, "manager");
    all_ready(&[&first, &second]);
    for observer in [&first, &second] {
        assert_eq!(shows(observer, &second.id(), Status::Ready).role, Some(Role::Manager));
        assert_eq!(observer.own().cluster.unwrap().managers, 2);
    }
    for role in ["worker", "manager"] {
        assert_eq!(first.token(role), second.token(role));
    }
    // What is rotated on one is in force on the other, both ways.
    for (here, there) in [(&first, &second), (&second, &first)] {
        let old = here.token("worker");
        here.ctl(&["join-token", "worker", "--rotate"]).ok();
        assert_ne!(here.token("worker"), old);
        assert_eq!(here.token("worker"), there.token("worker"));
        let worker = Node::started("worker");
        worker.try_join(&old, &[&there.addr().to_string()]).refused(1, &["join token is not valid"]);
        worker.join(there, "worker");
        all_ready(&[here, there, &worker]);
        worker.ctl(&["leave"]).ok();
    }
    // The second manager goes on alone.
    let mut first = first;
    first.kill();
    let worker = Node::started("worker");
    worker.join(&second, "worker");
    all_ready(&[&second, &worker]);
}

#[test]
fn a_manager_that_cannot_be_told_of_a_rotation_is_named() {
    let (mut first, _) = joiner("first");
    first.init();
    let second = Node::started("second");
    second.join(&first, "manager");
    all_ready(&[&first, &second]);
    let id = first.id();
    first.kill();
    let ran = second.ctl(&["join-token", "worker", "--rotate"]);
    // It may be known to be down already; then nobody can be asked.
    let is_known_down = second.member(&id).unwrap().status == Status::Down;
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.err.contains(&id) || is_known_down, "{ran:#?}");
    // It comes back with the old token, and learns of the new one by itself.
    let new = second.token("worker");
    first.start();
    all_ready(&[&first, &second]);
    wait_for("the new token on the manager that was away", || {
        let token = first.ctl(&["join-token", "-q", "worker"]);
        if token.out.trim_end() == new { Ok(()) } else { Err(token.err) }
    });
}

#[test]
fn a_worker_points_to_the_managers() {
    let manager = Node::started("manager");
    manager.init();
    let worker = Node::started("worker");
    worker.join(&manager, "worker");
    all_ready(&[&manager, &worker]);
    let (via, token) = (worker.addr().to_string(), manager.token("worker"));

    let node = Node::started("one");
    let body = serde_json::json!({ "token": token, "remotes": [via] }).to_string();
    let answer = node.post("/v1/cluster/join", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let joined: JoinResponse = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((joined.admitted_by, joined.role), (manager.addr(), Role::Worker));
    let other = Node::started("two");
    assert_eq!(other.try_join(&token, &[&via]).ok(), "This node joined a cluster as a worker.\n");
    all_ready(&[&manager, &worker, &node, &other]);

    for args in [&["join-token", "worker"][..], &["join-token", "worker", "--rotate"], &["join-token", "-q", "manager"]]
    {
        worker.ctl(args).refused(1, &["this node is a worker", "managers", "gossipctl members"]);
    }
}

#[test]
fn dead_duplicate_named_and_own_addresses_do_no_harm() {
    // `localhost` is 127.0.0.1, so that is where this manager is.
    let mut manager = Node::new("manager").at(Ipv4Addr::LOCALHOST);
    manager.start();
    manager.init();
    let port = manager.addr().port();
    let (node, addr) = joiner("joiner");
    let dead = SocketAddr::from((crate::harness::fresh_ip(), 9)).to_string();
    let remotes = [&dead, &dead, &addr.to_string(), &format!("localhost:{port}"), &format!("127.0.0.1:{port}")];
    let remotes: Vec<&str> = remotes.iter().map(|remote| remote.as_str()).collect();
    assert_eq!(node.try_join(&manager.token("worker"), &remotes).ok(), "This node joined a cluster as a worker.\n");
    all_ready(&[&manager, &node]);
}

#[test]
fn each_remote_that_was_not_reached_is_listed_with_its_reason() {
    let manager = Node::started("manager");
    manager.init();
    let token = manager.token("worker");
    let (node, addr) = joiner("joiner");
    let dead = SocketAddr::from((crate::harness::fresh_ip(), 9)).to_string();
    // Something that listens and is no gossipd.
    let listener = TcpListener::bind((crate::harness::fresh_ip(), 0)).unwrap();
    let stranger = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
    });
    let own = addr.to_string();
    let ran = node.try_join(&token, &[&dead, &stranger, &own, "no-such-host.invalid"]);
    let text = ran.refused(1, &["no manager of the cluster was reached; tried"]);
    for (remote, reason) in [
        (dead.as_str(), "cannot connect: Connection refused"),
        (&stranger, "TLS: "),
        (&own, "this node itself"),
        ("no-such-host.invalid", "failed to lookup address information"),
    ] {
        assert!(text.contains(&format!("{remote} ({reason}")), "{remote} ({reason}) in {text}");
    }
    server.join().unwrap();
    untouched(&node, addr);
    node.join(&manager, "worker");
}

/// R21: refusals: where to join through.
#[test]
fn a_malformed_remote_is_refused_before_anything_is_tried() {
    let manager = Node::started("manager");
    manager.init();
    let (token, good) = (manager.token("worker"), manager.addr().to_string());
    let (node, addr) = joiner("joiner");
    for bad in
        ["127.0.0.1:99999", "http://127.0.0.1", "a b", "[::1", "127.0.0.1:", ":7946", "127.0.0.1:0", "somewhere:99999"]
    {
        let said = format!("{bad:?} is not where a member could be asked; expected HOST[:PORT]");
        // Also when another one would have done.
        node.try_join(&token, &[&good, bad]).refused(1, &[&said]);
        let body = serde_json::json!({ "token": token, "remotes": [bad] }).to_string();
        let answer = node.post("/v1/cluster/join", &body);
        assert_eq!((answer.status, &answer.json()["type"]), (400, &"urn:gossipd:problem:bad-request".into()), "{bad}");
    }
    untouched(&node, addr);
    assert_eq!(manager.members().unwrap().len(), 1);
    node.join(&manager, "worker");
}

#[test]
fn a_member_does_not_join_or_found_a_second_cluster() {
    let nodes = crate::harness::cluster(&["a", "b"]);
    let other = Node::started("other");
    other.init();
    for node in &nodes {
        let id = node.own().cluster.unwrap().id.to_string();
        let texts = ["this node is already in cluster", id.as_str(), "gossipctl leave"];
        node.ctl(&["init"]).refused(1, &texts);
        node.try_join(&other.token("worker"), &[&other.addr().to_string()]).refused(1, &texts);
        assert_eq!(node.own().cluster.unwrap().id.to_string(), id);
    }
    all_ready(&[&nodes[0], &nodes[1]]);
}

/// R2: tokens, and where they may come from.
#[test]
fn tokens_come_from_files_the_environment_and_a_pipe() {
    let manager = Node::started("manager");
    manager.init();
    let quiet = manager.ctl(&["join-token", "-q", "worker"]).ok();
    let token = quiet.trim_end();
    assert!(quiet.ends_with('\n') && quiet.lines().count() == 1 && token.starts_with("GDTKN-1-"), "{quiet}");
    let full = manager.ctl(&["join-token", "worker"]).ok();
    let remote = manager.addr().to_string();
    assert!(full.contains(&format!("gossipctl join --token {token} {remote}")), "{full}");

    let by_file = Node::started("file");
    let file = by_file.dir().join("token");
    fs::write(&file, &quiet).unwrap();
    by_file.ctl(&["join", "--token-file", file.to_str().unwrap(), &remote]).ok();

    let by_environment = Node::started("environment");
    let mut command = by_environment.ctl_command(&["join", &remote]);
    crate::harness::Ran::of(command.env("GOSSIPD_JOIN_TOKEN", token)).ok();

    let by_pipe = Node::started("pipe");
    let mut command = by_pipe.ctl_command(&["join", "--token-file", "-", &remote]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(quiet.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    // Unattended, by configuration; the manager may come later than the file that names it.
    let mut unattended = Node::new("unattended");
    let key = unattended.dir().join("key");
    unattended.set_config(&format!("[join]\nremotes = [{remote:?}]\ntoken_file = {:?}\n", key.to_str().unwrap()));
    unattended.start();
    wait_for("a first attempt without a token", || {
        let log = unattended.log();
        if log.contains("unattended join failed") { Ok(()) } else { Err(log) }
    });
    fs::write(&key, &quiet).unwrap();
    wait_for("the unattended join", || {
        unattended.own().cluster.map(drop).ok_or_else(|| "it is in no cluster".to_owned())
    });
    all_ready(&[&manager, &by_file, &by_environment, &by_pipe, &unattended]);

    let gone = Node::started("gone");
    let missing = gone.dir().join("missing");
    let ran = gone.ctl(&["join", "--token-file", missing.to_str().unwrap(), &remote]);
    ran.refused(1, &["cannot read the join token from", "missing"]);
    // The logs of nobody have the token in them.
    for node in [&manager, &by_file, &by_environment, &by_pipe, &unattended] {
        assert!(!node.log().contains(token), "the log of {} has the token", node.name);
    }
}
