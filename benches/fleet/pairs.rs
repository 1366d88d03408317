//! The least a client can do: requests that are put together beforehand, over connections that stay, one at a time each.
//!
//! Invariant: an answer other than 200 ends the run; a PATCH carries the etag of the GET before it, if there was one.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::hub::Hub;
use super::twins;

/// The argument of the process that is the ceiling.
pub(crate) const CHILD: &str = "--pairs";
/// Bytes taken from a connection at a time.
const READ_BYTES: usize = 16 * 1024;

/// A request.
pub(crate) enum Step {
    Get(usize),
    Patch(usize, String),
}

/// Where requests go.
#[derive(Clone)]
struct Target {
    address: String,
    host: String,
    token: String,
    connector: TlsConnector,
}

/// Sends the steps of every number, in order each, over so many connections.
pub(crate) async fn run(hub: &Hub, numbers: Range<usize>, in_flight: usize, steps: impl Fn(usize) -> Vec<Step>) {
    let host = hub.authority.split(':').next().unwrap().to_owned();
    let target = Target { address: hub.address.clone(), host, token: hub.token.clone(), connector: connector(&hub.ca) };
    all(&target, numbers, in_flight, steps).await;
}

/// What the parent hands to the process that is the ceiling.
pub(crate) fn arguments(hub: &Hub, count: usize, in_flight: usize) -> Vec<String> {
    let host = hub.authority.split(':').next().unwrap().to_owned();
    let ca = hub.ca.display().to_string();
    let (count, in_flight) = (count.to_string(), in_flight.to_string());
    vec![CHILD.to_owned(), hub.address.clone(), host, hub.token.clone(), ca, count, in_flight]
}

/// Reads and patches every twin.
pub(crate) fn child(arguments: &[String]) {
    let [address, host, token, ca, count, in_flight] = arguments else { panic!("what to send is not told") };
    let connector = connector(Path::new(ca));
    let target = Target { address: address.clone(), host: host.clone(), token: token.clone(), connector };
    let (count, in_flight) = (count.parse().unwrap(), in_flight.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let steps = |number| vec![Step::Get(number), Step::Patch(number, twins::remedy(number))];
    runtime.block_on(all(&target, 0..count, in_flight, steps));
}

async fn all(target: &Target, numbers: Range<usize>, in_flight: usize, steps: impl Fn(usize) -> Vec<Step>) {
    let mut workers = JoinSet::new();
    for worker in 0..in_flight.min(numbers.len()) {
        let target = target.clone();
        let steps: Vec<Step> = numbers.clone().skip(worker).step_by(in_flight).flat_map(&steps).collect();
        workers.spawn(async move {
            let mut connection = Connection::open(&target).await;
            for step in &steps {
                connection.send(step).await;
            }
        });
    }
    workers.join_all().await;
}

fn connector(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&fs::read(ca).unwrap()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

struct Connection {
    stream: TlsStream<TcpStream>,
    /// The fields that every request has.
    fields: String,
    answer: Vec<u8>,
    etag: Option<String>,
}

impl Connection {
    async fn open(target: &Target) -> Self {
        let stream = TcpStream::connect(&target.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(target.host.clone()).unwrap();
        let stream = target.connector.connect(name, stream).await.unwrap();
        let fields = format!("Host: {}\r\nAuthorization: {}\r\n", target.host, target.token);
        Self { stream, fields, answer: Vec::new(), etag: None }
    }

    async fn send(&mut self, step: &Step) {
        let (method, number, body) = match step {
            Step::Get(number) => ("GET", *number, ""),
            Step::Patch(number, body) => ("PATCH", *number, body.as_str()),
        };
        let fields = &self.fields;
        let mut request = format!("{method} /twins/{}?api-version=2021-04-12 HTTP/1.1\r\n{fields}", twins::id(number));
        if !body.is_empty() {
            let etag = self.etag.take().unwrap_or_else(|| "*".to_owned());
            request.push_str(&format!("If-Match: \"{etag}\"\r\nContent-Type: application/json\r\n"));
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        self.receive().await;
        if method == "GET" {
            self.etag = Some(text_after(&self.answer, "\"etag\":\"", '"').expect("a twin has an etag"));
        }
    }

    /// Takes one answer in, head and body.
    async fn receive(&mut self) {
        self.answer.clear();
        let mut length = None;
        while length.is_none_or(|length| self.answer.len() < length) {
            self.answer.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert!(read > 0, "the hub closed the connection");
            if length.is_none() {
                length = self.answer.windows(4).position(|part| part == b"\r\n\r\n").map(|at| {
                    let head = String::from_utf8_lossy(&self.answer[..at]).to_ascii_lowercase();
                    assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
                    let body = text_after(head.as_bytes(), "content-length: ", '\r');
                    let body = body.or_else(|| head.rsplit_once("content-length: ").map(|(_, text)| text.to_owned()));
                    at + 4 + body.and_then(|text| text.trim().parse::<usize>().ok()).expect("a length")
                });
            }
        }
    }
}

/// What stands between `before` and the next `end`.
fn text_after(bytes: &[u8], before: &str, end: char) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let rest = &text[text.find(before)? + before.len()..];
    rest.find(end).map(|at| rest[..at].to_owned())
}
