//! The metrics of a `TwinQuery` (`metrics.md` section 4): names, labels and the values they are filled with.
//!
//! Invariant: what passes here cannot cost a scrape: every name is valid for every Prometheus server
//! (`metrics.md` 1.2).

use std::collections::BTreeMap;

use super::schema::{Checker, Fields, join};
use super::shape::{LABEL, METRIC, METRIC_VALUE};
use super::tree::{Entry, Node, shortened};
use crate::series::{LabelSource, Limits, MetricSpec};

const METRICS_MAX: usize = 16;
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

/// The metrics of a query, and where each is named.
pub(super) fn read_metrics(
    checker: &mut Checker<'_>,
    spec: &Fields<'_>,
    limits: &Limits,
) -> (Vec<MetricSpec>, Vec<usize>) {
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
    let fields = checker.fields(node, path, &METRIC)?;
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
    let labels = fields
        .get("labels")
        .map(|entry| read_labels(checker, entry, &fields.path("labels"), limits))
        .unwrap_or_default();
    if let Some(entry) = checker.required(&fields, "value", "write value: {count: true}") {
        let path = fields.path("value");
        if let Some(value) = checker.fields(&entry.value, &path, &METRIC_VALUE)
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

fn read_labels(checker: &mut Checker<'_>, entry: &Entry, path: &str, limits: &Limits) -> BTreeMap<String, LabelSource> {
    let mut labels = BTreeMap::new();
    for label in checker.mapping(&entry.value, path).unwrap_or_default() {
        let path = join(path, &label.key);
        check_label_name(checker, label, &path);
        let Some(fields) = checker.fields(&label.value, &path, &LABEL) else { continue };
        if let Some(source) = read_label_source(checker, &fields, limits) {
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

fn read_label_source(checker: &mut Checker<'_>, fields: &Fields<'_>, limits: &Limits) -> Option<LabelSource> {
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
            if text.len() > limits.max_label_length {
                let message =
                    format!("a label value has at most {} bytes (maxLabelLength); shorten it", limits.max_label_length);
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
