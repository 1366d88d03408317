//! Settings of one hub to a client of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use prometheus::Registry;
use secrecy::SecretString;

use crate::hub::{
    BudgetOptions, Budgeted, EntraCredential, EntraOptions, HubAddress, HubBudget, Login, Observed, ProxyOptions,
    RestHub, RestOptions, SecretText, Tier,
};
use crate::manifest::{MetricPrefix, PageBudget, Rules, Seals};
use crate::metrics::Metrics;
use crate::plan::{BUSY_PART, GuardLimits, Mode, Owner, Policy, Salt, SealScope, Subtree};
use crate::settings::{
    AzureEnvironment, EntraKind, GuardSettings, HubSettings, LoginSettings, ModeSetting, Secret, Settings,
    TIER_DEFAULT, hub_defaults,
};

/// The largest connection string or certificate file read, in bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// What is said where a hub is needed and none is named.
pub const NO_HUB: &str = "no hub is configured; name one in a settings file (--settings), take that of `geminid \
                          hub` with --hub-json, or try `geminid run --embedded-hub`";

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
    /// What is done about differences.
    pub mode: Mode,
    /// Whether the settings suspend every hub.
    pub all_suspended: bool,
    /// What its manifests must keep to.
    pub rules: Rules,
}

/// A hub as everybody here asks it. The waiting is outside of the counting: a request's duration is the hub's alone.
pub type PacedHub = Budgeted<Observed<RestHub>>;

