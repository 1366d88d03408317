//! Texts of settings to their values.
//!
//! Invariant: what does not fit is refused in one sentence that names the key and says what would do.

use std::time::Duration;

use jiff::SignedDuration;

use super::{LogFormat, ModeSetting, SettingsError};

/// The shortest sweep interval; anything below asks a hub for more than it gives.
const SWEEP_MIN: Duration = Duration::from_secs(1);

/// The words for a level; `off` is none, said on purpose.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

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

/// A level of the log, or directives with `=` in them.
///
/// # Errors
/// [`SettingsError::Value`] for another word: the log would take it for the name of a part and stay silent.
pub fn check_log_level(text: String) -> Result<String, SettingsError> {
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    match text.split(',').map(str::trim).find(|part| !part.contains('=') && !is_level(part)) {
        None => Ok(text),
        Some(word) => {
            let problem = format!("{word:?} is none of error, warn, info, debug and trace");
            Err(SettingsError::Value { key: "log_level".to_owned(), problem })
        }
    }
}

/// An address to listen on: a host or an address, a colon and a port.
pub(super) fn parse_address(key: &str, text: String) -> Result<String, SettingsError> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if parts.is_some() {
        return Ok(text);
    }
    let problem = format!("{text:?} is no address; write 127.0.0.1:9797, or 0.0.0.0:9797 for other machines too");
    Err(SettingsError::Value { key: key.to_owned(), problem })
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

/// Whether writes are recorded in the twins.
pub(super) fn parse_ownership(key: &str, text: &str) -> Result<bool, SettingsError> {
    match text {
        "seal" => Ok(true),
        "none" => Ok(false),
        other => {
            let problem = format!("{other:?} is neither seal nor none");
            Err(SettingsError::Value { key: key.to_owned(), problem })
        }
    }
}

/// A mode by its name.
pub(super) fn parse_mode(text: &str) -> Result<ModeSetting, SettingsError> {
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

/// A share such as `30%`, as 0 to 1.
pub(super) fn parse_share(key: &str, text: &str) -> Result<f64, SettingsError> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0).ok_or_else(|| {
        SettingsError::Value { key: key.to_owned(), problem: format!("{text:?} is no share; write 0% to 100%") }
    })
}

/// A part of what a hub gives: with nothing of it nothing could be done.
pub(super) fn check_part(key: &str, part: f64) -> Result<f64, SettingsError> {
    if part > 0.0 && part <= 1.0 {
        return Ok(part);
    }
    let problem = format!("{part} is no part of the hub; write more than 0 and at most 1");
    Err(SettingsError::Value { key: key.to_owned(), problem })
}
