//! JSON of the hub straight into values.
//!
//! Invariant: what is read is what `Value::from_json` makes of the same text, but for the `$metadata` of a twin's sections
//! where the caller has no use for it; that is passed over without a value being made.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{
    Deserialize as _, DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess,
    Visitor,
};

use crate::twin::{Object, Value};

/// The times of the last changes, as large as all values together.
pub(super) const METADATA: &str = "$metadata";

/// The fields of a twin that a trace is made of, beside its tags.
const TRACED: [&str; 5] = ["deviceId", "moduleId", "etag", "deviceEtag", "version"];

/// Where in a twin a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'k> {
    /// The twin itself, whose sections lose their metadata.
    Twin,
    Properties,
    Section,
    /// The twin itself, of which only the trace with the tag of this name is kept.
    Traced(&'k str),
    /// An object of which only this key is kept.
    Only(&'k str),
}

/// What becomes of a value.
enum Use<'k> {
    Keep,
    Drop,
    Within(Place<'k>),
}

impl<'k> Place<'k> {
    /// What becomes of the value of `key`.
    fn below(self, key: &str) -> Use<'k> {
        match (self, key) {
            (Self::Twin, "tags") | (Self::Properties, _) => Use::Within(Self::Section),
            (Self::Twin, "properties") => Use::Within(Self::Properties),
            (Self::Section, METADATA) => Use::Drop,
            (Self::Twin | Self::Section, _) => Use::Keep,
            (Self::Traced(tag), "tags") => Use::Within(Self::Only(tag)),
            (Self::Traced(_), key) if TRACED.contains(&key) => Use::Keep,
            (Self::Only(kept), key) if key == kept => Use::Keep,
            (Self::Traced(_) | Self::Only(_), _) => Use::Drop,
        }
    }
}

/// The value of `body`.
///
/// # Errors
/// What `serde_json` says of text that is not JSON, or is nested too deeply.
pub(super) fn value(body: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(body)
}

/// The same of the text of a twin, without the `$metadata` of its sections.
///
/// # Errors
/// As [`value`].
pub(super) fn without_metadata(text: &str) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Place::Twin.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// The same of the body of a twin, with no more in it than a trace is made of, and of the tags `tag` alone.
///
/// # Errors
/// As [`value`].
pub(super) fn trace(body: &[u8], tag: &str) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = Place::Traced(tag).deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Only an object is read in another way than any value.
impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Value::deserialize(().into_deserializer())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Value::deserialize(value.into_deserializer())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Value::deserialize(value.into_deserializer())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Value::deserialize(value.into_deserializer())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Value::deserialize(value.into_deserializer())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Value::deserialize(value.into_deserializer())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(key) = fields.next_key::<String>()? {
            let value = match self.below(&key) {
                Use::Within(place) => fields.next_value_seed(place)?,
                Use::Keep => fields.next_value()?,
                Use::Drop => {
                    fields.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was read before: the parser's own tree, taken over.
    fn oracle(text: &str) -> Result<Value, String> {
        serde_json::from_str(text).map(Value::from_json).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_json_is_read_as_the_parser_s_tree_says() {
        for text in [
            "null",
            "true",
            "-1",
            "1",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "1.5",
            "1e400",
            "\"a\\u00e9\\n\"",
            "[]",
            "{}",
            "[1,[2,{}]]",
            r#"{"b":1,"a":{"c":[null]},"b":2}"#,
            r#"{"$metadata":{"a":1},"tags":{"$metadata":{"b":2}}}"#,
            "",
            "{",
            "[1,]",
            "1 2",
            "{\"a\":1}x",
            "nul",
            "{1:2}",
        ] {
            assert_eq!(value(text.as_bytes()).map_err(|error| error.to_string()), oracle(text), "{text}");
        }
    }

    #[test]
    fn only_the_metadata_of_sections_is_passed_over() {
        let text = r#"{"$metadata":1,"a":{"$metadata":2},"tags":{"$metadata":3,"b":{"$metadata":4}},
            "properties":{"$metadata":{"$metadata":5,"x":6},"desired":{"$metadata":{"c":[7]},"d":{"$metadata":8}},
            "reported":{"e":9,"$metadata":{}}}}"#;
        let kept = r#"{"$metadata":1,"a":{"$metadata":2},"tags":{"b":{"$metadata":4}},
            "properties":{"$metadata":{"x":6},"desired":{"d":{"$metadata":8}},"reported":{"e":9}}}"#;
        assert_eq!(without_metadata(text).unwrap(), oracle(kept).unwrap());
        assert!(without_metadata(r#"{"tags":{"$metadata":{"a":}}}"#).is_err(), "what is passed over must be JSON");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(value(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn any_text_gives_what_the_parser_s_tree_gives(text in r#"[\[\]{}:,"a-c0-9.eE \-\\u]{0,40}"#) {
            prop_assert_eq!(value(text.as_bytes()).map_err(|error| error.to_string()), oracle(&text));
        }
    }
}
