//! The hub's JSON: bodies in, bodies out.
//!
//! Invariant: the only file of the emulator that knows a field's name on the wire, and it shares nothing with the
//! client's. Fields stand in the order of `iot-hub.md` 1.1; what a hub leaves out is left out.

use jiff::Timestamp;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use super::error::Refusal;
use super::identity::{IdentitySpec, SharedKey, Status};
use super::mqtt::MethodCall;
use super::registry::Device;
use super::twin_record::{Properties, StampNode, TwinRecord};
use crate::twin::{DeviceId, MergePatch, Number, Object, Value};

/// A date that never was (`iot-hub.md` 1.2).
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The same in the answer that creates an identity (`iot-hub.md` 1.2).
const NEVER_WITHOUT_ZONE: &str = "0001-01-01T00:00:00";
/// What a service sends back with a whole twin and the hub ignores (`iot-hub.md` 1.5).
const IGNORED_IN_DESIRED: [&str; 2] = ["$metadata", "$version"];

/// A time as a hub prints it: UTC, up to seven fraction digits, no trailing zeros (`iot-hub.md` 1.2).
#[must_use]
pub fn date(at: Timestamp) -> String {
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S");
    let ticks = at.as_nanosecond().rem_euclid(1_000_000_000) / 100;
    if ticks == 0 {
        return format!("{whole}Z");
    }
    let fraction = format!("{ticks:07}");
    format!("{whole}.{}Z", fraction.trim_end_matches('0'))
}

/// A time that may never have been.
#[must_use]
pub fn date_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), date)
}

/// `Connected` or `Disconnected`.
#[must_use]
pub const fn connection_state(connected: bool) -> &'static str {
    if connected { "Connected" } else { "Disconnected" }
}

/// A counter as a JSON number.
#[must_use]
pub fn count(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The `$metadata` of a section (`iot-hub.md` 1.2).
#[must_use]
pub fn stamps(node: &StampNode) -> Value {
    let mut object = Object::from([("$lastUpdated".to_owned(), Value::from(date(node.stamp.at)))]);
    if let Some(version) = node.stamp.version {
        object.insert("$lastUpdatedVersion".to_owned(), count(version));
    }
    object.extend(node.children.iter().map(|(key, child)| (key.clone(), stamps(child))));
    Value::Object(object)
}

/// A section with `$metadata` and `$version`, as a query's row holds it.
#[must_use]
pub fn properties(properties: &Properties) -> Value {
    let mut object = properties.values.clone();
    object.insert("$metadata".to_owned(), stamps(&properties.stamps));
    object.insert("$version".to_owned(), count(properties.version));
    Value::Object(object)
}

/// A twin as GET answers it.
#[derive(Debug)]
pub struct TwinBody<'a>(pub &'a Device);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TwinFields<'a> {
    device_id: &'a str,
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
    x509_thumbprint: Thumbprint,
    model_id: &'static str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Map<'a>>,
    properties: BothSections<'a>,
    capabilities: Capabilities,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Thumbprint {
    primary_thumbprint: (),
    secondary_thumbprint: (),
}

#[derive(Serialize)]
struct BothSections<'a> {
    desired: Section<'a>,
    reported: Section<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    iot_edge: bool,
}

const NO_THUMBPRINT: Thumbprint = Thumbprint { primary_thumbprint: (), secondary_thumbprint: () };
const NO_CAPABILITIES: Capabilities = Capabilities { iot_edge: false };

impl Serialize for TwinBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (identity, twin) = (&self.0.identity, &self.0.twin);
        TwinFields {
            device_id: identity.device.as_str(),
            etag: twin.etag(),
            device_etag: identity.etag(),
            status: identity.status.as_str(),
            status_reason: identity.status_reason.as_deref(),
            status_update_time: date_or_never(identity.status_updated),
            connection_state: connection_state(identity.connected),
            last_activity_time: date_or_never(identity.last_activity),
            cloud_to_device_message_count: 0,
            authentication_type: "sas",
            x509_thumbprint: NO_THUMBPRINT,
            model_id: "",
            version: twin.version,
            tags: twin.tags.as_ref().map(Map),
            properties: BothSections { desired: Section(&twin.desired), reported: Section(&twin.reported) },
            capabilities: NO_CAPABILITIES,
        }
        .serialize(serializer)
    }
}

