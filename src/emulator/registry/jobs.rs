//! The scheduled jobs of a hub and their effect on its twins, some twins at a time (`iot-hub.md` 2.8).
//!
//! Invariant: what a step did to twins and how far the job is go to the store together, so a job that was interrupted
//! patches no twin twice. A device gets one row per job, at most [`ROWS_MAX`] of all jobs together.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::error::Refusal;
use super::super::if_match::IfMatch;
use super::super::job::{Job, JobId, JobSpec, JobStatus};
use super::super::twin_record::tick;
use super::super::wire;
use super::{Device, Kept, Registry};
use crate::query::{self, Expr, Row, Tri};
use crate::twin::{DeviceId, Object, Value};

/// How long jobs that ended are remembered (`iot-hub.md` 6.3).
const HISTORY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The most jobs remembered. No hub states a limit; ours bounds the memory.
const JOBS_MAX: usize = 10_000;
/// The most rows of `devices.jobs`; the oldest go first.
const ROWS_MAX: usize = 200_000;
/// The one kind of job there is.
pub const KIND: &str = "scheduleUpdateTwin";

/// The jobs, and their rows by device.
#[derive(Debug, Clone, Default)]
pub(super) struct Jobs {
    all: BTreeMap<JobId, Arc<Job>>,
    rows: VecDeque<Arc<JobRow>>,
}

/// One row of `devices.jobs` (`iot-hub.md` 5.3). Rows are not kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The device.
    pub device: DeviceId,
    /// The job.
    pub job: JobId,
    /// `completed` or `failed`.
    pub status: JobStatus,
    /// When the job was made.
    pub created: Timestamp,
    /// When the device was patched.
    pub at: Timestamp,
}

impl JobRow {
    /// The row as `SELECT *` gives it.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let at = wire::date(self.at);
        let fields = [
            ("deviceId", self.device.to_string()),
            ("jobId", self.job.to_string()),
            ("jobType", KIND.to_owned()),
            ("status", self.status.as_str().to_owned()),
            ("startTimeUtc", at.clone()),
            ("endTimeUtc", at.clone()),
            ("createdDateTimeUtc", wire::date(self.created)),
            ("lastUpdatedDateTimeUtc", at),
        ];
        fields.map(|(name, text)| (name.to_owned(), Value::from(text))).into()
    }
}

impl Row for JobRow {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        match path {
            [name] => self.to_object().remove(name).map(Cow::Owned),
            _ => None,
        }
    }
}

/// What the jobs wait for after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobsNext {
    /// Another step.
    Step,
    /// This time.
    At(Timestamp),
    /// A new job.
    Nothing,
}

impl Registry {
    /// Takes in a job that the store kept.
    pub fn restore_job(&mut self, job: Job) {
        self.jobs.all.insert(job.id.clone(), Arc::new(job));
    }

    /// One job; `None` when there is none, which is no error (`iot-hub.md` 2.8).
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<Arc<Job>> {
        self.jobs.all.get(id).cloned()
    }

    /// The jobs behind `last` by id, or all.
    pub fn jobs_after<'a>(&'a self, last: Option<&'a JobId>) -> impl Iterator<Item = &'a Arc<Job>> {
        self.jobs.all.values().filter(move |job| last.is_none_or(|last| job.id > *last))
    }

    /// The rows of `devices.jobs`, the oldest first.
    pub fn job_rows(&self) -> impl Iterator<Item = &Arc<JobRow>> {
        self.jobs.rows.iter()
    }

    /// Makes a job. At most `active_max` are active at once.
    ///
    /// # Errors
    /// [`Refusal::JobAlreadyExists`], [`Refusal::TooManyJobs`], or what is wrong with `spec`.
    pub fn put_job(
        &mut self,
        id: &JobId,
        spec: JobSpec,
        active_max: usize,
        now: Timestamp,
    ) -> Result<Arc<Job>, Refusal> {
        self.forget_jobs(now);
        if self.jobs.all.contains_key(id) {
            return Err(Refusal::JobAlreadyExists(id.clone()));
        }
        let active = self.jobs.all.values().filter(|job| job.status.is_active()).count();
        if active >= active_max || self.jobs.all.len() >= JOBS_MAX {
            return Err(Refusal::TooManyJobs);
        }
        Ok(self.set_job(Job::new(id.clone(), spec, tick(now))?))
    }

    /// Stops a job. What it has done stays.
    ///
    /// # Errors
    /// [`Refusal::JobNotFound`], or [`Refusal::JobEnded`] when it has ended already.
    pub fn cancel_job(&mut self, id: &JobId, now: Timestamp) -> Result<Arc<Job>, Refusal> {
        let job = self.job(id).ok_or_else(|| Refusal::JobNotFound(id.clone()))?;
        if !job.status.is_active() {
            return Err(Refusal::JobEnded);
        }
        Ok(self.set_job(job.ended(JobStatus::Cancelled, None, tick(now))))
    }

