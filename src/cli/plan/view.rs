//! A survey as people and programs are shown it: sorted into groups, counted.
//!
//! Invariant: pure, and every order is that of a sorted collection. A twin stands in exactly one group.

use std::collections::BTreeMap;

use crate::controller::{PlannedTwin, Surveyed};
use crate::plan::{Cause, Change, SealAction};
use crate::twin::{TwinRef, Value};

/// The longest value shown, in characters, unless everything is asked for.
const VALUE_MAX: usize = 120;

/// What a plan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub(super) owner: String,
    pub(super) host: String,
    pub(super) revision: String,
    /// Errors in the manifests.
    pub(super) problems: usize,
    /// What stands over the whole plan, each one sentence.
    pub(super) notices: Vec<String>,
}

/// Where a twin is shown, in the order of showing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Outside,
    Yours,
    New,
    Register,
    Release,
    Held,
    Missing,
    Failed,
    Seal,
    InSync,
}

impl Group {
    /// The words over the group.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Outside => "Changed outside: somebody else wrote what the manifests declare",
            Self::Yours => "You changed it: the manifests declare something else than was applied",
            Self::New => "New to this owner: declared, and never applied",
            Self::Register => "To register",
            Self::Release => "Manifest gone: the seal would be removed",
            Self::Held => "Held back",
            Self::Missing => "Not registered",
            Self::Failed => "Could not be planned",
            Self::Seal => "To seal: the values are right, our record of them is not",
            Self::InSync => "In sync",
        }
    }

    /// The word programs are told.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "changed_outside",
            Self::Yours => "changed_in_manifests",
            Self::New => "new",
            Self::Register => "register",
            Self::Release => "release",
            Self::Held => "held",
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::Seal => "seal",
            Self::InSync => "in_sync",
        }
    }

    const fn of(surveyed: &Surveyed) -> Self {
        let plan = match surveyed {
            Surveyed::Plan(planned) => &planned.plan,
            Surveyed::Create(_) => return Self::Register,
            Surveyed::Missing => return Self::Missing,
            Surveyed::Failed(_) => return Self::Failed,
        };
        match (plan.seal, plan.changes.is_empty(), plan.held.is_empty()) {
            (SealAction::Remove, _, _) => Self::Release,
            (_, true, false) => Self::Held,
            (SealAction::Write, true, true) => Self::Seal,
            (SealAction::Keep, true, true) => Self::InSync,
            (SealAction::Keep | SealAction::Write, false, _) => match plan.cause {
                Cause::Drift => Self::Outside,
                Cause::Git => Self::Yours,
                Cause::FirstContact => Self::New,
            },
        }
    }

    /// Whether the twin is as declared; a seal may be due.
    const fn is_in_sync(self) -> bool {
        matches!(self, Self::Seal | Self::InSync)
    }
}

/// Twins and leaves, counted. A twin with something held beside its changes counts for both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) twins: usize,
    pub(super) register: usize,
    pub(super) change: usize,
    pub(super) outside: usize,
    pub(super) release: usize,
    pub(super) held: usize,
    pub(super) missing: usize,
    pub(super) failed: usize,
    pub(super) seal: usize,
    pub(super) in_sync: usize,
    pub(super) leaves_added: usize,
    pub(super) leaves_changed: usize,
    pub(super) leaves_removed: usize,
}

impl Counts {
    fn count(&mut self, group: Group, surveyed: &Surveyed) {
        self.twins += 1;
        match group {
            Group::Outside => {
                self.change += 1;
                self.outside += 1;
            }
            Group::Yours | Group::New => self.change += 1,
            Group::Register => self.register += 1,
            Group::Release => self.release += 1,
            Group::Held => {}
            Group::Missing => self.missing += 1,
            Group::Failed => self.failed += 1,
            Group::Seal => {
                self.seal += 1;
                self.in_sync += 1;
            }
            Group::InSync => self.in_sync += 1,
        }
        let Some(planned) = planned(surveyed) else { return };
        self.held += usize::from(!planned.plan.held.is_empty());
        for change in &planned.plan.changes {
            match Operation::of(change) {
                Operation::Add => self.leaves_added += 1,
                Operation::Change => self.leaves_changed += 1,
                Operation::Remove => self.leaves_removed += 1,
            }
        }
    }

    /// What is not nothing, with its words.
    pub(super) fn listed(&self) -> Vec<(usize, &'static str)> {
        let all = [
            (self.register, "to register"),
            (self.change, "to change"),
            (self.release, "to release"),
            (self.held, "held"),
            (self.missing, "missing"),
            (self.failed, "not planned"),
            (self.seal, "to seal"),
            (self.in_sync, "in sync"),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).collect()
    }

    /// Likewise for leaves.
    pub(super) fn leaves(&self) -> Vec<(usize, &'static str)> {
        let all =
            [(self.leaves_added, "to add"), (self.leaves_changed, "to change"), (self.leaves_removed, "to remove")];
        all.into_iter().filter(|(count, _)| *count > 0).collect()
    }
}

