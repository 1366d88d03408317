//! Strict reading of YAML: the only file that knows the YAML library.
//!
//! A file is cut into documents at its `---` and `...` lines, which YAML reserves everywhere, and each is read on its
//! own, so one broken document does not hide the others. The library hands out borrowed text, so a scalar's place is
//! where its bytes lie in the file.
//!
//! Invariant: what comes out as a tree has no duplicate key, merge key, tag, anchor, alias, non-string key or
//! non-finite number at any depth, and is at most [`DEPTH_MAX`] levels deep.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use super::cut::{content_start, cut, is_blank};
use super::names::{Names, names_of, read_names};
use super::probe::{ListItem, MapValue, RawScalar, ScalarProbe, Step};
use super::scalar;
use super::slips;
use super::tree::{Content, Entry, Node, Problem};

/// The deepest nesting of mappings and lists: the 10 levels of a section, its place in the document, and some.
pub(super) const DEPTH_MAX: usize = 32;
/// Brackets open at once in one document, comments and quoted text included. The library's scanner takes quadratic
/// time in them.
const OPEN_BRACKETS_MAX: usize = 256;
/// Tags, anchors and aliases reported of one document; each costs one more scan.
const INDICATORS_MAX: usize = 8;
/// Entries of a mapping that are looked through one by one.
const FEW_ENTRIES: usize = 16;

/// The field that documents begin with.
const FIRST_FIELD: &str = "apiVersion";

/// One document of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    /// The offset where it begins: its first line that is neither blank nor a comment.
    pub(super) at: usize,
    /// What was read; `None` when it is not YAML this version takes.
    pub(super) root: Option<Node>,
    /// What names it, as far as it can be told although `root` is `None`.
    refused_names: Names,
    /// Whether it is YAML at all; `false` freezes the whole file.
    pub(super) parses: bool,
    /// Whether the reading met a problem.
    pub(super) is_broken: bool,
}

impl Document {
    /// What names it.
    pub(super) fn names(&self) -> Names {
        self.root.as_ref().map_or_else(|| self.refused_names.clone(), names_of)
    }
}

/// Every document of `text` that is not empty, and every problem met, in document order. `text` has no byte order mark.
pub(super) fn read_documents(text: &str) -> (Vec<Document>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    for (start, slice) in cut(text) {
        if slice.lines().all(is_blank) {
            continue;
        }
        let mut reader = Reader { text, path: String::new(), problems: &mut problems };
        documents.extend(reader.read(start, slice));
    }
    (documents, problems)
}

struct Reader<'p, 'text> {
    text: &'text str,
    /// Where the reading is, as messages say it: `spec.tags.list[2]`.
    path: String,
    problems: &'p mut Vec<Problem>,
}

