//! `kind: DeviceTwin` (DESIGN section 2).

use std::collections::BTreeMap;

use super::schema::{Checker, Fields, join};
use super::tree::{Content, Node, to_object};
use crate::plan::{FileSpan, RemovalPolicy, TwinManifest};
use crate::twin::{DeviceId, Object, Path, Rule, Section, TwinRef, check_section};

/// Annotations under this prefix are geminid's own.
const ANNOTATION_PREFIX: &str = "geminid.dev/";
/// The key of `tags` that holds the seals of geminid's owners (DESIGN 4.3).
const SEAL_KEY: &str = "geminid";

/// The twin a document declares. What cannot be used is in the checker's problems; then the result is not used.
pub(super) fn read_device_twin(
    checker: &mut Checker<'_>,
    root: &Fields<'_>,
    source: FileSpan,
) -> Option<(TwinRef, TwinManifest)> {
    let metadata = read_metadata(checker, root);
    let mut manifest = TwinManifest {
        tags: Object::new(),
        desired: Object::new(),
        create: false,
        removal_policy: RemovalPolicy::default(),
        labels: metadata.labels,
        source,
    };
    if let Some(spec) = root.get("spec") {
        let known = ["create", "removalPolicy", "tags", "properties"];
        if let Some(spec) = checker.fields(&spec.value, "spec", &known, &["initialOnly", "sensitive"]) {
            read_spec(checker, &spec, &mut manifest);
        }
    }
    Some((metadata.twin?, manifest))
}

/// Warns of a manifest that declares nothing. Only for one without errors: with an error, more may be meant.
pub(super) fn warn_if_nothing_is_declared(checker: &mut Checker<'_>, at: usize, manifest: &TwinManifest) {
    if manifest.tags.is_empty() && manifest.desired.is_empty() && !manifest.create {
        let message = "nothing is declared; give spec.tags or spec.properties.desired";
        checker.warning(at, "spec".to_owned(), "nothing-declared", message);
    }
}

struct Metadata {
    twin: Option<TwinRef>,
    labels: BTreeMap<String, String>,
}

fn read_metadata(checker: &mut Checker<'_>, root: &Fields<'_>) -> Metadata {
    let mut found = Metadata { twin: None, labels: BTreeMap::new() };
    let Some(metadata) = checker.required(root, "metadata", "give metadata.name, the device id") else {
        return found;
    };
    let Some(metadata) = checker.fields(&metadata.value, "metadata", &["name", "labels", "annotations"], &[]) else {
        return found;
    };
    if let Some(name) = checker.required(&metadata, "name", "it is the device id")
        && let Some(text) = checker.text(&name.value, "metadata.name")
    {
        match DeviceId::new(text) {
            Ok(device) => found.twin = Some(TwinRef::device(device)),
            Err(error) => checker.error(name.value.at, "metadata.name".to_owned(), "device-id", error.to_string()),
        }
    }
    if let Some(labels) = metadata.get("labels") {
        let texts = checker.texts(&labels.value, "metadata.labels");
        found.labels = texts.into_iter().map(|(entry, text)| (entry.key.clone(), text.to_owned())).collect();
    }
    if let Some(annotations) = metadata.get("annotations") {
        for (entry, _) in checker.texts(&annotations.value, "metadata.annotations") {
            if entry.key.starts_with(ANNOTATION_PREFIX) {
                let path = join("metadata.annotations", &entry.key);
                checker.not_supported(entry.at, path, &format!("the annotation {}", entry.key));
            }
        }
    }
    found
}

