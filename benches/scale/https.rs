//! The same fleet over HTTPS, against the embedded hub in a process of its own: first sync, and sweeps after a restart.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use geminid::controller::{self, Options};
use geminid::emulator::fill::FillOptions;
use geminid::emulator::options::ServiceOptions;
use geminid::emulator::trial::TrialOptions;
use geminid::emulator::{EmbeddedHub, HubOptions};
use geminid::hub::{
    ConnectionString, Continuation, HubError, PAGE_SIZE_MAX, Paced, QueryPage, ReadTwins, RestHub, RestOptions,
    TextPage, WriteTwins,
};
use geminid::metrics::Metrics;
use geminid::plan::DeclaredState;
use geminid::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef};
use prometheus::Registry;
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ceiling::Target;
use super::{ceiling, fleet, measure};

/// The argument of the process that serves the hub until its input ends.
pub(crate) const HUB_CHILD: &str = "--hub";
/// The argument of the process that syncs and sweeps.
pub(crate) const CHILD: &str = "--sweep-over-https";
/// Sweeps whose middle one counts, after the first.
const SWEEPS: usize = 3;
/// A device as a hub has it before anybody wrote: a value that differs from what is declared.
const TEMPLATE: &str = r#"{"deviceId":"device-{n}","properties":{"desired":{"power_level":99}}}"#;

/// Serves, syncs, sweeps, and prints.
pub(crate) fn fleet(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    fleet::write(&folder.path().join("fleet"), count);
    let mut hub = Command::new(std::env::current_exe().unwrap())
        .arg(HUB_CHILD)
        .arg(folder.path())
        .arg(count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut connection = String::new();
    BufReader::new(hub.stdout.take().unwrap()).read_line(&mut connection).unwrap();
    std::fs::write(folder.path().join("connection"), connection.trim()).unwrap();
    let text = count.to_string();
    let run = || measure::figures::<10>(&[CHILD, &text], Some(folder.path()));
    println!("\n{count} twins over HTTPS, the hub in a process of its own, no throttle");
    let [sync_wall, sync_cpu, gets, patches, _, _, _, _, loaded, peak] = run();
    println!(
        "  first sync {sync_wall:7.1} s, {:.0} twins a second; CPU of the client {:.0} us a twin; {gets:.0} GETs, \
         {patches:.0} PATCHes; resident {:.0} MB after load, {:.0} MB at the peak",
        count as f64 / sync_wall,
        1e6 * sync_cpu / count as f64,
        loaded / 1e6,
        peak / 1e6,
    );
    // Another process: it knows nothing but manifests and seals.
    let [first_wall, first_cpu, gets, patches, wall, cpu, pages, pages_gets, loaded, peak] = run();
    let least = (count.div_ceil(PAGE_SIZE_MAX)) as f64;
    println!(
        "  after a restart: first sweep {first_wall:.2} s, {first_cpu:.2} s CPU with TLS; {gets:.0} GETs, {patches:.0} PATCHes"
    );
    println!(
        "  each later sweep {wall:.2} s, {cpu:.2} s CPU with TLS; {pages:.0} requests (pages {least:.0}, one more to count), {pages_gets:.0} GETs"
    );
    println!("  resident {:.0} MB after load, {:.0} MB at the peak", loaded / 1e6, peak / 1e6);
    let verdict = if pages <= least + 1.0 && gets == 0.0 && pages_gets == 0.0 { "met" } else { "MISSED" };
    println!("  requests at most pages + 1 and no GET: {verdict}");
    println!("  {}", ceiling_beside(folder.path(), count));
    drop(hub.stdin.take());
    hub.wait().unwrap();
}

/// What the hub could do at most; last, since it writes.
fn ceiling_beside(folder: &Path, count: usize) -> String {
    let connection = std::fs::read_to_string(folder.join("connection")).unwrap();
    let host = connection.split(';').find_map(|field| field.strip_prefix("HostName=")).unwrap();
    let port = host.rsplit(':').next().unwrap().parse().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hub = Target::hub(address, &connection, std::fs::read(folder.join("ca.pem")).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ceiling::beside(&hub, count))
}

/// Serves a hub of `count` devices until its input ends.
pub(crate) fn hub_child(folder: &Path, count: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let fill = FillOptions { devices: count as u64, template: TEMPLATE.to_owned() };
        let hub = EmbeddedHub::start(HubOptions {
            https: "127.0.0.1:0".parse().unwrap(),
            mqtts: None,
            host: "localhost".to_owned(),
            state_dir: folder.join("state"),
            ephemeral: true,
            allow_remote: false,
            now: jiff::Timestamp::now,
            service: ServiceOptions {
                trials: TrialOptions { fill: Some(fill), ..TrialOptions::default() },
                ..ServiceOptions::default()
            },
        })
        .await
        .unwrap();
        let info = hub.connection_info();
        std::fs::copy(&info.ca_file, folder.join("ca.pem")).unwrap();
        println!("{}", info.owner_connection_string.expose_secret());
        std::io::stdout().flush().unwrap();
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        hub.shutdown().await;
    });
}

