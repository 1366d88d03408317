//! The plan of one twin with no more in it than mode, guards and approvals let pass.
//!
//! Invariant: whatever a guard counts is counted before it is made.

use super::access::Access;
use super::reconcile::Context;
use crate::plan::{Declaration, HeldReason, Permits, RemovalHold, TwinPlan, plan_twin};
use crate::twin::Twin;

/// The plan for `live`. Where nobody writes, nothing is asked of the guards: the plan shows all there is to do.
pub(super) fn permitted_plan<H: Access>(context: &Context<H>, declaration: &Declaration, live: &Twin) -> TwinPlan {
    let mut permits = Permits::ALL;
    let plan = |permits: &Permits| plan_twin(&context.scope, declaration, live, permits);
    let mut wanted = plan(&permits);
    if context.hub.writer().is_none() {
        return wanted;
    }
    let twin = &live.twin_ref;
    let now = context.now();
    let mut gate = context.gate();
    gate.creates_nothing(twin);
    let lost = wanted.lost();
    if gate.shape_approved(twin, lost, now) {
        permits.shapes = true;
        wanted = plan(&permits);
    }
    if wanted.removes {
        permits.removals = if context.scope.seals {
            gate.permit(twin, *declaration == Declaration::Absent, now)
        } else {
            gate.never(twin, RemovalHold::NoOwnership)
        };
    } else {
        gate.removes_nothing(twin);
    }
    permits.updates = if wanted.updates() { gate.permit_update(twin, now) } else { gate.updates_nothing(twin) };
    if permits != (Permits { shapes: permits.shapes, ..Permits::ALL }) {
        wanted = plan(&permits);
    }
    for held in &mut wanted.held {
        if let HeldReason::ShapeConflict { approve, .. } = &mut held.reason {
            *approve = Some(gate.shape_approval(twin, lost));
        }
    }
    wanted
}
