//! What the removals guard, the queue and the sweep owe to everybody, one case each.

use std::time::Duration;

use geminid::emulator::{Fault, SimHub, SimOperation};
use geminid::hub::HubError;
use geminid::plan::{DeclaredState, TwinState};
use geminid::twin::{Object, Value};

use crate::fleet::{Daemon, device, object, options, place, settle, state, tags, twin, yields};
use crate::witness::Poisoned;

const BOTH: &str = r#"{"a":1,"b":1}"#;
const LESS: &str = r#"{"a":1}"#;

/// A hub where `count` twins are as `state` declares them, sealed.
async fn settled(state: &DeclaredState) -> SimHub {
    let hub = SimHub::new();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), state);
    settle(30).await;
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), state.twins.len());
    hub
}

fn tags_of(hub: &SimHub, id: &str) -> Object {
    let mut tags = hub.twin(&device(id)).unwrap().tags;
    tags.remove("geminid");
    tags
}

/// How many of the twins `d00` and on have lost `b` or their seal.
fn losers(hub: &SimHub, count: usize) -> usize {
    let lost = |n: &usize| {
        let tags = hub.twin(&device(&format!("d{n:02}"))).unwrap().tags;
        !tags.contains_key("b") || !tags.contains_key("geminid")
    };
    (0..count).filter(lost).count()
}

