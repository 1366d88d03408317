//! The tables of `iot-hub.md` 1.3, 2.3 and 2.4, row by row.

use proptest::prelude::*;

use super::super::identity::{Authentication, SharedKey, Status};
use super::super::twin_record::{Stamp, StampNode};
use super::*;
use crate::twin::Value;

const START: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn own(text: &str) -> TwinRef {
    TwinRef::device(id(text))
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

/// A patch from the JSON of `tags` and of `properties.desired`; the empty text leaves a section out.
fn patch(tags: &str, desired: &str) -> MergePatch {
    let section = |json: &str| (!json.is_empty()).then(|| object(json));
    MergePatch { tags: section(tags), desired: section(desired) }
}

/// Bytes that differ from call to call and are the same in every run.
fn randomness() -> impl FnMut(&mut [u8]) {
    let mut rng = fastrand::Rng::with_seed(7);
    move |bytes| rng.fill(bytes)
}

fn create(registry: &mut Registry, device: &str, second: i64) -> Arc<Device> {
    let spec = IdentitySpec::default();
    let mut random = randomness();
    let change = registry.put_identity(&id(device), spec, &IfMatch::Absent, &mut random, at(second)).unwrap();
    change.after.unwrap()
}

fn with_device(device: &str) -> Registry {
    let mut registry = Registry::default();
    create(&mut registry, device, 0);
    registry
}

fn counters(device: &Device) -> (u64, u64, u64, u64) {
    let twin = &device.twin;
    (twin.etag_number, twin.version, twin.desired.version, twin.reported.version)
}

fn code(result: Result<Change, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code(), |_| "")
}

