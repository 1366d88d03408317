//! The plan for one twin, as data.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{Approval, Contest, DeclaredHash, FileSpan, GuardKind, Leaf, Salt, Subtree, Suspend, Tie};
use crate::twin::{ETag, MergePatch, Section, Value};

/// One leaf to set or remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub leaf: Leaf,
    /// The live value; `None` when there is none.
    pub from: Option<Value>,
    /// The declared value; `None` removes.
    pub to: Option<Value>,
    /// Who declared it; `None` for a leaf that is declared no more.
    pub source: Option<FileSpan>,
    /// What hides the values when they are sensitive.
    pub mask: Option<Salt>,
}

impl fmt::Display for Change {
    /// `+ path = to`, `- path (was from)`, `~ path = to (was from)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaf = &self.leaf;
        let show = |value: &Value| self.mask.map_or_else(|| value.to_string(), |salt| salt.hide(value));
        match (self.from.as_ref().map(show), self.to.as_ref().map(show)) {
            (None, Some(to)) => write!(f, "+ {leaf} = {to}"),
            (Some(from), None) => write!(f, "- {leaf} (was {from})"),
            (Some(from), Some(to)) => write!(f, "~ {leaf} = {to} (was {from})"),
            (None, None) => write!(f, "  {leaf}"),
        }
    }
}

/// Why live and declared differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// We never sealed this twin.
    FirstContact,
    /// The declared state is not the one we sealed.
    Git,
    /// The declared state is the one we sealed: somebody else wrote.
    Drift,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::FirstContact, Self::Git, Self::Drift];

    /// The word in audit lines and in kept plans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstContact => "first_contact",
            Self::Git => "git",
            Self::Drift => "drift",
        }
    }
}

/// Why removals wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemovalHold {
    /// No complete sweep since start has been judged yet.
    #[error("waits for the first complete sweep since start")]
    FirstSweep,
    /// The declared state is empty.
    #[error(
        "waits, as the manifests declare no twin at all; an empty state removes nothing unless `{approve}` lets it"
    )]
    EmptyState {
        /// What would let it pass.
        approve: Arc<Approval>,
    },
    /// A manifest of this source is broken.
    #[error("waits until {0} can be read again; nothing is removed while a manifest of the source is broken")]
    SourceBroken(FileSpan),
    /// More twins would lose something than the guard lets pass.
    #[error(
        "waits, as {removals} twins would lose something within 24 h and the guard lets {allowed} pass; `{approve}` lets it pass once"
    )]
    Guard {
        /// Twins that lost or would lose a leaf or a seal.
        removals: usize,
        /// What the guard lets pass.
        allowed: usize,
        /// What would let it pass.
        approve: Arc<Approval>,
    },
    /// A nominating query has not been answered to the end: who is in the profile is unknown.
    #[error("waits until the query of the profile at {0} has been answered to the end")]
    MembershipUnknown(FileSpan),
    /// The command removes nothing for manifests that are gone.
    #[error("waits, as its manifest is gone: `run` settles that, and `apply` with --prune")]
    NotPruned,
    /// The mode removes nothing.
    #[error("is not made in mode upsert; `mode = \"sync\"` removes")]
    Upsert,
    /// Without seals nobody knows what is ours.
    #[error("is not made without seals; `ownership = \"seal\"` removes")]
    NoOwnership,
}

impl RemovalHold {
    /// The approval that would let the removals pass, if one can.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::EmptyState { approve } | Self::Guard { approve, .. } => Some(approve),
            Self::FirstSweep
            | Self::SourceBroken(_)
            | Self::MembershipUnknown(_)
            | Self::NotPruned
            | Self::Upsert
            | Self::NoOwnership => None,
        }
    }

    /// Whether the settings ask for it: then what stays in the twin is what its people want.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        match self {
            Self::Upsert | Self::NoOwnership => true,
            Self::FirstSweep
            | Self::EmptyState { .. }
            | Self::SourceBroken(_)
            | Self::Guard { .. }
            | Self::MembershipUnknown(_)
            | Self::NotPruned => false,
        }
    }
}

/// Whether a plan may remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removals {
    /// It may.
    Go,
    /// It must hold them.
    Held(RemovalHold),
}

