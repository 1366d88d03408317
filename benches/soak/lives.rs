//! The two processes: how they are started, looked at and ended.
//!
//! Invariant: each keeps its addresses from life to life, as services do.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value as Json;

use crate::record::Said;
use crate::support::{Process, World};

/// How long a process is asked for its metrics.
const ASK_TIME_MAX: Duration = Duration::from_secs(3);
const KILOBYTES_A_MEGABYTE: f64 = 1024.0;
/// Time from one sweep to the next.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);
/// The log that the account is made from.
pub(crate) const AUDIT_LOG: &str = "audit.log";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Addresses {
    https: String,
    mqtts: String,
    daemon: String,
    http: reqwest::Client,
}

impl Addresses {
    /// Free ones.
    pub(crate) fn new() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [https, mqtts, daemon] = listeners.map(|listener| listener.local_addr().unwrap().to_string());
        let http = reqwest::Client::builder().no_proxy().timeout(ASK_TIME_MAX).build().unwrap();
        Self { https, mqtts, daemon, http }
    }

    /// Starts the hub.
    pub(crate) fn start_hub(&self, world: &World) -> Process {
        let fixed = ["hub", "--hub-faults", "--state-dir", "state"];
        world.start(&[&fixed[..], &["--hub-https", &self.https, "--hub-mqtts", &self.mqtts]].concat())
    }

    /// Writes the settings of the daemon on the hub that runs.
    pub(crate) fn write_settings(&self, world: &World) {
        let json = world.hub_json("state");
        world.write("hub.secret", json["ownerConnectionString"].as_str().unwrap());
        let settings = format!(
            "owner = \"demo\"\nlisten = \"{}\"\naudit_log = \"{AUDIT_LOG}\"\n[hubs.embedded]\nmanifests = \"manifests\"\n\
             connection_string_file = \"hub.secret\"\nca_file = \"{}\"\ntier = \"none\"\nsweep = \"{}s\"\n\
             [hubs.embedded.guards]\nremovals = \"100%\"\ncreates = \"100%\"\nupdates = \"100%\"\n",
            self.daemon,
            json["caFile"].as_str().unwrap(),
            SWEEP.as_secs(),
        );
        world.write("settings.toml", &settings);
    }

    /// Starts the daemon.
    pub(crate) fn start_daemon(&self, world: &World) -> Process {
        world.start(&["run", "--settings", "settings.toml"])
    }

    /// The daemon's metrics, if it answers.
    pub(crate) async fn metrics(&self) -> Option<String> {
        let answer = self.http.get(format!("http://{}/metrics", self.daemon)).send().await.ok()?;
        answer.text().await.ok()
    }

    /// Tells the hub what to do wrong, until it heard.
    pub(crate) async fn set_faults(&self, world: &World, plan: &Json) {
        loop {
            let (address, token, http) = world.raw_client("state");
            let put = http.put(format!("https://{address}/_geminid/faults")).header("Authorization", token);
            let answer = put.timeout(ASK_TIME_MAX).json(plan).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Resident megabytes and open descriptors of the process with this number, if it is there.
pub(crate) fn footprint(id: u32) -> [Option<f64>; 2] {
    let resident = fs::read_to_string(format!("/proc/{id}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.to_owned();
        let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes / KILOBYTES_A_MEGABYTE)
    });
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).ok().map(|all| all.count() as f64);
    [resident, descriptors]
}

/// The machine's load average of the last minute.
pub(crate) fn machine_load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// What a process said in its life.
pub(crate) fn said(process: &Process) -> Said {
    let text = process.stderr();
    let is_complaint = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
    Said { lines: text.lines().count(), complaints: text.lines().filter(is_complaint).count() }
}

/// The sum of all series of a metric whose labels hold `label`.
pub(crate) fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    series(metrics, name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
}

/// The series of a metric: labels and value.
pub(crate) fn series<'m>(metrics: &'m str, name: &'m str) -> impl Iterator<Item = (&'m str, f64)> {
    metrics.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        Some((labels, value.parse().ok()?))
    })
}
