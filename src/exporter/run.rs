//! The exporter of one hub: a thin loop around its queries.
//!
//! Invariant: one closed set of events; nothing in here decides anything. Runs are awaited tasks, and ended with the
//! exporter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::along::{SweptRuns, failure_of};
use super::published::Published;
use super::read::{Progress, RunFailure, read};
use super::rendered::Rendered;
use super::state::{Ended, HubQueries, News, RunId};
use crate::hub::{ReadTwins, SweepNews};
use crate::metrics::{ProcessMetrics, Task};
use crate::series::QuerySpec;

/// What an exporter follows.
#[derive(Debug)]
pub struct Inputs {
    /// The declared queries; holds loaded ones from the start.
    pub queries: watch::Receiver<Arc<Vec<QuerySpec>>>,
    /// What the hub's sweeps read, for the queries that they answer; `None` where nobody sweeps.
    pub along: Option<mpsc::Receiver<SweepNews>>,
}

impl From<watch::Receiver<Arc<Vec<QuerySpec>>>> for Inputs {
    fn from(queries: watch::Receiver<Arc<Vec<QuerySpec>>>) -> Self {
        Self { queries, along: None }
    }
}

/// Runs a hub's queries, each on its own schedule or with the sweeps, and publishes what they give, until `cancel` is
/// cancelled. Whenever the queries change, unchanged ones keep schedule and series.
pub async fn run<H: ReadTwins + Clone + 'static>(
    hub_name: String,
    hub: H,
    inputs: impl Into<Inputs>,
    published: Published,
    metrics: ProcessMetrics,
    cancel: CancellationToken,
    mut rng: fastrand::Rng,
) {
    let Inputs { mut queries, mut along } = inputs.into();
    let mut state = HubQueries::new(&hub_name);
    let mut swept = None;
    let mut runs = Runs { hub: hub_name.clone(), tasks: JoinSet::new(), handles: BTreeMap::new(), metrics };
    let specs = Arc::clone(&queries.borrow_and_update());
    state.reload(&specs, now());
    let (mut reloads, mut news) = (true, true);
    loop {
        // A page of a sweep is nothing that anybody could see.
        if news {
            for (run, spec) in state.due(now(), &mut rng) {
                runs.start(run, hub.clone(), spec, rng.fork());
            }
            published.swap(&hub_name, state.view());
        }
        news = true;
        let wake = state.wake();
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            changed = queries.changed(), if reloads => match changed {
                Ok(()) => {
                    let specs = Arc::clone(&queries.borrow_and_update());
                    runs.abort(&state.reload(&specs, now()));
                }
                // Nobody can change the queries any more; those there are go on.
                Err(_) => reloads = false,
            },
            Some((run, ended)) = runs.next() => tell(&hub_name, state.ended(run, ended, &mut rng)),
            () = tokio::time::sleep_until(wake.unwrap_or_else(now)), if wake.is_some() => {}
            told = next_news(&mut along) => news = runs.take(told, &mut swept, &mut state, &mut rng),
        }
    }
    runs.tasks.shutdown().await;
}

/// What a sweep says next; never, once nobody sweeps any more.
async fn next_news(along: &mut Option<mpsc::Receiver<SweepNews>>) -> SweepNews {
    if let Some(line) = along
        && let Some(news) = line.recv().await
    {
        return news;
    }
    *along = None;
    std::future::pending().await
}

/// The runs that last.
struct Runs {
    hub: String,
    tasks: JoinSet<(RunId, Ended)>,
    handles: BTreeMap<RunId, AbortHandle>,
    metrics: ProcessMetrics,
}

