//! Rows to families: one value for each set of labels.
//!
//! Invariant: rows are looked at one by one and never kept; what is kept is bounded by the query's own limits. Labels
//! that are absent, null or empty are one and the same, as Prometheus sees it, so no series comes out twice.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::convert::{Read, clean, read_label, read_number, read_state, short};
use super::spec::{Evaluate, NumberColumn, OnEmpty, OnExceed, OnInvalid, OnMissing, Reduce, StateColumn};
use super::{Family, Kind, LabelSet, LabelSource, MetricKind, MetricSpec, NameError, QuerySpec, ValueSource};
use crate::query::GROUPS_MAX;
use crate::twin::Value;

/// What the names of our own instruments begin with; no metric of a query may, or one family would come out twice.
pub const OWN_PREFIXES: [&str; 2] = ["geminid_", "process_"];

/// Why a row does not count in a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The value's column holds what is no such value.
    InvalidValue,
    /// A label's column holds an object or an array.
    InvalidLabel,
    /// A label's value has more bytes than the query's limit; cutting it could make two series one.
    LabelTooLong,
    /// The value is none of the metric's states. The series of its labels exist, all 0.
    UnknownState,
    /// The row, or its series, lies beyond a limit of a query that truncates. Rows of pages that were not read count
    /// as one: how many there are is not known.
    Truncated,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::InvalidValue, Self::InvalidLabel, Self::LabelTooLong, Self::UnknownState, Self::Truncated];

    /// The label value (`metrics.md` section 7, `geminid_query_dropped_rows_total`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidValue => "invalid_value",
            Self::InvalidLabel => "invalid_label",
            Self::LabelTooLong => "label_too_long",
            Self::UnknownState => "unknown_state",
            Self::Truncated => "truncated",
        }
    }
}

/// Why a whole run gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapFailure {
    /// The query's limit of rows is exceeded.
    #[error("the query answers more than {0} rows (limits.maxRows); narrow its WHERE, or raise it")]
    Rows(usize),
    /// The query's limit of series is exceeded.
    #[error(
        "the query gives more than {0} series (limits.maxSeries); group by something with fewer values, or raise it"
    )]
    Series(usize),
    /// There are more groups than anybody may have.
    #[error("a GROUP BY gives at most {GROUPS_MAX} groups; group by something with fewer values")]
    Groups,
    /// No row, and the query takes that for a failure.
    #[error("the query answers no row (onEmpty: fail)")]
    Empty,
    /// No row has the column that a metric's value comes from: a typo rather than data.
    #[error("no row has the column {column} of {metric}; check the query's AS and the metric's value.column")]
    MissingColumn {
        /// The metric's name.
        metric: String,
        /// The column, keys joined by dots.
        column: String,
    },
    /// Two rows have equal labels, and the metric does not say what becomes of them.
    #[error("two rows give the same series of {metric}; add a label that tells them apart, or value.reduce")]
    SameLabels {
        /// The metric's name.
        metric: String,
    },
    /// A row that the manifest does not tolerate.
    #[error("row {row} has {problem} in column {column} of {metric}")]
    Row {
        /// The row's number, from 1.
        row: usize,
        /// The metric's name.
        metric: String,
        /// The column, keys joined by dots.
        column: String,
        /// `no value` or `a value of another kind`.
        problem: &'static str,
    },
    /// Rows together make a number that is none.
    #[error("the rows of {metric} together are beyond every number")]
    Overflow {
        /// The metric's name.
        metric: String,
    },
    /// A name that no exposition can hold; loading refuses it before.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl MapFailure {
    /// Every category there is.
    pub const CATEGORIES: [&str; 6] = ["limit", "empty", "missing_column", "duplicate", "invalid_row", "other"];

    /// The metric label (`metrics.md` section 7, `reason`).
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Rows(_) | Self::Series(_) | Self::Groups => "limit",
            Self::Empty => "empty",
            Self::MissingColumn { .. } => "missing_column",
            Self::SameLabels { .. } => "duplicate",
            Self::Row { .. } | Self::Overflow { .. } => "invalid_row",
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

/// Label values in the order of the metric's label names, empty where absent, to the value so far.
type Cells = BTreeMap<Vec<String>, Cell>;

#[derive(Debug, Clone, Copy)]
struct Cell {
    value: f64,
    /// Rows it is made of; none for a zero that was filled in.
    rows: u32,
}