/// Why registering or changing twins waits: more of them than the guard lets pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} twins would be {} within 24 h and the guard lets {allowed} pass; `{approve}` lets it pass once", done(approve.guard))]
pub struct ChangeHold {
    /// Twins it happened to, or would happen to.
    pub count: usize,
    /// What the guard lets pass.
    pub allowed: usize,
    /// What would let it pass.
    pub approve: Arc<Approval>,
}

fn done(guard: GuardKind) -> &'static str {
    match guard {
        GuardKind::Creates => "registered",
        GuardKind::Updates => "changed",
        GuardKind::Removals | GuardKind::Empty | GuardKind::Shape => "touched",
    }
}

/// What a plan may do to a twin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permits {
    /// Whether it may remove.
    pub removals: Removals,
    /// Why it may set nothing; `None` when it may.
    pub updates: Option<ChangeHold>,
    /// Whether it may destroy leaves that are not ours where a declared value needs their place.
    pub shapes: bool,
}

impl Permits {
    /// Everything but what only an approval lets pass.
    pub const ALL: Self = Self { removals: Removals::Go, updates: None, shapes: false };

    /// Everything likewise, but removals wait.
    #[must_use]
    pub const fn holding(hold: RemovalHold) -> Self {
        Self { removals: Removals::Held(hold), updates: None, shapes: false }
    }
}

/// Why a part of a plan, or all of it, is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldReason {
    /// The change would destroy leaves that are not ours.
    ShapeConflict {
        /// The leaves that would be lost.
        lost: Vec<Leaf>,
        /// What would let it happen, where somebody can be asked.
        approve: Option<Arc<Approval>>,
    },
    /// Another owner's seal holds the path, one above it, or a live leaf below it.
    OwnershipConflict {
        /// The other owner.
        owner: String,
    },
    /// The twin carries a seal of ours in a later format.
    SealNewer {
        /// Its version.
        version: i64,
    },
    /// The tags have no room for the seal.
    SealTooLarge {
        /// The tags without our seal, in bytes.
        tags: usize,
        /// Our seal with its key, in bytes.
        seal: usize,
    },
    /// Declared and foreign leaves together exceed a section.
    SectionTooLarge {
        /// The section.
        section: Section,
        /// Its size after the change, in bytes.
        size: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// A removal must wait.
    Removal(RemovalHold),
    /// A registration or a change must wait.
    Guarded(ChangeHold),
    /// The twin has left a profile's condition and its value is to stay, no longer ours; that must wait.
    Leaving {
        /// The leaf.
        leaf: Leaf,
        /// Why it waits.
        hold: RemovalHold,
    },
    /// The twin's manifest is broken and was never read well by this process.
    ManifestBroken(FileSpan),
    /// A document that may concern this twin cannot be read.
    SourceIncomplete(FileSpan),
    /// The twin's manifest suspends it.
    Suspended(Suspend),
    /// Profiles of one priority contradict one another.
    ProfileTie(Box<Tie>),
    /// Somebody else keeps writing a leaf.
    Contested(Contest),
    /// Somebody keeps deleting our seal.
    SealContested,
    /// Another process writes as the same owner, for another declared state.
    DuplicateOwner,
    /// The device was there and is gone; `create` does not bring back what somebody deleted.
    DeletedOutside,
}

impl HeldReason {
    /// The reason as a condition shows it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ShapeConflict { .. } => "ShapeConflict",
            Self::OwnershipConflict { .. } => "OwnershipConflict",
            Self::SealNewer { .. } => "SealNewer",
            Self::SealTooLarge { .. } => "SealTooLarge",
            Self::SectionTooLarge { .. } => "SectionTooLarge",
            Self::Removal(_) | Self::Leaving { .. } => "RemovalHeld",
            Self::Guarded(hold) => match hold.approve.guard {
                GuardKind::Creates => "CreateHeld",
                GuardKind::Removals | GuardKind::Updates | GuardKind::Empty | GuardKind::Shape => "UpdateHeld",
            },
            Self::ManifestBroken(_) => "ManifestBroken",
            Self::SourceIncomplete(_) => "SourceIncomplete",
            Self::Suspended(_) => "Suspended",
            Self::ProfileTie(_) => "ProfileTie",
            Self::Contested(_) | Self::SealContested => "Contested",
            Self::DuplicateOwner => "DuplicateOwner",
            Self::DeletedOutside => "DeletedOutside",
        }
    }
}

