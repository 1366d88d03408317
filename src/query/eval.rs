//! Conditions and columns over a row.
//!
//! Invariant: three-valued (`iot-hub.md` 5.1). Whatever compares with something undefined, of another type, or with
//! an object or array is [`Tri::Undefined`], and stays so under NOT.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::ast::{Comparator, Expr, Item, Literal, Operand};
use crate::twin::{Number, Object, Value};

/// The truth of a condition. A row passes only when it is [`Tri::True`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tri {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be decided: a value is missing or of another type.
    Undefined,
}

impl Tri {
    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Undefined => Self::Undefined,
        }
    }
}

impl From<bool> for Tri {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Something with attributes: a twin, a row, a job.
pub trait Row {
    /// The value at `path` (never empty; the first name in the hub's casing). `None` is "undefined"; a present null
    /// is `Some(Value::Null)`.
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>>;
}

impl Row for Value {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        beneath(self, path).map(Cow::Borrowed)
    }
}

impl Row for Object {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, below) = path.split_first()?;
        beneath(self.get(first)?, below).map(Cow::Borrowed)
    }
}

fn beneath<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.as_object()?.get(key))
}

/// Whether `expr` holds for `row`.
#[must_use]
pub fn eval<R: Row + ?Sized>(expr: &Expr, row: &R) -> Tri {
    match expr {
        Expr::Or(parts) => any(parts.iter().map(|part| eval(part, row))),
        Expr::And(parts) => any(parts.iter().map(|part| eval(part, row).not())).not(),
        Expr::Not(inner) => eval(inner, row).not(),
        Expr::Compare { left, comparator, right } => {
            let (left, right) = (Held::of(left, row), Held::of(right, row));
            compare(left.primitive(), *comparator, right.primitive())
        }
        Expr::In { operand, negated, list } => {
            let held = Held::of(operand, row);
            let find = |item| compare(held.primitive(), Comparator::Equal, primitive_of_literal(item));
            let found = any(list.iter().map(find));
            // In an empty list nothing is found, but only if there was something to look for.
            let found = if held.primitive().is_none() { Tri::Undefined } else { found };
            if *negated { found.not() } else { found }
        }
        Expr::IsDefined(attribute) => row.value(attribute.path()).is_some().into(),
    }
}

/// The columns `items` of `row`. A missing attribute is left out (`iot-hub.md` 5.5); of two columns with one name the
/// later counts.
#[must_use]
pub fn project<R: Row + ?Sized>(items: &[Item], row: &R) -> Object {
    let column = |item: &Item| Some((item.key().to_owned(), row.value(item.attribute.path())?.into_owned()));
    items.iter().filter_map(column).collect()
}

/// True if one is, else undefined if one is, else false.
fn any(parts: impl Iterator<Item = Tri>) -> Tri {
    let mut result = Tri::False;
    for part in parts {
        match part {
            Tri::True => return Tri::True,
            Tri::Undefined => result = Tri::Undefined,
            Tri::False => {}
        }
    }
    result
}

/// An operand's value, kept alive while it is compared.
enum Held<'a> {
    Row(Option<Cow<'a, Value>>),
    Literal(&'a Literal),
    Bool(bool),
}

/// A value that can be compared.
#[derive(Clone, Copy)]
enum Primitive<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'a str),
}

impl<'a> Held<'a> {
    fn of<R: Row + ?Sized>(operand: &'a Operand, row: &'a R) -> Self {
        match operand {
            Operand::Attribute(attribute) => Self::Row(row.value(attribute.path())),
            Operand::Literal(literal) => Self::Literal(literal),
            Operand::IsDefined(attribute) => Self::Bool(row.value(attribute.path()).is_some()),
        }
    }

    /// `None` when the value is missing or cannot be compared.
    fn primitive(&self) -> Option<Primitive<'_>> {
        match self {
            Self::Row(value) => primitive_of_value(value.as_deref()?),
            Self::Literal(literal) => primitive_of_literal(literal),
            Self::Bool(value) => Some(Primitive::Bool(*value)),
        }
    }
}

