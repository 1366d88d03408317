//! What can be set about the service of a hub, beside its addresses.
//!
//! Invariant: the default is what a hub in the cloud does, as far as that is known.

use std::time::Duration;

use super::identity::SharedKey;
use super::registry::BulkTwinWrite;
use super::trial::TrialOptions;

/// How often configurations are evaluated (`iot-hub.md` 10).
const CONFIGURATION_PERIOD: Duration = Duration::from_secs(300);
/// Jobs at once, as in the largest tier (`iot-hub.md` 6.3).
const ACTIVE_JOBS: usize = 10;

/// Switches of the service.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// What `updateTwin` of a bulk operation does (`iot-hub.md` 2.6).
    pub bulk_twin_write: BulkTwinWrite,
    /// How often configurations are evaluated, beside once after each change.
    pub configuration_period: Duration,
    /// How many jobs may be active at once: 1 in S1, 5 in S2, 10 in S3 (`iot-hub.md` 6.3).
    pub active_jobs_max: usize,
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
            active_jobs_max: ACTIVE_JOBS,
            bearer_issuer: None,
            trials: TrialOptions::default(),
        }
    }
}