impl HeldReason {
    /// Whether people asked for it: then nobody waits for the twin to change.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        match self {
            Self::Suspended(_) => true,
            Self::Removal(hold) | Self::Leaving { hold, .. } => hold.is_wanted(),
            Self::ShapeConflict { .. }
            | Self::OwnershipConflict { .. }
            | Self::SealNewer { .. }
            | Self::SealTooLarge { .. }
            | Self::SectionTooLarge { .. }
            | Self::Guarded(_)
            | Self::ManifestBroken(_)
            | Self::SourceIncomplete(_)
            | Self::ProfileTie(_)
            | Self::Contested(_)
            | Self::SealContested
            | Self::DuplicateOwner
            | Self::DeletedOutside => false,
        }
    }

    /// The approval that would let it pass, if one can.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::ShapeConflict { approve, .. } => approve.as_deref(),
            Self::Removal(hold) | Self::Leaving { hold, .. } => hold.approval(),
            Self::Guarded(hold) => Some(&hold.approve),
            Self::OwnershipConflict { .. }
            | Self::SealNewer { .. }
            | Self::SealTooLarge { .. }
            | Self::SectionTooLarge { .. }
            | Self::ManifestBroken(_)
            | Self::SourceIncomplete(_)
            | Self::Suspended(_)
            | Self::ProfileTie(_)
            | Self::Contested(_)
            | Self::SealContested
            | Self::DuplicateOwner
            | Self::DeletedOutside => None,
        }
    }
}

impl fmt::Display for HeldReason {
    /// One sentence: what, and the way out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShapeConflict { lost, approve } => {
                let lost = list(lost);
                write!(f, "would destroy leaves that are not ours: {lost}; remove them at the hub or declare them")?;
                approve.as_ref().map_or(Ok(()), |approve| write!(f, ", or let it happen with `{approve}`"))
            }
            Self::OwnershipConflict { owner } => {
                write!(f, "owner {owner} has another value here; declare the path in one place only")
            }
            Self::SealNewer { version } => {
                write!(f, "sealed by a later geminid (format {version}); run that version or a later one")
            }
            Self::SealTooLarge { tags, seal } => write!(
                f,
                "no room for the seal: tags take {tags} bytes and the seal {seal}, {} fit; shorten the tags",
                crate::twin::size_max(Section::Tags)
            ),
            Self::SectionTooLarge { section, size, max } => write!(
                f,
                "{} would take {size} bytes with the leaves of others, {max} fit; declare less or shorten theirs",
                section.as_str()
            ),
            Self::Removal(hold) => write!(f, "removal {hold}"),
            Self::Guarded(hold) => write!(f, "{hold}"),
            Self::Leaving { leaf, hold } => write!(f, "letting go of {leaf} {hold}"),
            Self::ManifestBroken(place) => write!(f, "the manifest at {place} is broken; correct it"),
            Self::SourceIncomplete(place) => {
                write!(f, "{place} cannot be read and may concern this twin; correct it")
            }
            Self::Suspended(Suspend { reason, until: None }) => write!(f, "suspended: {reason}"),
            Self::Suspended(Suspend { reason, until: Some((_, until)) }) => {
                write!(f, "suspended until {until}: {reason}")
            }
            Self::ProfileTie(tie) => write!(f, "{tie}; give one of them another priority"),
            Self::Contested(Contest { leaf, by, .. }) => {
                let who = by.as_ref().map_or_else(
                    || "somebody else".to_owned(),
                    |by| format!("the configuration {by}"),
                );
                write!(f, "{who} keeps writing {leaf}, it was corrected again and again; let one of both go of it")
            }
            Self::SealContested => {
                f.write_str("somebody keeps deleting our seal, it is not written again; whoever edits tags by hand must keep tags.geminid")
            }
            Self::DuplicateOwner => f.write_str(
                "another process has sealed the twin as the same owner for other manifests; give each instance an owner of its own",
            ),
            Self::DeletedOutside => {
                f.write_str("the device was deleted by somebody else; change its manifest to create it again")
            }
        }
    }
}

