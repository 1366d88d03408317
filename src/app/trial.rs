//! Queries run once, for somebody who looks at what they would give.

use super::connect::HubParts;
use crate::exporter::{Trial, run_once};
use crate::series::QuerySpec;

/// Runs each query once, one after another; its name with what it gave.
pub async fn try_queries(parts: &HubParts, specs: &[QuerySpec]) -> Vec<(String, Trial)> {
    let mut rng = fastrand::Rng::new();
    let mut trials = Vec::new();
    for spec in specs {
        trials.push((spec.name.clone(), run_once(&parts.name, &parts.hub, spec, &mut rng).await));
    }
    trials
}
