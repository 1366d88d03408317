//! A hub that is asked no faster than our share of its tier allows (`iot-hub.md` section 6).
//!
//! Invariant: a decorator. It answers what the hub inside answers, adds no request and retries nothing; all it does is
//! wait, and refuse what would exceed our messages of the day. The handles of all lanes share one budget.

mod bucket;
mod fair;
mod pace;
mod quota;
mod tier;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use self::bucket::{Bucket, Ticket};
pub use self::fair::Turns;
use self::pace::Pace;
pub(super) use self::quota::rows_size;
use self::quota::{Quota, QuotaNews};
pub use self::tier::Tier;
use super::{Continuation, HubError, QueryPage, ReadTwins, TextPage, WriteTwins};
use crate::metrics::{BudgetHub, Label as _, Operation};
use crate::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, TwinTrace};

/// How many lanes there are.
pub const LANES: usize = 4;
/// How long nothing of an operation is sent after a 429 that names no time.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);
/// The longest time that a 429 may name.
const THROTTLED_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// What a request is made for. Lanes share by weight; what one leaves passes to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A change in Git.
    Git,
    /// Drift and retries.
    Drift,
    /// Sweeps, and seals.
    Sweep,
    /// Twin queries made into metrics.
    Query,
}

impl Lane {
    /// All lanes, in the order of their weight.
    pub const ALL: [Self; LANES] = [Self::Git, Self::Drift, Self::Sweep, Self::Query];
    /// What they weigh, in that order.
    pub const WEIGHTS: [u32; LANES] = [8, 4, 2, 1];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Git => 0,
            Self::Drift => 1,
            Self::Sweep => 2,
            Self::Query => 3,
        }
    }

    /// The part of our messages of the day with which the lane ends.
    const fn quota_part(self) -> f64 {
        match self {
            Self::Git | Self::Drift => 1.0,
            Self::Sweep => 0.9,
            Self::Query => 0.8,
        }
    }
}

/// What is ours of a hub.
#[derive(Debug, Clone, Copy)]
pub struct BudgetOptions {
    /// Tier and units; `None` asks without any limit.
    pub tier: Option<(Tier, u32)>,
    /// The part of the hub's rates, more than 0 and at most 1.
    pub share: f64,
    /// The part of the hub's messages a day, more than 0 and at most 1.
    pub quota_share: f64,
    /// The wall clock, by which days begin.
    pub wall_clock: fn() -> SystemTime,
}

/// What a budget allows now, for who plans ahead.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Allowance {
    /// Pages of queries a second; `None` without a limit.
    pub queries_per_second: Option<f64>,
    /// Twins read a second; `None` without a limit.
    pub reads_per_second: Option<f64>,
    /// Twins written a second; `None` without a limit.
    pub writes_per_second: Option<f64>,
    /// Devices registered a second; `None` without a limit.
    pub creates_per_second: Option<f64>,
    /// Messages a day that are ours; `None` without a limit.
    pub messages_per_day: Option<u64>,
    /// Those of the day that are spent, as estimated.
    pub messages_used: u64,
    /// Bytes of one message; `None` where messages do not count.
    pub message_size: Option<usize>,
}

/// A hub whose requests may be made for different reasons. Without a budget a lane makes no difference.
pub trait Paced: Clone {
    /// The same hub, asked in `lane`.
    #[must_use]
    fn in_lane(&self, _lane: Lane) -> Self {
        self.clone()
    }

    /// What may be asked of it.
    fn allowance(&self) -> Allowance {
        Allowance::default()
    }
}

/// Asks the hub inside at the pace of a [`HubBudget`], in one lane.
#[derive(Debug)]
pub struct Budgeted<H> {
    inner: Arc<H>,
    budget: HubBudget,
    lane: Lane,
}

impl<H> Clone for Budgeted<H> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), budget: self.budget.clone(), lane: self.lane }
    }
}

impl<H> Paced for Budgeted<H> {
    fn in_lane(&self, lane: Lane) -> Self {
        Self { lane, ..self.clone() }
    }

    fn allowance(&self) -> Allowance {
        self.budget.allowance()
    }
}

impl<H> Budgeted<H> {
    /// Asks `inner` in the lane of changes in Git.
    #[must_use]
    pub fn new(inner: H, budget: HubBudget) -> Self {
        Self { inner: Arc::new(inner), budget, lane: Lane::Git }
    }

    /// The budget.
    #[must_use]
    pub const fn budget(&self) -> &HubBudget {
        &self.budget
    }

