//! The store: every device in one redb file, written before a write is acknowledged.
//!
//! Invariant: one thread writes, in the order the registry changed; what waits is taken together in one durable
//! commit. A file that cannot be read as a whole is an error that names it; nothing is repaired or left out silently.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot, watch};

use super::mqtt::SessionRecord;
use super::registry::{Kept, Registry, RowBatch};
use super::stored;

/// How many changes fill a commit; the batch that reaches it is still in it.
const COMMIT_CHANGES_MAX: usize = 1024;
/// The most batches of changes that wait for a commit; beyond it, writers wait before they change anything.
pub const CHANGES_WAITING_MAX: usize = 4096;
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
/// The form of everything in the file, checked at every opening.
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"1";
/// The policies' keys.
const POLICIES_KEY: &str = "policies";

/// Why the store cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not what this program wrote, or cannot be read.
    #[error("the hub's store {path} is damaged or cannot be read ({reason}); move it away to start with an empty hub")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
    /// The file was written by another version.
    #[error(
        "the hub's store {path} has another format than this version writes; move it away to start with an empty hub"
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
        /// What the store said.
        reason: String,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens `file`, which lies at `path`; an empty one is made a store. The whole file is checked first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::Format`].
    pub fn open(file: File, path: &Path) -> Result<Self, StoreError> {
        let open = || -> Result<Database, redb::Error> {
            let backend = FileBackend::new(file)?;
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(backend)?)
        };
        let store = Self { database: open().map_err(|error| damaged(path, &error))?, path: path.to_owned() };
        match store.about(FORMAT_KEY)? {
            None if store.is_empty()? => store.put_about(FORMAT_KEY, FORMAT)?,
            Some(format) if format == FORMAT => {}
            None | Some(_) => return Err(StoreError::Format { path: store.path }),
        }
        Ok(store)
    }

    /// Everything kept, as a registry.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a record cannot be read or makes no sense; the message names it.
    pub fn registry(&self) -> Result<Registry, StoreError> {
        let mut registry = Registry::default();
        for table in [DEVICES, MODULES] {
            self.each(table, |key, record| registry.restore(key, record))?;
        }
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
        taken.map_err(|reason| StoreError::Damaged { path: self.path.clone(), reason })
    }

    /// The MQTT sessions kept, by key.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn sessions(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let Some(table) = self.open_table(SESSIONS)? else { return Ok(Vec::new()) };
            let row = |row: Result<_, redb::StorageError>| {
                let (key, record): (redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>) = row?;
                Ok((key.value().to_owned(), record.value().to_vec()))
            };
            table.iter()?.map(row).collect()
        };
        read().map_err(|error| damaged(&self.path, &error))
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

    /// Writes `kept` in its order, durably, all or none.
    ///
    /// # Errors
    /// [`StoreError::Write`]; nothing of `kept` is written then.
    pub fn commit(&self, kept: &[Kept], sessions: &[SessionRecord]) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let (mut devices, mut modules) = (transaction.open_table(DEVICES)?, transaction.open_table(MODULES)?);
                let mut configurations = transaction.open_table(CONFIGURATIONS)?;
                let mut jobs = transaction.open_table(JOBS)?;
                let mut job_rows = transaction.open_table(JOB_ROWS)?;
                let mut session_table = transaction.open_table(SESSIONS)?;
                for one in kept {
                    let (table, key, record) = match one {
                        Kept::Twin(change) => {
                            let table = if change.twin.module.is_none() { &mut devices } else { &mut modules };
                            let key = change.twin.to_string();
                            if change.after.is_none() {
                                session_table.remove(key.as_str())?;
                            }
                            (table, key, change.after.as_deref().map(stored::device))
                        }
                        Kept::Configuration { id, after } => {
                            (&mut configurations, id.to_string(), after.as_deref().map(stored::configuration))
                        }
                        Kept::Job { id, after } => (&mut jobs, id.to_string(), after.as_deref().map(stored::job)),
                        Kept::JobRows { number, rows } => {
                            (&mut job_rows, RowBatch::key(*number), rows.as_deref().map(stored::job_rows))
                        }
                    };
                    match record {
                        Some(record) => table.insert(key.as_str(), record.as_slice())?,
                        None => table.remove(key.as_str())?,
                    };
                }
                for session in sessions {
                    match &session.record {
                        Some(record) => session_table.insert(session.key.as_str(), record.as_slice())?,
                        None => session_table.remove(session.key.as_str())?,
                    };
                }
            }
            Ok(transaction.commit()?)
        };
        write().map_err(|error| self.write_error(&error))
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

fn damaged(path: &Path, error: &redb::Error) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason: error.to_string() }
}

/// What waits for the store.
#[derive(Debug)]
pub enum Waiting {
    /// What to keep in one commit, at least one thing.
    Changes {
        /// In its order.
        kept: Vec<Kept>,
        /// The number of the last change in it.
        up_to: u64,
    },
    /// A session to keep; the sender is told when it is.
    Session(SessionRecord, oneshot::Sender<()>),
    /// Nothing comes any more: keep what came before, then close.
    Close,
}

/// How far the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durable {
    /// Every change up to this number is kept.
    UpTo(u64),
    /// A commit failed; nothing is written any more. The text says why.
    Failed(Arc<str>),
}

/// Commits what arrives until told to close or until nobody can send any more; closes the store then. Blocks, so it
/// runs on a thread of its own.
#[expect(clippy::needless_pass_by_value, reason = "the store and both ends of the channels end with the thread")]
pub fn run_committer(store: Store, mut waiting: mpsc::Receiver<Waiting>, durable: watch::Sender<Durable>) {
    while let Some(first) = waiting.blocking_recv() {
        let (mut waited, mut sessions, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let (mut number, mut open) = (0, true);
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Waiting::Changes { mut kept, up_to } => {
                    waited.append(&mut kept);
                    number = up_to;
                }
                Waiting::Session(session, kept) => {
                    sessions.push(session);
                    told.push(kept);
                }
                Waiting::Close => open = false,
            }
            let room = open && waited.len() + sessions.len() < COMMIT_CHANGES_MAX;
            next = if room { waiting.try_recv().ok() } else { None };
        }
        if !waited.is_empty() || !sessions.is_empty() {
            if let Err(error) = store.commit(&waited, &sessions) {
                tracing::error!(%error, "the embedded hub can keep no more writes and refuses all requests");
                durable.send_replace(Durable::Failed(error.to_string().into()));
                return;
            }
            if !waited.is_empty() {
                durable.send_replace(Durable::UpTo(number));
            }
            // Whoever does not wait any more need not be told.
            for kept in told {
                kept.send(()).ok();
            }
        }
        if !open {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
