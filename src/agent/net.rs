//! The sockets of 7946: UDP for gossip and TCP for exchanges, on one address and port.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::udp::Udp;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Tries to find a port that is free for UDP and TCP, when port 0 is asked for.
const PORT_TRIES: usize = 16;

/// 7946 cannot be had. The operator's to mend; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "cannot listen on {addr} ({protocol}): the address is in use, perhaps by another gossipd, dockerd or serf; stop it or choose another address or port (--listen-addr ADDR:PORT)"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
    },
    /// No interface has it.
    #[error("cannot listen on {addr}: no interface of this machine has that address")]
    NotLocal {
        /// The address.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {addr} ({protocol}): {source}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl BindError {
    fn new(addr: SocketAddr, protocol: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { addr, protocol },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { addr },
            _ => Self::Other { addr, protocol, source },
        }
    }
}

/// Both sockets, bound.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Gossip.
    pub udp: Udp,
    /// Exchanges.
    pub tcp: TcpListener,
    /// Where they are bound; the port is the one that the system chose where 0 was asked for.
    pub addr: SocketAddr,
}

impl Sockets {
    /// Binds both. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`]; nothing is bound then.
    pub(super) fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let udp = Udp::bind(addr).map_err(|e| BindError::new(addr, "UDP", e))?;
            let bound = udp.local_addr().map_err(|e| BindError::new(addr, "UDP", e))?;
            match bind_tcp(bound) {
                Ok(tcp) => return Ok(Self { udp, tcp, addr: bound }),
                Err(error) => last = Some(BindError::new(bound, "TCP", error)),
            }
            if addr.port() != 0 {
                break;
            }
        }
        Err(last.unwrap_or(BindError::InUse { addr, protocol: "TCP" }))
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last life to time out.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_port_for_both_and_a_taken_one_is_named() {
        let first = Sockets::bind(([127, 0, 0, 1], 0).into()).unwrap();
        assert_eq!(first.addr.port(), first.tcp.local_addr().unwrap().port());
        let error = Sockets::bind(first.addr).unwrap_err();
        assert!(matches!(error, BindError::InUse { addr, protocol: "UDP" } if addr == first.addr), "{error}");
        assert!(error.to_string().ends_with("choose another address or port (--listen-addr ADDR:PORT)"), "{error}");
        let Sockets { udp, tcp, addr } = first;
        drop(udp);
        let error = Sockets::bind(addr).unwrap_err();
        assert!(matches!(error, BindError::InUse { protocol: "TCP", .. }), "{error}");
        drop(tcp);
        assert!(Sockets::bind(addr).is_ok());
        let error = Sockets::bind(([203, 0, 113, 1], 0).into()).unwrap_err().to_string();
        assert!(error.contains("no interface of this machine has that address"), "{error}");
    }
}
