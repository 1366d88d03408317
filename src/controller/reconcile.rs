//! One reconcile of one twin: read, plan, write once guarded, say how it ended.
//!
//! Invariants: every write is planned on a read made in the same reconcile and guarded by its etag. Nothing is
//! remembered between reconciles that the next one would need: dropping this future at any await loses nothing.

use super::access::Access;
use super::audit::Occasion;
use super::context::{Context, Task};
use super::permit::permitted_plan;
use super::queue::Lane;
use super::rivals::{look_around, restrained};
use crate::hub::{HubError, WriteTwins as _};
use crate::plan::{
    Cause, Change, Declaration, Held, HeldReason, Outcome, SEAL_KEY, SealAction, SealState, Sighting, TwinPlan,
    Verified, declare, plan_suspension,
};
use crate::twin::{ETag, Twin, TwinRef, Value};

/// Reads and writes tried again at once when somebody else wrote in between; then the queue backs off.
const CONFLICTS_MAX: u32 = 5;
/// The cheapest question a hub answers only to a credential that may read twins.
const PROBE_QUERY: &str = "SELECT deviceId AS d FROM devices";

/// How a reconcile ended, and everything worth telling of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// The twin.
    pub twin: TwinRef,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it is known what there is to do for the twin: it was read and planned, or it does not exist.
    pub planned: bool,
    /// The leaves written.
    pub changes: Vec<Change>,
    /// The leaves that differ and that nobody may write.
    pub drift: Vec<Change>,
    /// Why they differed.
    pub cause: Cause,
    /// What was held.
    pub held: Vec<Held>,
    /// Whether our seal was written, alone or with the changes, or removed.
    pub sealed: bool,
    /// Whether a patch was planned that nobody may send, as the loop only looks.
    pub dry_run: bool,
    /// Whether the device was registered.
    pub created: bool,
    /// Whether the seal is to be written once nothing better is to do.
    pub seal_due: bool,
    /// Whether the hub's etag after the write was the foretold one; `None` without a write or a prophecy.
    pub foretold: Option<bool>,
    /// Writes refused because somebody else had written.
    pub conflicts: u32,
    /// What is known of the twin now.
    pub verified: Option<Verified>,
    /// What the hub said when it failed.
    pub error: Option<HubError>,
    /// Whether the credential is refused for the hub as a whole.
    pub hub_unauthorized: bool,
    /// What was seen of others who write.
    pub sighting: Sighting,
}

impl Reconciled {
    fn new(twin: &TwinRef) -> Self {
        Self {
            twin: twin.clone(),
            outcome: Outcome::Pending,
            planned: false,
            changes: Vec::new(),
            drift: Vec::new(),
            cause: Cause::FirstContact,
            held: Vec::new(),
            sealed: false,
            dry_run: false,
            created: false,
            seal_due: false,
            foretold: None,
            conflicts: 0,
            verified: None,
            error: None,
            hub_unauthorized: false,
            sighting: Sighting::default(),
        }
    }

