//! How many twins are named in the log for one reason, so that a mass of them does not drown what else is said.
//!
//! Invariant: nothing is left out in silence; who is not named is counted, and the count is said.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Twins named for one reason within one window.
const NAMED_MAX: u64 = 10;
/// After so long twins are named again.
const WINDOW: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Clone, Copy)]
struct Verse {
    began: SystemTime,
    twins: u64,
}

impl Verse {
    fn unnamed(self) -> u64 {
        self.twins.saturating_sub(NAMED_MAX)
    }

    /// A clock that was set back begins anew, too.
    fn is_over(self, now: SystemTime) -> bool {
        now.duration_since(self.began).is_ok_and(|age| age >= WINDOW) || now < self.began
    }
}

/// What was said for each reason.
#[derive(Debug, Default)]
pub(super) struct Chorus(BTreeMap<&'static str, Verse>);

impl Chorus {
    /// Whether one more twin is named for `reason`.
    pub(super) fn names(&mut self, reason: &'static str, now: SystemTime) -> bool {
        let verse = self.0.entry(reason).or_insert(Verse { began: now, twins: 0 });
        verse.twins += 1;
        verse.twins <= NAMED_MAX
    }

    /// Ends the windows that are over, or all when things have `settled`: the reasons with twins that were not named,
    /// and how many these were.
    pub(super) fn end(&mut self, now: SystemTime, settled: bool) -> Vec<(&'static str, u64)> {
        let mut unnamed = Vec::new();
        self.0.retain(|reason, verse| {
            if verse.unnamed() > 0 && (settled || verse.is_over(now)) {
                unnamed.push((*reason, verse.unnamed()));
                // They are counted once; the window goes on.
                verse.twins = NAMED_MAX;
            }
            !verse.is_over(now)
        });
        unnamed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn ten_twins_are_named_for_a_reason_and_the_others_are_counted_once() {
        let mut chorus = Chorus::default();
        let named = (0..1000).filter(|n| chorus.names("Missing", at(*n / 10))).count();
        assert_eq!(named, 10);
        assert!(chorus.names("Rejected", at(100)), "another reason has a voice of its own");
        assert_eq!(chorus.end(at(100), false), []);
        assert_eq!(chorus.end(at(100), true), [("Missing", 990)]);
        assert_eq!(chorus.end(at(101), true), []);
        assert!(!chorus.names("Missing", at(102)));
        assert_eq!(chorus.end(at(700), false), [("Missing", 1)]);
        assert!(chorus.names("Missing", at(701)), "a new window");
    }

    #[test]
    fn a_clock_that_was_set_back_silences_nobody() {
        let mut chorus = Chorus::default();
        let named = (0..20).filter(|_| chorus.names("Missing", at(5000))).count();
        assert_eq!(named, 10);
        assert_eq!(chorus.end(at(10), false), [("Missing", 10)]);
        assert!(chorus.names("Missing", at(11)));
    }
}
