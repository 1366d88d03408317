//! One hub's loops: as the daemon runs them, and once for `apply`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::connect::{HubParts, PacedHub, system_time};
use super::progress::Progress;
use super::source::{Source, specs};
use crate::controller::{
    self, AuditLog, AuditTarget, AuditWriter, Commands, Ended, Inputs, Options, PlannedOrder, Recording, TransferOrder,
    Written,
};
use crate::exporter::{self, Published};
use crate::hub::{AlongColumns, Lane, Paced, SweepAlong, WriteTwins};
use crate::metrics::{ControllerHub, Metrics};
use crate::ops::Readiness;
use crate::ops::api::{Api, HubHandle};
use crate::plan::{Approval, DeclaredState, Mode, TransferPlan};
use crate::source::Snapshot;
use crate::twin::TwinRef;

/// Reconciles under way at one time on one hub; as many as the client keeps connections open.
const WORKERS: usize = 32;
/// How often the gauges of the budget follow the time.
const BUDGET_PUBLISHED_EVERY: Duration = Duration::from_secs(5);

/// What the loops of all hubs share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Our instruments.
    pub(super) metrics: Metrics,
    /// What the queries give.
    pub(super) published: Published,
    /// What `/readyz` says.
    pub(super) readiness: Readiness,
    /// The status API, which asks the loops.
    pub(super) api: Api,
    /// What is recorded of every write.
    pub(super) audit: AuditLog,
    /// The first revision of the first hub, for the demonstration.
    pub(super) first: watch::Sender<Option<Arc<DeclaredState>>>,
    /// Where long work is shown.
    pub(super) progress: Progress,
}

fn options(parts: &HubParts, single_pass: bool, first_contact: CancellationToken, audit: &AuditLog) -> Options {
    Options {
        hub: parts.name.clone(),
        scope: parts.scope.clone(),
        sweep: parts.settings.sweep,
        verify: parts.settings.verify,
        policy: parts.rules(),
        workers: WORKERS,
        single_pass,
        first_contact,
        audit: audit.clone(),
        journal: controller::Journal::default(),
        wall_clock: system_time,
    }
}

/// Loads, reconciles and queries for one hub until cancelled. Nothing here depends on another hub.
///
/// # Errors
/// When a loop ended by itself, which is an internal error.
pub async fn run_hub(parts: HubParts, shared: Shared, cancel: CancellationToken) -> anyhow::Result<()> {
    let name = parts.name.clone();
    let mut source =
        Source::new(&name, parts.settings.manifests.clone(), parts.rules.clone(), shared.metrics.source.hub(&name));
    let Some(first) = cancel.run_until_cancelled(source.next()).await else { return Ok(()) };
    shared.readiness.loaded(&name, &first.revision);
    shared.first.send_if_modified(|known| known.is_none() && known.replace(Arc::clone(&first.state)).is_none());
    let (declared, declared_receiver) = watch::channel(Arc::clone(&first.state));
    let (queries, queries_receiver) = watch::channel(specs(&first));
    let first_contact = CancellationToken::new();
    let options = options(&parts, false, first_contact.clone(), &shared.audit);
    let (commands, command_line) = Commands::line();
    let (wanted, wanted_receiver) = watch::channel(Arc::new(exporter::wanted_columns(&specs(&first))));
    let (along, read_along) = SweepAlong::line(wanted_receiver);
    let inputs = Inputs { declared: declared_receiver.clone(), commands: Some(command_line), along: Some(along) };
    let journal = options.journal.clone();
    shared
        .api
        .started(&name, HubHandle { host: parts.scope.host.clone(), commands, declared: declared_receiver, journal });
    let hub = parts.paced(&shared.metrics);
    let budget = hub.budget().clone();
    let mut loops = JoinSet::new();
    let (metrics, token) = (shared.metrics.controller.hub(&name), cancel.clone());
    let (controller_hub, rng) = (hub.clone(), fastrand::Rng::new());
    loops.spawn(async move {
        reconcile_hub(options, controller_hub, inputs, metrics, token, rng).await;
    });
    let (progress, sweeps) = (shared.progress.clone(), shared.metrics.controller.hub(&name).sweep().clone());
    let (shown, token) = (name.clone(), cancel.clone());
    let mut showing = JoinSet::new();
    showing.spawn(async move { progress.follow(&shown, &sweeps, token).await });
    let (published, process) = (shared.published.clone(), shared.metrics.process.clone());
    let (token, rng) = (cancel.clone(), fastrand::Rng::new());
    let query_hub = name.clone();
    let inputs = exporter::Inputs { queries: queries_receiver, along: Some(read_along) };
    loops.spawn(async move {
        exporter::run(query_hub, hub.in_lane(Lane::Query), inputs, published, process, token, rng).await;
    });
    let mut contact = std::pin::pin!(first_contact.cancelled_owned());
    let mut contacted = false;
    let mut publish = tokio::time::interval(BUDGET_PUBLISHED_EVERY);
    publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Loops that end because they were told to are no internal error, so being told comes first.
            biased;
            () = cancel.cancelled() => break,
            snapshot = source.next() => {
                shared.readiness.loaded(&name, &snapshot.revision);
                hand_on(&declared, &queries, &wanted, &snapshot);
            }
            () = &mut contact, if !contacted => {
                contacted = true;
                shared.readiness.contacted(&name);
            }
            _ = publish.tick() => budget.publish(),
            Some(ended) = loops.join_next() => {
                cancel.cancel();
                drain(&mut loops).await;
                bail!("hub {name}: internal error: a loop ended: {}", ended.err().map_or_else(String::new, |e| e.to_string()));
            }
        }
    }
    drain(&mut loops).await;
    drain(&mut showing).await;
    Ok(())
}

