//! Identities of devices and modules: who may connect (`iot-hub.md` 2.5).
//!
//! Invariant: an identity holds both keys, each base64 of 16 to 64 bytes, or no key; a key is never printed by accident.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::error::Refusal;
use crate::twin::{DeviceId, ModuleId, TwinRef};

const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 64;
/// The size of a key the hub makes itself.
const KEY_BYTES_GENERATED: usize = 32;
/// The longest statusReason and managedBy, in characters.
const TEXT_LENGTH_MAX: usize = 128;
/// The length of a thumbprint in hex digits: SHA-1 or SHA-256.
const THUMBPRINT_DIGITS: [usize; 2] = [40, 64];
const SCOPE_SCHEME: &str = "ms-azure-iot-edge://";

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

/// In a time that tells nothing of where two keys differ.
impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.expose().as_bytes(), other.expose().as_bytes());
        one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
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

/// The thumbprints of an identity with certificates of its own: at least one, each the 40 hex digits of a SHA-1 or the
/// 64 of a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbprints {
    primary: Option<Box<str>>,
    secondary: Option<Box<str>>,
}

impl Thumbprints {
    /// Takes thumbprints as they stand in a request.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when there is none, or one is not made of 40 or 64 hex digits.
    pub fn new(primary: Option<String>, secondary: Option<String>) -> Result<Self, Refusal> {
        let fits = |print: &String| {
            THUMBPRINT_DIGITS.contains(&print.len()) && print.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        let none = primary.is_none() && secondary.is_none();
        if none || ![&primary, &secondary].into_iter().flatten().all(fits) {
            return Err(Refusal::ArgumentInvalid(
                "a thumbprint has 40 or 64 hex digits, and one must be given".to_owned(),
            ));
        }
        Ok(Self { primary: primary.map(String::into), secondary: secondary.map(String::into) })
    }

    /// The first one.
    #[must_use]
    pub fn primary(&self) -> Option<&str> {
        self.primary.as_deref()
    }

    /// The second one.
    #[must_use]
    pub fn secondary(&self) -> Option<&str> {
        self.secondary.as_deref()
    }
}

/// How a device or module proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// By a token signed with either key.
    Sas {
        /// The first key.
        primary: SharedKey,
        /// The second key.
        secondary: SharedKey,
    },
    /// By a certificate of its own.
    SelfSigned(Thumbprints),
    /// By a certificate of an authority the hub knows.
    CertificateAuthority,
    /// Not at all: the modules that IoT Edge makes, until it gives them keys.
    None,
}

impl Authentication {
    /// As bodies write it (`iot-hub.md` 1.1).
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sas { .. } => "sas",
            Self::SelfSigned(_) => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
            Self::None => "none",
        }
    }

    /// Both keys, if there are any.
    #[must_use]
    pub const fn keys(&self) -> Option<[&SharedKey; 2]> {
        match self {
            Self::Sas { primary, secondary } => Some([primary, secondary]),
            Self::SelfSigned(_) | Self::CertificateAuthority | Self::None => None,
        }
    }

    /// The thumbprints, if there are any.
    #[must_use]
    pub const fn thumbprints(&self) -> Option<&Thumbprints> {
        match self {
            Self::SelfSigned(thumbprints) => Some(thumbprints),
            Self::Sas { .. } | Self::CertificateAuthority | Self::None => None,
        }
    }
}

/// What a request asks an identity's authentication to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationSpec {
    /// By primary and secondary key; `None` asks the hub to make them.
    Sas(Option<(SharedKey, SharedKey)>),
    /// By a certificate of its own.
    SelfSigned(Thumbprints),
    /// By a certificate of an authority.
    CertificateAuthority,
    /// Not at all.
    None,
}

impl AuthenticationSpec {
    fn made(self, random: Random<'_>) -> Authentication {
        match self {
            Self::Sas(Some((primary, secondary))) => Authentication::Sas { primary, secondary },
            Self::Sas(None) => {
                Authentication::Sas { primary: SharedKey::generate(random), secondary: SharedKey::generate(random) }
            }
            Self::SelfSigned(thumbprints) => Authentication::SelfSigned(thumbprints),
            Self::CertificateAuthority => Authentication::CertificateAuthority,
            Self::None => Authentication::None,
        }
    }
}

