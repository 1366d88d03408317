use std::io;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::ops::listener::CONNECTIONS_MAX;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUEST: &str = "GET /livez HTTP/1.1\r\nhost: h\r\n\r\n";

/// Lets `client` use a port whose `/livez` answers, then ends the port.
async fn with_port<C: Future>(bounds: Bounds, client: impl FnOnce(SocketAddr) -> C) -> C::Output {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let router = Router::new().route("/livez", get("ok\n"));
    let served = serve_within(listener, router, Access::default(), cancel.clone(), bounds);
    let asked = async {
        let output = client(address).await;
        cancel.cancel();
        output
    };
    tokio::join!(served, asked).1
}

/// Asks on a connection that stays.
async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    Ok(())
}

/// What comes until the connection ends, which it does, be it by a reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = async { while stream.read_buf(&mut answer).await.is_ok_and(|length| length > 0) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn it_answers_over_tcp_and_ends_when_told_though_a_client_stays() {
    let client = async |address| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream).await.unwrap();
        // Half a request, never finished.
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        (stream, silent)
    };
    let _held = with_port(Bounds::default(), client).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_not_of_http_1_ends_its_connection() {
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let whole = |more: &str| format!("GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{more}\r\n");
    let long = "x".repeat(HEAD_BYTES_MAX);
    let cases = [
        ("good", whole(&fields(HEAD_FIELDS_MAX - 2)), "HTTP/1.1 200"),
        ("a large one", whole(&format!("x: {}\r\n", &long[..HEAD_BYTES_MAX - 1024])), "HTTP/1.1 200"),
        ("too many fields", whole(&fields(HEAD_FIELDS_MAX + 1)), "HTTP/1.1 431"),
        ("a field too large", format!("GET /livez HTTP/1.1\r\nx: {long}"), "HTTP/1.1 431"),
        ("an address too large", format!("GET /{long} HTTP/1.1\r\n\r\n"), "HTTP/1.1 4"),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
    ];
    let client = async |address| {
        for (what, head, expected) in cases {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Who is refused early may not be read to the end.
            stream.write_all(head.as_bytes()).await.ok();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{what}: {answer:.80}");
        }
    };
    with_port(Bounds::default(), client).await;
}

#[tokio::test]
async fn a_slow_head_ends_its_connection_the_first_one_sooner() {
    let short = Duration::from_millis(200);
    let first = Bounds { first_head_time_max: short, ..Bounds::default() };
    let later = Bounds { head_time_max: short, ..Bounds::default() };
    assert!(Bounds::default().first_head_time_max < Bounds::default().head_time_max);
    for (what, bounds, is_asked_before) in [("first", first, false), ("later", later, true)] {
        let client = async |address| {
            for begun in ["", "GET /livez HTTP/1.1\r\nhost: h"] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                if is_asked_before {
                    ask(&mut stream).await.unwrap();
                }
                stream.write_all(begun.as_bytes()).await.unwrap();
                assert_eq!(rest(&mut stream).await, "", "{what}: {begun:?}");
            }
        };
        with_port(bounds, client).await;
    }
}

#[tokio::test]
async fn at_the_bound_of_connections_the_one_answered_longest_ago_makes_room() {
    let client = async |address| {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream).await.unwrap();
            streams.push(stream);
        }
        ask(&mut streams[0]).await.unwrap();
        let mut one_more = TcpStream::connect(address).await.unwrap();
        ask(&mut one_more).await.unwrap();
        assert_eq!(rest(&mut streams[1]).await, "", "it was answered longest ago");
        for (index, stream) in streams.iter_mut().enumerate().filter(|(index, _)| *index != 1) {
            ask(stream).await.unwrap_or_else(|error| panic!("connection {index} stays: {error}"));
        }
        ask(&mut one_more).await.unwrap();
    };
    with_port(Bounds::default(), client).await;
}
