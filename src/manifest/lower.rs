//! All files of a source to one declared state, with duplicates and freezing (DESIGN section 2).
//!
//! Invariant: a twin or query leaves the state only when no file of the source can still mean it. What a broken
//! document declared at its last good state is kept; what has no last good state is held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::metric_schema::{collision_message, may_share_name};
use super::parse::{Declares, Identity, ParsedDocument, ParsedFile};
use crate::plan::{
    DeclaredState, FileSpan, Frozen, Leaf, LiveCondition, Profile, Subtree, Tie, TwinManifest, find_ties,
};
use crate::series::{MetricSpec, QuerySpec};
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
    files: BTreeMap<Arc<str>, GoodFile>,
    /// Every path that was ever declared sensitive.
    sensitive: BTreeSet<Subtree>,
    /// Whether all of the source could be told apart once in this process; then a part that cannot be told now, in a
    /// file that is new, is either new too or among what is remembered of other files.
    whole: bool,
}

/// One file of [`LastGood`]. A twin or query is in at most one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct GoodFile {
    twins: BTreeMap<TwinRef, Arc<TwinManifest>>,
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
        let nothing = |file: &GoodFile| file.twins.is_empty() && file.queries.is_empty() && file.profiles.is_empty();
        self.files.values().all(nothing)
    }

    /// Exchanges the manifest of a twin that the last good state of its file holds.
    pub(super) fn replace(&mut self, twin: &TwinRef, manifest: &Arc<TwinManifest>) {
        let file = self.files.get_mut(&manifest.source.file);
        if let Some(known) = file.and_then(|file| file.twins.get_mut(twin)) {
            *known = Arc::clone(manifest);
        }
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
    let wanted = twins.values().map(|manifest| &manifest.wanted).chain(profiles.iter().map(|profile| &profile.wanted));
    sensitive.extend(wanted.flat_map(|wanted| &wanted.sensitive).cloned());
    let whole = last_good.whole || (lowering.frozen.unknown.is_empty() && !files.is_empty());
    let frozen = std::mem::take(&mut lowering.frozen);
    let mut state = DeclaredState { revision: String::new(), twins, profiles, sensitive, frozen };
    lowering.report_ties(&mut state);
    lowering.diagnostics.sort();
    Lowered {
        last_good: LastGood { files: lowering.next, whole, sensitive: state.sensitive.clone() },
        state,
        queries,
        diagnostics: lowering.diagnostics,
    }
}

struct Lowering<'a> {
    /// The last good state by identity, wherever it was declared: a document may move and break at once.
    last_twins: BTreeMap<&'a TwinRef, &'a Arc<TwinManifest>>,
    last_queries: BTreeMap<&'a str, &'a Arc<DeclaredQuery>>,
    last_profiles: BTreeMap<&'a str, &'a Arc<Profile>>,
    last: &'a LastGood,
    /// Files of which a part cannot be told: what they declared before and no document names now stays. The place is
    /// the part's.
    incomplete: BTreeMap<&'a Arc<str>, FileSpan>,
    frozen: Frozen,
    diagnostics: Vec<Diagnostic>,
    next: BTreeMap<Arc<str>, GoodFile>,
}

/// Documents by what they are about.
#[derive(Default)]
struct Claims<'a> {
    twins: BTreeMap<&'a TwinRef, Vec<Claim<'a, TwinManifest>>>,
    queries: BTreeMap<&'a str, Vec<Claim<'a, DeclaredQuery>>>,
    profiles: BTreeMap<&'a str, Vec<Claim<'a, Profile>>>,
}

/// A document that is about a twin or query.
struct Claim<'a, T> {
    document: &'a ParsedDocument,
    /// What it declares; `None` when it is broken or its file is frozen.
    good: Option<Arc<T>>,
    /// The metrics' places, of a good query.
    metrics: &'a [FileSpan],
}

/// A query in question while metric names are compared.
struct Candidate<'a> {
    query: Arc<DeclaredQuery>,
    /// The places of the metrics of a query that is good so far; a frozen one has none.
    good: Option<&'a [FileSpan]>,
    file: Arc<str>,
}

