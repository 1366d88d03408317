//! `where` of a profile: a twin-query condition on the live twin.
//!
//! Invariant: decided on the twin just read with its unconditional leaves applied, so what a condition reads never
//! depends on what a condition sets. It is printed from its syntax tree, never from the text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{DeclaredLeaf, FileSpan, Leaf, ProfileTarget, SEAL_KEY};
use crate::query::{Attribute, Expr, Row, Tri, eval, parse_condition};
use crate::twin::{MergePatch, Object, Path, Section, Twin, Value};

/// The longest text of a condition, in bytes (DESIGN section 2).
const TEXT_SIZE_MAX: usize = 2000;
/// The deepest nesting of a condition (DESIGN section 2).
const DEPTH_MAX: usize = 32;
/// First names of a twin, besides its sections, that a condition may read (`iot-hub.md` 1.1).
const SYSTEM_PROPERTIES: [&str; 14] = [
    "deviceId",
    "moduleId",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "modelId",
];

/// A condition that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCondition {
    expr: Expr,
    /// Where it stands.
    pub place: FileSpan,
}

/// Why a text is no condition that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// What is wrong and the remedy, in one sentence.
    pub message: String,
    /// The byte of the text where it stops being a condition; without it the whole text is meant.
    pub at: Option<usize>,
}

impl From<String> for ConditionError {
    fn from(message: String) -> Self {
        Self { message, at: None }
    }
}

impl LiveCondition {
    /// Takes `text`, which stands at `place`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str, place: FileSpan) -> Result<Self, ConditionError> {
        if text.len() > TEXT_SIZE_MAX {
            return Err(format!("a condition has at most {TEXT_SIZE_MAX} bytes, this one has {}", text.len()).into());
        }
        let expr = parse_condition(text)
            .map_err(|error| ConditionError { message: error.to_string(), at: Some(error.span.start) })?;
        if depth(&expr) > DEPTH_MAX {
            return Err(format!("a condition nests at most {DEPTH_MAX} deep; flatten it").into());
        }
        for attribute in expr.attributes() {
            check_attribute(attribute)?;
        }
        Ok(Self { expr, place })
    }

    /// The query whose rows name the twins that the condition may hold for: `d`, and `m` for modules.
    #[must_use]
    pub fn nominating_query(&self, target: ProfileTarget) -> String {
        let (module, collection) = match target {
            ProfileTarget::Devices => ("", "devices"),
            ProfileTarget::Modules => (", moduleId AS m", "devices.modules"),
        };
        format!("SELECT deviceId AS d{module} FROM {collection} WHERE {}", self.expr)
    }

    /// Whether both hold for the same twins because they say the same; where they stand does not matter.
    #[must_use]
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        self.expr == other.expr
    }

    /// The places of tags and desired that the condition reads, each with its text.
    pub fn reads(&self) -> impl Iterator<Item = (Leaf, String)> {
        self.expr.attributes().into_iter().filter_map(|attribute| Some((leaf_of(attribute)?, attribute.to_string())))
    }

    /// Whether the condition holds for `row`. What cannot be decided does not hold.
    pub(super) fn holds(&self, row: &AppliedTwin<'_>) -> bool {
        eval(&self.expr, row) == Tri::True
    }
}

/// The leaf or subtree of tags or desired that an attribute names.
fn leaf_of(attribute: &Attribute) -> Option<Leaf> {
    let (section, keys) = match attribute.path() {
        [first, keys @ ..] if first == "tags" => (Section::Tags, keys),
        [first, second, keys @ ..] if first == "properties" && second == "desired" => (Section::Desired, keys),
        _ => return None,
    };
    Some(Leaf { section, path: Path::new(keys.iter().cloned()) })
}

fn check_attribute(attribute: &Attribute) -> Result<(), String> {
    let names: Vec<&str> = attribute.path().iter().map(String::as_str).collect();
    if names.iter().any(|name| name.starts_with('$')) {
        return Err(format!("{attribute} changes with every write; read another attribute"));
    }
    match names.as_slice() {
        ["etag" | "version"] => Err(format!("{attribute} changes with every write; read another attribute")),
        ["tags", SEAL_KEY, ..] => {
            Err(format!("{attribute} is geminid's own record; a condition on it would follow its own tail"))
        }
        ["tags" | "properties"] | ["properties", "desired" | "reported"] => {
            Err(format!("{attribute} is a whole section; name a value in it"))
        }
        ["tags", ..] | ["properties", "desired" | "reported", ..] => Ok(()),
        [first, ..] if SYSTEM_PROPERTIES.contains(first) => Ok(()),
        _ => Err(format!(
            "no twin has {attribute}; begin with tags., properties.desired., properties.reported. or a system property"
        )),
    }
}

