//! What a stranger on the network can read, and what he can do by sending.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use gossipd::record::{Status, base36_decode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::harness::{Node, all_ready, fresh_ip, shows, some_probes, wait_for};
use crate::relay::Relay;

/// The largest UDP payload that the default profiles send.
const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Where the key id, the salt and the ciphertext of a datagram begin (see `wire::frame`).
const KEY_AT: usize = 3;
const SALT_AT: usize = 20;
const BODY_AT: usize = 32;

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// What an observer holds of every node, without what moves by itself.
fn held(observer: &Node) -> Vec<String> {
    let members = observer.members().unwrap();
    let row = |m: &gossipd::api::Member| {
        format!("{} {:?} {} {:?} {:?} {}", m.id, m.hostname, m.address, m.role, m.availability, m.is_self)
    };
    members.iter().map(row).collect()
}

// ---- reading ---------------------------------------------------------------------------------------------------------

/// R19: nothing readable passes.
#[test]
fn nothing_readable_passes_over_the_wire() {
    let (wire_a, a) = Relay::with_node("plain-host-alpha");
    let (wire_b, b) = Relay::with_node("plain-host-beta");
    a.ctl(&["init", "--advertise-addr", &wire_a.addr.to_string()]).ok();
    let (token, manager_token) = (a.token("worker"), a.token("manager"));
    let (remote, advertised) = (wire_a.addr.to_string(), wire_b.addr.to_string());
    b.ctl(&["join", "--token", &token, "--advertise-addr", &advertised, "--availability", "drain", &remote]).ok();
    all_ready(&[&a, &b]);
    assert_eq!((a.addr(), b.addr()), (wire_a.addr, wire_b.addr));
    let ids = [a.id(), b.id()];
    let cluster = a.own().cluster.unwrap().id.to_string();
    some_probes(&a);
    some_probes(&b);
    b.ctl(&["leave"]).ok();
    shows(&a, &ids[1], Status::Left);

    let secret = |token: &str| token.rsplit('-').next().unwrap().to_owned();
    let mut needles: Vec<Vec<u8>> = vec![a.name.clone().into(), b.name.clone().into(), b"drain".to_vec()];
    needles.extend([&ids[0], &ids[1], &cluster].map(|id| id.clone().into_bytes()));
    needles.push(base36_decode::<16>(&cluster).unwrap().to_vec());
    for token in [&token, &manager_token] {
        needles.push(token.clone().into_bytes());
        needles.push(secret(token).into_bytes());
        needles.push(base36_decode::<16>(&secret(token)).unwrap().to_vec());
    }
    let mut senders = 0;
    for wire in [&wire_a, &wire_b] {
        let (datagrams, streams) = (wire.datagrams(), wire.streams());
        assert!(!datagrams.is_empty() && streams.iter().any(|stream| !stream.is_empty()), "the tap works");
        for datagram in &datagrams {
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX, "a datagram of {} bytes", datagram.len());
            // The sender's id stands in the header; that it is found shows that the search works.
            senders += ids.iter().filter(|id| contains(datagram, &base36_decode::<16>(id).unwrap())).count();
        }
        for bytes in datagrams.iter().chain(&streams) {
            for needle in &needles {
                assert!(!contains(bytes, needle), "{:?} was sent in the clear", String::from_utf8_lossy(needle));
            }
        }
    }
    assert!(senders > 0);
}

// ---- datagrams -------------------------------------------------------------------------------------------------------

/// A changed copy.
fn with(datagram: &[u8], at: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    bytes[at] = change(bytes[at]);
    bytes
}