    /// Goes on with the first job whose time has come, over at most `count` devices.
    pub fn step_jobs(&mut self, count: usize, now: Timestamp) -> JobsNext {
        let active = self.jobs.all.values().filter(|job| job.status.is_active());
        let Some(job) = active.min_by_key(|job| (job.start, job.id.clone())).cloned() else { return JobsNext::Nothing };
        if job.start > now {
            return JobsNext::At(job.start);
        }
        let after = match job.parsed_condition() {
            Err(error) => job.ended(JobStatus::Failed, Some(error), tick(now)),
            Ok(_) if job.is_overdue(now) => {
                job.ended(JobStatus::Failed, Some("the job took longer than it may".to_owned()), tick(now))
            }
            Ok(condition) => self.patch_some(&job, &condition, count, now),
        };
        self.set_job(after);
        JobsNext::Step
    }

    /// The job after it looked at some more devices.
    fn patch_some(&mut self, job: &Job, condition: &Expr, count: usize, now: Timestamp) -> Job {
        let chunk: Vec<Arc<Device>> = self.devices.after(job.last.as_deref()).take(count).collect();
        let Some(last) = chunk.last() else { return job.ended(JobStatus::Completed, None, tick(now)) };
        let mut after = Job { status: JobStatus::Running, last: Some(last.identity.device.to_string()), ..job.clone() };
        for device in chunk.iter().filter(|device| query::eval(condition, device.as_ref()) == Tri::True) {
            let written = self.patch_twin(&device.identity.twin_ref(), &job.patch, &IfMatch::Any, now);
            let status = if written.is_ok() { JobStatus::Completed } else { JobStatus::Failed };
            *(if written.is_ok() { &mut after.succeeded } else { &mut after.failed }) += 1;
            let device = device.identity.device.clone();
            let row = JobRow { device, job: job.id.clone(), status, created: job.created, at: tick(now) };
            self.jobs.rows.push_back(Arc::new(row));
        }
        while self.jobs.rows.len() > ROWS_MAX {
            self.jobs.rows.pop_front();
        }
        after
    }

    fn set_job(&mut self, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        self.jobs.all.insert(job.id.clone(), Arc::clone(&job));
        self.kept(Kept::Job { id: job.id.clone(), after: Some(Arc::clone(&job)) });
        job
    }

