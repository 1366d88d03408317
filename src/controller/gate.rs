//! The removals guard as workers ask it, and the declared state they work on.
//!
//! Invariants: every removal counts before it is made. A state and what it takes from the fleet arrive together, so no
//! worker plans on a state that the guard has not seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::{DeclaredState, FleetSize, RemovalGuard, RemovalHold, RemovalLimit, Removals};
use crate::twin::TwinRef;

/// What removals depend on besides the twin itself.
#[derive(Debug)]
pub(super) struct Gate {
    state: Arc<DeclaredState>,
    guard: RemovalGuard,
    fleet: FleetSize,
    /// Whether twins whose manifest is gone are settled at all.
    prune: bool,
}

impl Gate {
    pub(super) fn new(limit: RemovalLimit, prune: bool) -> Self {
        let fleet = FleetSize { declared: 0, sealed: 0, broken: None };
        Self { state: Arc::default(), guard: RemovalGuard::new(limit), fleet, prune }
    }

    /// The state that workers plan on.
    pub(super) fn state(&self) -> Arc<DeclaredState> {
        Arc::clone(&self.state)
    }

    /// Hands a new state to the workers. It takes something from each of `losing`: these count before the first of
    /// them is planned, so that a mass removal is held whole.
    pub(super) fn take_state(&mut self, state: Arc<DeclaredState>, losing: &BTreeSet<TwinRef>) {
        self.fleet.declared = state.twins.len();
        self.fleet.broken = state.frozen.broken.first().cloned();
        self.state = state;
        losing.iter().for_each(|twin| self.guard.wait(twin));
    }

    /// Whether `twin`, whose plan removes something, may do so now. `absent`: because its manifest is gone.
    pub(super) fn permit(&mut self, twin: &TwinRef, absent: bool, now: Duration) -> Removals {
        if absent && !self.prune {
            self.guard.settle(twin);
            return Removals::Held(RemovalHold::NotPruned);
        }
        self.guard.wait(twin);
        let verdict = self.guard.verdict(&self.fleet, now);
        if verdict == Removals::Go {
            self.guard.lose(twin, now);
        }
        verdict
    }

    /// `twin` has nothing to lose: its plan removes nothing, or it does not exist.
    pub(super) fn removes_nothing(&mut self, twin: &TwinRef) {
        self.guard.settle(twin);
    }

    /// `twin` could not be planned: it may have something to lose.
    pub(super) fn suspect(&mut self, twin: &TwinRef) {
        self.guard.wait(twin);
    }

    pub(super) fn judge_first_sweep(&mut self) {
        self.guard.judge_first_sweep();
    }

    pub(super) fn is_judged(&self) -> bool {
        self.guard.is_judged()
    }

    /// Twins that carry our seal, by a complete sweep.
    pub(super) fn set_sealed(&mut self, sealed: usize) {
        self.fleet.sealed = sealed;
    }

    /// Twins whose removals wait.
    pub(super) fn waiting(&self) -> &BTreeSet<TwinRef> {
        self.guard.waiting()
    }

    /// Why removals are held now, if they are.
    pub(super) fn hold(&mut self, now: Duration) -> Option<RemovalHold> {
        match self.guard.verdict(&self.fleet, now) {
            Removals::Go => None,
            Removals::Held(hold) => Some(hold),
        }
    }
}
