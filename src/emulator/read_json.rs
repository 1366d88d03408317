//! JSON text to the domain's values in one pass.
//!
//! Invariant: gives what [`Value::from_json`] gives for the same text, without a tree in between.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::twin::{Number, Object, Value};

/// A value read from JSON.
#[derive(Debug)]
pub(super) struct ReadValue(pub(super) Value);

/// An object read from JSON; anything else is an error.
#[derive(Debug)]
pub(super) struct ReadObject(pub(super) Object);

struct ValueVisitor;

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for ReadObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ValueVisitor)? {
            Value::Object(object) => Ok(Self(object)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(D::Error::custom("a section is no object"))
            }
        }
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "beyond 64 signed bits only a float is left")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(Number::Float(value as f64)), Value::from))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(ReadValue(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some((key, ReadValue(value))) = entries.next_entry()? {
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reads_as_it_does_through_a_tree() {
        for text in [
            "null",
            "[true,false,1,-1,1.0,-0.0,1e300,9223372036854775807,9223372036854775808,18446744073709551615]",
            r#"{"a":{"b":[{"c":"\u00e4\n"},[]],"":{}},"a2":"x","a2":"y"}"#,
        ] {
            let ReadValue(read) = serde_json::from_str(text).unwrap();
            let expected = Value::parse_json(text).unwrap();
            assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{text}");
        }
        assert!(serde_json::from_str::<ReadObject>("[]").is_err());
        assert!(serde_json::from_str::<ReadValue>("{").is_err());
    }
}
