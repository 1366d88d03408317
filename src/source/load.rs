//! One load of a source: a whole revision, parsed and lowered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::beneath::{EntryKind, Folder, is_gone};
use super::known::{Fresh, Hash, Known, read_all};
use super::layout::Layout;
use super::read::{Bounds, FileReader, Listing, ReadError, is_hidden, is_manifest, list};
use super::watch::Hint;
use crate::manifest::{
    DeclaredQuery, Diagnostic, LastGood, ManifestCounts, ParsedFile, Rules, Severity, amend, check_pages, lower,
};
use crate::plan::DeclaredState;

/// Readings of one load, when the folder changes meanwhile.
const ATTEMPTS_MAX: usize = 5;
/// Hex digits of a content hash used as a revision.
const REVISION_DIGITS: usize = 12;

/// One revision of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The base name of the last link's target; in a folder without links, or when the content behind a link changed
    /// in place, 12 hex digits of a content hash (appended to the name after a `+`).
    pub revision: String,
    /// Every twin declared, and what is frozen; carries the same revision.
    pub state: Arc<DeclaredState>,
    /// Every query declared, by name.
    pub queries: Arc<Vec<DeclaredQuery>>,
    /// How many manifests there are.
    pub counts: ManifestCounts,
    /// Every problem, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Manifest files there are.
    pub files: usize,
    /// Those of them that had to be parsed; the others are known from an earlier load.
    pub parsed: usize,
}

/// Why a source could not be loaded; the last good state stays. The text reads after "failed to load manifests".
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The root, or a folder beneath it, cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        error: std::io::Error,
    },
    /// The folder changed under each of several readings.
    #[error("{} kept changing while it was read", .0.display())]
    Unsteady(PathBuf),
    /// No manifest file is left of those there were. An intended empty fleet keeps one file, if only with a comment.
    #[error("{} has no manifest files any more; leave one with a comment if that is meant", .0.display())]
    Empty(PathBuf),
    /// More files, bytes or levels than a source may have.
    #[error("{0}")]
    Bound(String),
}

impl LoadError {
    /// The kind of error, as label of metrics and field of logs.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Unsteady(_) => "unsteady",
            Self::Empty(_) => "empty",
            Self::Bound(_) => "bound",
        }
    }
}

/// Loads a source again and again; remembers what was good and what was parsed.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    bounds: Bounds,
    known: Known,
    last_good: LastGood,
    /// The last revision a link named, and the content it had first.
    link_content: Option<(String, Hash)>,
    /// What the last load found; `None` before the first, and after one that failed.
    last: Option<Last>,
}

/// What a nominated entry is compared with.
#[derive(Debug)]
struct Last {
    layout: Layout,
    /// Every folder, by its path relative to the root.
    folders: BTreeSet<PathBuf>,
    /// Whether a link stands in the tree: then an entry may be read under several names.
    has_links: bool,
    snapshot: Snapshot,
}

