//! The scheduled jobs of a hub and their effect on its twins, some twins at a time (`iot-hub.md` 2.8).
//!
//! Invariant: what a step did to twins, its rows and how far the job is go to the store together, so a job that was
//! interrupted patches no twin twice. The devices of a step of method calls may be called again.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::error::Refusal;
use super::super::if_match::IfMatch;
use super::super::job::{Job, JobAction, JobId, JobSpec, JobStatus};
use super::super::mqtt::{MethodAnswer, MethodCall};
use super::super::twin_record::tick;
use super::super::wire;
use super::job_rows::{JobRow, JobRows, RowBatch};
use super::{Device, Kept, Registry};
use crate::query::{self, Expr, Tri};
use crate::twin::{DeviceId, MergePatch, TwinRef};

/// How long jobs that ended are remembered (`iot-hub.md` 6.3).
const HISTORY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The most jobs remembered. No hub states a limit; ours bounds the memory.
const JOBS_MAX: usize = 10_000;
/// The most devices looked at in one step of counting, so that others get at the registry in between.
const COUNTED_AT_ONCE: usize = 128;

/// The jobs, and their rows by device.
#[derive(Debug, Clone, Default)]
pub(super) struct Jobs {
    all: BTreeMap<JobId, Arc<Job>>,
    rows: JobRows,
    /// The jobs whose devices are being called, and how many of them.
    calling: BTreeMap<JobId, u64>,
    /// The devices that the jobs that began have still to do. Counted again after a restart.
    ahead: BTreeMap<JobId, Ahead>,
}

/// The devices that a job has still to do, as they were when it began.
#[derive(Debug, Clone)]
struct Ahead {
    devices: u64,
    /// The device looked at last; `None` before the first, of a job that has done nothing.
    last: Option<String>,
    counted: bool,
}

/// The devices of a job that are not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// Those being called.
    pub running: u64,
    /// Those whose turn will come, as they were counted when the job began; none before.
    pub pending: u64,
}

/// What the jobs wait for after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobsNext {
    /// Another step.
    Step {
        /// How many twins this one wrote to.
        twins: u32,
        /// The size of what was written to each.
        bytes: usize,
    },
    /// Calls to devices, and beside them another step of the other jobs.
    Call(Box<MethodStep>),
    /// This time.
    At(Timestamp),
    /// A new job.
    Nothing,
}

/// Some devices of a job that a method is to be called of; [`Registry::finish_calls`] takes what they answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodStep {
    /// The method.
    pub call: MethodCall,
    /// The devices, at least one.
    pub devices: Vec<DeviceId>,
    /// How long the job may still take.
    pub time_left: SignedDuration,
    job: JobId,
    started: Timestamp,
    /// The device looked at last.
    last: String,
}

impl Registry {
    /// Takes in a job that the store kept.
    pub fn restore_job(&mut self, job: Job) {
        self.jobs.all.insert(job.id.clone(), Arc::new(job));
    }

