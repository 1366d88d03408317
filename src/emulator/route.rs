//! Which operation an address and a method mean, and the right it needs (`iot-hub.md` 2.2).
//!
//! Invariant: every row of that table is known here; what is not built says so, and only what is in no row is unknown.

use super::auth::Right;
use super::configuration::ConfigurationId;
use super::error::Refusal;
use super::job::JobId;
use crate::twin::{DeviceId, ModuleId, TwinRef};

/// What an operation is about, as roles see it (`iot-hub.md` 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Identities and their counts.
    Registry,
    /// Twins and queries.
    Twins,
    /// Configurations, jobs, and what is not built.
    Other,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// GET `/devices`.
    ListDevices,
    /// POST `/devices`.
    Bulk,
    /// GET `/statistics/devices`.
    DeviceStatistics,
    /// GET `/statistics/service`.
    ServiceStatistics,
    /// GET `/devices/{id}`.
    GetDevice(DeviceId),
    /// PUT `/devices/{id}`.
    PutDevice(DeviceId),
    /// DELETE `/devices/{id}`.
    DeleteDevice(DeviceId),
    /// GET `/devices/{id}/modules`.
    ListModules(DeviceId),
    /// GET `/devices/{id}/modules/{mid}`.
    GetModule(DeviceId, ModuleId),
    /// PUT `/devices/{id}/modules/{mid}`.
    PutModule(DeviceId, ModuleId),
    /// DELETE `/devices/{id}/modules/{mid}`.
    DeleteModule(DeviceId, ModuleId),
    /// GET `/twins/{id}` and `/twins/{id}/modules/{mid}`.
    GetTwin(TwinRef),
    /// PATCH of the same.
    PatchTwin(TwinRef),
    /// PUT of the same.
    ReplaceTwin(TwinRef),
    /// POST `/twins/{id}/methods` and `/twins/{id}/modules/{mid}/methods`.
    CallMethod(TwinRef),
    /// POST `/devices/query`.
    Query,
    /// GET `/configurations`.
    ListConfigurations,
    /// GET `/configurations/{id}`.
    GetConfiguration(ConfigurationId),
    /// PUT `/configurations/{id}`.
    PutConfiguration(ConfigurationId),
    /// DELETE `/configurations/{id}`.
    DeleteConfiguration(ConfigurationId),
    /// POST `/configurations/testQueries`.
    TestQueries,
    /// GET `/jobs/v2/query`.
    ListJobs,
    /// GET `/jobs/v2/{id}`.
    GetJob(JobId),
    /// PUT `/jobs/v2/{id}`.
    PutJob(JobId),
    /// POST `/jobs/v2/{id}/cancel`.
    CancelJob(JobId),
    /// A row that a real hub has and this one does not yet; the text names it.
    Missing(&'static str, Right),
}

