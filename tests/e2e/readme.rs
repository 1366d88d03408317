//! The real binary as a newcomer meets it: one command, a device, a patch, two metrics.

use std::time::{Duration, Instant};

use crate::support::{World, device, example_manifests, has_power_level, leaf, service_writes};
use geminid::twin::{Section, Value};

const PLANT_DEVICES: &str = r#"twinquery_plant_devices{hub="embedded",plant="Redmond43"}"#;
const CELLULAR_DEVICES: &str = r#"twinquery_plant_cellular_devices{hub="embedded",plant="Redmond43"}"#;
/// A saved file is to be at the hub within one second; a machine that runs other tests beside this one gets another.
const SAVED_TO_HUB_MAX: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "measures how long a person would wait")]
fn clock() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn the_readme_s_command_makes_a_manifest_a_twin_and_a_twin_a_metric_and_ctrl_c_drains() {
    let world = World::new();
    example_manifests(&world);
    let mut daemon = world.run_embedded("state", &[]).await;
    let json = world.hub_json("state");
    assert_eq!(daemon.announced("embedded hub "), format!("https://{}", json["https"].as_str().unwrap()));
    let connect = daemon.announced("connect with ");
    assert!(connect.starts_with(world.path("state/hub.json").to_str().unwrap()), "{connect}");

    let hub = world.client("state");
    let twin = daemon.wait_until("device", async || hub.find("myDevice").await.filter(|t| has_power_level(t, 1))).await;
    assert_eq!(leaf(&twin, Section::Tags, &["location", "region"]), Some(Value::from("US")));
    assert_eq!(leaf(&twin, Section::Tags, &["location", "plant"]), Some(Value::from("Redmond43")));
    assert_eq!(service_writes(&twin.etag), 1, "values and seal go in one write");
    for line in ["registered the device", "tags.location.plant = \"Redmond43\"", "properties.desired.power_level = 1"] {
        daemon.says(line).await;
        assert_eq!(daemon.lines_with(line), 1, "{}", daemon.stderr());
    }
    let plan = ["plan", "--hub-json", "state/hub.json", "--manifests", "manifests"];
    let (code, out, _) = world.run(&plan).await;
    assert_eq!((code, out.as_str()), (0, "1 twin: 1 in sync\n"));

    assert_eq!(daemon.get("/livez").await.0, 200);
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    daemon.metric_is(CELLULAR_DEVICES, 0.0).await;
    daemon.metric_is(PLANT_DEVICES, 1.0).await;
    daemon.metric_is(CELLULAR_DEVICES, 1.0).await;
    assert_eq!(daemon.metric(PLANT_DEVICES).await, Some(1.0));
    assert_eq!(daemon.metric(r#"geminid_twins{hub="embedded",state="in_sync"}"#).await, Some(1.0));

    assert_eq!(world.run(&plan).await.0, 0, "plan right after");
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
    assert!(!world.path("state/hub.json").exists(), "nothing is served any more");

    let again = world.run_embedded("state", &[]).await;
    let hub = world.client("state");
    again.says("sweep complete").await;
    again.metric_is(CELLULAR_DEVICES, 1.0).await;
    let after = hub.twin("myDevice").await;
    assert_eq!(after.etag, twin.etag, "the second run had nothing to write");
    assert_eq!(again.lines_with("power_level"), 0, "{}", again.stderr());
}

#[tokio::test]
async fn a_saved_manifest_is_at_the_hub_within_a_second() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let daemon = world.run_embedded("state", &[]).await;
    let hub = world.client("state");
    daemon.wait_until("device", async || hub.find("d1").await.filter(|twin| has_power_level(twin, 1))).await;
    for level in 2..6 {
        world.write("manifests/d1.yaml", &device("d1", level));
        let saved = clock();
        daemon.wait_until("level", async || hub.find("d1").await.filter(|twin| has_power_level(twin, level))).await;
        let took = clock() - saved;
        assert!(took < SAVED_TO_HUB_MAX, "level {level} took {took:?}");
    }
    assert_eq!(service_writes(&hub.twin("d1").await.etag), 5, "one write a save");
}

#[tokio::test]
async fn a_leaf_edited_by_another_client_is_corrected_at_the_next_sweep_and_an_unrelated_tag_survives() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 7));
    let daemon = world.run_embedded("state", &["--sweep", "1s"]).await;
    let hub = world.client("state");
    daemon.wait_until("device", async || hub.find("d1").await.filter(|twin| has_power_level(twin, 7))).await;

    hub.set("d1", Section::Tags, &["contact"], Value::from("ann")).await;
    let edited = hub.set("d1", Section::Desired, &["power_level"], Value::parse_json("3").unwrap()).await;
    let twin = daemon.wait_until("correction", async || hub.find("d1").await.filter(|t| has_power_level(t, 7))).await;
    assert_eq!(service_writes(&twin.etag), service_writes(&edited.etag) + 1, "one write corrects");
    assert_eq!(leaf(&twin, Section::Tags, &["contact"]), Some(Value::from("ann")));
    daemon.says("~ properties.desired.power_level = 7 (was 3)").await;
    daemon.metric_is(r#"geminid_drift_detected_total{hub="embedded",target="desired"}"#, 1.0).await;

    let sweeps = daemon.lines_with("sweep complete");
    daemon.wait_for("two more sweeps", || daemon.lines_with("sweep complete") > sweeps + 1).await;
    assert_eq!(hub.twin("d1").await.etag, twin.etag, "sweeps that find nothing write nothing");
}

#[tokio::test]
async fn somebody_who_writes_all_the_time_loses_nothing_and_neither_does_the_daemon() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 0));
    let daemon = world.run_embedded("state", &[]).await;
    let hub = world.client("state");
    daemon.wait_until("device", async || hub.find("d1").await).await;
    let mut rival_writes = 0_usize;
    for level in 1..6 {
        world.write("manifests/d1.yaml", &device("d1", level));
        while !has_power_level(&hub.twin("d1").await, level) {
            hub.set("d1", Section::Tags, &[&format!("n{}", rival_writes % 10)], Value::from("rival")).await;
            rival_writes += 1;
        }
    }
    let twin = hub.twin("d1").await;
    for number in 0..rival_writes.min(10) {
        assert_eq!(leaf(&twin, Section::Tags, &[&format!("n{number}")]), Some(Value::from("rival")));
    }
    assert!(rival_writes > 10, "they met");
    let writes = usize::try_from(service_writes(&twin.etag)).unwrap();
    assert!(writes <= rival_writes + 6, "{writes} writes, {rival_writes} of the rival");
}
