//! The guards: how many twins may lose something, be registered or be changed within a day before somebody has to look.
//!
//! Invariants: pure; time is the age of the process, handed in. What is held counts for as long as it waits, and a
//! removal that is held never holds an update.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Approval, Approvals, ChangeHold, FileSpan, GuardKind, RemovalHold, Removals, Tally};
use crate::twin::TwinRef;

/// What one guard lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardLimit {
    /// The share of the fleet that may pass within 24 h, 0 to 1.
    pub share: f64,
    /// Up to this many twins the share is not asked.
    pub from: usize,
}

impl GuardLimit {
    /// How many twins of a fleet of `fleet` may pass.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of at most a million twins, between 0 and the fleet"
    )]
    pub fn allowed(&self, fleet: usize) -> usize {
        let share = (fleet as f64 * self.share.clamp(0.0, 1.0)).floor() as usize;
        share.max(self.from)
    }
}

/// What the guards of one hub let pass (DESIGN 4.7): shares of the fleet within 24 h, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardLimits {
    /// Twins that lose a leaf, their seal or their membership in a profile.
    pub removals: f64,
    /// Devices registered.
    pub creates: f64,
    /// Twins changed.
    pub updates: f64,
    /// Up to this many twins no share is asked.
    pub from: usize,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { removals: 0.3, creates: 0.3, updates: 1.0, from: 10 }
    }
}

impl GuardLimits {
    /// Guards that let everything pass; an empty declared state is held all the same.
    pub const OPEN: Self = Self { removals: 1.0, creates: 1.0, updates: 1.0, from: usize::MAX };

    /// The limit of the removals guard.
    #[must_use]
    pub const fn of_removals(&self) -> GuardLimit {
        GuardLimit { share: self.removals, from: self.from }
    }

    /// The limit of the guard of registrations.
    #[must_use]
    pub const fn of_creates(&self) -> GuardLimit {
        GuardLimit { share: self.creates, from: self.from }
    }

    /// The limit of the guard of changes.
    #[must_use]
    pub const fn of_updates(&self) -> GuardLimit {
        GuardLimit { share: self.updates, from: self.from }
    }
}

/// What the guards are asked about: the state of the source and the size of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetSize {
    /// The hub's name, for the command that approves.
    pub hub: String,
    /// The revision of the declared state, likewise.
    pub revision: String,
    /// Twins declared.
    pub declared: usize,
    /// Twins that carry our seal, by the last complete sweep.
    pub sealed: usize,
    /// A broken manifest, if there is one.
    pub broken: Option<FileSpan>,
    /// A profile whose nominating query has not been answered to the end, if there is one.
    pub unknown: Option<FileSpan>,
}

impl FleetSize {
    /// What shares are of: twins declared or sealed, whichever are more.
    #[must_use]
    pub fn size(&self) -> usize {
        self.declared.max(self.sealed)
    }

    /// The approval that would let `count` twins pass `guard`.
    #[must_use]
    pub fn approval(&self, guard: GuardKind, count: usize) -> Arc<Approval> {
        Arc::new(Approval { hub: self.hub.clone(), guard, twin: None, revision: self.revision.clone(), count })
    }
}

/// Counts the twins that lose, or would lose, a leaf, their seal or their membership.
#[derive(Debug, Clone)]
pub struct RemovalGuard {
    limit: GuardLimit,
    tally: Tally,
    /// Whether one complete sweep since start has been judged.
    judged: bool,
}

impl RemovalGuard {
    /// A guard that has seen nothing yet and lets nothing pass until the first sweep is judged.
    #[must_use]
    pub fn new(limit: GuardLimit) -> Self {
        Self { limit, tally: Tally::default(), judged: false }
    }

    /// Notes that `twin` would lose something. It counts until it loses it, or [`settles`](Self::settle).
    pub fn wait(&mut self, twin: &TwinRef) {
        self.tally.wait(twin);
    }

    /// Notes that `twin` loses something now.
    pub fn lose(&mut self, twin: &TwinRef, now: Duration) {
        self.tally.happen(twin, now);
    }

    /// Notes that `twin` has nothing to lose any more. What it lost before still counts.
    pub fn settle(&mut self, twin: &TwinRef) {
        self.tally.settle(twin);
    }

    /// Twins that would lose something.
    #[must_use]
    pub const fn waiting(&self) -> &BTreeSet<TwinRef> {
        self.tally.waiting()
    }

