//! All files of a source to one declared state, with duplicates and freezing (DESIGN section 2).
//!
//! Invariant: a twin or query leaves the state only when no file of the source can still mean it. What a broken
//! document declared at its last good state is kept; what has no last good state is held.

mod profiles;
mod queries;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::parse::{Declares, Identity, ParsedDocument, ParsedFile};
use crate::plan::{DeclaredState, DeclaredTwins, FileSpan, Frozen, Profile, Subtree, TwinManifest};
use crate::series::QuerySpec;
use crate::twin::TwinRef;

/// A query and where it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredQuery {
    /// What it asks for.
    pub spec: QuerySpec,
    /// Where its document begins.
    pub source: FileSpan,
}

/// What each file declared when it was last good. Start with the default; hand back what [`lower`] returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastGood {
    /// Every twin that was declared, in the memory of the state that declared it.
    twins: DeclaredTwins,
    /// The file that stands for a twin, where it is not the one its manifest is from: a document that moved and broke.
    moved: BTreeMap<TwinRef, Arc<str>>,
    files: BTreeMap<Arc<str>, GoodFile>,
    /// Every path that was ever declared sensitive.
    sensitive: BTreeSet<Subtree>,
    /// Whether all of the source could be told apart once in this process; then a part that cannot be told now, in a
    /// file that is new, is either new too or among what is remembered of other files.
    whole: bool,
}

/// One file of [`LastGood`]. A query or profile is in at most one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct GoodFile {
    queries: BTreeMap<String, Arc<DeclaredQuery>>,
    profiles: BTreeMap<String, Arc<Profile>>,
    /// Whether every document of the file could be told apart once in this process; then what cannot be told now is
    /// among what is remembered.
    complete: bool,
}

impl LastGood {
    /// Whether the last good state declared nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing = |file: &GoodFile| file.queries.is_empty() && file.profiles.is_empty();
        self.twins.is_empty() && self.files.values().all(nothing)
    }

    /// Exchanges the manifests; they are of the same twins, and in the same files.
    pub(super) fn replace(&mut self, twins: &DeclaredTwins) {
        self.twins.clone_from(twins);
    }

    /// The twins that a file declared, or that stand for a broken document of it.
    fn twins_of<'s>(&'s self, file: &'s Arc<str>) -> impl Iterator<Item = (&'s TwinRef, &'s Arc<TwinManifest>)> {
        let stands_for = |twin, manifest: &'s TwinManifest| self.moved.get(twin).unwrap_or(&manifest.source.file);
        self.twins.iter().filter(move |(twin, manifest)| stands_for(twin, manifest) == file)
    }
}

/// What [`lower`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// The twins, and what is frozen. The revision is left empty; the caller knows it.
    pub state: DeclaredState,
    /// The queries, by name.
    pub queries: Vec<DeclaredQuery>,
    /// Every problem of every file and across files, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// For the next call.
    pub last_good: LastGood,
}

/// Puts all files of a source together. `files` is every file there is, by name; `last_good` is what the previous call
/// returned. Pure: the same arguments give the same result.
#[must_use]
pub fn lower(files: &BTreeMap<Arc<str>, Arc<ParsedFile>>, last_good: &LastGood) -> Lowered {
    let mut lowering = Lowering::new(files, last_good);
    let claims = lowering.collect_claims(files);
    let twins = lowering.resolve_twins(&claims.twins);
    let queries = lowering.resolve_queries(&claims.queries);
    let profiles = lowering.resolve_profiles(&claims.profiles);
    let mut sensitive = last_good.sensitive.clone();
    sensitive.extend(files.values().flat_map(|file| &file.sensitive).cloned());
    let whole = last_good.whole || (lowering.frozen.unknown.is_empty() && !files.is_empty());
    let frozen = std::mem::take(&mut lowering.frozen);
    let mut state = DeclaredState { revision: String::new(), twins, profiles, sensitive, frozen };
    lowering.report_ties(&mut state);
    lowering.diagnostics.sort();
    Lowered {
        last_good: LastGood {
            twins: state.twins.clone(),
            moved: lowering.moved,
            files: lowering.next,
            whole,
            sensitive: state.sensitive.clone(),
        },
        state,
        queries,
        diagnostics: lowering.diagnostics,
    }
}