/// R20: garbage and replay.
#[test]
fn garbage_and_recordings_change_nothing_and_are_counted() {
    let (wire_a, a) = Relay::with_node("a");
    let (wire_b, b) = Relay::with_node("b");
    a.ctl(&["init", "--advertise-addr", &wire_a.addr.to_string()]).ok();
    let token = a.token("worker");
    let (remote, advertised) = (wire_a.addr.to_string(), wire_b.addr.to_string());
    b.ctl(&["join", "--token", &token, "--advertise-addr", &advertised, &remote]).ok();
    let c = Node::started("c");
    c.join(&a, "worker");
    all_ready(&[&a, &b, &c]);
    some_probes(&a);
    some_probes(&b);
    let before: Vec<_> = [&a, &b, &c].map(held).into();

    let (to_a, to_b) = (wire_a.datagrams(), wire_b.datagrams());
    let target = a.own().cluster.unwrap().listen_addr;
    assert_ne!(target, wire_a.addr);
    let good = to_a.first().unwrap();
    // Cause and datagrams that are dropped for it: recorded ones as they are, or changed. Where a good header would
    // make them replays, the salt is one that was never seen.
    let attacks: [(&str, Vec<Vec<u8>>); 8] = [
        ("short", vec![vec![], b"hello".to_vec(), vec![0; 47], good[..BODY_AT + 15].to_vec()]),
        ("version", vec![with(good, 0, |version| version + 1), vec![0xff; 300], b"GET / HTTP/1.1\r\n\r\n".repeat(5)]),
        ("cluster", vec![with(good, 1, |tag| tag ^ 1), with(good, 2, |tag| tag ^ 0x80)]),
        ("key", vec![with(&with(good, KEY_AT, |key| key ^ 0x55), SALT_AT, |salt| salt ^ 8)]),
        ("reflected", to_b.iter().filter(|datagram| sent_by(datagram, &a)).take(20).cloned().collect()),
        (
            "forged",
            (to_a.iter().map(|datagram| with(datagram, SALT_AT, |salt| salt ^ 1)))
                .chain(to_a.iter().map(|datagram| with(&datagram[..datagram.len() - 1], SALT_AT, |salt| salt ^ 2)))
                .chain(
                    (0..good.len())
                        .filter(|at| *at >= SALT_AT)
                        .map(|at| with(&with(good, SALT_AT + 1, |salt| salt ^ 4), at, |byte| byte ^ 0x10)),
                )
                .take(2_000)
                .collect(),
        ),
        ("replayed", to_a.clone()),
        ("oversized", vec![vec![1; DATAGRAM_BYTES_MAX + 1], vec![0; 9_000], vec![0xff; 60_000]]),
    ];
    let stranger = UdpSocket::bind((fresh_ip(), 0)).unwrap();
    for (cause, datagrams) in attacks {
        assert!(!datagrams.is_empty(), "{cause}");
        let series = format!("gossipd_datagrams_dropped_total{{cause=\"{cause}\"}}");
        let count = || a.metric(&series).unwrap_or_default();
        let earlier = count();
        for datagram in &datagrams {
            stranger.send_to(datagram, target).unwrap();
        }
        wait_for(&format!("drops by {cause} to be counted"), || {
            let now = count();
            if now > earlier { Ok(()) } else { Err(format!("{now} as before")) }
        });
    }
    // What was meant for one is nothing for another.
    let target_c = c.own().cluster.unwrap().listen_addr;
    for datagram in to_a.iter().chain(&to_b) {
        stranger.send_to(datagram, target_c).unwrap();
    }
    wait_for("drops on the third node", || {
        let forged = c.metric("gossipd_datagrams_dropped_total{cause=\"forged\"}").unwrap_or_default();
        if forged > 0.0 { Ok(()) } else { Err("none".to_owned()) }
    });
    for node in [&a, &b, &c] {
        some_probes(node);
    }
    all_ready(&[&a, &b, &c]);
    assert_eq!([&a, &b, &c].map(held), before.as_slice());
    // Nobody was answered.
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 2_000]).is_err(), "a stranger got an answer");
    // Nor did it fill the log: DEBUG is for exchanges, a packet is TRACE.
    assert!(!a.log().contains("ERROR"), "{}", a.log());
}

fn sent_by(datagram: &[u8], node: &Node) -> bool {
    contains(&datagram[..BODY_AT.min(datagram.len())], &base36_decode::<16>(&node.id()).unwrap())
}

/// R20: replay.
#[test]
fn a_recording_does_not_bring_back_who_left() {
    let (wire, mut a) = Relay::with_node("a");
    a.ctl(&["init", "--advertise-addr", &wire.addr.to_string()]).ok();
    let (b, c) = (Node::started("b"), Node::started("c"));
    b.join(&a, "worker");
    c.join(&a, "worker");
    all_ready(&[&a, &b, &c]);
    some_probes(&c);
    let (id, b_id) = (c.id(), b.id());
    let of_c = || wire.datagrams().iter().filter(|datagram| sent_by(datagram, &c)).count();
    assert!(of_c() > 0);
    c.ctl(&["leave"]).ok();
    for observer in [&a, &b] {
        shows(observer, &id, Status::Left);
    }
    // A new life knows no counters of the old ones.
    a.kill_and_start();
    all_ready(&[&a, &b]);
    shows(&a, &id, Status::Left);
    let recording = wire.datagrams();
    let target = a.own().cluster.unwrap().listen_addr;
    let stranger = UdpSocket::bind((fresh_ip(), 0)).unwrap();
    for datagram in recording.iter().chain(recording.iter().rev()) {
        stranger.send_to(datagram, target).unwrap();
    }
    for observer in [&a, &b] {
        some_probes(observer);
        let status = observer.member(&id).unwrap().status;
        assert_eq!(status, Status::Left, "{} believes a recording", observer.name);
    }
    shows(&a, &b_id, Status::Ready);
    all_ready(&[&a, &b]);
}

// ---- connections -----------------------------------------------------------------------------------------------------

/// Believes everybody, as an attacker would.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection of somebody without certificate.
fn stranger(to: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"gossipd/1".to_vec()];
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("gossipd").unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::connect(to).unwrap())
}

/// What comes back for `message`, until the other end closes.
fn answer_to(to: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = stranger(to);
    stream.write_all(message).unwrap();
    let mut answer = Vec::new();
    // A connection cut without goodbye is an answer too.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn framed(topic: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[topic][..], &length, body].concat()
}

