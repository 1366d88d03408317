//! Settings of one hub to a client of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::hub::{ConnectionString, ProxyOptions, RestHub, RestOptions};
use crate::plan::{GuardLimits, Mode, Owner, Policy, Salt, SealScope};
use crate::settings::{GuardSettings, HubSettings, ModeSetting, Secret, Settings};

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
    /// The policy of the credential.
    pub policy: String,
    /// What is done about differences.
    pub mode: Mode,
    /// Whether the settings suspend every hub.
    pub all_suspended: bool,
}

impl HubParts {
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
        Policy { guards, mode: self.mode, suspend, prune: true }
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
    let connection = ConnectionString::parse(text.expose_secret())?;
    let mut scope = SealScope::new(owner.clone(), connection.address().host());
    let mut rng = fastrand::Rng::new();
    scope.seals = hub.seals;
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
    let mode = match settings.mode {
        ModeSetting::Sync => Mode::Sync,
        ModeSetting::Upsert => Mode::Upsert,
        ModeSetting::Observe => Mode::Observe,
    };
    let all_suspended = settings.suspend;
    Ok(HubParts { name: name.to_owned(), settings: hub.clone(), scope, hub: client, policy, mode, all_suspended })
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
