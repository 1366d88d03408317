//! Queries over the registry, page by page (`iot-hub.md` 2.7 and 5).
//!
//! Invariant: a continuation token names the last row given or looked at, so a page begins where the one before ended,
//! whatever was written in between; a token fits no other query. The work of one step is bounded, and so is that of
//! one page, aggregates excepted, which take as many steps as there are rows.

mod candidates;

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use self::candidates::Candidates;
use super::error::Refusal;
use super::registry::{Device, Registry};
use super::wire;
use crate::query::{self, Groups, Query, Row, Select, Source, Tri};
use crate::twin::{Object, Value};

/// The largest page, and the one given when none is asked for (`iot-hub.md` 2.7; the default is unproven there).
pub const PAGE_SIZE_MAX: usize = 100;
/// The most records looked at for one page. A page may therefore be short and still not the last one.
const SCAN_MAX: usize = 10_000;
/// The most records looked at in one step, so that whoever waits for the registry waits a millisecond or two.
const STEP_MAX: usize = 128;

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
    /// Projections and groups.
    Raw(Vec<Object>),
}

/// One page in the making: a step at a time, so that the registry is free in between.
#[derive(Debug)]
pub struct Run {
    query: Query,
    fingerprint: String,
    page_size: usize,
    from: Position,
    /// The key looked at last.
    seen: Option<String>,
    scanned: usize,
    found: Vec<Arc<Device>>,
    groups: Option<Groups>,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    given: usize,
    /// The key of the last record looked at; of groups, a hash of the last one given.
    last: Option<String>,
}

/// Runs one page of `text` in one go. A page size outside 1 to 100 is brought inside; `token` is what the page before
/// gave.
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
    let mut run = Run::new(text, page_size, token)?;
    loop {
        if let Some(page) = run.step(registry)? {
            return Ok(page);
        }
    }
}

impl Run {
    /// A page of `text` with nothing looked at yet; see [`run_page`].
    ///
    /// # Errors
    /// As [`run_page`].
    pub fn new(text: &str, page_size: Option<usize>, token: Option<&str>) -> Result<Self, Refusal> {
        let query = query::parse(text).map_err(|error| Refusal::ArgumentInvalid(format!("BadRequest: {error}")))?;
        if query.source == Source::Jobs {
            return Err(Refusal::NotImplemented("a query over devices.jobs".to_owned()));
        }
        let fingerprint = fingerprint(text);
        let from = position(&fingerprint, token)?;
        let groups = Groups::of(&query);
        let seen = from.last.clone().filter(|_| groups.is_none());
        let page_size = page_size.unwrap_or(PAGE_SIZE_MAX).clamp(1, PAGE_SIZE_MAX);
        Ok(Self { query, fingerprint, page_size, from, seen, scanned: 0, found: Vec::new(), groups })
    }

    /// Looks at some more records; the page when it is done.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when there are too many groups.
    pub fn step(&mut self, registry: &Registry) -> Result<Option<Page>, Refusal> {
        let Some(records) = registry.records(self.query.source) else { return self.done(false).map(Some) };
        let candidates = Candidates::of(self.query.filter.as_ref(), self.query.source, records);
        let count = if self.query.filter.is_none() { Some(records.len()) } else { candidates.exact_count() };
        if let (Some(groups), Some(count), None) = (&mut self.groups, count, &self.seen)
            && groups.add_unseen(count)
        {
            return self.done(false).map(Some);
        }
        let room = self.room();
        if room == 0 && self.groups.is_none() {
            return self.done(false).map(Some);
        }
        for _ in 0..STEP_MAX {
            let from = self.seen.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = candidates.seek(records, from).and_then(|key| Some((key.to_owned(), records.get(key)?)));
            let Some((key, device)) = next else { return self.done(false).map(Some) };
            let hit = passes(&self.query, &device);
            match &mut self.groups {
                Some(groups) if hit => {
                    groups.add(device.as_ref()).map_err(|error| Refusal::ArgumentInvalid(error.to_string()))?;
                }
                Some(_) => {}
                None if hit && self.found.len() == room => return self.done(true).map(Some),
                None if hit => self.found.push(device),
                None => {}
            }
            // Behind a full page, misses may be passed over: the next page finds none of them either way.
            self.seen = Some(key);
            self.scanned += 1;
            if self.scanned == SCAN_MAX && self.groups.is_none() {
                return self.done(true).map(Some);
            }
        }
        Ok(None)
    }

