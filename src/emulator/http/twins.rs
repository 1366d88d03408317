//! Twins and queries (`iot-hub.md` 2.3 and 2.7).

use axum::body::Body;
use axum::http::{HeaderValue, Response};

use super::super::error::Refusal;
use super::super::query::Rows;
use super::super::registry::{Change, Device};
use super::super::wire;
use super::answers::json;
use super::{Call, header};
use crate::twin::TwinRef;

/// Where the next page of a query begins.
pub(super) const CONTINUATION: &str = "x-ms-continuation";
/// The size of a page.
pub(super) const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
/// What the rows are.
pub(super) const ITEM_TYPE: &str = "x-ms-item-type";

pub(super) async fn get(call: &Call<'_>, id: &TwinRef) -> Result<Response<Body>, Refusal> {
    Ok(twin(&*call.hub.record(id).await?))
}

pub(super) async fn patch(call: &Call<'_>, id: &TwinRef) -> Result<Response<Body>, Refusal> {
    let patch = wire::twin_write(call.body)?;
    call.hub
        .write_and(|registry, _, now| registry.patch_twin(id, &patch, &call.if_match, now), |change| written(&change))
        .await
}

pub(super) async fn replace(call: &Call<'_>, id: &TwinRef) -> Result<Response<Body>, Refusal> {
    let whole = wire::twin_write(call.body)?;
    call.hub
        .write_and(|registry, _, now| registry.replace_twin(id, &whole, &call.if_match, now), |change| written(&change))
        .await
}

pub(super) async fn call_method(call: &Call<'_>, id: &TwinRef) -> Result<Response<Body>, Refusal> {
    let method = wire::method_call(call.body)?;
    let (status, payload) = call.hub.call_method(id, &method).await?;
    Ok(json(wire::method_answer(status, &payload)?))
}

pub(super) async fn query(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let text = wire::query(call.body)?;
    let page_size = match header(call.headers, MAX_ITEM_COUNT)? {
        None => None,
        Some(text) => Some(
            text.trim()
                .parse::<i64>()
                .map_err(|_| Refusal::ArgumentInvalid(format!("{MAX_ITEM_COUNT} must be a number")))?,
        ),
    };
    let page_size = page_size.map(|size| usize::try_from(size).unwrap_or(0));
    let page = call.hub.query(&text, page_size, header(call.headers, CONTINUATION)?).await?;
    let (item_type, body) = match &page.rows {
        Rows::Twins(twins) => ("Twin", wire::twins(twins)),
        Rows::Jobs(rows) => ("DeviceJob", wire::json(&rows)),
        Rows::Raw(rows) => ("Raw", wire::json(&rows)),
    };
    let mut response = json(body);
    response.headers_mut().insert(ITEM_TYPE, HeaderValue::from_static(item_type));
    if let Some(next) = page.next {
        let next = HeaderValue::try_from(next).expect("base64 fits a header");
        response.headers_mut().insert(CONTINUATION, next);
    }
    Ok(response)
}

fn written(change: &Change) -> Response<Body> {
    twin(change.after.as_deref().expect("a write of a twin leaves a record"))
}

fn twin(device: &Device) -> Response<Body> {
    json(wire::twin(device))
}
