//! The daemon's own settings: one file, the environment over it, flags over both.
//!
//! Invariants: the only reader of the environment. Every key is known or refused in one sentence; secrets are wrapped
//! where they are read and never printed.

mod login;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError, File, FileFormat};
use jiff::SignedDuration;
use secrecy::SecretString;
use serde::Deserialize;

pub use login::{AzureEnvironment, EntraKind, LoginSettings};
use login::{RawLogin, login_of};

const PREFIX: &str = "GEMINID_";
/// What Kubernetes injects for a service named `geminid`; not ours, not an error.
const INJECTED: [&str; 2] = ["GEMINID_SERVICE_", "GEMINID_PORT_"];
/// Settings of the whole process that the environment may set, with their place in the file.
const TOP_KEYS: [&str; 11] = [
    "owner",
    "listen",
    "api_listen",
    "api_token_file",
    "web_config",
    "metrics_token_file",
    "log_format",
    "log_level",
    "audit_log",
    "mode",
    "suspend",
];
/// Settings of one hub, longest first so that no name is taken for a part of another.
const HUB_KEYS: [&str; 21] = [
    "connection_string_file",
    "connection_string",
    "sas_token_file",
    "credential",
    "auth",
    "host",
    "guards_removals",
    "guards_creates",
    "guards_updates",
    "guards_from",
    "ownership",
    "quota_share",
    "manifests",
    "ca_file",
    "suspend",
    "budget",
    "verify",
    "units",
    "sweep",
    "allow",
    "tier",
];
/// Where the daemon listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9797";
/// The shortest sweep interval; anything below asks a hub for more than it gives.
const SWEEP_MIN: Duration = Duration::from_secs(1);
const SWEEP_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// The smallest standard tier: who has a larger one and forgets to say so is slow, not throttled.
const TIER_DEFAULT: &str = "S1";
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
    /// A value that does not fit.
    #[error("settings: {key}: {problem}")]
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
    /// `HTTPS_PROXY`.
    pub https_proxy: Option<String>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// Whether terminals may be coloured: `NO_COLOR` is not set.
    pub colour: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            owner: None,
            listen: LISTEN_DEFAULT.to_owned(),
            api_listen: None,
            api_token_file: None,
            web_config: None,
            metrics_token_file: None,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    owner: Option<String>,
    listen: Option<String>,
    api_listen: Option<String>,
    api_token_file: Option<PathBuf>,
    web_config: Option<PathBuf>,
    metrics_token_file: Option<PathBuf>,
    log_format: Option<String>,
    log_level: Option<String>,
    mode: Option<String>,
    suspend: Option<bool>,
    audit_log: Option<String>,
    #[serde(default)]
    hubs: BTreeMap<String, RawHub>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHub {
    manifests: Option<PathBuf>,
    connection_string_file: Option<PathBuf>,
    sas_token_file: Option<PathBuf>,
    host: Option<String>,
    auth: Option<String>,
    credential: Option<String>,
    ca_file: Option<PathBuf>,
    sweep: Option<String>,
    verify: Option<String>,
    tier: Option<String>,
    units: Option<u32>,
    budget: Option<f64>,
    quota_share: Option<f64>,
    ownership: Option<String>,
    suspend: Option<bool>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    guards: RawGuards,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGuards {
    removals: Option<String>,
    creates: Option<String>,
    updates: Option<String>,
    from: Option<usize>,
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
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
    }
    let mut secrets = BTreeMap::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if name == "GEMINID_PORT" || INJECTED.iter().any(|injected| name.starts_with(injected)) {
            continue;
        }
        match place_of(rest) {
            Some(Place::List(key)) => {
                let items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                builder = builder.set_override(key, items).map_err(|error| file_error(&error))?;
            }
            Some(Place::Key(key)) => {
                builder = builder.set_override(key, value.as_str()).map_err(|error| file_error(&error))?;
            }
            Some(Place::ConnectionString(hub)) => {
                // The hub exists even if nothing else is said of it.
                builder = builder
                    .set_override(format!("hubs.{hub}.guards"), config::Map::<String, String>::new())
                    .map_err(|error| file_error(&error))?;
                secrets.insert(hub, SecretString::from(value.as_str()));
            }
            None => return Err(SettingsError::Variable { name: name.clone() }),
        }
    }
    let raw = builder.build().and_then(Config::try_deserialize::<RawSettings>).map_err(|error| file_error(&error))?;
    let mut settings = settings_of(raw, secrets, &AzureEnvironment::of(variables))?;
    let proxy = |name: &str| variables.get(name).or_else(|| variables.get(&name.to_lowercase())).cloned();
    settings.colour = variables.get("NO_COLOR").is_none_or(String::is_empty);
    (settings.https_proxy, settings.no_proxy) = (proxy("HTTPS_PROXY"), proxy("NO_PROXY"));
    Ok(settings)
}

