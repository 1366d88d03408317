//! `kind: TwinQuery` (`metrics.md` section 4).

use std::time::Duration;

use super::evaluate_schema::read_evaluate;
use super::metric_schema::read_metrics;
use super::query_text::{QueryShape, shape_of};
use super::schema::{Checker, Fields, show_duration};
use super::shape::{METADATA, ON_EMPTY, ON_EXCEED, QUERY_LIMITS, QUERY_SPEC};
use super::tree::{Node, shortened};
use crate::series::{LabelSource, Limits, MetricSpec, OnEmpty, OnExceed, QuerySpec, ValueSource, columns_of};

const NAME_LENGTH_MAX: usize = 63;
const PAGE_SIZE_DEFAULT: usize = 100;
pub(super) const PAGE_SIZE_MAX: usize = 100;
pub(super) const PAGES_MAX: usize = 10_000;
pub(super) const ROWS_MAX: usize = 1_000_000;
pub(super) const SERIES_MAX: usize = 100_000;
pub(super) const LABEL_LENGTH_MAX: usize = 4096;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(300);
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Shorter intervals warn: the queries of a hub share 20 pages a minute and unit (`metrics.md` 1.1).
const INTERVAL_ADVISED: Duration = Duration::from_secs(30);
/// A result lives 24 h at most, and the next one may come an interval and a timeout later.
const INTERVAL_MAX: Duration = Duration::from_secs(12 * 3600);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const STALE_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// More series than this of single devices warn.
const DEVICE_SERIES_ADVISED: usize = 1000;

/// A query and where its metrics stand, for the check across queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryDocument {
    pub(super) spec: QuerySpec,
    /// The offset of the query's text.
    pub(super) query_at: usize,
    /// The offset of each metric's name, beside `spec.metrics`.
    pub(super) metrics_at: Vec<usize>,
}