    /// Forgets what ended long ago.
    fn forget_jobs(&mut self, now: Timestamp) {
        let old = |job: &&Arc<Job>| job.end.is_some_and(|end| now.duration_since(end) > HISTORY);
        let old: Vec<JobId> = self.jobs.all.values().filter(old).map(|job| job.id.clone()).collect();
        for id in old {
            self.jobs.all.remove(&id);
            self.jobs.rows.retain(|row| row.job != id);
            self.kept(Kept::Job { id, after: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::identity::IdentitySpec;
    use super::super::super::stored;
    use super::*;
    use crate::twin::{MergePatch, TwinRef};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn id(text: &str) -> JobId {
        JobId::new(text).unwrap()
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn spec(condition: &str, start: Option<i64>) -> JobSpec {
        JobSpec {
            document: Object::new(),
            patch: MergePatch { tags: None, desired: Some(object(r#"{"x":1,"gone":null}"#)) },
            condition: condition.to_owned(),
            start: start.map(at),
            seconds_max: Some(60),
        }
    }

    /// Five devices; d1 has no room for another kilobyte.
    fn registry() -> Registry {
        let mut registry = Registry::default();
        for number in 0..5 {
            let device = DeviceId::new(&format!("d{number}")).unwrap();
            let mut random = |bytes: &mut [u8]| bytes.fill(1);
            let spec = IdentitySpec::default();
            registry.put_identity(&device, spec, &IfMatch::Absent, &mut random, at(0)).unwrap();
            let tags = MergePatch { tags: Some(object(r#"{"n":1}"#)), desired: Some(object(r#"{"gone":1}"#)) };
            registry.patch_twin(&TwinRef::device(device), &tags, &IfMatch::Absent, at(0)).unwrap();
        }
        registry
    }

    fn run(registry: &mut Registry, now: Timestamp) -> JobsNext {
        loop {
            match registry.step_jobs(2, now) {
                JobsNext::Step => {}
                next @ (JobsNext::At(_) | JobsNext::Nothing) => return next,
            }
        }
    }

    #[test]
    fn a_job_patches_each_device_that_meets_its_condition_once() {
        let mut registry = registry();
        registry.put_job(&id("j"), spec("tags.n = 1 AND deviceId != 'd3'", None), 1, at(1)).unwrap();
        assert_eq!(run(&mut registry, at(2)), JobsNext::Nothing);
        let job = registry.job(&id("j")).unwrap();
        assert_eq!((job.status, job.succeeded, job.failed, job.end), (JobStatus::Completed, 4, 0, Some(at(2))));
        for number in 0..5 {
            let device = registry.device(&DeviceId::new(&format!("d{number}")).unwrap()).unwrap();
            let expected = if number == 3 { r#"{"gone":1}"# } else { r#"{"x":1}"# };
            assert_eq!(device.twin.desired.values, object(expected), "d{number}");
            assert_eq!(device.twin.version, if number == 3 { 3 } else { 4 }, "d{number}");
        }
        let rows: Vec<String> = registry.job_rows().map(|row| row.device.to_string()).collect();
        assert_eq!(rows, ["d0", "d1", "d2", "d4"]);
        let row = registry.job_rows().next().unwrap();
        assert_eq!(row.value(&["status".to_owned()]).as_deref(), Some(&Value::from("completed")));
        assert_eq!(row.value(&["jobType".to_owned()]).as_deref(), Some(&Value::from(KIND)));
    }

    #[test]
    fn a_job_waits_for_its_time_and_a_restart_resumes_it_where_it_was() {
        let mut registry = registry();
        registry.put_job(&id("j"), spec("IS_DEFINED(deviceId)", Some(50)), 1, at(1)).unwrap();
        assert_eq!(registry.job(&id("j")).unwrap().status, JobStatus::Scheduled);
        assert_eq!(run(&mut registry, at(2)), JobsNext::At(at(50)));
        assert_eq!(registry.step_jobs(2, at(50)), JobsNext::Step);
        let half = registry.job(&id("j")).unwrap();
        assert_eq!((half.status, half.succeeded, half.last.as_deref()), (JobStatus::Running, 2, Some("d1")));
        let mut again = Registry::default();
        for device in registry.devices_after(None) {
            let (key, record) = (device.identity.device.as_str(), stored::device(&device));
            again.restore(key, record.as_slice().into(), &stored::outline(key, &record).unwrap()).unwrap();
        }
        again.restore_job(Job::clone(&half));
        assert_eq!(run(&mut again, at(51)), JobsNext::Nothing);
        assert_eq!(again.job(&id("j")).unwrap().succeeded, 5);
        assert!(again.devices_after(None).all(|device| device.twin.version == 4), "each once");
    }

    #[test]
    fn a_bad_condition_and_a_job_that_takes_too_long_fail_when_they_run() {
        let mut registry = registry();
        registry.put_job(&id("bad"), spec("tags.n =", None), 9, at(1)).unwrap();
        registry.put_job(&id("slow"), spec("tags.n = 1", None), 9, at(1)).unwrap();
        assert_eq!(run(&mut registry, at(62)), JobsNext::Nothing);
        for name in ["bad", "slow"] {
            let job = registry.job(&id(name)).unwrap();
            assert_eq!((job.status, job.succeeded), (JobStatus::Failed, 0), "{name}");
            assert!(job.failure.is_some());
        }
    }

    #[test]
    fn a_twin_that_does_not_take_the_patch_is_counted_as_failed() {
        let mut registry = registry();
        let long = MergePatch { tags: Some(object(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)))), desired: None };
        let spec = JobSpec { patch: long, ..spec("deviceId = 'd0'", None) };
        registry.put_job(&id("j"), spec, 1, at(1)).unwrap();
        run(&mut registry, at(2));
        let job = registry.job(&id("j")).unwrap();
        assert_eq!((job.status, job.succeeded, job.failed), (JobStatus::Completed, 0, 1));
        assert_eq!(registry.job_rows().next().unwrap().status, JobStatus::Failed);
    }

    #[test]
    fn ids_are_taken_once_active_jobs_are_few_and_what_ended_cannot_be_cancelled() {
        let mut registry = registry();
        let code = |result: Result<Arc<Job>, Refusal>| {
            result.map_or_else(|refusal| (refusal.status(), refusal.code()), |_| (200, ""))
        };
        assert_eq!(code(registry.put_job(&id("a"), spec("tags.n = 1", Some(50)), 1, at(1))), (200, ""));
        assert_eq!(code(registry.put_job(&id("a"), spec("tags.n = 1", None), 9, at(1))), (409, "JobAlreadyExists"));
        let second = registry.put_job(&id("b"), spec("tags.n = 1", None), 1, at(1));
        assert_eq!(code(second), (429, "ThrottlingMaxActiveJobCountExceeded"), "a scheduled one holds the slot");
        assert_eq!(code(registry.cancel_job(&id("b"), at(2))), (404, "JobNotFound"));
        assert_eq!(code(registry.cancel_job(&id("a"), at(2))), (200, ""));
        assert_eq!(registry.job(&id("a")).unwrap().status, JobStatus::Cancelled);
        assert_eq!(code(registry.cancel_job(&id("a"), at(3))), (405, "OperationNotAllowedInCurrentState"));
        assert_eq!(run(&mut registry, at(60)), JobsNext::Nothing);
        assert_eq!(registry.device(&DeviceId::new("d0").unwrap()).unwrap().twin.version, 3, "nothing was done");
        let month = 31 * 24 * 3600;
        assert_eq!(code(registry.put_job(&id("a"), spec("tags.n = 1", None), 1, at(month))), (200, ""), "forgotten");
    }
}
