//! What the end of a task means for the loop: for the queue, the guard, the hub's health and everybody who watches.
//!
//! Invariant: every end is taken in exactly once, and whatever it leaves to do is in the queue or in the time of the
//! next sweep afterwards.

use std::time::Duration;

use tokio::task::{Id, JoinError};

use super::access::Access;
use super::backoff::{self, Circumstances, Requeue, jittered};
use super::loop_state::{Controller, Finished, MISPREDICTIONS_MAX};
use super::queue::Lane;
use super::reconcile::Reconciled;
use super::report::Report;
use super::sweep::{Swept, Untouched};
use super::sweeping::until_utc_midnight;
use crate::hub::{HubError, PageError};
use crate::plan::{HeldReason, Outcome, Suspend, SweepMode, TwinState};
use crate::twin::{Near, TwinRef};

/// Tries of one twin in a single pass before it counts as failed.
const PASS_TRIES_MAX: u32 = 5;
/// Tries of one twin before the first sweep is judged without it. It counts as one that would lose something.
const JUDGE_TRIES_MAX: u32 = 5;
/// The longest wait of a twin whose read or write was not answered, beyond the pause of the hub.
const UNANSWERED_FIRST: Duration = Duration::from_secs(1);
const UNANSWERED_MAX: Duration = Duration::from_secs(30);
const SWEEP_RETRY_FIRST: Duration = Duration::from_secs(2);
const SWEEP_RETRY_MAX: Duration = Duration::from_secs(60);

impl<H: Access> Controller<H> {
    pub(super) fn finished(&mut self, finished: Result<(Id, Finished), JoinError>) {
        let id = finished.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.options.first_contact.cancel();
        let index = self.running.iter().position(|running| running.id == id).expect("every task is listed");
        let running = self.running.swap_remove(index);
        let took = self.now().saturating_sub(running.since);
        match finished {
            Ok((_, Finished::Sweep(result))) => self.swept(result),
            Ok((_, Finished::Twin(result))) => self.reconciled(&result, took),
            Err(error) => self.died(&error, running.twin.as_ref()),
        }
    }

    /// A task panicked. Its twin is tried again; a sweep too.
    fn died(&mut self, error: &JoinError, twin: Option<&TwinRef>) {
        let now = self.now();
        self.report.panicked(error, twin);
        match twin {
            None => {
                self.asked.ended(None, true);
                self.next_sweep = Some(now + SWEEP_RETRY_MAX);
                self.count_sweep_failure("internal error, see the log");
            }
            Some(twin) => {
                self.queue.done(twin);
                self.asked.ended(Some(twin), true);
                self.context.memory().remove(twin);
                self.statuses.record(twin, Outcome::Failed, "internal error, see the log".to_owned(), now);
                let abandoned = self.requeue(twin, &Outcome::Failed, None);
                self.judge_twin(twin, false, abandoned);
            }
        }
    }

    fn swept(&mut self, result: Result<Swept, PageError>) {
        let now = self.now();
        let mut swept = match result {
            Ok(swept) => swept,
            Err(error) => return self.sweep_failed(&error),
        };
        self.answered();
        self.sweep_failures = 0;
        self.plan_next_sweep(&swept);
        if std::mem::take(&mut self.sweep_asked) {
            self.next_sweep = Some(now);
        }
        self.asked.ended(None, false);
        self.last_sweep = Some((self.options.wall_clock)());
        let (members, queries) = (std::mem::take(&mut swept.members), std::mem::take(&mut swept.queries));
        if swept.mode == SweepMode::Query {
            self.context.gate().take_sweep(swept.sealed, members, queries);
        }
        self.rivals.forget_old(now);
        self.take_untouched(&swept.untouched, now);
        // What is due now is not to stand in two lines, even for a moment: it may be the whole fleet.
        self.queue.depth(now);
        for twin in swept.nominated.keys() {
            if self.queue.nominate(twin, Lane::Sweep, now) {
                self.report.added(Lane::Sweep);
            }
        }
        self.report.swept(&swept, &self.statuses, (self.options.wall_clock)());
        self.report.states(&self.statuses, now);
        if self.first_nominated.is_none() && (swept.is_whole || self.options.single_pass) {
            self.first_nominated = Some(swept.nominated);
        } else if !swept.is_whole {
            self.sweep_to_judge();
        }
        self.judge_first_sweep();
        self.removals_wait = true;
        self.check_guards();
    }

