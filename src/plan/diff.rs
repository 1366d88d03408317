//! One declaration and one live twin to the plan for that twin.
//!
//! ```text
//!   live at a declared leaf       declared scalar, array        declared {}      declared null
//!   ----------------------        ----------------------        -----------      -------------
//!   nothing                       set                           set              in sync
//!   equal value                   in sync                       in sync          -
//!   another scalar or array       set                           set              remove
//!   an object                     set, if all in it is ours     in sync          remove, if all in it is ours
//!   a scalar above                set, if that is ours          likewise         in sync
//! ```
//!
//! Invariant: a leaf that is neither declared nor owned is in no patch.

mod transfer;

pub use transfer::{Transfer, TransferPlan, plan_transfer};

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::declare::leaves_of;
use super::seal::Ownership;
use super::{
    Cause, Change, Declaration, Declared, DeclaredHash, DeclaredLeaf, Held, HeldReason, Leaf, PathHash, Permits,
    RemovalHold, RemovalPolicy, Removals, SEAL_KEY, Seal, SealAction, SealScope, SealState, Suspend, TwinPlan,
    identity_hash, next_etag,
};
use crate::twin::{MergePatch, Object, Path, Section, Twin, Value, section_size, size_max};

/// The plan that brings `live` to what is declared for it, as far as `permits` lets it.
#[must_use]
pub fn plan_twin(scope: &SealScope, declaration: &Declaration, live: &Twin, permits: &Permits) -> TwinPlan {
    let seal = if scope.seals { SealState::read(live, scope.owner.as_str()) } else { SealState::Absent };
    if let SealState::Newer(version) = seal {
        return TwinPlan::nothing(Some(HeldReason::SealNewer { version }));
    }
    if let Some(reason) = seal.seal().and_then(|seal| seal.suspended.clone()) {
        let held = HeldReason::Suspended(Suspend { reason, until: None });
        let hash = |declared| DeclaredHash::of(scope, &live.twin_ref, declared);
        // Known, so that a row that shows the twin untouched since needs no read.
        return TwinPlan { declared: declaration.declared().map(hash), ..TwinPlan::nothing(Some(held)) };
    }
    match declaration {
        Declaration::Broken(_) | Declaration::Incomplete(_) | Declaration::Tied(_) => {
            TwinPlan::nothing(declaration.hold())
        }
        Declaration::Declared(declared) | Declaration::Kept(declared, _) => {
            Planner::new(scope, live, &seal, permits).plan_declared(declared)
        }
        Declaration::Left(_) | Declaration::Absent if seal == SealState::Absent => TwinPlan::nothing(None),
        Declaration::Left(left) => Planner::new(scope, live, &seal, permits).plan_absent(left),
        Declaration::Absent => Planner::new(scope, live, &seal, permits).plan_absent(&BTreeMap::new()),
    }
}

/// The plan that records in the seal why `live` is left alone from now on, or that it is not any more.
#[must_use]
pub fn plan_suspension(scope: &SealScope, live: &Twin, suspended: Option<&str>) -> TwinPlan {
    let seal = SealState::read(live, scope.owner.as_str());
    if let SealState::Newer(version) = seal {
        return TwinPlan::nothing(Some(HeldReason::SealNewer { version }));
    }
    let mut planner = Planner::new(scope, live, &seal, &Permits::ALL);
    if let Some(blocked) = planner.blocked_seal_place() {
        return TwinPlan::nothing(Some(blocked));
    }
    let next = Seal {
        declared: None,
        etag: next_etag(&live.etag).map(|etag| etag.to_string()),
        identity: live.device_etag.as_deref().map(identity_hash),
        suspended: suspended.map(str::to_owned),
        ..seal.seal().cloned().unwrap_or_default()
    };
    planner.set_seal(&next);
    if let Some(reason) = planner.too_large() {
        return TwinPlan::nothing(Some(reason));
    }
    let held = suspended.map(|reason| Suspend { reason: reason.to_owned(), until: None });
    planner.held.extend(held.map(|held| Held { change: None, reason: HeldReason::Suspended(held) }));
    planner.finish(SealAction::Write, Cause::Git, None)
}

