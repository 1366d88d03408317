//! The file between `plan --out FILE` and `apply FILE`.
//!
//! Invariants: it holds what is written, byte for byte, sensitive values too, so it is readable by its owner alone; and
//! it fits one owner on one hub. It holds no value twice and none that it replaces: what is told of a write is made of
//! its patch and of the twin as it is read before. A file that does not make sense is refused whole.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};

use crate::controller::{PlannedLeaf, PlannedTwin, PlannedWrite, Surveyed};
use crate::plan::{Cause, DeclaredState, FileSpan, Leaf, SealAction, SealScope};
use crate::twin::{DeviceId, ETag, MergePatch, ModuleId, Object, Path as TwinPath, Section, TwinRef, Value};

/// The version of the file.
const FORMAT_VERSION: u64 = 3;
/// The largest file read, in bytes: a million twins of a few leaves.
const SIZE_MAX: u64 = 1024 * 1024 * 1024;
/// Readable and writable by the owner alone.
const MODE: u32 = 0o600;

/// A plan kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanFile {
    pub(super) owner: String,
    pub(super) host: String,
    pub(super) revision: String,
    pub(super) writes: Vec<PlannedWrite>,
    /// Twins that lose a leaf or their seal by it.
    pub(super) removing: usize,
    /// Twins in which a leaf is set.
    pub(super) updating: usize,
    /// Twins declared: what the guards' shares are of.
    pub(super) fleet: usize,
    /// Twins that are not in sync afterwards, with the reason.
    pub(super) left: BTreeMap<TwinRef, String>,
}

impl PlanFile {
    /// What a survey would write.
    pub(super) fn of(scope: &SealScope, state: &DeclaredState, plans: &BTreeMap<TwinRef, Surveyed>) -> Self {
        let mut file = Self {
            owner: scope.owner.to_string(),
            host: scope.host.clone(),
            revision: state.revision.clone(),
            writes: Vec::new(),
            removing: 0,
            updating: 0,
            fleet: state.twins.len(),
            left: BTreeMap::new(),
        };
        for (twin, surveyed) in plans {
            match surveyed {
                Surveyed::Plan(planned) => file.add(twin, planned, false),
                Surveyed::Create(planned) => file.add(twin, planned, true),
                Surveyed::Missing => {
                    file.left.insert(twin.clone(), "it was not registered".to_owned());
                }
                Surveyed::Failed(error) => {
                    file.left.insert(twin.clone(), format!("it could not be planned: {error}"));
                }
            }
        }
        file
    }

    fn add(&mut self, twin: &TwinRef, planned: &PlannedTwin, create: bool) {
        let plan = &planned.plan;
        if let Some(held) = plan.held.first() {
            self.left.insert(twin.clone(), format!("held: {}", held.reason));
        }
        let Some(write) = PlannedWrite::of(twin, planned, create) else { return };
        self.removing += usize::from(plan.loses());
        self.updating += usize::from(plan.changes.iter().any(|change| change.to.is_some()));
        self.writes.push(write);
    }

