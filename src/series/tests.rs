//! Rows in, exposition out.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::convert::short;
use super::fixtures::{column, counting, keys};
use super::*;
use crate::twin::{Number, Value};

fn metric(name: &str, labels: &[(&str, LabelSource)], zero_fill: &[(&str, &[&str])]) -> MetricSpec {
    let texts = |values: &[&str]| values.iter().map(|text| (*text).to_owned()).collect();
    let zero_fill = zero_fill.iter().map(|(label, values)| ((*label).to_owned(), texts(values))).collect();
    MetricSpec { zero_fill, ..counting(name, labels) }
}

fn query(metrics: Vec<MetricSpec>) -> QuerySpec {
    fixtures::query("redmond43-devices", metrics)
}

fn run(spec: &QuerySpec, rows: &[&str]) -> Result<Mapped, MapFailure> {
    let mut aggregator = Aggregator::new(spec)?;
    for row in rows {
        aggregator.push(&Value::parse_json(row).unwrap())?;
    }
    aggregator.finish()
}

fn exposition(mapped: &Mapped) -> String {
    let texts: Vec<_> = mapped.families.iter().map(|family| render(family, "prod")).collect();
    assert_eq!(first_duplicate(&texts), None);
    let text = join(&texts);
    strict::parse(&text).unwrap();
    text
}