fn primitive_of_value(value: &Value) -> Option<Primitive<'_>> {
    match value {
        Value::Null => Some(Primitive::Null),
        Value::Bool(value) => Some(Primitive::Bool(*value)),
        Value::Number(number) => Some(Primitive::Number(*number)),
        Value::String(text) => Some(Primitive::String(text)),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn primitive_of_literal(literal: &Literal) -> Option<Primitive<'_>> {
    match literal {
        Literal::Null => Some(Primitive::Null),
        Literal::Bool(value) => Some(Primitive::Bool(*value)),
        Literal::Number(number) => Some(Primitive::Number(*number)),
        Literal::String(text) => Some(Primitive::String(text)),
        Literal::Undefined | Literal::Array(_) => None,
    }
}

fn compare(left: Option<Primitive<'_>>, comparator: Comparator, right: Option<Primitive<'_>>) -> Tri {
    let order = match (left, right) {
        (Some(Primitive::Bool(left)), Some(Primitive::Bool(right))) => left.cmp(&right),
        (Some(Primitive::Number(left)), Some(Primitive::Number(right))) => left.cmp(&right),
        // The hub's order is that of UTF-16, which differs from that of UTF-8 above U+FFFF.
        (Some(Primitive::String(left)), Some(Primitive::String(right))) => {
            left.encode_utf16().cmp(right.encode_utf16())
        }
        // Nulls are equal but have no order.
        (Some(Primitive::Null), Some(Primitive::Null)) => match comparator {
            Comparator::Equal | Comparator::NotEqual => Ordering::Equal,
            Comparator::Less | Comparator::LessOrEqual | Comparator::Greater | Comparator::GreaterOrEqual => {
                return Tri::Undefined;
            }
        },
        (None | Some(Primitive::Null | Primitive::Bool(_) | Primitive::Number(_) | Primitive::String(_)), _) => {
            return Tri::Undefined;
        }
    };
    match comparator {
        Comparator::Equal => order.is_eq(),
        Comparator::NotEqual => order.is_ne(),
        Comparator::Less => order.is_lt(),
        Comparator::LessOrEqual => order.is_le(),
        Comparator::Greater => order.is_gt(),
        Comparator::GreaterOrEqual => order.is_ge(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TWIN: &str = r#"{
        "deviceId": "myDevice", "etag": "AAAAAAAAAAE=", "version": 2, "status": "enabled",
        "tags": {"plant": "Redmond43", "empty": null, "flag": true, "n": 5, "f": 2.5, "list": [1], "odd name": {"x": 1},
                 "emoji": "\ud83d\ude00", "same": "Redmond43", "DeviceID": "inner"},
        "properties": {"desired": {"power": 1, "$version": 4}, "reported": {"connectivity": "cellular"}}
    }"#;

    fn check(condition: &str, expected: Tri) {
        let query = parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
        let twin = Value::parse_json(TWIN).unwrap();
        assert_eq!(eval(query.filter.as_ref().unwrap(), &twin), expected, "{condition}");
        assert_eq!(eval(query.filter.as_ref().unwrap(), twin.as_object().unwrap()), expected, "{condition}");
    }

    #[test]
    fn primitives_of_one_type_compare() {
        for condition in [
            "tags.plant = 'Redmond43'",
            "tags.plant != 'redmond43'",
            "tags.plant <> 'x'",
            "tags.plant > 'Redmond'",
            "tags.n = 5.0",
            "tags.n = 0x5",
            "tags.f < 3",
            "tags.f >= 2.5",
            "-1 < tags.n",
            "tags.flag = true",
            "tags.flag > false",
            "tags.empty = null",
            "null = null",
            "tags.plant = tags.same",
            "tags.[[odd name]].x = 1",
            "properties.desired.$version = 4",
            "devices.properties.desired.power <= 1",
            "DEVICEID = 'myDevice'",
            "tags.DeviceID = 'inner'",
            "tags.emoji > '\u{ffff}' OR tags.emoji < '\\uFFFF'",
            "IS_DEFINED(tags.empty)",
            "IS_DEFINED(tags.nothing) = false",
            "NOT is_defined(tags.nothing)",
        ] {
            check(condition, Tri::True);
        }
        for condition in [
            "tags.n != 5",
            "tags.empty != null",
            "tags.plant = \"plant\"",
            "IS_DEFINED(tags.nothing)",
            "IS_DEFINED(tags.Plant)",
            "NOT tags.n = 5",
            // UTF-16 order: the surrogates of an emoji lie below U+FFFF.
            "tags.emoji > '\\uFFFF'",
        ] {
            check(condition, Tri::False);
        }
    }

    #[test]
    fn what_cannot_be_compared_is_undefined_under_not_too() {
        for condition in [
            "tags.nothing = 'x'",
            "tags.nothing != 'x'",
            "tags.nothing = undefined",
            "tags.n = undefined",
            "tags.n = '5'",
            "tags.n != '5'",
            "tags.n = null",
            "tags.empty < null",
            "tags.list = [1]",
            "tags = tags",
            "tags.plant.x = 1",
            "tags.Plant = 'Redmond43'",
            "Tags.plant = 'Redmond43'",
        ] {
            check(condition, Tri::Undefined);
            check(&format!("NOT ({condition})"), Tri::Undefined);
        }
    }

    #[test]
    fn logic_has_three_values() {
        let values = [("1 = 1", Tri::True), ("1 = 2", Tri::False), ("1 = 'x'", Tri::Undefined)];
        for (left_text, left) in values {
            for (right_text, right) in values {
                let or = match (left, right) {
                    (Tri::True, _) | (_, Tri::True) => Tri::True,
                    (Tri::Undefined, _) | (_, Tri::Undefined) => Tri::Undefined,
                    (Tri::False, Tri::False) => Tri::False,
                };
                let and = match (left, right) {
                    (Tri::False, _) | (_, Tri::False) => Tri::False,
                    (Tri::Undefined, _) | (_, Tri::Undefined) => Tri::Undefined,
                    (Tri::True, Tri::True) => Tri::True,
                };
                check(&format!("{left_text} OR {right_text}"), or);
                check(&format!("{left_text} AND {right_text}"), and);
            }
        }
    }

    #[test]
    fn a_list_finds_what_equals_one_of_it() {
        check("tags.plant IN ['Redmond43', 'x']", Tri::True);
        check("tags.plant IN ['x', 1, 'Redmond43']", Tri::True);
        check("tags.plant IN ['x']", Tri::False);
        check("tags.plant NIN ['x']", Tri::True);
        check("tags.plant NIN ['Redmond43']", Tri::False);
        check("tags.plant IN []", Tri::False);
        check("tags.plant NIN []", Tri::True);
        check("tags.empty IN [null]", Tri::True);
        check("tags.plant IN ['x', 1]", Tri::Undefined);
        check("tags.nothing IN ['x']", Tri::Undefined);
        check("tags.nothing NIN ['x']", Tri::Undefined);
        check("tags.nothing NIN []", Tri::Undefined);
        check("tags.list IN [ [1]]", Tri::Undefined);
    }

    #[test]
    fn columns_take_their_names_from_alias_or_path() {
        let twin = Value::parse_json(TWIN).unwrap();
        for (columns, row) in [
            ("DeviceID, etag", r#"{"deviceId":"myDevice","etag":"AAAAAAAAAAE="}"#),
            ("tags.plant AS p, tags.n m", r#"{"m":5,"p":"Redmond43"}"#),
            ("properties.desired", r#"{"desired":{"$version":4,"power":1}}"#),
            ("tags.nothing, tags.empty", r#"{"empty":null}"#),
            ("tags.DeviceID", r#"{"DeviceID":"inner"}"#),
            ("tags.[[odd name]]", r#"{"odd name":{"x":1}}"#),
            ("tags.nothing AS n", "{}"),
        ] {
            let query = parse(&format!("SELECT {columns} FROM devices")).unwrap();
            let super::super::Select::Items(items) = query.select else { panic!("{columns}") };
            assert_eq!(Value::Object(project(&items, &twin)).to_string(), row, "{columns}");
        }
    }
}
