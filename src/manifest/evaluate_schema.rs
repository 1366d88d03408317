//! `evaluate` of a `TwinQuery`: asked of the hub, or answered from the rows of the sweep.
//!
//! Invariant: a query that a sweep cannot answer just as the hub would is refused, and so is a field that would mean
//! nothing.

use std::time::Duration;

use super::rules::Seals;
use super::schema::{Checker, Fields};
use super::shape::EVALUATES;
use crate::series::{Evaluate, LocalQuery, MetricSpec};

/// Fields that say how the hub is asked.
const OF_THE_HUB: [&str; 3] = ["interval", "timeout", "pageSize"];

/// Who answers the query `text`, which stands at `at`; `stale_after` if the manifest gives one.
pub(super) fn read_evaluate(
    checker: &mut Checker<'_>,
    spec: &Fields<'_>,
    query: Option<(&str, usize)>,
    metrics: &[MetricSpec],
    stale_after: Option<Duration>,
) -> Evaluate {
    let word = spec.get("evaluate").and_then(|entry| checker.word(&entry.value, "spec.evaluate", &EVALUATES));
    if word != Some("sweep") {
        return Evaluate::Hub;
    }
    let pages = spec.get("limits").and_then(|limits| Some(("limits.maxPages", limits.value.get("maxPages")?.at)));
    let given = OF_THE_HUB.iter().filter_map(|key| Some((*key, spec.get(key)?.value.at))).chain(pages);
    for (key, at) in given {
        let message = format!("{key} says how the hub is asked, and evaluate: sweep asks nothing; remove it");
        checker.error(at, format!("spec.{key}"), "evaluate-field", message);
    }
    let Some((text, at)) = query else { return Evaluate::Hub };
    match LocalQuery::new(text, metrics) {
        Ok(query) => Evaluate::Sweep { query: Box::new(query), stale_after },
        Err(message) => {
            checker.error(at, "spec.query".to_owned(), "evaluate-query", message);
            Evaluate::Hub
        }
    }
}

