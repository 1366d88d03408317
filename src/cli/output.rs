//! What people read on a terminal.
//!
//! Invariant: text of a hub or a device reaches a terminal with its control characters escaped, and a closed pipe is
//! the end of the output, not of the process.

use std::io::{ErrorKind, IsTerminal as _, Write};

use crate::app::Colour;

/// Standard output or standard error.
pub(super) struct Output<W> {
    stream: W,
    coloured: bool,
    /// Whether the verb is for what it writes here: then it has failed when it cannot be written.
    is_result: bool,
}

/// How a line looks where there is colour; everywhere else it is the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// What other lines stand under.
    Heading,
    Added,
    Changed,
    Removed,
    /// What needs somebody.
    Trouble,
}

impl Style {
    /// The attributes of a terminal (ECMA-48) that make it; empty for none.
    const fn attributes(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "1",
            Self::Added => "32",
            Self::Changed => "33",
            Self::Removed => "31",
            Self::Trouble => "35",
        }
    }
}

impl Output<std::io::Stdout> {
    pub(super) fn stdout() -> Self {
        Self { stream: std::io::stdout(), coloured: false, is_result: true }
    }

    pub(super) fn coloured_stdout(colour: Colour) -> Self {
        let stream = std::io::stdout();
        let coloured = colour.is_on(stream.is_terminal());
        Self { stream, coloured, is_result: true }
    }

    /// For a verb that does something and tells of it on the way: it goes on when nobody can be told.
    pub(super) fn beside_the_work(self) -> Self {
        Self { is_result: false, ..self }
    }
}

impl Output<std::io::Stderr> {
    pub(super) fn stderr() -> Self {
        Self { stream: std::io::stderr(), coloured: false, is_result: false }
    }
}

impl<W: Write> Output<W> {
    /// One line, or several.
    pub(super) fn line(&mut self, text: &str) {
        self.styled(Style::Plain, text);
    }

    /// One JSON document on one line. JSON lets two kinds of control characters stand; they are escaped as it does.
    pub(super) fn json(&mut self, document: &serde_json::Value) {
        self.line(&json_text(document));
    }

    /// One item of a JSON list on a line of its own, behind others or as the first.
    pub(super) fn json_item(&mut self, item: &serde_json::Value, is_later: bool) {
        let comma = if is_later { "," } else { "" };
        self.line(&format!("{comma}{}", json_text(item)));
    }

    /// A text of our own as it is, tabs and all.
    pub(super) fn text(&mut self, text: &str) {
        let written = self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush());
        self.must_have(written);
    }

    /// Begins a terminal's screen anew (ECMA-48); nothing stays switched when the process ends in between.
    pub(super) fn clear(&mut self) {
        self.text("\u{1b}[H\u{1b}[2J");
    }

    /// One line, or several, of one look.
    pub(super) fn styled(&mut self, style: Style, text: &str) {
        let text = printable(text);
        let attributes = if self.coloured { style.attributes() } else { "" };
        let written = if attributes.is_empty() {
            writeln!(self.stream, "{text}")
        } else {
            writeln!(self.stream, "\u{1b}[{attributes}m{text}\u{1b}[0m")
        };
        let written = written.and_then(|()| self.stream.flush());
        self.must_have(written);
    }

    /// Nobody reads on when the pipe is closed; the exit code still tells. A full disk would leave half a result that
    /// looks like one, so the process ends there.
    fn must_have(&self, written: std::io::Result<()>) {
        if let Err(error) = written
            && self.is_result
            && error.kind() != ErrorKind::BrokenPipe
        {
            print_error(&anyhow::anyhow!("cannot write the result to standard output: {error}"));
            std::process::exit(2);
        }
    }
}

fn json_text(document: &serde_json::Value) -> String {
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    document.to_string().chars().map(escape).collect()
}

/// One line on standard error: what, and why, and the remedy.
pub(super) fn print_error(error: &anyhow::Error) {
    let text = format!("{error:#}");
    Output::stderr().line(&format!("error: {}", text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ")));
}

/// `text` with every control character but the newline escaped.
pub(super) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// `1 twin`, `2 twins`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_around_the_text_and_never_of_the_text() {
        let mut out = Output { stream: Vec::new(), coloured: true, is_result: false };
        out.styled(Style::Added, "+ a\u{1b}[31m");
        out.line("b");
        out.coloured = false;
        out.styled(Style::Removed, "- c");
        let written = String::from_utf8(out.stream).unwrap();
        assert_eq!(written, "\u{1b}[32m+ a\\u{1b}[31m\u{1b}[0m\nb\n- c\n");
    }

    #[test]
    fn json_stays_json_whatever_is_in_it() {
        let mut out = Output { stream: Vec::new(), coloured: false, is_result: false };
        let document = serde_json::json!({ "a": "x\u{7f}\u{9b}\u{1b}\n" });
        out.json(&document);
        let written = String::from_utf8(out.stream).unwrap();
        assert!(!written.trim_end().contains(char::is_control), "{written:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), document);
    }

    #[test]
    fn control_characters_of_others_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}\u{7f}\r\n"), "a\\u{1b}[31mb\\u{9b}\\u{7f}\\r\n");
        assert_eq!(printable("Gerät 1"), "Gerät 1");
    }
}
