//! Twins that an edit of the manifests may have taken out of a profile's condition.
//!
//! Whether a twin left `where` by a change of its own or by an edit cannot be seen in the twin. The state before the edit
//! tells, asked about the twin as just read: what it would still set, the edit took away, and what it would set no
//! longer, the twin left by itself. So that state is kept, as far as it concerns the twin, until the twin was planned and
//! nothing of that plan waits.
//!
//! Invariants: a twin that nobody remembers left by itself, so that a forgotten edit leaves values and never takes them.
//! Memory is bounded by the members of the profiles that were edited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Declaration, DeclaredState, Frozen, Leaf, LiveCondition, Members, Profile, declare, declare_presumed};
use crate::twin::{Twin, TwinRef};

/// What was declared for a twin before the first edit that may have taken it out of a profile.
#[derive(Debug, Clone)]
struct Former {
    /// The state then; of its manifests those of the twins concerned.
    state: Arc<DeclaredState>,
    /// The profiles with a condition that the twin was in, by name.
    profiles: BTreeSet<String>,
    /// Whether the twin was planned since; then it waits for somebody to act.
    planned: bool,
}

/// The twins that an edit may have taken out of a profile, until it is known and done.
#[derive(Debug, Clone, Default)]
pub struct Departures {
    twins: BTreeMap<TwinRef, Former>,
}

impl Departures {
    /// The manifests say `after` now and said `before`, when `members` were in the profiles with a condition; `changed`
    /// have another manifest or other profiles by label or id. Answers the twins that may lose something by it: they
    /// count for the removals guard until a sweep or a read shows otherwise.
    pub fn take_edit(
        &mut self,
        before: &DeclaredState,
        after: &DeclaredState,
        members: &Members,
        changed: &BTreeSet<TwinRef>,
    ) -> BTreeSet<TwinRef> {
        let mut leaving: BTreeMap<TwinRef, BTreeSet<String>> = BTreeMap::new();
        for (profile, condition) in before.conditional() {
            let Some(members) = members.get(&profile.name) else { continue };
            let successor = after.profiles.iter().find(|after| after.name == profile.name);
            let takes = successor.is_none_or(|after| takes_from(profile, after));
            let mut leave = |twin: &TwinRef| {
                leaving.entry(twin.clone()).or_default().insert(profile.name.clone());
            };
            if takes {
                members.iter().for_each(&mut leave);
            } else {
                let stays = |twin: &TwinRef| stays_selected(profile, condition, before, after, twin);
                changed.iter().filter(|twin| members.contains(*twin) && !stays(twin)).for_each(&mut leave);
            }
        }
        let twins: BTreeSet<TwinRef> = leaving.keys().cloned().collect();
        leaving.retain(|twin, _| !self.twins.contains_key(twin));
        if !leaving.is_empty() {
            let state = Arc::new(restricted(before, leaving.keys()));
            for (twin, profiles) in leaving {
                self.twins.insert(twin, Former { state: Arc::clone(&state), profiles, planned: false });
            }
        }
        twins
    }

    /// The state before the edit that may have taken something from `twin`, if that is not settled.
    #[must_use]
    pub fn former(&self, twin: &TwinRef) -> Option<&Arc<DeclaredState>> {
        self.twins.get(twin).map(|former| &former.state)
    }

    /// Whether `twin` waits to be planned for the first time since the edit.
    #[must_use]
    pub fn is_unplanned(&self, twin: &TwinRef) -> bool {
        self.twins.get(twin).is_some_and(|former| !former.planned)
    }

    /// `twin` was planned, and something of it waits.
    pub fn plan(&mut self, twin: &TwinRef) {
        if let Some(former) = self.twins.get_mut(twin) {
            former.planned = true;
        }
    }

    /// What the edit took from `twin` is done, or there is no such twin.
    pub fn settle(&mut self, twin: &TwinRef) {
        self.twins.remove(twin);
    }

