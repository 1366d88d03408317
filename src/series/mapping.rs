//! Rows to families: how many rows have each set of labels.
//!
//! Invariant: rows are looked at one by one and never kept; what is kept is bounded by the query's own limits. Labels
//! that are absent, null or empty are one and the same, as Prometheus sees it, so no series comes out twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Family, Kind, LabelSet, LabelSource, MetricSpec, NameError, QuerySpec};
use crate::twin::Value;

/// What the names of our own instruments begin with; no metric of a query may, or one family would come out twice.
const OWN_PREFIXES: [&str; 2] = ["geminid_", "process_"];

/// Why a row does not count in a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// A label's column holds an object or an array.
    InvalidLabel,
    /// A label's value has more bytes than the query's limit; cutting it could make two series one.
    LabelTooLong,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::InvalidLabel, Self::LabelTooLong];

    /// The label value (`metrics.md` section 7, `geminid_query_dropped_rows_total`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidLabel => "invalid_label",
            Self::LabelTooLong => "label_too_long",
        }
    }
}

/// Why a whole run gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapFailure {
    /// The query's limit of rows is exceeded.
    #[error("the query answers more than {0} rows (limits.maxRows)")]
    Rows(usize),
    /// The query's limit of series is exceeded.
    #[error("the query gives more than {0} series (limits.maxSeries)")]
    Series(usize),
    /// A name that no exposition can hold; loading refuses it before.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl MapFailure {
    /// The metric label (`metrics.md` section 7, `reason`).
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Rows(_) | Self::Series(_) => "limit",
            Self::Name(_) => "other",
        }
    }
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// A family for each metric of the query, in their order; one without series stands here, too.
    pub families: Vec<Family>,
    /// Rows that one metric at least did not count, by the first reason; every reason is there.
    pub dropped: BTreeMap<Dropped, u64>,
    /// Rows seen.
    pub rows: usize,
    /// Series of all families.
    pub series: usize,
}

/// Counts the rows of one run.
#[derive(Debug)]
pub struct Aggregator<'a> {
    spec: &'a QuerySpec,
    /// For each metric: label values in the order of its label names, empty where absent, to rows.
    counts: Vec<BTreeMap<Vec<String>, u64>>,
    dropped: BTreeMap<Dropped, u64>,
    rows: usize,
    series: usize,
}

impl<'a> Aggregator<'a> {
    /// Starts a run: what `zero_fill` names exists with 0. So does the one label set of a metric none of whose labels
    /// comes from a column: no rows is a count of 0.
    ///
    /// # Errors
    /// [`MapFailure::Series`] when the zeros alone exceed the limit, [`MapFailure::Name`] when a metric has the name of
    /// one of our own.
    pub fn new(spec: &'a QuerySpec) -> Result<Self, MapFailure> {
        let ours = |metric: &&MetricSpec| OWN_PREFIXES.iter().any(|prefix| metric.name.starts_with(prefix));
        if let Some(metric) = spec.metrics.iter().find(ours) {
            return Err(NameError::Metric(metric.name.clone()).into());
        }
        let dropped = Dropped::ALL.into_iter().map(|reason| (reason, 0)).collect();
        let counts = vec![BTreeMap::new(); spec.metrics.len()];
        let mut aggregator = Self { spec, counts, dropped, rows: 0, series: 0 };
        for (index, metric) in spec.metrics.iter().enumerate() {
            for labels in zeros(metric, spec.limits.max_series)? {
                aggregator.add(index, labels, 0)?;
            }
        }
        Ok(aggregator)
    }

    /// Counts one row.
    ///
    /// # Errors
    /// [`MapFailure`] when a limit is exceeded; the run gives nothing then.
    pub fn push(&mut self, row: &Value) -> Result<(), MapFailure> {
        if self.rows >= self.spec.limits.max_rows {
            return Err(MapFailure::Rows(self.spec.limits.max_rows));
        }
        self.rows += 1;
        let mut reason = None;
        for (index, metric) in self.spec.metrics.iter().enumerate() {
            match label_values(metric, row, self.spec.limits.max_label_length) {
                Ok(labels) => self.add(index, labels, 1)?,
                Err(dropped) => reason = reason.or(Some(dropped)),
            }
        }
        if let Some(dropped) = reason {
            *self.dropped.entry(dropped).or_default() += 1;
        }
        Ok(())
    }

