//! `run`: everything together, from the first port to the last drained write.

use std::io::{IsTerminal as _, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use prometheus::Registry;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::connect::{HubParts, hub_file, hub_parts, system_time, wall_clock};
use super::logging::{LogOptions, start_logging};
use super::pass::{Shared, open_audit, run_hub};
use super::progress::Progress;
use super::shutdown::StopSignals;
use super::started::{files_of_the_start, tell_changes};
use crate::controller::AuditTarget;
use crate::device::{Connector, DeviceConnection, DeviceEvent, DeviceOptions, Trust, run_device};
use crate::emulator::{ConnectionInfo, EmbeddedHub, HubHandle, HubOptions};
use crate::exporter::Published;
use crate::metrics::{Metrics, OpsMetrics};
use crate::ops::api::{Api, ApiOptions, token_problem};
use crate::ops::{self, Access, AccessFiles, Ops, Readiness};
use crate::plan::{DeclaredState, leaves_of};
use crate::settings::{Secret, Settings, hub_defaults};
use crate::twin::{DeviceId, Object, Section, Value};

/// Time from one look at the files of [`Access`] to the next.
const ACCESS_REFRESH: Duration = Duration::from_secs(5);
/// The name of the embedded hub among the hubs.
const EMBEDDED: &str = "embedded";
/// Where writes are recorded unless told otherwise.
const AUDIT_LOG_DEFAULT: &str = "stdout";
/// How long after its registration the demonstration's device reports.
const REPORT_AFTER: Duration = Duration::from_secs(8);

/// What a newcomer needs next.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Where `/metrics` is.
    pub listen: SocketAddr,
    /// Where `/api/v1` is.
    pub api: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The embedded hub, if there is one.
    pub embedded: Option<EmbeddedAddresses>,
    /// Each hub's name, host and folder of manifests.
    pub hubs: Vec<(String, String, PathBuf)>,
}

/// Where an embedded hub is.
#[derive(Debug, Clone)]
pub struct EmbeddedAddresses {
    /// Of HTTPS.
    pub https: SocketAddr,
    /// Of MQTT over TLS, unless it is not served.
    pub mqtts: Option<SocketAddr>,
    /// The file with its connection strings.
    pub connection_file: PathBuf,
}

/// Runs the daemon until a signal, and drains it. `embedded` is a hub to run in this process with the folder of its
/// manifests, `sweep` the interval that goes over its default.
///
/// # Errors
/// One sentence when it cannot start, or when a part of it failed for a reason of its own.
pub async fn run_daemon(
    mut settings: Settings,
    embedded: Option<(HubOptions, PathBuf)>,
    sweep: Option<Duration>,
    log: &LogOptions,
    announce: impl FnOnce(&Announcement),
) -> anyhow::Result<()> {
    let signals = StopSignals::catch()?;
    let listener = listen(&settings.listen, "--listen").await?;
    let files = AccessFiles { web_config: settings.web_config.clone(), token: settings.metrics_token_file.clone() };
    let access = spawn_blocking(move || Access::load(files)).await.context("internal error")??;
    let hub = start_embedded(&mut settings, embedded, sweep).await?;
    let parts = hub_parts(&settings)?;
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, &names).context("cannot set up metrics")?;
    let target = AuditTarget::parse(settings.audit_log.as_deref().unwrap_or(AUDIT_LOG_DEFAULT));
    // Audit lines on the same terminal would run through a bar; log lines tell of long work there.
    let crowded = target == AuditTarget::Stdout && stdout().is_terminal();
    let progress = if crowded { Progress::hidden() } else { Progress::stderr() };
    start_logging(log, &progress, Some(metrics.process.clone()))?;
    let (audit, audit_writer) = open_audit(&target, &metrics)?;
    let api_listener = match &settings.api_listen {
        Some(address) => Some(listen(address, "api_listen").await?),
        None => None,
    };
    let api_socket = api_listener.as_ref().unwrap_or(&listener);
    let api = Api::new(api_options(&settings, &names, api_socket, metrics.ops.clone())?);
    tell_token_problem(&settings).await?;
    let (first, first_receiver) = watch::channel(None);
    let readiness = Readiness::new(&names);
    let shared = Shared { metrics, published: Published::default(), readiness, api, audit, first, progress };
    let address = |listener: &TcpListener| listener.local_addr().context("the listening socket has no address");
    announce(&Announcement {
        listen: address(&listener)?,
        api: address(api_listener.as_ref().unwrap_or(&listener))?,
        tls: access.is_tls(),
        embedded: hub.as_ref().map(embedded_addresses),
        hubs: parts.iter().map(announced).collect(),
    });
    let cancel = CancellationToken::new();
    let ended = CancellationToken::new();
    let (mut around, mut auditing) = (JoinSet::new(), JoinSet::new());
    let audit_ended = CancellationToken::new();
    auditing.spawn(audit_writer.run(audit_ended.clone()));
    let obeying = signals.obey(cancel.clone(), ended.clone());
    around.spawn(async move {
        obeying.await;
        Ok(())
    });
    around.spawn(serve_ops(listener, api_listener, registry, shared.clone(), access.clone(), ended.clone()));
    if access.has_files() {
        around.spawn(refresh(access, ended.clone()));
    }
    around.spawn(tell_changes(files_of_the_start(&settings), ended.clone()));
    if let Some(hub) = &hub {
        around.spawn(demonstrate(hub.handle(), hub.connection_info().clone(), first_receiver, ended.clone()));
    }
    let result = run_hubs(parts, shared, &cancel, &mut around).await;
    ended.cancel();
    while around.join_next().await.is_some() {}
    audit_ended.cancel();
    while auditing.join_next().await.is_some() {}
    if let Some(hub) = hub {
        hub.shutdown().await;
    }
    result
}

