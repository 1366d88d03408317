//! What devices send and get over MQTT (`iot-hub.md` 8.2).

use super::super::error::Refusal;
use super::super::twin_record::{Properties, TwinRecord};
use super::json::{count, into_object, json, parse};
use crate::twin::{Object, Value};

/// A twin as its device reads it: no tags, no `$metadata`.
#[must_use]
pub fn device_twin(twin: &TwinRecord) -> Vec<u8> {
    let section = |properties: &Properties| {
        let mut object = properties.values.clone();
        object.insert("$version".to_owned(), count(properties.version));
        Value::Object(object)
    };
    let body = [("desired".to_owned(), section(&twin.desired)), ("reported".to_owned(), section(&twin.reported))];
    json(&Object::from(body))
}

/// Reads what a device reports: a merge patch.
///
/// # Errors
/// [`Refusal::Deserialization`] when it is no JSON, [`Refusal::ArgumentInvalid`] when it is no object.
pub fn report(body: &[u8]) -> Result<Object, Refusal> {
    into_object(parse(body)?, "the body")
}
