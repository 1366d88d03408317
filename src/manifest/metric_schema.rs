//! The metrics of a `TwinQuery` (`metrics.md` section 4): names, labels and the values they are filled with.
//!
//! Invariant: what passes here cannot cost a scrape: every name is valid for every Prometheus server
//! (`metrics.md` 1.2).

use std::collections::BTreeMap;

use super::label_schema::{is_label_name, read_labels};
use super::rules::MetricPrefix;
use super::schema::{Checker, Fields, join};
use super::shape::{METRIC, METRIC_KINDS};
use super::tree::{Entry, Node, shortened};
use super::value_schema::read_value;
use crate::series::{LabelSource, Limits, MetricKind, MetricSpec};

const METRICS_MAX: usize = 16;
/// Suffixes that histograms and summaries give their parts.
const METRIC_SUFFIXES_TAKEN: [&str; 3] = ["_bucket", "_sum", "_count"];
const STATES_MAX: usize = 64;
const STATE_LABEL_DEFAULT: &str = "state";
/// Unit suffixes and the base unit Prometheus wants instead.
const UNITS_NOT_BASE: [(&str, &str); 6] = [
    ("_ms", "_seconds"),
    ("_milliseconds", "_seconds"),
    ("_minutes", "_seconds"),
    ("_hours", "_seconds"),
    ("_percent", "_ratio"),
    ("_kb", "_bytes"),
];
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

/// Whether both metrics can be exposed at once: other names; or one type, one help, the same labels and a constant
/// label that tells them apart.
pub(super) fn may_share_name(a: &MetricSpec, b: &MetricSpec) -> bool {
    let apart = a.labels.iter().any(|(label, source)| match (source, b.labels.get(label)) {
        (LabelSource::Const(one), Some(LabelSource::Const(other))) => one != other,
        (LabelSource::Const(_) | LabelSource::Column(_), _) => false,
    });
    let alike = a.kind == b.kind && a.help == b.help && a.label_names().eq(b.label_names());
    a.name != b.name || (alike && apart)
}

/// `place` says where the other metric is.
pub(super) fn collision_message(name: &str, place: &str) -> String {
    format!(
        "the metric {name} is also declared {place}; rename one, or give both the same type, help and label names \
         and a constant label that differs"
    )
}

fn read_metric(checker: &mut Checker<'_>, node: &Node, path: &str, limits: &Limits) -> Option<(MetricSpec, usize)> {
    let fields = checker.fields(node, path, &METRIC)?;
    let kind = read_kind(checker, &fields);
    let name = read_metric_name(checker, &fields, kind);
    let help = read_help(checker, &fields);
    let labels = fields
        .get("labels")
        .map(|entry| read_labels(checker, entry, &fields.path("labels"), limits))
        .unwrap_or_default();
    let states = read_states(checker, &fields, kind, &labels, limits);
    let value = read_value(checker, &fields, kind, states);
    let zero_fill = fields
        .get("zeroFill")
        .map(|entry| read_zero_fill(checker, entry, &fields.path("zeroFill"), &labels, limits))
        .unwrap_or_default();
    if let (MetricKind::Info, Some(entry)) = (kind, fields.get("zeroFill")) {
        let message = "an info is always 1, so nothing can be filled with 0; remove zeroFill";
        checker.error(entry.at, fields.path("zeroFill"), "info-value", message);
    }
    let (name, at) = name?;
    Some((MetricSpec { name, kind, help: help?, labels, value: value?, zero_fill }, at))
}

fn read_kind(checker: &mut Checker<'_>, fields: &Fields<'_>) -> MetricKind {
    let entry = fields.get("type");
    let word = entry.and_then(|entry| checker.word(&entry.value, &fields.path("type"), &METRIC_KINDS));
    match word {
        Some("counter") => MetricKind::Counter,
        Some("info") => MetricKind::Info,
        Some("stateset") => MetricKind::StateSet,
        _ => MetricKind::Gauge,
    }
}

