//! The labels of a `TwinQuery`'s metric (`metrics.md` section 4).
//!
//! Invariant: what passes here is a valid label name to every Prometheus server, and no label that Prometheus or
//! geminid sets itself.

use std::collections::BTreeMap;

use super::schema::{Checker, Fields, join};
use super::shape::{CASES, LABEL};
use super::tree::{Entry, shortened};
use crate::series::{Case, LabelColumn, LabelSource, Limits};

/// Labels that Prometheus, or this exporter, sets itself.
const LABELS_TAKEN: [&str; 6] = ["job", "instance", "le", "quantile", "hub", "query"];
/// Labels that scrape targets often carry, so that a sample's own becomes `exported_...`.
const LABELS_CLASHING: [&str; 9] =
    ["type", "region", "zone", "cluster", "env", "environment", "service", "namespace", "pod"];
/// What a value becomes that is not allowed, unless the manifest says.
const OTHER_DEFAULT: &str = "other";

pub(super) fn read_labels(
    checker: &mut Checker<'_>,
    entry: &Entry,
    path: &str,
    limits: &Limits,
) -> BTreeMap<String, LabelSource> {
    let mut labels = BTreeMap::new();
    for label in checker.mapping(&entry.value, path).unwrap_or_default() {
        let path = join(path, &label.key);
        is_label_name(checker, &label.key, label.at, &path);
        let Some(fields) = checker.fields(&label.value, &path, &LABEL) else { continue };
        if let Some(source) = read_label_source(checker, &fields, limits) {
            labels.insert(label.key.clone(), source);
        }
    }
    labels
}

/// Whether `name` can be a label; if not, or if that is unwise, a problem says why.
pub(super) fn is_label_name(checker: &mut Checker<'_>, name: &str, at: usize, path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first_is_digit = name.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
    if first_is_digit || !name.bytes().all(plain) || name.starts_with("__") {
        let message = format!(
            "{:?} is no label name; use letters, digits and _, no digit first and no __ in front",
            shortened(name)
        );
        checker.error(at, path.to_owned(), "label-name", message);
        return false;
    }
    if LABELS_TAKEN.contains(&name) {
        let message = format!("the label {name} is set by Prometheus or by geminid; use another name");
        checker.error(at, path.to_owned(), "label-name", message);
        return false;
    }
    if LABELS_CLASHING.contains(&name) {
        let message = format!("scrape targets often carry the label {name}, which renames this one to exported_{name}");
        checker.warning(at, path.to_owned(), "label-clash", message);
    }
    true
}

/// The keys of a column such as `tags.location.plant`.
pub(super) fn read_column(checker: &mut Checker<'_>, column: &Entry, path: &str) -> Option<Vec<String>> {
    let text = checker.text(&column.value, path)?;
    let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
    if keys.iter().any(String::is_empty) {
        let message = "a column is keys joined by dots, such as tags.location.plant";
        checker.error(column.value.at, path.to_owned(), "label-column", message);
        return None;
    }
    Some(keys)
}

fn read_label_source(checker: &mut Checker<'_>, fields: &Fields<'_>, limits: &Limits) -> Option<LabelSource> {
    match (fields.get("column"), fields.get("const")) {
        (Some(column), None) => {
            let keys = read_column(checker, column, &fields.path("column"));
            let column = read_label_column(checker, fields, limits);
            Some(LabelSource::Column(LabelColumn { keys: keys?, ..column }))
        }
        (None, Some(constant)) => {
            refuse_column_fields(checker, fields);
            read_const(checker, fields, constant, limits)
        }
        (Some(_), Some(second)) => {
            let message = "a label has either column or const; remove one";
            checker.error(second.at, fields.path("const"), "label-source", message);
            None
        }
        (None, None) => {
            checker.error(fields.at, fields.path("column"), "missing-field", "a label needs column or const");
            refuse_column_fields(checker, fields);
            None
        }
    }
}

fn read_const(
    checker: &mut Checker<'_>,
    fields: &Fields<'_>,
    constant: &Entry,
    limits: &Limits,
) -> Option<LabelSource> {
    let path = fields.path("const");
    let text = checker.text(&constant.value, &path)?;
    if text.is_empty() {
        let message = "an empty label is no label to Prometheus; give a value or remove the label";
        checker.error(constant.value.at, path, "label-const", message);
        return None;
    }
    fits(checker, text, constant.value.at, &path, "label-const", limits).then(|| LabelSource::Const(text.to_owned()))
}

fn refuse_column_fields(checker: &mut Checker<'_>, fields: &Fields<'_>) {
    for key in ["default", "case", "map", "allow", "other"] {
        if let Some(entry) = fields.get(key) {
            let message = format!("{key} belongs to a label with a column; remove it");
            checker.error(entry.at, fields.path(key), "label-source", message);
        }
    }
}

/// All of the column but its keys.
fn read_label_column(checker: &mut Checker<'_>, fields: &Fields<'_>, limits: &Limits) -> LabelColumn {
    let mut column = LabelColumn { other: OTHER_DEFAULT.to_owned(), ..LabelColumn::default() };
    for (key, slot) in [("default", &mut column.default), ("other", &mut column.other)] {
        if let Some(entry) = fields.get(key)
            && let Some(text) = checker.text(&entry.value, &fields.path(key))
            && fits(checker, text, entry.value.at, &fields.path(key), "label-value", limits)
        {
            text.clone_into(slot);
        }
    }
    if let Some(entry) = fields.get("case") {
        column.case = match checker.word(&entry.value, &fields.path("case"), &CASES) {
            Some("lower") => Case::Lower,
            Some("upper") => Case::Upper,
            _ => Case::Keep,
        };
    }
    if let Some(entry) = fields.get("map") {
        let path = fields.path("map");
        for (entry, text) in checker.texts(&entry.value, &path) {
            if fits(checker, text, entry.value.at, &join(&path, &entry.key), "label-value", limits) {
                column.map.insert(entry.key.clone(), text.to_owned());
            }
        }
    }
    if let Some(entry) = fields.get("allow") {
        for (node, path, text) in checker.text_list(&entry.value, &fields.path("allow")) {
            if fits(checker, text, node.at, &path, "label-value", limits) {
                column.allow.push(text.to_owned());
            }
        }
    }
    if let (Some(entry), true) = (fields.get("other"), column.allow.is_empty()) {
        let message = "other is what values become that allow does not name; add allow, or remove other";
        checker.error(entry.at, fields.path("other"), "label-other", message);
    }
    column
}

fn fits(checker: &mut Checker<'_>, text: &str, at: usize, path: &str, rule: &'static str, limits: &Limits) -> bool {
    if text.len() > limits.max_label_length {
        let message =
            format!("a label value has at most {} bytes (maxLabelLength); shorten it", limits.max_label_length);
        checker.error(at, path.to_owned(), rule, message);
        return false;
    }
    true
}
