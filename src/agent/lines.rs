//! Answers without end: a body that makes its next bytes when the connection can take them, and is gone with it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;

use crate::api::watch::NDJSON;

/// Where the bytes come from.
pub(super) trait Source: Sized + Send + 'static {
    /// The next lines; none when all has been said.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// As an answer.
    fn into_answer(self) -> Response {
        let kind = HeaderValue::from_static(NDJSON);
        ([(header::CONTENT_TYPE, kind)], Body::new(Lines(Some(next(self))))).into_response()
    }
}

type Next<S> = Pin<Box<dyn Future<Output = (S, Option<Bytes>)> + Send>>;

fn next<S: Source>(mut source: S) -> Next<S> {
    Box::pin(async move {
        let bytes = source.next().await;
        (source, bytes)
    })
}

struct Lines<S>(Option<Next<S>>);

impl<S: Source> HttpBody for Lines<S> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(ready) = &mut self.0 else { return Poll::Ready(None) };
        match ready.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((source, Some(bytes))) => {
                self.0 = Some(next(source));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready((_, None)) => {
                self.0 = None;
                Poll::Ready(None)
            }
        }
    }
}
