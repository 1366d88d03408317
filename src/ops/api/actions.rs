//! What people ask the daemon to do.

use axum::Json;
use axum::body::HttpBody as _;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest as _, Request, State};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::problem::Problem;
use super::wire::{
    ApprovalBody, ApprovedView, DoneView, FORMAT_VERSION, ProblemView, ReconcileBody, RequestedView, ResumeBody,
    SuspendBody, parse_twin, timestamp,
};
use crate::plan::{Approval, GuardKind};

/// Reconcile a twin, or all, now: for webhooks and for people; without a body all
#[utoipa::path(
    post, path = "/api/v1/reconcile", tag = "actions", request_body = Option<ReconcileBody>, security(("token" = [])),
    responses((status = 200, body = RequestedView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn reconcile(State(api): State<Api>, request: Request) -> Result<Json<RequestedView>, Problem> {
    // Who only wants to say that Git moved on has nothing else to say, and no type of content to name.
    let body = match request.body().is_end_stream() {
        true => ReconcileBody::default(),
        false => match Json::from_request(request, &()).await {
            Ok(Json(Value::Null)) => ReconcileBody::default(),
            body => object(body)?,
        },
    };
    let twin = body.twin.as_deref().map(parse_twin).transpose()?;
    let hubs = api.hubs(body.hub.as_deref())?;
    if twin.is_some() && hubs.len() > 1 {
        let names = hubs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Problem::invalid(format!("several hubs are configured; name one with the twin: {names}")));
    }
    let token = api.new_token();
    let mut asked = Vec::new();
    for (name, hub) in hubs {
        // A hub that has not loaded its manifests sweeps anyway once it has.
        let Some(hub) = hub else { continue };
        hub.commands.reconcile(twin.clone(), token.clone()).await??;
        asked.push(name);
    }
    if asked.is_empty() {
        return Err(Problem::not_yet("no hub has loaded its manifests yet; all will be reconciled then"));
    }
    Ok(Json(RequestedView { format_version: FORMAT_VERSION, token, hubs: asked }))
}

/// Let a guard pass what was looked at, for an hour
#[utoipa::path(
    post, path = "/api/v1/approve", tag = "actions", request_body = ApprovalBody, security(("token" = [])),
    responses((status = 200, body = ApprovedView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn approve(
    State(api): State<Api>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<ApprovedView>, Problem> {
    let body: ApprovalBody = object(body)?;
    let guard = GuardKind::parse(&body.guard).ok_or_else(|| {
        let known = GuardKind::ALL.map(GuardKind::as_str).join(", ");
        Problem::invalid(format!("{:?} is no guard; there are {known}", body.guard))
    })?;
    let twin = body.twin.as_deref().map(parse_twin).transpose()?;
    let hub = api.hub(&body.hub)?;
    let approval = Approval { hub: body.hub, guard, twin, revision: body.revision, count: body.count };
    let approved = hub.commands.approve(approval).await??;
    Ok(Json(ApprovedView {
        format_version: FORMAT_VERSION,
        guard: approved.guard.to_string(),
        count: approved.count,
        until: timestamp(approved.until),
    }))
}

/// Leave a twin alone from now on, in every later process too: its seal says so
#[utoipa::path(
    post, path = "/api/v1/suspend", tag = "actions", request_body = SuspendBody, security(("token" = [])),
    responses((status = 200, body = DoneView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn suspend(
    State(api): State<Api>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<DoneView>, Problem> {
    let body: SuspendBody = object(body)?;
    let twin = parse_twin(&body.twin)?;
    api.hub(&body.hub)?.commands.suspend(twin, body.reason).await??;
    Ok(Json(DoneView { format_version: FORMAT_VERSION, hub: body.hub, twin: body.twin }))
}

/// Go on with a twin that was suspended at run time
#[utoipa::path(
    post, path = "/api/v1/resume", tag = "actions", request_body = ResumeBody, security(("token" = [])),
    responses((status = 200, body = DoneView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<DoneView>, Problem> {
    let body: ResumeBody = object(body)?;
    let twin = parse_twin(&body.twin)?;
    api.hub(&body.hub)?.commands.resume(twin).await??;
    Ok(Json(DoneView { format_version: FORMAT_VERSION, hub: body.hub, twin: body.twin }))
}

/// A body as the object it has to be: an array of the fields' values would pass for one otherwise.
fn object<T: DeserializeOwned>(body: Result<Json<Value>, JsonRejection>) -> Result<T, Problem> {
    let Json(body) = body?;
    if !body.is_object() {
        return Err(Problem::invalid("the body is no JSON object"));
    }
    serde_json::from_value(body).map_err(|error| Problem::invalid(format!("the body does not fit: {error}")))
}
