//! The form of configurations and jobs in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::configuration::{Condition, Configuration, ConfigurationId, Content, Metric};
use super::super::job::{Job, JobAction, JobId, JobKind, JobStatus};
use super::super::wire;
use super::{parse, ticks, time};
use crate::twin::{MergePatch, Object, Value};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredConfiguration {
    schema_version: Option<String>,
    labels: BTreeMap<String, String>,
    content: serde_json::Value,
    target: String,
    priority: i64,
    metrics: BTreeMap<String, String>,
    created: i64,
    updated: i64,
    etag: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredJob {
    /// Left out of those that patch twins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    document: serde_json::Value,
    tags: Option<serde_json::Value>,
    desired: Option<serde_json::Value>,
    condition: String,
    created: i64,
    start: i64,
    end: Option<i64>,
    seconds_max: i64,
    status: String,
    failure: Option<String>,
    succeeded: u64,
    failed: u64,
    last: Option<String>,
}

/// The record of a configuration.
#[must_use]
pub fn configuration(configuration: &Configuration) -> Vec<u8> {
    wire::json(&StoredConfiguration {
        schema_version: configuration.schema_version.clone(),
        labels: configuration.labels.clone(),
        content: json(&configuration.content.document),
        target: configuration.condition.text.clone(),
        priority: configuration.priority,
        metrics: configuration.metrics.iter().map(|(name, metric)| (name.clone(), metric.text.clone())).collect(),
        created: ticks(configuration.created),
        updated: ticks(configuration.updated),
        etag: configuration.etag_number,
    })
}

/// The configuration of a record.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn read_configuration(key: &str, record: &[u8]) -> Result<Configuration, String> {
    let stored: StoredConfiguration = parse(record)?;
    let content = Content::new(object(stored.content)?).map_err(|refusal| refusal.to_string())?;
    let metric =
        |(name, text): (String, String)| Ok((name, Metric::new(&text).map_err(|refusal| refusal.to_string())?));
    Ok(Configuration {
        id: ConfigurationId::new(key).map_err(|refusal| refusal.to_string())?,
        schema_version: stored.schema_version,
        labels: stored.labels,
        condition: Condition::new(&stored.target, content.of).map_err(|refusal| refusal.to_string())?,
        content,
        priority: stored.priority,
        metrics: stored.metrics.into_iter().map(metric).collect::<Result<_, String>>()?,
        created: time(stored.created)?,
        updated: time(stored.updated)?,
        etag_number: stored.etag,
    })
}

/// The record of a job.
#[must_use]
pub fn job(job: &Job) -> Vec<u8> {
    let (kind, patch) = match &job.action {
        JobAction::UpdateTwin(patch) => (None, Some(patch)),
        JobAction::DeviceMethod(_) => (Some(JobKind::DeviceMethod.as_str().to_owned()), None),
    };
    wire::json(&StoredJob {
        kind,
        document: json(&job.document),
        tags: patch.and_then(|patch| patch.tags.as_ref()).map(json),
        desired: patch.and_then(|patch| patch.desired.as_ref()).map(json),
        condition: job.condition.clone(),
        created: ticks(job.created),
        start: ticks(job.start),
        end: job.end.map(ticks),
        seconds_max: job.seconds_max,
        status: job.status.as_str().to_owned(),
        failure: job.failure.clone(),
        succeeded: job.succeeded,
        failed: job.failed,
        last: job.last.clone(),
    })
}

/// The job of a record.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn read_job(key: &str, record: &[u8]) -> Result<Job, String> {
    let stored: StoredJob = parse(record)?;
    let document = object(stored.document)?;
    let action = match stored.kind.as_deref().map(JobKind::parse) {
        None | Some(Some(JobKind::UpdateTwin)) => JobAction::UpdateTwin(MergePatch {
            tags: stored.tags.map(object).transpose()?,
            desired: stored.desired.map(object).transpose()?,
        }),
        // What the call is stands in the document alone.
        Some(Some(JobKind::DeviceMethod)) => {
            JobAction::DeviceMethod(wire::method_call(&wire::json(&document)).map_err(|refusal| refusal.to_string())?)
        }
        Some(None) => return Err("an unknown kind".to_owned()),
    };
    Ok(Job {
        id: JobId::new(key).map_err(|refusal| refusal.to_string())?,
        document,
        action,
        condition: stored.condition,
        created: time(stored.created)?,
        start: time(stored.start)?,
        end: stored.end.map(time).transpose()?,
        seconds_max: stored.seconds_max,
        status: JobStatus::parse(&stored.status).ok_or("an unknown status")?,
        failure: stored.failure,
        succeeded: stored.succeeded,
        failed: stored.failed,
        last: stored.last,
    })
}

fn object(json: serde_json::Value) -> Result<Object, String> {
    Value::from_json(json).as_object().cloned().ok_or_else(|| "a document is no object".to_owned())
}

fn json(object: &Object) -> serde_json::Value {
    Value::Object(object.clone()).to_json()
}