impl<'a> Lowering<'a> {
    fn new(files: &'a BTreeMap<Arc<str>, Arc<ParsedFile>>, last: &'a LastGood) -> Self {
        let remembered = || last.files.values();
        Self {
            last_twins: remembered().flat_map(|file| &file.twins).collect(),
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
            next: BTreeMap::new(),
        }
    }

    /// Sorts every document under its identity, and notes what cannot be told.
    fn collect_claims(&mut self, files: &'a BTreeMap<Arc<str>, Arc<ParsedFile>>) -> Claims<'a> {
        let mut claims = Claims::default();
        for (name, file) in files {
            let last = self.last.files.get(name);
            let was_complete = last.map_or(self.last.whole, |last| last.complete);
            let mut untold: Vec<&FileSpan> = file.unparsed.iter().collect();
            for document in &file.documents {
                if let Declares::Broken(identity) = &document.content {
                    self.frozen.broken.insert(document.span.clone());
                    untold.extend((*identity == Identity::Unknown).then_some(&document.span));
                }
                // A file that does not parse freezes all it declared, its readable documents too. Without a last good
                // state there is nothing to freeze to, and what cannot be told holds the source anyway.
                claims.add(document, file.unparsed.is_some() && was_complete);
            }
            self.frozen.broken.extend(file.unparsed.clone());
            if let Some(first) = untold.iter().min() {
                self.incomplete.insert(name, (*first).clone());
                if !was_complete {
                    self.frozen.unknown.extend(untold.iter().map(|span| (*span).clone()));
                }
            }
            let complete = untold.is_empty() || was_complete;
            self.next.insert(name.clone(), GoodFile { complete, ..GoodFile::default() });
        }
        claims
    }

    fn resolve_twins(
        &mut self,
        claims: &BTreeMap<&'a TwinRef, Vec<Claim<'a, TwinManifest>>>,
    ) -> BTreeMap<TwinRef, Arc<TwinManifest>> {
        let mut twins = BTreeMap::new();
        for (twin, claims) in claims {
            let what = if twin.module.is_none() { "device" } else { "module" };
            self.refuse_duplicates(&format!("the {what} {twin}"), claims);
            let Some(first) = claims.first() else { continue };
            let (span, file) = (&first.document.span, &first.document.span.file);
            match (first.good.as_ref().filter(|_| claims.len() == 1), self.last_twins.get(twin)) {
                (Some(good), _) => self.declare_twin(&mut twins, twin, good, file),
                (None, Some(last)) => {
                    let last = Arc::clone(last);
                    self.declare_twin(&mut twins, twin, &last, file);
                    self.frozen.kept.insert((*twin).clone(), span.clone());
                }
                (None, None) => {
                    self.frozen.held.insert((*twin).clone(), span.clone());
                }
            }
        }
        for (name, span) in self.incomplete.clone() {
            for (twin, manifest) in self.remembered_for(name).into_iter().flat_map(|file| &file.twins) {
                if !claims.contains_key(twin) && !twins.contains_key(twin) {
                    self.declare_twin(&mut twins, twin, manifest, name);
                    self.frozen.kept.insert(twin.clone(), span.clone());
                }
            }
        }
        twins
    }

    /// What a part of `name` that cannot be told may mean: what the file declared, or, if it is new, what has just
    /// left any other file.
    fn remembered_for(&self, name: &Arc<str>) -> Vec<&'a GoodFile> {
        match self.last.files.get(name) {
            Some(file) => vec![file],
            None => self.last.files.values().collect(),
        }
    }

    /// Adds a twin to the state and remembers it under `file`.
    fn declare_twin(
        &mut self,
        twins: &mut BTreeMap<TwinRef, Arc<TwinManifest>>,
        twin: &TwinRef,
        manifest: &Arc<TwinManifest>,
        file: &Arc<str>,
    ) {
        twins.insert(twin.clone(), Arc::clone(manifest));
        self.next.entry(file.clone()).or_default().twins.insert(twin.clone(), Arc::clone(manifest));
    }