fn depth(expr: &Expr) -> usize {
    match expr {
        Expr::Or(parts) | Expr::And(parts) => 1 + parts.iter().map(depth).max().unwrap_or_default(),
        Expr::Not(inner) => 1 + depth(inner),
        Expr::Compare { .. } | Expr::In { .. } | Expr::Call(_) => 1,
    }
}

/// A live twin as it will be once its unconditional leaves are applied.
pub(super) struct AppliedTwin<'a> {
    twin: &'a Twin,
    tags: Object,
    desired: Object,
}

impl<'a> AppliedTwin<'a> {
    pub(super) fn new(twin: &'a Twin, leaves: &BTreeMap<Leaf, DeclaredLeaf>) -> Self {
        let mut patch = MergePatch::default();
        for (leaf, want) in leaves {
            let live = beneath(twin.section(leaf.section), leaf.path.keys());
            if !(want.initial_only && live.is_some()) {
                patch.set(leaf.section, leaf.path.keys(), want.value.clone());
            }
        }
        let after = |section| twin.section_after(section, &patch);
        Self { twin, tags: after(Section::Tags), desired: after(Section::Desired) }
    }
}

impl Row for AppliedTwin<'_> {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let text = |text: &str| Some(Cow::Owned(Value::from(text)));
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["deviceId"] => text(self.twin.twin_ref.device.as_str()),
            ["moduleId"] => text(self.twin.twin_ref.module.as_ref()?.as_str()),
            ["deviceEtag"] => text(self.twin.device_etag.as_deref()?),
            ["tags", ..] => beneath(&self.tags, &path[1..]).map(Cow::Borrowed),
            ["properties", "desired", ..] => beneath(&self.desired, &path[2..]).map(Cow::Borrowed),
            ["properties", "reported", ..] => beneath(&self.twin.reported, &path[2..]).map(Cow::Borrowed),
            _ => beneath(&self.twin.system, path).map(Cow::Borrowed),
        }
    }
}

fn beneath<'a>(object: &'a Object, keys: &[String]) -> Option<&'a Value> {
    let (first, below) = keys.split_first()?;
    object.get(first)?.get(below.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> FileSpan {
        FileSpan { file: "p".into(), line: 1, column: 1 }
    }

    #[test]
    fn a_condition_is_refused_where_it_would_follow_its_own_writes() {
        for (text, refusal) in [
            ("etag = 'x'", "etag changes with every write"),
            ("Version > 3", "version changes with every write"),
            ("properties.desired.$version = 1", "changes with every write"),
            ("IS_DEFINED(tags.geminid.demo)", "geminid's own record"),
            ("IS_DEFINED(tags)", "a whole section"),
            ("IS_DEFINED(properties.desired)", "a whole section"),
            ("plant = 'x'", "no twin has plant"),
            ("tags.a = ", "expected"),
            ("tags.a = 1 GROUP BY x", "expected"),
        ] {
            let error = LiveCondition::parse(text, place()).unwrap_err().message;
            assert!(error.contains(refusal), "{text}: {error}");
        }
        let long = format!("tags.a = '{}'", "x".repeat(2000));
        assert!(LiveCondition::parse(&long, place()).unwrap_err().message.contains("at most 2000 bytes"));
        let deep = format!("{}tags.a = 1{}", "NOT (".repeat(32), ")".repeat(32));
        assert!(LiveCondition::parse(&deep, place()).unwrap_err().message.contains("at most 32 deep"));
    }

    #[test]
    fn the_nominating_query_is_printed_from_the_tree() {
        let condition = LiveCondition::parse("tags.a   =  'O\\'Hara'  and DeviceID != 'x'", place()).unwrap();
        let query = condition.nominating_query(ProfileTarget::Modules);
        assert_eq!(
            query,
            r"SELECT deviceId AS d, moduleId AS m FROM devices.modules WHERE tags.a = 'O\'Hara' AND deviceId != 'x'"
        );
    }
}
