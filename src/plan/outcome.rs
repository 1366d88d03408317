//! How one reconcile ended, and what everybody is told of it: one table.
//!
//! ```text
//!   outcome        reason               Synced    state
//!   InSync         InSync               True      in_sync
//!   Applied        Applied              True      in_sync
//!   Drifted        Drifted              False     drifted (mode observe)
//!   Kept           ManifestBroken       False     frozen
//!   Held           the hold's           False     held, or frozen when a manifest is broken,
//!                                                   or suspended, or contested
//!   Pending        Pending              Unknown   pending
//!   Conflict       Conflict             False     conflict
//!   Throttled      Throttled            Unknown   pending
//!   Missing        Missing              False     missing
//!   Rejected       Rejected             False     rejected
//!   Unauthorized   Unauthorized         Unknown   unauthorized
//!   Quota          Quota                Unknown   pending
//!   Failed         Failed               Unknown   failed
//!   Released       -                    -         - (no manifest names the twin any more)
//! ```

use super::HeldReason;

/// How one reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Read, and as declared.
    InSync,
    /// Written; the twin is as declared now.
    Applied,
    /// Not as declared, and nobody may write.
    Drifted,
    /// As its last good manifest declares; the present one is broken.
    Kept,
    /// Something is not done; what may be done is.
    Held(HeldReason),
    /// Not reconciled yet.
    Pending,
    /// Somebody else wrote between read and write, again and again.
    Conflict,
    /// The hub asks for patience.
    Throttled,
    /// The device or module does not exist.
    Missing,
    /// The hub refuses what is declared.
    Rejected,
    /// The hub refuses our credential for this twin.
    Unauthorized,
    /// The hub's daily message quota is used up.
    Quota,
    /// The hub failed or cannot be reached.
    Failed,
    /// The manifest is gone and the twin is no longer ours.
    Released,
}

/// The `Synced` condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// The hub has accepted what is declared.
    True,
    /// It has not.
    False,
    /// It could not be found out.
    Unknown,
}

/// What an outcome says of whether a twin has what Git says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has, or its people want it to be left as it is.
    AsWanted,
    /// It has not, and waiting alone may not mend that.
    Astray,
    /// Nothing new: it waits for its turn or for the hub.
    Unchanged,
}

/// The `state` label of `geminid_twins` (`metrics.md` section 7); states exclude one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TwinState {
    /// As declared.
    InSync,
    /// Not as declared, in mode observe.
    Drifted,
    /// Waits for its turn or for the hub.
    Pending,
    /// Something is held.
    Held,
    /// Written by others faster than by us.
    Conflict,
    /// Somebody else keeps writing other values, or deleting our seal.
    Contested,
    /// Its manifest is broken.
    Frozen,
    /// Refused by the hub.
    Rejected,
    /// Left alone by its manifest's wish.
    Suspended,
    /// Not registered.
    Missing,
    /// Our credential does not reach it.
    Unauthorized,
    /// The hub failed.
    Failed,
}

impl TwinState {
    /// Every state, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::InSync,
        Self::Drifted,
        Self::Pending,
        Self::Held,
        Self::Conflict,
        Self::Contested,
        Self::Frozen,
        Self::Rejected,
        Self::Suspended,
        Self::Missing,
        Self::Unauthorized,
        Self::Failed,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Drifted => "drifted",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Conflict => "conflict",
            Self::Contested => "contested",
            Self::Frozen => "frozen",
            Self::Rejected => "rejected",
            Self::Suspended => "suspended",
            Self::Missing => "missing",
            Self::Unauthorized => "unauthorized",
            Self::Failed => "failed",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The reason, in CamelCase.
    pub reason: &'static str,
    /// Whether the twin is synced.
    pub synced: Synced,
    /// The state it counts under.
    pub state: TwinState,
}

