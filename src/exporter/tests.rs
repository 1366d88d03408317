//! Exporters against a hub made of pages, on paused time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Published, run};
use crate::hub::HubError;
use crate::hub::fake::{Answer, FakeHub};
use crate::metrics::Metrics;
use crate::series::fixtures::{column, counting, query};
use crate::series::{LabelSource, OnExceed, Piece, QuerySpec, strict};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A running exporter of the hub `prod`.
struct Running {
    hub: FakeHub,
    queries: watch::Sender<Arc<Vec<QuerySpec>>>,
    published: Published,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

fn start(hub: &FakeHub, specs: &[QuerySpec]) -> Running {
    let (queries, receiver) = watch::channel(Arc::new(specs.to_vec()));
    let (published, cancel) = (Published::default(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let rng = fastrand::Rng::with_seed(7);
    let metrics = Metrics::register(&prometheus::Registry::new(), &["prod"]).unwrap().process;
    tasks.spawn(run("prod".to_owned(), hub.clone(), receiver, published.clone(), metrics, cancel.clone(), rng));
    Running { hub: hub.clone(), queries, published, cancel, tasks }
}

impl Running {
    /// Lets virtual time pass.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn declare(&self, specs: &[QuerySpec]) {
        self.queries.send(Arc::new(specs.to_vec())).unwrap();
    }

    fn text(&self) -> String {
        let exposition = self.published.exposition();
        let text: String = exposition.pieces.iter().map(Piece::as_str).collect();
        let families = strict::parse(&text).unwrap();
        let series = families.values().map(|family| family.samples.len()).sum::<usize>();
        assert_eq!((exposition.series, exposition.bytes), (series, text.len()));
        text
    }

    /// The value of a series, which must be valid together with all others.
    fn value(&self, series: &str) -> Option<f64> {
        let text = self.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    fn failures(&self, query: &str, reason: &str) -> f64 {
        let series = format!(r#"geminid_query_failures_total{{hub="prod",query="{query}",reason="{reason}"}}"#);
        self.value(&series).unwrap()
    }

    fn health(&self, name: &str, query: &str) -> Option<f64> {
        self.value(&format!(r#"geminid_query_{name}{{hub="prod",query="{query}"}}"#))
    }
}

/// A query whose text is its name; it counts rows by `plant`.
fn spec(name: &str) -> QuerySpec {
    query(name, vec![counting(&format!("twinquery_{name}"), &[("plant", column("plant"))])])
}

const DEVICES: &str = r#"twinquery_devices{hub="prod",plant="Redmond43"}"#;
const ROW: &str = r#"{"plant":"Redmond43"}"#;

#[tokio::test(start_paused = true)]
async fn all_pages_are_counted_and_published_at_once() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW, ROW], Some("2")));
    hub.answer("devices", Some("2"), Answer::Page(vec![], Some("3")));
    hub.answer("devices", Some("3"), Answer::Page(vec![ROW, r#"{"plant":[]}"#], None));
    let running = start(&hub, &[spec("devices")]);
    running.pass(SECOND / 1000).await;
    assert_eq!(running.health("up", "devices"), Some(0.0), "known before the first run");
    assert_eq!(running.health("last_success_timestamp_seconds", "devices"), Some(0.0));
    running.pass(5 * SECOND).await;
    assert_eq!(running.value(DEVICES), Some(3.0));
    for (name, value) in [
        ("up", 1.0),
        ("runs_total", 1.0),
        ("last_rows", 4.0),
        ("last_pages", 3.0),
        ("series", 1.0),
        ("interval_seconds", 600.0),
        ("stale_after_seconds", 1860.0),
    ] {
        assert_eq!(running.health(name, "devices"), Some(value), "{name}");
    }
    assert!(running.health("last_success_timestamp_seconds", "devices").unwrap() > 1.7e9);
    let dropped = r#"geminid_query_dropped_rows_total{hub="prod",query="devices",reason="invalid_label"}"#;
    assert_eq!(running.value(dropped), Some(1.0));
    running.pass(11 * MINUTE).await;
    assert_eq!(running.health("runs_total", "devices"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_failing_query_keeps_its_series_until_they_are_stale_and_is_never_zeroed() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW], None));
    let running = start(&hub, &[spec("devices")]);
    running.pass(5 * SECOND).await;
    hub.answer("devices", None, Answer::failed());
    running.pass(29 * MINUTE).await;
    assert_eq!(running.value(DEVICES), Some(1.0), "the last good result stays");
    assert_eq!(running.health("up", "devices"), Some(0.0));
    assert!(running.failures("devices", "server") >= 4.0, "tried again sooner than the interval");
    running.pass(3 * MINUTE).await;
    assert_eq!(running.value(DEVICES), None, "withdrawn, not zero");
    assert_eq!(running.health("series", "devices"), Some(0.0));
    assert!(running.health("last_success_timestamp_seconds", "devices").unwrap() > 0.0);
    hub.answer("devices", None, Answer::Page(vec![ROW, ROW], None));
    running.pass(11 * MINUTE).await;
    assert_eq!(running.value(DEVICES), Some(2.0));
    assert_eq!(running.health("up", "devices"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_stale_time_of_zero_withdraws_at_the_first_failure_and_not_before() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW], None));
    let mut eager = spec("devices");
    eager.stale_after = Duration::ZERO;
    let running = start(&hub, &[eager]);
    running.pass(9 * MINUTE).await;
    assert_eq!(running.value(DEVICES), Some(1.0));
    hub.answer("devices", None, Answer::failed());
    running.pass(2 * MINUTE).await;
    assert_eq!(running.value(DEVICES), None);
}

#[tokio::test(start_paused = true)]
async fn a_label_set_that_vanished_from_the_answer_vanishes_with_the_swap() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW, r#"{"plant":"Oslo1"}"#], None));
    let running = start(&hub, &[spec("devices")]);
    running.pass(5 * SECOND).await;
    hub.answer("devices", None, Answer::Page(vec![r#"{"plant":"Oslo1"}"#], None));
    running.pass(11 * MINUTE).await;
    assert_eq!(running.value(DEVICES), None);
    assert_eq!(running.value(r#"twinquery_devices{hub="prod",plant="Oslo1"}"#), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_bad_query_has_its_reason_and_costs_the_others_nothing() {
    let rejected =
        || HubError::Rejected { status: 400, code: "ArgumentInvalid".to_owned(), message: "words".to_owned() };
    let unauthorized = || HubError::Unauthorized { message: "words".to_owned() };
    let network = || HubError::Transport { message: "words".to_owned(), timeout: false };
    for (answer, reason, tries_in_an_hour) in [
        (Answer::Error(rejected()), "invalid", 1),
        (Answer::Error(unauthorized()), "unauthorized", 10),
        (Answer::Error(network()), "network", 10),
        (Answer::Error(HubError::Quota), "quota", 6),
        (Answer::failed(), "server", 10),
        (Answer::Hang, "timeout", 9),
        (Answer::Panic, "other", 6),
        (Answer::Page(vec![], Some("again")), "server", 10),
        (Answer::Page(vec![ROW, ROW, ROW], None), "limit", 6),
        (Answer::Page(vec![ROW, r#"{"plant":1}"#, r#"{"plant":2}"#], None), "limit", 6),
    ] {
        let hub = FakeHub::default();
        hub.answer("devices", None, Answer::Page(vec![ROW], None));
        hub.answer("bad", None, answer);
        hub.answer("bad", Some("again"), Answer::Page(vec![], Some("again")));
        let mut bad = spec("bad");
        bad.limits.max_rows = 2;
        let running = start(&hub, &[bad, spec("devices")]);
        running.pass(59 * MINUTE).await;
        assert_eq!(running.value(DEVICES), Some(1.0), "{reason}");
        assert_eq!(running.health("up", "devices"), Some(1.0), "{reason}");
        assert_eq!(running.health("up", "bad"), Some(0.0), "{reason}");
        let tries = running.failures("bad", reason);
        assert!((tries - f64::from(tries_in_an_hour)).abs() <= 1.0, "{reason}: {tries} instead of {tries_in_an_hour}");
        assert!(running.value(r#"twinquery_bad{hub="prod",plant="Redmond43"}"#).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn pages_over_the_limit_fail_the_run() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW], Some("2")));
    hub.answer("devices", Some("2"), Answer::Page(vec![ROW], Some("3")));
    hub.answer("devices", Some("3"), Answer::Page(vec![ROW], None));
    let mut short = spec("devices");
    short.limits.max_pages = 2;
    let running = start(&hub, &[short.clone()]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.failures("devices", "limit"), 1.0);
    assert_eq!(hub.asked("devices"), 2, "no page beyond the limit is asked for");
    short.limits.max_pages = 3;
    running.declare(&[short]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.value(DEVICES), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn a_truncating_query_publishes_what_it_read_and_counts_what_it_left_out() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW, ROW], Some("2")));
    hub.answer("devices", Some("2"), Answer::Page(vec![ROW], None));
    for (pages, rows, asked, left_out) in [(1, 100, 1, 1.0), (50, 2, 1, 1.0), (50, 1, 1, 2.0), (50, 3, 2, 0.0)] {
        let mut short = spec("devices");
        (short.limits.max_pages, short.limits.max_rows) = (pages, rows);
        short.limits.on_exceed = OnExceed::Truncate;
        let before = hub.asked("devices");
        let running = start(&hub, &[short]);
        running.pass(5 * SECOND).await;
        assert_eq!(running.health("up", "devices"), Some(1.0), "{pages} {rows}");
        assert_eq!(hub.asked("devices") - before, asked, "{pages} {rows}");
        let dropped = r#"geminid_query_dropped_rows_total{hub="prod",query="devices",reason="truncated"}"#;
        assert_eq!(running.value(dropped), Some(left_out), "{pages} {rows}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_query_has_no_runs_and_no_series_but_its_info() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW], None));
    let mut suspended = spec("devices");
    suspended.suspend = true;
    let running = start(&hub, &[spec("devices")]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.value(DEVICES), Some(1.0));
    running.declare(&[suspended]);
    running.pass(60 * MINUTE).await;
    assert_eq!(hub.asked("devices"), 1);
    let families = strict::parse(&running.text()).unwrap();
    assert_eq!(families.keys().collect::<Vec<_>>(), ["geminid_query_info"]);
    running.declare(&[spec("devices")]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.value(DEVICES), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_page_is_asked_for_again_within_the_run() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::throttled(Some(20 * SECOND)));
    let running = start(&hub, &[spec("devices")]);
    running.pass(10 * SECOND).await;
    assert_eq!(hub.asked("devices"), 1);
    hub.answer("devices", None, Answer::Page(vec![ROW], None));
    running.pass(20 * SECOND).await;
    assert_eq!(running.value(DEVICES), Some(1.0));
    assert_eq!(running.health("runs_total", "devices"), Some(1.0));

    hub.answer("devices", None, Answer::throttled(None));
    let before = hub.asked("devices");
    running.pass(11 * MINUTE).await;
    assert_eq!(running.failures("devices", "throttled"), 1.0);
    let asked = hub.asked("devices") - before;
    assert!((4..=20).contains(&asked), "asked {asked} times in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_hangs_after_it_throttled_is_no_throttled_hub() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::throttled(Some(10 * SECOND)));
    let running = start(&hub, &[spec("devices")]);
    running.pass(6 * SECOND).await;
    hub.answer("devices", None, Answer::Hang);
    running.pass(70 * SECOND).await;
    assert_eq!(running.failures("devices", "timeout"), 1.0);
    assert_eq!(running.failures("devices", "throttled"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_tick_during_a_run_is_skipped_and_counted() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Slow(25 * MINUTE));
    let mut slow = spec("devices");
    slow.timeout = 30 * MINUTE;
    let running = start(&hub, &[slow]);
    running.pass(24 * MINUTE).await;
    assert_eq!(hub.asked("devices"), 1, "one run at a time");
    assert_eq!(running.failures("devices", "skipped"), 2.0);
    running.pass(2 * MINUTE).await;
    assert_eq!(running.health("up", "devices"), Some(1.0));
    assert_eq!(running.health("last_duration_seconds", "devices"), Some(1500.0));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_unchanged_queries_and_starts_changed_ones_anew() {
    let hub = FakeHub::default();
    for query in ["devices", "changed", "removed"] {
        hub.answer(query, None, Answer::Page(vec![ROW], None));
    }
    let mut changed = spec("changed");
    let running = start(&hub, &[spec("devices"), changed.clone(), spec("removed")]);
    running.pass(5 * SECOND).await;
    hub.answer("changed", None, Answer::Hang);
    changed.interval = 9 * MINUTE;
    running.declare(&[changed, spec("devices")]);
    running.pass(5 * SECOND).await;
    assert_eq!(hub.asked("devices"), 1, "an unchanged query keeps its schedule");
    assert_eq!(running.value(DEVICES), Some(1.0));
    assert_eq!(hub.asked("changed"), 2, "a changed query runs soon");
    assert_eq!(running.value(r#"twinquery_changed{hub="prod",plant="Redmond43"}"#), None);
    assert_eq!(running.value(r#"twinquery_removed{hub="prod",plant="Redmond43"}"#), None);
    assert_eq!(running.health("up", "removed"), None);
    assert_eq!(running.health("up", "changed"), Some(0.0));

    // The run that lasts belongs to the query before the change; its end says nothing about the one after.
    hub.answer("changed", None, Answer::Page(vec![ROW], None));
    running.declare(&[spec("changed"), spec("devices")]);
    running.pass(2 * MINUTE).await;
    assert_eq!(running.value(r#"twinquery_changed{hub="prod",plant="Redmond43"}"#), Some(1.0));
    assert_eq!(running.failures("changed", "timeout"), 0.0);
    running.declare(&[]);
    running.pass(SECOND).await;
    assert_eq!(running.text(), "");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_waits_for_is_ended() {
    let hub = FakeHub::default();
    let running = start(&hub, &[spec("devices"), spec("changed")]);
    running.pass(6 * SECOND).await;
    assert_eq!(hub.waiting(), 2);
    let mut changed = spec("changed");
    changed.interval = 9 * MINUTE;
    running.declare(&[changed]);
    running.pass(6 * SECOND).await;
    assert_eq!(hub.waiting(), 1, "only the run of the changed query");
}

#[tokio::test(start_paused = true)]
async fn the_revision_of_a_query_changes_with_it() {
    let hub = FakeHub::default();
    let running = start(&hub, &[spec("devices")]);
    let info = || {
        let families = strict::parse(&running.text()).unwrap();
        let samples = &families["geminid_query_info"].samples;
        assert_eq!(samples.len(), 1);
        samples[0].1["revision"].clone()
    };
    running.pass(SECOND).await;
    let before = info();
    assert_eq!(before.len(), 12);
    let mut other = spec("devices");
    other.metrics[0].help = "Other.".to_owned();
    running.declare(&[other]);
    running.pass(SECOND).await;
    assert_ne!(info(), before);
    running.declare(&[spec("devices")]);
    running.pass(SECOND).await;
    assert_eq!(info(), before);
}

#[tokio::test(start_paused = true)]
async fn two_queries_cannot_give_one_series() {
    let hub = FakeHub::default();
    hub.answer("first", None, Answer::Page(vec![ROW], None));
    hub.answer("second", None, Answer::Page(vec![ROW, ROW], None));
    let (mut first, mut second) = (spec("first"), spec("second"));
    first.metrics[0].name = "twinquery_devices".to_owned();
    second.metrics[0].name = "twinquery_devices".to_owned();
    let running = start(&hub, &[first.clone(), second.clone()]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.failures("first", "duplicate") + running.failures("second", "duplicate"), 1.0);
    assert_eq!(running.health("series", "first").unwrap() + running.health("series", "second").unwrap(), 1.0);
    // A constant label that differs keeps them apart.
    for (spec, by) in [(&mut first, "1"), (&mut second, "2")] {
        spec.metrics[0].labels.insert("by".to_owned(), LabelSource::Const(by.to_owned()));
    }
    running.declare(&[first, second]);
    running.pass(5 * SECOND).await;
    assert_eq!(running.value(r#"twinquery_devices{by="1",hub="prod",plant="Redmond43"}"#), Some(1.0));
    assert_eq!(running.value(r#"twinquery_devices{by="2",hub="prod",plant="Redmond43"}"#), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn an_exporter_ends_when_told_though_its_hub_hangs() {
    let hub = FakeHub::default();
    let mut running = start(&hub, &[spec("devices")]);
    running.pass(10 * SECOND).await;
    assert_eq!(running.hub.asked("devices"), 1);
    running.cancel.cancel();
    assert!(running.tasks.join_next().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_exporter_goes_on_when_nobody_can_change_its_queries_any_more() {
    let hub = FakeHub::default();
    hub.answer("devices", None, Answer::Page(vec![ROW], None));
    let mut running = start(&hub, &[spec("devices")]);
    running.queries = watch::channel(Arc::default()).0;
    running.pass(25 * MINUTE).await;
    assert_eq!(hub.asked("devices"), 3);
    assert_eq!(running.value(DEVICES), Some(1.0));
}