impl Loader {
    /// A loader of the folder `root`. Nothing is read yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self::with_bounds(root, Bounds::DEFAULT)
    }

    /// The same, for the manifests of a hub with rules of its own.
    #[must_use]
    pub fn within(mut self, rules: Rules) -> Self {
        self.known.rules = Arc::new(rules);
        self
    }

    fn with_bounds(root: PathBuf, bounds: Bounds) -> Self {
        Self { root, bounds, known: Known::default(), last_good: LastGood::default(), link_content: None, last: None }
    }

    /// Reads the whole source. Blocks; files whose content did not change are not parsed again. A file that cannot be
    /// read or parsed is a diagnostic, and freezes what it declared.
    ///
    /// # Errors
    /// [`LoadError`] when the source as a whole cannot be read, or is suddenly empty. Then nothing of what this loader
    /// remembers changes. A source that was empty from the start is an empty state, not an error.
    pub fn load(&mut self) -> Result<Snapshot, LoadError> {
        self.last = None;
        let (layout, listing, fresh) = self.read_steadily()?;
        if fresh.is_empty() && !self.known.files.is_empty() {
            return Err(LoadError::Empty(self.root.clone()));
        }
        let parsed = fresh.iter().filter(|fresh| fresh.is_new).count();
        self.known = Known::of(fresh, &self.known);
        let repeated = listing.repeated.iter().map(|(name, other)| repeated(name, other)).collect();
        let snapshot = self.lower(&layout, repeated, parsed);
        let has_links = listing.has_links;
        self.last = Some(Last { layout, folders: listing.into_folders(), has_links, snapshot: snapshot.clone() });
        Ok(snapshot)
    }

    /// Brings the last revision up to date with what `hint` names: as [`Self::load`], but where the hint names files
    /// of a plain folder, only these are read. What else changed meanwhile waits for its own hint, or for a load.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&mut self, hint: &Hint) -> Result<Snapshot, LoadError> {
        let Hint::Entries(entries) = hint else { return self.load() };
        let Some(fresh) = self.read_nominated(entries) else { return self.load() };
        let Some(last) = self.last.take() else { return self.load() };
        let mut changes = Vec::new();
        for fresh in fresh {
            if self.known.hash(&fresh.name) != Some(&fresh.hash) {
                let before = self.known.put(&fresh);
                changes.push((fresh, before));
            }
        }
        let parsed = changes.len();
        let snapshot = match amended(&changes, &last.snapshot.state, &mut self.last_good) {
            Some(mut state) => {
                let revision = self.revision(&last.layout);
                state.revision.clone_from(&revision);
                Snapshot {
                    revision,
                    state: Arc::new(state),
                    files: self.known.files.len(),
                    parsed,
                    ..last.snapshot.clone()
                }
            }
            None if changes.is_empty() => Snapshot { parsed, ..last.snapshot.clone() },
            None => self.lower(&last.layout, Vec::new(), parsed),
        };
        self.last = Some(Last { snapshot: snapshot.clone(), ..last });
        Ok(snapshot)
    }

    /// Puts all that is known together.
    fn lower(&mut self, layout: &Layout, mut diagnostics: Vec<Diagnostic>, parsed: usize) -> Snapshot {
        let lowered = lower(&self.known.files, &self.last_good);
        let revision = self.revision(layout);
        let mut state = lowered.state;
        state.revision.clone_from(&revision);
        diagnostics.extend(lowered.diagnostics);
        let pages = self.known.rules.pages.as_ref();
        diagnostics.extend(pages.and_then(|pages| check_pages(&lowered.queries, pages)));
        diagnostics.sort();
        self.last_good = lowered.last_good;
        Snapshot {
            revision,
            counts: ManifestCounts::of(&state, &lowered.queries),
            state: Arc::new(state),
            queries: Arc::new(lowered.queries),
            diagnostics,
            files: self.known.files.len(),
            parsed,
        }
    }

    /// Reads until the links lead to the same place before and after.
    fn read_steadily(&self) -> Result<(Layout, Listing, Vec<Fresh>), LoadError> {
        let mut last_error = LoadError::Unsteady(self.root.clone());
        for _ in 0..ATTEMPTS_MAX {
            let layout = match resolve(&self.root) {
                Ok(layout) => layout,
                // A flip may have taken away what a link just led to; a root that is gone is so the next time too.
                Err(error) => {
                    last_error = error;
                    continue;
                }
            };
            let read = list(&layout, self.bounds).and_then(|listing| {
                let fresh = read_all(&listing, &self.known, self.bounds)?;
                listing.check_steady()?;
                Ok((listing, fresh))
            });
            let is_same = resolve(&self.root).is_ok_and(|after| after == layout);
            match read {
                Ok((listing, fresh)) if is_same => return Ok((layout, listing, fresh)),
                Err(ReadError::Folder(path, error)) if is_same => return Err(LoadError::Unreadable { path, error }),
                Err(ReadError::Bound(message)) if is_same => return Err(LoadError::Bound(message)),
                Ok(_) | Err(_) => last_error = LoadError::Unsteady(self.root.clone()),
            }
        }
        Err(last_error)
    }

    /// The nominated files as they are now, if they are all there is to look at.
    fn read_nominated(&self, entries: &BTreeSet<PathBuf>) -> Option<Vec<Fresh>> {
        let last = self.last.as_ref().filter(|last| !last.has_links)?;
        let is_same = || Layout::resolve(&self.root).is_ok_and(|layout| layout == last.layout);
        if !is_same() {
            return None;
        }
        let root = Folder::open(&last.layout.root).ok()?;
        let total = AtomicU64::new(0);
        let mut reader = FileReader::new(self.bounds, &total);
        let mut fresh = Vec::new();
        for entry in entries {
            match nominated(&root, &last.layout.root, entry, &last.folders, &self.known) {
                Nominated::Nothing => {}
                Nominated::Unclear => return None,
                Nominated::File(folder, name, shown) => {
                    let content = reader.read(&root.folder(folder).ok()?, name).ok()?;
                    fresh.push(Fresh::of(shown, content, &self.known));
                }
            }
        }
        let added = fresh.iter().filter(|fresh| self.known.hash(&fresh.name).is_none()).count();
        (is_same() && self.known.files.len() + added <= self.bounds.files).then_some(fresh)
    }

    fn revision(&mut self, layout: &Layout) -> String {
        let content = self.known.content;
        let hex: String = content.iter().map(|byte| format!("{byte:02x}")).take(REVISION_DIGITS / 2).collect();
        let Some(name) = layout.link_revision() else {
            self.link_content = None;
            return hex;
        };
        match &self.link_content {
            // The link did not flip and the content changed: the name alone would hide that.
            Some((last, first)) if *last == name && *first != content => format!("{name}+{hex}"),
            Some((last, _)) if *last == name => name,
            Some(_) | None => {
                self.link_content = Some((name.clone(), content));
                name
            }
        }
    }
}

