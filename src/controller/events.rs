//! What the end of a task means for the loop: for the queue, the guard, the hub's health and everybody who watches.
//!
//! Invariant: every end is taken in exactly once, and whatever it leaves to do is in the queue or in the time of the
//! next sweep afterwards.

use std::time::{Duration, SystemTime};

use tokio::task::{Id, JoinError};

use super::backoff::{self, Circumstances, Requeue, jittered};
use super::queue::Lane;
use super::reconcile::Reconciled;
use super::report::Report;
use super::run::{Controller, Finished, MISPREDICTIONS_MAX};
use super::sweep::Swept;
use crate::hub::{HubError, PageError, WriteTwins};
use crate::plan::Outcome;
use crate::twin::TwinRef;

/// Tries of one twin in a single pass before it counts as failed.
const PASS_TRIES_MAX: u32 = 5;
const SWEEP_RETRY_FIRST: Duration = Duration::from_secs(2);
const SWEEP_RETRY_MAX: Duration = Duration::from_secs(60);

impl<H: WriteTwins + 'static> Controller<H> {
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
            None => self.next_sweep = Some(now + SWEEP_RETRY_MAX),
            Some(twin) => {
                self.queue.done(twin);
                self.statuses.record(twin, Outcome::Failed, "internal error, see the log".to_owned(), now);
                self.requeue(twin, &Outcome::Failed, None);
            }
        }
    }

    fn swept(&mut self, result: Result<Swept, PageError>) {
        let now = self.now();
        let swept = match result {
            Ok(swept) => swept,
            Err(error) => return self.sweep_failed(&error),
        };
        self.answered();
        self.sweep_failures = 0;
        self.next_sweep = (!self.options.single_pass).then(|| now + self.options.sweep);
        self.context.gate().fleet_mut().sealed = swept.sealed;
        for twin in &swept.untouched {
            self.statuses.record(twin, Outcome::InSync, String::new(), now);
        }
        for twin in &swept.nominated {
            if self.queue.nominate(twin, Lane::Sweep, now) {
                self.report.added(Lane::Sweep);
            }
        }
        self.report.swept(&swept, &self.statuses, (self.options.wall_clock)());
        if self.first_nominated.is_none() {
            self.first_nominated = Some(swept.nominated);
        }
        self.judge_first_sweep(None);
        self.removals_wait = true;
        self.check_removals();
    }

    fn sweep_failed(&mut self, error: &PageError) {
        let now = self.now();
        self.sweep_failures += 1;
        if let PageError::Hub(error @ (HubError::Transport { .. } | HubError::Unauthorized { .. })) = error {
            self.hub_failed(error);
        } else {
            self.report.sweep_failed(error);
        }
        if self.options.single_pass && self.sweep_failures >= PASS_TRIES_MAX {
            self.error = Some(error.to_string());
        }
        let pause = jittered(SWEEP_RETRY_FIRST, SWEEP_RETRY_MAX, self.sweep_failures, &mut self.rng);
        self.next_sweep = Some(if self.health.is_down() { self.health.paused_until() } else { now + pause });
    }

    /// The first sweep is judged once everything it nominated has been planned: only then is it known how many twins
    /// would lose something.
    fn judge_first_sweep(&mut self, planned: Option<&TwinRef>) {
        let Some(nominated) = &mut self.first_nominated else { return };
        if let Some(twin) = planned {
            nominated.remove(twin);
        }
        if nominated.is_empty() && !self.context.gate().is_judged() {
            self.context.gate().judge_first_sweep();
            self.release_removals();
        }
    }

    fn reconciled(&mut self, result: &Reconciled, took: Duration) {
        let now = self.now();
        let twin = result.twin.clone();
        self.queue.done(&twin);
        self.remember(result);
        let hub_down = match &result.error {
            Some(error @ HubError::Transport { .. }) => self.hub_failed(error),
            Some(error) if result.hub_unauthorized => self.hub_failed(error),
            Some(_) | None => {
                self.answered();
                false
            }
        };
        let message = Report::message(result);
        let news = self.statuses.record(&twin, result.outcome.clone(), message, now);
        self.report.reconciled(result, took, news && !hub_down, &self.statuses, &self.state.revision);
        if result.seal_due {
            self.add(&twin, Lane::Seal, now);
        }
        let settled = !matches!(result.outcome, Outcome::Failed | Outcome::Throttled | Outcome::Conflict);
        if hub_down && !self.options.single_pass {
            self.queue.add(&twin, Lane::Retry, self.health.paused_until());
        } else {
            let abandoned = self.requeue(&twin, &result.outcome, result.error.as_ref());
            self.judge_first_sweep((settled || abandoned).then_some(&twin));
        }
        self.check_removals();
    }

    /// Takes over what the reconcile found out about twin and hub.
    fn remember(&mut self, result: &Reconciled) {
        match &result.verified {
            Some(verified) => {
                self.seen.insert(result.twin.clone());
                self.context.memory().insert(result.twin.clone(), verified.clone());
            }
            None => {
                self.context.memory().remove(&result.twin);
            }
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

    /// Puts a twin back for a later try. Answers whether a single pass gives it up instead.
    fn requeue(&mut self, twin: &TwinRef, outcome: &Outcome, error: Option<&HubError>) -> bool {
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

/// Time until 00:00 UTC, when daily quotas begin anew (`iot-hub.md` 3.2).
fn until_utc_midnight(now: SystemTime) -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Duration::from_secs(DAY - seconds % DAY)
}