impl Runs {
    fn start<H: ReadTwins + 'static>(&mut self, run: RunId, hub: H, spec: Arc<QuerySpec>, mut rng: fastrand::Rng) {
        let name = self.hub.clone();
        let handle = self.tasks.spawn(async move {
            let start = now();
            let (progress, result) = read(&hub, &spec, &mut rng).await;
            let result = match result {
                Ok(mapped) => tokio::task::spawn_blocking(move || Rendered::new(mapped, &name))
                    .await
                    .unwrap_or(Err(RunFailure::Panic)),
                Err(failure) => Err(failure),
            };
            let at = now();
            (run, Ended { progress, result, at, wall: wall_clock(), took: at - start })
        });
        self.handles.insert(run, handle);
    }

    /// Takes what a sweep says; whether anybody could see a difference.
    fn take(
        &mut self,
        news: SweepNews,
        swept: &mut Option<SweptRuns>,
        state: &mut HubQueries,
        rng: &mut fastrand::Rng,
    ) -> bool {
        match news {
            SweepNews::Page { modules, rows } => {
                if let Some(swept) = swept {
                    (0..swept.page(modules, &rows)).for_each(|_| self.metrics.panicked(Task::Exporter));
                }
                return false;
            }
            SweepNews::Began { columns, interval } => {
                // The sweep before ended without a word: it panicked.
                self.fail(swept.take(), &RunFailure::Panic, state, rng);
                let mut began = SweptRuns::new(columns, now());
                for (run, spec) in state.sweep_began(interval, |query| began.can_answer(query)) {
                    began.start(run, &spec);
                }
                *swept = Some(began);
            }
            SweepNews::Complete => {
                if let Some(swept) = swept.take() {
                    self.finish(swept);
                }
            }
            SweepNews::Failed(error) => self.fail(swept.take(), &failure_of(error), state, rng),
        }
        true
    }

    fn finish(&mut self, swept: SweptRuns) {
        let began = swept.began;
        for (run, finish) in swept.finish(&self.hub) {
            let handle = self.tasks.spawn(async move {
                let panicked = |_| (Progress::default(), Err(RunFailure::Panic));
                let (progress, result) = tokio::task::spawn_blocking(finish).await.unwrap_or_else(panicked);
                let at = now();
                (run, Ended { progress, result, at, wall: wall_clock(), took: at - began })
            });
            self.handles.insert(run, handle);
        }
    }

    fn fail(&self, swept: Option<SweptRuns>, failure: &RunFailure, state: &mut HubQueries, rng: &mut fastrand::Rng) {
        let Some(swept) = swept else { return };
        let took = now() - swept.began;
        for (run, failure) in swept.fail(failure) {
            let (progress, result) = (Progress::default(), Err(failure));
            tell(&self.hub, state.ended(run, Ended { progress, result, at: now(), wall: wall_clock(), took }, rng));
        }
    }

    fn abort(&mut self, runs: &[RunId]) {
        for handle in runs.iter().filter_map(|run| self.handles.remove(run)) {
            handle.abort();
        }
    }

    /// The next end of a run that was not aborted; `None` while none lasts.
    async fn next(&mut self) -> Option<(RunId, Ended)> {
        loop {
            match self.tasks.join_next().await? {
                Ok((run, ended)) => {
                    // A run that ended before it could be aborted is told as well; its query is gone by then.
                    self.handles.remove(&run);
                    return Some((run, ended));
                }
                Err(error) => {
                    if let Some(run) = self.panicked(&error) {
                        let result = Err(RunFailure::Panic);
                        let took = std::time::Duration::ZERO;
                        let ended =
                            Ended { progress: Progress::default(), result, at: now(), wall: wall_clock(), took };
                        return Some((run, ended));
                    }
                }
            }
        }
    }

    fn panicked(&mut self, error: &JoinError) -> Option<RunId> {
        let run = self.handles.iter().find(|(_, handle)| handle.id() == error.id()).map(|(run, _)| *run)?;
        self.handles.remove(&run);
        self.metrics.panicked(Task::Exporter);
        Some(run)
    }
}

fn tell(hub: &str, news: News) {
    match news {
        News::None => {}
        // A hub that is away or refuses the credential fails every query alike. Who reconciles it says so, once.
        News::Fails(query, failure) if failure.is_of_hub() => {
            tracing::debug!(hub, query, reason = failure.category(), "failed to run a twin query: {failure}");
        }
        News::Fails(query, failure) => {
            tracing::warn!(hub, query, reason = failure.category(), "failed to run a twin query: {failure}");
        }
        News::Recovered(query) => tracing::info!(hub, query, "the twin query succeeds again"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the thin loop reads the clock for the parts that get it as an argument")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the thin loop reads the clock for the parts that get it as an argument")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
