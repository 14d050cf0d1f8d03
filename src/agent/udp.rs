//! The socket of gossip: datagrams out, datagrams in, and who refused one.
//!
//! A UDP socket that is not connected learns that nobody listens at an address (ICMP port unreachable) only through its
//! error queue (`IP_RECVERR`, ip(7)). What is in there can be forged by whoever guesses the ports: it is a hint.
//!
//! With that queue every such error is also *pending*: the next call of any kind returns it instead of doing its work.
//! So a send that fails is tried again once; the first try has sent nothing.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for a burst while the daemon is busy: 4 MiB, as far as the system allows (`net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The socket of gossip.
#[derive(Debug)]
pub(super) struct Udp(UdpSocket);

impl Udp {
    /// Binds it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The system's; nothing is bound then.
    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        // No SO_REUSEADDR: for UDP it would let a second daemon take the same port unnoticed.
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        // Never fragmented. `PROBE` sets the bit and ignores what ICMP claims about the path: strangers can forge that.
        match addr.ip() {
            IpAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
            IpAddr::V6(_) => {
                socket.set_only_v6(true)?;
                set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
            }
        }
        let reports = match addr.ip() {
            IpAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true),
            IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true),
        };
        // Without them failures are found too, later.
        if let Err(error) = reports {
            tracing::warn!(%error, "this system does not report refused datagrams");
        }
        // A smaller buffer works too, with more loss in bursts.
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            tracing::debug!(%error, "the receive buffer keeps the system's size");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits until there is something to take: a datagram or a refusal. May wake for nothing.
    pub(super) async fn ready(&self) {
        let _ = self.0.ready(Interest::READABLE | Interest::ERROR).await;
    }

    /// Sends now or not at all.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when its buffer is full.
    pub(super) fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        // Not through tokio: it would refuse before it has looked whether the socket is writable, and nobody waits for that.
        let (socket, to) = (SockRef::from(&self.0), SockAddr::from(to));
        match socket.send_to(bytes, &to) {
            // That may be the pending error of an earlier datagram. One call reports all that are pending.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => socket.send_to(bytes, &to),
            done => done,
        }
    }

    /// Takes a datagram that waits.
    ///
    /// # Errors
    /// `WouldBlock`: none waits. Others may be those of earlier sends; the socket stays usable.
    pub(super) fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.try_recv_from(buffer)
    }

    /// Takes a report that waits, and gives the address where nobody listens; none: it was about something else.
    ///
    /// # Errors
    /// `WouldBlock`: none waits.
    pub(super) fn try_refusal(&self) -> io::Result<Option<SocketAddr>> {
        // Without an error reported this makes no system call.
        self.0.try_io(Interest::ERROR, || read_report(&self.0))
    }
}

/// Takes one report from the error queue.
fn read_report(socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
    // What the refused datagram held does not matter.
    let mut payload = [0_u8; 1];
    let mut payload = [IoSliceMut::new(&mut payload)];
    let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let report = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut payload, Some(&mut control), flags)?;
    let is_refusal = report.cmsgs()?.any(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) => is_port_unreachable(&error, libc::SO_EE_ORIGIN_ICMP),
        ControlMessageOwned::Ipv6RecvErr(error, _) => is_port_unreachable(&error, libc::SO_EE_ORIGIN_ICMP6),
        _ => false,
    });
    // The name is where the refused datagram was sent to.
    let to = report.address.filter(|_| is_refusal).and_then(|name| {
        let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        v4.or_else(|| name.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
    });
    Ok(to)
}

/// The other side's kernel said that nobody listens on the port. Everything else that ICMP reports (no route, filtered)
/// says nothing about the process there.
fn is_port_unreachable(error: &libc::sock_extended_err, origin: u8) -> bool {
    i32::try_from(error.ee_errno).is_ok_and(|code| Errno::from_raw(code) == Errno::ECONNREFUSED)
        && error.ee_origin == origin
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A socket on loopback; none where this machine has no such address.
    fn bound(ip: IpAddr) -> Option<(Udp, SocketAddr)> {
        let socket = Udp::bind(SocketAddr::new(ip, 0)).ok()?;
        let addr = socket.local_addr().unwrap();
        Some((socket, addr))
    }

    fn closed(ip: IpAddr) -> SocketAddr {
        bound(ip).unwrap().1
    }

    /// The first address that was refused.
    async fn refused(socket: &Udp) -> SocketAddr {
        loop {
            socket.ready().await;
            // A pending error would wake for ever.
            let _ = socket.try_recv_from(&mut [0; 16]);
            if let Ok(Some(addr)) = socket.try_refusal() {
                return addr;
            }
        }
    }

    #[tokio::test]
    async fn whoever_refuses_is_named() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let Some((socket, _)) = bound(ip) else { continue };
            let nobody = closed(ip);
            socket.try_send_to(b"anybody?", nobody).unwrap();
            assert_eq!(timeout(DEADLINE, refused(&socket)).await.unwrap(), nobody);
        }
    }

    #[tokio::test]
    async fn a_refusal_costs_no_other_datagram() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ((socket, _), (listener, addr)) = (bound(ip).unwrap(), bound(ip).unwrap());
        let nobody = closed(ip);
        for number in 0..50_u8 {
            // On loopback the answer is there when the call returns: the next call meets it.
            socket.try_send_to(b"anybody?", nobody).unwrap();
            socket.try_send_to(&[number], addr).unwrap();
        }
        for number in 0..50_u8 {
            let mut buffer = [0; 2];
            let arrived = async {
                loop {
                    listener.ready().await;
                    if let Ok((len, _)) = listener.try_recv_from(&mut buffer) {
                        return len;
                    }
                }
            };
            assert_eq!(timeout(DEADLINE, arrived).await.unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
        for _ in 0..50 {
            assert_eq!(timeout(DEADLINE, refused(&socket)).await.unwrap(), nobody);
        }
    }

    #[tokio::test]
    async fn taking_all_reports_lets_the_socket_rest() {
        let (socket, own) = bound(Ipv4Addr::LOCALHOST.into()).unwrap();
        socket.try_send_to(b"anybody?", closed(own.ip())).unwrap();
        timeout(DEADLINE, refused(&socket)).await.unwrap();
        let mut wakes = 0;
        let is_idle = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while timeout(Duration::from_millis(50), socket.ready()).await.is_ok() {
            wakes += 1;
            assert!(wakes < 10, "it is woken for nothing");
            while !socket.try_refusal().is_err_and(is_idle) {}
            while !socket.try_recv_from(&mut [0; 16]).is_err_and(is_idle) {}
        }
    }

    #[tokio::test]
    async fn datagrams_carry_the_dont_fragment_bit() {
        use rustix::net::sockopt::{ip_mtu_discover, ipv6_mtu_discover};
        let (v4, _) = bound(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(ip_mtu_discover(&v4.0).unwrap(), Ipv4PathMtuDiscovery::PROBE);
        if let Some((v6, _)) = bound(Ipv6Addr::LOCALHOST.into()) {
            assert_eq!(ipv6_mtu_discover(&v6.0).unwrap(), Ipv6PathMtuDiscovery::PROBE);
        }
    }
}
