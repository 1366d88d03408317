//! What manifests and profiles want in a twin: sections, `initialOnly`, `sensitive` (DESIGN section 2).

use super::schema::{Checker, Fields, join};
use super::shape::PROPERTIES;
use super::tree::{Content, Node, to_object};
use crate::plan::{Leaf, SEAL_KEY, Subtree, Wanted, leaves_of};
use crate::twin::{Object, Path, Rule, Section, check_section};

/// What a spec wants, and the offset of each of its leaves.
pub(super) fn read_wanted(checker: &mut Checker<'_>, spec: &Fields<'_>) -> (Wanted, Vec<usize>) {
    let mut wanted = Wanted {
        initial_only: read_subtrees(checker, spec, "initialOnly"),
        sensitive: read_subtrees(checker, spec, "sensitive"),
        ..Wanted::default()
    };
    let mut places = Vec::new();
    if let Some(tags) = spec.get("tags")
        && let Some(object) = read_section(checker, Section::Tags, &tags.value, &mut places)
    {
        wanted.tags = object;
        if let Some(entry) = tags.value.entries().into_iter().flatten().find(|entry| entry.key == SEAL_KEY) {
            let message = "tags.geminid holds geminid's own records and cannot be declared; use another key";
            checker.error(entry.at, "spec.tags.geminid".to_owned(), "reserved-key", message);
        }
    }
    if let Some(desired) = read_properties(checker, spec)
        && let Some(object) = read_section(checker, Section::Desired, desired, &mut places)
    {
        wanted.desired = object;
    }
    for (field, subtrees) in [("initialOnly", &wanted.initial_only), ("sensitive", &wanted.sensitive)] {
        warn_of_idle_paths(checker, spec, field, subtrees, &wanted);
    }
    (wanted, places)
}

fn read_properties<'n>(checker: &mut Checker<'_>, spec: &Fields<'n>) -> Option<&'n Node> {
    let properties = spec.get("properties")?;
    let properties = checker.fields(&properties.value, "spec.properties", &PROPERTIES)?;
    if let Some(reported) = properties.get("reported") {
        let message = "properties.reported is written by the device alone; remove it, or declare it under desired";
        checker.error(reported.at, "spec.properties.reported".to_owned(), "reported", message);
    }
    properties.get("desired").map(|desired| &desired.value)
}

/// The paths of `initialOnly` or `sensitive`.
fn read_subtrees(checker: &mut Checker<'_>, spec: &Fields<'_>, field: &str) -> Vec<Subtree> {
    let Some(entry) = spec.get(field) else { return Vec::new() };
    let mut subtrees = Vec::new();
    for (node, path, text) in checker.text_list(&entry.value, &spec.path(field)) {
        match Subtree::parse(text) {
            Ok(subtree) => subtrees.push(subtree),
            Err(error) => checker.error(node.at, path, "path", error.to_string()),
        }
    }
    subtrees
}

/// Warns of paths that name nothing; most are slips.
fn warn_of_idle_paths(
    checker: &mut Checker<'_>,
    spec: &Fields<'_>,
    field: &str,
    subtrees: &[Subtree],
    wanted: &Wanted,
) {
    let Some(entry) = spec.get(field) else { return };
    for subtree in subtrees {
        let names = |section| {
            leaves_of(wanted.section(section)).into_iter().any(|(path, _)| subtree.touches(&Leaf { section, path }))
        };
        if !Section::ALL.into_iter().any(names) {
            let message = format!("{subtree} names nothing that is declared here; correct or remove it");
            checker.warning(entry.value.at, spec.path(field), "idle-path", message);
        }
    }
}

/// A section, and the offsets of its leaves. A section that breaks a rule, its size say, is not looked at closely.
fn read_section(checker: &mut Checker<'_>, section: Section, node: &Node, places: &mut Vec<usize>) -> Option<Object> {
    let path = join("spec", section.as_str());
    let object = to_object(checker.mapping(node, &path)?);
    let violations = check_section(section, &object);
    if violations.is_empty() {
        places.extend(leaves_of(&object).iter().map(|(path, _)| place_of(node, path, true)));
    }
    for violation in violations {
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
