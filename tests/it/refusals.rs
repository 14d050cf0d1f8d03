//! What the operator or the machine got wrong: said with the value and what to do, with its exit code, and nothing lost.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{GOSSIPD, Node, Ran, all_ready, command, free_port, is_closed, is_root, skip, wait_for};

/// Exit codes of the daemon, as `gossipd --help` lists them.
const DAMAGED: i32 = 65;
const IN_USE: i32 = 69;
const CANNOT_CREATE: i32 = 73;
const CONFIGURATION: i32 = 78;

// ---- one daemon at a time --------------------------------------------------------------------------------------------

/// R21: refusals: a second daemon.
#[test]
fn two_daemons_do_not_share_a_socket_or_a_state_directory() {
    let first = Node::started("first");
    first.init();
    let (id, socket) = (first.id(), first.socket());

    let mut second = Node::new("second").with_socket(&socket);
    let texts = ["another daemon serves", socket.to_str().unwrap(), "choose another --socket"];
    second.start_in_vain().refused(IN_USE, &texts);

    let state = first.state_dir();
    let mut third = Node::new("third").with_state_dir(&state);
    let texts = ["state directory", state.to_str().unwrap(), "in use by another gossipd", "--state-dir"];
    third.start_in_vain().refused(IN_USE, &texts);
    assert!(!third.socket().exists());

    // The first one has not noticed.
    assert!(socket.exists());
    assert_eq!(first.id(), id);
    assert!(first.own().cluster.is_some());
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_not() {
    let mut node = Node::started("stale");
    node.kill();
    assert!(node.socket().exists(), "kill -9 leaves it behind");
    node.start();
    assert_eq!(node.terminate(), 0);
    assert!(!node.socket().exists());

    fs::write(node.socket(), "somebody's data").unwrap();
    let socket = node.socket();
    node.start_in_vain().refused(CANNOT_CREATE, &[socket.to_str().unwrap(), "exists and is not a socket"]);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "somebody's data");
    fs::remove_file(&socket).unwrap();
    node.start();
}

// ---- ports -----------------------------------------------------------------------------------------------------------

/// R21: refusals: a taken port.
#[test]
fn a_taken_port_is_told_at_init_and_join_and_changes_nothing() {
    let manager = Node::started("manager");
    manager.init();
    let (token, remote) = (manager.token("worker"), manager.addr().to_string());
    let node = Node::started("node");
    let addr = SocketAddr::from((node.ip, free_port(node.ip)));
    let text = addr.to_string();
    let attempts: [&[&str]; 2] =
        [&["init", "--listen-addr", &text], &["join", "--listen-addr", &text, "--token", &token, &remote]];
    let refused = |protocol: &str| {
        for args in attempts {
            let said = format!("cannot listen on {addr} ({protocol}): the address is in use");
            node.ctl(args).refused(1, &[&said, "another gossipd, dockerd or serf", "--listen-addr"]);
            assert!(node.own().cluster.is_none() && !node.is_member_on_disk());
        }
    };
    let udp = UdpSocket::bind(addr).unwrap();
    refused("UDP");
    drop(udp);
    let tcp = TcpListener::bind(addr).unwrap();
    refused("TCP");
    drop(tcp);
    assert_eq!(manager.members().unwrap().len(), 1);
    node.ctl(attempts[1]).ok();
    assert_eq!(node.addr(), addr);
    all_ready(&[&manager, &node]);

    let other = Node::started("other");
    let elsewhere = other.ctl(&["init", "--listen-addr", "203.0.113.1"]);
    elsewhere.refused(1, &["cannot listen on 203.0.113.1", "no interface of this machine has that address"]);
    assert!(!other.is_member_on_disk());
}

