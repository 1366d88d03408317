//! The verbs beside `run`, and where their output goes.

use std::process::{Child, Command, Stdio};

use crate::support::{World, device, eventually, has_power_level, service_writes};

#[tokio::test]
async fn apply_answers_0_when_all_is_in_sync_and_1_when_not_and_2_when_it_cannot_tell() {
    let world = World::new();
    let mut hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    let on_hub = ["--hub-json", "state/hub.json", "--manifests", "manifests"];
    let verb = |verb| [&[verb], &on_hub[..]].concat();

    world.write("manifests/d1.yaml", &device("d1", 1));
    let (code, out, _) = world.run(&verb("plan")).await;
    assert_eq!(
        (code, out.contains("To register (1 twin)"), out.contains("1 twin: 1 to register")),
        (1, true, true),
        "{out}"
    );
    assert!(client.find("d1").await.is_none(), "a plan registers nothing");
    let (code, out, _) = world.run(&verb("apply")).await;
    assert_eq!((code, out.as_str()), (0, "1 twin in sync, 0 not\n"));
    let (code, _, _) = world.run(&verb("apply")).await;
    assert_eq!((code, service_writes(&client.twin("d1").await.etag)), (0, 1), "the second apply writes nothing");
    world.write("manifests/d1.yaml", &device("d1", 2));
    let (code, out, _) = world.run(&verb("diff")).await;
    assert_eq!((code, out.contains("~ properties.desired.power_level = 2 (was 1)")), (1, true), "{out}");

    world.write("manifests/d2.yaml", &device("d2", 1).replace("create: true", "create: false"));
    let (code, out, _) = world.run(&verb("apply")).await;
    assert_eq!((code, out.contains("1 twin in sync, 1 not"), out.contains("d2: ")), (1, true, true), "{out}");
    assert!(has_power_level(&client.twin("d1").await, 2));
    world.write("manifests/d2.yaml", "kind: DeviceTwin\n\tx");
    let (code, _, err) = world.run(&verb("apply")).await;
    assert_eq!((code, err.contains("d2.yaml:")), (1, true), "{err}");
    let (code, _, _) = world.run(&verb("plan")).await;
    assert_eq!(code, 2, "not everything could be planned");

    let keep = std::fs::read(world.path("state/hub.json")).unwrap();
    assert_eq!(hub.interrupt().await, 0);
    std::fs::write(world.path("gone.json"), keep).unwrap();
    for verb in ["apply", "plan"] {
        let (code, _, err) = world.run(&[verb, "--hub-json", "gone.json", "--manifests", "manifests"]).await;
        assert_eq!((code, err.contains("error: ") && err.contains("cannot reach the hub")), (2, true), "{verb}: {err}");
    }
}