    /// Replaces the file at `path` at once.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot keep the plan in {}; choose another file with --out", path.display());
        // The file takes the place of what is there: no device, pipe or folder may go for it.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            bail!("{} is no regular file; choose another file with --out", path.display());
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = Path::new(&fresh);
        // What an earlier run left behind may be readable by others.
        if let Err(error) = fs::remove_file(fresh)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(context);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(fresh).with_context(context)?;
        let written = serde_json::to_string_pretty(&self.to_json()).context("cannot print the plan")? + "\n";
        file.write_all(written.as_bytes()).and_then(|()| file.sync_all()).with_context(context)?;
        fs::rename(fresh, path).with_context(context)
    }

    /// The plan in the file at `path`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let length = fs::metadata(path).with_context(|| format!("cannot read the plan {name}"))?.len();
        if length > SIZE_MAX {
            bail!("the plan {name} has {length} bytes, at most {SIZE_MAX} are read; plan a part of the fleet");
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the plan {name}"))?;
        let json: Json = serde_json::from_str(&text).map_err(|error| {
            // The text around the place may be a secret.
            anyhow::anyhow!("{name} is no plan: no JSON at line {}; make one with --out", error.line())
        })?;
        match json.get("formatVersion").and_then(Json::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                bail!(
                    "{name} has format {other}, this version applies {FORMAT_VERSION} alone; plan again with this version"
                )
            }
            None => bail!("{name} is no plan: it has no formatVersion; make one with `geminid plan --out FILE`"),
        }
        Self::from_json(&json).with_context(|| format!("{name} is no plan that can be applied; plan again"))
    }

    /// Whether the plan is for this owner on this hub.
    pub(super) fn check_scope(&self, scope: &SealScope) -> anyhow::Result<()> {
        if self.owner != scope.owner.as_str() {
            bail!("the plan was made for owner {}, this is {}; use the same --owner", self.owner, scope.owner);
        }
        if self.host != scope.host {
            bail!("the plan was made for the hub {}, this is {}; choose that hub", self.host, scope.host);
        }
        Ok(())
    }

    fn to_json(&self) -> Json {
        let section = |object: &Option<Object>| object.clone().map(|object| Value::Object(object).to_json());
        let name = |twin: &TwinRef| (twin.device.as_str().to_owned(), twin.module.as_ref().map(ToString::to_string));
        let writes = self.writes.iter().map(|write| {
            let (device, module) = name(&write.twin);
            json!({
                "device": device, "module": module, "register": write.create, "etag": write.etag.as_str(),
                "cause": write.cause.as_str(), "seal": write.seal.as_str(), "removes": write.removes,
                "leaves": write.leaves.iter().map(leaf_json).collect::<Vec<Json>>(),
                "patch": { "tags": section(&write.patch.tags), "desired": section(&write.patch.desired) },
            })
        });
        let left = self.left.iter().map(|(twin, reason)| {
            let (device, module) = name(twin);
            json!({ "device": device, "module": module, "reason": reason })
        });
        json!({
            "formatVersion": FORMAT_VERSION,
            "owner": self.owner,
            "host": self.host,
            "revision": self.revision,
            "removing": self.removing,
            "updating": self.updating,
            "fleet": self.fleet,
            "writes": writes.collect::<Vec<Json>>(),
            "left": left.collect::<Vec<Json>>(),
        })
    }

    fn from_json(json: &Json) -> anyhow::Result<Self> {
        let list = |name: &str| json.get(name).and_then(Json::as_array).with_context(|| format!("no list {name}"));
        let writes: Vec<PlannedWrite> = list("writes")?.iter().map(write_of).collect::<anyhow::Result<_>>()?;
        let left = list("left")?.iter().map(|entry| Ok((twin_of(entry)?, text(entry, "reason")?)));
        Ok(Self {
            owner: text(json, "owner")?,
            host: text(json, "host")?,
            revision: text(json, "revision")?,
            writes,
            removing: number(json, "removing")?,
            updating: number(json, "updating")?,
            fleet: number(json, "fleet")?,
            left: left.collect::<anyhow::Result<_>>()?,
        })
    }
}

fn text(json: &Json, name: &str) -> anyhow::Result<String> {
    json.get(name).and_then(Json::as_str).map(str::to_owned).with_context(|| format!("no text {name}"))
}

fn number(json: &Json, name: &str) -> anyhow::Result<usize> {
    let number = json.get(name).and_then(Json::as_u64).with_context(|| format!("no number {name}"))?;
    usize::try_from(number).with_context(|| format!("{name} is out of range"))
}

fn twin_of(json: &Json) -> anyhow::Result<TwinRef> {
    let device = DeviceId::new(&text(json, "device")?)?;
    Ok(match json.get("module") {
        None | Some(Json::Null) => TwinRef::device(device),
        Some(_) => TwinRef::module(device, ModuleId::new(&text(json, "module")?)?),
    })
}

fn write_of(json: &Json) -> anyhow::Result<PlannedWrite> {
    let section = |name: &str| match json.get("patch").and_then(|patch| patch.get(name)) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => match Value::from_json(value.clone()) {
            Value::Object(object) => Ok(Some(object)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(anyhow::anyhow!("the patch of {name} is no object"))
            }
        },
    };
    let flag = |name: &str| json.get(name).and_then(Json::as_bool).with_context(|| format!("no flag {name}"));
    let leaves = json.get("leaves").and_then(Json::as_array).context("no list leaves")?;
    let write = PlannedWrite {
        twin: twin_of(json)?,
        create: flag("register")?,
        etag: ETag::new(&text(json, "etag")?).context("an etag that could not guard a write")?,
        patch: MergePatch { tags: section("tags")?, desired: section("desired")? },
        leaves: leaves.iter().map(leaf_of).collect::<anyhow::Result<_>>()?,
        cause: word_of(json, "cause", &Cause::ALL, Cause::as_str)?,
        seal: word_of(json, "seal", &SealAction::ALL, SealAction::as_str)?,
        removes: flag("removes")?,
    };
    match write.leaves.iter().find(|planned| write.value_of(&planned.leaf).is_none()) {
        Some(planned) => bail!("{} is no leaf of its patch", planned.leaf),
        None => Ok(write),
    }
}

fn leaf_json(planned: &PlannedLeaf) -> Json {
    let source =
        |FileSpan { file, line, column }: &FileSpan| json!({ "file": &**file, "line": line, "column": column });
    json!({
        "section": planned.leaf.section.as_str(), "path": planned.leaf.path.keys(),
        "source": planned.source.as_ref().map(source), "sensitive": planned.sensitive,
    })
}