/// The loop of the hub's mode: one that observes is given a reader alone.
async fn reconcile_hub<H: WriteTwins + Paced + 'static>(
    options: Options,
    hub: H,
    inputs: Inputs,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    match options.policy.mode {
        Mode::Observe => controller::observe(options, hub, inputs, metrics, cancel, rng).await,
        Mode::Sync | Mode::Upsert => controller::run(options, hub, inputs, metrics, cancel, rng).await,
    }
}

/// Hands a revision on where it says something new; a poll that found nothing wakes nobody.
fn hand_on(
    declared: &watch::Sender<Arc<DeclaredState>>,
    queries: &watch::Sender<Arc<Vec<crate::series::QuerySpec>>>,
    wanted: &watch::Sender<Arc<AlongColumns>>,
    snapshot: &Snapshot,
) {
    declared.send_if_modified(|state| {
        let news = *state != snapshot.state;
        state.clone_from(&snapshot.state);
        news
    });
    let specs = specs(snapshot);
    let columns = Arc::new(exporter::wanted_columns(&specs));
    queries.send_if_modified(|known| {
        let news = *known != specs;
        *known = specs;
        news
    });
    // A sweep with new columns finds the queries known that want them.
    wanted.send_replace(columns);
}

async fn drain(loops: &mut JoinSet<()>) {
    while loops.join_next().await.is_some() {}
}

/// Opens the audit log.
pub(super) fn open_audit(target: &AuditTarget, metrics: &Metrics) -> anyhow::Result<(AuditLog, AuditWriter)> {
    AuditLog::open(target, metrics.process.clone(), system_time).with_context(|| match target {
        AuditTarget::Stdout => "cannot write the audit log to standard output".to_owned(),
        AuditTarget::File(path) => {
            format!("cannot write the audit log {}; choose another file with --audit-log", path.display())
        }
    })
}

/// The audit log of one command: what it takes is written when it is closed.
struct CommandAudit {
    log: AuditLog,
    ended: CancellationToken,
    writing: JoinSet<()>,
}

impl CommandAudit {
    fn open(target: Option<&AuditTarget>, metrics: &Metrics) -> anyhow::Result<Self> {
        let (ended, mut writing) = (CancellationToken::new(), JoinSet::new());
        let log = match target {
            Some(target) => {
                let (log, writer) = open_audit(target, metrics)?;
                writing.spawn(writer.run(ended.clone()));
                log
            }
            None => AuditLog::off(),
        };
        Ok(Self { log, ended, writing })
    }

    async fn close(mut self) {
        self.ended.cancel();
        drain(&mut self.writing).await;
    }
}

