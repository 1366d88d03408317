//! What the embedded hub costs, as ratios within one run.
//!
//! ```text
//! cargo bench --bench hub                        GET and PATCH against a bare server of the same libraries
//! cargo bench --bench hub -- --twins 1000000     filling, opening, memory, pages and counts over so many twins
//! ```
//!
//! The bare server reads and writes typed JSON of the same size over the same TLS and keeps nothing; the hub checks a
//! token, guards by etag, keeps metadata and commits each write to disk. Beside it stands the same bare server with one
//! thing more: it appends a record of a twin's size to a file and flushes it, in groups, before it answers a PATCH, as
//! any server must that keeps its word. Rounds alternate, the median of the ratios is printed.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod machine;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use geminid::emulator::fill::FillOptions;
use geminid::emulator::options::ServiceOptions;
use geminid::emulator::query::Rows;
use geminid::emulator::trial::TrialOptions;
use geminid::emulator::{EmbeddedHub, HubOptions};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 32;
/// Twins that the requests go to, in turn.
const TWINS: usize = 1000;
/// The same for writes that leave little for a store to put together, most of them to twins that are kept packed.
const TWINS_SPREAD: usize = 100_000;
const ROUNDS: usize = 5;
/// About what a store keeps of such a twin.
const RECORD_BYTES: usize = 1400;
/// The log of the bare server that keeps its word starts again behind so many bytes.
const LOG_BYTES: u64 = 64 * 1024 * 1024;
const ROUND: Duration = Duration::from_secs(3);
const TEMPLATE: &str = r#"{"deviceId":"device-{n}","tags":{"location":{"region":"EU","plant":"plant-{n}","line":"line-7"},
"owner":"team-fleet","rev":"r2026-11","hw":{"model":"TX-9000","rev":4},"batch":17},"properties":{"desired":{
"telemetry":{"interval_s":60,"batch":20,"compress":true},"wifi":{"ssid":"plant-net","channel":11},"power_level":3,
"firmware":{"version":"4.11.2","url":"https://firmware.example.com/4.11.2/image.bin"},
"limits":{"temperature":{"low":-20,"high":85},"vibration":3.5}},"reported":{"connectivity":"cellular",
"firmware":{"version":"4.11.1","state":"idle"},"battery":87,"uptime_s":864000,
"sensors":{"temperature":21.5,"humidity":44,"pressure":1013.2},"lastBoot":"2026-11-20T08:15:00Z",
"modem":{"imei":"35693803564{n}","signal":-71,"operator":"Example Mobile"},
"site":{"building":"B-12 north wing","floor":3,"room":"electrical cabinet 7","contact":"ops@example.com"}}}}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let twins = arguments.iter().position(|argument| argument == "--twins");
    let twins: Option<u64> = twins.map(|at| arguments[at + 1].parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match twins {
        Some(twins) => runtime.block_on(scale(twins)),
        None => runtime.block_on(requests()),
    }
}

fn options(folder: &Path, devices: Option<u64>) -> HubOptions {
    let fill = devices.map(|devices| FillOptions { devices, template: TEMPLATE.to_owned() });
    HubOptions {
        https: "127.0.0.1:0".parse().unwrap(),
        mqtts: None,
        host: "localhost".to_owned(),
        state_dir: folder.join("state"),
        ephemeral: false,
        allow_remote: false,
        now: jiff::Timestamp::now,
        service: ServiceOptions {
            trials: TrialOptions { fill, ..TrialOptions::default() },
            ..ServiceOptions::default()
        },
    }
}

