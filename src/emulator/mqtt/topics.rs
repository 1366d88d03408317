//! The topics of a hub's MQTT (`iot-hub.md` 8.2): what a device may publish and subscribe to, and what it is sent.
//!
//! Invariant: pure. A topic that is not in the table means nothing, and a filter reaches only the device's own topics.

use std::collections::BTreeMap;

use crate::twin::{TwinRef, Value};

/// The most filters of one session; a hub's documentation advises five or fewer (`iot-hub.md` 8.1).
pub const FILTERS_MAX: usize = 50;
/// The longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 1024;
/// The longest request id, in bytes; SDKs send a GUID or a number.
const REQUEST_BYTES_MAX: usize = 256;
const OWN: &str = "$iothub/";
const READ_TWIN: &str = "$iothub/twin/GET/";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/";
const METHOD_ANSWER: &str = "$iothub/methods/res/";

/// What a device asks for by publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Its twin; the answer names `request`.
    ReadTwin {
        /// `$rid`, as sent.
        request: String,
    },
    /// A merge into its reported properties.
    Report {
        /// `$rid`, as sent.
        request: String,
        /// `$version`, as sent: the version it rests on.
        base: Option<String>,
    },
    /// The answer to a direct method.
    MethodAnswer {
        /// `$rid` of the call.
        request: String,
        /// What the method gave.
        status: i32,
    },
    /// A message to the cloud.
    Telemetry,
}

/// What a PUBLISH of `who` to `topic` asks for; `None` when no device may publish there.
#[must_use]
pub fn published(topic: &str, who: &TwinRef) -> Option<Published> {
    if let Some(rest) = topic.strip_prefix(READ_TWIN) {
        let (request, _) = properties(rest)?;
        return Some(Published::ReadTwin { request });
    }
    if let Some(rest) = topic.strip_prefix(REPORT) {
        let (request, base) = properties(rest)?;
        return Some(Published::Report { request, base });
    }
    if let Some(rest) = topic.strip_prefix(METHOD_ANSWER) {
        let (status, rest) = rest.split_once('/')?;
        let (request, _) = properties(rest)?;
        return Some(Published::MethodAnswer { request, status: status.parse().ok()? });
    }
    let bag = topic.strip_prefix(&events(who))?;
    (!bag.contains(['+', '#', '\0', '/'])).then_some(Published::Telemetry)
}

/// The topic of messages to the cloud, without the properties behind it.
fn events(who: &TwinRef) -> String {
    format!("{}messages/events/", own_prefix(who))
}

fn own_prefix(who: &TwinRef) -> String {
    match &who.module {
        None => format!("devices/{}/", who.device),
        Some(module) => format!("devices/{}/modules/{module}/", who.device),
    }
}

/// `$rid` and `$version` of `?$rid=..&$version=..`; the first must be there.
fn properties(text: &str) -> Option<(String, Option<String>)> {
    let (mut request, mut version) = (None, None);
    for field in text.strip_prefix('?')?.split('&') {
        match field.split_once('=') {
            Some(("$rid", value)) => request = Some(value.to_owned()),
            Some(("$version", value)) => version = Some(value.to_owned()),
            Some(_) | None => {}
        }
    }
    let request =
        request.filter(|request| request.len() <= REQUEST_BYTES_MAX && !request.contains(['+', '#', '\0']))?;
    Some((request, version))
}

/// The topic that answers a request about the twin.
#[must_use]
pub fn twin_answer(status: u16, request: &str, version: Option<u64>) -> String {
    let version = version.map(|version| format!("&$version={version}")).unwrap_or_default();
    format!("$iothub/twin/res/{status}/?$rid={request}{version}")
}

