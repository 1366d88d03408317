//! The removals guard: how many twins may lose something within a day before somebody has to look.
//!
//! Invariants: pure; time is the age of the process, handed in. A removal that is held never holds an update, and counts
//! for as long as it waits: no hold runs out by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{FileSpan, RemovalHold, Removals};
use crate::twin::TwinRef;

/// Removals are summed over this time.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// What the removals guard lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RemovalLimit {
    /// The share of the fleet that may lose something within 24 h, 0 to 1.
    pub share: f64,
    /// Up to this many twins the share is not asked.
    pub from: usize,
}

impl Default for RemovalLimit {
    fn default() -> Self {
        Self { share: 0.3, from: 10 }
    }
}

impl RemovalLimit {
    /// How many twins of a fleet of `fleet` may lose something.
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

/// Counts the twins that lose, or would lose, a leaf or their seal.
#[derive(Debug, Clone, Default)]
pub struct RemovalGuard {
    limit: RemovalLimit,
    /// Twins that lost something, with the time of the last loss, or would lose something.
    counted: BTreeMap<TwinRef, Option<Duration>>,
    /// Those of them that would.
    waiting: BTreeSet<TwinRef>,
    /// No loss counted is older than this, so that a verdict looks at all of them only when one may have expired.
    oldest: Duration,
    /// Whether one complete sweep since start has been judged.
    judged: bool,
}

/// What the guard is asked about: the state of the source and the size of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetSize {
    /// Twins declared.
    pub declared: usize,
    /// Twins that carry our seal, by the last complete sweep.
    pub sealed: usize,
    /// A broken manifest, if there is one.
    pub broken: Option<FileSpan>,
    /// A profile whose nominating query has not been answered to the end, if there is one.
    pub unknown: Option<FileSpan>,
}

impl RemovalGuard {
    /// A guard that has seen nothing yet and lets nothing pass until the first sweep is judged.
    #[must_use]
    pub fn new(limit: RemovalLimit) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that `twin` would lose something. It counts until it loses it, or [`settles`](Self::settle).
    pub fn wait(&mut self, twin: &TwinRef) {
        self.waiting.insert(twin.clone());
        self.counted.entry(twin.clone()).or_default();
    }

    /// Notes that `twin` loses something now.
    pub fn lose(&mut self, twin: &TwinRef, now: Duration) {
        self.waiting.remove(twin);
        self.counted.insert(twin.clone(), Some(now));
    }

    /// Notes that `twin` has nothing to lose any more. What it lost before still counts.
    pub fn settle(&mut self, twin: &TwinRef) {
        if self.waiting.remove(twin) && self.counted.get(twin) == Some(&None) {
            self.counted.remove(twin);
        }
    }

    /// Twins that would lose something.
    #[must_use]
    pub const fn waiting(&self) -> &BTreeSet<TwinRef> {
        &self.waiting
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

    fn forget_expired(&mut self, now: Duration) {
        if now.saturating_sub(self.oldest) >= WINDOW {
            for lost in self.counted.values_mut() {
                *lost = lost.filter(|at| now.saturating_sub(*at) < WINDOW);
            }
            let waiting = &self.waiting;
            self.counted.retain(|twin, lost| lost.is_some() || waiting.contains(twin));
            self.oldest = self.counted.values().flatten().min().copied().unwrap_or(now);
        }
    }

    /// Whether anything may be removed now.
    pub fn verdict(&mut self, fleet: &FleetSize, now: Duration) -> Removals {
        self.forget_expired(now);
        if let Some(place) = &fleet.broken {
            return Removals::Held(RemovalHold::SourceBroken(place.clone()));
        }
        if fleet.declared == 0 {
            return Removals::Held(RemovalHold::EmptyState);
        }
        if !self.judged {
            return Removals::Held(RemovalHold::FirstSweep);
        }
        if let Some(place) = &fleet.unknown {
            return Removals::Held(RemovalHold::MembershipUnknown(place.clone()));
        }
        let (removals, allowed) = (self.counted.len(), self.limit.allowed(fleet.declared.max(fleet.sealed)));
        if removals > allowed {
            return Removals::Held(RemovalHold::Guard { removals, allowed });
        }
        Removals::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    fn twin(n: usize) -> TwinRef {
        TwinRef::device(DeviceId::new(&format!("d{n}")).unwrap())
    }

    fn fleet(declared: usize, sealed: usize) -> FleetSize {
        FleetSize { declared, sealed, broken: None, unknown: None }
    }

    fn held(removals: usize, allowed: usize) -> Removals {
        Removals::Held(RemovalHold::Guard { removals, allowed })
    }

    #[test]
    fn nothing_goes_before_the_first_sweep_is_judged_nor_for_an_empty_or_broken_source() {
        let mut guard = RemovalGuard::new(RemovalLimit::default());
        assert_eq!(guard.verdict(&fleet(5, 5), Duration::ZERO), Removals::Held(RemovalHold::FirstSweep));
        guard.judge_first_sweep();
        assert_eq!(guard.verdict(&fleet(5, 5), Duration::ZERO), Removals::Go);
        assert_eq!(guard.verdict(&fleet(0, 5), Duration::ZERO), Removals::Held(RemovalHold::EmptyState));
        let place = FileSpan { file: "a".into(), line: 1, column: 1 };
        let unknown = FleetSize { unknown: Some(place.clone()), ..fleet(5, 5) };
        let held = Removals::Held(RemovalHold::MembershipUnknown(place.clone()));
        assert_eq!(guard.verdict(&unknown, Duration::ZERO), held);
        let broken = FleetSize { broken: Some(place.clone()), ..fleet(5, 5) };
        assert_eq!(guard.verdict(&broken, Duration::ZERO), Removals::Held(RemovalHold::SourceBroken(place)));
    }

    #[test]
    fn more_than_the_share_of_the_larger_fleet_is_held_for_a_day() {
        let mut guard = RemovalGuard::new(RemovalLimit::default());
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
        let mut guard = RemovalGuard::new(RemovalLimit::default());
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
        let mut guard = RemovalGuard::new(RemovalLimit { share: 0.0, from: 1 });
        guard.judge_first_sweep();
        guard.wait(&twin(1));
        guard.lose(&twin(1), Duration::from_secs(1));
        assert_eq!(guard.verdict(&fleet(1, 1), Duration::from_secs(1)), Removals::Go);
        guard.wait(&twin(2));
        assert_eq!(guard.verdict(&fleet(2, 2), Duration::from_secs(1)), held(2, 1));
    }
}
