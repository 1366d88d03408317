//! Declared state of the fleet to what is declared for one twin, leaf by leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::condition::AppliedTwin;
use super::layers::Layers;
use super::{DeclaredHash, DeclaredState, FileSpan, HeldReason, Profile, RemovalPolicy, SealScope, TwinManifest};
use crate::twin::{Object, Path, Section, Twin, TwinRef, Value};

/// The place of a leaf in a twin. Sorts by section, then path: the order of everything printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf {
    /// The section.
    pub section: Section,
    /// Where in it; never empty.
    pub path: Path,
}

impl Leaf {
    /// Whether both are one place, or one lies above the other.
    #[must_use]
    pub fn is_related_to(&self, other: &Self) -> bool {
        self.section == other.section && (self.path.covers(&other.path) || other.path.covers(&self.path))
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section.as_str())?;
        if self.path == Path::root() { Ok(()) } else { write!(f, ".{}", self.path) }
    }
}

/// What is declared of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredLeaf {
    /// A scalar, a whole array, `{}` (any object satisfies it), or null (must not exist).
    pub value: Value,
    /// Set when absent, never corrected.
    pub initial_only: bool,
    /// Who set it: the place of the leaf in the twin's manifest or in a profile.
    pub source: FileSpan,
}

/// What is declared for one twin: its own manifest with the profiles that select it, as leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Each leaf with who set it.
    pub leaves: BTreeMap<Leaf, DeclaredLeaf>,
    /// Whether to register the device when a point read says that it does not exist.
    pub create: bool,
    /// What happens when the manifest goes. For a twin without one of its own `Clear`: what profiles set goes with
    /// them.
    pub removal_policy: RemovalPolicy,
    /// Whether the twin has a manifest of its own.
    pub named: bool,
    /// The twin's own manifest, or else its highest profile.
    pub source: FileSpan,
    /// Leaves of profiles whose condition does not hold for the live twin now, and what becomes of them when they are
    /// ours: the twin left by a change of its own.
    pub left: BTreeMap<Leaf, RemovalPolicy>,
    /// The profiles whose condition holds for the live twin, by name.
    pub joined: BTreeSet<String>,
}

impl Declared {
    /// Whether `leaf`, which had `value`, goes by what is declared here. An object that was to be there, empty or not,
    /// stays when something is set beneath it.
    fn drops(&self, leaf: &Leaf, value: &Value) -> bool {
        let beneath = |below: &Leaf| below.section == leaf.section && leaf.path.covers(&below.path);
        let mut near = self.leaves.range(leaf.clone()..).take_while(|(below, _)| beneath(below));
        !near.any(|(below, want)| want.value != Value::Null && (below == leaf || value.as_object().is_some()))
    }

    /// Whether `leaf` is declared, or stands above or below a declared leaf: so it could stand in that one's way.
    #[must_use]
    pub fn concerns(&self, leaf: &Leaf) -> bool {
        let related = |other: &Leaf| {
            other.section == leaf.section && (other.path.covers(&leaf.path) || leaf.path.covers(&other.path))
        };
        self.leaves.keys().any(related)
    }
}

/// Two profiles of one priority that want different values at one path, or one above the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tie {
    /// The priority of both.
    pub priority: i64,
    /// The first profile's name, leaf and its place.
    pub one: (String, Leaf, FileSpan),
    /// The other's.
    pub other: (String, Leaf, FileSpan),
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((one, leaf, place), (other, _, other_place)) = (&self.one, &self.other);
        write!(
            f,
            "the profiles {one} ({place}) and {other} ({other_place}) disagree on {leaf} with one priority, {}",
            self.priority
        )
    }
}

