//! A device's requests about its twin, carried out (`iot-hub.md` 8.2).
//!
//! Invariant: every request gets one answer, a topic and a payload; a report is answered only when it is kept.

use super::super::error::Refusal;
use super::super::handle::HubHandle;
use super::super::traffic::Traffic;
use super::super::wire;
use super::session::Request;
use super::topics;
use crate::twin::TwinRef;

/// What a request is for throttles and faults; `None` for what has neither.
pub(super) const fn kind(request: &Request) -> Option<Traffic> {
    match request {
        Request::Connect(_) => Some(Traffic::Connect),
        Request::ReadTwin { .. } => Some(Traffic::DeviceTwinRead),
        Request::Report { .. } => Some(Traffic::Report),
        Request::Telemetry { .. } => Some(Traffic::Telemetry),
        Request::MethodAnswer { .. } | Request::Subscribe(_) => None,
    }
}

/// The answer to a read of the twin: topic and payload.
pub(super) async fn read_twin(hub: &HubHandle, who: &TwinRef, request: &str) -> (String, Vec<u8>) {
    match hub.record(who).await {
        Ok(record) => (topics::twin_answer(200, request, None), wire::device_twin(&record.twin)),
        Err(refusal) => refused(hub, &refusal, request),
    }
}

/// The answer to a report, once it is kept.
pub(super) async fn report(
    hub: &HubHandle,
    who: &TwinRef,
    request: &str,
    base: Option<&str>,
    body: &[u8],
) -> (String, Vec<u8>) {
    let reported = async {
        let patch = wire::report(body)?;
        let base = base.map(str::parse::<u64>).transpose();
        let base = base.map_err(|_| Refusal::ArgumentInvalid("$version must be a number".to_owned()))?;
        let change = hub
            .write(|registry, _, now| {
                let version = registry.record(who)?.twin.reported.stored().version;
                match base {
                    Some(base) if base != version => Err(Refusal::ReportedChanged(version)),
                    Some(_) | None => registry.report(who, &patch, now),
                }
            })
            .await?;
        Ok(change.after.map_or(0, |device| device.twin.reported.stored().version))
    };
    match reported.await {
        Ok(version) => (topics::twin_answer(204, request, Some(version)), Vec::new()),
        Err(refusal) => refused(hub, &refusal, request),
    }
}

/// The answer to what is refused.
pub(super) fn refused(hub: &HubHandle, refusal: &Refusal, request: &str) -> (String, Vec<u8>) {
    let body = wire::numbered_refusal(refusal, hub.draw(), hub.now());
    (topics::twin_answer(refusal.status(), request, None), body)
}