    async fn paced<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, HubError>>,
        size: impl FnOnce(&T) -> usize,
    ) -> Result<T, HubError> {
        self.budget.admit(operation, self.lane).await?;
        let sent = self.budget.now();
        let answer = request.await;
        let size = answer.as_ref().map_or(0, size);
        self.budget.answered(operation, sent, answer.as_ref().err(), size);
        answer
    }
}

impl<H: WriteTwins> Budgeted<H> {
    async fn patched<T>(
        &self,
        patch: &MergePatch,
        request: impl Future<Output = Result<T, HubError>>,
    ) -> Result<T, HubError> {
        let size = quota::patch_size(patch);
        let after = self.paced(Operation::Patch, request, |_| size).await?;
        if patch.desired.is_some() {
            // The device is told, if it is there to be told.
            self.budget.notified(size);
        }
        Ok(after)
    }
}

impl<H: ReadTwins> ReadTwins for Budgeted<H> {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.paced(Operation::Get, self.inner.get_twin(twin), quota::twin_size).await
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        let request = self.inner.query_page(query, page_size, from);
        self.paced(Operation::Query, request, |page| rows_size(&page.rows)).await
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        let request = self.inner.text_page(query, columns, page_size, from);
        self.paced(Operation::Query, request, |page| page.rows.body_size()).await
    }
}

impl<H: WriteTwins> WriteTwins for Budgeted<H> {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.patched(patch, self.inner.patch_twin(twin, patch, etag)).await
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        let request = self.inner.patch_twin_for_trace(twin, patch, etag, tag);
        self.patched(patch, request).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.paced(Operation::Create, self.inner.create_device(device), |()| 0).await
    }
}

/// What is ours of one hub. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct HubBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: String,
    options: BudgetOptions,
    started: Instant,
    metrics: BudgetHub,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None without a tier.
    operations: BTreeMap<Operation, Paces>,
    quota: Quota,
}

/// One operation.
#[derive(Debug)]
struct Paces {
    bucket: Bucket,
    pace: Pace,
    waiting: BTreeMap<Ticket, Arc<Notify>>,
}

impl Paces {
    /// Gives what there is and wakes who got it.
    fn give(&mut self, now: Duration) {
        for ticket in self.bucket.give(now) {
            if let Some(waiter) = self.waiting.get(&ticket) {
                waiter.notify_one();
            }
        }
    }
}

impl HubBudget {
    /// The budget of the hub of this name in logs.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one clock of the budget; everything below takes ages")]
    pub fn new(hub: &str, options: BudgetOptions, metrics: BudgetHub) -> Self {
        let operations = options.tier.map_or_else(BTreeMap::new, |(tier, units)| {
            let paces = |operation: &Operation| {
                let mut rate = tier.rate(*operation, units);
                rate.per_second *= options.share;
                let (bucket, pace) = (Bucket::new(rate, Duration::ZERO), Pace::new(Duration::ZERO));
                (*operation, Paces { bucket, pace, waiting: BTreeMap::new() })
            };
            Operation::ALL.iter().map(paces).collect()
        });
        let limit =
            options.tier.map(|(tier, units)| quota::part(tier.messages_per_day(units), options.quota_share).max(1));
        let state = Mutex::new(State { operations, quota: Quota::new(limit) });
        let budget = Self(Arc::new(Shared { hub: hub.to_owned(), options, started: Instant::now(), metrics, state }));
        budget.publish();
        budget
    }

