//! Modules: identities beneath a device, each with a twin of its own (`iot-hub.md` 2.5).
//!
//! Invariant: a module is found only while its device is enabled; no client makes one whose id begins with `$`.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::error::Refusal;
use super::super::identity::{AuthenticationSpec, Identity, IdentitySpec, Random, Status};
use super::super::if_match::IfMatch;
use super::super::twin_record::{TwinRecord, never, tick};
use super::{Change, Device, Registry, check_identity_etag};
use crate::twin::{DeviceId, ModuleId, TwinRef};

/// The most modules of a device (`iot-hub.md` section 4).
const MODULES_MAX: usize = 50;
/// The modules that come with an IoT Edge device, and by whom they are managed (`iot-hub.md` 2.5).
pub(super) const OF_EDGE: [&str; 2] = ["$edgeAgent", "$edgeHub"];
const EDGE_MANAGER: &str = "iotEdge";

impl Registry {
    /// All modules of a device, by id; empty when there is no such device.
    #[must_use]
    pub fn modules_of(&self, device: &DeviceId) -> Vec<Arc<Device>> {
        // Keys are `device/module`, and no id holds a slash.
        let modules = self.modules.after(Some(&format!("{device}/")));
        modules.take_while(|module| module.identity.device == *device).collect()
    }

    /// All modules of a device, as its service asks for them (`iot-hub.md` 2.2).
    ///
    /// # Errors
    /// [`Refusal::ModuleUnauthorized`] when the device is missing or disabled.
    pub fn list_modules(&self, device: &DeviceId) -> Result<Vec<Arc<Device>>, Refusal> {
        self.enabled(device)?;
        Ok(self.modules_of(device))
    }

    /// One module's identity.
    ///
    /// # Errors
    /// [`Refusal::ModuleUnauthorized`] when the device is missing or disabled, [`Refusal::ModuleNotFound`].
    pub fn module(&self, device: &DeviceId, module: &ModuleId) -> Result<Arc<Device>, Refusal> {
        self.enabled(device)?;
        let twin = TwinRef::module(device.clone(), module.clone());
        self.find(&twin).ok_or(Refusal::ModuleNotFound(twin))
    }

    /// Creates or replaces a module's identity, by the rules of a device's (`iot-hub.md` 2.4).
    ///
    /// # Errors
    /// [`Refusal::ModuleUnauthorized`], [`Refusal::ModuleAlreadyExists`], [`Refusal::ModuleNotFound`],
    /// [`Refusal::IdentityChanged`], [`Refusal::TooManyModules`], [`Refusal::TooManyDevices`], or
    /// [`Refusal::ArgumentInvalid`] for a new id that begins with `$`.
    pub fn put_module(
        &mut self,
        device: &DeviceId,
        module: &ModuleId,
        spec: IdentitySpec,
        if_match: &IfMatch,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        match (self.module(device, module), if_match) {
            (Ok(_), IfMatch::Absent) => {
                Err(Refusal::ModuleAlreadyExists(TwinRef::module(device.clone(), module.clone())))
            }
            (Err(Refusal::ModuleNotFound(_)), IfMatch::Absent) => {
                // A module made singly has dates of year 1 in its twin (`iot-hub.md` 1.2).
                self.create_module(device, module, spec, TwinRecord::new(never()), random, now)
            }
            (Err(refusal), _) => Err(refusal),
            (Ok(before), _) => {
                check_identity_etag(&before, if_match)?;
                self.replace_module(&before, spec, random, now)
            }
        }
    }

    /// Deletes a module with its twin. The `If-Match` must be there (`iot-hub.md` 2.4).
    ///
    /// # Errors
    /// [`Refusal::EtagMissing`], [`Refusal::ModuleUnauthorized`], [`Refusal::ModuleNotFound`] or
    /// [`Refusal::IdentityChanged`].
    pub fn delete_module(
        &mut self,
        device: &DeviceId,
        module: &ModuleId,
        if_match: &IfMatch,
    ) -> Result<Change, Refusal> {
        if *if_match == IfMatch::Absent {
            return Err(Refusal::EtagMissing);
        }
        let found = self.module(device, module)?;
        check_identity_etag(&found, if_match)?;
        Ok(self.removed(found.identity.twin_ref()))
    }

