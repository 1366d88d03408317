//! Diagnostics as people, scripts and GitHub read them.
//!
//! Invariant: a line that may hold a sensitive value is never drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::manifest::{Diagnostic, Severity};
use crate::plan::Subtree;

/// The most of a source line that is drawn, in characters.
const DRAWN_MAX: usize = 160;
/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// With the source line and a caret
    #[default]
    Text,
    /// One JSON document
    Json,
    /// Annotations of a GitHub workflow
    Github,
}

/// One JSON document with everything.
pub(super) fn json(diagnostics: &[Diagnostic], files: usize) -> String {
    let one = |found: &Diagnostic| {
        json!({
            "file": &*found.file,
            "line": found.line,
            "column": found.column,
            "severity": found.severity.as_str(),
            "path": found.path,
            "rule": found.rule,
            "message": found.message,
        })
    };
    let list: Vec<_> = diagnostics.iter().map(one).collect();
    json!({ "formatVersion": FORMAT_VERSION, "files": files, "diagnostics": list }).to_string()
}

/// One workflow command; `folder` is what the files' names are relative to.
pub(super) fn github(found: &Diagnostic, folder: &Path) -> String {
    let level = if found.severity == Severity::Error { "error" } else { "warning" };
    let file = property(&folder.join(&*found.file).to_string_lossy());
    let place = if found.line > 0 { format!(",line={},col={}", found.line, found.column) } else { String::new() };
    let path = if found.path.is_empty() { String::new() } else { format!(" ({})", found.path) };
    let message = data(&format!("{}{path}", found.message));
    format!("::{level} file={file}{place},title={}::{message}", property(found.rule))
}

/// The text of a workflow command may hold no line break, nor a percent sign of its own.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Draws lines of files, each read once.
pub(super) struct Drawing<'a> {
    folder: &'a Path,
    /// Sensitive paths. A line that names the last key of one is not drawn, nor one with a problem at or beneath one.
    hidden: &'a BTreeSet<Subtree>,
    files: BTreeMap<String, Vec<String>>,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(folder: &'a Path, hidden: &'a BTreeSet<Subtree>) -> Self {
        Self { folder, hidden, files: BTreeMap::new() }
    }

    /// The source line with a caret beneath; `None` when there is none to draw.
    pub(super) fn draw(&mut self, found: &Diagnostic) -> Option<String> {
        // A file that is meant as a whole may be none that can be read to an end.
        let line = found.line.checked_sub(1)?;
        let lines = self.files.entry(found.file.to_string()).or_insert_with(|| {
            let text = std::fs::read_to_string(self.folder.join(&*found.file)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        });
        let line = lines.get(line)?;
        // A file that calls anything sensitive is not drawn from where it is not known what a line belongs to, or what is
        // sensitive: a broken manifest does not tell.
        let unknown = found.path.is_empty() || found.severity == Severity::Error;
        let is_unclear = unknown && lines.iter().any(|line| line.contains("sensitive"));
        if found.column > DRAWN_MAX || is_unclear || self.hidden.iter().any(|path| may_show(path, line, found)) {
            return None;
        }
        let drawn: String = line.chars().take(DRAWN_MAX).map(|c| if c == '\t' { ' ' } else { c }).collect();
        let number = found.line.to_string();
        let margin = " ".repeat(number.len());
        Some(format!("{number} | {drawn}\n{margin} | {}^", " ".repeat(found.column.saturating_sub(1))))
    }
}

/// Whether a line may hold a value of the path.
fn may_show(path: &Subtree, line: &str, found: &Diagnostic) -> bool {
    let names_it = path.path.keys().last().is_none_or(|key| line.contains(key.as_str()));
    let full = format!("spec.{path}");
    names_it || found.path.starts_with(&full) || (found.path.starts_with("spec.") && full.starts_with(&found.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(message: &str) -> Diagnostic {
        Diagnostic {
            file: "plant/a,b.yaml".into(),
            line: 2,
            column: 3,
            severity: Severity::Error,
            path: "spec.tags".to_owned(),
            rule: "wrong-type",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_workflow_command_cannot_be_broken_out_of() {
        assert_eq!(
            github(&found("50% of\n::error::x"), Path::new("m")),
            "::error file=m/plant/a%2Cb.yaml,line=2,col=3,title=wrong-type::50%25 of%0A::error::x (spec.tags)"
        );
    }

    #[test]
    fn json_says_its_version_and_everything_of_each_problem() {
        let text = json(&[found("m")], 3);
        assert!(text.contains(r#""formatVersion":1"#) && text.contains(r#""files":3"#), "{text}");
        assert!(text.contains(r#""rule":"wrong-type""#) && text.contains(r#""line":2"#), "{text}");
    }

    #[test]
    fn the_caret_stands_beneath_the_column_and_secrets_are_not_drawn() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plant")).unwrap();
        std::fs::write(folder.path().join("plant/a,b.yaml"), "first\n\tü x: 1\n").unwrap();
        let nothing = BTreeSet::new();
        let drawn = Drawing::new(folder.path(), &nothing).draw(&found("m"));
        assert_eq!(drawn.as_deref(), Some("2 |  ü x: 1\n  |   ^"));
        for hidden in ["tags.y.x", "tags", "properties.desired"] {
            let hidden = BTreeSet::from([Subtree::parse(hidden).unwrap()]);
            assert_eq!(Drawing::new(folder.path(), &hidden).draw(&found("m")), None);
        }
        std::fs::write(folder.path().join("plant/a,b.yaml"), "sensitive: [tags.k\n  a value: [\n").unwrap();
        let syntax = Diagnostic { path: String::new(), ..found("m") };
        assert_eq!(Drawing::new(folder.path(), &nothing).draw(&syntax), None, "whose value it is cannot be told");
        std::fs::write(folder.path().join("plant/a,b.yaml"), "sensitive: [tags.k]\n  k.x: 1\n").unwrap();
        assert_eq!(Drawing::new(folder.path(), &nothing).draw(&found("m")), None, "what is sensitive was not read");
    }
}
