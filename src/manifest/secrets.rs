//! Values that diagnostics must not quote.
//!
//! Invariant: what a document calls sensitive is quoted in none of its diagnostics, however broken the document is: its
//! paths are looked for in the text, not in what could be read of it.

use std::collections::BTreeSet;

use super::tree::Problem;
use crate::plan::Subtree;

/// The field that names sensitive paths.
const FIELD: &str = "sensitive";
/// Rules whose messages quote a value.
const QUOTING_RULES: [&str; 7] =
    ["ambiguous-value", "changed-value", "integer-range", "number", "out-of-range", "unknown-value", "wrong-type"];

/// Every path of a section that `text`, one document, writes out, if it calls anything sensitive. That may be more
/// than it calls so.
pub(super) fn mentioned_paths(text: &str) -> BTreeSet<Subtree> {
    if !text.contains(FIELD) {
        return BTreeSet::new();
    }
    let is_delimiter = |c: char| c.is_whitespace() || ",[]{}\"'".contains(c);
    text.split(is_delimiter).filter_map(|word| Subtree::parse(word).ok()).collect()
}

/// Takes the value out of the message of each problem at, beneath or above one of the paths.
pub(super) fn hide_values<'p>(problems: impl Iterator<Item = &'p mut Problem>, sensitive: &BTreeSet<Subtree>) {
    let paths: Vec<String> = sensitive.iter().map(|subtree| format!("spec.{subtree}")).collect();
    for problem in problems.filter(|problem| QUOTING_RULES.contains(&problem.rule)) {
        if paths.iter().any(|path| covers(path, &problem.path) || covers(&problem.path, path)) {
            problem.message =
                format!("the value breaks the rule {}; it is sensitive and not shown, look at the file", problem.rule);
        }
    }
}

/// Whether `below` is `path`, or stands beneath it.
fn covers(path: &str, below: &str) -> bool {
    below.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_any_notation_and_only_where_something_is_sensitive() {
        let shown = |text: &str| mentioned_paths(text).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            shown("sensitive: [tags.a, \"properties.desired.b.c\"]\ninitialOnly:\n- 'tags.d'"),
            "tags.a tags.d properties.desired.b.c"
        );
        assert_eq!(shown("sensitive:\n  - tags\n  tags: {a: [}"), "tags");
        assert_eq!(shown("initialOnly: [tags.a]"), "");
    }

    #[test]
    fn a_value_is_hidden_at_above_and_beneath_a_sensitive_path() {
        let sensitive = BTreeSet::from([Subtree::parse("tags.wifi.keys").unwrap()]);
        for (rule, path, hidden) in [
            ("wrong-type", "spec.tags.wifi.keys", true),
            ("number", "spec.tags.wifi.keys[2].x", true),
            ("wrong-type", "spec.tags.wifi", true),
            ("wrong-type", "spec.tags.wifi.keys2", false),
            ("wrong-type", "spec.create", false),
            ("string-size", "spec.tags.wifi.keys", false),
        ] {
            let mut problem = Problem { at: 0, warning: false, path: path.to_owned(), rule, message: "x".to_owned() };
            hide_values(std::iter::once(&mut problem), &sensitive);
            assert_eq!(problem.message != "x", hidden, "{rule} {path}");
        }
    }
}
