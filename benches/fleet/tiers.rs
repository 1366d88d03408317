//! geminid on hubs that keep the throttles of a tier, with its default budget: half of what the tier allows.
//!
//! The rates come from the times in the hubs' logs, which cost nothing at such rates; both tiers run at once, as neither
//! makes work for the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::Arguments;
use super::hub::{Hub, Setting, host};
use super::process::{Cost, Running};
use super::twins;
use super::wire;

/// What geminid takes of a tier unless told otherwise (README).
const BUDGET_DIVISOR: u64 = 2;
const BUDGET: f64 = 1.0 / BUDGET_DIVISOR as f64;
/// After so much of the run the burst of the beginning is over.
const BEGINNING: f64 = 0.25;
/// The windows in which the rate is looked at, as a part of the shortest time.
const WINDOW: f64 = 0.375;
/// So many times the shortest time, and that long besides, ends the benchmark.
const PATIENCE_FACTOR: u32 = 3;
const PATIENCE_MORE: Duration = Duration::from_secs(60);

/// A tier of one unit.
pub(crate) struct Tier {
    pub(crate) name: &'static str,
    /// Twin writes a second that the hub allows to all its callers (`iot-hub.md` 6.1).
    pub(crate) writes_a_s: u32,
}

const TIERS: [Tier; 2] = [Tier { name: "S1", writes_a_s: 50 }, Tier { name: "S3", writes_a_s: 250 }];

/// How a fleet was brought in sync under a tier.
pub(crate) struct UnderTier {
    pub(crate) tier: &'static str,
    pub(crate) twins: usize,
    /// Writes a second that are geminid's.
    pub(crate) share: f64,
    pub(crate) shortest_s: f64,
    pub(crate) cost: Cost,
    /// Of the share, over the whole run and in the slowest and the fastest window after the beginning.
    pub(crate) whole: f64,
    pub(crate) windows: [f64; 2],
    pub(crate) window_s: f64,
    pub(crate) refused: usize,
    pub(crate) requests: usize,
}

/// Both tiers.
pub(crate) async fn tiers(folder: &Path, arguments: &Arguments) -> Vec<UnderTier> {
    let [first, second] = TIERS;
    let (first, second) = tokio::join!(under(folder, arguments, first, 2), under(folder, arguments, second, 3));
    vec![first, second]
}

async fn under(folder: &Path, arguments: &Arguments, tier: Tier, index: u32) -> UnderTier {
    let folder = folder.join(tier.name);
    let shortest = arguments.under_tier;
    let share = f64::from(tier.writes_a_s) * BUDGET;
    let count = usize::try_from(u64::from(tier.writes_a_s) * shortest.as_secs() / BUDGET_DIVISOR).unwrap();
    let manifests = folder.join("manifests");
    let host = host(index);
    let more = [&wire::LOGGING[..], &["--tier", tier.name]].concat();
    let https = format!("{host}:0");
    let setting = Setting { name: "hub", devices: count, host, https, more: &more };
    let hub = Hub::start(&folder, &setting).await;
    // Another value than the hub was filled with: to let the twins drift would itself be throttled.
    twins::write_manifests(&manifests, count, twins::POWER_LEVEL + 1);
    let settings = settings(&folder, &hub, &manifests, tier.name);
    let mut command = super::geminid();
    command.arg("apply").arg("--settings").arg(settings);
    let running = Running::start(&mut command, &folder, "apply");
    let cost = running.ended(Some(hub.process()), shortest * PATIENCE_FACTOR + PATIENCE_MORE).await;
    let cost = cost.unwrap_or_else(|trouble| panic!("{}: {trouble}", tier.name));
    let answers = wire::answered(&hub.log());
    hub.stop().await;
    let requests = answers.len();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    let patches = answers.iter().filter(|answer| answer.method == "PATCH" && answer.status == 200);
    let times: Vec<f64> = patches.map(|answer| answer.unix_s).collect();
    assert_eq!(times.len(), count, "{}: patches", tier.name);
    let window_s = shortest.as_secs_f64() * WINDOW;
    let whole = times.len() as f64 / (times[times.len() - 1] - times[0]) / share;
    let windows = windows(&times, shortest.as_secs_f64() * BEGINNING, window_s).map(|rate| rate / share);
    let shortest_s = count as f64 / share;
    UnderTier { tier: tier.name, twins: count, share, shortest_s, cost, whole, windows, window_s, refused, requests }
}

fn settings(folder: &Path, hub: &Hub, manifests: &Path, tier: &str) -> PathBuf {
    let (connection, settings) = (folder.join("connection"), folder.join("geminid.toml"));
    fs::write(&connection, &hub.connection_string).unwrap();
    let text = format!(
        "owner = \"bench\"\n[hubs.tier]\nmanifests = {:?}\nconnection_string_file = {:?}\nca_file = {:?}\ntier = {tier:?}\n",
        manifests.display().to_string(),
        connection.display().to_string(),
        hub.ca.display().to_string()
    );
    fs::write(&settings, text).unwrap();
    settings
}

/// The lowest and the highest rate in any window of that length that begins at a write after the beginning.
fn windows(times: &[f64], beginning_s: f64, window_s: f64) -> [f64; 2] {
    let (first, last) = (times[0], times[times.len() - 1]);
    let mut found = [f64::INFINITY, 0.0_f64];
    for (at, &from) in times.iter().enumerate() {
        if from - first < beginning_s || from + window_s > last {
            continue;
        }
        let inside = times[at..].iter().take_while(|time| **time < from + window_s).count();
        let rate = inside as f64 / window_s;
        found = [found[0].min(rate), found[1].max(rate)];
    }
    found
}
