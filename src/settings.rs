//! The daemon's own settings: one file, the environment over it, flags over both.
//!
//! Invariants: the only reader of the environment. Every key is known or refused in one sentence; secrets are wrapped
//! where they are read and never printed.

mod environment;
mod form;
mod login;
mod raw;
mod value;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError, File, FileFormat};
use secrecy::SecretString;

use environment::{Place, known_variables, place_of};
pub use login::{AzureEnvironment, EntraKind, LoginSettings};
use raw::{RawSettings, settings_of};
pub use value::{check_log_level, parse_audit_log, parse_duration, parse_log_format, parse_sweep};

/// Where the daemon listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9797";
const SWEEP_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// The smallest standard tier: who has a larger one and forgets to say so is slow, not throttled.
pub const TIER_DEFAULT: &str = "S1";
/// The largest settings file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The word for a hub that is asked without any limit.
const TIER_NONE: &str = "none";
/// Our part of the hub's rates: they are shared with everybody who uses the hub, devices that report included.
const BUDGET_DEFAULT: f64 = 0.5;
/// Our part of the hub's messages a day.
const QUOTA_SHARE_DEFAULT: f64 = 0.1;
const VERIFY_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the settings cannot be used. One sentence, with the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or does not fit.
    #[error("settings: {0}")]
    File(String),
    /// A variable of ours that nobody reads.
    #[error("environment variable {name} is not a setting; known are {}", known_variables())]
    Variable {
        /// Its name.
        name: String,
    },
    /// A variable whose text is not what the setting holds.
    #[error("environment variable {name} does not fit; {remedy}")]
    Text {
        /// Its name.
        name: String,
        /// What would do.
        remedy: String,
    },
    /// A value that does not fit.
    #[error("{}{key}: {problem}", if key.starts_with("--") { "" } else { "settings: " })]
    Value {
        /// The key, dotted.
        key: String,
        /// What is wrong, and what would do.
        problem: String,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a connection string comes from.
#[derive(Debug, Clone)]
pub enum Secret {
    /// A file, read anew when a key is refused.
    File(PathBuf),
    /// The environment.
    Value(SecretString),
}

/// One hub.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// How to sign in.
    pub login: LoginSettings,
    /// Certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Time from one sweep to the next.
    pub sweep: Duration,
    /// Every sealed twin is read again within this time.
    pub verify: Duration,
    /// The hub's tier, such as `S1`; `None` asks without any limit.
    pub tier: Option<String>,
    /// How many units it has.
    pub units: u32,
    /// Our part of its rates, more than 0 and at most 1.
    pub budget: f64,
    /// Our part of its messages a day, more than 0 and at most 1.
    pub quota_share: f64,
    /// What the guards let pass.
    pub guards: GuardSettings,
    /// Whether what is written is recorded in the twins; without that nothing is ever removed.
    pub seals: bool,
    /// Nothing is done on this hub.
    pub suspend: bool,
    /// The paths manifests may declare, such as `tags.location`; empty for every path.
    pub allow: Vec<String>,
}

/// Shares of the fleet that may pass within 24 h, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardSettings {
    /// Twins that lose something.
    pub removals: f64,
    /// Devices registered.
    pub creates: f64,
    /// Twins changed.
    pub updates: f64,
    /// Up to this many twins the shares are not asked.
    pub from: usize,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { removals: 0.3, creates: 0.3, updates: 1.0, from: 10 }
    }
}

/// What is done about differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeSetting {
    /// Everything.
    #[default]
    Sync,
    /// Everything but removals.
    Upsert,
    /// Nothing.
    Observe,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Who owns what this process writes.
    pub owner: Option<String>,
    /// Address of `/metrics` and the probes.
    pub listen: String,
    /// Address of `/api/v1`; `None` serves it beside `/metrics`.
    pub api_listen: Option<String>,
    /// The file with the bearer token of the API; without it nothing can be asked of the daemon.
    pub api_token_file: Option<PathBuf>,
    /// Who may see `/metrics`, and over what: exporter-toolkit's web configuration.
    pub web_config: Option<PathBuf>,
    /// File with a token that lets a client see `/metrics`.
    pub metrics_token_file: Option<PathBuf>,
    /// What the metrics of twin queries begin with; `None` for `twinquery_`.
    pub metric_prefix: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or tracing directives.
    pub log_level: String,
    /// What is done about differences, on every hub.
    pub mode: ModeSetting,
    /// Nothing is done on any hub.
    pub suspend: bool,
    /// Where every write is recorded: `stdout` or a file. `run` records on standard output unless told otherwise,
    /// a single pass nowhere.
    pub audit_log: Option<String>,
    /// The hubs by name.
    pub hubs: BTreeMap<String, HubSettings>,
    /// `HTTPS_PROXY`, which may hold a user and a password.
    pub https_proxy: Option<SecretString>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// Whether terminals may be coloured: `NO_COLOR` is not set.
    pub colour: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: None,
            owner: None,
            listen: LISTEN_DEFAULT.to_owned(),
            api_listen: None,
            api_token_file: None,
            web_config: None,
            metrics_token_file: None,
            metric_prefix: None,
            log_format: LogFormat::default(),
            log_level: "info".to_owned(),
            mode: ModeSetting::default(),
            suspend: false,
            audit_log: None,
            hubs: BTreeMap::new(),
            https_proxy: None,
            no_proxy: None,
            colour: true,
        }
    }
}

