//! Twins, of devices and of modules (`iot-hub.md` section 1).

use std::cell::RefCell;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::configuration::{ConfigurationId, ConfigurationStatus};
use super::super::error::Refusal;
use super::super::part::Part;
use super::super::registry::Device;
use super::super::twin_record::{Properties, StampNode, TwinRecord};
use super::identity::{CapabilityFields, ThumbprintFields};
use super::json::{connection_state, count, date, date_or_never, into_object, optional_object, parse, write_json};
use super::metadata::write_metadata;
use crate::twin::{MergePatch, Object, Value};

/// What a service sends back with a whole twin and the hub ignores (`iot-hub.md` 1.5).
const IGNORED_IN_DESIRED: [&str; 2] = ["$metadata", "$version"];

/// Room for a twin of 1 KB as it is shown, in bytes.
const TWIN_BYTES_USUAL: usize = 4096;
/// The same for one stamp.
const STAMP_BYTES_USUAL: usize = 256;
/// How many times the values' room a section needs, about, with its stamps.
const STAMPS_OVER_VALUES: usize = 4;

/// The `$metadata` of a section (`iot-hub.md` 1.2).
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "maps have string keys and nothing here fails")]
pub fn stamps(node: &StampNode) -> Value {
    let last = RefCell::new((node.stamp.at, date(node.stamp.at)));
    let json =
        serde_json::to_value(Stamps { node, last: &last }).expect("maps have string keys and nothing here fails");
    Value::from_json(json)
}

/// A section with `$metadata` and `$version`, as a query's row holds it.
#[must_use]
pub fn properties(properties: &Properties) -> Value {
    let mut object = properties.values.clone();
    object.insert("$metadata".to_owned(), stamps(&properties.stamps));
    object.insert("$version".to_owned(), count(properties.version));
    Value::Object(object)
}

/// What stands before the sections of a twin.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TwinHead<'a> {
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    etag: String,
    device_etag: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'a str>,
    status_update_time: String,
    connection_state: &'static str,
    last_activity_time: String,
    cloud_to_device_message_count: u64,
    authentication_type: &'static str,
    x509_thumbprint: ThumbprintFields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'static str>,
    version: u64,
}

/// What stands behind them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TwinTail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    configurations: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<CapabilityFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_scope: Option<String>,
}

/// A twin as GET answers it.
#[must_use]
pub fn twin(device: &Device) -> Vec<u8> {
    let mut body = Vec::with_capacity(TWIN_BYTES_USUAL);
    write_twin(device, &mut body);
    body
}

/// Twins as a query answers them.
#[must_use]
pub fn twins(devices: &[Arc<Device>]) -> Vec<u8> {
    let mut body = Vec::with_capacity(TWIN_BYTES_USUAL * devices.len());
    body.push(b'[');
    for (number, device) in devices.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        write_twin(device, &mut body);
    }
    body.push(b']');
    body
}

/// Puts a twin together: its sections are shown as their last write left them.
fn write_twin(device: &Device, to: &mut Vec<u8>) {
    let (identity, twin) = (&device.identity, &device.twin);
    // A module's twin has no capabilities, and nobody saw a model in one (`iot-hub.md` 1.1).
    let of_device = identity.module.is_none();
    let head = TwinHead {
        device_id: identity.device.as_str(),
        module_id: identity.module.as_ref().map(crate::twin::ModuleId::as_str),
        etag: twin.etag(),
        device_etag: identity.etag(),
        status: identity.status.as_str(),
        status_reason: identity.status_reason.as_deref(),
        status_update_time: date_or_never(identity.status_updated),
        connection_state: connection_state(identity.connected),
        last_activity_time: date_or_never(identity.last_activity),
        cloud_to_device_message_count: 0,
        authentication_type: identity.authentication.as_str(),
        x509_thumbprint: ThumbprintFields::of(&identity.authentication),
        model_id: of_device.then_some(""),
        version: twin.version,
    };
    write_json(&head, to);
    to.pop();
    if let Some(tags) = &twin.tags {
        to.extend_from_slice(b",\"tags\":");
        // Tags are kept as they are shown.
        to.extend_from_slice(tags.stored().bytes());
    }
    to.extend_from_slice(b",\"properties\":{\"desired\":");
    to.extend_from_slice(twin.desired.shown(section));
    to.extend_from_slice(b",\"reported\":");
    to.extend_from_slice(twin.reported.shown(section));
    to.push(b'}');
    let configurations = configurations(twin);
    let tail = TwinTail {
        configurations: configurations.as_ref(),
        capabilities: of_device.then_some(CapabilityFields { iot_edge: identity.iot_edge }),
        device_scope: identity.device_scope(),
    };
    let before = to.len();
    write_json(&tail, to);
    // Its fields follow those before.
    if to.len() > before + "{}".len() {
        to[before] = b',';
    } else {
        to.remove(before);
    }
}

