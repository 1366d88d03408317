//! Starting and stopping an embedded hub.
//!
//! Invariant: `hub.json` exists exactly while the addresses in it are served (a killed process excepted, whose file
//! the next start removes first). After a shutdown everything acknowledged is in the store and the folder is free.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::auth::{Gate, Policies, PolicyName};
use super::background::evaluate_configurations;
use super::fill::{self, FillError};
use super::handle::{HubHandle, Randomness};
use super::http::{self, Attentive};
use super::job_runner::run_jobs;
use super::mqtt::{Desk, MqttServer, Presence, WebSocketDoor};
use super::options::ServiceOptions;
use super::quick_ack::QuickAck;
use super::registry::{Kept as Record, Registry};
use super::state_dir::{StateDir, StateDirError};
use super::store::{CHANGES_WAITING_MAX, Durable, Store, StoreError, run_committer};
use super::tls::{CertificateError, Certificates};
use super::trial::Trial;
use super::wire;

const TLS_FILE: &str = "tls.json";
const AUTHORITY_FILE: &str = "ca.pem";
const CONNECTION_FILE: &str = "hub.json";
const HTTPS_FLAG: &str = "--hub-https";
const MQTTS_FLAG: &str = "--hub-mqtts";
/// The port that connection strings leave out.
const HTTPS_PORT: u16 = 443;
/// Connections served at once; more are closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection may wait for a request, and how long its head may take. Longer than the 90 s after which common clients close idle connections
/// themselves, so that none is closed under a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(120);
/// The largest head of a request, in bytes, and its most fields.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEAD_FIELDS_MAX: usize = 100;
/// How long open requests may take to end when the hub stops.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(5);

/// Random bytes read at a time.
const RANDOM_BYTES_AHEAD: usize = 4096;

/// How to run a hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Where to serve HTTPS; port 0 takes a free one (`--hub-https`).
    pub https: SocketAddr,
    /// Where to serve MQTT over TLS; port 0 takes a free one (`--hub-mqtts`), `None` serves none.
    pub mqtts: Option<SocketAddr>,
    /// The host's name in connection strings and in the certificate (`--hub-host`).
    pub host: String,
    /// The hub's folder (`--state-dir`).
    pub state_dir: PathBuf,
    /// Whether to keep no twins (`--hub-ephemeral`). Certificates and `hub.json` are written all the same; a store
    /// that lies in the folder is left as it is.
    pub ephemeral: bool,
    /// Whether to serve other machines (`--hub-allow-remote`).
    pub allow_remote: bool,
    /// The hub's clock.
    pub now: fn() -> Timestamp,
    /// Switches of the service.
    pub service: ServiceOptions,
}

/// Why a hub did not start. Each text is one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not loopback.
    #[error("{0} can be reached from other machines; add --hub-allow-remote if the embedded hub shall serve them")]
    Remote(SocketAddr),
    /// The host's name cannot stand in a connection string.
    #[error("{0:?} is no host name; --hub-host takes letters, digits, dots and hyphens")]
    Host(String),
    /// The folder cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The template makes no devices.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An address cannot be bound.
    #[error("cannot serve the embedded hub on {address}: {error}; choose another address with {flag}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that gives another.
        flag: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The system gives no random numbers, which keys need.
    #[error("cannot draw random numbers for the embedded hub's keys: {0}")]
    Randomness(io::Error),
}

/// What a client needs: the content of `hub.json`. Its `Debug` hides the keys.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// Host, with the port when it is not 443.
    pub host_name: String,
    /// The address really bound.
    pub https: SocketAddr,
    /// The address of MQTT; `None` while it is not served.
    pub mqtts: Option<SocketAddr>,
    /// The authority to trust, an absolute path.
    pub ca_file: PathBuf,
    /// Policy `service`.
    #[serde(serialize_with = "wire::exposed")]
    pub service_connection_string: SecretString,
    /// Policy `iothubowner`.
    #[serde(serialize_with = "wire::exposed")]
    pub owner_connection_string: SecretString,
    /// For devices, with `{device_id}` and `{key}` to fill in.
    pub device_connection_string_template: String,
}

