//! Descriptors run out, and are there again later.

use tokio::net::{TcpListener, TcpStream};

use crate::between::{Between, Misdeed};
use crate::fleet::Fleet;
use crate::health::{Footprint, assert_few_complaints, assert_said_once, complaints};
use crate::limits::{Limit, limit};
use crate::support::World;

const TWINS: usize = 16;
/// Connections of somebody else, far more than the hub may have then.
const CROWD: usize = 64;
/// Descriptors that the hub may still open.
const LEFT: u64 = 4;

#[tokio::test]
async fn a_daemon_without_descriptors_keeps_its_state_and_goes_on_when_it_has_some() {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let between = Between::start(&world, "state", "between.json", "http://127.0.0.1:9").await;
    let hub = world.client("state");
    let mut daemon = world.run_on("between.json", &["--sweep", "1s"]).await;
    fleet.assert_accounted(&daemon, &hub).await;
    let before = Footprint::of(&daemon);

    // Its connections end, so that it needs new ones, and it has to open files.
    limit(&daemon, Limit::Descriptors, Some(3));
    between.misbehave(Some(Misdeed::Reset));
    fleet.rise(&world);
    daemon.wait_for("complaints of files and of the hub", || complaints(&daemon).len() >= 2).await;
    between.misbehave(None);
    limit(&daemon, Limit::Descriptors, None);

    fleet.assert_accounted(&daemon, &hub).await;
    assert!(between.seen().unguarded.is_empty());
    assert_few_complaints(&daemon, 0, TWINS + 3);
    assert_said_once(&daemon, 0);
    before.assert_back(&daemon, TWINS).await;
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}

#[tokio::test]
async fn a_hub_without_descriptors_serves_again_when_the_crowd_has_left() {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let process = world.hub("state", "127.0.0.1:0").await;
    let address = process.announced("embedded hub ").trim_start_matches("https://").to_owned();
    let hub = world.client("state");
    let mut daemon = world.run_on("state/hub.json", &["--sweep", "1s"]).await;
    fleet.assert_accounted(&daemon, &hub).await;
    let before = Footprint::of(&process);

    limit(&process, Limit::Descriptors, Some(before.descriptors as u64 + LEFT));
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(&address).await.unwrap());
    }
    fleet.rise(&world);
    let said = || process.stderr().lines().count();
    let before_said = said();
    drop(crowd);
    limit(&process, Limit::Descriptors, None);

    fleet.assert_accounted(&daemon, &hub).await;
    assert!(said() - before_said < CROWD, "{}", process.stderr());
    before.assert_back(&process, TWINS).await;
    assert_few_complaints(&daemon, 0, TWINS + 2);
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
    drop(TcpListener::bind(&address).await.map(|_| panic!("the hub does not listen any more")));
}
