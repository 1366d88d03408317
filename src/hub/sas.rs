//! Shared access policies: connection strings and the tokens made of their keys (`iot-hub.md` section 7).
//!
//! Invariant: a key never leaves this file but as a signature, and no error or `Debug` text holds a key or a token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretSlice;
pub(super) use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::address::{AddressError, HubAddress};

/// The wall clock, handed in.
pub type Clock = fn() -> Timestamp;

/// How long a token is good (`iot-hub.md` 7.1: what the SDKs use).
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How long before its end a token is replaced; more than the five minutes by which a hub lets clocks differ.
const RENEWAL_MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// The longest policy name, in characters; Azure allows 64.
const POLICY_LENGTH_MAX: usize = 64;
/// What stays as it is in the fields of a token and in path segments.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a service connection string says: which hub, as which policy, with which key.
#[derive(Debug)]
pub struct ConnectionString {
    address: HubAddress,
    policy: String,
    key: SecretSlice<u8>,
}

/// Why a text is not a service connection string. The texts never repeat any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is missing.
    #[error("the connection string has no {0}; expected HostName=...;SharedAccessKeyName=...;SharedAccessKey=...")]
    Missing(&'static str),
    /// A part is there twice.
    #[error("the connection string has {0} twice; expected each part once")]
    Twice(&'static str),
    /// A part without `=`, or one that no service connection string has.
    #[error("part {0} of the connection string is unknown; expected HostName, SharedAccessKeyName and SharedAccessKey")]
    Part(usize),
    /// A device's own connection string.
    #[error("this is a device's connection string; expected a service's, with SharedAccessKeyName instead of DeviceId")]
    Device,
    /// A ready-made token.
    #[error(
        "the connection string holds a SharedAccessSignature; expected a SharedAccessKey, or the token alone in sas_token_file"
    )]
    Token,
    /// The host name is not one.
    #[error("HostName in the connection string: {0}")]
    Host(AddressError),
    /// The policy name is not one.
    #[error("SharedAccessKeyName is not a policy name: expected 1 to {POLICY_LENGTH_MAX} printable ASCII characters")]
    Policy,
    /// The key is not base64.
    #[error("SharedAccessKey is not base64; copy the whole key, its `=` at the end included")]
    Key,
}

impl ConnectionString {
    /// Takes a service connection string apart. White space around it and one `;` at its end are no part of it.
    ///
    /// # Errors
    /// [`ConnectionStringError`] in one sentence that repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let (mut host, mut policy, mut key) = (None, None, None);
        let text = text.trim();
        for (index, part) in text.strip_suffix(';').unwrap_or(text).split(';').enumerate() {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (slot, name) = match name.trim() {
                "HostName" => (&mut host, "HostName"),
                "SharedAccessKeyName" => (&mut policy, "SharedAccessKeyName"),
                "SharedAccessKey" => (&mut key, "SharedAccessKey"),
                "SharedAccessSignature" => return Err(ConnectionStringError::Token),
                "DeviceId" | "ModuleId" | "GatewayHostName" | "x509" => return Err(ConnectionStringError::Device),
                "" if text.is_empty() => break,
                _ => return Err(ConnectionStringError::Part(index + 1)),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(ConnectionStringError::Twice(name));
            }
        }
        let present = |slot: Option<_>, name| slot.ok_or(ConnectionStringError::Missing(name));
        let address = HubAddress::parse(present(host, "HostName")?).map_err(ConnectionStringError::Host)?;
        let policy = present(policy, "SharedAccessKeyName")?;
        let printable = policy.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if policy.is_empty() || policy.len() > POLICY_LENGTH_MAX || !printable {
            return Err(ConnectionStringError::Policy);
        }
        let key = present(key, "SharedAccessKey")?;
        let key = BASE64.decode(key).ok().filter(|key| !key.is_empty()).ok_or(ConnectionStringError::Key)?;
        Ok(Self { address, policy: policy.to_owned(), key: key.into() })
    }

    /// Which hub.
    #[must_use]
    pub fn address(&self) -> &HubAddress {
        &self.address
    }

    /// The name of the policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Whether both sign alike.
    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.policy == other.policy && self.key.expose_secret() == other.key.expose_secret()
    }
}

/// A token signed here, and when.
#[derive(Debug)]
pub(super) struct Signed {
    text: SecretString,
    made: Timestamp,
}

impl Signed {
    /// A token for everything the policy may do, made `now`.
    pub(super) fn new(connection: &ConnectionString, now: Timestamp) -> Self {
        Self { text: sign(connection, now), made: now }
    }

    /// The value of `Authorization`.
    pub(super) const fn text(&self) -> &SecretString {
        &self.text
    }

    /// Whether it need not be made anew yet.
    pub(super) fn is_good_at(&self, now: Timestamp) -> bool {
        // A clock that was set back makes the age negative; the token may then end later than the hub allows.
        let age = now.duration_since(self.made);
        !age.is_negative() && age < TOKEN_LIFE - RENEWAL_MARGIN
    }
}

/// A token signed elsewhere (`iot-hub.md` 7.1).
#[derive(Debug, Clone)]
pub(super) struct SharedAccessSignature {
    text: SecretString,
    policy: Option<String>,
    ends: i64,
}

