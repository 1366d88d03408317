//! Others who never stop: a leaf that is written again and again, a seal that is deleted, a second process of one owner.

use geminid::controller::Page;
use geminid::emulator::SimHub;
use geminid::plan::{DeclaredState, TwinState};
use geminid::twin::{MergePatch, Value};

use crate::fleet::{Daemon, device, object, options, settle, state, tags, twin};

const ONE: &str = r#"{"a":1}"#;
/// Just over the time from one sweep to the next.
const SWEEP: u64 = 610;

async fn settled(count: usize) -> SimHub {
    let hub = SimHub::new();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(count, ONE));
    settle(60).await;
    daemon.stop().await;
    hub
}

fn value(hub: &SimHub, id: &str) -> Value {
    hub.twin(&device(id)).unwrap().tags["a"].clone()
}

async fn reason(daemon: &Daemon, id: &str) -> (String, String) {
    let page = Page { only: Some(twin(id)), ..Page::default() };
    let report = daemon.commands.overview(page).await.unwrap().twins.remove(0);
    (report.condition.reason.to_owned(), report.message)
}

#[tokio::test(start_paused = true)]
async fn a_leaf_somebody_keeps_writing_is_left_alone_after_three_corrections_and_the_rest_goes_on() {
    let hub = settled(3).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(3, ONE));
    settle(30).await;
    for round in 0..4 {
        hub.edit(&device("d00"), &tags(r#"{"a":9}"#)).unwrap();
        hub.edit(&device("d01"), &tags(&format!(r#"{{"theirs":{round}}}"#))).unwrap();
        settle(SWEEP).await;
        let corrected = value(&hub, "d00") == Value::from(1);
        assert_eq!(corrected, round < 3, "round {round}");
    }
    let (why, message) = reason(&daemon, "d00").await;
    assert_eq!(why, "Contested");
    assert!(message.contains("somebody else keeps writing tags.a"), "{message}");
    assert!((daemon.gauge("geminid_contested_twins", &[]) - 1.0).abs() < 0.1);
    assert_eq!(reason(&daemon, "d01").await.0, "InSync", "a leaf of their own is no quarrel");
    hub.edit(&device("d02"), &tags(r#"{"a":9}"#)).unwrap();
    settle(SWEEP).await;
    assert_eq!(value(&hub, "d02"), Value::from(1), "nothing else slows down");
    // One more try once the pause is over, and then peace.
    settle(2 * 3600).await;
    assert_eq!(value(&hub, "d00"), Value::from(1));
    assert!(daemon.gauge("geminid_contested_twins", &[]) < 0.1);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 3);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_git_ends_a_quarrel_and_is_none() {
    let hub = settled(2).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(2, ONE));
    settle(30).await;
    for n in 2..12 {
        daemon.declare(&state(2, &format!(r#"{{"a":{n}}}"#)));
        settle(60).await;
        assert_eq!(value(&hub, "d00"), Value::from(n), "Git may change its mind as often as it likes");
    }
    for _ in 0..4 {
        hub.edit(&device("d00"), &tags(r#"{"a":99}"#)).unwrap();
        settle(SWEEP).await;
    }
    assert_eq!(reason(&daemon, "d00").await.0, "Contested");
    daemon.declare(&state(2, r#"{"a":50}"#));
    settle(60).await;
    assert_eq!((value(&hub, "d00"), reason(&daemon, "d00").await.0.as_str()), (Value::from(50), "Applied"));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_is_deleted_three_times_is_not_written_again() {
    let hub = settled(2).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(2, ONE));
    settle(30).await;
    hub.edit(&device("d00"), &tags(r#"{"other":1}"#)).unwrap();
    settle(SWEEP).await;
    let sealed = |hub: &SimHub| hub.twin(&device("d00")).unwrap().tags.contains_key("geminid");
    for round in 0..3 {
        hub.edit(&device("d00"), &tags(r#"{"geminid":null}"#)).unwrap();
        settle(SWEEP).await;
        assert_eq!(sealed(&hub), round < 2, "round {round}");
    }
    let applied = hub.applied().len();
    settle(2 * SWEEP).await;
    assert_eq!(hub.applied().len(), applied);
    let (why, message) = reason(&daemon, "d00").await;
    assert_eq!(why, "Contested");
    assert!(message.contains("deleting our seal"), "{message}");
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_same_owner_with_other_manifests_is_found_out() {
    let hub = settled(3).await;
    let first = Daemon::start(hub.clone(), options("demo", 2), &state(3, ONE));
    settle(30).await;
    // Known by a read: somebody touched it.
    hub.edit(&device("d00"), &tags(r#"{"theirs":1}"#)).unwrap();
    settle(SWEEP).await;
    let second = Daemon::start(hub.clone(), options("demo", 2), &state(3, r#"{"a":2}"#));
    settle(20).await;
    assert_eq!(value(&hub, "d00"), Value::from(2));
    second.stop().await;
    settle(SWEEP).await;
    assert_eq!(reason(&first, "d00").await.0, "DuplicateOwner");
    assert_eq!(value(&hub, "d00"), Value::from(2), "nobody fights");
    // It is gone: after a while the twin is ours again.
    settle(2 * 3600).await;
    assert_eq!((value(&hub, "d00"), first.stop().await.statuses.count(TwinState::InSync)), (Value::from(1), 3));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_brings_an_old_seal_back_is_no_second_process() {
    let hub = settled(1).await;
    let old = hub.twin(&device("d00")).unwrap().tags["geminid"].clone();
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(1, ONE));
    settle(30).await;
    daemon.declare(&state(1, r#"{"a":2}"#));
    settle(30).await;
    let restored = [("geminid".to_owned(), old), ("a".to_owned(), Value::from(1))];
    hub.edit(&device("d00"), &MergePatch { tags: Some(restored.into()), desired: None }).unwrap();
    settle(SWEEP).await;
    assert_eq!(value(&hub, "d00"), Value::from(2));
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspension_at_run_time_is_in_the_seal_and_outlives_the_process() {
    let hub = settled(2).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(2, ONE));
    settle(30).await;
    for (id, reason, why) in [("nobody", "x", "not managed"), ("d00", "", "1 to 256"), ("d00", "a\nb", "control")] {
        let refused = daemon.commands.suspend(twin(id), reason.to_owned()).await.unwrap().unwrap_err();
        assert!(refused.0.contains(why), "{refused}");
    }
    daemon.commands.suspend(twin("d00"), "bench test".to_owned()).await.unwrap().unwrap();
    settle(5).await;
    assert_eq!(reason(&daemon, "d00").await, ("Suspended".to_owned(), "held: suspended: bench test".to_owned()));
    daemon.stop().await;
    hub.edit(&device("d00"), &tags(r#"{"a":7}"#)).unwrap();
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(2, r#"{"a":2}"#));
    settle(SWEEP).await;
    assert_eq!((value(&hub, "d00"), value(&hub, "d01")), (Value::from(7), Value::from(2)));
    assert_eq!(reason(&daemon, "d00").await.0, "Suspended");
    let reads = hub.calls().reads;
    settle(3 * SWEEP).await;
    assert_eq!(hub.calls().reads, reads, "untouched, it is not read again");
    daemon.declare(&DeclaredState { revision: "r2".to_owned(), ..state(2, r#"{"a":3}"#) });
    settle(30).await;
    assert_eq!(value(&hub, "d00"), Value::from(7), "not even Git");
    daemon.commands.resume(twin("d00")).await.unwrap().unwrap();
    settle(30).await;
    assert_eq!(value(&hub, "d00"), Value::from(3));
    let mut kept = hub.twin(&device("d00")).unwrap().tags;
    kept.remove("geminid");
    assert_eq!(kept, object(r#"{"a":3}"#));
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 2);
}
