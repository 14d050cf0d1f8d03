//! TCP between nodes: TLS 1.3, one request and one reply for each connection.
//!
//! A message is `channel u8 | length u32 | body`. Every read and write has a deadline, every length a cap that depends
//! on whether the other side has proven to be a member. Who asks may have less patience than the deadlines: see
//! [`Connection::open`]. How far a failed request came tells what is wrong over there: see [`StreamError`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::tls::WRONG_CA;
use super::tls::peer_of;
use crate::node::{ExchangeError, Peer};
use crate::wire::credential::SERVER_NAME;
use crate::wire::credential::ca_digest;

/// How long a TCP connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long the TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// How long a request or a reply may take.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stranger's request may take: it is short.
const STRANGER_DEADLINE: Duration = Duration::from_secs(3);
/// All deadlines of a request together: the patience of whoever has no reason to have less.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(26);
/// Largest reply from a member: the state of a cluster of 65,536 nodes, or of 10,000 whose records are as large as may be.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest request of a member: one push.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest message from a stranger: a join request.
const STRANGER_BYTES_MAX: usize = 1_024;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// `wire::exchange`, for the protocol core.
    Exchange,
    /// `wire::admission`, for the daemon.
    Admission,
}

impl Topic {
    const fn byte(self) -> u8 {
        match self {
            Self::Exchange => 1,
            Self::Admission => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Exchange),
            2 => Some(Self::Admission),
            _ => None,
        }
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing has come back yet, not even from the other side's kernel.
    Connecting,
    /// The other side's kernel has accepted.
    ShakingHands,
    /// The other side has proven who it is.
    Sending,
    /// The other side has the request, or this side has its first bytes.
    Waiting,
}

impl Stage {
    const fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::ShakingHands => "shaking hands",
            Self::Sending => "sending",
            Self::Waiting => "waiting for a message",
        }
    }
}

/// A connection failed. Whether the other side took the request in is unknown only for [`StreamError::Message`] and
/// [`StreamError::Deadline`].
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// Nobody there.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No TLS, or not with this cluster.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// Its CA is not the one that the token names.
    #[error(
        "it belongs to another cluster than the join token, or its CA was changed since; 'gossipctl join-token' on a manager shows the present token"
    )]
    WrongCluster,
    /// Its CA is none that this node trusts.
    #[error("its certificate is of a CA that this node does not know")]
    UnknownCa,
    /// It has a certificate of the CA that names no member.
    #[error("its certificate names no node")]
    NoPeer,
    /// It did not answer in time.
    #[error("no answer within {:.3} s while {}", .after.as_secs_f32(), .stage.word())]
    Deadline {
        /// How far it had come.
        stage: Stage,
        /// How long that stage was waited for.
        after: Duration,
    },
    /// The connection broke off, or carried something else than a message.
    #[error("broken off: {0}")]
    Message(io::Error),
}

impl StreamError {
    /// What it says about the other side.
    pub(super) fn outcome(&self) -> ExchangeError {
        use io::ErrorKind as Kind;
        match self {
            Self::Connect(error) => match error.kind() {
                Kind::ConnectionRefused => ExchangeError::Refused,
                Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown | Kind::TimedOut => {
                    ExchangeError::Unreachable
                }
                // Of this machine's own making, such as having no descriptors left: it says nothing about the other.
                _ => ExchangeError::Broken,
            },
            Self::Deadline { stage: Stage::Connecting, .. } => ExchangeError::Unreachable,
            Self::Deadline { stage: Stage::ShakingHands | Stage::Sending | Stage::Waiting, .. } => {
                ExchangeError::Stalled
            }
            // What rustls finds wrong comes as invalid data; the rest is the connection's own end.
            Self::Tls(error) if error.kind() != Kind::InvalidData => ExchangeError::Broken,
            Self::Tls(_) | Self::NoPeer | Self::WrongCluster | Self::UnknownCa => ExchangeError::WrongPeer,
            Self::Message(_) => ExchangeError::Broken,
        }
    }
}

async fn within<T>(
    after: Duration,
    stage: Stage,
    what: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    timeout(after, what).await.unwrap_or(Err(StreamError::Deadline { stage, after }))
}

/// How long a stage that begins now may take: as long as patience lasts, at most its deadline.
fn at_most(deadline: Duration, patience_ends: Instant) -> Duration {
    deadline.min(patience_ends.saturating_duration_since(Instant::now()))
}

