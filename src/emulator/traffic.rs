//! What a request is, for throttles and faults: a handful of kinds (`iot-hub.md` 6.1).
//!
//! Invariant: every address has one kind, known before the request is looked at any closer; so has everything that a
//! device does by MQTT, answers to methods excepted.

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Reading identities, the list and statistics.
    RegistryRead,
    /// Writing identities, one or many.
    RegistryWrite,
    /// A query's page.
    Query,
    /// GET of a twin.
    TwinRead,
    /// PATCH or PUT of a twin.
    TwinWrite,
    /// A device connects.
    Connect,
    /// A device reads its twin.
    DeviceTwinRead,
    /// A device reports.
    Report,
    /// A device sends a message to the cloud.
    Telemetry,
    /// A direct method.
    Method,
    /// Jobs of every sort.
    Jobs,
    /// What a job does to one device.
    JobStep,
    /// Configurations.
    Configurations,
    /// All else.
    Other,
}

impl Traffic {
    /// Every kind that a client asks for, which are those that faults are set for.
    pub const ALL: [Self; 13] = [
        Self::RegistryRead,
        Self::RegistryWrite,
        Self::Query,
        Self::TwinRead,
        Self::TwinWrite,
        Self::Connect,
        Self::DeviceTwinRead,
        Self::Report,
        Self::Telemetry,
        Self::Method,
        Self::Jobs,
        Self::Configurations,
        Self::Other,
    ];

    /// The kind of a method on a path of these decoded segments.
    #[must_use]
    pub fn of(method: &str, segments: &[String]) -> Self {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            ("POST", ["devices", "query"]) => Self::Query,
            ("GET", ["devices" | "statistics", ..]) => Self::RegistryRead,
            (_, ["devices", ..]) => Self::RegistryWrite,
            (_, ["twins", .., "methods"]) => Self::Method,
            ("GET", ["twins", ..]) => Self::TwinRead,
            (_, ["twins", ..]) => Self::TwinWrite,
            (_, ["jobs", ..]) => Self::Jobs,
            (_, ["configurations", ..]) => Self::Configurations,
            (_, _) => Self::Other,
        }
    }

    /// The name in fault plans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RegistryRead => "registryRead",
            Self::RegistryWrite => "registryWrite",
            Self::Query => "query",
            Self::TwinRead => "twinRead",
            Self::TwinWrite => "twinWrite",
            Self::Connect => "connect",
            Self::DeviceTwinRead => "deviceTwinRead",
            Self::Report => "report",
            Self::Telemetry => "telemetry",
            Self::Method => "method",
            Self::Jobs => "jobs",
            Self::JobStep => "jobStep",
            Self::Configurations => "configurations",
            Self::Other => "other",
        }
    }

    /// The kind of such a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name in the text of a 429 (`iot-hub.md` 3.1; the names of all but the first and the last two are unproven).
    #[must_use]
    pub const fn in_refusals(self) -> &'static str {
        match self {
            Self::RegistryRead => "RegistryRead",
            Self::RegistryWrite => "RegistryWrite",
            Self::Query => "Query",
            Self::TwinRead | Self::DeviceTwinRead => "TwinRead",
            Self::TwinWrite | Self::Report => "TwinUpdate",
            Self::Connect => "DeviceConnect",
            Self::Telemetry => "DeviceToCloud",
            Self::Method => "DirectMethod",
            Self::Jobs => "Jobs",
            Self::JobStep => "JobsDeviceOperation",
            Self::Configurations => "ConfigurationWrite",
            Self::Other => "CRUD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_kind() {
        for (method, path, kind) in [
            ("GET", "devices", Traffic::RegistryRead),
            ("GET", "devices/d/modules", Traffic::RegistryRead),
            ("POST", "devices", Traffic::RegistryWrite),
            ("DELETE", "devices/d", Traffic::RegistryWrite),
            ("POST", "devices/query", Traffic::Query),
            ("GET", "devices/query", Traffic::RegistryRead),
            ("GET", "twins/d", Traffic::TwinRead),
            ("PATCH", "twins/d/modules/m", Traffic::TwinWrite),
            ("POST", "twins/d/methods", Traffic::Method),
            ("PUT", "jobs/v2/j", Traffic::Jobs),
            ("GET", "configurations", Traffic::Configurations),
            ("GET", "statistics/devices", Traffic::RegistryRead),
            ("GET", "messages/serviceBound/feedback", Traffic::Other),
        ] {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            assert_eq!(Traffic::of(method, &segments), kind, "{method} {path}");
        }
        for kind in Traffic::ALL {
            assert_eq!(Traffic::named(kind.as_str()), Some(kind));
        }
    }
}
