use std::io::Write as _;

use axum::body::{Body, to_bytes};
use axum::http::{Method, header};
use tower::ServiceExt as _;

use prometheus::{Registry, TextEncoder};

use super::*;
use crate::metrics::Metrics;

const TOKEN: &str = "canary-0123456789abcdef";

fn api(remote: bool, token_file: Option<PathBuf>) -> Router {
    let now = || SystemTime::UNIX_EPOCH;
    let metrics = Metrics::register(&Registry::new(), &["prod"]).unwrap().ops;
    Api::new(ApiOptions { hubs: vec!["prod".to_owned()], token_file, remote, now, metrics }).router()
}

async fn ask(router: &Router, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn token_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn the_door_is_the_table_of_its_docs() {
    let file = token_file(&format!("{TOKEN}\n"));
    let with = || Some(file.path().to_owned());
    let right = format!("Bearer {TOKEN}");
    let wrong = "Bearer canary-0123456789abcdeX";
    let (local, evil) = ("127.0.0.1:9797", "evil.example:9797");
    for (remote, token_file, post, host, token, status, says) in [
        (false, None, false, local, None, 200, "formatVersion"),
        (false, None, false, "LOCALHOST", None, 200, "formatVersion"),
        (false, None, false, "[::1]:9797", None, 200, "formatVersion"),
        (false, None, false, evil, None, 421, "the Host header"),
        (false, None, false, "", None, 421, "the Host header"),
        (false, with(), true, evil, Some(right.as_str()), 421, "the Host header"),
        (false, None, true, local, None, 403, "actions are off; name a file with a token: api_token_file"),
        (false, None, true, local, Some(right.as_str()), 403, "actions are off"),
        (false, with(), true, local, None, 401, "a bearer token is needed"),
        (false, with(), true, local, Some("Basic eDp5"), 401, "a bearer token is needed"),
        (false, with(), true, local, Some(wrong), 401, "the token is not that of api_token_file"),
        (false, with(), true, local, Some(right.as_str()), 503, "no hub has loaded its manifests yet"),
        (true, None, false, evil, None, 403, "reading from other machines is off"),
        (true, with(), false, evil, None, 401, "a bearer token is needed"),
        (true, with(), false, evil, Some(wrong), 401, "the token is not that"),
        (true, with(), false, evil, Some(right.as_str()), 200, "formatVersion"),
        (true, with(), true, evil, Some(right.as_str()), 503, "no hub has loaded"),
        (true, Some("/nowhere".into()), false, evil, Some(right.as_str()), 403, "cannot be used"),
    ] {
        let router = api(remote, token_file.clone());
        let mut headers = vec![(header::HOST.as_str(), host), (header::CONTENT_TYPE.as_str(), "application/json")];
        headers.extend(token.map(|token| (header::AUTHORIZATION.as_str(), token)));
        let (method, path, body) = match post {
            true => (Method::POST, "/api/v1/reconcile", "{}"),
            false => (Method::GET, "/api/v1/version", ""),
        };
        let (got, text) = ask(&router, method, path, &headers, body).await;
        assert!(got == status && text.contains(says), "{remote} {token_file:?} {host} {token:?}: {got} {text}");
        assert!(!text.contains("canary"), "no token is ever shown: {text}");
    }
}

#[tokio::test]
async fn a_token_is_read_anew_and_a_short_one_is_refused() {
    let file = token_file("short\n");
    let router = api(false, Some(file.path().to_owned()));
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("host", "localhost"), ("authorization", bearer.as_str()), ("content-type", "application/json")];
        ask(&router, Method::POST, "/api/v1/reconcile", &headers, "{}").await
    };
    let (status, text) = ask("short").await;
    assert!(status == 403 && text.contains("a token has 16 to 4096 bytes"), "{text}");
    std::fs::write(file.path(), TOKEN).unwrap();
    assert_eq!(ask(TOKEN).await.0, 503);
    std::fs::write(file.path(), "another-0123456789").unwrap();
    assert_eq!((ask(TOKEN).await.0, ask("another-0123456789").await.0), (401, 503));
}

