//! What is known of every file: its content's hash, and what it was parsed to.
//!
//! Invariant: a file is parsed when its content is not the one it was parsed from, and at no other time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::read::{Batch, Bounds, FileContent, FileReader, Listing, ReadError};
use crate::manifest::{ParsedFile, Rules, parse_file_within};

pub(super) type Hash = [u8; 32];

/// Every file of the last load, by the name it goes by.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) files: BTreeMap<Arc<str>, Arc<ParsedFile>>,
    hashes: BTreeMap<Arc<str>, Hash>,
    /// All names and contents together: the hashes of each pair of them, joined by exclusive or, so that one file's
    /// part can be exchanged.
    pub(super) content: Hash,
    /// What the hub's settings demand of the manifests.
    pub(super) rules: Arc<Rules>,
}

/// One file as it is now.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) name: Arc<str>,
    pub(super) hash: Hash,
    pub(super) file: Arc<ParsedFile>,
    /// Whether it had to be parsed.
    pub(super) is_new: bool,
}

impl Known {
    /// What is known after `before`, once all files are read.
    pub(super) fn of(all: Vec<Fresh>, before: &Self) -> Self {
        let mut known = Self { rules: Arc::clone(&before.rules), ..Self::default() };
        for fresh in &all {
            join(&mut known.content, &fresh.name, &fresh.hash);
        }
        known.hashes = all.iter().map(|fresh| (Arc::clone(&fresh.name), fresh.hash)).collect();
        known.files = all.into_iter().map(|fresh| (fresh.name, fresh.file)).collect();
        known
    }

    /// The hash of the content that a file was last seen with.
    pub(super) fn hash(&self, name: &str) -> Option<&Hash> {
        self.hashes.get(name)
    }

    /// The name as it is kept already, or anew.
    pub(super) fn name(&self, name: &str) -> Arc<str> {
        self.hashes.get_key_value(name).map_or_else(|| name.into(), |(known, _)| Arc::clone(known))
    }

    /// Takes one file over; gives back what was known of it.
    pub(super) fn put(&mut self, fresh: &Fresh) -> Option<Arc<ParsedFile>> {
        if let Some(before) = self.hashes.insert(Arc::clone(&fresh.name), fresh.hash) {
            join(&mut self.content, &fresh.name, &before);
        }
        join(&mut self.content, &fresh.name, &fresh.hash);
        self.files.insert(Arc::clone(&fresh.name), Arc::clone(&fresh.file))
    }
}

impl Fresh {
    /// Hashes `content`, and parses it unless that is known.
    pub(super) fn of(name: Arc<str>, content: FileContent<'_>, known: &Known) -> Self {
        let before = known.hash(&name);
        let content = match content {
            // A file that lost all its bytes is being written, as far as can be told: it freezes what it declared.
            FileContent::Text("") if before.is_some_and(|before| *before != hash_of(&FileContent::Text(""))) => {
                let message = "empty all at once; delete it, or leave a comment, if that is meant";
                FileContent::Unusable("emptied", message.to_owned())
            }
            content @ (FileContent::Text(_) | FileContent::Unusable(..)) => content,
        };
        let hash = hash_of(&content);
        if let Some(file) = known.files.get(&name).filter(|_| before == Some(&hash)) {
            return Self { file: Arc::clone(file), name, hash, is_new: false };
        }
        let file = match content {
            FileContent::Text(text) => parse_file_within(&name, text, &known.rules),
            FileContent::Unusable(rule, message) => ParsedFile::unreadable(&name, rule, message),
        };
        Self { name, hash, file: Arc::new(file), is_new: true }
    }
}

/// Reads, hashes and parses every file of `listing`. The batches are shared out over all cores as they come: reading
/// and parsing one file touches nothing of another, and threads that live for one load need no pool to be kept.
pub(super) fn read_all(listing: &Listing, known: &Known, bounds: Bounds) -> Result<Vec<Fresh>, ReadError> {
    let work = Work {
        listing,
        known,
        bounds,
        total: AtomicU64::new(0),
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(listing.batches.len());
    let mut all: Vec<Fresh> = listing
        .unusable
        .iter()
        .map(|(name, (rule, message))| Fresh::of(Arc::clone(name), FileContent::Unusable(rule, message.clone()), known))
        .collect();
    if threads <= 1 {
        all.extend(work.run()?);
        return Ok(all);
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        let mut result = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(Ok(fresh)) => all.extend(fresh),
                Ok(Err(error)) => result = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })?;
    Ok(all)
}

/// What the threads of one load share.
struct Work<'l> {
    listing: &'l Listing,
    known: &'l Known,
    bounds: Bounds,
    /// Bytes read so far.
    total: AtomicU64,
    /// The first batch that nobody took.
    next: AtomicUsize,
    /// One thread failed: the others need not go on.
    failed: AtomicBool,
}

impl Work<'_> {
    fn run(&self) -> Result<Vec<Fresh>, ReadError> {
        let mut reader = FileReader::new(self.bounds, &self.total);
        let mut done = Vec::new();
        while let Some(batch) = self.listing.batches.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.read(batch, &mut reader, &mut done) {
                self.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(done)
    }

    fn read(&self, batch: &Batch, reader: &mut FileReader<'_>, done: &mut Vec<Fresh>) -> Result<(), ReadError> {
        let folder = self.listing.folder(&batch.folder)?;
        for (name, shown) in &batch.files {
            let content = reader.read(&folder, name)?;
            done.push(Fresh::of(Arc::clone(shown), content, self.known));
        }
        Ok(())
    }
}

fn hash_of(content: &FileContent<'_>) -> Hash {
    let mut hasher = Sha256::new();
    match content {
        FileContent::Text(text) => hasher.update(text.as_bytes()),
        FileContent::Unusable(rule, message) => {
            // No UTF-8 text begins so: an unusable file never looks like a usable one.
            hasher.update([0xFF]);
            hasher.update(rule.as_bytes());
            hasher.update(message.as_bytes());
        }
    }
    hasher.finalize().into()
}

/// Adds a file to the content of all, or takes it out again.
fn join(content: &mut Hash, name: &str, hash: &Hash) {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([0]);
    hasher.update(hash);
    let part: Hash = hasher.finalize().into();
    content.iter_mut().zip(part).for_each(|(byte, other)| *byte ^= other);
}
