//! The removals guard as workers ask it, and the declared state they work on.
//!
//! Invariants: every removal counts before it is made. A state and what it takes from the fleet arrive together, so no
//! worker plans on a state that the guard has not seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::command::{GuardHold, Refused};
use crate::plan::{
    Approval, Approvals, DeclaredState, FleetSize, GuardKind, Leaf, LiveCondition, Members, Policy, Profile,
    RemovalGuard, RemovalHold, Removals,
};
use crate::twin::TwinRef;

/// What removals depend on besides the twin itself.
#[derive(Debug)]
pub(super) struct Gate {
    state: Arc<DeclaredState>,
    guard: RemovalGuard,
    approvals: Approvals,
    fleet: FleetSize,
    policy: Policy,
    /// Who was in each profile with a condition, as the last complete sweep saw it.
    members: Members,
    /// The nominating queries that the last sweep had answered to the end.
    answered: BTreeSet<String>,
}

impl Gate {
    pub(super) fn new(hub: &str, policy: &Policy) -> Self {
        Self {
            state: Arc::default(),
            guard: RemovalGuard::new(policy.guards.of_removals()),
            approvals: Approvals::default(),
            fleet: FleetSize { hub: hub.to_owned(), ..FleetSize::default() },
            policy: policy.clone(),
            members: Members::new(),
            answered: BTreeSet::new(),
        }
    }

    /// The state that workers plan on.
    pub(super) fn state(&self) -> Arc<DeclaredState> {
        Arc::clone(&self.state)
    }

    /// Hands a new state to the workers. It takes something from each of `losing`: these count before the first of
    /// them is planned, so that a mass removal is held whole.
    pub(super) fn take_state(&mut self, state: Arc<DeclaredState>, losing: &BTreeSet<TwinRef>) {
        // Members that nobody names are not counted here: they carry our seal, and that counts.
        self.fleet.declared = state.twins.len().max(usize::from(state.conditional().next().is_some()));
        self.fleet.broken = state.frozen.broken.first().cloned();
        self.fleet.revision.clone_from(&state.revision);
        // A profile that goes, or wants less, takes from all its members; who they are only rows have told.
        for (profile, _) in self.state.conditional() {
            let after = state.profiles.iter().find(|after| after.name == profile.name);
            if after.is_none_or(|after| loses(profile, after)) {
                self.members.get(&profile.name).into_iter().flatten().for_each(|twin| self.guard.wait(twin));
            }
        }
        self.state = state;
        self.find_unknown();
        losing.iter().for_each(|twin| self.guard.wait(twin));
    }

    /// Whether `twin`, whose plan removes something, may do so now. `absent`: because its manifest is gone.
    pub(super) fn permit(&mut self, twin: &TwinRef, absent: bool, now: Duration) -> Removals {
        if absent && !self.policy.prune {
            self.guard.settle(twin);
            return Removals::Held(RemovalHold::NotPruned);
        }
        self.guard.wait(twin);
        let verdict = self.guard.verdict(&self.fleet, &self.approvals, now);
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

    /// What a complete sweep found: how many twins carry our seal, who is in which profile, and by which queries.
    pub(super) fn take_sweep(&mut self, sealed: usize, members: Members, answered: BTreeSet<String>) {
        self.fleet.sealed = sealed;
        self.members = members;
        self.answered = answered;
        self.find_unknown();
    }

    /// A sweep did not end, and with it perhaps no nominating query: nobody knows who is in a profile any more.
    pub(super) fn sweep_failed(&mut self) {
        self.answered.clear();
        self.find_unknown();
    }

    fn find_unknown(&mut self) {
        let answered = |(profile, condition): &(&Arc<Profile>, &LiveCondition)| {
            self.answered.contains(&condition.nominating_query(profile.target))
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
        let holds = self.holds(now);
        let Some(hold) =
            holds.iter().find_map(|hold| hold.approve.as_ref().filter(|held| held.guard == approval.guard))
        else {
            return Err(Refused(format!("the guard {} holds nothing now", approval.guard)));
        };
        if approval.count < hold.count {
            return Err(Refused(format!("by now {} wait, not {}; `{hold}`", hold.count, approval.count)));
        }
        if !self.approvals.grant(approval, now) {
            return Err(Refused("too many approvals hold at one time; wait for one to end".to_owned()));
        }
        Ok(())
    }

    /// What guards hold now.
    pub(super) fn holds(&mut self, now: Duration) -> Vec<GuardHold> {
        let waiting = self.guard.waiting().len();
        let Some(hold) = self.hold(now).filter(|_| waiting > 0) else { return Vec::new() };
        let approve = hold.approval().cloned();
        let guard = approve.as_ref().map_or(GuardKind::Removals, |approve| approve.guard);
        vec![GuardHold { guard, twins: waiting, message: format!("removals: {hold}"), approve }]
    }

    /// Why removals are held now, if they are.
    pub(super) fn hold(&mut self, now: Duration) -> Option<RemovalHold> {
        match self.guard.verdict(&self.fleet, &self.approvals, now) {
            Removals::Go => None,
            Removals::Held(hold) => Some(hold),
        }
    }
}

/// Whether `after` sets less than `before`.
fn loses(before: &Profile, after: &Profile) -> bool {
    let kept: BTreeSet<Leaf> = after.wanted.leaves(&after.source).map(|(leaf, ..)| leaf).collect();
    before.wanted.leaves(&before.source).any(|(leaf, ..)| !kept.contains(&leaf))
}
