//! What one commit changes, as bytes: entries one behind the other, with a head when they go into the journal.
//!
//! An entry: table 1 byte, length of the key 4, length of the record 4 ([`GONE`] when it is removed), key, record.
//!
//! Invariant: the entries of a frame stand in the order of the changes, and a frame is read back whole or not at all.

use std::io;

use super::super::mqtt::SessionRecord;
use super::super::registry::{Kept, RowBatch};
use super::super::stored;

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 20;
/// The last byte of a frame. No zero, so that a frame whose end is missing is seen to be unfinished.
pub(super) const END: u8 = b'\n';
const ENTRY_HEAD_BYTES: usize = 9;
/// In the place of a record's length: there is none any more.
const GONE: u32 = u32::MAX;
/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Devices,
    Modules,
    Sessions,
    Configurations,
    Jobs,
    JobRows,
}

impl Table {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Devices, Self::Modules, Self::Sessions, Self::Configurations, Self::Jobs, Self::JobRows];

    const fn number(self) -> u8 {
        match self {
            Self::Devices => 1,
            Self::Modules => 2,
            Self::Sessions => 3,
            Self::Configurations => 4,
            Self::Jobs => 5,
            Self::JobRows => 6,
        }
    }
}

/// One record to keep or to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) table: Table,
    pub(super) key: &'a str,
    /// `None` removes what is there.
    pub(super) record: Option<&'a [u8]>,
}

/// The head of a frame in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the payload, in bytes.
    pub(super) length: usize,
    /// Of the frame; the next one has the next.
    pub(super) number: u64,
    /// The CRC-32 of the payload.
    pub(super) check: u32,
}

impl Head {
    /// The head that `bytes` begin with.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let (length, check) = (read_u32(head, 0)?, read_u32(head, 12)?);
        let number = u64::from_le_bytes(head[4..12].try_into().ok()?);
        let is_sound = read_u32(head, 16)? == crc32fast::hash(&head[..16]);
        is_sound.then_some(Self { length: usize::try_from(length).ok()?, number, check })
    }
}

/// What one commit changes.
#[derive(Debug)]
pub(super) struct Frame {
    /// The head's place, then the payload, then the end once it is sealed.
    bytes: Vec<u8>,
}

impl Frame {
    /// One without entries.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEAD_BYTES] }
    }

    /// Takes all entries out.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEAD_BYTES);
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// The entries' bytes.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEAD_BYTES..]
    }

    /// Adds a change. The session of a deleted device or module goes with it.
    pub(super) fn change(&mut self, kept: &Kept) {
        match kept {
            Kept::Twin(change) => {
                let table = if change.twin.module.is_none() { Table::Devices } else { Table::Modules };
                let key = change.twin.to_string();
                match &change.after {
                    Some(device) => self.keep(table, &key, |bytes| stored::write_device(device, bytes)),
                    None => {
                        self.remove(table, &key);
                        self.remove(Table::Sessions, &key);
                    }
                }
            }
            Kept::Configuration { id, after } => {
                self.put(Table::Configurations, id.as_str(), after.as_deref().map(stored::configuration));
            }
            Kept::Job { id, after } => self.put(Table::Jobs, id.as_str(), after.as_deref().map(stored::job)),
            Kept::JobRows { number, rows } => {
                self.put(Table::JobRows, &RowBatch::key(*number), rows.as_deref().map(stored::job_rows));
            }
        }
    }

    /// Adds a session.
    pub(super) fn session(&mut self, session: &SessionRecord) {
        self.put(Table::Sessions, &session.key, session.record.as_deref());
    }

    /// Adds an entry.
    pub(super) fn put(&mut self, table: Table, key: &str, record: Option<impl AsRef<[u8]>>) {
        match record {
            Some(record) => self.keep(table, key, |bytes| bytes.extend_from_slice(record.as_ref())),
            None => self.remove(table, key),
        }
    }

    /// The whole frame, as the one of this number; nothing can be added before it is cleared.
    pub(super) fn seal(&mut self, number: u64) -> io::Result<&[u8]> {
        let length = self.payload().len();
        let length_field = u32::try_from(length).ok().filter(|_| length <= PAYLOAD_BYTES_MAX);
        let length_field = length_field.ok_or_else(|| io::Error::other("a commit is too large"))?;
        let check = crc32fast::hash(self.payload());
        let head = &mut self.bytes[..HEAD_BYTES];
        head[..4].copy_from_slice(&length_field.to_le_bytes());
        head[4..12].copy_from_slice(&number.to_le_bytes());
        head[12..16].copy_from_slice(&check.to_le_bytes());
        let head_check = crc32fast::hash(&head[..16]);
        head[16..].copy_from_slice(&head_check.to_le_bytes());
        self.bytes.push(END);
        Ok(&self.bytes)
    }

    fn keep(&mut self, table: Table, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let begun = self.bytes.len();
        self.head(table, key);
        let start = self.bytes.len();
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(GONE);
        assert!(length < GONE, "a record is far smaller than 4 GiB");
        self.bytes[begun + 5..begun + ENTRY_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    fn remove(&mut self, table: Table, key: &str) {
        self.head(table, key);
    }

    /// Writes what stands before the record, as of one that is removed.
    fn head(&mut self, table: Table, key: &str) {
        let length = u32::try_from(key.len()).expect("an id has at most some hundred characters");
        self.bytes.push(table.number());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&GONE.to_le_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
    }
}

/// The entries of a payload, in order. An item is an error, the last one, when it is no payload.
pub(super) fn entries(payload: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, &'static str>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_entry(rest);
        rest = taken.map_or(&[], |(_, behind)| behind);
        Some(taken.map(|(entry, _)| entry).ok_or("an entry that cannot be read"))
    })
}

fn take_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let number = *bytes.first()?;
    let table = Table::ALL.into_iter().find(|table| table.number() == number)?;
    let (key_length, record_length) = (read_u32(bytes, 1)?, read_u32(bytes, 5)?);
    let (key, behind) = bytes.get(ENTRY_HEAD_BYTES..)?.split_at_checked(usize::try_from(key_length).ok()?)?;
    let key = std::str::from_utf8(key).ok()?;
    if record_length == GONE {
        return Some((Entry { table, key, record: None }, behind));
    }
    let (record, behind) = behind.split_at_checked(usize::try_from(record_length).ok()?)?;
    Some((Entry { table, key, record: Some(record) }, behind))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
