//! What a hub refuses to store (`iot-hub.md` section 4), checked before anything is sent.

use super::{Number, Object, Path, Section, Value};

/// The deepest nesting of objects beneath a section; arrays count as a level too (`iot-hub.md` section 4).
pub const SECTION_DEPTH_MAX: usize = 10;
const TAGS_SIZE_MAX: usize = 8 * 1024;
const DESIRED_SIZE_MAX: usize = 32 * 1024;
const KEY_SIZE_MAX: usize = 1024;
const STRING_SIZE_MAX: usize = 4096;
const INTEGER_MIN: i64 = -4_503_599_627_370_496;
const INTEGER_MAX: i64 = 4_503_599_627_370_495;

/// One value a hub would refuse, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The section the value stands in.
    pub section: Section,
    /// Where; the empty path is the whole section.
    pub path: Path,
    /// The rule it breaks, with the figures of this case.
    pub rule: Rule,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.in_section(self.section), self.rule)
    }
}

/// The rules of `iot-hub.md` section 4 on sections. `Display` states rule and remedy in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The whole section is too large.
    #[error("{size} bytes by IoT Hub's size rule, at most {max} fit; remove or shorten values")]
    SectionSize {
        /// By Microsoft's rule, in bytes.
        size: usize,
        /// The limit of this section, in bytes.
        max: usize,
    },
    /// A key is too long.
    #[error("a key has at most {KEY_SIZE_MAX} bytes, this one has {0}")]
    KeySize(usize),
    /// A key holds a forbidden character.
    #[error("key {key:?} holds {character:?}; a key may not hold `.`, `$`, `#`, spaces or control characters")]
    KeyCharacter {
        /// The key.
        key: String,
        /// The first character in it that is refused.
        character: char,
    },
    /// A string is too long.
    #[error("a string has at most {STRING_SIZE_MAX} bytes, this one has {0}; split it over several keys")]
    StringSize(usize),
    /// An integer outside 53 signed bits.
    #[error("{0} is outside {INTEGER_MIN} to {INTEGER_MAX}; quote it to send it as a string")]
    IntegerRange(String),
    /// Objects and arrays nest too deep.
    #[error("nested deeper than {SECTION_DEPTH_MAX} levels; flatten the tree")]
    Depth,
    /// A null inside an array.
    #[error("null is not allowed inside an array; leave the element out")]
    NullInArray,
}

/// Every rule of `iot-hub.md` section 4 that `object` breaks as the content of `section`, in document order.
/// Nulls outside arrays pass: in a manifest and in a patch they mean "must not exist".
#[must_use]
pub fn check_section(section: Section, object: &Object) -> Vec<Violation> {
    let mut found = Vec::new();
    check_object(section, &mut Vec::new(), object, 0, false, &mut found);
    let (size, max) = (section_size(object), size_max(section));
    if size > max {
        found.push(Violation { section, path: Path::root(), rule: Rule::SectionSize { size, max } });
    }
    found
}

/// The largest size of a section, in bytes by the rule of [`section_size`].
#[must_use]
pub const fn size_max(section: Section) -> usize {
    match section {
        Section::Tags => TAGS_SIZE_MAX,
        Section::Desired => DESIRED_SIZE_MAX,
    }
}

/// The size of a section by Microsoft's rule, in bytes: keys and strings in UTF-8 (strings without control
/// characters), 8 a number, 4 a boolean, objects by their content (`iot-hub.md` section 4). Array elements count like
/// values, which the documentation leaves open; nulls are deletions and count nothing.
#[must_use]
pub fn section_size(object: &Object) -> usize {
    object.iter().filter(|(_, value)| **value != Value::Null).map(|(key, value)| key.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => section_size(object),
    }
}

/// The rule a key breaks, if any.
#[must_use]
pub fn check_key(key: &str) -> Option<Rule> {
    if key.len() > KEY_SIZE_MAX {
        return Some(Rule::KeySize(key.len()));
    }
    let refused = |c: &char| matches!(c, '.' | '$' | '#') || c.is_control() || c.is_whitespace();
    key.chars().find(refused).map(|character| Rule::KeyCharacter { key: key.to_owned(), character })
}

/// `path` is where `object` stands: its keys are borrowed, since next to no value breaks a rule.
fn check_object<'o>(
    section: Section,
    path: &mut Vec<&'o str>,
    object: &'o Object,
    depth: usize,
    in_array: bool,
    found: &mut Vec<Violation>,
) {
    for (key, value) in object {
        path.push(key);
        if let Some(rule) = check_key(key) {
            found.push(Violation { section, path: Path::new(path.iter().copied()), rule });
        }
        check_value(section, path, value, depth, in_array, found);
        path.pop();
    }
}