#[tokio::test]
async fn what_makes_no_sense_is_one_sentence_in_json() {
    let file = token_file(TOKEN);
    let router = api(false, Some(file.path().to_owned()));
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("host", "localhost"), ("authorization", bearer.as_str()), ("content-type", "application/json")];
    let large = format!("{{\"twin\":\"{}\"}}", "x".repeat(BODY_SIZE_MAX));
    for (method, path, body, status, says) in [
        (Method::GET, "/api/v1/twins?limit=0", "", 400, "limit is 1 to 500"),
        (Method::GET, "/api/v1/twins?stat=held", "", 400, "unknown field `stat`"),
        (Method::GET, "/api/v1/twins?state=fine", "", 400, "is no state; there are in_sync, "),
        (Method::GET, "/api/v1/twins?name=%5B", "", 400, "name: "),
        (Method::GET, "/api/v1/twins?labels=plant", "", 400, "is no label; write key=value"),
        (Method::GET, "/api/v1/twins?continue=x", "", 400, "continue is not one of ours"),
        (Method::GET, "/api/v1/twins?hub=test", "", 404, "no hub test is configured; there are prod"),
        (Method::GET, "/api/v1/hubs/prod/twins/d1", "", 503, "hub prod has not loaded its manifests yet"),
        (Method::GET, "/api/v1/hubs/prod/twins/a%2Fb", "", 400, "is no device"),
        (Method::GET, "/api/v1/events?twin=a%20b", "", 400, "is no twin"),
        (Method::GET, "/api/v1/requests/x", "", 404, "no such request is remembered"),
        (Method::POST, "/api/v1/reconcile", "", 503, "no hub has loaded its manifests yet"),
        (Method::POST, "/api/v1/reconcile", "null", 503, "no hub has loaded its manifests yet"),
        (Method::POST, "/api/v1/approve", "", 400, "EOF"),
        (Method::POST, "/api/v1/reconcile", "{\"twn\":1}", 400, "the body does not fit: unknown field `twn`"),
        (Method::POST, "/api/v1/reconcile", "[null, null]", 400, "the body is no JSON object"),
        (Method::POST, "/api/v1/reconcile", "{", 400, "parse"),
        (Method::POST, "/api/v1/reconcile", large.as_str(), 413, "the body is larger than 65536 bytes"),
        (
            Method::POST,
            "/api/v1/approve",
            "{\"hub\":\"prod\",\"guard\":\"all\",\"revision\":\"r\",\"count\":1}",
            400,
            "is no guard; there are removals, creates",
        ),
    ] {
        let (got, text) = ask(&router, method, path, &headers, body).await;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let message = json["message"].as_str().unwrap_or_default();
        assert!(got == status && message.contains(says) && json["formatVersion"] == 1, "{path}: {got} {text}");
    }
    let (status, text) = ask(&router, Method::GET, "/api/v1/twins", &headers, "").await;
    assert_eq!((status, text.as_str()), (200, "{\"formatVersion\":1,\"items\":[]}"));
    let (status, text) = ask(&router, Method::GET, "/api/v1/hubs", &headers, "").await;
    assert!(status == 200 && text.contains("\"loaded\":false"), "{text}");
}

/// A body of which nothing ever comes.
struct Never;

impl http_body::Body for Never {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_its_request_in_time() {
    let file = token_file(TOKEN);
    let router = api(false, Some(file.path().to_owned()));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/v1/reconcile")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    let start = tokio::time::Instant::now();
    let response = router.oneshot(request.body(Body::new(Never)).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 408);
    assert_eq!(start.elapsed().as_secs(), REQUEST_TIME_MAX.as_secs());
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains("\"the request took longer than 60 s; try again\""), "{text}");
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let document: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
    let router = api(false, None);
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            routes.push(format!("{method} {path}"));
            let filled = path.replace("{hub}", "prod").replace("{device}", "d1").replace("{token}", "t");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let (_, text) = ask(&router, method.clone(), &filled, &[("host", "localhost")], "").await;
            assert!(text.contains("formatVersion"), "{method} {path}: {text}");
            assert_eq!(operation.get("security").is_some(), method == Method::POST, "{method} {path}");
        }
    }
    insta::assert_snapshot!(routes.join("\n"), @r"
    post /api/v1/approve
    get /api/v1/events
    get /api/v1/hubs
    get /api/v1/hubs/{hub}/twins/{device}
    post /api/v1/reconcile
    get /api/v1/requests/{token}
    post /api/v1/resume
    post /api/v1/suspend
    get /api/v1/twins
    get /api/v1/version
    ");
    let (status, text) = ask(&router, Method::GET, "/api/v1/openapi.json", &[("host", "localhost")], "").await;
    assert_eq!((status, text + "\n"), (200, openapi_json()));
}

#[tokio::test]
async fn every_request_is_counted_the_refused_ones_too() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &["prod"]).unwrap().ops;
    let now = || SystemTime::UNIX_EPOCH;
    let options = ApiOptions { hubs: vec!["prod".to_owned()], token_file: None, remote: false, now, metrics };
    let router = Api::new(options).router();
    for (method, path, host) in [
        (Method::GET, "/api/v1/version", "localhost"),
        (Method::GET, "/api/v1/twins", "localhost"),
        (Method::GET, "/api/v1/version", "evil.example"),
        (Method::POST, "/api/v1/reconcile", "localhost"),
        (Method::GET, "/nothing", "localhost"),
    ] {
        ask(&router, method, path, &[("host", host)], "{}").await;
    }
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        r#"geminid_http_requests_total{code="200",handler="api"} 2"#,
        r#"geminid_http_requests_total{code="403",handler="api"} 1"#,
        r#"geminid_http_requests_total{code="421",handler="api"} 1"#,
        r#"geminid_http_requests_total{code="404",handler="unknown"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in {text}");
    }
}
