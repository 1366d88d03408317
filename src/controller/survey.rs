//! Plans for a whole fleet, made by reading alone: what `plan` shows.
//!
//! Invariant: takes a [`ReadTwins`], so nothing here could write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::change::StateChange;
use super::gate::Gate;
use super::permit::permitted;
use crate::hub::{HubError, PAGE_SIZE_MAX, PageError, Pages, ReadTwins};
use crate::plan::{
    Declaration, DeclaredState, HeldReason, Members, Permits, Policy, ProfileTarget, RemovalHold, SealScope, SealState,
    TwinFilter, TwinPlan, declare, plan_twin, row_twin, sealing_owners, sweep_query,
};
use crate::twin::{ETag, Object, Twin, TwinRef, Value};

/// Reads under way at one time.
const READS_MAX: usize = 16;
/// Pages of sealed twins read.
const PAGES_MAX: usize = 20_000;

/// The etag of a twin that nobody has written yet (`iot-hub.md` 1.4).
const FRESH_ETAG: &str = "AAAAAAAAAAE=";

/// A plan and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTwin {
    /// The plan; its values are hidden where they are sensitive, those of its patch are not.
    pub plan: TwinPlan,
    /// The etag of the read it was made on; `None` when the twin was not read.
    pub etag: Option<ETag>,
    /// Who else has sealed the twin, in order.
    pub other_owners: Vec<String>,
}

/// What would be done to one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surveyed {
    /// This plan.
    Plan(Box<PlannedTwin>),
    /// The device would be registered; the plan is the one for the twin it would have then.
    Create(Box<PlannedTwin>),
    /// The device is not registered and is not to be created.
    Missing,
    /// The twin could not be read.
    Failed(HubError),
}

/// Who is asked whether what is planned may pass.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The hub's name in the settings.
    pub hub: &'a str,
    /// Its rules; what they say of suspension is not looked at.
    pub policy: &'a Policy,
}

/// A twin looked at.
struct Looked {
    surveyed: Surveyed,
    /// What the plan was made of, where it does something.
    basis: Option<(Declaration, Twin)>,
}

impl From<Surveyed> for Looked {
    fn from(surveyed: Surveyed) -> Self {
        Self { surveyed, basis: None }
    }
}

/// Plans every declared twin at `unix_now` (seconds since 1970), and every twin that carries our seal and is declared
/// no more; of both those that `filter` admits. With a `judge`, what its guards hold is held in the plans: they count the
/// whole survey first, so a survey of a part of the fleet is not to be judged.
///
/// # Errors
/// When the sealed twins cannot be listed; a twin that cannot be read is an entry of the result.
pub async fn survey<H: ReadTwins + 'static>(
    hub: Arc<H>,
    scope: &SealScope,
    state: &Arc<DeclaredState>,
    filter: &TwinFilter,
    judge: Option<Judge<'_>>,
    unix_now: i64,
) -> Result<BTreeMap<TwinRef, Surveyed>, PageError> {
    let mut twins: BTreeSet<TwinRef> = state.twins.keys().chain(state.frozen.held.keys()).cloned().collect();
    let sealed = if scope.seals { sealed_twins(&*hub, scope).await? } else { BTreeSet::new() };
    let sealed_count = sealed.len();
    twins.extend(sealed);
    for (profile, condition) in state.conditional() {
        let query = condition.nominating_query(profile.target);
        let mut pages = Pages::new(&*hub, &query, PAGE_SIZE_MAX, PAGES_MAX);
        while let Some(page) = pages.next().await {
            // A row only nominates: for a declared twin nothing follows from it, and one that nobody names may be one.
            twins.extend(page?.iter().filter_map(row_twin));
        }
    }
    let mut plans = BTreeMap::new();
    let mut reads = JoinSet::new();
    for twin in twins.into_iter().filter(|twin| filter.admits(twin, state.twins.get(twin).map(AsRef::as_ref))) {
        if reads.len() == READS_MAX {
            collect(&mut reads, &mut plans).await;
        }
        let (hub, scope, state) = (Arc::clone(&hub), scope.clone(), Arc::clone(state));
        reads.spawn(async move {
            let surveyed = match state.suspension(&twin, unix_now) {
                Some(suspend) => Some(held(HeldReason::Suspended(suspend.clone())).into()),
                None => survey_twin(&*hub, &scope, &state, &twin).await,
            };
            (twin, surveyed)
        });
    }
    while !reads.is_empty() {
        collect(&mut reads, &mut plans).await;
    }
    Ok(match judge {
        Some(judge) => judged(judge, scope, state, sealed_count, plans),
        None => plans.into_iter().map(|(twin, looked)| (twin, looked.surveyed)).collect(),
    })
}

