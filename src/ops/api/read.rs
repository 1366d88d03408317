//! Reading: version, hubs, events, requests.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};

use super::problem::Problem;
use super::wire::{
    BudgetView, EventListView, EventView, EventsQuery, FORMAT_VERSION, HoldView, HubListView, HubView, ProblemView,
    RequestView, VersionView, parse_twin, rounded_up, timestamp,
};
use super::{Api, HubHandle};
use crate::controller::{Page, RequestState};

/// Events answered unless a limit is asked for.
const EVENTS_DEFAULT: usize = 100;
/// Events in one answer.
const EVENTS_MAX: usize = 1000;

/// Which geminid this is
#[utoipa::path(
    get, path = "/api/v1/version", tag = "status",
    responses((status = 200, body = VersionView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn version(State(api): State<Api>) -> Json<VersionView> {
    Json(VersionView {
        format_version: FORMAT_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        actions: api.options.token_file.is_some(),
    })
}

/// The hubs, with what guards hold
#[utoipa::path(
    get, path = "/api/v1/hubs", tag = "status",
    responses((status = 200, body = HubListView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn hubs(State(api): State<Api>) -> Result<Json<HubListView>, Problem> {
    let mut items = Vec::new();
    for (name, hub) in api.hubs(None)? {
        items.push(match hub {
            Some(hub) => hub_view(name, &hub).await?,
            None => unloaded(name),
        });
    }
    Ok(Json(HubListView { format_version: FORMAT_VERSION, items }))
}

async fn hub_view(name: String, hub: &HubHandle) -> Result<HubView, Problem> {
    let overview = hub.commands.overview(Page::default()).await?;
    let budget = BudgetView::of(&overview);
    let states = overview.states.iter().map(|(state, count)| (state.as_str().to_owned(), *count));
    Ok(HubView {
        name,
        host: Some(hub.host.clone()),
        loaded: true,
        up: overview.up,
        revision: overview.revision,
        twins: overview.total,
        states: states.collect(),
        queue: overview.queue,
        last_sweep: overview.last_sweep.map(timestamp),
        next_sweep_seconds: overview.next_sweep.map(rounded_up),
        last_handled_reconcile: overview.handled,
        budget,
        holds: overview.holds.iter().map(HoldView::of).collect(),
    })
}

fn unloaded(name: String) -> HubView {
    HubView {
        name,
        host: None,
        loaded: false,
        up: false,
        revision: String::new(),
        twins: 0,
        states: std::collections::BTreeMap::new(),
        queue: 0,
        last_sweep: None,
        next_sweep_seconds: None,
        last_handled_reconcile: None,
        budget: None,
        holds: Vec::new(),
    }
}

/// What happened lately
#[utoipa::path(
    get, path = "/api/v1/events", tag = "status", params(EventsQuery),
    responses((status = 200, body = EventListView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventListView>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(EVENTS_DEFAULT);
    if !(1..=EVENTS_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is 1 to {EVENTS_MAX}")));
    }
    let twin = query.twin.as_deref().map(parse_twin).transpose()?;
    let mut found = Vec::new();
    for (name, hub) in api.hubs(query.hub.as_deref())? {
        let events = hub.map(|hub| hub.journal.recent(twin.as_ref(), limit)).unwrap_or_default();
        found.extend(events.into_iter().map(|event| (name.clone(), event)));
    }
    found.sort_by(|(one_hub, one), (other_hub, other)| {
        (one.time, one_hub, one.number).cmp(&(other.time, other_hub, other.number))
    });
    let older = found.len().saturating_sub(limit);
    let items = found[older..].iter().map(|(hub, event)| EventView::of(hub, event)).collect();
    Ok(Json(EventListView { format_version: FORMAT_VERSION, items }))
}

/// How a request to reconcile stands
#[utoipa::path(
    get, path = "/api/v1/requests/{token}", tag = "status",
    params(("token" = String, Path, description = "What `POST /api/v1/reconcile` answered")),
    responses((status = 200, body = RequestView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn request(State(api): State<Api>, Path(token): Path<String>) -> Result<Json<RequestView>, Problem> {
    let mut states = Vec::new();
    for (_, hub) in api.hubs(None)? {
        let Some(hub) = hub else { continue };
        states.extend(hub.commands.request(&token).await?.map(|request| request.state));
    }
    let state = match states.as_slice() {
        [] => return Err(Problem::not_found("no such request is remembered; the daemon may have started anew")),
        states if states.iter().all(|state| *state == RequestState::Done) => RequestState::Done,
        states if states.iter().all(|state| *state == RequestState::Waiting) => RequestState::Waiting,
        _ => RequestState::Running,
    };
    Ok(Json(RequestView { format_version: FORMAT_VERSION, token, state: state.as_str().to_owned() }))
}
