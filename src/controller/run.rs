//! The reconcile loop of one hub: one `select!` over a closed set of events, everything else decided elsewhere.
//!
//! Invariants: at most the set number of workers; one per twin; tasks live in one `JoinSet` that is drained before
//! the loop ends; a panic in one reconcile is counted and costs that reconcile alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::{Access, ReadOnly, ReadWrite};
use super::asked::Asked;
use super::audit::{AuditLog, Auditor};
use super::change::{StateChange, compare};
use super::command::{Command, Inputs};
use super::gate::Gate;
use super::health::HubHealth;
use super::journal::Journal;
use super::obey::PendingWish;
use super::pacing::{Pacing, ProgressMeter};
use super::queue::{Lane, Queue, Taken};
use super::reconcile::{Context, Reconciled, Task, reconcile, unix_seconds};
use super::report::Report;
use super::status::Statuses;
use super::sweep::Swept;
use crate::hub::{HubError, Paced, PageError, ReadTwins, SweepAlong, WriteTwins};
use crate::metrics::ControllerHub;
use crate::plan::{DeclaredState, HeldReason, Outcome, Policy, RemovalHold, Rivals, SealScope, Suspend, SweepSettings};
use crate::twin::{TwinMap, TwinRef};

/// How long running writes may take to end once the loop is told to.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How often what is under way is measured while nothing ends.
const WATCHED_EVERY: Duration = Duration::from_secs(5);

/// Wrong prophecies in a row after which seals no longer spare reads.
pub(super) const MISPREDICTIONS_MAX: u32 = 3;

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
    /// What may be done at all: mode, guards, suspension.
    pub policy: Policy,
    /// The most reconciles at one time.
    pub workers: usize,
    /// One pass only: end when every twin was tried.
    pub single_pass: bool,
    /// Cancelled once the hub has been asked something, whatever it said.
    pub first_contact: CancellationToken,
    /// What is recorded of every write.
    pub audit: AuditLog,
    /// What happened lately, for people who ask.
    pub journal: Journal,
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
pub(super) enum Finished {
    Twin(Box<Reconciled>),
    Sweep(Result<Swept, PageError>),
}

/// A task under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: Id,
    /// `None` for the sweep.
    pub(super) twin: Option<TwinRef>,
    pub(super) since: Duration,
}

/// The loop's state.
pub(super) struct Controller<H> {
    pub(super) options: Options,
    pub(super) context: Arc<Context<H>>,
    pub(super) state: Arc<DeclaredState>,
    pub(super) queue: Queue,
    pub(super) tasks: JoinSet<Finished>,
    pub(super) running: Vec<Running>,
    pub(super) statuses: Statuses,
    pub(super) health: HubHealth,
    /// Twins read since their manifest last changed: not created again when they are gone.
    pub(super) seen: TwinMap<()>,
    /// What the hub said when it refused to write these; until their manifest changes or a write succeeds.
    pub(super) rejections: BTreeMap<TwinRef, HubError>,
    /// Who fights with us over what.
    pub(super) rivals: Rivals,
    /// Suspensions that somebody wants recorded or ended, until that was tried.
    pub(super) wishes: BTreeMap<TwinRef, PendingWish>,
    pub(super) next_sweep: Option<Duration>,
    pub(super) sweep_failures: u32,
    /// How often sweeps are made, and of which kind.
    pub(super) pacing: Pacing,
    pub(super) progress: ProgressMeter,
    /// What the first complete sweep nominated and is not planned yet; `None` before it.
    pub(super) first_nominated: Option<TwinMap<()>>,
    pub(super) mispredictions: u32,
    /// Whether removals were held when last looked at: then their release is news for the queue.
    pub(super) removals_wait: bool,
    /// Requests of people to reconcile.
    pub(super) asked: Asked,
    /// Whether all twins were asked for while a sweep was under way: another one follows it.
    pub(super) sweep_asked: bool,
    /// When the last complete sweep ended.
    pub(super) last_sweep: Option<SystemTime>,
    /// Twins being explained.
    pub(super) explaining: JoinSet<()>,
    pub(super) report: Report,
    pub(super) rng: fastrand::Rng,
    pub(super) error: Option<String>,
}

/// Reconciles one hub until cancelled, or once. `inputs` holds a loaded state from the start.
pub async fn run<H: WriteTwins + Paced + 'static>(
    options: Options,
    hub: H,
    inputs: impl Into<Inputs>,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    run_loop(options, ReadWrite(hub), inputs.into(), metrics, cancel, rng).await
}