impl Operation {
    /// The operation of `method` on the path of these decoded segments; a slash at the end has left no trace.
    ///
    /// # Errors
    /// [`Refusal::AddressNotFound`], [`Refusal::MethodNotAllowed`], or [`Refusal::ArgumentInvalid`] for an id that
    /// none can be.
    pub fn of(method: &str, segments: &[String]) -> Result<Self, Refusal> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            ("GET", ["devices"]) => Ok(Self::ListDevices),
            ("POST", ["devices"]) => Ok(Self::Bulk),
            ("GET", ["statistics", "devices"]) => Ok(Self::DeviceStatistics),
            ("GET", ["statistics", "service"]) => Ok(Self::ServiceStatistics),
            ("POST", ["devices", "query"]) => Ok(Self::Query),
            ("GET", ["devices", id]) => device(id).map(Self::GetDevice),
            ("PUT", ["devices", id]) => device(id).map(Self::PutDevice),
            ("DELETE", ["devices", id]) => device(id).map(Self::DeleteDevice),
            ("GET", ["devices", id, "modules"]) => device(id).map(Self::ListModules),
            ("GET", ["devices", id, "modules", below]) => Ok(Self::GetModule(device(id)?, module(below)?)),
            ("PUT", ["devices", id, "modules", below]) => Ok(Self::PutModule(device(id)?, module(below)?)),
            ("DELETE", ["devices", id, "modules", below]) => Ok(Self::DeleteModule(device(id)?, module(below)?)),
            ("GET", ["twins", twin @ ..]) if is_twin(twin) => twin_ref(twin).map(Self::GetTwin),
            ("PATCH", ["twins", twin @ ..]) if is_twin(twin) => twin_ref(twin).map(Self::PatchTwin),
            ("PUT", ["twins", twin @ ..]) if is_twin(twin) => twin_ref(twin).map(Self::ReplaceTwin),
            ("POST", ["twins", twin @ .., "methods"]) if is_twin(twin) => twin_ref(twin).map(Self::CallMethod),
            ("GET", ["configurations"]) => Ok(Self::ListConfigurations),
            ("POST", ["configurations", "testQueries"]) => Ok(Self::TestQueries),
            ("GET", ["configurations", id]) => ConfigurationId::new(id).map(Self::GetConfiguration),
            ("PUT", ["configurations", id]) => ConfigurationId::new(id).map(Self::PutConfiguration),
            ("DELETE", ["configurations", id]) => ConfigurationId::new(id).map(Self::DeleteConfiguration),
            ("GET", ["jobs", "v2", "query"]) => Ok(Self::ListJobs),
            ("GET", ["jobs", "v2", id]) => JobId::new(id).map(Self::GetJob),
            ("PUT", ["jobs", "v2", id]) => JobId::new(id).map(Self::PutJob),
            ("POST", ["jobs", "v2", id, "cancel"]) => JobId::new(id).map(Self::CancelJob),
            (method, segments) => missing(method, segments),
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn area(&self) -> Area {
        match self {
            Self::ListDevices
            | Self::Bulk
            | Self::DeviceStatistics
            | Self::ServiceStatistics
            | Self::GetDevice(_)
            | Self::PutDevice(_)
            | Self::DeleteDevice(_)
            | Self::ListModules(_)
            | Self::GetModule(..)
            | Self::PutModule(..)
            | Self::DeleteModule(..) => Area::Registry,
            Self::GetTwin(_) | Self::PatchTwin(_) | Self::ReplaceTwin(_) | Self::Query => Area::Twins,
            Self::ListConfigurations
            | Self::GetConfiguration(_)
            | Self::PutConfiguration(_)
            | Self::DeleteConfiguration(_)
            | Self::TestQueries
            | Self::ListJobs
            | Self::GetJob(_)
            | Self::PutJob(_)
            | Self::CancelJob(_)
            | Self::CallMethod(_)
            | Self::Missing(..) => Area::Other,
        }
    }

    /// Whether it may change anything.
    #[must_use]
    pub const fn writes(&self) -> bool {
        match self {
            Self::ListDevices
            | Self::DeviceStatistics
            | Self::ServiceStatistics
            | Self::GetDevice(_)
            | Self::ListModules(_)
            | Self::GetModule(..)
            | Self::GetTwin(_)
            | Self::Query
            | Self::ListConfigurations
            | Self::GetConfiguration(_)
            | Self::TestQueries
            | Self::ListJobs
            | Self::GetJob(_) => false,
            Self::Bulk
            | Self::PutDevice(_)
            | Self::DeleteDevice(_)
            | Self::PutModule(..)
            | Self::DeleteModule(..)
            | Self::PatchTwin(_)
            | Self::ReplaceTwin(_)
            | Self::PutConfiguration(_)
            | Self::DeleteConfiguration(_)
            | Self::PutJob(_)
            | Self::CancelJob(_)
            | Self::CallMethod(_)
            | Self::Missing(..) => true,
        }
    }

