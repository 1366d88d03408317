//! `kind: DeviceTwin` and `kind: ModuleTwin` (DESIGN section 2).

use std::collections::BTreeMap;

use super::schema::{Checker, Fields, join};
use super::shape::{DEVICE_SPEC, METADATA, MODULE_SPEC, REMOVAL_POLICIES};
use super::tree::{Node, shortened};
use super::wanted_schema::read_wanted;
use crate::plan::{FileSpan, RemovalPolicy, Suspend, TwinManifest, Wanted};
use crate::twin::{DeviceId, ModuleId, TwinRef};

/// Annotations under this prefix are geminid's own.
const ANNOTATION_PREFIX: &str = "geminid.dev/";
const SUSPEND: &str = "geminid.dev/suspend";
const SUSPEND_UNTIL: &str = "geminid.dev/suspend-until";
/// The longest reason, in characters; it goes into messages.
const REASON_LENGTH_MAX: usize = 200;
/// Modules that IoT Edge deployments own (DESIGN section 2).
pub(super) const EDGE_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

/// A twin that a document declares.
pub(super) struct ReadTwin {
    pub(super) twin: TwinRef,
    /// Everything of it but what it wants.
    pub(super) manifest: TwinManifest,
    /// What it wants, without the places.
    pub(super) wanted: Wanted,
    /// The offset of each leaf of `wanted`.
    pub(super) leaves: Vec<usize>,
}

/// The twin a document declares. What cannot be used is in the checker's problems; then the result is not used.
pub(super) fn read_device_twin(checker: &mut Checker<'_>, root: &Fields<'_>, source: FileSpan) -> Option<ReadTwin> {
    let metadata = read_metadata(checker, root, "the device id");
    let mut manifest = manifest_of(&metadata, source);
    let (mut wanted, mut leaves) = (Wanted::default(), Vec::new());
    if let Some(spec) = root.get("spec")
        && let Some(spec) = checker.fields(&spec.value, "spec", &DEVICE_SPEC)
    {
        if let Some(create) = spec.get("create") {
            manifest.create = checker.bool(&create.value, "spec.create").unwrap_or_default();
        }
        manifest.removal_policy = read_removal_policy(checker, &spec).unwrap_or_default();
        (wanted, leaves) = read_wanted(checker, &spec);
    }
    let twin = TwinRef::device(device_id(checker, metadata.name?, "metadata.name")?);
    Some(ReadTwin { twin, manifest, wanted, leaves })
}

/// The module twin a document declares, likewise.
pub(super) fn read_module_twin(checker: &mut Checker<'_>, root: &Fields<'_>, source: FileSpan) -> Option<ReadTwin> {
    let metadata = read_metadata(checker, root, "the module id");
    let mut manifest = manifest_of(&metadata, source);
    let module = metadata.name.and_then(|name| module_id(checker, name));
    let spec = checker.required(root, "spec", "give spec.device, the id of the module's device")?;
    let spec = checker.fields(&spec.value, "spec", &MODULE_SPEC)?;
    let device = checker.required(&spec, "device", "it is the id of the module's device");
    let device = device.and_then(|device| device_id(checker, &device.value, "spec.device"));
    manifest.removal_policy = read_removal_policy(checker, &spec).unwrap_or_default();
    let (wanted, leaves) = read_wanted(checker, &spec);
    Some(ReadTwin { twin: TwinRef::module(device?, module?), manifest, wanted, leaves })
}

/// Warns of a manifest that declares nothing. Only for one without errors: with an error, more may be meant.
pub(super) fn warn_if_nothing_is_declared(checker: &mut Checker<'_>, at: usize, twin: &ReadTwin) {
    let ReadTwin { manifest, wanted, .. } = twin;
    // A label is reason enough: a profile selects by it.
    let idle = wanted.tags.is_empty() && wanted.desired.is_empty() && !manifest.create && manifest.labels.is_empty();
    if idle {
        let message = "nothing is declared; give spec.tags or spec.properties.desired";
        checker.warning(at, "spec".to_owned(), "nothing-declared", message);
    }
}

/// `metadata` as far as it can be read.
#[derive(Default)]
pub(super) struct Metadata<'n> {
    pub(super) name: Option<&'n Node>,
    labels: BTreeMap<String, String>,
    suspend: Option<Suspend>,
}

impl Metadata<'_> {
    pub(super) fn is_suspended(&self) -> bool {
        self.suspend.is_some()
    }
}

