//! Identities of devices and of modules (`iot-hub.md` 2.5).

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::super::error::Refusal;
use super::super::identity::{Authentication, AuthenticationSpec, IdentitySpec, SharedKey, Status, Thumbprints};
use super::super::registry::Device;
use super::json::{connection_state, date_or_never, typed};
use crate::twin::{DeviceId, ModuleId};

/// A date that never was, in the answer that creates an identity (`iot-hub.md` 1.2).
const NEVER_WITHOUT_ZONE: &str = "0001-01-01T00:00:00";

/// A device's identity as GET and PUT answer it (`iot-hub.md` 2.5).
#[derive(Debug)]
pub struct IdentityBody<'a> {
    /// Whose.
    pub device: &'a Device,
    /// Whether this is the answer to the PUT that created it.
    pub just_created: bool,
}

/// A module's identity as GET and PUT answer it (`iot-hub.md` 2.5).
#[derive(Debug)]
pub struct ModuleBody<'a> {
    /// Whose.
    pub module: &'a Device,
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
    capabilities: CapabilityFields,
    authentication: AuthenticationFields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_scope: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModuleFields<'a> {
    module_id: &'a str,
    managed_by: Option<&'a str>,
    device_id: &'a str,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    connection_state_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: u64,
    authentication: AuthenticationFields<'a>,
}

/// `capabilities`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CapabilityFields {
    /// Whether the device is an IoT Edge one.
    pub(super) iot_edge: bool,
}

/// `x509Thumbprint`; both are null without a certificate.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThumbprintFields<'a> {
    primary_thumbprint: Option<&'a str>,
    secondary_thumbprint: Option<&'a str>,
}