async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    topic: Topic,
    body: &[u8],
    deadline: Duration,
) -> Result<(), StreamError> {
    let length = u32::try_from(body.len()).map_err(|error| StreamError::Message(io::Error::other(error)))?;
    let mut head = [topic.byte(), 0, 0, 0, 0];
    head.iter_mut().skip(1).zip(length.to_be_bytes()).for_each(|(slot, byte)| *slot = byte);
    let write = async {
        stream.write_all(&head).await?;
        stream.write_all(body).await?;
        stream.flush().await
    };
    within(deadline, Stage::Sending, async { write.await.map_err(StreamError::Message) }).await
}

async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    cap: usize,
    deadline: Duration,
) -> Result<(Topic, Vec<u8>), StreamError> {
    let read = async {
        let topic = Topic::from_byte(stream.read_u8().await?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "message of an unknown topic"))?;
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if length > cap {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        // What arrives is stored, not what is announced.
        let mut body = Vec::with_capacity(length.min(64 * 1024));
        stream.take(length as u64).read_to_end(&mut body).await?;
        if body.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((topic, body))
    };
    within(deadline, Stage::Waiting, async { read.await.map_err(StreamError::Message) }).await
}

/// A connection that this node made: the other end has proven who it is, and nothing was said yet.
pub(super) struct Connection {
    stream: client::TlsStream<TcpStream>,
    patience_ends: Instant,
    /// Who is there.
    pub peer: Peer,
}

impl Connection {
    /// Connects to the member at `addr`. After `patience` all is given up, the later request included; each stage has
    /// its own deadline besides.
    ///
    /// # Errors
    /// [`StreamError`]; the other side was asked nothing.
    pub(super) async fn open(
        addr: SocketAddr,
        config: Arc<ClientConfig>,
        patience: Duration,
    ) -> Result<Self, StreamError> {
        let patience_ends = Instant::now() + patience.min(PATIENCE_MAX);
        let tcp = within(at_most(CONNECT_DEADLINE, patience_ends), Stage::Connecting, async {
            TcpStream::connect(addr).await.map_err(StreamError::Connect)
        })
        .await?;
        // A request is one write; waiting for more to send would only delay it.
        tcp.set_nodelay(true).map_err(StreamError::Connect)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| StreamError::Tls(io::Error::other(error)))?;
        let stream = within(at_most(HANDSHAKE_DEADLINE, patience_ends), Stage::ShakingHands, async {
            TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                if error.to_string().contains(WRONG_CA) {
                    StreamError::WrongCluster
                } else if let Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) = cause {
                    StreamError::UnknownCa
                } else {
                    StreamError::Tls(error)
                }
            })
        })
        .await?;
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(peer_of);
        Ok(Self { peer: peer.ok_or(StreamError::NoPeer)?, patience_ends, stream })
    }

    /// The certificate with this digest in the chain that the other end presented.
    pub(super) fn certificate(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        let chain = self.stream.get_ref().1.peer_certificates()?;
        chain.iter().find(|certificate| ca_digest(certificate) == *digest).map(|certificate| certificate.to_vec())
    }

    /// Asks, waits for the reply, closes.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(super) async fn ask(mut self, topic: Topic, request: &[u8]) -> Result<Vec<u8>, StreamError> {
        write_message(&mut self.stream, topic, request, at_most(MESSAGE_DEADLINE, self.patience_ends)).await?;
        let left = at_most(MESSAGE_DEADLINE, self.patience_ends);
        let (answered, reply) = read_message(&mut self.stream, REPLY_BYTES_MAX, left).await?;
        // The reply is here; how the connection ends does not matter any more.
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        if answered == topic {
            Ok(reply)
        } else {
            Err(StreamError::Message(io::Error::new(io::ErrorKind::InvalidData, "reply of another topic")))
        }
    }
}

/// A request that arrived.
pub(super) struct Request {
    stream: server::TlsStream<TcpStream>,
    /// Who asks; none: a stranger.
    pub peer: Option<Peer>,
    /// What it is about.
    pub topic: Topic,
    /// The encoded request.
    pub body: Vec<u8>,
}

