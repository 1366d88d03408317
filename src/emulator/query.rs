//! Queries over the registry, page by page (`iot-hub.md` 2.7 and 5).
//!
//! Invariant: a continuation token names the last device given, so a page begins where the one before ended, whatever
//! was written in between; a token fits no other query. Work for one page is bounded, the single row of a COUNT
//! excepted.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use super::error::Refusal;
use super::registry::{Device, Registry};
use super::wire;
use crate::query::{self, Groups, Query, Row, Select, Source, Tri};
use crate::twin::{DeviceId, Object, Value};

/// The largest page, and the one given when none is asked for (`iot-hub.md` 2.7; the default is unproven there).
pub const PAGE_SIZE_MAX: usize = 100;
/// The most devices looked at for one page. A page may therefore be short and still not the last one.
const SCAN_MAX: usize = 10_000;

/// One page of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What was found.
    pub rows: Rows,
    /// Present exactly while more remains.
    pub next: Option<String>,
}

/// The rows of a page, by the item type of `iot-hub.md` 2.7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// `SELECT *`: whole twins.
    Twins(Vec<Arc<Device>>),
    /// Projections and counts.
    Raw(Vec<Object>),
}

/// Where a page begins.
struct Position {
    last: Option<DeviceId>,
    given: u64,
}

/// Runs one page of `text`. A page size outside 1 to 100 is brought inside; `token` is what the page before gave.
///
/// # Errors
/// [`Refusal::ArgumentInvalid`] for a query the hub does not take and for a token that is not of this query;
/// [`Refusal::NotImplemented`] for `devices.jobs`.
pub fn run_page(
    registry: &Registry,
    text: &str,
    page_size: Option<usize>,
    token: Option<&str>,
) -> Result<Page, Refusal> {
    let query = query::parse(text).map_err(|error| Refusal::ArgumentInvalid(format!("BadRequest: {error}")))?;
    let page_size = page_size.unwrap_or(PAGE_SIZE_MAX).clamp(1, PAGE_SIZE_MAX);
    let from = position(text, token)?;
    match (query.source, &query.select) {
        (Source::Jobs, _) => Err(Refusal::NotImplemented("a query over devices.jobs".to_owned())),
        // No module can be registered yet.
        (Source::Modules, Select::All) => Ok(Page { rows: Rows::Twins(Vec::new()), next: None }),
        (Source::Modules, Select::Items(_) | Select::Groups(_)) => Ok(Page { rows: Rows::Raw(Vec::new()), next: None }),
        (Source::Devices, Select::Groups(_)) => Ok(Page { rows: Rows::Raw(groups(registry, &query)?), next: None }),
        (Source::Devices, Select::All) => {
            let (found, next) = find(registry, &query, text, page_size, &from);
            Ok(Page { rows: Rows::Twins(found), next })
        }
        (Source::Devices, Select::Items(items)) => {
            let (found, next) = find(registry, &query, text, page_size, &from);
            let rows = found.iter().map(|device| query::project(items, device.as_ref())).collect();
            Ok(Page { rows: Rows::Raw(rows), next })
        }
    }
}

fn passes(query: &Query, device: &Device) -> bool {
    query.filter.as_ref().is_none_or(|filter| query::eval(filter, device) == Tri::True)
}

fn groups(registry: &Registry, query: &Query) -> Result<Vec<Object>, Refusal> {
    let Some(mut groups) = Groups::of(query) else { return Ok(Vec::new()) };
    for device in registry.devices_after(None).filter(|device| passes(query, device)) {
        groups.add(device.as_ref()).map_err(|error| Refusal::ArgumentInvalid(error.to_string()))?;
    }
    Ok(groups.rows())
}

fn find(
    registry: &Registry,
    query: &Query,
    text: &str,
    page_size: usize,
    from: &Position,
) -> (Vec<Arc<Device>>, Option<String>) {
    let wanted = query.top.unwrap_or(u64::MAX).saturating_sub(from.given);
    let room = page_size.min(usize::try_from(wanted).unwrap_or(usize::MAX));
    let mut found: Vec<Arc<Device>> = Vec::with_capacity(room);
    if room == 0 {
        return (found, None);
    }
    let mut seen = None;
    for (scanned, device) in registry.devices_after(from.last.as_ref()).enumerate() {
        let hit = passes(query, device);
        if (hit && found.len() == room) || scanned == SCAN_MAX {
            let given = from.given + u64::try_from(found.len()).unwrap_or(u64::MAX);
            // What lies behind TOP is no "more".
            let more = query.top.is_none_or(|top| given < top);
            return (found, seen.filter(|_| more).map(|last| token(text, given, last)));
        }
        if hit {
            found.push(Arc::clone(device));
        }
        // Behind a full page, misses may be passed over: the next page finds none of them either way.
        seen = Some(&device.identity.device);
    }
    (found, None)
}

