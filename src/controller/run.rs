//! The reconcile loop of one hub: one `select!` over a closed set of events, everything else decided elsewhere.
//!
//! Invariants: at most the set number of workers; one per twin; tasks live in one `JoinSet` that is drained before
//! the loop ends; a panic in one reconcile is counted and costs that reconcile alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Circumstances, Requeue, jittered};
use super::change::compare;
use super::gate::Gate;
use super::health::HubHealth;
use super::queue::{Lane, Queue, Taken};
use super::reconcile::{Context, Reconciled, Task, reconcile};
use super::report::Report;
use super::status::Statuses;
use super::sweep::{SweepOptions, Swept, sweep};
use crate::hub::{HubError, PageError, WriteTwins};
use crate::metrics::ControllerHub;
use crate::plan::{DeclaredState, Outcome, RemovalHold, RemovalLimit, SealScope};
use crate::twin::TwinRef;

/// How long running writes may take to end once the loop is told to.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Wrong prophecies in a row after which seals no longer spare reads.
const MISPREDICTIONS_MAX: u32 = 3;
/// Tries of one twin in a single pass before it counts as failed.
const PASS_TRIES_MAX: u32 = 5;
const SWEEP_RETRY_FIRST: Duration = Duration::from_secs(2);
const SWEEP_RETRY_MAX: Duration = Duration::from_secs(60);

/// How one hub is reconciled.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's name in logs and labels.
    pub hub: String,
    /// Our seals.
    pub scope: SealScope,
    /// Time from one sweep to the next.
    pub sweep: Duration,
    /// Every sealed twin is read again within this time.
    pub verify: Duration,
    /// What the removals guard lets pass.
    pub removals: RemovalLimit,
    /// The most reconciles at one time.
    pub workers: usize,
    /// One pass only: end when every twin was tried, settle nothing for manifests that are gone.
    pub single_pass: bool,
    /// Cancelled once the hub has been asked something, whatever it said.
    pub first_contact: CancellationToken,
    /// The wall clock, for the daily quota.
    pub wall_clock: fn() -> SystemTime,
}

/// How a loop ended.
#[derive(Debug)]
pub struct Ended {
    /// Every twin as it stands.
    pub statuses: Statuses,
    /// Why a single pass could not be made at all.
    pub error: Option<String>,
}

/// What a task of the loop gives back.
#[derive(Debug)]
enum Finished {
    Twin(Box<Reconciled>),
    Sweep(Result<Swept, PageError>),
}

/// A task under way.
#[derive(Debug)]
struct Running {
    id: Id,
    /// `None` for the sweep.
    twin: Option<TwinRef>,
    since: Duration,
}

/// The loop's state.
struct Controller<H> {
    options: Options,
    context: Arc<Context<H>>,
    state: Arc<DeclaredState>,
    queue: Queue,
    tasks: JoinSet<Finished>,
    running: Vec<Running>,
    statuses: Statuses,
    health: HubHealth,
    /// Twins read since their manifest last changed: not created again when they are gone.
    seen: BTreeSet<TwinRef>,
    next_sweep: Option<Duration>,
    sweep_failures: u32,
    /// Whether modules may carry our seal: unknown before the first sweep, so taken for granted.
    modules_sealed: bool,
    /// What the first complete sweep nominated and is not planned yet; `None` before it.
    first_nominated: Option<BTreeSet<TwinRef>>,
    mispredictions: u32,
    /// Whether removals were held when last looked at: then their release is news for the queue.
    removals_wait: bool,
    report: Report,
    rng: fastrand::Rng,
    error: Option<String>,
}

