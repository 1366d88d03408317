//! What a sweep costs, which of the two kinds is cheaper, and how often it may be made.
//!
//! Invariant: pure arithmetic. A sweep is never made more often than its setting says; rates and messages can only
//! make it rarer.

use std::time::Duration;

use crate::twin::TwinRef;

/// Rows of one page (`iot-hub.md` 2.7).
const ROWS_PER_PAGE: usize = 100;
/// About the size of one row of a sweep, in bytes (`iot-hub.md` 6.5).
const ROW_SIZE: usize = 200;
/// About the size of a column that is read along, with its name, in bytes.
const COLUMN_SIZE: usize = 40;
/// About the size of a twin as it is read, in bytes: three sections with metadata.
const TWIN_SIZE: usize = 2000;
/// The size of a message where no tier says it, in bytes (`iot-hub.md` 6.2).
const MESSAGE_SIZE: usize = 4096;
/// The part of our messages that sweeps may use, and the part for reading untouched twins now and then.
const SWEEP_PART: f64 = 0.5;
const VERIFY_PART: f64 = 0.25;
/// A sweep may ask for pages during this part of the time between two; twin queries have the rest.
pub const BUSY_PART: f64 = 0.5;
/// Reading does not show what is sealed and not declared, so after this many sweeps by reading comes one by query.
const READS_IN_A_ROW_MAX: u32 = 10;
/// A twin that was read is read again in the last tenth of the time.
const VERIFY_SPREAD: u64 = 10;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// How a sweep finds out which twins need work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SweepMode {
    /// By the pages of a query, reading only what it nominates.
    Query,
    /// By reading every twin.
    Read,
}

impl SweepMode {
    /// The name in logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Read => "read",
        }
    }
}

/// What there is to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSize {
    /// Twins that are declared.
    pub declared: usize,
    /// Twins that carry our seal, as last seen.
    pub sealed: usize,
    /// Requests beside the pages of sealed twins: other collections, counts, nominating queries.
    pub more_pages: usize,
    /// Whether reading would tell what a query tells: nothing is nominated by a condition, and what is sealed has been
    /// listed before.
    pub readable: bool,
    /// Sweeps by reading since the last one by query.
    pub reads_in_a_row: u32,
    /// Columns that a row has for who reads along.
    pub more_columns: usize,
}

/// What may be asked of the hub; `None` where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SweepRates {
    /// Pages a second.
    pub queries_per_second: Option<f64>,
    /// Twins read a second.
    pub reads_per_second: Option<f64>,
    /// Our messages a day.
    pub messages_per_day: Option<u64>,
    /// The size of a message, in bytes.
    pub message_size: Option<usize>,
}

/// What the settings ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// Time from one sweep to the next.
    pub interval: Duration,
    /// Time within which every sealed twin is read again.
    pub verify: Duration,
}

/// What one sweep costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepCost {
    /// Time at our rate; nothing without one.
    pub time: Duration,
    /// Messages of the hub's daily quota.
    pub messages: u64,
    /// How often such a sweep may be made.
    pub interval: Duration,
}

/// How to sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepPlan {
    /// The kind that is cheaper.
    pub mode: SweepMode,
    /// What a sweep by query costs.
    pub query: SweepCost,
    /// What a sweep by reading costs.
    pub read: SweepCost,
    /// Within what time every sealed twin is read again.
    pub verify: Duration,
}

impl SweepPlan {
    /// The cost of one kind.
    #[must_use]
    pub const fn cost(&self, mode: SweepMode) -> &SweepCost {
        match mode {
            SweepMode::Query => &self.query,
            SweepMode::Read => &self.read,
        }
    }

    /// Time from one sweep to the next: the setting, or what rate and messages allow.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.cost(self.mode).interval
    }
}

