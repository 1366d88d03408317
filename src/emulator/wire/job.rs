//! Scheduled jobs (`iot-hub.md` 2.8).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::error::Refusal;
use super::super::job::{Job, JobAction, JobId, JobKind, JobSpec};
use super::super::registry::JobProgress;
use super::json::{date, into_object, json, typed, value};
use super::method::method_call;
use super::twin::sections;
use crate::twin::{Object, Value};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobRequest {
    job_id: Option<String>,
    r#type: Option<String>,
    update_twin: Option<serde_json::Value>,
    cloud_to_device_method: Option<serde_json::Value>,
    query_condition: Option<String>,
    start_time: Option<String>,
    max_execution_time_in_seconds: Option<i64>,
}

/// Reads the body of a job's PUT.
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentInvalid`] for another id, a time that is
/// none, an `updateTwin` whose etag is not `*` and a method that could not be called, [`Refusal::ArgumentNull`] when the
/// part that the type needs is missing.
pub fn job_write(body: &[u8], id: &JobId) -> Result<JobSpec, Refusal> {
    let request: JobRequest = typed(body)?;
    if request.job_id.is_some_and(|given| given != id.as_str()) {
        return Err(Refusal::ArgumentInvalid("the jobId of the body is not the one of the address".to_owned()));
    }
    let (document, action) = match request.r#type.as_deref().and_then(JobKind::parse) {
        Some(JobKind::UpdateTwin) => {
            let document = part(request.update_twin, "updateTwin")?;
            if document.get("etag") != Some(&Value::from("*")) {
                return Err(Refusal::ArgumentInvalid("the etag of updateTwin must be *".to_owned()));
            }
            let patch = sections(document.clone())?;
            (document, JobAction::UpdateTwin(patch))
        }
        Some(JobKind::DeviceMethod) => {
            let document = part(request.cloud_to_device_method, "cloudToDeviceMethod")?;
            let call = method_call(&json(&document))?;
            (document, JobAction::DeviceMethod(call))
        }
        None => {
            let text = "type must be scheduleUpdateTwin or scheduleDeviceMethod";
            return Err(Refusal::ArgumentInvalid(text.to_owned()));
        }
    };
    let start = match request.start_time.as_deref() {
        None | Some("") => None,
        Some(text) => Some(time(text).ok_or_else(|| Refusal::ArgumentInvalid("startTime is not a time".to_owned()))?),
    };
    Ok(JobSpec {
        document,
        action,
        condition: request.query_condition.unwrap_or_default(),
        start,
        seconds_max: request.max_execution_time_in_seconds,
    })
}

/// The part of the body that the type needs.
fn part(part: Option<serde_json::Value>, name: &str) -> Result<Object, Refusal> {
    let part = part.ok_or_else(|| Refusal::ArgumentNull(format!("{name} is missing")))?;
    into_object(value(part)?, name)
}

/// A time with a zone, or in UTC without one.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

/// A job as every operation answers it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobBody<'a> {
    job_id: &'a str,
    query_condition: &'a str,
    created_time: String,
    start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    max_execution_time_in_seconds: i64,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_twin: Option<&'a Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_to_device_method: Option<&'a Object>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    device_job_statistics: Statistics,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    device_count: u64,
    failed_count: u64,
    succeeded_count: u64,
    running_count: u64,
    pending_count: u64,
}

impl<'a> JobBody<'a> {
    /// A job, and what of it is not done.
    #[must_use]
    pub fn new(job: &'a Job, progress: JobProgress) -> Self {
        let kind = job.action.kind();
        Self {
            job_id: job.id.as_str(),
            query_condition: &job.condition,
            created_time: date(job.created),
            start_time: date(job.start),
            end_time: job.end.map(date),
            max_execution_time_in_seconds: job.seconds_max,
            r#type: kind.as_str(),
            update_twin: (kind == JobKind::UpdateTwin).then_some(&job.document),
            cloud_to_device_method: (kind == JobKind::DeviceMethod).then_some(&job.document),
            status: job.status.as_str(),
            failure_reason: job.failure.as_deref(),
            status_message: job.failure.as_deref(),
            device_job_statistics: Statistics {
                device_count: job.succeeded + job.failed + progress.running + progress.pending,
                failed_count: job.failed,
                succeeded_count: job.succeeded,
                running_count: progress.running,
                pending_count: progress.pending,
            },
        }
    }
}

/// The answer for a job that is not there (`iot-hub.md` 2.8).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownJobBody<'a> {
    job_id: &'a str,
    r#type: &'static str,
    status: &'static str,
}

impl<'a> UnknownJobBody<'a> {
    /// Of this id.
    #[must_use]
    pub fn new(id: &'a JobId) -> Self {
        Self { job_id: id.as_str(), r#type: "unknown", status: "unknown" }
    }
}