/// The plans with no more in them than a gate lets pass that has seen all of them.
fn judged(
    judge: Judge<'_>,
    scope: &SealScope,
    state: &Arc<DeclaredState>,
    sealed: usize,
    plans: BTreeMap<TwinRef, Looked>,
) -> BTreeMap<TwinRef, Surveyed> {
    let mut gate = Gate::new(judge.hub, judge.policy);
    gate.take_state(Arc::clone(state), &StateChange::default());
    let answered = state.conditional().map(|(profile, condition)| {
        let query = condition.nominating_query(profile.target);
        (profile.name.clone(), query)
    });
    gate.take_sweep(sealed, Members::new(), answered.collect());
    gate.judge_first_sweep();
    for (twin, looked) in &plans {
        match &looked.surveyed {
            Surveyed::Plan(planned) => gate.foresee(twin, false, &planned.plan),
            Surveyed::Create(planned) => gate.foresee(twin, true, &planned.plan),
            Surveyed::Missing | Surveyed::Failed(_) => {}
        }
    }
    let mut judge_one = |twin: &TwinRef, looked: Looked| {
        let Some((declaration, live)) = looked.basis else { return looked.surveyed };
        let create = matches!(looked.surveyed, Surveyed::Create(_));
        if create && let Some(hold) = gate.permit_create(twin, Duration::ZERO) {
            return held(HeldReason::Guarded(hold));
        }
        let wanted = plan_twin(scope, &declaration, &live, &Permits::ALL);
        let plan = permitted(&mut gate, scope, &declaration, &live, wanted, Duration::ZERO);
        let planned = Box::new(shown(scope, state, plan, &live));
        if create { Surveyed::Create(planned) } else { Surveyed::Plan(planned) }
    };
    plans
        .into_iter()
        .map(|(twin, looked)| {
            let surveyed = judge_one(&twin, looked);
            (twin, surveyed)
        })
        .collect()
}

/// The twins that carry the seal of `scope`, as query rows tell.
pub(super) async fn sealed_twins<H: ReadTwins>(hub: &H, scope: &SealScope) -> Result<BTreeSet<TwinRef>, PageError> {
    let mut twins = BTreeSet::new();
    for target in ProfileTarget::ALL {
        let query = sweep_query(scope, target, &[]);
        let mut pages = Pages::new(hub, &query, PAGE_SIZE_MAX, PAGES_MAX);
        while let Some(page) = pages.next().await {
            twins.extend(page?.iter().filter_map(row_twin));
        }
    }
    Ok(twins)
}

async fn collect(reads: &mut JoinSet<(TwinRef, Option<Looked>)>, plans: &mut BTreeMap<TwinRef, Looked>) {
    match reads.join_next().await {
        Some(Ok((twin, Some(surveyed)))) => {
            plans.insert(twin, surveyed);
        }
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Ok((_, None)) | Err(_)) | None => {}
    }
}

/// `None` for a row of a device that is gone and that nobody declares.
async fn survey_twin<H: ReadTwins>(
    hub: &H,
    scope: &SealScope,
    state: &DeclaredState,
    twin: &TwinRef,
) -> Option<Looked> {
    let live = match hub.get_twin(twin).await {
        Ok(live) => live,
        Err(HubError::NotFound(_)) => return survey_missing(scope, state, twin),
        Err(error) => return Some(Surveyed::Failed(error).into()),
    };
    let declaration = declare(state, twin, Some(&live));
    if declaration == Declaration::Absent && SealState::read(&live, scope.owner.as_str()) == SealState::Absent {
        return None;
    }
    let planned = planned(scope, state, &declaration, &live);
    let acts = planned.plan.patch.is_some() || !planned.plan.held.is_empty();
    Some(Looked { surveyed: Surveyed::Plan(Box::new(planned)), basis: acts.then_some((declaration, live)) })
}

fn planned(scope: &SealScope, state: &DeclaredState, declaration: &Declaration, live: &Twin) -> PlannedTwin {
    // While a manifest is broken nobody knows what is declared no more.
    let permits = match state.frozen.broken.first() {
        Some(place) => Permits::holding(RemovalHold::SourceBroken(place.clone())),
        None => Permits::ALL,
    };
    shown(scope, state, plan_twin(scope, declaration, live, &permits), live)
}

fn shown(scope: &SealScope, state: &DeclaredState, plan: TwinPlan, live: &Twin) -> PlannedTwin {
    let plan = plan.masked(&state.sensitive, scope.salt);
    let other_owners = sealing_owners(live).filter(|owner| *owner != scope.owner.as_str()).map(str::to_owned).collect();
    PlannedTwin { plan, etag: Some(live.etag.clone()), other_owners }
}

fn survey_missing(scope: &SealScope, state: &DeclaredState, twin: &TwinRef) -> Option<Looked> {
    let declaration = declare(state, twin, None);
    if let Some(reason) = declaration.hold() {
        return Some(held(reason).into());
    }
    let declared = declaration.declared()?;
    if !declared.create || twin.module.is_some() {
        return Some(Surveyed::Missing.into());
    }
    let fresh = fresh_twin(twin);
    let declaration = declare(state, twin, Some(&fresh));
    let planned = planned(scope, state, &declaration, &fresh);
    Some(Looked { surveyed: Surveyed::Create(Box::new(planned)), basis: Some((declaration, fresh)) })
}

/// The twin of a device just registered (`iot-hub.md` 1.1).
fn fresh_twin(twin: &TwinRef) -> Twin {
    let system = [("status", "enabled"), ("connectionState", "Disconnected"), ("authenticationType", "sas")];
    Twin {
        twin_ref: twin.clone(),
        etag: ETag::new(FRESH_ETAG).expect("the constant is an etag"),
        device_etag: None,
        version: 2,
        tags: Object::new(),
        desired: Object::new(),
        reported: Object::new(),
        system: system.map(|(name, value)| (name.to_owned(), Value::from(value))).into(),
    }
}

fn held(reason: HeldReason) -> Surveyed {
    Surveyed::Plan(Box::new(PlannedTwin {
        plan: TwinPlan::nothing(Some(reason)),
        etag: None,
        other_owners: Vec::new(),
    }))
}
