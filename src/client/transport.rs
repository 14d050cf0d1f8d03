//! One HTTP/1.1 exchange over a fresh connection to the Unix socket: an answer bounded in size, or one without end, read
//! line by line.
//!
//! Not here: the deadline (the caller's) and what the answer means beyond "done" or "refused".

use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{BODY_BYTES_MAX, CLUSTER_DEADLINE, ClientError, LINE_BYTES_MAX, REQUEST_DEADLINE, SILENCE_MARGIN};
use crate::api::Problem;

/// How much of an answer that cannot be read is shown, in characters: enough to recognise what it is.
const EXCERPT_CHARS: usize = 120;

/// What a client puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) request: Duration,
    pub(super) cluster: Duration,
    pub(super) body_bytes: usize,
    pub(super) line_bytes: usize,
    /// How much later than at the second heartbeat a silent stream counts as dead.
    pub(super) silence_margin: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: REQUEST_DEADLINE,
            cluster: CLUSTER_DEADLINE,
            body_bytes: BODY_BYTES_MAX,
            line_bytes: LINE_BYTES_MAX,
            silence_margin: SILENCE_MARGIN,
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// What a successful answer holds.
    pub(super) fn json<T: DeserializeOwned>(self, target: &str) -> Result<T, ClientError> {
        let body = self.success(target)?;
        serde_json::from_slice(&body).map_err(|error| {
            ClientError::Protocol(format!("the daemon's answer to {target} is not understood: {error}"))
        })
    }

    /// The text of a successful answer.
    pub(super) fn text(self, target: &str) -> Result<String, ClientError> {
        String::from_utf8(self.success(target)?.into())
            .map_err(|_| ClientError::Protocol(format!("the daemon's answer to {target} is not text")))
    }

    fn success(self, target: &str) -> Result<Bytes, ClientError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => {
                let status = self.status.as_u16();
                let shown = excerpt(&self.body);
                Err(ClientError::Protocol(format!("the daemon answered {target} with status {status} and {shown}")))
            }
        }
    }
}

/// Connects to the socket.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(path).await.map_err(|error| ClientError::connect(path, error))
}

/// Sends a request and reads the answer, of at most `limit` bytes.
pub(super) async fn exchange(
    path: &Path,
    method: Method,
    target: &str,
    body: Option<Vec<u8>>,
    limit: usize,
) -> Result<Answer, ClientError> {
    let request = request(method, target, body)?;
    let stream = connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;

    let mut answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        read(response, limit).await
    });
    // The connection is driven here, not in a task of its own: when this future is dropped, so is the connection.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

fn request(method: Method, target: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("gossipd-client/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| ClientError::Protocol(format!("cannot write the request to {target}: {error}")))
}

/// An answer without end, line by line. Driven by whoever reads it, gone when dropped.
pub(super) struct Lines {
    /// None: it has ended, and what it brought may still be read.
    connection: Option<Connection>,
    body: Incoming,
    buffer: BytesMut,
    /// So many bytes of the buffer have been looked through.
    searched: usize,
    line_bytes_max: usize,
    /// The connection would end with it.
    _sender: SendRequest<Full<Bytes>>,
}

type Connection = Pin<Box<http1::Connection<TokioIo<UnixStream>, Full<Bytes>>>>;

/// Asks for an answer without end, whose refusals are of at most `limits.body_bytes`.
pub(super) async fn lines(
    path: &Path,
    method: Method,
    target: &str,
    body: Option<Vec<u8>>,
    limits: Limits,
) -> Result<Lines, ClientError> {
    let request = request(method, target, body)?;
    let stream = connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let mut connection = Box::pin(connection);
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = &mut connection => answer.await,
    };
    let response = response.map_err(|error| broken(&error))?;
    if response.status() == StatusCode::OK {
        let line_bytes_max = limits.line_bytes;
        let (connection, body) = (Some(connection), response.into_body());
        return Ok(Lines { connection, body, buffer: BytesMut::new(), searched: 0, line_bytes_max, _sender: sender });
    }
    let mut answer = pin!(read(response, limits.body_bytes));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    };
    match answer?.success(target) {
        Err(error) => Err(error),
        Ok(_) => Err(ClientError::Protocol(format!("the daemon's answer to {target} is no stream"))),
    }
}

impl Lines {
    /// The next line with its end; none when the answer has ended after all. May be dropped at any await.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let found = self.buffer.iter().skip(self.searched).position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > self.line_bytes_max {
                let limit = self.line_bytes_max;
                return Err(ClientError::Protocol(format!("a line of the daemon's is longer than {limit} bytes")));
            }
            match poll_fn(|context| self.poll_frame(context)).await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().ok()),
                None if self.buffer.is_empty() => return Ok(None),
                None | Some(Err(_)) => {
                    return Err(ClientError::Protocol("the connection to the daemon broke".to_owned()));
                }
            }
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            self.connection = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<Answer, ClientError> {
    let too_large = || ClientError::Protocol(format!("the daemon's answer is larger than {limit} bytes"));
    let (parts, body) = response.into_parts();
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(Answer { status: parts.status, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(hung_up()),
    }
}

fn broken(error: &hyper::Error) -> ClientError {
    if error.is_parse() { ClientError::Protocol(format!("what answers is no gossipd: {error}")) } else { hung_up() }
}

fn hung_up() -> ClientError {
    ClientError::Protocol("the daemon closed the connection before it had answered".to_owned())
}

/// The beginning of an answer, fit for a terminal.
fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "nothing else".to_owned();
    }
    format!("{:?}", String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS).collect::<String>())
}
