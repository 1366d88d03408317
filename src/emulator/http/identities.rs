//! Identities of devices and modules, one by one and in bulk, and their counts (`iot-hub.md` 2.5, 2.6 and 2.10).

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, Response, StatusCode};

use super::super::error::Refusal;
use super::super::identity::Random;
use super::super::if_match::IfMatch;
use super::super::registry::{Change, Device, Registry};
use super::super::wire::{self, IdentityBody, ModuleBody};
use super::answers::{json, no_content};
use super::{Call, ERROR_CODE, parameter};
use crate::twin::{DeviceId, ModuleId};

/// The code of a bulk operation of which an item was refused (`iot-hub.md` 3.2).
const BULK_FAILURE: HeaderValue = HeaderValue::from_static("BulkRegistryOperationFailure");

pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let top = parameter(call.query, "top").and_then(|top| top.parse().ok());
    let devices = call.hub.list(top).await?;
    let bodies: Vec<_> = devices.iter().map(|device| IdentityBody { device, just_created: false }).collect();
    Ok(json(wire::json(&bodies)))
}

pub(super) async fn get(call: &Call<'_>, id: &DeviceId) -> Result<Response<Body>, Refusal> {
    Ok(device(&*call.hub.device(id).await?, false))
}

pub(super) async fn put(call: &Call<'_>, id: &DeviceId) -> Result<Response<Body>, Refusal> {
    let spec = wire::identity_write(call.body, id)?;
    let put =
        |registry: &mut Registry, random: Random<'_>, now| registry.put_identity(id, spec, &call.if_match, random, now);
    Ok(device(&written(call.hub.write(put).await?), call.if_match == IfMatch::Absent))
}

pub(super) async fn delete(call: &Call<'_>, id: &DeviceId) -> Result<Response<Body>, Refusal> {
    call.hub.write(|registry, _, _| registry.delete_identity(id, &call.if_match)).await?;
    Ok(no_content())
}

pub(super) async fn list_modules(call: &Call<'_>, id: &DeviceId) -> Result<Response<Body>, Refusal> {
    let modules = call.hub.read(|registry| registry.list_modules(id)).await?;
    let bodies: Vec<_> = modules.iter().map(|module| ModuleBody { module, just_created: false }).collect();
    Ok(json(wire::json(&bodies)))
}

pub(super) async fn get_module(call: &Call<'_>, device: &DeviceId, id: &ModuleId) -> Result<Response<Body>, Refusal> {
    let found = call.hub.read(|registry| registry.module(device, id)).await?;
    Ok(module(&found, false))
}

pub(super) async fn put_module(call: &Call<'_>, device: &DeviceId, id: &ModuleId) -> Result<Response<Body>, Refusal> {
    let spec = wire::module_write(call.body, device, id)?;
    let put = |registry: &mut Registry, random: Random<'_>, now| {
        registry.put_module(device, id, spec, &call.if_match, random, now)
    };
    Ok(module(&written(call.hub.write(put).await?), call.if_match == IfMatch::Absent))
}

pub(super) async fn delete_module(
    call: &Call<'_>,
    device: &DeviceId,
    id: &ModuleId,
) -> Result<Response<Body>, Refusal> {
    call.hub.write(|registry, _, _| registry.delete_module(device, id, &call.if_match)).await?;
    Ok(no_content())
}

/// 200 when every item was done, else 400 with the same body (`iot-hub.md` 2.6).
pub(super) async fn bulk(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let items = wire::bulk_items(call.body)?;
    let twin_write = call.options.bulk_twin_write;
    let errors = call.hub.write(|registry, random, now| registry.bulk(items, twin_write, random, now)).await?;
    let mut response = json(wire::bulk_result(&errors));
    if !errors.is_empty() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(ERROR_CODE, BULK_FAILURE);
    }
    Ok(response)
}

pub(super) async fn device_statistics(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let counts = call.hub.read(|registry| Ok(registry.statistics())).await?;
    Ok(json(wire::device_statistics(counts)))
}

pub(super) async fn service_statistics(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let counts = call.hub.read(|registry| Ok(registry.statistics())).await?;
    Ok(json(wire::service_statistics(counts)))
}

fn device(device: &Device, just_created: bool) -> Response<Body> {
    let mut response = json(wire::json(&IdentityBody { device, just_created }));
    let etag = format!("\"{}\"", device.identity.etag());
    response.headers_mut().insert(ETAG, HeaderValue::try_from(etag).expect("base64 in quotes fits a header"));
    response
}

/// Without an `ETag` header (`iot-hub.md` 1.4).
fn module(module: &Device, just_created: bool) -> Response<Body> {
    json(wire::json(&ModuleBody { module, just_created }))
}

/// The record of a change that was no deletion.
fn written(change: Change) -> Arc<Device> {
    change.after.expect("only a deletion leaves no record")
}
