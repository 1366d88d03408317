//! Device connection strings and the tokens made of their keys (`iot-hub.md` section 7).
//!
//! Invariant: a key leaves this file only as a signature, and no error or `Debug` text repeats any of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

use crate::twin::{DeviceId, ModuleId, TwinRef};

/// The port of MQTT over TLS.
const PORT: u16 = 8883;
/// What a device says it speaks.
const API_VERSION: &str = "2021-04-12";
const CLIENT_TYPE: &str = concat!("geminid%2F", env!("CARGO_PKG_VERSION"));
/// What stays as it is in a token.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a device's connection string says.
#[derive(Debug, Clone)]
pub struct DeviceConnection {
    /// As written: it stands in user name and token.
    host_name: String,
    /// Where to connect, without the port.
    server: String,
    port: u16,
    who: TwinRef,
    key: SecretSlice<u8>,
}

/// Why a text is not a device's connection string. The texts never repeat any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is missing.
    #[error("the connection string has no {0}; expected HostName=...;DeviceId=...;SharedAccessKey=...")]
    Missing(&'static str),
    /// A part is there twice.
    #[error("the connection string has {0} twice; expected each part once")]
    Twice(&'static str),
    /// A part that no device's connection string has, or that cannot be used here.
    #[error(
        "part {0} of the connection string cannot be used; expected HostName, DeviceId, ModuleId, SharedAccessKey and \
         GatewayHostName"
    )]
    Part(usize),
    /// A service's connection string.
    #[error("this is a service's connection string; expected a device's, with DeviceId instead of SharedAccessKeyName")]
    Service,
    /// A value has not the form it must have.
    #[error("{0} in the connection string is not valid")]
    Invalid(&'static str),
}

impl DeviceConnection {
    /// The connection of `device` to the hub `host_name` with its base64 `key`.
    ///
    /// # Errors
    /// [`ConnectionStringError::Invalid`] when the host is no name, or the key no base64.
    pub fn new(host_name: &str, device: DeviceId, key: &SecretString) -> Result<Self, ConnectionStringError> {
        Self::made(host_name, host_name, TwinRef::device(device), key.expose_secret())
    }

    fn made(host: &str, reached: &str, who: TwinRef, key: &str) -> Result<Self, ConnectionStringError> {
        let key = BASE64.decode(key).ok().filter(|key| !key.is_empty());
        let key = key.ok_or(ConnectionStringError::Invalid("SharedAccessKey"))?;
        let (_, _) = server_of(host).ok_or(ConnectionStringError::Invalid("HostName"))?;
        let (server, port) = server_of(reached).ok_or(ConnectionStringError::Invalid("GatewayHostName"))?;
        Ok(Self { host_name: host.to_owned(), server, port, who, key: key.into() })
    }

    /// Takes a device's connection string apart. White space around it and one `;` at its end are no part of it.
    ///
    /// # Errors
    /// [`ConnectionStringError`] in one sentence that repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let (mut host, mut device, mut module, mut key, mut gateway) = (None, None, None, None, None);
        let text = text.trim();
        for (index, part) in text.strip_suffix(';').unwrap_or(text).split(';').enumerate() {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (slot, name) = match name.trim() {
                "HostName" => (&mut host, "HostName"),
                "DeviceId" => (&mut device, "DeviceId"),
                "ModuleId" => (&mut module, "ModuleId"),
                "SharedAccessKey" => (&mut key, "SharedAccessKey"),
                "GatewayHostName" => (&mut gateway, "GatewayHostName"),
                "SharedAccessKeyName" => return Err(ConnectionStringError::Service),
                "" if text.is_empty() => break,
                _ => return Err(ConnectionStringError::Part(index + 1)),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(ConnectionStringError::Twice(name));
            }
        }
        let host = host.ok_or(ConnectionStringError::Missing("HostName"))?;
        let device = device.ok_or(ConnectionStringError::Missing("DeviceId"))?;
        let key = key.ok_or(ConnectionStringError::Missing("SharedAccessKey"))?;
        let device = DeviceId::new(device).map_err(|_| ConnectionStringError::Invalid("DeviceId"))?;
        let who = match module.map(ModuleId::new).transpose() {
            Ok(None) => TwinRef::device(device),
            Ok(Some(module)) => TwinRef::module(device, module),
            Err(_) => return Err(ConnectionStringError::Invalid("ModuleId")),
        };
        Self::made(host, gateway.unwrap_or(host), who, key)
    }

    /// Whose it is.
    #[must_use]
    pub fn who(&self) -> &TwinRef {
        &self.who
    }

    /// The name the server's certificate must have.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Where to connect: 8883 unless the host names another port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client id of CONNECT.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.who.to_string()
    }

    /// The user name of CONNECT.
    #[must_use]
    pub fn user_name(&self) -> String {
        format!("{}/{}/?api-version={API_VERSION}&DeviceClientType={CLIENT_TYPE}", self.host_name, self.client_id())
    }

    /// The password of CONNECT: a token that ends at `expiry`, in seconds since 1970.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes keys of any length")]
    pub fn token(&self, expiry: i64) -> SecretString {
        let module = self.who.module.as_ref().map(|module| format!("/modules/{module}")).unwrap_or_default();
        let resource = format!("{}/devices/{}{module}", self.host_name, self.who.device);
        let resource = utf8_percent_encode(&resource, UNRESERVED).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes keys of any length");
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let signature = utf8_percent_encode(&signature, UNRESERVED);
        SecretString::from(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
    }
}