fn embedded_addresses(hub: &EmbeddedHub) -> EmbeddedAddresses {
    let info = hub.connection_info();
    EmbeddedAddresses { https: info.https, mqtts: info.mqtts, connection_file: hub.connection_file() }
}

fn announced(part: &HubParts) -> (String, String, PathBuf) {
    (part.name.clone(), part.scope.host.clone(), part.settings.manifests.clone())
}

/// Starts the embedded hub, if there is to be one, and puts it among the hubs.
async fn start_embedded(
    settings: &mut Settings,
    embedded: Option<(HubOptions, PathBuf)>,
    sweep: Option<Duration>,
) -> anyhow::Result<Option<EmbeddedHub>> {
    let Some((options, manifests)) = embedded else { return Ok(None) };
    if !settings.hubs.is_empty() {
        bail!("--embedded-hub stands alone; remove the hubs from the settings, or leave it out");
    }
    let tier = options.service.trials.tier;
    let hub = EmbeddedHub::start(options).await?;
    let info = hub.connection_info();
    let connection = Secret::Value(info.owner_connection_string.clone());
    let mut entry = hub_defaults(manifests, connection, Some(info.ca_file.clone()));
    entry.sweep = sweep.unwrap_or(entry.sweep);
    if let Some((tier, units)) = tier {
        // What it is asked to refuse is not asked of it.
        (entry.tier, entry.units) = (Some(tier.as_str().to_owned()), units);
    }
    settings.hubs.insert(EMBEDDED.to_owned(), entry);
    Ok(Some(hub))
}

/// Runs every hub's loops until all have ended.
async fn run_hubs(
    parts: Vec<HubParts>,
    shared: Shared,
    cancel: &CancellationToken,
    around: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut hubs = JoinSet::new();
    for part in parts {
        hubs.spawn(run_hub(part, shared.clone(), cancel.clone()));
    }
    let mut result = Ok(());
    while !hubs.is_empty() {
        tokio::select! {
            Some(ended) = hubs.join_next() => {
                if let Err(error) = ended.context("internal error").and_then(std::convert::identity) {
                    cancel.cancel();
                    result = result.and(Err(error));
                }
            }
            Some(ended) = around.join_next() => {
                if let Err(error) = ended.context("internal error").and_then(std::convert::identity) {
                    cancel.cancel();
                    result = result.and(Err(error));
                }
            }
        }
    }
    result
}

/// Listens on `address`, which `setting` names.
async fn listen(address: &str, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; choose another address with {setting}"))
}

fn api_options(
    settings: &Settings,
    names: &[&str],
    listener: &TcpListener,
    metrics: OpsMetrics,
) -> anyhow::Result<ApiOptions> {
    let address = listener.local_addr().context("the listening socket has no address")?;
    Ok(ApiOptions {
        hubs: names.iter().map(|name| (*name).to_owned()).collect(),
        token_file: settings.api_token_file.clone(),
        remote: !address.ip().is_loopback(),
        now: system_time,
        metrics,
    })
}

/// A token that cannot be used is read again with each request, so the daemon goes on; better said now than asked then.
async fn tell_token_problem(settings: &Settings) -> anyhow::Result<()> {
    let Some(file) = settings.api_token_file.clone() else { return Ok(()) };
    let name = file.clone();
    let problem = spawn_blocking(move || token_problem(&file)).await.context("internal error")?;
    if let Some(error) = problem {
        tracing::warn!(file = %name.display(), error, "the token of the API cannot be used, actions are refused until it can");
    }
    Ok(())
}

