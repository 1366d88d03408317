//! The records of a collection, by key: a device's id, or a module's device and id with `/` between them.
//!
//! Invariant: a record is what was last inserted under its key, whatever form it is kept in. The records written and
//! read last are kept as they are, at most `UNPACKED_MAX` of them; all others as the bytes of `stored`, which take a
//! fraction of the room. The index holds the tags of all.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::index::Index;
use super::registry::Device;
use super::stored;
use crate::twin::Object;

/// The most records kept unpacked; one of 1 KB takes about 10 KB.
const UNPACKED_MAX: usize = 16_384;

/// Some records.
#[derive(Debug, Clone, Default)]
pub struct Records {
    slots: BTreeMap<Arc<str>, Slot>,
    /// The keys of unpacked records, the one unpacked first in front; some may have been deleted since.
    unpacked: VecDeque<Arc<str>>,
    index: Index,
}

#[derive(Debug, Clone)]
enum Slot {
    Whole(Arc<Device>),
    Packed(Packed),
}

#[derive(Debug, Clone)]
struct Packed {
    bytes: Arc<[u8]>,
    /// What the bytes do not hold.
    change: u64,
    connected: bool,
}

impl Slot {
    fn device(&self, key: &str) -> Arc<Device> {
        match self {
            Self::Whole(device) => Arc::clone(device),
            Self::Packed(packed) => {
                let mut device = stored::unpacked(key, &packed.bytes);
                device.change = packed.change;
                if packed.connected {
                    Arc::make_mut(&mut device.identity).connected = true;
                }
                Arc::new(device)
            }
        }
    }
}

