//! JSON merge patches (RFC 7386), the hub's way of writing twins (`iot-hub.md` 2.3).

use super::{Object, Section, Value};

/// A patch of a twin: what changes in `tags` and in `properties.desired`. A section that does not change is not
/// sent at all; the hub then leaves it, and its version, alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergePatch {
    /// The change of `tags`, if any.
    pub tags: Option<Object>,
    /// The change of `properties.desired`, if any.
    pub desired: Option<Object>,
}

impl MergePatch {
    /// Whether the patch would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tags.is_none() && self.desired.is_none()
    }

    /// The change of one section, if any.
    #[must_use]
    pub fn section(&self, section: Section) -> Option<&Object> {
        match section {
            Section::Tags => self.tags.as_ref(),
            Section::Desired => self.desired.as_ref(),
        }
    }

    /// Sets the value at `keys` in the patch of `section`; [`Value::Null`] deletes. Objects on the way are made.
    ///
    /// # Panics
    /// When `keys` is empty: a patch cannot replace a whole section (`iot-hub.md` 2.3).
    pub fn set(&mut self, section: Section, keys: &[String], value: Value) {
        let object = match section {
            Section::Tags => self.tags.get_or_insert_default(),
            Section::Desired => self.desired.get_or_insert_default(),
        };
        set_in(object, keys, value);
    }
}

fn set_in(object: &mut Object, keys: &[String], value: Value) {
    let (first, below) = keys.split_first().expect("a change has at least one key");
    if below.is_empty() {
        object.insert(first.clone(), value);
        return;
    }
    let slot = object.entry(first.clone()).or_insert_with(Value::empty_object);
    if slot.as_object().is_none() {
        *slot = Value::empty_object();
    }
    if let Value::Object(inner) = slot {
        set_in(inner, below, value);
    }
}

/// `target` after the merge patch `patch` (RFC 7386): nulls delete, objects merge, anything else replaces. As on a
/// hub, a null inside a new object is dropped and the object stays, even empty (`iot-hub.md` 2.3).
#[must_use]
pub fn merge(target: Value, patch: &Object) -> Value {
    let mut object = match target {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Object::new(),
    };
    for (key, change) in patch {
        match change {
            Value::Null => {
                object.remove(key);
            }
            Value::Object(inner) => {
                let before = object.remove(key).unwrap_or_else(Value::empty_object);
                object.insert(key.clone(), merge(before, inner));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                object.insert(key.clone(), change.clone());
            }
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::parse_json(text).unwrap()
    }

    fn check(target: &str, patch: &str, result: &str) {
        let patch = json(patch);
        let merged = merge(json(target), patch.as_object().unwrap());
        assert_eq!(merged.to_string(), result, "{target} + {patch}");
    }

    #[test]
    fn the_examples_of_rfc_7386_hold() {
        check(r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        check(r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#);
        check(r#"{"a":"b"}"#, r#"{"a":null}"#, "{}");
        check(r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#);
        check(r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
        check(r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#);
        check(r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#);
        check(r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
        check(r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#);
        check("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#);
        check("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#);
    }

    #[test]
    fn the_hub_s_own_cases_hold() {
        check(r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#);
        check(r#"{"a":1}"#, r#"{"x":null}"#, r#"{"a":1}"#);
        check(r#"{"a":1}"#, r#"{"a":{"b":2}}"#, r#"{"a":{"b":2}}"#);
        check(r#"{"a":{"b":2}}"#, r#"{"a":{}}"#, r#"{"a":{"b":2}}"#);
    }

    #[test]
    fn a_patch_collects_changes_into_one_tree_per_section() {
        let mut patch = MergePatch::default();
        assert!(patch.is_empty());
        patch.set(Section::Tags, &["a".to_owned(), "b".to_owned()], Value::from(1));
        patch.set(Section::Tags, &["a".to_owned(), "c".to_owned()], Value::Null);
        assert_eq!(Value::Object(patch.tags.clone().unwrap()).to_string(), r#"{"a":{"b":1,"c":null}}"#);
        assert_eq!(patch.section(Section::Desired), None);
    }
}
