//! The functions of the language (`iot-hub.md` 5.2).
//!
//! Invariant: one table says each function's name, how many arguments it takes and whether a hub takes it in twin
//! queries. Whatever gets arguments it cannot work on is undefined, never an error.

use std::borrow::Cow;

use crate::twin::{Number, Value};

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says each one's name; what they do is the documentation's")]
pub enum Function {
    IsDefined,
    StartsWith,
    ArrayContains,
    RoutingStartsWith,
    EndsWith,
    RoutingEndsWith,
    Contains,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsArray,
    IsObject,
    IsPrimitive,
    Abs,
    Exp,
    Power,
    Square,
    Ceiling,
    Floor,
    Sign,
    Sqrt,
    Concat,
    Length,
    Lower,
    Upper,
    Substring,
    IndexOf,
    AsNumber,
}

use Function::{
    Abs, ArrayContains, AsNumber, Ceiling, Concat, Contains, EndsWith, Exp, Floor, IndexOf, IsArray, IsBool, IsDefined,
    IsNull, IsNumber, IsObject, IsPrimitive, IsString, Length, Lower, Power, RoutingEndsWith, RoutingStartsWith, Sign,
    Sqrt, Square, StartsWith, Substring, Upper,
};

/// Function, name, fewest and most arguments.
const TABLE: [(Function, &str, usize, usize); 29] = [
    (IsDefined, "IS_DEFINED", 1, 1),
    (StartsWith, "STARTSWITH", 2, 2),
    (ArrayContains, "ARRAY_CONTAINS", 2, 2),
    (RoutingStartsWith, "STARTS_WITH", 2, 2),
    (EndsWith, "ENDSWITH", 2, 2),
    (RoutingEndsWith, "ENDS_WITH", 2, 2),
    (Contains, "CONTAINS", 2, 2),
    (IsNull, "IS_NULL", 1, 1),
    (IsBool, "IS_BOOL", 1, 1),
    (IsNumber, "IS_NUMBER", 1, 1),
    (IsString, "IS_STRING", 1, 1),
    (IsArray, "IS_ARRAY", 1, 1),
    (IsObject, "IS_OBJECT", 1, 1),
    (IsPrimitive, "IS_PRIMITIVE", 1, 1),
    (Abs, "ABS", 1, 1),
    (Exp, "EXP", 1, 1),
    (Power, "POWER", 2, 2),
    (Square, "SQUARE", 1, 1),
    (Ceiling, "CEILING", 1, 1),
    (Floor, "FLOOR", 1, 1),
    (Sign, "SIGN", 1, 1),
    (Sqrt, "SQRT", 1, 1),
    (Concat, "CONCAT", 2, 16),
    (Length, "LENGTH", 1, 1),
    (Lower, "LOWER", 1, 1),
    (Upper, "UPPER", 1, 1),
    (Substring, "SUBSTRING", 2, 3),
    (IndexOf, "INDEX_OF", 2, 2),
    (AsNumber, "AS_NUMBER", 1, 1),
];

/// The functions that work in twin queries of a hub; all others are documented for other queries or unproven.
const IN_TWIN_QUERIES: [Function; 3] = [IsDefined, StartsWith, ArrayContains];

/// Which functions a text may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Those that a hub is known to take in twin queries.
    Hub,
    /// All that are documented for any query. For tests: a hub answers 400 to most of them.
    Permissive,
}

impl Function {
    /// Every function.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(function, ..)| *function)
    }

    /// The names that `dialect` takes.
    pub(super) fn names(dialect: Dialect) -> impl Iterator<Item = &'static str> {
        Self::all().filter(move |function| function.is_in(dialect)).map(Self::as_str)
    }

    /// The function of a name in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|(_, known, ..)| known.eq_ignore_ascii_case(name)).map(|(function, ..)| *function)
    }

    /// The name as printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The fewest and the most arguments.
    #[must_use]
    pub fn arity(self) -> (usize, usize) {
        let (_, _, fewest, most) = self.row();
        (*fewest, *most)
    }

    /// Whether `dialect` takes it.
    #[must_use]
    pub fn is_in(self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Hub => IN_TWIN_QUERIES.contains(&self),
            Dialect::Permissive => true,
        }
    }

    fn row(self) -> &'static (Self, &'static str, usize, usize) {
        TABLE.iter().find(|(function, ..)| *function == self).expect("a test finds every function in the table")
    }
}

/// An argument; `None` is undefined.
type Argument<'a> = Option<Cow<'a, Value>>;

