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
use super::registry::{Device, JobRow, Registry};
use super::wire;
use crate::query::{self, Groups, Query, Row, Select, Source, Tri};
use crate::twin::{Object, Value};

/// The largest page, and the one given when none is asked for (`iot-hub.md` 2.7; the default is unproven there).
pub const PAGE_SIZE_MAX: usize = 100;
/// The most records looked at for one page. A page may therefore be short and still not the last one.
const SCAN_MAX: usize = 10_000;
/// The most records looked at in one step, so that whoever waits for the registry waits a millisecond or two.
const STEP_MAX: usize = 128;

/// The longest key of a group that a token names, in bytes; tokens travel in headers.
const KEY_BYTES_MAX: usize = 2048;
/// Stands before the key of a group in a token; no base64 begins with it.
const KEY_MARK: char = '@';

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
    /// `SELECT *` over `devices.jobs`: what each job did to each device.
    Jobs(Vec<Object>),
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
    found_jobs: Vec<Object>,
    groups: Option<Groups>,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    given: usize,
    /// The key of the last record looked at; of groups, that of the last one given or its hash.
    last: Option<String>,
}

/// Runs one page of `text` in one go. A page size outside 1 to 100 is brought inside; `token` is what the page before
/// gave.
///
/// # Errors
/// [`Refusal::ArgumentInvalid`] for a query the hub does not take and for a token that is not of this query.
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
        let fingerprint = fingerprint(text);
        let from = position(&fingerprint, token)?;
        let groups = Groups::of(&query);
        let seen = from.last.clone().filter(|_| groups.is_none());
        let page_size = page_size.unwrap_or(PAGE_SIZE_MAX).clamp(1, PAGE_SIZE_MAX);
        Ok(Self {
            query,
            fingerprint,
            page_size,
            from,
            seen,
            scanned: 0,
            found: Vec::new(),
            found_jobs: Vec::new(),
            groups,
        })
    }

    /// Whether it reads what a lagging index holds; jobs are not in it.
    #[must_use]
    pub fn may_lag(&self) -> bool {
        self.query.source != Source::Jobs
    }

    /// Looks at some more records; the page when it is done.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when there are too many groups.
    pub fn step(&mut self, registry: &Registry) -> Result<Option<Page>, Refusal> {
        let Some(records) = registry.records(self.query.source) else { return Ok(self.step_of_jobs(registry)) };
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

    /// The same over the rows of jobs, which are few and in the order of time.
    fn step_of_jobs(&mut self, registry: &Registry) -> Option<Page> {
        let room = self.room();
        let start = self.seen.as_deref().map_or(0, |last| behind(registry, last));
        let mut looked_at = 0;
        for row in registry.job_rows().skip(start).take(STEP_MAX) {
            let hit = self.query.filter.as_ref().is_none_or(|filter| query::eval(filter, row.as_ref()) == Tri::True);
            if hit && self.found_jobs.len() == room {
                return Some(self.page_of_jobs(true));
            }
            if hit {
                self.found_jobs.push(row.to_object());
            }
            self.seen = Some(key_of(row));
            looked_at += 1;
        }
        (looked_at < STEP_MAX).then(|| self.page_of_jobs(false))
    }

    fn page_of_jobs(&mut self, more: bool) -> Page {
        let rows = std::mem::take(&mut self.found_jobs);
        let given = self.from.given + rows.len();
        let last = self.seen.take().filter(|_| more);
        let next = last.map(|last| token(&self.fingerprint, &Position { given, last: Some(last) }));
        Page { rows: Rows::Jobs(rows), next }
    }

    /// How many rows this page may have.
    fn room(&self) -> usize {
        let top = self.query.top.map_or(usize::MAX, |top| usize::try_from(top).unwrap_or(usize::MAX));
        self.page_size.min(top.saturating_sub(self.from.given))
    }

    /// The page of what was found; `more` when the records did not end.
    fn done(&mut self, more: bool) -> Result<Page, Refusal> {
        if let Some(groups) = self.groups.take() {
            return Ok(self.page_of_groups(groups.rows_by_key()));
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

    /// Groups are made anew for each page; the page begins behind the key given last, whether its group is still there
    /// or not. Of a key too long for a token only a hash is known: when its group is gone, the page begins at its place.
    fn page_of_groups(&self, rows: Vec<(String, Object)>) -> Page {
        let start = match self.from.last.as_deref().map(|last| (last, last.strip_prefix(KEY_MARK))) {
            None => 0,
            Some((_, Some(last))) => rows.partition_point(|(key, _)| key.as_str() <= last),
            Some((hash, None)) => {
                let behind = rows.iter().position(|(key, _)| fingerprint(key) == hash).map(|index| index + 1);
                behind.unwrap_or(self.from.given).min(rows.len())
            }
        };
        let room = self.room();
        let more = rows.len() - start > room
            && self.query.top.is_none_or(|top| u64::try_from(self.from.given + room).unwrap_or(u64::MAX) < top);
        let (keys, rows): (Vec<String>, Vec<Object>) = rows.into_iter().skip(start).take(room).unzip();
        let last = keys.last().filter(|_| more).map(|key| match key.len() {
            0..=KEY_BYTES_MAX => format!("{KEY_MARK}{key}"),
            _ => fingerprint(key),
        });
        let given = self.from.given + rows.len();
        let next = last.map(|last| token(&self.fingerprint, &Position { given, last: Some(last) }));
        Page { rows: Rows::Raw(rows), next }
    }
}

fn passes(query: &Query, device: &Device) -> bool {
    query.filter.as_ref().is_none_or(|filter| query::eval(filter, device) == Tri::True)
}

/// What tells a row of a job from all others; its time stands in front.
fn key_of(row: &JobRow) -> String {
    format!("{}/{}/{}", row.at.as_nanosecond(), row.job, row.device)
}

/// How many rows of jobs lie before the one behind `last`. When that one is gone, so are all that came before it.
fn behind(registry: &Registry, last: &str) -> usize {
    let at = last.split('/').next().and_then(|at| at.parse::<i128>().ok());
    let is_last = |row: &Arc<JobRow>| Some(row.at.as_nanosecond()) == at && key_of(row) == last;
    registry.job_rows().position(is_last).map_or(0, |index| index + 1)
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
mod tests;
