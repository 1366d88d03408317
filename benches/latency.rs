//! From a file saved to the patch at the hub: `cargo bench --bench latency [COUNT [SAVES]]`.
//!
//! 10,000 manifests, a file each, in a plain folder; the hub is in this process, so the figure is geminid's own. One
//! save in two replaces the file by rename, as editors do. What is printed is the time beyond the debounce.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and starts its tasks")]

mod machine;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use geminid::controller::{self, Options};
use geminid::emulator::SimHub;
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, Owner, Policy, SealScope};
use geminid::source::{Loader, WatchOptions, Watcher};
use geminid::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

const COUNT: usize = 10_000;
const SAVES: usize = 200;
const TARGET_MS: f64 = 100.0;

/// A hub that says when a patch took effect.
#[derive(Clone)]
struct Watched {
    hub: SimHub,
    patched: mpsc::UnboundedSender<(TwinRef, Instant)>,
}

impl Paced for Watched {}

impl ReadTwins for Watched {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, q: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.hub.query_page(q, size, from).await
    }
}

impl WriteTwins for Watched {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        let result = self.hub.patch_twin(twin, patch, etag).await;
        if result.is_ok() {
            self.patched.send((twin.clone(), Instant::now())).unwrap();
        }
        result
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let count = arguments.first().copied().unwrap_or(COUNT);
    let saves = arguments.get(1).copied().unwrap_or(SAVES);
    let folder = tempfile::tempdir().unwrap();
    for index in 0..count {
        fs::create_dir_all(folder.path().join(group(index))).unwrap();
        fs::write(folder.path().join(place(index)), manifest(index, 0)).unwrap();
    }
    let (patched, mut patches) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let tasks = start(folder.path(), Watched { hub: SimHub::new(), patched }, &cancel).await;
    for _ in 0..count {
        patches.recv().await.unwrap();
    }
    let mut beyond_ms = Vec::new();
    for save in 0..saves {
        let index = save * 7919 % count;
        let path = folder.path().join(place(index));
        if save % 2 == 0 {
            fs::write(&path, manifest(index, save + 1)).unwrap();
        } else {
            let draft = path.with_extension("tmp");
            fs::write(&draft, manifest(index, save + 1)).unwrap();
            fs::rename(&draft, &path).unwrap();
        }
        let saved = Instant::now();
        let (twin, at) = patches.recv().await.unwrap();
        assert_eq!(twin.to_string(), id(index));
        let beyond = (at - saved).saturating_sub(WatchOptions::default().debounce);
        beyond_ms.push(beyond.as_secs_f64() * 1_000.0);
    }
    cancel.cancel();
    tasks.join_all().await;
    beyond_ms.sort_by(f64::total_cmp);
    let at = |percent: usize| beyond_ms[(saves * percent / 100).min(saves - 1)];
    println!("{}", machine::machine());
    println!("{count} manifests, {saves} saves: file saved to patch at the hub, beyond the debounce of 200 ms");
    println!("  p50 {:.1} ms   p99 {:.1} ms (target < {TARGET_MS} ms)   most {:.1} ms", at(50), at(99), at(100));
}

/// Loads `folder`, and keeps `hub` as it says until cancelled.
async fn start(folder: &Path, hub: Watched, cancel: &CancellationToken) -> JoinSet<()> {
    let mut watcher = Watcher::new(folder.to_owned(), WatchOptions::default());
    let mut loader = Loader::new(folder.to_owned());
    let hint = watcher.changed().await;
    let first = loader.reload(&hint).unwrap();
    let (sender, receiver) = watch::channel(first.state);
    let mut tasks = JoinSet::new();
    let (token, metrics) = (cancel.clone(), Metrics::register(&Registry::new(), &["sim"]).unwrap());
    tasks.spawn(async move {
        let random = fastrand::Rng::with_seed(1);
        controller::run(options(), hub, receiver, metrics.controller.hub("sim"), token, random).await;
    });
    let token = cancel.clone();
    tasks.spawn(async move {
        token.run_until_cancelled(follow(watcher, loader, sender)).await;
    });
    tasks
}

/// Hands on what each hint brings.
async fn follow(mut watcher: Watcher, mut loader: Loader, sender: watch::Sender<Arc<DeclaredState>>) {
    loop {
        let hint = watcher.changed().await;
        let (back, result) = spawn_blocking(move || {
            let result = loader.reload(&hint);
            (loader, result)
        })
        .await
        .unwrap();
        loader = back;
        let state = result.unwrap().state;
        sender.send_if_modified(|known| {
            let news = *known != state;
            *known = state;
            news
        });
    }
}

fn options() -> Options {
    Options {
        hub: "sim".to_owned(),
        scope: SealScope::new(Owner::new("bench").unwrap(), "sim"),
        sweep: Duration::from_secs(3600),
        verify: Duration::from_secs(24 * 3600),
        policy: Policy::default(),
        workers: 32,
        single_pass: false,
        first_contact: CancellationToken::new(),
        audit: controller::AuditLog::off(),
        journal: controller::Journal::default(),
        wall_clock: || SystemTime::UNIX_EPOCH,
    }
}

fn id(index: usize) -> String {
    format!("device-{index:07}")
}

fn group(index: usize) -> String {
    format!("group-{:04}", index / 100)
}

fn place(index: usize) -> String {
    format!("{}/{index}.yaml", group(index))
}

fn manifest(index: usize, value: usize) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: {}\nspec:\n  create: true\n  tags:\n    \
         location: {{region: US, plant: Redmond{}}}\n    serial: SN-{index:07}\n  properties:\n    desired:\n      \
         power_level: {value}\n      telemetry: {{interval_s: 60}}\n",
        id(index),
        index % 50,
    )
}
