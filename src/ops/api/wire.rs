//! The JSON of the API.
//!
//! Invariants: no field of these is ever renamed within a format version; new fields may come. Domain types are
//! translated here and derive no serde themselves.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::controller::{Event, ExplainedLeaf, GuardHold, Holder, Overview, TwinReport};
use crate::plan::{Approval, Synced};
use crate::twin::TwinRef;

/// The format of every answer.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Why a request is not answered as asked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(super) struct ProblemView {
    pub(super) format_version: u32,
    /// In CamelCase.
    pub(super) reason: String,
    /// One sentence, with the remedy.
    pub(super) message: String,
}

/// Which geminid this is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Version)]
pub(super) struct VersionView {
    pub(super) format_version: u32,
    pub(super) version: String,
    /// Whether `POST` may be tried: there is a token file.
    pub(super) actions: bool,
}

/// All hubs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HubList)]
pub(super) struct HubListView {
    pub(super) format_version: u32,
    pub(super) items: Vec<HubView>,
}

/// One hub.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Hub)]
pub(super) struct HubView {
    pub(super) name: String,
    /// The host, without port; absent until the manifests were loaded once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    /// Whether the manifests were loaded once: everything below is known only then.
    pub(super) loaded: bool,
    /// Whether the hub answers.
    pub(super) up: bool,
    /// The revision of the manifests.
    pub(super) revision: String,
    /// Twins managed.
    pub(super) twins: usize,
    /// Twins by state; states without twins are left out.
    pub(super) states: BTreeMap<String, usize>,
    /// Twins that wait for a worker or for their next try.
    pub(super) queue: usize,
    /// When the last complete sweep ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_sweep: Option<String>,
    /// Seconds until the next sweep; absent while one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_sweep_seconds: Option<u64>,
    /// The token of the last request to reconcile all twins that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_handled_reconcile: Option<String>,
    /// What may be asked of it now; absent until the manifests were loaded once, and where no tier is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<BudgetView>,
    /// What guards hold now.
    pub(super) holds: Vec<HoldView>,
}

/// What of a hub's rates and messages is ours. Rates fall while the hub throttles or slows down.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Budget)]
pub(super) struct BudgetView {
    /// Pages of queries a second.
    pub(super) queries_per_second: f64,
    /// Twins read a second.
    pub(super) reads_per_second: f64,
    /// Twins written a second.
    pub(super) writes_per_second: f64,
    /// Devices registered a second.
    pub(super) creates_per_second: f64,
    /// Messages a day (UTC).
    pub(super) messages_per_day: u64,
    /// Those of today that are spent, as estimated; from the start of the process.
    pub(super) messages_used: u64,
}

impl BudgetView {
    pub(super) fn of(overview: &Overview) -> Option<Self> {
        let allowance = &overview.allowance;
        Some(Self {
            queries_per_second: allowance.queries_per_second?,
            reads_per_second: allowance.reads_per_second?,
            writes_per_second: allowance.writes_per_second?,
            creates_per_second: allowance.creates_per_second?,
            messages_per_day: allowance.messages_per_day?,
            messages_used: allowance.messages_used,
        })
    }
}

/// What one guard holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Hold)]
pub(super) struct HoldView {
    /// `removals`, `creates`, `updates`, `empty` or `shape`.
    pub(super) guard: String,
    /// Twins that wait for it.
    pub(super) twins: usize,
    /// Why, in one sentence.
    pub(super) message: String,
    /// What lets it pass; absent where nobody can approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approve: Option<ApprovalBody>,
    /// The same as a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
}

impl HoldView {
    pub(super) fn of(hold: &GuardHold) -> Self {
        Self {
            guard: hold.guard.to_string(),
            twins: hold.twins,
            message: hold.message.clone(),
            approve: hold.approve.as_ref().map(ApprovalBody::of),
            command: hold.approve.as_ref().map(ToString::to_string),
        }
    }
}

/// An approval, bound to what was looked at.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Approval)]
pub(super) struct ApprovalBody {
    pub(super) hub: String,
    /// `removals`, `creates`, `updates`, `empty` or `shape`.
    pub(super) guard: String,
    /// `device` or `device/module`, for the guard `shape` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) twin: Option<String>,
    /// The revision that was looked at.
    pub(super) revision: String,
    /// How many may pass.
    pub(super) count: usize,
}

impl ApprovalBody {
    fn of(approval: &Approval) -> Self {
        Self {
            hub: approval.hub.clone(),
            guard: approval.guard.to_string(),
            twin: approval.twin.as_ref().map(ToString::to_string),
            revision: approval.revision.clone(),
            count: approval.count,
        }
    }
}

