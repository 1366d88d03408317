//! The syntax tree of a query.
//!
//! Invariant: `Display` writes a text that [`parse`](super::parse) reads back to the same tree, as long as the tree
//! keeps to what its types say (at least two parts in an AND or OR) and nests no deeper than a text may.

use std::fmt;

use crate::twin::Number;

/// A whole query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The columns.
    pub select: Select,
    /// At most so many rows.
    pub top: Option<u64>,
    /// Whose rows.
    pub source: Source,
    /// The condition; a row passes when it is [`Tri::True`](super::Tri::True).
    pub filter: Option<Expr>,
}

/// The columns of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// `*`: the whole twin.
    All,
    /// Some columns, at least one.
    Items(Vec<Item>),
    /// `COUNT()`: one row with the number of rows.
    Count {
        /// The column's name.
        alias: Option<String>,
    },
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where the value stands.
    pub attribute: Attribute,
    /// The column's name, if it is not the last name of the attribute.
    pub alias: Option<String>,
}

impl Item {
    /// The column's name in a row: the alias, else the last name of the attribute.
    #[must_use]
    pub fn key(&self) -> &str {
        self.alias.as_deref().unwrap_or_else(|| self.attribute.last())
    }
}

/// The collections that can be queried (`iot-hub.md` 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `devices`.
    Devices,
    /// `devices.modules`.
    Modules,
    /// `devices.jobs`.
    Jobs,
}

impl Source {
    /// The name as FROM takes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Modules => "devices.modules",
            Self::Jobs => "devices.jobs",
        }
    }
}

/// A path into a twin: one name or more. The first is in the hub's own casing when it is a system property
/// (`iot-hub.md` 5.4), however the query wrote it; all others are case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute(Vec<String>);

/// The first names that match in any case, in the hub's casing (`iot-hub.md` 5.3 and 5.4).
const SYSTEM_PROPERTIES: [&str; 24] = [
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "version",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "modelId",
    "jobId",
    "jobType",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "outcome",
];

impl Attribute {
    /// The attribute of these names. `None` when there is none, or when one cannot be written in a query: it holds
    /// `]]` or ends with `]`.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Option<Self> {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        let first = names.first_mut()?;
        if let Some(canonical) = SYSTEM_PROPERTIES.iter().find(|property| property.eq_ignore_ascii_case(first)) {
            (*canonical).clone_into(first);
        }
        names.iter().all(|name| !name.contains("]]") && !name.ends_with(']')).then_some(Self(names))
    }

    /// The names, outermost first; never empty.
    #[must_use]
    pub fn path(&self) -> &[String] {
        &self.0
    }

    fn last(&self) -> &str {
        self.0.last().expect("an attribute has at least one name")
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Any of two or more.
    Or(Vec<Self>),
    /// All of two or more.
    And(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// A comparison of two values.
    Compare {
        /// The value before the operator.
        left: Operand,
        /// The operator.
        comparator: Comparator,
        /// The value behind it.
        right: Operand,
    },
    /// `IN` or `NIN`: equal to one of a list.
    In {
        /// The value looked for.
        operand: Operand,
        /// Whether it is `NIN`, the opposite.
        negated: bool,
        /// The values to find.
        list: Vec<Literal>,
    },
    /// `IS_DEFINED(attribute)`: true for a present null too.
    IsDefined(Attribute),
}

/// A value in a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The row's value.
    Attribute(Attribute),
    /// A value that stands in the query.
    Literal(Literal),
    /// `IS_DEFINED(attribute)` as a boolean.
    IsDefined(Attribute),
}

/// A value that stands in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `undefined`: comparing with it is undefined.
    Undefined,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array; not comparable.
    Array(Vec<Self>),
}

/// The comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparator {
    /// `=`
    Equal,
    /// `!=` or `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparator {
    /// The operator as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// The words that are no names unless they stand in `[[ ]]`.
const RESERVED: [&str; 16] = [
    "SELECT",
    "TOP",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "NIN",
    "TRUE",
    "FALSE",
    "NULL",
    "UNDEFINED",
];

pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

pub(super) fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

pub(super) fn continues_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let word = name.strip_prefix('$').unwrap_or(name);
    let plain = word.starts_with(begins_name) && word.chars().all(continues_name) && !is_reserved(name);
    if plain { f.write_str(name) } else { write!(f, "[[{name}]]") }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

fn write_alias(f: &mut fmt::Formatter<'_>, alias: Option<&str>) -> fmt::Result {
    match alias {
        None => Ok(()),
        Some(alias) => {
            f.write_str(" AS ")?;
            write_name(f, alias)
        }
    }
}

fn write_array(f: &mut fmt::Formatter<'_>, items: &[Literal]) -> fmt::Result {
    // `[[` would begin a name.
    f.write_str(if matches!(items.first(), Some(Literal::Array(_))) { "[ " } else { "[" })?;
    write_list(f, items, ", ")?;
    f.write_str("]")
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if let Some(top) = self.top {
            write!(f, "TOP {top} ")?;
        }
        match &self.select {
            Select::All => f.write_str("*")?,
            Select::Items(items) => write_list(f, items, ", ")?,
            Select::Count { alias } => {
                f.write_str("COUNT()")?;
                write_alias(f, alias.as_deref())?;
            }
        }
        write!(f, " FROM {}", self.source.as_str())?;
        match &self.filter {
            None => Ok(()),
            Some(filter) => write!(f, " WHERE {filter}"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attribute.fmt(f)?;
        write_alias(f, self.alias.as_deref())
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            // A plain `devices.` in front is the collection, not a name.
            if index == 0 && self.0.len() > 1 && name.eq_ignore_ascii_case("devices") {
                write!(f, "[[{name}]]")?;
            } else {
                write_name(f, name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(parts) => write_parts(f, parts, " OR ", |part| matches!(part, Self::Or(_))),
            Self::And(parts) => write_parts(f, parts, " AND ", |part| matches!(part, Self::Or(_) | Self::And(_))),
            Self::Not(inner) if matches!(**inner, Self::Or(_) | Self::And(_)) => write!(f, "NOT ({inner})"),
            Self::Not(inner) => write!(f, "NOT {inner}"),
            Self::Compare { left, comparator, right } => write!(f, "{left} {} {right}", comparator.as_str()),
            Self::In { operand, negated, list } => {
                write!(f, "{operand} {} ", if *negated { "NIN" } else { "IN" })?;
                write_array(f, list)
            }
            Self::IsDefined(attribute) => write!(f, "IS_DEFINED({attribute})"),
        }
    }
}

fn write_parts(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expr],
    separator: &str,
    needs_parentheses: fn(&Expr) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        if needs_parentheses(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => attribute.fmt(f),
            Self::Literal(literal) => literal.fmt(f),
            Self::IsDefined(attribute) => write!(f, "IS_DEFINED({attribute})"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined"),
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => write_string(f, text),
            Self::Array(items) => write_array(f, items),
        }
    }
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    f.write_str("'")?;
    for character in text.chars() {
        match character {
            '\'' => f.write_str("\\'")?,
            '\\' => f.write_str("\\\\")?,
            // Every control character lies below U+10000, so four digits do.
            control if control.is_control() => write!(f, "\\u{:04X}", u32::from(control))?,
            plain => f.write_char(plain)?,
        }
    }
    f.write_str("'")
}
