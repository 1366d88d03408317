//! What Git says about the fleet, and about one twin.
//!
//! Invariant: a [`DeclaredState`] is complete or says what it lacks. What could not be read is in [`Frozen`], never
//! simply missing, because a missing twin means "its manifest is gone".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::selector::Selector;
use super::{Labels, LiveCondition, PackedWanted, Subtree, Wanted};
use crate::twin::{TwinMap, TwinRef};

/// A place in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileSpan {
    /// The file, relative to the root of its source.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl std::fmt::Display for FileSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What happens to the twin when its manifest goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RemovalPolicy {
    /// The values stay, the seal goes.
    #[default]
    Orphan,
    /// The leaves we own go, and the seal.
    Clear,
}

impl RemovalPolicy {
    /// The word manifests use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Clear => "clear",
        }
    }
}

/// Why a twin is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspend {
    /// The annotation's text.
    pub reason: String,
    /// When it ends, in seconds since 1970-01-01T00:00:00Z, with the text it was written as; `None` for no end.
    pub until: Option<(i64, String)>,
}

/// One twin's own manifest, in as little memory as may be: a fleet has a million of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinManifest {
    /// What it wants in the twin; unpack it where that is asked for.
    pub wanted: PackedWanted,
    /// `spec.create`: register the device when a point read says that it does not exist.
    pub create: bool,
    /// `spec.removalPolicy`.
    pub removal_policy: RemovalPolicy,
    /// `metadata.labels`; never sent to the hub.
    pub labels: Labels,
    /// The annotations `geminid.dev/suspend` and `geminid.dev/suspend-until`.
    pub suspend: Option<Box<Suspend>>,
    /// Where the document begins.
    pub source: FileSpan,
}

impl TwinManifest {
    /// A manifest that declares nothing but the twin.
    #[must_use]
    pub fn empty(source: FileSpan) -> Self {
        Self {
            wanted: PackedWanted::default(),
            create: false,
            removal_policy: RemovalPolicy::default(),
            labels: Labels::default(),
            suspend: None,
            source,
        }
    }
}

/// Each twin's own manifest, by twin.
pub type DeclaredTwins = TwinMap<Arc<TwinManifest>>;

/// Whose twins a profile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProfileTarget {
    /// Device twins.
    Devices,
    /// Module twins.
    Modules,
}

impl ProfileTarget {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Devices, Self::Modules];

    /// The word manifests use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Modules => "modules",
        }
    }

    /// What `twin` is.
    #[must_use]
    pub const fn of(twin: &TwinRef) -> Self {
        if twin.module.is_none() { Self::Devices } else { Self::Modules }
    }
}

/// The same values for many twins: `kind: TwinProfile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `metadata.name`.
    pub name: String,
    /// `spec.target`.
    pub target: ProfileTarget,
    /// `spec.priority`: a higher one takes a path with all above and below it.
    pub priority: i64,
    /// `spec.selector`.
    pub selector: Selector,
    /// What happens to the values of a twin that leaves `where` by a change of its own; `None` leaves it to the
    /// twin's manifest.
    pub removal_policy: Option<RemovalPolicy>,
    /// What it wants in the twins.
    pub wanted: Wanted,
    /// Where the document begins.
    pub source: FileSpan,
}

impl Profile {
    /// Whether the profile is for `twin`, as far as that does not depend on the live twin.
    #[must_use]
    pub fn selects(&self, twin: &TwinRef, manifest: Option<&TwinManifest>) -> bool {
        self.target == ProfileTarget::of(twin) && self.selector.matches(twin, manifest)
    }
}

/// What the source could not read, and what that stops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frozen {
    /// Twins that keep their last good manifest (still in [`DeclaredState::twins`]) because the present one is broken.
    pub kept: BTreeMap<TwinRef, FileSpan>,
    /// Twins whose broken manifest has no last good state in this process: nothing may be written to them.
    pub held: BTreeMap<TwinRef, FileSpan>,
    /// Profiles that keep their last good document (still in [`DeclaredState::profiles`]) because the present one is
    /// broken, by name.
    pub kept_profiles: BTreeMap<String, FileSpan>,
    /// Documents whose identity cannot be read, and profiles, that have no last good state: every twin of the source is held.
    pub unknown: BTreeSet<FileSpan>,
    /// Files or documents that are broken at all: while there is one, nothing of this source is removed.
    pub broken: BTreeSet<FileSpan>,
}

impl Frozen {
    /// Whether it is known of every twin what is declared for it, if only by its last good manifest.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        self.held.is_empty() && self.unknown.is_empty()
    }

    /// Whether removals must wait for the source to be whole again.
    #[must_use]
    pub fn blocks_removals(&self) -> bool {
        !self.broken.is_empty()
    }
}

/// Everything one source declares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeclaredState {
    /// Link target's base name, or a content hash. Empty before the first load.
    pub revision: String,
    /// Each twin's own manifest.
    pub twins: DeclaredTwins,
    /// Profiles, highest priority first, then by name.
    pub profiles: Vec<Arc<Profile>>,
    /// Every path that is, or in this process ever was, declared sensitive for any twin: what is declared no more must
    /// not be shown either.
    pub sensitive: BTreeSet<Subtree>,
    /// What could not be read.
    pub frozen: Frozen,
}

impl DeclaredState {
    /// Why the twin is left alone at `unix_now` (seconds since 1970), if its manifest says so.
    #[must_use]
    pub fn suspension(&self, twin: &TwinRef, unix_now: i64) -> Option<&Suspend> {
        let suspend = self.twins.get(twin)?.suspend.as_deref()?;
        suspend.until.as_ref().is_none_or(|(until, _)| *until > unix_now).then_some(suspend)
    }

    /// The profiles with a condition on the live twin.
    pub fn conditional(&self) -> impl Iterator<Item = (&Arc<Profile>, &LiveCondition)> {
        self.profiles.iter().filter_map(|profile| Some((profile, profile.selector.condition.as_ref()?)))
    }
}
