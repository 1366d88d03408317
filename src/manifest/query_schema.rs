//! `kind: TwinQuery` (`metrics.md` section 4).

use std::collections::BTreeMap;
use std::time::Duration;

use super::query_text::{QueryShape, shape_of};
use super::schema::{Checker, Fields, join, show_duration};
use super::tree::{Entry, Node, shortened};
use crate::series::{LabelSource, Limits, MetricSpec, QuerySpec};

const NAME_LENGTH_MAX: usize = 63;
const METRICS_MAX: usize = 16;
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 100;
const PAGES_MAX: usize = 10_000;
const ROWS_MAX: usize = 1_000_000;
const SERIES_MAX: usize = 100_000;
const LABEL_LENGTH_MAX: usize = 4096;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(300);
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Shorter intervals warn: the queries of a hub share 20 pages a minute and unit (`metrics.md` 1.1).
const INTERVAL_ADVISED: Duration = Duration::from_secs(30);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const STALE_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// More series than this of single devices warn.
const DEVICE_SERIES_ADVISED: usize = 1000;

const METRIC_PREFIX: &str = "twinquery_";
const METRIC_SUFFIXES_TAKEN: [&str; 5] = ["_bucket", "_sum", "_count", "_total", "_info"];
/// Unit suffixes and the base unit Prometheus wants instead.
const UNITS_NOT_BASE: [(&str, &str); 6] = [
    ("_ms", "_seconds"),
    ("_milliseconds", "_seconds"),
    ("_minutes", "_seconds"),
    ("_hours", "_seconds"),
    ("_percent", "_ratio"),
    ("_kb", "_bytes"),
];
/// Labels that Prometheus, or this exporter, sets itself.
const LABELS_TAKEN: [&str; 6] = ["job", "instance", "le", "quantile", "hub", "query"];
/// Labels that scrape targets often carry, so that a sample's own becomes `exported_...`.
const LABELS_CLASHING: [&str; 7] = ["type", "region", "zone", "cluster", "env", "service", "namespace"];

/// A query and where its metrics stand, for the check across queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryDocument {
    pub(super) spec: QuerySpec,
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
    let known = ["query", "interval", "timeout", "staleAfter", "pageSize", "limits", "metrics"];
    let fields = checker.fields(&spec.value, "spec", &known, &["suspend", "onEmpty"])?;
    let query = read_query(checker, &fields);
    let schedule = read_schedule(checker, &fields);
    let page_size =
        fields.get("pageSize").and_then(|entry| checker.count(&entry.value, "spec.pageSize", 1..=PAGE_SIZE_MAX));
    let limits = fields.get("limits").map_or_else(Limits::default, |entry| read_limits(checker, &entry.value));
    let (metrics, metrics_at) = read_metrics(checker, &fields, &limits);
    if let Some((_, shape, at)) = &query {
        lint_query(checker, shape, *at, &metrics);
    }
    lint_series(checker, &fields, &metrics, &limits);
    let (query, _, _) = query?;
    let spec = QuerySpec {
        name: name?,
        query,
        interval: schedule.interval,
        timeout: schedule.timeout,
        stale_after: schedule.stale_after,
        page_size: page_size.unwrap_or(PAGE_SIZE_DEFAULT),
        limits,
        metrics,
    };
    Some(QueryDocument { spec, metrics_at })
}

