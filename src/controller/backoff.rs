//! When a twin is due again after an outcome: the only place where waiting is decided.
//!
//! Invariant: pure; randomness and time are arguments. All retries of geminid live in the queue.

use std::time::Duration;

use crate::plan::Outcome;

/// First wait after a failure of the hub or the network (`iot-hub.md` 3.2: 1 s start, jitter).
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_MAX: Duration = Duration::from_secs(5 * 60);
/// First wait after 429 (`iot-hub.md` 3.2: from 10 s with full jitter).
const THROTTLED_FIRST: Duration = Duration::from_secs(10);
/// First wait for a device that is not registered; up to an hour, since it may never be.
const MISSING_FIRST: Duration = Duration::from_secs(30);
const MISSING_MAX: Duration = Duration::from_secs(60 * 60);
const UNAUTHORIZED_FIRST: Duration = Duration::from_secs(60);
const UNAUTHORIZED_MAX: Duration = Duration::from_secs(15 * 60);

/// When a twin is reconciled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// After this time.
    After(Duration),
    /// When its manifest changes or a sweep finds it touched.
    OnChange,
}

/// What a wait depends on besides the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// Failures of this twin in a row, this one included.
    pub failures: u32,
    /// The hub's own hint, if it gave one.
    pub retry_after: Option<Duration>,
    /// Until 00:00 UTC.
    pub until_utc_midnight: Duration,
}

/// When a twin with this outcome is due again.
pub fn next(outcome: &Outcome, circumstances: Circumstances, rng: &mut fastrand::Rng) -> Requeue {
    let failures = circumstances.failures;
    match outcome {
        Outcome::InSync
        | Outcome::Applied
        | Outcome::Drifted
        | Outcome::Kept
        | Outcome::Held(_)
        | Outcome::Rejected
        | Outcome::Pending
        | Outcome::Released => Requeue::OnChange,
        Outcome::Conflict | Outcome::Failed => Requeue::After(jittered(FAILED_FIRST, FAILED_MAX, failures, rng)),
        Outcome::Throttled => Requeue::After(match circumstances.retry_after {
            Some(hint) => hint.min(MISSING_MAX) + jittered(FAILED_FIRST, FAILED_FIRST, 1, rng),
            None => jittered(THROTTLED_FIRST, FAILED_MAX, failures, rng),
        }),
        Outcome::Missing => Requeue::After(jittered(MISSING_FIRST, MISSING_MAX, failures, rng)),
        Outcome::Unauthorized => Requeue::After(jittered(UNAUTHORIZED_FIRST, UNAUTHORIZED_MAX, failures, rng)),
        Outcome::Quota => {
            Requeue::After(circumstances.until_utc_midnight + jittered(MISSING_FIRST, MISSING_FIRST, 1, rng))
        }
    }
}

/// Between a half and the whole of `first` doubled with each failure, at most `max`.
pub(super) fn jittered(first: Duration, max: Duration, failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let full = first.saturating_mul(1 << doublings).min(max);
    full.mul_f64(0.5 + 0.5 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HeldReason;

    /// The least and the most that 500 draws wait; `None` when the twin waits for a change.
    fn waits(outcome: &Outcome, failures: u32, retry_after: Option<u64>) -> Option<(Duration, Duration)> {
        let circumstances = Circumstances {
            failures,
            retry_after: retry_after.map(Duration::from_secs),
            until_utc_midnight: Duration::from_secs(3600),
        };
        let mut rng = fastrand::Rng::with_seed(7);
        let waits: Vec<Duration> = (0..500)
            .filter_map(|_| match next(outcome, circumstances, &mut rng) {
                Requeue::After(wait) => Some(wait),
                Requeue::OnChange => None,
            })
            .collect();
        Some((*waits.iter().min()?, *waits.iter().max()?))
    }

    #[test]
    fn each_outcome_waits_as_the_table_says() {
        for (outcome, failures, hint, expected) in [
            (Outcome::Applied, 0, None, None),
            (Outcome::Held(HeldReason::DeletedOutside), 0, None, None),
            (Outcome::Rejected, 3, None, None),
            (Outcome::Failed, 1, None, Some((0.5, 1.0))),
            (Outcome::Failed, 4, None, Some((4.0, 8.0))),
            (Outcome::Failed, 60, None, Some((150.0, 300.0))),
            (Outcome::Throttled, 1, None, Some((5.0, 10.0))),
            (Outcome::Throttled, 1, Some(40), Some((40.5, 41.0))),
            (Outcome::Missing, 1, None, Some((15.0, 30.0))),
            (Outcome::Missing, 30, None, Some((1800.0, 3600.0))),
            (Outcome::Unauthorized, 9, None, Some((450.0, 900.0))),
            (Outcome::Quota, 1, None, Some((3615.0, 3630.0))),
        ] {
            let waits = waits(&outcome, failures, hint).map(|(least, most)| (least.as_secs_f64(), most.as_secs_f64()));
            let fits = match (waits, expected) {
                (None, None) => true,
                (Some((least, most)), Some((low, high))) => {
                    // All within the bounds, and spread over most of them.
                    least >= low && most <= high && most - least > (high - low) * 0.9
                }
                (Some(_), None) | (None, Some(_)) => false,
            };
            assert!(fits, "{outcome:?} after {failures} failures: {waits:?}, expected {expected:?}");
        }
    }
}