fn read_spec(checker: &mut Checker<'_>, spec: &Fields<'_>, manifest: &mut TwinManifest) {
    if let Some(create) = spec.get("create") {
        manifest.create = checker.bool(&create.value, "spec.create").unwrap_or_default();
    }
    if let Some(policy) = spec.get("removalPolicy")
        && let Some(text) = checker.text(&policy.value, "spec.removalPolicy")
    {
        match [RemovalPolicy::Orphan, RemovalPolicy::Clear].into_iter().find(|policy| policy.as_str() == text) {
            Some(policy) => manifest.removal_policy = policy,
            None => {
                let message = format!("expected orphan or clear, found {}", policy.value.content.describe());
                checker.error(policy.value.at, "spec.removalPolicy".to_owned(), "unknown-value", message);
            }
        }
    }
    if let Some(tags) = spec.get("tags")
        && let Some(object) = read_section(checker, Section::Tags, &tags.value)
    {
        manifest.tags = object;
        if let Some(entry) = tags.value.entries().into_iter().flatten().find(|entry| entry.key == SEAL_KEY) {
            let message = "tags.geminid holds geminid's own records and cannot be declared; use another key";
            checker.error(entry.at, "spec.tags.geminid".to_owned(), "reserved-key", message);
        }
    }
    let Some(properties) = spec.get("properties") else { return };
    // `reported` is a known name here only to get its own message.
    let Some(properties) = checker.fields(&properties.value, "spec.properties", &["desired", "reported"], &[]) else {
        return;
    };
    if let Some(reported) = properties.get("reported") {
        let message = "properties.reported is written by the device alone; remove it, or declare it under desired";
        checker.error(reported.at, "spec.properties.reported".to_owned(), "reported", message);
    }
    if let Some(desired) = properties.get("desired")
        && let Some(object) = read_section(checker, Section::Desired, &desired.value)
    {
        manifest.desired = object;
    }
}

fn read_section(checker: &mut Checker<'_>, section: Section, node: &Node) -> Option<Object> {
    let path = join("spec", section.as_str());
    let object = to_object(checker.mapping(node, &path)?);
    for violation in check_section(section, &object) {
        let at =
            place_of(node, &violation.path, matches!(violation.rule, Rule::KeySize(_) | Rule::KeyCharacter { .. }));
        let path = join("spec", &violation.path.in_section(section));
        checker.error(at, path, rule_name(&violation.rule), violation.rule.to_string());
    }
    warn_of_changed_values(checker, node, &path);
    Some(object)
}

/// The stable word of a limit.
fn rule_name(rule: &Rule) -> &'static str {
    match rule {
        Rule::SectionSize { .. } => "section-size",
        Rule::KeySize(_) => "key-size",
        Rule::KeyCharacter { .. } => "key-character",
        Rule::StringSize(_) => "string-size",
        Rule::IntegerRange(_) => "integer-range",
        Rule::Depth => "section-depth",
        Rule::NullInArray => "null-in-array",
    }
}

/// Where the value at `path` stands, or its key. A path has no list indices: below a list, the list itself counts,
/// or the first of its items that has the key.
fn place_of(section: &Node, path: &Path, key_wanted: bool) -> usize {
    let (mut node, mut at) = (section, section.at);
    for key in path.keys() {
        let below = match &node.content {
            Content::List(items) => {
                items.iter().find_map(|item| item.entries()?.iter().find(|entry| entry.key == *key))
            }
            Content::Map(entries) => entries.iter().find(|entry| entry.key == *key),
            Content::Null | Content::Bool(_) | Content::Number(..) | Content::Text { .. } | Content::Refused => None,
        };
        let Some(entry) = below else { return at };
        at = if key_wanted { entry.at } else { entry.value.at };
        node = &entry.value;
    }
    at
}

/// Warns of values that are not what the author sees in the text. The recursion is bounded by the reader's depth.
fn warn_of_changed_values(checker: &mut Checker<'_>, node: &Node, path: &str) {
    match &node.content {
        Content::Number(number, text) if number.to_string() != *text => {
            let message = format!("{text} is sent as the number {number}; quote it to send the text");
            checker.warning(node.at, path.to_owned(), "changed-value", message);
        }
        Content::Text { text, ambiguous: true } => {
            let message =
                format!("{text} is sent as a text, and other YAML readers take it for a boolean or number; quote it");
            checker.warning(node.at, path.to_owned(), "ambiguous-value", message);
        }
        Content::List(items) => {
            for (index, item) in items.iter().enumerate() {
                warn_of_changed_values(checker, item, &format!("{path}[{index}]"));
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                warn_of_changed_values(checker, &entry.value, &join(path, &entry.key));
            }
        }
        Content::Null | Content::Bool(_) | Content::Number(..) | Content::Text { .. } | Content::Refused => {}
    }
}
