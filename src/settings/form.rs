//! Which keys the settings have and what each holds, and the file held to it.
//!
//! Invariant: pure. No message repeats a value of the file: it may be a key that somebody pasted in the wrong place.

use std::path::Path;

use toml::{Table, Value};

use super::SettingsError;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A text, such as this one.
    Text(&'static str),
    /// `true` or `false`.
    Flag,
    /// A whole number from 0 on that fits 32 bits.
    Whole,
    /// A number.
    Number,
    /// A list of texts.
    Texts,
}

/// Settings of the whole process.
pub(super) const TOP_KEYS: [(&str, Holds); 12] = [
    ("owner", Holds::Text("fleet-prod")),
    ("listen", Holds::Text("127.0.0.1:9797")),
    ("api_listen", Holds::Text("127.0.0.1:9798")),
    ("api_token_file", Holds::Text("/run/secrets/geminid/api-token")),
    ("web_config", Holds::Text("/etc/geminid/web.yml")),
    ("metrics_token_file", Holds::Text("/run/secrets/geminid/metrics-token")),
    ("metric_prefix", Holds::Text("fleet_")),
    ("log_format", Holds::Text("json")),
    ("log_level", Holds::Text("info")),
    ("audit_log", Holds::Text("stdout")),
    ("mode", Holds::Text("sync")),
    ("suspend", Holds::Flag),
];
/// Settings of one hub, beside the table of guards.
pub(super) const HUB_KEYS: [(&str, Holds); 16] = [
    ("manifests", Holds::Text("/repo/current/prod")),
    ("connection_string_file", Holds::Text("/run/secrets/geminid/prod")),
    ("sas_token_file", Holds::Text("/run/secrets/geminid/prod-token")),
    ("host", Holds::Text("myhub.azure-devices.net")),
    ("auth", Holds::Text("entra")),
    ("credential", Holds::Text("workload-identity")),
    ("ca_file", Holds::Text(".geminid/ca.pem")),
    ("sweep", Holds::Text("10m")),
    ("verify", Holds::Text("24h")),
    ("tier", Holds::Text("S1")),
    ("units", Holds::Whole),
    ("budget", Holds::Number),
    ("quota_share", Holds::Number),
    ("ownership", Holds::Text("seal")),
    ("suspend", Holds::Flag),
    ("allow", Holds::Texts),
];
/// Settings of a hub's guards.
pub(super) const GUARD_KEYS: [(&str, Holds); 4] = [
    ("removals", Holds::Text("30%")),
    ("creates", Holds::Text("30%")),
    ("updates", Holds::Text("100%")),
    ("from", Holds::Whole),
];
/// The words for a flag in the environment, where everything is a text.
const FLAG_WORDS: [&str; 8] = ["true", "false", "1", "0", "on", "off", "yes", "no"];
/// What only the environment may hold: it is a secret.
pub(super) const CONNECTION_STRING: &str = "connection_string";
const HUBS: &str = "hubs";
const GUARDS: &str = "guards";
/// What a connection string and a token have in them, and no path or name does.
const SECRET_MARKS: [&str; 2] = ["sharedaccesskey=", "sharedaccesssignature"];
/// From here on, of 1, a key is taken for a misspelled other one.
const SIMILARITY_MIN: f64 = 0.8;

/// Holds the text of the settings file to its form.
///
/// # Errors
/// [`SettingsError::File`] with the file, the line or key of the first thing that does not fit, and what would do.
pub(super) fn check_file(file: &Path, text: &str) -> Result<(), SettingsError> {
    let refused = |problem: String| SettingsError::File(format!("{}: {problem}", file.display()));
    let table = text.parse::<Table>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let (line, column) =
            (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
        SettingsError::File(format!("{}:{line}:{column}: not valid TOML: {}", file.display(), error.message()))
    })?;
    check_table(&table).map_err(refused)
}

/// Whether `text` is a connection string or a token, where a name or a path belongs.
pub(super) fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SECRET_MARKS.iter().any(|mark| text.contains(mark))
}

