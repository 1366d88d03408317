//! The queue of twins to reconcile: three sets and no state but names and times.
//!
//! ```text
//!             add                 take                done
//!   (nothing) ---> ready (+ due) -----> running ----------> (nothing)
//!                                          | add  ^
//!                                          v      | done: ready again
//!                                        dirty ---+
//! ```
//!
//! Invariants: one worker per twin at a time; a twin added while it runs runs once more; a twin is in the queue at
//! most once, so the queue is bounded by the fleet. Lanes take turns by the weights of the hub's budget, so that a long
//! line of the best lane stops no other one. Time is the age of the process, handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::hub::{self, LANES, Turns};
use crate::twin::{SortedMap, TwinMap, TwinRef};

/// What a twin waits for; the lower is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Git changed what is declared for it.
    Git,
    /// It failed before, or somebody wrote in between.
    Retry,
    /// A sweep nominated it.
    Sweep,
    /// Only its seal is to be written.
    Seal,
}

impl Lane {
    /// The lane in which the hub is asked. What a sweep nominates is drift until it was read; the pages of the sweep
    /// itself are not asked for here.
    pub(super) const fn of_budget(self) -> hub::Lane {
        match self {
            Self::Git => hub::Lane::Git,
            Self::Retry | Self::Sweep => hub::Lane::Drift,
            Self::Seal => hub::Lane::Sweep,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    lane: Lane,
    due: Duration,
}

impl Entry {
    /// One entry for two wishes: the better lane and the earlier time.
    fn merged(self, other: Self) -> Self {
        Self { lane: self.lane.min(other.lane), due: self.due.min(other.due) }
    }
}

/// What [`Queue::take`] hands to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The twin.
    pub twin: TwinRef,
    /// Its lane.
    pub lane: Lane,
    /// How long it had been due.
    pub waited: Duration,
}

/// The queue of one hub.
#[derive(Debug, Clone)]
pub struct Queue {
    ready: TwinMap<Entry>,
    /// `ready` that is not due yet, by time.
    waiting: SortedMap<(Duration, TwinRef), ()>,
    /// `ready` that is due, by lane of the budget, lane and time.
    due: [SortedMap<(Lane, Duration, TwinRef), ()>; LANES],
    due_by_lane: BTreeMap<Lane, usize>,
    /// The latest time anybody asked with: what is due by then never waits.
    reached: Duration,
    turns: Turns<LANES>,
    running: BTreeSet<TwinRef>,
    dirty: BTreeMap<TwinRef, Entry>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ready: TwinMap::default(),
            waiting: SortedMap::default(),
            due: Default::default(),
            due_by_lane: BTreeMap::new(),
            reached: Duration::ZERO,
            turns: Turns::new(hub::Lane::WEIGHTS),
            running: BTreeSet::new(),
            dirty: BTreeMap::new(),
        }
    }
}

impl Queue {
    /// Asks for `twin` to be reconciled at `due`. An earlier time or a better lane of an entry that waits is kept.
    pub fn add(&mut self, twin: &TwinRef, lane: Lane, due: Duration) {
        let entry = Entry { lane, due };
        if self.running.contains(twin) {
            let merged = self.dirty.get(twin).map_or(entry, |dirty| dirty.merged(entry));
            self.dirty.insert(twin.clone(), merged);
            return;
        }
        let merged = self.ready.get(twin).map_or(entry, |ready| ready.merged(entry));
        self.remove_ready(twin);
        self.ready.insert(twin.clone(), merged);
        if merged.due <= self.reached {
            self.falls_due(merged.lane, merged.due, twin.clone());
        } else {
            self.waiting.insert((merged.due, twin.clone()), ());
        }
    }

    /// Like [`add`](Self::add), but leaves a twin alone that waits or runs already: a sweep must not cut a backoff
    /// short. Answers whether the twin was added.
    pub fn nominate(&mut self, twin: &TwinRef, lane: Lane, due: Duration) -> bool {
        let known = self.contains(twin);
        if !known {
            self.add(twin, lane, due);
        }
        !known
    }