/// How rows with equal labels come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    Rows(Reduce),
    /// All rows say the same.
    Same,
}

/// Maps the rows of one run of a query.
#[derive(Debug)]
pub struct Aggregator<S> {
    spec: S,
    /// For each metric its series.
    cells: Vec<Cells>,
    /// For each metric whether a row had the column of its value.
    has_column: Vec<bool>,
    dropped: BTreeMap<Dropped, u64>,
    rows: usize,
    series: usize,
}

impl<S: Deref<Target = QuerySpec> + Clone> Aggregator<S> {
    /// Starts a run: what `zero_fill` names exists with 0. So does the one label set of a metric that counts rows and
    /// none of whose labels comes from a column: no rows is a count of 0.
    ///
    /// # Errors
    /// [`MapFailure::Series`] when the zeros alone exceed the limit, [`MapFailure::Name`] when a metric has the name of
    /// one of our own.
    pub fn new(spec: S) -> Result<Self, MapFailure> {
        let ours = |metric: &&MetricSpec| OWN_PREFIXES.iter().any(|prefix| metric.name.starts_with(prefix));
        if let Some(metric) = spec.metrics.iter().find(ours) {
            return Err(NameError::Metric(metric.name.clone()).into());
        }
        let dropped = Dropped::ALL.into_iter().map(|reason| (reason, 0)).collect();
        let (cells, has_column) = (vec![Cells::new(); spec.metrics.len()], vec![false; spec.metrics.len()]);
        let mut aggregator = Self { spec: spec.clone(), cells, has_column, dropped, rows: 0, series: 0 };
        for (index, metric) in spec.metrics.iter().enumerate() {
            for labels in zeros(metric, spec.limits.max_series)? {
                for labels in with_states(metric, labels) {
                    aggregator.room(1).then_some(()).ok_or(MapFailure::Series(spec.limits.max_series))?;
                    aggregator.series += 1;
                    aggregator.cells[index].insert(labels, Cell { value: 0.0, rows: 0 });
                }
            }
        }
        Ok(aggregator)
    }

    /// Maps one row.
    ///
    /// # Errors
    /// [`MapFailure`] when a limit is exceeded or the row is one that the manifest does not tolerate; the run gives
    /// nothing then.
    pub fn push(&mut self, row: &Value) -> Result<(), MapFailure> {
        if self.is_full() {
            if self.spec.limits.on_exceed == OnExceed::Fail {
                return Err(MapFailure::Rows(self.spec.limits.max_rows));
            }
            self.truncated();
            return Ok(());
        }
        self.rows += 1;
        let mut reason = None;
        let spec = self.spec.clone();
        for (index, metric) in spec.metrics.iter().enumerate() {
            if let Some(dropped) = self.map(index, metric, row)? {
                reason = reason.or(Some(dropped));
            }
        }
        if let Some(dropped) = reason {
            *self.dropped.entry(dropped).or_default() += 1;
        }
        Ok(())
    }

