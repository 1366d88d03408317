//! The reconcile loop on a hub without a socket: stopped at each of its await points, given faults and rivals, it
//! converges from the live twins alone and writes nothing that was not needed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{Ended, Options, run};
use geminid::emulator::{Applied, Fault, SimHub, SimOperation};
use geminid::hub::HubError;
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, FileSpan, GuardLimits, Owner, Policy, SealScope, TwinManifest, TwinState, Wanted};
use geminid::twin::{DeviceId, MergePatch, Object, Section, TwinRef, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn manifest(tags: &str, desired: &str) -> Arc<TwinManifest> {
    Arc::new(TwinManifest {
        wanted: Wanted { tags: object(tags), desired: object(desired), ..Wanted::default() }.into(),
        create: true,
        ..TwinManifest::empty(FileSpan { file: "fleet.yaml".into(), line: 1, column: 1 })
    })
}

fn declared(twins: &[(&str, &str, &str)]) -> Arc<DeclaredState> {
    let twins =
        twins.iter().map(|(id, tags, desired)| (TwinRef::device(device(id)), manifest(tags, desired))).collect();
    Arc::new(DeclaredState { revision: "r1".to_owned(), twins, ..DeclaredState::default() })
}

fn options(workers: usize, single_pass: bool) -> Options {
    Options {
        hub: "sim".to_owned(),
        scope: SealScope::new(Owner::new("demo").unwrap(), "sim"),
        sweep: Duration::from_secs(600),
        verify: Duration::from_secs(24 * 3600),
        policy: Policy { guards: GuardLimits { creates: 1.0, ..GuardLimits::default() }, ..Policy::default() },
        workers,
        single_pass,
        first_contact: CancellationToken::new(),
        audit: geminid::controller::AuditLog::off(),
        journal: geminid::controller::Journal::default(),
        wall_clock: || SystemTime::UNIX_EPOCH,
    }
}

async fn pass(hub: &SimHub, state: &Arc<DeclaredState>, workers: usize) -> Ended {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry, &["sim"]).unwrap();
    let (_sender, receiver) = watch::channel(Arc::clone(state));
    let rng = fastrand::Rng::with_seed(7);
    run(options(workers, true), hub.clone(), receiver, metrics.controller.hub("sim"), CancellationToken::new(), rng)
        .await
}

