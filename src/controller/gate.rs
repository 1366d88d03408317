//! The removals guard as workers ask it, and the declared state they work on.
//!
//! Invariants: every removal counts before it is made. A state and what it takes from the fleet arrive together, so no
//! worker plans on a state that the guard has not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::answer::{GuardHold, Refused};
use super::change::StateChange;
use crate::plan::{
    Approval, Approvals, ChangeGuard, ChangeHold, Declaration, DeclaredState, Departures, FleetSize, GuardKind,
    LiveCondition, Members, Mode, Policy, Profile, RemovalGuard, RemovalHold, Removals, TwinPlan,
};
use crate::twin::TwinRef;

/// What removals depend on besides the twin itself.
#[derive(Debug)]
pub(super) struct Gate {
    state: Arc<DeclaredState>,
    guard: RemovalGuard,
    /// Twins that keep for good what they would lose.
    kept: BTreeSet<TwinRef>,
    creates: ChangeGuard,
    updates: ChangeGuard,
    /// How many leaves that are not ours each of these twins would lose to a declared value.
    shapes: BTreeMap<TwinRef, usize>,
    approvals: Approvals,
    fleet: FleetSize,
    policy: Policy,
    /// Who was in each profile with a condition, as the last complete sweep and the reads since saw it.
    members: Members,
    /// The nominating queries that the last sweep had answered to the end, by profile.
    answered: BTreeMap<String, String>,
    /// Twins that an edit may have taken out of a profile, until that is known and done.
    departures: Departures,
}

impl Gate {
    pub(super) fn new(hub: &str, policy: &Policy) -> Self {
        let mut approvals = Approvals::default();
        for approval in &policy.approvals {
            // One too many lets nothing pass, and what it was for is held and shown.
            approvals.grant(approval, Duration::ZERO);
        }
        Self {
            state: Arc::default(),
            guard: RemovalGuard::new(policy.guards.of_removals()),
            kept: BTreeSet::new(),
            creates: ChangeGuard::new(GuardKind::Creates, policy.guards.of_creates()),
            updates: ChangeGuard::new(GuardKind::Updates, policy.guards.of_updates()),
            shapes: BTreeMap::new(),
            approvals,
            fleet: FleetSize { hub: hub.to_owned(), ..FleetSize::default() },
            policy: policy.clone(),
            members: Members::new(),
            answered: BTreeMap::new(),
            departures: Departures::default(),
        }
    }

    /// The state that workers plan on.
    pub(super) fn state(&self) -> Arc<DeclaredState> {
        Arc::clone(&self.state)
    }

    /// The state before the edit that may have taken `twin` out of a profile, if it is not settled yet.
    pub(super) fn former(&self, twin: &TwinRef) -> Option<Arc<DeclaredState>> {
        self.departures.former(twin).cloned()
    }

    /// Hands a new state to the workers. Those that lose something by it count before the first of them is planned, so
    /// that a mass removal is held whole.
    pub(super) fn take_state(&mut self, state: Arc<DeclaredState>, change: &StateChange) {
        // Members that nobody names are not counted here: they carry our seal, and that counts.
        self.fleet.declared = state.twins.len().max(usize::from(state.conditional().next().is_some()));
        self.fleet.broken = state.frozen.broken.first().cloned();
        self.fleet.revision.clone_from(&state.revision);
        let leaving = self.departures.take_edit(&self.state, &state, &self.members, &change.changed);
        self.state = state;
        self.find_unknown();
        change.losing.union(&leaving).for_each(|twin| self.guard.wait(twin));
    }

    /// Whether `twin`, whose plan removes something, may do so now. `absent`: because its manifest is gone.
    pub(super) fn permit(&mut self, twin: &TwinRef, absent: bool, now: Duration) -> Removals {
        let never = match self.policy.mode {
            Mode::Upsert | Mode::Observe => Some(RemovalHold::Upsert),
            Mode::Sync => (absent && !self.policy.prune).then_some(RemovalHold::NotPruned),
        };
        if let Some(hold) = never {
            return self.never(twin, hold);
        }
        self.kept.remove(twin);
        self.guard.wait(twin);
        let verdict = self.guard.verdict(&self.fleet, &self.approvals, now);
        if verdict == Removals::Go {
            self.guard.lose(twin, now);
        }
        verdict
    }

    /// What `twin` would lose it keeps for as long as this process runs.
    pub(super) fn never(&mut self, twin: &TwinRef, hold: RemovalHold) -> Removals {
        self.guard.settle(twin);
        self.kept.insert(twin.clone());
        Removals::Held(hold)
    }

    /// Whether a read would find `twin` as it is known: what it would lose waits for somebody to act, or stays.
    pub(super) fn holds_removal(&self, twin: &TwinRef) -> bool {
        let waits = self.guard.waiting().contains(twin) || self.kept.contains(twin);
        waits && !self.departures.is_unplanned(twin)
    }

