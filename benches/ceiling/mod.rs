//! What the machine can do at most: a bare server of the hub's libraries, and the clients that ask it.
//!
//! The bare server reads and writes typed JSON of a twin's size over the same TLS and keeps nothing. With a log it has
//! one thing more: it appends a record of a twin's size to a file and flushes it, in groups, before it answers a PATCH,
//! as any server must that keeps its word.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use hmac::{Hmac, KeyInit, Mac};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Requests in flight.
pub(crate) const IN_FLIGHT: usize = 32;
/// About what a store keeps of a twin of 1 KB.
const RECORD_BYTES: usize = 1400;
/// How long the ceiling of another benchmark is measured.
const BESIDE: Duration = Duration::from_secs(3);
/// The log of the bare server that keeps its word starts again behind so many bytes.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// GET a twin, then PATCH it.
    Alternating,
    /// GET alone.
    Get,
    /// PATCH alone.
    Patch,
}

impl Mix {
    /// Whether request number `done` writes, and the how-manieth twin it is about.
    fn of(self, done: usize) -> (bool, usize) {
        match self {
            Self::Alternating => (done % 2 == 1, done / 2),
            Self::Get => (false, done),
            Self::Patch => (true, done),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// One client of the usual library, with its pool.
    Reqwest,
    /// A bare HTTP connection for each worker.
    Lean,
}

/// A server to ask.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What to trust, as PEM.
    pub(crate) authority: Vec<u8>,
    /// The value of `Authorization`.
    pub(crate) token: String,
}

impl Target {
    /// A hub, by its connection string.
    pub(crate) fn hub(address: SocketAddr, connection_string: &str, authority: Vec<u8>) -> Self {
        Self { address, authority, token: token(connection_string) }
    }
}

/// What a hub can do at most for one client, as a benchmark that uses it prints beside its own figures. The twins
/// `device-0` and so on are written to.
pub(crate) async fn beside(hub: &Target, twins: usize) -> String {
    let rate = rate(hub, Client::Lean, Mix::Alternating, twins, BESIDE).await;
    format!(
        "ceiling: this hub answers {rate:.0} requests a second, GET and PATCH by turns, {IN_FLIGHT} in flight, to a \
         client that does nothing else"
    )
}

/// Requests a second over `round`. Each worker has twins of its own, so that no write waits for another by its etag.
pub(crate) async fn rate(target: &Target, client: Client, mix: Mix, twins: usize, round: Duration) -> f64 {
    let reqwest = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let mut askers = Vec::new();
    for _ in 0..IN_FLIGHT {
        askers.push(match client {
            Client::Reqwest => Asker::Reqwest(reqwest.clone()),
            Client::Lean => Asker::Lean(connect(target).await),
        });
    }
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for (worker, mut asker) in askers.into_iter().enumerate() {
        let target = target.clone();
        workers.spawn(async move {
            let mut done = 0_usize;
            while begun.elapsed() < round {
                let (is_write, turn) = mix.of(done);
                // Far apart, as the writes of a fleet are.
                let twin = (worker + IN_FLIGHT * (turn * 7919 % (twins / IN_FLIGHT))) % twins;
                let path = format!("/twins/device-{twin}?api-version=2021-04-12");
                let body = is_write.then(|| {
                    format!(r#"{{"tags":{{"counter":{done}}},"properties":{{"desired":{{"power":{done}}}}}}}"#)
                });
                let (status, length) = asker.ask(&target, &path, body).await;
                assert!(status == 200 && length > 100, "{status}, {length} bytes");
                done += 1;
            }
            done
        });
    }
    let done: usize = workers.join_all().await.into_iter().sum();
    f64::from(u32::try_from(done).unwrap()) / begun.elapsed().as_secs_f64()
}

enum Asker {
    Reqwest(reqwest::Client),
    Lean(SendRequest<Body>),
}

impl Asker {
    /// The status, and the length of the body. A PATCH when there is a body to send.
    async fn ask(&mut self, target: &Target, path: &str, body: Option<String>) -> (u16, usize) {
        match self {
            Self::Reqwest(client) => {
                let url = format!("https://{}{path}", target.address);
                let request = match body {
                    Some(body) => client.patch(&url).header("If-Match", "\"*\"").body(body),
                    None => client.get(&url),
                };
                let answer = request.header("Authorization", &target.token).send().await.unwrap();
                (answer.status().as_u16(), answer.bytes().await.unwrap().len())
            }
            Self::Lean(connection) => {
                let request = Request::builder().uri(path).header("Host", "localhost");
                let request = request.header("Authorization", &target.token);
                let request = match body {
                    Some(body) => request.method("PATCH").header("If-Match", "\"*\"").body(Body::from(body)),
                    None => request.body(Body::empty()),
                };
                connection.ready().await.unwrap();
                let answer = connection.send_request(request.unwrap()).await.unwrap();
                let status = answer.status().as_u16();
                let body = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
                (status, body.len())
            }
        }
    }
}

async fn connect(target: &Target) -> SendRequest<Body> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&target.authority) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(target.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { connection.await.unwrap() });
    sender
}

