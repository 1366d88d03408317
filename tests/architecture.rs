//! The floors, kept by a test: who may import whom, where each crate may be named, and that every file is reached.
//!
//! The tables are the architecture. To move a wall, change them in a commit of its own and say why in
//! ARCHITECTURE.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module to the modules of ours it may import, floor by floor from the top. `lib` and `main` sit on all of them.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "app",
            "device",
            "emulator",
            "exporter",
            "controller",
            "ops",
            "hub",
            "source",
            "metrics",
            "settings",
            "manifest",
            "plan",
            "series",
            "query",
            "twin",
        ],
    ),
    (
        "app",
        &[
            "ops",
            "device",
            "emulator",
            "exporter",
            "controller",
            "hub",
            "source",
            "metrics",
            "settings",
            "manifest",
            "plan",
            "series",
            "query",
            "twin",
        ],
    ),
    ("ops", &["metrics", "controller", "exporter", "series", "plan", "twin"]),
    ("controller", &["twin", "plan", "hub", "metrics"]),
    ("exporter", &["twin", "query", "series", "hub", "metrics"]),
    ("device", &["twin"]),
    ("emulator", &["twin", "query", "hub"]),
    ("hub", &["twin", "metrics"]),
    ("source", &["manifest", "plan", "series", "twin"]),
    ("metrics", &[]),
    ("settings", &[]),
    ("manifest", &["twin", "query", "plan", "series"]),
    ("plan", &["twin", "query"]),
    ("series", &["twin", "query"]),
    ("query", &["twin"]),
    ("twin", &[]),
];

/// The pure floors: they return data, and the caller logs, counts, reads clocks and draws numbers.
const PURE: &[&str] = &["manifest", "plan", "series", "query", "twin"];

/// What no file of a pure floor may name.
const IMPURE: &[&str] = &[
    "tokio",
    "tracing",
    "prometheus",
    "reqwest",
    "notify",
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "Instant",
    "SystemTime",
    "fastrand",
    "Timestamp::now",
    "Zoned::now",
    "async fn",
];

/// Crate to the files or folders under `src` that may name it.
const LIVES_IN: &[(&str, &[&str])] = &[
    ("anyhow", &["main.rs", "cli", "app.rs", "app"]),
    ("axum", &["ops", "emulator/http.rs", "emulator/http", "emulator/server.rs", "emulator/mqtt/websocket.rs"]),
    ("aws_lc_rs", &["hub/certificate.rs", "device/tls.rs", "ops/web_config.rs"]),
    ("azure_core", &["hub/entra.rs", "hub/certificate.rs"]),
    ("azure_identity", &["hub/entra.rs", "hub/certificate.rs"]),
    ("axum_server", &["emulator/server.rs", "emulator/http.rs", "ops/listener.rs", "ops/serve.rs"]),
    (
        "base64",
        &[
            "ops/api",
            "hub/sas.rs",
            "hub/certificate.rs",
            "device/credentials.rs",
            "emulator",
            "ops/access.rs",
            "plan/mask.rs",
            "plan/seal.rs",
            "plan/sweep.rs",
        ],
    ),
    ("bcrypt", &["ops"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli/completion.rs"]),
    ("clap_mangen", &["cli/completion.rs"]),
    ("config", &["settings.rs"]),
    ("crc32fast", &["emulator/store"]),
    ("fastrand", &["controller", "device", "exporter", "emulator", "app.rs", "app"]),
    ("flate2", &["ops/body.rs"]),
    ("http_body", &["emulator/http", "ops/body.rs"]),
    ("globset", &["plan/selector.rs"]),
    ("hmac", &["hub/sas.rs", "device/credentials.rs", "emulator/auth.rs", "emulator/bearer.rs"]),
    ("indicatif", &["app/progress.rs"]),
    ("mimalloc", &["main.rs"]),
    (
        "jiff",
        &[
            "controller/audit",
            "ops/api",
            "hub",
            "device",
            "emulator",
            "manifest",
            "series",
            "settings/value.rs",
            "app.rs",
            "app",
        ],
    ),
    ("mqtt_protocol_core", &["emulator/mqtt", "device"]),
    ("notify", &["source/watch.rs"]),
    ("percent_encoding", &["hub", "device/credentials.rs", "emulator"]),
    ("prometheus", &["metrics.rs", "metrics", "ops", "app.rs", "app"]),
    ("rcgen", &["emulator/tls.rs"]),
    ("redb", &["emulator/store.rs"]),
    ("reqwest", &["hub/rest.rs", "hub/entra.rs", "cli/server.rs"]),
    ("rustix", &["source/beneath.rs", "app/descriptors.rs"]),
    ("rustls_platform_verifier", &["device/tls.rs"]),
    ("secrecy", &["ops", "hub", "device", "emulator", "settings.rs", "settings", "app.rs", "app", "cli"]),
    (
        "serde",
        &[
            "twin/json.rs",
            "manifest/yaml.rs",
            "manifest/probe.rs",
            "manifest/names.rs",
            "controller/audit",
            "ops/api",
            "hub/texts.rs",
            "hub/wire.rs",
            "emulator/wire",
            "emulator/stored.rs",
            "emulator/stored",
            "emulator/faults.rs",
            "emulator/http/faults.rs",
            "emulator/server.rs",
            "emulator/tls.rs",
            "ops/web_config.rs",
            "settings/raw.rs",
        ],
    ),
    (
        "serde_json",
        &[
            "controller/audit",
            "ops/api",
            "twin/json.rs",
            "twin/value.rs",
            "hub/texts.rs",
            "hub/wire.rs",
            "emulator",
            "cli",
        ],
    ),
    ("serde_yaml", &["manifest/yaml.rs", "ops/web_config.rs"]),
    (
        "sha2",
        &[
            "hub/sas.rs",
            "device/credentials.rs",
            "emulator",
            "ops/digest.rs",
            "plan/mask.rs",
            "plan/seal.rs",
            "source/known.rs",
            "series",
        ],
    ),
    ("strsim", &["manifest", "query", "settings/form.rs"]),
    ("toml", &["settings/form.rs"]),
    ("tokio_rustls", &["emulator/server.rs", "emulator/mqtt/server.rs", "device", "hub/certificate.rs", "ops"]),
    ("tower_service", &["emulator/http"]),
    ("utoipa", &["ops/api"]),
    ("utoipa_axum", &["ops/api"]),
    ("tracing_subscriber", &["app.rs", "app"]),
];

/// Fields that are named like a secret and are none, with what they are.
const NO_SECRETS: &[(&str, &str)] = &[
    ("controller/asked.rs: token", "the name of a request"),
    ("controller/command.rs: token", "the name of a request"),
    ("ops/api/wire.rs: token", "the name of a request, to ask for its end"),
];

/// Words for what must not be kept as a plain text or plain bytes.
const SECRET_WORDS: &[&str] =
    &["password", "secret", "token", "signature", "private_key", "authority_key", "primary_key", "secondary_key"];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file: its path under `src` with `/`, and its text without comments and test modules.
fn sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    collect(&source_root(), "", &mut files);
    assert!(files.len() > 20, "the tree was read");
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// The lines that bind: comments, strings' contents after `//` and everything from `#[cfg(test)]` on are left out.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let line = line.split("//").next().unwrap_or_default();
        if !line.trim().is_empty() {
            lines.push((index + 1, line.to_owned()));
        }
    }
    lines
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("_tests.rs") || name.ends_with("/tests.rs")
}

