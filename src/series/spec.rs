//! What a `TwinQuery` asks for (`metrics.md` section 4).

use std::collections::BTreeMap;
use std::time::Duration;

/// One `TwinQuery`, checked: names, labels and limits are valid, and `timeout < interval`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySpec {
    /// `metadata.name`.
    pub name: String,
    /// The text sent to the hub.
    pub query: String,
    /// Time from one run's start to the next.
    pub interval: Duration,
    /// The most one whole run may take, all pages together.
    pub timeout: Duration,
    /// Age of the last good result after which its series are withdrawn.
    pub stale_after: Duration,
    /// Rows a page.
    pub page_size: usize,
    /// What one run may read and give.
    pub limits: Limits,
    /// The metrics made of the rows, 1 to 16.
    pub metrics: Vec<MetricSpec>,
}

/// Bounds of one run; exceeding one fails the run.
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
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pages: 50, max_rows: 5000, max_series: 1000, max_label_length: 256 }
    }
}

/// One gauge: the number of rows for each set of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// The full final name, `twinquery_...`.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// Label name to where its value comes from.
    pub labels: BTreeMap<String, LabelSource>,
    /// Label values that exist with 0 when no row has them; every combination, with the constant labels.
    pub zero_fill: BTreeMap<String, Vec<String>>,
}

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// The row's value beneath these keys.
    Column(Vec<String>),
    /// Always this text.
    Const(String),
}
