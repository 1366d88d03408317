//! One run of one query: all pages, or a failure.
//!
//! Invariant: a page's rows are mapped and dropped before the next page is asked for; pages, rows, series and time are
//! bounded by the query's own limits. A throttled page is asked for again within the run's time; nothing else is.

use std::time::Duration;

use super::schedule::Next;
use crate::hub::{HubError, PageError, Pages, ReadTwins};
use crate::series::{Aggregator, MapFailure, Mapped, OnExceed, QuerySpec};
use crate::twin::Value;

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
    #[error("the query answers more than {0} pages (limits.maxPages); narrow its WHERE, or raise it")]
    Pages(usize),
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
    let mut pages = Pages::new(hub, &spec.query, spec.page_size, spec.limits.max_pages);
    loop {
        let rows = match read_page(&mut pages, rng, progress).await {
            None => break,
            Some(Ok(rows)) => rows,
            Some(Err(PageError::TooMany(_))) if spec.limits.on_exceed == OnExceed::Truncate => {
                aggregator.truncated();
                break;
            }
            Some(Err(PageError::TooMany(pages))) => return Err(RunFailure::Pages(pages)),
            Some(Err(PageError::Hub(error))) => return Err(error.into()),
        };
        progress.pages = pages.pages_read();
        for row in &rows {
            aggregator.push(row)?;
            progress.rows += 1;
        }
        if aggregator.is_full() && spec.limits.on_exceed == OnExceed::Truncate && !pages.is_complete() {
            aggregator.truncated();
            break;
        }
    }
    Ok(aggregator.finish()?)
}

/// Reads one page, waiting for as long as the hub throttles; the run's time-out ends that.
async fn read_page<H: ReadTwins>(
    pages: &mut Pages<'_, H>,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
) -> Option<Result<Vec<Value>, PageError>> {
    let mut throttled = 0;
    loop {
        progress.throttled = false;
        match pages.next().await {
            Some(Err(PageError::Hub(HubError::Throttled { retry_after, .. }))) => {
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