    /// What it allows now.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let now = self.unix_seconds();
        let mut state = self.state();
        let messages_used = state.quota.used(now);
        let rate = |operation| state.operations.get(&operation).map(|paces| paces.bucket.per_second());
        Allowance {
            queries_per_second: rate(Operation::Query),
            reads_per_second: rate(Operation::Get),
            writes_per_second: rate(Operation::Patch),
            creates_per_second: rate(Operation::Create),
            messages_per_day: state.quota.limit(),
            messages_used,
            message_size: self.0.options.tier.map(|(tier, _)| tier.message_size()),
        }
    }

    /// Our messages of the day so far, as estimated.
    #[must_use]
    pub fn messages_used(&self) -> u64 {
        let now = self.unix_seconds();
        self.state().quota.used(now)
    }

    /// Writes what can be had at once, and the messages used, into the metrics: both change with time alone.
    pub fn publish(&self) {
        let now = self.now();
        let messages = self.messages_used();
        for (operation, paces) in &mut self.state().operations {
            self.0.metrics.set_tokens(*operation, paces.bucket.tokens(now));
        }
        self.0.metrics.set_messages(messages);
    }

    /// Waits for its turn.
    async fn admit(&self, operation: Operation, lane: Lane) -> Result<(), HubError> {
        if is_charged(operation) {
            let now = self.unix_seconds();
            let admitted = self.state().quota.admits(lane, now);
            if let Err(news) = admitted {
                self.tell(news);
                return Err(HubError::QuotaShare);
            }
        }
        let asked = self.now();
        let Some(place) = self.stand_in_line(operation, lane) else { return Ok(()) };
        while let Some(wait) = place.wait() {
            tokio::select! {
                () = place.waiter.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.0.metrics.waited(operation, self.now().saturating_sub(asked));
        Ok(())
    }

    fn stand_in_line(&self, operation: Operation, lane: Lane) -> Option<Place<'_>> {
        let mut state = self.state();
        let paces = state.operations.get_mut(&operation)?;
        let ticket = paces.bucket.ask(lane);
        let waiter = Arc::new(Notify::new());
        paces.waiting.insert(ticket, Arc::clone(&waiter));
        Some(Place { budget: self, operation, ticket, waiter })
    }

    /// Takes in how a request that was sent at `sent` ended.
    fn answered(&self, operation: Operation, sent: Duration, error: Option<&HubError>, size: usize) {
        let now = self.now();
        if let Some(paces) = self.state().operations.get_mut(&operation) {
            match error {
                Some(HubError::Throttled { retry_after, .. }) => {
                    paces.pace.throttled(now);
                    let pause = retry_after.unwrap_or(THROTTLED_PAUSE).min(THROTTLED_PAUSE_MAX);
                    paces.bucket.block(now + pause, now);
                }
                // Nothing came from the hub: it says nothing of its throttles.
                Some(HubError::Transport { timeout: false, .. }) => {}
                Some(_) | None => paces.pace.answered(now.saturating_sub(sent), now),
            }
            paces.bucket.set_factor(paces.pace.factor(), now);
            paces.give(now);
            self.0.metrics.set_tokens(operation, paces.bucket.tokens(now));
        }
        let counts = matches!(error, None | Some(HubError::PreconditionFailed | HubError::NotFound(_)));
        if counts && is_charged(operation) {
            self.charge(size);
        }
    }

    fn notified(&self, size: usize) {
        self.charge(size);
    }

    fn charge(&self, size: usize) {
        let now = self.unix_seconds();
        let message_size = self.0.options.tier.map_or(4096, |(tier, _)| tier.message_size());
        let (news, used) = {
            let mut state = self.state();
            (state.quota.charge(quota::messages(size, message_size), now), state.quota.used(now))
        };
        self.0.metrics.set_messages(used);
        self.tell(news);
    }

    fn tell(&self, news: Option<QuotaNews>) {
        let hub = &self.0.hub;
        let ours = self.state().quota.limit().unwrap_or_default();
        match news {
            None => {}
            Some(QuotaNews::Low) => {
                tracing::warn!(%hub, ours, "most of our messages of the day are used; raise quota_share or units");
            }
            Some(QuotaNews::Spent(lane)) => {
                let what = match lane {
                    Lane::Git | Lane::Drift => "nothing is asked of the hub",
                    Lane::Sweep => "sweeps wait",
                    Lane::Query => "twin queries wait",
                };
                tracing::warn!(%hub, ours, "our messages of the day are used, {what} until 00:00 UTC; raise quota_share or units");
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        (self.0.options.wall_clock)().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Counts stay good when somebody panics while holding them.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line; who leaves it, whether served or not, gives it free.
struct Place<'b> {
    budget: &'b HubBudget,
    operation: Operation,
    ticket: Ticket,
    waiter: Arc<Notify>,
}

impl Place<'_> {
    /// The time to wait before asking again; `None` once it is our turn.
    fn wait(&self) -> Option<Duration> {
        let now = self.budget.now();
        let mut state = self.budget.state();
        let paces = state.operations.get_mut(&self.operation)?;
        paces.give(now);
        if paces.bucket.take(self.ticket) {
            return None;
        }
        Some(paces.bucket.wait_of(self.ticket, now))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = self.budget.now();
        if let Some(paces) = self.budget.state().operations.get_mut(&self.operation) {
            paces.bucket.withdraw(self.ticket);
            paces.waiting.remove(&self.ticket);
            paces.give(now);
        }
    }
}

/// Whether the hub counts an operation as messages (`iot-hub.md` 6.2).
const fn is_charged(operation: Operation) -> bool {
    match operation {
        Operation::Query | Operation::Get | Operation::Patch => true,
        Operation::Create => false,
    }
}
