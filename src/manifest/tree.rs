//! A document as read: values with their places in the text.

use crate::twin::{Number, Object, Value};

/// A value of a document and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// The offset in the file's text. A mapping or list beneath a key stands at that key.
    pub(super) at: usize,
    /// What it is.
    pub(super) content: Content,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    /// The number and the text it was read from.
    Number(Number, String),
    /// A text; `ambiguous` when other YAML readers take it for something else (`yes`, `010`).
    Text {
        text: String,
        ambiguous: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value that was refused; its problem is already reported.
    Refused,
}

/// One key of a mapping with its value. No two entries of a mapping have one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The key's offset in the file's text.
    pub(super) at: usize,
    pub(super) value: Node,
}

/// One problem at an offset of a file's text; the file makes a [`super::Diagnostic`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) warning: bool,
    pub(super) path: String,
    pub(super) rule: &'static str,
    pub(super) message: String,
}

impl Content {
    /// What it is, as messages say it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("{value}"),
            Self::Number(_, text) => format!("the number {text}"),
            Self::Text { text, ambiguous: _ } => format!("the text {:?}", shortened(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
            Self::Refused => "a refused value".to_owned(),
        }
    }
}

/// The longest piece of a manifest's text that a message quotes, in characters.
const QUOTED_LENGTH_MAX: usize = 60;

/// `text`, cut to what a message can quote.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_LENGTH_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

impl Node {
    /// The entries, if this is a mapping.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            Content::Null
            | Content::Bool(_)
            | Content::Number(..)
            | Content::Text { .. }
            | Content::List(_)
            | Content::Refused => None,
        }
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text { text, ambiguous: _ } => Some(text),
            Content::Null
            | Content::Bool(_)
            | Content::Number(..)
            | Content::Map(_)
            | Content::List(_)
            | Content::Refused => None,
        }
    }

    /// The value at `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value as a twin holds it. A refused value becomes `false`: its document is broken and never used.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number, _) => Value::Number(*number),
            Content::Text { text, ambiguous: _ } => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Map(entries) => Value::Object(to_object(entries)),
            Content::Refused => Value::Bool(false),
        }
    }
}

/// The entries of a mapping as a twin holds them.
pub(super) fn to_object(entries: &[Entry]) -> Object {
    entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect()
}
