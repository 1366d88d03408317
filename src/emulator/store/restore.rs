//! The tables to a registry, on three threads: reading rows, looking through records, putting them in their places.
//!
//! Invariant: records come in the order of their tables and keys, a device before its modules; the first one that makes
//! no sense ends it.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use tokio::sync::mpsc;

use super::{DEVICES, MODULES, Store, StoreError};
use crate::emulator::registry::Registry;
use crate::emulator::stored::{Outline, outline};

/// How many records are handed on at a time.
const BATCH: usize = 256;
/// How many batches wait between two threads.
const BATCHES_WAITING_MAX: usize = 16;

struct Row {
    key: Box<str>,
    record: Arc<[u8]>,
}

/// The devices and modules that the tables hold.
///
/// # Errors
/// [`StoreError::Damaged`] when a record cannot be read or makes no sense; the message names it.
pub(super) fn restored(store: &Store) -> Result<Registry, StoreError> {
    // Channels that block must not do so on a thread that serves tasks, so none of the three is the caller's.
    std::thread::scope(|scope| {
        let (rows, read) = mpsc::channel(BATCHES_WAITING_MAX);
        let (outlines, seen) = mpsc::channel(BATCHES_WAITING_MAX);
        let reader = scope.spawn(move || read_rows(store, &rows));
        let viewer = scope.spawn(move || view(read, &outlines));
        let builder = scope.spawn(move || build(seen));
        // Each ends the ones around it: by closing its channel, or by taking no more.
        let built = joined(builder);
        joined(viewer);
        let read = joined(reader);
        let registry = built.map_err(|reason| store.damaged(reason))?;
        read?;
        Ok(registry)
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read_rows(store: &Store, rows: &mpsc::Sender<Vec<Row>>) -> Result<(), StoreError> {
    let mut batch = Vec::with_capacity(BATCH);
    for table in [DEVICES, MODULES] {
        store.each(table, |key, record| {
            batch.push(Row { key: key.into(), record: record.into() });
            if batch.len() < BATCH {
                return Ok(());
            }
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            // A record before it made no sense; whoever found it tells.
            rows.blocking_send(full).map_err(|_| "nothing was read behind it".to_owned())
        })?;
    }
    // As above.
    rows.blocking_send(batch).ok();
    Ok(())
}

type Viewed = Vec<(Row, Result<Outline, String>)>;

fn view(mut rows: mpsc::Receiver<Vec<Row>>, viewed: &mpsc::Sender<Viewed>) {
    while let Some(batch) = rows.blocking_recv() {
        let batch: Viewed = batch
            .into_iter()
            .map(|row| {
                let outline = outline(&row.key, &row.record);
                (row, outline)
            })
            .collect();
        if viewed.blocking_send(batch).is_err() {
            return;
        }
    }
}

fn build(mut viewed: mpsc::Receiver<Viewed>) -> Result<Registry, String> {
    let mut registry = Registry::default();
    while let Some(batch) = viewed.blocking_recv() {
        for (Row { key, record }, outline) in batch {
            outline
                .and_then(|outline| registry.restore(&key, record, &outline))
                .map_err(|reason| format!("the record of {key:?}: {reason}"))?;
        }
    }
    Ok(registry)
}
