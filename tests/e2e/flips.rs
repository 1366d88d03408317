//! A source as git-sync and kubelet lay it out, under the running daemon: what it says of its revision while links flip,
//! and when the root goes away.
//!
//! Names and places are those of the overlays in `deploy/kubernetes`, read from them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use geminid::twin::{Section, Value};
use serde_yaml::Value as Yaml;

use crate::support::{Process, World, leaf};

/// The volume of manifests as an overlay hands it to geminid.
struct Deployed {
    /// The link that flips, from the volume's root.
    link: String,
    /// Where a revision lies to which it leads: a folder of the volume, and how a name in it begins.
    worktrees: (&'static str, &'static str),
    /// What `manifests` of the settings names beneath the volume's mount; empty for the volume itself.
    below: PathBuf,
    /// Links in the volume that lead through the one that flips, as kubelet makes one for each key.
    keys: Vec<String>,
}

fn overlays() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/overlays")
}

fn yaml(path: &Path) -> Yaml {
    serde_yaml::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entry of a list with this name.
fn named<'a>(list: &'a Yaml, name: &str) -> &'a Yaml {
    list.as_sequence().unwrap().iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Where the container mounts the volume, whole: a part of it (`subPath`) would never flip.
fn mount_of<'a>(container: &'a Yaml, volume: &str) -> &'a str {
    let mount = named(&container["volumeMounts"], volume);
    assert!(mount.get("subPath").is_none() && mount.get("subPathExpr").is_none(), "{mount:?}");
    mount["mountPath"].as_str().unwrap()
}

/// The setting `manifests` of the overlay's one hub, beneath the place where the base mounts them; and the settings file
/// is mounted where the base's arguments say.
fn below_the_mount(overlay: &str) -> PathBuf {
    let base = yaml(&overlays().join("../base/deployment.yaml"));
    let container = named(&base["spec"]["template"]["spec"]["containers"], "geminid");
    let settings = Path::new(mount_of(container, "settings")).join("settings.toml");
    let arguments: Vec<&str> =
        container["args"].as_sequence().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(arguments, ["run", "--settings", settings.to_str().unwrap()]);
    let text = fs::read_to_string(overlays().join(overlay).join("settings.toml")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("manifests = ")).unwrap().trim_matches('"');
    Path::new(value).strip_prefix(mount_of(container, "manifests")).unwrap().to_owned()
}

/// What the overlay with a sidecar of git-sync says.
fn git_sync() -> Deployed {
    let deployment = yaml(&overlays().join("git-sync/deployment.yaml"));
    let sidecar = named(&deployment["spec"]["template"]["spec"]["initContainers"], "git-sync");
    let argument = |name: &str| {
        let texts = sidecar["args"].as_sequence().unwrap().iter().map(|argument| argument.as_str().unwrap());
        texts.filter_map(|text| text.strip_prefix("--")?.split_once('=')).find(|(key, _)| *key == name).unwrap().1
    };
    assert_eq!(argument("root"), mount_of(sidecar, "manifests"), "git-sync works in the volume that geminid reads");
    let (link, below) = (argument("link").to_owned(), below_the_mount("git-sync"));
    assert!(below.starts_with(&link), "geminid reads through the link that flips: {}", below.display());
    // As git-sync 4 lays them out.
    Deployed { link, worktrees: (".worktrees", ""), below, keys: Vec::new() }
}

/// What the overlay with manifests in a ConfigMap says.
fn config_map() -> Deployed {
    let deployment = yaml(&overlays().join("configmap/deployment.yaml"));
    let volume = named(&deployment["spec"]["template"]["spec"]["volumes"], "manifests");
    let generators = &yaml(&overlays().join("configmap/kustomization.yaml"))["configMapGenerator"];
    let generator = named(generators, volume["configMap"]["name"].as_str().unwrap());
    assert_eq!(generator["options"]["disableNameSuffixHash"], true, "another name would need another pod");
    let keys = generator["files"].as_sequence().unwrap().iter().map(|file| file.as_str().unwrap().to_owned()).collect();
    Deployed { link: "..data".to_owned(), worktrees: ("", ".."), below: below_the_mount("configmap"), keys }
}

