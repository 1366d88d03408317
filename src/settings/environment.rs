//! Which variables of the environment are settings, and of what.
//!
//! Invariant: pure; a variable with our prefix is a setting, injected by Kubernetes, or an error.

use super::SettingsError;

/// What our variables begin with.
const PREFIX: &str = "GEMINID_";
/// What Kubernetes injects for a service named `geminid`; not ours, not an error.
const INJECTED: [&str; 2] = ["GEMINID_SERVICE_", "GEMINID_PORT_"];
/// Settings of the whole process that the environment may set, with their place in the file.
const TOP_KEYS: [&str; 12] = [
    "owner",
    "listen",
    "api_listen",
    "api_token_file",
    "web_config",
    "metrics_token_file",
    "metric_prefix",
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

/// Where a variable goes.
pub(super) enum Place {
    /// It is not ours.
    Elsewhere,
    /// To this key of the file.
    Key(String),
    /// To this key; items with commas between them.
    List(String),
    /// It signs in to this hub.
    ConnectionString(String),
}

/// Where the variable `name` goes.
///
/// # Errors
/// [`SettingsError::Variable`] for one with our prefix that nobody reads.
pub(super) fn place_of(name: &str) -> Result<Place, SettingsError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(Place::Elsewhere) };
    if name == "GEMINID_PORT" || INJECTED.iter().any(|injected| name.starts_with(injected)) {
        return Ok(Place::Elsewhere);
    }
    let lower = rest.to_ascii_lowercase();
    if TOP_KEYS.contains(&lower.as_str()) {
        return Ok(Place::Key(lower));
    }
    of_hub(&lower).ok_or_else(|| SettingsError::Variable { name: name.to_owned() })
}

fn of_hub(lower: &str) -> Option<Place> {
    let rest = lower.strip_prefix("hubs_")?;
    let key = HUB_KEYS.iter().find(|key| rest.ends_with(&format!("_{key}")))?;
    let hub = rest[..rest.len() - key.len() - 1].replace('_', "-");
    if hub.is_empty() {
        return None;
    }
    Some(match *key {
        "connection_string" => Place::ConnectionString(hub),
        "allow" => Place::List(format!("hubs.{hub}.allow")),
        key => Place::Key(format!("hubs.{hub}.{}", key.replace("guards_", "guards."))),
    })
}

/// Every variable that is a setting, for who misspelled one.
pub(super) fn known_variables() -> String {
    let top = TOP_KEYS.iter().map(|key| format!("{PREFIX}{}", key.to_uppercase()));
    let hub = HUB_KEYS.iter().map(|key| format!("{PREFIX}HUBS_<NAME>_{}", key.to_uppercase()));
    top.chain(hub).collect::<Vec<_>>().join(", ")
}