/// Plans the sweeps to come: of two kinds the one that may be made more often, and of equals the one that uses fewer
/// messages. Without a rate nothing speaks against the query.
#[must_use]
pub fn plan_sweep(size: &SweepSize, rates: &SweepRates, settings: SweepSettings) -> SweepPlan {
    let message_size = rates.message_size.unwrap_or(MESSAGE_SIZE);
    let messages_of = |bytes: usize| bytes.div_ceil(message_size).max(1);
    let row_size = ROW_SIZE + size.more_columns * COLUMN_SIZE;
    let pages = size.sealed.div_ceil(ROWS_PER_PAGE).max(1) + size.more_pages;
    let page_messages = messages_of(ROWS_PER_PAGE.min(size.sealed) * row_size);
    let query_messages = size.sealed.div_ceil(ROWS_PER_PAGE).max(1) * page_messages + size.more_pages;
    let query = cost(pages, query_messages, rates.queries_per_second, rates, settings);
    let twins = size.declared.max(size.sealed);
    let twin_messages = messages_of(TWIN_SIZE);
    let read = cost(twins, twins * twin_messages, rates.reads_per_second, rates, settings);
    let limited = rates.queries_per_second.is_some();
    let cheaper = (read.interval, read.messages) < (query.interval, query.messages);
    let may_read = size.readable && size.reads_in_a_row < READS_IN_A_ROW_MAX;
    let mode = if limited && cheaper && may_read { SweepMode::Read } else { SweepMode::Query };
    SweepPlan { mode, query, read, verify: verify(size.sealed, twin_messages, rates, settings) }
}

fn cost(
    requests: usize,
    messages: usize,
    per_second: Option<f64>,
    rates: &SweepRates,
    settings: SweepSettings,
) -> SweepCost {
    let time = per_second.map_or(0.0, |rate| count(requests) / rate);
    let of_messages = rates.messages_per_day.map_or(0.0, |ours| days(messages, ours, SWEEP_PART) * SECONDS_PER_DAY);
    SweepCost {
        time: seconds(time),
        messages: u64::try_from(messages).unwrap_or(u64::MAX),
        interval: settings.interval.max(whole_seconds(time / BUSY_PART)).max(whole_seconds(of_messages)),
    }
}

fn verify(sealed: usize, twin_messages: usize, rates: &SweepRates, settings: SweepSettings) -> Duration {
    let of_messages =
        rates.messages_per_day.map_or(0.0, |ours| days(sealed * twin_messages, ours, VERIFY_PART) * SECONDS_PER_DAY);
    let of_rate = rates.reads_per_second.map_or(0.0, |rate| count(sealed) / rate / VERIFY_PART);
    settings.verify.max(whole_seconds(of_messages)).max(whole_seconds(of_rate))
}

/// Days in which a part of our messages is as many as these.
fn days(messages: usize, ours: u64, part: f64) -> f64 {
    count(messages) / (count(usize::try_from(ours).unwrap_or(usize::MAX)) * part)
}

/// The longest time between two sweeps: what is rarer is as good as never.
const INTERVAL_MAX: f64 = 365.0 * SECONDS_PER_DAY;

fn whole_seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(INTERVAL_MAX).ceil())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(INTERVAL_MAX))
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests and messages are below 2^52")]
fn count(count: usize) -> f64 {
    count as f64
}

/// Whether `twin` is to be read again at `now`, for once within each `verify`. One that this process has read at `last`
/// is due near the end of the time since then, one that it has not (it began at `started`) at a time of its own that
/// stays the same over restarts. Both times are spread by a hash of the name, so that a fleet that was written at one
/// time is not read again at one time. All in seconds since 1970.
#[must_use]
pub fn verify_is_due(twin: &TwinRef, verify: Duration, last: Option<i64>, started: i64, now: i64) -> bool {
    let (Ok(period), spread) = (i64::try_from(verify.as_secs()), name_hash(twin)) else { return false };
    if period == 0 {
        return true;
    }
    let within = |seconds: u64| i64::try_from(spread % seconds.max(1)).unwrap_or_default();
    match last {
        Some(last) => now.saturating_sub(last) >= period - within(verify.as_secs() / VERIFY_SPREAD),
        None => {
            let phase = within(verify.as_secs());
            (now - phase).div_euclid(period) > (started - phase).div_euclid(period)
        }
    }
}

