//! MQTT over WebSocket, on the HTTPS port (`iot-hub.md` 8.1).
//!
//! Invariant: frames and packets do not line up, so the frames' content is pumped through a pipe and the connection
//! behind it is the one of plain TLS. As many connections as there are places; the last place comes back when the last
//! connection has ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Desk};

const PATH: &str = "/$iothub/websocket";
const PROTOCOL: &str = "mqtt";
/// Connections served at once; more are refused.
pub(super) const CONNECTIONS_MAX: u32 = 4096;
/// The largest frame and message, in bytes; MQTT packets are bounded behind it.
const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// What waits in the pipe in each direction, in bytes.
const PIPE_BYTES: usize = 16 * 1024;
/// How long a client may take to take a frame.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// The door of WebSocket clients.
#[derive(Debug, Clone)]
pub struct WebSocketDoor {
    desk: Desk,
    stop: CancellationToken,
    pub(super) places: Arc<Semaphore>,
}

impl WebSocketDoor {
    /// A door to `desk`, closed when `stop` is cancelled.
    #[must_use]
    pub fn new(desk: Desk, stop: CancellationToken) -> Self {
        Self { desk, stop, places: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)) }
    }

    /// The route to put beside the hub's own.
    pub fn router(&self) -> Router {
        Router::new().route(PATH, get(upgrade)).with_state(self.clone())
    }

    /// Waits until every connection has ended; none begins any more.
    pub async fn closed(&self) {
        // A closed semaphore gives no place; this one is only closed here.
        if self.places.acquire_many(CONNECTIONS_MAX).await.is_ok() {
            self.places.close();
        }
    }
}

async fn upgrade(State(door): State<WebSocketDoor>, request: WebSocketUpgrade) -> Response {
    let request = request.protocols([PROTOCOL]).max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    if request.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, "the WebSocket subprotocol must be mqtt").into_response();
    }
    let Ok(place) = Arc::clone(&door.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections").into_response();
    };
    request.on_upgrade(async move |socket| {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (pumped, ()) = tokio::join!(pump(socket, near), connection::serve(&door.desk, far, door.stop.clone()));
        if let Err(error) = pumped {
            tracing::debug!(%error, "a WebSocket connection broke");
        }
        drop(place);
    })
}

/// Carries bytes between the frames and the pipe until either ends.
async fn pump(mut socket: WebSocket, pipe: DuplexStream) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let mut buffer = vec![0; PIPE_BYTES];
    // Not yet written into the pipe; the next frame waits for it.
    let mut rest = Bytes::new();
    loop {
        tokio::select! {
            frame = socket.recv(), if rest.is_empty() => match frame {
                None => return Ok(()),
                Some(Ok(Message::Binary(content))) => rest = content,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => return Err(io::Error::other("a frame of text")),
                Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Err(error)) => return Err(io::Error::other(error)),
            },
            written = writer.write(&rest), if !rest.is_empty() => {
                let rest_from = written?;
                rest = rest.slice(rest_from..);
            }
            read = reader.read(&mut buffer) => match read? {
                0 => return send(&mut socket, Message::Close(None)).await,
                count => send(&mut socket, Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await?,
            },
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> io::Result<()> {
    let sent = tokio::time::timeout(SEND_TIME_MAX, socket.send(message)).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)
}
