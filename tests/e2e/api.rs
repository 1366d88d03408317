//! The status API and its commands, against a daemon on its embedded hub.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use geminid::twin::{Section, Value};
use serde_json::Value as Json;

use crate::support::{Process, World, device, has_power_level};

const TOKEN: &str = "canary-token-0123456789";

struct Asked<'a> {
    world: &'a World,
    server: String,
}

impl Asked<'_> {
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.world.run(&[arguments, &["--server", &self.server]].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Json {
        let (_, out, err) = self.run(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{err}"))
    }
}

fn server(daemon: &Process) -> String {
    daemon.announced("status ").trim_start_matches("geminid get --server ").to_owned()
}

#[tokio::test]
async fn every_command_of_a_running_daemon_answers() {
    let world = World::new();
    world.keep_secret(TOKEN);
    world.write("token", &format!("{TOKEN}\n"));
    world.write("manifests/d1.yaml", &device("d1", 1).replace("{name: d1}", "{name: d1, labels: {line: a}}"));
    world.write("manifests/d2.yaml", &device("d2", 1));
    world.write("manifests/d3.yaml", &device("d3", 1).replace("create: true", "create: false"));
    let daemon = world.run_embedded("state", &["--api-token-file", "token", "--audit-log", "audit.log"]).await;
    let client = world.client("state");
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 2.0).await;
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="missing"}"#, 1.0).await;
    let asked = Asked { world: &world, server: server(&daemon) };

    let (code, out, err) = asked.run(&["get"]).await;
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 4), "{out}");
    assert!(out.starts_with("HUB        TWIN   STATE     REASON"), "{out}");
    for (arguments, names) in [
        (&["--state", "missing"][..], "d3\n"),
        (&["-l", "line=a"], "d1\n"),
        (&["--limit", "2"], "d1\nd2\n"),
        (&["d[13]"], "d1\nd3\n"),
        (&["--reason", "Applied", "--hub", "embedded"], "d1\nd2\n"),
    ] {
        let (code, out, err) = asked.run(&[&["get", "-o", "name"], arguments].concat()).await;
        assert_eq!((code, out.as_str()), (0, names), "{arguments:?}: {err}");
    }
    let explained = asked.json(&["explain", "d1"]).await;
    let leaf = &explained["leaves"].as_array().unwrap()[1];
    assert_eq!((&leaf["path"], &leaf["holder"]), (&"properties.desired.power_level".into(), &"owned".into()));
    assert!(leaf["source"].as_str().unwrap().starts_with("d1.yaml:") && leaf["lastWrite"].is_string(), "{leaf}");
    let (code, out, _) = asked.run(&["explain", "d3"]).await;
    assert!(code == 1 && out.contains("missing (Synced=False, Missing") && out.contains("not registered"), "{out}");

    client.set("d1", Section::Desired, &["power_level"], Value::from(9)).await;
    client.set("d1", Section::Tags, &["theirs"], Value::from(7)).await;
    let explained = asked.json(&["explain", "d1"]).await;
    let of = |path: &str| {
        let found = explained["leaves"].as_array().unwrap().iter().find(|leaf| leaf["path"] == path);
        found.unwrap_or_else(|| panic!("no {path} in {explained}")).clone()
    };
    let power = of("properties.desired.power_level");
    assert_eq!((&power["declared"], &power["live"], &power["change"]), (&1.into(), &9.into(), &"set".into()));
    assert_eq!((&of("tags.theirs")["holder"], &of("tags.theirs")["isDeclared"]), (&"foreign".into(), &false.into()));

    let (code, out, err) = asked.run(&["reconcile", "d1", "--token-file", "token"]).await;
    assert_eq!((code, out.as_str()), (0, "d1: reconciled\n"), "{err}");
    assert!(has_power_level(&client.twin("d1").await, 1), "it was reconciled when the command said so");
    let (code, out, err) = asked.run(&["reconcile", "--all", "--token-file", "token"]).await;
    assert!(code == 0 && out.starts_with("all twins: swept"), "{out}{err}");
    let (_, token, _) = asked.run(&["reconcile", "d1", "--no-wait", "--token-file", "token"]).await;
    let handled = async || {
        let explained = asked.json(&["explain", "d1"]).await;
        (explained["lastHandledReconcile"] == token.trim()).then_some(())
    };
    daemon.wait_until("the token in the status", handled).await;

    let (code, out, err) = asked.run(&["suspend", "d1", "--reason", "bench test", "--token-file", "token"]).await;
    assert_eq!((code, out.as_str()), (0, "d1: suspended, until `geminid resume d1`\n"), "{err}");
    client.set("d1", Section::Desired, &["power_level"], Value::from(9)).await;
    let suspended = async || asked.run(&["explain", "d1"]).await.1.contains("bench test").then_some(());
    daemon.wait_until("the reason in the status", suspended).await;
    let (code, _, err) = asked.run(&["reconcile", "d1", "--token-file", "token"]).await;
    assert!(code == 0 && has_power_level(&client.twin("d1").await, 9), "a suspended twin is left alone: {err}");
    let (code, out, err) = asked.run(&["resume", "d1", "--token-file", "token"]).await;
    assert_eq!((code, out.as_str()), (0, "d1: resumed\n"), "{err}");
    let corrected = async || has_power_level(&client.twin("d1").await, 1).then_some(());
    daemon.wait_until("correction after the end of the suspension", corrected).await;

    let (code, out, _) = asked.run(&["events", "d1"]).await;
    assert!(code == 0 && out.contains("Written") && out.contains("properties.desired.power_level"), "{out}");
    let audit = std::fs::read_to_string(world.path("audit.log")).unwrap();
    assert!(audit.contains(r#""cause":"drift""#) && !daemon.stdout().contains("formatVersion"), "{audit}");
}

#[tokio::test]
async fn what_may_not_be_asked_is_refused_in_one_sentence() {
    let world = World::new();
    world.keep_secret(TOKEN);
    world.write("token", TOKEN);
    world.write("wrong", "wrong-token-0123456789");
    world.write("manifests/d1.yaml", &device("d1", 1));
    let open = world.run_embedded("open", &[]).await;
    let daemon = world.run_embedded("state", &["--api-token-file", "token", "--api-listen", "127.0.0.1:0"]).await;
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 1.0).await;
    let asked = Asked { world: &world, server: server(&daemon) };
    assert_eq!(daemon.get("/api/v1/version").await.0, 404, "the API has a port of its own");
    let no_file = Asked { world: &world, server: server(&open) };
    let nobody = Asked { world: &world, server: "http://127.0.0.1:1".to_owned() };
    let no_token = "error: a bearer token is needed; send that of api_token_file (--token-file)\n";
    for (asked, arguments, expected) in [
        (&no_file, &["reconcile", "d1"][..], "error: actions are off; name a file with a token"),
        (&asked, &["reconcile", "d1"], no_token),
        (&asked, &["reconcile", "d1", "--token-file", "wrong"], "error: the token is not that of api_token_file"),
        (&asked, &["reconcile", "d1", "--token-file", "gone"], "error: --token-file: cannot read gone"),
        (&asked, &["reconcile", "nope", "--token-file", "token"], "error: nope is not managed on hub embedded"),
        (&asked, &["explain", "nope"], "error: nope is not managed on hub embedded; see geminid get"),
        (&asked, &["explain", "d1", "--hub", "prod"], "error: no hub prod is configured; there are embedded"),
        (
            &asked,
            &["approve", "removals", "--revision", "r", "--count", "1", "--token-file", "token"],
            "error: the manifests are at ",
        ),
        (&asked, &["get", "--state", "fine"], "error: \"fine\" is no state; there are in_sync"),
        (
            &nobody,
            &["get"],
            "error: no daemon answers at http://127.0.0.1:1 (Connection refused (os error 111)); start one with `geminid run`",
        ),
    ] {
        let (code, out, err) = asked.run(arguments).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.starts_with(expected), "{arguments:?}: {err}");
    }
    let hub = world.run(&["get", "--server", &format!("https://{}", daemon.announced("embedded hub "))]).await;
    assert_eq!(hub.0, 2, "what answers is no geminid");
}

