//! What an unquoted YAML scalar means: the core schema of YAML 1.2, and nothing wider.
//!
//! Invariant: a text is never changed silently. What cannot be a value of a twin is refused; a text that other YAML
//! readers take for something else stays a text and is marked.

use super::tree::Content;
use crate::twin::Number;

/// Why an unquoted scalar is refused. `Display` is the message with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScalarError {
    #[error("{0} is not a number JSON has; write a finite number, or quote it to send the text")]
    NotFinite(String),
    #[error("{0} does not fit 64 bits; quote it to send the text")]
    TooLarge(String),
}

/// The value of the unquoted scalar `text`.
pub(super) fn resolve(text: &str) -> Result<Content, ScalarError> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Content::Null),
        "true" | "True" | "TRUE" => return Ok(Content::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Content::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(ScalarError::NotFinite(text.to_owned()));
    }
    if let Some(content) = radix_integer(text)? {
        return Ok(content);
    }
    if is_decimal_integer(unsigned) {
        return match text.parse::<i64>() {
            Ok(value) => Ok(Content::Number(Number::Integer(value), text.to_owned())),
            Err(_) => Err(ScalarError::TooLarge(text.to_owned())),
        };
    }
    if is_float(unsigned) {
        let value = text.parse().ok().and_then(Number::from_f64);
        return value
            .map(|number| Content::Number(number, text.to_owned()))
            .ok_or_else(|| ScalarError::NotFinite(text.to_owned()));
    }
    Ok(Content::Text { text: text.to_owned(), ambiguous: is_ambiguous(unsigned) })
}

/// `0x1F` and `0o17`, which YAML 1.2 takes without a sign.
fn radix_integer(text: &str) -> Result<Option<Content>, ScalarError> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => return Ok(None),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Ok(None);
    }
    match i64::from_str_radix(digits, radix) {
        Ok(value) => Ok(Some(Content::Number(Number::Integer(value), text.to_owned()))),
        Err(_) => Err(ScalarError::TooLarge(text.to_owned())),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decimal digits without a leading zero: `010` is 10 to some readers and 8 to others.
fn is_decimal_integer(text: &str) -> bool {
    is_digits(text) && (text.len() == 1 || !text.starts_with('0'))
}

/// `1.5`, `.5`, `1.`, `1e3`, without a sign.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_point_or_exponent = mantissa.contains('.') || exponent.is_some();
    has_point_or_exponent
        && digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(is_digits)
        && (whole.len() < 2 || !whole.starts_with('0'))
}

/// Texts that YAML 1.1 readers take for booleans or numbers.
fn is_ambiguous(unsigned: &str) -> bool {
    const YES_AND_NO: [&str; 8] = ["y", "n", "yes", "no", "on", "off", ".nan", ".inf"];
    let is_prefixed = |prefix: &str| unsigned.strip_prefix(prefix).is_some_and(is_digits);
    YES_AND_NO.iter().any(|word| unsigned.eq_ignore_ascii_case(word))
        || (unsigned.starts_with('0') && unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        || is_prefixed("0b")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_read_by_the_core_schema() {
        let show = |text: &str| match resolve(text) {
            Ok(Content::Text { text, ambiguous }) => format!("text {text}{}", if ambiguous { " ?" } else { "" }),
            Ok(Content::Number(number, _)) => format!("number {number}"),
            Ok(Content::Bool(value)) => format!("bool {value}"),
            Ok(Content::Null) => "null".to_owned(),
            Ok(other @ (Content::List(_) | Content::Map(_) | Content::Refused)) => format!("{other:?}"),
            Err(ScalarError::NotFinite(_)) => "not finite".to_owned(),
            Err(ScalarError::TooLarge(_)) => "too large".to_owned(),
        };
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("True", "bool true"),
            ("1", "number 1"),
            ("-0", "number 0"),
            ("+5", "number 5"),
            ("0x1F", "number 31"),
            ("0o17", "number 15"),
            ("0x", "text 0x"),
            ("-0x1F", "text -0x1F"),
            ("9223372036854775807", "number 9223372036854775807"),
            ("9223372036854775808", "too large"),
            ("0xFFFFFFFFFFFFFFFF", "too large"),
            ("1.0", "number 1.0"),
            ("1.10", "number 1.1"),
            ("1e3", "number 1000.0"),
            (".5", "number 0.5"),
            ("1.", "number 1.0"),
            ("-1.5E-2", "number -0.015"),
            ("1e999", "not finite"),
            (".inf", "not finite"),
            ("-.INF", "not finite"),
            (".NaN", "not finite"),
            ("010", "text 010 ?"),
            ("00.5", "text 00.5 ?"),
            ("yes", "text yes ?"),
            ("Off", "text Off ?"),
            ("0b11", "text 0b11 ?"),
            ("1_000", "text 1_000"),
            (".", "text ."),
            ("-", "text -"),
            ("e3", "text e3"),
            ("1e", "text 1e"),
            ("1.2.3", "text 1.2.3"),
            ("inf", "text inf"),
            ("nan", "text nan"),
            ("Redmond43", "text Redmond43"),
        ] {
            assert_eq!(show(text), expected, "{text:?}");
        }
    }
}
