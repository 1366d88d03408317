//! Which twins have which tags: path and value to the keys of the twins, in order.
//!
//! Invariant: a twin stands under exactly the scalar leaves of its tags, strings of at most [`TEXT_BYTES_MAX`] among
//! them, unless the index gave a path up. It gives one up, and says so to whoever asks, when it would hold more than
//! `ENTRIES_MAX` entries; a wrong answer is never given instead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::twin::{Number, Object, Value};

/// The longest string that is looked up, in bytes; longer ones are rarely asked for and cost memory.
pub const TEXT_BYTES_MAX: usize = 128;
/// The most entries, one for each twin and leaf. An entry of a value that many twins share costs about 25 bytes, one
/// of a value of its own about 150.
const ENTRIES_MAX: usize = 20_000_000;
/// Between the names of a path; no name holds a control character (`iot-hub.md` section 4).
const SEPARATOR: char = '\0';

/// The tags of a collection of twins.
#[derive(Debug, Clone, Default)]
pub struct Index {
    paths: BTreeMap<Box<str>, Values>,
    entries: usize,
}

#[derive(Debug, Clone)]
enum Values {
    Known(BTreeMap<Scalar, Keys>),
    GivenUp,
}

/// A value that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scalar {
    Bool(bool),
    /// 1 and 1.0 are one.
    Integer(i64),
    /// The bits of a number that is no integer.
    Float(u64),
    Text(Box<str>),
}

/// The keys of some twins, in order.
#[derive(Debug, Clone)]
pub enum Keys {
    /// One twin; a set of one would take ten times the room.
    One(Arc<str>),
    /// Several.
    Many(BTreeSet<Arc<str>>),
}

/// What the index knows of a path and a value.
#[derive(Debug)]
pub enum Found<'i> {
    /// These twins have it, and no other.
    Keys(&'i Keys),
    /// No twin has it.
    Nothing,
    /// The index does not know; look at every twin.
    Unknown,
}

impl Keys {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(keys) => keys.len(),
        }
    }

    /// The first from `from` on.
    #[must_use]
    pub fn seek(&self, from: Bound<&str>) -> Option<&str> {
        match self {
            Self::One(key) => {
                let reached = match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => &**key >= from,
                    Bound::Excluded(from) => &**key > from,
                };
                reached.then_some(key)
            }
            Self::Many(keys) => keys.range::<str, _>((from, Bound::Unbounded)).next().map(AsRef::as_ref),
        }
    }

    fn insert(&mut self, key: &Arc<str>) {
        match self {
            Self::One(first) if first == key => {}
            Self::One(first) => *self = Self::Many(BTreeSet::from([Arc::clone(first), Arc::clone(key)])),
            Self::Many(keys) => {
                keys.insert(Arc::clone(key));
            }
        }
    }
}

