//! What a reconcile sees of others who write, and what it leaves alone because of them.
//!
//! Invariant: what Git changes is no correction: a leaf counts only when this process, or our seal, knew the twin with
//! just what is declared now.

use super::context::{Context, Task};
use crate::plan::{Cause, HeldReason, SEAL_KEY, SealState, Sighting, TwinPlan, etag_counter};
use crate::twin::Twin;

/// What `live` and the plan for it show of others, against what this process last knew of the twin.
pub(super) fn look_around<H>(context: &Context<H>, live: &Twin, plan: &TwinPlan) -> Sighting {
    if !context.scope.seals {
        return Sighting::default();
    }
    let known = context.memory().get(&live.twin_ref).cloned();
    let owner = context.scope.owner.as_str();
    let before = known.as_ref().and_then(|known| known.declared.as_ref());
    let unchanged = plan.declared.is_some() && before == plan.declared.as_ref();
    let who = |leaf: &crate::plan::Leaf| live.last_writer(leaf.section, &leaf.path).map(str::to_owned);
    let corrected = if unchanged || plan.cause == Cause::Drift {
        plan.changes.iter().map(|change| (change.leaf.clone(), who(&change.leaf))).collect()
    } else {
        Vec::new()
    };
    let mark = SealState::mark(live.tags.get(SEAL_KEY), owner);
    let duplicate = known.as_ref().is_some_and(|known| {
        let state = SealState::read(live, owner);
        let Some(seal) = state.seal().filter(|_| mark != known.seal) else { return false };
        // A seal that an hour-old backup brought back was not written after we last looked.
        let counter = |text: &str| crate::twin::ETag::new(text).as_ref().and_then(etag_counter);
        let later = seal.etag.as_deref().and_then(counter) > etag_counter(&known.etag);
        let others = |hash: &String| plan.declared.as_ref().is_some_and(|ours| ours.as_str() != hash);
        later && known.device_etag == live.device_etag && seal.declared.as_ref().is_some_and(others)
    });
    let seal_deleted =
        known.is_some_and(|known| known.seal.is_some() && known.device_etag == live.device_etag) && mark.is_none();
    Sighting { declared: plan.declared.clone(), corrected, seal_deleted, duplicate }
}

/// Why the plan is not carried out, because of others.
pub(super) fn restrained(task: &Task, plan: &TwinPlan, seen: &Sighting) -> Option<HeldReason> {
    if task.wish.is_some() {
        return None;
    }
    if seen.duplicate || task.restraint.duplicate {
        return Some(HeldReason::DuplicateOwner);
    }
    let contest = task.restraint.contest.clone().filter(|_| !seen.corrected.is_empty());
    let seal =
        (plan.seal_only() && task.restraint.forbids_reseal(seen.seal_deleted)).then_some(HeldReason::SealContested);
    contest.map(HeldReason::Contested).or(seal)
}
