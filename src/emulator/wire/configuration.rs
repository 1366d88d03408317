//! Configurations (`iot-hub.md` 2.10).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::configuration::{
    Condition, Configuration, ConfigurationId, ConfigurationSpec, Content, Counts, Metric,
};
use super::super::error::Refusal;
use super::json::{date, into_object, json, typed, value};
use crate::query::Source;
use crate::twin::Object;

/// What a hub prints for a configuration that names no version.
const SCHEMA_VERSION: &str = "1.0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationRequest {
    id: Option<String>,
    schema_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    content: Option<serde_json::Value>,
    target_condition: Option<String>,
    priority: Option<i64>,
    metrics: Option<MetricsRequest>,
}

#[derive(Deserialize)]
struct MetricsRequest {
    queries: Option<BTreeMap<String, String>>,
}

/// Reads the body of a configuration's PUT. The content must be there, on updates too (`iot-hub.md` 2.10).
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape, [`Refusal::ArgumentInvalid`] for another id,
/// [`Refusal::ConfigurationContent`] for a content that is missing or none.
pub fn configuration_write(body: &[u8], id: &ConfigurationId) -> Result<ConfigurationSpec, Refusal> {
    let request: ConfigurationRequest = typed(body)?;
    if request.id.is_some_and(|given| given != id.as_str()) {
        return Err(Refusal::ArgumentInvalid("the id of the body is not the one of the address".to_owned()));
    }
    let missing = || Refusal::ConfigurationContent("a configuration has a content".to_owned());
    let content = request.content.filter(|content| !content.is_null()).ok_or_else(missing)?;
    Ok(ConfigurationSpec {
        schema_version: request.schema_version,
        labels: request.labels.unwrap_or_default(),
        content: Content::new(into_object(value(content)?, "content")?)?,
        target_condition: request.target_condition.unwrap_or_default(),
        priority: request.priority.unwrap_or(0),
        metrics: request.metrics.and_then(|metrics| metrics.queries).unwrap_or_default(),
    })
}

/// A configuration as GET and PUT answer it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationBody<'a> {
    id: &'a str,
    schema_version: &'a str,
    labels: &'a BTreeMap<String, String>,
    content: &'a Object,
    target_condition: &'a str,
    created_time_utc: String,
    last_updated_time_utc: String,
    priority: i64,
    system_metrics: MetricFields<'a>,
    metrics: MetricFields<'a>,
    etag: String,
}

#[derive(Debug, Serialize)]
struct MetricFields<'a> {
    results: BTreeMap<&'a str, u64>,
    queries: BTreeMap<&'a str, String>,
}

impl<'a> ConfigurationBody<'a> {
    /// A configuration with what the last evaluation counted.
    #[must_use]
    pub fn new(configuration: &'a Configuration, counts: &'a Counts) -> Self {
        let results = counts.metrics.iter().filter(|(name, _)| configuration.metrics.contains_key(*name));
        Self {
            id: configuration.id.as_str(),
            schema_version: configuration.schema_version.as_deref().unwrap_or(SCHEMA_VERSION),
            labels: &configuration.labels,
            content: &configuration.content.document,
            target_condition: &configuration.condition.text,
            created_time_utc: date(configuration.created),
            last_updated_time_utc: date(configuration.updated),
            priority: configuration.priority,
            system_metrics: MetricFields {
                results: BTreeMap::from([("appliedCount", counts.applied), ("targetedCount", counts.targeted)]),
                queries: system_queries(configuration),
            },
            metrics: MetricFields {
                results: results.map(|(name, count)| (name.as_str(), *count)).collect(),
                queries: configuration
                    .metrics
                    .iter()
                    .map(|(name, metric)| (name.as_str(), metric.text.clone()))
                    .collect(),
            },
            etag: configuration.etag(),
        }
    }
}

fn system_queries(configuration: &Configuration) -> BTreeMap<&'static str, String> {
    let of_modules = configuration.content.of == Source::Modules;
    let rows =
        if of_modules { "select deviceId, moduleId from devices.modules" } else { "select deviceId from devices" };
    let condition = configuration.condition.text.trim();
    let targeted = match condition {
        "*" => rows.to_owned(),
        _ if of_modules => format!("select deviceId, moduleId {condition}"),
        _ => format!("{rows} where {condition}"),
    };
    let applied = format!("{rows} where configurations.[[{}]].status = 'Applied'", configuration.id);
    BTreeMap::from([("appliedCount", applied), ("targetedCount", targeted)])
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestRequest {
    target_condition: Option<String>,
    custom_metric_queries: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestAnswer {
    target_condition_error: Option<String>,
    custom_metric_query_errors: BTreeMap<String, String>,
}

/// Answers what is wrong with a condition and with metrics (`iot-hub.md` 2.2).
///
/// # Errors
/// [`Refusal::Deserialization`] for a body of another shape.
pub fn test_queries(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: TestRequest = typed(body)?;
    let condition = request.target_condition.unwrap_or_default();
    let of_modules = condition.trim_start().get(..4).is_some_and(|head| head.eq_ignore_ascii_case("from"));
    let of = if of_modules { Source::Modules } else { Source::Devices };
    let error = |(name, text): (String, String)| Metric::new(&text).err().map(|refusal| (name, refusal.to_string()));
    Ok(json(&TestAnswer {
        target_condition_error: Condition::new(&condition, of).err().map(|refusal| refusal.to_string()),
        custom_metric_query_errors: request
            .custom_metric_queries
            .unwrap_or_default()
            .into_iter()
            .filter_map(error)
            .collect(),
    }))
}
