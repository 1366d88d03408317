//! The manifests of one hub: load, tell, hand on; again at every hint.
//!
//! Invariants: a load that was begun is taken in by whoever asks next, however often the asking is broken off. All loads
//! of a hub are made by one thread, which lasts: what a load allocates is freed elsewhere, bit by bit, and its room goes
//! to the next load of the same thread alone. By a thread a load, as many states of the fleet stayed in memory as
//! threads lasted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::connect::system_time;
use crate::manifest::{Diagnostic, Rules, Severity};
use crate::metrics::{ManifestKind, ManifestState, SourceHub};
use crate::series::QuerySpec;
use crate::source::{Hint, LoadError, Loader, Snapshot, WatchOptions, Watcher};

/// Loads a source whenever it may have changed, and says what is new about it.
pub(super) struct Source {
    hub: String,
    /// What to load next, for the thread that loads.
    hints: mpsc::Sender<Hint>,
    /// What it loaded.
    loads: mpsc::Receiver<Result<Snapshot, LoadError>>,
    /// The thread that loads; it ends with this.
    loading: JoinHandle<()>,
    /// Whether a load was begun and not taken in.
    under_way: bool,
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
        let (hints, asked) = mpsc::channel(1);
        let (answer, loads) = mpsc::channel(1);
        let loader = Loader::new(root.clone()).within(rules);
        Self {
            hub: hub.to_owned(),
            hints,
            loads,
            loading: spawn_blocking(move || load(loader, asked, &answer)),
            under_way: false,
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
            if !self.under_way {
                let hint = self.watcher.changed().await;
                self.begin(hint);
            }
            let result = match self.loads.recv().await {
                Some(result) => result,
                None => self.panicked().await,
            };
            self.under_way = false;
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

    /// Begins a load on the thread that may block.
    fn begin(&mut self, hint: Hint) {
        self.hints.try_send(hint).expect("the thread waits for a hint: no load is under way");
        self.under_way = true;
    }

    /// The thread that loads has ended by itself, which only a panic makes it do.
    async fn panicked(&mut self) -> ! {
        match (&mut self.loading).await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            ended => unreachable!("the thread lasts as long as there are hints: {ended:?}"),
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
        let counts = &snapshot.counts;
        for (kind, counted) in [
            (ManifestKind::DeviceTwin, counts.devices),
            (ManifestKind::ModuleTwin, counts.modules),
            (ManifestKind::TwinProfile, counts.profiles),
            (ManifestKind::TwinQuery, counts.queries),
        ] {
            self.metrics.set_manifests(kind, ManifestState::Valid, counted.valid);
            self.metrics.set_manifests(kind, ManifestState::Invalid, counted.invalid);
            self.metrics.set_manifests(kind, ManifestState::Suspended, counted.suspended);
        }
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

/// Loads at every hint, until nobody gives any.
fn load(mut loader: Loader, mut hints: mpsc::Receiver<Hint>, answer: &mpsc::Sender<Result<Snapshot, LoadError>>) {
    while let Some(hint) = hints.blocking_recv() {
        if answer.blocking_send(loader.reload(&hint)).is_err() {
            return;
        }
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
            assert!(!source.loading.is_finished(), "one thread makes all loads");
        }
    }

    #[tokio::test]
    async fn a_broken_manifest_of_any_kind_is_counted_as_invalid() {
        let twin = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1}\n";
        let module = "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m1}\nspec: {device: d2}\n";
        let profile = "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: p1}\nspec:\n  target: devices\n  \
                       selector: {devices: ['*']}\n  tags: {a: 1}\n";
        // A file, what it is at first, what becomes of it, and the kinds it counts under as broken.
        for (good, broken, kind) in [
            (twin, "kind: [", "DeviceTwin"),
            // Nobody was named here before, so no twin is concerned.
            ("", "kind: [", "TwinQuery"),
            (twin, &format!("{twin}unknown: 1\n"), "DeviceTwin"),
            (module, &format!("{module}unknown: 1\n"), "ModuleTwin"),
            (profile, &format!("{profile}unknown: 1\n"), "TwinProfile"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("a.yaml");
            std::fs::write(folder.path().join("b.yaml"), twin.replace("d1", "d2")).unwrap();
            std::fs::write(&file, good).unwrap();
            let registry = prometheus::Registry::new();
            let metrics = Metrics::register(&registry, &["h"]).unwrap();
            let mut source = Source::new("h", folder.path().to_owned(), Rules::default(), metrics.source.hub("h"));
            let invalid = || {
                let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
                let is_broken = |line: &&str| line.contains(r#"state="invalid"} "#) && !line.ends_with(" 0");
                text.lines().filter(is_broken).map(str::to_owned).collect::<Vec<_>>()
            };
            source.begin(Hint::Whole);
            source.next().await;
            assert_eq!(invalid(), Vec::<String>::new(), "{good}");
            std::fs::write(&file, broken).unwrap();
            source.begin(Hint::Whole);
            source.next().await;
            assert_eq!(invalid(), [format!(r#"geminid_manifests{{kind="{kind}",state="invalid"}} 1"#)], "{broken}");
        }
    }
}
