//! Families to text in the exposition format 0.0.4.
//!
//! Invariant: the text has HELP and TYPE once a family and no series twice, as long as [`first_duplicate`] finds none
//! among what is joined; it ends with a newline, or is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use super::family::HUB_LABEL;
use super::{Family, Kind, LabelSet};

/// One family of one hub, its sample lines already written: rendered once, shared by every scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyText {
    name: String,
    kind: Kind,
    help: String,
    lines: Arc<str>,
    series: usize,
}

impl FamilyText {
    /// The family's full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of series.
    #[must_use]
    pub const fn series(&self) -> usize {
        self.series
    }
}

/// Writes the samples of a family, each with the label `hub`.
#[must_use]
pub fn render(family: &Family, hub: &str) -> FamilyText {
    let mut lines = String::new();
    for (labels, value) in family.samples() {
        lines.push_str(family.name());
        write_labels(&mut lines, labels, hub);
        lines.push(' ');
        write_value(&mut lines, value);
        lines.push('\n');
    }
    FamilyText {
        name: family.name().to_owned(),
        kind: family.kind(),
        help: family.help().to_owned(),
        lines: lines.into(),
        series: family.series(),
    }
}

/// A piece of an exposition. Pieces one after another are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// HELP and TYPE of a family.
    Head(String),
    /// Sample lines, shared with the [`FamilyText`] they come from.
    Lines(Arc<str>),
}

impl Piece {
    /// The piece's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Head(text) => text,
            Self::Lines(lines) => lines,
        }
    }
}

/// The exposition of all families, in order of their names; families of one name become one, with the help and the
/// type of the first. A family without series is left out.
#[must_use]
pub fn pieces<'a>(families: impl IntoIterator<Item = &'a FamilyText>) -> Vec<Piece> {
    let mut by_name: BTreeMap<&str, Vec<&FamilyText>> = BTreeMap::new();
    for family in families.into_iter().filter(|family| family.series > 0) {
        by_name.entry(&family.name).or_default().push(family);
    }
    let mut pieces = Vec::new();
    for (name, parts) in by_name {
        for first in parts.iter().take(1) {
            let mut head = format!("# HELP {name} ");
            write_escaped(&mut head, &first.help, false);
            writeln!(head, "\n# TYPE {name} {}", first.kind.as_str()).expect("writing to a String does not fail");
            pieces.push(Piece::Head(head));
        }
        pieces.extend(parts.into_iter().map(|part| Piece::Lines(Arc::clone(&part.lines))));
    }
    pieces
}

/// The exposition of all families as one text.
#[must_use]
pub fn join<'a>(families: impl IntoIterator<Item = &'a FamilyText>) -> String {
    pieces(families).iter().map(Piece::as_str).collect()
}

/// A series, name with labels, that stands in two of these families; Prometheus would keep one of the two values
/// without a word (`metrics.md` 1.2).
#[must_use]
pub fn first_duplicate<'a>(families: impl IntoIterator<Item = &'a FamilyText>) -> Option<String> {
    let mut by_name: BTreeMap<&str, Vec<&FamilyText>> = BTreeMap::new();
    for family in families {
        by_name.entry(&family.name).or_default().push(family);
    }
    by_name.into_values().filter(|parts| parts.len() > 1).find_map(|parts| {
        let mut seen = BTreeSet::new();
        let lines = parts.into_iter().flat_map(|part| part.lines.lines());
        // The value is the last word; a label value may hold spaces, a value never does.
        let mut series = lines.filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series));
        series.find(|series| !seen.insert(*series)).map(str::to_owned)
    })
}

fn write_labels(text: &mut String, labels: &LabelSet, hub: &str) {
    let mut own: Vec<(&str, &str)> = labels.iter().chain((!hub.is_empty()).then_some((HUB_LABEL, hub))).collect();
    own.sort_unstable();
    for (index, (name, value)) in own.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        write_escaped(text, value, true);
        text.push('"');
    }
    if !own.is_empty() {
        text.push('}');
    }
}

fn write_escaped(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

fn write_value(text: &mut String, value: f64) {
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        write!(text, "{value}").expect("writing to a String does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::strict;

    fn family(name: &str, help: &str, samples: &[(&[(&str, &str)], f64)]) -> Family {
        let mut family = Family::new(name, Kind::Gauge, help).unwrap();
        for (labels, value) in samples {
            family.set(LabelSet::new(labels.iter().copied()).unwrap(), *value);
        }
        family
    }

    #[test]
    fn labels_help_and_values_are_written_as_the_format_wants() {
        let odd = family(
            "twinquery_odd",
            "A \\ and a\nnewline and a \"quote\".",
            &[
                (&[("zone", "a\\b\"c\nd"), ("area", "ä b")], 1.5),
                (&[("zone", "inf")], f64::INFINITY),
                (&[("zone", "minus")], f64::NEG_INFINITY),
                (&[("zone", "nan")], f64::NAN),
                (&[], -0.25),
                (&[("zone", "big")], 1e15),
            ],
        );
        let text = join([&render(&odd, "prod")]);
        insta::assert_snapshot!(text, @r#"
        # HELP twinquery_odd A \\ and a\nnewline and a "quote".
        # TYPE twinquery_odd gauge
        twinquery_odd{hub="prod"} -0.25
        twinquery_odd{area="ä b",hub="prod",zone="a\\b\"c\nd"} 1.5
        twinquery_odd{hub="prod",zone="big"} 1000000000000000
        twinquery_odd{hub="prod",zone="inf"} +Inf
        twinquery_odd{hub="prod",zone="minus"} -Inf
        twinquery_odd{hub="prod",zone="nan"} NaN
        "#);
        assert!(text.ends_with("NaN\n"), "promtool wants a newline at the end");
        let parsed = strict::parse(&text).unwrap();
        assert_eq!(parsed["twinquery_odd"].help, "A \\ and a\nnewline and a \"quote\".");
        assert_eq!(parsed["twinquery_odd"].samples.len(), 6);
    }

    #[test]
    fn families_of_one_name_become_one_with_the_first_help() {
        let one = render(&family("twinquery_a", "First.", &[(&[], 1.0)]), "prod");
        let other = render(&family("twinquery_a", "Second.", &[(&[], 2.0)]), "test");
        let before = render(&family("twinquery_0", "Zero.", &[(&[], 0.0)]), "test");
        let empty = render(&family("twinquery_none", "None.", &[]), "test");
        assert_eq!(first_duplicate([&one, &other, &before, &empty]), None);
        insta::assert_snapshot!(join([&one, &other, &before, &empty]), @r#"
        # HELP twinquery_0 Zero.
        # TYPE twinquery_0 gauge
        twinquery_0{hub="test"} 0
        # HELP twinquery_a First.
        # TYPE twinquery_a gauge
        twinquery_a{hub="prod"} 1
        twinquery_a{hub="test"} 2
        "#);
        assert_eq!(join([&empty]), "");
    }

    #[test]
    fn a_series_in_two_families_is_found() {
        let labels: &[(&str, &str)] = &[("plant", "Redmond 43")];
        let one = render(&family("twinquery_a", "A.", &[(labels, 1.0), (&[], 1.0)]), "prod");
        let same = render(&family("twinquery_a", "A.", &[(labels, 2.0)]), "prod");
        let other = render(&family("twinquery_b", "B.", &[(labels, 2.0)]), "prod");
        assert_eq!(
            first_duplicate([&one, &other, &same]),
            Some(r#"twinquery_a{hub="prod",plant="Redmond 43"}"#.to_owned())
        );
    }
}
