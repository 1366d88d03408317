//! What stands between daemon and hub: it hands every request on and every answer back, and misbehaves when told to.
//!
//! Invariant: it sees every request of the daemon, so what it counts is what was sent: a write without its guard
//! cannot pass unseen, carried out or not.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::support::World;

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a flood sends at a time, and at most.
const FLOOD_PIECE: usize = 64 * 1024;
const FLOOD_BYTES: usize = 64 * 1024 * 1024;
/// Between two bytes of an answer that trickles.
const TRICKLE: Duration = Duration::from_millis(100);

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// The connection is reset before TLS.
    ResetAtOnce,
    /// Bytes that are no TLS.
    NoTls,
    /// A handshake that never begins.
    SilentHandshake,
    /// No answer at all.
    Silence,
    /// Half of the answer, then nothing.
    SilenceInBody,
    /// The answer one byte at a time.
    Trickle,
    /// A reset in the place of the answer, the request not handed on.
    Reset,
    /// A reset in the place of the answer, the request carried out.
    ResetWhenDone,
    /// Half of the answer, then a reset.
    ResetInBody,
    /// A closed connection before the announced end.
    Truncated,
    /// Bytes that are no HTTP.
    NoHttp,
    /// JSON that is none.
    NoJson,
    /// JSON of another shape.
    OtherJson,
    /// A page for people, as captive portals and proxies send.
    WebPage,
    /// An answer far beyond what is read.
    Flood,
    /// Header fields far beyond what is read.
    FloodOfFields,
    /// A redirect to somewhere else.
    Redirect,
    /// The twin of another device.
    OtherTwin,
    /// A page of a query that ends in its middle, well framed.
    HalfPage,
    /// The same continuation for every page.
    LoopingContinuation,
    /// 503 with a wait of thirty years.
    LongRetryAfter,
}

impl Misdeed {
    /// Whether it concerns pages of queries alone.
    fn is_of_queries(self) -> bool {
        matches!(self, Self::HalfPage | Self::LoopingContinuation)
    }
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Answers that went wrong.
    pub(crate) met: usize,
    /// Queries among them.
    pub(crate) met_queries: usize,
    /// Guarded writes of twins.
    pub(crate) writes: usize,
    /// Writes that could overwrite what nobody had read.
    pub(crate) unguarded: Vec<String>,
}

/// A server between the daemon and the hub of a world. Ends when dropped.
pub(crate) struct Between {
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    misdeed: watch::Sender<Option<Misdeed>>,
    seen: Mutex<Seen>,
    hub: reqwest::Client,
    base: String,
    token: String,
    /// Where redirects lead.
    elsewhere: String,
}

impl Between {
    /// Stands before the hub in `state`, with a `hub.json` of its own under `name`. Redirects lead to `elsewhere`.
    pub(crate) async fn start(world: &World, state: &str, name: &str, elsewhere: &str) -> Self {
        let (address, token, hub) = world.raw_client(state);
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = tls.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();

        let ca_file = world.path(&format!("{name}.pem"));
        fs::write(&ca_file, certified.cert.pem()).unwrap();
        let mut json = world.hub_json(state);
        json["caFile"] = ca_file.to_str().unwrap().into();
        json["hostName"] = format!("localhost:{port}").into();
        json["https"] = format!("127.0.0.1:{port}").into();
        for field in ["ownerConnectionString", "serviceConnectionString"] {
            let (_, rest) = json[field].as_str().unwrap().split_once(';').unwrap();
            json[field] = format!("HostName=localhost:{port};{rest}").into();
        }
        world.write(name, &json.to_string());

        let (misdeed, _) = watch::channel(None);
        let (seen, base, elsewhere) = (Mutex::default(), format!("https://{address}"), elsewhere.to_owned());
        let shared = Arc::new(Shared { misdeed, seen, hub, base, token, elsewhere });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&shared)));
        Self { shared, _serving: serving }
    }

    /// From now on answers go wrong like this, or no longer.
    pub(crate) fn misbehave(&self, misdeed: Option<Misdeed>) {
        self.shared.misdeed.send_replace(misdeed);
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                // A connection that breaks is what these tests are about.
                connections.spawn(async move { connection(accepted.unwrap().0, tls, &shared).await.ok() });
            }
        }
    }
}

