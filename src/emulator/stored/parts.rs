//! The parts of a record: a write makes the text of those that it changes, a record that is kept packed is read as far
//! as somebody asks for it.
//!
//! Invariant: [`unpacked`] gives what [`super::read_device`] gives for every record that has an outline.

use std::ops::Range;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::part::{Part, Stored};
use super::super::registry::Device;
use super::super::twin_record::{Properties, Stamp, StampNode, TwinRecord};
use super::members::{end_of_string, end_of_value};
use super::{StoredIn, StoredStamp, identity, is_uniform, parse, read_device, read_stamps, status, ticks};
use crate::twin::Object;

/// In the places of the sections when the rest of a record is read.
const NO_SECTIONS: &[u8] = br#","d":0,"dv":0,"ds":0,"r":0,"rv":0,"rs":0}"#;

/// A piece of JSON, of its own or of a record.
#[derive(Debug, Clone)]
pub struct Text {
    of: Arc<[u8]>,
    place: Range<usize>,
}

impl Text {
    fn made(of: &impl Serialize) -> Self {
        serde_json::to_vec(of).expect("maps have string keys and a vector takes every byte").into()
    }

    /// What stands before and behind `at`, in one piece of memory.
    pub(super) fn split(bytes: Vec<u8>, at: usize) -> [Self; 2] {
        let (end, of) = (bytes.len(), Arc::from(bytes));
        [Self { of: Arc::clone(&of), place: 0..at }, Self { of, place: at..end }]
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.of[self.place.clone()]
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self { place: 0..bytes.len(), of: bytes.into() }
    }
}

/// How the store keeps a section.
#[derive(Debug, Clone)]
pub struct SectionText {
    /// What is set.
    pub values: Text,
    /// `$version`.
    pub version: u64,
    /// When it was set.
    pub stamps: Text,
}

impl Stored for Object {
    type Form = Text;

    fn to_stored(&self) -> Text {
        Text::made(self)
    }

    fn of_stored(form: &Text) -> Self {
        let read: Result<Self, _> = parse(form.bytes());
        read.expect("tags were looked through")
    }
}

impl Stored for Properties {
    type Form = SectionText;

    fn to_stored(&self) -> SectionText {
        let stamps = Text::made(&StampText { node: &self.stamps, above: None });
        SectionText { values: Text::made(&self.values), version: self.version, stamps }
    }

    fn of_stored(form: &SectionText) -> Self {
        let read = || {
            let values = parse(form.values.bytes())?;
            let stamps = read_stamps(parse::<StoredStamp>(form.stamps.bytes())?, None, &values)?;
            Ok::<_, String>(Self { values, stamps, version: form.version })
        };
        read().expect("sections were looked through")
    }
}

/// As [`StoredStamp`], without a tree in between.
struct StampText<'a> {
    node: &'a StampNode,
    above: Option<&'a Stamp>,
}

/// The stamps below a node that it does not stand for.
struct StampsBelow<'a>(&'a StampNode);

impl StampsBelow<'_> {
    fn iter(&self) -> impl Iterator<Item = (&String, StampText<'_>)> {
        let StampNode { stamp, children } = self.0;
        let below = children.iter().filter(|(_, child)| !is_uniform(child, stamp));
        below.map(|(key, node)| (key, StampText { node, above: Some(stamp) }))
    }
}

impl Serialize for StampText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stamp = &self.node.stamp;
        let own = self.above != Some(stamp);
        let below = StampsBelow(self.node);
        let mut map = serializer.serialize_map(None)?;
        if own {
            map.serialize_entry("t", &ticks(stamp.at))?;
        }
        if let (true, Some(version)) = (own, stamp.version) {
            map.serialize_entry("v", &version)?;
        }
        if below.iter().next().is_some() {
            map.serialize_entry("c", &below)?;
        }
        if let (true, Some(by)) = (own, &stamp.by) {
            map.serialize_entry("b", &(by.configuration.as_str(), by.digest))?;
        }
        map.end()
    }
}

impl Serialize for StampsBelow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// The device or module of a record that has an outline; its sections are read when somebody asks for them.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "only records that have an outline come here")]
pub fn unpacked(key: &str, record: &Arc<[u8]>) -> Device {
    let quickly = Fields::of(record).and_then(|fields| fields.device(key, record));
    quickly.unwrap_or_else(|| read_device(key, record).expect("a record that has an outline is read"))
}

/// Where the sections of a record stand, as this version writes it: behind all else but the configurations.
#[derive(Default)]
struct Fields {
    /// Where the first of them begins, the comma before it included.
    head_end: usize,
    tags: Option<Range<usize>>,
    configurations: Option<Range<usize>>,
    /// `d`, `dv`, `ds`, `r`, `rv`, `rs`.
    sections: [Range<usize>; 6],
}

/// The names of the sections, in their order.
const SECTIONS: [&[u8]; 6] = [b"d", b"dv", b"ds", b"r", b"rv", b"rs"];

impl Fields {
    /// `None` when the record is not as this version writes it.
    fn of(record: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        let (mut at, mut sections) = (0, 0);
        loop {
            // What stands before a field: the brace, or a comma.
            let expected = if at == 0 { b'{' } else { b',' };
            if *record.get(at)? != expected {
                return (record[at..] == *b"}" && sections == SECTIONS.len()).then_some(fields);
            }
            let name_end = end_of_string(record, at + 1)?;
            let name = &record[at + 2..name_end - 1];
            let start = name_end + 1;
            if *record.get(name_end)? != b':' {
                return None;
            }
            let end = end_of_value(record, start)?;
            if SECTIONS.get(sections) == Some(&name) {
                if sections == 0 && fields.tags.is_none() {
                    fields.head_end = at;
                }
                fields.sections[sections] = start..end;
                sections += 1;
            } else if name == b"t" && record[start] == b'{' && sections == 0 && fields.tags.is_none() {
                fields.head_end = at;
                fields.tags = Some(start..end);
            } else if name == b"configurations" && sections == SECTIONS.len() && fields.configurations.is_none() {
                fields.configurations = Some(start..end);
            } else if sections > 0 || fields.tags.is_some() {
                return None;
            }
            at = end;
        }
    }

