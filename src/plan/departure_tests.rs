use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::plan::{FileSpan, ProfileTarget, RemovalPolicy, Selector, TwinManifest, Wanted};
use crate::twin::{DeviceId, ETag, Object, Value};

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn place() -> FileSpan {
    FileSpan { file: "p.yaml".into(), line: 1, column: 1 }
}

fn twin(id: &str) -> TwinRef {
    TwinRef::device(DeviceId::new(id).unwrap())
}

fn twins(ids: &str) -> BTreeSet<TwinRef> {
    ids.split_whitespace().map(twin).collect()
}

fn names(twins: impl IntoIterator<Item = TwinRef>) -> String {
    twins.into_iter().map(|twin| twin.to_string()).collect::<Vec<_>>().join(" ")
}

fn profile(condition: &str, tags: &str) -> Profile {
    Profile {
        name: "p".to_owned(),
        target: ProfileTarget::Devices,
        priority: 0,
        selector: Selector {
            condition: Some(LiveCondition::parse(condition, place()).unwrap()),
            ..Selector::default()
        },
        removal_policy: None,
        wanted: Wanted { tags: object(tags), ..Wanted::default() },
        source: place(),
    }
}

/// A state with these profiles, and a manifest for each id with these tags and the label `l`.
fn state(profiles: Vec<Profile>, own: &[(&str, &str, &str)]) -> DeclaredState {
    let manifest = |tags: &str, label: &str| TwinManifest {
        wanted: Wanted { tags: object(tags), ..Wanted::default() }.into(),
        labels: [("l".to_owned(), label.to_owned())].into_iter().collect(),
        ..TwinManifest::empty(place())
    };
    DeclaredState {
        twins: own.iter().map(|(id, tags, label)| (twin(id), Arc::new(manifest(tags, label)))).collect(),
        profiles: profiles.into_iter().map(Arc::new).collect(),
        ..DeclaredState::default()
    }
}

fn live(id: &str, tags: &str) -> Twin {
    Twin {
        twin_ref: twin(id),
        etag: ETag::new("AAAAAAAAAAE=").unwrap(),
        device_etag: None,
        version: 2,
        tags: object(tags),
        desired: Object::new(),
        reported: Object::new(),
        system: Object::new(),
    }
}

fn members(ids: &str) -> Members {
    Members::from([("p".to_owned(), twins(ids))])
}

