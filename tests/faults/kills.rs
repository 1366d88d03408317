//! `kill -9` of the daemon or of the hub, at random moments, for as long as asked: `just kills MINUTES`.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::between::Between;
use crate::fleet::Fleet;
use crate::health::{assert_few_complaints, assert_said_once};
use crate::support::World;

const TWINS: usize = 16;
/// How long, unless `GEMINID_KILL_SECONDS` says otherwise.
const SECONDS: u64 = 12;
/// From one death to the next.
const LIFE_MS: std::ops::Range<u64> = 20..700;
const SEED: u64 = 0x6b69_6c6c;

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long to go on is the caller's wish, and real time")]
async fn daemon_and_hub_killed_at_random_lose_nothing_and_write_nothing_twice() {
    let seconds = std::env::var("GEMINID_KILL_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(SEED);
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let mut hub = world.hub("state", &port).await;
    let between = Between::start(&world, "state", "between.json", "http://127.0.0.1:9").await;
    let client = world.client("state");
    let run =
        ["run", "--hub-json", "between.json", "--manifests", "manifests", "--listen", "127.0.0.1:0", "--sweep", "1s"];
    let mut daemon = world.start(&run);
    let (begun, mut deaths, mut acknowledged, mut attempted) = (Instant::now(), 0_u64, 0_u64, 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(rng.u64(LIFE_MS))).await;
        if rng.bool() {
            fleet.rise(&world);
        }
        attempted += 1;
        if client.try_tag("d0000", "n", attempted).await {
            acknowledged = attempted;
        }
        deaths += 1;
        if rng.bool() {
            daemon.kill();
            daemon = world.start(&run);
        } else {
            hub.kill();
            hub = world.hub("state", &port).await;
        }
    }
    daemon.kill();
    let mut daemon = world.run_on("between.json", &["--sweep", "1s"]).await;
    for twin in fleet.converged(&daemon, &client).await {
        let others = if twin.device().as_str() == "d0000" { attempted } else { 0 };
        let writes = crate::support::service_writes(&twin.etag);
        assert!(writes <= fleet.level() + others, "{}: {writes} writes (seed {SEED})", twin.device());
    }
    let kept = geminid::twin::Section::Tags;
    let kept =
        crate::support::leaf(&client.twin("d0000").await, kept, &["n"]).map_or(0, |n| n.to_json().as_u64().unwrap());
    assert!((acknowledged..=attempted).contains(&kept), "{kept}, not {acknowledged}..={attempted} (seed {SEED})");
    assert!(between.seen().unguarded.is_empty(), "{:?}", between.seen().unguarded);
    assert!(deaths > 5, "{deaths} deaths");
    assert_few_complaints(&daemon, 0, TWINS + 2);
    assert_said_once(&daemon, 0);
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}