/// Collects a plan. Lives for one call of [`plan_twin`].
struct Planner<'a> {
    scope: &'a SealScope,
    live: &'a Twin,
    seal: &'a SealState,
    permits: &'a Permits,
    /// Every live leaf, the seals left out, once somebody asks.
    leaves: OnceCell<BTreeMap<Leaf, &'a Value>>,
    /// Live leaves that our seal owns; of two with one hash, neither.
    ours: BTreeSet<Leaf>,
    /// What the seals of other owners hold; `None` when a seal is of a later format and cannot tell.
    others: Vec<(&'a str, Option<BTreeSet<PathHash>>)>,
    changes: Vec<Change>,
    held: Vec<Held>,
    /// Leaves we owned that another owner holds too: neither removes them, and we let go of them.
    released: BTreeSet<Leaf>,
    patch: MergePatch,
    removes: bool,
}

/// How a declared leaf stands in the live twin.
enum Standing {
    InSync,
    /// To be written; `lost` are the live leaves that the write destroys besides the leaf itself.
    Differs {
        from: Option<Value>,
        lost: Vec<Leaf>,
    },
}

impl<'a> Planner<'a> {
    fn new(scope: &'a SealScope, live: &'a Twin, seal: &'a SealState, permits: &'a Permits) -> Self {
        let leaves = OnceCell::new();
        let ours = owned_leaves(scope, live, seal, || leaves.get_or_init(|| live_leaves(live)));
        Self {
            scope,
            live,
            seal,
            permits,
            leaves,
            ours,
            others: other_owners(scope, live),
            changes: Vec::new(),
            held: Vec::new(),
            released: BTreeSet::new(),
            patch: MergePatch::default(),
            removes: false,
        }
    }