impl ConnectionInfo {
    fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings, addresses and UTF-8 paths always serialize");
        text.push(b'\n');
        text
    }
}

/// A running hub. Dropping it ends it at once; what was acknowledged is kept then too.
#[derive(Debug)]
pub struct EmbeddedHub {
    hub: HubHandle,
    info: ConnectionInfo,
    server: Handle<SocketAddr>,
    door: WebSocketDoor,
    /// Ends every MQTT connection.
    stop: CancellationToken,
    serving: JoinSet<()>,
    /// What the hub does by itself.
    background: JoinSet<()>,
    committing: JoinSet<()>,
    state: StateDir,
}

impl EmbeddedHub {
    /// Starts a hub and returns when its address accepts connections.
    ///
    /// # Errors
    /// [`StartError`], whose text is one sentence with the remedy. Nothing runs then.
    pub async fn start(options: HubOptions) -> Result<Self, StartError> {
        check(&options)?;
        let mut random = system_randomness().map_err(StartError::Randomness)?;
        let state = StateDir::open(&options.state_dir)?;
        state.remove(CONNECTION_FILE)?;
        let tls = tls(&state, &options).await?;
        let mut kept = if options.ephemeral { None } else { Some(Kept::open(&state, &mut random)?) };
        let mut forgetful = Registry::default();
        if let Some(fill) = &options.service.trials.fill {
            let (registry, store) = match &mut kept {
                Some(kept) => (&mut kept.registry, Some(&kept.store)),
                None => (&mut forgetful, None),
            };
            let keep = |changes: &[Record]| store.map_or(Ok(()), |store| store.commit(changes, &[]));
            fill::fill(registry, fill, &mut random, (options.now)(), |changes| {
                keep(changes).map_err(StartError::Store)
            })?;
            tracing::info!(devices = fill.devices, "embedded hub filled");
        }
        let (listener, bound) = bind(options.https, HTTPS_FLAG)?;
        let mqtts = options.mqtts.map(|address| bind(address, MQTTS_FLAG)).transpose()?;

        let mut committing = JoinSet::new();
        let (hub, policies) = match kept {
            None => {
                let policies = Policies::generate(&mut random);
                (HubHandle::forgetful(forgetful, random, options.now), policies)
            }
            Some(Kept { store, registry, presence, policies }) => {
                let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
                let (durable, progress) = watch::channel(Durable::UpTo(registry.changes()));
                committing.spawn_blocking(move || run_committer(store, receiver, durable));
                (HubHandle::new(registry, presence, random, options.now, sender, progress), policies)
            }
        };
        let hub = hub.with_query_lag(options.service.trials.query_lag);
        let mqtts_bound = mqtts.as_ref().map(|(_, bound)| *bound);
        let info = connection_info(&options.host, (bound, mqtts_bound), state.path(AUTHORITY_FILE), &policies);
        let mut gate = Gate::new(policies, &options.host, bound.port());
        if let Some(bound) = mqtts_bound {
            gate = gate.also_on(bound.port());
        }
        let mut background = JoinSet::new();
        background.spawn(evaluate_configurations(hub.clone(), options.service.configuration_period));
        let trial = Trial::new(&options.service.trials);
        background.spawn(run_jobs(hub.clone(), trial.clone()));
        let desk = Desk { hub: hub.clone(), gate: Arc::new(gate.clone()), trial: trial.clone() };
        let stop = CancellationToken::new();
        let mqtt_tls = ServerConfig::clone(&tls.get_inner());
        let door = WebSocketDoor::new(desk.clone(), stop.clone());
        let router = http::router_with(hub.clone(), gate, options.service, trial).merge(door.router());
        let (server, mut serving) = serve(listener, tls, router, Bounds::default())
            .map_err(|error| StartError::Bind { address: bound, flag: HTTPS_FLAG, error })?;
        if let Some((listener, address)) = mqtts {
            let server =
                MqttServer::new(listener).map_err(|error| StartError::Bind { address, flag: MQTTS_FLAG, error })?;
            serving.spawn(server.serve(mqtt_tls, desk, stop.clone()));
        }
        state.replace(CONNECTION_FILE, &info.to_json())?;
        tracing::info!(address = %bound, host = %info.host_name, "embedded hub ready");
        Ok(Self { hub, info, server, door, stop, serving, background, committing, state })
    }