/// A section as answers show it: content first, then `$metadata` and `$version` (`iot-hub.md` 1.1).
fn section(part: &Part<Properties>) -> Vec<u8> {
    let stored = part.stored();
    let values = stored.values.bytes();
    // Its stamps take a few times the room.
    let mut text = Vec::with_capacity(STAMP_BYTES_USUAL + STAMPS_OVER_VALUES * values.len());
    text.extend_from_slice(values);
    text.pop();
    text.extend_from_slice(if text.trim_ascii_end() == b"{" { b"\"$metadata\":" } else { b",\"$metadata\":" });
    let begun = text.len();
    if write_metadata(values, stored.stamps.bytes(), &mut text).is_err() {
        text.truncate(begun);
        let last = RefCell::new((part.stamps.stamp.at, date(part.stamps.stamp.at)));
        write_json(&Stamps { node: &part.stamps, last: &last }, &mut text);
    }
    text.extend_from_slice(b",\"$version\":");
    text.extend_from_slice(stored.version.to_string().as_bytes());
    text.push(b'}');
    text
}

/// `configurations` of a twin: there only while one targets it (`iot-hub.md` 1.1).
#[must_use]
pub fn configurations(twin: &TwinRecord) -> Option<Value> {
    let entry = |(id, status): (&ConfigurationId, &ConfigurationStatus)| {
        let status = Object::from([("status".to_owned(), Value::from(status.as_str()))]);
        (id.to_string(), Value::Object(status))
    };
    (!twin.configurations.is_empty()).then(|| Value::Object(twin.configurations.iter().map(entry).collect()))
}

/// A twin as GET answers it, for those who read no text.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a twin is JSON")]
pub fn twin_value(device: &Device) -> Value {
    serde_json::from_slice(&twin(device)).expect("a twin is JSON")
}

/// The one walk over the stamps of a section. Most of their times are the same, so the last one's text is kept at hand.
struct Stamps<'a> {
    node: &'a StampNode,
    last: &'a RefCell<(Timestamp, String)>,
}

impl Serialize for Stamps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let StampNode { stamp, children } = self.node;
        let mut map = serializer.serialize_map(None)?;
        if self.last.borrow().0 != stamp.at {
            self.last.replace((stamp.at, date(stamp.at)));
        }
        map.serialize_entry("$lastUpdated", self.last.borrow().1.as_str())?;
        if let Some(version) = stamp.version {
            map.serialize_entry("$lastUpdatedVersion", &version)?;
        }
        if let Some(by) = &stamp.by {
            map.serialize_entry("$lastUpdatedBy", by.configuration.as_str())?;
            map.serialize_entry("$lastUpdatedByDigest", &by.digest.to_string())?;
        }
        for (key, node) in children.iter() {
            map.serialize_entry(key, &Stamps { node, last: self.last })?;
        }
        map.end()
    }
}

/// Reads the body of a twin's PATCH or PUT: `tags` and `properties.desired`; all else is ignored, as are `$metadata`
/// and `$version` in desired (`iot-hub.md` 1.5). A section that is null counts as left out.
///
/// # Errors
/// [`Refusal::Deserialization`] when the body is not a JSON object, [`Refusal::ArgumentInvalid`] when a section is
/// not an object.
pub fn twin_write(body: &[u8]) -> Result<MergePatch, Refusal> {
    sections(into_object(parse(body)?, "the body")?)
}

/// The two sections of a twin that services write, out of an object that holds more.
pub(super) fn sections(mut twin: Object) -> Result<MergePatch, Refusal> {
    let mut properties = optional_object(twin.remove("properties"), "properties")?.unwrap_or_default();
    let mut desired = optional_object(properties.remove("desired"), "properties.desired")?;
    if let Some(desired) = &mut desired {
        without_metadata(desired);
    }
    Ok(MergePatch { tags: optional_object(twin.remove("tags"), "tags")?, desired })
}

/// The twin of a template: whose it is, what services write of it, and what its device reports.
///
/// # Errors
/// As [`twin_write`]; [`Refusal::ArgumentInvalid`] also for an id that is no string.
pub fn whole_twin(body: &[u8]) -> Result<(Option<String>, MergePatch, Option<Object>), Refusal> {
    let mut twin = into_object(parse(body)?, "the template")?;
    let id = match twin.remove("deviceId") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(Refusal::ArgumentInvalid("deviceId must be a string".to_owned()));
        }
    };
    let reported = twin.get("properties").and_then(|properties| properties.get(["reported"])).cloned();
    let mut reported = optional_object(reported, "properties.reported")?;
    if let Some(reported) = &mut reported {
        without_metadata(reported);
    }
    Ok((id, sections(twin)?, reported))
}

