//! Typed reading of a document's tree: fields, types and did-you-mean.
//!
//! Invariant: every field is known, refused by name, or an error; none is ignored silently. All problems of a document
//! come out of one pass.

use std::time::Duration;

use super::shape::Shape;
use super::tree::{Content, Entry, Node, Problem, shortened};

/// How alike two words must be for a did-you-mean, as Jaro-Winkler similarity.
const SIMILARITY_MIN: f64 = 0.8;

/// Collects the problems of one document.
pub(super) struct Checker<'p> {
    /// The file's text, that offsets are of.
    pub(super) source: &'p str,
    pub(super) problems: &'p mut Vec<Problem>,
}

/// A mapping whose field names were checked.
pub(super) struct Fields<'n> {
    /// Where a missing field is reported.
    pub(super) at: usize,
    path: String,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The path of a field of this mapping.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// `path` with one key more.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Checker<'_> {
    pub(super) fn error(&mut self, at: usize, path: String, rule: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { at, warning: false, path, rule, message: message.into() });
    }

    pub(super) fn warning(&mut self, at: usize, path: String, rule: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { at, warning: true, path, rule, message: message.into() });
    }

    /// Where in the file the byte `at` of `text` stands, which is what `node` says; the node's own place where that
    /// cannot be told.
    pub(super) fn place_within(&self, node: &Node, text: &str, at: usize) -> usize {
        place_within(self.source, node.at, text, at).unwrap_or(node.at)
    }

    /// `node` as a mapping of the fields of `shape`. Those for later are refused as not supported yet, any other as
    /// unknown.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, path: &str, shape: &Shape) -> Option<Fields<'n>> {
        let entries = self.mapping(node, path)?;
        for entry in entries {
            let key = entry.key.as_str();
            if shape.later.contains(&key) {
                self.not_supported(entry.at, join(path, key), &format!("the field {key}"));
            } else if !shape.has(key) {
                let names = shape.names().chain(shape.later.iter().copied());
                let list = || {
                    if shape.has("properties") && ["desired", "reported"].contains(&key) {
                        return format!("write it beneath properties, as properties.{key}");
                    }
                    format!("fields here are {}", shape.names().collect::<Vec<_>>().join(", "))
                };
                // Out of the habit of Kubernetes; "name" is the most alike, and not what is meant.
                let habit = (key == "namespace").then(|| "there are no namespaces; remove it".to_owned());
                let hint = habit.or_else(|| did_you_mean(key, names)).unwrap_or_else(list);
                let message = format!("unknown field {:?}; {hint}", shortened(key));
                self.error(entry.at, join(path, key), "unknown-field", message);
            }
        }
        Some(Fields { at: node.at, path: path.to_owned(), entries })
    }

    pub(super) fn not_supported(&mut self, at: usize, path: String, what: &str) {
        self.error(at, path, "not-supported", format!("{what} is not supported by this version yet; remove it"));
    }

    /// The field, or a problem when it is missing.
    pub(super) fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, remedy: &str) -> Option<&'n Entry> {
        let entry = fields.get(key);
        if entry.is_none() {
            self.error(fields.at, fields.path(key), "missing-field", format!("{key} is missing; {remedy}"));
        }
        entry
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        if node.content != Content::Refused {
            let message = format!("expected {expected}, found {}", node.content.describe());
            self.error(node.at, path.to_owned(), "wrong-type", message);
        }
    }

    pub(super) fn mapping<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Entry]> {
        let entries = node.entries();
        if entries.is_none() {
            self.wrong_type(node, path, "a mapping");
        }
        entries
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Node]> {
        if let Content::List(items) = &node.content {
            return Some(items);
        }
        self.wrong_type(node, path, "a list");
        None
    }

    pub(super) fn bool(&mut self, node: &Node, path: &str) -> Option<bool> {
        if let Content::Bool(value) = node.content {
            return Some(value);
        }
        self.wrong_type(node, path, "true or false");
        None
    }

    /// A text. What YAML takes for a number or boolean is refused with the remedy.
    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        let text = node.text();
        if text.is_none() {
            let quoted = matches!(node.content, Content::Bool(_) | Content::Number(..));
            self.wrong_type(node, path, if quoted { "a text in quotes" } else { "a text" });
        }
        text
    }

    /// A whole number within `range`.
    pub(super) fn count(&mut self, node: &Node, path: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        if let Content::Number(crate::twin::Number::Integer(value), _) = node.content {
            let value = usize::try_from(value).ok().filter(|value| range.contains(value));
            if value.is_none() {
                let message =
                    format!("expected {} to {}, found {}", range.start(), range.end(), node.content.describe());
                self.error(node.at, path.to_owned(), "out-of-range", message);
            }
            return value;
        }
        self.wrong_type(node, path, "a whole number");
        None
    }

    /// A duration such as `5m`, `1h30m` or `90s`.
    pub(super) fn duration(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let duration = node.text().and_then(parse_duration);
        if duration.is_none() {
            self.wrong_type(node, path, "a duration such as 90s, 5m or 1h30m");
        }
        duration
    }

    /// A list of texts; each with the node it stands at and its path.
    pub(super) fn text_list<'n>(&mut self, node: &'n Node, path: &str) -> Vec<(&'n Node, String, &'n str)> {
        let items = self.list(node, path).unwrap_or_default().iter().enumerate();
        let texts = items.filter_map(|(index, item)| {
            let path = format!("{path}[{index}]");
            self.text(item, &path).map(|text| (item, path, text))
        });
        texts.collect()
    }

    /// One of a few words.
    pub(super) fn word(&mut self, node: &Node, path: &str, words: &'static [&'static str]) -> Option<&'static str> {
        let text = self.text(node, path)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let hint = did_you_mean(text, words.iter().copied()).map(|hint| format!("; {hint}")).unwrap_or_default();
            let message = format!("expected {}, found {}{hint}", words.join(" or "), node.content.describe());
            self.error(node.at, path.to_owned(), "unknown-value", message);
        }
        found
    }

    /// A mapping of texts.
    pub(super) fn texts<'n>(&mut self, node: &'n Node, path: &str) -> Vec<(&'n Entry, &'n str)> {
        let entries = self.mapping(node, path).unwrap_or_default();
        entries.iter().filter_map(|entry| Some((entry, self.text(&entry.value, &join(path, &entry.key))?))).collect()
    }
}

