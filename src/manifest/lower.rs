//! All files of a source to one declared state, with duplicates and freezing (DESIGN section 2).
//!
//! Invariant: a twin or query leaves the state only when no file of the source can still mean it. What a broken
//! document declared at its last good state is kept; what has no last good state is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::metric_schema::{collision_message, may_share_name};
use super::parse::{Declares, Identity, ParsedDocument, ParsedFile};
use crate::plan::{DeclaredState, FileSpan, Frozen, TwinManifest};
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
    /// Whether all of the source could be told apart once in this process; then a part that cannot be told now, in a
    /// file that is new, is either new too or among what is remembered of other files.
    whole: bool,
}

/// One file of [`LastGood`]. A twin or query is in at most one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct GoodFile {
    twins: BTreeMap<TwinRef, Arc<TwinManifest>>,
    queries: BTreeMap<String, Arc<DeclaredQuery>>,
    /// Whether every document of the file could be told apart once in this process; then what cannot be told now is
    /// among what is remembered.
    complete: bool,
}

impl LastGood {
    /// Whether the last good state declared nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.values().all(|file| file.twins.is_empty() && file.queries.is_empty())
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
    lowering.diagnostics.sort();
    let whole = last_good.whole || (lowering.frozen.unknown.is_empty() && !files.is_empty());
    Lowered {
        state: DeclaredState { revision: String::new(), twins, profiles: Vec::new(), frozen: lowering.frozen },
        queries,
        diagnostics: lowering.diagnostics,
        last_good: LastGood { files: lowering.next, whole },
    }
}

struct Lowering<'a> {
    /// The last good state by identity, wherever it was declared: a document may move and break at once.
    last_twins: BTreeMap<&'a TwinRef, &'a Arc<TwinManifest>>,
    last_queries: BTreeMap<&'a str, &'a Arc<DeclaredQuery>>,
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
            format!("{twin}={}{kept}", manifest.tags["v"])
        });
        let held = frozen.held.iter().map(|(twin, span)| format!("held {twin} by {span}"));
        let unknown = frozen.unknown.iter().map(|span| format!("unknown {span}"));
        let broken = frozen.broken.iter().map(|span| format!("broken {span}"));
        let queries = lowered.queries.iter().map(|query| {
            let metrics: Vec<String> =
                query.spec.metrics.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
            format!("query {}: {}", query.spec.name, metrics.join(", "))
        });
        twins.chain(held).chain(unknown).chain(broken).chain(queries).collect::<Vec<_>>().join("; ")
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
    fn kinds_of_later_versions_hold_what_they_may_mean() {
        let module = "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m}\nspec: {device: a}\n";
        assert_eq!(Source::default().load(&[("f", module)]), "held a/m by f:1:1; broken f:1:1");
        let profile = "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: p}\n";
        assert_eq!(Source::default().load(&[("f", profile)]), "unknown f:1:1; broken f:1:1");
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
            _ => NOT_YAML.to_owned() + "---\n",
        };
        parts.iter().map(part).collect()
    }

    proptest::proptest! {
        #[test]
        fn nothing_a_source_names_is_lost_whatever_is_edited(
            loads in proptest::collection::vec(
                proptest::collection::btree_map("[fgh]", proptest::collection::vec((0_u8..11, 0_u8..6), 0..4), 0..4), 1..5)
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
