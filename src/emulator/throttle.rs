//! Throttles and the daily quota of a tier (`iot-hub.md` 6.1, 6.2 and 6.4).
//!
//! Invariant: sans I/O: the time is an argument. What goes beyond a rate waits first, each request behind the one
//! before, and is refused only when it would wait longer than [`WAIT_MAX`]; a refused request costs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::traffic::Traffic;

/// The longest a request waits for its turn before it is refused. Documents and observations say "late first, 429
/// later" and no figure; a 429 asks for a pause of 10 seconds.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// Direct methods are limited by the size of what they carry, in meters of this many bytes (`iot-hub.md` 6.1).
pub const METHOD_METER_BYTES: usize = 4096;
const SECONDS_PER_DAY: i64 = 86_400;

/// A hub's tier. Basic tiers have no twins, so they are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Free.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

impl Tier {
    /// The tier of a name such as `S1`, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let tiers = [("F1", Self::F1), ("S1", Self::S1), ("S2", Self::S2), ("S3", Self::S3)];
        tiers.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, tier)| tier)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        }
    }

    /// The most units a hub of this tier has (`iot-hub.md` 6.2).
    #[must_use]
    pub const fn units_max(self) -> u32 {
        match self {
            Self::F1 => 1,
            Self::S1 | Self::S2 => 200,
            Self::S3 => 10,
        }
    }

    /// Messages a day and unit, and how many bytes one has (`iot-hub.md` 6.2).
    const fn messages(self) -> (u64, usize) {
        match self {
            Self::F1 => (8_000, 512),
            Self::S1 => (400_000, 4096),
            Self::S2 => (6_000_000, 4096),
            Self::S3 => (300_000_000, 4096),
        }
    }

    /// How many scheduled jobs may be active at once (`iot-hub.md` 6.3).
    #[must_use]
    pub const fn active_jobs_max(self) -> usize {
        match self {
            Self::F1 | Self::S1 => 1,
            Self::S2 => 5,
            Self::S3 => 10,
        }
    }

    /// How many configurations the hub may have (`iot-hub.md` 6.3).
    #[must_use]
    pub const fn configurations_max(self) -> usize {
        match self {
            Self::F1 => 10,
            Self::S1 | Self::S2 | Self::S3 => 100,
        }
    }

    /// The rate of a kind for so many units; `None` when it has none here.
    fn rate(self, kind: Traffic, units: u32) -> Option<Rate> {
        let units = f64::from(units);
        let minute = |count: f64| Some(Rate { per_second: count * units / 60.0, burst: count * units });
        let second = |count: f64| Some(Rate { per_second: count, burst: count });
        match (kind, self) {
            (Traffic::RegistryRead | Traffic::RegistryWrite | Traffic::Jobs, Self::S3) => minute(5000.0),
            (Traffic::RegistryRead | Traffic::RegistryWrite | Traffic::Jobs, _) => minute(100.0),
            (Traffic::Query, Self::S3) => minute(1000.0),
            (Traffic::Query, _) => minute(20.0),
            (Traffic::TwinRead | Traffic::DeviceTwinRead, Self::F1 | Self::S1) => second(100.0),
            (Traffic::TwinRead | Traffic::DeviceTwinRead, Self::S2) => second(f64::max(100.0, 10.0 * units)),
            (Traffic::TwinRead | Traffic::DeviceTwinRead, Self::S3) => second(500.0 * units),
            (Traffic::TwinWrite | Traffic::Report, Self::F1 | Self::S1) => second(50.0),
            (Traffic::TwinWrite | Traffic::Report, Self::S2) => second(f64::max(50.0, 5.0 * units)),
            (Traffic::TwinWrite | Traffic::Report, Self::S3) => second(250.0 * units),
            (Traffic::Connect | Traffic::Telemetry, Self::F1 | Self::S1) => second(f64::max(100.0, 12.0 * units)),
            (Traffic::Connect | Traffic::Telemetry, Self::S2) => second(120.0 * units),
            (Traffic::Connect | Traffic::Telemetry, Self::S3) => second(6000.0 * units),
            (Traffic::JobStep, Self::F1 | Self::S1) => second(10.0),
            (Traffic::JobStep, Self::S2) => second(f64::max(10.0, units)),
            (Traffic::JobStep, Self::S3) => second(50.0 * units),
            // In meters of 4 KB: see `METHOD_METER_BYTES`.
            (Traffic::Method, Self::F1 | Self::S1) => second(40.0 * units),
            (Traffic::Method, Self::S2) => second(120.0 * units),
            (Traffic::Method, Self::S3) => second(6144.0 * units),
            (Traffic::Configurations, _) => minute(20.0),
            (Traffic::Other, _) => None,
        }
    }
}

