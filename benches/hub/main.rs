//! What the embedded hub costs, as ratios within one run.
//!
//! ```text
//! cargo bench --bench hub [-- ROW ...]           GET and PATCH against a bare server of the same libraries
//! cargo bench --bench hub -- --twins 1000000     filling, opening, memory, pages and counts over so many twins
//! ```
//!
//! The bare server (`benches/ceiling`) keeps nothing; the hub checks a token, guards by etag, keeps metadata and commits
//! each write to disk. Beside it stands the same bare server with a log. The first rows are the set-up of the ceiling
//! that the hub is held to: GET and PATCH by turns over the usual client; then the same with a client that costs less,
//! and each method alone. Rounds take turns, the median of the ratios is printed.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[expect(dead_code, reason = "other benchmarks print it beside theirs")]
#[path = "../ceiling/mod.rs"]
mod ceiling;
#[path = "../machine/mod.rs"]
mod machine;

use std::path::Path;
use std::time::{Duration, Instant};

use ceiling::{Client, IN_FLIGHT, Mix, Target, median};
use geminid::emulator::fill::FillOptions;
use geminid::emulator::options::ServiceOptions;
use geminid::emulator::query::Rows;
use geminid::emulator::trial::TrialOptions;
use geminid::emulator::{EmbeddedHub, HubOptions};
use secrecy::ExposeSecret as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENT_THREADS: &str = "client";
/// Twins that the requests go to, in turn.
const TWINS: usize = 1000;
/// The same for writes that leave little for a store to put together, most of them to twins that are kept packed.
const TWINS_SPREAD: usize = 100_000;
const ROUNDS: usize = 5;
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
    match twins {
        Some(twins) => tokio::runtime::Runtime::new().unwrap().block_on(scale(twins)),
        None => requests(&arguments.iter().filter_map(|argument| argument.parse().ok()).collect::<Vec<_>>()),
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

/// One row: who asks, what, of how many twins.
struct Row {
    client: Client,
    mix: Mix,
    twins: usize,
}

/// What one server did with one row: medians.
struct Seen {
    rates: Vec<f64>,
    /// CPU time of all that is no client, a request, in microseconds.
    server_us: Vec<f64>,
    client_us: Vec<f64>,
}

const ROWS: [Row; 7] = [
    Row { client: Client::Reqwest, mix: Mix::Alternating, twins: TWINS },
    Row { client: Client::Reqwest, mix: Mix::Alternating, twins: TWINS_SPREAD },
    Row { client: Client::Lean, mix: Mix::Alternating, twins: TWINS },
    Row { client: Client::Lean, mix: Mix::Alternating, twins: TWINS_SPREAD },
    Row { client: Client::Reqwest, mix: Mix::Get, twins: TWINS },
    Row { client: Client::Reqwest, mix: Mix::Patch, twins: TWINS },
    Row { client: Client::Reqwest, mix: Mix::Patch, twins: TWINS_SPREAD },
];

/// `only` names the rows to run, from 1 on; all, if it is empty.
fn requests(only: &[usize]) {
    let (folder, folder_spread) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Threads of their own names, so that CPU time can be told apart.
    let named = |name| tokio::runtime::Builder::new_multi_thread().enable_all().thread_name(name).build().unwrap();
    let (servers, clients) = (named("server"), named(CLIENT_THREADS));
    let twin: serde_json::Value = serde_json::from_str(&TEMPLATE.replace("{n}", "7")).unwrap();
    let (hub, hub_spread, bare, with_log) = servers.block_on(async {
        let hub = EmbeddedHub::start(options(folder.path(), Some(TWINS as u64))).await.unwrap();
        let hub_spread = EmbeddedHub::start(options(folder_spread.path(), Some(TWINS_SPREAD as u64))).await.unwrap();
        let bare = ceiling::bare_server(twin.clone(), None).await;
        let with_log = ceiling::bare_server(twin, Some(folder.path())).await;
        (hub, hub_spread, bare, with_log)
    });
    println!("{}", machine::machine());
    println!(
        "{IN_FLIGHT} in flight over keep-alive HTTPS/1.1 on loopback, {ROUNDS} rounds of {ROUND:?} by turns, medians"
    );
    println!(
        "bare: a server of the same libraries that keeps nothing; bare+log: it appends to one file and flushes it in"
    );
    println!("groups before it answers a PATCH; hub: every write durable. us: CPU of the server a request.");
    let heads =
        ["hub/s", "bare/s", "log/s", "hub us", "bare us", "log us", "client us"].map(|head| format!("{head:>10}"));
    println!("{:<44}{:>10}{:>14}{}", "", "hub/bare", "hub/bare+log", heads.concat());
    for (number, row) in ROWS.iter().enumerate() {
        if !only.is_empty() && !only.contains(&(number + 1)) {
            continue;
        }
        let hub = target(if row.twins == TWINS { &hub } else { &hub_spread });
        let mut seen = [(); 3].map(|()| Seen { rates: Vec::new(), server_us: Vec::new(), client_us: Vec::new() });
        for _ in 0..ROUNDS {
            for (target, seen) in [&hub, &bare, &with_log].into_iter().zip(&mut seen) {
                clients.block_on(measure(target, row, seen));
            }
        }
        print_row(row, seen);
    }
    servers.block_on(async {
        hub.shutdown().await;
        hub_spread.shutdown().await;
    });
}

async fn measure(target: &Target, row: &Row, seen: &mut Seen) {
    let (cpu, client) = (cpu_s(), client_cpu_s());
    let rate = ceiling::rate(target, row.client, row.mix, row.twins, ROUND).await;
    let requests = rate * ROUND.as_secs_f64();
    let (cpu, client) = (cpu_s() - cpu, client_cpu_s() - client);
    seen.rates.push(rate);
    seen.client_us.push(client * 1e6 / requests);
    seen.server_us.push((cpu - client) * 1e6 / requests);
}

fn print_row(row: &Row, seen: [Seen; 3]) {
    let [hub, bare, log] = seen;
    let ratio = |others: &[f64]| median(hub.rates.iter().zip(others).map(|(ours, theirs)| ours / theirs).collect());
    let (over_bare, over_log) = (ratio(&bare.rates), ratio(&log.rates));
    let what = match row.mix {
        Mix::Alternating => "GET, PATCH by turns",
        Mix::Get => "GET",
        Mix::Patch => "PATCH",
    };
    let by = match row.client {
        Client::Reqwest => "reqwest",
        Client::Lean => "lean client",
    };
    let seen = [hub.rates, bare.rates, log.rates, hub.server_us, bare.server_us, log.server_us, hub.client_us];
    let seen = seen.map(|figures| format!("{:>10.0}", median(figures)));
    let what = format!("{what}, {} twins, {by}", row.twins);
    println!("{what:<44}{over_bare:>10.2}{over_log:>14.2}{}", seen.concat());
}

fn target(hub: &EmbeddedHub) -> Target {
    let info = hub.connection_info();
    Target::hub(hub.address(), info.owner_connection_string.expose_secret(), std::fs::read(&info.ca_file).unwrap())
}

/// CPU time of the clients' threads, in seconds.
fn client_cpu_s() -> f64 {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        // A thread that ended meanwhile is no client's.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        if name.trim() == CLIENT_THREADS {
            let nanoseconds = std::fs::read_to_string(path.join("schedstat")).unwrap();
            sum += nanoseconds.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9;
        }
    }
    sum
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