impl Holds {
    /// What would do.
    pub(super) fn remedy(self) -> String {
        match self {
            Self::Text(example) => format!("write a text in quotes, such as \"{example}\""),
            Self::Flag => "write true or false, without quotes".to_owned(),
            Self::Whole => "write a whole number from 0 to 4294967295, without quotes".to_owned(),
            Self::Number => "write a number such as 0.5, without quotes".to_owned(),
            Self::Texts => "write a list of texts, such as [\"tags.location\"]".to_owned(),
        }
    }

    /// Whether a variable of the environment with this text can be it.
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Self::Text(_) | Self::Texts => !is_secret(text),
            Self::Flag => FLAG_WORDS.contains(&text.to_ascii_lowercase().as_str()),
            Self::Whole => text.parse::<u32>().is_ok(),
            Self::Number => text.parse::<f64>().is_ok(),
        }
    }

    fn is(self, value: &Value) -> bool {
        match self {
            Self::Text(_) => value.is_str(),
            Self::Flag => value.is_bool(),
            Self::Whole => value.as_integer().is_some_and(|number| u32::try_from(number).is_ok()),
            Self::Number => value.is_float() || value.is_integer(),
            Self::Texts => value
                .as_array()
                .is_some_and(|items| items.iter().all(|item| item.as_str().is_some_and(|text| !is_secret(text)))),
        }
    }
}

fn check_table(table: &Table) -> Result<(), String> {
    check_keys(table, "", &TOP_KEYS, Some(HUBS))?;
    let Some(hubs) = table.get(HUBS) else { return Ok(()) };
    for (name, hub) in table_at(hubs, HUBS, "[hubs.NAME]")? {
        let place = format!("{HUBS}.{name}");
        let hub = table_at(hub, &place, &format!("[{place}]"))?;
        check_keys(hub, &place, &HUB_KEYS, Some(GUARDS))?;
        if let Some(guards) = hub.get(GUARDS) {
            let place = format!("{place}.{GUARDS}");
            check_keys(table_at(guards, &place, &format!("[{place}]"))?, &place, &GUARD_KEYS, None)?;
        }
    }
    Ok(())
}

fn table_at<'t>(value: &'t Value, place: &str, head: &str) -> Result<&'t Table, String> {
    value
        .as_table()
        .ok_or_else(|| format!("{place}: {} was given; write {head}, and its keys in the lines below", kind_of(value)))
}

fn check_keys(table: &Table, place: &str, keys: &[(&str, Holds)], more: Option<&str>) -> Result<(), String> {
    for (key, value) in table {
        if more == Some(key) {
            continue;
        }
        let at = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        let Some((_, holds)) = keys.iter().find(|(known, _)| known == key) else {
            return Err(format!("{at}: unknown key; {}", unknown_remedy(key, place, keys, more)));
        };
        if !holds.is(value) {
            return Err(format!("{at}: {} was given; {}", kind_of(value), holds.remedy()));
        }
        if value.as_str().is_some_and(is_secret) {
            return Err(format!(
                "{at}: a connection string or token was given; write it into a file and name that file"
            ));
        }
    }
    Ok(())
}

fn unknown_remedy(key: &str, place: &str, keys: &[(&str, Holds)], more: Option<&str>) -> String {
    if key == CONNECTION_STRING {
        let variable = format!("GEMINID_{}_CONNECTION_STRING", place.replace(['.', '-'], "_").to_uppercase());
        return format!("no secret stands in this file: name a file in connection_string_file, or set {variable}");
    }
    let known: Vec<&str> = keys.iter().map(|(known, _)| *known).chain(more).collect();
    let folded = key.to_lowercase();
    let alike = known.iter().map(|known| (strsim::jaro_winkler(&folded, known), *known));
    let meant = alike.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
    meant.map_or_else(|| format!("keys here are {}", known.join(", ")), |(_, known)| format!("did you mean {known}?"))
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