/// A twin as GET answers it, for those who read no text.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a twin always serializes")]
pub fn twin_value(device: &Device) -> Value {
    let json = serde_json::to_value(TwinBody(device)).expect("maps have string keys and nothing here fails");
    Value::from_json(json)
}

/// An identity as GET and PUT answer it (`iot-hub.md` 2.5).
#[derive(Debug)]
pub struct IdentityBody<'a> {
    /// Whose.
    pub device: &'a Device,
    /// Whether this is the answer to the PUT that created it.
    pub just_created: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdentityFields<'a> {
    device_id: &'a str,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    status: &'static str,
    status_reason: Option<&'a str>,
    connection_state_updated_time: String,
    status_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: u64,
    capabilities: Capabilities,
    authentication: AuthenticationFields<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationFields<'a> {
    symmetric_key: KeyFields<'a>,
    x509_thumbprint: Thumbprint,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyFields<'a> {
    primary_key: &'a str,
    secondary_key: &'a str,
}

impl Serialize for IdentityBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = &self.device.identity;
        let time = |at: Option<Timestamp>| match at {
            None if self.just_created => NEVER_WITHOUT_ZONE.to_owned(),
            Some(_) | None => date_or_never(at),
        };
        IdentityFields {
            device_id: identity.device.as_str(),
            generation_id: identity.generation.to_string(),
            etag: identity.etag(),
            connection_state: connection_state(identity.connected),
            status: identity.status.as_str(),
            status_reason: identity.status_reason.as_deref(),
            connection_state_updated_time: time(identity.connection_updated),
            status_updated_time: time(identity.status_updated),
            last_activity_time: time(identity.last_activity),
            cloud_to_device_message_count: 0,
            capabilities: NO_CAPABILITIES,
            authentication: AuthenticationFields {
                symmetric_key: KeyFields {
                    primary_key: identity.primary_key.expose(),
                    secondary_key: identity.secondary_key.expose(),
                },
                x509_thumbprint: NO_THUMBPRINT,
                r#type: "sas",
            },
        }
        .serialize(serializer)
    }
}

/// Section content first, then `$metadata` and `$version` (`iot-hub.md` 1.1).
struct Section<'a>(&'a Properties);

impl Serialize for Section<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.values.len() + 2))?;
        for (key, value) in &self.0.values {
            map.serialize_entry(key, &Json(value))?;
        }
        map.serialize_entry("$metadata", &Json(&stamps(&self.0.stamps)))?;
        map.serialize_entry("$version", &self.0.version)?;
        map.end()
    }
}

/// An object of the domain as JSON.
#[derive(Debug)]
pub struct Map<'a>(pub &'a Object);

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Json(value))))
    }
}

/// A value of the domain as JSON.
#[derive(Debug)]
pub struct Json<'a>(pub &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(Number::Integer(value)) => serializer.serialize_i64(*value),
            Value::Number(Number::Float(value)) => serializer.serialize_f64(*value),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(&Json(item))?;
                }
                sequence.end()
            }
            Value::Object(object) => Map(object).serialize(serializer),
        }
    }
}

/// Error shape A (`iot-hub.md` 3.1).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    message: String,
    exception_message: String,
}

/// The body of a refusal. `tracking` names this answer in logs; 32 hex digits on a real hub.
#[must_use]
pub fn refusal(refusal: &Refusal, tracking: u128, now: Timestamp) -> Vec<u8> {
    if matches!(refusal, Refusal::DeviceNotOnline | Refusal::MethodTimeout) {
        return nested_refusal(refusal, tracking, now);
    }
    json(&ErrorBody {
        message: format!("ErrorCode:{};{refusal}", refusal.code()),
        exception_message: format!("Tracking ID:{tracking:032X}-G:0-TimeStamp:{}", now.strftime("%m/%d/%Y %H:%M:%S")),
    })
}

/// Error shape B (`iot-hub.md` 3.1).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NumberedError {
    error_code: u32,
    tracking_id: String,
    message: String,
    timestamp_utc: String,
    info: (),
}

/// The body of a refusal on the newer paths and to devices, by number.
#[must_use]
pub fn numbered_refusal(refusal: &Refusal, tracking: u128, now: Timestamp) -> Vec<u8> {
    json(&NumberedError {
        error_code: refusal.number(),
        tracking_id: format!("{tracking:032X}"),
        message: refusal.to_string(),
        timestamp_utc: date(now),
        info: (),
    })
}