impl<'text> Reader<'_, 'text> {
    /// `None` for a document without content.
    fn read(&mut self, start: usize, slice: &'text str) -> Option<Document> {
        let at = content_start(start, slice);
        let broken = |refused_names, parses| Some(Document { at, root: None, refused_names, parses, is_broken: true });
        if !self.precheck(start, slice) {
            return broken(Names::default(), false);
        }
        if self.refuse_indicators(start, slice) {
            return broken(read_names(serde_yaml::Deserializer::from_str(slice)), true);
        }
        let problems_before = self.problems.len();
        match (RootSeed { reader: self, at }).deserialize(serde_yaml::Deserializer::from_str(slice)) {
            Ok(Some(root)) => {
                let is_broken = self.problems.len() > problems_before;
                let refused_names = Names::default();
                Some(Document { at, root: Some(root), refused_names, parses: true, is_broken })
            }
            Ok(None) => None,
            Err(_) if let Some((index, rule, message)) = slips::conflict(slice) => {
                self.path.clear();
                self.problem(start + index, rule, message);
                broken(Names::default(), false)
            }
            Err(_) if IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(slice)).is_ok() => {
                let message = "a document is a mapping with apiVersion, kind, metadata and spec".to_owned();
                self.problem(at, "not-a-mapping", message);
                broken(Names::default(), true)
            }
            Err(error) => {
                let index = error.location().map_or(0, |location| location.index()).min(slice.len());
                self.path.clear();
                let text = error.to_string();
                let (index, rule, message) = slips::slip_at(slice, index, &text)
                    .unwrap_or_else(|| (index, "yaml-syntax", format!("not valid YAML: {}", without_places(&text))));
                // A template may have been met on the way already.
                if !self.problems[problems_before..].iter().any(|problem| problem.rule == rule) {
                    self.problem(start + index, rule, message);
                }
                broken(Names::default(), false)
            }
        }
    }

    /// What the library would report without a place, or take too long for.
    fn precheck(&mut self, start: usize, slice: &str) -> bool {
        let mut open = 0_usize;
        for (index, character) in slice.char_indices() {
            match character {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                '\t' | '\n' | '\r' | '\u{85}' => {}
                '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}' => return self.refuse_character(start + index, character),
                control if control.is_control() => return self.refuse_character(start + index, control),
                _ => {}
            }
            if open > OPEN_BRACKETS_MAX {
                let message = format!("more than {OPEN_BRACKETS_MAX} brackets are open at once; flatten the document");
                self.problem(start + index, "too-deep", message);
                return false;
            }
        }
        if let Some(directive) = slice.split_inclusive('\n').find(|line| !is_blank(line))
            && directive.starts_with('%')
        {
            let message = "YAML directives are not taken; remove the line".to_owned();
            self.problem(content_start(start, slice), "directive", message);
            return false;
        }
        true
    }

    fn refuse_character(&mut self, at: usize, character: char) -> bool {
        self.problem(at, "yaml-syntax", format!("the character {character:?} is not allowed in YAML; remove it"));
        false
    }

    /// Reports tags, anchors and aliases, and says whether there are any. With `@` in place of each `&`, `*` and `!`
    /// a text stays a text, but an indicator becomes a scanner error at just that place.
    fn refuse_indicators(&mut self, start: usize, slice: &str) -> bool {
        if !slice.contains(['&', '*', '!']) {
            return false;
        }
        let mut masked = slice.replace(['&', '*', '!'], "@");
        for found in 0..INDICATORS_MAX {
            let error = IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(&masked)).err();
            let Some(index) = error.and_then(|error| error.location()).map(|location| location.index()) else {
                return found > 0;
            };
            let (rule, message) = match slice.as_bytes().get(index) {
                Some(b'&') => ("anchor", "anchors are not taken; write the value out where it is used"),
                Some(b'*') => {
                    ("alias", "aliases are not taken; write the value out, or quote a text that begins with *")
                }
                Some(b'!') => ("tag", "tags are not taken; remove it, or quote a text that begins with !"),
                // Some other error: the reading proper will meet and report it.
                Some(_) | None => return found > 0,
            };
            self.problem(start + index, rule, message.to_owned());
            // A value in the alias's place, nothing in the others': the next scan gets past it.
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",[]{}".contains(byte);
            let length = slice.as_bytes()[index..].iter().position(is_end).unwrap_or(slice.len() - index);
            let filler = if rule == "alias" { "x" } else { " " };
            masked.replace_range(index..index + length, &filler.repeat(length));
        }
        true
    }

    fn problem(&mut self, at: usize, rule: &'static str, message: String) {
        self.problems.push(Problem { at, warning: false, path: self.path.clone(), rule, message });
    }

    /// Where `borrowed` lies in the file's text, if it does.
    fn offset_of(&self, borrowed: &str) -> Option<usize> {
        let offset = borrowed.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        (offset <= self.text.len()).then_some(offset)
    }

    /// A scalar as a node; `fallback` is its place when the text could not be borrowed (block and escaped texts).
    fn scalar(&mut self, raw: RawScalar<'_>, fallback: usize) -> Node {
        let plain = |at, text: &str| Node { at, content: Content::Text { text: text.to_owned(), ambiguous: false } };
        let (text, offset) = match raw {
            RawScalar::Borrowed(text) => (text, self.offset_of(text)),
            RawScalar::Owned(text) => return Node { at: fallback, content: Content::Text { text, ambiguous: false } },
        };
        let Some(offset) = offset else { return plain(fallback, text) };
        if let Some(quote) = self.quote_before(offset) {
            return plain(offset - quote, text);
        }
        // An empty scalar lies wherever the parser noticed it; its key says more.
        let at = if text.is_empty() { fallback } else { offset };
        match scalar::resolve(text) {
            Ok(content) => Node { at, content },
            Err(error) => {
                self.problem(at, "number", error.to_string());
                Node { at, content: Content::Refused }
            }
        }
    }

    /// The length of the quote just before `offset`, if there is one: no unquoted scalar follows a quote directly.
    fn quote_before(&self, offset: usize) -> Option<usize> {
        offset.checked_sub(1).filter(|before| matches!(self.text.as_bytes()[*before], b'"' | b'\'')).map(|_| 1)
    }

    /// A key as text with its place, or `None` when it is no string.
    fn key(&mut self, raw: RawScalar<'_>, fallback: usize) -> Option<(String, usize)> {
        let node = self.scalar(raw, fallback);
        match node.content {
            // `on:` and `y:` are texts here and booleans to other readers; as keys they are too common to refuse.
            Content::Text { text, ambiguous: _ } if text == "<<" && self.quote_before(node.at + 1).is_none() => {
                self.problem(node.at, "merge-key", "merge keys are not taken; write the values out".to_owned());
                None
            }
            Content::Text { text, ambiguous: _ } => Some((text, node.at)),
            content @ (Content::Null | Content::Bool(_) | Content::Number(..)) => {
                let message = format!("a key is a text, this one is {}; quote it", content.describe());
                self.problem(node.at, "non-string-key", message);
                None
            }
            Content::List(_) | Content::Map(_) | Content::Refused => None,
        }
    }

    fn read_map<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        at: usize,
        depth: usize,
    ) -> Result<Vec<Entry>, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut many = BTreeMap::new();
        loop {
            let entered = Cell::new(false);
            let raw = match map.next_key_seed(ScalarProbe { entered: &entered }) {
                Ok(None) => return Ok(entries),
                Ok(Some(raw)) => raw,
                Err(error) if entered.get() => return Err(error),
                Err(_) => {
                    // A mapping or list as a key, not consumed yet; or the text ends here, which this call reports.
                    map.next_key::<IgnoredAny>()?;
                    map.next_value::<IgnoredAny>()?;
                    let (rule, message) = if slips::has_template(self.text, at) {
                        ("template", slips::TEMPLATE)
                    } else {
                        ("non-string-key", "a key is a text, not a mapping or list; write a text before the colon")
                    };
                    self.problem(at, rule, message.to_owned());
                    continue;
                }
            };
            let Some((key, key_at)) = self.key(raw, at) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let first = first_of(&entries, &mut many, &key);
            let above = self.path.len();
            if above > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let value = self.read_value(&mut MapValue(&mut map), key_at, depth);
            if let Some(first) = first {
                let line = line_of(self.text, first);
                let remedy = if self.path == FIRST_FIELD {
                    "write --- on a line before it if another document begins here"
                } else {
                    "keep one of the two"
                };
                let message = format!("the key {key:?} is already given on line {line}; {remedy}");
                self.problem(key_at, "duplicate-key", message);
            }
            self.path.truncate(above);
            let value = value?.unwrap_or(Node { at: key_at, content: Content::Null });
            if first.is_none() {
                entries.push(Entry { key, at: key_at, value });
            }
        }
    }

    fn read_list<'de, A: SeqAccess<'de>>(
        &mut self,
        mut list: A,
        at: usize,
        depth: usize,
    ) -> Result<Vec<Node>, A::Error> {
        let mut items = Vec::new();
        loop {
            let above = self.path.len();
            self.path.push_str(&format!("[{}]", items.len()));
            let item = self.read_value(&mut ListItem(&mut list), at, depth);
            self.path.truncate(above);
            match item? {
                Some(mut item) => {
                    if let Some(first) = item.entries().and_then(<[Entry]>::first) {
                        item.at = first.at;
                    }
                    items.push(item);
                }
                None => return Ok(items),
            }
        }
    }

    /// The next value; `None` at the end of a list.
    fn read_value<'de, S: Step<'de>>(
        &mut self,
        step: &mut S,
        at: usize,
        depth: usize,
    ) -> Result<Option<Node>, S::Error> {
        let entered = Cell::new(false);
        match step.step(ScalarProbe { entered: &entered }) {
            Ok(raw) => return Ok(raw.map(|raw| self.scalar(raw, at))),
            Err(error) if entered.get() => return Err(error),
            // A mapping or list, not consumed yet; or the text ends here, which the next call reports.
            Err(_) => {}
        }
        if depth >= DEPTH_MAX {
            step.step(std::marker::PhantomData::<IgnoredAny>)?;
            self.problem(at, "too-deep", format!("nested deeper than {DEPTH_MAX} levels; flatten the document"));
            return Ok(Some(Node { at, content: Content::Refused }));
        }
        step.step(CollectionSeed { reader: self, at, depth: depth + 1 })
    }
}