    /// Rows seen so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether another row would exceed the limit of rows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows >= self.spec.limits.max_rows
    }

    /// Counts that something was left out: one row, or pages that are not read.
    pub fn truncated(&mut self) {
        *self.dropped.entry(Dropped::Truncated).or_default() += 1;
    }

    /// Ends the run. Help texts end with the query's name and interval.
    ///
    /// # Errors
    /// [`MapFailure`] when there is no row and that is a failure, when no row has the column of a value, or when the
    /// query holds a name that no exposition can hold.
    pub fn finish(self) -> Result<Mapped, MapFailure> {
        let spec = self.spec;
        if self.rows == 0 && spec.on_empty == OnEmpty::Fail {
            return Err(MapFailure::Empty);
        }
        let mut families = Vec::with_capacity(spec.metrics.len());
        for ((metric, cells), has_column) in spec.metrics.iter().zip(self.cells).zip(self.has_column) {
            if let (true, false, Some(column)) = (self.rows > 0, has_column, value_column(metric)) {
                return Err(MapFailure::MissingColumn { metric: metric.name.clone(), column: column.join(".") });
            }
            families.push(family(&spec, metric, cells)?);
        }
        Ok(Mapped { families, dropped: self.dropped, rows: self.rows, series: self.series })
    }

    /// What becomes of a row in one metric.
    fn map(&mut self, index: usize, metric: &MetricSpec, row: &Value) -> Result<Option<Dropped>, MapFailure> {
        let value = value_column(metric).map(|keys| row.get(keys.iter().map(String::as_str)));
        self.has_column[index] |= value.is_some_and(|value| value.is_some());
        let labels = match label_values(metric, row, self.spec.limits.max_label_length) {
            Ok(labels) => labels,
            Err(dropped) => return Ok(Some(dropped)),
        };
        match &metric.value {
            ValueSource::Count => self.add(index, labels, 1.0, Merge::Rows(Reduce::Sum)),
            ValueSource::Const(number) => self.add(index, labels, number.as_f64(), Merge::Same),
            ValueSource::Column(column) => {
                let mut read = read_number(value.flatten(), column);
                if metric.kind == MetricKind::Counter && matches!(read, Read::Is(number) if number < 0.0) {
                    read = Read::Invalid;
                }
                match self.judge(metric, read, column.on_missing, column.on_invalid, 0.0)? {
                    Ok(number) => self.add(index, labels, number, Merge::Rows(column.reduce)),
                    Err(dropped) => Ok(dropped),
                }
            }
            ValueSource::States(column) => {
                let read = read_state(value.flatten(), column);
                match self.judge(metric, read.map(Some), column.on_missing, column.on_invalid, None)? {
                    Ok(state) => self.add_states(index, &labels, column, state),
                    Err(dropped) => Ok(dropped),
                }
            }
        }
    }

    /// The value that a row counts with, or why it does not.
    fn judge<T>(
        &self,
        metric: &MetricSpec,
        read: Read<T>,
        on_missing: OnMissing,
        on_invalid: OnInvalid,
        zero: T,
    ) -> Result<Result<T, Option<Dropped>>, MapFailure> {
        let fails = |problem| MapFailure::Row {
            row: self.rows,
            metric: metric.name.clone(),
            column: value_column(metric).map_or_else(String::new, |keys| keys.join(".")),
            problem,
        };
        match (read, on_missing, on_invalid) {
            (Read::Is(value), _, _) => Ok(Ok(value)),
            (Read::Missing, OnMissing::Skip, _) => Ok(Err(None)),
            (Read::Missing, OnMissing::Zero, _) => Ok(Ok(zero)),
            (Read::Missing, OnMissing::Fail, _) => Err(fails("no value")),
            (Read::Invalid, _, OnInvalid::Skip) => Ok(Err(Some(Dropped::InvalidValue))),
            (Read::Invalid, _, OnInvalid::Fail) => Err(fails("a value of another kind")),
        }
    }

    fn add(
        &mut self,
        index: usize,
        labels: Vec<String>,
        value: f64,
        merge: Merge,
    ) -> Result<Option<Dropped>, MapFailure> {
        let room = self.room(1);
        match self.cells[index].get_mut(&labels) {
            Some(cell) => match cell.merge(value, merge) {
                true => Ok(None),
                false => Err(MapFailure::SameLabels { metric: self.spec.metrics[index].name.clone() }),
            },
            None if room => {
                self.series += 1;
                self.cells[index].insert(labels, Cell { value, rows: 1 });
                Ok(None)
            }
            None => self.over(),
        }
    }

    /// One series a state. `state` is none when the row has no value, `Some(None)` when it is no state.
    fn add_states(
        &mut self,
        index: usize,
        labels: &[String],
        column: &StateColumn,
        state: Option<Option<usize>>,
    ) -> Result<Option<Dropped>, MapFailure> {
        let key = |name: &String| [labels, std::slice::from_ref(name)].concat();
        let known = column.states.first().is_some_and(|first| self.cells[index].contains_key(&key(first)));
        if !known && !self.room(column.states.len()) {
            return self.over();
        }
        for (place, name) in column.states.iter().enumerate() {
            let value = f64::from(u8::from(state.flatten() == Some(place)));
            if let Some(dropped) = self.add(index, key(name), value, Merge::Rows(column.reduce))? {
                return Ok(Some(dropped));
            }
        }
        Ok((state == Some(None)).then_some(Dropped::UnknownState))
    }

    fn room(&self, series: usize) -> bool {
        self.series + series <= self.spec.limits.max_series
    }

    fn over(&self) -> Result<Option<Dropped>, MapFailure> {
        match self.spec.limits.on_exceed {
            OnExceed::Fail => Err(MapFailure::Series(self.spec.limits.max_series)),
            OnExceed::Truncate => Ok(Some(Dropped::Truncated)),
        }
    }
}