async fn connection(mut stream: TcpStream, tls: TlsAcceptor, shared: &Shared) -> io::Result<()> {
    let misdeed = *shared.misdeed.borrow();
    match misdeed {
        Some(Misdeed::ResetAtOnce) => {
            shared.met(false);
            return stream.set_zero_linger();
        }
        Some(Misdeed::NoTls) => {
            shared.met(false);
            return stream.write_all(b"220 smtp.example.com ESMTP ready\r\n").await;
        }
        Some(Misdeed::SilentHandshake) => {
            shared.met(false);
            shared.end_of(misdeed).await;
            return Ok(());
        }
        Some(_) | None => {}
    }
    let mut stream = tls.accept(stream).await?;
    while let Some(request) = Request::read(&mut stream).await? {
        shared.witness(&request);
        let misdeed = (*shared.misdeed.borrow()).filter(|misdeed| !misdeed.is_of_queries() || request.is_query());
        let Some(misdeed) = misdeed else {
            let answer = shared.hand_on(&request).await?;
            stream.write_all(&answer.bytes()).await?;
            continue;
        };
        shared.met(request.is_query());
        if !shared.do_wrong(misdeed, &request, &mut stream).await? {
            return Ok(());
        }
    }
    Ok(())
}

impl Shared {
    fn met(&self, query: bool) {
        let mut seen = self.seen.lock().unwrap();
        seen.met += 1;
        seen.met_queries += usize::from(query);
    }

    fn witness(&self, request: &Request) {
        let if_match = request.field("if-match");
        let guarded = match request.method.as_str() {
            "GET" => return,
            "POST" if request.is_query() => return,
            // Without If-Match a PUT of an identity only creates (`iot-hub.md` 2.2).
            "PUT" => if_match.is_none(),
            _ => if_match.is_some_and(|etag| !etag.contains('*')),
        };
        let mut seen = self.seen.lock().unwrap();
        if !guarded {
            seen.unguarded.push(format!("{} {} {if_match:?}", request.method, request.target));
        } else if request.method == "PATCH" {
            seen.writes += 1;
        }
    }

