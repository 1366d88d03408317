//! Which operation an address and a method mean, and the right it needs (`iot-hub.md` 2.2).
//!
//! Invariant: every row of that table is known here; what is not built says so, and only what is in no row is unknown.

use super::auth::Right;
use super::error::Refusal;
use crate::twin::{DeviceId, ModuleId, TwinRef};

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
            (method, segments) => missing(method, segments),
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
            | Self::ServiceStatistics => Right::RegistryRead,
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
const fn is_twin(segments: &[&str]) -> bool {
    matches!(segments, [_] | [_, _, _])
}

fn twin_ref(segments: &[&str]) -> Result<TwinRef, Refusal> {
    match segments {
        [id] => device(id).map(TwinRef::device),
        [id, "modules", below] => Ok(TwinRef::module(device(id)?, module(below)?)),
        _ => Err(Refusal::AddressNotFound),
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
        ["configurations"] => (&["GET"], "the list of configurations", RegistryRead, RegistryWrite),
        ["configurations", "testQueries"] => (&["POST"], "testing queries", RegistryRead, RegistryRead),
        ["configurations", _] => (&["GET", "PUT", "DELETE"], "a configuration", RegistryRead, RegistryWrite),
        ["statistics", "devices" | "service"] => (&[], "statistics", RegistryRead, RegistryWrite),
        ["jobs", "create"] => (&["POST"], "an import or export job", RegistryWrite, RegistryWrite),
        ["jobs", "v2", "query"] => (&["GET"], "the list of jobs", ServiceConnect, ServiceConnect),
        ["jobs", "v2", _] => (&["GET", "PUT"], "a job", ServiceConnect, ServiceConnect),
        ["jobs", "v2", _, "cancel"] => (&["POST"], "cancelling a job", ServiceConnect, ServiceConnect),
        ["jobs"] => (&["GET"], "the list of import and export jobs", RegistryWrite, RegistryWrite),
        ["jobs", _] => (&["GET", "DELETE"], "an import or export job", RegistryWrite, RegistryWrite),
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
        for (method, path, operation, right) in [
            ("GET", "/devices", Operation::ListDevices, Right::RegistryRead),
            ("GET", "/devices/d1", Operation::GetDevice(id()), Right::RegistryRead),
            ("PUT", "/devices/d1", Operation::PutDevice(id()), Right::RegistryWrite),
            ("DELETE", "/devices/d1", Operation::DeleteDevice(id()), Right::RegistryWrite),
            ("POST", "/devices", Operation::Bulk, Right::RegistryWrite),
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
            ("GET", "/configurations"),
            ("POST", "/configurations/testQueries"),
            ("PUT", "/configurations/c1"),
            ("POST", "/jobs/create"),
            ("GET", "/jobs"),
            ("DELETE", "/jobs/j1"),
            ("GET", "/jobs/v2/query"),
            ("PUT", "/jobs/v2/j1"),
            ("POST", "/jobs/v2/j1/cancel"),
            ("GET", "/messages/serviceBound/feedback"),
            ("POST", "/messages/serviceBound/feedback/x/abandon"),
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
        for path in ["/twins/a b", "/twins/a/modules/b c", "/devices/a/modules/b c"] {
            assert_eq!(of("GET", path).unwrap_err().code(), "ArgumentInvalid", "{path}");
        }
    }
}
