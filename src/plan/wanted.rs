//! What a manifest wants in a twin, as values and in the few bytes in which a fleet of them is kept.
//!
//! Invariant: packing loses nothing: what comes out is what went in, the order and place of every leaf included.

use std::fmt;

use super::declare::leaves_of;
use super::{FileSpan, Leaf, Subtree};
use crate::twin::{Object, Section, Value};

/// Where each leaf of a manifest stands in its file: line and column, in the order of the leaves of `tags` and then of
/// `properties.desired`.
pub type LeafPlaces = Box<[(u32, u32)]>;

/// What a manifest wants in a twin. A null leaf means: ours, and must not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// `spec.tags`.
    pub tags: Object,
    /// `spec.properties.desired`.
    pub desired: Object,
    /// `spec.initialOnly`: leaves beneath are set when absent and never corrected.
    pub initial_only: Vec<Subtree>,
    /// `spec.sensitive`: values beneath are shown as salted hashes.
    pub sensitive: Vec<Subtree>,
    /// Where the leaves stand; empty when nobody knows, then the document's own place counts.
    pub places: LeafPlaces,
}

impl Wanted {
    /// Each leaf with its value and its place in the file; `source` is the document's own place.
    pub fn leaves<'a>(&'a self, source: &'a FileSpan) -> impl Iterator<Item = (Leaf, &'a Value, FileSpan)> {
        let leaves = Section::ALL.into_iter().flat_map(|section| {
            leaves_of(self.section(section)).into_iter().map(move |(path, value)| (Leaf { section, path }, value))
        });
        leaves.enumerate().map(|(index, (leaf, value))| {
            let place = self.places.get(index).map_or_else(
                || source.clone(),
                |(line, column)| FileSpan { file: source.file.clone(), line: *line as usize, column: *column as usize },
            );
            (leaf, value, place)
        })
    }

    /// A section.
    #[must_use]
    pub fn section(&self, section: Section) -> &Object {
        match section {
            Section::Tags => &self.tags,
            Section::Desired => &self.desired,
        }
    }
}

/// A [`Wanted`] in one piece of memory: a fleet has a million of them, and each is looked at seldom.
///
/// ```text
///   count  (line, column) ...      [{tags},{desired}]  or  [{tags},{desired},["initialOnly"..],["sensitive"..]]
///   \__ LEB128, lines as steps __/ \____________________ JSON ______________________________________________/
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PackedWanted(Box<[u8]>);

/// The JSON of a manifest that declares no leaf begins so.
const NO_LEAF: &[u8] = b"[{},{}";

impl PackedWanted {
    /// What was packed.
    #[must_use]
    pub fn unpack(&self) -> Wanted {
        if self.0.is_empty() {
            return Wanted::default();
        }
        let (places, json) = self.parts();
        let Ok(text) = std::str::from_utf8(json) else { unreachable!("only JSON text was packed") };
        let Ok(Value::Array(parts)) = Value::parse_json(text) else { unreachable!("only a JSON array was packed") };
        let mut parts = parts.into_iter();
        let mut object = || match parts.next() {
            Some(Value::Object(object)) => object,
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => {
                unreachable!("both sections were packed as objects")
            }
        };
        let (tags, desired) = (object(), object());
        let mut subtrees = || subtrees_of(parts.next());
        let (initial_only, sensitive) = (subtrees(), subtrees());
        Wanted { tags, desired, initial_only, sensitive, places }
    }

    /// Whether no leaf is declared at all.
    #[must_use]
    pub fn declares_nothing(&self) -> bool {
        self.0.is_empty() || self.parts().1.starts_with(NO_LEAF)
    }

    fn parts(&self) -> (LeafPlaces, &[u8]) {
        let mut bytes = Bytes(&self.0);
        let count = bytes.number();
        let mut line = 0_u32;
        let places = (0..count).map(|_| {
            line = line.wrapping_add(bytes.number());
            (line, bytes.number())
        });
        (places.collect(), bytes.0)
    }
}