/// R20: garbage, on TCP.
#[test]
fn strangers_on_tcp_get_nothing_but_a_refusal() {
    const EXCHANGE: u8 = 1;
    const ADMISSION: u8 = 2;
    let nodes = crate::harness::cluster(&["a", "b"]);
    let [a, b] = nodes.as_slice() else { panic!("two nodes") };
    let before = [held(a), held(b)];
    let target = a.addr();

    let failed = || a.metric("gossipd_connections_total{result=\"failed\"}").unwrap_or_default();
    let earlier = failed();
    for plain in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", &[0; 5_000], &[0xff; 5_000]] {
        let mut stream = TcpStream::connect(target).unwrap();
        // The other end may have closed before all is written.
        let _ = stream.write_all(plain);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!contains(&answer, b"a") || answer.len() < 64, "{answer:?}");
    }
    wait_for("failed connections to be counted", || {
        let now = failed();
        if now >= earlier + 4.0 { Ok(()) } else { Err(format!("{now}, before {earlier}")) }
    });

    // TLS works, being somebody does not: no state without a certificate.
    for body in [&b""[..], b"\x01", &[0; 900]] {
        assert_eq!(answer_to(target, &framed(EXCHANGE, body)), b"", "an exchange with a stranger");
    }
    assert_eq!(answer_to(target, &framed(7, b"x")), b"", "an unknown topic");
    assert_eq!(answer_to(target, &[ADMISSION, 0xff, 0xff, 0xff, 0xff, 1]), b"", "4 GiB announced");
    assert_eq!(answer_to(target, &framed(ADMISSION, &[0; 2_000])), b"", "more than a stranger may say");
    let refusal = answer_to(target, &framed(ADMISSION, &[0xee; 100]));
    assert!(contains(&refusal, b"compatible versions"), "{}", String::from_utf8_lossy(&refusal));
    for needle in [a.id(), b.id(), a.token("worker")] {
        assert!(!contains(&refusal, needle.as_bytes()));
    }

    all_ready(&[a, b]);
    assert_eq!([held(a), held(b)], before);
    assert!(!a.log().contains("ERROR"), "{}", a.log());
}

#[test]
fn half_open_connections_of_one_stranger_keep_nobody_out() {
    let manager = Node::started("manager");
    manager.init();
    let target = manager.addr();
    let from = fresh_ip();
    // Blocking sockets of the standard library cannot choose where they come from.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = || {
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((from, 0))).unwrap();
            socket.connect(target).await.unwrap()
        })
    };
    // Some say nothing, some begin a handshake.
    let mut held_open: Vec<_> = (0..150).map(|_| open()).collect();
    for stream in held_open.iter().step_by(2) {
        let _ = stream.try_write(b"\x16\x03\x01\x02");
    }
    wait_for("the limit to be reached", || {
        let limited = manager.metric("gossipd_connections_total{result=\"limited\"}").unwrap_or_default();
        if limited >= 1.0 { Ok(()) } else { Err(format!("{limited} refused")) }
    });
    let worker = Node::started("worker");
    worker.join(&manager, "worker");
    all_ready(&[&manager, &worker]);
    // And those are not held for ever.
    wait_for("the handshakes to time out", || {
        let failed = manager.metric("gossipd_connections_total{result=\"failed\"}").unwrap_or_default();
        if failed >= 64.0 { Ok(()) } else { Err(format!("{failed} of 64")) }
    });
    held_open.clear();
}

/// R20: however much garbage arrives, the daemon answers and obeys.
#[test]
fn a_flood_does_not_starve_the_rest_of_the_daemon() {
    let mut nodes = crate::harness::cluster(&["a", "b"]);
    let node = &nodes[0];
    let target = node.addr();
    // A good header for this cluster, so that the datagrams get as far as the cipher.
    let mut forged = vec![0x5a; 80];
    let flood_over = Arc::new(AtomicBool::new(false));
    let tag = {
        let id: gossipd::record::ClusterId = node.own().cluster.unwrap().id;
        [id.as_bytes()[0], id.as_bytes()[1]]
    };
    forged[0] = 1;
    forged[1..3].copy_from_slice(&tag);
    let flood = |_| {
        let (is_over, forged) = (Arc::clone(&flood_over), forged.clone());
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Bounded, whatever happens.
            for _ in 0..20_000_000_u32 {
                if is_over.load(Relaxed) {
                    return;
                }
                let _ = socket.send_to(&forged, target);
            }
        })
    };
    let floods: Vec<_> = (0..4).map(flood).collect();
    wait_for("the flood to arrive", || {
        let dropped: f64 = ["key", "forged"]
            .iter()
            .filter_map(|c| node.metric(&format!("gossipd_datagrams_dropped_total{{cause=\"{c}\"}}")))
            .sum();
        if dropped > 10_000.0 { Ok(()) } else { Err(format!("{dropped} dropped")) }
    });
    node.ctl(&["members"]).ok();
    node.ctl(&["join-token", "worker"]).ok();
    // SIGTERM is noticed while the flood goes on.
    assert_eq!(nodes[0].terminate(), 0);
    assert!(floods.iter().all(|flood| !flood.is_finished()), "the flood ended before the daemon did");
    flood_over.store(true, Relaxed);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}