impl Records {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Their tags.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whether there is a record under `key`.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    /// The record under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Device>> {
        self.slots.get(key).map(|slot| slot.device(key))
    }

    /// The record under `key`, which is kept unpacked from now on: whoever reads or writes one often comes again.
    #[must_use]
    pub fn get_and_keep(&mut self, key: &str) -> Option<Arc<Device>> {
        let (shared, slot) = self.slot(key)?;
        let device = slot.device(key);
        if let Slot::Packed(_) = slot {
            *slot = Slot::Whole(Arc::clone(&device));
            let shared = Arc::clone(shared);
            self.kept_unpacked(shared);
        }
        Some(device)
    }

    /// The first key from `from` on.
    #[must_use]
    pub fn seek(&self, from: Bound<&str>) -> Option<&str> {
        self.slots.range::<str, _>((from, Bound::Unbounded)).next().map(|(key, _)| &**key)
    }

    /// The records behind the key `last`, or all, in order. Each is unpacked when it comes.
    pub fn after<'a>(&'a self, last: Option<&str>) -> impl Iterator<Item = Arc<Device>> + use<'a> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.slots.range::<str, _>((from, Bound::Unbounded)).map(|(key, slot)| slot.device(key))
    }

    /// Puts `device` under `key`, in the place of what was there, which is given back.
    pub fn insert(&mut self, key: &str, device: &Arc<Device>) -> Option<Arc<Device>> {
        let whole = Slot::Whole(Arc::clone(device));
        let (shared, before) = match self.slot(key) {
            Some((shared, slot)) => (Arc::clone(shared), Some(std::mem::replace(slot, whole))),
            None => {
                let shared: Arc<str> = Arc::from(key);
                self.slots.insert(Arc::clone(&shared), whole);
                (shared, None)
            }
        };
        let was_whole = matches!(before, Some(Slot::Whole(_)));
        let before = before.map(|slot| slot.device(key));
        self.follow_tags(&shared, before.as_deref(), device);
        if !was_whole {
            self.kept_unpacked(shared);
        }
        before
    }

    /// Puts a record in the form of the store under `key`, where nothing was. `tags` are its tags, and it can be read.
    pub fn insert_packed(&mut self, key: &str, bytes: Arc<[u8]>, tags: Option<&Object>) {
        let shared: Arc<str> = Arc::from(key);
        self.index.change(&shared, None, tags);
        self.slots.insert(shared, Slot::Packed(Packed { bytes, change: 0, connected: false }));
    }

    /// Removes what is under `key` and gives it back.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Device>> {
        let (shared, slot) = self.slots.remove_entry(key)?;
        let before = slot.device(key);
        self.index.change(&shared, before.twin.tags.as_deref(), None);
        Some(before)
    }

    /// What is under `key`, and the key as it is shared. One search is most of what a write of one of many records costs
    /// here.
    fn slot(&mut self, key: &str) -> Option<(&Arc<str>, &mut Slot)> {
        self.slots.range_mut::<str, _>((Bound::Included(key), Bound::Included(key))).next()
    }

    /// Has the index follow a write. Most write a few of the tags, or none.
    fn follow_tags(&mut self, key: &Arc<str>, before: Option<&Device>, after: &Device) {
        let (before, after) = (before.and_then(|before| before.twin.tags.as_ref()), after.twin.tags.as_ref());
        if let (Some(before), Some(after)) = (before, after) {
            if before.is_same(after) {
                return;
            }
            if let Some((gone, new)) = stored::difference(before.stored().bytes(), after.stored().bytes()) {
                self.index.change(key, Some(&gone), Some(&new));
                return;
            }
        }
        self.index.change(key, before.map(|tags| &**tags), after.map(|tags| &**tags));
    }

    fn kept_unpacked(&mut self, key: Arc<str>) {
        self.unpacked.push_back(key);
        // Deleted keys go too, so that the queue never outgrows its bound.
        while self.unpacked.len() > UNPACKED_MAX {
            let Some(key) = self.unpacked.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let Slot::Whole(device) = slot else { continue };
            let (change, connected) = (device.change, device.identity.connected);
            *slot = Slot::Packed(Packed { bytes: stored::device(device).into(), change, connected });
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::identity::{Identity, IdentitySpec};
    use super::super::twin_record::TwinRecord;
    use super::*;
    use crate::twin::DeviceId;

    fn packed(records: &mut Records, key: &str) -> Device {
        let id = DeviceId::new(key).unwrap();
        let identity = Identity::new(id, None, 1, IdentitySpec::default(), &mut |bytes| bytes.fill(7));
        let device = Device { identity: identity.into(), twin: TwinRecord::new(Timestamp::UNIX_EPOCH), change: 0 };
        records.insert_packed(key, stored::device(&device).into(), None);
        device
    }

    fn whole(records: &Records) -> usize {
        records.slots.values().filter(|slot| matches!(slot, Slot::Whole(_))).count()
    }

    #[test]
    fn who_reads_a_packed_record_finds_it_unpacked_the_next_time() {
        let mut records = Records::default();
        let device = packed(&mut records, "d");
        assert_eq!((records.get("d").as_deref(), whole(&records)), (Some(&device), 0));
        let first = records.get_and_keep("d").unwrap();
        assert_eq!((&*first, whole(&records)), (&device, 1));
        let again = [records.get_and_keep("d").unwrap(), records.get("d").unwrap()];
        assert!(again.iter().all(|record| Arc::ptr_eq(record, &first)) && records.unpacked.len() == 1);
        assert_eq!(records.get_and_keep("e"), None);
    }

    #[test]
    fn no_more_records_are_unpacked_than_the_bound() {
        let mut records = Records::default();
        for number in 0..UNPACKED_MAX + 10 {
            let device = packed(&mut records, &format!("d{number}"));
            assert_eq!(records.get_and_keep(device.identity.device.as_str()).as_deref(), Some(&device));
        }
        assert_eq!((whole(&records), records.unpacked.len()), (UNPACKED_MAX, UNPACKED_MAX));
        assert!(matches!(records.slots["d0"], Slot::Packed(_)), "the one unpacked first was packed first");
    }
}
