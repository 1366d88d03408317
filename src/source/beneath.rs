//! Opening what lies beneath one folder, and nothing else.
//!
//! Invariant: every step is one name in a folder that is open already, and no step follows a link; so nothing that is
//! swapped in meanwhile leads out of the folder, and opening never waits for anybody, a FIFO's writer included.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

/// What an entry is, itself and not what it links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    Link,
    /// A FIFO, a socket, a device.
    Other,
}

/// Device, inode, and when the folder's entries last changed, in seconds and nanoseconds.
pub(super) type FolderState = (u64, u64, i64, i64);

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(File);

impl Folder {
    /// Opens the folder at `path`; its last component may not be a link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        open_at(CWD, path.as_os_str(), OFlags::DIRECTORY).map(Self)
    }

    /// Opens the folder at `relative`, a path of plain names; empty is this folder anew.
    pub(super) fn folder(&self, relative: &Path) -> io::Result<Self> {
        let mut folder = Self(open_at(&self.0, OsStr::new("."), OFlags::DIRECTORY)?);
        for component in relative.components() {
            let Component::Normal(name) = component else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path of plain names"));
            };
            folder = Self(open_at(&folder.0, name, OFlags::DIRECTORY)?);
        }
        Ok(folder)
    }

    /// Opens the entry `name` for reading, whatever it is unless it is a link.
    pub(super) fn file(&self, name: &OsStr) -> io::Result<File> {
        open_at(&self.0, name, OFlags::empty())
    }

    /// Every entry, in order of names.
    pub(super) fn entries(&self) -> io::Result<Vec<(OsString, EntryKind)>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            // Some file systems do not say it in the list.
            let is_told = entry.file_type() != FileType::Unknown;
            let kind = if is_told { kind(entry.file_type()) } else { self.kind_of(name)? };
            entries.push((name.to_owned(), kind));
        }
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> io::Result<usize> {
        let mut count = 0;
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            count += usize::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
        }
        Ok(count)
    }

    /// What the entry `name` is.
    pub(super) fn kind_of(&self, name: &OsStr) -> io::Result<EntryKind> {
        let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(kind(FileType::from_raw_mode(stat.st_mode)))
    }

    /// How the folder is now; entries that come or go change it.
    pub(super) fn state(&self) -> io::Result<FolderState> {
        let metadata = self.0.metadata()?;
        Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }
}

/// Whether the entry is no longer what it was a moment ago: gone, or a link or file in a folder's place.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::NOENT, Errno::LOOP, Errno::NOTDIR].iter().any(|gone| number == Some(gone.raw_os_error()))
}

/// A link fails with ELOOP, or ENOTDIR where a folder is asked for.
fn open_at(folder: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened: OwnedFd = openat(folder, name, flags, Mode::empty())?;
    Ok(File::from(opened))
}

fn kind(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => EntryKind::Link,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            EntryKind::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_never_followed_and_a_fifo_is_never_waited_for() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("root/a/b")).unwrap();
        fs::create_dir(base.path().join("outside")).unwrap();
        fs::write(base.path().join("outside/secret"), "x").unwrap();
        fs::write(base.path().join("root/a/b/file"), "x").unwrap();
        symlink("../outside", base.path().join("root/out")).unwrap();
        symlink("a", base.path().join("root/inner")).unwrap();
        symlink("b/file", base.path().join("root/a/link")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(base.path().join("root/pipe")).status().unwrap();
        assert!(made.success());
        let root = Folder::open(&base.path().join("root")).unwrap();
        assert!(root.folder(Path::new("a/b")).unwrap().file(OsStr::new("file")).unwrap().metadata().unwrap().is_file());
        for folder in ["out", "inner", "inner/b", "missing"] {
            assert!(is_gone(&root.folder(Path::new(folder)).unwrap_err()), "{folder}");
        }
        for folder in ["..", "a/../..", "/etc"] {
            assert_eq!(root.folder(Path::new(folder)).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{folder}");
        }
        assert!(is_gone(&root.folder(Path::new("a")).unwrap().file(OsStr::new("link")).unwrap_err()));
        assert!(!root.file(OsStr::new("pipe")).unwrap().metadata().unwrap().is_file());
        let entries = root.entries().unwrap();
        let shown: Vec<_> = entries.iter().map(|(name, kind)| (name.to_str().unwrap(), *kind)).collect();
        let expected = [
            ("a", EntryKind::Folder),
            ("inner", EntryKind::Link),
            ("out", EntryKind::Link),
            ("pipe", EntryKind::Other),
        ];
        assert_eq!(shown, expected);
    }
}
