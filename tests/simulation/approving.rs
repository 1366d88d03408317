//! What people let pass, and what they are told.

use geminid::controller::{Overview, Page};
use geminid::emulator::SimHub;
use geminid::plan::{Approval, DeclaredState, GuardKind, Synced, TwinState};

use crate::fleet::{Daemon, device, options, settle, state, tags, twin};

const BOTH: &str = r#"{"a":1,"b":1}"#;
const LESS: &str = r#"{"a":1}"#;

fn revised(state: DeclaredState, revision: &str) -> DeclaredState {
    DeclaredState { revision: revision.to_owned(), ..state }
}

async fn started(count: usize) -> (SimHub, Daemon) {
    let hub = SimHub::new();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(count, BOTH));
    settle(60).await;
    (hub, daemon)
}

async fn overview(daemon: &Daemon) -> Overview {
    daemon.commands.overview(Page { limit: 5, ..Page::default() }).await.unwrap()
}

fn with_b(hub: &SimHub, count: usize) -> usize {
    let has = |n: &usize| hub.twin(&device(&format!("d{n:02}"))).unwrap().tags.contains_key("b");
    (0..count).filter(has).count()
}

#[tokio::test(start_paused = true)]
async fn an_approval_lets_pass_what_was_looked_at_and_nothing_else() {
    let (hub, daemon) = started(40).await;
    assert_eq!(overview(&daemon).await.holds, []);
    daemon.declare(&revised(state(40, LESS), "r2"));
    settle(60).await;
    assert_eq!(with_b(&hub, 40), 40);
    assert!(daemon.gauge("geminid_guard_tripped", &["removals"]) > 0.5);
    assert!((daemon.gauge("geminid_removals_held", &[]) - 40.0).abs() < 0.1);
    let held = overview(&daemon).await.holds.remove(0);
    let approval = held.approve.clone().unwrap();
    assert_eq!(approval.to_string(), "geminid approve removals --hub sim --revision r2 --count 40");
    assert!(held.message.contains(&approval.to_string()), "{}", held.message);
    for (wrong, why) in [
        (Approval { revision: "r".to_owned(), ..approval.clone() }, "at r2 by now"),
        (Approval { count: 39, ..approval.clone() }, "40 wait, not 39"),
        (Approval { guard: GuardKind::Empty, ..approval.clone() }, "holds nothing"),
        (Approval { hub: "other".to_owned(), ..approval.clone() }, "this is hub sim"),
    ] {
        let refused = daemon.commands.approve(wrong).await.unwrap().unwrap_err();
        assert!(refused.0.contains(why), "{refused}");
    }
    settle(60).await;
    assert_eq!(with_b(&hub, 40), 40);
    let approved = daemon.commands.approve(approval).await.unwrap().unwrap();
    assert_eq!((approved.guard, approved.count), (GuardKind::Removals, 40));
    settle(60).await;
    assert_eq!(with_b(&hub, 40), 0);
    assert!(daemon.gauge("geminid_guard_tripped", &["removals"]) < 0.5);
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 40);
}

#[tokio::test(start_paused = true)]
async fn an_empty_state_is_held_at_any_size_until_that_is_approved() {
    let (hub, daemon) = started(3).await;
    daemon.declare(&revised(DeclaredState::default(), "r2"));
    settle(1000).await;
    assert_eq!(with_b(&hub, 3), 3);
    assert!(daemon.gauge("geminid_guard_tripped", &["empty"]) > 0.5);
    let approval = overview(&daemon).await.holds.remove(0).approve.unwrap();
    assert_eq!(approval.to_string(), "geminid approve empty --hub sim --revision r2 --count 3");
    daemon.commands.approve(approval).await.unwrap().unwrap();
    settle(60).await;
    assert_eq!((with_b(&hub, 3), daemon.stop().await.statuses.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_approval_ends_after_an_hour() {
    let (hub, daemon) = started(40).await;
    daemon.declare(&revised(state(40, LESS), "r3"));
    settle(60).await;
    let approval = overview(&daemon).await.holds.remove(0).approve.unwrap();
    daemon.commands.approve(approval).await.unwrap().unwrap();
    settle(60).await;
    assert_eq!(with_b(&hub, 40), 0);
    daemon.declare(&revised(state(40, BOTH), "r2"));
    settle(3700).await;
    daemon.declare(&revised(state(40, LESS), "r3"));
    settle(60).await;
    assert_eq!(with_b(&hub, 40), 40);
    assert!(daemon.gauge("geminid_guard_tripped", &["removals"]) > 0.5);
}

#[tokio::test(start_paused = true)]
async fn every_twin_has_a_condition_with_the_hash_it_was_seen_with() {
    let (hub, daemon) = started(12).await;
    hub.delete(&device("d03")).unwrap();
    settle(700).await;
    let first = overview(&daemon).await;
    assert_eq!((first.total, first.twins.len(), first.up), (12, 5, true));
    let held = &first.twins[3];
    assert_eq!((held.condition.reason, held.condition.synced), ("DeletedOutside", Synced::False));
    assert_eq!(held.observed, None);
    let good = &first.twins[2];
    assert_eq!((good.condition.synced, good.failures, good.message.as_str()), (Synced::True, 0, ""));
    let sealed = hub.twin(&device("d02")).unwrap();
    let hash = sealed.tags["geminid"].get(["demo", "h"]).unwrap().as_str().unwrap().to_owned();
    assert_eq!(good.observed.as_ref().map(|hash| hash.as_str().to_owned()), Some(hash));
    let next = daemon.commands.overview(Page { after: Some(twin("d04")), limit: 100, only: None }).await.unwrap();
    assert_eq!((next.twins.len(), next.twins[0].twin.clone()), (7, twin("d05")));
    let one = daemon.commands.overview(Page { only: Some(twin("d11")), ..Page::default() }).await.unwrap();
    assert_eq!(one.twins.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_reconciles_one_twin_or_sweeps_and_refuses_a_stranger() {
    let (hub, daemon) = started(3).await;
    hub.edit(&device("d01"), &tags(r#"{"b":9}"#)).unwrap();
    hub.edit(&device("d02"), &tags(r#"{"b":9}"#)).unwrap();
    daemon.commands.reconcile(Some(twin("d01")), "t".to_owned()).await.unwrap().unwrap();
    settle(2).await;
    let tag = |id: &str| hub.twin(&device(id)).unwrap().tags["b"].to_string();
    assert_eq!((tag("d01"), tag("d02")), ("1".to_owned(), "9".to_owned()));
    daemon.commands.reconcile(None, "t".to_owned()).await.unwrap().unwrap();
    settle(2).await;
    assert_eq!(tag("d02"), "1");
    let refused = daemon.commands.reconcile(Some(twin("nobody")), "t".to_owned()).await.unwrap().unwrap_err();
    assert!(refused.0.contains("not managed"), "{refused}");
    let commands = daemon.commands.clone();
    daemon.stop().await;
    assert!(commands.reconcile(None, "t".to_owned()).await.is_err());
}
