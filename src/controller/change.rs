//! What a new declared state means for the twins: who changed, and who would lose something.
//!
//! Invariant: pure comparison of two states; a twin that moved to another line has not changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::plan::{Declaration, Declared, DeclaredLeaf, DeclaredState, Leaf, declare};
use crate::twin::TwinRef;

/// The difference of two declared states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct StateChange {
    /// Twins for which something else is declared now, or whose manifest broke or was mended.
    pub(super) changed: BTreeSet<TwinRef>,
    /// Those of them that lose a leaf, or their manifest.
    pub(super) losing: BTreeSet<TwinRef>,
    /// Whether the profiles with a condition are other ones, or want something else.
    pub(super) conditions: bool,
}

/// Compares `before` and `after`. Manifests that are one and the same in memory cost a step each and no more: after an
/// edit of one file of a large fleet that is nearly all of them.
pub(super) fn compare(before: &DeclaredState, after: &DeclaredState) -> StateChange {
    let conditional =
        |state: &DeclaredState| -> Vec<_> { state.conditional().map(|(profile, _)| Arc::clone(profile)).collect() };
    let mut change = StateChange { conditions: conditional(before) != conditional(after), ..StateChange::default() };
    let everywhere = before.frozen.unknown.is_empty() != after.frozen.unknown.is_empty();
    let profiles = before.profiles != after.profiles || before.frozen.kept_profiles != after.frozen.kept_profiles;
    let candidates = if everywhere || profiles {
        [before, after].iter().flat_map(|state| state.twins.keys().chain(state.frozen.held.keys())).collect()
    } else {
        candidates(before, after)
    };
    for twin in candidates {
        let old = declare(before, twin, None);
        if old == Declaration::Absent && after.twins.contains_key(twin) {
            // Whatever its manifest says is new, and takes nothing.
            change.changed.insert(twin.clone());
            continue;
        }
        let new = declare(after, twin, None);
        let suspend = |state: &DeclaredState| state.twins.get(twin).and_then(|manifest| manifest.suspend.clone());
        if everywhere || !same(&old, &new) || suspend(before) != suspend(after) {
            change.changed.insert(twin.clone());
        }
        if old.loses_to(&new) {
            change.losing.insert(twin.clone());
        }
    }
    change
}

/// Twins that may have changed, while what concerns all twins has not: those with another manifest, and those that are
/// frozen before or after.
fn candidates<'s>(before: &'s DeclaredState, after: &'s DeclaredState) -> BTreeSet<&'s TwinRef> {
    let frozen = [before, after].into_iter().flat_map(|state| state.frozen.held.keys().chain(state.frozen.kept.keys()));
    frozen.chain(before.twins.differing(&after.twins)).collect()
}

/// Whether both declare the same and are broken alike; the place does not matter.
fn same(old: &Declaration, new: &Declaration) -> bool {
    let alike = std::mem::discriminant(old) == std::mem::discriminant(new);
    alike
        && match (old.declared(), new.declared()) {
            (Some(old), Some(new)) => {
                let leaves = |declared: &Declared| {
                    let plain =
                        |(leaf, want): (&Leaf, &DeclaredLeaf)| (leaf.clone(), want.value.clone(), want.initial_only);
                    declared.leaves.iter().map(plain).collect::<Vec<_>>()
                };
                (leaves(old), old.create, old.removal_policy) == (leaves(new), new.create, new.removal_policy)
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FileSpan, TwinManifest, Wanted};
    use crate::twin::{DeviceId, Value};

    fn twin(id: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(id).unwrap())
    }

    fn place(line: usize) -> FileSpan {
        FileSpan { file: "a.yaml".into(), line, column: 1 }
    }

    fn state(twins: &[(&str, &str, usize)]) -> DeclaredState {
        let manifest = |tags: &str, line| TwinManifest {
            wanted: Wanted { tags: Value::parse_json(tags).unwrap().as_object().unwrap().clone(), ..Wanted::default() }
                .into(),
            ..TwinManifest::empty(place(line))
        };
        let twins = twins.iter().map(|(id, tags, line)| (twin(id), Arc::new(manifest(tags, *line)))).collect();
        DeclaredState { twins, ..DeclaredState::default() }
    }

    fn names(twins: &BTreeSet<TwinRef>) -> String {
        twins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_twins_with_another_declaration_change_and_only_losers_lose() {
        let before =
            state(&[("gone", "{}", 1), ("less", r#"{"a":1,"b":1}"#, 2), ("moved", r#"{"a":1}"#, 3), ("set", "{}", 4)]);
        let after = state(&[
            ("less", r#"{"a":1,"b":null}"#, 2),
            ("moved", r#"{"a":1}"#, 9),
            ("new", r#"{"a":1}"#, 5),
            ("set", r#"{"a":2}"#, 4),
        ]);
        let change = compare(&before, &after);
        assert_eq!(names(&change.changed), "gone less new set");
        assert_eq!(names(&change.losing), "gone less");
    }

    #[test]
    fn a_manifest_that_breaks_changes_its_twin_and_loses_nothing() {
        let before = state(&[("a", r#"{"a":1}"#, 1), ("b", r#"{"a":1}"#, 1)]);
        let mut kept = before.clone();
        kept.frozen.kept.insert(twin("a"), place(1));
        assert_eq!(names(&compare(&before, &kept).changed), "a");
        assert_eq!(names(&compare(&kept, &before).losing), "");
        let mut incomplete = before.clone();
        incomplete.frozen.unknown.insert(place(3));
        let change = compare(&before, &incomplete);
        assert_eq!((names(&change.changed).as_str(), names(&change.losing).as_str()), ("a b", ""));
    }
}