struct Lowering<'a> {
    /// The last good state by identity, wherever it was declared: a document may move and break at once.
    last_queries: BTreeMap<&'a str, &'a Arc<DeclaredQuery>>,
    last_profiles: BTreeMap<&'a str, &'a Arc<Profile>>,
    last: &'a LastGood,
    /// Files of which a part cannot be told: what they declared before and no document names now stays. The place is
    /// the part's.
    incomplete: BTreeMap<&'a Arc<str>, FileSpan>,
    frozen: Frozen,
    diagnostics: Vec<Diagnostic>,
    moved: BTreeMap<TwinRef, Arc<str>>,
    /// Files that are frozen whole: nothing new is taken from them.
    set_aside: BTreeSet<&'a Arc<str>>,
    next: BTreeMap<Arc<str>, GoodFile>,
}

/// Documents by what they are about.
#[derive(Default)]
struct Claims<'a> {
    /// Sorted by twin: a fleet has a million of them, most of them in order already.
    twins: Vec<TwinClaim<'a>>,
    queries: BTreeMap<&'a str, Vec<Claim<'a, DeclaredQuery>>>,
    profiles: BTreeMap<&'a str, Vec<Claim<'a, Profile>>>,
}

/// A document that is about a twin.
#[derive(Clone, Copy)]
struct TwinClaim<'a> {
    twin: &'a TwinRef,
    file: &'a ParsedFile,
    document: &'a ParsedDocument,
}

/// A document that is about a query or profile.
struct Claim<'a, T> {
    file: &'a ParsedFile,
    document: &'a ParsedDocument,
    /// What it declares; `None` when it is broken or its file is frozen.
    good: Option<Arc<T>>,
    /// The metrics' places, of a good query.
    metrics: &'a [FileSpan],
}

impl<T> Claim<'_, T> {
    fn span(&self) -> FileSpan {
        self.file.span(self.document.at)
    }

    fn places(&self) -> (FileSpan, FileSpan) {
        self.file.places(self.document)
    }
}

impl<'a> Lowering<'a> {
    fn new(files: &'a BTreeMap<Arc<str>, Arc<ParsedFile>>, last: &'a LastGood) -> Self {
        let remembered = || last.files.values();
        Self {
            last_queries: remembered()
                .flat_map(|file| &file.queries)
                .map(|(name, query)| (name.as_str(), query))
                .collect(),
            last_profiles: remembered()
                .flat_map(|file| &file.profiles)
                .map(|(name, profile)| (name.as_str(), profile))
                .collect(),
            last,
            incomplete: BTreeMap::new(),
            frozen: Frozen::default(),
            diagnostics: files.values().flat_map(|file| file.diagnostics()).cloned().collect(),
            moved: BTreeMap::new(),
            set_aside: BTreeSet::new(),
            next: BTreeMap::new(),
        }
    }