    /// The address really bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.info.https
    }

    /// What is in `hub.json`.
    #[must_use]
    pub fn connection_info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Where `hub.json` lies.
    #[must_use]
    pub fn connection_file(&self) -> PathBuf {
        self.state.path(CONNECTION_FILE)
    }

    /// The hub itself, for devices in this process.
    #[must_use]
    pub fn handle(&self) -> HubHandle {
        self.hub.clone()
    }

    /// Stops: takes no new connection, gives open requests 5 s, keeps all that was written, frees the folder.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.state.remove(CONNECTION_FILE) {
            tracing::warn!(%error, "the embedded hub's connection file stays behind");
        }
        self.server.graceful_shutdown(Some(SHUTDOWN_TIME_MAX));
        self.stop.cancel();
        while self.serving.join_next().await.is_some() {}
        self.door.closed().await;
        // Both may stop between two steps: each step is whole.
        self.background.shutdown().await;
        self.hub.close().await;
        while self.committing.join_next().await.is_some() {}
    }
}

impl Drop for EmbeddedHub {
    fn drop(&mut self) {
        // Whoever reads the file next would find nothing served; a failure here has nobody left to hear of it.
        self.state.remove(CONNECTION_FILE).ok();
        self.server.shutdown();
        self.stop.cancel();
    }
}

/// What a folder's store holds.
struct Kept {
    store: Store,
    registry: Registry,
    presence: Presence,
    policies: Policies,
}

impl Kept {
    fn open(state: &StateDir, random: &mut Randomness) -> Result<Self, StartError> {
        let store = Store::open(state)?;
        let registry = store.registry()?;
        let presence =
            Presence::restored(store.sessions()?).map_err(|key| store.damaged(format!("the session of {key:?}")))?;
        let policies = match store.policies()? {
            Some(stored) => {
                Policies::from_stored(&stored).ok_or_else(|| store.damaged("the policies' keys".to_owned()))?
            }
            None => {
                let policies = Policies::generate(random);
                store.put_policies(&policies.to_stored())?;
                policies
            }
        };
        Ok(Self { store, registry, presence, policies })
    }
}

fn check(options: &HubOptions) -> Result<(), StartError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if options.host.is_empty() || !options.host.chars().all(plain) {
        return Err(StartError::Host(options.host.clone()));
    }
    let mut addresses = std::iter::once(options.https).chain(options.mqtts);
    match addresses.find(|address| !address.ip().is_loopback()) {
        Some(remote) if !options.allow_remote => Err(StartError::Remote(remote)),
        Some(_) | None => Ok(()),
    }
}

fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr().map(|bound| (listener, bound)))
        .map_err(|error| StartError::Bind { address, flag, error })
}

