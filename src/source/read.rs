//! Reading every manifest beneath a resolved root.
//!
//! Invariant: only regular files whose real path lies beneath the root are opened, never more than the bounds allow,
//! and an entry that vanishes while it is read makes the reading unsteady, never a smaller fleet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::Layout;

/// Manifest files of one source.
const FILES_MAX: usize = 200_000;
/// Bytes of one file.
const FILE_SIZE_MAX: u64 = 1024 * 1024;
/// Bytes of all files together.
const TOTAL_SIZE_MAX: u64 = 1024 * 1024 * 1024;
/// Folders inside one another.
const DEPTH_MAX: usize = 32;

/// What lies beneath a root, by name relative to it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<Arc<str>, FileContent>,
    /// Entries that are read under another name already, by their own.
    pub(super) repeated: BTreeMap<String, String>,
}

/// One file of a [`Tree`].
#[derive(Debug)]
pub(super) enum FileContent {
    Text(String),
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

/// Reads every `*.yaml` and `*.yml` beneath the root of `layout`, hidden entries excepted.
pub(super) fn read_tree(layout: &Layout) -> Result<Tree, ReadError> {
    let mut reading = Reading { layout, tree: Tree::default(), seen: BTreeMap::new(), folders: Vec::new(), total: 0 };
    reading.read_folder(&layout.root, "", 0)?;
    reading.check_steady()?;
    Ok(reading.tree)
}

struct Reading<'l> {
    layout: &'l Layout,
    tree: Tree,
    /// Real paths already read, and under which name.
    seen: BTreeMap<PathBuf, String>,
    /// Each folder and how it was just before it was listed.
    folders: Vec<(PathBuf, FolderState)>,
    total: u64,
}

/// An error, unless it says that the entry is gone: then what is read is not one state.
fn unless_gone(error: io::Error, path: &Path) -> ReadError {
    if error.kind() == io::ErrorKind::NotFound {
        ReadError::Unsteady
    } else {
        ReadError::Folder(path.to_owned(), error)
    }
}

/// Device, inode, and when the folder's entries last changed, in seconds and nanoseconds.
type FolderState = (u64, u64, i64, i64);

