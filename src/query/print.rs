//! The syntax tree as text.
//!
//! Invariant: what is printed parses back to the same tree and needs no more depth than the text the tree came from.
//! A NOT always has its condition in parentheses, a function excepted: sources differ on whether NOT binds tighter
//! than a comparison (`iot-hub.md` 5.1), and with parentheses both readings agree.

use std::fmt;

use super::ast::{Aggregate, Attribute, Call, Column, Expr, Item, Literal, Operand, Operator, Query, Select};

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

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if let Some(top) = self.top {
            write!(f, "TOP {top} ")?;
        }
        match &self.select {
            Select::All => f.write_str("*")?,
            Select::Items(items) => write_list(f, items, ", ")?,
            Select::Groups(columns) => write_list(f, columns, ", ")?,
        }
        write!(f, " FROM {}", self.source.as_str())?;
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.group_by.is_empty() {
            f.write_str(" GROUP BY ")?;
            write_list(f, &self.group_by, ", ")?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attribute.fmt(f)?;
        write_alias(f, self.alias.as_deref())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => item.fmt(f),
            Self::Aggregate { aggregate, alias } => {
                aggregate.fmt(f)?;
                write_alias(f, alias.as_deref())
            }
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.as_str())?;
        if let Some(attribute) = self.attribute() {
            attribute.fmt(f)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.path().iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            // A plain `devices.` in front is the collection, not a name.
            if index == 0 && self.path().len() > 1 && name.eq_ignore_ascii_case("devices") {
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
            Self::Not(inner) if matches!(**inner, Self::Not(_) | Self::Call(_)) => write!(f, "NOT {inner}"),
            Self::Not(inner) => write!(f, "NOT ({inner})"),
            Self::Compare { left, comparator, right } => write!(f, "{left} {} {right}", comparator.as_str()),
            Self::In { operand, negated, list } => {
                write!(f, "{operand} {} ", if *negated { "NIN" } else { "IN" })?;
                write_array(f, list)
            }
            Self::Call(call) => call.fmt(f),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => attribute.fmt(f),
            Self::Literal(literal) => literal.fmt(f),
            Self::Call(call) => call.fmt(f),
            Self::Negate(inner) => {
                f.write_str("-")?;
                // Digits right behind the sign would be one literal with it.
                let is_number = matches!(**inner, Self::Literal(Literal::Number(_)));
                write_operand(f, inner, is_number || matches!(**inner, Self::Arithmetic { .. }))
            }
            Self::Arithmetic { left, operator, right } => {
                write_operand(f, left, operator_of(left).is_some_and(|inner| looser(inner, *operator)))?;
                write!(f, " {} ", operator.as_str())?;
                // Operators of one strength group to the left.
                let needed = operator_of(right).is_some_and(|inner| !looser(*operator, inner));
                write_operand(f, right, needed)
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.as_str())?;
        write_list(f, &self.arguments, ", ")?;
        f.write_str(")")
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

fn operator_of(operand: &Operand) -> Option<Operator> {
    match operand {
        Operand::Arithmetic { operator, .. } => Some(*operator),
        Operand::Attribute(_) | Operand::Literal(_) | Operand::Call(_) | Operand::Negate(_) => None,
    }
}

fn looser(one: Operator, other: Operator) -> bool {
    !one.is_product() && other.is_product()
}

fn write_operand(f: &mut fmt::Formatter<'_>, operand: &Operand, in_parentheses: bool) -> fmt::Result {
    if in_parentheses { write!(f, "({operand})") } else { write!(f, "{operand}") }
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
