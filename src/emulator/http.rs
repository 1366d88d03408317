//! The front door: HTTP requests to operations, results to answers (`iot-hub.md` section 2).
//!
//! Invariant: nothing of a request is carried out, and no body is read, before its token was admitted; what only devices
//! and other services ask for is refused whatever the token; every refusal has shape A and the header
//! `iothub-errorcode` (3.1); twins carry no `ETag` header (1.4).

mod answers;
mod attentive;
mod broken;
mod configurations;
mod faults;
mod identities;
mod jobs;
mod twins;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONNECTION, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use percent_encoding::percent_decode_str;

use self::answers::json;
use super::auth::Gate;
use super::bearer;
use super::error::Refusal;
use super::handle::HubHandle;
use super::if_match::IfMatch;
use super::options::ServiceOptions;
use super::quick_ack::WholeRequest;
use super::route::{Operation, not_of_services};
use super::traffic::Traffic;
use super::trial::Trial;
use super::wire;

pub use self::attentive::Attentive;

/// The largest body read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The same for a bulk operation: a hundred items with full sections.
const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
const ERROR_CODE: &str = "iothub-errorcode";
const REQUEST_ID: &str = "x-ms-request-id";

struct Front {
    hub: HubHandle,
    gate: Gate,
    options: ServiceOptions,
    trial: Trial,
}

/// One admitted request.
struct Call<'a> {
    hub: &'a HubHandle,
    options: &'a ServiceOptions,
    headers: &'a HeaderMap,
    if_match: IfMatch,
    /// What stands behind the question mark of the address.
    query: &'a str,
    body: &'a [u8],
}

/// The service of a hub, with the throttles and faults that `options` set.
pub fn router(hub: HubHandle, gate: Gate, options: ServiceOptions) -> Router {
    let trial = Trial::new(&options.trials);
    router_with(hub, gate, options, trial)
}

/// The service of a hub that shares its throttles and faults with another door.
pub fn router_with(hub: HubHandle, gate: Gate, options: ServiceOptions, trial: Trial) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(Front { hub, gate, options, trial }))
}

async fn serve(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let tracking = front.hub.draw();
    let (head, body) = request.into_parts();
    let mut response = match answer(&front, &head, body, tracking).await {
        Ok(response) => response,
        Err(refusal) => refused(&refusal, tracking, &front.hub),
    };
    let id = HeaderValue::try_from(format!("{tracking:032x}")).expect("hex digits fit a header");
    response.headers_mut().insert(REQUEST_ID, id);
    let (method, path, status) = (&head.method, head.uri.path(), response.status().as_u16());
    tracing::debug!(%method, path, status, "embedded hub answered");
    response
}

async fn answer(front: &Front, head: &request::Parts, body: Body, tracking: u128) -> Result<Response<Body>, Refusal> {
    let segments = segments(head.uri.path())?;
    if let Some(name) = not_of_services(&segments) {
        return Err(Refusal::NotImplemented(name.to_owned()));
    }
    let token = header(&head.headers, AUTHORIZATION.as_str()).ok().flatten();
    if faults::is_their_address(&segments) {
        let policy = front.gate.admit(token, &segments, front.hub.now().as_second())?;
        return faults::plan(&front.trial, policy, &head.method, body).await;
    }
    let operation = admitted(front, token, head.method.as_str(), &segments)?;
    let query = head.uri.query().unwrap_or_default();
    if parameter(query, "api-version").is_none_or(str::is_empty) {
        return Err(Refusal::ApiVersionMissing);
    }
    let body = read_body(body, if operation == Operation::Bulk { BULK_BYTES_MAX } else { BODY_BYTES_MAX }).await?;
    if let Some(whole) = head.extensions.get::<WholeRequest>() {
        whole.tell(true);
    }
    let if_match = IfMatch::parse(header(&head.headers, IF_MATCH.as_str())?);
    let (hub, options) = (&front.hub, &front.options);
    let call = Call { hub, options, headers: &head.headers, if_match, query, body: &body };
    let kind = Traffic::of(head.method.as_str(), &segments);
    faults::with(&front.trial, kind, tracking, call, operation).await
}

