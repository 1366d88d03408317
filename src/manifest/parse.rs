//! One file's text to its documents.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::evaluate_schema::check_seals;
use super::metric_schema::check_prefix;
use super::names::Names;
use super::profile_schema::read_twin_profile;
use super::query_schema::{QueryDocument, is_query_name, read_twin_query};
use super::rules::Rules;
use super::schema::{Checker, did_you_mean};
use super::secrets::{hide_values, mentioned_paths};
use super::shape::{API_VERSION, DOCUMENT, KINDS};
use super::tree::{Problem, shortened};
use super::twin_schema::{ReadTwin, read_device_twin, read_module_twin, warn_if_nothing_is_declared};
use super::yaml::{Document, read_documents};
use crate::plan::{FileSpan, Labels, Leaf, LeafPlaces, Profile, Subtree, TwinManifest, Wanted, leaves_of};
use crate::twin::{DeviceId, ModuleId, Section, TwinRef};

const API_GROUP: &str = "geminid.dev/";
/// Diagnostics kept of one file; one more says how many there were.
const DIAGNOSTICS_MAX: usize = 200;

/// One file as parsed: a pure function of its name and text, so it can be kept until the text changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedFile {
    name: Arc<str>,
    pub(super) documents: Box<[ParsedDocument]>,
    /// Where YAML ends and freezing begins: the whole file keeps what it declared.
    pub(super) unparsed: Option<FileSpan>,
    /// Every path that a good document of it declares sensitive, and those that a broken one may mean.
    pub(super) sensitive: BTreeSet<Subtree>,
    diagnostics: Vec<Diagnostic>,
}

/// One document; a fleet has a million of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedDocument {
    /// Where it begins.
    pub(super) at: Spot,
    /// Where its `metadata.name` stands, or it itself.
    pub(super) name_at: Spot,
    pub(super) content: Declares,
}

/// A line and a column of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    line: u32,
    column: u32,
}

/// What a document declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Declares {
    Twin(TwinRef, Arc<TwinManifest>),
    /// A query, and where each of its metrics is named.
    Query(Arc<QueryDocument>, Vec<FileSpan>),
    Profile(Arc<Profile>),
    Broken(Identity),
}

/// What a broken document is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    Twin(TwinRef),
    Query(String),
    Profile(String),
    /// Nothing of geminid's: another API group and no kind of ours. It freezes nothing.
    Foreign,
    /// It cannot be told.
    Unknown,
}

impl ParsedFile {
    /// A file that could not be read at all; `message` says why and what to do. It freezes all it declared.
    #[must_use]
    pub fn unreadable(file: &str, rule: &'static str, message: String) -> Self {
        let file: Arc<str> = file.into();
        let diagnostic = Diagnostic {
            file: Arc::clone(&file),
            line: 0,
            column: 0,
            severity: Severity::Error,
            path: String::new(),
            rule,
            message,
        };
        let unparsed = Some(FileSpan { file: Arc::clone(&file), line: 1, column: 1 });
        Self {
            name: file,
            documents: Box::default(),
            unparsed,
            sensitive: BTreeSet::new(),
            diagnostics: vec![diagnostic],
        }
    }

    /// A place in this file.
    pub(super) fn span(&self, at: Spot) -> FileSpan {
        FileSpan { file: Arc::clone(&self.name), line: at.line as usize, column: at.column as usize }
    }

    /// The places of a document and of its name.
    pub(super) fn places(&self, document: &ParsedDocument) -> (FileSpan, FileSpan) {
        (self.span(document.at), self.span(document.name_at))
    }

    /// The file's name, relative to the root of its source.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The problems of this file alone, in the order of its text.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}

/// Parses one file. `file` is its name relative to the root of its source, as diagnostics show it.
#[must_use]
pub fn parse_file(file: &str, text: &str) -> ParsedFile {
    parse_file_within(file, text, &Rules::default())
}

/// The same, for a file of a hub with rules of its own.
#[must_use]
pub fn parse_file_within(file: &str, text: &str, rules: &Rules) -> ParsedFile {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let places = Places::new(file, text);
    let (documents, mut problems) = read_documents(text);
    let unparsed = documents.iter().find(|document| !document.parses).map(|document| places.span(document.at));
    let mut shared = Shared { rules, labels: BTreeSet::new(), sensitive: BTreeSet::new() };
    let ends: Vec<usize> =
        documents.iter().skip(1).map(|document| document.at).chain(std::iter::once(text.len())).collect();
    let read = documents.iter().zip(ends).map(|(document, end)| {
        let read = read_document(document, &places, &mut problems, &mut shared);
        let mentioned = mentioned_paths(&text[document.at..end.max(document.at)]);
        if !mentioned.is_empty() {
            hide_values(problems.iter_mut().filter(|problem| (document.at..=end).contains(&problem.at)), &mentioned);
            if matches!(read.content, Declares::Broken(_)) {
                shared.sensitive.extend(mentioned);
            }
        }
        read
    });
    let documents = read.collect();
    let diagnostics = diagnostics(problems, &places);
    ParsedFile { name: places.file, documents, unparsed, sensitive: shared.sensitive, diagnostics }
}

fn diagnostics(mut problems: Vec<Problem>, places: &Places<'_>) -> Vec<Diagnostic> {
    problems.sort_by_key(|problem| problem.at);
    let total = problems.len();
    let cut = problems.get(DIAGNOSTICS_MAX).map(|problem| problem.at);
    problems.truncate(DIAGNOSTICS_MAX);
    problems.extend(cut.map(|at| Problem {
        at,
        warning: false,
        path: String::new(),
        rule: "too-many",
        message: format!("{total} problems in this file, the first {DIAGNOSTICS_MAX} are listed; fix these first"),
    }));
    problems.into_iter().map(|problem| places.diagnostic(problem)).collect()
}

/// What the documents of a file have in common.
struct Shared<'a> {
    rules: &'a Rules,
    labels: BTreeSet<Labels>,
    sensitive: BTreeSet<Subtree>,
}

