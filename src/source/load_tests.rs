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
        format!("{twin}={} at {}", manifest.wanted.unpack().tags["v"], manifest.source.file)
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

/// Flips of each kind of link that a reader must live through.
const FLIPS: usize = 1000;

/// Writes a whole revision: `files` twins that all say its number.
fn write_revision(folder: &Folder, path: &str, revision: usize, files: usize) {
    for file in 0..files {
        folder.write(&format!("{path}/{file}.yaml"), &twin(&format!("t{file}"), revision));
    }
}

/// Loads while `flips` runs; every revision that comes out must be whole. Answers how many did.
fn read_while(loader: &mut Loader, files: usize, flips: impl FnOnce() + Send) -> usize {
    let mut whole = 0;
    std::thread::scope(|scope| {
        let flips = scope.spawn(flips);
        while !flips.is_finished() || whole == 0 {
            let snapshot = match loader.load() {
                Ok(snapshot) => snapshot,
                Err(LoadError::Unsteady(_) | LoadError::Unreadable { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            whole += 1;
            let value = snapshot.revision.trim_start_matches("..r");
            assert_eq!((snapshot.state.twins.len(), snapshot.diagnostics.len()), (files, 0));
            for manifest in snapshot.state.twins.values() {
                assert_eq!(manifest.wanted.unpack().tags["v"].to_string(), value);
            }
        }
    });
    whole
}

#[test]
fn no_load_mixes_two_revisions_while_a_link_flips_a_thousand_times() {
    const FILES: usize = 20;
    for (link, root, prefix) in
        [("current", "current", "trees"), ("current", "current/fleet", "trees"), ("m/..data", "m", "m")]
    {
        let folder = Folder::new();
        let below = root.strip_prefix("current/").map_or(String::new(), |below| format!("/{below}"));
        for revision in 0..2 {
            write_revision(&folder, &format!("{prefix}/..r{revision}{below}"), revision, FILES);
        }
        if root == "m" {
            (0..FILES).for_each(|file| folder.link(&format!("..data/{file}.yaml"), &format!("m/{file}.yaml")));
        }
        let target = |flip: usize| format!("{}..r{}", if root == "m" { "" } else { "trees/" }, flip % 2);
        folder.link(&target(0), link);
        let mut loader = folder.loader(root);
        let whole = read_while(&mut loader, FILES, || (1..=FLIPS).for_each(|flip| folder.flip(&target(flip), link)));
        assert!(whole > 0, "{root}");
        assert_eq!(loader.load().unwrap().revision, "..r0");
    }
}

#[test]
fn a_tree_that_is_removed_while_it_is_read_is_never_half_a_revision() {
    const FILES: usize = 5;
    let folder = Folder::new();
    write_revision(&folder, "trees/..r0/fleet", 0, FILES);
    folder.link("trees/..r0", "current");
    let mut loader = folder.loader("current/fleet");
    read_while(&mut loader, FILES, || {
        for revision in 1..=FLIPS {
            write_revision(&folder, &format!("trees/..r{revision}/fleet"), revision, FILES);
            folder.flip(&format!("trees/..r{revision}"), "current");
            fs::remove_dir_all(folder.path(&format!("trees/..r{}", revision - 1))).unwrap();
        }
    });
    assert_eq!(loader.load().unwrap().revision, format!("..r{FLIPS}"));
}

/// What a loader that never saw the folder says of it, as far as it can know the same.
fn assert_same_as_anew(snapshot: &Snapshot, folder: &Folder) {
    let anew = folder.loader("m").load().unwrap();
    assert_eq!(*snapshot, Snapshot { parsed: snapshot.parsed, ..anew });
}

fn entries(folder: &Folder, names: &[&str]) -> Hint {
    Hint::Entries(
        names
            .iter()
            .map(|name| {
                folder.path(name).parent().unwrap().canonicalize().unwrap().join(name.rsplit('/').next().unwrap())
            })
            .collect(),
    )
}

#[test]
fn a_nominated_file_is_read_alone() {
    let folder = Folder::new();
    for file in ["m/a.yaml", "m/x/b.yaml", "m/x/c.yaml"] {
        folder.write(file, &twin(&file.replace('/', "-"), 1));
    }
    let mut loader = folder.loader("m");
    let first = loader.reload(&Hint::Whole).unwrap();
    assert_eq!(first.parsed, 3);
    // Not nominated: were anything else read, it would show.
    folder.write("m/x/c.yaml", "not a manifest");
    folder.write("m/x/b.yaml", &twin("m-x-b.yaml", 2));
    let second = loader.reload(&entries(&folder, &["m/x/b.yaml"])).unwrap();
    assert_eq!(
        (twins(&second).as_str(), second.parsed),
        ("m-a.yaml=1 at a.yaml, m-x-b.yaml=2 at x/b.yaml, m-x-c.yaml=1 at x/c.yaml", 1)
    );
    assert_ne!(second.revision, first.revision);
    assert_eq!(second.state.revision, second.revision);
    folder.write("m/x/c.yaml", &twin("m-x-c.yaml", 1));
    assert_same_as_anew(&second, &folder);
    let third = loader.reload(&entries(&folder, &["m/x/b.yaml", "m/x/c.yaml", "m/.hidden.yaml", "m/draft"])).unwrap();
    assert_eq!(third, Snapshot { parsed: 0, ..second.clone() });
    assert!(Arc::ptr_eq(&third.state, &second.state), "nothing new is nothing to compare");
    // Written by rename, as editors do; and one of several documents.
    folder.write("m/x/.b.tmp", &format!("{}---\n{}", twin("m-x-b.yaml", 3), twin("more", 1)));
    fs::rename(folder.path("m/x/.b.tmp"), folder.path("m/x/b.yaml")).unwrap();
    let fourth = loader.reload(&entries(&folder, &["m/x/.b.tmp", "m/x/b.yaml"])).unwrap();
    assert_eq!((fourth.parsed, fourth.state.twins.len()), (1, 4));
    assert_same_as_anew(&fourth, &folder);
}

#[test]
fn whatever_is_nominated_the_result_is_that_of_reading_everything() {
    let folder = Folder::new();
    folder.write("m/a.yaml", &twin("a", 1));
    folder.write("m/x/b.yaml", &twin("b", 1));
    folder.write("outside.yaml", &twin("o", 1));
    let mut loader = folder.loader("m");
    loader.load().unwrap();
    let mut check = |names: &[&str], expected: &str| {
        let snapshot = loader.reload(&entries(&folder, names)).unwrap();
        assert_eq!(twins(&snapshot), expected, "{names:?}");
        assert_same_as_anew(&snapshot, &folder);
    };
    folder.write("m/c.yaml", &twin("c", 1));
    check(&["m/c.yaml"], "a=1 at a.yaml, b=1 at x/b.yaml, c=1 at c.yaml");
    fs::remove_file(folder.path("m/c.yaml")).unwrap();
    check(&["m/c.yaml"], "a=1 at a.yaml, b=1 at x/b.yaml");
    folder.write("m/y/d.yaml", &twin("d", 1));
    check(&["m/y"], "a=1 at a.yaml, b=1 at x/b.yaml, d=1 at y/d.yaml");
    folder.write("m/y/d.yaml", &twin("d", 2));
    check(&["m/y/d.yaml"], "a=1 at a.yaml, b=1 at x/b.yaml, d=2 at y/d.yaml");
    folder.write("m/y/n/m/d.yaml", &twin("n", 2));
    check(&["m/y/n/m/d.yaml"], "a=1 at a.yaml, b=1 at x/b.yaml, d=2 at y/d.yaml, n=2 at y/n/m/d.yaml");
    fs::remove_dir_all(folder.path("m/y")).unwrap();
    check(&["m/y"], "a=1 at a.yaml, b=1 at x/b.yaml");
    folder.link("a.yaml", "m/link.yaml");
    check(&["m/link.yaml"], "a=1 at a.yaml, b=1 at x/b.yaml");
    folder.write("m/a.yaml", &twin("a", 7));
    check(&["m/a.yaml"], "a=7 at a.yaml, b=1 at x/b.yaml");
    fs::remove_file(folder.path("m/link.yaml")).unwrap();
    check(&["m/link.yaml"], "a=7 at a.yaml, b=1 at x/b.yaml");
    check(&["outside.yaml", "m"], "a=7 at a.yaml, b=1 at x/b.yaml");
}

#[test]
fn a_nominated_file_that_broke_or_became_something_else_freezes_what_it_declared() {
    let folder = Folder::new();
    folder.write("m/a.yaml", &twin("a", 1));
    folder.write("m/b.yaml", &twin("b", 1));
    let mut loader = folder.loader("m");
    loader.load().unwrap();
    let mut kept = |expected: &str| {
        let snapshot = loader.reload(&entries(&folder, &["m/a.yaml"])).unwrap();
        assert_eq!((twins(&snapshot).as_str(), snapshot.state.frozen.kept.len()), ("a=1 at a.yaml, b=1 at b.yaml", 1));
        assert_eq!(lines(&snapshot), [expected]);
    };
    folder.write("m/a.yaml", "");
    kept("a.yaml: error: empty all at once; delete it, or leave a comment, if that is meant");
    fs::remove_file(folder.path("m/a.yaml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path("m/a.yaml")).status().unwrap();
    assert!(made.success());
    kept("a.yaml: error: not a regular file; remove it");
    fs::remove_file(folder.path("m/a.yaml")).unwrap();
    folder.link("/etc/hostname", "m/a.yaml");
    kept("a.yaml: error: a link that leads out of the folder is not followed; copy the file here");
    fs::remove_file(folder.path("m/a.yaml")).unwrap();
    folder.write("m/a.yaml", &twin("a", 2));
    let mended = loader.reload(&entries(&folder, &["m/a.yaml"])).unwrap();
    assert_same_as_anew(&mended, &folder);
}

#[test]
fn after_a_failed_load_and_after_a_flip_a_nominated_file_is_not_enough() {
    let folder = Folder::new();
    folder.write("one/a.yaml", &twin("a", 1));
    folder.write("two/a.yaml", &twin("a", 2));
    folder.write("two/b.yaml", &twin("b", 2));
    folder.link("one", "m");
    let mut loader = folder.loader("m");
    loader.load().unwrap();
    let hint = entries(&folder, &["m/a.yaml"]);
    folder.flip("two", "m");
    let flipped = loader.reload(&hint).unwrap();
    assert_eq!((twins(&flipped).as_str(), flipped.revision.as_str()), ("a=2 at a.yaml, b=2 at b.yaml", "two"));
    fs::rename(folder.path("two"), folder.path("away")).unwrap();
    assert_eq!(loader.reload(&hint).unwrap_err().category(), "unreadable");
    fs::rename(folder.path("away"), folder.path("two")).unwrap();
    folder.write("two/b.yaml", &twin("b", 3));
    assert_eq!(twins(&loader.reload(&hint).unwrap()), "a=2 at a.yaml, b=3 at b.yaml");
}

#[test]
fn each_bound_holds_and_says_which_it_is() {
    let folder = Folder::new();
    folder.write("m/a.yaml", &twin("a", 1));
    folder.write("m/x/y/b.yaml", &twin("b", 1));
    let size = u64::try_from(twin("a", 1).len()).unwrap();
    let load = |bounds: Bounds| match Loader::with_bounds(folder.path("m"), bounds).load() {
        Ok(snapshot) => format!("{} twins {}", snapshot.state.twins.len(), lines(&snapshot).join("; ")),
        Err(error) => format!("{}: {error}", error.category()),
    };
    let exact = Bounds { files: 2, file_size: size, total_size: 2 * size, depth: 2 };
    assert_eq!(load(exact), "2 twins ");
    assert_eq!(load(Bounds { files: 1, ..exact }), "bound: more than 1 manifest files");
    assert_eq!(load(Bounds { depth: 1, ..exact }), "bound: folders nest deeper than 1 levels at x/y/");
    let total = format!("bound: the manifests have more than {} bytes together", 2 * size - 1);
    assert_eq!(load(Bounds { total_size: 2 * size - 1, ..exact }), total);
    let large = load(Bounds { file_size: size - 1, ..exact });
    assert!(large.starts_with("0 twins a.yaml: error: larger than"), "{large}");
    let mut loader = Loader::with_bounds(folder.path("m"), exact);
    loader.load().unwrap();
    folder.write("m/c.yaml", "");
    assert_eq!(loader.reload(&entries(&folder, &["m/c.yaml"])).unwrap_err().category(), "bound");
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
            "nowhere.yaml: error: links to nowhere, which is not there; mend or remove the link",
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
        Arc::ptr_eq(first.state.twins.get(&id).unwrap(), second.state.twins.get(&id).unwrap())
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
fn the_example_fleet_loads_without_a_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let snapshot = Loader::new(root).load().unwrap();
    assert_eq!(snapshot.files, 2);
    assert_eq!(snapshot.diagnostics, []);
    let (twin, manifest) = snapshot.state.twins.iter().next().unwrap();
    assert_eq!((twin.to_string().as_str(), manifest.create), ("myDevice", true));
    let tags = crate::twin::Value::Object(manifest.wanted.unpack().tags).to_string();
    assert_eq!(tags, r#"{"location":{"plant":"Redmond43","region":"US"}}"#);
    assert_eq!(crate::twin::Value::Object(manifest.wanted.unpack().desired).to_string(), r#"{"power_level":1}"#);
    let metrics: Vec<_> = snapshot.queries.iter().map(|query| query.spec.metrics[0].name.as_str()).collect();
    assert_eq!(metrics, ["twinquery_plant_cellular_devices", "twinquery_plant_devices"]);
    for query in snapshot.queries.iter() {
        let spec = &query.spec;
        let seconds = [spec.interval, spec.timeout, spec.stale_after].map(|duration| duration.as_secs());
        assert_eq!(seconds, [30, 10, 100]);
    }
}
