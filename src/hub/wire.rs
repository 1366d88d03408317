//! The hub's JSON: the only place that knows its field names.
//!
//! Invariant: any bytes give a value or a short text that says what is wrong with them; nothing here panics, and a
//! twin is only taken when it is the one that was asked for, with an etag that can guard a write.

use serde::Serialize;
use serde_json::json;

use crate::twin::{DeviceId, ETag, MergePatch, ModuleId, Number, Object, Twin, TwinRef, TwinTrace, Value};

/// Where the hub names the configuration that wrote a leaf (`iot-hub.md` 1.4).
const LAST_UPDATED_BY: &str = "$lastUpdatedBy";
/// The most bytes of a text of the hub that go into an error.
pub(super) const TEXT_MAX: usize = 512;
/// The most bytes of a code of the hub.
const CODE_MAX: usize = 64;
/// How often an error body may stand inside another one's message (`iot-hub.md` 3.1 knows one).
const FAULT_DEPTH_MAX: usize = 3;

/// What the hub said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The code by name, such as `DeviceNotFound`; `None` when the answer has none, as one from a proxy.
    pub(super) code: Option<String>,
    /// The hub's words; may be empty.
    pub(super) message: String,
}

#[derive(Serialize)]
struct PatchBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Properties<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a Object>,
}

#[derive(Serialize)]
struct Properties<'a> {
    desired: &'a Object,
}

/// The body of a twin patch.
pub(super) fn patch_body(patch: &MergePatch) -> Vec<u8> {
    let properties = patch.desired.as_ref().map(|desired| Properties { desired });
    let body = PatchBody { properties, tags: patch.tags.as_ref() };
    serde_json::to_vec(&body).expect("keys are texts and numbers finite")
}

/// The body that registers a device: SAS, and keys made by the hub, since none are given (`iot-hub.md` 2.5).
pub(super) fn device_body(device: &DeviceId) -> Vec<u8> {
    json!({ "deviceId": device.as_str(), "status": "enabled" }).to_string().into_bytes()
}

/// The first key of the device that `body` is the identity of.
///
/// # Errors
/// What is missing; never any of the body, since it is a secret.
pub(super) fn device_key(body: &[u8], asked: &DeviceId) -> Result<String, String> {
    let identity: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| "the identity is not JSON".to_owned())?;
    if identity["deviceId"].as_str() != Some(asked.as_str()) {
        return Err("the identity is another device's".to_owned());
    }
    let key = identity["authentication"]["symmetricKey"]["primaryKey"].as_str().filter(|key| !key.is_empty());
    key.map(str::to_owned).ok_or_else(|| "the device has no symmetric key".to_owned())
}

/// The body of a query.
pub(super) fn query_body(query: &str) -> Vec<u8> {
    json!({ "query": query }).to_string().into_bytes()
}

/// The twin that `body` is.
///
/// # Errors
/// What is wrong with it: not JSON, another twin than `asked`, an etag that could not guard a write, a section of
/// another type.
pub(super) fn twin(body: &[u8], asked: &TwinRef) -> Result<Twin, String> {
    // The metadata is of use only where a configuration left its name in it.
    let plain = std::str::from_utf8(body).ok().filter(|text| !text.contains(LAST_UPDATED_BY));
    let read = plain.map_or_else(|| serde_json::from_slice(body), Value::parse_twin_without_metadata);
    let mut fields = fields_of(read, asked)?;
    let (etag, device_etag, version) = marks(&mut fields)?;
    let tags = section(fields.remove("tags"), "tags")?.unwrap_or_default();
    let mut properties = section(fields.remove("properties"), "properties")?.ok_or("the twin has no properties")?;
    let desired = properties.remove("desired");
    let metadata =
        desired.as_ref().and_then(|desired| desired.get([Twin::METADATA])).filter(|it| names_a_writer(it)).cloned();
    let desired = section(desired, "properties.desired")?;
    let desired = desired.ok_or("the twin has no properties.desired")?;
    let reported = section(properties.remove("reported"), "properties.reported")?.unwrap_or_default();
    let mut system = system(fields);
    if let Some(metadata) = metadata {
        system.insert(Twin::METADATA.to_owned(), metadata);
    }
    Ok(Twin { twin_ref: asked.clone(), etag, device_etag, version, tags, desired, reported, system })
}

