//! A fleet in sync: a pass with nothing to do, a hundredth that drifted, a daemon that starts again.

use std::path::Path;
use std::time::Duration;

use super::arguments::Arguments;
use super::contender::{Contender, Files};
use super::daemon::Daemon;
use super::hub::{Hub, PAGE, Setting, host, well_known};
use super::process::Cost;
use super::twins;
use super::wire::{self, Counts, Proxy};

/// One twin in so many drifts.
const DRIFTED: usize = 100;
/// Turns of the same scenario after another begin here, so that no drift is like another.
const TURNS: usize = 10_000;
const SWEPT: &str = "geminid_sweep_last_complete_timestamp_seconds";
const SWEEP_TIME_MAX: Duration = Duration::from_secs(120);

/// What is done on a fleet in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// `geminid apply` where nothing changed.
    Nothing,
    /// `geminid apply` after a hundredth drifted.
    Drift,
    /// `geminid run`: until it is ready.
    Ready,
    /// The same until its first sweep is complete.
    FirstSweep,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Nothing, Self::Drift, Self::Ready, Self::FirstSweep];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "`apply`, nothing to do",
            Self::Drift => "`apply`, 1 % drifted",
            Self::Ready => "`run` started again, until ready",
            Self::FirstSweep => "`run` started again, until the first sweep is complete",
        }
    }

    /// Does it once.
    async fn act(self, hub: &Hub, files: &Files, count: usize, turn: usize) -> Cost {
        match self {
            Self::Nothing => Contender::Geminid.run(hub, files, count).await,
            Self::Drift => {
                let cost = Contender::Geminid.run(hub, files, count).await;
                hub.verify(count).await;
                cost
            }
            Self::Ready | Self::FirstSweep => {
                let daemon = Daemon::start(hub, &files.manifests).await;
                let wall_s = if self == Self::Ready {
                    daemon.ready().await
                } else {
                    daemon.reaches(SWEPT, 1.0, SWEEP_TIME_MAX).await
                };
                let cost = Cost { wall_s, ..daemon.cost() };
                daemon.stop().await;
                super::say(&format!("{count} twins, {}, turn {turn}: {wall_s:.2} s", self.name()));
                cost
            }
        }
    }

    async fn prepare(self, hub: &Hub, count: usize, turn: usize) {
        if self == Self::Drift {
            hub.let_drift(0..drifted(count), TURNS + turn, &twins::drift_under_seal(TURNS + turn)).await;
        }
    }
}

/// How many of a fleet drift.
pub(crate) fn drifted(count: usize) -> usize {
    count.div_ceil(DRIFTED)
}

/// What a scenario took in each round, and what it asked of the hub once.
pub(crate) struct Quiet {
    pub(crate) twins: usize,
    pub(crate) scenario: Scenario,
    pub(crate) costs: Vec<Cost>,
    pub(crate) counts: Counts,
}

/// All scenarios: timed on one hub, counted on another.
pub(crate) async fn quiet(folder: &Path, arguments: &Arguments) -> Vec<Quiet> {
    let (folder, count) = (folder.join("quiet"), arguments.swept);
    let files = Files::write(&folder, count);
    let mut found = Vec::new();
    let setting = Setting { name: "timed", devices: count, host: host(0), https: format!("{}:0", host(0)), more: &[] };
    let hub = Hub::start(&folder, &setting).await;
    Contender::Geminid.run(&hub, &files, count).await;
    for scenario in Scenario::ALL {
        let mut costs = Vec::new();
        for round in 0..arguments.rounds {
            scenario.prepare(&hub, count, round).await;
            costs.push(scenario.act(&hub, &files, count, round).await);
        }
        found.push(Quiet { twins: count, scenario, costs, counts: Counts::default() });
    }
    hub.stop().await;

    let host = host(1);
    let front = well_known(&host).unwrap_or_else(|trouble| panic!("{trouble}"));
    let https = format!("{host}:0");
    let setting = Setting { name: "counted", devices: count, host: host.clone(), https, more: &wire::LOGGING };
    let mut hub = Hub::start(&folder, &setting).await;
    let proxy = Proxy::start(&front, &hub.address).await;
    hub.behind(&host);
    Contender::Geminid.run(&hub, &files, count).await;
    for quiet in &mut found {
        quiet.scenario.prepare(&hub, count, arguments.rounds).await;
        let (logged, before) = (hub.log().len(), proxy.seen());
        quiet.scenario.act(&hub, &files, count, arguments.rounds).await;
        let (log, seen) = (hub.log(), proxy.seen().since(before));
        let answers = wire::answered(&log[logged..]);
        // The benchmark itself looks at the fleet after a drift, past the proxy.
        let ours = if quiet.scenario == Scenario::Drift { count.div_ceil(PAGE) } else { 0 };
        quiet.counts = Counts::of(&answers, seen);
        quiet.counts.queries -= ours;
    }
    hub.stop().await;
    found
}
