//! Who may connect by MQTT (`iot-hub.md` 7.1 and 8.1).
//!
//! Invariant: a device is admitted only with a token for its own resource, signed with one of its keys or with the key
//! of a policy that has `DeviceConnect`; what is refused is refused by a CONNACK.

use super::super::auth::Gate;
use super::super::error::Refusal;
use super::super::handle::HubHandle;
use super::presence::Attachment;
use super::session::{Connect, Password, Refused};
use crate::twin::{DeviceId, ModuleId, TwinRef};

/// A device that may connect.
#[derive(Debug)]
pub struct Admitted {
    /// Its place.
    pub attachment: Attachment,
    /// When its token ends, in seconds since 1970.
    pub token_ends: i64,
}

/// Decides about a CONNECT and attaches the device.
///
/// # Errors
/// [`Refused`], the code of the answer.
pub async fn admit(hub: &HubHandle, gate: &Gate, connect: &Connect) -> Result<Admitted, Refused> {
    let who = client_id(&connect.client_id).ok_or(Refused::ClientId)?;
    let user_name = connect.user_name.as_deref().ok_or(Refused::Malformed)?;
    let host = host_of(user_name, &connect.client_id).ok_or(Refused::Malformed)?;
    let token = connect.password.as_ref().map(Password::expose).unwrap_or_default();
    let token = std::str::from_utf8(token).map_err(|_| Refused::Malformed)?;
    if !gate.is_host(host) {
        return Err(Refused::Unauthorized);
    }
    let record = hub.record(&who).await.map_err(|refusal| refused(&refusal))?;
    // Who has a certificate or nothing has no key to sign with; no certificate is taken here.
    let keys = record.identity.authentication.keys();
    if token.is_empty() {
        return Err(if keys.is_none() { Refused::Certificate } else { Refused::Malformed });
    }
    let now = hub.now().as_second();
    let token_ends = gate.admit_device(token, &who, keys, now).map_err(|refusal| refused(&refusal))?;
    let attached = hub.attach(&who, record.identity.generation, connect.clean).await;
    Ok(Admitted { attachment: attached.map_err(|refusal| refused(&refusal))?, token_ends })
}

fn refused(refusal: &Refusal) -> Refused {
    if refusal.status() >= 500 { Refused::Unavailable } else { Refused::Unauthorized }
}

/// `device` or `device/module`.
fn client_id(text: &str) -> Option<TwinRef> {
    match text.split_once('/') {
        None => DeviceId::new(text).ok().map(TwinRef::device),
        Some((device, module)) => Some(TwinRef::module(DeviceId::new(device).ok()?, ModuleId::new(module).ok()?)),
    }
}

/// The host of `{host}/{client id}/?api-version=..&..`; `None` when the user name has another form.
fn host_of<'a>(user_name: &'a str, client_id: &str) -> Option<&'a str> {
    let (host, rest) = user_name.split_once('/')?;
    let query = rest.strip_prefix(client_id)?.strip_prefix('/')?;
    let fields = query.strip_prefix('?').unwrap_or(query).split('&');
    let version = fields.filter_map(|field| field.strip_prefix("api-version=")).next()?;
    (!version.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_the_sdks_give_the_host_and_others_nothing() {
        for (user_name, host) in [
            ("localhost/d1/?api-version=2019-10-01&DeviceClientType=py", Some("localhost")),
            ("localhost:8883/d1/?api-version=2021-04-12&DeviceClientType=node", Some("localhost:8883")),
            ("localhost/d1/api-version=2016-11-14", Some("localhost")),
            ("localhost/d1/?DeviceClientType=py&api-version=2020-09-30", Some("localhost")),
            ("localhost/d1/?api-version=", None),
            ("localhost/d1/", None),
            ("localhost/d1", None),
            ("localhost/d10/?api-version=2019-10-01", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(host_of(user_name, "d1"), host, "{user_name}");
        }
    }

    #[test]
    fn a_client_id_names_a_device_or_a_module() {
        assert_eq!(client_id("d1").unwrap().to_string(), "d1");
        assert_eq!(
            client_id("d1/m").unwrap(),
            TwinRef::module(DeviceId::new("d1").unwrap(), ModuleId::new("m").unwrap())
        );
        for wrong in ["", "/", "d1/", "/m", "d1/m/x", "a b"] {
            assert_eq!(client_id(wrong), None, "{wrong}");
        }
    }
}
