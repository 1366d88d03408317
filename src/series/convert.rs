//! One JSON value to a label, a number or a state: the table of `metrics.md` section 3.
//!
//! Invariant: null, an absent key and an empty text are one and the same, and none of them is 0 unless the manifest
//! says so. A number that comes out is finite.

use super::spec::{Case, LabelColumn, NumberColumn, Parse, StateColumn};
use crate::twin::{Number, Value};

/// What a column's value became.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read<T> {
    /// There is no value.
    Missing,
    /// There is one, and it cannot be used.
    Invalid,
    /// This.
    Is(T),
}

/// The value of a label; empty for no label.
pub(super) fn read_label(value: Option<&Value>, column: &LabelColumn) -> Read<String> {
    let text = match plain_text(value) {
        Read::Missing => return Read::Is(clean(&column.default)),
        Read::Invalid if column.default.is_empty() => return Read::Invalid,
        Read::Invalid => return Read::Is(clean(&column.default)),
        Read::Is(text) => text,
    };
    let text = match column.case {
        Case::Keep => text,
        Case::Lower => text.to_lowercase(),
        Case::Upper => text.to_uppercase(),
    };
    let text = column.map.get(&text).map_or(text, |mapped| clean(mapped));
    let allowed = column.allow.is_empty() || column.allow.contains(&text);
    Read::Is(if allowed { text } else { clean(&column.other) })
}

/// The number of a series.
pub(super) fn read_number(value: Option<&Value>, column: &NumberColumn) -> Read<f64> {
    let number = match value {
        None | Some(Value::Null) => return Read::Missing,
        Some(Value::String(text)) if text.is_empty() => return Read::Missing,
        Some(Value::Array(_) | Value::Object(_)) => None,
        Some(Value::Bool(value)) => match column.parse {
            Parse::Auto | Parse::Bool => Some(f64::from(u8::from(*value))),
            Parse::Number | Parse::Percent | Parse::Rfc3339 => None,
        },
        Some(Value::Number(number)) => match column.parse {
            Parse::Auto | Parse::Number => Some(number.as_f64()),
            Parse::Percent => Some(number.as_f64() / 100.0),
            Parse::Bool | Parse::Rfc3339 => None,
        },
        Some(Value::String(text)) => match text_number(text, column.parse) {
            Some(TextNumber::Never) => return Read::Missing,
            Some(TextNumber::Is(number)) => Some(number),
            None => column.map.get(text).map(|number| number.as_f64()),
        },
    };
    let scaled = number.map(|number| number * column.scale.as_f64());
    scaled.filter(|number| number.is_finite()).map_or(Read::Invalid, Read::Is)
}

/// The state of a series: its index among the states, `None` for a value that is none of them.
pub(super) fn read_state(value: Option<&Value>, column: &StateColumn) -> Read<Option<usize>> {
    match plain_text(value) {
        Read::Missing => Read::Missing,
        Read::Invalid => Read::Invalid,
        Read::Is(text) => {
            let state = column.map.get(&text).unwrap_or(&text);
            Read::Is(column.states.iter().position(|known| known == state))
        }
    }
}

/// The text without control characters other than newline and tab.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

fn plain_text(value: Option<&Value>) -> Read<String> {
    let text = match value {
        None | Some(Value::Null) => return Read::Missing,
        Some(Value::String(text)) => clean(text),
        Some(Value::Number(number)) => number.normalised().to_string(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Array(_) | Value::Object(_)) => return Read::Invalid,
    };
    if text.is_empty() { Read::Missing } else { Read::Is(text) }
}

enum TextNumber {
    /// The hub's word for a time that never was (`iot-hub.md` 1.2): no value.
    Never,
    Is(f64),
}

fn text_number(text: &str, parse: Parse) -> Option<TextNumber> {
    match parse {
        Parse::Auto | Parse::Number => decimal(text).map(TextNumber::Is),
        Parse::Bool => match text {
            "true" => Some(TextNumber::Is(1.0)),
            "false" => Some(TextNumber::Is(0.0)),
            _ => None,
        },
        Parse::Percent => {
            decimal(text.strip_suffix('%').unwrap_or(text).trim_end()).map(|number| TextNumber::Is(number / 100.0))
        }
        Parse::Rfc3339 => {
            const NEVER: &str = "0001-01-01T00:00:00";
            if text.strip_suffix('Z').unwrap_or(text) == NEVER {
                return Some(TextNumber::Never);
            }
            let time: jiff::Timestamp = text.parse().ok()?;
            // Microseconds below the year 5138 are exact in an f64's 53 bits; finer ones round.
            Number::from_f64(time.as_duration().as_secs_f64()).map(|number| TextNumber::Is(number.as_f64()))
        }
    }
}

