//! What queries see while their index lags (`--query-lag`; `iot-hub.md` 5.6).
//!
//! Invariant: sans I/O. Each change is seen once it is as old as the lag, in the order of the changes; a deletion
//! `GHOST_LAGS` times later than that, as long as nothing was made under the same name since. At most
//! `WAITING_MAX` changes wait; the oldest are seen early beyond it.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::registry::{Change, Registry};

/// How many times longer deleted devices are seen.
const GHOST_LAGS: u32 = 10;
/// The most changes that wait, of either sort.
const WAITING_MAX: usize = 100_000;

/// A registry as it was a while ago.
#[derive(Debug)]
pub struct LaggingView {
    lag: Duration,
    registry: Registry,
    written: VecDeque<(Timestamp, Change)>,
    deleted: VecDeque<(Timestamp, Change)>,
}

impl LaggingView {
    /// The view of a registry as it is now.
    #[must_use]
    pub fn of(registry: &Registry, lag: Duration) -> Self {
        Self { lag, registry: registry.clone(), written: VecDeque::new(), deleted: VecDeque::new() }
    }

    /// Takes in what changed at `now`.
    pub fn push(&mut self, change: &Change, now: Timestamp) {
        let (waiting, lag) = match change.after {
            Some(_) => (&mut self.written, self.lag),
            None => (&mut self.deleted, self.lag.saturating_mul(GHOST_LAGS)),
        };
        let seen = now.saturating_add(lag).unwrap_or(Timestamp::MAX);
        waiting.push_back((seen, change.clone()));
        while self.written.len() > WAITING_MAX {
            self.see_written();
        }
        while self.deleted.len() > WAITING_MAX {
            self.see_deleted();
        }
    }

    /// What queries see at `now`.
    pub fn at(&mut self, now: Timestamp) -> &Registry {
        while self.written.front().is_some_and(|(seen, _)| *seen <= now) {
            self.see_written();
        }
        while self.deleted.front().is_some_and(|(seen, _)| *seen <= now) {
            self.see_deleted();
        }
        &self.registry
    }

    fn see_written(&mut self) {
        if let Some((_, change)) = self.written.pop_front() {
            self.registry.follow(&change);
        }
    }

    fn see_deleted(&mut self) {
        if let Some((_, change)) = self.deleted.pop_front() {
            // A change with a later number is of a device that was made anew.
            let again = self.registry.record(&change.twin).is_ok_and(|record| record.change > change.number);
            if !again {
                self.registry.follow(&change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::super::registry::Kept;
    use super::*;
    use crate::twin::{DeviceId, MergePatch, Object, TwinRef, Value};

    const LAG: Duration = Duration::from_secs(5);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn id() -> DeviceId {
        DeviceId::new("d").unwrap()
    }

    fn create(registry: &mut Registry, second: i64) {
        let mut random = |bytes: &mut [u8]| bytes.fill(1);
        registry.put_identity(&id(), IdentitySpec::default(), &IfMatch::Absent, &mut random, at(second)).unwrap();
    }

    fn push(view: &mut LaggingView, registry: &mut Registry, second: i64) {
        for kept in registry.take_log() {
            if let Kept::Twin(change) = kept {
                view.push(&change, at(second));
            }
        }
    }

    /// The twin's version that queries see; 0 for none.
    fn seen(view: &mut LaggingView, second: i64) -> u64 {
        view.at(at(second)).device(&id()).map_or(0, |device| device.twin.version)
    }

    #[test]
    fn writes_are_seen_late_and_the_deleted_longer() {
        let mut registry = Registry::default();
        let mut view = LaggingView::of(&registry, LAG);
        create(&mut registry, 0);
        push(&mut view, &mut registry, 0);
        assert_eq!((seen(&mut view, 4), seen(&mut view, 5)), (0, 2));
        let patch = MergePatch { tags: Some(Object::from([("a".to_owned(), Value::from(1))])), desired: None };
        registry.patch_twin(&TwinRef::device(id()), &patch, &IfMatch::Absent, at(6)).unwrap();
        push(&mut view, &mut registry, 6);
        registry.delete_identity(&id(), &IfMatch::Any).unwrap();
        push(&mut view, &mut registry, 7);
        assert_eq!([8, 10, 11, 56, 57].map(|second| seen(&mut view, second)), [2, 2, 3, 3, 0]);
    }

    #[test]
    fn a_device_made_anew_takes_the_place_of_its_ghost() {
        let mut registry = Registry::default();
        create(&mut registry, 0);
        registry.take_log();
        let mut view = LaggingView::of(&registry, LAG);
        registry.delete_identity(&id(), &IfMatch::Any).unwrap();
        push(&mut view, &mut registry, 1);
        create(&mut registry, 2);
        push(&mut view, &mut registry, 2);
        let generation =
            |view: &mut LaggingView, second| view.at(at(second)).device(&id()).unwrap().identity.generation;
        let (before, after) = (generation(&mut view, 3), generation(&mut view, 7));
        assert!(before < after);
        assert_eq!(generation(&mut view, 100), after);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut registry = Registry::default();
        let mut view = LaggingView::of(&registry, LAG);
        create(&mut registry, 0);
        let Kept::Twin(change) = registry.take_log().remove(0) else { panic!("a twin") };
        (0..=WAITING_MAX).for_each(|_| view.push(&change, at(0)));
        assert_eq!((view.written.len(), seen(&mut view, 0)), (WAITING_MAX, 2));
    }
}