/// An approval that holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Approved)]
pub(super) struct ApprovedView {
    pub(super) format_version: u32,
    pub(super) guard: String,
    pub(super) count: usize,
    /// When it ends.
    pub(super) until: String,
}

/// Which twins to list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TwinsQuery {
    /// This hub alone.
    pub(super) hub: Option<String>,
    /// This state alone, such as `held`.
    pub(super) state: Option<String>,
    /// This reason alone, such as `ShapeConflict`.
    pub(super) reason: Option<String>,
    /// Names that match this glob: `?`, `*`, `[ab]`, `{a,b}`.
    pub(super) name: Option<String>,
    /// Labels of the manifest, all of them: `plant=redmond43,line=2`.
    pub(super) labels: Option<String>,
    /// At most this many, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<usize>,
    /// `continue` of the page before.
    pub(super) r#continue: Option<String>,
}

/// A page of twins, by hub and name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TwinList)]
pub(super) struct TwinListView {
    pub(super) format_version: u32,
    /// A page may be short, or empty, and still not be the last one.
    pub(super) items: Vec<TwinView>,
    /// Present exactly while more may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#continue: Option<String>,
}

/// How one twin stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Twin)]
pub(super) struct TwinView {
    pub(super) hub: String,
    /// `device` or `device/module`.
    pub(super) name: String,
    pub(super) device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) module: Option<String>,
    /// `in_sync`, `pending`, `held`, ...
    pub(super) state: String,
    pub(super) condition: ConditionView,
    /// Labels of the manifest.
    pub(super) labels: BTreeMap<String, String>,
    /// The revision of the manifests.
    pub(super) revision: String,
    /// Seconds since the reason last changed.
    pub(super) age_seconds: u64,
    /// Failed tries in a row.
    pub(super) failures: u32,
    /// Seconds until the next try, while one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_try_seconds: Option<u64>,
}

/// The condition `Synced`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Condition)]
pub(super) struct ConditionView {
    /// `Synced`.
    pub(super) r#type: &'static str,
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// In CamelCase.
    pub(super) reason: String,
    /// One sentence; empty when the reason says it all.
    pub(super) message: String,
    /// The hash of what was declared when the twin was last known to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_hash: Option<String>,
    /// When the reason last changed.
    pub(super) last_transition: String,
}

impl TwinView {
    pub(super) fn of(
        hub: &str,
        revision: &str,
        labels: BTreeMap<String, String>,
        report: &TwinReport,
        now: SystemTime,
    ) -> Self {
        let condition = report.condition;
        let status = match condition.synced {
            Synced::True => "True",
            Synced::False => "False",
            Synced::Unknown => "Unknown",
        };
        Self {
            hub: hub.to_owned(),
            name: report.twin.to_string(),
            device: report.twin.device.to_string(),
            module: report.twin.module.as_ref().map(ToString::to_string),
            state: condition.state.as_str().to_owned(),
            condition: ConditionView {
                r#type: "Synced",
                status,
                reason: condition.reason.to_owned(),
                message: report.message.clone(),
                observed_hash: report.observed.as_ref().map(|hash| hash.as_str().to_owned()),
                last_transition: timestamp(report.last_transition),
            },
            labels,
            revision: revision.to_owned(),
            age_seconds: now.duration_since(report.last_transition).unwrap_or_default().as_secs(),
            failures: report.failures,
            next_try_seconds: report.next_try.map(rounded_up),
        }
    }
}

/// Which twin of a device.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TwinQuery {
    /// The module; absent for the device's own twin.
    pub(super) module: Option<String>,
    /// `false`: answer from memory, without reading the twin at the hub.
    pub(super) live: Option<bool>,
}

/// One twin, leaf by leaf, as just read at the hub.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainedTwin)]
pub(super) struct ExplainedView {
    pub(super) format_version: u32,
    pub(super) twin: TwinView,
    /// When the twin was read for this answer; absent when it was not, or could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_at: Option<String>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_error: Option<String>,
    /// The live etag; absent when the hub does not know the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    /// Where the twin is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    /// Why nothing is written at all.
    pub(super) held: Vec<String>,
    pub(super) leaves: Vec<LeafView>,
    /// The last write of this process that it remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_write: Option<String>,
    /// The token of the last request to reconcile this twin that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_handled_reconcile: Option<String>,
}

