//! Queue and workers of the loop: what fails, hangs or panics costs itself alone, and waits as it should.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use geminid::controller::{Ended, Options, run};
use geminid::emulator::SimHub;
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, TwinState};
use geminid::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fleet::{daemon, declared, twin, value};

const WORKERS: usize = 4;

/// What becomes of reads of one twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    None,
    Panics,
    Hangs,
    Fails,
}

/// A hub that is ill for one twin alone, and notes when that was read and how many reads went on at one time.
#[derive(Clone)]
struct Ill {
    hub: SimHub,
    twin: TwinRef,
    state: Arc<Mutex<Notes>>,
    started: Instant,
}

struct Notes {
    illness: Illness,
    reads: Vec<Duration>,
    under_way: usize,
    most: usize,
}

impl Ill {
    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    fn new(count: usize, illness: Illness) -> Self {
        let hub = SimHub::new();
        (0..count).for_each(|number| drop(hub.create(&twin(number).device).unwrap()));
        let state = Arc::new(Mutex::new(Notes { illness, reads: Vec::new(), under_way: 0, most: 0 }));
        Self { hub, twin: twin(0), state, started: Instant::now() }
    }

    fn becomes(&self, illness: Illness) {
        self.state.lock().unwrap().illness = illness;
    }

    /// When the ill twin was read.
    fn reads(&self) -> Vec<Duration> {
        self.state.lock().unwrap().reads.clone()
    }

    /// The most reads at one time.
    fn most(&self) -> usize {
        self.state.lock().unwrap().most
    }

    fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Paced for Ill {}

impl ReadTwins for Ill {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        {
            let mut notes = self.state.lock().unwrap();
            notes.under_way += 1;
            notes.most = notes.most.max(notes.under_way);
        }
        // As a hub's answer takes, so that workers meet.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let illness = {
            let mut notes = self.state.lock().unwrap();
            notes.under_way -= 1;
            if *twin != self.twin {
                Illness::None
            } else {
                let at = self.age();
                notes.reads.push(at);
                notes.illness
            }
        };
        match illness {
            Illness::None => self.hub.get_twin(twin).await,
            Illness::Panics => panic!("this twin is poison"),
            Illness::Hangs => std::future::pending().await,
            Illness::Fails => Err(HubError::Throttled { code: "ThrottlingException".to_owned(), retry_after: None }),
        }
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.hub.query_page(query, size, from).await
    }
}

impl WriteTwins for Ill {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.hub.patch_twin(twin, patch, etag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

struct Daemon {
    declared: watch::Sender<Arc<DeclaredState>>,
    registry: Registry,
    cancel: CancellationToken,
    task: JoinSet<Ended>,
}

impl Daemon {
    fn start(hub: &Ill, count: usize) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &["sim"]).unwrap();
        let (declared, receiver) = watch::channel(declared(count, 1));
        let options = Options { workers: WORKERS, ..daemon(100_000, 1_000_000) };
        let (cancel, mut task) = (CancellationToken::new(), JoinSet::new());
        let (handle, rng) = (metrics.controller.hub("sim"), fastrand::Rng::with_seed(7));
        task.spawn(run(options, hub.clone(), receiver, handle, cancel.clone(), rng));
        Self { declared, registry, cancel, task }
    }

    fn value(&self, series: &str) -> f64 {
        value(&self.registry, series)
    }

    fn in_sync(&self) -> f64 {
        self.value(r#"geminid_twins{hub="sim",state="in_sync"}"#)
    }

    async fn stop(mut self) -> Ended {
        self.cancel.cancel();
        self.task.join_next().await.unwrap().unwrap()
    }
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_reconcile_is_counted_and_costs_that_twin_alone() {
    let hub = Ill::new(20, Illness::Panics);
    let daemon = Daemon::start(&hub, 20);
    wait(60).await;
    assert_eq!((daemon.in_sync(), daemon.value(r#"geminid_twins{hub="sim",state="failed"}"#)), (19.0, 1.0));
    let panics = daemon.value(r#"geminid_task_panics_total{task="controller"}"#);
    assert!((3.0..=9.0).contains(&panics), "tried again, with longer waits each time: {panics}");
    hub.becomes(Illness::None);
    wait(600).await;
    assert_eq!(daemon.in_sync(), 20.0, "it goes on with the twin");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 20);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_shows_in_the_watchdog_and_stops_no_other() {
    let hub = Ill::new(20, Illness::Hangs);
    let daemon = Daemon::start(&hub, 20);
    wait(300).await;
    assert_eq!(daemon.in_sync(), 19.0);
    let longest = daemon.value(r#"geminid_workqueue_longest_running_processor_seconds{queue="sim"}"#);
    assert!((290.0..=300.0).contains(&longest), "{longest}");
    let unfinished = daemon.value(r#"geminid_workqueue_unfinished_work_seconds{queue="sim"}"#);
    assert!((unfinished - longest).abs() < 0.1, "one worker hangs, no other runs: {unfinished}");
    let ended = daemon.stop().await;
    assert_eq!(ended.statuses.count(TwinState::Pending), 1, "it is given up within the time to drain");
}

#[tokio::test(start_paused = true)]
async fn waits_grow_until_a_success_or_a_new_declared_state() {
    let hub = Ill::new(5, Illness::Fails);
    let daemon = Daemon::start(&hub, 5);
    wait(1_200).await;
    let gaps =
        |reads: &[Duration]| -> Vec<f64> { reads.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect() };
    let failed = gaps(&hub.reads());
    assert!(failed[0] <= 10.1 && failed.last().unwrap() >= &150.0, "{failed:?}");
    assert!(failed.len() <= 12, "{failed:?}");
    // Git changes the twin: nobody waits for the old failure.
    let (before, asked) = (hub.reads().len(), hub.age());
    daemon.declared.send(declared(5, 2)).unwrap();
    wait(1).await;
    let reads = hub.reads();
    assert!(reads.len() == before + 1 && reads[before] - asked < Duration::from_secs(1), "at once");
    wait(60).await;
    let after = gaps(&hub.reads()[before..]);
    assert!(after[0] <= 10.1, "the new state begins with the first wait: {after:?}");
    // A success begins anew, too.
    hub.becomes(Illness::None);
    wait(1_000).await;
    assert_eq!(daemon.in_sync(), 5.0);
    hub.becomes(Illness::Fails);
    let before = hub.reads().len();
    daemon.declared.send(declared(5, 3)).unwrap();
    wait(60).await;
    let again = gaps(&hub.reads()[before..]);
    assert!(again[0] <= 10.1, "{again:?}");
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_work_goes_on_at_one_time_than_there_are_workers() {
    let hub = Ill::new(60, Illness::None);
    let daemon = Daemon::start(&hub, 60);
    wait(60).await;
    assert_eq!((daemon.in_sync(), hub.most()), (60.0, WORKERS));
    daemon.stop().await;
}
