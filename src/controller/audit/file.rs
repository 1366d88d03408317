//! The file of the audit log.
//!
//! Invariants: 0600, one process at a time, whole lines only. It is rotated before it would outgrow
//! [`FILE_SIZE_MAX`] by more than one batch, and what is rotated is durable first.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The size in bytes from which a file is put aside.
const FILE_SIZE_MAX: u64 = 64 * 1024 * 1024;
/// Files put aside that are kept: `audit.log.1` is the youngest.
const FILES_KEPT: usize = 8;
/// Only the owner reads what was written to twins.
const MODE: u32 = 0o600;

/// The file being written, locked against other processes.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
}

impl AuditFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, size) = open_locked(path)?;
        Ok(Self { path: path.to_owned(), file, size, size_max: FILE_SIZE_MAX })
    }

    /// Writes some of `bytes` and answers how many.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.size += written as u64;
        Ok(written)
    }

    /// Puts the file aside when it is large, and begins a new one. What failed half way goes on with the next call.
    pub(super) fn rotate_if_due(&mut self) -> io::Result<()> {
        if self.size < self.size_max {
            return Ok(());
        }
        self.file.sync_all()?;
        // After a rotation that failed half way there is nothing left to put aside.
        if self.path.exists() {
            for number in (1..FILES_KEPT).rev() {
                rename_if_there(&self.aside(number), &self.aside(number + 1))?;
            }
            fs::rename(&self.path, self.aside(1))?;
        }
        (self.file, self.size) = open_locked(&self.path)?;
        sync_folder(&self.path)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn open_locked(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes to it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if metadata.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    let mut size = metadata.len();
    if size > 0 && !ends_a_line(&file, size)? {
        // A process that was killed, or a full disk, left half a line.
        file.write_all(b"\n")?;
        size += 1;
    }
    Ok((file, size))
}

fn ends_a_line(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AuditFile {
        /// A file on a disk that is full.
        pub(in crate::controller::audit) fn full() -> Self {
            let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
            Self { path: PathBuf::from("/dev/full"), file, size: 0, size_max: u64::MAX }
        }
    }

    #[test]
    fn a_file_is_put_aside_when_it_is_large_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "half a line").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(AuditFile::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a line\n");
        let mut file = AuditFile { size_max: 8, ..AuditFile::open(&path).unwrap() };
        for number in 0..20 {
            file.rotate_if_due().unwrap();
            file.write(format!("line {number}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<String> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let kept = (1..=FILES_KEPT).map(|number| format!("audit.log.{number}"));
        assert_eq!(names, std::iter::once("audit.log".to_owned()).chain(kept).collect::<Vec<_>>());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("audit.log"), read("audit.log.1")), ("line 19\n".to_owned(), "line 18\n".to_owned()));
        for name in &names {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }

    #[test]
    fn a_file_that_somebody_else_writes_to_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let held = AuditFile::open(&path).unwrap();
        let error = AuditFile::open(&path).unwrap_err().to_string();
        assert_eq!(error, "another process writes to it");
        drop(held);
        assert!(AuditFile::open(&path).is_ok());
        assert!(AuditFile::open(folder.path()).is_err());
        assert_eq!(AuditFile::open(Path::new("/dev/null")).unwrap_err().to_string(), "it is no regular file");
    }
}
