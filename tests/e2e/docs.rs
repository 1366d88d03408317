//! The documentation as a reader uses it: every manifest in it is loaded, every command runs, and what cannot is marked
//! `<!-- not run: REASON -->` on the line before.
//!
//! The blocks of a page run in one folder, in order, by `sh`. Daemons and hubs that a page starts live until its end and
//! then must stop cleanly. Only addresses and the program's name are put in the place of what the page says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use geminid::manifest::{json_schema, kind_names};
use geminid::source::Loader;
use geminid::twin::Value;

use crate::support::{Process, World};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NOT_RUN: &str = "<!-- not run: ";
/// Where the documentation says that the daemon serves.
const SERVED_AT: &str = "127.0.0.1:9797";
/// What a long-running command needs so that tests beside each other do not meet; given flags stay.
const FREE_PORTS: [(&str, &str); 3] =
    [("--listen", "127.0.0.1:0"), ("--hub-https", "127.0.0.1:0"), ("--hub-mqtts", "127.0.0.1:0")];
/// Where curl and its kin are.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Commands that were run before this one can be.
const RUN_BEFORE: [&str; 2] = ["cargo test", "cargo build --release --locked"];
/// Languages of blocks that are no commands and no manifests.
const OTHERS: [&str; 10] =
    ["text", "json", "toml", "python", "js", "markdown", "promql", "diff", "console-output", "csharp"];