impl Request {
    /// Takes a request from a connection just accepted.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(super) async fn read(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, StreamError> {
        tcp.set_nodelay(true).map_err(StreamError::Connect)?;
        let mut stream = within(HANDSHAKE_DEADLINE, Stage::ShakingHands, async {
            TlsAcceptor::from(config).accept(tcp).await.map_err(StreamError::Tls)
        })
        .await?;
        let peer = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(certificate) => Some(peer_of(certificate).ok_or(StreamError::NoPeer)?),
        };
        let (cap, deadline) = match peer {
            Some(_) => (REQUEST_BYTES_MAX, MESSAGE_DEADLINE),
            None => (STRANGER_BYTES_MAX, STRANGER_DEADLINE),
        };
        let (topic, body) = read_message(&mut stream, cap, deadline).await?;
        Ok(Self { stream, peer, topic, body })
    }

    /// Answers and closes.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(super) async fn reply(mut self, body: &[u8]) -> Result<(), StreamError> {
        write_message(&mut self.stream, self.topic, body, MESSAGE_DEADLINE).await?;
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;
    use crate::agent::tls;

    /// For what is over before certificates are looked at.
    fn config() -> Arc<ClientConfig> {
        tls::joiner([0; 32]).unwrap()
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    async fn outcome(addr: SocketAddr, patience: Duration) -> ExchangeError {
        match Connection::open(addr, config(), patience).await {
            Ok(_) => panic!("nobody there has a certificate"),
            Err(error) => error.outcome(),
        }
    }

    /// Longer than any test takes: only an answer ends it.
    const LONG: Duration = PATIENCE_MAX;
    /// Over soon, but not before this machine's own kernel has answered.
    const SHORT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let (listener, addr) = listening().await;
        drop(listener);
        assert_eq!(outcome(addr, LONG).await, ExchangeError::Refused);
    }

    #[tokio::test]
    async fn whoever_accepts_and_does_not_answer_is_stalled() {
        // The kernel accepts; nobody ever takes the connection over, as while the process is stopped.
        let (_listener, addr) = listening().await;
        assert_eq!(outcome(addr, SHORT).await, ExchangeError::Stalled);
    }

    #[tokio::test]
    async fn whoever_does_not_even_accept_is_unreachable() {
        // A full backlog: the kernel lets further connections wait without an answer.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut accepted = Vec::new();
        while let Ok(Ok(connection)) = timeout(SHORT, TcpStream::connect(addr)).await {
            accepted.push(connection);
        }
        assert_eq!(outcome(addr, SHORT).await, ExchangeError::Unreachable);
    }

    #[tokio::test]
    async fn whoever_hangs_up_has_broken_off() {
        let (listener, addr) = listening().await;
        let (outcome, _) = tokio::join!(outcome(addr, LONG), async { drop(listener.accept().await.unwrap()) });
        assert_eq!(outcome, ExchangeError::Broken);
    }

    #[tokio::test]
    async fn whoever_speaks_no_tls_is_the_wrong_peer() {
        let (listener, addr) = listening().await;
        let speak = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
            tcp
        };
        assert_eq!(tokio::join!(outcome(addr, LONG), speak).0, ExchangeError::WrongPeer);
    }

    #[test]
    fn how_far_it_came_tells_what_is_wrong() {
        let after = Duration::from_secs(1);
        let late = |stage| StreamError::Deadline { stage, after };
        let connect = |kind: io::ErrorKind| StreamError::Connect(kind.into());
        let cases = [
            (late(Stage::Connecting), ExchangeError::Unreachable),
            (late(Stage::ShakingHands), ExchangeError::Stalled),
            (late(Stage::Sending), ExchangeError::Stalled),
            (late(Stage::Waiting), ExchangeError::Stalled),
            (connect(io::ErrorKind::ConnectionRefused), ExchangeError::Refused),
            (connect(io::ErrorKind::HostUnreachable), ExchangeError::Unreachable),
            (connect(io::ErrorKind::NetworkUnreachable), ExchangeError::Unreachable),
            (connect(io::ErrorKind::TimedOut), ExchangeError::Unreachable),
            (connect(io::ErrorKind::Other), ExchangeError::Broken),
            (StreamError::Tls(io::ErrorKind::UnexpectedEof.into()), ExchangeError::Broken),
            (StreamError::Tls(io::ErrorKind::InvalidData.into()), ExchangeError::WrongPeer),
            (StreamError::WrongCluster, ExchangeError::WrongPeer),
            (StreamError::UnknownCa, ExchangeError::WrongPeer),
            (StreamError::NoPeer, ExchangeError::WrongPeer),
            (StreamError::Message(io::ErrorKind::ConnectionReset.into()), ExchangeError::Broken),
        ];
        for (error, expected) in cases {
            assert_eq!(error.outcome(), expected, "{error}");
        }
    }
}
