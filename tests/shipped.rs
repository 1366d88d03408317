//! The shipped manifests, as an editor sees them: each names the schema that completes and checks it.

#![expect(clippy::unwrap_used, reason = "a test that cannot get on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use geminid::manifest::{json_schema, kind_names};
use geminid::twin::Value;

/// How the first line of a manifest names its schema, for yaml-language-server.
const HEADER: &str = "# yaml-language-server: $schema=";

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["manifests", "fleet"].into_iter().flat_map(|folder| manifests(&root.join(folder))).collect()
}

#[test]
fn each_shipped_manifest_names_the_schema_that_is_in_the_repository() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/geminid.schema.json").canonicalize().unwrap();
    let files = shipped();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let named = text.lines().next().and_then(|line| line.strip_prefix(HEADER));
        let named = named.unwrap_or_else(|| panic!("{} does not begin with {HEADER}", file.display()));
        let target = file.parent().unwrap().join(named).canonicalize();
        assert_eq!(target.ok().as_ref(), Some(&schema), "{} names {named}", file.display());
    }
}

#[test]
fn the_schema_of_each_kind_is_that_kind_s_part_of_the_whole() {
    let whole = json_schema(None).unwrap();
    let Some(Value::Array(parts)) = whole.get(["oneOf"]) else { panic!("{whole}") };
    assert_eq!(parts.len(), kind_names().count());
    for (kind, part) in kind_names().zip(parts) {
        let mut alone = json_schema(Some(kind)).unwrap().as_object().unwrap().clone();
        assert_eq!(alone.remove("$schema"), Some(Value::from("http://json-schema.org/draft-07/schema#")));
        assert_eq!(&Value::Object(alone), part, "{kind}");
        assert_eq!(part.get(["title"]), Some(&Value::from(kind)));
    }
}
