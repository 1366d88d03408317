//! One stored twin: its sections, its counters and the stamps of every leaf (`iot-hub.md` 1.2 and 1.3).
//!
//! Invariant: `$metadata` has exactly the shape of the section it describes, an array being one leaf; the values are
//! what [`crate::twin::merge`] makes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::configuration::{Configuration, ConfigurationId, ConfigurationStatus};
use super::error::Refusal;
use super::part::Part;
use super::stored;
use crate::twin::{MergePatch, Object, Path, Section, Value, check_section, merge};

/// `version` of a new twin (`iot-hub.md` 1.3).
const VERSION_FIRST: u64 = 2;
/// Tags of a twin that has none.
const NO_TAGS: &[u8] = b"{}";
/// Nanoseconds in the smallest step of a hub's clock, the .NET tick (`iot-hub.md` 1.2).
const TICK_NANOSECONDS: i128 = 100;
/// .NET ticks (100 ns since year 1) at the Unix epoch.
const TICKS_AT_UNIX_EPOCH: i128 = 621_355_968_000_000_000;
/// The first second of year 1, counted from 1970.
const NEVER_SECONDS: i64 = -62_135_596_800;

/// The configuration that set a leaf (`iot-hub.md` 1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenBy {
    /// `$lastUpdatedBy`.
    pub configuration: ConfigurationId,
    /// `$lastUpdatedByDigest`: the .NET ticks of the configuration's last write.
    pub digest: u64,
}

impl WrittenBy {
    /// The mark of a configuration as it is now.
    #[must_use]
    pub fn new(configuration: &Configuration) -> Self {
        Self { configuration: configuration.id.clone(), digest: ticks_since_year_one(configuration.updated) }
    }
}

/// A leaf of the desired properties that a configuration writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafWrite {
    /// Where.
    pub path: Path,
    /// The new value; `None` removes.
    pub value: Option<Value>,
    /// Who sets it.
    pub by: Option<Arc<WrittenBy>>,
}

/// When and by which write a node of a section was last touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub at: Timestamp,
    /// The `$version` of that write: in desired only, and not before the first write.
    pub version: Option<u64>,
    /// The configuration that made the write, on leaves alone.
    pub by: Option<Arc<WrittenBy>>,
}

/// The `$metadata` tree of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampNode {
    /// The stamp of this node.
    pub stamp: Stamp,
    /// The nodes below; none for a scalar, an array and an empty object.
    pub children: StampNodes,
}

/// Nodes by name. They are shared until one of them changes, as most of a section does not when it is written.
#[derive(Clone, Default)]
pub struct StampNodes(Option<Arc<BTreeMap<String, StampNode>>>);

static NO_NODES: BTreeMap<String, StampNode> = BTreeMap::new();

impl StampNodes {
    /// The nodes, to be changed.
    pub fn to_mut(&mut self) -> &mut BTreeMap<String, StampNode> {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl Deref for StampNodes {
    type Target = BTreeMap<String, StampNode>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NO_NODES)
    }
}

impl PartialEq for StampNodes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for StampNodes {}

impl fmt::Debug for StampNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<const N: usize> From<[(String, StampNode); N]> for StampNodes {
    fn from(nodes: [(String, StampNode); N]) -> Self {
        Self(Some(Arc::new(BTreeMap::from(nodes))))
    }
}

impl StampNode {
    /// A node without any below.
    #[must_use]
    pub const fn leaf(stamp: Stamp) -> Self {
        Self { stamp, children: StampNodes(None) }
    }

    /// The tree of a section written whole.
    #[must_use]
    pub fn of(object: &Object, stamp: &Stamp) -> Self {
        let mut node = Self::leaf(stamp.clone());
        node.patch(object, stamp);
        node
    }

    /// The node at a path.
    fn at_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.keys().iter().try_fold(self, |node, key| node.children.to_mut().get_mut(key))
    }

    /// Follows a merge patch: what it names is stamped, with everything above it; what it deletes goes.
    fn patch(&mut self, patch: &Object, stamp: &Stamp) {
        self.stamp = stamp.clone();
        if patch.is_empty() {
            return;
        }
        let children = self.children.to_mut();
        for (key, change) in patch {
            match change {
                Value::Null => {
                    children.remove(key);
                }
                Value::Object(inner) => {
                    children.entry(key.clone()).or_insert_with(|| Self::leaf(stamp.clone())).patch(inner, stamp);
                }
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    children.insert(key.clone(), Self::leaf(stamp.clone()));
                }
            }
        }
    }
}

/// `properties.desired` or `properties.reported`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// What is set.
    pub values: Object,
    /// When each node of it was.
    pub stamps: StampNode,
    /// `$version`.
    pub version: u64,
}

impl Properties {
    fn new(now: Timestamp) -> Self {
        Self { values: Object::new(), stamps: StampNode::leaf(Stamp { at: now, version: None, by: None }), version: 1 }
    }

