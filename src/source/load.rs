//! One load of a source: a whole revision, parsed and lowered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::read::{FileContent, ReadError, Tree, read_tree};
use crate::manifest::{DeclaredQuery, Diagnostic, LastGood, ParsedFile, Severity, lower, parse_file};
use crate::plan::DeclaredState;

/// Readings of one load, when the folder changes meanwhile.
const ATTEMPTS_MAX: usize = 5;
/// Hex digits of a content hash used as a revision.
const REVISION_DIGITS: usize = 12;

/// One revision of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The base name of the last link's target; in a folder without links, or when the content behind a link changed
    /// in place, 12 hex digits of a content hash (appended to the name after a `+`).
    pub revision: String,
    /// Every twin declared, and what is frozen; carries the same revision.
    pub state: Arc<DeclaredState>,
    /// Every query declared, by name.
    pub queries: Arc<Vec<DeclaredQuery>>,
    /// Every problem, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Manifest files read.
    pub files: usize,
}

/// Why a source could not be loaded; the last good state stays. The text reads after "failed to load manifests".
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The root, or a folder beneath it, cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        error: std::io::Error,
    },
    /// The folder changed under each of several readings.
    #[error("{} kept changing while it was read", .0.display())]
    Unsteady(PathBuf),
    /// No manifest file is left of those there were. An intended empty fleet keeps one file, if only with a comment.
    #[error("{} has no manifest files any more; leave one with a comment if that is meant", .0.display())]
    Empty(PathBuf),
    /// More files, bytes or levels than a source may have.
    #[error("{0}")]
    Bound(String),
}

impl LoadError {
    /// The kind of error, as label of metrics and field of logs.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Unsteady(_) => "unsteady",
            Self::Empty(_) => "empty",
            Self::Bound(_) => "bound",
        }
    }
}

/// Loads a source again and again; remembers what was good and what was parsed.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    /// Parsed files by name, with the hash of the text they were parsed from.
    parsed: Parsed,
    last_good: LastGood,
    /// Files of the last load that succeeded.
    files: usize,
    /// The last revision a link named, and the content it had first.
    link_content: Option<(String, Hash)>,
}

type Hash = [u8; 32];
type Parsed = BTreeMap<Arc<str>, (Hash, Arc<ParsedFile>)>;

