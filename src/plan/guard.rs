//! The removals guard: how many twins may lose something within a day before somebody has to look.
//!
//! Invariant: pure; time is the age of the process, handed in. A removal that is held never holds an update.

use std::collections::BTreeMap;
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
    /// When each twin last lost or would have lost something.
    counted: BTreeMap<TwinRef, Duration>,
    /// Nothing counted is older than this, so that a verdict looks at all of them only when one may have expired.
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
}

impl RemovalGuard {
    /// A guard that has seen nothing yet and lets nothing pass until the first sweep is judged.
    #[must_use]
    pub fn new(limit: RemovalLimit) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that `twin` loses something, or would.
    pub fn count(&mut self, twin: &TwinRef, now: Duration) {
        self.counted.insert(twin.clone(), now);
    }

    /// Takes back what [`count`](Self::count) noted, when it turned out that `twin` loses nothing.
    pub fn discount(&mut self, twin: &TwinRef) {
        self.counted.remove(twin);
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
            self.counted.retain(|_, at| now.saturating_sub(*at) < WINDOW);
            self.oldest = self.counted.values().min().copied().unwrap_or(now);
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
        FleetSize { declared, sealed, broken: None }
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
        let broken = FleetSize { broken: Some(place.clone()), ..fleet(5, 5) };
        assert_eq!(guard.verdict(&broken, Duration::ZERO), Removals::Held(RemovalHold::SourceBroken(place)));
    }

    #[test]
    fn more_than_the_share_of_the_larger_fleet_is_held_for_a_day() {
        let mut guard = RemovalGuard::new(RemovalLimit::default());
        guard.judge_first_sweep();
        for n in 0..31 {
            guard.count(&twin(n), Duration::from_secs(60));
        }
        assert_eq!(guard.verdict(&fleet(100, 3), Duration::from_secs(61)), held(31, 30));
        assert_eq!(guard.verdict(&fleet(3, 104), Duration::from_secs(61)), Removals::Go);
        assert_eq!(guard.verdict(&fleet(3, 20), Duration::from_secs(61)), held(31, 10));
        guard.discount(&twin(0));
        assert_eq!(guard.verdict(&fleet(100, 3), Duration::from_secs(61)), Removals::Go);
        guard.count(&twin(0), Duration::from_secs(60));
        assert_eq!(guard.verdict(&fleet(3, 20), Duration::from_secs(60 + 24 * 3600)), Removals::Go);
    }

    #[test]
    fn one_twin_counts_once() {
        let mut guard = RemovalGuard::new(RemovalLimit { share: 0.0, from: 1 });
        guard.judge_first_sweep();
        guard.count(&twin(1), Duration::ZERO);
        guard.count(&twin(1), Duration::from_secs(1));
        assert_eq!(guard.verdict(&fleet(1, 1), Duration::from_secs(1)), Removals::Go);
        guard.count(&twin(2), Duration::from_secs(1));
        assert_eq!(guard.verdict(&fleet(2, 2), Duration::from_secs(1)), held(2, 1));
    }
}
