//! A daemon for tests: it says what it was told to say, byte for byte.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// What a [`Fake`] was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `METHOD TARGET`.
    pub(crate) line: String,
    /// The body.
    pub(crate) body: String,
}

/// A listening fake; it goes with the runtime of its test.
pub(crate) struct Fake {
    dir: TempDir,
}

impl Fake {
    /// Listens, and answers each request with the bytes that `answer` gives, then closes the connection.
    pub(crate) fn serve(answer: impl Fn(&Asked) -> Vec<u8> + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Self { dir };
        let listener = UnixListener::bind(fake.path()).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // A connection without a request: a client that looked whether somebody listens.
                let Some(asked) = read_request(&mut stream).await else { continue };
                // The client may have gone (a size limit): nothing to tell anybody.
                let _ = stream.write_all(&answer(&asked)).await;
            }
        });
        fake
    }

    /// Listens, and answers each request with the bytes that `answer` gives; then nothing follows and nothing ends.
    pub(crate) fn serve_and_hold(answer: impl Fn(&Asked) -> Vec<u8> + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Self { dir };
        let listener = UnixListener::bind(fake.path()).unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(asked) = read_request(&mut stream).await else { continue };
                let _ = stream.write_all(&answer(&asked)).await;
                held.push(stream);
            }
        });
        fake
    }

    /// Listens and answers everything with one JSON document.
    pub(crate) fn json(status: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::serve(move |_| http(status, "application/json", &body))
    }

    /// The socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("d.sock")
    }
}

/// A whole HTTP response.
pub(crate) fn http(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// The beginning of a stream that ends with its connection.
pub(crate) fn stream(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{lines}").into_bytes()
}

async fn read_request(stream: &mut tokio::net::UnixStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if body.len() >= length {
            let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
            return Some(Asked { line, body: body.to_owned() });
        }
    }
}
