//! Query rows to metric families to exposition text.
//!
//! Invariant: floor 2, pure. What is rendered here is valid for every Prometheus server, because one bad label
//! name would cost the whole scrape (`metrics.md` 1.2).

mod family;
mod mapping;
mod spec;
#[cfg(test)]
pub(crate) mod strict;
mod text;

pub use family::{Family, Kind, LabelSet, NameError};
pub use mapping::{Aggregator, Dropped, MapFailure, Mapped};
pub use spec::{LabelSource, Limits, MetricSpec, QuerySpec};
pub use text::{FamilyText, append, first_duplicate, join, render};
