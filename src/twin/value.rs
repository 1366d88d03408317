//! JSON values as a twin holds them.
//!
//! Invariant: numbers are finite, compare as numbers (`1` equals `1.0`) and print as they came; nothing is lost
//! between the hub and back.

use std::collections::BTreeMap;
use std::fmt;

/// An object: keys in order, so that everything printed from it is stable.
pub type Object = BTreeMap<String, Value>;

/// A JSON value. `Null` means "absent" in a twin and "delete" in a merge patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array; the hub replaces arrays whole (`iot-hub.md` 2.3).
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// A finite number: an exact integer, else an `f64`. `1` and `1.0` are equal but print differently, as the hub does
/// (`iot-hub.md` section 4).
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// An integer that fits 64 signed bits. The hub takes -2^52 to 2^52-1; the limits check says so.
    Integer(i64),
    /// Any other finite number.
    Float(f64),
}

/// Why a JSON text is not a [`Value`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text is not JSON; the message says where.
    #[error("not valid JSON: {0}")]
    Syntax(String),
}

impl Number {
    /// The number of a finite float; `None` for NaN and the infinities, which JSON does not have.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self::Float(value))
    }

    /// The number as an `f64`; integers beyond 2^53 round.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the caller asks for a float")]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// One form for all equal numbers: integral values as integers where they fit. Seals hash this form.
    #[must_use]
    pub fn normalised(self) -> Self {
        match self {
            Self::Integer(_) => self,
            Self::Float(value) => integral(value).map_or(self, Self::Integer),
        }
    }
}

/// `value` as an integer, when it is one and fits exactly.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn integral(value: f64) -> Option<i64> {
    // 2^63 is exactly representable; every f64 below it that has no fraction converts exactly.
    let bound = 9_223_372_036_854_775_808.0;
    (value.fract() == 0.0 && value >= -bound && value < bound).then_some(value as i64)
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self.normalised(), other.normalised()) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Integer(_), Self::Float(_)) | (Self::Float(_), Self::Integer(_)) => false,
        }
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.normalised(), other.normalised()) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (a, b) if a == b => std::cmp::Ordering::Equal,
            (a, b) => a.as_f64().total_cmp(&b.as_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            // Debug keeps `1.0` a float and prints the shortest text that reads back the same.
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

impl Value {
    /// An empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self::Object(Object::new())
    }

    /// The object inside, if this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// The text inside, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The value at `keys` beneath this one.
    #[must_use]
    pub fn get<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Option<&Self> {
        keys.into_iter().try_fold(self, |value, key| value.as_object()?.get(key))
    }

    /// The value of a JSON document.
    #[must_use]
    pub fn from_json(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Number(from_json_number(&number)),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Object(map.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect())
            }
        }
    }

    /// The value of a JSON text.
    ///
    /// # Errors
    /// [`ValueError::Syntax`] with `serde_json`'s line and column.
    pub fn parse_json(text: &str) -> Result<Self, ValueError> {
        serde_json::from_str(text).map_err(|error| ValueError::Syntax(error.to_string()))
    }

    /// This value as a JSON document.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => serde_json::Value::Bool(*value),
            Self::Number(Number::Integer(value)) => serde_json::Value::from(*value),
            Self::Number(Number::Float(value)) => serde_json::Value::from(*value),
            Self::String(text) => serde_json::Value::String(text.clone()),
            Self::Array(items) => serde_json::Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Object(map) => {
                serde_json::Value::Object(map.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
        }
    }
}

fn from_json_number(number: &serde_json::Number) -> Number {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => Number::Integer(integer),
        // Beyond 64 signed bits only a float is left; the hub itself refuses integers above 2^52.
        (None, Some(float)) => Number::Float(float),
        (None, None) => unreachable!("without arbitrary_precision every JSON number is an i64, a u64 or a finite f64"),
    }
}

impl fmt::Display for Value {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(Number::Integer(value))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::parse_json(text).unwrap()
    }

    #[test]
    fn numbers_compare_as_numbers_and_print_as_written() {
        for (left, right, equal) in [
            ("1", "1.0", true),
            ("-0", "0.0", true),
            ("1e3", "1000", true),
            ("1", "1.5", false),
            ("9007199254740993", "9007199254740992.0", false),
            ("4503599627370495", "4503599627370495.0", true),
            ("1", "\"1\"", false),
        ] {
            assert_eq!(json(left) == json(right), equal, "{left} and {right}");
        }
        for text in ["1", "1.0", "-2.5", "4503599627370495", "[1,{\"a\":null}]", "\"ä\\n\""] {
            assert_eq!(json(text).to_string(), text);
        }
    }

    #[test]
    fn numbers_have_an_order_that_agrees_with_equality() {
        let number = |text: &str| match json(text) {
            Value::Number(number) => number,
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => panic!("{text}"),
        };
        assert!(number("1") < number("1.5"));
        assert!(number("2") > number("1.5"));
        assert_eq!(number("2").cmp(&number("2.0")), std::cmp::Ordering::Equal);
        assert!(number("-9e30") < number("-1"));
    }

    #[test]
    fn a_value_is_found_beneath_its_keys() {
        let value = json(r#"{"a":{"b":[1]}}"#);
        assert_eq!(value.get(["a", "b"]), Some(&json("[1]")));
        assert_eq!(value.get(["a", "x"]), None);
        assert_eq!(value.get(["a", "b", "0"]), None);
        assert_eq!(value.get([]), Some(&value));
    }
}
