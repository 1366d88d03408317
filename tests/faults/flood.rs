//! Ten thousand manifests, all of them replaced every second: the daemon keeps up with the last of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::health::{Footprint, complaints};
use crate::support::{World, eventually, has_power_level, service_writes};

const TWINS: usize = 10_000;
const TWINS_A_FILE: usize = 100;
/// How often everything is replaced, and how fast.
const REPLACED: usize = 8;
const EVERY: Duration = Duration::from_secs(1);
/// Ten thousand twins take their time in an unoptimised build on two cores.
const LOOKS: usize = 6;
/// How often a source that never rests may be complained of, between two loads that were good.
const UNSTEADY_MAX: usize = 3;
/// Every so many twins is looked at.
const SAMPLE: usize = 97;

fn name(index: usize) -> String {
    format!("d{index}")
}

/// A folder with everything at `level`.
fn revision(world: &World, level: usize) {
    let folder = world.path(&format!("revision-{level}"));
    fs::create_dir(&folder).unwrap();
    for file in 0..TWINS / TWINS_A_FILE {
        let twins = file * TWINS_A_FILE..(file + 1) * TWINS_A_FILE;
        let documents = twins.map(|index| {
            format!(
                "---\napiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {}}}\n\
                 spec: {{properties: {{desired: {{power_level: {level}}}}}}}\n",
                name(index)
            )
        });
        fs::write(folder.join(format!("{file}.yaml")), documents.collect::<String>()).unwrap();
    }
}

/// Flips the link, as git-sync does.
fn flip(world: &World, level: usize) {
    let fresh = world.path(".fresh-link");
    symlink(Path::new(&format!("revision-{level}")), &fresh).unwrap();
    fs::rename(&fresh, world.path("current")).unwrap();
}

#[tokio::test]
async fn ten_thousand_manifests_replaced_every_second_end_at_the_last() {
    let world = World::new();
    world.write("template.json", r#"{"deviceId":"d{n}","tags":{"plant":"p"}}"#);
    let fill = ["--fill-devices", &TWINS.to_string(), "--fill-template", "template.json", "--hub-ephemeral"];
    let fixed = ["hub", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0", "--state-dir", "state"];
    let hub_process = world.start(&[&fixed[..], &fill].concat());
    hub_process.wait_for("the hub's announcement", || hub_process.stdout().contains("stop")).await;
    let hub = world.client("state");
    (1..=REPLACED + 1).for_each(|level| revision(&world, level));
    flip(&world, 1);
    let run = ["run", "--hub-json", "state/hub.json", "--manifests", "current", "--listen", "127.0.0.1:0"];
    let mut daemon = world.start(&run);
    daemon.wait_for("the daemon's announcement", || daemon.stdout().contains("stop")).await;
    let in_sync = async || {
        for _ in 0..LOOKS {
            let all = eventually(async || daemon.metric_in_sync(u32::try_from(TWINS).unwrap()).await).await;
            if all.is_some() {
                return;
            }
        }
        panic!("not all are in sync\n{}", daemon.stderr());
    };
    in_sync().await;
    let before = Footprint::of(&daemon);

    let mut second = tokio::time::interval(EVERY);
    for level in 2..=REPLACED + 1 {
        second.tick().await;
        flip(&world, level);
    }
    let last = REPLACED + 1;
    daemon.wait_for("the last revision", || daemon.lines_with(&format!("revision-{last}")) > 0).await;
    in_sync().await;
    for index in (0..TWINS).step_by(SAMPLE) {
        let twin = hub.twin(&name(index)).await;
        assert!(has_power_level(&twin, last), "{}: {:?}", name(index), twin.desired);
        assert!(service_writes(&twin.etag) <= last as u64, "more writes than manifests: {}", name(index));
    }
    // Where a load takes longer than a second no revision stays for long enough, which is said and waited out.
    let said = complaints(&daemon);
    let unsteady = said.iter().filter(|line| line.contains("kept changing while it was read")).count();
    assert!(unsteady == said.len() && unsteady <= UNSTEADY_MAX, "{said:#?}");
    before.assert_back(&daemon, 0).await;
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}
