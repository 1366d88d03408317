//! Queries for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Evaluate, LabelColumn, LabelSource, Limits, MetricKind, MetricSpec, OnEmpty, QuerySpec, ValueSource};

/// A label that holds a column as it is.
pub(crate) fn column(path: &str) -> LabelSource {
    LabelSource::Column(LabelColumn { keys: keys(path), ..LabelColumn::default() })
}

/// The keys of a column.
pub(crate) fn keys(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// A gauge that counts rows by these labels.
pub(crate) fn counting(name: &str, labels: &[(&str, LabelSource)]) -> MetricSpec {
    MetricSpec {
        name: name.to_owned(),
        kind: MetricKind::Gauge,
        help: "Rows.".to_owned(),
        labels: labels.iter().map(|(label, source)| ((*label).to_owned(), source.clone())).collect(),
        value: ValueSource::Count,
        zero_fill: BTreeMap::new(),
    }
}

/// A query whose text is its name, every ten minutes.
pub(crate) fn query(name: &str, metrics: Vec<MetricSpec>) -> QuerySpec {
    QuerySpec {
        name: name.to_owned(),
        query: name.to_owned(),
        evaluate: Evaluate::Hub,
        suspend: false,
        interval: Duration::from_secs(600),
        timeout: Duration::from_secs(60),
        stale_after: Duration::from_secs(1860),
        page_size: 100,
        on_empty: OnEmpty::Publish,
        limits: Limits::default(),
        metrics,
    }
}