    /// The profiles, highest priority first. A broken one stays as it was last good; one that never was holds every
    /// twin, unless it is known to be new.
    fn resolve_profiles(&mut self, claims: &BTreeMap<&'a str, Vec<Claim<'a, Profile>>>) -> Vec<Arc<Profile>> {
        let mut profiles = BTreeMap::new();
        for (name, claims) in claims {
            self.refuse_duplicates(&format!("the profile {name}"), claims);
            let Some(first) = claims.first() else { continue };
            let span = &first.document.span;
            match (first.good.as_ref().filter(|_| claims.len() == 1), self.last_profiles.get(name)) {
                (Some(good), _) => {
                    profiles.insert((*name).to_owned(), (Arc::clone(good), span.file.clone()));
                }
                (None, Some(last)) => {
                    profiles.insert((*name).to_owned(), (Arc::clone(last), span.file.clone()));
                    self.frozen.kept_profiles.insert((*name).to_owned(), span.clone());
                }
                (None, None) if self.last.whole => {}
                (None, None) => {
                    self.frozen.unknown.insert(span.clone());
                }
            }
        }
        for (file, span) in self.incomplete.clone() {
            for (name, profile) in self.remembered_for(file).into_iter().flat_map(|file| &file.profiles) {
                if !claims.contains_key(name.as_str()) && !profiles.contains_key(name) {
                    profiles.insert(name.clone(), (Arc::clone(profile), file.clone()));
                    self.frozen.kept_profiles.insert(name.clone(), span.clone());
                }
            }
        }
        while self.refuse_one_oscillation(&mut profiles, claims) {}
        for (name, (profile, file)) in &profiles {
            self.next.entry(file.clone()).or_default().profiles.insert(name.clone(), Arc::clone(profile));
        }
        let mut profiles: Vec<Arc<Profile>> = profiles.into_values().map(|(profile, _)| profile).collect();
        profiles.sort_by(|one, other| (other.priority, &one.name).cmp(&(one.priority, &other.name)));
        profiles
    }

    /// Finds a condition that reads what a profile with a condition sets, reports it, and freezes its profile, or else the
    /// one that sets it, at its last good state. Each round takes a good profile or a profile away, so repeating it
    /// ends.
    fn refuse_one_oscillation(
        &mut self,
        profiles: &mut BTreeMap<String, (Arc<Profile>, Arc<str>)>,
        claims: &BTreeMap<&'a str, Vec<Claim<'a, Profile>>>,
    ) -> bool {
        let Some((reader, writer, attribute, place)) = find_oscillation(profiles) else { return false };
        let is_good = |name: &String| {
            let good = claims.get(name.as_str()).and_then(|claims| claims.first()?.good.as_ref());
            good.is_some_and(|good| profiles.get(name).is_some_and(|(profile, _)| Arc::ptr_eq(good, profile)))
        };
        let victim = [&reader, &writer].into_iter().find(|name| is_good(name)).unwrap_or(&reader).clone();
        let Some((profile, file)) = profiles.remove(&victim) else { return false };
        if let Some(condition) = &profile.selector.condition {
            let message = if victim == reader {
                format!(
                    "{attribute} is set by profile {writer} at {place}, which has a condition too; read what no condition sets"
                )
            } else {
                format!(
                    "this profile sets {attribute}, which the condition of profile {reader} reads; set another path"
                )
            };
            let span = condition.place.clone();
            self.report(&span, "spec.selector.where".to_owned(), "where-oscillates", message);
        }
        self.frozen.broken.insert(profile.source.clone());
        match self.last_profiles.get(victim.as_str()).filter(|last| !Arc::ptr_eq(last, &profile)) {
            Some(last) => {
                self.frozen.kept_profiles.insert(victim.clone(), profile.source.clone());
                profiles.insert(victim, (Arc::clone(last), file));
            }
            None if self.last.whole => {}
            None => {
                self.frozen.unknown.insert(profile.source.clone());
            }
        }
        true
    }

