//! Scheduled jobs (`iot-hub.md` 2.8).

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE as BASE64;

use super::super::error::Refusal;
use super::super::job::{Job, JobId, JobKind, JobStatus};
use super::super::registry::{JobProgress, Registry};
use super::super::wire::{self, JobBody, UnknownJobBody};
use super::answers::json;
use super::twins::{CONTINUATION, ITEM_TYPE, MAX_ITEM_COUNT};
use super::{Call, header, parameter};

/// The largest page of jobs, and the one given when none is asked for.
const PAGE_MAX: usize = 100;
const JOB_RESPONSE: HeaderValue = HeaderValue::from_static("jobResponse");

pub(super) async fn get(call: &Call<'_>, id: &JobId) -> Result<Response<Body>, Refusal> {
    let body = match call.hub.read(|registry| Ok(registry.job(id).map(|job| with_progress(registry, job)))).await? {
        Some((job, progress)) => wire::json(&JobBody::new(&job, progress)),
        None => wire::json(&UnknownJobBody::new(id)),
    };
    Ok(json(body))
}

pub(super) async fn put(call: &Call<'_>, id: &JobId) -> Result<Response<Body>, Refusal> {
    let spec = wire::job_write(call.body, id)?;
    let active_max = call.options.active_jobs_max();
    let job = call.hub.write(|registry, _, now| registry.put_job(id, spec, active_max, now)).await?;
    Ok(json(wire::json(&JobBody::new(&job, JobProgress::default()))))
}

pub(super) async fn cancel(call: &Call<'_>, id: &JobId) -> Result<Response<Body>, Refusal> {
    let cancelled = call.hub.write(|registry, _, now| {
        let job = registry.cancel_job(id, now)?;
        Ok(with_progress(registry, job))
    });
    let (job, progress) = cancelled.await?;
    Ok(json(wire::json(&JobBody::new(&job, progress))))
}

fn with_progress(registry: &Registry, job: Arc<Job>) -> (Arc<Job>, JobProgress) {
    let progress = registry.job_progress(&job.id);
    (job, progress)
}

/// A page of jobs by id; the token is the last id.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let invalid = |what: &str| Refusal::ArgumentInvalid(format!("{what} is not valid"));
    let status = match parameter(call.query, "jobStatus").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(JobStatus::parse(text).ok_or_else(|| invalid("jobStatus"))?),
    };
    let kind = match parameter(call.query, "jobType").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(JobKind::parse(text).ok_or_else(|| invalid("jobType"))?),
    };
    let page_size = match header(call.headers, MAX_ITEM_COUNT)? {
        None => PAGE_MAX,
        Some(text) => text.trim().parse().map_err(|_| invalid(MAX_ITEM_COUNT))?,
    };
    let page_size = page_size.clamp(1, PAGE_MAX);
    let last = match header(call.headers, CONTINUATION)? {
        None => None,
        Some(token) => Some(last_of(token).ok_or_else(|| invalid(CONTINUATION))?),
    };
    let mut found: Vec<(Arc<Job>, JobProgress)> = call
        .hub
        .read(|registry| {
            let jobs = registry.jobs_after(last.as_ref());
            let jobs = jobs.filter(|job| kind.is_none_or(|kind| job.action.kind() == kind));
            let jobs = jobs.filter(|job| status.is_none_or(|status| job.status == status));
            Ok(jobs.take(page_size + 1).cloned().map(|job| with_progress(registry, job)).collect())
        })
        .await?;
    let more = found.len() > page_size;
    found.truncate(page_size);
    let mut response =
        json(wire::json(&found.iter().map(|(job, progress)| JobBody::new(job, *progress)).collect::<Vec<_>>()));
    response.headers_mut().insert(ITEM_TYPE, JOB_RESPONSE);
    if let Some((last, _)) = found.last().filter(|_| more) {
        let token = HeaderValue::try_from(BASE64.encode(last.id.as_str())).expect("base64 fits a header");
        response.headers_mut().insert(CONTINUATION, token);
    }
    Ok(response)
}

fn last_of(token: &str) -> Option<JobId> {
    JobId::new(&String::from_utf8(BASE64.decode(token).ok()?).ok()?).ok()
}
