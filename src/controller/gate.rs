//! The removals guard as workers ask it: every removal counts before it is made.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{FleetSize, RemovalGuard, RemovalHold, RemovalLimit, Removals};
use crate::twin::TwinRef;

/// What removals depend on besides the twin itself.
#[derive(Debug)]
pub(super) struct Gate {
    guard: RemovalGuard,
    fleet: FleetSize,
    /// Whether twins whose manifest is gone are settled at all.
    prune: bool,
    /// Twins whose removals were held when they were last planned.
    held: BTreeSet<TwinRef>,
}

impl Gate {
    pub(super) fn new(limit: RemovalLimit, prune: bool) -> Self {
        let fleet = FleetSize { declared: 0, sealed: 0, broken: None };
        Self { guard: RemovalGuard::new(limit), fleet, prune, held: BTreeSet::new() }
    }

    /// Whether `twin`, whose plan removes something, may do so now. `absent`: because its manifest is gone.
    pub(super) fn permit(&mut self, twin: &TwinRef, absent: bool, now: Duration) -> Removals {
        let verdict = if absent && !self.prune {
            Removals::Held(RemovalHold::NotPruned)
        } else {
            self.guard.count(twin, now);
            self.guard.verdict(&self.fleet, now)
        };
        match &verdict {
            Removals::Go => self.held.remove(twin),
            Removals::Held(_) => self.held.insert(twin.clone()),
        };
        verdict
    }

    /// The plan of `twin` removes nothing, so nothing of it counts but what was really removed.
    pub(super) fn removes_nothing(&mut self, twin: &TwinRef) {
        if self.held.remove(twin) {
            self.guard.discount(twin);
        }
    }

    /// A change in Git takes something from `twin`: it counts before the first of its kind is made, so that a mass
    /// removal is held whole.
    pub(super) fn nominate(&mut self, twin: &TwinRef, now: Duration) {
        self.guard.count(twin, now);
        self.held.insert(twin.clone());
    }

    pub(super) fn judge_first_sweep(&mut self) {
        self.guard.judge_first_sweep();
    }

    pub(super) fn is_judged(&self) -> bool {
        self.guard.is_judged()
    }

    pub(super) fn fleet_mut(&mut self) -> &mut FleetSize {
        &mut self.fleet
    }

    pub(super) fn held(&self) -> &BTreeSet<TwinRef> {
        &self.held
    }

    /// Why removals are held now, if they are.
    pub(super) fn hold(&mut self, now: Duration) -> Option<RemovalHold> {
        match self.guard.verdict(&self.fleet, now) {
            Removals::Go => None,
            Removals::Held(hold) => Some(hold),
        }
    }
}
