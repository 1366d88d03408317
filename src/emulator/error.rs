//! What the embedded hub refuses, with the status and the code a real hub would answer.
//!
//! Invariant: every refusal names one row of `iot-hub.md` 3.2; no text holds a key or a token.

use super::configuration::ConfigurationId;
use super::job::JobId;
use super::traffic::Traffic;
use crate::twin::{DeviceId, TwinRef};

/// A request that was not carried out. `Display` is the text after the code in the body (`iot-hub.md` 3.1, shape A).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: the request breaks a rule of `iot-hub.md` section 4, or is not one the hub knows.
    #[error("{0}")]
    ArgumentInvalid(String),
    /// 400: something the operation needs is null or missing.
    #[error("{0}")]
    ArgumentNull(String),
    /// 400: the body is not the JSON that the operation takes.
    #[error("{0}")]
    Deserialization(String),
    /// 400: a bulk operation names one device or module twice (`iot-hub.md` 2.6).
    #[error("{0} is named more than once")]
    DefinedMultipleTimes(TwinRef),
    /// 400: the target condition of a configuration (`iot-hub.md` 10).
    #[error("{0}")]
    ConfigurationTarget(String),
    /// 400: the content of a configuration.
    #[error("{0}")]
    ConfigurationContent(String),
    /// 400: a custom metric of a configuration.
    #[error("{0}")]
    ConfigurationMetric(String),
    /// 400: no `api-version` in the query (`iot-hub.md` 2.1).
    #[error("the query parameter api-version is missing")]
    ApiVersionMissing,
    /// 401: no token, a wrong one, an expired one, or one whose policy lacks the right. The reason stays inside.
    #[error("Unauthorized")]
    Unauthorized,
    /// 404: no such device.
    #[error("{0}")]
    DeviceNotFound(DeviceId),
    /// 401: a module's identity was asked for whose device is missing or disabled (`iot-hub.md` 2.5).
    #[error("Unauthorized")]
    ModuleUnauthorized(DeviceId),
    /// 404: no such module of a device that is there.
    #[error("{0}")]
    ModuleNotFound(TwinRef),
    /// 404: no such configuration.
    #[error("{0}")]
    ConfigurationNotFound(ConfigurationId),
    /// 404: no such job.
    #[error("{0}")]
    JobNotFound(JobId),
    /// 404: no such address.
    #[error("there is nothing at this address")]
    AddressNotFound,
    /// 405: the address exists, the method does not.
    #[error("this address does not take this method")]
    MethodNotAllowed,
    /// 404: the device takes no direct method now (`iot-hub.md` 2.10).
    #[error("Timed out waiting for device to connect.")]
    DeviceNotOnline,
    /// 408: the body did not arrive in time.
    #[error("the body of the request did not arrive in time")]
    RequestTimeout,
    /// 409: create-only, and the device exists (`iot-hub.md` 2.4).
    #[error("A device with ID '{0}' is already registered.")]
    DeviceAlreadyExists(DeviceId),
    /// 409: create-only, and the module exists.
    #[error("A module with ID '{0}' is already registered.")]
    ModuleAlreadyExists(TwinRef),
    /// 409: create-only, and the configuration exists (`iot-hub.md` 2.4).
    #[error("A configuration with ID '{0}' is already registered.")]
    ConfigurationAlreadyExists(ConfigurationId),
    /// 409: there is a job of this id (`iot-hub.md` 2.8).
    #[error("A job with ID '{0}' already exists.")]
    JobAlreadyExists(JobId),
    /// 405: the job has ended (`iot-hub.md` 2.8).
    #[error("the job has ended")]
    JobEnded,
    /// 429: as many jobs are active as may be (`iot-hub.md` 2.8 and 6.3).
    #[error("the hub has as many active jobs as it may have; wait until one ends or cancel it")]
    TooManyJobs,
    /// 412: the configuration's etag is another one by now.
    #[error("ETag mismatch for configuration ID '{0}'")]
    ConfigurationChanged(ConfigurationId),
    /// 413: no room for another configuration (`iot-hub.md` 6.3).
    #[error("the hub has its {0} configurations already")]
    TooManyConfigurations(usize),
    /// 413: no room for another device or module (`iot-hub.md` 6.3).
    #[error("the hub holds its {0} devices and modules already")]
    TooManyDevices(usize),
    /// 413: a bulk operation has more items than this (`iot-hub.md` 2.6).
    #[error("a bulk operation has at most {0} items")]
    BulkTooLarge(usize),
    /// 413: no room for another module of this device (`iot-hub.md` section 4).
    #[error("the device has its {0} modules already")]
    TooManyModules(usize),
    /// 412: the identity's etag is another one by now.
    #[error("Precondition failed: Device version did not match, existingVersion:{existing} newVersion:{given}")]
    IdentityChanged {
        /// The live etag's number.
        existing: u64,
        /// What the request named.
        given: String,
    },
    /// 412: a delete without `If-Match` (`iot-hub.md` 2.4).
    #[error("Etag missing")]
    EtagMissing,
    /// 412: the twin's etag is another one by now.
    #[error("ETag mismatch for device ID '{0}'")]
    TwinChanged(DeviceId),
    /// 412: the reported properties have another `$version` by now (`iot-hub.md` 8.2).
    #[error("the reported properties have version {0}")]
    ReportedChanged(u64),
    /// 429: too many direct methods wait for their answers.
    #[error("too many direct methods are waiting for their answers")]
    TooManyMethods,
    /// 504: the device did not answer a direct method in time (`iot-hub.md` 2.10).
    #[error("Timed out waiting for the response from device.")]
    MethodTimeout,
    /// 413: the body is larger than the hub reads.
    #[error("the body has more than {0} bytes")]
    BodyTooLarge(usize),
    /// 429: the request would have waited too long for its turn (`iot-hub.md` 3.1 and 6.4).
    #[error(
        "The request has been throttled. Wait 10 seconds and try again. Operation type: {kind}",
        kind = .0.in_refusals()
    )]
    Throttled(Traffic),
    /// 403: the day's messages are used up (`iot-hub.md` 6.2).
    #[error("Total number of messages on IotHub exceeded the allocated quota")]
    QuotaExceeded,
    /// 501: a real hub has this, the embedded one does not yet.
    #[error("{0} is not implemented by the embedded hub")]
    NotImplemented(String),
    /// 503: the store failed or the hub is stopping. Whether the write happened is unknown.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::ArgumentInvalid(_)
            | Self::ArgumentNull(_)
            | Self::Deserialization(_)
            | Self::DefinedMultipleTimes(_)
            | Self::ConfigurationTarget(_)
            | Self::ConfigurationContent(_)
            | Self::ConfigurationMetric(_)
            | Self::ApiVersionMissing => 400,
            Self::Unauthorized | Self::ModuleUnauthorized(_) => 401,
            Self::DeviceNotFound(_)
            | Self::ModuleNotFound(_)
            | Self::ConfigurationNotFound(_)
            | Self::JobNotFound(_)
            | Self::DeviceNotOnline
            | Self::AddressNotFound => 404,
            Self::QuotaExceeded => 403,
            Self::MethodNotAllowed | Self::JobEnded => 405,
            Self::RequestTimeout => 408,
            Self::DeviceAlreadyExists(_)
            | Self::ModuleAlreadyExists(_)
            | Self::ConfigurationAlreadyExists(_)
            | Self::JobAlreadyExists(_) => 409,
            Self::IdentityChanged { .. }
            | Self::EtagMissing
            | Self::TwinChanged(_)
            | Self::ReportedChanged(_)
            | Self::ConfigurationChanged(_) => 412,
            Self::BodyTooLarge(_)
            | Self::TooManyDevices(_)
            | Self::TooManyModules(_)
            | Self::TooManyConfigurations(_)
            | Self::BulkTooLarge(_) => 413,
            Self::TooManyJobs | Self::TooManyMethods | Self::Throttled(_) => 429,
            Self::NotImplemented(_) => 501,
            Self::Unavailable(_) => 503,
            Self::MethodTimeout => 504,
        }
    }

    /// The code: in the body and in the header `iothub-errorcode` (`iot-hub.md` 3.1 and 3.2).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ArgumentInvalid(_) => "ArgumentInvalid",
            Self::ArgumentNull(_) => "ArgumentNull",
            Self::Deserialization(_) => "DeserializationError",
            Self::DefinedMultipleTimes(_) => "DeviceDefinedMultipleTimes",
            Self::ConfigurationTarget(_) => "InvalidConfigurationTargetCondition",
            Self::ConfigurationContent(_) => "InvalidConfigurationContent",
            Self::ConfigurationMetric(_) => "InvalidConfigurationCustomMetricsQuery",
            Self::ConfigurationNotFound(_) => "ConfigurationNotFound",
            Self::ConfigurationAlreadyExists(_) => "ConfigurationAlreadyExists",
            Self::TooManyConfigurations(_) => "ConfigurationCountLimitExceeded",
            Self::JobNotFound(_) => "JobNotFound",
            Self::JobAlreadyExists(_) => "JobAlreadyExists",
            Self::JobEnded => "OperationNotAllowedInCurrentState",
            Self::TooManyJobs => "ThrottlingMaxActiveJobCountExceeded",
            Self::ApiVersionMissing => "InvalidProtocolVersion",
            Self::Unauthorized | Self::ModuleUnauthorized(_) => "IotHubUnauthorizedAccess",
            Self::DeviceNotFound(_) => "DeviceNotFound",
            Self::ModuleNotFound(_) => "ModuleNotFound",
            Self::AddressNotFound => "ResourceNotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::RequestTimeout => "GenericTimeout",
            Self::DeviceAlreadyExists(_) => "DeviceAlreadyExists",
            Self::ModuleAlreadyExists(_) => "ModuleAlreadyExistsOnDevice",
            Self::IdentityChanged { .. }
            | Self::EtagMissing
            | Self::TwinChanged(_)
            | Self::ReportedChanged(_)
            | Self::ConfigurationChanged(_) => "PreconditionFailed",
            Self::DeviceNotOnline => "DeviceNotOnline",
            Self::TooManyMethods => "ThrottlingException",
            Self::MethodTimeout => "GatewayTimeout",
            Self::TooManyDevices(_) | Self::BulkTooLarge(_) => "TooManyDevices",
            Self::TooManyModules(_) => "TooManyModulesOnDevice",
            Self::BodyTooLarge(_) => "MessageTooLarge",
            Self::Throttled(_) => "ThrottlingBacklogTimeout",
            Self::QuotaExceeded => "IotHubQuotaExceeded",
            Self::NotImplemented(_) => "NotImplemented",
            Self::Unavailable(_) => "ServiceUnavailable",
        }
    }

    /// The number of the code (`iot-hub.md` 3.2), as error shape B has it; for a code without one, the status with
    /// three zeros.
    #[must_use]
    pub fn number(&self) -> u32 {
        match self.code() {
            "ArgumentInvalid" => 400_004,
            "ArgumentNull" => 400_005,
            "DeserializationError" => 400_012,
            "IotHubUnauthorizedAccess" => 401_002,
            "IotHubQuotaExceeded" => 403_002,
            "DeviceNotFound" => 404_001,
            "DeviceNotOnline" => 404_103,
            "PreconditionFailed" => 412_001,
            "ThrottlingException" => 429_001,
            "ThrottlingBacklogTimeout" => 429_003,
            "ServiceUnavailable" => 503_001,
            "GatewayTimeout" => 504_101,
            _ => u32::from(self.status()) * 1000,
        }
    }

    /// The number of the code, where a hub answers in shape B inside shape A (`iot-hub.md` 3.1).
    #[must_use]
    pub fn nested_code(&self) -> Option<u32> {
        matches!(self, Self::ModuleUnauthorized(_) | Self::DeviceNotOnline | Self::MethodTimeout).then(|| self.number())
    }
}
