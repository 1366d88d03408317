//! The answers of our own port.
//!
//! Invariant: rendering and compressing happen on blocking threads, two at a time; whoever comes beyond that gets 503
//! at once.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::Readiness;
use super::access::{Access, guard};
use super::body::{Chunks, Compressed, plain};
use crate::exporter::Published;
use crate::metrics::{Code, Handler, OpsMetrics};

/// Expositions rendered at one time.
const RENDERS_MAX: usize = 2;
/// Prometheus 3 fails a scrape without it (`metrics.md` 1.2).
const EXPOSITION_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Seconds after which a refused scrape may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// Where the status API begins.
const API_ROOT: &str = "/api/v1";
const INDEX: &str = "<!doctype html><title>geminid</title><h1>geminid</h1>\
<p><a href=\"/metrics\">/metrics</a> <a href=\"/livez\">/livez</a> <a href=\"/readyz\">/readyz</a></p>\n";

/// What our own port shows.
#[derive(Debug, Clone)]
pub struct Ops {
    /// Where our own instruments are registered.
    pub registry: Registry,
    /// Our own instruments about this port.
    pub metrics: OpsMetrics,
    /// What the twin queries gave.
    pub published: Published,
    /// What `/readyz` says.
    pub readiness: Readiness,
}

/// The routes `/`, `/metrics`, `/livez` and `/readyz`; `access` says who may see the first two.
pub fn router(ops: Ops, access: Access) -> Router {
    let state = AppState {
        ops: Arc::new(ops),
        renders: Arc::new(Semaphore::new(RENDERS_MAX)),
        compressed: Arc::new(Compressed::default()),
    };
    let guarded = Router::new()
        .route("/", get(Html(INDEX)))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(access, guard));
    Router::new()
        .merge(guarded)
        .route("/livez", get("ok\n"))
        .route("/readyz", get(readyz))
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

#[derive(Debug, Clone)]
struct AppState {
    ops: Arc<Ops>,
    renders: Arc<Semaphore>,
    compressed: Arc<Compressed>,
}

async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let handler = match request.uri().path() {
        "/metrics" => None,
        "/" => Some(Handler::Index),
        "/livez" => Some(Handler::Livez),
        "/readyz" => Some(Handler::Readyz),
        path if is_api(path) => Some(Handler::Api),
        _ => Some(Handler::Unknown),
    };
    let response = next.run(request).await;
    if let Some(handler) = handler {
        state.ops.metrics.answered(handler, Code::of_status(response.status().as_u16()));
    }
    response
}

/// Whether a path is the status API's, known or not.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix(API_ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn readyz(State(state): State<AppState>) -> Response {
    let (status, word) = match state.ops.readiness.is_ready() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, format!("{word}\n{}", state.ops.readiness.report())).into_response()
}

async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let Ok(permit) = Arc::clone(&state.renders).try_acquire_owned() else {
        let busy = format!("{RENDERS_MAX} scrapes are being answered already\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], busy).into_response();
    };
    let gzip = takes_gzip(&headers);
    let rendered = tokio::task::spawn_blocking(move || {
        let body = render(&state, gzip);
        drop(permit);
        body
    });
    match rendered.await {
        Ok(body) => {
            let mut response = Body::new(body).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, EXPOSITION_TYPE);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            if gzip {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(error) => {
            tracing::error!("failed to render the exposition: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "failed to render the exposition\n").into_response()
        }
    }
}

/// Whether the client names gzip without refusing it (`q=0`).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0));
        named && !refused
    })
}