/// Settings of `file`, if there is one, with the process's environment over it.
///
/// # Errors
/// [`SettingsError`] names the first key, variable or value that does not fit.
#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
pub fn load(file: Option<&Path>) -> Result<Settings, SettingsError> {
    // A variable that is not text cannot be one of ours; its neighbours still are.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_with(file, &variables.collect())
}

/// Settings of `file` with `variables` over it.
///
/// # Errors
/// As [`load`].
pub fn load_with(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Result<Settings, SettingsError> {
    let mut builder = Config::builder();
    if let Some(file) = file {
        let text = read(file)?;
        form::check_file(file, &text)?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let mut secrets = BTreeMap::new();
    for (name, value) in variables {
        match place_of(name)? {
            Place::Elsewhere => {}
            Place::List(key) => {
                let items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                builder = builder.set_override(key, items).map_err(|error| file_error(&error))?;
            }
            Place::Key(_, holds) if !holds.fits(value) => {
                let remedy = holds.remedy().replace(" in quotes", "").replace(", without quotes", "");
                return Err(SettingsError::Text { name: name.clone(), remedy });
            }
            Place::Key(key, _) => {
                builder = builder.set_override(key, value.as_str()).map_err(|error| file_error(&error))?;
            }
            Place::ConnectionString(hub) => {
                // The hub exists even if nothing else is said of it.
                builder = builder
                    .set_override(format!("hubs.{hub}.guards"), config::Map::<String, String>::new())
                    .map_err(|error| file_error(&error))?;
                secrets.insert(hub, SecretString::from(value.as_str()));
            }
        }
    }
    let raw = builder.build().and_then(Config::try_deserialize::<RawSettings>).map_err(|error| file_error(&error))?;
    let mut settings = settings_of(raw, secrets, &AzureEnvironment::of(variables))?;
    let proxy = |name: &str| variables.get(name).or_else(|| variables.get(&name.to_lowercase())).cloned();
    settings.colour = variables.get("NO_COLOR").is_none_or(String::is_empty);
    settings.file = file.map(Path::to_path_buf);
    (settings.https_proxy, settings.no_proxy) = (proxy("HTTPS_PROXY").map(SecretString::from), proxy("NO_PROXY"));
    Ok(settings)
}

/// The text of the settings file.
fn read(file: &Path) -> Result<String, SettingsError> {
    let refused = |problem: String| SettingsError::File(format!("{} {problem}", file.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| SettingsError::File(format!("cannot read {}: {error}", file.display())))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("is larger than {FILE_BYTES_MAX} bytes; name the settings file")));
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8; save it as UTF-8".to_owned()))
}

fn file_error(error: &ConfigError) -> SettingsError {
    // One line, whatever the parser draws.
    let text = error.to_string();
    SettingsError::File(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The defaults of a hub that no settings file names: an embedded one, which has no throttles unless told to.
#[must_use]
pub fn hub_defaults(manifests: PathBuf, connection: Secret, ca_file: Option<PathBuf>) -> HubSettings {
    HubSettings {
        manifests,
        login: LoginSettings::ConnectionString(connection),
        ca_file,
        sweep: SWEEP_DEFAULT,
        verify: VERIFY_DEFAULT,
        tier: None,
        units: 1,
        budget: BUDGET_DEFAULT,
        quota_share: QUOTA_SHARE_DEFAULT,
        // Such a hub begins empty: whoever starts one wants its devices registered.
        guards: GuardSettings { creates: 1.0, ..GuardSettings::default() },
        seals: true,
        suspend: false,
        allow: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