    /// A sweep found `members` in the profiles of `state`. Forgets the twins that by its rows lose nothing, and
    /// answers them.
    pub fn settle_staying(&mut self, state: &DeclaredState, members: &Members) -> Vec<TwinRef> {
        let staying: Vec<TwinRef> = self
            .twins
            .iter()
            .filter(|(twin, former)| {
                let alone = former.profiles.iter().map(|name| (name.clone(), BTreeSet::from([(*twin).clone()])));
                let before = declare_presumed(&former.state, twin, &alone.collect());
                let after = declare_presumed(state, twin, members);
                after.hold().is_none() && !before.loses_to(&after)
            })
            .map(|(twin, _)| twin.clone())
            .collect();
        staying.iter().for_each(|twin| self.settle(twin));
        staying
    }
}

/// What `state` declares for `twin`, just read as `live`. What `former` would still set in it, an edit took away: the
/// twin did not leave that by itself.
#[must_use]
pub fn declare_since(
    state: &DeclaredState,
    former: Option<&DeclaredState>,
    twin: &TwinRef,
    live: &Twin,
) -> Declaration {
    let mut declaration = declare(state, twin, Some(live));
    let (Some(former), Some(left)) = (former, declaration.left_mut()) else { return declaration };
    if let Some(before) = declare(former, twin, Some(live)).declared() {
        left.retain(|leaf, _| !before.leaves.contains_key(leaf));
    }
    match declaration {
        Declaration::Left(left) if left.is_empty() => Declaration::Absent,
        Declaration::Left(_)
        | Declaration::Declared(_)
        | Declaration::Kept(..)
        | Declaration::Broken(_)
        | Declaration::Incomplete(_)
        | Declaration::Tied(_)
        | Declaration::Absent => declaration,
    }
}

/// Whether a member of `before` may lose something because `after` has taken its place.
fn takes_from(before: &Profile, after: &Profile) -> bool {
    let (one, other) = (&before.selector, &after.selector);
    let same_condition = match (&one.condition, &other.condition) {
        (Some(one), Some(other)) => one.asks_the_same_as(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let same_twins = same_condition
        && before.target == after.target
        && one.match_labels == other.match_labels
        && one.devices == other.devices;
    let wanted = |profile: &Profile| -> BTreeSet<Leaf> {
        profile.wanted.leaves(&profile.source).map(|(leaf, ..)| leaf).collect()
    };
    !same_twins || !wanted(before).is_subset(&wanted(after))
}

/// Whether nothing that is declared for a member of `profile` besides its condition can take it out: its manifest is
/// selected as before, and what the condition reads is declared as before.
fn stays_selected(
    profile: &Profile,
    condition: &LiveCondition,
    before: &DeclaredState,
    after: &DeclaredState,
    twin: &TwinRef,
) -> bool {
    if !profile.selects(twin, after.twins.get(twin).map(AsRef::as_ref)) {
        return false;
    }
    let reads: Vec<Leaf> = condition.reads().map(|(leaf, _)| leaf).collect();
    let seen = |state: &DeclaredState| {
        let declaration = declare(state, twin, None);
        let leaves = declaration.declared().map(|declared| declared.leaves.clone()).unwrap_or_default();
        let is_read = |leaf: &Leaf| reads.iter().any(|read| read.is_related_to(leaf));
        let values = leaves.into_iter().filter(|(leaf, _)| is_read(leaf));
        values.map(|(leaf, want)| (leaf, (want.value, want.initial_only))).collect::<BTreeMap<_, _>>()
    };
    seen(before) == seen(after)
}

/// What of `state` tells of `twins`.
fn restricted<'a>(state: &DeclaredState, twins: impl Iterator<Item = &'a TwinRef>) -> DeclaredState {
    let mut own = DeclaredState {
        revision: state.revision.clone(),
        profiles: state.profiles.clone(),
        frozen: Frozen { unknown: state.frozen.unknown.clone(), ..Frozen::default() },
        ..DeclaredState::default()
    };
    for twin in twins {
        if let Some(manifest) = state.twins.get(twin) {
            own.twins.insert(twin.clone(), Arc::clone(manifest));
        }
        if let Some(place) = state.frozen.held.get(twin) {
            own.frozen.held.insert(twin.clone(), place.clone());
        }
    }
    own
}

#[cfg(test)]
#[path = "departure_tests.rs"]
mod tests;
