//! Who fights over what: leaves that are corrected again and again, seals that are deleted, and a second process that
//! writes as the same owner.
//!
//! Invariants: pure; time is the age of the process, handed in. What Git changes is no correction, and a change of what
//! is declared ends every quarrel of that twin. Only twins somebody quarrels about are remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DeclaredHash, Leaf};
use crate::twin::TwinRef;

/// Corrections of one leaf, or deletions of one seal, after which it is contested (DESIGN 4.9).
const CORRECTIONS_MAX: usize = 3;
/// They are counted over this time, or over three sweeps where these take longer.
const WINDOW_MIN: Duration = Duration::from_secs(60 * 60);
const SWEEPS_MIN: u32 = 3;
/// How long a contested twin is left alone first; doubled each time the quarrel goes on.
const PAUSE_FIRST: Duration = Duration::from_secs(60 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A leaf somebody else keeps writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contest {
    /// The leaf.
    pub leaf: Leaf,
    /// The configuration that writes it, where the twin tells (`iot-hub.md` 8: `$lastUpdatedBy`).
    pub by: Option<String>,
    /// Until when the twin is left alone, as the age of the process.
    pub until: Duration,
}

/// What one reconcile saw of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sighting {
    /// What is declared.
    pub declared: Option<DeclaredHash>,
    /// The leaves put right though what is declared had not changed, each with who had written it, if that is known.
    pub corrected: Vec<(Leaf, Option<String>)>,
    /// Whether our seal had been taken away.
    pub seal_deleted: bool,
    /// Whether another process has written a seal as our owner, for another declared state.
    pub duplicate: bool,
}

impl Sighting {
    /// Whether nobody was seen.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.corrected.is_empty() && !self.seal_deleted && !self.duplicate
    }
}

/// What a reconcile has to leave alone because of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restraint {
    /// No leaf of the twin is corrected.
    pub contest: Option<Contest>,
    /// How often our seal was deleted lately.
    pub seal_deletions: usize,
    /// Nothing is written: another process is the same owner.
    pub duplicate: bool,
}

impl Restraint {
    /// Whether the seal is not written for its own sake. `deleted`: it has just been found deleted once more.
    #[must_use]
    pub fn forbids_reseal(&self, deleted: bool) -> bool {
        self.seal_deletions + usize::from(deleted) >= CORRECTIONS_MAX
    }
}

#[derive(Debug, Clone, Default)]
struct Quarrel {
    declared: Option<DeclaredHash>,
    leaves: BTreeMap<Leaf, Vec<Duration>>,
    seal_deleted: Vec<Duration>,
    duplicate_until: Option<Duration>,
    contest: Option<Contest>,
    rounds: u32,
}

/// The quarrels of one hub.
#[derive(Debug, Clone)]
pub struct Rivals {
    window: Duration,
    quarrels: BTreeMap<TwinRef, Quarrel>,
}

impl Rivals {
    /// Nobody seen yet; sweeps begin `sweep` apart.
    #[must_use]
    pub fn new(sweep: Duration) -> Self {
        Self { window: WINDOW_MIN.max(sweep * SWEEPS_MIN), quarrels: BTreeMap::new() }
    }

