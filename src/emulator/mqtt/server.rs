//! The port of MQTT over TLS.
//!
//! Invariant: connections and handshakes are bounded in number and time, and all have ended when the server has.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::super::quick_ack::QuickAck;
use super::connection::{self, Desk};

/// Connections served at once; more are closed at once.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to wait when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port, not served yet.
#[derive(Debug)]
pub struct MqttServer {
    listener: TcpListener,
    connections_max: usize,
}

impl MqttServer {
    /// Takes a bound listener.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, connections_max: CONNECTIONS_MAX })
    }

    /// The same for so many connections at once.
    #[must_use]
    pub fn with_connections_max(self, connections_max: usize) -> Self {
        Self { connections_max, ..self }
    }

    /// Serves until `stop` is cancelled and every connection has ended.
    pub async fn serve(self, mut tls: ServerConfig, desk: Desk, stop: CancellationToken) {
        tls.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if connections.len() < self.connections_max => {
                    connections.spawn(welcome(stream, acceptor.clone(), desk.clone(), stop.clone()));
                }
                Ok((_, peer)) => tracing::warn!(%peer, "too many MQTT connections; one more was closed"),
                Err(error) => {
                    tracing::warn!(%error, "the embedded hub cannot take an MQTT connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

async fn welcome(stream: TcpStream, acceptor: TlsAcceptor, desk: Desk, stop: CancellationToken) {
    let handshake = async { acceptor.accept(QuickAck::new(stream)?).await };
    let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake);
    match stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => connection::serve(&desk, stream, stop).await,
        Some(Ok(Err(error))) => {
            tracing::debug!(%error, "the embedded hub let an MQTT client go before its first packet");
        }
        Some(Err(_)) | None => {}
    }
}