/// The operation, if the token admits to it: a policy's or, where a test issuer is set, a role's.
fn admitted(front: &Front, token: Option<&str>, method: &str, segments: &[String]) -> Result<Operation, Refusal> {
    let now = front.hub.now().as_second();
    let bearer = token.filter(|token| token.starts_with(bearer::SCHEME));
    if let (Some(token), Some(issuer)) = (bearer, &front.options.bearer_issuer) {
        let role = bearer::role(issuer, token, now).ok_or(Refusal::Unauthorized)?;
        let operation = Operation::of(method, segments)?;
        return if role.allows(&operation) { Ok(operation) } else { Err(Refusal::Unauthorized) };
    }
    let policy = front.gate.admit(token, segments, now)?;
    let operation = Operation::of(method, segments)?;
    if policy.allows(operation.right()) { Ok(operation) } else { Err(Refusal::Unauthorized) }
}

#[expect(clippy::cognitive_complexity, reason = "one line for each operation")]
async fn carry_out(call: Call<'_>, operation: Operation) -> Result<Response<Body>, Refusal> {
    match operation {
        Operation::ListDevices => identities::list(&call).await,
        Operation::Bulk => identities::bulk(&call).await,
        Operation::DeviceStatistics => identities::device_statistics(&call).await,
        Operation::ServiceStatistics => identities::service_statistics(&call).await,
        Operation::GetDevice(id) => identities::get(&call, &id).await,
        Operation::PutDevice(id) => identities::put(&call, &id).await,
        Operation::DeleteDevice(id) => identities::delete(&call, &id).await,
        Operation::ListModules(id) => identities::list_modules(&call, &id).await,
        Operation::GetModule(device, id) => identities::get_module(&call, &device, &id).await,
        Operation::PutModule(device, id) => identities::put_module(&call, &device, &id).await,
        Operation::DeleteModule(device, id) => identities::delete_module(&call, &device, &id).await,
        Operation::GetTwin(id) => twins::get(&call, &id).await,
        Operation::PatchTwin(id) => twins::patch(&call, &id).await,
        Operation::ReplaceTwin(id) => twins::replace(&call, &id).await,
        Operation::CallMethod(id) => twins::call_method(&call, &id).await,
        Operation::Query => twins::query(&call).await,
        Operation::ListConfigurations => configurations::list(&call).await,
        Operation::GetConfiguration(id) => configurations::get(&call, &id).await,
        Operation::PutConfiguration(id) => configurations::put(&call, &id).await,
        Operation::DeleteConfiguration(id) => configurations::delete(&call, &id).await,
        Operation::TestQueries => Ok(json(wire::test_queries(call.body)?)),
        Operation::ListJobs => jobs::list(&call).await,
        Operation::GetJob(id) => jobs::get(&call, &id).await,
        Operation::PutJob(id) => jobs::put(&call, &id).await,
        Operation::CancelJob(id) => jobs::cancel(&call, &id).await,
        Operation::Missing(name, _) => Err(Refusal::NotImplemented(name.to_owned())),
    }
}

fn refused(refusal: &Refusal, tracking: u128, hub: &HubHandle) -> Response<Body> {
    let mut response = json(wire::refusal(refusal, tracking, hub.now()));
    *response.status_mut() = StatusCode::from_u16(refusal.status()).expect("every refusal has an HTTP status");
    response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(refusal.code()));
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        // As a live hub does, and without a Retry-After (`iot-hub.md` 3.2).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The decoded parts of a path; a slash at the end counts for nothing.
fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned);
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts = path.split('/').map(decoded).collect::<Result<_, _>>();
    parts.map_err(|_| Refusal::ArgumentInvalid("the address is not UTF-8".to_owned()))
}

/// The first value of a query parameter.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|field| field.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value)
}

/// A header's text. One that is there but no text is an error: passing over a condition would drop a guard.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let text = headers.get(name).map(HeaderValue::to_str).transpose();
    text.map_err(|_| Refusal::ArgumentInvalid(format!("the header {name} is not ASCII text")))
}

async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::BodyTooLarge(bytes_max)),
        Err(_) => Err(Refusal::RequestTimeout),
    }
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