/// The states of a state set and the label that holds them.
fn read_states(
    checker: &mut Checker<'_>,
    fields: &Fields<'_>,
    kind: MetricKind,
    labels: &BTreeMap<String, LabelSource>,
    limits: &Limits,
) -> Option<(Vec<String>, String)> {
    if kind != MetricKind::StateSet {
        for key in ["states", "stateLabel"] {
            if let Some(entry) = fields.get(key) {
                let message = format!("{key} belongs to a stateset; write type: stateset, or remove it");
                checker.error(entry.at, fields.path(key), "stateset-only", message);
            }
        }
        return None;
    }
    let mut label = STATE_LABEL_DEFAULT;
    if let Some(entry) = fields.get("stateLabel")
        && let Some(text) = checker.text(&entry.value, &fields.path("stateLabel"))
        && is_label_name(checker, text, entry.value.at, &fields.path("stateLabel"))
    {
        label = text;
    }
    if labels.contains_key(label) {
        let message = format!("the label {label} holds the state; rename the other one, or give stateLabel");
        checker.error(fields.at, fields.path("stateLabel"), "state-label", message);
    }
    let entry = checker.required(fields, "states", "list the states, such as [Connected, Disconnected]")?;
    let path = fields.path("states");
    let mut states: Vec<String> = Vec::new();
    for (node, path, text) in checker.text_list(&entry.value, &path) {
        let plain = !text.is_empty() && text.len() <= limits.max_label_length && !text.contains(char::is_control);
        if plain && !states.iter().any(|state| state == text) {
            states.push(text.to_owned());
        } else {
            let message = format!(
                "each state is given once, without control characters, and has 1 to {} bytes (maxLabelLength)",
                limits.max_label_length
            );
            checker.error(node.at, path, "state-name", message);
        }
    }
    if states.is_empty() || states.len() > STATES_MAX {
        let message = format!("a stateset has 1 to {STATES_MAX} states, this one has {}", states.len());
        checker.error(entry.value.at, path, "state-count", message);
        return None;
    }
    Some((states, label.to_owned()))
}

fn read_metric_name(checker: &mut Checker<'_>, fields: &Fields<'_>, kind: MetricKind) -> Option<(String, usize)> {
    let path = fields.path("name");
    let entry = checker.required(fields, "name", "the full metric name, twinquery_...")?;
    let (text, at) = (checker.text(&entry.value, &path)?, entry.value.at);
    if let Some(message) = suffix_message(text, kind) {
        checker.error(at, path, "metric-name", message);
        return None;
    }
    if let Some((unit, base)) = UNITS_NOT_BASE.iter().find(|(unit, _)| text.ends_with(unit)) {
        let message = format!("Prometheus wants base units; use {base} rather than {unit}");
        checker.warning(at, path, "metric-unit", message);
    }
    Some((text.to_owned(), at))
}

/// Refuses metrics whose names, which stand at `places`, do not begin as the settings say.
pub(super) fn check_prefix(checker: &mut Checker<'_>, prefix: &MetricPrefix, metrics: &[MetricSpec], places: &[usize]) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let prefix = prefix.as_str();
    for (index, (metric, at)) in metrics.iter().zip(places).enumerate() {
        let rest = metric.name.strip_prefix(prefix).unwrap_or_default();
        if rest.is_empty() || !rest.bytes().all(plain) {
            let name = shortened(&metric.name);
            let message = format!("{name:?} is no metric name; write {prefix} and then a-z, 0-9 and _");
            checker.error(*at, format!("spec.metrics[{index}].name"), "metric-name", message);
        }
    }
}

/// What is wrong with the end of a metric's name.
fn suffix_message(name: &str, kind: MetricKind) -> Option<String> {
    if let Some(suffix) = METRIC_SUFFIXES_TAKEN.iter().find(|suffix| name.ends_with(*suffix)) {
        return Some(format!("a metric's name may not end with {suffix}, as parts of a histogram do; rename it"));
    }
    let marks = [("_total", MetricKind::Counter, "counter"), ("_info", MetricKind::Info, "info")];
    marks.into_iter().find_map(|(suffix, of, word)| match (name.ends_with(suffix), kind == of) {
        (true, false) => {
            Some(format!("only the name of type: {word} ends with {suffix}; rename it, or change the type"))
        }
        (false, true) => Some(format!("the name of type: {word} ends with {suffix}; rename it")),
        (true, true) | (false, false) => None,
    })
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
