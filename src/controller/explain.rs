//! One twin, leaf by leaf: declared, live, whose, and why not.
//!
//! Invariants: reads only, one point read an answer, at most [`EXPLAINED_MAX`] at one time; nothing of it is remembered.
//! Sensitive values leave this module as salted hashes.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use crate::hub::{HubError, ReadTwins};
use crate::plan::{
    Declaration, DeclaredState, Leaf, PathHash, Permits, Removals, SEAL_KEY, SealState, TwinPlan, declare,
    declare_since, leaves_of, plan_twin,
};
use crate::twin::{Section, Twin, TwinRef, Value};

/// Twins explained at one time: people ask, and the hub's budget is for reconciling.
pub(super) const EXPLAINED_MAX: usize = 4;

/// Whose a live leaf is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Ours, by our seal.
    Owned,
    /// Another owner's, by its seal.
    Other(String),
    /// Nobody's that keeps a seal.
    Foreign,
    /// There is no such leaf.
    Absent,
}

/// One leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedLeaf {
    /// Where, as manifests write it.
    pub path: String,
    /// What is declared; `Some(Null)`: it must not exist; `None`: nothing is.
    pub declared: Option<Value>,
    /// Set when absent, never corrected.
    pub initial_only: bool,
    /// Who declares it: the place in the twin's manifest or in a profile.
    pub source: Option<String>,
    /// The live value; `None` when there is none.
    pub live: Option<Value>,
    /// Whose the live leaf is.
    pub holder: Holder,
    /// What would be written now: `set` or `remove`.
    pub change: Option<&'static str>,
    /// Why that is not done.
    pub held: Option<String>,
}

/// One twin, as just read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The etag of the read; `None` when the hub does not know the twin.
    pub etag: Option<String>,
    /// The version of the read.
    pub version: Option<u64>,
    /// Where the twin's own manifest begins, or that of its highest profile.
    pub source: Option<String>,
    /// Why nothing is written at all, whatever the live twin is.
    pub held: Vec<String>,
    /// The leaves: declared ones, owned ones, and those of others in the same sections.
    pub leaves: Vec<ExplainedLeaf>,
}

