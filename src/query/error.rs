//! Why a text is not a query, and where.
//!
//! Invariant: `Display` is one sentence that names what was found and what was expected, short and without control
//! characters whatever the text was.

use super::ast::Source;
use super::function::Function;
use super::parser::{DEPTH_MAX, LENGTH_MAX};

/// The most characters of a query that an error repeats.
const QUOTED_MAX: usize = 40;
/// How alike two words must be for a did-you-mean, as Jaro-Winkler similarity.
const SIMILARITY_MIN: f64 = 0.8;

/// A piece of a query text, in bytes; `start <= end`, both on character borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Line and column of the start in `text`, both from 1, the column in characters.
    #[must_use]
    pub fn position(self, text: &str) -> (usize, usize) {
        let before: Vec<char> =
            text.char_indices().take_while(|(at, _)| *at < self.start).map(|(_, character)| character).collect();
        let line = before.iter().filter(|character| **character == '\n').count() + 1;
        let column = before.iter().rev().take_while(|character| **character != '\n').count() + 1;
        (line, column)
    }
}

/// Why a text is not a query, and where it stopped being one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Where.
    pub span: Span,
}

impl ParseError {
    /// Line and column in the text that was parsed, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self, text: &str) -> (usize, usize) {
        self.span.position(text)
    }
}

/// The ways in which a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// The text is longer than a hub takes.
    #[error("a query has at most {LENGTH_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// Parentheses, NOTs, arrays or arithmetic nest too deep.
    #[error("conditions nest at most {DEPTH_MAX} deep; take out parentheses, NOTs or operators")]
    TooDeep,
    /// A character that begins nothing.
    #[error(
        "found {0:?}, expected a name, a number, a string or an operator; a key with odd characters is written [[key]]"
    )]
    Character(char),
    /// A string without its end.
    #[error("found a string without its end, expected a closing {0}")]
    OpenString(char),
    /// A `[[` without `]]`.
    #[error("found [[ without its end, expected a closing ]]")]
    OpenName,
    /// A backslash with the wrong characters behind it.
    #[error(
        "found a backslash that escapes nothing, expected \\', \\\", \\\\ or \\u and four hex digits of a character"
    )]
    Escape,
    /// Digits that are not a number.
    #[error("found {0}, expected a number such as 1, -2.5, 1e3 or 0x1F")]
    Number(String),
    /// Something in the wrong place.
    #[error("found {found}, expected {expected}{}", did_you_mean(&meant.filter(|word| word != expected)))]
    Unexpected {
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: &'static str,
        /// The word of the language that is much like what stands there.
        meant: Option<&'static str>,
    },
    /// A word of the language used as a name.
    #[error("found the reserved word {0}, expected a name; as a key it is written [[{0}]]")]
    Reserved(String),
    /// A function with too few or too many arguments.
    #[error("{name} takes {takes}, found {given}", name = function.as_str(), takes = takes(*function))]
    Arguments {
        /// The function.
        function: Function,
        /// How many it got.
        given: usize,
    },
    /// Something that a hub does not take.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// A part of the language that this collection does not have (`iot-hub.md` 5.3).
    #[error("found {what}, which {collection} does not have", collection = source_collection.as_str())]
    NotInSource {
        /// What was asked of it.
        what: &'static str,
        /// The collection of the FROM.
        source_collection: Source,
    },
}

/// What reads as a query and is none for a hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A function that a hub is not known to take in twin queries (`iot-hub.md` 5.2).
    #[error(
        "the function {name} is not known to work in twin queries, only IS_DEFINED, STARTSWITH and ARRAY_CONTAINS are",
        name = .0.as_str()
    )]
    Function(Function),
    /// No function at all.
    #[error("{name} is no function of the query language{}", did_you_mean(.meant))]
    UnknownFunction {
        /// What stands there.
        name: String,
        /// The function whose name is much like it.
        meant: Option<&'static str>,
    },
    /// A function among the columns.
    #[error("found {0} among the columns, where only COUNT, AVG, SUM, MIN and MAX may be called")]
    FunctionInSelect(String),
    /// `SELECT *` with GROUP BY.
    #[error("SELECT * does not go with GROUP BY; name the columns")]
    GroupedStar,
    /// A column beside an aggregate that is not in GROUP BY.
    #[error("the column {0} must stand in GROUP BY, since the query has groups")]
    NotGrouped(String),
}

fn takes(function: Function) -> String {
    match function.arity() {
        (1, 1) => "1 argument".to_owned(),
        (fewest, most) if fewest == most => format!("{fewest} arguments"),
        (fewest, most) => format!("{fewest} to {most} arguments"),
    }
}

fn did_you_mean(meant: &Option<&'static str>) -> String {
    meant.map(|word| format!("; did you mean {word}?")).unwrap_or_default()
}

/// The one of `words` that is most like `word`, if any is much like it.
pub(super) fn most_alike(word: &str, words: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let folded = word.to_lowercase();
    words
        .map(|candidate| (strsim::jaro_winkler(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `text` for a message: escaped, in quotes, at most 40 characters of it.
pub(super) fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let head: String = characters.by_ref().take(QUOTED_MAX).collect();
    let more = if characters.next().is_some() { "..." } else { "" };
    format!("`{}{more}`", head.escape_debug())
}