    /// How many rows this page may have.
    fn room(&self) -> usize {
        let top = self.query.top.map_or(usize::MAX, |top| usize::try_from(top).unwrap_or(usize::MAX));
        self.page_size.min(top.saturating_sub(self.from.given))
    }

    /// The page of what was found; `more` when the records did not end.
    fn done(&mut self, more: bool) -> Result<Page, Refusal> {
        if let Some(groups) = self.groups.take() {
            return Ok(self.page_of_groups(groups.rows()));
        }
        let found = std::mem::take(&mut self.found);
        let given = self.from.given + found.len();
        // What lies behind TOP is no "more".
        let more = more && self.query.top.is_none_or(|top| u64::try_from(given).unwrap_or(u64::MAX) < top);
        let last = self.seen.take().filter(|_| more);
        let next = last.map(|last| token(&self.fingerprint, &Position { given, last: Some(last) }));
        let rows = match &self.query.select {
            Select::Items(items) => {
                Rows::Raw(found.iter().map(|device| query::project(items, device.as_ref())).collect())
            }
            Select::All | Select::Groups(_) => Rows::Twins(found),
        };
        Ok(Page { rows, next })
    }

    /// Groups are made anew for each page; the page begins behind the group given last, or at its place when it is
    /// gone.
    fn page_of_groups(&self, rows: Vec<Object>) -> Page {
        let print = |row: &Object| fingerprint(&Value::Object(row.clone()).to_string());
        let last = self.from.last.as_deref();
        let behind = rows.iter().position(|row| Some(print(row).as_str()) == last).map(|index| index + 1);
        let start = behind.unwrap_or(self.from.given).min(rows.len());
        let room = self.room();
        let more = rows.len() - start > room
            && self.query.top.is_none_or(|top| u64::try_from(self.from.given + room).unwrap_or(u64::MAX) < top);
        let rows: Vec<Object> = rows.into_iter().skip(start).take(room).collect();
        let last = rows.last().filter(|_| more).map(print);
        let given = self.from.given + rows.len();
        let next = last.map(|last| token(&self.fingerprint, &Position { given, last: Some(last) }));
        Page { rows: Rows::Raw(rows), next }
    }
}

fn passes(query: &Query, device: &Device) -> bool {
    query.filter.as_ref().is_none_or(|filter| query::eval(filter, device) == Tri::True)
}

/// A token: base64 of the query's hash, the rows given so far and where they ended.
fn token(fingerprint: &str, position: &Position) -> String {
    BASE64.encode(format!("{fingerprint}:{}:{}", position.given, position.last.as_deref().unwrap_or_default()))
}