    /// When `twin` is due, if it waits.
    #[must_use]
    pub fn due_of(&self, twin: &TwinRef) -> Option<Duration> {
        self.ready.get(twin).map(|entry| entry.due)
    }

    /// Whether `twin` waits or runs.
    #[must_use]
    pub fn contains(&self, twin: &TwinRef) -> bool {
        self.ready.contains_key(twin) || self.running.contains(twin)
    }

    /// Takes the next twin that is due: of the lane whose turn it is, the longest due.
    pub fn take(&mut self, now: Duration) -> Option<Taken> {
        self.promote(now);
        let due = &mut self.due;
        let turn = self.turns.next(|lane| !due[lane].is_empty())?;
        let ((lane, due, twin), ()) = due[turn].pop_first()?;
        *self.due_by_lane.entry(lane).or_default() -= 1;
        self.ready.remove(&twin);
        self.running.insert(twin.clone());
        Some(Taken { twin, lane, waited: now.saturating_sub(due) })
    }

    /// A worker is done with `twin`; if it was added meanwhile it is ready again.
    ///
    /// # Panics
    /// When `twin` was not taken: the loop has lost count of its workers.
    pub fn done(&mut self, twin: &TwinRef) {
        let ran = self.running.remove(twin);
        assert!(ran, "only a running twin can be done");
        if let Some(entry) = self.dirty.remove(twin) {
            self.add(twin, entry.lane, entry.due);
        }
    }

    /// Forgets `twin` unless it runs.
    pub fn forget(&mut self, twin: &TwinRef) {
        self.remove_ready(twin);
        self.ready.remove(twin);
        self.dirty.remove(twin);
    }

