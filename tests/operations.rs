//! What operators are given: the runbooks' commands exist, and the dashboard is one that Grafana can show.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn help(verb: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_geminid")).args([verb, "--help"]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_in_a_runbook_exists_with_its_flags() {
    let pages = std::fs::read_dir(repository().join("docs/runbooks")).unwrap();
    let pages: BTreeSet<PathBuf> = pages.map(|page| page.unwrap().path()).collect();
    let (mut known, mut with_commands): (BTreeMap<String, Option<String>>, _) = (BTreeMap::new(), 0);
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        // Between two backticks stands code.
        let code = text.split('`').skip(1).step_by(2);
        let commands: Vec<&str> = code.filter_map(|code| code.strip_prefix("geminid ")).collect();
        with_commands += usize::from(!commands.is_empty());
        for command in commands {
            let mut words = command.split_whitespace();
            let verb = words.next().unwrap().to_owned();
            let help = known.entry(verb.clone()).or_insert_with(|| help(&verb));
            let help = help.as_ref().unwrap_or_else(|| panic!("{}: no verb {verb}", page.display()));
            for flag in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{}: geminid {verb} has no {flag}", page.display());
            }
        }
    }
    assert_eq!((pages.len(), with_commands), (15, 15), "every page helps itself with geminid");
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn the_dashboard_has_what_grafana_needs_of_each_panel() {
    let file = std::fs::read_to_string(repository().join("deploy/grafana/geminid.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let variables: BTreeSet<&str> =
        array(&dashboard["templating"], "list").iter().map(|one| text(one, "name")).collect();
    for name in ["datasource", "job", "instance", "hub", "query"] {
        assert!(variables.contains(name), "{name}");
    }
    for variable in array(&dashboard["templating"], "list").iter().filter(|one| one["type"] == "query") {
        assert_eq!((&variable["multi"], &variable["refresh"]), (&Value::Bool(true), &Value::from(2)), "{variable}");
    }
    let panels = array(&dashboard, "panels");
    let rows: Vec<&str> = panels.iter().filter(|panel| panel["type"] == "row").map(|row| text(row, "title")).collect();
    assert_eq!(rows, ["Overview", "Reconcile", "Hub", "Sweep", "Queue", "Queries", "Twin data", "Process"]);
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = text(panel, "title");
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(text(panel, "description").ends_with('.'), "{title} has no description");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        check_targets(panel, &variables);
    }
    assert!(panels.len() > 45);
}

/// What a panel asks.
fn check_targets(panel: &Value, variables: &BTreeSet<&str>) {
    let title = text(panel, "title");
    let mut letters = BTreeSet::new();
    assert!(!array(panel, "targets").is_empty(), "{title} asks nothing");
    for target in array(panel, "targets") {
        let expr = text(target, "expr");
        assert!(letters.insert(text(target, "refId")), "{title}: a letter twice");
        let windows = expr.matches("rate(").count() + expr.matches("increase(").count();
        assert_eq!(expr.matches("[$__rate_interval]").count(), windows, "{title}: {expr}");
        assert!(expr.contains("$job") && expr.contains("$instance"), "{title}: {expr}");
        for (at, _) in expr.match_indices('$') {
            let name = expr[at + 1..].trim_start_matches('{');
            let name = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(variables.contains(name) || name == "__rate_interval", "{title}: ${name}");
        }
    }
}