/// The trace, with this one of its tags, of the twin that `body` is.
///
/// # Errors
/// As [`twin`], but that sections other than the tags are not looked at.
pub(super) fn trace(body: &[u8], asked: &TwinRef, tag: &str) -> Result<TwinTrace, String> {
    let mut fields = fields_of(Value::parse_trace(body, tag), asked)?;
    let (etag, device_etag, version) = marks(&mut fields)?;
    let mut tags = section(fields.remove("tags"), "tags")?.unwrap_or_default();
    Ok(TwinTrace { etag, device_etag, version, tag: tags.remove(tag) })
}

/// The fields of the twin that was asked for.
fn fields_of(read: Result<Value, serde_json::Error>, asked: &TwinRef) -> Result<Object, String> {
    let Value::Object(fields) = read.map_err(not_json)? else { return Err("the twin is not an object".to_owned()) };
    check_id(&fields, "deviceId", Some(asked.device.as_str()))?;
    check_id(&fields, "moduleId", asked.module.as_ref().map(ModuleId::as_str))?;
    Ok(fields)
}

/// Its etag, the one of its identity, and its version.
fn marks(fields: &mut Object) -> Result<(ETag, Option<String>, u64), String> {
    let etag = fields.get("etag").and_then(Value::as_str).and_then(ETag::new);
    let etag = etag.ok_or("the twin has no etag that could guard a write")?;
    let device_etag = match fields.remove("deviceEtag") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err("deviceEtag of the twin is not a string".to_owned()),
    };
    let version = match fields.get("version") {
        Some(Value::Number(Number::Integer(version))) => u64::try_from(*version).ok(),
        Some(_) | None => None,
    };
    Ok((etag, device_etag, version.ok_or("version of the twin is not a whole number")?))
}

/// Reads `body` as each answer that a hub gives; for the fuzz target.
///
/// # Panics
/// When something is taken that must not be.
#[cfg(fuzzing)]
pub fn probe_answers(body: &[u8]) {
    let asked = TwinRef::device(DeviceId::new("d").expect("an id"));
    if let Ok(twin) = twin(body, &asked) {
        assert!(twin.twin_ref == asked && !twin.etag.as_str().is_empty());
        assert_eq!(trace(body, &asked, "d"), Ok(TwinTrace::of(twin, "d")));
    }
    if let Ok(rows) = rows(body) {
        assert!(rows.iter().all(|row| row.as_object().is_some()));
    }
    let fault = fault(body, None);
    assert!(fault.message.len() <= TEXT_MAX && fault.code.is_none_or(|code| code.len() <= CODE_MAX));
}

/// Whether the metadata of a section says of any leaf which configuration wrote it (`iot-hub.md` 1.4).
fn names_a_writer(metadata: &Value) -> bool {
    metadata
        .as_object()
        .is_some_and(|object| object.contains_key(LAST_UPDATED_BY) || object.values().any(names_a_writer))
}

/// What is left of the fields once ids, etag and version are out.
fn system(mut fields: Object) -> Object {
    for known in ["deviceId", "moduleId", "etag", "version"] {
        fields.remove(known);
    }
    fields
}

/// The rows that `body` is.
///
/// # Errors
/// What is wrong with it: not JSON, not an array, a row that is no object.
pub(super) fn rows(body: &[u8]) -> Result<Vec<Value>, String> {
    let Value::Array(rows) = serde_json::from_slice(body).map_err(not_json)? else {
        return Err("the page is not an array".to_owned());
    };
    match rows.iter().position(|row| row.as_object().is_none()) {
        None => Ok(rows),
        Some(index) => Err(format!("row {index} of the page is not an object")),
    }
}

