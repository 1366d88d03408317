//! Throttles and faults around an operation, and the address where faults are changed.
//!
//! Invariant: without `--hub-faults` the address answers as any that does not exist; a request is counted and delayed
//! only after its token was admitted.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;

use super::answers::{json, no_content};
use super::broken::broken;
use super::{BODY_BYTES_MAX, Call, ERROR_CODE, carry_out, read_body};
use crate::emulator::auth::PolicyName;
use crate::emulator::error::Refusal;
use crate::emulator::if_match::IfMatch;
use crate::emulator::route::Operation;
use crate::emulator::throttle::METHOD_METER_BYTES;
use crate::emulator::traffic::Traffic;
use crate::emulator::trial::Trial;
use crate::emulator::wire;

/// Whether the address is that of the faults.
pub(super) fn is_their_address(segments: &[String]) -> bool {
    segments.iter().map(String::as_str).eq(["_geminid", "faults"])
}

/// GET and PUT of the faults, for the owner.
pub(super) async fn plan(
    trial: &Trial,
    policy: PolicyName,
    method: &Method,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let now = trial.fault_plan().ok_or(Refusal::AddressNotFound)?;
    if policy != PolicyName::Owner {
        return Err(Refusal::Unauthorized);
    }
    match *method {
        Method::GET => Ok(json(now)),
        Method::PUT => {
            trial.put_fault_plan(&read_body(body, BODY_BYTES_MAX).await?)?;
            Ok(no_content())
        }
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// Carries out `operation` when it is its turn, with what goes wrong with it.
pub(super) async fn with(
    trial: &Trial,
    kind: Traffic,
    tracking: u128,
    call: Call<'_>,
    operation: Operation,
) -> Result<Response<Body>, Refusal> {
    let (hub, sent) = (call.hub, call.body.len());
    let faults = trial.draw(kind);
    if faults.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.latency_ms)).await;
    }
    if let Some((status, code)) = &faults.status {
        let mut response = json(wire::fault(code, tracking, hub.now()));
        *response.status_mut() = StatusCode::from_u16(*status).expect("a rule's status is checked when it is put");
        let code = HeaderValue::from_str(code).expect("a rule's code is letters and digits");
        response.headers_mut().insert(ERROR_CODE, code);
        return Ok(response);
    }
    if trial.has_tier() {
        trial.admit(kind, weight(&operation, call.body), hub.now()).await?;
    }
    if let (Some(patch), Operation::PatchTwin(twin) | Operation::ReplaceTwin(twin)) =
        (&faults.concurrent_write, &operation)
    {
        // The rival may find nothing to write to; the request itself then says so.
        hub.write(|registry, _, now| registry.patch_twin(twin, patch, &IfMatch::Any, now)).await.ok();
    }
    let result = carry_out(call, operation).await;
    let answered = result.as_ref().ok().and_then(|response| response.body().size_hint().exact());
    let answered = usize::try_from(answered.unwrap_or(0)).unwrap_or(usize::MAX);
    if result.is_ok() {
        charge(trial, kind, (sent, answered), hub.now());
    }
    match result {
        Ok(response) if faults.drop_answer || faults.truncate_body => Ok(broken(response, !faults.drop_answer).await),
        result => result,
    }
}

/// Counts the messages of a request: a write by what was sent, a method by both ways, all else by the answer
/// (`iot-hub.md` 6.2).
fn charge(trial: &Trial, kind: Traffic, (sent, answered): (usize, usize), now: Timestamp) {
    match kind {
        Traffic::TwinWrite => trial.charge(kind, sent, now),
        Traffic::Method => {
            trial.charge(kind, sent, now);
            trial.charge(kind, answered, now);
        }
        Traffic::RegistryRead
        | Traffic::RegistryWrite
        | Traffic::Query
        | Traffic::TwinRead
        | Traffic::Connect
        | Traffic::DeviceTwinRead
        | Traffic::Report
        | Traffic::Telemetry
        | Traffic::Jobs
        | Traffic::JobStep
        | Traffic::Configurations
        | Traffic::Other => trial.charge(kind, answered, now),
    }
}

/// How often a request counts: a bulk operation once for each identity, a direct method by its size (`iot-hub.md` 6.1).
fn weight(operation: &Operation, body: &[u8]) -> u32 {
    let count = if *operation == Operation::Bulk {
        // A body that is no array is refused as one request.
        serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(body).map_or(1, |items| items.len())
    } else if matches!(operation, Operation::CallMethod(_)) {
        // One that is no call is refused as one too.
        wire::method_call(body).map_or(1, |call| call.payload_bytes().div_ceil(METHOD_METER_BYTES))
    } else {
        1
    };
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}
