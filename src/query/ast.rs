//! The syntax tree of a query.
//!
//! Invariant: a tree says nothing that a text cannot: `Display` (in `print`) writes a text that
//! [`parse_as`](super::parse_as) reads back to the same tree, as long as the tree keeps to what its types say (at
//! least two parts in an AND or OR) and nests no deeper than a text may.

use super::function::Function;
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
    /// The attributes of GROUP BY: rows with equal values become one. Only with [`Select::Groups`].
    pub group_by: Vec<Attribute>,
}

/// The columns of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// `*`: the whole twin.
    All,
    /// Some columns, at least one, a row for each twin.
    Items(Vec<Item>),
    /// Columns of groups: there is an aggregate, a GROUP BY, or both. Every attribute stands in GROUP BY; without one
    /// all rows are one group.
    Groups(Vec<Column>),
}

/// One column of a twin's row.
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

/// One column of a group's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// What the rows of the group have in common.
    Item(Item),
    /// Something about all of them.
    Aggregate {
        /// What.
        aggregate: Aggregate,
        /// The column's name.
        alias: Option<String>,
    },
}

/// What can be said of many rows (`iot-hub.md` 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// `COUNT()`: how many rows.
    Count,
    /// `AVG(attribute)`, over the rows where it is a number.
    Average(Attribute),
    /// `SUM(attribute)`, over the rows where it is a number.
    Sum(Attribute),
    /// `MIN(attribute)`, over the rows where it is a number.
    Minimum(Attribute),
    /// `MAX(attribute)`, over the rows where it is a number.
    Maximum(Attribute),
}

impl Aggregate {
    /// What it reads; `None` for `COUNT()`.
    #[must_use]
    pub const fn attribute(&self) -> Option<&Attribute> {
        match self {
            Self::Count => None,
            Self::Average(attribute) | Self::Sum(attribute) | Self::Minimum(attribute) | Self::Maximum(attribute) => {
                Some(attribute)
            }
        }
    }

    /// The name as a query writes it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Average(_) => "AVG",
            Self::Sum(_) => "SUM",
            Self::Minimum(_) => "MIN",
            Self::Maximum(_) => "MAX",
        }
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

    pub(super) fn last(&self) -> &str {
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
    /// A function that must give `true`.
    Call(Call),
}

impl Expr {
    /// Every attribute that the condition reads, in the order of the text; one that stands twice comes twice.
    #[must_use]
    pub fn attributes(&self) -> Vec<&Attribute> {
        let mut found = Vec::new();
        self.collect_attributes(&mut found);
        found
    }

    fn collect_attributes<'a>(&'a self, found: &mut Vec<&'a Attribute>) {
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().for_each(|part| part.collect_attributes(found)),
            Self::Not(inner) => inner.collect_attributes(found),
            Self::Compare { left, right, .. } => {
                left.collect_attributes(found);
                right.collect_attributes(found);
            }
            Self::In { operand, .. } => operand.collect_attributes(found),
            Self::Call(call) => call.arguments.iter().for_each(|argument| argument.collect_attributes(found)),
        }
    }
}

/// A value in a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The row's value.
    Attribute(Attribute),
    /// A value that stands in the query.
    Literal(Literal),
    /// What a function gives.
    Call(Call),
    /// `-value`, of anything but the digits of a number: those and their sign are one literal.
    Negate(Box<Self>),
    /// Two values and an operator between them.
    Arithmetic {
        /// The value before the operator.
        left: Box<Self>,
        /// The operator.
        operator: Operator,
        /// The value behind it.
        right: Box<Self>,
    },
}

impl Operand {
    fn collect_attributes<'a>(&'a self, found: &mut Vec<&'a Attribute>) {
        match self {
            Self::Attribute(attribute) => found.push(attribute),
            Self::Literal(_) => {}
            Self::Call(call) => call.arguments.iter().for_each(|argument| argument.collect_attributes(found)),
            Self::Negate(inner) => inner.collect_attributes(found),
            Self::Arithmetic { left, right, .. } => {
                left.collect_attributes(found);
                right.collect_attributes(found);
            }
        }
    }
}

/// A function with what it is called on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub function: Function,
    /// As many as the function takes.
    pub arguments: Vec<Operand>,
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

/// The arithmetic operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

impl Operator {
    /// The operator as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// Whether it binds tighter than `+` and `-`.
    #[must_use]
    pub const fn is_product(self) -> bool {
        match self {
            Self::Add | Self::Subtract => false,
            Self::Multiply | Self::Divide | Self::Remainder => true,
        }
    }
}