    /// Notes that every twin nominated by the first complete sweep has been planned once.
    pub fn judge_first_sweep(&mut self) {
        self.judged = true;
    }

    /// Whether the first complete sweep has been judged.
    #[must_use]
    pub const fn is_judged(&self) -> bool {
        self.judged
    }

    /// Whether anything may be removed now.
    pub fn verdict(&mut self, fleet: &FleetSize, approvals: &Approvals, now: Duration) -> Removals {
        let removals = self.tally.count(now);
        let approved = |guard| approvals.approved(guard, None, &fleet.revision, now);
        if let Some(place) = &fleet.broken {
            return Removals::Held(RemovalHold::SourceBroken(place.clone()));
        }
        // What is approved for an empty state is all there is to remove: no second guard is asked.
        let empty = fleet.declared == 0;
        if empty && approved(GuardKind::Empty) < removals.max(1) {
            let approve = fleet.approval(GuardKind::Empty, removals);
            return Removals::Held(RemovalHold::EmptyState { approve });
        }
        if !self.judged {
            return Removals::Held(RemovalHold::FirstSweep);
        }
        if let Some(place) = &fleet.unknown {
            return Removals::Held(RemovalHold::MembershipUnknown(place.clone()));
        }
        let allowed = self.limit.allowed(fleet.size());
        if !empty && removals > allowed.max(approved(GuardKind::Removals)) {
            let approve = fleet.approval(GuardKind::Removals, removals);
            return Removals::Held(RemovalHold::Guard { removals, allowed, approve });
        }
        Removals::Go
    }
}

/// Counts the devices that are registered, or the twins that are changed.
#[derive(Debug, Clone)]
pub struct ChangeGuard {
    kind: GuardKind,
    limit: GuardLimit,
    tally: Tally,
    /// Twins that were refused and wait to be asked for again.
    refused: BTreeSet<TwinRef>,
}

impl ChangeGuard {
    /// A guard that has seen nothing yet.
    #[must_use]
    pub fn new(kind: GuardKind, limit: GuardLimit) -> Self {
        Self { kind, limit, tally: Tally::default(), refused: BTreeSet::new() }
    }

    /// Whether the guard holds nothing whatever comes, so that nothing needs to be counted.
    fn is_open(&self) -> bool {
        self.limit.share >= 1.0
    }

    /// Notes that it may happen to `twin`, which nobody has looked at yet: so that a mass of changes is known before
    /// the first of them is made.
    pub fn expect(&mut self, twin: &TwinRef) {
        if !self.is_open() {
            self.tally.wait(twin);
        }
    }

    /// Notes that it does not happen to `twin`.
    pub fn settle(&mut self, twin: &TwinRef) {
        self.refused.remove(twin);
        self.tally.settle(twin);
    }

    /// Whether there is any twin that it may happen to, or that was refused.
    #[must_use]
    pub fn awaits(&self) -> bool {
        !self.refused.is_empty() || !self.tally.waiting().is_empty()
    }

    /// Whether it may happen to `twin` now; counted before it does. `None` when it may.
    pub fn permit(
        &mut self,
        twin: &TwinRef,
        fleet: &FleetSize,
        approvals: &Approvals,
        now: Duration,
    ) -> Option<ChangeHold> {
        self.expect(twin);
        let hold = self.hold(fleet, approvals, now);
        if hold.is_some() {
            self.refused.insert(twin.clone());
        } else if !self.is_open() {
            self.refused.remove(twin);
            self.tally.happen(twin, now);
        }
        hold
    }

    /// Why it may happen to nobody now, if so.
    pub fn hold(&mut self, fleet: &FleetSize, approvals: &Approvals, now: Duration) -> Option<ChangeHold> {
        if self.is_open() {
            return None;
        }
        let (count, allowed) = (self.tally.count(now), self.limit.allowed(fleet.size()));
        let approved = approvals.approved(self.kind, None, &fleet.revision, now);
        let approve = || fleet.approval(self.kind, count);
        (count > allowed.max(approved)).then(|| ChangeHold { count, allowed, approve: approve() })
    }

    /// Takes the twins that were refused: they are asked for again.
    pub fn take_refused(&mut self) -> BTreeSet<TwinRef> {
        std::mem::take(&mut self.refused)
    }