#[test]
fn a_taken_port_ends_the_start_of_a_member() {
    let node = Node::new("member");
    let port = free_port(node.ip);
    let mut node = node.on_port(port);
    node.start();
    node.init();
    let (id, generation, addr) = (node.id(), node.generation(), node.addr());
    assert_eq!(node.terminate(), 0);
    let udp = UdpSocket::bind(addr).unwrap();
    let said = format!("cannot listen on {addr} (UDP): the address is in use");
    node.start_in_vain().refused(IN_USE, &[&said]);
    assert!(!node.socket().exists() && node.is_member_on_disk());
    drop(udp);
    node.start();
    assert!(node.id() == id && node.addr() == addr && node.generation() > generation);
}

#[test]
fn a_taken_port_for_metrics_ends_the_start() {
    let taken = TcpListener::bind((crate::harness::fresh_ip(), 0)).unwrap();
    let addr = taken.local_addr().unwrap();
    let mut node = Node::new("metrics").with_config(&format!("[metrics]\nlisten = \"{addr}\"\n"));
    node.start_in_vain().refused(IN_USE, &["metrics.listen: cannot listen on", &addr.to_string()]);
    drop(taken);
    node.start();
}

// ---- the disk --------------------------------------------------------------------------------------------------------

/// R21: refusals: the state directory.
#[test]
fn a_state_directory_that_cannot_be_made_ends_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("state");
    let cases = [below, PathBuf::from("/proc/gossipd-state"), PathBuf::from("/dev/null")];
    for path in cases {
        let mut node = Node::new("nowhere").with_state_dir(&path);
        node.start_in_vain().refused(CANNOT_CREATE, &["cannot create state directory", path.to_str().unwrap()]);
        assert!(!node.socket().exists());
    }
    let mut node = Node::new("deaf").with_socket(file.path().join("sock"));
    node.start_in_vain().refused(CANNOT_CREATE, &["cannot create the directory of", "sock"]);
    let long = std::env::temp_dir().join("s".repeat(120));
    let mut node = Node::new("long").with_socket(&long);
    node.start_in_vain().refused(CANNOT_CREATE, &["cannot bind", long.to_str().unwrap()]);
}

/// A daemon whose state directory is a file system of `pages` pages of its own, which nobody else sees.
fn on_small_disk(name: &str, pages: usize) -> Option<Node> {
    let may = is_root() && Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !may {
        skip("needs root and unshare for a small file system");
        return None;
    }
    let node = Node::new(name);
    let state = node.dir().join("state");
    fs::create_dir(&state).unwrap();
    let script = format!("mount -t tmpfs -o size={}k,mode=700 none \"$0\" && exec \"$@\"", pages * 4);
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, state.to_str().unwrap()];
    let mut node = node.wrapped_in(&words);
    node.start();
    Some(node)
}

/// The state directory as `node` sees it.
fn seen_by(node: &Node) -> PathBuf {
    let state = node.state_dir();
    Path::new("/proc").join(node.pid().to_string()).join("root").join(state.strip_prefix("/").unwrap())
}

