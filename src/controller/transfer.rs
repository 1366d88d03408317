//! Paths that change their owner by a person's word: what `adopt` and `release` show, and then do.
//!
//! Invariants: every write is planned on a read made just before, guarded by its etag, and recorded. What is written is
//! what was shown: a twin for which a new read would move anything else is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::audit::{Auditor, Recording};
use super::in_turn::in_turn;
use super::planned::Written;
use super::survey::sealed_twins;
use crate::hub::{HubError, PageError, ReadTwins, WriteTwins};
use crate::plan::{
    DeclaredState, HeldReason, SEAL_KEY, SealScope, Transfer, TransferPlan, TwinFilter, TwinPlan, declare,
    plan_transfer,
};
use crate::twin::{Twin, TwinRef};

/// Reads and writes tried again at once when somebody else wrote in between.
const CONFLICTS_MAX: u32 = 5;

/// What is to change its owner, and where.
#[derive(Debug, Clone)]
pub struct TransferOrder {
    /// Our seals.
    pub scope: SealScope,
    /// What happens to them.
    pub transfer: Transfer,
    /// What is declared, for adoption and for suspensions.
    pub state: Arc<DeclaredState>,
    /// The twins named one by one; empty for all that carry the seal in question.
    pub twins: BTreeSet<TwinRef>,
    /// Which of these.
    pub filter: TwinFilter,
    /// Seconds since 1970, for suspensions that end.
    pub unix_now: i64,
}

impl TransferOrder {
    /// What there is to do in `live`, if anything.
    fn plan(&self, live: &Twin) -> Option<TransferPlan> {
        let declaration = declare(&self.state, &live.twin_ref, Some(live));
        let plan = plan_transfer(&self.scope, &self.transfer, declaration.declared(), live)?;
        let suspended = self.state.suspension(&live.twin_ref, self.unix_now).cloned().map(HeldReason::Suspended);
        // Without its manifest nobody knows what an adopted path is for; to let go of a seal none is needed.
        let unknown = match self.transfer {
            Transfer::Adopt { .. } => declaration.hold(),
            Transfer::Release => None,
        };
        Some(match suspended.or(unknown) {
            Some(reason) if plan.plan.held.is_empty() => TransferPlan { plan: TwinPlan::nothing(Some(reason)), ..plan },
            Some(_) | None => plan,
        })
    }

    async fn look<H: ReadTwins>(&self, hub: &H, twin: &TwinRef) -> Result<(Twin, Option<TransferPlan>), HubError> {
        let live = hub.get_twin(twin).await?;
        let plan = self.plan(&live);
        Ok((live, plan))
    }
}

/// What the order would do, twin by twin; a twin in which it has nothing to do is left out. Query rows only nominate:
/// each twin is read.
///
/// # Errors
/// When the sealed twins cannot be listed; a twin that cannot be read is an entry of the result.
pub async fn survey_transfer<H: ReadTwins + 'static>(
    hub: Arc<H>,
    order: &TransferOrder,
) -> Result<BTreeMap<TwinRef, Result<TransferPlan, HubError>>, PageError> {
    let twins = if order.twins.is_empty() {
        let owner = match &order.transfer {
            Transfer::Adopt { from, .. } => from.clone(),
            Transfer::Release => order.scope.owner.clone(),
        };
        let sealed = sealed_twins(&*hub, &SealScope { owner, ..order.scope.clone() }).await?;
        let manifest = |twin: &TwinRef| order.state.twins.get(twin);
        let admitted = sealed.into_iter().filter(|twin| order.filter.admits(twin, manifest(twin).map(AsRef::as_ref)));
        admitted.collect()
    } else {
        order.twins.clone()
    };
    let named = !order.twins.is_empty();
    let order = Arc::new(order.clone());
    let each = move |twin: TwinRef| {
        let (hub, order) = (Arc::clone(&hub), Arc::clone(&order));
        async move {
            let looked = order.look(&*hub, &twin).await.map(|(_, plan)| plan);
            (twin, looked.transpose())
        }
    };
    let found = in_turn(twins, each).await;
    // A row may be that of a device that is gone; one that a person named must be there.
    let gone = |looked: &Result<TransferPlan, HubError>| matches!(looked, Err(HubError::NotFound(_)));
    let present = found.into_iter().filter_map(|(twin, looked)| Some((twin, looked?)));
    Ok(present.filter(|(_, looked)| named || !gone(looked)).collect())
}

/// Does what was shown: the `plans` of a survey that hold a patch. Answers how each write ended.
pub async fn transfer<H: WriteTwins + 'static>(
    hub: Arc<H>,
    order: &TransferOrder,
    plans: BTreeMap<TwinRef, TransferPlan>,
    recording: Recording,
    cancel: &CancellationToken,
) -> BTreeMap<TwinRef, Written> {
    let auditor = Arc::new(recording.auditor(&order.scope));
    let order = Arc::new(order.clone());
    let stopped = cancel.clone();
    let each = move |(twin, shown): (TwinRef, TransferPlan)| {
        let (hub, order, auditor) = (Arc::clone(&hub), Arc::clone(&order), Arc::clone(&auditor));
        let stopped = stopped.clone();
        async move {
            let written = if stopped.is_cancelled() {
                Written::Stopped
            } else {
                transfer_one(&*hub, &order, &auditor, &twin, &shown).await
            };
            (twin, written)
        }
    };
    in_turn(plans.into_iter().filter(|(_, shown)| shown.plan.patch.is_some()), each).await
}

/// One twin: from a new read, and only what was `shown`.
async fn transfer_one<H: WriteTwins>(
    hub: &H,
    order: &TransferOrder,
    auditor: &Auditor,
    twin: &TwinRef,
    shown: &TransferPlan,
) -> Written {
    for _ in 0..=CONFLICTS_MAX {
        let (live, plan) = match order.look(hub, twin).await {
            Ok((live, Some(plan))) => (live, plan),
            Ok((_, None)) | Err(HubError::NotFound(_)) => return Written::Moved,
            Err(error) => return Written::Failed(error),
        };
        let Some(patch) = plan.plan.patch.as_ref().filter(|_| plan.is_same_as(shown)) else { return Written::Moved };
        let attempt = auditor.transfer(&order.state.revision, &order.transfer, &live, &plan, patch);
        let answer = hub.patch_twin_for_trace(twin, patch, &live.etag, SEAL_KEY).await;
        attempt.answered(&answer, |after| Some(after));
        match answer {
            Ok(_) => return Written::Applied,
            Err(HubError::PreconditionFailed) => {}
            Err(error @ (HubError::Server { .. } | HubError::Transport { .. })) => {
                return find_out(hub, order, auditor, twin, error).await;
            }
            Err(error) => return Written::Failed(error),
        }
    }
    Written::Moved
}

/// What became of a write whose answer was lost: one more read tells, where it is answered.
async fn find_out<H: ReadTwins>(
    hub: &H,
    order: &TransferOrder,
    auditor: &Auditor,
    twin: &TwinRef,
    error: HubError,
) -> Written {
    match order.look(hub, twin).await {
        Ok((live, plan)) => {
            auditor.read(twin, Some(&live));
            if plan.is_none() { Written::Applied } else { Written::Failed(error) }
        }
        Err(_) => Written::Failed(error),
    }
}
