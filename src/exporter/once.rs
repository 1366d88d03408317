//! A query run once, for somebody who looks at what it would give.
//!
//! Invariant: it reads and renders exactly as a scheduled run does.

use std::collections::BTreeMap;

use super::read::{Progress, read};
use super::rendered::Rendered;
use crate::hub::ReadTwins;
use crate::series::{Dropped, FamilyText, QuerySpec};

/// What one run gave.
#[derive(Debug)]
pub struct Trial {
    /// Pages read.
    pub pages: usize,
    /// Rows read.
    pub rows: usize,
    /// The families, or why there are none: a reason as `geminid_query_failures_total` has it, and a sentence.
    pub result: Result<TrialResult, (&'static str, String)>,
}

/// What a run gave that succeeded.
#[derive(Debug)]
pub struct TrialResult {
    /// The families, rendered.
    pub families: Vec<FamilyText>,
    /// Rows that a metric could not count.
    pub dropped: BTreeMap<Dropped, u64>,
}

/// Runs a query once against the hub of this name.
pub async fn run_once<H: ReadTwins>(hub_name: &str, hub: &H, spec: &QuerySpec, rng: &mut fastrand::Rng) -> Trial {
    let (Progress { pages, rows, .. }, result) = read(hub, spec, rng).await;
    let result = result.and_then(|mapped| Rendered::new(mapped, hub_name));
    let result = result.map(|rendered| TrialResult { families: rendered.snapshot.to_vec(), dropped: rendered.dropped });
    Trial { pages, rows, result: result.map_err(|failure| (failure.category(), failure.to_string())) }
}
