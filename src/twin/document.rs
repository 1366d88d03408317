//! A twin as a hub answered it.

use super::{DeviceId, ETag, MergePatch, ModuleId, Object, Path, TwinRef, Value, merge};

/// The two sections a service may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `tags`: never seen by the device.
    Tags,
    /// `properties.desired`: what the device is told.
    Desired,
}

impl Section {
    /// Both sections, in the order of everything printed.
    pub const ALL: [Self; 2] = [Self::Tags, Self::Desired];

    /// `tags` or `properties.desired`, as manifests and messages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Desired => "properties.desired",
        }
    }
}

/// A live twin, as one point read answered it. Sections are plain objects: `$metadata` and `$version` are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// Whose twin.
    pub twin_ref: TwinRef,
    /// The state of tags and desired together (`iot-hub.md` 1.3).
    pub etag: ETag,
    /// The etag of the identity; changes when the device is deleted and made again (`iot-hub.md` 1.3).
    pub device_etag: Option<String>,
    /// Counts every write, reported included.
    pub version: u64,
    /// `tags`; empty when the hub sent none.
    pub tags: Object,
    /// `properties.desired`.
    pub desired: Object,
    /// `properties.reported`.
    pub reported: Object,
    /// The system properties that conditions read, such as `status` and `connectionState` (`iot-hub.md` 1.1): what the
    /// hub sent besides ids, etags, version and sections; and under [`Twin::METADATA`] the metadata of desired, where it
    /// names who wrote a leaf.
    pub system: Object,
}

/// What of a twin tells later whether anybody has touched it since, and how one of its tags stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinTrace {
    /// As [`Twin::etag`].
    pub etag: ETag,
    /// As [`Twin::device_etag`].
    pub device_etag: Option<String>,
    /// As [`Twin::version`].
    pub version: u64,
    /// The value of the tag asked for; `None` when there is none.
    pub tag: Option<Value>,
}

impl TwinTrace {
    /// The trace of `twin` with the tag of this name.
    #[must_use]
    pub fn of(mut twin: Twin, tag: &str) -> Self {
        Self { etag: twin.etag, device_etag: twin.device_etag, version: twin.version, tag: twin.tags.remove(tag) }
    }
}

impl Twin {
    /// Where a section has the times and writers of its last changes (`iot-hub.md` 1.2), and where `system` keeps
    /// desired's.
    pub const METADATA: &'static str = "$metadata";

    /// The configuration that last wrote the place in desired, or something above it, where the hub tells
    /// (`$lastUpdatedBy`, `iot-hub.md` 1.4).
    #[must_use]
    pub fn last_writer(&self, section: Section, path: &Path) -> Option<&str> {
        let mut place = self.system.get(Self::METADATA).filter(|_| section == Section::Desired)?;
        let mut writer = None;
        for key in path.keys() {
            let Some(below) = place.get([key.as_str()]) else { break };
            place = below;
            writer = place.get(["$lastUpdatedBy"]).and_then(Value::as_str).or(writer);
        }
        writer
    }

    /// A section a service may write.
    #[must_use]
    pub fn section(&self, section: Section) -> &Object {
        match section {
            Section::Tags => &self.tags,
            Section::Desired => &self.desired,
        }
    }

    /// The device of the twin.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.twin_ref.device
    }

    /// The module of the twin, if it is a module's.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleId> {
        self.twin_ref.module.as_ref()
    }

    /// A section after `patch`, as the hub would hold it (`iot-hub.md` 2.3).
    #[must_use]
    pub fn section_after(&self, section: Section, patch: &MergePatch) -> Object {
        match patch.section(section) {
            None => self.section(section).clone(),
            Some(change) => match merge(Value::Object(self.section(section).clone()), change) {
                Value::Object(object) => object,
                // A section patch is always an object, and merging an object gives an object.
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Object::new(),
            },
        }
    }
}
