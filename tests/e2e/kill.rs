//! `kill -9` at any moment: no acknowledged write is lost, everything converges, and nothing is written needlessly.
//!
//! The etag of a twin counts its service writes, so the hub itself keeps the account.

use std::collections::BTreeMap;
use std::time::Duration;

use geminid::twin::{Section, Twin};

use crate::support::{Client, Process, World, device, has_power_level, leaf, service_writes};

const ROUNDS: usize = 20;
const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
const SEED: u64 = 0x6765_6d69_6e69;
/// A daemon starts and writes within this time, and a file saved meanwhile is written after the quiet of 200 ms; so
/// kills come before, amid and after writes.
const LIFE_MS: std::ops::Range<u64> = 20..320;

/// What was declared of each device, and how many different manifests it has had.
struct Fleet {
    rng: fastrand::Rng,
    levels: BTreeMap<&'static str, usize>,
}

impl Fleet {
    fn new(world: &World) -> Self {
        let fleet = Self { rng: fastrand::Rng::with_seed(SEED), levels: DEVICES.map(|name| (name, 1)).into() };
        DEVICES.iter().for_each(|name| fleet.save(world, name));
        fleet
    }

    fn save(&self, world: &World, name: &str) {
        world.write(&format!("manifests/{name}.yaml"), &device(name, self.levels[name]));
    }

    /// Saves some manifests, each with a level it never had.
    fn change(&mut self, world: &World) {
        for name in DEVICES {
            if self.rng.bool() {
                *self.levels.get_mut(name).unwrap() += 1;
                self.save(world, name);
            }
        }
    }

    fn life(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(LIFE_MS))
    }

    /// Waits until every twin is as declared and sealed, and answers them.
    async fn converged(&self, daemon: &Process, hub: &Client) -> Vec<Twin> {
        let mut twins = Vec::new();
        for (name, level) in &self.levels {
            let is = async || hub.find(name).await.filter(|twin| has_power_level(twin, *level));
            twins.push(daemon.wait_until(&format!("level {level} of {name} (seed {SEED})"), is).await);
        }
        twins
    }
}

fn assert_sealed(twin: &Twin) {
    assert!(leaf(twin, Section::Tags, &["geminid", "demo", "h"]).is_some(), "{:?}", twin.tags);
}

#[tokio::test]
async fn a_daemon_killed_20_times_converges_and_writes_each_manifest_at_most_once() {
    let world = World::new();
    let mut fleet = Fleet::new(&world);
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let hub = world.client("state");
    let run = ["run", "--hub-json", "state/hub.json", "--manifests", "manifests", "--listen", "127.0.0.1:0"];
    for _ in 0..ROUNDS {
        fleet.change(&world);
        let mut daemon = world.start(&run);
        tokio::time::sleep(fleet.life()).await;
        fleet.change(&world);
        tokio::time::sleep(fleet.life()).await;
        daemon.kill();
    }

    let mut daemon = world.run_on("state/hub.json", &[]).await;
    let twins = fleet.converged(&daemon, &hub).await;
    for twin in &twins {
        let (name, writes) = (twin.device().as_str(), service_writes(&twin.etag));
        let declared = u64::try_from(fleet.levels[name]).unwrap();
        assert!((1..=declared).contains(&writes), "{name}: {writes} writes of {declared} manifests");
        assert_sealed(twin);
    }
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());

    let again = world.start(&run);
    again.says("sweep complete").await;
    again.wait_until("no twin to read", async || again.metric_in_sync(3).await).await;
    for twin in &twins {
        assert_eq!(hub.twin(twin.device().as_str()).await.etag, twin.etag, "a start with nothing to do writes nothing");
    }
}

#[tokio::test]
async fn a_daemon_killed_20_times_with_its_hub_loses_no_acknowledged_write_and_converges() {
    let world = World::new();
    let mut fleet = Fleet::new(&world);
    let (mut attempted, mut acknowledged) = (0_u32, 0_u32);
    for round in 0..ROUNDS {
        fleet.change(&world);
        let mut daemon = world.run_embedded("state", &[]).await;
        let hub = world.client("state");
        if round > 0 {
            let kept = tag(hub.find("d1").await.as_ref());
            assert!((acknowledged..=attempted).contains(&kept), "{kept}, not {acknowledged}..={attempted}");
        }
        fleet.change(&world);
        let writing = async {
            loop {
                if hub.find("d1").await.is_none() {
                    tokio::task::yield_now().await;
                    continue;
                }
                attempted += 1;
                if hub.try_tag("d1", "n", attempted).await {
                    acknowledged = attempted;
                }
            }
        };
        let life = fleet.life();
        tokio::select! {
            () = writing => {}
            () = tokio::time::sleep(life) => {}
        }
        daemon.kill();
    }
    assert!(acknowledged > 0, "something was written to lose");

    let mut daemon = world.run_embedded("state", &[]).await;
    let hub = world.client("state");
    let twins = fleet.converged(&daemon, &hub).await;
    for twin in &twins {
        let (name, writes) = (twin.device().as_str(), service_writes(&twin.etag));
        let ours = u64::try_from(fleet.levels[name]).unwrap();
        let others = if name == "d1" { u64::from(attempted) } else { 0 };
        assert!(writes <= ours + others, "{name}: {writes} writes, {ours} manifests, {others} of another client");
        assert_sealed(twin);
    }
    assert!((acknowledged..=attempted).contains(&tag(twins.first())));
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}

/// The number that the other client wrote last; 0 before the first.
fn tag(twin: Option<&Twin>) -> u32 {
    let value = twin.and_then(|twin| leaf(twin, Section::Tags, &["n"]));
    value.map_or(0, |value| value.to_json().as_u64().unwrap().try_into().unwrap())
}