async fn requests() {
    let (folder, folder_spread) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = EmbeddedHub::start(options(folder.path(), Some(TWINS as u64))).await.unwrap();
    let hub_spread = EmbeddedHub::start(options(folder_spread.path(), Some(TWINS_SPREAD as u64))).await.unwrap();
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let bare = format!("https://{}", bare_server(None).await);
    let with_log = format!("https://{}", bare_server(Some(log(folder.path()))).await);
    println!("{}", machine::machine());
    println!("{IN_FLIGHT} in flight over keep-alive HTTPS on loopback, {ROUNDS} alternating rounds of {ROUND:?}");
    println!("{:<44}{:>10}{:>16}{:>12}{:>8}{:>16}", "", "hub/bare", "hub/bare+log", "hub/s", "bare/s", "bare+log/s");
    for (what, is_write, hub, twins) in [
        ("GET one twin of 1,000", false, &hub, TWINS),
        ("PATCH one twin of 1,000, durable", true, &hub, TWINS),
        ("PATCH one twin of 100,000, durable", true, &hub_spread, TWINS_SPREAD),
    ] {
        let token = token(hub.connection_info().owner_connection_string.expose_secret());
        let urls = [&format!("https://{}", hub.address()), &bare, &with_log];
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (url, rates) in urls.into_iter().zip(&mut rates) {
                rates.push(rate(&client, url, &token, is_write, twins).await);
            }
        }
        let [of_hub, of_bare, of_log] = rates;
        let ratio = |others: &[f64]| median(of_hub.iter().zip(others).map(|(ours, theirs)| ours / theirs).collect());
        println!(
            "{what:<44}{:>10.2}{:>16.2}{:>12.0}{:>8.0}{:>16.0}",
            ratio(&of_bare),
            ratio(&of_log),
            median(of_hub),
            median(of_bare),
            median(of_log)
        );
    }
    hub.shutdown().await;
    hub_spread.shutdown().await;
}

/// Requests a second. Each worker has twins of its own, so that no write waits for another by its etag.
async fn rate(client: &reqwest::Client, base: &str, token: &str, is_write: bool, twins: usize) -> f64 {
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..IN_FLIGHT {
        let (client, base, token) = (client.clone(), base.to_owned(), token.to_owned());
        workers.spawn(async move {
            let mut done = 0_usize;
            while begun.elapsed() < ROUND {
                // Far apart, as the writes of a fleet are.
                let twin = (worker + IN_FLIGHT * (done * 7919 % (twins / IN_FLIGHT))) % twins;
                let url = format!("{base}/twins/device-{twin}?api-version=2021-04-12");
                let request = if is_write {
                    let body =
                        format!(r#"{{"tags":{{"counter":{done}}},"properties":{{"desired":{{"power":{done}}}}}}}"#);
                    client.patch(&url).header("If-Match", "\"*\"").body(body)
                } else {
                    client.get(&url)
                };
                let answer = request.header("Authorization", &token).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200);
                assert!(answer.bytes().await.unwrap().len() > 500);
                done += 1;
            }
            done
        });
    }
    let done: usize = workers.join_all().await.into_iter().sum();
    f64::from(u32::try_from(done).unwrap()) / begun.elapsed().as_secs_f64()
}

type Log = mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>;

/// A log with group commit: what waits is written over the zeros of a file and flushed at once.
fn log(folder: &Path) -> Log {
    let (sender, mut receiver) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1024);
    let file = File::create(folder.join("bare.log")).unwrap();
    file.write_all_at(&vec![0; usize::try_from(LOG_BYTES).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
    let mut end = 0;
    tokio::task::spawn_blocking(move || {
        while let Some((mut bytes, waiter)) = receiver.blocking_recv() {
            let mut waiters = vec![waiter];
            while let Ok((more, waiter)) = receiver.try_recv() {
                bytes.extend(more);
                waiters.push(waiter);
            }
            end = if end + bytes.len() as u64 > LOG_BYTES { 0 } else { end };
            file.write_all_at(&bytes, end).unwrap();
            file.sync_data().unwrap();
            end += bytes.len() as u64;
            waiters.into_iter().for_each(|waiter| waiter.send(()).unwrap());
        }
    });
    sender
}

/// A server of the same libraries: it reads a typed patch and writes a typed twin. It keeps a record in `log`, or nothing.
async fn bare_server(log: Option<Log>) -> SocketAddr {
    let twin: serde_json::Value = serde_json::from_str(&TEMPLATE.replace("{n}", "7")).unwrap();
    let read = {
        let twin = twin.clone();
        move || async move { axum::Json(twin) }
    };
    let write = move |body: axum::Json<serde_json::Value>| async move {
        assert!(body.0.is_object());
        if let Some(log) = log {
            let (kept, told) = oneshot::channel();
            log.send((vec![b'x'; RECORD_BYTES], kept)).await.unwrap();
            told.await.unwrap();
        }
        axum::Json(twin)
    };
    let lenient = axum::middleware::map_request(|mut request: axum::extract::Request| async {
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        request
    });
    let router = Router::new().route("/twins/{id}", get(read).patch(write)).layer(lenient);
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (key.cert.pem().into_bytes(), key.signing_key.serialize_pem().into_bytes());
    let tls = RustlsConfig::from_pem(certificate, key).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service()).await.unwrap();
    });
    address
}