    /// Reports profiles that contradict one another whatever the live twins are; the twins concerned are held.
    fn report_ties(&mut self, state: &mut DeclaredState) {
        for (tie, twin, count) in find_ties(state) {
            let Tie { priority, one, other } = tie;
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            for ((name, leaf, place), (rival, rival_leaf, rival_place)) in [(&one, &other), (&other, &one)] {
                let message = format!(
                    "profile {rival} at {rival_place} sets {rival_leaf} with the same priority, {priority}, and another \
                     value, for {twin}{more}; give {name} or {rival} another priority"
                );
                self.report(place, format!("spec.{leaf}"), "profile-tie", message);
                let source = state.profiles.iter().find(|profile| profile.name == *name).map(|p| p.source.clone());
                state.frozen.broken.extend(source);
            }
        }
    }

    fn resolve_queries(&mut self, claims: &BTreeMap<&'a str, Vec<Claim<'a, DeclaredQuery>>>) -> Vec<DeclaredQuery> {
        let mut candidates = BTreeMap::new();
        for (name, claims) in claims {
            self.refuse_duplicates(&format!("the query {name}"), claims);
            let Some(first) = claims.first() else { continue };
            let file = first.document.span.file.clone();
            let candidate = match (&first.good, self.last_queries.get(name)) {
                (Some(good), _) if claims.len() == 1 => {
                    Some(Candidate { query: Arc::clone(good), good: Some(first.metrics), file })
                }
                (_, Some(last)) => Some(Candidate { query: Arc::clone(last), good: None, file }),
                (_, None) => None,
            };
            candidates.extend(candidate.map(|candidate| (*name, candidate)));
        }
        for name in self.incomplete.keys() {
            for (query, declared) in self.remembered_for(name).into_iter().flat_map(|file| &file.queries) {
                if !claims.contains_key(query.as_str()) && !candidates.contains_key(query.as_str()) {
                    let file = Arc::clone(name);
                    candidates.insert(query, Candidate { query: Arc::clone(declared), good: None, file });
                }
            }
        }
        while self.freeze_one_collision(&mut candidates) {}
        for (name, candidate) in &candidates {
            let file = self.next.entry(candidate.file.clone()).or_default();
            file.queries.insert((*name).to_owned(), Arc::clone(&candidate.query));
        }
        candidates.into_values().map(|candidate| candidate.query.as_ref().clone()).collect()
    }

    /// Finds one pair of queries whose metrics collide, reports it at those that are good, and freezes these at their
    /// last good state. Of two frozen ones the later in name goes. Each round takes a good query or a query away, so
    /// repeating it ends.
    fn freeze_one_collision(&mut self, candidates: &mut BTreeMap<&'a str, Candidate<'a>>) -> bool {
        let Some((one, other)) = find_collision(candidates) else { return false };
        let mut reports = Vec::new();
        for ((name, index), (rival_name, rival_index)) in [(one, other), (other, one)] {
            let (Some(candidate), Some(rival)) = (candidates.get(name), candidates.get(rival_name)) else { continue };
            let Some(span) = candidate.good.and_then(|spans| spans.get(index)) else { continue };
            let place = match rival.good.and_then(|spans| spans.get(rival_index)) {
                Some(rival_span) => format!("by query {rival_name} at {rival_span}"),
                None => format!("by the last good state of query {rival_name}"),
            };
            let metric = &candidate.query.spec.metrics[index].name;
            let path = format!("spec.metrics[{index}].name");
            reports.push((name, span.clone(), path, collision_message(metric, &place)));
        }
        if reports.is_empty() {
            candidates.remove(other.0);
        }
        for (name, span, path, message) in reports {
            self.report(&span, path, "metric-collision", message);
            let Some(candidate) = candidates.remove(name) else { continue };
            self.frozen.broken.insert(candidate.query.source.clone());
            if let Some(last) = self.last_queries.get(name) {
                let frozen = Candidate { query: Arc::clone(last), good: None, file: candidate.file };
                candidates.insert(name, frozen);
            }
        }
        true
    }