/// The body of a refused direct method: shape B as a text in shape A (`iot-hub.md` 3.1).
fn nested_refusal(refusal: &Refusal, tracking: u128, now: Timestamp) -> Vec<u8> {
    let inner = numbered_refusal(refusal, tracking, now);
    json(&ErrorBody { message: String::from_utf8_lossy(&inner).into_owned(), exception_message: String::new() })
}

/// A twin as its device reads it: no tags, no `$metadata` (`iot-hub.md` 8.2).
#[must_use]
pub fn device_twin(twin: &TwinRecord) -> Vec<u8> {
    let section = |properties: &Properties| {
        let mut object = properties.values.clone();
        object.insert("$version".to_owned(), count(properties.version));
        Value::Object(object)
    };
    let body = [("desired".to_owned(), section(&twin.desired)), ("reported".to_owned(), section(&twin.reported))];
    json(&Map(&Object::from(body)))
}

/// The text of a body.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "no caller has anything that could fail to serialize")]
pub fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("maps have string keys and nothing here fails to serialize")
}

/// Reads the body of a twin's PATCH or PUT: `tags` and `properties.desired`; all else is ignored, as are `$metadata`
/// and `$version` in desired (`iot-hub.md` 1.5). A section that is null counts as left out.
///
/// # Errors
/// [`Refusal::Deserialization`] when the body is not a JSON object, [`Refusal::ArgumentInvalid`] when a section is
/// not an object.
pub fn twin_write(body: &[u8]) -> Result<MergePatch, Refusal> {
    let mut twin = into_object(parse(body)?, "the body")?;
    let mut properties = optional_object(twin.remove("properties"), "properties")?.unwrap_or_default();
    let mut desired = optional_object(properties.remove("desired"), "properties.desired")?;
    if let Some(desired) = &mut desired {
        desired.retain(|key, _| !IGNORED_IN_DESIRED.contains(&key.as_str()));
    }
    Ok(MergePatch { tags: optional_object(twin.remove("tags"), "tags")?, desired })
}

/// Reads what a device reports: a merge patch.
///
/// # Errors
/// [`Refusal::Deserialization`] when it is no JSON, [`Refusal::ArgumentInvalid`] when it is no object.
pub fn report(body: &[u8]) -> Result<Object, Refusal> {
    into_object(parse(body)?, "the body")
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    match wide_integer(&json) {
        None => Ok(Value::from_json(json)),
        Some(integer) => Err(Refusal::ArgumentInvalid(format!("{integer} is larger than an integer may be"))),
    }
}

/// An integer that needs 64 bits without a sign. The domain's numbers would take it for a float, which the limits let
/// pass (`iot-hub.md` section 4).
fn wide_integer(json: &serde_json::Value) -> Option<u64> {
    match json {
        serde_json::Value::Number(number) if number.is_i64() => None,
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::Array(items) => items.iter().find_map(wide_integer),
        serde_json::Value::Object(object) => object.values().find_map(wide_integer),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => None,
    }
}

fn not_json(error: &serde_json::Error) -> Refusal {
    Refusal::Deserialization(format!("the body is not the expected JSON: {error}"))
}

fn into_object(value: Value, what: &str) -> Result<Object, Refusal> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Refusal::ArgumentInvalid(format!("{what} must be an object")))
        }
    }
}