    fn leaves(&self) -> &BTreeMap<Leaf, &'a Value> {
        self.leaves.get_or_init(|| live_leaves(self.live))
    }

    fn plan_declared(mut self, declared: &Declared) -> TwinPlan {
        if let Some(blocked) = self.blocked_seal_place() {
            return TwinPlan::nothing(Some(blocked));
        }
        for (leaf, want) in &declared.leaves {
            self.plan_leaf(leaf, want);
        }
        // A twin that had a manifest, and has only profiles now, keeps what its manifest said to leave.
        let orphaned =
            !declared.named && self.seal.seal().is_some_and(|seal| seal.removal_policy == RemovalPolicy::Orphan);
        for leaf in self.undeclared(declared) {
            if orphaned || declared.left.get(&leaf) == Some(&RemovalPolicy::Orphan) {
                self.disown(leaf);
            } else {
                self.remove(&leaf);
            }
        }
        let hash = DeclaredHash::of(self.scope, &self.live.twin_ref, declared);
        self.prune_emptied(Some(declared));
        self.seal_and_finish(declared, hash)
    }

    /// The manifest is gone: the seal goes, with `clear` what we own goes too, what the twin `left` to stay excepted.
    fn plan_absent(mut self, left: &BTreeMap<Leaf, RemovalPolicy>) -> TwinPlan {
        self.removes = true;
        if let Some(hold) = self.removal_hold() {
            let reason = HeldReason::Removal(hold.clone());
            return TwinPlan { removes: true, cause: Cause::Git, ..TwinPlan::nothing(Some(reason)) };
        }
        if self.seal.seal().is_some_and(|seal| seal.removal_policy == RemovalPolicy::Clear) {
            for leaf in self.ours.clone() {
                if left.get(&leaf) != Some(&RemovalPolicy::Orphan) {
                    self.remove(&leaf);
                }
            }
        }
        self.prune_emptied(None);
        self.remove_seal(self.scope.owner.as_str());
        self.finish(SealAction::Remove, Cause::Git, None)
    }

    /// Takes the seal of `owner` away, and the place of seals with the last one.
    fn remove_seal(&mut self, owner: &str) {
        let alone = self.live.tags.get(SEAL_KEY).and_then(Value::as_object).is_none_or(|seals| seals.len() <= 1);
        let keys = [SEAL_KEY.to_owned(), owner.to_owned()];
        self.patch.set(Section::Tags, if alone { &keys[..1] } else { &keys }, Value::Null);
    }

    /// A foreign value where seals belong would be destroyed by writing ours.
    fn blocked_seal_place(&self) -> Option<HeldReason> {
        let place = self.live.tags.get(SEAL_KEY).filter(|_| self.scope.seals && !self.permits.shapes)?;
        let lost = Leaf { section: Section::Tags, path: Path::new([SEAL_KEY]) };
        place.as_object().is_none().then(|| HeldReason::ShapeConflict { lost: vec![lost], approve: None })
    }

    fn plan_leaf(&mut self, leaf: &Leaf, want: &DeclaredLeaf) {
        let Standing::Differs { from, lost } = self.standing(leaf, &want.value) else { return };
        if want.initial_only && (from.is_some() || !lost.is_empty()) {
            return;
        }
        let to = (want.value != Value::Null).then(|| want.value.clone());
        let change = Change { leaf: leaf.clone(), from, to, source: Some(want.source.clone()), mask: None };
        // What is ours beneath, or in the way, is lost just as a leaf that is removed by itself.
        let loses = change.to.is_none() || !lost.is_empty();
        let foreign: Vec<Leaf> = lost.iter().filter(|lost| !self.ours.contains(lost)).cloned().collect();
        let reason = if let Some(owner) = self.other_owner_of(leaf, &lost) {
            Some(HeldReason::OwnershipConflict { owner })
        } else if !foreign.is_empty() && !self.permits.shapes {
            Some(HeldReason::ShapeConflict { lost: foreign, approve: None })
        } else {
            self.removes |= loses;
            let removal = self.removal_hold().filter(|_| loses).map(HeldReason::Removal);
            let update = self.permits.updates.clone().filter(|_| change.to.is_some()).map(HeldReason::Guarded);
            removal.or(update)
        };
        match reason {
            Some(reason) => self.held.push(Held { change: Some(change), reason }),
            None => self.make(change),
        }
    }

    /// Why nothing may be removed now, if so.
    fn removal_hold(&self) -> Option<RemovalHold> {
        match &self.permits.removals {
            Removals::Held(hold) => Some(hold.clone()),
            Removals::Go => (!self.scope.seals).then_some(RemovalHold::NoOwnership),
        }
    }

    fn standing(&self, leaf: &Leaf, want: &Value) -> Standing {
        let keys = leaf.path.keys();
        let mut object = self.live.section(leaf.section);
        for (depth, key) in keys.iter().enumerate() {
            let last = depth + 1 == keys.len();
            match object.get(key) {
                Some(value) if last => return self.standing_at(leaf, want, value),
                Some(Value::Object(inner)) => object = inner,
                _ if *want == Value::Null => return Standing::InSync,
                None => return Standing::Differs { from: None, lost: Vec::new() },
                Some(_scalar_above) => {
                    let above = Path::new(keys[..=depth].iter().cloned());
                    return Standing::Differs { from: None, lost: vec![Leaf { section: leaf.section, path: above }] };
                }
            }
        }
        Standing::InSync
    }

    fn standing_at(&self, leaf: &Leaf, want: &Value, value: &Value) -> Standing {
        let any_object = want.as_object().is_some() && value.as_object().is_some();
        if any_object || value == want {
            return Standing::InSync;
        }
        let lost = match value.as_object() {
            Some(object) if !object.is_empty() => self.beneath(leaf).cloned().collect(),
            Some(_) | None => Vec::new(),
        };
        Standing::Differs { from: Some(value.clone()), lost }
    }

    /// Live leaves strictly below `leaf`.
    fn beneath(&self, leaf: &Leaf) -> impl Iterator<Item = &Leaf> {
        let within = |below: &&Leaf| below.section == leaf.section && leaf.path.covers(&below.path);
        self.leaves()
            .range(leaf.clone()..)
            .map(|(below, _)| below)
            .take_while(within)
            .filter(move |below| *below != leaf)
    }

    /// An owner other than us whose seal holds the leaf, a path above it, or a live leaf that would be lost.
    fn other_owner_of(&self, leaf: &Leaf, lost: &[Leaf]) -> Option<String> {
        if self.others.is_empty() {
            return None;
        }
        let above = (1..=leaf.path.keys().len())
            .map(|depth| Leaf { section: leaf.section, path: Path::new(leaf.path.keys()[..depth].iter().cloned()) });
        let concerned: Vec<Leaf> = above.chain(lost.iter().cloned()).collect();
        let exists = || concerned.iter().any(|leaf| self.leaves().contains_key(leaf));
        self.others.iter().find_map(|(owner, owned)| {
            let theirs = owned.as_ref().map(|owned| self.ownership(owner, owned));
            let holds = theirs.map_or_else(exists, |theirs| concerned.iter().any(|leaf| theirs.holds(leaf)));
            holds.then(|| (*owner).to_owned())
        })
    }

    fn ownership<'b>(&'b self, owner: &'b str, owned: &'b BTreeSet<PathHash>) -> Ownership<'b> {
        Ownership::new(owner, &self.scope.host, &self.live.twin_ref, owned)
    }

    /// Live leaves that we own, that are declared no more, and that no declared leaf replaces or needs.
    fn undeclared(&self, declared: &Declared) -> Vec<Leaf> {
        let needed = |ours: &Leaf| {
            declared.leaves.iter().any(|(leaf, want)| {
                let related = leaf.section == ours.section;
                let replaced = leaf.path.covers(&ours.path) && want.value.as_object().is_none();
                let in_the_way = ours.path.covers(&leaf.path) && want.value != Value::Null;
                related && (leaf == ours || replaced || in_the_way)
            })
        };
        self.ours.iter().filter(|ours| !needed(ours)).cloned().collect()
    }

    /// Removes a leaf that we own, unless another owner holds it as well: then neither removes it.
    fn remove(&mut self, leaf: &Leaf) {
        if self.other_owner_of(leaf, &[]).is_some() {
            self.released.insert(leaf.clone());
            return;
        }
        self.removes = true;
        let change = Change {
            leaf: leaf.clone(),
            from: self.leaves().get(leaf).map(|v| (*v).clone()),
            to: None,
            source: None,
            mask: None,
        };
        match self.removal_hold() {
            None => self.make(change),
            Some(hold) => self.held.push(Held { change: Some(change), reason: HeldReason::Removal(hold) }),
        }
    }

    /// Lets go of a leaf that we own and leaves its value.
    fn disown(&mut self, leaf: Leaf) {
        self.removes = true;
        match self.removal_hold() {
            None => drop(self.released.insert(leaf)),
            Some(hold) => self.held.push(Held { change: None, reason: HeldReason::Leaving { leaf, hold } }),
        }
    }

    fn make(&mut self, change: Change) {
        let value = change.to.clone().unwrap_or(Value::Null);
        self.patch.set(change.leaf.section, change.leaf.path.keys(), value);
        self.changes.push(change);
    }

    /// Objects that our removals leave empty go too, upwards, up to one that is itself declared.
    fn prune_emptied(&mut self, declared: Option<&Declared>) {
        for section in Section::ALL {
            let removed: Vec<Path> = self
                .changes
                .iter()
                .filter(|change| change.leaf.section == section && change.to.is_none())
                .map(|change| change.leaf.path.clone())
                .collect();
            for path in removed {
                let mut above = path.parent();
                while let Some(object) = above.filter(|object| *object != Path::root()) {
                    let after = Value::Object(self.live.section_after(section, &self.patch));
                    let empty = after.get(object.keys().iter().map(String::as_str)) == Some(&Value::empty_object());
                    let leaf = Leaf { section, path: object };
                    if !empty || declared.is_some_and(|declared| declared.leaves.contains_key(&leaf)) {
                        break;
                    }
                    self.patch.set(section, leaf.path.keys(), Value::Null);
                    above = leaf.path.parent();
                }
            }
        }
    }

    fn seal_and_finish(mut self, declared: &Declared, hash: DeclaredHash) -> TwinPlan {
        let old = self.seal.seal();
        let guarded = self.held.iter().any(|held| matches!(held.reason, HeldReason::Guarded(_)));
        let cause = match old.map(|seal| seal.declared.as_deref() == Some(hash.as_str())) {
            None => Cause::FirstContact,
            Some(true) => Cause::Drift,
            Some(false) => Cause::Git,
        };
        if guarded {
            // Not even the seal: a guard that holds a mass of writes must not make one of its own for each.
            let (held, removes) = (self.held, self.removes);
            return TwinPlan { held, cause, removes, declared: Some(hash), ..TwinPlan::nothing(None) };
        }
        let next = Seal {
            declared: self.held.is_empty().then(|| hash.as_str().to_owned()),
            owned: self.owned_after(declared),
            etag: next_etag(&self.live.etag).map(|etag| etag.to_string()),
            identity: self.live.device_etag.as_deref().map(identity_hash),
            removal_policy: declared.removal_policy,
            suspended: None,
        };
        let stands = match self.seal {
            SealState::Present(seal) => seal.records_the_same_as(&next),
            SealState::Absent => next.declared.is_none() && next.owned.is_empty(),
            SealState::Newer(_) | SealState::Unreadable => false,
        };
        let keep = !self.scope.seals || (stands && self.changes.is_empty());
        let action = if keep { SealAction::Keep } else { SealAction::Write };
        if action == SealAction::Write {
            self.set_seal(&next);
        }
        if let Some(reason) = self.too_large() {
            // Nothing of it can be written, so nothing is claimed as done.
            return TwinPlan { cause, declared: Some(hash), ..TwinPlan::nothing(Some(reason)) };
        }
        self.finish(action, cause, Some(hash))
    }

    /// What we own once the plan is applied: the declared leaves that are not held, and what we owned before that
    /// still stands, released leaves excepted. So a held removal stays ours.
    fn owned_after(&self, declared: &Declared) -> BTreeSet<PathHash> {
        let nothing = BTreeSet::new();
        let old = self.seal.seal().map_or(&nothing, |seal| &seal.owned);
        let hashing = self.ownership(self.scope.owner.as_str(), old);
        let held: BTreeSet<&Leaf> = self.held.iter().filter_map(|held| Some(&held.change.as_ref()?.leaf)).collect();
        let settled = declared.leaves.iter().filter(|(leaf, want)| want.value != Value::Null && !held.contains(leaf));
        let mut owned: BTreeSet<PathHash> = settled.map(|(leaf, _)| hashing.hash(leaf)).collect();
        if old.is_empty() {
            return owned;
        }
        let after = Section::ALL.map(|section| Value::Object(self.live.section_after(section, &self.patch)));
        for (leaf, value) in self.leaves() {
            let section = &after[usize::from(leaf.section == Section::Desired)];
            let stands = section.get(leaf.path.keys().iter().map(String::as_str)) == Some(value);
            if stands && !self.released.contains(leaf) && hashing.holds(leaf) {
                owned.insert(hashing.hash(leaf));
            }
        }
        owned
    }

    fn set_seal(&mut self, next: &Seal) {
        self.set_seal_of(self.scope.owner.as_str(), next);
    }

    /// Puts a seal into the patch as the difference to what stands there, so that a field left out goes away.
    fn set_seal_of(&mut self, owner: &str, next: &Seal) {
        let before = self.live.tags.get(SEAL_KEY).and_then(|seals| seals.get([owner]));
        let mut object = next.to_object();
        for key in before.and_then(Value::as_object).into_iter().flat_map(Object::keys) {
            object.entry(key.clone()).or_insert(Value::Null);
        }
        self.patch.set(Section::Tags, &[SEAL_KEY.to_owned(), owner.to_owned()], Value::Object(object));
    }

    /// Whether a section would outgrow the hub's limit with the leaves of others in it.
    fn too_large(&self) -> Option<HeldReason> {
        for section in Section::ALL {
            let Some(patch) = self.patch.section(section) else { continue };
            let max = size_max(section);
            // Nothing is in the section afterwards that is not in one of both.
            if section_size(self.live.section(section)) + section_size(patch) <= max {
                continue;
            }
            let mut after = self.live.section_after(section, &self.patch);
            let size = section_size(&after);
            if size <= max {
                continue;
            }
            if let Some(Value::Object(seals)) = after.get_mut(SEAL_KEY).filter(|_| section == Section::Tags) {
                seals.remove(self.scope.owner.as_str());
                if seals.is_empty() {
                    after.remove(SEAL_KEY);
                }
            }
            let tags = section_size(&after);
            return Some(if tags <= max {
                HeldReason::SealTooLarge { tags, seal: size - tags }
            } else {
                HeldReason::SectionTooLarge { section, size, max }
            });
        }
        None
    }

    fn finish(self, seal: SealAction, cause: Cause, declared: Option<DeclaredHash>) -> TwinPlan {
        let patch = (!self.patch.is_empty()).then_some(self.patch);
        let etag_after = patch.as_ref().and_then(|_| next_etag(&self.live.etag));
        TwinPlan {
            changes: self.changes,
            held: self.held,
            cause,
            seal,
            patch,
            removes: self.removes,
            declared,
            etag_after,
        }
    }
}

