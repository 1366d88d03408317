//! What people read on a terminal.
//!
//! Invariant: text of a hub or a device reaches a terminal with its control characters escaped, and a closed pipe is
//! the end of the output, not of the process.

use std::io::Write;

/// Standard output or standard error.
pub(super) struct Output<W> {
    stream: W,
}

impl Output<std::io::Stdout> {
    pub(super) fn stdout() -> Self {
        Self { stream: std::io::stdout() }
    }
}

impl Output<std::io::Stderr> {
    pub(super) fn stderr() -> Self {
        Self { stream: std::io::stderr() }
    }
}

impl<W: Write> Output<W> {
    /// One line, or several.
    pub(super) fn line(&mut self, text: &str) {
        // Nobody reads on when the pipe is closed; the exit code still tells.
        let _ = writeln!(self.stream, "{}", printable(text)).and_then(|()| self.stream.flush());
    }
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
    fn control_characters_of_others_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}\u{7f}\r\n"), "a\\u{1b}[31mb\\u{9b}\\u{7f}\\r\n");
        assert_eq!(printable("Gerät 1"), "Gerät 1");
    }
}
