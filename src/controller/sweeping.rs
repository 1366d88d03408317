//! When and how the loop sweeps, what it says of that, and what it waits for when the day's messages are used up.
//!
//! Invariant: a sweep is planned from what may be asked of the hub now; its interval is never shorter than the setting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::access::Access;
use super::backoff::jittered;
use super::loop_state::{Controller, Finished, MISPREDICTIONS_MAX, Running};
use super::pacing::DeclaredSize;
use super::queue::Lane;
use super::sweep::{SweepOptions, Swept, sweep_and_tell};
use crate::hub::{HubError, PageError};
use crate::plan::{Outcome, SweepMode, SweepPlan};

/// How late after 00:00 UTC somebody asks again, so that not everybody does at once.
const MIDNIGHT_SPREAD: Duration = Duration::from_secs(60);

impl<H: Access> Controller<H> {
    /// How to sweep next, as far as is known now.
    fn sweep_plan(&self) -> SweepPlan {
        let frozen = self.state.frozen.held.keys();
        let along = self.context.along();
        let declared = DeclaredSize {
            twins: self.state.twins.len() + frozen.filter(|twin| !self.state.twins.contains_key(twin)).count(),
            conditions: self.state.conditional().count(),
            modules: along.modules.is_some() || self.state.twins.keys().any(|twin| twin.module.is_some()),
            judged: self.first_nominated.is_some() && self.context.gate().is_judged(),
            along: (!along.is_empty()).then(|| along.most()),
        };
        self.pacing.plan(declared, &self.context.hub.allowance())
    }

    /// Starts a sweep.
    pub(super) fn start_sweep(&mut self, now: Duration) {
        self.next_sweep = None;
        let plan = self.sweep_plan();
        let options = SweepOptions {
            mode: plan.mode,
            verify: plan.verify,
            trust_seals: self.mispredictions < MISPREDICTIONS_MAX,
            modules: self.pacing.modules(),
            count: !self.options.single_pass,
            interval: plan.interval(),
        };
        self.context.rows_swept.store(0, Ordering::Relaxed);
        let context = Arc::clone(&self.context);
        let handle = self.tasks.spawn(async move { Finished::Sweep(sweep_and_tell(&context, options).await) });
        self.running.push(Running { id: handle.id(), twin: None, since: now });
    }

    /// Plans the next sweep after one that found this.
    pub(super) fn plan_next_sweep(&mut self, swept: &Swept) {
        match swept.mode {
            SweepMode::Query => self.pacing.listed(swept.sealed, swept.modules),
            SweepMode::Read => {}
        }
        self.pacing.swept(swept.mode);
        let plan = self.sweep_plan();
        self.report.sweep_planned(&plan, self.options.sweep);
        self.next_sweep = (!self.options.single_pass).then(|| self.now() + plan.interval());
        if let Some(devices) = swept.devices {
            let declared = self.state.twins.keys().filter(|twin| twin.module.is_none()).count();
            let missing = self.statuses.iter().filter(|(_, status)| status.outcome == Outcome::Missing).count();
            self.report.undeclared(devices.saturating_sub(declared.saturating_sub(missing)));
        }
    }

    /// When a sweep that failed is tried again.
    pub(super) fn retry_sweep(&mut self, error: &PageError, first: Duration, max: Duration) {
        let pause = jittered(first, max, self.sweep_failures, &mut self.rng);
        let next = match error {
            PageError::Hub(HubError::Quota | HubError::QuotaShare) => self.next_day(),
            PageError::Hub(_) | PageError::TooMany(_) if self.health.is_down() => self.health.paused_until(),
            PageError::Hub(_) | PageError::TooMany(_) => self.now() + pause,
        };
        self.next_sweep = Some(if self.options.single_pass { self.now() + pause } else { next });
    }

    /// The hub's messages of the day are used up: nobody asks before the next one. A single pass gives up instead.
    pub(super) fn quota_used_up(&mut self) {
        if self.options.single_pass {
            return;
        }
        let until = self.next_day();
        if self.health.pause_for_the_day(until, self.now()) {
            self.report.quota_used_up(until.saturating_sub(self.now()));
        }
    }

    fn next_day(&mut self) -> Duration {
        let wait = until_utc_midnight((self.options.wall_clock)());
        self.now() + wait + jittered(MIDNIGHT_SPREAD, MIDNIGHT_SPREAD, 1, &mut self.rng)
    }

    /// Says how far the present work is.
    pub(super) fn measure_progress(&mut self, now: Duration) {
        let pages = if self.sweep_running() {
            let expected = self.pacing.sealed().unwrap_or(self.state.twins.len());
            expected.saturating_sub(self.context.rows_swept.load(Ordering::Relaxed)).max(1)
        } else {
            0
        };
        let reading = self.running.iter().filter(|running| running.twin.is_some()).count();
        let waiting = self.queue.due_in(Lane::Sweep, now);
        let remaining = pages + waiting + if pages + waiting > 0 { reading } else { 0 };
        let progress = self.progress.update(remaining, now);
        self.report.progress(&progress, self.progress.elapsed(now));
    }
}

/// Time until 00:00 UTC, when daily quotas begin anew (`iot-hub.md` 3.2).
pub(super) fn until_utc_midnight(now: SystemTime) -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Duration::from_secs(DAY - seconds % DAY)
}
