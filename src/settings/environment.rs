//! Which variables of the environment are settings, and of what.
//!
//! Invariant: pure; a variable with our prefix is a setting, injected by Kubernetes, or an error.

use super::SettingsError;
use super::form::{CONNECTION_STRING, GUARD_KEYS, HUB_KEYS, Holds, TOP_KEYS};

/// What our variables begin with.
const PREFIX: &str = "GEMINID_";
/// What Kubernetes injects for a service named `geminid`; not ours, not an error.
const INJECTED: [&str; 2] = ["GEMINID_SERVICE_", "GEMINID_PORT_"];
/// Where a variable goes.
pub(super) enum Place {
    /// It is not ours.
    Elsewhere,
    /// To this key of the file, which holds that.
    Key(String, Holds),
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
    if let Some((_, holds)) = TOP_KEYS.iter().find(|(key, _)| *key == lower) {
        return Ok(Place::Key(lower, *holds));
    }
    of_hub(&lower).ok_or_else(|| SettingsError::Variable { name: name.to_owned() })
}

/// The keys of a hub as variables name them, `.` in the place of `_` where the file has a table.
fn hub_keys() -> impl Iterator<Item = (String, Holds)> {
    let plain = HUB_KEYS.iter().map(|(key, holds)| ((*key).to_owned(), *holds));
    let guards = GUARD_KEYS.iter().map(|(key, holds)| (format!("guards.{key}"), *holds));
    let secret = (CONNECTION_STRING.to_owned(), Holds::Text("HostName=..."));
    plain.chain(guards).chain([secret])
}

fn of_hub(lower: &str) -> Option<Place> {
    let rest = lower.strip_prefix("hubs_")?;
    // A key may end with another one's name; the longest is meant.
    let ends = |key: &str| rest.ends_with(&format!("_{}", key.replace('.', "_")));
    let (key, holds) = hub_keys().filter(|(key, _)| ends(key)).max_by_key(|(key, _)| key.len())?;
    let hub = rest[..rest.len() - key.len() - 1].replace('_', "-");
    if hub.is_empty() {
        return None;
    }
    Some(match holds {
        _ if key == CONNECTION_STRING => Place::ConnectionString(hub),
        Holds::Texts => Place::List(format!("hubs.{hub}.{key}")),
        Holds::Text(_) | Holds::Flag | Holds::Whole | Holds::Number => Place::Key(format!("hubs.{hub}.{key}"), holds),
    })
}

/// Every variable that is a setting, for who misspelled one.
pub(super) fn known_variables() -> String {
    let top = TOP_KEYS.iter().map(|(key, _)| format!("{PREFIX}{}", key.to_uppercase()));
    let hub = hub_keys().map(|(key, _)| format!("{PREFIX}HUBS_<NAME>_{}", key.replace('.', "_").to_uppercase()));
    top.chain(hub).collect::<Vec<_>>().join(", ")
}
