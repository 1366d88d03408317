//! What the reconcile loop counts.
//!
//! Invariant: every hub has a queue of its own, so the label `queue` holds the hub's name.

use std::time::{Duration, SystemTime};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::instrument::{gauge_value, instruments, seconds, unix_seconds};
use super::label::{Guard, Label, Reason, Target, Task, TwinKind, TwinState};
use super::process::ProcessMetrics;
use super::sweep::{SweepHandle, SweepMetrics};

/// Buckets of reconcile durations, in seconds.
const RECONCILE_BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Buckets of waiting and working, in seconds.
const QUEUE_BUCKETS: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

instruments! {
    /// The instruments of all hubs' reconcile loops.
    struct Instruments {
        /// Reconciles finished, failed ones included.
        reconciles: IntCounterVec = "reconciles_total", ["hub", "kind"];
        /// Reconciles that failed, by reason.
        failures: IntCounterVec = "reconcile_failures_total", ["hub", "kind", "reason"];
        /// Time one reconcile took, from being taken out of the queue to its outcome.
        durations: HistogramVec = "reconcile_duration_seconds", ["hub", "kind"], RECONCILE_BUCKETS;
        /// Unix time at which the last sweep that reached its end did so; 0 before the first, and of modules where there are none.
        last_success: GaugeVec = "reconcile_last_success_timestamp_seconds", ["hub", "kind"];
        /// Time from one full pass to the next.
        intervals: GaugeVec = "reconcile_interval_seconds", ["hub", "kind"];
        /// Managed twins by state; a twin has exactly one.
        twins: IntGaugeVec = "twins", ["hub", "state"];
        /// Unix time since which the twin that has gone without what Git says for longest has done so; 0 when none does.
        oldest_astray: GaugeVec = "twin_out_of_sync_oldest_timestamp_seconds", ["hub"];
        /// Patches the hub accepted, by what they touched.
        patches: IntCounterVec = "twin_patches_total", ["hub", "target"];
        /// Patches planned and not sent as `mode` is `observe`, by what they would touch; each look at a twin counts.
        dry_run_patches: IntCounterVec = "twin_patches_dry_run_total", ["hub", "target"];
        /// Writes refused because the twin had changed since it was read.
        conflicts: IntCounterVec = "twin_conflicts_total", ["hub"];
        /// Live twins found to differ from an unchanged manifest, by what differed.
        drift: IntCounterVec = "drift_detected_total", ["hub", "target"];
        /// Unix time at which the last complete sweep ended; 0 before the first.
        sweep_complete: GaugeVec = "sweep_last_complete_timestamp_seconds", ["hub"];
        /// Twins whose removals are held back.
        removals_held: IntGaugeVec = "removals_held", ["hub"];
        /// Twins that somebody else keeps writing, or whose seal somebody keeps deleting.
        contested: IntGaugeVec = "contested_twins", ["hub"];
        /// Twins of which another owner holds a leaf that is declared with another value.
        ownership_conflicts: IntGaugeVec = "ownership_conflicts", ["hub"];
        /// 1 while a guard holds changes back.
        guard_tripped: IntGaugeVec = "guard_tripped", ["hub", "guard"];
        /// Patches that wrote nothing but our seal.
        seal_writes: IntCounterVec = "seal_writes_total", ["hub"];
        /// Writes after which the hub's etag was not the one our seal predicted.
        seal_mispredictions: IntCounterVec = "seal_mispredictions_total", ["hub"];
        /// Twins waiting in the queue that are due.
        depth: IntGaugeVec = "workqueue_depth", ["queue"];
        /// Twins put into the queue.
        adds: IntCounterVec = "workqueue_adds_total", ["queue"];
        /// Twins put back into the queue after a try.
        retries: IntCounterVec = "workqueue_retries_total", ["queue"];
        /// Time a due twin waited in the queue.
        queue_durations: HistogramVec = "workqueue_queue_duration_seconds", ["queue"], QUEUE_BUCKETS;
        /// Time a worker spent on one twin.
        work_durations: HistogramVec = "workqueue_work_duration_seconds", ["queue"], QUEUE_BUCKETS;
        /// Time spent so far on the twins that are being worked on, summed.
        unfinished: GaugeVec = "workqueue_unfinished_work_seconds", ["queue"];
        /// Time the longest running worker has spent on its twin.
        longest: GaugeVec = "workqueue_longest_running_processor_seconds", ["queue"];
        /// Workers that are working on a twin.
        active: IntGaugeVec = "workers_active", ["queue"];
        /// The most workers at one time.
        max: IntGaugeVec = "workers_max", ["queue"];
    }
}

