//! What bad input gets: broken manifests, a hub that is away, keys that are wrong, ports that are taken.

use std::fs;
use std::net::TcpListener;

use crate::support::{World, device, example_manifests, has_power_level, service_writes};

const IN_SYNC: &str = r#"geminid_twins{hub="embedded",state="in_sync"}"#;

#[tokio::test]
async fn broken_yaml_is_named_with_its_place_and_keeps_its_last_good_state_while_the_others_go_on() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("manifests/d2.yaml", &device("d2", 1));
    let mut daemon = world.run_embedded("state", &["--sweep", "1s"]).await;
    let hub = world.client("state");
    for name in ["d1", "d2"] {
        daemon.wait_until(name, async || hub.find(name).await.filter(|twin| has_power_level(twin, 1))).await;
    }
    let before = hub.twin("d1").await;

    world.write("manifests/d1.yaml", &device("d1", 2).replace("{power_level: 2}", "{power_level: 2"));
    world.write("manifests/d2.yaml", &device("d2", 2));
    daemon.wait_until("d2", async || hub.find("d2").await.filter(|twin| has_power_level(twin, 2))).await;
    daemon.says("d1.yaml:8:1: ").await;
    let sweeps = daemon.lines_with("sweep complete");
    daemon.wait_for("two more sweeps", || daemon.lines_with("sweep complete") > sweeps + 1).await;
    assert_eq!(hub.twin("d1").await, before, "neither changed nor removed");
    assert_eq!(daemon.lines_with("d1.yaml:"), 1, "said once: {}", daemon.stderr());
    assert_eq!(daemon.lines_with("ManifestBroken"), 1, "{}", daemon.stderr());
    daemon.says("its manifest is broken, the twin is kept as the last good one declared it").await;
    daemon.metric_is(r#"geminid_manifests{kind="DeviceTwin",state="invalid"}"#, 1.0).await;

    world.write("manifests/d1.yaml", &device("d1", 3));
    daemon.wait_until("d1", async || hub.find("d1").await.filter(|twin| has_power_level(twin, 3))).await;
    assert_eq!(service_writes(&hub.twin("d1").await.etag), 2, "mended, it goes on");
    assert_eq!(daemon.interrupt().await, 0);
}

#[tokio::test]
async fn a_start_with_a_broken_manifest_holds_its_twin_and_all_of_the_source_when_it_cannot_tell_whose_it_is() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("manifests/d2.yaml", &device("d2", 1));
    let on_hub = ["--hub-json", "state/hub.json", "--manifests", "manifests"];
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let hub = world.client("state");
    assert_eq!(world.run(&[&["apply"], &on_hub[..]].concat()).await.0, 0);
    let before = hub.twin("d1").await;

    world.write("manifests/d1.yaml", &device("d1", 2).replace("create:", "creat:"));
    world.write("manifests/d2.yaml", &device("d2", 2));
    let daemon = world.run_on("state/hub.json", &["--sweep", "1s"]).await;
    daemon.wait_until("d2", async || hub.find("d2").await.filter(|twin| has_power_level(twin, 2))).await;
    daemon.says("d1.yaml:5:3: ").await;
    daemon.says("ManifestBroken").await;
    drop(daemon);

    world.write("manifests/d1.yaml", "{");
    world.write("manifests/d2.yaml", &device("d2", 3));
    let daemon = world.run_on("state/hub.json", &["--sweep", "1s"]).await;
    daemon.says("d1.yaml:1:2: ").await;
    daemon.wait_for("word of both", || daemon.lines_with("SourceIncomplete") == 2).await;
    daemon.wait_for("two sweeps", || daemon.lines_with("sweep complete") > 1).await;
    assert_eq!(hub.twin("d1").await, before);
    assert!(has_power_level(&hub.twin("d2").await, 2), "what is unknown may concern it");

    world.write("manifests/d1.yaml", &device("d1", 4));
    for (name, level) in [("d1", 4), ("d2", 3)] {
        daemon.wait_until(name, async || hub.find(name).await.filter(|twin| has_power_level(twin, level))).await;
    }
}