    /// When the next twin is due; in the past when one is.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let due = self.due.iter().find_map(|due| due.first()).map(|((_, at, _), ())| *at);
        due.or_else(|| self.waiting.first().map(|((at, _), ())| *at))
    }

    /// Twins that wait, due or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether nothing waits and nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.running.is_empty()
    }

    /// Twins of `lane` that are due now and wait for a worker.
    pub fn due_in(&mut self, lane: Lane, now: Duration) -> usize {
        self.promote(now);
        self.due_by_lane.get(&lane).copied().unwrap_or_default()
    }

    /// Twins that are due now and wait for a worker.
    pub fn depth(&mut self, now: Duration) -> usize {
        self.promote(now);
        self.due.iter().map(SortedMap::len).sum()
    }

    fn promote(&mut self, now: Duration) {
        self.reached = self.reached.max(now);
        while self.waiting.first().is_some_and(|((due, _), ())| *due <= now) {
            let Some(((due, twin), ())) = self.waiting.pop_first() else { break };
            let lane = self.ready.get(&twin).expect("whatever waits is ready").lane;
            self.falls_due(lane, due, twin);
        }
    }

    fn falls_due(&mut self, lane: Lane, due: Duration, twin: TwinRef) {
        let turn = lane.of_budget().index();
        if self.due[turn].is_empty() {
            self.turns.comes(turn);
        }
        self.due[turn].insert((lane, due, twin), ());
        *self.due_by_lane.entry(lane).or_default() += 1;
    }

    fn remove_ready(&mut self, twin: &TwinRef) {
        if let Some(entry) = self.ready.get(twin).copied() {
            self.waiting.remove(&(entry.due, twin.clone()));
            if self.due[entry.lane.of_budget().index()].remove(&(entry.lane, entry.due, twin.clone())).is_some() {
                *self.due_by_lane.entry(entry.lane).or_default() -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    fn twin(id: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(id).unwrap())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn take(queue: &mut Queue, now: u64) -> Option<String> {
        queue.take(at(now)).map(|taken| taken.twin.to_string())
    }

    #[test]
    fn the_longest_due_of_a_lane_goes_first() {
        let mut queue = Queue::default();
        queue.add(&twin("retry"), Lane::Retry, at(1));
        queue.add(&twin("sweep"), Lane::Sweep, at(0));
        queue.add(&twin("later"), Lane::Git, at(2));
        queue.add(&twin("git2"), Lane::Git, at(1));
        queue.add(&twin("git1"), Lane::Git, at(0));
        assert_eq!(take(&mut queue, 1).as_deref(), Some("git1"));
        assert_eq!(take(&mut queue, 1).as_deref(), Some("retry"));
        assert_eq!(take(&mut queue, 1).as_deref(), Some("git2"));
        assert_eq!(take(&mut queue, 1).as_deref(), Some("sweep"), "of its lane a retry goes before");
        assert_eq!(take(&mut queue, 1), None);
        assert_eq!(queue.next_due(), Some(at(2)));
        assert_eq!(take(&mut queue, 2).as_deref(), Some("later"));
    }

    #[test]
    fn lanes_take_turns_by_weight_so_that_a_long_line_of_git_changes_stops_no_other() {
        let mut queue = Queue::default();
        for number in 0..100 {
            for (name, lane) in [("git", Lane::Git), ("sweep", Lane::Sweep), ("seal", Lane::Seal)] {
                queue.add(&twin(&format!("{name}{number}")), lane, at(0));
            }
        }
        let taken: Vec<Lane> = (0..70).map(|_| queue.take(at(0)).unwrap().lane).collect();
        let count = |lane| taken.iter().filter(|taken| **taken == lane).count();
        assert_eq!((count(Lane::Git), count(Lane::Sweep), count(Lane::Seal)), (40, 20, 10));
        assert_eq!((queue.due_in(Lane::Sweep, at(0)), queue.due_in(Lane::Retry, at(0))), (80, 0));
        queue.add(&twin("sweep99"), Lane::Git, at(0));
        queue.forget(&twin("sweep98"));
        assert_eq!(queue.due_in(Lane::Sweep, at(0)), 78, "one became a change, one was forgotten");
    }

    #[test]
    fn a_twin_added_while_it_runs_runs_once_more() {
        let mut queue = Queue::default();
        queue.add(&twin("a"), Lane::Git, at(0));
        assert!(take(&mut queue, 0).is_some());
        queue.add(&twin("a"), Lane::Sweep, at(5));
        queue.add(&twin("a"), Lane::Git, at(0));
        assert_eq!(take(&mut queue, 9), None);
        queue.done(&twin("a"));
        let again = queue.take(at(9)).unwrap();
        assert_eq!((again.lane, again.waited), (Lane::Git, at(9)));
        queue.done(&twin("a"));
        assert!(queue.is_idle());
    }

    #[test]
    fn a_twin_waits_once_with_its_best_lane_and_earliest_time() {
        let mut queue = Queue::default();
        queue.add(&twin("a"), Lane::Retry, at(60));
        assert!(!queue.nominate(&twin("a"), Lane::Sweep, at(0)));
        assert_eq!(take(&mut queue, 59), None);
        queue.add(&twin("a"), Lane::Git, at(10));
        queue.add(&twin("a"), Lane::Sweep, at(20));
        assert_eq!((queue.len(), queue.next_due()), (1, Some(at(10))));
        assert_eq!(queue.depth(at(30)), 1);
        queue.add(&twin("a"), Lane::Git, at(5));
        assert_eq!((queue.len(), queue.depth(at(30))), (1, 1));
        let taken = queue.take(at(10)).unwrap();
        assert_eq!((taken.lane, taken.waited), (Lane::Git, at(5)));
        assert!(queue.nominate(&twin("b"), Lane::Sweep, at(0)));
        queue.forget(&twin("b"));
        assert_eq!(take(&mut queue, 99), None);
    }

    #[test]
    fn what_is_due_by_the_latest_time_asked_with_waits_in_no_second_line() {
        let mut queue = Queue::default();
        assert_eq!(queue.depth(at(10)), 0);
        queue.add(&twin("now"), Lane::Sweep, at(10));
        queue.add(&twin("later"), Lane::Git, at(11));
        queue.add(&twin("early"), Lane::Sweep, at(3));
        assert_eq!((queue.waiting.len(), queue.len(), queue.next_due()), (1, 3, Some(at(3))));
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, 11)).collect();
        assert_eq!(order, ["later", "early", "now"], "lanes go by weight, in a lane the longest due first");
        assert_eq!((queue.due_in(Lane::Sweep, at(11)), queue.len()), (0, 0));
    }
}
