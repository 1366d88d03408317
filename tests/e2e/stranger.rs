//! What somebody meets who does not know geminid yet: disks that are full, pipes and devices in the place of files,
//! names with line breaks, secrets in the wrong field.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::support::{World, device};

/// Exit code and standard error of a verb whose standard output is a full disk.
fn on_a_full_disk(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut verb = Command::new(env!("CARGO_BIN_EXE_geminid"));
    verb.args(words).current_dir(world.path("")).env_clear().stdin(Stdio::null()).stdout(full);
    let output = verb.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_result_that_finds_no_room_is_an_error_and_work_that_is_done_is_none() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let on_hub = ["--hub-json", "state/hub.json"];
    let all = [&on_hub[..], &["--manifests", "manifests"]].concat();
    for words in [
        vec!["version"],
        vec!["schema"],
        vec!["completion", "bash"],
        vec!["validate", "manifests"],
        [&["plan"], &all[..]].concat(),
        [&["plan", "-o", "json"], &all[..]].concat(),
        [&["query", "SELECT * FROM devices"], &on_hub[..]].concat(),
        [&["check"], &all[..]].concat(),
    ] {
        let (code, err) = on_a_full_disk(&world, &words);
        let says = "error: cannot write the result to standard output: No space left on device";
        assert!(code == Some(2) && err.contains(says) && err.lines().count() == 1, "{words:?}: {code:?} {err}");
    }
    let (code, err) = on_a_full_disk(&world, &[&["apply"], &all[..]].concat());
    assert_eq!(code, Some(0), "what was to be done is done: {err}");
    let (code, err) = on_a_full_disk(&world, &[&["export"], &on_hub[..]].concat());
    assert!(code == Some(2) && err.contains("No space left"), "{err}");
}

#[tokio::test]
async fn a_plan_is_kept_in_no_place_of_a_device_or_a_folder() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let _hub = world.hub("state", "127.0.0.1:0").await;
    // A link to a device is not what it leads to, so nothing of this machine is lost if this fails.
    std::os::unix::fs::symlink("/dev/null", world.path("null")).unwrap();
    for name in ["null", "manifests"] {
        let plan = ["plan", "--hub-json", "state/hub.json", "--manifests", "manifests", "--out", name];
        let (code, _, err) = world.run(&plan).await;
        let says = format!("error: {name} is no regular file; choose another file with --out");
        assert!(code == 2 && err.trim_end() == says, "{code} {err}");
    }
    assert!(fs::symlink_metadata(world.path("null")).unwrap().is_symlink());
    assert!(!world.path("null.new").exists() && !world.path("manifests.new").exists());
}

#[tokio::test]
async fn a_pipe_among_the_manifests_is_named_and_not_waited_for() {
    let world = World::new();
    let made = Command::new("mkfifo").arg(world.path("manifests/a.yaml")).status().unwrap();
    assert!(made.success());
    let (code, _, err) = world.run(&["validate", "manifests"]).await;
    assert_eq!((code, err.as_str()), (1, "a.yaml: error: not a regular file; remove it\n"));
}

#[tokio::test]
async fn a_file_name_cannot_begin_a_line_of_its_own() {
    let world = World::new();
    let text = device("d1", 1).replace("spec:", "spac:");
    fs::write(world.path("manifests/a\n::error::b.yaml"), text).unwrap();
    for output in ["text", "github", "json"] {
        let (code, out, err) = world.run(&["validate", "manifests", "-o", output]).await;
        let all = format!("{out}{err}");
        assert!(code == 1 && all.contains("spac") && !all.contains("\n::error::b"), "{all}");
    }
}

#[tokio::test]
async fn a_folder_without_a_manifest_is_told_from_one_without_a_problem() {
    let world = World::new();
    let (code, out, err) = world.run(&["validate", "manifests"]).await;
    assert_eq!((code, out.as_str()), (0, "0 files, 0 twins, 0 queries, 0 errors\n"));
    assert_eq!(err, ".: warning: no file in this folder ends in .yaml or .yml; is it the right folder?\n");
    let (_, out, _) = world.run(&["validate", "manifests", "-o", "json"]).await;
    assert!(out.contains(r#""rule":"no-files""#), "{out}");
}

#[tokio::test]
async fn one_twin_that_is_asked_for_and_not_there_is_an_error_and_an_empty_list_is_none() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let daemon = world.run_embedded("state", &[]).await;
    let server = daemon.announced("metrics ").replace("/metrics", "");
    let get = async |words: &[&str]| world.run(&[&["get", "--server", &server], words].concat()).await;
    let (code, out, err) = get(&["nope"]).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(err, "error: nope is not managed; `geminid get` lists the twins that are\n");
    assert_eq!(get(&["nope*"]).await.0, 0);
    assert_eq!(get(&["d1"]).await.0, 0);
}

#[tokio::test]
async fn a_reconcile_that_changed_nothing_says_why() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("token", "a-token-of-sixteen-bytes");
    let daemon = world.run_embedded("state", &["--api-token-file", "token"]).await;
    daemon.says("registered the device").await;
    let server = daemon.announced("metrics ").replace("/metrics", "");
    let asked = ["--server", &server, "--token-file", "token"];
    let ask = async |words: &[&str]| world.run(&[words, &asked].concat()).await;
    assert_eq!(ask(&["reconcile", "d1"]).await, (0, "d1: reconciled\n".to_owned(), String::new()));
    assert_eq!(ask(&["suspend", "d1", "--reason", "bench"]).await.0, 0);
    let (code, out, err) = ask(&["reconcile", "d1"]).await;
    assert_eq!((code, out.as_str()), (0, "d1: reconciled; it is suspended: held: suspended: bench\n"), "{err}");
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_said_at_the_start() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.write("short", "abc");
    for (file, says) in [("nowhere", "No such file"), ("short", "a token has 16 to 4096 bytes")] {
        let daemon = world.run_embedded("state", &["--api-token-file", file]).await;
        daemon.says("the token of the API cannot be used, actions are refused until it can").await;
        daemon.says(says).await;
        assert_eq!(daemon.lines_with("the token of the API"), 1, "{}", daemon.stderr());
    }
}

