//! A small fleet: its manifests, and the account of its writes.
//!
//! Invariant: a level is declared once, so a twin at level n was written at most n times by us.

use geminid::twin::{Section, Twin};

use crate::support::{Client, Process, World, device, has_power_level, leaf, service_writes};

/// Twins with one leaf that rises.
pub(crate) struct Fleet {
    size: usize,
    level: usize,
}

impl Fleet {
    /// So many devices at level 1, which the daemon registers.
    pub(crate) fn new(world: &World, size: usize) -> Self {
        let fleet = Self { size, level: 1 };
        fleet.save(world);
        fleet
    }

    /// The level declared last, which is the number of levels.
    pub(crate) fn level(&self) -> u64 {
        self.level as u64
    }

    /// Declares the next level of every twin.
    pub(crate) fn rise(&mut self, world: &World) {
        self.level += 1;
        self.save(world);
    }

    fn save(&self, world: &World) {
        for name in self.names() {
            world.write(&format!("manifests/{name}.yaml"), &device(&name, self.level));
        }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        (0..self.size).map(|number| format!("d{number:04}"))
    }

    /// Waits until every twin is as declared, asking the hub alone.
    pub(crate) async fn at_the_hub(&self, daemon: &Process, hub: &Client) -> Vec<Twin> {
        let mut twins = Vec::new();
        for name in self.names() {
            let is = async || hub.find(&name).await.filter(|twin| has_power_level(twin, self.level));
            twins.push(daemon.wait_until(&format!("level {} of {name}", self.level), is).await);
        }
        twins
    }

    /// Waits until every twin is as declared and the daemon knows it, and answers them.
    pub(crate) async fn converged(&self, daemon: &Process, hub: &Client) -> Vec<Twin> {
        let twins = self.at_the_hub(daemon, hub).await;
        let size = u32::try_from(self.size).unwrap();
        daemon.wait_until("twins in sync", async || daemon.metric_in_sync(size).await).await;
        twins
    }

    /// That each twin is sealed and was written once for each level, by nobody else and no more.
    pub(crate) async fn assert_accounted(&self, daemon: &Process, hub: &Client) {
        for twin in self.converged(daemon, hub).await {
            assert!(leaf(&twin, Section::Tags, &["geminid", "demo", "h"]).is_some(), "{:?}", twin.tags);
            let writes = service_writes(&twin.etag);
            assert_eq!(writes, u64::try_from(self.level).unwrap(), "{}: {:?}", twin.device(), twin.desired);
        }
    }
}
