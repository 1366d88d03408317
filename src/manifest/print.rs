//! Values to YAML text.
//!
//! Invariant: what is printed reads back as the same value, without a warning, by this crate's reader and by readers
//! of YAML 1.1 and 1.2 alike: a text stands bare only where no reader could take it for anything else, and is a JSON
//! string elsewhere. Control characters are escaped, so the text may go to a terminal.

use std::fmt::Write as _;

use crate::twin::{Object, Value};

/// The longest text that stands without quotes, in characters.
const BARE_MAX: usize = 80;

/// `value` as a YAML document: mappings in blocks, lists on one line unless they hold large mappings.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => write_block(object, 0, &mut text),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            write_flow(value, &mut text);
            text.push('\n');
        }
    }
    text
}

fn write_block(object: &Object, depth: usize, text: &mut String) {
    for (key, value) in object {
        for _ in 0..depth {
            text.push_str("  ");
        }
        write_text(key, text);
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                write_block(inner, depth + 1, text);
            }
            Value::Array(items) if items.iter().any(is_large) => {
                text.push('\n');
                items.iter().for_each(|item| write_item(item, depth, text));
            }
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                text.push(' ');
                write_flow(value, text);
                text.push('\n');
            }
        }
    }
}

/// One item of a list on lines of its own.
fn write_item(item: &Value, depth: usize, text: &mut String) {
    let margin = "  ".repeat(depth);
    let mut inner = String::new();
    match item {
        Value::Object(object) if !object.is_empty() => write_block(object, depth + 1, &mut inner),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            inner = format!("{margin}  ");
            write_flow(item, &mut inner);
            inner.push('\n');
        }
    }
    // The first line begins with the margin of the item and two blanks, which the dash takes.
    text.push_str(&margin);
    text.push_str("- ");
    text.push_str(&inner[margin.len() + 2..]);
}

/// An object that is better read on lines of its own.
fn is_large(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.len() > 2)
}

fn write_flow(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) => text.push_str(&value.to_string()),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(content) => write_text(content, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_flow(item, text);
            }
            text.push(']');
        }
        Value::Object(object) => {
            text.push('{');
            for (index, (key, item)) in object.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_text(key, text);
                text.push_str(": ");
                write_flow(item, text);
            }
            text.push('}');
        }
    }
}

fn write_text(content: &str, text: &mut String) {
    if is_bare(content) {
        text.push_str(content);
        return;
    }
    // The reader counts brackets that are open at once, in texts too.
    let count = |wanted: &[char]| content.chars().filter(|c| wanted.contains(c)).count();
    let unbalanced = count(&['[', '{']) > count(&[']', '}']);
    text.push('"');
    for character in content.chars() {
        match character {
            '[' | '{' if unbalanced => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            // Byte order marks and the line ends of Unicode mean something to YAML readers.
            '\u{feff}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            control if control.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

/// Whether no reader takes the text for anything but itself: a word of plain characters that is none of YAML's.
fn is_bare(content: &str) -> bool {
    const WORDS: [&str; 12] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity"];
    let mut characters = content.chars();
    let starts = characters.next().is_some_and(|first| first.is_ascii_alphabetic());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    starts
        && characters.all(plain)
        && content.len() <= BARE_MAX
        && !WORDS.iter().any(|word| content.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_bare_and_everything_that_could_be_mistaken_is_quoted() {
        for (json, yaml) in [
            (
                r#"{"a":{"b":"Redmond43","c":{}},"d":[1,"x",{"k":null}]}"#,
                "a:\n  b: Redmond43\n  c: {}\nd: [1, x, {k: null}]\n",
            ),
            (
                r#"{"1":"1","on":"no","a b":"1.10","":"~"}"#,
                "\"\": \"~\"\n\"1\": \"1\"\n\"a b\": \"1.10\"\n\"on\": \"no\"\n",
            ),
            (r#"{"x":"a: b # c","y":"- z","Ω":"ß"}"#, "x: \"a: b # c\"\n\"y\": \"- z\"\n\"Ω\": \"ß\"\n"),
            (r#"{"t":"a\tb\n\u001b[31m\u0085\u2028\\\""}"#, "t: \"a\\tb\\n\\u001b\\u005b31m\\u0085\\u2028\\\\\\\"\"\n"),
            (r#"{"f":1.0,"g":1e-7,"h":1e300,"i":-0.5,"j":true}"#, "f: 1.0\ng: 1e-7\nh: 1e300\ni: -0.5\nj: true\n"),
            (r#"{"l":[{"a":1,"b":{"c":2},"d":[]},3]}"#, "l:\n- a: 1\n  b:\n    c: 2\n  d: []\n- 3\n"),
            ("{}", "{}\n"),
        ] {
            assert_eq!(to_yaml(&Value::parse_json(json).unwrap()), yaml);
        }
    }
}
