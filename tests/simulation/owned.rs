//! One owner of a history: its Git, its process, and the wall clock it reads.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use geminid::emulator::SimHub;
use geminid::hub::{BudgetOptions, Budgeted, HubBudget, Tier};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, GuardLimits, Mode, Permits, TwinState, declare, plan_twin};

use crate::fleet::{Daemon, device, options, scope, twin};
use crate::repository::{DEVICES, number};
use crate::witness::{Deeds, Witness};

/// Twins that a guard which is set lets pass in the life of one process.
const GUARDED_MAX: usize = 2;

thread_local! {
    /// Seconds of the wall clock since 1970. Each history has a thread to itself, and its processes share the clock.
    static WALL: Cell<u64> = const { Cell::new(0) };
}

/// Sets the wall clock.
pub(crate) fn set_wall_clock(seconds: u64) {
    WALL.set(seconds);
}

/// Moves the wall clock, back too.
pub(crate) fn move_wall_clock(seconds: i64) {
    WALL.set(WALL.get().saturating_add_signed(seconds));
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    WALL.get().cast_signed()
}

fn wall_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(WALL.get())
}

/// How a process is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) guards: GuardLimits,
    /// The share of S1 it may use; `None` for no budget.
    pub(crate) share: Option<f64>,
}

impl Settings {
    /// Any mode, guards and budget.
    pub(crate) fn any(rng: &mut fastrand::Rng, share: Option<f64>) -> Self {
        let mode = match rng.usize(..8) {
            0 => Mode::Upsert,
            1 => Mode::Observe,
            _ => Mode::Sync,
        };
        let mut open = || f64::from(u8::from(rng.u8(..3) > 0));
        let guards = GuardLimits { removals: 0.0, creates: open(), updates: open(), from: GUARDED_MAX };
        Self { mode, guards, share }
    }

    /// Nothing is held back.
    pub(crate) const fn open(share: Option<f64>) -> Self {
        let guards = GuardLimits { removals: 0.0, creates: 1.0, updates: 1.0, from: DEVICES };
        Self { mode: Mode::Sync, guards, share }
    }
}

/// One owner's process and what its Git says.
pub(crate) struct Owned {
    pub(crate) hub: Witness,
    pub(crate) state: DeclaredState,
    pub(crate) daemon: Daemon,
    /// A process of the same owner that should be gone and is not.
    leftover: Option<(Daemon, Arc<Mutex<Deeds>>)>,
}

impl Owned {
    pub(crate) fn start(hub: &SimHub, owner: &'static str, state: DeclaredState, settings: Settings) -> Self {
        let both = [Arc::new(state.clone()), Arc::new(state.clone())];
        let states = Arc::new(Mutex::new(both));
        let hub = Witness { hub: hub.clone(), owner, states, deeds: Deeds::new(settings) };
        let daemon = start(&hub, &state, settings);
        Self { hub, state, daemon, leftover: None }
    }

    pub(crate) fn declare(&mut self, state: DeclaredState) {
        let mut states = self.hub.states.lock().unwrap();
        states.swap(0, 1);
        states[1] = Arc::new(state.clone());
        drop(states);
        self.daemon.declare(&state);
        if let Some((daemon, _)) = &self.leftover {
            daemon.declare(&state);
        }
        self.state = state;
    }

    /// The process dies, wherever it is, and starts anew; what the dead one was writing may still arrive.
    pub(crate) fn crash(&mut self, settings: Settings) {
        self.leftover = None;
        self.hub.deeds = Deeds::new(settings);
        self.daemon = start(&self.hub, &self.state, settings);
    }

    /// A second process starts before the first has ended.
    pub(crate) fn overlap(&mut self, settings: Settings) {
        let deeds = std::mem::replace(&mut self.hub.deeds, Deeds::new(settings));
        let daemon = std::mem::replace(&mut self.daemon, start(&self.hub, &self.state, settings));
        self.leftover = Some((daemon, deeds));
    }

    /// Panics when a process did more than its guards and its budget allow, or keeps more than there is.
    pub(crate) fn assert_safe(&self) {
        let leftover = self.leftover.iter().map(|(daemon, deeds)| (daemon, deeds));
        for (daemon, deeds) in leftover.chain([(&self.daemon, &self.hub.deeds)]) {
            deeds.lock().unwrap().assert_allowed();
            let waiting = daemon.gauge("geminid_workqueue_depth", &["sim"]);
            assert!(waiting < number(DEVICES) + 0.5, "{waiting} wait in the queue of {DEVICES} twins");
        }
    }

    /// Whether a twin is as declared, as far as anything may be done for it.
    pub(crate) fn assert_done(&self, id: &str) {
        let Some(live) = self.hub.hub.twin(&device(id)) else { return };
        let declaration = declare(&self.state, &twin(id), Some(&live));
        let plan = plan_twin(&scope(self.hub.owner), &declaration, &live, &Permits::ALL);
        assert_eq!(plan.patch, None, "{} has more to do: {plan:?} for {declaration:?} on {live:?}", self.hub.owner);
    }

    /// The states that twins are in.
    pub(crate) fn states(&self) -> Vec<TwinState> {
        let gauges = self.daemon.gauges("geminid_twins");
        TwinState::ALL.into_iter().filter(|state| gauges.value(&[state.as_str()]) > 0.5).collect()
    }
}

fn start(hub: &Witness, state: &DeclaredState, settings: Settings) -> Daemon {
    let mut options = options(hub.owner, 2);
    options.policy.guards = settings.guards;
    options.policy.mode = settings.mode;
    options.wall_clock = wall_clock;
    match settings.share {
        None => Daemon::start(hub.clone(), options, state),
        Some(share) => {
            let metrics = Metrics::register(&prometheus::Registry::new(), &["sim"]).unwrap();
            let limits = BudgetOptions { tier: Some((Tier::S1, 1)), share, quota_share: 1.0, wall_clock };
            let budget = HubBudget::new("sim", limits, metrics.budget.hub("sim"));
            Daemon::start(Budgeted::new(hub.clone(), budget), options, state)
        }
    }
}