/// What the hub says in an error body of any of its shapes (`iot-hub.md` 3.1). The code of the header counts before
/// one in the body.
pub(super) fn fault(body: &[u8], code_header: Option<&str>) -> Fault {
    let mut fault = fault_of_text(&String::from_utf8_lossy(body), FAULT_DEPTH_MAX);
    if let Some(code) = code_header.and_then(code_name) {
        fault.code = Some(code);
    }
    fault
}

/// `text` without control characters, at most `max` bytes of it.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut result = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if result.len() + character.len_utf8() > max {
            break;
        }
        result.push(character);
    }
    result
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn not_json(error: serde_json::Error) -> String {
    format!("the answer is not JSON: {error}")
}

fn check_id(fields: &Object, name: &str, asked: Option<&str>) -> Result<(), String> {
    let answered = match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(format!("{name} of the twin is not a string")),
    };
    match (asked, answered) {
        (asked, answered) if asked == answered => Ok(()),
        (_, None) => Err(format!("the twin has no {name}")),
        (_, Some(answered)) => Err(format!("the twin is another one's: its {name} is {:?}", clean(answered, CODE_MAX))),
    }
}

/// A section without the hub's own entries.
fn section(value: Option<Value>, name: &str) -> Result<Option<Object>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(mut object)) => {
            object.remove(Twin::METADATA);
            object.remove("$version");
            Ok(Some(object))
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(format!("{name} of the twin is not an object"))
        }
    }
}

fn fault_of_text(text: &str, depth: usize) -> Fault {
    let nested = depth.checked_sub(1).zip(serde_json::from_str(text).ok());
    match nested {
        Some((depth, serde_json::Value::Object(fields))) => fault_of_fields(&fields, depth),
        Some((depth, serde_json::Value::String(text))) => fault_of_text(&text, depth),
        Some(_) | None => fault_of_words(text),
    }
}

fn fault_of_fields(fields: &serde_json::Map<String, serde_json::Value>, depth: usize) -> Fault {
    let field = |name: &str| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let code = match field("errorCode") {
        Some(serde_json::Value::Number(number)) => code_name(&number.to_string()),
        Some(serde_json::Value::String(text)) => code_name(text),
        Some(_) | None => None,
    };
    let message = field("message").and_then(serde_json::Value::as_str).unwrap_or_default();
    let inner = fault_of_text(message, depth);
    Fault { code: inner.code.or(code), message: inner.message }
}

/// `ErrorCode:{code};{words}`, or words alone.
fn fault_of_words(text: &str) -> Fault {
    let coded = text.trim_start().strip_prefix("ErrorCode:").map(|rest| rest.split_once(';').unwrap_or((rest, "")));
    let (code, words) = coded.map_or((None, text), |(code, words)| (code_name(code), words));
    Fault { code, message: clean(words.trim(), TEXT_MAX) }
}

