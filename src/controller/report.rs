//! What the loop tells people and Prometheus.
//!
//! Invariants: an error is logged once, where it is handled; a state that lasts is said when it begins and when it
//! ends. Info is per pass and per change made, debug per twin.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::task::JoinError;
use tracing::{debug, error, info, warn};

use super::chorus::Chorus;
use super::journal::Journal;
use super::options::Options;
use super::pacing::Progress;
use super::queue::Lane;
use super::reconcile::Reconciled;
use super::status::{Statuses, held_message};
use super::sweep::Swept;
use crate::hub::{HubError, PageError};
use crate::metrics::{ControllerHub, Guard, Reason, SweepKind, Target, TwinKind, TwinState as StateLabel};
use crate::plan::{
    Approval, Cause, Change, ChangeHold, DeclaredState, GuardKind, Outcome, RemovalHold, Synced, TwinState,
};
use crate::plan::{SweepCost, SweepMode, SweepPlan};
use crate::twin::{Section, TwinRef};

/// How often progress is said.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// The voice of one loop.
#[derive(Debug)]
pub(super) struct Report {
    hub: String,
    workers: usize,
    metrics: ControllerHub,
    journal: Journal,
    wall_clock: fn() -> SystemTime,
    removal_hold: Option<RemovalHold>,
    change_holds: BTreeMap<GuardKind, ChangeHold>,
    sweep_failing: bool,
    /// Kind and interval of sweeps that were told last.
    sweep_told: Option<(SweepMode, Duration)>,
    /// How many twins were named for each reason.
    chorus: Chorus,
    /// How old the present work was when its progress was said last.
    progress_said: Duration,
}

impl Report {
    pub(super) fn new(options: &Options, metrics: ControllerHub) -> Self {
        for kind in [TwinKind::Device, TwinKind::Module] {
            metrics.set_interval(kind, options.sweep);
        }
        Self {
            hub: options.hub.clone(),
            workers: options.workers,
            metrics,
            journal: options.journal.clone(),
            wall_clock: options.wall_clock,
            removal_hold: None,
            change_holds: BTreeMap::new(),
            sweep_failing: false,
            sweep_told: None,
            chorus: Chorus::default(),
            progress_said: Duration::ZERO,
        }
    }

    /// One sentence on how a reconcile ended; empty when the outcome says it all.
    pub(super) fn message(result: &Reconciled) -> String {
        match &result.error {
            Some(error) => error.to_string(),
            None if result.outcome == Outcome::Missing && result.twin.module.is_some() => {
                "the module is not registered; register it first".to_owned()
            }
            None if result.outcome == Outcome::Missing => {
                "the device is not registered; register it, or set `create: true`".to_owned()
            }
            None if result.outcome == Outcome::Conflict => {
                format!("somebody else wrote in between {} times in a row", result.conflicts)
            }
            None if result.outcome == Outcome::Drifted => drift_message(&result.drift),
            None if result.outcome == Outcome::Kept => {
                "its manifest is broken, the twin is kept as the last good one declared it; `geminid validate` says what is wrong"
                    .to_owned()
            }
            None => held_message(&result.held),
        }
    }

    pub(super) fn reconciled(&mut self, result: &Reconciled, took: Duration, news: bool, revision: &str) {
        let (hub, twin) = (&self.hub, &result.twin);
        if result.created {
            info!(%hub, %twin, revision, "registered the device");
        }
        let changes: Vec<(String, String)> =
            result.changes.iter().map(|change| (change.leaf.to_string(), change.to_string())).collect();
        for (_, change) in &changes {
            info!(%hub, %twin, revision, "{change}");
        }
        if result.outcome == Outcome::Released && result.sealed {
            info!(%hub, %twin, revision, "released: its manifest is gone, the seal is removed");
        }
        let condition = result.outcome.condition();
        let trouble = condition.is_some_and(|condition| condition.synced != Synced::True);
        let reason = condition.map_or("Released", |condition| condition.reason);
        let message = Self::message(result);
        if news && trouble && self.chorus.names(reason, (self.wall_clock)()) {
            warn!(%hub, %twin, reason, "{message}");
        } else {
            debug!(%hub, %twin, reason, message, duration_ms = u64::try_from(took.as_millis()).ok(), "reconciled");
        }
        self.note(result, &changes, (news && trouble).then_some((reason, message)));
        self.count(result, took);
    }

