//! R22: `deploy/ufw/setup.sh` with the real ufw, on a machine with a public and a private interface: 7946 is open on
//! the private one only, everything else is as the walk-through has it, and what was done can be undone.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::{Ran, command};
use crate::lab::{DROPLET, Lab, is_possible};

const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ufw/setup.sh");
/// How long a packet may take that arrives.
const ARRIVAL: Duration = Duration::from_secs(20);
/// How long a connection is waited for that must not come: well above the time that one takes that does.
const PATIENCE: Duration = Duration::from_millis(700);
/// Sides of the droplet, and its addresses there.
const SIDES: [(&str, [&str; 2]); 2] =
    [("public", ["198.51.100.2", "2001:db8::2"]), ("private", ["10.130.27.207", "fd00:130::2"])];

/// A droplet with the walk-through's firewall before it was changed: 22 limited, Docker's ports open to everybody.
fn droplet() -> Lab {
    let lab = Lab::new(&["/etc"], DROPLET);
    let prepare = "
        rm -f /etc/ufw/gossipd.state /etc/ufw/applications.d/gossipd*
        ufw --force reset
        rm -f /etc/ufw/*.rules.[0-9]*
        ufw default allow routed
        ufw limit 22
        ufw allow 2375/tcp comment 'the API of dockerd'
        ufw allow 2376/tcp
        ufw --force enable";
    assert_eq!(lab.sh(prepare).code, 0);
    lab
}

fn setup(lab: &Lab, args: &[&str]) -> Ran {
    Ran::of(lab.command("sh").arg(SETUP).args(args))
}

/// All that the operator sees of the firewall, and all that ufw has written down.
fn everything(lab: &Lab) -> String {
    let files = "cd /etc/ufw; ls applications.d; grep . *.rules ufw.conf /etc/default/ufw; ls";
    lab.sh(&format!("ufw status verbose; {files}")).ok()
}

fn status(lab: &Lab) -> String {
    lab.sh("ufw status verbose").ok().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Which of these reach the droplet now, in the order of `SIDES`, IPv4 first.
#[derive(Debug, PartialEq, Eq)]
struct Open {
    public: [bool; 2],
    private: [bool; 2],
}

const NOWHERE: Open = Open { public: [false; 2], private: [false; 2] };
const EVERYWHERE: Open = Open { public: [true; 2], private: [true; 2] };
const PRIVATE: Open = Open { public: [false; 2], private: [true; 2] };

fn each(mut is_open: impl FnMut(&str, &str) -> bool) -> Open {
    let mut look = |(side, addresses): (&str, [&str; 2])| addresses.map(|address| is_open(side, address));
    Open { public: look(SIDES[0]), private: look(SIDES[1]) }
}

fn tcp(lab: &Lab, port: u16) -> Open {
    let listener = lab.at(None, || TcpListener::bind(("::", port)).unwrap());
    let open = each(|side, address| {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        match lab.at(Some(side), || TcpStream::connect_timeout(&to, PATIENCE)) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "dropped, not refused: {error}");
                false
            }
        }
    });
    drop(listener);
    open
}

fn udp(lab: &Lab, port: u16) -> Open {
    let listener = lab.at(None, || UdpSocket::bind(("::", port)).unwrap());
    listener.set_read_timeout(Some(ARRIVAL)).unwrap();
    each(|side, address| {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        lab.at(Some(side), || UdpSocket::bind(from).unwrap().send_to(address.as_bytes(), to).unwrap());
        // Whatever comes after this one came after that one: veth keeps the order, and loopback is never closed.
        let own = SocketAddr::new(if to.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap(), port);
        lab.at(None, || UdpSocket::bind(from).unwrap().send_to(b"last", own).unwrap());
        let mut buffer = [0; 64];
        let mut came = false;
        loop {
            let (length, _) = listener.recv_from(&mut buffer).unwrap();
            match &buffer[..length] {
                b"last" => return came,
                text => came |= text == address.as_bytes(),
            }
        }
    })
}

/// Packets of IP protocol 50; IPv4 only.
fn esp(lab: &Lab) -> [bool; 2] {
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
    let mut listener = lab.at(None, open);
    listener.set_read_timeout(Some(ARRIVAL)).unwrap();
    SIDES.map(|(side, [address, _])| {
        let to = |address: &str| SocketAddr::new(address.parse().unwrap(), 0).into();
        lab.at(Some(side), || open().send_to(b"\x00\x00\x00\x01sent", &to(address)).unwrap());
        lab.at(None, || open().send_to(b"\x00\x00\x00\x01last", &to("127.0.0.1")).unwrap());
        let mut buffer = [0; 128];
        let mut came = false;
        loop {
            let length = listener.read(&mut buffer).unwrap();
            match &buffer[..length] {
                packet if packet.ends_with(b"last") => return came,
                packet => came |= packet.ends_with(b"sent"),
            }
        }
    })
}

/// R22.
#[test]
fn gossip_is_open_on_the_private_interface_only() {
    if !is_possible(&["ufw", "ip", "unshare", "nsenter"]) {
        return;
    }
    let lab = droplet();
    // The check bites: what is open is seen to be.
    assert_eq!((tcp(&lab, 2375), tcp(&lab, 7946)), (EVERYWHERE, NOWHERE));
    lab.sh("ufw disable").ok();
    assert_eq!((udp(&lab, 7946), esp(&lab)), (EVERYWHERE, [true; 2]));
    lab.sh("ufw --force enable").ok();

    let said = setup(&lab, &["--interface", "eth1", "--close-docker-tcp"]).ok();
    insta::assert_snapshot!(said.replace(env!("CARGO_MANIFEST_DIR"), "."));
    insta::assert_snapshot!(status(&lab));
    assert_eq!((tcp(&lab, 7946), udp(&lab, 7946)), (PRIVATE, PRIVATE));
    assert_eq!((tcp(&lab, 2375), tcp(&lab, 2376), udp(&lab, 4789)), (NOWHERE, NOWHERE, NOWHERE));
    assert_eq!((tcp(&lab, 22), esp(&lab)), (EVERYWHERE, [false; 2]));

    setup(&lab, &["--interface", "eth1", "--overlay", "--encrypted"]).ok();
    insta::assert_snapshot!(status(&lab));
    assert_eq!((udp(&lab, 4789), esp(&lab)), (PRIVATE, [false, true]));
}

#[test]
fn it_says_what_it_does_does_it_once_and_undoes_it() {
    if !is_possible(&["ufw", "ip", "unshare", "nsenter"]) {
        return;
    }
    let lab = droplet();
    // A rule of the operator's that the script would have made, and firewall and policy as on a new machine.
    lab.sh("ufw allow in on eth1 to any proto esp; ufw default allow incoming; ufw disable").ok();
    let before = everything(&lab);
    let args = ["--interface", "eth1", "--overlay", "--encrypted", "--close-docker-tcp"];

    let would = setup(&lab, &[&args[..], &["--dry-run"]].concat()).ok();
    assert_eq!(everything(&lab), before);
    let did = setup(&lab, &args).ok();
    assert_eq!(would.replace("would run: ", ""), did);
    let after = everything(&lab);
    assert_eq!(setup(&lab, &args).ok(), "nothing to change\n");
    assert_eq!(everything(&lab), after);

    // What the operator does meanwhile stays.
    lab.sh("ufw allow 80/tcp").ok();
    let would = setup(&lab, &["--undo", "--dry-run"]).ok();
    assert_eq!(would.replace("would run: ", ""), setup(&lab, &["--undo"]).ok());
    lab.sh("ufw --force delete allow 80/tcp").ok();
    assert_eq!(everything(&lab), before);
    assert_eq!(setup(&lab, &["--undo"]).ok(), "nothing to undo\n");
}

#[test]
fn rules_about_ssh_are_tightened_but_never_widened() {
    if !is_possible(&["ufw", "ip", "unshare", "nsenter"]) {
        return;
    }
    let lab = droplet();
    let rules = |prepare: &str| {
        lab.sh(&format!("ufw --force reset; {prepare}")).ok();
        setup(&lab, &["--interface", "eth1"]).ok();
        let rules = lab.sh("ufw show added | grep -v gossipd | sed 1d").ok();
        setup(&lab, &["--undo"]).ok();
        (rules, lab.sh("ufw show added | sed 1d").ok())
    };
    let cases = [
        ("true", "ufw limit 22\n", "(None)\n"),
        ("ufw allow 22/tcp", "ufw limit 22/tcp\n", "ufw allow 22/tcp\n"),
        (
            "ufw allow 80; ufw allow 22; ufw allow 443",
            "ufw allow 80\nufw limit 22\nufw allow 443\n",
            "ufw allow 80\nufw allow 22\nufw allow 443\n",
        ),
        (
            "ufw allow from 10.8.0.0/16 to any port 22",
            "ufw allow from 10.8.0.0/16 to any port 22\n",
            "ufw allow from 10.8.0.0/16 to any port 22\n",
        ),
    ];
    for (prepare, with, without) in cases {
        assert_eq!(rules(prepare), (with.to_owned(), without.to_owned()), "{prepare}");
    }
}

#[test]
fn an_interface_that_is_missing_or_public_is_refused() {
    if !is_possible(&["ufw", "ip", "unshare", "nsenter"]) {
        return;
    }
    let lab = droplet();
    let before = everything(&lab);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--interface", "eth7"], 1, "there is no interface eth7 on this machine: it has eth0 eth1"),
        (&["--interface", "eth0"], 1, "eth0 holds the default route, so it is the public interface; --public"),
        (&["--interface", "lo"], 1, "'lo' cannot be the private interface"),
        (&["--interface", "eth1; reboot"], 1, "cannot be the private interface"),
        (&["--interface"], 2, "--interface needs a name"),
        (&[], 2, "--interface is missing"),
        (&["--undo", "--overlay"], 2, "--undo goes with --dry-run only"),
        (&["--intrface", "eth1"], 2, "unknown argument '--intrface'"),
    ];
    for (args, code, text) in cases {
        setup(&lab, args).refused(*code, &[text]);
    }
    assert_eq!(everything(&lab), before);
    for wide in ["7946/udp", "7946", "80,7946/tcp", "7000:8000/udp"] {
        lab.sh(&format!("ufw allow {wide}")).ok();
        let texts =
            [&*format!("'ufw allow {wide}' opens 7946 on every interface"), &format!("ufw delete allow {wide}")];
        setup(&lab, &["--interface", "eth1"]).refused(1, &texts);
        lab.sh(&format!("ufw --force delete allow {wide}")).ok();
    }
    assert_eq!(everything(&lab), before);

    // IPv6 only: still the public one.
    lab.sh("ip route del default").ok();
    setup(&lab, &["--interface", "eth0"]).refused(1, &["eth0 holds the default route"]);
    setup(&lab, &["--interface", "eth0", "--public"]).ok();
    assert_eq!(udp(&lab, 7946), Open { public: [true; 2], private: [false; 2] });
}

#[test]
fn the_scripts_are_clean() {
    if !crate::lab::missing(&["shellcheck"]).is_empty() {
        return crate::harness::skip("not installed: shellcheck");
    }
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/build-deb.sh");
    Ran::of(command("shellcheck").args([SETUP, build])).ok();
}
