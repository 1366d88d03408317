//! Which operation an address and a method mean, and the right it needs (`iot-hub.md` 2.2).
//!
//! Invariant: every row of that table is known here; what is not built says so, and only what is in no row is unknown.

use super::auth::Right;
use super::error::Refusal;
use crate::twin::DeviceId;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// GET `/devices`.
    ListDevices,
    /// GET `/devices/{id}`.
    GetDevice(DeviceId),
    /// PUT `/devices/{id}`.
    PutDevice(DeviceId),
    /// DELETE `/devices/{id}`.
    DeleteDevice(DeviceId),
    /// GET `/twins/{id}`.
    GetTwin(DeviceId),
    /// PATCH `/twins/{id}`.
    PatchTwin(DeviceId),
    /// PUT `/twins/{id}`.
    ReplaceTwin(DeviceId),
    /// POST `/twins/{id}/methods`.
    CallMethod(DeviceId),
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
            ("POST", ["devices"]) => Ok(Self::Missing("the bulk operation on devices", Right::RegistryWrite)),
            ("POST", ["devices", "query"]) => Ok(Self::Query),
            ("GET", ["devices", id]) => device(id).map(Self::GetDevice),
            ("PUT", ["devices", id]) => device(id).map(Self::PutDevice),
            ("DELETE", ["devices", id]) => device(id).map(Self::DeleteDevice),
            ("GET", ["twins", id]) => device(id).map(Self::GetTwin),
            ("PATCH", ["twins", id]) => device(id).map(Self::PatchTwin),
            ("PUT", ["twins", id]) => device(id).map(Self::ReplaceTwin),
            ("POST", ["twins", id, "methods"]) => device(id).map(Self::CallMethod),
            (method, segments) => missing(method, segments),
        }
    }

    /// The right it needs.
    #[must_use]
    pub const fn right(&self) -> Right {
        match self {
            Self::ListDevices | Self::GetDevice(_) => Right::RegistryRead,
            Self::PutDevice(_) | Self::DeleteDevice(_) => Right::RegistryWrite,
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

/// The rows that are not built: methods, name, and the right to read and to write.
fn missing(method: &str, segments: &[&str]) -> Result<Operation, Refusal> {
    use Right::{RegistryRead, RegistryWrite, ServiceConnect};
    let (methods, name, read, write): (&[&str], _, _, _) = match segments {
        ["devices"] => (&["GET", "POST"], "devices", RegistryRead, RegistryWrite),
        ["devices", _, "modules"] => (&["GET"], "the list of modules", RegistryRead, RegistryWrite),
        ["devices", _, "modules", _] => (&["GET", "PUT", "DELETE"], "a module identity", RegistryRead, RegistryWrite),
        ["devices", _, "commands"] => (&["DELETE"], "purging commands", ServiceConnect, ServiceConnect),
        ["devices", _, "applyConfigurationContent"] => {
            (&["POST"], "applying Edge content", RegistryWrite, RegistryWrite)
        }
        ["devices", _] => (&[], "devices", RegistryRead, RegistryWrite),
        ["twins", _, "modules", _] => (&["GET", "PUT", "PATCH"], "a module twin", ServiceConnect, ServiceConnect),
        ["twins", _, "modules", _, "methods"] => (&["POST"], "a module's method", ServiceConnect, ServiceConnect),
        ["twins", _] | ["twins", _, "methods"] => (&[], "twins", ServiceConnect, ServiceConnect),
        ["digitaltwins", _] => (&["GET", "PATCH"], "a digital twin", ServiceConnect, ServiceConnect),
        ["digitaltwins", _, "commands", _] | ["digitaltwins", _, "components", _, "commands", _] => {
            (&["POST"], "a digital twin's command", ServiceConnect, ServiceConnect)
        }
        ["configurations"] => (&["GET"], "the list of configurations", RegistryRead, RegistryWrite),
        ["configurations", "testQueries"] => (&["POST"], "testing queries", RegistryRead, RegistryRead),
        ["configurations", _] => (&["GET", "PUT", "DELETE"], "a configuration", RegistryRead, RegistryWrite),
        ["statistics", "devices" | "service"] => (&["GET"], "statistics", RegistryRead, RegistryWrite),
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
        let query = || DeviceId::new("query").unwrap();
        for (method, path, operation, right) in [
            ("GET", "/devices", Operation::ListDevices, Right::RegistryRead),
            ("GET", "/devices/d1", Operation::GetDevice(id()), Right::RegistryRead),
            ("PUT", "/devices/d1", Operation::PutDevice(id()), Right::RegistryWrite),
            ("DELETE", "/devices/d1", Operation::DeleteDevice(id()), Right::RegistryWrite),
            ("POST", "/twins/d1/methods", Operation::CallMethod(id()), Right::ServiceConnect),
            ("POST", "/devices/query", Operation::Query, Right::ServiceConnect),
            ("GET", "/devices/query", Operation::GetDevice(query()), Right::RegistryRead),
            ("GET", "/twins/d1", Operation::GetTwin(id()), Right::ServiceConnect),
            ("PATCH", "/twins/d1", Operation::PatchTwin(id()), Right::ServiceConnect),
            ("PUT", "/twins/d1", Operation::ReplaceTwin(id()), Right::ServiceConnect),
        ] {
            let found = of(method, path).unwrap();
            assert_eq!((found.right(), found), (right, operation), "{method} {path}");
        }
    }

    #[test]
    fn every_other_row_of_the_table_is_known_and_nothing_else_is() {
        for (method, path) in [
            ("POST", "/devices"),
            ("GET", "/devices/d1/modules"),
            ("PUT", "/devices/d1/modules/m1"),
            ("DELETE", "/devices/d1/commands"),
            ("POST", "/devices/d1/applyConfigurationContent"),
            ("PATCH", "/twins/d1/modules/m1"),
            ("POST", "/twins/d1/modules/m1/methods"),
            ("GET", "/digitaltwins/d1"),
            ("POST", "/digitaltwins/d1/components/c/commands/x"),
            ("GET", "/configurations"),
            ("POST", "/configurations/testQueries"),
            ("PUT", "/configurations/c1"),
            ("GET", "/statistics/devices"),
            ("GET", "/statistics/service"),
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
            ("PATCH", "/devices/d1", Refusal::MethodNotAllowed),
            ("DELETE", "/devices", Refusal::MethodNotAllowed),
            ("DELETE", "/jobs/v2/j1", Refusal::MethodNotAllowed),
        ] {
            assert_eq!(of(method, path), Err(refusal), "{method} {path}");
        }
        assert_eq!(of("GET", "/twins/a b").unwrap_err().code(), "ArgumentInvalid");
    }
}