#[test]
fn an_edit_concerns_the_members_whom_it_may_take_something_from() {
    let by = r#"{"by":1}"#;
    let labelled = |value: &str| {
        let mut profile = profile("tags.plant = 1", by);
        profile.selector.match_labels = BTreeMap::from([("l".to_owned(), value.to_owned())]);
        profile
    };
    let one = || profile("tags.plant = 1", by);
    let own = |tags: &'static str, label: &'static str| vec![("own", tags, label)];
    let modules = || Profile { target: ProfileTarget::Modules, ..one() };
    for (what, before, after, leaving) in [
        ("nothing", state(vec![one()], &[]), state(vec![one()], &[]), ""),
        ("the profile goes", state(vec![one()], &[]), state(vec![], &[]), "a own"),
        ("its values", state(vec![one()], &[]), state(vec![profile("tags.plant = 1", r#"{"other":1}"#)], &[]), "a own"),
        ("another value", state(vec![one()], &[]), state(vec![profile("tags.plant = 1", r#"{"by":2}"#)], &[]), ""),
        ("one more value", state(vec![one()], &[]), state(vec![profile("tags.plant=1", r#"{"by":1,"x":1}"#)], &[]), ""),
        ("the condition", state(vec![one()], &[]), state(vec![profile("tags.plant = 2", by)], &[]), "a own"),
        ("its spelling", state(vec![one()], &[]), state(vec![profile("tags.plant   =  1", by)], &[]), ""),
        ("its target", state(vec![one()], &[]), state(vec![modules()], &[]), "a own"),
        ("its labels", state(vec![one()], &[]), state(vec![labelled("x")], &[]), "a own"),
        ("what it reads", state(vec![one()], &own("{}", "x")), state(vec![one()], &own(r#"{"plant":1}"#, "x")), "own"),
        ("what it does not read", state(vec![one()], &own("{}", "x")), state(vec![one()], &own(r#"{"z":1}"#, "x")), ""),
        ("a label", state(vec![labelled("x")], &own("{}", "x")), state(vec![labelled("x")], &own("{}", "y")), "own"),
    ] {
        let mut departures = Departures::default();
        let found = departures.take_edit(&before, &after, &members("a own"), &twins("own stranger"));
        assert_eq!(names(found), leaving, "{what}");
        assert_eq!(departures.former(&twin("own")).is_some(), leaving.contains("own"), "{what}");
        assert_eq!(departures.former(&twin("stranger")), None);
    }
}

#[test]
fn what_the_state_before_would_still_set_the_edit_took_away() {
    let before = state(vec![profile("tags.plant = 1", r#"{"by":1}"#)], &[("own", "{}", "x")]);
    let after = state(vec![profile("tags.plant = 2", r#"{"by":1}"#)], &[("own", "{}", "x")]);
    let by = Leaf { section: crate::twin::Section::Tags, path: crate::twin::Path::new(["by"]) };
    for (plant, left) in [(1, None), (2, None), (3, Some(&RemovalPolicy::Orphan))] {
        let live = live("own", &format!(r#"{{"plant":{plant},"by":1}}"#));
        let Declaration::Declared(declared) = declare_since(&after, Some(&before), &twin("own"), &live) else {
            panic!("the twin has a manifest")
        };
        assert_eq!(declared.left.get(&by), left, "{plant}");
        assert_eq!(declared.leaves.contains_key(&by), plant == 2);
        assert_eq!(declared.joined.contains("p"), plant == 2);
        let unknown = declare_since(&after, None, &twin("own"), &live);
        assert_eq!(unknown.declared().unwrap().left.contains_key(&by), plant != 2, "nobody remembers an edit");
    }
    let nameless = |plant: &str| {
        let live = live("a", &format!(r#"{{"plant":{plant},"by":1}}"#));
        declare_since(&after, Some(&before), &twin("a"), &live)
    };
    assert_eq!(nameless("1"), Declaration::Absent, "just as if the profile were gone");
    assert!(matches!(nameless("3"), Declaration::Left(left) if left.contains_key(&by)));
}

#[test]
fn of_several_edits_the_state_before_the_first_counts_until_the_twin_is_settled() {
    let of = |condition: &str| state(vec![profile(condition, r#"{"by":1}"#)], &[]);
    let (one, two, three) = (of("tags.plant = 1"), of("tags.plant = 2"), of("tags.plant = 3"));
    let mut departures = Departures::default();
    departures.take_edit(&one, &two, &members("a"), &BTreeSet::new());
    departures.take_edit(&two, &three, &members("a b"), &BTreeSet::new());
    let condition = |departures: &Departures, id: &str| {
        let former = departures.former(&twin(id))?;
        let (_, condition) = former.conditional().next()?;
        Some(condition.nominating_query(ProfileTarget::Devices).rsplit(' ').next()?.to_owned())
    };
    assert_eq!(
        (condition(&departures, "a").as_deref(), condition(&departures, "b").as_deref()),
        (Some("1"), Some("2"))
    );
    assert!(departures.is_unplanned(&twin("a")));
    departures.plan(&twin("a"));
    assert!(!departures.is_unplanned(&twin("a")) && departures.former(&twin("a")).is_some());
    departures.settle(&twin("a"));
    assert_eq!((departures.former(&twin("a")), departures.is_unplanned(&twin("c"))), (None, false));
}

#[test]
fn whoever_a_sweep_finds_in_the_profile_still_is_forgotten() {
    let before = state(vec![profile("tags.plant = 1", r#"{"by":1}"#)], &[]);
    let after = state(vec![profile("tags.plant IN [1, 2]", r#"{"by":1}"#)], &[]);
    let mut departures = Departures::default();
    departures.take_edit(&before, &after, &members("a b"), &BTreeSet::new());
    assert_eq!(names(departures.settle_staying(&after, &members("a c"))), "a");
    assert!(departures.former(&twin("a")).is_none() && departures.former(&twin("b")).is_some());
    // A state that cannot tell settles nothing.
    let mut hidden = after.clone();
    hidden.frozen.unknown.insert(place());
    assert_eq!(names(departures.settle_staying(&hidden, &members("b"))), "");
}
