//! Pages, groups and what the index answers.

use jiff::Timestamp;

use super::*;
use crate::emulator::identity::IdentitySpec;
use crate::emulator::if_match::IfMatch;
use crate::emulator::job::{JobAction, JobId, JobSpec};
use crate::emulator::registry::JobsNext;
use crate::twin::{DeviceId, MergePatch, TwinRef};

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn own(text: &str) -> TwinRef {
    TwinRef::device(id(text))
}

fn create(registry: &mut Registry, device: &str) {
    let spec = IdentitySpec::default();
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    registry.put_identity(&id(device), spec, &IfMatch::Absent, &mut random, Timestamp::UNIX_EPOCH).unwrap();
}

fn fleet(count: usize) -> Registry {
    let mut registry = Registry::default();
    for number in 0..count {
        create(&mut registry, &format!("d{number:02}"));
    }
    registry
}

fn object_of(json: &str) -> Option<Object> {
    Some(object(json))
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn rows(registry: &Registry, text: &str) -> Vec<String> {
    match run_page(registry, text, None, None).unwrap().rows {
        Rows::Twins(twins) => twins.iter().map(|device| device.identity.device.to_string()).collect(),
        Rows::Raw(rows) | Rows::Jobs(rows) => rows.into_iter().map(|row| Value::Object(row).to_string()).collect(),
    }
}

/// The ids of all pages, and the size of each page.
fn pages(registry: &Registry, text: &str, page_size: usize) -> (Vec<String>, Vec<usize>) {
    let (mut ids, mut sizes, mut token) = (Vec::new(), Vec::new(), None);
    loop {
        let page = run_page(registry, text, Some(page_size), token.as_deref()).unwrap();
        let Rows::Twins(twins) = page.rows else { panic!("{text} selects twins") };
        sizes.push(twins.len());
        ids.extend(twins.iter().map(|device| device.identity.device.to_string()));
        token = page.next;
        if token.is_none() {
            return (ids, sizes);
        }
    }
}

#[test]
fn the_two_queries_of_the_tutorial_count_and_project() {
    let mut registry = fleet(3);
    let patch = MergePatch { tags: Some(object(r#"{"location":{"plant":"Redmond43"}}"#)), desired: None };
    for device in ["d00", "d01"] {
        registry.patch_twin(&own(device), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
    }
    registry.report(&own("d01"), &object(r#"{"connectivity":"cellular"}"#), Timestamp::UNIX_EPOCH).unwrap();
    let plant = "tags.location.plant = 'Redmond43'";
    let cellular = format!("{plant} AND properties.reported.connectivity = 'cellular'");
    assert_eq!(rows(&registry, &format!("SELECT * FROM devices WHERE {plant}")), ["d00", "d01"]);
    assert_eq!(rows(&registry, &format!("SELECT * FROM devices WHERE {cellular}")), ["d01"]);
    assert_eq!(rows(&registry, &format!("SELECT COUNT() AS n FROM devices WHERE {plant}")), [r#"{"n":2}"#]);
    assert_eq!(rows(&registry, "SELECT COUNT() AS n FROM devices WHERE deviceId = 'x'"), [r#"{"n":0}"#]);
    assert_eq!(
        rows(&registry, &format!("SELECT DeviceID, tags.location.plant AS p FROM devices WHERE {cellular}")),
        [r#"{"deviceId":"d01","p":"Redmond43"}"#]
    );
    assert_eq!(rows(&registry, "SELECT * FROM devices.modules"), Vec::<String>::new());
}

#[test]
fn every_system_property_can_be_projected_and_what_is_missing_is_left_out() {
    let mut registry = fleet(1);
    let desired = MergePatch { tags: None, desired: Some(object(r#"{"a":{"b":1}}"#)) };
    registry.patch_twin(&own("d00"), &desired, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
    for (columns, row) in [
        ("etag, deviceEtag", r#"{"deviceEtag":"MTY4NDMwMDk=","etag":"AAAAAAAAAAI="}"#),
        ("status, connectionState", r#"{"connectionState":"Disconnected","status":"enabled"}"#),
        ("statusReason, tags, tags.x, properties.desired.a.x", "{}"),
        ("version, authenticationType", r#"{"authenticationType":"sas","version":3}"#),
        ("capabilities.iotEdge", r#"{"iotEdge":false}"#),
        ("properties.desired.a.b AS b, properties.desired.$version AS v", r#"{"b":1,"v":2}"#),
        ("properties.desired.$metadata.a.b.$lastUpdatedVersion AS v", r#"{"v":2}"#),
        ("properties.reported.$metadata.$lastUpdated AS at", r#"{"at":"1970-01-01T00:00:00Z"}"#),
        ("properties.reported", r#"{"reported":{"$metadata":{"$lastUpdated":"1970-01-01T00:00:00Z"},"$version":1}}"#),
    ] {
        assert_eq!(rows(&registry, &format!("SELECT {columns} FROM devices")), [row], "{columns}");
    }
}

#[test]
fn a_page_is_followed_by_a_token_only_while_more_remains() {
    let registry = fleet(7);
    for (text, page_size, sizes) in [
        ("SELECT * FROM devices", 3, vec![3, 3, 1]),
        ("SELECT * FROM devices", 7, vec![7]),
        ("SELECT * FROM devices", 1000, vec![7]),
        ("SELECT * FROM devices", 0, vec![1; 7]),
        ("SELECT TOP 4 * FROM devices", 3, vec![3, 1]),
        ("SELECT TOP 3 * FROM devices", 3, vec![3]),
        ("SELECT TOP 0 * FROM devices", 3, vec![0]),
        ("SELECT * FROM devices WHERE deviceId != 'd06'", 6, vec![6]),
        ("SELECT * FROM devices WHERE deviceId IN ['d00', 'd06']", 1, vec![1, 1]),
        ("SELECT * FROM devices WHERE deviceId = 'x'", 1, vec![0]),
    ] {
        assert_eq!(pages(&registry, text, page_size).1, sizes, "{text}");
    }
}

#[test]
fn paging_survives_writes_creations_and_deletions_between_pages() {
    let mut registry = fleet(6);
    let text = "SELECT * FROM devices";
    let first = run_page(&registry, text, Some(3), None).unwrap();
    registry.delete_identity(&id("d02"), &IfMatch::Any).unwrap();
    registry.delete_identity(&id("d04"), &IfMatch::Any).unwrap();
    create(&mut registry, "d01x");
    create(&mut registry, "d03x");
    let tags = MergePatch { tags: Some(object(r#"{"a":1}"#)), desired: None };
    registry.patch_twin(&own("d05"), &tags, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
    let second = run_page(&registry, text, Some(100), first.next.as_deref()).unwrap();
    let Rows::Twins(twins) = second.rows else { panic!("twins") };
    let ids: Vec<_> = twins.iter().map(|device| device.identity.device.as_str()).collect();
    assert_eq!((ids, second.next), (vec!["d03", "d03x", "d05"], None));
}

#[test]
fn a_long_scan_gives_a_short_page_and_goes_on() {
    let mut registry = Registry::default();
    for number in 0..=SCAN_MAX {
        create(&mut registry, &format!("d{number:06}"));
    }
    let last = format!("SELECT * FROM devices WHERE deviceId >= 'd{SCAN_MAX:06}'");
    assert_eq!(pages(&registry, &last, 10), (vec![format!("d{SCAN_MAX:06}")], vec![0, 1]));
}

/// A fleet whose tags overlap in every way.
fn tagged(count: usize) -> Registry {
    let mut registry = fleet(count);
    for number in 0..count {
        let (site, rev) = (number % 3, number % 4);
        let tags = match number % 5 {
            0 => format!(r#"{{"site":"s{site}","rev":{rev},"loc":{{"plant":"p{rev}"}}}}"#),
            1 => format!(r#"{{"site":"s{site}","rev":{rev}.0,"on":true}}"#),
            2 => format!(r#"{{"site":{site},"loc":"p{rev}"}}"#),
            3 => format!(r#"{{"site":["s{site}"],"rev":"{rev}"}}"#),
            _ => continue,
        };
        let patch = MergePatch { tags: Some(object(&tags)), desired: None };
        registry.patch_twin(&own(&format!("d{number:02}")), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
    }
    registry
}

#[test]
fn what_the_index_answers_is_what_a_look_at_every_twin_answers() {
    let mut registry = tagged(60);
    for device in ["d05", "d10", "d31"] {
        registry.delete_identity(&id(device), &IfMatch::Any).unwrap();
    }
    let patch = MergePatch { tags: Some(object(r#"{"site":null,"loc":{"plant":"p9"}}"#)), desired: None };
    registry.patch_twin(&own("d15"), &patch, &IfMatch::Absent, Timestamp::UNIX_EPOCH).unwrap();
    for condition in [
        "tags.site = 's1'",
        "'s1' = tags.site",
        "tags.site = 1",
        "tags.rev = 2",
        "tags.rev = 2.0",
        "tags.rev = '2'",
        "tags.on = true",
        "tags.on = false",
        "tags.loc.plant = 'p9'",
        "tags.loc = 'p1'",
        "tags.site = null",
        "tags.site = undefined",
        "tags.site = ['s1']",
        "tags.none = 1",
        "tags = 'x'",
        "tags.site = 's0' AND tags.rev = 0",
        "tags.site = 's0' AND tags.rev = 0 AND tags.loc.plant = 'p0'",
        "tags.site = 's0' AND version > 2",
        "tags.site = 's0' OR tags.rev = 3",
        "tags.site = 's0' OR version > 3",
        "tags.site IN ['s0', 's2', 1]",
        "tags.site IN []",
        "tags.site NIN ['s0']",
        "tags.site != 's0'",
        "NOT tags.site = 's0'",
        "deviceId = 'd07'",
        "deviceId = 'd05'",
        "deviceId = 'nobody'",
        "deviceId IN ['d40', 'd07', 'x'] AND tags.rev = 3",
        "deviceId = 'd07' AND deviceId = 'd08'",
        "tags.[[a.b]] = 1",
    ] {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        let parsed = query::parse(&text).unwrap();
        let every = registry.devices_after(None).filter(|device| passes(&parsed, device));
        let every: Vec<String> = every.map(|device| device.identity.device.to_string()).collect();
        for page_size in [1, 3, 100] {
            assert_eq!(pages(&registry, &text, page_size).0, every, "{condition}");
        }
        let count = rows(&registry, &format!("SELECT COUNT() AS n FROM devices WHERE {condition}"));
        assert_eq!(count, [format!(r#"{{"n":{}}}"#, every.len())], "{condition}");
    }
}

#[test]
fn groups_come_in_pages_that_survive_writes() {
    let mut registry = tagged(20);
    let text = "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId";
    let page = |registry: &Registry, token: Option<&str>| {
        let page = run_page(registry, text, Some(8), token).unwrap();
        let Rows::Raw(rows) = page.rows else { panic!("groups are raw") };
        let ids = rows.iter().map(|row| row["deviceId"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), page.next)
    };
    let (first, next) = page(&registry, None);
    assert_eq!((first.len(), first[7].as_str()), (8, "d07"));
    registry.delete_identity(&id("d01"), &IfMatch::Any).unwrap();
    create(&mut registry, "d09x");
    let (second, next) = page(&registry, next.as_deref());
    assert_eq!(second, ["d08", "d09", "d09x", "d10", "d11", "d12", "d13", "d14"]);
    registry.delete_identity(&id("d14"), &IfMatch::Any).unwrap();
    let (third, end) = page(&registry, next.as_deref());
    assert_eq!(
        (third, end),
        (["d15", "d16", "d17", "d18", "d19"].map(str::to_owned).to_vec(), None),
        "behind what is gone"
    );
    // A key too long for a token is found again by its hash, though what was counted has changed.
    let long = "x".repeat(3000);
    for (name, tags) in [("e1", format!(r#"{{"k":"{long}"}}"#)), ("e2", format!(r#"{{"k":"{long}y"}}"#))] {
        create(&mut registry, name);
        let patch = MergePatch { tags: object_of(&tags), desired: None };
        registry.patch_twin(&TwinRef::device(id(name)), &patch, &IfMatch::Any, Timestamp::UNIX_EPOCH).unwrap();
    }
    let text = "SELECT tags.k, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.k) GROUP BY tags.k";
    let first = run_page(&registry, text, Some(1), None).unwrap();
    create(&mut registry, "e3");
    let patch = MergePatch { tags: object_of(&format!(r#"{{"k":"{long}"}}"#)), desired: None };
    registry.patch_twin(&TwinRef::device(id("e3")), &patch, &IfMatch::Any, Timestamp::UNIX_EPOCH).unwrap();
    let second = run_page(&registry, text, Some(1), first.next.as_deref()).unwrap();
    assert!(
        matches!((second.rows, second.next), (Rows::Raw(rows), None) if rows[0]["k"].as_str().unwrap().ends_with('y'))
    );
    let top = "SELECT TOP 3 tags.rev, COUNT() AS n FROM devices GROUP BY tags.rev";
    let found = rows(&registry, top);
    assert_eq!(found.len(), 3, "{found:?}");
    let pages = run_page(&registry, top, Some(2), None).unwrap();
    let last = run_page(&registry, top, Some(2), pages.next.as_deref()).unwrap();
    assert!(matches!((last.rows, last.next), (Rows::Raw(rows), None) if rows.len() == 1));
}

#[test]
fn a_bad_query_and_an_invented_token_are_refused() {
    let registry = fleet(3);
    let text = "SELECT * FROM devices";
    let foreign = run_page(&registry, text, Some(1), None).unwrap().next.unwrap();
    for (text, token, code) in [
        ("SELECT", None, "ArgumentInvalid"),
        ("SELECT * FROM devices ORDER BY deviceId", None, "ArgumentInvalid"),
        ("SELECT COUNT() FROM devices.modules", None, "ArgumentInvalid"),
        (text, Some("MQ=="), "ArgumentInvalid"),
        (text, Some("not base64"), "ArgumentInvalid"),
        (text, Some(""), "ArgumentInvalid"),
        ("SELECT * FROM devices WHERE deviceId != 'x'", Some(foreign.as_str()), "ArgumentInvalid"),
    ] {
        let refused = run_page(&registry, text, None, token).unwrap_err();
        assert_eq!(refused.code(), code, "{text} {token:?}");
    }
}

#[test]
fn what_jobs_did_is_found_by_their_columns_and_in_pages() {
    let mut registry = fleet(5);
    for name in ["one", "two"] {
        let spec = JobSpec {
            document: Object::new(),
            action: JobAction::UpdateTwin(MergePatch { tags: object_of(r#"{"a":1}"#), desired: None }),
            condition: "deviceId != 'd03'".to_owned(),
            start: None,
            seconds_max: None,
        };
        registry.put_job(&JobId::new(name).unwrap(), spec, 9, Timestamp::UNIX_EPOCH).unwrap();
        while matches!(registry.step_jobs(2, Timestamp::UNIX_EPOCH), JobsNext::Step { .. }) {}
    }
    let all = |text: &str, page_size: usize| {
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = run_page(&registry, text, Some(page_size), token.as_deref()).unwrap();
            let Rows::Jobs(rows) = page.rows else { panic!("jobs") };
            let text = |row: &Object, name: &str| row[name].as_str().unwrap().to_owned();
            found.extend(rows.iter().map(|row| format!("{}/{}", text(row, "jobId"), text(row, "deviceId"))));
            token = page.next;
            if token.is_none() {
                return found;
            }
        }
    };
    let every = ["one/d00", "one/d01", "one/d02", "one/d04", "two/d00", "two/d01", "two/d02", "two/d04"];
    for page_size in [1, 3, 8, 100] {
        assert_eq!(all("SELECT * FROM devices.jobs", page_size), every, "{page_size}");
        let one = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'two' AND status = 'completed'";
        assert_eq!(all(one, page_size), every[4..], "{page_size}");
    }
    let none = "SELECT * FROM devices.jobs WHERE jobType = 'scheduleDeviceMethod' OR startTimeUtc > '2000'";
    assert_eq!(all(none, 100), Vec::<String>::new());
}
