//! Serving our own port: HTTP/1 alone, with bounds on each head.
//!
//! Invariant: it ends when told to, at most [`DRAIN_MAX`] later, whatever a client does. A head has at most
//! [`HEAD_BYTES_MAX`] bytes and [`HEAD_FIELDS_MAX`] fields, and no client takes longer for one than [`Bounds`] says.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum_server::{Handle, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::listener::{Door, IDLE_MAX};

/// The most that answers under way may delay the end.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most fields of a head.
const HEAD_FIELDS_MAX: usize = 100;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// From the first byte of a connection to the end of its first head, the TLS handshake with it.
    first_head_time_max: Duration,
    /// From one answer to the end of the next head; so a connection may rest as long between two scrapes.
    head_time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { first_head_time_max: Duration::from_secs(15), head_time_max: IDLE_MAX }
    }
}

/// Serves `router` on `listener`, encrypted where `access` says so, until `cancel` is cancelled, then ends the answers under way and returns.
pub async fn serve(listener: TcpListener, router: Router, access: Access, cancel: CancellationToken) {
    serve_within(listener, router, access, cancel, Bounds::default()).await;
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    access: Access,
    cancel: CancellationToken,
    bounds: Bounds,
) {
    let handle = Handle::<SocketAddr>::new();
    let door = Door::new(access);
    let complain = door.clone();
    let mut server = Server::from_listener(listener)
        .acceptor(door)
        .handle(handle.clone())
        .http1_only()
        .first_request_timeout(bounds.first_head_time_max)
        .accept_error_handler(move |_, error| complain.failed(error));
    let mut http1 = server.http_builder().http1();
    http1.header_read_timeout(bounds.head_time_max).max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_FIELDS_MAX);
    let late = async {
        cancel.cancelled().await;
        handle.graceful_shutdown(None);
        tokio::time::sleep(DRAIN_MAX).await;
        handle.shutdown();
    };
    tokio::select! {
        ended = server.serve(router.into_make_service()) => match ended {
            Ok(()) => {}
            Err(error) => tracing::error!("failed to serve our own port: {error}"),
        },
        () = late => tracing::warn!("gave up waiting for clients of our own port"),
    }
}

#[cfg(test)]
mod tests;
