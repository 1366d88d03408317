//! The state of one hub's loop, and what a new declared state does to it.
//!
//! Invariants: at most the set number of workers; one per twin; tasks live in one `JoinSet`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::access::Access;
use super::asked::Asked;
use super::audit::Auditor;
use super::change::{StateChange, compare};
use super::context::{Context, unix_seconds};
use super::gate::Gate;
use super::health::HubHealth;
use super::options::Options;
use super::pacing::{Pacing, ProgressMeter};
use super::queue::{Lane, Queue};
use super::reconcile::Reconciled;
use super::report::Report;
use super::status::Statuses;
use super::sweep::Swept;
use super::wish::PendingWish;
use crate::hub::{HubError, PageError, SweepAlong};
use crate::metrics::ControllerHub;
use crate::plan::{DeclaredState, HeldReason, Outcome, Rivals, Suspend, SweepSettings};
use crate::twin::{TwinMap, TwinRef};

/// Wrong prophecies in a row after which seals no longer spare reads.
pub(super) const MISPREDICTIONS_MAX: u32 = 3;

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

impl<H: Access> Controller<H> {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the loop; everything below takes ages")]
    pub(super) fn new(
        options: Options,
        hub: H,
        along: Option<SweepAlong>,
        metrics: ControllerHub,
        rng: fastrand::Rng,
    ) -> Self {
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
    pub(super) fn take_state(&mut self, state: Arc<DeclaredState>, first: bool) {
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
        self.report.states(&self.statuses, now);
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

    pub(super) fn workers_running(&self) -> usize {
        self.running.iter().filter(|running| running.twin.is_some()).count()
    }

    pub(super) fn sweep_running(&self) -> bool {
        self.running.iter().any(|running| running.twin.is_none())
    }
}
