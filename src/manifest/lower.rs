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
mod tests {
    use super::*;
    use crate::manifest::parse_file;

    /// A source that is loaded again and again, as the daemon does.
    #[derive(Default)]
    struct Source {
        last_good: LastGood,
    }

    impl Source {
        /// Loads these files and answers what they make: each twin with its `create`, `tags.v` and state, then what
        /// is held, unknown and broken, and the queries with their help.
        fn load(&mut self, files: &[(&str, &str)]) -> String {
            let files: BTreeMap<Arc<str>, Arc<ParsedFile>> =
                files.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
            let lowered = lower(&files, &self.last_good);
            assert_eq!(lower(&files, &lowered.last_good).state, lowered.state, "loading again changes nothing");
            self.last_good = lowered.last_good.clone();
            show(&lowered)
        }
    }

    fn show(lowered: &Lowered) -> String {
        let frozen = &lowered.state.frozen;
        let twins = lowered.state.twins.iter().map(|(twin, manifest)| {
            let kept = frozen.kept.get(twin).map(|span| format!(" kept by {span}")).unwrap_or_default();
            let value = manifest.wanted.tags.get("v").map(ToString::to_string).unwrap_or_default();
            format!("{twin}={value}{kept}")
        });
        let profiles = lowered.state.profiles.iter().map(|profile| {
            let kept = frozen.kept_profiles.get(&profile.name).map(|span| format!(" kept by {span}"));
            format!("profile {}={}{}", profile.name, profile.wanted.tags["v"], kept.unwrap_or_default())
        });
        let held = frozen.held.iter().map(|(twin, span)| format!("held {twin} by {span}"));
        let unknown = frozen.unknown.iter().map(|span| format!("unknown {span}"));
        let broken = frozen.broken.iter().map(|span| format!("broken {span}"));
        let queries = lowered.queries.iter().map(|query| {
            let metrics: Vec<String> =
                query.spec.metrics.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
            format!("query {}: {}", query.spec.name, metrics.join(", "))
        });
        twins.chain(profiles).chain(held).chain(unknown).chain(broken).chain(queries).collect::<Vec<_>>().join("; ")
    }

