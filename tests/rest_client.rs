//! The REST client against a server that answers as it is told, over real TLS on loopback.
//!
//! What a well-behaved hub does is in `contract.rs`; here is the rest: odd answers, refusals, no answer at all.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use axum_server::tls_rustls::RustlsConfig;
use geminid::hub::{
    ConnectionString, Continuation, HubError, ProxyOptions, ReadTwins, RestHub, RestOptions, SetupError, WriteTwins,
};
use geminid::twin::{DeviceId, ETag, MergePatch, ModuleId, Twin, TwinRef, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// base64 of `canary-key`.
const KEY: &str = "Y2FuYXJ5LWtleQ==";
/// The least a call must be given: a hub delays before it refuses (`iot-hub.md` 6.4).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a test's server answers: status, headers, body.
type Answer = (u16, Vec<(&'static str, &'static str)>, Vec<u8>);

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Seen {
    /// Method, path and query.
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    seen: Vec<Seen>,
}

/// A TLS server that gives its answers one after the other, then 500. Ends when dropped.
struct Server {
    port: u16,
    ca_pem: Vec<u8>,
    script: Arc<Mutex<Script>>,
    _serving: JoinSet<()>,
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let headers =
        parts.headers.iter().map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned())).collect();
    let seen = Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let mut script = script.lock().unwrap();
    script.seen.push(seen);
    let (status, headers, body) = script.answers.pop_front().unwrap_or((500, vec![], vec![]));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), seen: Vec::new() }));
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_pem = certified.cert.pem().into_bytes();
        let key = certified.signing_key.serialize_pem().into_bytes();
        let tls = RustlsConfig::from_pem(ca_pem.clone(), key).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = Router::new().fallback(answer).with_state(script.clone()).into_make_service();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum_server::from_tcp_rustls(listener, tls).unwrap().serve(service).await.unwrap();
        });
        Self { port, ca_pem, script, _serving: serving }
    }

    fn hub(&self) -> RestHub {
        self.hub_with(|_| {})
    }

    fn hub_with(&self, change: impl FnOnce(&mut RestOptions)) -> RestHub {
        hub_at(self.port, |options| {
            options.extra_ca_pem = Some(self.ca_pem.clone());
            change(options);
        })
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }
}

/// A clock that moves one second each time it is read, so that no two tokens are alike.
fn ticking() -> jiff::Timestamp {
    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000);
    jiff::Timestamp::from_second(NOW.fetch_add(1, Ordering::SeqCst)).unwrap()
}

fn hub_at(port: u16, change: impl FnOnce(&mut RestOptions)) -> RestHub {
    try_hub_at(port, change).unwrap()
}

fn try_hub_at(port: u16, change: impl FnOnce(&mut RestOptions)) -> Result<RestHub, SetupError> {
    let text = format!("HostName=localhost:{port};SharedAccessKeyName=service;SharedAccessKey={KEY}");
    let mut options = RestOptions::new(ticking);
    change(&mut options);
    RestHub::new(ConnectionString::parse(&text).unwrap(), &options)
}

fn ok(body: &str) -> Answer {
    (200, vec![], body.as_bytes().to_vec())
}

