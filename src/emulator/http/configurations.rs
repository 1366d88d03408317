//! Configurations (`iot-hub.md` 2.10).

use axum::body::Body;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, Response};

use super::super::configuration::{Configuration, ConfigurationId, Counts};
use super::super::error::Refusal;
use super::super::wire::{self, ConfigurationBody};
use super::answers::{json, no_content};
use super::{Call, parameter};

pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let top = parameter(call.query, "top").and_then(|top| top.parse().ok()).filter(|top| *top > 0);
    let found = call.hub.read(|registry| Ok(registry.list_configurations(top))).await?;
    let bodies: Vec<_> = found.iter().map(|(one, counts)| ConfigurationBody::new(one, counts)).collect();
    Ok(json(wire::json(&bodies)))
}

pub(super) async fn get(call: &Call<'_>, id: &ConfigurationId) -> Result<Response<Body>, Refusal> {
    let (found, counts) = call.hub.read(|registry| registry.configuration(id)).await?;
    Ok(configuration(&found, &counts))
}

pub(super) async fn put(call: &Call<'_>, id: &ConfigurationId) -> Result<Response<Body>, Refusal> {
    let spec = wire::configuration_write(call.body, id)?;
    let count_max = call.options.configurations_max();
    let put = call.hub.write(|registry, _, now| registry.put_configuration(id, spec, &call.if_match, count_max, now));
    let (after, counts) = put.await?;
    Ok(configuration(&after, &counts))
}

pub(super) async fn delete(call: &Call<'_>, id: &ConfigurationId) -> Result<Response<Body>, Refusal> {
    call.hub.write(|registry, _, _| registry.delete_configuration(id, &call.if_match)).await?;
    Ok(no_content())
}

fn configuration(configuration: &Configuration, counts: &Counts) -> Response<Body> {
    let mut response = json(wire::json(&ConfigurationBody::new(configuration, counts)));
    let etag = format!("\"{}\"", configuration.etag());
    response.headers_mut().insert(ETAG, HeaderValue::try_from(etag).expect("base64 in quotes fits a header"));
    response
}
