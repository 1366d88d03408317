//! A plan made before, applied as it is: no new decision, twin by twin.
//!
//! ```text
//!   suspended by its manifest by now ------------------------------------> held, not even read
//!   read: suspended in its seal -----------------------------------------> held
//!         another etag, and the plan changes nothing of it --------------> applied before
//!         another etag --------------------------------------------------> refused
//!         the etag of the plan --> patch, guarded by it --> an answer ---> applied | failed
//!                                                       `-> none: read again, and find out
//! ```
//!
//! Invariants: every write is guarded by the etag that the plan was made on, so a twin that somebody wrote since is
//! refused, never merged into; and it is recorded as the loop records its own. What was applied already is found so, and
//! not written again: applying twice is applying once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::audit::{Auditor, Occasion, Recording};
use super::in_turn::in_turn;
use super::queue::Lane;
use super::survey::PlannedTwin;
use crate::hub::{HubError, WriteTwins};
use crate::plan::{
    Cause, Change, DeclaredState, FileSpan, HeldReason, Leaf, SEAL_KEY, Salt, SealAction, SealScope, SealState,
    Suspend, TwinPlan, declare, next_etag,
};
use crate::twin::{ETag, MergePatch, Section, Twin, TwinRef, Value};

/// Reads of one twin: before a registration, before the patch, and after an answer that was lost or a conflict.
const READS_MAX: u32 = 5;

/// One write of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedWrite {
    /// Whose twin.
    pub twin: TwinRef,
    /// Whether the device is registered first.
    pub create: bool,
    /// The etag the patch was planned on; for a device to register, the one of its first twin.
    pub etag: ETag,
    /// What is written.
    pub patch: MergePatch,
    /// The leaves it changes, each of them in the patch.
    pub leaves: Vec<PlannedLeaf>,
    /// Why live and declared differed.
    pub cause: Cause,
    /// What the patch does to our seal.
    pub seal: SealAction,
    /// Whether the twin loses a leaf or its seal, or would but for a hold.
    pub removes: bool,
}

/// One leaf of a planned write. Its values are in the patch, and in the twin as it is read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLeaf {
    /// Where.
    pub leaf: Leaf,
    /// Who declared it; `None` for a leaf that is declared no more.
    pub source: Option<FileSpan>,
    /// Whether nobody may read its values in what is told of the write.
    pub sensitive: bool,
}

/// What is to be applied, and what may hold it by now.
#[derive(Debug, Clone)]
pub struct PlannedOrder {
    /// Our seals.
    pub scope: SealScope,
    /// The revision of the manifests that were planned on.
    pub revision: String,
    /// The writes.
    pub writes: Vec<PlannedWrite>,
    /// What is declared by now, for suspensions; nothing is where nobody knows.
    pub state: Arc<DeclaredState>,
    /// Seconds since 1970, for suspensions that end.
    pub unix_now: i64,
}

/// How one write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The hub took it.
    Applied,
    /// The twin holds it already: this plan was applied before.
    Before,
    /// Somebody wrote the twin, or registered or deleted the device, since it was planned.
    Moved,
    /// Somebody wants the twin left alone by now.
    Held(HeldReason),
    /// Nothing was tried: the whole was stopped.
    Stopped,
    /// The hub did not take it.
    Failed(HubError),
}

impl Written {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Before => "applied_before",
            Self::Moved => "refused",
            Self::Held(_) => "held",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }
}

impl PlannedWrite {
    /// The write of `planned`, with the registration of the device where it is to be `create`d; `None` where nothing is
    /// to be done.
    #[must_use]
    pub fn of(twin: &TwinRef, planned: &PlannedTwin, create: bool) -> Option<Self> {
        let plan = &planned.plan;
        let patch = plan.patch.clone().or_else(|| create.then(MergePatch::default));
        let (patch, etag) = patch.zip(planned.etag.clone())?;
        let kept = |change: &Change| PlannedLeaf {
            leaf: change.leaf.clone(),
            source: change.source.clone(),
            sensitive: change.mask.is_some(),
        };
        let leaves = plan.changes.iter().map(kept).collect();
        let (cause, seal, removes) = (plan.cause, plan.seal, plan.removes);
        Some(Self { twin: twin.clone(), create, etag, patch, leaves, cause, seal, removes })
    }

