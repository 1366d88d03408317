//! What is ours by a person's word: paths taken over from another owner's seal, and a seal given up.
//!
//! ```text
//!   a path in the other owner's seal                      adopted   adopted with undeclared
//!   ------------------------------------------------      -------   -----------------------
//!   declared here, above or below such a path             moves     moves
//!   live, and nobody here declares it                     stays     moves
//!   neither live nor declared here                        goes once nothing else stays in that seal
//! ```
//!
//! Invariant: no value changes. A patch made here writes seals and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::{Planner, live_leaves};
use crate::plan::seal::Ownership;
use crate::plan::{
    Cause, Declared, HeldReason, Leaf, Owner, PathHash, Permits, SEAL_KEY, Seal, SealAction, SealScope, SealState,
    Suspend, TwinPlan, identity_hash, next_etag,
};
use crate::twin::{Path, Section, Twin, Value};

/// How paths change their owner, by a person's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Into our seal out of another one.
    Adopt {
        /// Whose seal gives them up.
        from: Owner,
        /// Whether paths that nobody declares here move too; the next pass removes these.
        undeclared: bool,
    },
    /// Out of our seal, which goes; every value stays.
    Release,
}

/// A transfer in one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferPlan {
    /// The paths that change their owner, in order.
    pub moved: Vec<Leaf>,
    /// Live paths that the other owner keeps, because nobody declares them here.
    pub kept: Vec<Leaf>,
    /// The one guarded patch, or why there is none.
    pub plan: TwinPlan,
}

impl TransferPlan {
    fn held(reason: HeldReason) -> Self {
        Self { moved: Vec::new(), kept: Vec::new(), plan: TwinPlan::nothing(Some(reason)) }
    }

    /// Whether both do the same, whatever etags they rest on.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let reasons = |plan: &Self| plan.plan.held.clone();
        (&self.moved, &self.kept, reasons(self)) == (&other.moved, &other.kept, reasons(other))
    }
}

/// The plan of `transfer` for `live`, of which this is `declared` here. `None` when there is nothing to transfer.
#[must_use]
pub fn plan_transfer(
    scope: &SealScope,
    transfer: &Transfer,
    declared: Option<&Declared>,
    live: &Twin,
) -> Option<TransferPlan> {
    let ours = SealState::read(live, scope.owner.as_str());
    match transfer {
        Transfer::Release if ours == SealState::Absent => None,
        Transfer::Release => Some(untouchable(&ours).unwrap_or_else(|| plan_release(scope, &ours, live))),
        Transfer::Adopt { from, undeclared } => {
            let seal = match SealState::read(live, from.as_str()) {
                SealState::Absent | SealState::Unreadable => return None,
                SealState::Newer(version) => return Some(TransferPlan::held(HeldReason::SealNewer { version })),
                SealState::Present(seal) => seal,
            };
            let theirs = Theirs::find(scope, from, &seal, declared, live, *undeclared);
            if theirs.moved.is_empty() {
                return None;
            }
            Some(untouchable(&ours).unwrap_or_else(|| theirs.plan(scope, &ours, declared, live)))
        }
    }
}

/// Why our seal must stay as it is, if so.
fn untouchable(ours: &SealState) -> Option<TransferPlan> {
    let reason = match ours {
        SealState::Newer(version) => HeldReason::SealNewer { version: *version },
        SealState::Present(seal) => HeldReason::Suspended(Suspend { reason: seal.suspended.clone()?, until: None }),
        SealState::Absent | SealState::Unreadable => return None,
    };
    Some(TransferPlan::held(reason))
}

fn plan_release(scope: &SealScope, ours: &SealState, live: &Twin) -> TransferPlan {
    let mut planner = Planner::new(scope, live, ours, &Permits::ALL);
    planner.removes = true;
    planner.remove_seal(scope.owner.as_str());
    let moved = planner.ours.iter().cloned().collect();
    TransferPlan { moved, kept: Vec::new(), plan: planner.finish(SealAction::Remove, Cause::Git, None) }
}

/// Another owner's seal, sorted into what moves and what stays.
struct Theirs<'a> {
    from: &'a Owner,
    seal: &'a Seal,
    moved: Vec<Leaf>,
    kept: Vec<Leaf>,
    /// The hashes that stay with them.
    rest: BTreeSet<PathHash>,
}

