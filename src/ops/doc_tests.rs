//! Every family there is, beside `docs/metrics.md`, the rules, the dashboard and the runbooks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Access, Ops, Readiness, router};
use crate::exporter::{Published, run};
use crate::hub::fake::{Answer, FakeHub};
use crate::metrics::Metrics;
use crate::series::fixtures::{counting, query};
use crate::series::strict::{self, Parsed};

/// Labels with values from outside; of the others the values are told.
const OPEN: [&str; 6] = ["hub", "query", "queue", "revision", "rustc", "version"];

/// What geminid says of itself, as one exposition.
async fn families() -> BTreeMap<String, Parsed> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &["prod"]).unwrap();
    metrics.source.hub("prod").reloaded("7f1c", UNIX_EPOCH);
    let (published, cancel) = (Published::default(), CancellationToken::new());
    let hub = FakeHub::default();
    hub.answer("plants", None, Answer::Page(Vec::new(), None));
    let (_sender, receiver) = watch::channel(Arc::new(vec![query("plants", vec![counting("twinquery_n", &[])])]));
    let rng = fastrand::Rng::with_seed(1);
    let exporter =
        run("prod".to_owned(), hub, receiver, published.clone(), metrics.process.clone(), cancel.clone(), rng);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        cancel.cancel();
    };
    tokio::join!(exporter, stop);
    let ops = Ops { registry, metrics: metrics.ops.clone(), published, readiness: Readiness::new(&[]) };
    let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
    let response = router(ops, Access::default()).oneshot(request).await.unwrap();
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    let mut families = strict::parse(std::str::from_utf8(&body).unwrap()).unwrap();
    families.retain(|name, _| !name.starts_with("twinquery_"));
    families
}

/// The table of `docs/metrics.md`.
fn table(families: &BTreeMap<String, Parsed>) -> String {
    let mut text = "| Metric | Type | Labels | What it says |\n|---|---|---|---|\n".to_owned();
    for (name, family) in families.iter().filter(|(name, _)| name.starts_with("geminid_")) {
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, sample, _) in &family.samples {
            for (label, value) in sample.iter().filter(|(label, _)| *label != "le") {
                labels.entry(label).or_default().insert(value);
            }
        }
        let label = |(name, values): (&&str, &BTreeSet<&str>)| {
            let values: Vec<&str> = values.iter().copied().collect();
            if OPEN.contains(name) { format!("`{name}`") } else { format!("`{name}` ({})", values.join(" ")) }
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        text += &format!("| `{name}` | {} | {} | {} |\n", family.kind, labels.join(", "), family.help);
    }
    text
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_table_of_the_documentation_is_that_of_the_code() {
    const MARKS: [&str; 2] = ["<!-- begin: written by a test -->\n", "<!-- end -->"];
    let page = read("docs/metrics.md");
    let (before, rest) = page.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    let current = format!("{before}{}{}{}{after}", MARKS[0], table(&families().await), MARKS[1]);
    if page != current {
        std::fs::write(repository().join("target/metrics.md"), current).unwrap();
        panic!("docs/metrics.md is not current: cp target/metrics.md docs/metrics.md");
    }
}

/// Every word of ours that a text names, without what a histogram adds.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !word(c)).filter(|text| text.starts_with("geminid_") && !text.ends_with('_'));
    words.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn rules_runbooks_and_dashboard_ask_for_what_exists() {
    let families = families().await;
    let parts = |name: &String| {
        let family = families.get(name).filter(|family| family.kind == "histogram");
        family.map_or_else(Vec::new, |_| ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec())
    };
    let known: BTreeSet<String> = families.keys().flat_map(|name| [parts(name), vec![name.clone()]].concat()).collect();
    let mut texts = vec!["deploy/prometheus/geminid.rules.yml", "deploy/grafana/geminid.json"];
    texts.extend(["deploy/prometheus/geminid.test.yml"]);
    let pages: Vec<String> = alerts().iter().map(|alert| format!("docs/runbooks/{alert}.md")).collect();
    let mut judged = 0;
    for path in texts.into_iter().chain(pages.iter().map(String::as_str)) {
        for name in named(&read(path)) {
            assert!(known.contains(&name), "{path} names {name}, which nobody exposes");
            judged += 1;
        }
    }
    assert!(judged > 60, "the files were read");
}

fn alerts() -> Vec<String> {
    let rules = read("deploy/prometheus/geminid.rules.yml");
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned)).collect()
}

#[test]
fn every_alert_has_a_page_and_a_test_and_every_page_an_alert() {
    let tests = read("deploy/prometheus/geminid.test.yml");
    let alerts = alerts();
    for alert in &alerts {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        for heading in ["## Meaning", "## Impact", "## Diagnosis", "## Remedy"] {
            assert!(page.contains(heading), "{alert} has no {heading}");
        }
        let fires = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(fires >= 2, "{alert} is tested quiet and firing");
    }
    let pages = std::fs::read_dir(repository().join("docs/runbooks")).unwrap().count();
    assert_eq!((alerts.len(), pages), (15, 15));
}
