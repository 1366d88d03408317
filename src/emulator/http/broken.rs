//! Answers that do not arrive whole.
//!
//! Invariant: the head of a broken answer promises the whole body. When nothing of it is given, not even the head
//! leaves: the server ends the connection before it writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use axum::http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::Frame;

/// `response` with a connection that ends before it, or within its body.
pub(super) async fn broken(response: Response<Body>, within_body: bool) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len().max(1)));
    let part = within_body.then(|| whole.slice(..whole.len() / 2));
    Response::from_parts(head, Body::new(BrokenBody { part, partial: within_body, gave_way: false }))
}

/// A body that gives one part at most and then fails.
struct BrokenBody {
    part: Option<Bytes>,
    partial: bool,
    gave_way: bool,
}

impl HttpBody for BrokenBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(part) = self.part.take() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        // A body that gives nothing fails at once, so that the head never leaves either.
        if self.partial && !self.gave_way {
            // What was given is written before the connection ends.
            self.gave_way = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(std::io::Error::other("the connection ends here, as a fault asks for"))))
    }
}
