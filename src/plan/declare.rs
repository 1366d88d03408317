//! Declared state of the fleet to what is declared for one twin, leaf by leaf.

use std::collections::BTreeMap;
use std::fmt;

use super::layers::Layers;
use super::{DeclaredState, FileSpan, HeldReason, RemovalPolicy};
use crate::twin::{Object, Path, Section, Twin, TwinRef, Value};

/// The place of a leaf in a twin. Sorts by section, then path: the order of everything printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf {
    /// The section.
    pub section: Section,
    /// Where in it; never empty.
    pub path: Path,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.in_section(self.section))
    }
}

/// What is declared of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredLeaf {
    /// A scalar, a whole array, `{}` (any object satisfies it), or null (must not exist).
    pub value: Value,
    /// Set when absent, never corrected.
    pub initial_only: bool,
    /// Who set it: the place of the leaf in the twin's manifest or in a profile.
    pub source: FileSpan,
}

/// What is declared for one twin: its own manifest with the profiles that select it, as leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Each leaf with who set it.
    pub leaves: BTreeMap<Leaf, DeclaredLeaf>,
    /// Whether to register the device when a point read says that it does not exist.
    pub create: bool,
    /// What happens when the manifest goes.
    pub removal_policy: RemovalPolicy,
    /// The twin's own manifest.
    pub source: FileSpan,
}

/// Two profiles of one priority that want different values at one path, or one above the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tie {
    /// The priority of both.
    pub priority: i64,
    /// The first profile's name, leaf and its place.
    pub one: (String, Leaf, FileSpan),
    /// The other's.
    pub other: (String, Leaf, FileSpan),
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((one, leaf, place), (other, _, other_place)) = (&self.one, &self.other);
        write!(
            f,
            "the profiles {one} ({place}) and {other} ({other_place}) disagree on {leaf} with one priority, {}",
            self.priority
        )
    }
}

/// What the declared state says about one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// These leaves.
    Declared(Declared),
    /// The last good leaves: the manifest at this place is broken now.
    Kept(Declared, FileSpan),
    /// The manifest at this place is broken and was never read well: nothing may be written.
    Broken(FileSpan),
    /// A document that may concern any twin cannot be read: nothing may be written.
    Incomplete(FileSpan),
    /// Profiles contradict one another: nothing may be written.
    Tied(Box<Tie>),
    /// Nothing: no manifest names the twin.
    Absent,
}

impl Declaration {
    /// The leaves to bring about, if they are known.
    #[must_use]
    pub fn declared(&self) -> Option<&Declared> {
        match self {
            Self::Declared(declared) | Self::Kept(declared, _) => Some(declared),
            Self::Broken(_) | Self::Incomplete(_) | Self::Tied(_) | Self::Absent => None,
        }
    }

    /// Why nothing may be written whatever the live twin is, if so.
    #[must_use]
    pub fn hold(&self) -> Option<HeldReason> {
        match self {
            Self::Broken(place) => Some(HeldReason::ManifestBroken(place.clone())),
            Self::Incomplete(place) => Some(HeldReason::SourceIncomplete(place.clone())),
            Self::Tied(tie) => Some(HeldReason::ProfileTie(tie.clone())),
            Self::Declared(_) | Self::Kept(..) | Self::Absent => None,
        }
    }
}

/// What `state` declares for `twin`. `live` is the twin just read, or `None` for the part that does not depend on it;
/// profiles with a condition on the live twin will need it, and until then both answers are equal.
#[must_use]
pub fn declare(state: &DeclaredState, twin: &TwinRef, live: Option<&Twin>) -> Declaration {
    debug_assert!(live.is_none_or(|live| live.twin_ref == *twin), "the live twin is the one asked for");
    if let Some(place) = state.frozen.held.get(twin) {
        return Declaration::Broken(place.clone());
    }
    if let Some(place) = state.frozen.unknown.first() {
        return Declaration::Incomplete(place.clone());
    }
    let Some(manifest) = state.twins.get(twin) else {
        return Declaration::Absent;
    };
    let mut kept = state.frozen.kept.get(twin);
    let mut layers = Layers::default();
    layers.add_manifest(manifest);
    for profile in state.profiles.iter().filter(|profile| profile.selects(twin, Some(manifest))) {
        kept = kept.or_else(|| state.frozen.kept_profiles.get(&profile.name));
        if let Err(tie) = layers.add_profile(profile) {
            return Declaration::Tied(tie);
        }
    }
    let declared = Declared {
        leaves: layers.finish(),
        create: manifest.create,
        removal_policy: manifest.removal_policy,
        source: manifest.source.clone(),
    };
    match kept {
        Some(place) => Declaration::Kept(declared, place.clone()),
        None => Declaration::Declared(declared),
    }
}

/// The leaves beneath `object`, in order, each with its path from there.
#[must_use]
pub fn leaves_of(object: &Object) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    walk(&Path::root(), object, &mut found);
    found
}

fn walk<'a>(above: &Path, object: &'a Object, found: &mut Vec<(Path, &'a Value)>) {
    for (key, value) in object {
        let path = above.child(key);
        match value {
            Value::Object(inner) if !inner.is_empty() => walk(&path, inner, found),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                found.push((path, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{TwinManifest, Wanted};
    use crate::twin::DeviceId;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn place(line: usize) -> FileSpan {
        FileSpan { file: "fleet.yaml".into(), line, column: 1 }
    }

    fn twin(id: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(id).unwrap())
    }

    fn state() -> DeclaredState {
        let manifest = TwinManifest {
            wanted: Wanted {
                tags: object(r#"{"location":{"plant":"R","none":{}},"gone":null}"#),
                desired: object(r#"{"list":[{"a":1}]}"#),
                places: [(2, 1), (3, 1), (4, 1), (5, 9)].into(),
                ..Wanted::default()
            },
            create: true,
            removal_policy: RemovalPolicy::Clear,
            ..TwinManifest::empty(place(1))
        };
        DeclaredState { twins: BTreeMap::from([(twin("a"), Arc::new(manifest))]), ..DeclaredState::default() }
    }

    #[test]
    fn leaves_are_scalars_whole_arrays_nulls_and_empty_objects() {
        let Declaration::Declared(declared) = declare(&state(), &twin("a"), None) else { panic!("declared") };
        let leaves: Vec<String> = declared
            .leaves
            .iter()
            .map(|(leaf, declared)| format!("{leaf}={} {}", declared.value, declared.source))
            .collect();
        assert_eq!(
            leaves,
            [
                "tags.gone=null fleet.yaml:2:1",
                "tags.location.none={} fleet.yaml:3:1",
                "tags.location.plant=\"R\" fleet.yaml:4:1",
                "properties.desired.list=[{\"a\":1}] fleet.yaml:5:9"
            ]
        );
        assert_eq!(declare(&state(), &twin("b"), None), Declaration::Absent);
    }

    #[test]
    fn what_could_not_be_read_is_never_absent() {
        let mut frozen = state();
        frozen.frozen.kept.insert(twin("a"), place(7));
        assert!(matches!(declare(&frozen, &twin("a"), None), Declaration::Kept(_, at) if at == place(7)));
        frozen.frozen.held.insert(twin("b"), place(8));
        assert_eq!(declare(&frozen, &twin("b"), None), Declaration::Broken(place(8)));
        frozen.frozen.unknown.insert(place(9));
        assert_eq!(declare(&frozen, &twin("a"), None), Declaration::Incomplete(place(9)));
        assert_eq!(declare(&frozen, &twin("c"), None), Declaration::Incomplete(place(9)));
    }
}
