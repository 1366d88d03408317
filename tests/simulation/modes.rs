//! What is done at all: modes, suspension, twins without seals, and guards of registrations and changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::Page;
use geminid::emulator::SimHub;
use geminid::plan::{DeclaredState, GuardKind, GuardLimits, Mode, RemovalPolicy, TwinManifest, TwinState};
use geminid::twin::{ModuleId, TwinRef};

use crate::fleet::{Daemon, device, manifest, object, options, settle, state, tags, twin};

const BOTH: &str = r#"{"a":1,"b":1}"#;
const LESS: &str = r#"{"a":1}"#;

async fn settled(count: usize) -> SimHub {
    let hub = SimHub::new();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(count, BOTH));
    settle(60).await;
    daemon.stop().await;
    hub
}

fn declare_too(state: &mut DeclaredState, id: &str, tags: &str) {
    state.twins.insert(twin(id), manifest(object(tags), RemovalPolicy::Clear));
}

fn plain(hub: &SimHub, id: &str) -> String {
    let mut tags = hub.twin(&device(id)).unwrap().tags;
    tags.remove("geminid");
    geminid::twin::Value::Object(tags).to_string()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_sweep_is_told_of_modules_too_where_there_are_some() {
    let hub = settled(1).await;
    let module = ModuleId::new("m").unwrap();
    hub.create_module(&device("d00"), &module).unwrap();
    for declares in [false, true, false] {
        let mut next = state(1, BOTH);
        if declares {
            let twin = TwinRef::module(device("d00"), module.clone());
            next.twins.insert(twin, manifest(object(BOTH), RemovalPolicy::Clear));
        }
        let mut options = options("demo", 1);
        options.wall_clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let daemon = Daemon::start(hub.clone(), options, &next);
        settle(3000).await;
        let told = ["device", "module"]
            .map(|kind| daemon.gauge("geminid_reconcile_last_success_timestamp_seconds", &[kind]) > 6.9);
        assert_eq!(told, [true, declares]);
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn observing_writes_nothing_and_says_what_differs() {
    let hub = settled(4).await;
    hub.edit(&device("d01"), &tags(r#"{"a":9}"#)).unwrap();
    let before = hub.applied().len();
    let mut options = options("demo", 4);
    options.policy.mode = Mode::Observe;
    let mut next = state(3, BOTH);
    next.twins.extend(state(1, r#"{"a":1,"c":1}"#).twins);
    declare_too(&mut next, "d05", BOTH);
    let daemon = Daemon::start(hub.clone(), options, &next);
    settle(3000).await;
    assert_eq!(hub.applied().len(), before);
    assert!((daemon.gauge("geminid_twins", &["drifted"]) - 3.0).abs() < 0.1);
    let text = prometheus::TextEncoder::new().encode_to_string(&daemon.registry.gather()).unwrap();
    for (series, sent) in [("twin_patches_total", true), ("twin_patches_dry_run_total", false)] {
        let none = text.contains(&format!("geminid_{series}{{hub=\"sim\",target=\"tags\"}} 0\n"));
        assert_eq!(none, sent, "planned, counted and not sent: {series}");
    }
    let page = Page { only: Some(twin("d00")), ..Page::default() };
    let report = daemon.commands.overview(page).await.unwrap().twins.remove(0);
    assert_eq!(report.condition.reason, "Drifted");
    assert_eq!(report.message, "+ tags.c = 1; - tags.b (was 1); mode observe writes nothing");
    let statuses = daemon.stop().await.statuses;
    let counts = [TwinState::InSync, TwinState::Drifted, TwinState::Missing].map(|state| statuses.count(state));
    // d00 and d01 differ, d03 has lost its manifest, d05 is not registered.
    assert_eq!(counts, [1, 3, 1]);
}

/// Unix time in all of a run, so that an age shows.
const NOW: u64 = 1_000_000_000;

fn oldest_astray(daemon: &Daemon) -> f64 {
    daemon.gauge("geminid_twin_out_of_sync_oldest_timestamp_seconds", &[])
}

#[tokio::test(start_paused = true)]
async fn the_twin_that_lacks_what_git_says_for_longest_has_its_age_told_and_a_healthy_fleet_none() {
    let hub = settled(3).await;
    let mut options = options("demo", 4);
    options.wall_clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let mut next = state(3, BOTH);
    let daemon = Daemon::start(hub.clone(), options, &next);
    settle(3000).await;
    assert!(oldest_astray(&daemon).abs() < 0.1);
    // Drift is corrected and nothing else: nobody is to be woken.
    hub.edit(&device("d01"), &tags(r#"{"a":9}"#)).unwrap();
    settle(3000).await;
    assert!(oldest_astray(&daemon).abs() < 0.1);
    // A device that is not there, and an hour later another one; both are tried again now and then.
    for id in ["d08", "d09"] {
        let absent = TwinManifest { create: false, ..(*manifest(object(BOTH), RemovalPolicy::Clear)).clone() };
        next.twins.insert(twin(id), Arc::new(absent));
        daemon.declare(&next);
        settle(3600).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "a second of this century is exact")]
    let now = NOW as f64;
    let age = now - oldest_astray(&daemon);
    assert!((3500.0..7210.0).contains(&age), "{age}");
    assert!(daemon.gauge("geminid_twins", &["missing"]) > 1.9);
    for id in ["d08", "d09"] {
        hub.create(&device(id)).unwrap();
    }
    settle(7300).await;
    assert!(oldest_astray(&daemon).abs() < 0.1, "{}", oldest_astray(&daemon));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn upserting_sets_and_registers_but_removes_nothing() {
    let hub = settled(3).await;
    let mut options = options("demo", 4);
    options.policy.mode = Mode::Upsert;
    let mut next = state(2, r#"{"a":2}"#);
    declare_too(&mut next, "d03", LESS);
    let daemon = Daemon::start(hub.clone(), options, &next);
    settle(3000).await;
    assert_eq!(plain(&hub, "d00"), r#"{"a":2,"b":1}"#);
    assert_eq!(plain(&hub, "d02"), BOTH);
    assert!(hub.twin(&device("d02")).unwrap().tags.contains_key("geminid"), "not even the seal");
    assert_eq!(plain(&hub, "d03"), LESS);
    let (reads, applied) = (hub.calls().reads, hub.applied().len());
    settle(3000).await;
    assert_eq!((hub.calls().reads, hub.applied().len()), (reads, applied));
    assert!(oldest_astray(&daemon).abs() < 0.1, "what the mode leaves nobody waits for");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::Held), 3);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_hub_is_not_even_asked() {
    let hub = settled(3).await;
    let (calls, applied) = (hub.calls(), hub.applied().len());
    let mut options = options("demo", 4);
    options.policy.suspend = Some("`hubs.sim.suspend` in the settings".to_owned());
    let contact = options.first_contact.clone();
    let daemon = Daemon::start(hub.clone(), options, &state(3, LESS));
    settle(3000).await;
    daemon.declare(&state(2, LESS));
    settle(3000).await;
    assert!(contact.is_cancelled(), "readiness waits for nobody");
    let after = hub.calls();
    assert_eq!((after.reads, after.queries, hub.applied().len()), (calls.reads, calls.queries, applied));
    let refused = daemon.commands.reconcile(None, "t".to_owned()).await.unwrap().unwrap_err();
    assert!(refused.0.contains("suspended: `hubs.sim.suspend`"), "{refused}");
    let report = daemon.commands.overview(Page { limit: 1, ..Page::default() }).await.unwrap().twins.remove(0);
    assert_eq!((report.condition.reason, report.condition.state), ("Suspended", TwinState::Suspended));
    assert!(report.message.contains("hubs.sim.suspend"), "{}", report.message);
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_seals_values_are_kept_and_nothing_is_ever_removed() {
    let hub = SimHub::new();
    (0..3).for_each(|n| drop(hub.create(&device(&format!("d{n:02}"))).unwrap()));
    hub.create(&device("stranger")).unwrap();
    hub.edit(&device("d02"), &tags(r#"{"gone":1}"#)).unwrap();
    let mut options = options("demo", 4);
    options.scope.seals = false;
    let mut next = state(2, BOTH);
    declare_too(&mut next, "d02", r#"{"a":1,"gone":null}"#);
    let daemon = Daemon::start(hub.clone(), options, &next);
    settle(700).await;
    assert_eq!(hub.twin(&device("d00")).unwrap().tags, object(BOTH));
    assert_eq!(hub.twin(&device("d02")).unwrap().tags, object(r#"{"a":1,"gone":1}"#));
    let reads = hub.calls().reads;
    hub.edit(&device("d01"), &tags(r#"{"a":7}"#)).unwrap();
    hub.edit(&device("stranger"), &tags(r#"{"a":7}"#)).unwrap();
    settle(700).await;
    assert_eq!((hub.calls().reads, plain(&hub, "d01").as_str()), (reads + 1, BOTH), "one row told of one change");
    let mut less = state(1, LESS);
    declare_too(&mut less, "d02", r#"{"a":1,"gone":null}"#);
    daemon.declare(&less);
    settle(700).await;
    assert_eq!((plain(&hub, "d00").as_str(), plain(&hub, "d01").as_str()), (BOTH, BOTH));
    let statuses = daemon.stop().await.statuses;
    assert_eq!((statuses.count(TwinState::InSync), statuses.count(TwinState::Held)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn more_registrations_than_the_guard_allows_are_held_whole_until_approved() {
    let hub = SimHub::new();
    (0..20).for_each(|n| drop(hub.create(&device(&format!("d{n:02}"))).unwrap()));
    let mut options = options("demo", 4);
    options.policy.guards = GuardLimits { creates: 0.3, ..GuardLimits::default() };
    let daemon = Daemon::start(hub.clone(), options, &state(40, BOTH));
    settle(60).await;
    assert_eq!(hub.twin(&device("d20")), None, "20 of 40 are missing, 12 may be registered");
    assert_eq!(plain(&hub, "d19"), BOTH, "what exists is not held");
    assert!(daemon.gauge("geminid_guard_tripped", &["creates"]) > 0.5);
    let hold = daemon.commands.overview(Page::default()).await.unwrap().holds.remove(0);
    assert_eq!((hold.guard, hold.twins), (GuardKind::Creates, 20));
    settle(2000).await;
    assert_eq!(hub.twin(&device("d39")), None);
    daemon.commands.approve(hold.approve.unwrap()).await.unwrap().unwrap();
    settle(60).await;
    assert!(daemon.gauge("geminid_guard_tripped", &["creates"]) < 0.5);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 40);
}

#[tokio::test(start_paused = true)]
async fn registrations_within_the_guard_go_on_once_the_others_are_known_to_exist() {
    let hub = SimHub::new();
    (0..30).for_each(|n| drop(hub.create(&device(&format!("d{n:02}"))).unwrap()));
    let mut options = options("demo", 1);
    options.policy.guards = GuardLimits { creates: 0.3, ..GuardLimits::default() };
    let daemon = Daemon::start(hub.clone(), options, &state(40, BOTH));
    settle(60).await;
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 40);
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_the_guard_allows_are_held_whole_and_write_nothing() {
    let hub = settled(40).await;
    let mut options = options("demo", 4);
    options.policy.guards = GuardLimits { updates: 0.5, ..GuardLimits::default() };
    let daemon = Daemon::start(hub.clone(), options, &state(40, BOTH));
    settle(60).await;
    let applied = hub.applied().len();
    let mut next = DeclaredState { revision: "r2".to_owned(), ..state(40, BOTH) };
    next.twins.extend(state(21, r#"{"a":2,"b":1}"#).twins);
    daemon.declare(&next);
    settle(2000).await;
    assert_eq!(hub.applied().len(), applied);
    assert!(daemon.gauge("geminid_guard_tripped", &["updates"]) > 0.5);
    let hold = daemon.commands.overview(Page::default()).await.unwrap().holds.remove(0);
    assert_eq!((hold.guard, hold.twins), (GuardKind::Updates, 21));
    daemon.commands.approve(hold.approve.unwrap()).await.unwrap().unwrap();
    settle(60).await;
    assert_eq!(plain(&hub, "d20"), r#"{"a":2,"b":1}"#);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 40);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_of_shape_passes_by_an_approval_of_its_own() {
    let hub = settled(3).await;
    hub.edit(&device("d01"), &tags(r#"{"c":{"x":1,"y":2}}"#)).unwrap();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(3, r#"{"a":1,"b":1,"c":3}"#));
    settle(60).await;
    let page = Page { only: Some(twin("d01")), ..Page::default() };
    let report = daemon.commands.overview(page).await.unwrap().twins.remove(0);
    assert_eq!(report.condition.reason, "ShapeConflict");
    let command = "geminid approve shape --hub sim --revision r --count 2 --twin 'd01'";
    assert!(report.message.contains("tags.c.x, tags.c.y") && report.message.contains(command), "{}", report.message);
    let approval = geminid::plan::Approval {
        hub: "sim".to_owned(),
        guard: GuardKind::Shape,
        twin: Some(twin("d01")),
        revision: "r".to_owned(),
        count: 2,
    };
    let elsewhere = geminid::plan::Approval { twin: Some(twin("d00")), ..approval.clone() };
    assert!(daemon.commands.approve(elsewhere).await.unwrap().is_err());
    daemon.commands.approve(approval).await.unwrap().unwrap();
    settle(60).await;
    assert_eq!(plain(&hub, "d01"), r#"{"a":1,"b":1,"c":3}"#);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 3);
}
