//! A wire that can be tapped: everything sent to its address, UDP and TCP, reaches a daemon, and is written down.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::{Node, free_port, fresh_ip};

/// How often a thread that waits for datagrams looks whether it is still wanted.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Heard {
    datagrams: Vec<Vec<u8>>,
    /// One for each direction of each connection.
    streams: Vec<Vec<u8>>,
}

/// A relay in front of one daemon.
pub(crate) struct Relay {
    /// Where it is reached; what the daemon has to advertise.
    pub(crate) addr: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// In front of `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let ip = fresh_ip();
        let addr = SocketAddr::from((ip, free_port(ip)));
        let (heard, stop): (Arc<Mutex<Heard>>, Arc<AtomicBool>) = Default::default();
        let udp = UdpSocket::bind(addr).unwrap();
        udp.set_read_timeout(Some(STOP_INTERVAL)).unwrap();
        let tcp = TcpListener::bind(addr).unwrap();
        let datagrams = {
            let (heard, stop) = (Arc::clone(&heard), Arc::clone(&stop));
            thread::spawn(move || pass_datagrams(&udp, target, &heard, &stop))
        };
        let streams = {
            let (heard, stop) = (Arc::clone(&heard), Arc::clone(&stop));
            thread::spawn(move || pass_streams(&tcp, target, &heard, &stop))
        };
        Self { addr, heard, stop, threads: vec![datagrams, streams] }
    }

    /// A daemon that runs behind a relay, in no cluster yet: to be founded or joined with `--advertise-addr`.
    pub(crate) fn with_node(name: &str) -> (Self, Node) {
        let node = Node::new(name);
        let port = free_port(node.ip);
        let mut node = node.on_port(port);
        node.start();
        (Self::to((node.ip, port).into()), node)
    }

    /// All datagrams so far, in order.
    pub(crate) fn datagrams(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().datagrams.clone()
    }

    /// What has gone through connections so far, a row for each direction of each.
    pub(crate) fn streams(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().streams.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.addr);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pass_datagrams(udp: &UdpSocket, target: SocketAddr, heard: &Mutex<Heard>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match udp.recv_from(&mut buffer) {
            Ok((len, _)) => {
                heard.lock().unwrap().datagrams.push(buffer[..len].to_vec());
                // Nobody may be there at present, as on any wire.
                let _ = udp.send_to(&buffer[..len], target);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An ICMP error of an earlier send.
            Err(_) => {}
        }
    }
}

fn pass_streams(tcp: &TcpListener, target: SocketAddr, heard: &Arc<Mutex<Heard>>, stop: &AtomicBool) {
    while let Ok((near, _)) = tcp.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(far) = TcpStream::connect(target) else { continue };
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let place = {
                let mut heard = heard.lock().unwrap();
                heard.streams.push(Vec::new());
                heard.streams.len() - 1
            };
            let heard = Arc::clone(heard);
            thread::spawn(move || copy(from, to, &heard, place));
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Heard>, place: usize) {
    let mut buffer = vec![0; 16_384];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        heard.lock().unwrap().streams[place].extend_from_slice(&buffer[..len]);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