/// What `function` gives for `arguments`; `None` is undefined.
pub(super) fn call(function: Function, arguments: &[Argument<'_>]) -> Option<Value> {
    let first = arguments.first().and_then(Option::as_deref);
    let second = arguments.get(1).and_then(Option::as_deref);
    match function {
        IsDefined => Some(Value::from(first.is_some())),
        StartsWith | RoutingStartsWith => texts(first, second).map(|(text, part)| Value::from(text.starts_with(part))),
        EndsWith | RoutingEndsWith => texts(first, second).map(|(text, part)| Value::from(text.ends_with(part))),
        Contains => texts(first, second).map(|(text, part)| Value::from(text.contains(part))),
        IndexOf => texts(first, second).map(|(text, part)| index_of(text, part)),
        ArrayContains => match (first?, second?) {
            (Value::Array(items), wanted) => Some(Value::from(is_primitive(wanted) && items.contains(wanted))),
            (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_), _) => None,
        },
        IsNull | IsBool | IsNumber | IsString | IsArray | IsObject | IsPrimitive => {
            Some(Value::from(first.is_some_and(|value| is_of_type(function, value))))
        }
        Abs | Exp | Square | Ceiling | Floor | Sign | Sqrt => {
            number(computed(function, number_of(first?)?.normalised()))
        }
        Power => number(number_of(first?)?.as_f64().powf(number_of(second?)?.as_f64())),
        Concat => {
            let texts: Option<Vec<&str>> = arguments.iter().map(|argument| argument.as_deref()?.as_str()).collect();
            Some(Value::from(texts?.concat()))
        }
        Length => Some(length(first?.as_str()?.encode_utf16().count())),
        Lower => Some(Value::from(first?.as_str()?.to_lowercase())),
        Upper => Some(Value::from(first?.as_str()?.to_uppercase())),
        Substring => substring(first?.as_str()?, second?, arguments.get(2)),
        AsNumber => number(first?.as_str()?.trim().parse().ok()?),
    }
}

fn texts<'a>(first: Option<&'a Value>, second: Option<&'a Value>) -> Option<(&'a str, &'a str)> {
    Some((first?.as_str()?, second?.as_str()?))
}

fn is_primitive(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn is_of_type(function: Function, value: &Value) -> bool {
    match value {
        Value::Null => matches!(function, IsNull | IsPrimitive),
        Value::Bool(_) => matches!(function, IsBool | IsPrimitive),
        Value::Number(_) => matches!(function, IsNumber | IsPrimitive),
        Value::String(_) => matches!(function, IsString | IsPrimitive),
        Value::Array(_) => function == IsArray,
        Value::Object(_) => function == IsObject,
    }
}

pub(super) fn number_of(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A finite result as a value, a whole one as an integer.
pub(super) fn number(value: f64) -> Option<Value> {
    Number::from_f64(value).map(|number| Value::Number(number.normalised()))
}

/// A function of one number. Infinite and impossible results stay so, and become undefined.
fn computed(function: Function, argument: Number) -> f64 {
    let value = argument.as_f64();
    match function {
        Abs => value.abs(),
        Exp => value.exp(),
        Square => value * value,
        Ceiling => value.ceil(),
        Floor => value.floor(),
        Sign if value == 0.0 => 0.0,
        Sign => value.signum(),
        Sqrt => value.sqrt(),
        IsDefined | StartsWith | ArrayContains | RoutingStartsWith | EndsWith | RoutingEndsWith | Contains | IsNull
        | IsBool | IsNumber | IsString | IsArray | IsObject | IsPrimitive | Power | Concat | Length | Lower | Upper
        | Substring | IndexOf | AsNumber => f64::NAN,
    }
}

/// Where `part` begins, in UTF-16 units as the hub counts; -1 when it is nowhere.
fn index_of(text: &str, part: &str) -> Value {
    text.find(part).map_or(Value::from(-1), |at| length(text[..at].encode_utf16().count()))
}

fn length(units: usize) -> Value {
    Value::from(i64::try_from(units).unwrap_or(i64::MAX))
}

/// The UTF-16 units from `start` on, or so many of them. `None` outside the text and inside a surrogate pair.
fn substring(text: &str, start: &Value, count: Option<&Argument<'_>>) -> Option<Value> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let index = |value: &Value| match number_of(value)?.normalised() {
        Number::Integer(index) => usize::try_from(index).ok(),
        Number::Float(_) => None,
    };
    let start = index(start)?;
    let end = match count {
        None => units.len(),
        Some(count) => start.checked_add(index(count.as_deref()?)?)?,
    };
    String::from_utf16(units.get(start..end)?).ok().map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_stands_in_the_table_once() {
        for (index, (function, name, fewest, most)) in TABLE.iter().enumerate() {
            assert_eq!(*function as usize, index, "{name}");
            assert_eq!(Function::named(&name.to_lowercase()), Some(*function));
            assert!(fewest <= most && *fewest > 0, "{name}");
        }
        assert_eq!(AsNumber as usize + 1, TABLE.len());
        assert_eq!(Function::named("SIN"), None);
    }
}
