//! Serving our own port.
//!
//! Invariant: it ends when told to, at most [`DRAIN_MAX`] later, whatever a client does.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::listener::BoundedListener;

/// The most that answers under way may delay the end.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Serves `router` on `listener`, encrypted where `access` says so, until `cancel` is cancelled, then ends the answers under way and returns.
pub async fn serve(listener: TcpListener, router: Router, access: Access, cancel: CancellationToken) {
    let server = axum::serve(BoundedListener::new(listener, access), router)
        .with_graceful_shutdown(cancel.clone().cancelled_owned());
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        ended = server => match ended {
            Ok(()) => {}
            Err(error) => tracing::error!("failed to serve our own port: {error}"),
        },
        () = late => tracing::warn!("gave up waiting for clients of our own port"),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn it_answers_over_tcp_and_ends_when_told_though_a_client_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut head = [0; 15];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
            // Half a request, never finished.
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(b"GET / HT").await.unwrap();
            cancel.cancel();
            (stream, silent)
        };
        let router = Router::new().route("/livez", get("ok\n"));
        let ((), _held) = tokio::join!(serve(listener, router, Access::default(), cancel.clone()), client);
    }
}
