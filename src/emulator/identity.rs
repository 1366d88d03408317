//! Device identities: who may connect (`iot-hub.md` 2.5).
//!
//! Invariant: an identity holds both keys, each base64 of 16 to 64 bytes; a key is never printed by accident.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::error::Refusal;
use crate::twin::DeviceId;

const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 64;
/// The size of a key the hub makes itself.
const KEY_BYTES_GENERATED: usize = 32;
const STATUS_REASON_LENGTH_MAX: usize = 128;

/// Fills a buffer with random bytes. Tests hand in a seeded one.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// A symmetric key in base64. `Debug` hides it.
#[derive(Debug, Clone)]
pub struct SharedKey(SecretString);

impl SharedKey {
    /// Takes a key as it stands in a request.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when it is not base64 of 16 to 64 bytes (`iot-hub.md` 2.5).
    pub fn new(text: &str) -> Result<Self, Refusal> {
        match BASE64.decode(text) {
            Ok(bytes) if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) => Ok(Self(text.into())),
            Ok(_) | Err(_) => Err(Refusal::ArgumentInvalid(format!(
                "a symmetric key is the base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes"
            ))),
        }
    }

    /// A new key of 32 random bytes.
    #[must_use]
    pub fn generate(random: Random<'_>) -> Self {
        let mut bytes = [0; KEY_BYTES_GENERATED];
        random(&mut bytes);
        Self(BASE64.encode(bytes).into())
    }

    /// The key itself, for a body or a signature.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SharedKey {}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It may.
    Enabled,
    /// It may not.
    Disabled,
}

impl Status {
    /// As bodies write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }

    /// The status of its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled].into_iter().find(|status| status.as_str() == text)
    }
}

/// What a PUT of an identity asks for. An identity is replaced whole: what is left out gets its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    /// Whether the device may connect.
    pub status: Status,
    /// Why, at most 128 characters.
    pub status_reason: Option<String>,
    /// Primary and secondary key; `None` asks the hub to make them.
    pub keys: Option<(SharedKey, SharedKey)>,
}

impl Default for IdentitySpec {
    fn default() -> Self {
        Self { status: Status::Enabled, status_reason: None, keys: None }
    }
}

impl IdentitySpec {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when the reason is longer than 128 characters (`iot-hub.md` section 4).
    pub fn check(&self) -> Result<(), Refusal> {
        match &self.status_reason {
            Some(reason) if reason.chars().count() > STATUS_REASON_LENGTH_MAX => {
                Err(Refusal::ArgumentInvalid(format!("statusReason has at most {STATUS_REASON_LENGTH_MAX} characters")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A registered device. Connected with symmetric keys only; certificates are refused before they come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The device.
    pub device: DeviceId,
    /// Different for each life of the device: the ticks of its creation.
    pub generation: u64,
    /// The number inside the etag: random at first, one more with every write (`iot-hub.md` 1.4).
    pub etag_number: u64,
    /// Whether the device may connect.
    pub status: Status,
    /// Why.
    pub status_reason: Option<String>,
    /// When the status last changed; `None` prints as year 1.
    pub status_updated: Option<Timestamp>,
    /// Whether the device is connected. Not kept over a restart: after one, nothing is.
    pub connected: bool,
    /// When that last changed.
    pub connection_updated: Option<Timestamp>,
    /// When the device last did anything.
    pub last_activity: Option<Timestamp>,
    /// The first key.
    pub primary_key: SharedKey,
    /// The second key.
    pub secondary_key: SharedKey,
}

impl Identity {
    /// A new identity.
    #[must_use]
    pub fn new(device: DeviceId, generation: u64, spec: IdentitySpec, random: Random<'_>) -> Self {
        let mut start = [0; 4];
        random(&mut start);
        let (primary_key, secondary_key) = keys(spec.keys, random);
        Self {
            device,
            generation,
            etag_number: u64::from(u32::from_be_bytes(start)),
            status: spec.status,
            status_reason: spec.status_reason,
            status_updated: None,
            connected: false,
            connection_updated: None,
            last_activity: None,
            primary_key,
            secondary_key,
        }
    }

    /// Replaces what a PUT may write and moves the etag on.
    pub fn replace(&mut self, spec: IdentitySpec, random: Random<'_>, now: Timestamp) {
        if self.status != spec.status {
            self.status_updated = Some(now);
        }
        self.status = spec.status;
        self.status_reason = spec.status_reason;
        (self.primary_key, self.secondary_key) = keys(spec.keys, random);
        self.etag_number += 1;
    }

    /// The etag as bodies hold it: the base64 of the number in decimal.
    #[must_use]
    pub fn etag(&self) -> String {
        BASE64.encode(self.etag_number.to_string())
    }

    /// The number inside such an etag; `None` when it is not one.
    #[must_use]
    pub fn number_of_etag(etag: &str) -> Option<u64> {
        String::from_utf8(BASE64.decode(etag).ok()?).ok()?.parse().ok()
    }
}

fn keys(given: Option<(SharedKey, SharedKey)>, random: Random<'_>) -> (SharedKey, SharedKey) {
    given.unwrap_or_else(|| (SharedKey::generate(random), SharedKey::generate(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_base64_of_16_to_64_bytes_and_is_never_printed() {
        for (bytes, good) in [(15, false), (16, true), (32, true), (64, true), (65, false)] {
            assert_eq!(SharedKey::new(&BASE64.encode(vec![7_u8; bytes])).is_ok(), good, "{bytes} bytes");
        }
        assert!(SharedKey::new("not base64!").is_err());
        let key = SharedKey::generate(&mut |bytes| bytes.fill(0xAB));
        assert_eq!(BASE64.decode(key.expose()).unwrap(), [0xAB; 32]);
        assert!(!format!("{key:?}").contains(key.expose()));
    }
}
