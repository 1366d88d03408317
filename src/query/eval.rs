//! Conditions, columns and aggregates over rows.
//!
//! Invariant: three-valued (`iot-hub.md` 5.1). Whatever compares with something undefined, of another type, or with
//! an object or array is [`Tri::Undefined`], and stays so under NOT; arithmetic on anything but numbers, and without a
//! finite result, is undefined.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::ast::{Call, Comparator, Expr, Item, Literal, Operand, Operator};
use super::function::{self, number, number_of};
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
        Expr::Call(call) => match called(call, row) {
            Some(Value::Bool(value)) => value.into(),
            Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) | None => {
                Tri::Undefined
            }
        },
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

/// An operand's value, kept alive while it is used.
enum Held<'a> {
    Row(Option<Cow<'a, Value>>),
    Literal(&'a Literal),
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
            Operand::Call(call) => Self::Row(called(call, row).map(Cow::Owned)),
            Operand::Negate(_) | Operand::Arithmetic { .. } => {
                Self::Row(computed(operand, row).map(|number| Cow::Owned(Value::Number(number))))
            }
        }
    }

    /// `None` when the value is missing or cannot be compared.
    fn primitive(&self) -> Option<Primitive<'_>> {
        match self {
            Self::Row(value) => primitive_of_value(value.as_deref()?),
            Self::Literal(literal) => primitive_of_literal(literal),
        }
    }

    fn into_value(self) -> Option<Cow<'a, Value>> {
        match self {
            Self::Row(value) => value,
            Self::Literal(literal) => value_of_literal(literal).map(Cow::Owned),
        }
    }
}

fn called<R: Row + ?Sized>(call: &Call, row: &R) -> Option<Value> {
    let arguments: Vec<_> = call.arguments.iter().map(|argument| Held::of(argument, row).into_value()).collect();
    function::call(call.function, &arguments)
}

/// The number that an operand is for `row`.
fn computed<R: Row + ?Sized>(operand: &Operand, row: &R) -> Option<Number> {
    match operand {
        Operand::Negate(inner) => arithmetic(Number::Integer(0), Operator::Subtract, computed(inner, row)?),
        Operand::Arithmetic { left, operator, right } => {
            arithmetic(computed(left, row)?, *operator, computed(right, row)?)
        }
        Operand::Attribute(_) | Operand::Literal(_) | Operand::Call(_) => {
            number_of(Held::of(operand, row).into_value().as_deref()?)
        }
    }
}

/// Exact for integers as long as the result is one; `None` when the result is not finite, a division by zero among it.
fn arithmetic(left: Number, operator: Operator, right: Number) -> Option<Number> {
    if let (Number::Integer(left), Number::Integer(right)) = (left.normalised(), right.normalised()) {
        let exact = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right).filter(|quotient| quotient.checked_mul(right) == Some(left)),
            Operator::Remainder => left.checked_rem(right),
        };
        if let Some(exact) = exact {
            return Some(Number::Integer(exact));
        }
    }
    let (left, right) = (left.as_f64(), right.as_f64());
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Remainder => left % right,
    };
    number_of(&number(result)?)
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