    /// Takes in the rows of one step that the store kept, the oldest first.
    pub fn restore_job_rows(&mut self, batch: RowBatch) {
        self.jobs.rows.restore(batch);
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

    /// How many devices of a job are not done.
    #[must_use]
    pub fn job_progress(&self, id: &JobId) -> JobProgress {
        let running = self.jobs.calling.get(id).copied().unwrap_or_default();
        let ahead = self.jobs.ahead.get(id).map_or(0, |ahead| ahead.devices);
        JobProgress { running, pending: ahead.saturating_sub(running) }
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

    /// Goes on with the first job whose time has come, over at most `count` devices: its devices are counted, then done.
    /// Jobs whose devices are being
    /// called wait for [`Registry::finish_calls`].
    pub fn step_jobs(&mut self, count: usize, now: Timestamp) -> JobsNext {
        let calling = &self.jobs.calling;
        let active = self.jobs.all.values().filter(|job| job.status.is_active() && !calling.contains_key(&job.id));
        let Some(job) = active.min_by_key(|job| (job.start, job.id.clone())).cloned() else { return JobsNext::Nothing };
        if job.start > now {
            return JobsNext::At(job.start);
        }
        match (job.parsed_condition(), &job.action) {
            (Err(error), _) => {
                self.set_job(job.ended(JobStatus::Failed, Some(error), tick(now)));
                JobsNext::Step { twins: 0, bytes: 0 }
            }
            (Ok(_), _) if job.is_overdue(now) => {
                let reason = "the job took longer than it may".to_owned();
                self.set_job(job.ended(JobStatus::Failed, Some(reason), tick(now)));
                JobsNext::Step { twins: 0, bytes: 0 }
            }
            (Ok(condition), _) if self.count_some(&job, &condition) => JobsNext::Step { twins: 0, bytes: 0 },
            (Ok(condition), JobAction::UpdateTwin(patch)) => self.patch_some(&job, patch, &condition, count, now),
            (Ok(condition), JobAction::DeviceMethod(call)) => self.call_some(&job, call, &condition, count, now),
        }
    }

    /// Goes on counting the devices that a job has still to do; whether there was anything to count.
    fn count_some(&mut self, job: &Job, condition: &Expr) -> bool {
        let fresh = || Ahead { devices: 0, last: job.last.clone(), counted: false };
        let ahead = self.jobs.ahead.entry(job.id.clone()).or_insert_with(fresh);
        if ahead.counted {
            return false;
        }
        let mut looked_at = 0;
        let mut last = None;
        for device in self.devices.after(ahead.last.as_deref()).take(COUNTED_AT_ONCE) {
            looked_at += 1;
            ahead.devices += u64::from(query::eval(condition, device.as_ref()) == Tri::True);
            last = Some(device.identity.device.to_string());
        }
        ahead.counted = looked_at < COUNTED_AT_ONCE;
        ahead.last = last.or(ahead.last.take());
        true
    }

    /// Notes that so many devices of a job are done.
    fn count_done(&mut self, id: &JobId, devices: usize) {
        if let Some(ahead) = self.jobs.ahead.get_mut(id) {
            ahead.devices = ahead.devices.saturating_sub(u64::try_from(devices).unwrap_or(u64::MAX));
        }
    }

    /// The next devices of a job, those among them that it is about, and the job behind them; `None` when there are
    /// no more devices.
    fn advance(&self, job: &Job, condition: &Expr, count: usize) -> Option<(Vec<Arc<Device>>, Job)> {
        let mut chunk: Vec<Arc<Device>> = self.devices.after(job.last.as_deref()).take(count).collect();
        let last = chunk.last()?.identity.device.to_string();
        chunk.retain(|device| query::eval(condition, device.as_ref()) == Tri::True);
        Some((chunk, Job { status: JobStatus::Running, last: Some(last), ..job.clone() }))
    }

    fn patch_some(
        &mut self,
        job: &Job,
        patch: &MergePatch,
        condition: &Expr,
        count: usize,
        now: Timestamp,
    ) -> JobsNext {
        let Some((devices, mut after)) = self.advance(job, condition, count) else { return self.complete(job, now) };
        let mut rows = Vec::with_capacity(devices.len());
        for device in devices {
            let device = device.identity.device.clone();
            let written = self.patch_twin(&TwinRef::device(device.clone()), patch, &IfMatch::Any, now);
            let done = written.map(|_| None);
            *(if done.is_ok() { &mut after.succeeded } else { &mut after.failed }) += 1;
            rows.push(JobRow::new(&after, device, tick(now), tick(now), done));
        }
        let (twins, bytes) = (u32::try_from(rows.len()).unwrap_or(u32::MAX), wire::json(&job.document).len());
        self.count_done(&job.id, rows.len());
        self.add_rows(rows);
        self.set_job(after);
        JobsNext::Step { twins, bytes }
    }

    fn call_some(&mut self, job: &Job, call: &MethodCall, condition: &Expr, count: usize, now: Timestamp) -> JobsNext {
        let Some((devices, after)) = self.advance(job, condition, count) else { return self.complete(job, now) };
        if devices.is_empty() {
            self.set_job(after);
            return JobsNext::Step { twins: 0, bytes: 0 };
        }
        // It stays where it was until the devices have answered; a hub that ends meanwhile calls them again.
        if job.status != JobStatus::Running {
            self.set_job(Job { status: JobStatus::Running, ..job.clone() });
        }
        self.jobs.calling.insert(job.id.clone(), u64::try_from(devices.len()).unwrap_or(u64::MAX));
        JobsNext::Call(Box::new(MethodStep {
            call: call.clone(),
            devices: devices.iter().map(|device| device.identity.device.clone()).collect(),
            time_left: job.time_left(now),
            job: job.id.clone(),
            started: tick(now),
            last: after.last.unwrap_or_default(),
        }))
    }

    /// Takes what the devices of a step answered: the status and the JSON of each, or why there is none. A job that was
    /// cancelled meanwhile stays so.
    pub fn finish_calls(
        &mut self,
        step: &MethodStep,
        answers: Vec<(DeviceId, Result<MethodAnswer, Refusal>)>,
        now: Timestamp,
    ) {
        self.jobs.calling.remove(&step.job);
        self.count_done(&step.job, answers.len());
        let Some(job) = self.job(&step.job) else { return };
        let mut after = Job { last: Some(step.last.clone()), ..Job::clone(&job) };
        let mut rows = Vec::with_capacity(answers.len());
        for (device, answer) in answers {
            let outcome = answer.and_then(|(status, payload)| wire::method_outcome(status, &payload).map(Some));
            *(if outcome.is_ok() { &mut after.succeeded } else { &mut after.failed }) += 1;
            rows.push(JobRow::new(&after, device, step.started, tick(now), outcome));
        }
        self.add_rows(rows);
        self.set_job(after);
    }

    fn complete(&mut self, job: &Job, now: Timestamp) -> JobsNext {
        self.set_job(job.ended(JobStatus::Completed, None, tick(now)));
        JobsNext::Step { twins: 0, bytes: 0 }
    }

    fn add_rows(&mut self, rows: Vec<JobRow>) {
        for (number, rows) in self.jobs.rows.add(rows) {
            self.kept(Kept::JobRows { number, rows });
        }
    }

    fn set_job(&mut self, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        if !job.status.is_active() {
            self.jobs.ahead.remove(&job.id);
        }
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
            for number in self.jobs.rows.forget(&id) {
                self.kept(Kept::JobRows { number, rows: None });
            }
            self.kept(Kept::Job { id, after: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::identity::IdentitySpec;
    use super::super::super::stored;
    use super::*;
    use crate::query::Row;
    use crate::twin::{MergePatch, Object, TwinRef, Value};

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
            action: JobAction::UpdateTwin(MergePatch { tags: None, desired: Some(object(r#"{"x":1,"gone":null}"#)) }),
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
                JobsNext::Step { .. } => {}
                next @ (JobsNext::At(_) | JobsNext::Nothing | JobsNext::Call(_)) => return next,
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
        assert_eq!(row.value(&["jobType".to_owned()]).as_deref(), Some(&Value::from("scheduleUpdateTwin")));
    }

    #[test]
    fn a_job_waits_for_its_time_and_a_restart_resumes_it_where_it_was() {
        let mut registry = registry();
        registry.put_job(&id("j"), spec("IS_DEFINED(deviceId)", Some(50)), 1, at(1)).unwrap();
        assert_eq!(registry.job(&id("j")).unwrap().status, JobStatus::Scheduled);
        assert_eq!(run(&mut registry, at(2)), JobsNext::At(at(50)));
        assert!(matches!(registry.step_jobs(2, at(50)), JobsNext::Step { twins: 0, .. }), "it is counted first");
        assert!(matches!(registry.step_jobs(2, at(50)), JobsNext::Step { twins: 2, .. }));
        let half = registry.job(&id("j")).unwrap();
        assert_eq!((half.status, half.succeeded, half.last.as_deref()), (JobStatus::Running, 2, Some("d1")));
        let mut again = Registry::default();
        for device in registry.devices_after(None) {
            let (key, record) = (device.identity.device.as_str(), stored::device(&device));
            again.restore(key, record.as_slice().into(), &stored::outline(key, &record).unwrap()).unwrap();
        }
        again.restore_job(Job::clone(&half));
        for kept in registry.take_log() {
            if let Kept::JobRows { number, rows: Some(batch) } = kept {
                let record = stored::job_rows(&batch);
                again.restore_job_rows(stored::read_job_rows(&RowBatch::key(number), &record).unwrap());
            }
        }
        assert_eq!(run(&mut again, at(51)), JobsNext::Nothing);
        assert_eq!(again.job(&id("j")).unwrap().succeeded, 5);
        assert!(again.devices_after(None).all(|device| device.twin.version == 4), "each once");
        let rows: Vec<String> = again.job_rows().map(|row| row.device.to_string()).collect();
        assert_eq!(rows, ["d0", "d1", "d2", "d3", "d4"], "the rows of both lives");
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
        let spec = JobSpec { action: JobAction::UpdateTwin(long), ..spec("deviceId = 'd0'", None) };
        registry.put_job(&id("j"), spec, 1, at(1)).unwrap();
        run(&mut registry, at(2));
        let job = registry.job(&id("j")).unwrap();
        assert_eq!((job.status, job.succeeded, job.failed), (JobStatus::Completed, 0, 1));
        let row = registry.job_rows().next().unwrap().to_object();
        assert_eq!(row["status"], Value::from("failed"));
        assert_eq!(row["error"].get(["code"]), Some(&Value::from("ArgumentInvalid")));
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

    #[test]
    fn the_devices_of_a_job_are_pending_then_running_then_done() {
        let mut registry = registry();
        let counts = |registry: &Registry, name: &str| {
            let (job, progress) = (registry.job(&id(name)).unwrap(), registry.job_progress(&id(name)));
            (job.status, progress.pending, progress.running, job.succeeded, job.failed)
        };
        registry.put_job(&id("later"), spec("tags.n = 1", Some(50)), 9, at(1)).unwrap();
        registry.put_job(&id("t"), spec("deviceId != 'd3'", None), 9, at(1)).unwrap();
        assert_eq!(counts(&registry, "t"), (JobStatus::Queued, 0, 0, 0, 0), "not looked at yet");
        registry.step_jobs(2, at(2));
        assert_eq!(counts(&registry, "t"), (JobStatus::Queued, 4, 0, 0, 0));
        registry.step_jobs(2, at(2));
        assert_eq!(counts(&registry, "t"), (JobStatus::Running, 2, 0, 2, 0));
        assert!(matches!(run(&mut registry, at(2)), JobsNext::At(_)));
        assert_eq!(counts(&registry, "t"), (JobStatus::Completed, 0, 0, 4, 0));
        assert_eq!(counts(&registry, "later"), (JobStatus::Scheduled, 0, 0, 0, 0));
        registry.put_job(&id("m"), method_spec("deviceId != 'd3'"), 9, at(2)).unwrap();
        let JobsNext::Call(step) = run(&mut registry, at(3)) else { panic!("no calls") };
        assert_eq!(counts(&registry, "m"), (JobStatus::Running, 2, 2, 0, 0));
        let answers = step.devices.iter().map(|device| (device.clone(), Err(Refusal::DeviceNotOnline)));
        registry.finish_calls(&step, answers.collect(), at(3));
        assert_eq!(counts(&registry, "m"), (JobStatus::Running, 2, 0, 0, 2));
        // A restart counts again from where the job was.
        let mut again = self::registry();
        again.restore_job(Job::clone(&registry.job(&id("m")).unwrap()));
        again.step_jobs(2, at(4));
        assert_eq!(counts(&again, "m"), (JobStatus::Running, 2, 0, 0, 2));
        registry.cancel_job(&id("m"), at(4)).unwrap();
        assert_eq!(counts(&registry, "m"), (JobStatus::Cancelled, 0, 0, 0, 2));
    }

    fn method_spec(condition: &str) -> JobSpec {
        let call = MethodCall::new("reboot".to_owned(), b"1".to_vec(), None, None).unwrap();
        let document = object(r#"{"methodName":"reboot","payload":1}"#);
        JobSpec { document, action: JobAction::DeviceMethod(call), ..spec(condition, None) }
    }

    #[test]
    fn a_job_of_methods_calls_some_devices_at_a_time_and_notes_what_each_answered() {
        let mut registry = registry();
        registry.put_job(&id("m"), method_spec("deviceId != 'd1'"), 2, at(1)).unwrap();
        registry.put_job(&id("t"), spec("deviceId = 'd4'", None), 2, at(1)).unwrap();
        let mut called = Vec::new();
        while let JobsNext::Call(step) = run(&mut registry, at(2)) {
            assert_eq!(run(&mut registry, at(2)), JobsNext::Nothing);
            assert_eq!(registry.job(&id("t")).unwrap().status, JobStatus::Completed, "other jobs go on meanwhile");
            let answers = step.devices.iter().map(|device| {
                let answer = match device.as_str() {
                    "d3" => Err(Refusal::DeviceNotOnline),
                    "d4" => Ok((200, b"no JSON".to_vec())),
                    _ => Ok((201, br#"{"ok":true}"#.to_vec())),
                };
                (device.clone(), answer)
            });
            called.extend(step.devices.iter().map(ToString::to_string));
            let answers = answers.collect();
            registry.finish_calls(&step, answers, at(3));
        }
        assert_eq!(called, ["d0", "d2", "d3", "d4"]);
        let job = registry.job(&id("m")).unwrap();
        assert_eq!((job.status, job.succeeded, job.failed), (JobStatus::Completed, 2, 2));
        let rows: Vec<Object> =
            registry.job_rows().filter(|row| row.job == id("m")).map(|row| row.to_object()).collect();
        assert_eq!(rows[0]["jobType"], Value::from("scheduleDeviceMethod"));
        assert_eq!(
            rows[0]["outcome"],
            Value::parse_json(r#"{"deviceMethodResponse":{"payload":{"ok":true},"status":201}}"#).unwrap()
        );
        assert_eq!(rows[2]["error"].get(["code"]), Some(&Value::from("DeviceNotOnline")));
        assert_eq!(rows[3]["status"], Value::from("failed"));
    }

    #[test]
    fn a_job_of_methods_that_is_cancelled_or_interrupted_while_it_calls() {
        let mut registry = registry();
        registry.put_job(&id("m"), method_spec("deviceId = 'd0'"), 2, at(1)).unwrap();
        let JobsNext::Call(step) = run(&mut registry, at(2)) else { panic!("no calls") };
        assert_eq!(registry.step_jobs(2, at(2)), JobsNext::Nothing, "its devices are being called");
        let kept = stored::read_job("m", &stored::job(&registry.job(&id("m")).unwrap())).unwrap();
        assert_eq!(kept.status, JobStatus::Running);
        let mut again = self::registry();
        again.restore_job(kept);
        assert!(matches!(run(&mut again, at(9)), JobsNext::Call(called) if called.devices == step.devices), "again");
        registry.cancel_job(&id("m"), at(3)).unwrap();
        registry.finish_calls(&step, vec![(step.devices[0].clone(), Ok((200, Vec::new())))], at(4));
        let job = registry.job(&id("m")).unwrap();
        assert_eq!((job.status, job.succeeded), (JobStatus::Cancelled, 1));
        assert_eq!(run(&mut registry, at(5)), JobsNext::Nothing);
    }
}
