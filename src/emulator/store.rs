//! The store: every device in one redb file, behind a journal that makes a write durable at the cost of one flush.
//!
//! ```text
//!   committer   what waits -> one frame -> journal, flushed -> told to be durable
//!   feeding     a full segment of the journal, read back -> one commit of the tables -> the segment is free
//!   opening     what the journal still holds -> the tables; the tables -> a registry
//! ```
//!
//! Invariant: one thread writes, in the order the registry changed. The tables name the oldest segment that they do not
//! hold; it and the one behind it are the journal. Files that cannot be read as a whole are an error that names the
//! file; nothing is repaired or left out silently.

mod committer;
mod frame;
mod journal;
mod restore;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use self::frame::{Entry, Frame, Table, entries};
use self::journal::{Journal, Segment};
use self::restore::restored;
use super::mqtt::SessionRecord;
use super::registry::{Kept, Registry};
use super::state_dir::{StateDir, StateDirError};
use super::stored;

pub use self::committer::{CHANGES_WAITING_MAX, Durable, Waiting, run_committer};

/// The tables.
const TABLES_FILE: &str = "store.redb";
/// The segments of the journal take turns: one is written while the other goes into the tables.
const JOURNAL_FILES: [&str; 2] = ["store.journal.0", "store.journal.1"];
/// Pages the store may keep in memory, in bytes; the registry holds all records anyway.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

const DEVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("devices");
/// By `device/module`; no id holds a slash.
const MODULES: TableDefinition<&str, &[u8]> = TableDefinition::new("modules");
/// The MQTT sessions that outlive a connection: `device` or `device/module` to the record.
const SESSIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("sessions");
const CONFIGURATIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("configurations");
const JOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("jobs");
/// By the number of the step, in twenty digits.
const JOB_ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("job_rows");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
/// The form of everything in the files, checked at every opening.
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"2";
/// The same without a journal.
const FORMAT_BEFORE_JOURNALS: &[u8] = b"1";
/// The number of the oldest segment that the tables do not hold, in eight bytes; nothing while there is no journal.
const JOURNAL_KEY: &str = "journal";
/// The number of the first segment and of the first frame.
const FIRST: u64 = 1;
/// The policies' keys.
const POLICIES_KEY: &str = "policies";

/// Why the store cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file is not what this program wrote, or cannot be read.
    #[error(
        "the hub's store {path} is damaged or cannot be read ({reason}); move the files store.* of the folder away to \
         start with an empty hub"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file was written by another version.
    #[error(
        "the hub's store {path} has another format than this version writes; move the files store.* of the folder \
         away to start with an empty hub"
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A commit failed.
    #[error("cannot write the hub's store {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system or the tables said.
        reason: String,
    },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] StateDirError),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
    journals: [JournalFile; 2],
}

#[derive(Debug)]
struct JournalFile {
    file: File,
    path: PathBuf,
}

impl JournalFile {
    fn read(&self) -> Result<Option<Segment>, StoreError> {
        Segment::read(&self.file).map_err(|reason| self.damaged(&reason))
    }

