//! What a `TwinQuery` asks for (`metrics.md` section 4).

use std::collections::BTreeMap;
use std::time::Duration;

use super::LocalQuery;
use crate::twin::Number;

/// One `TwinQuery`, checked: names, labels and limits are valid, and `timeout < interval`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySpec {
    /// `metadata.name`.
    pub name: String,
    /// The text sent to the hub.
    pub query: String,
    /// Who answers it.
    pub evaluate: Evaluate,
    /// No runs, and no series but the one that says that the query is loaded.
    pub suspend: bool,
    /// Time from one run's start to the next.
    pub interval: Duration,
    /// The most one whole run may take, all pages together.
    pub timeout: Duration,
    /// Age of the last good result after which its series are withdrawn.
    pub stale_after: Duration,
    /// Rows a page.
    pub page_size: usize,
    /// What an answer without a row means.
    pub on_empty: OnEmpty,
    /// What one run may read and give.
    pub limits: Limits,
    /// The metrics made of the rows, 1 to 16.
    pub metrics: Vec<MetricSpec>,
}

/// Who answers a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Evaluate {
    /// The hub, every interval.
    #[default]
    Hub,
    /// We ourselves, from the rows of each sweep; interval, timeout and pages mean nothing then.
    Sweep {
        /// The query.
        query: Box<LocalQuery>,
        /// `staleAfter`, if the manifest says; else it follows the time from one sweep to the next.
        stale_after: Option<Duration>,
    },
}

/// What an answer without a row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEmpty {
    /// It is an answer; what is filled with zeros is published.
    #[default]
    Publish,
    /// The run fails.
    Fail,
}

/// Bounds of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pages read.
    pub max_pages: usize,
    /// Rows read.
    pub max_rows: usize,
    /// Series of all metrics of the query together.
    pub max_series: usize,
    /// Bytes of a label value.
    pub max_label_length: usize,
    /// What happens beyond pages, rows and series.
    pub on_exceed: OnExceed,
}

/// What happens beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExceed {
    /// The run fails.
    #[default]
    Fail,
    /// What is beyond is left out and counted.
    Truncate,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pages: 50, max_rows: 5000, max_series: 1000, max_label_length: 256, on_exceed: OnExceed::Fail }
    }
}

/// One metric made of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// The full final name, `twinquery_...`.
    pub name: String,
    /// What its values mean.
    pub kind: MetricKind,
    /// One line of help.
    pub help: String,
    /// Label name to where its value comes from.
    pub labels: BTreeMap<String, LabelSource>,
    /// Where the value of a series comes from.
    pub value: ValueSource,
    /// Label values that exist with 0 when no row has them; every combination, with the constant labels.
    pub zero_fill: BTreeMap<String, Vec<String>>,
}

/// What a metric's values mean. `Info` and `StateSet` are written as gauges: text format 0.0.4 has no such types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only goes up.
    Counter,
    /// 1; the labels are what is told.
    Info,
    /// One series a state, of which at most one is 1.
    StateSet,
}

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// The row's value beneath these keys.
    Column(LabelColumn),
    /// Always this text.
    Const(String),
}

/// A column made a label (`metrics.md` section 3): first `case`, then `map`, then `allow`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelColumn {
    /// The keys from the row to the value.
    pub keys: Vec<String>,
    /// The label's value where the row has none, an object or an array; empty for no label.
    pub default: String,
    /// How letters are changed.
    pub case: Case,
    /// Values that become others.
    pub map: BTreeMap<String, String>,
    /// The values that stay; none: all of them.
    pub allow: Vec<String>,
    /// What a value becomes that is not allowed.
    pub other: String,
}

/// How the letters of a label's value are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// Not at all.
    #[default]
    Keep,
    /// To small letters.
    Lower,
    /// To capital letters.
    Upper,
}

/// Where the value of a series comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// The number of rows.
    Count,
    /// Always this number.
    Const(Number),
    /// A column's number.
    Column(NumberColumn),
    /// A column's word, one of these.
    States(StateColumn),
}

/// A column made a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberColumn {
    /// The keys from the row to the value.
    pub keys: Vec<String>,
    /// How the value is read.
    pub parse: Parse,
    /// Texts that mean a number, where [`Parse`] finds none.
    pub map: BTreeMap<String, Number>,
    /// What the number is multiplied by.
    pub scale: Number,
    /// What a row without the value means.
    pub on_missing: OnMissing,
    /// What a row with a value that is no number means.
    pub on_invalid: OnInvalid,
    /// What rows with equal labels become.
    pub reduce: Reduce,
}

/// A column made a set of states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateColumn {
    /// The keys from the row to the value.
    pub keys: Vec<String>,
    /// Values that mean a state of another name.
    pub map: BTreeMap<String, String>,
    /// The states, one series each.
    pub states: Vec<String>,
    /// The label that holds the state.
    pub label: String,
    /// What a row without the value means; zero: no state is 1.
    pub on_missing: OnMissing,
    /// What a row with an object or an array means.
    pub on_invalid: OnInvalid,
    /// What rows with equal labels become: an error, or the first of them.
    pub reduce: Reduce,
}

/// How a column's value becomes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parse {
    /// Numbers, texts that are numbers, and booleans as 0 and 1.
    #[default]
    Auto,
    /// Numbers and texts that are numbers.
    Number,
    /// Booleans, and the texts `true` and `false`.
    Bool,
    /// Percent, with or without the sign, as a share of 1: `55%` is 0.55.
    Percent,
    /// RFC 3339 times as Unix seconds.
    Rfc3339,
}

/// What a row means that lacks the value: the key is absent, or it holds null or an empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissing {
    /// It is not in this metric.
    #[default]
    Skip,
    /// It counts as 0.
    Zero,
    /// The run fails.
    Fail,
}

/// What a row means whose value cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInvalid {
    /// It is not in this metric, and counted.
    #[default]
    Skip,
    /// The run fails.
    Fail,
}

/// What rows with equal labels become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduce {
    /// The run fails.
    #[default]
    Error,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Their mean.
    Avg,
    /// The first in the hub's order.
    First,
}

impl MetricSpec {
    /// Every label name of its series, that of the state included.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        let state = match &self.value {
            ValueSource::States(states) => Some(states.label.as_str()),
            ValueSource::Count | ValueSource::Const(_) | ValueSource::Column(_) => None,
        };
        self.labels.keys().map(String::as_str).chain(state)
    }

    /// The series of each set of labels: one a state, else one.
    #[must_use]
    pub fn series_each(&self) -> usize {
        match &self.value {
            ValueSource::States(states) => states.states.len(),
            ValueSource::Count | ValueSource::Const(_) | ValueSource::Column(_) => 1,
        }
    }
}