fn manifest(value: i64) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: d1}}\nspec: {{create: true, tags: {{v: {value}}}}}\n"
    )
}

/// Flips a link in one step.
fn flip(target: &str, link: &Path) {
    let new = link.with_file_name(".flip");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

/// Waits until probe and metrics name `revision`, and nothing else.
async fn says_revision(daemon: &Process, revision: &str) {
    let ready = format!("hub embedded: revision {revision}");
    let is_ready = async || daemon.get("/readyz").await.1.lines().any(|line| line == ready).then_some(());
    daemon.wait_until(&format!("revision {revision} in /readyz"), is_ready).await;
    let (_, metrics) = daemon.get("/metrics").await;
    let series: Vec<&str> = metrics.lines().filter(|line| line.starts_with("geminid_source_revision_info{")).collect();
    assert_eq!(series, [format!("geminid_source_revision_info{{hub=\"embedded\",revision=\"{revision}\"}} 1")]);
}

/// The revisions of the writes that the audit log holds, in order.
fn audited(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("audit.log")).unwrap_or_default();
    let revision = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["revision"].clone();
    let mut revisions: Vec<String> = text.lines().map(|line| revision(line).as_str().unwrap().to_owned()).collect();
    revisions.dedup();
    revisions
}

#[tokio::test]
async fn each_flip_is_at_the_hub_with_its_revision_in_probe_metrics_and_audit_log() {
    for Deployed { link, worktrees: (folder, start), below, keys } in [git_sync(), config_map()] {
        let world = World::new();
        let volume = world.path("volume");
        fs::create_dir(&volume).unwrap();
        let inside = below.strip_prefix(&link).unwrap_or(&below);
        let file = keys.first().map_or("devices.yaml", String::as_str);
        let name = |revision: i64| format!("{start}rev{revision}");
        let state = |revision: i64| volume.join(folder).join(name(revision));
        let set = |revision: i64| {
            fs::create_dir_all(state(revision).join(inside)).unwrap();
            fs::write(state(revision).join(inside).join(file), manifest(revision)).unwrap();
            flip(Path::new(folder).join(name(revision)).to_str().unwrap(), &volume.join(&link));
        };
        set(1);
        for key in &keys {
            symlink(Path::new(&link).join(key), volume.join(key)).unwrap();
        }
        let root = Path::new("volume").join(&below);
        let options = ["--manifests", root.to_str().unwrap(), "--audit-log", "audit.log"];
        let daemon = world.run_embedded_with("state", &options).await;
        let hub = world.client("state");
        for revision in 1..=3 {
            set(revision);
            let is_there = async || {
                let twin = hub.find("d1").await?;
                (leaf(&twin, Section::Tags, &["v"]) == Some(Value::from(revision))).then_some(())
            };
            daemon.wait_until(&format!("revision {revision} at the hub"), is_there).await;
            says_revision(&daemon, &name(revision)).await;
            if revision > 1 {
                // As git-sync does once the link has flipped.
                fs::remove_dir_all(state(revision - 1)).unwrap();
            }
        }
        let written = [1, 2, 3].map(name);
        daemon.wait_for("three revisions in the audit log", || audited(&world) == written).await;

        // The root goes: the last good state stays, the daemon stays ready, and nothing is removed.
        fs::rename(&volume, world.path("away")).unwrap();
        daemon.says("the last good state stays").await;
        assert_eq!(daemon.get("/readyz").await.0, 200);
        says_revision(&daemon, &name(3)).await;
        fs::rename(world.path("away"), &volume).unwrap();
        daemon.says("manifests can be loaded again").await;
        assert_eq!(leaf(&hub.twin("d1").await, Section::Tags, &["v"]), Some(Value::from(3)));
        assert_eq!(audited(&world), written, "nothing was written for it");
    }
}
