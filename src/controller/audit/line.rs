//! One line of the audit log.
//!
//! Invariant: [`FORMAT_VERSION`] changes with the meaning of a field; new fields do not change it.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use super::{Answer, Occasion};
use crate::controller::queue::Lane;
use crate::hub::HubError;
use crate::plan::{Change, SEAL_KEY, Transfer, TransferPlan, TwinPlan};
use crate::twin::{Twin, TwinRef, Value};

/// The format of a line.
pub(super) const FORMAT_VERSION: u32 = 1;

/// What became of a write, as its answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The hub took it.
    Applied,
    /// The hub refused it; nothing was written.
    Refused,
    /// No answer came: it may have been written or not.
    Unknown,
}

impl Outcome {
    /// The outcome of a write that ended in `error`; `None` when nothing was written and the same is tried again.
    pub(super) fn of_error(error: &HubError) -> Option<Self> {
        match error {
            HubError::PreconditionFailed | HubError::Throttled { .. } | HubError::Quota | HubError::QuotaShare => None,
            HubError::NotFound(_)
            | HubError::AlreadyExists(_)
            | HubError::Unauthorized { .. }
            | HubError::Rejected { .. } => Some(Self::Refused),
            HubError::Server { .. } | HubError::Transport { .. } => Some(Self::Unknown),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// What a later read tells of a write without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It was written.
    Landed,
    /// It had not been written at the time of this read.
    NotLanded,
    /// The device is gone, and with it the knowledge.
    Gone,
}

impl Found {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::NotLanded => "not_landed",
            Self::Gone => "gone",
        }
    }
}

/// A line in the making.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    format_version: u32,
    time: String,
    /// The write, or the writes of one twin that the line is about.
    pub(super) writes: Vec<String>,
    hub: String,
    twin: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Leaf>,
    /// The paths that change their owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved: Vec<String>,
    /// Whose seal gave them up, when it is not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_after: Option<u64>,
    /// The seal as it was read that justifies a removal, or that gives paths up.
    #[serde(skip_serializing_if = "Option::is_none")]
    justified_by: Option<serde_json::Value>,
}

/// One leaf written.
#[derive(Debug, Clone, Serialize)]
struct Leaf {
    path: String,
    /// The place that declares it; `None` for a leaf that is declared no more.
    source: Option<String>,
    /// Null: there was none.
    before: Option<serde_json::Value>,
    /// Null: there is none any more.
    after: Option<serde_json::Value>,
}

impl Line {
    pub(super) fn patch(owner: &str, occasion: Occasion<'_>, live: &Twin, plan: &TwinPlan) -> Self {
        let seal = || seal_in(live, owner);
        Self {
            action: Some("patch"),
            cause: Some(plan.cause.as_str()),
            seal: Some(plan.seal.as_str()),
            changes: plan.changes.iter().map(Leaf::of).collect(),
            etag_before: Some(live.etag.to_string()),
            version_before: Some(live.version),
            justified_by: plan.removes.then(seal).flatten(),
            ..Self::occasioned(owner, occasion, &live.twin_ref)
        }
    }

    pub(super) fn transfer(owner: &str, revision: &str, transfer: &Transfer, live: &Twin, plan: &TransferPlan) -> Self {
        let (action, from) = match transfer {
            Transfer::Adopt { from, .. } => ("adopt", Some(from.to_string())),
            Transfer::Release => ("release", None),
        };
        Self {
            action: Some(action),
            revision: Some(revision.to_owned()),
            seal: Some(plan.plan.seal.as_str()),
            moved: plan.moved.iter().map(ToString::to_string).collect(),
            etag_before: Some(live.etag.to_string()),
            version_before: Some(live.version),
            justified_by: seal_in(live, from.as_deref().unwrap_or(owner)),
            moved_from: from,
            ..Self::empty(owner, &live.twin_ref)
        }
    }

    pub(super) fn create(owner: &str, occasion: Occasion<'_>, twin: &TwinRef) -> Self {
        Self { action: Some("create"), ..Self::occasioned(owner, occasion, twin) }
    }

    /// What a read, `live`, tells of earlier writes.
    pub(super) fn found(owner: &str, twin: &TwinRef, found: Found, live: Option<&Twin>) -> Self {
        let etag_after = live.map(|live| live.etag.to_string());
        Self {
            outcome: found.as_str(),
            etag_after,
            version_after: live.map(|live| live.version),
            ..Self::empty(owner, twin)
        }
    }

    /// The line of these writes.
    pub(super) fn about(self, writes: Vec<String>) -> Self {
        Self { writes, ..self }
    }

    /// Takes in what the hub answered.
    pub(super) fn answered(&mut self, outcome: Outcome, answer: &Answer<'_>) {
        self.outcome = outcome.as_str();
        match answer {
            Answer::Applied(after) => {
                self.etag_after = after.map(|after| after.etag.to_string());
                self.version_after = after.map(|after| after.version);
            }
            Answer::Failed(error) => self.error = Some(error.to_string()),
            Answer::None => self.error = Some("stopped before the hub answered".to_owned()),
        }
    }

    /// The line, without its newline.
    pub(super) fn text(&self, hub: &str, at: SystemTime) -> String {
        let line = Self { hub: hub.to_owned(), time: timestamp(at), ..self.clone() };
        serde_json::to_string(&line).expect("a line is made of texts, numbers and JSON values")
    }

    fn occasioned(owner: &str, occasion: Occasion<'_>, twin: &TwinRef) -> Self {
        Self {
            revision: Some(occasion.revision.to_owned()),
            lane: Some(lane_of(occasion.lane)),
            ..Self::empty(owner, twin)
        }
    }

    fn empty(owner: &str, twin: &TwinRef) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            time: String::new(),
            writes: Vec::new(),
            hub: String::new(),
            twin: twin.to_string(),
            owner: owner.to_owned(),
            action: None,
            outcome: Outcome::Unknown.as_str(),
            error: None,
            revision: None,
            lane: None,
            cause: None,
            seal: None,
            changes: Vec::new(),
            moved: Vec::new(),
            moved_from: None,
            etag_before: None,
            version_before: None,
            etag_after: None,
            version_after: None,
            justified_by: None,
        }
    }
}

impl Leaf {
    fn of(change: &Change) -> Self {
        let show = |value: &Value| match change.mask {
            Some(salt) => serde_json::Value::from(salt.hide(value)),
            None => value.to_json(),
        };
        Self {
            path: change.leaf.to_string(),
            source: change.source.as_ref().map(ToString::to_string),
            before: change.from.as_ref().map(show),
            after: change.to.as_ref().map(show),
        }
    }
}

/// The seal of `owner` as it stands in `live`.
fn seal_in(live: &Twin, owner: &str) -> Option<serde_json::Value> {
    live.tags.get(SEAL_KEY).and_then(|seals| seals.get([owner])).map(Value::to_json)
}

/// A line that says how many lines before it are missing.
pub(super) fn gap(lost: u64, at: SystemTime) -> String {
    let line = serde_json::json!({
        "formatVersion": FORMAT_VERSION,
        "time": timestamp(at),
        "outcome": "gap",
        "lost": lost,
    });
    line.to_string()
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

const fn lane_of(lane: Lane) -> &'static str {
    match lane {
        Lane::Git => "git",
        Lane::Retry => "retry",
        Lane::Sweep => "sweep",
        Lane::Seal => "seal",
    }
}