impl Index {
    /// The twins whose tag at `path` (the names below `tags`) equals `value`.
    #[must_use]
    pub fn find(&self, path: &[String], value: &Value) -> Found<'_> {
        let Some(scalar) = scalar(value) else { return Found::Unknown };
        match self.paths.get(path.join("\0").as_str()) {
            None => Found::Nothing,
            Some(Values::GivenUp) => Found::Unknown,
            Some(Values::Known(values)) => values.get(&scalar).map_or(Found::Nothing, Found::Keys),
        }
    }

    /// The twin `key` had the tags `before` and has `after`.
    pub fn change(&mut self, key: &Arc<str>, before: Option<&Object>, after: Option<&Object>) {
        let nothing = Object::new();
        self.compare(&mut String::new(), key, before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    }

    fn compare(&mut self, path: &mut String, key: &Arc<str>, before: &Object, after: &Object) {
        for (name, old) in before {
            let new = after.get(name);
            if new != Some(old) {
                self.leaf_or_below(path, name, key, Some(old), new);
            }
        }
        for (name, new) in after {
            if !before.contains_key(name) {
                self.leaf_or_below(path, name, key, None, Some(new));
            }
        }
    }

    fn leaf_or_below(
        &mut self,
        path: &mut String,
        name: &str,
        key: &Arc<str>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        let length = path.len();
        if length > 0 {
            path.push(SEPARATOR);
        }
        path.push_str(name);
        if let Some(scalar) = old.and_then(scalar) {
            self.remove(path, &scalar, key);
        }
        if let Some(scalar) = new.and_then(scalar) {
            self.insert(path, scalar, key);
        }
        let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
        if old.is_some_and(is_object) || new.is_some_and(is_object) {
            self.compare(path, key, &object(old), &object(new));
        }
        path.truncate(length);
    }

    fn insert(&mut self, path: &str, scalar: Scalar, key: &Arc<str>) {
        if !self.paths.contains_key(path) {
            self.paths.insert(path.into(), Values::Known(BTreeMap::new()));
        }
        let Some(known) = self.paths.get_mut(path) else { return };
        let Values::Known(values) = known else { return };
        if self.entries >= ENTRIES_MAX {
            self.entries -= values.values().map(Keys::count).sum::<usize>();
            *known = Values::GivenUp;
            return;
        }
        self.entries += 1;
        values.entry(scalar).and_modify(|keys| keys.insert(key)).or_insert_with(|| Keys::One(Arc::clone(key)));
    }

    fn remove(&mut self, path: &str, scalar: &Scalar, key: &str) {
        let Some(Values::Known(values)) = self.paths.get_mut(path) else { return };
        let empty = match values.get_mut(scalar) {
            None => return,
            Some(Keys::One(_)) => true,
            Some(Keys::Many(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        self.entries -= 1;
        if empty {
            values.remove(scalar);
        }
        if values.is_empty() {
            self.paths.remove(path);
        }
    }
}

fn is_object(value: &Value) -> bool {
    value.as_object().is_some()
}

fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Bool(value) => Some(Scalar::Bool(*value)),
        Value::Number(number) => Some(match number.normalised() {
            Number::Integer(value) => Scalar::Integer(value),
            Number::Float(value) => Scalar::Float(value.to_bits()),
        }),
        Value::String(text) if text.len() <= TEXT_BYTES_MAX => Some(Scalar::Text(text.as_str().into())),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn all(index: &Index, path: &str, value: &str) -> Option<Vec<String>> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        match index.find(&path, &Value::parse_json(value).unwrap()) {
            Found::Unknown => None,
            Found::Nothing => Some(Vec::new()),
            Found::Keys(keys) => {
                let mut found: Vec<String> = Vec::new();
                while let Some(next) = keys.seek(found.last().map_or(Bound::Unbounded, |last| Bound::Excluded(last))) {
                    found.push(next.to_owned());
                }
                assert_eq!(found.len(), keys.count());
                Some(found)
            }
        }
    }

    #[test]
    fn twins_are_found_by_each_scalar_leaf() {
        let mut index = Index::default();
        let tags = object(r#"{"a":1,"b":{"c":"x","d":[1],"e":{}},"f":true}"#);
        for key in ["d2", "d1", "d3"] {
            index.change(&key.into(), None, Some(&tags));
        }
        for (path, value) in [("a", "1"), ("a", "1.0"), ("b.c", "\"x\""), ("f", "true")] {
            assert_eq!(all(&index, path, value), Some(vec!["d1".into(), "d2".into(), "d3".into()]), "{path} {value}");
        }
        for (path, value) in [("a", "2"), ("a", "\"1\""), ("b", "\"x\""), ("c", "\"x\""), ("f", "false")] {
            assert_eq!(all(&index, path, value), Some(vec![]), "{path} {value}");
        }
        for value in ["null", "[1]", "{}", &format!("\"{}\"", "x".repeat(TEXT_BYTES_MAX + 1))] {
            assert_eq!(all(&index, "a", value), None, "{value}");
        }
    }

    #[test]
    fn an_index_kept_up_over_changes_is_the_one_made_from_the_end() {
        let mut rng = fastrand::Rng::with_seed(5);
        let shapes = [
            r#"{"a":1,"b":{"c":"x","d":2}}"#,
            r#"{"a":"1","b":{"c":"y"}}"#,
            r#"{"a":{"c":1},"b":7}"#,
            r#"{"a":[1],"b":{"c":{"deep":false}}}"#,
            "{}",
        ];
        let mut index = Index::default();
        let mut twins: BTreeMap<Arc<str>, Object> = BTreeMap::new();
        for _ in 0..500 {
            let key: Arc<str> = format!("d{}", rng.u8(..12)).into();
            let after = rng.bool().then(|| object(shapes[rng.usize(..shapes.len())]));
            index.change(&key, twins.get(&key), after.as_ref());
            match after {
                Some(after) => twins.insert(key, after),
                None => twins.remove(&key),
            };
        }
        let mut fresh = Index::default();
        for (key, tags) in &twins {
            fresh.change(key, None, Some(tags));
        }
        let seen = |index: &Index| {
            let mut seen = Vec::new();
            for (path, value) in
                [("a", "1"), ("a", "\"1\""), ("a.c", "1"), ("b", "7"), ("b.c", "\"x\""), ("b.c.deep", "false")]
            {
                seen.push(all(index, path, value));
            }
            (seen, index.entries, index.paths.len())
        };
        assert_eq!(seen(&index), seen(&fresh));
        for key in twins.keys().cloned().collect::<Vec<_>>() {
            index.change(&key, twins.get(&key), None);
        }
        assert_eq!((index.entries, index.paths.len()), (0, 0));
    }

    #[test]
    fn a_full_index_gives_a_path_up_and_says_so() {
        let mut index = Index { entries: ENTRIES_MAX - 1, ..Index::default() };
        let tags = object(r#"{"a":1}"#);
        index.change(&"d1".into(), None, Some(&tags));
        assert_eq!(all(&index, "a", "1"), Some(vec!["d1".to_owned()]));
        index.change(&"d2".into(), None, Some(&tags));
        assert_eq!(all(&index, "a", "1"), None);
        assert_eq!(index.entries, ENTRIES_MAX - 1);
        index.change(&"d3".into(), None, Some(&tags));
        index.change(&"d1".into(), Some(&tags), None);
        assert_eq!(all(&index, "a", "1"), None);
    }
}
