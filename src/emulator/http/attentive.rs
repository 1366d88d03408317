//! What a connection's socket is told of the requests on it.
//!
//! Invariant: a request is called whole only when nothing of it is to come.

use std::task::{Context, Poll};

use axum::body::HttpBody;
use axum::http::Request;
use tower_service::Service;

use super::super::quick_ack::WholeRequest;

/// The service of one connection. A request without a body is whole as it comes; for any other, whoever reads the body
/// finds the [`WholeRequest`] to tell among its extensions.
#[derive(Debug, Clone)]
pub struct Attentive<S> {
    inner: S,
    whole: WholeRequest,
}

impl<S> Attentive<S> {
    /// Has the socket of `whole` told.
    pub const fn new(inner: S, whole: WholeRequest) -> Self {
        Self { inner, whole }
    }
}

impl<S: Service<Request<B>>, B: HttpBody> Service<Request<B>> for Attentive<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let is_whole = request.body().is_end_stream();
        self.whole.tell(is_whole);
        if !is_whole {
            request.extensions_mut().insert(self.whole.clone());
        }
        self.inner.call(request)
    }
}