/// Our own instruments, then what the queries gave. The names of both are disjoint by their prefixes.
fn render(state: &AppState, gzip: bool) -> Chunks {
    let ops = &state.ops;
    let runtime = Handle::current().metrics();
    ops.metrics.set_runtime(runtime.num_workers(), runtime.num_alive_tasks(), runtime.global_queue_depth());
    let mut own = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&ops.registry.gather(), &mut own) {
        // What was written may end within a line, and would cost the series of the queries as well.
        tracing::error!("failed to encode our own metrics: {error}");
        own.clear();
    }
    let exposition = ops.published.exposition();
    let series = own.lines().filter(|line| !line.starts_with('#')).count() + exposition.series;
    ops.metrics.exposed(series, own.len() + exposition.bytes);
    if gzip { state.compressed.gzip(&own, &exposition) } else { plain(own, &exposition) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use axum::body::to_bytes;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::hub::fake::{Answer, FakeHub};
    use crate::metrics::Metrics;
    use crate::series::fixtures::{column, counting, query};
    use crate::series::{QuerySpec, strict};

    fn ops() -> (Metrics, Ops) {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &["prod", "test"]).unwrap();
        let readiness = Readiness::new(&["prod", "test"]);
        let ops = Ops { registry, metrics: metrics.ops.clone(), published: Published::default(), readiness };
        (metrics, ops)
    }

    async fn get_path(router: &Router, path: &str) -> (u16, String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let header = response.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, header.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    /// Answers the query `plants` with these rows.
    fn rows(rows: &[&'static str]) -> FakeHub {
        let hub = FakeHub::default();
        hub.answer("plants", None, Answer::Page(rows.to_vec(), None));
        hub
    }

    fn spec() -> QuerySpec {
        let mut metric = counting("twinquery_plant_devices", &[("plant", column("plant")), ("line", column("line"))]);
        metric.help = "Devices \\ of a \"plant\".".to_owned();
        query("plants", vec![metric])
    }

    /// Lets an exporter run its queries once.
    async fn export(published: &Published, hub: &str, rows: FakeHub) {
        let (_sender, receiver) = watch::channel(Arc::new(vec![spec()]));
        let cancel = CancellationToken::new();
        let rng = fastrand::Rng::with_seed(1);
        let process = Metrics::register(&Registry::new(), &[hub]).unwrap().process;
        let exporter =
            crate::exporter::run(hub.to_owned(), rows, receiver, published.clone(), process, cancel.clone(), rng);
        let stop = async {
            tokio::time::sleep(Duration::from_secs(6)).await;
            cancel.cancel();
        };
        tokio::join!(exporter, stop);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_exposition_is_valid() {
        let (metrics, ops) = ops();
        metrics.source.hub("prod").reloaded("7f1c \\ \"x\"\n", UNIX_EPOCH + Duration::from_secs(7));
        metrics.controller.hub("prod").set_twins(crate::metrics::TwinState::InSync, 3);
        let router = router(ops.clone(), Access::default());
        let (status, content_type, before) = get_path(&router, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        strict::parse(&before).unwrap();

        let odd =
            &[r#"{"plant":"a \\ \" \n{}=,","line":"","x":1}"#, r#"{"plant":"a \\ \" \n{}=,"}"#, r#"{"line":null}"#];
        export(&ops.published, "prod", rows(odd)).await;
        export(&ops.published, "test", rows(&[r#"{"plant":7,"line":"1"}"#])).await;
        let (_, _, text) = get_path(&router, "/metrics").await;
        let families = strict::parse(&text).unwrap();
        let plants = &families["twinquery_plant_devices"];
        assert_eq!(plants.help, r#"Devices \ of a "plant". TwinQuery plants, every 10m."#);
        assert_eq!(plants.samples.len(), 3, "two hubs in one family");
        assert_eq!(families["geminid_query_up"].samples.len(), 2);
        assert_eq!(families["geminid_source_revision_info"].samples[0].1["revision"], "7f1c \\ \"x\"\n");

        // What the last exposition said of itself stands in the next one.
        let (_, _, next) = get_path(&router, "/metrics").await;
        let gauge = |name: &str| strict::parse(&next).unwrap()[name].samples[0].2;
        let size = |count: usize| f64::from(u32::try_from(count).unwrap());
        assert_eq!(gauge("geminid_exposition_bytes"), size(text.len()));
        let series: usize = families.values().map(|family| family.samples.len()).sum();
        assert_eq!(gauge("geminid_exposition_series"), size(series));
    }

    #[test]
    fn gzip_is_for_whoever_names_it() {
        for (value, wanted) in
            [("gzip", true), ("deflate, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("gzip; q=0.0", false)]
        {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(takes_gzip(&headers), wanted, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_scrape_says_how_it_is_encoded_and_how_long_it_is() {
        let (_, ops) = ops();
        let router = router(ops, Access::default());
        for (value, encoding) in [("identity", None), ("gzip", Some("gzip"))] {
            let request = Request::builder().uri("/metrics").header("accept-encoding", value);
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header(header::CONTENT_ENCODING).as_deref(), encoding);
            assert_eq!(header(header::VARY).as_deref(), Some("accept-encoding"));
            let length = header(header::CONTENT_LENGTH);
            let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
            assert!(length.is_none_or(|length| length == body.len().to_string()));
            assert_eq!(body.starts_with(&[0x1f, 0x8b]), encoding.is_some());
        }
    }

    /// A collector that waits within a scrape until `open` is closed.
    struct Gate {
        entered: tokio::sync::mpsc::UnboundedSender<()>,
        open: Arc<Semaphore>,
    }

    impl prometheus::core::Collector for Gate {
        fn desc(&self) -> Vec<&prometheus::core::Desc> {
            Vec::new()
        }

        fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
            self.entered.send(()).ok();
            Handle::current().block_on(self.open.acquire()).err();
            Vec::new()
        }
    }

    #[tokio::test]
    async fn one_scrape_too_many_at_one_time_is_refused() {
        let (_, ops) = ops();
        let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
        let open = Arc::new(Semaphore::new(0));
        ops.registry.register(Box::new(Gate { entered, open: Arc::clone(&open) })).unwrap();
        let router = router(ops, Access::default());
        let mut scrapes = tokio::task::JoinSet::new();
        for _ in 0..RENDERS_MAX {
            let router = router.clone();
            scrapes.spawn(async move { get_path(&router, "/metrics").await.0 });
            entries.recv().await.unwrap();
        }
        let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
        let refused = router.clone().oneshot(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(get_path(&router, "/livez").await.0, 200, "probes do not wait for scrapes");
        open.close();
        assert_eq!(scrapes.join_all().await, vec![200; RENDERS_MAX]);
        for _ in 0..3 {
            assert_eq!(get_path(&router, "/metrics").await.0, 200, "the permits come back");
        }
    }

    #[tokio::test]
    async fn probes_and_paths_answer_and_are_counted() {
        let (_, ops) = ops();
        let router = router(ops.clone(), Access::default());
        assert_eq!(get_path(&router, "/livez").await.0, 200);
        assert!(get_path(&router, "/").await.2.contains(r#"href="/metrics""#));
        assert_eq!(get_path(&router, "/nothing").await.0, 404);
        assert_eq!(get_path(&router, "/livez/").await.0, 404);
        ops.readiness.loaded("prod", "7f1c");
        ops.readiness.contacted("prod");
        let (status, _, body) = get_path(&router, "/readyz").await;
        assert_eq!(status, 503);
        insta::assert_snapshot!(body, @r"
        not ready
        hub prod: revision 7f1c
        hub test: its manifests were not loaded yet
        hub test: it was not contacted yet
        ");
        ops.readiness.loaded("test", "b2");
        ops.readiness.contacted("test");
        let (status, _, body) = get_path(&router, "/readyz").await;
        assert_eq!((status, body.as_str()), (200, "ok\nhub prod: revision 7f1c\nhub test: revision b2\n"));
        let post = Request::builder().method("POST").uri("/livez").body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(post).await.unwrap().status(), 405);

        let (_, _, text) = get_path(&router, "/metrics").await;
        for line in [
            r#"geminid_http_requests_total{code="200",handler="livez"} 1"#,
            r#"geminid_http_requests_total{code="405",handler="livez"} 1"#,
            r#"geminid_http_requests_total{code="200",handler="index"} 1"#,
            r#"geminid_http_requests_total{code="404",handler="unknown"} 2"#,
            r#"geminid_http_requests_total{code="503",handler="readyz"} 1"#,
            r#"geminid_http_requests_total{code="200",handler="readyz"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_lives_through_queries_that_panic_hang_fail_and_crawl() {
        let (_, ops) = ops();
        let hub = FakeHub::default();
        hub.answer("good", None, Answer::Page(vec!["{}"], None));
        hub.answer("panics", None, Answer::Panic);
        hub.answer("fails", None, Answer::failed());
        hub.answer("crawls", None, Answer::Slow(Duration::from_secs(40)));
        let names = ["good", "panics", "fails", "crawls", "hangs"];
        let specs = names.map(|name| query(name, vec![counting(&format!("twinquery_{name}"), &[])]));
        let (_sender, receiver) = watch::channel(Arc::new(specs.to_vec()));
        let cancel = CancellationToken::new();
        let process = Metrics::register(&Registry::new(), &["prod"]).unwrap().process;
        let rng = fastrand::Rng::with_seed(1);
        let published = ops.published.clone();
        let exporter = crate::exporter::run("prod".to_owned(), hub, receiver, published, process, cancel.clone(), rng);
        let router = router(ops, Access::default());
        let scrapes = async {
            for seconds in 1..200_u32 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let (status, _, text) = get_path(&router, "/metrics").await;
                assert_eq!(status, 200);
                let families = strict::parse(&text).unwrap();
                assert!(seconds < 6 || families["twinquery_good"].samples[0].2 == 1.0, "after {seconds} s");
                assert!(!families.contains_key("twinquery_panics") && !families.contains_key("twinquery_hangs"));
                assert_eq!(families["geminid_query_up"].samples.len(), names.len());
                assert!(seconds < 46 || families.contains_key("twinquery_crawls"), "after {seconds} s");
            }
            cancel.cancel();
        };
        tokio::join!(exporter, scrapes);
    }
}
