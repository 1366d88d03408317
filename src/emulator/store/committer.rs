//! The committer: the one thread that writes while a hub runs.
//!
//! Invariant: what is told to be durable is flushed in the journal. At most two segments are not in the tables: the one
//! being written, and the one before it, on its way there.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use tokio::sync::{mpsc, oneshot, watch};

use super::frame::Frame;
use super::journal::Journal;
use super::{Store, StoreError};
use crate::emulator::mqtt::SessionRecord;
use crate::emulator::registry::Kept;

/// The most batches of changes that wait for a commit; beyond it, writers wait before they change anything.
pub const CHANGES_WAITING_MAX: usize = 4096;
/// How many changes and sessions fill a commit; the batch that reaches it is still in it.
const COMMIT_CHANGES_MAX: usize = 1024;
/// The size at which a segment goes into the tables, in bytes, when the one before is there.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// The size at which writers wait until it is.
const SEGMENT_BYTES_MAX: u64 = 4 * SEGMENT_BYTES;

/// What waits for the store.
#[derive(Debug)]
pub enum Waiting {
    /// What to keep in one commit, at least one thing.
    Changes {
        /// In its order.
        kept: Vec<Kept>,
        /// The number of the last change in it.
        up_to: u64,
        /// Gets them back when they are kept: who made them is the one to free their memory.
        told: oneshot::Sender<Vec<Kept>>,
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
    let run = std::thread::scope(|scope| {
        let journal = store.begin_journal()?;
        let mut committer = Committer { store: &store, scope, journal, frame: Frame::new(), feeding: None };
        while committer.commit(&mut waiting, &durable)? {}
        committer.close()
    });
    if let Err(error) = run {
        tracing::error!(%error, "the embedded hub can keep no more writes and refuses all requests");
        durable.send_replace(Durable::Failed(error.to_string().into()));
    }
}

struct Committer<'scope, 'env> {
    store: &'env Store,
    scope: &'scope Scope<'scope, 'env>,
    journal: Journal,
    frame: Frame,
    /// The segment before, on its way into the tables.
    feeding: Option<ScopedJoinHandle<'scope, Result<(), StoreError>>>,
}

impl<'env> Committer<'_, 'env> {
    /// Waits for something and commits it with all else that waits; whether more can come.
    fn commit(
        &mut self,
        waiting: &mut mpsc::Receiver<Waiting>,
        durable: &watch::Sender<Durable>,
    ) -> Result<bool, StoreError> {
        let (mut number, mut told, mut done) = (None, Vec::new(), Vec::new());
        let (mut count, mut open) = (0, true);
        let mut next = waiting.blocking_recv();
        if next.is_none() {
            return Ok(false);
        }
        self.frame.clear();
        while let Some(item) = next {
            match item {
                Waiting::Changes { kept, up_to, told } => {
                    count += kept.len();
                    kept.iter().for_each(|one| self.frame.change(one));
                    number = Some(up_to);
                    done.push((told, kept));
                }
                Waiting::Session(session, kept) => {
                    count += 1;
                    self.frame.session(&session);
                    told.push(kept);
                }
                Waiting::Close => open = false,
            }
            next = if open && count < COMMIT_CHANGES_MAX { waiting.try_recv().ok() } else { None };
        }
        if !self.frame.is_empty() {
            let appended = self.journal.append(&mut self.frame);
            appended.map_err(|error| self.store.journal_file(self.journal.segment()).write_error(&error))?;
        }
        if let Some(number) = number {
            durable.send_replace(Durable::UpTo(number));
        }
        // Whoever does not wait any more need not be told.
        for (told, kept) in done {
            told.send(kept).ok();
        }
        for kept in told {
            kept.send(()).ok();
        }
        self.turn()?;
        Ok(open)
    }

    /// Begins another segment when this one is large enough, and has this one put into the tables.
    fn turn(&mut self) -> Result<(), StoreError> {
        if self.feeding.as_ref().is_some_and(ScopedJoinHandle::is_finished) {
            self.fed()?;
        }
        let bytes_max = if self.feeding.is_none() { SEGMENT_BYTES } else { SEGMENT_BYTES_MAX };
        if self.journal.bytes() < bytes_max {
            return Ok(());
        }
        self.fed()?;
        let full = self.journal.segment();
        self.journal = self.store.begin_segment(full + 1, self.journal.next())?;
        let store: &'env Store = self.store;
        self.feeding = Some(self.scope.spawn(move || store.feed(full, Some(full + 1))));
        Ok(())
    }

    /// Waits until the segment before is in the tables.
    fn fed(&mut self) -> Result<(), StoreError> {
        match self.feeding.take().map(ScopedJoinHandle::join) {
            None => Ok(()),
            Some(Ok(fed)) => fed,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    /// Puts everything into the tables; the journal ends.
    fn close(mut self) -> Result<(), StoreError> {
        self.fed()?;
        self.store.feed(self.journal.segment(), None)
    }
}