impl Loader {
    /// A loader of the folder `root`. Nothing is read yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, parsed: BTreeMap::new(), last_good: LastGood::default(), files: 0, link_content: None }
    }

    /// Reads the whole source. Blocks; files whose content did not change are not parsed again. A file that cannot be
    /// read or parsed is a diagnostic, and freezes what it declared.
    ///
    /// # Errors
    /// [`LoadError`] when the source as a whole cannot be read, or is suddenly empty. Then nothing of what this loader
    /// remembers changes. A source that was empty from the start is an empty state, not an error.
    pub fn load(&mut self) -> Result<Snapshot, LoadError> {
        let (layout, tree) = self.read_steadily()?;
        if tree.files.is_empty() && self.files > 0 {
            return Err(LoadError::Empty(self.root.clone()));
        }
        let (parsed, content) = self.parse(&tree);
        let files = parsed.iter().map(|(name, (_, file))| (Arc::clone(name), Arc::clone(file))).collect();
        let lowered = lower(&files, &self.last_good);
        let revision = self.revision(&layout, content);
        let mut state = lowered.state;
        state.revision.clone_from(&revision);
        let mut diagnostics = lowered.diagnostics;
        diagnostics.extend(tree.repeated.iter().map(|(name, other)| repeated(name, other)));
        diagnostics.sort();
        self.parsed = parsed;
        self.last_good = lowered.last_good;
        self.files = files.len();
        Ok(Snapshot {
            revision,
            state: Arc::new(state),
            queries: Arc::new(lowered.queries),
            diagnostics,
            files: files.len(),
        })
    }

    /// Reads until the links lead to the same place before and after.
    fn read_steadily(&self) -> Result<(Layout, Tree), LoadError> {
        for _ in 0..ATTEMPTS_MAX {
            let layout = resolve(&self.root)?;
            let tree = match read_tree(&layout) {
                Ok(tree) => tree,
                Err(ReadError::Unsteady) => continue,
                Err(error @ (ReadError::Folder(..) | ReadError::Bound(_))) => {
                    // A flip may have removed the old tree under the reading.
                    if resolve(&self.root)? != layout {
                        continue;
                    }
                    return Err(match error {
                        ReadError::Folder(path, error) => LoadError::Unreadable { path, error },
                        ReadError::Bound(message) => LoadError::Bound(message),
                        ReadError::Unsteady => LoadError::Unsteady(self.root.clone()),
                    });
                }
            };
            if resolve(&self.root)? == layout {
                return Ok((layout, tree));
            }
        }
        Err(LoadError::Unsteady(self.root.clone()))
    }

    /// Parses what changed, and hashes everything.
    fn parse(&self, tree: &Tree) -> (Parsed, Hash) {
        let mut parsed = BTreeMap::new();
        let mut whole = Sha256::new();
        for (name, content) in &tree.files {
            let emptied = self.emptied(name, content);
            let content = emptied.as_ref().unwrap_or(content);
            let hash = hash_of(content);
            whole.update(name.as_bytes());
            whole.update([0]);
            whole.update(hash);
            let same = self.parsed.get(name).filter(|(before, _)| *before == hash).map(|(_, file)| Arc::clone(file));
            let file = same.unwrap_or_else(|| {
                Arc::new(match content {
                    FileContent::Text(text) => parse_file(name, text),
                    FileContent::Unusable(rule, message) => ParsedFile::unreadable(name, rule, message.clone()),
                })
            });
            parsed.insert(Arc::clone(name), (hash, file));
        }
        (parsed, whole.finalize().into())
    }

    /// A file that lost all its bytes is being written, as far as can be told: it freezes what it declared.
    fn emptied(&self, name: &Arc<str>, content: &FileContent) -> Option<FileContent> {
        if !matches!(content, FileContent::Text(text) if text.is_empty()) {
            return None;
        }
        let had_content = self.parsed.get(name).is_some_and(|(before, _)| *before != hash_of(content));
        let message = "empty all at once; delete it, or leave a comment, if that is meant";
        had_content.then(|| FileContent::Unusable("emptied", message.to_owned()))
    }

    fn revision(&mut self, layout: &Layout, content: Hash) -> String {
        let hex: String = content.iter().map(|byte| format!("{byte:02x}")).take(REVISION_DIGITS / 2).collect();
        let Some(name) = layout.link_revision() else {
            self.link_content = None;
            return hex;
        };
        match &self.link_content {
            // The link did not flip and the content changed: the name alone would hide that.
            Some((last, first)) if *last == name && *first != content => format!("{name}+{hex}"),
            Some((last, _)) if *last == name => name,
            Some(_) | None => {
                self.link_content = Some((name.clone(), content));
                name
            }
        }
    }
}

fn resolve(root: &Path) -> Result<Layout, LoadError> {
    Layout::resolve(root).map_err(|error| LoadError::Unreadable { path: root.to_owned(), error })
}

