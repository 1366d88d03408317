//! Query rows to metric families to exposition text.
//!
//! Invariant: floor 2, pure. What is rendered here is valid for every Prometheus server, because one bad label
//! name would cost the whole scrape (`metrics.md` 1.2).

mod convert;
mod family;
#[cfg(test)]
pub(crate) mod fixtures;
mod local;
mod mapping;
mod spec;
#[cfg(test)]
pub(crate) mod strict;
#[cfg(test)]
mod tests;
mod text;

pub use family::{Family, Kind, LabelSet, NameError};
pub use local::{LocalQuery, LocalRun};
pub use mapping::{Aggregator, Dropped, MapFailure, Mapped, OWN_PREFIXES, columns_of};
pub use spec::{
    Case, Evaluate, LabelColumn, LabelSource, Limits, MetricKind, MetricSpec, NumberColumn, OnEmpty, OnExceed,
    OnInvalid, OnMissing, Parse, QuerySpec, Reduce, StateColumn, ValueSource,
};
pub use text::{FamilyText, Piece, first_duplicate, join, pieces, render};
