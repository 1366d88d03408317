//! Several hubs in one process: what one of them does is no other's trouble.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::{World, device, has_power_level};

/// So many twins are named for one reason; what goes on and on is no flood of lines.
const LINES_ABOUT_A_HUB_MAX: usize = 10;
/// A saved file is to be at the hub within one second; a machine that runs other tests beside this one gets another.
const SAVED_TO_HUB_MAX: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "measures how long a person would wait")]
fn clock() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_hub_that_hangs_and_one_that_throttles_delay_no_other() {
    let world = World::new();
    let _well = world.hub("well", "127.0.0.1:0").await;
    world.write(
        "plan.json",
        r#"{"seed":1,"rules":[{"operations":["twinRead","twinWrite","query"],"rate":1.0,"status":429}]}"#,
    );
    let free = ["--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
    let throttles =
        ["hub", "--state-dir", "throttles", "--hub-host", "127.0.0.1", "--hub-faults", "--fault-plan", "plan.json"];
    let throttling = world.start(&[&throttles[..], &free].concat());
    throttling.wait_for("the hub's announcement", || throttling.stdout().contains("stop")).await;
    let (well, throttles) = (world.hub_json("well"), world.hub_json("throttles"));
    let text = |json: &serde_json::Value, field: &str| json[field].as_str().unwrap().to_owned();
    let key = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=";
    world.keep_secret(key);
    world.write("well.secret", &text(&well, "ownerConnectionString"));
    world.write("throttles.secret", &text(&throttles, "ownerConnectionString"));
    // Connections wait in its queue, taken by nobody: it never says a word.
    let silent = TcpListener::bind("127.0.0.2:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let hanging = format!("HostName={silent_at};SharedAccessKeyName=iothubowner;SharedAccessKey={key}");
    world.write("hangs.secret", &hanging);
    let hub = |name: &str, ca_file: &str| {
        let files = format!("connection_string_file = \"{name}.secret\"\nca_file = \"{ca_file}\"\n");
        format!("[hubs.{name}]\nmanifests = \"manifests\"\n{files}")
    };
    let (ca, other_ca) = (text(&well, "caFile"), text(&throttles, "caFile"));
    let hubs = [hub("well", &ca), hub("throttles", &other_ca), hub("hangs", &ca)].concat();
    world.write("settings.toml", &format!("owner = \"fleet\"\nlisten = \"127.0.0.1:0\"\n{hubs}"));
    for n in 0..8 {
        world.write(&format!("manifests/d{n}.yaml"), &device(&format!("d{n}"), 1));
    }
    let mut daemon = world.start(&["run", "--settings", "settings.toml"]);
    daemon.wait_for("the daemon's announcement", || daemon.stdout().contains("stop")).await;
    let client = world.client("well");
    daemon
        .wait_until("the fleet", async || {
            daemon.metric(r#"geminid_twins{hub="well",state="in_sync"}"#).await.filter(|n| *n > 7.5)
        })
        .await;
    for level in 2..8 {
        let saved = clock();
        world.write("manifests/d7.yaml", &device("d7", level));
        daemon
            .wait_until("the change", async || client.find("d7").await.filter(|twin| has_power_level(twin, level)))
            .await;
        assert!(saved.elapsed() < SAVED_TO_HUB_MAX, "{:?}", saved.elapsed());
    }
    daemon.metric_is(r#"geminid_hub_up{hub="well"}"#, 1.0).await;
    daemon.metric_is(r#"geminid_hub_up{hub="hangs"}"#, 0.0).await;
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    for hub in ["throttles", "hangs"] {
        assert_eq!(daemon.metric(&format!(r#"geminid_twins{{hub="{hub}",state="in_sync"}}"#)).await, Some(0.0));
        let said = daemon.stderr().lines().filter(|line| line.contains("WARN") && line.contains(hub)).count();
        assert!(said <= LINES_ABOUT_A_HUB_MAX, "{said} lines about {hub}: {}", daemon.stderr());
    }
    assert_eq!(daemon.interrupt().await, 0, "a hub that hangs does not hold up the end: {}", daemon.stderr());
}

#[tokio::test]
async fn two_entries_for_one_hub_are_an_error_that_names_both() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let json = world.hub_json("state");
    world.write("hub.secret", json["ownerConnectionString"].as_str().unwrap());
    let hub =
        |name: &str| format!("[hubs.{name}]\nmanifests = \"manifests\"\nconnection_string_file = \"hub.secret\"\n");
    world.write("settings.toml", &format!("owner = \"fleet\"\n{}{}", hub("east"), hub("west")));
    let (code, _, err) = world.run(&["run", "--settings", "settings.toml", "--listen", "127.0.0.1:0"]).await;
    let expected = "error: hubs east and west are the same hub localhost; keep one of them\n";
    assert_eq!((code, err.as_str()), (2, expected));
}
