//! Properties of manifest, profiles and live twin together: from declared state to the second plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::twin::{DeviceId, ETag, Object, Section, Twin, TwinRef, Value};

const OWN: &str = "own.yaml";

/// One profile: its priority, whether it selects the twin, and what it wants.
#[derive(Debug, Clone)]
struct Part {
    priority: i64,
    selects: bool,
    desired: Object,
}

fn place(file: &str) -> FileSpan {
    FileSpan { file: file.into(), line: 1, column: 1 }
}

fn twin_ref() -> TwinRef {
    TwinRef::device(DeviceId::new("d").unwrap())
}

/// Trees over few keys, so that layers meet, lie above and below one another.
fn tree() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        3 => (0_i64..3).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(Value::empty_object()),
        1 => vec((0_i64..2).prop_map(Value::from), 0..2).prop_map(Value::Array),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| btree_map("[a-c]", inner, 1..3).prop_map(Value::Object));
    btree_map("[a-d]", value, 0..4)
}

/// A section as a hub keeps it: without nulls.
fn live_tree() -> impl Strategy<Value = Object> {
    fn strip(object: Object) -> Object {
        let keep = |(key, value)| match value {
            Value::Null => None,
            Value::Object(inner) => Some((key, Value::Object(strip(inner)))),
            value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => Some((key, value)),
        };
        object.into_iter().filter_map(keep).collect()
    }
    tree().prop_map(strip)
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = (-2_i64..3, any::<bool>(), tree());
    vec(part.prop_map(|(priority, selects, desired)| Part { priority, selects, desired }), 0..4)
}

fn state(own: Option<&Object>, parts: &[Part]) -> DeclaredState {
    let labels = [("p".to_owned(), "1".to_owned())];
    let manifest = |own: &Object| {
        let wanted = Wanted { desired: own.clone(), ..Wanted::default() };
        let labels = labels.clone().into_iter().collect();
        TwinManifest {
            wanted: wanted.into(),
            labels,
            removal_policy: RemovalPolicy::Clear,
            ..TwinManifest::empty(place(OWN))
        }
    };
    let profile = |(index, part): (usize, &Part)| {
        let value = if part.selects { "1" } else { "2" };
        Arc::new(Profile {
            name: format!("p{index}"),
            target: ProfileTarget::Devices,
            priority: part.priority,
            selector: Selector {
                match_labels: BTreeMap::from([("p".to_owned(), value.to_owned())]),
                ..Selector::default()
            },
            removal_policy: None,
            wanted: Wanted { desired: part.desired.clone(), ..Wanted::default() },
            source: place(&format!("p{index}.yaml")),
        })
    };
    let mut profiles: Vec<_> = parts.iter().enumerate().map(profile).collect();
    profiles.sort_by(|one, other| (other.priority, &one.name).cmp(&(one.priority, &other.name)));
    let twins = own.map(|own| (twin_ref(), Arc::new(manifest(own)))).into_iter().collect();
    DeclaredState { twins, profiles, ..DeclaredState::default() }
}

fn live(desired: Object) -> Twin {
    Twin {
        twin_ref: twin_ref(),
        etag: ETag::new("AAAAAAAAAAE=").unwrap(),
        device_etag: Some("MQ==".to_owned()),
        version: 2,
        tags: Object::new(),
        desired,
        reported: Object::new(),
        system: Object::new(),
    }
}

fn planned(state: &DeclaredState, live: &Twin) -> (Declaration, TwinPlan) {
    let scope = SealScope::new(Owner::new("demo").unwrap(), "hub.example");
    let declaration = declare(state, &twin_ref(), Some(live));
    let plan = plan_twin(&scope, &declaration, live, &Permits::ALL);
    (declaration, plan)
}

fn applied(live: &Twin, plan: &TwinPlan) -> Twin {
    let Some(patch) = &plan.patch else { return live.clone() };
    Twin {
        tags: live.section_after(Section::Tags, patch),
        desired: live.section_after(Section::Desired, patch),
        etag: next_etag(&live.etag).unwrap(),
        ..live.clone()
    }
}

fn leaves(object: &Object) -> BTreeMap<Leaf, Value> {
    let leaf = |(path, value): (_, &Value)| (Leaf { section: Section::Desired, path }, value.clone());
    leaves_of(object).into_iter().map(leaf).collect()
}

fn related(one: &Leaf, other: &Leaf) -> bool {
    one.path.covers(&other.path) || other.path.covers(&one.path)
}

