//! SIGTERM, as a container's runtime sends it: what was begun is ended, nothing is begun, and the next process goes on
//! where this one stopped. The etag of a twin counts its service writes, so the hub itself keeps the account.

use std::time::{Duration, Instant};

use crate::support::{Client, World, has_power_level, service_writes};

const FLEET: usize = 1000;
/// Writes that the hub has seen when the signal comes.
const AMID: f64 = 250.0;
/// Running writes are drained for at most 20 s, and so few of them end much sooner.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "measures how long a runtime would wait")]
fn clock() -> Instant {
    Instant::now()
}

fn id(n: usize) -> String {
    format!("pump-{n}")
}

/// How many twins are as declared, each of them written once.
async fn written(client: &Client) -> usize {
    let mut count = 0;
    for n in 0..FLEET {
        let twin = client.twin(&id(n)).await;
        match service_writes(&twin.etag) {
            0 => assert!(!has_power_level(&twin, 7), "{twin:?}"),
            1 => {
                assert!(has_power_level(&twin, 7), "{twin:?}");
                count += 1;
            }
            more => panic!("{} was written {more} times", twin.twin_ref),
        }
    }
    count
}

#[tokio::test]
async fn a_signal_amid_a_thousand_writes_loses_none_and_repeats_none() {
    let world = World::new();
    world.write("slow.json", r#"{"seed":1,"rules":[{"operations":["twinWrite"],"rate":1.0,"latencyMs":20}]}"#);
    world.write("twin.json", r#"{"deviceId":"pump-{n}"}"#);
    let fleet: String = (0..FLEET)
        .map(|n| {
            format!(
                "---\napiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {}}}\nspec: {{properties: {{desired: {{power_level: 7}}}}}}\n",
                id(n)
            )
        })
        .collect();
    world.write("manifests/fleet.yaml", &fleet);
    let hub = ["hub", "--state-dir", "state", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
    let filled =
        ["--fill-devices", "1000", "--fill-template", "twin.json", "--hub-faults", "--fault-plan", "slow.json"];
    let hub = world.start(&[&hub[..], &filled].concat());
    hub.wait_for("the hub's announcement", || hub.stdout().contains("stop")).await;
    let client = world.client("state");

    let mut daemon = world.run_on("state/hub.json", &[]).await;
    let patched = r#"geminid_hub_requests_total{code="200",hub="embedded",operation="patch"}"#;
    daemon.wait_until("writes", async || daemon.metric(patched).await.filter(|count| *count > AMID)).await;
    let signalled = clock();
    daemon.signal("TERM");
    assert_eq!(daemon.exit_code().await, 0, "{}", daemon.stderr());
    assert!(signalled.elapsed() < ENDED_WITHIN, "{:?}", signalled.elapsed());
    let first = written(&client).await;
    assert!((250..FLEET).contains(&first), "the signal came amid the writes, not at {first}");

    let mut again = world.run_on("state/hub.json", &[]).await;
    let in_sync = r#"geminid_twins{hub="embedded",state="in_sync"}"#;
    again.wait_until("the fleet", async || again.metric(in_sync).await.filter(|count| *count > 999.5)).await;
    assert_eq!(written(&client).await, FLEET);
    assert_eq!(again.interrupt().await, 0);
}