    fn ended(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

/// What a step of a reconcile leads to.
enum Step {
    /// Read again.
    Again,
    /// The reconcile is over.
    Ended(Outcome),
}

/// Reconciles one twin.
pub(super) async fn reconcile<H: Access>(context: &Context<H>, task: &Task) -> Reconciled {
    let mut result = Reconciled::new(&task.twin);
    if let Some(suspend) = context.state().suspension(&task.twin, context.unix_now()).filter(|_| task.wish.is_none()) {
        // Not even read: nothing follows from what it is.
        result.planned = true;
        context.gate().touches_nothing(&task.twin);
        let outcome = hold(&mut result, HeldReason::Suspended(suspend.clone()));
        return result.ended(outcome);
    }
    while result.conflicts <= CONFLICTS_MAX {
        let step = match context.hub(task.lane).get_twin(&task.twin).await {
            Ok(live) => {
                context.audit.read(&task.twin, Some(&live));
                write_plan(context, task, &live, &mut result).await
            }
            Err(HubError::NotFound(_)) => {
                context.audit.read(&task.twin, None);
                missing(context, task, &mut result).await
            }
            Err(error) => failed(context, error, &mut result).await,
        };
        if let Step::Ended(outcome) = step {
            return result.ended(outcome);
        }
    }
    result.ended(Outcome::Conflict)
}

async fn write_plan<H: Access>(context: &Context<H>, task: &Task, live: &Twin, result: &mut Reconciled) -> Step {
    let (state, declaration) = context.declare(live);
    let plan = match &task.wish {
        Some(suspended) => plan_suspension(&context.scope, live, suspended.as_deref()),
        None => permitted_plan(context, &declaration, live).masked(&state.sensitive, context.scope.salt),
    };
    result.planned = true;
    let seen = look_around(context, live, &plan);
    let seals = live.tags.get(SEAL_KEY);
    let known = verified(context, (&live.etag, live.device_etag.as_ref(), seals), &plan);
    let same = context.memory().get(&task.twin).is_some_and(|last| last.is_same_as(&known));
    result.verified = Some(known);
    let done = plan.held.is_empty();
    context.gate().planned(&task.twin, &state, done && plan.patch.is_none());
    let Some(patch) = &plan.patch else {
        return Step::Ended(settle(result, &declaration, plan));
    };
    result.sighting = Sighting { corrected: Vec::new(), ..seen.clone() };
    if let Some(reason) = restrained(task, &plan, &seen) {
        return Step::Ended(hold(result, reason));
    }
    if plan.seal_only() && task.lane < Lane::Sweep && plan.held.is_empty() && task.wish.is_none() {
        result.seal_due = true;
        return Step::Ended(settle(result, &declaration, TwinPlan { patch: None, ..plan }));
    }
    if let Some(rejection) = task.rejection.as_ref().filter(|_| same) {
        result.error = Some(rejection.clone());
        return Step::Ended(Outcome::Rejected);
    }
    let hub = context.hub(task.lane);
    let Some(writer) = hub.writer() else { return Step::Ended(observed(result, &declaration, plan)) };
    let occasion = Occasion { revision: &state.revision, lane: task.lane };
    let attempt = context.audit.patch(occasion, live, &plan, patch);
    let answer = writer.patch_twin_for_trace(&task.twin, patch, &live.etag, SEAL_KEY).await;
    attempt.answered(&answer, |after| Some(after));
    match answer {
        Ok(after) => {
            result.sealed = true;
            result.foretold = plan.etag_after.as_ref().map(|foretold| *foretold == after.etag);
            let marks = (&after.etag, after.device_etag.as_ref(), after.tag.as_ref());
            result.verified = Some(verified(context, marks, &plan));
            result.sighting = seen;
            context.gate().planned(&task.twin, &state, done);
            Step::Ended(settle(result, &declaration, plan))
        }
        Err(HubError::PreconditionFailed) => {
            result.conflicts += 1;
            Step::Again
        }
        Err(error) => {
            // After a refusal the twin is as it was read; after anything else nothing is known of it.
            result.verified = result.verified.take().filter(|_| matches!(error, HubError::Rejected { .. }));
            failed(context, error, result).await
        }
    }
}

/// What a plan that nobody may carry out says of its twin.
fn observed(result: &mut Reconciled, declaration: &Declaration, plan: TwinPlan) -> Outcome {
    let released = plan.seal == SealAction::Remove;
    result.dry_run = true;
    result.drift.clone_from(&plan.changes);
    let outcome = settle(result, declaration, TwinPlan { patch: None, changes: Vec::new(), ..plan });
    match outcome {
        Outcome::InSync | Outcome::Kept if !result.drift.is_empty() => Outcome::Drifted,
        // Its manifest is gone and the seal stays: nobody may take it away.
        Outcome::Released if released => Outcome::Drifted,
        Outcome::InSync
        | Outcome::Applied
        | Outcome::Drifted
        | Outcome::Kept
        | Outcome::Held(_)
        | Outcome::Pending
        | Outcome::Conflict
        | Outcome::Throttled
        | Outcome::Missing
        | Outcome::Rejected
        | Outcome::Unauthorized
        | Outcome::Quota
        | Outcome::Failed
        | Outcome::Released => outcome,
    }
}

/// What is known after a read or a write, by etag, identity and seals as they stand. While a removal waits for the guard
/// nothing counts as verified, so that every sweep asks again.
fn verified<H>(
    context: &Context<H>,
    (etag, device_etag, seals): (&ETag, Option<&String>, Option<&Value>),
    plan: &TwinPlan,
) -> Verified {
    let waits = plan.held.iter().any(|held| matches!(held.reason, HeldReason::Removal(_) | HeldReason::Guarded(_)));
    Verified {
        etag: etag.clone(),
        device_etag: device_etag.cloned(),
        declared: plan.declared.clone().filter(|_| !waits),
        seal: SealState::mark(seals, context.scope.owner.as_str()),
        at: context.now(),
    }
}

/// Takes the plan into the result, as far as it was done, and names the outcome.
fn settle(result: &mut Reconciled, declaration: &Declaration, plan: TwinPlan) -> Outcome {
    let wrote = plan.patch.is_some();
    result.cause = plan.cause;
    result.held = plan.held;
    if wrote {
        result.changes = plan.changes;
    }
    // What nobody asked for names the outcome, if there is such a hold.
    let held = result.held.iter().find(|held| !held.reason.is_wanted()).or(result.held.first());
    match (held, declaration) {
        (Some(held), _) => Outcome::Held(held.reason.clone()),
        (None, Declaration::Left(_) | Declaration::Absent) => {
            result.verified = None;
            Outcome::Released
        }
        (None, Declaration::Kept(..)) => Outcome::Kept,
        (
            None,
            Declaration::Declared(_) | Declaration::Broken(_) | Declaration::Incomplete(_) | Declaration::Tied(_),
        ) => {
            if result.changes.is_empty() {
                Outcome::InSync
            } else {
                Outcome::Applied
            }
        }
    }
}

/// The hub says that the twin does not exist.
async fn missing<H: Access>(context: &Context<H>, task: &Task, result: &mut Reconciled) -> Step {
    result.verified = None;
    result.planned = true;
    context.gate().gone(&task.twin);
    let state = context.state();
    let declaration = declare(&state, &task.twin, None);
    let create = declaration.declared().map(|declared| declared.create && task.twin.module.is_none());
    let hub = context.hub(task.lane);
    let writer = match (declaration.hold(), create, hub.writer()) {
        (None, Some(true), Some(writer)) if !task.seen => writer,
        (reason, create, _) => {
            context.gate().creates_nothing(&task.twin);
            return Step::Ended(match (reason, create) {
                (Some(reason), _) => hold(result, reason),
                (None, None) => Outcome::Released,
                (None, Some(true)) if task.seen => hold(result, HeldReason::DeletedOutside),
                (None, Some(_)) => Outcome::Missing,
            });
        }
    };
    if let Some(held) = context.gate().permit_create(&task.twin, context.now()) {
        return Step::Ended(hold(result, HeldReason::Guarded(held)));
    }
    let attempt = context.audit.create(Occasion { revision: &state.revision, lane: task.lane }, &task.twin);
    let answer = writer.create_device(&task.twin.device).await;
    attempt.answered(&answer, |()| None);
    match answer {
        Ok(()) if result.created => Step::Ended(Outcome::Missing),
        Ok(()) => {
            result.created = true;
            Step::Again
        }
        // Somebody else was faster; the next read shows their device. Counted, so that it ends.
        Err(HubError::AlreadyExists(_)) => {
            result.conflicts += 1;
            Step::Again
        }
        Err(error) => failed(context, error, result).await,
    }
}

fn hold(result: &mut Reconciled, reason: HeldReason) -> Outcome {
    result.held = vec![Held { change: None, reason: reason.clone() }];
    Outcome::Held(reason)
}

async fn failed<H: Access>(context: &Context<H>, error: HubError, result: &mut Reconciled) -> Step {
    let outcome = match &error {
        HubError::Throttled { .. } => Outcome::Throttled,
        HubError::Quota | HubError::QuotaShare => Outcome::Quota,
        HubError::Rejected { .. } => Outcome::Rejected,
        HubError::NotFound(_) => Outcome::Missing,
        HubError::Unauthorized { .. } => {
            // One twin may be refused alone (a module of a disabled device); a query tells whether all are.
            let probe = context.hub(Lane::Retry).query_page(PROBE_QUERY, 1, None).await;
            result.hub_unauthorized = matches!(probe, Err(HubError::Unauthorized { .. }));
            Outcome::Unauthorized
        }
        HubError::PreconditionFailed
        | HubError::AlreadyExists(_)
        | HubError::Server { .. }
        | HubError::Transport { .. } => Outcome::Failed,
    };
    result.error = Some(error);
    Step::Ended(outcome)
}