    /// `twin` was read and `declaration` made of it by `state`: that tells which profiles it is in.
    pub(super) fn judged(&mut self, twin: &TwinRef, state: &Arc<DeclaredState>, declaration: &Declaration) {
        if !Arc::ptr_eq(&self.state, state) || declaration.hold().is_some() {
            return;
        }
        let joined = declaration.declared().map(|declared| &declared.joined);
        for (profile, _) in state.conditional() {
            let members = self.members.entry(profile.name.clone()).or_default();
            if joined.is_some_and(|joined| joined.contains(&profile.name)) {
                members.insert(twin.clone());
            } else {
                members.remove(twin);
            }
        }
    }

    /// `twin` was planned by `state`; `done`: nothing of that plan waits.
    pub(super) fn planned(&mut self, twin: &TwinRef, state: &Arc<DeclaredState>, done: bool) {
        if !Arc::ptr_eq(&self.state, state) {
            // Another edit came meanwhile, of which this plan knows nothing.
            return;
        }
        if done {
            self.departures.settle(twin);
        } else {
            self.departures.plan(twin);
        }
    }

    /// There is no such twin.
    pub(super) fn gone(&mut self, twin: &TwinRef) {
        self.departures.settle(twin);
        self.loses_nothing(twin);
    }

    /// `twin` is left alone for now, or there is none: no guard waits for it.
    pub(super) fn touches_nothing(&mut self, twin: &TwinRef) {
        self.creates.settle(twin);
        self.loses_nothing(twin);
    }

    /// `twin` does not exist: it has nothing to lose and nothing to change.
    pub(super) fn loses_nothing(&mut self, twin: &TwinRef) {
        self.removes_nothing(twin);
        self.updates.settle(twin);
        self.shapes.remove(twin);
    }

    /// `twin` has nothing to lose: its plan removes nothing.
    pub(super) fn removes_nothing(&mut self, twin: &TwinRef) {
        self.kept.remove(twin);
        self.guard.settle(twin);
    }

    /// These twins are declared otherwise now, and nobody has looked at them yet. Those of them that `exist` need not
    /// be registered.
    pub(super) fn expect(&mut self, changed: &BTreeSet<TwinRef>, exists: impl Fn(&TwinRef) -> bool) {
        for twin in changed {
            let manifest = self.state.twins.get(twin);
            if manifest.is_some_and(|manifest| manifest.create) && !exists(twin) {
                self.creates.expect(twin);
            } else {
                self.creates.settle(twin);
            }
            if manifest.is_some() {
                self.updates.expect(twin);
            } else {
                self.updates.settle(twin);
            }
        }
    }

    /// `twin` was planned by somebody who only looks: what it would do counts before anything of the fleet is judged.
    pub(super) fn foresee(&mut self, twin: &TwinRef, create: bool, plan: &TwinPlan) {
        if create {
            self.creates.expect(twin);
        }
        if plan.removes {
            self.guard.wait(twin);
        }
        if plan.updates() {
            self.updates.expect(twin);
        }
    }

    /// Why `twin` may not be registered now; counted when it may.
    pub(super) fn permit_create(&mut self, twin: &TwinRef, now: Duration) -> Option<ChangeHold> {
        self.creates.permit(twin, &self.fleet, &self.approvals, now)
    }

    /// Whether any twin is counted as one that may have to be registered, or was refused that.
    pub(super) fn awaits_creates(&self) -> bool {
        self.creates.awaits()
    }

    /// `twin` need not be registered: it exists, or nobody wants it.
    pub(super) fn creates_nothing(&mut self, twin: &TwinRef) {
        self.creates.settle(twin);
    }

    /// Why `twin` may not be changed now; counted when it may.
    pub(super) fn permit_update(&mut self, twin: &TwinRef, now: Duration) -> Option<ChangeHold> {
        self.updates.permit(twin, &self.fleet, &self.approvals, now)
    }

    /// `twin` needs no change, so nothing holds it.
    pub(super) fn updates_nothing(&mut self, twin: &TwinRef) -> Option<ChangeHold> {
        self.updates.settle(twin);
        None
    }

    /// Whether somebody lets a declared value destroy the `lost` leaves of others in `twin`.
    pub(super) fn shape_approved(&mut self, twin: &TwinRef, lost: usize, now: Duration) -> bool {
        if lost == 0 {
            self.shapes.remove(twin);
            return false;
        }
        self.shapes.insert(twin.clone(), lost);
        self.approvals.approved(GuardKind::Shape, Some(twin), &self.fleet.revision, now) >= lost
    }

    /// What would let it.
    pub(super) fn shape_approval(&self, twin: &TwinRef, lost: usize) -> Arc<Approval> {
        let approval = self.fleet.approval(GuardKind::Shape, lost);
        Arc::new(Approval { twin: Some(twin.clone()), ..Arc::unwrap_or_clone(approval) })
    }