fn leaf_of(json: &Json) -> anyhow::Result<PlannedLeaf> {
    let section = word_of(json, "section", &Section::ALL, Section::as_str)?;
    let key = |key: &Json| key.as_str().map(str::to_owned).context("a key of a path is no text");
    let keys = json.get("path").and_then(Json::as_array).context("no list path")?;
    let keys: Vec<String> = keys.iter().map(key).collect::<anyhow::Result<_>>()?;
    let source = match json.get("source") {
        None | Some(Json::Null) => None,
        Some(place) => Some(FileSpan {
            file: text(place, "file")?.into(),
            line: number(place, "line")?,
            column: number(place, "column")?,
        }),
    };
    let sensitive = json.get("sensitive").and_then(Json::as_bool).context("no flag sensitive")?;
    Ok(PlannedLeaf { leaf: Leaf { section, path: TwinPath::new(keys) }, source, sensitive })
}

/// The one of `all` whose word stands at `name`.
fn word_of<T: Copy>(json: &Json, name: &str, all: &[T], word: fn(T) -> &'static str) -> anyhow::Result<T> {
    let text = text(json, name)?;
    all.iter().copied().find(|one| word(*one) == text).with_context(|| format!("{text:?} is no {name}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::plan::Owner;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn plan() -> PlanFile {
        let device = DeviceId::new("d1").unwrap();
        let write = |twin: TwinRef, create, patch, leaves| PlannedWrite {
            twin,
            create,
            etag: ETag::new("AAE=").unwrap(),
            patch,
            leaves,
            cause: Cause::Drift,
            seal: SealAction::Remove,
            removes: create,
        };
        let leaf = |section, keys: &[&str], line, sensitive| PlannedLeaf {
            leaf: Leaf { section, path: TwinPath::new(keys.iter().map(|key| (*key).to_owned())) },
            source: (line > 0).then(|| FileSpan { file: "a:b.yaml".into(), line, column: 3 }),
            sensitive,
        };
        let gone = leaf(Section::Tags, &["a", "beneath"], 0, false);
        let tags = MergePatch { tags: Some(object(r#"{"a":null,"b":{"c":[1.0,2]}}"#)), desired: None };
        let desired = MergePatch { tags: None, desired: Some(object(r#"{"x":"sécret"}"#)) };
        let module = TwinRef::module(device.clone(), ModuleId::new("m").unwrap());
        PlanFile {
            owner: "demo".to_owned(),
            host: "hub.example".to_owned(),
            revision: "r1".to_owned(),
            writes: vec![
                write(
                    TwinRef::device(device.clone()),
                    true,
                    tags,
                    vec![gone, leaf(Section::Tags, &["b", "c"], 7, false)],
                ),
                write(module, false, desired, vec![leaf(Section::Desired, &["x"], 8, true)]),
            ],
            removing: 1,
            updating: 1,
            fleet: 2,
            left: BTreeMap::from([(TwinRef::device(device), "held: no".to_owned())]),
        }
    }

    #[test]
    fn a_plan_comes_back_as_it_was_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        fs::write(folder.path().join("plan.json.new"), "left behind").unwrap();
        for _ in 0..2 {
            plan().write(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
            assert_eq!(PlanFile::read(&path).unwrap(), plan());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else stays");
    }

    #[test]
    fn what_is_no_plan_is_refused_in_one_sentence_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let good = plan().to_json().to_string();
        for (text, expected) in [
            ("canary".to_owned(), "is no plan: no JSON at line 1"),
            ("{}".to_owned(), "it has no formatVersion"),
            (
                good.replace(r#""formatVersion":3"#, r#""formatVersion":1"#),
                "has format 1, this version applies 3 alone",
            ),
            (
                good.replace(r#""formatVersion":3"#, r#""formatVersion":4"#),
                "has format 4, this version applies 3 alone",
            ),
            (good.replace(r#"["x"]"#, r#"["y"]"#), "properties.desired.y is no leaf of its patch"),
            (good.replace(r#"["x"]"#, "[]"), "is no leaf of its patch"),
            (good.replace(r#""drift""#, r#""whim""#), "\"whim\" is no cause"),
            (good.replace(r#""removed""#, r#""eaten""#), "\"eaten\" is no seal"),
            (good.replace("AAE=", "*"), "an etag that could not guard a write"),
            (good.replace(r#""d1""#, r#""d 1""#), "an id may not hold ' '"),
            (good.replace(r#""writes""#, r#""w""#), "no list writes"),
            (good.replace(r#"{"x":"sécret"}"#, "3"), "the patch of desired is no object"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = format!("{:#}", PlanFile::read(&path).unwrap_err());
            assert!(error.contains(expected) && !error.contains("canary"), "{text}: {error}");
        }
        assert!(
            format!("{:#}", PlanFile::read(&folder.path().join("none")).unwrap_err()).contains("cannot read the plan")
        );
    }

    #[test]
    fn a_plan_fits_one_owner_on_one_hub() {
        let scope = |owner: &str, host: &str| SealScope::new(Owner::new(owner).unwrap(), host);
        assert!(plan().check_scope(&scope("demo", "hub.example:8443")).is_ok());
        let error = plan().check_scope(&scope("prod", "hub.example")).unwrap_err().to_string();
        assert!(error.contains("owner demo, this is prod"), "{error}");
        let error = plan().check_scope(&scope("demo", "other.example")).unwrap_err().to_string();
        assert!(error.contains("hub hub.example, this is other.example"), "{error}");
    }
}