fn hash_of(content: &FileContent) -> Hash {
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

fn repeated(name: &str, other: &str) -> Diagnostic {
    Diagnostic {
        file: name.into(),
        line: 0,
        column: 0,
        severity: Severity::Warning,
        path: String::new(),
        rule: "read-twice",
        message: format!("leads to what is read as {other} already and is skipped; remove the link"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn twin(name: &str, value: usize) -> String {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {name}}}\nspec: {{tags: {{v: {value}}}}}\n"
        )
    }

    struct Folder {
        folder: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }
        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }
        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }
        fn link(&self, target: &str, name: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            symlink(target, self.path(name)).unwrap();
        }
        /// Flips a link in one step, as git-sync and kubelet do.
        fn flip(&self, target: &str, name: &str) {
            self.link(target, &format!("{name}.tmp"));
            fs::rename(self.path(&format!("{name}.tmp")), self.path(name)).unwrap();
        }
        fn loader(&self, name: &str) -> Loader {
            Loader::new(self.path(name))
        }
    }

    fn twins(snapshot: &Snapshot) -> String {
        let show = |(twin, manifest): (&crate::twin::TwinRef, &Arc<crate::plan::TwinManifest>)| {
            format!("{twin}={} at {}", manifest.wanted.tags["v"], manifest.source.file)
        };
        snapshot.state.twins.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    fn lines(snapshot: &Snapshot) -> Vec<String> {
        snapshot.diagnostics.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_folder_is_read_at_any_nesting_and_hidden_entries_are_not() {
        let folder = Folder::new();
        folder.write("m/b.yml", &twin("b", 1));
        folder.write("m/x/y/a.yaml", &twin("a", 1));
        folder.write("m/.hidden.yaml", "{");
        folder.write("m/.git/config.yaml", "{");
        folder.write("m/README.md", "{");
        let snapshot = folder.loader("m").load().unwrap();
        assert_eq!(twins(&snapshot), "a=1 at x/y/a.yaml, b=1 at b.yml");
        assert_eq!(lines(&snapshot), Vec::<String>::new());
        assert_eq!(snapshot.files, 2);
        assert_eq!(snapshot.state.revision, snapshot.revision);
    }

    #[test]
    fn without_links_the_revision_is_the_content_s_hash() {
        let folder = Folder::new();
        folder.write("m/a.yaml", &twin("a", 1));
        let mut loader = folder.loader("m");
        let first = loader.load().unwrap().revision;
        assert!(first.len() == 12 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        folder.write("m/a.yaml", &twin("a", 2));
        assert_ne!(loader.load().unwrap().revision, first);
        folder.write("m/a.yaml", &twin("a", 1));
        assert_eq!(loader.load().unwrap().revision, first);
        fs::rename(folder.path("m/a.yaml"), folder.path("m/b.yaml")).unwrap();
        assert_ne!(loader.load().unwrap().revision, first);
    }

    #[test]
    fn a_flip_of_any_link_on_the_way_brings_the_next_revision() {
        let folder = Folder::new();
        folder.write("trees/one/fleet/a.yaml", &twin("a", 1));
        folder.write("trees/two/fleet/a.yaml", &twin("a", 2));
        for (link, root, below) in [("current", "current/fleet", ""), ("fleet", "fleet", "/fleet")] {
            folder.link(&format!("trees/one{below}"), link);
            let mut loader = folder.loader(root);
            assert_eq!(twins(&loader.load().unwrap()), "a=1 at a.yaml");
            folder.flip(&format!("trees/two{below}"), link);
            let second = loader.load().unwrap();
            assert_eq!(twins(&second), "a=2 at a.yaml");
            // A link whose targets have one base name tells nothing; then the content does.
            let expected = if below.is_empty() { "two" } else { "fleet+" };
            assert!(second.revision.starts_with(expected), "{}", second.revision);
        }
    }

    #[test]
    fn a_change_behind_a_link_that_did_not_flip_shows_in_the_revision() {
        let folder = Folder::new();
        folder.write("real/a.yaml", &twin("a", 1));
        folder.link("real", "m");
        let mut loader = folder.loader("m");
        assert_eq!(loader.load().unwrap().revision, "real");
        folder.write("real/a.yaml", &twin("a", 2));
        let changed = loader.load().unwrap().revision;
        assert!(changed.starts_with("real+") && changed.len() == 17, "{changed}");
        folder.write("real/a.yaml", &twin("a", 1));
        assert_eq!(loader.load().unwrap().revision, "real");
    }

    #[test]
    fn a_config_map_mount_is_read_through_its_links() {
        let folder = Folder::new();
        folder.write("m/..2026_1/a.yaml", &twin("a", 1));
        folder.write("m/..2026_1/sub/b.yaml", &twin("b", 1));
        folder.link("..2026_1", "m/..data");
        folder.link("..data/a.yaml", "m/a.yaml");
        folder.link("..data/sub", "m/sub");
        let mut loader = folder.loader("m");
        let first = loader.load().unwrap();
        assert_eq!(twins(&first), "a=1 at a.yaml, b=1 at sub/b.yaml");
        assert_eq!((first.revision.as_str(), lines(&first)), ("..2026_1", vec![]));
        folder.write("m/..2026_2/a.yaml", &twin("a", 2));
        folder.write("m/..2026_2/sub/b.yaml", &twin("b", 2));
        folder.flip("..2026_2", "m/..data");
        let second = loader.load().unwrap();
        assert_eq!(twins(&second), "a=2 at a.yaml, b=2 at sub/b.yaml");
        assert_eq!(second.revision, "..2026_2");
    }

    #[test]
    fn one_load_never_mixes_two_revisions_while_links_flip() {
        const FILES: usize = 20;
        for (link, prefix) in [("current", "trees"), ("m/..data", "m")] {
            let folder = Folder::new();
            for revision in 0..2 {
                for file in 0..FILES {
                    let name = format!("t{file}");
                    folder.write(&format!("{prefix}/..r{revision}/{file}.yaml"), &twin(&name, revision));
                    if link != "current" && revision == 0 {
                        folder.link(&format!("..data/{file}.yaml"), &format!("m/{file}.yaml"));
                    }
                }
            }
            let target = |revision: usize| {
                if link == "current" { format!("trees/..r{revision}") } else { format!("..r{revision}") }
            };
            folder.link(&target(0), link);
            let mut loader = folder.loader(if link == "current" { "current" } else { "m" });
            std::thread::scope(|scope| {
                let flips = scope.spawn(|| (1..=100).for_each(|flip| folder.flip(&target(flip % 2), link)));
                let mut loads = 0;
                while loads < 20 || !flips.is_finished() {
                    loads += 1;
                    let snapshot = match loader.load() {
                        Ok(snapshot) => snapshot,
                        Err(LoadError::Unsteady(_)) => continue,
                        Err(error) => panic!("{error}"),
                    };
                    let value = snapshot.revision.trim_start_matches("..r");
                    assert_eq!(snapshot.state.twins.len(), FILES);
                    for manifest in snapshot.state.twins.values() {
                        assert_eq!(manifest.wanted.tags["v"].to_string(), value);
                    }
                }
            });
        }
    }

    #[test]
    fn a_root_that_is_gone_or_suddenly_empty_is_an_error_and_then_recovers() {
        let folder = Folder::new();
        folder.write("m/a.yaml", &twin("a", 1));
        let mut loader = folder.loader("m");
        loader.load().unwrap();
        fs::rename(folder.path("m"), folder.path("away")).unwrap();
        assert_eq!(loader.load().unwrap_err().category(), "unreadable");
        fs::create_dir(folder.path("m")).unwrap();
        assert_eq!(loader.load().unwrap_err().category(), "empty");
        folder.write("m/a.yaml", "spec: [");
        let broken = loader.load().unwrap();
        assert_eq!((twins(&broken).as_str(), broken.state.frozen.kept.len()), ("a=1 at a.yaml", 1));
        folder.write("m/a.yaml", "# none\n");
        assert_eq!(twins(&loader.load().unwrap()), "");
    }

    #[test]
    fn a_folder_that_is_empty_from_the_start_is_an_empty_state() {
        let folder = Folder::new();
        fs::create_dir(folder.path("m")).unwrap();
        let snapshot = folder.loader("m").load().unwrap();
        assert!(snapshot.state.twins.is_empty() && !snapshot.state.frozen.blocks_removals());
        assert_eq!(folder.loader("missing").load().unwrap_err().category(), "unreadable");
        folder.write("file.yaml", "");
        assert_eq!(folder.loader("file.yaml").load().unwrap_err().category(), "unreadable");
    }

    #[test]
    fn what_is_no_file_of_the_folder_is_refused_and_the_rest_goes_on() {
        let folder = Folder::new();
        folder.write("outside/secret.yaml", &twin("secret", 1));
        folder.write("m/a.yaml", &twin("a", 1));
        folder.link("../outside/secret.yaml", "m/escape.yaml");
        folder.link("../outside", "m/folder");
        folder.link("/dev/zero", "m/device.yml");
        folder.link("nowhere", "m/nowhere.yaml");
        folder.link(".", "m/loop");
        folder.link("a.yaml", "m/again.yaml");
        folder.write("m/huge.yaml", &"x".repeat(1024 * 1024 + 1));
        fs::write(folder.path("m/latin.yaml"), b"a: 1\nb: \xE4\n").unwrap();
        let made = std::process::Command::new("mkfifo").arg(folder.path("m/pipe.yaml")).status().unwrap();
        assert!(made.success());
        let snapshot = folder.loader("m").load().unwrap();
        assert_eq!(twins(&snapshot), "a=1 at a.yaml");
        assert_eq!(
            lines(&snapshot),
            [
                "again.yaml: warning: leads to what is read as a.yaml already and is skipped; remove the link",
                "device.yml: error: a link that leads out of the folder is not followed; copy the file here",
                "escape.yaml: error: a link that leads out of the folder is not followed; copy the file here",
                "folder: error: a link that leads out of the folder is not followed; copy the file here",
                "huge.yaml: error: larger than 1048576 bytes; split it over several files",
                "latin.yaml: error: not UTF-8 on line 2; save the file as UTF-8",
                "loop: warning: leads to what is read as the folder itself already and is skipped; remove the link",
                "nowhere.yaml: error: cannot be read: No such file or directory (os error 2)",
                "pipe.yaml: error: not a regular file; remove it",
            ]
        );
        assert!(snapshot.state.frozen.blocks_removals());
    }

    #[test]
    fn only_files_that_changed_are_parsed_again() {
        let folder = Folder::new();
        folder.write("m/a.yaml", &twin("a", 1));
        folder.write("m/b.yaml", &twin("b", 1));
        let mut loader = folder.loader("m");
        let first = loader.load().unwrap();
        folder.write("m/b.yaml", &twin("b", 2));
        let second = loader.load().unwrap();
        let same = |name: &str| {
            let id = crate::twin::TwinRef::device(crate::twin::DeviceId::new(name).unwrap());
            Arc::ptr_eq(&first.state.twins[&id], &second.state.twins[&id])
        };
        assert!(same("a") && !same("b"));
        assert_eq!(loader.load().unwrap(), second);
    }

    #[test]
    fn a_file_that_lost_all_its_bytes_is_being_written_and_keeps_what_it_declared() {
        let folder = Folder::new();
        folder.write("m/a.yaml", &twin("a", 1));
        folder.write("m/empty.yaml", "");
        let mut loader = folder.loader("m");
        assert_eq!(lines(&loader.load().unwrap()), Vec::<String>::new());
        folder.write("m/a.yaml", "");
        for _ in 0..2 {
            let snapshot = loader.load().unwrap();
            assert_eq!((twins(&snapshot).as_str(), snapshot.state.frozen.kept.len()), ("a=1 at a.yaml", 1));
            assert_eq!(
                lines(&snapshot),
                ["a.yaml: error: empty all at once; delete it, or leave a comment, if that is meant"]
            );
        }
        folder.write("m/a.yaml", "# none");
        assert_eq!(twins(&loader.load().unwrap()), "");
    }

    #[test]
    fn folders_nested_too_deep_are_an_error() {
        let folder = Folder::new();
        folder.write(&format!("m/{}a.yaml", "d/".repeat(40)), &twin("a", 1));
        assert_eq!(folder.loader("m").load().unwrap_err().category(), "bound");
    }

    #[test]
    fn the_example_fleet_loads_without_a_word() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let snapshot = Loader::new(root).load().unwrap();
        assert_eq!(snapshot.files, 2);
        assert_eq!(snapshot.diagnostics, []);
        let (twin, manifest) = snapshot.state.twins.first_key_value().unwrap();
        assert_eq!((twin.to_string().as_str(), manifest.create), ("myDevice", true));
        let tags = crate::twin::Value::Object(manifest.wanted.tags.clone()).to_string();
        assert_eq!(tags, r#"{"location":{"plant":"Redmond43","region":"US"}}"#);
        assert_eq!(crate::twin::Value::Object(manifest.wanted.desired.clone()).to_string(), r#"{"power_level":1}"#);
        let metrics: Vec<_> = snapshot.queries.iter().map(|query| query.spec.metrics[0].name.as_str()).collect();
        assert_eq!(metrics, ["twinquery_plant_cellular_devices", "twinquery_plant_devices"]);
        for query in snapshot.queries.iter() {
            let spec = &query.spec;
            let seconds = [spec.interval, spec.timeout, spec.stale_after].map(|duration| duration.as_secs());
            assert_eq!(seconds, [30, 10, 100]);
        }
    }
}
