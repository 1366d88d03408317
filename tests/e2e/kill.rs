//! `kill -9` at any moment: no acknowledged write is lost, everything converges, and nothing is written needlessly.
//!
//! The etag of a twin counts its service writes, so the hub itself keeps the account.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use geminid::twin::{Section, Twin};

use crate::support::{Client, Process, World, device, has_power_level, leaf, service_writes};

const ROUNDS: usize = 20;
const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
const SEED: u64 = 0x6765_6d69_6e69;
/// From its start: before, amid and after the first sweep and its writes.
const STARTED_MS: Range<u64> = 10..160;
/// From the saving of a file, which is written after 200 ms of quiet: before, amid and after that.
const SAVED_MS: Range<u64> = 180..260;

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

    fn life(&mut self, range_ms: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range_ms))
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
    // Each level is one more than the one before, so no more writes are needed than the live level rises.
    let mut accounted: BTreeMap<&str, (u64, u64)> = DEVICES.map(|name| (name, (0, 0))).into();
    for round in 0..ROUNDS {
        fleet.change(&world);
        let mut daemon = world.start(&run);
        tokio::time::sleep(fleet.life(STARTED_MS)).await;
        if round % 2 == 0 {
            fleet.change(&world);
            tokio::time::sleep(fleet.life(SAVED_MS)).await;
        }
        daemon.kill();
        for (name, (writes, level)) in &mut accounted {
            let Some(twin) = hub.find(name).await else { continue };
            let (writes_now, level_now) = (service_writes(&twin.etag), number(&twin, Section::Desired, "power_level"));
            let needed = level_now - *level;
            assert!(writes_now - *writes <= needed, "round {round}: {name} went {needed} levels up (seed {SEED})");
            (*writes, *level) = (writes_now, level_now);
        }
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
    let (mut attempted, mut acknowledged) = (0_u64, 0_u64);
    for round in 0..ROUNDS {
        fleet.change(&world);
        let mut daemon = world.run_embedded("state", &[]).await;
        let hub = world.client("state");
        if round > 0 {
            let kept = hub.find("d1").await.map_or(0, |twin| number(&twin, Section::Tags, "n"));
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
        let life = fleet.life(SAVED_MS);
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
        let others = if name == "d1" { attempted } else { 0 };
        assert!(writes <= ours + others, "{name}: {writes} writes, {ours} manifests, {others} of another client");
        assert_sealed(twin);
    }
    assert!((acknowledged..=attempted).contains(&number(&twins[0], Section::Tags, "n")));
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}

/// A number at the top of a section; 0 while it is not there.
fn number(twin: &Twin, section: Section, key: &str) -> u64 {
    leaf(twin, section, &[key]).map_or(0, |value| value.to_json().as_u64().unwrap())
}