    /// Twins that were refused.
    #[must_use]
    pub const fn refused(&self) -> &BTreeSet<TwinRef> {
        &self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    fn twin(n: usize) -> TwinRef {
        TwinRef::device(DeviceId::new(&format!("d{n}")).unwrap())
    }

    const LIMITS: GuardLimits = GuardLimits { removals: 0.3, creates: 0.3, updates: 1.0, from: 10 };

    fn fleet(declared: usize, sealed: usize) -> FleetSize {
        FleetSize { hub: "h".to_owned(), revision: "r".to_owned(), declared, sealed, broken: None, unknown: None }
    }

    fn held(removals: usize, allowed: usize) -> Removals {
        let approve = fleet(0, 0).approval(GuardKind::Removals, removals);
        Removals::Held(RemovalHold::Guard { removals, allowed, approve })
    }

    /// The guard without anybody's approval.
    struct Alone(RemovalGuard);

    impl Alone {
        fn new(limit: GuardLimit) -> Self {
            Self(RemovalGuard::new(limit))
        }

        fn verdict(&mut self, fleet: &FleetSize, now: Duration) -> Removals {
            self.0.verdict(fleet, &Approvals::default(), now)
        }
    }

    impl std::ops::Deref for Alone {
        type Target = RemovalGuard;

        fn deref(&self) -> &RemovalGuard {
            &self.0
        }
    }

    impl std::ops::DerefMut for Alone {
        fn deref_mut(&mut self) -> &mut RemovalGuard {
            &mut self.0
        }
    }

    #[test]
    fn nothing_goes_before_the_first_sweep_is_judged_nor_for_an_empty_or_broken_source() {
        let mut guard = Alone::new(LIMITS.of_removals());
        assert_eq!(guard.verdict(&fleet(5, 5), Duration::ZERO), Removals::Held(RemovalHold::FirstSweep));
        guard.judge_first_sweep();
        assert_eq!(guard.verdict(&fleet(5, 5), Duration::ZERO), Removals::Go);
        let approve = fleet(0, 5).approval(GuardKind::Empty, 0);
        let empty = Removals::Held(RemovalHold::EmptyState { approve });
        assert_eq!(guard.verdict(&fleet(0, 5), Duration::ZERO), empty);
        let place = FileSpan { file: "a".into(), line: 1, column: 1 };
        let unknown = FleetSize { unknown: Some(place.clone()), ..fleet(5, 5) };
        let held = Removals::Held(RemovalHold::MembershipUnknown(place.clone()));
        assert_eq!(guard.verdict(&unknown, Duration::ZERO), held);
        let broken = FleetSize { broken: Some(place.clone()), ..fleet(5, 5) };
        assert_eq!(guard.verdict(&broken, Duration::ZERO), Removals::Held(RemovalHold::SourceBroken(place)));
    }

    #[test]
    fn more_than_the_share_of_the_larger_fleet_is_held_for_a_day() {
        let mut guard = Alone::new(LIMITS.of_removals());
        guard.judge_first_sweep();
        for n in 0..31 {
            guard.lose(&twin(n), Duration::from_secs(60));
        }
        assert_eq!(guard.verdict(&fleet(100, 3), Duration::from_secs(61)), held(31, 30));
        assert_eq!(guard.verdict(&fleet(3, 104), Duration::from_secs(61)), Removals::Go);
        assert_eq!(guard.verdict(&fleet(3, 20), Duration::from_secs(61)), held(31, 10));
        assert_eq!(guard.verdict(&fleet(3, 20), Duration::from_secs(60 + 24 * 3600)), Removals::Go);
    }

    #[test]
    fn what_waits_counts_until_it_settles_and_no_wait_runs_out() {
        let mut guard = Alone::new(LIMITS.of_removals());
        guard.judge_first_sweep();
        for n in 0..31 {
            guard.wait(&twin(n));
        }
        let later = Duration::from_secs(40 * 24 * 3600);
        assert_eq!(guard.verdict(&fleet(100, 3), later), held(31, 30));
        guard.settle(&twin(0));
        assert_eq!(guard.verdict(&fleet(100, 3), later), Removals::Go);
        // What was lost is lost, whatever the twin would lose besides.
        guard.lose(&twin(1), later);
        guard.wait(&twin(1));
        guard.settle(&twin(1));
        guard.wait(&twin(0));
        assert_eq!(guard.verdict(&fleet(100, 3), later), held(31, 30));
        assert_eq!(guard.waiting().len(), 30);
    }

    #[test]
    fn one_twin_counts_once() {
        let mut guard = Alone::new(GuardLimit { share: 0.0, from: 1 });
        guard.judge_first_sweep();
        guard.wait(&twin(1));
        guard.lose(&twin(1), Duration::from_secs(1));
        assert_eq!(guard.verdict(&fleet(1, 1), Duration::from_secs(1)), Removals::Go);
        guard.wait(&twin(2));
        assert_eq!(guard.verdict(&fleet(2, 2), Duration::from_secs(1)), held(2, 1));
    }

    #[test]
    fn what_is_approved_passes_up_to_its_count_at_its_revision_for_an_hour() {
        let mut guard = Alone::new(LIMITS.of_removals());
        guard.judge_first_sweep();
        (0..31).for_each(|n| guard.wait(&twin(n)));
        let mut approvals = Approvals::default();
        let now = Duration::from_secs(60);
        let Removals::Held(RemovalHold::Guard { approve, .. }) = guard.verdict(&fleet(100, 3), now) else {
            panic!("31 of 100 are held")
        };
        approvals.grant(&approve, now);
        assert_eq!(guard.0.verdict(&fleet(100, 3), &approvals, now), Removals::Go);
        (0..31).for_each(|n| guard.lose(&twin(n), now));
        assert_eq!(guard.0.verdict(&fleet(100, 3), &approvals, now), Removals::Go, "what was approved and done");
        let other = FleetSize { revision: "r2".to_owned(), ..fleet(100, 3) };
        assert!(matches!(guard.0.verdict(&other, &approvals, now), Removals::Held(_)), "another revision");
        let later = now + crate::plan::APPROVAL_LIFE;
        assert!(matches!(guard.0.verdict(&fleet(100, 3), &approvals, later), Removals::Held(_)), "an hour later");
        guard.wait(&twin(31));
        assert_eq!(guard.0.verdict(&fleet(100, 3), &approvals, now), held(32, 30), "one more than approved");
    }

    #[test]
    fn an_empty_state_passes_by_an_approval_of_its_own_alone() {
        let mut guard = Alone::new(LIMITS.of_removals());
        guard.judge_first_sweep();
        (0..3).for_each(|n| guard.wait(&twin(n)));
        let mut approvals = Approvals::default();
        approvals.grant(&fleet(0, 3).approval(GuardKind::Removals, 3), Duration::ZERO);
        assert!(matches!(guard.0.verdict(&fleet(0, 3), &approvals, Duration::ZERO), Removals::Held(_)));
        approvals.grant(&fleet(0, 3).approval(GuardKind::Empty, 3), Duration::ZERO);
        assert_eq!(guard.0.verdict(&fleet(0, 3), &approvals, Duration::ZERO), Removals::Go);
    }

    #[test]
    fn a_mass_of_changes_is_known_before_the_first_of_them_is_made() {
        let mut guard = ChangeGuard::new(GuardKind::Creates, LIMITS.of_creates());
        let (fleet, mut approvals, now) = (fleet(40, 0), Approvals::default(), Duration::from_secs(1));
        (0..40).for_each(|n| guard.expect(&twin(n)));
        let hold = guard.permit(&twin(0), &fleet, &approvals, now).unwrap();
        assert_eq!((hold.count, hold.allowed), (40, 12));
        assert!(hold.to_string().contains("40 twins would be registered"), "{hold}");
        // The others turn out to exist: what is left is within the share.
        (12..40).for_each(|n| guard.settle(&twin(n)));
        assert_eq!(guard.permit(&twin(0), &fleet, &approvals, now), None);
        assert!(guard.refused().is_empty());
        guard.expect(&twin(12));
        let hold = guard.permit(&twin(12), &fleet, &approvals, now).unwrap();
        assert_eq!((hold.count, guard.refused().len()), (13, 1));
        approvals.grant(&hold.approve, now);
        assert_eq!(guard.permit(&twin(12), &fleet, &approvals, now), None);
    }

    #[test]
    fn a_guard_of_the_whole_fleet_counts_nobody() {
        let mut guard = ChangeGuard::new(GuardKind::Updates, LIMITS.of_updates());
        for n in 0..100 {
            assert_eq!(guard.permit(&twin(n), &fleet(5, 5), &Approvals::default(), Duration::ZERO), None);
        }
        assert_eq!(guard.tally.count(Duration::ZERO), 0);
    }
}