/// The reconcile loops' instruments.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    instruments: Instruments,
    sweeps: SweepMetrics,
    process: ProcessMetrics,
}

impl ControllerMetrics {
    pub(super) fn register(registry: &Registry, process: &ProcessMetrics) -> Result<Self, prometheus::Error> {
        let sweeps = SweepMetrics::register(registry)?;
        Ok(Self { instruments: Instruments::register(registry)?, sweeps, process: process.clone() })
    }

    /// The handle of one hub's reconcile loop. All its series exist from then on.
    #[must_use]
    pub fn hub(&self, hub: &str) -> ControllerHub {
        let all = &self.instruments;
        for kind in TwinKind::ALL {
            let kind = kind.as_str();
            let _ = all.reconciles.with_label_values(&[hub, kind]);
            let _ = all.durations.with_label_values(&[hub, kind]);
            let _ = all.last_success.with_label_values(&[hub, kind]);
            let _ = all.intervals.with_label_values(&[hub, kind]);
            for reason in Reason::ALL {
                let _ = all.failures.with_label_values(&[hub, kind, reason.as_str()]);
            }
        }
        for state in TwinState::ALL {
            let _ = all.twins.with_label_values(&[hub, state.as_str()]);
        }
        for target in Target::ALL {
            let _ = all.patches.with_label_values(&[hub, target.as_str()]);
            let _ = all.dry_run_patches.with_label_values(&[hub, target.as_str()]);
            let _ = all.drift.with_label_values(&[hub, target.as_str()]);
        }
        for guard in Guard::ALL {
            let _ = all.guard_tripped.with_label_values(&[hub, guard.as_str()]);
        }
        ControllerHub {
            hub: hub.to_owned(),
            instruments: all.clone(),
            conflicts: all.conflicts.with_label_values(&[hub]),
            oldest_astray: all.oldest_astray.with_label_values(&[hub]),
            sweep_complete: all.sweep_complete.with_label_values(&[hub]),
            removals_held: all.removals_held.with_label_values(&[hub]),
            contested: all.contested.with_label_values(&[hub]),
            ownership_conflicts: all.ownership_conflicts.with_label_values(&[hub]),
            seal_writes: all.seal_writes.with_label_values(&[hub]),
            seal_mispredictions: all.seal_mispredictions.with_label_values(&[hub]),
            queue: QueueHandle::new(all, hub),
            sweep: self.sweeps.hub(hub),
            process: self.process.clone(),
        }
    }
}

/// One hub's reconcile loop. Clones share the counts.
#[derive(Debug, Clone)]
pub struct ControllerHub {
    hub: String,
    instruments: Instruments,
    conflicts: IntCounter,
    oldest_astray: Gauge,
    sweep_complete: Gauge,
    removals_held: IntGauge,
    contested: IntGauge,
    ownership_conflicts: IntGauge,
    seal_writes: IntCounter,
    seal_mispredictions: IntCounter,
    queue: QueueHandle,
    sweep: SweepHandle,
    process: ProcessMetrics,
}

impl ControllerHub {
    /// A reconcile ended, well or not, after `took`.
    pub fn reconciled(&self, kind: TwinKind, took: Duration) {
        self.instruments.reconciles.with_label_values(&[&self.hub, kind.as_str()]).inc();
        self.instruments.durations.with_label_values(&[&self.hub, kind.as_str()]).observe(seconds(took));
    }

    /// A reconcile that [`Self::reconciled`] counts as well has failed.
    pub fn failed(&self, kind: TwinKind, reason: Reason) {
        self.instruments.failures.with_label_values(&[&self.hub, kind.as_str(), reason.as_str()]).inc();
    }

    /// A sweep of the twins of this kind reached its end.
    pub fn pass_ended(&self, kind: TwinKind, at: SystemTime) {
        self.instruments.last_success.with_label_values(&[&self.hub, kind.as_str()]).set(unix_seconds(at));
    }

    /// Full passes begin this far apart.
    pub fn set_interval(&self, kind: TwinKind, interval: Duration) {
        self.instruments.intervals.with_label_values(&[&self.hub, kind.as_str()]).set(seconds(interval));
    }

    /// How many twins are in this state now. The states are exclusive: the caller sets all of them.
    pub fn set_twins(&self, state: TwinState, count: usize) {
        self.instruments.twins.with_label_values(&[&self.hub, state.as_str()]).set(gauge_value(count));
    }