impl From<Wanted> for PackedWanted {
    fn from(wanted: Wanted) -> Self {
        if wanted == Wanted::default() {
            return Self::default();
        }
        let mut bytes = Vec::new();
        put_number(&mut bytes, u32::try_from(wanted.places.len()).expect("a section has at most 32 KiB"));
        let mut above = 0_u32;
        for (line, column) in &wanted.places {
            // A step upwards wraps around; sections stand in either order.
            put_number(&mut bytes, line.wrapping_sub(above));
            put_number(&mut bytes, *column);
            above = *line;
        }
        let mut parts = vec![Value::Object(wanted.tags), Value::Object(wanted.desired)];
        if !wanted.initial_only.is_empty() || !wanted.sensitive.is_empty() {
            let texts = |subtrees: &[Subtree]| {
                Value::Array(subtrees.iter().map(|subtree| Value::String(subtree.to_string())).collect())
            };
            parts.extend([texts(&wanted.initial_only), texts(&wanted.sensitive)]);
        }
        bytes.extend(Value::Array(parts).to_string().into_bytes());
        Self(bytes.into())
    }
}

impl fmt::Debug for PackedWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}

fn subtrees_of(texts: Option<Value>) -> Vec<Subtree> {
    let Some(Value::Array(texts)) = texts else { return Vec::new() };
    let parse = |text: &Value| Subtree::parse(text.as_str()?).ok();
    texts.iter().filter_map(parse).collect()
}

/// LEB128: seven bits a byte, the lowest first.
fn put_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(low_byte(number) | 0x80);
        number >>= 7;
    }
    bytes.push(low_byte(number));
}

fn low_byte(number: u32) -> u8 {
    number.to_le_bytes()[0] & 0x7F
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&mut self) -> u32 {
        let mut number = 0_u32;
        for shift in (0..32).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            number |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::twin::Number;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter_map("finite", |float| Number::from_f64(float).map(Value::Number)),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(Value::Object),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Object> {
        proptest::collection::btree_map("[a-zä\"\\\\]{1,4}", value(), 0..4)
    }

    fn subtrees() -> impl Strategy<Value = Vec<Subtree>> {
        let subtree = "(tags|properties\\.desired)(\\.[a-z]{1,3}){0,3}";
        proptest::collection::vec(subtree.prop_map(|text| Subtree::parse(&text).unwrap()), 0..3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Values, kinds of numbers and places included: `1.0` stays `1.0`.
        #[test]
        fn what_is_packed_comes_out_as_it_went_in(
            (tags, desired) in (object(), object()),
            (initial_only, sensitive) in (subtrees(), subtrees()),
            places in proptest::collection::vec(any::<(u32, u32)>(), 0..5),
        ) {
            let wanted = Wanted { tags, desired, initial_only, sensitive, places: places.into() };
            let packed = PackedWanted::from(wanted.clone());
            prop_assert_eq!(packed.declares_nothing(), wanted.tags.is_empty() && wanted.desired.is_empty());
            prop_assert_eq!(format!("{packed:?}"), format!("{wanted:?}"));
            prop_assert_eq!(packed.unpack(), wanted);
        }
    }

    #[test]
    fn three_leaves_take_about_the_bytes_of_their_json() {
        let (tags, desired) = (r#"{"location":{"plant":"Redmond43"},"serial":"SN-0000001"}"#, r#"{"power_level":1}"#);
        let object = |json: &str| Value::parse_json(json).unwrap().as_object().unwrap().clone();
        let places = [(1510, 7), (1511, 5), (1514, 7)].into();
        let wanted = Wanted { tags: object(tags), desired: object(desired), places, ..Wanted::default() };
        // A count, a line and a column, two steps and columns; brackets and a comma.
        assert_eq!(PackedWanted::from(wanted).0.len(), 1 + 3 + 2 + 2 + 3 + tags.len() + desired.len());
    }
}
