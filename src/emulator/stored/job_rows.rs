//! The form of the rows of `devices.jobs` in the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::job::{JobId, JobKind};
use super::super::registry::{JobRow, RowBatch};
use super::super::wire;
use super::{parse, ticks, time};
use crate::twin::{DeviceId, Value};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRow {
    device: String,
    job: String,
    kind: String,
    created: i64,
    started: i64,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<(String, String)>,
}

/// The record of the rows of a step.
#[must_use]
pub fn job_rows(batch: &RowBatch) -> Vec<u8> {
    let row = |row: &Arc<JobRow>| {
        let (answer, error) = match &row.result {
            Ok(answer) => (answer.as_ref().map(Value::to_json), None),
            Err(error) => (None, Some(error.clone())),
        };
        StoredRow {
            device: row.device.to_string(),
            job: row.job.to_string(),
            kind: row.kind.as_str().to_owned(),
            created: ticks(row.created),
            started: ticks(row.started),
            at: ticks(row.at),
            answer,
            error,
        }
    };
    wire::json(&batch.rows.iter().map(row).collect::<Vec<_>>())
}

/// The rows of a record.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn read_job_rows(key: &str, record: &[u8]) -> Result<RowBatch, String> {
    let number = key.parse().map_err(|_| "its key is no number".to_owned())?;
    let row = |stored: StoredRow| {
        let result = match stored.error {
            Some(error) => Err(error),
            None => Ok(stored.answer.map(Value::from_json)),
        };
        Ok(Arc::new(JobRow {
            device: DeviceId::new(&stored.device).map_err(|error| error.to_string())?,
            job: JobId::new(&stored.job).map_err(|refusal| refusal.to_string())?,
            kind: JobKind::parse(&stored.kind).ok_or("an unknown kind")?,
            created: time(stored.created)?,
            started: time(stored.started)?,
            at: time(stored.at)?,
            result,
        }))
    };
    let rows: Vec<StoredRow> = parse(record)?;
    let rows = rows.into_iter().map(row).collect::<Result<Vec<_>, String>>()?;
    if rows.is_empty() { Err("there are no rows in it".to_owned()) } else { Ok(RowBatch { number, rows }) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn rows_survive_the_store_and_damage_is_named() {
        let row = |result| {
            Arc::new(JobRow {
                device: DeviceId::new("d").unwrap(),
                job: JobId::new("j").unwrap(),
                kind: JobKind::DeviceMethod,
                created: Timestamp::UNIX_EPOCH,
                started: Timestamp::from_second(3).unwrap(),
                at: Timestamp::from_second(4).unwrap(),
                result,
            })
        };
        let rows = vec![
            row(Ok(None)),
            row(Ok(Some(Value::parse_json(r#"{"status":200,"payload":[1.0,null]}"#).unwrap()))),
            row(Err(("DeviceNotOnline".to_owned(), "away".to_owned()))),
        ];
        let batch = RowBatch { number: 7, rows };
        assert_eq!(read_job_rows(&RowBatch::key(7), &job_rows(&batch)).unwrap(), batch);
        for (key, record) in [("x", "[]"), ("1", "[]"), ("1", "{}"), ("1", r#"[{"device":"d"}]"#)] {
            assert!(read_job_rows(key, record.as_bytes()).is_err(), "{key} {record}");
        }
    }
}
