//! The queries of one hub: specs, schedule, last good series and health.
//!
//! Invariant: pure; the time and the random numbers are arguments. Every snapshot in here is the whole answer of one
//! good run, and no two of them hold the same series.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::along::swept_query;
use super::health::{Health, QueryHealth, render_health};
use super::published::{HubView, Snapshot};
use super::read::{Progress, RunFailure};
use super::rendered::Rendered;
use super::schedule::{Due, Next, Schedule, fnv1a};
use crate::series::{Evaluate, FamilyText, LocalQuery, QuerySpec, first_duplicate};

/// Sweeps that may be missed, and the time beyond, until the series of a query that they answer are withdrawn; at most
/// a day (`metrics.md` section 4).
const SWEEPS_MISSED: u32 = 3;
const SWEEP_SLACK: Duration = Duration::from_secs(60);
const STALE_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Names one run; never used twice.
pub(super) type RunId = u64;

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) progress: Progress,
    pub(super) result: Result<Rendered, RunFailure>,
    /// When the run ended.
    pub(super) at: Instant,
    /// The same moment on the wall clock.
    pub(super) wall: SystemTime,
    /// How long it took.
    pub(super) took: Duration,
}

/// What the end of a run means to the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// As before, or a query that is gone.
    None,
    /// The query fails now, or in another way than before.
    Fails(String, RunFailure),
    /// The query failed and succeeds again.
    Recovered(String),
}

/// The queries of one hub.
#[derive(Debug)]
pub(super) struct HubQueries {
    hub: String,
    queries: BTreeMap<String, Query>,
    schedule: Schedule,
    runs: RunId,
    /// The time from one sweep to the next; nothing before the first.
    sweep: Duration,
}

#[derive(Debug)]
struct Query {
    spec: Arc<QuerySpec>,
    revision: String,
    interval: Duration,
    stale_after: Duration,
    running: Option<RunId>,
    good: Option<Good>,
    /// Why the last finished run failed.
    failing: Option<&'static str>,
    health: Health,
}

/// The last good run.
#[derive(Debug)]
struct Good {
    snapshot: Snapshot,
    at: Instant,
}

impl Query {
    fn new(spec: &QuerySpec, sweep: Duration) -> Self {
        let (interval, stale_after) = pace(spec, sweep);
        Self {
            spec: Arc::new(spec.clone()),
            revision: revision(spec),
            interval,
            stale_after,
            running: None,
            good: None,
            failing: None,
            health: Health::default(),
        }
    }

    /// When the series are withdrawn unless a run succeeds before; never while the last run was good. A query that
    /// waits for sweeps may wait for ever without a failure, so its series are withdrawn by their age alone.
    fn stale_at(&self) -> Option<Instant> {
        let good = self.good.as_ref()?;
        let waits = swept_query(&self.spec).is_some() && !self.stale_after.is_zero();
        if self.failing.is_none() && !waits {
            return None;
        }
        good.at.checked_add(self.stale_after)
    }
}

impl HubQueries {
    pub(super) fn new(hub: &str) -> Self {
        Self {
            hub: hub.to_owned(),
            queries: BTreeMap::new(),
            schedule: Schedule::default(),
            runs: 0,
            sweep: Duration::ZERO,
        }
    }

    /// Takes the queries now declared. Unchanged ones keep everything; changed ones start anew; others are dropped.
    /// Returns the runs whose answer nobody waits for any more. Of two queries with one name the first counts.
    pub(super) fn reload(&mut self, specs: &[QuerySpec], now: Instant) -> Vec<RunId> {
        let mut before = std::mem::take(&mut self.queries);
        for spec in specs {
            if self.queries.contains_key(&spec.name) {
                continue;
            }
            match before.remove(&spec.name) {
                Some(unchanged) if *unchanged.spec == *spec => {
                    self.queries.insert(spec.name.clone(), unchanged);
                }
                changed => {
                    before.extend(changed.map(|query| (spec.name.clone(), query)));
                    if spec.suspend || swept_query(spec).is_some() {
                        self.schedule.remove(&spec.name);
                    } else {
                        self.schedule.add(&spec.name, spec.interval, now);
                    }
                    self.queries.insert(spec.name.clone(), Query::new(spec, self.sweep));
                }
            }
        }
        for name in before.keys().filter(|name| !self.queries.contains_key(*name)) {
            self.schedule.remove(name);
        }
        before.into_values().filter_map(|query| query.running).collect()
    }