/// What the declared state says about one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// These leaves.
    Declared(Declared),
    /// The last good leaves: the manifest at this place is broken now.
    Kept(Declared, FileSpan),
    /// The manifest at this place is broken and was never read well: nothing may be written.
    Broken(FileSpan),
    /// A document that may concern any twin cannot be read: nothing may be written.
    Incomplete(FileSpan),
    /// Profiles contradict one another: nothing may be written.
    Tied(Box<Tie>),
    /// Nothing any more: no manifest names the twin, and it has left the conditions that would set these leaves by a
    /// change of its own. The policy says what becomes of those that are ours.
    Left(BTreeMap<Leaf, RemovalPolicy>),
    /// Nothing: no manifest names the twin.
    Absent,
}

impl Declaration {
    /// The leaves to bring about, if they are known.
    #[must_use]
    pub fn declared(&self) -> Option<&Declared> {
        match self {
            Self::Declared(declared) | Self::Kept(declared, _) => Some(declared),
            Self::Broken(_) | Self::Incomplete(_) | Self::Tied(_) | Self::Left(_) | Self::Absent => None,
        }
    }

    /// The leaves that the twin left by itself, where there can be any.
    pub(super) fn left_mut(&mut self) -> Option<&mut BTreeMap<Leaf, RemovalPolicy>> {
        match self {
            Self::Declared(declared) | Self::Kept(declared, _) => Some(&mut declared.left),
            Self::Left(left) => Some(left),
            Self::Broken(_) | Self::Incomplete(_) | Self::Tied(_) | Self::Absent => None,
        }
    }

    /// Whether the twin would lose a leaf, or its manifest, if `new` took the place of this.
    #[must_use]
    pub fn loses_to(&self, new: &Self) -> bool {
        let Some(old) = self.declared() else { return false };
        match new {
            Self::Left(_) | Self::Absent => true,
            Self::Broken(_) | Self::Incomplete(_) | Self::Tied(_) => false,
            Self::Declared(new) | Self::Kept(new, _) => {
                old.leaves.iter().any(|(leaf, want)| want.value != Value::Null && new.drops(leaf, &want.value))
            }
        }
    }

    /// Why nothing may be written whatever the live twin is, if so.
    #[must_use]
    pub fn hold(&self) -> Option<HeldReason> {
        match self {
            Self::Broken(place) => Some(HeldReason::ManifestBroken(place.clone())),
            Self::Incomplete(place) => Some(HeldReason::SourceIncomplete(place.clone())),
            Self::Tied(tie) => Some(HeldReason::ProfileTie(tie.clone())),
            Self::Declared(_) | Self::Kept(..) | Self::Left(_) | Self::Absent => None,
        }
    }
}

/// Twins by the name of the profile that query rows put them under.
pub type Members = BTreeMap<String, BTreeSet<TwinRef>>;

