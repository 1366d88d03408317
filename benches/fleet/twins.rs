//! The fleet: twins of about a kilobyte, what is wanted of them, and what makes them drift.
//!
//! Invariant: drift of one round is like that of no other, so no contender finds its work done by an earlier one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What stands at the hub before anybody declares anything; `{n}` is the number of the twin.
pub(crate) const TEMPLATE: &str = r#"{"deviceId":"device-{n}","tags":{"location":{"region":"EU","plant":"plant-{n}",
"line":"line-7"},"owner":"team-fleet","rev":"r2026-11","hw":{"model":"TX-9000","rev":4}},"properties":{"desired":{
"telemetry":{"interval_s":60,"batch":20,"compress":true},"wifi":{"ssid":"plant-net","channel":11},"power_level":3,
"firmware":{"version":"4.11.2","url":"https://firmware.example.com/4.11.2/image.bin"},
"limits":{"temperature":{"low":-20,"high":85},"vibration":3.5}},"reported":{"connectivity":"cellular",
"firmware":{"version":"4.11.1","state":"idle"},"battery":87,"uptime_s":864000,
"sensors":{"temperature":21.5,"humidity":44,"pressure":1013.2},"lastBoot":"2026-11-20T08:15:00Z",
"modem":{"imei":"35693803564{n}","signal":-71,"operator":"Example Mobile"}}}}"#;
/// The power level that is wanted of every twin, and that a hub is filled with.
pub(crate) const POWER_LEVEL: usize = 3;
/// Manifests of one file, where not every twin has a file of its own.
const TWINS_A_FILE: usize = 100;
/// Files of one folder.
const FILES_A_FOLDER: usize = 100;

pub(crate) fn id(number: usize) -> String {
    format!("device-{number}")
}

/// What is wanted of a twin: tags and desired values.
fn wanted(number: usize) -> (Value, Value) {
    let tags = json!({"location": {"region": "EU", "plant": format!("plant-{number}")}, "owner": "team-fleet"});
    let desired = json!({
        "telemetry": {"interval_s": 60, "batch": 20}, "power_level": POWER_LEVEL, "firmware": {"version": "4.11.2"},
    });
    (tags, desired)
}

/// Whether a twin as a query shows it holds all that is wanted of it.
pub(crate) fn holds(twin: &Value) -> bool {
    let number = twin["deviceId"].as_str().and_then(|id| id.strip_prefix("device-")).and_then(|text| text.parse().ok());
    let Some(number) = number else { return false };
    let (tags, desired) = wanted(number);
    includes(&twin["tags"], &tags) && includes(&twin["properties"]["desired"], &desired)
}

fn includes(have: &Value, want: &Value) -> bool {
    let Some(fields) = want.as_object() else { return have == want };
    fields.iter().all(|(key, want)| have.get(key).is_some_and(|have| includes(have, want)))
}

/// A patch that moves two leaves of a twin away from what is wanted, and takes away the seals that geminid wrote.
pub(crate) fn drift(round: usize) -> String {
    let (plant, level) = (format!("moved-{round}"), level(round));
    json!({"tags": {"location": {"plant": plant}, "geminid": null}, "properties": {"desired": {"power_level": level}}})
        .to_string()
}

/// The same with the seals left, as a colleague's script does it.
pub(crate) fn drift_under_seal(round: usize) -> String {
    json!({"properties": {"desired": {"power_level": level(round)}}}).to_string()
}

/// The value that a twin has which drifted in this round.
pub(crate) fn level(round: usize) -> usize {
    1_000 + round
}

/// A patch that brings a twin back, as large as any contender's.
pub(crate) fn remedy(number: usize) -> String {
    let plant = format!("plant-{number}");
    json!({"tags": {"location": {"plant": plant}}, "properties": {"desired": {"power_level": POWER_LEVEL}}}).to_string()
}

/// Writes what is wanted of `count` twins as JSON, for programs that know no manifests.
pub(crate) fn write_wanted(path: &Path, count: usize) {
    let entry = |number: usize| {
        let (tags, desired) = wanted(number);
        json!({"deviceId": id(number), "tags": tags, "desired": desired})
    };
    fs::write(path, Value::Array((0..count).map(entry).collect()).to_string()).unwrap();
}

/// Writes the same as manifests, a hundred twins a file, with a power level of one's choice.
pub(crate) fn write_manifests(folder: &Path, count: usize, power_level: usize) {
    for file in 0..count.div_ceil(TWINS_A_FILE) {
        let group = folder.join(format!("group-{:03}", file / FILES_A_FOLDER));
        fs::create_dir_all(&group).unwrap();
        let numbers = file * TWINS_A_FILE..count.min((file + 1) * TWINS_A_FILE);
        fs::write(group.join(format!("{file:05}.yaml")), numbers.map(|n| manifest(n, power_level)).collect::<String>())
            .unwrap();
    }
}

/// Where the manifest of a twin lies that has a file of its own.
pub(crate) fn place(number: usize) -> String {
    format!("group-{:03}/{}.yaml", number / FILES_A_FOLDER, id(number))
}

/// The manifest of a twin, with a power level of one's choice.
pub(crate) fn manifest(number: usize, power_level: usize) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: {}\nspec:\n  tags:\n    location:\n      \
         region: EU\n      plant: plant-{number}\n    owner: team-fleet\n  properties:\n    desired:\n      telemetry:\n        \
         interval_s: 60\n        batch: 20\n      power_level: {power_level}\n      firmware:\n        version: 4.11.2\n---\n",
        id(number)
    )
}