/// What happens to one leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Change,
    Remove,
}

impl Operation {
    pub(super) const fn of(change: &Change) -> Self {
        match (&change.from, &change.to) {
            (None, _) => Self::Add,
            (Some(_), Some(_)) => Self::Change,
            (Some(_), None) => Self::Remove,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
        }
    }
}

/// A survey, sorted and counted.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) about: About,
    pub(super) counts: Counts,
    /// Every group that is shown, with its twins.
    pub(super) groups: BTreeMap<Group, Vec<(&'a TwinRef, &'a Surveyed)>>,
    /// Owners met beside ours, with the number of twins they have sealed.
    pub(super) other_owners: BTreeMap<&'a str, usize>,
    detailed: bool,
}

impl<'a> View<'a> {
    /// Sorts a survey; twins in sync are shown when it is to be `detailed`.
    pub(super) fn new(plans: &'a BTreeMap<TwinRef, Surveyed>, about: About, detailed: bool) -> Self {
        let (mut counts, mut groups, mut other_owners) = (Counts::default(), BTreeMap::new(), BTreeMap::new());
        for (twin, surveyed) in plans {
            let group = Group::of(surveyed);
            counts.count(group, surveyed);
            if detailed || !group.is_in_sync() {
                groups.entry(group).or_insert_with(Vec::new).push((twin, surveyed));
            }
            for owner in planned(surveyed).into_iter().flat_map(|planned| &planned.other_owners) {
                *other_owners.entry(owner.as_str()).or_default() += 1;
            }
        }
        Self { about, counts, groups, other_owners, detailed }
    }

    /// 0 nothing to do, 1 something, 2 when not everything could be planned.
    pub(super) fn exit_code(&self) -> u8 {
        let counts = &self.counts;
        if counts.failed > 0 || self.about.problems > 0 {
            return 2;
        }
        u8::from(counts.register + counts.change + counts.release + counts.held + counts.missing > 0)
    }

    /// Twins that are not in sync, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a TwinRef> {
        let shown = self.groups.iter().filter(|(group, _)| !group.is_in_sync());
        let mut twins: Vec<&TwinRef> = shown.flat_map(|(_, twins)| twins.iter().map(|(twin, _)| *twin)).collect();
        twins.sort();
        twins.into_iter()
    }

    /// `3 twins: 1 to change, 2 in sync`.
    pub(super) fn summary(&self) -> String {
        let listed = phrase(&self.counts.listed());
        let twins = crate::cli::output::counted(self.counts.twins, "twin");
        if listed.is_empty() { twins } else { format!("{twins}: {listed}") }
    }

    /// A value at the length shown, hidden when it is sensitive.
    pub(super) fn value(&self, change: &Change, value: &Value) -> String {
        let text = change.mask.map_or_else(|| value.to_string(), |salt| salt.hide(value));
        match text.char_indices().nth(VALUE_MAX) {
            Some((cut, _)) if !self.detailed => format!("{}... ({} characters)", &text[..cut], text.chars().count()),
            Some(_) | None => text,
        }
    }

    /// `path = to (was from)` and who wants it.
    pub(super) fn change(&self, change: &Change) -> String {
        let leaf = &change.leaf;
        let show = |value: &Value| self.value(change, value);
        let text = match (change.from.as_ref().map(show), change.to.as_ref().map(show)) {
            (None, Some(to)) => format!("{leaf} = {to}"),
            (Some(from), None) => format!("{leaf} (was {from})"),
            (Some(from), Some(to)) => format!("{leaf} = {to} (was {from})"),
            (None, None) => leaf.to_string(),
        };
        match &change.source {
            Some(place) => format!("{text}  ({}:{})", place.file, place.line),
            None => text,
        }
    }
}

/// The plan of a twin, if there is one.
pub(super) const fn planned(surveyed: &Surveyed) -> Option<&PlannedTwin> {
    match surveyed {
        Surveyed::Plan(planned) | Surveyed::Create(planned) => Some(planned),
        Surveyed::Missing | Surveyed::Failed(_) => None,
    }
}

/// Why there is no plan, in one sentence.
pub(super) fn why_not(twin: &TwinRef, surveyed: &Surveyed) -> Option<String> {
    match surveyed {
        Surveyed::Plan(_) | Surveyed::Create(_) => None,
        Surveyed::Missing if twin.module.is_some() => {
            Some("the module is not registered; register it first".to_owned())
        }
        Surveyed::Missing => Some("the device is not registered; register it, or set `create: true`".to_owned()),
        Surveyed::Failed(error) => Some(error.to_string()),
    }
}

/// `1 a, 2 b`.
pub(super) fn phrase(counts: &[(usize, &str)]) -> String {
    counts.iter().map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}