/// Does `work` on the hub of `parts`. What it writes is recorded in `audit`, if that is given.
async fn recorded<T>(
    parts: HubParts,
    audit: Option<&AuditTarget>,
    work: impl AsyncFnOnce(Arc<PacedHub>, Recording) -> T,
) -> anyhow::Result<T> {
    let name = parts.name.clone();
    let metrics = Metrics::register(&Registry::new(), &[&name]).context("cannot set up counters")?;
    let audit = CommandAudit::open(audit, &metrics)?;
    let recording = Recording { hub: name, log: audit.log.clone(), wall_clock: system_time };
    let result = work(Arc::new(parts.paced(&metrics)), recording).await;
    audit.close().await;
    Ok(result)
}

/// Moves paths between seals as `plans` show, and says how each write ended. Writes are recorded in `audit`, if that is
/// given.
///
/// # Errors
/// When the audit log cannot be opened.
pub async fn transfer_once(
    parts: HubParts,
    order: &TransferOrder,
    plans: BTreeMap<TwinRef, TransferPlan>,
    audit: Option<&AuditTarget>,
    cancel: CancellationToken,
) -> anyhow::Result<BTreeMap<TwinRef, Written>> {
    recorded(parts, audit, async |hub, recording| controller::transfer(hub, order, plans, recording, &cancel).await)
        .await
}

/// Applies a plan made before, and says how each write ended. Writes are recorded in `audit`, if that is given; how far
/// it is, `progress` shows.
///
/// # Errors
/// When the audit log cannot be opened.
pub async fn apply_plan_once(
    parts: HubParts,
    order: PlannedOrder,
    audit: Option<&AuditTarget>,
    progress: &Progress,
    cancel: CancellationToken,
) -> anyhow::Result<BTreeMap<TwinRef, Written>> {
    let (revision, shown) = (order.revision.clone(), progress.work("applying the plan", order.writes.len()));
    let each = move |twin: &TwinRef, written: &Written| {
        shown.one();
        match written {
            Written::Applied => tracing::info!(%twin, revision, "applied as planned"),
            Written::Before | Written::Moved | Written::Held(_) | Written::Stopped | Written::Failed(_) => {
                tracing::debug!(%twin, revision, result = written.as_str(), "not applied");
            }
        }
    };
    let work = async |hub, recording| controller::apply_planned(hub, order, recording, each, &cancel).await;
    recorded(parts, audit, work).await
}

/// Brings one hub to `state` once, and says how every twin stands. `prune`: twins whose manifest is gone are settled too.
/// Writes are recorded in `audit`, if that is given; how far it is, `progress` shows.
///
/// # Errors
/// When the audit log cannot be opened, or the hub could not be swept at all.
pub async fn apply_once(
    parts: HubParts,
    state: Arc<DeclaredState>,
    prune: bool,
    approvals: Vec<Approval>,
    audit: Option<&AuditTarget>,
    progress: &Progress,
    cancel: CancellationToken,
) -> anyhow::Result<Ended> {
    let name = parts.name.clone();
    // Nobody scrapes a single pass, but the loops count all the same.
    let metrics = Metrics::register(&Registry::new(), &[&name]).context("cannot set up counters")?;
    let audit = CommandAudit::open(audit, &metrics)?;
    let mut options = options(&parts, true, CancellationToken::new(), &audit.log);
    // A pass sweeps once; the interval only says how long its series would be good for.
    options.sweep = Duration::from_secs(60);
    options.policy.prune = prune;
    options.policy.approvals = approvals;
    let (_sender, receiver) = watch::channel(state);
    let hub = parts.paced(&metrics);
    let handle = metrics.controller.hub(&name);
    let (shown, sweeps) = (CancellationToken::new(), handle.sweep().clone());
    // Beside its workers and not on the thread of the command: else the end of each would wake that thread.
    let mut loops = JoinSet::new();
    loops.spawn(reconcile_hub(options, hub, receiver.into(), handle, cancel, fastrand::Rng::new()));
    let pass = async {
        let ended = loops.join_next().await;
        shown.cancel();
        ended
    };
    let (ended, ()) = tokio::join!(pass, progress.follow(&name, &sweeps, shown.clone()));
    audit.close().await;
    let ended = ended.context("the loop was not started")?.with_context(|| format!("hub {name}: internal error"))?;
    match &ended.error {
        Some(error) => bail!("hub {name}: {error}"),
        None => Ok(ended),
    }
}
