//! The form of a record in the store.
//!
//! Invariant: what is written reads back equal (a device's connection excepted, which no restart survives), numbers
//! included. This is no wire format: it may change with the store's format number, never without.

mod documents;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::configuration::{ConfigurationId, ConfigurationStatus};
use super::identity::{Authentication, Identity, SharedKey, Status, Thumbprints};
use super::registry::Device;
use super::twin_record::{Properties, Stamp, StampNode, TwinRecord, WrittenBy};
use super::wire::{self, Map};
use crate::twin::{DeviceId, ModuleId, Object, TwinRef, Value};

pub use documents::{configuration, job, read_configuration, read_job};

/// Nanoseconds in one stored step of time.
const TICK_NANOSECONDS: i128 = 100;

#[derive(Serialize)]
struct StoredOut<'a> {
    generation: u64,
    etag: u64,
    status: &'a str,
    reason: Option<&'a str>,
    status_updated: Option<i64>,
    connection_updated: Option<i64>,
    last_activity: Option<i64>,
    #[serde(skip_serializing_if = "is_sas")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secondary: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    edge: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<&'a str>,
    twin_etag: u64,
    twin_version: u64,
    tags: Option<Map<'a>>,
    desired: Map<'a>,
    desired_version: u64,
    desired_stamps: StoredStamp,
    reported: Map<'a>,
    reported_version: u64,
    reported_stamps: StoredStamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    configurations: BTreeMap<&'a str, &'static str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredIn {
    generation: u64,
    etag: u64,
    status: String,
    reason: Option<String>,
    status_updated: Option<i64>,
    connection_updated: Option<i64>,
    last_activity: Option<i64>,
    /// The kind of authentication; left out for keys, as all records did once.
    kind: Option<String>,
    /// A key, or a thumbprint.
    primary: Option<String>,
    secondary: Option<String>,
    #[serde(default)]
    edge: bool,
    managed_by: Option<String>,
    twin_etag: u64,
    twin_version: u64,
    tags: Option<serde_json::Value>,
    desired: serde_json::Value,
    desired_version: u64,
    desired_stamps: StoredStamp,
    reported: serde_json::Value,
    reported_version: u64,
    reported_stamps: StoredStamp,
    #[serde(default)]
    configurations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredStamp {
    /// Ticks of 100 ns since 1970.
    t: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    c: BTreeMap<String, StoredStamp>,
    /// The configuration that wrote it, and its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b: Option<(String, u64)>,
}

/// The kind of an authentication that records leave out.
const SAS: &str = "sas";

fn is_sas(kind: &&str) -> bool {
    *kind == SAS
}

/// The record of a device or module.
#[must_use]
pub fn device(device: &Device) -> Vec<u8> {
    let (identity, twin) = (&device.identity, &device.twin);
    let (primary, secondary) = match &identity.authentication {
        Authentication::Sas { primary, secondary } => (Some(primary.expose()), Some(secondary.expose())),
        Authentication::SelfSigned(thumbprints) => (thumbprints.primary(), thumbprints.secondary()),
        Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    let record = StoredOut {
        generation: identity.generation,
        etag: identity.etag_number,
        status: identity.status.as_str(),
        reason: identity.status_reason.as_deref(),
        status_updated: identity.status_updated.map(ticks),
        connection_updated: identity.connection_updated.map(ticks),
        last_activity: identity.last_activity.map(ticks),
        kind: identity.authentication.as_str(),
        primary,
        secondary,
        edge: identity.iot_edge,
        managed_by: identity.managed_by.as_deref(),
        twin_etag: twin.etag_number,
        twin_version: twin.version,
        tags: twin.tags.as_ref().map(Map),
        desired: Map(&twin.desired.values),
        desired_version: twin.desired.version,
        desired_stamps: stamps(&twin.desired.stamps),
        reported: Map(&twin.reported.values),
        reported_version: twin.reported.version,
        reported_stamps: stamps(&twin.reported.stamps),
        configurations: twin.configurations.iter().map(|(id, status)| (id.as_str(), status.as_str())).collect(),
    };
    wire::json(&record)
}

/// The device of a record under `device`, or the module of one under `device/module`.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn read_device(key: &str, record: &[u8]) -> Result<Device, String> {
    let twin_ref = read_key(key)?;
    let stored: StoredIn = serde_json::from_slice(record)
        .map_err(|error| format!("not a record (line {}, column {})", error.line(), error.column()))?;
    let authentication = authentication(stored.kind.as_deref().unwrap_or(SAS), stored.primary, stored.secondary)?;
    let identity = Identity {
        device: twin_ref.device,
        module: twin_ref.module,
        generation: stored.generation,
        etag_number: stored.etag,
        status: Status::parse(&stored.status).ok_or("an unknown status")?,
        status_reason: stored.reason,
        status_updated: stored.status_updated.map(time).transpose()?,
        connected: false,
        connection_updated: stored.connection_updated.map(time).transpose()?,
        last_activity: stored.last_activity.map(time).transpose()?,
        authentication,
        iot_edge: stored.edge,
        managed_by: stored.managed_by,
    };
    let twin = TwinRecord {
        etag_number: stored.twin_etag,
        version: stored.twin_version,
        tags: stored.tags.map(object).transpose()?,
        desired: properties(stored.desired, stored.desired_stamps, stored.desired_version)?,
        reported: properties(stored.reported, stored.reported_stamps, stored.reported_version)?,
        configurations: stored.configurations.into_iter().map(status).collect::<Result<_, _>>()?,
    };
    Ok(Device { identity, twin, change: 0 })
}

fn read_key(key: &str) -> Result<TwinRef, String> {
    let device = |text: &str| DeviceId::new(text).map_err(|error| error.to_string());
    match key.split_once('/') {
        None => device(key).map(TwinRef::device),
        Some((above, module)) => {
            let module = ModuleId::new(module).map_err(|error| error.to_string())?;
            Ok(TwinRef::module(device(above)?, module))
        }
    }
}

fn authentication(kind: &str, primary: Option<String>, secondary: Option<String>) -> Result<Authentication, String> {
    let key = |text: Option<String>| {
        let text = text.ok_or_else(|| "a key is missing".to_owned())?;
        SharedKey::new(&text).map_err(|refusal| refusal.to_string())
    };
    match kind {
        SAS => Ok(Authentication::Sas { primary: key(primary)?, secondary: key(secondary)? }),
        "selfSigned" => {
            Thumbprints::new(primary, secondary).map(Authentication::SelfSigned).map_err(|refusal| refusal.to_string())
        }
        "certificateAuthority" => Ok(Authentication::CertificateAuthority),
        "none" => Ok(Authentication::None),
        _ => Err("an unknown kind of authentication".to_owned()),
    }
}

fn status((id, status): (String, String)) -> Result<(ConfigurationId, ConfigurationStatus), String> {
    let id = ConfigurationId::new(&id).map_err(|refusal| refusal.to_string())?;
    Ok((id, ConfigurationStatus::parse(&status).ok_or("an unknown status of a configuration")?))
}

fn properties(values: serde_json::Value, stamps: StoredStamp, version: u64) -> Result<Properties, String> {
    Ok(Properties { values: object(values)?, stamps: read_stamps(stamps)?, version })
}

fn object(json: serde_json::Value) -> Result<Object, String> {
    match Value::from_json(json) {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("a section is no object".to_owned())
        }
    }
}