/// Whether `name` can name a `TwinQuery`: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
pub(super) fn is_query_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME_LENGTH_MAX
        && name.bytes().all(|byte| plain(byte) || byte == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

/// The query a document declares. What cannot be used is in the checker's problems; then the result is not used.
pub(super) fn read_twin_query(checker: &mut Checker<'_>, root: &Fields<'_>) -> Option<QueryDocument> {
    let name = read_name(checker, root);
    let spec = checker.required(root, "spec", "give spec.query and spec.metrics")?;
    let fields = checker.fields(&spec.value, "spec", &QUERY_SPEC)?;
    let query = read_query(checker, &fields);
    let schedule = read_schedule(checker, &fields);
    let page_size =
        fields.get("pageSize").and_then(|entry| checker.count(&entry.value, "spec.pageSize", 1..=PAGE_SIZE_MAX));
    let suspend = fields.get("suspend").and_then(|entry| checker.bool(&entry.value, "spec.suspend"));
    let on_empty = fields.get("onEmpty").and_then(|entry| checker.word(&entry.value, "spec.onEmpty", &ON_EMPTY));
    let limits = fields.get("limits").map_or_else(Limits::default, |entry| read_limits(checker, &entry.value));
    let (metrics, metrics_at) = read_metrics(checker, &fields, &limits);
    if let Some((_, shape, at)) = &query {
        lint_query(checker, shape, *at, &metrics);
    }
    lint_series(checker, &fields, &metrics, &limits);
    let text = query.as_ref().map(|(text, _, at)| (text.as_str(), *at));
    let stale_after = fields.get("staleAfter").map(|_| schedule.stale_after);
    let evaluate = read_evaluate(checker, &fields, text, &metrics, stale_after);
    let (query, _, query_at) = query?;
    let spec = QuerySpec {
        name: name?,
        query,
        evaluate,
        suspend: suspend.unwrap_or_default(),
        interval: schedule.interval,
        timeout: schedule.timeout,
        stale_after: schedule.stale_after,
        page_size: page_size.unwrap_or(PAGE_SIZE_DEFAULT),
        on_empty: if on_empty == Some("fail") { OnEmpty::Fail } else { OnEmpty::Publish },
        limits,
        metrics,
    };
    Some(QueryDocument { spec, query_at, metrics_at })
}

fn read_name(checker: &mut Checker<'_>, root: &Fields<'_>) -> Option<String> {
    let metadata = checker.required(root, "metadata", "give metadata.name")?;
    let metadata = checker.fields(&metadata.value, "metadata", &METADATA)?;
    for key in ["labels", "annotations"] {
        if let Some(entry) = metadata.get(key) {
            checker.texts(&entry.value, &metadata.path(key));
        }
    }
    let name = checker.required(&metadata, "name", "it names the query in metrics and messages")?;
    let text = checker.text(&name.value, "metadata.name")?;
    if is_query_name(text) {
        return Some(text.to_owned());
    }
    let message = format!(
        "{:?} is no name for a query; use 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and -, with - neither first nor last",
        shortened(text)
    );
    checker.error(name.value.at, "metadata.name".to_owned(), "query-name", message);
    None
}

fn read_query(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Option<(String, QueryShape, usize)> {
    let entry = checker.required(spec, "query", "give a text that begins with SELECT")?;
    let text = checker.text(&entry.value, "spec.query")?.trim();
    let path = || "spec.query".to_owned();
    match shape_of(text) {
        Ok(shape) => {
            if let Some(doubt) = &shape.doubt {
                let at = checker.place_within(&entry.value, text, doubt.span.start);
                checker.warning(at, path(), "query-function", doubt.to_string());
            }
            Some((text.to_owned(), shape, entry.value.at))
        }
        Err(refused) => {
            let at = checker.place_within(&entry.value, text, refused.at);
            checker.error(at, path(), refused.rule, refused.message);
            None
        }
    }
}

struct Schedule {
    interval: Duration,
    timeout: Duration,
    stale_after: Duration,
}

fn read_schedule(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Schedule {
    let swept = spec.get("evaluate").and_then(|entry| entry.value.text()) == Some("sweep");
    let mut interval = INTERVAL_DEFAULT;
    if let Some(value) = duration_within(checker, spec, "interval", INTERVAL_MIN, INTERVAL_MAX) {
        interval = value;
        if let Some(entry) = spec.get("interval").filter(|_| interval < INTERVAL_ADVISED) {
            let message = format!(
                "an interval under {} soon spends a hub's query budget; a real fleet asks every few minutes",
                show_duration(INTERVAL_ADVISED)
            );
            checker.warning(entry.value.at, "spec.interval".to_owned(), "short-interval", message);
        }
    }
    // A defaulted timeout stays below the interval; one that is given must.
    let mut timeout = TIMEOUT_DEFAULT.min(interval - TIMEOUT_MIN);
    if let Some(value) = duration_within(checker, spec, "timeout", TIMEOUT_MIN, INTERVAL_MAX) {
        timeout = value;
        if let Some(entry) = spec.get("timeout").filter(|_| timeout >= interval) {
            let message =
                format!("the timeout must be shorter than the interval, which is {}", show_duration(interval));
            checker.error(entry.value.at, "spec.timeout".to_owned(), "timeout-order", message);
        }
    }
    let mut stale_after = (3 * interval + timeout).min(STALE_AFTER_MAX);
    if let Some(value) = duration_within(checker, spec, "staleAfter", Duration::ZERO, STALE_AFTER_MAX) {
        stale_after = value;
        if let Some(entry) =
            spec.get("staleAfter").filter(|_| !swept && !stale_after.is_zero() && stale_after < interval + timeout)
        {
            let message = format!(
                "a good result may be {} old before the next one comes; give at least that, or 0s to withdraw at the \
                 first failure",
                show_duration(interval + timeout)
            );
            checker.error(entry.value.at, "spec.staleAfter".to_owned(), "stale-after-order", message);
        }
    }
    Schedule { interval, timeout, stale_after }
}

fn duration_within(
    checker: &mut Checker<'_>,
    spec: &Fields<'_>,
    key: &str,
    min: Duration,
    max: Duration,
) -> Option<Duration> {
    let entry = spec.get(key)?;
    let value = checker.duration(&entry.value, &spec.path(key))?;
    if value < min || value > max {
        let message =
            format!("expected {} to {}, found {}", show_duration(min), show_duration(max), show_duration(value));
        checker.error(entry.value.at, spec.path(key), "out-of-range", message);
        return None;
    }
    Some(value)
}

fn read_limits(checker: &mut Checker<'_>, node: &Node) -> Limits {
    let mut limits = Limits::default();
    let Some(fields) = checker.fields(node, "spec.limits", &QUERY_LIMITS) else {
        return limits;
    };
    let slots = [
        ("maxPages", &mut limits.max_pages, PAGES_MAX),
        ("maxRows", &mut limits.max_rows, ROWS_MAX),
        ("maxSeries", &mut limits.max_series, SERIES_MAX),
        ("maxLabelLength", &mut limits.max_label_length, LABEL_LENGTH_MAX),
    ];
    for (key, slot, max) in slots {
        if let Some(entry) = fields.get(key)
            && let Some(value) = checker.count(&entry.value, &fields.path(key), 1..=max)
        {
            *slot = value;
        }
    }
    if let Some(entry) = fields.get("onExceed")
        && checker.word(&entry.value, &fields.path("onExceed"), &ON_EXCEED) == Some("truncate")
    {
        limits.on_exceed = OnExceed::Truncate;
    }
    limits
}

/// Series that exist whatever the rows say must fit the limit, or every run would fail.
fn lint_series(checker: &mut Checker<'_>, spec: &Fields<'_>, metrics: &[MetricSpec], limits: &Limits) {
    let Some(entry) = spec.get("metrics") else { return };
    let product = |metric: &MetricSpec| {
        metric.zero_fill.values().fold(metric.series_each(), |product, values| product.saturating_mul(values.len()))
    };
    let filled =
        metrics.iter().filter(|metric| !metric.zero_fill.is_empty()).map(product).fold(0, usize::saturating_add);
    if filled > limits.max_series {
        let message = format!(
            "zeroFill makes {filled} series, and limits.maxSeries is {}; raise it or fill fewer values",
            limits.max_series
        );
        checker.error(entry.value.at, "spec.metrics".to_owned(), "zero-fill-size", message);
    }
    let by_device = |source: &LabelSource| match source {
        LabelSource::Column(column) => column.keys.last().is_some_and(|key| key.to_lowercase().starts_with("device")),
        LabelSource::Const(_) => false,
    };
    if limits.max_series > DEVICE_SERIES_ADVISED && metrics.iter().any(|metric| metric.labels.values().any(by_device)) {
        let message =
            format!("a series for each device, and maxSeries is {}; count over a tag instead", limits.max_series);
        checker.warning(entry.value.at, "spec.metrics".to_owned(), "device-series", message);
    }
}

/// What the query's text and its metrics show together.
fn lint_query(checker: &mut Checker<'_>, shape: &QueryShape, at: usize, metrics: &[MetricSpec]) {
    let path = || "spec.query".to_owned();
    let columns: Vec<&[String]> = metrics.iter().flat_map(columns_of).collect();
    let counts = metrics.iter().any(|metric| metric.value == ValueSource::Count);
    if shape.is_star && columns.is_empty() && counts {
        let message = "whole twins are read only to be counted; ask for COUNT() AS n, and write value: {column: n}";
        checker.warning(at, path(), "count-of-star", message);
    }
    if shape.is_one_row && counts {
        let message = "count: true counts rows, and this query always has one; write value: {column: ...} with the \
                       column's alias";
        checker.warning(at, path(), "count-of-aggregate", message);
    }
    for item in &shape.without_alias {
        let message = format!("the hub may name the column of {:?} differently; write AS and a name", shortened(item));
        checker.warning(at, path(), "missing-alias", message);
    }
    if let Some(aliases) = &shape.aliases {
        let unknown = columns.iter().filter_map(|keys| keys.first()).find(|key| !aliases.contains(key));
        if let Some(key) = unknown {
            let message = format!(
                "no column of the query is called {:?}; its columns are {}",
                shortened(key),
                aliases.join(", ")
            );
            checker.warning(at, path(), "unknown-column", message);
        }
    }
}
