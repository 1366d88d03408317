//! When to connect: turns that many devices share, and the pauses of one that is refused.
//!
//! Invariant: time and randomness are arguments; nothing here sleeps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause before connecting again, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Pauses that grow from failure to failure, with jitter: many devices do not come back at once.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    random: fastrand::Rng,
}

impl Pauses {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self { next: PAUSE_FIRST, random }
    }

    /// The pause after another failure.
    pub(super) fn next(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(PAUSE_MAX);
        self.part_of(longest)
    }

    /// After a success.
    pub(super) fn begin_anew(&mut self) {
        self.next = PAUSE_FIRST;
    }

    /// Half to all of `longest`.
    pub(super) fn part_of(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(0.5 + self.random.f64() / 2.0)
    }
}

/// Turns of a fixed distance, shared by clones.
#[derive(Debug, Clone)]
pub struct Turns {
    distance: Duration,
    next: Arc<Mutex<Option<Instant>>>,
}

impl Turns {
    /// `rate` turns a second.
    ///
    /// # Panics
    /// When `rate` is 0.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        assert!(rate > 0, "without a turn nobody connects");
        Self { distance: Duration::from_secs(1) / rate, next: Arc::default() }
    }

    /// The next turn, `now` or later; it is taken then.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.distance);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the clock stands")]
    async fn turns_stand_in_line_and_none_is_saved_up() {
        let turns = Turns::new(10);
        let start = Instant::now();
        let later = |clone: &Turns, after: u64| (clone.next(start + Duration::from_millis(after)) - start).as_millis();
        assert_eq!([0, 0, 0, 150].map(|after| later(&turns.clone(), after)), [0, 100, 200, 300]);
        assert_eq!([5000, 5000].map(|after| later(&turns, after)), [5000, 5100], "idle time is not made up for");
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_success() {
        let mut pauses = Pauses::new(fastrand::Rng::with_seed(7));
        for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = pauses.next().as_secs_f64();
            let longest = f64::from(longest);
            assert!((longest / 2.0..=longest).contains(&pause), "{pause} of {longest}");
        }
        pauses.begin_anew();
        assert!(pauses.next() <= PAUSE_FIRST);
    }
}
