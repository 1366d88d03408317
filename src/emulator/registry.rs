//! The devices and modules of the embedded hub, and the rules by which they are read and written.
//!
//! Invariant: sans I/O: time, randomness and the request are arguments, the answer is data. A refused write changes
//! nothing. Records are shared and never changed in place, so a reader keeps what it read. Every change is logged in
//! its order, and a module has a device.

mod bulk;
mod configurations;
mod job_rows;
mod jobs;
mod modules;
mod statistics;

use std::sync::Arc;

use jiff::Timestamp;

use self::configurations::Configurations;
use self::jobs::Jobs;
use super::configuration::{Configuration, ConfigurationId};
use super::error::Refusal;
use super::identity::{AuthenticationSpec, Identity, IdentitySpec, Random};
use super::if_match::IfMatch;
use super::job::{Job, JobId};
use super::records::Records;
use super::stored::Outline;
use super::twin_record::{TwinRecord, tick, ticks_since_year_one};
use crate::query::Source;
use crate::twin::{DeviceId, MergePatch, Object, TwinRef};

pub use bulk::{BulkError, BulkItem, BulkTwinWrite, ImportMode};
pub use configurations::{CONFIGURATIONS_MAX, Evaluation};
pub use job_rows::{JobRow, RowBatch};
pub use jobs::{JobProgress, JobsNext, MethodStep};
pub use statistics::Statistics;

/// The most devices of a list; also what a list without a usable `top` gives (`iot-hub.md` 2.2).
pub const LIST_MAX: usize = 1000;
/// The most devices and modules of a hub (`iot-hub.md` 6.3).
const IDENTITIES_MAX: usize = 1_000_000;

/// One registered device or module with its twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Who it is; a write of the twin shares it.
    pub identity: Arc<Identity>,
    /// Its twin, which lives and dies with the identity (`iot-hub.md` 2.3).
    pub twin: TwinRecord,
    /// The number of the registry's change that made this record; 0 for one read from the store.
    pub change: u64,
}

/// One change of the registry, in the order it must reach the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Counts from 1.
    pub number: u64,
    /// Whose record changed.
    pub twin: TwinRef,
    /// The record before; `None` when the device or module was created.
    pub before: Option<Arc<Device>>,
    /// The record now; `None` when the device or module was deleted.
    pub after: Option<Arc<Device>>,
    /// The patch of desired as it was sent, when the change is one: what the device is told (`iot-hub.md` 2.3). Other
    /// writes of desired are told by comparing the records.
    pub desired_patch: Option<Arc<Object>>,
}

/// What the store has to keep, in the order in which it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A record of a device or module.
    Twin(Change),
    /// A configuration; `None` when it was deleted.
    Configuration {
        /// Its id.
        id: ConfigurationId,
        /// It now.
        after: Option<Arc<Configuration>>,
    },
    /// A job; `None` when it was forgotten.
    Job {
        /// Its id.
        id: JobId,
        /// It now.
        after: Option<Arc<Job>>,
    },
    /// The rows of one step of a job.
    JobRows {
        /// Its number.
        number: u64,
        /// The rows; `None` when they were forgotten.
        rows: Option<Arc<RowBatch>>,
    },
}

/// All devices and modules of a hub, its configurations and its jobs.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    devices: Records,
    modules: Records,
    changes: u64,
    generation_last: u64,
    statistics: Statistics,
    configurations: Configurations,
    jobs: Jobs,
    log: Vec<Kept>,
}

impl Registry {
    /// Takes in a record as the store keeps it, which `outline` is of. The modules of a device come behind it.
    ///
    /// # Errors
    /// What is wrong with it, without its content: a module without its device.
    pub fn restore(&mut self, key: &str, record: Arc<[u8]>, outline: &Outline) -> Result<(), String> {
        let identity = &outline.identity;
        if identity.module.is_some() && !self.devices.contains(identity.device.as_str()) {
            return Err("the module has no device".to_owned());
        }
        self.generation_last = self.generation_last.max(identity.generation);
        if identity.module.is_some() {
            self.modules.insert_packed(key, record, outline.tags.as_ref());
        } else {
            self.devices.insert_packed(key, record, outline.tags.as_ref());
            self.statistics.follow(None, Some(identity));
        }
        Ok(())
    }

