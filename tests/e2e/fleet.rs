//! The fleet in `fleet/`: profiles, modules and queries, from a clean check to twins in sync.

use geminid::twin::{Section, Value};

use crate::support::{World, leaf};

const FLEET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fleet");

#[tokio::test]
async fn the_shipped_fleet_is_clean_and_comes_into_sync_with_its_profiles() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let client = world.client("state");
    let (code, out, err) = world.run(&["validate", FLEET]).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "6 files, 32 twins, 7 profiles, 2 queries, 0 errors\n", ""));

    let on_hub = ["--hub-json", "state/hub.json", "--manifests", FLEET];
    let verb = |verb| [&[verb], &on_hub[..]].concat();
    let (code, out, _) = world.run(&verb("plan")).await;
    assert_eq!((code, out.contains("30 to register, 2 missing")), (1, true), "{out}");
    let from = "+ properties.desired.telemetry.interval_s = 60  (profiles.yaml:";
    assert!(out.contains(from), "a leaf says which line set it: {out}");
    assert!(!out.contains("change-me") && out.contains("wifi.password = <hidden "), "{out}");

    // Nobody has deployed the two modules yet.
    let (code, out, err) = world.run(&verb("apply")).await;
    assert_eq!((code, out.contains("30 twins in sync, 2 not")), (1, true), "{out}");
    assert!(!(out + &err).contains("change-me"), "a sensitive value is in no log");
    let pump = client.twin("redmond43-pump-01").await;
    let desired = |keys: &[&str]| leaf(&pump, Section::Desired, keys);
    assert_eq!(desired(&["telemetry", "interval_s"]), Some(Value::from(60)), "the higher profile");
    assert_eq!(desired(&["wifi", "password"]), Some(Value::from("change-me")), "the device gets it all the same");
    assert_eq!(leaf(&pump, Section::Tags, &["location", "plant"]), Some(Value::from("Redmond43")));
    let gateway = client.twin("leeds7-gateway-03").await;
    assert_eq!(leaf(&gateway, Section::Desired, &["telemetry", "interval_s"]), Some(Value::from(300)));

    // Once the modules are deployed they get their own values and those of their profile.
    for gateway in ["redmond43-gateway-03", "leeds7-gateway-03"] {
        world.create_module("state", gateway, "thermostat").await;
    }
    let (code, out, _) = world.run(&verb("plan")).await;
    assert_eq!((code, out.contains("redmond43-gateway-03/thermostat")), (1, true), "{out}");
    let (code, out, _) = world.run(&verb("apply")).await;
    assert_eq!((code, out.contains("32 twins in sync")), (0, true), "{out}");
    let module = client.module_twin("leeds7-gateway-03", "thermostat").await;
    for (key, value) in [("setpoint_c", 21), ("interval_s", 30)] {
        assert_eq!(leaf(&module, Section::Desired, &[key]), Some(Value::from(value)), "{key}");
    }

    // What a technician calibrates stays.
    client.set("redmond43-pump-01", Section::Desired, &["calibration", "offset"], Value::from(7)).await;
    let (code, out, _) = world.run(&verb("plan")).await;
    assert_eq!((code, out.contains("32 twins: 32 in sync")), (0, true), "{out}");
}

#[tokio::test]
async fn the_plan_in_the_docs_is_the_one_that_comes_out() {
    let world = World::new();
    let _hub = world.hub("state", "127.0.0.1:0").await;
    let arguments = ["plan", "-o", "markdown", "--hub-json", "state/hub.json", "--manifests", FLEET];
    let (code, out, err) = world.run(&arguments).await;
    assert_eq!((code, err.as_str()), (1, ""));
    let stored = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let (_, pasted) = stored.split_once("\n---\n\n").unwrap();
    let remedy = "paste it anew: geminid plan -o markdown on fleet/ and an empty embedded hub";
    assert_eq!(crate::plans::without_salt(pasted), crate::plans::without_salt(&out), "{remedy}");
}