/// Fills the file system of `dir` but for `pages` pages.
fn fill(dir: &Path, pages: u64) {
    const PAGE: [u8; 4096] = [0; 4096];
    let mut file = fs::File::create(dir.join("fill")).unwrap();
    let mut written: u64 = 0;
    while file.write_all(&PAGE).is_ok() {
        written += 1;
    }
    assert!(written >= pages, "{written} pages were free");
    file.set_len((written - pages) * 4096).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_at_init_leaves_nothing_half_done() {
    let Some(mut node) = on_small_disk("full", 16) else { return };
    let dir = seen_by(&node);
    let mut refusals = 0;
    // Wherever the disk is full: at the first byte, or after some files were written.
    for pages in 0..12 {
        fill(&dir, pages);
        let ran = node.ctl(&["init"]);
        if ran.code == 0 {
            break;
        }
        refusals += 1;
        ran.refused(1, &["cannot write", "No space left on device"]);
        let left = names(&dir);
        assert_eq!(left, ["fill", "lock", "node.json", "store.redb"], "with {pages} pages free");
        assert_eq!(node.own().cluster, None, "with {pages} pages free");
    }
    assert!(refusals >= 1);
    fs::remove_file(dir.join("fill")).unwrap();
    if node.own().cluster.is_none() {
        node.init();
    }
    assert_eq!(node.ctl(&["members", "-q"]).ok().lines().count(), 1);
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_full_disk_at_join_leaves_nothing_half_done() {
    let Some(node) = on_small_disk("full", 16) else { return };
    let manager = Node::started("manager");
    manager.init();
    let (token, remote) = (manager.token("worker"), manager.addr().to_string());
    let addr = SocketAddr::from((node.ip, free_port(node.ip)));
    let listen = addr.to_string();
    let dir = seen_by(&node);
    let join = ["join", "--listen-addr", &listen, "--token", &token, &remote];
    for pages in 0..12 {
        fill(&dir, pages);
        let ran = node.ctl(&join);
        if ran.code == 0 {
            break;
        }
        ran.refused(1, &["cannot write", "No space left on device"]);
        assert_eq!(names(&dir), ["fill", "lock", "node.json", "store.redb"], "with {pages} pages free");
        assert_eq!(node.own().cluster, None, "with {pages} pages free");
        assert!(is_closed(addr));
    }
    fs::remove_file(dir.join("fill")).unwrap();
    if node.own().cluster.is_none() {
        node.ctl(&join).ok();
    }
    all_ready(&[&manager, &node]);
}

#[test]
fn a_disk_that_fills_later_loses_nothing() {
    let Some(node) = on_small_disk("full", 64) else { return };
    node.init();
    let worker = Node::started("worker");
    worker.join(&node, "worker");
    let token = node.token("worker");
    let dir = seen_by(&node);
    fill(&dir, 0);
    let ran = node.ctl(&["join-token", "worker", "--rotate"]);
    ran.refused(1, &["cannot write", "store.redb", "No space left on device"]);
    assert_eq!(node.token("worker"), token);
    // It goes on as a member, and admits those whose join it need not write down.
    let other = Node::started("other");
    other.join(&node, "worker");
    all_ready(&[&node, &worker, &other]);
    fs::remove_file(dir.join("fill")).unwrap();
    node.ctl(&["join-token", "worker", "--rotate"]).ok();
    assert_ne!(node.token("worker"), token);
}

#[test]
fn a_disk_that_became_read_only_is_told() {
    let Some(node) = on_small_disk("fixed", 16) else { return };
    let dir = seen_by(&node);
    let state = node.state_dir();
    let inside = |words: &[&str]| {
        let pid = node.pid().to_string();
        Ran::of(Command::new("nsenter").args(["-t", &pid, "-m"]).args(words).arg(&state)).ok();
    };
    // A mount on top: that below has a file that is open for writing, so it cannot change.
    let make_read_only = || {
        inside(&["mount", "--bind", state.to_str().unwrap()]);
        inside(&["mount", "-o", "remount,bind,ro"]);
    };
    let make_writable = || inside(&["umount"]);
    make_read_only();
    node.ctl(&["init"]).refused(1, &["cannot write", "node.json", "Read-only file system"]);
    assert_eq!(names(&dir), ["lock", "node.json", "store.redb"]);
    assert_eq!(node.own().cluster, None);
    make_writable();
    node.init();
    let worker = Node::started("worker");
    worker.join(&node, "worker");
    all_ready(&[&node, &worker]);
    make_read_only();
    let left = node.ctl(&["leave", "--force"]);
    left.refused(1, &["this node has left, but a restart would bring it back", "Read-only file system"]);
    make_writable();
}

#[test]
fn a_read_only_state_directory_ends_the_start() {
    if !is_root() || !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("needs root and unshare for a read-only file system");
    }
    let node = Node::new("fixed");
    let state = node.dir().join("state");
    fs::create_dir(&state).unwrap();
    let script = "mount -t tmpfs -o mode=700 none \"$0\" && mount -o remount,ro \"$0\" && exec \"$@\"";
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, state.to_str().unwrap()];
    let mut node = node.wrapped_in(&words);
    let ran = node.start_in_vain();
    ran.refused(CANNOT_CREATE, &["cannot ", state.to_str().unwrap(), "Read-only file system"]);
}

