//! Counts of devices, kept up with every change so that asking costs nothing (`iot-hub.md` 2.10).
//!
//! Invariant: they equal what a count over all devices would give. Modules are not counted.

use super::super::identity::{Identity, Status};
use super::Registry;

/// How many devices there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// All.
    pub devices: usize,
    /// Those that may connect.
    pub enabled: usize,
    /// Those that are connected.
    pub connected: usize,
}

impl Statistics {
    /// Follows one device from what it was to what it is.
    pub(super) fn follow(&mut self, before: Option<&Identity>, after: Option<&Identity>) {
        let counts = |identity: Option<&Identity>| {
            identity.map_or([0; 3], |identity| {
                [1, usize::from(identity.status == Status::Enabled), usize::from(identity.connected)]
            })
        };
        let (minus, plus) = (counts(before), counts(after));
        let slots = [&mut self.devices, &mut self.enabled, &mut self.connected];
        for ((slot, plus), minus) in slots.into_iter().zip(plus).zip(minus) {
            *slot = *slot + plus - minus;
        }
    }
}

impl Registry {
    /// How many devices there are.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::super::identity::IdentitySpec;
    use super::super::super::if_match::IfMatch;
    use super::super::super::stored;
    use super::*;
    use crate::twin::{DeviceId, ModuleId, TwinRef};

    #[test]
    fn the_counts_follow_every_change_and_a_restart() {
        let mut registry = Registry::default();
        let mut rng = fastrand::Rng::with_seed(4);
        let now = Timestamp::UNIX_EPOCH;
        for _ in 0..400 {
            let id = DeviceId::new(&format!("d{}", rng.u8(..6))).unwrap();
            let status = if rng.bool() { Status::Enabled } else { Status::Disabled };
            let spec = IdentitySpec { status, ..IdentitySpec::default() };
            let mut random = |bytes: &mut [u8]| bytes.fill(1);
            // What is refused changes nothing, which is the point too.
            match rng.u8(..5) {
                0 => drop(registry.put_identity(&id, spec, &IfMatch::Absent, &mut random, now)),
                1 => drop(registry.put_identity(&id, spec, &IfMatch::Any, &mut random, now)),
                2 => drop(registry.delete_identity(&id, &IfMatch::Any)),
                3 => registry.note_activity(&TwinRef::device(id), rng.bool(), now),
                _ => {
                    let module = ModuleId::new("m").unwrap();
                    let plain = IdentitySpec::default();
                    drop(registry.put_module(&id, &module, plain, &IfMatch::Absent, &mut random, now));
                    registry.note_activity(&TwinRef::module(id, module), true, now);
                }
            }
            let all: Vec<_> = registry.devices_after(None).collect();
            let enabled = all.iter().filter(|device| device.identity.status == Status::Enabled).count();
            let connected = all.iter().filter(|device| device.identity.connected).count();
            assert_eq!(registry.statistics(), Statistics { devices: all.len(), enabled, connected });
        }
        let mut restored = Registry::default();
        for device in registry.devices_after(None) {
            let key = device.identity.device.as_str();
            let record = stored::device(&device);
            restored.restore(key, record.as_slice().into(), &stored::outline(key, &record).unwrap()).unwrap();
        }
        // No connection survives a restart.
        assert_eq!(restored.statistics(), Statistics { connected: 0, ..registry.statistics() });
        assert!(registry.statistics().devices > 0);
    }
}
