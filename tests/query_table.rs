//! Every row of `iot-hub.md` 5.1 to 5.5 that is not UNSURE, walked over the embedded hub.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use geminid::emulator::identity::IdentitySpec;
use geminid::emulator::if_match::IfMatch;
use geminid::emulator::job::{JobAction, JobId, JobSpec};
use geminid::emulator::query::{Rows, run_page};
use geminid::emulator::registry::{JobsNext, Registry};
use geminid::twin::{DeviceId, MergePatch, ModuleId, Object, TwinRef, Value};
use jiff::Timestamp;

const T: Timestamp = Timestamp::UNIX_EPOCH;

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn object(json: &str) -> Option<Object> {
    Value::parse_json(json).unwrap().as_object().cloned()
}

/// Three devices and a module: `d1` with everything, `d2` with other values and types, `d3` with nothing.
fn hub() -> Registry {
    let mut registry = Registry::default();
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    for name in ["d1", "d2", "d3"] {
        registry.put_identity(&device(name), IdentitySpec::default(), &IfMatch::Absent, &mut random, T).unwrap();
    }
    let module = ModuleId::new("m1").unwrap();
    let spec = IdentitySpec::default();
    registry.put_module(&device("d1"), &module, spec, &IfMatch::Absent, &mut random, T).unwrap();
    for (twin, tags, desired) in [
        (
            TwinRef::device(device("d1")),
            r#"{"site":"Redmond43","rev":"a","n":5,"f":2.5,"on":true,"group":{"x":1},"my-key":"v","same":"Redmond43","list":[1]}"#,
            r#"{"power":1,"my-cfg":{"status":"Applied"}}"#,
        ),
        (TwinRef::device(device("d2")), r#"{"site":"redmond43","rev":"a","n":"5"}"#, r#"{"power":9}"#),
        (TwinRef::module(device("d1"), module), r#"{"kind":"thermo"}"#, r#"{"interval":30}"#),
    ] {
        let patch = MergePatch { tags: object(tags), desired: object(desired) };
        registry.patch_twin(&twin, &patch, &IfMatch::Absent, T).unwrap();
    }
    let reported = object(r#"{"connectivity":"cellular"}"#).unwrap();
    registry.report(&TwinRef::device(device("d1")), &reported, T).unwrap();
    registry
}

/// The rows of a query as text; whole twins as the names of the twins. An error is its code.
fn ask(registry: &Registry, query: &str) -> Result<(&'static str, Vec<String>), &'static str> {
    match run_page(registry, query, None, None).map_err(|refusal| refusal.code())?.rows {
        Rows::Twins(twins) => Ok(("Twin", twins.iter().map(|twin| twin.identity.twin_ref().to_string()).collect())),
        Rows::Jobs(rows) => Ok(("DeviceJob", rows.into_iter().map(|row| Value::Object(row).to_string()).collect())),
        Rows::Raw(rows) => Ok(("Raw", rows.into_iter().map(|row| Value::Object(row).to_string()).collect())),
    }
}

/// The devices for which a condition is true.
fn devices(registry: &Registry, condition: &str) -> Vec<String> {
    let query = format!("SELECT * FROM devices WHERE {condition}");
    ask(registry, &query).unwrap_or_else(|code| panic!("{condition}: {code}")).1
}

#[test]
fn grammar_5_1() {
    let hub = hub();
    for (condition, expected) in [
        // expr
        ("tags.n = 5 OR tags.n = '5'", vec!["d1", "d2"]),
        ("tags.n = 5 AND tags.on = true", vec!["d1"]),
        ("NOT tags.site = 'Redmond43'", vec!["d2"]),
        ("(tags.n = 5)", vec!["d1"]),
        // cmp
        ("tags.n != 4", vec!["d1"]),
        ("tags.n <> 4", vec!["d1"]),
        ("tags.n < 6 AND tags.n <= 5", vec!["d1"]),
        ("tags.n > 4 AND tags.n >= 5", vec!["d1"]),
        ("deviceId IN ['d2', 'd3']", vec!["d2", "d3"]),
        ("deviceId NIN ['d2', 'd3']", vec!["d1"]),
        // operand
        ("tags.n + 1 = 6 AND tags.n - 1 = 4 AND tags.n * 2 = 10 AND tags.n / 2 = 2.5 AND tags.n % 3 = 2", vec!["d1"]),
        // attr, with and without the collection in front
        ("devices.tags.n = 5", vec!["d1"]),
        ("properties.desired.$version = 2", vec!["d1", "d2"]),
        // const
        ("tags.n = undefined", vec![]),
        ("tags.nothing = null", vec![]),
        ("tags.on = true OR tags.on = false", vec!["d1"]),
        ("tags.f = 2.5 AND tags.n = 0x5 AND tags.n = 5e0", vec!["d1"]),
        ("tags.site = \"Redmond43\" AND tags.site = 'Redmond\\u00343'", vec!["d1"]),
        ("'it\\'s \\\\' != \"a \\\"b\\\"\" AND deviceId = 'd3'", vec!["d3"]),
        // [[x]]
        ("tags.[[group]].x = 1", vec!["d1"]),
        ("tags.[[my-key]] = 'v'", vec!["d1"]),
        ("properties.desired.[[my-cfg]].status = 'Applied'", vec!["d1"]),
        // Truth, and the negation trap
        ("tags.rev != 'x'", vec!["d1", "d2"]),
        ("tags.rev != 'x' OR NOT IS_DEFINED(tags.rev)", vec!["d1", "d2", "d3"]),
        ("tags.n = '5'", vec!["d2"]),
        ("NOT tags.nothing = 1", vec![]),
        // String compare: ordinal, case-sensitive
        ("tags.site = 'redmond43'", vec!["d2"]),
        ("tags.site < 'a'", vec!["d1"]),
        // Precedence
        ("1 + 2 * 3 = 7 AND (1 + 2) * 3 = 9 AND -2 + 3 = 1 AND deviceId = 'd3'", vec!["d3"]),
        ("deviceId = 'd1' OR deviceId = 'd2' AND deviceId = 'd3'", vec!["d1"]),
        // Objects and arrays cannot be compared, attributes can
        ("tags.[[group]] = tags.[[group]]", vec![]),
        ("tags.list = [1]", vec![]),
        ("tags.site = tags.same", vec!["d1"]),
    ] {
        assert_eq!(devices(&hub, condition), expected, "{condition}");
    }
    for query in [
        "SELECT * FROM devices ORDER BY deviceId",
        "SELECT * FROM devices JOIN devices.modules",
        "SELECT DISTINCT tags.rev FROM devices",
        "SELECT * FROM (SELECT * FROM devices)",
        "SELECT * FROM devices WHERE tags.site LIKE 'R%'",
        "SELECT * FROM devices /* all of them */",
    ] {
        assert_eq!(ask(&hub, query), Err("ArgumentInvalid"), "{query}");
    }
    // Keywords in any case.
    assert_eq!(ask(&hub, "select top 1 * From Devices wHERE Is_Defined(tags.n)").unwrap().1, ["d1"]);
}

#[test]
fn functions_5_2() {
    let hub = hub();
    for (condition, expected) in [
        ("IS_DEFINED(tags.rev)", vec!["d1", "d2"]),
        ("NOT IS_DEFINED(tags.rev)", vec!["d3"]),
        ("STARTSWITH(tags.site, 'Red')", vec!["d1"]),
        ("STARTSWITH(deviceId, 'd')", vec!["d1", "d2", "d3"]),
        ("ARRAY_CONTAINS(tags.list, 1)", vec!["d1"]),
        ("ARRAY_CONTAINS(parentScopes, 'x')", vec![]),
    ] {
        assert_eq!(devices(&hub, condition), expected, "{condition}");
    }
    for call in [
        "STARTS_WITH(tags.site, 'R')",
        "ENDS_WITH(tags.site, '3')",
        "CONTAINS(tags.site, 'mond')",
        "IS_NULL(tags.site)",
        "IS_STRING(tags.site)",
        "ABS(tags.n) = 5",
        "POWER(tags.n, 2) = 25",
        "CONCAT(tags.site, 'x') = 'x'",
        "LOWER(tags.site) = 'x'",
        "AS_NUMBER(tags.n) = 5",
        "NO_SUCH(tags.n)",
    ] {
        let query = format!("SELECT * FROM devices WHERE {call}");
        assert_eq!(ask(&hub, &query), Err("ArgumentInvalid"), "{query}");
    }
}

#[test]
fn what_works_where_5_3() {
    let hub = hub();
    for (query, expected) in [
        ("SELECT * FROM devices", Ok(("Twin", vec!["d1", "d2", "d3"]))),
        ("SELECT * FROM devices.modules", Ok(("Twin", vec!["d1/m1"]))),
        ("SELECT deviceId FROM devices WHERE tags.n = 5", Ok(("Raw", vec![r#"{"deviceId":"d1"}"#]))),
        (
            "SELECT deviceId, moduleId, tags.kind FROM devices.modules",
            Ok(("Raw", vec![r#"{"deviceId":"d1","kind":"thermo","moduleId":"m1"}"#])),
        ),
        ("SELECT TOP 2 * FROM devices", Ok(("Twin", vec!["d1", "d2"]))),
        ("SELECT * FROM devices.jobs", Ok(("DeviceJob", vec![]))),
        ("SELECT TOP 2 * FROM devices.jobs", Err("ArgumentInvalid")),
        ("SELECT jobId FROM devices.jobs", Err("ArgumentInvalid")),
        ("SELECT * FROM devices.jobs WHERE tags.n = 5", Err("ArgumentInvalid")),
        ("SELECT COUNT() AS n FROM devices.jobs", Err("ArgumentInvalid")),
        ("SELECT * FROM devices.modules WHERE tags.kind = 'thermo'", Ok(("Twin", vec!["d1/m1"]))),
        ("SELECT * FROM devices.modules WHERE devices.modules.tags.kind = 'x'", Ok(("Twin", vec![]))),
        ("SELECT * FROM devices.modules WHERE properties.desired.interval = 30", Ok(("Twin", vec!["d1/m1"]))),
        ("SELECT * FROM devices.modules WHERE deviceId = 'd1' AND moduleId = 'm1'", Ok(("Twin", vec!["d1/m1"]))),
        ("SELECT * FROM devices WHERE properties.reported.connectivity = 'cellular'", Ok(("Twin", vec!["d1"]))),
        ("SELECT COUNT() AS n FROM devices", Ok(("Raw", vec![r#"{"n":3}"#]))),
        ("SELECT COUNT() AS n FROM devices.modules", Err("ArgumentInvalid")),
        ("SELECT tags.kind, COUNT() AS n FROM devices.modules GROUP BY tags.kind", Err("ArgumentInvalid")),
        (
            "SELECT AVG(version) AS a, SUM(version) AS s, MIN(version) AS l, MAX(version) AS m FROM devices",
            Ok(("Raw", vec![r#"{"a":3,"l":2,"m":4,"s":9}"#])),
        ),
    ] {
        let expected =
            expected.map(|(kind, rows): (_, Vec<&str>)| (kind, rows.into_iter().map(str::to_owned).collect()));
        assert_eq!(ask(&hub, query), expected, "{query}");
    }
}

#[test]
fn the_columns_of_jobs_5_3() {
    let mut hub = hub();
    let patch = MergePatch { tags: object(r#"{"job":1}"#), desired: None };
    let spec = JobSpec {
        document: Object::new(),
        action: JobAction::UpdateTwin(patch),
        condition: "deviceId != 'd3'".to_owned(),
        start: None,
        seconds_max: None,
    };
    hub.put_job(&JobId::new("j1").unwrap(), spec, 1, T).unwrap();
    while matches!(hub.step_jobs(9, T), JobsNext::Step { .. }) {}
    for (condition, count) in [
        ("deviceId = 'd1'", 1),
        ("jobId = 'j1'", 2),
        ("devices.jobs.jobId = 'j1' AND devices.jobs.status = 'completed'", 2),
        ("jobType = 'scheduleUpdateTwin'", 2),
        ("jobType = 'scheduleTwinUpdate'", 0),
        ("startTimeUtc >= '1970' AND endTimeUtc >= '1970'", 2),
        ("createdDateTimeUtc >= '1970' AND lastUpdatedDateTimeUtc < '1971'", 2),
        ("IS_DEFINED(outcome.deviceMethodResponse)", 0),
    ] {
        let (kind, rows) = ask(&hub, &format!("SELECT * FROM devices.jobs WHERE {condition}")).unwrap();
        assert_eq!((kind, rows.len()), ("DeviceJob", count), "{condition}");
    }
}

#[test]
fn system_properties_5_4() {
    let hub = hub();
    for condition in [
        "deviceId = 'd1'",
        "etag = 'AAAAAAAAAAI='",
        "status = 'enabled'",
        "statusUpdateTime = '0001-01-01T00:00:00Z'",
        "connectionState = 'Disconnected'",
        "lastActivityTime > '1970'",
        "cloudToDeviceMessageCount = 0",
        "authenticationType = 'sas'",
        "version = 4",
        "capabilities.iotEdge = false",
        "NOT IS_DEFINED(deviceScope) AND NOT IS_DEFINED(parentScopes) AND NOT IS_DEFINED(statusReason)",
        "modelId = ''",
        "tags.n = 5",
        "properties.desired.power = 1 AND properties.desired.$version = 2",
        "properties.reported.connectivity = 'cellular' AND properties.reported.$version = 2",
        "NOT IS_DEFINED(configurations.[[none]].status)",
    ] {
        let found = devices(&hub, &format!("({condition}) AND deviceId = 'd1'"));
        assert_eq!(found, ["d1"], "{condition}");
    }
    assert_eq!(ask(&hub, "SELECT * FROM devices.modules WHERE moduleId = 'm1'").unwrap().1, ["d1/m1"]);
}

#[test]
fn result_shapes_5_5() {
    let hub = hub();
    for (query, kind, rows) in [
        (
            "SELECT deviceId, tags.site AS s FROM devices WHERE tags.n = 5",
            "Raw",
            vec![r#"{"deviceId":"d1","s":"Redmond43"}"#],
        ),
        ("SELECT tags.site s, tags.n AS n FROM devices WHERE tags.n = 5", "Raw", vec![r#"{"n":5,"s":"Redmond43"}"#]),
        (
            "SELECT tags.rev AS rev, tags.n AS n, COUNT() AS c FROM devices WHERE IS_DEFINED(tags.n) GROUP BY tags.rev, tags.n",
            "Raw",
            vec![r#"{"c":1,"n":"5","rev":"a"}"#, r#"{"c":1,"n":5,"rev":"a"}"#],
        ),
        ("SELECT DeviceID FROM devices WHERE DEVICEID = 'd3'", "Raw", vec![r#"{"deviceId":"d3"}"#]),
        ("SELECT COUNT() AS n FROM devices WHERE IS_DEFINED(tags.rev)", "Raw", vec![r#"{"n":2}"#]),
        (
            "SELECT tags.rev AS rev, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.rev) GROUP BY tags.rev",
            "Raw",
            vec![r#"{"n":2,"rev":"a"}"#],
        ),
    ] {
        assert_eq!(ask(&hub, query), Ok((kind, rows.iter().map(|row| (*row).to_owned()).collect())), "{query}");
    }
    let (_, desired) = ask(&hub, "SELECT properties.desired FROM devices WHERE deviceId = 'd2'").unwrap();
    let row = Value::parse_json(&desired[0]).unwrap();
    assert_eq!(row.get(["desired", "power"]), Some(&Value::from(9)));
    assert_eq!(row.get(["desired", "$version"]), Some(&Value::from(2)));
    assert!(row.get(["desired", "$metadata", "power", "$lastUpdated"]).is_some());
}
