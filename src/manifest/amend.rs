//! The short way from one declared state to the next: files in which nothing but values of twins changed.
//!
//! Invariant: what [`amend`] answers is what [`lower`](super::lower) would have; where that is not certain, it answers
//! nothing.

use std::sync::Arc;

use super::lower::LastGood;
use super::parse::{Declares, ParsedFile};
use crate::plan::{DeclaredState, Frozen, TwinManifest};
use crate::twin::{Object, Value};

/// The state after each of the `changes` (a file as it was lowered last, and as it is now), if they change nothing but
/// the values of twins: the same twins with the same keys and labels, without a problem in these files before or after,
/// and nothing frozen anywhere. Then no rule across files can come out otherwise: whether profiles contradict one another
/// in a twin depends on which of its paths it sets itself, never on their values. `last_good` is amended too, and left
/// alone when the answer is `None`. The revision stays the one of `state`.
#[must_use]
pub fn amend(
    changes: &[(&ParsedFile, &ParsedFile)],
    state: &DeclaredState,
    last_good: &mut LastGood,
) -> Option<DeclaredState> {
    if state.frozen != Frozen::default() {
        return None;
    }
    let mut amended = state.clone();
    for (before, after) in changes {
        let is_clean = before.diagnostics().is_empty() && after.diagnostics().is_empty();
        if !is_clean || before.documents.len() != after.documents.len() {
            return None;
        }
        for (old, new) in before.documents.iter().zip(&after.documents) {
            match (&old.content, &new.content) {
                (Declares::Twin(twin, old), Declares::Twin(same, new)) if twin == same && is_alike(old, new) => {
                    amended.twins.insert(twin.clone(), Arc::clone(new));
                }
                // Queries and profiles carry places, which other files' problems may name.
                _ if old == new => {}
                _ => return None,
            }
        }
    }
    last_good.replace(&amended.twins);
    Some(amended)
}

/// Whether two manifests differ in the values of their sections and in their places alone.
fn is_alike(before: &TwinManifest, after: &TwinManifest) -> bool {
    let exchanged = TwinManifest { wanted: after.wanted.clone(), source: after.source.clone(), ..before.clone() };
    if exchanged != *after {
        return false;
    }
    let (old, new) = (before.wanted.unpack(), after.wanted.unpack());
    (&old.initial_only, &old.sensitive) == (&new.initial_only, &new.sensitive)
        && has_same_keys(&old.tags, &new.tags)
        && has_same_keys(&old.desired, &new.desired)
}

/// Whether both have the same leaves, whatever these hold, and null where the other has it.
fn has_same_keys(before: &Object, after: &Object) -> bool {
    let is_same = |before: &Value, after: &Value| match (before, after) {
        (Value::Object(before), Value::Object(after)) => has_same_keys(before, after),
        (before, after) => {
            (before.as_object().is_none(), *before == Value::Null)
                == (after.as_object().is_none(), *after == Value::Null)
        }
    };
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| before.0 == after.0 && is_same(before.1, after.1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::{lower, parse_file};

    fn text(name: &str, labels: &str, spec: &str) -> String {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {spec}\n"
        )
    }

    /// What amending from one text of a file to another says, checked against lowering anew.
    fn is_amended(before: &str, after: &str, others: &[&str]) -> bool {
        let parse = |texts: &[&str]| -> BTreeMap<Arc<str>, Arc<ParsedFile>> {
            let file = |(index, text): (usize, &&str)| {
                let name: Arc<str> = format!("{index}.yaml").into();
                (Arc::clone(&name), Arc::new(parse_file(&name, text)))
            };
            texts.iter().enumerate().map(file).collect()
        };
        let files = |text| parse(&[&[text], others].concat());
        let (old_files, new_files) = (files(before), files(after));
        let old = lower(&old_files, &LastGood::default());
        let expected = lower(&new_files, &old.last_good);
        let mut last_good = old.last_good.clone();
        let amended = amend(&[(&old_files["0.yaml"], &new_files["0.yaml"])], &old.state, &mut last_good);
        if let Some(state) = &amended {
            assert_eq!((state, &last_good), (&expected.state, &expected.last_good));
            assert_eq!(expected.diagnostics, old.diagnostics);
        } else {
            assert_eq!(last_good, old.last_good);
        }
        amended.is_some()
    }

    #[test]
    fn values_alone_are_amended_and_everything_else_is_lowered() {
        let base = text("a", "p: x", "{tags: {l: {a: 1, b: [1]}}, properties: {desired: {v: 1}}}");
        let with = |spec: &str| text("a", "p: x", spec);
        let other = text("b", "", "{tags: {x: 1}}");
        for (after, expected) in [
            (with("{tags: {l: {a: 2, b: x}}, properties: {desired: {v: [2]}}}"), true),
            (format!("# moved\n\n{base}"), true),
            (with("{tags: {l: {a: 1, b: [1]}}, properties: {desired: {v: null}}}"), false),
            (with("{tags: {l: {a: 1, b: {}}}, properties: {desired: {v: 1}}}"), false),
            (with("{tags: {l: {a: 1}}, properties: {desired: {v: 1}}}"), false),
            (with("{create: true, tags: {l: {a: 1, b: [1]}}, properties: {desired: {v: 1}}}"), false),
            (with("{tags: {l: {a: 1, b: yes}}, properties: {desired: {v: 1}}}"), false),
            (text("a", "p: y", "{tags: {l: {a: 1, b: [1]}}, properties: {desired: {v: 1}}}"), false),
            (text("c", "p: x", "{tags: {l: {a: 1, b: [1]}}, properties: {desired: {v: 1}}}"), false),
            (format!("{base}---\n{}", text("c", "", "{tags: {x: 1}}")), false),
            ("spec: [".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_amended(&base, &after, &[&other]), expected, "{after}");
        }
        let changed = with("{tags: {l: {a: 2, b: [1]}}, properties: {desired: {v: 1}}}");
        assert!(!is_amended(&base, &changed, &["spec: ["]), "something is frozen");
        assert!(!is_amended(&base, &changed, &[&base]), "a twin is declared twice");
    }
}