fn value_of_literal(literal: &Literal) -> Option<Value> {
    match literal {
        Literal::Undefined => None,
        Literal::Null => Some(Value::Null),
        Literal::Bool(value) => Some(Value::Bool(*value)),
        Literal::Number(number) => Some(Value::Number(*number)),
        Literal::String(text) => Some(Value::from(text.as_str())),
        // An undefined element is no element.
        Literal::Array(items) => Some(Value::Array(items.iter().filter_map(value_of_literal).collect())),
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
    use super::super::{Dialect, parse, parse_as};
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
    fn arithmetic_is_exact_for_integers_and_undefined_for_all_but_numbers() {
        for condition in [
            "tags.n + 1 = 6",
            "tags.n - -1 = 6",
            "-tags.n = -5",
            "tags.n * 2 + 1 = 11",
            "tags.n * (2 + 1) = 15",
            "tags.n / 2 = 2.5",
            "tags.n % 3 = 2",
            "10 - tags.n - 2 = 3",
            "4503599627370497 * 2 = 9007199254740994",
            "9223372036854775807 + 1 > 9223372036854775000",
            "-(9223372036854775807) - 1 = -9223372036854775808.0",
            "(-9223372036854775807 - 1) % -1 = 0",
            "tags.f * 2 = 5 AND tags.n IN [5] AND tags.n + 0 IN [5]",
            "1 + 1 = tags.n - 3",
        ] {
            check(condition, Tri::True);
        }
        for condition in [
            "tags.n / 0 = 1",
            "tags.n % 0 = 1",
            "1e308 * 10 > 1",
            "tags.plant + 1 = 1",
            "tags.plant + tags.plant = 'x'",
            "-tags.flag = 1",
            "tags.nothing + 1 = 1",
            "tags.empty * 0 = 0",
            "undefined + 1 = 1",
            "tags.n + 0 IN ['5']",
        ] {
            check(condition, Tri::Undefined);
            check(&format!("NOT ({condition})"), Tri::Undefined);
        }
    }

    #[test]
    fn functions_give_values_and_nothing_for_what_they_cannot_take() {
        for (condition, expected) in [
            ("STARTSWITH(tags.plant, 'Red')", Tri::True),
            ("STARTSWITH(tags.plant, 'red')", Tri::False),
            ("STARTSWITH(tags.plant, tags.same) = true", Tri::True),
            ("STARTSWITH(tags.n, '5')", Tri::Undefined),
            ("NOT STARTSWITH(tags.nothing, 'x')", Tri::Undefined),
            ("ARRAY_CONTAINS(tags.list, 1)", Tri::True),
            ("ARRAY_CONTAINS(tags.list, 1.0)", Tri::True),
            ("ARRAY_CONTAINS(tags.list, '1')", Tri::False),
            ("ARRAY_CONTAINS([1, 2], tags.n - 3)", Tri::True),
            ("ARRAY_CONTAINS(tags.plant, 'R')", Tri::Undefined),
            ("ARRAY_CONTAINS(tags.nothing, 1)", Tri::Undefined),
            ("IS_NULL(tags.empty) AND NOT IS_NULL(tags.n) AND NOT IS_NULL(tags.nothing)", Tri::True),
            ("IS_BOOL(tags.flag) AND IS_NUMBER(tags.f) AND IS_STRING(tags.plant)", Tri::True),
            ("IS_ARRAY(tags.list) AND IS_OBJECT(tags) AND IS_PRIMITIVE(tags.empty)", Tri::True),
            ("IS_PRIMITIVE(tags.list) OR IS_OBJECT(tags.list) OR IS_ARRAY(tags)", Tri::False),
            ("ABS(-2) = 2 AND SQUARE(3) = 9 AND POWER(2, 10) = 1024 AND SQRT(9) = 3", Tri::True),
            ("CEILING(2.1) = 3 AND FLOOR(-2.1) = -3 AND SIGN(-0.5) = -1 AND SIGN(0) = 0 AND EXP(0) = 1", Tri::True),
            ("SQRT(-1) = 0", Tri::Undefined),
            ("ABS(tags.plant) = 1", Tri::Undefined),
            ("CONCAT('a', tags.plant, 'b') = 'aRedmond43b'", Tri::True),
            ("CONCAT('a', tags.n) = 'a5'", Tri::Undefined),
            ("LENGTH(tags.emoji) = 2 AND LOWER('Ä') = 'ä' AND UPPER('ß') = 'SS'", Tri::True),
            ("SUBSTRING(tags.plant, 3) = 'mond43' AND SUBSTRING(tags.plant, 0, 3) = 'Red'", Tri::True),
            ("SUBSTRING(tags.plant, 8, 3) = 'x' OR SUBSTRING(tags.emoji, 1) = 'x'", Tri::Undefined),
            ("INDEX_OF(tags.plant, 'mond') = 3 AND INDEX_OF(tags.plant, 'x') = -1", Tri::True),
            ("STARTS_WITH(tags.plant, 'Red') AND ENDS_WITH(tags.plant, '43') AND ENDSWITH(tags.plant, '3')", Tri::True),
            ("CONTAINS(tags.plant, 'mon') AND AS_NUMBER('2.5') = tags.f", Tri::True),
            ("AS_NUMBER('x') = 1", Tri::Undefined),
            ("LOWER('A')", Tri::Undefined),
        ] {
            let query = parse_as(&format!("SELECT * FROM devices WHERE {condition}"), Dialect::Permissive).unwrap();
            let twin = Value::parse_json(TWIN).unwrap();
            assert_eq!(eval(query.filter.as_ref().unwrap(), &twin), expected, "{condition}");
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