/// A fenced block.
struct Block {
    page: String,
    line: usize,
    language: String,
    text: String,
    is_run: bool,
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn blocks(page: &Path) -> Vec<Block> {
    let name = page.strip_prefix(ROOT).unwrap().display().to_string();
    let text = fs::read_to_string(page).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (index, line) in lines.iter().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let before = index.checked_sub(1).map_or("", |before| lines[before].trim());
                let reason = before.strip_prefix(NOT_RUN).and_then(|rest| rest.strip_suffix("-->"));
                assert!(reason.is_none_or(|reason| reason.trim().len() > 3), "{name}:{}: give a reason", index + 1);
                open = Some(Block {
                    page: name.clone(),
                    line: index + 1,
                    language: language.trim().to_owned(),
                    text: String::new(),
                    is_run: reason.is_none(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block has no end");
    blocks
}

fn all_pages() -> Vec<(String, Vec<Block>)> {
    let root = Path::new(ROOT);
    let paths = std::iter::once(root.join("README.md")).chain(pages(&root.join("docs")));
    paths.map(|page| (page.strip_prefix(root).unwrap().display().to_string(), blocks(&page))).collect()
}

/// The commands of a block: a line each, continued lines joined, without comments.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let without_comment = |line: &str| match line.find(" #") {
        Some(at) => line[..at].trim().to_owned(),
        None => line.trim().to_owned(),
    };
    joined.lines().map(without_comment).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A page's folder, and what it started.
struct Reader<'w> {
    world: &'w World,
    served: Option<String>,
    running: Vec<Process>,
    failures: &'w RefCell<Vec<String>>,
}

impl Reader<'_> {
    async fn run(&mut self, block: &Block) {
        for command in commands(&block.text) {
            let place = format!("{}:{}: {command}", block.page, block.line);
            let command = command
                .replace("cargo run --release -- ", "geminid ")
                .replace("target/release/geminid", "geminid")
                .replace("/tmp/", "tmp-");
            let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
            if RUN_BEFORE.contains(&command.as_str()) {
                continue;
            } else if matches!(words[..], ["geminid", "run" | "hub", ..]) {
                self.start(&words[1..]).await;
            } else if matches!(words[..], ["geminid", "device", ..]) {
                let process = self.world.start(&words[1..]);
                process.says("INFO fleet ").await;
                self.running.push(process);
            } else {
                self.execute(&command, &place).await;
            }
        }
    }

    async fn start(&mut self, arguments: &[&str]) {
        let takes = |flag: &str| arguments[0] == "run" || flag != "--listen";
        let free = FREE_PORTS.iter().filter(|(flag, _)| takes(flag) && !arguments.contains(flag));
        let free: Vec<&str> = free.flat_map(|(flag, value)| [*flag, *value]).collect();
        let process = self.world.start(&[arguments, &free].concat());
        process.wait_for("the announcement", || process.stdout().contains("stop")).await;
        if arguments[0] == "run" {
            let page = process.announced("metrics ");
            self.served = Some(page.trim_start_matches("http://").trim_end_matches("/metrics").to_owned());
            process.wait_until("readiness", async || (process.get("/readyz").await.0 == 200).then_some(())).await;
        }
        self.running.push(process);
    }

    /// Runs one command until it ends well; a query's metric may take a run of it to come.
    async fn execute(&self, command: &str, place: &str) {
        let command = self.served.as_ref().map_or(command.to_owned(), |served| command.replace(SERVED_AT, served));
        let is_changes = matches!(command.split_whitespace().collect::<Vec<_>>()[..], ["geminid", "plan" | "diff", ..]);
        let mut last = String::new();
        let ended = crate::support::eventually(async || {
            let output = Command::new("sh")
                .args(["-c", &format!("PATH={}:$PATH; {command}", self.world.path("bin").display())])
                .current_dir(self.world.path(""))
                .env_clear()
                .env("PATH", SYSTEM_PATH)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .unwrap();
            last = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let code = output.status.code().unwrap_or(-1);
            // A plan says by 1 that there are changes.
            (code == 0 || (is_changes && code == 1)).then_some(())
        })
        .await;
        if ended.is_none() {
            self.failures.borrow_mut().push(format!("{place}: it does not end well; it said\n{last}"));
        }
    }

    async fn end(mut self) {
        for process in &mut self.running {
            assert_eq!(process.interrupt().await, 0, "{}", process.stderr());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn every_command_of_the_documentation_runs_or_says_why_not() {
    let (mut run, failures) = (0, RefCell::default());
    for (_, blocks) in all_pages() {
        let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh" && block.is_run).collect();
        if shell.is_empty() {
            continue;
        }
        let world = World::new();
        for folder in ["manifests", "fleet"] {
            copy(&Path::new(ROOT).join(folder), &world.path(folder));
        }
        fs::create_dir(world.path("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_geminid"), world.path("bin/geminid")).unwrap();
        let mut reader = Reader { world: &world, served: None, running: Vec::new(), failures: &failures };
        for block in shell {
            reader.run(block).await;
            run += 1;
        }
        reader.end().await;
    }
    let failures: Vec<String> = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(run >= 3, "{run} blocks were run");
}

#[test]
fn every_manifest_of_the_documentation_loads_without_a_word_or_says_why_not() {
    let mut loaded = 0;
    for block in all_pages().into_iter().flat_map(|(_, blocks)| blocks) {
        let place = format!("{}:{}", block.page, block.line);
        match block.language.as_str() {
            "yaml" | "yml" if block.is_run => {
                let folder = tempfile::tempdir().unwrap();
                fs::write(folder.path().join("block.yaml"), &block.text).unwrap();
                let snapshot = Loader::new(folder.path().to_owned()).load().unwrap();
                let found: Vec<String> = snapshot.diagnostics.iter().map(ToString::to_string).collect();
                assert_eq!(found, Vec::<String>::new(), "{place}");
                assert!(
                    snapshot.state.twins.len() + snapshot.state.profiles.len() + snapshot.queries.len() > 0,
                    "{place}"
                );
                loaded += 1;
            }
            "json" if block.is_run => {
                let json = serde_json::from_str::<serde_json::Value>(&block.text);
                assert!(json.is_ok(), "{place}: {json:?}");
            }
            "sh" | "yaml" | "yml" => {}
            other => {
                assert!(OTHERS.contains(&other), "{place}: nothing is known of blocks in {other:?}; write sh or yaml");
            }
        }
    }
    assert!(loaded >= 3, "{loaded} manifests were loaded");
}

/// What a field's schema takes, in a word or two.
fn takes(schema: &Value) -> String {
    if let Some(Value::Array(words)) = schema.get(["enum"]) {
        return words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(word) = schema.get(["const"]) {
        return format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned));
    }
    if let (Some(min), Some(max)) = (schema.get(["minimum"]), schema.get(["maximum"])) {
        return format!("{min} to {max}");
    }
    match (schema.get(["type"]).and_then(Value::as_str), schema.get(["items"]), schema.get(["additionalProperties"])) {
        (Some("string"), ..) if schema.get(["pattern"]).is_some() => {
            "a duration such as `90s`, `5m`, `1h30m`".to_owned()
        }
        (Some("string"), ..) => "text".to_owned(),
        (Some("boolean"), ..) => "`true`, `false`".to_owned(),
        (Some("array"), Some(items), _) => format!("list of {}", takes(items)),
        (Some("object"), _, Some(Value::Object(each))) => format!("mapping to {}", takes(&Value::Object(each.clone()))),
        (Some("object"), ..) => "mapping".to_owned(),
        (Some(other), ..) => other.to_owned(),
        (None, ..) => "text or number".to_owned(),
    }
}

/// A row for each field beneath `path`, in the order of the names.
fn rows(path: &str, schema: &Value, found: &mut String) {
    let required = match schema.get(["required"]) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) | None => Vec::new(),
    };
    let fields: BTreeMap<String, Value> = schema
        .get(["properties"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for (name, field) in fields {
        let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let must = if required.contains(&name) { "yes" } else { "" };
        let about = field.get(["description"]).and_then(Value::as_str).unwrap_or_default().replace('|', "\\|");
        found.push_str(&format!("| `{here}` | {} | {must} | {about} |\n", takes(&field)));
        rows(&here, &field, found);
        if let Some(items) = field.get(["items"]) {
            rows(&format!("{here}[]"), items, found);
        }
        if let Some(each @ Value::Object(_)) = field.get(["additionalProperties"]) {
            rows(&format!("{here}.*"), each, found);
        }
    }
}

#[test]
fn the_manifest_reference_is_the_schema_s() {
    const BEGIN: &str = "<!-- begin: written by a test -->\n";
    const END: &str = "<!-- end -->\n";
    let mut written = String::new();
    for kind in kind_names() {
        let schema = json_schema(Some(kind)).unwrap();
        let about = schema.get(["description"]).and_then(Value::as_str).unwrap();
        written.push_str(&format!(
            "\n## {kind}\n\n{about}.\n\n| Field | Takes | Required | What it says |\n|---|---|---|---|\n"
        ));
        rows("", &schema, &mut written);
    }
    written.push('\n');
    let path = Path::new(ROOT).join("docs/manifests.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (stored, tail) = rest.split_once(END).unwrap();
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests.md");
    fs::write(&fresh, format!("{head}{BEGIN}{written}{END}{tail}")).unwrap();
    assert!(stored == written, "the schema says more: cp {} docs/manifests.md", fresh.display());
}