    /// Since when the twin that has gone without what Git says for longest has done so; `None` when none does.
    pub fn set_oldest_astray(&self, since: Option<SystemTime>) {
        self.oldest_astray.set(since.map_or(0.0, |since| unix_seconds(since).round()));
    }

    /// The hub accepted a patch. [`Target::Seal`] counts as a seal write as well.
    pub fn patched(&self, target: Target) {
        self.instruments.patches.with_label_values(&[&self.hub, target.as_str()]).inc();
        if target == Target::Seal {
            self.seal_writes.inc();
        }
    }

    /// A patch was planned and not sent, as the loop only looks.
    pub fn dry_run(&self, target: Target) {
        self.instruments.dry_run_patches.with_label_values(&[&self.hub, target.as_str()]).inc();
    }

    /// A write was refused with 412.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    /// A live twin differs though its manifest did not change.
    pub fn drifted(&self, target: Target) {
        self.instruments.drift.with_label_values(&[&self.hub, target.as_str()]).inc();
    }

    /// A sweep read its last page.
    pub fn sweep_completed(&self, at: SystemTime) {
        self.sweep_complete.set(unix_seconds(at));
    }

    /// How many twins have removals held back now.
    pub fn set_removals_held(&self, twins: usize) {
        self.removals_held.set(gauge_value(twins));
    }

    /// How many twins somebody else keeps writing.
    pub fn set_contested(&self, twins: usize) {
        self.contested.set(gauge_value(twins));
    }

    /// How many twins hold a leaf of another owner that is declared with another value.
    pub fn set_ownership_conflicts(&self, twins: usize) {
        self.ownership_conflicts.set(gauge_value(twins));
    }

    /// Whether a guard holds changes back now.
    pub fn set_guard(&self, guard: Guard, tripped: bool) {
        self.instruments.guard_tripped.with_label_values(&[&self.hub, guard.as_str()]).set(i64::from(tripped));
    }

    /// The etag after our write was not the one the seal predicted.
    pub fn seal_mispredicted(&self) {
        self.seal_mispredictions.inc();
    }

    /// A worker or a sweep ended by a panic.
    pub fn panicked(&self) {
        self.process.panicked(Task::Controller);
    }

    /// The hub's sweeps.
    #[must_use]
    pub fn sweep(&self) -> &SweepHandle {
        &self.sweep
    }

    /// The hub's queue and workers.
    #[must_use]
    pub fn queue(&self) -> &QueueHandle {
        &self.queue
    }
}

/// One hub's queue and its workers. Clones share the counts.
#[derive(Debug, Clone)]
pub struct QueueHandle {
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    queue_durations: Histogram,
    work_durations: Histogram,
    unfinished: Gauge,
    longest: Gauge,
    active: IntGauge,
    max: IntGauge,
}

impl QueueHandle {
    fn new(all: &Instruments, queue: &str) -> Self {
        let queue = &[queue];
        Self {
            depth: all.depth.with_label_values(queue),
            adds: all.adds.with_label_values(queue),
            retries: all.retries.with_label_values(queue),
            queue_durations: all.queue_durations.with_label_values(queue),
            work_durations: all.work_durations.with_label_values(queue),
            unfinished: all.unfinished.with_label_values(queue),
            longest: all.longest.with_label_values(queue),
            active: all.active.with_label_values(queue),
            max: all.max.with_label_values(queue),
        }
    }

    /// How many twins wait and are due.
    pub fn set_depth(&self, twins: usize) {
        self.depth.set(gauge_value(twins));
    }

    /// A twin was put into the queue.
    pub fn added(&self) {
        self.adds.inc();
    }

    /// A twin was put back after a try; [`Self::added`] counts it as well.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// A twin was taken out after having been due for this long.
    pub fn waited(&self, time: Duration) {
        self.queue_durations.observe(seconds(time));
    }

    /// A worker is done with a twin after this long.
    pub fn worked(&self, time: Duration) {
        self.work_durations.observe(seconds(time));
    }

    /// What the running workers have spent so far: all together, and the longest.
    pub fn set_running(&self, unfinished: Duration, longest: Duration) {
        self.unfinished.set(seconds(unfinished));
        self.longest.set(seconds(longest));
    }

    /// How many workers are busy, of at most how many.
    pub fn set_workers(&self, active: usize, max: usize) {
        self.active.set(gauge_value(active));
        self.max.set(gauge_value(max));
    }
}