fn list(leaves: &[Leaf]) -> String {
    /// Enough to recognise the subtree.
    const SHOWN_MAX: usize = 5;
    let mut names: Vec<String> = leaves.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if leaves.len() > SHOWN_MAX {
        names.push(format!("{} more", leaves.len() - SHOWN_MAX));
    }
    names.join(", ")
}

/// Something a plan does not do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The change held; `None` when the whole twin is.
    pub change: Option<Change>,
    /// Why.
    pub reason: HeldReason,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.change {
            Some(change) => write!(f, "{change}: held: {}", self.reason),
            None => write!(f, "held: {}", self.reason),
        }
    }
}

/// What a plan does to our seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealAction {
    /// It stands as it should, or there is none and none is needed.
    Keep,
    /// It is written.
    Write,
    /// It is removed.
    Remove,
}

impl SealAction {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Write, Self::Remove];

    /// The word in audit lines and in kept plans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "kept",
            Self::Write => "written",
            Self::Remove => "removed",
        }
    }
}

/// What would be done to one twin, what is held, and the one guarded patch that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinPlan {
    /// The leaves that change, in order. The seal is not among them.
    pub changes: Vec<Change>,
    /// What is not done.
    pub held: Vec<Held>,
    /// Why live and declared differ.
    pub cause: Cause,
    /// What happens to the seal.
    pub seal: SealAction,
    /// The patch; `None` when nothing is to be written.
    pub patch: Option<MergePatch>,
    /// Whether the twin loses, or would lose but for a hold, a leaf or its seal: it counts for the removals guard.
    pub removes: bool,
    /// The hash of what is declared; `None` when nothing is, or it is unknown.
    pub declared: Option<DeclaredHash>,
    /// The etag the patch is foretold to produce.
    pub etag_after: Option<ETag>,
}

impl TwinPlan {
    /// Hides the values of the plan that stand in, above or beneath one of the `sensitive` places.
    #[must_use]
    pub fn masked(mut self, sensitive: &BTreeSet<Subtree>, salt: Salt) -> Self {
        let held = self.held.iter_mut().filter_map(|held| held.change.as_mut());
        for change in self.changes.iter_mut().chain(held) {
            let hidden = sensitive.iter().any(|place| place.touches(&change.leaf));
            change.mask = hidden.then_some(salt);
        }
        self
    }

    /// A plan that does nothing, for `reason` if there is one.
    #[must_use]
    pub fn nothing(reason: Option<HeldReason>) -> Self {
        Self {
            changes: Vec::new(),
            held: reason.map(|reason| Held { change: None, reason }).into_iter().collect(),
            cause: Cause::FirstContact,
            seal: SealAction::Keep,
            patch: None,
            removes: false,
            declared: None,
            etag_after: None,
        }
    }

    /// Whether the twin is as declared and nothing is held; a seal may still be due.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.changes.is_empty() && self.held.is_empty() && self.seal != SealAction::Remove
    }

    /// Whether a leaf is set, or would be.
    #[must_use]
    pub fn updates(&self) -> bool {
        let held = self.held.iter().filter(|held| matches!(held.reason, HeldReason::Guarded(_)));
        self.changes.iter().chain(held.filter_map(|held| held.change.as_ref())).any(|change| change.to.is_some())
    }

    /// Whether the twin loses a leaf of ours, a profile or its seal by what is planned: held removals stay.
    #[must_use]
    pub fn loses(&self) -> bool {
        // What holds one removal of a twin holds all of them.
        let kept = |held: &Held| matches!(held.reason, HeldReason::Removal(_) | HeldReason::Leaving { .. });
        self.removes && !self.held.iter().any(kept)
    }

    /// Leaves that are not ours and that only an approval lets the plan destroy.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lost = |held: &Held| if let HeldReason::ShapeConflict { lost, .. } = &held.reason { lost.len() } else { 0 };
        self.held.iter().map(lost).sum()
    }

    /// Whether only the seal is written.
    #[must_use]
    pub fn seal_only(&self) -> bool {
        self.patch.is_some() && self.changes.is_empty()
    }
}
