//! Counts of devices (`iot-hub.md` 2.10).

use serde::Serialize;

use super::super::registry::Statistics;
use super::json::json;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceStatistics {
    total_device_count: usize,
    enabled_device_count: usize,
    disabled_device_count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatistics {
    connected_device_count: usize,
}

/// The answer of `/statistics/devices`.
#[must_use]
pub fn device_statistics(counts: Statistics) -> Vec<u8> {
    json(&DeviceStatistics {
        total_device_count: counts.devices,
        enabled_device_count: counts.enabled,
        disabled_device_count: counts.devices - counts.enabled,
    })
}

/// The answer of `/statistics/service`.
#[must_use]
pub fn service_statistics(counts: Statistics) -> Vec<u8> {
    json(&ServiceStatistics { connected_device_count: counts.connected })
}