/// Who is in a profile with a condition.
#[derive(Clone, Copy)]
enum Membership<'a> {
    /// Nobody: only what does not depend on live twins is asked for.
    Unconditional,
    /// Whoever the condition holds for.
    Live(&'a Twin),
    /// Whoever query rows name. They lag, so this only presumes.
    Rows(&'a Members),
}

/// What `state` declares for `twin`. `live` is the twin just read, or `None` for the part that does not depend on it.
#[must_use]
pub fn declare(state: &DeclaredState, twin: &TwinRef, live: Option<&Twin>) -> Declaration {
    debug_assert!(live.is_none_or(|live| live.twin_ref == *twin), "the live twin is the one asked for");
    declare_with(state, twin, live.map_or(Membership::Unconditional, Membership::Live))
}

/// What `state` presumably declares for `twin`, with the conditions as query rows saw them: never the base of a write.
#[must_use]
pub fn declare_presumed(state: &DeclaredState, twin: &TwinRef, members: &Members) -> Declaration {
    declare_with(state, twin, Membership::Rows(members))
}

/// The hash of what `manifest` and the profiles without a condition declare for `twin`, whatever of them is frozen;
/// `None` when the profiles contradict one another.
pub(super) fn unconditional_hash(
    state: &DeclaredState,
    scope: &SealScope,
    twin: &TwinRef,
    manifest: &TwinManifest,
) -> Option<DeclaredHash> {
    let profiles = state.profiles.iter().map(AsRef::as_ref);
    let mine = |profile: &&Profile| profile.selector.condition.is_none() && profile.selects(twin, Some(manifest));
    let leaves = merge(Some(manifest), &profiles.filter(mine).collect::<Vec<_>>()).ok()?;
    Some(DeclaredHash::of_leaves(scope, twin, manifest.removal_policy, &leaves))
}

fn declare_with(state: &DeclaredState, twin: &TwinRef, membership: Membership<'_>) -> Declaration {
    if let Some(place) = state.frozen.held.get(twin) {
        return Declaration::Broken(place.clone());
    }
    if let Some(place) = state.frozen.unknown.first() {
        return Declaration::Incomplete(place.clone());
    }
    let manifest = state.twins.get(twin).map(AsRef::as_ref);
    let profiles = state.profiles.iter().map(AsRef::as_ref).filter(|profile| profile.selects(twin, manifest));
    let (members, left) = match split(manifest, profiles.collect(), twin, membership) {
        Ok(split) => split,
        Err(tie) => return Declaration::Tied(tie),
    };
    let Some(source) = manifest.map(|m| &m.source).or_else(|| members.first().map(|profile| &profile.source)) else {
        let left = left_leaves(&left, None, &BTreeMap::new());
        return if left.is_empty() { Declaration::Absent } else { Declaration::Left(left) };
    };
    let leaves = match merge(manifest, &members) {
        Ok(leaves) => leaves,
        Err(tie) => return Declaration::Tied(tie),
    };
    let declared = Declared {
        left: left_leaves(&left, manifest, &leaves),
        leaves,
        create: manifest.is_some_and(|manifest| manifest.create),
        removal_policy: manifest.map_or(RemovalPolicy::Clear, |manifest| manifest.removal_policy),
        named: manifest.is_some(),
        joined: joined(&members),
        source: source.clone(),
    };
    let kept_profile = || members.iter().chain(&left).find_map(|profile| state.frozen.kept_profiles.get(&profile.name));
    match state.frozen.kept.get(twin).or_else(kept_profile) {
        Some(place) => Declaration::Kept(declared, place.clone()),
        None => Declaration::Declared(declared),
    }
}

/// Profiles the twin is in, and those whose condition it fails.
type Split<'a> = (Vec<&'a Profile>, Vec<&'a Profile>);

/// Profiles that the twin is in, and those whose condition does not hold for it. Both highest priority first.
fn split<'a>(
    manifest: Option<&'a TwinManifest>,
    profiles: Vec<&'a Profile>,
    twin: &TwinRef,
    membership: Membership<'_>,
) -> Result<Split<'a>, Box<Tie>> {
    if profiles.iter().all(|profile| profile.selector.condition.is_none()) {
        return Ok((profiles, Vec::new()));
    }
    let unconditional: Vec<&Profile> =
        profiles.iter().copied().filter(|profile| profile.selector.condition.is_none()).collect();
    match membership {
        Membership::Unconditional => Ok((unconditional, Vec::new())),
        Membership::Rows(members) => Ok(profiles.into_iter().partition(|profile| {
            let rows = members.get(&profile.name);
            profile.selector.condition.is_none() || rows.is_some_and(|rows| rows.contains(twin))
        })),
        Membership::Live(live) => {
            let row = AppliedTwin::new(live, &merge(manifest, &unconditional)?);
            let holds = |profile: &&Profile| profile.selector.condition.as_ref().is_none_or(|it| it.holds(&row));
            Ok(profiles.into_iter().partition(holds))
        }
    }
}

fn merge(manifest: Option<&TwinManifest>, profiles: &[&Profile]) -> Result<BTreeMap<Leaf, DeclaredLeaf>, Box<Tie>> {
    let mut layers = Layers::default();
    if let Some(manifest) = manifest {
        layers.add_manifest(manifest);
    }
    for profile in profiles {
        layers.add_profile(profile)?;
    }
    Ok(layers.finish())
}