    /// Ends the run. Help texts end with the query's name and interval.
    ///
    /// # Errors
    /// [`MapFailure::Name`] when the query holds a name that no exposition can hold.
    pub fn finish(self) -> Result<Mapped, MapFailure> {
        let spec = self.spec;
        let mut families = Vec::with_capacity(spec.metrics.len());
        for (metric, counts) in spec.metrics.iter().zip(self.counts) {
            let help = format!("{} TwinQuery {}, every {}.", metric.help, spec.name, short(spec.interval));
            let mut family = Family::new(&metric.name, Kind::Gauge, &clean(&help))?;
            for (values, count) in counts {
                let labels = metric.labels.keys().map(String::as_str).zip(values.iter().map(String::as_str));
                family.set(LabelSet::new(labels)?, as_value(count));
            }
            families.push(family);
        }
        Ok(Mapped { families, dropped: self.dropped, rows: self.rows, series: self.series })
    }

    fn add(&mut self, metric: usize, labels: Vec<String>, rows: u64) -> Result<(), MapFailure> {
        let counts = &mut self.counts[metric];
        if let Some(count) = counts.get_mut(&labels) {
            *count += rows;
            return Ok(());
        }
        if self.series >= self.spec.limits.max_series {
            return Err(MapFailure::Series(self.spec.limits.max_series));
        }
        self.series += 1;
        counts.insert(labels, rows);
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has at most as many rows as its limit, far below 2^53")]
fn as_value(count: u64) -> f64 {
    count as f64
}

/// Every combination of the label values that exist without a row, at most `max`.
fn zeros(metric: &MetricSpec, max: usize) -> Result<Vec<Vec<String>>, MapFailure> {
    let mut from_columns = metric.labels.values().filter(|source| matches!(source, LabelSource::Column(_)));
    if metric.zero_fill.is_empty() && from_columns.next().is_some() {
        return Ok(Vec::new());
    }
    let absent = vec![String::new()];
    let mut combinations = vec![Vec::new()];
    for (name, source) in &metric.labels {
        let values = match source {
            LabelSource::Const(text) => vec![clean(text)],
            LabelSource::Column(_) => metric
                .zero_fill
                .get(name)
                .map_or_else(|| absent.clone(), |values| values.iter().map(|text| clean(text)).collect()),
        };
        if combinations.len().saturating_mul(values.len()) > max {
            return Err(MapFailure::Series(max));
        }
        let longer = |labels: &Vec<String>| -> Vec<Vec<String>> {
            values.iter().map(|value| [labels.as_slice(), std::slice::from_ref(value)].concat()).collect()
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    Ok(combinations)
}

fn label_values(metric: &MetricSpec, row: &Value, max_length: usize) -> Result<Vec<String>, Dropped> {
    let value = |source: &LabelSource| match source {
        LabelSource::Const(text) => Ok(clean(text)),
        LabelSource::Column(keys) => {
            let text = label_text(row.get(keys.iter().map(String::as_str)))?;
            if text.len() > max_length { Err(Dropped::LabelTooLong) } else { Ok(text) }
        }
    };
    metric.labels.values().map(value).collect()
}

/// The table of `metrics.md` section 3; empty is absent.
fn label_text(value: Option<&Value>) -> Result<String, Dropped> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(clean(text)),
        Some(Value::Number(number)) => Ok(number.normalised().to_string()),
        Some(Value::Bool(value)) => Ok(value.to_string()),
        Some(Value::Array(_) | Value::Object(_)) => Err(Dropped::InvalidLabel),
    }
}

/// The text without control characters other than newline and tab.
fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

/// A duration as manifests write it: `10m`, `1h30m`, `1500ms`.
fn short(duration: Duration) -> String {
    let whole = duration.as_secs();
    let units =
        [(whole / 3600, "h"), (whole / 60 % 60, "m"), (whole % 60, "s"), (u64::from(duration.subsec_millis()), "ms")];
    let text: String =
        units.into_iter().filter(|(count, _)| *count > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::{Limits, first_duplicate, join, render, strict};

    fn column(path: &str) -> LabelSource {
        LabelSource::Column(path.split('.').map(str::to_owned).collect())
    }

    fn metric(name: &str, labels: &[(&str, LabelSource)], zero_fill: &[(&str, &[&str])]) -> MetricSpec {
        MetricSpec {
            name: name.to_owned(),
            help: "Rows.".to_owned(),
            labels: labels.iter().map(|(label, source)| ((*label).to_owned(), source.clone())).collect(),
            zero_fill: zero_fill
                .iter()
                .map(|(label, values)| ((*label).to_owned(), values.iter().map(|text| (*text).to_owned()).collect()))
                .collect(),
        }
    }

    fn query(metrics: Vec<MetricSpec>) -> QuerySpec {
        QuerySpec {
            name: "redmond43-devices".to_owned(),
            query: "SELECT * FROM devices".to_owned(),
            interval: Duration::from_secs(600),
            timeout: Duration::from_secs(60),
            stale_after: Duration::from_secs(1860),
            page_size: 100,
            limits: Limits::default(),
            metrics,
        }
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

    fn plant_devices() -> MetricSpec {
        let mut metric = metric(
            "twinquery_plant_devices",
            &[("plant", column("tags.location.plant"))],
            &[("plant", &["Redmond43"])],
        );
        metric.help = "Device twins tagged with a plant.".to_owned();
        metric
    }

    #[test]
    fn worked_example_1_counts_the_devices_of_a_plant() {
        let spec = query(vec![plant_devices()]);
        let row = r#"{"deviceId":"myDevice","tags":{"location":{"region":"US","plant":"Redmond43"}}}"#;
        insta::assert_snapshot!(exposition(&run(&spec, &[row, row]).unwrap()), @r#"
        # HELP twinquery_plant_devices Device twins tagged with a plant. TwinQuery redmond43-devices, every 10m.
        # TYPE twinquery_plant_devices gauge
        twinquery_plant_devices{hub="prod",plant="Redmond43"} 2
        "#);
    }

    #[test]
    fn worked_example_2_is_zero_while_no_device_reports_cellular() {
        let mut cellular = plant_devices();
        cellular.name = "twinquery_plant_cellular_devices".to_owned();
        cellular.help = "Device twins tagged with a plant that report cellular connectivity.".to_owned();
        let mut spec = query(vec![cellular]);
        spec.name = "redmond43-cellular".to_owned();
        spec.interval = Duration::from_secs(300);
        insta::assert_snapshot!(exposition(&run(&spec, &[]).unwrap()), @r#"
        # HELP twinquery_plant_cellular_devices Device twins tagged with a plant that report cellular connectivity. TwinQuery redmond43-cellular, every 5m.
        # TYPE twinquery_plant_cellular_devices gauge
        twinquery_plant_cellular_devices{hub="prod",plant="Redmond43"} 0
        "#);
    }

    #[test]
    fn every_shape_of_a_value_becomes_its_label() {
        let spec = query(vec![metric("twinquery_n", &[("x", column("a.b"))], &[])]);
        for (value, label) in [
            ("null", Some("")),
            (r#""""#, Some("")),
            (r#""text""#, Some("text")),
            (r#""a\u0000\u001bb\nc\td\u0085""#, Some("ab\nc\td")),
            (r#""\u0007""#, Some("")),
            ("1", Some("1")),
            ("1.0", Some("1")),
            ("-0.0", Some("0")),
            ("1.5", Some("1.5")),
            ("1e300", Some("1e300")),
            ("true", Some("true")),
            ("false", Some("false")),
            ("[]", None),
            ("{}", None),
        ] {
            let mapped = run(&spec, &[&format!(r#"{{"a":{{"b":{value}}}}}"#)]).unwrap();
            let found: Vec<LabelSet> = mapped.families[0].samples().map(|(labels, _)| labels.clone()).collect();
            let wanted: Vec<LabelSet> = label.iter().map(|text| LabelSet::new([("x", *text)]).unwrap()).collect();
            assert_eq!(found, wanted, "{value}");
            assert_eq!(mapped.dropped[&Dropped::InvalidLabel], u64::from(label.is_none()), "{value}");
        }
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
        let mut spec =
            query(vec![metric("twinquery_by_x", &[("x", column("x"))], &[]), metric("twinquery_all", &[], &[])]);
        spec.limits.max_label_length = 4;
        let mapped = run(&spec, &[r#"{"x":"abcd"}"#, r#"{"x":"abcde"}"#, r#"{"x":"ää ä"}"#]).unwrap();
        assert_eq!((mapped.rows, mapped.series), (3, 2));
        assert_eq!(mapped.dropped, BTreeMap::from([(Dropped::InvalidLabel, 0), (Dropped::LabelTooLong, 2)]));
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

    proptest! {
        #[test]
        fn whatever_the_rows_hold_the_exposition_is_valid_and_counts_them(
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
            prop_assert_eq!(first_duplicate(&texts), None);
            let parsed = strict::parse(&join(&texts)).map_err(TestCaseError::fail)?;
            prop_assert_eq!(parsed.values().map(|family| family.samples.len()).sum::<usize>(), mapped.series);
            let total = |name: &str| parsed.get(name).map_or(0.0, |family| family.samples.iter().map(|s| s.2).sum());
            let count = as_value(u64::try_from(rows.len()).unwrap());
            let dropped = as_value(mapped.dropped.values().sum());
            prop_assert_eq!(total("twinquery_all"), count);
            prop_assert!(total("twinquery_many") >= count - dropped && total("twinquery_one") >= total("twinquery_many"));
        }
    }
}
