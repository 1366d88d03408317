//! Broken manifests as real files: each folder of `tests/broken` holds some, and beside them, in `expected.txt`, every
//! diagnostic they must give: its rule, place, severity, message with the remedy, and path.

#![expect(clippy::unwrap_used, reason = "a test says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use geminid::manifest::Rules;
use geminid::plan::Subtree;
use geminid::source::Loader;

/// What stands where a value must not be shown.
const CANARIES: [&str; 2] = ["canary-7f3a", "9007199254740993"];

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// What loading a folder says, a line each. A file `allow.txt` in it lists the paths that its manifests may declare.
fn found(case: &Path) -> String {
    let allow = fs::read_to_string(case.join("allow.txt")).unwrap_or_default();
    let allow: Vec<Subtree> = allow.lines().map(|path| Subtree::parse(path).unwrap()).collect();
    let snapshot = Loader::new(case.to_owned()).within(Rules { allow, ..Rules::default() }).load().unwrap();
    snapshot.diagnostics.iter().map(|found| format!("{}: {found}\n", found.rule)).collect()
}

#[test]
fn each_broken_manifest_gives_exactly_its_diagnostics() {
    let cases = cases();
    assert!(cases.len() >= 90, "{} cases", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let expected = fs::read_to_string(case.join("expected.txt")).unwrap_or_default();
            let found = found(case);
            (found != expected || found.is_empty()).then(|| format!("== {}\n{found}", case.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_diagnostic_of_a_broken_document_shows_a_sensitive_value() {
    let hiding: Vec<PathBuf> =
        cases().into_iter().filter(|case| case.to_string_lossy().contains("sensitive-value")).collect();
    assert!(hiding.len() >= 3);
    for case in hiding {
        let found = found(&case);
        assert!(!CANARIES.iter().any(|canary| found.contains(canary)), "{}\n{found}", case.display());
    }
}