/// A token: base64 of the query's hash, the rows given so far and the last device looked at.
fn token(text: &str, given: u64, last: &DeviceId) -> String {
    BASE64.encode(format!("{}:{given}:{last}", fingerprint(text)))
}

fn position(text: &str, token: Option<&str>) -> Result<Position, Refusal> {
    let Some(token) = token else { return Ok(Position { last: None, given: 0 }) };
    let read = || {
        let plain = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let mut parts = plain.splitn(3, ':');
        let (hash, given, last) = (parts.next()?, parts.next()?, parts.next()?);
        let (given, last) = (given.parse().ok()?, DeviceId::new(last).ok()?);
        (hash == fingerprint(text)).then_some(Position { last: Some(last), given })
    };
    read().ok_or_else(|| Refusal::ArgumentInvalid("the continuation token is not one of this query".to_owned()))
}

/// Enough of a hash to tell queries apart.
fn fingerprint(text: &str) -> String {
    BASE64.encode(&Sha256::digest(text)[..9])
}

impl Row for Device {
    /// The system properties of `iot-hub.md` 5.4, `deviceEtag`, and the sections with `$version` and `$metadata`.
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let (first, below) = path.split_first()?;
        let (identity, twin) = (&self.identity, &self.twin);
        let text = |text: &str| Some(Value::from(text));
        let whole = match first.as_str() {
            "tags" => return section(twin.tags.as_ref()?, below),
            "properties" => return properties(self, below),
            "deviceId" => text(identity.device.as_str()),
            "moduleId" => identity.module.as_ref().and_then(|module| text(module.as_str())),
            "etag" => Some(Value::from(twin.etag())),
            "deviceEtag" => Some(Value::from(identity.etag())),
            "status" => text(identity.status.as_str()),
            "statusReason" => identity.status_reason.as_deref().and_then(text),
            "statusUpdateTime" => Some(Value::from(wire::date_or_never(identity.status_updated))),
            "connectionState" => text(wire::connection_state(identity.connected)),
            "lastActivityTime" => Some(Value::from(wire::date_or_never(identity.last_activity))),
            "cloudToDeviceMessageCount" => Some(Value::from(0)),
            "authenticationType" => text(identity.authentication.as_str()),
            "version" => Some(wire::count(twin.version)),
            "modelId" if identity.module.is_none() => text(""),
            "capabilities" if identity.module.is_none() => {
                Some(Value::Object(Object::from([("iotEdge".to_owned(), Value::from(identity.iot_edge))])))
            }
            "deviceScope" => identity.device_scope().as_deref().and_then(text),
            _ => None,
        };
        owned_beneath(whole?, below)
    }
}

fn section<'a>(values: &'a Object, path: &[String]) -> Option<Cow<'a, Value>> {
    let Some((first, below)) = path.split_first() else { return Some(Cow::Owned(Value::Object(values.clone()))) };
    below.iter().try_fold(values.get(first)?, |value, key| value.as_object()?.get(key)).map(Cow::Borrowed)
}

fn properties<'a>(device: &'a Device, path: &[String]) -> Option<Cow<'a, Value>> {
    let Some((name, below)) = path.split_first() else {
        let both = [("desired", &device.twin.desired), ("reported", &device.twin.reported)];
        let both = both.map(|(name, section)| (name.to_owned(), wire::properties(section)));
        return Some(Cow::Owned(Value::Object(Object::from(both))));
    };
    let properties = match name.as_str() {
        "desired" => &device.twin.desired,
        "reported" => &device.twin.reported,
        _ => return None,
    };
    match below.split_first() {
        None => Some(Cow::Owned(wire::properties(properties))),
        Some((key, below)) if key == "$version" => owned_beneath(wire::count(properties.version), below),
        Some((key, below)) if key == "$metadata" => owned_beneath(wire::stamps(&properties.stamps), below),
        Some(_) => section(&properties.values, below),
    }
}

