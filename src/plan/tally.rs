//! Twins that something happened to within a day, or would happen to: what a guard counts.
//!
//! Invariants: pure; time is the age of the process, handed in. What waits counts for as long as it waits: no hold runs
//! out by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::twin::TwinRef;

/// What happened is summed over this time (DESIGN 4.7).
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The twins one guard counts.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Twins it happened to, with the time of the last time, or would happen to.
    counted: BTreeMap<TwinRef, Option<Duration>>,
    /// Those of them it would happen to.
    waiting: BTreeSet<TwinRef>,
    /// Nothing counted is older than this, so that a count looks at all of them only when one may have expired.
    oldest: Duration,
}

impl Tally {
    /// Notes that it would happen to `twin`. It counts until it [happens](Self::happen), or [`settles`](Self::settle).
    pub fn wait(&mut self, twin: &TwinRef) {
        self.waiting.insert(twin.clone());
        self.counted.entry(twin.clone()).or_default();
    }

    /// Notes that it happens to `twin` now.
    pub fn happen(&mut self, twin: &TwinRef, now: Duration) {
        self.waiting.remove(twin);
        self.counted.insert(twin.clone(), Some(now));
    }

    /// Notes that it will not happen to `twin`. What happened before still counts.
    pub fn settle(&mut self, twin: &TwinRef) {
        if self.waiting.remove(twin) && self.counted.get(twin) == Some(&None) {
            self.counted.remove(twin);
        }
    }

    /// Twins it would happen to.
    #[must_use]
    pub const fn waiting(&self) -> &BTreeSet<TwinRef> {
        &self.waiting
    }

    /// How many twins count at `now`.
    pub fn count(&mut self, now: Duration) -> usize {
        if now.saturating_sub(self.oldest) >= WINDOW {
            for happened in self.counted.values_mut() {
                *happened = happened.filter(|at| now.saturating_sub(*at) < WINDOW);
            }
            let waiting = &self.waiting;
            self.counted.retain(|twin, happened| happened.is_some() || waiting.contains(twin));
            self.oldest = self.counted.values().flatten().min().copied().unwrap_or(now);
        }
        self.counted.len()
    }
}
