//! What goes over the wire: requests by the hub's own log, bytes by a proxy that looks at nothing.
//!
//! Both cost time, so nothing that is counted here is timed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What makes a hub log every request.
pub(crate) const LOGGING: [&str; 2] = ["--log-level", "debug"];
const CHUNK_BYTES: usize = 64 * 1024;
/// Places of what a proxy counts.
const CONNECTIONS: usize = 0;
const UP: usize = 1;
const DOWN: usize = 2;

/// An answered request.
pub(crate) struct Answered {
    pub(crate) unix_s: f64,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
}

/// The requests that a hub's log tells of.
pub(crate) fn answered(log: &str) -> Vec<Answered> {
    log.lines().filter_map(answer).collect()
}

fn answer(line: &str) -> Option<Answered> {
    let (head, fields) = line.split_once("embedded hub answered ")?;
    let field = |name: &str| {
        let text = fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
        Some(text.trim_matches('"').to_owned())
    };
    let at: jiff::Timestamp = head.split_whitespace().next()?.parse().ok()?;
    let status = field("status")?.parse().ok()?;
    Some(Answered { unix_s: at.as_duration().as_secs_f64(), method: field("method")?, path: field("path")?, status })
}

/// What a proxy sees: connections, and bytes with TLS and without TCP's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

impl Seen {
    /// What came since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            bytes_up: self.bytes_up - before.bytes_up,
            bytes_down: self.bytes_down - before.bytes_down,
        }
    }
}

/// Requests by kind, and what they were sent over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) gets: usize,
    pub(crate) patches: usize,
    pub(crate) queries: usize,
    pub(crate) others: usize,
    pub(crate) seen: Seen,
}

impl Counts {
    /// What the answers of a log are, and what a proxy saw of them.
    pub(crate) fn of(answers: &[Answered], seen: Seen) -> Self {
        let mut counts = Self { seen, ..Self::default() };
        for answer in answers {
            match (answer.method.as_str(), answer.path.as_str()) {
                ("GET", path) if path.starts_with("/twins/") => counts.gets += 1,
                ("PATCH", path) if path.starts_with("/twins/") => counts.patches += 1,
                ("POST", "/devices/query") => counts.queries += 1,
                _ => counts.others += 1,
            }
        }
        counts
    }

    pub(crate) fn requests(&self) -> usize {
        self.gets + self.patches + self.queries + self.others
    }
}

/// Passes connections on and counts their bytes; ends with its value.
pub(crate) struct Proxy {
    seen: Arc<[AtomicU64; 3]>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens at `address` for a hub at `hub`.
    pub(crate) async fn start(address: &str, hub: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (seen, hub): (Arc<[AtomicU64; 3]>, SocketAddr) = (Arc::default(), hub.parse().unwrap());
        let (mut serving, counted) = (JoinSet::new(), Arc::clone(&seen));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(hub).await else { continue };
                counted[CONNECTIONS].fetch_add(1, Ordering::Relaxed);
                client.set_nodelay(true).ok();
                server.set_nodelay(true).ok();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                connections.spawn(pass(from_client, to_server, Arc::clone(&counted), UP));
                connections.spawn(pass(from_server, to_client, Arc::clone(&counted), DOWN));
            }
        });
        Self { seen, _serving: serving }
    }

    /// What it saw so far.
    pub(crate) fn seen(&self) -> Seen {
        let [connections, bytes_up, bytes_down] =
            [CONNECTIONS, UP, DOWN].map(|what| self.seen[what].load(Ordering::Relaxed));
        Seen { connections, bytes_up, bytes_down }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seen: Arc<[AtomicU64; 3]>, way: usize) {
    let mut chunk = vec![0; CHUNK_BYTES];
    // Either side may end it; the other then sees its own end.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        seen[way].fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&chunk[..read]).await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}
