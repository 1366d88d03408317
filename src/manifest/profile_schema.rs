//! `kind: TwinProfile` (DESIGN section 2).

use super::query_schema::is_query_name;
use super::schema::{Checker, Fields};
use super::shape::{PROFILE_SPEC, SELECTOR};
use super::tree::{Content, Node, shortened};
use super::twin_schema::{read_metadata, read_removal_policy};
use super::wanted_schema::read_wanted;
use crate::plan::{DeviceGlobs, FileSpan, LiveCondition, Profile, ProfileTarget, Selector};
use crate::twin::Number;

const PRIORITY_MAX: i64 = 1_000_000;
const TARGETS: [&str; 2] = ["devices", "modules"];
const GLOBS_MAX: usize = 1000;
/// The longest glob, in bytes: every character of the longest id escaped.
const GLOB_LENGTH_MAX: usize = 256;

/// The profile a document declares, and the offset of each of its leaves. What cannot be used is in the checker's
/// problems; then the result is not used.
pub(super) fn read_twin_profile(
    checker: &mut Checker<'_>,
    root: &Fields<'_>,
    source: FileSpan,
    place: &dyn Fn(usize) -> FileSpan,
) -> Option<(Profile, Vec<usize>)> {
    let metadata = read_metadata(checker, root, "the profile's name");
    let name = metadata.name.and_then(|node| read_name(checker, node));
    if metadata.is_suspended() {
        let message = "a profile cannot be suspended; suspend the twins, or remove the profile";
        checker.error(root.at, "metadata.annotations".to_owned(), "suspend-profile", message);
    }
    let spec = checker.required(root, "spec", "give spec.selector and what is declared")?;
    let spec = checker.fields(&spec.value, "spec", &PROFILE_SPEC)?;
    let target = match spec.get("target") {
        Some(entry) => checker.word(&entry.value, "spec.target", &TARGETS),
        None => Some(ProfileTarget::Devices.as_str()),
    };
    let target = [ProfileTarget::Devices, ProfileTarget::Modules].into_iter().find(|t| Some(t.as_str()) == target);
    let priority = spec.get("priority").map_or(Some(0), |entry| read_priority(checker, &entry.value));
    let selector = checker.required(&spec, "selector", "give matchLabels, devices or where");
    let selector = selector.and_then(|entry| read_selector(checker, &entry.value, place));
    let removal_policy = read_removal_policy(checker, &spec);
    let (wanted, places) = read_wanted(checker, &spec);
    if wanted.tags.is_empty() && wanted.desired.is_empty() {
        let message = "a profile that declares nothing does nothing; give spec.tags or spec.properties.desired";
        checker.warning(root.at, "spec".to_owned(), "nothing-declared", message);
    }
    let (name, target, priority, selector) = (name?, target?, priority?, selector?);
    Some((Profile { name, target, priority, selector, removal_policy, wanted, source }, places))
}

fn read_name(checker: &mut Checker<'_>, node: &Node) -> Option<String> {
    let text = checker.text(node, "metadata.name")?;
    if is_query_name(text) {
        return Some(text.to_owned());
    }
    let message = format!(
        "{:?} is no name for a profile; use 1 to 63 of a-z, 0-9 and -, with - neither first nor last",
        shortened(text)
    );
    checker.error(node.at, "metadata.name".to_owned(), "profile-name", message);
    None
}

fn read_priority(checker: &mut Checker<'_>, node: &Node) -> Option<i64> {
    let value = match &node.content {
        Content::Number(Number::Integer(value), _) if (-PRIORITY_MAX..=PRIORITY_MAX).contains(value) => Some(*value),
        Content::Number(..)
        | Content::Null
        | Content::Bool(_)
        | Content::Text { .. }
        | Content::List(_)
        | Content::Map(_)
        | Content::Refused => None,
    };
    if value.is_none() && node.content != Content::Refused {
        let message =
            format!("expected a whole number, -{PRIORITY_MAX} to {PRIORITY_MAX}, found {}", node.content.describe());
        checker.error(node.at, "spec.priority".to_owned(), "out-of-range", message);
    }
    value
}

fn read_selector(checker: &mut Checker<'_>, node: &Node, place: &dyn Fn(usize) -> FileSpan) -> Option<Selector> {
    let fields = checker.fields(node, "spec.selector", &SELECTOR)?;
    let mut selector = Selector::default();
    if let Some(labels) = fields.get("matchLabels") {
        let texts = checker.texts(&labels.value, "spec.selector.matchLabels");
        selector.match_labels = texts.into_iter().map(|(entry, text)| (entry.key.clone(), text.to_owned())).collect();
    }
    if let Some(devices) = fields.get("devices") {
        selector.devices = read_globs(checker, &devices.value);
    }
    let mut refused = false;
    if let Some(entry) = fields.get("where")
        && let Some(text) = checker.text(&entry.value, "spec.selector.where")
    {
        match LiveCondition::parse(text, place(entry.value.at)) {
            Ok(condition) => selector.condition = Some(condition),
            Err(error) => {
                refused = true;
                let at = error.at.map_or(entry.value.at, |at| checker.place_within(&entry.value, text, at));
                checker.error(at, "spec.selector.where".to_owned(), "where", error.message);
            }
        }
    }
    let empty_list = |key: &str| match fields.get(key).map(|entry| &entry.value.content) {
        Some(Content::List(items)) => items.is_empty(),
        Some(Content::Map(entries)) => entries.is_empty(),
        Some(_) | None => false,
    };
    let nothing = !["matchLabels", "devices", "where"].iter().any(|key| fields.get(key).is_some());
    if nothing || empty_list("matchLabels") || empty_list("devices") {
        let message = "an empty selector would select nothing or everything by accident; give matchLabels, devices or where, and \
                       devices: [\"*\"] for every declared twin";
        checker.error(fields.at, "spec.selector".to_owned(), "empty-selector", message);
        return None;
    }
    (!refused).then_some(selector)
}

fn read_globs(checker: &mut Checker<'_>, node: &Node) -> Option<DeviceGlobs> {
    let path = "spec.selector.devices";
    let texts = checker.text_list(node, path);
    if texts.len() > GLOBS_MAX {
        let message =
            format!("a selector has at most {GLOBS_MAX} globs, this one has {}; select by label", texts.len());
        checker.error(node.at, path.to_owned(), "glob-count", message);
        return None;
    }
    for (item, path, text) in &texts {
        let refused = if text.len() > GLOB_LENGTH_MAX {
            Some(format!("a glob has at most {GLOB_LENGTH_MAX} bytes, this one has {}", text.len()))
        } else if text.contains('/') {
            Some("no id holds /, so this glob matches nothing; modules are selected by their device".to_owned())
        } else {
            DeviceGlobs::new(vec![(*text).to_owned()]).err().map(|error| error.to_string())
        };
        if let Some(message) = refused {
            checker.error(item.at, path.clone(), "glob", message);
        }
    }
    DeviceGlobs::new(texts.into_iter().map(|(_, _, text)| text.to_owned()).collect()).ok()
}