    fn damaged(&self, reason: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn write_error(&self, error: &std::io::Error) -> StoreError {
        StoreError::Write { path: self.path.clone(), reason: error.to_string() }
    }

    fn empty(&self) -> Result<(), StoreError> {
        let empty = || {
            self.file.set_len(0)?;
            self.file.sync_all()
        };
        empty().map_err(|error| self.write_error(&error))
    }
}

impl Store {
    /// Opens the store of the folder, or makes one. All of it is checked first, and what only the journal holds is put
    /// into the tables.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.path(TABLES_FILE);
        let file = state.open_file(TABLES_FILE)?;
        let open = || -> Result<Database, redb::Error> {
            let backend = FileBackend::new(file)?;
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(backend)?)
        };
        let database = open().map_err(|error| damaged(&path, &error))?;
        let journal = |name| Ok::<_, StoreError>(JournalFile { file: state.open_file(name)?, path: state.path(name) });
        let [even, odd] = JOURNAL_FILES;
        let store = Self { database, path, journals: [journal(even)?, journal(odd)?] };
        match store.about(FORMAT_KEY)? {
            None if store.is_empty()? => store.put_about(FORMAT_KEY, FORMAT)?,
            Some(format) if format == FORMAT => store.take_in_journal()?,
            Some(format) if format == FORMAT_BEFORE_JOURNALS => store.put_about(FORMAT_KEY, FORMAT)?,
            None | Some(_) => return Err(StoreError::Format { path: store.path }),
        }
        Ok(store)
    }

    /// That something it holds makes no sense.
    #[must_use]
    pub fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason }
    }

    /// Everything kept, as a registry.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a record cannot be read or makes no sense; the message names it.
    pub fn registry(&self) -> Result<Registry, StoreError> {
        let mut registry = restored(self)?;
        self.each(CONFIGURATIONS, |key, record| {
            registry.restore_configuration(stored::read_configuration(key, record)?);
            Ok(())
        })?;
        self.each(JOBS, |key, record| {
            registry.restore_job(stored::read_job(key, record)?);
            Ok(())
        })?;
        self.each(JOB_ROWS, |key, record| {
            registry.restore_job_rows(stored::read_job_rows(key, record)?);
            Ok(())
        })?;
        Ok(registry)
    }

    /// The MQTT sessions kept, by key.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn sessions(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut sessions = Vec::new();
        self.each(SESSIONS, |key, record| {
            sessions.push((key.to_owned(), record.to_vec()));
            Ok(())
        })?;
        Ok(sessions)
    }

    /// The policies' keys, if they were kept.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn policies(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.about(POLICIES_KEY)
    }

    /// Keeps the policies' keys.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn put_policies(&self, keys: &[u8]) -> Result<(), StoreError> {
        self.put_about(POLICIES_KEY, keys)
    }

    /// Writes `kept` in its order into the tables, durably, all or none. Not while a committer runs.
    ///
    /// # Errors
    /// [`StoreError::Write`]; nothing of `kept` is written then.
    pub fn commit(&self, kept: &[Kept], sessions: &[SessionRecord]) -> Result<(), StoreError> {
        let mut frame = Frame::new();
        kept.iter().for_each(|one| frame.change(one));
        sessions.iter().for_each(|one| frame.session(one));
        self.apply(&latest(&self.path, [frame.payload()])?, None)
    }

    /// Begins a journal, empty.
    fn begin_journal(&self) -> Result<Journal, StoreError> {
        // What an earlier journal left behind must not be taken for a part of this one.
        self.journals.iter().try_for_each(JournalFile::empty)?;
        let journal = self.begin_segment(FIRST, FIRST)?;
        self.put_about(JOURNAL_KEY, &journal.segment().to_be_bytes())?;
        Ok(journal)
    }

    /// Begins a segment; the one before the last must be in the tables.
    fn begin_segment(&self, number: u64, first: u64) -> Result<Journal, StoreError> {
        let file = self.journal_file(number);
        Journal::begin(&file.file, number, first).map_err(|error| file.write_error(&error))
    }

    /// Puts a segment into the tables, which know the next one as the oldest then, or none.
    fn feed(&self, number: u64, next: Option<u64>) -> Result<(), StoreError> {
        let file = self.journal_file(number);
        let segment = file.read()?.filter(|segment| segment.number == number);
        let segment = segment.ok_or_else(|| file.damaged("it is not the segment that was written"))?;
        self.apply(&latest(&file.path, segment.payloads())?, Some(next))
    }

    /// Puts what the journal holds into the tables, if there is a journal. There is none afterwards.
    fn take_in_journal(&self) -> Result<(), StoreError> {
        let Some(oldest) = self.about(JOURNAL_KEY)? else { return Ok(()) };
        let number = oldest.try_into().map_err(|_| self.damaged("the number of the journal".to_owned()))?;
        let oldest = u64::from_be_bytes(number);
        let file = self.journal_file(oldest);
        let first = file.read()?.filter(|segment| segment.number == oldest);
        let first = first.ok_or_else(|| file.damaged("it is missing, and holds writes that the store does not"))?;
        let behind = self.journal_file(oldest + 1);
        let second = behind.read()?.filter(|segment| segment.number == oldest + 1);
        if second.as_ref().is_some_and(|second| first.is_unfinished || second.first != first.next) {
            return Err(file.damaged("its last writes are missing"));
        }
        let mut records = latest(&file.path, first.payloads())?;
        if let Some(second) = &second {
            records.extend(latest(&behind.path, second.payloads())?);
        }
        self.apply(&records, Some(None))
    }

    /// The file whose turn it is.
    fn journal_file(&self, number: u64) -> &JournalFile {
        let [even, odd] = &self.journals;
        if number.is_multiple_of(2) { even } else { odd }
    }

    /// Writes records into the tables in one durable commit, all or none, and what the oldest segment is when that
    /// changes.
    fn apply(&self, records: &Records<'_>, oldest: Option<Option<u64>>) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            for table in Table::ALL {
                let mut to = transaction.open_table(definition(table))?;
                let of_table = records.iter().filter(|((of, _), _)| *of == table);
                for ((_, key), record) in of_table {
                    match record {
                        Some(record) => to.insert(key, record)?,
                        None => to.remove(key)?,
                    };
                }
            }
            if let Some(oldest) = oldest {
                let mut about = transaction.open_table(ABOUT)?;
                match oldest {
                    Some(number) => about.insert(JOURNAL_KEY, number.to_be_bytes().as_slice())?,
                    None => about.remove(JOURNAL_KEY)?,
                };
            }
            Ok(transaction.commit()?)
        };
        write().map_err(|error| self.write_error(&error))
    }

    /// Hands every record of a table to `take`, with its key, in the order of the keys.
    fn each(
        &self,
        table: TableDefinition<&'static str, &'static [u8]>,
        mut take: impl FnMut(&str, &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        let mut read = || -> Result<Result<(), String>, redb::Error> {
            let Some(table) = self.open_table(table)? else { return Ok(Ok(())) };
            for row in table.iter()? {
                let (key, record) = row?;
                let key = key.value();
                if let Err(reason) = take(key, record.value()) {
                    return Ok(Err(format!("the record of {key:?}: {reason}")));
                }
            }
            Ok(Ok(()))
        };
        let taken = read().map_err(|error| damaged(&self.path, &error))?;
        taken.map_err(|reason| self.damaged(reason))
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let read = || Ok(self.database.begin_read()?.list_tables()?.next().is_none());
        read().map_err(|error: redb::Error| damaged(&self.path, &error))
    }

    fn about(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let Some(table) = self.open_table(ABOUT)? else { return Ok(None) };
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        read().map_err(|error| damaged(&self.path, &error))
    }

    fn put_about(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(ABOUT)?.insert(key, value)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| self.write_error(&error))
    }

    fn open_table(
        &self,
        table: TableDefinition<&'static str, &'static [u8]>,
    ) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>, redb::Error> {
        match self.database.begin_read()?.open_table(table) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_error(&self, error: &redb::Error) -> StoreError {
        StoreError::Write { path: self.path.clone(), reason: error.to_string() }
    }
}

/// What is last said of each record; `None` removes it.
type Records<'a> = BTreeMap<(Table, &'a str), Option<&'a [u8]>>;

/// What the payloads say, in their order. `path` is what they were read from.
fn latest<'a>(path: &Path, payloads: impl IntoIterator<Item = &'a [u8]>) -> Result<Records<'a>, StoreError> {
    let mut records = Records::new();
    for entry in payloads.into_iter().flat_map(entries) {
        let Entry { table, key, record } =
            entry.map_err(|reason| StoreError::Damaged { path: path.to_owned(), reason: reason.to_owned() })?;
        records.insert((table, key), record);
    }
    Ok(records)
}

const fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    match table {
        Table::Devices => DEVICES,
        Table::Modules => MODULES,
        Table::Sessions => SESSIONS,
        Table::Configurations => CONFIGURATIONS,
        Table::Jobs => JOBS,
        Table::JobRows => JOB_ROWS,
    }
}

fn damaged(path: &Path, error: &redb::Error) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
