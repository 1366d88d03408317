//! Queries run once, for somebody who looks at what they would give.

use super::connect::HubParts;
use crate::exporter::{Trial, run_once};
use crate::series::QuerySpec;

/// Runs each query once, one after another; its name with what it gave.
///
/// # Errors
/// When counters cannot be set up.
pub async fn try_queries(parts: HubParts, specs: &[QuerySpec]) -> anyhow::Result<Vec<(String, Trial)>> {
    let name = parts.name.clone();
    let hub = parts.paced_alone()?;
    let mut rng = fastrand::Rng::new();
    let mut trials = Vec::new();
    for spec in specs {
        trials.push((spec.name.clone(), run_once(&name, &hub, spec, &mut rng).await));
    }
    Ok(trials)
}
