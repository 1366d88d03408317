//! Cutting a file into documents, before any parser sees it.
//!
//! Invariant: the pieces lie side by side and are the whole text.

/// Whether a line holds no content: blank, a comment, or a bare document marker.
pub(super) fn is_blank(line: &str) -> bool {
    let content = if is_marker(line, "---") || is_marker(line, "...") { &line[3..] } else { line }.trim();
    content.is_empty() || content.starts_with('#')
}

/// Whether a line is, or begins with, this document marker.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The documents' offsets and texts. A line that begins with `---` or `...` and a blank is a marker even inside a
/// quoted or block text (YAML 1.2.2, 9.1.2), so this needs no parser.
pub(super) fn cut(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut start, mut offset) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if is_marker(line, "---") && offset > start {
            documents.push((start, &text[start..offset]));
            start = offset;
        }
        offset += line.len();
        if is_marker(line, "...") {
            documents.push((start, &text[start..offset]));
            start = offset;
        }
    }
    documents.push((start, &text[start..]));
    documents
}

/// The offset of the first line with content, or of the marker it stands on.
pub(super) fn content_start(start: usize, slice: &str) -> usize {
    let mut offset = start;
    for line in slice.split_inclusive('\n') {
        if !is_blank(line) {
            return offset + (line.len() - line.trim_start().len());
        }
        offset += line.len();
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_cut_and_everything_that_only_looks_like_one_does_not() {
        for (text, expected) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("---\na\n--- b\n", &["---\na\n", "--- b\n"]),
            ("a\n...\nb\n---\tc", &["a\n...\n", "b\n", "---\tc"]),
            ("a\r\n---\r\nb", &["a\r\n", "---\r\nb"]),
            ("----\n---a\n ---\n....\n", &["----\n---a\n ---\n....\n"]),
        ] {
            let pieces: Vec<&str> = cut(text).into_iter().map(|(_, piece)| piece).collect();
            assert_eq!(pieces.concat(), text);
            let filled: Vec<&str> = pieces.into_iter().filter(|piece| !piece.is_empty() || text.is_empty()).collect();
            assert_eq!(filled, expected, "{text:?}");
        }
        for (line, blank) in [
            ("", true),
            (" # x", true),
            ("---", true),
            ("--- # x", true),
            ("---# x", false),
            ("--- x", false),
            ("----", false),
        ] {
            assert_eq!(is_blank(line), blank, "{line:?}");
        }
    }
}