impl<'a> ThumbprintFields<'a> {
    /// The thumbprints of an identity.
    pub(super) fn of(authentication: &'a Authentication) -> Self {
        let thumbprints = authentication.thumbprints();
        Self {
            primary_thumbprint: thumbprints.and_then(Thumbprints::primary),
            secondary_thumbprint: thumbprints.and_then(Thumbprints::secondary),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationFields<'a> {
    symmetric_key: KeyFields<'a>,
    x509_thumbprint: ThumbprintFields<'a>,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyFields<'a> {
    primary_key: Option<&'a str>,
    secondary_key: Option<&'a str>,
}

impl<'a> AuthenticationFields<'a> {
    fn of(authentication: &'a Authentication) -> Self {
        let (primary_key, secondary_key) = match authentication.keys() {
            Some([primary, secondary]) => (Some(primary.expose()), Some(secondary.expose())),
            None => (None, None),
        };
        Self {
            symmetric_key: KeyFields { primary_key, secondary_key },
            x509_thumbprint: ThumbprintFields::of(authentication),
            r#type: authentication.as_str(),
        }
    }
}

/// A date of an identity.
fn time(at: Option<Timestamp>, just_created: bool) -> String {
    if at.is_none() && just_created { NEVER_WITHOUT_ZONE.to_owned() } else { date_or_never(at) }
}

impl Serialize for IdentityBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = &self.device.identity;
        IdentityFields {
            device_id: identity.device.as_str(),
            generation_id: identity.generation.to_string(),
            etag: identity.etag(),
            connection_state: connection_state(identity.connected),
            status: identity.status.as_str(),
            status_reason: identity.status_reason.as_deref(),
            connection_state_updated_time: time(identity.connection_updated, self.just_created),
            status_updated_time: time(identity.status_updated, self.just_created),
            last_activity_time: time(identity.last_activity, self.just_created),
            cloud_to_device_message_count: 0,
            capabilities: CapabilityFields { iot_edge: identity.iot_edge },
            authentication: AuthenticationFields::of(&identity.authentication),
            device_scope: identity.device_scope(),
        }
        .serialize(serializer)
    }
}

impl Serialize for ModuleBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = &self.module.identity;
        ModuleFields {
            module_id: identity.module.as_ref().map_or("", ModuleId::as_str),
            managed_by: identity.managed_by.as_deref(),
            device_id: identity.device.as_str(),
            generation_id: identity.generation.to_string(),
            etag: identity.etag(),
            connection_state: connection_state(identity.connected),
            connection_state_updated_time: time(identity.connection_updated, self.just_created),
            last_activity_time: time(identity.last_activity, self.just_created),
            cloud_to_device_message_count: 0,
            authentication: AuthenticationFields::of(&identity.authentication),
        }
        .serialize(serializer)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityRequest {
    device_id: Option<String>,
    module_id: Option<String>,
    managed_by: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationRequest>,
    capabilities: Option<CapabilityRequest>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
}

/// `authentication` of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthenticationRequest {
    symmetric_key: Option<KeyRequest>,
    x509_thumbprint: Option<ThumbprintRequest>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyRequest {
    primary_key: Option<SecretString>,
    secondary_key: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThumbprintRequest {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

/// `capabilities` of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CapabilityRequest {
    iot_edge: Option<bool>,
}

/// Reads the body of a device's PUT (`iot-hub.md` 2.5). Unknown fields and the ones only the hub writes are ignored;
/// absent and empty keys ask the hub to make them.
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentInvalid`] for another device's id, an
/// unknown status, a bad key or thumbprint, [`Refusal::NotImplemented`] for hierarchies of devices.
pub fn identity_write(body: &[u8], device: &DeviceId) -> Result<IdentitySpec, Refusal> {
    let request: IdentityRequest = typed(body)?;
    check_id("deviceId", request.device_id.as_deref(), device.as_str())?;
    spec(SpecParts {
        status: request.status,
        status_reason: request.status_reason,
        authentication: request.authentication,
        capabilities: request.capabilities,
        device_scope: request.device_scope,
        parent_scopes: request.parent_scopes,
        managed_by: None,
    })
}

/// Reads the body of a module's PUT (`iot-hub.md` 2.5), which knows neither status nor capabilities.
///
/// # Errors
/// As [`identity_write`], for either id.
pub fn module_write(body: &[u8], device: &DeviceId, module: &ModuleId) -> Result<IdentitySpec, Refusal> {
    let request: IdentityRequest = typed(body)?;
    check_id("deviceId", request.device_id.as_deref(), device.as_str())?;
    check_id("moduleId", request.module_id.as_deref(), module.as_str())?;
    let (authentication, managed_by) = (request.authentication, request.managed_by);
    spec(SpecParts { authentication, managed_by, ..SpecParts::default() })
}

/// What an identity can be asked to be, as PUT and bulk operations write it.
#[derive(Default)]
pub(super) struct SpecParts {
    pub(super) status: Option<String>,
    pub(super) status_reason: Option<String>,
    pub(super) authentication: Option<AuthenticationRequest>,
    pub(super) capabilities: Option<CapabilityRequest>,
    pub(super) device_scope: Option<String>,
    pub(super) parent_scopes: Option<Vec<String>>,
    pub(super) managed_by: Option<String>,
}

/// The specification of these parts.
pub(super) fn spec(parts: SpecParts) -> Result<IdentitySpec, Refusal> {
    if parts.parent_scopes.is_some_and(|scopes| !scopes.is_empty()) {
        return Err(Refusal::NotImplemented("a hierarchy of devices (parentScopes)".to_owned()));
    }
    let status = match parts.status {
        None => Status::Enabled,
        Some(text) => Status::parse(&text)
            .ok_or_else(|| Refusal::ArgumentInvalid("status must be enabled or disabled".to_owned()))?,
    };
    Ok(IdentitySpec {
        status,
        status_reason: parts.status_reason,
        authentication: parts.authentication.map_or(Ok(AuthenticationSpec::Sas(None)), authentication)?,
        iot_edge: parts.capabilities.is_some_and(|capabilities| capabilities.iot_edge == Some(true)),
        device_scope: parts.device_scope.filter(|scope| !scope.is_empty()),
        managed_by: parts.managed_by,
    })
}

fn check_id(field: &str, given: Option<&str>, addressed: &str) -> Result<(), Refusal> {
    match given {
        Some(id) if id != addressed => {
            Err(Refusal::ArgumentInvalid(format!("the {field} of the body is not the one of the address")))
        }
        Some(_) | None => Ok(()),
    }
}

fn authentication(request: AuthenticationRequest) -> Result<AuthenticationSpec, Refusal> {
    let thumbprints =
        request.x509_thumbprint.map(|pair| (given(pair.primary_thumbprint), given(pair.secondary_thumbprint)));
    match (request.r#type.as_deref(), thumbprints) {
        // One kind is named by its content alone.
        (None, Some((primary, secondary))) if primary.is_some() || secondary.is_some() => {
            Thumbprints::new(primary, secondary).map(AuthenticationSpec::SelfSigned)
        }
        (None | Some("sas"), _) => keys(request.symmetric_key).map(AuthenticationSpec::Sas),
        (Some("selfSigned"), thumbprints) => {
            let (primary, secondary) = thumbprints.unwrap_or_default();
            Thumbprints::new(primary, secondary).map(AuthenticationSpec::SelfSigned)
        }
        (Some("certificateAuthority"), _) => Ok(AuthenticationSpec::CertificateAuthority),
        (Some("none"), _) => Ok(AuthenticationSpec::None),
        (Some(_), _) => Err(Refusal::ArgumentInvalid("authentication.type is not one the hub knows".to_owned())),
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn keys(pair: Option<KeyRequest>) -> Result<Option<(SharedKey, SharedKey)>, Refusal> {
    let Some(pair) = pair else { return Ok(None) };
    let given = |key: Option<SecretString>| key.filter(|key| !key.expose_secret().is_empty());
    match (given(pair.primary_key), given(pair.secondary_key)) {
        (None, None) => Ok(None),
        (Some(primary), Some(secondary)) => {
            Ok(Some((SharedKey::new(primary.expose_secret())?, SharedKey::new(secondary.expose_secret())?)))
        }
        (Some(_), None) | (None, Some(_)) => {
            Err(Refusal::ArgumentInvalid("both symmetric keys are given, or neither".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::identity::Identity;
    use super::super::super::twin_record::TwinRecord;
    use super::super::json::{json, parse};
    use super::*;
    use crate::twin::Value;

    fn device() -> Device {
        let id = DeviceId::new("d1").unwrap();
        let identity = Identity::new(id, None, 637_455, IdentitySpec::default(), &mut |bytes| bytes.fill(1));
        Device { identity: identity.into(), twin: TwinRecord::new(Timestamp::UNIX_EPOCH), change: 0 }
    }

    #[test]
    fn an_identity_s_body_is_read_in_the_forms_sdks_send() {
        let id = DeviceId::new("d1").unwrap();
        let key = SharedKey::generate(&mut |bytes| bytes.fill(1));
        let pair = |primary: &str, secondary: &str| {
            format!(r#"{{"symmetricKey":{{"primaryKey":"{primary}","secondaryKey":"{secondary}"}},"type":"sas"}}"#)
        };
        let print = "1234567890ABCDEF1234567890abcdef12345678";
        let prints = |kind: &str| {
            format!(
                r#"{{"type":{kind},"x509Thumbprint":{{"primaryThumbprint":"{print}","secondaryThumbprint":null}}}}"#
            )
        };
        let signed = AuthenticationSpec::SelfSigned(Thumbprints::new(Some(print.to_owned()), None).unwrap());
        let given = AuthenticationSpec::Sas(Some((key.clone(), key.clone())));
        for (authentication, expected) in [
            ("null".to_owned(), Ok(AuthenticationSpec::Sas(None))),
            ("{}".to_owned(), Ok(AuthenticationSpec::Sas(None))),
            (r#"{"type":null,"symmetricKey":null}"#.to_owned(), Ok(AuthenticationSpec::Sas(None))),
            (pair("", ""), Ok(AuthenticationSpec::Sas(None))),
            (pair(key.expose(), key.expose()), Ok(given)),
            (prints(r#""selfSigned""#), Ok(signed.clone())),
            (prints("null"), Ok(signed)),
            (r#"{"type":"certificateAuthority"}"#.to_owned(), Ok(AuthenticationSpec::CertificateAuthority)),
            (r#"{"type":"none"}"#.to_owned(), Ok(AuthenticationSpec::None)),
            (pair(key.expose(), ""), Err("ArgumentInvalid")),
            (pair("short", "short"), Err("ArgumentInvalid")),
            (r#"{"type":"selfSigned"}"#.to_owned(), Err("ArgumentInvalid")),
            (prints(r#""selfSigned""#).replace("1234", "12"), Err("ArgumentInvalid")),
            (prints(r#""selfSigned""#).replace("1234", "xyz!"), Err("ArgumentInvalid")),
            (r#"{"type":"magic"}"#.to_owned(), Err("ArgumentInvalid")),
        ] {
            let body = format!(r#"{{"deviceId":"d1","deviceScope":null,"authentication":{authentication}}}"#);
            let found = identity_write(body.as_bytes(), &id).map(|spec| spec.authentication);
            assert_eq!(found.map_err(|refusal| refusal.code()), expected, "{authentication}");
        }
        for (body, code) in [
            (r#"{"deviceId":"d2"}"#, "ArgumentInvalid"),
            (r#"{"status":"maybe"}"#, "ArgumentInvalid"),
            (r#"{"parentScopes":["ms-azure-iot-edge://x-1"]}"#, "NotImplemented"),
            (r#"{"deviceId":7}"#, "DeserializationError"),
        ] {
            assert_eq!(identity_write(body.as_bytes(), &id).unwrap_err().code(), code, "{body}");
        }
        assert_eq!(identity_write(b"{}", &id), Ok(IdentitySpec::default()));
    }

    #[test]
    fn a_module_s_body_names_both_ids_or_none() {
        let (device, module) = (DeviceId::new("d1").unwrap(), ModuleId::new("m1").unwrap());
        let read = |body: &str| module_write(body.as_bytes(), &device, &module);
        let managed = read(r#"{"moduleId":"m1","managedBy":"","deviceId":"d1"}"#).unwrap();
        assert_eq!(managed.managed_by.as_deref(), Some(""));
        assert_eq!(read("{}"), Ok(IdentitySpec::default()));
        for body in [r#"{"moduleId":"m2"}"#, r#"{"deviceId":"d2"}"#] {
            assert_eq!(read(body).unwrap_err().code(), "ArgumentInvalid", "{body}");
        }
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
        let [primary, _] = device.identity.authentication.keys().unwrap();
        assert_eq!(key, Some(&Value::from(primary.expose())));
    }

    #[test]
    fn a_module_prints_its_own_fields_and_a_certificate_its_thumbprints() {
        let mut module = device();
        let identity = std::sync::Arc::make_mut(&mut module.identity);
        identity.module = Some(ModuleId::new("m1").unwrap());
        let print = "1234567890ABCDEF1234567890ABCDEF12345678";
        identity.authentication = Authentication::SelfSigned(Thumbprints::new(Some(print.to_owned()), None).unwrap());
        let text = String::from_utf8(json(&ModuleBody { module: &module, just_created: false })).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"moduleId":"m1","managedBy":null,"deviceId":"d1","generationId":"637455","etag":"MTY4NDMwMDk=","#,
                r#""connectionState":"Disconnected","connectionStateUpdatedTime":"0001-01-01T00:00:00Z","#,
                r#""lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authentication":{"#,
                r#""symmetricKey":{"primaryKey":null,"secondaryKey":null},"x509Thumbprint":{"primaryThumbprint":"#,
                r#""1234567890ABCDEF1234567890ABCDEF12345678","secondaryThumbprint":null},"type":"selfSigned"}}"#
            )
        );
    }
}