/// The names of those with a condition.
fn joined(members: &[&Profile]) -> BTreeSet<String> {
    let conditional = members.iter().filter(|profile| profile.selector.condition.is_some());
    conditional.map(|profile| profile.name.clone()).collect()
}

/// The leaves that the profiles in `left` would set, with what becomes of them: as the profile says, else as the
/// twin's own manifest does.
fn left_leaves(
    left: &[&Profile],
    manifest: Option<&TwinManifest>,
    leaves: &BTreeMap<Leaf, DeclaredLeaf>,
) -> BTreeMap<Leaf, RemovalPolicy> {
    let mut found = BTreeMap::new();
    for profile in left {
        let inherited = manifest.map(|manifest| manifest.removal_policy);
        let policy = profile.removal_policy.or(inherited).unwrap_or_default();
        for (leaf, ..) in profile.wanted.leaves(&profile.source) {
            if !leaves.contains_key(&leaf) {
                found.entry(leaf).or_insert(policy);
            }
        }
    }
    found
}

/// The leaves beneath `object`, in order, each with its path from there.
#[must_use]
pub fn leaves_of(object: &Object) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    walk(&Path::root(), object, &mut found);
    found
}

fn walk<'a>(above: &Path, object: &'a Object, found: &mut Vec<(Path, &'a Value)>) {
    for (key, value) in object {
        let path = above.child(key);
        match value {
            Value::Object(inner) if !inner.is_empty() => walk(&path, inner, found),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                found.push((path, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{TwinManifest, Wanted};
    use crate::twin::DeviceId;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn place(line: usize) -> FileSpan {
        FileSpan { file: "fleet.yaml".into(), line, column: 1 }
    }

    fn twin(id: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(id).unwrap())
    }

    fn state() -> DeclaredState {
        let manifest = TwinManifest {
            wanted: Wanted {
                tags: object(r#"{"location":{"plant":"R","none":{}},"gone":null}"#),
                desired: object(r#"{"list":[{"a":1}]}"#),
                places: [(2, 1), (3, 1), (4, 1), (5, 9)].into(),
                ..Wanted::default()
            }
            .into(),
            create: true,
            removal_policy: RemovalPolicy::Clear,
            ..TwinManifest::empty(place(1))
        };
        DeclaredState { twins: [(twin("a"), Arc::new(manifest))].into(), ..DeclaredState::default() }
    }

    #[test]
    fn leaves_are_scalars_whole_arrays_nulls_and_empty_objects() {
        let Declaration::Declared(declared) = declare(&state(), &twin("a"), None) else { panic!("declared") };
        let leaves: Vec<String> = declared
            .leaves
            .iter()
            .map(|(leaf, declared)| format!("{leaf}={} {}", declared.value, declared.source))
            .collect();
        assert_eq!(
            leaves,
            [
                "tags.gone=null fleet.yaml:2:1",
                "tags.location.none={} fleet.yaml:3:1",
                "tags.location.plant=\"R\" fleet.yaml:4:1",
                "properties.desired.list=[{\"a\":1}] fleet.yaml:5:9"
            ]
        );
        assert_eq!(declare(&state(), &twin("b"), None), Declaration::Absent);
    }

    #[test]
    fn what_could_not_be_read_is_never_absent() {
        let mut frozen = state();
        frozen.frozen.kept.insert(twin("a"), place(7));
        assert!(matches!(declare(&frozen, &twin("a"), None), Declaration::Kept(_, at) if at == place(7)));
        frozen.frozen.held.insert(twin("b"), place(8));
        assert_eq!(declare(&frozen, &twin("b"), None), Declaration::Broken(place(8)));
        frozen.frozen.unknown.insert(place(9));
        assert_eq!(declare(&frozen, &twin("a"), None), Declaration::Incomplete(place(9)));
        assert_eq!(declare(&frozen, &twin("c"), None), Declaration::Incomplete(place(9)));
    }
}