/// One leaf.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Leaf)]
pub(super) struct LeafView {
    /// As manifests write it: `properties.desired.power_level`.
    pub(super) path: String,
    /// Whether anything is declared; `declared` null then means that the leaf must not exist.
    pub(super) is_declared: bool,
    #[schema(value_type = serde_json::Value)]
    pub(super) declared: Option<serde_json::Value>,
    /// Set when absent, never corrected.
    pub(super) initial_only: bool,
    /// Who declares it: `file:line:column` in the twin's manifest or in a profile.
    pub(super) source: Option<String>,
    /// The live value; null when there is none.
    #[schema(value_type = serde_json::Value)]
    pub(super) live: Option<serde_json::Value>,
    /// `owned` by us, `foreign`, `absent`, or `owner:` with the name of another owner.
    pub(super) holder: String,
    /// `set` or `remove`: what would be written.
    pub(super) change: Option<String>,
    /// Why that is not done.
    pub(super) held: Option<String>,
    /// When this process last wrote it, as far as it remembers.
    pub(super) last_write: Option<String>,
}

impl LeafView {
    pub(super) fn of(leaf: &ExplainedLeaf, last_write: Option<String>) -> Self {
        Self {
            path: leaf.path.clone(),
            is_declared: leaf.declared.is_some(),
            declared: leaf.declared.as_ref().map(crate::twin::Value::to_json),
            initial_only: leaf.initial_only,
            source: leaf.source.clone(),
            live: leaf.live.as_ref().map(crate::twin::Value::to_json),
            holder: match &leaf.holder {
                Holder::Owned => "owned".to_owned(),
                Holder::Foreign => "foreign".to_owned(),
                Holder::Absent => "absent".to_owned(),
                Holder::Other(owner) => format!("owner:{owner}"),
            },
            change: leaf.change.map(str::to_owned),
            held: leaf.held.clone(),
            last_write,
        }
    }
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// This hub alone.
    pub(super) hub: Option<String>,
    /// This twin alone: `device` or `device/module`.
    pub(super) twin: Option<String>,
    /// At most this many, 1 to 1000; the youngest.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
}

/// Events, the youngest last.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventList)]
pub(super) struct EventListView {
    pub(super) format_version: u32,
    pub(super) items: Vec<EventView>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub(super) struct EventView {
    /// Counts from 1 for each hub; a gap means that events were forgotten.
    pub(super) number: u64,
    pub(super) time: String,
    pub(super) hub: String,
    /// Absent for the hub as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) twin: Option<String>,
    pub(super) reason: String,
    pub(super) message: String,
}

impl EventView {
    pub(super) fn of(hub: &str, event: &Event) -> Self {
        Self {
            number: event.number,
            time: timestamp(event.time),
            hub: hub.to_owned(),
            twin: event.twin.as_ref().map(ToString::to_string),
            reason: event.reason.to_owned(),
            message: event.message.clone(),
        }
    }
}

/// What to reconcile now.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReconcileRequest)]
pub(super) struct ReconcileBody {
    /// This hub alone; needed with `twin` where several are configured.
    #[serde(default)]
    pub(super) hub: Option<String>,
    /// This twin alone: `device` or `device/module`. Absent: all, by a sweep.
    #[serde(default)]
    pub(super) twin: Option<String>,
}

/// Requests taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Requested)]
pub(super) struct RequestedView {
    pub(super) format_version: u32,
    /// Names the request; status shows it as `lastHandledReconcile` once it was acted on.
    pub(super) token: String,
    /// The hubs that were asked.
    pub(super) hubs: Vec<String>,
}

/// How a request to reconcile stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RequestStatus)]
pub(super) struct RequestView {
    pub(super) format_version: u32,
    pub(super) token: String,
    /// `waiting`, `running`, or `done` on every hub that was asked.
    pub(super) state: String,
}

/// Which twin to leave alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Suspension)]
pub(super) struct SuspendBody {
    pub(super) hub: String,
    /// `device` or `device/module`.
    pub(super) twin: String,
    /// Why, for whoever wonders later; 1 to 256 bytes.
    pub(super) reason: String,
}

/// Which twin to go on with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Resumption)]
pub(super) struct ResumeBody {
    pub(super) hub: String,
    /// `device` or `device/module`.
    pub(super) twin: String,
}

/// It was done: the seal of the twin says so.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Done)]
pub(super) struct DoneView {
    pub(super) format_version: u32,
    pub(super) hub: String,
    pub(super) twin: String,
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn timestamp(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

pub(super) fn rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// `device` or `device/module` as an identity.
pub(super) fn parse_twin(text: &str) -> Result<TwinRef, super::Problem> {
    TwinRef::parse(text).map_err(|error| super::Problem::invalid(format!("{text:?} is no twin: {error}")))
}