    /// Two documents about one thing: an error at each that names another.
    fn refuse_duplicates<T>(&mut self, what: &str, claims: &[Claim<'a, T>]) {
        if claims.len() < 2 {
            return;
        }
        for (index, claim) in claims.iter().enumerate() {
            let other = &claims[usize::from(index == 0)].document.name_span;
            let message = format!("{what} is also declared at {other}; keep one of the two");
            self.report(&claim.document.name_span, "metadata.name".to_owned(), "duplicate-identity", message);
            self.frozen.broken.insert(claim.document.span.clone());
        }
    }

    fn report(&mut self, span: &FileSpan, path: String, rule: &'static str, message: String) {
        let FileSpan { file, line, column } = span.clone();
        self.diagnostics.push(Diagnostic { file, line, column, severity: Severity::Error, path, rule, message });
    }
}

impl<'a> Claims<'a> {
    /// Sorts a document under its identity; nothing new is taken from one whose file is frozen.
    fn add(&mut self, document: &'a ParsedDocument, is_frozen: bool) {
        match &document.content {
            Declares::Twin(twin, manifest) => {
                let good = (!is_frozen).then(|| Arc::clone(manifest));
                self.twins.entry(twin).or_default().push(Claim { document, good, metrics: &[] });
            }
            Declares::Query(query, metrics) => {
                let declared = DeclaredQuery { spec: query.spec.clone(), source: document.span.clone() };
                let good = (!is_frozen).then(|| Arc::new(declared));
                self.queries.entry(&query.spec.name).or_default().push(Claim { document, good, metrics });
            }
            Declares::Profile(profile) => {
                let good = (!is_frozen).then(|| Arc::clone(profile));
                self.profiles.entry(&profile.name).or_default().push(Claim { document, good, metrics: &[] });
            }
            Declares::Broken(Identity::Profile(name)) => {
                self.profiles.entry(name).or_default().push(Claim { document, good: None, metrics: &[] });
            }
            Declares::Broken(Identity::Twin(twin)) => {
                self.twins.entry(twin).or_default().push(Claim { document, good: None, metrics: &[] });
            }
            Declares::Broken(Identity::Query(name)) => {
                self.queries.entry(name).or_default().push(Claim { document, good: None, metrics: &[] });
            }
            Declares::Broken(Identity::Foreign | Identity::Unknown) => {}
        }
    }
}

/// A condition that reads a path which a profile with a condition sets, equal, above or below: the reader's name, the
/// writer's, what is read, and where it is set.
fn find_oscillation(
    profiles: &BTreeMap<String, (Arc<Profile>, Arc<str>)>,
) -> Option<(String, String, String, FileSpan)> {
    let conditional = || profiles.values().map(|(profile, _)| profile).filter(|p| p.selector.condition.is_some());
    for reader in conditional() {
        for (read, attribute) in reader.selector.condition.iter().flat_map(LiveCondition::reads) {
            for writer in conditional() {
                let related = |leaf: &Leaf| {
                    let above_or_below = leaf.path.covers(&read.path) || read.path.covers(&leaf.path);
                    leaf.section == read.section && above_or_below
                };
                if let Some((_, _, place)) = writer.wanted.leaves(&writer.source).find(|(leaf, ..)| related(leaf)) {
                    return Some((reader.name.clone(), writer.name.clone(), attribute, place));
                }
            }
        }
    }
    None
}

type MetricPlace<'a> = (&'a str, usize);

/// The first two metrics of different queries that cannot be exposed together.
fn find_collision<'a>(candidates: &BTreeMap<&'a str, Candidate<'a>>) -> Option<(MetricPlace<'a>, MetricPlace<'a>)> {
    let mut seen: BTreeMap<&str, Vec<(MetricPlace<'a>, &MetricSpec)>> = BTreeMap::new();
    for (query, candidate) in candidates {
        for (index, metric) in candidate.query.spec.metrics.iter().enumerate() {
            let same_name = seen.entry(&metric.name).or_default();
            let rival = same_name.iter().find(|(place, other)| place.0 != *query && !may_share_name(other, metric));
            if let Some((place, _)) = rival {
                return Some((*place, (*query, index)));
            }
            same_name.push(((*query, index), metric));
        }
    }
    None
}

#[cfg(test)]
mod tests;
