//! How often sweeps are made, of which kind, and how far the present one is.
//!
//! Invariant: nothing here asks the hub; what may be asked of it and what there is to sweep are handed in.

use std::time::Duration;

use crate::hub::Allowance;
use crate::plan::{SweepMode, SweepPlan, SweepRates, SweepSettings, SweepSize, plan_sweep};

/// The sweeps of one hub.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pacing {
    settings: SweepSettings,
    /// Twins that carry our seal, as the last sweep by query listed them.
    sealed: Option<usize>,
    /// Whether modules are among them; taken for granted before anybody looked.
    modules: bool,
    reads_in_a_row: u32,
}

/// What the declared state has to do with the cost of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeclaredSize {
    pub(super) twins: usize,
    pub(super) conditions: usize,
    pub(super) modules: bool,
    /// Whether the first sweep was judged: until then only rows tell what is there.
    pub(super) judged: bool,
    /// The columns of a row for who reads along; `None` when nobody does.
    pub(super) along: Option<usize>,
}

impl Pacing {
    pub(super) fn new(settings: SweepSettings) -> Self {
        Self { settings, sealed: None, modules: true, reads_in_a_row: 0 }
    }

    /// How to sweep next.
    pub(super) fn plan(&self, declared: DeclaredSize, allowance: &Allowance) -> SweepPlan {
        let size = SweepSize {
            declared: declared.twins,
            sealed: self.sealed.unwrap_or_default(),
            // The count of devices, the pages of conditions, and those of modules.
            more_pages: 1 + declared.conditions + usize::from(self.modules || declared.modules),
            // Who reads along wants rows of everything that is sealed, at one time.
            readable: declared.judged && declared.conditions == 0 && declared.along.is_none() && self.sealed.is_some(),
            reads_in_a_row: self.reads_in_a_row,
            more_columns: declared.along.unwrap_or_default(),
        };
        let rates = SweepRates {
            queries_per_second: allowance.queries_per_second,
            reads_per_second: allowance.reads_per_second,
            messages_per_day: allowance.messages_per_day,
            message_size: allowance.message_size,
        };
        plan_sweep(&size, &rates, self.settings)
    }

    /// Whether modules are to be listed though none is declared.
    pub(super) fn modules(&self) -> bool {
        self.modules
    }

    /// How many twins the next sweep will list.
    pub(super) fn sealed(&self) -> Option<usize> {
        self.sealed
    }

    /// A sweep by query found so many twins that carry our seal.
    pub(super) fn listed(&mut self, sealed: usize, modules: bool) {
        self.sealed = Some(sealed);
        self.modules = modules;
        self.reads_in_a_row = 0;
    }

    /// A sweep of this kind is over.
    pub(super) fn swept(&mut self, mode: SweepMode) {
        match mode {
            SweepMode::Query => {}
            SweepMode::Read => self.reads_in_a_row = self.reads_in_a_row.saturating_add(1),
        }
    }
}

/// How far the present work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Twins still to be looked at.
    pub(super) remaining: usize,
    /// How many there were at the most since there was nothing to do.
    pub(super) total: usize,
    /// The time until the end at the pace so far; `None` as long as there is no pace.
    pub(super) eta: Option<Duration>,
}

/// Measures progress by what remains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProgressMeter {
    total: usize,
    since: Duration,
}

impl ProgressMeter {
    /// Takes in what remains at `now`. More than before begins a new measure.
    pub(super) fn update(&mut self, remaining: usize, now: Duration) -> Progress {
        if remaining == 0 || remaining > self.total {
            *self = Self { total: remaining, since: now };
        }
        let done = self.total - remaining;
        let elapsed = now.saturating_sub(self.since);
        let factor = ratio(remaining, done).filter(|_| done > 0);
        let eta = if remaining == 0 { Some(Duration::ZERO) } else { factor.map(|factor| elapsed.mul_f64(factor)) };
        Progress { remaining, total: self.total, eta }
    }

    /// How long the present work has lasted.
    pub(super) fn elapsed(&self, now: Duration) -> Duration {
        if self.total == 0 { Duration::ZERO } else { now.saturating_sub(self.since) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fleet has far fewer than 2^52 twins")]
fn ratio(part: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn progress_ends_when_the_pace_so_far_says_so() {
        let mut meter = ProgressMeter::default();
        let mut update = |remaining, now| meter.update(remaining, at(now));
        assert_eq!(update(0, 5), Progress { remaining: 0, total: 0, eta: Some(at(0)) });
        assert_eq!(update(100, 10), Progress { remaining: 100, total: 100, eta: None });
        assert_eq!(update(75, 20).eta, Some(at(30)));
        assert_eq!(update(50, 30).eta, Some(at(20)));
        assert_eq!(update(200, 40), Progress { remaining: 200, total: 200, eta: None }, "a new measure");
        assert_eq!(update(0, 60), Progress { remaining: 0, total: 0, eta: Some(at(0)) });
    }

    #[test]
    fn the_first_sweep_and_every_one_with_conditions_is_by_query() {
        let settings = SweepSettings { interval: at(600), verify: at(86_400) };
        let allowance = Allowance {
            queries_per_second: Some(10.0 / 60.0),
            reads_per_second: Some(50.0),
            messages_per_day: Some(40_000),
            message_size: Some(4096),
            ..Allowance::default()
        };
        let one = DeclaredSize { twins: 1, conditions: 0, modules: false, judged: true, along: None };
        let mut pacing = Pacing::new(settings);
        assert_eq!(pacing.plan(one, &allowance).mode, SweepMode::Query);
        pacing.listed(1, false);
        assert_eq!(pacing.plan(DeclaredSize { conditions: 1, ..one }, &allowance).mode, SweepMode::Query);
        assert_eq!(pacing.plan(DeclaredSize { judged: false, ..one }, &allowance).mode, SweepMode::Query);
        assert_eq!(pacing.plan(DeclaredSize { along: Some(0), ..one }, &allowance).mode, SweepMode::Query);
        let modes: Vec<SweepMode> = (0..24)
            .map(|_| {
                let mode = pacing.plan(one, &allowance).mode;
                pacing.swept(mode);
                if mode == SweepMode::Query {
                    pacing.listed(1, false);
                }
                mode
            })
            .collect();
        assert_eq!(modes.iter().filter(|mode| **mode == SweepMode::Query).count(), 2, "one in eleven: {modes:?}");
    }
}