/// Reconciles one hub until cancelled, or once. `declared` holds a loaded state from the start.
pub async fn run<H: WriteTwins + 'static>(
    options: Options,
    hub: H,
    mut declared: watch::Receiver<Arc<DeclaredState>>,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    let mut controller = Controller::new(options, hub, declared.clone(), metrics, rng);
    controller.take_state(Arc::clone(&declared.borrow_and_update()), true);
    let mut open = true;
    while !controller.is_over() {
        controller.start_tasks();
        let wake = controller.next_wake();
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            changed = declared.changed(), if open => match changed {
                Ok(()) => controller.take_state(Arc::clone(&declared.borrow_and_update()), false),
                Err(_) => open = false,
            },
            Some(finished) = controller.tasks.join_next_with_id() => controller.finished(finished),
            () = sleep_until(wake) => {}
        }
    }
    controller.drain().await
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<H: WriteTwins + 'static> Controller<H> {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the loop; everything below takes ages")]
    fn new(
        options: Options,
        hub: H,
        declared: watch::Receiver<Arc<DeclaredState>>,
        metrics: ControllerHub,
        rng: fastrand::Rng,
    ) -> Self {
        let context = Context {
            hub,
            scope: options.scope.clone(),
            declared,
            gate: Mutex::new(Gate::new(options.removals, !options.single_pass)),
            memory: Mutex::new(BTreeMap::new()),
            started: Instant::now(),
        };
        Self {
            report: Report::new(&options, metrics),
            options,
            context: Arc::new(context),
            state: Arc::default(),
            queue: Queue::default(),
            tasks: JoinSet::new(),
            running: Vec::new(),
            statuses: Statuses::default(),
            health: HubHealth::default(),
            seen: BTreeSet::new(),
            next_sweep: Some(Duration::ZERO),
            sweep_failures: 0,
            modules_sealed: true,
            first_nominated: None,
            mispredictions: 0,
            removals_wait: false,
            rng,
            error: None,
        }
    }

    fn now(&self) -> Duration {
        self.context.now()
    }

    /// A new declared state: what changed goes first; at the start the first sweep finds out what there is to do.
    fn take_state(&mut self, state: Arc<DeclaredState>, first: bool) {
        let now = self.now();
        let change = compare(&self.state, &state);
        self.state = state;
        {
            let mut gate = self.context.gate();
            let fleet = gate.fleet_mut();
            fleet.declared = self.state.twins.len();
            fleet.broken = self.state.frozen.broken.first().cloned();
            change.losing.iter().for_each(|twin| gate.nominate(twin, now));
        }
        for twin in &change.changed {
            self.seen.remove(twin);
            self.statuses.reset_failures(twin);
            self.context.memory().remove(twin);
            if first {
                self.statuses.record(twin, Outcome::Pending, String::new(), now);
            } else {
                self.add(twin, Lane::Git, now);
            }
        }
        if !first {
            self.report.state_changed(&self.state, change.changed.len());
        }
        self.check_removals();
    }

    /// Puts twins whose removals are held back into the queue, once nothing holds them any more.
    fn check_removals(&mut self) {
        let now = self.now();
        let (hold, waiting) = {
            let mut gate = self.context.gate();
            (gate.hold(now), gate.held().len())
        };
        self.report.removals(hold.as_ref(), waiting);
        if hold.is_some() {
            self.removals_wait = true;
        } else if self.removals_wait && !self.options.single_pass {
            self.release_removals();
        }
    }

    fn release_removals(&mut self) {
        self.removals_wait = false;
        let now = self.now();
        let held = self.context.gate().held().clone();
        held.iter().for_each(|twin| self.add(twin, Lane::Sweep, now));
    }

    fn add(&mut self, twin: &TwinRef, lane: Lane, due: Duration) {
        self.queue.add(twin, lane, due);
        self.report.added(lane);
    }

    fn workers_running(&self) -> usize {
        self.running.iter().filter(|running| running.twin.is_some()).count()
    }

    fn sweep_running(&self) -> bool {
        self.running.iter().any(|running| running.twin.is_none())
    }

    /// Starts what is due and has a free worker.
    fn start_tasks(&mut self) {
        let now = self.now();
        let workers = self.health.workers(now, self.options.workers);
        let sweep_due = self.next_sweep.is_some_and(|at| at <= now);
        if sweep_due && !self.sweep_running() && workers > 0 {
            self.next_sweep = None;
            let context = Arc::clone(&self.context);
            let trust_seals = self.mispredictions < MISPREDICTIONS_MAX;
            let options = SweepOptions { verify: self.options.verify, trust_seals, modules: self.modules_sealed };
            let handle = self.tasks.spawn(async move { Finished::Sweep(sweep(&context, options).await) });
            self.running.push(Running { id: handle.id(), twin: None, since: now });
        }
        while self.workers_running() < workers {
            let Some(taken) = self.queue.take(now) else { break };
            self.start(taken, now);
        }
        let longest = self.running.iter().filter(|r| r.twin.is_some()).map(|r| now.saturating_sub(r.since));
        self.report.queue(self.queue.depth(now), self.workers_running(), longest);
    }

    fn start(&mut self, taken: Taken, now: Duration) {
        self.report.waited(taken.waited);
        let task = Task { seen: self.seen.contains(&taken.twin), twin: taken.twin.clone(), lane: taken.lane };
        let context = Arc::clone(&self.context);
        let handle = self.tasks.spawn(async move { Finished::Twin(Box::new(reconcile(&context, &task).await)) });
        self.running.push(Running { id: handle.id(), twin: Some(taken.twin), since: now });
    }

    /// When something is due that no task's end will announce.
    fn next_wake(&self) -> Option<Instant> {
        let free = self.health.workers(Duration::MAX, self.options.workers) > self.workers_running();
        let twin = self.queue.next_due().filter(|_| free);
        let sweep = self.next_sweep.filter(|_| !self.sweep_running());
        let next = twin.into_iter().chain(sweep).min()?;
        Some(self.context.started + next.max(self.health.paused_until()))
    }

    fn finished(&mut self, finished: Result<(Id, Finished), JoinError>) {
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
        self.modules_sealed = swept.modules;
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

    /// A single pass is over when every twin is settled or given up; a daemon's loop never is.
    fn is_over(&self) -> bool {
        let settled = self.context.gate().is_judged() && self.queue.is_idle() && !self.sweep_running();
        self.options.single_pass && (settled || self.error.is_some())
    }

    /// Lets running reconciles end their writes, within bounds, and starts nothing more.
    async fn drain(mut self) -> Ended {
        if !self.running.is_empty() {
            self.report.draining(self.running.len());
        }
        let sweeping = self.running.iter().any(|running| running.twin.is_none());
        if sweeping && self.workers_running() == 0 {
            self.tasks.abort_all();
        }
        let ended = tokio::time::timeout(DRAIN_MAX, async {
            while let Some(finished) = self.tasks.join_next_with_id().await {
                match finished {
                    Err(error) if error.is_cancelled() => {}
                    finished => self.finished(finished),
                }
                if self.workers_running() == 0 {
                    self.tasks.abort_all();
                }
            }
        });
        if ended.await.is_err() {
            self.report.drain_incomplete(self.workers_running());
        }
        self.report.ended(&self.statuses);
        Ended { statuses: self.statuses, error: self.error }
    }
}

/// Time until 00:00 UTC, when daily quotas begin anew (`iot-hub.md` 3.2).
fn until_utc_midnight(now: SystemTime) -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Duration::from_secs(DAY - seconds % DAY)
}

/// Why removals are held, for reports.
pub(super) fn guard_of(hold: Option<&RemovalHold>) -> (bool, bool) {
    (matches!(hold, Some(RemovalHold::Guard { .. })), matches!(hold, Some(RemovalHold::EmptyState)))
}
