//! What happened lately on one hub, for people who ask.
//!
//! Invariants: a bounded ring in memory; the oldest goes first and the numbers show that it went. Sensitive values are
//! hashed before they get here.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::twin::TwinRef;

/// Events remembered a hub.
const EVENTS_MAX: usize = 4096;
/// Lines of one message; a twin with more changes has them in the audit log.
const LINES_MAX: usize = 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1; a gap means that events were forgotten.
    pub number: u64,
    /// When.
    pub time: SystemTime,
    /// To which twin; `None` for the hub as a whole.
    pub twin: Option<TwinRef>,
    /// What, in CamelCase.
    pub reason: &'static str,
    /// One sentence; empty when the reason says it all.
    pub message: String,
    /// The leaves written, as manifests write paths.
    pub leaves: BTreeSet<String>,
}

/// The events of one hub. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    last: u64,
}

impl Journal {
    /// The youngest `limit` events of `twin`, or of all, youngest first.
    #[must_use]
    pub fn recent(&self, twin: Option<&TwinRef>, limit: usize) -> Vec<Event> {
        let ring = self.ring();
        let wanted = |event: &&Event| twin.is_none() || event.twin.as_ref() == twin;
        ring.events.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    /// Something happened to the hub as a whole.
    pub(super) fn tell(&self, time: SystemTime, reason: &'static str, message: String) {
        self.add(Event { number: 0, time, twin: None, reason, message, leaves: BTreeSet::new() });
    }

    /// Something happened to a twin.
    pub(super) fn tell_of(&self, time: SystemTime, twin: &TwinRef, reason: &'static str, message: String) {
        self.add(Event { number: 0, time, twin: Some(twin.clone()), reason, message, leaves: BTreeSet::new() });
    }

    /// Leaves of a twin were written: the path of each, and how it reads.
    pub(super) fn tell_written(&self, time: SystemTime, twin: &TwinRef, changes: &[(String, String)]) {
        let mut lines: Vec<&str> = changes.iter().take(LINES_MAX).map(|(_, line)| line.as_str()).collect();
        let more = changes.len().saturating_sub(LINES_MAX);
        let rest = format!("and {more} more");
        if more > 0 {
            lines.push(&rest);
        }
        let leaves = changes.iter().map(|(path, _)| path.clone()).collect();
        let message = lines.join("; ");
        self.add(Event { number: 0, time, twin: Some(twin.clone()), reason: "Written", message, leaves });
    }

    fn add(&self, event: Event) {
        let mut ring = self.ring();
        ring.last += 1;
        let number = ring.last;
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(Event { number, ..event });
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    #[test]
    fn the_oldest_is_forgotten_and_the_numbers_show_it() {
        let journal = Journal::default();
        let twin = |id: &str| TwinRef::device(DeviceId::new(id).unwrap());
        journal.tell_of(SystemTime::UNIX_EPOCH, &twin("a"), "Registered", String::new());
        for _ in 0..EVENTS_MAX {
            journal.tell(SystemTime::UNIX_EPOCH, "SweepComplete", String::new());
        }
        let changes: Vec<(String, String)> = (0..12).map(|n| (format!("tags.k{n:02}"), format!("+ k{n}"))).collect();
        journal.tell_written(SystemTime::UNIX_EPOCH, &twin("b"), &changes);
        let all = journal.recent(None, usize::MAX);
        assert_eq!((all.len(), all[0].number, all[EVENTS_MAX - 1].number), (EVENTS_MAX, 4098, 3));
        assert_eq!((all[0].leaves.len(), all[0].message.ends_with("; + k9; and 2 more")), (12, true));
        assert_eq!(journal.recent(Some(&twin("a")), 9), []);
        assert_eq!(journal.recent(Some(&twin("b")), 9).len(), 1);
    }
}