/// Why a text is not a token. The texts never repeat any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is something else.
    #[error("it is no token; expected SharedAccessSignature sr=...&sig=...&se=...&skn=... in one line")]
    Form,
    /// A part is missing or makes no sense.
    #[error("the token has no usable {0}; expected SharedAccessSignature sr=...&sig=...&se=...&skn=...")]
    Part(&'static str),
}

impl SharedAccessSignature {
    /// Takes a token as tools print it; white space around it is no part of it.
    pub(super) fn parse(text: &str) -> Result<Self, SignatureError> {
        let text = text.trim();
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let parts = text.strip_prefix("SharedAccessSignature ").filter(|_| printable).ok_or(SignatureError::Form)?;
        let part = |name: &str| {
            parts
                .split('&')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .filter(|value| !value.is_empty())
        };
        part("sr").ok_or(SignatureError::Part("sr"))?;
        part("sig").ok_or(SignatureError::Part("sig"))?;
        let ends = part("se").and_then(|ends| ends.parse().ok()).filter(|ends| *ends > 0);
        let ends = ends.ok_or(SignatureError::Part("se"))?;
        let policy = part("skn").map(|policy| percent_decode_str(policy).decode_utf8_lossy().into_owned());
        Ok(Self { text: text.into(), policy, ends })
    }

    /// The value of `Authorization`.
    pub(super) const fn text(&self) -> &SecretString {
        &self.text
    }

    /// The name of the policy, if the token says it.
    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// When it ends, in seconds since 1970.
    pub(super) const fn ends(&self) -> i64 {
        self.ends
    }
}

/// A token for everything the policy may do, good for [`TOKEN_LIFE`] from `now`.
fn sign(connection: &ConnectionString, now: Timestamp) -> SecretString {
    // The host as the connection string has it, with its port: what the SDKs sign.
    let resource = encode(&connection.address.to_string());
    let ends = now.as_second().saturating_add(TOKEN_LIFE.as_secs());
    let mut mac =
        Hmac::<Sha256>::new_from_slice(connection.key.expose_secret()).expect("HMAC takes keys of any length");
    mac.update(format!("{resource}\n{ends}").as_bytes());
    let signature = encode(&BASE64.encode(mac.finalize().into_bytes()));
    let policy = encode(&connection.policy);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={ends}&skn={policy}").into()
}

/// `text` with everything percent-encoded that could mean something in a token or a path.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// base64 of `canary-key-canary-key`.
    const KEY: &str = "Y2FuYXJ5LWtleS1jYW5hcnkta2V5";

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        ConnectionString::parse(text)
    }

    #[test]
    fn a_service_connection_string_is_taken_apart() {
        for text in [
            format!("HostName=Hub.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey={KEY}"),
            format!(" SharedAccessKey={KEY};HostName=hub.azure-devices.net;SharedAccessKeyName=service;\n"),
        ] {
            let connection = parse(&text).unwrap();
            assert_eq!(connection.address().host(), "hub.azure-devices.net");
            assert_eq!(connection.policy(), "service");
            assert_eq!(connection.key.expose_secret(), b"canary-key-canary-key");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        use ConnectionStringError as E;
        let host = "HostName=h.net";
        let name = "SharedAccessKeyName=service";
        let key = format!("SharedAccessKey={KEY}");
        for (text, error) in [
            (String::new(), E::Missing("HostName")),
            (" \n".to_owned(), E::Missing("HostName")),
            (format!("{name};{key}"), E::Missing("HostName")),
            (format!("{host};{key}"), E::Missing("SharedAccessKeyName")),
            (format!("{host};{name}"), E::Missing("SharedAccessKey")),
            (format!("{host};{host};{name};{key}"), E::Twice("HostName")),
            (format!("{host};{key};{key};{name}"), E::Twice("SharedAccessKey")),
            (format!("{host};{name};{key};;"), E::Part(4)),
            (format!("{host};{name};{key};Port=1"), E::Part(4)),
            (KEY.to_owned(), E::Part(1)),
            (format!("{host};DeviceId=d;{key}"), E::Device),
            (format!("{host};{name};SharedAccessSignature={KEY}"), E::Token),
            (format!("HostName=https://h.net/;{name};{key}"), E::Host(AddressError::Host)),
            (format!("HostName=;{name};{key}"), E::Host(AddressError::Host)),
            (format!("{host};SharedAccessKeyName=;{key}"), E::Policy),
            (format!("{host};SharedAccessKeyName=a\u{7}b;{key}"), E::Policy),
            (format!("{host};SharedAccessKeyName={};{key}", "x".repeat(65)), E::Policy),
            (format!("{host};{name};SharedAccessKey="), E::Key),
            (format!("{host};{name};SharedAccessKey={KEY}!"), E::Key),
        ] {
            let found = parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("Y2Fu") && !found.to_string().contains('\n'), "{found}");
        }
    }

    #[test]
    fn a_token_is_what_the_sdks_make() {
        let text = format!("HostName=localhost:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
        let token = sign(&parse(&text).unwrap(), Timestamp::from_second(1_700_000_000).unwrap());
        // The signature was computed by another implementation of HMAC-SHA256.
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=localhost%3A8443&sig=tAeFyB7tx8ighUskz9%2FGrQArUQS%2F5m81EcslQdRgNs0%3D&se=1700003600&skn=iothubowner"
        );
    }
}