#[test]
fn absent_null_and_empty_are_one_series() {
    let spec = query(vec![metric("twinquery_n", &[("x", column("x"))], &[])]);
    let rows = [r#"{"x":null}"#, r#"{"x":""}"#, "{}", "7", r#"{"y":1}"#, r#"{"x":1}"#, r#"{"x":"1"}"#];
    insta::assert_snapshot!(exposition(&run(&spec, &rows).unwrap()), @r#"
    # HELP twinquery_n Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_n gauge
    twinquery_n{hub="prod"} 5
    twinquery_n{hub="prod",x="1"} 2
    "#);
}

#[test]
fn a_value_over_the_limit_drops_the_row_instead_of_being_cut() {
    let mut spec = query(vec![metric("twinquery_by_x", &[("x", column("x"))], &[]), metric("twinquery_all", &[], &[])]);
    spec.limits.max_label_length = 4;
    let mapped = run(&spec, &[r#"{"x":"abcd"}"#, r#"{"x":"abcde"}"#, r#"{"x":"ää ä"}"#]).unwrap();
    assert_eq!((mapped.rows, mapped.series), (3, 2));
    assert_eq!(mapped.dropped, dropped(&[(Dropped::LabelTooLong, 2)]));
    let all: Vec<f64> = mapped.families[1].samples().map(|(_, value)| value).collect();
    assert_eq!(all, [3.0], "the metric that does not use the column counts every row");
}

#[test]
fn every_combination_of_zero_fill_and_const_exists() {
    let labels = [("site", LabelSource::Const("x".to_owned())), ("a", column("a")), ("b", column("b"))];
    let spec = query(vec![
        metric("twinquery_ab", &labels, &[("a", &["1", "2"]), ("b", &["3", ""])]),
        metric("twinquery_a", &labels, &[("a", &["1"])]),
        metric("twinquery_none", &labels, &[]),
        metric("twinquery_site", &labels[..1], &[]),
    ]);
    insta::assert_snapshot!(exposition(&run(&spec, &[]).unwrap()), @r#"
    # HELP twinquery_a Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_a gauge
    twinquery_a{a="1",hub="prod",site="x"} 0
    # HELP twinquery_ab Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_ab gauge
    twinquery_ab{a="1",b="3",hub="prod",site="x"} 0
    twinquery_ab{a="1",hub="prod",site="x"} 0
    twinquery_ab{a="2",b="3",hub="prod",site="x"} 0
    twinquery_ab{a="2",hub="prod",site="x"} 0
    # HELP twinquery_site Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_site gauge
    twinquery_site{hub="prod",site="x"} 0
    "#);
}

#[test]
fn a_run_over_a_limit_gives_nothing() {
    let mut spec = query(vec![metric("twinquery_n", &[("x", column("x"))], &[("x", &["1", "2"])])]);
    spec.limits.max_rows = 2;
    assert_eq!(run(&spec, &["{}", "{}", "{}"]), Err(MapFailure::Rows(2)));
    assert_eq!(run(&spec, &["{}", "{}"]).map(|mapped| mapped.series), Ok(3));
    spec.limits.max_series = 2;
    assert_eq!(run(&spec, &["{}"]), Err(MapFailure::Series(2)));
    assert_eq!(run(&spec, &[r#"{"x":2}"#]).map(|mapped| mapped.series), Ok(2));
    spec.limits.max_series = 1;
    assert_eq!(run(&spec, &[]), Err(MapFailure::Series(1)));
    // Six labels of sixteen values each are 16,777,216 combinations: refused before they are made.
    let many: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let names = ["a", "b", "c", "d", "e", "f"];
    let labels: Vec<_> = names.iter().map(|name| (*name, column(name))).collect();
    let zero_fill: Vec<_> = names.iter().map(|name| (*name, many.as_slice())).collect();
    assert_eq!(run(&query(vec![metric("twinquery_n", &labels, &zero_fill)]), &[]), Err(MapFailure::Series(1000)));
}

#[test]
fn a_metric_of_a_query_never_has_the_name_of_one_of_ours() {
    for name in ["geminid_hub_up", "process_open_fds", "twinquery-x", ""] {
        let failure = run(&query(vec![metric(name, &[], &[])]), &[]);
        assert_eq!(failure, Err(MapFailure::Name(NameError::Metric(name.to_owned()))));
    }
}

#[test]
fn an_interval_reads_as_in_a_manifest() {
    for (milliseconds, text) in
        [(0, "0s"), (5_000, "5s"), (600_000, "10m"), (5_400_000, "1h30m"), (1_500, "1s500ms"), (86_400_000, "24h")]
    {
        assert_eq!(short(Duration::from_millis(milliseconds)), text);
    }
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        (-3i64..3).prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        prop_oneof!["[ab]{0,2}", "(?s).{0,12}", "[\"\\\\\n\r{},= ]{0,6}"].prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn dropped(counts: &[(Dropped, u64)]) -> BTreeMap<Dropped, u64> {
    let mut all: BTreeMap<Dropped, u64> = Dropped::ALL.into_iter().map(|reason| (reason, 0)).collect();
    all.extend(counts.iter().copied());
    all
}

fn number(path: &str, parse: Parse, reduce: Reduce) -> NumberColumn {
    NumberColumn {
        keys: keys(path),
        parse,
        map: BTreeMap::new(),
        scale: Number::Integer(1),
        on_missing: OnMissing::Skip,
        on_invalid: OnInvalid::Skip,
        reduce,
    }
}

fn valued(name: &str, labels: &[(&str, LabelSource)], column: NumberColumn) -> MetricSpec {
    MetricSpec { value: ValueSource::Column(column), ..metric(name, labels, &[]) }
}

fn states(name: &str, names: &[&str]) -> MetricSpec {
    let value = StateColumn {
        keys: keys("s"),
        map: BTreeMap::from([("on".to_owned(), "Connected".to_owned())]),
        states: names.iter().map(|name| (*name).to_owned()).collect(),
        label: "state".to_owned(),
        on_missing: OnMissing::Skip,
        on_invalid: OnInvalid::Skip,
        reduce: Reduce::Error,
    };
    MetricSpec {
        kind: MetricKind::StateSet,
        value: ValueSource::States(value),
        ..metric(name, &[("d", column("d"))], &[])
    }
}

#[test]
fn rows_with_equal_labels_become_what_the_manifest_says() {
    let rows = [r#"{"x":2}"#, r#"{"x":5}"#, r#"{"x":-1}"#];
    for (reduce, wanted) in
        [(Reduce::Sum, 6.0), (Reduce::Min, -1.0), (Reduce::Max, 5.0), (Reduce::Avg, 2.0), (Reduce::First, 2.0)]
    {
        let spec = query(vec![valued("twinquery_n", &[], number("x", Parse::Auto, reduce))]);
        let mapped = run(&spec, &rows).unwrap();
        let values: Vec<f64> = mapped.families[0].samples().map(|(_, value)| value).collect();
        assert_eq!(values, [wanted], "{reduce:?}");
    }
    let spec = query(vec![valued("twinquery_n", &[], number("x", Parse::Auto, Reduce::Error))]);
    assert_eq!(run(&spec, &rows), Err(MapFailure::SameLabels { metric: "twinquery_n".to_owned() }));
    assert_eq!(run(&spec, &rows[..1]).map(|mapped| mapped.series), Ok(1));
    let spec = query(vec![valued("twinquery_n", &[], number("x", Parse::Auto, Reduce::Sum))]);
    let overflow = Err(MapFailure::Overflow { metric: "twinquery_n".to_owned() });
    assert_eq!(run(&spec, &[r#"{"x":1e308}"#, r#"{"x":1e308}"#]), overflow);
}

#[test]
fn a_zero_that_was_filled_in_is_no_row() {
    let mut low = valued("twinquery_low", &[("a", column("a"))], number("x", Parse::Auto, Reduce::Min));
    low.zero_fill = BTreeMap::from([("a".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
    let mut once = low.clone();
    once.name = "twinquery_once".to_owned();
    once.value = ValueSource::Column(number("x", Parse::Auto, Reduce::Error));
    let spec = query(vec![low, once]);
    insta::assert_snapshot!(exposition(&run(&spec, &[r#"{"a":1,"x":7}"#]).unwrap()), @r#"
    # HELP twinquery_low Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_low gauge
    twinquery_low{a="1",hub="prod"} 7
    twinquery_low{a="2",hub="prod"} 0
    # HELP twinquery_once Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_once gauge
    twinquery_once{a="1",hub="prod"} 7
    twinquery_once{a="2",hub="prod"} 0
    "#);
}

#[test]
fn a_missing_value_is_skipped_zero_or_a_failure_and_never_zero_by_itself() {
    let rows = [r#"{"d":"a","x":1}"#, r#"{"d":"b","x":null}"#, r#"{"d":"c"}"#, r#"{"d":"e","x":""}"#];
    let with = |on_missing| {
        let value = NumberColumn { on_missing, ..number("x", Parse::Auto, Reduce::Error) };
        run(&query(vec![valued("twinquery_n", &[("d", column("d"))], value)]), &rows)
    };
    let skipped = with(OnMissing::Skip).unwrap();
    assert_eq!((skipped.series, skipped.dropped), (1, dropped(&[])), "no value is no mistake");
    assert_eq!(with(OnMissing::Zero).unwrap().series, 4);
    let failure = with(OnMissing::Fail).unwrap_err();
    assert_eq!(failure.to_string(), "row 2 has no value in column x of twinquery_n");
    assert_eq!(failure.category(), "invalid_row");
}

#[test]
fn an_invalid_value_is_skipped_and_counted_or_a_failure() {
    let rows = [r#"{"x":{}}"#, r#"{"x":"many"}"#, r#"{"x":3}"#];
    let with = |on_invalid| {
        let column = NumberColumn { on_invalid, ..number("x", Parse::Auto, Reduce::Error) };
        run(&query(vec![valued("twinquery_n", &[], column)]), &rows)
    };
    let mapped = with(OnInvalid::Skip).unwrap();
    assert_eq!((mapped.series, mapped.dropped), (1, dropped(&[(Dropped::InvalidValue, 2)])));
    assert_eq!(with(OnInvalid::Fail).unwrap_err().category(), "invalid_row");
}

#[test]
fn a_column_that_no_row_has_is_a_typo_and_no_data() {
    let spec = query(vec![valued("twinquery_n", &[], number("a.b", Parse::Auto, Reduce::Sum))]);
    let failure = run(&spec, &[r#"{"a":1}"#, "{}"]).unwrap_err();
    assert_eq!(failure.category(), "missing_column");
    assert_eq!(
        failure.to_string(),
        "no row has the column a.b of twinquery_n; check the query's AS and the metric's value.column"
    );
    assert_eq!(run(&spec, &[r#"{"a":{"b":null}}"#]).map(|mapped| mapped.series), Ok(0), "null is data");
    assert_eq!(run(&spec, &[]).map(|mapped| mapped.series), Ok(0), "no row says nothing of columns");
    assert!(run(&query(vec![states("twinquery_s", &["Connected"])]), &[r#"{"d":"a"}"#]).is_err());
}

#[test]
fn a_counter_is_never_negative_and_written_as_one() {
    let mut counter = valued("twinquery_n_total", &[("d", column("d"))], number("x", Parse::Auto, Reduce::Error));
    counter.kind = MetricKind::Counter;
    let mapped = run(&query(vec![counter]), &[r#"{"d":"a","x":-1}"#, r#"{"d":"b","x":2}"#]).unwrap();
    assert_eq!(mapped.dropped, dropped(&[(Dropped::InvalidValue, 1)]));
    insta::assert_snapshot!(exposition(&mapped), @r#"
    # HELP twinquery_n_total Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_n_total counter
    twinquery_n_total{d="b",hub="prod"} 2
    "#);
}

#[test]
fn a_state_set_has_one_series_a_state_and_at_most_one_is_one() {
    let spec = query(vec![states("twinquery_s", &["Connected", "Disconnected"])]);
    let rows = [
        r#"{"d":"a","s":"Connected"}"#,
        r#"{"d":"b","s":"on"}"#,
        r#"{"d":"c","s":"asleep"}"#,
        r#"{"d":"e","s":[]}"#,
        r#"{"d":"f"}"#,
    ];
    let mapped = run(&spec, &rows).unwrap();
    assert_eq!(mapped.dropped, dropped(&[(Dropped::UnknownState, 1), (Dropped::InvalidValue, 1)]));
    insta::assert_snapshot!(exposition(&mapped), @r#"
    # HELP twinquery_s Rows. TwinQuery redmond43-devices, every 10m.
    # TYPE twinquery_s gauge
    twinquery_s{d="a",hub="prod",state="Connected"} 1
    twinquery_s{d="a",hub="prod",state="Disconnected"} 0
    twinquery_s{d="b",hub="prod",state="Connected"} 1
    twinquery_s{d="b",hub="prod",state="Disconnected"} 0
    twinquery_s{d="c",hub="prod",state="Connected"} 0
    twinquery_s{d="c",hub="prod",state="Disconnected"} 0
    "#);
    let twice = run(&spec, &[rows[0], r#"{"d":"a","s":"Disconnected"}"#]);
    assert_eq!(twice.unwrap_err().category(), "duplicate");
}

#[test]
fn no_row_is_an_answer_unless_the_manifest_says_otherwise() {
    let mut spec = query(vec![metric("twinquery_n", &[], &[])]);
    assert_eq!(run(&spec, &[]).map(|mapped| mapped.series), Ok(1));
    spec.on_empty = OnEmpty::Fail;
    assert_eq!(run(&spec, &[]).unwrap_err().category(), "empty");
    assert!(run(&spec, &["{}"]).is_ok());
}

#[test]
fn a_truncating_query_leaves_out_what_is_beyond_and_counts_it() {
    let mut spec = query(vec![metric("twinquery_n", &[("x", column("x"))], &[]), states("twinquery_s", &["A", "B"])]);
    spec.limits.on_exceed = OnExceed::Truncate;
    spec.limits.max_rows = 3;
    spec.limits.max_series = 4;
    let rows = [r#"{"x":1,"d":"a","s":"A"}"#, r#"{"x":1,"d":"b","s":"A"}"#, r#"{"x":2,"d":"a","s":1}"#, "{}", "{}"];
    let mapped = run(&spec, &rows).unwrap_err();
    assert_eq!(mapped.category(), "duplicate", "two rows of one device are told all the same");
    let mapped = run(&spec, &[rows[0], rows[1], rows[0].replace("\"a\"", "\"c\"").as_str(), "{}", "{}"]).unwrap();
    assert_eq!((mapped.rows, mapped.series), (3, 3), "no half of a set of states");
    assert_eq!(mapped.dropped, dropped(&[(Dropped::Truncated, 4)]));
}

fn any_column() -> impl Strategy<Value = LabelSource> {
    (0..4_usize, "[a-z]{0,3}", 0..3_usize).prop_map(|(path, default, case)| {
        LabelSource::Column(LabelColumn {
            keys: keys(["a", "b.a", "c", "b"][path]),
            default,
            case: [Case::Keep, Case::Lower, Case::Upper][case],
            map: BTreeMap::from([("a".to_owned(), "b\\\"".to_owned()), ("1".to_owned(), String::new())]),
            allow: if path == 2 { vec!["b".to_owned(), "true".to_owned()] } else { Vec::new() },
            other: "other".to_owned(),
        })
    })
}

fn any_metric() -> impl Strategy<Value = MetricSpec> {
    let parse = prop_oneof![
        Just(Parse::Auto),
        Just(Parse::Number),
        Just(Parse::Bool),
        Just(Parse::Percent),
        Just(Parse::Rfc3339)
    ];
    let reduce = prop_oneof![
        Just(Reduce::Sum),
        Just(Reduce::Min),
        Just(Reduce::Max),
        Just(Reduce::Avg),
        Just(Reduce::First),
        Just(Reduce::Error)
    ];
    let labels = prop::collection::btree_map("[xyz]", any_column(), 0..3);
    let zero = prop_oneof![Just(OnMissing::Skip), Just(OnMissing::Zero), Just(OnMissing::Fail)];
    (0..4_usize, parse, reduce, labels, zero, any::<bool>()).prop_map(
        |(kind, parse, reduce, labels, missing, filled)| {
            let mut column = number("c", parse, reduce);
            column.on_missing = missing;
            let (kind, value) = match kind {
                0 => (MetricKind::Gauge, ValueSource::Count),
                1 => (MetricKind::Info, ValueSource::Const(Number::Integer(1))),
                2 => (MetricKind::Gauge, ValueSource::Column(column)),
                _ => (states("s", &["a", "b"]).kind, states("s", &["a", "b"]).value),
            };
            let names: Vec<String> = labels.keys().cloned().collect();
            let values = vec!["a".to_owned(), "\u{1b}a".to_owned(), "7".to_owned()];
            let zero_fill = names.iter().filter(|_| filled).map(|name| (name.clone(), values.clone())).collect();
            MetricSpec { name: "twinquery_x".to_owned(), kind, help: "H \\ \n".to_owned(), labels, value, zero_fill }
        },
    )
}

proptest! {
    #[test]
    fn whatever_the_rows_hold_a_run_fails_or_gives_a_valid_exposition(
        rows in prop::collection::vec(any_value(), 0..30),
        metrics in prop::collection::vec(any_metric(), 1..4),
        truncate in any::<bool>(),
    ) {
        let mut spec = query(metrics);
        for (index, metric) in spec.metrics.iter_mut().enumerate() {
            metric.name = format!("twinquery_x{index}");
        }
        spec.limits = Limits { max_rows: 25, max_series: 40, max_label_length: 24, ..Limits::default() };
        spec.limits.on_exceed = if truncate { OnExceed::Truncate } else { OnExceed::Fail };
        let mapped = Aggregator::new(&spec).and_then(|mut aggregator| {
            rows.iter().try_for_each(|row| aggregator.push(&Value::from_json(row.clone())))?;
            aggregator.finish()
        });
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(failure) => {
                prop_assert!(MapFailure::CATEGORIES.contains(&failure.category()));
                return Ok(());
            }
        };
        let texts: Vec<_> = mapped.families.iter().map(|family| render(family, "prod")).collect();
        prop_assert_eq!(first_duplicate(&texts), None);
        let parsed = strict::parse(&join(&texts)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(parsed.values().map(|family| family.samples.len()).sum::<usize>(), mapped.series);
        prop_assert!(mapped.series <= spec.limits.max_series && mapped.rows <= spec.limits.max_rows);
        let finite = parsed.values().flat_map(|family| &family.samples).all(|sample| sample.2.is_finite());
        prop_assert!(finite);
    }

    #[test]
    fn whatever_the_rows_hold_the_counts_add_up(
        rows in prop::collection::vec(any_value(), 0..40),
        constant in "(?s).{0,8}",
        help in "(?s).{0,20}",
    ) {
        let labels =
            [("a", column("a")), ("b", column("b.a")), ("c", LabelSource::Const(constant)), ("d", column("c"))];
        let mut spec = query(vec![
            metric("twinquery_many", &labels, &[("a", &["a", "1"]), ("b", &["", "b"])]),
            metric("twinquery_one", &labels[..1], &[]),
            metric("twinquery_all", &[], &[]),
        ]);
        spec.metrics[0].help = help;
        spec.limits.max_label_length = 24;
        let mut aggregator = Aggregator::new(&spec).unwrap();
        for row in &rows {
            aggregator.push(&Value::from_json(row.clone())).unwrap();
        }
        let mapped = aggregator.finish().unwrap();
        let texts: Vec<_> = mapped.families.iter().map(|family| render(family, "prod")).collect();
        let parsed = strict::parse(&join(&texts)).map_err(TestCaseError::fail)?;
        let total = |name: &str| parsed.get(name).map_or(0.0, |family| family.samples.iter().map(|s| s.2).sum());
        let count = as_float(rows.len());
        let dropped = as_float(mapped.dropped.values().sum::<u64>().try_into().unwrap());
        prop_assert_eq!(total("twinquery_all"), count);
        prop_assert!(total("twinquery_many") >= count - dropped && total("twinquery_one") >= total("twinquery_many"));
    }
}
