//! How much of the allowed rate is used, by how the hub takes it.
//!
//! Invariant: pure. A hub queues before it refuses (`iot-hub.md` 6.4), so answers that come late are the first sign
//! and 429 the second. Bad news lowers the rate by a factor, once for all the requests that were under way together;
//! calm raises it by steps, never beyond 1.

use std::time::Duration;

/// What is left of the rate after a 429, and after answers have come late.
const AFTER_THROTTLED: f64 = 0.5;
const AFTER_LATE: f64 = 0.8;
/// It never falls below this, or nobody would notice that the hub is well again.
const FACTOR_MIN: f64 = 1.0 / 16.0;
/// Regained a second without bad news.
const REGAINED_A_SECOND: f64 = 0.02;
/// Bad news within this time is the same news.
const SAME_NEWS: Duration = Duration::from_secs(5);
/// Answers are late when they take this many times as long as they do on calm days, and longer than [`LATE_MIN`].
const LATE_FACTOR: f64 = 4.0;
const LATE_MIN: f64 = 1.0;
/// The weight of one answer in the mean, and how fast a rise is taken for the new normal.
const SMOOTHING: f64 = 0.1;
const FORGETTING: f64 = 0.001;

/// The pace of one operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pace {
    factor: f64,
    /// Of answers lately, in seconds.
    mean: Option<f64>,
    /// Of answers on calm days, in seconds.
    calm: f64,
    lowered_at: Option<Duration>,
    raised_at: Duration,
}

impl Pace {
    pub(super) fn new(now: Duration) -> Self {
        Self { factor: 1.0, mean: None, calm: 0.0, lowered_at: None, raised_at: now }
    }

    /// The part of the allowed rate that is used now, 0 to 1.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    /// The hub answered after `took`.
    pub(super) fn answered(&mut self, took: Duration, now: Duration) {
        let took = took.as_secs_f64();
        let mean = self.mean.map_or(took, |mean| mean + SMOOTHING * (took - mean));
        self.calm = if self.mean.is_none() { took } else { self.calm.min(mean) };
        self.calm += FORGETTING * (mean - self.calm);
        self.mean = Some(mean);
        if mean > LATE_MIN && mean > LATE_FACTOR * self.calm {
            self.lower(AFTER_LATE, now);
        } else {
            self.raise(now);
        }
    }

    /// The hub refused with 429.
    pub(super) fn throttled(&mut self, now: Duration) {
        self.lower(AFTER_THROTTLED, now);
    }

    fn lower(&mut self, factor: f64, now: Duration) {
        if self.lowered_at.is_none_or(|at| now.saturating_sub(at) >= SAME_NEWS) {
            self.factor = (self.factor * factor).max(FACTOR_MIN);
            self.lowered_at = Some(now);
        }
        self.raised_at = now;
    }

    fn raise(&mut self, now: Duration) {
        let calm_since = self.lowered_at.map_or(self.raised_at, |at| self.raised_at.max(at + SAME_NEWS));
        let calm = now.saturating_sub(calm_since).as_secs_f64();
        if calm > 0.0 {
            self.factor = (self.factor + calm * REGAINED_A_SECOND).min(1.0);
            self.raised_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn percent(pace: &Pace) -> f64 {
        (pace.factor() * 100.0).round()
    }

    #[test]
    fn refusals_that_come_together_halve_the_rate_once_and_calm_brings_it_back() {
        let mut pace = Pace::new(at(0));
        (0..30).for_each(|_| pace.throttled(at(10)));
        assert_eq!(percent(&pace), 50.0);
        pace.throttled(at(15));
        assert_eq!(percent(&pace), 25.0);
        pace.answered(Duration::from_millis(20), at(19));
        assert_eq!(percent(&pace), 25.0, "it is too early");
        pace.answered(Duration::from_millis(20), at(30));
        assert_eq!(percent(&pace), 45.0, "ten calm seconds of two percent");
        pace.answered(Duration::from_millis(20), at(400));
        assert_eq!(percent(&pace), 100.0);
        (0..100).for_each(|second| pace.throttled(at(500 + 5 * second)));
        assert!((pace.factor() - FACTOR_MIN).abs() < 1e-9);
    }

    #[test]
    fn late_answers_lower_it_and_slow_ones_that_were_always_slow_do_not() {
        let mut slow = Pace::new(at(0));
        (0..600).for_each(|second| slow.answered(Duration::from_millis(1500), at(second)));
        assert_eq!(percent(&slow), 100.0);
        let mut shaped = Pace::new(at(0));
        (0..60).for_each(|second| shaped.answered(Duration::from_millis(130), at(second)));
        assert_eq!(percent(&shaped), 100.0);
        (60..120).for_each(|second| shaped.answered(Duration::from_secs(3), at(second)));
        let lowered = percent(&shaped);
        assert!(lowered < 20.0, "{lowered}");
        (120..240).for_each(|second| shaped.answered(Duration::from_millis(130), at(second)));
        assert_eq!(percent(&shaped), 100.0);
        let mut fast = Pace::new(at(0));
        (0..60).for_each(|second| fast.answered(Duration::from_millis(1), at(second)));
        (60..120).for_each(|second| fast.answered(Duration::from_millis(400), at(second)));
        assert_eq!(percent(&fast), 100.0, "a busy machine is no throttle");
    }
}
