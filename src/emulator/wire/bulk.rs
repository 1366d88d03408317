//! Bulk operations (`iot-hub.md` 2.6).

use serde::{Deserialize, Serialize};

use super::super::error::Refusal;
use super::super::if_match::IfMatch;
use super::super::registry::{BulkError, BulkItem, ImportMode};
use super::identity::{AuthenticationRequest, CapabilityRequest, SpecParts, spec};
use super::json::{json, typed, value};
use super::twin::sections;
use crate::twin::{DeviceId, MergePatch, ModuleId, Object, TwinRef};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemRequest {
    id: Option<String>,
    module_id: Option<String>,
    /// The contract says `eTag`; Node sends a device as it was read, with `etag`.
    #[serde(rename = "eTag", alias = "etag")]
    etag: Option<String>,
    import_mode: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationRequest>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
    tags: Option<serde_json::Value>,
    properties: Option<serde_json::Value>,
    capabilities: Option<CapabilityRequest>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
    managed_by: Option<String>,
}

/// Reads the body of a bulk operation. What is wrong with an item's identity or twin refuses the item alone, later;
/// what hides which device it means, or what to do with it, refuses the call.
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentInvalid`] for an id or a mode that is
/// missing or not one.
pub fn bulk_items(body: &[u8]) -> Result<Vec<BulkItem>, Refusal> {
    typed::<Vec<ItemRequest>>(body)?.into_iter().map(item).collect()
}

fn item(request: ItemRequest) -> Result<BulkItem, Refusal> {
    let bad = |what: &str, why: &dyn std::fmt::Display| {
        Refusal::ArgumentInvalid(format!("the {what} of an item is not valid: {why}"))
    };
    let id = request.id.as_deref().unwrap_or_default();
    let device = DeviceId::new(id).map_err(|error| bad("id", &error))?;
    let module = match request.module_id.as_deref() {
        None | Some("") => None,
        Some(id) => Some(ModuleId::new(id).map_err(|error| bad("moduleId", &error))?),
    };
    let mode = request.import_mode.as_deref().and_then(ImportMode::parse);
    let mode = mode.ok_or_else(|| bad("importMode", &"it must be one of the modes of bulk operations"))?;
    let spec = spec(SpecParts {
        // A module has no status (`iot-hub.md` 2.5).
        status: request.status.filter(|_| module.is_none()),
        status_reason: request.status_reason.filter(|_| module.is_none()),
        authentication: request.authentication,
        capabilities: request.capabilities.filter(|_| module.is_none()),
        device_scope: request.device_scope,
        parent_scopes: request.parent_scopes,
        managed_by: request.managed_by,
    });
    Ok(BulkItem {
        twin_ref: TwinRef { device, module },
        mode,
        spec,
        etag: etag(request.etag.as_deref()),
        twin_etag: etag(request.twin_etag.as_deref()),
        twin: twin(request.tags, request.properties),
    })
}

/// An etag stands in a body without quotes; with quotes it means the same.
fn etag(text: Option<&str>) -> IfMatch {
    match IfMatch::parse(text) {
        IfMatch::Unquoted(etag) => IfMatch::Quoted(etag),
        other @ (IfMatch::Absent | IfMatch::Any | IfMatch::Quoted(_)) => other,
    }
}

fn twin(tags: Option<serde_json::Value>, properties: Option<serde_json::Value>) -> Result<MergePatch, Refusal> {
    let mut twin = Object::new();
    for (name, section) in [("tags", tags), ("properties", properties)] {
        if let Some(section) = section {
            twin.insert(name.to_owned(), value(section)?);
        }
    }
    sections(twin)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BulkResult {
    is_successful: bool,
    errors: Vec<ErrorFields>,
    /// A hub warns of a device that it registered without its twin; here both are registered or neither.
    warnings: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorFields {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    error_code: &'static str,
    error_status: String,
    operation: &'static str,
}

/// The answer of a bulk operation with these refused items.
#[must_use]
pub fn bulk_result(errors: &[BulkError]) -> Vec<u8> {
    let fields = |error: &BulkError| ErrorFields {
        device_id: error.twin_ref.device.to_string(),
        module_id: error.twin_ref.module.as_ref().map(ToString::to_string),
        error_code: error.refusal.code(),
        error_status: error.refusal.to_string(),
        operation: error.mode.as_str(),
    };
    json(&BulkResult { is_successful: errors.is_empty(), errors: errors.iter().map(fields).collect(), warnings: [] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::identity::{IdentitySpec, Status};

    #[test]
    fn an_item_is_read_as_node_and_python_send_it() {
        let items = bulk_items(
            br#"[{"id":"n2","importMode":"create","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}},
                {"status":"disabled","id":"n2","importMode":"UpdateIfMatchETag","etag":"MQ=="},
                {"id":"d1","moduleId":"m","eTag":"Mg==","importMode":"updateTwinIfMatchETag","twinETag":"\"AAAAAAAAAAQ=\"","tags":{"z":1},
                 "properties":{"desired":{"a":1,"$version":7},"reported":{"r":1}},"status":"disabled"}]"#,
        )
        .unwrap();
        assert_eq!((items[0].mode, items[0].spec.clone()), (ImportMode::Create, Ok(IdentitySpec::default())));
        assert_eq!(items[1].etag, IfMatch::Quoted("MQ==".to_owned()));
        assert_eq!(items[1].spec.as_ref().map(|spec| spec.status), Ok(Status::Disabled));
        assert_eq!(items[2].twin_ref.to_string(), "d1/m");
        assert_eq!(items[2].etag, IfMatch::Quoted("Mg==".to_owned()));
        assert_eq!(items[2].twin_etag, IfMatch::Quoted("AAAAAAAAAAQ=".to_owned()));
        let twin = items[2].twin.clone().unwrap();
        assert_eq!((twin.tags.unwrap().len(), twin.desired.unwrap().len()), (1, 1));
        assert_eq!(items[2].spec, Ok(IdentitySpec::default()), "modules have no status");
    }

    #[test]
    fn what_cannot_be_attributed_refuses_the_call_and_the_rest_the_item() {
        for (body, code) in [
            ("{}", "DeserializationError"),
            (r#"[{"id":1,"importMode":"create"}]"#, "DeserializationError"),
            (r#"[{"importMode":"create"}]"#, "ArgumentInvalid"),
            (r#"[{"id":"a b","importMode":"create"}]"#, "ArgumentInvalid"),
            (r#"[{"id":"a","moduleId":"b c","importMode":"create"}]"#, "ArgumentInvalid"),
            (r#"[{"id":"a"}]"#, "ArgumentInvalid"),
            (r#"[{"id":"a","importMode":"upsert"}]"#, "ArgumentInvalid"),
        ] {
            assert_eq!(bulk_items(body.as_bytes()).unwrap_err().code(), code, "{body}");
        }
        let items = bulk_items(
            br#"[{"id":"a","importMode":"create","status":"maybe"},{"id":"b","importMode":"updateTwin","tags":7},
                {"id":"c","importMode":"updateTwin","tags":{"n":9223372036854775808}}]"#,
        )
        .unwrap();
        assert_eq!(items[0].spec.as_ref().unwrap_err().code(), "ArgumentInvalid");
        assert_eq!(items[1].twin.as_ref().unwrap_err().code(), "ArgumentInvalid");
        assert_eq!(items[2].twin.as_ref().unwrap_err().code(), "ArgumentInvalid");
    }

    #[test]
    fn the_answer_names_each_refused_item() {
        assert_eq!(bulk_result(&[]), br#"{"isSuccessful":true,"errors":[],"warnings":[]}"#);
        let twin_ref = TwinRef::module(DeviceId::new("d").unwrap(), ModuleId::new("m").unwrap());
        let refusal = Refusal::ModuleNotFound(twin_ref.clone());
        let error = BulkError { twin_ref, refusal, mode: ImportMode::DeleteIfMatchEtag };
        assert_eq!(
            String::from_utf8(bulk_result(&[error])).unwrap(),
            concat!(
                r#"{"isSuccessful":false,"errors":[{"deviceId":"d","moduleId":"m","errorCode":"ModuleNotFound","#,
                r#""errorStatus":"d/m","operation":"deleteIfMatchETag"}],"warnings":[]}"#
            )
        );
    }
}
