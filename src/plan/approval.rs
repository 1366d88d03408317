//! What somebody lets pass though a guard holds it.
//!
//! Invariant: an approval is bound to the revision, the guard and the count that were seen, and to an hour: whatever
//! changes afterwards is held anew. Pure; time is the age of the process, handed in.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::twin::TwinRef;

/// How long an approval holds (DESIGN 4.7).
pub const APPROVAL_LIFE: Duration = Duration::from_secs(60 * 60);
/// Approvals remembered at one time; each is for another guard or twin.
const APPROVALS_MAX: usize = 1_000;

/// What holds changes back until somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuardKind {
    /// Too many twins would lose something.
    Removals,
    /// Too many devices would be registered.
    Creates,
    /// Too many twins would be changed.
    Updates,
    /// The manifests declare no twin at all.
    Empty,
    /// One twin's change would destroy leaves that are not ours.
    Shape,
}

impl GuardKind {
    /// Every guard.
    pub const ALL: [Self; 5] = [Self::Removals, Self::Creates, Self::Updates, Self::Empty, Self::Shape];

    /// The word on the command line and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removals => "removals",
            Self::Creates => "creates",
            Self::Updates => "updates",
            Self::Empty => "empty",
            Self::Shape => "shape",
        }
    }

    /// The guard with this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.as_str() == text)
    }
}

impl fmt::Display for GuardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `geminid approve` asks for; prints as that command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The hub's name in the settings.
    pub hub: String,
    /// The guard.
    pub guard: GuardKind,
    /// The twin, for [`GuardKind::Shape`] alone.
    pub twin: Option<TwinRef>,
    /// The revision that was looked at.
    pub revision: String,
    /// How many twins may pass (leaves, for [`GuardKind::Shape`]).
    pub count: usize,
}

impl fmt::Display for Approval {
    /// `geminid approve removals --hub prod --revision 3fa2 --count 31`, with `--twin` where one is named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hub, guard, twin, revision, count } = self;
        write!(f, "geminid approve {guard} --hub {hub} --revision {revision} --count {count}")?;
        twin.as_ref().map_or(Ok(()), |twin| write!(f, " --twin '{twin}'"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    revision: String,
    count: usize,
    until: Duration,
}

/// The approvals of one hub that hold.
#[derive(Debug, Clone, Default)]
pub struct Approvals {
    grants: BTreeMap<(GuardKind, Option<TwinRef>), Grant>,
}

impl Approvals {
    /// Grants `approval` for an hour from `now`; an earlier one for the same guard and twin is replaced. Answers
    /// whether there was room.
    pub fn grant(&mut self, approval: &Approval, now: Duration) -> bool {
        self.grants.retain(|_, grant| grant.until > now);
        let key = (approval.guard, approval.twin.clone());
        let room = self.grants.len() < APPROVALS_MAX || self.grants.contains_key(&key);
        if room {
            let grant =
                Grant { revision: approval.revision.clone(), count: approval.count, until: now + APPROVAL_LIFE };
            self.grants.insert(key, grant);
        }
        room
    }

    /// How many may pass the guard at `revision` by approval; 0 when nobody approved.
    #[must_use]
    pub fn approved(&self, guard: GuardKind, twin: Option<&TwinRef>, revision: &str, now: Duration) -> usize {
        let grant = self.grants.get(&(guard, twin.cloned()));
        grant.filter(|grant| grant.revision == revision && grant.until > now).map_or(0, |grant| grant.count)
    }

    /// When the next approval ends.
    #[must_use]
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.grants.values().map(|grant| grant.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    fn approval(guard: GuardKind, twin: Option<&str>, count: usize) -> Approval {
        let twin = twin.map(|id| TwinRef::device(DeviceId::new(id).unwrap()));
        Approval { hub: "prod".to_owned(), guard, twin, revision: "r1".to_owned(), count }
    }

    #[test]
    fn an_approval_is_bound_to_revision_guard_count_and_an_hour() {
        let mut approvals = Approvals::default();
        let at = Duration::from_secs;
        assert!(approvals.grant(&approval(GuardKind::Removals, None, 31), at(100)));
        for (guard, revision, now, expected) in [
            (GuardKind::Removals, "r1", 100, 31),
            (GuardKind::Removals, "r1", 3699, 31),
            (GuardKind::Removals, "r1", 3700, 0),
            (GuardKind::Removals, "r2", 100, 0),
            (GuardKind::Creates, "r1", 100, 0),
        ] {
            assert_eq!(approvals.approved(guard, None, revision, at(now)), expected, "{guard} {revision} {now}");
        }
        assert_eq!((approvals.next_end(at(100)), approvals.next_end(at(3700))), (Some(at(3700)), None));
        assert!(approvals.grant(&approval(GuardKind::Removals, None, 7), at(200)));
        assert_eq!(approvals.approved(GuardKind::Removals, None, "r1", at(200)), 7);
    }

    #[test]
    fn approvals_are_bounded_and_those_that_ended_make_room() {
        let mut approvals = Approvals::default();
        for n in 0..APPROVALS_MAX {
            assert!(approvals.grant(&approval(GuardKind::Shape, Some(&format!("d{n}")), 1), Duration::ZERO));
        }
        assert!(!approvals.grant(&approval(GuardKind::Shape, Some("one-more"), 1), Duration::ZERO));
        assert!(approvals.grant(&approval(GuardKind::Shape, Some("d0"), 2), Duration::ZERO));
        assert!(approvals.grant(&approval(GuardKind::Shape, Some("one-more"), 1), APPROVAL_LIFE));
    }

    #[test]
    fn an_approval_prints_as_the_command_that_gives_it() {
        assert_eq!(
            approval(GuardKind::Removals, None, 31).to_string(),
            "geminid approve removals --hub prod --revision r1 --count 31"
        );
        assert_eq!(
            approval(GuardKind::Shape, Some("d"), 2).to_string(),
            "geminid approve shape --hub prod --revision r1 --count 2 --twin 'd'"
        );
        for guard in GuardKind::ALL {
            assert_eq!(GuardKind::parse(guard.as_str()), Some(guard));
        }
        assert_eq!(GuardKind::parse("all"), None);
    }
}