/// `depth` counts the objects and arrays around `value`, the section itself not included.
fn check_value<'o>(
    section: Section,
    path: &mut Vec<&'o str>,
    value: &'o Value,
    depth: usize,
    in_array: bool,
    found: &mut Vec<Violation>,
) {
    let mut refuse = |rule| found.push(Violation { section, path: Path::new(path.iter().copied()), rule });
    match value {
        Value::Null if in_array => refuse(Rule::NullInArray),
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            if let Some(rule) = check_number(*number) {
                refuse(rule);
            }
        }
        Value::String(text) if text.len() > STRING_SIZE_MAX => refuse(Rule::StringSize(text.len())),
        Value::String(_) => {}
        Value::Array(_) | Value::Object(_) if depth >= SECTION_DEPTH_MAX => refuse(Rule::Depth),
        Value::Array(items) => {
            for item in items {
                check_value(section, path, item, depth + 1, true, found);
            }
        }
        Value::Object(inner) => check_object(section, path, inner, depth + 1, in_array, found),
    }
}

/// Integers only: a float such as `1e300` passes, as it does at the hub.
fn check_number(number: Number) -> Option<Rule> {
    match number {
        Number::Integer(value) if !(INTEGER_MIN..=INTEGER_MAX).contains(&value) => {
            Some(Rule::IntegerRange(number.to_string()))
        }
        Number::Integer(_) | Number::Float(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn rules(json: &str) -> Vec<String> {
        check_section(Section::Tags, &object(json)).iter().map(ToString::to_string).collect()
    }

    /// `depth` objects inside one another, a scalar in the innermost.
    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"k":"#.repeat(depth + 1), "}".repeat(depth + 1))
    }

    #[test]
    fn what_a_hub_takes_passes() {
        for good in [
            "{}",
            r#"{"":1,"ключ":{"a":[1,"x",{"b":false}]},"gone":null}"#,
            r#"{"n":4503599627370495,"m":-4503599627370496,"f":1e300}"#,
            &format!(r#"{{"{}":"{}"}}"#, "k".repeat(1024), "v".repeat(4096)),
            &nested(10),
        ] {
            assert_eq!(rules(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn each_rule_is_named_with_its_place() {
        for (bad, message) in [
            (r#"{"a":{"b.c":1}}"#, "tags.a.b.c: key \"b.c\" holds '.'"),
            (r#"{"a b":1}"#, "tags.a b: key \"a b\" holds ' '"),
            (r#"{"$x":1}"#, "tags.$x: key \"$x\" holds '$'"),
            (r##"{"x#":1}"##, "tags.x#: key \"x#\" holds '#'"),
            (r#"{"x\u0085":1}"#, "holds '\\u{85}'"),
            (r#"{"n":4503599627370496}"#, "tags.n: 4503599627370496 is outside"),
            (r#"{"n":-4503599627370497}"#, "tags.n: -4503599627370497 is outside"),
            (r#"{"l":[1,null]}"#, "tags.l: null is not allowed inside an array"),
            (r#"{"l":[{"x":null}]}"#, "tags.l.x: null is not allowed inside an array"),
            (&format!(r#"{{"s":"{}"}}"#, "x".repeat(4097)), "tags.s: a string has at most 4096 bytes"),
            (&format!(r#"{{"{}":1}}"#, "k".repeat(1025)), "a key has at most 1024 bytes"),
            (&nested(11), "nested deeper than 10 levels"),
            (r#"{"a":[[[[[[[[[[[1]]]]]]]]]]]}"#, "tags.a: nested deeper than 10 levels"),
        ] {
            let found = rules(bad);
            assert!(found.len() == 1 && found[0].contains(message), "{bad}: {found:?}");
        }
    }

    #[test]
    fn the_size_of_a_section_follows_microsoft_s_rule() {
        assert_eq!(section_size(&object(r#"{"ab":"cde","n":1,"b":true,"o":{"k":"v"},"l":[1,"xy"],"z":null}"#)), 33);
        let full = format!(r#"{{"a":"{}","b":"{}"}}"#, "x".repeat(4096), "y".repeat(4094));
        assert_eq!(rules(&full), Vec::<String>::new());
        let over = format!(r#"{{"a":"{}","b":"{}"}}"#, "x".repeat(4096), "y".repeat(4095));
        assert_eq!(
            rules(&over),
            ["tags: 8193 bytes by IoT Hub's size rule, at most 8192 fit; remove or shorten values"]
        );
        assert_eq!(check_section(Section::Desired, &object(&over)), Vec::new());
    }
}
