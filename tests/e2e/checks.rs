//! `check`: what is missing before anything is run, and that nothing is changed by looking.

use crate::support::{World, device};

const ON_HUB: [&str; 5] = ["check", "--hub-json", "state/hub.json", "--manifests", "manifests"];

/// The check and its state, line by line.
fn states(out: &str) -> Vec<(String, String)> {
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    out.lines().filter(|line| line.starts_with("  ")).filter_map(words).collect()
}

fn state(out: &str, check: &str) -> String {
    states(out).into_iter().find_map(|(name, state)| (name == check).then_some(state)).unwrap_or_default()
}

#[tokio::test]
async fn a_check_looks_at_everything_and_changes_nothing() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    client.create("d1").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("manifests/d2.yaml", &device("d2", 1));
    let before = client.twin("d1").await;
    let (code, out, err) = world.run(&ON_HUB).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    insta::assert_snapshot!("check_text", out);
    let (code, out, _) = world.run(&[&ON_HUB[..], &["-o", "json"]].concat()).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!("check_json", out);
    assert_eq!(client.twin("d1").await, before, "nothing was written");
    assert!(client.find("d2").await.is_none(), "nothing was registered");
}

#[tokio::test]
async fn a_check_says_what_is_missing_and_what_to_do() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    client.create("d1").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    let json = world.hub_json("state");
    let text = |field: &str| json[field].as_str().unwrap().to_owned();
    let owner = text("ownerConnectionString");
    let (policy, _key) = owner.split_once(";SharedAccessKey=").unwrap();
    world.write("wrong.secret", &format!("{policy};SharedAccessKey=Y2FuYXJ5LWNhbmFyeS1jYW5hcnk="));
    world.keep_secret("Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=");
    world.write("service.secret", &text("serviceConnectionString"));
    world.write(
        "away.secret",
        "HostName=127.0.0.1:1;SharedAccessKeyName=service;SharedAccessKey=Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=",
    );
    let hub = |name: &str| {
        let files = format!("connection_string_file = \"{name}.secret\"\nca_file = \"{}\"\n", text("caFile"));
        format!("owner = \"fleet\"\n[hubs.{name}]\nmanifests = \"manifests\"\n{files}")
    };
    for (name, check, says) in [
        ("wrong", "login", "check that the key is that policy's present one"),
        ("service", "register", "RegistryReadWrite"),
        ("away", "reach", "cannot reach the hub: 127.0.0.1:1"),
    ] {
        world.write("settings.toml", &hub(name));
        let (code, out, err) = world.run(&["check", "--settings", "settings.toml"]).await;
        assert_eq!((code, err.as_str(), state(&out, check).as_str()), (1, "", "MISSING"), "{out}");
        assert!(out.contains(says) && out.ends_with("1 hub: 1 missing\n"), "{out}");
    }
    // Who only observes needs no right to write.
    world.write("settings.toml", &format!("mode = \"observe\"\n{}", hub("service")));
    let (code, out, _) = world.run(&["check", "--settings", "settings.toml"]).await;
    assert_eq!(
        (code, state(&out, "write").as_str(), state(&out, "register").as_str()),
        (0, "skipped", "skipped"),
        "{out}"
    );

    world.write("manifests/broken.yaml", "kind: DeviceTwn\n");
    let (code, out, _) = world.run(&ON_HUB).await;
    assert_eq!((code, state(&out, "manifests").as_str(), state(&out, "login").as_str()), (1, "MISSING", "ok"), "{out}");
    assert!(out.contains("`geminid validate manifests` shows them"), "{out}");
    let (code, _, err) = world.run(&["check", "--settings", "nowhere.toml"]).await;
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
}