    /// What the guards of registrations and changes hold now.
    pub(super) fn change_holds(&mut self, now: Duration) -> [(GuardKind, Option<ChangeHold>, usize); 2] {
        [(GuardKind::Creates, &mut self.creates), (GuardKind::Updates, &mut self.updates)].map(|(kind, guard)| {
            let refused = guard.refused().len();
            let hold = if refused == 0 { None } else { guard.hold(&self.fleet, &self.approvals, now) };
            (kind, hold, refused)
        })
    }

    /// Twins that were refused and that nothing holds any more.
    pub(super) fn released(&mut self, now: Duration) -> BTreeSet<TwinRef> {
        let (fleet, approvals) = (&self.fleet, &self.approvals);
        let mut released = BTreeSet::new();
        for guard in [&mut self.creates, &mut self.updates] {
            if !guard.refused().is_empty() && guard.hold(fleet, approvals, now).is_none() {
                released.append(&mut guard.take_refused());
            }
        }
        released
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

    /// What a complete sweep found: how many twins carry our seal, who is in which profile, and by which queries.
    pub(super) fn take_sweep(&mut self, sealed: usize, members: Members, answered: BTreeMap<String, String>) {
        self.fleet.sealed = sealed;
        self.members = members;
        self.answered = answered;
        self.find_unknown();
        if self.fleet.unknown.is_none() {
            let staying = self.departures.settle_staying(&self.state, &self.members);
            staying.iter().for_each(|twin| self.guard.settle(twin));
        }
    }

    /// A sweep did not end, and with it perhaps no nominating query: nobody knows who is in a profile any more.
    pub(super) fn sweep_failed(&mut self) {
        self.answered.clear();
        self.find_unknown();
    }

    fn find_unknown(&mut self) {
        let answered = |(profile, condition): &(&Arc<Profile>, &LiveCondition)| {
            self.answered.get(&profile.name).is_some_and(|query| *query == condition.nominating_query(profile.target))
        };
        let unknown = self.state.conditional().find(|profile| !answered(profile));
        self.fleet.unknown = unknown.map(|(profile, _)| profile.source.clone());
    }

    /// Twins whose removals wait.
    pub(super) fn waiting(&self) -> &BTreeSet<TwinRef> {
        self.guard.waiting()
    }

    /// Grants `approval` if it is about what is held now.
    pub(super) fn approve(&mut self, approval: &Approval, now: Duration) -> Result<(), Refused> {
        let held = match (&approval.twin, approval.guard) {
            (Some(twin), GuardKind::Shape) => self.shapes.get(twin).map(|lost| self.shape_approval(twin, *lost)),
            (None, GuardKind::Shape) => return Err(Refused("name the twin with --twin".to_owned())),
            (Some(_), GuardKind::Removals | GuardKind::Creates | GuardKind::Updates | GuardKind::Empty) => {
                return Err(Refused(format!("the guard {} is for the whole hub; leave the twin out", approval.guard)));
            }
            (None, GuardKind::Removals | GuardKind::Creates | GuardKind::Updates | GuardKind::Empty) => {
                let approvals = self.holds(now).into_iter().filter_map(|hold| hold.approve);
                approvals.into_iter().find(|held| held.guard == approval.guard).map(Arc::new)
            }
        };
        let Some(held) = held else {
            return Err(Refused(format!("the guard {} holds nothing now", approval.guard)));
        };
        if approval.count < held.count {
            return Err(Refused(format!("by now {} wait, not {}; `{held}`", held.count, approval.count)));
        }
        if !self.approvals.grant(approval, now) {
            return Err(Refused("too many approvals hold at one time; wait for one to end".to_owned()));
        }
        Ok(())
    }

    /// What guards hold now.
    pub(super) fn holds(&mut self, now: Duration) -> Vec<GuardHold> {
        let waiting = self.guard.waiting().len();
        let removals = self.hold(now).filter(|_| waiting > 0).map(|hold| {
            let approve = hold.approval().cloned();
            let guard = approve.as_ref().map_or(GuardKind::Removals, |approve| approve.guard);
            GuardHold { guard, twins: waiting, message: format!("removals: {hold}"), approve }
        });
        let changes = self.change_holds(now).into_iter().filter_map(|(guard, hold, twins)| {
            let hold = hold?;
            let approve = Some(hold.approve.as_ref().clone());
            Some(GuardHold { guard, twins, message: format!("{guard}: {hold}"), approve })
        });
        removals.into_iter().chain(changes).collect()
    }

    /// Why removals are held now, if they are.
    pub(super) fn hold(&mut self, now: Duration) -> Option<RemovalHold> {
        match self.guard.verdict(&self.fleet, &self.approvals, now) {
            Removals::Go => None,
            Removals::Held(hold) => Some(hold),
        }
    }
}
