//! The front door: HTTP requests to operations, results to answers (`iot-hub.md` section 2).
//!
//! Invariant: nothing of a request is carried out, and no body is read, before its token was admitted; every refusal
//! has shape A and the header `iothub-errorcode` (3.1); twins carry no `ETag` header (1.4).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use percent_encoding::percent_decode_str;

use super::auth::Gate;
use super::error::Refusal;
use super::handle::HubHandle;
use super::identity::Random;
use super::if_match::IfMatch;
use super::query::Rows;
use super::registry::{Change, Device, Registry};
use super::route::Operation;
use super::wire::{self, IdentityBody, Map, TwinBody};
use crate::twin::TwinRef;

/// The largest body read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
const CONTINUATION: &str = "x-ms-continuation";
const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
const ITEM_TYPE: &str = "x-ms-item-type";
const ERROR_CODE: &str = "iothub-errorcode";
const REQUEST_ID: &str = "x-ms-request-id";
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

struct Front {
    hub: HubHandle,
    gate: Gate,
}

/// The service of a hub.
pub fn router(hub: HubHandle, gate: Gate) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(Front { hub, gate }))
}

async fn serve(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let tracking = front.hub.draw();
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let mut response = match answer(&front, &head, body).await {
        Ok(response) => response,
        Err(refusal) => refused(&refusal, tracking, &front.hub),
    };
    let id = HeaderValue::try_from(format!("{tracking:032x}")).expect("hex digits fit a header");
    response.headers_mut().insert(REQUEST_ID, id);
    tracing::debug!(%method, path, status = response.status().as_u16(), "embedded hub answered");
    response
}

async fn answer(front: &Front, head: &request::Parts, body: Body) -> Result<Response<Body>, Refusal> {
    let segments = segments(head.uri.path())?;
    let token = header(&head.headers, AUTHORIZATION.as_str()).ok().flatten();
    let policy = front.gate.admit(token, &segments, front.hub.now().as_second())?;
    let operation = Operation::of(head.method.as_str(), &segments)?;
    if !policy.allows(operation.right()) {
        return Err(Refusal::Unauthorized);
    }
    let query = head.uri.query().unwrap_or_default();
    if parameter(query, "api-version").is_none_or(str::is_empty) {
        return Err(Refusal::ApiVersionMissing);
    }
    let body = read_body(body).await?;
    carry_out(&front.hub, operation, &head.headers, query, &body).await
}

async fn carry_out(
    hub: &HubHandle,
    operation: Operation,
    headers: &HeaderMap,
    query: &str,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let if_match = IfMatch::parse(header(headers, IF_MATCH.as_str())?);
    match operation {
        Operation::ListDevices => {
            let top = parameter(query, "top").and_then(|top| top.parse().ok());
            let devices = hub.list(top).await?;
            let bodies: Vec<_> = devices.iter().map(|device| IdentityBody { device, just_created: false }).collect();
            Ok(json(wire::json(&bodies)))
        }
        Operation::GetDevice(id) => Ok(identity(&*hub.device(&id).await?, false)),
        Operation::PutDevice(id) => {
            let spec = wire::identity_write(body, &id)?;
            let just_created = if_match == IfMatch::Absent;
            let put = |registry: &mut Registry, random: Random<'_>, now| {
                registry.put_identity(&id, spec, &if_match, random, now)
            };
            Ok(identity(&written(hub.write(put).await?), just_created))
        }
        Operation::DeleteDevice(id) => {
            hub.write(|registry, _, _| registry.delete_identity(&id, &if_match)).await?;
            Ok(status(StatusCode::NO_CONTENT))
        }
        Operation::GetTwin(id) => Ok(twin(&*hub.device(&id).await?)),
        Operation::PatchTwin(id) => {
            let patch = wire::twin_write(body)?;
            let change = hub.write(|registry, _, now| registry.patch_twin(&id, &patch, &if_match, now)).await?;
            Ok(twin(&written(change)))
        }
        Operation::ReplaceTwin(id) => {
            let whole = wire::twin_write(body)?;
            let change = hub.write(|registry, _, now| registry.replace_twin(&id, &whole, &if_match, now)).await?;
            Ok(twin(&written(change)))
        }
        Operation::CallMethod(id) => {
            let call = wire::method_call(body)?;
            let (status, payload) = hub.call_method(&TwinRef::device(id), &call).await?;
            Ok(json(wire::method_answer(status, &payload)?))
        }
        Operation::Query => run_query(hub, headers, &wire::query(body)?).await,
        Operation::Missing(name, _) => Err(Refusal::NotImplemented(name.to_owned())),
    }
}

async fn run_query(hub: &HubHandle, headers: &HeaderMap, text: &str) -> Result<Response<Body>, Refusal> {
    let page_size = match header(headers, MAX_ITEM_COUNT)? {
        None => None,
        Some(text) => Some(
            text.trim()
                .parse::<i64>()
                .map_err(|_| Refusal::ArgumentInvalid(format!("{MAX_ITEM_COUNT} must be a number")))?,
        ),
    };
    let page_size = page_size.map(|size| usize::try_from(size).unwrap_or(0));
    let page = hub.query(text, page_size, header(headers, CONTINUATION)?).await?;
    let (item_type, body) = match &page.rows {
        Rows::Twins(twins) => ("Twin", wire::json(&twins.iter().map(|device| TwinBody(device)).collect::<Vec<_>>())),
        Rows::Raw(rows) => ("Raw", wire::json(&rows.iter().map(Map).collect::<Vec<_>>())),
    };
    let mut response = json(body);
    response.headers_mut().insert(ITEM_TYPE, HeaderValue::from_static(item_type));
    if let Some(next) = page.next {
        let next = HeaderValue::try_from(next).expect("base64 fits a header");
        response.headers_mut().insert(CONTINUATION, next);
    }
    Ok(response)
}

/// The record of a change that was no deletion.
fn written(change: Change) -> Arc<Device> {
    change.after.expect("only a deletion leaves no record")
}

fn twin(device: &Device) -> Response<Body> {
    json(wire::json(&TwinBody(device)))
}

fn identity(device: &Device, just_created: bool) -> Response<Body> {
    let mut response = json(wire::json(&IdentityBody { device, just_created }));
    let etag = format!("\"{}\"", device.identity.etag());
    response.headers_mut().insert(ETAG, HeaderValue::try_from(etag).expect("base64 in quotes fits a header"));
    response
}

fn json(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn refused(refusal: &Refusal, tracking: u128, hub: &HubHandle) -> Response<Body> {
    let mut response = json(wire::refusal(refusal, tracking, hub.now()));
    *response.status_mut() = StatusCode::from_u16(refusal.status()).expect("every refusal has an HTTP status");
    response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(refusal.code()));
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

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::BodyTooLarge(BODY_BYTES_MAX)),
        Err(_) => Err(Refusal::RequestTimeout),
    }
}

#[cfg(test)]
mod tests;
