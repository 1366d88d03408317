//! Where a source really lies: the symlinks on the way to it, resolved once.
//!
//! Invariant: what was resolved stays as it was; a link that flips afterwards changes nothing read through a
//! [`Layout`], and [`Layout::resolve`] anew tells that it flipped.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::beneath::FolderState;

/// Symlinks followed on the way to one place, as many as Linux follows.
const LINKS_MAX: usize = 40;
/// The link inside a `ConfigMap` mount that flips when its content changes.
const CONFIG_MAP_LINK: &str = "..data";

/// A symlink on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The link itself, in its folder's real path.
    pub(super) path: PathBuf,
    /// What it holds.
    pub(super) target: PathBuf,
}

/// A source's root, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The root's real path, without any link.
    pub(super) root: PathBuf,
    /// Device and inode of the root: another folder under the same path is another layout.
    identity: (u64, u64),
    /// Every link on the way to the root, in order, and last `..data` inside it, if there is one.
    pub(super) links: Vec<Link>,
    /// `..data` and where it leads.
    config_map: Option<(Link, PathBuf)>,
}

impl Layout {
    /// Resolves every link on the way to `root`, and `..data` inside it.
    ///
    /// # Errors
    /// What the file system said; [`io::ErrorKind::NotADirectory`] when the root is something else.
    pub(super) fn resolve(root: &Path) -> io::Result<Self> {
        let mut links = Vec::new();
        let root = follow(&std::path::absolute(root)?, None, &mut links)?;
        let metadata = fs::metadata(&root)?;
        if !metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder"));
        }
        let identity = (metadata.dev(), metadata.ino());
        let mut config_map = None;
        if let Ok(target) = fs::read_link(root.join(CONFIG_MAP_LINK)) {
            let link = Link { path: root.join(CONFIG_MAP_LINK), target };
            let real = follow(&link.path, None, &mut Vec::new())?;
            links.push(link.clone());
            config_map = Some((link, real));
        }
        Ok(Self { root, identity, links, config_map })
    }

    /// The real path of an entry of the tree; `..data` leads where it led when this layout was resolved.
    pub(super) fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        follow(
            path,
            self.config_map.as_ref().map(|(link, real)| (link.path.as_path(), real.as_path())),
            &mut Vec::new(),
        )
    }

    /// Whether the folder that is like this (device, inode, times of its entries) is the root.
    pub(super) fn is_root(&self, (device, inode, _, _): FolderState) -> bool {
        self.identity == (device, inode)
    }

    /// The name of the revision, when a link names it: the base name of the last link's target.
    pub(super) fn link_revision(&self) -> Option<String> {
        let target = &self.links.last()?.target;
        target.file_name().map(|name| name.to_string_lossy().into_owned())
    }
}

/// The real path of `path`, an absolute one. Links met are added to `links`. A `pinned` link leads where it says.
fn follow(path: &Path, pinned: Option<(&Path, &Path)>, links: &mut Vec<Link>) -> io::Result<PathBuf> {
    let mut rest: VecDeque<OsString> = VecDeque::new();
    prepend(&mut rest, path);
    let mut real = PathBuf::from("/");
    let mut followed = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&name);
        if let Some((_, target)) = pinned.filter(|(link, _)| *link == next) {
            real = target.to_path_buf();
            continue;
        }
        if !fs::symlink_metadata(&next)?.is_symlink() {
            real = next;
            continue;
        }
        followed += 1;
        if followed > LINKS_MAX {
            return Err(io::Error::other(format!("more than {LINKS_MAX} symlinks on the way")));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        prepend(&mut rest, &target);
        links.push(Link { path: next, target });
    }
    Ok(real)
}

/// Puts the components of `path` before `rest`; the root directory and `.` are no step.
fn prepend(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_seen_and_the_last_one_names_the_revision() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("worktrees/abc123/fleet")).unwrap();
        symlink("worktrees/../worktrees/abc123", base.join("current")).unwrap();
        symlink(base.join("current"), base.join("outer")).unwrap();
        let layout = Layout::resolve(&base.join("outer/fleet/.")).unwrap();
        assert_eq!(layout.root, base.join("worktrees/abc123/fleet"));
        let links: Vec<_> = layout.links.iter().map(|link| link.path.clone()).collect();
        assert_eq!(links, [base.join("outer"), base.join("current")]);
        assert_eq!(layout.link_revision().as_deref(), Some("abc123"));
        assert_eq!(Layout::resolve(&base.join("current/fleet")).unwrap().root, layout.root);
    }

    #[test]
    fn a_config_map_is_pinned_to_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for revision in ["..1", "..2"] {
            fs::create_dir(base.join(revision)).unwrap();
            fs::write(base.join(revision).join("a.yaml"), revision).unwrap();
        }
        symlink("..1", base.join("..data")).unwrap();
        symlink("..data/a.yaml", base.join("a.yaml")).unwrap();
        let layout = Layout::resolve(&base).unwrap();
        fs::remove_file(base.join("..data")).unwrap();
        symlink("..2", base.join("..data")).unwrap();
        assert_eq!(layout.real_path(&base.join("a.yaml")).unwrap(), base.join("..1/a.yaml"));
        assert_eq!(layout.link_revision().as_deref(), Some("..1"));
        let flipped = Layout::resolve(&base).unwrap();
        assert_ne!(flipped, layout);
        assert_eq!(flipped.real_path(&base.join("a.yaml")).unwrap(), base.join("..2/a.yaml"));
    }

    #[test]
    fn a_loop_of_links_and_a_missing_or_wrong_root_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(Layout::resolve(&folder.path().join("loop")).unwrap_err().to_string().contains("symlinks"));
        let kind = |name: &str| Layout::resolve(&folder.path().join(name)).unwrap_err().kind();
        assert_eq!(kind("missing"), io::ErrorKind::NotFound);
        assert_eq!(kind("file"), io::ErrorKind::NotADirectory);
    }
}