    /// The records that a query of `source` is about; `None` when there are none here.
    #[must_use]
    pub fn records(&self, source: Source) -> Option<&Records> {
        match source {
            Source::Devices => Some(&self.devices),
            Source::Modules => Some(&self.modules),
            Source::Jobs => None,
        }
    }

    /// How many changes were made since the start.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The changes since this was last asked, in their order. Whoever changes the registry takes them, to keep them.
    pub fn take_log(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.log)
    }

    /// One device.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`].
    pub fn device(&self, device: &DeviceId) -> Result<Arc<Device>, Refusal> {
        self.devices.get(device.as_str()).ok_or_else(|| Refusal::DeviceNotFound(device.clone()))
    }

    /// One device or module, as twins are asked for.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`], for a missing module too (`iot-hub.md` 2.3).
    pub fn record(&self, twin: &TwinRef) -> Result<Arc<Device>, Refusal> {
        self.find(twin).ok_or_else(|| Refusal::DeviceNotFound(twin.device.clone()))
    }

    /// As [`Registry::record`], of a twin that somebody will soon ask for again.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`].
    pub fn record_and_keep(&mut self, twin: &TwinRef) -> Result<Arc<Device>, Refusal> {
        let found = match &twin.module {
            None => self.devices.get_and_keep(twin.device.as_str()),
            Some(_) => self.modules.get_and_keep(&twin.to_string()),
        };
        found.ok_or_else(|| Refusal::DeviceNotFound(twin.device.clone()))
    }

    /// The first devices by id. A `top` outside 1 to 1000 is 1000; there is no paging (`iot-hub.md` 2.2).
    #[must_use]
    pub fn list(&self, top: Option<usize>) -> Vec<Arc<Device>> {
        let count = top.filter(|top| (1..=LIST_MAX).contains(top)).unwrap_or(LIST_MAX);
        self.devices.after(None).take(count).collect()
    }

    /// The devices behind `last` by id, or all.
    pub fn devices_after<'a>(&'a self, last: Option<&DeviceId>) -> impl Iterator<Item = Arc<Device>> + use<'a> {
        self.devices.after(last.map(DeviceId::as_str))
    }

    /// The modules behind `last` by device and id, or all.
    pub fn modules_after<'a>(&'a self, last: Option<&TwinRef>) -> impl Iterator<Item = Arc<Device>> + use<'a> {
        self.modules.after(last.map(ToString::to_string).as_deref())
    }

    /// Creates or replaces a device's identity. Without an `If-Match` it only creates, with one it only replaces
    /// (`iot-hub.md` 2.4). The twin of an existing device is not touched. An IoT Edge device gets its two modules.
    ///
    /// # Errors
    /// [`Refusal::DeviceAlreadyExists`], [`Refusal::DeviceNotFound`], [`Refusal::IdentityChanged`],
    /// [`Refusal::TooManyDevices`], [`Refusal::ArgumentInvalid`] for a reason that is too long, or
    /// [`Refusal::NotImplemented`] for a hierarchy of devices.
    pub fn put_identity(
        &mut self,
        id: &DeviceId,
        spec: IdentitySpec,
        if_match: &IfMatch,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        match (self.devices.get(id.as_str()), if_match) {
            (Some(_), IfMatch::Absent) => Err(Refusal::DeviceAlreadyExists(id.clone())),
            (None, IfMatch::Absent) => self.create_device(id, spec, None, random, now),
            (None, _) => Err(Refusal::DeviceNotFound(id.clone())),
            (Some(before), _) => {
                check_identity_etag(&before, if_match)?;
                self.replace_device(&before, spec, random, now)
            }
        }
    }

    /// Creates a device that has a twin already, as an import does.
    ///
    /// # Errors
    /// [`Refusal::DeviceAlreadyExists`] or [`Refusal::TooManyDevices`].
    pub fn create_with_twin(
        &mut self,
        id: &DeviceId,
        twin: TwinRecord,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        match self.devices.contains(id.as_str()) {
            true => Err(Refusal::DeviceAlreadyExists(id.clone())),
            false => self.create_device(id, IdentitySpec::default(), Some(twin), random, now),
        }
    }

    /// Deletes a device with its twin and its modules. The `If-Match` must be there (`iot-hub.md` 2.4).
    ///
    /// # Errors
    /// [`Refusal::EtagMissing`], [`Refusal::DeviceNotFound`] or [`Refusal::IdentityChanged`].
    pub fn delete_identity(&mut self, id: &DeviceId, if_match: &IfMatch) -> Result<Change, Refusal> {
        if *if_match == IfMatch::Absent {
            return Err(Refusal::EtagMissing);
        }
        check_identity_etag(&*self.device(id)?, if_match)?;
        Ok(self.delete_device(id))
    }

    /// Merges `patch` into a twin (`iot-hub.md` 2.3).
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`], [`Refusal::TwinChanged`], or [`Refusal::ArgumentInvalid`] when the result breaks
    /// a rule of `iot-hub.md` section 4.
    pub fn patch_twin(
        &mut self,
        twin: &TwinRef,
        patch: &MergePatch,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        let mut change = self.write_twin(twin, if_match, |before| before.patched(patch, now))?;
        change.desired_patch = patch.desired.clone().map(Arc::new);
        if let Some(Kept::Twin(logged)) = self.log.last_mut() {
            logged.desired_patch.clone_from(&change.desired_patch);
        }
        Ok(change)
    }

    /// Replaces tags and desired of a twin (`iot-hub.md` 2.3).
    ///
    /// # Errors
    /// As [`Registry::patch_twin`], and [`Refusal::ArgumentInvalid`] on a null.
    pub fn replace_twin(
        &mut self,
        twin: &TwinRef,
        whole: &MergePatch,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        self.write_twin(twin, if_match, |before| before.replaced(whole, now))
    }

    /// Merges what a device or module reports into its twin. Only the device's side calls this.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`], or [`Refusal::ArgumentInvalid`] when the result breaks a rule of `iot-hub.md`
    /// section 4.
    pub fn report(&mut self, twin: &TwinRef, patch: &Object, now: Timestamp) -> Result<Change, Refusal> {
        let mut after = Device::clone(&*self.record_and_keep(twin)?);
        after.twin = after.twin.reported(patch, now)?;
        Arc::make_mut(&mut after.identity).last_activity = Some(tick(now));
        Ok(self.changed(after))
    }

    /// Notes that a device or module did something, and whether it is connected now. Moves no counter
    /// (`iot-hub.md` 1.3) and is no change: it reaches the store with the record's next one, since after a restart
    /// nothing is connected.
    pub fn note_activity(&mut self, twin: &TwinRef, connected: bool, now: Timestamp) {
        let Some(record) = self.find(twin) else { return };
        let mut after = Device::clone(&record);
        let identity = Arc::make_mut(&mut after.identity);
        if identity.connected != connected {
            identity.connection_updated = Some(tick(now));
        }
        identity.connected = connected;
        identity.last_activity = Some(tick(now));
        self.insert(&Arc::new(after));
    }

    fn create_device(
        &mut self,
        id: &DeviceId,
        spec: IdentitySpec,
        twin: Option<TwinRecord>,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        check_device(&spec)?;
        if spec.device_scope.is_some() {
            return Err(foreign_scope());
        }
        let edge = spec.iot_edge;
        self.check_room(if edge { 1 + modules::OF_EDGE.len() } else { 1 })?;
        let generation = self.next_generation(now);
        let identity = Identity::new(id.clone(), None, generation, spec, random);
        let twin = twin.unwrap_or_else(|| TwinRecord::new(now));
        let change = self.changed(Device { identity: identity.into(), twin, change: 0 });
        if edge {
            self.create_edge_modules(id, random, now);
        }
        Ok(change)
    }

    fn replace_device(
        &mut self,
        before: &Device,
        spec: IdentitySpec,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        check_device(&spec)?;
        let mut after = before.clone();
        let (was_edge, edge) = (before.identity.iot_edge, spec.iot_edge);
        let scope = spec.device_scope.clone();
        Arc::make_mut(&mut after.identity).replace(spec, random, tick(now));
        if was_edge && !edge {
            return Err(Refusal::NotImplemented("turning an IoT Edge device into a plain one".to_owned()));
        }
        if scope.is_some() && scope != after.identity.device_scope() {
            return Err(foreign_scope());
        }
        if edge && !was_edge {
            self.check_room(modules::OF_EDGE.len())?;
        }
        let change = self.changed(after);
        if edge && !was_edge {
            self.create_edge_modules(&before.identity.device, random, now);
        }
        Ok(change)
    }

    fn delete_device(&mut self, id: &DeviceId) -> Change {
        for module in self.modules_of(id).iter().map(|module| module.identity.twin_ref()).collect::<Vec<_>>() {
            self.removed(module);
        }
        self.removed(TwinRef::device(id.clone()))
    }

    fn write_twin(
        &mut self,
        twin: &TwinRef,
        if_match: &IfMatch,
        write: impl FnOnce(&TwinRecord) -> Result<TwinRecord, Refusal>,
    ) -> Result<Change, Refusal> {
        let before = self.record_and_keep(twin)?;
        if !if_match.admits_twin(&before.twin.etag()) {
            return Err(Refusal::TwinChanged(twin.device.clone()));
        }
        let twin = write(&before.twin)?;
        Ok(self.changed(Device { identity: Arc::clone(&before.identity), twin, change: 0 }))
    }

    /// Makes a change that another registry made, without a trace in the log.
    pub fn follow(&mut self, change: &Change) {
        self.changes = self.changes.max(change.number);
        match &change.after {
            Some(record) => self.insert(record),
            None => self.take_out(&change.twin),
        };
    }

    fn find(&self, twin: &TwinRef) -> Option<Arc<Device>> {
        match &twin.module {
            None => self.devices.get(twin.device.as_str()),
            Some(_) => self.modules.get(&twin.to_string()),
        }
    }

    /// Puts a record in its place and gives what was there.
    fn insert(&mut self, record: &Arc<Device>) -> Option<Arc<Device>> {
        if record.identity.module.is_some() {
            return self.modules.insert(&record.identity.twin_ref().to_string(), record);
        }
        let before = self.devices.insert(record.identity.device.as_str(), record);
        self.statistics.follow(before.as_ref().map(|before| &*before.identity), Some(&record.identity));
        before
    }

    fn changed(&mut self, mut record: Device) -> Change {
        self.changes += 1;
        record.change = self.changes;
        let after = Arc::new(record);
        let before = self.insert(&after);
        self.logged(after.identity.twin_ref(), before, Some(after))
    }

    fn removed(&mut self, twin: TwinRef) -> Change {
        self.changes += 1;
        let before = self.take_out(&twin);
        self.logged(twin, before, None)
    }

    fn take_out(&mut self, twin: &TwinRef) -> Option<Arc<Device>> {
        if twin.module.is_some() {
            return self.modules.remove(&twin.to_string());
        }
        let before = self.devices.remove(twin.device.as_str());
        self.statistics.follow(before.as_ref().map(|before| &*before.identity), None);
        before
    }

    fn logged(&mut self, twin: TwinRef, before: Option<Arc<Device>>, after: Option<Arc<Device>>) -> Change {
        let change = Change { number: self.changes, twin, before, after, desired_patch: None };
        self.log.push(Kept::Twin(change.clone()));
        change
    }

    /// Logs what is no record.
    fn kept(&mut self, kept: Kept) {
        self.changes += 1;
        self.log.push(kept);
    }

    /// Whether `more` identities fit.
    fn check_room(&self, more: usize) -> Result<(), Refusal> {
        check_room(self.devices.len() + self.modules.len(), more)
    }

    /// The ticks of `now`, which a `generationId` is, but never a number that was given before.
    fn next_generation(&mut self, now: Timestamp) -> u64 {
        self.generation_last = ticks_since_year_one(now).max(self.generation_last + 1);
        self.generation_last
    }
}

fn check_room(identities: usize, more: usize) -> Result<(), Refusal> {
    if identities + more <= IDENTITIES_MAX { Ok(()) } else { Err(Refusal::TooManyDevices(IDENTITIES_MAX)) }
}

fn check_device(spec: &IdentitySpec) -> Result<(), Refusal> {
    spec.check()?;
    match spec.authentication {
        AuthenticationSpec::None => Err(Refusal::NotImplemented("a device without authentication".to_owned())),
        AuthenticationSpec::Sas(_) | AuthenticationSpec::SelfSigned(_) | AuthenticationSpec::CertificateAuthority => {
            Ok(())
        }
    }
}

fn foreign_scope() -> Refusal {
    Refusal::NotImplemented("a hierarchy of devices (deviceScope)".to_owned())
}

fn check_identity_etag(record: &Device, if_match: &IfMatch) -> Result<(), Refusal> {
    match if_match.identity_etag() {
        Some(given) if given != record.identity.etag() => {
            let given = Identity::number_of_etag(given).map_or_else(|| given.to_owned(), |number| number.to_string());
            Err(Refusal::IdentityChanged { existing: record.identity.etag_number, given })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
