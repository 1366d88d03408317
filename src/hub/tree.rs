//! JSON of the hub straight into values, without a tree of the parser's own in between: half of what reading a twin costs.
//!
//! Invariant: what is read is what `Value::from_json` makes of the same text, but for the `$metadata` of a twin's sections
//! where the caller has no use for it; that is passed over without a value being made.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::twin::{Number, Object, Value};

/// The times of the last changes, as large as all values together.
pub(super) const METADATA: &str = "$metadata";

/// Where in a document a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The twin itself, whose sections lose their metadata.
    Twin,
    Properties,
    Section,
    /// Wherever everything is kept.
    Inside,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Twin, "tags") | (Self::Properties, _) => Self::Section,
            (Self::Twin, "properties") => Self::Properties,
            (Self::Twin | Self::Section | Self::Inside, _) => Self::Inside,
        }
    }
}

/// The value of `body`.
///
/// # Errors
/// What `serde_json` says of text that is not JSON, or is nested too deeply.
pub(super) fn value(body: &[u8]) -> Result<Value, serde_json::Error> {
    read(body, Place::Inside)
}

/// The same of a twin, without the `$metadata` of its sections.
///
/// # Errors
/// As [`value`].
pub(super) fn without_metadata(body: &[u8]) -> Result<Value, serde_json::Error> {
    read(body, Place::Twin)
}

fn read(body: &[u8], place: Place) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = place.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(Number::Integer(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        // Beyond 64 signed bits only a float is left; the hub itself refuses integers above 2^52.
        let number = i64::try_from(value).map_or_else(|_| Number::Float(beyond_integers(value)), Number::Integer);
        Ok(Value::Number(number))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(Number::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self::Inside)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(key) = fields.next_key::<String>()? {
            if self == Self::Section && key == METADATA {
                fields.next_value::<IgnoredAny>()?;
            } else {
                let value = fields.next_value_seed(self.below(&key))?;
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest float is what a JSON number of this size is")]
fn beyond_integers(value: u64) -> f64 {
    value as f64
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
        assert_eq!(without_metadata(text.as_bytes()).unwrap(), oracle(kept).unwrap());
        assert!(without_metadata(br#"{"tags":{"$metadata":{"a":}}}"#).is_err(), "what is passed over must be JSON");
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
