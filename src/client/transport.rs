//! One HTTP/1.1 exchange over a fresh connection to the Unix socket, bounded in size.
//!
//! Not here: the deadline (the caller's) and what the answer means beyond "done" or "refused".

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{BODY_BYTES_MAX, CLUSTER_DEADLINE, ClientError, REQUEST_DEADLINE};
use crate::api::Problem;

/// How much of an answer that cannot be read is shown, in characters: enough to recognise what it is.
const EXCERPT_CHARS: usize = 120;

/// What a client puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) request: Duration,
    pub(super) cluster: Duration,
    pub(super) body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: REQUEST_DEADLINE, cluster: CLUSTER_DEADLINE, body_bytes: BODY_BYTES_MAX }
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
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("gossipd-client/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| ClientError::Protocol(format!("cannot write the request to {target}: {error}")))?;
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
