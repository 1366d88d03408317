//! Query rows to metric families to exposition text.
//!
//! Invariant: floor 2, pure. What is rendered here is valid for every Prometheus server, because one bad label
//! name would cost the whole scrape (`metrics.md` 1.2).

mod spec;

pub use spec::{LabelSource, Limits, MetricSpec, QuerySpec};
