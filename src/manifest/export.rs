//! Live twins back to manifests: what `geminid export` writes.
//!
//! Invariant: what is exported declares what stands at the hub, leaf by leaf, so a plan of it is empty. The hub's own
//! keys and every owner's seal are left out: a manifest may not declare them.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Leaf, ProfileTarget, SEAL_KEY, Subtree, leaves_of};
use crate::twin::{ModuleId, Object, Section, Twin, TwinRef, Value, Violation, check_section};

const API_VERSION: &str = "geminid.dev/v1alpha1";
/// The longest name of a profile, in characters, with room for what tells two of them apart.
const PROFILE_NAME_MAX: usize = 50;
/// The fewest twins that are worth a profile.
const MEMBERS_MIN: usize = 2;

/// A twin on its way into a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedTwin {
    /// Whose.
    pub twin: TwinRef,
    labels: BTreeMap<String, String>,
    sections: BTreeMap<Section, Object>,
}

/// The values that some twins share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedProfile {
    name: String,
    target: ProfileTarget,
    label: (String, String),
    sections: BTreeMap<Section, Object>,
}

impl ExportedTwin {
    /// Takes what can be declared of `live`, and says what a manifest could not hold.
    #[must_use]
    pub fn of(live: &Twin) -> (Self, Vec<Violation>) {
        let mut violations = Vec::new();
        let mut sections = BTreeMap::new();
        for section in Section::ALL {
            let mut object = live.section(section).clone();
            if section == Section::Tags {
                object.remove(SEAL_KEY);
            }
            without_hub_keys(&mut object);
            violations.extend(check_section(section, &object));
            sections.insert(section, object);
        }
        (Self { twin: live.twin_ref.clone(), labels: BTreeMap::new(), sections }, violations)
    }

    /// The manifest, as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let text = |text: &str| Value::from(text);
        let (kind, name) = match &self.twin.module {
            None => ("DeviceTwin", self.twin.device.as_str()),
            Some(module) => ("ModuleTwin", module.as_str()),
        };
        let mut metadata = Object::from([("name".to_owned(), text(name))]);
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            metadata.insert("labels".to_owned(), Value::Object(labels));
        }
        let mut spec = spec_of(&self.sections);
        if self.twin.module.is_some() {
            spec.insert("device".to_owned(), text(self.twin.device.as_str()));
        }
        document(kind, metadata, spec)
    }

    fn leaves(&self) -> BTreeMap<Leaf, &Value> {
        let mut found = BTreeMap::new();
        for (section, object) in &self.sections {
            for (path, value) in leaves_of(object) {
                found.insert(Leaf { section: *section, path }, value);
            }
        }
        found
    }

    fn value_at(&self, place: &Subtree) -> Option<&Value> {
        let mut value = self.sections.get(&place.section)?.get(place.path.keys().first()?)?;
        for key in &place.path.keys()[1..] {
            value = value.as_object()?.get(key)?;
        }
        Some(value)
    }
}

impl ExportedProfile {
    /// The manifest, as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let (label, value) = &self.label;
        let labels = Object::from([(label.clone(), Value::from(value.as_str()))]);
        let selector = Object::from([("matchLabels".to_owned(), Value::Object(labels))]);
        let mut spec = spec_of(&self.sections);
        spec.insert("target".to_owned(), Value::from(self.target.as_str()));
        spec.insert("selector".to_owned(), Value::Object(selector));
        document("TwinProfile", Object::from([("name".to_owned(), Value::from(self.name.as_str()))]), spec)
    }
}

/// Takes what all twins with one value at `by` have in common out of them and into profiles, one for each value. The
/// twins get a label with that value, named like the last key of `by`.
#[must_use]
pub fn factor_profiles(twins: &mut [ExportedTwin], by: &Subtree) -> Vec<ExportedProfile> {
    let Some(label) = by.path.keys().last() else { return Vec::new() };
    let mut groups: BTreeMap<(ProfileTarget, String), Vec<usize>> = BTreeMap::new();
    for (index, twin) in twins.iter_mut().enumerate() {
        let Some(value) = twin.value_at(by).and_then(label_text) else { continue };
        twin.labels.insert(label.clone(), value.clone());
        groups.entry((ProfileTarget::of(&twin.twin), value)).or_default().push(index);
    }
    let (mut names, mut profiles) = (BTreeSet::new(), Vec::new());
    for ((target, value), members) in groups {
        if members.len() < MEMBERS_MIN {
            continue;
        }
        let common = common_leaves(twins, &members);
        for index in members {
            common.keys().for_each(|leaf| remove(&mut twins[index].sections, leaf));
        }
        let mut sections: BTreeMap<Section, Object> = BTreeMap::new();
        common.into_iter().for_each(|(leaf, value)| insert(&mut sections, &leaf, value));
        let name = profile_name(&value, target, &mut names);
        profiles.push(ExportedProfile { name, target, label: (label.clone(), value), sections });
    }
    profiles
}