    /// `None` when something cannot be read.
    fn device(self, key: &str, record: &Arc<[u8]>) -> Option<Device> {
        let mut head = Vec::with_capacity(self.head_end + NO_SECTIONS.len());
        head.extend_from_slice(&record[..self.head_end]);
        head.extend_from_slice(NO_SECTIONS);
        let mut head: StoredIn<IgnoredAny, IgnoredAny> = parse(&head).ok()?;
        if head.tags.is_some() || !head.configurations.is_empty() {
            return None;
        }
        let text = |place: &Range<usize>| Text { of: Arc::clone(record), place: place.clone() };
        let [desired, desired_version, desired_stamps, reported, reported_version, reported_stamps] = &self.sections;
        let section = |values, version: &Range<usize>, stamps| {
            let version = parse(&record[version.clone()]).ok()?;
            Some(Part::of_stored(SectionText { values: text(values), version, stamps: text(stamps) }))
        };
        let configurations: std::collections::BTreeMap<String, String> =
            self.configurations.map(|place| parse(&record[place])).transpose().ok()?.unwrap_or_default();
        let twin = TwinRecord {
            etag_number: head.twin_etag,
            version: head.twin_version,
            tags: self.tags.as_ref().map(text).map(Part::of_stored),
            desired: section(desired, desired_version, desired_stamps)?,
            reported: section(reported, reported_version, reported_stamps)?,
            configurations: configurations.into_iter().map(status).collect::<Result<_, _>>().ok()?,
        };
        Some(Device { identity: identity(key, &mut head).ok()?.into(), twin, change: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::super::configuration::{ConfigurationId, ConfigurationStatus};
    use super::super::super::identity::{Identity, IdentitySpec};
    use super::super::super::twin_record::WrittenBy;
    use super::super::{device, outline};
    use super::*;
    use crate::twin::{DeviceId, MergePatch, Value};

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(1_700_000_000 + second, 0).unwrap()
    }

    fn record(twin: TwinRecord) -> Device {
        let mut random = |bytes: &mut [u8]| bytes.fill(5);
        let spec = IdentitySpec { status_reason: Some("a \"b\", c}\\".to_owned()), ..IdentitySpec::default() };
        let identity = Identity::new(DeviceId::new("d1").unwrap(), None, 9, spec, &mut random);
        Device { identity: identity.into(), twin, change: 0 }
    }

    fn patched(tags: Option<&str>, desired: Option<&str>) -> TwinRecord {
        let patch = MergePatch { tags: tags.map(object), desired: desired.map(object) };
        TwinRecord::new(at(0)).patched(&patch, at(1)).unwrap()
    }

    #[test]
    fn what_is_unpacked_is_what_is_read() {
        let content = r#"{"a":{"b":[1,{"c":"}],\"\\"}],"e":{}},"f":0.1,"n":-7,"t":true}"#;
        let again = MergePatch { tags: None, desired: Some(object(r#"{"a":{"b":2},"n":null}"#)) };
        let of_configurations = {
            let mut twin = patched(Some(content), Some(content));
            let status = ConfigurationStatus::parse("Applied").unwrap();
            twin.configurations = BTreeMap::from([(ConfigurationId::new("c").unwrap(), status)]);
            let mut desired = Properties::clone(&twin.desired);
            let by = WrittenBy { configuration: ConfigurationId::new("c").unwrap(), digest: 7 };
            desired.stamps.children.to_mut().get_mut("f").unwrap().stamp.by = Some(Arc::new(by));
            twin.desired = desired.into();
            twin
        };
        for twin in [
            TwinRecord::new(at(0)),
            patched(Some("{}"), None),
            patched(None, Some(content)),
            patched(Some(content), Some(content)).patched(&again, at(2)).unwrap(),
            patched(Some(content), Some(content)).reported(&object(content), at(3)).unwrap(),
            of_configurations,
        ] {
            let whole = record(twin);
            let packed: Arc<[u8]> = device(&whole).into();
            assert!(outline("d1", &packed).is_ok() && Fields::of(&packed).is_some(), "quickly");
            let unpacked = unpacked("d1", &packed);
            assert_eq!((read_device("d1", &packed).as_ref(), &unpacked), (Ok(&whole), &whole));
            assert_eq!(device(&unpacked), *packed, "and packed again without a change");
        }
    }

    #[test]
    fn a_record_that_another_version_wrote_is_read_in_full() {
        let packed = device(&record(patched(Some(r#"{"a":1}"#), Some(r#"{"b":2}"#))));
        let text = String::from_utf8(packed).unwrap();
        for (from, to) in [
            (r#","t":{"#, r#","tags":{"#),
            (r#""dv":2"#, r#""desired_version":2"#),
            (r#","d":"#, r#" ,"d":"#),
            (r#","d":"#, r#","configurations":{"c":"Targeted"},"d":"#),
            (r#","tv":"#, r#","t":{"x":1},"configurations":{},"tv":"#),
        ] {
            let other = text.replacen(from, to, 1);
            assert!(other != text, "{from}");
            let other: Arc<[u8]> = other.into_bytes().into();
            match read_device("d1", &other) {
                Ok(read) => assert_eq!(unpacked("d1", &other), read, "{to}"),
                Err(_) => assert!(outline("d1", &other).is_err(), "{to}"),
            }
        }
    }
}