fn read_name(checker: &mut Checker<'_>, root: &Fields<'_>) -> Option<String> {
    let metadata = checker.required(root, "metadata", "give metadata.name")?;
    let metadata = checker.fields(&metadata.value, "metadata", &["name", "labels", "annotations"], &[])?;
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
    match shape_of(text) {
        Ok(shape) => Some((text.to_owned(), shape, entry.value.at)),
        Err((rule, message)) => {
            checker.error(entry.value.at, "spec.query".to_owned(), rule, message);
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
            spec.get("staleAfter").filter(|_| !stale_after.is_zero() && stale_after < interval + timeout)
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
    let known = ["maxPages", "maxRows", "maxSeries", "maxLabelLength"];
    let Some(fields) = checker.fields(node, "spec.limits", &known, &["onExceed"]) else {
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
    limits
}

fn read_metrics(checker: &mut Checker<'_>, spec: &Fields<'_>, limits: &Limits) -> (Vec<MetricSpec>, Vec<usize>) {
    let remedy = "give at least one metric with name, help and value";
    let Some(entry) = checker.required(spec, "metrics", remedy) else { return Default::default() };
    let Some(items) = checker.list(&entry.value, "spec.metrics") else { return Default::default() };
    if items.is_empty() || items.len() > METRICS_MAX {
        let message = format!("a query has 1 to {METRICS_MAX} metrics, this one has {}", items.len());
        checker.error(entry.value.at, "spec.metrics".to_owned(), "metric-count", message);
    }
    let (mut metrics, mut places) = (Vec::<MetricSpec>::new(), Vec::new());
    for (index, item) in items.iter().enumerate().take(METRICS_MAX) {
        let path = format!("spec.metrics[{index}]");
        let Some((metric, at)) = read_metric(checker, item, &path, limits) else { continue };
        if let Some(other) = metrics.iter().find(|other| !may_share_name(other, &metric)) {
            let message = collision_message(&other.name, "above");
            checker.error(at, join(&path, "name"), "metric-collision", message);
        }
        metrics.push(metric);
        places.push(at);
    }
    (metrics, places)
}

/// Whether both metrics can be exposed at once: other names; or one help, the same labels and a constant label that
/// tells them apart.
pub(super) fn may_share_name(a: &MetricSpec, b: &MetricSpec) -> bool {
    let apart = a.labels.iter().any(|(label, source)| match (source, b.labels.get(label)) {
        (LabelSource::Const(one), Some(LabelSource::Const(other))) => one != other,
        (LabelSource::Const(_) | LabelSource::Column(_), _) => false,
    });
    a.name != b.name || (a.help == b.help && a.labels.keys().eq(b.labels.keys()) && apart)
}

/// `place` says where the other metric is.
pub(super) fn collision_message(name: &str, place: &str) -> String {
    format!(
        "the metric {name} is also declared {place}; rename one, or give both the same help and label names and a \
         constant label that differs"
    )
}

fn read_metric(checker: &mut Checker<'_>, node: &Node, path: &str, limits: &Limits) -> Option<(MetricSpec, usize)> {
    let known = ["name", "type", "help", "labels", "value", "zeroFill"];
    let fields = checker.fields(node, path, &known, &["states", "stateLabel"])?;
    let name = read_metric_name(checker, &fields);
    if let Some(entry) = fields.get("type")
        && let Some(text) = checker.text(&entry.value, &fields.path("type"))
        && text != "gauge"
    {
        if ["counter", "info", "stateset"].contains(&text) {
            checker.not_supported(entry.value.at, fields.path("type"), &format!("the type {text}"));
        } else {
            let message = format!("expected gauge, found {}", entry.value.content.describe());
            checker.error(entry.value.at, fields.path("type"), "unknown-value", message);
        }
    }
    let help = read_help(checker, &fields);
    let labels =
        fields.get("labels").map(|entry| read_labels(checker, entry, &fields.path("labels"))).unwrap_or_default();
    if let Some(entry) = checker.required(&fields, "value", "write value: {count: true}") {
        let path = fields.path("value");
        let later = ["column", "parse", "map", "scale", "onMissing", "onInvalid", "reduce", "const"];
        if let Some(value) = checker.fields(&entry.value, &path, &["count"], &later)
            && let Some(count) = value.get("count")
            && checker.bool(&count.value, &join(&path, "count")) == Some(false)
        {
            checker.error(count.value.at, join(&path, "count"), "unknown-value", "expected true, found false");
        } else if entry.value.entries().is_some_and(<[Entry]>::is_empty) {
            checker.error(entry.value.at, join(&path, "count"), "missing-field", "write value: {count: true}");
        }
    }
    let zero_fill = fields
        .get("zeroFill")
        .map(|entry| read_zero_fill(checker, entry, &fields.path("zeroFill"), &labels, limits))
        .unwrap_or_default();
    let (name, at) = name?;
    Some((MetricSpec { name, help: help?, labels, zero_fill }, at))
}

fn read_metric_name(checker: &mut Checker<'_>, fields: &Fields<'_>) -> Option<(String, usize)> {
    let path = fields.path("name");
    let entry = checker.required(fields, "name", "the full metric name, twinquery_...")?;
    let (text, at) = (checker.text(&entry.value, &path)?, entry.value.at);
    let rest = text.strip_prefix(METRIC_PREFIX).unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if rest.is_empty() || !rest.bytes().all(plain) {
        let message = format!("{:?} is no metric name; write {METRIC_PREFIX} and then a-z, 0-9 and _", shortened(text));
        checker.error(at, path, "metric-name", message);
        return None;
    }
    if let Some(suffix) = METRIC_SUFFIXES_TAKEN.iter().find(|suffix| text.ends_with(*suffix)) {
        checker.error(at, path, "metric-name", format!("a gauge's name may not end with {suffix}; rename it"));
        return None;
    }
    if let Some((unit, base)) = UNITS_NOT_BASE.iter().find(|(unit, _)| text.ends_with(unit)) {
        let message = format!("Prometheus wants base units; use {base} rather than {unit}");
        checker.warning(at, path, "metric-unit", message);
    }
    Some((text.to_owned(), at))
}

fn read_help(checker: &mut Checker<'_>, fields: &Fields<'_>) -> Option<String> {
    let path = fields.path("help");
    let entry = checker.required(fields, "help", "one line that says what is counted")?;
    let text = checker.text(&entry.value, &path)?.trim();
    if text.is_empty() || text.contains(char::is_control) {
        let message = "help is one line of text without control characters, and not empty";
        checker.error(entry.value.at, path, "metric-help", message);
        return None;
    }
    Some(text.to_owned())
}

fn read_labels(checker: &mut Checker<'_>, entry: &Entry, path: &str) -> BTreeMap<String, LabelSource> {
    let mut labels = BTreeMap::new();
    for label in checker.mapping(&entry.value, path).unwrap_or_default() {
        let path = join(path, &label.key);
        check_label_name(checker, label, &path);
        let later = ["default", "map", "case", "allow", "other"];
        let Some(fields) = checker.fields(&label.value, &path, &["column", "const"], &later) else { continue };
        if let Some(source) = read_label_source(checker, &fields) {
            labels.insert(label.key.clone(), source);
        }
    }
    labels
}

fn check_label_name(checker: &mut Checker<'_>, label: &Entry, path: &str) {
    let name = label.key.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first_is_digit = name.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
    if first_is_digit || !name.bytes().all(plain) || name.starts_with("__") {
        let message = format!(
            "{:?} is no label name; use letters, digits and _, no digit first and no __ in front",
            shortened(name)
        );
        checker.error(label.at, path.to_owned(), "label-name", message);
    } else if LABELS_TAKEN.contains(&name) {
        let message = format!("the label {name} is set by Prometheus or by geminid; use another name");
        checker.error(label.at, path.to_owned(), "label-name", message);
    } else if LABELS_CLASHING.contains(&name) {
        let message = format!("scrape targets often carry the label {name}, which renames this one to exported_{name}");
        checker.warning(label.at, path.to_owned(), "label-clash", message);
    }
}

fn read_label_source(checker: &mut Checker<'_>, fields: &Fields<'_>) -> Option<LabelSource> {
    match (fields.get("column"), fields.get("const")) {
        (Some(column), None) => {
            let path = fields.path("column");
            let text = checker.text(&column.value, &path)?;
            let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
            if keys.iter().any(String::is_empty) {
                let message = "a column is keys joined by dots, such as tags.location.plant";
                checker.error(column.value.at, path, "label-column", message);
                return None;
            }
            Some(LabelSource::Column(keys))
        }
        (None, Some(constant)) => {
            let path = fields.path("const");
            let text = checker.text(&constant.value, &path)?;
            if text.is_empty() {
                let message = "an empty label is no label to Prometheus; give a value or remove the label";
                checker.error(constant.value.at, path, "label-const", message);
                return None;
            }
            Some(LabelSource::Const(text.to_owned()))
        }
        (Some(_), Some(second)) => {
            let message = "a label has either column or const; remove one";
            checker.error(second.at, fields.path("const"), "label-source", message);
            None
        }
        (None, None) => {
            let message = "a label needs column or const";
            checker.error(fields.at, fields.path("column"), "missing-field", message);
            None
        }
    }
}

fn read_zero_fill(
    checker: &mut Checker<'_>,
    entry: &Entry,
    path: &str,
    labels: &BTreeMap<String, LabelSource>,
    limits: &Limits,
) -> BTreeMap<String, Vec<String>> {
    let mut filled = BTreeMap::new();
    for label in checker.mapping(&entry.value, path).unwrap_or_default() {
        let path = join(path, &label.key);
        if !matches!(labels.get(&label.key), Some(LabelSource::Column(_))) {
            let message = format!("zeroFill names labels that come from a column; {:?} is none", shortened(&label.key));
            checker.error(label.at, path, "zero-fill-label", message);
            continue;
        }
        let mut values: Vec<String> = Vec::new();
        let items = checker.list(&label.value, &path).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(text) = checker.text(item, &path) else { continue };
            if text.is_empty() || text.len() > limits.max_label_length || values.iter().any(|value| value == text) {
                let message =
                    format!("each value is given once and has 1 to {} bytes (maxLabelLength)", limits.max_label_length);
                checker.error(item.at, path, "zero-fill-value", message);
            } else {
                values.push(text.to_owned());
            }
        }
        if items.is_empty() && label.value.entries().is_none() {
            checker.error(label.at, path, "zero-fill-value", "give at least one value, or remove the label");
        }
        filled.insert(label.key.clone(), values);
    }
    let is_column = |source: &LabelSource| matches!(source, LabelSource::Column(_));
    let missing = labels.iter().find(|(label, source)| is_column(source) && !filled.contains_key(*label));
    if let (Some((label, _)), false) = (missing, filled.is_empty()) {
        let message = format!("zeroFill names every label that comes from a column; add {label}");
        checker.error(entry.at, path.to_owned(), "zero-fill-label", message);
    }
    filled
}

/// Series that exist whatever the rows say must fit the limit, or every run would fail.
fn lint_series(checker: &mut Checker<'_>, spec: &Fields<'_>, metrics: &[MetricSpec], limits: &Limits) {
    let Some(entry) = spec.get("metrics") else { return };
    let product = |metric: &MetricSpec| {
        metric.zero_fill.values().fold(1_usize, |product, values| product.saturating_mul(values.len()))
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
        LabelSource::Column(keys) => keys.last().is_some_and(|key| key.to_lowercase().starts_with("device")),
        LabelSource::Const(_) => false,
    };
    if limits.max_series > DEVICE_SERIES_ADVISED && metrics.iter().any(|metric| metric.labels.values().any(by_device)) {
        let message =
            format!("a series for each device, and maxSeries is {}; count over a tag instead", limits.max_series);
        checker.warning(entry.value.at, "spec.metrics".to_owned(), "device-series", message);
    }
}

/// What the query's text and its metrics show together. No metric of this version has a value column.
fn lint_query(checker: &mut Checker<'_>, shape: &QueryShape, at: usize, metrics: &[MetricSpec]) {
    let path = || "spec.query".to_owned();
    let from_column = |source: &LabelSource| matches!(source, LabelSource::Column(_));
    let uses_columns = metrics.iter().any(|metric| metric.labels.values().any(from_column));
    if shape.is_star && !uses_columns && !metrics.is_empty() {
        let message = "whole twins are read only to be counted; project one small column, such as deviceId AS device";
        checker.warning(at, path(), "count-of-star", message);
    }
    if shape.is_one_row {
        let message = "count: true counts rows, and this query always has one; leave COUNT() and the like out";
        checker.warning(at, path(), "count-of-aggregate", message);
    }
    for item in &shape.without_alias {
        let message = format!("the hub may name the column of {:?} differently; write AS and a name", shortened(item));
        checker.warning(at, path(), "missing-alias", message);
    }
}