/// `text` as a number in the syntax of JSON, a leading plus, a leading or a trailing point allowed as well.
fn decimal(text: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes().all(plain).then(|| text.parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

/// A duration as manifests write it: `10m`, `1h30m`, `1500ms`.
pub(super) fn short(duration: std::time::Duration) -> String {
    let whole = duration.as_secs();
    let units =
        [(whole / 3600, "h"), (whole / 60 % 60, "m"), (whole % 60, "s"), (u64::from(duration.subsec_millis()), "ms")];
    let text: String =
        units.into_iter().filter(|(count, _)| *count > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::series::spec::{OnInvalid, OnMissing, Reduce};

    fn json(text: &str) -> Option<Value> {
        (text != "absent").then(|| Value::parse_json(text).unwrap())
    }

    fn number(parse: Parse) -> NumberColumn {
        NumberColumn {
            keys: vec!["x".to_owned()],
            parse,
            map: BTreeMap::from([("low".to_owned(), Number::Integer(1)), ("3".to_owned(), Number::Integer(4))]),
            scale: Number::Integer(1),
            on_missing: OnMissing::Skip,
            on_invalid: OnInvalid::Skip,
            reduce: Reduce::Error,
        }
    }

    #[test]
    fn every_shape_of_a_value_becomes_its_number() {
        let (missing, invalid) = (Read::Missing, Read::Invalid);
        let is = |number: f64| Read::Is(number);
        for (parse, text, wanted) in [
            (Parse::Auto, "absent", missing.clone()),
            (Parse::Auto, "null", missing.clone()),
            (Parse::Auto, r#""""#, missing.clone()),
            (Parse::Auto, "0", is(0.0)),
            (Parse::Auto, "-1.5", is(-1.5)),
            (Parse::Auto, "true", is(1.0)),
            (Parse::Auto, "false", is(0.0)),
            (Parse::Auto, r#""42""#, is(42.0)),
            (Parse::Auto, r#""1e3""#, is(1000.0)),
            (Parse::Auto, r#""3""#, is(3.0)),
            (Parse::Auto, r#""low""#, is(1.0)),
            (Parse::Auto, r#""high""#, invalid.clone()),
            (Parse::Auto, r#""inf""#, invalid.clone()),
            (Parse::Auto, r#""NaN""#, invalid.clone()),
            (Parse::Auto, r#""1e999""#, invalid.clone()),
            (Parse::Auto, r#"" 1""#, invalid.clone()),
            (Parse::Auto, r#""55%""#, invalid.clone()),
            (Parse::Auto, "{}", invalid.clone()),
            (Parse::Auto, "[1]", invalid.clone()),
            (Parse::Number, "true", invalid.clone()),
            (Parse::Number, r#""7""#, is(7.0)),
            (Parse::Bool, "false", is(0.0)),
            (Parse::Bool, r#""true""#, is(1.0)),
            (Parse::Bool, "1", invalid.clone()),
            (Parse::Percent, r#""55%""#, is(0.55)),
            (Parse::Percent, r#""55 %""#, is(0.55)),
            (Parse::Percent, "55", is(0.55)),
            (Parse::Percent, r#""%""#, invalid.clone()),
            (Parse::Rfc3339, r#""2026-01-02T03:04:05Z""#, is(1_767_323_045.0)),
            (Parse::Rfc3339, r#""2026-01-02T03:04:05.25+01:00""#, is(1_767_319_445.25)),
            (Parse::Rfc3339, r#""0001-01-01T00:00:00Z""#, missing.clone()),
            (Parse::Rfc3339, r#""yesterday""#, invalid.clone()),
            (Parse::Rfc3339, "1767323045", invalid.clone()),
        ] {
            assert_eq!(read_number(json(text).as_ref(), &number(parse)), wanted, "{parse:?} {text}");
        }
        let mut scaled = number(Parse::Auto);
        scaled.scale = Number::from_f64(0.001).unwrap();
        assert_eq!(read_number(json("1500").as_ref(), &scaled), Read::Is(1.5));
        scaled.scale = Number::from_f64(1e300).unwrap();
        assert_eq!(read_number(json("1e300").as_ref(), &scaled), Read::Invalid, "infinity is no value");
    }

    #[test]
    fn every_shape_of_a_value_becomes_its_label() {
        let column = |default: &str| LabelColumn {
            default: default.to_owned(),
            map: BTreeMap::from([("lte".to_owned(), "cellular".to_owned()), ("2".to_owned(), "two".to_owned())]),
            other: "other".to_owned(),
            ..LabelColumn::default()
        };
        for (text, plain, defaulted) in [
            ("absent", Some(""), "unknown"),
            ("null", Some(""), "unknown"),
            (r#""""#, Some(""), "unknown"),
            (r#""\u0007""#, Some(""), "unknown"),
            (r#""text""#, Some("text"), "text"),
            (r#""a\u0000\u001bb\nc\td\u0085""#, Some("ab\nc\td"), "ab\nc\td"),
            (r#""lte""#, Some("cellular"), "cellular"),
            ("1", Some("1"), "1"),
            ("1.0", Some("1"), "1"),
            ("2.0", Some("two"), "two"),
            ("-0.0", Some("0"), "0"),
            ("1.5", Some("1.5"), "1.5"),
            ("1e300", Some("1e300"), "1e300"),
            ("true", Some("true"), "true"),
            ("[]", None, "unknown"),
            ("{}", None, "unknown"),
        ] {
            let wanted = plain.map_or(Read::Invalid, |text| Read::Is(text.to_owned()));
            assert_eq!(read_label(json(text).as_ref(), &column("")), wanted, "{text}");
            let wanted = Read::Is(defaulted.to_owned());
            assert_eq!(read_label(json(text).as_ref(), &column("unknown")), wanted, "{text} with a default");
        }
    }

    #[test]
    fn case_comes_before_map_and_map_before_allow() {
        let mut column = LabelColumn {
            case: Case::Lower,
            map: BTreeMap::from([("lte".to_owned(), "cellular".to_owned())]),
            allow: vec!["cellular".to_owned(), "wifi".to_owned()],
            other: "other".to_owned(),
            ..LabelColumn::default()
        };
        let read = |column: &LabelColumn, text: &str| read_label(Some(&Value::from(text)), column);
        for (text, wanted) in [("LTE", "cellular"), ("WiFi", "wifi"), ("satellite", "other")] {
            assert_eq!(read(&column, text), Read::Is(wanted.to_owned()), "{text}");
        }
        column.case = Case::Upper;
        assert_eq!(read(&column, "wifi"), Read::Is("other".to_owned()));
    }
}