/// The offset in `source` of the byte `at` of `text`, a scalar written from `start` on: plain, quoted or as a block. White
/// space counts as one, since folding changes it; escapes cannot be followed.
fn place_within(source: &str, start: usize, text: &str, at: usize) -> Option<usize> {
    let scalar = source.get(start..)?;
    let first = scalar.chars().next()?;
    let quote = ['"', '\''].into_iter().find(|quote| *quote == first);
    let written = start + quote.map_or(0, char::len_utf8);
    aligned(source, written, quote, text, at).or_else(|| {
        // A block stands at its key, and is written from the next line on.
        let (head, _) = scalar.split_once('\n')?;
        let is_block = head.rsplit(' ').next()?.starts_with(['|', '>']);
        is_block.then(|| aligned(source, start + head.len(), None, text, at))?
    })
}

fn aligned(source: &str, start: usize, quote: Option<char>, text: &str, at: usize) -> Option<usize> {
    let mut written = source.get(start..)?.char_indices().peekable();
    for (offset, wanted) in text.char_indices().filter(|(_, wanted)| !wanted.is_whitespace()) {
        while written.next_if(|(_, character)| character.is_whitespace()).is_some() {}
        let (found, character) = written.next()?;
        if character != wanted {
            return None;
        }
        if offset >= at {
            return Some(start + found);
        }
        if quote == Some('\'') && character == '\'' {
            written.next_if(|(_, doubled)| *doubled == '\'')?;
        }
    }
    // The end of the text: behind its last character.
    written.next().map(|(found, _)| start + found)
}

/// `did you mean "x"?` for the most alike of `names`.
pub(super) fn did_you_mean<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let folded = word.to_lowercase();
    let alike = |name: &str| strsim::jaro_winkler(&folded, &name.to_lowercase());
    names
        .map(|name| (alike(name), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

/// `1h30m`: whole numbers with the units h, m and s, each at most once and in this order.
fn parse_duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest, mut found) = (0_u64, text, false);
    for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let amount: u64 = if plain { digits.parse().ok()? } else { return None };
            seconds = seconds.checked_add(amount.checked_mul(factor)?)?;
            (rest, found) = (after, true);
        }
    }
    (found && rest.is_empty()).then(|| Duration::from_secs(seconds))
}

/// A duration as manifests write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_strictly_and_print_back() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h0m5s", 3605), ("0s", 0), ("24h", 86400)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "5", "m", "5 m", "-5m", "+5m", "1.5h", "30m1h", "5m5m", "5M", "500ms", "99999999999999999999s", "5m "]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        for (seconds, text) in [(90, "1m30s"), (300, "5m"), (5400, "1h30m"), (0, "0s")] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_place_in_a_scalar_is_found_however_it_is_written() {
        let text = "a = 'x' AND b == 1";
        let at = text.find("== 1").unwrap() + 1;
        for (written, found) in [
            ("a = 'x' AND b == 1", Some("= 1")),
            ("\"a = 'x' AND b == 1\"", Some("= 1\"")),
            ("'a = ''x'' AND b == 1'", Some("= 1'")),
            ("|\n  a = 'x'\n  AND b == 1\n", Some("= 1\n")),
            (">-\n  a = 'x'\n  AND b\n  == 1\n", Some("= 1\n")),
            ("\"a = '\\x78' AND b == 1\"", None),
            ("", None),
        ] {
            let source = format!("where: {written}");
            let start = if written.starts_with(['|', '>']) { 0 } else { 7 };
            let place = place_within(&source, start, text, at);
            assert_eq!(place.map(|at| &source[at..]), found, "{written}");
        }
        assert_eq!(place_within("'a = '", 0, "a =", 3), Some(4), "the end of the text");
        assert_eq!(place_within("\"a =\"", 0, "a =", 3), Some(4));
    }

    #[test]
    fn a_hint_names_the_most_alike_word_or_none() {
        let hint = |word: &str| did_you_mean(word, ["create", "tags", "removalPolicy"].into_iter());
        assert_eq!(hint("tag").as_deref(), Some("did you mean \"tags\"?"));
        assert_eq!(hint("removal_policy").as_deref(), Some("did you mean \"removalPolicy\"?"));
        assert_eq!(hint("Create").as_deref(), Some("did you mean \"create\"?"));
        assert_eq!(hint("zzz"), None);
    }
}