fn position(fingerprint: &str, token: Option<&str>) -> Result<Position, Refusal> {
    let Some(token) = token else { return Ok(Position { given: 0, last: None }) };
    let read = || {
        let plain = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let mut parts = plain.splitn(3, ':');
        let (hash, given, last) = (parts.next()?, parts.next()?, parts.next()?);
        (hash == fingerprint).then_some(Position { given: given.parse().ok()?, last: Some(last.to_owned()) })
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
            "configurations" => wire::configurations(twin),
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
    use crate::twin::{DeviceId, MergePatch, TwinRef};

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
        let last = format!("SELECT * FROM devices WHERE deviceId >= 'd{SCAN_MAX:06}'");
        assert_eq!(pages(&registry, &last, 10), (vec![format!("d{SCAN_MAX:06}")], vec![0, 1]));
    }

    /// A fleet whose tags overlap in every way.
    fn tagged(count: usize) -> Registry {
        let mut registry = fleet(count);
        for number in 0..count {
            let (site, rev) = (number % 3, number % 4);
            let tags = match number % 5 {
                0 => format!(r#"{{"site":"s{site}","rev":{rev},"loc":{{"plant":"p{rev}"}}}}"#),
                1 => format!(r#"{{"site":"s{site}","rev":{rev}.0,"on":true}}"#),
                2 => format!(r#"{{"site":{site},"loc":"p{rev}"}}"#),
                3 => format!(r#"{{"site":["s{site}"],"rev":"{rev}"}}"#),
                _ => continue,
            };
            let patch = MergePatch { tags: Some(object(&tags)), desired: None };
            registry
                .patch_twin(&own(&format!("d{number:02}")), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH)
                .unwrap();
        }
        registry
    }

    #[test]
    fn what_the_index_answers_is_what_a_look_at_every_twin_answers() {
        let mut registry = tagged(60);
        for device in ["d05", "d10", "d31"] {
            registry.delete_identity(&id(device), &IfMatch::Any).unwrap();
        }
        let patch = MergePatch { tags: Some(object(r#"{"site":null,"loc":{"plant":"p9"}}"#)), desired: None };
        registry.patch_twin(&own("d15"), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
        for condition in [
            "tags.site = 's1'",
            "'s1' = tags.site",
            "tags.site = 1",
            "tags.rev = 2",
            "tags.rev = 2.0",
            "tags.rev = '2'",
            "tags.on = true",
            "tags.on = false",
            "tags.loc.plant = 'p9'",
            "tags.loc = 'p1'",
            "tags.site = null",
            "tags.site = undefined",
            "tags.site = ['s1']",
            "tags.none = 1",
            "tags = 'x'",
            "tags.site = 's0' AND tags.rev = 0",
            "tags.site = 's0' AND tags.rev = 0 AND tags.loc.plant = 'p0'",
            "tags.site = 's0' AND version > 2",
            "tags.site = 's0' OR tags.rev = 3",
            "tags.site = 's0' OR version > 3",
            "tags.site IN ['s0', 's2', 1]",
            "tags.site IN []",
            "tags.site NIN ['s0']",
            "tags.site != 's0'",
            "NOT tags.site = 's0'",
            "deviceId = 'd07'",
            "deviceId = 'd05'",
            "deviceId = 'nobody'",
            "deviceId IN ['d40', 'd07', 'x'] AND tags.rev = 3",
            "deviceId = 'd07' AND deviceId = 'd08'",
            "tags.[[a.b]] = 1",
        ] {
            let text = format!("SELECT * FROM devices WHERE {condition}");
            let parsed = query::parse(&text).unwrap();
            let every = registry.devices_after(None).filter(|device| passes(&parsed, device));
            let every: Vec<String> = every.map(|device| device.identity.device.to_string()).collect();
            for page_size in [1, 3, 100] {
                assert_eq!(pages(&registry, &text, page_size).0, every, "{condition}");
            }
            let count = rows(&registry, &format!("SELECT COUNT() AS n FROM devices WHERE {condition}"));
            assert_eq!(count, [format!(r#"{{"n":{}}}"#, every.len())], "{condition}");
        }
    }

    #[test]
    fn groups_come_in_pages_that_survive_writes() {
        let mut registry = tagged(20);
        let text = "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId";
        let page = |registry: &Registry, token: Option<&str>| {
            let page = run_page(registry, text, Some(8), token).unwrap();
            let Rows::Raw(rows) = page.rows else { panic!("groups are raw") };
            let ids = rows.iter().map(|row| row["deviceId"].as_str().unwrap().to_owned());
            (ids.collect::<Vec<_>>(), page.next)
        };
        let (first, next) = page(&registry, None);
        assert_eq!((first.len(), first[7].as_str()), (8, "d07"));
        registry.delete_identity(&id("d01"), &IfMatch::Any).unwrap();
        create(&mut registry, "d09x");
        let (second, next) = page(&registry, next.as_deref());
        assert_eq!(second, ["d08", "d09", "d09x", "d10", "d11", "d12", "d13", "d14"]);
        registry.delete_identity(&id("d14"), &IfMatch::Any).unwrap();
        let (third, next) = page(&registry, next.as_deref());
        // The group that the page would begin behind is gone; its number counts then.
        assert_eq!((third, next), (vec!["d17".to_owned(), "d18".to_owned(), "d19".to_owned()], None));
        let top = "SELECT TOP 3 tags.rev, COUNT() AS n FROM devices GROUP BY tags.rev";
        let found = rows(&registry, top);
        assert_eq!(found.len(), 3, "{found:?}");
        let pages = run_page(&registry, top, Some(2), None).unwrap();
        let last = run_page(&registry, top, Some(2), pages.next.as_deref()).unwrap();
        assert!(matches!((last.rows, last.next), (Rows::Raw(rows), None) if rows.len() == 1));
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