/// Every leaf of the two sections, what lies under the seal key left out.
fn live_leaves(live: &Twin) -> BTreeMap<Leaf, &Value> {
    let mut leaves = BTreeMap::new();
    for section in Section::ALL {
        for (path, value) in leaves_of(live.section(section)) {
            if section == Section::Desired || path.keys().first().is_none_or(|key| key != SEAL_KEY) {
                leaves.insert(Leaf { section, path }, value);
            }
        }
    }
    leaves
}

/// The live leaves in our seal. Two live leaves with one hash are left out both: which one is ours is unknown.
fn owned_leaves<'l, 'v: 'l>(
    scope: &SealScope,
    live: &Twin,
    seal: &SealState,
    leaves: impl FnOnce() -> &'l BTreeMap<Leaf, &'v Value>,
) -> BTreeSet<Leaf> {
    let Some(seal) = seal.seal().filter(|seal| !seal.owned.is_empty()) else { return BTreeSet::new() };
    let ours = Ownership::new(scope.owner.as_str(), &scope.host, &live.twin_ref, &seal.owned);
    let mut by_hash: BTreeMap<PathHash, Vec<&Leaf>> = BTreeMap::new();
    for leaf in leaves().keys() {
        by_hash.entry(ours.hash(leaf)).or_default().push(leaf);
    }
    let unambiguous = by_hash.into_iter().filter(|(hash, leaves)| leaves.len() == 1 && seal.owned.contains(hash));
    unambiguous.flat_map(|(_, leaves)| leaves).cloned().collect()
}

/// What the seals of other owners in this twin hold; `None` for one of a later format. A damaged one holds nothing.
fn other_owners<'a>(scope: &SealScope, live: &'a Twin) -> Vec<(&'a str, Option<BTreeSet<PathHash>>)> {
    let seals = live.tags.get(SEAL_KEY).and_then(Value::as_object);
    let others = seals.into_iter().flat_map(Object::keys).filter(|owner| *owner != scope.owner.as_str());
    others
        .filter_map(|owner| match SealState::read(live, owner) {
            SealState::Present(seal) => Some((owner.as_str(), Some(seal.owned))),
            SealState::Newer(_) => Some((owner.as_str(), None)),
            SealState::Absent | SealState::Unreadable => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
