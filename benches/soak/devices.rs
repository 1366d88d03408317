//! Devices over MQTT that come, report, listen and go.
//!
//! Invariant: each is one connection at a time, and comes back until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use geminid::device::{Connector, DeviceConnection, DeviceEvent, DeviceOptions, Trust, run_device};
use geminid::twin::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::World;

/// How many.
pub(crate) const DEVICES: usize = 24;
/// How long one stays, in milliseconds.
const STAY_MS: std::ops::Range<u64> = 5_000..60_000;
/// How long one that was not admitted waits.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
const API_VERSION: &str = "2021-04-12";

/// What they met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Connections.
    pub(crate) connected: AtomicU64,
    /// Changes of desired properties they were told of.
    pub(crate) desired: AtomicU64,
}

/// Starts them; they end with the set.
pub(crate) async fn start(world: &World, names: Vec<String>, seed: u64, met: &Arc<Met>) -> JoinSet<()> {
    let (address, token, http) = world.raw_client("state");
    let json = world.hub_json("state");
    let template = json["deviceConnectionStringTemplate"].as_str().unwrap().to_owned();
    let ca = std::fs::read(json["caFile"].as_str().unwrap()).unwrap();
    let connector = Connector::new(&Trust::Authorities(ca)).unwrap();
    let mqtts = json["mqtts"].as_str().unwrap().parse().unwrap();
    let mut devices = JoinSet::new();
    for (number, name) in (0_u64..).zip(names) {
        let url = format!("https://{address}/devices/{name}?api-version={API_VERSION}");
        let identity = http.get(url).header("Authorization", &token).send().await.unwrap();
        let identity: serde_json::Value = serde_json::from_slice(&identity.bytes().await.unwrap()).unwrap();
        let key = identity["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap();
        world.keep_secret(key);
        let text = template.replace("{device_id}", &name).replace("{key}", key);
        let options = DeviceOptions {
            connection: DeviceConnection::parse(&text).unwrap(),
            address: Some(mqtts),
            connector: connector.clone(),
            turns: None,
            report: None,
            report_after: Duration::ZERO,
            refusal_ends: false,
            now: geminid::app::wall_clock,
            seed: seed + number,
        };
        devices.spawn(live(options, Arc::clone(met)));
    }
    devices
}

async fn live(mut options: DeviceOptions, met: Arc<Met>) {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    for visit in 0_u64.. {
        let report = format!(r#"{{"connectivity":"cellular","visit":{visit}}}"#);
        options.report = Value::parse_json(&report).unwrap().as_object().cloned();
        let (stop, stay) = (CancellationToken::new(), Duration::from_millis(rng.u64(STAY_MS)));
        let tell = |event: DeviceEvent| match event {
            DeviceEvent::Connected => _ = met.connected.fetch_add(1, Ordering::Relaxed),
            DeviceEvent::Desired(_) => _ = met.desired.fetch_add(1, Ordering::Relaxed),
            DeviceEvent::Disconnected { .. }
            | DeviceEvent::Twin { .. }
            | DeviceEvent::Reported
            | DeviceEvent::Refused(..)
            | DeviceEvent::Method { .. } => {}
        };
        let ended = tokio::select! {
            ended = run_device(&options, tell, &stop) => ended,
            () = tokio::time::sleep(stay) => Ok(()),
        };
        if ended.is_err() {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}
