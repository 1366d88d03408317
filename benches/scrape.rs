//! Scraping 100,000 query series: `cargo bench --bench scrape [SERIES [ROUNDS]]`.
//!
//! An exporter maps rows of a hub in this process; then the page is fetched over loopback, as Prometheus does. Printed
//! are the time of a scrape and the memory that it adds at its peak, as a ratio to the body.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and starts its tasks")]
#![expect(clippy::cast_precision_loss, reason = "sizes of a page, for ratios")]

mod machine;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geminid::exporter::{self, Published};
use geminid::hub::{Continuation, HubError, QueryPage, ReadTwins};
use geminid::metrics::Metrics;
use geminid::ops::{self, Access, Ops, Readiness};
use geminid::series::{
    Evaluate, LabelColumn, LabelSource, Limits, MetricKind, MetricSpec, OnEmpty, QuerySpec, ValueSource,
};
use geminid::twin::{Twin, TwinRef, Value};
use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SERIES: usize = 100_000;
const ROUNDS: usize = 30;
/// Metrics of the query, so series of each row.
const METRICS: usize = 16;
const PAGE: usize = 100;
const TARGET_MS: f64 = 30.0;
const TARGET_MEMORY: f64 = 1.5;

/// A hub with this many rows.
#[derive(Clone, Copy)]
struct Rows(usize);

impl ReadTwins for Rows {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        Err(HubError::NotFound(twin.clone()))
    }

    async fn query_page(&self, _: &str, _: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        let start: usize = from.map_or(0, |from| from.0.parse().unwrap());
        let end = (start + PAGE).min(self.0);
        let row = |index: usize| {
            let text = format!(
                r#"{{"device":"device-{index:06}","plant":"Redmond{}","line":"line-{}","firmware":"1.{}"}}"#,
                index % 50,
                index % 7,
                index % 4
            );
            Value::parse_json(&text).unwrap()
        };
        let next = (end < self.0).then(|| Continuation(end.to_string()));
        Ok(QueryPage { rows: (start..end).map(row).collect(), next })
    }
}

fn spec(series: usize) -> QuerySpec {
    let column =
        |name: &str| LabelSource::Column(LabelColumn { keys: vec![name.to_owned()], ..LabelColumn::default() });
    let labels: BTreeMap<String, LabelSource> =
        ["device", "plant", "line", "firmware"].map(|name| (name.to_owned(), column(name))).into();
    let metric = |index: usize| MetricSpec {
        name: format!("twinquery_metric_{index}"),
        kind: MetricKind::Gauge,
        help: "Rows.".to_owned(),
        labels: labels.clone(),
        value: ValueSource::Count,
        zero_fill: BTreeMap::new(),
    };
    QuerySpec {
        name: "many".to_owned(),
        query: "SELECT ...".to_owned(),
        evaluate: Evaluate::Hub,
        suspend: false,
        interval: Duration::from_secs(3600),
        timeout: Duration::from_secs(600),
        stale_after: Duration::from_secs(12_000),
        page_size: PAGE,
        on_empty: OnEmpty::Publish,
        limits: Limits { max_pages: 100_000, max_rows: series, max_series: series + METRICS, ..Limits::default() },
        metrics: (0..METRICS).map(metric).collect(),
    }
}

/// Fetches the page; the bytes of the answer are counted and dropped.
async fn scrape(address: SocketAddr, encoding: &str) -> (Duration, usize) {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            return (begin.elapsed(), bytes);
        }
        assert!(bytes > 0 || buffer.starts_with(b"HTTP/1.1 200"), "the scrape was answered");
        bytes += read;
    }
}

/// A line of `/proc/self/status`, in bytes.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>().unwrap() * 1024.0
}

async fn measure(address: SocketAddr, encoding: &str, rounds: usize, body: f64) -> (f64, f64) {
    // 5 makes the peak forget what was before (proc(5), clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..rounds {
        let (took, size) = scrape(address, encoding).await;
        times.push(took.as_secs_f64() * 1000.0);
        bytes = size;
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[rounds / 2], times[rounds - 1]);
    let grown = (memory("VmHWM:") - before).max(0.0) / body;
    println!(
        "{encoding:>9}: {median:6.1} ms median, {worst:6.1} ms worst of {rounds}; {bytes} bytes sent; memory at the peak + {grown:.2} x the body"
    );
    (median, grown)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (series, rounds) = (arguments.next().unwrap_or(SERIES), arguments.next().unwrap_or(ROUNDS));
    println!("{series} series, {}", machine::machine());

    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &["prod"]).unwrap();
    let (published, cancel) = (Published::default(), CancellationToken::new());
    let (_queries, receiver) = watch::channel(Arc::new(vec![spec(series)]));
    let mut tasks = JoinSet::new();
    let rng = fastrand::Rng::with_seed(1);
    let hub = Rows(series / METRICS);
    let process = metrics.process.clone();
    tasks.spawn(exporter::run("prod".to_owned(), hub, receiver, published.clone(), process, cancel.clone(), rng));
    while published.exposition().series < series / METRICS * METRICS {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let body = published.exposition().bytes;
    println!("the page has {:.1} MiB", body as f64 / 1_048_576.0);

    let ops = Ops { registry, metrics: metrics.ops, published, readiness: Readiness::new(&[]) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = ops::router(ops, Access::default());
    tasks.spawn(ops::serve(listener, router, Access::default(), cancel.clone()));
    let (first, _) = scrape(address, "gzip").await;
    println!("the first compressed scrape after a run: {:.1} ms", first.as_secs_f64() * 1000.0);
    let mut met = true;
    for encoding in ["identity", "gzip"] {
        let (median, grown) = measure(address, encoding, rounds, body as f64).await;
        met &= median < TARGET_MS && grown < TARGET_MEMORY;
    }
    println!("target: < {TARGET_MS} ms and < {TARGET_MEMORY} x the body: {}", if met { "met" } else { "missed" });
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
}
