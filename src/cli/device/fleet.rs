//! `geminid device --count`: many devices, a line for what they are told, and now and then one for how they stand.
//!
//! Invariant: however many devices meet the same trouble, it is one line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{MissedTickBehavior, interval};

use super::{DeviceArgs, RATE_DEFAULT, SettingsArgs, line, seed, trust};
use crate::app::{HubParts, Progress, allow_connections, start_logging, wall_clock};
use crate::cli::args::{Access, DEMO_OWNER, HubJson, log_options};
use crate::cli::output::Output;
use crate::cli::stop::until_stopped;
use crate::device::{
    Connector, DeviceConnection, DeviceEvent, FleetOptions, Member, PLACEHOLDER, Tally, members, run_fleet,
};
use crate::hub::{HubError, RestHub};
use crate::twin::DeviceId;

/// How the devices are called where nobody says; a hub that was filled for trials calls them so too.
const ID_DEFAULT: &str = "device-{n}";
/// How often is told how the fleet stands, when that changed.
const SUMMARY_PERIOD: Duration = Duration::from_secs(10);

/// Simulates `count` devices until a signal.
pub(super) async fn run(args: &DeviceArgs, count: u64) -> anyhow::Result<u8> {
    let id = args.id.as_deref().unwrap_or(ID_DEFAULT);
    debug_assert!(ID_DEFAULT.contains(PLACEHOLDER), "the default has a place for the number");
    let members = members(count, id, args.report.as_deref())?;
    allow_connections(count).context("--count")?;
    let hub = DevicesHub::open(args)?;
    let options = FleetOptions {
        rate: args.rate.unwrap_or(RATE_DEFAULT),
        address: hub.address,
        connector: hub.connector.clone(),
        now: wall_clock,
        seed: seed(),
    };
    let (ended, _) = until_stopped(async |stop| -> anyhow::Result<()> {
        if let Some(first) = members.first() {
            let found = stop.run_until_cancelled(hub.check(&first.id)).await;
            found.transpose()?;
        }
        let teller = Arc::new(Teller::new(&members));
        let (told, hub) = (Arc::clone(&teller), Arc::new(hub));
        let connection_of = move |device| {
            let hub = Arc::clone(&hub);
            async move { hub.connection(device).await.map_err(|error| reason(&error)) }
        };
        let fleet = run_fleet(members, options, connection_of, move |index, event| told.tell(index, &event), &stop);
        tokio::pin!(fleet);
        let mut summaries = interval(SUMMARY_PERIOD);
        summaries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        summaries.reset();
        loop {
            tokio::select! {
                () = &mut fleet => break,
                _ = summaries.tick() => teller.sum_up(),
            }
        }
        teller.sum_up();
        Ok(())
    })
    .await?;
    ended.map(|()| 0)
}

/// The hub of the devices: where they connect, and who knows their keys.
struct DevicesHub {
    rest: RestHub,
    host: String,
    address: Option<SocketAddr>,
    connector: Connector,
}

impl DevicesHub {
    /// From `--hub-json` or the settings; from now on there are log lines.
    fn open(args: &DeviceArgs) -> anyhow::Result<Self> {
        let from = SettingsArgs { settings: args.settings.clone(), hub_json: args.hub_json.clone(), owner: None };
        let mut settings = from.load(None, Access::Owner)?;
        if settings.hubs.is_empty() {
            bail!("--count needs the devices' hub, where their keys are read; name it with --hub-json or --settings");
        }
        settings.owner.get_or_insert_with(|| DEMO_OWNER.to_owned());
        start_logging(&log_options(&settings, &args.log)?, &Progress::hidden(), None)?;
        let HubParts { hub: rest, settings: hub, .. } = from.one_hub(&settings, args.hub.as_deref())?;
        let host = rest.address().host().to_owned();
        let address = match &args.hub_json {
            None => None,
            Some(file) => {
                let address = HubJson::read(file)?.field("mqtts")?.to_owned();
                Some(address.parse().context("--hub-json: mqtts is no address")?)
            }
        };
        let connector = Connector::new(&trust(args, hub.ca_file.as_ref())?)?;
        Ok(Self { rest, host, address, connector })
    }

