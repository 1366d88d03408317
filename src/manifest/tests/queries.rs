//! Broken twin queries, each with their diagnostics.

use super::{Case, check, query};

const TWIN_QUERIES: &[Case] = &[
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxLabelLength: 2}\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {const: xyz}}\n",
        &[(
            "label-const",
            "11:25: error: a label value has at most 2 bytes (maxLabelLength); shorten it (spec.metrics[0].labels.a.const)",
        )],
    ),
    (
        "  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[("missing-field", "4:1: error: query is missing; give a text that begins with SELECT (spec.query)")],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n",
        &[(
            "missing-field",
            "4:1: error: metrics is missing; give at least one metric with name, help and value (spec.metrics)",
        )],
    ),
    (
        "  query: UPDATE devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[("query-select", "5:10: error: a query begins with SELECT (spec.query)")],
    ),
    (
        "  query: SELECT * FROM devices.jobs\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "query-jobs",
            "5:10: error: devices.jobs cannot be queried here; query devices or devices.modules (spec.query)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 5\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "wrong-type",
            "6:13: error: expected a duration such as 90s, 5m or 1h30m, found the number 5 (spec.interval)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 2s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[("out-of-range", "6:13: error: expected 5s to 12h, found 2s (spec.interval)")],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 10s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "short-interval",
            "6:13: warning: an interval under 30s soon spends a hub's query budget; a real fleet asks every few minutes (spec.interval)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 1m\n  timeout: 60s\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[("timeout-order", "7:12: error: the timeout must be shorter than the interval, which is 1m (spec.timeout)")],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  interval: 1m\n  staleAfter: 1m\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "stale-after-order",
            "7:15: error: a good result may be 1m59s old before the next one comes; give at least that, or 0s to withdraw at the first failure (spec.staleAfter)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  staleAfter: 25h\n  pageSize: 101\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            ("out-of-range", "6:15: error: expected 0s to 24h, found 25h (spec.staleAfter)"),
            ("out-of-range", "7:13: error: expected 1 to 100, found the number 101 (spec.pageSize)"),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  suspend: true\n  limits: {maxRow: 5, onExceed: truncate}\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            (
                "not-supported",
                "6:3: error: the field suspend is not supported by this version yet; remove it (spec.suspend)",
            ),
            ("unknown-field", "7:12: error: unknown field \"maxRow\"; did you mean \"maxRows\"? (spec.limits.maxRow)"),
            (
                "not-supported",
                "7:23: error: the field onExceed is not supported by this version yet; remove it (spec.limits.onExceed)",
            ),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics: []\n",
        &[("metric-count", "6:3: error: a query has 1 to 16 metrics, this one has 0 (spec.metrics)")],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - {name: fleet_n, help: N., value: {count: true}}\n  - {name: twinquery_n_total, help: \"\", value: {count: false}}\n",
        &[
            (
                "metric-name",
                "7:12: error: \"fleet_n\" is no metric name; write twinquery_ and then a-z, 0-9 and _ (spec.metrics[0].name)",
            ),
            ("metric-name", "8:12: error: a gauge's name may not end with _total; rename it (spec.metrics[1].name)"),
            (
                "metric-help",
                "8:37: error: help is one line of text without control characters, and not empty (spec.metrics[1].help)",
            ),
            ("unknown-value", "8:56: error: expected true, found false (spec.metrics[1].value.count)"),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - {name: twinquery_n, type: counter, help: N., value: {column: n}}\n",
        &[
            (
                "not-supported",
                "7:31: error: the type counter is not supported by this version yet; remove it (spec.metrics[0].type)",
            ),
            (
                "not-supported",
                "7:58: error: the field column is not supported by this version yet; remove it (spec.metrics[0].value.column)",
            ),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - {name: twinquery_n, type: guage, help: N., value: {}}\n",
        &[
            ("unknown-value", "7:31: error: expected gauge, found the text \"guage\" (spec.metrics[0].type)"),
            ("missing-field", "7:48: error: write value: {count: true} (spec.metrics[0].value.count)"),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {job: {const: x}, 9x: {const: x}, region: {const: \"\"}, a: {}, b: {column: a..b}, c: {column: c, const: c}, d: {column: d, default: x}}\n",
        &[
            (
                "label-name",
                "10:14: error: the label job is set by Prometheus or by geminid; use another name (spec.metrics[0].labels.job)",
            ),
            (
                "label-name",
                "10:31: error: \"9x\" is no label name; use letters, digits and _, no digit first and no __ in front (spec.metrics[0].labels.9x)",
            ),
            (
                "label-clash",
                "10:47: warning: scrape targets often carry the label region, which renames this one to exported_region (spec.metrics[0].labels.region)",
            ),
            (
                "label-const",
                "10:63: error: an empty label is no label to Prometheus; give a value or remove the label (spec.metrics[0].labels.region.const)",
            ),
            ("missing-field", "10:68: error: a label needs column or const (spec.metrics[0].labels.a.column)"),
            (
                "label-column",
                "10:87: error: a column is keys joined by dots, such as tags.location.plant (spec.metrics[0].labels.b.column)",
            ),
            (
                "label-source",
                "10:109: error: a label has either column or const; remove one (spec.metrics[0].labels.c.const)",
            ),
            (
                "not-supported",
                "10:135: error: the field default is not supported by this version yet; remove it (spec.metrics[0].labels.d.default)",
            ),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}, b: {column: b}}\n    zeroFill: {a: [x, x, \"\"], c: [y]}\n",
        &[
            (
                "zero-fill-label",
                "11:5: error: zeroFill names every label that comes from a column; add b (spec.metrics[0].zeroFill)",
            ),
            (
                "zero-fill-value",
                "11:23: error: each value is given once and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].zeroFill.a[1])",
            ),
            (
                "zero-fill-value",
                "11:26: error: each value is given once and has 1 to 256 bytes (maxLabelLength) (spec.metrics[0].zeroFill.a[2])",
            ),
            (
                "zero-fill-label",
                "11:31: error: zeroFill names labels that come from a column; \"c\" is none (spec.metrics[0].zeroFill.c)",
            ),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}}\n    zeroFill: {a: []}\n",
        &[(
            "zero-fill-value",
            "11:16: error: give at least one value, or remove the label (spec.metrics[0].zeroFill.a)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxSeries: 1}\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n    labels: {a: {column: a}}\n    zeroFill: {a: [x, y]}\n",
        &[(
            "zero-fill-size",
            "7:3: error: zeroFill makes 2 series, and limits.maxSeries is 1; raise it or fill fewer values (spec.metrics)",
        )],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "metric-collision",
            "10:11: error: the metric twinquery_n is also declared above; rename one, or give both the same help and label names and a constant label that differs (spec.metrics[1].name)",
        )],
    ),
    (
        "  query: SELECT * FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "count-of-star",
            "5:10: warning: whole twins are read only to be counted; project one small column, such as deviceId AS device (spec.query)",
        )],
    ),
    (
        "  query: SELECT COUNT() AS n, tags.a FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[
            (
                "count-of-aggregate",
                "5:10: warning: count: true counts rows, and this query always has one; leave COUNT() and the like out (spec.query)",
            ),
            (
                "missing-alias",
                "5:10: warning: the hub may name the column of \"tags.a\" differently; write AS and a name (spec.query)",
            ),
        ],
    ),
    (
        "  query: SELECT deviceId AS device FROM devices\n  limits: {maxSeries: 5000}\n  metrics: [{name: twinquery_wait_ms, help: W., labels: {device: {column: device}}, value: {count: true}}]\n",
        &[
            (
                "device-series",
                "7:3: warning: a series for each device, and maxSeries is 5000; count over a tag instead (spec.metrics)",
            ),
            (
                "metric-unit",
                "7:20: warning: Prometheus wants base units; use _seconds rather than _ms (spec.metrics[0].name)",
            ),
        ],
    ),
];

#[test]
fn each_problem_of_a_twin_query_has_its_place_and_remedy() {
    for (text, expected) in TWIN_QUERIES {
        check(&query(text), expected);
    }
}