/// Reads `twin` and explains it.
///
/// # Errors
/// What stopped the read.
pub(super) async fn explain<H: ReadTwins>(
    context: &Context<H>,
    twin: &TwinRef,
    removals: Removals,
) -> Result<Explained, HubError> {
    let (state, former) = {
        let gate = context.gate();
        (gate.state(), gate.former(twin))
    };
    let live = match context.hub.get_twin(twin).await {
        Ok(live) => Some(live),
        Err(HubError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let declaration = match &live {
        Some(live) => declare_since(&state, former.as_deref(), twin, live),
        None => declare(&state, twin, None),
    };
    let permits = Permits { removals, ..Permits::ALL };
    let plan = live.as_ref().map(|live| plan_twin(&context.scope, &declaration, live, &permits));
    let explainer = Explainer { context, state: &state, twin, live: live.as_ref() };
    Ok(Explained {
        etag: live.as_ref().map(|live| live.etag.to_string()),
        version: live.as_ref().map(|live| live.version),
        source: declaration.declared().map(|declared| declared.source.to_string()),
        held: plan
            .iter()
            .flat_map(|plan| &plan.held)
            .filter(|held| held.change.is_none())
            .map(|held| held.reason.to_string())
            .collect(),
        leaves: explainer.leaves(&declaration, plan.as_ref()),
    })
}

struct Explainer<'a, H> {
    context: &'a Context<H>,
    state: &'a DeclaredState,
    twin: &'a TwinRef,
    live: Option<&'a Twin>,
}

impl<H> Explainer<'_, H> {
    fn leaves(&self, declaration: &Declaration, plan: Option<&TwinPlan>) -> Vec<ExplainedLeaf> {
        let live = self.live.map(live_leaves).unwrap_or_default();
        let declared = declaration.declared().map(|declared| &declared.leaves);
        let all: BTreeSet<&Leaf> = declared.into_iter().flat_map(BTreeMap::keys).chain(live.keys()).collect();
        let holders = Holders::new(self.context.scope.owner.as_str(), &self.context.scope.host, self.live);
        let change = |leaf: &Leaf| {
            let to_make = plan.iter().flat_map(|plan| &plan.changes);
            let held = plan.iter().flat_map(|plan| &plan.held).filter_map(|held| held.change.as_ref());
            let found = to_make.chain(held).find(|change| change.leaf == *leaf)?;
            Some(if found.to.is_some() { "set" } else { "remove" })
        };
        let held = |leaf: &Leaf| {
            let held = plan.iter().flat_map(|plan| &plan.held);
            let found = held.clone().find(|held| held.change.as_ref().is_some_and(|change| change.leaf == *leaf))?;
            Some(found.reason.to_string())
        };
        let explained = all.into_iter().map(|leaf| {
            let want = declared.and_then(|declared| declared.get(leaf));
            ExplainedLeaf {
                path: leaf.to_string(),
                declared: want.map(|want| self.shown(leaf, &want.value)),
                initial_only: want.is_some_and(|want| want.initial_only),
                source: want.map(|want| want.source.to_string()),
                live: live.get(leaf).map(|value| self.shown(leaf, value)),
                holder: if live.contains_key(leaf) { holders.of(self.twin, leaf) } else { Holder::Absent },
                change: change(leaf),
                held: held(leaf),
            }
        });
        explained.collect()
    }

    fn shown(&self, leaf: &Leaf, value: &Value) -> Value {
        let hidden = *value != Value::Null && self.state.sensitive.iter().any(|place| place.touches(leaf));
        if hidden { Value::from(self.context.scope.salt.hide(value)) } else { value.clone() }
    }
}

/// Every live leaf, the seals left out.
fn live_leaves(live: &Twin) -> BTreeMap<Leaf, &Value> {
    let leaves = Section::ALL.into_iter().flat_map(|section| {
        leaves_of(live.section(section)).into_iter().map(move |(path, value)| (Leaf { section, path }, value))
    });
    let is_seal =
        |leaf: &Leaf| leaf.section == Section::Tags && leaf.path.keys().first().is_some_and(|key| key == SEAL_KEY);
    leaves.filter(|(leaf, _)| !is_seal(leaf)).collect()
}

/// Who holds which leaves, by the seals in the twin.
struct Holders<'a> {
    host: &'a str,
    /// Our own first.
    seals: Vec<(&'a str, BTreeSet<PathHash>)>,
    us: &'a str,
}

impl<'a> Holders<'a> {
    fn new(us: &'a str, host: &'a str, live: Option<&'a Twin>) -> Self {
        let seals = live.and_then(|live| live.tags.get(SEAL_KEY)).and_then(Value::as_object);
        let owners = seals.into_iter().flat_map(|seals| seals.keys()).map(String::as_str);
        let read = |owner: &'a str| {
            let seal = SealState::read(live?, owner);
            Some((owner, seal.seal()?.owned.clone()))
        };
        let mut seals: Vec<_> = owners.filter_map(read).collect();
        seals.sort_by_key(|(owner, _)| *owner != us);
        Self { host, seals, us }
    }

    fn of(&self, twin: &TwinRef, leaf: &Leaf) -> Holder {
        let holds = |(owner, owned): &&(&str, BTreeSet<PathHash>)| {
            owned.contains(&PathHash::of(owner, self.host, twin, leaf.section, &leaf.path))
        };
        match self.seals.iter().find(holds) {
            Some((owner, _)) if *owner == self.us => Holder::Owned,
            Some((owner, _)) => Holder::Other((*owner).to_owned()),
            None => Holder::Foreign,
        }
    }
}