/// One device to create, one that drifted, one as declared but never sealed, one that needs nothing.
async fn scenario() -> (SimHub, Arc<DeclaredState>) {
    let hub = SimHub::new();
    for id in ["drifted", "equal", "quiet"] {
        hub.create(&device(id)).unwrap();
    }
    let quiet = declared(&[("quiet", r#"{"a":1}"#, r#"{"b":2}"#)]);
    pass(&hub, &quiet, 1).await;
    hub.edit(&device("drifted"), &patch(r#"{"location":{"plant":"elsewhere"},"theirs":7}"#, r#"{"x":1}"#)).unwrap();
    hub.edit(&device("equal"), &patch(r#"{"a":1}"#, "{}")).unwrap();
    let state = declared(&[
        ("drifted", r#"{"location":{"plant":"Redmond43"}}"#, r#"{"power_level":1}"#),
        ("equal", r#"{"a":1}"#, "{}"),
        ("new", r#"{"a":1}"#, r#"{"b":{"c":[1,2]}}"#),
        ("quiet", r#"{"a":1}"#, r#"{"b":2}"#),
    ]);
    (hub, state)
}

fn patch(tags: &str, desired: &str) -> MergePatch {
    let section = |json: &str| Some(object(json)).filter(|object| !object.is_empty());
    MergePatch { tags: section(tags), desired: section(desired) }
}

fn assert_converged(hub: &SimHub, state: &DeclaredState) {
    for (twin, manifest) in state.twins.iter() {
        let live = hub.twin(&twin.device).unwrap();
        let wanted = manifest.wanted.unpack();
        for (section, wanted) in [(Section::Tags, &wanted.tags), (Section::Desired, &wanted.desired)] {
            let mut after = live.section(section).clone();
            after.remove("geminid");
            let theirs: Object = [("theirs", Value::from(7)), ("x", Value::from(1))]
                .into_iter()
                .filter(|(key, _)| after.contains_key(*key) && !wanted.contains_key(*key))
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            let expected: Object = wanted.clone().into_iter().chain(theirs).collect();
            assert_eq!(Value::Object(after), Value::Object(expected), "{twin} {section:?}");
        }
        assert!(live.tags.get("geminid").is_some_and(|seals| seals.get(["demo", "h"]).is_some()), "{twin} is sealed");
    }
    let drifted = hub.twin(&device("drifted")).unwrap();
    assert_eq!((drifted.tags.get("theirs"), drifted.desired.get("x")), (Some(&Value::from(7)), Some(&Value::from(1))));
}

async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_at_any_await_the_next_pass_converges_and_writes_nothing_twice() {
    let (hub, state) = scenario().await;
    let before = hub.applied().len();
    assert!(pass(&hub, &state, 1).await.error.is_none());
    assert_converged(&hub, &state);
    let needed: Vec<Applied> = hub.applied().split_off(before);
    assert_eq!(needed.len(), 4, "one creation, two patches with seals, one seal alone");
    for (workers, stops_min) in [(1, 20), (3, 8)] {
        let mut stops = 0;
        loop {
            let (hub, state) = scenario().await;
            let ended = {
                let mut whole = pin!(pass(&hub, &state, workers));
                tokio::select! {
                    biased;
                    _ = &mut whole => true,
                    () = yields(stops) => false,
                }
            };
            // Dropped above, with all its tasks: as after a crash, only the hub remembers.
            yields(3).await;
            assert!(pass(&hub, &state, workers).await.error.is_none());
            assert_converged(&hub, &state);
            let mut written = hub.applied().split_off(before);
            let mut expected = needed.clone();
            written.sort_by_key(|write| format!("{write:?}"));
            expected.sort_by_key(|write| format!("{write:?}"));
            assert_eq!(written, expected, "stopped after {stops} steps with {workers} workers");
            if ended {
                break;
            }
            stops += 1;
        }
        assert!(stops > stops_min, "the loop was stopped at {stops} places only with {workers} workers");
    }
}

#[tokio::test(start_paused = true)]
async fn faults_cost_time_but_never_a_needless_write() {
    let transport = || HubError::Transport { message: "reset".to_owned(), timeout: false };
    let throttled = || HubError::Throttled { code: "ThrottlingBacklogTimeout".to_owned(), retry_after: None };
    let faults = [
        (SimOperation::Patch, Fault::LostAnswer),
        (SimOperation::Create, Fault::LostAnswer),
        (SimOperation::Patch, Fault::ErrorBefore(transport())),
        (SimOperation::Read, Fault::ErrorBefore(throttled())),
        (SimOperation::Query, Fault::ErrorBefore(transport())),
        (SimOperation::Create, Fault::ErrorBefore(throttled())),
        (SimOperation::Patch, Fault::ErrorBefore(HubError::PreconditionFailed)),
    ];
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (hub, state) = scenario().await;
        let before = hub.applied().len();
        for _ in 0..3 {
            let (operation, fault) = faults[rng.usize(..faults.len())].clone();
            hub.inject(operation, fault);
        }
        let ended = pass(&hub, &state, 2).await;
        assert_eq!((ended.error, ended.statuses.count(TwinState::InSync)), (None, 4), "seed {seed}");
        assert_converged(&hub, &state);
        assert_eq!(hub.applied().len() - before, 4, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_pass_reads_nothing_and_writes_nothing() {
    let (hub, state) = scenario().await;
    pass(&hub, &state, 4).await;
    let (before, applied) = (hub.calls(), hub.applied().len());
    let ended = pass(&hub, &state, 4).await;
    assert_eq!(ended.statuses.count(TwinState::InSync), 4);
    let after = hub.calls();
    // One question for the devices, and one to learn that no module carries a seal.
    assert_eq!((after.reads - before.reads, after.queries - before.queries), (0, 2));
    assert_eq!(hub.applied().len(), applied);
}

/// A running daemon on the paused clock.
struct Daemon {
    hub: SimHub,
    declared: watch::Sender<Arc<DeclaredState>>,
    cancel: CancellationToken,
    task: tokio::task::JoinSet<Ended>,
}

impl Daemon {
    fn start(hub: &SimHub, state: &Arc<DeclaredState>) -> Self {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry, &["sim"]).unwrap();
        let (declared, receiver) = watch::channel(Arc::clone(state));
        let cancel = CancellationToken::new();
        let mut task = tokio::task::JoinSet::new();
        let handle = metrics.controller.hub("sim");
        task.spawn(run(options(2, false), hub.clone(), receiver, handle, cancel.clone(), fastrand::Rng::with_seed(7)));
        Self { hub: hub.clone(), declared, cancel, task }
    }

    /// Lets the paused clock run until nothing but timers beyond `seconds` is left.
    async fn settle(&self, seconds: u64) {
        tokio::time::timeout(Duration::from_secs(seconds), std::future::pending::<()>()).await.unwrap_err();
    }

    fn tags(&self, id: &str) -> Object {
        let mut tags = self.hub.twin(&device(id)).unwrap().tags;
        tags.remove("geminid");
        tags
    }

    async fn stop(mut self) -> Ended {
        self.cancel.cancel();
        self.task.join_next().await.unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_sweep_corrects_what_somebody_changed_and_leaves_what_is_theirs() {
    let (hub, state) = scenario().await;
    let daemon = Daemon::start(&hub, &state);
    daemon.settle(30).await;
    assert_converged(&hub, &state);
    hub.edit(&device("new"), &patch(r#"{"a":99,"unrelated":true}"#, "{}")).unwrap();
    daemon.settle(300).await;
    assert_eq!(daemon.tags("new"), object(r#"{"a":99,"unrelated":true}"#), "no sweep was due yet");
    daemon.settle(400).await;
    assert_eq!(daemon.tags("new"), object(r#"{"a":1,"unrelated":true}"#));
    let reads = hub.calls().reads;
    daemon.settle(1800).await;
    assert_eq!(hub.calls().reads, reads, "sweeps over untouched twins read nothing");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 4);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_git_is_written_at_once_and_removals_follow_the_seal() {
    let (hub, state) = scenario().await;
    let daemon = Daemon::start(&hub, &state);
    daemon.settle(30).await;
    let mut next = (*state).clone();
    let twin = TwinRef::device(device("new"));
    next.twins.insert(twin.clone(), manifest(r#"{"z":[1]}"#, "{}"));
    daemon.declared.send(Arc::new(next.clone())).unwrap();
    daemon.settle(1).await;
    assert_eq!(daemon.tags("new"), object(r#"{"z":[1]}"#));
    assert_eq!(hub.twin(&device("new")).unwrap().desired, Object::new());
    // The manifest goes: orphan leaves the values and takes the seal.
    next.twins.remove(&twin);
    daemon.declared.send(Arc::new(next)).unwrap();
    daemon.settle(1).await;
    assert_eq!(hub.twin(&device("new")).unwrap().tags, object(r#"{"z":[1]}"#));
    assert_eq!(daemon.stop().await.statuses.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_empty_declared_state_removes_nothing_and_goes_on_when_it_is_filled_again() {
    let (hub, state) = scenario().await;
    let daemon = Daemon::start(&hub, &state);
    daemon.settle(30).await;
    let applied = hub.applied().len();
    daemon.declared.send(Arc::new(DeclaredState::default())).unwrap();
    daemon.settle(2000).await;
    assert_eq!(hub.applied().len(), applied);
    daemon.declared.send(Arc::clone(&state)).unwrap();
    daemon.settle(2000).await;
    assert_eq!(hub.applied().len(), applied);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 4);
}

#[tokio::test(start_paused = true)]
async fn a_mass_removal_is_held_before_its_first_twin() {
    let hub = SimHub::new();
    let ids: Vec<String> = (0..30).map(|n| format!("d{n:02}")).collect();
    let all: Vec<(&str, &str, &str)> = ids.iter().map(|id| (id.as_str(), r#"{"a":1,"b":1}"#, "{}")).collect();
    let daemon = Daemon::start(&hub, &declared(&all));
    daemon.settle(30).await;
    let applied = hub.applied().len();
    let less: Vec<(&str, &str, &str)> = all.iter().map(|(id, ..)| (*id, r#"{"a":1}"#, "{}")).collect();
    daemon.declared.send(declared(&less)).unwrap();
    daemon.settle(60).await;
    assert!(ids.iter().all(|id| daemon.tags(id) == object(r#"{"a":1,"b":1}"#)), "nothing was removed");
    // Each gave up its claim to be complete, once, and no more is written while the guard holds.
    assert_eq!(hub.applied().len() - applied, 30);
    daemon.settle(4000).await;
    assert_eq!(hub.applied().len() - applied, 30);
    // Nine twins only: within the guard.
    let nine: Vec<(&str, &str, &str)> =
        all.iter().enumerate().map(|(n, twin)| if n < 9 { less[n] } else { *twin }).collect();
    daemon.declared.send(declared(&nine)).unwrap();
    daemon.settle(60).await;
    let without: Vec<bool> = ids.iter().map(|id| !daemon.tags(id).contains_key("b")).collect();
    assert_eq!(without.iter().filter(|gone| **gone).count(), 9);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 30);
}

#[tokio::test(start_paused = true)]
async fn a_device_deleted_by_somebody_else_is_not_brought_back_until_its_manifest_changes() {
    let (hub, state) = scenario().await;
    let daemon = Daemon::start(&hub, &state);
    daemon.settle(30).await;
    hub.delete(&device("new")).unwrap();
    daemon.settle(4000).await;
    assert_eq!(hub.twin(&device("new")), None);
    let mut next = (*state).clone();
    next.twins.insert(TwinRef::device(device("new")), manifest(r#"{"a":2}"#, "{}"));
    daemon.declared.send(Arc::new(next)).unwrap();
    daemon.settle(5).await;
    assert_eq!(daemon.tags("new"), object(r#"{"a":2}"#));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_goes_away_is_waited_for() {
    let (hub, state) = scenario().await;
    for _ in 0..200 {
        let away = HubError::Transport { message: "refused".to_owned(), timeout: false };
        hub.inject(SimOperation::Query, Fault::ErrorBefore(away.clone()));
        hub.inject(SimOperation::Read, Fault::ErrorBefore(away));
    }
    let daemon = Daemon::start(&hub, &state);
    daemon.settle(600).await;
    let asked = hub.calls().queries + hub.calls().reads;
    assert!((10..80).contains(&asked), "asked {asked} times in ten minutes");
    daemon.settle(24 * 3600).await;
    assert_converged(&hub, &state);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 4);
}
