//! Scheduled jobs (`iot-hub.md` 2.8).
//!
//! Invariant: a job goes forward only: scheduled, running, then one of the three ends. Its progress is one key, so a
//! job that was interrupted goes on where it was.

use jiff::{SignedDuration, Timestamp};

use super::error::Refusal;
use super::mqtt::MethodCall;
use super::twin_record::tick;
use crate::query::{self, Expr};
use crate::twin::{MergePatch, Object};

/// The longest id, in characters (`iot-hub.md` 2.8).
const ID_LENGTH_MAX: usize = 64;
/// How far ahead a job may begin (`iot-hub.md` 2.8).
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(168);
/// How long a job may take that does not say; what a hub takes is unproven.
const SECONDS_DEFAULT: i64 = 3600;

/// The id of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(Box<str>);

impl JobId {
    /// Takes `text` as an id.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when it is empty, too long or holds another character (`iot-hub.md` 2.8).
    pub fn new(text: &str) -> Result<Self, Refusal> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '\'');
        if (1..=ID_LENGTH_MAX).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.into()));
        }
        Err(Refusal::ArgumentInvalid(format!(
            "the id of a job has 1 to {ID_LENGTH_MAX} lower-case letters, digits, hyphens and apostrophes"
        )))
    }

    /// The id as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a job is (`iot-hub.md` 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Its time has not come.
    Scheduled,
    /// It will begin at once.
    Queued,
    /// It is at it.
    Running,
    /// It looked at every device.
    Completed,
    /// Its condition is none, or it took too long.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// As bodies write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of its text, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }

    /// Whether the job may still do something.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Scheduled | Self::Queued | Self::Running)
    }
}

/// The sort of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Patches twins.
    UpdateTwin,
    /// Calls a direct method.
    DeviceMethod,
}

impl JobKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::UpdateTwin, Self::DeviceMethod];

    /// As bodies and rows write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpdateTwin => "scheduleUpdateTwin",
            Self::DeviceMethod => "scheduleDeviceMethod",
        }
    }

    /// The kind of its text, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

/// What a job does to each device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobAction {
    /// Merges this into the twin.
    UpdateTwin(MergePatch),
    /// Calls this.
    DeviceMethod(MethodCall),
}

impl JobAction {
    /// Its sort.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::UpdateTwin(_) => JobKind::UpdateTwin,
            Self::DeviceMethod(_) => JobKind::DeviceMethod,
        }
    }
}

/// What a PUT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// `updateTwin` or `cloudToDeviceMethod` as it was written.
    pub document: Object,
    /// What it says.
    pub action: JobAction,
    /// Which devices; the part of a query behind WHERE.
    pub condition: String,
    /// When; `None` is now.
    pub start: Option<Timestamp>,
    /// How long it may take, in seconds.
    pub seconds_max: Option<i64>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// `updateTwin` or `cloudToDeviceMethod` as it was written.
    pub document: Object,
    /// What it says.
    pub action: JobAction,
    /// Which devices.
    pub condition: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it begins.
    pub start: Timestamp,
    /// When it ended.
    pub end: Option<Timestamp>,
    /// How long it may take, in seconds.
    pub seconds_max: i64,
    /// How far it is.
    pub status: JobStatus,
    /// Why it failed.
    pub failure: Option<String>,
    /// Devices patched, or that answered the method.
    pub succeeded: u64,
    /// Devices whose twins took the patch not, or that gave no answer.
    pub failed: u64,
    /// The device looked at last.
    pub last: Option<String>,
}

impl Job {
    /// A new job.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] for a start more than 168 hours ahead or a time that is none.
    pub fn new(id: JobId, spec: JobSpec, now: Timestamp) -> Result<Self, Refusal> {
        let start = spec.start.map_or(now, tick).max(now);
        if start.duration_since(now) > AHEAD_MAX {
            return Err(Refusal::ArgumentInvalid("startTime is at most 168 hours ahead".to_owned()));
        }
        let seconds_max = spec.seconds_max.unwrap_or(SECONDS_DEFAULT);
        if seconds_max < 1 {
            return Err(Refusal::ArgumentInvalid("maxExecutionTimeInSeconds is at least 1".to_owned()));
        }
        Ok(Self {
            id,
            document: spec.document,
            action: spec.action,
            condition: spec.condition,
            created: now,
            start,
            end: None,
            seconds_max,
            status: if start > now { JobStatus::Scheduled } else { JobStatus::Queued },
            failure: None,
            succeeded: 0,
            failed: 0,
            last: None,
        })
    }

    /// The condition as a tree.
    ///
    /// # Errors
    /// What is wrong with it. Such a job is accepted and fails when it begins (`iot-hub.md` 2.8).
    pub fn parsed_condition(&self) -> Result<Expr, String> {
        query::parse_condition(&self.condition).map_err(|error| error.to_string())
    }

    /// Whether it has taken longer than it may.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.time_left(now).is_negative()
    }

    /// How long it may still take.
    #[must_use]
    pub fn time_left(&self, now: Timestamp) -> SignedDuration {
        SignedDuration::from_secs(self.seconds_max).saturating_sub(now.duration_since(self.start))
    }

    /// The job at its end.
    #[must_use]
    pub fn ended(&self, status: JobStatus, failure: Option<String>, now: Timestamp) -> Self {
        Self { status, failure, end: Some(now), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_charset_of_jobs() {
        for good in ["a", "job-1'", &"x".repeat(64)] {
            assert_eq!(JobId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Job", "a_b", "a b", &"x".repeat(65)] {
            assert_eq!(JobId::new(bad).unwrap_err().code(), "ArgumentInvalid", "{bad:?}");
        }
    }

    #[test]
    fn a_job_begins_at_most_a_week_ahead() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let spec = |start: Option<i64>, seconds_max: Option<i64>| JobSpec {
            document: Object::new(),
            action: JobAction::UpdateTwin(MergePatch::default()),
            condition: String::new(),
            start: start.map(|ahead| now + SignedDuration::from_secs(ahead)),
            seconds_max,
        };
        let make = |spec| Job::new(JobId::new("j").unwrap(), spec, now).map(|job| (job.status, job.start));
        assert_eq!(make(spec(None, None)), Ok((JobStatus::Queued, now)));
        assert_eq!(make(spec(Some(-60), None)), Ok((JobStatus::Queued, now)));
        assert_eq!(make(spec(Some(1), None)).unwrap().0, JobStatus::Scheduled);
        assert!(make(spec(Some(168 * 3600), None)).is_ok());
        for bad in [spec(Some(168 * 3600 + 1), None), spec(None, Some(0))] {
            assert_eq!(make(bad).unwrap_err().code(), "ArgumentInvalid");
        }
    }
}