/// A token as an SDK makes it.
fn token(connection_string: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let field = |name: &str| {
        let mut fields = connection_string.split(';').map(|field| field.split_once('=').unwrap());
        fields.find(|(key, _)| *key == name).unwrap().1.to_owned()
    };
    let resource = field("HostName").replace(':', "%3A");
    let expiry = jiff::Timestamp::now().as_second() + 3600;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(field("SharedAccessKey")).unwrap()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={}", field("SharedAccessKeyName"))
}

async fn scale(twins: u64) {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let hub = EmbeddedHub::start(options(folder.path(), Some(twins))).await.unwrap();
    println!("{twins} twins of {} B", TEMPLATE.len());
    println!("  filled and kept in        {:>8.1} s, {} MB resident", begun.elapsed().as_secs_f64(), resident_mb());
    hub.shutdown().await;
    let file = std::fs::metadata(folder.path().join("state").join("store.redb")).unwrap().len();
    println!("  store                     {:>8} MB", file / 1_000_000);
    let (begun, cpu) = (Instant::now(), cpu_s());
    let hub = EmbeddedHub::start(options(folder.path(), None)).await.unwrap();
    println!(
        "  opened in                 {:>8.1} s ({:.1} s of CPU), {} MB resident",
        begun.elapsed().as_secs_f64(),
        cpu_s() - cpu,
        resident_mb()
    );
    let handle = hub.handle();
    for query in [
        "SELECT * FROM devices WHERE tags.location.plant = 'plant-77'",
        "SELECT * FROM devices WHERE tags.rev = 'r2026-11'",
        "SELECT * FROM devices WHERE tags.rev = 'r2026-11' AND tags.hw.rev = 4",
        "SELECT deviceId, etag FROM devices",
        "SELECT COUNT() AS n FROM devices WHERE tags.owner = 'team-fleet'",
    ] {
        let (mut token, mut times, mut rows) = (None, Vec::new(), 0);
        for _ in 0..20 {
            let begun = Instant::now();
            let page = handle.query(query, None, token.as_deref()).await.unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            rows = match page.rows {
                Rows::Twins(twins) => twins.len(),
                Rows::Raw(rows) | Rows::Jobs(rows) => rows.len(),
            };
            token = page.next;
        }
        println!("  {:>8.0} us a page of {rows:>3}   {query}", median(times));
    }
    let begun = Instant::now();
    let scan = "SELECT COUNT() AS n FROM devices WHERE properties.reported.connectivity = 'cellular'";
    handle.query(scan, None, None).await.unwrap();
    println!("  {:>8.1} s  {scan}", begun.elapsed().as_secs_f64());
    println!("  at the end {} MB resident", resident_mb());
    hub.shutdown().await;
}

/// CPU time of this process, in seconds.
fn cpu_s() -> f64 {
    let status = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = status.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    // In hundredths, on all Linux systems met.
    fields.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1000
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