    /// What a reconcile did, and what trouble is new, for people who ask later.
    fn note(&self, result: &Reconciled, changes: &[(String, String)], trouble: Option<(&'static str, String)>) {
        let (at, twin) = ((self.wall_clock)(), &result.twin);
        if result.created {
            self.journal.tell_of(at, twin, "Registered", String::new());
        }
        if !changes.is_empty() {
            self.journal.tell_written(at, twin, changes);
        }
        if result.outcome == Outcome::Released && result.sealed {
            self.journal.tell_of(at, twin, "Released", "its manifest is gone, the seal is removed".to_owned());
        }
        if let Some((reason, message)) = trouble {
            self.journal.tell_of(at, twin, reason, message);
        }
    }

    fn count(&self, result: &Reconciled, took: Duration) {
        let kind = kind_of(&result.twin);
        self.metrics.reconciled(kind, took);
        self.metrics.queue().worked(took);
        if let Some(error) = &result.error {
            self.metrics.failed(kind, Reason::of(error.category()));
        } else if result.outcome == Outcome::Missing {
            self.metrics.failed(kind, Reason::NotFound);
        } else if result.outcome == Outcome::Conflict {
            self.metrics.failed(kind, Reason::Conflict);
        }
        (0..result.conflicts).for_each(|_| self.metrics.conflict());
        if result.sealed {
            self.metrics.patched(target_of(&result.changes));
        }
        if result.dry_run {
            self.metrics.dry_run(target_of(&result.drift));
        }
        if result.cause == Cause::Drift && !result.changes.is_empty() {
            self.metrics.drifted(target_of(&result.changes));
        }
    }

    /// Says of how many twins nothing was said; all of it once things have `settled`.
    pub(super) fn unnamed(&mut self, settled: bool) {
        let hub = &self.hub;
        for (reason, twins) in self.chorus.end((self.wall_clock)(), settled) {
            warn!(%hub, reason, twins, "so many more twins are not in sync for this reason; `geminid get` lists them");
        }
    }

    /// How all twins stand at `now`, an age of the process.
    pub(super) fn states(&self, statuses: &Statuses, now: Duration) {
        for state in TwinState::ALL {
            self.metrics.set_twins(label_of(state), statuses.count(state));
        }
        self.metrics.set_contested(statuses.count(TwinState::Contested));
        self.metrics.set_ownership_conflicts(statuses.ownership_conflicts());
        // Reckoned back from now, so that a wall clock set anew after the start does not make twins older than they are.
        let astray = statuses.astray_since().map(|since| now.saturating_sub(since));
        self.metrics.set_oldest_astray(astray.and_then(|age| (self.wall_clock)().checked_sub(age)));
    }

    pub(super) fn swept(&mut self, swept: &Swept, statuses: &Statuses, at: SystemTime) {
        let found = format!("{}, {} to read", twins_counted(statuses.len()), swept.nominated.len());
        self.journal.tell((self.wall_clock)(), "SweepComplete", found);
        self.sweep_failing = false;
        self.metrics.sweep_completed(at);
        self.metrics.pass_ended(TwinKind::Device, at);
        // Of a hub whose modules have gone there is no pass that could be late.
        self.metrics.pass_ended(TwinKind::Module, if swept.modules { at } else { SystemTime::UNIX_EPOCH });
        let (hub, sealed, pages) = (&self.hub, swept.sealed, swept.pages);
        let mode = swept.mode.as_str();
        info!(%hub, twins = statuses.len(), sealed, to_read = swept.nominated.len(), pages, mode, "sweep complete");
    }

    /// Which kind of sweep comes next and when, said when it changes.
    pub(super) fn sweep_planned(&mut self, plan: &SweepPlan, setting: Duration) {
        let interval = plan.interval();
        let metrics = self.metrics.sweep();
        metrics.set_interval(interval);
        for kind in [TwinKind::Device, TwinKind::Module] {
            self.metrics.set_interval(kind, interval);
        }
        for (kind, cost) in [(SweepKind::Query, &plan.query), (SweepKind::Read, &plan.read)] {
            metrics.set_cost(kind, cost.time, cost.messages);
        }
        if self.sweep_told.replace((plan.mode, interval)) == Some((plan.mode, interval)) {
            return;
        }
        let (hub, mode) = (&self.hub, plan.mode.as_str());
        let costs = |cost: &SweepCost| format!("{:.1?} and {} messages", cost.time, cost.messages);
        let (query, read) = (costs(&plan.query), costs(&plan.read));
        if interval > setting {
            warn!(%hub, mode, ?interval, ?setting, query, read, "rate and daily messages allow sweeps less often than set");
        } else if plan.mode == SweepMode::Read {
            info!(%hub, mode, ?interval, query, read, "sweeps read every twin, which is cheaper than asking for pages");
        } else {
            debug!(%hub, mode, ?interval, query, read, "sweeps ask for pages");
        }
    }

    pub(super) fn undeclared(&self, devices: usize) {
        self.metrics.sweep().set_undeclared(devices);
    }

    /// How far the present work is; said now and then when it lasts.
    pub(super) fn progress(&mut self, progress: &Progress, elapsed: Duration) {
        let eta = progress.eta.unwrap_or_default();
        self.metrics.sweep().set_progress(progress.remaining, eta);
        // Work that is younger than what was said of it is other work.
        self.progress_said = if elapsed < self.progress_said { Duration::ZERO } else { self.progress_said };
        if elapsed - self.progress_said < PROGRESS_EVERY {
            return;
        }
        self.progress_said = elapsed;
        let (hub, remaining, of) = (&self.hub, progress.remaining, progress.total);
        match progress.eta {
            Some(eta) => info!(%hub, remaining, of, eta_s = eta.as_secs(), "sweep under way"),
            None => info!(%hub, remaining, of, "sweep under way"),
        }
    }

    pub(super) fn quota_used_up(&self, wait: Duration) {
        let (hub, wait_s) = (&self.hub, wait.as_secs());
        error!(%hub, reason = "quota", wait_s, "the hub's daily messages are used up; nothing is asked of it until 00:00 UTC");
    }

    pub(super) fn sweep_failed(&mut self, error: &PageError) {
        let hub = &self.hub;
        if self.sweep_failing {
            debug!(%hub, %error, "the sweep failed again");
        } else {
            self.journal.tell((self.wall_clock)(), "SweepFailed", error.to_string());
            warn!(%hub, "the sweep failed and is tried again: {error}");
        }
        self.sweep_failing = true;
    }

    pub(super) fn state_changed(&self, state: &DeclaredState, changed: usize) {
        let found = format!("revision {}: {} declared, {changed} changed", state.revision, state.twins.len());
        self.journal.tell((self.wall_clock)(), "ManifestsChanged", found);
        let (hub, revision) = (&self.hub, &state.revision);
        info!(%hub, %revision, declared = state.twins.len(), changed, "manifests changed");
    }

    /// Says when removals begin to wait, or wait for another reason, and when they go on. While twins are still looked
    /// at the count grows with each; it is said again once it has `settled`.
    pub(super) fn removals(&mut self, hold: Option<&RemovalHold>, waiting: usize, settled: bool) {
        let hold = hold.filter(|_| waiting > 0);
        self.metrics.set_guard(Guard::Removals, matches!(hold, Some(RemovalHold::Guard { .. })));
        self.metrics.set_guard(Guard::Empty, matches!(hold, Some(RemovalHold::EmptyState { .. })));
        self.metrics.set_removals_held(if hold.is_some() { waiting } else { 0 });
        let kind = |hold: Option<&RemovalHold>| hold.map(std::mem::discriminant);
        if hold.is_some() && kind(hold) == kind(self.removal_hold.as_ref()) && !settled {
            return;
        }
        let hub = &self.hub;
        match hold {
            Some(RemovalHold::FirstSweep) | None => {
                if self.removal_hold.is_some() && hold.is_none() {
                    info!(%hub, "removals go on");
                }
            }
            Some(hold) if self.removal_hold.as_ref() != Some(hold) => {
                self.journal.tell((self.wall_clock)(), "RemovalsHeld", format!("{}: {hold}", twins_counted(waiting)));
                warn!(%hub, twins = waiting, "removals are held: {hold}");
            }
            Some(_) => {}
        }
        self.removal_hold = hold.cloned();
    }

    /// Says when a guard begins to hold registrations or changes, and when these go on.
    pub(super) fn changes(&mut self, holds: &[(GuardKind, Option<ChangeHold>, usize); 2], settled: bool) {
        let hub = &self.hub;
        for (guard, hold, twins) in holds {
            let label = if *guard == GuardKind::Creates { Guard::Creates } else { Guard::Updates };
            self.metrics.set_guard(label, hold.is_some());
            let known = self.change_holds.get(guard);
            match hold {
                Some(hold) if known.is_none() || (settled && known != Some(hold)) => {
                    warn!(%hub, %guard, twins, "held: {hold}");
                    self.change_holds.insert(*guard, hold.clone());
                }
                Some(_) => {}
                None => {
                    if self.change_holds.remove(guard).is_some() {
                        info!(%hub, %guard, "what was held goes on");
                    }
                }
            }
        }
    }

    pub(super) fn approved(&self, approval: &Approval) {
        self.journal.tell((self.wall_clock)(), "Approved", approval.to_string());
        let (hub, guard, revision, count) = (&self.hub, approval.guard, &approval.revision, approval.count);
        let twin = approval.twin.as_ref().map(ToString::to_string);
        info!(%hub, %guard, %revision, count, twin, "approved for one hour");
    }

    pub(super) fn hub_failed(&self, error: &HubError) {
        self.journal.tell((self.wall_clock)(), "HubDown", error.to_string());
        let hub = &self.hub;
        error!(%hub, reason = error.category(), "{error}; trying again until it answers");
    }

    pub(super) fn hub_recovered(&self) {
        self.journal.tell((self.wall_clock)(), "HubUp", String::new());
        let hub = &self.hub;
        info!(%hub, "the hub answers again");
    }

    pub(super) fn mispredicted(&self, twin: &TwinRef, gives_up: bool) {
        self.metrics.seal_mispredicted();
        let hub = &self.hub;
        debug!(%hub, %twin, "the hub's etag after the write is not the foretold one");
        if gives_up {
            warn!(%hub, "the hub's etags cannot be foretold; sweeps read every sealed twin from now on");
        }
    }

    pub(super) fn panicked(&self, error: &JoinError, twin: Option<&TwinRef>) {
        let (hub, twin) = (&self.hub, twin.map_or_else(|| "sweep".to_owned(), ToString::to_string));
        error!(%hub, twin, "internal error, please report it: {error}");
        self.metrics.panicked();
    }

    pub(super) fn added(&self, lane: Lane) {
        self.metrics.queue().added();
        if lane == Lane::Retry {
            self.metrics.queue().retried();
        }
    }

    pub(super) fn waited(&self, time: Duration) {
        self.metrics.queue().waited(time);
    }

    pub(super) fn queue(&self, depth: usize, workers: usize, spent: impl Iterator<Item = Duration>) {
        let queue = self.metrics.queue();
        queue.set_depth(depth);
        queue.set_workers(workers, self.workers);
        let (sum, longest) =
            spent.fold((Duration::ZERO, Duration::ZERO), |(sum, longest), time| (sum + time, longest.max(time)));
        queue.set_running(sum, longest);
    }

    pub(super) fn draining(&self, running: usize) {
        let hub = &self.hub;
        info!(%hub, running, "stopping: waiting for what is under way");
    }

    pub(super) fn drain_incomplete(&self, workers: usize) {
        let hub = &self.hub;
        warn!(%hub, workers, "stopped before every write was answered; the next start finds out what was done");
    }

    pub(super) fn ended(&self, statuses: &Statuses) {
        let hub = &self.hub;
        debug!(%hub, twins = statuses.len(), in_sync = statuses.count(TwinState::InSync), "reconciling ended");
    }
}

/// The first differences of a twin that nobody may write.
fn drift_message(drift: &[Change]) -> String {
    /// Enough to recognise what happened.
    const SHOWN_MAX: usize = 3;
    if drift.is_empty() {
        return "its manifest is gone and the seal stays: mode observe writes nothing".to_owned();
    }
    let mut shown: Vec<String> = drift.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if drift.len() > SHOWN_MAX {
        shown.push(format!("{} more", drift.len() - SHOWN_MAX));
    }
    format!("{}; mode observe writes nothing", shown.join("; "))
}

fn kind_of(twin: &TwinRef) -> TwinKind {
    if twin.module.is_some() { TwinKind::Module } else { TwinKind::Device }
}

fn target_of(changes: &[Change]) -> Target {
    let touches = |section| changes.iter().any(|change| change.leaf.section == section);
    match (touches(Section::Tags), touches(Section::Desired)) {
        (true, true) => Target::Both,
        (true, false) => Target::Tags,
        (false, true) => Target::Desired,
        (false, false) => Target::Seal,
    }
}

fn label_of(state: TwinState) -> StateLabel {
    match state {
        TwinState::InSync => StateLabel::InSync,
        TwinState::Drifted => StateLabel::Drifted,
        TwinState::Pending => StateLabel::Pending,
        TwinState::Held => StateLabel::Held,
        TwinState::Conflict => StateLabel::Conflict,
        TwinState::Contested => StateLabel::Contested,
        TwinState::Frozen => StateLabel::Frozen,
        TwinState::Rejected => StateLabel::Rejected,
        TwinState::Suspended => StateLabel::Suspended,
        TwinState::Missing => StateLabel::Missing,
        TwinState::Unauthorized => StateLabel::Unauthorized,
        TwinState::Failed => StateLabel::Failed,
    }
}

/// `1 twin`, `2 twins`.
fn twins_counted(count: usize) -> String {
    if count == 1 { "1 twin".to_owned() } else { format!("{count} twins") }
}