    /// The right it needs.
    #[must_use]
    pub const fn right(&self) -> Right {
        match self {
            Self::ListDevices
            | Self::GetDevice(_)
            | Self::ListModules(_)
            | Self::GetModule(..)
            | Self::DeviceStatistics
            | Self::ListConfigurations
            | Self::GetConfiguration(_)
            | Self::TestQueries
            | Self::ServiceStatistics => Right::RegistryRead,
            Self::PutConfiguration(_) | Self::DeleteConfiguration(_) => Right::RegistryWrite,
            Self::ListJobs | Self::GetJob(_) | Self::PutJob(_) | Self::CancelJob(_) => Right::ServiceConnect,
            Self::Bulk | Self::PutDevice(_) | Self::DeleteDevice(_) | Self::PutModule(..) | Self::DeleteModule(..) => {
                Right::RegistryWrite
            }
            Self::GetTwin(_) | Self::PatchTwin(_) | Self::ReplaceTwin(_) | Self::CallMethod(_) | Self::Query => {
                Right::ServiceConnect
            }
            Self::Missing(_, right) => *right,
        }
    }
}

fn device(id: &str) -> Result<DeviceId, Refusal> {
    DeviceId::new(id).map_err(|error| Refusal::ArgumentInvalid(format!("the device id is not valid: {error}")))
}

fn module(id: &str) -> Result<ModuleId, Refusal> {
    ModuleId::new(id).map_err(|error| Refusal::ArgumentInvalid(format!("the module id is not valid: {error}")))
}

/// Whether what follows `twins` is the address of a twin.
fn is_twin(segments: &[&str]) -> bool {
    matches!(segments, [_] | [_, "modules", _])
}

fn twin_ref(segments: &[&str]) -> Result<TwinRef, Refusal> {
    match segments {
        [id] => device(id).map(TwinRef::device),
        [id, "modules", below] => Ok(TwinRef::module(device(id)?, module(below)?)),
        _ => Err(Refusal::AddressNotFound),
    }
}

/// What a hub offers to its devices over HTTPS, and what other services of Azure offer beside a hub, neither of which
/// is built: its name. Those who ask for it have credentials that this door does not read, so they are told before a
/// token is looked at.
#[must_use]
pub fn not_of_services(segments: &[String]) -> Option<&'static str> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["devices", _, "files", ..] => Some("file upload"),
        ["devices", _, "messages", ..] | ["devices", _, "modules", _, "messages", ..] => {
            Some("what a device sends and receives over HTTPS")
        }
        ["enrollments" | "enrollmentGroups" | "registrations", ..] | [_, "registrations", _, ..] => {
            Some("the Device Provisioning Service")
        }
        ["certificates", ..] => Some("the management of certificates"),
        ["subscriptions", ..] => Some("the management API of Azure"),
        _ => None,
    }
}