/// Looks at one hub until cancelled, or once, and says what differs. Nothing in it could write.
pub async fn observe<H: ReadTwins + Paced + 'static>(
    options: Options,
    hub: H,
    inputs: impl Into<Inputs>,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    run_loop(options, ReadOnly(hub), inputs.into(), metrics, cancel, rng).await
}

async fn run_loop<H: Access>(
    options: Options,
    hub: H,
    inputs: Inputs,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    let Inputs { mut declared, mut commands, along } = inputs;
    let mut controller = Controller::new(options, hub, along, metrics, rng);
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
            Some(command) = next_command(&mut commands) => controller.obey(command),
            Some(_) = controller.explaining.join_next() => {}
            Some(finished) = controller.tasks.join_next_with_id() => controller.finished(finished),
            () = sleep_until(wake) => {}
        }
    }
    controller.drain().await
}

/// The next command; never, once nobody can give one.
async fn next_command(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    let command = match commands {
        Some(line) => line.recv().await,
        None => std::future::pending().await,
    };
    if command.is_none() {
        *commands = None;
    }
    command
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<H: Access> Controller<H> {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the loop; everything below takes ages")]
    fn new(options: Options, hub: H, along: Option<SweepAlong>, metrics: ControllerHub, rng: fastrand::Rng) -> Self {
        let audit = Auditor::new(&options.hub, &options.scope, options.audit.clone(), options.wall_clock);
        let context = Context {
            hub,
            audit,
            scope: options.scope.clone(),
            gate: Mutex::new(Gate::new(&options.hub, &options.policy)),
            memory: Mutex::default(),
            hashes: Mutex::default(),
            started: Instant::now(),
            started_unix: unix_seconds((options.wall_clock)()),
            rows_swept: AtomicUsize::new(0),
            along,
            wall_clock: options.wall_clock,
        };
        let pacing = Pacing::new(SweepSettings { interval: options.sweep, verify: options.verify });
        let rivals = Rivals::new(options.sweep);
        let suspended = options.policy.suspend.is_some();
        if suspended {
            // Nobody will ask the hub anything.
            options.first_contact.cancel();
        }
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
            seen: TwinMap::default(),
            rejections: BTreeMap::new(),
            rivals,
            wishes: BTreeMap::new(),
            next_sweep: (!suspended).then_some(Duration::ZERO),
            sweep_failures: 0,
            pacing,
            progress: ProgressMeter::default(),
            first_nominated: None,
            mispredictions: 0,
            removals_wait: false,
            asked: Asked::default(),
            sweep_asked: false,
            last_sweep: None,
            explaining: JoinSet::new(),
            rng,
            error: None,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.context.now()
    }

    /// A new declared state: what changed goes first; at the start the first sweep finds out what there is to do.
    fn take_state(&mut self, state: Arc<DeclaredState>, first: bool) {
        let now = self.now();
        let change = compare(&self.state, &state);
        self.state = state;
        self.take_to_gate(&change);
        for twin in &change.changed {
            self.seen.remove(twin);
            self.rejections.remove(twin);
            self.rivals.settle(twin);
            // The etag stays known: a row older than what we wrote must not pass for untouched.
            if let Some(known) = self.context.memory().get_mut(twin) {
                known.declared = None;
            }
            if let Some((outcome, message)) = self.suspended() {
                self.statuses.record(twin, outcome, message, now);
                continue;
            }
            self.statuses.record(twin, Outcome::Pending, String::new(), now);
            if !first {
                self.add(twin, Lane::Git, now);
            }
        }
        self.report.states(&self.statuses);
        if !first {
            self.report.state_changed(&self.state, change.changed.len());
            if change.conditions {
                // Only a sweep finds out whom a condition concerns now; one under way asks the old questions.
                self.sweep_asked |= self.sweep_running();
                self.sweep_soon();
            }
            self.sweep_to_judge();
        }
        self.check_guards();
    }

    /// Hands the new state to the workers, with what it takes, changes and may have to be registered.
    fn take_to_gate(&mut self, change: &StateChange) {
        let known: BTreeSet<&TwinRef> = change.changed.iter().filter(|twin| self.seen.contains_key(twin)).collect();
        let mut gate = self.context.gate();
        gate.take_state(Arc::clone(&self.state), change);
        gate.expect(&change.changed, |twin| known.contains(twin));
    }

    /// What every twin is while the settings suspend the hub.
    fn suspended(&self) -> Option<(Outcome, String)> {
        let reason = self.options.policy.suspend.clone()?;
        let held = HeldReason::Suspended(Suspend { reason, until: None });
        let message = held.to_string();
        Some((Outcome::Held(held), message))
    }

    /// A sweep over a state that hides something judges nothing; once the state hides nothing, another one is due.
    pub(super) fn sweep_to_judge(&mut self) {
        let unjudged = self.first_nominated.is_none() && self.state.frozen.hides_nothing();
        if unjudged && self.sweep_failures == 0 {
            self.sweep_soon();
        }
    }

    /// Sweeps next, unless a sweep is under way.
    pub(super) fn sweep_soon(&mut self) {
        if !self.sweep_running() && self.options.policy.suspend.is_none() {
            self.next_sweep = Some(self.now());
        }
    }

    /// Puts twins whose removals are held back into the queue, once nothing holds them any more.
    pub(super) fn check_guards(&mut self) {
        let now = self.now();
        let (hold, waiting, changes, released) = {
            let mut gate = self.context.gate();
            (gate.hold(now), gate.waiting().len(), gate.change_holds(now), gate.released(now))
        };
        let settled = self.running.is_empty() && self.queue.depth(now) == 0;
        self.report.removals(hold.as_ref(), waiting, settled);
        self.report.changes(&changes, settled);
        self.report.unnamed(settled);
        released.iter().for_each(|twin| self.add(twin, Lane::Sweep, now));
        if hold.is_some() {
            self.removals_wait = true;
        } else if self.removals_wait && !self.options.single_pass {
            self.release_removals();
        }
    }

    pub(super) fn release_removals(&mut self) {
        self.removals_wait = false;
        let now = self.now();
        let waiting = self.context.gate().waiting().clone();
        waiting.iter().for_each(|twin| self.add(twin, Lane::Sweep, now));
    }

    pub(super) fn add(&mut self, twin: &TwinRef, lane: Lane, due: Duration) {
        self.queue.add(twin, lane, due);
        self.report.added(lane);
    }

    fn workers_running(&self) -> usize {
        self.running.iter().filter(|running| running.twin.is_some()).count()
    }

    pub(super) fn sweep_running(&self) -> bool {
        self.running.iter().any(|running| running.twin.is_none())
    }

    /// Starts what is due and has a free worker.
    fn start_tasks(&mut self) {
        let now = self.now();
        let workers = self.health.workers(now, self.options.workers);
        let sweep_due = self.next_sweep.is_some_and(|at| at <= now);
        if sweep_due && !self.sweep_running() && workers > 0 {
            self.start_sweep(now);
            self.asked.began(None);
        }
        while self.workers_running() < workers {
            let Some(taken) = self.queue.take(now) else { break };
            self.start(taken, now);
        }
        let longest = self.running.iter().filter(|r| r.twin.is_some()).map(|r| now.saturating_sub(r.since));
        self.report.queue(self.queue.depth(now), self.workers_running(), longest);
        self.measure_progress(now);
    }

    fn start(&mut self, taken: Taken, now: Duration) {
        self.report.waited(taken.waited);
        self.asked.began(Some(&taken.twin));
        let task = Task {
            seen: self.seen.contains_key(&taken.twin),
            rejection: self.rejections.get(&taken.twin).cloned(),
            restraint: self.rivals.restraint(&taken.twin, now),
            wish: self.wishes.get_mut(&taken.twin).map(PendingWish::begin),
            twin: taken.twin.clone(),
            lane: taken.lane,
        };
        let context = Arc::clone(&self.context);
        let handle = self.tasks.spawn(async move { Finished::Twin(Box::new(reconcile(&context, &task).await)) });
        self.running.push(Running { id: handle.id(), twin: Some(taken.twin), since: now });
    }

    /// When something is due that no task's end will announce.
    fn next_wake(&self) -> Option<Instant> {
        let free = self.health.workers(Duration::MAX, self.options.workers) > self.workers_running();
        let twin = self.queue.next_due().filter(|_| free);
        let sweep = self.next_sweep.filter(|_| !self.sweep_running());
        let next = twin.into_iter().chain(sweep).min().map(|next| next.max(self.health.paused_until()));
        // Gauges of what is under way follow the time, also while nothing ends: that is when they matter.
        let watch = (!self.running.is_empty()).then(|| self.now() + WATCHED_EVERY);
        Some(self.context.started + next.into_iter().chain(watch).min()?)
    }

    /// A single pass is over when every twin is settled or given up; a daemon's loop never is.
    fn is_over(&self) -> bool {
        let judged = self.options.policy.suspend.is_some() || self.context.gate().is_judged();
        let settled = judged && self.queue.is_idle() && !self.sweep_running();
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

/// Why removals are held, for reports.
pub(super) fn guard_of(hold: Option<&RemovalHold>) -> (bool, bool) {
    (matches!(hold, Some(RemovalHold::Guard { .. })), matches!(hold, Some(RemovalHold::EmptyState { .. })))
}
