//! Tables of `TwinQuery` manifests: what is wrong with each, and what the worked examples give.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::series::{Aggregator, join, render, strict};
use crate::twin::Value;

/// A twin query with this spec, which begins on line 5.
fn query(spec: &str) -> String {
    format!("apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: q1}}\nspec:\n{spec}")
}

fn problems(text: &str) -> Vec<String> {
    let file = parse_file("f", text);
    let line = |found: &Diagnostic| format!("{} {}", found.rule, found.to_string().trim_start_matches("f:"));
    file.diagnostics().iter().map(line).collect()
}

/// A query's spec, and each of its problems: rule, place, severity and message.
const TWIN_QUERIES: &[(&str, &[&str])] = &[
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxLabelLength: 2}\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {const: xyz}}\n",
        &[
            "label-const 11:25: error: a label value has at most 2 bytes (maxLabelLength); shorten it (spec.metrics[0].labels.a.const)",
        ],
    ),
    (
        "  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["missing-field 4:1: error: query is missing; give a text that begins with SELECT (spec.query)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n",
        &[
            "missing-field 4:1: error: metrics is missing; give at least one metric with name, help and value (spec.metrics)",
        ],
    ),
    (
        "  query: UPDATE devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["query-syntax 5:10: error: found `UPDATE`, expected SELECT (spec.query)"],
    ),
    (
        "  query: SELECT * FROM devices.jobs\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["query-jobs 5:10: error: devices.jobs cannot be queried here; query devices or devices.modules (spec.query)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 5\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["wrong-type 6:13: error: expected a duration such as 90s, 5m or 1h30m, found the number 5 (spec.interval)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 2s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["out-of-range 6:13: error: expected 5s to 12h, found 2s (spec.interval)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 10s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "short-interval 6:13: warning: an interval under 30s soon spends a hub's query budget; a real fleet asks every few minutes (spec.interval)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 1m\n  timeout: 60s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &["timeout-order 7:12: error: the timeout must be shorter than the interval, which is 1m (spec.timeout)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 1m\n  staleAfter: 1m\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "stale-after-order 7:15: error: a good result may be 1m59s old before the next one comes; give at least that, or 0s to withdraw at the first failure (spec.staleAfter)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  staleAfter: 25h\n  pageSize: 101\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "out-of-range 6:15: error: expected 0s to 24h, found 25h (spec.staleAfter)",
            "out-of-range 7:13: error: expected 1 to 100, found the number 101 (spec.pageSize)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics: []\n",
        &["metric-count 6:3: error: a query has 1 to 16 metrics, this one has 0 (spec.metrics)"],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - {name: fleet_n, help: N., value: {count: true}}\n  - {name: twinquery_n_total, help: \"\", value: {count: false}}\n",
        &[
            "metric-name 7:12: error: \"fleet_n\" is no metric name; write twinquery_ and then a-z, 0-9 and _ (spec.metrics[0].name)",
            "metric-name 8:12: error: only the name of type: counter ends with _total; rename it, or change the type (spec.metrics[1].name)",
            "metric-help 8:37: error: help is one line of text without control characters, and not empty (spec.metrics[1].help)",
            "unknown-value 8:56: error: expected true, found false (spec.metrics[1].value.count)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {job: {const: x}, 9x: {const: x}, region: {const: \"\"}, a: {}, b: {column: a..b}, c: {column: c, const: c}, d: {column: d, default: x}}\n",
        &[
            "unknown-column 5:10: warning: no column of the query is called \"d\"; its columns are device (spec.query)",
            "label-name 10:14: error: the label job is set by Prometheus or by geminid; use another name (spec.metrics[0].labels.job)",
            "label-name 10:31: error: \"9x\" is no label name; use letters, digits and _, no digit first and no __ in front (spec.metrics[0].labels.9x)",
            "label-clash 10:47: warning: scrape targets often carry the label region, which renames this one to exported_region (spec.metrics[0].labels.region)",
            "label-const 10:63: error: an empty label is no label to Prometheus; give a value or remove the label (spec.metrics[0].labels.region.const)",
            "missing-field 10:68: error: a label needs column or const (spec.metrics[0].labels.a.column)",
            "label-column 10:87: error: a column is keys joined by dots, such as tags.location.plant (spec.metrics[0].labels.b.column)",
            "label-source 10:109: error: a label has either column or const; remove one (spec.metrics[0].labels.c.const)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}, b: {column: b}}\n    zeroFill: {a: [x, x, \"\"], c: [y]}\n",
        &[
            "unknown-column 5:10: warning: no column of the query is called \"a\"; its columns are device (spec.query)",
            "zero-fill-label 11:5: error: zeroFill names every label that comes from a column; add b (spec.metrics[0].zeroFill)",
            "zero-fill-value 11:23: error: each value is given once and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].zeroFill.a[1])",
            "zero-fill-value 11:26: error: each value is given once and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].zeroFill.a[2])",
            "zero-fill-label 11:31: error: zeroFill names labels that come from a column; \"c\" is none (spec.metrics[0].zeroFill.c)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}}\n    zeroFill: {a: []}\n",
        &[
            "unknown-column 5:10: warning: no column of the query is called \"a\"; its columns are device (spec.query)",
            "zero-fill-value 11:16: error: give at least one value, or remove the label (spec.metrics[0].zeroFill.a)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxSeries: 1}\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}}\n    zeroFill: {a: [x, y]}\n",
        &[
            "unknown-column 5:10: warning: no column of the query is called \"a\"; its columns are device (spec.query)",
            "zero-fill-size 7:3: error: zeroFill makes 2 series, and limits.maxSeries is 1; raise it or fill fewer values (spec.metrics)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "metric-collision 10:11: error: the metric twinquery_n is also declared above; rename one, or give both the same type, help and label names and a constant label that differs (spec.metrics[1].name)",
        ],
    ),
    (
        "  query: SELECT * FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "count-of-star 5:10: warning: whole twins are read only to be counted; ask for COUNT() AS n, and write value: {column: n} (spec.query)",
        ],
    ),
    (
        "  query: SELECT COUNT() AS n, MAX(tags.a) FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            "count-of-aggregate 5:10: warning: count: true counts rows, and this query always has one; write value: {column: ...} with the column's alias (spec.query)",
            "missing-alias 5:10: warning: the hub may name the column of \"MAX(tags.a)\" differently; write AS and a name (spec.query)",
        ],
    ),
    (
        "  query: SELECT COUNT() AS n, tags.a FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {column: n}\n",
        &[
            "query-syntax 5:31: error: the column `tags.a` must stand in GROUP BY, since the query has groups (spec.query)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxSeries: 5000}\n  metrics: [{name: twinquery_wait_ms, help: W., labels: {device: {column: device}}, value: {count: true}}]\n",
        &[
            "device-series 7:3: warning: a series for each device, and maxSeries is 5000; count over a tag instead (spec.metrics)",
            "metric-unit 7:20: warning: Prometheus wants base units; use _seconds rather than _ms (spec.metrics[0].name)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  suspend: yes\n  onEmpty: ignore\n  limits: {maxRow: 5, onExceed: cut}\n  metrics: [{name: twinquery_n, help: N., value: {count: true}}]\n",
        &[
            "wrong-type 6:12: error: expected true or false, found the text \"yes\" (spec.suspend)",
            "unknown-value 7:12: error: expected publish or fail, found the text \"ignore\" (spec.onEmpty)",
            "unknown-field 8:12: error: unknown field \"maxRow\"; did you mean \"maxRows\"? (spec.limits.maxRow)",
            "unknown-value 8:33: error: expected fail or truncate, found the text \"cut\" (spec.limits.onExceed)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: guage, help: N., value: {}}\n",
        &[
            "unknown-value 7:31: error: expected gauge or counter or info or stateset, found the text \"guage\"; did you mean \"gauge\"? (spec.metrics[0].type)",
            "missing-field 7:48: error: write value: {count: true} (spec.metrics[0].value.count)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: counter, help: N., value: {column: a}}\n",
        &["metric-name 7:12: error: the name of type: counter ends with _total; rename it (spec.metrics[0].name)"],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n_total, type: gauge, help: N., value: {column: a}}\n",
        &[
            "metric-name 7:12: error: only the name of type: counter ends with _total; rename it, or change the type (spec.metrics[0].name)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n_info, help: N., value: {const: 1}}\n",
        &[
            "metric-name 7:12: error: only the name of type: info ends with _info; rename it, or change the type (spec.metrics[0].name)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: info, help: N.}\n",
        &["metric-name 7:12: error: the name of type: info ends with _info; rename it (spec.metrics[0].name)"],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n_info, type: info, help: N., value: {count: true}, labels: {d: {column: device}}, zeroFill: {d: [x]}}\n",
        &[
            "info-value 7:52: error: an info is always 1; remove value (spec.metrics[0].value)",
            "info-value 7:105: error: an info is always 1, so nothing can be filled with 0; remove zeroFill (spec.metrics[0].zeroFill)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n_count, help: N., value: {const: one}}\n",
        &[
            "metric-name 7:12: error: a metric's name may not end with _count, as parts of a histogram do; rename it (spec.metrics[0].name)",
            "wrong-type 7:56: error: expected a number, found the text \"one\" (spec.metrics[0].value.const)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {count: true, column: a}}\n",
        &[
            "value-source 7:56: error: a value has one of count, const and column; remove the others (spec.metrics[0].value.column)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {count: true, parse: percent, reduce: sum}}\n",
        &[
            "value-source 7:56: error: parse belongs to value.column; remove it (spec.metrics[0].value.parse)",
            "value-source 7:72: error: reduce belongs to value.column; remove it (spec.metrics[0].value.reduce)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {column: a, parse: hex, map: {low: one}, scale: big, onMissing: drop, onInvalid: zero, reduce: mean}}\n",
        &[
            "unknown-value 7:61: error: expected auto or number or bool or percent or rfc3339, found the text \"hex\" (spec.metrics[0].value.parse)",
            "wrong-type 7:77: error: expected a number, found the text \"one\" (spec.metrics[0].value.map.low)",
            "wrong-type 7:90: error: expected a number, found the text \"big\" (spec.metrics[0].value.scale)",
            "unknown-value 7:106: error: expected skip or zero or fail, found the text \"drop\" (spec.metrics[0].value.onMissing)",
            "unknown-value 7:123: error: expected skip or fail, found the text \"zero\" (spec.metrics[0].value.onInvalid)",
            "unknown-value 7:137: error: expected error or sum or min or max or avg or first, found the text \"mean\" (spec.metrics[0].value.reduce)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {column: .a}}\n",
        &[
            "label-column 7:51: error: a column is keys joined by dots, such as tags.location.plant (spec.metrics[0].value.column)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., states: [A], stateLabel: s, value: {count: true}}\n",
        &[
            "stateset-only 7:35: error: states belongs to a stateset; write type: stateset, or remove it (spec.metrics[0].states)",
            "stateset-only 7:48: error: stateLabel belongs to a stateset; write type: stateset, or remove it (spec.metrics[0].stateLabel)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: stateset, help: N., value: {count: true}}\n",
        &[
            "missing-field 7:6: error: states is missing; list the states, such as [Connected, Disconnected] (spec.metrics[0].states)",
            "missing-field 7:51: error: column is missing; it holds the state (spec.metrics[0].value.column)",
            "value-source 7:59: error: count means nothing to a stateset; remove it (spec.metrics[0].value.count)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: stateset, help: N., value: {column: a, reduce: sum, map: {on: C}}, labels: {state: {column: a}}, states: [A, A, \"\"]}\n",
        &[
            "state-label 7:6: error: the label state holds the state; rename the other one, or give stateLabel (spec.metrics[0].stateLabel)",
            "value-source 7:78: error: of two states there is no sum and no mean; write error or first (spec.metrics[0].value.reduce)",
            "state-name 7:93: error: a stateset maps to its states, and this is none of them (spec.metrics[0].value.map.on)",
            "state-name 7:140: error: each state is given once, without control characters, and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].states[1])",
            "state-name 7:143: error: each state is given once, without control characters, and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].states[2])",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, type: stateset, help: N., value: {column: a}, states: [], stateLabel: job}\n",
        &[
            "state-count 7:71: error: a stateset has 1 to 64 states, this one has 0 (spec.metrics[0].states)",
            "label-name 7:95: error: the label job is set by Prometheus or by geminid; use another name (spec.metrics[0].stateLabel)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {count: true}, labels: {a: {column: a, default: 7, case: title, map: {x: 1}, allow: x, other: o}, b: {const: x, default: y}, c: {column: c, other: o}}}\n",
        &[
            "unknown-column 5:10: warning: no column of the query is called \"c\"; its columns are device, a (spec.query)",
            "wrong-type 7:90: error: expected a text in quotes, found the number 7 (spec.metrics[0].labels.a.default)",
            "unknown-value 7:99: error: expected keep or lower or upper, found the text \"title\" (spec.metrics[0].labels.a.case)",
            "wrong-type 7:115: error: expected a text in quotes, found the number 1 (spec.metrics[0].labels.a.map.x)",
            "wrong-type 7:126: error: expected a list, found the text \"x\" (spec.metrics[0].labels.a.allow)",
            "label-other 7:129: error: other is what values become that allow does not name; add allow, or remove other (spec.metrics[0].labels.a.other)",
            "label-source 7:154: error: default belongs to a label with a column; remove it (spec.metrics[0].labels.b.default)",
            "label-other 7:182: error: other is what values become that allow does not name; add allow, or remove other (spec.metrics[0].labels.c.other)",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  limits: {maxLabelLength: 2}\n  metrics: [{name: twinquery_n, help: N., value: {count: true}, labels: {a: {column: a, default: abc, map: {x: abc}, allow: [abc]}}}]\n",
        &[
            "label-value 7:98: error: a label value has at most 2 bytes (maxLabelLength); shorten it (spec.metrics[0].labels.a.default)",
            "label-value 7:112: error: a label value has at most 2 bytes (maxLabelLength); shorten it (spec.metrics[0].labels.a.map.x)",
            "label-value 7:126: error: a label value has at most 2 bytes (maxLabelLength); shorten it (spec.metrics[0].labels.a.allow[0])",
        ],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  limits: {maxSeries: 3}\n  metrics: [{name: twinquery_n, type: stateset, help: N., value: {column: a}, labels: {d: {column: device}}, states: [A, B], zeroFill: {d: [x, y]}}]\n",
        &[
            "zero-fill-size 7:3: error: zeroFill makes 4 series, and limits.maxSeries is 3; raise it or fill fewer values (spec.metrics)",
        ],
    ),
    (
        "  query: SELECT COUNT() FROM devices\n  metrics: [{name: twinquery_n, help: N., value: {column: n}}]\n",
        &[
            "missing-alias 5:10: warning: the hub may name the column of \"COUNT()\" differently; write AS and a name (spec.query)",
        ],
    ),
    (
        "  query: SELECT COUNT() AS n FROM devices\n  metrics: [{name: twinquery_n, help: N., value: {column: m}}]\n",
        &["unknown-column 5:10: warning: no column of the query is called \"m\"; its columns are n (spec.query)"],
    ),
    (
        "  query: SELECT deviceId AS device, tags.a AS a FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {column: a}, labels: {by: {const: x}}}\n  - {name: twinquery_n, help: N., value: {column: a}, labels: {by: {const: y}}}\n  - {name: twinquery_n, type: stateset, help: N., value: {column: a}, states: [A], labels: {by: {const: z}}}\n",
        &[
            "metric-collision 9:12: error: the metric twinquery_n is also declared above; rename one, or give both the same type, help and label names and a constant label that differs (spec.metrics[2].name)",
        ],
    ),
];

#[test]
fn each_problem_of_a_twin_query_has_its_place_and_remedy() {
    for (text, expected) in TWIN_QUERIES {
        assert_eq!(problems(&query(text)), *expected, "{text}");
    }
}

/// The exposition of one worked example on these rows.
fn worked(name: &str, rows: &[&str]) -> String {
    let file = Arc::new(parse_file("f", include_str!("../../tests/fixtures/worked-queries.yaml")));
    let lowered = lower(&BTreeMap::from([(Arc::from("f"), file)]), &LastGood::default());
    let declared = lowered.queries.iter().find(|query| query.spec.name == name).expect("the example is there");
    let mut aggregator = Aggregator::new(&declared.spec).unwrap();
    rows.iter().for_each(|row| aggregator.push(&Value::parse_json(row).unwrap()).unwrap());
    let texts: Vec<_> = aggregator.finish().unwrap().families.iter().map(|family| render(family, "prod")).collect();
    let text = join(&texts);
    strict::parse(&text).unwrap();
    text
}

#[test]
fn worked_example_1_counts_the_devices_of_a_plant() {
    let row = r#"{"deviceId":"myDevice","tags":{"location":{"region":"US","plant":"Redmond43"}}}"#;
    insta::assert_snapshot!(worked("redmond43-devices", &[row, row]), @r#"
    # HELP twinquery_plant_devices Device twins tagged with a plant. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_plant_devices gauge
    twinquery_plant_devices{hub="prod",plant="Redmond43"} 2
    "#);
}

#[test]
fn worked_example_2_is_zero_while_no_device_reports_cellular() {
    insta::assert_snapshot!(worked("redmond43-cellular", &[]), @r#"
    # HELP twinquery_plant_cellular_devices Device twins tagged with a plant that report cellular connectivity. TwinQuery redmond43-cellular, every 5m.
    # TYPE twinquery_plant_cellular_devices gauge
    twinquery_plant_cellular_devices{hub="prod",plant="Redmond43"} 0
    "#);
}

#[test]
fn worked_example_3_folds_values_that_mean_the_same() {
    let rows = [
        r#"{"connectivity":"cellular","n":7}"#,
        r#"{"connectivity":"lte","n":2}"#,
        r#"{"connectivity":"wifi","n":5}"#,
        r#"{"n":3}"#,
        r#"{"connectivity":null,"n":1}"#,
        r#"{"connectivity":{"type":"cellular"},"n":4}"#,
        r#"{"connectivity":"satellite","n":1}"#,
    ];
    insta::assert_snapshot!(worked("redmond43-connectivity", &rows), @r#"
    # HELP twinquery_connectivity_devices Device twins of a plant by reported connectivity. TwinQuery redmond43-connectivity, every 5m.
    # TYPE twinquery_connectivity_devices gauge
    twinquery_connectivity_devices{connectivity="cellular",hub="prod",plant="Redmond43"} 9
    twinquery_connectivity_devices{connectivity="other",hub="prod",plant="Redmond43"} 1
    twinquery_connectivity_devices{connectivity="unknown",hub="prod",plant="Redmond43"} 8
    twinquery_connectivity_devices{connectivity="wifi",hub="prod",plant="Redmond43"} 5
    twinquery_connectivity_devices{connectivity="wired",hub="prod",plant="Redmond43"} 0
    "#);
}

#[test]
fn worked_example_4_tells_of_each_device() {
    let rows = [
        r#"{"device":"a","state":"Connected","fw":"1.2","battery":"55%","booted":"2026-01-02T03:04:05Z"}"#,
        r#"{"device":"b","state":"Disconnected","battery":40}"#,
        r#"{"device":"c","state":"Unknown","fw":2,"battery":null,"booted":"soon"}"#,
    ];
    insta::assert_snapshot!(worked("redmond43-inventory", &rows), @r#"
    # HELP twinquery_device_battery_ratio Battery charge 0-1. TwinQuery redmond43-inventory, every 15m.
    # TYPE twinquery_device_battery_ratio gauge
    twinquery_device_battery_ratio{device="a",hub="prod"} 0.55
    twinquery_device_battery_ratio{device="b",hub="prod"} 0.4
    # HELP twinquery_device_boot_timestamp_seconds Unix time of the last boot. TwinQuery redmond43-inventory, every 15m.
    # TYPE twinquery_device_boot_timestamp_seconds gauge
    twinquery_device_boot_timestamp_seconds{device="a",hub="prod"} 1767323045
    # HELP twinquery_device_info Firmware a device reports. TwinQuery redmond43-inventory, every 15m.
    # TYPE twinquery_device_info gauge
    twinquery_device_info{device="a",firmware="1.2",hub="prod"} 1
    twinquery_device_info{device="b",firmware="unknown",hub="prod"} 1
    twinquery_device_info{device="c",firmware="2",hub="prod"} 1
    # HELP twinquery_device_state Connection state of a device. TwinQuery redmond43-inventory, every 15m.
    # TYPE twinquery_device_state gauge
    twinquery_device_state{device="a",hub="prod",state="Connected"} 1
    twinquery_device_state{device="a",hub="prod",state="Disconnected"} 0
    twinquery_device_state{device="b",hub="prod",state="Connected"} 0
    twinquery_device_state{device="b",hub="prod",state="Disconnected"} 1
    twinquery_device_state{device="c",hub="prod",state="Connected"} 0
    twinquery_device_state{device="c",hub="prod",state="Disconnected"} 0
    "#);
}
