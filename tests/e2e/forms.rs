//! Every verb in every form it can be written in, as people and programs see it: a snapshot each, and a test that misses
//! the one of a verb that has none.
//!
//! Invariant: a snapshot holds nothing that is another one in the next run: times, ages, addresses, etags, tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use geminid::twin::{Section, Value};
use serde_json::Value as Json;

use crate::plans::without_salt;
use crate::support::{Process, World, device};

const TOKEN: &str = "canary-token-0123456789";
/// Fields of JSON whose values are other ones in the next run.
const FLEETING: [&str; 4] = ["ageSeconds", "etag", "nextTrySeconds", "number"];

/// `text` without what is another one in the next run. Columns are as wide as their widest cell, so that wide gaps are
/// taken as one.
fn steady(text: &str) -> String {
    let mut lines = text.lines().map(|line| {
        let cells: Vec<String> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(words).collect();
        let indent = if line.starts_with("  ") { "  " } else { "" };
        format!("{indent}{}", cells.join("  "))
    });
    let first = lines.next().unwrap_or_default();
    without_salt(&lines.fold(first, |text, line| text + "\n" + &line))
}

fn words(cell: &str) -> String {
    let bare = |word: &str| word.trim_matches(|c| matches!(c, ',' | ';' | '(' | ')' | '"' | '\'')).to_owned();
    let mut after_etag = false;
    let word = |word: &str| {
        let inner = bare(word);
        let stands_for = if inner.parse::<jiff::Timestamp>().is_ok() {
            "<time>"
        } else if inner.ends_with('s') && inner.trim_end_matches('s').parse::<u32>().is_ok() {
            "<age>"
        } else if after_etag {
            "<etag>"
        } else if let Some((scheme, _)) = inner.split_once("://127.0.0.1:") {
            return word.replace(&inner, &format!("{scheme}://<address>"));
        } else if inner == env!("CARGO_PKG_VERSION") {
            "<version>"
        } else {
            after_etag = inner == "etag";
            return word.to_owned();
        };
        after_etag = false;
        word.replace(&inner, stands_for)
    };
    cell.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// JSON in lines, the same way.
fn steady_json(text: &str) -> String {
    let mut json: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    mask(&mut json);
    serde_json::to_string_pretty(&json).unwrap()
}

fn mask(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for (name, value) in fields {
                if FLEETING.contains(&name.as_str()) && !value.is_null() {
                    *value = Json::from(format!("<{name}>"));
                } else {
                    mask(value);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(mask),
        Json::String(text) if text.parse::<jiff::Timestamp>().is_ok() => "<time>".clone_into(text),
        Json::String(text) => *text = without_salt(text),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn shown(form: &str, out: &str) -> String {
    match form {
        "json" => steady_json(out),
        "yaml" => steady_yaml(out),
        _ => steady(out),
    }
}

/// YAML, line by line.
fn steady_yaml(text: &str) -> String {
    let line = |line: &str| {
        let Some((name, value)) = line.split_once(": ") else { return line.to_owned() };
        let key = name.trim().trim_start_matches("- ");
        if FLEETING.contains(&key) && value != "null" {
            format!("{name}: <{key}>")
        } else {
            format!("{name}: {}", words(value))
        }
    };
    without_salt(&text.lines().map(line).collect::<Vec<_>>().join("\n"))
}

/// A daemon on a hub of its own, with one twin in sync, one whose shape is held, and one that is not registered.
async fn daemon(world: &World) -> (Process, Process) {
    world.keep_secret(TOKEN);
    world.write("token", TOKEN);
    let hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    client.create("held").await;
    client.set("held", Section::Tags, &["plant", "hall"], Value::from(7)).await;
    let sensitive = "spec:\n  sensitive: [properties.desired.key]";
    let secret = device("d1", 1).replace("{power_level: 1}", "{power_level: 1, key: \"canary-canary-3\"}");
    world.keep_secret("canary-canary-3");
    world.write("manifests/d1.yaml", &secret.replace("spec:", sensitive));
    world.write("manifests/held.yaml", &device("held", 1));
    world.write("manifests/missing.yaml", &device("missing", 1).replace("create: true", "create: false"));
    let process = world.run_on("state/hub.json", &["--api-token-file", "token"]).await;
    for (state, count) in [("in_sync", 1.0), ("held", 1.0), ("missing", 1.0)] {
        process.metric_is(&format!(r#"geminid_twins{{hub="embedded",state="{state}"}}"#), count).await;
    }
    (hub, process)
}

#[tokio::test]
async fn what_a_running_daemon_is_asked_reads_the_same_in_every_form() {
    let world = World::new();
    let (_hub, daemon) = daemon(&world).await;
    let server = daemon.announced("status ").trim_start_matches("geminid get --server ").to_owned();
    let ask = async |arguments: &[&str]| {
        let (code, out, err) = world.run(&[arguments, &["--server", &server]].concat()).await;
        assert_eq!(err, "", "{arguments:?}");
        (code, out)
    };
    for (verb, twin, expected) in [("get", &[][..], 0), ("explain", &["held"], 1), ("events", &["d1"], 0)] {
        for form in ["text", "json", "yaml", "name"] {
            let (code, out) = ask(&[&[verb], twin, &["-o", form]].concat()).await;
            assert_eq!(code, expected, "{verb} {form}: {out}");
            insta::assert_snapshot!(format!("{verb}_{form}"), shown(form, &out));
        }
    }
    let (_, out) = ask(&["explain", "d1"]).await;
    insta::assert_snapshot!("explain_sensitive", steady(&out));

    let (_, twins) = ask(&["get", "held", "-o", "json"]).await;
    let twins: Json = serde_json::from_str(&twins).unwrap();
    let revision = twins["items"][0]["revision"].as_str().unwrap();
    for (name, arguments) in [
        ("reconcile_text", &["reconcile", "d1"][..]),
        ("reconcile_all", &["reconcile", "--all"]),
        ("suspend_text", &["suspend", "d1", "--reason", "bench test"]),
        ("resume_text", &["resume", "d1"]),
        ("approve_text", &["approve", "shape", "--twin", "held", "--revision", revision, "--count", "1"]),
    ] {
        let (code, out) = ask(&[arguments, &["--token-file", "token"]].concat()).await;
        assert_eq!(code, 0, "{name}: {out}");
        insta::assert_snapshot!(name, steady(&out));
    }
}

#[tokio::test]
async fn what_needs_no_hub_reads_the_same_in_every_form() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("manifests/odd.yaml", &device("odd", 1).replace("power_level: 1", "level: 1.10"));
    world.write("manifests/broken.yaml", &device("d1", 1).replace("spec:", "spce:"));
    for form in ["text", "json", "github"] {
        let (code, out, err) = world.run(&["validate", "manifests", "-o", form]).await;
        assert_eq!(code, 1, "{form}");
        insta::assert_snapshot!(
            format!("validate_{form}"),
            format!("{}\n--- standard error\n{err}", shown(form, &out))
        );
    }
    let (code, out, _) = world.run(&["schema", "TwinQuery"]).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!("schema_json", steady_json(&out));
    let (code, out, _) = world.run(&["version"]).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!("version_text", steady(&out));
    let (code, out, _) = world.run(&["man", "pages"]).await;
    assert_eq!(code, 0);
    let mut pages: Vec<String> = fs::read_dir(world.path("pages"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    insta::assert_snapshot!("man_text", format!("{out}{}", pages.join("\n")));
}

/// What bash offers for a line.
fn completed(world: &World, line: &str) -> String {
    let script = "source <(\"$1\" completion bash)\nread -ra COMP_WORDS <<< \"$2\"\n[[ $2 == *' ' ]] && COMP_WORDS+=('')\n\
                  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n\
                  _geminid geminid \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
                  printf '%s\\n' \"${COMPREPLY[@]}\" | sort";
    let output = Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_geminid"), line])
        .current_dir(world.path("manifests"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    let world = World::new();
    let lines =
        ["geminid re", "geminid device --c", "geminid plan -o ", "geminid completion ", "geminid check --hub-j"];
    let offered: Vec<String> = lines.iter().map(|line| format!("{line:<24}-> {}", completed(&world, line))).collect();
    insta::assert_snapshot!("completion_bash", offered.join("\n"));
}

#[tokio::test]
async fn what_runs_until_ctrl_c_announces_itself() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let folder = fs::canonicalize(world.path("")).unwrap().display().to_string();
    let announced = |process: &Process| steady(&process.stdout().replace(&folder, "<folder>"));
    let mut hub = world.hub("state", "127.0.0.1:0").await;
    insta::assert_snapshot!("hub_text", announced(&hub));
    let mut daemon = world.run_on("state/hub.json", &[]).await;
    insta::assert_snapshot!("run_text", announced(&daemon));
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 1.0).await;
    let mut fleet = world.start(&["device", "--count", "1", "--id", "d1{n}", "--hub-json", "state/hub.json"]);
    assert_eq!(fleet.exit_code().await, 2);
    insta::assert_snapshot!("device_unknown", fleet.stderr());

    let client = world.client("state");
    client.create("d10").await;
    let report = ["--report", r#"{"connectivity":"cellular"}"#];
    let arguments = ["device", "--count", "1", "--id", "d1{n}", "--hub-json", "state/hub.json", "-v"];
    let mut fleet = world.start(&[&arguments[..], &report].concat());
    fleet.says("reported").await;
    client.set("d10", Section::Desired, &["level"], Value::from("high")).await;
    fleet.wait_for("the patch", || fleet.stdout().contains("level")).await;
    assert_eq!(fleet.interrupt().await, 0);
    // How often the fleet is summed up depends on time; the last line has all.
    let steps = steady(&fleet.stderr());
    let (sums, steps): (Vec<&str>, Vec<&str>) = steps.lines().partition(|line| line.contains("INFO fleet "));
    let stdout = fleet.stdout();
    let shown = [&[stdout.trim_end(), "--- standard error"], &steps[..], &sums[sums.len() - 1..]].concat();
    insta::assert_snapshot!("device_text", shown.join("\n"));
    for process in [&mut daemon, &mut hub] {
        assert_eq!(process.interrupt().await, 0);
    }
}

#[tokio::test]
async fn who_takes_over_and_who_gives_up_tells_programs() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    world.write("manifests/a.yaml", &device("a", 1));
    let on_hub = ["--hub-json", "state/hub.json"];
    let (code, ..) = world.run(&[&["apply", "--owner", "old", "--manifests", "manifests"], &on_hub[..]].concat()).await;
    assert_eq!(code, 0);
    for (name, arguments) in [
        ("adopt_json", &["adopt", "--from", "old", "--owner", "new", "--manifests", "manifests"][..]),
        ("release_json", &["release", "--all", "--owner", "new"]),
    ] {
        let (code, out, err) = world.run(&[arguments, &on_hub, &["-o", "json", "--yes"]].concat()).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        insta::assert_snapshot!(name, steady_json(&out));
    }
}

/// Each verb of the command line, with the forms it can be written in.
async fn verbs(world: &World) -> BTreeMap<String, Vec<String>> {
    let (code, reference, _) = world.run(&["cli-reference"]).await;
    assert_eq!(code, 0);
    let mut verbs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut verb = String::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix("## geminid ") {
            name.clone_into(&mut verb);
            verbs.insert(verb.clone(), Vec::new());
        } else if line.starts_with("| `-o, --output") {
            let forms = line.split_once('(').and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
            verbs.insert(verb.clone(), forms.split(", ").map(str::to_owned).collect());
        }
    }
    assert!(verbs.len() > 15 && verbs["plan"].contains(&"markdown".to_owned()), "{verbs:?}");
    verbs
}

#[tokio::test]
async fn every_verb_has_a_snapshot_of_every_form_it_can_be_written_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    // By name without the module; a file whose test is gone does not count.
    let mut kept: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder.join("snapshots")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some([_, module, name]) = name
            .strip_suffix(".snap")
            .map(|name| name.splitn(3, "__").collect::<Vec<_>>())
            .and_then(|parts| <[&str; 3]>::try_from(parts).ok())
        else {
            panic!("{name} is no snapshot of a test here");
        };
        let source = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap_or_default();
        let verb = name.split('_').next().unwrap_or_default();
        assert!(source.contains(&format!("\"{verb}")), "{name}: no test of {module}.rs makes it any more");
        kept.push(name.to_owned());
    }
    let world = World::new();
    let mut missing = Vec::new();
    for (verb, forms) in verbs(&world).await {
        if !kept.iter().any(|name| name.split('_').next() == Some(&verb)) {
            missing.push(verb.clone());
        }
        missing.extend(forms.iter().map(|form| format!("{verb}_{form}")).filter(|name| !kept.contains(name)));
    }
    assert_eq!(missing, Vec::<String>::new(), "verbs and forms without a snapshot");
}