    /// Whether keys can be read at all: what the first device meets that waiting does not mend, all would meet.
    async fn check(&self, first: &DeviceId) -> anyhow::Result<()> {
        match self.rest.device_key(first).await {
            Err(HubError::NotFound(_)) => bail!(
                "device {first} is not registered at {}; register the devices first (manifests with `create: true`, or \
                 `geminid hub --fill-devices`), or say with --id how they are called",
                self.host
            ),
            Err(error @ (HubError::Unauthorized { .. } | HubError::Rejected { .. })) => Err(error.into()),
            Ok(_)
            | Err(
                HubError::PreconditionFailed
                | HubError::AlreadyExists(_)
                | HubError::Throttled { .. }
                | HubError::Quota
                | HubError::QuotaShare
                | HubError::Server { .. }
                | HubError::Transport { .. },
            ) => Ok(()),
        }
    }

    async fn connection(&self, device: DeviceId) -> Result<DeviceConnection, HubError> {
        let key = self.rest.device_key(&device).await?;
        DeviceConnection::new(&self.host, device, &key)
            .map_err(|error| HubError::Server { status: None, message: error.to_string() })
    }
}

/// Why a device has no key, without its name.
fn reason(error: &HubError) -> String {
    match error {
        HubError::NotFound(_) => "the device is not registered".to_owned(),
        HubError::PreconditionFailed
        | HubError::AlreadyExists(_)
        | HubError::Throttled { .. }
        | HubError::Quota
        | HubError::QuotaShare
        | HubError::Unauthorized { .. }
        | HubError::Rejected { .. }
        | HubError::Server { .. }
        | HubError::Transport { .. } => error.to_string(),
    }
}

/// Who tells what happens to the devices.
struct Teller {
    ids: Vec<DeviceId>,
    state: Mutex<Told>,
}

struct Told {
    tally: Tally,
    /// How it stood when that was told last.
    last: Option<Tally>,
    /// Whether it was told that all are connected, since one was not.
    all_told: bool,
    out: Output<std::io::Stdout>,
}

impl Teller {
    fn new(members: &[Member]) -> Self {
        let ids: Vec<DeviceId> = members.iter().map(|member| member.id.clone()).collect();
        let tally = Tally::new(ids.len());
        Self {
            ids,
            state: Mutex::new(Told { tally, last: None, all_told: false, out: Output::stdout().beside_the_work() }),
        }
    }

    /// Counts it; what a device was told is a result, the rest is for who asks for more.
    fn tell(&self, index: usize, event: &DeviceEvent) {
        let Some(id) = self.ids.get(index) else { return };
        let mut told = self.told();
        told.tally.hear(index, event);
        match event {
            DeviceEvent::Desired(_) | DeviceEvent::Method { .. } => told.out.line(&line(id.as_str(), event)),
            DeviceEvent::Connected => tracing::debug!(twin = %id, "connected"),
            DeviceEvent::Disconnected { reason, again_in } => {
                tracing::debug!(twin = %id, reason, ?again_in, "not connected");
            }
            DeviceEvent::Twin { .. } => tracing::debug!(twin = %id, "read its twin"),
            DeviceEvent::Reported => tracing::debug!(twin = %id, "reported"),
            DeviceEvent::Refused(status, words) => tracing::debug!(twin = %id, status, words, "refused"),
        }
        let all = told.tally.totals().connected == self.ids.len();
        if all && !told.all_told {
            told.sum_up();
        }
        told.all_told = all;
    }

    /// Tells how the fleet stands, when that changed.
    fn sum_up(&self) {
        self.told().sum_up();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn sum_up(&mut self) {
        if self.last.as_ref() == Some(&self.tally) {
            return;
        }
        let totals = self.tally.totals();
        let (away, refused) = (self.tally.away(), self.tally.refused());
        tracing::info!(
            devices = self.tally.devices(),
            connected = totals.connected,
            reports = totals.reports,
            patches = totals.patches,
            methods = totals.methods,
            away,
            refused,
            "fleet"
        );
        self.last = Some(self.tally.clone());
    }
}
