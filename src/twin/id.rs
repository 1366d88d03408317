//! Identities: what names a twin, and what names one state of it.
//!
//! Invariant: a value of these types is valid by construction; nothing further down checks a charset again.

use std::fmt;
use std::sync::Arc;

/// The longest device or module id, in characters (`iot-hub.md` section 4).
const ID_LENGTH_MAX: usize = 128;
/// What an id may hold besides ASCII letters and digits (`iot-hub.md` section 4).
const ID_PUNCTUATION: &str = "-:.+%_#*?!(),=@;$'";

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id has at least one character")]
    Empty,
    /// The text is longer than 128 characters.
    #[error("an id has at most {ID_LENGTH_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// The text holds a character outside IoT Hub's set.
    #[error("an id may not hold {0:?}; allowed are ASCII letters, digits and {ID_PUNCTUATION}")]
    Character(char),
}

fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !ID_PUNCTUATION.contains(*c)) {
        return Err(IdError::Character(bad));
    }
    if text.len() > ID_LENGTH_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// Clones share the text: a fleet's ids are keys of several maps, and those are copied with each change.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as an id.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or holds a character IoT Hub refuses.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_id(text)?;
                Ok(Self(text.into()))
            }

            /// The id as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// A device id: 1 to 128 characters, case-sensitive (`iot-hub.md` section 4).
    DeviceId
}
id_type! {
    /// A module id: the same charset and length as a device id (`iot-hub.md` section 4).
    ModuleId
}

/// The key of everything: a device, or a module of a device. Two manifests with one `TwinRef` are duplicates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TwinRef {
    /// The device.
    pub device: DeviceId,
    /// The module, when the twin is a module's.
    pub module: Option<ModuleId>,
}

impl TwinRef {
    /// The twin of a device itself.
    #[must_use]
    pub fn device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// How this twin stands to the one of these names in the order of twins.
    #[must_use]
    pub fn order_of_names(&self, device: &str, module: Option<&str>) -> std::cmp::Ordering {
        let by_device = self.device.as_str().cmp(device);
        by_device.then_with(|| self.module.as_ref().map(ModuleId::as_str).cmp(&module))
    }

    /// The twin that `text` names: `device` or `device/module`, as [`Display`](fmt::Display) writes it.
    ///
    /// # Errors
    /// [`IdError`] of the first part that is no id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (device, module) = text.split_once('/').map_or((text, None), |(device, module)| (device, Some(module)));
        Ok(Self { device: DeviceId::new(device)?, module: module.map(ModuleId::new).transpose()? })
    }

    /// The twin of a module.
    #[must_use]
    pub fn module(device: DeviceId, module: ModuleId) -> Self {
        Self { device, module: Some(module) }
    }
}

impl fmt::Display for TwinRef {
    /// `device` or `device/module`; no id may hold `/`, so the text is unambiguous.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{module}", self.device),
        }
    }
}

/// The etag of a twin as it stands in a body: without quotes (`iot-hub.md` 1.4). It covers tags and desired,
/// never reported (1.3). The client adds the quotes that make `If-Match` count (2.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(Box<str>);

/// The longest etag taken from a hub, in bytes; real ones have 12 to 24.
const ETAG_LENGTH_MAX: usize = 256;

impl ETag {
    /// Takes an etag from a body. `None` when it is empty, longer than 256 bytes, `*`, or holds a quote, a space or
    /// anything outside printable ASCII: such a text could not stand in an `If-Match` header and guard a write.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        (!text.is_empty() && text != "*" && text.len() <= ETAG_LENGTH_MAX && plain).then(|| Self(text.into()))
    }

    /// The etag without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The etag in quotes, the only form of `If-Match` that a hub honours on a twin (`iot-hub.md` 2.4).
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_takes_the_charset_of_the_hub() {
        for good in ["a", "myDevice", "a-b:c.d+e%f_g#h*i?j!k(l)m,n=o@p;q$r's", &"x".repeat(128)] {
            assert_eq!(DeviceId::new(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for (bad, error) in [
            ("", IdError::Empty),
            ("a b", IdError::Character(' ')),
            ("a/b", IdError::Character('/')),
            ("Gerät", IdError::Character('ä')),
            ("a\"b", IdError::Character('"')),
        ] {
            assert_eq!(DeviceId::new(bad), Err(error), "{bad:?}");
        }
        assert_eq!(ModuleId::new(&"x".repeat(129)), Err(IdError::TooLong(129)));
    }

    #[test]
    fn a_twin_ref_sorts_the_device_before_its_modules() {
        let device = DeviceId::new("edge-01").unwrap();
        let own = TwinRef::device(device.clone());
        let module = TwinRef::module(device, ModuleId::new("thermostat").unwrap());
        assert!(own < module);
        assert_eq!(module.to_string(), "edge-01/thermostat");
        assert_eq!((TwinRef::parse("edge-01/thermostat"), TwinRef::parse("edge-01")), (Ok(module), Ok(own)));
        assert!(["", "/m", "d/", "d/m/x"].iter().all(|text| TwinRef::parse(text).is_err()));
    }

    #[test]
    fn an_etag_that_could_not_guard_a_write_is_no_etag() {
        assert_eq!(ETag::new("AAAAAAAAAAE=").unwrap().quoted(), "\"AAAAAAAAAAE=\"");
        for bad in ["", "*", "\"AAAAAAAAAAE=\"", "a b", "a\r\nX: y", "ä", &"x".repeat(257)] {
            assert_eq!(ETag::new(bad), None, "{bad:?}");
        }
    }
}
