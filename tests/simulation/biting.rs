//! What the histories would miss if the witness did not bite: each thing it forbids, done once.

use std::sync::{Arc, Mutex};

use geminid::emulator::SimHub;
use geminid::hub::{ReadTwins as _, WriteTwins as _};
use geminid::plan::{DeclaredState, GuardLimits, Mode, RemovalPolicy, Suspend, TwinManifest};
use geminid::twin::{MergePatch, Twin};

use crate::fleet::{device, manifest, object, tags, twin};
use crate::owned::Settings;
use crate::repository::{DEVICES, id};
use crate::witness::{Deeds, Witness};

const FREE: Settings = Settings::open(None);

/// A hub with devices that have the tag `foreign`, and one owner who declares the tag `a` of each.
fn witness(settings: Settings) -> Witness {
    witness_of(settings, r#"{"a":1}"#)
}

fn witness_of(settings: Settings, declared: &str) -> Witness {
    let hub = SimHub::new();
    let mut state = DeclaredState::default();
    for n in 0..DEVICES {
        hub.create(&device(&id(n))).unwrap();
        hub.edit(&device(&id(n)), &tags(r#"{"a":0,"foreign":1}"#)).unwrap();
        state.twins.insert(twin(&id(n)), manifest(object(declared), RemovalPolicy::Clear));
    }
    let state = Arc::new(state);
    let states = Arc::new(Mutex::new([Arc::clone(&state), state]));
    Witness { hub, owner: "demo", states, deeds: Deeds::new(settings) }
}

async fn patch(hub: &Witness, n: usize, patch: &MergePatch) {
    let live: Twin = hub.hub.twin(&device(&id(n))).unwrap();
    hub.patch_twin(&twin(&id(n)), patch, &live.etag).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_passes() {
    let hub = witness(FREE);
    for n in 0..DEVICES {
        patch(&hub, n, &tags(r#"{"a":1,"geminid":{"demo":{"v":1}}}"#)).await;
    }
    hub.deeds.lock().unwrap().assert_allowed();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "is not ours")]
async fn a_foreign_leaf() {
    patch(&witness(FREE), 0, &tags(r#"{"foreign":2}"#)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "only our own seal is ours")]
async fn a_foreign_seal() {
    let hub = witness(FREE);
    hub.hub.edit(&device(&id(0)), &tags(r#"{"geminid":{"rival":{"v":1}}}"#)).unwrap();
    patch(&hub, 0, &tags(r#"{"geminid":{"rival":null}}"#)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "written in mode observe")]
async fn a_write_in_observe() {
    patch(&witness(Settings { mode: Mode::Observe, ..FREE }), 0, &tags(r#"{"a":1}"#)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "written in mode observe")]
async fn a_registration_in_observe() {
    witness(Settings { mode: Mode::Observe, ..FREE }).create_device(&device("new")).await.unwrap();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "loses something")]
async fn a_removal_in_upsert() {
    patch(&witness(Settings { mode: Mode::Upsert, ..FREE }), 0, &tags(r#"{"a":null}"#)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "is suspended")]
async fn a_write_in_a_suspended_twin() {
    let hub = witness(FREE);
    let suspend = Some(Box::new(Suspend { reason: "bench test".to_owned(), until: None }));
    for state in hub.states.lock().unwrap().iter_mut() {
        let mut suspended = DeclaredState::clone(state);
        let manifest = suspended.twins.get(&twin(&id(0))).unwrap().clone();
        let manifest = TwinManifest { suspend: suspend.clone(), ..TwinManifest::clone(&manifest) };
        suspended.twins.insert(twin(&id(0)), Arc::new(manifest));
        *state = Arc::new(suspended);
    }
    patch(&hub, 0, &tags(r#"{"a":1}"#)).await;
}

async fn guarded(guards: GuardLimits, change: &str) {
    let hub = witness(Settings { guards: GuardLimits { from: 2, ..guards }, ..FREE });
    for n in 0..3 {
        patch(&hub, n, &tags(change)).await;
    }
    hub.deeds.lock().unwrap().assert_allowed();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "more lost something")]
async fn more_removals_than_the_guard_allows() {
    guarded(GuardLimits { removals: 0.0, ..GuardLimits::OPEN }, r#"{"a":null}"#).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "more were changed")]
async fn more_changes_than_the_guard_allows() {
    guarded(GuardLimits { updates: 0.0, ..GuardLimits::OPEN }, r#"{"a":1}"#).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_a_removal_empties_is_no_change() {
    let guards = GuardLimits { updates: 0.0, from: 2, ..GuardLimits::OPEN };
    let hub = witness_of(Settings { guards, ..FREE }, r#"{"a":{"b":null}}"#);
    for n in 0..3 {
        hub.hub.edit(&device(&id(n)), &tags(r#"{"a":{"b":1}}"#)).unwrap();
        patch(&hub, n, &tags(r#"{"a":{"b":null},"geminid":{"demo":{"v":1}}}"#)).await;
    }
    hub.deeds.lock().unwrap().assert_allowed();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "more were registered")]
async fn more_registrations_than_the_guard_allows() {
    let guards = GuardLimits { creates: 0.0, from: 2, ..GuardLimits::OPEN };
    let hub = witness(Settings { guards, ..FREE });
    for new in ["x", "y", "z"] {
        hub.create_device(&device(new)).await.unwrap();
    }
    hub.deeds.lock().unwrap().assert_allowed();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "are allowed")]
async fn more_calls_than_the_budget_allows() {
    let hub = witness(Settings { share: Some(0.02), ..FREE });
    for _ in 0..200 {
        hub.get_twin(&twin(&id(0))).await.unwrap();
    }
    hub.deeds.lock().unwrap().assert_allowed();
}
