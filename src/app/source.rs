//! The manifests of one hub: load, tell, hand on; again at every hint.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::connect::system_time;
use crate::manifest::{Diagnostic, Severity};
use crate::metrics::{ManifestKind, ManifestState, SourceHub};
use crate::series::QuerySpec;
use crate::source::{Loader, Snapshot, WatchOptions, Watcher};

/// Loads a source whenever it may have changed, and says what is new about it.
pub(super) struct Source {
    hub: String,
    loader: Option<Loader>,
    watcher: Watcher,
    metrics: SourceHub,
    /// What was said already, so that a lasting problem is said once.
    told: BTreeSet<String>,
    failing: Option<String>,
}

impl Source {
    pub(super) fn new(hub: &str, root: PathBuf, metrics: SourceHub) -> Self {
        Self {
            hub: hub.to_owned(),
            loader: Some(Loader::new(root.clone())),
            watcher: Watcher::new(root, WatchOptions::default()),
            metrics,
            told: BTreeSet::new(),
            failing: None,
        }
    }

    /// The next revision that could be loaded. A failed load is told and waited out: the last good state stays.
    /// Dropping the future between two calls loses nothing but the load under way.
    pub(super) async fn next(&mut self) -> Snapshot {
        loop {
            self.watcher.changed().await;
            let Some(mut loader) = self.loader.take() else {
                // Only a load that was dropped half-way takes the loader with it, and then nobody asks again.
                std::future::pending::<()>().await;
                continue;
            };
            let loaded = spawn_blocking(move || {
                let result = loader.load();
                (loader, result)
            });
            let (loader, result) = match loaded.await {
                Ok(loaded) => loaded,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            self.loader = Some(loader);
            match result {
                Ok(snapshot) => {
                    self.loaded(&snapshot);
                    return snapshot;
                }
                Err(error) => self.failed(&error.to_string(), error.category()),
            }
        }
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
        self.metrics.set_manifests(ManifestKind::TwinQuery, ManifestState::Valid, snapshot.queries.len());
    }

    fn failed(&mut self, message: &str, reason: &'static str) {
        let hub = &self.hub;
        if self.failing.as_deref() != Some(message) {
            tracing::error!(%hub, reason, "failed to load manifests, the last good state stays: {message}");
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