    /// Makes a module of a device that is there.
    pub(super) fn create_module(
        &mut self,
        device: &DeviceId,
        module: &ModuleId,
        spec: IdentitySpec,
        twin: TwinRecord,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        spec.check()?;
        if module.as_str().starts_with('$') {
            return Err(Refusal::ArgumentInvalid("the id of a new module does not begin with $".to_owned()));
        }
        if self.modules_of(device).len() >= MODULES_MAX {
            return Err(Refusal::TooManyModules(MODULES_MAX));
        }
        self.check_room(1)?;
        let generation = self.next_generation(now);
        let identity = Identity::new(device.clone(), Some(module.clone()), generation, spec, random);
        Ok(self.changed(Device { identity: identity.into(), twin, change: 0 }))
    }

    /// Replaces a module's identity.
    pub(super) fn replace_module(
        &mut self,
        before: &Device,
        spec: IdentitySpec,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        spec.check()?;
        let mut after = before.clone();
        Arc::make_mut(&mut after.identity).replace(spec, random, tick(now));
        Ok(self.changed(after))
    }

    /// Makes the modules of an IoT Edge device that are not there yet. Whoever calls this made sure of the room.
    pub(super) fn create_edge_modules(&mut self, device: &DeviceId, random: Random<'_>, now: Timestamp) {
        for name in OF_EDGE {
            let module = ModuleId::new(name).expect("the names of Edge's own modules are ids");
            if self.find(&TwinRef::module(device.clone(), module.clone())).is_some() {
                continue;
            }
            let spec = IdentitySpec {
                authentication: AuthenticationSpec::None,
                managed_by: Some(EDGE_MANAGER.to_owned()),
                ..IdentitySpec::default()
            };
            let generation = self.next_generation(now);
            let identity = Identity::new(device.clone(), Some(module), generation, spec, random);
            self.changed(Device { identity: identity.into(), twin: TwinRecord::new(now), change: 0 });
        }
    }