/// The module on a floor that a file belongs to: `plan/diff.rs` and `plan.rs` both to `plan`.
fn module_of(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Whether `line` names the path `word`, not as a part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word)
        .any(|(at, _)| boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next()))
}

#[test]
fn modules_import_downwards_only() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let module = module_of(&name).to_owned();
        if ["lib", "main"].contains(&module.as_str()) || is_test_file(&name) {
            continue;
        }
        let may =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{name} stands on no floor: add it to the table"));
        for (number, line) in code(&text) {
            for other in allowed.keys().filter(|other| **other != module) {
                let imported =
                    line.contains(&format!("crate::{other}::")) || line.contains(&format!("crate::{other};"));
                if imported && !may.contains(other) {
                    wrong.push(format!("{name}:{number}: {module} may not import {other}"));
                }
            }
            if line.contains("use crate::{") {
                wrong.push(format!("{name}:{number}: name one module per `use`, so that this test can read it"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn metrics_are_known_to_the_decorators_alone_in_hub_and_the_emulator_knows_only_the_traits() {
    let sources = sources();
    let importing = |folder: &str, module: &str| -> Vec<&str> {
        let of_folder =
            sources.iter().filter(|(name, _)| name.starts_with(&format!("{folder}/")) && !is_test_file(name));
        let naming =
            of_folder.filter(|(_, text)| code(text).iter().any(|(_, line)| line.contains(&format!("crate::{module}"))));
        naming.map(|(name, _)| name.as_str()).collect()
    };
    for (folder, module, homes) in
        [("hub", "metrics", &["hub/observe.rs", "hub/budget.rs"][..]), ("emulator", "hub", &["emulator/sim.rs"])]
    {
        let elsewhere: Vec<&str> = importing(folder, module).into_iter().filter(|name| !homes.contains(name)).collect();
        assert_eq!(elsewhere, Vec::<&str>::new(), "{module} may be imported in {homes:?} alone");
    }
}

#[test]
fn pure_floors_name_nothing_impure() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !PURE.contains(&module_of(&name)) || is_test_file(&name) {
            continue;
        }
        for (number, line) in code(&text) {
            for word in IMPURE.iter().filter(|word| names(&line, word)) {
                wrong.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn each_crate_is_named_at_home_only() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if is_test_file(&name) {
            continue;
        }
        for (number, line) in code(&text) {
            for (package, homes) in LIVES_IN {
                let at_home = homes.iter().any(|home| name == *home || name.starts_with(&format!("{home}/")));
                let named = [format!("{package}::"), format!("use {package};")];
                if !at_home && named.iter().any(|text| line.contains(text) && names(&line, package)) {
                    wrong.push(format!("{name}:{number}: {package} lives in {homes:?}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The name of a field that `line` declares as a text or bytes in clear.
fn plain_field(line: &str) -> Option<&str> {
    let line =
        line.trim().trim_start_matches("pub ").trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    let kind = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(kind);
    let is_plain = ["String", "Vec<u8>", "Box<str>", "Box<[u8]>", "Arc<str>", "Bytes"].contains(&kind);
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (is_plain && is_name).then_some(name)
}

#[test]
fn secrets_are_kept_in_a_type_that_hides_them() {
    assert_eq!(plain_field("    pub primary_key: Option<String>,"), Some("primary_key"));
    assert_eq!(plain_field("    key: SecretString,"), None);
    let mut found = BTreeSet::new();
    for (name, text) in sources() {
        for (_, line) in code(&text).iter().filter(|_| !is_test_file(&name)) {
            let Some(field) = plain_field(line) else { continue };
            let is_secret = SECRET_WORDS.iter().any(|word| field == *word || field.ends_with(&format!("_{word}")));
            // A template has a place for a key, and none in it.
            if is_secret || field.ends_with("connection_string") {
                found.insert(format!("{name}: {field}"));
            }
        }
    }
    let known: BTreeSet<String> = NO_SECRETS.iter().map(|(place, _)| (*place).to_owned()).collect();
    assert_eq!(found, known, "a secret is a `SecretString` or a type around one, so that `Debug` hides it");
}

#[test]
fn every_file_is_reached_by_a_mod() {
    let sources = sources();
    let mut reached: BTreeSet<String> = ["lib.rs", "main.rs"].map(str::to_owned).into();
    for (name, text) in &sources {
        let folder = match name.rsplit_once('/') {
            _ if name == "lib.rs" || name == "main.rs" => String::new(),
            Some((folder, "mod.rs")) => format!("{folder}/"),
            _ => format!("{}/", name.trim_end_matches(".rs")),
        };
        let beside = name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for line in text.lines().map(str::trim) {
            if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                reached.insert(format!("{beside}{path}"));
            }
            let module = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ");
            if let Some(module) = module.and_then(|rest| rest.strip_suffix(';')) {
                reached.insert(format!("{folder}{module}.rs"));
                reached.insert(format!("{folder}{module}/mod.rs"));
            }
        }
    }
    let orphans: Vec<&String> = sources.keys().filter(|name| !reached.contains(*name)).collect();
    assert_eq!(orphans, Vec::<&String>::new());
}

/// The packages of a lock file: name to versions, and the dependencies that geminid has there, without versions.
fn locked(text: &str) -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let (mut packages, mut ours) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeSet::new());
    for package in text.split("[[package]]\n").skip(1) {
        let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let field = |name: &str| package.lines().find_map(|line| quoted(line.strip_prefix(name)?)).unwrap();
        let name = field("name = ");
        if name == "geminid" {
            let (_, dependencies) = package.split_once("dependencies = [").unwrap();
            let names = dependencies.lines().map_while(|line| if line == "]" { None } else { Some(quoted(line)) });
            ours = names.flatten().map(|name| name.split(' ').next().unwrap().to_owned()).collect();
        }
        packages.entry(name).or_default().insert(field("version = "));
    }
    (packages, ours)
}

#[test]
fn the_fuzz_targets_lock_what_the_program_locks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (program, with_tests) = locked(&read("Cargo.lock"));
    let (fuzz, ours) = locked(&read("fuzz/Cargo.lock"));
    let mut wrong = Vec::new();
    for (name, versions) in &fuzz {
        let Some(known) = program.get(name) else { continue };
        for version in versions.difference(known) {
            wrong.push(format!("{name} {version}, where the program has {known:?}"));
        }
    }
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    let lines = dependencies.lines().take_while(|line| !line.starts_with('['));
    let named = lines.filter_map(|line| {
        let (name, rest) = line.split_once(" = ")?;
        // A crate that is renamed stands in lock files under its own name.
        let own = rest.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
        Some(own.unwrap_or(name).to_owned())
    });
    let named: BTreeSet<String> = named.collect();
    assert!(named.len() > 20 && named.is_subset(&with_tests), "the manifest was read: {named:?}");
    wrong.extend(named.difference(&ours).map(|name| format!("{name} is missing")));
    wrong.extend(ours.difference(&named).map(|name| format!("{name} is no dependency any more")));
    let remedy = "cp Cargo.lock fuzz/Cargo.lock && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null";
    assert_eq!(wrong, Vec::<String>::new(), "fuzz/Cargo.lock is stale; run: {remedy}");
}
