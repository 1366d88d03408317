//! The README's pictures show what the binary prints: each line of them is compared with a run of today.
//!
//! `just pictures` draws them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{Process, World};

const RUN: &[&str] = &["run", "--embedded-hub", "--manifests", "manifests", "--audit-log", "audit.log"];
const FREE: &[&str] = &["--listen", "127.0.0.1:0", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
const PLAN: &[&str] = &["plan", "--hub-json", ".geminid/hub.json", "--manifests", "pull-request"];
const SHOWN: [&str; 3] = ["twinquery", "geminid_hub_up", "geminid_query_up"];
const CELLULAR: &str = r#"twinquery_plant_cellular_devices{hub="embedded",plant="Redmond43"}"#;
const PLANT: &str = r#"twinquery_plant_devices{hub="embedded",plant="Redmond43"}"#;
/// Said when the device is connected before its twin is written, which is chance.
const CHANCE: &str = "was told of new desired properties";
/// What the second picture says between its two questions.
const MEANWHILE: &str = "# a simulated device has reported connectivity: cellular meanwhile";

/// The lines of a picture, without its title.
fn drawn(name: &str) -> BTreeSet<String> {
    let svg = fs::read_to_string(repository().join(format!("docs/pictures/{name}.svg"))).unwrap();
    let mut lines: Vec<(String, String)> = Vec::new();
    for element in svg.split("<text ").skip(1) {
        let (attributes, rest) = element.split_once('>').unwrap();
        let (text, _) = rest.split_once("</text>").unwrap();
        let (_, from) = attributes.split_once(" y=\"").unwrap();
        let place = from.split_once('"').unwrap().0.to_owned();
        let mut text = text.to_owned();
        for (entity, character) in
            [("&#160;", " "), ("&quot;", "\""), ("&#x27;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        {
            text = text.replace(entity, character);
        }
        match lines.last_mut().filter(|(last, _)| *last == place) {
            Some((_, line)) => line.push_str(&text),
            None if attributes.contains("-title\"") => {}
            None => lines.push((place, text)),
        }
    }
    lines.iter().map(|(_, line)| alike(line)).filter(|line| !line.is_empty()).collect()
}

/// A line without what differs from run to run, and without its spaces.
fn alike(line: &str) -> String {
    let word = |word: &str| {
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let (before, address) = word.split_once("127.0.0.1:").unwrap_or((word, ""));
        let is_revision = |text: &str| text.len() == 12 && text.chars().all(|c| c.is_ascii_hexdigit());
        if !address.is_empty() {
            format!("{before}ADDRESS{}", address.trim_start_matches(|c: char| c.is_ascii_digit()))
        } else if word.len() > 20 && word.ends_with('Z') && word.starts_with("20") {
            "TIME".to_owned()
        } else if word.starts_with("revision=") || is_revision(word) {
            "REVISION".to_owned()
        } else if word.strip_suffix('s').is_some_and(digits) {
            "AGE".to_owned()
        } else {
            word.to_owned()
        }
    };
    line.split_whitespace().map(word).collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The manifests of the repository, and what the pull request of the picture makes of them.
fn prepare(world: &World) {
    for folder in ["manifests", "pull-request"] {
        fs::create_dir_all(world.path(folder).join("redmond43")).unwrap();
    }
    for file in fs::read_dir(repository().join("manifests/redmond43")).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        world.write(&format!("manifests/redmond43/{name}"), &text);
        let changed = text
            .replace("power_level: 1", "power_level: 2\n      telemetry: {interval_s: 60}")
            .replace("{region: US, plant: Redmond43}", "{plant: Redmond43}");
        world.write(&format!("pull-request/redmond43/{name}"), &changed);
    }
}

/// What was printed since, with the command before it.
fn printed(command: &[&str], text: &str) -> BTreeSet<String> {
    let command = format!("$geminid {}", command.join(" "));
    std::iter::once(command.as_str()).chain(text.lines()).map(alike).filter(|line| !line.is_empty()).collect()
}

async fn daemon(world: &World) -> Process {
    let daemon = world.start(&[RUN, FREE].concat());
    daemon.wait_for("the announcement", || daemon.stdout().contains("stop")).await;
    for line in ["power_level = 1", "the simulated device is connected", "sweep complete"] {
        daemon.says(line).await;
    }
    daemon
}

#[tokio::test]
async fn the_readme_s_pictures_show_what_is_printed_today() {
    let world = World::new();
    prepare(&world);
    let daemon = daemon(&world).await;
    world.client(".geminid");
    let home = world.path("");
    let stderr = daemon.stderr();
    let log: Vec<&str> = stderr.lines().filter(|line| !line.contains(CHANCE)).collect();
    let said = format!("{}\n{}", daemon.stdout(), log.join("\n"));
    let mut shown = printed(RUN, &said.replace(home.to_str().unwrap().trim_end_matches('/'), "~"));
    let (code, plan, err) = world.run(PLAN).await;
    assert_eq!((code, err.as_str()), (1, ""));
    shown.extend(printed(PLAN, &plan));
    let server = daemon.announced("status ").trim_start_matches("geminid get ").to_owned();
    let get = format!("get {server}");
    let (code, twins, err) = world.run(&get.split_whitespace().collect::<Vec<_>>()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    shown.extend(printed(&["get"], &twins));
    assert_eq!(drawn("terminal"), shown, "the picture is old: just pictures");

    // The values are the subject of another test; the half minute until the next round is not waited for.
    for series in [CELLULAR, PLANT] {
        daemon.wait_until(series, async || daemon.metric(series).await).await;
    }
    let (_, metrics) = daemon.get("/metrics").await;
    let series = metrics.lines().filter(|line| SHOWN.iter().any(|name| line.starts_with(name)));
    let mut shown: BTreeSet<String> =
        series.filter(|line| ![CELLULAR, PLANT].iter().any(|name| line.starts_with(name))).map(alike).collect();
    let question = format!("$curl -s http://127.0.0.1:9797/metrics | grep -E '^({})'", SHOWN.join("|"));
    let values = [format!("{CELLULAR} 0"), format!("{CELLULAR} 1"), format!("{PLANT} 1")];
    shown.extend([question.as_str(), MEANWHILE].into_iter().chain(values.iter().map(String::as_str)).map(alike));
    assert_eq!(drawn("metrics"), shown, "the picture is old: just pictures");
}
