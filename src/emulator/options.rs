//! What can be set about the service of a hub, beside its addresses.
//!
//! Invariant: the default is what a hub in the cloud does, as far as that is known.

use super::registry::BulkTwinWrite;

/// Switches of the service.
#[derive(Debug, Clone, Default)]
pub struct ServiceOptions {
    /// What `updateTwin` of a bulk operation does (`iot-hub.md` 2.6).
    pub bulk_twin_write: BulkTwinWrite,
}