#[tokio::test]
async fn validate_query_and_version_answer_without_a_daemon() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    world.write("manifests/d1.yaml", &device("d1", 1));
    let (code, out, err) = world.run(&["validate", "manifests"]).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "1 file, 1 twin, 0 queries, 0 errors\n", ""));
    world.write("manifests/d2.yaml", &device("d2", 1).replace("spec:", "spce:"));
    let (code, out, err) = world.run(&["validate", "manifests"]).await;
    assert_eq!((code, out.contains("1 error")), (1, true), "{out}");
    assert!(err.contains("d2.yaml:4:1") && err.contains("spce") && err.contains("spec"), "{err}");

    for name in ["q1", "q2"] {
        client.create(name).await;
    }
    let query = async |text: &str| world.run(&["query", text, "-o", "json", "--hub-json", "state/hub.json"]).await;
    let (code, out, _) = query("SELECT deviceId FROM devices WHERE deviceId IN ['q1', 'q2', 'q3']").await;
    assert_eq!(code, 0);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    let mut rows = answer["rows"].as_array().unwrap().clone();
    rows.sort_by_key(ToString::to_string);
    assert_eq!(rows, [serde_json::json!({"deviceId": "q1"}), serde_json::json!({"deviceId": "q2"})]);
    let (code, out, err) = query("SELECT FROM devices").await;
    assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 3), "the query, a caret, a sentence: {err}");
    assert!(err.contains("\n         ^^^^\nerror: found"), "{err}");

    let (code, out, _) = world.run(&["version"]).await;
    assert_eq!((code, out.as_str()), (0, concat!("geminid ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[tokio::test]
async fn a_settings_file_and_the_environment_name_hubs_and_one_that_is_away_does_not_hold_up_the_other() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    let json = world.hub_json("state");
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("prod.secret", json["ownerConnectionString"].as_str().unwrap());
    let ca_file = json["caFile"].as_str().unwrap();
    let hub =
        |name: &str, more: &str| format!("[hubs.{name}]\nmanifests = \"manifests\"\nca_file = \"{ca_file}\"\n{more}");
    let prod = hub("prod", "connection_string_file = \"prod.secret\"\n");
    let head = "owner = \"fleet\"\nlisten = \"127.0.0.1:1\"\n";
    world.write("settings.toml", &format!("{head}{prod}{}", hub("away", "")));
    let key = "SharedAccessKey=Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=";
    world.keep_secret(key.trim_start_matches("SharedAccessKey="));
    let variables = [
        ("GEMINID_LISTEN", "127.0.0.1:0"),
        ("GEMINID_HUBS_AWAY_CONNECTION_STRING", &format!("HostName=127.0.0.1:1;SharedAccessKeyName=service;{key}")),
        ("GEMINID_SERVICE_HOST", "10.0.0.1"),
    ];
    let mut daemon = world.start_with(&["run", "--settings", "settings.toml", "--log-level", "trace"], &variables);
    daemon.wait_until("device", async || client.find("d1").await.filter(|twin| has_power_level(twin, 1))).await;
    daemon.says("cannot reach the hub").await;
    daemon.metric_is(r#"geminid_hub_up{hub="prod"}"#, 1.0).await;
    daemon.metric_is(r#"geminid_hub_up{hub="away"}"#, 0.0).await;
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;

    let (code, out, err) = world.run(&["plan", "--settings", "settings.toml", "--hub", "prod"]).await;
    assert_eq!((code, out.as_str(), err.contains("hubs.away.connection_string_file")), (2, "", true), "{err}");
    world.write("prod.toml", &format!("{head}{prod}"));
    let (code, out, err) = world.run(&["plan", "--settings", "prod.toml"]).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "1 twin: 1 in sync\n", ""));
    assert_eq!(daemon.interrupt().await, 0, "a hub that is away does not hold up the end");
}

/// A process whose standard output or standard error nobody reads any more.
fn unread(world: &World, arguments: &[&str], is_stdout_closed: bool) -> Child {
    let (reading, writing) = std::io::pipe().unwrap();
    drop(reading);
    let closed = Stdio::from(writing);
    let (stdout, stderr) = if is_stdout_closed { (closed, Stdio::piped()) } else { (Stdio::piped(), closed) };
    Command::new(env!("CARGO_BIN_EXE_geminid"))
        .args(arguments)
        .current_dir(world.path("."))
        .env_clear()
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap()
}

async fn exit_code(mut child: Child) -> (Option<i32>, String) {
    let ended = eventually(async || child.try_wait().unwrap()).await;
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (ended.and_then(|status| status.code()), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_closed_pipe_ends_the_output_and_not_the_process() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    for arguments in [&["version"][..], &["--help"], &["validate", "manifests"]] {
        let ended = exit_code(unread(&world, arguments, true)).await;
        assert_eq!(ended, (Some(0), String::new()), "{arguments:?}");
    }
    for arguments in [&["validate", "nowhere"][..], &["--nope"]] {
        let ended = exit_code(unread(&world, arguments, false)).await;
        assert_eq!(ended.0, Some(2), "{arguments:?}");
    }
    for is_stdout_closed in [true, false] {
        let state = if is_stdout_closed { "no-stdout" } else { "no-stderr" };
        let fixed = ["run", "--embedded-hub", "--manifests", "manifests", "--state-dir", state];
        let free = ["--listen", "127.0.0.1:0", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
        let child = unread(&world, &[&fixed[..], &free].concat(), is_stdout_closed);
        let pid = child.id().to_string();
        let ready = eventually(async || world.path(state).join("hub.json").exists().then_some(())).await;
        let hub = world.client(state);
        let written = eventually(async || hub.find("d1").await.filter(|twin| has_power_level(twin, 1))).await;
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let ended = exit_code(child).await;
        assert!(ready.is_some() && written.is_some(), "{state}: {ended:?}");
        assert_eq!(ended.0, Some(0), "{state}: {}", ended.1);
    }
}

#[tokio::test]
async fn the_reference_in_the_docs_is_that_of_this_binary() {
    let world = World::new();
    let (code, out, err) = world.run(&["cli-reference"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let stored = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    assert_eq!(stored, out, "write it anew: geminid cli-reference > docs/cli.md");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = world.run(&["completion", shell]).await;
        assert!(code == 0 && out.contains("embedded-hub"), "{shell}");
    }
    let (code, _, err) = world.run(&["man", "pages"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(std::fs::read_to_string(world.path("pages/geminid-plan.1")).unwrap().contains("markdown"));
}