/// The topic that tells of changed desired properties.
#[must_use]
pub fn desired_change(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

/// The topic that calls a direct method.
#[must_use]
pub fn method_call(name: &str, request: &str) -> String {
    format!("$iothub/methods/POST/{name}/?$rid={request}")
}

/// What a session subscribed to: filter to quality of service, 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters(BTreeMap<String, u8>);

impl Filters {
    /// Adds what `who` subscribes to, at quality 1 at most, and gives what is granted; `None` when the filter is not
    /// one, reaches beyond the device's own topics, or is one too many.
    pub fn subscribe(&mut self, filter: &str, quality: u8, who: &TwinRef) -> Option<u8> {
        let own = filter.starts_with(OWN) || filter.starts_with(&own_prefix(who));
        let room = self.0.len() < FILTERS_MAX || self.0.contains_key(filter);
        if !own || !room || !is_filter(filter) {
            return None;
        }
        let granted = quality.min(1);
        self.0.insert(filter.to_owned(), granted);
        Some(granted)
    }

    /// Takes a filter away.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.0.remove(filter);
    }

    /// The quality at which `topic` is delivered; `None` when no filter matches it.
    #[must_use]
    pub fn quality(&self, topic: &str) -> Option<u8> {
        self.0.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, quality)| *quality).max()
    }

    /// Whether calls of direct methods arrive.
    #[must_use]
    pub fn take_methods(&self) -> bool {
        self.quality(&method_call("any", "0")).is_some()
    }

    /// For the store.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(
            self.0.iter().map(|(filter, quality)| (filter.clone(), Value::from(i64::from(*quality)))).collect(),
        )
    }

    /// Of the store; `None` when it is no such value.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        let read = |(filter, quality): (&String, &Value)| {
            let quality = [0, 1].into_iter().find(|known| *quality == Value::from(i64::from(*known)))?;
            Some((filter.clone(), quality))
        };
        value.as_object()?.iter().map(read).collect::<Option<_>>().map(Self)
    }
}

/// Whether `filter` has the form of one: `#` only at the end, and both wildcards alone in their level.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    let plain = |level: &str| !level.contains(['+', '#', '\0']);
    let good = |(place, level): (usize, &&str)| plain(level) || *level == "+" || (*level == "#" && place == last);
    !filter.is_empty() && filter.len() <= FILTER_BYTES_MAX && levels.iter().enumerate().all(good)
}

