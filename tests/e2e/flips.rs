//! A source as git-sync and kubelet lay it out, under the running daemon: what it says of its revision while links flip,
//! and when the root goes away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use geminid::twin::{Section, Value};

use crate::support::{Process, World, leaf};

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
    // git-sync with the manifests in a folder of the repository, so that the link is in the middle of the path; and a
    // ConfigMap mount.
    for (link, root, below) in [("repo/current", "repo/current/fleet", "/fleet"), ("repo/..data", "repo", "")] {
        let world = World::new();
        let state = |revision: i64| format!("repo/..rev{revision}{below}");
        let set = |revision: i64| {
            fs::create_dir_all(world.path(&state(revision))).unwrap();
            fs::write(world.path(&state(revision)).join("d1.yaml"), manifest(revision)).unwrap();
            flip(&format!("..rev{revision}"), &world.path(link));
        };
        set(1);
        if below.is_empty() {
            symlink("..data/d1.yaml", world.path("repo/d1.yaml")).unwrap();
        }
        let options = ["--manifests", root, "--audit-log", "audit.log"];
        let daemon = world.run_embedded_with("state", &options).await;
        let hub = world.client("state");
        for revision in 1..=3 {
            set(revision);
            let is_there = async || {
                let twin = hub.find("d1").await?;
                (leaf(&twin, Section::Tags, &["v"]) == Some(Value::from(revision))).then_some(())
            };
            daemon.wait_until(&format!("revision {revision} at the hub"), is_there).await;
            says_revision(&daemon, &format!("..rev{revision}")).await;
            if revision > 1 {
                // As git-sync does once the link has flipped.
                fs::remove_dir_all(world.path(&format!("repo/..rev{}", revision - 1))).unwrap();
            }
        }
        let written = ["..rev1", "..rev2", "..rev3"].map(str::to_owned);
        daemon.wait_for("three revisions in the audit log", || audited(&world) == written).await;

        // The root goes: the last good state stays, the daemon stays ready, and nothing is removed.
        fs::rename(world.path("repo"), world.path("away")).unwrap();
        daemon.says("the last good state stays").await;
        assert_eq!(daemon.get("/readyz").await.0, 200);
        says_revision(&daemon, "..rev3").await;
        fs::rename(world.path("away"), world.path("repo")).unwrap();
        daemon.says("manifests can be loaded again").await;
        assert_eq!(leaf(&hub.twin("d1").await, Section::Tags, &["v"]), Some(Value::from(3)));
        assert_eq!(audited(&world), written, "nothing was written for it");
    }
}
