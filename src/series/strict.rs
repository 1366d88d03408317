//! A strict parser of the exposition format 0.0.4, for tests: it refuses whatever any Prometheus server or promtool
//! would refuse, drop or keep only one of (`metrics.md` 1.2).
//!
//! Invariant: shares no code with the writer it judges.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// A family as read back.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

/// Reads an exposition: family name to family.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Parsed>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("no newline at the end".to_owned());
    }
    let mut families: BTreeMap<String, Parsed> = BTreeMap::new();
    let mut open = String::new();
    let mut seen = BTreeSet::new();
    for line in text.split_terminator('\n') {
        parse_line(line, &mut families, &mut open, &mut seen).map_err(|error| format!("{error}: {line}"))?;
    }
    match families.iter().find(|(_, family)| family.samples.is_empty() || family.kind.is_empty()) {
        Some((name, _)) => Err(format!("{name} has no samples or no type")),
        None => Ok(families),
    }
}

fn parse_line(
    line: &str,
    families: &mut BTreeMap<String, Parsed>,
    open: &mut String,
    seen: &mut BTreeSet<(String, Labels)>,
) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ').ok_or("a help without a text")?;
        check_name(name, true)?;
        let family = Parsed { help: unescape(help, false)?, ..Parsed::default() };
        *open = name.to_owned();
        return families.insert(name.to_owned(), family).map_or(Ok(()), |_| Err("a second help".to_owned()));
    }
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        let (name, kind) = rest.split_once(' ').ok_or("a type without a word")?;
        if !["gauge", "counter", "histogram"].contains(&kind) {
            return Err("a type that is not known".to_owned());
        }
        let family = families.get_mut(name).filter(|_| name == open).ok_or("a type without its help")?;
        let before = std::mem::replace(&mut family.kind, kind.to_owned());
        return if before.is_empty() && family.samples.is_empty() { Ok(()) } else { Err("a second type".to_owned()) };
    }
    let (name, labels, value) = parse_sample(line)?;
    let family = families.get_mut(open.as_str()).ok_or("a sample without a family")?;
    let histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| name.strip_suffix(suffix) == Some(open));
    if name != *open && !(family.kind == "histogram" && histogram) {
        return Err("a sample of another family".to_owned());
    }
    if family.kind == "counter" && !(value >= 0.0 && name.ends_with("_total")) && name != "process_cpu_seconds_total" {
        return Err("a counter that is negative or not called _total".to_owned());
    }
    if !seen.insert((name.clone(), labels.clone())) {
        return Err("a series twice".to_owned());
    }
    family.samples.push((name, labels, value));
    Ok(())
}

fn parse_sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name, true)?;
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            check_name(label, false)?;
            let close = closing_quote(after).ok_or("a label value that does not end")?;
            let value = unescape(&after[..close], true)?;
            if value.is_empty() || label.starts_with("__") || labels.insert(label.to_owned(), value).is_some() {
                return Err("a label that is empty, reserved or repeated".to_owned());
            }
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or("labels that do not end")?;
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    let number = match value {
        "NaN" => f64::NAN,
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
            digits.parse().map_err(|_| "a value that is no number")?
        }
        _ => return Err("a value that is no number, or a time stamp".to_owned()),
    };
    Ok((name.to_owned(), labels, number))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, character)| {
        let close = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        close.then_some(index)
    })
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quotes) {
            ('\\', _) => match (characters.next(), quotes) {
                (Some('\\'), _) => plain.push('\\'),
                (Some('n'), _) => plain.push('\n'),
                (Some('"'), true) => plain.push('"'),
                _ => return Err("an escape that is not known".to_owned()),
            },
            ('"', true) => return Err("a bare quote".to_owned()),
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

fn check_name(text: &str, colon: bool) -> Result<(), String> {
    let mut characters = text.chars();
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':');
    let good = characters.next().is_some_and(letter) && characters.all(|c| letter(c) || c.is_ascii_digit());
    if good { Ok(()) } else { Err(format!("{text:?} is no name")) }
}

#[test]
fn the_strict_parser_refuses_what_a_server_or_promtool_refuses() {
    let head = "# HELP a A.\n# TYPE a gauge\n";
    assert!(parse(&format!("{head}a 1\na{{x=\"\\\"\\n\"}} +Inf\n")).is_ok());
    for bad in [
        "a 1\n",
        "# HELP a A.\n# TYPE a gauge\n",
        "# HELP a A.\n# TYPE a info\na 1\n",
        "# HELP a A.\na 1\n",
        "# TYPE a gauge\na 1\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    for bad in [
        "a 1",
        "b 1\n",
        "a-b 1\n",
        "a{x.y=\"1\"} 1\n",
        "a{9x=\"1\"} 1\n",
        "a{__name__=\"b\"} 1\n",
        "a{x=\"1\",x=\"2\"} 1\n",
        "a{x=\"\"} 1\n",
        "a{x=\"1\"} 1\na{x=\"1\"} 2\n",
        "a{x=\"1} 1\n",
        "a{x=\"\\t\"} 1\n",
        "a inf\n",
        "a 1 1700000000000\n",
        "a\n",
        "a 1\n# HELP a A.\n# TYPE a gauge\na{x=\"1\"} 1\n",
        "\na 1\n",
    ] {
        assert!(parse(&format!("{head}{bad}")).is_err(), "{bad}");
    }
}