#[tokio::test]
async fn check_looks_at_the_files_of_the_process_too() {
    let world = World::new();
    world.write("manifests/d1.yaml", &device("d1", 1));
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let check = ["check", "--hub-json", "state/hub.json", "--manifests", "manifests", "--settings", "settings.toml"];
    world.write("settings.toml", "api_token_file = \"nowhere\"\nweb_config = \"web.yml\"\naudit_log = \"no/log\"\n");
    let (code, out, err) = world.run(&check).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("this process\n") && out.ends_with("1 hub: 3 missing\n"), "{out}{err}");
    for line in [
        "  api token  MISSING  api_token_file: nowhere: No such file",
        "  metrics    MISSING  ",
        "  audit log  MISSING  audit_log: there is no folder no; make it",
    ] {
        assert!(out.contains(line), "{out}");
    }
    world.write("token", "a-token-of-sixteen-bytes");
    world.write("settings.toml", "api_token_file = \"token\"\naudit_log = \"log\"\n");
    let (code, out, err) = world.run(&check).await;
    assert!(code == 0 && out.contains("  api token  ok\n  audit log  ok\n"), "{out}{err}");
    assert!(!world.path("log").exists(), "nothing is changed");
}

#[tokio::test]
async fn a_connection_string_is_complained_about_once() {
    let world = World::new();
    let settings = "owner = \"o\"\n[hubs.prod]\nmanifests = \"manifests\"\nconnection_string_file = \"cs\"\n";
    world.write("settings.toml", settings);
    for (text, says) in [
        (
            "HostName=h.azure-devices.net",
            "the connection string has no SharedAccessKeyName; expected HostName=...;Shar",
        ),
        (
            "HostName=https://h;SharedAccessKeyName=p;SharedAccessKey=Q0E=",
            "HostName in the connection string: the host",
        ),
        ("HostName=h;SharedAccessKeyName=p;SharedAccessKey=!", "SharedAccessKey is not base64; copy the whole key"),
    ] {
        world.write("cs", text);
        let (code, _, err) = world.run(&["plan", "--settings", "settings.toml"]).await;
        let says = format!("error: hub prod: connection_string_file: {says}");
        assert!(code == 2 && err.starts_with(&says), "{err}");
        assert_eq!(err.matches(&says[says.len() - 20..]).count(), 1, "{err}");
    }
}

#[tokio::test]
async fn a_log_level_that_is_none_does_not_silence_the_daemon() {
    let world = World::new();
    world.write("settings.toml", "owner = \"o\"\nlog_level = \"loud\"\n");
    let embedded = ["run", "--embedded-hub", "--manifests", "manifests"];
    for more in [["--log-level", "loud"], ["--settings", "settings.toml"]] {
        let (code, _, err) = world.run(&[&embedded[..], &more].concat()).await;
        let says = "log_level: \"loud\" is none of error, warn, info, debug and trace";
        assert!(code == 2 && err.contains(says), "{err}");
    }
}

#[tokio::test]
async fn a_folder_that_goes_is_said_once_and_in_our_own_words() {
    let world = World::new();
    fs::create_dir_all(world.path("manifests/inner")).unwrap();
    world.write("manifests/inner/d1.yaml", &device("d1", 1));
    let daemon = world.run_embedded("state", &[]).await;
    daemon.says("registered the device").await;
    fs::remove_dir_all(world.path("manifests")).unwrap();
    daemon.says("the last good state stays").await;
    fs::create_dir_all(world.path("manifests/inner")).unwrap();
    world.write("manifests/inner/d1.yaml", &device("d1", 1));
    daemon.says("manifests can be loaded again").await;
    let err = daemon.stderr();
    assert!(!err.contains("watch descriptor") && !err.contains("Os {"), "{err}");
}
