//! `geminid run` as the benchmark meets it: started, asked for its readiness and its metrics, ended.

use std::path::Path;
use std::time::Duration;

use super::PATIENCE;
use super::hub::Hub;
use super::process::{Cost, Running};

/// A running daemon.
pub(crate) struct Daemon {
    process: Running,
    client: reqwest::Client,
    served: String,
}

impl Daemon {
    /// Starts a daemon on `hub` and waits for its announcement.
    pub(crate) async fn start(hub: &Hub, manifests: &Path) -> Self {
        let mut command = super::geminid();
        command.arg("run").arg("--hub-json").arg(&hub.json).arg("--manifests").arg(manifests);
        command.args(["--listen", "127.0.0.1:0", "--sweep", "24h", "--audit-log"]).arg(hub.folder().join("audit.log"));
        let process = Running::start(&mut command, hub.folder(), "daemon");
        let announced = || {
            let said = process.output();
            let line = said.lines().find_map(|line| line.trim().strip_prefix("metrics "))?;
            Some(line.trim().trim_end_matches("/metrics").to_owned())
        };
        let served = process.until("the daemon", PATIENCE, async || announced()).await;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { process, client, served }
    }

    /// Waits until it is ready; seconds since its start.
    pub(crate) async fn ready(&self) -> f64 {
        let url = format!("{}/readyz", self.served);
        let ready = async || (self.client.get(&url).send().await.ok()?.status().as_u16() == 200).then_some(());
        self.process.until("readiness", PATIENCE, ready).await;
        self.process.seconds()
    }

    /// Waits until a metric, all its series together, is at least `least`; seconds since its start.
    pub(crate) async fn reaches(&self, metric: &str, least: f64, patience: Duration) -> f64 {
        let url = format!("{}/metrics", self.served);
        let there = async || {
            let page = self.client.get(&url).send().await.ok()?.text().await.ok()?;
            let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            let series = page.lines().filter(|line| line.starts_with(metric));
            (series.filter_map(value).sum::<f64>() >= least).then_some(())
        };
        self.process.until(metric, patience, there).await;
        self.process.seconds()
    }

    pub(crate) fn cost(&self) -> Cost {
        self.process.cost()
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}
