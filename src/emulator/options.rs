//! What can be set about the service of a hub, beside its addresses.
//!
//! Invariant: the default is what a hub in the cloud does, as far as that is known.

use std::time::Duration;

use super::identity::SharedKey;
use super::registry::{BulkTwinWrite, CONFIGURATIONS_MAX};
use super::trial::TrialOptions;

/// How often configurations are evaluated (`iot-hub.md` 10).
const CONFIGURATION_PERIOD: Duration = Duration::from_secs(300);
/// Jobs at once where no tier is set, as in the largest one (`iot-hub.md` 6.3).
const ACTIVE_JOBS_MAX: usize = 10;

/// Switches of the service.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// What `updateTwin` of a bulk operation does (`iot-hub.md` 2.6).
    pub bulk_twin_write: BulkTwinWrite,
    /// How often configurations are evaluated, beside once after each change.
    pub configuration_period: Duration,
    /// The key of an issuer of bearer tokens, for tests; without one bearer tokens are refused (`iot-hub.md` 7.4).
    pub bearer_issuer: Option<SharedKey>,
    /// What is set for trials.
    pub trials: TrialOptions,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            bulk_twin_write: BulkTwinWrite::default(),
            configuration_period: CONFIGURATION_PERIOD,
            bearer_issuer: None,
            trials: TrialOptions::default(),
        }
    }
}

impl ServiceOptions {
    /// How many jobs may be active at once: those of the tier (`iot-hub.md` 6.3).
    #[must_use]
    pub fn active_jobs_max(&self) -> usize {
        self.trials.tier.map_or(ACTIVE_JOBS_MAX, |(tier, _)| tier.active_jobs_max())
    }

    /// How many configurations there may be: those of the tier (`iot-hub.md` 6.3).
    #[must_use]
    pub fn configurations_max(&self) -> usize {
        self.trials.tier.map_or(CONFIGURATIONS_MAX, |(tier, _)| tier.configurations_max())
    }
}
