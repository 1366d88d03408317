//! The devices of the embedded hub, and the rules by which they are read and written.
//!
//! Invariant: sans I/O: time, randomness and the request are arguments, the answer is data. A refused write changes
//! nothing. Records are shared, and one that is read is never changed in place.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::Refusal;
use super::identity::{Identity, IdentitySpec, Random};
use super::if_match::IfMatch;
use super::twin_record::{TwinRecord, tick};
use crate::twin::{DeviceId, MergePatch, Object};

/// The most devices of a list; also what a list without a usable `top` gives (`iot-hub.md` 2.2).
pub const LIST_MAX: usize = 1000;
/// The most devices of a hub (`iot-hub.md` 6.3).
const DEVICES_MAX: usize = 1_000_000;
/// .NET ticks (100 ns since year 1) at the Unix epoch; a `generationId` is such a count.
const TICKS_AT_UNIX_EPOCH: i128 = 621_355_968_000_000_000;

/// One registered device with its twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Who it is.
    pub identity: Identity,
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
    pub device: DeviceId,
    /// The record before; `None` when the device was created.
    pub before: Option<Arc<Device>>,
    /// The record now; `None` when the device was deleted.
    pub after: Option<Arc<Device>>,
    /// The patch of desired as it was sent, when the change is one: what the device is told (`iot-hub.md` 2.3). Other
    /// writes of desired are told by comparing the records.
    pub desired_patch: Option<Arc<Object>>,
}

/// All devices of a hub.
#[derive(Debug, Default)]
pub struct Registry {
    devices: BTreeMap<DeviceId, Arc<Device>>,
    changes: u64,
    generation_last: u64,
}

impl Registry {
    /// A registry that holds what a store kept.
    #[must_use]
    pub fn restored(devices: impl IntoIterator<Item = Device>) -> Self {
        let devices: BTreeMap<_, _> =
            devices.into_iter().map(|device| (device.identity.device.clone(), Arc::new(device))).collect();
        let generation_last = devices.values().map(|device| device.identity.generation).max().unwrap_or(0);
        Self { devices, changes: 0, generation_last }
    }

    /// How many changes were made since the start.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// One device.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`].
    pub fn device(&self, device: &DeviceId) -> Result<Arc<Device>, Refusal> {
        self.devices.get(device).cloned().ok_or_else(|| Refusal::DeviceNotFound(device.clone()))
    }

    /// The first devices by id. A `top` outside 1 to 1000 is 1000; there is no paging (`iot-hub.md` 2.2).
    #[must_use]
    pub fn list(&self, top: Option<usize>) -> Vec<Arc<Device>> {
        let count = top.filter(|top| (1..=LIST_MAX).contains(top)).unwrap_or(LIST_MAX);
        self.devices.values().take(count).cloned().collect()
    }