#[tokio::test]
async fn slow_clients_hold_up_nobody_and_another_host_s_name_is_refused() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let mut daemon = world.run_embedded("state", &[]).await;
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 1.0).await;
    let server = server(&daemon);
    let address = server.trim_start_matches("http://");
    let mut slow: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /api/v1/hubs HTTP/1.1\r\nHo").unwrap();
    }
    let asked = Asked { world: &world, server: server.clone() };
    assert_eq!(asked.run(&["get", "-o", "name"]).await.1, "d1\n");
    let mut rebound = TcpStream::connect(address).unwrap();
    rebound.write_all(b"GET /api/v1/hubs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    rebound.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("the Host header is neither"), "{answer}");
    assert_eq!(daemon.interrupt().await, 0, "clients that wait do not hold up the end");
}

#[tokio::test]
async fn a_server_with_a_certificate_of_its_own_is_asked_with_its_authority() {
    let world = World::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    world.write("cert.pem", &made.cert.pem());
    world.write("key.pem", &made.signing_key.serialize_pem());
    world.write("web.yml", "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n");
    world.write("manifests/d1.yaml", &device("d1", 1));
    let daemon = world.run_embedded("state", &["--web-config", "web.yml"]).await;
    let asked = Asked { world: &world, server: server(&daemon) };
    assert!(asked.server.starts_with("https://"), "{}", asked.server);
    let served = async || asked.run(&["get", "-o", "name", "--server-ca-file", "cert.pem"]).await;
    daemon
        .wait_until("the first twin", async || (served().await == (0, "d1\n".into(), String::new())).then_some(()))
        .await;
    let plain = Asked { world: &world, server: asked.server.replace("https", "http") };
    for (asked, arguments, expected) in [
        (&asked, &["get"][..], "name its authority with --server-ca-file"),
        (&asked, &["get", "--server-ca-file", "key.pem"], "key.pem holds no certificate in PEM"),
        (&asked, &["get", "--server-ca-file", "none.pem"], "--server-ca-file: cannot read none.pem"),
        (&plain, &["get", "--server-ca-file", "cert.pem"], "is for a --server with https://"),
    ] {
        let (code, out, err) = asked.run(arguments).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn hubs_tell_how_much_of_the_hub_is_ours() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("hub.secret", world.hub_json("state")["ownerConnectionString"].as_str().unwrap());
    // The rates of `iot-hub.md` 6.1 times `budget`, and the messages of 6.2 times `quota_share`.
    for (of_hub, rates, messages) in [
        ("tier = \"S1\"\nunits = 1", [20.0 / 60.0 * 0.5, 50.0, 25.0, 100.0 / 60.0 * 0.5], 40_000),
        (
            "tier = \"S2\"\nunits = 40\nbudget = 0.25\nquota_share = 0.2",
            [800.0 / 60.0 * 0.25, 100.0, 50.0, 4_000.0 / 60.0 * 0.25],
            48_000_000,
        ),
        ("tier = \"S3\"\nunits = 2\nbudget = 1.0", [2_000.0 / 60.0, 1_000.0, 500.0, 10_000.0 / 60.0], 60_000_000),
    ] {
        world.write(
            "settings.toml",
            &format!(
                "owner = \"o\"\nlisten = \"127.0.0.1:0\"\n[hubs.h]\nmanifests = \"manifests\"\n\
                 connection_string_file = \"hub.secret\"\nca_file = \"state/ca.pem\"\n{of_hub}\n"
            ),
        );
        let mut daemon = world.start(&["run", "--settings", "settings.toml"]);
        daemon.wait_for("the daemon's announcement", || daemon.stdout().contains("stop")).await;
        daemon.metric_is(r#"geminid_twins{hub="h",state="in_sync"}"#, 1.0).await;
        let hubs: Json = serde_json::from_str(&daemon.get("/api/v1/hubs").await.1).unwrap();
        let budget = &hubs["items"][0]["budget"];
        let fields = ["queriesPerSecond", "readsPerSecond", "writesPerSecond", "createsPerSecond"];
        for (field, expected) in fields.into_iter().zip(rates) {
            let rate = budget[field].as_f64().unwrap();
            assert!((rate - expected).abs() < 1e-9, "{field} is {rate}, not {expected}: {of_hub}");
        }
        assert_eq!(budget["messagesPerDay"], messages, "{of_hub}");
        let used = budget["messagesUsed"].as_u64().unwrap();
        assert!((1..100).contains(&used), "a page each of devices and modules, and no more than a few: {used}");
        assert_eq!(daemon.interrupt().await, 0);
    }
    let daemon = world.run_on("state/hub.json", &[]).await;
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 1.0).await;
    let hubs: Json = serde_json::from_str(&daemon.get("/api/v1/hubs").await.1).unwrap();
    assert_eq!(hubs["items"][0].get("budget"), None, "without a tier there is no limit to tell of");
}
