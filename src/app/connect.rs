//! Settings of one hub to a client of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use prometheus::Registry;
use secrecy::{ExposeSecret as _, SecretString};

use crate::hub::{
    BudgetOptions, Budgeted, ConnectionString, HubBudget, Observed, ProxyOptions, RestHub, RestOptions, Tier,
};
use crate::metrics::Metrics;
use crate::plan::{GuardLimits, Owner, Policy, Salt, SealScope};
use crate::settings::{HubSettings, Secret, Settings};

/// The largest connection string or certificate file read, in bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// One hub, ready to be asked.
#[derive(Debug)]
pub struct HubParts {
    /// Its name in the settings.
    pub name: String,
    /// How it is treated.
    pub settings: HubSettings,
    /// Our seals on it.
    pub scope: SealScope,
    /// The client.
    pub hub: RestHub,
    /// How fast it may be asked.
    pub budget: BudgetOptions,
    /// The policy of the credential.
    pub policy: String,
}

/// A hub as everybody here asks it. The waiting is outside of the counting: a request's duration is the hub's alone.
pub type PacedHub = Budgeted<Observed<RestHub>>;

impl HubParts {
    /// The hub, asked at its budget's pace and told to `metrics`.
    #[must_use]
    pub fn paced(self, metrics: &Metrics) -> PacedHub {
        let budget = HubBudget::new(&self.name, self.budget, metrics.budget.hub(&self.name));
        Budgeted::new(Observed::new(self.hub, metrics.client.hub(&self.name)), budget)
    }

    /// The hub, asked at its budget's pace, for a command that serves no metrics.
    ///
    /// # Errors
    /// When counters cannot be set up.
    pub fn paced_alone(self) -> anyhow::Result<PacedHub> {
        let metrics = Metrics::register(&Registry::new(), &[&self.name]).context("cannot set up counters")?;
        Ok(self.paced(&metrics))
    }

    /// What may be done on this hub.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let guards = GuardLimits {
            removals: self.settings.removals,
            from: self.settings.removals_from,
            ..GuardLimits::default()
        };
        Policy { guards, ..Policy::default() }
    }
}

/// Every hub of the settings.
///
/// # Errors
/// One sentence naming the hub: no owner, a connection string or certificate that cannot be read or used, two entries
/// with one host.
pub fn hub_parts(settings: &Settings) -> anyhow::Result<Vec<HubParts>> {
    if settings.hubs.is_empty() {
        bail!("no hub is configured; name one in a settings file (--settings), or try --embedded-hub");
    }
    let owner =
        settings.owner.as_deref().context("no owner is set; add `owner = \"...\"` or --owner, one per instance")?;
    let owner = Owner::new(owner)?;
    let mut parts: Vec<HubParts> = Vec::new();
    for (name, hub) in &settings.hubs {
        let made = one_hub(settings, name, hub, &owner).map_err(|error| anyhow!("hub {name}: {error:#}"))?;
        if let Some(other) = parts.iter().find(|other| other.scope.host == made.scope.host) {
            bail!("hubs {} and {name} are the same hub {}; keep one of them", other.name, made.scope.host);
        }
        parts.push(made);
    }
    Ok(parts)
}

fn one_hub(settings: &Settings, name: &str, hub: &HubSettings, owner: &Owner) -> anyhow::Result<HubParts> {
    let text = match &hub.connection {
        Secret::Value(value) => value.clone(),
        Secret::File(file) => SecretString::from(hub_file(file).context("connection_string_file")?),
    };
    let budget = budget_options(hub)?;
    let connection = ConnectionString::parse(text.expose_secret())?;
    let mut scope = SealScope::new(owner.clone(), connection.address().host());
    let mut rng = fastrand::Rng::new();
    scope.salt = Salt::new([rng.u64(..), rng.u64(..)]);
    let policy = connection.policy().to_owned();
    let mut options = RestOptions::new(wall_clock);
    if let Some(file) = &hub.ca_file {
        options.extra_ca_pem = Some(hub_file(file).context("ca_file")?.into_bytes());
    }
    if let Some(url) = &settings.https_proxy {
        let except = settings.no_proxy.clone().unwrap_or_default();
        options.proxy = Some(ProxyOptions { url: SecretString::from(url.as_str()), except });
    }
    let client = RestHub::new(connection, options)?;
    Ok(HubParts { name: name.to_owned(), settings: hub.clone(), scope, hub: client, budget, policy })
}

fn budget_options(hub: &HubSettings) -> anyhow::Result<BudgetOptions> {
    let tier = match &hub.tier {
        None => None,
        Some(name) => {
            let tier = Tier::named(name).with_context(|| {
                format!("tier: {name:?} is none of F1, S1, S2, S3 and none; basic tiers have no twins")
            })?;
            let (units, most) = (hub.units, tier.units_max());
            if !(1..=most).contains(&units) {
                bail!("units: {units}: a hub of tier {name} has 1 to {most} units");
            }
            Some((tier, units))
        }
    };
    Ok(BudgetOptions { tier, share: hub.budget, quota_share: hub.quota_share, wall_clock: system_time })
}

/// The text of a small file.
///
/// # Errors
/// Naming the file; never its content.
pub fn hub_file(path: &Path) -> anyhow::Result<String> {
    let length = fs::metadata(path).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?.len();
    if length > FILE_SIZE_MAX {
        bail!("{} has {length} bytes, at most {FILE_SIZE_MAX} are read", path.display());
    }
    fs::read_to_string(path).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))
}

/// The wall clock of everything that needs one.
#[expect(clippy::disallowed_methods, reason = "the composition root hands the clock in")]
#[must_use]
pub fn wall_clock() -> Timestamp {
    Timestamp::now()
}

/// The same clock in the standard library's type.
pub(super) fn system_time() -> std::time::SystemTime {
    wall_clock().into()
}