fn manifest_of(metadata: &Metadata<'_>, source: FileSpan) -> TwinManifest {
    let (labels, suspend) = (metadata.labels.clone().into(), metadata.suspend.clone().map(Box::new));
    TwinManifest { labels, suspend, ..TwinManifest::empty(source) }
}

/// Reads `metadata`; `what` is the name there.
pub(super) fn read_metadata<'n>(checker: &mut Checker<'_>, root: &Fields<'n>, what: &str) -> Metadata<'n> {
    let mut found = Metadata::default();
    let Some(metadata) = checker.required(root, "metadata", &format!("give metadata.name, {what}")) else {
        return found;
    };
    let Some(metadata) = checker.fields(&metadata.value, "metadata", &METADATA) else { return found };
    found.name = checker.required(&metadata, "name", &format!("it is {what}")).map(|name| &name.value);
    if let Some(labels) = metadata.get("labels") {
        let texts = checker.texts(&labels.value, "metadata.labels");
        found.labels = texts.into_iter().map(|(entry, text)| (entry.key.clone(), text.to_owned())).collect();
    }
    if let Some(annotations) = metadata.get("annotations") {
        found.suspend = read_annotations(checker, &annotations.value);
    }
    found
}

fn read_annotations(checker: &mut Checker<'_>, node: &Node) -> Option<Suspend> {
    let (mut reason, mut until) = (None, None);
    for (entry, text) in checker.texts(node, "metadata.annotations") {
        let path = join("metadata.annotations", &entry.key);
        match entry.key.as_str() {
            SUSPEND if text.trim().is_empty() || text.contains(char::is_control) => {
                let message = "give a reason, one line: whoever asks why this twin is left alone reads it";
                checker.error(entry.value.at, path, "suspend-reason", message);
            }
            SUSPEND => reason = Some(text.trim().chars().take(REASON_LENGTH_MAX).collect::<String>()),
            SUSPEND_UNTIL => match text.parse::<jiff::Timestamp>() {
                Ok(time) => until = Some((entry.at, (time.as_second(), text.to_owned()))),
                Err(_) => {
                    let message = format!("{:?} is no time; write one such as 2027-01-08T00:00:00Z", shortened(text));
                    checker.error(entry.value.at, path, "suspend-until", message);
                }
            },
            other if other.starts_with(ANNOTATION_PREFIX) => {
                let hint = super::schema::did_you_mean(other, [SUSPEND, SUSPEND_UNTIL].into_iter())
                    .unwrap_or_else(|| format!("{SUSPEND} and {SUSPEND_UNTIL} are known"));
                let message = format!("unknown annotation {:?}; {hint}", shortened(other));
                checker.error(entry.at, path, "unknown-annotation", message);
            }
            _ => {}
        }
    }
    if let (None, Some((at, _))) = (&reason, &until) {
        let message = format!("{SUSPEND_UNTIL} says how long; add {SUSPEND} with the reason");
        checker.error(*at, join("metadata.annotations", SUSPEND_UNTIL), "suspend-reason", message);
    }
    Some(Suspend { reason: reason?, until: until.map(|(_, until)| until) })
}

fn device_id(checker: &mut Checker<'_>, node: &Node, path: &str) -> Option<DeviceId> {
    match DeviceId::new(checker.text(node, path)?) {
        Ok(device) => Some(device),
        Err(error) => {
            checker.error(node.at, path.to_owned(), "device-id", error.to_string());
            None
        }
    }
}

fn module_id(checker: &mut Checker<'_>, node: &Node) -> Option<ModuleId> {
    let text = checker.text(node, "metadata.name")?;
    let path = || "metadata.name".to_owned();
    if EDGE_MODULES.contains(&text) {
        let message = format!("{text} belongs to IoT Edge deployments; change it with a deployment manifest");
        checker.error(node.at, path(), "edge-module", message);
        return None;
    }
    match ModuleId::new(text) {
        Ok(module) => Some(module),
        Err(error) => {
            checker.error(node.at, path(), "module-id", error.to_string());
            None
        }
    }
}

pub(super) fn read_removal_policy(checker: &mut Checker<'_>, spec: &Fields<'_>) -> Option<RemovalPolicy> {
    let entry = spec.get("removalPolicy")?;
    let word = checker.word(&entry.value, "spec.removalPolicy", &REMOVAL_POLICIES)?;
    [RemovalPolicy::Orphan, RemovalPolicy::Clear].into_iter().find(|policy| policy.as_str() == word)
}
