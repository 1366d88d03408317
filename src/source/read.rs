//! Finding and reading every manifest beneath a resolved root.
//!
//! Invariant: only regular files whose real path lies beneath the root are read, never more than the bounds allow, and
//! an entry that vanishes while it is read makes the reading unsteady, never a smaller fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::beneath::{EntryKind, Folder, FolderState, is_gone};
use super::layout::Layout;

/// Files of one folder read in one go: small enough to share the work out evenly, large enough to be worth it.
const BATCH_FILES_MAX: usize = 128;

/// What one source may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Manifest files.
    pub(super) files: usize,
    /// Bytes of one file.
    pub(super) file_size: u64,
    /// Bytes of all files together.
    pub(super) total_size: u64,
    /// Folders inside one another.
    pub(super) depth: usize,
}

impl Bounds {
    pub(super) const DEFAULT: Self =
        Self { files: 200_000, file_size: 1024 * 1024, total_size: 1024 * 1024 * 1024, depth: 32 };
}

/// What lies beneath a root, not read yet.
#[derive(Debug)]
pub(super) struct Listing {
    root: Folder,
    /// Every regular manifest file.
    pub(super) batches: Vec<Batch>,
    /// Manifests that cannot be used, by their name relative to the root: a stable rule word and why.
    pub(super) unusable: BTreeMap<Arc<str>, (&'static str, String)>,
    /// Entries that are read under another name already, by their own.
    pub(super) repeated: BTreeMap<String, String>,
    /// Whether any entry is a link.
    pub(super) has_links: bool,
    /// Each folder's real path relative to the root, how it was just before it was listed, and how many entries it
    /// had: its times are as coarse as the kernel's tick, so they alone can miss an entry that goes.
    folders: BTreeMap<PathBuf, (FolderState, usize)>,
}

/// Some files of one folder.
#[derive(Debug)]
pub(super) struct Batch {
    /// The folder's real path relative to the root.
    pub(super) folder: PathBuf,
    /// Each file's name in the folder, and the name it goes by: its path relative to the root.
    pub(super) files: Vec<(OsString, Arc<str>)>,
}

/// One file as read.
#[derive(Debug)]
pub(super) enum FileContent<'b> {
    Text(&'b str),
    /// It cannot be used; a stable rule word and why.
    Unusable(&'static str, String),
}

/// Why a tree could not be read whole.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Something vanished meanwhile: read again.
    Unsteady,
    /// A folder could not be read.
    Folder(PathBuf, io::Error),
    /// A bound is exceeded; says which.
    Bound(String),
}

/// Lists every `*.yaml` and `*.yml` beneath the root of `layout`, hidden entries excepted. What stands there itself
/// is listed before what is linked to, so that a link is what is found to repeat a file.
pub(super) fn list(layout: &Layout, bounds: Bounds) -> Result<Listing, ReadError> {
    let root = Folder::open(&layout.root).map_err(|error| unless_gone(error, &layout.root))?;
    if !layout.is_root(root.state().map_err(|error| unless_gone(error, &layout.root))?) {
        return Err(ReadError::Unsteady);
    }
    let listed_root = open_folder(&root, Path::new(""))?;
    let listing = Listing {
        root,
        batches: Vec::new(),
        unusable: BTreeMap::new(),
        repeated: BTreeMap::new(),
        has_links: false,
        folders: BTreeMap::new(),
    };
    let mut lister = Lister {
        layout,
        bounds,
        listing,
        links: BTreeMap::new(),
        names: BTreeMap::new(),
        file_names: BTreeMap::new(),
        named_batches: 0,
        files: 0,
    };
    lister.folder(&listed_root, Path::new(""), "", 0)?;
    while let Some((shown, link)) = lister.links.pop_first() {
        lister.link(shown, &link)?;
    }
    Ok(lister.listing)
}

impl Listing {
    /// No folder gained or lost an entry since it was listed; else what was read may be half of something, such as a
    /// checkout or a removal under way.
    pub(super) fn check_steady(&self) -> Result<(), ReadError> {
        for (path, before) in &self.folders {
            let folder = open_folder(&self.root, path)?;
            let now = folder.state().and_then(|state| Ok((state, folder.count()?)));
            if now.map_err(|error| unless_gone(error, path))? != *before {
                return Err(ReadError::Unsteady);
            }
        }
        Ok(())
    }

