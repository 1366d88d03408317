//! One run of one query: all pages, or a failure.
//!
//! Invariant: a page's rows are mapped and dropped before the next page is asked for; pages, rows, series and time are
//! bounded by the query's own limits. A throttled page is asked for again within the run's time; nothing else is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::schedule::Next;
use crate::hub::{Continuation, HubError, PAGE_SIZE_MAX, QueryPage, ReadTwins};
use crate::series::{Aggregator, MapFailure, Mapped, QuerySpec};

/// Doublings after which the wait for a throttled hub grows no more: about a minute.
const THROTTLE_DOUBLINGS_MAX: u32 = 6;

/// The shortest wait for a throttled hub, so that neither chance nor a hint of nothing makes a burst of requests.
const THROTTLE_WAIT_MIN: Duration = Duration::from_millis(100);

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RunFailure {
    /// The hub did not answer a page.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The rows exceed a limit.
    #[error(transparent)]
    Map(#[from] MapFailure),
    /// There are more pages than the query's limit.
    #[error("the query answers more than {0} pages (limits.maxPages)")]
    Pages(usize),
    /// The hub gave a continuation a second time: the pages would never end.
    #[error("the hub repeated a continuation after {0} pages")]
    Repeated(usize),
    /// The whole run took longer than the query allows.
    #[error("the run took longer than {0:?} (timeout)")]
    Timeout(Duration),
    /// The hub throttled the run until its time was up.
    #[error("the hub throttled the query until the run's {0:?} were over (timeout)")]
    Throttled(Duration),
    /// Another query of the hub gives the same series.
    #[error("another query gives the series {0} as well")]
    Duplicate(String),
    /// The run ended by a panic.
    #[error("the run ended by a panic")]
    Panic,
}

impl RunFailure {
    /// The metric label and log field (`metrics.md` section 7, `reason`).
    pub(super) const fn category(&self) -> &'static str {
        match self {
            Self::Hub(error) => error.category(),
            Self::Map(failure) => failure.category(),
            Self::Pages(_) => "limit",
            Self::Repeated(_) => "server",
            Self::Timeout(_) => "timeout",
            Self::Throttled(_) => "throttled",
            Self::Duplicate(_) => "duplicate",
            Self::Panic => "other",
        }
    }

    /// Whether the hub as a whole is away or refuses the credential; a time-out may be the query's own fault.
    pub(super) const fn is_of_hub(&self) -> bool {
        matches!(self, Self::Hub(HubError::Transport { timeout: false, .. } | HubError::Unauthorized { .. }))
    }

    /// When to try again (`metrics.md` section 6).
    pub(super) const fn next(&self) -> Next {
        match self {
            Self::Hub(HubError::Rejected { .. }) => Next::Refused,
            Self::Hub(
                HubError::Server { .. }
                | HubError::Transport { .. }
                | HubError::Unauthorized { .. }
                | HubError::Throttled { .. },
            )
            | Self::Repeated(_)
            | Self::Timeout(_)
            | Self::Throttled(_) => Next::Backoff,
            Self::Hub(
                HubError::PreconditionFailed
                | HubError::NotFound(_)
                | HubError::AlreadyExists(_)
                | HubError::Quota
                | HubError::QuotaShare,
            )
            | Self::Map(_)
            | Self::Pages(_)
            | Self::Duplicate(_)
            | Self::Panic => Next::Tick,
        }
    }
}

/// How far a run came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Pages read.
    pub(super) pages: usize,
    /// Rows read.
    pub(super) rows: usize,
    /// Whether the run waits because the hub throttles it.
    pub(super) throttled: bool,
}

/// Runs a query once. Says how far it came also when it fails.
pub(super) async fn read<H: ReadTwins>(
    hub: &H,
    spec: &QuerySpec,
    rng: &mut fastrand::Rng,
) -> (Progress, Result<Mapped, RunFailure>) {
    let mut progress = Progress::default();
    let pages = read_pages(hub, spec, rng, &mut progress);
    let result = match tokio::time::timeout(spec.timeout, pages).await {
        Ok(result) => result,
        Err(_) if progress.throttled => Err(RunFailure::Throttled(spec.timeout)),
        Err(_) => Err(RunFailure::Timeout(spec.timeout)),
    };
    (progress, result)
}

async fn read_pages<H: ReadTwins>(
    hub: &H,
    spec: &QuerySpec,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
) -> Result<Mapped, RunFailure> {
    let mut aggregator = Aggregator::new(spec)?;
    let mut seen = BTreeSet::new();
    let mut from = None;
    loop {
        let page = read_page(hub, spec, from.as_ref(), rng, progress).await?;
        progress.pages += 1;
        for row in &page.rows {
            aggregator.push(row)?;
            progress.rows += 1;
        }
        let Some(next) = page.next else { return Ok(aggregator.finish()?) };
        if progress.pages >= spec.limits.max_pages {
            return Err(RunFailure::Pages(spec.limits.max_pages));
        }
        if !seen.insert(next.0.clone()) {
            return Err(RunFailure::Repeated(progress.pages));
        }
        from = Some(next);
    }
}

/// Reads one page, waiting for as long as the hub throttles; the run's time-out ends that.
async fn read_page<H: ReadTwins>(
    hub: &H,
    spec: &QuerySpec,
    from: Option<&Continuation>,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
) -> Result<QueryPage, HubError> {
    let page_size = spec.page_size.clamp(1, PAGE_SIZE_MAX);
    let mut throttled = 0;
    loop {
        progress.throttled = false;
        match hub.query_page(&spec.query, page_size, from).await {
            Err(HubError::Throttled { retry_after, .. }) => {
                progress.throttled = true;
                let wait = retry_after.unwrap_or_else(|| throttle_wait(throttled, rng));
                tokio::time::sleep(wait.max(THROTTLE_WAIT_MIN)).await;
                throttled = (throttled + 1).min(THROTTLE_DOUBLINGS_MAX);
            }
            answer => return answer,
        }
    }
}

/// Up to 2^k seconds, anywhere in between.
fn throttle_wait(throttled: u32, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_secs(1 << throttled).mul_f64(rng.f64())
}