    /// What the patch makes of `leaf`: `Some(None)` removes it, `None` is no leaf of the patch.
    #[must_use]
    pub fn value_of(&self, leaf: &Leaf) -> Option<Option<&Value>> {
        let (last, above) = leaf.path.keys().split_last()?;
        let mut object = self.patch.section(leaf.section)?;
        for key in above {
            match object.get(key)? {
                Value::Null => return Some(None),
                Value::Object(inner) => object = inner,
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
            }
        }
        object.get(last).map(|value| Some(value).filter(|value| **value != Value::Null))
    }

    /// The plan that the write was, on `live`, whose etag it was made on.
    fn plan_on(&self, live: &Twin, salt: Salt) -> TwinPlan {
        let change = |planned: &PlannedLeaf| {
            let mut keys = planned.leaf.path.keys().iter().map(String::as_str);
            let first = keys.next().and_then(|key| live.section(planned.leaf.section).get(key));
            Change {
                leaf: planned.leaf.clone(),
                from: first.and_then(|value| value.get(keys)).cloned(),
                to: self.value_of(&planned.leaf).flatten().cloned(),
                source: planned.source.clone(),
                mask: planned.sensitive.then_some(salt),
            }
        };
        TwinPlan {
            changes: self.leaves.iter().map(change).collect(),
            cause: self.cause,
            seal: self.seal,
            removes: self.removes,
            patch: Some(self.patch.clone()),
            etag_after: next_etag(&live.etag),
            ..TwinPlan::nothing(None)
        }
    }
}

impl PlannedOrder {
    /// Why the manifests, as they are by now, let nobody write `twin`. What else they say does not matter: a plan is
    /// applied as it was looked at. Where one cannot be read nobody knows whether it suspends the twin.
    fn hold(&self, twin: &TwinRef) -> Option<HeldReason> {
        let suspended = self.state.suspension(twin, self.unix_now).cloned().map(HeldReason::Suspended);
        let unreadable = || declare(&self.state, twin, None).hold();
        suspended.or_else(|| unreadable().filter(|reason| !matches!(reason, HeldReason::ProfileTie(_))))
    }

    /// Why the seal lets nobody write the twin.
    fn hold_of_seal(&self, live: &Twin) -> Option<HeldReason> {
        let seal = self.scope.seals.then(|| SealState::read(live, self.scope.owner.as_str()))?;
        let reason = seal.seal()?.suspended.clone()?;
        Some(HeldReason::Suspended(Suspend { reason, until: None }))
    }

    /// The occasion of its lines: what `apply` says of a twin that its sweep finds.
    fn occasion(&self) -> Occasion<'_> {
        Occasion { revision: &self.revision, lane: Lane::Sweep }
    }
}

/// Applies the writes of `order`, a bounded number at a time, records them, and tells `each` of every one as it ends.
pub async fn apply_planned<H: WriteTwins + 'static>(
    hub: Arc<H>,
    mut order: PlannedOrder,
    recording: Recording,
    each: impl Fn(&TwinRef, &Written) + Send + Sync + 'static,
    cancel: &CancellationToken,
) -> BTreeMap<TwinRef, Written> {
    let auditor = Arc::new(recording.auditor(&order.scope));
    let writes = std::mem::take(&mut order.writes);
    let (order, each) = (Arc::new(order), Arc::new(each));
    let work = |write: PlannedWrite| {
        let (hub, order, auditor) = (Arc::clone(&hub), Arc::clone(&order), Arc::clone(&auditor));
        let (each, stopped) = (Arc::clone(&each), cancel.clone());
        async move {
            let written = if stopped.is_cancelled() {
                Written::Stopped
            } else {
                Applying { hub: &*hub, order: &order, auditor: &auditor, write: &write, tried: Tried::default() }
                    .apply()
                    .await
            };
            each(&write.twin, &written);
            (write.twin, written)
        }
    };
    in_turn(writes, work).await
}

/// One write under way.
struct Applying<'a, H> {
    hub: &'a H,
    order: &'a PlannedOrder,
    auditor: &'a Auditor,
    write: &'a PlannedWrite,
    tried: Tried,
}

