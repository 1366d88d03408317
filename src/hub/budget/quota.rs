//! The day's messages, as far as we use them (`iot-hub.md` 6.2).
//!
//! Invariant: pure. What we used is an estimate from sizes; it begins with nothing at a start and at 00:00 UTC.

use crate::twin::{MergePatch, Object, Twin, Value};

use super::Lane;

pub(super) const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// What `GET` answers of a twin besides its sections: ids, etags, versions, status, times.
const TWIN_FRAME_SIZE: usize = 600;
/// `$lastUpdated`, `$lastUpdatedVersion` and their braces, for each key of desired and reported (`iot-hub.md` 1.1).
const METADATA_SIZE: usize = 85;
/// A number in JSON.
const NUMBER_SIZE: usize = 6;
/// From this part of our messages on it is worth a warning.
const WARNED_FROM: f64 = 0.8;

/// Messages that one request or answer of `bytes` counts as; an empty one counts as one.
pub(super) fn messages(bytes: usize, message_size: usize) -> u64 {
    u64::try_from(bytes.div_ceil(message_size).max(1)).unwrap_or(u64::MAX)
}

/// About the size of a page's body, in bytes.
pub(in crate::hub) fn rows_size(rows: &[Value]) -> usize {
    2 + rows.iter().map(|row| value_size(row) + 1).sum::<usize>()
}

/// About the size of a twin as `GET` answers it, in bytes.
pub(super) fn twin_size(twin: &Twin) -> usize {
    let annotated = |section: &Object| object_size(section) + keys(section) * METADATA_SIZE;
    TWIN_FRAME_SIZE + object_size(&twin.tags) + annotated(&twin.desired) + annotated(&twin.reported)
}

/// About the size of a patch's body, in bytes.
pub(super) fn patch_size(patch: &MergePatch) -> usize {
    let section = |object: &Option<Object>| object.as_ref().map_or(0, object_size);
    40 + section(&patch.tags) + section(&patch.desired)
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(_) => NUMBER_SIZE,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| value_size(item) + 1).sum::<usize>(),
        Value::Object(object) => object_size(object),
    }
}

fn object_size(object: &Object) -> usize {
    2 + object.iter().map(|(key, value)| key.len() + 4 + value_size(value)).sum::<usize>()
}

fn keys(object: &Object) -> usize {
    let below = |value: &Value| value.as_object().map_or(0, keys);
    object.values().map(|value| 1 + below(value)).sum()
}

/// What a change of the count is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaNews {
    /// Most of our messages are used.
    Low,
    /// A lane has none left.
    Spent(Lane),
}

/// Our messages of the day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Quota {
    /// Ours a day; `None` without a limit.
    limit: Option<u64>,
    /// Days since 1970.
    day: u64,
    used: u64,
    told_low: bool,
    told_spent: [bool; super::LANES],
}

impl Quota {
    /// Nothing used yet of `limit` messages a day.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether `lane` may use another message at `unix_seconds`. The lower a lane, the earlier it ends, so that what
    /// the others leave is there for a change in Git.
    pub(super) fn admits(&mut self, lane: Lane, unix_seconds: u64) -> Result<(), Option<QuotaNews>> {
        self.turn(unix_seconds);
        let Some(limit) = self.limit else { return Ok(()) };
        if self.used < part(limit, lane.quota_part()) {
            return Ok(());
        }
        let told = std::mem::replace(&mut self.told_spent[lane.index()], true);
        Err((!told).then_some(QuotaNews::Spent(lane)))
    }

    /// Counts `messages` used at `unix_seconds`.
    pub(super) fn charge(&mut self, messages: u64, unix_seconds: u64) -> Option<QuotaNews> {
        self.turn(unix_seconds);
        self.used = self.used.saturating_add(messages);
        let low = self.limit.is_some_and(|limit| self.used >= part(limit, WARNED_FROM));
        (low && !std::mem::replace(&mut self.told_low, true)).then_some(QuotaNews::Low)
    }

    /// Used since 00:00 UTC, or since the start.
    pub(super) fn used(&mut self, unix_seconds: u64) -> u64 {
        self.turn(unix_seconds);
        self.used
    }

    /// Ours a day.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn turn(&mut self, unix_seconds: u64) {
        let day = unix_seconds / SECONDS_PER_DAY;
        // A clock that is set back does not bring a day back.
        if day > self.day {
            *self = Self { limit: self.limit, day, ..Self::default() };
        }
    }
}

/// A part of a count.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of messages a day are below 2^52, and a part is between 0 and 1"
)]
pub(super) fn part(count: u64, part: f64) -> u64 {
    (count as f64 * part) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{DeviceId, ETag, TwinRef};

    #[test]
    fn lanes_end_one_after_another_and_begin_anew_with_the_day() {
        let mut quota = Quota::new(Some(100));
        let ends = |quota: &mut Quota, now: u64| Lane::ALL.map(|lane| quota.admits(lane, now).is_err());
        assert_eq!(ends(&mut quota, 5), [false; 4]);
        assert_eq!(quota.charge(79, 5), None);
        assert_eq!(quota.charge(1, 5), Some(QuotaNews::Low));
        assert_eq!(quota.admits(Lane::Query, 5), Err(Some(QuotaNews::Spent(Lane::Query))));
        assert_eq!(quota.admits(Lane::Query, 6), Err(None), "it is said once a day");
        assert_eq!(ends(&mut quota, 5), [false, false, false, true]);
        assert_eq!(quota.charge(10, 5), None);
        assert_eq!(ends(&mut quota, 5), [false, false, true, true]);
        assert_eq!(quota.charge(10, 5), None);
        assert_eq!(ends(&mut quota, 5), [true; 4]);
        assert_eq!(quota.used(SECONDS_PER_DAY - 1), 100);
        assert_eq!((quota.used(SECONDS_PER_DAY), ends(&mut quota, SECONDS_PER_DAY)), (0, [false; 4]));
        let mut free = Quota::new(None);
        assert_eq!(free.charge(u64::MAX, 0), None);
        assert_eq!((ends(&mut free, 0), free.used(0)), ([false; 4], u64::MAX));
    }

    #[test]
    fn sizes_count_as_the_hub_counts_them() {
        for (bytes, size, expected) in [(0, 4096, 1), (4096, 4096, 1), (4097, 4096, 2), (600, 512, 2)] {
            assert_eq!(messages(bytes, size), expected, "{bytes} of {size}");
        }
        let row =
            Value::parse_json(r#"{"d":"device-000001","t":"AAAAAAAAAAU=","y":"MTIzNDU2Nzg5","h":"0123456789abcdef"}"#)
                .unwrap();
        let exact = row.to_string().len();
        assert!(rows_size(&vec![row; 100]).abs_diff(100 * exact) < 5 * exact);
        let section = |json: &str| Value::parse_json(json).unwrap().as_object().unwrap().clone();
        let twin = Twin {
            twin_ref: TwinRef::device(DeviceId::new("d").unwrap()),
            etag: ETag::new("AAAA").unwrap(),
            device_etag: None,
            version: 1,
            tags: section(r#"{"a":1}"#),
            desired: section(r#"{"a":{"b":1}}"#),
            reported: Object::new(),
            system: Object::new(),
        };
        let size = twin_size(&twin);
        assert!((780..820).contains(&size), "two keys with metadata: {size}");
    }
}