#[tokio::test(start_paused = true)]
async fn no_worker_plans_on_a_state_before_the_guard_has_seen_it() {
    for steps in 0..40 {
        let hub = settled(&state(20, BOTH)).await;
        let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(20, BOTH));
        settle(30).await;
        daemon.declare(&state(20, r#"{"a":2,"b":1}"#));
        yields(steps).await;
        daemon.declare(&DeclaredState::default());
        settle(60).await;
        assert_eq!(losers(&hub, 20), 0, "emptied after {steps} steps");
    }
}

#[tokio::test(start_paused = true)]
async fn twins_whose_object_becomes_a_scalar_count_for_the_guard_and_those_whose_object_is_filled_do_not() {
    for (then, held) in [(r#"{"a":{"b":1,"c":1},"o":{"p":1}}"#, 0), (r#"{"a":5,"o":{}}"#, 40)] {
        let hub = settled(&state(40, r#"{"a":{"b":1},"o":{}}"#)).await;
        let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(40, r#"{"a":{"b":1},"o":{}}"#));
        settle(60).await;
        daemon.declare(&state(40, then));
        yields(4).await;
        let tripped = |daemon: &Daemon| daemon.gauge("geminid_guard_tripped", &["removals"]) > 0.5;
        assert_eq!(tripped(&daemon), held > 0, "{then}, before anybody planned");
        settle(3000).await;
        assert_eq!(tripped(&daemon), held > 0, "{then}");
        let written = (0..40).filter(|n| Value::Object(tags_of(&hub, &format!("d{n:02}"))).to_string() == then).count();
        assert_eq!(written, 40 - held, "{then}");
        assert_eq!(daemon.stop().await.statuses.count(TwinState::Held), held, "{then}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_sweep_whose_twins_could_not_be_read_is_not_judged() {
    let quota = HubError::Quota;
    let failed = HubError::Server { status: Some(500), message: "no".to_owned() };
    for error in [quota, failed] {
        let hub = settled(&state(40, BOTH)).await;
        (0..80).for_each(|_| hub.inject(SimOperation::Read, Fault::ErrorBefore(error.clone())));
        let _daemon = Daemon::start(hub.clone(), options("demo", 4), &state(40, LESS));
        settle(4 * 24 * 3600).await;
        assert_eq!(losers(&hub, 40), 0, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_hides_something_judges_no_sweep() {
    let hub = settled(&state(40, BOTH)).await;
    let mut hidden = state(40, LESS);
    hidden.frozen.unknown.insert(place());
    hidden.frozen.broken.insert(place());
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &hidden);
    settle(1000).await;
    let (reads, applied) = (hub.calls().reads, hub.applied().len());
    settle(5000).await;
    assert_eq!((hub.calls().reads, hub.applied().len()), (reads, applied), "what is held is not read again");
    daemon.declare(&state(40, LESS));
    settle(5000).await;
    assert_eq!(losers(&hub, 40), 0);
    let mut few = state(40, BOTH);
    few.twins.extend(state(3, LESS).twins);
    daemon.declare(&few);
    settle(5).await;
    assert_eq!(losers(&hub, 40), 3, "what the guard lets pass goes on");
}

#[tokio::test(start_paused = true)]
async fn a_mass_removal_stays_held_for_days_and_costs_no_reads() {
    let hub = settled(&state(40, BOTH)).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(40, BOTH));
    settle(30).await;
    daemon.declare(&state(40, LESS));
    settle(700).await;
    let reads = hub.calls().reads;
    settle(20 * 3600).await;
    assert_eq!(hub.calls().reads, reads, "until somebody acts nothing can have changed");
    settle(3 * 24 * 3600).await;
    assert_eq!(losers(&hub, 40), 0);
}

#[tokio::test(start_paused = true)]
async fn devices_that_are_gone_lose_nothing() {
    let hub = settled(&state(30, BOTH)).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(30, BOTH));
    settle(30).await;
    for n in 12..30 {
        hub.delete(&device(&format!("d{n:02}"))).unwrap();
    }
    daemon.declare(&state(12, BOTH));
    settle(30).await;
    let mut less = state(12, BOTH);
    less.twins.extend(state(1, LESS).twins);
    daemon.declare(&less);
    settle(5).await;
    assert_eq!(tags_of(&hub, "d00"), object(LESS), "nothing holds this removal");
    assert_eq!(daemon.stop().await.statuses.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn one_twin_that_always_fails_does_not_hold_the_others() {
    let transport = HubError::Transport { message: "reset".to_owned(), timeout: false };
    let server = HubError::Server { status: Some(500), message: "no".to_owned() };
    for error in [Some(transport), Some(server), None] {
        let hub = settled(&state(20, BOTH)).await;
        (0..20).for_each(|n| drop(hub.edit(&device(&format!("d{n:02}")), &tags(r#"{"a":9}"#))));
        let hub = Poisoned { hub, device: device("d00"), error: error.clone() };
        let mut less = state(20, BOTH);
        less.twins.extend(state(2, LESS).twins);
        let daemon = Daemon::start(hub.clone(), options("demo", 1), &less);
        settle(300).await;
        assert_eq!(tags_of(&hub.hub, "d19"), object(BOTH), "{error:?}");
        assert_eq!(tags_of(&hub.hub, "d01"), object(LESS), "the removal goes on in spite of {error:?}");
        assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 19);
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_pass_ends_whatever_happens_to_its_tasks() {
    for error in [None, Some(HubError::Quota), Some(HubError::PreconditionFailed)] {
        let hub = SimHub::new();
        let poisoned = Poisoned { hub: hub.clone(), device: device("d00"), error };
        let mut options = options("demo", 2);
        options.single_pass = true;
        let mut daemon = Box::pin(Daemon::start(poisoned, options, &state(3, LESS)).finished());
        let ended = tokio::time::timeout(Duration::from_secs(3600), &mut daemon).await.unwrap();
        assert_eq!(ended.statuses.count(TwinState::InSync), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_known_by_its_row_alone_is_not_brought_back_either() {
    let hub = settled(&state(3, LESS)).await;
    let reads = hub.calls().reads;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(3, LESS));
    settle(30).await;
    assert_eq!(hub.calls().reads, reads);
    hub.delete(&device("d01")).unwrap();
    settle(2000).await;
    assert_eq!(hub.twin(&device("d01")), None);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::Held), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_sweep_says_never_overwrites_what_was_learnt_later() {
    // Four pages long, so that a reconcile may begin and end while the sweep is under way.
    const TWINS: usize = 320;
    for steps in 0..10 {
        let hub = settled(&state(TWINS, LESS)).await;
        let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(TWINS, LESS));
        yields(steps).await;
        // One manifest goes, another now asks for what is not ours to destroy.
        hub.edit(&device("d03"), &tags(r#"{"c":{"theirs":1}}"#)).unwrap();
        let mut next = state(TWINS - 1, LESS);
        next.twins.insert(twin("d03"), crate::fleet::manifest(object(r#"{"a":1,"c":1}"#), Default::default()));
        daemon.declare(&next);
        settle(2000).await;
        let statuses = daemon.stop().await.statuses;
        let counts = (statuses.len(), statuses.count(TwinState::InSync), statuses.count(TwinState::Held));
        assert_eq!(counts, (TWINS - 1, TWINS - 2, 1), "changed after {steps} steps");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_the_hub_refused_is_sent_again_only_when_something_changed() {
    let hub = SimHub::new();
    hub.create(&device("d00")).unwrap();
    let refused = HubError::Rejected { status: 400, code: "ArgumentInvalid".to_owned(), message: "no".to_owned() };
    hub.inject(SimOperation::Patch, Fault::ErrorBefore(refused.clone()));
    hub.inject(SimOperation::Patch, Fault::ErrorBefore(refused));
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(1, LESS));
    settle(7200).await;
    assert_eq!(hub.calls().patches, 1);
    hub.edit(&device("d00"), &tags(r#"{"theirs":1}"#)).unwrap();
    settle(7200).await;
    assert_eq!(hub.calls().patches, 2, "the twin changed");
    daemon.declare(&state(1, BOTH));
    settle(5).await;
    assert_eq!(hub.calls().patches, 3, "the manifest changed");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 1);
}

#[tokio::test(start_paused = true)]
async fn twins_count_as_pending_before_the_hub_has_answered() {
    let hub = SimHub::new();
    let away = HubError::Transport { message: "refused".to_owned(), timeout: false };
    (0..100).for_each(|_| hub.inject(SimOperation::Query, Fault::ErrorBefore(away.clone())));
    (0..100).for_each(|_| hub.inject(SimOperation::Read, Fault::ErrorBefore(away.clone())));
    let daemon = Daemon::start(hub, options("demo", 2), &state(3, LESS));
    settle(20).await;
    let pending = |daemon: &Daemon| {
        let families = daemon.registry.gather();
        let twins = families.iter().find(|family| family.name() == "geminid_twins").unwrap();
        let is_pending =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|l| l.value() == "pending");
        twins.get_metric().iter().filter(is_pending).map(|metric| metric.get_gauge().get_value()).sum::<f64>()
    };
    assert!((pending(&daemon) - 3.0).abs() < 0.1);
}
