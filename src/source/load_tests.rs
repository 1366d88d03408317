//! Loading real folders, with real links.

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
        format!("{twin}={} at {}", manifest.tags["v"], manifest.source.file)
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
                    assert_eq!(manifest.tags["v"].to_string(), value);
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
    assert_eq!((first.parsed, second.parsed), (2, 1));
    let same = |name: &str| {
        let id = crate::twin::TwinRef::device(crate::twin::DeviceId::new(name).unwrap());
        Arc::ptr_eq(&first.state.twins[&id], &second.state.twins[&id])
    };
    assert!(same("a") && !same("b"));
    assert_eq!(loader.load().unwrap(), Snapshot { parsed: 0, ..second });
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
    let tags = crate::twin::Value::Object(manifest.tags.clone()).to_string();
    assert_eq!(tags, r#"{"location":{"plant":"Redmond43","region":"US"}}"#);
    assert_eq!(crate::twin::Value::Object(manifest.desired.clone()).to_string(), r#"{"power_level":1}"#);
    let metrics: Vec<_> = snapshot.queries.iter().map(|query| query.spec.metrics[0].name.as_str()).collect();
    assert_eq!(metrics, ["twinquery_plant_cellular_devices", "twinquery_plant_devices"]);
    for query in snapshot.queries.iter() {
        let spec = &query.spec;
        let seconds = [spec.interval, spec.timeout, spec.stale_after].map(|duration| duration.as_secs());
        assert_eq!(seconds, [30, 10, 100]);
    }
}
