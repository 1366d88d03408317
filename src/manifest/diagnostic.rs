//! What is wrong with a manifest, where, and what to do about it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// How much a [`Diagnostic`] weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is not used; it freezes what it declared before.
    Error,
    /// The document is used as it stands.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem of one manifest. Sorts by file, line and column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file, relative to the root of its source.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// Whether the document can be used.
    pub severity: Severity,
    /// Where inside the document, such as `spec.tags.location`; empty when the document as a whole is meant.
    pub path: String,
    /// The rule that is broken: a stable word for scripts, such as `unknown-field`.
    pub rule: &'static str,
    /// What is wrong and the remedy, in one sentence. Quotes the manifest's own keys and values.
    pub message: String,
}

impl Diagnostic {
    /// Whether this makes the document unusable.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: message (path)`; a part that does not apply is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may hold what would begin a line of its own in a log.
        for character in self.file.chars() {
            if character.is_control() { write!(f, "{}", character.escape_debug())? } else { f.write_char(character)? }
        }
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: {}", self.severity.as_str(), self.message)?;
        if !self.path.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_like_a_compiler_s() {
        let mut diagnostic = Diagnostic {
            file: "plant/a.yaml".into(),
            line: 3,
            column: 7,
            severity: Severity::Error,
            path: "spec.tags".to_owned(),
            rule: "wrong-type",
            message: "expected a mapping".to_owned(),
        };
        assert_eq!(diagnostic.to_string(), "plant/a.yaml:3:7: error: expected a mapping (spec.tags)");
        (diagnostic.line, diagnostic.column) = (0, 0);
        diagnostic.severity = Severity::Warning;
        diagnostic.path.clear();
        assert_eq!(diagnostic.to_string(), "plant/a.yaml: warning: expected a mapping");
        diagnostic.file = "a\n2026-01-01 INFO \u{1b}[31m.yaml".into();
        let text = diagnostic.to_string();
        assert_eq!(text, "a\\n2026-01-01 INFO \\u{1b}[31m.yaml: warning: expected a mapping");
    }
}
