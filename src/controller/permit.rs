//! The plan of one twin with no more in it than mode, guards and approvals let pass.
//!
//! Invariant: whatever a guard counts is counted before it is made.

use std::time::Duration;

use super::access::Access;
use super::context::Context;
use super::gate::Gate;
use crate::plan::{Declaration, HeldReason, Permits, RemovalHold, SealScope, TwinPlan, plan_twin};
use crate::twin::Twin;

/// The plan for `live`. Where nobody writes, nothing is asked of the guards: the plan shows all there is to do.
pub(super) fn permitted_plan<H: Access>(context: &Context<H>, declaration: &Declaration, live: &Twin) -> TwinPlan {
    let wanted = plan_twin(&context.scope, declaration, live, &Permits::ALL);
    if context.hub.writer().is_none() {
        return wanted;
    }
    let mut gate = context.gate();
    gate.creates_nothing(&live.twin_ref);
    permitted(&mut gate, &context.scope, declaration, live, wanted, context.now())
}

/// What `gate` lets pass of `wanted`, the plan with everything permitted.
pub(super) fn permitted(
    gate: &mut Gate,
    scope: &SealScope,
    declaration: &Declaration,
    live: &Twin,
    mut wanted: TwinPlan,
    now: Duration,
) -> TwinPlan {
    let mut permits = Permits::ALL;
    let plan = |permits: &Permits| plan_twin(scope, declaration, live, permits);
    let twin = &live.twin_ref;
    let lost = wanted.lost();
    if gate.shape_approved(twin, lost, now) {
        permits.shapes = true;
        wanted = plan(&permits);
    }
    if wanted.removes {
        permits.removals = if scope.seals {
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
