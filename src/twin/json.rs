//! Values to JSON and back in one pass, with no tree of the parser's own in between: half of what reading a twin costs.
//!
//! Invariant: what is read is what `Value::from_json` makes of the same text, but for the `$metadata` of a twin's sections
//! where the caller has no use for it; that is passed over without a value being made. What is written is what
//! `Value::to_json` would write.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::document::Twin;
use super::value::{Number, Object, Value};

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(Number::Integer(value)) => serializer.serialize_i64(*value),
            Self::Number(Number::Float(value)) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(object) => serializer.collect_map(object),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Place::Inside.deserialize(deserializer)
    }
}

impl Value {
    /// The twin that `text` is, without the `$metadata` of its sections.
    ///
    /// # Errors
    /// What `serde_json` says of text that is not JSON, or is nested too deeply.
    pub fn parse_twin_without_metadata(text: &str) -> Result<Self, serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let value = Place::Twin.deserialize(&mut parser)?;
        parser.end()?;
        Ok(value)
    }

    /// The same of the body of a twin, with no more in it than a [`TwinTrace`](super::TwinTrace) is made of: of the tags
    /// `tag` alone.
    ///
    /// # Errors
    /// As [`parse_twin_without_metadata`](Self::parse_twin_without_metadata).
    pub fn parse_trace(body: &[u8], tag: &str) -> Result<Self, serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_slice(body);
        let value = Place::Traced(tag).deserialize(&mut parser)?;
        parser.end()?;
        Ok(value)
    }
}

/// The fields of a twin that a trace is made of, beside its tags.
const TRACED: [&str; 5] = ["deviceId", "moduleId", "etag", "deviceEtag", "version"];

/// Where in a document a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'k> {
    /// The twin itself, whose sections lose their metadata.
    Twin,
    Properties,
    Section,
    /// Wherever everything is kept.
    Inside,
    /// The twin itself, of which only the trace with the tag of this name is kept.
    Traced(&'k str),
    /// An object of which only this key is kept.
    Only(&'k str),
}

impl<'k> Place<'k> {
    /// Where the value of `key` stands; `None` when it is passed over.
    fn below(self, key: &str) -> Option<Self> {
        match (self, key) {
            (Self::Twin, "tags") | (Self::Properties, _) => Some(Self::Section),
            (Self::Twin, "properties") => Some(Self::Properties),
            (Self::Section, Twin::METADATA) => None,
            (Self::Twin | Self::Section | Self::Inside, _) => Some(Self::Inside),
            (Self::Traced(tag), "tags") => Some(Self::Only(tag)),
            (Self::Traced(_), key) => TRACED.contains(&key).then_some(Self::Inside),
            (Self::Only(kept), key) => (kept == key).then_some(Self::Inside),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
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

    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what a JSON number of this size is")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        // Beyond 64 signed bits only a float is left; the hub itself refuses integers above 2^52.
        Ok(Value::Number(i64::try_from(value).map_or_else(|_| Number::Float(value as f64), Number::Integer)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
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
            match self.below(&key) {
                Some(place) => drop(object.insert(key, fields.next_value_seed(place)?)),
                None => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The parser's own tree, taken over.
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
            assert_eq!(read(text), oracle(text), "{text}");
        }
    }

    #[test]
    fn only_the_metadata_of_sections_is_passed_over() {
        let text = r#"{"$metadata":1,"a":{"$metadata":2},"tags":{"$metadata":3,"b":{"$metadata":4}},
            "properties":{"$metadata":{"$metadata":5,"x":6},"desired":{"$metadata":{"c":[7]},"d":{"$metadata":8}},
            "reported":{"e":9,"$metadata":{}}}}"#;
        let kept = r#"{"$metadata":1,"a":{"$metadata":2},"tags":{"b":{"$metadata":4}},
            "properties":{"$metadata":{"x":6},"desired":{"d":{"$metadata":8}},"reported":{"e":9}}}"#;
        assert_eq!(Value::parse_twin_without_metadata(text).unwrap(), oracle(kept).unwrap());
        assert!(
            Value::parse_twin_without_metadata(r#"{"tags":{"$metadata":{"a":}}}"#).is_err(),
            "what is passed over must be JSON"
        );
    }

    #[test]
    fn what_is_written_is_what_the_parser_s_tree_writes() {
        for text in [
            "null",
            "[true,false,1,-1,1.0,-0.0,1e300,0.1,9223372036854775807,18446744073709551615]",
            r#"{"a":{"b":[{"c":"\u00e4\n\u0001\"/"},[]],"":{}}}"#,
        ] {
            let value = Value::parse_json(text).unwrap();
            assert_eq!(value.to_string(), value.to_json().to_string());
        }
    }

    #[test]
    fn numbers_stay_finite_whatever_they_are_read_from() {
        for number in [f64::NAN, f64::INFINITY] {
            let from = serde::de::value::F64Deserializer::<serde::de::value::Error>::new(number);
            assert!(Value::deserialize(from).is_err());
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read(&deep).unwrap_err().contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn any_text_gives_what_the_parser_s_tree_gives(text in r#"[\[\]{}:,"a-c0-9.eE \-\\u]{0,40}"#) {
            prop_assert_eq!(read(&text), oracle(&text));
        }
    }
}