    /// Opens a folder by its real path relative to the root.
    pub(super) fn folder(&self, relative: &Path) -> Result<Folder, ReadError> {
        open_folder(&self.root, relative)
    }

    /// Every folder, by its real path relative to the root.
    pub(super) fn into_folders(self) -> BTreeSet<PathBuf> {
        self.folders.into_keys().collect()
    }
}

/// Reads one file after another into one buffer.
#[derive(Debug)]
pub(super) struct FileReader<'t> {
    bounds: Bounds,
    /// Bytes of all files read for this load, by all readers.
    total: &'t AtomicU64,
    bytes: Vec<u8>,
}

impl<'t> FileReader<'t> {
    pub(super) fn new(bounds: Bounds, total: &'t AtomicU64) -> Self {
        Self { bounds, total, bytes: Vec::new() }
    }

    /// The content of the regular file `name` in `folder`.
    pub(super) fn read(&mut self, folder: &Folder, name: &OsStr) -> Result<FileContent<'_>, ReadError> {
        let file = match folder.file(name) {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Err(ReadError::Unsteady),
            Err(error) => return Ok(unreadable(&error)),
        };
        self.bytes.clear();
        match self.fill(file) {
            Ok(true) => {}
            Ok(false) => return Err(ReadError::Unsteady),
            Err(error) => return Ok(unreadable(&error)),
        }
        let size = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        if size > self.bounds.file_size {
            let message = format!("larger than {} bytes; split it over several files", self.bounds.file_size);
            return Ok(FileContent::Unusable("file-size", message));
        }
        if self.total.fetch_add(size, Ordering::Relaxed).saturating_add(size) > self.bounds.total_size {
            let message = format!("the manifests have more than {} bytes together", self.bounds.total_size);
            return Err(ReadError::Bound(message));
        }
        Ok(std::str::from_utf8(&self.bytes).map_or_else(|error| not_utf8(&self.bytes, error), FileContent::Text))
    }

    /// Reads at most one byte over the bound; answers whether it was one regular file that nobody wrote meanwhile:
    /// half of what somebody writes may be valid, and say less.
    fn fill(&mut self, mut file: File) -> io::Result<bool> {
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Ok(false);
        }
        self.bytes.reserve(usize::try_from(opened.len().min(self.bounds.file_size)).unwrap_or(0) + 1);
        file.by_ref().take(self.bounds.file_size + 1).read_to_end(&mut self.bytes)?;
        let size = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        let now = file.metadata()?;
        let is_too_large = size > self.bounds.file_size;
        Ok(is_too_large || (size == opened.len() && (now.len(), written(&now)) == (size, written(&opened))))
    }
}

fn written(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

fn unreadable<'b>(error: &io::Error) -> FileContent<'b> {
    FileContent::Unusable("unreadable", format!("cannot be read: {error}"))
}

/// Why a link leads to no file, and what to do.
fn unfollowed(error: &io::Error, link: &Path) -> String {
    match fs::read_link(link) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            format!("links to {}, which is not there; mend or remove the link", target.display())
        }
        Ok(_) | Err(_) => format!("cannot be read: {error}; mend or remove the link"),
    }
}

fn not_utf8<'b>(bytes: &[u8], error: std::str::Utf8Error) -> FileContent<'b> {
    let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
    FileContent::Unusable("not-utf8", format!("not UTF-8 on line {line}; save the file as UTF-8"))
}

/// Whether an entry of this name is a manifest, if it is a file.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Whether an entry of this name is skipped.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// An error, unless it says that the entry is gone: then what is read is not one state.
fn unless_gone(error: io::Error, path: &Path) -> ReadError {
    if is_gone(&error) { ReadError::Unsteady } else { ReadError::Folder(path.to_owned(), error) }
}

fn open_folder(root: &Folder, relative: &Path) -> Result<Folder, ReadError> {
    root.folder(relative).map_err(|error| unless_gone(error, relative))
}