    /// After a merge patch with this stamp.
    fn patched(&self, patch: &Object, name: &str, stamp: &Stamp) -> Result<Self, Refusal> {
        let values = merged(self.values.clone(), patch);
        check(name, Section::Desired, &values)?;
        let mut stamps = self.stamps.clone();
        stamps.patch(patch, stamp);
        Ok(Self { values, stamps, version: self.version + 1 })
    }
}

impl Part<Properties> {
    /// After one more write, a merge patch. `has_versions` is whether stamps name it.
    fn patched(&self, patch: &Object, name: &str, has_versions: bool, now: Timestamp) -> Result<Self, Refusal> {
        let before = self.stored();
        let stamp = Stamp { at: tick(now), version: has_versions.then_some(before.version + 1), by: None };
        match stored::patched_section(before, patch, &stamp) {
            Some(text) => Ok(Self::of_stored(text)),
            None => Properties::patched(self, patch, name, &stamp).map(Self::new),
        }
    }
}

/// Tags after a merge patch.
fn patched_tags(before: Option<&Part<Object>>, patch: &Object) -> Result<Part<Object>, Refusal> {
    let text = before.map_or(NO_TAGS, |tags| tags.stored().bytes());
    if let Some(text) = stored::patched_object(text, patch, Section::Tags) {
        return Ok(Part::of_stored(text));
    }
    let tags = merged(before.map(|tags| Object::clone(tags)).unwrap_or_default(), patch);
    check("tags", Section::Tags, &tags)?;
    Ok(tags.into())
}

/// One stored twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinRecord {
    /// The number inside the etag; moves with tags and desired only (`iot-hub.md` 1.3).
    pub etag_number: u64,
    /// Counts every write.
    pub version: u64,
    /// `None` until tags are written for the first time; such a twin has no `tags` in its body (`iot-hub.md` 1.1).
    pub tags: Option<Part<Object>>,
    /// `properties.desired`.
    pub desired: Part<Properties>,
    /// `properties.reported`.
    pub reported: Part<Properties>,
    /// How the configurations that target the twin stand to it (`iot-hub.md` 10).
    pub configurations: BTreeMap<ConfigurationId, ConfigurationStatus>,
}