fn stamps(node: &StampNode) -> StoredStamp {
    StoredStamp {
        t: ticks(node.stamp.at),
        v: node.stamp.version,
        c: node.children.iter().map(|(key, child)| (key.clone(), stamps(child))).collect(),
        b: node.stamp.by.as_ref().map(|by| (by.configuration.to_string(), by.digest)),
    }
}

fn read_stamps(stored: StoredStamp) -> Result<StampNode, String> {
    let written_by = |(id, digest): (String, u64)| {
        let configuration = ConfigurationId::new(&id).map_err(|refusal| refusal.to_string())?;
        Ok::<_, String>(Arc::new(WrittenBy { configuration, digest }))
    };
    let stamp = Stamp { at: time(stored.t)?, version: stored.v, by: stored.b.map(written_by).transpose()? };
    let child = |(key, child)| Ok((key, read_stamps(child)?));
    Ok(StampNode { stamp, children: stored.c.into_iter().map(child).collect::<Result<_, String>>()? })
}

/// Fits: the years that jiff knows need 59 bits.
fn ticks(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond().div_euclid(TICK_NANOSECONDS)).expect("jiff's range of years fits 64 bits of ticks")
}

fn time(ticks: i64) -> Result<Timestamp, String> {
    Timestamp::from_nanosecond(i128::from(ticks) * TICK_NANOSECONDS).map_err(|_| "a time out of range".to_owned())
}