fn folder_state(folder: &Path) -> Result<FolderState, ReadError> {
    let metadata = fs::metadata(folder).map_err(|error| unless_gone(error, folder))?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Reading<'_> {
    /// `folder` is a real path; `prefix` is its name relative to the root, with a `/` unless empty.
    fn read_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), ReadError> {
        if depth > DEPTH_MAX {
            return Err(ReadError::Bound(format!("folders nest deeper than {DEPTH_MAX} levels at {prefix}")));
        }
        self.seen.insert(folder.to_owned(), prefix.to_owned());
        self.folders.push((folder.to_owned(), folder_state(folder)?));
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| unless_gone(error, folder))? {
            let name = entry.map_err(|error| unless_gone(error, folder))?.file_name();
            if !name.as_encoded_bytes().starts_with(b".") {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let shown = format!("{prefix}{}", name.to_string_lossy());
            self.read_entry(&folder.join(&name), shown, name.to_str().is_some(), depth)?;
        }
        Ok(())
    }

    /// No folder gained or lost an entry since it was listed; else what was read may be half of something, such as a
    /// checkout or a removal under way.
    fn check_steady(&self) -> Result<(), ReadError> {
        for (folder, before) in &self.folders {
            if folder_state(folder)? != *before {
                return Err(ReadError::Unsteady);
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, path: &Path, shown: String, has_text_name: bool, depth: usize) -> Result<(), ReadError> {
        let is_manifest = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let own = fs::symlink_metadata(path).map_err(|error| unless_gone(error, path))?;
        if !own.is_symlink() && !own.is_dir() && !is_manifest {
            return Ok(());
        }
        // The folder's path is real, so an entry's is too unless it is a link.
        let real = match if own.is_symlink() { self.layout.real_path(path) } else { Ok(path.to_owned()) } {
            Ok(real) => real,
            Err(error) => return self.unresolved(path, shown, is_manifest, &error),
        };
        let metadata = fs::symlink_metadata(&real).map_err(|error| unless_gone(error, &real))?;
        if !metadata.is_dir() && !is_manifest {
            return Ok(());
        }
        if !real.starts_with(&self.layout.root) {
            self.unusable(
                shown,
                "outside-root",
                "a link that leads out of the folder is not followed; copy the file here",
            );
        } else if let Some(other) = self.seen.get(&real) {
            let other = if other.is_empty() { "the folder itself".to_owned() } else { other.clone() };
            self.tree.repeated.insert(shown, other);
        } else if metadata.is_dir() {
            self.read_folder(&real, &format!("{shown}/"), depth + 1)?;
        } else if !metadata.is_file() {
            self.unusable(shown, "not-a-file", "not a regular file; remove it");
        } else if !has_text_name {
            self.unusable(shown, "file-name", "the name is not UTF-8; rename the file");
        } else {
            let content = self.read_file(&real, &metadata)?;
            self.seen.insert(real, shown.clone());
            self.add(shown, content)?;
        }
        Ok(())
    }

    /// A link that leads nowhere makes its manifest unusable; an entry that is gone makes the reading unsteady.
    fn unresolved(
        &mut self,
        path: &Path,
        shown: String,
        is_manifest: bool,
        error: &io::Error,
    ) -> Result<(), ReadError> {
        if fs::symlink_metadata(path).is_err() {
            return Err(ReadError::Unsteady);
        }
        if is_manifest {
            self.unusable(shown, "unreadable", &format!("cannot be read: {error}"));
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path, expected: &fs::Metadata) -> Result<FileContent, ReadError> {
        let unreadable = |error: io::Error| FileContent::Unusable("unreadable", format!("cannot be read: {error}"));
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Unsteady),
            Err(error) => return Ok(unreadable(error)),
        };
        let opened = match file.metadata() {
            Ok(opened) => opened,
            Err(error) => return Ok(unreadable(error)),
        };
        if (opened.dev(), opened.ino()) != (expected.dev(), expected.ino()) {
            return Err(ReadError::Unsteady);
        }
        let mut bytes = Vec::new();
        if let Err(error) = file.by_ref().take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes) {
            return Ok(unreadable(error));
        }
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > FILE_SIZE_MAX {
            let message = format!("larger than {FILE_SIZE_MAX} bytes; split it over several files");
            return Ok(FileContent::Unusable("file-size", message));
        }
        // Somebody writes it right now: half of it may be valid, and say less.
        let now = file.metadata();
        if size != opened.len() || now.is_ok_and(|now| (now.len(), now.mtime_nsec()) != (size, opened.mtime_nsec())) {
            return Err(ReadError::Unsteady);
        }
        self.total = self.total.saturating_add(size);
        if self.total > TOTAL_SIZE_MAX {
            return Err(ReadError::Bound(format!("the manifests have more than {TOTAL_SIZE_MAX} bytes together")));
        }
        Ok(String::from_utf8(bytes).map_or_else(|error| not_utf8(&error), FileContent::Text))
    }

    fn unusable(&mut self, shown: String, rule: &'static str, message: &str) {
        self.tree.files.insert(shown.into(), FileContent::Unusable(rule, message.to_owned()));
    }

    fn add(&mut self, shown: String, content: FileContent) -> Result<(), ReadError> {
        self.tree.files.insert(shown.into(), content);
        if self.tree.files.len() > FILES_MAX {
            return Err(ReadError::Bound(format!("more than {FILES_MAX} manifest files")));
        }
        Ok(())
    }
}

fn not_utf8(error: &std::string::FromUtf8Error) -> FileContent {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
    FileContent::Unusable("not-utf8", format!("not UTF-8 on line {line}; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_gains_or_loses_an_entry_meanwhile_is_unsteady() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("m/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("a.yaml"), "").unwrap();
        // Folder times are as coarse as the kernel's tick; an old one tells for sure.
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::open(&inner).unwrap().set_modified(old).unwrap();
        let layout = Layout::resolve(&folder.path().join("m")).unwrap();
        let mut reading =
            Reading { layout: &layout, tree: Tree::default(), seen: BTreeMap::new(), folders: Vec::new(), total: 0 };
        reading.read_folder(&layout.root, "", 0).unwrap();
        assert!(reading.check_steady().is_ok());
        fs::remove_file(inner.join("a.yaml")).unwrap();
        assert!(matches!(reading.check_steady(), Err(ReadError::Unsteady)));
        fs::remove_dir(&inner).unwrap();
        assert!(matches!(reading.check_steady(), Err(ReadError::Unsteady)));
    }
}