type Log = mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>;

/// A log with group commit: what waits is written over the zeros of a file and flushed at once.
fn log(folder: &Path) -> Log {
    let (sender, mut receiver) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1024);
    let file = File::create(folder.join("bare.log")).unwrap();
    file.write_all_at(&vec![0; usize::try_from(LOG_BYTES).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
    let mut end = 0;
    tokio::task::spawn_blocking(move || {
        while let Some((mut bytes, waiter)) = receiver.blocking_recv() {
            let mut waiters = vec![waiter];
            while let Ok((more, waiter)) = receiver.try_recv() {
                bytes.extend(more);
                waiters.push(waiter);
            }
            end = if end + bytes.len() as u64 > LOG_BYTES { 0 } else { end };
            file.write_all_at(&bytes, end).unwrap();
            file.sync_data().unwrap();
            end += bytes.len() as u64;
            waiters.into_iter().for_each(|waiter| waiter.send(()).unwrap());
        }
    });
    sender
}

/// Starts a server of the same libraries, which reads a typed patch and answers with `twin`. It keeps a record of each
/// patch in a log in `kept_in`, or nothing.
pub(crate) async fn bare_server(twin: serde_json::Value, kept_in: Option<&Path>) -> Target {
    let log = kept_in.map(log);
    let read = {
        let twin = twin.clone();
        move || async move { axum::Json(twin) }
    };
    let write = move |body: axum::Json<serde_json::Value>| async move {
        assert!(body.0.is_object());
        if let Some(log) = log {
            let (kept, told) = oneshot::channel();
            log.send((vec![b'x'; RECORD_BYTES], kept)).await.unwrap();
            told.await.unwrap();
        }
        axum::Json(twin)
    };
    let lenient = axum::middleware::map_request(|mut request: axum::extract::Request| async {
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        request
    });
    let router = Router::new().route("/twins/{id}", get(read).patch(write)).layer(lenient);
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (key.cert.pem().into_bytes(), key.signing_key.serialize_pem().into_bytes());
    let tls = RustlsConfig::from_pem(certificate.clone(), key).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service()).await.unwrap();
    });
    Target { address, authority: certificate, token: "none".to_owned() }
}

/// A token as an SDK makes it.
fn token(connection_string: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let field = |name: &str| {
        let mut fields = connection_string.split(';').map(|field| field.split_once('=').unwrap());
        fields.find(|(key, _)| *key == name).unwrap().1.to_owned()
    };
    let resource = field("HostName").replace(':', "%3A");
    let expiry = jiff::Timestamp::now().as_second() + 3600;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(field("SharedAccessKey")).unwrap()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={}", field("SharedAccessKeyName"))
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