/// Where a variable goes.
enum Place {
    Key(String),
    /// Items with commas between them.
    List(String),
    ConnectionString(String),
}

fn place_of(rest: &str) -> Option<Place> {
    let lower = rest.to_ascii_lowercase();
    if TOP_KEYS.contains(&lower.as_str()) {
        return Some(Place::Key(lower));
    }
    let of_hub = lower.strip_prefix("hubs_")?;
    let key = HUB_KEYS.iter().find(|key| of_hub.ends_with(&format!("_{key}")))?;
    let hub = of_hub[..of_hub.len() - key.len() - 1].replace('_', "-");
    if hub.is_empty() {
        return None;
    }
    Some(match *key {
        "connection_string" => Place::ConnectionString(hub),
        "allow" => Place::List(format!("hubs.{hub}.allow")),
        key => Place::Key(format!("hubs.{hub}.{}", key.replace("guards_", "guards."))),
    })
}

fn known_variables() -> String {
    let top = TOP_KEYS.iter().map(|key| format!("{PREFIX}{}", key.to_uppercase()));
    let hub = HUB_KEYS.iter().map(|key| format!("{PREFIX}HUBS_<NAME>_{}", key.to_uppercase()));
    top.chain(hub).collect::<Vec<_>>().join(", ")
}

fn file_error(error: &ConfigError) -> SettingsError {
    // One line, whatever the parser draws.
    let text = error.to_string();
    SettingsError::File(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn settings_of(
    raw: RawSettings,
    mut secrets: BTreeMap<String, SecretString>,
    azure: &AzureEnvironment,
) -> Result<Settings, SettingsError> {
    let defaults = Settings::default();
    let mut hubs = BTreeMap::new();
    for (name, hub) in raw.hubs {
        check_hub_name(&name)?;
        let secret = secrets.remove(&name);
        hubs.insert(name.clone(), hub_of(&name, hub, secret, azure)?);
    }
    Ok(Settings {
        owner: raw.owner,
        listen: raw.listen.unwrap_or(defaults.listen),
        api_listen: raw.api_listen,
        api_token_file: raw.api_token_file,
        web_config: raw.web_config,
        metrics_token_file: raw.metrics_token_file,
        log_format: raw.log_format.as_deref().map_or(Ok(LogFormat::default()), parse_log_format)?,
        log_level: raw.log_level.unwrap_or(defaults.log_level),
        mode: raw.mode.as_deref().map_or(Ok(ModeSetting::default()), parse_mode)?,
        suspend: raw.suspend.unwrap_or_default(),
        audit_log: raw.audit_log.map(|text| parse_audit_log("audit_log", text)).transpose()?,
        hubs,
        https_proxy: None,
        no_proxy: None,
        colour: true,
    })
}

fn check_hub_name(name: &str) -> Result<(), SettingsError> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && (1..=63).contains(&name.len()) {
        return Ok(());
    }
    let problem = "a hub's name is 1 to 63 of a-z, 0-9 and -".to_owned();
    Err(SettingsError::Value { key: format!("hubs.{name}"), problem })
}

fn hub_of(
    name: &str,
    raw: RawHub,
    secret: Option<SecretString>,
    azure: &AzureEnvironment,
) -> Result<HubSettings, SettingsError> {
    let key = |field: &str| format!("hubs.{name}.{field}");
    let missing = |field: &str, problem: &str| SettingsError::Value { key: key(field), problem: problem.to_owned() };
    let login = RawLogin {
        connection_string_file: raw.connection_string_file,
        connection_string: secret,
        sas_token_file: raw.sas_token_file,
        host: raw.host,
        auth: raw.auth,
        credential: raw.credential,
    };
    let login = login_of(name, login, azure)?;
    let manifests = raw.manifests.ok_or_else(|| missing("manifests", "missing; name the folder of manifests"))?;
    let sweep = raw.sweep.as_deref().map_or(Ok(SWEEP_DEFAULT), |text| parse_sweep(&key("sweep"), text))?;
    let verify = raw.verify.as_deref().map_or(Ok(VERIFY_DEFAULT), |text| parse_duration(&key("verify"), text))?;
    let tier = raw.tier.unwrap_or_else(|| TIER_DEFAULT.to_owned());
    let part =
        |field: &str, given: Option<f64>, default| given.map_or(Ok(default), |part| check_part(&key(field), part));
    Ok(HubSettings {
        manifests,
        login,
        ca_file: raw.ca_file,
        sweep,
        verify,
        tier: Some(tier).filter(|tier| tier != TIER_NONE),
        units: raw.units.unwrap_or(1),
        budget: part("budget", raw.budget, BUDGET_DEFAULT)?,
        quota_share: part("quota_share", raw.quota_share, QUOTA_SHARE_DEFAULT)?,
        guards: guards_of(&raw.guards, &key)?,
        seals: raw.ownership.as_deref().map_or(Ok(true), |text| parse_ownership(&key("ownership"), text))?,
        suspend: raw.suspend.unwrap_or_default(),
        allow: raw.allow,
    })
}

fn guards_of(raw: &RawGuards, key: &impl Fn(&str) -> String) -> Result<GuardSettings, SettingsError> {
    let defaults = GuardSettings::default();
    let share = |name: &str, given: &Option<String>, default| {
        given.as_deref().map_or(Ok(default), |text| parse_share(&key(&format!("guards.{name}")), text))
    };
    Ok(GuardSettings {
        removals: share("removals", &raw.removals, defaults.removals)?,
        creates: share("creates", &raw.creates, defaults.creates)?,
        updates: share("updates", &raw.updates, defaults.updates)?,
        from: raw.from.unwrap_or(defaults.from),
    })
}

fn parse_ownership(key: &str, text: &str) -> Result<bool, SettingsError> {
    match text {
        "seal" => Ok(true),
        "none" => Ok(false),
        other => {
            let problem = format!("{other:?} is neither seal nor none");
            Err(SettingsError::Value { key: key.to_owned(), problem })
        }
    }
}

fn parse_mode(text: &str) -> Result<ModeSetting, SettingsError> {
    match text {
        "sync" => Ok(ModeSetting::Sync),
        "upsert" => Ok(ModeSetting::Upsert),
        "observe" => Ok(ModeSetting::Observe),
        other => {
            let problem = format!("{other:?} is none of sync, upsert and observe");
            Err(SettingsError::Value { key: "mode".to_owned(), problem })
        }
    }
}

/// A log format by its name.
///
/// # Errors
/// [`SettingsError::Value`] for any other word.
pub fn parse_log_format(text: &str) -> Result<LogFormat, SettingsError> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(SettingsError::Value {
            key: "log_format".to_owned(),
            problem: format!("{other:?} is neither text nor json"),
        }),
    }
}