/// What a label can say of a value; `None` for lists, objects and texts that are none.
fn label_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn common_leaves(twins: &[ExportedTwin], members: &[usize]) -> BTreeMap<Leaf, Value> {
    let Some((first, rest)) = members.split_first() else { return BTreeMap::new() };
    let mut common: BTreeMap<Leaf, Value> =
        twins[*first].leaves().into_iter().map(|(leaf, value)| (leaf, value.clone())).collect();
    for index in rest {
        let leaves = twins[*index].leaves();
        // Equal numbers may be written differently; a text only one of them has must not be put on all.
        common.retain(|leaf, value| leaves.get(leaf).is_some_and(|other| *other == value));
    }
    common
}

fn remove(sections: &mut BTreeMap<Section, Object>, leaf: &Leaf) {
    fn remove_in(object: &mut Object, keys: &[String]) {
        let Some((first, below)) = keys.split_first() else { return };
        if below.is_empty() {
            object.remove(first);
        } else if let Some(Value::Object(inner)) = object.get_mut(first) {
            remove_in(inner, below);
            if inner.is_empty() {
                object.remove(first);
            }
        }
    }
    if let Some(object) = sections.get_mut(&leaf.section) {
        remove_in(object, leaf.path.keys());
    }
}

fn insert(sections: &mut BTreeMap<Section, Object>, leaf: &Leaf, value: Value) {
    fn insert_in(object: &mut Object, keys: &[String], value: Value) {
        let Some((first, below)) = keys.split_first() else { return };
        if below.is_empty() {
            object.insert(first.clone(), value);
        } else if let Value::Object(inner) = object.entry(first.clone()).or_insert_with(Value::empty_object) {
            insert_in(inner, below, value);
        }
    }
    insert_in(sections.entry(leaf.section).or_default(), leaf.path.keys(), value);
}

/// A name for the profile of a value: its letters and digits, and what makes it the only one.
fn profile_name(value: &str, target: ProfileTarget, taken: &mut BTreeSet<String>) -> String {
    let plain: String = value
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(PROFILE_NAME_MAX)
        .collect();
    let plain = plain.trim_matches('-');
    let base = match (plain, target) {
        ("", _) => target.as_str().to_owned(),
        (plain, ProfileTarget::Devices) => plain.to_owned(),
        (plain, ProfileTarget::Modules) => format!("{plain}-modules"),
    };
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = free.unwrap_or(base);
    taken.insert(name.clone());
    name
}

fn without_hub_keys(object: &mut Object) {
    object.retain(|key, _| !key.starts_with('$'));
    for value in object.values_mut() {
        if let Value::Object(inner) = value {
            without_hub_keys(inner);
        }
    }
}

fn spec_of(sections: &BTreeMap<Section, Object>) -> Object {
    let mut spec = Object::new();
    for (section, object) in sections.iter().filter(|(_, object)| !object.is_empty()) {
        let object = Value::Object(object.clone());
        match section {
            Section::Tags => spec.insert("tags".to_owned(), object),
            Section::Desired => {
                let desired = Object::from([("desired".to_owned(), object)]);
                spec.insert("properties".to_owned(), Value::Object(desired))
            }
        };
    }
    spec
}

fn document(kind: &str, metadata: Object, spec: Object) -> String {
    super::to_yaml(&Value::Object(Object::from([
        ("apiVersion".to_owned(), Value::from(API_VERSION)),
        ("kind".to_owned(), Value::from(kind)),
        ("metadata".to_owned(), Value::Object(metadata)),
        ("spec".to_owned(), Value::Object(spec)),
    ])))
}