    /// The devices behind `last` by id, or all.
    pub fn devices_after<'a>(&'a self, last: Option<&DeviceId>) -> impl Iterator<Item = &'a Arc<Device>> + use<'a> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.devices.range::<DeviceId, _>((from, Bound::Unbounded)).map(|(_, device)| device)
    }

    /// Creates or replaces an identity. Without an `If-Match` it only creates, with one it only replaces
    /// (`iot-hub.md` 2.4). The twin of an existing device is not touched.
    ///
    /// # Errors
    /// [`Refusal::DeviceAlreadyExists`], [`Refusal::DeviceNotFound`], [`Refusal::IdentityChanged`],
    /// [`Refusal::TooManyDevices`], or [`Refusal::ArgumentInvalid`] for a reason that is too long.
    pub fn put_identity(
        &mut self,
        id: &DeviceId,
        spec: IdentitySpec,
        if_match: &IfMatch,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        spec.check()?;
        let after = match (self.devices.get(id), if_match) {
            (Some(_), IfMatch::Absent) => return Err(Refusal::DeviceAlreadyExists(id.clone())),
            (None, IfMatch::Absent) => {
                check_room(self.devices.len())?;
                let generation = self.next_generation(now);
                let identity = Identity::new(id.clone(), generation, spec, random);
                Device { identity, twin: TwinRecord::new(now), change: 0 }
            }
            (None, _) => return Err(Refusal::DeviceNotFound(id.clone())),
            (Some(before), _) => {
                check_identity_etag(before, if_match)?;
                let mut device = Device::clone(before);
                device.identity.replace(spec, random, tick(now));
                device
            }
        };
        Ok(self.changed(after))
    }

    /// Deletes a device with its twin. The `If-Match` must be there (`iot-hub.md` 2.4).
    ///
    /// # Errors
    /// [`Refusal::EtagMissing`], [`Refusal::DeviceNotFound`] or [`Refusal::IdentityChanged`].
    pub fn delete_identity(&mut self, id: &DeviceId, if_match: &IfMatch) -> Result<Change, Refusal> {
        if *if_match == IfMatch::Absent {
            return Err(Refusal::EtagMissing);
        }
        check_identity_etag(&*self.device(id)?, if_match)?;
        let before = self.devices.remove(id);
        self.changes += 1;
        Ok(Change { number: self.changes, device: id.clone(), before, after: None, desired_patch: None })
    }

    /// Merges `patch` into a twin (`iot-hub.md` 2.3).
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`], [`Refusal::TwinChanged`], or [`Refusal::ArgumentInvalid`] when the result breaks
    /// a rule of `iot-hub.md` section 4.
    pub fn patch_twin(
        &mut self,
        id: &DeviceId,
        patch: &MergePatch,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        let change = self.write_twin(id, if_match, |twin| twin.patched(patch, now))?;
        Ok(Change { desired_patch: patch.desired.clone().map(Arc::new), ..change })
    }

    /// Replaces tags and desired of a twin (`iot-hub.md` 2.3).
    ///
    /// # Errors
    /// As [`Registry::patch_twin`], and [`Refusal::ArgumentInvalid`] on a null.
    pub fn replace_twin(
        &mut self,
        id: &DeviceId,
        twin: &MergePatch,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
        self.write_twin(id, if_match, |before| before.replaced(twin, now))
    }

    /// Merges what a device reports into its twin. Only the device's side calls this.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`], or [`Refusal::ArgumentInvalid`] when the result breaks a rule of `iot-hub.md`
    /// section 4.
    pub fn report(&mut self, id: &DeviceId, patch: &Object, now: Timestamp) -> Result<Change, Refusal> {
        let mut after = Device::clone(&*self.device(id)?);
        after.twin = after.twin.reported(patch, now)?;
        after.identity.last_activity = Some(tick(now));
        Ok(self.changed(after))
    }

    /// Notes that a device did something, and whether it is connected now. Moves no counter (`iot-hub.md` 1.3) and is
    /// no change: it reaches the store with the device's next one, since after a restart nothing is connected.
    pub fn note_activity(&mut self, id: &DeviceId, connected: bool, now: Timestamp) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let identity = &mut Arc::make_mut(device).identity;
        if identity.connected != connected {
            identity.connection_updated = Some(tick(now));
        }
        identity.connected = connected;
        identity.last_activity = Some(tick(now));
    }

    fn write_twin(
        &mut self,
        id: &DeviceId,
        if_match: &IfMatch,
        write: impl FnOnce(&TwinRecord) -> Result<TwinRecord, Refusal>,
    ) -> Result<Change, Refusal> {
        let before = self.device(id)?;
        if !if_match.admits_twin(&before.twin.etag()) {
            return Err(Refusal::TwinChanged(id.clone()));
        }
        let twin = write(&before.twin)?;
        Ok(self.changed(Device { identity: before.identity.clone(), twin, change: 0 }))
    }

    fn changed(&mut self, mut device: Device) -> Change {
        self.changes += 1;
        device.change = self.changes;
        let id = device.identity.device.clone();
        let after = Arc::new(device);
        let before = self.devices.insert(id.clone(), Arc::clone(&after));
        Change { number: self.changes, device: id, before, after: Some(after), desired_patch: None }
    }

    /// The ticks of `now`, but never a number that was given before.
    fn next_generation(&mut self, now: Timestamp) -> u64 {
        let ticks = TICKS_AT_UNIX_EPOCH + now.as_nanosecond() / 100;
        self.generation_last = u64::try_from(ticks).unwrap_or(0).max(self.generation_last + 1);
        self.generation_last
    }
}

fn check_room(devices: usize) -> Result<(), Refusal> {
    if devices < DEVICES_MAX { Ok(()) } else { Err(Refusal::TooManyDevices(DEVICES_MAX)) }
}

fn check_identity_etag(device: &Device, if_match: &IfMatch) -> Result<(), Refusal> {
    match if_match.identity_etag() {
        Some(given) if given != device.identity.etag() => {
            let given = Identity::number_of_etag(given).map_or_else(|| given.to_owned(), |number| number.to_string());
            Err(Refusal::IdentityChanged { existing: device.identity.etag_number, given })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