/// What was sent so far.
#[derive(Default)]
struct Tried {
    /// The registration, whatever came of it.
    create: bool,
    /// What came instead of an answer to the registration.
    create_lost: Option<HubError>,
    /// What came instead of an answer to the patch.
    patch_lost: Option<HubError>,
}

/// What a step leads to.
enum Step {
    /// Another read tells.
    Again,
    /// It is over.
    Ended(Written),
}

impl<H: WriteTwins> Applying<'_, H> {
    async fn apply(mut self) -> Written {
        let twin = &self.write.twin;
        if let Some(reason) = self.order.hold(twin) {
            return Written::Held(reason);
        }
        for _ in 0..READS_MAX {
            let step = match self.hub.get_twin(twin).await {
                Ok(live) => {
                    self.auditor.read(twin, Some(&live));
                    self.patch(&live).await
                }
                Err(HubError::NotFound(_)) => {
                    self.auditor.read(twin, None);
                    self.register().await
                }
                Err(error) => Step::Ended(Written::Failed(
                    self.tried.patch_lost.take().or(self.tried.create_lost.take()).unwrap_or(error),
                )),
            };
            if let Step::Ended(written) = step {
                return written;
            }
        }
        Written::Moved
    }

    /// The device is not there.
    async fn register(&mut self) -> Step {
        if let Some(error) = self.tried.create_lost.take() {
            return Step::Ended(Written::Failed(error));
        }
        if !self.write.create || self.tried.create {
            return Step::Ended(Written::Moved);
        }
        self.tried.create = true;
        let attempt = self.auditor.create(self.order.occasion(), &self.write.twin);
        let answer = self.hub.create_device(&self.write.twin.device).await;
        attempt.answered(&answer, |()| None);
        match answer {
            // The next read shows the device, whoever was faster; its etag tells whether anybody wrote it.
            Ok(()) | Err(HubError::AlreadyExists(_)) => Step::Again,
            Err(error) => lost_or_failed(error, &mut self.tried.create_lost),
        }
    }

    /// The twin was read.
    async fn patch(&mut self, live: &Twin) -> Step {
        let write = self.write;
        self.tried.create_lost = None;
        if let Some(reason) = self.order.hold_of_seal(live) {
            return Step::Ended(Written::Held(reason));
        }
        let sent = self.tried.patch_lost.take();
        if live.etag != write.etag {
            return Step::Ended(match (holds(live, &write.patch), sent) {
                (true, Some(_)) => Written::Applied,
                (true, None) => Written::Before,
                (false, _) => Written::Moved,
            });
        }
        if let Some(error) = sent {
            return Step::Ended(Written::Failed(error));
        }
        if write.patch.is_empty() {
            // The registration was all there was to do.
            return Step::Ended(if self.tried.create { Written::Applied } else { Written::Before });
        }
        let plan = write.plan_on(live, self.order.scope.salt);
        let attempt = self.auditor.patch(self.order.occasion(), live, &plan, &write.patch);
        let answer = self.hub.patch_twin_for_trace(&write.twin, &write.patch, &write.etag, SEAL_KEY).await;
        attempt.answered(&answer, |after| Some(after));
        match answer {
            Ok(_) => Step::Ended(Written::Applied),
            Err(HubError::PreconditionFailed | HubError::NotFound(_)) => Step::Again,
            Err(error) => lost_or_failed(error, &mut self.tried.patch_lost),
        }
    }
}

/// Where no answer came, a read tells what became of the write.
fn lost_or_failed(error: HubError, lost: &mut Option<HubError>) -> Step {
    match error {
        HubError::Server { .. } | HubError::Transport { .. } => {
            *lost = Some(error);
            Step::Again
        }
        HubError::PreconditionFailed
        | HubError::Throttled { .. }
        | HubError::NotFound(_)
        | HubError::AlreadyExists(_)
        | HubError::Unauthorized { .. }
        | HubError::Rejected { .. }
        | HubError::Quota
        | HubError::QuotaShare => Step::Ended(Written::Failed(error)),
    }
}

/// Whether the patch would change nothing: the seal in it included, so only this very plan can have been here.
fn holds(live: &Twin, patch: &MergePatch) -> bool {
    Section::ALL.into_iter().all(|section| live.section_after(section, patch) == *live.section(section))
}
