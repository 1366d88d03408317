//! Where the value of a `TwinQuery`'s metric comes from (`metrics.md` section 4).
//!
//! Invariant: a field that would mean nothing where it stands is an error, never ignored.

use std::collections::BTreeMap;

use super::label_schema::read_column;
use super::schema::{Checker, Fields, join};
use super::shape::{METRIC_VALUE, ON_INVALID, ON_MISSING, PARSES, REDUCES};
use super::tree::{Content, Entry, Node};
use crate::series::{MetricKind, NumberColumn, OnInvalid, OnMissing, Parse, Reduce, StateColumn, ValueSource};
use crate::twin::Number;

/// Fields that say how a column is read.
const COLUMN_FIELDS: [&str; 6] = ["parse", "map", "scale", "onMissing", "onInvalid", "reduce"];

/// The value of a metric. `states` are those of a state set, when they could be read.
pub(super) fn read_value(
    checker: &mut Checker<'_>,
    metric: &Fields<'_>,
    kind: MetricKind,
    states: Option<(Vec<String>, String)>,
) -> Option<ValueSource> {
    let path = metric.path("value");
    if kind == MetricKind::Info {
        if let Some(entry) = metric.get("value") {
            checker.error(entry.at, path, "info-value", "an info is always 1; remove value");
        }
        return Some(ValueSource::Const(Number::Integer(1)));
    }
    let remedy = if kind == MetricKind::StateSet { "write value: {column: ...}" } else { "write value: {count: true}" };
    let entry = checker.required(metric, "value", remedy)?;
    let fields = checker.fields(&entry.value, &path, &METRIC_VALUE)?;
    let given: Vec<&Entry> = ["count", "const", "column"].iter().filter_map(|key| fields.get(key)).collect();
    if let [_, second, ..] = given[..] {
        let message = "a value has one of count, const and column; remove the others";
        checker.error(second.at, join(&path, &second.key), "value-source", message);
    }
    let column = fields.get("column").and_then(|column| read_column(checker, column, &fields.path("column")));
    let constant = fields.get("const").and_then(|entry| read_number(checker, &entry.value, &fields.path("const")));
    let counts = fields.get("count").and_then(|entry| read_true(checker, entry, &fields.path("count")));
    if kind == MetricKind::StateSet {
        return read_state_column(checker, &fields, column, states);
    }
    if fields.get("column").is_some() {
        let column = read_number_column(checker, &fields, column?);
        return Some(ValueSource::Column(column));
    }
    refuse(checker, &fields, &COLUMN_FIELDS, "belongs to value.column; remove it");
    if given.is_empty() {
        checker.error(entry.value.at, join(&path, "count"), "missing-field", "write value: {count: true}");
    }
    constant.map(ValueSource::Const).or(counts.map(|()| ValueSource::Count))
}

fn read_true(checker: &mut Checker<'_>, entry: &Entry, path: &str) -> Option<()> {
    if checker.bool(&entry.value, path)? {
        return Some(());
    }
    checker.error(entry.value.at, path.to_owned(), "unknown-value", "expected true, found false");
    None
}

fn refuse(checker: &mut Checker<'_>, fields: &Fields<'_>, keys: &[&str], why: &str) {
    for key in keys {
        if let Some(entry) = fields.get(key) {
            checker.error(entry.at, fields.path(key), "value-source", format!("{key} {why}"));
        }
    }
}

fn read_number_column(checker: &mut Checker<'_>, fields: &Fields<'_>, keys: Vec<String>) -> NumberColumn {
    let mut map = BTreeMap::new();
    if let Some(entry) = fields.get("map") {
        let path = fields.path("map");
        for entry in checker.mapping(&entry.value, &path).unwrap_or_default() {
            if let Some(number) = read_number(checker, &entry.value, &join(&path, &entry.key)) {
                map.insert(entry.key.clone(), number);
            }
        }
    }
    let scale = fields.get("scale").and_then(|entry| read_number(checker, &entry.value, &fields.path("scale")));
    let parse = match word(checker, fields, "parse", &PARSES) {
        Some("number") => Parse::Number,
        Some("bool") => Parse::Bool,
        Some("percent") => Parse::Percent,
        Some("rfc3339") => Parse::Rfc3339,
        _ => Parse::Auto,
    };
    let (on_missing, on_invalid, reduce) = read_policies(checker, fields);
    NumberColumn { keys, parse, map, scale: scale.unwrap_or(Number::Integer(1)), on_missing, on_invalid, reduce }
}

fn read_state_column(
    checker: &mut Checker<'_>,
    fields: &Fields<'_>,
    column: Option<Vec<String>>,
    states: Option<(Vec<String>, String)>,
) -> Option<ValueSource> {
    refuse(checker, fields, &["count", "const", "parse", "scale"], "means nothing to a stateset; remove it");
    let mut map = BTreeMap::new();
    if let Some(entry) = fields.get("map") {
        let path = fields.path("map");
        for (entry, text) in checker.texts(&entry.value, &path) {
            let known = states.as_ref().is_none_or(|(states, _)| states.iter().any(|state| state == text));
            if !known {
                let message = "a stateset maps to its states, and this is none of them";
                checker.error(entry.value.at, join(&path, &entry.key), "state-name", message);
            }
            map.insert(entry.key.clone(), text.to_owned());
        }
    }
    let (on_missing, on_invalid, reduce) = read_policies(checker, fields);
    if let (Some(entry), false) = (fields.get("reduce"), matches!(reduce, Reduce::Error | Reduce::First)) {
        let message = "of two states there is no sum and no mean; write error or first";
        checker.error(entry.value.at, fields.path("reduce"), "value-source", message);
    }
    if fields.get("column").is_none() {
        let message = "column is missing; it holds the state";
        checker.error(fields.at, fields.path("column"), "missing-field", message);
    }
    let (states, label) = states?;
    Some(ValueSource::States(StateColumn { keys: column?, map, states, label, on_missing, on_invalid, reduce }))
}

fn read_policies(checker: &mut Checker<'_>, fields: &Fields<'_>) -> (OnMissing, OnInvalid, Reduce) {
    let on_missing = match word(checker, fields, "onMissing", &ON_MISSING) {
        Some("zero") => OnMissing::Zero,
        Some("fail") => OnMissing::Fail,
        _ => OnMissing::Skip,
    };
    let on_invalid = match word(checker, fields, "onInvalid", &ON_INVALID) {
        Some("fail") => OnInvalid::Fail,
        _ => OnInvalid::Skip,
    };
    let reduce = match word(checker, fields, "reduce", &REDUCES) {
        Some("sum") => Reduce::Sum,
        Some("min") => Reduce::Min,
        Some("max") => Reduce::Max,
        Some("avg") => Reduce::Avg,
        Some("first") => Reduce::First,
        _ => Reduce::Error,
    };
    (on_missing, on_invalid, reduce)
}

fn word(
    checker: &mut Checker<'_>,
    fields: &Fields<'_>,
    key: &str,
    words: &'static [&'static str],
) -> Option<&'static str> {
    fields.get(key).and_then(|entry| checker.word(&entry.value, &fields.path(key), words))
}

fn read_number(checker: &mut Checker<'_>, node: &Node, path: &str) -> Option<Number> {
    if let Content::Number(number, _) = &node.content {
        return Some(*number);
    }
    if node.content != Content::Refused {
        let message = format!("expected a number, found {}", node.content.describe());
        checker.error(node.at, path.to_owned(), "wrong-type", message);
    }
    None
}