#[test]
fn the_counters_follow_the_table_of_writes() {
    let mut registry = with_device("d");
    let check = |registry: &Registry, what: &str, expected| {
        assert_eq!(counters(&registry.device(&id("d")).unwrap()), expected, "{what}");
    };
    check(&registry, "create", (1, 2, 1, 1));
    let mut write = |what: &str, change: MergePatch, expected| {
        registry.patch_twin(&own("d"), &change, &IfMatch::Absent, at(1)).unwrap();
        check(&registry, what, expected);
    };
    write("tags only", patch(r#"{"a":1}"#, ""), (2, 3, 1, 1));
    write("desired only", patch("", r#"{"a":1}"#), (3, 4, 2, 1));
    write("tags and desired", patch(r#"{"a":2}"#, r#"{"a":2}"#), (4, 5, 3, 1));
    write("identical values", patch(r#"{"a":2}"#, r#"{"a":2}"#), (5, 6, 4, 1));
    write("nothing at all", patch("", ""), (5, 6, 4, 1));
    write("an empty section", patch("", "{}"), (6, 7, 5, 1));
    registry.report(&own("d"), &object(r#"{"r":1}"#), at(2)).unwrap();
    check(&registry, "the device reports", (6, 8, 5, 2));
    registry.report(&own("d"), &object(r#"{"r":1}"#), at(2)).unwrap();
    check(&registry, "the device reports the same", (6, 9, 5, 3));
    registry.note_activity(&own("d"), true, at(3));
    check(&registry, "the device connects", (6, 9, 5, 3));
    let disabled = IdentitySpec { status: Status::Disabled, ..IdentitySpec::default() };
    registry.put_identity(&id("d"), disabled, &IfMatch::Any, &mut randomness(), at(4)).unwrap();
    check(&registry, "the identity is written", (6, 9, 5, 3));
    registry.replace_twin(&own("d"), &patch(r#"{"z":1}"#, r#"{"z":1}"#), &IfMatch::Absent, at(5)).unwrap();
    check(&registry, "PUT of both", (7, 10, 6, 3));
}

#[test]
fn a_put_empties_what_it_leaves_out_and_moves_the_version_of_desired_only_then() {
    let mut registry = with_device("d");
    registry.replace_twin(&own("d"), &patch(r#"{"a":1}"#, ""), &IfMatch::Absent, at(1)).unwrap();
    let twin = registry.device(&id("d")).unwrap().twin.clone();
    assert_eq!((twin.tags, twin.desired.version), (Some(object(r#"{"a":1}"#).into()), 1));
    registry.patch_twin(&own("d"), &patch("", r#"{"x":1}"#), &IfMatch::Absent, at(2)).unwrap();
    registry.replace_twin(&own("d"), &patch("", r#"{"y":{"z":2}}"#), &IfMatch::Absent, at(3)).unwrap();
    let twin = registry.device(&id("d")).unwrap().twin.clone();
    assert_eq!(twin.tags, Some(Object::new().into()));
    assert_eq!(twin.desired.values, object(r#"{"y":{"z":2}}"#));
    assert_eq!(
        twin.desired.stamps,
        StampNode::of(&twin.desired.values, &Stamp { at: at(3), version: Some(3), by: None })
    );
    registry.replace_twin(&own("d"), &patch(r#"{"a":1}"#, ""), &IfMatch::Absent, at(4)).unwrap();
    let twin = registry.device(&id("d")).unwrap().twin.clone();
    assert_eq!((&twin.desired.values, twin.desired.version), (&Object::new(), 4));
}

#[test]
fn a_recreated_device_starts_again_with_another_identity() {
    let mut registry = with_device("d");
    registry.patch_twin(&own("d"), &patch(r#"{"a":1}"#, r#"{"a":1}"#), &IfMatch::Absent, at(1)).unwrap();
    let before = registry.device(&id("d")).unwrap();
    registry.delete_identity(&id("d"), &IfMatch::Any).unwrap();
    assert_eq!(registry.device(&id("d")), Err(Refusal::DeviceNotFound(id("d"))));
    let mut random = fastrand::Rng::with_seed(8);
    let change = registry.put_identity(
        &id("d"),
        IdentitySpec::default(),
        &IfMatch::Absent,
        &mut |bytes| random.fill(bytes),
        // The clock stands still; the generation is another one all the same.
        at(0),
    );
    let after = change.unwrap().after.unwrap();
    assert_eq!(counters(&after), (1, 2, 1, 1));
    assert_eq!(after.twin.tags, None);
    assert_ne!(after.identity.etag(), before.identity.etag());
    assert_ne!(after.identity.generation, before.identity.generation);
    assert_ne!(after.identity.authentication, before.identity.authentication);
}

#[test]
fn a_patch_merges_as_the_table_of_writes_says() {
    for (before, change, after) in [
        (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{"c":2}}"#),
        (r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
        ("{}", r#"{"x":null}"#, "{}"),
        ("{}", r#"{"n":{"x":null}}"#, r#"{"n":{}}"#),
        ("{}", r#"{"e":{}}"#, r#"{"e":{}}"#),
        (r#"{"l":[1,2,3]}"#, r#"{"l":[4]}"#, r#"{"l":[4]}"#),
        (r#"{"a":1}"#, r#"{"a":{"b":2}}"#, r#"{"a":{"b":2}}"#),
        (r#"{"a":{"b":2}}"#, r#"{"a":1}"#, r#"{"a":1}"#),
        (r#"{"l":[1]}"#, r#"{"l":{"b":2}}"#, r#"{"l":{"b":2}}"#),
    ] {
        let mut registry = with_device("d");
        registry.replace_twin(&own("d"), &patch(before, before), &IfMatch::Absent, at(1)).unwrap();
        registry.patch_twin(&own("d"), &patch(change, change), &IfMatch::Absent, at(2)).unwrap();
        registry.report(&own("d"), &object(before), at(1)).unwrap();
        registry.report(&own("d"), &object(change), at(2)).unwrap();
        let twin = registry.device(&id("d")).unwrap().twin.clone();
        assert_eq!(twin.tags, Some(object(after).into()), "{before} + {change}");
        assert_eq!(twin.desired.values, object(after), "{before} + {change}");
        assert_eq!(twin.reported.values, object(after), "{before} + {change}");
    }
}

#[test]
fn a_write_that_would_break_a_limit_is_refused_and_changes_nothing() {
    let mut registry = with_device("d");
    let half = format!(r#"{{"a":"{}"}}"#, "x".repeat(4096));
    registry.patch_twin(&own("d"), &patch(&half, ""), &IfMatch::Absent, at(1)).unwrap();
    let before = registry.device(&id("d")).unwrap();
    let over = format!(r#"{{"b":"{}"}}"#, "y".repeat(4096));
    for (what, result) in [
        ("too large together", registry.patch_twin(&own("d"), &patch(&over, ""), &IfMatch::Absent, at(2))),
        ("a dollar in a key", registry.patch_twin(&own("d"), &patch("", r#"{"$x":1}"#), &IfMatch::Absent, at(2))),
        ("an integer of 53 bits", registry.report(&own("d"), &object(r#"{"n":4503599627370496}"#), at(2))),
        ("a null in an array", registry.patch_twin(&own("d"), &patch(r#"{"l":[null]}"#, ""), &IfMatch::Absent, at(2))),
        ("a null in a PUT", registry.replace_twin(&own("d"), &patch("", r#"{"a":{"b":null}}"#), &IfMatch::Any, at(2))),
    ] {
        assert_eq!(code(result), "ArgumentInvalid", "{what}");
    }
    let result = registry.replace_twin(&own("d"), &patch(r#"{"a":{"name":null}}"#, ""), &IfMatch::Any, at(2));
    let expected = "Value of Property or Tag cannot be null. Error in Property/Tag name";
    assert_eq!(result.unwrap_err().to_string(), expected);
    assert_eq!(registry.device(&id("d")), Ok(before));
}

#[test]
fn the_stamps_mirror_the_tree_and_refresh_what_lies_above_a_write() {
    let mut registry = with_device("d");
    let fresh = registry.device(&id("d")).unwrap();
    assert_eq!(fresh.twin.desired.stamps, StampNode::leaf(Stamp { at: at(0), version: None, by: None }));
    let first = patch("", r#"{"a":{"b":1,"c":{"d":1}},"l":[1,{"x":2}]}"#);
    registry.patch_twin(&own("d"), &first, &IfMatch::Absent, at(1)).unwrap();
    registry.patch_twin(&own("d"), &patch("", r#"{"a":{"c":{"d":2}},"l":null}"#), &IfMatch::Absent, at(2)).unwrap();
    let stamps = registry.device(&id("d")).unwrap().twin.desired.stamps.clone();
    let (old, new) = (Stamp { at: at(1), version: Some(2), by: None }, Stamp { at: at(2), version: Some(3), by: None });
    assert_eq!(stamps.stamp, new);
    assert_eq!(stamps.children.keys().collect::<Vec<_>>(), ["a"]);
    let a = &stamps.children["a"];
    assert_eq!((&a.stamp, &a.children["b"].stamp), (&new, &old));
    assert_eq!((&a.children["c"].stamp, &a.children["c"].children["d"].stamp), (&new, &new));
    registry.report(&own("d"), &object(r#"{"r":{"s":1}}"#), at(3)).unwrap();
    let stamps = registry.device(&id("d")).unwrap().twin.reported.stamps.clone();
    assert_eq!(stamps.children["r"].children["s"].stamp, Stamp { at: at(3), version: None, by: None });
}

#[test]
fn if_match_on_a_twin_follows_its_column() {
    for (header, written) in [
        (None, true),
        (Some("*"), true),
        (Some("\"*\""), true),
        (Some("\"\""), true),
        (Some("\"AAAAAAAAAAI=\""), true),
        (Some("\"AAAAAAAAAAE=\""), false),
        (Some("AAAAAAAAAAI="), true),
        (Some("AAAAAAAAAAE="), true),
    ] {
        let mut registry = with_device("d");
        registry.patch_twin(&own("d"), &patch(r#"{"a":1}"#, ""), &IfMatch::Absent, at(1)).unwrap();
        assert_eq!(registry.device(&id("d")).unwrap().twin.etag(), "AAAAAAAAAAI=");
        let if_match = IfMatch::parse(header);
        let expected = if written { "" } else { "PreconditionFailed" };
        let tags = patch(r#"{"a":2}"#, "");
        assert_eq!(code(registry.patch_twin(&own("d"), &tags, &if_match, at(2))), expected, "PATCH {header:?}");
        let mut registry = with_device("d");
        registry.patch_twin(&own("d"), &tags, &IfMatch::Absent, at(1)).unwrap();
        assert_eq!(code(registry.replace_twin(&own("d"), &tags, &if_match, at(2))), expected, "PUT {header:?}");
    }
    let mut registry = Registry::default();
    let missing = registry.patch_twin(&own("x"), &patch("{}", ""), &IfMatch::Any, at(0));
    assert_eq!(missing, Err(Refusal::DeviceNotFound(id("x"))));
}

#[test]
fn if_match_on_an_identity_follows_its_columns() {
    let current = create(&mut Registry::default(), "d", 0).identity.etag();
    let quoted = format!("\"{current}\"");
    for (header, put_existing, put_missing, delete) in [
        (None, "DeviceAlreadyExists", "", "PreconditionFailed"),
        (Some("\"\""), "DeviceAlreadyExists", "", "PreconditionFailed"),
        (Some("*"), "", "DeviceNotFound", ""),
        (Some("\"*\""), "", "DeviceNotFound", ""),
        (Some(quoted.as_str()), "", "DeviceNotFound", ""),
        (Some(current.as_str()), "", "DeviceNotFound", ""),
        (Some("\"MQ==\""), "PreconditionFailed", "DeviceNotFound", "PreconditionFailed"),
        (Some("MQ=="), "PreconditionFailed", "DeviceNotFound", "PreconditionFailed"),
    ] {
        let if_match = IfMatch::parse(header);
        let put = |registry: &mut Registry| {
            code(registry.put_identity(&id("d"), IdentitySpec::default(), &if_match, &mut randomness(), at(1)))
        };
        assert_eq!(put(&mut with_device("d")), put_existing, "PUT {header:?}");
        assert_eq!(put(&mut Registry::default()), put_missing, "PUT of a missing one {header:?}");
        assert_eq!(code(with_device("d").delete_identity(&id("d"), &if_match)), delete, "DELETE {header:?}");
    }
    let missing = Registry::default().delete_identity(&id("d"), &IfMatch::Any);
    assert_eq!(missing, Err(Refusal::DeviceNotFound(id("d"))));
}

#[test]
fn an_identity_is_replaced_whole_and_its_etag_counts() {
    let mut registry = with_device("d");
    let before = registry.device(&id("d")).unwrap().identity.clone();
    let key = |byte: u8| SharedKey::generate(&mut |bytes: &mut [u8]| bytes.fill(byte));
    let spec = IdentitySpec {
        status: Status::Disabled,
        status_reason: Some("bench".to_owned()),
        authentication: AuthenticationSpec::Sas(Some((key(1), key(2)))),
        ..IdentitySpec::default()
    };
    registry.put_identity(&id("d"), spec, &IfMatch::Any, &mut randomness(), at(5)).unwrap();
    let after = registry.device(&id("d")).unwrap().identity.clone();
    assert_eq!(after.etag_number, before.etag_number + 1);
    assert_eq!(after.authentication, Authentication::Sas { primary: key(1), secondary: key(2) });
    assert_eq!((after.status, after.status_updated), (Status::Disabled, Some(at(5))));
    let long = IdentitySpec { status_reason: Some("x".repeat(129)), ..IdentitySpec::default() };
    let refused = registry.put_identity(&id("d"), long, &IfMatch::Any, &mut randomness(), at(6));
    assert_eq!(code(refused), "ArgumentInvalid");
}

#[test]
fn a_stale_identity_etag_is_answered_with_both_numbers() {
    let mut registry = with_device("d");
    let existing = registry.device(&id("d")).unwrap().identity.etag_number;
    let stale = registry.delete_identity(&id("d"), &IfMatch::parse(Some("\"MzQzMDYwMzU2\""))).unwrap_err();
    let words = format!("Device version did not match, existingVersion:{existing} newVersion:343060356");
    assert!(stale.to_string().ends_with(&words), "{stale}");
    let odd = registry.delete_identity(&id("d"), &IfMatch::Quoted("odd".to_owned())).unwrap_err();
    assert!(odd.to_string().ends_with("newVersion:odd"), "{odd}");
}

#[test]
fn a_hub_has_room_for_a_million_devices_and_modules() {
    assert_eq!(check_room(999_999, 1), Ok(()));
    assert_eq!(check_room(999_999, 3).unwrap_err().code(), "TooManyDevices");
    assert_eq!(check_room(1_000_000, 1).unwrap_err().code(), "TooManyDevices");
}

#[test]
fn a_list_is_cut_at_top_and_takes_a_bad_top_for_a_thousand() {
    let mut registry = Registry::default();
    for number in 0..=LIST_MAX {
        create(&mut registry, &format!("d{number:04}"), 0);
    }
    for (top, count) in [(None, LIST_MAX), (Some(3), 3), (Some(0), LIST_MAX), (Some(LIST_MAX + 1), LIST_MAX)] {
        assert_eq!(registry.list(top).len(), count, "{top:?}");
    }
}

#[derive(Debug, Clone)]
enum Write {
    Patch(bool, bool, u8),
    Replace(bool, bool, u8),
    Report(u8),
    Identity,
    Connect(bool),
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (any::<bool>(), any::<bool>(), any::<u8>()).prop_map(|(tags, desired, n)| Write::Patch(tags, desired, n)),
        (any::<bool>(), any::<bool>(), any::<u8>()).prop_map(|(tags, desired, n)| Write::Replace(tags, desired, n)),
        any::<u8>().prop_map(Write::Report),
        Just(Write::Identity),
        any::<bool>().prop_map(Write::Connect),
    ]
}

/// A small tree that depends on `n`: leaves, nested objects and deletions (nulls only when `nulls`).
fn tree(n: u8, nulls: bool) -> Object {
    let leaf = if nulls && n.is_multiple_of(3) { "null".to_owned() } else { n.to_string() };
    object(&format!(r#"{{"k{}":{{"x":{leaf},"l":[{n}]}},"s":{n}}}"#, n % 4))
}

/// The change made, if the write is one.
fn apply(registry: &mut Registry, write: &Write) -> Option<Change> {
    let sections = |tags: bool, desired: bool, n: u8, nulls: bool| MergePatch {
        tags: tags.then(|| tree(n, nulls)),
        desired: desired.then(|| tree(n, nulls)),
    };
    let (device, twin) = (id("d"), own("d"));
    let change = match *write {
        Write::Patch(tags, desired, n) => {
            registry.patch_twin(&twin, &sections(tags, desired, n, true), &IfMatch::Absent, at(1))
        }
        Write::Replace(tags, desired, n) => {
            registry.replace_twin(&twin, &sections(tags, desired, n, false), &IfMatch::Absent, at(1))
        }
        Write::Report(n) => registry.report(&twin, &tree(n, true), at(1)),
        Write::Identity => {
            registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Any, &mut randomness(), at(1))
        }
        Write::Connect(connected) => {
            registry.note_activity(&twin, connected, at(1));
            return None;
        }
    };
    Some(change.unwrap())
}

/// Whether the stamps have the shape of the values.
fn mirrors(node: &StampNode, values: &Object) -> bool {
    node.children.keys().eq(values.keys())
        && values.iter().all(|(key, value)| match value {
            Value::Object(inner) => mirrors(&node.children[key], inner),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                node.children[key].children.is_empty()
            }
        })
}

proptest! {
    #[test]
    fn no_counter_ever_goes_back_and_stamps_mirror_values(writes in prop::collection::vec(any_write(), 1..40)) {
        let mut registry = with_device("d");
        let mut before = registry.device(&id("d")).unwrap();
        for write in &writes {
            let change = apply(&mut registry, write);
            let after = registry.device(&id("d")).unwrap();
            if let Some(change) = change {
                prop_assert_eq!(change.before.as_ref(), Some(&before));
                prop_assert_eq!(change.after.as_ref(), Some(&after));
            }
            prop_assert!(after.twin.etag_number >= before.twin.etag_number);
            prop_assert!(after.twin.version >= before.twin.version);
            prop_assert!(after.twin.desired.version >= before.twin.desired.version);
            prop_assert!(after.twin.reported.version >= before.twin.reported.version);
            prop_assert!(after.identity.etag_number >= before.identity.etag_number);
            let content = |device: &Device| (device.twin.tags.clone(), device.twin.desired.clone());
            if content(&after) != content(&before) {
                prop_assert!(after.twin.etag_number > before.twin.etag_number);
            }
            prop_assert!(mirrors(&after.twin.desired.stamps, &after.twin.desired.values));
            prop_assert!(mirrors(&after.twin.reported.stamps, &after.twin.reported.values));
            before = after;
        }
    }
}