/// What was asked of the hub, and when sweeps began and ended.
#[derive(Clone)]
struct Counted {
    hub: Arc<RestHub>,
    calls: Arc<[AtomicUsize; 3]>,
    begun: mpsc::UnboundedSender<(Instant, Duration, [usize; 3])>,
}

const GETS: usize = 0;
const PAGES: usize = 1;
const PATCHES: usize = 2;

impl Counted {
    fn count(&self, call: usize) {
        self.calls[call].fetch_add(1, Ordering::Relaxed);
    }

    fn calls(&self) -> [usize; 3] {
        [GETS, PAGES, PATCHES].map(|call| self.calls[call].load(Ordering::Relaxed))
    }
}

impl Paced for Counted {}

impl ReadTwins for Counted {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.count(GETS);
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.count(PAGES);
        self.hub.query_page(query, size, from).await
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        if from.is_none() && !query.contains("devices.modules") {
            self.begun.send((Instant::now(), measure::cpu(), self.calls())).unwrap();
        }
        self.count(PAGES);
        self.hub.text_page(query, columns, size, from).await
    }
}

impl WriteTwins for Counted {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.count(PATCHES);
        self.hub.patch_twin(twin, patch, etag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

/// A single pass, then a daemon's sweeps; prints wall, CPU, reads and writes of the pass, wall, CPU, requests and reads
/// of a later sweep, and what is resident after load and at the peak.
pub(crate) fn child(folder: &Path, count: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let state = fleet::load(&folder.join("fleet"), count);
    let loaded = measure::resident();
    let connection = ConnectionString::parse(&std::fs::read_to_string(folder.join("connection")).unwrap()).unwrap();
    let mut options = RestOptions::new(jiff::Timestamp::now);
    options.extra_ca_pem = Some(std::fs::read(folder.join("ca.pem")).unwrap());
    let (begun, mut marks) = mpsc::unbounded_channel();
    let hub = Arc::new(RestHub::new(connection, &options).unwrap());
    let hub = Counted { hub, calls: Arc::default(), begun };
    let (wall, cpu) = (Instant::now(), measure::cpu());
    runtime.block_on(async {
        let once = Options { single_pass: true, ..fleet::options("localhost", Duration::from_secs(600)) };
        run(once, &hub, &state, CancellationToken::new()).await;
    });
    let (wall, cpu, [gets, _, patches]) = (wall.elapsed(), measure::cpu() - cpu, hub.calls());
    let peak = measure::peak();
    while marks.try_recv().is_ok() {}
    let sweeps = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut task = JoinSet::new();
        let (hub, state, token) = (hub.clone(), Arc::clone(&state), cancel.clone());
        task.spawn(async move {
            run(fleet::options("localhost", Duration::from_millis(10)), &hub, &state, token).await;
        });
        let mut seen = Vec::new();
        while seen.len() < SWEEPS + 2 {
            seen.push(marks.recv().await.unwrap());
        }
        cancel.cancel();
        task.join_all().await;
        seen
    });
    let mut later: Vec<_> = sweeps
        .windows(2)
        .skip(1)
        .map(|pair| {
            let [(at, cpu, calls), (next_at, next_cpu, next_calls)] = [pair[0], pair[1]];
            (next_at - at, next_cpu - cpu, next_calls[PAGES] - calls[PAGES], next_calls[GETS] - calls[GETS])
        })
        .collect();
    later.sort_unstable();
    let (sweep_wall, sweep_cpu, pages, sweep_gets) = later[later.len() / 2];
    let figures = [
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        gets as f64,
        patches as f64,
        sweep_wall.as_secs_f64(),
        sweep_cpu.as_secs_f64(),
        pages as f64,
        sweep_gets as f64,
        loaded as f64,
        peak as f64,
    ];
    println!("{}", figures.map(|figure| figure.to_string()).join(" "));
}

async fn run(options: Options, hub: &Counted, state: &Arc<DeclaredState>, cancel: CancellationToken) {
    let metrics = Metrics::register(&Registry::new(), &[fleet::HUB]).unwrap();
    let (_sender, receiver) = watch::channel(Arc::clone(state));
    let (handle, rng) = (metrics.controller.hub(fleet::HUB), fastrand::Rng::with_seed(1));
    let ended = controller::run(options, hub.clone(), receiver, handle, cancel, rng).await;
    assert_eq!(ended.error, None);
}