/// A mapping or list, known to be one.
struct CollectionSeed<'a, 'p, 'text> {
    reader: &'a mut Reader<'p, 'text>,
    at: usize,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for CollectionSeed<'_, '_, '_> {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for CollectionSeed<'_, '_, '_> {
    type Value = Node;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping or list")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Node, A::Error> {
        let entries = self.reader.read_map(map, self.at, self.depth)?;
        Ok(Node { at: self.at, content: Content::Map(entries) })
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Node, A::Error> {
        let items = self.reader.read_list(list, self.at, self.depth)?;
        Ok(Node { at: self.at, content: Content::List(items) })
    }
}

/// The root of a document: a mapping, or nothing.
struct RootSeed<'a, 'p, 'text> {
    reader: &'a mut Reader<'p, 'text>,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for RootSeed<'_, '_, '_> {
    type Value = Option<Node>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Node>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for RootSeed<'_, '_, '_> {
    type Value = Option<Node>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Node>, A::Error> {
        let entries = self.reader.read_map(map, self.at, 1)?;
        Ok(Some(Node { at: self.at, content: Content::Map(entries) }))
    }
    fn visit_unit<E>(self) -> Result<Option<Node>, E> {
        Ok(None)
    }
    fn visit_none<E>(self) -> Result<Option<Node>, E> {
        Ok(None)
    }
}