struct Lister<'l> {
    layout: &'l Layout,
    bounds: Bounds,
    listing: Listing,
    /// Links met and not followed yet, by the name they go by.
    links: BTreeMap<String, Link>,
    /// The name each folder goes by, by its real path relative to the root.
    names: BTreeMap<PathBuf, String>,
    /// The same of the files in the first `named_batches` batches; only links ask for it.
    file_names: BTreeMap<PathBuf, String>,
    named_batches: usize,
    files: usize,
}

/// A link inside the tree.
struct Link {
    path: PathBuf,
    is_manifest: bool,
    has_text_name: bool,
    depth: usize,
}

impl Lister<'_> {
    /// `relative` is the folder's real path, `prefix` the name it goes by, with a `/` unless empty.
    fn folder(&mut self, folder: &Folder, relative: &Path, prefix: &str, depth: usize) -> Result<(), ReadError> {
        if depth > self.bounds.depth {
            let message = format!("folders nest deeper than {} levels at {prefix}", self.bounds.depth);
            return Err(ReadError::Bound(message));
        }
        let state = folder.state().map_err(|error| unless_gone(error, relative))?;
        let path = || self.layout.root.join(relative);
        let entries = folder.entries().map_err(|error| unless_gone(error, &path()))?;
        self.listing.folders.insert(relative.to_owned(), (state, entries.len()));
        self.names.insert(relative.to_owned(), prefix.trim_end_matches('/').to_owned());
        let mut files = Vec::new();
        for (name, kind) in entries {
            if is_hidden(&name) {
                continue;
            }
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let (is_manifest, has_text_name) = (is_manifest(&name), name.to_str().is_some());
            match kind {
                EntryKind::Link => {
                    let path = self.layout.root.join(relative).join(&name);
                    self.listing.has_links = true;
                    self.links.insert(shown, Link { path, is_manifest, has_text_name, depth });
                }
                EntryKind::Folder => self.inner_folder(folder, &relative.join(&name), &name, &shown, depth)?,
                EntryKind::File | EntryKind::Other if !is_manifest => {}
                EntryKind::Other => self.unusable(shown, "not-a-file", "not a regular file; remove it")?,
                EntryKind::File if !has_text_name => self.unnameable(shown)?,
                EntryKind::File => {
                    self.count()?;
                    files.push((name, Arc::from(shown)));
                }
            }
        }
        while !files.is_empty() {
            let rest = files.split_off(files.len().min(BATCH_FILES_MAX));
            self.listing
                .batches
                .push(Batch { folder: relative.to_owned(), files: std::mem::replace(&mut files, rest) });
        }
        Ok(())
    }

    fn inner_folder(
        &mut self,
        above: &Folder,
        relative: &Path,
        name: &OsStr,
        shown: &str,
        depth: usize,
    ) -> Result<(), ReadError> {
        if let Some(other) = self.names.get(relative) {
            let other = other.clone();
            self.repeated(shown.to_owned(), &other);
            return Ok(());
        }
        let path = self.layout.root.join(relative);
        let folder = above.folder(Path::new(name)).map_err(|error| unless_gone(error, &path))?;
        self.folder(&folder, relative, &format!("{shown}/"), depth + 1)
    }

    /// Follows one link, as far as it stays beneath the root.
    fn link(&mut self, shown: String, link: &Link) -> Result<(), ReadError> {
        let real = match self.layout.real_path(&link.path) {
            Ok(real) => real,
            Err(_) if fs::symlink_metadata(&link.path).is_err() => return Err(ReadError::Unsteady),
            Err(error) if link.is_manifest => {
                return self.unusable(shown, "unreadable", &unfollowed(&error, &link.path));
            }
            Err(_) => return Ok(()),
        };
        let metadata = fs::symlink_metadata(&real).map_err(|error| unless_gone(error, &real))?;
        if !metadata.is_dir() && !link.is_manifest {
            return Ok(());
        }
        let Ok(relative) = real.strip_prefix(&self.layout.root).map(Path::to_path_buf) else {
            let message = "a link that leads out of the folder is not followed; copy the file here";
            return self.unusable(shown, "outside-root", message);
        };
        let folder_name = self.names.get(&relative).cloned();
        if let Some(other) = folder_name.or_else(|| self.file_names().get(&relative).cloned()) {
            self.repeated(shown, &other);
            return Ok(());
        }
        if metadata.is_dir() {
            let folder = open_folder(&self.listing.root, &relative)?;
            return self.folder(&folder, &relative, &format!("{shown}/"), link.depth + 1);
        }
        let place = relative.parent().zip(relative.file_name()).filter(|_| metadata.is_file());
        let Some((folder, name)) = place else {
            return self.unusable(shown, "not-a-file", "not a regular file; remove it");
        };
        if !link.has_text_name {
            return self.unnameable(shown);
        }
        self.count()?;
        let batch = Batch { folder: folder.to_owned(), files: vec![(name.to_owned(), Arc::from(shown.as_str()))] };
        self.listing.batches.push(batch);
        Ok(())
    }

    /// The name each file goes by, by its real path: of the batches there are by now.
    fn file_names(&mut self) -> &BTreeMap<PathBuf, String> {
        for batch in &self.listing.batches[self.named_batches..] {
            let names = batch.files.iter().map(|(name, shown)| (batch.folder.join(name), shown.to_string()));
            self.file_names.extend(names);
        }
        self.named_batches = self.listing.batches.len();
        &self.file_names
    }

    fn count(&mut self) -> Result<(), ReadError> {
        self.files += 1;
        if self.files > self.bounds.files {
            return Err(ReadError::Bound(format!("more than {} manifest files", self.bounds.files)));
        }
        Ok(())
    }

    fn repeated(&mut self, shown: String, other: &str) {
        let other = if other.is_empty() { "the folder itself" } else { other };
        self.listing.repeated.insert(shown, other.to_owned());
    }

    fn unnameable(&mut self, shown: String) -> Result<(), ReadError> {
        self.unusable(shown, "file-name", "the name is not UTF-8; rename the file")
    }

    fn unusable(&mut self, shown: String, rule: &'static str, message: &str) -> Result<(), ReadError> {
        self.count()?;
        self.listing.unusable.insert(shown.into(), (rule, message.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(root: &Path) -> Listing {
        list(&Layout::resolve(root).unwrap(), Bounds::DEFAULT).unwrap()
    }

    #[test]
    fn a_folder_that_gains_or_loses_an_entry_meanwhile_is_unsteady() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("m/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("a.yaml"), "").unwrap();
        let listing = listed(&folder.path().join("m"));
        assert!(listing.check_steady().is_ok());
        fs::write(inner.join("b.yaml"), "").unwrap();
        assert!(matches!(listing.check_steady(), Err(ReadError::Unsteady)));
        let listing = listed(&folder.path().join("m"));
        fs::remove_file(inner.join("a.yaml")).unwrap();
        assert!(matches!(listing.check_steady(), Err(ReadError::Unsteady)));
        fs::remove_file(inner.join("b.yaml")).unwrap();
        fs::remove_dir(&inner).unwrap();
        assert!(matches!(listing.check_steady(), Err(ReadError::Unsteady)));
    }

    #[test]
    fn what_took_a_file_s_place_after_it_was_listed_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("m");
        fs::create_dir_all(root.join("x")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        for path in ["m/x/a.yaml", "outside/a.yaml"] {
            fs::write(folder.path().join(path), "a: 1").unwrap();
        }
        let listing = listed(&root);
        let (file, total) = (root.join("x/a.yaml"), AtomicU64::new(0));
        let read = || -> Result<String, ReadError> {
            let batch = &listing.batches[0];
            let mut reader = FileReader::new(Bounds::DEFAULT, &total);
            Ok(format!("{:?}", reader.read(&listing.folder(&batch.folder)?, &batch.files[0].0)?))
        };
        assert_eq!(read().unwrap(), "Text(\"a: 1\")");
        fs::remove_file(&file).unwrap();
        assert!(matches!(read(), Err(ReadError::Unsteady)), "gone");
        std::os::unix::fs::symlink("../../outside/a.yaml", &file).unwrap();
        assert!(matches!(read(), Err(ReadError::Unsteady)), "a link");
        fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        assert!(matches!(read(), Err(ReadError::Unsteady)), "a FIFO");
        fs::remove_file(&file).unwrap();
        fs::remove_dir(root.join("x")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("x")).unwrap();
        assert!(matches!(read(), Err(ReadError::Unsteady)), "a link in the folder's place");
    }
}
