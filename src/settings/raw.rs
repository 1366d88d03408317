//! The form of the settings file, and the settings made of it.
//!
//! Invariant: no default stands in the form; what is not said is told from what is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::login::{AzureEnvironment, RawLogin, login_of};
use super::value::{
    check_log_level, check_part, parse_address, parse_audit_log, parse_duration, parse_log_format, parse_mode,
    parse_ownership, parse_share, parse_sweep,
};
use super::{
    BUDGET_DEFAULT, GuardSettings, HubSettings, LogFormat, ModeSetting, QUOTA_SHARE_DEFAULT, SWEEP_DEFAULT, Settings,
    SettingsError, TIER_DEFAULT, TIER_NONE, VERIFY_DEFAULT,
};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSettings {
    owner: Option<String>,
    listen: Option<String>,
    api_listen: Option<String>,
    api_token_file: Option<PathBuf>,
    web_config: Option<PathBuf>,
    metrics_token_file: Option<PathBuf>,
    metric_prefix: Option<String>,
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

/// The settings of a file with the connection strings that the environment gave, by hub.
///
/// # Errors
/// [`SettingsError::Value`] for the first that does not fit.
pub(super) fn settings_of(
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
        listen: raw.listen.map_or(Ok(defaults.listen), |text| parse_address("listen", text))?,
        api_listen: raw.api_listen.map(|text| parse_address("api_listen", text)).transpose()?,
        api_token_file: raw.api_token_file,
        web_config: raw.web_config,
        metrics_token_file: raw.metrics_token_file,
        metric_prefix: raw.metric_prefix,
        log_format: raw.log_format.as_deref().map_or(Ok(LogFormat::default()), parse_log_format)?,
        log_level: raw.log_level.map_or(Ok(defaults.log_level), check_log_level)?,
        mode: raw.mode.as_deref().map_or(Ok(ModeSetting::default()), parse_mode)?,
        suspend: raw.suspend.unwrap_or_default(),
        audit_log: raw.audit_log.map(|text| parse_audit_log("audit_log", text)).transpose()?,
        hubs,
        file: None,
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