async fn serve_ops(
    listener: TcpListener,
    api_listener: Option<TcpListener>,
    registry: Registry,
    shared: Shared,
    access: Access,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    let ops =
        Ops { registry, metrics: shared.metrics.ops.clone(), published: shared.published, readiness: shared.readiness };
    let (router, api) = (ops::router(ops, access.clone()), shared.api.router());
    match api_listener {
        None => ops::serve(listener, router.merge(api), access, ended).await,
        Some(api_listener) => {
            let beside = ops::serve(api_listener, api, access.clone(), ended.clone());
            tokio::join!(ops::serve(listener, router, access, ended), beside);
        }
    }
    Ok(())
}

/// Reads certificates, users and token again when their files change.
async fn refresh(access: Access, ended: CancellationToken) -> anyhow::Result<()> {
    let mut failing = None;
    while ended.run_until_cancelled(tokio::time::sleep(ACCESS_REFRESH)).await.is_some() {
        let reader = access.clone();
        match spawn_blocking(move || reader.refresh()).await.context("internal error")? {
            Ok(true) => tracing::info!("read the rules of our own port again, a file of theirs changed"),
            Ok(false) => {}
            // Said once, not every few seconds.
            Err(error) if failing.as_ref() == Some(&error) => continue,
            Err(error) => {
                tracing::error!("failed to read the rules of our own port, the last ones stay: {error}");
                failing = Some(error);
                continue;
            }
        }
        failing = None;
    }
    Ok(())
}

/// The demonstration: the first declared device comes to life, connects and reports how it is connected.
async fn demonstrate(
    hub: HubHandle,
    info: ConnectionInfo,
    mut first: watch::Receiver<Option<Arc<DeclaredState>>>,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    let known = ended.run_until_cancelled(first.wait_for(Option::is_some)).await.is_some();
    let state = first.borrow().clone().filter(|_| known);
    let device = state.and_then(|state| state.twins.keys().next().map(|twin| twin.device.clone()));
    let (Some(device), Some(address)) = (device, info.mqtts) else { return Ok(()) };
    let connector = Connector::new(&Trust::Authorities(hub_file(&info.ca_file)?.into_bytes()))?;
    // A device that is deleted and registered again has another key.
    while let Some(text) = ended.run_until_cancelled(connection_string(&hub, &device, &info)).await {
        let connection = DeviceConnection::parse(text?.expose_secret()).context("the simulated device")?;
        let options = DeviceOptions {
            connection,
            address: Some(address),
            connector: connector.clone(),
            turns: None,
            report: Some(Object::from([("connectivity".to_owned(), Value::from("cellular"))])),
            report_after: REPORT_AFTER,
            refusal_ends: true,
            now: wall_clock,
            seed: 0,
        };
        if let Err(error) = run_device(&options, |event| tell(&device, &event), &ended).await {
            tracing::info!(twin = %device, %error, "the simulated device is not admitted");
            ended.run_until_cancelled(tokio::time::sleep(REPORT_AFTER)).await;
        }
    }
    Ok(())
}

/// The connection string of `device`, once it is registered.
async fn connection_string(hub: &HubHandle, device: &DeviceId, info: &ConnectionInfo) -> anyhow::Result<SecretString> {
    let mut changes = hub.changes();
    loop {
        // Seen before the look, so that a change during the look wakes the next one.
        changes.borrow_and_update();
        if let Some(key) = hub.device_key(device).await? {
            let template = &info.device_connection_string_template;
            let text = template.replace("{device_id}", device.as_str()).replace("{key}", key.expose());
            return Ok(SecretString::from(text));
        }
        changes.changed().await.context("the hub is gone")?;
    }
}

fn tell(device: &DeviceId, event: &DeviceEvent) {
    match event {
        DeviceEvent::Connected => tracing::info!(twin = %device, "the simulated device is connected"),
        DeviceEvent::Reported => tracing::info!(twin = %device, "the simulated device reported"),
        DeviceEvent::Desired(difference) => {
            // The values may be secrets, and a device does not know which.
            let leaves: Vec<String> = leaves_of(difference)
                .into_iter()
                .map(|(path, _)| path.in_section(Section::Desired))
                .filter(|leaf| !leaf.contains('$'))
                .collect();
            let leaves = leaves.join(", ");
            tracing::info!(twin = %device, leaves, "the simulated device was told of new desired properties");
        }
        DeviceEvent::Disconnected { reason, again_in } => {
            tracing::info!(twin = %device, reason, ?again_in, "the simulated device is not connected");
        }
        DeviceEvent::Refused(status, words) => {
            tracing::warn!(twin = %device, status, words, "the hub refused what the simulated device asked");
        }
        DeviceEvent::Twin { .. } => tracing::debug!(twin = %device, "the simulated device read its twin"),
        DeviceEvent::Method { name, .. } => {
            tracing::debug!(twin = %device, name, "the simulated device answered a direct method");
        }
    }
}