/// FNV-1a, which spreads names that differ in their last digit alone.
fn name_hash(twin: &TwinRef) -> u64 {
    let module = twin.module.iter().flat_map(|module| module.as_str().bytes());
    let bytes = twin.device.as_str().bytes().chain([b'/']).chain(module);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    const SETTINGS: SweepSettings =
        SweepSettings { interval: Duration::from_secs(600), verify: Duration::from_secs(86_400) };

    fn size(twins: usize) -> SweepSize {
        SweepSize { declared: twins, sealed: twins, more_pages: 1, readable: true, reads_in_a_row: 0, more_columns: 0 }
    }

    /// Half of a tier's rates and a tenth of its messages: pages a minute, reads a second, messages a day.
    fn rates(pages: f64, reads: f64, messages: u64) -> SweepRates {
        SweepRates {
            queries_per_second: Some(pages / 60.0),
            reads_per_second: Some(reads),
            messages_per_day: Some(messages),
            message_size: Some(4096),
        }
    }

    #[test]
    fn the_cheaper_kind_is_taken_and_rate_and_messages_make_sweeps_rarer() {
        let s1 = rates(10.0, 50.0, 40_000);
        let s3 = rates(500.0, 250.0, 30_000_000);
        let along = plan_sweep(&SweepSize { more_columns: 10, ..size(1000) }, &s1, SETTINGS);
        assert_eq!(along.query.messages, 10 * 15 + 1, "600 bytes a row");
        for (twins, rates, mode, interval, query, read) in [
            // A page, a count and nothing in the way of ten minutes.
            (10, s1, SweepMode::Query, 600, (12, 2), (0, 10)),
            (1, s1, SweepMode::Read, 600, (12, 2), (0, 1)),
            (1000, s1, SweepMode::Query, 600, (66, 51), (20, 1000)),
            // 1,001 pages at ten a minute, twice: 20 times the setting.
            (100_000, s1, SweepMode::Query, 21_605, (6006, 5001), (2000, 100_000)),
            (1_000_000, s1, SweepMode::Query, 216_005, (60_006, 50_001), (20_000, 1_000_000)),
            (1_000_000, s3, SweepMode::Query, 2401, (1200, 50_001), (4000, 1_000_000)),
        ] {
            let plan = plan_sweep(&size(twins), &rates, SETTINGS);
            let cost = |cost: SweepCost| (cost.time.as_secs(), cost.messages);
            assert_eq!(plan.mode, mode, "{twins}");
            assert_eq!(plan.interval(), Duration::from_secs(interval), "{twins}");
            assert_eq!((cost(plan.query), cost(plan.read)), (query, read), "{twins}");
        }
    }

    #[test]
    fn reading_is_cheaper_where_pages_are_short_and_messages_are_not() {
        let generous = SweepRates { messages_per_day: Some(400_000), ..rates(10.0, 50.0, 0) };
        let often = SweepSettings { interval: Duration::from_secs(20), ..SETTINGS };
        let plan = plan_sweep(&size(40), &generous, often);
        assert_eq!((plan.mode, plan.interval()), (SweepMode::Read, Duration::from_secs(20)));
        assert_eq!(plan.query.interval, Duration::from_secs(24));
        let by_query =
            [SweepSize { readable: false, ..size(40) }, SweepSize { reads_in_a_row: READS_IN_A_ROW_MAX, ..size(40) }];
        for size in by_query {
            assert_eq!(plan_sweep(&size, &generous, often).mode, SweepMode::Query, "{size:?}");
        }
        let free = plan_sweep(&size(1), &SweepRates::default(), often);
        assert_eq!((free.mode, free.interval(), free.query.time), (SweepMode::Query, often.interval, Duration::ZERO));
    }

    #[test]
    fn reading_everything_again_takes_as_long_as_a_quarter_of_the_messages_says() {
        let verify = |twins, rates: &SweepRates| plan_sweep(&size(twins), rates, SETTINGS).verify.as_secs();
        let s1 = rates(10.0, 50.0, 40_000);
        assert_eq!(verify(1000, &s1), 86_400);
        assert_eq!(verify(10_000, &s1), 86_400);
        assert_eq!(verify(100_000, &s1), 864_000);
        assert_eq!(verify(1_000_000, &SweepRates::default()), 86_400);
    }

    #[test]
    fn every_twin_is_due_once_in_each_period_at_a_time_of_its_own() {
        let verify = Duration::from_secs(1000);
        let mut due_at = std::collections::BTreeMap::new();
        for number in 0..5000 {
            let twin = TwinRef::device(DeviceId::new(&format!("device-{number:05}")).unwrap());
            let (mut last, mut reads) = (None, 0);
            for now in (50_000..60_000).step_by(100) {
                if verify_is_due(&twin, verify, last, 50_000, now) {
                    assert!(now - last.unwrap_or(50_000) <= 1100, "at {now}, after {last:?}");
                    (last, reads) = (Some(now), reads + 1);
                    *due_at.entry(now).or_insert(0) += 1;
                }
            }
            assert!((9..=11).contains(&reads), "{reads}");
        }
        let (least, most) = (due_at.values().skip(1).min().unwrap(), due_at.values().max().unwrap());
        assert!(*least > 350 && *most < 800, "5,000 twins over ten sweeps: {least} to {most}");
    }
}