/// Host and port of `host` or `host:port`.
fn server_of(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        None => (text, PORT),
        Some((host, port)) => (host, port.parse().ok()?),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    #[test]
    fn a_connection_string_says_where_to_connect_and_as_whom() {
        for (text, server, port, client_id, user_name) in [
            ("HostName=h.net;DeviceId=d1;SharedAccessKey=K", "h.net", 8883, "d1", "h.net/d1/?"),
            (
                "DeviceId=d1;SharedAccessKey=K;HostName=localhost:18883;",
                "localhost",
                18883,
                "d1",
                "localhost:18883/d1/?",
            ),
            ("HostName=h;DeviceId=d1;ModuleId=m;SharedAccessKey=K", "h", 8883, "d1/m", "h/d1/m/?"),
            ("HostName=h:8443;DeviceId=d1;SharedAccessKey=K;GatewayHostName=g", "g", 8883, "d1", "h:8443/d1/?"),
        ] {
            let connection = DeviceConnection::parse(&text.replace("=K", &format!("={KEY}"))).unwrap();
            assert_eq!((connection.server(), connection.port()), (server, port), "{text}");
            assert_eq!(connection.client_id(), client_id, "{text}");
            assert!(connection.user_name().starts_with(&format!("{user_name}api-version=2021-04-12&")), "{text}");
            assert!(!format!("{connection:?}").contains(KEY));
        }
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        use ConnectionStringError::{Invalid, Missing, Part, Service, Twice};
        let good = format!("HostName=h;DeviceId=d1;SharedAccessKey={KEY}");
        for (text, error) in [
            (String::new(), Missing("HostName")),
            ("HostName=h".to_owned(), Missing("DeviceId")),
            ("HostName=h;DeviceId=d1".to_owned(), Missing("SharedAccessKey")),
            (format!("{good};HostName=h"), Twice("HostName")),
            (format!("{good};x509=true"), Part(4)),
            (format!("HostName=h;SharedAccessKeyName=service;SharedAccessKey={KEY}"), Service),
            (good.replace("=h;", "=h/x;"), Invalid("HostName")),
            (good.replace("=h;", "=h:x;"), Invalid("HostName")),
            (good.replace("=d1", "=d 1"), Invalid("DeviceId")),
            (good.replace(KEY, "%%%"), Invalid("SharedAccessKey")),
            (format!("{good};GatewayHostName="), Invalid("GatewayHostName")),
        ] {
            assert_eq!(DeviceConnection::parse(&text).unwrap_err(), error, "{text}");
            assert!(!error.to_string().contains(KEY));
        }
    }

    #[test]
    fn a_token_is_for_the_device_alone_and_signed_over_what_is_sent() {
        let connection = DeviceConnection::parse(&format!("HostName=h:1;DeviceId=d1;SharedAccessKey={KEY}")).unwrap();
        // Computed apart from this code, as the Python SDK does it.
        let expected = "SharedAccessSignature sr=h%3A1%2Fdevices%2Fd1&sig=2sZTWFnzhkVqXlR5G4X7B0jnVR68PFKZg2Keq0xKvCg%3D&se=1800000000";
        assert_eq!(connection.token(1_800_000_000).expose_secret(), expected);
    }
}