impl Outcome {
    /// The row of the table for this outcome; `None` for a twin that is no longer ours.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let (reason, synced, state) = match self {
            Self::InSync => ("InSync", Synced::True, TwinState::InSync),
            Self::Applied => ("Applied", Synced::True, TwinState::InSync),
            Self::Drifted => ("Drifted", Synced::False, TwinState::Drifted),
            Self::Kept => ("ManifestBroken", Synced::False, TwinState::Frozen),
            Self::Held(reason) => (reason.as_str(), Synced::False, held_state(reason)),
            Self::Pending => ("Pending", Synced::Unknown, TwinState::Pending),
            Self::Conflict => ("Conflict", Synced::False, TwinState::Conflict),
            Self::Throttled => ("Throttled", Synced::Unknown, TwinState::Pending),
            Self::Missing => ("Missing", Synced::False, TwinState::Missing),
            Self::Rejected => ("Rejected", Synced::False, TwinState::Rejected),
            Self::Unauthorized => ("Unauthorized", Synced::Unknown, TwinState::Unauthorized),
            Self::Quota => ("Quota", Synced::Unknown, TwinState::Pending),
            Self::Failed => ("Failed", Synced::Unknown, TwinState::Failed),
            Self::Released => return None,
        };
        Some(Condition { reason, synced, state })
    }

    /// Whether the twin has what Git says by this outcome.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::InSync | Self::Applied | Self::Released => Standing::AsWanted,
            Self::Held(reason) if reason.is_wanted() => Standing::AsWanted,
            Self::Held(_)
            | Self::Drifted
            | Self::Kept
            | Self::Conflict
            | Self::Missing
            | Self::Rejected
            | Self::Unauthorized
            | Self::Failed => Standing::Astray,
            Self::Pending | Self::Throttled | Self::Quota => Standing::Unchanged,
        }
    }
}