    /// When there is something to do next.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.queries.values().filter_map(Query::stale_at).chain(self.schedule.wake()).min()
    }

    /// Withdraws what is stale, and returns the runs to start.
    pub(super) fn due(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Vec<(RunId, Arc<QuerySpec>)> {
        for query in self.queries.values_mut().filter(|query| query.stale_at().is_some_and(|at| at <= now)) {
            query.good = None;
            query.health.series = 0;
        }
        let mut starts = Vec::new();
        for due in self.schedule.due(now, rng) {
            let (Due::Start(name) | Due::Skipped(name)) = &due;
            let Some(query) = self.queries.get_mut(name) else { continue };
            match due {
                Due::Start(_) => {
                    self.runs += 1;
                    query.running = Some(self.runs);
                    query.health.runs += 1;
                    starts.push((self.runs, Arc::clone(&query.spec)));
                }
                Due::Skipped(_) => *query.health.failures.entry("skipped").or_default() += 1,
            }
        }
        starts
    }

    /// A sweep begins, with this time until the next one: the runs of the queries that it answers. `answers` says which.
    pub(super) fn sweep_began(
        &mut self,
        interval: Duration,
        answers: impl Fn(&LocalQuery) -> bool,
    ) -> Vec<(RunId, Arc<QuerySpec>)> {
        self.sweep = interval;
        let mut starts = Vec::new();
        for query in self.queries.values_mut().filter(|query| !query.spec.suspend) {
            let Some(swept) = swept_query(&query.spec) else { continue };
            if answers(swept) {
                self.runs += 1;
                query.running = Some(self.runs);
                query.health.runs += 1;
                starts.push((self.runs, Arc::clone(&query.spec)));
            }
            (query.interval, query.stale_after) = pace(&query.spec, interval);
        }
        starts
    }

    /// Takes the end of a run. Nothing happens when its query is gone or was started anew.
    pub(super) fn ended(&mut self, run: RunId, ended: Ended, rng: &mut fastrand::Rng) -> News {
        let Some(name) =
            self.queries.iter().find(|(_, query)| query.running == Some(run)).map(|(name, _)| name.clone())
        else {
            return News::None;
        };
        let rendered =
            ended.result.and_then(|rendered| self.check_unique(&name, &rendered.snapshot).map(|()| rendered));
        let query = self.queries.get_mut(&name).expect("found above");
        query.running = None;
        query.health.last_duration = ended.took;
        query.health.last_rows = ended.progress.rows;
        query.health.last_pages = ended.progress.pages;
        match rendered {
            Ok(Rendered { snapshot, dropped, series }) => {
                query.health.up = true;
                query.health.last_success =
                    ended.wall.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
                query.health.series = series;
                for (reason, rows) in dropped {
                    *query.health.dropped.entry(reason).or_default() += rows;
                }
                query.good = Some(Good { snapshot, at: ended.at });
                self.schedule.ended(&name, Next::Succeeded, ended.at, rng);
                query.failing.take().map_or(News::None, |_| News::Recovered(name))
            }
            Err(failure) => {
                query.health.up = false;
                *query.health.failures.entry(failure.category()).or_default() += 1;
                self.schedule.ended(&name, failure.next(), ended.at, rng);
                let before = query.failing.replace(failure.category());
                if before == query.failing { News::None } else { News::Fails(name, failure) }
            }
        }
    }

    /// What the hub publishes now.
    pub(super) fn view(&self) -> HubView {
        let health: Vec<QueryHealth<'_>> = self
            .queries
            .iter()
            .map(|(name, query)| QueryHealth {
                name,
                revision: &query.revision,
                interval: query.interval,
                stale_after: query.stale_after,
                suspended: query.spec.suspend,
                health: &query.health,
            })
            .collect();
        let snapshots = self.queries.values().filter_map(|query| query.good.as_ref());
        let mut view: HubView = snapshots.map(|good| Arc::clone(&good.snapshot)).collect();
        view.push(render_health(&self.hub, &health).into());
        view
    }

    /// Refuses series that stand in another query's snapshot; that they differ among themselves is known.
    fn check_unique(&self, name: &str, snapshot: &Snapshot) -> Result<(), RunFailure> {
        let named = |families: &Snapshot, name: &str| families.iter().any(|family| family.name() == name);
        let others = || {
            let others = self.queries.iter().filter(|(other, _)| *other != name);
            others.filter_map(|(_, query)| query.good.as_ref()).map(|good| &good.snapshot)
        };
        let theirs = others().flat_map(|other| other.iter()).filter(|family| named(snapshot, family.name()));
        let own = snapshot.iter().filter(|family| others().any(|other| named(other, family.name())));
        let families: Vec<&FamilyText> = theirs.chain(own).collect();
        first_duplicate(families).map_or(Ok(()), |series| Err(RunFailure::Duplicate(series)))
    }
}

/// The time from one run to the next and the age at which series are withdrawn, when sweeps come in this interval.
fn pace(spec: &QuerySpec, sweep: Duration) -> (Duration, Duration) {
    match &spec.evaluate {
        Evaluate::Hub => (spec.interval, spec.stale_after),
        Evaluate::Sweep { stale_after, .. } => {
            (sweep, stale_after.unwrap_or((SWEEPS_MISSED * sweep + SWEEP_SLACK).min(STALE_AFTER_MAX)))
        }
    }
}

/// The short hash that names a spec; equal specs have equal ones.
fn revision(spec: &QuerySpec) -> String {
    let mut text = String::new();
    write!(text, "{spec:?}").expect("writing to a String does not fail");
    format!("{:012x}", fnv1a(text.as_bytes()) >> 16)
}
