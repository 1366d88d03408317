//! What every body is made of: dates, numbers, values; and the first reading of one that came in.

use jiff::Timestamp;
use jiff::tz::Offset;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use super::super::error::Refusal;
use crate::twin::{Object, Value};

/// A date that never was (`iot-hub.md` 1.2).
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Writes a secret as the text that it is: into an answer or a private file, and nowhere else.
///
/// # Errors
/// The serializer's own.
pub fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// A time as a hub prints it: UTC, up to seven fraction digits, no trailing zeros (`iot-hub.md` 1.2).
#[must_use]
pub fn date(at: Timestamp) -> String {
    let at = Offset::UTC.to_datetime(at);
    let mut text = String::with_capacity("2020-02-03T04:05:06.1234567Z".len());
    for (number, digits, behind) in [
        (i32::from(at.year()), 4, "-"),
        (i32::from(at.month()), 2, "-"),
        (i32::from(at.day()), 2, "T"),
        (i32::from(at.hour()), 2, ":"),
        (i32::from(at.minute()), 2, ":"),
        (i32::from(at.second()), 2, ""),
    ] {
        push_digits(&mut text, number, digits);
        text.push_str(behind);
    }
    let ticks = at.subsec_nanosecond() / 100;
    if ticks > 0 {
        text.push('.');
        push_digits(&mut text, ticks, 7);
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    text
}

/// The last `digits` decimal digits of a number that is not negative. Each twin has dozens of times; this is most of
/// what writing one costs.
fn push_digits(text: &mut String, number: i32, digits: u32) {
    for place in (0..digits).rev() {
        let digit = u8::try_from(number / 10_i32.pow(place) % 10).unwrap_or(0);
        text.push(char::from(b'0' + digit));
    }
}

/// A time that may never have been.
#[must_use]
pub fn date_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), date)
}

/// `Connected` or `Disconnected`.
#[must_use]
pub const fn connection_state(connected: bool) -> &'static str {
    if connected { "Connected" } else { "Disconnected" }
}

/// A counter as a JSON number.
#[must_use]
pub fn count(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The text of a body.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "no caller has anything that could fail to serialize")]
pub fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("maps have string keys and nothing here fails to serialize")
}

/// Appends the text of something.
pub(super) fn write_json(of: &impl Serialize, to: &mut Vec<u8>) {
    serde_json::to_writer(to, of).expect("maps have string keys and a vector takes every byte");
}

/// A body as a value. An integer that needs 64 bits without a sign is refused here: the domain's numbers would take
/// it for a float, which the limits let pass (`iot-hub.md` section 4).
///
/// # Errors
/// [`Refusal::Deserialization`], or [`Refusal::ArgumentInvalid`] for such an integer.
pub fn parse(body: &[u8]) -> Result<Value, Refusal> {
    value(typed(body)?)
}

/// A body of a known shape.
pub(super) fn typed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::Deserialization(format!("the body is not the expected JSON: {error}")))
}

/// JSON as a value of the domain.
pub(super) fn value(json: serde_json::Value) -> Result<Value, Refusal> {
    match wide_integer(&json) {
        None => Ok(Value::from_json(json)),
        Some(integer) => Err(Refusal::ArgumentInvalid(format!("{integer} is larger than an integer may be"))),
    }
}

fn wide_integer(json: &serde_json::Value) -> Option<u64> {
    match json {
        serde_json::Value::Number(number) if number.is_i64() => None,
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::Array(items) => items.iter().find_map(wide_integer),
        serde_json::Value::Object(object) => object.values().find_map(wide_integer),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => None,
    }
}

/// The object that `what` must be.
pub(super) fn into_object(value: Value, what: &str) -> Result<Object, Refusal> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Refusal::ArgumentInvalid(format!("{what} must be an object")))
        }
    }
}

/// The object that `what` must be when it is there and not null.
pub(super) fn optional_object(value: Option<Value>, what: &str) -> Result<Option<Object>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => into_object(value, what).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_seven_digits_at_most_and_no_trailing_zeros() {
        for (given, printed) in [
            ("2020-02-03T04:05:06Z", "2020-02-03T04:05:06Z"),
            ("2020-02-03T04:05:06.573089Z", "2020-02-03T04:05:06.573089Z"),
            ("2020-02-03T04:05:06.3360931Z", "2020-02-03T04:05:06.3360931Z"),
            ("2020-02-03T04:05:06.000000199Z", "2020-02-03T04:05:06.0000001Z"),
            ("2020-02-03T04:05:06.000000099Z", "2020-02-03T04:05:06Z"),
            ("0001-01-01T00:00:00Z", NEVER),
        ] {
            assert_eq!(date(given.parse().unwrap()), printed);
        }
        assert_eq!(date_or_never(None), NEVER);
    }
}