const fn held_state(reason: &HeldReason) -> TwinState {
    match reason {
        HeldReason::ManifestBroken(_) | HeldReason::SourceIncomplete(_) => TwinState::Frozen,
        HeldReason::Suspended(_) => TwinState::Suspended,
        HeldReason::Contested(_) | HeldReason::SealContested => TwinState::Contested,
        HeldReason::ShapeConflict { .. }
        | HeldReason::OwnershipConflict { .. }
        | HeldReason::SealNewer { .. }
        | HeldReason::SealTooLarge { .. }
        | HeldReason::SectionTooLarge { .. }
        | HeldReason::Removal(_)
        | HeldReason::Guarded(_)
        | HeldReason::Leaving { .. }
        | HeldReason::ProfileTie(_)
        | HeldReason::DuplicateOwner
        | HeldReason::DeletedOutside => TwinState::Held,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::plan::{Approval, ChangeHold, Contest, FileSpan, GuardKind, Leaf, RemovalHold, Suspend, Tie};
    use crate::twin::{Path, Section};

    /// Every way to be held.
    fn holds() -> Vec<HeldReason> {
        let place = FileSpan { file: "a.yaml".into(), line: 1, column: 1 };
        let leaf = Leaf { section: Section::Tags, path: Path::new(["a".to_owned()]) };
        let approval =
            |guard| Arc::new(Approval { hub: "h".to_owned(), guard, twin: None, revision: "r".to_owned(), count: 2 });
        let guarded = |guard| HeldReason::Guarded(ChangeHold { count: 2, allowed: 1, approve: approval(guard) });
        let profile = ("p".to_owned(), leaf.clone(), place.clone());
        vec![
            HeldReason::ShapeConflict { lost: Vec::new(), approve: None },
            HeldReason::OwnershipConflict { owner: "other".to_owned() },
            HeldReason::SealNewer { version: 2 },
            HeldReason::SealTooLarge { tags: 8_000, seal: 300 },
            HeldReason::SectionTooLarge { section: Section::Tags, size: 8_193, max: 8_192 },
            HeldReason::Removal(RemovalHold::FirstSweep),
            guarded(GuardKind::Creates),
            guarded(GuardKind::Updates),
            HeldReason::Leaving { leaf: leaf.clone(), hold: RemovalHold::FirstSweep },
            HeldReason::ManifestBroken(place.clone()),
            HeldReason::SourceIncomplete(place),
            HeldReason::Suspended(Suspend { reason: "test".to_owned(), until: None }),
            HeldReason::ProfileTie(Box::new(Tie { priority: 1, one: profile.clone(), other: profile })),
            HeldReason::Contested(Contest { leaf, by: None, until: Duration::ZERO }),
            HeldReason::SealContested,
            HeldReason::DuplicateOwner,
            HeldReason::DeletedOutside,
        ]
    }

    fn outcomes() -> Vec<Outcome> {
        let mut all = vec![
            Outcome::InSync,
            Outcome::Applied,
            Outcome::Drifted,
            Outcome::Kept,
            Outcome::Pending,
            Outcome::Conflict,
            Outcome::Throttled,
            Outcome::Missing,
            Outcome::Rejected,
            Outcome::Unauthorized,
            Outcome::Quota,
            Outcome::Failed,
            Outcome::Released,
        ];
        all.extend(holds().into_iter().map(Outcome::Held));
        all
    }

    /// `docs/concepts.md` has each reason once, with its condition and state; a row may name several reasons.
    #[test]
    fn the_table_is_the_one_in_the_docs() {
        let page = include_str!("../../docs/concepts.md");
        let (_, table) = page.split_once("| Reason | Synced | State |").unwrap();
        let words = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let mut written = BTreeSet::new();
        for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for reason in words(cells[1]) {
                let row = format!("{reason} {} {}", cells[2], words(cells[3]).concat());
                assert!(written.insert(row.clone()), "{row} twice");
            }
        }
        let known: Vec<Condition> = outcomes().iter().filter_map(Outcome::condition).collect();
        let row = |it: &Condition| format!("{} {:?} {}", it.reason, it.synced, it.state.as_str());
        assert_eq!(written, known.iter().map(row).collect());
        let states: BTreeSet<TwinState> = known.iter().map(|condition| condition.state).collect();
        assert_eq!(states, BTreeSet::from(TwinState::ALL), "each state is reached");
    }

    #[test]
    fn the_docs_have_every_guard() {
        let page = include_str!("../../docs/concepts.md");
        for guard in GuardKind::ALL {
            assert!(page.contains(&format!("\n| `{guard}` | ")), "{guard}");
        }
    }

    #[test]
    fn a_twin_that_is_no_longer_ours_has_no_condition() {
        assert_eq!(Outcome::Released.condition(), None);
    }

    #[test]
    fn a_twin_is_astray_when_neither_its_people_nor_patience_explain_it() {
        let place = FileSpan { file: "a.yaml".into(), line: 1, column: 1 };
        let removal = |hold| Outcome::Held(HeldReason::Removal(hold));
        let suspend = Suspend { reason: "test".to_owned(), until: None };
        let rows = [
            (Outcome::InSync, Standing::AsWanted),
            (Outcome::Applied, Standing::AsWanted),
            (Outcome::Held(HeldReason::Suspended(suspend)), Standing::AsWanted),
            (removal(RemovalHold::Upsert), Standing::AsWanted),
            (removal(RemovalHold::NoOwnership), Standing::AsWanted),
            (removal(RemovalHold::FirstSweep), Standing::Astray),
            (removal(RemovalHold::SourceBroken(place)), Standing::Astray),
            (Outcome::Held(HeldReason::DeletedOutside), Standing::Astray),
            (Outcome::Held(HeldReason::SealContested), Standing::Astray),
            (Outcome::Drifted, Standing::Astray),
            (Outcome::Kept, Standing::Astray),
            (Outcome::Conflict, Standing::Astray),
            (Outcome::Missing, Standing::Astray),
            (Outcome::Rejected, Standing::Astray),
            (Outcome::Unauthorized, Standing::Astray),
            (Outcome::Failed, Standing::Astray),
            (Outcome::Pending, Standing::Unchanged),
            (Outcome::Throttled, Standing::Unchanged),
            (Outcome::Quota, Standing::Unchanged),
        ];
        for (outcome, standing) in rows {
            assert_eq!(outcome.standing(), standing, "{outcome:?}");
        }
    }
}