/// The library's message without its own "at line 3 column 5", which counts from the document's beginning.
fn without_places(message: &str) -> String {
    let mut rest = message;
    let mut text = String::new();
    while let Some(start) = rest.find(" at line ").or_else(|| rest.find(" at position ")) {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        rest = &rest[rest.find(',').unwrap_or(rest.len())..];
    }
    text.push_str(rest);
    text
}

/// Where `key` is given first, if it is among `entries`. Looking through a few of them is quicker than keeping an index;
/// `many` is the index of a mapping that has more.
fn first_of(entries: &[Entry], many: &mut BTreeMap<String, usize>, key: &str) -> Option<usize> {
    if entries.len() <= FEW_ENTRIES {
        return entries.iter().find(|entry| entry.key == key).map(|entry| entry.at);
    }
    for entry in &entries[many.len()..] {
        many.insert(entry.key.clone(), entry.at);
    }
    many.get(key).copied()
}

/// The line of an offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Number, Object, Value};
    use proptest::prelude::*;

    /// The library's own reading, as an oracle; `None` for what it refuses or what a twin cannot hold.
    fn oracle(value: serde_yaml::Value) -> Option<Value> {
        Some(match value {
            serde_yaml::Value::Null => Value::Null,
            serde_yaml::Value::Bool(value) => Value::Bool(value),
            serde_yaml::Value::Number(number) => Value::Number(match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Number::Integer(integer),
                (None, float) => Number::from_f64(float.filter(|_| number.is_f64())?)?,
            }),
            serde_yaml::Value::String(text) => Value::String(text),
            serde_yaml::Value::Sequence(items) => Value::Array(items.into_iter().map(oracle).collect::<Option<_>>()?),
            serde_yaml::Value::Mapping(map) => Value::Object(
                map.into_iter()
                    .map(|(key, value)| Some((key.as_str().filter(|key| *key != "<<")?.to_owned(), oracle(value)?)))
                    .collect::<Option<Object>>()?,
            ),
            serde_yaml::Value::Tagged(_) => return None,
        })
    }

    fn ours(text: &str) -> Result<Vec<Value>, Vec<Problem>> {
        let (documents, problems) = read_documents(text);
        if problems.is_empty() {
            Ok(documents.iter().filter_map(|document| document.root.as_ref()).map(Node::to_value).collect())
        } else {
            Err(problems)
        }
    }

    #[test]
    fn a_number_is_a_number_however_the_line_ends() {
        for text in [
            "a: 5",
            "a: 5   # five",
            "a: 5\t\n",
            "a: 5\r\n",
            "a: 5\n...\n",
            "{a: 5 }",
            "{a: 5,}",
            "a:\n  5",
            "? a\n: 5",
        ] {
            assert_eq!(ours(text).map(|values| values[0].to_string()).as_deref(), Ok(r#"{"a":5}"#), "{text:?}");
        }
        let text = "a: [1 , 'x' ,2.5,\n  \"y\" , ~, true\n ]";
        assert_eq!(ours(text).map(|values| values[0].to_string()).as_deref(), Ok(r#"{"a":[1,"x",2.5,"y",null,true]}"#));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter_map("finite", |float| Number::from_f64(float).map(Value::Number)),
            any::<String>().prop_map(Value::String),
            "[a-z0-9.~:# -]{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::btree_map("[a-zäß0-9<_ -]{0,6}", inner, 0..5).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        /// JSON is YAML: what a hub could answer reads back as it was, texts, numbers and all.
        #[test]
        fn every_json_value_reads_back_as_it_is(value in json_value()) {
            let escaped: String = serde_json::json!({"a": value.to_json()})
                .to_string()
                .chars()
                // Raw in JSON texts, but not allowed raw in YAML.
                .map(|c| if c.is_control() || matches!(c, '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}') {
                    format!("\\u{:04x}", u32::from(c))
                } else {
                    c.to_string()
                })
                .collect();
            let read = ours(&escaped);
            prop_assert_eq!(read.as_ref().map(|values| values[0].get(["a"])), Ok(Some(&value)), "{}", escaped);
        }

        /// Whatever the library and we both take, we take alike.
        #[test]
        fn what_we_take_is_what_the_library_takes(
            lines in proptest::collection::vec("( {0,4}|- )([abc]: )?([0-9.+-]{0,3}|[a-c]{1,3}|'x'|\"y\\\\n\"|\\[1, b\\]|\\{c: 2\\}|[|>]|true|~)( # z)?", 1..6)
        ) {
            let text = lines.join("\n");
            let library = serde_yaml::from_str::<serde_yaml::Value>(&text).ok().and_then(oracle);
            if let (Some(theirs @ Value::Object(_)), Ok(values)) = (library, ours(&text)) {
                prop_assert_eq!(&values[..], &[theirs][..], "{}", text);
            }
        }
    }
}