#[tokio::test]
async fn a_hub_that_is_away_at_the_start_or_later_is_said_once_and_waited_for() {
    let world = World::new();
    example_manifests(&world);
    let mut hub = world.hub("state", "127.0.0.1:0").await;
    let address = hub.announced("embedded hub ").trim_start_matches("https://").to_owned();
    fs::copy(world.path("state/hub.json"), world.path("hub.json")).unwrap();
    let client = world.client("state");
    assert_eq!(hub.interrupt().await, 0);

    let mut daemon = world.run_on("hub.json", &["--sweep", "1s"]).await;
    daemon.says("cannot reach the hub").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    let unanswered = r#"geminid_hub_requests_total{code="none",hub="embedded",operation="query"}"#;
    let is_tried = async |times: f64| daemon.metric(unanswered).await.filter(|tried| *tried >= times);
    daemon.wait_until("three tries", async || is_tried(3.0).await).await;
    assert_eq!(daemon.metric(r#"geminid_hub_up{hub="embedded"}"#).await, Some(0.0));
    assert_eq!(daemon.lines_with("cannot reach the hub"), 1, "{}", daemon.stderr());

    let mut hub = world.hub("state", &address).await;
    daemon.wait_until("device", async || client.find("myDevice").await.filter(|twin| has_power_level(twin, 1))).await;
    daemon.says("the hub answers again").await;
    daemon.metric_is(r#"geminid_hub_up{hub="embedded"}"#, 1.0).await;

    hub.kill();
    daemon.wait_for("word of it", || daemon.lines_with("cannot reach the hub") == 2).await;
    let tries = daemon.metric(unanswered).await.unwrap();
    daemon.wait_until("two more tries", async || is_tried(tries + 2.0).await).await;
    let _hub = world.hub("state", &address).await;
    daemon.wait_for("word of its return", || daemon.lines_with("the hub answers again") == 2).await;
    assert_eq!(daemon.lines_with("cannot reach the hub"), 2, "{}", daemon.stderr());
    assert_eq!(daemon.interrupt().await, 0);
    assert_eq!(service_writes(&client.twin("myDevice").await.etag), 1);
}

#[tokio::test]
async fn a_wrong_key_is_one_error_with_hub_and_policy_and_without_the_key() {
    const WRONG_KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=";
    let world = World::new();
    example_manifests(&world);
    world.keep_secret(WRONG_KEY);
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let mut json = world.hub_json("state");
    world.client("state");
    for name in ["ownerConnectionString", "serviceConnectionString"] {
        let (rest, _) = json[name].as_str().unwrap().split_once("SharedAccessKey=").unwrap();
        json[name] = format!("{rest}SharedAccessKey={WRONG_KEY}").into();
    }
    world.write("wrong.json", &json.to_string());

    let mut daemon = world.run_on("wrong.json", &["--sweep", "1s", "--log-level", "trace"]).await;
    daemon.says(" ERROR ").await;
    let refused = r#"geminid_hub_requests_total{code="401",hub="embedded",operation="query"}"#;
    let is_tried = async || daemon.metric(refused).await.filter(|tried| *tried >= 3.0);
    daemon.wait_until("three tries", is_tried).await;
    let stderr = daemon.stderr();
    let is_trouble = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ") && !line.contains(".yaml:");
    let lines: Vec<&str> = stderr.lines().filter(is_trouble).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("localhost") && lines[0].contains("iothubowner"), "{lines:?}");
    assert_eq!(daemon.get("/livez").await.0, 200);
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    assert!(!daemon.get("/metrics").await.1.contains(WRONG_KEY));
    assert_eq!(daemon.interrupt().await, 0);

    let on_hub = ["--hub-json", "wrong.json"];
    let on_folder = ["--manifests", "manifests"];
    for (arguments, policy) in [
        ([&["plan"], &on_hub[..], &on_folder].concat(), "service"),
        ([&["apply"], &on_hub[..], &on_folder].concat(), "iothubowner"),
        ([&["query", "SELECT * FROM devices"], &on_hub[..]].concat(), "service"),
    ] {
        let (code, _, stderr) = world.run(&arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(policy) && errors[0].contains("localhost"), "{stderr}");
    }
}

#[tokio::test]
async fn what_cannot_start_says_so_in_one_line_with_exit_code_2() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("a-file", "text");
    world.write("unknown.toml", "ownr = \"fleet\"\n");
    world.write("unknown-of-hub.toml", "owner = \"x\"\n[hubs.prod]\nmanifests = \"manifests\"\nmanifest = \"m\"\n");
    let prod =
        |file| format!("owner = \"x\"\n[hubs.prod]\nmanifests = \"manifests\"\nconnection_string_file = \"{file}\"\n");
    world.write("no-string.toml", &prod("nowhere"));
    world.write("bad-string", "HostName=h;SharedAccessKey=canary-canary-canary");
    world.write("bad-string.toml", &prod("bad-string"));
    world.keep_secret("canary-canary-canary");
    let _hub = world.hub("hub", "127.0.0.1:0").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _held = TcpListener::bind(&taken);
    let embedded = |more: &[&str]| -> Vec<String> {
        let fixed = ["run", "--embedded-hub", "--manifests", "manifests", "--state-dir", "state"];
        let mqtts: &[&str] = if more.contains(&"--hub-mqtts") { &[] } else { &["--hub-mqtts", "127.0.0.1:0"] };
        fixed.iter().chain(more).chain(mqtts).map(|text| (*text).to_owned()).collect()
    };
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let free = "127.0.0.1:0";
    let on_hub = "--hub-json hub/hub.json";
    for (arguments, variables, expected) in [
        (embedded(&["--listen", &taken, "--hub-https", free]), &[][..], &["cannot listen on", &taken, "--listen"][..]),
        (embedded(&["--listen", free, "--hub-https", &taken]), &[], &[&taken, "--hub-https"]),
        (embedded(&["--listen", free, "--hub-https", free, "--hub-mqtts", &taken]), &[], &[&taken, "--hub-mqtts"]),
        (words(&format!("hub --state-dir other --hub-https {taken}")), &[], &[&taken, "--hub-https"]),
        (words("hub --state-dir hub --hub-https 127.0.0.1:0"), &[], &["another hub is running"]),
        (words("hub --state-dir a-file --hub-https 127.0.0.1:0"), &[], &["a-file"]),
        (words("hub --hub-https 0.0.0.0:0"), &[], &["--hub-allow-remote"]),
        (words("hub --hub-https here"), &[], &["--hub-https", "here"]),
        (words("validate nowhere"), &[], &["cannot read nowhere: "]),
        (words("validate a-file"), &[], &["a-file"]),
        (words("validate"), &[], &["<FOLDER>"]),
        (words(&format!("apply {on_hub} --manifests nowhere")), &[], &["cannot read nowhere: "]),
        (words(&format!("plan {on_hub} --manifests nowhere")), &[], &["cannot read nowhere: "]),
        (words("plan --hub-json nowhere.json --manifests manifests"), &[], &["nowhere.json", "geminid hub"]),
        (words("plan --hub-json a-file --manifests manifests"), &[], &["a-file", "JSON"]),
        (words("run --embedded-hub --nope"), &[], &["--nope"]),
        (words("nope"), &[], &["nope"]),
        (words("run --settings unknown.toml"), &[], &["ownr"]),
        (words("run --settings unknown-of-hub.toml"), &[], &["hubs.prod.manifest: "]),
        (words("run --settings nowhere.toml"), &[], &["nowhere.toml"]),
        (words("run --settings no-string.toml --listen 127.0.0.1:0"), &[], &["hub prod", "nowhere"]),
        (words("run --settings bad-string.toml --listen 127.0.0.1:0"), &[], &["hub prod"]),
        (words("run"), &[], &["no hub is configured", "--embedded-hub"]),
        (words("run --embedded-hub"), &[], &["--manifests"]),
        (words(&format!("run {on_hub}")), &[], &["--manifests"]),
        (embedded(&["--log-level", "loud,,=", "--listen", free, "--hub-https", free]), &[], &["log_level", "loud"]),
        (embedded(&["--log-format", "xml"]), &[], &["xml"]),
        (embedded(&["--sweep", "often"]), &[], &["--sweep", "often"]),
        (embedded(&["--owner", "No Owner", "--listen", free, "--hub-https", free]), &[], &["owner"]),
        (words("run --embedded-hub --manifests manifests"), &[("GEMINID_OWNR", "x")], &["GEMINID_OWNR"]),
        (words("plan --manifests manifests"), &[("GEMINID_LISTENS", "x")], &["GEMINID_LISTENS"]),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut process = world.start_with(&arguments, variables);
        let code = process.exit_code().await;
        let said = process.stderr();
        assert_eq!((code, process.stdout().as_str()), (2, ""), "{arguments:?}: {said}");
        let is_one_line = said.lines().count() == 1 && said.starts_with("error: ");
        assert!(is_one_line && expected.iter().all(|text| said.contains(text)), "{arguments:?}: {said}");
        assert!(said.matches("os error").count() <= 1, "said twice: {said}");
    }
}

#[tokio::test]
async fn a_missing_folder_is_said_once_and_waited_for() {
    let world = World::new();
    fs::remove_dir(world.path("manifests")).unwrap();
    let mut daemon = world.run_embedded("state", &[]).await;
    daemon.says("failed to load manifests").await;
    assert_eq!(daemon.interrupt().await, 0, "waiting for a folder does not hold up the end");
    let mut daemon = world.run_embedded("state", &[]).await;
    daemon.says("failed to load manifests").await;
    assert_eq!((daemon.get("/livez").await.0, daemon.get("/readyz").await.0), (200, 503));
    fs::create_dir(world.path("manifests")).unwrap();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let hub = world.client("state");
    daemon.wait_until("device", async || hub.find("d1").await.filter(|twin| has_power_level(twin, 1))).await;
    daemon.wait_until("readiness", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(daemon.lines_with("failed to load manifests"), 1, "{}", daemon.stderr());

    fs::rename(world.path("manifests"), world.path("away")).unwrap();
    daemon.wait_for("word of it", || daemon.lines_with("failed to load manifests") == 2).await;
    assert_eq!(daemon.get("/readyz").await.0, 200, "readiness latches");
    fs::rename(world.path("away"), world.path("manifests")).unwrap();
    daemon.says("manifests can be loaded again").await;
    assert_eq!(service_writes(&hub.twin("d1").await.etag), 1, "nothing was removed meanwhile");
    assert_eq!(daemon.interrupt().await, 0);
}

#[tokio::test]
async fn a_second_ctrl_c_ends_a_drain_that_hangs_with_130() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let hub = world.hub("state", "127.0.0.1:0").await;
    let mut daemon = world.run_on("state/hub.json", &[]).await;
    let client = world.client("state");
    daemon.wait_until("device", async || client.find("d1").await.filter(|twin| has_power_level(twin, 1))).await;
    // The hub shows a write before the daemon has its answer.
    daemon.metric_is(IN_SYNC, 1.0).await;
    hub.signal("STOP");
    world.write("manifests/d1.yaml", &device("d1", 2));
    let in_flight = r#"geminid_hub_requests_in_flight{hub="embedded"}"#;
    daemon.metric_is(in_flight, 1.0).await;
    daemon.signal("INT");
    daemon.says("press Ctrl-C again").await;
    daemon.says("waiting for what is under way").await;
    assert_eq!(daemon.interrupt().await, 130, "{}", daemon.stderr());
    daemon.says("stopped at once").await;

    hub.signal("CONT");
    let daemon = world.run_on("state/hub.json", &[]).await;
    daemon.wait_until("device", async || client.find("d1").await.filter(|twin| has_power_level(twin, 2))).await;
    assert_eq!(service_writes(&client.twin("d1").await.etag), 2);
}

#[tokio::test]
async fn a_first_ctrl_c_or_a_sigterm_waits_for_what_is_under_way() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    for (level, signal) in [(2, "INT"), (3, "TERM")] {
        let mut daemon = world.run_on("state/hub.json", &[]).await;
        daemon.says("sweep complete").await;
        daemon.wait_until("device", async || client.find("d1").await.filter(|t| has_power_level(t, level - 1))).await;
        daemon.metric_is(IN_SYNC, 1.0).await;
        hub.signal("STOP");
        world.write("manifests/d1.yaml", &device("d1", level));
        daemon.metric_is(r#"geminid_hub_requests_in_flight{hub="embedded"}"#, 1.0).await;
        daemon.signal(signal);
        daemon.says("waiting for what is under way").await;
        hub.signal("CONT");
        assert_eq!(daemon.exit_code().await, 0, "{}", daemon.stderr());
        assert!(has_power_level(&client.twin("d1").await, level), "the write was not cut off");
    }
    assert_eq!(service_writes(&client.twin("d1").await.etag), 3);
}

#[tokio::test]
async fn no_key_is_ever_said_not_even_at_trace_level() {
    for format in ["text", "json"] {
        let world = World::new();
        example_manifests(&world);
        let mut daemon = world.run_embedded("state", &["--log-level", "trace", "--log-format", format]).await;
        let hub = world.client("state");
        let json = world.hub_json("state").to_string();
        daemon.wait_until("device", async || hub.find("myDevice").await.filter(|twin| has_power_level(twin, 1))).await;
        for verb in [&["plan", "--manifests", "manifests"][..], &["query", "SELECT * FROM devices"]] {
            let more = ["--hub-json", "state/hub.json", "--log-level", "trace", "--log-format", format];
            assert_eq!(world.run(&[verb, &more].concat()).await.0, 0);
        }
        let metrics = daemon.get("/metrics").await.1;
        let (_, key) = json.split_once("SharedAccessKey=").unwrap();
        let key = &key[..40];
        assert!(!metrics.contains(key) && !metrics.contains("SharedAccess"), "{metrics}");
        assert_eq!(daemon.interrupt().await, 0);
        assert!(daemon.lines_with("TRACE") > 10, "trace level says a lot: {}", daemon.stderr());
        // What the processes said is searched for every key when the world ends.
    }
}

#[tokio::test]
async fn no_form_of_validate_shows_a_sensitive_value_of_a_broken_document() {
    let world = World::new();
    world.keep_secret("canary-7f3a-canary");
    let head = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1}\n\
                spec:\n  sensitive: [tags.token, properties.desired.wifi.password]\n";
    for (name, more) in [
        ("wrong-type", "  tags: canary-7f3a-canary\n"),
        ("twice", "  tags: {token: canary-7f3a-canary, token: canary-7f3a-canary}\n"),
        ("syntax", "  tags: {token: canary-7f3a-canary\n"),
        ("list", "  tags:\n    token:\n    - canary-7f3a-canary\n    - null\n"),
        ("tab", "  tags:\n\ttoken: canary-7f3a-canary\n"),
    ] {
        world.write("manifests/d1.yaml", &format!("{head}{more}"));
        for form in ["text", "json", "github"] {
            let (code, out, err) = world.run(&["validate", "-o", form, "manifests"]).await;
            assert_eq!(code, 1, "{name}: {out}{err}");
            assert!(!(out + &err).contains("canary"), "{name} {form}");
        }
    }
}

#[tokio::test]
async fn manifests_keep_to_the_paths_that_the_settings_allow() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let settings = |allow: &str| {
        format!(
            "owner = \"o\"\n[hubs.prod]\nmanifests = \"manifests\"\nconnection_string_file = \"none\"\nallow = [{allow}]\n"
        )
    };
    for (allow, expected, said) in [
        ("", 0, ""),
        ("\"properties.desired\", \"tags\"", 0, ""),
        (
            "\"tags.location\"",
            1,
            "properties.desired.power_level may not be declared on this hub, whose settings allow tags.location",
        ),
        ("\"tag\"", 2, "hub prod: allow: a path begins with tags or properties.desired"),
    ] {
        world.write("settings.toml", &settings(allow));
        let (code, out, err) = world.run(&["validate", "--settings", "settings.toml"]).await;
        assert_eq!((code, (out + &err).contains(said)), (expected, true), "{allow}");
    }
    let (code, _, err) = world.run(&["validate", "--settings", "settings.toml", "--hub", "test"]).await;
    assert_eq!((code, err.contains("configures no such hub; known are: prod")), (2, true), "{err}");
}
