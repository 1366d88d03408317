//! Which records a condition may hold for, from the index and the keys, without a look at the records.
//!
//! Invariant: every record that a condition holds for is among its candidates; others may be too, so that the
//! condition is still asked of each.

use std::ops::Bound;

use crate::emulator::index::{Found, Keys};
use crate::emulator::records::Records;
use crate::query::{Attribute, Comparator, Expr, Literal, Operand, Source};
use crate::twin::Value;

/// How often parts of an AND pass each other before what one of them has is taken unchecked.
const PASSES_MAX: usize = 256;

/// Some keys, in order.
#[derive(Debug)]
pub(super) enum Candidates<'i> {
    /// All records.
    Everything,
    /// None.
    Nothing,
    /// Those with one tag.
    Tagged(&'i Keys),
    /// One.
    Key(&'i str),
    /// Those that begin so.
    Beginning(String),
    /// Those in any of these.
    Any(Vec<Self>),
    /// Those in all of these, and some more.
    All(Vec<Self>),
}

impl<'i> Candidates<'i> {
    /// The candidates of `filter` over the records of `source`.
    pub(super) fn of(filter: Option<&'i Expr>, source: Source, records: &'i Records) -> Self {
        let Some(filter) = filter else { return Self::Everything };
        let of = |part| Self::of(Some(part), source, records);
        match filter {
            Expr::And(parts) => {
                let mut parts: Vec<Self> = parts.iter().map(of).collect();
                parts.retain(|part| !matches!(part, Self::Everything));
                match parts.len() {
                    0 => Self::Everything,
                    _ => Self::All(parts),
                }
            }
            Expr::Or(parts) => Self::any(parts.iter().map(of).collect()),
            Expr::Compare { left: Operand::Attribute(attribute), comparator: Comparator::Equal, right } => {
                match right {
                    Operand::Literal(literal) => Self::equal(attribute, literal, source, records),
                    Operand::Attribute(_) | Operand::Call(_) | Operand::Negate(_) | Operand::Arithmetic { .. } => {
                        Self::Everything
                    }
                }
            }
            Expr::Compare {
                left: Operand::Literal(literal),
                comparator: Comparator::Equal,
                right: Operand::Attribute(attribute),
            } => Self::equal(attribute, literal, source, records),
            Expr::In { operand: Operand::Attribute(attribute), negated: false, list } => {
                Self::any(list.iter().map(|literal| Self::equal(attribute, literal, source, records)).collect())
            }
            Expr::Not(_) | Expr::Compare { .. } | Expr::In { .. } | Expr::Call(_) => Self::Everything,
        }
    }

    fn any(parts: Vec<Self>) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Everything)) { Self::Everything } else { Self::Any(parts) }
    }

    fn equal(attribute: &Attribute, literal: &'i Literal, source: Source, records: &'i Records) -> Self {
        let value = match literal {
            // Equal to nothing, and nothing equals an array.
            Literal::Undefined | Literal::Array(_) => return Self::Nothing,
            Literal::Null => return Self::Everything,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Number(number) => Value::Number(*number),
            Literal::String(text) => Value::from(text.as_str()),
        };
        match (attribute.path(), literal) {
            ([first, below @ ..], _) if first == "tags" && !below.is_empty() => {
                match records.index().find(below, &value) {
                    Found::Keys(keys) => Self::Tagged(keys),
                    Found::Nothing => Self::Nothing,
                    Found::Unknown => Self::Everything,
                }
            }
            ([only], Literal::String(id)) if only == "deviceId" => match source {
                Source::Devices => Self::Key(id),
                Source::Modules => Self::Beginning(format!("{id}/")),
                Source::Jobs => Self::Everything,
            },
            _ => Self::Everything,
        }
    }

    /// How many records there are, when the condition holds for exactly the candidates.
    pub(super) fn exact_count(&self) -> Option<usize> {
        match self {
            Self::Everything | Self::Key(_) | Self::Beginning(_) | Self::Any(_) | Self::All(_) => None,
            Self::Nothing => Some(0),
            Self::Tagged(keys) => Some(keys.count()),
        }
    }

    /// The first from `from` on.
    pub(super) fn seek<'a>(&'a self, records: &'a Records, from: Bound<&str>) -> Option<&'a str> {
        match self {
            Self::Everything => records.seek(from),
            Self::Nothing => None,
            Self::Tagged(keys) => keys.seek(from),
            Self::Key(key) => (reached(key, from) && records.contains(key)).then_some(key),
            Self::Beginning(beginning) => {
                let from = if reached(beginning, from) { Bound::Included(beginning.as_str()) } else { from };
                records.seek(from).filter(|key| key.starts_with(beginning.as_str()))
            }
            Self::Any(parts) => parts.iter().filter_map(|part| part.seek(records, from)).min(),
            Self::All(parts) => {
                let mut at = parts.first()?.seek(records, from)?;
                for _ in 0..PASSES_MAX {
                    let mut next = at;
                    for part in parts {
                        next = part.seek(records, Bound::Included(next))?;
                    }
                    if next == at {
                        return Some(at);
                    }
                    at = next;
                }
                Some(at)
            }
        }
    }
}

fn reached(key: &str, from: Bound<&str>) -> bool {
    match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    }
}