/// How often something may happen, and how often at once after a pause: one period's worth.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out after this time.
    After(Duration),
    /// 429: it would wait too long.
    Backlog,
    /// 403: the day's messages are used up.
    Quota,
}

/// The throttles of one hub.
#[derive(Debug)]
pub struct Throttle {
    tier: Tier,
    units: u32,
    buckets: BTreeMap<Traffic, Bucket>,
    /// Days since 1970, and what was used on that day.
    day: i64,
    used: u64,
}

/// Requests that may be made at once; below zero, those that wait.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Timestamp,
}

impl Throttle {
    /// The throttles of a hub of `tier` with so many units.
    #[must_use]
    pub fn new(tier: Tier, units: u32) -> Self {
        Self { tier, units, buckets: BTreeMap::new(), day: 0, used: 0 }
    }

    /// Whether and when a request of `kind` that counts `weight` times is carried out.
    pub fn admit(&mut self, kind: Traffic, weight: u32, now: Timestamp) -> Verdict {
        if is_charged(kind) && self.used_on(now) >= self.messages_per_day() {
            return Verdict::Quota;
        }
        let Some(rate) = self.tier.rate(kind, self.units) else { return Verdict::After(Duration::ZERO) };
        let bucket = self.buckets.entry(bucket_of(kind)).or_insert(Bucket { level: rate.burst, at: now });
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.level = (bucket.level + passed * rate.per_second).min(rate.burst);
        bucket.at = bucket.at.max(now);
        let after = bucket.level - f64::from(weight);
        let wait = (-after / rate.per_second).max(0.0);
        if wait > WAIT_MAX.as_secs_f64() {
            return Verdict::Backlog;
        }
        bucket.level = after;
        Verdict::After(Duration::from_secs_f64(wait))
    }

    /// Counts the messages of a request carried out: `bytes` of its body or of its answer, whichever counts.
    pub fn charge(&mut self, kind: Traffic, bytes: usize, now: Timestamp) {
        if is_charged(kind) {
            let (_, message_bytes) = self.tier.messages();
            let messages = bytes.div_ceil(message_bytes).max(1);
            self.used = self.used_on(now).saturating_add(u64::try_from(messages).unwrap_or(u64::MAX));
        }
    }

    fn messages_per_day(&self) -> u64 {
        self.tier.messages().0 * u64::from(self.units)
    }

    /// What was used on the day of `now`; a new day begins with nothing.
    fn used_on(&mut self, now: Timestamp) -> u64 {
        let day = now.as_second().div_euclid(SECONDS_PER_DAY);
        if day > self.day {
            self.day = day;
            self.used = 0;
        }
        self.used
    }
}

/// The bucket of a kind: reads and writes of identities share one, and so do services and devices that read twins, and
/// that write them (`iot-hub.md` 6.1).
const fn bucket_of(kind: Traffic) -> Traffic {
    match kind {
        Traffic::RegistryRead | Traffic::RegistryWrite => Traffic::RegistryRead,
        Traffic::TwinRead | Traffic::DeviceTwinRead => Traffic::TwinRead,
        Traffic::TwinWrite | Traffic::Report => Traffic::TwinWrite,
        Traffic::Query
        | Traffic::Connect
        | Traffic::Telemetry
        | Traffic::Method
        | Traffic::Jobs
        | Traffic::JobStep
        | Traffic::Configurations
        | Traffic::Other => kind,
    }
}