impl HubParts {
    /// The hub, asked at its budget's pace and told to `metrics`.
    #[must_use]
    pub fn paced(self, metrics: &Metrics) -> PacedHub {
        let budget = HubBudget::new(&self.name, self.budget, metrics.budget.hub(&self.name));
        Budgeted::new(Observed::with_tokens(self.hub, metrics.client.hub(&self.name)), budget)
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
    pub fn rules(&self) -> Policy {
        let GuardSettings { removals, creates, updates, from } = self.settings.guards;
        let suspend = if self.all_suspended {
            Some("`suspend` in the settings".to_owned())
        } else {
            self.settings.suspend.then(|| format!("`hubs.{}.suspend` in the settings", self.name))
        };
        let guards = GuardLimits { removals, creates, updates, from };
        Policy { guards, mode: self.mode, suspend, prune: true, approvals: Vec::new() }
    }
}

/// Every hub of the settings.
///
/// # Errors
/// One sentence naming the hub: no owner, a connection string or certificate that cannot be read or used, two entries
/// with one host.
pub fn hub_parts(settings: &Settings) -> anyhow::Result<Vec<HubParts>> {
    if settings.hubs.is_empty() {
        bail!("{NO_HUB}");
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
    let mut options = RestOptions::new(wall_clock);
    if let Some(file) = &hub.ca_file {
        options.extra_ca_pem = Some(hub_file(file).context("ca_file")?.into_bytes());
    }
    if let Some(url) = &settings.https_proxy {
        let except = settings.no_proxy.clone().unwrap_or_default();
        options.proxy = Some(ProxyOptions { url: url.clone(), except });
    }
    let budget = budget_options(hub)?;
    let client = sign_in(&hub.login, &options)?;
    let mut scope = SealScope::new(owner.clone(), client.address().host());
    let mut rng = fastrand::Rng::new();
    scope.seals = hub.seals;
    scope.salt = Salt::new([rng.u64(..), rng.u64(..)]);
    let mode = match settings.mode {
        ModeSetting::Sync => Mode::Sync,
        ModeSetting::Upsert => Mode::Upsert,
        ModeSetting::Observe => Mode::Observe,
    };
    let all_suspended = settings.suspend;
    let rules = manifest_rules(settings, hub)?;
    Ok(HubParts {
        name: name.to_owned(),
        settings: hub.clone(),
        scope,
        hub: client,
        budget,
        mode,
        all_suspended,
        rules,
    })
}

/// What a hub's settings demand of its manifests.
///
/// # Errors
/// Naming the setting: a path of `allow` that is none, or a prefix that cannot begin a metric's name.
pub fn manifest_rules(settings: &Settings, hub: &HubSettings) -> anyhow::Result<Rules> {
    let allow: anyhow::Result<Vec<Subtree>> =
        hub.allow.iter().map(|path| Subtree::parse(path).map_err(|error| anyhow!("allow: {error}"))).collect();
    let seals = match &settings.owner {
        _ if !hub.seals => Seals::Off,
        Some(owner) => Seals::Owner(owner.clone()),
        None => Seals::Unknown,
    };
    let metric_prefix = match &settings.metric_prefix {
        Some(prefix) => MetricPrefix::new(prefix).map_err(|error| anyhow!("metric_prefix: {error}"))?,
        None => MetricPrefix::default(),
    };
    Ok(Rules { allow: allow?, seals, metric_prefix, pages: page_budget(hub)? })
}

/// The pages that twin queries may ask for: what sweeps leave of our share of the hub.
fn page_budget(hub: &HubSettings) -> anyhow::Result<Option<PageBudget>> {
    let BudgetOptions { tier, share, .. } = budget_options(hub)?;
    Ok(tier.map(|(tier, units)| {
        let of_hub = tier.pages_per_second(units) * 60.0;
        let name = hub.tier.as_deref().unwrap_or_default().to_uppercase();
        PageBudget {
            pages_per_minute: of_hub * share * (1.0 - BUSY_PART),
            words: format!(
                "tier {name} x {units}: {of_hub:.0} a minute x budget {share} x {} beside sweeps",
                1.0 - BUSY_PART
            ),
        }
    }))
}

/// What manifests must keep to where no settings are known: only the budget of the smallest hub, by default.
///
/// # Errors
/// None that a default could cause.
pub fn default_rules() -> anyhow::Result<Rules> {
    let hub = HubSettings {
        tier: Some(TIER_DEFAULT.to_owned()),
        ..hub_defaults(PathBuf::new(), Secret::Value(SecretString::default()), None)
    };
    Ok(Rules { pages: page_budget(&hub)?, ..Rules::default() })
}

/// The client of a hub, with its credential.
fn sign_in(login: &LoginSettings, options: &RestOptions) -> anyhow::Result<RestHub> {
    let address = |host: &str| HubAddress::parse(host).context("host");
    let client = match login {
        LoginSettings::ConnectionString(Secret::Value(value)) => {
            let value = value.clone();
            RestHub::new(Login::connection_strings(Arc::new(move || Ok(value.clone())))?, options)?
        }
        LoginSettings::ConnectionString(Secret::File(file)) => {
            let login = Login::connection_strings(text_of(file)).context("connection_string_file")?;
            RestHub::new(login, options)?
        }
        LoginSettings::SasToken { host, file } => {
            let login = Login::signature(address(host)?, text_of(file)).context("sas_token_file")?;
            RestHub::new(login, options)?
        }
        LoginSettings::Entra { host, credential, environment } => {
            let credential = entra_credential(*credential, environment)?;
            let authority_host = environment.authority_host.clone();
            let entra = EntraOptions { credential, authority_host, clock: wall_clock };
            RestHub::with_entra(address(host)?, entra, options)?
        }
    };
    Ok(client)
}

/// The text of a file, each time it is asked for.
fn text_of(file: &Path) -> SecretText {
    let file = file.to_owned();
    Arc::new(move || secret_file(&file).map_err(|error| format!("{error:#}")))
}

/// The credential of `kind` with what the environment says of it.
fn entra_credential(kind: EntraKind, environment: &AzureEnvironment) -> anyhow::Result<EntraCredential> {
    fn needed<T: Clone>(kind: EntraKind, value: Option<&T>, name: &str) -> anyhow::Result<T> {
        value.cloned().with_context(|| format!("{name} is not set; credential {} needs it", kind.as_str()))
    }
    let tenant_id = || needed(kind, environment.tenant_id.as_ref(), "AZURE_TENANT_ID");
    let client_id = || needed(kind, environment.client_id.as_ref(), "AZURE_CLIENT_ID");
    Ok(match kind {
        EntraKind::WorkloadIdentity => EntraCredential::WorkloadIdentity {
            tenant_id: tenant_id()?,
            client_id: client_id()?,
            token_file: needed(kind, environment.federated_token_file.as_ref(), "AZURE_FEDERATED_TOKEN_FILE")?,
        },
        EntraKind::ManagedIdentity => EntraCredential::ManagedIdentity { client_id: environment.client_id.clone() },
        EntraKind::ClientSecret => EntraCredential::ClientSecret {
            tenant_id: tenant_id()?,
            client_id: client_id()?,
            secret: needed(kind, environment.client_secret.as_ref(), "AZURE_CLIENT_SECRET")?,
        },
        EntraKind::ClientCertificate => EntraCredential::ClientCertificate {
            tenant_id: tenant_id()?,
            client_id: client_id()?,
            file: needed(kind, environment.client_certificate.as_ref(), "AZURE_CLIENT_CERTIFICATE_PATH")?,
        },
        EntraKind::DeveloperTools => EntraCredential::DeveloperTools,
    })
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

/// The text of a small file that holds a secret.
///
/// # Errors
/// As [`hub_file`].
pub fn secret_file(path: &Path) -> anyhow::Result<SecretString> {
    hub_file(path).map(SecretString::from)
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
