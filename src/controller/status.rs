//! What is known of every twin, in memory: its last outcome and since when.
//!
//! Invariant: a twin has exactly one state, so the counts by state add up to the twins managed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::{Held, HeldReason, Outcome, Standing, TwinState};
use crate::twin::{ModuleId, Near, TwinMap, TwinRef};

/// One twin as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinStatus {
    /// How its last reconcile ended.
    pub outcome: Outcome,
    /// One sentence for people; empty when the outcome says it all.
    pub message: String,
    /// When the reason last changed, since the start of the process, in whole seconds.
    pub since: Duration,
    /// Since when it has not had what Git says, likewise; waiting alone neither begins this nor ends it.
    pub astray_since: Option<Duration>,
    /// Failed reconciles in a row.
    pub failures: u32,
}

/// The twins of one hub.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    /// A fleet has few statuses and many twins: those that stand alike since the same second share one.
    twins: TwinMap<Arc<TwinStatus>>,
    /// The last one made.
    last: Option<Arc<TwinStatus>>,
    counts: BTreeMap<TwinState, usize>,
    ownership_conflicts: usize,
    /// How many twins went astray when.
    astray: BTreeMap<Duration, usize>,
}

impl Statuses {
    /// The status of one twin.
    #[must_use]
    pub fn get(&self, twin: &TwinRef) -> Option<&TwinStatus> {
        self.twins.get(twin).map(AsRef::as_ref)
    }

    /// The twins after `twin` in order, or all.
    pub fn after(&self, twin: Option<&TwinRef>) -> impl Iterator<Item = (&TwinRef, &TwinStatus)> {
        self.twins.after(twin).map(|(twin, status)| (twin, status.as_ref()))
    }

    /// All twins, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TwinRef, &TwinStatus)> {
        self.after(None)
    }

    /// Whether `twin` is known and was not looked at since it was declared; `near` is where the last one was found.
    pub(super) fn is_pending(&self, near: &mut Near, twin: &TwinRef) -> bool {
        let module = twin.module.as_ref().map(ModuleId::as_str);
        let place = self.twins.find_near(near, twin.device.as_str(), module);
        let status = place.and_then(|place| self.twins.at(place));
        status.is_some_and(|(_, status)| status.outcome == Outcome::Pending)
    }

    /// Twins in `state`.
    #[must_use]
    pub fn count(&self, state: TwinState) -> usize {
        self.counts.get(&state).copied().unwrap_or_default()
    }

    /// Twins of which another owner holds a leaf with another value.
    #[must_use]
    pub const fn ownership_conflicts(&self) -> usize {
        self.ownership_conflicts
    }

    /// Since when the twin that has gone without what Git says for longest has done so, since the start of the process.
    #[must_use]
    pub fn astray_since(&self) -> Option<Duration> {
        self.astray.keys().next().copied()
    }

    /// Twins managed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.twins.len()
    }

    /// Whether no twin is managed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.twins.is_empty()
    }

    /// Takes in how a reconcile of `twin` ended and answers whether its reason or message changed: then it is news.
    pub(super) fn record(&mut self, twin: &TwinRef, outcome: Outcome, message: String, now: Duration) -> bool {
        let Some(condition) = outcome.condition() else {
            return self.forget(twin);
        };
        let before = self.twins.get(twin).cloned();
        let before = before.as_deref();
        let failing = matches!(
            outcome,
            Outcome::Failed
                | Outcome::Throttled
                | Outcome::Conflict
                | Outcome::Missing
                | Outcome::Unauthorized
                | Outcome::Quota
        );
        let failures = if failing { before.map_or(0, |status| status.failures).saturating_add(1) } else { 0 };
        let reason = |status: &TwinStatus| status.outcome.condition().map(|condition| condition.reason);
        let same_reason = before.and_then(reason) == Some(condition.reason);
        let news = !same_reason || before.is_none_or(|status| status.message != message);
        let now = Duration::from_secs(now.as_secs());
        let since = before.filter(|_| same_reason).map_or(now, |status| status.since);
        let astray_before = before.and_then(|status| status.astray_since);
        let astray_since = match outcome.standing() {
            Standing::AsWanted => None,
            Standing::Astray => astray_before.or(Some(now)),
            Standing::Unchanged => astray_before,
        };
        if let Some(before) = before {
            self.uncount(before);
        }
        self.ownership_conflicts += usize::from(is_conflict(&outcome));
        *self.counts.entry(condition.state).or_default() += 1;
        astray_since.into_iter().for_each(|since| *self.astray.entry(since).or_default() += 1);
        let status = self.shared(TwinStatus { outcome, message, since, astray_since, failures });
        match self.twins.get_mut(twin) {
            Some(known) => *known = status,
            None => drop(self.twins.insert(twin.clone(), status)),
        }
        news
    }

    /// One object for equal statuses in a row.
    fn shared(&mut self, status: TwinStatus) -> Arc<TwinStatus> {
        match &self.last {
            Some(last) if **last == status => Arc::clone(last),
            Some(_) | None => Arc::clone(self.last.insert(Arc::new(status))),
        }
    }

    fn forget(&mut self, twin: &TwinRef) -> bool {
        let known = self.twins.remove(twin);
        if let Some(status) = &known {
            self.uncount(status);
        }
        known.is_some()
    }

    /// Takes a status that no longer holds out of every count.
    fn uncount(&mut self, status: &TwinStatus) {
        if let Some(condition) = status.outcome.condition() {
            *self.counts.entry(condition.state).or_default() -= 1;
        }
        self.ownership_conflicts -= usize::from(is_conflict(&status.outcome));
        if let Some(since) = status.astray_since {
            let twins = self.astray.entry(since).or_default();
            *twins -= 1;
            if *twins == 0 {
                self.astray.remove(&since);
            }
        }
    }
}

