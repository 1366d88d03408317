//! Whether the hub answers, and how long everybody waits while it does not.
//!
//! Invariant: while the hub is away one worker at a time asks, and it is said once, not once a twin.

use std::time::Duration;

use super::backoff::jittered;

const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The hub as the last answers, or their absence, showed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HubHealth {
    failures: u32,
    paused_until: Duration,
    /// Until when the day's messages are used up.
    no_messages_until: Duration,
}

impl HubHealth {
    /// The hub could not be reached, or refuses our credential. Answers whether that is news.
    pub(super) fn failed(&mut self, now: Duration, rng: &mut fastrand::Rng) -> bool {
        // Requests that were under way together fail together; they are one failure.
        if now < self.paused_until {
            return false;
        }
        self.failures += 1;
        self.paused_until = now + jittered(PAUSE_FIRST, PAUSE_MAX, self.failures, rng);
        self.failures == 1
    }

    /// The hub answered. Answers whether that is news.
    pub(super) fn answered(&mut self) -> bool {
        let news = self.failures > 0;
        *self = Self { no_messages_until: self.no_messages_until, ..Self::default() };
        news
    }

    /// Whether the hub is known to be away.
    pub(super) fn is_down(&self) -> bool {
        self.failures > 0
    }

    /// When the hub may be asked again.
    pub(super) fn paused_until(&self) -> Duration {
        self.paused_until.max(self.no_messages_until)
    }

    /// The hub answers nobody before `until`: its messages of the day are used up. Answers whether that is news.
    pub(super) fn pause_for_the_day(&mut self, until: Duration, now: Duration) -> bool {
        let news = now >= self.no_messages_until;
        self.no_messages_until = self.no_messages_until.max(until);
        news
    }

    /// How many requests may be under way at `now`, of at most `workers`.
    pub(super) fn workers(&self, now: Duration, workers: usize) -> usize {
        if now < self.no_messages_until {
            return 0;
        }
        match (self.is_down(), now < self.paused_until) {
            (false, _) => workers,
            (true, true) => 0,
            (true, false) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_is_away_is_asked_by_one_worker_after_a_growing_pause() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut health = HubHealth::default();
        assert_eq!(health.workers(Duration::ZERO, 8), 8);
        assert!(health.failed(Duration::ZERO, &mut rng));
        assert!(!health.failed(Duration::ZERO, &mut rng));
        assert_eq!(health.workers(Duration::ZERO, 8), 0);
        let mut now = health.paused_until();
        assert_eq!(health.workers(now, 8), 1);
        for _ in 0..20 {
            assert!(!health.failed(now, &mut rng));
            let pause = health.paused_until() - now;
            assert!(pause >= PAUSE_FIRST / 2 && pause <= PAUSE_MAX);
            now = health.paused_until();
        }
        assert!(health.answered() && !health.answered());
        assert_eq!(health.workers(now, 8), 8);
    }

    #[test]
    fn a_hub_without_messages_is_asked_by_nobody_until_the_day_ends() {
        let at = Duration::from_secs;
        let mut health = HubHealth::default();
        assert!(health.pause_for_the_day(at(100), at(10)));
        assert!(!health.pause_for_the_day(at(100), at(11)), "others that were under way hear the same");
        // What was under way when it began is answered still.
        assert!(!health.answered());
        assert_eq!((health.workers(at(99), 8), health.paused_until()), (0, at(100)));
        assert_eq!(health.workers(at(100), 8), 8);
        assert!(health.pause_for_the_day(at(900), at(100)));
    }
}