    /// Takes in what a reconcile of `twin` saw.
    pub fn see(&mut self, twin: &TwinRef, sighting: Sighting, now: Duration) {
        let window = self.window;
        if sighting.is_quiet() {
            let over = self.quarrels.get_mut(twin).is_some_and(|quarrel| !quarrel.lasts(window, now));
            if over {
                self.quarrels.remove(twin);
            }
            return;
        }
        let quarrel = self.quarrels.entry(twin.clone()).or_default();
        if quarrel.declared != sighting.declared {
            *quarrel = Quarrel { declared: sighting.declared, ..Quarrel::default() };
        }
        quarrel.forget_old(window, now);
        if sighting.seal_deleted {
            quarrel.seal_deleted.push(now);
        }
        if sighting.duplicate {
            quarrel.duplicate_until = Some(now + window);
        }
        for (leaf, by) in sighting.corrected {
            let times = quarrel.leaves.entry(leaf.clone()).or_default();
            times.push(now);
            if times.len() >= CORRECTIONS_MAX {
                // The next correction after the pause is one more: the quarrel goes on, and the pause is longer.
                times.remove(0);
                let pause = PAUSE_FIRST.saturating_mul(1 << quarrel.rounds.min(8)).min(PAUSE_MAX);
                quarrel.contest = Some(Contest { leaf, by, until: now + pause });
            }
        }
        if quarrel.contest.as_ref().is_some_and(|contest| contest.until > now) {
            quarrel.rounds = quarrel.rounds.saturating_add(1);
        }
    }

    /// What a reconcile of `twin` has to leave alone at `now`.
    #[must_use]
    pub fn restraint(&self, twin: &TwinRef, now: Duration) -> Restraint {
        let Some(quarrel) = self.quarrels.get(twin) else { return Restraint::default() };
        let recent = quarrel.seal_deleted.iter().filter(|at| now.saturating_sub(**at) < self.window);
        Restraint {
            contest: quarrel.contest.clone().filter(|contest| contest.until > now),
            seal_deletions: recent.count(),
            duplicate: quarrel.duplicate_until.is_some_and(|until| until > now),
        }
    }

    /// When a restraint of `twin` ends next, so that it is looked at again.
    #[must_use]
    pub fn next_end(&self, twin: &TwinRef, now: Duration) -> Option<Duration> {
        let quarrel = self.quarrels.get(twin)?;
        let contest = quarrel.contest.as_ref().map(|contest| contest.until);
        let seal = quarrel.seal_deleted.first().map(|at| *at + self.window);
        contest.into_iter().chain(seal).chain(quarrel.duplicate_until).filter(|end| *end > now).min()
    }

    /// Something else is declared for `twin`: whatever was, is over.
    pub fn settle(&mut self, twin: &TwinRef) {
        self.quarrels.remove(twin);
    }

    /// Drops what ended by itself.
    pub fn forget_old(&mut self, now: Duration) {
        let window = self.window;
        self.quarrels.retain(|_, quarrel| quarrel.lasts(window, now));
    }
}

impl Quarrel {
    fn forget_old(&mut self, window: Duration, now: Duration) {
        // While the twin is left alone no time passes for the quarrel.
        let paused = self.contest.as_ref().map_or(Duration::ZERO, |contest| contest.until);
        let recent = |at: &Duration| now.saturating_sub((*at).max(paused)) < window;
        self.leaves.values_mut().for_each(|times| times.retain(recent));
        self.leaves.retain(|_, times| !times.is_empty());
        self.seal_deleted.retain(recent);
        self.duplicate_until = self.duplicate_until.filter(|until| *until > now);
        if self.leaves.is_empty() {
            self.contest = None;
            self.rounds = 0;
        }
    }