/// A place of the audit log: `stdout`, or the path of a file.
///
/// # Errors
/// [`SettingsError::Value`] naming `key` when it is empty.
pub fn parse_audit_log(key: &str, text: String) -> Result<String, SettingsError> {
    if text.is_empty() {
        let problem = "empty; write \"stdout\" or the path of a file".to_owned();
        return Err(SettingsError::Value { key: key.to_owned(), problem });
    }
    Ok(text)
}

/// A sweep interval such as `10m`, at least a second.
///
/// # Errors
/// [`SettingsError::Value`] naming `key`.
pub fn parse_sweep(key: &str, text: &str) -> Result<Duration, SettingsError> {
    let duration = parse_duration(key, text)?;
    if duration < SWEEP_MIN {
        return Err(SettingsError::Value { key: key.to_owned(), problem: format!("{text} is shorter than 1s") });
    }
    Ok(duration)
}

/// A duration such as 30s.
///
/// # Errors
/// [`SettingsError::Value`] naming `key`.
pub fn parse_duration(key: &str, text: &str) -> Result<Duration, SettingsError> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| SettingsError::Value {
        key: key.to_owned(),
        problem: format!("{text:?} is no duration; write 30s, 10m, 1h30m or 24h"),
    })
}

fn parse_share(key: &str, text: &str) -> Result<f64, SettingsError> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0).ok_or_else(|| {
        SettingsError::Value { key: key.to_owned(), problem: format!("{text:?} is no share; write 0% to 100%") }
    })
}

/// A part of what a hub gives: with nothing of it nothing could be done.
fn check_part(key: &str, part: f64) -> Result<f64, SettingsError> {
    if part > 0.0 && part <= 1.0 {
        return Ok(part);
    }
    let problem = format!("{part} is no part of the hub; write more than 0 and at most 1");
    Err(SettingsError::Value { key: key.to_owned(), problem })
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