/// Whether a manifest may name the twin at all: IoT Edge deployments own their two modules.
#[must_use]
pub fn can_be_declared(twin: &TwinRef) -> bool {
    !twin.module.as_ref().map(ModuleId::as_str).is_some_and(|module| super::twin_schema::EDGE_MODULES.contains(&module))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{LastGood, Severity, lower, parse_file};
    use crate::plan::{Owner, Permits, SealScope, declare, plan_twin};
    use crate::twin::{DeviceId, ETag};

    fn twin_ref(device: &str, module: Option<&str>) -> TwinRef {
        let device = DeviceId::new(device).unwrap();
        match module {
            None => TwinRef::device(device),
            Some(module) => TwinRef::module(device, ModuleId::new(module).unwrap()),
        }
    }

    fn live(twin_ref: TwinRef, tags: Object, desired: Object) -> Twin {
        let etag = ETag::new("AAAAAAAAAAE=").unwrap();
        let (reported, system) = (Object::new(), Object::new());
        Twin { twin_ref, etag, device_etag: None, version: 2, tags, desired, reported, system }
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    /// What is planned for each twin from these manifests; empty when nothing is.
    fn planned(documents: &[String], twins: &[Twin]) -> Vec<String> {
        let text = documents.join("---\n");
        let lowered = lower(&BTreeMap::from([("f".into(), Arc::new(parse_file("f", &text)))]), &LastGood::default());
        let mut found: Vec<String> = lowered
            .diagnostics
            .iter()
            .filter(|found| found.severity == Severity::Error || found.rule != "nothing-declared")
            .map(|found| format!("{found}\n{text}"))
            .collect();
        let scope = SealScope::new(Owner::new("demo").unwrap(), "hub");
        for twin in twins {
            let declaration = declare(&lowered.state, &twin.twin_ref, Some(twin));
            assert!(declaration.declared().is_some(), "{} is declared\n{text}", twin.twin_ref);
            let plan = plan_twin(&scope, &declaration, twin, &Permits::ALL);
            found.extend(plan.changes.iter().map(|change| format!("{change}\n{text}")));
            found.extend(plan.held.iter().map(|held| format!("{held}\n{text}")));
        }
        found
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z0-9.:#{}\\[\\],&*!|>'\"%@` -]{0,12}",
            any::<String>(),
            Just("yes".to_owned()),
            Just("1.10".to_owned()),
            Just("~".to_owned()),
            Just("\u{85}\u{2028}\u{feff}---\n...\n\t".to_owned()),
        ];
        let scalar = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-4_503_599_627_370_496_i64..4_503_599_627_370_496).prop_map(Value::from),
            any::<f64>().prop_filter_map("finite", |float| crate::twin::Number::from_f64(float).map(Value::Number)),
            text.prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                keyed(inner).prop_map(Value::Object),
            ]
        })
    }

    fn keyed(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Object> {
        let key =
            prop_oneof!["[a-c]", "[0-9~<:{}\\[\\]?,*&!|>'\"%@`=/\\\\-]{1,3}", Just("on".to_owned()), "[ßΩ-]{1,2}"];
        proptest::collection::btree_map(key, inner, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_exported_plans_nothing(
            sections in proptest::collection::vec((keyed(value()), keyed(value()), 0_u8..3), 1..5),
            by in any::<bool>(),
        ) {
            let twins: Vec<Twin> = sections.into_iter().enumerate().map(|(index, (mut tags, desired, plant))| {
                tags.insert("plant".to_owned(), [Value::from("R 43"), Value::from(1), Value::from("1")][usize::from(plant)].clone());
                tags.insert(SEAL_KEY.to_owned(), Value::Object(object(r#"{"other":{"v":1,"o":[]}}"#)));
                let module = (index % 2 == 1).then_some("m");
                live(twin_ref(&format!("d{}", index / 2), module), tags, desired)
            }).collect();
            let mut exported: Vec<ExportedTwin> = twins.iter().map(|live| ExportedTwin::of(live).0).collect();
            let place = Subtree::parse("tags.plant").unwrap();
            let profiles = if by { factor_profiles(&mut exported, &place) } else { Vec::new() };
            let documents: Vec<String> =
                profiles.iter().map(ExportedProfile::to_yaml).chain(exported.iter().map(ExportedTwin::to_yaml)).collect();
            prop_assert_eq!(planned(&documents, &twins), Vec::<String>::new());
        }
    }

    #[test]
    fn the_hub_s_keys_and_every_seal_are_left_out() {
        let tags = object(r#"{"a":{"$metadata":1,"b":2},"geminid":{"x":{"v":1}},"$etag":3}"#);
        let twin = live(twin_ref("edge", Some("m")), tags, object(r#"{"$version":4,"p":[1,{"q":"r"}]}"#));
        let (exported, violations) = ExportedTwin::of(&twin);
        assert_eq!(violations, []);
        insta::assert_snapshot!(exported.to_yaml(), @r"
        apiVersion: geminid.dev/v1alpha1
        kind: ModuleTwin
        metadata:
          name: m
        spec:
          device: edge
          properties:
            desired:
              p: [1, {q: r}]
          tags:
            a:
              b: 2
        ");
        assert!(!can_be_declared(&twin_ref("edge", Some("$edgeAgent"))) && can_be_declared(&twin_ref("edge", None)));
    }

    #[test]
    fn what_twins_of_a_plant_share_is_said_once() {
        let twin = |device: &str, line: u8| {
            let tags = object(&format!(r#"{{"location":{{"plant":"Redmond 43","region":"US"}},"line":{line}}}"#));
            live(twin_ref(device, None), tags, object(r#"{"interval":60}"#))
        };
        let mut exported = [twin("a", 1), twin("b", 2)].map(|live| ExportedTwin::of(&live).0);
        let profiles = factor_profiles(&mut exported, &Subtree::parse("tags.location.plant").unwrap());
        let texts: Vec<String> = profiles.iter().map(ExportedProfile::to_yaml).chain([exported[0].to_yaml()]).collect();
        insta::assert_snapshot!(texts.join("---\n"), @r#"
        apiVersion: geminid.dev/v1alpha1
        kind: TwinProfile
        metadata:
          name: redmond-43
        spec:
          properties:
            desired:
              interval: 60
          selector:
            matchLabels:
              plant: "Redmond 43"
          tags:
            location:
              plant: "Redmond 43"
              region: US
          target: devices
        ---
        apiVersion: geminid.dev/v1alpha1
        kind: DeviceTwin
        metadata:
          labels:
            plant: "Redmond 43"
          name: a
        spec:
          tags:
            line: 1
        "#);
    }
}
