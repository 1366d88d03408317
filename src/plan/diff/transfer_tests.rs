//! What changes its owner, what stays, and that no value ever moves.

use super::*;
use crate::plan::Declaration;
use crate::plan::diff::tests::{applied, declared, declared_of, live, object, plan, scope, sealed, shown};
use crate::plan::plan_twin;

/// `live` once `owner` has applied `declaration` to it.
fn sealed_by(owner: &str, declaration: &Declaration, live: &Twin) -> Twin {
    applied(live, &plan_twin(&scope(owner), declaration, live, &Permits::ALL))
}

fn adopt(declared: &Declaration, live: &Twin, undeclared: bool) -> Option<TransferPlan> {
    let from = Owner::new("legacy").unwrap();
    plan_transfer(&scope("demo"), &Transfer::Adopt { from, undeclared }, declared.declared(), live)
}

fn release(live: &Twin) -> Option<TransferPlan> {
    plan_transfer(&scope("demo"), &Transfer::Release, None, live)
}

fn names(leaves: &[Leaf]) -> Vec<String> {
    leaves.iter().map(ToString::to_string).collect()
}

fn without_seals(twin: &Twin) -> Twin {
    let mut bare = applied(twin, &TwinPlan::nothing(None));
    bare.tags.remove(SEAL_KEY);
    bare.etag = live("{}", "{}").etag;
    bare
}

fn owns(owner: &str, twin: &Twin, tag: &str) -> bool {
    let hash = PathHash::of(owner, &scope(owner).host, &twin.twin_ref, Section::Tags, &Path::new([tag]));
    SealState::read(twin, owner).seal().is_some_and(|seal| seal.owned.contains(&hash))
}