/// TLS with the certificates of the folder, renewed if need be; `ca.pem` beside them is the part that clients read.
async fn tls(state: &StateDir, options: &HubOptions) -> Result<RustlsConfig, StartError> {
    let stored = state.read(TLS_FILE)?;
    let certificates = Certificates::obtain(stored.as_deref(), &options.host, (options.now)())?;
    let content = certificates.to_stored();
    if stored.as_deref() != Some(content.as_slice()) {
        state.replace(TLS_FILE, &content)?;
    }
    state.replace(AUTHORITY_FILE, certificates.authority.as_bytes())?;
    let (certificate, key) = (certificates.certificate.into_bytes(), certificates.key.expose_secret().into());
    let made = RustlsConfig::from_pem(certificate, key).await.map_err(|error| {
        CertificateError(format!("{error}; remove {} to have new ones made", state.path(TLS_FILE).display()))
    })?;
    let mut config = (*made.get_inner()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

fn connection_info(
    host: &str,
    (https, mqtts): (SocketAddr, Option<SocketAddr>),
    ca_file: PathBuf,
    policies: &Policies,
) -> ConnectionInfo {
    let host_name = if https.port() == HTTPS_PORT { host.to_owned() } else { format!("{host}:{}", https.port()) };
    let service = |policy: PolicyName| {
        let (name, key) = (policy.as_str(), policies.key(policy).expose());
        SecretString::from(format!("HostName={host_name};SharedAccessKeyName={name};SharedAccessKey={key}"))
    };
    ConnectionInfo {
        https,
        mqtts,
        ca_file,
        service_connection_string: service(PolicyName::Service),
        owner_connection_string: service(PolicyName::Owner),
        // Devices come by MQTT on a port of their own, so theirs has no port.
        device_connection_string_template: format!("HostName={host};DeviceId={{device_id}};SharedAccessKey={{key}}"),
        host_name,
    }
}

/// What the HTTPS port bears.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections_max: usize,
    handshake_time_max: Duration,
    head_time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections_max: CONNECTIONS_MAX, handshake_time_max: HANDSHAKE_TIME_MAX, head_time_max: HEAD_TIME_MAX }
    }
}

fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    router: axum::Router,
    bounds: Bounds,
) -> io::Result<(Handle<SocketAddr>, JoinSet<()>)> {
    let handle = Handle::new();
    let door = Door { handle: handle.clone(), connections_max: bounds.connections_max };
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(bounds.handshake_time_max).acceptor(door);
    let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle.clone());
    // The time for a head counts only from its first byte; who says nothing at all is let go by this.
    server = server.first_request_timeout(bounds.head_time_max);
    server = server.accept_error_handler(|peer, error| {
        let peer = peer.map(ToString::to_string);
        tracing::debug!(peer, %error, "the embedded hub let a connection go before its first request");
    });
    // HTTP/1 alone, set here and not on the server, whose own setting would refuse WebSocket upgrades.
    *server.http_builder() = server.http_builder().clone().http1_only();
    let mut http1 = server.http_builder().http1();
    http1.header_read_timeout(bounds.head_time_max).max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_FIELDS_MAX);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        if let Err(error) = server.serve(router.into_make_service()).await {
            tracing::error!(%error, "the embedded hub stopped serving");
        }
    });
    Ok((handle, serving))
}

/// Lets a connection in, without delays of small packets, while there are not too many. Handshakes come after it, in the
/// connection's own task.
#[derive(Debug, Clone)]
struct Door {
    handle: Handle<SocketAddr>,
    connections_max: usize,
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = QuickAck;
    type Service = Attentive<S>;
    type Future = std::future::Ready<io::Result<(QuickAck, Attentive<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = if self.handle.connection_count() > self.connections_max {
            Err(io::Error::other("too many connections"))
        } else {
            QuickAck::new(stream)
        };
        std::future::ready(admitted.map(|stream| {
            let whole = stream.whole();
            (stream, Attentive::new(service, whole))
        }))
    }
}

/// The system's random numbers, fit for keys.
fn system_randomness() -> io::Result<Randomness> {
    // Each request draws a few bytes; read one at a time they would cost more than most requests.
    let mut source = BufReader::with_capacity(RANDOM_BYTES_AHEAD, File::open("/dev/urandom")?);
    let mut draw = move |bytes: &mut [u8]| source.read_exact(bytes);
    draw(&mut [0; 16])?;
    Ok(Box::new(move |bytes| draw(bytes).expect("a system that gave random numbers once goes on giving them")))
}

#[cfg(test)]
mod tests;
