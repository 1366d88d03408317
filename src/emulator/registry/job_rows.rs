//! The rows of `devices.jobs`: what each job did to each device (`iot-hub.md` 5.3).
//!
//! Invariant: the rows of one step of a job are kept and forgotten together. At most [`ROWS_MAX`] rows with outcomes of
//! [`OUTCOME_BYTES_MAX`] altogether are held; the oldest go first.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::error::Refusal;
use super::super::job::{Job, JobId, JobKind, JobStatus};
use super::super::wire;
use crate::query::Row;
use crate::twin::{DeviceId, Object, Value};

/// The most rows; the oldest go first.
const ROWS_MAX: usize = 200_000;
/// The most bytes of what methods answered and of what was wrong.
const OUTCOME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The device.
    pub device: DeviceId,
    /// The job.
    pub job: JobId,
    /// Its sort.
    pub kind: JobKind,
    /// When the job was made.
    pub created: Timestamp,
    /// When the device's turn came.
    pub started: Timestamp,
    /// When it was done.
    pub at: Timestamp,
    /// What stands in `outcome`, if anything does; or code and text of what was wrong.
    pub result: Result<Option<Value>, (String, String)>,
}

/// The rows of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowBatch {
    /// Its number, which only grows.
    pub number: u64,
    /// Its rows, all of one job.
    pub rows: Vec<Arc<JobRow>>,
}

impl JobRow {
    /// The row of `device` in `job`, with what came of it.
    #[must_use]
    pub fn new(
        job: &Job,
        device: DeviceId,
        started: Timestamp,
        at: Timestamp,
        result: Result<Option<Value>, Refusal>,
    ) -> Self {
        let result = result.map_err(|refusal| (refusal.code().to_owned(), refusal.to_string()));
        Self { device, job: job.id.clone(), kind: job.action.kind(), created: job.created, started, at, result }
    }

    /// The row as `SELECT *` gives it.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let status = if self.result.is_ok() { JobStatus::Completed } else { JobStatus::Failed };
        let mut row: Object = [
            ("deviceId", self.device.to_string()),
            ("jobId", self.job.to_string()),
            ("jobType", self.kind.as_str().to_owned()),
            ("status", status.as_str().to_owned()),
            ("startTimeUtc", wire::date(self.started)),
            ("endTimeUtc", wire::date(self.at)),
            ("createdDateTimeUtc", wire::date(self.created)),
            ("lastUpdatedDateTimeUtc", wire::date(self.at)),
        ]
        .map(|(name, text)| (name.to_owned(), Value::from(text)))
        .into();
        match &self.result {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let outcome = Object::from([("deviceMethodResponse".to_owned(), answer.clone())]);
                row.insert("outcome".to_owned(), Value::Object(outcome));
            }
            Err((code, text)) => {
                let fields = [("code", code), ("description", text)];
                let error = fields.map(|(name, text)| (name.to_owned(), Value::from(text.clone()))).into();
                row.insert("error".to_owned(), Value::Object(error));
            }
        }
        row
    }

    fn result_bytes(&self) -> usize {
        match &self.result {
            Ok(None) => 0,
            Ok(Some(answer)) => answer.to_string().len(),
            Err((code, text)) => code.len() + text.len(),
        }
    }
}

impl Row for JobRow {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (name, below) = path.split_first()?;
        let whole = self.to_object().remove(name)?;
        below.iter().try_fold(&whole, |value, key| value.as_object()?.get(key)).cloned().map(Cow::Owned)
    }
}

impl RowBatch {
    /// The key of a number in the store: keys are in the order of numbers.
    #[must_use]
    pub fn key(number: u64) -> String {
        format!("{number:020}")
    }

    fn result_bytes(&self) -> usize {
        self.rows.iter().map(|row| row.result_bytes()).sum()
    }
}

/// What the store has to keep of rows: the number of a batch and its rows, or `None` to forget them.
type KeptRows = (u64, Option<Arc<RowBatch>>);

/// All rows, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct JobRows {
    batches: VecDeque<Arc<RowBatch>>,
    number_last: u64,
    rows: usize,
    result_bytes: usize,
}