fn without_metadata(section: &mut Object) {
    section.retain(|key, _| !IGNORED_IN_DESIRED.contains(&key.as_str()));
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::super::identity::{Identity, IdentitySpec};
    use super::super::super::twin_record::TwinRecord;
    use super::*;
    use crate::twin::{DeviceId, ModuleId};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn metadata_is_written_as_a_query_shows_it() {
        use super::super::super::twin_record::{Stamp, WrittenBy};
        let by = WrittenBy { configuration: ConfigurationId::new("c1").unwrap(), digest: 637 };
        let stamp = Stamp { at: at("2026-11-23T00:00:00Z"), version: Some(2), by: None };
        let leaf = Stamp { at: at("2026-11-23T00:00:01Z"), version: Some(3), by: Some(Arc::new(by)) };
        let children = [("a".to_owned(), StampNode::leaf(leaf))].into();
        let node = StampNode { stamp, children };
        let expected = concat!(
            r#"{"$lastUpdated":"2026-11-23T00:00:00Z","$lastUpdatedVersion":2,"a":{"$lastUpdated":"2026-11-23T00:00:01Z","#,
            r#""$lastUpdatedBy":"c1","$lastUpdatedByDigest":"637","$lastUpdatedVersion":3}}"#,
        );
        assert_eq!(stamps(&node).to_string(), expected);
    }

    fn record(module: Option<&str>) -> Device {
        let id = DeviceId::new("d1").unwrap();
        let module = module.map(|module| ModuleId::new(module).unwrap());
        let identity = Identity::new(id, module, 637_455, IdentitySpec::default(), &mut |bytes| bytes.fill(1));
        Device { identity: identity.into(), twin: TwinRecord::new(at("2021-01-05T18:41:47.97314829Z")), change: 0 }
    }

    fn printed(device: &Device) -> String {
        String::from_utf8(twin(device)).unwrap()
    }

    #[test]
    fn a_fresh_twin_prints_as_the_recorded_one() {
        assert_eq!(
            printed(&record(None)),
            concat!(
                r#"{"deviceId":"d1","etag":"AAAAAAAAAAE=","deviceEtag":"MTY4NDMwMDk=","status":"enabled","#,
                r#""statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected","#,
                r#""lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"#,
                r#""authenticationType":"sas","x509Thumbprint":{"primaryThumbprint":null,"#,
                r#""secondaryThumbprint":null},"modelId":"","version":2,"properties":{"desired":{"$metadata":"#,
                r#"{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1},"reported":{"$metadata":"#,
                r#"{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1}},"capabilities":{"iotEdge":false}}"#,
            )
        );
    }

    #[test]
    fn a_module_s_twin_names_the_module_and_has_no_capabilities() {
        assert_eq!(
            printed(&record(Some("m1"))),
            concat!(
                r#"{"deviceId":"d1","moduleId":"m1","etag":"AAAAAAAAAAE=","deviceEtag":"MTY4NDMwMDk=","#,
                r#""status":"enabled","statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected","#,
                r#""lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"#,
                r#""authenticationType":"sas","x509Thumbprint":{"primaryThumbprint":null,"#,
                r#""secondaryThumbprint":null},"version":2,"properties":{"desired":{"$metadata":"#,
                r#"{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1},"reported":{"$metadata":"#,
                r#"{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1}}}"#,
            )
        );
    }

    #[test]
    fn a_written_section_prints_user_keys_first_with_its_stamps() {
        let body = twin_write(br#"{"properties":{"desired":{"a":{"b":1.0},"l":[1,2]}}}"#).unwrap();
        let twin = record(None).twin.patched(&body, at("2021-01-05T18:41:48.5Z")).unwrap();
        let expected = concat!(
            r#"{"a":{"b":1.0},"l":[1,2],"$metadata":{"$lastUpdated":T,"$lastUpdatedVersion":2,"#,
            r#""a":{"$lastUpdated":T,"$lastUpdatedVersion":2,"b":{"$lastUpdated":T,"$lastUpdatedVersion":2}},"#,
            r#""l":{"$lastUpdated":T,"$lastUpdatedVersion":2}},"$version":2}"#,
        );
        let text = String::from_utf8(section(&twin.desired)).unwrap();
        assert_eq!(text, expected.replace('T', "\"2021-01-05T18:41:48.5Z\""));
    }

    #[test]
    fn a_whole_twin_sent_back_counts_by_its_sections_alone() {
        let body = br#"{"deviceId":"x","etag":"old","version":7,"status":"disabled","tags":{"a":1},
            "properties":{"desired":{"d":1,"$version":9,"$metadata":{"d":{}}},"reported":{"r":1}}}"#;
        let write = twin_write(body).unwrap();
        assert_eq!(Value::Object(write.tags.unwrap()).to_string(), r#"{"a":1}"#);
        assert_eq!(Value::Object(write.desired.unwrap()).to_string(), r#"{"d":1}"#);
        for (body, code) in [
            ("", "DeserializationError"),
            ("{", "DeserializationError"),
            ("[]", "ArgumentInvalid"),
            (r#"{"tags":1}"#, "ArgumentInvalid"),
            (r#"{"tags":{"a":[{"n":9223372036854775808}]}}"#, "ArgumentInvalid"),
            (r#"{"properties":[]}"#, "ArgumentInvalid"),
            (r#"{"properties":{"desired":"x"}}"#, "ArgumentInvalid"),
        ] {
            assert_eq!(twin_write(body.as_bytes()).unwrap_err().code(), code, "{body}");
        }
        assert_eq!(twin_write(br#"{"tags":null,"properties":{"desired":null}}"#), Ok(MergePatch::default()));
    }
}
