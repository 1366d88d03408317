//! Secrets planted where people keep them, looked for wherever anything is said.
//!
//! The keys of the hub are looked for by every [`World`] that ends; here the values of sensitive properties are, and
//! tokens. `export`, `query` and the file of `plan --out` are not among them: they exist to say what stands at the hub,
//! or will.

use std::fs;
use std::path::Path;

use geminid::twin::{Section, Value};

use crate::support::{Process, World, leaf};

const DECLARED: &str = "canary-declared-7f3a";
const EDITED: &str = "canary-edited-91bc";
const LIVE: &str = "canary-live-55de";

fn manifest(password: &str, sensitive: bool) -> String {
    let sensitive = if sensitive { "  sensitive: [properties.desired.wifi]\n" } else { "" };
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: d1}}\nspec:\n  create: true\n{sensitive}  \
         properties: {{desired: {{wifi: {{password: \"{password}\"}}}}}}\n"
    )
}

fn assert_silent(what: &str, text: &str) {
    for secret in [DECLARED, EDITED, LIVE, "SharedAccessKey=", "&sig="] {
        assert!(!text.contains(secret), "{what} holds {secret}:\n{text}");
    }
}

/// The answers of the API name the leaf, and hide its values.
async fn assert_api_silent(daemon: &Process) {
    for (path, says) in [
        ("/api/v1/version", "formatVersion"),
        ("/api/v1/hubs", "embedded"),
        ("/api/v1/twins", "d1"),
        ("/api/v1/hubs/embedded/twins/d1", "wifi.password"),
        ("/api/v1/events", "wifi.password"),
        ("/api/v1/requests/none", "NotFound"),
    ] {
        let (_, text) = daemon.get(path).await;
        assert!(text.contains(says), "{path} says nothing that could hold a secret: {text}");
        assert_silent(path, &text);
    }
}

/// A plan that is kept holds what it writes; what is told of it, and of its application, does not.
async fn assert_kept_plan_silent(world: &World) {
    // The daemon knows nothing of this one, so nobody writes it between the plan and its application.
    fs::create_dir(world.path("others")).unwrap();
    world.write("others/d2.yaml", &manifest(EDITED, true).replace("d1", "d2"));
    let on_hub = ["--hub-json", "state/hub.json", "--manifests", "others", "--log-level", "trace", "--owner", "other"];
    for verb in [&["plan", "--out", "plan.json"][..], &["apply", "plan.json", "--audit-log", "kept.log"]] {
        let (code, out, err) = world.run(&[verb, &on_hub].concat()).await;
        assert!(code < 2, "{verb:?}: {err}");
        assert_silent(&verb.join(" "), &(out + &err));
    }
    let audit = fs::read_to_string(world.path("kept.log")).unwrap();
    assert!(audit.contains("wifi.password") && audit.contains("<hidden "), "{audit}");
    assert_silent("the audit log of a kept plan", &audit);
}

#[tokio::test]
async fn a_planted_secret_is_in_no_output_no_log_no_metric_and_no_audit_line() {
    let world = World::new();
    [DECLARED, EDITED, LIVE].iter().for_each(|secret| world.keep_secret(secret));
    world.write("manifests/d1.yaml", &manifest(DECLARED, true));
    let more = ["--sweep", "1s", "--log-level", "trace", "--audit-log", "audit.log"];
    let mut daemon = world.run_embedded("state", &more).await;
    let client = world.client("state");
    let holds = async |secret: &str| {
        let twin = client.find("d1").await?;
        (leaf(&twin, Section::Desired, &["wifi", "password"]) == Some(Value::from(secret))).then_some(())
    };
    daemon.wait_until("declared secret", async || holds(DECLARED).await).await;
    client.set("d1", Section::Desired, &["wifi", "password"], Value::from(LIVE)).await;
    daemon.wait_until("correction", async || holds(DECLARED).await).await;
    world.write("manifests/d1.yaml", &manifest(EDITED, true));
    daemon.wait_until("edited secret", async || holds(EDITED).await).await;
    for path in ["/metrics", "/readyz", "/livez", "/nothing"] {
        assert_silent(path, &daemon.get(path).await.1);
    }

    client.set("d1", Section::Desired, &["wifi", "password"], Value::from(LIVE)).await;
    assert_api_silent(&daemon).await;
    client.set("d1", Section::Desired, &["wifi", "password"], Value::from(LIVE)).await;
    let on_hub = ["--hub-json", "state/hub.json", "--manifests", "manifests", "--log-level", "trace"];
    for verb in [
        &["plan"][..],
        &["plan", "--detailed"],
        &["plan", "-o", "json"],
        &["plan", "-o", "yaml"],
        &["plan", "-o", "markdown"],
        &["plan", "--out", "plan.json"],
        &["apply", "-o", "json"],
        &["apply", "--log-format", "json"],
    ] {
        let (code, out, err) = world.run(&[verb, &on_hub].concat()).await;
        assert!(code < 2, "{verb:?}: {err}");
        assert_silent(&verb.join(" "), &(out + &err));
    }
    assert_kept_plan_silent(&world).await;
    assert_eq!(daemon.interrupt().await, 0);
    assert_silent("the daemon", &(daemon.stdout() + &daemon.stderr()));
    let audit = fs::read_to_string(world.path("audit.log")).unwrap();
    assert!(audit.lines().count() >= 3 && audit.contains("wifi.password"), "{audit}");
    assert_silent("the audit log", &audit);

    // A broken manifest beside it, a plan that is none, a credential that is wrong: errors quote what they met.
    world.write("manifests/d1.yaml", &manifest(EDITED, true).replace("password", "pass.word"));
    for verb in [
        &["validate", "manifests"][..],
        &["validate", "manifests", "-o", "json"],
        &["validate", "manifests", "-o", "github"],
    ] {
        let (code, out, err) = world.run(verb).await;
        assert_eq!(code, 1, "{out}{err}");
        assert_silent(&verb.join(" "), &(out + &err));
    }
    let wrong = format!("HostName=127.0.0.1:1;SharedAccessKeyName=service;SharedAccessKey={DECLARED}");
    world.write("wrong.secret", &wrong);
    world.write(
        "settings.toml",
        "owner = \"o\"\n[hubs.h]\nmanifests = \"manifests\"\nconnection_string_file = \"wrong.secret\"\n",
    );
    for verb in ["plan", "apply"] {
        let (code, out, err) = world.run(&[verb, "--settings", "settings.toml", "--log-level", "trace"]).await;
        assert_eq!(code, 2, "{out}{err}");
        assert_silent(verb, &(out + &err));
    }
    let (code, out, err) = world.run(&["device", "--connection-string-file", "wrong.secret"]).await;
    assert_eq!(code, 2, "{out}{err}");
    assert_silent("device", &(out + &err));
    assert!(Path::new(&world.path("plan.json")).exists());
}
