//! The form of a record in the store.
//!
//! Invariant: what is written reads back equal (a device's connection excepted, which no restart survives), numbers
//! included. This is no wire format: it may change with the store's format number, never without.

mod documents;
mod job_rows;
mod members;
mod outline;
mod parts;
mod patched;
mod stamp_text;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::configuration::{ConfigurationId, ConfigurationStatus};
use super::identity::{Authentication, Identity, SharedKey, Status, Thumbprints};
use super::part::Part;
use super::registry::Device;
use super::twin_record::{Properties, Stamp, StampNode, TwinRecord, WrittenBy};
use crate::twin::{DeviceId, ModuleId, Object, TwinRef};

pub use documents::{configuration, job, read_configuration, read_job};
pub use job_rows::{job_rows, read_job_rows};
pub use members::{Members, Unusual, is_object};
pub use outline::{Outline, outline};
pub use parts::{SectionText, Text, unpacked};
pub use patched::{difference, object as patched_object, section as patched_section};
pub use stamp_text::{NodeText, OwnStamp, StampNodes};

/// Nanoseconds in one stored step of time.
const TICK_NANOSECONDS: i128 = 100;

/// What stands before the sections. Short names, and nothing where the usual is meant: the registry keeps most records
/// in this form.
#[derive(Serialize)]
struct HeadOut<'a> {
    #[serde(rename = "g")]
    generation: u64,
    #[serde(rename = "e")]
    etag: u64,
    #[serde(rename = "s", skip_serializing_if = "is_enabled")]
    status: &'a str,
    #[serde(rename = "sr", skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "su", skip_serializing_if = "Option::is_none")]
    status_updated: Option<i64>,
    #[serde(rename = "cu", skip_serializing_if = "Option::is_none")]
    connection_updated: Option<i64>,
    #[serde(rename = "la", skip_serializing_if = "Option::is_none")]
    last_activity: Option<i64>,
    #[serde(skip_serializing_if = "is_sas")]
    #[serde(rename = "k")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "p")]
    primary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "q")]
    secondary: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "ed")]
    edge: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "m")]
    managed_by: Option<&'a str>,
    #[serde(rename = "te")]
    twin_etag: u64,
    #[serde(rename = "tv")]
    twin_version: u64,
}

/// The long names are those of the first records. Sections and stamps come in two forms, read or only looked through.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredIn<O, S> {
    #[serde(rename = "g", alias = "generation")]
    generation: u64,
    #[serde(rename = "e", alias = "etag")]
    etag: u64,
    #[serde(rename = "s", alias = "status")]
    status: Option<String>,
    #[serde(rename = "sr", alias = "reason")]
    reason: Option<String>,
    #[serde(rename = "su", alias = "status_updated")]
    status_updated: Option<i64>,
    #[serde(rename = "cu", alias = "connection_updated")]
    connection_updated: Option<i64>,
    #[serde(rename = "la", alias = "last_activity")]
    last_activity: Option<i64>,
    /// The kind of authentication; left out for keys, as all records did once.
    #[serde(rename = "k", alias = "kind")]
    kind: Option<String>,
    /// A key, or a thumbprint.
    #[serde(rename = "p", alias = "primary")]
    primary: Option<String>,
    #[serde(rename = "q", alias = "secondary")]
    secondary: Option<String>,
    #[serde(default)]
    #[serde(rename = "ed", alias = "edge")]
    edge: bool,
    #[serde(rename = "m", alias = "managed_by")]
    managed_by: Option<String>,
    #[serde(rename = "te", alias = "twin_etag")]
    twin_etag: u64,
    #[serde(rename = "tv", alias = "twin_version")]
    twin_version: u64,
    #[serde(rename = "t", alias = "tags")]
    tags: Option<Object>,
    #[serde(rename = "d", alias = "desired")]
    desired: O,
    #[serde(rename = "dv", alias = "desired_version")]
    desired_version: u64,
    #[serde(rename = "ds", alias = "desired_stamps")]
    desired_stamps: S,
    #[serde(rename = "r", alias = "reported")]
    reported: O,
    #[serde(rename = "rv", alias = "reported_version")]
    reported_version: u64,
    #[serde(rename = "rs", alias = "reported_stamps")]
    reported_stamps: S,
    #[serde(default)]
    configurations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredStamp {
    /// Ticks of 100 ns since 1970; left out when time and version are those of the node above.
    #[serde(default)]
    t: Option<i64>,
    #[serde(default)]
    v: Option<u64>,
    /// The nodes below, without those whose stamps, down to the leaves, are this node's.
    #[serde(default)]
    c: BTreeMap<String, StoredStamp>,
    /// The configuration that wrote it, and its digest.
    #[serde(default)]
    b: Option<(String, u64)>,
}

/// The kind of an authentication that records leave out.
const SAS: &str = "sas";

fn is_sas(kind: &&str) -> bool {
    *kind == SAS
}

fn is_enabled(status: &&str) -> bool {
    *status == Status::Enabled.as_str()
}

/// The record of a device or module.
#[must_use]
pub fn device(device: &Device) -> Vec<u8> {
    let mut record = Vec::new();
    write_device(device, &mut record);
    record
}