impl Cell {
    /// Takes another row in; false when two rows may not have equal labels.
    fn merge(&mut self, value: f64, merge: Merge) -> bool {
        let before = (self.rows > 0).then_some(self.value);
        self.rows = self.rows.saturating_add(1);
        self.value = match (before, merge) {
            (None, _) => value,
            (Some(_), Merge::Rows(Reduce::Error)) => return false,
            (Some(before), Merge::Same | Merge::Rows(Reduce::First)) => before,
            // The mean is made of the sum when the run ends.
            (Some(before), Merge::Rows(Reduce::Sum | Reduce::Avg)) => before + value,
            (Some(before), Merge::Rows(Reduce::Min)) => before.min(value),
            (Some(before), Merge::Rows(Reduce::Max)) => before.max(value),
        };
        true
    }
}

impl<T> Read<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Missing => Read::Missing,
            Self::Invalid => Read::Invalid,
            Self::Is(value) => Read::Is(change(value)),
        }
    }
}

/// The columns that a metric reads, as keys from the row.
pub fn columns_of(metric: &MetricSpec) -> impl Iterator<Item = &[String]> {
    let labels = metric.labels.values().filter_map(|source| match source {
        LabelSource::Column(column) => Some(column.keys.as_slice()),
        LabelSource::Const(_) => None,
    });
    labels.chain(value_column(metric))
}

fn value_column(metric: &MetricSpec) -> Option<&[String]> {
    match &metric.value {
        ValueSource::Count | ValueSource::Const(_) => None,
        ValueSource::Column(column) => Some(&column.keys),
        ValueSource::States(column) => Some(&column.keys),
    }
}

fn family(spec: &QuerySpec, metric: &MetricSpec, cells: Cells) -> Result<Family, MapFailure> {
    let pace = match spec.evaluate {
        Evaluate::Hub => format!("every {}", short(spec.interval)),
        Evaluate::Sweep { .. } => "with each sweep".to_owned(),
    };
    let help = format!("{} TwinQuery {}, {pace}.", metric.help, spec.name);
    let kind = match metric.kind {
        MetricKind::Gauge | MetricKind::Info | MetricKind::StateSet => Kind::Gauge,
        MetricKind::Counter => Kind::Counter,
    };
    let is_mean = matches!(&metric.value, ValueSource::Column(NumberColumn { reduce: Reduce::Avg, .. }));
    let mut family = Family::new(&metric.name, kind, &clean(&help))?;
    for (values, cell) in cells {
        let labels = metric.label_names().zip(values.iter().map(String::as_str));
        let value = if is_mean && cell.rows > 1 { cell.value / f64::from(cell.rows) } else { cell.value };
        if !value.is_finite() {
            return Err(MapFailure::Overflow { metric: metric.name.clone() });
        }
        family.set(LabelSet::new(labels)?, value);
    }
    Ok(family)
}

/// Every combination of the label values that exist without a row, at most `max`.
fn zeros(metric: &MetricSpec, max: usize) -> Result<Vec<Vec<String>>, MapFailure> {
    let from_columns = metric.labels.values().any(|source| matches!(source, LabelSource::Column(_)));
    let counts = metric.value == ValueSource::Count;
    if metric.zero_fill.is_empty() && (from_columns || !counts) {
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
    // Values that differ in control characters alone are one.
    combinations.sort_unstable();
    combinations.dedup();
    Ok(combinations)
}

/// The label sets of one set of labels: one a state.
fn with_states(metric: &MetricSpec, labels: Vec<String>) -> Vec<Vec<String>> {
    match &metric.value {
        ValueSource::States(column) => {
            column.states.iter().map(|state| [labels.as_slice(), std::slice::from_ref(state)].concat()).collect()
        }
        ValueSource::Count | ValueSource::Const(_) | ValueSource::Column(_) => vec![labels],
    }
}

fn label_values(metric: &MetricSpec, row: &Value, max_length: usize) -> Result<Vec<String>, Dropped> {
    let value = |source: &LabelSource| match source {
        LabelSource::Const(text) => Ok(clean(text)),
        LabelSource::Column(column) => match read_label(row.get(column.keys.iter().map(String::as_str)), column) {
            Read::Is(text) if text.len() > max_length => Err(Dropped::LabelTooLong),
            Read::Is(text) => Ok(text),
            Read::Missing => Ok(String::new()),
            Read::Invalid => Err(Dropped::InvalidLabel),
        },
    };
    metric.labels.values().map(value).collect()
}
