//! The disk is full, and has room again later. A limit of file size stands for it: the same calls fail, in one process.

use std::fs;

use tokio::net::TcpListener;

use crate::between::Between;
use crate::fleet::Fleet;
use crate::health::{Footprint, assert_few_complaints, assert_said_once};
use crate::limits::{Limit, limit, start_on_a_small_disk};
use crate::support::World;

const TWINS: usize = 16;
/// What the hub may still write: its log, but not its journal, which is longer by now.
const JOURNAL_BYTES_LEFT: u64 = 4096;
/// What the audit log may still take: a part of a line.
const AUDIT_BYTES_LEFT: u64 = 100;

#[tokio::test]
async fn an_audit_log_on_a_full_disk_stops_no_twin_and_gets_every_line_later() {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let between = Between::start(&world, "state", "between.json", "http://127.0.0.1:9").await;
    let hub = world.client("state");
    let run = ["run", "--hub-json", "between.json", "--manifests", "manifests", "--listen", "127.0.0.1:0"];
    let more = ["--sweep", "1s", "--audit-log", "audit.log"];
    let mut daemon = start_on_a_small_disk(&world, &[&run[..], &more].concat());
    daemon.wait_for("the daemon's announcement", || daemon.stdout().contains("stop")).await;
    fleet.assert_accounted(&daemon, &hub).await;
    let audit = || fs::read_to_string(world.path("audit.log")).unwrap();
    daemon.wait_for("audit lines", || audit().lines().count() >= 2 * TWINS).await;
    let before = Footprint::of(&daemon);

    let size = fs::metadata(world.path("audit.log")).unwrap().len();
    limit(&daemon, Limit::FileSize, Some(size + AUDIT_BYTES_LEFT));
    for _ in 0..3 {
        fleet.rise(&world);
        fleet.assert_accounted(&daemon, &hub).await;
    }
    daemon.says("cannot write the audit log").await;
    limit(&daemon, Limit::FileSize, None);
    daemon.says("the audit log can be written again").await;
    let written = || audit().lines().filter(|line| line.contains(r#""action":"patch""#)).count();
    daemon.wait_for("the missing lines", || written() >= 4 * TWINS).await;
    before.assert_back(&daemon, TWINS).await;
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());

    assert_eq!(written(), 4 * TWINS, "one line for each write, none lost and none twice");
    for line in audit().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(between.seen().unguarded.is_empty());
    assert_eq!(between.seen().writes, 4 * TWINS);
    assert_few_complaints(&daemon, 0, 1);
}

#[tokio::test]
async fn a_hub_on_a_full_disk_loses_nothing_that_it_acknowledged() {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let start = ["hub", "--hub-https", &port, "--hub-mqtts", "127.0.0.1:0", "--state-dir", "state"];
    let mut full = start_on_a_small_disk(&world, &start);
    full.wait_for("the hub's announcement", || full.stdout().contains("stop")).await;
    let between = Between::start(&world, "state", "between.json", "http://127.0.0.1:9").await;
    let hub = world.client("state");
    let mut daemon = world.run_on("between.json", &["--sweep", "1s"]).await;
    fleet.assert_accounted(&daemon, &hub).await;
    assert!(hub.try_tag("d0000", "kept", 1).await);
    let before = Footprint::of(&daemon);

    limit(&full, Limit::FileSize, Some(JOURNAL_BYTES_LEFT));
    assert!(!hub.try_tag("d0000", "lost", 1).await, "what cannot be kept is not acknowledged");
    fleet.rise(&world);
    daemon.wait_for("a complaint", || !crate::health::complaints(&daemon).is_empty()).await;
    limit(&full, Limit::FileSize, None);
    let said = full.stderr();
    assert_eq!(said.lines().filter(|line| line.contains(" ERROR ")).count(), 1, "{said}");
    full.kill();
    let _hub = world.hub("state", &port).await;

    for twin in fleet.converged(&daemon, &hub).await {
        let expected = if twin.device().as_str() == "d0000" { 3 } else { 2 };
        assert_eq!(crate::support::service_writes(&twin.etag), expected, "{}: {:?}", twin.device(), twin.tags);
    }
    let tags = format!("{:?}", hub.twin("d0000").await.tags);
    assert!(tags.contains("kept") && !tags.contains("lost"), "{tags}");
    assert!(between.seen().unguarded.is_empty());
    assert_few_complaints(&daemon, 0, TWINS + 2);
    assert_said_once(&daemon, 0);
    before.assert_back(&daemon, TWINS).await;
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}