/// Appends the record of a device or module.
#[expect(clippy::missing_panics_doc, reason = "keys are strings, and a vector takes what it is given")]
pub fn write_device(device: &Device, to: &mut Vec<u8>) {
    let (identity, twin) = (&device.identity, &device.twin);
    let (primary, secondary) = match &identity.authentication {
        Authentication::Sas { primary, secondary } => (Some(primary.expose()), Some(secondary.expose())),
        Authentication::SelfSigned(thumbprints) => (thumbprints.primary(), thumbprints.secondary()),
        Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    let head = HeadOut {
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
    };
    serde_json::to_writer(&mut *to, &head).expect("strings and numbers serialize, and a vector takes every byte");
    to.pop();
    if let Some(tags) = &twin.tags {
        put(to, "\"t\":", tags.stored().bytes());
    }
    for (section, [values, version, stamps]) in
        [(&twin.desired, ["\"d\":", "\"dv\":", "\"ds\":"]), (&twin.reported, ["\"r\":", "\"rv\":", "\"rs\":"])]
    {
        let text = section.stored();
        put(to, values, text.values.bytes());
        put(to, version, text.version.to_string().as_bytes());
        put(to, stamps, text.stamps.bytes());
    }
    if !twin.configurations.is_empty() {
        let statuses = twin.configurations.iter().map(|(id, status)| (id.as_str(), status.as_str()));
        let statuses: BTreeMap<_, _> = statuses.collect();
        let text = serde_json::to_vec(&statuses).expect("strings serialize");
        put(to, "\"configurations\":", &text);
    }
    to.push(b'}');
}

/// Appends a field to an object that has one already.
fn put(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.push(b',');
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(value);
}

/// The device of a record under `device`, or the module of one under `device/module`.
///
/// # Errors
/// What is wrong with the record, without its content.
pub fn read_device(key: &str, record: &[u8]) -> Result<Device, String> {
    let mut stored: StoredIn<Object, StoredStamp> = parse(record)?;
    let identity = identity(key, &mut stored)?;
    let twin = TwinRecord {
        etag_number: stored.twin_etag,
        version: stored.twin_version,
        tags: stored.tags.map(Into::into),
        desired: properties(stored.desired, stored.desired_stamps, stored.desired_version)?,
        reported: properties(stored.reported, stored.reported_stamps, stored.reported_version)?,
        configurations: stored.configurations.into_iter().map(status).collect::<Result<_, _>>()?,
    };
    Ok(Device { identity: identity.into(), twin, change: 0 })
}

fn parse<'r, T: Deserialize<'r>>(record: &'r [u8]) -> Result<T, String> {
    serde_json::from_slice(record)
        .map_err(|error| format!("not a record (line {}, column {})", error.line(), error.column()))
}

/// Takes the identity out of a record.
fn identity<O, S>(key: &str, stored: &mut StoredIn<O, S>) -> Result<Identity, String> {
    let twin_ref = read_key(key)?;
    let (kind, status) = (stored.kind.as_deref().unwrap_or(SAS), stored.status.as_deref());
    Ok(Identity {
        device: twin_ref.device,
        module: twin_ref.module,
        generation: stored.generation,
        etag_number: stored.etag,
        status: status.map_or(Some(Status::Enabled), Status::parse).ok_or("an unknown status")?,
        status_reason: stored.reason.take(),
        status_updated: stored.status_updated.map(time).transpose()?,
        connected: false,
        connection_updated: stored.connection_updated.map(time).transpose()?,
        last_activity: stored.last_activity.map(time).transpose()?,
        authentication: authentication(kind, stored.primary.take(), stored.secondary.take())?,
        iot_edge: stored.edge,
        managed_by: stored.managed_by.take(),
    })
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

fn properties(values: Object, stamps: StoredStamp, version: u64) -> Result<Part<Properties>, String> {
    let stamps = read_stamps(stamps, None, &values)?;
    Ok(Properties { values, stamps, version }.into())
}

fn is_uniform(node: &StampNode, stamp: &Stamp) -> bool {
    node.stamp == *stamp && node.children.values().all(|child| is_uniform(child, stamp))
}

fn read_stamps(stored: StoredStamp, above: Option<&Stamp>, values: &Object) -> Result<StampNode, String> {
    let written_by = |(id, digest): (String, u64)| {
        let configuration = ConfigurationId::new(&id).map_err(|refusal| refusal.to_string())?;
        Ok::<_, String>(Arc::new(WrittenBy { configuration, digest }))
    };
    let stamp = match (stored.t, above) {
        (Some(at), _) => Stamp { at: time(at)?, version: stored.v, by: stored.b.map(written_by).transpose()? },
        (None, Some(above)) => above.clone(),
        (None, None) => return Err("a section without a time".to_owned()),
    };
    let mut node = StampNode::of(values, &stamp);
    for (key, below) in stored.c {
        // The time of a value that is not there says nothing of the twin.
        let Some(value) = values.get(&key) else { continue };
        let nothing = Object::new();
        let child = read_stamps(below, Some(&stamp), value.as_object().unwrap_or(&nothing))?;
        node.children.to_mut().insert(key, child);
    }
    Ok(node)
}

/// Fits: the years that jiff knows need 59 bits.
fn ticks(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond().div_euclid(TICK_NANOSECONDS)).expect("jiff's range of years fits 64 bits of ticks")
}

fn time(ticks: i64) -> Result<Timestamp, String> {
    Timestamp::from_nanosecond(i128::from(ticks) * TICK_NANOSECONDS).map_err(|_| "a time out of range".to_owned())
}