/// Whether a kind counts as messages (`iot-hub.md` 6.2).
const fn is_charged(kind: Traffic) -> bool {
    match kind {
        Traffic::Query
        | Traffic::TwinRead
        | Traffic::TwinWrite
        | Traffic::DeviceTwinRead
        | Traffic::Report
        | Traffic::Telemetry
        | Traffic::JobStep
        | Traffic::Method => true,
        Traffic::RegistryRead
        | Traffic::RegistryWrite
        | Traffic::Connect
        | Traffic::Jobs
        | Traffic::Configurations
        | Traffic::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_millis(milliseconds)).unwrap()
    }

    /// What `count` requests at one moment get: how many at once, how many late, how many not, and the longest wait.
    fn burst(throttle: &mut Throttle, kind: Traffic, count: usize, now: Timestamp) -> (usize, usize, usize, Duration) {
        let (mut at_once, mut late, mut refused, mut longest) = (0, 0, 0, Duration::ZERO);
        for _ in 0..count {
            match throttle.admit(kind, 1, now) {
                Verdict::After(Duration::ZERO) => at_once += 1,
                Verdict::After(wait) => {
                    late += 1;
                    longest = longest.max(wait);
                }
                Verdict::Backlog => refused += 1,
                Verdict::Quota => panic!("the quota is far"),
            }
        }
        (at_once, late, refused, longest)
    }

    #[test]
    fn each_tier_has_the_rates_of_the_table() {
        use Traffic::{
            Configurations, Connect, DeviceTwinRead, JobStep, Jobs, Method, Query, RegistryRead, RegistryWrite, Report,
            Telemetry, TwinRead, TwinWrite,
        };
        for (tier, units, kind, period, count) in [
            (Tier::F1, 1, RegistryRead, 60, 100.0),
            (Tier::S1, 3, RegistryWrite, 60, 300.0),
            (Tier::S1, 1, Query, 60, 20.0),
            (Tier::S1, 10, TwinRead, 1, 100.0),
            (Tier::S1, 10, TwinWrite, 1, 50.0),
            (Tier::S2, 2, Query, 60, 40.0),
            (Tier::S2, 2, TwinRead, 1, 100.0),
            (Tier::S2, 30, TwinRead, 1, 300.0),
            (Tier::S2, 30, TwinWrite, 1, 150.0),
            (Tier::S3, 2, RegistryRead, 60, 10_000.0),
            (Tier::S3, 2, Query, 60, 2000.0),
            (Tier::S3, 2, TwinRead, 1, 1000.0),
            (Tier::S3, 2, TwinWrite, 1, 500.0),
            (Tier::S3, 2, Jobs, 60, 10_000.0),
            (Tier::S3, 2, Configurations, 60, 40.0),
            (Tier::S1, 10, DeviceTwinRead, 1, 100.0),
            (Tier::S2, 30, Report, 1, 150.0),
            (Tier::S1, 1, Connect, 1, 100.0),
            (Tier::S1, 10, Connect, 1, 120.0),
            (Tier::S2, 2, Telemetry, 1, 240.0),
            (Tier::S3, 1, Telemetry, 1, 6000.0),
            (Tier::S1, 7, JobStep, 1, 10.0),
            (Tier::S2, 12, JobStep, 1, 12.0),
            (Tier::S3, 2, JobStep, 1, 100.0),
            // 160 KB, 480 KB and 24 MB a second, in meters of 4 KB.
            (Tier::F1, 1, Method, 1, 40.0),
            (Tier::S2, 2, Method, 1, 240.0),
            (Tier::S3, 1, Method, 1, 6144.0),
        ] {
            let rate = tier.rate(kind, units).unwrap();
            assert_eq!((rate.burst, rate.per_second), (count, count / f64::from(period)), "{tier:?} {units} {kind:?}");
        }
        let jobs = [Tier::F1, Tier::S1, Tier::S2, Tier::S3].map(Tier::active_jobs_max);
        assert_eq!(jobs, [1, 1, 5, 10]);
        let configurations = [Tier::F1, Tier::S1, Tier::S2, Tier::S3].map(Tier::configurations_max);
        assert_eq!(configurations, [10, 100, 100, 100]);
        assert_eq!(Tier::named("s2"), Some(Tier::S2));
        assert_eq!(Tier::named("B1"), None);
    }

    #[test]
    fn a_burst_is_taken_then_late_then_refused_and_refills_at_the_rate() {
        let mut throttle = Throttle::new(Tier::S1, 1);
        let taken = burst(&mut throttle, Traffic::TwinWrite, 1000, at(0));
        assert_eq!(taken, (50, 500, 450, WAIT_MAX), "50 at once, 10 s of 50, then no more");
        // One second later there is room for one second more at the end of the queue.
        assert_eq!(burst(&mut throttle, Traffic::TwinWrite, 100, at(1000)), (0, 50, 50, WAIT_MAX));
        // Other kinds have their own.
        assert_eq!(burst(&mut throttle, Traffic::TwinRead, 100, at(1000)), (100, 0, 0, Duration::ZERO));
        // The queue is worked off after 10 s, and the bucket is full again a second later.
        assert_eq!(burst(&mut throttle, Traffic::TwinWrite, 51, at(12_000)).0, 50);
    }

    #[test]
    fn any_minute_behind_the_first_carries_out_what_the_rate_allows() {
        let mut throttle = Throttle::new(Tier::S1, 1);
        let mut done = Vec::new();
        for step in 0..20_000_i64 {
            let now = step * 10;
            if let Verdict::After(wait) = throttle.admit(Traffic::TwinWrite, 1, at(now)) {
                done.push(now + i64::try_from(wait.as_millis()).unwrap());
            }
        }
        for start in [60_000, 75_500, 130_000] {
            let count = done.iter().filter(|end| (start..start + 60_000).contains(*end)).count();
            assert!((2995..=3005).contains(&count), "{count} in the minute from {start} ms");
        }
    }

    #[test]
    fn bulk_counts_each_identity_in_the_bucket_of_all_identities() {
        let mut throttle = Throttle::new(Tier::S1, 1);
        assert_eq!(throttle.admit(Traffic::RegistryWrite, 50, at(0)), Verdict::After(Duration::ZERO));
        assert_eq!(throttle.admit(Traffic::RegistryRead, 50, at(0)), Verdict::After(Duration::ZERO));
        assert_eq!(throttle.admit(Traffic::RegistryWrite, 50, at(0)), Verdict::Backlog);
        assert_eq!(throttle.admit(Traffic::RegistryWrite, 10, at(0)), Verdict::After(Duration::from_secs(6)));
    }

    #[test]
    fn devices_and_services_share_the_buckets_of_twins() {
        let mut throttle = Throttle::new(Tier::S1, 1);
        assert_eq!(burst(&mut throttle, Traffic::Report, 30, at(0)).0, 30);
        assert_eq!(burst(&mut throttle, Traffic::TwinWrite, 30, at(0)).0, 20);
        assert_eq!(burst(&mut throttle, Traffic::TwinRead, 60, at(0)).0, 60);
        assert_eq!(burst(&mut throttle, Traffic::DeviceTwinRead, 60, at(0)).0, 40);
        assert_eq!(burst(&mut throttle, Traffic::Connect, 100, at(0)).0, 100, "connects have their own");
    }

    #[test]
    fn messages_are_counted_by_size_until_the_day_ends() {
        let mut throttle = Throttle::new(Tier::F1, 1);
        let noon = at(43_200_000);
        for _ in 0..3999 {
            throttle.charge(Traffic::TwinRead, 513, noon);
        }
        throttle.charge(Traffic::RegistryRead, 1_000_000, noon);
        throttle.charge(Traffic::TwinWrite, 0, noon);
        assert_eq!(throttle.admit(Traffic::TwinRead, 1, noon), Verdict::After(Duration::ZERO));
        throttle.charge(Traffic::Query, 1, noon);
        assert_eq!(throttle.admit(Traffic::TwinRead, 1, noon), Verdict::Quota);
        assert_eq!(throttle.admit(Traffic::RegistryRead, 1, noon), Verdict::After(Duration::ZERO), "not charged");
        assert_eq!(throttle.admit(Traffic::TwinRead, 1, at(86_400_000)), Verdict::After(Duration::ZERO));
    }
}
