//! Declared states by the handful, and a loop on the paused clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{Commands, Ended, Inputs, Options, observe, run};
use geminid::hub::{Paced, WriteTwins};
use geminid::metrics::Metrics;
use geminid::plan::{
    DeclaredState, FileSpan, GuardLimits, Mode, Owner, Policy, RemovalPolicy, SealScope, TwinManifest, Wanted,
};
use geminid::twin::{DeviceId, MergePatch, Object, TwinRef, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

pub(crate) fn twin(id: &str) -> TwinRef {
    TwinRef::device(device(id))
}

pub(crate) fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

pub(crate) fn tags(json: &str) -> MergePatch {
    MergePatch { tags: Some(object(json)), desired: None }
}

pub(crate) fn place() -> FileSpan {
    FileSpan { file: "fleet.yaml".into(), line: 1, column: 1 }
}

pub(crate) fn manifest(tags: Object, removal_policy: RemovalPolicy) -> Arc<TwinManifest> {
    let wanted = Wanted { tags, ..Wanted::default() }.into();
    Arc::new(TwinManifest { wanted, create: true, removal_policy, ..TwinManifest::empty(place()) })
}

/// `d00`, `d01` and so on, each with these tags; to be cleared when its manifest goes.
pub(crate) fn state(count: usize, tags: &str) -> DeclaredState {
    let one = |n: usize| (twin(&format!("d{n:02}")), manifest(object(tags), RemovalPolicy::Clear));
    DeclaredState { revision: "r".to_owned(), twins: (0..count).map(one).collect(), ..DeclaredState::default() }
}

pub(crate) fn scope(owner: &str) -> SealScope {
    SealScope::new(Owner::new(owner).unwrap(), "sim")
}

pub(crate) fn options(owner: &str, workers: usize) -> Options {
    Options {
        hub: "sim".to_owned(),
        scope: scope(owner),
        sweep: Duration::from_secs(600),
        verify: Duration::from_secs(24 * 3600),
        policy: Policy { guards: GuardLimits { creates: 1.0, ..GuardLimits::default() }, ..Policy::default() },
        workers,
        single_pass: false,
        first_contact: CancellationToken::new(),
        audit: geminid::controller::AuditLog::off(),
        journal: geminid::controller::Journal::default(),
        wall_clock: || SystemTime::UNIX_EPOCH,
    }
}

/// A running loop. Dropping it is a crash.
pub(crate) struct Daemon {
    declared: watch::Sender<Arc<DeclaredState>>,
    cancel: CancellationToken,
    task: JoinSet<Ended>,
    pub(crate) commands: Commands,
    pub(crate) registry: prometheus::Registry,
}

impl Daemon {
    pub(crate) fn start<H: WriteTwins + Paced + 'static>(hub: H, options: Options, state: &DeclaredState) -> Self {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry, &["sim"]).unwrap();
        let (declared, receiver) = watch::channel(Arc::new(state.clone()));
        let (cancel, mut task) = (CancellationToken::new(), JoinSet::new());
        let (handle, rng) = (metrics.controller.hub("sim"), fastrand::Rng::with_seed(7));
        let (commands, line) = Commands::line();
        let inputs = Inputs { declared: receiver, commands: Some(line), along: None };
        match options.policy.mode {
            Mode::Observe => drop(task.spawn(observe(options, hub, inputs, handle, cancel.clone(), rng))),
            Mode::Sync | Mode::Upsert => drop(task.spawn(run(options, hub, inputs, handle, cancel.clone(), rng))),
        }
        Self { declared, cancel, task, commands, registry }
    }

    pub(crate) fn declare(&self, state: &DeclaredState) {
        self.declared.send(Arc::new(state.clone())).unwrap();
    }

    /// Waits for a single pass.
    pub(crate) async fn finished(mut self) -> Ended {
        self.task.join_next().await.unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> Ended {
        self.cancel.cancel();
        self.finished().await
    }
}

/// The series of one gauge.
pub(crate) struct Gauges(prometheus::proto::MetricFamily);

impl Gauges {
    /// The value of the series with these label values, whatever else it has.
    pub(crate) fn value(&self, labels: &[&str]) -> f64 {
        let fits = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|label| metric.get_label().iter().any(|pair| pair.value() == *label))
        };
        self.0.get_metric().iter().find(fits).unwrap().get_gauge().get_value()
    }
}

impl Daemon {
    pub(crate) fn gauges(&self, name: &str) -> Gauges {
        Gauges(self.registry.gather().into_iter().find(|family| family.name() == name).unwrap())
    }

    /// The value of the gauge `name` with these label values beside the hub's.
    pub(crate) fn gauge(&self, name: &str, labels: &[&str]) -> f64 {
        self.gauges(name).value(labels)
    }
}

/// Lets the paused clock run on by `seconds`.
pub(crate) async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub(crate) async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
