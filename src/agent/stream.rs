//! TCP between nodes: TLS 1.3, one request and one reply for each connection.
//!
//! A message is `channel u8 | length u32 | body`. Every read and write has a deadline, every length a cap that depends
//! on whether the other side has proven to be a member.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::ca::{SERVER_NAME, ca_digest, peer_of};
use super::tls::WRONG_CA;
use crate::node::Peer;

/// How long a TCP connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long the TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// How long a request or a reply may take.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stranger's request may take: it is short.
const STRANGER_DEADLINE: Duration = Duration::from_secs(3);
/// Largest reply from a member: the state of a cluster of 65,536 nodes.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
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
    #[error("it belongs to another cluster than the join token")]
    WrongCluster,
    /// It has a certificate of the CA that names no member.
    #[error("its certificate names no node")]
    NoPeer,
    /// It did not answer in time.
    #[error("no answer within {} s while {stage}", .after.as_secs())]
    Deadline {
        /// What was going on.
        stage: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke off, or carried something else than a message.
    #[error("broken off: {0}")]
    Message(io::Error),
}

async fn within<T>(
    after: Duration,
    stage: &'static str,
    what: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    timeout(after, what).await.unwrap_or(Err(StreamError::Deadline { stage, after }))
}

async fn write_message(stream: &mut (impl AsyncWrite + Unpin), topic: Topic, body: &[u8]) -> Result<(), StreamError> {
    let length = u32::try_from(body.len()).map_err(|error| StreamError::Message(io::Error::other(error)))?;
    let mut head = [topic.byte(), 0, 0, 0, 0];
    head.iter_mut().skip(1).zip(length.to_be_bytes()).for_each(|(slot, byte)| *slot = byte);
    let write = async {
        stream.write_all(&head).await?;
        stream.write_all(body).await?;
        stream.flush().await
    };
    within(MESSAGE_DEADLINE, "sending", async { write.await.map_err(StreamError::Message) }).await
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
    within(deadline, "waiting for a message", async { read.await.map_err(StreamError::Message) }).await
}

/// A connection that this node made: the other end has proven who it is, and nothing was said yet.
pub(super) struct Connection {
    stream: client::TlsStream<TcpStream>,
    /// Who is there.
    pub peer: Peer,
}

impl Connection {
    /// Connects to the member at `addr`.
    ///
    /// # Errors
    /// [`StreamError`]; the other side was asked nothing.
    pub(super) async fn open(addr: SocketAddr, config: Arc<ClientConfig>) -> Result<Self, StreamError> {
        let tcp = within(CONNECT_DEADLINE, "connecting", async {
            TcpStream::connect(addr).await.map_err(StreamError::Connect)
        })
        .await?;
        // A request is one write; waiting for more to send would only delay it.
        tcp.set_nodelay(true).map_err(StreamError::Connect)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| StreamError::Tls(io::Error::other(error)))?;
        let stream = within(HANDSHAKE_DEADLINE, "shaking hands", async {
            TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
                if error.to_string().contains(WRONG_CA) { StreamError::WrongCluster } else { StreamError::Tls(error) }
            })
        })
        .await?;
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(peer_of);
        Ok(Self { peer: peer.ok_or(StreamError::NoPeer)?, stream })
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
        write_message(&mut self.stream, topic, request).await?;
        let (answered, reply) = read_message(&mut self.stream, REPLY_BYTES_MAX, MESSAGE_DEADLINE).await?;
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
        let mut stream = within(HANDSHAKE_DEADLINE, "shaking hands", async {
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
        write_message(&mut self.stream, self.topic, body).await?;
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        Ok(())
    }
}
