//! The series about the queries themselves (`metrics.md` section 7, `geminid_query_*`).
//!
//! Invariant: they stand for every loaded query, also for one that never succeeded or whose series were withdrawn. A
//! suspended query has its info alone: it is neither up nor late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::PREFIX;
use crate::series::{Dropped, Family, FamilyText, Kind, LabelSet, render};

/// Every reason of `geminid_query_failures_total` that a run can have here.
pub(super) const REASONS: [&str; 16] = [
    "throttled",
    "unauthorized",
    "not_found",
    "conflict",
    "invalid",
    "timeout",
    "network",
    "server",
    "quota",
    "missing_column",
    "duplicate",
    "limit",
    "invalid_row",
    "empty",
    "skipped",
    "other",
];

/// What is counted about one query since it was loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    pub(super) up: bool,
    pub(super) last_success: f64,
    pub(super) runs: u64,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) last_duration: Duration,
    pub(super) last_rows: usize,
    pub(super) last_pages: usize,
    pub(super) series: usize,
    pub(super) dropped: BTreeMap<Dropped, u64>,
}

/// One query as the health series tell of it.
pub(super) struct QueryHealth<'a> {
    pub(super) name: &'a str,
    pub(super) revision: &'a str,
    pub(super) interval: Duration,
    pub(super) stale_after: Duration,
    /// It has no runs, so only its info stands.
    pub(super) suspended: bool,
    pub(super) health: &'a Health,
}

type Value = fn(&QueryHealth<'_>) -> f64;

/// Name without prefix, type, help, value: the families with one series a query.
const PER_QUERY: [(&str, Kind, &str, Value); 9] = [
    ("up", Kind::Gauge, "1 when the last finished run of the query succeeded.", |query| {
        f64::from(u8::from(query.health.up))
    }),
    (
        "last_success_timestamp_seconds",
        Kind::Gauge,
        "Unix time at which the last good run of the query ended; 0 before the first.",
        |query| query.health.last_success,
    ),
    ("stale_after_seconds", Kind::Gauge, "Age after which the series of a failing query are withdrawn.", |query| {
        query.stale_after.as_secs_f64()
    }),
    ("interval_seconds", Kind::Gauge, "Time from one run of the query to the next.", |query| {
        query.interval.as_secs_f64()
    }),
    ("runs_total", Kind::Counter, "Runs of the query that were started.", |query| as_value(query.health.runs)),
    ("last_duration_seconds", Kind::Gauge, "Time the last run of the query took.", |query| {
        query.health.last_duration.as_secs_f64()
    }),
    ("last_rows", Kind::Gauge, "Rows the last run of the query read.", |query| as_count(query.health.last_rows)),
    ("last_pages", Kind::Gauge, "Pages the last run of the query read.", |query| as_count(query.health.last_pages)),
    ("series", Kind::Gauge, "Series the query has in the exposition.", |query| as_count(query.health.series)),
];

/// Renders the health of all queries of a hub.
pub(super) fn render_health(hub: &str, queries: &[QueryHealth<'_>]) -> Vec<FamilyText> {
    let info = queries.iter().map(|query| (vec![("query", query.name), ("revision", query.revision)], 1.0));
    let info = family("info", Kind::Gauge, "1 for every loaded query; the revision names its manifest.", info);
    let queries: Vec<&QueryHealth<'_>> = queries.iter().filter(|query| !query.suspended).collect();
    let mut families: Vec<Family> = PER_QUERY
        .iter()
        .map(|(name, kind, help, value)| {
            let samples = queries.iter().map(|query| (vec![("query", query.name)], value(query)));
            family(name, *kind, help, samples)
        })
        .collect();
    families.push(info);
    let failures = queries.iter().flat_map(|query| {
        REASONS.iter().map(|reason| {
            let count = query.health.failures.get(reason).copied().unwrap_or_default();
            (vec![("query", query.name), ("reason", *reason)], as_value(count))
        })
    });
    families.push(family("failures_total", Kind::Counter, "Runs of the query that gave nothing, by reason.", failures));
    let dropped = queries.iter().flat_map(|query| {
        Dropped::ALL.iter().map(|reason| {
            let count = query.health.dropped.get(reason).copied().unwrap_or_default();
            (vec![("query", query.name), ("reason", reason.as_str())], as_value(count))
        })
    });
    families.push(family(
        "dropped_rows_total",
        Kind::Counter,
        "Rows of good runs that a metric of the query could not count, by reason.",
        dropped,
    ));
    families.iter().map(|family| render(family, hub)).collect()
}

fn family<'a>(
    name: &str,
    kind: Kind,
    help: &str,
    samples: impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> Family {
    let mut family = Family::new(&format!("{PREFIX}query_{name}"), kind, help).expect("the names above are valid");
    for (labels, value) in samples {
        family.set(LabelSet::new(labels).expect("the label names above are valid"), value);
    }
    family
}

#[expect(clippy::cast_precision_loss, reason = "counts of what a process did stay below 2^53")]
fn as_value(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of what a process holds stay below 2^53")]
fn as_count(count: usize) -> f64 {
    count as f64
}
