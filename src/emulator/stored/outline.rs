//! A record looked through without being unpacked: opening a hub needs the identity and the tags of each, no more.
//!
//! Invariant: what [`outline`] takes, [`super::read_device`] reads. So a record that makes no sense is told when the
//! store is opened, not when somebody asks for it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::configuration::ConfigurationId;
use super::super::identity::Identity;
use super::{StoredIn, identity, parse, status, time};
use crate::twin::Object;

/// What the registry must know of a record that it keeps packed.
#[derive(Debug)]
pub struct Outline {
    /// Who it is.
    pub identity: Identity,
    /// Its tags; `None` when it never had any.
    pub tags: Option<Object>,
}

/// Looks through the record under `key`, as [`super::read_device`] reads it.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn outline(key: &str, record: &[u8]) -> Result<Outline, String> {
    let mut stored: StoredIn<SeenObject, SeenStamp> = parse(record)?;
    let identity = identity(key, &mut stored)?;
    for stamp in [&stored.desired_stamps, &stored.reported_stamps] {
        stamp.check()?;
        if stamp.t.is_none() {
            return Err("a section without a time".to_owned());
        }
    }
    for configuration in stored.configurations {
        status(configuration)?;
    }
    Ok(Outline { identity, tags: stored.tags })
}

/// A value that was looked through.
struct Seen {
    is_object: bool,
}

/// An object that was looked through.
struct SeenObject;

/// As [`super::StoredStamp`], without what only the twin needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenStamp {
    #[serde(default)]
    t: Option<i64>,
    #[serde(default)]
    #[expect(dead_code, reason = "that it is a number is all there is to see")]
    v: Option<u64>,
    #[serde(default)]
    #[expect(dead_code, reason = "each was checked when it was seen")]
    c: SeenStamps,
    #[serde(default)]
    b: Option<(String, u64)>,
}

/// The stamps below a node, each of which was checked.
#[derive(Default)]
struct SeenStamps;

impl SeenStamp {
    fn check(&self) -> Result<(), String> {
        self.t.map(time).transpose()?;
        if let Some((id, _)) = &self.b {
            ConfigurationId::new(id).map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SeenVisitor)
    }
}

impl<'de> Deserialize<'de> for SeenObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seen = Seen::deserialize(deserializer)?;
        if seen.is_object { Ok(Self) } else { Err(D::Error::custom("a section is no object")) }
    }
}

impl<'de> Deserialize<'de> for SeenStamps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StampsVisitor)
    }
}

struct SeenVisitor;

impl<'de> Visitor<'de> for SeenVisitor {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen, E> {
        Ok(Seen { is_object: false })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen { is_object: false })
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen { is_object: false })
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen { is_object: false })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Seen, E> {
        if value.is_finite() { Ok(Seen { is_object: false }) } else { Err(E::custom("a number that is not finite")) }
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen { is_object: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Seen, A::Error> {
        while items.next_element::<Seen>()?.is_some() {}
        Ok(Seen { is_object: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Seen, A::Error> {
        while entries.next_entry::<IgnoredAny, Seen>()?.is_some() {}
        Ok(Seen { is_object: true })
    }
}

struct StampsVisitor;

impl<'de> Visitor<'de> for StampsVisitor {
    type Value = SeenStamps;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stamps by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<SeenStamps, A::Error> {
        while let Some((IgnoredAny, stamp)) = entries.next_entry::<IgnoredAny, SeenStamp>()? {
            stamp.check().map_err(A::Error::custom)?;
        }
        Ok(SeenStamps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{device, read_device, unpacked};
    use super::*;
    use crate::emulator::identity::IdentitySpec;
    use crate::emulator::part::Part;
    use crate::emulator::registry::Device;
    use crate::emulator::twin_record::TwinRecord;
    use crate::twin::{DeviceId, MergePatch, Value};
    use jiff::Timestamp;

    fn sample() -> Device {
        let object = |json: &str| Value::parse_json(json).unwrap().as_object().unwrap().clone();
        let content = r#"{"a":{"b":[1,{"c":0.1}],"e":{}},"f":1.5e300,"j":"ä\"\\","n":-7,"t":true}"#;
        let at = |second: i64| Timestamp::new(1_700_000_000 + second, 0).unwrap();
        let patch = MergePatch { tags: Some(object(content)), desired: Some(object(content)) };
        let again = MergePatch { tags: None, desired: Some(object(r#"{"a":{"b":2}}"#)) };
        let twin = TwinRecord::new(at(0)).patched(&patch, at(1)).unwrap().patched(&again, at(2)).unwrap();
        let twin = twin.reported(&object(content), at(3)).unwrap();
        let id = DeviceId::new("d1").unwrap();
        let mut random = |bytes: &mut [u8]| bytes.fill(5);
        Device { identity: Identity::new(id, None, 9, IdentitySpec::default(), &mut random).into(), twin, change: 0 }
    }

    #[test]
    fn an_outline_has_the_identity_and_the_tags_of_the_record() {
        let device_of = sample();
        let seen = outline("d1", &device(&device_of)).unwrap();
        assert_eq!((&seen.identity, seen.tags.map(Part::new)), (&*device_of.identity, device_of.twin.tags));
    }

    /// Every way to spoil a record by one byte: what the outline takes must be read, for nothing asks again later.
    #[test]
    fn what_an_outline_takes_is_read_and_what_is_not_read_has_no_outline() {
        let record = device(&sample());
        let (mut taken, mut refused) = (0, 0);
        for place in 0..record.len() {
            for byte in *b"0-\"{[,}]:xt\0\xff" {
                let mut spoiled = record.clone();
                spoiled[place] = byte;
                match (outline("d1", &spoiled), read_device("d1", &spoiled)) {
                    (Ok(seen), Ok(read)) => {
                        assert_eq!(unpacked("d1", &spoiled.into()), read, "byte {place} as {byte}");
                        assert_eq!((&seen.identity, seen.tags.map(Part::new)), (&*read.identity, read.twin.tags));
                        taken += 1;
                    }
                    (Err(_), Err(_)) => refused += 1,
                    (seen, read) => panic!("byte {place} as {byte}: {:?} but {:?}", seen.err(), read.err()),
                }
            }
        }
        assert!(taken > 100 && refused > 100, "{taken} and {refused}");
        for (key, is_taken) in [("d1", true), ("d1/m", true), ("a b", false)] {
            assert_eq!(outline(key, &record).is_ok(), is_taken, "{key}");
            assert_eq!(read_device(key, &record).is_ok(), is_taken, "{key}");
        }
    }
}