/// The rows that are not built: methods, name, and the right to read and to write.
fn missing(method: &str, segments: &[&str]) -> Result<Operation, Refusal> {
    use Right::{RegistryRead, RegistryWrite, ServiceConnect};
    let (methods, name, read, write): (&[&str], _, _, _) = match segments {
        ["devices"] => (&[], "devices", RegistryRead, RegistryWrite),
        ["devices", _, "modules"] | ["devices", _, "modules", _] => (&[], "modules", RegistryRead, RegistryWrite),
        ["devices", _, "commands"] => (&["DELETE"], "purging commands", ServiceConnect, ServiceConnect),
        ["devices", _, "applyConfigurationContent"] => {
            (&["POST"], "applying Edge content", RegistryWrite, RegistryWrite)
        }
        ["devices", _] => (&[], "devices", RegistryRead, RegistryWrite),
        ["twins", _, "methods"] | ["twins", _, "modules", _, "methods"] => {
            (&[], "direct methods", ServiceConnect, ServiceConnect)
        }
        ["twins", _] | ["twins", _, "modules", _] => (&[], "twins", ServiceConnect, ServiceConnect),
        ["digitaltwins", _] => (&["GET", "PATCH"], "a digital twin", ServiceConnect, ServiceConnect),
        ["digitaltwins", _, "commands", _] | ["digitaltwins", _, "components", _, "commands", _] => {
            (&["POST"], "a digital twin's command", ServiceConnect, ServiceConnect)
        }
        ["configurations"] | ["configurations", _] => (&[], "configurations", RegistryRead, RegistryWrite),
        ["statistics", "devices" | "service"] => (&[], "statistics", RegistryRead, RegistryWrite),
        ["jobs", "create"] => (&["POST"], "an import or export job", RegistryWrite, RegistryWrite),
        ["jobs", "v2", _] | ["jobs", "v2", _, "cancel"] => (&[], "jobs", ServiceConnect, ServiceConnect),
        ["jobs"] => (&["GET"], "the list of import and export jobs", RegistryWrite, RegistryWrite),
        ["jobs", _] => (&["GET", "DELETE"], "an import or export job", RegistryWrite, RegistryWrite),
        ["twins", _, "streams", _] | ["twins", _, "modules", _, "streams", _] => {
            (&["POST"], "a device stream", ServiceConnect, ServiceConnect)
        }
        ["messages", "deviceBound" | "devicebound"] => {
            (&["POST"], "a cloud-to-device message", ServiceConnect, ServiceConnect)
        }
        ["messages", "serviceBound", "filenotifications"] => {
            (&["GET"], "notifications of uploaded files", ServiceConnect, ServiceConnect)
        }
        ["messages", "serviceBound", "filenotifications", _] => {
            (&["DELETE"], "notifications of uploaded files", ServiceConnect, ServiceConnect)
        }
        ["messages", "serviceBound", "filenotifications", _, "abandon"] => {
            (&["POST"], "notifications of uploaded files", ServiceConnect, ServiceConnect)
        }
        ["messages", "serviceBound", "feedback"] => (&["GET"], "feedback", ServiceConnect, ServiceConnect),
        ["messages", "serviceBound", "feedback", _] => (&["DELETE"], "feedback", ServiceConnect, ServiceConnect),
        ["messages", "serviceBound", "feedback", _, "abandon"] => {
            (&["POST"], "feedback", ServiceConnect, ServiceConnect)
        }
        _ => return Err(Refusal::AddressNotFound),
    };
    match method {
        _ if !methods.contains(&method) => Err(Refusal::MethodNotAllowed),
        "GET" => Ok(Operation::Missing(name, read)),
        _ => Ok(Operation::Missing(name, write)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> Result<Operation, Refusal> {
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Operation::of(method, &segments)
    }

    #[test]
    fn what_is_built_is_found_with_its_right() {
        let id = || DeviceId::new("d1").unwrap();
        let below = || ModuleId::new("$edgeHub").unwrap();
        let own = || TwinRef::device(id());
        let query = || DeviceId::new("query").unwrap();
        let configuration = || ConfigurationId::new("c").unwrap();
        let job = || JobId::new("j").unwrap();
        for (method, path, operation, right) in [
            ("GET", "/devices", Operation::ListDevices, Right::RegistryRead),
            ("GET", "/devices/d1", Operation::GetDevice(id()), Right::RegistryRead),
            ("PUT", "/devices/d1", Operation::PutDevice(id()), Right::RegistryWrite),
            ("DELETE", "/devices/d1", Operation::DeleteDevice(id()), Right::RegistryWrite),
            ("POST", "/devices", Operation::Bulk, Right::RegistryWrite),
            ("GET", "/configurations", Operation::ListConfigurations, Right::RegistryRead),
            ("POST", "/configurations/testQueries", Operation::TestQueries, Right::RegistryRead),
            ("GET", "/configurations/c", Operation::GetConfiguration(configuration()), Right::RegistryRead),
            ("PUT", "/configurations/c", Operation::PutConfiguration(configuration()), Right::RegistryWrite),
            ("DELETE", "/configurations/c", Operation::DeleteConfiguration(configuration()), Right::RegistryWrite),
            ("GET", "/jobs/v2/query", Operation::ListJobs, Right::ServiceConnect),
            ("GET", "/jobs/v2/j", Operation::GetJob(job()), Right::ServiceConnect),
            ("PUT", "/jobs/v2/j", Operation::PutJob(job()), Right::ServiceConnect),
            ("POST", "/jobs/v2/j/cancel", Operation::CancelJob(job()), Right::ServiceConnect),
            ("GET", "/statistics/devices", Operation::DeviceStatistics, Right::RegistryRead),
            ("GET", "/statistics/service", Operation::ServiceStatistics, Right::RegistryRead),
            ("POST", "/twins/d1/methods", Operation::CallMethod(own()), Right::ServiceConnect),
            ("POST", "/devices/query", Operation::Query, Right::ServiceConnect),
            ("GET", "/devices/query", Operation::GetDevice(query()), Right::RegistryRead),
            ("GET", "/devices/d1/modules", Operation::ListModules(id()), Right::RegistryRead),
            ("GET", "/devices/d1/modules/$edgeHub", Operation::GetModule(id(), below()), Right::RegistryRead),
            ("PUT", "/devices/d1/modules/$edgeHub", Operation::PutModule(id(), below()), Right::RegistryWrite),
            ("DELETE", "/devices/d1/modules/$edgeHub", Operation::DeleteModule(id(), below()), Right::RegistryWrite),
            ("GET", "/twins/d1", Operation::GetTwin(own()), Right::ServiceConnect),
            ("PATCH", "/twins/d1", Operation::PatchTwin(own()), Right::ServiceConnect),
            ("PUT", "/twins/d1", Operation::ReplaceTwin(own()), Right::ServiceConnect),
            (
                "PATCH",
                "/twins/d1/modules/$edgeHub",
                Operation::PatchTwin(TwinRef::module(id(), below())),
                Right::ServiceConnect,
            ),
        ] {
            let found = of(method, path).unwrap();
            assert_eq!((found.right(), found), (right, operation), "{method} {path}");
        }
    }

    #[test]
    fn every_other_row_of_the_table_is_known_and_nothing_else_is() {
        for (method, path) in [
            ("DELETE", "/devices/d1/commands"),
            ("POST", "/devices/d1/applyConfigurationContent"),
            ("GET", "/digitaltwins/d1"),
            ("POST", "/digitaltwins/d1/components/c/commands/x"),
            ("POST", "/jobs/create"),
            ("GET", "/jobs"),
            ("DELETE", "/jobs/j1"),
            ("GET", "/messages/serviceBound/feedback"),
            ("POST", "/messages/serviceBound/feedback/x/abandon"),
            ("GET", "/messages/serviceBound/filenotifications"),
            ("POST", "/messages/devicebound"),
            ("POST", "/twins/d1/modules/m1/streams/s"),
        ] {
            assert!(matches!(of(method, path), Ok(Operation::Missing(..))), "{method} {path}");
        }
        for (method, path, refusal) in [
            ("GET", "/", Refusal::AddressNotFound),
            ("GET", "/_geminid/faults", Refusal::AddressNotFound),
            ("GET", "/devices/a/b", Refusal::AddressNotFound),
            ("POST", "/twins/d1", Refusal::MethodNotAllowed),
            ("DELETE", "/twins/d1/modules/m1", Refusal::MethodNotAllowed),
            ("POST", "/devices/d1/modules/m1", Refusal::MethodNotAllowed),
            ("GET", "/twins/d1/other/m1", Refusal::AddressNotFound),
            ("PUT", "/twins/d1/modules", Refusal::AddressNotFound),
            ("PATCH", "/devices/d1", Refusal::MethodNotAllowed),
            ("DELETE", "/devices", Refusal::MethodNotAllowed),
            ("DELETE", "/jobs/v2/j1", Refusal::MethodNotAllowed),
        ] {
            assert_eq!(of(method, path), Err(refusal), "{method} {path}");
        }
        for (path, known) in [
            ("/devices/d1/files", true),
            ("/devices/d1/modules/m1/messages/events", true),
            ("/0ne00000000/registrations/d1/register", true),
            ("/devices/d1", false),
            ("/devices/d1/modules/m1", false),
            ("/devices/registrations", false),
            ("/", false),
        ] {
            let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            assert_eq!(not_of_services(&segments).is_some(), known, "{path}");
        }
        for path in ["/twins/a b", "/twins/a/modules/b c", "/devices/a/modules/b c"] {
            assert_eq!(of("GET", path).unwrap_err().code(), "ArgumentInvalid", "{path}");
        }
    }
}