    async fn hand_on(&self, request: &Request) -> io::Result<Answer> {
        let method = reqwest::Method::from_bytes(request.method.as_bytes()).unwrap();
        let mut onward = self.hub.request(method, format!("{}{}", self.base, request.target));
        for name in ["if-match", "content-type", "x-ms-max-item-count", "x-ms-continuation"] {
            if let Some(value) = request.field(name) {
                onward = onward.header(name, value);
            }
        }
        let answer = onward.header("Authorization", &self.token).body(request.body.clone()).send().await;
        let answer = answer.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let kept = ["content-type", "x-ms-continuation", "iothub-errorcode"];
        let fields = kept.iter().filter_map(|name| {
            let value = answer.headers().get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        let fields = fields.collect();
        Ok(Answer { status, fields, body: answer.bytes().await.map_err(io::Error::other)?.to_vec() })
    }

    /// Answers wrongly; whether the connection goes on.
    async fn do_wrong(
        &self,
        misdeed: Misdeed,
        request: &Request,
        stream: &mut TlsStream<TcpStream>,
    ) -> io::Result<bool> {
        let carried_out = matches!(
            misdeed,
            Misdeed::ResetWhenDone
                | Misdeed::SilenceInBody
                | Misdeed::Trickle
                | Misdeed::ResetInBody
                | Misdeed::Truncated
                | Misdeed::HalfPage
                | Misdeed::LoopingContinuation
        );
        let mut answer = if carried_out { self.hand_on(request).await? } else { Answer::of(200, "") };
        let half = |answer: &Answer| answer.bytes()[..answer.bytes().len() - answer.body.len().div_ceil(2)].to_vec();
        match misdeed {
            Misdeed::ResetAtOnce | Misdeed::NoTls | Misdeed::SilentHandshake => return Ok(false),
            Misdeed::Reset | Misdeed::ResetWhenDone => return reset(stream),
            Misdeed::Silence => self.end_of(Some(misdeed)).await,
            Misdeed::SilenceInBody => {
                stream.write_all(&half(&answer)).await?;
                self.end_of(Some(misdeed)).await;
            }
            Misdeed::ResetInBody => {
                stream.write_all(&half(&answer)).await?;
                stream.flush().await?;
                return reset(stream);
            }
            Misdeed::Truncated => stream.write_all(&half(&answer)).await?,
            Misdeed::Trickle => return self.trickle(&answer.bytes(), stream).await,
            Misdeed::NoHttp => stream.write_all(b"\x00\xff\x13 what is this?\r\n\r\n\r\n").await?,
            Misdeed::Flood => return flood(stream, &["HTTP/1.1 200 OK\r\n\r\n"], b'[').await,
            Misdeed::FloodOfFields => return flood(stream, &["HTTP/1.1 200 OK\r\nx-flood: "], b'x').await,
            Misdeed::NoJson => answer = Answer::of(200, "{\"deviceId\": \"d0\", [[[["),
            Misdeed::OtherJson => answer = Answer::of(200, "{\"deviceId\":7,\"etag\":{},\"tags\":[]}"),
            Misdeed::WebPage => {
                answer = Answer::of(200, "<!doctype html><title>Sign in to the network</title>");
                answer.fields.push(("content-type".to_owned(), "text/html".to_owned()));
            }
            Misdeed::Redirect => {
                answer = Answer::of(307, "");
                answer.fields.push(("location".to_owned(), format!("{}{}", self.elsewhere, request.target)));
            }
            Misdeed::OtherTwin => {
                let twin = r#"{"deviceId":"another","etag":"AAAAAAAAAAE=","version":2,"properties":{"desired":{}}}"#;
                answer = Answer::of(200, twin);
            }
            Misdeed::HalfPage => answer.body.truncate(answer.body.len() / 2),
            Misdeed::LoopingContinuation => {
                answer.fields.retain(|(name, _)| name != "x-ms-continuation");
                answer.fields.push(("x-ms-continuation".to_owned(), "around-and-around".to_owned()));
            }
            Misdeed::LongRetryAfter => {
                answer = Answer::of(503, r#"{"Message":"ErrorCode:ServiceUnavailable;later"}"#);
                answer.fields.push(("retry-after".to_owned(), "999999999".to_owned()));
            }
        }
        let is_answered =
            !matches!(misdeed, Misdeed::Silence | Misdeed::SilenceInBody | Misdeed::Truncated | Misdeed::NoHttp);
        if is_answered {
            stream.write_all(&answer.bytes()).await?;
        }
        Ok(is_answered)
    }

    async fn trickle(&self, bytes: &[u8], stream: &mut TlsStream<TcpStream>) -> io::Result<bool> {
        let mut misdeed = self.misdeed.subscribe();
        for (at, byte) in bytes.iter().enumerate() {
            stream.write_all(&[*byte]).await?;
            stream.flush().await?;
            if tokio::time::timeout(TRICKLE, misdeed.wait_for(Option::is_none)).await.is_ok() {
                stream.write_all(&bytes[at + 1..]).await?;
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Waits until this misdeed is over.
    async fn end_of(&self, misdeed: Option<Misdeed>) {
        self.misdeed.subscribe().wait_for(|now| *now != misdeed).await.unwrap();
    }
}

/// Ends the connection as a crashed peer's system does.
fn reset(stream: &TlsStream<TcpStream>) -> io::Result<bool> {
    stream.get_ref().0.set_zero_linger()?;
    Ok(false)
}

/// Sends one byte for as long as anybody takes it, to a bound.
async fn flood(stream: &mut TlsStream<TcpStream>, head: &[&str], byte: u8) -> io::Result<bool> {
    for text in head {
        stream.write_all(text.as_bytes()).await?;
    }
    let piece = vec![byte; FLOOD_PIECE];
    for _ in 0..FLOOD_BYTES / FLOOD_PIECE {
        stream.write_all(&piece).await?;
    }
    Ok(false)
}

/// One request as it came.
struct Request {
    method: String,
    /// Path and query.
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// The next request; `None` when the client has left between two.
    async fn read(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            assert!(bytes.len() < HEAD_BYTES_MAX, "the client sends a head without an end");
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let mut request = Self { method, target, fields: lines.map(field).collect(), body: Vec::new() };
        let length = request.field("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = bytes.split_off(head_end + 4);
        while request.body.len() < length {
            if stream.read_buf(&mut request.body).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn is_query(&self) -> bool {
        self.target.starts_with("/devices/query?")
    }
}

/// An answer, framed by its length.
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of(status: u16, body: &str) -> Self {
        Self { status, fields: Vec::new(), body: body.as_bytes().to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} told\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}
