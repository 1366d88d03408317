//! Shared access policies: connection strings and the tokens made of their keys (`iot-hub.md` section 7).
//!
//! Invariant: a key never leaves this file but as a signature, and no error or `Debug` text holds a key or a token.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
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
    #[error("the connection string holds a SharedAccessSignature, which cannot be renewed; expected a SharedAccessKey")]
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
}

/// The token in use, made anew before it ends.
#[derive(Debug)]
pub(super) struct Tokens {
    connection: ConnectionString,
    clock: Clock,
    current: Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    text: SecretString,
    made: Timestamp,
}

impl Tokens {
    pub(super) fn new(connection: ConnectionString, clock: Clock) -> Self {
        Self { connection, clock, current: Mutex::new(None) }
    }

    pub(super) fn connection(&self) -> &ConnectionString {
        &self.connection
    }

    /// The present token: the value of `Authorization`.
    pub(super) fn token(&self) -> SecretString {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref() {
            // A clock that was set back makes the age negative; the token may then end later than the hub allows.
            Some(token) if is_young(now.duration_since(token.made)) => token.text.clone(),
            Some(_) | None => self.replace(&mut current, now),
        }
    }

    /// A token made now, because the hub refused `refused`; unless somebody has already replaced that one.
    pub(super) fn token_instead_of(&self, refused: &SecretString) -> SecretString {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref() {
            Some(token) if token.text.expose_secret() != refused.expose_secret() => token.text.clone(),
            Some(_) | None => self.replace(&mut current, now),
        }
    }

    fn replace(&self, current: &mut Option<Token>, now: Timestamp) -> SecretString {
        let text = sign(&self.connection, now);
        *current = Some(Token { text: text.clone(), made: now });
        text
    }
}

fn is_young(age: SignedDuration) -> bool {
    !age.is_negative() && age < TOKEN_LIFE - RENEWAL_MARGIN
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
    use std::sync::atomic::{AtomicI64, Ordering};

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
            (format!("HostName=https://h.net/;{name};{key}"), E::Host(AddressError::Port)),
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

    #[test]
    fn a_token_is_renewed_before_it_ends_or_when_refused() {
        static NOW: AtomicI64 = AtomicI64::new(0);
        let clock: Clock = || Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap();
        let text = format!("HostName=h.net;SharedAccessKeyName=service;SharedAccessKey={KEY}");
        let tokens = Tokens::new(parse(&text).unwrap(), clock);
        let ends_at = |at: i64| {
            NOW.store(at, Ordering::SeqCst);
            let token = tokens.token();
            let end = token.expose_secret().split("se=").nth(1).unwrap().split('&').next().unwrap();
            end.parse::<i64>().unwrap()
        };
        for (at, end) in [(0, 3600), (2999, 3600), (3000, 6600), (5999, 6600), (6000, 9600), (5999, 9599)] {
            assert_eq!(ends_at(at), end, "at {at}");
        }
        let refused = tokens.token();
        NOW.store(6500, Ordering::SeqCst);
        let fresh = tokens.token_instead_of(&refused);
        assert!(fresh.expose_secret().contains("se=10100"));
        NOW.store(6600, Ordering::SeqCst);
        let same = tokens.token_instead_of(&refused);
        assert_eq!(same.expose_secret(), fresh.expose_secret(), "a second refusal of one token makes no second one");
        let printed = format!("{tokens:?}");
        assert!(!printed.contains("SharedAccessSignature") && !printed.contains("canary"), "{printed}");
    }
}