fn is_conflict(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Held(HeldReason::OwnershipConflict { .. }))
}

/// What is held, as one sentence.
pub(super) fn held_message(held: &[Held]) -> String {
    held.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HeldReason;
    use crate::twin::DeviceId;

    #[test]
    fn the_oldest_twin_astray_is_known_through_every_turn() {
        let twin = |id: &str| TwinRef::device(DeviceId::new(id).unwrap());
        let mut statuses = Statuses::default();
        let suspend = crate::plan::Suspend { reason: "test".to_owned(), until: None };
        // Who, how it ended, when, and who has been astray for longest after it.
        let turns = [
            ("a", Outcome::Pending, 0, None),
            ("b", Outcome::Throttled, 1, None),
            ("a", Outcome::Failed, 10, Some(10)),
            ("a", Outcome::Throttled, 20, Some(10)),
            ("a", Outcome::Pending, 30, Some(10)),
            ("b", Outcome::Held(HeldReason::DeletedOutside), 35, Some(10)),
            ("a", Outcome::Missing, 40, Some(10)),
            ("c", Outcome::Drifted, 41, Some(10)),
            ("a", Outcome::Applied, 50, Some(35)),
            ("a", Outcome::Conflict, 60, Some(35)),
            ("b", Outcome::Released, 61, Some(41)),
            ("c", Outcome::Held(HeldReason::Suspended(suspend)), 62, Some(60)),
            ("c", Outcome::Kept, 63, Some(60)),
            ("a", Outcome::InSync, 64, Some(63)),
            ("c", Outcome::InSync, 65, None),
        ];
        for (id, outcome, now, oldest) in turns {
            let told = format!("{id} {outcome:?} at {now}");
            statuses.record(&twin(id), outcome, String::new(), Duration::from_secs(now));
            assert_eq!(statuses.astray_since(), oldest.map(Duration::from_secs), "{told}");
        }
    }

    #[test]
    fn states_exclude_one_another_and_add_up() {
        let twin = |id: &str| TwinRef::device(DeviceId::new(id).unwrap());
        let at = Duration::from_secs;
        let mut statuses = Statuses::default();
        assert!(statuses.get(&twin("a")).is_none());
        let mut record = |id: &str, outcome, now| statuses.record(&twin(id), outcome, String::new(), at(now));
        assert!(record("a", Outcome::Pending, 0));
        assert!(record("a", Outcome::Failed, 1));
        assert!(!record("a", Outcome::Failed, 2));
        assert!(record("b", Outcome::Held(HeldReason::DeletedOutside), 2));
        assert_eq!(statuses.get(&twin("a")).map(|status| (status.failures, status.since)), Some((2, at(1))));
        let counts: Vec<usize> = TwinState::ALL.iter().map(|state| statuses.count(*state)).collect();
        assert_eq!((counts.iter().sum::<usize>(), statuses.count(TwinState::Failed)), (2, 1));
        assert!(statuses.record(&twin("a"), Outcome::Released, String::new(), at(3)));
        assert!(!statuses.record(&twin("a"), Outcome::Released, String::new(), at(4)));
        assert_eq!((statuses.len(), statuses.count(TwinState::Failed)), (1, 0));
    }
}
