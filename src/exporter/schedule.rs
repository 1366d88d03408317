//! When each query runs next.
//!
//! Invariant: pure; the time and the random numbers are arguments. A query has at most one run at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// First runs are spread over at most this long.
const STAGGER_MAX: Duration = Duration::from_secs(5);
/// Shortest and longest interval taken; a manifest's check is stricter, but no interval may spin or overflow.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// How far an interval is lengthened or shortened, so that queries do not march in step.
const JITTER: f64 = 0.05;
/// The first wait after a failure that may pass by itself.
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
/// Intervals until a query that the hub refused is tried again without a new manifest.
const REFUSED_INTERVALS: u32 = 10;
/// Doublings after which a backoff grows no more; by then every allowed interval is shorter.
const DOUBLINGS_MAX: u32 = 12;

/// When to try again after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It succeeded: at the next tick.
    Succeeded,
    /// It failed in a way that the data decides: at the next tick.
    Tick,
    /// It failed in a way that may pass by itself: sooner, then less and less soon.
    Backoff,
    /// The hub refuses the query: hardly ever.
    Refused,
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Start a run of this query.
    Start(String),
    /// A run of this query still lasts; the tick is skipped.
    Skipped(String),
}

/// The next run of every query.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    interval: Duration,
    next: Instant,
    running: bool,
    failures: u32,
}

impl Schedule {
    /// Adds a query, or starts it anew: its first run is due within the stagger, at a time that its name decides.
    pub(super) fn add(&mut self, name: &str, interval: Duration, now: Instant) {
        let interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let stagger = interval.min(STAGGER_MAX);
        let millis = u64::try_from(stagger.as_millis()).expect("at most 5,000").max(1);
        let next = now + Duration::from_millis(fnv1a(name.as_bytes()) % millis);
        self.entries.insert(name.to_owned(), Entry { interval, next, running: false, failures: 0 });
    }

    /// Forgets a query.
    pub(super) fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// When something is due next.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.next).min()
    }

    /// What is due now. Whatever is started counts as running until [`Self::ended`].
    pub(super) fn due(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Vec<Due> {
        let mut due = Vec::new();
        for (name, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.next <= now) {
            let step = jittered(entry.interval, rng);
            // Ticks that passed while the machine slept are not made up for.
            entry.next = if entry.next + step > now { entry.next + step } else { now + step };
            due.push(if entry.running { Due::Skipped(name.clone()) } else { Due::Start(name.clone()) });
            entry.running = true;
        }
        due
    }

    /// A run of the query has ended.
    pub(super) fn ended(&mut self, name: &str, next: Next, now: Instant, rng: &mut fastrand::Rng) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.running = false;
        match next {
            Next::Succeeded => entry.failures = 0,
            Next::Tick => {}
            Next::Backoff => {
                let wait = BACKOFF_FIRST.saturating_mul(1 << entry.failures.min(DOUBLINGS_MAX));
                entry.failures = entry.failures.saturating_add(1);
                entry.next = now + jittered(wait.min(entry.interval), rng);
            }
            Next::Refused => entry.next = now + jittered(entry.interval.saturating_mul(REFUSED_INTERVALS), rng),
        }
    }
}

fn jittered(interval: Duration, rng: &mut fastrand::Rng) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * rng.f64() - 1.0))
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "a base to count from")]
    fn base() -> Instant {
        Instant::now()
    }

    fn started(name: &str) -> Vec<Due> {
        vec![Due::Start(name.to_owned())]
    }

    #[test]
    fn first_runs_are_spread_over_five_seconds_or_the_interval() {
        let now = base();
        for (interval, max) in [(MINUTE, STAGGER_MAX), (Duration::from_secs(1), Duration::from_secs(1))] {
            let waits: Vec<Duration> = (0..50)
                .map(|n| {
                    let mut schedule = Schedule::default();
                    schedule.add(&format!("query-{n}"), interval, now);
                    schedule.wake().unwrap() - now
                })
                .collect();
            assert!(waits.iter().all(|wait| *wait < max), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait < max / 4) && waits.iter().any(|wait| *wait > max * 3 / 4));
        }
    }

    #[test]
    fn ticks_come_every_interval_with_a_little_jitter() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut schedule = Schedule::default();
        schedule.add("a", MINUTE, base());
        let mut tick = schedule.wake().unwrap();
        assert_eq!(schedule.due(tick - Duration::from_millis(1), &mut rng), []);
        for _ in 0..100 {
            assert_eq!(schedule.due(tick, &mut rng), started("a"));
            schedule.ended("a", Next::Succeeded, tick + Duration::from_secs(3), &mut rng);
            let step = schedule.wake().unwrap() - tick;
            assert!(step >= MINUTE.mul_f64(0.95) && step <= MINUTE.mul_f64(1.05), "{step:?}");
            tick += step;
        }
    }

    #[test]
    fn a_tick_during_a_run_is_skipped() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut schedule = Schedule::default();
        schedule.add("a", MINUTE, base());
        let tick = schedule.wake().unwrap();
        assert_eq!(schedule.due(tick, &mut rng), started("a"));
        let tick = schedule.wake().unwrap();
        assert_eq!(schedule.due(tick, &mut rng), vec![Due::Skipped("a".to_owned())]);
        schedule.ended("a", Next::Succeeded, tick, &mut rng);
        let tick = schedule.wake().unwrap();
        assert_eq!(schedule.due(tick, &mut rng), started("a"));
    }

    #[test]
    fn ticks_missed_in_sleep_are_not_made_up_for() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut schedule = Schedule::default();
        schedule.add("a", MINUTE, base());
        let awake = schedule.wake().unwrap() + MINUTE * 600;
        assert_eq!(schedule.due(awake, &mut rng), started("a"));
        schedule.ended("a", Next::Succeeded, awake, &mut rng);
        assert!(schedule.wake().unwrap() > awake + MINUTE / 2);
    }

    #[test]
    fn an_interval_out_of_bounds_neither_spins_nor_overflows() {
        let mut rng = fastrand::Rng::with_seed(7);
        for interval in [Duration::ZERO, Duration::MAX] {
            let mut schedule = Schedule::default();
            schedule.add("a", interval, base());
            let tick = schedule.wake().unwrap();
            assert_eq!(schedule.due(tick, &mut rng), started("a"));
            schedule.ended("a", Next::Refused, tick, &mut rng);
            assert!(schedule.wake().unwrap() > tick + Duration::from_millis(900), "{interval:?}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_sooner_and_then_less_and_less_soon() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut schedule = Schedule::default();
        let now = base();
        schedule.add("a", MINUTE * 10, now);
        let mut wait = |schedule: &mut Schedule, next| {
            let tick = schedule.wake().unwrap();
            assert_eq!(schedule.due(tick, &mut rng), started("a"));
            schedule.ended("a", next, tick, &mut rng);
            (schedule.wake().unwrap() - tick).as_secs_f64()
        };
        let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() <= JITTER, "{found} {wanted}");
        for wanted in [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0] {
            near(wait(&mut schedule, Next::Backoff), wanted);
        }
        near(wait(&mut schedule, Next::Succeeded), 600.0);
        near(wait(&mut schedule, Next::Backoff), 30.0);
        near(wait(&mut schedule, Next::Tick), 600.0);
        near(wait(&mut schedule, Next::Refused), 6000.0);
        for _ in 0..100 {
            wait(&mut schedule, Next::Backoff);
        }
    }
}