fn owned_beneath<'a>(value: Value, path: &[String]) -> Option<Cow<'a, Value>> {
    let beneath = |value, key: &String| match value {
        Value::Object(mut object) => object.remove(key),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    };
    path.iter().try_fold(value, beneath).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::*;
    use crate::twin::{MergePatch, TwinRef};

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn own(text: &str) -> TwinRef {
        TwinRef::device(id(text))
    }

    fn create(registry: &mut Registry, device: &str) {
        let spec = IdentitySpec::default();
        let mut random = |bytes: &mut [u8]| bytes.fill(1);
        registry.put_identity(&id(device), spec, &IfMatch::Absent, &mut random, Timestamp::UNIX_EPOCH).unwrap();
    }

    fn fleet(count: usize) -> Registry {
        let mut registry = Registry::default();
        for number in 0..count {
            create(&mut registry, &format!("d{number:02}"));
        }
        registry
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn rows(registry: &Registry, text: &str) -> Vec<String> {
        match run_page(registry, text, None, None).unwrap().rows {
            Rows::Twins(twins) => twins.iter().map(|device| device.identity.device.to_string()).collect(),
            Rows::Raw(rows) => rows.into_iter().map(|row| Value::Object(row).to_string()).collect(),
        }
    }

    /// The ids of all pages, and the size of each page.
    fn pages(registry: &Registry, text: &str, page_size: usize) -> (Vec<String>, Vec<usize>) {
        let (mut ids, mut sizes, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let page = run_page(registry, text, Some(page_size), token.as_deref()).unwrap();
            let Rows::Twins(twins) = page.rows else { panic!("{text} selects twins") };
            sizes.push(twins.len());
            ids.extend(twins.iter().map(|device| device.identity.device.to_string()));
            token = page.next;
            if token.is_none() {
                return (ids, sizes);
            }
        }
    }

    #[test]
    fn the_two_queries_of_the_tutorial_count_and_project() {
        let mut registry = fleet(3);
        let patch = MergePatch { tags: Some(object(r#"{"location":{"plant":"Redmond43"}}"#)), desired: None };
        for device in ["d00", "d01"] {
            registry.patch_twin(&own(device), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
        }
        registry.report(&own("d01"), &object(r#"{"connectivity":"cellular"}"#), Timestamp::UNIX_EPOCH).unwrap();
        let plant = "tags.location.plant = 'Redmond43'";
        let cellular = format!("{plant} AND properties.reported.connectivity = 'cellular'");
        assert_eq!(rows(&registry, &format!("SELECT * FROM devices WHERE {plant}")), ["d00", "d01"]);
        assert_eq!(rows(&registry, &format!("SELECT * FROM devices WHERE {cellular}")), ["d01"]);
        assert_eq!(rows(&registry, &format!("SELECT COUNT() AS n FROM devices WHERE {plant}")), [r#"{"n":2}"#]);
        assert_eq!(rows(&registry, "SELECT COUNT() AS n FROM devices WHERE deviceId = 'x'"), [r#"{"n":0}"#]);
        assert_eq!(
            rows(&registry, &format!("SELECT DeviceID, tags.location.plant AS p FROM devices WHERE {cellular}")),
            [r#"{"deviceId":"d01","p":"Redmond43"}"#]
        );
        assert_eq!(rows(&registry, "SELECT * FROM devices.modules"), Vec::<String>::new());
    }

    #[test]
    fn every_system_property_can_be_projected_and_what_is_missing_is_left_out() {
        let mut registry = fleet(1);
        let desired = MergePatch { tags: None, desired: Some(object(r#"{"a":{"b":1}}"#)) };
        registry.patch_twin(&own("d00"), &desired, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
        for (columns, row) in [
            ("etag, deviceEtag", r#"{"deviceEtag":"MTY4NDMwMDk=","etag":"AAAAAAAAAAI="}"#),
            ("status, connectionState", r#"{"connectionState":"Disconnected","status":"enabled"}"#),
            ("statusReason, tags, tags.x, properties.desired.a.x", "{}"),
            ("version, authenticationType", r#"{"authenticationType":"sas","version":3}"#),
            ("capabilities.iotEdge", r#"{"iotEdge":false}"#),
            ("properties.desired.a.b AS b, properties.desired.$version AS v", r#"{"b":1,"v":2}"#),
            ("properties.desired.$metadata.a.b.$lastUpdatedVersion AS v", r#"{"v":2}"#),
            ("properties.reported.$metadata.$lastUpdated AS at", r#"{"at":"1970-01-01T00:00:00Z"}"#),
            (
                "properties.reported",
                r#"{"reported":{"$metadata":{"$lastUpdated":"1970-01-01T00:00:00Z"},"$version":1}}"#,
            ),
        ] {
            assert_eq!(rows(&registry, &format!("SELECT {columns} FROM devices")), [row], "{columns}");
        }
    }

    #[test]
    fn a_page_is_followed_by_a_token_only_while_more_remains() {
        let registry = fleet(7);
        for (text, page_size, sizes) in [
            ("SELECT * FROM devices", 3, vec![3, 3, 1]),
            ("SELECT * FROM devices", 7, vec![7]),
            ("SELECT * FROM devices", 1000, vec![7]),
            ("SELECT * FROM devices", 0, vec![1; 7]),
            ("SELECT TOP 4 * FROM devices", 3, vec![3, 1]),
            ("SELECT TOP 3 * FROM devices", 3, vec![3]),
            ("SELECT TOP 0 * FROM devices", 3, vec![0]),
            ("SELECT * FROM devices WHERE deviceId != 'd06'", 6, vec![6]),
            ("SELECT * FROM devices WHERE deviceId IN ['d00', 'd06']", 1, vec![1, 1]),
            ("SELECT * FROM devices WHERE deviceId = 'x'", 1, vec![0]),
        ] {
            assert_eq!(pages(&registry, text, page_size).1, sizes, "{text}");
        }
    }

    #[test]
    fn paging_survives_writes_creations_and_deletions_between_pages() {
        let mut registry = fleet(6);
        let text = "SELECT * FROM devices";
        let first = run_page(&registry, text, Some(3), None).unwrap();
        registry.delete_identity(&id("d02"), &IfMatch::Any).unwrap();
        registry.delete_identity(&id("d04"), &IfMatch::Any).unwrap();
        create(&mut registry, "d01x");
        create(&mut registry, "d03x");
        let tags = MergePatch { tags: Some(object(r#"{"a":1}"#)), desired: None };
        registry.patch_twin(&own("d05"), &tags, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
        let second = run_page(&registry, text, Some(100), first.next.as_deref()).unwrap();
        let Rows::Twins(twins) = second.rows else { panic!("twins") };
        let ids: Vec<_> = twins.iter().map(|device| device.identity.device.as_str()).collect();
        assert_eq!((ids, second.next), (vec!["d03", "d03x", "d05"], None));
    }

    #[test]
    fn a_long_scan_gives_a_short_page_and_goes_on() {
        let mut registry = Registry::default();
        for number in 0..=SCAN_MAX {
            create(&mut registry, &format!("d{number:06}"));
        }
        let last = format!("SELECT * FROM devices WHERE deviceId = 'd{SCAN_MAX:06}'");
        assert_eq!(pages(&registry, &last, 10), (vec![format!("d{SCAN_MAX:06}")], vec![0, 1]));
    }

    #[test]
    fn a_bad_query_and_an_invented_token_are_refused() {
        let registry = fleet(3);
        let text = "SELECT * FROM devices";
        let foreign = run_page(&registry, text, Some(1), None).unwrap().next.unwrap();
        for (text, token, code) in [
            ("SELECT", None, "ArgumentInvalid"),
            ("SELECT * FROM devices ORDER BY deviceId", None, "ArgumentInvalid"),
            ("SELECT COUNT() FROM devices.modules", None, "ArgumentInvalid"),
            ("SELECT * FROM devices.jobs", None, "NotImplemented"),
            (text, Some("MQ=="), "ArgumentInvalid"),
            (text, Some("not base64"), "ArgumentInvalid"),
            (text, Some(""), "ArgumentInvalid"),
            ("SELECT * FROM devices WHERE deviceId != 'x'", Some(foreign.as_str()), "ArgumentInvalid"),
        ] {
            let refused = run_page(&registry, text, None, token).unwrap_err();
            assert_eq!(refused.code(), code, "{text} {token:?}");
        }
    }
}