impl Shared<'_> {
    /// Refuses leaves that this hub's manifests may not declare.
    fn check_allowed(&self, checker: &mut Checker<'_>, wanted: &Wanted, offsets: &[usize]) {
        let allow = &self.rules.allow;
        if allow.is_empty() {
            return;
        }
        let leaves = Section::ALL.into_iter().flat_map(|section| {
            leaves_of(wanted.section(section)).into_iter().map(move |(path, _)| Leaf { section, path })
        });
        for (leaf, at) in leaves.zip(offsets) {
            if !allow.iter().any(|subtree| subtree.covers(&leaf)) {
                let allowed: Vec<String> = allow.iter().map(ToString::to_string).collect();
                let message = format!(
                    "{leaf} may not be declared on this hub, whose settings allow {}; remove it, or extend `allow`",
                    allowed.join(", ")
                );
                checker.error(*at, format!("spec.{leaf}"), "not-allowed", message);
            }
        }
    }

    /// The same labels as an earlier twin of the file carries, if one does.
    fn labels(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        self.labels.insert(labels.clone());
        labels
    }
}

/// Turns offsets into lines and columns.
struct Places<'t> {
    file: Arc<str>,
    text: &'t str,
    /// The offset of each line.
    lines: Vec<usize>,
}

impl<'t> Places<'t> {
    fn new(file: &str, text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { file: file.into(), text, lines: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn span(&self, at: usize) -> FileSpan {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        // An offset from the parser may, in broken text, lie inside a character.
        let before = &self.text.as_bytes()[start..at.min(self.text.len())];
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        FileSpan { file: self.file.clone(), line, column }
    }

    fn spot(&self, at: usize) -> Spot {
        spot(&self.span(at))
    }

    /// Lines and columns of many offsets; the text is walked once, however long its lines are.
    fn leaf_places(&self, offsets: &[usize]) -> LeafPlaces {
        let mut order: Vec<usize> = (0..offsets.len()).collect();
        order.sort_by_key(|index| offsets[*index]);
        let mut found = vec![(0, 0); offsets.len()];
        let (mut line, mut from, mut column) = (0, 0, 1);
        for index in order {
            let at = offsets[index].min(self.text.len());
            let now = self.lines.partition_point(|start| *start <= at);
            if now != line {
                (line, from, column) = (now, self.lines[now - 1], 1);
            }
            column += self.text.as_bytes()[from..at].iter().filter(|byte| **byte & 0xC0 != 0x80).count();
            from = at;
            found[index] = (narrow(line), narrow(column));
        }
        found.into()
    }

    fn checker<'p>(&'p self, problems: &'p mut Vec<Problem>) -> Checker<'p> {
        Checker { source: self.text, problems }
    }

    fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let FileSpan { file, line, column } = self.span(problem.at);
        let severity = if problem.warning { Severity::Warning } else { Severity::Error };
        Diagnostic { file, line, column, severity, path: problem.path, rule: problem.rule, message: problem.message }
    }
}

fn read_document(
    document: &Document,
    places: &Places<'_>,
    problems: &mut Vec<Problem>,
    shared: &mut Shared<'_>,
) -> ParsedDocument {
    let span = places.span(document.at);
    let before = problems.len();
    let read = read_root(document, &span, places, &mut places.checker(problems));
    match &read {
        Some(Read::Twin(twin)) => shared.check_allowed(&mut places.checker(problems), &twin.wanted, &twin.leaves),
        Some(Read::Profile(profile, leaves)) => {
            shared.check_allowed(&mut places.checker(problems), &profile.wanted, leaves);
        }
        Some(Read::Query(query, _)) => {
            let (checker, rules) = (&mut places.checker(problems), shared.rules);
            check_seals(checker, &rules.seals, &query.spec.evaluate, query.query_at);
            check_prefix(checker, &rules.metric_prefix, &query.spec.metrics, &query.metrics_at);
        }
        None => {}
    }
    let is_broken = document.is_broken || problems[before..].iter().any(|problem| !problem.warning);
    let content = match read.filter(|_| !is_broken) {
        Some(Read::Twin(twin)) => {
            warn_if_nothing_is_declared(&mut places.checker(problems), document.at, &twin);
            declared_twin(twin, places, shared)
        }
        Some(Read::Profile(mut profile, leaves)) => {
            profile.wanted.places = places.leaf_places(&leaves);
            shared.sensitive.extend(profile.wanted.sensitive.iter().cloned());
            Declares::Profile(Arc::from(profile))
        }
        Some(Read::Query(query, metrics)) => Declares::Query(query, metrics),
        None => Declares::Broken(identity(&document.names())),
    };
    let name = document.root.as_ref().and_then(|root| root.get("metadata")?.get("name"));
    let at = spot(&span);
    ParsedDocument { at, name_at: name.map_or(at, |name| places.spot(name.at)), content }
}

/// What a document declares; a twin is packed only once it is known to be good.
enum Read {
    Twin(Box<ReadTwin>),
    /// With the offset of each leaf.
    Profile(Box<Profile>, Vec<usize>),
    /// With the place of each metric.
    Query(Arc<QueryDocument>, Vec<FileSpan>),
}

/// A twin as it is kept.
fn declared_twin(read: Box<ReadTwin>, places: &Places<'_>, shared: &mut Shared<'_>) -> Declares {
    let ReadTwin { twin, mut manifest, mut wanted, leaves } = *read;
    wanted.places = places.leaf_places(&leaves);
    shared.sensitive.extend(wanted.sensitive.iter().cloned());
    manifest.labels = shared.labels(manifest.labels);
    manifest.wanted = wanted.into();
    Declares::Twin(twin, Arc::new(manifest))
}

fn spot(span: &FileSpan) -> Spot {
    Spot { line: narrow(span.line), column: narrow(span.column) }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What the document declares, if it can be told; a document with an error is broken all the same.
fn read_root(document: &Document, span: &FileSpan, places: &Places<'_>, checker: &mut Checker<'_>) -> Option<Read> {
    let root = document.root.as_ref()?;
    let api_version = root.get("apiVersion").and_then(super::tree::Node::text);
    if let Some(other) = api_version.filter(|version| *version != API_VERSION) {
        let at = root.get("apiVersion").map_or(root.at, |node| node.at);
        let is_ours = other.starts_with(API_GROUP);
        let remedy = if is_ours { "write that version" } else { "move other files out of this folder" };
        let message = format!("expected {API_VERSION}, found {:?}; {remedy}", shortened(other));
        checker.error(at, "apiVersion".to_owned(), "api-version", message);
        if !is_ours {
            return None;
        }
    }
    let fields = checker.fields(root, "", &DOCUMENT)?;
    if let Some(entry) = checker.required(&fields, "apiVersion", &format!("write apiVersion: {API_VERSION}")) {
        checker.text(&entry.value, "apiVersion");
    }
    let kind =
        checker.required(&fields, "kind", "write kind: and one of DeviceTwin, ModuleTwin, TwinProfile, TwinQuery")?;
    match checker.text(&kind.value, "kind")? {
        "DeviceTwin" => Some(Read::Twin(Box::new(read_device_twin(checker, &fields, span.clone())?))),
        "ModuleTwin" => Some(Read::Twin(Box::new(read_module_twin(checker, &fields, span.clone())?))),
        "TwinProfile" => {
            let (profile, leaves) = read_twin_profile(checker, &fields, span.clone(), &|at| places.span(at))?;
            Some(Read::Profile(Box::new(profile), leaves))
        }
        "TwinQuery" => {
            let query = read_twin_query(checker, &fields)?;
            let metrics = query.metrics_at.iter().map(|at| places.span(*at)).collect();
            Some(Read::Query(Arc::new(query), metrics))
        }
        other => {
            let kinds = KINDS.map(|(kind, ..)| kind);
            let hint =
                did_you_mean(other, kinds.into_iter()).unwrap_or_else(|| format!("kinds are {}", kinds.join(", ")));
            let message = format!("unknown kind {:?}; {hint}", shortened(other));
            checker.error(kind.value.at, "kind".to_owned(), "unknown-kind", message);
            None
        }
    }
}

/// What a broken document is about, by its names alone.
fn identity(names: &Names) -> Identity {
    let device = |name: &Option<String>| name.as_deref().and_then(|name| DeviceId::new(name).ok());
    let known = match names.kind.as_deref() {
        Some("DeviceTwin") => device(&names.name).map(|id| Identity::Twin(TwinRef::device(id))),
        Some("ModuleTwin") => {
            let module = names.name.as_deref().and_then(|name| ModuleId::new(name).ok());
            device(&names.device).zip(module).map(|(id, module)| Identity::Twin(TwinRef::module(id, module)))
        }
        Some("TwinQuery") => names.name.clone().filter(|name| is_query_name(name)).map(Identity::Query),
        Some("TwinProfile") => names.name.clone().filter(|name| is_query_name(name)).map(Identity::Profile),
        Some(_) | None => {
            let is_foreign = names.api_version.as_deref().is_some_and(|version| !version.starts_with(API_GROUP));
            is_foreign.then_some(Identity::Foreign)
        }
    };
    known.unwrap_or(Identity::Unknown)
}