fn refused(status: u16, code: &'static str) -> Answer {
    let body = format!(r#"{{"Message":"ErrorCode:{code};words","ExceptionMessage":"Tracking ID:1"}}"#);
    (status, vec![("iothub-errorcode", code)], body.into_bytes())
}

fn d1() -> TwinRef {
    TwinRef::device(DeviceId::new("d1").unwrap())
}

const D1: &str =
    r#"{"deviceId":"d1","etag":"AAAAAAAAAAE=","version":2,"tags":null,"properties":{"desired":{},"reported":{}}}"#;

async fn get_d1(answer: Answer) -> Result<Twin, HubError> {
    let server = Server::start([answer]).await;
    let result = server.hub().get_twin(&d1()).await;
    assert_eq!(server.seen().len(), 1, "one call is one request");
    result
}

#[tokio::test]
async fn requests_have_the_form_of_the_hub() {
    let odd = r#"{"deviceId":"a+b#c%?","moduleId":"$m","etag":"E","version":1,"properties":{"desired":{}}}"#;
    let page = (200, vec![("x-ms-continuation", "next=="), ("x-ms-item-type", "Raw")], b"[]".to_vec());
    let server = Server::start([ok(odd), ok(D1), ok("{}"), page, ok("[{}]")]).await;
    let hub = server.hub();

    let module = TwinRef::module(DeviceId::new("a+b#c%?").unwrap(), ModuleId::new("$m").unwrap());
    assert_eq!(hub.get_twin(&module).await.unwrap().twin_ref, module);
    let mut patch = MergePatch::default();
    patch.set(geminid::twin::Section::Tags, &["a".to_owned()], Value::Null);
    hub.patch_twin(&d1(), &patch, &ETag::new("AAAAAAAAAAE=").unwrap()).await.unwrap();
    hub.create_device(&d1().device).await.unwrap();
    let first = hub.query_page("SELECT * FROM devices", 1000, None).await.unwrap();
    assert_eq!((first.rows.len(), first.next.as_ref()), (0, Some(&Continuation("next==".to_owned()))));
    let last = hub.query_page("SELECT * FROM devices", 0, first.next.as_ref()).await.unwrap();
    assert_eq!((last.rows.len(), last.next), (1, None));

    let seen = server.seen();
    let lines: Vec<&str> = seen.iter().map(|request| request.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "GET /twins/a%2Bb%23c%25%3F/modules/%24m?api-version=2021-04-12",
            "PATCH /twins/d1?api-version=2021-04-12",
            "PUT /devices/d1?api-version=2021-04-12",
            "POST /devices/query?api-version=2021-04-12",
            "POST /devices/query?api-version=2021-04-12",
        ]
    );
    let bodies: Vec<&str> = seen.iter().map(|request| request.body.as_str()).collect();
    let query = r#"{"query":"SELECT * FROM devices"}"#;
    assert_eq!(bodies, ["", r#"{"tags":{"a":null}}"#, r#"{"deviceId":"d1","status":"enabled"}"#, query, query]);
    let all = |name: &str| seen.iter().map(|request| request.header(name)).collect::<Vec<_>>();
    assert_eq!(all("if-match"), [None, Some("\"AAAAAAAAAAE=\""), None, None, None]);
    assert_eq!(all("x-ms-max-item-count"), [None, None, None, Some("100"), Some("1")]);
    assert_eq!(all("x-ms-continuation"), [None, None, None, None, Some("next==")]);
    let json = Some("application/json; charset=utf-8");
    assert_eq!(all("content-type"), [None, json, json, json, json]);
    for token in all("authorization") {
        let token = token.unwrap();
        let start = format!("SharedAccessSignature sr=localhost%3A{}&sig=", server.port);
        assert!(token.starts_with(&start) && token.ends_with("&skn=service"), "{token}");
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let server =
        Server::start([refused(401, "IotHubUnauthorizedAccess"), ok(D1), refused(401, "X"), refused(401, "X")]).await;
    let hub = server.hub();
    hub.get_twin(&d1()).await.unwrap();
    let error = hub.get_twin(&d1()).await.unwrap_err();
    assert_eq!(error.category(), "unauthorized");
    let text = error.to_string();
    assert!(text.contains(&format!("localhost:{}", server.port)) && text.contains("policy service"), "{text}");
    assert!(!format!("{error:?} {hub:?}").contains("Y2Fu"), "the key stays hidden");
    let seen = server.seen();
    let tokens: Vec<_> = seen.iter().map(|request| request.header("authorization").unwrap()).collect();
    assert_eq!(tokens.len(), 4);
    assert_ne!(tokens[0], tokens[1], "the second try carries a new token");
    assert_eq!(tokens[1], tokens[2], "which is kept");
    assert_ne!(tokens[2], tokens[3]);
}

#[tokio::test]
async fn refusals_become_errors_and_are_not_retried() {
    for (answer, category) in [
        (refused(404, "DeviceNotFound"), "not_found"),
        (refused(404, "ConfigurationNotFound"), "invalid"),
        ((404, vec![], b"<html>".to_vec()), "server"),
        (refused(403, "IotHubQuotaExceeded"), "quota"),
        (refused(403, "403002"), "quota"),
        (refused(403, "IotHubSuspended"), "unauthorized"),
        (refused(400, "ArgumentInvalid"), "invalid"),
        (refused(429, "ThrottlingException"), "throttled"),
        (refused(500, "ServerError"), "server"),
        (refused(503, "ServiceUnavailable"), "server"),
        ((307, vec![("location", "/twins/d1")], vec![]), "server"),
        ((204, vec![], vec![]), "server"),
    ] {
        let text = format!("{answer:?}");
        assert_eq!(get_d1(answer).await.unwrap_err().category(), category, "{text}");
    }
    let hint = (429, vec![("retry-after", "7")], vec![]);
    let wait = HubError::Throttled { code: "no code".to_owned(), retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(get_d1(hint).await, Err(wait));
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_of_the_server() {
    let mut large = D1.as_bytes().to_vec();
    large.resize(8 * 1024 * 1024 + 1, b' ');
    let mut largest = large.clone();
    largest.pop();
    assert!(get_d1((200, vec![], largest)).await.is_ok());
    for (body, words) in [
        (large, "larger than 8388608 bytes"),
        (b"".to_vec(), "the answer is not JSON"),
        (b"\xff\xfe".to_vec(), "the answer is not JSON"),
        (D1.replace("d1", "d2").into_bytes(), "another one's"),
        (D1.replace("AAAAAAAAAAE=", "*").into_bytes(), "no etag that could guard a write"),
    ] {
        let error = get_d1((200, vec![], body)).await.unwrap_err();
        assert!(matches!(&error, HubError::Server { status: None, message } if message.contains(words)), "{error:?}");
    }
    for (header, body) in [("", "[]"), ("x", "{}"), ("x", "[1]"), ("ä", "[]")] {
        let server = Server::start([(200, vec![("x-ms-continuation", header)], body.as_bytes().to_vec())]).await;
        let error = server.hub().query_page("q", 1, None).await.unwrap_err();
        assert!(matches!(error, HubError::Server { status: None, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn texts_of_the_hub_are_cut_and_harmless() {
    let body = serde_json::json!({ "Message": format!("ErrorCode:X;\u{1b}[2J{}", "ä".repeat(5000)) }).to_string();
    let error = get_d1((400, vec![], body.into_bytes())).await.unwrap_err();
    let HubError::Rejected { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.len() <= 512 && message.starts_with("[2Jä"), "{message}");
    assert!(!error.to_string().contains(char::is_control));
}

#[tokio::test]
async fn ids_that_no_url_can_hold_are_refused_before_anything_is_sent() {
    let server = Server::start([]).await;
    for id in [".", ".."] {
        let twin = TwinRef::device(DeviceId::new(id).unwrap());
        let error = server.hub().get_twin(&twin).await.unwrap_err();
        assert_eq!(error.category(), "invalid", "{id}");
    }
    assert_eq!(server.seen().len(), 0);
}

/// The words of a transport error of a hub at `port`.
async fn unreachable(hub: RestHub, port: u16, timed_out: bool) -> String {
    let error = hub.get_twin(&d1()).await.unwrap_err();
    let HubError::Transport { message, timeout } = error else { panic!("{error:?}") };
    assert_eq!(timeout, timed_out, "{message}");
    assert!(message.starts_with(&format!("localhost:{port}: ")), "{message}");
    assert!(!message.contains("api-version") && !message.contains("http://"), "{message}");
    message
}

#[tokio::test]
async fn a_hub_that_cannot_be_reached_is_named_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let words = unreachable(hub_at(port, |_| {}), port, false).await;
    assert!(words.contains("refused"), "{words}");

    let server = Server::start([]).await;
    let words = unreachable(hub_at(server.port, |_| {}), server.port, false).await;
    assert!(words.contains("certificate not trusted") && words.contains("UnknownIssuer"), "{words}");

    let text = format!("HostName=127.0.0.1:{};SharedAccessKeyName=service;SharedAccessKey={KEY}", server.port);
    let mut options = RestOptions::new(ticking);
    options.extra_ca_pem = Some(server.ca_pem.clone());
    let other_name = RestHub::new(ConnectionString::parse(&text).unwrap(), &options).unwrap();
    let words = other_name.get_twin(&d1()).await.unwrap_err().to_string();
    assert!(words.contains("127.0.0.1") && words.contains("certificate not trusted"), "{words}");
    assert!(words.contains("not valid for name") && !words.contains("private CA"), "{words}");

    // The listener lets connections in but nobody ever answers them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let hub = hub_at(port, |options| options.connect_timeout = Duration::from_millis(100));
    let words = unreachable(hub, port, true).await;
    assert!(words.contains("no connection in time"), "{words}");
    let hub = hub_at(port, |options| options.timeout = Duration::from_millis(100));
    let words = unreachable(hub, port, true).await;
    assert!(words.contains("in time"), "{words}");
}

#[tokio::test]
async fn a_server_without_tls_is_a_transport_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut closing = JoinSet::new();
    closing.spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let words = unreachable(hub_at(port, |_| {}), port, false).await;
    assert!(words.contains("nothing there speaks TLS"), "{words}");
}

/// A proxy that opens one tunnel after the other, wherever it is told to, and notes where.
async fn proxy(port_of_target: u16) -> (u16, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut serving = JoinSet::new();
    let noted = asked.clone();
    serving.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            noted.lock().unwrap().push(String::from_utf8(head).unwrap().lines().next().unwrap().to_owned());
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut target = TcpStream::connect(("127.0.0.1", port_of_target)).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut target).await;
        }
    });
    (port, asked, serving)
}

#[tokio::test]
async fn a_proxy_is_used_when_it_is_set_and_not_excepted() {
    let server = Server::start([ok(D1), ok(D1), ok(D1)]).await;
    let (port, asked, _serving) = proxy(server.port).await;
    let options = |except: &str| ProxyOptions { url: format!("http://127.0.0.1:{port}").into(), except: except.into() };
    let hub = server.hub_with(|set| set.proxy = Some(options("example.org")));
    hub.get_twin(&d1()).await.unwrap();
    // Over the connection that is still open: one tunnel for both.
    hub.get_twin(&d1()).await.unwrap();
    server.hub_with(|set| set.proxy = Some(options("example.org,localhost"))).get_twin(&d1()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT localhost:{} HTTP/1.1", server.port)]);
}

#[test]
fn what_a_client_cannot_be_made_of_is_named() {
    let refusal = |change: fn(&mut RestOptions)| try_hub_at(1, change).map(|_| ()).unwrap_err();
    assert_eq!(refusal(|options| options.extra_ca_pem = Some(b"nonsense".to_vec())), SetupError::Ca);
    let error = refusal(|options| {
        options.proxy = Some(ProxyOptions { url: "http://user:canary@[".into(), except: String::new() });
    });
    assert_eq!(error, SetupError::Proxy);
    assert!(!error.to_string().contains("canary"));
    let options = RestOptions::new(ticking);
    assert!(options.timeout >= ANSWER_TIMEOUT && options.connect_timeout == Duration::from_secs(10));
}
