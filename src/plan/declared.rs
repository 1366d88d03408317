//! What Git says about the fleet, and about one twin.
//!
//! Invariant: a [`DeclaredState`] is complete or says what it lacks. What could not be read is in [`Frozen`], never
//! simply missing, because a missing twin means "its manifest is gone".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::twin::{Object, TwinRef};

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

/// One twin's own manifest. A null leaf in a section means: ours, and must not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinManifest {
    /// `spec.tags`.
    pub tags: Object,
    /// `spec.properties.desired`.
    pub desired: Object,
    /// `spec.create`: register the device when a point read says that it does not exist.
    pub create: bool,
    /// `spec.removalPolicy`.
    pub removal_policy: RemovalPolicy,
    /// `metadata.labels`; never sent to the hub.
    pub labels: BTreeMap<String, String>,
    /// Where the document begins.
    pub source: FileSpan,
}

/// The same values for many twins. The slot for `kind: TwinProfile`: no manifest makes one yet, and [`declare`] is
/// the only place that will have to know them.
///
/// [`declare`]: super::declare
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {}

/// What the source could not read, and what that stops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frozen {
    /// Twins that keep their last good manifest (still in [`DeclaredState::twins`]) because the present one is broken.
    pub kept: BTreeMap<TwinRef, FileSpan>,
    /// Twins whose broken manifest has no last good state in this process: nothing may be written to them.
    pub held: BTreeMap<TwinRef, FileSpan>,
    /// Documents whose identity cannot be read and that have no last good state: every twin of the source is held.
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
    pub twins: BTreeMap<TwinRef, Arc<TwinManifest>>,
    /// Profiles, highest priority first.
    pub profiles: Vec<Profile>,
    /// What could not be read.
    pub frozen: Frozen,
}