/// Who sets what, found the slow way: a leaf counts when no layer of higher rank sets a path related to it.
fn expected(own: &Object, parts: &[Part]) -> BTreeMap<Leaf, (Value, String)> {
    let own_layer = (i64::MAX, OWN.to_owned(), leaves(own));
    let selected = parts.iter().enumerate().filter(|(_, part)| part.selects);
    let profiles = selected.map(|(index, part)| (part.priority, format!("p{index}.yaml"), leaves(&part.desired)));
    let mut layers: Vec<_> = std::iter::once(own_layer).chain(profiles).collect();
    layers.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
    let mut found: BTreeMap<Leaf, (i64, Value, String)> = BTreeMap::new();
    for (rank, file, leaves) in layers {
        for (leaf, value) in leaves {
            let is_covered = found.iter().any(|(above, (other, ..))| *other > rank && related(above, &leaf));
            if !is_covered {
                found.entry(leaf).or_insert((rank, value, file.clone()));
            }
        }
    }
    found.into_iter().map(|(leaf, (_, value, file))| (leaf, (value, file))).collect()
}

fn is_satisfied(value: &Value, live: Option<&Value>) -> bool {
    match value {
        Value::Null => live.is_none(),
        Value::Object(_) => live.is_some_and(|live| live.as_object().is_some()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => live == Some(value),
    }
}

fn at<'a>(desired: &'a Object, leaf: &Leaf) -> Option<&'a Value> {
    let (first, below) = leaf.path.keys().split_first()?;
    desired.get(first)?.get(below.iter().map(String::as_str))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_leaf_is_the_highest_layer_s_and_says_so(own in tree(), parts in parts()) {
        let (declaration, _) = planned(&state(Some(&own), &parts), &live(Object::new()));
        let expected = expected(&own, &parts);
        match declaration {
            Declaration::Declared(declared) => {
                let found: BTreeMap<Leaf, (Value, String)> = declared.leaves.into_iter()
                    .map(|(leaf, want)| (leaf, (want.value, want.source.file.to_string()))).collect();
                prop_assert_eq!(found, expected);
            }
            Declaration::Tied(tie) => {
                let ((one, leaf, _), (other, rival, _)) = (&tie.one, &tie.other);
                prop_assert!(one != other && related(leaf, rival));
                let priority = |name: &str| parts[name[1..].parse::<usize>().unwrap()].priority;
                prop_assert_eq!((priority(one), priority(other)), (tie.priority, tie.priority));
            }
            other @ (Declaration::Kept(..)
            | Declaration::Broken(_)
            | Declaration::Incomplete(_)
            | Declaration::Left(_)
            | Declaration::Absent) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_plan_brings_about_what_layers_declare_moves_nothing_else_and_is_the_last(
        own in tree(), parts in parts(), foreign in live_tree(),
    ) {
        let state = state(Some(&own), &parts);
        let before = live(foreign);
        let (declaration, first) = planned(&state, &before);
        let after = applied(&before, &first);
        prop_assert_eq!(planned(&state, &after).1.patch, None);
        let Some(declared) = declaration.declared() else {
            prop_assert_eq!((first.patch, first.changes), (None, Vec::new()), "who is tied is left alone");
            return Ok(());
        };
        for change in &first.changes {
            prop_assert_eq!(change.source.as_ref(), Some(&declared.leaves[&change.leaf].source));
        }
        for (leaf, want) in &declared.leaves {
            let is_held = first.held.iter().any(|_| true);
            prop_assert!(is_held || is_satisfied(&want.value, at(&after.desired, leaf)), "{}", leaf);
        }
        // First contact owns nothing: what nobody declares stays, unless a declared leaf fills an empty object.
        for (leaf, value) in leaves(&before.desired) {
            let is_filled = value == Value::empty_object();
            if !declared.leaves.contains_key(&leaf) && !is_filled {
                prop_assert_eq!(at(&after.desired, &leaf), Some(&value), "{}", leaf);
            }
        }
    }

    #[test]
    fn what_profiles_stop_declaring_goes_and_what_others_wrote_stays(
        own in tree(), first in parts(), then in parts(), foreign in (0_i64..9),
    ) {
        let (before, after) = (state(Some(&own), &first), state(Some(&own), &then));
        // A key that no layer uses.
        let theirs = Object::from([("z".to_owned(), Value::from(foreign))]);
        let start = live(theirs);
        let one = applied(&start, &planned(&before, &start).1);
        let (declaration, plan) = planned(&after, &one);
        let two = applied(&one, &plan);
        prop_assert_eq!(two.desired.get("z"), Some(&Value::from(foreign)));
        prop_assert_eq!(planned(&after, &two).1.patch, None);
        if let (Some(declared), true) = (declaration.declared(), plan.held.is_empty()) {
            for leaf in leaves(&two.desired).into_keys().filter(|leaf| leaf.path.keys()[0] != "z") {
                let is_wanted = declared.leaves.keys().any(|wanted| related(wanted, &leaf));
                prop_assert!(is_wanted, "{} is left over", leaf);
            }
        }
    }
}