/// R21: refusals: damaged state.
#[test]
fn damaged_state_is_named_and_left_as_it_is() {
    let mut node = Node::started("damaged");
    node.init();
    let id = node.id();
    assert_eq!(node.terminate(), 0);
    type Damage = fn(&str) -> String;
    let damages: [(&str, Damage); 6] = [
        ("cut short", |text| text[..text.len() / 2].to_owned()),
        ("empty", |_| String::new()),
        ("garbage", |_| "\u{0}\u{1}\u{2} not json".to_owned()),
        ("of another format", |text| text.replacen("\"format\": 1", "\"format\": 9", 1)),
        ("of another shape", |_| "{\"format\": 1}".to_owned()),
        ("a list", |_| "[]".to_owned()),
    ];
    for file in ["cluster.json", "node.json"] {
        let path = node.state_dir().join(file);
        let good = fs::read_to_string(&path).unwrap();
        for (name, damage) in damages {
            let bad = damage(&good);
            assert_ne!(bad, good, "{name}");
            fs::write(&path, &bad).unwrap();
            let said = format!("{} is damaged or of another version", path.display());
            let text = node.start_in_vain().refused(DAMAGED, &[&said, "restore it from a backup"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), bad, "{file} {name}: as it was");
            // Keys stay secret, damaged or not.
            let secret = good.split('"').find(|word| word.len() >= 64).unwrap_or("no secret");
            assert!(!text.contains(secret), "{text}");
        }
        fs::write(&path, &good).unwrap();
    }
    node.start();
    assert_eq!(node.id(), id);
    assert!(node.own().cluster.is_some());
}

#[test]
fn keys_that_do_not_fit_together_are_damage_too() {
    let mut node = Node::started("damaged");
    node.init();
    assert_eq!(node.terminate(), 0);
    let path = node.state_dir().join("cluster.json");
    let good = fs::read_to_string(&path).unwrap();
    let mut stored: serde_json::Value = serde_json::from_str(&good).unwrap();
    for key in ["certificate", "ca_certificate", "private_key"] {
        let before = stored[key].take();
        stored[key] = format!("00{}", &before.as_str().unwrap()[2..]).into();
        fs::write(&path, stored.to_string()).unwrap();
        node.start_in_vain().refused(DAMAGED, &[path.to_str().unwrap()]);
        stored[key] = before;
    }
    fs::write(&path, &good).unwrap();
    node.start();
}

#[test]
fn a_membership_of_another_node_id_is_refused() {
    let mut node = Node::started("lost");
    node.init();
    assert_eq!(node.terminate(), 0);
    // Somebody removed the file that says who this is; the certificate is of somebody else now.
    let path = node.state_dir().join("node.json");
    let good = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    node.start_in_vain().refused(DAMAGED, &["cluster.json"]);
    fs::write(&path, good).unwrap();
    node.start();
    assert!(node.own().cluster.is_some());
}

// ---- configuration ---------------------------------------------------------------------------------------------------