/// What an entry named by a hint is.
enum Nominated<'p> {
    /// Nothing that could be a manifest.
    Nothing,
    /// A regular manifest file: its folder, its name in it, and the name it goes by.
    File(&'p Path, &'p OsStr, Arc<str>),
    /// Something that only a look at the whole tree can tell: a folder, a link, a manifest that is gone.
    Unclear,
}

fn nominated<'p>(
    root: &Folder,
    root_path: &Path,
    entry: &'p Path,
    folders: &BTreeSet<PathBuf>,
    known: &Known,
) -> Nominated<'p> {
    // The folders of the links on the way are watched too, and what else happens there is none of ours.
    let Ok(relative) = entry.strip_prefix(root_path) else { return Nominated::Nothing };
    if relative.iter().any(is_hidden) {
        return Nominated::Nothing;
    }
    let Some((folder, name)) = relative.parent().zip(relative.file_name()) else { return Nominated::Unclear };
    if folders.contains(relative) || !folders.contains(folder) {
        return Nominated::Unclear;
    }
    let shown = relative.to_str().filter(|_| is_manifest(name));
    let kind = root.folder(folder).and_then(|folder| folder.kind_of(name));
    match (kind, shown) {
        (Ok(EntryKind::File), Some(shown)) => Nominated::File(folder, name, known.name(shown)),
        (Ok(EntryKind::File), None) if !is_manifest(name) => Nominated::Nothing,
        (Err(error), _) if is_gone(&error) && shown.is_none_or(|shown| !known.files.contains_key(shown)) => {
            Nominated::Nothing
        }
        (Ok(_) | Err(_), _) => Nominated::Unclear,
    }
}

/// The state after `changes`, when they change the values of twins alone.
fn amended(
    changes: &[(Fresh, Option<Arc<ParsedFile>>)],
    state: &DeclaredState,
    last_good: &mut LastGood,
) -> Option<DeclaredState> {
    if changes.is_empty() {
        return None;
    }
    let pairs: Option<Vec<(&ParsedFile, &ParsedFile)>> =
        changes.iter().map(|(after, before)| Some((before.as_deref()?, after.file.as_ref()))).collect();
    amend(&pairs?, state, last_good)
}

fn resolve(root: &Path) -> Result<Layout, LoadError> {
    Layout::resolve(root).map_err(|error| LoadError::Unreadable { path: root.to_owned(), error })
}

fn repeated(name: &str, other: &str) -> Diagnostic {
    Diagnostic {
        file: name.into(),
        line: 0,
        column: 0,
        severity: Severity::Warning,
        path: String::new(),
        rule: "read-twice",
        message: format!("leads to what is read as {other} already and is skipped; remove the link"),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