/// The name of a code given by name or by number.
fn code_name(code: &str) -> Option<String> {
    let code = clean(code.trim(), CODE_MAX);
    let name = match code.as_str() {
        "" => return None,
        "400004" => "ArgumentInvalid",
        "400023" => "EtagDoesNotMatch",
        "401002" => "IotHubUnauthorizedAccess",
        "403001" => "IotHubSuspended",
        "403002" => "IotHubQuotaExceeded",
        "403010" => "OperationNotAvailableInCurrentTier",
        "404001" => "DeviceNotFound",
        "404010" => "ModuleNotFound",
        "404012" => "IotHubFailingOver",
        "404101" => "QueryStoreClusterNotFound",
        "404104" => "DeviceConnectionClosedRemotely",
        "409001" => "DeviceAlreadyExists",
        "412001" => "PreconditionFailed",
        "429001" => "ThrottlingException",
        "429002" => "ThrottleBacklogLimitExceeded",
        "429003" => "ThrottlingBacklogTimeout",
        "500001" => "ServerError",
        "503001" => "ServiceUnavailable",
        other => other,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_key_of_an_identity_is_taken_and_never_told() {
        let device = DeviceId::new("d1").unwrap();
        let identity = |keys: &str| {
            let text = format!(r#"{{"deviceId":"d1","authentication":{{"symmetricKey":{keys},"type":"sas"}}}}"#);
            device_key(text.as_bytes(), &device)
        };
        assert_eq!(identity(r#"{"primaryKey":"S0VZ","secondaryKey":"T1RIRVI="}"#), Ok("S0VZ".to_owned()));
        for keys in ["null", "{}", r#"{"primaryKey":null}"#, r#"{"primaryKey":""}"#, r#""S0VZ""#] {
            assert_eq!(identity(keys), Err("the device has no symmetric key".to_owned()), "{keys}");
        }
        for (body, says) in [
            (r#"{"deviceId":"d2","authentication":{"symmetricKey":{"primaryKey":"S0VZ"}}}"#, "another device's"),
            (r#"{"deviceId":"d1","key":"S0VZ""#, "is not JSON"),
            (r#"["S0VZ"]"#, "another device's"),
        ] {
            let error = device_key(body.as_bytes(), &device).unwrap_err();
            assert!(error.contains(says) && !error.contains("S0VZ"), "{error}");
        }
    }

    #[test]
    fn a_trace_has_one_tag_and_is_taken_of_the_twin_that_was_asked_for_alone() {
        let tags = r#""tags":{"$version":3,"other":{"a":1},"mine":{"b":{"tags":[1]}}},"version""#;
        let body = FRESH.replacen("\"version\"", tags, 1);
        let trace_of = |body: &str, tag| trace(body.as_bytes(), &d1(), tag);
        for (tag, stands) in [("mine", Some(r#"{"b":{"tags":[1]}}"#)), ("none", None), ("$version", None)] {
            let found = trace_of(&body, tag).unwrap();
            assert_eq!(found, TwinTrace::of(twin(body.as_bytes(), &d1()).unwrap(), tag));
            assert_eq!(found.tag.map(|value| value.to_string()).as_deref(), stands);
        }
        for (from, to) in [
            ("AAAAAAAAAAE=", "\\u00e4"),
            ("\"d1\"", "\"d2\""),
            ("\"version\":2", "\"version\":2.5"),
            (r#""tags":{"#, r#""tags":1,"x":{"#),
            (r#""capabilities":{"#, r#""capabilities":{1"#),
        ] {
            let bad = body.replacen(from, to, 1);
            assert_ne!(bad, body);
            assert_eq!(trace_of(&bad, "mine").unwrap_err(), twin(bad.as_bytes(), &d1()).unwrap_err(), "{to}");
        }
    }

    /// The fresh device twin of `iot-hub.md` 1.1.
    const FRESH: &str = r#"{"deviceId":"d1","etag":"AAAAAAAAAAE=","deviceEtag":"NjQ1MTQxOTM4","status":"enabled",
        "statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected",
        "lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",
        "x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"version":2,
        "properties":{"desired":{"$metadata":{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1},
                      "reported":{"$metadata":{"$lastUpdated":"2021-01-05T18:41:47.9731482Z"},"$version":1}},
        "capabilities":{"iotEdge":false}}"#;

    fn d1() -> TwinRef {
        TwinRef::device(DeviceId::new("d1").unwrap())
    }

    fn object(text: &str) -> Object {
        Value::parse_json(text).unwrap().as_object().unwrap().clone()
    }

    #[test]
    fn a_twin_loses_what_is_the_hub_s_own() {
        let fresh = twin(FRESH.as_bytes(), &d1()).unwrap();
        assert_eq!(fresh.etag.as_str(), "AAAAAAAAAAE=");
        assert_eq!(fresh.device_etag.as_deref(), Some("NjQ1MTQxOTM4"));
        assert_eq!(fresh.version, 2);
        assert!(fresh.tags.is_empty() && fresh.desired.is_empty() && fresh.reported.is_empty());

        let body = r#"{"deviceId":"d1","moduleId":"m","etag":"AAAAAAAAAAI=","deviceEtag":null,"version":3,
            "tags":{"a":{"$version":"kept below"},"$version":1},
            "properties":{"desired":{"p":1.0,"$metadata":{},"$version":2}}}"#;
        let module = TwinRef::module(d1().device, ModuleId::new("m").unwrap());
        let full = twin(body.as_bytes(), &module).unwrap();
        assert_eq!(full.tags, object(r#"{"a":{"$version":"kept below"}}"#));
        assert_eq!(Value::Object(full.desired).to_string(), r#"{"p":1.0}"#);
        assert_eq!((full.device_etag, full.reported, full.twin_ref), (None, Object::new(), module));
    }

    #[test]
    fn a_twin_that_makes_no_sense_is_refused_with_the_reason() {
        for (from, to, reason) in [
            (FRESH, "[]", "the twin is not an object"),
            (FRESH, "{", "the answer is not JSON: EOF while parsing an object at line 1 column 1"),
            (r#""d1""#, r#""d2""#, "the twin is another one's: its deviceId is \"d2\""),
            (r#""d1""#, r#""D1""#, "the twin is another one's: its deviceId is \"D1\""),
            (r#""d1""#, "null", "the twin has no deviceId"),
            (r#""d1""#, "1", "deviceId of the twin is not a string"),
            (r#""d1""#, r#""d1","moduleId":"m""#, "the twin is another one's: its moduleId is \"m\""),
            (r#""AAAAAAAAAAE=""#, r#""*""#, "the twin has no etag that could guard a write"),
            (r#""AAAAAAAAAAE=""#, "null", "the twin has no etag that could guard a write"),
            (r#""NjQ1MTQxOTM4""#, "7", "deviceEtag of the twin is not a string"),
            (r#""version":2"#, r#""version":-2"#, "version of the twin is not a whole number"),
            (r#""version":2"#, r#""version":"2""#, "version of the twin is not a whole number"),
            (r#""version":2"#, r#""version":2,"tags":[]"#, "tags of the twin is not an object"),
            (r#""properties""#, r#""x""#, "the twin has no properties"),
            (r#""desired""#, r#""x""#, "the twin has no properties.desired"),
            (r#""reported":{"#, r#""reported":1,"x":{"#, "properties.reported of the twin is not an object"),
        ] {
            assert!(FRESH.contains(from));
            let body = FRESH.replacen(from, to, 1);
            assert_eq!(twin(body.as_bytes(), &d1()), Err(reason.to_owned()), "{to}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(twin(deep.as_bytes(), &d1()).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn rows_are_objects() {
        assert_eq!(rows(b"[]"), Ok(Vec::new()));
        assert_eq!(rows(br#"[{"n":3}]"#), Ok(vec![Value::Object(object(r#"{"n":3}"#))]));
        assert_eq!(rows(b"{}"), Err("the page is not an array".to_owned()));
        assert_eq!(rows(b"[{},1]"), Err("row 1 of the page is not an object".to_owned()));
    }

    #[test]
    fn a_patch_holds_only_the_sections_that_change() {
        let body = |patch: &MergePatch| String::from_utf8(patch_body(patch)).unwrap();
        let tags = Some(object(r#"{"a":{"b":null}}"#));
        let desired = Some(object(r#"{"p":1.0,"q":1}"#));
        assert_eq!(body(&MergePatch { tags: tags.clone(), desired: None }), r#"{"tags":{"a":{"b":null}}}"#);
        let both = r#"{"properties":{"desired":{"p":1.0,"q":1}},"tags":{"a":{"b":null}}}"#;
        assert_eq!(body(&MergePatch { tags, desired }), both);
        assert_eq!(device_body(&d1().device), br#"{"deviceId":"d1","status":"enabled"}"#);
        assert_eq!(query_body("SELECT \"*\""), br#"{"query":"SELECT \"*\""}"#);
    }

    #[test]
    fn every_shape_of_an_error_is_understood() {
        let tracking = r#""ExceptionMessage":"Tracking ID:0-TimeStamp:1""#;
        let b = r#"{"errorCode":404001,"trackingId":"t","message":"gone","timestampUtc":"x","info":null}"#;
        let b_in_a = serde_json::json!({ "Message": b }).to_string();
        for (body, header, code, message) in [
            (format!(r#"{{"Message":"ErrorCode:DeviceNotFound;d1",{tracking}}}"#), None, Some("DeviceNotFound"), "d1"),
            (b.to_owned(), None, Some("DeviceNotFound"), "gone"),
            (b_in_a.clone(), None, Some("DeviceNotFound"), "gone"),
            (b_in_a, Some("IotHubUnauthorizedAccess"), Some("IotHubUnauthorizedAccess"), "gone"),
            (r#"{"errorCode":"ModuleNotFound","message":"x"}"#.to_owned(), None, Some("ModuleNotFound"), "x"),
            (r#"{"errorCode":499999,"message":7}"#.to_owned(), None, Some("499999"), ""),
            ("ErrorCode:ArgumentInvalid;BadRequest".to_owned(), None, Some("ArgumentInvalid"), "BadRequest"),
            (r#""ErrorCode:ArgumentNull""#.to_owned(), None, Some("ArgumentNull"), ""),
            ("<html>\r\n502</html>".to_owned(), None, None, "<html>502</html>"),
            ("[1]".to_owned(), Some(" "), None, "[1]"),
            (String::new(), Some("412001"), Some("PreconditionFailed"), ""),
            ("\u{1b}[31mred\u{7}".to_owned(), Some("a\u{1b}b"), Some("ab"), "[31mred"),
        ] {
            let expected = Fault { code: code.map(str::to_owned), message: message.to_owned() };
            assert_eq!(fault(body.as_bytes(), header), expected, "{body}");
        }
        let long = fault("ä".repeat(10_000).as_bytes(), Some(&"x".repeat(10_000)));
        assert_eq!((long.message.len(), long.code.unwrap().len()), (512, 64));
        let nested = (0..8).fold("\"end\"".to_owned(), |text, _| serde_json::json!({ "Message": text }).to_string());
        assert!(fault(nested.as_bytes(), None).message.starts_with("{\"Message\""));
    }

    fn odd_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            prop_oneof![".{0,8}", "d1", "AAAAAAAAAAE=", "ErrorCode:.{0,4};.{0,4}"].prop_map(serde_json::Value::from),
        ];
        let key = prop_oneof![
            "deviceId|moduleId|etag|deviceEtag|version|tags|properties|desired|reported",
            "Message|errorCode|message|\\$version",
            ".{0,4}",
        ];
        leaf.prop_recursive(4, 32, 9, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..9)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_panics_and_what_is_taken_is_what_was_asked_for(json in odd_json()) {
            let body = json.to_string();
            if let Ok(twin) = twin(body.as_bytes(), &d1()) {
                prop_assert_eq!(twin.twin_ref, d1());
            }
            if let Ok(rows) = rows(body.as_bytes()) {
                prop_assert!(rows.iter().all(|row| row.as_object().is_some()));
            }
            let fault = fault(body.as_bytes(), None);
            prop_assert!(fault.message.len() <= TEXT_MAX && !fault.message.contains(char::is_control));
        }

        /// Single changes of a good twin reach deeper than random documents.
        #[test]
        fn no_change_of_one_field_panics(index in 0..9_usize, odd in odd_json()) {
            let mut body: serde_json::Value = serde_json::from_str(FRESH).unwrap();
            let pointers = ["/deviceId", "/etag", "/deviceEtag", "/version", "/properties", "/properties/desired",
                "/properties/reported", "/properties/desired/$version", "/status"];
            *body.pointer_mut(pointers[index]).unwrap() = odd;
            if let Ok(twin) = twin(body.to_string().as_bytes(), &d1()) {
                prop_assert!(!twin.desired.contains_key("$metadata") && !twin.reported.contains_key("$version"));
                prop_assert_eq!(trace(body.to_string().as_bytes(), &d1(), "a"), Ok(TwinTrace::of(twin, "a")));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let fault = fault(&bytes, None);
            prop_assert!(!fault.message.contains(char::is_control));
            prop_assert!(twin(&bytes, &d1()).is_err());
        }
    }
}