/// Refuses a query over twins that this instance does not seal; it stands at `at`.
pub(super) fn check_seals(checker: &mut Checker<'_>, seals: &Seals, evaluate: &Evaluate, at: usize) {
    let Evaluate::Sweep { query, .. } = evaluate else { return };
    let message = match seals {
        Seals::Unknown => return,
        Seals::Owner(owner) if owner == query.owner() => return,
        Seals::Owner(owner) => format!(
            "the sweep reads twins that carry the seal of {owner}, this query is about those of {:?}; write \
             IS_DEFINED(tags.geminid.[[{owner}]])",
            query.owner()
        ),
        Seals::Off => "ownership is none on this hub, so no twin carries our seal; use evaluate: hub".to_owned(),
    };
    checker.error(at, "spec.query".to_owned(), "evaluate-owner", message);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crate::manifest::{LastGood, Rules, Seals, lower, parse_file_within};

    const SEALED: &str = "WHERE IS_DEFINED(tags.geminid.demo)";
    const COUNT: &str = "{name: twinquery_n, help: N., value: {count: true}, labels: {p: {column: p}}}";

    fn problems(spec: &str, seals: Seals) -> Vec<String> {
        let text = format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: q}}\nspec:\n  evaluate: sweep\n{spec}"
        );
        let file = parse_file_within("f", &text, &Rules { seals, ..Rules::default() });
        file.diagnostics().iter().map(|found| format!("{} {found}", found.rule)).collect()
    }

    fn spec(query: &str, metric: &str, more: &str) -> String {
        format!("  query: \"{query}\"\n{more}  metrics:\n  - {metric}\n")
    }

    #[test]
    fn a_query_that_a_sweep_would_answer_otherwise_is_refused() {
        let sum = "{name: twinquery_n, help: N., value: {column: n, reduce: first}}";
        let of_twin = |column: &str| format!("{{name: twinquery_n, help: N., value: {{column: {column}}}}}");
        for (query, metric, found) in [
            (format!("SELECT tags.p AS p FROM devices {SEALED}"), COUNT.to_owned(), ""),
            ("SELECT tags.p AS p FROM devices".to_owned(), COUNT.to_owned(), "the hub asks all; add AND IS_DEFINED"),
            (
                "SELECT tags.p AS p FROM devices WHERE IS_DEFINED(tags.geminid.demo) OR tags.p = 1".to_owned(),
                COUNT.to_owned(),
                "the hub asks all",
            ),
            (
                "SELECT tags.p AS p FROM devices WHERE NOT IS_DEFINED(tags.geminid.demo)".to_owned(),
                COUNT.to_owned(),
                "the hub asks all",
            ),
            (
                "SELECT tags.p AS p FROM devices WHERE IS_DEFINED(tags.geminid)".to_owned(),
                COUNT.to_owned(),
                "the hub asks all",
            ),
            (format!("SELECT TOP 5 tags.p AS p FROM devices {SEALED}"), COUNT.to_owned(), "which rows TOP takes"),
            (format!("SELECT tags.p AS n FROM devices {SEALED}"), sum.to_owned(), "which row is the first"),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("tags.n"), ""),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("version"), ""),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("properties.reported.n"), ""),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("DeviceId"), "cannot read DeviceId of SELECT *"),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("capabilities.iotEdge"), "cannot read capabilities"),
            (format!("SELECT * FROM devices {SEALED}"), of_twin("properties.reported"), "cannot read properties"),
        ] {
            let problems = problems(&spec(&query, &metric, ""), Seals::Unknown);
            match found {
                "" => assert_eq!(problems, Vec::<String>::new(), "{query}"),
                found => assert!(
                    problems.iter().any(|problem| problem.starts_with("evaluate-query f:6:10: error: ")
                        && problem.contains(found)),
                    "{query}: {problems:?}"
                ),
            }
        }
    }

    #[test]
    fn fields_that_would_mean_nothing_are_refused() {
        let query = format!("SELECT tags.p AS p FROM devices {SEALED}");
        for (more, place) in [
            ("  interval: 10m\n", "f:7:13: error: interval says"),
            ("  timeout: 30s\n", "f:7:12: error: timeout says"),
            ("  pageSize: 10\n", "f:7:13: error: pageSize says"),
            ("  limits: {maxRows: 5, maxPages: 3}\n", "f:7:34: error: limits.maxPages says"),
        ] {
            let problems = problems(&spec(&query, COUNT, more), Seals::Unknown);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(place), "{problems:?}");
        }
        let kept = "  staleAfter: 1m\n  onEmpty: fail\n  limits: {maxRows: 5, maxSeries: 3}\n  suspend: true\n";
        assert_eq!(problems(&spec(&query, COUNT, kept), Seals::Unknown), Vec::<String>::new());
    }

    #[test]
    fn the_seal_must_be_the_one_that_the_sweep_lists() {
        let text = spec(&format!("SELECT tags.p AS p FROM devices {SEALED}"), COUNT, "");
        let problem = |seals| problems(&text, seals).join(" ");
        assert_eq!(problem(Seals::Owner("demo".to_owned())), "");
        let other = problem(Seals::Owner("other".to_owned()));
        assert!(other.contains("evaluate-owner f:6:10") && other.contains("tags.geminid.[[other]]"), "{other}");
        assert!(problem(Seals::Off).contains("ownership is none"), "{}", problem(Seals::Off));
    }

    #[test]
    fn queries_that_would_make_the_sweep_too_long_are_refused() {
        let query = |name: char| {
            let columns: Vec<String> =
                (0..10).map(|index| format!("tags.{name}{} AS c{index}", "x".repeat(300))).collect();
            let columns = columns.iter().enumerate().map(|(i, c)| c.replacen("tags.", &format!("tags.k{i}"), 1));
            let columns: Vec<String> = columns.collect();
            format!(
                "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: {name}}}\nspec:\n  evaluate: sweep\n{}---\n",
                spec(
                    &format!("SELECT {} FROM devices {SEALED}", columns.join(", ")),
                    &format!("{{name: twinquery_{name}, help: N., value: {{count: true}}}}"),
                    ""
                )
            )
        };
        let text: String = ['a', 'b', 'c'].into_iter().map(query).collect();
        let file = Arc::new(parse_file_within("f", &text, &Rules::default()));
        assert_eq!(file.diagnostics(), [], "each by itself is good");
        let lowered = lower(&BTreeMap::from([("f".into(), file)]), &LastGood::default());
        let names: Vec<&str> = lowered.queries.iter().map(|query| query.spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let rules: Vec<&str> = lowered.diagnostics.iter().map(|found| found.rule).collect();
        assert_eq!(rules, ["evaluate-size"]);
    }
}