/// R21: refusals: configuration.
#[test]
fn configuration_that_is_not_valid_ends_the_start() {
    let file = |node: &Node| node.config_path().to_str().unwrap().to_owned();
    // What stands in the file, and what is said about it.
    let syntax = [
        ("colour = \"red\"", ["unknown field `colour`", "state_dir"]),
        ("[api]\ncolour = 1", ["unknown field `colour`", "write_uids"]),
        ("[protocol]\nprobe_period = 1", ["unknown field `probe_period`", "probe_period_ms"]),
        ("port = \"many\"", ["port", "invalid type"]),
        ("port = 70000", ["port", "70000"]),
        ("port = ", ["port", "line 1"]),
        ("[api]\nwrite_uids = [\"root\"]", ["write_uids", "invalid type"]),
    ];
    for (config, texts) in syntax {
        let mut node = Node::new("bad").with_config(config);
        let path = file(&node);
        let said = node.start_in_vain().refused(CONFIGURATION, &[&path]);
        for text in texts {
            assert!(said.contains(text), "{text:?} in {said}");
        }
        assert!(!node.socket().exists() && !node.state_dir().exists(), "{config}");
    }
    let values = [
        ("on_terminate = \"explode\"", "on_terminate = \"explode\": expected stop or leave"),
        ("availability = \"away\"", "availability = \"away\": "),
        ("data_path_addr = \"a/b\"", "data_path_addr = \"a/b\": "),
        ("[api]\nmode = \"0666\"", "api.mode = \"0666\": everybody on the machine could write"),
        ("[api]\nmode = \"rw\"", "api.mode = \"rw\": expected an octal mode"),
        ("[api]\ngroup = \"no-such-group\"", "api.group = \"no-such-group\": there is no such group"),
        ("[metrics]\nlisten = \"here\"", "metrics.listen = \"here\": "),
        ("[protocol]\nprobe_period_ms = 1", "protocol.probe_period_ms = \"1\": expected 20 to 60000"),
        ("[protocol]\nprobe_rtt_ms = 5000", "protocol.probe_rtt_ms = \"5000\": must be below probe_period_ms"),
        ("[protocol]\ndatagram_bytes_max = 100", "protocol.datagram_bytes_max = \"100\": expected 1000 to 8952"),
        ("[join]\nremotes = [\"a:1\"]", "join.token_file is missing: join.remotes and join.token_file go together"),
    ];
    for (config, text) in values {
        let mut node = Node::new("bad").with_config(config);
        node.start_in_vain().refused(CONFIGURATION, &[text]);
    }
    let mut node = Node::new("bad");
    for filter in ["gossipd=loud", "inf", ""] {
        node.set_log_filter(filter);
        node.start_in_vain().refused(CONFIGURATION, &[&format!("log.filter = {filter:?}: "), "MODULE=LEVEL"]);
    }
    for (flags, code, text) in [
        (
            ["--on-terminate", "explode"],
            CONFIGURATION,
            "on_terminate (--on-terminate) = \"explode\": expected stop or leave",
        ),
        (["--log-format", "xml"], CONFIGURATION, "log.format (--log-format) = \"xml\": expected text or json"),
        (["--advertise-addr", "10.0.0"], CONFIGURATION, "advertise_addr (--advertise-addr) = \"10.0.0\": "),
        (["--log", "!!"], CONFIGURATION, "log.filter (--log) = \"!!\": \"!!\" is no directive; expected LEVEL"),
        (
            ["--data-path-addr", "lo:80"],
            CONFIGURATION,
            "data_path_addr (--data-path-addr) = \"lo:80\": \"lo:80\" has a port",
        ),
        (["--colour", "red"], 2, "--colour"),
    ] {
        Node::new("bad").with_flags(&flags).start_in_vain().refused(code, &[text]);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let run = |path: &Path| Ran::of(command(GOSSIPD).arg("run").arg("--config").arg(path));
    let missing = dir.path().join("missing.toml");
    let path = missing.to_str().unwrap();
    run(&missing).refused(CONFIGURATION, &["cannot read configuration", path, "No such file or directory"]);
    run(dir.path()).refused(CONFIGURATION, &["cannot read configuration", dir.path().to_str().unwrap()]);
    let binary = dir.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    run(&binary).refused(CONFIGURATION, &[binary.to_str().unwrap()]);
    // The environment is believed as a flag is.
    let mut by_environment = command(GOSSIPD);
    Ran::of(by_environment.arg("run").env("GOSSIPD_CONFIG", &missing)).refused(CONFIGURATION, &[path]);
}

/// R21: refusals: addresses.
#[test]
fn an_unknown_interface_is_answered_with_those_that_there_are() {
    let node = Node::started("named");
    for flag in ["--listen-addr", "--advertise-addr", "--data-path-addr"] {
        let ran = node.ctl(&["init", flag, "nosuch0"]);
        ran.refused(1, &["there is no interface \"nosuch0\"; interfaces here: ", "127.0.0.1 on lo"]);
    }
    let bad = node.ctl(&["init", "--listen-addr", "10.0.0"]);
    bad.refused(1, &["\"10.0.0\" is neither an IP address nor an interface name"]);
    for nobody in ["0.0.0.0", "255.255.255.255"] {
        let ran = node.ctl(&["init", "--advertise-addr", nobody]);
        let said = ran.refused(1, &[&format!("{nobody} cannot be advertised: others cannot reach it")]);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let unknown = node.ctl(&["init", "--listen-addr", "nosuch0"]).refused(1, &["nosuch0"]);
    assert_eq!(unknown.matches("127.0.0.1 on lo").count(), 1, "told once: {unknown}");
    node.ctl(&["init", "--data-path-addr", "127.0.0.1:80"]).refused(1, &["\"127.0.0.1:80\" has a port"]);
    node.ctl(&["init", "--listen-addr", ""]).refused(2, &["--listen-addr"]);
    assert!(node.own().cluster.is_none() && !node.is_member_on_disk());
    node.init();
}

#[test]
fn an_expiry_that_makes_no_sense_is_refused() {
    let node = Node::started("short");
    node.ctl(&["init", "--cert-expiry", "soon"]).refused(2, &["--cert-expiry", "soon"]);
    node.ctl(&["init", "--cert-expiry", "0s"]).refused(2, &["--cert-expiry", "must not be zero"]);
    node.ctl(&["init", "--cert-expiry", "59m"]).refused(1, &["cert expiry \"59m\": expected 1h to 20 years"]);
    node.ctl(&["init", "--cert-expiry", "21years"]).refused(1, &["cert expiry \"21years\": expected 1h to 20 years"]);
    assert!(node.own().cluster.is_none() && !node.is_member_on_disk());
    node.ctl(&["init", "--cert-expiry", "720h"]).ok();
    let end = node.own().cluster.unwrap().certificate_expires_at;
    let end = humantime::parse_rfc3339(&end).unwrap();
    let left = end.duration_since(std::time::SystemTime::now()).unwrap().as_secs() / 3_600;
    assert!((700..=720).contains(&left), "{left} hours");
}

#[test]
fn doubtful_addresses_are_told_in_the_log() {
    // Flags that come later win.
    let waiting = Node::new("waiting").with_config("advertise_addr = \"nosuch0\"\n");
    let mut waiting = waiting;
    waiting.start();
    let log = waiting.log();
    assert!(log.contains(" WARN ") && log.contains("there is no interface \"nosuch0\""), "{log}");
    assert!(log.contains("key=\"advertise_addr\""), "{log}");

    let (translated, other) = (Node::started("translated"), Node::started("other"));
    let doubtful = |node: &Node, advertise: &str, doubt: &str| {
        node.ctl(&["init", "--advertise-addr", advertise]).ok();
        wait_for("a warning", || if node.log().contains(doubt) { Ok(()) } else { Err(node.log()) });
    };
    doubtful(&translated, "198.51.100.1", "the advertised address is on no interface of this machine");
    doubtful(&other, "127.0.0.1", "the advertised address is not the one listened on");
    let plain = Node::started("plain");
    plain.init();
    assert!(!plain.log().contains(" WARN "), "{}", plain.log());
}

#[test]
fn variables_set_to_nothing_are_not_set() {
    let mut node = Node::new("named");
    let words = [
        "env",
        "GOSSIPD_CONFIG=",
        "GOSSIPD_LISTEN_ADDR=",
        "GOSSIPD_ADVERTISE_ADDR=",
        "GOSSIPD_PORT=",
        "GOSSIPD_LOG=",
        "GOSSIPD_LOG_FORMAT=",
        "GOSSIPD_ON_TERMINATE=",
        "GOSSIPD_STATE_DIR=",
        "GOSSIPD_SOCKET=",
    ];
    node = node.wrapped_in(&words);
    node.start();
    node.init();
    let mut version = node.ctl_command(&["version"]);
    assert!(Ran::of(version.env("GOSSIPD_SOCKET", "")).ok().contains("gossipd "));
    // A flag that is given with nothing is a mistake all the same.
    Node::new("bad")
        .with_flags(&["--log-format", ""])
        .start_in_vain()
        .refused(CONFIGURATION, &["log.format (--log-format)"]);
    // What the environment says is told with the flag of the same name.
    let mut command = command(GOSSIPD);
    Ran::of(command.arg("run").args(["--config", "/dev/null"]).env("GOSSIPD_LOG_FORMAT", "xml"))
        .refused(CONFIGURATION, &["log.format (--log-format) = \"xml\": expected text or json"]);
}

// ---- SIGHUP ----------------------------------------------------------------------------------------------------------

#[test]
fn hangup_reloads_the_log_filter_and_keeps_the_old_one_for_a_broken_file() {
    let mut node = Node::new("logged");
    node.set_log_filter("info");
    node.start();
    node.init();
    let addr = node.addr();
    let failed = "gossipd_connections_total{result=\"failed\"}";
    // Something that is told at DEBUG: a stranger on TCP.
    let knock = || {
        let before = node.metric(failed).unwrap_or_default();
        let _ = TcpStream::connect(addr).unwrap().write_all(b"hello\r\n\r\n");
        wait_for("the connection to fail", || {
            let now = node.metric(failed).unwrap_or_default();
            if now > before { Ok(()) } else { Err(format!("{now}")) }
        });
    };
    let debug_lines = || node.log().lines().filter(|line| line.contains(" DEBUG ")).count();
    let until_logged = |text: &str| {
        wait_for(&format!("{text:?} in the log"), || {
            let log = node.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    };
    let rewrite = |text: &str| fs::write(node.config_path(), text).unwrap();
    knock();
    assert_eq!(debug_lines(), 0, "{}", node.log());

    rewrite("[log]\nfilter = \"gossipd=debug\"\n");
    node.signal(Signal::SIGHUP);
    until_logged("log filter reloaded");
    let before = debug_lines();
    knock();
    wait_for("DEBUG lines", || if debug_lines() > before { Ok(()) } else { Err(node.log()) });

    for (broken, text) in [
        ("[log\nfilter", "gossipd.toml"),
        ("[log]\nfilter = \"gossipd=loud\"\n", "gossipd=loud"),
        ("colour = 1\n", "colour"),
    ] {
        let warned = node.log().matches("log filter not reloaded; the old one stays").count();
        rewrite(broken);
        node.signal(Signal::SIGHUP);
        wait_for("a warning", || {
            let log = node.log();
            let again = log.matches("log filter not reloaded; the old one stays").count() > warned;
            if again && log.contains(text) { Ok(()) } else { Err(log) }
        });
        let before = debug_lines();
        knock();
        wait_for("DEBUG lines as before", || if debug_lines() > before { Ok(()) } else { Err(node.log()) });
    }
    rewrite("[log]\nfilter = \"error\"\n");
    node.signal(Signal::SIGHUP);
    wait_for("silence", || {
        let before = node.log().len();
        knock();
        if node.log().len() == before { Ok(()) } else { Err(node.log()) }
    });
    assert!(node.own().cluster.is_some());
}