/// What a PUT of an identity asks for. An identity is replaced whole: what is left out gets its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    /// Whether the device may connect. Modules have no status of their own.
    pub status: Status,
    /// Why, at most 128 characters.
    pub status_reason: Option<String>,
    /// How it proves who it is.
    pub authentication: AuthenticationSpec,
    /// Whether it is an IoT Edge device.
    pub iot_edge: bool,
    /// `deviceScope` as sent back to the hub; only an Edge device's own scope is taken.
    pub device_scope: Option<String>,
    /// Who manages a module.
    pub managed_by: Option<String>,
}

impl Default for IdentitySpec {
    fn default() -> Self {
        Self {
            status: Status::Enabled,
            status_reason: None,
            authentication: AuthenticationSpec::Sas(None),
            iot_edge: false,
            device_scope: None,
            managed_by: None,
        }
    }
}

impl IdentitySpec {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when a text is longer than 128 characters (`iot-hub.md` section 4).
    pub fn check(&self) -> Result<(), Refusal> {
        for (name, text) in [("statusReason", &self.status_reason), ("managedBy", &self.managed_by)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_LENGTH_MAX) {
                return Err(Refusal::ArgumentInvalid(format!("{name} has at most {TEXT_LENGTH_MAX} characters")));
            }
        }
        Ok(())
    }
}

/// A registered device or module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The device.
    pub device: DeviceId,
    /// The module, when this is one.
    pub module: Option<ModuleId>,
    /// Different for each life of the identity: the ticks of its creation.
    pub generation: u64,
    /// The number inside the etag: random at first, one more with every write (`iot-hub.md` 1.4).
    pub etag_number: u64,
    /// Whether the device may connect. A module's is always enabled; its device's counts.
    pub status: Status,
    /// Why.
    pub status_reason: Option<String>,
    /// When the status last changed; `None` prints as year 1.
    pub status_updated: Option<Timestamp>,
    /// Whether it is connected. Not kept over a restart: after one, nothing is.
    pub connected: bool,
    /// When that last changed.
    pub connection_updated: Option<Timestamp>,
    /// When it last did anything.
    pub last_activity: Option<Timestamp>,
    /// How it proves who it is.
    pub authentication: Authentication,
    /// Whether it is an IoT Edge device.
    pub iot_edge: bool,
    /// Who manages a module, as it was written.
    pub managed_by: Option<String>,
}

impl Identity {
    /// A new identity of a device, or of a module of it.
    #[must_use]
    pub fn new(
        device: DeviceId,
        module: Option<ModuleId>,
        generation: u64,
        spec: IdentitySpec,
        random: Random<'_>,
    ) -> Self {
        let mut start = [0; 4];
        random(&mut start);
        Self {
            device,
            module,
            generation,
            etag_number: u64::from(u32::from_be_bytes(start)),
            status: spec.status,
            status_reason: spec.status_reason,
            status_updated: None,
            connected: false,
            connection_updated: None,
            last_activity: None,
            authentication: spec.authentication.made(random),
            iot_edge: spec.iot_edge,
            managed_by: spec.managed_by,
        }
    }

    /// Replaces what a PUT may write and moves the etag on.
    pub fn replace(&mut self, spec: IdentitySpec, random: Random<'_>, now: Timestamp) {
        if self.status != spec.status {
            self.status_updated = Some(now);
        }
        self.status = spec.status;
        self.status_reason = spec.status_reason;
        self.authentication = spec.authentication.made(random);
        self.iot_edge = spec.iot_edge;
        self.managed_by = spec.managed_by;
        self.etag_number += 1;
    }

    /// Whose identity this is.
    #[must_use]
    pub fn twin_ref(&self) -> TwinRef {
        TwinRef { device: self.device.clone(), module: self.module.clone() }
    }

    /// The scope that an IoT Edge device spans, which the hub makes (`iot-hub.md` 1.1).
    #[must_use]
    pub fn device_scope(&self) -> Option<String> {
        self.iot_edge.then(|| format!("{SCOPE_SCHEME}{}-{}", self.device, self.generation))
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