    fn lasts(&mut self, window: Duration, now: Duration) -> bool {
        self.forget_old(window, now);
        !self.leaves.is_empty() || !self.seal_deleted.is_empty() || self.duplicate_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{DeviceId, Path, Section};

    fn twin() -> TwinRef {
        TwinRef::device(DeviceId::new("d").unwrap())
    }

    fn leaf(key: &str) -> Leaf {
        Leaf { section: Section::Tags, path: Path::new([key]) }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(count * 60)
    }

    fn corrected(key: &str) -> Sighting {
        Sighting { corrected: vec![(leaf(key), Some("adm".to_owned()))], ..Sighting::default() }
    }

    fn contested_until(rivals: &Rivals, now: Duration) -> Option<Duration> {
        rivals.restraint(&twin(), now).contest.map(|contest| contest.until)
    }

    #[test]
    fn a_leaf_corrected_three_times_within_the_window_is_contested() {
        for (sweep, times, contested) in [
            (10, [0, 10, 20], true),
            (10, [0, 29, 59], true),
            (10, [0, 30, 61], false),
            (60, [0, 70, 140], true),
            (60, [0, 90, 181], false),
        ] {
            let mut rivals = Rivals::new(minutes(sweep));
            times.iter().for_each(|at| rivals.see(&twin(), corrected("a"), minutes(*at)));
            let contest = rivals.restraint(&twin(), minutes(times[2])).contest;
            assert_eq!(contest.is_some(), contested, "{times:?}");
            assert!(contest.is_none_or(|contest| contest.by.as_deref() == Some("adm") && contest.leaf == leaf("a")));
        }
    }

    #[test]
    fn three_leaves_corrected_once_each_are_not_contested() {
        let mut rivals = Rivals::new(minutes(10));
        ["a", "b", "c"].iter().for_each(|key| rivals.see(&twin(), corrected(key), minutes(1)));
        assert_eq!(rivals.restraint(&twin(), minutes(1)), Restraint::default());
    }

    #[test]
    fn the_pause_grows_while_the_quarrel_goes_on_and_ends_with_it() {
        let mut rivals = Rivals::new(minutes(10));
        [0, 10, 20].iter().for_each(|at| rivals.see(&twin(), corrected("a"), minutes(*at)));
        assert_eq!(contested_until(&rivals, minutes(20)), Some(minutes(80)));
        assert_eq!(contested_until(&rivals, minutes(80)), None, "one more try");
        rivals.see(&twin(), corrected("a"), minutes(85));
        assert_eq!(contested_until(&rivals, minutes(85)), Some(minutes(85 + 120)));
        rivals.see(&twin(), corrected("a"), minutes(210));
        assert_eq!(contested_until(&rivals, minutes(210)), Some(minutes(210 + 240)));
        rivals.see(&twin(), Sighting::default(), minutes(450 + 59));
        assert_eq!(rivals.quarrels.len(), 1);
        rivals.see(&twin(), Sighting::default(), minutes(450 + 61));
        assert_eq!(rivals.quarrels.len(), 0, "an hour of peace");
        rivals.see(&twin(), corrected("a"), minutes(600));
        assert_eq!(contested_until(&rivals, minutes(600)), None);
    }

    #[test]
    fn a_seal_deleted_three_times_is_not_written_again() {
        let mut rivals = Rivals::new(minutes(10));
        let deleted = || Sighting { seal_deleted: true, ..Sighting::default() };
        [0, 10].iter().for_each(|at| rivals.see(&twin(), deleted(), minutes(*at)));
        let restraint = rivals.restraint(&twin(), minutes(10));
        assert!(!restraint.forbids_reseal(false) && restraint.forbids_reseal(true));
        assert_eq!(rivals.next_end(&twin(), minutes(10)), Some(minutes(60)));
        rivals.see(&twin(), deleted(), minutes(20));
        assert!(rivals.restraint(&twin(), minutes(20)).forbids_reseal(false));
        rivals.forget_old(minutes(81));
        assert_eq!(rivals.restraint(&twin(), minutes(81)), Restraint::default());
    }

    #[test]
    fn a_second_process_holds_the_twin_until_it_was_not_seen_for_a_while() {
        let mut rivals = Rivals::new(minutes(10));
        rivals.see(&twin(), Sighting { duplicate: true, ..Sighting::default() }, minutes(5));
        assert!(rivals.restraint(&twin(), minutes(64)).duplicate);
        assert!(!rivals.restraint(&twin(), minutes(65)).duplicate);
    }

    #[test]
    fn what_git_changes_ends_the_quarrel() {
        let mut rivals = Rivals::new(minutes(10));
        [0, 10, 20].iter().for_each(|at| rivals.see(&twin(), corrected("a"), minutes(*at)));
        rivals.settle(&twin());
        assert_eq!(rivals.restraint(&twin(), minutes(20)), Restraint::default());
    }
}
