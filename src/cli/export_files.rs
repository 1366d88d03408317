//! Files of manifests: names that every file system and the loader take for what they are.
//!
//! Invariant: no two devices share a name, not even where case does not count; no name is hidden, reserved, longer than
//! a file system takes, or a path.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The file of the profiles.
pub(super) const PROFILES: &str = "profiles.yaml";
/// The longest name without its ending and a number, in bytes; file systems take 255.
const STEM_MAX: usize = 200;
/// Names that Windows gives to devices of its own.
const RESERVED: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "COM", "LPT"];

/// A folder that manifests are written into.
#[derive(Debug)]
pub(super) struct ManifestFolder {
    path: PathBuf,
    taken: BTreeSet<String>,
    files: usize,
}

impl ManifestFolder {
    /// Makes the folder, or takes an empty one; a folder that is not empty only with `force`.
    pub(super) fn open(path: &Path, force: bool) -> anyhow::Result<Self> {
        let name = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {name}"))?;
        let mut entries = fs::read_dir(path).with_context(|| format!("cannot read the folder {name}"))?;
        if !force && entries.next().is_some() {
            bail!("the folder {name} is not empty; choose another one, or write over its files with --force");
        }
        Ok(Self { path: path.to_owned(), taken: BTreeSet::from([PROFILES.to_owned()]), files: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn files(&self) -> usize {
        self.files
    }

    /// Writes the manifests of one device.
    pub(super) fn write_device(&mut self, device: &str, text: &str) -> anyhow::Result<()> {
        let name = file_name(device, &mut self.taken);
        self.write(&name, text)
    }

    /// Replaces a file at once, so that nobody loads half of it.
    pub(super) fn write(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, fresh) = (self.path.join(name), self.path.join(".geminid-export"));
        let context = || format!("cannot write {}", path.display());
        fs::write(&fresh, text).with_context(context)?;
        fs::rename(&fresh, &path).with_context(context)?;
        self.files += 1;
        Ok(())
    }
}

/// The name of a device's file: its id, percent-encoded where it would be skipped or confused.
pub(super) fn file_name(device: &str, taken: &mut BTreeSet<String>) -> String {
    let stem = encoded(device, false);
    let free = |name: &String| !taken.contains(&name.to_ascii_lowercase());
    let plain = [stem.clone(), encoded(device, true)];
    let numbered = (2_u32..).map(|number| format!("{stem}-{number}"));
    let mut names = plain.into_iter().chain(numbered).map(|stem| format!("{stem}.yaml"));
    let name = names.find(free).unwrap_or_default();
    taken.insert(name.to_ascii_lowercase());
    name
}

fn encoded(device: &str, capitals: bool) -> String {
    let base = device.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let is_reserved = RESERVED.iter().any(|word| {
        base.strip_prefix(word).is_some_and(|rest| {
            rest.is_empty()
                || (matches!(*word, "COM" | "LPT") && rest.len() == 1 && rest.chars().all(|c| c.is_ascii_digit()))
        })
    });
    let last = device.len().saturating_sub(1);
    let mut stem = String::new();
    for (index, byte) in device.bytes().enumerate() {
        let edge = byte == b'.' && (index == 0 || index == last);
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let confusing = edge || (is_reserved && index == 0) || (capitals && byte.is_ascii_uppercase());
        if stem.len() + 3 > STEM_MAX {
            break;
        }
        if plain && !confusing {
            stem.push(char::from(byte));
        } else {
            let _ = write!(stem, "%{byte:02X}");
        }
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_seen_by_the_loader_and_never_taken_for_another() {
        let mut taken = BTreeSet::from([PROFILES.to_owned()]);
        for (device, name) in [
            ("pump-01", "pump-01.yaml"),
            (".hidden", "%2Ehidden.yaml"),
            ("..", "%2E%2E.yaml"),
            ("a:b*c", "a%3Ab%2Ac.yaml"),
            ("a%3Ab", "a%253Ab.yaml"),
            ("Pump-01", "%50ump-01.yaml"),
            ("con", "%63on.yaml"),
            ("COM1.x", "%43OM1.x.yaml"),
            ("community", "community.yaml"),
            ("profiles", "profiles-2.yaml"),
            ("dot.", "dot%2E.yaml"),
        ] {
            assert_eq!(file_name(device, &mut taken), name);
        }
        let long = ["*", "?"].map(|end| file_name(&("*".repeat(127) + end), &mut taken));
        assert!(long[0] != long[1] && long.iter().all(|name| name.len() < 255), "{long:?}");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone_unless_asked() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/folder");
        let mut folder = ManifestFolder::open(&path, false).unwrap();
        folder.write_device("d1", "one\n").unwrap();
        let error = ManifestFolder::open(&path, false).unwrap_err().to_string();
        assert!(error.contains("is not empty") && error.contains("--force"), "{error}");
        ManifestFolder::open(&path, true).unwrap().write_device("d1", "two\n").unwrap();
        assert_eq!(fs::read_to_string(path.join("d1.yaml")).unwrap(), "two\n");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }
}