impl JobRows {
    /// Takes in a batch that the store kept.
    pub(super) fn restore(&mut self, batch: RowBatch) {
        self.number_last = self.number_last.max(batch.number);
        self.push(Arc::new(batch));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<JobRow>> {
        self.batches.iter().flat_map(|batch| &batch.rows)
    }

    /// Adds the rows of a step.
    pub(super) fn add(&mut self, rows: Vec<JobRow>) -> Vec<KeptRows> {
        if rows.is_empty() {
            return Vec::new();
        }
        self.number_last += 1;
        let batch = Arc::new(RowBatch { number: self.number_last, rows: rows.into_iter().map(Arc::new).collect() });
        self.push(Arc::clone(&batch));
        let mut kept = vec![(batch.number, Some(batch))];
        while self.batches.len() > 1 && (self.rows > ROWS_MAX || self.result_bytes > OUTCOME_BYTES_MAX) {
            kept.extend(self.batches.pop_front().map(|oldest| {
                self.subtract(&oldest);
                (oldest.number, None)
            }));
        }
        kept
    }

    /// Forgets the rows of a job; the numbers of their batches.
    pub(super) fn forget(&mut self, job: &JobId) -> Vec<u64> {
        let is_its_own = |batch: &Arc<RowBatch>| batch.rows.first().is_some_and(|row| row.job == *job);
        let gone: Vec<Arc<RowBatch>> = self.batches.iter().filter(|batch| is_its_own(batch)).cloned().collect();
        self.batches.retain(|batch| !is_its_own(batch));
        gone.iter().for_each(|batch| self.subtract(batch));
        gone.iter().map(|batch| batch.number).collect()
    }

    fn push(&mut self, batch: Arc<RowBatch>) {
        self.rows += batch.rows.len();
        self.result_bytes += batch.result_bytes();
        self.batches.push_back(batch);
    }

    fn subtract(&mut self, batch: &RowBatch) {
        self.rows -= batch.rows.len();
        self.result_bytes -= batch.result_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::UNIX_EPOCH;

    fn rows(job: &str, count: usize, answer: &str) -> Vec<JobRow> {
        let row = |number: usize| JobRow {
            device: DeviceId::new(&format!("d{number}")).unwrap(),
            job: JobId::new(job).unwrap(),
            kind: JobKind::DeviceMethod,
            created: T,
            started: T,
            at: T,
            result: Ok(Some(Value::from(answer))),
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn the_oldest_rows_make_room_and_the_rows_of_a_job_go_with_it() {
        let mut all = JobRows::default();
        let numbers =
            |kept: &[KeptRows]| kept.iter().map(|(number, rows)| (*number, rows.is_some())).collect::<Vec<_>>();
        assert_eq!(numbers(&all.add(rows("a", ROWS_MAX - 1, ""))), [(1, true)]);
        assert_eq!(numbers(&all.add(rows("b", 1, ""))), [(2, true)]);
        assert_eq!(numbers(&all.add(rows("c", 1, ""))), [(3, true), (1, false)]);
        assert_eq!(all.iter().count(), 2);
        assert_eq!(all.forget(&JobId::new("b").unwrap()), [2]);
        assert_eq!((all.iter().count(), all.rows), (1, 1));
        let large = "x".repeat(OUTCOME_BYTES_MAX / 2);
        assert_eq!(numbers(&all.add(rows("d", 1, &large))), [(4, true)]);
        assert_eq!(numbers(&all.add(rows("e", 1, &large))), [(5, true), (3, false), (4, false)]);
        assert_eq!(all.add(Vec::new()), []);
    }

    #[test]
    fn every_part_of_a_row_can_be_asked_for() {
        let row = &rows("a", 1, "yes")[0];
        let at = |path: &str| {
            row.value(&path.split('.').map(str::to_owned).collect::<Vec<_>>()).map(|value| value.to_string())
        };
        assert_eq!(at("jobType").as_deref(), Some("\"scheduleDeviceMethod\""));
        assert_eq!(at("outcome.deviceMethodResponse").as_deref(), Some("\"yes\""));
        assert_eq!(at("outcome.none"), None);
        assert_eq!(at("error"), None);
    }
}