/// Whether `filter` matches `topic`, level by level. No wildcard stands for a first level that begins with `$`.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(level), Some(found)) if level == "+" || level == found => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{DeviceId, ModuleId};

    fn device() -> TwinRef {
        TwinRef::device(DeviceId::new("d1").unwrap())
    }

    fn module() -> TwinRef {
        TwinRef::module(DeviceId::new("d1").unwrap(), ModuleId::new("m").unwrap())
    }

    #[test]
    fn each_topic_of_the_table_means_what_it_says_and_no_other_means_anything() {
        let request = || "7".to_owned();
        let report = |base: Option<&str>| Published::Report { request: request(), base: base.map(str::to_owned) };
        for (topic, expected) in [
            ("$iothub/twin/GET/?$rid=7", Some(Published::ReadTwin { request: request() })),
            ("$iothub/twin/PATCH/properties/reported/?$rid=7", Some(report(None))),
            ("$iothub/twin/PATCH/properties/reported/?$rid=7&$version=4", Some(report(Some("4")))),
            ("$iothub/twin/PATCH/properties/reported/?$version=4&$rid=7", Some(report(Some("4")))),
            ("$iothub/methods/res/200/?$rid=7", Some(Published::MethodAnswer { request: request(), status: 200 })),
            ("$iothub/methods/res/-3/?$rid=7", Some(Published::MethodAnswer { request: request(), status: -3 })),
            ("devices/d1/messages/events/", Some(Published::Telemetry)),
            ("devices/d1/messages/events/%24.ct=application%2Fjson&level=high", Some(Published::Telemetry)),
            ("devices/d1/modules/m/messages/events/", None),
            ("devices/d2/messages/events/", None),
            ("devices/d1/messages/devicebound/", None),
            ("devices/d1/messages/events/a/b", None),
            ("devices/d1/messages/events/#", None),
            ("$iothub/twin/GET/", None),
            ("$iothub/twin/GET/?x=1", None),
            ("$iothub/twin/GET/?$rid=a#b", None),
            ("$iothub/twin/res/200/?$rid=7", None),
            ("$iothub/methods/res/ok/?$rid=7", None),
            ("$iothub/methods/POST/reboot/?$rid=7", None),
            ("", None),
            ("anything", None),
        ] {
            assert_eq!(published(topic, &device()), expected, "{topic}");
        }
        assert_eq!(published("devices/d1/modules/m/messages/events/", &module()), Some(Published::Telemetry));
        assert_eq!(published("devices/d1/messages/events/", &module()), None);
        let long = format!("$iothub/twin/GET/?$rid={}", "r".repeat(REQUEST_BYTES_MAX + 1));
        assert_eq!(published(&long, &device()), None);
    }

    #[test]
    fn filters_reach_the_device_s_own_topics_only_and_are_granted_quality_1_at_most() {
        for (filter, quality, granted) in [
            ("$iothub/twin/res/#", 0, Some(0)),
            ("$iothub/twin/PATCH/properties/desired/#", 1, Some(1)),
            ("$iothub/methods/POST/#", 2, Some(1)),
            ("devices/d1/messages/devicebound/#", 1, Some(1)),
            ("devices/d1/+/x", 1, Some(1)),
            ("devices/d2/messages/devicebound/#", 1, None),
            ("devices/+/messages/devicebound/#", 1, None),
            ("#", 0, None),
            ("", 0, None),
            ("$iothub/a#b", 0, None),
            ("$iothub/#/a", 0, None),
            ("$iothub/a+/b", 0, None),
            ("$iothub/a\0", 0, None),
        ] {
            assert_eq!(Filters::default().subscribe(filter, quality, &device()), granted, "{filter}");
        }
        let mut filters = Filters::default();
        for number in 0..FILTERS_MAX {
            assert_eq!(filters.subscribe(&format!("$iothub/{number}"), 0, &device()), Some(0));
        }
        assert_eq!(filters.subscribe("$iothub/x", 0, &device()), None, "one too many");
        assert_eq!(filters.subscribe("$iothub/0", 1, &device()), Some(1), "no more than before");
        let long = format!("$iothub/{}", "x".repeat(FILTER_BYTES_MAX));
        assert_eq!(Filters::default().subscribe(&long, 0, &device()), None);
    }

    #[test]
    fn a_filter_matches_level_by_level() {
        for (filter, topic, matching) in [
            ("$iothub/twin/res/#", "$iothub/twin/res/200/?$rid=1", true),
            ("$iothub/twin/res/#", "$iothub/twin/res", true),
            ("$iothub/twin/res/#", "$iothub/twin/resx/1", false),
            ("$iothub/twin/+/200/+", "$iothub/twin/res/200/?$rid=1", true),
            ("$iothub/twin/+", "$iothub/twin/res/200", false),
            ("#", "$iothub/twin/res", false),
            ("+/twin/res", "$iothub/twin/res", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
        ] {
            assert_eq!(matches(filter, topic), matching, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_survive_the_store() {
        let mut filters = Filters::default();
        filters.subscribe("$iothub/twin/res/#", 1, &device());
        filters.subscribe("$iothub/methods/POST/#", 0, &device());
        assert_eq!(Filters::from_value(&filters.to_value()), Some(filters.clone()));
        assert!(filters.take_methods());
        filters.unsubscribe("$iothub/methods/POST/#");
        assert!(!filters.take_methods());
        for wrong in [r#"{"a":2}"#, r#"{"a":"1"}"#, "[]"] {
            assert_eq!(Filters::from_value(&Value::parse_json(wrong).unwrap()), None, "{wrong}");
        }
    }
}