impl TwinRecord {
    /// The twin of a device just created.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let properties = Part::new(Properties::new(tick(now)));
        Self {
            etag_number: 1,
            version: VERSION_FIRST,
            tags: None,
            desired: properties.clone(),
            reported: properties,
            configurations: BTreeMap::new(),
        }
    }

    /// The twin of a device made by a bulk operation with these sections: its desired properties carry dates of year 1
    /// (`iot-hub.md` 1.2 and 2.6).
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when a section breaks a rule of `iot-hub.md` section 4.
    pub fn imported_device(twin: &MergePatch, now: Timestamp) -> Result<Self, Refusal> {
        Self::new(now).imported(twin, never())
    }

    /// The twin of a module made by a bulk operation with these sections (`iot-hub.md` 1.2 and 2.6).
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when a section breaks a rule of `iot-hub.md` section 4.
    pub fn imported_module(twin: &MergePatch, now: Timestamp) -> Result<Self, Refusal> {
        let mut record = Self::new(now).imported(twin, tick(now))?;
        let mut reported = Properties::clone(&record.reported);
        reported.stamps.stamp.version = Some(reported.version);
        record.reported = reported.into();
        Ok(record)
    }

    /// This fresh twin with sections that count as part of its creation.
    fn imported(mut self, twin: &MergePatch, at: Timestamp) -> Result<Self, Refusal> {
        if let Some(tags) = &twin.tags {
            let tags = merged(Object::new(), tags);
            check("tags", Section::Tags, &tags)?;
            self.tags = Some(tags.into());
        }
        if let Some(desired) = &twin.desired {
            let desired = merged(Object::new(), desired);
            check("properties.desired", Section::Desired, &desired)?;
            let version = self.desired.version;
            let stamps = StampNode::of(&desired, &Stamp { at, version: Some(version), by: None });
            self.desired = Properties { values: desired, stamps, version }.into();
        }
        Ok(self)
    }

    /// The etag as bodies hold it: the base64 of the number in eight bytes (`iot-hub.md` 1.4).
    #[must_use]
    pub fn etag(&self) -> String {
        BASE64.encode(self.etag_number.to_be_bytes())
    }

    /// The twin after a service's PATCH. Equal values count as a write, as at the hub; a patch that names no section
    /// writes nothing.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when the result breaks a rule of `iot-hub.md` section 4.
    pub fn patched(&self, patch: &MergePatch, now: Timestamp) -> Result<Self, Refusal> {
        let mut after = self.clone();
        if patch.is_empty() {
            return Ok(after);
        }
        if let Some(change) = &patch.tags {
            after.tags = Some(patched_tags(after.tags.as_ref(), change)?);
        }
        if let Some(change) = &patch.desired {
            after.desired = after.desired.patched(change, "properties.desired", true, now)?;
        }
        after.etag_number += 1;
        after.version += 1;
        Ok(after)
    }

    /// The twin after a service's PUT: both sections replaced, one that is left out emptied (`iot-hub.md` 2.3; what a
    /// hub does there is unproven).
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] on a null anywhere, or when a section breaks a rule of `iot-hub.md` section 4.
    pub fn replaced(&self, twin: &MergePatch, now: Timestamp) -> Result<Self, Refusal> {
        for section in [&twin.tags, &twin.desired].into_iter().flatten() {
            if let Some(name) = null_key(section) {
                return Err(Refusal::ArgumentInvalid(format!(
                    "Value of Property or Tag cannot be null. Error in Property/Tag {name}"
                )));
            }
        }
        let mut after = self.clone();
        let tags = twin.tags.clone().unwrap_or_default();
        check("tags", Section::Tags, &tags)?;
        // A twin that never had tags still has none after a PUT that names none.
        after.tags = (after.tags.is_some() || twin.tags.is_some()).then(|| tags.into());
        if twin.desired.is_some() || !after.desired.values.is_empty() {
            let desired = twin.desired.clone().unwrap_or_default();
            check("properties.desired", Section::Desired, &desired)?;
            let version = after.desired.version + 1;
            let stamp = Stamp { at: tick(now), version: Some(version), by: None };
            after.desired = Properties { stamps: StampNode::of(&desired, &stamp), values: desired, version }.into();
        }
        after.etag_number += 1;
        after.version += 1;
        Ok(after)
    }

    /// The twin after the configurations wrote these leaves, as one write of desired; none, and only the statuses
    /// change, which moves no counter.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when the result breaks a rule of `iot-hub.md` section 4.
    pub fn configured(
        &self,
        writes: &[LeafWrite],
        statuses: BTreeMap<ConfigurationId, ConfigurationStatus>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let mut after = self.clone();
        after.configurations = statuses;
        if writes.is_empty() {
            return Ok(after);
        }
        let mut desired = Properties::clone(&self.desired);
        desired.version += 1;
        let version = Some(desired.version);
        for write in writes {
            let mut patch = MergePatch::default();
            patch.set(Section::Desired, write.path.keys(), write.value.clone().unwrap_or(Value::Null));
            let patch = patch.desired.unwrap_or_default();
            desired.values = merged(desired.values, &patch);
            desired.stamps.patch(&patch, &Stamp { at: tick(now), version, by: None });
            if let Some(leaf) = desired.stamps.at_mut(&write.path) {
                leaf.stamp.by.clone_from(&write.by);
            }
        }
        check("properties.desired", Section::Desired, &desired.values)?;
        after.desired = desired.into();
        after.etag_number += 1;
        after.version += 1;
        Ok(after)
    }

    /// The twin after its device reported. The etag stays (`iot-hub.md` 1.3).
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when the result breaks a rule of `iot-hub.md` section 4.
    pub fn reported(&self, patch: &Object, now: Timestamp) -> Result<Self, Refusal> {
        let mut after = self.clone();
        // Reported has the limits of desired (`iot-hub.md` section 4).
        after.reported = after.reported.patched(patch, "properties.reported", false, now)?;
        after.version += 1;
        Ok(after)
    }
}

/// `at` cut to the hub's precision, so that what is kept is what is printed.
#[must_use]
pub fn tick(at: Timestamp) -> Timestamp {
    let nanoseconds = at.as_nanosecond();
    Timestamp::from_nanosecond(nanoseconds - nanoseconds.rem_euclid(TICK_NANOSECONDS)).unwrap_or(at)
}

/// .NET ticks since year 1.
#[must_use]
pub fn ticks_since_year_one(at: Timestamp) -> u64 {
    u64::try_from(TICKS_AT_UNIX_EPOCH + at.as_nanosecond().div_euclid(TICK_NANOSECONDS)).unwrap_or(0)
}

/// The first instant of year 1, which a hub shows where nothing ever happened (`iot-hub.md` 1.2).
#[must_use]
pub fn never() -> Timestamp {
    Timestamp::constant(NEVER_SECONDS, 0)
}

fn merged(target: Object, patch: &Object) -> Object {
    match merge(Value::Object(target), patch) {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("merging into an object gives an object")
        }
    }
}

fn check(name: &str, section: Section, result: &Object) -> Result<(), Refusal> {
    match check_section(section, result).first() {
        None => Ok(()),
        Some(violation) if violation.path.keys().is_empty() => {
            Err(Refusal::ArgumentInvalid(format!("{name}: {}", violation.rule)))
        }
        Some(violation) => Err(Refusal::ArgumentInvalid(format!("{name}.{}: {}", violation.path, violation.rule))),
    }
}

/// The first key that holds a null, at any depth outside arrays; nulls in arrays are refused with the limits.
fn null_key(object: &Object) -> Option<&str> {
    object.iter().find_map(|(key, value)| match value {
        Value::Null => Some(key.as_str()),
        Value::Object(inner) => null_key(inner),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    })
}

#[cfg(test)]
mod tests;
