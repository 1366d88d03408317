//! The manifests of one hub: load, tell, hand on; again at every hint.
//!
//! Invariant: a load that was begun is taken in by whoever asks next, however often the asking is broken off.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::connect::system_time;
use crate::manifest::{Diagnostic, Rules, Severity};
use crate::metrics::{ManifestKind, ManifestState, SourceHub};
use crate::plan::FileSpan;
use crate::series::QuerySpec;
use crate::source::{Hint, LoadError, Loader, Snapshot, WatchOptions, Watcher};

/// Loads a source whenever it may have changed, and says what is new about it.
pub(super) struct Source {
    hub: String,
    /// Here, or with the load under way.
    loader: Option<Loader>,
    loading: Option<JoinHandle<(Loader, Result<Snapshot, LoadError>)>>,
    watcher: Watcher,
    metrics: SourceHub,
    /// What was said already, so that a lasting problem is said once.
    told: BTreeSet<String>,
    failing: Option<String>,
    /// Whether there is a good state that can stay.
    has_loaded: bool,
}

impl Source {
    pub(super) fn new(hub: &str, root: PathBuf, rules: Rules, metrics: SourceHub) -> Self {
        Self {
            hub: hub.to_owned(),
            loader: Some(Loader::new(root.clone()).within(rules)),
            loading: None,
            watcher: Watcher::new(root, WatchOptions::default()),
            metrics,
            told: BTreeSet::new(),
            failing: None,
            has_loaded: false,
        }
    }

    /// The next revision that could be loaded. A failed load is told and waited out: the last good state stays.
    /// Dropping the future at any await loses nothing: the next call waits for the same load.
    pub(super) async fn next(&mut self) -> Snapshot {
        loop {
            if self.loading.is_none() {
                let hint = self.watcher.changed().await;
                self.begin(hint);
            }
            let loading = self.loading.as_mut().expect("a load is under way: one was begun above");
            let (loader, result) = match loading.await {
                Ok(loaded) => loaded,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            self.loading = None;
            self.loader = Some(loader);
            match result {
                Ok(snapshot) => {
                    self.watcher.loaded();
                    self.loaded(&snapshot);
                    self.has_loaded = true;
                    return snapshot;
                }
                Err(error) => {
                    self.watcher.load_failed();
                    self.failed(&error.to_string(), error.category());
                }
            }
        }
    }

    /// Begins a load on a thread that may block.
    fn begin(&mut self, hint: Hint) {
        let mut loader = self.loader.take().expect("the loader is back: no load is under way");
        self.loading = Some(spawn_blocking(move || {
            let result = loader.reload(&hint);
            (loader, result)
        }));
    }

    fn loaded(&mut self, snapshot: &Snapshot) {
        let hub = &self.hub;
        if self.failing.take().is_some() {
            tracing::info!(%hub, revision = %snapshot.revision, "manifests can be loaded again");
        }
        let lines: BTreeSet<String> = snapshot.diagnostics.iter().map(ToString::to_string).collect();
        for diagnostic in &snapshot.diagnostics {
            if !self.told.contains(&diagnostic.to_string()) {
                tell(hub, diagnostic);
            }
        }
        self.told = lines;
        self.metrics.reloaded(&snapshot.revision, system_time());
        let frozen = &snapshot.state.frozen;
        let broken_twins = frozen.kept.len() + frozen.held.len();
        let valid_twins = snapshot.state.twins.len() - frozen.kept.len();
        self.metrics.set_manifests(ManifestKind::DeviceTwin, ManifestState::Valid, valid_twins);
        self.metrics.set_manifests(ManifestKind::DeviceTwin, ManifestState::Invalid, broken_twins);
        let suspended = snapshot.queries.iter().filter(|query| query.spec.suspend).count();
        self.metrics.set_manifests(ManifestKind::TwinQuery, ManifestState::Valid, snapshot.queries.len() - suspended);
        self.metrics.set_manifests(ManifestKind::TwinQuery, ManifestState::Suspended, suspended);
        // What is broken and about no twin is about a query; what it is about cannot always be told.
        let twins: BTreeSet<&FileSpan> =
            frozen.kept.values().chain(frozen.held.values()).chain(&frozen.unknown).collect();
        let broken_queries = frozen.broken.iter().filter(|place| !twins.contains(place)).count();
        self.metrics.set_manifests(ManifestKind::TwinQuery, ManifestState::Invalid, broken_queries);
    }

    fn failed(&mut self, message: &str, reason: &'static str) {
        let hub = &self.hub;
        if self.failing.as_deref() != Some(message) {
            let meanwhile =
                if self.has_loaded { "the last good state stays" } else { "nothing is done until they can be" };
            tracing::error!(%hub, reason, "failed to load manifests, {meanwhile}: {message}");
        }
        self.failing = Some(message.to_owned());
        self.metrics.reload_failed();
    }
}

fn tell(hub: &str, diagnostic: &Diagnostic) {
    match diagnostic.severity {
        Severity::Error => tracing::error!(%hub, "{diagnostic}"),
        Severity::Warning => tracing::warn!(%hub, "{diagnostic}"),
    }
}

/// The queries of a snapshot as the exporter takes them.
pub(super) fn specs(snapshot: &Snapshot) -> Arc<Vec<QuerySpec>> {
    Arc::new(snapshot.queries.iter().map(|query| query.spec.clone()).collect())
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_load_broken_off_half_way_is_taken_in_by_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), "# none\n").unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new(), &["h"]).unwrap();
        let mut source = Source::new("h", folder.path().to_owned(), Rules::default(), metrics.source.hub("h"));
        for _ in 0..3 {
            source.begin(Hint::Whole);
            let broken_off = {
                let mut next = pin!(source.next());
                poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
            };
            let snapshot = match broken_off {
                Poll::Ready(snapshot) => snapshot,
                Poll::Pending => source.next().await,
            };
            assert_eq!(snapshot.files, 1);
        }
    }
}