    /// Twins that a sweep found in sync without a read.
    fn take_untouched(&mut self, untouched: &Untouched, now: Duration) {
        let mut gate = self.context.gate();
        if self.statuses.count(TwinState::Pending) == 0 && !gate.awaits_creates() {
            // Nobody waits to hear of them.
            return;
        }
        let mut near = Near::default();
        for twin in untouched.iter() {
            gate.creates_nothing(twin);
            let pending = self.statuses.is_pending(&mut near, twin);
            // Whatever else is known of a twin is known from a later look than the row's.
            if pending && !self.queue.contains(twin) {
                self.seen.insert(twin.clone(), ());
                gate.updates_nothing(twin);
                self.statuses.record(twin, Outcome::InSync, String::new(), now);
            }
        }
    }

    fn sweep_failed(&mut self, error: &PageError) {
        self.context.gate().sweep_failed();
        self.asked.ended(None, true);
        self.count_sweep_failure(&error.to_string());
        if let PageError::Hub(error @ (HubError::Transport { .. } | HubError::Unauthorized { .. })) = error {
            self.hub_failed(error);
        } else {
            self.report.sweep_failed(error);
        }
        if let PageError::Hub(HubError::Quota) = error {
            self.quota_used_up();
        }
        self.retry_sweep(error, SWEEP_RETRY_FIRST, SWEEP_RETRY_MAX);
    }

    fn count_sweep_failure(&mut self, message: &str) {
        self.sweep_failures = self.sweep_failures.saturating_add(1);
        if self.options.single_pass && self.sweep_failures >= PASS_TRIES_MAX {
            self.error = Some(message.to_owned());
        }
    }

    /// Takes `twin` off what the first sweep nominated: it was planned, or it counts as a loser because it cannot be.
    fn judge_twin(&mut self, twin: &TwinRef, planned: bool, abandoned: bool) {
        let failures = self.statuses.get(twin).map_or(0, |status| status.failures);
        let given_up = abandoned || failures >= JUDGE_TRIES_MAX;
        let awaited =
            self.first_nominated.as_mut().is_some_and(|twins| (planned || given_up) && twins.remove(twin).is_some());
        if awaited && !planned {
            self.context.gate().suspect(twin);
        }
        self.judge_first_sweep();
    }

    /// The first sweep is judged once everything it nominated has been planned: only then is it known how many twins
    /// would lose something.
    fn judge_first_sweep(&mut self) {
        let Some(nominated) = &self.first_nominated else { return };
        if nominated.is_empty() && !self.context.gate().is_judged() {
            self.context.gate().judge_first_sweep();
            self.release_removals();
        }
    }

    fn reconciled(&mut self, result: &Reconciled, took: Duration) {
        let now = self.now();
        let twin = result.twin.clone();
        self.queue.done(&twin);
        self.asked.ended(Some(&twin), false);
        self.remember(result);
        self.rivals.see(&twin, result.sighting.clone(), now);
        self.wished(result);
        let hub_down = match &result.error {
            Some(error @ HubError::Transport { .. }) => self.hub_failed(error),
            Some(error) if result.hub_unauthorized => self.hub_failed(error),
            Some(HubError::Quota) => {
                self.answered();
                self.quota_used_up();
                false
            }
            Some(_) | None => {
                self.answered();
                false
            }
        };
        let message = Report::message(result);
        let news = self.statuses.record(&twin, result.outcome.clone(), message, now);
        self.report.reconciled(result, took, news && !hub_down, &self.state.revision);
        self.report.states(&self.statuses, now);
        if result.seal_due {
            self.add(&twin, Lane::Seal, now);
        }
        let abandoned = if hub_down && !self.options.single_pass {
            self.requeue_unanswered(&twin);
            false
        } else {
            self.requeue(&twin, &result.outcome, result.error.as_ref())
        };
        self.judge_twin(&twin, result.planned, abandoned);
        self.check_guards();
    }