fn optional_object(value: Option<Value>, what: &str) -> Result<Option<Object>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => into_object(value, what).map(Some),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityRequest {
    device_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationRequest>,
    capabilities: Option<CapabilitiesRequest>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationRequest {
    symmetric_key: Option<KeyRequest>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyRequest {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesRequest {
    iot_edge: Option<bool>,
}

/// Reads the body of an identity's PUT (`iot-hub.md` 2.5). Unknown fields and the ones only the hub writes are
/// ignored; absent and empty keys ask the hub to make them.
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentInvalid`] for another device's id, an
/// unknown status or a bad key, [`Refusal::NotImplemented`] for certificates, Edge devices and hierarchies.
pub fn identity_write(body: &[u8], device: &DeviceId) -> Result<IdentitySpec, Refusal> {
    let request: IdentityRequest = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    if request.device_id.as_deref().is_some_and(|id| id != device.as_str()) {
        return Err(Refusal::ArgumentInvalid("the deviceId of the body is not the one of the address".to_owned()));
    }
    if request.capabilities.is_some_and(|capabilities| capabilities.iot_edge == Some(true)) {
        return Err(Refusal::NotImplemented("an IoT Edge device".to_owned()));
    }
    if request.device_scope.is_some() || request.parent_scopes.is_some_and(|scopes| !scopes.is_empty()) {
        return Err(Refusal::NotImplemented("a device hierarchy".to_owned()));
    }
    let status = match request.status {
        None => Status::Enabled,
        Some(text) => Status::parse(&text)
            .ok_or_else(|| Refusal::ArgumentInvalid("status must be enabled or disabled".to_owned()))?,
    };
    let keys = request.authentication.map(keys).transpose()?.flatten();
    Ok(IdentitySpec { status, status_reason: request.status_reason, keys })
}

fn keys(authentication: AuthenticationRequest) -> Result<Option<(SharedKey, SharedKey)>, Refusal> {
    match authentication.r#type.as_deref() {
        None | Some("sas") => {}
        Some("selfSigned" | "certificateAuthority" | "none") => {
            return Err(Refusal::NotImplemented("authentication by anything but symmetric keys".to_owned()));
        }
        Some(_) => return Err(Refusal::ArgumentInvalid("authentication.type is not one the hub knows".to_owned())),
    }
    let Some(pair) = authentication.symmetric_key else { return Ok(None) };
    let given = |key: Option<String>| key.filter(|key| !key.is_empty());
    match (given(pair.primary_key), given(pair.secondary_key)) {
        (None, None) => Ok(None),
        (Some(primary), Some(secondary)) => Ok(Some((SharedKey::new(&primary)?, SharedKey::new(&secondary)?))),
        (Some(_), None) | (None, Some(_)) => {
            Err(Refusal::ArgumentInvalid("both symmetric keys are given, or neither".to_owned()))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodRequest {
    method_name: Option<String>,
    #[serde(default)]
    payload: serde_json::Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

/// Reads the body that calls a direct method (`iot-hub.md` 2.10).
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentNull`] when the name is missing, and
/// what [`MethodCall::new`] refuses.
pub fn method_call(body: &[u8]) -> Result<MethodCall, Refusal> {
    let request: MethodRequest = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    let name = request.method_name.ok_or_else(|| Refusal::ArgumentNull("methodName".to_owned()))?;
    let (response, connect) = (request.response_timeout_in_seconds, request.connect_timeout_in_seconds);
    MethodCall::new(name, json(&request.payload), response, connect)
}

#[derive(Serialize)]
struct MethodAnswerFields {
    status: i32,
    payload: serde_json::Value,
}

/// The body that answers a direct method. A device may answer with nothing, which is `null`.
///
/// # Errors
/// [`Refusal::Deserialization`] when `payload`, as the device sent it, is no JSON.
pub fn method_answer(status: i32, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let payload = if payload.is_empty() {
        serde_json::Value::Null
    } else {
        let wrong = |_| Refusal::Deserialization("the device answered with something that is no JSON".to_owned());
        serde_json::from_slice(payload).map_err(wrong)?
    };
    Ok(json(&MethodAnswerFields { status, payload }))
}

#[derive(Deserialize)]
struct QueryRequest {
    query: Option<String>,
}

/// Reads the body of a query (`iot-hub.md` 2.7).
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentNull`] when the query is missing.
pub fn query(body: &[u8]) -> Result<String, Refusal> {
    let request: QueryRequest = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    request.query.ok_or_else(|| Refusal::ArgumentNull("BadRequest".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::twin_record::TwinRecord;
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn device() -> Device {
        let id = DeviceId::new("d1").unwrap();
        let identity = Identity::new(id, 637_455, IdentitySpec::default(), &mut |bytes| bytes.fill(1));
        Device { identity, twin: TwinRecord::new(at("2021-01-05T18:41:47.97314829Z")), change: 0 }
    }

    #[test]
    fn a_fresh_twin_prints_as_the_recorded_one() {
        let text = String::from_utf8(json(&TwinBody(&device()))).unwrap();
        assert_eq!(
            text,
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
    fn a_written_section_prints_user_keys_first_with_its_stamps() {
        let body = twin_write(br#"{"properties":{"desired":{"a":{"b":1.0},"l":[1,2]}}}"#).unwrap();
        let twin = device().twin.patched(&body, at("2021-01-05T18:41:48.5Z")).unwrap();
        let expected = concat!(
            r#"{"a":{"b":1.0},"l":[1,2],"$metadata":{"$lastUpdated":T,"$lastUpdatedVersion":2,"#,
            r#""a":{"$lastUpdated":T,"$lastUpdatedVersion":2,"b":{"$lastUpdated":T,"$lastUpdatedVersion":2}},"#,
            r#""l":{"$lastUpdated":T,"$lastUpdatedVersion":2}},"$version":2}"#,
        );
        let text = String::from_utf8(json(&Section(&twin.desired))).unwrap();
        assert_eq!(text, expected.replace('T', "\"2021-01-05T18:41:48.5Z\""));
    }

    #[test]
    fn dates_have_seven_digits_at_most_and_no_trailing_zeros() {
        for (given, printed) in [
            ("2020-02-03T04:05:06Z", "2020-02-03T04:05:06Z"),
            ("2020-02-03T04:05:06.573089Z", "2020-02-03T04:05:06.573089Z"),
            ("2020-02-03T04:05:06.3360931Z", "2020-02-03T04:05:06.3360931Z"),
            ("2020-02-03T04:05:06.000000199Z", "2020-02-03T04:05:06.0000001Z"),
            ("2020-02-03T04:05:06.000000099Z", "2020-02-03T04:05:06Z"),
        ] {
            assert_eq!(date(at(given)), printed);
        }
        assert_eq!(date_or_never(None), NEVER);
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

    #[test]
    fn an_identity_s_body_is_read_in_the_forms_sdks_send() {
        let id = DeviceId::new("d1").unwrap();
        let key = device().identity.primary_key;
        let pair = |primary: &str, secondary: &str| {
            format!(r#"{{"symmetricKey":{{"primaryKey":"{primary}","secondaryKey":"{secondary}"}},"type":"sas"}}"#)
        };
        let given = Some((key.clone(), key.clone()));
        for (authentication, expected) in [
            ("null".to_owned(), Ok(None)),
            ("{}".to_owned(), Ok(None)),
            (pair("", ""), Ok(None)),
            (pair(key.expose(), key.expose()), Ok(given)),
            (pair(key.expose(), ""), Err("ArgumentInvalid")),
            (pair("short", "short"), Err("ArgumentInvalid")),
            (r#"{"type":"selfSigned"}"#.to_owned(), Err("NotImplemented")),
            (r#"{"type":"magic"}"#.to_owned(), Err("ArgumentInvalid")),
        ] {
            let body = format!(r#"{{"deviceId":"d1","deviceScope":null,"authentication":{authentication}}}"#);
            let found = identity_write(body.as_bytes(), &id).map(|spec| spec.keys);
            assert_eq!(found.map_err(|refusal| refusal.code()), expected, "{authentication}");
        }
        for (body, code) in [
            (r#"{"deviceId":"d2"}"#, "ArgumentInvalid"),
            (r#"{"status":"maybe"}"#, "ArgumentInvalid"),
            (r#"{"capabilities":{"iotEdge":true}}"#, "NotImplemented"),
            (r#"{"deviceScope":"ms-azure-iot-edge://x-1"}"#, "NotImplemented"),
            (r#"{"deviceId":7}"#, "DeserializationError"),
        ] {
            assert_eq!(identity_write(body.as_bytes(), &id).unwrap_err().code(), code, "{body}");
        }
        assert_eq!(identity_write(b"{}", &id), Ok(IdentitySpec::default()));
    }

    #[test]
    fn a_created_identity_prints_its_keys_and_dates_without_a_zone() {
        let device = device();
        let body = json(&IdentityBody { device: &device, just_created: true });
        let Value::Object(identity) = parse(&body).unwrap() else { panic!("an identity is an object") };
        assert_eq!(identity["statusUpdatedTime"], Value::from(NEVER_WITHOUT_ZONE));
        assert_eq!(identity["generationId"], Value::from("637455"));
        assert_eq!(identity["statusReason"], Value::Null);
        let key = identity["authentication"].get(["symmetricKey", "primaryKey"]);
        assert_eq!(key, Some(&Value::from(device.identity.primary_key.expose())));
    }

    #[test]
    fn an_error_has_the_shape_that_sdks_split() {
        let refused = Refusal::DeviceNotFound(DeviceId::new("d1").unwrap());
        assert_eq!(
            String::from_utf8(refusal(&refused, 0xAB, at("2026-11-23T03:04:05Z"))).unwrap(),
            concat!(
                r#"{"Message":"ErrorCode:DeviceNotFound;d1","ExceptionMessage":"Tracking ID:"#,
                r#"000000000000000000000000000000AB-G:0-TimeStamp:11/23/2026 03:04:05"}"#
            )
        );
    }
}
