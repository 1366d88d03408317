//! `plan` and `apply` as people, programs and pull requests see them, and a plan that is kept and applied later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use geminid::twin::{Section, Value};

use crate::support::{World, device, has_power_level, leaf, service_writes};

const ON_HUB: [&str; 4] = ["--hub-json", "state/hub.json", "--manifests", "manifests"];

fn on_hub<'a>(verb: &[&'a str]) -> Vec<&'a str> {
    [verb, &ON_HUB[..]].concat()
}

/// Salted hashes are other ones in each process.
pub(crate) fn without_salt(text: &str) -> String {
    let mut pieces = text.split("<hidden ");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + "<hidden " + "########" + piece.get(8..).unwrap_or_default())
}

/// A fleet of which one twin was changed outside, one in Git, one is new, one is to be registered, one is held, one is
/// missing, one has lost its manifest and one is in sync.
async fn mixed(world: &World) -> crate::support::Client {
    let client = world.client("state");
    let labelled = |name: &str, level| device(name, level).replace("}\nspec", ", labels: {plant: r43}}\nspec");
    for name in ["drifted", "edited", "gone", "same"] {
        world.write(&format!("manifests/{name}.yaml"), &labelled(name, 1));
    }
    let (code, ..) = world.run(&on_hub(&["apply"])).await;
    assert_eq!(code, 0);
    client.set("drifted", Section::Desired, &["power_level"], Value::from("\u{1b}[31m```")).await;
    client
        .set("drifted", Section::Tags, &["geminid", "other-team"], Value::parse_json(r#"{"v":1,"o":[]}"#).unwrap())
        .await;
    world.write("manifests/edited.yaml", &device("edited", 2).replace("tags: {plant: Redmond43}", "tags: {room: 4}"));
    fs::remove_file(world.path("manifests/gone.yaml")).unwrap();
    client.create("new").await;
    let secret = "properties: {desired: {wifi: {key: \"canary-canary-1\"}}}";
    let new = device("new", 1).replace("properties: {desired: {power_level: 1}}", secret);
    world.write("manifests/new.yaml", &new.replace("spec:", "spec:\n  sensitive: [properties.desired.wifi.key]"));
    world.write("manifests/register.yaml", &device("register", 1));
    client.create("held").await;
    client.set("held", Section::Tags, &["plant", "```</details>"], Value::from("x")).await;
    world.write("manifests/held.yaml", &device("held", 1));
    world.write("manifests/missing.yaml", &device("missing", 1).replace("create: true", "create: false"));
    client
}

#[tokio::test]
async fn a_plan_reads_the_same_in_every_form_and_hides_what_is_sensitive() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = mixed(&world).await;
    world.keep_secret("canary-canary-1");
    let before = client.twin("drifted").await;
    for (form, more) in [
        ("text", &[][..]),
        ("detailed", &["--detailed"]),
        ("markdown", &["-o", "markdown"]),
        ("json", &["-o", "json"]),
        ("yaml", &["-o", "yaml"]),
        ("name", &["-o", "name"]),
        ("label", &["-l", "plant=r43"]),
        ("glob", &["--device", "{new,gone}"]),
        ("colour", &["--device", "edited", "--color", "always"]),
    ] {
        let (code, out, err) = world.run(&on_hub(&[&["plan"], more].concat())).await;
        assert_eq!((code, err.as_str()), (1, ""), "{form}: {out}");
        insta::assert_snapshot!(format!("plan_{form}"), without_salt(&out));
        if form == "json" {
            let json: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!((&json["formatVersion"], &json["counts"]["twins"]), (&1.into(), &8.into()));
        }
    }
    assert_eq!(client.twin("drifted").await, before, "a plan writes nothing");
    assert!(client.find("register").await.is_none(), "a plan registers nothing");
}

#[tokio::test]
async fn a_kept_plan_is_applied_as_it_is_and_refused_where_somebody_wrote_since() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    for name in ["a", "b", "c"] {
        world.write(&format!("manifests/{name}.yaml"), &device(name, 1));
    }
    client.create("a").await;
    client.create("b").await;
    let secret = device("a", 1).replace("{power_level: 1}", "{power_level: 1, key: \"canary-canary-2\"}");
    world.write("manifests/a.yaml", &secret.replace("spec:", "spec:\n  sensitive: [properties.desired.key]"));
    world.keep_secret("canary-canary-2");
    let (code, out, _) = world.run(&on_hub(&["plan", "--out", "plan.json"])).await;
    assert_eq!((code, out.contains("kept in plan.json")), (1, true), "{out}");
    let file = world.path("plan.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("canary-canary-2"), "the plan is what will be written");

    // What Git says by now does not matter, and who wrote in between is not written over.
    world.write("manifests/a.yaml", &device("a", 7));
    client.set("b", Section::Tags, &["by"], Value::from("hand")).await;
    let apply = ["apply", "plan.json", "--hub-json", "state/hub.json", "--audit-log", "audit.jsonl"];
    let (code, out, _) = world.run(&apply).await;
    let expected = "b: refused: it changed since it was planned; plan again\n3 planned writes: 2 applied, 1 refused\n";
    assert_eq!((code, out.as_str()), (1, expected));
    let (a, b, c) = (client.twin("a").await, client.twin("b").await, client.twin("c").await);
    assert!(has_power_level(&a, 1) && has_power_level(&c, 1));
    assert_eq!(leaf(&a, Section::Desired, &["key"]), Some(Value::from("canary-canary-2")));
    assert_eq!((leaf(&b, Section::Desired, &["power_level"]), service_writes(&b.etag)), (None, 1));

    let audit = fs::read_to_string(world.path("audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |line: &serde_json::Value| format!("{} {} {}", line["twin"], line["action"], line["outcome"]);
    let mut told: Vec<String> = lines.iter().map(told).collect();
    told.sort();
    assert_eq!(told, [r#""a" "patch" "applied""#, r#""c" "create" "applied""#, r#""c" "patch" "applied""#]);
    let line = lines.iter().find(|line| line["twin"] == "a").unwrap();
    assert_eq!(
        (&line["cause"], &line["lane"], &line["seal"]),
        (&"first_contact".into(), &"sweep".into(), &"written".into())
    );
    assert!(line["changes"][0]["path"] == "tags.plant" && line["etagAfter"] == a.etag.as_str(), "{line}");
    assert!(line["changes"][0]["source"].as_str().unwrap().starts_with("a.yaml:"), "{line}");
    assert!(
        line["changes"][1]["after"].as_str().unwrap().starts_with("<hidden ") && !audit.contains("canary"),
        "{line}"
    );

    let (code, out, _) = world.run(&[&apply[..], &["-o", "json"]].concat()).await;
    assert_eq!(code, 1, "{out}");
    assert_eq!(
        fs::read_to_string(world.path("audit.jsonl")).unwrap(),
        audit,
        "nothing was written, so nothing is told"
    );
    insta::assert_snapshot!("apply_plan_json", out);
    assert_eq!((client.twin("a").await, client.twin("c").await), (a, c), "applying twice is applying once");

    world.write("manifests/a.yaml", &secret);
    let (code, out, _) = world.run(&on_hub(&["plan"])).await;
    assert_eq!((code, out.contains("3 twins: 1 to change, 2 in sync")), (1, true), "the seals stand: {out}");

    let other = [&apply[..], &["--owner", "other"]].concat();
    let (code, _, err) = world.run(&other).await;
    assert_eq!(
        (code, err.as_str()),
        (2, "error: the plan was made for owner demo, this is other; use the same --owner\n")
    );
    let old = fs::read_to_string(&file).unwrap().replace("\"formatVersion\": 3", "\"formatVersion\": 1");
    world.write("old.json", &old);
    let (code, _, err) = world.run(&["apply", "old.json", "--hub-json", "state/hub.json"]).await;
    let expected = "error: old.json has format 1, this version applies 3 alone; plan again with this version\n";
    assert_eq!((code, err.as_str()), (2, expected));
    let (code, _, err) = world.run(&["apply", "state/hub.json", "--hub-json", "state/hub.json"]).await;
    assert_eq!((code, err.contains("is no plan: it has no formatVersion")), (2, true), "{err}");
}

#[tokio::test]
async fn a_kept_plan_leaves_alone_what_a_manifest_suspends_by_now() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    for name in ["a", "b", "c", "d"] {
        world.write(&format!("manifests/{name}.yaml"), &device(name, 1));
    }
    let (code, ..) = world.run(&on_hub(&["plan", "--out", "plan.json"])).await;
    assert_eq!(code, 1);
    let suspended = |name: &str, until: &str| {
        let annotations = format!("annotations: {{geminid.dev/suspend: \"bench test\"{until}}}");
        device(name, 7).replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, {annotations}}}"))
    };
    world.write("manifests/a.yaml", &suspended("a", ""));
    world.write("manifests/b.yaml", &suspended("b", ", geminid.dev/suspend-until: \"2020-01-01T00:00:00Z\""));
    world.write("manifests/c.yaml", &device("c", 1).replace("create: true", "create: perhaps"));
    fs::remove_file(world.path("manifests/d.yaml")).unwrap();
    let (code, out, err) = world.run(&on_hub(&["apply", "plan.json"])).await;
    assert_eq!(code, 1, "{err}");
    assert!(out.starts_with("a: held: suspended: bench test\nc: held: the manifest at c.yaml:"), "{out}");
    assert!(out.ends_with("4 planned writes: 2 applied, 2 held\n") && err.contains("c.yaml:"), "{out}{err}");
    assert!(has_power_level(&client.twin("b").await, 1) && has_power_level(&client.twin("d").await, 1));
    assert!(client.find("a").await.is_none() && client.find("c").await.is_none());

    let apply = ["apply", "plan.json", "--hub-json", "state/hub.json"];
    let (code, _, err) = world.run(&[&apply[..], &["--manifests", "elsewhere"]].concat()).await;
    assert!(code == 2 && err.contains("which twins are suspended by now"), "{err}");
    let (code, out, err) = world.run(&apply).await;
    let expected = "4 planned writes: 2 applied, 2 applied before\n";
    assert_eq!((code, out.as_str()), (0, expected), "without manifests nobody knows of their suspensions: {err}");
}

#[tokio::test]
async fn apply_tells_programs_of_every_twin() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let _client = mixed(&world).await;
    world.keep_secret("canary-canary-1");
    let (code, out, err) = world.run(&on_hub(&["apply", "-o", "json", "-q"])).await;
    assert_eq!((code, err.as_str()), (1, ""));
    insta::assert_snapshot!("apply_json", out);
    let (code, out, _) = world.run(&on_hub(&["apply"])).await;
    assert_eq!(code, 1);
    insta::assert_snapshot!("apply_text", out);
}

/// A hub whose guard lets a tenth of the fleet be registered, and three manifests.
struct Guarded {
    world: World,
    _hub: crate::support::Process,
}

impl Guarded {
    async fn new() -> Self {
        let world = World::new();
        let hub = world.hub("state", "127.0.0.1:0").await;
        for name in ["a", "b", "c"] {
            world.write(&format!("manifests/{name}.yaml"), &device(name, 1));
        }
        let connection = world.hub_json("state")["ownerConnectionString"].as_str().unwrap().to_owned();
        world.write("hub.secret", &connection);
        let guarded = Self { world, _hub: hub };
        guarded.settings("", "");
        guarded
    }

    fn settings(&self, more: &str, of_hub: &str) {
        self.world.write(
            "settings.toml",
            &format!(
                "owner = \"o\"\n{more}\n[hubs.h]\nmanifests = \"manifests\"\nconnection_string_file = \"hub.secret\"\n\
                 ca_file = \"state/ca.pem\"\n{of_hub}\n[hubs.h.guards]\ncreates = \"10%\"\nfrom = 1\n"
            ),
        );
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.world.run(&[arguments, &["--settings", "settings.toml"]].concat()).await
    }

    /// The approval that a plan prints, and what it prints.
    async fn approval(&self) -> (String, String) {
        let (code, out, err) = self.run(&["plan"]).await;
        assert_eq!(code, 1, "{out}{err}");
        (out.split('\'').nth(1).unwrap_or_else(|| panic!("no approval in {out}")).to_owned(), out)
    }
}

#[tokio::test]
async fn a_plan_holds_what_the_daemon_would_hold_and_an_approval_lets_it_pass_without_one() {
    let guarded = Guarded::new().await;
    let (flag, out) = guarded.approval().await;
    assert!(out.contains("Held back (3 twins)") && out.contains("3 twins would be registered"), "{out}");
    assert!(flag.starts_with("creates/") && flag.ends_with("/3"), "{flag}");
    let (code, out, err) = guarded.run(&["plan", "--approve", &flag]).await;
    assert!(code == 1 && out.contains("To register (3 twins)") && !out.contains("held"), "{out}{err}");
    let (code, _, err) = guarded.run(&["plan", "--approve", "creates/other/3"]).await;
    assert!(code == 2 && err.contains("not at other; plan again"), "{err}");
    let (code, _, err) = guarded.run(&["plan", "--approve", &flag, "--device", "a*"]).await;
    assert!(code == 2 && err.contains("leave the filter out"), "{err}");
    let (code, out, _) = guarded.run(&["plan", "--device", "a*"]).await;
    assert!(code == 1 && out.contains("guards were not asked"), "{out}");
    let (code, out, err) = guarded.run(&["apply", "--approve", &flag]).await;
    assert!(code == 0, "{out}{err}");

    for name in ["b", "c"] {
        fs::remove_file(guarded.world.path(&format!("manifests/{name}.yaml"))).unwrap();
    }
    let (flag, out) = guarded.approval().await;
    assert!(out.contains("2 twins would lose something"), "{out}");
    let (code, out, err) = guarded.run(&["apply", "--prune"]).await;
    assert!(code == 1 && out.contains(&flag), "{out}{err}");
    let (code, out, err) = guarded.run(&["apply", "--prune", "--approve", &flag]).await;
    assert!(code == 0, "{out}{err}");
    assert_eq!(guarded.run(&["plan"]).await.0, 0);
}

#[tokio::test]
async fn a_kept_plan_asks_guards_mode_and_suspension_and_refuses_approvals_without_effect() {
    let guarded = Guarded::new().await;
    let client = guarded.world.client("state");
    let (flag, _) = guarded.approval().await;
    assert_eq!(guarded.run(&["plan", "--approve", &flag, "--out", "plan.json"]).await.0, 1);
    let (code, _, err) = guarded.run(&["apply", "plan.json"]).await;
    assert!(code == 2 && err.contains("nothing was applied") && err.contains(&flag), "{err}");
    for (more, of_hub, expected) in [
        ("mode = \"observe\"", "", "mode observe"),
        ("suspend = true", "", "suspended by `suspend` in the settings"),
        ("", "suspend = true", "suspended by `hubs.h.suspend` in the settings"),
    ] {
        guarded.settings(more, of_hub);
        for form in ["text", "json", "markdown", "yaml"] {
            let (code, out, err) = guarded.run(&["plan", "-o", form]).await;
            assert!(code == 1 && out.contains(expected), "{form}: {out}{err}");
        }
        let (code, _, err) = guarded.run(&["apply", "plan.json", "--approve", &flag]).await;
        assert!(code == 2 && err.contains(expected), "{err}");
        assert!(client.find("a").await.is_none(), "{more}{of_hub}");
    }
    guarded.settings("", "");
    for (more, expected) in [
        (flag.replace("creates", "shape") + "/a", "give the approval of shape to `geminid plan --out FILE`"),
        (flag.replace("creates", "updates"), "the guard updates holds nothing of this plan; leave its approval out"),
    ] {
        let (code, _, err) = guarded.run(&["apply", "plan.json", "--approve", &flag, "--approve", &more]).await;
        assert!(code == 2 && err.contains(expected) && err.lines().count() == 1, "{err}");
        assert!(client.find("a").await.is_none(), "{more}");
    }
    let (code, out, err) = guarded.run(&["apply", "plan.json", "--approve", &flag]).await;
    assert!(code == 0 && out.starts_with("3 planned writes: 3 applied"), "{out}{err}");
}

#[tokio::test]
async fn a_kept_plan_that_removes_is_refused_in_mode_upsert() {
    let guarded = Guarded::new().await;
    let client = guarded.world.client("state");
    let (flag, _) = guarded.approval().await;
    assert_eq!(guarded.run(&["apply", "--approve", &flag]).await.0, 0);
    for name in ["b", "c"] {
        fs::remove_file(guarded.world.path(&format!("manifests/{name}.yaml"))).unwrap();
    }
    let (flag, _) = guarded.approval().await;
    assert_eq!(guarded.run(&["plan", "--approve", &flag, "--out", "plan.json"]).await.0, 1);
    guarded.settings("mode = \"upsert\"", "");
    let sealed = client.twin("b").await;
    let (code, out, err) = guarded.run(&["apply", "plan.json", "--approve", &flag]).await;
    let expected = "error: the plan removes from 2 twins, and mode upsert removes nothing; plan again in that mode\n";
    assert_eq!((code, err.as_str()), (2, expected), "{out}");
    let (code, out, _) = guarded.run(&["plan", "--out", "less.json"]).await;
    assert!(code == 1 && out.contains("nothing is removed in mode upsert"), "{out}");
    let (code, out, err) = guarded.run(&["apply", "less.json"]).await;
    assert!(code == 1 && out.contains("is not made in mode upsert"), "what the plan left out is told: {out}{err}");
    assert_eq!(client.twin("b").await, sealed);
    guarded.settings("", "");
    let (code, out, err) = guarded.run(&["apply", "plan.json", "--approve", &flag]).await;
    assert!(code == 0 && out.starts_with("2 planned writes: 2 applied"), "{out}{err}");
    assert_eq!(leaf(&client.twin("b").await, Section::Tags, &["geminid"]), None);
}
