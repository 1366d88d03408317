//! The hub's folder: private, locked, and left out of Git.
//!
//! Invariant: nothing is written through a symbolic link, nothing is readable by others, and a folder that holds
//! somebody else's files is not taken over.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK_FILE: &str = "hub.lock";
const IGNORE_FILE: &str = ".gitignore";
const IGNORE_ALL: &[u8] = b"*\n";
/// The largest small file read whole, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why the folder cannot be used. Each text names it.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// A path in it, or the folder itself, is a symbolic link.
    #[error("{0} is a symbolic link; the hub's state folder and its files must be real")]
    Symlink(PathBuf),
    /// Another hub runs on it.
    #[error("another hub is running on the state folder {0}; stop it, or choose another folder with --state-dir")]
    Locked(PathBuf),
    /// The path is no UTF-8 text, which `hub.json` could not hold.
    #[error("the path of the hub's state folder must be UTF-8 text; {0:?} is not")]
    NotText(PathBuf),
    /// The folder holds other files and no hub ever used it.
    #[error("{0} is not empty and no hub's state folder; choose another one with --state-dir")]
    Foreign(PathBuf),
    /// Anything else.
    #[error("cannot use {path} in the hub's state folder: {error}")]
    Io {
        /// The folder or the file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The folder, locked for this process until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder if need be, and locks it.
    ///
    /// # Errors
    /// [`StateDirError`], whose text is one sentence.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        refuse_symlink(path)?;
        let path = std::path::absolute(path).map_err(|error| io_error(path, error))?;
        if path.to_str().is_none() {
            return Err(StateDirError::NotText(path));
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path).map_err(|error| io_error(&path, error))?;
        let lock_path = path.join(LOCK_FILE);
        if !lock_path.exists() && fs::read_dir(&path).map_err(|error| io_error(&path, error))?.next().is_some() {
            return Err(StateDirError::Foreign(path));
        }
        let lock = open_private(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::Locked(path)),
            Err(TryLockError::Error(error)) => return Err(io_error(&lock_path, error)),
        }
        fs::set_permissions(&path, Permissions::from_mode(DIRECTORY_MODE)).map_err(|error| io_error(&path, error))?;
        let state = Self { path, _lock: lock };
        state.replace(IGNORE_FILE, IGNORE_ALL)?;
        Ok(state)
    }

    /// The path of a file in the folder; absolute.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file to read and write, made if need be.
    ///
    /// # Errors
    /// [`StateDirError::Symlink`] or [`StateDirError::Io`].
    pub fn open_file(&self, name: &str) -> Result<File, StateDirError> {
        open_private(&self.path(name))
    }

    /// The content of a small file; `None` when there is none.
    ///
    /// # Errors
    /// [`StateDirError::Symlink`], or [`StateDirError::Io`], also for more than 1 MiB.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.path(name);
        refuse_symlink(&path)?;
        let read = || -> io::Result<Vec<u8>> {
            let mut content = Vec::new();
            File::open(&path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
            Ok(content)
        };
        match read() {
            Ok(content) if content.len() as u64 > FILE_BYTES_MAX => {
                Err(io_error(&path, io::Error::other("the file is too large")))
            }
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, error)),
        }
    }

    /// Writes a file whole: a reader sees the old content or the new, a crash leaves one of them.
    ///
    /// # Errors
    /// [`StateDirError::Symlink`] or [`StateDirError::Io`].
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), StateDirError> {
        let (path, draft) = (self.path(name), self.path(&format!("{name}.new")));
        refuse_symlink(&path)?;
        let mut file = open_private(&draft)?;
        let mut write = || {
            file.set_len(0)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| io_error(&path, error))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), StateDirError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn open_private(path: &Path) -> Result<File, StateDirError> {
    refuse_symlink(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let open = || {
        let file = options.open(path)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    };
    open().map_err(|error| io_error(path, error))
}

/// The folder is 0700, so nobody else can put a link there between this look and the opening.
fn refuse_symlink(path: &Path) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() => Err(StateDirError::Symlink(path.to_owned())),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn io_error(path: &Path, error: io::Error) -> StateDirError {
    StateDirError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_and_its_files_are_private_and_left_out_of_git() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(&parent.path().join("a/b")).unwrap();
        state.replace("x.json", b"one").unwrap();
        state.replace("x.json", b"2").unwrap();
        assert_eq!(state.read("x.json").unwrap().as_deref(), Some(b"2".as_slice()));
        assert_eq!(state.read(".gitignore").unwrap().as_deref(), Some(b"*\n".as_slice()));
        assert_eq!(state.read("none").unwrap(), None);
        assert_eq!((mode(&parent.path().join("a/b")), mode(&state.path("x.json"))), (0o700, 0o600));
        let names: Vec<_> = fs::read_dir(parent.path().join("a/b")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "no draft stays: {names:?}");
        state.remove("x.json").unwrap();
        state.remove("x.json").unwrap();
        assert_eq!(state.read("x.json").unwrap(), None);
    }

    #[test]
    fn a_second_hub_on_the_folder_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateDirError::Locked(_))));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn links_and_other_people_s_folders_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (real, link) = (parent.path().join("real"), parent.path().join("link"));
        drop(StateDir::open(&real).unwrap());
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(StateDir::open(&link), Err(StateDirError::Symlink(path)) if path == link));
        let state = StateDir::open(&real).unwrap();
        std::os::unix::fs::symlink("/dev/null", state.path("hub.json")).unwrap();
        assert!(matches!(state.replace("hub.json", b"x"), Err(StateDirError::Symlink(_))));
        assert!(matches!(state.open_file("hub.json"), Err(StateDirError::Symlink(_))));
        assert!(matches!(state.read("hub.json"), Err(StateDirError::Symlink(_))));
        let project = parent.path().join("project");
        fs::create_dir(&project).unwrap();
        fs::write(project.join("main.rs"), "").unwrap();
        assert!(matches!(StateDir::open(&project), Err(StateDirError::Foreign(_))));
        assert_eq!(fs::read_dir(&project).unwrap().count(), 1, "nothing was put there");
    }
}
