//! `export` and `query` with the real binary.

use std::fs;

use geminid::twin::{Section, Value};

use crate::support::World;

async fn fleet(world: &World) {
    let client = world.client("state");
    for (device, plant, line) in [("a:1", "R43", 1), ("b", "R43", 2), ("C", "Ulm2", 1), ("c", "Ulm2", 1)] {
        client.create(device).await;
        client.set(device, Section::Tags, &["location", "plant"], Value::from(plant)).await;
        client.set(device, Section::Tags, &["line"], Value::from(line)).await;
        client.set(device, Section::Desired, &["on"], Value::from("1.10")).await;
    }
    let seal = Value::parse_json(r#"{"v":1,"o":[]}"#).unwrap();
    client.set("b", Section::Tags, &["geminid", "other-team"], seal).await;
}

#[tokio::test]
async fn exporting_and_then_planning_shows_no_change() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    fleet(&world).await;
    let on_hub = ["--hub-json", "state/hub.json"];
    let (code, out, err) = world.run(&[&["export"], &on_hub[..]].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!("export_stream", out);
    for (folder, more) in [("one", &[][..]), ("two", &["--profile-by", "tags.location.plant"])] {
        let (code, out, err) = world.run(&[&["export", "--out", folder], more, &on_hub].concat()).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let (code, out, err) = world.run(&["validate", folder]).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let plan = [&["plan", "--manifests", folder], &on_hub[..]].concat();
        let (code, out, _) = world.run(&plan).await;
        assert_eq!(code, 0, "{out}");
        assert!(out.starts_with("4 twins: 4 to seal, 4 in sync\n"), "{out}");
        let mut names: Vec<String> = fs::read_dir(world.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        insta::assert_snapshot!(format!("export_files_{folder}"), names.join("\n"));
    }
    insta::assert_snapshot!("export_profiles", fs::read_to_string(world.path("two/profiles.yaml")).unwrap());
    let (code, _, err) = world.run(&[&["export", "--out", "one"], &on_hub[..]].concat()).await;
    assert_eq!((code, err.contains("is not empty") && err.contains("--force")), (2, true), "{err}");
    let (code, out, _) = world.run(&[&["export", "b"], &on_hub[..]].concat()).await;
    assert_eq!((code, out.matches("kind:").count(), out.contains("other-team")), (0, 1, false), "{out}");
    let query = ["export", "--query", "SELECT * FROM devices WHERE tags.location.plant = 'Ulm2'"];
    let (code, out, _) = world.run(&[&query, &on_hub[..]].concat()).await;
    assert_eq!((code, out.matches("kind:").count()), (0, 2), "{out}");
    let (code, _, err) = world.run(&[&["export", "nobody"], &on_hub[..]].concat()).await;
    assert_eq!((code, err.contains("nobody is not registered")), (2, true), "{err}");
}

#[tokio::test]
async fn a_query_is_written_in_every_form_and_wrong_ones_get_a_caret() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    fleet(&world).await;
    let client = world.client("state");
    client.set("b", Section::Tags, &["note"], Value::from("a,\"b\"\n\u{1b}[31m\u{9b}")).await;
    let on_hub = ["--hub-json", "state/hub.json"];
    let columns = "SELECT deviceId, tags.line AS line, tags.note AS note FROM devices WHERE deviceId IN ['a:1', 'b']";
    for (form, arguments) in [
        ("table", &[columns][..]),
        ("json", &[columns, "-o", "json"]),
        ("csv", &[columns, "-o", "csv"]),
        ("groups", &["SELECT COUNT() AS n, tags.location.plant AS plant FROM devices GROUP BY tags.location.plant"]),
        ("explain", &["SELECT *  FROM devices WHERE tags.line != 1", "--explain"]),
        ("explain_columns", &["SELECT tags.line FROM devices", "--explain"]),
    ] {
        let (code, out, err) = world.run(&[&["query"], arguments, &on_hub].concat()).await;
        assert_eq!((code, err.as_str()), (0, ""), "{form}: {out}");
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{form}: {out:?}");
        insta::assert_snapshot!(format!("query_{form}"), out);
        if form == "json" {
            let json: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!(json["rows"].as_array().map(Vec::len), Some(2));
        }
    }
    for (name, text) in [
        ("from", "SELECT deviceId\nFORM devices"),
        ("function", "SELECT deviceId FROM devices WHERE LIKE(tags.a, 'x')"),
    ] {
        let (code, out, err) = world.run(&[&["query", text], &on_hub[..]].concat()).await;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        insta::assert_snapshot!(format!("query_wrong_{name}"), err);
    }
    let mut watching = world.start(&[&["query", columns, "--watch", "1s"], &on_hub[..]].concat());
    watching.wait_for("two rounds", || watching.stdout().matches("2 rows").count() >= 2).await;
    assert_eq!(watching.interrupt().await, 0);
}

#[tokio::test]
async fn a_query_stopped_before_its_last_row_ends_with_2_and_one_that_is_watched_with_0() {
    let world = World::new();
    world.write("twin.json", r#"{"tags":{"n":"{n}"}}"#);
    world.write("slow.json", r#"{"rules":[{"operations":["query"],"rate":1.0,"latencyMs":1000}]}"#);
    let hub = ["hub", "--state-dir", "state", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
    let slow = ["--fill-devices", "3000", "--fill-template", "twin.json", "--hub-faults", "--fault-plan", "slow.json"];
    let hub = world.start(&[&hub[..], &slow].concat());
    hub.wait_for("the hub's announcement", || hub.stdout().contains("stop")).await;
    // 30 pages, each a second late: the first row is there long before the last.
    let query = ["query", "SELECT deviceId FROM devices", "-o", "json", "--hub-json", "state/hub.json"];
    for (more, signal, code, said) in [
        (&[][..], "INT", 2, "error: stopped before the last row"),
        (&[], "TERM", 2, "error: stopped before the last row"),
        (&["--watch", "1s"], "INT", 0, ""),
        (&["--watch", "1s"], "TERM", 0, ""),
    ] {
        let mut process = world.start(&[&query[..], more].concat());
        process.wait_for("a row", || process.stdout().contains("deviceId")).await;
        process.signal(signal);
        let ended = process.exit_code().await;
        let err = process.stderr();
        let errors: Vec<&str> = err.lines().filter(|line| !line.contains("INFO stopping")).collect();
        assert_eq!((ended, errors.concat().as_str()), (code, said), "{more:?} {signal}: {err}");
        let rows = process.stdout().matches("deviceId").count();
        assert!((1..3000).contains(&rows), "stopped amid the rows, not after {rows}");
    }
}

#[tokio::test]
async fn a_list_that_is_watched_ends_with_0_even_amid_an_answer_that_does_not_come() {
    let world = World::new();
    world.write("manifests/d1.yaml", &crate::support::device("d1", 1));
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let daemon = world.run_on("state/hub.json", &[]).await;
    let server = daemon.announced("status ").trim_start_matches("geminid get ").to_owned();
    let line = format!("get --watch 1s -o name {server}");
    let line: Vec<&str> = line.split_whitespace().collect();
    for (signal, stalls) in [("INT", false), ("TERM", false), ("INT", true)] {
        let mut process = world.start(&line);
        process.wait_for("two rounds", || process.stdout().matches("d1").count() >= 2).await;
        if stalls {
            daemon.signal("STOP");
        }
        process.signal(signal);
        let code = process.exit_code().await;
        if stalls {
            daemon.signal("CONT");
        }
        assert_eq!((code, process.stderr().as_str()), (0, ""), "{signal} {stalls}");
    }
}
