//! `device --count`: a fleet of simulated devices on an embedded hub.

use std::process::Command;

use geminid::twin::{Section, Value};
use serde_json::json;

use crate::support::{Process, World};

const TEMPLATE: &str = r#"{"deviceId":"pump-{n}","tags":{"n":{n}}}"#;
const FLEET: [&str; 8] =
    ["device", "--count", "20", "--id", "pump-{n}", "--hub-json", "state/hub.json", "--log-level=trace"];

async fn filled_hub(world: &World, ports: [&str; 2]) -> Process {
    world.write("twin.json", TEMPLATE);
    let [https, mqtts] = ports;
    let fixed = ["hub", "--state-dir", "state", "--fill-devices", "20", "--fill-template", "twin.json"];
    let hub = world.start(&[&fixed[..], &["--hub-https", https, "--hub-mqtts", mqtts]].concat());
    hub.wait_for("the hub's announcement", || hub.stdout().contains("stop")).await;
    hub
}

/// What a hub says of one of its devices, to one with all rights.
async fn ask(world: &World, path: &str, body: Option<serde_json::Value>) -> serde_json::Value {
    let (address, token, http) = world.raw_client("state");
    let url = format!("https://{address}{path}?api-version=2021-04-12");
    let request = match body {
        None => http.get(url),
        Some(body) => http.post(url).json(&body),
    };
    let answer = request.header("Authorization", token).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

async fn keep_device_keys(world: &World) {
    for number in 0..20 {
        let identity = ask(world, &format!("/devices/pump-{number}"), None).await;
        for key in ["primaryKey", "secondaryKey"] {
            world.keep_secret(identity["authentication"]["symmetricKey"][key].as_str().unwrap());
        }
    }
}

async fn how_many_report_cellular(world: &World) -> Option<usize> {
    let query = "SELECT COUNT() AS n FROM devices WHERE properties.reported.connectivity = 'cellular'";
    let (code, out, err) = world.run(&["query", query, "-o", "csv", "--hub-json", "state/hub.json"]).await;
    assert_eq!(code, 0, "{err}");
    out.lines().last()?.parse().ok()
}

fn last_summary(fleet: &Process) -> String {
    let said = fleet.stderr();
    said.lines().rfind(|line| line.contains("INFO fleet ")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_fleet_connects_reports_hears_what_is_for_each_and_comes_back_when_its_hub_does() {
    let world = World::new();
    let mut hub = filled_hub(&world, ["127.0.0.1:0", "127.0.0.1:0"]).await;
    let client = world.client("state");
    keep_device_keys(&world).await;
    let report = ["--report", r#"{"connectivity":"cellular","serial":"S{n}"}"#, "--rate", "100"];
    let mut fleet = world.start(&[&FLEET[..], &report].concat());
    fleet.says("fleet devices=20 connected=20 ").await;
    fleet
        .wait_until("reports of all", async || (how_many_report_cellular(&world).await == Some(20)).then_some(()))
        .await;
    let serial = ask(&world, "/twins/pump-7", None).await["properties"]["reported"]["serial"].clone();
    assert_eq!(serial, "S7");

    client.set("pump-7", Section::Desired, &["level"], Value::from("high")).await;
    fleet.wait_for("the patch", || fleet.stdout().contains("level")).await;
    assert_eq!(fleet.stdout(), "pump-7: desired {\"$version\":2,\"level\":\"high\"}\n", "it is that device's alone");
    let call = json!({"methodName": "reboot", "payload": {"in": 5}, "responseTimeoutInSeconds": 30});
    let answer = ask(&world, "/twins/pump-3/methods", Some(call)).await;
    assert_eq!(answer, json!({"status": 200, "payload": {"in": 5}}));

    let ports = ["https", "mqtts"].map(|port| world.hub_json("state")[port].as_str().unwrap().to_owned());
    assert_eq!(hub.interrupt().await, 0);
    fleet.wait_for("the loss", || fleet.lines_with("not connected") >= 20).await;
    let _again = filled_hub(&world, [&ports[0], &ports[1]]).await;
    fleet.wait_for("all to come back", || fleet.lines_with("fleet devices=20 connected=20 ") >= 2).await;
    world.client("state").set("pump-11", Section::Desired, &["level"], Value::from("low")).await;
    fleet.wait_for("the patch", || fleet.stdout().contains("pump-11: desired")).await;

    assert_eq!(fleet.interrupt().await, 0);
    for value in ["high", "low", "cellular", "S7"] {
        assert!(!fleet.stderr().contains(&format!("\"{value}\"")), "the log holds no values, they may be secrets");
    }
    let last = last_summary(&fleet);
    assert!(last.contains("reports=20 patches=2 methods=1"), "{last}");
    assert_eq!(fleet.stdout().lines().count(), 3, "{}", fleet.stdout());
    let statistics = ask(&world, "/statistics/service", None).await;
    assert_eq!(statistics["connectedDeviceCount"], 0, "each took its leave");
}

#[tokio::test]
async fn a_fleet_that_cannot_be_is_refused_in_one_sentence() {
    let world = World::new();
    let _hub = filled_hub(&world, ["127.0.0.1:0", "127.0.0.1:0"]).await;
    let service = world.hub_json("state")["serviceConnectionString"].as_str().unwrap().to_owned();
    world.client("state");
    world.write("service.secret", &service);
    let ca = world.hub_json("state")["caFile"].as_str().unwrap().to_owned();
    let hub = format!(
        "[hubs.h]\nmanifests = \"manifests\"\nconnection_string_file = \"service.secret\"\nca_file = \"{ca}\"\n"
    );
    world.write("settings.toml", &hub);
    let (policy, _) = service.split_once(";SharedAccessKey=").unwrap();
    world.write("wrong.secret", &format!("{policy};SharedAccessKey=Y2FuYXJ5LWNhbmFyeS1jYW5hcnk="));
    world.keep_secret("Y2FuYXJ5LWNhbmFyeS1jYW5hcnk=");
    world.write("wrong.toml", &hub.replace("service.secret", "wrong.secret"));
    let on_hub = "--hub-json state/hub.json";
    for (flags, says) in [
        (String::new(), "--connection-string-file FILE for one device, or --count NUMBER for many"),
        (format!("--count 0 {on_hub}"), "a fleet has 1 to 10000 devices, not 0"),
        (format!("--count 10001 {on_hub}"), "a fleet has 1 to 10000 devices, not 10001"),
        (format!("--count many {on_hub}"), "invalid value 'many' for '--count <NUMBER>'"),
        (format!("--count 2 --id pump {on_hub}"), "has no place for the device's number; write {n} where it goes"),
        (format!("--count 2 --id p/{{n}} {on_hub}"), "device 0 of the fleet: an id may not hold '/'"),
        (format!("--count 2 --report [{{n}}] {on_hub}"), "device 0 of the fleet reports something else than an object"),
        (format!("--count 2 --rate 0 {on_hub}"), "0 is not in 1..=1000"),
        (format!("--count 2 {on_hub}"), "device device-0 is not registered at localhost; register the devices first"),
        ("--count 2".to_owned(), "name it with --hub-json or --settings"),
        ("--count 2 --hub-json nowhere.json".to_owned(), "is `geminid hub` running?"),
        ("--count 2 --id pump-{n} --settings settings.toml".to_owned(), "a policy with RegistryRead"),
        ("--count 2 --settings wrong.toml -vv".to_owned(), "refuses policy service (401"),
        ("--count 2 --connection-string-file service.secret".to_owned(), "cannot be used with"),
        ("--id pump-{n}".to_owned(), "--count <NUMBER>"),
        (format!("--count 2 --ca-file twin.json {on_hub}"), "the file holds no certificate"),
    ] {
        let arguments: Vec<&str> = std::iter::once("device").chain(flags.split_whitespace()).collect();
        let (code, out, err) = world.run(&arguments).await;
        // What -vv tells goes before it.
        let sentences: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        let alone = flags.contains("-vv") || err.lines().count() == 1;
        assert_eq!((code, out.as_str(), alone, sentences.len()), (2, "", true, 1), "{flags}: {err}");
        assert!(sentences[0].contains(says), "{flags}: {err}");
    }
}

#[tokio::test]
async fn a_fleet_that_may_not_open_enough_connections_says_so_and_a_soft_limit_is_raised() {
    let world = World::new();
    let _hub = filled_hub(&world, ["127.0.0.1:0", "127.0.0.1:0"]).await;
    let limited = |limit: &str, count: &str| {
        let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
        let arguments = ["device", "--count", count, "--id", "pump-{n}", "--hub-json", "state/hub.json"];
        let mut shell = Command::new("sh");
        world.spawn(shell.args(["-c", &script, env!("CARGO_BIN_EXE_geminid")]), &arguments, &[])
    };
    let mut refused = limited("-n 80", "20");
    assert_eq!(refused.exit_code().await, 2);
    let sentence =
        "error: --count: 20 connections need 84 open files, and this process may have 80; raise `ulimit -n`\n";
    assert_eq!(refused.stderr(), sentence);
    let mut raised = limited("-S -n 40", "20");
    raised.says("connected=20 ").await;
    assert_eq!(raised.interrupt().await, 0);
}

#[tokio::test]
async fn a_fleet_whose_devices_are_registered_in_part_runs_with_those_and_says_what_the_others_lack() {
    let world = World::new();
    let _hub = filled_hub(&world, ["127.0.0.1:0", "127.0.0.1:0"]).await;
    let mut fleet = world.start(&[
        "device",
        "--count",
        "22",
        "--id",
        "pump-{n}",
        "--rate",
        "1000",
        "--hub-json",
        "state/hub.json",
        "-v",
    ]);
    fleet.wait_for("the others", || fleet.lines_with("the device is not registered") >= 2).await;
    fleet.wait_for("connections", || fleet.lines_with("DEBUG connected twin=") >= 20).await;
    assert_eq!(fleet.interrupt().await, 0);
    let last = last_summary(&fleet);
    assert!(last.contains("connected=20") && last.contains("away=\"2: the device is not registered\""), "{last}");
}
