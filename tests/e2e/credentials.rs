//! Credentials that are wrong, that end and that change, under the running daemon.

use crate::support::{Process, World, device, has_power_level};

const WRONG_KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=";
const UP: &str = r#"geminid_hub_up{hub="prod"}"#;

fn settings(world: &World, login: &str) {
    let json = world.hub_json("state");
    let ca_file = json["caFile"].as_str().unwrap();
    let hub = format!("[hubs.prod]\nmanifests = \"manifests\"\nca_file = \"{ca_file}\"\n{login}\n");
    world.write("settings.toml", &format!("owner = \"fleet\"\nlisten = \"127.0.0.1:0\"\n{hub}"));
    world.keep_secret(WRONG_KEY);
}

async fn started(world: &World) -> Process {
    let daemon = world.start(&["run", "--settings", "settings.toml"]);
    daemon.wait_for("the daemon's announcement", || daemon.stdout().contains("stop")).await;
    daemon
}

/// The hub's connection string with this key in the place of the right one.
fn with_key(world: &World, key: &str) -> String {
    let json = world.hub_json("state");
    let right = json["ownerConnectionString"].as_str().unwrap();
    format!("{};SharedAccessKey={key}", right.split_once(";SharedAccessKey=").unwrap().0)
}

async fn is_level(world: &World, daemon: &Process, level: usize) {
    let client = world.client("state");
    let is = async || client.find("d1").await.filter(|twin| has_power_level(twin, level));
    daemon.wait_until(&format!("level {level}"), is).await;
}

#[tokio::test]
async fn a_wrong_key_is_said_once_and_the_right_one_is_taken_from_the_file_without_a_restart() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    settings(&world, "connection_string_file = \"prod.secret\"");
    world.write("prod.secret", &with_key(&world, WRONG_KEY));
    let mut daemon = started(&world).await;
    daemon.says("check that the key is that policy's present one").await;
    daemon.metric_is(UP, 0.0).await;
    let right = world.hub_json("state")["ownerConnectionString"].as_str().unwrap().to_owned();
    world.write("prod.secret", &right);
    is_level(&world, &daemon, 1).await;
    daemon.metric_is(UP, 1.0).await;
    assert_eq!(daemon.lines_with("check that the key"), 1, "{}", daemon.stderr());
    assert_eq!(daemon.interrupt().await, 0);
}

#[tokio::test]
async fn of_two_keys_in_the_file_either_may_be_renewed_first() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let right = world.hub_json("state")["ownerConnectionString"].as_str().unwrap().to_owned();
    settings(&world, "connection_string_file = \"prod.secret\"");
    let wrong = with_key(&world, WRONG_KEY);
    for (level, lines) in [(1, [&wrong, &right]), (2, [&right, &wrong])] {
        world.write("manifests/d1.yaml", &device("d1", level));
        world.write("prod.secret", &lines.map(String::as_str).join("\n"));
        let mut daemon = started(&world).await;
        is_level(&world, &daemon, level).await;
        daemon.metric_is(UP, 1.0).await;
        assert_eq!(daemon.lines_with("ERROR"), 0, "{}", daemon.stderr());
        assert_eq!(daemon.interrupt().await, 0);
    }
}

#[tokio::test]
async fn a_token_that_has_ended_is_said_and_its_successor_is_taken_from_the_file() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    let (address, token, _) = world.raw_client("state");
    settings(&world, &format!("host = \"{address}\"\nsas_token_file = \"prod.token\""));
    let end = token.split('&').find_map(|part| part.strip_prefix("se=")).unwrap().to_owned();
    world.write("prod.token", &token.replace(&format!("se={end}"), "se=1700000000"));
    let mut daemon = started(&world).await;
    daemon.says("ERROR").await;
    daemon.metric_is(UP, 0.0).await;
    world.write("prod.token", &token);
    is_level(&world, &daemon, 1).await;
    let expiry = r#"geminid_hub_credential_expiry_timestamp_seconds{hub="prod"}"#;
    daemon.metric_is(expiry, end.parse().unwrap()).await;
    assert_eq!(daemon.lines_with("ERROR"), 1, "{}", daemon.stderr());
    assert_eq!(daemon.interrupt().await, 0);
}

#[tokio::test]
async fn a_change_of_what_is_read_at_start_alone_is_said_and_not_taken() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    let right = world.hub_json("state")["ownerConnectionString"].as_str().unwrap().to_owned();
    world.write("prod.secret", &right);
    settings(&world, "connection_string_file = \"prod.secret\"");
    let mut daemon = started(&world).await;
    is_level(&world, &daemon, 1).await;
    settings(&world, "connection_string_file = \"prod.secret\"\nsuspend = true");
    daemon.says("restart to take the change").await;
    assert_eq!(daemon.lines_with("settings.toml"), 1, "{}", daemon.stderr());
    world.write("manifests/d1.yaml", &device("d1", 2));
    is_level(&world, &daemon, 2).await;
    settings(&world, "connection_string_file = \"prod.secret\"");
    daemon.says("is again what it was at start").await;
    assert_eq!(daemon.interrupt().await, 0);
}
