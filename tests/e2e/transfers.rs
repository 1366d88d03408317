//! `adopt` and `release`: paths change their owner by a person's word, and no value changes.

use std::fs;

use geminid::twin::{Section, Value};

use crate::support::{World, device, has_power_level, leaf, service_writes};

fn as_owner<'a>(owner: &'a str, verb: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [verb, &["--hub-json", "state/hub.json", "--owner", owner], more].concat()
}

#[tokio::test]
async fn adopted_paths_change_their_owner_in_one_write_and_no_value_changes() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    world.write("manifests/a.yaml", &device("a", 1));
    world.write("manifests/b.yaml", &device("b", 1));
    let on_manifests = ["--manifests", "manifests"];
    let (code, out, err) = world.run(&as_owner("old", &["apply"], &on_manifests)).await;
    assert_eq!(code, 0, "{out}{err}");
    let before = client.twin("a").await;

    // The new owner declares only the desired property of `a`; `b` is nobody's here.
    fs::remove_file(world.path("manifests/b.yaml")).unwrap();
    world.write("manifests/a.yaml", &device("a", 2).replace("  tags: {plant: Redmond43}\n", ""));
    let adopt = as_owner("new", &["adopt", "--from", "old"], &on_manifests);
    let (code, out, err) = world.run(&adopt).await;
    assert_eq!((code, err.as_str()), (2, "error: nothing was written; say --yes to go on without being asked\n"));
    insta::assert_snapshot!("adopt_plan", out);
    assert_eq!(client.twin("a").await, before, "a plan writes nothing");

    let yes = ["--yes", "--audit-log", "audit.jsonl"];
    let (code, out, err) = world.run(&[&adopt[..], &yes].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    insta::assert_snapshot!("adopt_text", out);
    let after = client.twin("a").await;
    assert!(has_power_level(&after, 1), "the value is as it was, whatever is declared");
    assert_eq!(service_writes(&after.etag), service_writes(&before.etag) + 1);
    assert!(leaf(&after, Section::Tags, &["geminid", "new", "o"]).is_some());
    assert!(leaf(&after, Section::Tags, &["geminid", "old", "o"]).is_some(), "the tag is still theirs");
    let audit = fs::read_to_string(world.path("audit.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(audit.lines().next().unwrap()).unwrap();
    assert_eq!((&line["action"], &line["movedFrom"]), (&"adopt".into(), &"old".into()), "{line}");
    assert_eq!(line["moved"], serde_json::json!(["properties.desired.power_level"]), "{line}");
    assert!(line["justifiedBy"]["o"].is_array(), "{line}");

    let (code, out, _) = world.run(&adopt).await;
    assert_eq!((code, out.as_str()), (0, "nothing to adopt from old\n"), "adopting twice is adopting once");
    let (code, out, _) = world.run(&as_owner("new", &["apply"], &on_manifests)).await;
    assert_eq!(code, 0, "{out}");
    let synced = client.twin("a").await;
    assert!(has_power_level(&synced, 2), "what was adopted is no conflict any more");
    assert_eq!(leaf(&synced, Section::Tags, &["plant"]), Some(Value::from("Redmond43")));
    assert!(has_power_level(&client.twin("b").await, 1));
}

#[tokio::test]
async fn a_released_twin_keeps_every_value_and_no_seal() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    for name in ["a", "b"] {
        world.write(&format!("manifests/{name}.yaml"), &device(name, 1));
    }
    let (code, ..) = world.run(&as_owner("demo", &["apply"], &["--manifests", "manifests"])).await;
    assert_eq!(code, 0);

    let (code, _, err) = world.run(&as_owner("demo", &["release"], &[])).await;
    let expected = "error: say which twins: TWIN, --device, --label, or --all for every one that carries our seal\n";
    assert_eq!((code, err.as_str()), (2, expected));
    let (code, out, _) = world.run(&as_owner("demo", &["release", "a", "--yes", "-o", "json"], &[])).await;
    assert_eq!(code, 0, "{out}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["formatVersion"], &json["action"], &json["allDone"]),
        (&1.into(), &"release".into(), &true.into())
    );
    let (a, b) = (client.twin("a").await, client.twin("b").await);
    assert!(has_power_level(&a, 1) && has_power_level(&b, 1));
    assert_eq!(leaf(&a, Section::Tags, &["plant"]), Some(Value::from("Redmond43")));
    assert_eq!(leaf(&a, Section::Tags, &["geminid", "demo"]), None);
    assert!(leaf(&b, Section::Tags, &["geminid", "demo", "o"]).is_some(), "the other twin keeps its seal");

    let (code, out, _) = world.run(&as_owner("demo", &["release", "--all", "--yes"], &[])).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!("release_text", out);
    assert_eq!(leaf(&client.twin("b").await, Section::Tags, &["geminid", "demo"]), None);
    let (code, out, _) = world.run(&as_owner("demo", &["release", "nosuch", "--yes"], &[])).await;
    assert_eq!(code, 1, "a twin that was named and is not there is told: {out}");
}