    /// Takes over what the reconcile found out about twin and hub.
    fn remember(&mut self, result: &Reconciled) {
        match &result.verified {
            Some(verified) => {
                self.seen.insert(result.twin.clone(), ());
                self.context.memory().insert(result.twin.clone(), verified.clone());
            }
            None => {
                self.context.memory().remove(&result.twin);
            }
        }
        match &result.error {
            Some(error) if result.outcome == Outcome::Rejected => {
                self.rejections.insert(result.twin.clone(), error.clone());
            }
            Some(_) | None => {
                self.rejections.remove(&result.twin);
            }
        }
        if result.outcome == Outcome::Released {
            self.seen.remove(&result.twin);
        }
        match result.foretold {
            Some(true) => self.mispredictions = 0,
            Some(false) => {
                self.mispredictions = self.mispredictions.saturating_add(1);
                self.report.mispredicted(&result.twin, self.mispredictions == MISPREDICTIONS_MAX);
            }
            None => {}
        }
    }

    /// Puts a twin back that the hub did not answer for: after the pause of the hub and a wait of its own, so that it is
    /// not this twin, should it alone be the reason, by which the hub is tried each time.
    fn requeue_unanswered(&mut self, twin: &TwinRef) {
        let failures = self.statuses.get(twin).map_or(0, |status| status.failures);
        let wait = jittered(UNANSWERED_FIRST, UNANSWERED_MAX, failures, &mut self.rng);
        let due = self.health.paused_until().max(self.now()) + wait;
        self.add(twin, Lane::Retry, due);
    }

    /// Puts a twin back for a later try. Answers whether a single pass gives it up instead.
    fn requeue(&mut self, twin: &TwinRef, outcome: &Outcome, error: Option<&HubError>) -> bool {
        if let Outcome::Held(HeldReason::Suspended(Suspend { until: Some((until, _)), .. })) = outcome
            && !self.options.single_pass
        {
            let seconds = until.saturating_sub(self.context.unix_now());
            let due = self.now() + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            self.add(twin, Lane::Sweep, due);
            return false;
        }
        if let Outcome::Held(HeldReason::Contested(_) | HeldReason::SealContested | HeldReason::DuplicateOwner) =
            outcome
            && let Some(end) = self.rivals.next_end(twin, self.now()).filter(|_| !self.options.single_pass)
        {
            self.add(twin, Lane::Sweep, end);
            return false;
        }
        let failures = self.statuses.get(twin).map_or(0, |status| status.failures);
        let retry_after = match error {
            Some(HubError::Throttled { retry_after, .. }) => *retry_after,
            Some(_) | None => None,
        };
        let until_utc_midnight = until_utc_midnight((self.options.wall_clock)());
        let circumstances = Circumstances { failures, retry_after, until_utc_midnight };
        let Requeue::After(wait) = backoff::next(outcome, circumstances, &mut self.rng) else { return false };
        let hopeless = matches!(outcome, Outcome::Missing | Outcome::Unauthorized | Outcome::Quota);
        if self.options.single_pass && (hopeless || failures >= PASS_TRIES_MAX) {
            return true;
        }
        let due = self.now() + wait;
        self.add(twin, Lane::Retry, due);
        false
    }

    /// The hub as a whole does not answer us. Answers `true`.
    fn hub_failed(&mut self, error: &HubError) -> bool {
        let now = self.now();
        if self.health.failed(now, &mut self.rng) {
            self.report.hub_failed(error);
        }
        true
    }

    fn answered(&mut self) {
        if self.health.answered() {
            self.report.hub_recovered();
        }
    }
}
