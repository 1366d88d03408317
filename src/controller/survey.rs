//! Plans for a whole fleet, made by reading alone: what `plan` shows.
//!
//! Invariant: takes a [`ReadTwins`], so nothing here could write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::hub::{HubError, PAGE_SIZE_MAX, PageError, Pages, ReadTwins};
use crate::plan::{
    Declaration, DeclaredState, HeldReason, Permits, ProfileTarget, RemovalHold, SealScope, SealState, TwinFilter,
    TwinPlan, declare, plan_twin, row_twin, sealing_owners, sweep_query,
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

/// Plans every declared twin at `unix_now` (seconds since 1970), and every twin that carries our seal and is declared
/// no more; of both those that `filter` admits.
///
/// # Errors
/// When the sealed twins cannot be listed; a twin that cannot be read is an entry of the result.
pub async fn survey<H: ReadTwins + 'static>(
    hub: Arc<H>,
    scope: &SealScope,
    state: &Arc<DeclaredState>,
    filter: &TwinFilter,
    unix_now: i64,
) -> Result<BTreeMap<TwinRef, Surveyed>, PageError> {
    let mut twins: BTreeSet<TwinRef> = state.twins.keys().chain(state.frozen.held.keys()).cloned().collect();
    if scope.seals {
        twins.extend(sealed_twins(&*hub, scope).await?);
    }
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
                Some(suspend) => Some(held(HeldReason::Suspended(suspend.clone()))),
                None => survey_twin(&*hub, &scope, &state, &twin).await,
            };
            (twin, surveyed)
        });
    }
    while !reads.is_empty() {
        collect(&mut reads, &mut plans).await;
    }
    Ok(plans)
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

async fn collect(reads: &mut JoinSet<(TwinRef, Option<Surveyed>)>, plans: &mut BTreeMap<TwinRef, Surveyed>) {
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
) -> Option<Surveyed> {
    let live = match hub.get_twin(twin).await {
        Ok(live) => live,
        Err(HubError::NotFound(_)) => return survey_missing(scope, state, twin),
        Err(error) => return Some(Surveyed::Failed(error)),
    };
    let declaration = declare(state, twin, Some(&live));
    if declaration == Declaration::Absent && SealState::read(&live, scope.owner.as_str()) == SealState::Absent {
        return None;
    }
    Some(Surveyed::Plan(Box::new(planned(scope, state, &declaration, &live))))
}

fn planned(scope: &SealScope, state: &DeclaredState, declaration: &Declaration, live: &Twin) -> PlannedTwin {
    // While a manifest is broken nobody knows what is declared no more.
    let permits = match state.frozen.broken.first() {
        Some(place) => Permits::holding(RemovalHold::SourceBroken(place.clone())),
        None => Permits::ALL,
    };
    let plan = plan_twin(scope, declaration, live, &permits).masked(&state.sensitive, scope.salt);
    let other_owners = sealing_owners(live).filter(|owner| *owner != scope.owner.as_str()).map(str::to_owned).collect();
    PlannedTwin { plan, etag: Some(live.etag.clone()), other_owners }
}

fn survey_missing(scope: &SealScope, state: &DeclaredState, twin: &TwinRef) -> Option<Surveyed> {
    let declaration = declare(state, twin, None);
    if let Some(reason) = declaration.hold() {
        return Some(held(reason));
    }
    let declared = declaration.declared()?;
    if !declared.create || twin.module.is_some() {
        return Some(Surveyed::Missing);
    }
    let fresh = fresh_twin(twin);
    Some(Surveyed::Create(Box::new(planned(scope, state, &declare(state, twin, Some(&fresh)), &fresh))))
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
