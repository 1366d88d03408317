//! Direct methods (`iot-hub.md` 2.10).

use serde::{Deserialize, Serialize};

use super::super::error::Refusal;
use super::super::mqtt::MethodCall;
use super::json::{json, typed};
use crate::twin::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodRequest {
    method_name: Option<String>,
    #[serde(default)]
    payload: serde_json::Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

/// Reads the body that calls a direct method.
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentNull`] when the name is missing, and
/// what [`MethodCall::new`] refuses.
pub fn method_call(body: &[u8]) -> Result<MethodCall, Refusal> {
    let request: MethodRequest = typed(body)?;
    let name = request.method_name.ok_or_else(|| Refusal::ArgumentNull("methodName".to_owned()))?;
    let (response, connect) = (request.response_timeout_in_seconds, request.connect_timeout_in_seconds);
    MethodCall::new(name, json(&request.payload), response, connect)
}

#[derive(Serialize)]
struct MethodAnswerFields {
    status: i32,
    payload: serde_json::Value,
}

/// The body that answers a direct method. A device may answer with nothing, which is `null`.
///
/// # Errors
/// [`Refusal::Deserialization`] when `payload`, as the device sent it, is no JSON.
pub fn method_answer(status: i32, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    Ok(json(&MethodAnswerFields { status, payload: answered(payload)? }))
}

/// The same as a value, for the rows of jobs.
///
/// # Errors
/// As [`method_answer`].
pub fn method_outcome(status: i32, payload: &[u8]) -> Result<Value, Refusal> {
    let fields = [
        ("payload".to_owned(), Value::from_json(answered(payload)?)),
        ("status".to_owned(), Value::from(i64::from(status))),
    ];
    Ok(Value::Object(fields.into()))
}

fn answered(payload: &[u8]) -> Result<serde_json::Value, Refusal> {
    if payload.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    let wrong = |_| Refusal::Deserialization("the device answered with something that is no JSON".to_owned());
    serde_json::from_slice(payload).map_err(wrong)
}
