//! A mistake in each verb: one sentence with a remedy, on standard error alone, and exit code 2.

use crate::support::World;

/// Verb and what is wrong with it, and what the sentence must say.
const MISTAKES: [(&str, &str); 47] = [
    ("run", "--hub-json"),
    ("run --manifests m", "no hub is configured; name one in a settings file (--settings)"),
    ("run --embedded-hub", "--manifests"),
    ("apply", "take that of `geminid hub` with --hub-json"),
    ("apply nowhere.json", "--settings"),
    ("apply --manifests m --yes=no", "see geminid apply --help"),
    ("plan", "no hub is configured"),
    ("plan --manifests m", "no hub is configured"),
    ("plan --color red", "possible values: auto, always, never"),
    ("hub --hub-https nonsense", "see geminid hub --help"),
    ("run --embedded-hub --sweep soon", "error: --sweep: \"soon\" is no duration"),
    ("get --server http://127.0.0.1:1", "(Connection refused (os error 111)); start one"),
    ("plan -o xml", "possible values: text, json, markdown, yaml, name"),
    ("plan -q -v", "see geminid plan --help"),
    ("export", "no hub is configured"),
    ("export --hub-json nowhere", "is `geminid hub` running?"),
    ("check", "no hub is configured"),
    ("check --hub-json broken.json --manifests m", "broken.json is no JSON"),
    ("validate", "<FOLDER>"),
    ("validate nowhere", "cannot read nowhere"),
    ("query", "<QUERY>"),
    ("query --watch 1s", "see geminid query --help"),
    ("hub --tier S9", "is none of F1, S1, S2 and S3"),
    ("hub --units 2", "--units needs --tier"),
    ("hub --hub-https 0.0.0.0:0", "add --hub-allow-remote"),
    ("get", "start one with `geminid run`, or name it with --server"),
    ("get --server ftp://x", "write http://127.0.0.1:9797"),
    ("get --watch soon", "write 30s, 10m, 1h30m or 24h"),
    ("get --limit 0", "--limit is at least 1"),
    ("explain", "<TWIN>"),
    ("explain d1", "start one with `geminid run`"),
    ("events", "start one with `geminid run`"),
    ("reconcile", "see geminid reconcile --help"),
    ("reconcile d1 --token-file nowhere", "cannot read nowhere"),
    ("suspend d1", "--reason <REASON>"),
    ("resume d1", "start one with `geminid run`"),
    ("approve removals", "--revision <REVISION> --count <COUNT>"),
    ("adopt", "--from <OWNER>"),
    ("release", "say which twins: TWIN, --device, --label, or --all"),
    ("schema Nope", "kinds are DeviceTwin, ModuleTwin, TwinProfile, TwinQuery"),
    ("device", "--connection-string-file FILE for one device, or --count NUMBER for many of a hub"),
    ("device --connection-string-file broken.json", "expected HostName"),
    ("completion tcsh", "possible values: bash, zsh, fish"),
    ("man", "<FOLDER>"),
    ("version more", "see geminid version --help"),
    ("nope", "see geminid --help"),
    ("--nope", "see geminid --help"),
];

#[tokio::test]
async fn a_mistake_is_one_sentence_with_a_remedy() {
    let world = World::new();
    world.write("broken.json", "no JSON");
    std::fs::create_dir(world.path("m")).unwrap();
    for (line, says) in MISTAKES {
        // Nobody listens there, whatever runs on this machine.
        let words: Vec<&str> = line.split_whitespace().collect();
        let asks = ["get", "explain", "events", "reconcile", "suspend", "resume", "approve"].contains(&words[0]);
        let nobody: &[&str] =
            if asks && !line.contains("--server") { &["--server", "http://127.0.0.1:1"] } else { &[] };
        let (code, out, err) = world.run(&[&words, nobody].concat()).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{line}: {err}");
        assert!(err.starts_with("error: ") && err.contains(says), "{line}: {err}");
        assert!(!err.trim_end().ends_with('.') && !err.contains("Caused by"), "{line}: {err}");
    }
}

#[tokio::test]
async fn every_verb_has_a_mistake_here() {
    let world = World::new();
    let (_, reference, _) = world.run(&["cli-reference"]).await;
    for verb in reference.lines().filter_map(|line| line.strip_prefix("## geminid ")) {
        assert!(MISTAKES.iter().any(|(line, _)| line.split(' ').next() == Some(verb)), "{verb} has none");
    }
}