#[test]
fn adoption_moves_what_is_declared_here_from_one_seal_to_the_other_in_one_patch_without_a_value() {
    let twin = sealed_by("legacy", &declared(r#"{"a":1,"b":{"c":2},"x":9}"#, r#"{"p":1}"#), &live("{}", "{}"));
    let ours = declared(r#"{"a":5,"b":7}"#, r#"{"p":1}"#);
    let conflicts = shown(&plan(&ours, &twin));
    assert!(conflicts.iter().any(|held| held.contains("owner legacy has another value")), "{conflicts:?}");
    let adoption = adopt(&ours, &twin, false).unwrap();
    assert_eq!(names(&adoption.moved), ["tags.a", "tags.b.c", "properties.desired.p"]);
    assert_eq!(names(&adoption.kept), ["tags.x"]);
    let after = applied(&twin, &adoption.plan);
    assert_eq!(without_seals(&after), without_seals(&twin));
    assert!(owns("demo", &after, "a") && !owns("legacy", &after, "a") && owns("legacy", &after, "x"));
    assert_eq!(adopt(&ours, &after, false), None, "nothing is left to adopt");
    let settled = sealed(&ours, &after);
    assert_eq!((settled.tags["a"].to_string(), settled.tags["b"].to_string()), ("5".to_owned(), "7".to_owned()));
    assert!(plan(&ours, &settled).in_sync());
    // It is ours for good: declared no more, it goes.
    assert!(!sealed(&declared("{}", "{}"), &settled).tags.contains_key("a"));
}

#[test]
fn what_nobody_declares_here_moves_only_when_asked_for_and_then_the_next_pass_removes_it() {
    let twin = sealed_by("legacy", &declared(r#"{"a":1,"x":9}"#, "{}"), &live("{}", "{}"));
    let ours = declared(r#"{"a":1}"#, "{}");
    let adoption = adopt(&ours, &twin, true).unwrap();
    assert_eq!((names(&adoption.moved), adoption.kept.len()), (vec!["tags.a".to_owned(), "tags.x".to_owned()], 0));
    let after = applied(&twin, &adoption.plan);
    assert_eq!(SealState::read(&after, "legacy"), SealState::Absent, "an empty seal goes");
    assert_eq!(shown(&plan(&ours, &after)), ["- tags.x (was 9)"]);
    let nobody = Declaration::Absent;
    assert_eq!(adopt(&nobody, &twin, false), None);
    assert_eq!(names(&adopt(&nobody, &twin, true).unwrap().moved), ["tags.a", "tags.x"]);
}

#[test]
fn what_the_other_seal_holds_and_does_not_exist_moves_where_it_is_declared_and_else_goes_with_the_seal() {
    let mut twin = sealed_by("legacy", &declared(r#"{"a":1,"b":{},"gone":2}"#, "{}"), &live("{}", "{}"));
    twin.tags.remove("a");
    twin.tags.remove("gone");
    twin.tags.insert("b".to_owned(), Value::Object(object(r#"{"theirs":1}"#)));
    let ours = declared(r#"{"a":2,"b":{"mine":1}}"#, "{}");
    let adoption = adopt(&ours, &twin, false).unwrap();
    assert_eq!(
        (names(&adoption.moved), names(&adoption.kept)),
        (vec!["tags.a".to_owned(), "tags.b".to_owned()], vec![])
    );
    let after = applied(&twin, &adoption.plan);
    assert_eq!(SealState::read(&after, "legacy"), SealState::Absent);
    assert_eq!(shown(&plan(&ours, &after)), ["+ tags.a = 2", "+ tags.b.mine = 1"]);
}

#[test]
fn our_own_seal_keeps_its_hash_only_where_nothing_is_added_to_it() {
    let both = declared(r#"{"a":1}"#, "{}");
    let twin = sealed_by("legacy", &both, &live("{}", "{}"));
    let fresh = applied(&twin, &adopt(&both, &twin, false).unwrap().plan);
    assert_eq!(SealState::read(&fresh, "demo").seal().unwrap().declared, None);
    let shared = sealed(&both, &twin);
    let after = applied(&shared, &adopt(&both, &shared, false).unwrap().plan);
    let seal = SealState::read(&after, "demo").seal().unwrap().clone();
    assert!(seal.declared.is_some() && seal.etag.as_deref() == Some(after.etag.as_str()));
    assert!(plan(&both, &after).patch.is_none(), "nothing is left to do");
}

#[test]
fn a_seal_that_cannot_be_read_or_is_suspended_gives_and_takes_nothing() {
    let ours = declared(r#"{"a":1}"#, "{}");
    let twin = sealed_by("legacy", &ours, &live("{}", "{}"));
    let with = |owner: &str, seal: &str| {
        let mut twin = twin.clone();
        let Some(Value::Object(seals)) = twin.tags.get_mut(SEAL_KEY) else { panic!("sealed") };
        seals.insert(owner.to_owned(), Value::parse_json(seal).unwrap());
        twin
    };
    let reason = |plan: Option<TransferPlan>| plan.unwrap().plan.held.first().map(|held| held.reason.as_str());
    for (owner, seal, adopted, released) in [
        ("legacy", r#"{"v":2}"#, Some("SealNewer"), None),
        ("demo", r#"{"v":2}"#, Some("SealNewer"), Some("SealNewer")),
        ("demo", r#"{"v":1,"o":[],"s":"bench"}"#, Some("Suspended"), Some("Suspended")),
    ] {
        let twin = with(owner, seal);
        assert_eq!(reason(adopt(&ours, &twin, false)), adopted, "{owner} {seal}");
        let plan = release(&twin);
        assert_eq!(plan.clone().and_then(|plan| reason(Some(plan))), released, "{owner} {seal}");
        assert!(plan.is_none_or(|plan| plan.plan.patch.is_none()));
    }
    assert_eq!(adopt(&ours, &with("legacy", "7"), false), None, "a damaged seal holds nothing");
    let mut copied = twin.clone();
    copied.twin_ref = crate::twin::TwinRef::device(crate::twin::DeviceId::new("e").unwrap());
    assert_eq!(adopt(&ours, &copied, true), None, "a seal copied from another twin holds nothing");
}

#[test]
fn a_seal_that_finds_no_room_is_not_moved() {
    let mut twin = sealed_by("legacy", &declared(r#"{"a":1,"x":1}"#, "{}"), &live("{}", "{}"));
    let full = crate::twin::size_max(Section::Tags) - crate::twin::section_size(&twin.tags) - 8;
    twin.tags.insert("full".to_owned(), Value::from("x".repeat(full)));
    let adoption = adopt(&declared(r#"{"a":1}"#, "{}"), &twin, false).unwrap();
    assert_eq!((adoption.plan.patch, adoption.plan.held[0].reason.as_str()), (None, "SealTooLarge"));
}

#[test]
fn release_takes_our_seal_away_and_leaves_every_value() {
    let ours = declared_of(&object(r#"{"a":1,"b":{"c":2}}"#), &object("{}"), crate::plan::RemovalPolicy::Clear);
    let alone = sealed(&ours, &live(r#"{"x":1}"#, "{}"));
    let plan = release(&alone).unwrap();
    assert_eq!(names(&plan.moved), ["tags.a", "tags.b.c"]);
    let after = applied(&alone, &plan.plan);
    assert_eq!((without_seals(&after), after.tags.contains_key(SEAL_KEY)), (without_seals(&alone), false));
    assert_eq!(release(&after), None);
    let shared = sealed_by("legacy", &declared(r#"{"y":1}"#, "{}"), &alone);
    let after = applied(&shared, &release(&shared).unwrap().plan);
    assert!(owns("legacy", &after, "y") && SealState::read(&after, "demo") == SealState::Absent);
    let mut damaged = alone.clone();
    damaged.tags.insert(SEAL_KEY.to_owned(), Value::Object(object(r#"{"demo":7}"#)));
    assert!(!applied(&damaged, &release(&damaged).unwrap().plan).tags.contains_key(SEAL_KEY));
}

#[test]
fn what_was_planned_is_the_same_whatever_else_was_written() {
    let ours = declared(r#"{"a":1}"#, "{}");
    let twin = sealed_by("legacy", &ours, &live("{}", "{}"));
    let plan = adopt(&ours, &twin, false).unwrap();
    let mut later = twin.clone();
    later.tags.insert("z".to_owned(), Value::from("elsewhere"));
    later.etag = next_etag(&twin.etag).unwrap();
    assert!(adopt(&ours, &later, false).unwrap().is_same_as(&plan));
    let less = sealed_by("legacy", &declared(r#"{"b":1}"#, "{}"), &twin);
    assert!(!adopt(&ours, &less, false).is_some_and(|other| other.is_same_as(&plan)));
}