impl<'a> Theirs<'a> {
    fn find(
        scope: &SealScope,
        from: &'a Owner,
        seal: &'a Seal,
        declared: Option<&Declared>,
        live: &Twin,
        undeclared: bool,
    ) -> Self {
        let ownership = Ownership::new(from.as_str(), &scope.host, &live.twin_ref, &seal.owned);
        let mut named: BTreeMap<PathHash, Vec<Leaf>> = BTreeMap::new();
        for leaf in candidates(declared, live) {
            named.entry(ownership.hash(&leaf)).or_default().push(leaf);
        }
        let (mut moved, mut kept, mut rest) = (Vec::new(), Vec::new(), seal.owned.clone());
        let is_live = |leaf: &Leaf| at(live, leaf).is_some();
        for (hash, leaves) in named.iter().filter(|(hash, _)| seal.owned.contains(hash)) {
            let wanted = |leaf: &Leaf| undeclared || declared.is_some_and(|declared| declared.concerns(leaf));
            match leaves.as_slice() {
                [leaf] if wanted(leaf) => {
                    rest.remove(hash);
                    moved.push(leaf.clone());
                }
                [leaf] => kept.extend(is_live(leaf).then(|| leaf.clone())),
                // Two paths with one hash: which one is theirs is unknown, so neither moves.
                several => kept.extend(several.iter().filter(|leaf| is_live(leaf)).cloned()),
            }
        }
        moved.sort();
        kept.sort();
        if kept.is_empty() {
            // What they hold besides does not exist.
            rest.clear();
        }
        Self { from, seal, moved, kept, rest }
    }

    fn plan(self, scope: &SealScope, ours: &SealState, declared: Option<&Declared>, live: &Twin) -> TransferPlan {
        let mut planner = Planner::new(scope, live, ours, &Permits::ALL);
        let old = ours.seal().cloned().unwrap_or_default();
        let hash =
            |leaf: &Leaf| PathHash::of(scope.owner.as_str(), &scope.host, &live.twin_ref, leaf.section, &leaf.path);
        let owned: BTreeSet<PathHash> = old.owned.iter().cloned().chain(self.moved.iter().map(hash)).collect();
        let next = Seal {
            // Nothing of what is declared was compared here; the next pass does that and says so in the seal.
            declared: old.declared.filter(|_| owned == old.owned),
            owned,
            etag: next_etag(&live.etag).map(|etag| etag.to_string()),
            identity: live.device_etag.as_deref().map(identity_hash),
            removal_policy: declared.map_or(old.removal_policy, |declared| declared.removal_policy),
            suspended: None,
        };
        planner.set_seal(&next);
        if self.rest.is_empty() {
            planner.patch.set(Section::Tags, &[SEAL_KEY.to_owned(), self.from.to_string()], Value::Null);
        } else {
            let less = Seal { declared: None, etag: None, owned: self.rest, ..self.seal.clone() };
            planner.set_seal_of(self.from.as_str(), &less);
        }
        let plan = match planner.too_large() {
            Some(reason) => TwinPlan::nothing(Some(reason)),
            None => planner.finish(SealAction::Write, Cause::Git, None),
        };
        TransferPlan { moved: self.moved, kept: self.kept, plan }
    }
}

/// Every path that a seal could hold: live leaves, declared ones, and what lies above either.
fn candidates(declared: Option<&Declared>, live: &Twin) -> BTreeSet<Leaf> {
    let leaves: Vec<Leaf> = live_leaves(live).into_keys().collect();
    let declared = declared.into_iter().flat_map(|declared| declared.leaves.keys());
    let mut found = BTreeSet::new();
    for leaf in leaves.iter().chain(declared) {
        for depth in 1..=leaf.path.keys().len() {
            let path = Path::new(leaf.path.keys()[..depth].iter().cloned());
            found.insert(Leaf { section: leaf.section, path });
        }
    }
    found
}

fn at<'a>(live: &'a Twin, leaf: &Leaf) -> Option<&'a Value> {
    let keys = leaf.path.keys();
    let first = live.section(leaf.section).get(keys.first()?)?;
    first.get(keys[1..].iter().map(String::as_str))
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