    /// Whether modules of `device` can be asked for: a hub with tokens of policies answers 401 where the device is
    /// missing or disabled (`iot-hub.md` 2.5).
    fn enabled(&self, device: &DeviceId) -> Result<(), Refusal> {
        match self.devices.get(device.as_str()).map(|found| found.identity.status) {
            Some(Status::Enabled) => Ok(()),
            Some(Status::Disabled) | None => Err(Refusal::ModuleUnauthorized(device.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kept;
    use super::*;
    use crate::twin::{MergePatch, Object, Value};

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn below(text: &str) -> ModuleId {
        ModuleId::new(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// A registry with the device `d`.
    fn registry(spec: IdentitySpec) -> Registry {
        let mut registry = Registry::default();
        registry.put_identity(&id("d"), spec, &IfMatch::Absent, &mut |bytes| bytes.fill(1), at(0)).unwrap();
        registry
    }

    fn put(registry: &mut Registry, module: &str, if_match: &IfMatch) -> Result<Arc<Device>, Refusal> {
        let mut random = |bytes: &mut [u8]| bytes.fill(2);
        let spec = IdentitySpec::default();
        let change = registry.put_module(&id("d"), &below(module), spec, if_match, &mut random, at(1));
        change.map(|change| change.after.unwrap())
    }

    fn code<T>(result: Result<T, Refusal>) -> &'static str {
        result.map_or_else(|refusal| refusal.code(), |_| "")
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.modules_of(&id("d")).iter().map(|module| module.identity.twin_ref().to_string()).collect()
    }

    #[test]
    fn a_module_has_keys_counters_and_a_twin_of_its_own() {
        let mut registry = registry(IdentitySpec::default());
        let device = registry.device(&id("d")).unwrap();
        let module = put(&mut registry, "m", &IfMatch::Absent).unwrap();
        assert_ne!(module.identity.authentication, device.identity.authentication);
        assert_ne!(module.identity.generation, device.identity.generation);
        assert_eq!((module.twin.etag_number, module.twin.version, module.twin.desired.version), (1, 2, 1));
        let twin = TwinRef::module(id("d"), below("m"));
        let tags = Object::from([("a".to_owned(), Value::from(1))]);
        let patch = MergePatch { tags: Some(tags.clone()), desired: Some(tags.clone()) };
        registry.patch_twin(&twin, &patch, &IfMatch::Absent, at(2)).unwrap();
        registry.report(&twin, &tags, at(3)).unwrap();
        registry.note_activity(&twin, true, at(4));
        let after = registry.record(&twin).unwrap();
        assert_eq!((after.twin.etag_number, after.twin.version), (2, 4));
        assert!(after.identity.connected);
        assert_eq!(registry.device(&id("d")), Ok(device), "the device's own twin did not move");
        let again = put(&mut registry, "m", &IfMatch::Any).unwrap();
        assert_eq!(again.identity.etag_number, module.identity.etag_number + 1);
        assert_eq!(again.twin, after.twin, "an identity's write leaves the twin alone");
    }

    #[test]
    fn modules_die_with_their_device() {
        let mut registry = registry(IdentitySpec::default());
        put(&mut registry, "m", &IfMatch::Absent).unwrap();
        registry.take_log();
        registry.delete_identity(&id("d"), &IfMatch::Any).unwrap();
        let name = |kept: &Kept| match kept {
            Kept::Twin(change) => change.twin.to_string(),
            Kept::Configuration { .. } | Kept::Job { .. } | Kept::JobRows { .. } => "no twin".to_owned(),
        };
        let deleted: Vec<String> = registry.take_log().iter().map(name).collect();
        assert_eq!(deleted, ["d/m", "d"], "the log deletes both, in one batch");
        let mut random = |bytes: &mut [u8]| bytes.fill(1);
        registry.put_identity(&id("d"), IdentitySpec::default(), &IfMatch::Absent, &mut random, at(5)).unwrap();
        assert_eq!(names(&registry), Vec::<String>::new(), "the next device of this name has none");
        let twin = TwinRef::module(id("d"), below("m"));
        assert_eq!(registry.record(&twin), Err(Refusal::DeviceNotFound(id("d"))));
    }

    #[test]
    fn if_match_on_modules_follows_the_column_of_identities() {
        let current = |registry: &Registry| registry.module(&id("d"), &below("m")).unwrap().identity.etag();
        let plain = || registry(IdentitySpec::default());
        for (header, on_existing, on_missing, delete, delete_missing) in [
            (None, "ModuleAlreadyExistsOnDevice", "", "PreconditionFailed", "PreconditionFailed"),
            (Some("*"), "", "ModuleNotFound", "", "ModuleNotFound"),
            (Some("\"*\""), "", "ModuleNotFound", "", "ModuleNotFound"),
            (Some("current"), "", "ModuleNotFound", "", "ModuleNotFound"),
            (Some("\"current\""), "", "ModuleNotFound", "", "ModuleNotFound"),
            (Some("\"MQ==\""), "PreconditionFailed", "ModuleNotFound", "PreconditionFailed", "ModuleNotFound"),
            (Some("MQ=="), "PreconditionFailed", "ModuleNotFound", "PreconditionFailed", "ModuleNotFound"),
        ] {
            let mut existing = plain();
            put(&mut existing, "m", &IfMatch::Absent).unwrap();
            let text = header.map(|header| header.replace("current", &current(&existing)));
            let if_match = IfMatch::parse(text.as_deref());
            assert_eq!(code(existing.clone().delete_module(&id("d"), &below("m"), &if_match)), delete, "{header:?}");
            assert_eq!(code(put(&mut existing, "m", &if_match)), on_existing, "PUT {header:?}");
            assert_eq!(code(put(&mut plain(), "m", &if_match)), on_missing, "PUT of a missing one {header:?}");
            let gone = plain().delete_module(&id("d"), &below("m"), &if_match);
            assert_eq!(code(gone), delete_missing, "DELETE of a missing one {header:?}");
        }
    }

    #[test]
    fn a_missing_or_disabled_device_has_no_modules_to_ask_for() {
        let mut registry = registry(IdentitySpec::default());
        put(&mut registry, "m", &IfMatch::Absent).unwrap();
        let disabled = IdentitySpec { status: Status::Disabled, ..IdentitySpec::default() };
        registry.put_identity(&id("d"), disabled, &IfMatch::Any, &mut |bytes| bytes.fill(1), at(1)).unwrap();
        for device in ["d", "gone"] {
            let refused = Err(Refusal::ModuleUnauthorized(id(device)));
            assert_eq!(registry.list_modules(&id(device)).map(|_| ()), refused);
            assert_eq!(registry.module(&id(device), &below("m")).map(|_| ()), refused);
            assert_eq!(registry.delete_module(&id(device), &below("m"), &IfMatch::Any).map(|_| ()), refused);
        }
        assert_eq!(code(put(&mut registry, "m", &IfMatch::Any)), "IotHubUnauthorizedAccess");
        let twin = TwinRef::module(id("d"), below("m"));
        assert!(registry.record(&twin).is_ok(), "its twin can be read");
    }

    #[test]
    fn a_device_has_at_most_fifty_modules_and_none_of_a_client_begins_with_a_dollar() {
        let mut registry = registry(IdentitySpec::default());
        for number in 0..MODULES_MAX {
            put(&mut registry, &format!("m{number:02}"), &IfMatch::Absent).unwrap();
        }
        assert_eq!(code(put(&mut registry, "more", &IfMatch::Absent)), "TooManyModulesOnDevice");
        assert_eq!(code(put(&mut registry, "m00", &IfMatch::Any)), "", "what is there can be written");
        assert_eq!(code(put(&mut registry, "$more", &IfMatch::Absent)), "ArgumentInvalid");
        assert_eq!(names(&registry).len(), MODULES_MAX);
    }

    #[test]
    fn an_edge_device_comes_with_its_two_modules_and_a_scope() {
        let edge = || IdentitySpec { iot_edge: true, ..IdentitySpec::default() };
        let mut random = |bytes: &mut [u8]| bytes.fill(3);
        let mut made = registry(edge());
        assert_eq!(names(&made), ["d/$edgeAgent", "d/$edgeHub"]);
        let agent = made.module(&id("d"), &below("$edgeAgent")).unwrap();
        assert_eq!(agent.identity.authentication.as_str(), "none");
        assert_eq!(agent.identity.managed_by.as_deref(), Some("iotEdge"));
        let device = made.device(&id("d")).unwrap();
        let scope = format!("ms-azure-iot-edge://d-{}", device.identity.generation);
        assert_eq!(device.identity.device_scope(), Some(scope.clone()));
        // A whole identity sent back.
        let back = IdentitySpec { device_scope: Some(scope), ..edge() };
        assert!(made.put_identity(&id("d"), back, &IfMatch::Any, &mut random, at(1)).is_ok());
        assert_eq!(names(&made).len(), 2);
        for refused in [
            IdentitySpec { device_scope: Some("ms-azure-iot-edge://x-1".to_owned()), ..edge() },
            IdentitySpec::default(),
            IdentitySpec { authentication: AuthenticationSpec::None, ..edge() },
        ] {
            let before = made.device(&id("d"));
            let result = made.put_identity(&id("d"), refused, &IfMatch::Any, &mut random, at(2));
            assert_eq!(code(result), "NotImplemented");
            assert_eq!(made.device(&id("d")), before);
        }
        let mut plain = registry(IdentitySpec::default());
        assert_eq!(names(&plain), Vec::<String>::new());
        plain.put_identity(&id("d"), edge(), &IfMatch::Any, &mut random, at(1)).unwrap();
        assert_eq!(names(&plain).len(), 2, "a device that becomes one gets them too");
    }
}