    /// Sorts every document under its identity, and notes what cannot be told.
    fn collect_claims(&mut self, files: &'a BTreeMap<Arc<str>, Arc<ParsedFile>>) -> Claims<'a> {
        let mut claims = Claims::default();
        claims.twins.reserve_exact(files.values().map(|file| file.documents.len()).sum());
        for (name, file) in files {
            let last = self.last.files.get(name);
            let was_complete = last.map_or(self.last.whole, |last| last.complete);
            let mut untold: Vec<FileSpan> = file.unparsed.iter().cloned().collect();
            for document in &file.documents {
                if let Declares::Broken(identity) = &document.content {
                    let span = file.span(document.at);
                    untold.extend((*identity == Identity::Unknown).then(|| span.clone()));
                    self.frozen.broken.insert(span);
                }
                // A file that does not parse freezes all it declared, its readable documents too. Without a last good
                // state there is nothing to freeze to, and what cannot be told holds the source anyway.
                claims.add(file, document, file.unparsed.is_some() && was_complete);
            }
            if file.unparsed.is_some() && was_complete {
                self.set_aside.insert(name);
            }
            self.frozen.broken.extend(file.unparsed.clone());
            if let Some(first) = untold.iter().min() {
                self.incomplete.insert(name, first.clone());
                if !was_complete {
                    self.frozen.unknown.extend(untold.iter().cloned());
                }
            }
            let complete = untold.is_empty() || was_complete;
            self.next.insert(name.clone(), GoodFile { complete, ..GoodFile::default() });
        }
        // Stable: of two claims of one twin the one in the first file comes first.
        claims.twins.sort_by_key(|claim| claim.twin);
        claims
    }

    fn resolve_twins(&mut self, claims: &[TwinClaim<'a>]) -> DeclaredTwins {
        let mut twins = DeclaredTwins::default();
        for same in claims.chunk_by(|one, other| one.twin == other.twin) {
            let [TwinClaim { twin, file, document }, others @ ..] = same else { continue };
            let span = || file.span(document.at);
            let good = match &document.content {
                Declares::Twin(_, manifest) if others.is_empty() && !self.set_aside.contains(file.name()) => {
                    Some(manifest)
                }
                Declares::Twin(..) | Declares::Broken(_) | Declares::Query(..) | Declares::Profile(_) => None,
            };
            match (good, self.last.twins.get(twin)) {
                (Some(good), _) => drop(twins.insert((*twin).clone(), Arc::clone(good))),
                (None, Some(last)) => {
                    self.keep_twin(twin, last, span());
                    twins.insert((*twin).clone(), Arc::clone(last));
                }
                (None, None) => {
                    self.frozen.held.insert((*twin).clone(), span());
                }
            }
            if !others.is_empty() {
                let what = if twin.module.is_none() { "device" } else { "module" };
                let places = same.iter().map(|claim| claim.file.places(claim.document));
                self.refuse_duplicates(&format!("the {what} {twin}"), places);
            }
        }
        let mut unnamed = BTreeMap::new();
        for (name, span) in self.incomplete.clone() {
            for (twin, manifest) in self.twins_remembered_for(name) {
                let is_claimed = claims.binary_search_by_key(&twin, |claim| claim.twin).is_ok();
                if !is_claimed && !unnamed.contains_key(twin) {
                    self.keep_twin(twin, manifest, span.clone());
                    unnamed.insert(twin.clone(), Arc::clone(manifest));
                }
            }
        }
        twins.extend(unnamed);
        twins
    }

    /// Notes that a twin stays as it was last good, because of the document at `span`, in whose file it is now.
    fn keep_twin(&mut self, twin: &TwinRef, manifest: &TwinManifest, span: FileSpan) {
        if manifest.source.file != span.file {
            self.moved.insert(twin.clone(), Arc::clone(&span.file));
        }
        self.frozen.kept.insert(twin.clone(), span);
    }

    /// What a part of `name` that cannot be told may mean: what the file declared, or, if it is new, what has just
    /// left any other file.
    fn twins_remembered_for(
        &self,
        name: &'a Arc<str>,
    ) -> Box<dyn Iterator<Item = (&'a TwinRef, &'a Arc<TwinManifest>)> + 'a> {
        if self.last.files.contains_key(name) {
            Box::new(self.last.twins_of(name))
        } else {
            Box::new(self.last.twins.iter())
        }
    }

    /// The same for queries and profiles.
    fn remembered_for(&self, name: &Arc<str>) -> Vec<&'a GoodFile> {
        match self.last.files.get(name) {
            Some(file) => vec![file],
            None => self.last.files.values().collect(),
        }
    }

    /// Two documents about one thing: an error at each that names another.
    /// `places` are those of the document and of its name.
    fn refuse_duplicates(&mut self, what: &str, places: impl Iterator<Item = (FileSpan, FileSpan)>) {
        let places: Vec<_> = places.collect();
        if places.len() < 2 {
            return;
        }
        for (index, (span, name_span)) in places.iter().enumerate() {
            let (_, other) = &places[usize::from(index == 0)];
            let message = format!("{what} is also declared at {other}; keep one of the two");
            self.report(name_span, "metadata.name".to_owned(), "duplicate-identity", message);
            self.frozen.broken.insert(span.clone());
        }
    }

    fn report(&mut self, span: &FileSpan, path: String, rule: &'static str, message: String) {
        let FileSpan { file, line, column } = span.clone();
        self.diagnostics.push(Diagnostic { file, line, column, severity: Severity::Error, path, rule, message });
    }
}

impl<'a> Claims<'a> {
    /// Sorts a document under its identity; nothing new is taken from one whose file is frozen.
    fn add(&mut self, file: &'a ParsedFile, document: &'a ParsedDocument, is_frozen: bool) {
        match &document.content {
            Declares::Twin(twin, _) | Declares::Broken(Identity::Twin(twin)) => {
                self.twins.push(TwinClaim { twin, file, document });
            }
            Declares::Query(query, metrics) => {
                let declared = DeclaredQuery { spec: query.spec.clone(), source: file.span(document.at) };
                let good = (!is_frozen).then(|| Arc::new(declared));
                self.queries.entry(&query.spec.name).or_default().push(Claim { file, document, good, metrics });
            }
            Declares::Profile(profile) => {
                let good = (!is_frozen).then(|| Arc::clone(profile));
                self.profiles.entry(&profile.name).or_default().push(Claim { file, document, good, metrics: &[] });
            }
            Declares::Broken(Identity::Profile(name)) => {
                self.profiles.entry(name).or_default().push(Claim { file, document, good: None, metrics: &[] });
            }
            Declares::Broken(Identity::Query(name)) => {
                self.queries.entry(name).or_default().push(Claim { file, document, good: None, metrics: &[] });
            }
            Declares::Broken(Identity::Foreign | Identity::Unknown) => {}
        }
    }
}
