//! What a person most likely did where the YAML library can only say that it stumbled.
//!
//! Invariant: asked only about text that does not parse, so a guess never refuses what could be read.

/// What a merge that was not finished leaves at the beginning of lines.
const CONFLICT_MARKS: [&str; 4] = ["<<<<<<< ", "||||||| ", "=======", ">>>>>>> "];
/// What begins an expression or a statement of Helm, Jinja and their like.
const TEMPLATE_MARKS: [&str; 2] = ["{{", "{%"];

/// The remedy where a template stands in the place of a value.
pub(super) const TEMPLATE: &str = "a template is not rendered here; render it before you commit";

/// A place in the document, its rule and what to do.
pub(super) type Slip = (usize, &'static str, String);

/// Whether the text of the line around `index` holds a template's expression.
pub(super) fn has_template(text: &str, index: usize) -> bool {
    line_at(text, index).is_some_and(|(_, line)| TEMPLATE_MARKS.iter().any(|mark| line.contains(mark)))
}

/// The first mark of an unfinished merge.
pub(super) fn conflict(slice: &str) -> Option<Slip> {
    let mut start = 0;
    for line in slice.split_inclusive('\n') {
        if CONFLICT_MARKS.iter().any(|mark| line.starts_with(mark)) {
            return Some((
                start,
                "merge-conflict",
                "a merge was left unfinished here; resolve the conflict".to_owned(),
            ));
        }
        start += line.len();
    }
    None
}

/// Where the library met an error at `index` and says `message`.
pub(super) fn slip_at(slice: &str, index: usize, message: &str) -> Option<Slip> {
    let (start, line) = line_at(slice, index)?;
    let indentation = line.len() - line.trim_start().len();
    if let Some(tab) = line[..indentation].find('\t') {
        return Some((start + tab, "tab", "a tab indents this line; indent with spaces".to_owned()));
    }
    if let Some(mark) = TEMPLATE_MARKS.iter().find_map(|mark| line.find(mark)) {
        return Some((start + mark, "template", TEMPLATE.to_owned()));
    }
    separator(slice, start, line).or_else(|| open_quote(slice, message))
}

/// The library notices at the dashes or at the line after them.
fn separator(slice: &str, start: usize, line: &str) -> Option<Slip> {
    let above = slice[..start].trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    [(start, line), (above, slice[above..].lines().next()?)].into_iter().find_map(|(start, line)| {
        let text = line.trim();
        let is_separator = text.len() > 1 && text.bytes().all(|byte| byte == b'-');
        let message = "this line separates no documents; write --- at its beginning, and nothing else".to_owned();
        is_separator.then(|| (start + line.len() - line.trim_start().len(), "separator", message))
    })
}

/// The library notices a quote that nobody closes at the end of the text, and says where it is opened.
fn open_quote(slice: &str, message: &str) -> Option<Slip> {
    let (_, place) = message.split_once("while scanning a quoted scalar at line ")?;
    let (line, column) = place.split_once(" column ")?;
    let line: usize = line.parse().ok()?;
    let column: usize = column.trim_end().parse().ok()?;
    let start: usize = slice.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let (within, quote) = slice.get(start..)?.char_indices().nth(column.checked_sub(1)?)?;
    let problem = format!("not valid YAML: this {quote} is never closed; close it, or take it away");
    matches!(quote, '"' | '\'').then_some((start + within, "yaml-syntax", problem))
}

/// The line that `index` lies in, and where it begins.
fn line_at(text: &str, index: usize) -> Option<(usize, &str)> {
    let before = text.as_bytes().get(..index)?;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Some((start, text.get(start..)?.lines().next().unwrap_or_default()))
}