    fn twin(name: &str, value: &str) -> String {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {name}}}\nspec: {{tags: {{v: {value}}}}}\n---\n"
        )
    }

    fn query(name: &str, metric: &str, help: &str) -> String {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: {name}}}\nspec:\n  \
             query: SELECT deviceId AS device FROM devices\n  metrics: [{{name: {metric}, help: {help}, value: {{count: true}}}}]\n---\n"
        )
    }

    /// A document whose identity can be read and whose content cannot.
    fn broken_twin(name: &str) -> String {
        twin(name, ".nan")
    }

    const NOT_YAML: &str = "spec: [\n";
    const NO_IDENTITY: &str = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwinn\nmetadata: {name: a}\n";

    #[test]
    fn a_broken_document_keeps_its_twin_as_it_was_and_stops_nothing_else() {
        let mut source = Source::default();
        assert_eq!(source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]), "a=1; b=1");
        let edited = broken_twin("a") + &twin("b", "2");
        assert_eq!(source.load(&[("f", &edited)]), "a=1 kept by f:1:1; b=2; broken f:1:1");
        assert_eq!(source.load(&[("f", &(twin("a", "3") + &twin("b", "2")))]), "a=3; b=2");
    }

    #[test]
    fn a_file_that_does_not_parse_freezes_all_it_declared() {
        let mut source = Source::default();
        source.load(&[("f", &(twin("a", "1") + &twin("b", "1"))), ("g", &twin("c", "1"))]);
        let edited = twin("a", "2") + NOT_YAML;
        assert_eq!(
            source.load(&[("f", &edited), ("g", &twin("c", "2"))]),
            "a=1 kept by f:1:1; b=1 kept by f:6:1; c=2; broken f:6:1"
        );
        assert_eq!(source.load(&[("f", &twin("a", "2")), ("g", &twin("c", "2"))]), "a=2; c=2");
    }

    #[test]
    fn a_file_that_cannot_be_read_freezes_all_it_declared() {
        let mut source = Source::default();
        source.load(&[("f", &twin("a", "1"))]);
        let unreadable = Arc::new(ParsedFile::unreadable("f", "unreadable", "permission denied".to_owned()));
        let files = BTreeMap::from([("f".into(), unreadable)]);
        let lowered = lower(&files, &source.last_good);
        assert_eq!(show(&lowered), "a=1 kept by f:1:1; broken f:1:1");
        assert_eq!(lowered.diagnostics[0].to_string(), "f: error: permission denied");
        assert_eq!(show(&lower(&files, &LastGood::default())), "unknown f:1:1; broken f:1:1");
    }

    #[test]
    fn without_a_last_good_state_a_broken_document_holds_its_own_twin() {
        let mut source = Source::default();
        let text = broken_twin("a") + &twin("b", "1");
        assert_eq!(source.load(&[("f", &text)]), "b=1; held a by f:1:1; broken f:1:1");
        assert_eq!(source.load(&[("f", &text)]), "b=1; held a by f:1:1; broken f:1:1");
        assert_eq!(source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]), "a=1; b=1");
    }

    #[test]
    fn a_broken_document_with_anchors_or_tags_still_has_its_identity() {
        let text = twin("a", "&x 1");
        assert_eq!(Source::default().load(&[("f", &text)]), "held a by f:1:1; broken f:1:1");
        let text = twin("!!str a", "1");
        assert_eq!(Source::default().load(&[("f", &text)]), "held a by f:1:1; broken f:1:1");
    }

    #[test]
    fn without_a_last_good_state_an_unknown_document_holds_the_source_until_it_is_fixed() {
        let mut source = Source::default();
        for untold in [NO_IDENTITY, NOT_YAML] {
            let text = twin("b", "1") + untold;
            assert_eq!(source.load(&[("f", &text)]), "b=1; unknown f:6:1; broken f:6:1");
            assert_eq!(source.load(&[("f", &text)]), "b=1; unknown f:6:1; broken f:6:1");
        }
        assert_eq!(source.load(&[("f", &twin("b", "1"))]), "b=1");
    }

    #[test]
    fn with_a_last_good_state_an_unknown_document_keeps_what_no_other_names() {
        let mut source = Source::default();
        source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]);
        let text = twin("b", "2") + NO_IDENTITY;
        assert_eq!(source.load(&[("f", &text)]), "a=1 kept by f:6:1; b=2; broken f:6:1");
    }

    #[test]
    fn documents_of_others_break_the_source_but_hold_no_twin() {
        let foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        assert_eq!(Source::default().load(&[("f", foreign), ("g", &twin("a", "1"))]), "a=1; broken f:1:1");
    }

    #[test]
    fn a_broken_module_twin_holds_the_module_alone() {
        let module = "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m}\nspec: {device: a}\n";
        let broken = module.replace("device: a", "device: a, x: 1");
        assert_eq!(Source::default().load(&[("f", &broken)]), "held a/m by f:1:1; broken f:1:1");
        let mut source = Source::default();
        assert_eq!(source.load(&[("f", &(twin("a", "1") + module))]), "a=1; a/m=");
        assert_eq!(source.load(&[("f", &(twin("a", "2") + &broken))]), "a=2; a/m= kept by f:6:1; broken f:6:1");
        let twice = [("f", module), ("g", module)];
        assert_eq!(Source::default().load(&twice), "held a/m by f:1:1; broken f:1:1; broken g:1:1");
    }

    /// A profile for every declared twin.
    fn profile(name: &str, priority: i64, value: &str) -> String {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: {{devices: ['*']}}\n  priority: {priority}\n  tags: {{v: {value}}}\n---\n"
        )
    }

    #[test]
    fn a_broken_profile_holds_every_twin_after_a_restart_and_stays_as_it_was_while_running() {
        let broken = twin("a", "1") + &profile("p", 1, ".nan");
        assert_eq!(Source::default().load(&[("f", &broken)]), "a=1; unknown f:6:1; broken f:6:1");

        let mut source = Source::default();
        let good = twin("a", "1") + &profile("p", 1, "2") + &profile("q", 3, "3");
        assert_eq!(source.load(&[("f", &good)]), "a=1; profile q=3; profile p=2");
        let edited = twin("a", "2") + &profile("p", 1, ".nan") + &profile("q", 3, "4");
        let result = "a=2; profile q=4; profile p=2 kept by f:6:1; broken f:6:1";
        assert_eq!(source.load(&[("f", &edited)]), result);
        // A file that does not parse keeps all of it, a profile that moved is where it moved to.
        let result = "a=2 kept by f:1:1; profile q=4 kept by f:1:1; profile p=2 kept by f:1:1; broken f:1:1";
        assert_eq!(source.load(&[("f", NOT_YAML)]), result);
        let moved = [("f", twin("a", "5")), ("g", profile("p", 1, "6"))];
        let moved = moved.each_ref().map(|(name, text)| (*name, text.as_str()));
        assert_eq!(source.load(&moved), "a=5; profile p=6");
        // One that is new and broken never declared anything: it blocks removals and stops nothing else.
        let new = [("f", twin("a", "5")), ("g", profile("p", 1, "6") + &profile("new", 1, ".nan"))];
        let new = new.each_ref().map(|(name, text)| (*name, text.as_str()));
        assert_eq!(source.load(&new), "a=5; profile p=6; broken g:9:1");
    }

    #[test]
    fn profiles_that_contradict_one_another_are_errors_at_both_and_break_no_good_state() {
        let mut source = Source::default();
        let files = [("f", twin("a", "1")), ("p", profile("p", 1, "2")), ("q", profile("q", 1, "3"))];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        // The twin's own manifest decides the path, so nobody disagrees.
        assert_eq!(source.load(&files), "a=1; profile p=2; profile q=3");
        let tied =
            [files[1], files[2], ("f", "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: a}\n")];
        assert_eq!(source.load(&tied), "a=; profile p=2; profile q=3; broken p:1:1; broken q:1:1");
        let parsed = tied.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
        let lowered = lower(&parsed, &LastGood::default());
        let lines: Vec<String> = lowered.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines[1..],
            [
                "p:7:10: error: profile q at q:7:10 sets tags.v with the same priority, 1, and another value, for a; \
                 give p or q another priority (spec.tags.v)",
                "q:7:10: error: profile p at p:7:10 sets tags.v with the same priority, 1, and another value, for a; \
                 give q or p another priority (spec.tags.v)",
            ]
        );
        let twin = TwinRef::device(crate::twin::DeviceId::new("a").unwrap());
        assert!(matches!(crate::plan::declare(&lowered.state, &twin, None), crate::plan::Declaration::Tied(_)));
    }

    #[test]
    fn a_profile_declared_twice_stays_as_it_was() {
        let mut source = Source::default();
        source.load(&[("f", &profile("p", 1, "1"))]);
        let twice = [("f", profile("p", 1, "2")), ("g", profile("p", 1, "3"))];
        let twice = twice.each_ref().map(|(name, text)| (*name, text.as_str()));
        assert_eq!(source.load(&twice), "profile p=1 kept by f:1:1; broken f:1:1; broken g:1:1");
    }

    #[test]
    fn what_was_ever_sensitive_is_never_shown_again() {
        let mut source = Source::default();
        let secret = twin("a", "1").replace("spec: {", "spec: {sensitive: [tags.v], ");
        source.load(&[("f", &secret)]);
        source.load(&[("f", &twin("b", "1"))]);
        let shown: Vec<String> = source.last_good.sensitive.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tags.v"]);
    }

    #[test]
    fn a_twin_that_moved_from_a_broken_file_to_a_good_one_is_the_good_one_s() {
        let mut source = Source::default();
        source.load(&[("f", &(twin("a", "1") + &twin("b", "1"))), ("g", "")]);
        for broken in [NOT_YAML.to_owned(), NO_IDENTITY.to_owned(), broken_twin("b")] {
            let mut source = Source { last_good: source.last_good.clone() };
            assert_eq!(source.load(&[("f", &broken), ("g", &twin("a", "2"))]), "a=2; b=1 kept by f:1:1; broken f:1:1");
            assert_eq!(source.load(&[("f", &broken), ("g", "")]), "b=1 kept by f:1:1; broken f:1:1");
        }
    }

    #[test]
    fn a_twin_that_moved_and_broke_at_once_is_kept() {
        let mut source = Source::default();
        source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]);
        assert_eq!(
            source.load(&[("f", &twin("b", "1")), ("g", &broken_twin("a"))]),
            "a=1 kept by g:1:1; b=1; broken g:1:1"
        );
        assert_eq!(source.load(&[("f", &twin("b", "1")), ("g", &twin("a", "2"))]), "a=2; b=1");
    }

    #[test]
    fn a_broken_file_that_is_deleted_takes_its_twins_along() {
        let mut source = Source::default();
        source.load(&[("f", &twin("a", "1")), ("g", &twin("b", "1"))]);
        assert_eq!(source.load(&[("f", NOT_YAML), ("g", &twin("b", "1"))]), "a=1 kept by f:1:1; b=1; broken f:1:1");
        assert_eq!(source.load(&[("g", &twin("b", "1"))]), "b=1");
        assert_eq!(source.load(&[("f", NOT_YAML), ("g", &twin("b", "1"))]), "b=1; broken f:1:1");
    }

    #[test]
    fn a_new_file_that_cannot_be_told_keeps_what_has_left_others_and_stops_nothing_else() {
        let mut source = Source::default();
        source.load(&[
            ("f", &twin("a", "1")),
            ("g", &(twin("b", "1") + &twin("c", "1"))),
            ("q", &query("q", "twinquery_a", "One")),
        ]);
        for untold in [NOT_YAML, NO_IDENTITY] {
            // `f` was renamed, `b` and the query moved, and all of it broke.
            let text = source.load(&[("g", &twin("c", "2")), ("new", untold)]);
            assert_eq!(text, "a=1 kept by new:1:1; b=1 kept by new:1:1; c=2; broken new:1:1; query q: twinquery_a One");
        }
        let mended = twin("a", "2") + &twin("b", "2");
        assert_eq!(source.load(&[("g", &twin("c", "3")), ("new", &mended)]), "a=2; b=2; c=3");
    }

    #[test]
    fn a_renamed_file_declares_the_same_and_a_broken_one_is_known_by_its_identities() {
        let mut source = Source::default();
        source.load(&[("f", &twin("a", "1"))]);
        assert_eq!(source.load(&[("g", &twin("a", "1"))]), "a=1");
        assert_eq!(source.load(&[("h", &broken_twin("a"))]), "a=1 kept by h:1:1; broken h:1:1");
        assert_eq!(source.load(&[("i", &twin("a", "2"))]), "a=2");
    }

    #[test]
    fn a_twin_declared_twice_is_held_or_kept_and_both_places_are_named() {
        let files = [("f", twin("a", "1")), ("g", twin("b", "1") + &twin("a", "2"))];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        assert_eq!(Source::default().load(&files), "b=1; held a by f:1:1; broken f:1:1; broken g:6:1");

        let mut source = Source::default();
        source.load(&[("f", &twin("a", "0"))]);
        assert_eq!(source.load(&files), "a=0 kept by f:1:1; b=1; broken f:1:1; broken g:6:1");
        let parsed = files.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
        let lines: Vec<String> =
            lower(&parsed, &LastGood::default()).diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "f:3:18: error: the device a is also declared at g:8:18; keep one of the two (metadata.name)",
                "g:8:18: error: the device a is also declared at f:3:18; keep one of the two (metadata.name)",
            ]
        );
        assert_eq!(source.load(&[("g", &(twin("b", "1") + &twin("a", "2")))]), "a=2; b=1");
    }

    #[test]
    fn empty_files_and_documents_declare_nothing_and_break_nothing() {
        let slips = "---\n---\n# only a comment\n---\n".to_owned() + &twin("a", "1") + "...\n---\n";
        let files = [("empty", ""), ("comments", "# a\n\n# b\n"), ("marks", "---\n...\n---"), ("f", slips.as_str())];
        assert_eq!(Source::default().load(&files), "a=1");
    }

    #[test]
    fn a_broken_query_freezes_only_itself() {
        let mut source = Source::default();
        let good = query("q", "twinquery_a", "One") + &query("r", "twinquery_b", "One");
        assert_eq!(source.load(&[("f", &good)]), "query q: twinquery_a One; query r: twinquery_b One");
        let edited = query("q", "twinquery_a", "[Two]") + &query("r", "twinquery_b", "Two");
        let result = "broken f:1:1; query q: twinquery_a One; query r: twinquery_b Two";
        assert_eq!(source.load(&[("f", &edited)]), result);
        let edited = query("q", "twinquery_a", "[Two]");
        assert_eq!(Source::default().load(&[("f", &edited)]), "broken f:1:1");
        let result = "broken f:1:1; query q: twinquery_a One; query r: twinquery_b Two";
        assert_eq!(source.load(&[("f", NOT_YAML)]), result);
    }

    #[test]
    fn queries_whose_metrics_collide_stay_as_they_were() {
        let mut source = Source::default();
        let good = query("q", "twinquery_a", "One") + &query("r", "twinquery_b", "One");
        source.load(&[("f", &good)]);
        let colliding = query("q", "twinquery_a", "One") + &query("r", "twinquery_a", "Two");
        let kept = "broken f:1:1; broken f:8:1; query q: twinquery_a One; query r: twinquery_b One";
        assert_eq!(source.load(&[("f", &colliding)]), kept);
        assert_eq!(Source::default().load(&[("f", &colliding)]), "broken f:1:1; broken f:8:1");
        // One query frozen at a name, and another that is new takes it.
        let taken = query("q", "twinquery_a", "[Two]") + &query("s", "twinquery_a", "New");
        let result = "broken f:1:1; broken f:8:1; query q: twinquery_a One";
        assert_eq!(source.load(&[("f", &taken)]), result);
    }

    #[test]
    fn a_query_declared_twice_stays_as_it_was() {
        let mut source = Source::default();
        source.load(&[("f", &query("q", "twinquery_a", "One"))]);
        let twice = [("f", query("q", "twinquery_a", "Two")), ("g", query("q", "twinquery_c", "Three"))];
        let twice = twice.each_ref().map(|(name, text)| (*name, text.as_str()));
        assert_eq!(source.load(&twice), "broken f:1:1; broken g:1:1; query q: twinquery_a One");
    }

    /// What one file of the property below holds.
    fn file_text(parts: &[(u8, u8)]) -> String {
        let part = |(what, value): &(u8, u8)| match what {
            0..6 => twin(&format!("t{}", what % 3), &value.to_string()),
            6 => broken_twin(&format!("t{}", value % 3)),
            7 => NO_IDENTITY.to_owned() + "---\n",
            8 => query(&format!("q{}", value % 2), &format!("twinquery_{}", value % 3), &format!("H{value}")),
            9 => query(&format!("q{}", value % 2), "twinquery_a", "[broken]"),
            10 => profile(&format!("p{}", value % 2), i64::from(*value), if value % 3 == 0 { ".nan" } else { "1" }),
            _ => NOT_YAML.to_owned() + "---\n",
        };
        parts.iter().map(part).collect()
    }

    proptest::proptest! {
        #[test]
        fn nothing_a_source_names_is_lost_whatever_is_edited(
            loads in proptest::collection::vec(
                proptest::collection::btree_map("[fgh]", proptest::collection::vec((0_u8..12, 0_u8..6), 0..4), 0..4), 1..5)
        ) {
            let mut last_good = LastGood::default();
            for load in loads {
                let files: BTreeMap<Arc<str>, Arc<ParsedFile>> = load
                    .iter()
                    .map(|(name, parts)| (name.as_str().into(), Arc::new(parse_file(name, &file_text(parts)))))
                    .collect();
                let before: BTreeMap<TwinRef, Arc<TwinManifest>> =
                    last_good.files.values().flat_map(|file| file.twins.clone()).collect();
                let lowered = lower(&files, &last_good);
                let frozen = &lowered.state.frozen;
                let again = lower(&files, &lowered.last_good);
                proptest::prop_assert_eq!(&again, &lowered, "loading again changes nothing");
                for document in files.values().flat_map(|file| &file.documents) {
                    if let Declares::Twin(twin, _) | Declares::Broken(Identity::Twin(twin)) = &document.content {
                        let is_declared = lowered.state.twins.contains_key(twin);
                        proptest::prop_assert!(is_declared != frozen.held.contains_key(twin), "{} is declared or held", twin);
                    }
                }
                for twin in frozen.kept.keys() {
                    proptest::prop_assert_eq!(lowered.state.twins.get(twin), before.get(twin), "kept as it was");
                }
                let has_errors = lowered.diagnostics.iter().any(Diagnostic::is_error);
                proptest::prop_assert_eq!(frozen.blocks_removals(), has_errors);
                let mut names: Vec<_> = lowered.queries.iter().flat_map(|query| &query.spec.metrics).map(|metric| &metric.name).collect();
                let total = names.len();
                names.dedup();
                names.sort();
                names.dedup();
                proptest::prop_assert_eq!(names.len(), total, "no metric twice");
                let remembered = lowered.last_good.files.values().map(|file| file.twins.len()).sum::<usize>();
                proptest::prop_assert_eq!(remembered, lowered.state.twins.len(), "each twin is remembered once");
                last_good = lowered.last_good;
            }
        }
    }
}
